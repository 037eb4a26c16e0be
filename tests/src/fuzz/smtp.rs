//! The server's SMTP session with a stranger, who says whatever it is.
//!
//! The driver that is played here answers by what it is asked alone, so what comes of a stream depends on nothing but
//! the stream. Two commands mean something else to a client that does not wait for their reply, and the session is
//! right to end then: STARTTLS, and DATA where it is refused. So the comparison is made for a client that waits after
//! those, and after RSET, behind which nothing may be left of a transaction; one that does not wait is heard, too.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use shared::address::Address;
use shared::smtp::{
    Action, Config, ContentLimits, Enhanced, Facts, REPLIES_BYTES_MAX, Reply, Role, Session, Verdict,
};

use super::KEYS;
use super::cut::{ends_with, flights, is_in, is_printable, is_said, pieces};
use super::script::Script;

/// Octets of a line of a reply with its CRLF (RFC 5321 §4.5.3.1.5).
const REPLY_LINE_MAX: usize = 512;
/// Octets of replies that go at once: what may be collected, and one more reply of the driver's.
const SEND_MAX: usize = REPLIES_BYTES_MAX + 20 * REPLY_LINE_MAX;
/// How long a stranger waits for the greeting, where it is held back.
const PAUSE: Duration = Duration::from_secs(2);
const RECIPIENTS_MAX: usize = 3;
/// At our own name.
static POSTMASTER: LazyLock<Address> =
    LazyLock::new(|| "postmaster@mx.example.com".parse().expect("an address"));
/// So small that inputs pass them; but the largest input is not twice the size, for content that goes on behind that is left
/// wherever it has come to.
const LIMITS: ContentLimits = ContentLimits {
    bytes_max: 2_048,
    line_bytes_max: 200,
    header_bytes_max: 600,
    fields_max: 8,
    hops_max: 2,
};

/// The first byte says which service it is, the second how the stream is cut, the others are the stream.
///
/// # Panics
/// If it depends on how the stream is cut, or if the session says or does what it must not.
pub fn smtp(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (service, cuts) = (Service(script.byte()), script.byte());
    let stream = script.rest();
    held(service, stream, pieces(stream, cuts));
    let waits = |line: &[u8]| [&b"DATA"[..], b"STARTTLS", b"RSET"].iter().any(|word| ends_with(line, word));
    let flights = flights(stream, waits);
    let cut = flights.iter().flat_map(|flight| pieces(flight, cuts)).collect();
    let whole = held(service, stream, flights);
    if cuts > 0 {
        assert_eq!(held(service, stream, cut), whole, "it matters how the stream is cut");
    }
}

/// Bits: submission, TLS from the first byte, no STARTTLS, BINARYMIME, something to bind logins to, the handshake
/// fails, the greeting is held back, the stranger falls silent where the stream ends rather than hanging up.
#[derive(Clone, Copy, Debug)]
struct Service(u8);

impl Service {
    fn is(self, bit: u8) -> bool {
        self.0 & (1 << bit) != 0
    }

    fn config(self) -> Config {
        let role = if self.is(0) { Role::Submission } else { Role::Reception };
        Config {
            starttls: !self.is(2),
            binarymime: self.is(3),
            recipients_max: RECIPIENTS_MAX,
            content: LIMITS,
            ..Config::new(role, POSTMASTER.domain().clone(), POSTMASTER.clone())
        }
    }
}

/// What came of a stream.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    /// All replies.
    said: Vec<u8>,
    /// The messages that were made durable, in their order.
    taken: Vec<Message>,
    /// What else the driver was told to do.
    told: Vec<String>,
}

/// A message that was handed over.
#[derive(Debug, PartialEq)]
struct Message {
    envelope: String,
    content: Vec<u8>,
    /// Of a message that is BINARYMIME.
    received: Vec<u8>,
    facts: Facts,
}

/// A body that is open.
#[derive(Debug)]
struct Body {
    envelope: String,
    content: Vec<u8>,
    received: Vec<u8>,
}

