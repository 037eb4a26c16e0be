//! Our SMTP client's session with a host that says whatever it is.
//!
//! A reply that comes before what it answers was sent is one to nothing, and the client is right to leave the host then. So the
//! comparison is made for a host that waits after each reply; one that does not is heard, too, also while content is sent to it.

use std::sync::LazyLock;
use std::time::Duration;

use shared::address::Address;
use shared::notify::{Notify, Return};
use shared::sasl::Credentials;
use shared::smtp::Recipient;
use shared::smtp::client::{
    Action, Class, Client, Config, Message, Outcome, Protocol, Status, TEXT_BYTES_MAX, TlsPolicy,
};

use super::cut::{flights, is_said, pieces};
use super::script::Script;

const NOW: Duration = Duration::ZERO;
/// Messages of one session.
const MESSAGES: usize = 2;
/// Actions of one session: a message has some for each command and each piece of its content.
const ACTIONS_MAX: usize = 4_096;
/// It has lines that begin with a dot, and is longer than the first chunks are.
const CONTENT: &[&[u8]] =
    &[b"Return-Path: <>\r\nSubj", b"ect: x\r\n\r\n.", b"dot\r\n", &[b'x'; 200], b"\r\n.\r\n"];

/// Who sends, who gets it, who else may, and one who is internationalized.
static NAMES: LazyLock<[Address; 5]> = LazyLock::new(|| {
    let names = ["alice@example.com", "bob@host.example", "carol@host.example", "dave@host.example"];
    let address = |text: &str| text.parse().expect("an address");
    let [alice, bob, carol, dave] = names.map(address);
    [alice, bob, carol, dave, address("j\u{f6}rg@host.example")]
});

/// The first byte says what the client is told, the second what the messages are, the third how the stream is cut; the others
/// are the stream.
///
/// # Panics
/// If it depends on how the stream is cut, or if the client believes or does what it must not.
pub fn reply(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let told = Told { client: script.byte(), message: script.byte() };
    let cuts = script.byte();
    let stream = script.rest();
    held(told, pieces(stream, cuts), true);
    // A line whose code has no hyphen behind it ends a reply.
    let replies = flights(stream, |line| line.get(3) != Some(&b'-'));
    let cut = replies.iter().flat_map(|reply| pieces(reply, cuts)).collect();
    let whole = held(told, replies, false);
    if cuts > 0 {
        assert_eq!(held(told, cut, false), whole, "it matters how the stream is cut");
    }
}

/// Bits of `client`: TLS if it is offered, or required (neither: never; both: from the first byte), LMTP, a login, no chunks,
/// content that holds a bare LF, the host falls silent where the stream ends rather than hanging up. Of `message`: one recipient or two
/// more, an internationalized one, 8-bit, REQUIRETLS, from nobody, something asked for, a header field before it.
#[derive(Clone, Copy, Debug)]
struct Told {
    client: u8,
    message: u8,
}

impl Told {
    fn client(self, bit: u8) -> bool {
        self.client & (1 << bit) != 0
    }

    fn message(self, bit: u8) -> bool {
        self.message & (1 << bit) != 0
    }

    fn config(self) -> Config {
        let tls = match (self.client(0), self.client(1)) {
            (true, false) => TlsPolicy::Opportunistic,
            (false, true) => TlsPolicy::Required,
            (false, false) => TlsPolicy::Never,
            (true, true) => TlsPolicy::Implicit,
        };
        let protocol = if self.client(2) { Protocol::Lmtp } else { Protocol::Smtp };
        let login = Credentials::new("relay".into(), String::from("secret").into()).expect("plain");
        Config { helo: "mx.example.com".into(), tls, protocol, login: self.client(3).then_some(login) }
    }

