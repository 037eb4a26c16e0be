//! TLS on the mail ports: TLS 1.2 and 1.3, a certificate by file, by an authority or a self-signed one, which may change
//! while the node runs.
//!
//! No session tickets, no resumption, no early data: each session proves itself anew. A client that
//! offers protocols by ALPN, none of them ours, is refused; so a browser cannot be made to speak to
//! us in another's name (ALPACA, RFC 9325 §3.7).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::state::write_private;

/// Where the self-signed certificate and its key are kept in a node's state, among its keys: DNS may name it (TLSA), so
/// it is in backups. Removing the file makes the node make new ones.
const SELF_SIGNED: &str = "keys/tls.key";
/// Where the chain is kept that an authority has issued for the key of the self-signed certificate.
const ISSUED: &str = "tls-issued.pem";

/// Characters of a common name (RFC 5280, appendix A.1).
const COMMON_NAME_MAX: usize = 64;

/// A certificate chain and its key.
#[derive(Debug)]
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should, as PEM.
    #[error("{} holds no {what} in PEM form: {reason}", .path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it.
        reason: rustls_pki_types::pem::Error,
    },
    /// Others than its owner can read the key.
    #[error("others can read the key {}: chmod 600 it", .0.display())]
    OpenKey(PathBuf),
    /// The certificate could not be made.
    #[error("cannot make a certificate for {hostname}: {source}")]
    Making {
        /// The name in the certificate.
        hostname: String,
        /// Why.
        source: rcgen::Error,
    },
    /// Certificate and key cannot be used, or do not belong together.
    #[error("the certificate and its key cannot be used: {0}; are they a pair?")]
    Unusable(#[from] rustls::Error),
}

impl TlsIdentity {
    /// The identity in two PEM files.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let found = fs::metadata(key).map_err(|source| IdentityError::Io { path: key.into(), source })?;
        if found.mode() & 0o077 != 0 {
            return Err(IdentityError::OpenKey(key.into()));
        }
        let chain = chain_of(&read(certificate)?, certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|reason| IdentityError::Pem {
            path: key.into(),
            what: "private key",
            reason,
        })?;
        Ok(Self { chain, key })
    }

    /// This identity's key with the chain that an authority has issued for it and that is kept in the folder `state`, if
    /// there is one ([`Self::keep_issued`]).
    ///
    /// # Errors
    /// [`IdentityError`] if it cannot be read, or is for another key.
    pub fn issued_in(&self, state: &Path) -> Result<Option<Self>, IdentityError> {
        let path = state.join(ISSUED);
        if path.exists() { self.with_chain(chain_of(&read(&path)?, &path)?).map(Some) } else { Ok(None) }
    }

    /// This identity's key with the chain that an authority has issued for it, in PEM form.
    ///
    /// # Errors
    /// [`IdentityError`] if it holds no certificate, or one for another key.
    pub fn issued(&self, chain: &str) -> Result<Self, IdentityError> {
        self.with_chain(chain_of(chain.as_bytes(), Path::new("the answer"))?)
    }

    fn with_chain(&self, chain: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        let identity = Self { chain, key: self.key.clone_key() };
        certified(&identity).map(|_| identity)
    }

    /// Keeps in the folder `state` a chain that [`Self::issued`] has taken. It is durable when this returns; before, the
    /// one that was there is.
    pub fn keep_issued(state: &Path, chain: &str) -> Result<(), IdentityError> {
        let path = state.join(ISSUED);
        write_private(&path, chain.as_bytes()).map_err(|source| IdentityError::Io { path, source })
    }

    /// What an authority is asked by to vouch for `hostname` with this identity's key: a request in DER form (RFC 2986).
    pub fn request(&self, hostname: &str) -> Result<Vec<u8>, IdentityError> {
        let making = |source| IdentityError::Making { hostname: hostname.into(), source };
        let key = KeyPair::try_from(&self.key).map_err(making)?;
        let mut params = CertificateParams::new([hostname.to_owned()]).map_err(making)?;
        // The name is in the request once, as the alternative name that counts.
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&key).map_err(making)?.der().to_vec())
    }

    /// The self-signed identity that is kept in the folder `state`, if there is one.
    pub fn kept_in(state: &Path) -> Result<Option<Self>, IdentityError> {
        let path = state.join(SELF_SIGNED);
        if path.exists() { Self::from_files(&path, &path).map(Some) } else { Ok(None) }
    }

    /// The certificate, and those between it and its root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The hash of its public key, by which DNS can name it (a TLSA record 3 1 1, RFC 6698 §2.1).
    pub fn key_hash(&self) -> Result<[u8; 32], IdentityError> {
        let certificate = self.chain.first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let key = rustls::server::ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        Ok(Sha256::digest(key.as_ref()).into())
    }

    /// The self-signed identity kept in the folder `state`; made for `hostname` the first time.
    pub fn self_signed_in(state: &Path, hostname: &str) -> Result<Self, IdentityError> {
        let path = state.join(SELF_SIGNED);
        if !path.exists() {
            let making = |source| IdentityError::Making { hostname: hostname.into(), source };
            let key = KeyPair::generate().map_err(making)?;
            let mut params = CertificateParams::new([hostname.to_owned()]).map_err(making)?;
            // For people: what counts is the alternative name.
            params.distinguished_name = DistinguishedName::new();
            if hostname.len() <= COMMON_NAME_MAX {
                params.distinguished_name.push(DnType::CommonName, hostname);
            }
            let made = params.self_signed(&key).map_err(making)?;
            let pem = made.pem() + &key.serialize_pem();
            let keys = path.parent().unwrap_or(state);
            let written = fs::DirBuilder::new().recursive(true).mode(0o700).create(keys);
            written
                .and_then(|()| write_private(&path, pem.as_bytes()))
                .map_err(|source| IdentityError::Io { path: path.clone(), source })?;
        }
        Self::from_files(&path, &path)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    // Nobody may ever write into a pipe.
    let kind = fs::metadata(path).and_then(|found| match found.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file")),
    });
    kind.and_then(|()| fs::read(path)).map_err(|source| IdentityError::Io { path: path.into(), source })
}

