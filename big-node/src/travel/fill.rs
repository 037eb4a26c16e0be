//! What a travel window holds: copies of what arrives, of what came before, and what waits for room or is too large.
//!
//! What arrives is sent at once. What came before, the *back-fill*, goes behind it: newest first, in the lane of what
//! is not urgent, and only so many at a time, so that live mail never waits for it. With *headers first*, which is an
//! order and cuts nothing, all small messages come before any large one. What does not fit waits here, and goes in
//! the order in which it came when there is room.

use std::sync::Arc;

use shared::id::MessageId;
use shared::lane;
use shared::store::{Rows, Store, StoreError, Txn};
use shared::unit::{Id, ToEdge};

use crate::mail::{self, Site};
use crate::projection;
use crate::record::{
    COPIES, CopyRow, Entry, Folder, MAILBOXES, Message, Named, OPEN_WINDOWS, OVERSIZED, Pass, Place, Scope,
    TRIPS, Trip, WAITING_COPIES, WINDOWS, WindowRow, WindowState, folder_prefix, key2, message_of,
};

const DAY_MILLIS: u64 = 24 * 3_600_000;
const BATCH_LANE: usize = 3;
/// Units of the batch lane that may be under way when more of the back-fill is queued.
const UNDER_WAY_MAX: u64 = 128;
/// Copies that one commit queues.
const SENT_AT_ONCE: usize = 64;
/// Entries that one commit looks at.
const LOOKED_AT_ONCE: usize = 1000;
/// What is small: it fits into a unit, and costs a poor line a second or two.
const SMALL_BYTES: u64 = 64 * 1024;
/// People who travel at once, at most: what one look at all of them reads.
const TRAVELLERS_MAX: usize = 100_000;
/// Copies of one window, at most.
const COPIES_MAX: usize = 1_000_000;

/// A person's open window.
pub fn open_window(rows: &impl Rows, person: &Id) -> Result<Option<WindowRow>, StoreError> {
    let Some(Named(window)) = rows.get(OPEN_WINDOWS, person)? else { return Ok(None) };
    let row = rows.get::<WindowRow>(WINDOWS, &window)?;
    Ok(row.filter(|row| row.state == WindowState::Open))
}

/// Octets for which the edge has room.
fn room(rows: &impl Rows, row: &WindowRow) -> Result<u64, StoreError> {
    let Some(quota) = row.window.quota else { return Ok(u64::MAX) };
    Ok(quota.saturating_sub(bytes(rows, &row.window.window)?))
}

/// Octets of copies on the edge.
pub fn bytes(rows: &impl Rows, window: &Id) -> Result<u64, StoreError> {
    let copies = rows.prefix::<CopyRow>(COPIES, window, COPIES_MAX)?;
    let there = copies.iter().filter(|(_, copy)| copy.is_there());
    Ok(there.fold(0, |bytes, (_, copy)| bytes.saturating_add(copy.size)))
}

/// Whether a message of `size` octets may be in the window at all.
fn admits(row: &WindowRow, size: u64) -> bool {
    let limits = [row.window.size_max, row.window.quota];
    limits.into_iter().flatten().all(|limit| size <= limit)
}

/// Copies what has arrived for a person into their window, unless it is there.
pub fn arrived(
    txn: &mut Txn<'_>,
    site: &Site,
    message: &Message,
    id: MessageId,
    person: &Id,
    now: u64,
) -> Result<(), StoreError> {
    let Some(row) = open_window(txn, person)? else { return Ok(()) };
    // A window that opens later wants what comes from then on, or from so many days before then.
    let too_early = row.scope == Scope::New && now < row.window.from;
    let window = row.window.window;
    if too_early || txn.raw(COPIES, &key2(&window, &id.0))?.is_some() {
        return Ok(());
    }
    let size = message.origin.size;
    if !admits(&row, size) {
        return leave_out(txn, &row, id, size);
    }
    let others_wait = !txn.prefix::<Named>(WAITING_COPIES, &window, 1)?.is_empty();
    if others_wait || size > room(txn, &row)? {
        let copy = CopyRow { size, place: Place::Waiting, ..CopyRow::default() };
        txn.put(COPIES, &key2(&window, &id.0), &copy)?;
        return txn.put(WAITING_COPIES, &key2(&window, &id.0), &Named(id.0));
    }
    send(txn, site, message, id, &row, Pace::Live)
}

/// How urgent a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It goes as mail does.
    Live,
    /// It goes behind mail.
    Batch,
}

