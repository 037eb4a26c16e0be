//! Drives POP3 sessions on the secondary mailboxes.
//!
//! A login opens the window's private key, which lives as long as the session; messages are opened
//! with it as they are read. What the client did goes to big as events, queued in the commit that
//! deletes.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::id::{MessageId, unix_millis};
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::listener::{Acceptor, Listener, Stream};
use shared::pop3::{Action, Config, Entry, LoginRefusal, Session};
use shared::sasl::Credentials;
use shared::seal::{FileKey, PrivateKey};
use shared::store::{BodyKey, Rows, StoreError, Txn};
use shared::telemetry::Quoted;
use shared::unit::{Id, PopAct, ToBig, Window, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::content::Content;
use crate::node::{MaildropLock, Node};
use crate::record::{COPIES, CopyRow, WINDOWS, copy_key, copy_of};
use crate::revise;

/// Octets read from the network at once.
const READ_BYTES: usize = 4 * 1024;
/// How long a client may take to accept what it asked for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
const EVENT_LANE: u8 = 1;
/// Messages in one maildrop that a session shows.
const MESSAGES_MAX: usize = 1_000_000;

/// One of the edge's POP3 services.
#[derive(Clone)]
pub struct Service {
    /// The node it serves.
    pub node: Arc<Node>,
    /// Its certificate.
    pub acceptor: Acceptor,
    /// TLS comes first (port 995).
    pub implicit_tls: bool,
    /// Becomes true when the node is going down.
    pub stopping: watch::Receiver<bool>,
}

impl Service {
    /// Serves connections until the node goes down.
    pub async fn run(self, listener: Listener) {
        let stopping = self.stopping.clone();
        listener.serve(stopping, |stream, peer| self.clone().connection(stream, peer)).await;
    }

    async fn connection(self, stream: Stream, peer: SocketAddr) -> io::Result<()> {
        let mut maildrop = None;
        let ended = self.session(stream, peer, &mut maildrop).await;
        // A session that does not come to QUIT deletes nothing, but it may have shown much.
        if let Some(maildrop) = maildrop {
            maildrop.abandon().await.map_err(io::Error::other)?;
        }
        ended
    }

    async fn session(
        &self,
        mut stream: Stream,
        peer: SocketAddr,
        maildrop: &mut Option<Maildrop>,
    ) -> io::Result<()> {
        let start = Instant::now();
        if self.implicit_tls {
            stream = stream.start_tls(&self.acceptor).await?;
        }
        let mut session = Session::new(Config::default(), self.implicit_tls, start.elapsed());
        session.bound_to(stream.exporter());
        let mut reading: Option<Content> = None;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            while let Some(action) = session.poll(start.elapsed()) {
                match action {
                    Action::Send(bytes) => {
                        tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await??;
                        stream.flush().await?;
                    }
                    Action::StartTls => {
                        stream = stream.start_tls(&self.acceptor).await?;
                        session.tls_established();
                        session.bound_to(stream.exporter());
                    }
                    Action::Keys(user) => session.keys(self.node.scram_keys(&user).ok().as_ref()),
                    Action::Authenticate(credentials) => {
                        let user = credentials.user.clone();
                        let verdict = match Maildrop::open(&self.node, credentials).await {
                            Ok((opened, entries)) => {
                                tracing::info!(%peer, user = %Quoted(&user), messages = entries.len(), "POP3 login");
                                *maildrop = Some(opened);
                                Ok(entries)
                            }
                            Err(refusal) => {
                                tracing::warn!(%peer, user = %Quoted(&user), ?refusal, "POP3 login refused");
                                Err(refusal)
                            }
                        };
                        session.authenticated(verdict);
                    }
                    Action::Fetch { index, .. } => {
                        reading = maildrop.as_mut().and_then(|maildrop| maildrop.read(index));
                        if reading.is_none() {
                            session.content_end(false);
                        }
                    }
                    Action::Commit { deleted, retrieved } => {
                        let done = match maildrop.take() {
                            Some(maildrop) => maildrop.commit(&deleted, &retrieved).await,
                            None => Ok(()),
                        };
                        session.committed(done.is_ok());
                    }
                    Action::Close => return stream.shutdown().await,
                }
            }
            if let Some(message) = &mut reading {
                if maildrop.as_ref().is_some_and(|maildrop| !self.node.is_open(&maildrop.window)) {
                    return stream.shutdown().await;
                }
                match message.next() {
                    Ok(Some(piece)) if session.content(&piece) => {}
                    // The end, or as much of it as TOP wanted.
                    Ok(_) => {
                        reading = None;
                        session.content_end(true);
                    }
                    Err(error) => {
                        tracing::error!(%error, "a message in a secondary mailbox cannot be read");
                        reading = None;
                        session.content_end(false);
                    }
                }
                continue;
            }
            if !session.wants_input() {
                continue;
            }
            let wait = session.deadline().saturating_sub(start.elapsed());
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => session.disconnected(),
                    Ok(length) => session.receive(&buffer[..length], start.elapsed()),
                },
                () = tokio::time::sleep(wait) => session.handle_timeout(start.elapsed()),
                // With the window ends every session in it; nobody is left to whom an answer could be promised.
                () = over(maildrop.as_ref()) => return stream.shutdown().await,
            }
        }
    }
}

