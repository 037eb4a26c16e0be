//! What big sees to by itself: reports that are owed, windows that have run out, deferred units, old
//! traces, space.

use std::sync::Arc;
use std::time::Duration;

use shared::age::{self, Pulse};
use shared::id::{MessageId, unix_millis};
use shared::lane::{self, NodeIdentity};
use shared::moment::{Moment, Trust};
use shared::origin::Origin;
use shared::store::{
    Disk, Lost, NotRestored, Owner, Rebuilt, Recovered, Row, Rows, Store, StoreError, Txn,
    rebuild as rebuild_store,
};
use shared::topology::Topology;
use shared::trace;

use crate::directory::{Policy, RECORD_KIND};
use crate::error::Refused;
use crate::inbound::{BODY_KIND, PARSED_BYTES_MAX};
use crate::link::STAGED_KIND;
use crate::node::Node;
use crate::part::break_apart;
use crate::record::{
    Entry, Folder, MAILBOXES, MESSAGES, Message, Record, Revision, folder_prefix, message_of,
};
use crate::{aggregate, compare, conversation, delay, directory, mail, report, revise, travel};

/// Looks around at least this often.
const ROUND: Duration = Duration::from_secs(1);
/// Between two looks at space and old traces.
const SLOW_ROUND: Duration = Duration::from_secs(60);
/// Unit ids that are looked at in one slow round.
const IDS_AT_ONCE: usize = 50_000;
/// Subjects that are looked at in one slow round.
const SUBJECTS_AT_ONCE: usize = 10_000;
/// Copies of travel windows long over that are forgotten in one slow round.
const COPIES_AT_ONCE: usize = 10_000;
/// How long a parked unit waits for what it follows, in milliseconds that this node lives.
const PARKED_MILLIS: u64 = 30 * 24 * 3_600_000;
const FORGOTTEN_AT_ONCE: usize = 1000;
/// How long what was deleted lies in Trash.
const TRASH_MILLIS: u64 = 30 * 24 * 3_600_000;

/// Runs for ever.
pub async fn run(node: Arc<Node>) {
    let mut cleaned_at = tokio::time::Instant::now();
    let (mut pulse, mut cursors, mut looks) = (Pulse::begin(), Cursors::default(), report::Looks::default());
    let mut trust = age::awake(&node.store).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "what is known of this clock could not be read: for an hour it ends no travel window");
        Trust::starting(Moment::now(), Some(Duration::ZERO))
    });
    loop {
        let _ = tokio::time::timeout(ROUND, node.changed.notified()).await;
        if let Err(error) = look_around(&node, trust.believe(Moment::now()), &mut looks).await {
            tracing::warn!(%error, "housekeeping failed; it is tried again");
            tokio::time::sleep(ROUND).await;
        }
        if cleaned_at.elapsed() > SLOW_ROUND {
            cleaned_at = tokio::time::Instant::now();
            match clean(&node.store, &node.topology, &mut pulse, cursors.clone()).await {
                Ok(next) => cursors = next,
                Err(error) => tracing::warn!(%error, "space could not be given back"),
            }
        }
    }
}

/// Sees to what is due. Windows end by a clock that is `believed` only.
async fn look_around(node: &Arc<Node>, believed: bool, looks: &mut report::Looks) -> Result<(), Refused> {
    let now = unix_millis();
    trim(&node.store, &node.topology, node.pressure().lacks_room()).await?;
    let snapshot = node.store.read()?;
    let due = lane::is_due(&snapshot, now)?;
    let overdue = believed && !travel::overdue(&snapshot, now)?.is_empty();
    let reported = compare::is_reported(&snapshot)?;
    drop(snapshot);
    if reported {
        compare::tell(&node.store, now).await?;
    }
    if due || overdue {
        let mended = node.store.commit(move |txn| {
            lane::queue_due(txn, now)?;
            if overdue { travel::end_overdue(txn, now) } else { Ok(()) }
        });
        mended.await.map_err(|error: StoreError| Refused::from(error))?;
    }
    travel::fill::go_on(&node.store, &node.site).await?;
    travel::notice::write_owed(&node.store, &node.site, &node.topology.site.postmaster).await?;
    revise::control::carry_out(&node.store, &node.site, &node.topology.site.postmaster).await?;
    revise::notice::write_owed(&node.store, &node.site).await?;
    // What was applied from the edge may have queued units for it, and mail for gateways; telling costs nothing.
    node.wake_link();
    node.due.notify_one();
    delay::tell_due(&node.store, &node.site, &node.topology).await?;
    report::write_owed(&node.store, &node.site, &node.topology, looks, unix_millis()).await?;
    // Last: nobody inside waits for those.
    aggregate::write_owed(&node.store, &node.site, now).await
}

