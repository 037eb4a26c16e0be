//! A disk in memory that loses power on command: the crash tests' half of [`Disk`].
//!
//! Writes are pending until a sync. A power cut keeps a random part of what was pending, torn at
//! 512-byte sectors and in any order; names of files likewise. [`SimDisk::after_power_cut`] is the disk
//! that the next start finds.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, File};

mod piece;

pub use piece::{Piece, piece_at, scan};

const SECTOR: usize = 512;

/// What is to go wrong, counted from the disk's making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Power is cut during this sync (from 1): it and everything after it fails.
    pub cut_at_sync: Option<u64>,
    /// This write (from 1) and every later one finds the disk full, until [`SimDisk::make_room`].
    pub full_at_write: Option<u64>,
    /// This sync (from 1) fails once, and what it covered is lost although reads still show it.
    pub error_at_sync: Option<u64>,
}

/// A small random number generator (xorshift), so that a seed is a whole run.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as `seed` says.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }
}

#[derive(Clone, Debug)]
enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Default)]
struct Inner {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    faults: Faults,
    syncs: u64,
    writes: u64,
    dead: bool,
    /// Bytes and inodes that it says are free; `None` while nobody has set them.
    free: Option<(u64, u64)>,
}

/// The disk. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>);

impl SimDisk {
    /// An empty disk with the given faults to come.
    pub fn new(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(Inner { faults, ..Inner::default() })))
    }

    /// The disk as the next start finds it, with faults to come from then on.
    pub fn after_power_cut(&self, dice: &mut Dice, faults: Faults) -> Self {
        let old = self.lock();
        let mut names = old.durable_names.clone();
        for (name, file) in &old.names {
            if dice.below(2) == 0 {
                names.insert(name.clone(), *file);
            }
        }
        names.retain(|name, _| old.names.contains_key(name) || dice.below(2) == 0);
        let files = old.files.iter().map(|content| survived(content, dice)).collect();
        let durable_names = names.clone();
        Self(Arc::new(Mutex::new(Inner { files, names, durable_names, faults, ..Inner::default() })))
    }

    /// Has these faults come instead of any others, counted from now.
    pub fn inject(&self, faults: Faults) {
        let mut inner = self.lock();
        let (syncs, writes) = (inner.syncs, inner.writes);
        inner.faults = Faults {
            cut_at_sync: faults.cut_at_sync.map(|at| at + syncs),
            full_at_write: faults.full_at_write.map(|at| at + writes),
            error_at_sync: faults.error_at_sync.map(|at| at + syncs),
        };
    }

    /// Whether the power is cut.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Ends a full disk.
    pub fn make_room(&self) {
        self.lock().faults.full_at_write = None;
    }

    /// From now on every write finds the disk full, until [`SimDisk::make_room`].
    pub fn fill_up(&self) {
        self.lock().faults.full_at_write = Some(0);
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self) {
        let mut inner = self.lock();
        inner.faults.error_at_sync = Some(inner.syncs + 1);
    }

    /// What the disk says of its free bytes and inodes from now on. Until this is called it has no end
    /// of both, and none once a write has found it full.
    pub fn set_free(&self, bytes: u64, inodes: u64) {
        self.lock().free = Some((bytes, inodes));
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> usize {
        let inner = self.lock();
        inner.names.values().map(|file| inner.files[*file].live.len()).sum()
    }

    /// Flips one bit of a file.
    pub fn flip(&self, name: &str, bit: usize) {
        let mut inner = self.lock();
        let file = inner.names[name];
        inner.files[file].live[bit / 8] ^= 1 << (bit % 8);
    }

    /// Bytes in one file.
    pub fn length(&self, name: &str) -> usize {
        let inner = self.lock();
        inner.names.get(name).map_or(0, |file| inner.files[*file].live.len())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn survived(content: &Content, dice: &mut Dice) -> Content {
    let mut bytes = content.durable.clone();
    // From nothing to everything: runs in which all or none survived matter as much as mixed ones.
    let keep_percent = [0, 100, 50, 90, 10][usize::try_from(dice.below(5)).unwrap_or(0)];
    for pending in &content.pending {
        match pending {
            Pending::Length(length) if dice.below(100) < keep_percent => bytes.resize(*length, 0),
            Pending::Length(_) => {}
            Pending::Write { offset, bytes: written } => {
                for (index, sector) in written.chunks(SECTOR).enumerate() {
                    if dice.below(100) < keep_percent {
                        put(&mut bytes, offset + index * SECTOR, sector);
                    }
                }
            }
        }
    }
    Content { live: bytes.clone(), durable: bytes, pending: Vec::new() }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

fn cut() -> io::Error {
    io::Error::other("the power is cut")
}

impl Inner {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(cut()) } else { Ok(()) }
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.alive()?;
        self.syncs += 1;
        if self.faults.cut_at_sync == Some(self.syncs) {
            self.dead = true;
            return Err(cut());
        }
        Ok(())
    }

    fn count_write(&mut self) -> io::Result<()> {
        self.alive()?;
        self.writes += 1;
        match self.faults.full_at_write {
            Some(at) if self.writes >= at => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inner = self.lock();
        inner.alive()?;
        let file = *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut inner = self.lock();
        inner.count_write()?;
        inner.files.push(Content::default());
        let file = inner.files.len() - 1;
        inner.names.insert(name.into(), file);
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.alive()?;
        let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.into(), file);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let inner = self.lock();
        inner.alive()?;
        Ok(inner.names.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.alive()?;
        inner.names.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.count_sync()?;
        inner.durable_names = inner.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.lock();
        let is_full = inner.faults.full_at_write.is_some_and(|at| inner.writes >= at);
        Ok(inner.free.map_or(if is_full { 0 } else { u64::MAX }, |(bytes, _)| bytes))
    }

    fn free_inodes(&self) -> io::Result<u64> {
        Ok(self.lock().free.map_or(u64::MAX, |(_, inodes)| inodes))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let inner = self.disk.lock();
        inner.alive()?;
        Ok(inner.files[self.file].live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.lock();
        inner.alive()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = inner.files[self.file].live.get(start..start + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.count_write()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let content = &mut inner.files[self.file];
        put(&mut content.live, offset, bytes);
        content.pending.push(Pending::Write { offset, bytes: bytes.into() });
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.count_write()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let content = &mut inner.files[self.file];
        content.live.resize(length, 0);
        content.pending.push(Pending::Length(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.count_sync()?;
        let failed = inner.faults.error_at_sync == Some(inner.syncs);
        let content = &mut inner.files[self.file];
        content.pending.clear();
        if failed {
            // As Linux does: the dirty pages are marked clean, and the next sync reports success.
            return Err(io::Error::other("the disk failed to sync"));
        }
        content.durable = content.live.clone();
        Ok(())
    }
}
