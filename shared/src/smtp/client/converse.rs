//! The thin driver of one connection, for one message or for one after another.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tls::{in_words, result_type};
use super::{Action, Class, Client, Config, Message, NoChunks, Outcome, Status, TlsPolicy};
use crate::aggregate::ResultType;
use crate::smtp::Enhanced;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(180);
const READ_BYTES: usize = 16 * 1024;
const HUNG_UP: &str = "it hung up";

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
    /// The host dealt with the message; and the version of TLS it came under, `None` in clear.
    Done(Vec<Outcome>, Option<&'static str>),
    /// It did not, although it may have `greeted`: another address or host may.
    Next {
        /// Why not.
        status: Status,
        /// The host was there: it has said something.
        greeted: bool,
    },
    /// The handshake failed, for the sake of this: where TLS is not required, the same address may do without it.
    HandshakeFailed(Status, ResultType),
}

trait Connection: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}
type Stream = Pin<Box<dyn Connection>>;

/// Connects to a host, for as long as that may take.
///
/// # Errors
/// Why it cannot be reached there.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let no_answer = || {
        let text = format!("no answer in {} s", CONNECT_TIMEOUT.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.unwrap_or_else(|_| Err(no_answer()))
}

/// Connects and delivers one message, whose content comes in pieces, `None` at its end. If it cannot be read,
/// the host does not get the message. It goes by DATA, for nobody is there to open another session if chunks are refused.
pub async fn converse<E>(
    host: &Host,
    config: Config,
    message: Message,
    content: impl FnMut() -> Result<Option<Vec<u8>>, E>,
) -> Talk {
    let mut session = match Session::open(host, config).await {
        Ok(session) => session,
        Err(talk) => return talk,
    };
    session.by_data();
    let talk = session.deliver(message, content, |_| async { true }).await;
    session.quit().await;
    talk
}

/// A session with a host, for one message after another.
pub struct Session {
    host: Host,
    /// `None` once it is closed.
    stream: Option<Stream>,
    /// The version of TLS, `None` in clear.
    tls: Option<&'static str>,
    /// Our end of the connection.
    local: Option<IpAddr>,
    client: Client,
    start: Instant,
    buffer: Vec<u8>,
    delivered: usize,
    greeted: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("host", &self.host.name).field("delivered", &self.delivered).finish()
    }
}

impl Session {
    /// Connects; nothing has been said yet.
    ///
    /// # Errors
    /// What became of the connection: never [`Talk::Done`].
    pub async fn open(host: &Host, config: Config) -> Result<Self, Talk> {
        match connect(host.address).await {
            Ok(stream) => Self::over(stream, host, config).await,
            Err(error) => Err(not_there(host, &error.to_string())),
        }
    }

    /// A session over a connection that was just made; nothing has been said yet.
    ///
    /// # Errors
    /// What became of the connection: never [`Talk::Done`].
    pub async fn over(stream: TcpStream, host: &Host, config: Config) -> Result<Self, Talk> {
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().ok().map(|address| address.ip());
        let mut stream: Stream = Box::pin(stream);
        let mut tls = None;
        if config.tls == TlsPolicy::Implicit {
            let secured = handshake(stream, host).await;
            let (secured, version) = secured.map_err(|error| handshake_failed(host, &error))?;
            (stream, tls) = (secured, Some(version));
        }
        let start = Instant::now();
        let client = Client::new(config, start.elapsed());
        Ok(Self {
            host: host.clone(),
            stream: Some(stream),
            tls,
            local,
            client,
            start,
            buffer: vec![0; READ_BYTES],
            delivered: 0,
            greeted: false,
        })
    }

    /// Whether it takes another message.
    pub fn is_ready(&self) -> bool {
        self.stream.is_some() && self.client.is_ready()
    }

