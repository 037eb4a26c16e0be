//! redb on a [`Disk`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, StorageBackend};

use super::StoreError;
use super::backup::copy_file;
use super::disk::{Disk, File};
use super::overlay::Overlay;
use super::txn::Snapshot;
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
/// must not be replaced by an empty one in silence. What `accept` refuses is not opened, and not changed.
pub(super) fn open(
    disk: &dyn Disk,
    bodies_exist: bool,
    accept: impl FnOnce(&Snapshot) -> Result<(), StoreError>,
) -> Result<Index, StoreError> {
    let exists = disk.list()?.iter().any(|name| name == NAME);
    if !exists && bodies_exist {
        return Err(StoreError::IndexMissing);
    }
    if !exists {
        let index = create(disk)?;
        finish(disk)?;
        return Ok(index);
    }
    let file = disk.open(NAME)?;
    look_at(&file, accept).map_err(|error| match error {
        StoreError::Damaged(what) => StoreError::IndexDamaged(what),
        other => other,
    })?;
    on(file)
}

/// Makes an index that does not count yet: it gets its name by [`finish`], once it is whole. A crash before that leaves
/// none, and segments without an index are refused.
pub(super) fn create(disk: &dyn Disk) -> Result<Index, StoreError> {
    on(disk.create(UNFINISHED)?)
}

/// Copies the index of a store that nobody has open.
pub(super) fn take(from: &dyn Disk, into: &dyn Disk) -> Result<(), StoreError> {
    copy_file((from, NAME), (into, UNFINISHED))?;
    finish(into)
}

/// The index that was made counts from now on.
pub(super) fn finish(disk: &dyn Disk) -> Result<(), StoreError> {
    disk.rename(UNFINISHED, NAME)?;
    Ok(disk.sync_names()?)
}

fn on(file: Arc<dyn File>) -> Result<Index, StoreError> {
    let sync_failed = Arc::new(AtomicBool::new(false));
    let backend = Backend { file, sync_failed: Arc::clone(&sync_failed) };
    let database =
        redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(from_redb)?;
    Ok(Index { database, sync_failed })
}

/// Looks at an index before it is opened.
fn look_at(
    file: &Arc<dyn File>,
    accept: impl FnOnce(&Snapshot) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut database = over(Arc::clone(file))?;
    accept(&Snapshot::of(&database)?)?;
    if file.len()? > CHECKED_BYTES_MAX || database.check_integrity().map_err(from_redb)? {
        Ok(())
    } else {
        Err(StoreError::Damaged("pages of it are not what was written".into()))
    }
}

/// Whether an index that is about to be set aside is another node's or of a newer version, as far as it can be read.
pub(super) fn is_ours(
    disk: &dyn Disk,
    accept: impl FnOnce(&Snapshot) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if !disk.list()?.iter().any(|name| name == NAME) {
        return Ok(());
    }
    match over(disk.open(NAME)?).and_then(|database| accept(&Snapshot::of(&database)?)) {
        Err(error @ (StoreError::Foreign(_) | StoreError::Newer(_))) => Err(error),
        // What cannot be read of it is why it is made anew.
        _ => Ok(()),
    }
}

/// On an overlay, for redb repairs what it finds, if need be by going back to an older commit: that is
/// not ours to do with what was confirmed.
fn over(file: Arc<dyn File>) -> Result<Database, StoreError> {
    // redb takes an empty file for a database that is to be made. Ours has its name only once it is whole.
    if file.is_empty()? {
        return Err(StoreError::Damaged("it is empty".into()));
    }
    let overlay = Overlay::new(file)?;
    let opened = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(overlay);
    opened.map_err(|error| match error.into() {
        redb::Error::Io(error) if is_of_content(&error) => StoreError::Damaged(error.to_string()),
        redb::Error::Corrupted(what) => StoreError::Damaged(what),
        redb::Error::UpgradeRequired(version) => StoreError::Newer(format!("index of format {version}")),
        error => from_redb(error),
    })
}

/// Whether an error says what is in a file, or is missing from it, rather than what the disk does.
fn is_of_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Checks every page of the index against the checksum that its parent holds. A row's own hash cannot
/// tell a page that the disk kept from an earlier commit, and nothing else tells a page that is gone.
pub(super) fn check(disk: &dyn Disk) -> Result<(), StoreError> {
    if over(disk.open(NAME)?)?.check_integrity().map_err(from_redb)? {
        Ok(())
    } else {
        Err(StoreError::Damaged("the index".into()))
    }
}

/// A name under which the file `name` can lie that does not count any more.
pub(super) fn aside_name(disk: &dyn Disk, name: &str) -> Result<String, StoreError> {
    let names = disk.list()?;
    let aside = (1..).map(|n| format!("{name}.aside-{n}")).find(|aside| !names.contains(aside));
    Ok(aside.expect("a number that no file has"))
}

/// Moves a damaged index aside, where a person can look at it.
pub(super) fn set_aside(disk: &dyn Disk) -> Result<(), StoreError> {
    let names = disk.list()?;
    if names.iter().any(|name| name == NAME) {
        disk.rename(NAME, &aside_name(disk, NAME)?)?;
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
