//! A session as its driver sees it: input, actions, answers and time. What the commands do is in
//! [`super::dialogue`].

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::command::Mail;
use super::config::{
    Config, DATA_BYTES_PER_SECOND_MIN, DATA_GRACE, ERROR_PAUSE, ERRORS_AT_ONCE_MAX, LINE_TIMEOUT,
    LOGIN_FAILURES_MAX, REPLIES_BYTES_MAX,
};
use super::content::{Decoder, Facts};
use super::reply::{Enhanced, Reply};
use super::{BodyType, Envelope, Recipient, Role};
use crate::address::Address;
use crate::sasl::{Credentials, Exchange, ScramKeys, TlsExporter};
use crate::wire::Input;

/// A yes, or the reply that says no. A 421 also ends the session.
pub type Verdict = Result<(), Reply>;

/// Refusals that are kept for a driver that does not ask.
const REFUSALS_MAX: usize = 1_000;

/// A reply that said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reverse-path of the message that it is about; `None` if that is the null one, or it is about none.
    pub reverse_path: Option<Address>,
    /// The reply.
    pub reply: Reply,
}

/// What the driver is to do. Those that want an answer get it before the session goes on.
#[derive(Debug)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Let that much time pass before the next poll: the client makes mistake after mistake.
    Pause(Duration),
    /// Do the TLS handshake, in bounded time, then call [`Session::tls_established`]; on failure, hang up.
    StartTls,
    /// Say what is kept of this user's password, or the like for nobody; answer with [`Session::keys`].
    Keys(String),
    /// Check these; answer with [`Session::authenticated`].
    Authenticate(Credentials),
    /// MAIL names this reverse-path (`None` is `<>`); answer with [`Session::sender`].
    Sender {
        /// Where failures would be reported.
        reverse_path: Option<Address>,
        /// `SIZE=`, in octets.
        size: Option<u64>,
    },
    /// RCPT names this forward-path; answer with [`Session::recipient`].
    Recipient(Address),
    /// Open a body for this message; answer with [`Session::begun`].
    Begin(Envelope),
    /// These octets have come of a message that is BINARYMIME (RFC 3030): what signatures are over, and what a repeat
    /// repeats. Content is what becomes of them.
    Received(Vec<u8>),
    /// Append this to the body: whole or partial lines that end in CRLF, dots unstuffed.
    Content(Vec<u8>),
    /// The body is complete: make the message durable; answer with [`Session::completed`].
    Complete(Facts),
    /// Discard the body, if one is open: the message will not be completed.
    Abort,
    /// Close the connection. Nothing follows.
    Close,
}

/// What the session is doing. A transaction lives in its phase alone: a phase that ends takes it along.
#[derive(Debug)]
pub(super) enum Phase {
    /// The greeting waits for that long: who speaks before takes us for something else.
    Greeting(Duration),
    /// Commands are read; there is no transaction.
    Ready,
    /// MAIL waits for the driver's answer.
    Sender(Mail),
    /// Commands are read; MAIL was accepted.
    Open(Transaction),
    /// RCPT waits for the driver's answer.
    Recipient(Transaction, Recipient),
    /// DATA, or BDAT with its chunk, waits for the driver to open a body.
    Beginning(BodyType, Option<Chunk>),
    /// Content is read, and a body is open.
    Content(Box<Decoder>),
    /// A chunk of content is read, and a body is open.
    Chunk(Box<Decoder>, Chunk),
    /// Commands are read between two chunks; a body is open.
    Chunked(Box<Decoder>),
    /// A chunk that was refused is read and dropped; after it comes what there was before.
    Dropping { left: u64, read: u64, then: Box<Self> },
    /// The end of content waits for the driver's commit.
    Completing,
    /// The client's next line belongs to an AUTH exchange.
    Challenge(Exchange),
    /// AUTH waits for the driver's keys.
    Keys(Exchange),
    /// AUTH waits for the driver's answer; there may be a last word for the client.
    Authenticating(Option<String>),
    /// The login under this name is good, the client was told the last word and says that it has heard it.
    Proving(String),
    /// The driver does the TLS handshake.
    Handshake,
    /// Nothing more happens.
    Closed,
}

