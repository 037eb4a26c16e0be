//! Segment files: append-only, written once, in records that say enough of themselves to rebuild
//! the index.
//!
//! A record is one *piece* of a body:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | the store's marker: 7 octets of its own and the format's version, 2; once `SLYPOST` and 1 |
//! | 32 | key of the body |
//! | 4 | piece, from 0 |
//! | 1 | flags: bit 0 set on the body's last piece |
//! | 1 | kind: what the node keeps under this key |
//! | 2 | zero |
//! | 4 | length of the notes (last piece only): what a rebuild needs besides the bytes |
//! | 4 | length of the bytes |
//! | 32 | BLAKE3 of all of the above, the notes and the bytes |
//!
//! followed by the notes, the bytes, and zeros up to a multiple of 8. Numbers are little-endian.
//! Records are found again after a damaged stretch by the marker, which stands only at multiples
//! of 8. A segment is never appended to after a restart, so it has records of one format only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;
use super::body::BodyKey;
use super::disk::{Disk, File};
use super::gauge::Gauge;
use super::marker::{self, MARKER_BYTES, Marker};
use crate::fault::{SeededFault, seeded};

/// A segment that has grown past this is followed by a new one.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a record before its notes.
pub(super) const HEADER_BYTES: usize = 88;
/// Notes and bytes of one record, at most.
pub(super) const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
const ALIGNMENT: usize = 8;
const LAST: u8 = 1;
/// Segments that are kept open at once.
const OPEN_MAX: usize = 128;

/// Where one record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub segment: u32,
    pub offset: u64,
    pub length: u32,
}

/// One piece of a body, as it lies in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub key: BodyKey,
    pub piece: u32,
    pub last: bool,
    pub kind: u8,
    pub notes: Vec<u8>,
    pub bytes: Vec<u8>,
}

impl Record {
    /// The record as it lies in a segment whose records begin with `marker`.
    pub fn encode(&self, marker: &[u8; MARKER_BYTES]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.notes.len() + self.bytes.len() + ALIGNMENT);
        out.extend_from_slice(marker);
        out.extend_from_slice(&self.key.0);
        out.extend_from_slice(&self.piece.to_le_bytes());
        out.extend_from_slice(&[if self.last { LAST } else { 0 }, self.kind, 0, 0]);
        for length in [self.notes.len(), self.bytes.len()] {
            let length = u32::try_from(length).expect("a record is cut long before 4 GiB");
            out.extend_from_slice(&length.to_le_bytes());
        }
        let hash = hash(&out, &self.notes, &self.bytes);
        out.extend_from_slice(&hash);
        out.extend_from_slice(&self.notes);
        out.extend_from_slice(&self.bytes);
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out
    }

    /// Reads the record at the start of `bytes`; `None` if it is not one or not whole.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = Header::decode(bytes)?;
        let notes_end = HEADER_BYTES.checked_add(header.notes)?;
        let notes = bytes.get(HEADER_BYTES..notes_end)?;
        let content = bytes.get(notes_end..notes_end.checked_add(header.bytes)?)?;
        let unhashed = bytes.get(..HEADER_BYTES - 32)?;
        let whole = hash(unhashed, notes, content)[..] == bytes[HEADER_BYTES - 32..HEADER_BYTES]
            || seeded(SeededFault::HashIgnored);
        whole.then(|| Self {
            key: header.key,
            piece: header.piece,
            last: header.flags & LAST != 0,
            kind: header.kind,
            notes: notes.into(),
            bytes: content.into(),
        })
    }
}

struct Header {
    key: BodyKey,
    piece: u32,
    flags: u8,
    kind: u8,
    notes: usize,
    bytes: usize,
}

