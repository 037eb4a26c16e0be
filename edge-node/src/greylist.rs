//! Greylisting (RFC 6647): a stranger is told to come again, for most of what sends junk does not.
//!
//! What is remembered are keyed hashes with a moment each: triplets of a client, a reverse-path and a recipient, and
//! clients of which some triplets have come again. A client is its network and, where SPF lets it send, also the domain
//! that it sends for: a sender with many hosts is then one client, and a triplet is that domain and the recipient.
//!
//! [`judge`] is the whole rule; it reads no clock. Triplets that wait and those that have come again lie in sets of
//! their own, so that no flood of strangers makes the edge forget who has come again. Nor does one make it forget who
//! waits: a triplet stays long enough to come again, and a client has a share of them. Where there is no room for
//! another one it is taken as if it were known, for else it would wait for ever.

use std::time::Duration;

use shared::address::Address;
use shared::store::{Rows, StoreError, Table, Txn};
use shared::topology::Greylist;

use crate::aged::Aged;
use crate::lockout::Network;

/// How long after its last message one is known that has come again: 36 days, so that what is sent once a month is.
const KNOWN_MILLIS: u64 = 36 * 24 * 3_600_000;
/// Not written again within a day.
const REFRESHED_MILLIS: u64 = 24 * 3_600_000;
/// So many triplets of a client have to come again, and all that come from it are known.
const CLIENT_TRIPLETS: usize = 5;
/// Octets of a hash that are kept.
const KEY_BYTES: usize = 16;
/// The first of them, in a triplet's, stand for the client.
const CLIENT_BYTES: usize = 6;
/// Triplets of one client that wait at once; a few of them that come again make it known.
const CLIENT_WAITING_MAX: usize = 1000;
/// How long after its delay a triplet is not forgotten for another one: 4 hours, in which mail servers come again
/// (RFC 5321 §4.5.4.1 has them do so within half an hour at first, and then every two or three hours).
const KEPT_MILLIS: u64 = 4 * 3_600_000;

/// Triplets that are to come again, by when they came first.
const WAITING: Aged = Aged {
    keys: Table("greylist-waiting"),
    by_age: Table("greylist-waiting-by-age"),
    count: Table("greylist-waiting-count"),
    max: 100_000,
};
/// Triplets and clients that are known, by when they last came.
const KNOWN: Aged = Aged {
    keys: Table("greylist-known"),
    by_age: Table("greylist-known-by-age"),
    count: Table("greylist-known-count"),
    max: 100_000,
};

type Key = [u8; KEY_BYTES];

/// One way to know an attempt again.
#[derive(Clone, Debug)]
struct Way {
    /// Begins with the octets that all triplets of its client begin with.
    triplet: Key,
    /// The client's first, second … triplet that has come again; the last one makes it known.
    client: [Key; CLIENT_TRIPLETS],
}

/// An attempt at one recipient.
#[derive(Clone, Debug)]
pub struct Attempt(Vec<Way>);

impl Attempt {
    /// From that network, with that reverse-path, for `recipient`. Under `key` it is hashed.
    pub fn new(key: &[u8; 32], network: Network, reverse_path: &Address, recipient: &Address) -> Self {
        Self(vec![Way::of(key, "network", &network.octets(), &reverse_path.canonical(), recipient)])
    }

    /// SPF lets the client send for `domain`.
    pub fn vouched_for(mut self, key: &[u8; 32], domain: &str, recipient: &Address) -> Self {
        self.0.push(Way::of(key, "domain", domain.to_ascii_lowercase().as_bytes(), "", recipient));
        self
    }
}

