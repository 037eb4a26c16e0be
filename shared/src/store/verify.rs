//! Looking over everything stored, and making the index anew from the segments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::backup::copy_file;
use super::body::{BODIES, BodyKey, BodyRow, Stored};
use super::index::aside_name;
use super::marker::Marker;
use super::segment::{self, Extent, Pin};
use super::txn::{Rows, Txn};
use super::{Disk, Owner, Store, StoreError, index, label, marker};

/// What [`verify`] found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verdict {
    /// Rows of the index that were checked.
    pub rows: u64,
    /// Bodies that were read and checked.
    pub bodies: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// What is damaged, for a person.
    pub damage: Vec<String>,
    /// What was made of the segments before, if the index was made anew from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Rebuilt>,
}

/// Lines of [`Rebuilt::lost`] at most; what is beyond is counted in the last one.
pub const LOST_NAMED_MAX: usize = 10_000;

/// What became of what lay in the segments, for a person.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Rebuilt {
    /// Bodies that are whole, and were kept.
    pub kept: u64,
    /// What is not whole and was not kept, one thing a line; the segments that hold it lie beside the others under
    /// another name.
    pub lost: Vec<String>,
}

impl Rebuilt {
    fn lose(&mut self, more: &mut u64, what: impl FnOnce() -> String) {
        match self.lost.len() {
            ..LOST_NAMED_MAX => self.lost.push(what()),
            _ => *more += 1,
        }
    }
}

/// Checks every page of the index, and reads every row and every body and checks their hashes. The store
/// is not to be written to meanwhile.
pub fn verify(store: &Store) -> Result<Verdict, StoreError> {
    let mut verdict = Verdict::default();
    verdict.damage.extend(index::check(store.disk.as_ref()).err().map(|error| error.to_string()));
    let snapshot = store.read()?;
    snapshot.check_rows(|row| {
        verdict.rows += 1;
        verdict.damage.extend(row.err().map(|error| error.to_string()));
    })?;
    for (key, _) in snapshot.range::<BodyRow>(BODIES, &[], None, usize::MAX)? {
        let Ok(key) = key.try_into().map(BodyKey) else { continue };
        match read_through(store, key) {
            Ok(bytes) => verdict.bytes += bytes,
            Err(error) => verdict.damage.push(error.to_string()),
        }
        verdict.bodies += 1;
    }
    Ok(verdict)
}

fn read_through(store: &Store, key: BodyKey) -> Result<u64, StoreError> {
    let mut reader = store.body(key)?;
    let mut bytes = 0;
    while let Some(piece) = reader.next_piece()? {
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}

/// A whole body found in the segments.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What it was kept under.
    pub key: BodyKey,
    /// The kind it was written with.
    pub kind: u8,
    /// The notes it was finished with.
    pub notes: Vec<u8>,
}

/// A body found in the segments that is not kept.
#[derive(Clone, Debug)]
pub struct Lost {
    /// What it was kept under.
    pub key: BodyKey,
    /// The kind and the notes it was finished with, if its last piece is here.
    pub end: Option<(u8, Vec<u8>)>,
}

#[derive(Default)]
struct Pieces {
    at: BTreeMap<u32, (Extent, u64)>,
    end: Option<(u32, u8, Vec<u8>)>,
}

impl Pieces {
    fn is_whole(&self) -> bool {
        self.end.as_ref().is_some_and(|(last, _, _)| self.at.keys().copied().eq(0..=*last))
    }

    /// Why it is not whole.
    fn lacking(&self) -> String {
        let here = self.at.len();
        match &self.end {
            Some((last, _, _)) => format!("{here} of {} pieces are here", u64::from(*last) + 1),
            None => format!("its end is not here, only pieces before it: {here}"),
        }
    }
}

/// What a node's `restore` says that cannot read the notes of a body: it is lost, and nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// The notes are not what this node writes.
    #[error("its notes cannot be read")]
    Unreadable,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the index of `owner`'s store anew from the segments, setting the old one aside; one that can be read and that