fn send(
    txn: &mut Txn<'_>,
    site: &Site,
    message: &Message,
    id: MessageId,
    row: &WindowRow,
    pace: Pace,
) -> Result<(), StoreError> {
    let (revision, size) = (message.revision, message.origin.size);
    let key = key2(&row.window.window, &id.0);
    let before = txn.get::<CopyRow>(COPIES, &key)?.unwrap_or_default();
    txn.put(COPIES, &key, &CopyRow { revision, size, place: Place::Edge, ..before })?;
    mail::queue_copy(txn, site, message, id, row, (before.retrieved, pace))
}

fn leave_out(txn: &mut Txn<'_>, row: &WindowRow, id: MessageId, size: u64) -> Result<(), StoreError> {
    let key = key2(&row.window.window, &id.0);
    txn.put(COPIES, &key, &CopyRow { size, place: Place::TooLarge, ..CopyRow::default() })?;
    txn.put(OVERSIZED, &key, &Named(id.0))
}

/// A message is not in its reader's mailbox any more: its copy goes, too. Also what a client has deleted: of that the edge
/// may be offering another revision, or it went back and has it again.
pub fn deleted(txn: &mut Txn<'_>, person: &Id, id: MessageId) -> Result<(), StoreError> {
    let Some(row) = open_window(txn, person)? else { return Ok(()) };
    let window = row.window.window;
    let key = key2(&window, &id.0);
    let copy = txn.get::<CopyRow>(COPIES, &key)?;
    let Some(copy) = copy.filter(|copy| copy.place != Place::Gone) else { return Ok(()) };
    if copy.place == Place::Edge {
        projection::tell_edge(txn, &ToEdge::CopyGone { window, message: id.0 })?;
    }
    txn.delete(WAITING_COPIES, &key)?;
    txn.delete(OVERSIZED, &key)?;
    txn.put(COPIES, &key, &CopyRow { place: Place::Gone, ..copy })
}

/// How far a window is.
pub fn trip(rows: &impl Rows, window: &Id) -> Result<Trip, StoreError> {
    Ok(rows.get(TRIPS, window)?.unwrap_or_default())
}

/// From when on messages are in the scope; `None` if nothing is filled in.
fn since(row: &WindowRow) -> Option<u64> {
    match row.scope {
        Scope::New => None,
        Scope::Days(days) => Some(row.begins_at().saturating_sub(u64::from(days) * DAY_MILLIS)),
        Scope::All => Some(0),
    }
}

/// Begins the back-fill of a window that was opened. Returns how many messages that is.
pub fn begin(txn: &mut Txn<'_>, site: &Site, row: &WindowRow) -> Result<u64, StoreError> {
    let mut trip = Trip::default();
    if let Some(since) = since(row) {
        let inbox = folder_prefix(&row.window.person, Folder::In);
        let entries = txn.prefix::<Entry>(MAILBOXES, &inbox, usize::MAX)?;
        let in_scope = entries.iter().filter(|(_, entry)| entry.filed_at >= since).count();
        trip.total = u64::try_from(in_scope).unwrap_or(u64::MAX);
        trip.cursor = Some(first(row));
        trip.pass = if row.headers_first { Pass::Small } else { Pass::All };
    }
    let total = trip.total;
    txn.put(TRIPS, &row.window.window, &trip)?;
    go_on_with(txn, site, row)?;
    Ok(total)
}

/// Behind the newest entry.
fn first(row: &WindowRow) -> Vec<u8> {
    [folder_prefix(&row.window.person, Folder::In).as_slice(), &[0xff; 17]].concat()
}

/// Sends the copies of a window anew: the edge had ended it before it knew that its end was put off.
pub fn again(txn: &mut Txn<'_>, row: &WindowRow) -> Result<(), StoreError> {
    let window = row.window.window;
    let mut trip = trip(txn, &window)?;
    trip.again += 1;
    txn.put(TRIPS, &window, &trip)?;
    for (key, copy) in txn.prefix::<CopyRow>(COPIES, &window, COPIES_MAX)? {
        if copy.is_there() {
            txn.put(COPIES, &key, &CopyRow { place: Place::Waiting, ..copy })?;
            txn.put(WAITING_COPIES, &key, &Named(message_of(&key).0))?;
        }
    }
    Ok(())
}

/// Goes on with what waits and with back-fills, as far as there is room on the edge and on the way to it.
pub async fn go_on(store: &Store, site: &Arc<Site>) -> Result<(), StoreError> {
    loop {
        let due = due(&store.read()?)?;
        if due.is_empty() {
            return Ok(());
        }
        let site = Arc::clone(site);
        let gone_on = store.commit(move |txn| {
            let mut any = false;
            for person in &due {
                if let Some(row) = open_window(txn, person)? {
                    any |= go_on_with(txn, &site, &row)?;
                }
            }
            Ok::<_, StoreError>(any)
        });
        if !gone_on.await?.into_inner() {
            return Ok(());
        }
    }
}

