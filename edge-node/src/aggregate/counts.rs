//! The counts of a day: a row for each domain, under the moment at which it is due. No clock: time is passed in.
//!
//! Strangers decide which domains there are, and what is seen of them; so rows are bounded, each and all together, and what
//! finds no room is counted only.

use rkyv::{Archive, Deserialize, Serialize};
use shared::aggregate::{
    AggregateReport, Counts, DAY_SECONDS, FailureCount, PolicyCounts, TlsFailure, TlsPolicy,
};
use shared::id::MessageId;
use shared::row;
use shared::store::{Row, Rows, StoreError, Table, Txn};

/// When it is due, in milliseconds since 1970, and domain to [`TlsDay`].
const TLS_DAYS: Table = Table("tls-counts");
/// Empty key to [`Room`].
const ROOM: Table = Table("aggregate-room");

const DAY_MILLIS: u64 = DAY_SECONDS * 1_000;
/// Reports of a day leave within so many milliseconds after its end: nobody gets those of the whole world at midnight
/// (RFC 8460 §4.1).
const SPREAD_MILLIS: u64 = 4 * 3_600_000;
/// Octets of all rows together.
const OCTETS_MAX: u64 = 16 * 1024 * 1024;
/// Octets of one row: it has to fit the head of one unit.
const ROW_OCTETS_MAX: usize = 128 * 1024;
/// Policies of one domain in one day.
const POLICIES_MAX: usize = 16;
/// Ways to fail under one policy.
const DETAILS_MAX: usize = 64;

/// The counts of a domain in a day.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsDay {
    policies: Vec<PolicyCounts>,
    /// Sessions for which there was no room.
    left_out: u64,
}
row!(TlsDay, 1);

/// What rows take.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    octets: u64,
    /// What was not counted, since there were rows first.
    left_out: u64,
}
row!(Room, 1);

impl TlsDay {
    /// One session more. What it was cannot be told where there are too many kinds already.
    fn count(&mut self, policy: &TlsPolicy, failure: Option<&TlsFailure>) {
        let place = self.policies.iter().position(|counts| counts.policy == *policy);
        let place = place.or_else(|| {
            let (policy, details) = (policy.clone(), Vec::new());
            let has_room = self.policies.len() < POLICIES_MAX;
            has_room
                .then(|| self.policies.push(PolicyCounts { policy, successes: 0, failures: 0, details }))?;
            Some(self.policies.len() - 1)
        });
        let Some(counts) = place.and_then(|place| self.policies.get_mut(place)) else {
            self.left_out = self.left_out.saturating_add(1);
            return;
        };
        let Some(failure) = failure else {
            counts.successes = counts.successes.saturating_add(1);
            return;
        };
        counts.failures = counts.failures.saturating_add(1);
        let has_room = counts.details.len() < DETAILS_MAX;
        match counts.details.iter_mut().find(|detail| detail.failure == *failure) {
            Some(detail) => detail.count = detail.count.saturating_add(1),
            None if has_room => counts.details.push(FailureCount { failure: failure.clone(), count: 1 }),
            None => {}
        }
    }
}

/// When the report of a domain about the day that `now` is in is due, in milliseconds since 1970.
fn due_at(domain: &str, now: u64) -> u64 {
    let hash = blake3::hash(domain.as_bytes());
    let spread = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)) % SPREAD_MILLIS;
    (now / DAY_MILLIS + 1).saturating_mul(DAY_MILLIS).saturating_add(spread)
}

fn key(domain: &str, now: u64) -> Vec<u8> {
    [&due_at(domain, now).to_be_bytes(), domain.as_bytes()].concat()
}

/// A session with a host of `domain`, to which `policy` applied, has ended at `now`: as it should, or with a failure.
pub fn count_tls(
    txn: &mut Txn<'_>,
    domain: &str,
    policy: &TlsPolicy,
    failure: Option<&TlsFailure>,
    now: u64,
) -> Result<(), StoreError> {
    let key = key(domain, now);
    let before = txn.get::<TlsDay>(TLS_DAYS, &key)?;
    let mut day = before.clone().unwrap_or_default();
    day.count(policy, failure);
    let mut room = txn.get::<Room>(ROOM, b"")?.unwrap_or_default();
    let held = before.as_ref().map_or(0, |row| octets(&key, row));
    let needed = octets(&key, &day);
    let octets = room.octets.saturating_sub(held).saturating_add(needed);
    let fits = needed <= held || (octets <= OCTETS_MAX && day.encode().len() <= ROW_OCTETS_MAX);
    if fits {
        room.octets = octets;
        txn.put(TLS_DAYS, &key, &day)?;
    } else {
        room.left_out = room.left_out.saturating_add(1);
        if let Some(before) = before {
            // A number takes the same room whatever it is.
            let left_out = before.left_out.saturating_add(1);
            txn.put(TLS_DAYS, &key, &TlsDay { left_out, ..before })?;
        }
    }
    txn.put(ROOM, b"", &room)
}

