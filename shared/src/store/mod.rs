//! The store: one redb index for everything that must change together, and append-only segment
//! files for bodies.
//!
//! One writer thread owns the index. Operations queue to it; it takes all that wait, runs them,
//! syncs the segments they name, commits once, and only then wakes their callers (group commit,
//! nobody waits on a timer). So the order on disk is always: body, fdatasync, the commit that names
//! it. A [`Committed`] value exists only after that commit, and every 250, CONFIRMED and exit 0 is
//! built from one.
//!
//! Guarantees: an operation's writes become visible all together or not at all; what was committed
//! survives a power cut at any point, also during recovery; a row or a body that the disk altered
//! is reported, never returned. After a failed sync nothing is written any more until the node is
//! started again: what the kernel dropped cannot be synced by asking twice.
//!
//! Only this module knows redb. Disks come in through [`Disk`], the one seam for faults.

mod backup;
mod body;
mod disk;
mod gauge;
mod index;
mod label;
mod lazy;
mod marker;
mod overlay;
mod segment;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod space;
#[cfg(test)]
mod tests;
mod touched;
mod txn;
mod verify;
mod writer;

use std::sync::Arc;

pub use backup::{Copied, backup, share, take};
pub use body::{BodyKey, BodyReader, BodyUse, BodyWriter, Stored};
pub use disk::{DirectoryDisk, Disk, File};
pub use label::Owner;
pub use segment::SEGMENT_BYTES;
pub use touched::{TOUCHED_KEY_BYTES, Touched, TouchedKey};
pub use txn::{Mark, Row, Rows, Snapshot, Table, Txn, behind};
pub use verify::{LOST_NAMED_MAX, Lost, NotRestored, Rebuilt, Recovered, Verdict, rebuild, verify};

use gauge::Gauge;
use index::Index;
use marker::Marker;
use segment::Segments;
use writer::Writer;

use crate::render::size;

/// Free bytes below which no more mail of strangers is taken in (see [`crate::pressure`]): travellers,
/// and deleting, need room too.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Free bytes below which nothing is taken in at all: deleting needs room too.
const BARRIER_BYTES: u64 = RESERVE_BYTES / 2;

/// Why the store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No room: nothing was written; try again when space has been made.
    #[error("the disk is full; make room on it, nothing was lost")]
    Full,
    /// A copy would take of the room that mail needs: nothing was copied.
    #[error(
        "the copy takes {} there, of {} that are free, and {} have to stay for mail; make room, or put `backups` of the state \
         and its store on one file system that has hard links, so that bodies need not be copied",
        size(*takes),
        size(*free),
        size(RESERVE_BYTES)
    )]
    NoRoomForCopy {
        /// Octets.
        takes: u64,
        /// Octets.
        free: u64,
    },
    /// Read or write failed; the operation did not happen.
    #[error("the disk failed: {0}")]
    Io(String),
    /// A sync failed: the store takes nothing more until it is opened again.
    #[error("the store has stopped after a failed sync ({0}); check the disk, then start the node again")]
    Stopped(String),
    /// Stored bytes are not what was stored.
    #[error("{0} is damaged on disk; run `verify`")]
    Damaged(String),
    /// There are segments and no index.
    #[error("bodies are here but the index, index.redb, is not; run `verify --rebuild` to make it from them")]
    IndexMissing,
    /// The index cannot be opened.
    #[error(
        "index.redb is damaged: {0}; run `verify --rebuild`, which sets it aside and makes it anew from the bodies, \
         or `restore` a backup into an empty state"
    )]
    IndexDamaged(String),
    /// The store belongs elsewhere.
    #[error(
        "this is not the store of this node: {0}; put the node's own store back, or `restore` a backup into an \
         empty state"
    )]
    Foreign(&'static str),
    /// A newer version has written it.
    #[error("a newer version of Sallypost has made this store ({0}); start that version")]
    Newer(String),
    /// A batch of the link does not follow on what is here.
    #[error(
        "a lane of the link does not stand where this session left it; the next session compares it anew"
    )]
    Moved,
    /// Another process has the store open.
    #[error("the store is in use by another process; stop that one first")]
    InUse,
}

