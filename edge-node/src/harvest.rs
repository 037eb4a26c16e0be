//! Directory harvesting: how many recipients who are not here were named within an hour, over all sessions, by the
//! strangers of a network or by one client whom the site knows.
//!
//! One session ends after ten of them, and another one begins. This counts on, and whoever has named too many is told
//! nothing of anybody for the rest of the hour, so that a list of names cannot be tried from one place. Whom the site knows
//! may name more, and is not counted with others: no neighbour locks them out.
//!
//! Time comes in with each question. The counts are in memory: a restart forgives them.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use shared::listener::{IPV6_NETWORK_BITS, host};
use shared::smtp::{Enhanced, Reply, Verdict};

use crate::lockout::{Network, forget};

/// How long recipients are counted that somebody has named, from the first one.
const COUNTED_FOR: Duration = Duration::from_secs(3_600);
/// Recipients who are not here that strangers of one network may name meanwhile: more than a list with old addresses has
/// of one site.
const STRANGERS_MAX: u32 = 50;
/// The same of one client whom the site knows. Anybody is known whose message was taken, so this is bounded too.
const KNOWN_MAX: u32 = 500;
/// Recipients of whom it is known that they were named, so that each counts once; those beyond count each time.
const ONCE_MAX: usize = 50;
/// Counts that are kept: 20 MiB.
const COUNTS_MAX: usize = 65_536;

/// Who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namer {
    /// The strangers of a network.
    Strangers(Network),
    /// One client whom the site knows, as [`host`] has it.
    Known(IpAddr),
}

impl Namer {
    /// Who that client is counted with.
    pub fn of(client: IpAddr, is_known: bool) -> Self {
        match Network::of(client) {
            Network::Of(_) if is_known => Self::Known(host(client)),
            network => Self::Strangers(network),
        }
    }

    /// Whether an operator means them who types `what`.
    fn is_meant(self, what: &str) -> bool {
        match self {
            Self::Strangers(network) => network.is_meant(what),
            Self::Known(known) => {
                what == self.to_string() || what.parse().is_ok_and(|address| host(address) == known)
            }
        }
    }

    fn named_max(self) -> u32 {
        match self {
            Self::Strangers(_) => STRANGERS_MAX,
            Self::Known(_) => KNOWN_MAX,
        }
    }
}

impl fmt::Display for Namer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strangers(network) => network.fmt(f),
            Self::Known(v4 @ IpAddr::V4(_)) => v4.fmt(f),
            Self::Known(v6) => write!(f, "{v6}/{IPV6_NETWORK_BITS}"),
        }
    }
}

#[derive(Debug)]
struct Count {
    named: u32,
    /// The beginnings of the hashes of the first ones.
    once: Vec<[u8; 4]>,
    since: Duration,
}

/// Who is told nothing, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// A network, or the host of a client whom the site knows.
    pub what: String,
    /// Recipients who are not here and were named.
    pub named: u32,
    /// For how much longer.
    pub left: Duration,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Harvest {
    counts: HashMap<Namer, Count>,
}

impl Harvest {
    /// For how much longer somebody is told nothing at `now`; `None` if they may ask.
    fn left(&self, namer: Namer, now: Duration) -> Option<Duration> {
        let count = self.counts.get(&namer).filter(|count| count.named >= namer.named_max())?;
        let left = COUNTED_FOR.saturating_sub(now.saturating_sub(count.since));
        (!left.is_zero()).then_some(left)
    }

    /// Who is told nothing at `now`, the longest first.
    pub fn locked(&self, now: Duration) -> Vec<Locked> {
        let locked = |(namer, count): (&Namer, &Count)| {
            self.left(*namer, now).map(|left| Locked { what: namer.to_string(), named: count.named, left })
        };
        let mut locked: Vec<_> = self.counts.iter().filter_map(locked).collect();
        locked.sort_by(|a, b| (b.left, &a.what).cmp(&(a.left, &b.what)));
        locked
    }

