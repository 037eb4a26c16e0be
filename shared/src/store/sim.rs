//! A disk in memory that loses power on command: the crash tests' half of [`Disk`].
//!
//! Writes are pending until a sync. A power cut keeps a part of what was pending, as [`Loss`] says, torn
//! at 512-byte sectors and in any order; names of files likewise. [`SimDisk::after_power_cut`] is the
//! disk that the next start finds. A disk that records gives a [`Trace`], which makes the disk after a
//! cut at any point without doing everything again.

mod bytes;
mod piece;
mod state;
mod trace;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::disk::{Disk, File};
use super::marker::Marker;

pub use piece::{Piece, piece_at, scan};
pub use state::Loss;
use state::{Op, State};
pub use trace::Trace;

/// What is to go wrong, counted from the disk's making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Power is cut during this sync (from 1): it and everything after it fails.
    pub cut_at_sync: Option<u64>,
    /// This write (from 1) and every later one finds the disk full, until [`SimDisk::make_room`].
    pub full_at_write: Option<u64>,
    /// This sync (from 1) fails once, and what it covered is lost although reads still show it; a sync
    /// of names fails and leaves them as they were.
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

#[derive(Debug, Default)]
struct Inner {
    state: State,
    faults: Faults,
    syncs: u64,
    writes: u64,
    dead: bool,
    /// Bytes and inodes that it says are free; `None` while nobody has set them.
    free: Option<(u64, u64)>,
    /// What the disk was when recording began, and what was done since.
    record: Option<(State, Vec<Op>)>,
}

/// The disk. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>);

impl SimDisk {
    /// An empty disk with the given faults to come.
    pub fn new(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(Inner { faults, ..Inner::default() })))
    }

    /// An empty disk, but for the marker of a store that is to be made on it, which is no secret: what is done there
    /// can be done again alike.
    pub fn repeatable() -> Result<Self, StoreError> {
        let disk = Self::default();
        Marker::put_known(&disk)?;
        Ok(disk)
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Mutex::new(Inner { state, ..Inner::default() })))
    }

    /// The disk as the next start finds it, with faults to come from then on.
    pub fn after_power_cut(&self, dice: &mut Dice, faults: Faults) -> Self {
        let state = self.lock().state.clone().after_power_cut(Loss::any(dice), dice);
        let disk = Self::of(state);
        disk.lock().faults = faults;
        disk
    }

    /// Another disk with the same content, all of it synced.
    pub fn copy(&self) -> Self {
        Self::of(self.lock().state.synced())
    }

    /// Cuts the power now: everything from here on fails.
    pub fn cut_power(&self) {
        self.lock().dead = true;
    }

    /// Records what is done from now on, and counts [`SimDisk::ops`] from 0. Faults are not recorded.
    pub fn record(&self) {
        let mut inner = self.lock();
        inner.state.ops = 0;
        inner.record = Some((inner.state.clone(), Vec::new()));
    }

    /// What was done since [`SimDisk::record`]; `None` without one. Ends the recording.
    pub fn trace(&self) -> Option<Trace> {
        let (first, ops) = self.lock().record.take()?;
        Some(Trace::new(&first, ops))
    }

    /// Things done so far that change the disk or sync it.
    pub fn ops(&self) -> u64 {
        self.lock().state.ops
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
        let State { names, files, .. } = &self.lock().state;
        names.values().map(|file| files[*file].live.len()).sum()
    }

    /// Flips one bit of a file.
    pub fn flip(&self, name: &str, bit: usize) {
        let mut byte = [0];
        self.peek(name, bit / 8, &mut byte);
        self.overwrite(name, bit / 8, &[byte[0] ^ 1 << (bit % 8)]);
    }

    /// Reads a file's bytes, past all faults.
    ///
    /// # Panics
    /// If there is no such file or it has not so many bytes.
    pub fn peek(&self, name: &str, offset: usize, buffer: &mut [u8]) {
        let state = &self.lock().state;
        let read = state.files[state.names[name]].live.read(offset, buffer);
        read.expect("the caller knows the file's length");
    }

    /// Puts other bytes where a file's own were, as a failing disk does.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn overwrite(&self, name: &str, offset: usize, bytes: &[u8]) {
        let state = &mut self.lock().state;
        let file = state.names[name];
        state.files[file].live.write(offset, bytes);
    }

    /// Bytes in one file.
    pub fn length(&self, name: &str) -> usize {
        let state = &self.lock().state;
        state.names.get(name).map_or(0, |file| state.files[*file].live.len())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    fn perform(&mut self, op: Op) {
        self.state.apply(&op);
        if let Some((_, ops)) = &mut self.record {
            ops.push(op);
        }
    }

    /// The file of a name.
    fn file(&self, name: &str) -> io::Result<usize> {
        self.alive()?;
        self.state.names.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }
}

fn failed_sync() -> io::Error {
    io::Error::other("the disk failed to sync")
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.lock().file(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut inner = self.lock();
        inner.count_write()?;
        inner.perform(Op::Create(name.into()));
        let file = inner.file(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.file(from)?;
        inner.perform(Op::Rename(from.into(), to.into()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let inner = self.lock();
        inner.alive()?;
        Ok(inner.state.names.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.file(name)?;
        inner.perform(Op::Remove(name.into()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.count_sync()?;
        if inner.faults.error_at_sync == Some(inner.syncs) {
            return Err(failed_sync());
        }
        inner.perform(Op::SyncNames);
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
        Ok(inner.state.files[self.file].live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.lock();
        inner.alive()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let read = inner.state.files[self.file].live.read(start, buffer);
        read.ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.count_write()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        inner.perform(Op::Write { file: self.file, offset, bytes: bytes.into() });
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.count_write()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        inner.perform(Op::Length { file: self.file, length });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.count_sync()?;
        if inner.faults.error_at_sync == Some(inner.syncs) {
            inner.state.fail_sync(self.file);
            return Err(failed_sync());
        }
        inner.perform(Op::Sync { file: self.file });
        Ok(())
    }
}
