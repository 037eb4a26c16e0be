//! A web host under TLS on loopback, for tests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Serves these names, by a certificate that is put into `roots`: what it `says` to each request, of those that come to its
/// address, is the whole response. Where it is.
pub async fn serve(
    names: Vec<String>,
    roots: &Path,
    mut says: impl FnMut(&str, SocketAddr) -> String + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(names).expect("made");
    std::fs::write(roots, made.cert.pem()).expect("written");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that ring has")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut octets = vec![0; 8_192];
            let Ok(length) = stream.read(&mut octets).await else { continue };
            let response = says(&String::from_utf8_lossy(&octets[..length]), address);
            drop(stream.write_all(response.as_bytes()).await);
            drop(stream.shutdown().await);
        }
    });
    (address, serving)
}
