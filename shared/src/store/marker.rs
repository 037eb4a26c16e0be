//! What the records of a store begin with: octets that nobody else knows.
//!
//! A rebuild looks for records behind a damaged stretch by what they begin with. A body may hold what looks like a
//! record, for its bytes are a stranger's; so that nobody can write one that is taken for a record, a store
//! begins its records with a secret of its own. It is made with the store and lies beside the segments; if it is
//! lost, the segments' own beginnings say what it was. Segments of the first format have one beginning for all.

use std::collections::BTreeMap;
use std::io;

use super::StoreError;
use super::disk::Disk;
use super::segment;
use crate::id::random;

const NAME: &str = "marker";
const UNFINISHED: &str = "marker.unfinished";
/// Octets of the file: the marker, the first segment that has it, and a hash of both.
const FILE_BYTES: usize = 32;
const HASHED: usize = 12;

/// Octets of what a record begins with.
pub(super) const MARKER_BYTES: usize = 8;
/// The first format's.
pub(super) const FIRST_FORMAT: [u8; MARKER_BYTES] = *b"SLYPOST\x01";
/// The last octet of a marker: the format's version.
const VERSION: u8 = 2;

/// A store's marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    octets: [u8; MARKER_BYTES],
    /// The first segment whose records begin with it.
    from: u32,
}

impl Marker {
    /// The marker of the store on `disk`, which has these segments and goes on with segment `next`.
    pub fn open(disk: &dyn Disk, segments: &[u32], next: u32) -> Result<Self, StoreError> {
        if let Some(marker) = known(disk)? {
            return Ok(marker);
        }
        let marker = match found(disk, segments)? {
            Some(marker) => marker,
            None => Self::new(next),
        };
        if is_there(disk)? {
            disk.remove(NAME)?;
        }
        marker.write(disk)?;
        Ok(marker)
    }

    fn new(from: u32) -> Self {
        let mut octets: [u8; MARKER_BYTES] = random();
        octets[MARKER_BYTES - 1] = VERSION;
        Self { octets, from }
    }

    /// The store of segments of the first format, none of which is followed by another.
    #[cfg(any(test, feature = "sim"))]
    pub fn none() -> Self {
        Self { octets: FIRST_FORMAT, from: u32::MAX }
    }

    /// Puts a marker onto an empty disk that is no secret, so that what is done there can be done again alike.
    #[cfg(any(test, feature = "sim"))]
    pub fn put_known(disk: &dyn Disk) -> Result<(), StoreError> {
        Self { octets: [1, 2, 3, 4, 5, 6, 7, VERSION], from: 1 }.write(disk)
    }

    /// What a record that is written now begins with.
    pub fn octets(&self) -> [u8; MARKER_BYTES] {
        self.octets
    }

    /// What the records of a segment begin with.
    pub fn of(&self, segment: u32) -> [u8; MARKER_BYTES] {
        if segment < self.from { FIRST_FORMAT } else { self.octets }
    }

    /// Writes the marker of a copy.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let mut bytes = [self.octets.as_slice(), &self.from.to_le_bytes()].concat();
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(&hash.as_bytes()[..FILE_BYTES - HASHED]);
        // It gets its name only once it is whole, and before any record begins with it.
        let file = disk.create(UNFINISHED)?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        disk.rename(UNFINISHED, NAME)?;
        Ok(disk.sync_names()?)
    }
}

/// Whether a record may begin so.
pub(super) fn is_one(octets: &[u8]) -> bool {
    octets == FIRST_FORMAT || octets.last() == Some(&VERSION)
}

fn is_there(disk: &dyn Disk) -> io::Result<bool> {
    Ok(disk.list()?.iter().any(|name| name == NAME))
}

/// The marker in its file; `None` if there is none, or it is damaged.
pub(super) fn known(disk: &dyn Disk) -> io::Result<Option<Marker>> {
    if is_there(disk)? { read(disk) } else { Ok(None) }
}

/// The marker in its file; `None` if it is damaged.
fn read(disk: &dyn Disk) -> io::Result<Option<Marker>> {
    let file = disk.open(NAME)?;
    let mut bytes = [0; FILE_BYTES];
    if file.len()? != FILE_BYTES as u64 {
        return Ok(None);
    }
    file.read_at(0, &mut bytes)?;
    let (content, hash) = bytes.split_at(HASHED);
    let whole = blake3::hash(content).as_bytes().starts_with(hash);
    let (octets, from) = content.split_at(MARKER_BYTES);
    let (Ok(octets), Ok(from)) = (octets.try_into(), from.try_into()) else { return Ok(None) };
    Ok(whole.then(|| Marker { octets, from: u32::from_le_bytes(from) }))
}

/// The marker with which most segments begin; `None` if all are of the first format.
fn found(disk: &dyn Disk, segments: &[u32]) -> io::Result<Option<Marker>> {
    let mut beginnings: BTreeMap<[u8; MARKER_BYTES], (usize, u32)> = BTreeMap::new();
    for number in segments {
        let file = disk.open(&segment::name(*number))?;
        let mut octets = [0; MARKER_BYTES];
        if file.len()? < MARKER_BYTES as u64 {
            continue;
        }
        file.read_at(0, &mut octets)?;
        if octets[MARKER_BYTES - 1] == VERSION {
            beginnings.entry(octets).or_insert((0, *number)).0 += 1;
        }
    }
    let most = beginnings.into_iter().max_by_key(|(_, (count, _))| *count);
    Ok(most.map(|(octets, (_, from))| Marker { octets, from }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sim::{Faults, SimDisk};

    #[test]
    fn a_marker_is_a_stores_own_and_is_found_again() {
        let disk = SimDisk::new(Faults::default());
        let marker = Marker::open(&disk, &[], 1).expect("is made");
        assert_eq!(Marker::open(&disk, &[], 9).expect("is read"), marker);
        assert_eq!((marker.of(1), marker.octets()[7]), (marker.octets(), VERSION));
        let other = Marker::open(&SimDisk::new(Faults::default()), &[], 1).expect("is made");
        assert_ne!(other.octets(), marker.octets());

        // Two segments begin with it, the beginning of a third is damaged, and one is of the first format.
        for (number, begins) in
            [(1, FIRST_FORMAT), (2, marker.octets()), (3, *b"damaged\x02"), (4, marker.octets())]
        {
            disk.create(&segment::name(number)).and_then(|file| file.write_at(0, &begins)).expect("writes");
        }
        let file: Arc<dyn crate::store::File> = disk.open(NAME).expect("is there");
        file.write_at(3, &[!marker.octets()[3]]).expect("writes");
        let again = Marker::open(&disk, &[1, 2, 3, 4], 5).expect("is found");
        assert_eq!((again.octets(), again.from), (marker.octets(), 2));
        assert_eq!((again.of(1), again.of(3)), (FIRST_FORMAT, marker.octets()));
        disk.remove(NAME).expect("is removed");
        assert_eq!(Marker::open(&disk, &[1], 5).expect("is made").from, 5, "an older store goes on with one");
    }
}