fn octets(key: &[u8], row: &impl Row) -> u64 {
    (key.len() + row.encode().len()) as u64
}

/// The day of a domain that is over, under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What it is known by here.
    pub key: Vec<u8>,
    /// The domain.
    pub domain: String,
    /// Since when it is due, milliseconds since 1970.
    pub since: u64,
}

/// Days that are due at `now`, from `from` on, in their order; at most `max`. A day counts whole: `now` is after its end.
pub fn due(rows: &impl Rows, from: &[u8], now: u64, max: usize) -> Result<Vec<Due>, StoreError> {
    let keys = rows.keys(TLS_DAYS, from, max)?;
    let due = keys.into_iter().filter_map(|key| {
        let (since, domain) = key.split_first_chunk()?;
        let (since, domain) = (u64::from_be_bytes(*since), String::from_utf8(domain.to_vec()).ok()?);
        (since <= now).then_some(Due { key, domain, since })
    });
    Ok(due.collect())
}

/// Takes a day away, and returns what it comes to, for these mailboxes.
pub fn take(txn: &mut Txn<'_>, due: &Due, to: Vec<String>) -> Result<Option<AggregateReport>, StoreError> {
    let Some(day) = txn.get::<TlsDay>(TLS_DAYS, &due.key)? else { return Ok(None) };
    let mut room = txn.get::<Room>(ROOM, b"")?.unwrap_or_default();
    room.octets = room.octets.saturating_sub(octets(&due.key, &day));
    txn.delete(TLS_DAYS, &due.key)?;
    match txn.count(TLS_DAYS)? {
        0 => txn.delete(ROOM, b"")?,
        _ => txn.put(ROOM, b"", &room)?,
    }
    let end = due.since / DAY_MILLIS * DAY_MILLIS;
    let TlsDay { policies, left_out } = day;
    let counts = Counts::Tls(policies);
    Ok(Some(AggregateReport {
        id: id(&due.domain, end, counts.kind()).0,
        domain: due.domain.clone(),
        begin: end.saturating_sub(DAY_MILLIS) / 1_000,
        to,
        counts,
        left_out,
    }))
}

