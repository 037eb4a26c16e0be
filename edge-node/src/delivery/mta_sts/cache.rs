//! The policies that were fetched, on disk: that they hold for so long is what protects from those who take away a
//! domain's record, or its policy (RFC 8461 §10.2).

use rkyv::{Archive, Deserialize, Serialize};
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn};

use super::policy::{Mode, Policy};

/// Domain to [`StsRow`].
const POLICIES: Table = Table("mta-sts");
/// Policies that are kept; for another goes the one that ends first, of those that protect nothing if there is one.
const POLICIES_MAX: u64 = 5_000;
/// A policy is fetched anew when it is a day old, or has half of its life behind it: in milliseconds.
const FRESH_MILLIS: u64 = 24 * 3_600_000;

/// A policy that was fetched. Its times are of this node's life, in milliseconds ([`shared::age`]).
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StsRow {
    /// Its id in DNS when it was fetched.
    pub id: String,
    /// What is done about hosts that do not fit.
    pub mode: Mode,
    /// The names that hosts may have.
    pub mx: Vec<String>,
    /// When it was fetched.
    pub fetched: u64,
    /// When it ends.
    pub ends: u64,
}
row!(StsRow, 1);

impl StsRow {
    /// A policy that is fetched at `lived`.
    pub fn new(id: String, policy: Policy, lived: u64) -> Self {
        let Policy { mode, mx, max_age } = policy;
        Self { id, mode, mx, fetched: lived, ends: lived.saturating_add(max_age.saturating_mul(1_000)) }
    }

    /// Whether it is to be fetched anew at `lived`.
    pub fn is_old(&self, lived: u64) -> bool {
        let half = self.ends.saturating_sub(self.fetched) / 2;
        lived.saturating_sub(self.fetched) >= half.min(FRESH_MILLIS)
    }
}

/// The policy of a domain, unless it has ended at `lived`.
pub fn find(rows: &impl Rows, domain: &str, lived: u64) -> Result<Option<StsRow>, StoreError> {
    let found = rows.get::<StsRow>(POLICIES, domain.as_bytes())?;
    Ok(found.filter(|row| lived < row.ends))
}

/// Keeps a policy.
pub fn keep(txn: &mut Txn<'_>, domain: &str, row: &StsRow) -> Result<(), StoreError> {
    let is_new = txn.get::<StsRow>(POLICIES, domain.as_bytes())?.is_none();
    if is_new && txn.count(POLICIES)? >= POLICIES_MAX {
        let first = readable(txn)?.into_iter().min_by_key(|(_, row)| (row.mode == Mode::Enforce, row.ends));
        first.map_or(Ok(()), |(domain, _)| txn.delete(POLICIES, domain.as_bytes()))?;
    }
    txn.put(POLICIES, domain.as_bytes(), row)
}

/// Removes the policies that have ended at `lived`.
pub fn forget_ended(txn: &mut Txn<'_>, lived: u64) -> Result<(), StoreError> {
    for (domain, row) in readable(txn)? {
        if lived >= row.ends {
            txn.delete(POLICIES, domain.as_bytes())?;
        }
    }
    Ok(())
}

/// A domain, and its policy or why that cannot be read.
type Kept = (String, Result<StsRow, StoreError>);

/// All policies and their domains: there are few enough. One that cannot be read does not hide the others.
pub fn all(rows: &impl Rows) -> Result<Vec<Kept>, StoreError> {
    let max = usize::try_from(POLICIES_MAX).unwrap_or(usize::MAX);
    let one = |key: Vec<u8>| {
        let row = rows.get::<StsRow>(POLICIES, &key).transpose()?;
        Some((String::from_utf8(key).ok()?, row))
    };
    Ok(rows.keys(POLICIES, &[], max)?.into_iter().filter_map(one).collect())
}

fn readable(rows: &impl Rows) -> Result<Vec<(String, StsRow)>, StoreError> {
    Ok(all(rows)?.into_iter().filter_map(|(domain, row)| Some((domain, row.ok()?))).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::store::{DirectoryDisk, Store};

    use super::*;

    /// What no node of this version has written.
    #[derive(Archive, Serialize, Deserialize, Clone, Debug)]
    struct Strange(u8);
    row!(Strange, 77);

    #[test]
    fn a_row_that_cannot_be_read_hides_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let store =
            Store::open(Arc::new(DirectoryDisk::open(folder.path()).expect("a disk"))).expect("opens");
        let kept = store.commit_blocking(|txn| {
            keep(txn, "a.example", &StsRow::new("1".into(), policy(1), 0))?;
            txn.put(POLICIES, b"b.example", &Strange(1))?;
            keep(txn, "c.example", &StsRow::new("1".into(), policy(1_000), 0))?;
            forget_ended(txn, 2_000)?;
            all(txn)
        });
        let found = kept.expect("commits").into_inner();
        let told: Vec<_> = found.iter().map(|(domain, row)| (domain.as_str(), row.is_ok())).collect();
        assert_eq!(told, [("b.example", false), ("c.example", true)]);
        let rows = store.read().expect("readable");
        assert!(
            find(&rows, "b.example", 0).is_err(),
            "what may have been asked for is not taken for nothing"
        );
    }

    fn policy(max_age: u64) -> Policy {
        Policy { mode: Mode::Enforce, mx: vec!["mx.remote.example".into()], max_age }
    }

    #[test]
    fn a_policy_is_fetched_anew_long_before_it_ends() {
        let row = StsRow::new("1".into(), policy(100), 5_000);
        assert_eq!((row.is_old(54_999), row.is_old(55_000)), (false, true));
        let row = StsRow::new("1".into(), policy(31_557_600), 0);
        assert_eq!((row.is_old(FRESH_MILLIS - 1), row.is_old(FRESH_MILLIS)), (false, true));
    }

    #[test]
    fn policies_hold_until_they_end_and_are_bounded_in_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Arc::new(DirectoryDisk::open(folder.path()).expect("a disk"));
        let store = Store::open(disk).expect("a store");
        let filled = store.commit_blocking(|txn| {
            for number in 0..=POLICIES_MAX {
                let row = StsRow::new("1".into(), policy(1_000 - number.min(900)), 0);
                keep(txn, &format!("d{number}.example"), &row)?;
            }
            Ok::<_, StoreError>(())
        });
        filled.expect("commits");
        let rows = store.read().expect("readable");
        assert_eq!(all(&rows).expect("readable").len() as u64, POLICIES_MAX);
        let find = |domain: &str, lived| find(&rows, domain, lived).expect("readable");
        assert!(find("d0.example", 999_999).is_some() && find("d0.example", 1_000_000).is_none());
        // One of those that end first has gone for the last.
        assert!(find(&format!("d{POLICIES_MAX}.example"), 0).is_some());
        // Of those that protect something none has to go for others while there is another.
        let shaken = store.commit_blocking(|txn| {
            let tested = Policy { mode: Mode::Testing, ..policy(31_557_600) };
            keep(txn, "d1.example", &StsRow::new("1".into(), tested, 0))?;
            keep(txn, "new.example", &StsRow::new("1".into(), policy(1), 0))?;
            readable(txn)
        });
        let left = shaken.expect("commits").into_inner();
        assert_eq!(left.len() as u64, POLICIES_MAX);
        assert!(left.iter().all(|(domain, _)| domain != "d1.example"));
        let forgotten = store.commit_blocking(|txn| {
            forget_ended(txn, 999_000)?;
            readable(txn)
        });
        assert_eq!(forgotten.expect("commits").into_inner().len(), 1);
    }
}
