//! redb on a [`Disk`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, StorageBackend};

use super::StoreError;
use super::disk::{Disk, File};
use super::overlay::Overlay;
use crate::fault::{SeededFault, seeded};

/// The index's file name.
pub(super) const NAME: &str = "index.redb";
const UNFINISHED: &str = "index.redb.unfinished";
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// An index up to this size is checked page by page at every start; a larger one by `verify`.
const CHECKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

#[derive(Debug)]
struct Backend {
    file: Arc<dyn File>,
    sync_failed: Arc<AtomicBool>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut synced = self.file.sync();
        if synced.is_err() && seeded(SeededFault::SyncRetried) {
            synced = self.file.sync();
        }
        synced.inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
}

/// An open index.
#[derive(Debug)]
pub(super) struct Index {
    pub database: Database,
    /// Set once a sync of the index has failed: what it covered may be gone for good.
    pub sync_failed: Arc<AtomicBool>,
}

/// Opens the index. A new one is made only where there are no bodies yet: an index that vanished
/// must not be replaced by an empty one in silence.
pub(super) fn open(disk: &dyn Disk, bodies_exist: bool) -> Result<Index, StoreError> {
    let exists = disk.list()?.iter().any(|name| name == NAME);
    if !exists && bodies_exist {
        return Err(StoreError::IndexMissing);
    }
    // A new index gets its name only once it is whole: a crash while it is made leaves none.
    let file = if exists { disk.open(NAME)? } else { disk.create(UNFINISHED)? };
    if exists && file.len()? <= CHECKED_BYTES_MAX {
        check_file(Arc::clone(&file))?;
    }
    let sync_failed = Arc::new(AtomicBool::new(false));
    let backend = Backend { file, sync_failed: Arc::clone(&sync_failed) };
    let database =
        redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(from_redb)?;
    if !exists {
        disk.rename(UNFINISHED, NAME)?;
        disk.sync_names()?;
    }
    Ok(Index { database, sync_failed })
}

fn over(file: Arc<dyn File>) -> Result<Database, StoreError> {
    let overlay = Overlay::new(file)?;
    redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(overlay).map_err(from_redb)
}

/// Checks every page of the index against the checksum that its parent holds. A row's own hash cannot
/// tell a page that the disk kept from an earlier commit, and nothing else tells a page that is gone.
pub(super) fn check(disk: &dyn Disk) -> Result<(), StoreError> {
    check_file(disk.open(NAME)?)
}

/// On an overlay, for redb repairs what it finds, if need be by going back to an older commit: that is
/// not ours to do with what was confirmed.
fn check_file(file: Arc<dyn File>) -> Result<(), StoreError> {
    if over(file)?.check_integrity().map_err(from_redb)? {
        Ok(())
    } else {
        Err(StoreError::Damaged("the index".into()))
    }
}

/// Moves a damaged index aside, where a person can look at it.
pub(super) fn set_aside(disk: &dyn Disk) -> Result<(), StoreError> {
    let names = disk.list()?;
    if names.iter().any(|name| name == NAME) {
        let aside = (1..).map(|n| format!("{NAME}.aside-{n}")).find(|name| !names.contains(name));
        disk.rename(NAME, &aside.expect("a number that no file has"))?;
        disk.sync_names()?;
    }
    Ok(())
}

pub(super) fn from_redb(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        redb::Error::Corrupted(what) => StoreError::Damaged(format!("the index ({what})")),
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
        other => StoreError::Io(other.to_string()),
    }
}