/// The driver of a session.
#[derive(Debug)]
struct Server<'a> {
    service: Service,
    stream: &'a [u8],
    session: Session,
    now: Duration,
    tls: bool,
    body: Option<Body>,
    heard: Heard,
    /// Messages for which 250 was said.
    promised: usize,
    /// RSET was the last line, or nothing has begun since.
    is_reset: bool,
    closed: bool,
}

fn held<'a>(service: Service, stream: &'a [u8], pieces: Vec<&'a [u8]>) -> Heard {
    let now = Duration::ZERO;
    let session = Session::new(Arc::new(service.config()), service.is(1), now);
    let heard = Heard::default();
    let mut server = Server {
        service,
        stream,
        session,
        now,
        tls: service.is(1),
        body: None,
        heard,
        promised: 0,
        is_reset: false,
        closed: false,
    };
    server.bind();
    if service.is(6) {
        server.session.greet_after(PAUSE);
        server.run();
        assert!(server.heard.said.is_empty(), "greeted before its time");
        server.now = PAUSE;
        server.session.handle_timeout(server.now);
    }
    server.run();
    let mut given = 0;
    for piece in pieces {
        if server.closed {
            break;
        }
        assert!(server.session.wants_input(), "everything was answered");
        let before = server.heard.said.len();
        server.session.receive(piece, server.now);
        server.run();
        given += piece.len();
        let line = stream[..given]
            .strip_suffix(b"\r\n")
            .and_then(|lines| lines.rsplit(|octet| *octet == b'\n').next());
        let is_ok = server.heard.said[before..].ends_with(b"250 2.0.0 ok\r\n");
        server.is_reset |= is_ok && line.is_some_and(|line| line.eq_ignore_ascii_case(b"RSET"));
    }
    server.end()
}

