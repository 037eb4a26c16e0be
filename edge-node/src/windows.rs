//! Travel windows on this edge: how they open, what is filed into them, what goes from them, how they end.
//!
//! A window ends at its moment by this node's clock, link or no link. With its row goes the credential, and with
//! its cover ([`crate::cover`]) whatever of the credential a disk may still hold.

use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::MessageId;
use shared::row;
use shared::store::{BodyKey, Rows, StoreError, Stored, Table, Txn, behind};
use shared::unit::{Id, PopAct, ToBig, Window, WindowCopy};

use crate::facts;
use crate::login;
use crate::record::{
    COPIES, CopyRow, ENDED_WINDOWS, EndedRow, Held, LOGINS, PERSON_WINDOWS, SESSIONS, WINDOWS, copy_key,
};
#[cfg(feature = "sim")]
use crate::revise;
use crate::revise::busy::Busy;

/// Windows that are open at once, at most: what one look at all of them reads.
pub const WINDOWS_MAX: usize = 100_000;
/// Copies of one window, at most.
pub const COPIES_MAX: usize = 1_000_000;
/// Window, message to [`Gone`]: messages that are at home no more, whose copies may still be on their way here.
const GONE: Table = Table("gone-copies");
/// Window, message to [`Gone`]: the same, while a session shows them to a client.
const NOTED_GONE: Table = Table("noted-gone-copies");
/// Window, message to [`Latest`]: what its copies were revised to last, or what was deleted.
const REVISED: Table = Table("revised-copies");
/// Window to [`Used`].
const USED: Table = Table("used-windows");
/// Window to [`HeldBytes`]: kept with each copy, for a window may hold a hundred thousand.
const HELD_BYTES: Table = Table("held-bytes");
/// Between two logins that big is told of.
const USED_TOLD: Duration = Duration::from_secs(600);

/// A message that is at home no more.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Gone {
    /// Since when, milliseconds since 1970.
    at: u64,
}
row!(Gone, 1);

/// The last revision of a copy that was decided here, or that a client has deleted. The copy may have gone since: withdrawn,
/// or deleted by a client. What this one has overtaken is known by it, and what a big that went back sends once more.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Latest {
    /// Its number.
    pub revision: u32,
    /// It was offered beside an earlier one that was fetched.
    pub again: bool,
    /// Since when, milliseconds since 1970.
    pub at: u64,
}
row!(Latest, 1);

/// When big was last told that somebody has logged in to a window, milliseconds since 1970.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Used {
    at: u64,
}
row!(Used, 1);

/// Octets of the copies in a window.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct HeldBytes {
    bytes: u64,
}
row!(HeldBytes, 1);

/// Opens a window, or changes it. One that has ended here opens again: big has put its end off before it knew.
pub fn open(txn: &mut Txn<'_>, window: &Window) -> Result<(), StoreError> {
    if let Some(before) = txn.get::<Window>(WINDOWS, &window.window)? {
        let old = before.logins.iter().filter(|login| !window.logins.contains(login));
        old.into_iter().try_for_each(|login| forget_login(txn, login, &window.window))?;
    }
    for login in &window.logins {
        txn.put(LOGINS, login, &Held(window.window))?;
    }
    txn.delete(ENDED_WINDOWS, &window.window)?;
    txn.put(PERSON_WINDOWS, &window.person, &Held(window.window))?;
    txn.put(WINDOWS, &window.window, window)
}

fn forget_login(txn: &mut Txn<'_>, login: &[u8; 32], window: &Id) -> Result<(), StoreError> {
    match txn.get::<Held>(LOGINS, login)? == Some(Held(*window)) {
        true => txn.delete(LOGINS, login),
        false => Ok(()),
    }
}