impl Way {
    fn of(key: &[u8; 32], kind: &str, client: &[u8], path: &str, recipient: &Address) -> Self {
        let hash = |parts: &[&[u8]]| {
            let mut hasher = blake3::Hasher::new_keyed(key);
            for part in [b"greylist", kind.as_bytes(), client].iter().chain(parts) {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            let mut short = [0; KEY_BYTES];
            short.copy_from_slice(&hasher.finalize().as_bytes()[..KEY_BYTES]);
            short
        };
        let mut nth = 0;
        let client = [(); CLIENT_TRIPLETS].map(|()| {
            nth += 1_u8;
            hash(&[&[nth]])
        });
        // Whatever the tag is, it is one recipient.
        let recipient = recipient.without_tag().unwrap_or_else(|| recipient.clone()).canonical();
        let mut triplet = hash(&[path.as_bytes(), recipient.as_bytes()]);
        triplet[..CLIENT_BYTES].copy_from_slice(&hash(&[])[..CLIENT_BYTES]);
        Self { triplet, client }
    }
}

/// What is remembered of an attempt by one way: moments in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// It waits, and came first at that moment.
    waiting: Option<u64>,
    /// It is known, and came last at that moment.
    known: Option<u64>,
}

/// What an attempt is answered; the kindest is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// It is known.
    Known,
    /// It has come again, in time.
    Returned,
    /// It is to come again after so many milliseconds.
    Waits(u64),
    /// It has come for the first time, or too late, and is to come again after so many milliseconds.
    New(u64),
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The rule. What is said to have been later than `now` has not been: the clock was set back, and nobody waits for it.
fn judge(rule: &Greylist, seen: Seen, now: u64) -> Answer {
    let ago = |at: Option<u64>| at.and_then(|at| now.checked_sub(at));
    let (delay, window) = (millis(rule.delay), millis(rule.window));
    match (ago(seen.known), ago(seen.waiting)) {
        (Some(last), _) if last <= KNOWN_MILLIS => Answer::Known,
        (_, Some(first)) if first < delay => Answer::Waits(delay - first),
        (_, Some(first)) if first <= window => Answer::Returned,
        _ => Answer::New(delay),
    }
}

/// What is to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Known(Key),
    Waiting(Key),
    WaitsNoMore(Key),
}