/// Proof that a commit is durable, with what the operation returned.
#[derive(Debug)]
pub struct Committed<T>(T);

impl<T> Committed<T> {
    /// What the operation returned.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Committed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// An open store. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    gauge: Arc<Gauge>,
    touched: Arc<Touched>,
    writer: Arc<Writer>,
}

impl Store {
    /// Opens the store on `disk`, recovering what a crash left: the index goes back to its last
    /// commit, segments that it does not name are removed.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        Self::open_with(disk, SEGMENT_BYTES)
    }

    /// As [`Store::open`], with segments of another size.
    pub fn open_with(disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<Self, StoreError> {
        Self::opened(disk, segment_bytes, None)
    }

    /// As [`Store::open`], the store of `owner` only: that of another one, or an index beside segments that it does
    /// not go with, is refused before anything is changed.
    pub fn open_of(disk: Arc<dyn Disk>, owner: Owner) -> Result<Self, StoreError> {
        let store = Self::opened(disk, SEGMENT_BYTES, Some(owner))?;
        label::put(&store, owner)?;
        Ok(store)
    }

    fn opened(disk: Arc<dyn Disk>, segment_bytes: u64, owner: Option<Owner>) -> Result<Self, StoreError> {
        let numbers = segment::list(disk.as_ref())?;
        let marker = marker::known(disk.as_ref())?;
        let index = index::open(disk.as_ref(), !numbers.is_empty(), |rows| match owner {
            Some(owner) => label::check(rows, owner, marker.as_ref()),
            None => Ok(()),
        })?;
        let live = space::live_segments(&Snapshot::of(&index.database)?)?;
        for number in numbers.iter().filter(|number| !live.contains(number)) {
            disk.remove(&segment::name(*number)).map_err(StoreError::from)?;
        }
        let next = numbers.last().map_or(1, |last| last + 1);
        let marker = Marker::open(disk.as_ref(), &live, next)?;
        Self::on(disk, index, next, segment_bytes, marker)
    }

    fn on(
        disk: Arc<dyn Disk>,
        index: Index,
        next: u32,
        segment_bytes: u64,
        marker: Marker,
    ) -> Result<Self, StoreError> {
        let gauge = Arc::new(Gauge::default());
        let segments = Segments::new(Arc::clone(&disk), Arc::clone(&gauge), next, segment_bytes, marker);
        let segments = Arc::new(segments);
        let touched = Arc::new(Touched::default());
        let observers = (Arc::clone(&gauge), Arc::clone(&touched));
        let writer = Writer::start(Arc::clone(&disk), index, Arc::clone(&segments), observers)?;
        Ok(Self { disk, segments, gauge, touched, writer: Arc::new(writer) })
    }

    /// Runs `operation` in the next commit and returns once that is durable. An `Err` from it undoes
    /// what it wrote and leaves the others of that commit alone.
    pub async fn commit<T, E, F>(&self, operation: F) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    {
        self.writer.commit(operation).await
    }

    /// [`Store::commit`] for a thread that may wait.
    pub fn commit_blocking<T, E, F>(&self, operation: F) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    {
        self.writer.commit_blocking(operation)
    }

    /// Runs `operation` with the next commit, soon: for what costs nothing but a repeat if it is lost.
    /// Such operations are run in order. `done` is called when that commit has succeeded or failed. Needs a
    /// tokio runtime.
    pub fn commit_lazily<F, D>(&self, operation: F, done: D) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<(), StoreError> + Send + 'static,
        D: FnOnce() + Send + 'static,
    {
        self.writer.commit_lazily(operation, done)
    }

    /// The same, for what is not said again soon: if its commit fails, it is run again with the next one, which comes within
    /// a second. `done` is called when a commit has succeeded.
    pub fn commit_eventually<F, D>(&self, operation: F, done: D) -> Result<(), StoreError>
    where
        F: Fn(&mut Txn<'_>) -> Result<(), StoreError> + Send + Sync + 'static,
        D: FnOnce() + Send + 'static,
    {
        self.writer.commit_eventually(operation, done)
    }

    /// The last committed state, as it stays while the snapshot is held. Hold it briefly.
    pub fn read(&self) -> Result<Snapshot, StoreError> {
        self.writer.read()
    }

    /// Begins a body. Nothing of it counts until a commit names it.
    pub fn body_writer(&self, key: BodyKey, kind: u8) -> BodyWriter {
        BodyWriter::new(Arc::clone(&self.segments), key, kind)
    }

    /// Reads a body that a commit has named.
    pub fn body(&self, key: BodyKey) -> Result<BodyReader, StoreError> {
        BodyReader::open(self.read()?, Arc::clone(&self.segments), key)
    }

    /// Reads a body that is complete and that no commit has named yet.
    pub fn staged(&self, stored: &Stored) -> BodyReader {
        BodyReader::of(Arc::clone(&self.segments), stored)
    }

    /// What commits have written of the table that is observed.
    pub fn touched(&self) -> &Arc<Touched> {
        &self.touched
    }

    /// The last barrier before a body is written, below the levels of [`crate::pressure`]: the writer
    /// runs, and there is room to go on deleting. What the disk said up to 100 ms ago counts.
    pub fn ready(&self) -> Result<(), StoreError> {
        self.writer.usable()?;
        match self.gauge.free_bytes(self.disk.as_ref())? {
            ..BARRIER_BYTES => Err(StoreError::Full),
            _ => Ok(()),
        }
    }

    /// Free bytes and free inodes, as the disk says now.
    pub fn free(&self) -> Result<(u64, u64), StoreError> {
        Ok((self.disk.free_bytes()?, self.disk.free_inodes()?))
    }

    /// How long a commit takes: smoothed over the last ones, or what the one that runs has taken so far
    /// if that is longer. Halves every 2 s without commits. Takes no lock.
    pub fn commit_latency(&self) -> std::time::Duration {
        self.gauge.commit_latency()
    }

    /// Lets time pass for what commits take.
    #[cfg(test)]
    pub(crate) fn let_pass(&self, time: std::time::Duration) {
        self.gauge.let_pass(time);
    }

    /// Whether a write has found the disk full since this was last asked. Takes no lock.
    pub fn take_found_full(&self) -> bool {
        self.gauge.take_found_full()
    }

    /// Whether a failed sync has stopped the store for good.
    pub fn has_stopped(&self) -> bool {
        self.writer.usable().is_err()
    }

    /// Whether the last commit failed, other than by a sync: until the next one has opened the index anew, what is
    /// here may not even be read.
    pub fn has_failed(&self) -> bool {
        self.writer.has_failed()
    }

    /// Opens the index anew if the last commit failed ([`Store::has_failed`]), as the next commit would. Fails as that
    /// one would, if the disk refuses still.
    pub async fn recover(&self) -> Result<(), StoreError> {
        match self.has_failed() {
            true => self.commit(|_| Ok::<_, StoreError>(())).await.map(drop),
            false => Ok(()),
        }
    }

    /// Bytes of all bodies that are kept, as they lie on the disk.
    pub fn live_bytes(&self) -> Result<u64, StoreError> {
        space::live_bytes(&self.read()?)
    }

    /// Gives back all the space that can be given back, for a disk that runs full. [`Store::compact`]
    /// leaves the segment that grows alone; this does not.
    pub async fn reclaim(&self) -> Result<(), StoreError> {
        space::reclaim(self).await
    }

    /// Moves the live bodies out of the emptiest segment and gives its space back. Returns whether
    /// there was such a segment.
    pub async fn compact(&self) -> Result<bool, StoreError> {
        space::compact(self).await
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error.to_string()),
        }
    }
}
