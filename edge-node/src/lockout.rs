//! Guesses at passwords: who is slowed down, and who may not try for a while.
//!
//! Failed logins are counted by network, by account, and by both together, and forgotten some minutes after
//! the last one. A network that guesses is slowed down and then locked out, whichever accounts it tries. An
//! account at which many networks guess is guarded: a network from which nobody has logged in to it before
//! gets a few slow tries, so that a traveller who arrives somewhere new still comes in. A network from which
//! the traveller has logged in before is never locked out of that account: there the password is checked, only slowed
//! down by what was guessed at it from there since the last login. Such a check is made besides what everybody gets
//! there, and can only let in.
//!
//! What a failed login is told, and when, does not depend on that, nor on whether its account exists: it is told what
//! it would be told where nobody has been before, and counted so. Who guesses in the traveller's own network would
//! otherwise see by the lock that is not there who travels.
//!
//! A try counts towards the locks from its beginning, in the step that lets it begin: of guesses that are sent all
//! at once no more are tried than of guesses one after the other, and all but the first three at one account from one
//! network wait. One that succeeds is given back.
//!
//! Time comes in with each question. The counts are in memory: a restart forgives them.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use shared::listener::{IPV4_NETWORK_BITS, IPV6_NETWORK_BITS, network};

/// How long after the last failure all of them are forgotten, and a lock is opened.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Failures that cost nothing: people mistype.
const FREE: u32 = 3;
/// What the next tries have to wait for; the last is the longest.
const DELAYS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    LONGEST_DELAY,
];
const LONGEST_DELAY: Duration = Duration::from_secs(15);
/// The longest wait in a lock, where a traveller was before: as many checks as there are sessions in one network come to
/// their end between it and the instant at which the failure is told, which waits for none.
const LONGEST_IN_A_LOCK: Duration = Duration::from_secs(8);
/// Failures after which a network is locked out, and an account guarded.
const LOCKED_AFTER: u32 = 20;
/// Between two words to big.
const TOLD_EVERY: Duration = Duration::from_secs(600);
/// Counts that are kept: some MiB.
const COUNTS_MAX: usize = 65_536;
/// Letters of a login name that are kept for the operator.
const NAME_LETTERS_MAX: usize = 64;

/// Where logins come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// An IPv4 /24 or an IPv6 /64, by its first address.
    Of(IpAddr),
    /// This host: whoever is behind a proxy here is not one network.
    Here,
}

impl Network {
    /// The network of a client.
    pub fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            address if address.is_loopback() => Self::Here,
            address => Self::Of(network(address)),
        }
    }

    /// Whether an operator means it who types `what`: the network as it is shown, or an address in it.
    pub fn is_meant(&self, what: &str) -> bool {
        what == self.to_string() || what.parse().is_ok_and(|address| Self::of(address) == *self)
    }

    /// As octets: 4, 16 or none.
    pub fn octets(&self) -> Vec<u8> {
        match self {
            Self::Of(IpAddr::V4(v4)) => v4.octets().to_vec(),
            Self::Of(IpAddr::V6(v6)) => v6.octets().to_vec(),
            Self::Here => Vec::new(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(v4 @ IpAddr::V4(_)) => write!(f, "{v4}/{IPV4_NETWORK_BITS}"),
            Self::Of(v6) => write!(f, "{v6}/{IPV6_NETWORK_BITS}"),
            Self::Here => f.write_str("this host"),
        }
    }
}

/// The keyed hash of a login name.
pub type Account = [u8; 32];

/// A login that is being tried.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// At which account.
    pub account: Account,
    /// As the client wrote it.
    pub name: String,
    /// From where.
    pub network: Network,
    /// Somebody has logged in to the account from there before.
    pub known: bool,
}

/// How a login that has begun goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The wait before the password is checked first; `None` if it is good for nothing now, right or wrong.
    pub checked_after: Option<Duration>,
    /// When a failure is told, but for the same little more for all; and when the password is checked of whoever was
    /// never there before, unless that is locked.
    pub told_after: Duration,
    /// A failure is told as too many of them; else as a wrong password.
    pub locked: bool,
}