    /// Whether it takes another message, and the host has said nothing since the last: that would be taken for the answer to
    /// the next command. One whose host has spoken or hung up is closed.
    pub async fn is_quiet(&mut self) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|_| self.client.is_ready()) else { return false };
        // What is there already is read, and nothing is waited for.
        let has_spoken = timeout(Duration::ZERO, stream.read(&mut self.buffer)).await.is_ok();
        if has_spoken {
            self.stream = None;
        }
        !has_spoken
    }

    /// Whether it is under TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Content goes by DATA, though the host offer CHUNKING. To be called before the first message.
    pub fn by_data(&mut self) {
        self.client.by_data();
    }

    /// Whether a chunk was refused or lost, and so what is to be done without. If the talk has come to [`Talk::Next`], another
    /// session may deliver the message at once, by DATA.
    pub fn no_chunks(&self) -> Option<NoChunks> {
        self.client.no_chunks()
    }

    /// Our address.
    pub fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// Messages that were dealt with over it.
    pub fn delivered(&self) -> usize {
        self.delivered
    }

    /// Delivers one message, as [`converse`] does. Its end is sent once `may_end` has said yes, which is asked about those
    /// whom the host has accepted, by place in the message. [`Talk::Next`] of one that was dealt with before means that the
    /// session had ended: this message was not attempted.
    pub async fn deliver<E, F: Future<Output = bool>>(
        &mut self,
        message: Message,
        mut content: impl FnMut() -> Result<Option<Vec<u8>>, E>,
        may_end: impl FnOnce(Vec<usize>) -> F,
    ) -> Talk {
        let mut may_end = Some(may_end);
        if self.stream.is_none() {
            return not_there(&self.host, HUNG_UP);
        }
        self.client.deliver(message, self.start.elapsed());
        let mut talk = None;
        loop {
            while let Some(action) = self.client.poll() {
                match action {
                    Action::Send(bytes) => self.send(&bytes).await,
                    Action::StartTls => {
                        let Some(stream) = self.stream.take() else { return not_there(&self.host, HUNG_UP) };
                        match handshake(stream, &self.host).await {
                            Ok((secured, version)) => {
                                (self.stream, self.tls) = (Some(secured), Some(version));
                                self.client.tls_established(self.start.elapsed());
                            }
                            Err(error) => return handshake_failed(&self.host, &error),
                        }
                    }
                    Action::WantContent => match content() {
                        Ok(Some(piece)) => self.client.content(&piece),
                        Ok(None) => self.client.content_end(self.start.elapsed()),
                        Err(_) => self.client.content_failed(),
                    },
                    Action::WantEnd => {
                        let may_end = match may_end.take() {
                            Some(may_end) => may_end(self.client.accepted()).await,
                            None => false,
                        };
                        self.hear_what_is_there(Client::disconnected).await;
                        match may_end {
                            true => self.client.end(self.start.elapsed()),
                            false => self.client.content_failed(),
                        }
                    }
                    Action::Done(outcomes) => {
                        self.delivered += 1;
                        talk = Some(Talk::Done(outcomes, self.tls));
                    }
                    // What it says behind its answer to the message takes nothing of that back.
                    Action::Unusable(status) => {
                        talk.get_or_insert(Talk::Next { status, greeted: self.greeted });
                    }
                    Action::Close => {
                        self.stream = None;
                        return talk.unwrap_or_else(|| not_there(&self.host, HUNG_UP));
                    }
                }
            }
            if let Some(done) = talk.take_if(|_| self.client.is_ready()) {
                return done;
            }
            self.hear().await;
        }
    }

    /// Says goodbye, if the session takes it at once; otherwise hangs up.
    pub async fn quit(mut self) {
        if !self.is_ready() {
            return;
        }
        self.client.quit(self.start.elapsed());
        while self.stream.is_some() {
            while let Some(action) = self.client.poll() {
                match action {
                    Action::Send(bytes) => self.send(&bytes).await,
                    // Nothing else is left to be done.
                    _ => return,
                }
            }
            self.hear().await;
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        let all = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        let is_sent = matches!(timeout(WRITE_TIMEOUT, all).await, Ok(Ok(())));
        self.client.sent(self.start.elapsed());
        // Who takes no more may have said why.
        let lost = if is_sent { Client::disconnected } else { Client::unsent };
        self.hear_what_is_there(lost).await;
        if !is_sent {
            self.client.unsent();
        }
    }

    /// Hears what the host has said by now about content that is under way, and waits for nothing. Of a connection that has ended the
    /// client is told as `lost` says.
    async fn hear_what_is_there(&mut self, lost: fn(&mut Client)) {
        while self.client.is_sending() {
            // That the runtime notices it.
            yield_now().await;
            let Some(stream) = &mut self.stream else { return };
            match timeout(Duration::ZERO, stream.read(&mut self.buffer)).await {
                Ok(Ok(0) | Err(_)) => lost(&mut self.client),
                Ok(Ok(length)) => self.client.receive(&self.buffer[..length], self.start.elapsed()),
                Err(_) => return,
            }
        }
    }

    /// Waits for what the host says next, for as long as it may take.
    async fn hear(&mut self) {
        let Some(stream) = &mut self.stream else { return self.client.disconnected() };
        let wait = self.client.deadline().saturating_sub(self.start.elapsed());
        match timeout(wait, stream.read(&mut self.buffer)).await {
            Ok(Ok(0) | Err(_)) => self.client.disconnected(),
            Ok(Ok(length)) => {
                self.greeted = true;
                self.client.receive(&self.buffer[..length], self.start.elapsed());
            }
            Err(_) => self.client.handle_timeout(self.start.elapsed()),
        }
    }
}