/// Whose windows have something to send.
fn due(rows: &impl Rows) -> Result<Vec<Id>, StoreError> {
    let mut due = Vec::new();
    let mut under_way = None;
    for (_, Named(window)) in rows.prefix::<Named>(OPEN_WINDOWS, &[], TRAVELLERS_MAX)? {
        let Some(row) = rows.get::<WindowRow>(WINDOWS, &window)? else { continue };
        let needs = match rows.prefix::<Named>(WAITING_COPIES, &window, 1)?.first() {
            Some((key, _)) => Some(rows.get::<CopyRow>(COPIES, key)?.map_or(0, |copy| copy.size)),
            None => {
                let trip = trip(rows, &window)?;
                if trip.cursor.is_none() {
                    continue;
                }
                let under_way = match under_way {
                    Some(under_way) => under_way,
                    None => *under_way.insert(lane::depth(rows)?[BATCH_LANE]),
                };
                (under_way < UNDER_WAY_MAX).then_some(trip.needs.unwrap_or(0))
            }
        };
        if let Some(needs) = needs
            && needs <= room(rows, &row)?
        {
            due.push(row.window.person);
        }
    }
    Ok(due)
}

/// Sends some of what waits for a window, or else of its back-fill. Whether it has come any further.
fn go_on_with(txn: &mut Txn<'_>, site: &Site, row: &WindowRow) -> Result<bool, StoreError> {
    let mut room = room(txn, row)?;
    let waiting = txn.prefix::<Named>(WAITING_COPIES, &row.window.window, SENT_AT_ONCE)?;
    for (key, Named(id)) in &waiting {
        let id = MessageId(*id);
        let copy = txn.get::<CopyRow>(COPIES, key)?.filter(|copy| copy.place == Place::Waiting);
        let message = match (copy, mail::entry(txn, &row.window.person, id)?) {
            (Some(_), Some((_, entry))) => mail::shown(txn, id, entry.revision)?,
            _ => None,
        };
        // What is there no more is waited for no more.
        let Some(message) = message else {
            txn.delete(WAITING_COPIES, key)?;
            continue;
        };
        if message.origin.size > room {
            return Ok(false);
        }
        room -= message.origin.size;
        txn.delete(WAITING_COPIES, key)?;
        send(txn, site, &message, id, row, Pace::Batch)?;
    }
    if !waiting.is_empty() {
        return Ok(true);
    }
    back_fill(txn, site, row, room)
}

fn back_fill(txn: &mut Txn<'_>, site: &Site, row: &WindowRow, mut room: u64) -> Result<bool, StoreError> {
    let window = row.window.window;
    let mut trip = trip(txn, &window)?;
    let (Some(mut cursor), Some(since)) = (trip.cursor.take(), since(row)) else { return Ok(false) };
    let begun = cursor.clone();
    let inbox = folder_prefix(&row.window.person, Folder::In);
    let found = txn.range_backwards::<Entry>(MAILBOXES, &inbox, Some(&cursor), LOOKED_AT_ONCE)?;
    let mut at_end = found.len() < LOOKED_AT_ONCE;
    let mut sent = 0;
    trip.needs = None;
    for (key, entry) in found {
        if sent >= SENT_AT_ONCE {
            at_end = false;
            break;
        }
        let id = message_of(&key);
        let message = match entry.filed_at >= since {
            true => mail::shown(txn, id, entry.revision)?,
            false => None,
        };
        let Some(message) = message else {
            cursor = key;
            continue;
        };
        let size = message.origin.size;
        let in_pass = match trip.pass {
            Pass::All => true,
            Pass::Small => size <= SMALL_BYTES,
            Pass::Large => size > SMALL_BYTES,
        };
        if in_pass {
            if txn.raw(COPIES, &key2(&window, &id.0))?.is_some() {
                // It arrived while the window was open.
            } else if !admits(row, size) {
                leave_out(txn, row, id, size)?;
            } else if size > room {
                trip.needs = Some(size);
                at_end = false;
                break;
            } else {
                room -= size;
                send(txn, site, &message, id, row, Pace::Batch)?;
                sent += 1;
            }
            trip.done += 1;
        }
        cursor = key;
    }
    let moved = cursor != begun || at_end;
    trip.cursor = Some(cursor);
    if at_end {
        let another = trip.pass == Pass::Small;
        trip.cursor = another.then(|| first(row));
        trip.pass = if another { Pass::Large } else { trip.pass };
    }
    txn.put(TRIPS, &window, &trip)?;
    Ok(moved)
}
