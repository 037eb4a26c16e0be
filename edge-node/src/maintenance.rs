//! What the edge sees to by itself: deferred units, windows that have run out, old traces, space.

use std::sync::Arc;
use std::time::Duration;

use link_proto::unit::Lane;
use shared::age::{self, Pulse};
use shared::id::{MessageId, monotonic, unix_millis};
use shared::lane::{self, NodeIdentity, QueuedBody, QueuedUnit};
use shared::store::{
    BodyKey, Disk, Lost, NotRestored, Owner, Rebuilt, Recovered, Store, StoreError, Txn,
    rebuild as rebuild_store,
};
use shared::trace;
use shared::unit::{Outbound, ToBig, ToEdge, decode};

use crate::lockout::{Guessing, Lockout};
use crate::node::Node;
use crate::queue;
use crate::record::{Doubt, INBOUND_KIND, OUTBOUND_KIND, QueueRecipient, QueueRow, recipients_of};
use crate::revise::Waiting;
use crate::revise::busy::Busy;
use crate::revise::latest;
use crate::{correspondents, directory, facts, greylist, revise, vouch, windows};

const ROUND: Duration = Duration::from_secs(1);
/// Rounds between two looks at space and old traces.
const SLOW_ROUNDS: u64 = 60;
/// How long the end of a window is remembered, and that a message has gone from it.
const ENDED_MILLIS: u64 = 30 * 24 * 3_600_000;
/// How long a parked unit waits for what it follows, in milliseconds that this node lives.
const PARKED_MILLIS: u64 = 30 * 24 * 3_600_000;
/// Unit ids that are looked at in one slow round.
const IDS_AT_ONCE: usize = 50_000;
const INTER_LANE: u8 = 2;
const BATCH_LANE: u8 = 3;
const INLINE_BYTES_MAX: u64 = 64 * 1024;

/// Runs for ever.
pub async fn run(node: Arc<Node>) {
    let (mut pulse, mut cursors) = (Pulse::begin(), Cursors::default());
    for round in 0_u64.. {
        tokio::time::sleep(ROUND).await;
        // Logins stop by the clock in any case, whatever becomes of the keys.
        node.windows_changed();
        if let Err(error) = node.end_overdue().await {
            tracing::warn!(%error, "travel windows could not be ended; it is tried again");
        }
        if let Err(error) = tell_guesses(&node).await {
            tracing::warn!(%error, "big could not be told that passwords are being guessed");
        }
        if let Err(error) = trim(&node).await {
            tracing::warn!(%error, "the safety store could not be trimmed");
        }
        if let Err(error) = offer_deferred(&node).await {
            tracing::warn!(%error, "deferred units could not be queued again");
        }
        if let Err(error) = sweep(&node.store).await {
            tracing::warn!(%error, "a directory that was told anew leaves the old one behind");
        }
        if round % SLOW_ROUNDS == 0 {
            match clean(&node, &mut pulse, cursors.clone()).await {
                Ok(next) => cursors = next,
                Err(error) => tracing::warn!(%error, "space could not be given back"),
            }
        }
    }
}

/// Where slow rounds go on, among rows of which each looks at some.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursors {
    ids: Vec<u8>,
    texts: Vec<u8>,
    copies: Vec<u8>,
    unanswered: Vec<u8>,
}

/// Trims the safety store.
pub(crate) async fn trim(node: &Node) -> Result<(), StoreError> {
    let (link, rows) = (&node.topology.link, node.store.read()?);
    let before = age::lived(&rows)?.saturating_sub(millis(link.safety()));
    let octets = lane::safety_octets(&rows, link.safety_bytes, node.pressure.lacks_room())?;
    drop(rows);
    lane::trim_all(&node.store, before, octets).await
}

