//! A locked maildrop: what a session reads of it, and the commits that end one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::id::{MessageId, monotonic, unix_millis};
use shared::pop3::{End, Entry, Expire, LoginRefusal, Opened};
use shared::sasl::Credentials;
use shared::seal::{PrivateKey, Unwrapper};
use shared::store::{BodyKey, Rows, Store, StoreError, Txn, behind};
use shared::unit::{Id, PopAct, ToBig, Window};
use shared::wipe;

use super::ahead::Ahead;
use crate::content::{Content, Unreadable};
use crate::facts::{self, EVENT_LANE};
use crate::login::{self, Refused, Traveller};
use crate::node::{MaildropLock, Node, WindowWatch};
use crate::record::{COPIES, CopyRow, WINDOWS, copy_key, copy_of};
use crate::{revise, windows};

/// Messages in one maildrop that a session shows.
const MESSAGES_MAX: usize = 1_000_000;
/// Rows that are read at once when a maildrop is opened.
const ROWS_AT_ONCE: usize = 1_000;
const DAY_MILLIS: u64 = 24 * 3_600_000;

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
pub(super) struct Maildrop {
    node: Arc<Node>,
    pub window: Id,
    watch: WindowWatch,
    reader: Unwrapper,
    /// What was sent, at least in part, and the unit that told big of it.
    sent: BTreeMap<(MessageId, u32), Option<Id>>,
    ahead: Ahead<Message>,
    lock: MaildropLock,
}

impl Maildrop {
    /// Logs in, and opens the maildrop.
    pub async fn open(
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
    pub async fn lock(node: &Arc<Node>, by: Traveller, key: PrivateKey) -> Result<Self, LoginRefusal> {
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

    /// Whether its window is open.
    pub fn is_open(&mut self) -> bool {
        self.watch.is_open(&self.node)
    }

    /// Returns when its window has ended.
    pub async fn over(&mut self) {
        self.watch.over(&self.node).await;
    }

    /// A message for a client that is likely to ask for `next` next.
    pub fn read(&mut self, entry: Entry, next: Option<Entry>) -> Result<Content, End> {
        let Message { content, after } = match self.ahead.fetch(entry, next) {
            Some(message) => message,
            None => self.message(&entry)?,
        };
        self.sent.insert((entry.message, entry.revision), after);
        Ok(content)
    }

    /// Opens what the client is likely to ask for next. What cannot be read is read again when it asks, and it is told
    /// then.
    pub fn read_ahead(&mut self) {
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
    pub async fn commit(self, deleted: &[Entry], retrieved: &[Entry]) -> Result<(), StoreError> {
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
    pub async fn abandon(self) -> Result<(), StoreError> {
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
pub(super) fn entries(store: &Store, window: &Id) -> Result<Vec<Entry>, StoreError> {
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
pub(super) fn end_of(error: &Unreadable) -> End {
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
