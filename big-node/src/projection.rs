//! What the edge knows of the directory: rows queued for it in the commit that changes them, or the whole
//! of them, many to a unit.

use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::store::{Rows, StoreError, Txn};
use shared::unit::{self, AddressRow, DirectoryRows, Id, ToEdge, directory_hash};

use crate::directory;
use crate::record::{EDGE, EdgeRow, Person, WINDOWS, WindowRow, WindowState};

/// The lane on which the edge is told what it has to know: ahead of all mail.
pub const SERVICE_LANE: u8 = 0;
/// Rows in one unit: some 12 KiB.
pub const ROWS_PER_UNIT: usize = 256;

/// The paired edge.
pub fn edge(rows: &impl Rows) -> Result<Option<EdgeRow>, StoreError> {
    rows.get(EDGE, b"edge")
}

/// Queues a service unit without a body.
pub fn tell_edge(txn: &mut Txn<'_>, head: &ToEdge) -> Result<(), StoreError> {
    let unit = QueuedUnit {
        id: shared::id::MessageId::generate().0,
        lane: SERVICE_LANE,
        after: None,
        head: unit::encode(head),
        body: QueuedBody::None,
    };
    lane::queue(txn, &unit).map(drop)
}

/// Tells the edge of an address that takes mail, and whose it is if that is a person.
pub fn tell_known(txn: &mut Txn<'_>, canonical: &str, person: Option<Id>) -> Result<(), StoreError> {
    let Some(edge) = edge(txn)? else { return Ok(()) };
    let hash = directory_hash(&edge.directory_key, canonical);
    tell_edge(txn, &ToEdge::Address(AddressRow { hash, person }))
}

/// Tells the edge of an address that takes mail no more.
pub fn tell_gone(txn: &mut Txn<'_>, canonical: &str) -> Result<(), StoreError> {
    let Some(edge) = edge(txn)? else { return Ok(()) };
    tell_edge(txn, &ToEdge::AddressGone { hash: directory_hash(&edge.directory_key, canonical) })
}

/// The projection: what `edge` has to know, in the order of its hashes.
pub fn rows(rows: &impl Rows, edge: &EdgeRow) -> Result<Vec<AddressRow>, StoreError> {
    let row = |(canonical, person): (String, Option<Id>)| AddressRow {
        hash: directory_hash(&edge.directory_key, &canonical),
        person,
    };
    let mut rows: Vec<_> = directory::known(rows)?.into_iter().map(row).collect();
    rows.sort_unstable_by_key(|row| row.hash);
    rows.dedup_by_key(|row| row.hash);
    Ok(rows)
}

/// Tells the edge all rows between two hashes, rising: what it holds there besides is no more.
pub fn tell_rows(
    txn: &mut Txn<'_>,
    rows: &[AddressRow],
    [mut from, last]: [[u8; 32]; 2],
) -> Result<(), StoreError> {
    let mut chunks = rows.chunks(ROWS_PER_UNIT).peekable();
    loop {
        let rows = chunks.next().unwrap_or_default().to_vec();
        let next = chunks.peek().and_then(|chunk| chunk.first()).map(|row| row.hash);
        let to = next.map_or(last, before);
        tell_edge(txn, &ToEdge::DirectoryRows(Box::new(DirectoryRows { from, to, rows })))?;
        match next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

/// The hash before this one, which is not the first.
fn before(mut hash: [u8; 32]) -> [u8; 32] {
    for byte in hash.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    hash
}

/// Queues the whole projection: what a newly paired edge, or one that went back, has to know. What it
/// holds besides is no more.
pub fn everything(txn: &mut Txn<'_>, sealing_key: [u8; 32]) -> Result<(), StoreError> {
    tell_edge(txn, &ToEdge::Introduction { sealing_key })?;
    tell_edge(txn, &ToEdge::DirectoryBegin)?;
    let edge = edge(txn)?;
    if let Some(edge) = &edge {
        let rows = rows(txn, edge)?;
        tell_rows(txn, &rows, [[0; 32], [0xff; 32]])?;
    }
    for (key, mut row) in txn.prefix::<WindowRow>(WINDOWS, &[], usize::MAX)? {
        if row.state != WindowState::Open {
            continue;
        }
        // Another edge hashes with a key of its own.
        if let (Some(edge), Some(person)) = (&edge, directory::by_id(txn, &row.window.person)?) {
            (row.window.logins, row.window.senders) = window_hashes(edge, &person);
            txn.put(WINDOWS, &key, &row)?;
        }
        tell_edge(txn, &ToEdge::Window(Box::new(row.window)))?;
    }
    tell_edge(txn, &ToEdge::DirectoryComplete)
}

/// Queues the whole projection anew, if an edge is paired.
pub fn renew(txn: &mut Txn<'_>, sealing_key: [u8; 32]) -> Result<(), StoreError> {
    match edge(txn)? {
        Some(_) => everything(txn, sealing_key),
        None => Ok(()),
    }
}

/// The hashes under which a person logs in to a window, and those of the addresses they write from.
pub fn window_hashes(edge: &EdgeRow, person: &Person) -> (Vec<[u8; 32]>, Vec<[u8; 32]>) {
    let hash = |text: &String| directory_hash(&edge.directory_key, text);
    let senders: Vec<_> = person.addresses.iter().map(hash).collect();
    ([&[hash(&person.name)], senders.as_slice()].concat(), senders)
}