/// A slow round: what is old is forgotten, and space given back. Returns where to go on the next time.
pub(crate) async fn clean(
    node: &Node,
    pulse: &mut Pulse,
    mut cursors: Cursors,
) -> Result<Cursors, StoreError> {
    pulse.beat(&node.store).await?;
    if age::is_clock_believed(&node.store.read()?)? {
        trace::forget_old(&node.store).await?;
        forget_ended(&node.store).await?;
        cursors.copies = forget_copies(&node.store, cursors.copies).await?;
        node.store.commit(|txn| correspondents::forget_old(txn, unix_millis())).await?;
        let greylist = node.topology.edge.greylist;
        let forgotten =
            node.store.commit(move |txn| greylist::forget_old(txn, greylist.as_ref(), unix_millis()));
        forgotten.await?;
        node.store.commit(|txn| revise::forget_early(txn, unix_millis())).await?;
    }
    let covering = node.covering.lock().await;
    node.destroy_covers()?;
    drop(covering);
    let ids = forget_units(node, cursors.ids).await?;
    let texts = forget_texts(node, cursors.texts).await?;
    let unanswered = forget_unanswered(&node.store, cursors.unanswered).await?;
    while node.store.compact().await? {}
    Ok(Cursors { ids, texts, unanswered, ..cursors })
}

