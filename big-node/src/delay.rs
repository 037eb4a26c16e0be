//! Telling an author inside which recipients still wait, once for each message (RFC 3464, action *delayed*).
//!
//! The note that an author may have to be told is one commit with the queueing of the message; the notice and the
//! note's removal are another. So it is told once, whatever happens between them, and a big that went back tells again
//! only what it has forgotten to have told. Where the topology wants no notices, the note goes when nobody waits any more,
//! or attempts end.

use std::sync::Arc;
use std::time::Duration;

use shared::age;
use shared::id::{MessageId, unix_millis};
use shared::mime::Action;
use shared::store::{Rows, Snapshot, Store, StoreError, Txn};
use shared::topology::Topology;
use shared::trace;

use crate::error::Refused;
use crate::mail::{self, Site};
use crate::record::{DELAYS, MESSAGES, Message, Named, RECIPIENTS, Recipient};
use crate::report::{self, ORIGINAL_BYTES_MAX};

/// Messages that are looked at in one round.
const AT_ONCE: usize = 1_000;
/// Notices that are written in one round.
const NOTICES_AT_ONCE: usize = 100;

/// Notes that a message is queued for somebody: its author will have to be told if that takes long. A null reverse-path
/// is told nothing (RFC 5321 §4.5.5), and strangers are told of failures only.
pub fn note(txn: &mut Txn<'_>, id: MessageId, message: &Message) -> Result<(), StoreError> {
    if message.origin.reverse_path.is_none() || mail::author_of(txn, message)?.is_none() {
        return Ok(());
    }
    let since = age::lived(txn)?;
    txn.put(DELAYS, &[since.to_be_bytes().as_slice(), &id.0].concat(), &Named(id.0))
}

/// Tells the authors of messages for which somebody has waited too long.
pub async fn tell_due(store: &Store, site: &Arc<Site>, topology: &Topology) -> Result<(), Refused> {
    let outbound = &topology.edge.outbound;
    let snapshot = store.read()?;
    let lived = age::lived(&snapshot)?;
    // Where nobody is told, a note is kept as long as it may have to be, should the topology come to say another thing.
    let is_told = outbound.delay_notice.is_some();
    let is_over =
        |key: &[u8]| !is_told && lived.saturating_sub(queued_at(key, lived)) >= millis(outbound.expire);
    let after = outbound.delay_notice.unwrap_or_default();
    let Some(before) = lived.checked_sub(millis(after)) else { return Ok(()) };
    let end = before.saturating_add(1).to_be_bytes();
    let (mut waiting, mut over) = (Vec::new(), Vec::new());
    for (key, Named(id)) in snapshot.range::<Named>(DELAYS, &[], Some(&end), AT_ONCE)? {
        match is_over(&key) || waits(&snapshot, MessageId(id))?.is_empty() {
            true => over.push(key),
            false if is_told => waiting.push((key, MessageId(id))),
            false => {}
        }
    }
    drop(snapshot);
    if !over.is_empty() {
        let forget =
            move |txn: &mut Txn<'_>| over.iter().try_for_each(|key| txn.delete(DELAYS, key).map(drop));
        store.commit(forget).await.map_err(|error: StoreError| Refused::from(error))?;
    }
    for (key, id) in waiting.into_iter().take(NOTICES_AT_ONCE) {
        // One that cannot be written does not keep the others waiting.
        if let Err(error) = tell_one(store, site, topology, key, id).await {
            tracing::warn!(message = %id, %error, "a notice of a delay could not be written yet");
        }
    }
    Ok(())
}

/// The recipients who are still to get a message, and whose delay is told. Where colleagues forward to is not the author's
/// to know.
fn waits(rows: &Snapshot, id: MessageId) -> Result<Vec<Recipient>, StoreError> {
    let rows = rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?;
    let wants = |row: &Recipient| row.notify.is_none_or(|notify| notify.delay);
    let waits = |row: &Recipient| row.state.waits() && row.forwarder.is_none() && wants(row);
    Ok(rows.into_iter().map(|(_, row)| row).filter(waits).collect())
}

async fn tell_one(
    store: &Store,
    site: &Arc<Site>,
    topology: &Topology,
    key: Vec<u8>,
    id: MessageId,
) -> Result<(), Refused> {
    let (snapshot, now) = (store.read()?, unix_millis());
    let message = snapshot.get::<Message>(MESSAGES, &id.0)?;
    let author =
        message.as_ref().map(|message| mail::author_address(&snapshot, message)).transpose()?.flatten();
    let notice = match (message, author) {
        (Some(message), Some(author)) => {
            let until = retry_until(age::lived(&snapshot)?, &key, topology.edge.outbound.expire);
            let described = waits(&snapshot, id)?.into_iter().filter_map(|row| {
                // How long a gateway is tried is not the topology's to say.
                let until = row.gateway.is_none().then_some(until);
                report::described(&row, message.origin.tls_wish, Action::Delayed, until)
            });
            let original = store.body(message.body());
            // Without the original its header is missing; the delay is told all the same.
            let original = original.and_then(|reader| mail::content(reader, &message, ORIGINAL_BYTES_MAX));
            let (node, original) = ((store, &**site, topology), original.unwrap_or_default());
            let recipients: Vec<_> = described.collect();
            tokio::task::block_in_place(|| {
                let is_told = !recipients.is_empty();
                is_told
                    .then(|| report::compose(node, &message, &author, recipients, original, now))
                    .transpose()
            })?
        }
        _ => None,
    };
    let site = Arc::clone(site);
    let told = store.commit(move |txn| {
        txn.delete(DELAYS, &key)?;
        match notice {
            Some(notice) => {
                trace::note(txn, id, unix_millis(), "its author is told that it still waits")?;
                mail::receive(txn, &site, notice, &[], unix_millis())
            }
            None => Ok(()),
        }
    });
    told.await.map(drop)
}

/// Until when attempts go on, in seconds since 1970, by how long big has lived and what `key` says of the beginning.
fn retry_until(lived: u64, key: &[u8], expire: Duration) -> i64 {
    let left = millis(expire).saturating_sub(lived.saturating_sub(queued_at(key, lived)));
    report::seconds(unix_millis().saturating_add(left))
}

/// How long big had lived when what `key` notes was queued; it has `lived` by now. Both in milliseconds.
fn queued_at(key: &[u8], lived: u64) -> u64 {
    key.first_chunk().map_or(lived, |since| u64::from_be_bytes(*since))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