impl Server<'_> {
    fn run(&mut self) {
        while let Some(action) = self.session.poll(self.now) {
            assert!(!self.closed, "{action:?} follows the end");
            self.act(action);
        }
    }

    fn bind(&mut self) {
        self.session.bound_to((self.tls && self.service.is(4)).then_some([9; 32]));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(bytes) => return self.say(&bytes),
            Action::Content(octets) => return self.body().content.extend(octets),
            Action::Received(octets) => return self.body().received.extend(octets),
            _ => self.heard.told.push(format!("{action:?}")),
        }
        match action {
            Action::StartTls if self.service.is(5) => self.session.disconnected(),
            Action::StartTls => {
                assert!(!self.session.has_more() && !self.tls, "TLS over what came in clear");
                self.session.tls_established();
                self.tls = true;
                self.bind();
                assert_eq!(self.session.client_name(), "", "a name that was said in clear");
            }
            Action::Keys(user) => {
                assert!(self.tls, "a login in clear");
                self.session.keys(verdict(&user).map(|()| &KEYS));
            }
            Action::Authenticate(credentials) => {
                assert!(self.tls && self.service.is(0), "a login in clear, or at reception");
                self.session.authenticated(verdict(&credentials.user).map(|()| credentials.user));
            }
            Action::Sender { reverse_path, .. } => {
                self.is_reset = false;
                let verdict = reverse_path.as_ref().map_or(Ok(()), by_name);
                self.session.sender(verdict);
            }
            Action::Recipient(address) => {
                assert!(!self.is_reset, "a transaction that RSET has ended");
                self.session.recipient(by_name(&address));
            }
            Action::Begin(envelope) => {
                assert!(!self.is_reset, "a transaction that RSET has ended");
                assert!(self.body.is_none(), "a body within another");
                assert!((1..=RECIPIENTS_MAX).contains(&envelope.recipients.len()));
                assert_eq!(envelope.tls, self.tls);
                assert!(
                    !self.service.is(0) || envelope.authenticated.is_some() && self.tls,
                    "submitted by nobody"
                );
                assert!(!envelope.helo.is_empty() && is_printable(envelope.helo.as_bytes()));
                let verdict = verdict(&envelope.helo);
                if verdict.is_ok() {
                    let (content, received) = (Vec::new(), Vec::new());
                    self.body = Some(Body { envelope: format!("{envelope:?}"), content, received });
                }
                self.session.begun(verdict);
            }
            Action::Complete(facts) => self.complete(facts),
            Action::Abort => self.body = None,
            Action::Close => self.closed = true,
            Action::Pause(_) | Action::Send(_) | Action::Content(_) | Action::Received(_) => {}
        }
    }

    fn body(&mut self) -> &mut Body {
        self.body.as_mut().expect("content comes while a body is open")
    }

    fn complete(&mut self, facts: Facts) {
        let Body { envelope, content, received } = self.body.take().expect("a body is open");
        assert_eq!(facts.bytes, content.len() as u64);
        assert!(facts.bytes <= LIMITS.bytes_max && facts.hops <= LIMITS.hops_max, "{facts:?}");
        for line in content.split_inclusive(|octet| *octet == b'\n') {
            let text = line.strip_suffix(b"\r\n").expect("each line ends in CRLF");
            assert!(text.len() <= LIMITS.line_bytes_max, "a line of {} octets", text.len());
            assert!(!text.contains(&b'\r') && !text.contains(&0), "content that is no lines");
        }
        let ended = [&content[..], b".\r\n"].concat();
        let is_sent = is_in(&without_dots(self.stream), &ended) || is_said(self.stream, "BDAT");
        assert!(is_sent, "a message that was not sent so");
        let number = self.heard.taken.len() + 1;
        if is_in(&content, b"full") {
            self.session.completed(Err(Reply::new(452, Enhanced(4, 3, 1), "full")));
        } else {
            self.heard.taken.push(Message { envelope, content, received, facts });
            self.session.completed(Ok(number.to_string()));
        }
    }

    /// Replies, each line of which is one.
    fn say(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= SEND_MAX, "{} octets at once", bytes.len());
        for line in bytes.split_inclusive(|octet| *octet == b'\n') {
            assert!(line.len() <= REPLY_LINE_MAX, "a reply of {} octets", line.len());
            let text = line.strip_suffix(b"\r\n").expect("each line ends in CRLF");
            assert!(is_printable(text), "{:?}", String::from_utf8_lossy(text));
            let (code, mark) = (&text[..3], text.get(3));
            assert!(code.iter().all(u8::is_ascii_digit) && matches!(mark, None | Some(b' ' | b'-')));
            if let Some(id) = text.strip_prefix(b"250 2.0.0 queued as ") {
                self.promised += 1;
                assert_eq!(id, self.promised.to_string().as_bytes());
                assert!(self.promised <= self.heard.taken.len(), "250 for what is not durable");
            }
        }
        self.heard.said.extend_from_slice(bytes);
    }

    /// The stream is over.
    fn end(mut self) -> Heard {
        if !self.closed {
            if self.service.is(7) {
                self.now = self.session.deadline();
                self.session.handle_timeout(self.now);
            } else {
                self.session.disconnected();
            }
            self.run();
        }
        assert!(self.closed, "the session does not end");
        assert_eq!(self.promised, self.heard.taken.len(), "messages without their 250");
        self.heard
    }
}

/// The stream's lines without the dot that begins one and does not end content (RFC 5321 §4.5.2).
fn without_dots(stream: &[u8]) -> Vec<u8> {
    let lines = stream.split_inclusive(|octet| *octet == b'\n');
    let text = |line: &'_ [u8]| line.strip_prefix(b".").filter(|_| line != b".\r\n").unwrap_or(line).to_vec();
    lines.flat_map(text).collect()
}

fn by_name(address: &Address) -> Verdict {
    verdict(address.local_part())
}

/// The first letter of a name says what becomes of who has it. The texts are such as should not be said as they are.
fn verdict(name: &str) -> Verdict {
    match name.as_bytes().first() {
        Some(b'n') => Err(Reply::new(550, Enhanced(5, 1, 1), "nobody\r\n250 ok\0\u{1b}[2J")),
        Some(b'l') => Err(Reply::new(451, Enhanced(4, 2, 1), &"later ".repeat(200))),
        Some(b'b') => Err(Reply::new(421, Enhanced(4, 3, 2), "busy")),
        _ => Ok(()),
    }
}
