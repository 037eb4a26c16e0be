//! Drives POP3 sessions on the secondary mailboxes.
//!
//! A login opens the window's private key, which lives as long as the session; messages are opened
//! with it as they are read. What the client did goes to big as events, queued in the commit that
//! deletes.

mod ahead;
#[cfg(feature = "sim")]
pub mod collecting;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::id::{MessageId, monotonic, unix_millis};
use shared::listener::{Acceptor, Listener, Stream};
use shared::pop3::{Action, Config, End, Entry, Expire, LoginRefusal, Opened, Session};
use shared::sasl::Credentials;
use shared::seal::{PrivateKey, Unwrapper};
use shared::store::{BodyKey, Rows, Store, StoreError, Txn, behind};
use shared::telemetry::Quoted;
use shared::unit::{Id, PopAct, ToBig, Window};
use shared::wipe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use self::ahead::Ahead;
use crate::content::{Content, Unreadable};
use crate::facts::{self, EVENT_LANE};
use crate::login::{self, Refused, Traveller};
use crate::node::{MaildropLock, Node, WindowWatch};
use crate::record::{COPIES, CopyRow, WINDOWS, copy_key, copy_of};
use crate::{revise, windows};

/// Octets read from the network at once.
const READ_BYTES: usize = 4 * 1024;
/// How long a client may take to accept what it asked for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// Messages in one maildrop that a session shows.
const MESSAGES_MAX: usize = 1_000_000;
/// Rows that are read at once when a maildrop is opened.
const ROWS_AT_ONCE: usize = 1_000;
const DAY_MILLIS: u64 = 24 * 3_600_000;

/// One of the edge's POP3 services.
#[derive(Clone)]
pub struct Service {
    /// The node it serves.
    pub node: Arc<Node>,
    /// Its certificate.
    pub acceptor: Acceptor,
    /// TLS comes first (port 995).
    pub implicit_tls: bool,
    /// Logins in the clear are taken from this host itself: for the bench, see [`for_the_bench`].
    pub clear_logins: bool,
    /// Becomes true when the node is going down.
    pub stopping: watch::Receiver<bool>,
}

/// Whether logins are taken in the clear from this host's own loopback, so that what TLS costs can be measured. Only a
/// program that is not the edge's own asks for that, see [`crate::harness::take_clear_logins`].
#[cfg(feature = "sim")]
pub fn for_the_bench() -> bool {
    crate::harness::takes_clear_logins()
}

/// Whether logins are taken in the clear: never.
#[cfg(not(feature = "sim"))]
pub fn for_the_bench() -> bool {
    false
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
        let config = Config {
            login_delay: self.node.topology.edge.login_delay,
            plaintext_login: self.clear_logins && peer.ip().is_loopback(),
            ..Config::default()
        };
        let mut session = Session::new(config, self.implicit_tls, start.elapsed());
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
                        wipe::stack();
                        let user = credentials.user.clone();
                        let verdict = match Maildrop::open(&self.node, credentials, peer.ip()).await {
                            Ok((locked, opened)) => {
                                let messages = opened.entries.len();
                                tracing::info!(%peer, user = %Quoted(&user), messages, "POP3 login");
                                *maildrop = Some(locked);
                                Ok(opened)
                            }
                            Err(refusal) => {
                                tracing::warn!(%peer, user = %Quoted(&user), ?refusal, "POP3 login refused");
                                Err(refusal)
                            }
                        };
                        session.authenticated(verdict);
                    }
                    Action::Fetch { entry, next, .. } => {
                        let read = maildrop.as_mut().ok_or(End::Later);
                        match read.and_then(|maildrop| maildrop.read(entry, next)) {
                            Ok(content) => reading = Some(content),
                            Err(end) => session.content_end(end),
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
                if maildrop.as_mut().is_some_and(|maildrop| !maildrop.watch.is_open(&self.node)) {
                    return stream.shutdown().await;
                }
                match message.next() {
                    Ok(Some(piece)) if session.content(&piece) => {}
                    // The end, or as much of it as TOP wanted.
                    Ok(_) => {
                        reading = None;
                        session.content_end(End::Whole);
                    }
                    Err(error) => {
                        tracing::error!(%error, "a message in a secondary mailbox cannot be read");
                        reading = None;
                        session.content_end(end_of(&error));
                    }
                }
                continue;
            }
            if !session.wants_input() {
                continue;
            }
            if let Some(maildrop) = maildrop.as_mut() {
                maildrop.read_ahead();
            }
            let wait = session.deadline().saturating_sub(start.elapsed());
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => session.disconnected(),
                    Ok(length) => session.receive(&buffer[..length], start.elapsed()),
                },
                () = tokio::time::sleep(wait) => session.handle_timeout(start.elapsed()),
                // With the window ends every session in it; nobody is left to whom an answer could be promised.
                () = over(maildrop.as_mut()) => return stream.shutdown().await,
            }
        }
    }
}