impl Header {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut key = [0; 32];
        key.copy_from_slice(&bytes[8..40]);
        let header = Self {
            key: BodyKey(key),
            piece: number(40),
            flags: bytes[44],
            kind: bytes[45],
            notes: usize::try_from(number(48)).ok()?,
            bytes: usize::try_from(number(52)).ok()?,
        };
        (marker::is_one(&bytes[..MARKER_BYTES])
            && header.notes.checked_add(header.bytes)? <= RECORD_BYTES_MAX)
            .then_some(header)
    }

    /// Bytes of the whole record on disk.
    fn record_bytes(&self) -> usize {
        (HEADER_BYTES + self.notes + self.bytes).next_multiple_of(ALIGNMENT)
    }
}

fn hash(header: &[u8], notes: &[u8], bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header);
    hasher.update(notes);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// A segment's file name.
pub(super) fn name(number: u32) -> String {
    format!("{number:08}.seg")
}

/// The number in a segment's file name.
pub(super) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 8).then(|| digits.parse().ok()).flatten()
}

/// The numbers of all segments on the disk, rising.
pub(super) fn list(disk: &dyn Disk) -> Result<Vec<u32>, StoreError> {
    let mut numbers: Vec<u32> = disk.list()?.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The open segments, and the one that grows.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    gauge: Arc<Gauge>,
    bytes_max: u64,
    marker: Marker,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: HashMap<u32, Arc<dyn File>>,
    current: u32,
    end: u64,
    /// Segments with bytes that no sync has covered.
    unsynced: Vec<u32>,
    /// A new segment whose name no sync has covered.
    unsynced_names: bool,
    /// Segments that hold pieces of bodies no commit has named yet, and how many such pieces.
    pinned: BTreeMap<u32, usize>,
    /// Segments that may have become empty.
    emptied: BTreeSet<u32>,
}

impl State {
    /// What is appended next goes into a new segment.
    fn begin_next(&mut self) {
        self.current += 1;
        self.end = 0;
    }
}

/// Keeps a piece's segment from being removed until a commit has named it.
#[derive(Debug)]
pub(super) struct Pin {
    segments: Arc<Segments>,
    segment: u32,
}

impl Pin {
    /// Keeps `segment` from being removed.
    pub fn of(segments: &Arc<Segments>, segment: u32) -> Self {
        *segments.lock().pinned.entry(segment).or_default() += 1;
        Self { segments: Arc::clone(segments), segment }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.segments.lock();
        if let Some(pins) = state.pinned.get_mut(&self.segment) {
            *pins -= 1;
            if *pins == 0 {
                state.pinned.remove(&self.segment);
                state.emptied.insert(self.segment);
            }
        }
    }
}

impl Segments {
    pub fn new(disk: Arc<dyn Disk>, gauge: Arc<Gauge>, first: u32, bytes_max: u64, marker: Marker) -> Self {
        let state = State {
            open: HashMap::new(),
            current: first,
            end: 0,
            unsynced: Vec::new(),
            unsynced_names: false,
            pinned: BTreeMap::new(),
            emptied: BTreeSet::new(),
        };
        Self { disk, gauge, bytes_max, marker, state: Mutex::new(state) }
    }

    /// Appends a record. It lies on disk durably only after the next [`Segments::sync`].
    pub fn append(self: &Arc<Self>, record: &Record) -> Result<(Extent, Pin), StoreError> {
        let bytes = record.encode(&self.marker.octets());
        self.written(&bytes).inspect_err(|error| self.gauge.failed(error))
    }

    /// Appends the record that lies elsewhere.
    pub fn append_again(self: &Arc<Self>, from: Extent) -> Result<(Extent, Pin), StoreError> {
        if self.marker.of(from.segment) != self.marker.octets() {
            return self.append(&self.read(from)?);
        }
        let bytes = self.read_bytes(from)?;
        self.written(&bytes).inspect_err(|error| self.gauge.failed(error))
    }

