//! The counts of a day: rows of each domain, under the moment at which they are due. No clock: time is passed in.
//!
//! Strangers decide which domains there are, and what is seen of them; so rows are bounded, each and all together, and what
//! finds no room is counted only.

use rkyv::{Archive, Deserialize, Serialize};
use shared::aggregate::{
    AggregateReport, Counts, DAY_SECONDS, DETAILS_MAX, DmarcCount, DmarcCounts, DmarcFound, DmarcPolicy,
    FailureCount, POLICIES_MAX, PolicyCounts, REPORTS_A_DAY_MAX, TlsFailure, TlsPolicy,
};
use shared::id::MessageId;
use shared::row;
use shared::store::{Row, Rows, StoreError, Table, Txn};

/// When it is due, in milliseconds since 1970, and domain to [`TlsDay`].
const TLS_DAYS: Table = Table("tls-counts");
/// The same to [`DmarcDay`].
const DMARC_DAYS: Table = Table("dmarc-counts");
/// The same, 0, and a hash of what was found to [`DmarcRow`].
const DMARC_FOUND: Table = Table("dmarc-found");
/// Empty key to [`Room`].
const ROOM: Table = Table("aggregate-room");
/// Empty key to [`Told`].
const TOLD: Table = Table("aggregate-told");

const DAY_MILLIS: u64 = DAY_SECONDS * 1_000;
/// Reports of a day leave within so many milliseconds after its end: nobody gets those of the whole world at midnight
/// (RFC 8460 §4.1).
const SPREAD_MILLIS: u64 = 4 * 3_600_000;
/// Octets of all rows together.
const OCTETS_MAX: u64 = 16 * 1024 * 1024;
/// Octets of the one row of a domain's sessions, which is written anew with each of them.
const TLS_OCTETS_MAX: u64 = 32 * 1024;
/// Octets of what is found of mail in a domain's name: it has to fit the head of one unit.
const DMARC_OCTETS_MAX: u64 = 128 * 1024;
/// By so much a clock may be behind the one that a day was counted by.
const APART_MILLIS: u64 = 3_600_000;

/// The counts of a domain in a day.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsDay {
    policies: Vec<PolicyCounts>,
    /// Sessions for which there was no room.
    left_out: u64,
}
row!(TlsDay, 1);

/// The counts of mail in a domain's name in a day.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct DmarcDay {
    policy: DmarcPolicy,
    /// Octets of its rows in [`DMARC_FOUND`].
    octets: u64,
    /// Messages for which there was no room.
    left_out: u64,
}
row!(DmarcDay, 1);

/// What was found of some messages.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct DmarcRow(DmarcCount);
row!(DmarcRow, 1);

/// What rows take.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    octets: u64,
    /// What was not counted, since there were rows first.
    left_out: u64,
}
row!(Room, 1);

/// How many reports big was told of in a day of UTC.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    day: u64,
    count: u32,
}
row!(Told, 1);

impl Room {
    /// Something of a domain is not counted. The log says so ever more seldom.
    fn leave_out(&mut self, domain: &str) {
        self.left_out = self.left_out.saturating_add(1);
        if self.left_out.is_power_of_two() {
            let left_out = self.left_out;
            tracing::warn!(domain, left_out, "there is no room to count more for reports to other domains");
        }
    }
}

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
    let fits = needed <= held || (octets <= OCTETS_MAX && needed <= TLS_OCTETS_MAX);
    if fits {
        room.octets = octets;
        txn.put(TLS_DAYS, &key, &day)?;
    } else {
        room.leave_out(domain);
        if let Some(before) = before {
            // A number takes the same room whatever it is.
            let left_out = before.left_out.saturating_add(1);
            txn.put(TLS_DAYS, &key, &TlsDay { left_out, ..before })?;
        }
    }
    txn.put(ROOM, b"", &room)
}

