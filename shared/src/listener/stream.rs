//! A mail connection, in clear or under TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::Acceptor;
use crate::sasl::TlsExporter;

/// How long a client may take for its TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// RFC 9266 §2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// A mail connection.
#[derive(Debug)]
pub enum Stream {
    /// In clear.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a Received header or a log line says about TLS (RFC 8314 §4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: String,
    /// As the TLS registry names it: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
}

impl Stream {
    /// The same connection under TLS, after the handshake.
    ///
    /// The caller has discarded all it read ahead: what came in clear must not count as said under
    /// TLS.
    ///
    /// # Errors
    /// A failed or slow handshake, and TLS within TLS. The connection is gone then.
    pub async fn start_tls(self, acceptor: &Acceptor) -> io::Result<Self> {
        let Self::Plain(tcp) = self else {
            return Err(io::Error::other("the connection is under TLS already"));
        };
        let tls = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await??;
        Ok(Self::Tls(Box::new(tls)))
    }

    /// The TLS it is under, if it is.
    pub fn tls(&self) -> Option<TlsFacts> {
        let Self::Tls(tls) = self else { return None };
        let (_, connection) = tls.get_ref();
        Some(TlsFacts {
            version: format!("{:?}", connection.protocol_version()?),
            cipher: format!("{:?}", connection.negotiated_cipher_suite()?.suite()),
        })
    }

    /// What a login under TLS 1.3 can be bound to (RFC 9266 §2).
    pub fn exporter(&self) -> Option<TlsExporter> {
        let Self::Tls(tls) = self else { return None };
        let (_, connection) = tls.get_ref();
        // Before 1.3 it is unique only with an extension that a client may leave out.
        let is_unique = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        is_unique
            .then(|| connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")).ok())
            .flatten()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, octets),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