/// Destroys a window and its copies, and tells big. `until` is the end that has come by this node's clock;
/// `None` if big said so.
pub fn end(txn: &mut Txn<'_>, id: &Id, until: Option<u64>, now: u64) -> Result<(), StoreError> {
    txn.put(ENDED_WINDOWS, id, &EndedRow { at: now })?;
    if let Some(window) = txn.get::<Window>(WINDOWS, id)? {
        window.logins.iter().try_for_each(|login| forget_login(txn, login, id))?;
        if txn.get::<Held>(PERSON_WINDOWS, &window.person)? == Some(Held(*id)) {
            txn.delete(PERSON_WINDOWS, &window.person)?;
        }
        txn.delete(WINDOWS, id)?;
    }
    for (key, copy) in txn.prefix::<CopyRow>(COPIES, id, COPIES_MAX)? {
        txn.delete(COPIES, &key)?;
        txn.release_body(BodyKey(copy.body))?;
    }
    txn.delete(HELD_BYTES, id)?;
    txn.delete(SESSIONS, id)?;
    for table in [GONE, NOTED_GONE] {
        for (key, _) in txn.prefix::<Gone>(table, id, COPIES_MAX)? {
            txn.delete(table, &key)?;
        }
    }
    for (key, _) in txn.prefix::<Latest>(REVISED, id, usize::MAX)? {
        txn.delete(REVISED, &key)?;
    }
    txn.delete(USED, id)?;
    login::forget_window(txn, id)?;
    facts::tell(txn, &ToBig::WindowClosed { window: *id, until })
}

/// What there still is of a window, in words; not the tombstone of one that has ended.
#[cfg(feature = "sim")]
pub fn left_of(rows: &impl Rows, id: &Id) -> Result<Vec<&'static str>, StoreError> {
    let is_its = |held: &Held| held.0 == *id;
    let logins = rows.prefix::<Held>(LOGINS, &[], WINDOWS_MAX)?;
    let people = rows.prefix::<Held>(PERSON_WINDOWS, &[], WINDOWS_MAX)?;
    let found = [
        ("the window", rows.raw(WINDOWS, id)?.is_some()),
        ("copies", !rows.prefix::<CopyRow>(COPIES, id, 1)?.is_empty()),
        ("the size of its copies", rows.raw(HELD_BYTES, id)?.is_some()),
        ("a session", rows.raw(SESSIONS, id)?.is_some()),
        ("messages that have gone", !rows.prefix::<Gone>(GONE, id, 1)?.is_empty()),
        ("messages that are to go", !rows.prefix::<Gone>(NOTED_GONE, id, 1)?.is_empty()),
        ("revisions", !rows.prefix::<Latest>(REVISED, id, 1)?.is_empty()),
        ("revisions that wait", revise::any_waits(rows, id)?),
        ("when it was used", rows.raw(USED, id)?.is_some()),
        ("from where it was used", login::is_remembered(rows, id)?),
        ("a login", logins.iter().any(|(_, held)| is_its(held))),
        ("whose it is", people.iter().any(|(_, held)| is_its(held))),
    ];
    Ok(found.into_iter().filter(|(_, is_left)| *is_left).map(|(what, _)| what).collect())
}

/// The windows whose end has come, and the end of each.
pub fn overdue(rows: &impl Rows, now: u64) -> Result<Vec<(Id, u64)>, StoreError> {
    let open = rows.prefix::<Window>(WINDOWS, &[], WINDOWS_MAX)?;
    let due =
        |window: &Window| window.until.filter(|until| *until <= now).map(|until| (window.window, until));
    Ok(open.iter().filter_map(|(_, window)| due(window)).collect())
}

/// Files a copy that big has sent, at `now`, milliseconds since 1970.
pub fn file(txn: &mut Txn<'_>, copy: WindowCopy, body: &Stored, now: u64) -> Result<(), StoreError> {
    let message = MessageId(copy.message);
    let key = copy_key(&copy.window, message, copy.revision);
    // A second arrival changes nothing; a window that has ended takes nothing, nor is a message filed that has
    // been deleted at home meanwhile. A window that is still on its way in another lane takes it: nobody can log
    // in to it yet.
    if txn.raw(ENDED_WINDOWS, &copy.window)?.is_some() || is_gone(txn, &copy.window, message)? {
        return Ok(());
    }
    if let Some(filed) = txn.get::<CopyRow>(COPIES, &key)? {
        // Except that this edge, restored, may have forgotten what a client did.
        if copy.retrieved && !filed.retrieved {
            tell_again(txn, &copy, false, filed.after, now)?;
            txn.put(COPIES, &key, &CopyRow { retrieved: true, ..filed })?;
        }
        return Ok(());
    }
    txn.keep_body(body)?;
    if copy.retrieved {
        tell_again(txn, &copy, false, None, now)?;
    }
    let row = CopyRow {
        body: body.key().0,
        wrapped_key: copy.wrapped_key,
        size: copy.size,
        retrieved: copy.retrieved,
        seen: copy.retrieved,
        again: false,
        after: None,
        hidden: false,
    };
    put_copy(txn, &key, &row)
}