/// The certificates in `bytes`, which are what `path` holds.
fn chain_of(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let found = chain.and_then(|chain| {
        if chain.is_empty() { Err(rustls_pki_types::pem::Error::NoItemsFound) } else { Ok(chain) }
    });
    found.map_err(|reason| IdentityError::Pem { path: path.into(), what: "certificate", reason })
}

fn certified(identity: &TlsIdentity) -> Result<CertifiedKey, IdentityError> {
    let TlsIdentity { chain, key } = identity;
    Ok(CertifiedKey::from_der(chain.clone(), key.clone_key(), &default_provider())?)
}

/// The identity that is shown now. It may be changed at any time; connections that are under TLS already stay.
#[derive(Debug)]
pub struct CurrentIdentity(RwLock<Arc<CertifiedKey>>);

impl CurrentIdentity {
    /// Shows `identity`.
    pub fn new(identity: &TlsIdentity) -> Result<Self, IdentityError> {
        Ok(Self(RwLock::new(Arc::new(certified(identity)?))))
    }

    /// Shows another one from the next connection on.
    ///
    /// # Errors
    /// [`IdentityError`] if it cannot be used; the one that was there stays then.
    pub fn change(&self, identity: &TlsIdentity) -> Result<(), IdentityError> {
        let certified = Arc::new(certified(identity)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Takes connections under TLS, as the identity that is shown at that moment, for one protocol.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// For `protocol` as ALPN names it: `smtp` or `pop3`. A client need not use ALPN.
    pub fn new(identity: &Arc<CurrentIdentity>, protocol: &str) -> Result<Self, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<CurrentIdentity>::clone(identity));
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(tcp).await
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::super::stream::HANDSHAKE_TIMEOUT;
    use super::super::{Stream, TlsFacts};
    use super::*;

    /// A client that trusts the identity, with these versions and ALPN protocols.
    fn connector(
        identity: &TlsIdentity,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(identity.chain[0].clone()).expect("a certificate");
        let provider = Arc::new(default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that ring has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// A connection to ourselves, upgraded on both sides; an echo of `ping` over it.
    async fn upgraded(identity: &TlsIdentity, connector: TlsConnector) -> io::Result<(String, TlsFacts)> {
        let current = Arc::new(CurrentIdentity::new(identity).expect("usable"));
        upgraded_as(&Acceptor::new(&current, "pop3").expect("usable"), connector).await
    }

    async fn upgraded_as(acceptor: &Acceptor, connector: TlsConnector) -> io::Result<(String, TlsFacts)> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let server = Stream::Plain(listener.accept().await?.0);
        let client = async {
            let name = "mx.example.com".try_into().expect("a name");
            let mut tls = connector.connect(name, client).await?;
            tls.write_all(b"ping").await?;
            tls.shutdown().await
        };
        let server = async {
            let mut stream = server.start_tls(acceptor).await?;
            let facts = stream.tls().expect("under TLS");
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await?;
            Ok((heard, facts))
        };
        let (sent, heard) = tokio::join!(client, server);
        sent.and(heard)
    }

    #[tokio::test]
    async fn a_stream_is_upgraded_under_both_versions() {
        let state = tempfile::tempdir().expect("a folder");
        let identity = TlsIdentity::self_signed_in(state.path(), "mx.example.com").expect("made");
        for (version, name) in [(&rustls::version::TLS13, "TLSv1_3"), (&rustls::version::TLS12, "TLSv1_2")] {
            for alpn in [&[][..], &["pop3"], &["imap", "pop3"]] {
                let (heard, facts) =
                    upgraded(&identity, connector(&identity, &[version], alpn)).await.expect("TLS");
                assert_eq!((heard.as_str(), facts.version.as_str()), ("ping", name), "{alpn:?}");
            }
        }
    }

    /// On a stopped clock.
    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_its_time_however_it_trickles() {
        let state = tempfile::tempdir().expect("a folder");
        let identity = TlsIdentity::self_signed_in(state.path(), "mx.example.com").expect("made");
        let current = Arc::new(CurrentIdentity::new(&identity).expect("usable"));
        let acceptor = Acceptor::new(&current, "smtp").expect("usable");
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let server = Stream::Plain(listener.accept().await.expect("accepted").0);
        let trickling = async {
            // The beginning of a ClientHello of 512 octets.
            for octet in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into_iter().chain(std::iter::repeat(0)) {
                client.write_all(&[octet]).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok::<_, io::Error>(())
        };
        let begun = tokio::time::Instant::now();
        let upgraded = tokio::select! {
            upgraded = server.start_tls(&acceptor) => upgraded,
            sent = trickling => panic!("it is hung up on: {sent:?}"),
        };
        let error = upgraded.expect_err("it does not end");
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, HANDSHAKE_TIMEOUT));
    }

    #[tokio::test]
    async fn a_client_of_another_protocol_is_refused() {
        let state = tempfile::tempdir().expect("a folder");
        let identity = TlsIdentity::self_signed_in(state.path(), "mx.example.com").expect("made");
        let foreign = connector(&identity, &[&rustls::version::TLS13], &["h2", "http/1.1"]);
        let error = upgraded(&identity, foreign).await.expect_err("no protocol in common");
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    }

    #[tokio::test]
    async fn another_identity_is_shown_from_the_next_connection_on() {
        let [one, other] = [(); 2].map(|()| {
            let folder = tempfile::tempdir().expect("a folder");
            TlsIdentity::self_signed_in(folder.path(), "mx.example.com").expect("made")
        });
        let to = |identity: &TlsIdentity| connector(identity, &[&rustls::version::TLS13], &[]);
        let current = Arc::new(CurrentIdentity::new(&one).expect("usable"));
        let acceptor = Acceptor::new(&current, "smtp").expect("usable");
        assert!(upgraded_as(&acceptor, to(&one)).await.is_ok());
        assert!(upgraded_as(&acceptor, to(&other)).await.is_err(), "it is another one");
        current.change(&other).expect("usable");
        assert!(upgraded_as(&acceptor, to(&other)).await.is_ok());
        assert!(upgraded_as(&acceptor, to(&one)).await.is_err(), "it is shown no more");
        let mixed = TlsIdentity { chain: one.chain, key: other.key.clone_key() };
        assert!(current.change(&mixed).is_err());
        assert!(upgraded_as(&acceptor, to(&other)).await.is_ok(), "what cannot be used changes nothing");
    }

    #[test]
    fn what_an_authority_issues_is_for_the_key_that_is_there() {
        let state = tempfile::tempdir().expect("a folder");
        let own = TlsIdentity::self_signed_in(state.path(), "mx.example.com").expect("made");
        assert!(own.issued_in(state.path()).expect("readable").is_none());
        let request = own.request("mx.example.com").expect("made");
        let spki = own.key_hash().expect("hashed");
        assert!(!request.is_empty());
        // Signed once more by itself, it stands for one that an authority has issued.
        let key = KeyPair::try_from(&own.key).expect("a key");
        let issued =
            CertificateParams::new(["mx.example.com".to_owned()]).and_then(|params| params.self_signed(&key));
        let chain = issued.expect("made").pem();
        let issued = own.issued(&chain).expect("for that key");
        TlsIdentity::keep_issued(state.path(), &chain).expect("kept");
        let kept = own.issued_in(state.path()).expect("readable").expect("kept");
        assert!(kept.chain == issued.chain && kept.chain != own.chain);
        assert_eq!(kept.key_hash().expect("hashed"), spki, "the key is the same");
        let folder = tempfile::tempdir().expect("a folder");
        let other = TlsIdentity::self_signed_in(folder.path(), "mx.example.com").expect("made");
        let pem = fs::read_to_string(folder.path().join(SELF_SIGNED)).expect("readable");
        assert!(matches!(own.issued(&pem), Err(IdentityError::Unusable(_))), "it is for another key");
        assert!(other.issued(&pem).is_ok());
        assert!(
            matches!(other.issued_in(state.path()), Err(IdentityError::Unusable(_))),
            "nor is what is kept"
        );
        fs::create_dir(folder.path().join(ISSUED)).expect("made");
        let none = other.issued_in(folder.path()).expect_err("a folder").to_string();
        assert!(none.contains("tls-issued.pem: it is no regular file"), "{none}");
        assert!(matches!(own.issued("no certificate"), Err(IdentityError::Pem { .. })));
    }

    #[test]
    fn the_self_signed_identity_is_made_once_and_is_ours_alone() {
        let state = tempfile::tempdir().expect("a folder");
        let made = TlsIdentity::self_signed_in(state.path(), "mx.example.com").expect("made");
        let kept = TlsIdentity::self_signed_in(state.path(), "mx.example.com").expect("kept");
        assert_eq!(made.chain, kept.chain);
        let has = |text: &[u8]| made.chain[0].windows(text.len()).any(|octets| octets == text);
        assert!(has(b"mx.example.com") && !has(b"rcgen"), "it says whose it is, and not who has made it");
        let path = state.path().join(SELF_SIGNED);
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
        let open = TlsIdentity::self_signed_in(state.path(), "mx.example.com");
        assert!(matches!(open, Err(IdentityError::OpenKey(_))));
    }

    #[test]
    fn files_that_are_no_identity_are_named() {
        let state = tempfile::tempdir().expect("a folder");
        let write = |name: &str, content: &[u8]| {
            let path = state.path().join(name);
            write_private(&path, content).expect("a new file");
            path
        };
        let empty = write("empty.pem", b"");
        let error = TlsIdentity::from_files(&empty, &empty).expect_err("nothing in it");
        assert!(error.to_string().contains("empty.pem holds no certificate in PEM form"), "{error}");
        let absent = state.path().join("absent.pem");
        assert!(matches!(TlsIdentity::from_files(&empty, &absent), Err(IdentityError::Io { .. })));

        let [one, other] = ["one", "other"].map(|folder| {
            let folder = state.path().join(folder);
            fs::create_dir(&folder).expect("a new folder");
            TlsIdentity::self_signed_in(&folder, "mx.example.com").expect("made")
        });
        let mixed = TlsIdentity { chain: one.chain, key: other.key };
        assert!(matches!(CurrentIdentity::new(&mixed), Err(IdentityError::Unusable(_))));
    }
}