    /// What a copy of the segments has to know besides.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    fn written(self: &Arc<Self>, bytes: &[u8]) -> Result<(Extent, Pin), StoreError> {
        let length = u32::try_from(bytes.len()).expect("a record is cut long before 4 GiB");
        let (file, extent, pin) = {
            let mut state = self.lock();
            if state.end >= self.bytes_max {
                state.begin_next();
            }
            let segment = state.current;
            let file = match state.end {
                0 => self.create_in(&mut state, segment)?,
                _ => self.file_in(&mut state, segment)?,
            };
            let extent = Extent { segment, offset: state.end, length };
            state.end += u64::from(length);
            *state.pinned.entry(segment).or_default() += 1;
            (file, extent, Pin { segments: Arc::clone(self), segment })
        };
        file.write_at(extent.offset, bytes)?;
        // Only now: a sync that ran while we wrote has not covered these bytes.
        let mut state = self.lock();
        if !state.unsynced.contains(&extent.segment) {
            state.unsynced.push(extent.segment);
        }
        Ok((extent, pin))
    }

    /// Returns once everything appended before the call is durable.
    pub fn sync(&self) -> std::io::Result<()> {
        let (files, names) = {
            let mut state = self.lock();
            let numbers = std::mem::take(&mut state.unsynced);
            let names = !numbers.is_empty() && std::mem::take(&mut state.unsynced_names);
            let files: Vec<_> = numbers.iter().filter_map(|number| state.open.get(number).cloned()).collect();
            (files, names)
        };
        if names {
            self.disk.sync_names()?;
        }
        files.iter().try_for_each(|file| file.sync())
    }

    /// Reads and checks the record at `extent`.
    pub fn read(&self, extent: Extent) -> Result<Record, StoreError> {
        let bytes = self.read_bytes(extent)?;
        Record::decode(&bytes).ok_or_else(|| damaged(extent))
    }

    /// Reads the bytes at `extent`, unchecked.
    fn read_bytes(&self, extent: Extent) -> Result<Vec<u8>, StoreError> {
        let file = self.file_in(&mut self.lock(), extent.segment)?;
        let mut bytes = vec![0; usize::try_from(extent.length).map_err(|_| damaged(extent))?];
        file.read_at(extent.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The segment that grows.
    pub fn current(&self) -> u32 {
        self.lock().current
    }

    /// Ends the segment that grows if it holds more than twice the bytes that `live` says live in it, so
    /// that its space can be given back before it is full.
    pub fn end_current(&self, live: impl FnOnce(u32) -> Result<u64, StoreError>) -> Result<(), StoreError> {
        let (current, end) = {
            let state = self.lock();
            (state.current, state.end)
        };
        let live = live(current)?;
        let mut state = self.lock();
        if state.current == current && end > 0 && live.saturating_mul(2) < end {
            state.begin_next();
            state.emptied.insert(current);
        }
        Ok(())
    }

    /// Bytes of a segment.
    pub fn length(&self, number: u32) -> Result<u64, StoreError> {
        Ok(self.file_in(&mut self.lock(), number)?.len()?)
    }

    /// Notes that a segment may have become empty.
    pub fn emptied(&self, number: u32) {
        self.lock().emptied.insert(number);
    }

    /// Removes those of the emptied segments in which nothing lives, by `is_live`, and gives their
    /// space back. Only the writer calls this: between commits no piece is named and not yet live.
    pub fn remove_emptied(
        &self,
        mut is_live: impl FnMut(u32) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let candidates: Vec<u32> = {
            let state = self.lock();
            let idle = |number: &&u32| **number != state.current && !state.pinned.contains_key(number);
            state.emptied.iter().filter(idle).copied().collect()
        };
        for number in candidates {
            if !is_live(number)? {
                self.lock().open.remove(&number);
                match self.disk.remove(&name(number)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            self.lock().emptied.remove(&number);
        }
        Ok(())
    }

    /// Calls `visit` with every whole record of a segment, and where it lies; damaged stretches are
    /// passed over. Returns the number of bytes passed over.
    pub fn scan(&self, number: u32, mut visit: impl FnMut(Extent, Record)) -> Result<u64, StoreError> {
        let file = self.file_in(&mut self.lock(), number)?;
        let (end, marker) = (file.len()?, self.marker.of(number));
        let (mut offset, mut skipped) = (0, 0);
        while offset < end {
            match record_at(file.as_ref(), offset, end, &marker)? {
                Some((record, length)) => {
                    visit(Extent { segment: number, offset, length }, record);
                    offset += u64::from(length);
                }
                None => {
                    offset += ALIGNMENT as u64;
                    skipped += ALIGNMENT as u64;
                }
            }
        }
        Ok(skipped)
    }

    fn file_in(&self, state: &mut State, number: u32) -> Result<Arc<dyn File>, StoreError> {
        if let Some(file) = state.open.get(&number) {
            return Ok(Arc::clone(file));
        }
        if state.open.len() >= OPEN_MAX {
            let State { open, current, unsynced, .. } = state;
            open.retain(|number, _| number == current || unsynced.contains(number));
        }
        let file = self.disk.open(&name(number))?;
        state.open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    fn create_in(&self, state: &mut State, number: u32) -> Result<Arc<dyn File>, StoreError> {
        let file = self.disk.create(&name(number))?;
        // Only now: names that were synced before this one was there say nothing of it.
        state.unsynced_names = true;
        state.open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in the critical sections leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn damaged(extent: Extent) -> StoreError {
    StoreError::Damaged(format!("segment {} at {}", extent.segment, extent.offset))
}

fn record_at(
    file: &dyn File,
    offset: u64,
    end: u64,
    marker: &[u8; MARKER_BYTES],
) -> Result<Option<(Record, u32)>, StoreError> {
    let mut header = [0; HEADER_BYTES];
    if end - offset < HEADER_BYTES as u64 {
        return Ok(None);
    }
    file.read_at(offset, &mut header)?;
    if header[..MARKER_BYTES] != *marker {
        return Ok(None);
    }
    let Some(length) = Header::decode(&header).map(|header| header.record_bytes()) else { return Ok(None) };
    if end - offset < length as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    file.read_at(offset, &mut bytes)?;
    let length = u32::try_from(length).expect("the header limits a record");
    Ok(Record::decode(&bytes).map(|record| (record, length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::marker::FIRST_FORMAT;

    fn record(bytes: &[u8]) -> Record {
        Record {
            key: BodyKey([7; 32]),
            piece: 2,
            last: true,
            kind: 3,
            notes: b"notes".to_vec(),
            bytes: bytes.into(),
        }
    }

    #[test]
    fn the_format_is_frozen() {
        let encoded = record(b"bytes").encode(&FIRST_FORMAT);
        assert_eq!(&encoded[..8], b"SLYPOST\x01");
        assert_eq!(encoded.len(), 104);
        assert_eq!(
            blake3::hash(&encoded).to_hex().as_str(),
            "760f47fee648794b0f7c7482b835a3e3cc2ab765d167b50966b6e12ae8750638"
        );
    }

    #[test]
    fn every_changed_byte_is_found() {
        let encoded = record(b"some bytes of a body").encode(&FIRST_FORMAT);
        let whole = HEADER_BYTES + 5 + 20;
        for at in 0..whole {
            let mut flipped = encoded.clone();
            flipped[at] ^= 1;
            assert_eq!(Record::decode(&flipped), None, "byte {at}");
        }
        for end in 0..whole {
            assert_eq!(Record::decode(&encoded[..end]), None, "cut at {end}");
        }
        assert_eq!(Record::decode(&encoded), Some(record(b"some bytes of a body")));
        let marked = record(b"some bytes of a body").encode(b"\x17\xfe3456\x00\x02");
        assert_eq!(Record::decode(&marked), Some(record(b"some bytes of a body")));
    }
}