/// Big sends again what a client has deleted here, for it went back to before it knew: it is told once more, if it has not said
/// itself that the message has gone.
pub fn tell_deleted(txn: &mut Txn<'_>, copy: &WindowCopy, at: u64) -> Result<(), StoreError> {
    if is_gone(txn, &copy.window, MessageId(copy.message))? || txn.raw(ENDED_WINDOWS, &copy.window)?.is_some()
    {
        return Ok(());
    }
    tell_again(txn, copy, true, None, at)
}

/// Tells big what a client has done to a copy that it sends: as it has said itself, for it may go back to before it knew, and
/// when the client retrieves the copy again, that is told no more; or that it is `deleted`.
fn tell_again(
    txn: &mut Txn<'_>,
    copy: &WindowCopy,
    deleted: bool,
    after: Option<Id>,
    at: u64,
) -> Result<(), StoreError> {
    let WindowCopy { window, message, revision, retrieved, .. } = *copy;
    facts::tell_after(
        txn,
        &ToBig::PopAct(PopAct { window, message, revision, retrieved, deleted, at }),
        after,
    )
}

/// Puts a copy where none is, and counts its octets.
pub fn put_copy(txn: &mut Txn<'_>, key: &[u8], row: &CopyRow) -> Result<(), StoreError> {
    count(txn, key, |held| held.saturating_add(row.size))?;
    txn.put(COPIES, key, row)
}

/// Removes a copy, which is there.
pub fn take_copy(txn: &mut Txn<'_>, key: &[u8], row: &CopyRow) -> Result<(), StoreError> {
    count(txn, key, |held| held.saturating_sub(row.size))?;
    txn.delete(COPIES, key)?;
    txn.release_body(BodyKey(row.body))
}

/// A client deletes a copy, which is there. Its revision is not filed again: big sends it if it went back to before it knew.
pub fn delete(
    txn: &mut Txn<'_>,
    window: &Id,
    (message, revision): (MessageId, u32),
    row: &CopyRow,
    at: u64,
) -> Result<(), StoreError> {
    take_copy(txn, &copy_key(window, message, revision), row)?;
    revised(txn, window, message, &Latest { revision, again: row.again, at })
}

fn count(txn: &mut Txn<'_>, key: &[u8], change: impl FnOnce(u64) -> u64) -> Result<(), StoreError> {
    let window: Id = key.first_chunk().copied().unwrap_or_default();
    let bytes = change(held(txn, &window)?);
    txn.put(HELD_BYTES, &window, &HeldBytes { bytes })
}

/// Octets of the copies in a window.
fn held(rows: &impl Rows, window: &Id) -> Result<u64, StoreError> {
    Ok(rows.get::<HeldBytes>(HELD_BYTES, window)?.map_or(0, |held| held.bytes))
}

/// Whether a message of `size` octets may be filed into a window: what is larger than its limit is not, and what
/// does not fit waits at home.
pub fn has_room(rows: &impl Rows, window: &Window, size: u64) -> Result<bool, StoreError> {
    if window.size_max.is_some_and(|size_max| size > size_max) {
        return Ok(false);
    }
    let Some(quota) = window.quota else { return Ok(true) };
    Ok(held(rows, &window.window)?.saturating_add(size) <= quota)
}

/// Whether a text of `size` octets may take the place of copies of `old` octets: what is no larger may in any case.
pub fn fits(rows: &impl Rows, window: &Id, size: u64, old: u64) -> Result<bool, StoreError> {
    let quota = rows.get::<Window>(WINDOWS, window)?.and_then(|window| window.quota);
    let Some(quota) = quota.filter(|_| size > old) else { return Ok(true) };
    Ok(held(rows, window)?.saturating_sub(old).saturating_add(size) <= quota)
}

fn message_key(window: &Id, message: MessageId) -> Vec<u8> {
    [window.as_slice(), &message.0].concat()
}

/// Whether a message has been deleted at home.
pub fn is_gone(rows: &impl Rows, window: &Id, message: MessageId) -> Result<bool, StoreError> {
    Ok(rows.raw(GONE, &message_key(window, message))?.is_some())
}

/// The last revision of a message that was decided, or deleted by a client, in a window.
pub fn latest(rows: &impl Rows, window: &Id, message: MessageId) -> Result<Option<Latest>, StoreError> {
    rows.get(REVISED, &message_key(window, message))
}