/// Returns when the window of a session has ended; without one, never.
async fn over(maildrop: Option<&Maildrop>) {
    match maildrop {
        Some(maildrop) => maildrop.node.over(&maildrop.window).await,
        None => std::future::pending().await,
    }
}

/// A locked maildrop, as it was at the login.
#[derive(Debug)]
struct Maildrop {
    node: Arc<Node>,
    window: Id,
    key: PrivateKey,
    copies: Vec<(MessageId, u32, CopyRow)>,
    /// Places of those that were sent, at least in part.
    sent: BTreeSet<usize>,
    lock: MaildropLock,
}

impl Maildrop {
    async fn open(node: &Arc<Node>, credentials: Credentials) -> Result<(Self, Vec<Entry>), LoginRefusal> {
        let opened = node.log_in(credentials).await.map_err(|_| LoginRefusal::Temporary)?;
        let (Window { window, .. }, key) = opened.ok_or(LoginRefusal::Credentials)?;
        let lock = node.lock_maildrop(window).ok_or(LoginRefusal::InUse)?;
        // What was noted during a session that was cut off is decided now; and behind this operation no
        // revision is decided without seeing the lock (see `revise::busy`).
        let settle = move |txn: &mut Txn<'_>| revise::settle_copies(txn, &window, unix_millis());
        node.store.commit(settle).await.map_err(|_| LoginRefusal::Temporary)?;
        let rows = node.store.read().and_then(|rows| rows.prefix::<CopyRow>(COPIES, &window, MESSAGES_MAX));
        let rows = rows.map_err(|_| LoginRefusal::Temporary)?;
        let copies: Vec<_> = rows
            .into_iter()
            .filter(|(_, row)| !row.hidden)
            .map(|(key, row)| {
                let (message, revision) = copy_of(&key);
                (message, revision, row)
            })
            .collect();
        let entries = copies
            .iter()
            .map(|(message, revision, row)| Entry { size: row.size, uidl: format!("{message}.{revision}.0") })
            .collect();
        Ok((Self { node: Arc::clone(node), window, key, copies, sent: BTreeSet::new(), lock }, entries))
    }

    /// Opens a message; `None` if it cannot be.
    fn read(&mut self, index: usize) -> Option<Content> {
        self.sent.insert(index);
        let (message, _, row) = self.copies.get(index)?;
        let key = FileKey::unwrap(&row.wrapped_key, &self.key, *message).ok()?;
        let reader = self.node.store.body(BodyKey(row.body)).ok()?;
        Some(Content::new(reader, &key))
    }

    /// Deletes, and tells big what was done, in one commit.
    async fn commit(self, deleted: &[usize], retrieved: &[usize]) -> Result<(), StoreError> {
        let (window, now, sent) = (self.window, unix_millis(), self.sent());
        let (node, lock) = (self.node, self.lock);
        let (deleted, retrieved): (HashSet<_>, HashSet<_>) =
            (deleted.iter().collect(), retrieved.iter().collect());
        let acts: Vec<_> = (0..)
            .zip(self.copies)
            .filter_map(|(index, (message, revision, row))| {
                let act = PopAct {
                    window,
                    message: message.0,
                    revision,
                    retrieved: retrieved.contains(&index) && !row.retrieved,
                    deleted: deleted.contains(&index),
                    at: now,
                };
                (act.retrieved || act.deleted).then_some((message, act, row))
            })
            .collect();
        let committed = node.store.commit(move |txn| {
            // Behind its end nothing is told of a window; what was deleted in it is gone in any case.
            if txn.raw(WINDOWS, &window)?.is_none() {
                return Err(StoreError::Io("the travel window has ended".into()));
            }
            for (message, act, mut row) in acts {
                let key = copy_key(&window, message, act.revision);
                if act.deleted {
                    // Gone already if the message or the window ended during the session.
                    if txn.raw(COPIES, &key)?.is_some() {
                        txn.delete(COPIES, &key)?;
                        txn.release_body(BodyKey(row.body))?;
                    }
                } else if txn.raw(COPIES, &key)?.is_some() {
                    row.retrieved = true;
                    txn.put(COPIES, &key, &row)?;
                }
                let unit = QueuedUnit {
                    id: MessageId::generate().0,
                    lane: EVENT_LANE,
                    after: row.after,
                    head: encode(&ToBig::PopAct(act)),
                    body: QueuedBody::None,
                };
                lane::queue(txn, &unit)?;
            }
            revise::seen(txn, &window, &sent)?;
            // The session is over in this commit, before what was noted during it is decided.
            drop(lock);
            revise::settle_copies(txn, &window, now)
        });
        committed.await?;
        node.queued(EVENT_LANE);
        Ok(())
    }

    /// Ends without QUIT: nothing is deleted, and big is told nothing of what was sent; but what a client may
    /// have read cannot be swapped any more.
    async fn abandon(self) -> Result<(), StoreError> {
        let (window, sent, lock, now) = (self.window, self.sent(), self.lock, unix_millis());
        let ended = self.node.store.commit(move |txn| {
            revise::seen(txn, &window, &sent)?;
            drop(lock);
            revise::settle_copies(txn, &window, now)
        });
        ended.await?;
        self.node.queued(EVENT_LANE);
        Ok(())
    }

    fn sent(&self) -> Vec<(MessageId, u32)> {
        let copies = self.sent.iter().filter_map(|place| self.copies.get(*place));
        copies.map(|(message, revision, _)| (*message, *revision)).collect()
    }
}