/// Trims the safety store.
pub(crate) async fn trim(store: &Store, topology: &Topology, lacks_room: bool) -> Result<(), StoreError> {
    let (link, rows) = (&topology.link, store.read()?);
    let before = age::lived(&rows)?.saturating_sub(millis(link.safety()));
    let octets = lane::safety_octets(&rows, link.safety_bytes, lacks_room)?;
    drop(rows);
    lane::trim_all(store, before, octets).await
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Where slow rounds go on, among rows of which each looks at some.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursors {
    /// The ids of units.
    ids: Vec<u8>,
    /// The subjects of what was sent lately.
    subjects: Vec<u8>,
    /// What is recorded of travel windows.
    trips: Vec<u8>,
}

/// A slow round: what is old is forgotten, and space given back. Returns where to go on the next time.
pub(crate) async fn clean(
    store: &Store,
    topology: &Topology,
    pulse: &mut Pulse,
    cursors: Cursors,
) -> Result<Cursors, StoreError> {
    pulse.beat(store).await?;
    let believed = age::is_clock_believed(&store.read()?)?;
    let kept = lane::ids_kept(topology.link.safety(), topology.edge.outbound.expire);
    let forgotten = store.commit(move |txn| {
        let (now, lived) = (unix_millis(), age::lived(txn)?);
        lane::bury_overdue(txn, lived.saturating_sub(PARKED_MILLIS), now)?;
        let ids = lane::forget_ids(txn, &cursors.ids, IDS_AT_ONCE, lived.saturating_sub(millis(kept)))?;
        let (subjects, trips) = match believed {
            true => (
                conversation::forget_old(txn, &cursors.subjects, SUBJECTS_AT_ONCE, now)?,
                travel::forget_ended(txn, &cursors.trips, COPIES_AT_ONCE, now)?,
            ),
            false => (None, None),
        };
        Ok::<_, StoreError>(Cursors {
            ids: ids.unwrap_or_default(),
            subjects: subjects.unwrap_or_default(),
            trips: trips.unwrap_or_default(),
        })
    });
    let cursors = forgotten.await?.into_inner();
    if believed {
        trace::forget_old(store).await?;
        store.commit(|txn| aggregate::forget_old(txn, unix_millis())).await?;
        while store.commit(|txn| empty_trash(txn, unix_millis())).await?.into_inner() == FORGOTTEN_AT_ONCE {}
    }
    while store.compact().await? {}
    Ok(cursors)
}

/// Removes what has lain in Trash for 30 days, some of it at a time. Returns how much that was.
pub(crate) fn empty_trash(txn: &mut Txn<'_>, now: u64) -> Result<usize, StoreError> {
    let before = now.saturating_sub(TRASH_MILLIS);
    let mut emptied = 0;
    for person in directory::list(txn)? {
        let trash = folder_prefix(&person.id, Folder::Trash);
        for (key, entry) in txn.prefix::<Entry>(MAILBOXES, &trash, usize::MAX)? {
            if entry.filed_at < before && emptied < FORGOTTEN_AT_ONCE {
                mail::erase(txn, &person.id, message_of(&key))?;
                emptied += 1;
            }
        }
    }
    Ok(emptied)
}

/// Makes the index anew: the directory first, then every message for the people that its origin leads to. What
/// was marked, moved or deleted since is not in the segments; nothing is sent again.
pub fn rebuild(disk: Arc<dyn Disk>, owner: Owner, policy: Policy) -> Result<(Store, Rebuilt), StoreError> {
    let restore = move |txn: &mut Txn<'_>, found: &Recovered| restore(txn, found, &policy);
    rebuild_store(disk, owner, restore, name, finish)
}

fn finish(store: &Store) -> Result<(), StoreError> {
    // Another log name than before: the partner must not take this for the store it knew. And another generation, for
    // revisions may be lost whose numbers an edge knows.
    store.commit_blocking(|txn| {
        lane::set_identity(txn, NodeIdentity::new())?;
        lane::restored(txn, unix_millis())
    })?;
    follow_again(store)?;
    for (key, _) in store.read()?.prefix::<Entry>(MAILBOXES, &[], usize::MAX)? {
        if revise::has_revisions(&store.read()?, message_of(&key))? {
            store.commit_blocking(move |txn| revise::show_again(txn, &key))?;
        }
    }
    Ok(())
}

/// What a body is that a rebuild could not keep.
fn name(lost: &Lost) -> String {
    let (kind, notes) = lost.end.clone().unwrap_or_default();
    let id = notes.first_chunk().map(|id| MessageId(*id));
    match (kind, id) {
        (RECORD_KIND, _) => "an entry of the directory".into(),
        (BODY_KIND, Some(id)) => format!("message {id}"),
        (revise::REVISION_KIND, Some(id)) => format!("a revision of message {id}"),
        _ => format!("a body ({:02x?})", &lost.key.0[..8]),
    }
}

/// Break-apart maps and conversations are not in the segments; the messages that they follow from are.
fn follow_again(store: &Store) -> Result<(), StoreError> {
    // Ids rise with time: what is answered comes before its answer.
    for (key, mut message) in store.read()?.prefix::<Message>(MESSAGES, &[], usize::MAX)? {
        let content = match message.origin.size {
            ..=PARSED_BYTES_MAX => {
                store.body(message.body()).and_then(|reader| mail::content(reader, &message, usize::MAX)).ok()
            }
            _ => None,
        };
        if let Some(content) = content {
            (message.parts, message.unparsed) = break_apart(Some(&content));
        }
        let is_apart = !message.parts.is_empty() || message.unparsed.is_some();
        if is_apart || conversation::refers(&message.origin) {
            store.commit_blocking(move |txn| {
                conversation::tie_again(txn, message_of(&key), &mut message)?;
                txn.put(MESSAGES, &key, &message)
            })?;
        }
    }
    Ok(())
}

fn restore(txn: &mut Txn<'_>, found: &Recovered, policy: &Policy) -> Result<(), NotRestored> {
    match found.kind {
        RECORD_KIND => {
            let record = Record::decode(&found.notes).ok_or(NotRestored::Unreadable)?;
            let mut gone = directory::restore(txn, &record)?.into_iter();
            gone.try_for_each(|key| txn.release_body(key))?;
        }
        BODY_KIND => {
            let read = |(id, origin): (&[u8; 16], &[u8])| Some((MessageId(*id), Origin::decode(origin)?));
            let read = found.notes.split_first_chunk().and_then(read);
            let (id, origin) = read.ok_or(NotRestored::Unreadable)?;
            mail::restore(txn, id, origin, found.key, policy)?;
        }
        revise::REVISION_KIND => {
            let read = |(id, row): (&[u8; 16], &[u8])| Some((MessageId(*id), Revision::decode(row)?));
            let read = found.notes.split_first_chunk().and_then(read);
            let (id, revision) = read.ok_or(NotRestored::Unreadable)?;
            revise::restore(txn, id, revision)?;
        }
        // A large body that was staged for its unit: the edge has it still.
        STAGED_KIND => txn.release_body(found.key)?,
        _ => return Err(NotRestored::Unreadable),
    }
    Ok(())
}
