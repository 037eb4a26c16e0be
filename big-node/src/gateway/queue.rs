//! What waits for inside gateways. All of it is rows, so there is nothing to lose but the store.
//!
//! A message is entered in the commit that takes it in, once for each gateway, and holds the body until its
//! last recipient is at their end and every report that quotes it is written.

use std::time::Duration;

use shared::id::MessageId;
use shared::smtp::Enhanced;
use shared::smtp::client::{Class, Status};
use shared::store::{BodyKey, Rows, StoreError, Txn};
use shared::unit::{DeliveryState, Id, Outcome};

use crate::error::Refused;
use crate::mail::recipient_key;
use crate::outcome::{self, Settled};
use crate::record::{
    HANDOVERS, HANDOVERS_DUE, Handover, MESSAGES, Message, Named, RECIPIENTS, REPORTS, Recipient, key2,
};

/// Between two attempts; the last repeats. A host inside that restarts is back in seconds.
const RETRY: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
];
/// A message that cannot be handed over is given up after this.
const EXPIRE: Duration = Duration::from_secs(5 * 24 * 3600);

/// Why a recipient waits whose message a rebuild found.
pub const HELD: &str =
    "held after a rebuild, for it may have been handed over already; `big-node queue retry` lets it go";

/// A message for a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Due {
    /// The gateway.
    pub gateway: String,
    /// The message.
    pub message: MessageId,
}

impl Due {
    fn key(&self) -> Vec<u8> {
        key2(&self.message.0, self.gateway.as_bytes())
    }

    fn due_key(&self, at: u64) -> Vec<u8> {
        [&after(&self.gateway, 0), at.to_be_bytes().as_slice(), &self.message.0].concat()
    }
}

/// What one attempt brought for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The recipient's index.
    pub recipient: u32,
    /// What was said.
    pub status: Status,
    /// The host that said so.
    pub host: Option<String>,
    /// Whether that was under TLS.
    pub tls: bool,
}

/// Enters a message for some of its recipients, whose rows are there.
pub fn enter(
    txn: &mut Txn<'_>,
    due: &Due,
    body: BodyKey,
    recipients: Vec<u32>,
    held: bool,
    now: u64,
) -> Result<(), StoreError> {
    if txn.raw(HANDOVERS, &due.key())?.is_some() {
        return Ok(());
    }
    if !txn.reference_body(body)? {
        return Err(StoreError::Damaged("a message for a gateway has no body: it".into()));
    }
    put(txn, due, &Handover { recipients, attempts: 0, queued_at: now, next_attempt_at: now, held })
}

/// Writes a row and, if it is to be attempted, its place in the schedule.
fn put(txn: &mut Txn<'_>, due: &Due, row: &Handover) -> Result<(), StoreError> {
    if !row.held && !row.recipients.is_empty() {
        txn.put(HANDOVERS_DUE, &due.due_key(row.next_attempt_at), &Named(due.message.0))?;
    }
    txn.put(HANDOVERS, &due.key(), row)
}

/// The row of a message.
pub fn get(rows: &impl Rows, due: &Due) -> Result<Option<Handover>, StoreError> {
    rows.get(HANDOVERS, &due.key())
}

/// Everything that waits, by message; at most `max`.
pub fn list(rows: &impl Rows, max: usize) -> Result<Vec<(Due, Handover)>, StoreError> {
    let rows = rows.prefix::<Handover>(HANDOVERS, &[], max)?.into_iter();
    Ok(rows.filter_map(|(key, row)| Some((due_of(&key)?, row))).collect())
}

/// What waits of one message.
pub fn of_message(rows: &impl Rows, id: MessageId) -> Result<Vec<(Due, Handover)>, StoreError> {
    let rows = rows.prefix::<Handover>(HANDOVERS, &id.0, usize::MAX)?.into_iter();
    Ok(rows.filter_map(|(key, row)| Some((due_of(&key)?, row))).collect())
}

fn due_of(key: &[u8]) -> Option<Due> {
    let (id, gateway) = key.split_first_chunk::<16>()?;
    Some(Due { gateway: String::from_utf8(gateway.to_vec()).ok()?, message: MessageId(*id) })
}

/// The bound of a gateway's rows in the schedule. A name has no control characters.
fn after(gateway: &str, end: u8) -> Vec<u8> {
    [gateway.as_bytes(), &[end]].concat()
}

/// Gateways with something in the schedule.
pub fn gateways(rows: &impl Rows) -> Result<Vec<String>, StoreError> {
    let (mut found, mut from) = (Vec::new(), Vec::new());
    while let Some((key, _)) = rows.range::<Named>(HANDOVERS_DUE, &from, None, 1)?.pop() {
        let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        from = after(&name, 1);
        found.push(name);
    }
    Ok(found)
}