/// What is still to come of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// Octets.
    pub left: u64,
    /// The message ends with it.
    pub last: bool,
}

/// A mail transaction that was opened by MAIL.
#[derive(Debug)]
pub(super) struct Transaction {
    pub mail: Mail,
    pub recipients: Vec<Recipient>,
    /// A recipient was refused, so having none is not the client's mistake.
    pub refused: bool,
}

/// Who the client says it is.
#[derive(Debug)]
pub(super) struct Client {
    pub name: String,
    pub esmtp: bool,
}

/// What is counted over a session.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub bad_commands: u32,
    pub idle_commands: u32,
    pub unknown_recipients: u32,
    pub recipients_refused: u32,
    pub login_failures: u32,
}

/// One connection. See the module for what it keeps.
#[derive(Debug)]
pub struct Session {
    pub(super) config: Arc<Config>,
    pub(super) tls: bool,
    pub(super) exporter: Option<TlsExporter>,
    pub(super) phase: Phase,
    pub(super) client: Option<Client>,
    pub(super) authenticated: Option<String>,
    pub(super) tally: Tally,
    pub(super) input: Input,
    pub(super) actions: VecDeque<Action>,
    replies: Vec<u8>,
    /// What MAIL named last, until it is clear that no refusal is of that message.
    pub(super) about: Option<Address>,
    /// Replies that said no, and that the driver has not been told of.
    refusals: Vec<Refused>,
    stopping: bool,
    /// Since when the client has been expected to do something.
    waiting_since: Duration,
    /// When the first byte of an unfinished line came.
    line_since: Duration,
    /// The wait begins anew at the next poll: a command was done or an answer came.
    rearm: bool,
}

impl Session {
    /// A new connection; `tls` says that it began with a handshake (port 465). The greeting is the
    /// first action. `now` is any clock that never goes back.
    pub fn new(config: Arc<Config>, tls: bool, now: Duration) -> Self {
        let mut session = Self {
            config,
            tls,
            exporter: None,
            phase: Phase::Ready,
            client: None,
            authenticated: None,
            tally: Tally::default(),
            input: Input::default(),
            actions: VecDeque::new(),
            replies: Vec::new(),
            about: None,
            refusals: Vec::new(),
            stopping: false,
            waiting_since: now,
            line_since: now,
            rearm: false,
        };
        session.greet();
        session
    }

    /// Greets only after that time, for which a stranger has to be silent (RFC 5321 §4.3.1). To be called before the
    /// first poll.
    pub fn greet_after(&mut self, pause: Duration) {
        self.replies.clear();
        self.phase = Phase::Greeting(pause);
    }

    fn greet(&mut self) {
        let greeting = Reply::bare(220, &format!("{} ESMTP Sallypost", self.config.hostname));
        self.reply(&greeting);
    }

    /// Whether the driver should read from the network. It is not to read otherwise, and at most
    /// 64 KiB at once: this is what bounds the session's memory.
    pub fn wants_input(&self) -> bool {
        self.actions.is_empty() && !self.awaits_answer() && !matches!(self.phase, Phase::Closed)
    }

    /// Whether there is input that the session has not looked at yet.
    pub fn has_more(&self) -> bool {
        !self.input.is_empty()
    }

