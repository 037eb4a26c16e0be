//! The POP3 session with somebody who says whatever it is.
//!
//! As in [`smtp`](super::smtp()), the driver answers by what it is asked alone, and STLS is what a client has to wait
//! after. One run goes line by line, beside a model of what QUIT is to do.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::id::MessageId;
use shared::pop3::{Action, Config, End, Entry, Expire, LoginRefusal, Opened, REPLIES_BYTES_MAX, Session};
use shared::wire::DotStuffing;

use super::KEYS;
use super::cut::{flights, is_printable, pieces};
use super::script::Script;

/// Octets of the first line of a reply, and of a line of a list, with its CRLF (RFC 1939 §3).
const REPLY_LINE_MAX: usize = 512;
/// Octets that go at once: what may be collected, and a message.
const SEND_MAX: usize = REPLIES_BYTES_MAX + 4 * 1024;
const FETCHED: &[u8] = b"+OK message follows\r\n";

/// The maildrop: what is plain, what is 8-bit in its header, what has dots, what cannot be read, what is gone, and what
/// should not have been stored so.
const MESSAGES: [&[u8]; 6] = [
    b"Subject: one\r\n\r\ntext\r\n",
    b"Subject: gr\xc3\xbcn\r\nFrom: \xff <a@b.example>\r\n\r\n\xc3\xa9\r\n",
    b".\r\n..\r\n\r\n.\r\nno end",
    b"later",
    b"lost",
    b"Subject: bare\n\r\n\0",
];

/// The first byte says which service it is, the second how the stream is cut, the others are the stream.
///
/// # Panics
/// If it depends on how the stream is cut, or if the session says or does what it must not.
pub fn pop3(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (service, cuts) = (Service(script.byte()), script.byte());
    let stream = script.rest();
    held(service, pieces(stream, cuts), None);
    let flights_of = |waits: fn(&[u8]) -> bool| flights(stream, waits);
    let waiting = flights_of(|line| line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"STLS")));
    let cut = waiting.iter().flat_map(|flight| pieces(flight, cuts)).collect();
    let whole = held(service, waiting, None);
    assert_eq!(
        held(service, flights_of(|_| true), Some(Model::default())),
        whole,
        "lines come together or apart"
    );
    if cuts > 0 {
        assert_eq!(held(service, cut, None), whole, "it matters how the stream is cut");
    }
}

/// Bits: TLS from the first byte, no STLS, logins in clear, something to bind them to, an empty maildrop, messages come
/// in single octets, the client falls silent where the stream ends rather than hanging up, a commit fails.
#[derive(Clone, Copy, Debug)]
struct Service(u8);

impl Service {
    fn is(self, bit: u8) -> bool {
        self.0 & (1 << bit) != 0
    }

    fn entries(self) -> Vec<Entry> {
        let count = if self.is(4) { 0 } else { MESSAGES.len() };
        (0..count).map(entry).collect()
    }
}

fn entry(index: usize) -> Entry {
    let number = u8::try_from(index).expect("there are few");
    Entry { size: MESSAGES[index].len() as u64, message: MessageId([number; 16]), revision: number.into() }
}

fn number(entry: &Entry) -> usize {
    usize::from(entry.message.0[0])
}

/// What QUIT is to do, as the lines and what was answered to them say.
#[derive(Debug, Default)]
struct Model {
    deleted: BTreeSet<usize>,
    retrieved: BTreeSet<usize>,
    utf8: bool,
}

/// What came of a stream.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    /// All replies.
    said: Vec<u8>,
    /// What else the driver was told to do.
    told: Vec<String>,
}

/// The driver of a session.
#[derive(Debug)]
struct Server {
    service: Service,
    session: Session,
    tls: bool,
    opened: bool,
    /// Lines come one by one beside this.
    model: Option<Model>,
    /// The line or piece that came last.
    line: Vec<u8>,
    heard: Heard,
    closed: bool,
}

const NOW: Duration = Duration::ZERO;

fn held(service: Service, pieces: Vec<&[u8]>, model: Option<Model>) -> Heard {
    let config =
        Config { stls: !service.is(1), plaintext_login: service.is(2), login_delay: Duration::from_secs(1) };
    let mut server = Server {
        service,
        session: Session::new(config, service.is(0), NOW),
        tls: service.is(0),
        opened: false,
        model,
        line: Vec::new(),
        heard: Heard::default(),
        closed: false,
    };
    server.bind();
    server.run();
    for piece in pieces {
        if server.closed {
            break;
        }
        assert!(server.session.wants_input(), "everything was answered");
        server.line = piece.to_vec();
        let before = server.heard.said.len();
        server.session.receive(piece, NOW);
        server.run();
        server.answered(before);
    }
    server.end()
}

impl Server {
    fn run(&mut self) {
        while let Some(action) = self.session.poll(NOW) {
            assert!(!self.closed, "{action:?} follows the end");
            self.act(action);
        }
    }

    fn bind(&mut self) {
        self.session.bound_to((self.tls && self.service.is(3)).then_some([9; 32]));
    }

