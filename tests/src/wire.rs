//! A connection that speaks lines, then perhaps TLS, then lines again: SMTP's and POP3's transport.
//!
//! Lines end in LF and are handed over with whatever ended them, so that a test sees every stray CR.
//! A dot-stuffed block (RFC 5321 §4.5.2, RFC 1939 §3) ends at CRLF . CRLF and nowhere else: a bare
//! LF before the dot is content. Nothing that was read in clear survives the change to TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsStream};

/// Octets in one line; RFC 5321 §4.5.3.1.6 allows 1,000, tests send and meet longer ones.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Octets in one dot-stuffed block.
pub const BLOCK_BYTES_MAX: usize = 256 * 1024 * 1024;

const READ_BYTES: usize = 32 * 1024;

/// One connection, in clear or under TLS.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    /// What was read and not yet taken: `buffer[taken..]`.
    buffer: Vec<u8>,
    taken: usize,
}

#[derive(Debug)]
enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake failed.
    Gone,
}

impl Wire {
    /// Wraps a connection just made or accepted.
    pub fn new(stream: TcpStream) -> Self {
        // Command and answer alternate: waiting to fill a segment would only add delay.
        let _ = stream.set_nodelay(true);
        Self { stream: Stream::Clear(stream), buffer: Vec::new(), taken: 0 }
    }

