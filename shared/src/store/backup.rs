//! Copying a store while it is in use.
//!
//! The copy is of one committed state: rows are copied from a snapshot, and the segments it names are
//! kept from being removed meanwhile. Segments come first and the index last, so that a copy that was
//! broken off has no index and is refused as a store.
//!
//! A node that runs may write below its own state only, so its backup has two steps: it makes a copy there which
//! [shares](share) the files of bodies, for what a snapshot names in them never changes; and the command
//! [takes](take) that to where it is to be.

use std::io;
use std::sync::Arc;

use super::disk::{DirectoryDisk, Disk};
use super::segment::{self, Pin};
use super::txn::Snapshot;
use super::{RESERVE_BYTES, Store, StoreError, index, marker, space};

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// Rows of one commit of the copy.
const ROWS_AT_ONCE: usize = 10_000;
/// How often a copy begins again because a segment went away before it was pinned.
const TRIES: usize = 10;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Copied {
    /// Rows of the index.
    pub rows: u64,
    /// Bytes of segments.
    pub bytes: u64,
}

/// Copies the last committed state of `store` to `into`, which has to be empty.
pub fn backup(store: &Store, into: &dyn Disk) -> Result<Copied, StoreError> {
    copy(store, into, |name, _| copy_file((store.disk.as_ref(), name), (into, name)))
}

/// As [`backup`], but the files of bodies are the store's own, under another name in `into`; where the file system has no
/// second names, they are copied. It is for being [taken](take), and not for being opened.
///
/// # Errors
/// [`StoreError::NoRoomForCopy`] if what is to be written does not fit beside the reserve: mail is not to wait for a backup.
pub fn share(store: &Store, into: &DirectoryDisk) -> Result<Copied, StoreError> {
    share_within(store, into, || into.free_bytes())
}

fn share_within(
    store: &Store,
    into: &DirectoryDisk,
    free: impl Fn() -> io::Result<u64>,
) -> Result<Copied, StoreError> {
    let has_room = |takes| fits(free()?, takes);
    let index = store.disk.open(index::NAME)?.len()?;
    has_room(index)?;
    let mut all_fit = false;
    copy(store, into, |name, rest| match store.disk.share(name, into.path()) {
        Ok(()) => Ok(into.open(name)?.len()?),
        Err(_) => {
            // Those that follow will have no second names either, and mail takes room meanwhile.
            let takes = match all_fit {
                true => store.disk.open(name)?.len()?,
                false => rest.iter().try_fold(index, |sum, segment| {
                    Ok::<_, StoreError>(sum + store.disk.open(&segment::name(*segment))?.len()?)
                })?,
            };
            has_room(takes)?;
            all_fit = true;
            copy_file((store.disk.as_ref(), name), (into, name))
        }
    })
}

/// Copies a store that nobody has open to `into`, which has to be empty.
pub fn take(from: &dyn Disk, into: &dyn Disk) -> Result<(), StoreError> {
    for number in segment::list(from)? {
        let name = segment::name(number);
        copy_file((from, &name), (into, &name))?;
    }
    if let Some(marker) = marker::known(from)? {
        marker.write(into)?;
    }
    index::take(from, into)
}

/// Fails if so many bytes more do not leave the reserve to mail.
fn fits(free: u64, takes: u64) -> Result<(), StoreError> {
    match free.checked_sub(takes).is_some_and(|left| left >= RESERVE_BYTES) {
        true => Ok(()),
        false => Err(StoreError::NoRoomForCopy { takes, free }),
    }
}

/// Copies; `bodies` does it for a segment, of which it is told the name, and the numbers of it and of those that follow.
fn copy(
    store: &Store,
    into: &dyn Disk,
    mut bodies: impl FnMut(&str, &[u32]) -> Result<u64, StoreError>,
) -> Result<Copied, StoreError> {
    let (snapshot, numbers, _pins) = pinned(store)?;
    let mut copied = Copied::default();
    for (done, number) in numbers.iter().enumerate() {
        copied.bytes += bodies(&segment::name(*number), &numbers[done..])?;
    }
    store.segments.marker().write(into)?;
    let index = index::create(into)?;
    copied.rows = snapshot.copy_rows(&index.database, ROWS_AT_ONCE)?;
    index::finish(into)?;
    Ok(copied)
}

/// A snapshot, and its segments held in place.
fn pinned(store: &Store) -> Result<(Snapshot, Vec<u32>, Vec<Pin>), StoreError> {
    for _ in 0..TRIES {
        let snapshot = store.read()?;
        let numbers = space::live_segments(&snapshot)?;
        let pins: Vec<_> = numbers.iter().map(|number| Pin::of(&store.segments, *number)).collect();
        // One that was emptied and removed in between is no longer there.
        if numbers.iter().all(|number| store.segments.length(*number).is_ok()) {
            return Ok((snapshot, numbers, pins));
        }
    }
    Err(StoreError::Io("segments went away as fast as they were looked at; try again".into()))
}

/// Copies a file from one disk to another, or to another name; its octets.
pub(super) fn copy_file(from: (&dyn Disk, &str), to: (&dyn Disk, &str)) -> Result<u64, StoreError> {
    let (from, to): (Arc<_>, Arc<_>) = (from.0.open(from.1)?, to.0.create(to.1)?);
    let length = from.len()?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < length {
        let piece = usize::try_from(length - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        from.read_at(offset, &mut buffer[..piece])?;
        to.write_at(offset, &buffer[..piece])?;
        offset += piece as u64;
    }
    to.sync()?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BodyKey;
    use crate::store::sim::{Faults, SimDisk};

    #[test]
    fn a_copy_takes_nothing_of_the_reserve() {
        assert!(fits(RESERVE_BYTES + 10, 10).is_ok());
        assert!(fits(RESERVE_BYTES + 9, 10).is_err() && fits(9, 10).is_err());
    }

    /// A store whose disk has no second names.
    #[test]
    fn bodies_that_have_to_be_copied_are_not_begun_without_room_for_all() {
        const BODY: u64 = 3_000_000;
        let store = Store::open_with(Arc::new(SimDisk::new(Faults::default())), 2 * BODY).expect("opens");
        for key in 0..8 {
            let mut writer = store.body_writer(BodyKey([key; 32]), 1);
            writer.write(&vec![key; BODY as usize]).expect("written");
            let stored = writer.finish(Vec::new()).expect("written");
            store.commit_blocking(move |txn| txn.keep_body(&stored)).expect("commits");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let into = |name: &str| DirectoryDisk::open(&folder.path().join(name)).expect("opens");
        let (little, enough) = (into("little"), into("enough"));
        let index = store.disk.open(index::NAME).and_then(|index| index.len()).expect("there");
        let refused = share_within(&store, &little, || Ok(RESERVE_BYTES + index + 7 * BODY));
        let takes = match refused {
            Err(StoreError::NoRoomForCopy { takes, .. }) => takes,
            other => panic!("{other:?}"),
        };
        assert!(takes > index + 8 * BODY, "{takes}");
        let begun = little.list().expect("lists");
        assert_eq!(begun, ["lock"], "nothing was copied");
        let copied = share_within(&store, &enough, || Ok(RESERVE_BYTES + takes)).expect("fits");
        assert_eq!(copied.bytes, takes - index);
    }
}