    /// Bytes came from the network.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        if self.input.is_empty() {
            self.line_since = now;
        }
        self.input.push(bytes);
    }

    /// The next action. `None` means that the session waits: for input if
    /// [`wants_input`](Self::wants_input), else for an answer.
    pub fn poll(&mut self, now: Duration) -> Option<Action> {
        loop {
            if mem::take(&mut self.rearm) {
                self.waiting_since = now;
            }
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if self.awaits_answer() {
                return None;
            }
            if self.replies.len() >= REPLIES_BYTES_MAX || !self.advance() {
                self.flush();
                return self.actions.pop_front();
            }
        }
    }

    /// The replies since the last call that said no, for a log. To be called at each action: what they are about is what
    /// the action before was.
    pub fn refusals(&mut self) -> Vec<Refused> {
        mem::take(&mut self.refusals)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called if nothing happens before;
    /// `Duration::MAX` while the session waits for an answer. Ask again after every poll.
    pub fn deadline(&self) -> Duration {
        let since = self.waiting_since;
        match &self.phase {
            Phase::Closed => Duration::MAX,
            Phase::Greeting(pause) => since + *pause,
            // Between two chunks, too: a message has its time whatever it is cut into.
            Phase::Content(decoder) | Phase::Chunk(decoder, _) | Phase::Chunked(decoder) => {
                since + self.content_time(decoder.received())
            }
            Phase::Dropping { read, .. } => since + self.content_time(*read),
            _ if self.awaits_answer() => Duration::MAX,
            _ if self.client.is_none() => since + LINE_TIMEOUT.min(self.config.idle_timeout),
            _ if self.input.is_empty() => since + self.config.idle_timeout,
            _ => (since + self.config.idle_timeout).min(self.line_since.max(since) + LINE_TIMEOUT),
        }
    }

    /// How long content may take of which so many octets have come.
    fn content_time(&self, received: u64) -> Duration {
        let earned = Duration::from_secs(received / DATA_BYTES_PER_SECOND_MIN);
        self.config.data_timeout.min(DATA_GRACE + earned)
    }

    /// Time has passed. Ends the session if its deadline has, or greets who has waited for it.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now < self.deadline() {
            return;
        }
        match self.phase {
            Phase::Greeting(_) => {
                self.phase = Phase::Ready;
                self.rearm = true;
                self.greet();
            }
            _ => self.close_with(&Reply::new(421, Enhanced(4, 4, 2), "you took too long")),
        }
    }

    /// The node is going down: the next poll ends the session, unless a message's content has begun;
    /// that message is still taken.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// The client hung up or the connection broke. What was still to be done is not; a message whose
    /// [`Action::Complete`] was handed out is in the driver's hands.
    pub fn disconnected(&mut self) {
        let queued = self.actions.iter().any(|action| matches!(action, Action::Complete(_)));
        let handed_over = matches!(self.phase, Phase::Completing) && !queued;
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Ready;
        }
        self.actions.clear();
        self.replies.clear();
        if !handed_over {
            self.actions.push_back(Action::Abort);
        }
        self.close();
    }

    /// Answers [`Action::Sender`].
    pub fn sender(&mut self, verdict: Verdict) {
        match self.answered() {
            Phase::Sender(mail) => match verdict {
                Ok(()) => {
                    self.reply(&Reply::new(250, Enhanced(2, 1, 0), "sender ok"));
                    self.phase = Phase::Open(Transaction { mail, recipients: Vec::new(), refused: false });
                }
                Err(reply) if reply.closes() => self.close_with(&reply),
                Err(reply) => self.idle(&reply),
            },
            other => self.phase = other,
        }
    }

    /// Answers [`Action::Recipient`].
    pub fn recipient(&mut self, verdict: Verdict) {
        match self.answered() {
            Phase::Recipient(mut transaction, recipient) => {
                match &verdict {
                    Ok(()) => transaction.recipients.push(recipient),
                    Err(_) => transaction.refused = true,
                }
                self.phase = Phase::Open(transaction);
                match verdict {
                    Ok(()) => self.reply(&Reply::new(250, Enhanced(2, 1, 5), "recipient ok")),
                    Err(reply) => {
                        if reply.refuses_mailbox() {
                            self.tally.unknown_recipients += 1;
                            self.slow_down();
                        } else {
                            self.tally.recipients_refused += 1;
                        }
                        self.refuse(&reply);
                    }
                }
            }
            other => self.phase = other,
        }
    }

    /// Answers [`Action::Begin`].
    pub fn begun(&mut self, verdict: Verdict) {
        match self.answered() {
            Phase::Beginning(body, chunk) => match (verdict, chunk) {
                (Ok(()), None) => {
                    self.reply(&Reply::bare(354, "end with a dot on a line of its own"));
                    self.phase = Phase::Content(Box::new(Decoder::new(self.config.content)));
                }
                (Ok(()), Some(chunk)) => {
                    let decoder = match body {
                        BodyType::Binary => Decoder::of_binary_chunks(self.config.content),
                        BodyType::SevenBit | BodyType::EightBit => Decoder::of_chunks(self.config.content),
                    };
                    self.phase = Phase::Chunk(Box::new(decoder), chunk);
                }
                (Err(reply), Some(chunk)) => {
                    self.refuse(&reply);
                    self.drop_chunk(chunk.left);
                }
                (Err(reply), None) if self.input.is_empty() => self.refuse(&reply),
                (Err(reply), None) => self.close_with(&reply),
            },
            other => self.phase = other,
        }
    }

    /// Answers [`Action::Complete`]: the id under which the message is durably ours, or the refusal.
    pub fn completed(&mut self, verdict: Result<String, Reply>) {
        match self.answered() {
            Phase::Completing => match verdict {
                Ok(id) => {
                    self.tally.idle_commands = 0;
                    self.about = None;
                    self.reply(&Reply::new(250, Enhanced(2, 0, 0), &format!("queued as {id}")));
                }
                Err(reply) => self.refuse(&reply),
            },
            other => self.phase = other,
        }
    }

    /// The name that the client gave with HELO or EHLO; empty before that.
    pub fn client_name(&self) -> &str {
        self.client.as_ref().map_or("", |client| &client.name)
    }

    /// What logins can be bound to, under TLS: to be told before the next poll.
    pub fn bound_to(&mut self, exporter: Option<TlsExporter>) {
        self.exporter = exporter;
    }

    /// Answers [`Action::Keys`].
    pub fn keys(&mut self, keys: Result<&ScramKeys, Reply>) {
        match self.answered() {
            Phase::Keys(exchange) => match keys {
                Ok(keys) => self.auth_step(exchange.keys(keys)),
                Err(reply) => self.refuse(&reply),
            },
            other => self.phase = other,
        }
    }

    /// Answers [`Action::Authenticate`]: the name under which the client's messages go, or the refusal
    /// (535 5.7.8 for bad credentials, the same whatever is wrong with them).
    pub fn authenticated(&mut self, verdict: Result<String, Reply>) {
        match self.answered() {
            Phase::Authenticating(last) => match (verdict, last) {
                (Ok(name), None) => self.logged_in(name),
                (Ok(name), Some(last)) => {
                    self.reply(&Reply::bare(334, &last));
                    self.phase = Phase::Proving(name);
                }
                (Err(reply), _) => self.login_failed(&reply),
            },
            other => self.phase = other,
        }
    }

    /// Too many of them end the session.
    pub(super) fn login_failed(&mut self, reply: &Reply) {
        self.tally.login_failures += u32::from(reply.is_permanent());
        self.refuse(reply);
        if self.tally.login_failures >= LOGIN_FAILURES_MAX {
            self.close_with(&Reply::new(421, Enhanced(4, 7, 0), "too many failed logins"));
        }
    }

    pub(super) fn logged_in(&mut self, name: String) {
        self.authenticated = Some(name);
        self.reply(&Reply::new(235, Enhanced(2, 7, 0), "welcome"));
    }

    /// Answers [`Action::StartTls`]: all that was said in the clear is forgotten (RFC 3207 §4.2).
    pub fn tls_established(&mut self) {
        match self.answered() {
            Phase::Handshake => {
                self.tls = true;
                self.client = None;
                self.authenticated = None;
                self.input.clear();
            }
            other => self.phase = other,
        }
    }

    /// Takes the phase out, and lets the client's time begin anew.
    fn answered(&mut self) -> Phase {
        self.rearm = true;
        mem::replace(&mut self.phase, Phase::Ready)
    }

    fn awaits_answer(&self) -> bool {
        match self.phase {
            Phase::Greeting(_)
            | Phase::Ready
            | Phase::Open(_)
            | Phase::Content(_)
            | Phase::Chunk(..)
            | Phase::Chunked(_)
            | Phase::Dropping { .. }
            | Phase::Challenge(_)
            | Phase::Proving(_)
            | Phase::Closed => false,
            Phase::Sender(_)
            | Phase::Recipient(..)
            | Phase::Beginning(..)
            | Phase::Completing
            | Phase::Keys(_)
            | Phase::Authenticating(_)
            | Phase::Handshake => true,
        }
    }

    /// Does the next thing that the input allows; `false` when it allows none.
    fn advance(&mut self) -> bool {
        match mem::replace(&mut self.phase, Phase::Ready) {
            phase @ (Phase::Ready | Phase::Open(_)) => {
                self.phase = phase;
                if self.stopping {
                    self.close_with(&Reply::new(421, Enhanced(4, 3, 2), "going down, try again later"));
                    return true;
                }
                self.command()
            }
            Phase::Greeting(_) if !self.input.is_empty() => {
                self.close_with(&Reply::new(554, Enhanced(5, 5, 1), "you spoke before the greeting"));
                true
            }
            Phase::Challenge(exchange) => self.challenged(exchange),
            Phase::Proving(name) => self.heard(name),
            Phase::Content(decoder) => self.content(decoder),
            Phase::Chunk(decoder, chunk) => self.chunk(decoder, chunk),
            // A message that has begun is still taken, whoever is going down.
            phase @ Phase::Chunked(_) => {
                self.phase = phase;
                self.command()
            }
            Phase::Dropping { left, read, then } => self.dropping(left, read, then),
            other => {
                self.phase = other;
                false
            }
        }
    }

    /// A line was read: the client has its time again, unless that of a message is running.
    pub(super) fn line_read(&mut self) {
        self.rearm = self.rearm || !matches!(self.phase, Phase::Chunked(_));
    }

    /// There is no transaction any more, nor a body.
    pub(super) fn end_transaction(&mut self) {
        if matches!(mem::replace(&mut self.phase, Phase::Ready), Phase::Chunked(_)) {
            self.actions.push_back(Action::Abort);
            self.rearm = true;
        }
    }

    /// Lets the next reply wait, if the client has made too many mistakes.
    pub(super) fn slow_down(&mut self) {
        if self.tally.bad_commands + self.tally.unknown_recipients > ERRORS_AT_ONCE_MAX {
            self.flush();
            self.actions.push_back(Action::Pause(ERROR_PAUSE));
        }
    }

    /// Adds a reply to those that go out together.
    pub(super) fn reply(&mut self, reply: &Reply) {
        if reply.code() >= 400 && self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(Refused { reverse_path: self.about.clone(), reply: reply.clone() });
        }
        reply.write(&mut self.replies);
    }

    /// A driver's refusal; the session ends if the reply says so.
    pub(super) fn refuse(&mut self, reply: &Reply) {
        if reply.closes() {
            self.close_with(reply);
        } else {
            self.reply(reply);
        }
    }

    /// Sends what replies there are.
    pub(super) fn flush(&mut self) {
        if !self.replies.is_empty() {
            self.actions.push_back(Action::Send(mem::take(&mut self.replies)));
        }
    }

    /// Says a last word and ends the session.
    pub(super) fn close_with(&mut self, reply: &Reply) {
        self.reply(reply);
        self.close();
    }

    fn close(&mut self) {
        self.flush();
        let sound = |decoder: &Decoder| decoder.fault().is_none();
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closed => return,
            Phase::Content(decoder) | Phase::Chunk(decoder, _) | Phase::Chunked(decoder)
                if sound(&decoder) =>
            {
                self.actions.push_back(Action::Abort);
            }
            Phase::Beginning(..) => self.actions.push_back(Action::Abort),
            _ => {}
        }
        self.input.clear();
        self.actions.push_back(Action::Close);
    }

    /// Whether this is the service for our own people.
    pub(super) fn is_submission(&self) -> bool {
        self.config.role == Role::Submission
    }
}
