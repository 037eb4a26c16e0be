//! TCP plumbing under the mail protocols: listening, admission, TLS.
//!
//! It speaks no protocol. A [`Listener`] hands out connections, each with the [`Permit`] that counts
//! it; over a limit, the caller's refusal line is sent and the connection closed. Running out of
//! descriptors slows accepting down and ends nothing. A [`Stream`] is a connection in clear or
//! under TLS; the upgrade consumes the one and gives the other, so that nothing can be read on both
//! sides of it (RFC 3207 §4.2, RFC 2595 §4).
//!
//! No client address is trusted more than another here.

mod admission;
mod stream;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::telemetry::Quoted;

pub use admission::{Admission, IPV4_NETWORK_BITS, IPV6_NETWORK_BITS, Kept, Permit, host, network};
pub use stream::{Stream, TlsFacts};
pub use tls::{Acceptor, CurrentIdentity, IdentityError, TlsIdentity};

/// Connections the system holds for us between two calls of `accept`.
pub const BACKLOG: i32 = 1_024;
/// The pause after `accept` failed, for descriptors to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, and who may come in by it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    admission: Arc<Admission>,
    refusal: &'static str,
}

impl Listener {
    /// Listens on `address`. Connections that `admission` does not admit are sent `refusal`, a
    /// whole reply line with its CRLF, or nothing where TLS comes first.
    ///
    /// Must be called within a tokio runtime.
    pub fn bind(address: SocketAddr, admission: Arc<Admission>, refusal: &'static str) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // So that [::]:25 and 0.0.0.0:25 can both be listened on.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { socket: TcpListener::from_std(socket.into())?, admission, refusal })
    }

    /// Where it listens: the address it was bound to, with the port the system chose if that was 0.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection that is admitted, and where it comes from. Can be cancelled at any time.
    pub async fn accept(&self) -> (Stream, SocketAddr, Permit) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => match self.admission.admit(peer.ip()) {
                    Some(permit) => {
                        // Replies are short and each is waited for. It fails only on a dead socket.
                        let _ = stream.set_nodelay(true);
                        return (Stream::Plain(stream), peer, permit);
                    }
                    None => refuse(&stream, peer, self.refusal),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Runs `session` for each connection, in a task and with a place of its own, until `stopping` turns
    /// true. Sessions that have begun go on.
    pub async fn serve<F, S>(self, mut stopping: watch::Receiver<bool>, session: F)
    where
        F: Fn(Stream, SocketAddr) -> S,
        S: Future<Output = io::Result<()>> + Send + 'static,
    {
        loop {
            let (stream, peer, permit) = tokio::select! {
                accepted = self.accept() => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            let session = session(stream, peer);
            tokio::spawn(async move {
                if let Err(error) = session.await {
                    tracing::debug!(%peer, %error, "a connection broke");
                }
                drop(permit);
            });
        }
    }
}

/// Says no without waiting: a socket just accepted has room for a line.
fn refuse(stream: &TcpStream, peer: SocketAddr, refusal: &str) {
    tracing::info!(client = %peer.ip().to_canonical(), reply = %Quoted(refusal.trim_end()), "refused: too many sessions");
    let _ = stream.try_write(refusal.as_bytes());
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn listening(sessions: usize, per_host: usize) -> (Listener, SocketAddr) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let admission = Admission::new(sessions, per_host);
        let listener = Listener::bind(any, admission, "421 4.3.2 too busy\r\n").expect("a free port");
        let address = listener.local_address().expect("it is bound");
        (listener, address)
    }

    #[tokio::test]
    async fn over_the_cap_the_refusal_is_said_and_a_freed_place_is_taken() {
        let (listener, address) = listening(2, 2).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let first = listener.accept().await;
        let _second = listener.accept().await;
        let mut refused = String::new();
        let mut third = clients.pop().expect("three are connected");
        let accepting = tokio::spawn(async move { listener.accept().await });
        third.read_to_string(&mut refused).await.expect("closed in order");
        assert_eq!(refused, "421 4.3.2 too busy\r\n");
        drop(first);
        let mut fourth = TcpStream::connect(address).await.expect("it listens");
        let (mut stream, peer, _permit) = accepting.await.expect("no panic");
        assert_eq!(peer, fourth.local_addr().expect("connected"));
        stream.write_all(b"220 ready\r\n").await.expect("connected");
        let mut greeting = [0; 11];
        fourth.read_exact(&mut greeting).await.expect("greeted");
        assert_eq!(&greeting, b"220 ready\r\n");
    }

    #[tokio::test]
    async fn an_address_is_listened_on_once() {
        let (_listener, address) = listening(1, 1).await;
        let again = Listener::bind(address, Admission::new(1, 1), "");
        assert_eq!(again.map(|_| ()).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
    }
}
