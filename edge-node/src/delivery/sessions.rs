//! Sessions with hosts: how one is opened at one of a host's addresses, what is said over it, and how it is kept for the
//! next message.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;
use shared::id::{monotonic, unix_millis};
use shared::sasl::Credentials;
use shared::smtp::client::{
    self, Class, Config, Message, NoChunks, Protocol, Session, Status, Talk, TlsPolicy, unreachable,
};
use shared::smtp::{Enhanced, Recipient};
use shared::store::{BodyKey, StoreError};
use shared::tls_wish::TlsWish;
use tokio::net::TcpStream;

use super::chunking::ByData;
use super::outward::Outward;
use super::pool::{MESSAGES_MAX, Pool};
use super::race::{Raced, race};
use super::report::Copies;
use super::security::Security;
use super::tally::Counted;
use super::transmission::Transmission;
use crate::content::Content;
use crate::node::Node;
use crate::queue::leaving;
use crate::record::QueueRow;
use crate::request::OutwardView;

/// Whom to talk to, and how.
pub(super) struct Target<'a> {
    pub name: &'a str,
    /// What it is asked for by, under TLS.
    pub asked: &'a str,
    /// In the order in which they are tried.
    pub addresses: Vec<SocketAddr>,
    pub tls: Arc<ClientConfig>,
    pub policy: TlsPolicy,
    pub security: Security,
    pub login: Option<&'a Credentials>,
    /// It takes mail for everywhere.
    pub is_smart_host: bool,
    /// Hosts with a lower one are better (RFC 5321 §5.1).
    pub preference: u16,
    /// What a session with it counts for in reports of TLS.
    pub counted: Option<Counted>,
}

/// What a session is good for: a destination, at a host of it, with what that host was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    place: String,
    name: String,
    address: SocketAddr,
    policy: TlsPolicy,
    security: Security,
    has_login: bool,
}

impl Target<'_> {
    /// What it has proved by taking mail under this version of TLS; `None` is in clear.
    pub fn shown(&self, version: Option<&str>) -> Option<String> {
        version.map(|version| self.security.shown(version))
    }

    fn usage(&self, place: &str, address: SocketAddr) -> Use {
        let (place, name) = (place.to_owned(), self.name.to_owned());
        let Self { policy, login, .. } = *self;
        Use { place, name, address, policy, security: self.security.clone(), has_login: login.is_some() }
    }
}

/// What came of talking to a host.
#[derive(Debug)]
pub(super) struct Talked {
    pub talk: Talk,
    /// Where else it is worth a try for whom it has not taken the message.
    pub left: Vec<SocketAddr>,
    /// Another session at the same address may deliver what this one did not, by DATA.
    wants_data: bool,
}

impl Talked {
    /// A host that has dealt with the message, and goes on with the session or was `sent` all of it, has spoken for itself: its
    /// `others` are asked only where one of its machines may have been speaking.
    fn over(session: &Session, talk: Talk, sent: &Transmission, others: Vec<SocketAddr>) -> Self {
        let wants_data = matches!(talk, Talk::Next { .. }) && session.no_chunks().is_some();
        let speaks_for_all = matches!(talk, Talk::Done(..)) && (session.is_ready() || sent.is_whole());
        Self { talk, left: if speaks_for_all { Vec::new() } else { others }, wants_data }
    }

    /// A host that was not asked for anything.
    fn nothing(talk: Talk, left: Vec<SocketAddr>) -> Self {
        Self { talk, left, wants_data: false }
    }
}

/// All that is kept of sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    node: Arc<Node>,
    /// Those between two messages.
    pool: Mutex<Pool<Use, Session>>,
    outward: Mutex<Outward>,
    by_data: Mutex<ByData>,
}

impl Sessions {
    /// None yet, and at most `max` that wait for their next message.
    pub fn new(node: Arc<Node>, max: usize) -> Self {
        Self { node, pool: Mutex::new(Pool::new(max)), outward: Mutex::default(), by_data: Mutex::default() }
    }