/// Returns when the window of a session has ended; without one, never.
async fn over(maildrop: Option<&mut Maildrop>) {
    match maildrop {
        Some(maildrop) => maildrop.watch.over(&maildrop.node).await,
        None => std::future::pending().await,
    }
}

/// When maildrops were opened, for as long as that matters.
#[derive(Debug, Default)]
pub struct LastLogins(HashMap<Id, Duration>);

impl LastLogins {
    /// Whether the window was logged in to less than `delay` before `now`.
    fn is_too_soon(&self, window: &Id, delay: Duration, now: Duration) -> bool {
        self.0.get(window).is_some_and(|last| now.saturating_sub(*last) < delay)
    }

    /// The window is logged in to. No more windows are remembered than there were within `delay`.
    fn logged_in(&mut self, window: Id, delay: Duration, now: Duration) {
        self.0.retain(|_, last| now.saturating_sub(*last) < delay);
        if !delay.is_zero() {
            self.0.insert(window, now);
        }
    }
}

/// A message that is open.
#[derive(Debug)]
struct Message {
    content: Content,
    /// The unit that told big of it.
    after: Option<Id>,
}

/// A locked maildrop.
#[derive(Debug)]
struct Maildrop {
    node: Arc<Node>,
    window: Id,
    watch: WindowWatch,
    reader: Unwrapper,
    /// What was sent, at least in part, and the unit that told big of it.
    sent: BTreeMap<(MessageId, u32), Option<Id>>,
    ahead: Ahead<Message>,
    lock: MaildropLock,
}

impl Maildrop {
    async fn open(
        node: &Arc<Node>,
        credentials: Credentials,
        client: IpAddr,
    ) -> Result<(Self, Opened), LoginRefusal> {
        let opened = login::log_in(node, credentials, client).await;
        let (by, key) = opened.map_err(|refused| match refused {
            Refused::Credentials => LoginRefusal::Credentials,
            Refused::Guessing => LoginRefusal::Guessing,
            Refused::Temporary => LoginRefusal::Temporary,
        })?;
        let until = by.window.until;
        let maildrop = Self::lock(node, by, key).await?;
        let (of_node, window) = (Arc::clone(node), maildrop.window);
        let listed = tokio::task::spawn_blocking(move || entries(&of_node.store, &window)).await;
        let Ok(Ok(entries)) = listed else {
            // Its session has begun, and nothing of it was shown.
            maildrop.abandon().await.map_err(|_| LoginRefusal::Temporary)?;
            return Err(LoginRefusal::Temporary);
        };
        let expire = match until {
            None => Expire::Never,
            Some(until) => Expire::Days(until.saturating_sub(unix_millis()) / DAY_MILLIS),
        };
        Ok((maildrop, Opened { entries, expire }))
    }

    /// Locks the maildrop of a traveller who has logged in; `key` is their window's.
    async fn lock(node: &Arc<Node>, by: Traveller, key: PrivateKey) -> Result<Self, LoginRefusal> {
        let Traveller { window: Window { window, .. }, login } = by;
        let delay = node.topology.edge.login_delay;
        if node.with_logins(|logins| logins.is_too_soon(&window, delay, monotonic())) {
            return Err(LoginRefusal::TooSoon);
        }
        let lock = node.lock_maildrop(window).ok_or(LoginRefusal::InUse)?;
        node.with_logins(|logins| logins.logged_in(window, delay, monotonic()));
        // What was noted during a session that was cut off is decided now; and behind this operation no
        // revision is decided without seeing the lock (see `revise::busy`).
        let settle = move |txn: &mut Txn<'_>| revise::begin_session(txn, &window, unix_millis());
        node.store.commit(settle).await.map_err(|_| LoginRefusal::Temporary)?;
        Ok(Self {
            node: Arc::clone(node),
            window,
            watch: node.watch(window, login),
            reader: Unwrapper::new(key),
            sent: BTreeMap::new(),
            ahead: Ahead::default(),
            lock,
        })
    }

