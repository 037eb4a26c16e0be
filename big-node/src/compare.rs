//! Keeping the edge's directory the same as big's: saying that everything was told, and telling anew what
//! the edge reports to be different.
//!
//! Once a connection is open, and every minute of it, big queues a *mark* behind what it has told, with one
//! digest of all it should have come to. The edge compares at that point and reports; where it differs, with
//! the digest of each bucket. Buckets in which that is not what is here are told anew as they are now, and
//! another mark after them. A report costs big a bounded amount of work in an hour, whatever the edge says.

use std::sync::Arc;
use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::unix_millis;
use shared::lane::{self, NotApplied};
use shared::projection::{BucketDigest, Digester, Digests};
use shared::report::DirectoryView;
use shared::row;
use shared::store::{Rows, Store, StoreError, Txn};
use shared::unit::{AddressRow, DirectoryCompared, DirectoryMark, ToEdge};

use crate::node::Node;
use crate::projection::{self, SERVICE_LANE};
use crate::record::EDGE;

/// Between two marks.
const EVERY: Duration = Duration::from_secs(60);
/// How often a mark is made anew because something was told meanwhile; then it goes without a digest.
const ATTEMPTS: usize = 3;
const HOUR_MILLIS: u64 = 3_600_000;
/// Reports of a difference that are looked into in an hour: an honest edge has one a minute to make.
pub const REPORTS_PER_HOUR: u32 = 64;
/// Buckets that are told anew in an hour: four times the whole directory.
pub const BUCKETS_PER_HOUR: u32 = 1024;

/// How far comparing is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CompareRow {
    /// The epoch of the last mark, and its number on the lane.
    mark: (u64, u64),
    /// What the edge has reported, until it is dealt with.
    reported: Option<Vec<BucketDigest>>,
    /// Last compared by the edge, milliseconds since 1970; 0 before.
    compared_at: u64,
    /// Comparisons that found a difference.
    differed: u64,
    /// Buckets that were told anew.
    mended: u64,
    /// When this hour of reports began, milliseconds since 1970.
    hour: u64,
    /// Reports in it that were looked into.
    reports: u32,
    /// Buckets in it that were told anew.
    buckets: u32,
    /// Reports in it that were not, or not wholly, answered.
    ignored: u32,
}
row!(CompareRow, 1);

impl CompareRow {
    /// Begins another hour if the last one is over, or the clock was set back.
    fn at(mut self, now: u64) -> Self {
        if now.checked_sub(self.hour).is_none_or(|passed| passed >= HOUR_MILLIS) {
            (self.hour, self.reports, self.buckets, self.ignored) = (now, 0, 0, 0);
        }
        self
    }
}

fn state(rows: &impl Rows) -> Result<CompareRow, StoreError> {
    Ok(rows.get(EDGE, b"compare")?.unwrap_or_default())
}

fn set_state(txn: &mut Txn<'_>, row: &CompareRow) -> Result<(), StoreError> {
    txn.put(EDGE, b"compare", row)
}

/// The edge has compared. Cheap: what it says is looked into later, and one report at a time.
pub fn reported(txn: &mut Txn<'_>, compared: &DirectoryCompared, now: u64) -> Result<(), NotApplied> {
    let mut row = state(txn)?.at(now);
    row.compared_at = now;
    if let Some(differs) = &compared.differs {
        if Digests::reported(differs.clone()).is_none() {
            return Err(NotApplied::Never("not one digest for each bucket of the directory".into()));
        }
        row.differed = row.differed.saturating_add(1);
        if row.reports >= REPORTS_PER_HOUR {
            row.ignored = row.ignored.saturating_add(1);
        } else if row.reported.is_none() {
            row.reports += 1;
            row.reported = Some(differs.clone());
        }
    }
    Ok(set_state(txn, &row)?)
}

/// Whether the edge waits for an answer.
pub fn is_reported(rows: &impl Rows) -> Result<bool, StoreError> {
    Ok(state(rows)?.reported.is_some())
}

