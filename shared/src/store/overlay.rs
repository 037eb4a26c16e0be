//! An index opened without changing its file: what redb writes to it stays in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::disk::File;

const PAGE: usize = 4096;

/// A file, and over it what was written since.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Arc<dyn File>,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    length: u64,
    /// Bytes of the file that still show through where no page lies over them.
    file_bytes: u64,
}

impl Overlay {
    /// Over `file`, as it is now.
    pub fn new(file: Arc<dyn File>) -> io::Result<Self> {
        let length = file.len()?;
        let over = Over { pages: BTreeMap::new(), length, file_bytes: length };
        Ok(Self { file, over: Mutex::new(over) })
    }

    fn lock(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what lies within one page.
    fn read_within(&self, over: &Over, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (page, within) = place(offset);
        if let Some(bytes) = over.pages.get(&page) {
            out.copy_from_slice(&bytes[within..within + out.len()]);
            return Ok(());
        }
        let shown = over.file_bytes.saturating_sub(offset).min(out.len() as u64);
        let (shown, beyond) = out.split_at_mut(usize::try_from(shown).unwrap_or(0));
        beyond.fill(0);
        if shown.is_empty() { Ok(()) } else { self.file.read_at(offset, shown) }
    }
}

/// The page of an offset, and where in it.
fn place(offset: u64) -> (u64, usize) {
    (offset / PAGE as u64, usize::try_from(offset % PAGE as u64).unwrap_or(0))
}

/// Bytes from `offset` on that lie within its page, of `left`.
fn count_within(offset: u64, left: usize) -> usize {
    (PAGE - place(offset).1).min(left)
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().length)
    }

    fn read(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let over = self.lock();
        if offset.saturating_add(out.len() as u64) > over.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !out.is_empty() {
            let (part, rest) = out.split_at_mut(count_within(offset, out.len()));
            self.read_within(&over, offset, part)?;
            offset += part.len() as u64;
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut over = self.lock();
        over.length = length;
        over.file_bytes = over.file_bytes.min(length);
        over.pages.split_off(&length.div_ceil(PAGE as u64));
        let (last, within) = place(length);
        if let Some(page) = over.pages.get_mut(&last) {
            page[within..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        let mut over = self.lock();
        over.length = over.length.max(offset.saturating_add(data.len() as u64));
        while !data.is_empty() {
            let (part, rest) = data.split_at(count_within(offset, data.len()));
            let (page, within) = place(offset);
            if !over.pages.contains_key(&page) {
                let mut below = Box::new([0; PAGE]);
                self.read_within(&over, page * PAGE as u64, &mut below[..])?;
                over.pages.insert(page, below);
            }
            if let Some(bytes) = over.pages.get_mut(&page) {
                bytes[within..within + part.len()].copy_from_slice(part);
            }
            offset += part.len() as u64;
            data = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Disk;
    use crate::store::sim::SimDisk;

    #[test]
    fn what_is_written_is_read_and_the_file_stays() {
        let disk = SimDisk::default();
        let file = disk.create("file").expect("made");
        file.write_at(0, &[1; 10_000]).expect("written");
        let overlay = Overlay::new(Arc::clone(&file)).expect("there");
        overlay.write(4_000, &[2; 5_000]).expect("written");
        overlay.set_len(9_500).expect("cut");
        overlay.set_len(12_000).expect("grown");
        let mut expected = vec![1; 9_500];
        expected[4_000..9_000].fill(2);
        expected.resize(12_000, 0);
        let mut read = vec![9; 12_000];
        overlay.read(0, &mut read).expect("there");
        assert_eq!(read, expected);
        assert!(overlay.read(11_999, &mut [0; 2]).is_err(), "behind the end");
        let mut below = vec![9; 10_000];
        file.read_at(0, &mut below).expect("there");
        assert_eq!(below, [1; 10_000]);
    }
}