/// Whether there is room for an attempt that comes for the first time.
fn has_room(rule: &Greylist, rows: &impl Rows, attempt: &Attempt, now: u64) -> Result<bool, StoreError> {
    let kept = millis(rule.delay).saturating_add(KEPT_MILLIS);
    let is_young = |oldest: u64| now.saturating_sub(oldest) < kept;
    let is_full = WAITING.len(rows)? >= WAITING.max && WAITING.oldest(rows)?.is_some_and(is_young);
    for way in &attempt.0 {
        // What is there already takes no room.
        if WAITING.get(rows, &way.triplet)?.is_none() {
            let client = &way.triplet[..CLIENT_BYTES];
            if is_full || WAITING.beginning_with(rows, client, CLIENT_WAITING_MAX)? >= CLIENT_WAITING_MAX {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What an attempt at `now` is answered, and what is to be remembered of it.
fn step(
    rule: &Greylist,
    rows: &impl Rows,
    attempt: &Attempt,
    now: u64,
) -> Result<(Answer, Vec<Change>), StoreError> {
    let mut judged = Vec::with_capacity(attempt.0.len());
    for way in &attempt.0 {
        // By the last of its triplets the whole client is known.
        let client = KNOWN.get(rows, &way.client[CLIENT_TRIPLETS - 1])?;
        let known = KNOWN.get(rows, &way.triplet)?.max(client);
        judged.push(judge(rule, Seen { waiting: WAITING.get(rows, &way.triplet)?, known }, now));
    }
    let answer = judged.iter().min().copied().unwrap_or(Answer::Known);
    let mut changes = Vec::new();
    if judged.iter().any(|judged| matches!(judged, Answer::New(_)))
        && matches!(answer, Answer::Waits(_) | Answer::New(_))
        && !has_room(rule, rows, attempt, now)?
    {
        let answer = if matches!(answer, Answer::New(_)) { Answer::Known } else { answer };
        return Ok((answer, changes));
    }
    for (way, judged) in attempt.0.iter().zip(judged) {
        match answer {
            Answer::Known => {
                for key in [way.triplet, way.client[CLIENT_TRIPLETS - 1]] {
                    let is_old = |last: u64| now.saturating_sub(last) >= REFRESHED_MILLIS;
                    if KNOWN.get(rows, &key)?.is_some_and(is_old) {
                        changes.push(Change::Known(key));
                    }
                }
            }
            Answer::Returned => {
                changes.extend([Change::Known(way.triplet), Change::WaitsNoMore(way.triplet)]);
                for key in way.client {
                    let known = Seen { waiting: None, known: KNOWN.get(rows, &key)? };
                    if judge(rule, known, now) != Answer::Known {
                        changes.push(Change::Known(key));
                        break;
                    }
                }
            }
            Answer::Waits(_) | Answer::New(_) => {
                if let Answer::New(_) = judged {
                    changes.push(Change::Waiting(way.triplet));
                }
            }
        }
    }
    Ok((answer, changes))
}

/// What an attempt at `now`, in milliseconds since 1970, is answered, and whether [`record`] is to be called.
pub fn ask(
    rule: &Greylist,
    rows: &impl Rows,
    attempt: &Attempt,
    now: u64,
) -> Result<(Answer, bool), StoreError> {
    let (answer, changes) = step(rule, rows, attempt, now)?;
    Ok((answer, !changes.is_empty()))
}

/// Remembers an attempt.
pub fn record(txn: &mut Txn<'_>, rule: &Greylist, attempt: &Attempt, now: u64) -> Result<(), StoreError> {
    // Others may have come since it was asked.
    let (_, changes) = step(rule, txn, attempt, now)?;
    for change in changes {
        match change {
            Change::Known(key) => KNOWN.put(txn, &key, now)?,
            Change::Waiting(key) => WAITING.put(txn, &key, now)?,
            Change::WaitsNoMore(key) => WAITING.remove(txn, &key)?,
        }
    }
    Ok(())
}

/// Forgets some of what has not come again in time, and of what has not come for long. Without a rule nobody asks, and
/// all of it grows old.
pub fn forget_old(txn: &mut Txn<'_>, rule: Option<&Greylist>, now: u64) -> Result<(), StoreError> {
    let window = rule.map_or(0, |rule| millis(rule.window));
    WAITING.forget_before(txn, now.saturating_sub(window))?;
    KNOWN.forget_before(txn, now.saturating_sub(KNOWN_MILLIS))
}

/// How many wait, and how many are known: triplets, and what counts the triplets of clients.
pub fn len(rows: &impl Rows) -> Result<(u64, u64), StoreError> {
    Ok((WAITING.len(rows)?, KNOWN.len(rows)?))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};

    use super::*;

    const KEY: [u8; 32] = [3; 32];
    const MINUTE: u64 = 60_000;
    const DAY: u64 = 24 * 60 * MINUTE;
    const NOW: u64 = 1_800_000_000_000;

    fn rule() -> Greylist {
        Greylist { delay: Duration::from_secs(300), window: Duration::from_secs(172_800) }
    }

    /// An attempt from a network that a number stands for.
    fn attempt(network: u8, path: &str, recipient: &str) -> Attempt {
        let client = IpAddr::from([192, 0, network, 7]);
        let [path, recipient] = [path, recipient].map(|text| text.parse().expect("an address"));
        Attempt::new(&KEY, Network::of(client), &path, &recipient)
    }

    fn of_domain(network: u8, path: &str, recipient: &str) -> Attempt {
        let domain = path.split_once('@').expect("an address").1;
        attempt(network, path, recipient).vouched_for(&KEY, domain, &recipient.parse().expect("an address"))
    }

    struct List(Store);

    impl List {
        fn new() -> Self {
            Self(Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens"))
        }

        fn ask(&self, attempt: &Attempt, now: u64) -> Answer {
            let (answer, is_news) =
                self.0.read().and_then(|rows| ask(&rule(), &rows, attempt, now)).expect("reads");
            if is_news {
                let attempt = attempt.clone();
                self.0.commit_blocking(move |txn| record(txn, &rule(), &attempt, now)).expect("commits");
            }
            answer
        }

        fn len(&self) -> (u64, u64) {
            self.0.read().and_then(|rows| len(&rows)).expect("reads")
        }
    }

    #[test]
    fn the_rule_by_the_clock() {
        let (delay, window) = (5 * MINUTE, 2 * DAY);
        for (waiting, known, answer) in [
            (None, None, Answer::New(delay)),
            (Some(NOW), None, Answer::Waits(delay)),
            (Some(NOW - delay + 1), None, Answer::Waits(1)),
            (Some(NOW - delay), None, Answer::Returned),
            (Some(NOW - window), None, Answer::Returned),
            (Some(NOW - window - 1), None, Answer::New(delay)),
            // The clock was set back.
            (Some(NOW + 1), None, Answer::New(delay)),
            (None, Some(NOW), Answer::Known),
            (Some(NOW), Some(NOW - KNOWN_MILLIS), Answer::Known),
            (Some(NOW - delay), Some(NOW - KNOWN_MILLIS - 1), Answer::Returned),
            (None, Some(NOW + 1), Answer::New(delay)),
        ] {
            assert_eq!(judge(&rule(), Seen { waiting, known }, NOW), answer, "{waiting:?} {known:?}");
        }
    }

    #[test]
    fn who_comes_again_in_time_is_known_and_nobody_else() {
        let list = List::new();
        let first = attempt(2, "a@one.example", "alice@example.com");
        assert_eq!(list.ask(&first, NOW), Answer::New(5 * MINUTE));
        assert_eq!(list.ask(&first, NOW + MINUTE), Answer::Waits(4 * MINUTE), "coming early costs nothing");
        for other in [
            attempt(3, "a@one.example", "alice@example.com"),
            attempt(2, "b@one.example", "alice@example.com"),
            attempt(2, "a@one.example", "bob@example.com"),
        ] {
            assert_eq!(list.ask(&other, NOW + 6 * MINUTE), Answer::New(5 * MINUTE), "{other:?}");
        }
        // Another host of the network, another case, and with a tag.
        let path: Address = "A@ONE.example".parse().expect("an address");
        let again = Attempt::new(
            &KEY,
            Network::of(IpAddr::from([192, 0, 2, 250])),
            &path,
            &"alice+any-tag@EXAMPLE.com".parse().expect("an address"),
        );
        assert_eq!(list.ask(&again, NOW + 6 * MINUTE), Answer::Returned);
        assert_eq!(list.len(), (3, 2), "the others wait; the triplet, and its network's first");
        assert_eq!(list.ask(&first, NOW + 30 * DAY), Answer::Known);
        assert_eq!(list.ask(&first, NOW + 60 * DAY), Answer::Known, "it came meanwhile");
        assert_eq!(list.ask(&first, NOW + 97 * DAY), Answer::New(5 * MINUTE));
    }

    #[test]
    fn a_client_whose_triplets_come_again_is_known_whatever_it_sends() {
        let list = List::new();
        for n in 0..CLIENT_TRIPLETS {
            let one = attempt(2, &format!("a{n}@one.example"), "alice@example.com");
            assert!(matches!(list.ask(&one, NOW), Answer::New(_)), "{n}");
        }
        for n in 0..CLIENT_TRIPLETS {
            let one = attempt(2, &format!("a{n}@one.example"), "alice@example.com");
            assert_eq!(list.ask(&one, NOW + 6 * MINUTE), Answer::Returned, "{n}");
        }
        let other = |network| attempt(network, "new@other.example", "bob@example.com");
        assert_eq!(list.ask(&other(2), NOW + 7 * MINUTE), Answer::Known);
        assert!(matches!(list.ask(&other(3), NOW + 7 * MINUTE), Answer::New(_)), "another network");
        assert_eq!(list.ask(&other(2), NOW + 30 * DAY), Answer::Known);
        assert_eq!(list.ask(&other(2), NOW + 60 * DAY), Answer::Known, "it came meanwhile");
    }

    #[test]
    fn whom_spf_vouches_for_may_come_again_from_anywhere_and_as_anybody_of_the_domain() {
        let list = List::new();
        assert!(matches!(list.ask(&of_domain(2, "a@one.example", "alice@example.com"), NOW), Answer::New(_)));
        let elsewhere = of_domain(9, "bounce-77@ONE.example", "alice@example.com");
        assert_eq!(list.ask(&elsewhere, NOW + 6 * MINUTE), Answer::Returned);
        // DNS gives no answer now: it is known by its network all the same.
        assert_eq!(
            list.ask(&attempt(9, "bounce-77@one.example", "alice@example.com"), NOW + DAY),
            Answer::Known
        );
        let forged = attempt(4, "a@one.example", "alice@example.com");
        assert!(matches!(list.ask(&forged, NOW + DAY), Answer::New(_)), "nobody vouches for this one");
    }

    #[test]
    fn one_client_has_a_share_of_those_who_wait_and_what_is_beyond_it_is_taken() {
        let list = List::new();
        let first = attempt(2, "x@junk.example", "alice@example.com");
        assert_eq!(list.ask(&first, NOW), Answer::New(5 * MINUTE));
        // As if the client had sent to so many more.
        list.0
            .commit_blocking(move |txn| {
                (1..CLIENT_WAITING_MAX as u64).try_for_each(|n| {
                    let mut key = first.0[0].triplet;
                    key[CLIENT_BYTES..CLIENT_BYTES + 8].copy_from_slice(&n.to_be_bytes());
                    WAITING.put(txn, &key, NOW)
                })
            })
            .expect("commits");
        let beyond = |network| attempt(network, "x@junk.example", "bob@example.com");
        assert_eq!(list.ask(&beyond(2), NOW), Answer::Known);
        assert_eq!(list.len().0, CLIENT_WAITING_MAX as u64);
        assert_eq!(
            list.ask(&beyond(3), NOW),
            Answer::New(5 * MINUTE),
            "another network has a share of its own"
        );
    }

    #[test]
    fn a_flood_of_strangers_makes_nobody_forgotten_who_is_known_and_all_grows_old() {
        let list = List::new();
        let known = attempt(2, "a@one.example", "alice@example.com");
        list.ask(&known, NOW);
        assert_eq!(list.ask(&known, NOW + 6 * MINUTE), Answer::Returned);
        for n in 0..50 {
            list.ask(&attempt(3, &format!("x{n}@junk.example"), "alice@example.com"), NOW + 7 * MINUTE);
        }
        // As if so many more had come.
        let full = crate::aged::Count(WAITING.max);
        list.0.commit_blocking(move |txn| txn.put(WAITING.count, b"", &full)).expect("commits");
        let rows = || list.0.read().and_then(|rows| rows.count(WAITING.keys)).expect("reads");
        let late = attempt(4, "y@honest.example", "alice@example.com");
        assert_eq!(list.ask(&late, NOW + 8 * MINUTE), Answer::Known, "there is no room to remember it");
        assert_eq!((rows(), list.len().1), (50, 2), "nobody who waits went for it");
        let waits = attempt(3, "x0@junk.example", "alice@example.com");
        assert_eq!(list.ask(&waits, NOW + 8 * MINUTE), Answer::Waits(4 * MINUTE));
        let later = NOW + 7 * MINUTE + 5 * MINUTE + KEPT_MILLIS;
        assert_eq!(list.ask(&late, later), Answer::New(5 * MINUTE));
        assert_eq!((rows(), list.len().1), (50, 2), "an old one went for the new one");
        assert_eq!(list.ask(&known, NOW + 9 * MINUTE), Answer::Known);
        let forget = |rule: Option<Greylist>, now| {
            list.0.commit_blocking(move |txn| forget_old(txn, rule.as_ref(), now)).expect("commits");
            let rows = list.0.read().expect("reads");
            [WAITING.keys, KNOWN.keys].map(|table| rows.count(table).expect("reads"))
        };
        assert_eq!(forget(Some(rule()), NOW + DAY), [50, 2]);
        assert_eq!(forget(Some(rule()), NOW + 3 * DAY), [0, 2]);
        assert_eq!(forget(None, NOW + 37 * DAY), [0, 0]);
    }
}
