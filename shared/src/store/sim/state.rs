//! What is on a simulated disk, what of it is durable, and what a power cut leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Dice;
use super::bytes::{Bytes, PAGE};

const SECTOR: usize = 512;

/// One thing done to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Create(String),
    Rename(String, String),
    Remove(String),
    SyncNames,
    Write { file: usize, offset: usize, bytes: Arc<[u8]> },
    Length { file: usize, length: usize },
    Sync { file: usize },
}

/// Which of the unsynced writes a power cut leaves. Writes are cut at sectors of 512 bytes; a sector is
/// old or new, never mixed. Lengths that grew may be lost in all but the first, and names each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The first ones, whole and in order.
    Prefix,
    /// Each sector by chance: none, a few, half, most or all of them.
    Subset,
    /// The last ones, as if they had been written in reverse.
    Reversed,
    /// The very last one.
    OnlyLast,
    /// All, but of the first only some sectors.
    TornFirst,
    /// All but one sector of one of them.
    StaleSector,
    /// All, but one page by which a file has grown reads as zeros.
    ZeroPage,
}

impl Loss {
    /// Every way to lose.
    pub const ALL: [Self; 7] = [
        Self::Prefix,
        Self::Subset,
        Self::Reversed,
        Self::OnlyLast,
        Self::TornFirst,
        Self::StaleSector,
        Self::ZeroPage,
    ];

    /// One of them.
    pub fn any(dice: &mut Dice) -> Self {
        *pick(&Self::ALL, dice)
    }
}

fn pick<'a, T>(choices: &'a [T], dice: &mut Dice) -> &'a T {
    &choices[usize::try_from(dice.below(choices.len() as u64)).unwrap_or(0)]
}

fn below(end: usize, dice: &mut Dice) -> usize {
    usize::try_from(dice.below(end as u64)).unwrap_or(0)
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Length(usize),
}

/// A file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub live: Bytes,
    durable: Bytes,
    /// Unsynced changes, each with its place in the order of all of the disk.
    pending: Vec<(u64, Change)>,
}

impl Change {
    fn apply(&self, bytes: &mut Bytes) {
        match self {
            Self::Write { offset, bytes: written } => bytes.write(*offset, written),
            Self::Length(length) => bytes.resize(*length),
        }
    }
}

/// A disk's content.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub files: Vec<Content>,
    pub names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Things done so far.
    pub ops: u64,
}

impl State {
    /// Does what can be done: names and files are those of this disk.
    pub fn apply(&mut self, op: &Op) {
        self.ops += 1;
        match op {
            Op::Create(name) => {
                self.files.push(Content::default());
                self.names.insert(name.clone(), self.files.len() - 1);
            }
            Op::Rename(from, to) => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Op::Remove(name) => {
                self.names.remove(name);
            }
            Op::SyncNames => self.durable_names = self.names.clone(),
            Op::Write { file, offset, bytes } => {
                self.change(*file, Change::Write { offset: *offset, bytes: Arc::clone(bytes) });
            }
            Op::Length { file, length } => self.change(*file, Change::Length(*length)),
            Op::Sync { file } => {
                let Content { durable, pending, .. } = &mut self.files[*file];
                pending.drain(..).for_each(|(_, change)| change.apply(durable));
            }
        }
    }

    fn change(&mut self, file: usize, change: Change) {
        let content = &mut self.files[file];
        change.apply(&mut content.live);
        content.pending.push((self.ops, change));
    }

    /// A sync fails as Linux does it: the dirty pages are marked clean, and the next sync reports
    /// success. What they held is never written, and reads still show it.
    pub fn fail_sync(&mut self, file: usize) {
        self.ops += 1;
        self.files[file].pending.clear();
    }

    /// Everything as reads show it, and all of it durable.
    pub fn synced(&self) -> Self {
        let files = self.files.iter().map(|content| Content {
            live: content.live.clone(),
            durable: content.live.clone(),
            pending: Vec::new(),
        });
        Self { files: files.collect(), names: self.names.clone(), durable_names: self.names.clone(), ops: 0 }
    }