/// Keeps which revision that was.
pub fn revised(
    txn: &mut Txn<'_>,
    window: &Id,
    message: MessageId,
    latest: &Latest,
) -> Result<(), StoreError> {
    txn.put(REVISED, &message_key(window, message), latest)
}

/// A message is at home no more: its copy goes, at once or when the session that shows it has ended.
pub fn gone(
    txn: &mut Txn<'_>,
    busy: &Busy,
    window: &Id,
    message: MessageId,
    now: u64,
) -> Result<(), StoreError> {
    if txn.raw(ENDED_WINDOWS, window)?.is_some() {
        return Ok(());
    }
    let key = message_key(window, message);
    txn.put(GONE, &key, &Gone { at: now })?;
    match busy.is_locked(window) {
        true => txn.put(NOTED_GONE, &key, &Gone { at: now }),
        false => remove(txn, &key),
    }
}

/// Big has refused a message for good: those copies go that nobody has fetched.
pub fn refused(txn: &mut Txn<'_>, busy: &Busy, message: MessageId, now: u64) -> Result<(), StoreError> {
    for (_, window) in txn.prefix::<Window>(WINDOWS, &[], WINDOWS_MAX)? {
        let copies = txn.prefix::<CopyRow>(COPIES, &message_key(&window.window, message), 1)?;
        if copies.iter().any(|(_, copy)| !copy.retrieved && !copy.seen) {
            gone(txn, busy, &window.window, message, now)?;
        }
    }
    Ok(())
}

/// Removes what has gone during a session. Called when nobody shows the maildrop to a client.
pub fn settle_gone(txn: &mut Txn<'_>, window: &Id) -> Result<(), StoreError> {
    for (key, _) in txn.prefix::<Gone>(NOTED_GONE, window, COPIES_MAX)? {
        txn.delete(NOTED_GONE, &key)?;
        remove(txn, &key)?;
    }
    Ok(())
}

fn remove(txn: &mut Txn<'_>, key: &[u8]) -> Result<(), StoreError> {
    for (key, copy) in txn.prefix::<CopyRow>(COPIES, key, usize::MAX)? {
        take_copy(txn, &key, &copy)?;
    }
    Ok(())
}

/// Forgets windows that ended, and messages that had gone, before `before`.
pub fn forget(txn: &mut Txn<'_>, before: u64) -> Result<(), StoreError> {
    for (key, row) in txn.prefix::<EndedRow>(ENDED_WINDOWS, &[], usize::MAX)? {
        if row.at < before {
            txn.delete(ENDED_WINDOWS, &key)?;
        }
    }
    for (key, row) in txn.prefix::<Gone>(GONE, &[], usize::MAX)? {
        if row.at < before {
            txn.delete(GONE, &key)?;
        }
    }
    Ok(())
}

/// Forgets which revisions were decided or deleted last before `before`, among `max` rows behind `cursor`: there is one for each
/// message that a client has deleted. Returns where to go on; `None` at the end.
pub fn forget_latest(
    txn: &mut Txn<'_>,
    cursor: &[u8],
    max: usize,
    before: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = txn.range::<Latest>(REVISED, cursor, None, max)?;
    for (key, row) in &found {
        if row.at < before {
            txn.delete(REVISED, key)?;
        }
    }
    Ok(behind(&found, max))
}

/// Whether big is to be told of a login at `now`: it was not told of one lately.
pub fn is_use_told(rows: &impl Rows, window: &Id, now: u64) -> Result<bool, StoreError> {
    let told = rows.get::<Used>(USED, window)?;
    Ok(told.is_none_or(|told| Duration::from_millis(now.abs_diff(told.at)) >= USED_TOLD))
}

/// Tells big that somebody has logged in, if it is to be told.
pub fn used(txn: &mut Txn<'_>, window: &Id, now: u64) -> Result<(), StoreError> {
    if !is_use_told(txn, window, now)? {
        return Ok(());
    }
    txn.put(USED, window, &Used { at: now })?;
    facts::tell(txn, &ToBig::WindowUsed { window: *window, at: now })
}

#[cfg(test)]
mod tests {
    use shared::lane::{self, QueuedBody, QueuedUnit};
    use std::sync::Arc;