/// What is locked or guarded, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// A network, or the name of an account as it was tried.
    pub what: String,
    /// It is a network, which is locked out; else an account, which is guarded.
    pub is_network: bool,
    /// Failed logins.
    pub failures: u32,
    /// For how much longer, if there is none more.
    pub left: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Network(Network),
    Account(Account),
    Both(Account, Network),
    /// The same, where somebody has logged in before; since that time.
    Known(Account, Network),
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The password was wrong.
    Failed,
    /// It was right.
    Succeeded,
    /// It could not be checked.
    Unchecked,
}

#[derive(Clone, Debug)]
struct Count {
    failures: u32,
    /// Tries that have begun and not ended.
    under_way: u32,
    /// The last failure; before the first one, the first try.
    last: Duration,
    /// Of an account.
    name: Option<Box<str>>,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Lockout {
    counts: HashMap<Subject, Count>,
    /// Something was locked or guarded since big was told.
    untold: bool,
    /// When big was told.
    told_at: Option<Duration>,
}

/// How much is locked and guarded, for big.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guessing {
    /// Networks that are locked out.
    pub networks: u32,
    /// Accounts that are guarded.
    pub accounts: u32,
}

impl Lockout {
    /// Begins `attempt` at `now`. It has to end, with the answer that it got.
    pub fn begin(&mut self, attempt: &Attempt, now: Duration) -> Answer {
        let answer = self.ask(attempt, now);
        for (subject, name) in subjects(attempt, answer) {
            self.count(subject, name, now).under_way += 1;
        }
        answer
    }

    /// How `attempt` would go on at `now`.
    fn ask(&self, attempt: &Attempt, now: Duration) -> Answer {
        let shown = self.shown(attempt, now);
        let (told_after, locked) = (shown.unwrap_or(LONGEST_DELAY), shown.is_none());
        let longest = if locked { LONGEST_IN_A_LOCK } else { told_after };
        let checked_after = match attempt.known {
            true => Some(delay(self.tries(&known(attempt), now)).min(longest)),
            false => shown,
        };
        Answer { checked_after, told_after, locked }
    }

    /// The wait of whoever was never there before; `None` if they are locked out.
    fn shown(&self, attempt: &Attempt, now: Duration) -> Option<Duration> {
        let network = Subject::Network(attempt.network);
        if self.tries(&network, now) >= LOCKED_AFTER {
            return None;
        }
        let from_there = self.tries(&both(attempt), now);
        if self.tries(&Subject::Account(attempt.account), now) < LOCKED_AFTER {
            return Some(delay(self.failures(&network, now).max(from_there)));
        }
        (from_there < FREE).then_some(LONGEST_DELAY)
    }

    /// An attempt that has begun, and got that answer, has ended. What was locked or guarded by it is returned, for the
    /// log.
    pub fn end(&mut self, attempt: &Attempt, answer: Answer, tried: Tried, now: Duration) -> Vec<Locked> {
        let mut locked = Vec::new();
        for (subject, name) in subjects(attempt, answer) {
            let before = self.failures(&subject, now);
            let count = self.count(subject, name, now);
            count.under_way = count.under_way.saturating_sub(1);
            match (tried, subject) {
                (Tried::Failed, _) => {
                    (count.failures, count.last) = (before.saturating_add(1), now);
                    if count.failures == LOCKED_AFTER {
                        locked.extend(view(&subject, count, now));
                    }
                }
                // What others are told of their failures does not become less by it.
                (Tried::Succeeded, Subject::Known(..)) => count.failures = 0,
                _ => {}
            }
            if (count.failures, count.under_way) == (0, 0) {
                self.counts.remove(&subject);
            }
        }
        self.untold |= !locked.is_empty();
        locked
    }

    /// What big is to be told at `now`: nothing, unless something was locked since it was told last, some minutes
    /// ago. It counts as told then.
    pub fn tell(&mut self, now: Duration) -> Option<Guessing> {
        let lately = self.told_at.is_some_and(|at| now.saturating_sub(at) < TOLD_EVERY);
        if !self.untold || lately {
            return None;
        }
        (self.untold, self.told_at) = (false, Some(now));
        let locked = self.locked(now);
        let networks = locked.iter().filter(|locked| locked.is_network).count();
        let counted = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Some(Guessing { networks: counted(networks), accounts: counted(locked.len() - networks) })
    }

    /// Big could not be told: it is told the next time that it is asked for.
    pub fn not_told(&mut self) {
        (self.untold, self.told_at) = (true, None);
    }

