//! Segments out of any bytes, and whole records among damaged ones.

use shared::store::BodyKey;
use shared::store::sim::{Piece, piece_at, scan};

use super::script::Script;

/// Bytes of a segment that one script writes.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;
/// What a record begins with.
const MAGIC: &[u8; 8] = b"SLYPOST\x01";
/// Bytes of a record's header before its hash, and with it.
const UNHASHED: usize = 56;
const HEADER: usize = 88;
/// Records begin at multiples of this.
const ALIGNMENT: usize = 8;

/// The bytes, first as a segment as they are, then as a script that writes one and damages it.
///
/// # Panics
/// If a whole record is not found where it was written, or what is found is not a whole record.
pub fn records(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    check(script.rest(), &[]);

    let mut script = Script::new(bytes);
    let mut segment = Segment::default();
    while !script.is_over() && segment.image.len() < SEGMENT_BYTES_MAX {
        segment.step(&mut script);
    }
    let whole: Vec<_> =
        segment.written.into_iter().filter_map(|(piece, whole)| whole.then_some(piece)).collect();
    check(&segment.image, &whole);
}

/// A segment as it lies on disk, and each record that was written with whether it is still whole.
#[derive(Debug, Default)]
struct Segment {
    image: Vec<u8>,
    written: Vec<(Piece, bool)>,
}

impl Segment {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(5) {
            0 => {
                let (notes, bytes) = (usize::from(script.below(32)), usize::from(script.byte()));
                let piece = Piece {
                    offset: self.image.len() as u64,
                    length: 0,
                    key: BodyKey([script.byte(); 32]),
                    piece: script.byte().into(),
                    last: script.byte() & 1 != 0,
                    kind: script.byte(),
                    notes: script.bytes(notes).to_vec(),
                    bytes: script.bytes(bytes).to_vec(),
                };
                self.write(&piece.encode(), piece);
            }
            1 => self.forge(script),
            2 => {
                let length = usize::from(script.byte());
                self.image.extend_from_slice(script.bytes(length));
                self.image.resize(self.image.len().next_multiple_of(ALIGNMENT), 0);
            }
            3 => self.flip(script),
            _ => {
                let kept = self.image.len().saturating_sub(script.byte().into());
                self.image.truncate(kept);
                for (piece, whole) in &mut self.written {
                    *whole &= piece.offset + u64::from(piece.length) <= kept as u64;
                }
                self.image.resize(kept.next_multiple_of(ALIGNMENT), 0);
            }
        }
    }

    fn write(&mut self, encoded: &[u8], mut piece: Piece) {
        piece.length = u32::try_from(encoded.len()).expect("a script is short");
        self.image.extend_from_slice(encoded);
        self.written.push((piece, true));
    }

    /// A record with any header at all, and a hash that is right for it.
    fn forge(&mut self, script: &mut Script<'_>) {
        let mut record = vec![0; HEADER];
        record[..8].copy_from_slice(MAGIC);
        let fields = script.bytes(16);
        record[40..40 + fields.len()].copy_from_slice(fields);
        let length = usize::from(script.byte());
        let content = script.bytes(length);
        if !script.rarely() {
            let notes = content.len().min(3);
            for (at, length) in [(48, notes), (52, content.len() - notes)] {
                let length = u32::try_from(length).expect("at most 255");
                record[at..at + 4].copy_from_slice(&length.to_le_bytes());
            }
        }
        record.extend_from_slice(content);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&record[..UNHASHED]).update(&record[HEADER..]);
        record[UNHASHED..HEADER].copy_from_slice(hasher.finalize().as_bytes());
        self.image.extend_from_slice(&record);
        self.image.resize(self.image.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn flip(&mut self, script: &mut Script<'_>) {
        let at = usize::from(u16::from_le_bytes([script.byte(), script.byte()]));
        let Some(byte) = self.image.get_mut(at) else { return };
        *byte ^= script.byte() | 1;
        for (piece, whole) in &mut self.written {
            let start = usize::try_from(piece.offset).expect("within the image");
            // Not the zeros that fill it up: nothing is read from them.
            let end = start + HEADER + piece.notes.len() + piece.bytes.len();
            *whole &= !(start..end).contains(&at);
        }
    }
}

/// Scans a segment, which must give at least `whole`.
fn check(image: &[u8], whole: &[Piece]) {
    let (found, skipped) = scan(image).expect("the disk is well");
    let mut end = 0;
    for piece in &found {
        assert!(piece.offset >= end && piece.offset % ALIGNMENT as u64 == 0, "{piece:?} begins before {end}");
        end = piece.offset + u64::from(piece.length);
        let at = usize::try_from(piece.offset).expect("within the image");
        let alone = piece_at(&image[at..]).expect("what a scan finds is a record");
        assert_eq!(Piece { offset: piece.offset, ..alone }, *piece);
        let again = piece_at(&piece.encode()).expect("what is written can be read");
        assert_eq!(Piece { offset: piece.offset, ..again }, *piece);
    }
    let covered: u64 = found.iter().map(|piece| u64::from(piece.length)).sum();
    assert!(end <= image.len() as u64, "beyond the end");
    assert_eq!(covered + skipped, image.len().next_multiple_of(ALIGNMENT) as u64, "not all was looked at");
    for piece in whole {
        assert!(found.contains(piece), "{piece:?} is whole and was not found");
    }
}
