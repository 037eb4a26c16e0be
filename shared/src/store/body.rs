//! Bodies: written once as pieces in segments, named by a row of the index, counted by reference.

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};

use super::segment::{Extent, Pin, Record, Segments};
use super::txn::{Rows, Snapshot, Table, Txn};
use super::{StoreError, space};
use crate::id::{BodyId, MessageId};

/// Bytes of a piece: what a body in the making holds in memory.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) const BODIES: Table = Table("bodies");

/// What a body is kept under: on the edge its message and revision, on big its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BodyKey(pub [u8; 32]);

impl BodyKey {
    /// The key of a body addressed by message and revision. `holder` tells apart bodies of one message
    /// that are sealed for different readers.
    pub fn of_message(message: MessageId, revision: u32, holder: &[u8]) -> Self {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&message.0);
        key[16..20].copy_from_slice(&revision.to_be_bytes());
        key[20..].copy_from_slice(&blake3::hash(holder).as_bytes()[..12]);
        Self(key)
    }
}

impl From<BodyId> for BodyKey {
    fn from(id: BodyId) -> Self {
        Self(id.0)
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub(super) struct BodyRow {
    pub references: u32,
    pub kind: u8,
    pub length: u64,
    /// Segment, offset and length of each piece's record.
    pub pieces: Vec<(u32, u64, u32)>,
}
crate::row!(BodyRow, 1);

impl BodyRow {
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.pieces.iter().map(|(segment, offset, length)| Extent {
            segment: *segment,
            offset: *offset,
            length: *length,
        })
    }
}

/// A body in the making. Dropped, it leaves nothing that counts.
#[derive(Debug)]
pub struct BodyWriter {
    segments: Arc<Segments>,
    key: BodyKey,
    kind: u8,
    length: u64,
    buffer: Vec<u8>,
    pieces: Vec<(Extent, Pin)>,
}

impl BodyWriter {
    pub(super) fn new(segments: Arc<Segments>, key: BodyKey, kind: u8) -> Self {
        Self { segments, key, kind, length: 0, buffer: Vec::new(), pieces: Vec::new() }
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.length += bytes.len() as u64;
        while self.buffer.len() + bytes.len() > PIECE_BYTES {
            let (fit, rest) = bytes.split_at(PIECE_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(fit);
            bytes = rest;
            self.piece(false, Vec::new())?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Completes the body. `notes` say what a rebuild of the index needs besides the bytes.
    pub fn finish(mut self, notes: Vec<u8>) -> Result<Stored, StoreError> {
        self.piece(true, notes)?;
        Ok(Stored { key: self.key, kind: self.kind, length: self.length, pieces: self.pieces })
    }

    fn piece(&mut self, last: bool, notes: Vec<u8>) -> Result<(), StoreError> {
        let record = Record {
            key: self.key,
            piece: u32::try_from(self.pieces.len()).expect("size limits keep a body below 2^32 pieces"),
            last,
            kind: self.kind,
            notes,
            bytes: std::mem::take(&mut self.buffer),
        };
        self.pieces.push(self.segments.append(&record)?);
        Ok(())
    }
}

/// A body that is complete in the segments and waits for a commit to name it.
#[derive(Debug)]
pub struct Stored {
    key: BodyKey,
    kind: u8,
    length: u64,
    pieces: Vec<(Extent, Pin)>,
}

impl Stored {
    /// A body whose pieces already lie in the segments.
    pub(super) fn found(key: BodyKey, kind: u8, length: u64, pieces: Vec<(Extent, Pin)>) -> Self {
        Self { key, kind, length, pieces }
    }

    fn places(&self) -> Vec<(u32, u64, u32)> {
        self.pieces.iter().map(|(at, _)| (at.segment, at.offset, at.length)).collect()
    }

    /// What it will be kept under.
    pub fn key(&self) -> BodyKey {
        self.key
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// What the store keeps of a body besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyUse {
    /// Its length in bytes.
    pub length: u64,
    /// How often it was kept and not released.
    pub references: u32,
}

impl Snapshot {
    /// How a body is used; `None` if it is not there.
    pub fn body_use(&self, key: BodyKey) -> Result<Option<BodyUse>, StoreError> {
        let row = self.get::<BodyRow>(BODIES, &key.0)?;
        Ok(row.map(|row| BodyUse { length: row.length, references: row.references }))
    }
}

impl Txn<'_> {
    /// Names a body: it is kept until released as often as it was kept. A body that is already there
    /// gains a reference, and the new bytes are dropped.
    pub fn keep_body(&mut self, stored: &Stored) -> Result<(), StoreError> {
        if self.reference_body(stored.key)? {
            return Ok(());
        }
        for (extent, _) in &stored.pieces {
            space::add(self, extent.segment, extent.length)?;
        }
        let row =
            BodyRow { references: 1, kind: stored.kind, length: stored.length, pieces: stored.places() };
        self.put(BODIES, &stored.key.0, &row)
    }

    /// Adds a reference to a body that is there; `false` if it is not.
    pub fn reference_body(&mut self, key: BodyKey) -> Result<bool, StoreError> {
        let Some(mut row) = self.get::<BodyRow>(BODIES, &key.0)? else { return Ok(false) };
        row.references += 1;
        self.put(BODIES, &key.0, &row)?;
        Ok(true)
    }

    /// The length of a body that is there.
    pub fn body_length(&self, key: BodyKey) -> Result<Option<u64>, StoreError> {
        Ok(self.get::<BodyRow>(BODIES, &key.0)?.map(|row| row.length))
    }

    /// Drops a reference; with the last one the body goes and its space is given back.
    pub fn release_body(&mut self, key: BodyKey) -> Result<(), StoreError> {
        let Some(mut row) = self.get::<BodyRow>(BODIES, &key.0)? else { return Ok(()) };
        if row.references > 1 {
            row.references -= 1;
            return self.put(BODIES, &key.0, &row);
        }
        for extent in row.extents() {
            space::subtract(self, extent.segment, extent.length)?;
        }
        self.delete(BODIES, &key.0)
    }
}

/// Reads a body in order, checking each piece.
#[derive(Debug)]
pub struct BodyReader {
    segments: Arc<Segments>,
    key: BodyKey,
    row: BodyRow,
    next: usize,
    /// Compaction may move the body, but not from under its reader.
    _pins: Vec<Pin>,
}

impl BodyReader {
    pub(super) fn open(
        snapshot: Snapshot,
        segments: Arc<Segments>,
        key: BodyKey,
    ) -> Result<Self, StoreError> {
        let row = snapshot.get::<BodyRow>(BODIES, &key.0)?;
        let row = row.ok_or_else(|| StoreError::Damaged(format!("body {:02x?}", &key.0[..8])))?;
        let numbers: std::collections::BTreeSet<u32> = row.extents().map(|extent| extent.segment).collect();
        let pins = numbers.into_iter().map(|number| Pin::of(&segments, number)).collect();
        Ok(Self { segments, key, row, next: 0, _pins: pins })
    }

    pub(super) fn of(segments: Arc<Segments>, stored: &Stored) -> Self {
        let row =
            BodyRow { references: 0, kind: stored.kind, length: stored.length, pieces: stored.places() };
        Self { segments, key: stored.key, row, next: 0, _pins: Vec::new() }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.row.length
    }

    /// The next piece; `None` at the end.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(extent) = self.row.extents().nth(self.next) else { return Ok(None) };
        let record = self.segments.read(extent)?;
        if record.key != self.key || usize::try_from(record.piece) != Ok(self.next) {
            return Err(StoreError::Damaged(format!("a piece of body {:02x?}", &self.key.0[..8])));
        }
        self.next += 1;
        Ok(Some(record.bytes))
    }

    /// The whole body. For what is known to be small, or wanted whole.
    pub fn read_all(mut self) -> Result<Vec<u8>, StoreError> {
        let mut whole = Vec::with_capacity(usize::try_from(self.row.length).unwrap_or(0).min(PIECE_BYTES));
        while let Some(piece) = self.next_piece()? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}