    fn pool(&self) -> MutexGuard<'_, Pool<Use, Session>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers over a session that is open still, if there is one with one of `targets`; with which, and what came of it.
    /// `sent` notes how much of the message. `None` also if it had ended before the message was attempted.
    pub async fn again(
        &self,
        copies: Copies<'_>,
        place: &str,
        targets: &[Target<'_>],
        sent: &Transmission,
    ) -> Option<(usize, Talked)> {
        let uses = targets.iter().enumerate().flat_map(|(number, target)| {
            target.addresses.iter().map(move |address| (number, target.usage(place, *address)))
        });
        let (numbers, uses): (Vec<usize>, Vec<Use>) = uses.unzip();
        let (usage, mut session) = self.kept(&uses).await?;
        let number = *numbers.get(uses.iter().position(|other| *other == usage)?)?;
        let talk = self.over(&mut session, copies, sent).await;
        self.note_chunks(usage.address, &session);
        let mut left = targets.get(number)?.addresses.clone();
        left.retain(|address| *address != usage.address);
        let talked = Talked::over(&session, talk, sent, left);
        self.keep(usage, session);
        matches!(talked.talk, Talk::Done(..)).then_some((number, talked))
    }

    /// A session for one of `uses` whose host has said nothing since its last message.
    async fn kept(&self, uses: &[Use]) -> Option<(Use, Session)> {
        loop {
            let (usage, mut session) = self.pool().take(uses, monotonic())?;
            if session.is_quiet().await {
                return Some((usage, session));
            }
        }
    }

    /// Delivers over a new session, at the first of these addresses of a host that takes a connection. `sent` notes how much
    /// of the message.
    pub async fn talk(
        &self,
        copies: Copies<'_>,
        place: &str,
        target: &Target<'_>,
        mut addresses: Vec<SocketAddr>,
        sent: &Transmission,
    ) -> Talked {
        let Raced { won, failed } = race(&addresses, client::connect).await;
        // A smart host, at whatever port, proves nothing of the rest.
        if !target.is_smart_host {
            self.note(won.is_some(), &failed);
        }
        let Some((address, stream)) = won else {
            let why = failed
                .iter()
                .map(|(address, error)| unreachable(target.name, *address, &error.to_string()).text);
            let text = why.collect::<Vec<_>>().join("; ");
            let status = Status::ours(Class::Temporary, Enhanced(4, 4, 1), &text);
            return Talked::nothing(Talk::Next { status, greeted: false }, Vec::new());
        };
        addresses.retain(|other| *other != address && failed.iter().all(|(failed, _)| failed != other));
        let at = At { place, target, address, sent };
        let mut tls = target.policy;
        let mut by_data = self.by_data().has(&address, monotonic());
        let mut talked = self.conversation(copies, at, stream, (tls, by_data), &addresses).await;
        loop {
            match talked.talk {
                Talk::HandshakeFailed(..) if tls == TlsPolicy::Opportunistic => tls = TlsPolicy::Never,
                Talk::Next { .. } if talked.wants_data && !by_data => by_data = true,
                _ => return talked,
            }
            talked = match client::connect(address).await {
                Ok(stream) => self.conversation(copies, at, stream, (tls, by_data), &talked.left).await,
                Err(error) => {
                    // What it has said counts for more.
                    let status = match talked.talk {
                        Talk::Next { status, .. } => status,
                        _ => unreachable(target.name, address, &error.to_string()),
                    };
                    Talked::nothing(Talk::Next { status, greeted: false }, talked.left)
                }
            };
            // It has spoken in the connection before.
            if let Talk::Next { greeted, .. } = &mut talked.talk {
                *greeted = true;
            }
        }
    }

    fn by_data(&self) -> MutexGuard<'_, ByData> {
        self.by_data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a session has found of chunks at its host.
    fn note_chunks(&self, host: SocketAddr, session: &Session) {
        if session.no_chunks() == Some(NoChunks::AtThisHost) {
            self.by_data().note(host, monotonic());
        }
    }

    /// Notes what the mail port of the hosts of domains has come to.
    fn note(&self, is_reached: bool, failed: &[(SocketAddr, io::Error)]) {
        let now = unix_millis();
        let mut outward = self.outward.lock().unwrap_or_else(PoisonError::into_inner);
        outward.failed(failed.iter().map(|(address, error)| (address.ip(), error)), now);
        if is_reached {
            outward.reached(now);
        }
    }

    /// What was noted.
    pub fn outward(&self) -> OutwardView {
        self.outward.lock().unwrap_or_else(PoisonError::into_inner).view()
    }

    async fn conversation(
        &self,
        copies: Copies<'_>,
        At { place, target, address, sent }: At<'_>,
        stream: TcpStream,
        (tls, by_data): (TlsPolicy, bool),
        others: &[SocketAddr],
    ) -> Talked {
        let host = client::Host { name: target.asked.to_owned(), address, tls: Arc::clone(&target.tls) };
        let config = Config {
            helo: self.node.topology.edge.hostname.to_string(),
            tls,
            protocol: Protocol::Smtp,
            login: target.login.cloned(),
        };
        let mut session = match Session::over(stream, &host, config).await {
            Ok(session) => session,
            Err(talk) => return Talked::nothing(talk, others.to_vec()),
        };
        if by_data {
            session.by_data();
        }
        let talk = self.over(&mut session, copies, sent).await;
        self.note_chunks(address, &session);
        // One in clear only because TLS had failed was counted then.
        if let Some(counted) = target.counted.as_ref().filter(|_| tls != TlsPolicy::Never) {
            counted.ended(&self.node, address, &session, &talk);
        }
        let talked = Talked::over(&session, talk, sent, others.to_vec());
        self.keep(target.usage(place, address), session);
        talked
    }

    /// Delivers over a session. That a host does not offer what the sender wishes for is a reason to ask the next one.
    async fn over(&self, session: &mut Session, copies: Copies<'_>, sent: &Transmission) -> Talk {
        let Copies { message: id, row, recipients, .. } = copies;
        let log = |error: &dyn std::fmt::Display| {
            tracing::error!(message = %id, %error, "a queued body cannot be read");
        };
        let unreadable = |error: &dyn std::fmt::Display| {
            log(error);
            sent.unsendable();
            let text = "the message cannot be read at the moment";
            Talk::Next { status: Status::ours(Class::Temporary, Enhanced(4, 3, 0), text), greeted: true }
        };
        let key = match self.node.sealing.unwrap(&row.wrapped_key, id) {
            Ok(key) => key,
            Err(error) => return unreadable(&error),
        };
        let mut content = match self.node.store.body(BodyKey(row.body)) {
            Ok(reader) => Content::new(reader, &key),
            Err(error) => return unreadable(&error),
        };
        let piece = || {
            let piece = content.next().inspect_err(|error| log(error));
            sent.given(&piece);
            piece
        };
        let may_end = |accepted| self.leaves(copies, accepted, sent);
        session.deliver(message(row, recipients), piece, may_end).await.of_wish_to_next()
    }

    /// Notes that a host is sent a message to its end, for those whom it has accepted. `false` if that cannot be, and so
    /// the end is not to be sent.
    async fn leaves(&self, copies: Copies<'_>, accepted: Vec<usize>, sent: &Transmission) -> bool {
        let Copies { message, recipients, .. } = copies;
        let index = |place| recipients.get(place).map(|(index, _)| *index);
        let recipients: Vec<u32> = accepted.into_iter().filter_map(index).collect();
        let noted: Result<_, StoreError> =
            self.node.store.commit(move |txn| leaving::note(txn, message, &recipients)).await;
        match &noted {
            Ok(_) => sent.ends(),
            Err(error) => {
                tracing::error!(%message, %error, "that it is sent cannot be noted, so its end is not sent");
                sent.unsendable();
            }
        }
        noted.is_ok()
    }

    /// Keeps a session for the next message, or ends it.
    fn keep(&self, usage: Use, session: Session) {
        let ended = match session.is_ready() && session.delivered() < MESSAGES_MAX {
            true => self.pool().put(usage, session, monotonic()),
            false => Some(session),
        };
        // Nobody waits for goodbyes.
        ended.into_iter().for_each(|session| drop(tokio::spawn(session.quit())));
    }

    /// Ends the sessions for which there was no other message.
    pub fn close_idle(&self) {
        let overdue = self.pool().overdue(monotonic());
        overdue.into_iter().for_each(|session| drop(tokio::spawn(session.quit())));
    }
}

/// Where a session is, and what goes over it.
#[derive(Clone, Copy)]
struct At<'a> {
    place: &'a str,
    target: &'a Target<'a>,
    address: SocketAddr,
    sent: &'a Transmission,
}

fn message(row: &QueueRow, recipients: &[(u32, Recipient)]) -> Message {
    Message {
        reverse_path: row.reverse_path.as_deref().and_then(|path| path.parse().ok()),
        recipients: recipients.iter().map(|(_, recipient)| recipient.clone()).collect(),
        returns: row.returns,
        envelope_id: row.envelope_id.clone(),
        size: row.size + row.signatures.len() as u64,
        eight_bit: row.body_8bit,
        utf8_header: row.utf8_header,
        require_tls: row.tls_wish == TlsWish::Required,
        before: row.signatures.clone().into_bytes(),
    }
}
