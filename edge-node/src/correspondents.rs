//! Outside addresses that people inside write to: learned here from the mail that goes out, as keyed
//! hashes, and forgotten when nobody has written to them for long. Where strangers are slowed down, mail
//! from these is not.

use rkyv::{Archive, Deserialize, Serialize};
use shared::address::Address;
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn};
use shared::unit::directory_hash;

/// Keyed address hash to [`CorrespondentRow`].
const CORRESPONDENTS: Table = Table("correspondents");
/// Milliseconds since 1970, keyed address hash to [`Learned`]: the oldest first.
const BY_AGE: Table = Table("correspondents-by-age");
/// The empty key to [`Count`].
const COUNT: Table = Table("correspondents-count");

/// How many are known at most; the oldest is forgotten for a new one.
pub const CORRESPONDENTS_MAX: u64 = 100_000;
/// How long one is known after mail has last gone there: 180 days.
const KNOWN_MILLIS: u64 = 180 * 24 * 3_600_000;
/// Not written again within a day: mail to the same address costs a look.
const REFRESHED_MILLIS: u64 = 24 * 3_600_000;
/// Old ones that one step forgets.
const FORGOTTEN_AT_ONCE: usize = 1000;

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct CorrespondentRow {
    at: u64,
}
row!(CorrespondentRow, 1);

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Learned;
row!(Learned, 1);

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
struct Count(u64);
row!(Count, 1);

fn age_key(at: u64, hash: &[u8]) -> Vec<u8> {
    [&at.to_be_bytes(), hash].concat()
}

/// Mail goes to `recipient`.
pub fn learn(
    txn: &mut Txn<'_>,
    directory_key: &[u8; 32],
    recipient: &str,
    now: u64,
) -> Result<(), StoreError> {
    let Ok(address) = recipient.parse::<Address>() else { return Ok(()) };
    let hash = directory_hash(directory_key, &address.canonical());
    match txn.get::<CorrespondentRow>(CORRESPONDENTS, &hash)? {
        Some(known) if now.saturating_sub(known.at) < REFRESHED_MILLIS => return Ok(()),
        Some(known) => txn.delete(BY_AGE, &age_key(known.at, &hash))?,
        None => {
            let known = count(txn)?;
            if known >= CORRESPONDENTS_MAX {
                forget(txn, 1, u64::MAX)?;
            }
            let known = count(txn)?;
            txn.put(COUNT, b"", &Count(known + 1))?;
        }
    }
    txn.put(CORRESPONDENTS, &hash, &CorrespondentRow { at: now })?;
    txn.put(BY_AGE, &age_key(now, &hash), &Learned)
}

/// Whether somebody inside has written to `address` lately.
pub fn is_known(
    rows: &impl Rows,
    directory_key: &[u8; 32],
    address: &Address,
    now: u64,
) -> Result<bool, StoreError> {
    let hash = directory_hash(directory_key, &address.canonical());
    let known = rows.get::<CorrespondentRow>(CORRESPONDENTS, &hash)?;
    Ok(known.is_some_and(|known| now.saturating_sub(known.at) <= KNOWN_MILLIS))
}

/// Forgets some of those to whom nobody has written for long.
pub fn forget_old(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    forget(txn, FORGOTTEN_AT_ONCE, now.saturating_sub(KNOWN_MILLIS))
}

/// Forgets the oldest, at most `max`, that were written to before `before`.
fn forget(txn: &mut Txn<'_>, max: usize, before: u64) -> Result<(), StoreError> {
    let found = txn.raw_range(BY_AGE, &[], Some(&before.to_be_bytes()), max, false)?;
    for (key, _) in &found {
        txn.delete(BY_AGE, key)?;
        txn.delete(CORRESPONDENTS, key.get(8..).unwrap_or_default())?;
    }
    if !found.is_empty() {
        let left = count(txn)?.saturating_sub(found.len() as u64);
        txn.put(COUNT, b"", &Count(left))?;
    }
    Ok(())
}

fn count(rows: &impl Rows) -> Result<u64, StoreError> {
    Ok(rows.get::<Count>(COUNT, b"")?.unwrap_or_default().0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};

    use super::*;

    const KEY: [u8; 32] = [3; 32];
    const DAY: u64 = 24 * 3_600_000;
    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn one_is_known_as_long_as_mail_goes_there() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let at = |action: fn(&mut Txn<'_>, u64) -> Result<(), StoreError>, now: u64| {
            store.commit_blocking(move |txn| action(txn, now)).expect("commits");
        };
        let learn_one: fn(&mut Txn<'_>, u64) -> _ = |txn, now| learn(txn, &KEY, "Carol@Remote.EXAMPLE", now);
        let is_known = |text: &str, now: u64| {
            let address = text.parse().expect("an address");
            store.read().and_then(|rows| is_known(&rows, &KEY, &address, now)).expect("reads")
        };
        let rows = || store.read().and_then(|rows| count(&rows)).expect("reads");
        at(learn_one, NOW);
        at(learn_one, NOW + DAY / 2);
        assert!(is_known("carol@remote.example", NOW) && !is_known("dave@remote.example", NOW));
        assert_eq!(rows(), 1);
        at(learn_one, NOW + 100 * DAY);
        at(forget_old, NOW + 200 * DAY);
        assert!(is_known("carol@remote.example", NOW + 280 * DAY), "written to since");
        assert!(!is_known("carol@remote.example", NOW + 281 * DAY));
        at(forget_old, NOW + 281 * DAY);
        assert_eq!(rows(), 0);
        assert!(!is_known("carol@remote.example", NOW + 100 * DAY), "is forgotten");
        at(|txn, now| learn(txn, &KEY, "not an address", now), NOW);
        assert_eq!(rows(), 0);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let known = store.commit_blocking(|txn| {
            learn(txn, &KEY, "first@remote.example", NOW)?;
            learn(txn, &KEY, "second@remote.example", NOW + 1)?;
            txn.put(COUNT, b"", &Count(CORRESPONDENTS_MAX))?;
            learn(txn, &KEY, "third@remote.example", NOW + 2)?;
            let known = ["first", "second", "third"].map(|name| {
                let address = format!("{name}@remote.example").parse().expect("an address");
                is_known(txn, &KEY, &address, NOW + 2).expect("reads")
            });
            Ok::<_, StoreError>((known, count(txn)?))
        });
        assert_eq!(known.expect("commits").into_inner(), ([false, true, true], CORRESPONDENTS_MAX));
    }
}
