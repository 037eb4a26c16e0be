//! Where the store's bytes lie: files by name. The one seam for faults.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;

/// A flat directory of files.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Makes a file, empty, and opens it.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file one more name, in a folder of the same file system.
    fn share(&self, _name: &str, _folder: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Removes a file; those who have it open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names of new files durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Room left, in bytes.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Files that can still be made; a disk that does not count them has no end of them.
    fn free_inodes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// One open file.
pub trait File: Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset`, or fails.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or lengthens it.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Returns when everything written is durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system, mode 0700, locked against a second process.
#[derive(Debug)]
pub struct DirectoryDisk {
    path: PathBuf,
    /// The account whose files alone are opened.
    owner: Option<u32>,
    _lock: fs::File,
}

impl DirectoryDisk {
    /// Opens the directory, making it if need be.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = options().create(true).open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.into(), owner: None, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse),
            Err(fs::TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// As it is, but only files of this account are opened: another one's may have been given a name here by somebody who
    /// may not read it.
    pub fn of_account(self, owner: u32) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    // A planted link is not followed: names come from this module, but the directory is shared with
    // whoever could write there before us.
    options.read(true).write(true).mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    options
}

impl Disk for DirectoryDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        let file = options().open(&path)?;
        let owner = file.metadata()?.uid();
        match self.owner.is_none_or(|account| account == owner) {
            true => Ok(Arc::new(file)),
            false => Err(io::Error::other(format!("{} is another account's file", path.display()))),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(options().create(true).truncate(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn share(&self, name: &str, folder: &Path) -> io::Result<()> {
        fs::hard_link(self.path.join(name), folder.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn free_inodes(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.path)?;
        // Some file systems make inodes as they are needed, and say that they have none.
        Ok(if space.f_files == 0 { u64::MAX } else { space.f_favail })
    }
}

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
