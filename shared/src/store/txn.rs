//! Reading and writing rows: typed, and with a hash beside each that is checked at every read.

use std::cell::RefCell;
use std::collections::BTreeMap;

use redb::{
    ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata as _, TableDefinition,
    TableError, WriteTransaction,
};

use super::StoreError;
use super::index::from_redb;

/// A table of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub &'static str);

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.0)
    }
}

/// A thing that is kept as a row: its version, and its bytes (made by the [`crate::row!`] macro).
pub trait Row: Sized {
    /// The first byte of the row. A new shape gets a new number.
    const VERSION: u8;
    /// The row's bytes after the version.
    fn encode(&self) -> Vec<u8>;
    /// Reads what [`Row::encode`] wrote.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Makes an rkyv type a [`Row`].
#[macro_export]
macro_rules! row {
    ($type:ty, $version:literal) => {
        impl $crate::store::Row for $type {
            const VERSION: u8 = $version;

            fn encode(&self) -> Vec<u8> {
                $crate::rkyv::to_bytes::<$crate::rkyv::rancor::Error>(self)
                    .expect("plain values are always archived")
                    .into_vec()
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                $crate::rkyv::from_bytes::<Self, $crate::rkyv::rancor::Error>(bytes).ok()
            }
        }
    };
}

const HASH_BYTES: usize = 16;

/// A row as it lies in the index: hash, version, bytes. The hash covers table and key too, so a row
/// that the disk returned in the place of another is found as well.
fn seal_row(table: Table, key: &[u8], version: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HASH_BYTES];
    out.push(version);
    out.extend_from_slice(bytes);
    let hash = row_hash(table.0, key, &out[HASH_BYTES..]);
    out[..HASH_BYTES].copy_from_slice(&hash);
    out
}

fn open_row(table: &str, key: &[u8], stored: &[u8]) -> Result<(u8, Vec<u8>), StoreError> {
    let damaged = || StoreError::Damaged(format!("a row of {table}"));
    let (hash, content) = stored.split_at_checked(HASH_BYTES).ok_or_else(damaged)?;
    let (version, bytes) = content.split_first().ok_or_else(damaged)?;
    let whole = row_hash(table, key, content) == hash;
    whole.then(|| (*version, bytes.to_vec())).ok_or_else(damaged)
}

fn row_hash(table: &str, key: &[u8], content: &[u8]) -> [u8; HASH_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.as_bytes());
    hasher.update(&[0]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(content);
    let mut hash = [0; HASH_BYTES];
    hasher.finalize_xof().fill(&mut hash);
    hash
}

fn typed<R: Row>(table: Table, (version, bytes): (u8, Vec<u8>)) -> Result<R, StoreError> {
    (version == R::VERSION)
        .then(|| R::decode(&bytes))
        .flatten()
        .ok_or_else(|| StoreError::Damaged(format!("a row of {} (version {version})", table.0)))
}

fn all_typed<R: Row>(table: Table, rows: Vec<Found>) -> Result<Vec<(Vec<u8>, R)>, StoreError> {
    rows.into_iter().map(|(key, raw)| Ok((key, typed(table, raw)?))).collect()
}

/// A key and the row under it, checked but not yet read.
pub type Found = (Vec<u8>, (u8, Vec<u8>));

/// Reading rows, from a snapshot or within an operation.
pub trait Rows {
    /// The row's version and bytes.
    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<(u8, Vec<u8>)>, StoreError>;

