//! Outside addresses that people inside write to: learned here from the mail that goes out, as keyed
//! hashes, and forgotten when nobody has written to them for long. Where strangers are slowed down, mail
//! from these is not.

use shared::address::Address;
use shared::store::{Rows, StoreError, Table, Txn};
use shared::unit::directory_hash;

use crate::aged::Aged;

/// How many are known at most; the oldest is forgotten for a new one.
pub const CORRESPONDENTS_MAX: u64 = 100_000;
/// By keyed address hash.
const CORRESPONDENTS: Aged = Aged {
    keys: Table("correspondents"),
    by_age: Table("correspondents-by-age"),
    count: Table("correspondents-count"),
    max: CORRESPONDENTS_MAX,
};
/// How long one is known after mail has last gone there: 180 days.
const KNOWN_MILLIS: u64 = 180 * 24 * 3_600_000;
/// Not written again within a day: mail to the same address costs a look.
const REFRESHED_MILLIS: u64 = 24 * 3_600_000;

/// Mail goes to `recipient`.
pub fn learn(
    txn: &mut Txn<'_>,
    directory_key: &[u8; 32],
    recipient: &str,
    now: u64,
) -> Result<(), StoreError> {
    let Ok(address) = recipient.parse::<Address>() else { return Ok(()) };
    let hash = directory_hash(directory_key, &address.canonical());
    match CORRESPONDENTS.get(txn, &hash)? {
        Some(known) if now.saturating_sub(known) < REFRESHED_MILLIS => Ok(()),
        _ => CORRESPONDENTS.put(txn, &hash, now),
    }
}

/// Whether somebody inside has written to `address` lately.
pub fn is_known(
    rows: &impl Rows,
    directory_key: &[u8; 32],
    address: &Address,
    now: u64,
) -> Result<bool, StoreError> {
    let hash = directory_hash(directory_key, &address.canonical());
    let known = CORRESPONDENTS.get(rows, &hash)?;
    Ok(known.is_some_and(|known| now.saturating_sub(known) <= KNOWN_MILLIS))
}

/// Forgets some of those to whom nobody has written for long.
pub fn forget_old(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    CORRESPONDENTS.forget_before(txn, now.saturating_sub(KNOWN_MILLIS))
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
        let rows = || store.read().and_then(|rows| CORRESPONDENTS.len(&rows)).expect("reads");
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
}