/// How long ids of units are remembered, in milliseconds that this node lives.
fn ids_kept(node: &Node) -> u64 {
    millis(lane::ids_kept(node.topology.link.safety(), node.topology.edge.outbound.expire))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Compares the directory whenever big says that it has told everything, for ever.
pub async fn compare(node: Arc<Node>) {
    loop {
        node.comparison_due.notified().await;
        let Some(heard) = node.take_marked() else { continue };
        if let Err(error) = directory::compare(&node, heard).await {
            tracing::warn!(%error, "the directory could not be compared; it is tried again in a minute");
        }
    }
}

/// Removes rows of a directory in whose place there is another one, some in each round.
async fn sweep(store: &Store) -> Result<(), StoreError> {
    if !directory::is_swept(&store.read()?)? {
        store.commit(directory::sweep).await?;
    }
    Ok(())
}

/// Tells big that travellers' passwords are being guessed, if they are. Returns what it is told.
pub(crate) async fn tell_guesses(node: &Node) -> Result<Option<Guessing>, StoreError> {
    let Some(guessing) = node.with_lockout(|lockout| lockout.tell(monotonic())) else { return Ok(None) };
    let Guessing { networks, accounts } = guessing;
    let told = node.store.commit(move |txn| facts::tell(txn, &ToBig::Guessing { networks, accounts })).await;
    told.inspect_err(|_| node.with_lockout(Lockout::not_told))?;
    node.queued(Lane::Event.index());
    Ok(Some(guessing))
}

async fn offer_deferred(node: &Node) -> Result<(), StoreError> {
    let now = unix_millis();
    if lane::is_due(&node.store.read()?, now)? {
        node.store.commit(move |txn| lane::queue_due(txn, now)).await?;
        (0..4).for_each(|lane| node.queued(lane));
    }
    Ok(())
}

/// Goes on forgetting unit ids at `cursor`; returns where to go on the next time.
async fn forget_units(node: &Node, cursor: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let kept = ids_kept(node);
    let forgotten = node.store.commit(move |txn| {
        let lived = age::lived(txn)?;
        lane::bury_overdue(txn, lived.saturating_sub(PARKED_MILLIS), unix_millis())?;
        lane::forget_ids(txn, &cursor, IDS_AT_ONCE, lived.saturating_sub(kept))
    });
    Ok(forgotten.await?.into_inner().unwrap_or_default())
}

/// The same for the latest texts of recipients.
async fn forget_texts(node: &Node, cursor: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let kept = ids_kept(node);
    let forgotten = node.store.commit(move |txn| {
        let before = age::lived(txn)?.saturating_sub(kept);
        latest::forget(txn, &cursor, IDS_AT_ONCE, before)
    });
    Ok(forgotten.await?.into_inner().unwrap_or_default())
}

/// The same for messages without a 250.
async fn forget_unanswered(store: &Store, cursor: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let forgotten = store.commit(move |txn| vouch::forget(txn, &cursor, IDS_AT_ONCE));
    Ok(forgotten.await?.into_inner().unwrap_or_default())
}

/// The same for what became of copies in windows.
async fn forget_copies(store: &Store, cursor: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let before = unix_millis().saturating_sub(ENDED_MILLIS);
    let forgotten = store.commit(move |txn| windows::forget_latest(txn, &cursor, IDS_AT_ONCE, before));
    Ok(forgotten.await?.into_inner().unwrap_or_default())
}

async fn forget_ended(store: &Store) -> Result<(), StoreError> {
    let before = unix_millis().saturating_sub(ENDED_MILLIS);
    store.commit(move |txn| windows::forget(txn, before)).await.map(drop)
}

/// After a restore: what waits for delivery may have been delivered since the backup. A revision that an attempt of then
/// has left noted is decided, for big does not send it again.
pub fn hold_back(txn: &mut Txn<'_>, busy: &Busy, now: u64) -> Result<(), StoreError> {
    for_each_message(txn, |txn, id| {
        let mut waiting = Waiting::load(txn, id)?;
        // That a later text was to take its place stays true.
        let is_revised = |recipient: &&mut QueueRecipient| matches!(recipient.doubt, Some(Doubt::Revised(_)));
        let held_back = waiting.recipients().filter(|recipient| !is_revised(recipient));
        held_back.for_each(|recipient| recipient.doubt_it(Doubt::Restored));
        let decided = waiting.settle_left(&busy.attempted(id));
        waiting.store(txn)?;
        revise::tell(txn, id, decided, now)
    })
}

/// Does something to each message that waits for delivery.
pub fn for_each_message(
    txn: &mut Txn<'_>,
    mut see_to: impl FnMut(&mut Txn<'_>, MessageId) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut cursor = Some(Vec::new());
    while let Some(from) = cursor.take() {
        let (messages, next) = queue::messages(txn, &from, None)?;
        messages.into_iter().try_for_each(|id| see_to(txn, id))?;
        cursor = next;
    }
    Ok(())
}

/// Makes the index anew: what came in is offered to big again, which knows what it holds already;
/// what was to go out is held for the operator, because it may have left.
pub fn rebuild(disk: Arc<dyn Disk>, owner: Owner) -> Result<(Store, Rebuilt), StoreError> {
    rebuild_store(disk, owner, restore, name, |store| {
        // Another log name than before: the partner must not take this for the store it knew.
        store.commit_blocking(|txn| {
            lane::set_identity(txn, NodeIdentity::new())?;
            lane::restored(txn, unix_millis())?;
            revise::apply_found(txn, unix_millis())
        })?;
        Ok(())
    })
}

/// What a body is that a rebuild could not keep.
fn name(lost: &Lost) -> String {
    let sent = lost.end.as_ref().and_then(|(_, notes)| match decode::<ToEdge>(notes)? {
        ToEdge::Outbound(outbound) => Some(outbound.message),
        ToEdge::Revise(revise) => Some(revise.message),
        _ => None,
    });
    match (&lost.end, sent) {
        (Some((INBOUND_KIND, _)), _) => {
            let id = lost.key.0.first_chunk().copied().unwrap_or_default();
            format!("message {}, taken in for big", MessageId(id))
        }
        (_, Some(id)) => format!("message {}, from inside", MessageId(id)),
        _ => format!("a body ({:02x?})", &lost.key.0[..8]),
    }
}

fn restore(txn: &mut Txn<'_>, found: &Recovered) -> Result<(), NotRestored> {
    match (found.kind, decode::<ToBig>(&found.notes), decode::<ToEdge>(&found.notes)) {
        (INBOUND_KIND, Some(ToBig::Inbound(inbound)), _) => {
            let key = found.key.0;
            let (lane, body) = match txn.body_length(found.key)? {
                Some(0..=INLINE_BYTES_MAX) => (INTER_LANE, QueuedBody::Inline { key }),
                _ => (BATCH_LANE, QueuedBody::Ahead { key }),
            };
            let head = found.notes.clone();
            lane::queue(txn, &QueuedUnit { id: inbound.message, lane, after: None, head, body })?;
        }
        (OUTBOUND_KIND, _, Some(ToEdge::Outbound(outbound))) => hold(txn, outbound, found.key)?,
        (OUTBOUND_KIND, _, Some(ToEdge::Revise(unit))) => {
            revise::found(txn, unit, found.key)?;
        }
        // A copy for a window: big sends what a window lacks. A large body has no notes: big tells its unit anew.
        (OUTBOUND_KIND, _, Some(_)) => txn.release_body(found.key)?,
        (OUTBOUND_KIND, ..) if found.notes.is_empty() => txn.release_body(found.key)?,
        _ => return Err(NotRestored::Unreadable),
    }
    Ok(())
}

fn hold(txn: &mut Txn<'_>, mut outbound: Outbound, body: BodyKey) -> Result<(), StoreError> {
    let now = unix_millis();
    let found = |mut recipient: QueueRecipient| {
        recipient.text = "found again by a rebuild; it may have left already".into();
        recipient.doubt_it(Doubt::Rebuilt);
        recipient
    };
    let (id, revision) = (MessageId(outbound.message), outbound.revision);
    let mut waiting = Waiting::load(txn, id)?;
    // Of what is found of a recipient, the latest text is what it is to get.
    let mut recipients: Vec<_> = recipients_of(&mut outbound, now).map(found).collect();
    recipients.retain(|recipient| waiting.revision_of(recipient.index).is_none_or(|found| found < revision));
    for recipient in &recipients {
        latest::remember(txn, id, recipient.index, revision)?;
        if let Some(found) = waiting.revision_of(recipient.index) {
            waiting.shift(recipient.index, found, None);
        }
    }
    let row = QueueRow::of(outbound, body, now, age::lived(txn)?);
    if !waiting.add(row) {
        txn.release_body(body)?;
    }
    if let Some(row) = waiting.row(revision) {
        row.recipients.append(&mut recipients);
    }
    waiting.store(txn)
}

#[cfg(test)]
mod tests {
    use shared::store::sim::{Faults, SimDisk};

    use super::*;
    use crate::queue::sample;

    /// Bodies that nothing holds any more are found again, too: of one recipient in several texts, in any order.
    #[test]
    fn of_what_a_rebuild_finds_each_recipient_is_to_get_the_latest_once() {
        let orders: [&[(u32, &[u32])]; 3] = [
            &[(0, &[0, 1]), (1, &[0]), (1, &[0, 1])],
            &[(1, &[0]), (0, &[0, 1]), (1, &[1])],
            &[(1, &[0, 1]), (0, &[0, 1])],
        ];
        for found in orders {
            let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
            let id = MessageId([3; 16]);
            for (place, (revision, recipients)) in found.iter().enumerate() {
                let key = BodyKey([u8::try_from(place).expect("few"); 32]);
                let recipients = recipients.iter().map(|index| (*index, format!("r{index}@remote.example")));
                let outbound = Outbound {
                    reverse_path: None,
                    ..sample::outbound(id.0, *revision, recipients.collect())
                };
                let mut writer = store.body_writer(key, OUTBOUND_KIND);
                let stored =
                    writer.write(b"sealed").and_then(|()| writer.finish(Vec::new())).expect("writes");
                let held = store.commit_blocking(move |txn| {
                    txn.keep_body(&stored)?;
                    hold(txn, outbound, key)
                });
                held.expect("commits");
            }
            let rows = store.read().expect("reads");
            let waiting = Waiting::load(&rows, id).expect("reads");
            let seen = waiting.rows().iter().map(|row| {
                let mut indexes: Vec<_> = row.recipients.iter().map(|recipient| recipient.index).collect();
                indexes.sort_unstable();
                (row.revision, indexes)
            });
            assert_eq!(seen.collect::<Vec<_>>(), [(1, vec![0, 1])], "{found:?}");
            let kept = (0..3).filter(|place| store.body(BodyKey([*place; 32])).is_ok()).count();
            assert_eq!(kept, 1, "{found:?}");
        }
    }
}
