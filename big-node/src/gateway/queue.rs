//! What waits for inside gateways. All of it is rows, so there is nothing to lose but the store.
//!
//! A message is entered in the commit that takes it in, once for each gateway, and holds the body until its
//! last recipient is at their end and every report that quotes it is written.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::age;
use shared::id::MessageId;
use shared::smtp::Enhanced;
use shared::smtp::client::{Class, Status};
use shared::store::{BodyKey, Rows, StoreError, Txn};
use shared::unit::{DeliveryState, Id, Outcome, ReviseMode, ReviseResult};

use crate::error::Refused;
use crate::mail::{self, Site, recipient_key};
use crate::outcome::{self, Settled};
use crate::record::{HANDOVERS, HANDOVERS_DUE, Handover, Named, Noted, RECIPIENTS, REPORTS, Recipient};
use crate::revise::Decided;

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

/// A revision of a message for a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Due {
    /// The gateway.
    pub gateway: String,
    /// The message.
    pub message: MessageId,
    /// Which revision of it.
    pub revision: u32,
}

impl Due {
    fn key(&self) -> Vec<u8> {
        [self.message.0.as_slice(), &self.revision.to_be_bytes(), self.gateway.as_bytes()].concat()
    }

    fn due_key(&self, at: u64) -> Vec<u8> {
        let (at, revision) = (at.to_be_bytes(), self.revision.to_be_bytes());
        [&after(&self.gateway, 0), at.as_slice(), &self.message.0, &revision].concat()
    }
}

/// Attempts that are under way. One is entered before an operation of the store's writer reads its row, and a
/// revision is decided by such an operation, which looks here: so an attempt has either read what was decided, or
/// is seen by who decides.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<HashSet<Due>>);

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashSet<Due>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an attempt; `false` if it is under way already.
    pub fn begin(&self, due: &Due) -> bool {
        self.lock().insert(due.clone())
    }

    /// Whether an attempt is under way.
    pub fn contains(&self, due: &Due) -> bool {
        self.lock().contains(due)
    }

    /// An attempt is over.
    pub fn end(&self, due: &Due) {
        self.lock().remove(due);
    }

    /// How many are under way for a gateway.
    pub fn count(&self, gateway: &str) -> usize {
        self.lock().iter().filter(|due| due.gateway == gateway).count()
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
    /// The TLS that was under; `None` is in clear.
    pub tls: Option<String>,
    /// It has taken the message, and reports on it as the sender wants.
    pub host_reports: bool,
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
    let row = Handover {
        recipients,
        noted: Vec::new(),
        attempts: 0,
        queued_at: now,
        since: age::lived(txn)?,
        next_attempt_at: now,
        held,
    };
    put(txn, due, &row)
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
    let (id, rest) = key.split_first_chunk::<16>()?;
    let (revision, gateway) = rest.split_first_chunk::<4>()?;
    let (gateway, revision) = (String::from_utf8(gateway.to_vec()).ok()?, u32::from_be_bytes(*revision));
    Some(Due { gateway, message: MessageId(*id), revision })
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
) -> Result<(Vec<Due>, Option<u64>), StoreError> {
    let (begin, end) = (after(gateway, 0), after(gateway, 1));
    let now_key = [begin.as_slice(), &now.saturating_add(1).to_be_bytes()].concat();
    let mut found = rows.range::<Named>(HANDOVERS_DUE, &begin, Some(&now_key), max)?;
    // What was set by a clock that has gone back since does not wait for it.
    let too_far = [begin.as_slice(), &age::too_far(now).to_be_bytes()].concat();
    found.extend(rows.range::<Named>(HANDOVERS_DUE, &too_far, Some(&end), max - found.len())?);
    let next = rows.range::<Named>(HANDOVERS_DUE, &now_key, Some(&end), 1)?.pop();
    let next = next.and_then(|(key, _)| {
        let time = key.get(begin.len()..begin.len() + 8)?;
        Some(u64::from_be_bytes(time.try_into().ok()?))
    });
    let due = |(key, Named(id)): (Vec<u8>, Named)| Due {
        gateway: gateway.to_owned(),
        message: MessageId(id),
        revision: key.last_chunk().map_or(0, |revision| u32::from_be_bytes(*revision)),
    };
    Ok((found.into_iter().map(due).collect(), next))
}

/// What an attempt is to hand over; `None` if there is nothing to do. What was noted and left undecided, by an
/// attempt that was cut off, is decided first.
pub fn begin(txn: &mut Txn<'_>, site: &Site, due: &Due, now: u64) -> Result<Option<Handover>, StoreError> {
    settle(txn, site, due, now)?;
    Ok(get(txn, due)?.filter(|row| !row.held && !row.recipients.is_empty()))
}

/// Records what an attempt brought, and that it is over. Who is not in `reports` waits as before.
pub fn record(
    txn: &mut Txn<'_>,
    site: &Site,
    due: &Due,
    reports: Vec<Report>,
    now: u64,
) -> Result<(), StoreError> {
    site.under_way.end(due);
    let Some(mut row) = get(txn, due)? else { return Ok(()) };
    txn.delete(HANDOVERS_DUE, &due.due_key(row.next_attempt_at))?;
    row.attempts = row.attempts.saturating_add(1);
    row.next_attempt_at = now.saturating_add(wait_after(row.attempts));
    let expired = age::lived(txn)? >= row.since.saturating_add(millis(EXPIRE));
    for Report { recipient, mut status, host, tls, host_reports } in reports {
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
            relay: None,
            text: status.text,
            status: status.enhanced.to_string(),
            in_doubt: status.in_doubt,
            host_reports,
            next_attempt_at: again.then_some(row.next_attempt_at),
        };
        if outcome::settle(txn, &outcome, Some(&due.gateway))? != Settled::Recorded || !again {
            row.recipients.retain(|waiting| *waiting != recipient);
        }
    }
    put(txn, due, &row)?;
    settle(txn, site, due, now)?;
    sweep(txn, due.message)
}