/// would be refused when it is opened, as another node's or a newer version's, is left alone. `restore` is called once for
/// each whole body, within the commit that keeps it, and writes the node's own rows for it. Returns
/// the store and what became of all that was found; `name` says what a body is that was lost. Bodies are restored by
/// kind, rising. Bodies that had been removed but whose space was not yet given back come back too: better twice
/// than never. Segments that hold what is lost are copied aside first: nothing that cannot be read is removed.
/// `finish` does what the node has to do once all is there. The new index counts only after it: a rebuild that is
/// broken off leaves none, and is run again.
pub fn rebuild(
    disk: Arc<dyn Disk>,
    owner: Owner,
    restore: impl Fn(&mut Txn<'_>, &Recovered) -> Result<(), NotRestored> + Clone + Send + 'static,
    name: impl Fn(&Lost) -> String,
    finish: impl FnOnce(&Store) -> Result<(), StoreError>,
) -> Result<(Store, Rebuilt), StoreError> {
    let marker = marker::known(disk.as_ref())?;
    index::is_ours(disk.as_ref(), |rows| label::check(rows, owner, marker.as_ref()))?;
    index::set_aside(disk.as_ref())?;
    let numbers = segment::list(disk.as_ref())?;
    let next = numbers.last().map_or(1, |last| last + 1);
    let index = index::create(disk.as_ref())?;
    let marker = Marker::open(disk.as_ref(), &numbers, next)?;
    let store = Store::on(disk, index, next, segment::SEGMENT_BYTES, marker)?;

    // What one body releases, or is lost with it, may lie beside others that are not restored yet.
    let _held: Vec<_> = numbers.iter().map(|number| Pin::of(&store.segments, *number)).collect();
    let (mut rebuilt, mut more, mut aside) = (Rebuilt::default(), 0, BTreeSet::new());
    let mut found = BTreeMap::<BodyKey, Pieces>::new();
    for number in &numbers {
        let skipped = store.segments.scan(*number, |extent, record| {
            let pieces = found.entry(record.key).or_default();
            pieces.at.insert(record.piece, (extent, record.bytes.len() as u64));
            if record.last {
                pieces.end = Some((record.piece, record.kind, record.notes));
            }
        })?;
        if skipped > 0 {
            let copy = copy_aside(&store, *number, &mut aside)?;
            let name = segment::name(*number);
            rebuilt.lose(&mut more, || {
                format!("{skipped} octets of {name} are no whole record, as after a crash or damage; {copy}")
            });
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(key, pieces)| (pieces.end.as_ref().map(|(_, kind, _)| *kind), *key));
    for (key, pieces) in found {
        let kept = if pieces.is_whole() {
            keep(&store, key, &pieces, restore.clone())
        } else {
            Err(NotRestored::Unreadable)
        };
        match kept {
            Ok(()) => rebuilt.kept += 1,
            Err(NotRestored::Store(error)) => return Err(error),
            Err(NotRestored::Unreadable) => {
                for (extent, _) in pieces.at.values() {
                    copy_aside(&store, extent.segment, &mut aside)?;
                }
                let why =
                    if pieces.is_whole() { NotRestored::Unreadable.to_string() } else { pieces.lacking() };
                let lost = Lost { key, end: pieces.end.map(|(_, kind, notes)| (kind, notes)) };
                rebuilt.lose(&mut more, || format!("{}: {why}", name(&lost)));
            }
        }
    }
    if more > 0 {
        rebuilt.lost.push(format!("and {more} more"));
    }
    finish(&store)?;
    label::put(&store, owner)?;
    index::finish(store.disk.as_ref())?;
    Ok((store, rebuilt))
}

/// Keeps a whole body, and what the node makes of it.
fn keep(
    store: &Store,
    key: BodyKey,
    pieces: &Pieces,
    restore: impl FnOnce(&mut Txn<'_>, &Recovered) -> Result<(), NotRestored> + Send + 'static,
) -> Result<(), NotRestored> {
    let Some((_, kind, notes)) = pieces.end.clone() else { return Err(NotRestored::Unreadable) };
    let length = pieces.at.values().map(|(_, bytes)| bytes).sum();
    let extents = pieces.at.values().map(|(at, _)| (*at, Pin::of(&store.segments, at.segment))).collect();
    let stored = Stored::found(key, kind, length, extents);
    let recovered = Recovered { key, kind, notes };
    let commit = store.commit_blocking(move |txn| {
        txn.keep_body(&stored)?;
        restore(txn, &recovered)
    });
    commit.map(|_| ())
}

/// Copies a segment aside, once, before anything of it is given back; says where it is.
fn copy_aside(store: &Store, number: u32, aside: &mut BTreeSet<u32>) -> Result<String, StoreError> {
    let (name, disk) = (segment::name(number), store.disk.as_ref());
    if !aside.insert(number) {
        return Ok(format!("{name} was set aside"));
    }
    let copy = aside_name(disk, &name)?;
    copy_file((disk, &name), (disk, &copy))?;
    disk.sync_names()?;
    Ok(format!("the whole segment was copied to {copy}"))
}