    fn new_message(self) -> Message {
        let [alice, bob, carol, dave, wide] = NAMES.clone();
        let others = if self.message(0) { vec![carol, dave] } else { Vec::new() };
        let wide = self.message(1).then_some(wide);
        let names = [bob].into_iter().chain(others).chain(wide);
        let mut recipients: Vec<Recipient> = names.map(Recipient::from).collect();
        let is_asking = self.message(5);
        if is_asking {
            recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
            recipients[0].original = Some("rfc822;b=ob@example.com".into());
        }
        Message {
            reverse_path: (!self.message(4)).then_some(alice),
            recipients,
            returns: is_asking.then_some(Return::Headers),
            envelope_id: is_asking.then(|| "a+b c".into()),
            size: 300,
            eight_bit: self.message(2),
            utf8_header: false,
            require_tls: self.message(3),
            before: if self.message(6) { b"DKIM-Signature: x\r\n".to_vec() } else { Vec::new() },
        }
    }
}

/// What came of a stream.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    said: Vec<u8>,
    outcomes: Vec<Vec<Outcome>>,
    unusable: Option<Status>,
}

/// The driver of a client.
#[derive(Debug)]
struct Driver {
    told: Told,
    client: Client,
    heard: Heard,
    /// Messages that the client was given.
    given: usize,
    quitting: bool,
    /// Pieces of the content that the client was given.
    pieces: usize,
    /// The message's content was sent to its end.
    ended: bool,
    /// What has come since the host was last asked what it offers.
    offer: Vec<u8>,
    /// The host is to be asked what it offers before anything else.
    unasked: bool,
    actions: usize,
    closed: bool,
}

/// With `ahead` the host's pieces come as soon as they are heard, else once the client waits for them.
fn held(told: Told, pieces: Vec<&[u8]>, ahead: bool) -> Heard {
    let mut client = Client::new(told.config(), NOW);
    if told.client(4) {
        client.by_data();
    }
    let mut driver = Driver {
        told,
        client,
        heard: Heard::default(),
        given: 0,
        quitting: false,
        pieces: 0,
        ended: false,
        offer: Vec::new(),
        unasked: true,
        actions: 0,
        closed: false,
    };
    let mut pieces = pieces.into_iter();
    driver.deliver();
    loop {
        while let Some(action) = driver.client.poll() {
            driver.act(action);
            if ahead && driver.client.is_sending() {
                pieces.next().into_iter().for_each(|piece| driver.hear(piece));
            }
        }
        if driver.closed {
            break;
        }
        if driver.client.is_ready() && !driver.quitting {
            driver.go_on();
        } else if let Some(piece) = pieces.next() {
            driver.hear(piece);
        } else {
            driver.hang_up();
        }
    }
    driver.end()
}

impl Driver {
    fn hear(&mut self, piece: &[u8]) {
        self.offer.extend_from_slice(piece);
        self.client.receive(piece, NOW);
    }

    fn go_on(&mut self) {
        if self.given < MESSAGES {
            self.deliver();
        } else {
            self.quitting = true;
            self.client.quit(NOW);
        }
    }

    fn deliver(&mut self) {
        self.given += 1;
        (self.pieces, self.ended) = (0, false);
        self.client.deliver(self.told.new_message(), NOW);
    }

    fn act(&mut self, action: Action) {
        assert!(!self.closed, "{action:?} follows the end");
        self.actions += 1;
        assert!(self.actions < ACTIONS_MAX, "actions without end");
        match action {
            Action::Send(bytes) => {
                self.say(&bytes);
                self.client.sent(NOW);
            }
            Action::StartTls => {
                assert!(!self.client.is_tls() && self.offer.ends_with(b"\n"), "TLS over what came in clear");
                self.offer.clear();
                self.unasked = true;
                self.client.tls_established(NOW);
            }
            Action::WantContent => {
                let bad = (self.told.client(5) && self.pieces == 2).then_some(&b"\n"[..]);
                match bad.or(CONTENT.get(self.pieces).copied()) {
                    Some(piece) => self.client.content(piece),
                    None => self.client.content_end(NOW),
                }
                self.pieces += 1;
            }
            Action::WantEnd => {
                assert!(!self.told.client(5), "content with a bare LF is ended");
                // If not, the host has spoken since the last of the content was asked for, and the message is lost.
                self.ended = self.client.is_sending();
                let accepted = self.client.accepted();
                let is_known = accepted.iter().all(|place| *place < self.recipients());
                assert!(accepted.is_empty() != self.ended && is_known, "{accepted:?}");
                self.client.end(NOW);
            }
            Action::Done(outcomes) => self.done(outcomes),
            Action::Unusable(status) => {
                is_sound(&status);
                assert!(
                    self.heard.unusable.is_none() && status.class != Class::Delivered && !status.in_doubt
                );
                self.heard.unusable = Some(status);
            }
            Action::Close => self.closed = true,
        }
    }