/// Decides a revision for a recipient who waits for a gateway; `None` if an attempt under way decides it later,
/// by its outcome.
pub fn revise(
    txn: &mut Txn<'_>,
    site: &Site,
    (id, gateway): (MessageId, &str),
    noted: Noted,
) -> Result<Option<ReviseResult>, StoreError> {
    let waits = of_message(txn, id)?.into_iter();
    let mut waits =
        waits.filter(|(due, row)| due.gateway == gateway && row.recipients.contains(&noted.recipient));
    let Some((due, mut row)) = waits.next() else { return Ok(Some(ReviseResult::TooLate)) };
    if site.under_way.contains(&due) {
        row.noted.push(noted);
        put(txn, &due, &row)?;
        return Ok(None);
    }
    shift(txn, &due, noted).map(Some)
}

/// Moves a recipient who waits to the row of another revision, or away.
fn shift(txn: &mut Txn<'_>, due: &Due, noted: Noted) -> Result<ReviseResult, StoreError> {
    let Some(mut row) = get(txn, due)? else { return Ok(ReviseResult::TooLate) };
    row.recipients.retain(|waiting| *waiting != noted.recipient);
    if row.recipients.is_empty() {
        txn.delete(HANDOVERS_DUE, &due.due_key(row.next_attempt_at))?;
    }
    put(txn, due, &row)?;
    let result = match noted.mode {
        ReviseMode::Withdraw => ReviseResult::Withdrawn,
        ReviseMode::Replace | ReviseMode::Append => {
            let to = Due { revision: noted.revision, ..due.clone() };
            let mut target = match get(txn, &to)? {
                Some(target) => target,
                None => {
                    let message = mail::shown(txn, due.message, noted.revision)?;
                    let damaged = || StoreError::Damaged("a revision for a gateway has no body: it".into());
                    if !txn.reference_body(message.ok_or_else(damaged)?.body())? {
                        return Err(damaged());
                    }
                    Handover { recipients: Vec::new(), noted: Vec::new(), ..row.clone() }
                }
            };
            txn.delete(HANDOVERS_DUE, &to.due_key(target.next_attempt_at))?;
            target.recipients.push(noted.recipient);
            target.held |= row.held;
            put(txn, &to, &target)?;
            ReviseResult::Replaced
        }
    };
    sweep(txn, due.message)?;
    Ok(result)
}

/// Decides what was noted while an attempt was under way, by what that brought.
fn settle(txn: &mut Txn<'_>, site: &Site, due: &Due, now: u64) -> Result<(), StoreError> {
    let Some(mut row) = get(txn, due)?.filter(|row| !row.noted.is_empty()) else { return Ok(()) };
    let mut noted = std::mem::take(&mut row.noted);
    put(txn, due, &row)?;
    noted.sort_by_key(|noted| noted.revision);
    for noted in noted {
        // An earlier one has moved the recipient on already.
        let waits = of_message(txn, due.message)?
            .into_iter()
            .map(|(at, _)| at)
            .filter(|at| at.gateway == due.gateway);
        let mut present = None;
        for at in waits {
            if get(txn, &at)?.is_some_and(|row| row.recipients.contains(&noted.recipient)) {
                present = Some(at);
            }
        }
        let result = match present {
            Some(present) => shift(txn, &present, noted)?,
            None => ReviseResult::TooLate,
        };
        let decided =
            Decided { id: due.message, recipient: noted.recipient, revision: noted.revision, at: now };
        crate::revise::decided(txn, site, decided, result, "")?;
    }
    Ok(())
}

/// Lets go of what nobody waits for and no report has to quote.
pub fn sweep(txn: &mut Txn<'_>, id: MessageId) -> Result<(), StoreError> {
    if txn.raw(REPORTS, &id.0)?.is_some() {
        return Ok(());
    }
    let idle = |(_, row): &(Due, Handover)| row.recipients.is_empty() && row.noted.is_empty();
    for (due, _) in of_message(txn, id)?.into_iter().filter(idle) {
        txn.delete(HANDOVERS, &due.key())?;
        if let Some(message) = mail::shown(txn, id, due.revision)? {
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
        let (queued_at, since) = if row.held { (now, age::lived(txn)?) } else { (row.queued_at, row.since) };
        put(txn, &due, &Handover { held: false, next_attempt_at: now, queued_at, since, ..row })?;
    }
    Ok(())
}

/// The recipients of a handover, with their indexes.
pub fn recipients(
    rows: &impl Rows,
    id: Id,
    handover: &Handover,
) -> Result<Vec<(u32, Recipient)>, StoreError> {
    let mut found = Vec::new();
    for index in &handover.recipients {
        let row = rows.get::<Recipient>(RECIPIENTS, &recipient_key(MessageId(id), *index))?;
        found.extend(row.map(|row| (*index, row)));
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
