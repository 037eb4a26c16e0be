//! Telling people here of mail that could not go on, to others outside or to a system behind a gateway, where nobody
//! vouches for its sender: the person who forwards, or else the postmaster.
//!
//! The message itself is filed for them as soon as a failure is known, unless they have it. The report comes once nobody
//! waits for the message at the edge any more: one for each person, of all that failed. Neither follows a forward, for
//! that may be what has failed.

use std::sync::Arc;
use std::time::Duration;

use shared::address::Address;
use shared::id::MessageId;
use shared::mime::{Action, DsnRecipient};
use shared::notify::Return;
use shared::store::{Committed, Rows, Store, StoreError, Txn};
use shared::tls_wish::TlsWish;
use shared::topology::Topology;
use shared::trace;
use shared::unit::Id;

use super::{Keyed, ORIGINAL_BYTES_MAX, Owed, compose, described, written_at};
use crate::directory;
use crate::error::Refused;
use crate::mail::{self, Site};
use crate::record::{
    Folder, MESSAGES, Message, Person, RECIPIENTS, Recipient, StandIn, TOLD_INSTEAD, ToldInstead,
};

/// Reports that one person gets in an hour: whoever sends here decides how many there are. The messages come all the same.
const AN_HOUR_MAX: u32 = 20;
const HOUR: Duration = Duration::from_secs(3_600);

/// A person who is to be told, and of whom.
struct Told {
    person: Person,
    /// Where the message is filed for them.
    folder: Folder,
    failed: Vec<Keyed>,
}

/// Whether there is something to do for a message: to file it, or to tell somebody.
pub(super) fn is_due(rows: &impl Rows, site: &Site, id: MessageId) -> Result<bool, Refused> {
    let Some(message) = rows.get::<Message>(MESSAGES, &id.0)? else { return Ok(false) };
    let postmaster = directory::postmaster_person(rows, &site.policy)?;
    let (is_awaited, mut is_due) = (mail::is_awaited(rows, id)?, false);
    let Some(all) = told(rows, postmaster.as_ref(), &message, id)? else { return Ok(true) };
    for told in all {
        is_due |= !is_awaited || mail::entry(rows, &told.person.id, id)?.is_none();
    }
    Ok(is_due)
}

/// Files a message of which a failure is known, and tells of it when all is. `false` if it waits for a postmaster.
pub(super) async fn tell(
    (store, site, topology): (&Store, &Arc<Site>, &Topology),
    postmaster: Option<&Person>,
    id: MessageId,
    now: u64,
) -> Result<bool, Refused> {
    let snapshot = store.read()?;
    let Some(message) = snapshot.get::<Message>(MESSAGES, &id.0)? else { return Ok(true) };
    let Some(all) = told(&snapshot, postmaster, &message, id)? else { return Ok(false) };
    let is_awaited = mail::is_awaited(&snapshot, id)?;
    for told in all {
        let is_there = mail::entry(&snapshot, &told.person.id, id)?.is_some();
        match is_awaited {
            true if is_there => {}
            true => {
                let (site, message) = (Arc::clone(site), message.clone());
                let filed = store.commit(move |txn| file(txn, &site, (&message, id), &told, now));
                filed.await.map_err(|error: StoreError| Refused::from(error))?;
            }
            false => tell_one((store, site, topology), &message, id, told, now).await?,
        }
    }
    Ok(true)
}

/// Who is to be told of failures of a message; `None` if that is the postmaster and there is none: it stays owed, for
/// after its 250 mail does not vanish.
fn told(
    rows: &impl Rows,
    postmaster: Option<&Person>,
    message: &Message,
    id: MessageId,
) -> Result<Option<Vec<Told>>, StoreError> {
    let mut all: Vec<Told> = Vec::new();
    for (key, row) in rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)? {
        let Some(stand_in) = row.stand_in.filter(|_| row.is_report_owed()) else { continue };
        let Some((person, folder)) = person_of(rows, postmaster, stand_in)? else { return Ok(None) };
        let place = match mail::arrives_in(&message.origin) {
            Folder::In => folder,
            junk => junk,
        };
        match all.iter_mut().find(|told| told.person.id == person.id) {
            Some(told) => {
                // What they forward is their mail, also if they are the postmaster.
                told.folder = if place == Folder::In { place } else { told.folder };
                told.failed.push((key, row));
            }
            None => all.push(Told { person, folder: place, failed: vec![(key, row)] }),
        }
    }
    Ok(Some(all))
}