    /// What is locked or guarded at `now`, the longest first.
    pub fn locked(&self, now: Duration) -> Vec<Locked> {
        let mut locked: Vec<_> =
            self.counts.iter().filter_map(|(subject, count)| view(subject, count, now)).collect();
        locked.sort_by(|a, b| (b.left, &a.what).cmp(&(a.left, &b.what)));
        locked
    }

    /// Forgets the failures of what is locked or guarded at `now` and an operator means who types `what`: a network as
    /// it is shown, an address in it, or, with `account`, the name of that account. Whether there was such.
    pub fn release(&mut self, what: &str, account: Option<&Account>, now: Duration) -> bool {
        let is_meant = |subject: &Subject, count: &Count| match subject {
            Subject::Network(network) => network.is_meant(what),
            Subject::Account(other) => {
                account.is_some_and(|account| account == other || count.name.as_deref() == Some(what))
            }
            Subject::Both(..) | Subject::Known(..) => false,
        };
        let is_locked = |subject: &Subject, count: &Count| view(subject, count, now).is_some();
        let released = self
            .counts
            .iter()
            .filter(|(subject, count)| is_meant(subject, count) && is_locked(subject, count));
        let released: Vec<_> = released.map(|(subject, _)| *subject).collect();
        self.counts.retain(|subject, count| {
            let is_of = |released: &Subject| match (released, subject) {
                (Subject::Network(network), Subject::Both(_, other)) => network == other,
                (Subject::Account(account), Subject::Both(other, _)) => account == other,
                _ => released == subject,
            };
            if released.iter().any(is_of) {
                count.failures = 0;
            }
            (count.failures, count.under_way) != (0, 0)
        });
        !released.is_empty()
    }

    fn failures(&self, subject: &Subject, now: Duration) -> u32 {
        let count = self.counts.get(subject).filter(|count| is_remembered(count, now));
        count.map_or(0, |count| count.failures)
    }

    /// Those that have failed, and those of which it is not known yet.
    fn tries(&self, subject: &Subject, now: Duration) -> u32 {
        let under_way = self.counts.get(subject).map_or(0, |count| count.under_way);
        self.failures(subject, now).saturating_add(under_way)
    }

    /// The count of a subject, which begins at `now` if there is none.
    fn count(&mut self, subject: Subject, name: Option<Box<str>>, now: Duration) -> &mut Count {
        if self.counts.len() >= COUNTS_MAX && !self.counts.contains_key(&subject) {
            self.make_room(now);
        }
        let count = self.counts.entry(subject);
        count.or_insert(Count { failures: 0, under_way: 0, last: now, name })
    }

    /// What is under way stays.
    fn make_room(&mut self, now: Duration) {
        let last = |count: &Count| (count.under_way == 0).then_some(count.last);
        forget(&mut self.counts, COUNTS_MAX, now.checked_sub(FORGOTTEN_AFTER), last);
    }
}

/// Makes room among counts of which there may be `max`: forgets what was counted last at `over` or before and, if that is
/// little, the older half of the rest. What has no `last` time stays.
pub fn forget<K: Eq + Hash, V>(
    counts: &mut HashMap<K, V>,
    max: usize,
    over: Option<Duration>,
    last: impl Fn(&V) -> Option<Duration>,
) {
    counts.retain(|_, count| last(count).is_none_or(|at| over.is_none_or(|over| at > over)));
    let mut times: Vec<_> = counts.values().filter_map(&last).collect();
    if counts.len() > max / 2 && !times.is_empty() {
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        let middle = *middle;
        counts.retain(|_, count| last(count).is_none_or(|at| at > middle));
    }
}

/// Where an attempt is counted that got that answer, and the name of its account. A lock is not made longer by tries in
/// it, whoever makes them.
fn subjects(attempt: &Attempt, answer: Answer) -> impl Iterator<Item = (Subject, Option<Box<str>>)> {
    let name = attempt.name.chars().take(NAME_LETTERS_MAX).collect::<String>().into();
    // Whoever is on this host is not one network.
    let network = (attempt.network != Network::Here).then_some((Subject::Network(attempt.network), None));
    let shown =
        [(both(attempt), None), (Subject::Account(attempt.account), Some(name))].into_iter().chain(network);
    let known = attempt.known.then_some((known(attempt), None));
    (!answer.locked).then_some(shown).into_iter().flatten().chain(known)
}

fn both(attempt: &Attempt) -> Subject {
    Subject::Both(attempt.account, attempt.network)
}

