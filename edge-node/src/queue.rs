//! What waits for delivery, on disk: the rows of messages ([`QUEUE`]) and the schedule that follows from them, written
//! in one step. So a queue of any length starts at once, and is never in memory whole.

pub mod former;
pub mod leaving;
pub mod operator;
#[cfg(any(test, feature = "sim"))]
pub mod sample;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use rkyv::{Archive, Deserialize, Serialize};
use shared::address::Address;
use shared::age;
use shared::id::MessageId;
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn, behind};

use crate::record::{Doubt, QUEUE, QueueRecipient, QueueRow, queue_key};
use crate::revise::message_of;

/// Rows that are read at once, where all are gone through.
pub const ROWS_AT_ONCE: usize = 1_000;
/// Messages of a destination whose attempts are brought back at once.
const BROUGHT_BACK_MAX: usize = 100;
/// Destination, 0, time of the next attempt, message, revision to [`Scheduled`].
const DUE: Table = Table("queue-due");
/// Time of a destination's next attempt, destination to [`Scheduled`], of that attempt.
const DESTINATIONS: Table = Table("queue-destinations");

/// A message that is to be attempted.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
struct Scheduled {
    message: [u8; 16],
    revision: u32,
}
row!(Scheduled, 1);

/// Whether a recipient waits for an attempt, no operator holds it, and nothing else is to be settled before.
pub fn is_free(recipient: &QueueRecipient) -> bool {
    recipient.state.waits() && !recipient.held && matches!(recipient.doubt, None | Some(Doubt::Retried))
}

/// The destination of a recipient: the domain of its address; empty if that is none.
pub fn destination(address: &str) -> String {
    address.parse::<Address>().map_or_else(|_| String::new(), |address| address.domain().as_str().to_owned())
}

/// Writes a row, and its attempts in the schedule.
pub fn put(txn: &mut Txn<'_>, message: MessageId, row: &QueueRow) -> Result<(), StoreError> {
    let key = queue_key(&message.0, row.revision);
    let before = txn.get::<QueueRow>(QUEUE, &key)?;
    txn.put(QUEUE, &key, row)?;
    reschedule(txn, message, row.revision, before.as_ref(), Some(row))
}

/// Removes a row, if it is there, and its attempts from the schedule.
pub fn remove(txn: &mut Txn<'_>, message: MessageId, revision: u32) -> Result<(), StoreError> {
    let key = queue_key(&message.0, revision);
    let before = txn.get::<QueueRow>(QUEUE, &key)?;
    txn.delete(QUEUE, &key)?;
    reschedule(txn, message, revision, before.as_ref(), None)
}

/// Some messages with rows between two keys, and where to go on; `None` at the end. One that has rows there, too, comes
/// again.
pub fn messages(
    rows: &impl Rows,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<(BTreeSet<MessageId>, Option<Vec<u8>>), StoreError> {
    let found = rows.range::<QueueRow>(QUEUE, from, to, ROWS_AT_ONCE)?;
    Ok((found.iter().map(|(key, _)| message_of(key)).collect(), behind(&found, ROWS_AT_ONCE)))
}

/// When each destination of a row is to be attempted, milliseconds since 1970.
fn attempts(row: Option<&QueueRow>) -> BTreeMap<String, u64> {
    let mut attempts = BTreeMap::new();
    let recipients = row.into_iter().flat_map(|row| &row.recipients);
    for recipient in recipients.filter(|recipient| is_free(recipient)) {
        let at = attempts.entry(destination(&recipient.address)).or_insert(u64::MAX);
        *at = recipient.next_attempt_at.min(*at);
    }
    attempts
}

fn reschedule(
    txn: &mut Txn<'_>,
    message: MessageId,
    revision: u32,
    before: Option<&QueueRow>,
    after: Option<&QueueRow>,
) -> Result<(), StoreError> {
    let (before, after) = (attempts(before), attempts(after));
    let scheduled = Scheduled { message: message.0, revision };
    let destinations: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for destination in destinations {
        let (old, new) = (before.get(destination), after.get(destination));
        if old == new {
            continue;
        }
        let first = first(txn, destination)?;
        if let Some(old) = old {
            txn.delete(DUE, &due_key(destination, *old, &scheduled))?;
        }
        if let Some(new) = new {
            txn.put(DUE, &due_key(destination, *new, &scheduled), &scheduled)?;
        }
        replace_first(txn, destination, first)?;
    }
    Ok(())
}

/// Keeps a destination's place by its first attempt, which was `before`.
fn replace_first(
    txn: &mut Txn<'_>,
    destination: &str,
    before: Option<(u64, Scheduled)>,
) -> Result<(), StoreError> {
    let after = first(txn, destination)?;
    if before == after {
        return Ok(());
    }
    if let Some((at, _)) = before {
        txn.delete(DESTINATIONS, &destination_key(at, destination))?;
    }
    match after {
        Some((at, scheduled)) => txn.put(DESTINATIONS, &destination_key(at, destination), &scheduled),
        None => Ok(()),
    }
}

fn first(rows: &impl Rows, destination: &str) -> Result<Option<(u64, Scheduled)>, StoreError> {
    let found = rows.prefix::<Scheduled>(DUE, &due_prefix(destination), 1)?.pop();
    Ok(found.map(|(key, scheduled)| (time_in(&key, destination.len() + 1), scheduled)))
}

fn due_prefix(destination: &str) -> Vec<u8> {
    [destination.as_bytes(), &[0]].concat()
}

fn due_key(destination: &str, at: u64, scheduled: &Scheduled) -> Vec<u8> {
    let revision = scheduled.revision.to_be_bytes();
    [&due_prefix(destination), at.to_be_bytes().as_slice(), &scheduled.message, &revision].concat()
}

fn destination_key(at: u64, destination: &str) -> Vec<u8> {
    [&at.to_be_bytes(), destination.as_bytes()].concat()
}

fn time_in(key: &[u8], place: usize) -> u64 {
    let bytes = key.get(place..place.saturating_add(8)).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_be_bytes)
}