/// A person who stands in for a sender, if there is one, and where the message is filed for them.
fn person_of(
    rows: &impl Rows,
    postmaster: Option<&Person>,
    stand_in: StandIn,
) -> Result<Option<(Person, Folder)>, StoreError> {
    if let StandIn::Forwarder(id) = stand_in
        && let Some(person) = directory::by_id(rows, &id)?
    {
        return Ok(Some((person, Folder::In)));
    }
    Ok(postmaster.map(|person| (person.clone(), Folder::Undeliverable)))
}

/// Files a message for a person who is to be told of it, unless they have it; `false` if they are here no more.
fn file(
    txn: &mut Txn<'_>,
    site: &Site,
    (message, id): (&Message, MessageId),
    told: &Told,
    now: u64,
) -> Result<bool, StoreError> {
    if directory::by_id(txn, &told.person.id)?.is_none() {
        return Ok(false);
    }
    if mail::entry(txn, &told.person.id, id)?.is_none() {
        mail::file_arrived(txn, site, (message, id), &told.person, told.folder, now)?;
    }
    Ok(true)
}

/// Files a report of all that failed for a person, with the header of the message.
async fn tell_one(
    (store, site, topology): (&Store, &Arc<Site>, &Topology),
    message: &Message,
    id: MessageId,
    told: Told,
    now: u64,
) -> Result<(), Refused> {
    let address = told.person.addresses.first().and_then(|address| address.parse::<Address>().ok());
    let recipients: Vec<_> = told
        .failed
        .iter()
        .filter_map(|(_, row)| described_to(&told.person, row, message.origin.tls_wish))
        .collect();
    let last = told.failed.iter().map(|(_, row)| row.at).max().unwrap_or(now);
    let report = match address {
        Some(address) if !recipients.is_empty() => {
            let mut quoted = message.clone();
            quoted.origin.return_content = Some(Return::Headers.as_str().to_owned());
            let original = store.body(message.body());
            // Without the original, its header is missing from the report.
            let original = original.and_then(|reader| mail::content(reader, message, ORIGINAL_BYTES_MAX));
            let (parts, at) = ((store, &**site, topology), written_at(last, message, now));
            let original = original.unwrap_or_default();
            // Signing takes a while.
            let composed =
                tokio::task::block_in_place(|| compose(parts, &quoted, &address, recipients, original, at));
            Some(composed?)
        }
        _ => None,
    };
    let (site, message) = (Arc::clone(site), message.clone());
    let name = told.person.name.clone();
    let written = store.commit(move |txn| {
        if !file(txn, &site, (&message, id), &told, now)? {
            return Ok(0);
        }
        let mut count = 0;
        if let Some(report) = report
            && !mail::is_known(txn, report.id)?
        {
            count = counted(txn, &told.person.id, now)?;
            let what = match count {
                ..=AN_HOUR_MAX => {
                    let place = mail::arrives_in(&message.origin);
                    mail::file_report(txn, &site, report, (&told.person, place), now)?;
                    "told"
                }
                _ => "the message is filed; there are too many reports this hour for one more",
            };
            let why = "could not go on, and nobody vouches for its sender";
            trace::note(txn, id, now, format!("{why}: {what} to {}", told.person.name))?;
        }
        Owed { recipients: told.failed, ..Owed::default() }.settle(txn)?;
        Ok::<_, StoreError>(count)
    });
    let count = written.await.map(Committed::into_inner)?;
    if count == AN_HOUR_MAX + 1 {
        tracing::warn!(
            person = name,
            "much mail that goes on, forwarded or by a gateway, fails: its reports are left out for the rest of the hour, \
             the messages are in the mailbox"
        );
    }
    Ok(())
}

/// Which report of this hour one more is for a person; beyond the last one the number stays at two more.
fn counted(txn: &mut Txn<'_>, person: &Id, now: u64) -> Result<u32, StoreError> {
    let hour = u64::try_from(HOUR.as_millis()).unwrap_or(u64::MAX);
    let row = txn.get::<ToldInstead>(TOLD_INSTEAD, person)?;
    let row = row.filter(|row| (row.since..row.since.saturating_add(hour)).contains(&now));
    let row = row.unwrap_or(ToldInstead { since: now, count: 0 });
    let count = row.count.saturating_add(1).min(AN_HOUR_MAX + 2);
    txn.put(TOLD_INSTEAD, person, &ToldInstead { count, ..row })?;
    Ok(count)
}

/// What a person here is told of a failure. Where others forward to that they forward to is not theirs to know.
fn described_to(person: &Person, row: &Recipient, wish: TlsWish) -> Option<DsnRecipient> {
    let is_known = row.forwarder.is_none() || person.forward.contains(&row.address);
    let (via, forwarder) = match is_known {
        true => (None, None),
        false => (row.forwarder.clone(), row.forwarder.clone()),
    };
    described(&Recipient { via, forwarder, ..row.clone() }, wish, Action::Failed, None)
}