/// This was found at `now` of a message in a domain's name, which was held to `policy`. Domains are many, and so may be what
/// is found of one: each has a row of its own.
pub fn count_dmarc(
    txn: &mut Txn<'_>,
    policy: &DmarcPolicy,
    found: &DmarcFound,
    now: u64,
) -> Result<(), StoreError> {
    let key = key(&policy.domain, now);
    let mut room = txn.get::<Room>(ROOM, b"")?.unwrap_or_default();
    let first = DmarcRow(DmarcCount { found: found.clone(), count: 0 });
    let hash = blake3::hash(&first.encode());
    let found_key = [found_prefix(&key).as_slice(), &hash.as_bytes()[..16]].concat();
    let known = txn.get::<DmarcRow>(DMARC_FOUND, &found_key)?;
    let before = txn.get::<DmarcDay>(DMARC_DAYS, &key)?;
    let (held_by_rows, left_out) = before.as_ref().map_or((0, 0), |day| (day.octets, day.left_out));
    let of_found = if known.is_some() { 0 } else { octets(&found_key, &first) };
    let day = DmarcDay { policy: policy.clone(), octets: held_by_rows.saturating_add(of_found), left_out };
    let held = before.as_ref().map_or(0, |day| octets(&key, day));
    let needed = room.octets.saturating_sub(held).saturating_add(octets(&key, &day)).saturating_add(of_found);
    if known.is_some() || (needed <= OCTETS_MAX && day.octets <= DMARC_OCTETS_MAX) {
        room.octets = needed;
        let DmarcRow(DmarcCount { found, count }) = known.unwrap_or(first);
        let count = count.saturating_add(1);
        txn.put(DMARC_FOUND, &found_key, &DmarcRow(DmarcCount { found, count }))?;
        txn.put(DMARC_DAYS, &key, &day)?;
    } else {
        room.leave_out(&policy.domain);
        if let Some(before) = before {
            let left_out = left_out.saturating_add(1);
            txn.put(DMARC_DAYS, &key, &DmarcDay { left_out, ..before })?;
        }
    }
    txn.put(ROOM, b"", &room)
}

/// What the keys in [`DMARC_FOUND`] of a day begin with.
fn found_prefix(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

fn octets(key: &[u8], row: &impl Row) -> u64 {
    (key.len() + row.encode().len()) as u64
}

/// The kinds of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// How a domain's hosts did at TLS.
    Tls,
    /// What was found of mail in its name.
    Dmarc,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tls, Self::Dmarc];

    fn days(self) -> Table {
        match self {
            Self::Tls => TLS_DAYS,
            Self::Dmarc => DMARC_DAYS,
        }
    }
}

/// The day of a domain that is over, under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What was counted.
    pub kind: Kind,
    /// What it is known by here.
    pub key: Vec<u8>,
    /// The domain.
    pub domain: String,
    /// Since when it is due, milliseconds since 1970.
    pub since: u64,
}

/// Days of one kind that are due at `now`, from `from` on, in their order; at most `max`. A day counts whole: `now` is after its end.
pub fn due(rows: &impl Rows, kind: Kind, from: &[u8], now: u64, max: usize) -> Result<Vec<Due>, StoreError> {
    let keys = rows.keys(kind.days(), from, max)?;
    let due = keys.into_iter().filter_map(|key| {
        let (since, domain) = key.split_first_chunk()?;
        let (since, domain) = (u64::from_be_bytes(*since), String::from_utf8(domain.to_vec()).ok()?);
        (since <= now).then_some(Due { kind, key, domain, since })
    });
    Ok(due.collect())
}

/// Days of one kind that no clock can have counted which is right at `now`: it was ahead, and has been set back.
pub fn ahead(rows: &impl Rows, kind: Kind, now: u64, max: usize) -> Result<Vec<Due>, StoreError> {
    let from = now.saturating_add(DAY_MILLIS + SPREAD_MILLIS + APART_MILLIS);
    due(rows, kind, &from.to_be_bytes(), u64::MAX, max)
}

/// Whether big may be told of one more report at `now`: it takes so many in a day.
pub fn may_be_told(txn: &mut Txn<'_>, now: u64) -> Result<bool, StoreError> {
    let day = now / DAY_MILLIS;
    let told = match txn.get::<Told>(TOLD, b"") {
        // It begins anew.
        Err(StoreError::Damaged(_)) => None,
        told => told?.filter(|told| told.day == day),
    };
    let count = told.map_or(0, |told| told.count);
    if count >= REPORTS_A_DAY_MAX {
        return Ok(false);
    }
    txn.put(TOLD, b"", &Told { day, count: count + 1 })?;
    Ok(true)
}