    /// A message for a client that is likely to ask for `next` next.
    fn read(&mut self, entry: Entry, next: Option<Entry>) -> Result<Content, End> {
        let Message { content, after } = match self.ahead.fetch(entry, next) {
            Some(message) => message,
            None => self.message(&entry)?,
        };
        self.sent.insert((entry.message, entry.revision), after);
        Ok(content)
    }

    /// Opens what the client is likely to ask for next. What cannot be read is read again when it asks, and it is told
    /// then.
    fn read_ahead(&mut self) {
        if let Some(entry) = self.ahead.wanted()
            && let Ok(mut message) = self.message(&entry)
            && message.content.begin().is_ok()
        {
            self.ahead.opened(entry, message);
        }
    }

    /// Opens a message.
    fn message(&self, entry: &Entry) -> Result<Message, End> {
        let message = self.message_unwiped(entry);
        wipe::stack();
        message
    }

    /// Opens a message, and leaves its keys on the stack: in frames of its own, below its caller's.
    #[inline(never)]
    fn message_unwiped(&self, entry: &Entry) -> Result<Message, End> {
        let Entry { message, revision, .. } = *entry;
        let key = copy_key(&self.window, message, revision);
        let row = self.node.store.read().and_then(|rows| rows.get::<CopyRow>(COPIES, &key));
        // It goes with its window.
        let row = row.map_err(|error| end_of(&error.into()))?.ok_or(End::Lost)?;
        let body = self.node.store.body(BodyKey(row.body)).map_err(|error| end_of(&error.into()))?;
        let key = self.reader.unwrap(&row.wrapped_key, message).map_err(|_| End::Lost)?;
        Ok(Message { content: Content::new(body, &key), after: row.after })
    }