/// The id of a report about a domain's day that ended at `end`, milliseconds since 1970.
fn id(domain: &str, end: u64, kind: &str) -> MessageId {
    let digest = blake3::hash(format!("{kind} report of {domain} until {end}").as_bytes());
    MessageId::from_parts(end, digest.as_bytes().first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::aggregate::{PolicyKind, ResultType};
    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};

    use super::*;

    /// Noon of a day.
    const NOON: u64 = 20_000 * DAY_MILLIS + DAY_MILLIS / 2;

    fn store() -> Store {
        Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens")
    }

    fn none(domain: &str) -> TlsPolicy {
        let (text, hosts) = (Vec::new(), Vec::new());
        TlsPolicy { kind: PolicyKind::NoPolicyFound, domain: domain.into(), text, hosts }
    }

    fn failed(reason: &str) -> TlsFailure {
        TlsFailure::unconnected(ResultType::StarttlsNotSupported, Some("mx.a.example"), reason)
    }

    #[test]
    fn a_day_ends_at_midnight_of_utc_and_is_told_once_within_hours() {
        let store = store();
        let told = store.commit_blocking(|txn| {
            let midnight = 20_001 * DAY_MILLIS;
            for (now, failure) in [
                (midnight - 1, Some(failed("x"))),
                (NOON, None),
                (NOON, Some(failed("x"))),
                (NOON, Some(failed("y"))),
                (midnight, None),
            ] {
                count_tls(txn, "a.example", &none("a.example"), failure.as_ref(), now)?;
            }
            count_tls(txn, "b.example", &none("b.example"), None, NOON)?;
            assert_eq!(due(txn, &[], midnight - 1, 9)?, []);
            assert_eq!(due(txn, &[], midnight + SPREAD_MILLIS, 9)?.len(), 2, "not the day that has begun");
            let all = due(txn, &[], midnight + 2 * DAY_MILLIS, 9)?;
            let a = all.iter().find(|due| due.domain == "a.example").expect("is due");
            assert_eq!(due(txn, &[], a.since, 9)?.iter().filter(|due| due.domain == "a.example").count(), 1);
            assert!(!due(txn, &[], a.since - 1, 9)?.contains(a));
            let told = take(txn, a, vec!["tls@a.example".into()])?;
            assert_eq!(take(txn, a, Vec::new())?, None, "it is gone");
            let next = due(txn, &[], midnight + 2 * DAY_MILLIS, 9)?;
            let next = next.iter().find(|due| due.domain == "a.example").expect("the day that began then");
            let next = take(txn, next, Vec::new())?.expect("is there");
            assert_ne!(told.as_ref().map(|told| told.id), Some(next.id));
            assert_eq!(next.begin, midnight / 1_000);
            Ok::<_, StoreError>(told)
        });
        let told = told.expect("commits").into_inner().expect("is there");
        assert_eq!((told.begin, told.left_out), (20_000 * DAY_SECONDS, 0));
        let Counts::Tls(policies) = &told.counts;
        let [counts] = policies.as_slice() else { panic!("{policies:?}") };
        assert_eq!((counts.successes, counts.failures), (1, 3));
        let details: Vec<_> = counts.details.iter().map(|detail| detail.count).collect();
        assert_eq!(details, [2, 1]);
    }

    #[test]
    fn the_same_day_has_the_same_id_and_domains_are_spread() {
        let end = 20_001 * DAY_MILLIS;
        assert_eq!(id("a.example", end, "tls"), id("a.example", end, "tls"));
        for other in [id("b.example", end, "tls"), id("a.example", end, "dmarc"), id("a.example", 0, "tls")] {
            assert_ne!(id("a.example", end, "tls"), other);
        }
        let moments: std::collections::BTreeSet<_> =
            (0..100).map(|n| due_at(&format!("d{n}.example"), NOON) / (SPREAD_MILLIS / 8)).collect();
        assert!(moments.len() >= 6, "{moments:?}");
        assert!(
            (0..100).all(|n| (end..end + SPREAD_MILLIS).contains(&due_at(&format!("d{n}.example"), NOON)))
        );
    }

    #[test]
    fn what_strangers_make_up_fills_no_disk_and_is_counted() {
        let store = store();
        store
            .commit_blocking(|txn| {
                // Of one domain.
                for n in 0..200 {
                    let policy = TlsPolicy { text: vec![format!("{n}")], ..none("a.example") };
                    count_tls(txn, "a.example", &policy, Some(&failed(&n.to_string())), NOON)?;
                    count_tls(txn, "a.example", &none("a.example"), Some(&failed(&n.to_string())), NOON)?;
                }
                let day = txn.get::<TlsDay>(TLS_DAYS, &key("a.example", NOON))?.expect("is there");
                assert_eq!(day.policies.len(), POLICIES_MAX);
                let seen: u64 = day.policies.iter().map(|counts| counts.failures).sum();
                assert_eq!(seen + day.left_out, 400);
                assert!(day.policies.iter().all(|counts| counts.details.len() <= DETAILS_MAX));
                // Of many. Each takes as much as it may.
                let long = TlsPolicy { text: vec!["x".repeat(ROW_OCTETS_MAX - 2_000)], ..none("x") };
                let mut domains = 0_u32;
                while txn.get::<Room>(ROOM, b"")?.is_none_or(|room| room.left_out == 0) {
                    domains += 1;
                    count_tls(txn, &format!("d{domains}.example"), &long, None, NOON)?;
                }
                let room = txn.get::<Room>(ROOM, b"")?.expect("is there");
                assert!(room.octets <= OCTETS_MAX && room.octets > OCTETS_MAX - 2 * ROW_OCTETS_MAX as u64);
                // Who is there already goes on counting, and what is new of them is left out.
                count_tls(txn, "d1.example", &long, None, NOON)?;
                count_tls(txn, "d1.example", &none(&"y".repeat(2_000)), None, NOON)?;
                let day = txn.get::<TlsDay>(TLS_DAYS, &key("d1.example", NOON))?.expect("is there");
                assert_eq!((day.policies[0].successes, day.left_out), (2, 1));
                // All room comes back.
                for due in due(txn, &[], u64::MAX, usize::MAX)? {
                    take(txn, &due, Vec::new())?;
                }
                assert_eq!(txn.get::<Room>(ROOM, b"")?, None);
                Ok::<_, StoreError>(())
            })
            .expect("commits");
    }
}
