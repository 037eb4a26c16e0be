//! The session: its opening (`opening`), and one transaction after another, each an envelope and its content (`content`).

mod content;
mod opening;

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use crate::address::Address;
use crate::notify::Return;
use crate::sasl::Credentials;
use crate::smtp::{Enhanced, Recipient};

use super::chunks::NoChunks;
use super::login::Login;
use super::outcome::{Class, Outcome, Status};
use super::reply::{HostReply, Replies};
use super::transaction::{Capabilities, Transaction};
use content::{Body, By};

/// Commands that are sent before their replies are awaited (RFC 2920 §3.1: replies must not fill the
/// way back while we still write).
pub const PIPELINE_MAX: usize = 100;

/// Said of a connection that ended by itself.
const LOST: &str = "the connection was lost";
/// RFC 5321 §4.5.3.2: for the greeting, EHLO, MAIL and RCPT.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// For the 354 after DATA.
const DATA_TIMEOUT: Duration = Duration::from_secs(120);
/// For each piece of content, and the answer to a chunk that is not the last.
const CONTENT_TIMEOUT: Duration = Duration::from_secs(180);
/// For the reply to the final dot or the last chunk.
const DOT_TIMEOUT: Duration = Duration::from_secs(600);
/// For the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// For replies on which nothing depends: to QUIT, and to the dot of a message that nobody gets.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(10);

/// How much TLS is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPolicy {
    /// None, even if it is offered: after a handshake that failed.
    Never,
    /// If it is offered.
    Opportunistic,
    /// Or nothing is delivered.
    Required,
    /// From the first byte, before the greeting (RFC 8314), or nothing is delivered.
    Implicit,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP: one reply to the end of the content, for all recipients.
    Smtp,
    /// LMTP: one for each recipient that RCPT took, in their order.
    Lmtp,
}

/// What a connection is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our name, for EHLO.
    pub helo: String,
    /// How much TLS is wanted.
    pub tls: TlsPolicy,
    /// What is spoken.
    pub protocol: Protocol,
    /// As whom to log in, before anything is delivered; only ever under TLS.
    pub login: Option<Credentials>,
}

/// A message to deliver, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where failures are reported; `None` is the null reverse-path.
    pub reverse_path: Option<Address>,
    /// The recipients that this host serves; at least one.
    pub recipients: Vec<Recipient>,
    /// How much of it a report of failure returns, if the sender has said so (RFC 3461).
    pub returns: Option<Return>,
    /// What the sender calls the transaction (ENVID), if they do.
    pub envelope_id: Option<String>,
    /// Octets of content.
    pub size: u64,
    /// The content holds octets over 127.
    pub eight_bit: bool,
    /// The header is internationalized (RFC 6532): the message came with SMTPUTF8 declared, and its
    /// header holds octets over 127. Old 8-bit headers without that declaration go as they are.
    pub utf8_header: bool,
    /// It goes only under TLS to a host that passes that on (REQUIRETLS, RFC 8689), or, with the null reverse-path, as well to
    /// others. What the host has to prove is in the TLS that it is offered.
    pub require_tls: bool,
    /// Header fields that go before the content, whose lines end with CRLF; `size` counts them.
    pub before: Vec<u8>,
}

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes, then call [`Client::sent`].
    Send(Vec<u8>),
    /// Do the TLS handshake, then call [`Client::tls_established`]. On failure hang up; with
    /// [`TlsPolicy::Opportunistic`], another connection with [`TlsPolicy::Never`] may do.
    StartTls,
    /// Give the next piece with [`Client::content`], or [`Client::content_end`] after the last (and where it is wanted once more),
    /// or [`Client::content_failed`].
    WantContent,
    /// The host has taken what it was sent. Call [`Client::end`] if it may be sent the end of the content, or
    /// [`Client::content_failed`].
    WantEnd,
    /// The message is dealt with. Next: [`Client::deliver`] again or [`Client::quit`], unless `Close`
    /// follows.
    Done(Vec<Outcome>),
    /// The host cannot be used; the message, if there is one, was not attempted. Another host may do.
    /// `Close` follows.
    Unusable(Status),
    /// Close the connection. Nothing follows.
    Close,
}