    /// What is there after a power cut.
    pub fn after_power_cut(mut self, loss: Loss, dice: &mut Dice) -> Self {
        let names = self.surviving_names(dice);
        let mut survivors: Vec<Bytes> =
            self.files.iter_mut().map(|content| std::mem::take(&mut content.durable)).collect();
        let old_lengths: Vec<usize> = survivors.iter().map(Bytes::len).collect();

        let mut pending = Vec::new();
        for (file, content) in self.files.iter_mut().enumerate() {
            pending.extend(content.pending.drain(..).map(|(order, change)| (order, file, change)));
        }
        pending.sort_unstable_by_key(|(order, ..)| *order);
        let count = pending.len();
        let part = below(count + 1, dice);
        let one = below(count, dice);
        // From nothing to everything: cuts that leave all or none matter as much as mixed ones.
        let percent = *pick(&[0, 100, 50, 90, 10], dice);
        for (index, (_, file, change)) in pending.iter().enumerate() {
            let bytes = &mut survivors[*file];
            match loss {
                Loss::Prefix if index < part => change.apply(bytes),
                Loss::Reversed if index >= part => change.apply(bytes),
                Loss::OnlyLast if index + 1 == count => change.apply(bytes),
                Loss::Prefix | Loss::Reversed | Loss::OnlyLast => {}
                Loss::Subset => torn(change, bytes, |_| dice.below(100) < percent),
                Loss::TornFirst if index == 0 => torn(change, bytes, |_| dice.below(2) == 0),
                Loss::StaleSector if index == one => {
                    let stale = sectors(change).map_or(0, |sectors| below(sectors, dice));
                    torn(change, bytes, |sector| sector != stale);
                }
                Loss::TornFirst | Loss::StaleSector | Loss::ZeroPage => change.apply(bytes),
            }
        }
        for (bytes, old) in survivors.iter_mut().zip(old_lengths) {
            if loss == Loss::ZeroPage {
                zero_new_page(bytes, old, dice);
            }
            if loss != Loss::Prefix && bytes.len() > old && dice.below(4) == 0 {
                bytes.resize(old);
            }
        }
        let content = |bytes: Bytes| Content { live: bytes.clone(), durable: bytes, pending: Vec::new() };
        let files = survivors.into_iter().map(content).collect();
        Self { files, durable_names: names.clone(), names, ops: 0 }
    }

    fn surviving_names(&self, dice: &mut Dice) -> BTreeMap<String, usize> {
        let percent = *pick(&[50, 0, 100], dice);
        let mut names = self.durable_names.clone();
        for (name, file) in &self.names {
            if dice.below(100) < percent {
                names.insert(name.clone(), *file);
            }
        }
        names.retain(|name, _| self.names.contains_key(name) || dice.below(100) >= percent);
        names
    }
}

/// Sectors that a write touches; `None` if it is a length.
fn sectors(change: &Change) -> Option<usize> {
    match change {
        Change::Write { offset, bytes } => Some((offset + bytes.len()).div_ceil(SECTOR) - offset / SECTOR),
        Change::Length(_) => None,
    }
}

/// Applies those sectors of a write (from 0) that `keeps` says; a length is a single one.
fn torn(change: &Change, target: &mut Bytes, mut keeps: impl FnMut(usize) -> bool) {
    match change {
        Change::Length(length) => {
            if keeps(0) {
                target.resize(*length);
            }
        }
        Change::Write { offset, bytes } => {
            let (mut done, mut sector) = (0, 0);
            while done < bytes.len() {
                let count = (SECTOR - (offset + done) % SECTOR).min(bytes.len() - done);
                if keeps(sector) {
                    target.write(offset + done, &bytes[done..done + count]);
                }
                done += count;
                sector += 1;
            }
        }
    }
}

/// Zeros one page of those by which a file has grown from `old` bytes. A disk gives zeros for space
/// that was never written, not for what it held before.
fn zero_new_page(bytes: &mut Bytes, old: usize, dice: &mut Dice) {
    let (first, end) = (old.div_ceil(PAGE), bytes.len() / PAGE);
    if first < end {
        bytes.write((first + below(end - first, dice)) * PAGE, &[0; PAGE]);
    }
}
