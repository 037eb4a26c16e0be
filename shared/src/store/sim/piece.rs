//! The segment format, with the marker that everybody knows, for those who attack it: records of any content, and a scan of any bytes.

use std::sync::Arc;

use super::{Faults, SimDisk};
use crate::store::gauge::Gauge;
use crate::store::marker::{FIRST_FORMAT, Marker};
use crate::store::segment::{self, Record, SEGMENT_BYTES, Segments};
use crate::store::{BodyKey, Disk, StoreError};

/// A whole record of a segment, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes before it in the segment.
    pub offset: u64,
    /// Bytes of the record, with the zeros that fill it up.
    pub length: u32,
    /// The body's key.
    pub key: BodyKey,
    /// Which piece of the body, from 0.
    pub piece: u32,
    /// Whether it is the body's last.
    pub last: bool,
    /// What the node keeps under the key.
    pub kind: u8,
    /// What a rebuild needs besides the bytes.
    pub notes: Vec<u8>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Piece {
    fn of(offset: u64, length: u32, record: Record) -> Self {
        let Record { key, piece, last, kind, notes, bytes } = record;
        Self { offset, length, key, piece, last, kind, notes, bytes }
    }

    /// The record's bytes; offset and length are not in them.
    pub fn encode(&self) -> Vec<u8> {
        let Self { key, piece, last, kind, notes, bytes, .. } = self.clone();
        Record { key, piece, last, kind, notes, bytes }.encode(&FIRST_FORMAT)
    }
}

/// The record at the start of `bytes`; `None` if there is none, or not a whole one.
pub fn piece_at(bytes: &[u8]) -> Option<Piece> {
    let record = Record::decode(bytes)?;
    let length = u32::try_from(record.encode(&FIRST_FORMAT).len()).ok()?;
    Some(Piece::of(0, length, record))
}

/// Reads `bytes` as a segment, as a rebuild does: every whole record in order, and how many bytes were
/// passed over.
///
/// # Errors
/// The disk in memory failed, which it does not.
pub fn scan(bytes: &[u8]) -> Result<(Vec<Piece>, u64), StoreError> {
    let disk = SimDisk::new(Faults::default());
    disk.create(&segment::name(0))?.write_at(0, bytes)?;
    let segments =
        Segments::new(Arc::new(disk), Arc::new(Gauge::default()), 1, SEGMENT_BYTES, Marker::none());
    let mut found = Vec::new();
    let skipped =
        segments.scan(0, |extent, record| found.push(Piece::of(extent.offset, extent.length, record)))?;
    Ok((found, skipped))
}