    use link_proto::host::{Applied, Host as _, Rejection};
    use link_proto::unit::{Lane, Position};
    use shared::credential::Credential;
    use shared::seal::PrivateKey;
    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};
    use shared::topology::{SMALLEST, Topology};
    use shared::unit::decode;

    use super::*;
    use crate::cover::Covers;
    use crate::facts::EVENT_LANE;
    use crate::link::LinkHost;
    use crate::node::Node;
    use crate::record::{OUTBOUND_KIND, copy_of};

    const WINDOW: Id = [1; 16];
    const MESSAGE: MessageId = MessageId([3; 16]);

    fn window(until: Option<u64>) -> Window {
        let (key, public) = PrivateKey::generate();
        let (_, credential) = Credential::generate(&key, [9; 16]);
        let logins = vec![[4; 32], [5; 32]];
        Window { logins, until, ..Window::new(WINDOW, [2; 16], public.0, credential) }
    }

    struct Edge {
        store: Store,
        busy: Arc<Busy>,
    }

    impl Edge {
        fn new(window: &Window) -> Self {
            let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
            let edge = Self { store, busy: Arc::default() };
            edge.open(window);
            edge
        }

        fn open(&self, window: &Window) {
            let window = window.clone();
            self.commit(move |txn| open(txn, &window));
        }

        fn commit<T: Send + 'static>(
            &self,
            act: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError> + Send + 'static,
        ) -> T {
            self.store.commit_blocking(act).expect("commits").into_inner()
        }

        fn file(&self, message: MessageId, size: u64) {
            let mut writer = self.store.body_writer(BodyKey([message.0[0]; 32]), OUTBOUND_KIND);
            writer.write(b"sealed").expect("writes");
            let stored = writer.finish(Vec::new()).expect("writes");
            let copy = WindowCopy {
                window: WINDOW,
                message: message.0,
                revision: 0,
                wrapped_key: vec![0; 80],
                size,
                retrieved: false,
            };
            self.commit(move |txn| file(txn, copy, &stored, 1));
        }

        fn gone(&self, message: MessageId) {
            let busy = Arc::clone(&self.busy);
            self.commit(move |txn| gone(txn, &busy, &WINDOW, message, 1000));
        }

        fn copies(&self) -> usize {
            let rows = self.store.read().expect("reads");
            rows.prefix::<CopyRow>(COPIES, &WINDOW, usize::MAX).expect("reads").len()
        }

        fn told(&self) -> Vec<ToBig> {
            let units = lane::units(&self.store.read().expect("reads"), EVENT_LANE, 1, 100).expect("reads");
            units.iter().filter_map(|(_, unit)| decode(&unit.head)).collect()
        }
    }

    #[test]
    fn a_window_ends_at_its_moment_and_opens_again_if_that_had_been_put_off() {
        let edge = Edge::new(&window(Some(5000)));
        edge.file(MESSAGE, 9);
        let overdue = |now| overdue(&edge.store.read().expect("reads"), now).expect("reads");
        assert_eq!(overdue(4999), []);
        assert_eq!(overdue(5000), [(WINDOW, 5000)]);
        edge.commit(|txn| end(txn, &WINDOW, Some(5000), 5001));
        assert_eq!(edge.copies(), 0);
        edge.file(MESSAGE, 9);
        assert_eq!(edge.copies(), 0, "it takes nothing more");
        assert_eq!(edge.told(), [ToBig::WindowClosed { window: WINDOW, until: Some(5000) }]);
        edge.open(&window(Some(9000)));
        assert_eq!(overdue(9000), [(WINDOW, 9000)]);
        edge.file(MESSAGE, 9);
        assert_eq!(edge.copies(), 1, "it takes mail again");
    }

    #[test]
    fn a_name_that_is_given_up_logs_in_no_more() {
        let edge = Edge::new(&window(None));
        edge.open(&Window { logins: vec![[5; 32], [6; 32]], ..window(None) });
        let rows = edge.store.read().expect("reads");
        let held = |login: u8| rows.raw(LOGINS, &[login; 32]).expect("reads").is_some();
        assert_eq!([4, 5, 6].map(held), [false, true, true]);
    }

    #[test]
    fn what_is_deleted_at_home_goes_unless_a_session_shows_it_and_does_not_come_back() {
        let edge = Edge::new(&window(None));
        let (shown, late) = (MESSAGE, MessageId([7; 16]));
        edge.file(shown, 9);
        assert!(edge.busy.lock_maildrop(WINDOW));
        edge.gone(shown);
        assert_eq!(edge.copies(), 1, "a session has it");
        edge.busy.unlock_maildrop(&WINDOW);
        edge.commit(|txn| settle_gone(txn, &WINDOW));
        assert_eq!(edge.copies(), 0);
        // The word overtakes the message, which is large and goes by another lane.
        edge.gone(late);
        edge.file(late, 9);
        edge.file(shown, 9);
        assert_eq!(edge.copies(), 0);
        edge.commit(|txn| forget(txn, 1001));
        edge.file(late, 9);
        assert_eq!(edge.copies(), 1, "it is remembered for a while only");
    }

    #[test]
    fn what_big_refuses_goes_unless_somebody_has_fetched_it() {
        let edge = Edge::new(&window(None));
        let fetched = MessageId([7; 16]);
        edge.file(MESSAGE, 9);
        edge.file(fetched, 9);
        edge.commit(move |txn| {
            let key = copy_key(&WINDOW, fetched, 0);
            let row = txn.get::<CopyRow>(COPIES, &key)?.expect("is there");
            txn.put(COPIES, &key, &CopyRow { retrieved: true, ..row })
        });
        for message in [MESSAGE, fetched] {
            let busy = Arc::clone(&edge.busy);
            edge.commit(move |txn| refused(txn, &busy, message, 1000));
        }
        assert_eq!(edge.copies(), 1);
    }

    #[test]
    fn a_refusal_of_bigs_takes_the_copy_away_in_the_commit_that_records_it() {
        let Edge { store, .. } = Edge::new(&window(None));
        let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
        let node = Arc::new(Node::new(
            store,
            Covers::simulated(),
            topology,
            PrivateKey::from_bytes([1; 32]),
            [2; 32],
        ));
        let edge = Edge { store: node.store.clone(), busy: Arc::clone(&node.busy) };
        let taken = MessageId([7; 16]);
        for message in [MESSAGE, taken] {
            edge.file(message, 9);
            let (id, head, body) = (message.0, vec![1], QueuedBody::None);
            let unit = QueuedUnit { id, lane: Lane::Inter.index(), after: None, head, body };
            edge.commit(move |txn| lane::queue(txn, &unit));
        }
        let host = LinkHost::new(node);
        let refused = vec![Rejection { number: 1, reason: "malformed".into() }];
        let applied = Applied { refused, deferred: Vec::new() };
        let position = Position { number: 2, chain: [0; 32] };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(host.confirmed(Lane::Inter, position, applied)).expect("is recorded");
        let rows = edge.store.read().expect("reads");
        let left = rows.prefix::<CopyRow>(COPIES, &WINDOW, 10).expect("reads");
        let left: Vec<_> = left.iter().map(|(key, _)| copy_of(key).0).collect();
        assert_eq!(left, [taken]);
        assert_eq!(lane::dead_letter_count(&rows).expect("reads"), 1);
    }

    #[test]
    fn a_window_takes_what_is_small_enough_and_fits() {
        let limited = Window { size_max: Some(50), quota: Some(100), ..window(None) };
        let edge = Edge::new(&limited);
        let fits = |window: &Window, size| {
            has_room(&edge.store.read().expect("reads"), window, size).expect("reads")
        };
        assert_eq!([50, 51].map(|size| fits(&limited, size)), [true, false]);
        edge.file(MESSAGE, 60);
        assert_eq!([40, 41].map(|size| fits(&limited, size)), [true, false]);
        edge.file(MESSAGE, 60);
        assert!(fits(&limited, 40), "the same copy is counted once");
        edge.gone(MESSAGE);
        assert_eq!([50, 51].map(|size| fits(&limited, size)), [true, false], "what is gone takes no room");
        edge.file(MessageId([7; 16]), 50);
        edge.commit(|txn| end(txn, &WINDOW, None, 1));
        assert!(fits(&limited, 50), "nor what was in a window that has ended");
        assert!(fits(&window(None), u64::MAX));
    }

    #[test]
    fn of_many_logins_few_are_told() {
        let edge = Edge::new(&window(None));
        for at in [1_000_000, 1_000_001, 1_599_999, 1_600_000, 900_000] {
            edge.commit(move |txn| used(txn, &WINDOW, at));
        }
        let told = [1_000_000, 1_600_000, 900_000].map(|at| ToBig::WindowUsed { window: WINDOW, at });
        assert_eq!(edge.told(), told);
    }
}
