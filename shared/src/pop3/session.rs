//! A session as its driver sees it (input, actions, answers, time), and its AUTHORIZATION state. The
//! TRANSACTION state is in [`super::transaction`].

use std::collections::VecDeque;
use std::io::Write as _;
use std::mem;
use std::time::Duration;

use zeroize::Zeroizing;

use super::command::{self, Command};
use super::maildrop::{Entry, Maildrop};
use super::transaction::{Fetching, Listing};
use crate::sasl::{self, Credentials, Exchange, Mechanism, SaslError, ScramKeys, Step, TlsExporter};
use crate::wire::{Input, LineError};

/// Octets in a command line without its CRLF (RFC 2449 §4).
pub const COMMAND_BYTES_MAX: usize = 253;
/// Refused commands in one session.
pub const BAD_COMMANDS_MAX: u32 = 20;
/// Logins refused for their credentials in one session.
pub const LOGIN_FAILURES_MAX: u32 = 5;
/// Octets of replies that are collected before they are sent.
pub const REPLIES_BYTES_MAX: usize = 16 * 1024;

/// Languages of our texts: tag, and name in it. The first is the one that `*` gets.
const LANGUAGES: [(&str, &str); 2] = [("en", "English"), ("i-default", "English")];

/// How long a client may take to log in; anew after every attempt and after STLS.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may be silent between commands (RFC 1939 §3: at least 10 minutes).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a client may take for the rest of a line it has begun.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(60);

/// What all sessions of one listener have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether STLS is offered on a session that began in the clear.
    pub stls: bool,
    /// Whether logins are taken in the clear: for private links only.
    pub plaintext_login: bool,
    /// How long a client is to wait between two logins, which the driver sees to; zero is not at all
    /// (RFC 2449 §6.5). In whole seconds.
    pub login_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { stls: true, plaintext_login: false, login_delay: Duration::ZERO }
    }
}

/// What the driver is to do. Those that want an answer get it before the session goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Do the TLS handshake, in bounded time, then call [`Session::tls_established`]; on failure, hang up.
    StartTls,
    /// Say what is kept of this user's password, or the like for nobody; answer with [`Session::keys`].
    Keys(String),
    /// Check these and lock the maildrop; answer with [`Session::authenticated`].
    Authenticate(Credentials),
    /// Read this message: give its content with [`Session::content`], then
    /// [`Session::content_end`]. Poll after every piece.
    Fetch {
        /// As it was given at the login.
        entry: Entry,
        /// TOP: the header and so many lines of the body will do.
        lines: Option<u64>,
        /// What a client asks for next that fetches all in their order.
        next: Option<Entry>,
    },
    /// QUIT: do this durably and release the maildrop; answer with [`Session::committed`].
    Commit {
        /// Messages to delete, in their order.
        deleted: Vec<Entry>,
        /// Messages that were retrieved whole, in their order.
        retrieved: Vec<Entry>,
    },
    /// Close the connection and release the maildrop, if it is locked. Nothing follows; without a
    /// `Commit` before, nothing is deleted.
    Close,
}

/// Why a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    /// No such user, wrong password, or no right: the answer is the same (RFC 3206).
    Credentials,
    /// Another session has the maildrop (RFC 2449 §8.1.1).
    InUse,
    /// Not the user's fault, and worth another try later (RFC 3206).
    Temporary,
    /// The user is who they say, and was here a moment ago (RFC 2449 §8.1.1).
    TooSoon,
    /// Too many guesses: nothing was checked, and [`LoginRefusal::Credentials`] is not to be inferred.
    Guessing,
}

/// A maildrop that has been opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its messages, in order of message numbers.
    pub entries: Vec<Entry>,
    /// How long they are kept.
    pub expire: Expire,
}

/// How long mail is kept, as CAPA announces it once it is known whose (RFC 2449 §6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expire {
    /// Until it is deleted.
    Never,
    /// So many whole days at least.
    Days(u64),
}