/// The keys of `table` from `prefix` on whose time, behind it, is due at `now`: in time, or so far ahead that a clock
/// which has gone back since has set it.
fn due_ranges(prefix: &[u8], now: u64) -> [(Vec<u8>, Option<Vec<u8>>); 2] {
    let at = |time: u64| [prefix, &time.to_be_bytes()].concat();
    // A destination holds no 1.
    let end = prefix.split_last().map(|(_, destination)| [destination, &[1]].concat());
    [(at(0), Some(at(now.saturating_add(1)))), (at(age::too_far(now)), end)]
}

/// Destinations for which something is due at `now`, milliseconds since 1970, the longest overdue first: those that
/// `may_begin`, at most `max` of them.
pub fn due_destinations(
    rows: &impl Rows,
    now: u64,
    max: usize,
    mut may_begin: impl FnMut(&str) -> bool,
) -> Result<Vec<String>, StoreError> {
    let mut due = Vec::new();
    for (from, to) in due_ranges(&[], now) {
        let mut cursor = Some(from);
        while let Some(from) = cursor.take().filter(|_| due.len() < max) {
            let found = rows.range::<Scheduled>(DESTINATIONS, &from, to.as_deref(), ROWS_AT_ONCE)?;
            cursor = behind(&found, ROWS_AT_ONCE);
            let names = found.iter().filter_map(|(key, _)| std::str::from_utf8(key.get(8..)?).ok());
            let left = max - due.len();
            due.extend(names.filter(|name| may_begin(name)).take(left).map(ToOwned::to_owned));
        }
    }
    Ok(due)
}

/// When the next destination becomes due after `now`, both in milliseconds since 1970.
pub fn next_due(rows: &impl Rows, now: u64) -> Result<Option<u64>, StoreError> {
    let from = destination_key(now.saturating_add(1), "");
    let found = rows.range::<Scheduled>(DESTINATIONS, &from, None, 1)?.pop();
    Ok(found.map(|(key, _)| time_in(&key, 0)))
}

/// Makes attempts at a destination due that a clock which has gone back since has set, so that those which it has set anew
/// do not hide them: what counts of a destination is its first attempt. Some of them at once; it is done with each attempt.
pub fn bring_back(txn: &mut Txn<'_>, place: &str, now: u64) -> Result<(), StoreError> {
    let [_, (from, to)] = due_ranges(&due_prefix(place), now);
    for (_, scheduled) in txn.range::<Scheduled>(DUE, &from, to.as_deref(), BROUGHT_BACK_MAX)? {
        let message = MessageId(scheduled.message);
        let Some(mut row) = txn.get::<QueueRow>(QUEUE, &queue_key(&message.0, scheduled.revision))? else {
            continue;
        };
        let is_far = |recipient: &&mut QueueRecipient| {
            recipient.next_attempt_at >= age::too_far(now) && destination(&recipient.address) == place
        };
        row.recipients.iter_mut().filter(is_far).for_each(|recipient| recipient.next_attempt_at = now);
        put(txn, message, &row)?;
    }
    Ok(())
}

/// The message that is due longest for a destination at `now`, milliseconds since 1970, besides those that `skip` names.
/// Reads no more than one row beyond each of those.
pub fn due_message(
    rows: &impl Rows,
    destination: &str,
    now: u64,
    skip: impl Fn(MessageId) -> bool,
) -> Result<Option<MessageId>, StoreError> {
    for (mut from, to) in due_ranges(&due_prefix(destination), now) {
        while let Some((key, scheduled)) = rows.range::<Scheduled>(DUE, &from, to.as_deref(), 1)?.pop() {
            let message = MessageId(scheduled.message);
            if !skip(message) {
                return Ok(Some(message));
            }
            from = [key.as_slice(), &[0]].concat();
        }
    }
    Ok(None)
}