    fn act(&mut self, action: Action) {
        if let Action::Send(bytes) = action {
            assert!(bytes.len() <= SEND_MAX, "{} octets at once", bytes.len());
            return self.heard.said.extend(bytes);
        }
        self.heard.told.push(format!("{action:?}"));
        match action {
            Action::StartTls => {
                assert!(!self.tls && !self.opened);
                self.session.tls_established();
                self.tls = true;
                self.bind();
                if let Some(model) = &mut self.model {
                    model.utf8 = false;
                }
            }
            Action::Keys(user) => {
                assert!(self.may_log_in(), "a login in clear");
                self.session.keys((!user.starts_with('l')).then_some(&KEYS));
            }
            Action::Authenticate(credentials) => {
                assert!(self.may_log_in(), "a login in clear");
                let verdict = match credentials.user.as_bytes().first() {
                    Some(b'n') => Err(LoginRefusal::Credentials),
                    Some(b'l') => Err(LoginRefusal::Temporary),
                    Some(b'i') => Err(LoginRefusal::InUse),
                    Some(b's') => Err(LoginRefusal::TooSoon),
                    Some(b'g') => Err(LoginRefusal::Guessing),
                    _ => Ok(Opened { entries: self.service.entries(), expire: Expire::Days(7) }),
                };
                self.opened = verdict.is_ok();
                self.session.authenticated(verdict);
            }
            Action::Fetch { entry, .. } => {
                assert!(self.opened);
                self.fetch(&entry);
            }
            Action::Commit { deleted, retrieved } => {
                assert!(self.opened, "a commit without a login");
                self.judge(&deleted, &retrieved);
                self.session.committed(!self.service.is(7));
            }
            Action::Close => self.closed = true,
            Action::Send(_) => {}
        }
    }

    fn may_log_in(&self) -> bool {
        self.tls || self.service.is(2)
    }

    fn fetch(&mut self, entry: &Entry) {
        let message = MESSAGES[number(entry)];
        let end = match message {
            b"later" => End::Later,
            b"lost" => End::Lost,
            _ => End::Whole,
        };
        let size = if self.service.is(5) { 1 } else { message.len() };
        for piece in message.chunks(size).take_while(|_| end == End::Whole) {
            if !self.session.content(piece) {
                break;
            }
            self.run();
        }
        self.session.content_end(end);
    }

    /// QUIT deletes what DELE has named since the last RSET, and nothing else.
    fn judge(&self, deleted: &[Entry], retrieved: &[Entry]) {
        let Some(model) = &self.model else { return };
        assert!(self.line.trim_ascii_end().eq_ignore_ascii_case(b"QUIT"), "a commit by {:?}", self.line);
        let entries = |numbers: &BTreeSet<usize>| numbers.iter().copied().map(entry).collect::<Vec<_>>();
        assert_eq!((deleted, retrieved), (&entries(&model.deleted)[..], &entries(&model.retrieved)[..]));
    }

    /// Looks at what was said to the line.
    fn answered(&mut self, before: usize) {
        let Some(model) = &mut self.model else { return };
        let answer = &self.heard.said[before..];
        let line = String::from_utf8_lossy(&self.line);
        let mut words = line.split_ascii_whitespace();
        let (verb, number) = (words.next(), words.next().and_then(|word| word.parse::<usize>().ok()));
        let index = || number.expect("a message was named") - 1;
        if let Some(content) = answer.strip_prefix(FETCHED) {
            let message = MESSAGES[index()];
            let is_whole = verb.is_some_and(|verb| verb.eq_ignore_ascii_case("RETR"));
            let header = content.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(content.len());
            assert!(model.utf8 || content[..header].is_ascii(), "a header that is not ASCII");
            assert!(self.closed || content.ends_with(b"\r\n.\r\n") || content == b".\r\n");
            if is_whole && !self.closed {
                model.retrieved.insert(index());
                let is_altered = !model.utf8 && !message.is_ascii();
                assert!(is_altered || content == stuffed(message), "{:?}", String::from_utf8_lossy(content));
            }
            return;
        }
        match answer {
            b"+OK deleted at QUIT\r\n" => drop(model.deleted.insert(index())),
            b"+OK nothing is deleted\r\n" => model.deleted.clear(),
            _ => {}
        }
        model.utf8 |=
            verb.is_some_and(|verb| verb.eq_ignore_ascii_case("UTF8")) && answer.starts_with(b"+OK");
        for line in answer.split_inclusive(|octet| *octet == b'\n') {
            assert!(line.len() <= REPLY_LINE_MAX, "a reply of {} octets", line.len());
            let text = line.strip_suffix(b"\r\n").expect("each line ends in CRLF");
            assert!(is_printable(text), "{:?}", String::from_utf8_lossy(text));
        }
    }

    /// The stream is over.
    fn end(mut self) -> Heard {
        if !self.closed {
            let committed =
                |heard: &Heard| heard.told.iter().filter(|told| told.starts_with("Commit")).count();
            let before = committed(&self.heard);
            if self.service.is(6) {
                self.session.handle_timeout(self.session.deadline());
            } else {
                self.session.disconnected();
            }
            self.run();
            assert_eq!(committed(&self.heard), before, "a commit without QUIT");
        }
        assert!(self.closed, "the session does not end");
        self.heard
    }
}

fn stuffed(message: &[u8]) -> Vec<u8> {
    let (mut wire, mut stuffing) = (Vec::new(), DotStuffing::new());
    stuffing.piece(message, &mut wire).and_then(|()| stuffing.finish(&mut wire)).expect("it is lines");
    wire
}