/// The encrypted stream, and the version of TLS.
async fn handshake(stream: Stream, host: &Host) -> io::Result<(Stream, &'static str)> {
    let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(&host.tls));
    let secured = timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await??;
    let version = match secured.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS 1.2",
    };
    Ok((Box::pin(secured), version))
}

fn handshake_failed(host: &Host, error: &io::Error) -> Talk {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let result = inner.map_or(ResultType::ValidationFailure, result_type);
    let why = inner.map_or_else(|| error.to_string(), in_words);
    let text = format!("{} offers TLS and fails at it: {why}", host.name);
    Talk::HandshakeFailed(Status::ours(Class::Temporary, Enhanced(4, 7, 5), &text), result)
}

/// What it comes to that a host cannot be reached at an address.
pub fn unreachable(name: &str, address: SocketAddr, why: &str) -> Status {
    let text = format!("{name} ({address}) cannot be reached: {why}");
    Status::ours(Class::Temporary, Enhanced(4, 4, 1), &text)
}

fn not_there(host: &Host, why: &str) -> Talk {
    Talk::Next { status: unreachable(&host.name, host.address, why), greeted: false }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncBufReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::address::Address;
    use crate::smtp::client::{Protocol, tls};

    /// Says each of these after a line of the client's, the first at once, and then hangs up.
    async fn host(says: Vec<&'static str>) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let (reader, mut writer) = stream.split();
            let mut lines = tokio::io::BufReader::new(reader).lines();
            for reply in says {
                writer.write_all(reply.as_bytes()).await?;
                // Until the content's end one line is not an end.
                let is_content = reply.starts_with("354");
                while let Some(line) = lines.next_line().await? {
                    if !is_content || line == "." {
                        break;
                    }
                }
            }
            Ok::<_, io::Error>(())
        });
        Ok(address)
    }

    fn message() -> Message {
        Message {
            reverse_path: None,
            recipients: vec!["bob@host.example".parse::<Address>().expect("an address").into()],
            returns: None,
            envelope_id: None,
            size: 6,
            eight_bit: false,
            utf8_header: false,
            require_tls: false,
            before: Vec::new(),
        }
    }

    fn config() -> Config {
        let helo = "mx.example.com".into();
        Config { helo, tls: TlsPolicy::Never, protocol: Protocol::Smtp, login: None }
    }

    #[tokio::test]
    async fn a_session_whose_host_speaks_between_two_messages_is_used_no_more() {
        let says =
            ["220 hello\r\n", "250 hello\r\n", "250 ok\r\n", "250 ok\r\n", "354 go on\r\n", "250 kept\r\n"];
        // A second message, and then a reply to nothing.
        let (speak, spoken) = tokio::sync::oneshot::channel::<()>();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let host = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let (reader, mut writer) = stream.split();
            let mut lines = tokio::io::BufReader::new(reader).lines();
            writer.write_all(says[0].as_bytes()).await?;
            for reply in says[1..].iter().chain(&says[2..]) {
                // Until the content's end one line is not an end.
                while lines.next_line().await?.is_some_and(|line| *reply == says[5] && line != ".") {}
                writer.write_all(reply.as_bytes()).await?;
            }
            drop(spoken.await);
            writer.write_all(b"250 out of the blue\r\n").await?;
            // It does not hang up.
            lines.next_line().await
        });
        let host_name = Host { name: "mx.example".into(), address, tls: Arc::new(tls::opportunistic()) };
        let mut session = Session::open(&host_name, config()).await.expect("connects");
        for _ in 0..2 {
            let mut content = Some(b"text\r\n".to_vec());
            let talk =
                session.deliver(message(), || Ok::<_, io::Error>(content.take()), |_| async { true }).await;
            assert!(matches!(talk, Talk::Done(..)), "{talk:?}");
            assert!(session.is_quiet().await && session.is_ready());
        }
        speak.send(()).expect("the host waits");
        let heard = async {
            while session.is_quiet().await {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), heard).await.expect("it is heard");
        assert!(!session.is_ready(), "nobody takes that for an answer");
        drop(session);
        host.await.expect("ends").expect("writes");
    }

    /// Whoever writes on meets a reset connection, and the reply before that is what counts.
    #[tokio::test]
    async fn what_a_host_says_of_a_chunk_before_it_hangs_up_is_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let (reader, mut writer) = stream.split();
            let mut reader = tokio::io::BufReader::new(reader);
            let says = ["250-hello\r\n250-PIPELINING\r\n250 CHUNKING\r\n", "250 ok\r\n", "250 ok\r\n"];
            writer.write_all(b"220 hello\r\n").await?;
            for reply in says {
                reader.read_line(&mut String::new()).await?;
                writer.write_all(reply.as_bytes()).await?;
            }
            for reply in ["250 ok\r\n", "552 5.3.4 too large\r\n"] {
                let mut line = String::new();
                reader.read_line(&mut line).await?;
                let length =
                    line.split_whitespace().nth(1).and_then(|length| length.parse().ok()).unwrap_or(0);
                reader.read_exact(&mut vec![0; length]).await?;
                writer.write_all(reply.as_bytes()).await?;
            }
            Ok::<_, io::Error>(())
        });
        let host = Host { name: "mx.example".into(), address, tls: Arc::new(tls::opportunistic()) };
        let mut session = Session::open(&host, config()).await.expect("connects");
        let mut content = Some(b"some text\r\n".repeat(5_000_000));
        let talk =
            session.deliver(message(), || Ok::<_, io::Error>(content.take()), |_| async { true }).await;
        let Talk::Done(outcomes, None) = &talk else { panic!("{talk:?}") };
        assert_eq!((outcomes[0].status.code, outcomes[0].status.in_doubt), (Some(552), false), "{talk:?}");
    }

    #[tokio::test]
    async fn a_250_counts_whatever_is_said_behind_it() {
        for last in
            ["250 kept\r\n", "250 kept\r\n421 closing\r\n", "250 kept\r\n250 again\r\n", "250 kept\r\n\r\n"]
        {
            let says = ["220 hello\r\n", "250 hello\r\n", "250 ok\r\n", "250 ok\r\n", "354 go on\r\n", last];
            let address = host(says.into()).await.expect("listens");
            let host = Host { name: "mx.example".into(), address, tls: Arc::new(tls::opportunistic()) };
            let mut content = Some(b"text\r\n".to_vec());
            let talk = converse(&host, config(), message(), || Ok::<_, io::Error>(content.take())).await;
            let Talk::Done(outcomes, None) = &talk else { panic!("{last:?}: {talk:?}") };
            assert!(
                outcomes.iter().all(|outcome| outcome.status.class == Class::Delivered),
                "{last:?}: {talk:?}"
            );
        }
    }
}