/// What the host is expected to say next, or we to do.
#[derive(Debug)]
enum Phase {
    Greeting,
    Ehlo,
    Helo,
    /// The reply to STARTTLS.
    StartTls,
    Handshake,
    /// The reply to AUTH, or to a line of its exchange.
    Login(Login),
    /// Nothing, until there is a message or QUIT.
    Idle,
    /// The reply to the RSET that clears a transaction which came to nothing.
    Rset(Transaction),
    /// Replies to MAIL and RCPT.
    Envelope(Transaction),
    /// The reply to DATA.
    Data(Transaction),
    /// The reply to the dot behind a 354 that came although no recipient was taken.
    Nothing(Transaction),
    /// Content is being sent, but its end.
    Content(Transaction, Body),
    /// The reply to the final dot or the last chunk.
    End(Transaction, By),
    Quit,
    Closed,
}

/// One connection. See the module for what it keeps.
#[derive(Debug)]
pub struct Client {
    config: Config,
    phase: Phase,
    tls: bool,
    capabilities: Capabilities,
    /// Whether content may go by BDAT.
    chunking: bool,
    /// A chunk was taken.
    is_tried: bool,
    no_chunks: Option<NoChunks>,
    replies: Replies,
    actions: VecDeque<Action>,
    /// A message that waits for the session to be ready.
    waiting: Option<Transaction>,
    quitting: bool,
    /// A transaction was opened and not completed: RSET comes before the next.
    unclean: bool,
    /// A message was dealt with: the host may end the session any time now.
    used: bool,
    /// Since when the present step has been going on.
    since: Duration,
}

impl Client {
    /// A connection just made; with [`TlsPolicy::Implicit`], one under TLS. `now` is any clock that never goes
    /// back.
    pub fn new(config: Config, now: Duration) -> Self {
        Self {
            phase: Phase::Greeting,
            tls: config.tls == TlsPolicy::Implicit,
            config,
            capabilities: Capabilities::default(),
            chunking: true,
            is_tried: false,
            no_chunks: None,
            replies: Replies::default(),
            actions: VecDeque::new(),
            waiting: None,
            quitting: false,
            unclean: false,
            used: false,
            since: now,
        }
    }

    /// Whether the session is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Content goes by DATA, though the host offer CHUNKING. To be called before the first message.
    pub fn by_data(&mut self) {
        self.chunking = false;
    }

    /// Whether a chunk was refused or lost, and so what is to be done without. Behind [`Action::Unusable`] another session may
    /// deliver the message at once, by DATA.
    pub fn no_chunks(&self) -> Option<NoChunks> {
        self.no_chunks
    }