/// Throws a day away without reading it, since it cannot be read. The room that the others take is found anew.
pub fn discard(txn: &mut Txn<'_>, due: &Due) -> Result<(), StoreError> {
    txn.delete(due.kind.days(), &due.key)?;
    if due.kind == Kind::Dmarc {
        let prefix = found_prefix(&due.key);
        let keys = txn.keys(DMARC_FOUND, &prefix, usize::MAX)?;
        for key in keys.iter().take_while(|key| key.starts_with(&prefix)) {
            txn.delete(DMARC_FOUND, key)?;
        }
    }
    let mut octets = 0_u64;
    for table in [TLS_DAYS, DMARC_DAYS, DMARC_FOUND] {
        for key in txn.keys(table, &[], usize::MAX)? {
            // One that cannot be read either goes when its day is due.
            let held = match txn.raw(table, &key) {
                Ok(row) => row.map_or(0, |(_, row)| key.len() + row.len()),
                Err(StoreError::Damaged(_)) => 0,
                Err(error) => return Err(error),
            };
            octets = octets.saturating_add(held as u64);
        }
    }
    txn.put(ROOM, b"", &Room { octets, left_out: 0 })
}

/// Takes a day away, and returns what it comes to, for these mailboxes.
pub fn take(txn: &mut Txn<'_>, due: &Due, to: Vec<String>) -> Result<Option<AggregateReport>, StoreError> {
    let taken = match due.kind {
        Kind::Tls => take_tls(txn, &due.key)?,
        Kind::Dmarc => take_dmarc(txn, &due.key)?,
    };
    let Some((counts, left_out, octets)) = taken else { return Ok(None) };
    let mut room = txn.get::<Room>(ROOM, b"")?.unwrap_or_default();
    room.octets = room.octets.saturating_sub(octets);
    match txn.count(TLS_DAYS)? + txn.count(DMARC_DAYS)? {
        0 => txn.delete(ROOM, b"")?,
        _ => txn.put(ROOM, b"", &room)?,
    }
    let end = due.since / DAY_MILLIS * DAY_MILLIS;
    Ok(Some(AggregateReport {
        id: id(&due.domain, end, counts.kind()).0,
        domain: due.domain.clone(),
        begin: end.saturating_sub(DAY_MILLIS) / 1_000,
        to,
        counts,
        left_out,
    }))
}

/// What was counted, what was left out, and what room it had.
type Taken = Option<(Counts, u64, u64)>;

fn take_tls(txn: &mut Txn<'_>, key: &[u8]) -> Result<Taken, StoreError> {
    let Some(day) = txn.get::<TlsDay>(TLS_DAYS, key)? else { return Ok(None) };
    txn.delete(TLS_DAYS, key)?;
    let held = octets(key, &day);
    Ok(Some((Counts::Tls(day.policies), day.left_out, held)))
}

fn take_dmarc(txn: &mut Txn<'_>, key: &[u8]) -> Result<Taken, StoreError> {
    let Some(day) = txn.get::<DmarcDay>(DMARC_DAYS, key)? else { return Ok(None) };
    txn.delete(DMARC_DAYS, key)?;
    let held = octets(key, &day).saturating_add(day.octets);
    let mut records = Vec::new();
    for (key, DmarcRow(count)) in txn.prefix::<DmarcRow>(DMARC_FOUND, &found_prefix(key), usize::MAX)? {
        txn.delete(DMARC_FOUND, &key)?;
        records.push(count);
    }
    Ok(Some((Counts::Dmarc(DmarcCounts { policy: day.policy, records }), day.left_out, held)))
}