    /// Deletes, and tells big what was done, in one commit.
    async fn commit(self, deleted: &[Entry], retrieved: &[Entry]) -> Result<(), StoreError> {
        let (window, now, sent) = (self.window, unix_millis(), self.sent);
        let (node, lock) = (self.node, self.lock);
        let mut done = BTreeMap::<(MessageId, u32), PopAct>::new();
        for (entries, is_deleted) in [(deleted, true), (retrieved, false)] {
            for Entry { message, revision, .. } in entries.iter().copied() {
                let act = done.entry((message, revision)).or_insert(PopAct {
                    window,
                    message: message.0,
                    revision,
                    retrieved: false,
                    deleted: false,
                    at: now,
                });
                act.deleted |= is_deleted;
                act.retrieved |= !is_deleted;
            }
        }
        let committed = node.store.commit(move |txn| {
            // Behind its end nothing is told of a window; what was deleted in it is gone in any case.
            if txn.raw(WINDOWS, &window)?.is_none() {
                return Err(StoreError::Io("the travel window has ended".into()));
            }
            for ((message, revision), mut act) in done {
                let key = copy_key(&window, message, revision);
                // Gone already if the message or the window ended during the session.
                let row = txn.get::<CopyRow>(COPIES, &key)?;
                let after = match &row {
                    Some(row) => row.after,
                    None => sent.get(&(message, revision)).copied().flatten(),
                };
                act.retrieved &= !row.as_ref().is_some_and(|row| row.retrieved);
                match row {
                    Some(row) if act.deleted => {
                        windows::delete(txn, &window, (message, revision), &row, now)?
                    }
                    Some(row) if act.retrieved => {
                        txn.put(COPIES, &key, &CopyRow { retrieved: true, ..row })?
                    }
                    _ => {}
                }
                if act.retrieved || act.deleted {
                    facts::tell_after(txn, &ToBig::PopAct(act), after)?;
                }
            }
            revise::end_session(txn, &window, &places(&sent))?;
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
        let (window, sent, lock, now) = (self.window, places(&self.sent), self.lock, unix_millis());
        let ended = self.node.store.commit(move |txn| {
            revise::end_session(txn, &window, &sent)?;
            drop(lock);
            revise::settle_copies(txn, &window, now)
        });
        ended.await?;
        self.node.queued(EVENT_LANE);
        Ok(())
    }
}

fn places(sent: &BTreeMap<(MessageId, u32), Option<Id>>) -> Vec<(MessageId, u32)> {
    sent.keys().copied().collect()
}

/// The messages that a window's maildrop shows. Of each only what a session needs all the time is kept: what
/// opens it is read when it is asked for.
fn entries(store: &Store, window: &Id) -> Result<Vec<Entry>, StoreError> {
    let snapshot = store.read()?;
    let end = copy_key(window, MessageId([u8::MAX; 16]), u32::MAX);
    let (mut entries, mut from) = (Vec::new(), Some(window.to_vec()));
    while let Some(start) = from {
        let page = snapshot.range::<CopyRow>(COPIES, &start, Some(&end), ROWS_AT_ONCE)?;
        let shown = page.iter().filter(|(_, row)| !row.hidden).map(|(key, row)| {
            let (message, revision) = copy_of(key);
            Entry { size: row.size, message, revision }
        });
        entries.extend(shown.take(MESSAGES_MAX - entries.len()));
        from = behind(&page, ROWS_AT_ONCE).filter(|_| entries.len() < MESSAGES_MAX);
    }
    Ok(entries)
}

/// Whether what cannot be read may be later.
fn end_of(error: &Unreadable) -> End {
    match error {
        Unreadable::Store(StoreError::Damaged(_)) | Unreadable::Sealed(_) | Unreadable::Broken(_) => {
            End::Lost
        }
        Unreadable::Store(_) => End::Later,
    }
}

#[cfg(test)]
mod tests {
    use shared::credential::Credential;
    use shared::lane;
    use shared::seal::{BodySealer, FileKey, PrivateKey, PublicKey};
    use shared::store::sim::{Faults, SimDisk};
    use shared::topology::{SMALLEST, Topology};
    use shared::unit::encode;
    use shared::unit::{CopyRevision, ReviseMode, ReviseResult, ToEdge, WindowCopy, decode, directory_hash};
    use shared::wipe::behind::Behind;

    use super::*;
    use crate::apply::{self, Arrived};
    use crate::cover::Covers;
    use crate::record::{Held, OUTBOUND_KIND};

    const WINDOW: Id = [1; 16];
    const MESSAGE: Id = [3; 16];
    const LATER: Id = [4; 16];
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// An edge over disks that outlive it.
    fn edge(disks: &[Arc<SimDisk>; 2]) -> Arc<Node> {
        let [index, covers] = disks.each_ref().map(Arc::clone);
        let store = Store::open(index).expect("opens");
        let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
        let sealing = PrivateKey::from_bytes([1; 32]);
        Arc::new(Node::new(store, Covers::on(covers), topology, sealing, [2; 32]))
    }

    /// Big sends a unit that has a body.
    async fn apply_unit(node: &Node, number: u8, head: ToEdge, sealed: &[u8]) {
        let mut writer = node.store.body_writer(BodyKey([number; 32]), OUTBOUND_KIND);
        writer.write(sealed).expect("writes");
        let stored = Some(writer.finish(encode(&head)).expect("writes"));
        let arrived = Arrived { head: encode(&head).into(), stored, lost: false };
        let busy = Arc::clone(&node.busy);
        let applied = node.store.commit(move |txn| {
            Ok::<_, StoreError>(apply::apply(txn, &[2; 32], &busy, arrived, unix_millis()))
        });
        applied.await.expect("commits").into_inner().expect("is applied");
    }

    /// Big files a message into the window, which says its number. Its key.
    async fn file(node: &Node, reader: &PublicKey, number: u8, message: Id) -> FileKey {
        let (key, content) = (FileKey::generate(), format!("number {number}\r\n"));
        let copy = WindowCopy {
            window: WINDOW,
            message,
            revision: 0,
            wrapped_key: node.wrap(&key, reader, MessageId(message)).expect("wraps"),
            size: content.len() as u64,
            retrieved: false,
        };
        let (mut sealer, mut sealed) = (BodySealer::new(&key), Vec::new());
        sealer.push(content.as_bytes(), &mut sealed);
        sealer.finish(&mut sealed);
        apply_unit(node, number, ToEdge::Copy(copy), &sealed).await;
        key
    }

    /// Their author takes both messages back; what comes of it.
    async fn withdraw_both(node: &Node) -> Vec<ReviseResult> {
        for (number, message) in [(11, MESSAGE), (12, LATER)] {
            let copy = CopyRevision {
                window: WINDOW,
                message,
                revision: 1,
                earlier: Vec::new(),
                mode: ReviseMode::Withdraw,
                recipient: 0,
                wrapped_key: vec![0; 80],
                size: 6,
                comes: true,
                retrieved: false,
            };
            apply_unit(node, number, ToEdge::ReviseCopy(copy), b"sealed").await;
        }
        let rows = node.store.read().expect("reads");
        let told = lane::units(&rows, EVENT_LANE, 1, 100).expect("reads");
        let told = told.iter().filter_map(|(_, unit)| match decode(&unit.head) {
            Some(ToBig::Revised(told)) => Some(told.result),
            _ => None,
        });
        told.collect()
    }

    /// A window with these messages, and what opens it.
    async fn filled(node: &Arc<Node>, messages: &[Id]) -> (Credentials, PublicKey) {
        let (key, public) = PrivateKey::generate();
        let (password, credential) = Credential::generate(&key, [9; 16]);
        let mut window = Window {
            logins: vec![directory_hash(&node.directory_key, "alice")],
            ..Window::new(WINDOW, [2; 16], public.0, credential)
        };
        node.covers.cover(&mut window).expect("covers");
        node.store.commit(move |txn| windows::open(txn, &window)).await.expect("commits");
        for (number, message) in (1..).zip(messages) {
            file(node, &public, number, *message).await;
        }
        (Credentials::new("alice".into(), password.into()).expect("may be tried"), public)
    }

    /// A maildrop of a window with these messages.
    async fn opened(node: &Arc<Node>, messages: &[Id]) -> (Maildrop, Vec<Entry>, PublicKey) {
        let (credentials, public) = filled(node, messages).await;
        let (maildrop, opened) = Maildrop::open(node, credentials, CLIENT).await.expect("opens");
        (maildrop, opened.entries, public)
    }

    /// The maildrop of a window with a message, which its client has begun to fetch.
    async fn fetching(node: &Arc<Node>) -> (Maildrop, PublicKey) {
        let (mut maildrop, entries, reader) = opened(node, &[MESSAGE]).await;
        assert_eq!(maildrop.text(entries[0], None), Ok("number 1\r\n".into()));
        (maildrop, reader)
    }

    impl Maildrop {
        fn text(&mut self, entry: Entry, next: Option<Entry>) -> Result<String, End> {
            let (mut content, mut text) = (self.read(entry, next)?, Vec::new());
            while let Some(piece) = content.next().expect("is whole") {
                text.extend(piece);
            }
            Ok(String::from_utf8(text).expect("is text"))
        }
    }

    #[tokio::test]
    async fn what_was_opened_ahead_is_what_comes_and_was_sent_only_if_it_was_asked_for() {
        let node = edge(&[Faults::default(), Faults::default()].map(|faults| Arc::new(SimDisk::new(faults))));
        let (mut maildrop, entries, _) = opened(&node, &[[3; 16], [4; 16], [5; 16], [6; 16]]).await;
        for at in 0..2 {
            let text = maildrop.text(entries[at], entries.get(at + 1).copied());
            assert_eq!(text, Ok(format!("number {}\r\n", at + 1)));
            maildrop.read_ahead();
        }
        // Its row goes, and what has been opened is there still.
        let key = copy_key(&WINDOW, entries[2].message, 0);
        node.store.commit(move |txn| txn.delete(COPIES, &key)).await.expect("commits");
        assert_eq!(maildrop.sent.len(), 2);
        assert_eq!(maildrop.text(entries[2], Some(entries[3])), Ok("number 3\r\n".into()));
        assert_eq!(maildrop.sent.len(), 3);
        assert_eq!(maildrop.text(entries[2], Some(entries[3])), Err(End::Lost));
        // What cannot be opened ahead is told when it is asked for.
        let key = copy_key(&WINDOW, entries[3].message, 0);
        node.store.commit(move |txn| txn.delete(COPIES, &key)).await.expect("commits");
        assert!(maildrop.text(entries[1], Some(entries[2])).is_ok());
        assert_eq!(maildrop.text(entries[2], Some(entries[3])), Err(End::Lost));
        maildrop.read_ahead();
        assert_eq!(maildrop.text(entries[3], None), Err(End::Lost));
        assert_eq!(maildrop.sent.len(), 3);
    }

    #[tokio::test]
    async fn what_was_opened_ahead_leaves_no_key_on_the_stack() {
        let node = edge(&[Faults::default(), Faults::default()].map(|faults| Arc::new(SimDisk::new(faults))));
        let (maildrop, _, reader) = opened(&node, &[]).await;
        let mut keys = Vec::new();
        for (number, message) in (1..).zip([[3; 16], [4; 16], [5; 16]]) {
            keys.push(file(&node, &reader, number, message).await);
        }
        let entries = entries(&node.store, &WINDOW).expect("reads");
        let (behind, ahead) = Behind::work(move || {
            let mut maildrop = maildrop;
            for at in 0..2 {
                maildrop.text(entries[at], entries.get(at + 1).copied()).expect("is there");
                maildrop.read_ahead();
            }
            maildrop.ahead.fetch(entries[2], None).is_some()
        });
        assert!(ahead, "the third one was opened");
        for (number, key) in (1..).zip(&keys) {
            assert!(!behind.holds(key.body_key().as_slice()), "that of {number}");
        }
    }

    #[tokio::test]
    async fn what_was_fetched_before_an_edge_was_killed_counts_as_fetched() {
        let disks = [Faults::default(), Faults::default()].map(|faults| Arc::new(SimDisk::new(faults)));
        let node = edge(&disks);
        let (maildrop, reader) = fetching(&node).await;
        drop(maildrop);
        drop(node);
        let node = edge(&disks);
        node.wake().await.expect("wakes");
        file(&node, &reader, 2, LATER).await;
        assert_eq!(withdraw_both(&node).await, [ReviseResult::Revised, ReviseResult::Withdrawn]);
    }

    #[tokio::test]
    async fn what_a_session_that_was_cut_off_did_not_fetch_counts_as_not_fetched() {
        let disks = [Faults::default(), Faults::default()].map(|faults| Arc::new(SimDisk::new(faults)));
        let node = edge(&disks);
        let (maildrop, reader) = fetching(&node).await;
        file(&node, &reader, 2, LATER).await;
        maildrop.abandon().await.expect("commits");
        drop(node);
        let node = edge(&disks);
        node.wake().await.expect("wakes");
        assert_eq!(withdraw_both(&node).await, [ReviseResult::Revised, ReviseResult::Withdrawn]);
    }

    /// What big has been told of the message's copies: revision, retrieved, deleted.
    fn told(node: &Node) -> Vec<(u32, bool, bool)> {
        let rows = node.store.read().expect("reads");
        let told = lane::units(&rows, EVENT_LANE, 1, 100).expect("reads");
        let acts = told.iter().filter_map(|(_, unit)| match decode(&unit.head) {
            Some(ToBig::PopAct(act)) => Some((act.revision, act.retrieved, act.deleted)),
            _ => None,
        });
        acts.collect()
    }

    /// A big that was restored tells again what it believes to be there, also what has never come from it before.
    #[tokio::test]
    async fn what_a_client_has_deleted_is_not_filed_again_but_a_later_text_is() {
        let node = edge(&[Faults::default(), Faults::default()].map(|faults| Arc::new(SimDisk::new(faults))));
        let (maildrop, listed, reader) = opened(&node, &[MESSAGE]).await;
        maildrop.commit(&listed, &[]).await.expect("commits");
        file(&node, &reader, 2, MESSAGE).await;
        assert_eq!(entries(&node.store, &WINDOW).expect("reads").len(), 0, "it was deleted");
        assert!(node.store.body(BodyKey([2; 32])).is_err(), "nobody holds it");
        // Whether this edge has ever filed it, big cannot say.
        let revised = CopyRevision {
            window: WINDOW,
            message: MESSAGE,
            revision: 1,
            earlier: Vec::new(),
            mode: ReviseMode::Replace,
            recipient: 0,
            wrapped_key: vec![0; 80],
            size: 6,
            comes: true,
            retrieved: false,
        };
        apply_unit(&node, 3, ToEdge::ReviseCopy(revised), b"sealed").await;
        let offered = entries(&node.store, &WINDOW).expect("reads");
        assert_eq!(
            offered.iter().map(|entry| entry.revision).collect::<Vec<_>>(),
            [1],
            "it is offered again"
        );
        assert_eq!(told(&node), [(0, false, true); 2], "once more to a big that sends it again");
        let rows = node.store.read().expect("reads");
        let last = lane::units(&rows, EVENT_LANE, 1, 100).expect("reads").pop().expect("is told");
        assert!(
            matches!(decode(&last.1.head), Some(ToBig::Revised(told)) if told.result == ReviseResult::Revised)
        );
    }

    #[tokio::test]
    async fn what_big_says_of_a_client_is_told_to_a_big_that_forgets_it() {
        let node = edge(&[Faults::default(), Faults::default()].map(|faults| Arc::new(SimDisk::new(faults))));
        let (credentials, _) = filled(&node, &[MESSAGE]).await;
        let copy = |message| WindowCopy {
            window: WINDOW,
            message,
            revision: 0,
            wrapped_key: vec![0; 80],
            size: 6,
            retrieved: true,
        };
        // The one is here, from before it was retrieved; the other is not. Both are told once more.
        for (number, message) in [(11, MESSAGE), (12, LATER), (13, MESSAGE), (14, LATER)] {
            apply_unit(&node, number, ToEdge::Copy(copy(message)), b"sealed").await;
        }
        assert_eq!(told(&node), [(0, true, false), (0, true, false)], "each is told once");
        let (maildrop, opened) = Maildrop::open(&node, credentials, CLIENT).await.expect("opens");
        maildrop.commit(&[], &opened.entries).await.expect("commits");
        assert_eq!(told(&node).len(), 2, "and not again when the client retrieves it");
    }

    #[tokio::test]
    async fn what_could_not_be_listed_counts_as_not_fetched() {
        let disks = [Faults::default(), Faults::default()].map(|faults| Arc::new(SimDisk::new(faults)));
        let node = edge(&disks);
        let (credentials, _) = filled(&node, &[MESSAGE, LATER]).await;
        let damaged = || copy_key(&WINDOW, MessageId([9; 16]), 0);
        let put = node.store.commit(move |txn| txn.put(COPIES, &damaged(), &Held([0; 16])));
        put.await.expect("commits");
        let opened = Maildrop::open(&node, credentials, CLIENT).await;
        assert_eq!(opened.err(), Some(LoginRefusal::Temporary));
        node.store.commit(move |txn| txn.delete(COPIES, &damaged())).await.expect("commits");
        drop(node);
        let node = edge(&disks);
        node.wake().await.expect("wakes");
        assert_eq!(withdraw_both(&node).await, [ReviseResult::Withdrawn, ReviseResult::Withdrawn]);
    }

    #[test]
    fn a_maildrop_is_opened_once_within_the_delay() {
        let (delay, second) = (Duration::from_secs(60), Duration::from_secs(1));
        let mut logins = LastLogins::default();
        let now = Duration::from_secs(1_000);
        assert!(!logins.is_too_soon(&[1; 16], delay, now));
        logins.logged_in([1; 16], delay, now);
        assert!(logins.is_too_soon(&[1; 16], delay, now + delay - second));
        assert!(!logins.is_too_soon(&[1; 16], delay, now + delay));
        assert!(!logins.is_too_soon(&[2; 16], delay, now), "another one's");
        logins.logged_in([2; 16], delay, now + delay);
        assert_eq!(logins.0.len(), 1, "what is over is forgotten");
        logins.logged_in([3; 16], Duration::ZERO, now + delay);
        assert!(logins.0.is_empty(), "without a delay nothing is kept");
    }
}