fn known(attempt: &Attempt) -> Subject {
    Subject::Known(attempt.account, attempt.network)
}

fn is_remembered(count: &Count, now: Duration) -> bool {
    now.saturating_sub(count.last) < FORGOTTEN_AFTER
}

fn delay(failures: u32) -> Duration {
    let place = failures.checked_sub(FREE).and_then(|place| usize::try_from(place).ok());
    place.map_or(Duration::ZERO, |place| DELAYS.get(place).copied().unwrap_or(LONGEST_DELAY))
}

fn view(subject: &Subject, count: &Count, now: Duration) -> Option<Locked> {
    let (what, is_network) = match subject {
        Subject::Network(network) => (network.to_string(), true),
        Subject::Account(_) => (count.name.as_deref().unwrap_or_default().to_owned(), false),
        Subject::Both(..) | Subject::Known(..) => return None,
    };
    let left = FORGOTTEN_AFTER.saturating_sub(now.saturating_sub(count.last));
    let is_locked = count.failures >= LOCKED_AFTER && !left.is_zero();
    is_locked.then_some(Locked { what, is_network, failures: count.failures, left })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use shared::store::sim::Dice;

    use super::*;

    const ALICE: Account = [1; 32];
    const BOB: Account = [2; 32];
    /// The attacker's address, the hotel's, home's.
    const EVIL: &str = "203.0.113.7";
    const HOTEL: &str = "198.51.100.9";
    const HOME: &str = "192.0.2.33";

    fn attempt(account: Account, client: &str, known: bool) -> Attempt {
        let network = Network::of(client.parse().expect("an address"));
        Attempt { account, name: format!("name{}", account[0]), network, known }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Checked after so many seconds, and told so.
    fn after(wait: u64) -> Answer {
        Answer { checked_after: Some(seconds(wait)), told_after: seconds(wait), locked: false }
    }

    /// Checked after so many seconds, and told that it was not.
    fn only_known(wait: u64) -> Answer {
        Answer { checked_after: Some(seconds(wait)), ..LOCKED }
    }

    const LOCKED: Answer = Answer { checked_after: None, told_after: LONGEST_DELAY, locked: true };

    /// A failure of `attempt`, whether or not it may be made; what is locked by it.
    fn fail(lockout: &mut Lockout, attempt: &Attempt, now: Duration) -> Vec<Locked> {
        let answer = lockout.begin(attempt, now);
        lockout.end(attempt, answer, Tried::Failed, now)
    }

    /// So many failures of `attempt` at one moment.
    fn guess(lockout: &mut Lockout, attempt: &Attempt, times: u32, now: Duration) {
        (0..times).for_each(|_| drop(fail(lockout, attempt, now)));
    }

    fn succeed(lockout: &mut Lockout, attempt: &Attempt, now: Duration) {
        let answer = lockout.begin(attempt, now);
        assert!(answer.checked_after.is_some());
        assert!(lockout.end(attempt, answer, Tried::Succeeded, now).is_empty());
    }

    #[test]
    fn a_guesser_waits_ever_longer_and_is_locked_out() {
        let mut lockout = Lockout::default();
        let evil = attempt(ALICE, EVIL, false);
        let mut now = Duration::ZERO;
        let waits = [0, 0, 0, 1, 2, 4, 8, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15];
        for (failures, wait) in (0..).zip(waits) {
            assert_eq!(lockout.ask(&evil, now), after(wait), "after {failures} failures");
            let locked = fail(&mut lockout, &evil, now);
            assert_eq!(locked.len(), if failures == 19 { 2 } else { 0 }, "after {failures} failures");
            now += seconds(wait);
        }
        let neighbour = attempt(BOB, "203.0.113.200", false);
        for other in [&evil, &neighbour] {
            assert_eq!(lockout.ask(other, now), LOCKED, "whatever it tries");
        }
        let told: Vec<_> =
            lockout.locked(now).into_iter().map(|locked| (locked.what, locked.is_network)).collect();
        assert_eq!(told, [("203.0.113.0/24".to_owned(), true), ("name1".to_owned(), false)]);
        assert_eq!(lockout.ask(&evil, now + FORGOTTEN_AFTER), after(0), "not for ever");
        assert!(lockout.locked(now + FORGOTTEN_AFTER).is_empty());
    }

    #[test]
    fn the_traveller_comes_in_from_elsewhere() {
        let now = seconds(1_000);
        let (home, hotel) = (attempt(ALICE, HOME, true), attempt(ALICE, HOTEL, false));
        // One who guesses from one network.
        let mut lockout = Lockout::default();
        guess(&mut lockout, &attempt(ALICE, EVIL, false), 10, now);
        assert_eq!((lockout.ask(&home, now), lockout.ask(&hotel, now)), (after(0), after(0)));
        // One who guesses from many.
        for network in 0..100_u8 {
            guess(&mut lockout, &attempt(ALICE, &format!("10.0.{network}.1"), false), 3, now);
        }
        let at_home = Answer { told_after: LONGEST_DELAY, ..after(0) };
        assert_eq!(lockout.ask(&home, now), at_home, "as if nothing was, but for failures");
        for tries in 0..3 {
            assert_eq!(lockout.ask(&hotel, now), after(15), "slowly, after {tries} mistakes");
            fail(&mut lockout, &hotel, now);
        }
        assert_eq!(lockout.ask(&hotel, now), LOCKED);
        assert_eq!(lockout.ask(&attempt(ALICE, "10.0.5.9", false), now), LOCKED);
        assert_eq!(lockout.ask(&attempt(BOB, HOTEL, false), now), after(1), "another account is not guarded");
    }

    #[test]
    fn where_the_traveller_was_before_is_never_locked() {
        let now = seconds(1_000);
        let mut lockout = Lockout::default();
        // Somebody else in the hotel guesses, at this account and at others.
        let (known, stranger) = (attempt(ALICE, HOTEL, true), attempt(BOB, HOTEL, false));
        guess(&mut lockout, &stranger, 30, now);
        assert_eq!(lockout.ask(&stranger, now), LOCKED);
        assert_eq!(lockout.ask(&known, now), only_known(0));
        guess(&mut lockout, &known, 50, now);
        assert_eq!(lockout.ask(&known, now), only_known(8), "slowed down by guesses at it from there");
        assert_eq!(lockout.ask(&attempt(ALICE, HOME, true), now), after(0));
        succeed(&mut lockout, &known, now);
        assert_eq!(lockout.ask(&known, now), only_known(0));
        assert_eq!(
            lockout.ask(&attempt(ALICE, EVIL, false), now),
            after(0),
            "what was not tried does not count"
        );
    }

    /// Somebody guesses in the traveller's hotel and elsewhere, at that name and at others, one after the other and at
    /// once. Whether it is a traveller's, who meanwhile comes and goes, changes nothing of what they see.
    #[test]
    fn who_guesses_does_not_see_who_travels() {
        for seed in 1..=300 {
            let mut dice = Dice::new(seed);
            let (mut of_traveller, mut of_nobody) = (Lockout::default(), Lockout::default());
            let (mut now, mut under_way) = (seconds(1_000), Vec::new());
            // Few names and much time between guesses in some, so that what is forgotten is seen, too.
            let (names, pause) = (1 + dice.below(3), 1 + dice.below(700));
            for _ in 0..200 {
                now += seconds(dice.below(pause));
                let account = [u8::try_from(dice.below(names)).expect("few"); 32];
                let client = [HOTEL, EVIL, "127.0.0.1"][usize::try_from(dice.below(3)).expect("few")];
                let is_travellers = account == [0; 32] && client == HOTEL;
                let [seen, unknown] = [is_travellers, false].map(|known| attempt(account, client, known));
                let mut to_end: Vec<(Attempt, Answer, Attempt, Answer)> = Vec::new();
                if dice.below(4) == 0 {
                    to_end.append(&mut under_way);
                }
                let (answer, other) = (of_traveller.begin(&seen, now), of_nobody.begin(&unknown, now));
                let told = |answer: Answer| (answer.told_after, answer.locked);
                assert_eq!(told(answer), told(other), "{seed}: {seen:?}");
                assert!(answer.checked_after.is_none_or(|checked| checked <= answer.told_after));
                under_way.push((seen, answer, unknown, other));
                if dice.below(2) == 0 {
                    to_end.append(&mut under_way);
                }
                for (seen, answer, unknown, other) in to_end {
                    of_traveller.end(&seen, answer, Tried::Failed, now);
                    of_nobody.end(&unknown, other, Tried::Failed, now);
                }
                if dice.below(5) == 0 {
                    succeed(&mut of_traveller, &attempt([0; 32], HOTEL, true), now);
                }
            }
        }
    }

    #[test]
    fn guesses_that_are_sent_at_once_from_where_the_traveller_was_wait_as_others_do() {
        let now = seconds(1_000);
        let mut lockout = Lockout::default();
        let known = attempt(ALICE, HOTEL, true);
        let answers: Vec<_> = (0..100).map(|_| lockout.begin(&known, now)).collect();
        let waits = [0, 0, 0, 1, 2, 4, 8].into_iter().chain([15; 13]).chain(std::iter::repeat(8));
        let checked: Vec<_> = answers.iter().map(|answer| answer.checked_after).collect();
        assert_eq!(checked, waits.take(100).map(|wait| Some(seconds(wait))).collect::<Vec<_>>());
        // The traveller, who is there, waits no longer than that, and is past it with the first success.
        let own = lockout.begin(&known, now);
        assert_eq!(own, only_known(8));
        answers.iter().for_each(|answer| drop(lockout.end(&known, *answer, Tried::Failed, now)));
        assert!(lockout.end(&known, own, Tried::Succeeded, now).is_empty());
        assert_eq!(lockout.ask(&known, now), only_known(0));
        // Several clients of one person are given back.
        let mut lockout = Lockout::default();
        let answers: Vec<_> = (0..4).map(|_| lockout.begin(&known, now)).collect();
        assert!(answers.iter().all(|answer| answer.checked_after.is_some()));
        answers.iter().for_each(|answer| drop(lockout.end(&known, *answer, Tried::Unchecked, now)));
        assert!(lockout.counts.is_empty());
    }

    #[test]
    fn a_success_clears_the_mistakes_of_that_account_alone() {
        let now = seconds(1_000);
        let mut lockout = Lockout::default();
        let (own, other) = (attempt(BOB, EVIL, false), attempt(ALICE, EVIL, false));
        guess(&mut lockout, &other, 19, now);
        succeed(&mut lockout, &own, now);
        assert_eq!(lockout.ask(&other, now), after(15), "who owns an account guesses no better");
        fail(&mut lockout, &other, now);
        assert_eq!(lockout.ask(&other, now), LOCKED);
    }

    #[test]
    fn of_guesses_that_are_sent_at_once_no_more_are_tried_than_of_others() {
        let now = seconds(1_000);
        let all_at_once = |lockout: &mut Lockout, attempt: &Attempt| {
            let begun: Vec<_> = (0..400).map(|_| lockout.begin(attempt, now)).collect();
            begun.iter().for_each(|answer| drop(lockout.end(attempt, *answer, Tried::Failed, now)));
            begun.iter().filter(|answer| answer.checked_after.is_some()).count()
        };
        let mut lockout = Lockout::default();
        assert_eq!(all_at_once(&mut lockout, &attempt(ALICE, EVIL, false)), 20);
        // The account is guarded by it, for those who were not there before.
        assert_eq!(all_at_once(&mut lockout, &attempt(ALICE, HOTEL, false)), 3);
        let at_home = Answer { told_after: LONGEST_DELAY, ..after(0) };
        assert_eq!(lockout.ask(&attempt(ALICE, HOME, true), now), at_home);
        assert_eq!(lockout.ask(&attempt(BOB, HOTEL, false), now), after(1), "another one is not");
    }

    #[test]
    fn a_try_that_succeeds_or_cannot_be_checked_is_given_back() {
        let now = seconds(1_000);
        for tried in [Tried::Succeeded, Tried::Unchecked] {
            let mut lockout = Lockout::default();
            let attempt = attempt(ALICE, HOTEL, false);
            let answers: Vec<_> = (0..20).map(|_| lockout.begin(&attempt, now)).collect();
            assert!(
                answers.iter().all(|answer| answer.checked_after.is_some()),
                "many clients of one person"
            );
            assert_eq!(lockout.begin(&attempt, now), LOCKED, "none of them is known to be good yet");
            for answer in answers {
                assert!(lockout.end(&attempt, answer, tried, now).is_empty());
            }
            assert_eq!(lockout.ask(&attempt, now), after(0), "they are no guesses");
            assert!(lockout.counts.is_empty());
        }
    }

    #[test]
    fn big_is_told_once_in_some_minutes_and_not_without_a_reason() {
        let mut lockout = Lockout::default();
        let now = seconds(1_000);
        guess(&mut lockout, &attempt(ALICE, EVIL, false), 19, now);
        assert_eq!(lockout.tell(now), None, "nothing is locked");
        guess(&mut lockout, &attempt(ALICE, EVIL, false), 1, now);
        assert_eq!(lockout.tell(now), Some(Guessing { networks: 1, accounts: 1 }));
        guess(&mut lockout, &attempt(BOB, HOTEL, false), 20, now);
        assert_eq!(lockout.tell(now + seconds(599)), None, "not so soon again");
        guess(&mut lockout, &attempt([3; 32], HOME, false), 20, now + seconds(599));
        assert_eq!(lockout.tell(now + TOLD_EVERY), Some(Guessing { networks: 1, accounts: 1 }));
        assert_eq!(lockout.tell(now + TOLD_EVERY * 2), None, "nothing new");
        lockout.not_told();
        assert!(
            lockout.tell(now + TOLD_EVERY + seconds(1)).is_some(),
            "what could not be told is told at once"
        );
    }

    #[test]
    fn an_operator_lets_go_a_network_or_an_account() {
        let now = seconds(1_000);
        let locked = || {
            let mut lockout = Lockout::default();
            guess(&mut lockout, &attempt(ALICE, EVIL, false), 20, now);
            let under_way = lockout.begin(&attempt(ALICE, HOTEL, false), now);
            (lockout, under_way)
        };
        let shown =
            |lockout: &Lockout| lockout.locked(now).into_iter().map(|locked| locked.what).collect::<Vec<_>>();
        let nobody = [0; 32];
        for (what, account, left) in [
            ("203.0.113.0/24", nobody, "name1"),
            (EVIL, nobody, "name1"),
            ("name1", nobody, "203.0.113.0/24"),
            ("Alice@example.com", ALICE, "203.0.113.0/24"),
        ] {
            let (mut lockout, under_way) = locked();
            assert!(lockout.release(what, Some(&account), now), "{what}");
            assert_eq!(shown(&lockout), [left]);
            assert!(!lockout.release(what, Some(&account), now), "once");
            // What had begun before ends as it would have.
            lockout.end(&attempt(ALICE, HOTEL, false), under_way, Tried::Succeeded, now);
            lockout.release(left, Some(&nobody), now);
            assert_eq!(lockout.ask(&attempt(ALICE, EVIL, false), now), after(0));
            assert!(lockout.counts.is_empty());
        }
        let (mut lockout, _) = locked();
        for other in ["", "name2", "203.0.113.0/25", HOTEL, "this host"] {
            assert!(!lockout.release(other, Some(&nobody), now), "{other}");
        }
        assert!(!lockout.release("name1", None, now), "it is no network");
        assert_eq!(shown(&lockout).len(), 2);
    }

    #[test]
    fn networks_are_what_one_customer_has() {
        for (client, network) in [
            ("192.0.2.200", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
            ("127.0.0.9", "this host"),
            ("::1", "this host"),
        ] {
            assert_eq!(Network::of(client.parse().expect("an address")).to_string(), network);
        }
        // Clients of a proxy on this host are told apart by account only.
        let mut lockout = Lockout::default();
        guess(&mut lockout, &attempt(ALICE, "127.0.0.1", false), 30, Duration::ZERO);
        assert_eq!(lockout.ask(&attempt(ALICE, "127.0.0.1", false), Duration::ZERO), LOCKED);
        assert_eq!(lockout.ask(&attempt(BOB, "127.0.0.1", false), Duration::ZERO), after(0));
    }

    #[test]
    fn a_flood_of_networks_costs_bounded_memory_and_forgets_the_oldest() {
        let mut lockout = Lockout::default();
        let last = 2 * u32::try_from(COUNTS_MAX).expect("small");
        for number in 0..last {
            let client = IpAddr::from(Ipv6Addr::from_bits(u128::from(number) << 64 | 0x2001 << 112));
            let attempt =
                Attempt { account: ALICE, name: String::new(), network: Network::of(client), known: false };
            fail(&mut lockout, &attempt, seconds(1) + Duration::from_millis(number.into()) / 1_000);
            assert!(lockout.counts.len() <= COUNTS_MAX);
        }
        assert_eq!(lockout.ask(&attempt(ALICE, HOTEL, false), seconds(200)), after(15), "still guarded");
    }
}