    /// Whether content is under way: what the host says meanwhile is to be heard before the next action, and before the end
    /// of the content is sent.
    pub fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::Content(..) | Phase::End(_, By::Bdat))
    }

    /// Whether there is nothing under way in a session that goes on: it takes a message at once.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.actions.is_empty()
    }

    /// Delivers a message, once the session is ready. To be called again only after
    /// [`Action::Done`].
    pub fn deliver(&mut self, message: Message, now: Duration) {
        debug_assert!(self.waiting.is_none(), "one message at a time");
        self.waiting = Some(Transaction::new(message));
        self.idle(now);
    }

    /// Says QUIT once nothing else is to be done.
    pub fn quit(&mut self, now: Duration) {
        self.quitting = true;
        self.idle(now);
    }

    /// The next action, once the one before is done. `None` means that the client waits for the host, or for a message.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front().or_else(|| self.next_of_chunks())
    }

    /// What [`Action::Send`] gave has gone: the host's time for an answer begins.
    pub fn sent(&mut self, now: Duration) {
        self.since = now;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called if nothing happens before. Ask
    /// again after every call.
    pub fn deadline(&self) -> Duration {
        let timeout = match self.phase {
            Phase::Idle | Phase::Closed => return Duration::MAX,
            Phase::Greeting | Phase::Ehlo | Phase::Helo | Phase::StartTls | Phase::Login(_) => {
                COMMAND_TIMEOUT
            }
            Phase::Rset(_) | Phase::Envelope(_) => COMMAND_TIMEOUT,
            Phase::Handshake => HANDSHAKE_TIMEOUT,
            Phase::Data(_) => DATA_TIMEOUT,
            Phase::Content(..) => CONTENT_TIMEOUT,
            Phase::End(..) => DOT_TIMEOUT,
            Phase::Nothing(_) | Phase::Quit => FAREWELL_TIMEOUT,
        };
        self.since + timeout
    }

    /// Time has passed. Gives the host up if it took too long.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now >= self.deadline() {
            self.give_up("the host took too long");
        }
    }

    /// The connection broke or the host hung up. Also to be called when sending fails or takes too
    /// long.
    pub fn disconnected(&mut self) {
        self.give_up(LOST);
    }

    /// Bytes came from the host; at most 64 KiB at a time.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        self.replies.push(bytes);
        while !matches!(self.phase, Phase::Closed | Phase::Handshake) {
            match self.replies.next() {
                Ok(Some(reply)) => {
                    self.since = now;
                    self.reply(reply, now);
                }
                Ok(None) => break,
                Err(error) => self.give_up(&error.to_string()),
            }
        }
    }

    /// The handshake is done: the host is asked anew what it offers (RFC 3207 §4.2).
    pub fn tls_established(&mut self, now: Duration) {
        if matches!(self.phase, Phase::Handshake) {
            self.tls = true;
            self.capabilities = Capabilities::default();
            self.ehlo(now);
        }
    }

    /// Whom the host has accepted that is being sent the content, by place in the message.
    pub fn accepted(&self) -> Vec<usize> {
        match &self.phase {
            Phase::Content(transaction, _) => transaction.accepted(),
            _ => Vec::new(),
        }
    }

    fn reply(&mut self, reply: HostReply, now: Duration) {
        if reply.code == 421 && !matches!(self.phase, Phase::Quit | Phase::End(..)) {
            return self.lose(Status::of(&reply));
        }
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Greeting if reply.code == 220 => self.ehlo(now),
            Phase::Ehlo if is_yes(&reply) => self.greeted(Capabilities::read(&reply.lines), now),
            Phase::Ehlo if reply.code >= 500 && !self.tls && self.config.protocol == Protocol::Smtp => {
                let helo = format!("HELO {}\r\n", self.config.helo);
                self.expect(Phase::Helo, helo, now);
            }
            Phase::Helo if is_yes(&reply) => self.greeted(Capabilities::default(), now),
            Phase::StartTls => self.start_tls(&reply, now),
            Phase::Login(login) => self.login(login, &reply, now),
            Phase::Greeting | Phase::Ehlo | Phase::Helo => self.unusable(Status::of(&reply)),
            Phase::Rset(transaction) if is_yes(&reply) => self.begin(transaction, now),
            Phase::Rset(_) => self.unusable(Status::of(&reply).into_temporary()),
            Phase::Envelope(mut transaction) => {
                transaction.reply(&reply);
                self.envelope(transaction, now);
            }
            Phase::Data(transaction) => self.data(transaction, &reply, now),
            Phase::Content(transaction, body) => self.during_content(transaction, body, &reply),
            Phase::End(transaction, by) => self.ended(transaction, by, &reply, now),
            Phase::Nothing(transaction) => {
                self.unclean = false;
                self.finish(transaction, now);
            }
            Phase::Quit => self.close(),
            Phase::Idle => self.unusable(Status::of(&reply).into_temporary()),
            Phase::Handshake | Phase::Closed => {}
        }
    }

    fn logged_in(&mut self, now: Duration) {
        self.phase = Phase::Idle;
        self.idle(now);
    }

    /// Goes on with what there is to do, if the session is free for it.
    fn idle(&mut self, now: Duration) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        if let Some(transaction) = self.waiting.take() {
            if mem::take(&mut self.unclean) {
                self.expect(Phase::Rset(transaction), "RSET\r\n", now);
            } else {
                self.begin(transaction, now);
            }
        } else if self.quitting {
            self.expect(Phase::Quit, "QUIT\r\n", now);
        }
    }

    fn begin(&mut self, mut transaction: Transaction, now: Duration) {
        transaction.check(self.capabilities);
        if transaction.has_recipients() {
            self.envelope(transaction, now);
        } else {
            self.finish(transaction, now);
        }
    }

    /// Commands that are sent at once.
    fn group(&self) -> usize {
        if self.capabilities.pipelining { PIPELINE_MAX } else { 1 }
    }

    /// Sends the next commands of the envelope once all before are answered; after the last, DATA: with them, where the host
    /// takes commands in groups (RFC 2920 §3.1). BDAT has octets behind it, and waits.
    fn envelope(&mut self, mut transaction: Transaction, now: Duration) {
        if transaction.answered < transaction.sent {
            self.phase = Phase::Envelope(transaction);
            return;
        }
        if transaction.is_named {
            self.since = now;
            return self.named(transaction, now);
        }
        if transaction.sent > 0 && !transaction.has_recipients() {
            return self.finish(transaction, now);
        }
        let group = self.group();
        let places = transaction.sent..transaction.sent.saturating_add(group);
        let mut commands: Vec<String> =
            places.map_while(|place| transaction.command(place, self.capabilities)).collect();
        transaction.sent += commands.len();
        transaction.is_named = commands.len() < group;
        if transaction.is_named && !self.by_chunks() {
            commands.push("DATA\r\n".to_owned());
        }
        self.unclean = true;
        if commands.is_empty() {
            return self.named(transaction, now);
        }
        let phase = match transaction.answered < transaction.sent {
            true => Phase::Envelope(transaction),
            false => Phase::Data(transaction),
        };
        self.expect(phase, commands.concat(), now);
    }

    /// The whole envelope is answered.
    fn named(&mut self, transaction: Transaction, now: Duration) {
        if !self.by_chunks() {
            self.phase = Phase::Data(transaction);
        } else if transaction.has_recipients() {
            self.chunks(transaction);
        } else {
            self.finish(transaction, now);
        }
    }

    /// The message is dealt with and the session goes on.
    fn finish(&mut self, transaction: Transaction, now: Duration) {
        self.phase = Phase::Idle;
        self.done(transaction);
        self.idle(now);
    }

    fn done(&mut self, transaction: Transaction) {
        self.used = true;
        self.actions.push_back(Action::Done(transaction.outcomes()));
    }

    /// The connection is of no further use, for a reason of its own.
    fn give_up(&mut self, text: &str) {
        self.lose(lost(text));
    }

    fn lose(&mut self, status: Status) {
        let is_over_chunks = match &self.phase {
            Phase::Content(_, Body::Chunked(chunks)) => chunks.is_begun(),
            Phase::End(_, by) => *by == By::Bdat,
            _ => false,
        };
        if is_over_chunks {
            self.no_chunks = Some(NoChunks::AtThisHost);
        }
        match mem::replace(&mut self.phase, Phase::Closed) {
            // It may have been over before this message.
            Phase::Envelope(transaction) if self.used && transaction.answered == 0 => self.unusable(status),
            // The host was asked for nothing but whether it takes chunks.
            Phase::Content(_, Body::Chunked(chunks)) if chunks.is_trial() && status.code.is_none() => {
                self.unusable(status);
            }
            Phase::Envelope(transaction)
            | Phase::Data(transaction)
            | Phase::Content(transaction, _)
            | Phase::Nothing(transaction) => self.lose_transaction(transaction, status),
            Phase::End(transaction, _) => {
                self.lose_transaction(transaction, Status { in_doubt: true, ..status });
            }
            Phase::Quit => self.close(),
            Phase::Closed => {}
            // It has offered it.
            Phase::StartTls if status.code.is_none() => {
                let text = format!("{} at STARTTLS", status.text);
                self.unusable(Status::ours(Class::Temporary, Enhanced(4, 7, 0), &text));
            }
            _ => self.unusable(status),
        }
    }

    fn lose_transaction(&mut self, mut transaction: Transaction, status: Status) {
        transaction.settle(&status);
        self.done(transaction);
        self.close();
    }

    /// No message was attempted.
    fn unusable(&mut self, status: Status) {
        self.actions.push_back(Action::Unusable(status.into_refusal()));
        self.close();
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.actions.push_back(Action::Close);
    }

    /// Sends something and waits for what comes of it. What has come already cannot be the reply.
    fn expect(&mut self, phase: Phase, bytes: impl Into<Vec<u8>>, now: Duration) {
        self.since = now;
        self.phase = phase;
        if self.replies.is_empty() {
            self.actions.push_back(Action::Send(bytes.into()));
        } else {
            self.lose(out_of_step());
        }
    }
}

fn lost(text: &str) -> Status {
    Status::ours(Class::Temporary, Enhanced(4, 4, 2), text)
}

fn out_of_step() -> Status {
    Status::ours(Class::Temporary, Enhanced(4, 5, 0), "the host sent a reply to nothing")
}

fn is_yes(reply: &HostReply) -> bool {
    reply.code / 100 == 2
}