/// What the session is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// AUTHORIZATION: no login yet; perhaps USER was given.
    Authorization { user: Option<String> },
    /// The client's next line belongs to an AUTH exchange.
    Challenge(Exchange),
    /// An exchange waits for the driver's keys.
    Keys(Exchange),
    /// A login waits for the driver's answer; there may be a last word for the client.
    Authenticating(Option<String>),
    /// The login is good, the client was told the last word and says that it has heard it.
    Proving(Opened),
    /// The driver does the TLS handshake.
    Handshake,
    /// TRANSACTION: commands are read.
    Transaction(Maildrop),
    /// A list is being written.
    Listing(Maildrop, Listing),
    /// A message is being read by the driver.
    Fetching(Maildrop, Fetching),
    /// UPDATE: QUIT waits for the driver's commit.
    Committing,
    /// Nothing more happens.
    Closed,
}

/// One connection. See the module for what it keeps.
#[derive(Debug)]
pub struct Session {
    pub(super) phase: Phase,
    pub(super) replies: Vec<u8>,
    pub(super) actions: VecDeque<Action>,
    config: Config,
    tls: bool,
    exporter: Option<TlsExporter>,
    /// The client has said UTF8.
    pub(super) utf8: bool,
    /// Known from the login on.
    expire: Option<Expire>,
    input: Input,
    bad_commands: u32,
    login_failures: u32,
    /// Since when the client has been expected to log in, or to give a command.
    waiting_since: Duration,
    /// When the first byte of an unfinished line came.
    line_since: Duration,
    /// The wait begins anew at the next poll.
    rearm: bool,
}

impl Session {
    /// A new connection; `tls` says that it began with a handshake (port 995). The greeting is the
    /// first action. `now` is any clock that never goes back.
    pub fn new(config: Config, tls: bool, now: Duration) -> Self {
        let mut session = Self {
            phase: Phase::Authorization { user: None },
            replies: Vec::new(),
            actions: VecDeque::new(),
            config,
            tls,
            exporter: None,
            utf8: false,
            expire: None,
            input: Input::default(),
            bad_commands: 0,
            login_failures: 0,
            waiting_since: now,
            line_since: now,
            rearm: false,
        };
        session.ok("Sallypost ready");
        session
    }