    fn recipients(&self) -> usize {
        1 + 2 * usize::from(self.told.message(0)) + usize::from(self.told.message(1))
    }

    fn done(&mut self, outcomes: Vec<Outcome>) {
        let places: Vec<_> = outcomes.iter().map(|outcome| outcome.recipient).collect();
        assert_eq!(places, (0..self.recipients()).collect::<Vec<_>>(), "one outcome for each recipient");
        for Outcome { status, host_reports, .. } in &outcomes {
            is_sound(status);
            let is_delivered = status.class == Class::Delivered;
            assert!(!is_delivered || self.ended && matches!(status.code, Some(200..300)), "{status:?}");
            assert!(!status.in_doubt || self.ended && status.class == Class::Temporary, "{status:?}");
            assert!(!host_reports || is_delivered && is_said(&self.offer, "DSN"));
        }
        self.heard.outcomes.push(outcomes);
        assert!(self.heard.outcomes.len() <= self.given, "a message is dealt with twice");
    }

    /// What is sent: nothing that the host has not offered since it was asked, nor in clear what belongs under TLS.
    fn say(&mut self, bytes: &[u8]) {
        let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap_or(bytes.len());
        let line = String::from_utf8_lossy(&bytes[..end]);
        let (verb, _) = line.split_once(' ').unwrap_or((&line, ""));
        let is_tls = self.client.is_tls();
        let offers = |what: &str| is_said(&self.offer, what);
        match verb {
            "EHLO" | "LHLO" | "HELO" => {
                self.offer.clear();
                self.unasked = false;
            }
            "STARTTLS" => assert!(!is_tls && offers("STARTTLS")),
            "AUTH" => assert!(is_tls && offers("AUTH") && self.told.client(3), "a login in clear"),
            "BDAT" => assert!(offers("CHUNKING") && !self.told.client(2) && !self.told.client(4)),
            "MAIL" => {
                let (_, parameters) = line.split_once('>').expect("a path");
                for parameter in parameters.split_ascii_whitespace() {
                    let (keyword, _) = parameter.split_once('=').unwrap_or((parameter, ""));
                    let offer = match keyword {
                        "BODY" => "8BITMIME",
                        "RET" | "ENVID" => "DSN",
                        keyword => keyword,
                    };
                    assert!(offers(offer), "{parameter} was not offered");
                }
                let is_bound = self.told.message(3) && !self.told.message(4);
                assert!(!is_bound || is_tls && line.contains(" REQUIRETLS"), "{line} in clear");
                assert!(is_tls || self.told.client & 0b10 == 0, "{line} in clear");
            }
            _ => {}
        }
        assert!(!self.unasked, "{line} on what was offered in clear");
        self.heard.said.extend_from_slice(bytes);
    }

    /// The stream is over.
    fn hang_up(&mut self) {
        if self.told.client(6) {
            self.client.handle_timeout(self.client.deadline());
        } else {
            self.client.disconnected();
        }
    }

    fn end(self) -> Heard {
        let dealt_with = self.heard.outcomes.len();
        let is_left = dealt_with + 1 == self.given && self.heard.unusable.is_some();
        assert!(dealt_with == self.given || is_left, "{dealt_with} of {} messages", self.given);
        self.heard
    }
}

/// A text that can be shown and put in a report.
fn is_sound(status: &Status) {
    assert!(status.text.len() <= TEXT_BYTES_MAX && !status.text.contains(char::is_control), "{status:?}");
    assert!(status.code.is_none_or(|code| (200..600).contains(&code)), "{status:?}");
    let class = match status.class {
        Class::Delivered => 2,
        Class::Temporary => 4,
        Class::Permanent => 5,
    };
    assert_eq!(status.enhanced.0, class, "{status:?}");
}