    /// Forgets what was named by those who are told nothing at `now` and whom an operator means who types `what`, a
    /// network as it is shown or an address in it. Whether there were any.
    pub fn release(&mut self, what: &str, now: Duration) -> bool {
        let released: Vec<_> = self.counts.keys().filter(|namer| namer.is_meant(what)).copied().collect();
        let released = released.into_iter().filter(|namer| self.left(*namer, now).is_some());
        let released: Vec<_> = released.collect();
        released.iter().for_each(|namer| drop(self.counts.remove(namer)));
        !released.is_empty()
    }

    /// Whether somebody may ask at `now` who is here, or what they are told instead.
    pub fn may_ask(&self, namer: Namer, now: Duration) -> Verdict {
        let Some(left) = self.left(namer, now) else { return Ok(()) };
        let text = format!(
            "too many unknown recipients were named from {namer}; send it again in {} minutes or later",
            left.as_secs().div_ceil(60)
        );
        Err(Reply::new(450, Enhanced(4, 7, 1), &text))
    }

    /// Somebody has named a recipient who is not here, which is known by its `hash`. Whether that was the last one that they
    /// may name, for the log.
    pub fn named(&mut self, namer: Namer, hash: &[u8; 32], now: Duration) -> bool {
        // Whoever is behind a proxy here is not one network.
        if namer == Namer::Strangers(Network::Here) {
            return false;
        }
        if self.counts.len() >= COUNTS_MAX && !self.counts.contains_key(&namer) {
            forget(&mut self.counts, COUNTS_MAX, now.checked_sub(COUNTED_FOR), |count| Some(count.since));
        }
        let begun = || Count { named: 0, once: Vec::new(), since: now };
        let count = self.counts.entry(namer).or_insert_with(begun);
        if now.saturating_sub(count.since) >= COUNTED_FOR {
            *count = begun();
        }
        let [a, b, c, d, ..] = *hash;
        let hash = [a, b, c, d];
        if count.once.contains(&hash) {
            return false;
        }
        if count.once.len() < ONCE_MAX {
            count.once.push(hash);
        }
        count.named = count.named.saturating_add(1);
        count.named == namer.named_max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strangers(address: &str) -> Namer {
        Namer::of(address.parse().expect("an address"), false)
    }

    fn known(address: &str) -> Namer {
        Namer::of(address.parse().expect("an address"), true)
    }

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    /// They name somebody who is not here and whom a number stands for.
    fn name(harvest: &mut Harvest, namer: Namer, number: u32, now: Duration) -> bool {
        harvest.named(namer, blake3::hash(&number.to_be_bytes()).as_bytes(), now)
    }

    fn told(harvest: &Harvest, namer: Namer, now: Duration) -> String {
        harvest.may_ask(namer, now).map_or_else(|reply| reply.to_string(), |()| "ok".into())
    }

    #[test]
    fn who_has_named_fifty_who_are_not_here_is_told_nothing_for_the_rest_of_the_hour() {
        let mut harvest = Harvest::default();
        // From all over the network, a session each.
        let from = |n: u32| strangers(&format!("192.0.2.{n}"));
        let seen: Vec<_> = (1..=50).map(|n| name(&mut harvest, from(n), n, minutes(5))).collect();
        assert_eq!(seen.iter().position(|last| *last), Some(49), "said once, with the last one");
        let expected = "450 4.7.1 too many unknown recipients were named from 192.0.2.0/24; send it again in 60 minutes or later";
        assert_eq!(told(&harvest, from(200), minutes(5)), expected);
        assert!(told(&harvest, from(200), minutes(64)).contains("in 1 minutes"));
        for other in [strangers("192.0.3.1"), strangers("2001:db8::1"), known("192.0.2.200")] {
            assert_eq!(told(&harvest, other, minutes(5)), "ok");
        }
        // Another hour begins, with a count of its own.
        assert_eq!(told(&harvest, from(200), minutes(65)), "ok");
        assert!(!name(&mut harvest, from(1), 1, minutes(65)));
        assert_eq!(told(&harvest, from(200), minutes(66)), "ok");
    }

    #[test]
    fn whom_the_site_knows_may_name_more_each_by_themselves() {
        let mut harvest = Harvest::default();
        let (one, neighbour, v6) = (known("192.0.2.1"), known("192.0.2.2"), known("2001:db8::1"));
        assert!(
            (1..500)
                .all(|n| !name(&mut harvest, one, n, minutes(1)) && !name(&mut harvest, v6, n, minutes(1)))
        );
        assert_eq!(told(&harvest, one, minutes(1)), "ok");
        assert!(
            name(&mut harvest, one, 500, minutes(1))
                && name(&mut harvest, known("2001:db8::2"), 500, minutes(1))
        );
        assert!(told(&harvest, one, minutes(1)).contains("from 192.0.2.1; "));
        assert!(told(&harvest, v6, minutes(1)).contains("from 2001:db8::/64; "));
        for other in [neighbour, strangers("192.0.2.1")] {
            assert_eq!(told(&harvest, other, minutes(1)), "ok");
        }
    }

    #[test]
    fn an_operator_sees_who_is_told_nothing_and_until_when_and_lets_them_go() {
        let mut harvest = Harvest::default();
        let v6 = "2001:db8::7";
        for n in 0..50 {
            name(&mut harvest, strangers("192.0.2.1"), n, minutes(5));
            name(&mut harvest, strangers(v6), n, minutes(6));
            name(&mut harvest, strangers("198.51.100.1"), n % 49, minutes(6));
        }
        (0..500).for_each(|n| _ = name(&mut harvest, known("192.0.2.9"), n, minutes(7)));
        let locked = |what: &str, named, left| Locked { what: what.into(), named, left: minutes(left) };
        let all =
            [locked("192.0.2.9", 500, 57), locked("2001:db8::/64", 50, 56), locked("192.0.2.0/24", 50, 55)];
        assert_eq!(harvest.locked(minutes(10)), all);
        for other in ["198.51.100.0/24", "192.0.3.0/24", "192.0.2.0/16", "192.0.2.x", "", "this host"] {
            assert!(!harvest.release(other, minutes(10)), "{other}");
        }
        assert_eq!(harvest.locked(minutes(10)), all);
        assert!(harvest.release("192.0.2.0/24", minutes(10)));
        assert_eq!(harvest.locked(minutes(10)), all[..2], "whom the site knows there is somebody else");
        assert!(harvest.release("192.0.2.9", minutes(10)) && harvest.release(v6, minutes(10)));
        assert_eq!(harvest.locked(minutes(10)), []);
        assert_eq!(told(&harvest, strangers(v6), minutes(10)), "ok");
        assert!(!name(&mut harvest, strangers(v6), 1, minutes(10)), "its count begins anew");
        assert!(!harvest.release(v6, minutes(10)), "once");
    }

    #[test]
    fn forty_nine_in_an_hour_are_no_harvest_however_often_and_however_many_hours() {
        let (mut harvest, from) = (Harvest::default(), strangers("192.0.2.1"));
        for hour in 0..24 {
            for minute in 0..60 {
                assert!(!name(&mut harvest, from, minute % 49, minutes(u64::from(60 * hour + minute))));
            }
        }
        assert_eq!(told(&harvest, from, minutes(24 * 60 - 1)), "ok");
    }

    #[test]
    fn this_host_is_no_network() {
        let mut harvest = Harvest::default();
        for here in [strangers("127.0.0.1"), known("127.0.0.1")] {
            assert!((0..1_000).all(|n| !name(&mut harvest, here, n, minutes(1))));
            assert_eq!((told(&harvest, here, minutes(1)), harvest.counts.len()), ("ok".into(), 0));
        }
    }

    #[test]
    fn so_many_are_counted_and_the_oldest_are_forgotten() {
        let mut harvest = Harvest::default();
        let of = |n: u32| Namer::of(IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes()), false);
        for n in 0..2 * u32::try_from(COUNTS_MAX).expect("small") {
            name(&mut harvest, of(n), n, Duration::from_millis(n.into()));
            assert!(harvest.counts.len() <= COUNTS_MAX);
        }
        assert!(!harvest.counts.contains_key(&of(0)) && harvest.counts.contains_key(&of(131_071)));
    }
}