/// How many messages a gateway has still to get, held ones excepted; `max` for that many and more.
pub fn waiting(rows: &impl Rows, gateway: &str, max: usize) -> Result<usize, StoreError> {
    let (begin, end) = (after(gateway, 0), after(gateway, 1));
    Ok(rows.raw_range(HANDOVERS_DUE, &begin, Some(&end), max, false)?.len())
}

/// At most `max` messages that are due for a gateway, first the one that has waited longest; and when the
/// next one will be, milliseconds since 1970.
pub fn due(
    rows: &impl Rows,
    gateway: &str,
    now: u64,
    max: usize,
) -> Result<(Vec<MessageId>, Option<u64>), StoreError> {
    let (begin, end) = (after(gateway, 0), after(gateway, 1));
    let now_key = [begin.as_slice(), &now.saturating_add(1).to_be_bytes()].concat();
    let found = rows.range::<Named>(HANDOVERS_DUE, &begin, Some(&now_key), max)?;
    let next = rows.range::<Named>(HANDOVERS_DUE, &now_key, Some(&end), 1)?.pop();
    let next = next.and_then(|(key, _)| {
        let time = key.get(begin.len()..begin.len() + 8)?;
        Some(u64::from_be_bytes(time.try_into().ok()?))
    });
    Ok((found.into_iter().map(|(_, Named(id))| MessageId(id)).collect(), next))
}

/// Records what an attempt brought. Who is not in `reports` waits as before.
pub fn record(txn: &mut Txn<'_>, due: &Due, reports: Vec<Report>, now: u64) -> Result<(), StoreError> {
    let Some(mut row) = get(txn, due)? else { return Ok(()) };
    txn.delete(HANDOVERS_DUE, &due.due_key(row.next_attempt_at))?;
    row.attempts = row.attempts.saturating_add(1);
    row.next_attempt_at = now.saturating_add(wait_after(row.attempts));
    let expired = now >= row.queued_at.saturating_add(millis(EXPIRE));
    for Report { recipient, mut status, host, tls } in reports {
        if status.class == Class::Temporary && expired {
            let text =
                format!("given up after {} attempts; the last answer was: {}", row.attempts, status.text);
            status = Status::ours(Class::Permanent, Enhanced(4, 4, 7), &text);
        }
        let state = match status.class {
            Class::Delivered => DeliveryState::Relayed,
            Class::Temporary => DeliveryState::Deferred,
            Class::Permanent => DeliveryState::Failed,
        };
        let again = status.class == Class::Temporary;
        let outcome = Outcome {
            message: due.message.0,
            recipient,
            state,
            at: now,
            host,
            tls,
            text: status.text,
            status: status.enhanced.to_string(),
            in_doubt: status.in_doubt,
            next_attempt_at: again.then_some(row.next_attempt_at),
        };
        if outcome::settle(txn, &outcome, Some(&due.gateway))? != Settled::Recorded || !again {
            row.recipients.retain(|waiting| *waiting != recipient);
        }
    }
    put(txn, due, &row)?;
    sweep(txn, due.message)
}

/// Lets go of what nobody waits for and no report has to quote.
pub fn sweep(txn: &mut Txn<'_>, id: MessageId) -> Result<(), StoreError> {
    if txn.raw(REPORTS, &id.0)?.is_some() {
        return Ok(());
    }
    for (due, _) in of_message(txn, id)?.into_iter().filter(|(_, row)| row.recipients.is_empty()) {
        txn.delete(HANDOVERS, &due.key())?;
        if let Some(message) = txn.get::<Message>(MESSAGES, &id.0)? {
            txn.release_body(message.body())?;
        }
    }
    Ok(())
}

/// Makes all that waits of a message due now, held or not.
pub fn retry(txn: &mut Txn<'_>, id: MessageId, now: u64) -> Result<(), Refused> {
    let mut waits = of_message(txn, id)?;
    waits.retain(|(_, row)| !row.recipients.is_empty());
    if waits.is_empty() {
        return Err(Refused::new(format!(
            "{id} waits for no inside gateway; `queue list` shows what waits, and what waits on the edge is tried \
             again there"
        )));
    }
    for (due, row) in waits {
        txn.delete(HANDOVERS_DUE, &due.due_key(row.next_attempt_at))?;
        // What was held has its time from here on.
        let queued_at = if row.held { now } else { row.queued_at };
        put(txn, &due, &Handover { held: false, next_attempt_at: now, queued_at, ..row })?;
    }
    Ok(())
}

/// The recipients of a handover, with their indexes.
pub fn recipients(rows: &impl Rows, id: Id, handover: &Handover) -> Result<Vec<(u32, String)>, StoreError> {
    let mut found = Vec::new();
    for index in &handover.recipients {
        let row = rows.get::<Recipient>(RECIPIENTS, &recipient_key(MessageId(id), *index))?;
        found.extend(row.map(|row| (*index, row.address)));
    }
    Ok(found)
}

fn wait_after(attempts: u32) -> u64 {
    let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX).min(RETRY.len() - 1);
    RETRY.get(place).copied().map_or(0, millis)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
