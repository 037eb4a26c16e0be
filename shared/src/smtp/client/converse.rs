//! The thin driver: one connection, one message.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Action, Class, Client, Config, Message, Outcome, Status, TlsPolicy};
use crate::smtp::Enhanced;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(180);
const READ_BYTES: usize = 16 * 1024;

/// Whom to connect to.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name: for messages, and what TLS asks for.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The TLS that it is offered.
    pub tls: Arc<ClientConfig>,
}

/// What became of one connection.
#[derive(Debug)]
pub enum Talk {
    /// The host dealt with the message; under TLS or not.
    Done(Vec<Outcome>, bool),
    /// It did not, although it may have `greeted`: another address or host may.
    Next {
        /// Why not.
        status: Status,
        /// The host was there: it has said something.
        greeted: bool,
    },
    /// The handshake failed: where TLS is not required, the same address may do without it.
    HandshakeFailed(Status),
}

trait Connection: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}
type Stream = Pin<Box<dyn Connection>>;

/// Connects and delivers one message, whose content comes in pieces, `None` at its end. If it cannot be read,
/// the host does not get the message.
pub async fn converse<E>(
    host: &Host,
    config: Config,
    message: Message,
    mut content: impl FnMut() -> Result<Option<Vec<u8>>, E>,
) -> Talk {
    let mut stream: Stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(host.address)).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Box::pin(stream)
        }
        Ok(Err(error)) => return not_there(host, &error.to_string()),
        Err(_) => return not_there(host, "no answer in 30 s"),
    };
    if config.tls == TlsPolicy::Implicit {
        stream = match handshake(stream, host).await {
            Ok(secured) => secured,
            Err(error) => return Talk::HandshakeFailed(handshake_failed(host, &error)),
        };
    }
    let start = Instant::now();
    let mut client = Client::new(config, start.elapsed());
    client.deliver(message, start.elapsed());
    let (mut talk, mut greeted) = (None, false);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        while let Some(action) = client.poll() {
            match action {
                Action::Send(bytes) => {
                    let sent = timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await;
                    if !matches!(sent, Ok(Ok(()))) || stream.flush().await.is_err() {
                        client.disconnected();
                    }
                }
                Action::StartTls => match handshake(stream, host).await {
                    Ok(secured) => {
                        stream = secured;
                        client.tls_established(start.elapsed());
                    }
                    Err(error) => return Talk::HandshakeFailed(handshake_failed(host, &error)),
                },
                Action::WantContent => match content() {
                    Ok(Some(piece)) => client.content(&piece, start.elapsed()),
                    Ok(None) => client.content_end(start.elapsed()),
                    Err(_) => client.content_failed(),
                },
                Action::Done(outcomes) => {
                    talk = Some(Talk::Done(outcomes, client.is_tls()));
                    client.quit(start.elapsed());
                }
                Action::Unusable(status) => talk = Some(Talk::Next { status, greeted }),
                Action::Close => return talk.unwrap_or_else(|| not_there(host, "it hung up")),
            }
        }
        let wait = client.deadline().saturating_sub(start.elapsed());
        match timeout(wait, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => client.disconnected(),
            Ok(Ok(length)) => {
                greeted = true;
                client.receive(&buffer[..length], start.elapsed());
            }
            Err(_) => client.handle_timeout(start.elapsed()),
        }
    }
}

async fn handshake(stream: Stream, host: &Host) -> io::Result<Stream> {
    let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(&host.tls));
    Ok(Box::pin(timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await??))
}

fn handshake_failed(host: &Host, error: &io::Error) -> Status {
    let text = format!("{} offers TLS and fails at it: {error}", host.name);
    Status::ours(Class::Temporary, Enhanced(4, 7, 5), &text)
}

fn not_there(host: &Host, why: &str) -> Talk {
    let text = format!("{} ({}) cannot be reached: {why}", host.name, host.address);
    Talk::Next { status: Status::ours(Class::Temporary, Enhanced(4, 4, 1), &text), greeted: false }
}