/// Queues what mends what the edge has reported, and a mark. Nothing, while no edge is paired, or while it
/// has yet to get the mark before this one.
pub async fn tell(store: &Store, now: u64) -> Result<(), StoreError> {
    for _ in 0..ATTEMPTS {
        let snapshot = store.read()?;
        let Some(edge) = projection::edge(&snapshot)? else { return Ok(()) };
        if is_under_way(&snapshot)? && !is_reported(&snapshot)? {
            return Ok(());
        }
        let lane = lane::state(&snapshot, SERVICE_LANE)?;
        // From a snapshot, so that no commit waits for it: 50,000 rows take a moment. Whatever is told
        // meanwhile has a number on the lane.
        let (rows, here) = tokio::task::block_in_place(|| {
            let rows = projection::rows(&snapshot, &edge)?;
            let mut digester = Digester::default();
            rows.iter().for_each(|row| digester.push(row));
            Ok::<_, StoreError>((rows, digester.finish()))
        })?;
        drop(snapshot);
        let told = store.commit(move |txn| match lane::state(txn, SERVICE_LANE)?.last == lane.last {
            true => say(txn, &rows, &here, now).map(|()| true),
            false => Ok(false),
        });
        let told: Result<_, StoreError> = told.await;
        if told?.into_inner() {
            return Ok(());
        }
    }
    // People are being added by the thousand: without a digest, it says at least that all was told.
    let mark_alone = |txn: &mut Txn<'_>| match is_under_way(txn)? {
        true => Ok(()),
        false => mark(txn, None),
    };
    store.commit(mark_alone).await.map(drop)
}

/// Whether the edge has yet to get the last mark over this connection.
fn is_under_way(rows: &impl Rows) -> Result<bool, StoreError> {
    let (epoch, number) = state(rows)?.mark;
    let confirmed = lane::state(rows, SERVICE_LANE)?.confirmed.number;
    Ok(lane::epoch(rows)?.unwrap_or_default() == epoch && number > confirmed)
}

/// Mends what was reported, and marks. `rows` is the projection, rising, as it is in this commit, and `here`
/// what it comes to.
fn say(txn: &mut Txn<'_>, rows: &[AddressRow], here: &Digests, now: u64) -> Result<(), StoreError> {
    let mut row = state(txn)?.at(now);
    if let Some(theirs) = row.reported.take().and_then(Digests::reported) {
        let differing = here.differing(&theirs);
        tracing::warn!(buckets = differing.len(), "the edge's directory is not this one; it is mended");
        let room = usize::try_from(BUCKETS_PER_HOUR.saturating_sub(row.buckets)).unwrap_or(0);
        row.ignored += u32::from(differing.len() > room);
        for bucket in differing.into_iter().take(room) {
            let from = rows.partition_point(|row| row.hash[0] < bucket);
            let to = rows.partition_point(|row| row.hash[0] <= bucket);
            let mut bounds = [[0; 32], [0xff; 32]];
            bounds.iter_mut().for_each(|bound| bound[0] = bucket);
            projection::tell_rows(txn, &rows[from..to], bounds)?;
            row.buckets += 1;
            row.mended = row.mended.saturating_add(1);
        }
    }
    set_state(txn, &row)?;
    mark(txn, Some(here.root()))
}

fn mark(txn: &mut Txn<'_>, root: Option<[u8; 32]>) -> Result<(), StoreError> {
    let epoch = lane::epoch(txn)?.unwrap_or_default();
    projection::tell_edge(txn, &ToEdge::DirectoryMark(DirectoryMark { epoch, root }))?;
    let mark = (epoch, lane::state(txn, SERVICE_LANE)?.last);
    let row = state(txn)?;
    set_state(txn, &CompareRow { mark, ..row })
}

/// Marks whenever a connection opens, and every minute of it, for ever.
pub async fn run(node: Arc<Node>) {
    let mut status = node.link.status();
    loop {
        // The sender lives as long as the node.
        let _ = status.wait_for(|status| status.connected.is_some()).await;
        match tell(&node.store, unix_millis()).await {
            Ok(()) => node.wake_link(),
            Err(error) => tracing::warn!(%error, "the edge could not be told how the directory is"),
        }
        let closed = status.wait_for(|status| status.connected.is_none());
        let _ = tokio::time::timeout(EVERY, closed).await;
    }
}

/// What is known of the edge's directory, for people.
pub fn view(rows: &impl Rows) -> Result<DirectoryView, StoreError> {
    let CompareRow { compared_at, differed, mended, .. } = state(rows)?;
    Ok(DirectoryView { compared_at: Some(compared_at).filter(|at| *at > 0), differed, mended, unsure: None })
}

/// What an operator has to see to: an edge whose directory differs again and again.
pub fn alarm(rows: &impl Rows, now: u64) -> Result<Option<String>, StoreError> {
    let row = state(rows)?.at(now);
    Ok((row.ignored > 0).then(|| {
        format!(
            "within this hour the edge has reported again and again that its directory differs, {} times beyond what \
             is answered; see `link status` there, and whether the edge is still yours: `edge-node verify`",
            row.ignored
        )
    }))
}
