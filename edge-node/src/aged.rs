//! A set of keys, each with the moment when it was last put there, that never grows beyond its bound: for a new key the
//! oldest goes.

use rkyv::{Archive, Deserialize, Serialize};
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn};

/// Old keys that one step forgets.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// Where a set lies, and its bound.
#[derive(Clone, Copy, Debug)]
pub struct Aged {
    /// Key to [`Row`].
    pub keys: Table,
    /// Milliseconds since 1970 and the key, to [`Marker`]: the oldest first.
    pub by_age: Table,
    /// The empty key to [`Count`].
    pub count: Table,
    /// How many keys there are at most.
    pub max: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Row {
    at: u64,
}
row!(Row, 1);

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Marker;
row!(Marker, 1);

/// How many keys a set has.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub(crate) struct Count(pub u64);
row!(Count, 1);

fn age_key(at: u64, key: &[u8]) -> Vec<u8> {
    [&at.to_be_bytes(), key].concat()
}

impl Aged {
    /// When `key` was last put there, in milliseconds since 1970.
    pub fn get(&self, rows: &impl Rows, key: &[u8]) -> Result<Option<u64>, StoreError> {
        Ok(rows.get::<Row>(self.keys, key)?.map(|row| row.at))
    }

    /// How many keys there are.
    pub fn len(&self, rows: &impl Rows) -> Result<u64, StoreError> {
        Ok(rows.get::<Count>(self.count, b"")?.unwrap_or_default().0)
    }

    /// When the oldest key was last put there.
    pub fn oldest(&self, rows: &impl Rows) -> Result<Option<u64>, StoreError> {
        let found = rows.raw_range(self.by_age, &[], None, 1, false)?;
        let at = found.first().and_then(|(key, _)| key.first_chunk());
        Ok(at.map(|at| u64::from_be_bytes(*at)))
    }

    /// How many keys begin with `prefix`; of more than `max` no more are counted.
    pub fn beginning_with(&self, rows: &impl Rows, prefix: &[u8], max: usize) -> Result<usize, StoreError> {
        Ok(rows.prefix::<Row>(self.keys, prefix, max)?.len())
    }

    /// Puts `key` there at `at`, whether or not it is there.
    pub fn put(&self, txn: &mut Txn<'_>, key: &[u8], at: u64) -> Result<(), StoreError> {
        match self.get(txn, key)? {
            Some(before) => txn.delete(self.by_age, &age_key(before, key))?,
            None => {
                if self.len(txn)? >= self.max {
                    self.forget(txn, 1, u64::MAX)?;
                }
                let count = self.len(txn)?;
                txn.put(self.count, b"", &Count(count + 1))?;
            }
        }
        txn.put(self.keys, key, &Row { at })?;
        txn.put(self.by_age, &age_key(at, key), &Marker)
    }

    /// Takes `key` away, if it is there.
    pub fn remove(&self, txn: &mut Txn<'_>, key: &[u8]) -> Result<(), StoreError> {
        let Some(at) = self.get(txn, key)? else { return Ok(()) };
        txn.delete(self.by_age, &age_key(at, key))?;
        txn.delete(self.keys, key)?;
        let left = self.len(txn)?.saturating_sub(1);
        txn.put(self.count, b"", &Count(left))
    }

    /// Forgets some of the keys that were last put there before `before`.
    pub fn forget_before(&self, txn: &mut Txn<'_>, before: u64) -> Result<(), StoreError> {
        self.forget(txn, FORGOTTEN_AT_ONCE, before)
    }

    /// Forgets the oldest, at most `max`, that were last put there before `before`.
    fn forget(&self, txn: &mut Txn<'_>, max: usize, before: u64) -> Result<(), StoreError> {
        let found = txn.raw_range(self.by_age, &[], Some(&before.to_be_bytes()), max, false)?;
        for (key, _) in &found {
            txn.delete(self.by_age, key)?;
            txn.delete(self.keys, key.get(8..).unwrap_or_default())?;
        }
        if !found.is_empty() {
            let left = self.len(txn)?.saturating_sub(found.len() as u64);
            txn.put(self.count, b"", &Count(left))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};

    use super::*;

    const SET: Aged = Aged { keys: Table("keys"), by_age: Table("by-age"), count: Table("count"), max: 3 };

    #[test]
    fn the_oldest_goes_when_there_are_too_many_and_what_is_put_again_is_young() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let left = store.commit_blocking(|txn| {
            for (key, at) in [(b"a", 1), (b"b", 2), (b"c", 3), (b"a", 4), (b"d", 5)] {
                SET.put(txn, key, at)?;
            }
            let found = [b"a", b"b", b"c", b"d"].map(|key| SET.get(txn, key).expect("reads"));
            assert_eq!((found, SET.len(txn)?), ([Some(4), None, Some(3), Some(5)], 3));
            assert_eq!(SET.oldest(txn)?, Some(3));
            let counted = [("a", 9), ("b", 9), ("", 9), ("", 2)]
                .map(|(prefix, max)| SET.beginning_with(txn, prefix.as_bytes(), max).expect("reads"));
            assert_eq!(counted, [1, 0, 3, 2]);
            SET.remove(txn, b"c")?;
            SET.remove(txn, b"b")?;
            SET.forget_before(txn, 5)?;
            let rows = [SET.keys, SET.by_age].map(|table| txn.count(table).expect("reads"));
            Ok::<_, StoreError>((rows, SET.len(txn)?, SET.get(txn, b"d")?))
        });
        assert_eq!(left.expect("commits").into_inner(), ([1, 1], 1, Some(5)));
    }
}
