//! Peers that are not who is pinned, at either end: what promises §5.7 calls the nine wrong peers. Three of them cannot
//! be made with raw public keys; ARCHITECTURE says which.

use super::*;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

const LINK: &[u8] = b"sallypost-link/1";

/// What a peer shows, and whether it calls that a raw public key.
#[derive(Clone, Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    raw: bool,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key))
    }

    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key))
    }

    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn raw(key: &Key) -> Shown {
    Shown { key: key.certified(), raw: true }
}

/// The right key, in what is called a certificate (X.509).
fn certificate(key: &Key) -> Shown {
    Shown { raw: false, ..raw(key) }
}

/// A key of another kind.
fn p256() -> Shown {
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let der = PrivatePkcs8KeyDer::from(pkcs8.as_ref());
    let signing = rustls::crypto::ring::sign::any_ecdsa_type(&der.into()).unwrap();
    let public = CertificateDer::from(signing.public_key().unwrap().to_vec());
    Shown { key: Arc::new(CertifiedKey::new(vec![public], signing)), raw: true }
}

fn protocols(alpn: &[u8]) -> Vec<Vec<u8>> {
    if alpn.is_empty() { Vec::new() } else { vec![alpn.to_vec()] }
}

/// A client of the edge that shows this.
fn client(pair: &Pair, alpn: &[u8], early: bool, shown: Option<Shown>) -> quinn::ClientConfig {
    transport::client_config(Arc::new(tls_of(pair, alpn, early, shown)))
}

/// The TLS of a client that is who it should be.
pub(super) fn crypto(pair: &Pair) -> QuicClientConfig {
    tls_of(pair, LINK, false, Some(raw(&pair.big_key)))
}

fn tls_of(pair: &Pair, alpn: &[u8], early: bool, shown: Option<Shown>) -> QuicClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = pair.edge_key.public().to_vec();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(tls::pinned_only(provider, pinned));
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(Arc::new(shown)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(alpn);
    config.enable_early_data = early;
    QuicClientConfig::try_from(config).unwrap()
}

/// Connects, and waits until the edge has closed that.
async fn refused(
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
    to: SocketAddr,
) -> quinn::ConnectionError {
    let connecting = endpoint.connect_with(config, to, SERVER_NAME).unwrap();
    // In TLS 1.3 a client may believe for a moment that it is in.
    match timeout(FOREVER, connecting).await.unwrap() {
        Ok(connection) => timeout(FOREVER, connection.closed()).await.unwrap(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_former_key_is_an_alarm_only_from_somebody_who_has_it_and_until_the_partner_is_back() {
    let pair = Pair::new();
    let [former, other] = [(); 2].map(|()| Key::generate().unwrap());
    let public = former.public().to_vec();
    pair.edge.with(|state| state.partner.as_mut().unwrap().former_key = Some(public.clone()));
    let shown = || pair.edge_handle.status().borrow().former_key_shown.clone();
    let endpoint = enemy();
    // Its public part is no secret.
    let (certificate, signing) = (former.certified().cert.clone(), Arc::clone(&other.certified().key));
    let forged = Shown { key: Arc::new(CertifiedKey::new(certificate, signing)), raw: true };
    refused(&endpoint, client(&pair, LINK, false, Some(forged)), pair.address).await;
    assert_eq!(shown(), None, "nobody has proved to have it");
    refused(&endpoint, client(&pair, LINK, false, Some(raw(&former))), pair.address).await;
    assert_eq!(shown().map(|shown| shown.key), Some(public));
    assert_eq!(pair.edge.with(|state| state.partner.as_ref().unwrap().epoch), 0, "no hello came through");

    let dialling = pair.dial();
    connected(&pair.edge_handle).await;
    assert_eq!(shown(), None, "the partner is back");
    dialling.abort();
}

#[tokio::test]
async fn wrong_peers_do_not_come_in() {
    let pair = Pair::new();
    let client = |alpn: &[u8], early: bool, shown: Option<Shown>| client(&pair, alpn, early, shown);
    let peers = [
        ("no key", client(LINK, false, None)),
        ("another key", client(LINK, false, Some(raw(&Key::generate().unwrap())))),
        ("the edge's own key", client(LINK, false, Some(raw(&pair.edge_key)))),
        ("a key of another kind", client(LINK, false, Some(p256()))),
        ("a certificate", client(LINK, false, Some(certificate(&pair.big_key)))),
        ("another protocol", client(b"h3", false, Some(raw(&pair.big_key)))),
        ("no protocol", client(b"", false, Some(raw(&pair.big_key)))),
    ];
    let endpoint = enemy();
    for (what, config) in peers {
        let refused = refused(&endpoint, config, pair.address).await;
        use quinn::ConnectionError::{ConnectionClosed, TransportError};
        assert!(matches!(refused, ConnectionClosed(_) | TransportError(_)), "{what}: {refused:?}");
    }
    // The right one, which would like to send before it is known: there is no ticket for that.
    let early = client(LINK, true, Some(raw(&pair.big_key)));
    for _ in 0..2 {
        let connecting = endpoint.connect_with(early.clone(), pair.address, SERVER_NAME).unwrap();
        let connecting = connecting.into_0rtt().err().expect("no 0-RTT");
        timeout(FOREVER, connecting).await.unwrap().unwrap();
    }
    assert_eq!(pair.edge.with(|state| state.partner.as_ref().unwrap().epoch), 0, "no hello came through");
}

#[tokio::test]
async fn wrong_edges_are_not_connected_to() {
    let pair = Pair::new();
    let of_edge = &pair.edge_key;
    for (what, alpn, shown) in [
        ("another key", LINK, raw(&Key::generate().unwrap())),
        ("big's own key", LINK, raw(&pair.big_key)),
        ("a key of another kind", LINK, p256()),
        ("a certificate", LINK, certificate(of_edge)),
        ("another protocol", b"h3", raw(of_edge)),
        ("no protocol", b"", raw(of_edge)),
    ] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(tls::pinned_only(provider, pair.big_key.public().to_vec()))
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = protocols(alpn);
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = quinn::Endpoint::server(transport::server_config(Arc::new(crypto)), loopback).unwrap();
        let dialler = Dialler::new(endpoint.local_addr().unwrap(), pair.big_ring()).unwrap();
        let serving = async {
            let incoming = timeout(FOREVER, endpoint.accept()).await.unwrap().unwrap();
            let Ok(connecting) = incoming.accept() else { return };
            // Its handshake may be over before big has looked at the key.
            if let Ok(connection) = connecting.await {
                let heard = timeout(FOREVER, connection.accept_bi()).await.unwrap();
                assert!(heard.is_err(), "{what}: big has begun to talk");
            }
        };
        let host = Arc::new(Node(Arc::clone(&pair.big)));
        let (handle, parts) = (Handle::new(), Arc::default());
        let attempt = dialler.attempt(&host, &handle, FOREVER, &parts, 0);
        let (_, ended) = tokio::join!(serving, timeout(FOREVER, attempt));
        let (error, round_trip) = ended.unwrap();
        assert!(round_trip.is_none(), "{what}: big connected");
        let wrong_key = matches!(error, LinkError::Session(SessionError::WrongKey));
        assert!(wrong_key || matches!(error, LinkError::Lost(_)), "{what}: {error}");
        assert_eq!(wrong_key, ["another key", "big's own key"].contains(&what), "{what}: {error}");
        assert!(handle.status().borrow().connected.is_none());
    }
}