/// The id of a report about a domain's day that ended at `end`, milliseconds since 1970.
fn id(domain: &str, end: u64, kind: &str) -> MessageId {
    let digest = blake3::hash(format!("{kind} report of {domain} until {end}").as_bytes());
    MessageId::from_parts(end, digest.as_bytes().first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::aggregate::{FailureOptions, Handling, Override, PolicyKind, ResultType, SignatureFound};
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
            assert_eq!(due(txn, Kind::Tls, &[], midnight - 1, 9)?, []);
            assert_eq!(
                due(txn, Kind::Tls, &[], midnight + SPREAD_MILLIS, 9)?.len(),
                2,
                "not the day that has begun"
            );
            let all = due(txn, Kind::Tls, &[], midnight + 2 * DAY_MILLIS, 9)?;
            let a = all.iter().find(|due| due.domain == "a.example").expect("is due");
            assert_eq!(
                due(txn, Kind::Tls, &[], a.since, 9)?.iter().filter(|due| due.domain == "a.example").count(),
                1
            );
            assert!(!due(txn, Kind::Tls, &[], a.since - 1, 9)?.contains(a));
            let told = take(txn, a, vec!["tls@a.example".into()])?;
            assert_eq!(take(txn, a, Vec::new())?, None, "it is gone");
            let next = due(txn, Kind::Tls, &[], midnight + 2 * DAY_MILLIS, 9)?;
            let next = next.iter().find(|due| due.domain == "a.example").expect("the day that began then");
            let next = take(txn, next, Vec::new())?.expect("is there");
            assert_ne!(told.as_ref().map(|told| told.id), Some(next.id));
            assert_eq!(next.begin, midnight / 1_000);
            Ok::<_, StoreError>(told)
        });
        let told = told.expect("commits").into_inner().expect("is there");
        assert_eq!((told.begin, told.left_out), (20_000 * DAY_SECONDS, 0));
        let Counts::Tls(policies) = &told.counts else { panic!("{told:?}") };
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
                let long = TlsPolicy { text: vec!["x".repeat(30 * 1024)], ..none("x") };
                let mut domains = 0_u32;
                while txn.get::<Room>(ROOM, b"")?.is_none_or(|room| room.left_out == 0) {
                    domains += 1;
                    count_tls(txn, &format!("d{domains}.example"), &long, None, NOON)?;
                }
                let room = txn.get::<Room>(ROOM, b"")?.expect("is there");
                assert!(room.octets <= OCTETS_MAX && room.octets > OCTETS_MAX - 2 * TLS_OCTETS_MAX);
                // Who is there already goes on counting, and what is new of them is left out.
                count_tls(txn, "d1.example", &long, None, NOON)?;
                count_tls(txn, "d1.example", &none(&"y".repeat(3_000)), None, NOON)?;
                let day = txn.get::<TlsDay>(TLS_DAYS, &key("d1.example", NOON))?.expect("is there");
                assert_eq!((day.policies[0].successes, day.left_out), (2, 1));
                // All room comes back.
                for due in due(txn, Kind::Tls, &[], u64::MAX, usize::MAX)? {
                    take(txn, &due, Vec::new())?;
                }
                assert_eq!(txn.get::<Room>(ROOM, b"")?, None);
                Ok::<_, StoreError>(())
            })
            .expect("commits");
    }

    fn dmarc(domain: &str) -> DmarcPolicy {
        DmarcPolicy {
            domain: domain.into(),
            own: Handling::Reject,
            below: Handling::Reject,
            dkim_strict: false,
            spf_strict: false,
            failures: FailureOptions::All,
        }
    }

    fn found(source: &str) -> DmarcFound {
        let signature =
            SignatureFound { domain: "a.example".into(), selector: "k".into(), result: "pass".into() };
        DmarcFound {
            source: source.into(),
            disposition: Handling::None,
            dkim: true,
            spf: false,
            overridden: Some(Override::LocalPolicy),
            header_from: "a.example".into(),
            envelope_from: "b.example".into(),
            signatures: vec![signature],
            spf_domain: "b.example".into(),
            spf_of_helo: false,
            spf_result: "none".into(),
        }
    }

    #[test]
    fn what_is_found_of_mail_is_counted_by_what_it_is_and_the_last_policy_is_told() {
        let told = store().commit_blocking(|txn| {
            for source in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
                count_dmarc(txn, &dmarc("a.example"), &found(source), NOON)?;
            }
            count_dmarc(txn, &dmarc("a.exampl"), &found("192.0.2.3"), NOON)?;
            let latest = DmarcPolicy { own: Handling::None, ..dmarc("a.example") };
            count_dmarc(txn, &latest, &found("192.0.2.2"), NOON)?;
            let all = due(txn, Kind::Dmarc, &[], u64::MAX, 9)?;
            assert_eq!(due(txn, Kind::Tls, &[], u64::MAX, 9)?, []);
            let mut told = Vec::new();
            for due in &all {
                told.extend(take(txn, due, Vec::new())?);
            }
            assert_eq!((txn.count(DMARC_FOUND)?, txn.count(DMARC_DAYS)?, txn.count(ROOM)?), (0, 0, 0));
            Ok::<_, StoreError>(told)
        });
        let told = told.expect("commits").into_inner();
        let of = told.iter().find(|told| told.domain == "a.example").expect("is told");
        let Counts::Dmarc(DmarcCounts { policy, records }) = &of.counts else { panic!("{of:?}") };
        assert_eq!(policy.own, Handling::None);
        let mut counts: Vec<_> =
            records.iter().map(|record| (record.found.source.as_str(), record.count)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [("192.0.2.1", 2), ("192.0.2.2", 2)]);
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_day_that_cannot_be_read_is_thrown_away_with_its_room_and_no_other() {
        let discarded = store().commit_blocking(|txn| {
            for domain in ["a.example", "b.example"] {
                count_tls(txn, domain, &none(domain), None, NOON)?;
                for n in 0..3 {
                    count_dmarc(txn, &dmarc(domain), &found(&format!("192.0.2.{n}")), NOON)?;
                }
            }
            for kind in Kind::ALL {
                let of_a = due(txn, kind, &[], u64::MAX, 9)?;
                let of_a = of_a.iter().find(|due| due.domain == "a.example").expect("is there").clone();
                // What another version wrote reads as damage.
                txn.put(kind.days(), &of_a.key, &Other(7))?;
                assert!(matches!(take(txn, &of_a, Vec::new()), Err(StoreError::Damaged(_))));
                discard(txn, &of_a)?;
                let left = due(txn, kind, &[], u64::MAX, 9)?;
                assert_eq!(left.iter().map(|due| due.domain.as_str()).collect::<Vec<_>>(), ["b.example"]);
            }
            assert_eq!(txn.count(DMARC_FOUND)?, 3);
            for kind in Kind::ALL {
                let left = due(txn, kind, &[], u64::MAX, 9)?.remove(0);
                let room = txn.get::<Room>(ROOM, b"")?.expect("is there");
                take(txn, &left, Vec::new())?.expect("is whole");
                let after = txn.get::<Room>(ROOM, b"")?.map_or(0, |room| room.octets);
                assert!(room.octets > after);
            }
            txn.get::<Room>(ROOM, b"")
        });
        assert_eq!(discarded.expect("commits").into_inner(), None, "all room comes back");
    }

    /// A row of a version that this one cannot read.
    #[derive(Archive, Serialize, Deserialize)]
    struct Other(u64);
    row!(Other, 99);

    #[test]
    fn days_that_a_wrong_clock_has_counted_are_found_once_it_is_right() {
        const YEAR: u64 = 365 * DAY_MILLIS;
        let found = store().commit_blocking(|txn| {
            for now in [NOON, NOON + DAY_MILLIS / 2 - 1, NOON + 10 * YEAR] {
                count_tls(txn, "a.example", &none("a.example"), None, now)?;
            }
            ahead(txn, Kind::Tls, NOON, 9)
        });
        let found = found.expect("commits").into_inner();
        assert_eq!(found.iter().map(|due| due.since / YEAR).collect::<Vec<_>>(), [(NOON + 10 * YEAR) / YEAR]);
    }

    #[test]
    fn senders_from_everywhere_fill_no_disk_and_no_unit() {
        let counted = store().commit_blocking(|txn| {
            for n in 0..2_000 {
                count_dmarc(txn, &dmarc("a.example"), &found(&format!("2001:db8::{n:x}")), NOON)?;
            }
            let day = txn.get::<DmarcDay>(DMARC_DAYS, &key("a.example", NOON))?.expect("is there");
            let rows = txn.count(DMARC_FOUND)?;
            assert_eq!(rows + day.left_out, 2_000);
            assert!(day.left_out > 0 && day.octets <= DMARC_OCTETS_MAX);
            let room = txn.get::<Room>(ROOM, b"")?.expect("is there");
            assert_eq!(room.octets, day.octets + octets(&key("a.example", NOON), &day));
            let due = due(txn, Kind::Dmarc, &[], u64::MAX, 1)?.remove(0);
            take(txn, &due, vec!["r@a.example".into(); 2])
        });
        let report = counted.expect("commits").into_inner().expect("is there");
        let head = shared::unit::encode(&shared::unit::ToBig::AggregateReport(Box::new(report)));
        assert!(head.len() <= link_proto::unit::HEAD_BYTES_MAX, "{}", head.len());
    }
}