    /// Connects in clear.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).await.map(Self::new)
    }

    /// Connects in clear from an address of this host's; all of 127.0.0.0/8 are.
    pub async fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind((source, 0).into())?;
        socket.connect(address).await.map(Self::new)
    }

    /// Whether it runs under TLS now.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Goes over to TLS as the client, taking any certificate. After an error the connection is gone.
    pub async fn start_tls(&mut self) -> io::Result<()> {
        let stream = self.take_clear()?;
        let name = ServerName::from(stream.peer_addr()?.ip());
        let tls = crate::tls::trusting_connector().connect(name, stream).await?;
        self.stream = Stream::Tls(Box::new(tls.into()));
        Ok(())
    }

    /// Goes over to TLS as the server. After an error the connection is gone.
    pub async fn accept_tls(&mut self, acceptor: &TlsAcceptor) -> io::Result<()> {
        let tls = acceptor.accept(self.take_clear()?).await?;
        self.stream = Stream::Tls(Box::new(tls.into()));
        Ok(())
    }

    /// What a login under TLS can be bound to (RFC 9266).
    pub fn exporter(&self) -> Option<[u8; 32]> {
        let Stream::Tls(stream) = &self.stream else { return None };
        let label = b"EXPORTER-Channel-Binding";
        match stream.as_ref() {
            TlsStream::Client(client) => {
                client.get_ref().1.export_keying_material([0; 32], label, Some(b"")).ok()
            }
            TlsStream::Server(server) => {
                server.get_ref().1.export_keying_material([0; 32], label, Some(b"")).ok()
            }
        }
    }

    /// The certificate the other side showed, DER.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        let Stream::Tls(stream) = &self.stream else { return None };
        stream.get_ref().1.peer_certificates()?.first().map(AsRef::as_ref)
    }

    fn take_clear(&mut self) -> io::Result<TcpStream> {
        if self.taken < self.buffer.len() {
            return Err(invalid("the peer sent more in clear after it agreed to start TLS"));
        }
        match std::mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Clear(stream) => Ok(stream),
            Stream::Tls(_) | Stream::Gone => Err(invalid("TLS has already been started")),
        }
    }

    /// Sends `bytes` and sees that they leave.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends this side of the connection, under TLS with its close_notify.
    pub async fn close(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
            Stream::Gone => Ok(()),
        }
    }

    /// One line, with the CRLF or bare LF that ended it.
    ///
    /// # Errors
    /// `UnexpectedEof` if the peer closed before the end of a line.
    pub async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let waiting = self.buffer.get(self.taken..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', waiting.get(searched..).unwrap_or_default()) {
                let line = waiting[..searched + at + 1].to_vec();
                self.taken += line.len();
                return Ok(line);
            }
            searched = waiting.len();
            if searched > LINE_BYTES_MAX {
                return Err(invalid("the peer sent a line without end"));
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads over a dot-stuffed block that follows a line, as fast as it comes; how many octets it had.
    pub async fn skip_block(&mut self) -> io::Result<u64> {
        // An empty one ends where it begins.
        let (mut octets, mut kept) = (0, b"\r\n".to_vec());
        loop {
            kept.extend_from_slice(self.buffer.get(self.taken..).unwrap_or_default());
            if let Some(at) = memchr::memmem::find(&kept, b"\r\n.\r\n") {
                let beyond = kept.len() - (at + 5);
                self.taken = self.buffer.len() - beyond;
                return Ok(octets + at as u64);
            }
            let done = kept.len().saturating_sub(4);
            kept.drain(..done);
            octets += done as u64;
            self.taken = self.buffer.len();
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A dot-stuffed block, unstuffed; its final line is consumed and not part of the result.
    pub async fn block(&mut self) -> io::Result<Vec<u8>> {
        let mut block = Vec::new();
        let mut at_line_start = true;
        loop {
            let line = self.line().await?;
            if at_line_start && line == b".\r\n" {
                return Ok(block);
            }
            let stuffed = at_line_start && line.first() == Some(&b'.');
            block.extend_from_slice(line.get(usize::from(stuffed)..).unwrap_or_default());
            at_line_start = line.ends_with(b"\r\n");
            if block.len() > BLOCK_BYTES_MAX {
                return Err(invalid("the peer sent a message without end"));
            }
        }
    }

    /// So many octets, whatever they are.
    pub async fn octets(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        while octets.len() < length {
            self.readable().await?;
            let end = self.buffer.len().min(self.taken + length - octets.len());
            octets.extend_from_slice(self.buffer.get(self.taken..end).unwrap_or_default());
            self.taken = end;
        }
        Ok(octets)
    }

    /// Waits until the peer has sent something, and leaves it to be read.
    pub async fn readable(&mut self) -> io::Result<()> {
        if self.taken == self.buffer.len() && self.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? > 0 {}
        Ok(self.buffer.split_off(self.taken))
    }

    /// Reads once; 0 is the end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.reserve(READ_BYTES);
        match &mut self.stream {
            Stream::Clear(stream) => stream.read_buf(&mut self.buffer).await,
            Stream::Tls(stream) => stream.read_buf(&mut self.buffer).await,
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// `message` with every leading dot doubled, its last line ended, and the final dot left off.
pub fn dot_stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    let mut rest = message;
    if rest.first() == Some(&b'.') {
        out.push(b'.');
    }
    while let Some(at) = memchr::memmem::find(rest, b"\r\n.") {
        let (line, next) = rest.split_at(at + 2);
        out.extend_from_slice(line);
        out.push(b'.');
        rest = next;
    }
    out.extend_from_slice(rest);
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair() -> (Wire, Wire) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(Wire::connect(address), listener.accept());
        (near.expect("connected"), Wire::new(far.expect("accepted").0))
    }

    async fn check_block(sent: &[u8], expected: &[u8]) {
        let (mut near, mut far) = pair().await;
        near.send(sent).await.expect("sent");
        assert_eq!(far.block().await.expect("a block"), expected, "{sent:?}");
    }

    #[tokio::test]
    async fn a_block_ends_only_at_crlf_dot_crlf() {
        check_block(b".\r\n", b"").await;
        check_block(b"a\r\n.\r\n", b"a\r\n").await;
        check_block(b"..a\r\n..\r\n.\r\n", b".a\r\n.\r\n").await;
        check_block(b"a\n.\r\nb\r\n.\r\n", b"a\n.\r\nb\r\n").await;
        check_block(b"a\r\n.\nb\r\n.\r\n", b"a\r\n\nb\r\n").await;
    }

    #[tokio::test]
    async fn a_block_is_read_over_and_no_more() {
        for block in [&b".\r\n"[..], b"a\r\n.\r\n", b"..\r\n.a\r\n\r\n.\r\n"] {
            let (mut near, mut far) = pair().await;
            near.send(block).await.expect("sent");
            near.send(b"+OK\r\n").await.expect("sent");
            assert_eq!(far.skip_block().await.expect("a block"), block.len() as u64 - 3, "{block:?}");
            assert_eq!(far.line().await.expect("a line"), b"+OK\r\n");
        }
    }

    #[tokio::test]
    async fn what_is_stuffed_comes_out_the_same() {
        for message in
            [&b""[..], b".", b"a\r\n.\r\nb\r\n", b".\r\n..\r\n...x\r\n", b"\r\n.\r\n", b"a\r\n\r\n"]
        {
            let mut wire = dot_stuffed(message);
            wire.extend_from_slice(b".\r\n");
            let mut expected = message.to_vec();
            if !expected.is_empty() && !expected.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            check_block(&wire, &expected).await;
        }
    }

    #[tokio::test]
    async fn nothing_read_in_clear_survives_tls() {
        let (mut near, mut far) = pair().await;
        near.send(b"STARTTLS\r\nNOOP\r\n").await.expect("sent");
        far.line().await.expect("a line");
        let refused = far.accept_tls(&crate::tls::self_signed_acceptor("mx.remote.example").0).await;
        assert_eq!(refused.expect_err("refused").kind(), io::ErrorKind::InvalidData);
    }
}