    /// At most `max` rows with `from <= key`, and `key < to` if `to` is given; rising, or falling if
    /// `backwards`.
    fn raw_range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
        backwards: bool,
    ) -> Result<Vec<Found>, StoreError>;

    /// The keys of at most `max` rows with `from <= key`, rising. The rows are not read: a damaged one has its key here,
    /// too.
    fn keys(&self, table: Table, from: &[u8], max: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// How many rows there are. None of them is read.
    fn count(&self, table: Table) -> Result<u64, StoreError>;

    /// The row under `key`.
    fn get<R: Row>(&self, table: Table, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.raw(table, key)?.map(|raw| typed(table, raw)).transpose()
    }

    /// At most `max` rows with `from <= key < to`, rising.
    fn range<R: Row>(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<(Vec<u8>, R)>, StoreError> {
        all_typed(table, self.raw_range(table, from, to, max, false)?)
    }

    /// At most `max` rows with `from <= key < to`, from the last key down.
    fn range_backwards<R: Row>(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<(Vec<u8>, R)>, StoreError> {
        all_typed(table, self.raw_range(table, from, to, max, true)?)
    }

    /// At most `max` rows whose key begins with `prefix`, rising.
    fn prefix<R: Row>(
        &self,
        table: Table,
        prefix: &[u8],
        max: usize,
    ) -> Result<Vec<(Vec<u8>, R)>, StoreError> {
        self.range(table, prefix, after_prefix(prefix).as_deref(), max)
    }

    /// At most `max` rows whose key begins with `prefix`, from the last key down.
    fn prefix_backwards<R: Row>(
        &self,
        table: Table,
        prefix: &[u8],
        max: usize,
    ) -> Result<Vec<(Vec<u8>, R)>, StoreError> {
        self.range_backwards(table, prefix, after_prefix(prefix).as_deref(), max)
    }
}

/// Where to go on reading after `found`, of which `max` were asked for; `None` if it was the end.
pub fn behind<R>(found: &[(Vec<u8>, R)], max: usize) -> Option<Vec<u8>> {
    let (last, _) = found.last().filter(|_| found.len() == max)?;
    Some([last.as_slice(), &[0]].concat())
}

/// The first key behind all that begin with `prefix`; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix[..=kept].to_vec();
    after[kept] += 1;
    Some(after)
}

fn collect_range<T: ReadableTable<&'static [u8], &'static [u8]>>(
    table: Table,
    rows: &T,
    from: &[u8],
    to: Option<&[u8]>,
    max: usize,
    backwards: bool,
) -> Result<Vec<Found>, StoreError> {
    let mut range = match to {
        Some(to) if from >= to => return Ok(Vec::new()),
        Some(to) => rows.range::<&[u8]>(from..to),
        None => rows.range::<&[u8]>(from..),
    }
    .map_err(from_redb)?;
    let mut found = Vec::new();
    while found.len() < max {
        let Some(entry) = (if backwards { range.next_back() } else { range.next() }) else { break };
        let (key, value) = entry.map_err(from_redb)?;
        let row = open_row(table.0, key.value(), value.value())?;
        found.push((key.value().to_vec(), row));
    }
    Ok(found)
}

fn collect_keys<T: ReadableTable<&'static [u8], &'static [u8]>>(
    rows: &T,
    from: &[u8],
    max: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let range = rows.range::<&[u8]>(from..).map_err(from_redb)?;
    range.take(max).map(|entry| entry.map(|(key, _)| key.value().to_vec()).map_err(from_redb)).collect()
}

/// The committed state at one moment.
pub struct Snapshot(ReadTransaction);

impl Snapshot {
    pub(super) fn of(database: &redb::Database) -> Result<Self, StoreError> {
        Ok(Self(database.begin_read().map_err(from_redb)?))
    }

    fn table(&self, table: Table) -> Result<Option<ReadTable>, StoreError> {
        match self.0.open_table(table.definition()) {
            Ok(open) => Ok(Some(open)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(from_redb(error)),
        }
    }

    /// Writes every row, as it lies here and checked, into an empty index. Returns their number.
    pub(super) fn copy_rows(&self, into: &redb::Database, at_once: usize) -> Result<u64, StoreError> {
        use redb::TableHandle as _;
        let mut copied = 0;
        for handle in self.0.list_tables().map_err(from_redb)? {
            let name = handle.name().to_owned();
            let definition = TableDefinition::<&[u8], &[u8]>::new(&name);
            let table = self.0.open_table(definition).map_err(from_redb)?;
            let mut rows = table.iter().map_err(from_redb)?.peekable();
            while rows.peek().is_some() {
                let mut transaction = into.begin_write().map_err(from_redb)?;
                transaction.set_two_phase_commit(true);
                {
                    let mut open = transaction.open_table(definition).map_err(from_redb)?;
                    for entry in rows.by_ref().take(at_once) {
                        let (key, value) = entry.map_err(from_redb)?;
                        open_row(&name, key.value(), value.value())?;
                        open.insert(key.value(), value.value()).map_err(from_redb)?;
                        copied += 1;
                    }
                }
                transaction.commit().map_err(from_redb)?;
            }
        }
        Ok(copied)
    }

    /// Calls `visit` with the outcome of checking each row of each table.
    pub(super) fn check_rows(&self, mut visit: impl FnMut(Result<(), StoreError>)) -> Result<(), StoreError> {
        use redb::TableHandle as _;
        for handle in self.0.list_tables().map_err(from_redb)? {
            let name = handle.name().to_owned();
            let definition = TableDefinition::<&[u8], &[u8]>::new(&name);
            let table = self.0.open_table(definition).map_err(from_redb)?;
            for entry in table.iter().map_err(from_redb)? {
                let (key, value) = entry.map_err(from_redb)?;
                visit(open_row(&name, key.value(), value.value()).map(drop));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Rows for Snapshot {
    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<(u8, Vec<u8>)>, StoreError> {
        let Some(open) = self.table(table)? else { return Ok(None) };
        let stored = open.get(key).map_err(from_redb)?;
        stored.map(|stored| open_row(table.0, key, stored.value())).transpose()
    }

    fn raw_range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
        backwards: bool,
    ) -> Result<Vec<Found>, StoreError> {
        let Some(open) = self.table(table)? else { return Ok(Vec::new()) };
        collect_range(table, &open, from, to, max, backwards)
    }

    fn keys(&self, table: Table, from: &[u8], max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.table(table)?.map_or_else(|| Ok(Vec::new()), |open| collect_keys(&open, from, max))
    }

    fn count(&self, table: Table) -> Result<u64, StoreError> {
        self.table(table)?.map_or(Ok(0), |open| open.len().map_err(from_redb))
    }
}

type ReadTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;
type OpenTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// An operation's view of the commit in the making: everything written before it, by itself and by
/// the operations that share its commit.
pub struct Txn<'t> {
    transaction: &'t WriteTransaction,
    /// In the order of their names, so that the same operations always make the same file.
    tables: RefCell<BTreeMap<Table, OpenTable<'t>>>,
    /// What each write replaced, so that an operation that fails leaves nothing behind.
    undo: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// What counts as written for those who wait, although its row stays as it is.
    touched: Vec<(Table, Vec<u8>)>,
    /// Undoing failed: nothing of this commit may become durable.
    spoiled: Option<StoreError>,
    /// Segments in which, after this commit, nothing lives any more.
    pub(super) emptied: Vec<u32>,
}

/// What a commit in the making has come to.
#[derive(Debug)]
pub(super) struct Finished {
    /// The rows that were written or removed.
    pub written: Vec<(Table, Vec<u8>)>,
    /// The segments that were emptied.
    pub emptied: Vec<u32>,
}

/// A point within an operation.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl std::fmt::Debug for Txn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Txn({} writes)", self.undo.len())
    }
}

impl<'t> Txn<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self {
            transaction,
            tables: RefCell::default(),
            undo: Vec::new(),
            touched: Vec::new(),
            spoiled: None,
            emptied: Vec::new(),
        }
    }

    /// Writes `row` under `key`.
    pub fn put<R: Row>(&mut self, table: Table, key: &[u8], row: &R) -> Result<(), StoreError> {
        let stored = seal_row(table, key, R::VERSION, &row.encode());
        let replaced = self.with(table, |open| {
            let old = open.insert(key, stored.as_slice()).map_err(from_redb)?;
            Ok(old.map(|old| old.value().to_vec()))
        })?;
        self.undo.push((table, key.into(), replaced));
        Ok(())
    }

    /// Removes the row under `key`, if there is one.
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        let removed = self.with(table, |open| {
            let old = open.remove(key).map_err(from_redb)?;
            Ok(old.map(|old| old.value().to_vec()))
        })?;
        if removed.is_some() {
            self.undo.push((table, key.into(), removed));
        }
        Ok(())
    }

    /// Tells those who wait for rows that begin with `key` that something they show has changed, in another table. It
    /// counts only with a write in the same commit.
    pub fn touch(&mut self, table: Table, key: &[u8]) {
        self.touched.push((table, key.into()));
    }

    /// Closes the tables.
    pub(super) fn finish(self) -> Result<Finished, StoreError> {
        match self.spoiled {
            Some(error) => Err(error),
            None => {
                let mut written: Vec<_> = self.undo.into_iter().map(|(table, key, _)| (table, key)).collect();
                if !written.is_empty() {
                    written.extend(self.touched);
                }
                Ok(Finished { written, emptied: self.emptied })
            }
        }
    }

    /// A point to go back to with [`Txn::undo`].
    pub fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Takes back everything written since `mark`. If that fails half-way, whoever had it done, nothing of this commit becomes
    /// durable.
    pub fn undo(&mut self, mark: Mark) -> Result<(), StoreError> {
        let undone = self.undo.split_off(mark.0).into_iter().rev().try_for_each(|(table, key, value)| {
            self.with(table, |open| {
                match &value {
                    Some(value) => open.insert(key.as_slice(), value.as_slice()).map(drop),
                    None => open.remove(key.as_slice()).map(drop),
                }
                .map_err(from_redb)
            })
        });
        undone.inspect_err(|error| self.spoiled = Some(error.clone()))
    }

    fn with<T>(
        &self,
        table: Table,
        action: impl FnOnce(&mut OpenTable<'t>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tables = self.tables.borrow_mut();
        let open = match tables.entry(table) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(self.transaction.open_table(table.definition()).map_err(from_redb)?)
            }
        };
        action(open)
    }
}

impl Rows for Txn<'_> {
    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<(u8, Vec<u8>)>, StoreError> {
        self.with(table, |open| {
            let stored = open.get(key).map_err(from_redb)?;
            stored.map(|stored| open_row(table.0, key, stored.value())).transpose()
        })
    }

    fn raw_range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
        backwards: bool,
    ) -> Result<Vec<Found>, StoreError> {
        self.with(table, |open| collect_range(table, open, from, to, max, backwards))
    }

    fn keys(&self, table: Table, from: &[u8], max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.with(table, |open| collect_keys(open, from, max))
    }

    fn count(&self, table: Table) -> Result<u64, StoreError> {
        self.with(table, |open| open.len().map_err(from_redb))
    }
}