    /// Whether the driver should read from the network. It is not to read otherwise, and at most
    /// 64 KiB at once: this is what bounds the session's memory.
    pub fn wants_input(&self) -> bool {
        self.actions.is_empty() && !self.awaits_answer() && !matches!(self.phase, Phase::Closed)
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
            let fetching = matches!(self.phase, Phase::Fetching(..));
            // A message that is being read goes out in large pieces, the last with its end.
            if self.awaits_answer() && !(fetching && self.replies.len() >= REPLIES_BYTES_MAX) {
                return None;
            }
            if fetching || self.replies.len() >= REPLIES_BYTES_MAX || !self.advance() {
                self.flush();
                return self.actions.pop_front();
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called if nothing happens before;
    /// `Duration::MAX` while the session waits for an answer. Ask again after every poll.
    pub fn deadline(&self) -> Duration {
        let since = self.waiting_since;
        match self.phase {
            Phase::Authorization { .. } | Phase::Challenge(_) | Phase::Proving(_) => since + LOGIN_TIMEOUT,
            Phase::Transaction(_) if self.input.is_empty() => since + IDLE_TIMEOUT,
            Phase::Transaction(_) => (since + IDLE_TIMEOUT).min(self.line_since.max(since) + LINE_TIMEOUT),
            _ => Duration::MAX,
        }
    }

    /// Time has passed. Ends the session if its deadline has, without a word and without deleting
    /// anything (RFC 1939 §3).
    pub fn handle_timeout(&mut self, now: Duration) {
        if now >= self.deadline() {
            self.close();
        }
    }

    /// The client hung up or the connection broke: nothing is deleted.
    pub fn disconnected(&mut self) {
        if !matches!(self.phase, Phase::Closed) {
            self.replies.clear();
            self.actions.clear();
            self.close();
        }
    }

    /// Answers [`Action::StartTls`]: all that was said in the clear is forgotten (RFC 2595 §4).
    pub fn tls_established(&mut self) {
        if matches!(self.phase, Phase::Handshake) {
            self.tls = true;
            self.utf8 = false;
            self.input.clear();
            self.rearm();
            self.phase = Phase::Authorization { user: None };
        }
    }

    /// What logins can be bound to, under TLS: to be told before the next poll.
    pub fn bound_to(&mut self, exporter: Option<TlsExporter>) {
        self.exporter = exporter;
    }

    /// Answers [`Action::Keys`]; `None`, if they cannot be had now.
    pub fn keys(&mut self, keys: Option<&ScramKeys>) {
        match mem::replace(&mut self.phase, Phase::Authorization { user: None }) {
            Phase::Keys(exchange) => match keys {
                Some(keys) => self.auth_step(exchange.keys(keys)),
                None => self.err("[SYS/TEMP] not now: try again later"),
            },
            other => self.phase = other,
        }
    }

    /// Answers [`Action::Authenticate`]: the maildrop, locked.
    pub fn authenticated(&mut self, verdict: Result<Opened, LoginRefusal>) {
        let Phase::Authenticating(last) = &mut self.phase else { return };
        let last = last.take();
        self.rearm();
        self.phase = Phase::Authorization { user: None };
        match (verdict, last) {
            (Ok(opened), None) => self.opened(opened),
            (Ok(opened), Some(last)) => {
                self.line(&format!("+ {last}"));
                self.phase = Phase::Proving(opened);
            }
            (Err(refusal), _) => self.refused(refusal),
        }
    }

    fn opened(&mut self, opened: Opened) {
        let maildrop = Maildrop::new(opened.entries);
        let (count, size) = maildrop.total();
        self.ok(&format!("{count} messages ({size} octets)"));
        self.expire = Some(opened.expire);
        self.phase = Phase::Transaction(maildrop);
    }

    fn refused(&mut self, refusal: LoginRefusal) {
        match refusal {
            LoginRefusal::Credentials => self.err("[AUTH] bad user name or password"),
            LoginRefusal::Guessing => {
                self.err("[SYS/TEMP] too many failed logins: try again in some minutes");
            }
            LoginRefusal::InUse => self.err("[IN-USE] another session has the maildrop: try again later"),
            LoginRefusal::Temporary => self.err("[SYS/TEMP] not now: try again later"),
            LoginRefusal::TooSoon => {
                let seconds = self.config.login_delay.as_secs();
                self.err(&format!("[LOGIN-DELAY] collect once in {seconds} s: try again later"));
            }
        }
        if matches!(refusal, LoginRefusal::Credentials | LoginRefusal::Guessing) {
            self.login_failures += 1;
            if self.login_failures >= LOGIN_FAILURES_MAX {
                self.close();
            }
        }
    }

    /// Answers [`Action::Commit`]; on failure nothing, or not all, was deleted.
    pub fn committed(&mut self, done: bool) {
        if matches!(self.phase, Phase::Committing) {
            if done {
                self.ok("bye");
            } else {
                self.err("[SYS/TEMP] some deleted messages were not removed");
            }
            self.close();
        }
    }

    fn awaits_answer(&self) -> bool {
        match self.phase {
            Phase::Keys(_)
            | Phase::Authenticating(_)
            | Phase::Handshake
            | Phase::Fetching(..)
            | Phase::Committing => true,
            Phase::Authorization { .. }
            | Phase::Challenge(_)
            | Phase::Proving(_)
            | Phase::Transaction(_)
            | Phase::Listing(..)
            | Phase::Closed => false,
        }
    }

    /// Does the next thing that the input allows; `false` when it allows none.
    fn advance(&mut self) -> bool {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closed => false,
            Phase::Listing(maildrop, listing) => {
                self.list_on(maildrop, listing);
                true
            }
            Phase::Challenge(exchange) => self.challenged(exchange),
            Phase::Proving(opened) => self.heard(opened),
            phase => {
                self.phase = phase;
                self.command()
            }
        }
    }

    /// Reads and obeys one command; `false` when there is no whole one.
    fn command(&mut self) -> bool {
        let is_auth = self.input.unread().get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"AUTH "));
        match self.input.line(if is_auth { sasl::LINE_BYTES_MAX } else { COMMAND_BYTES_MAX }) {
            Ok(None) => return false,
            Ok(Some(line)) => match command::parse(&line) {
                Ok(command) => self.obey(command),
                Err(text) => self.bad_command(text),
            },
            Err(error) => self.broken_line(error),
        }
        true
    }

    /// Nobody knows where the next command begins: there is none.
    fn broken_line(&mut self, error: LineError) {
        self.err(&error.to_string());
        self.close();
    }

    fn obey(&mut self, command: Command) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Transaction(maildrop) => {
                self.rearm();
                self.transaction(maildrop, command);
            }
            Phase::Authorization { user } => {
                self.phase = Phase::Authorization { user: None };
                self.authorization(user, command);
            }
            other => self.phase = other,
        }
    }

    /// A command before the login. It uses up the name that USER gave.
    fn authorization(&mut self, user: Option<String>, command: Command) {
        match command {
            Command::Quit => {
                self.ok("bye");
                self.close();
            }
            Command::Capa => self.capabilities(),
            Command::Stls => self.start_tls(),
            Command::Auth { mechanism: None, .. } => self.mechanisms(),
            Command::Lang(range) => {
                if let Err(text) = self.language(range.as_deref()) {
                    self.bad_command(text);
                }
            }
            Command::Utf8 => {
                self.utf8 = true;
                self.ok("headers come in UTF-8");
            }
            Command::User(_) | Command::Pass(_) | Command::Auth { .. } if !self.may_log_in() => {
                self.bad_command("[AUTH] logging in needs TLS: send STLS first");
            }
            Command::User(name) => {
                self.ok("now the password");
                self.phase = Phase::Authorization { user: Some(name) };
            }
            Command::Pass(password) => match user {
                Some(user) => self.login(user, password),
                None => self.bad_command("send USER first"),
            },
            Command::Auth { mechanism: Some(mechanism), initial } => {
                self.auth(&mechanism, initial.as_deref())
            }
            _ => self.bad_command("log in first"),
        }
    }

    fn may_log_in(&self) -> bool {
        self.tls || self.config.plaintext_login
    }

    fn login(&mut self, user: String, password: Zeroizing<String>) {
        match Credentials::new(user, password) {
            Ok(credentials) => self.authenticate(credentials),
            Err(error) => self.bad_command(&error.to_string()),
        }
    }

    fn authenticate(&mut self, credentials: Credentials) {
        self.authenticate_with(credentials, None);
    }

    fn authenticate_with(&mut self, credentials: Credentials, last: Option<String>) {
        self.phase = Phase::Authenticating(last);
        self.actions.push_back(Action::Authenticate(credentials));
    }

    /// AUTH without a mechanism: an old way to ask for the list.
    fn mechanisms(&mut self) {
        self.ok("the mechanisms are");
        if self.may_log_in() {
            sasl::mechanisms(self.exporter.is_some()).split(' ').for_each(|name| self.line(name));
        }
        self.line(".");
    }

    fn auth(&mut self, mechanism: &str, initial: Option<&str>) {
        match Mechanism::named(mechanism) {
            // Never standardised, and what POP3 has USER and PASS for.
            None | Some(Mechanism::Login) => {
                self.bad_command("mechanism not recognized: use PLAIN or SCRAM-SHA-256");
            }
            Some(mechanism) => self.auth_step(Exchange::begin(mechanism, initial, self.exporter)),
        }
    }

    fn challenged(&mut self, exchange: Exchange) -> bool {
        match self.input.line(sasl::LINE_BYTES_MAX) {
            Ok(None) => {
                self.phase = Phase::Challenge(exchange);
                return false;
            }
            Ok(Some(line)) => {
                let line = std::str::from_utf8(&line).map_err(|_| SaslError::Base64);
                self.auth_step(line.and_then(|line| exchange.answer(line)));
            }
            Err(error) => self.broken_line(error),
        }
        true
    }

    /// The client has heard the last word, by which it knows us (RFC 5034 §4): an empty line. Anything else is no
    /// login.
    fn heard(&mut self, opened: Opened) -> bool {
        match self.input.line(sasl::LINE_BYTES_MAX) {
            Ok(None) => {
                self.phase = Phase::Proving(opened);
                return false;
            }
            Ok(Some(line)) if line.is_empty() => self.opened(opened),
            Ok(Some(_)) => {
                self.err("[AUTH] the exchange was not ended");
                self.close();
            }
            Err(error) => self.broken_line(error),
        }
        true
    }

    fn auth_step(&mut self, step: Result<Step, SaslError>) {
        match step {
            Ok(Step::Challenge(challenge, exchange)) => {
                self.line(&format!("+ {challenge}"));
                self.phase = Phase::Challenge(exchange);
            }
            Ok(Step::Keys(user, exchange)) => {
                self.phase = Phase::Keys(exchange);
                self.actions.push_back(Action::Keys(user));
            }
            Ok(Step::Done(credentials, last)) => self.authenticate_with(credentials, last),
            Err(error) => {
                self.phase = Phase::Authorization { user: None };
                // RFC 3206 §4: without it, what is wrong are not the credentials.
                let code = match error {
                    SaslError::Identity | SaslError::Binding => "[AUTH] ",
                    SaslError::Cancelled | SaslError::Base64 | SaslError::Malformed => "",
                };
                self.bad_command(&format!("{code}{error}"));
            }
        }
    }

    fn start_tls(&mut self) {
        if self.tls {
            self.bad_command("TLS is on already");
        } else if !self.config.stls {
            self.bad_command("STLS is not offered");
        } else if !self.input.is_empty() {
            // Plaintext that would be obeyed as if it had come encrypted.
            self.err("nothing may follow STLS before the reply");
            self.close();
        } else {
            self.ok("go ahead");
            self.flush();
            self.rearm();
            self.phase = Phase::Handshake;
            self.actions.push_back(Action::StartTls);
        }
    }

    /// CAPA, in either state (RFC 2449 §5).
    pub(super) fn capabilities(&mut self) {
        self.ok("capabilities follow");
        for line in ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "UTF8 USER", "LANG"] {
            self.line(line);
        }
        match self.expire {
            Some(Expire::Never) => self.line("EXPIRE NEVER"),
            Some(Expire::Days(days)) => self.line(&format!("EXPIRE {days}")),
            // It is another one for each user.
            None => {}
        }
        if !self.config.login_delay.is_zero() {
            self.line(&format!("LOGIN-DELAY {}", self.config.login_delay.as_secs()));
        }
        if self.may_log_in() {
            self.line("USER");
            self.line(&format!("SASL {}", sasl::mechanisms(self.exporter.is_some())));
        }
        if self.config.stls && !self.tls {
            self.line("STLS");
        }
        self.line("IMPLEMENTATION Sallypost");
        self.line(".");
    }

    /// LANG (RFC 6856 §3): which language our texts are in. There is one.
    pub(super) fn language(&mut self, range: Option<&str>) -> Result<(), &'static str> {
        let Some(range) = range else {
            self.ok("languages follow");
            LANGUAGES.iter().for_each(|(tag, name)| self.line(&format!("{tag} {name}")));
            self.line(".");
            return Ok(());
        };
        let range = if range == "*" { LANGUAGES[0].0 } else { range };
        // What is asked for, or more and more of it left out from its end (RFC 4647 §3.4).
        let fits = |tag: &str| {
            let same = range.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
            same && matches!(range.as_bytes().get(tag.len()), None | Some(b'-'))
        };
        let (tag, _) =
            LANGUAGES.iter().find(|(tag, _)| fits(tag)).ok_or("no such language: send LANG for a list")?;
        self.ok(&format!("{tag} is what follows"));
        Ok(())
    }

    /// Refuses a command, and the client that sends too many such.
    pub(super) fn bad_command(&mut self, text: &str) {
        self.err(text);
        self.bad_commands += 1;
        if self.bad_commands > BAD_COMMANDS_MAX {
            self.close();
        }
    }

    /// A positive reply.
    pub(super) fn ok(&mut self, text: &str) {
        self.line(&format!("+OK {text}"));
    }

    /// A negative reply. All texts are our own: nothing of the client's is repeated.
    pub(super) fn err(&mut self, text: &str) {
        self.line(&format!("-ERR {text}"));
    }

    /// Lets the client's time begin anew.
    pub(super) fn rearm(&mut self) {
        self.rearm = true;
    }

    /// One line of a reply.
    pub(super) fn line(&mut self, text: &str) {
        write!(self.replies, "{text}\r\n").expect("writing to a Vec does not fail");
    }

    fn flush(&mut self) {
        if !self.replies.is_empty() {
            self.actions.push_back(Action::Send(mem::take(&mut self.replies)));
        }
    }

    /// Ends the session after what has been said.
    pub(super) fn close(&mut self) {
        self.flush();
        self.input.clear();
        self.phase = Phase::Closed;
        self.actions.push_back(Action::Close);
    }
}
