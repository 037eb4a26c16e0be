//! TLS for tests: a server with a certificate made on the spot, a client that takes any certificate.
//!
//! Opportunistic TLS between MTAs verifies nothing (RFC 7435), so neither end here does. Never to be
//! used outside tests.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use shared::smtp::client::opportunistic;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A server's half, with a new self-signed certificate for `name`; and the certificate, as PEM.
///
/// # Panics
/// If `name` is neither a DNS name nor an IP address.
pub fn self_signed_acceptor(name: &str) -> (TlsAcceptor, String) {
    self_signed_acceptor_for(&[name])
}

/// The same, with a certificate for several names.
///
/// # Panics
/// If one of them is neither a DNS name nor an IP address.
pub fn self_signed_acceptor_for(names: &[&str]) -> (TlsAcceptor, String) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("the names can be in a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let pem = made.cert.pem();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], key)
        .expect("the key was made for this certificate");
    (TlsAcceptor::from(Arc::new(config)), pem)
}

/// A client's half that accepts whatever certificate the server shows.
pub fn trusting_connector() -> TlsConnector {
    TlsConnector::from(Arc::new(opportunistic()))
}
