//! TLS for the link: version 1.3, both sides show a raw Ed25519 public key (RFC 7250), both are pinned.
//!
//! A verifier admits a key by its bytes and then checks that the handshake is signed with it; one that the partner has
//! had before is refused after that, so that who is said to have it has it. There are no names, no chains and no dates. The edge admits any key while an invitation is open: the
//! session lets such a partner no further than proving the invitation.

use std::fmt;
use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};

use super::{Handle, Key, Keys, LinkError, transport};
use crate::host::Partner;

/// Names the protocol inside TLS (RFC 7301).
const ALPN: &[u8] = b"sallypost-link/1";
/// QUIC wants a server name. Big says by it which of the edge's keys it has pinned, each as a label of its own before
/// this one; it resolves nowhere.
const SERVER_NAME: &str = "sallypost-link.invalid";
/// Characters of a label.
const LABEL_CHARACTERS: usize = 16;
/// What the pairing's channel binding is exported under (RFC 8446 §7.5).
const BINDING_LABEL: &[u8] = b"EXPORTER-sallypost-link-pairing";

/// TLS's alert (RFC 8446 §6.2) that rustls makes of a key that is not admitted.
const ACCESS_DENIED: u8 = 49;

/// How QUIC says that a key was not admitted.
pub(super) fn not_pinned() -> quinn::TransportErrorCode {
    quinn::TransportErrorCode::crypto(ACCESS_DENIED)
}

/// The server name of an edge of which these public keys are pinned.
pub(super) fn server_name<'a>(pinned: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    pinned.into_iter().map(|key| label(key) + ".").chain([SERVER_NAME.to_owned()]).collect()
}

/// What a key is called in a server name: enough of its digest to tell a node's own keys apart.
fn label(key: &[u8]) -> String {
    blake3::hash(key).to_hex().chars().take(LABEL_CHARACTERS).collect()
}

/// The edge's choice among its keys for one connection: the first that big has pinned, else the present one.
pub(super) struct Choice {
    keys: Keys,
    shown: OnceLock<Key>,
}

impl Choice {
    pub(super) fn new(keys: Keys) -> Arc<Self> {
        Arc::new(Self { keys, shown: OnceLock::new() })
    }

    /// The key that is announced beside the shown one.
    pub(super) fn announced(&self) -> Option<Vec<u8>> {
        self.keys.announced_beside(self.shown().public())
    }

    /// The key that is shown or announced.
    pub(super) fn wanted(&self) -> &Key {
        self.keys.wanted()
    }

    /// The key that was shown.
    pub(super) fn shown(&self) -> &Key {
        self.shown.get().unwrap_or(&self.keys.present)
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice").field("shown", self.shown()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default();
        let is_pinned = |key: &&Key| name.split('.').any(|known| known == label(key.public()));
        let key = self.keys.in_order().find(is_pinned).unwrap_or(&self.keys.present);
        Some(self.shown.get_or_init(|| key.clone()).certified())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// The edge's configuration; `known` says what is known of a public key.
pub(super) fn server_config(
    choice: Arc<Choice>,
    known: impl Fn(&[u8]) -> Known + Send + Sync + 'static,
    handle: Handle,
) -> Result<quinn::ServerConfig, LinkError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(Arc::new(Pinned { provider, known: Box::new(known), handle }))
        .with_cert_resolver(choice);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(config).map_err(|error| LinkError::Tls(error.to_string()))?;
    Ok(transport::server_config(Arc::new(crypto)))
}

/// What is known of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Its owner may connect.
    pub(super) admitted: bool,
    /// The partner has had it before. Who has it still is refused, which an operator is told: the partner went back to a
    /// backup, or somebody else has the key.
    pub(super) former: bool,
}

impl Known {
    /// What is known of a key where this one is pinned, and nothing of who has had which before.
    pub(super) fn by(key: &[u8], pinned: &[u8]) -> Self {
        Self { admitted: key == pinned, former: false }
    }

    /// What is known of a key where this is the partner.
    pub(super) fn of(key: &[u8], partner: Option<&Partner>) -> Self {
        Self {
            admitted: partner.is_some_and(|partner| partner.is_pinned(key)),
            former: partner.is_some_and(|partner| partner.former_key.as_deref() == Some(key)),
        }
    }
}

/// Big's configuration; `known` says what is known of a public key.
pub(super) fn client_config(
    key: &Key,
    known: impl Fn(&[u8]) -> Known + Send + Sync + 'static,
    handle: Handle,
) -> Result<quinn::ClientConfig, LinkError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { provider, known: Box::new(known), handle }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(config).map_err(|error| LinkError::Tls(error.to_string()))?;
    Ok(transport::client_config(Arc::new(crypto)))
}

/// Admits the owner of one key.
#[cfg(test)]
pub(super) fn pinned_only(
    provider: Arc<CryptoProvider>,
    pinned: Vec<u8>,
) -> Arc<impl ServerCertVerifier + ClientCertVerifier> {
    let known = move |shown: &[u8]| Known::by(shown, &pinned);
    Arc::new(Pinned { provider, known: Box::new(known), handle: Handle::new() })
}

/// The public key that the partner proved to own.
pub(super) fn peer_key(connection: &quinn::Connection) -> Result<Vec<u8>, LinkError> {
    let shown =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    match shown.as_deref().map(Vec::as_slice) {
        Some([key]) => Ok(key.to_vec()),
        _ => Err(LinkError::Tls("the partner shows no key".into())),
    }
}

/// Bytes that only the two ends of this TLS session know.
pub(super) fn binding(connection: &quinn::Connection) -> Result<[u8; 32], LinkError> {
    let mut binding = [0; 32];
    connection
        .export_keying_material(&mut binding, BINDING_LABEL, b"")
        .map_err(|_| LinkError::Tls("nothing can be exported from the TLS session".into()))?;
    Ok(binding)
}

fn tls_error(error: Error) -> LinkError {
    LinkError::Tls(error.to_string())
}

/// What is known of a public key.
type Knows = Box<dyn Fn(&[u8]) -> Known + Send + Sync>;

/// Verifies a raw public key by its bytes, and the handshake by its signature.
struct Pinned {
    provider: Arc<CryptoProvider>,
    known: Knows,
    /// Is told of a former key.
    handle: Handle,
}

impl Pinned {
    fn check(&self, key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        // Anybody can show a key; the owner of a former one is refused once the signature has shown who that is.
        let Known { admitted, former } = (self.known)(key);
        if others.is_empty() && (admitted || former) { Ok(()) } else { Err(Self::refused()) }
    }

    fn refused() -> Error {
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(Error::PeerIncompatible(rustls::PeerIncompatible::NoSignatureSchemesInCommon));
        }
        let owner = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature_with_raw_key(message, &owner, signature, algorithms)?;
        let Known { admitted, former } = (self.known)(key);
        if former {
            self.handle.former_key_shown(key);
        }
        if admitted { Ok(valid) } else { Err(Self::refused()) }
    }

    fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic))
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(key, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(key, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
