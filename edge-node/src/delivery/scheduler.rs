//! How many attempts there may be at once, in all and at each destination: a state machine, which reads no clock and
//! no store.
//!
//! A destination begins with [`FIRST_LIMIT`] attempts at once. Each time that as many have gone well as it has at once it
//! gets one more; if it asks for less, or falls silent, half of them (additive increase, multiplicative decrease). None
//! ever has more than half of what is free, so there is a place for whoever has none. A destination where nobody could
//! be reached is asked again by one attempt at a time, after a pause, and all such together take half of the places;
//! what is due for it during the pause is told what the last attempt was. They and those that have never dealt with mail
//! together leave a quarter of the places to those that have: whoever makes us write to hosts that say nothing, by reports to
//! senders of theirs, holds up nobody but others who are new.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use shared::id::MessageId;

/// Attempts at once at a destination of which nothing is known.
const FIRST_LIMIT: usize = 2;
/// Destinations of which something is known. One more, and those without an attempt under way are forgotten.
const DESTINATIONS_MAX: usize = 4_096;

/// What bounds the attempts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts at once, in all.
    pub attempts: usize,
    /// Attempts at once at one destination, at most.
    pub destination: usize,
    /// How long a destination where nobody could be reached is not asked again.
    pub pause: Duration,
}

/// What an attempt has shown of its destination; `W` says why nobody could be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown<W> {
    /// It deals with mail.
    Well,
    /// It was there, and asked for less or fell silent.
    Strained,
    /// Nobody could be reached, or DNS did not say whom to ask.
    Unreachable(W),
    /// Nothing: it was not asked.
    Nothing,
}

#[derive(Debug)]
struct Unreachable<W> {
    why: W,
    /// When it is asked again.
    until: Duration,
}

#[derive(Debug)]
struct Destination<W> {
    under_way: HashSet<MessageId>,
    /// Those of them that began before an operator wanted it asked again: that they reach nobody is no reason to wait.
    outdated: HashSet<MessageId>,
    limit: usize,
    /// Attempts that went well since the limit was changed.
    good: usize,
    /// It has dealt with mail, and was not unreachable twice in a row since.
    is_proven: bool,
    /// Attempts under way that began when it had not.
    on_trial: HashSet<MessageId>,
    unreachable: Option<Unreachable<W>>,
    /// The attempt under way asks whether somebody can be reached again.
    asks_again: bool,
}

impl<W> Default for Destination<W> {
    fn default() -> Self {
        Self {
            under_way: HashSet::new(),
            outdated: HashSet::new(),
            limit: FIRST_LIMIT,
            good: 0,
            is_proven: false,
            on_trial: HashSet::new(),
            unreachable: None,
            asks_again: false,
        }
    }
}

/// The attempts under way, and what is known of their destinations. Time is of any clock that never goes back.
#[derive(Debug)]
pub struct Scheduler<W> {
    limits: Limits,
    destinations: HashMap<String, Destination<W>>,
    under_way: usize,
    asking_again: usize,
    /// Attempts at destinations that have not dealt with mail.
    on_trial: usize,
}

impl<W: Clone> Scheduler<W> {
    /// No attempts.
    pub fn new(limits: Limits) -> Self {
        Self { limits, destinations: HashMap::new(), under_way: 0, asking_again: 0, on_trial: 0 }
    }

    /// Whether there is a place for any attempt.
    pub fn has_place(&self) -> bool {
        self.under_way < self.limits.attempts
    }

    /// Whether there is a place for an attempt at a destination that has not dealt with mail.
    pub fn has_place_for_trial(&self) -> bool {
        self.has_place() && self.on_trial < self.limits.attempts - self.limits.attempts / 4
    }

    /// Whether an attempt at `destination` waits for such a place.
    pub fn waits_for_trial(&self, destination: &str) -> bool {
        !self.has_place_for_trial() && self.destinations.get(destination).is_none_or(|known| !known.is_proven)
    }

    /// Whether another attempt at `destination` may begin at `now`.
    pub fn may_begin(&self, destination: &str, now: Duration) -> bool {
        let Some(known) = self.destinations.get(destination) else { return self.has_place_for_trial() };
        let (under_way, free) = (known.under_way.len(), self.limits.attempts.saturating_sub(self.under_way));
        match &known.unreachable {
            _ if free == 0 => false,
            Some(unreachable) if now < unreachable.until => under_way == 0,
            _ if !known.is_proven && !self.has_place_for_trial() => false,
            Some(_) => under_way == 0 && self.asking_again < self.limits.attempts.div_ceil(2),
            None => {
                let limit = known.limit.min(self.limits.destination);
                under_way == 0 || under_way < limit && under_way < free / 2
            }
        }
    }

    /// Whether an attempt that begins at `now` would be told that nobody can be reached, and not ask.
    pub fn is_paused(&self, destination: &str, now: Duration) -> bool {
        let unreachable = self.destinations.get(destination).and_then(|known| known.unreachable.as_ref());
        unreachable.is_some_and(|unreachable| now < unreachable.until)
    }

    /// The pause of a destination where nobody could be reached is over, and no attempt that is under way brings one.
    pub fn end_pause(&mut self, destination: &str) {
        let Some(known) = self.destinations.get_mut(destination) else { return };
        known.outdated.clone_from(&known.under_way);
        if let Some(unreachable) = &mut known.unreachable {
            unreachable.until = Duration::ZERO;
        }
    }

    /// Whether an attempt with `message` at `destination` is under way.
    pub fn is_under_way(&self, destination: &str, message: MessageId) -> bool {
        self.destinations.get(destination).is_some_and(|known| known.under_way.contains(&message))
    }

    /// An attempt begins, which [`may_begin`](Self::may_begin). Returns why nobody is to be asked, if that is so: the
    /// attempt ends with it.
    pub fn begin(&mut self, destination: &str, message: MessageId, now: Duration) -> Option<W> {
        if self.destinations.len() >= DESTINATIONS_MAX && !self.destinations.contains_key(destination) {
            self.destinations.retain(|_, known| !known.under_way.is_empty() || known.is_proven);
            if self.destinations.len() >= DESTINATIONS_MAX {
                self.destinations.retain(|_, known| !known.under_way.is_empty());
            }
        }
        let known = self.destinations.entry(destination.to_owned()).or_default();
        known.under_way.insert(message);
        self.under_way += 1;
        if let Some(unreachable) = known.unreachable.as_ref().filter(|unreachable| now < unreachable.until) {
            return Some(unreachable.why.clone());
        }
        if !known.is_proven && known.on_trial.insert(message) {
            self.on_trial += 1;
        }
        known.unreachable.as_ref()?;
        known.asks_again = true;
        self.asking_again += 1;
        None
    }

    /// An attempt has ended.
    pub fn end(&mut self, destination: &str, message: MessageId, shown: Shown<W>, now: Duration) {
        let Some(known) = self.destinations.get_mut(destination) else { return };
        if !known.under_way.remove(&message) {
            return;
        }
        let is_outdated = known.outdated.remove(&message);
        self.under_way -= 1;
        self.on_trial -= usize::from(known.on_trial.remove(&message));
        if std::mem::take(&mut known.asks_again) {
            self.asking_again -= 1;
        }
        match shown {
            Shown::Nothing => return,
            Shown::Well => {
                known.is_proven = true;
                known.good += 1;
                if known.good < known.limit {
                    known.unreachable = None;
                    return;
                }
                known.limit = (known.limit + 1).min(self.limits.destination);
            }
            Shown::Strained => known.limit = (known.limit / 2).max(1),
            Shown::Unreachable(why) => {
                (known.limit, known.good) = (1, 0);
                // Once it may have been our own resolver, or line.
                known.is_proven &= known.unreachable.is_none();
                let until = match is_outdated {
                    true => known.unreachable.as_ref().map_or(Duration::ZERO, |since| since.until),
                    false => now + self.limits.pause,
                };
                known.unreachable = Some(Unreachable { why, until });
                return;
            }
        }
        known.good = 0;
        known.unreachable = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { attempts: 20, destination: 8, pause: Duration::from_secs(30) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn id(number: u8) -> MessageId {
        MessageId([number; 16])
    }

    fn scheduler() -> Scheduler<&'static str> {
        Scheduler::new(LIMITS)
    }

    /// Begins as many attempts as may begin; how many those are.
    fn fill(scheduler: &mut Scheduler<&'static str>, destination: &str) -> u8 {
        let mut begun = 0;
        while scheduler.may_begin(destination, at(0)) {
            assert_eq!(scheduler.begin(destination, id(begun), at(0)), None);
            begun += 1;
        }
        begun
    }

    fn end_all(
        scheduler: &mut Scheduler<&'static str>,
        destination: &str,
        begun: u8,
        shown: &Shown<&'static str>,
    ) {
        (0..begun).for_each(|number| scheduler.end(destination, id(number), shown.clone(), at(0)));
    }

    /// A destination deals with mail.
    fn prove(scheduler: &mut Scheduler<&'static str>, destination: &str) {
        scheduler.begin(destination, id(0), at(0));
        scheduler.end(destination, id(0), Shown::Well, at(0));
    }

    #[test]
    fn a_destination_gets_more_while_it_goes_well_and_half_when_it_is_strained() {
        let mut scheduler = scheduler();
        let mut seen = Vec::new();
        for _ in 0..9 {
            let begun = fill(&mut scheduler, "a.example");
            seen.push(begun);
            end_all(&mut scheduler, "a.example", begun, &Shown::Well);
        }
        // Of 20 places one destination gets no more than half of what is free, and 7 leave 13.
        assert_eq!(seen, [2, 3, 4, 5, 6, 7, 7, 7, 7]);
        let begun = fill(&mut scheduler, "a.example");
        scheduler.end("a.example", id(0), Shown::Strained, at(0));
        end_all(&mut scheduler, "a.example", begun, &Shown::Nothing);
        assert_eq!(fill(&mut scheduler, "a.example"), 4);
        assert_eq!(fill(&mut scheduler, "b.example"), 2, "what one has shown says nothing of another");
    }

    #[test]
    fn there_is_a_place_for_whoever_has_none_until_all_are_taken() {
        let mut scheduler = scheduler();
        let mut begun = Vec::new();
        (0..30).for_each(|number| prove(&mut scheduler, &format!("d{number}.example")));
        for number in 0..30 {
            begun.push(fill(&mut scheduler, &format!("d{number}.example")));
        }
        assert_eq!(begun.iter().map(|begun| usize::from(*begun)).sum::<usize>(), LIMITS.attempts);
        // Two each as long as there are enough, then one each, then none.
        assert!(begun.is_sorted_by(|one, next| one >= next), "{begun:?}");
        assert_eq!(
            (begun[0], begun.iter().filter(|begun| **begun == 1).count() >= 4),
            (2, true),
            "{begun:?}"
        );
        assert!(!scheduler.has_place());
        scheduler.end("d0.example", id(0), Shown::Well, at(0));
        assert!(scheduler.may_begin("d29.example", at(0)), "who has none comes before");
        assert!(!scheduler.may_begin("d0.example", at(0)), "who has one");
    }

    #[test]
    fn where_nobody_is_reached_one_asks_again_after_a_pause_and_the_others_are_told() {
        let mut scheduler = scheduler();
        assert_eq!(fill(&mut scheduler, "dead.example"), 2);
        scheduler.end("dead.example", id(0), Shown::Unreachable("no answer"), at(0));
        assert!(!scheduler.may_begin("dead.example", at(1)), "one at a time");
        scheduler.end("dead.example", id(1), Shown::Unreachable("no answer"), at(0));
        assert!(scheduler.may_begin("dead.example", at(29)));
        assert!(scheduler.is_paused("dead.example", at(29)) && !scheduler.is_paused("dead.example", at(30)));
        assert_eq!(scheduler.begin("dead.example", id(2), at(29)), Some("no answer"));
        scheduler.end("dead.example", id(2), Shown::Nothing, at(29));
        assert_eq!(scheduler.begin("dead.example", id(3), at(30)), None, "this one asks");
        assert!(!scheduler.may_begin("dead.example", at(30)));
        scheduler.end("dead.example", id(3), Shown::Well, at(31));
        assert_eq!(fill(&mut scheduler, "dead.example"), 2, "somebody is there again");
        end_all(&mut scheduler, "dead.example", 2, &Shown::Unreachable("no answer"));
        assert!(scheduler.is_paused("dead.example", at(1)));
        scheduler.end_pause("dead.example");
        assert_eq!(scheduler.begin("dead.example", id(0), at(1)), None, "as an operator wants it");
        scheduler.end_pause("dead.example");
        scheduler.end("dead.example", id(0), Shown::Unreachable("no answer"), at(2));
        assert_eq!(
            scheduler.begin("dead.example", id(1), at(2)),
            None,
            "the one before began too early to count"
        );
        scheduler.end("dead.example", id(1), Shown::Unreachable("no answer"), at(3));
        assert!(scheduler.is_paused("dead.example", at(3)));
        // One that has begun since and ended before is believed, whatever an older one says after it.
        let mut scheduler = self::scheduler();
        scheduler.begin("dead.example", id(0), at(0));
        scheduler.end_pause("dead.example");
        scheduler.begin("dead.example", id(1), at(0));
        scheduler.end("dead.example", id(1), Shown::Unreachable("no answer"), at(1));
        scheduler.end("dead.example", id(0), Shown::Unreachable("no answer"), at(2));
        assert!(scheduler.is_paused("dead.example", at(30)) && !scheduler.is_paused("dead.example", at(31)));
    }

    #[test]
    fn those_where_nobody_is_reached_leave_half_of_the_places_to_the_others() {
        let mut scheduler = scheduler();
        let name = |number: u8| format!("dead{number}.example");
        for number in 0..40 {
            scheduler.begin(&name(number), id(0), at(0));
            scheduler.end(&name(number), id(0), Shown::Unreachable("no answer"), at(0));
        }
        let asking: Vec<u8> = (0..40)
            .filter(|number| {
                let may = scheduler.may_begin(&name(*number), at(60));
                if may {
                    scheduler.begin(&name(*number), id(0), at(60));
                }
                may
            })
            .collect();
        assert_eq!(asking.len(), 10);
        assert!(scheduler.may_begin("fine.example", at(60)));
        scheduler.end(&name(0), id(0), Shown::Unreachable("no answer"), at(61));
        assert!(scheduler.may_begin(&name(39), at(61)), "another one asks");
    }

    #[test]
    fn those_that_have_never_dealt_with_mail_leave_a_quarter_of_the_places_to_those_that_have() {
        let mut scheduler = scheduler();
        prove(&mut scheduler, "known.example");
        let name = |number: u8| format!("silent{number}.example");
        let begun = |scheduler: &mut Scheduler<_>| -> usize {
            (0..40).map(|number| usize::from(fill(scheduler, &name(number)))).sum()
        };
        assert_eq!(begun(&mut scheduler), 15);
        assert!(!scheduler.may_begin("new.example", at(0)) && scheduler.may_begin("known.example", at(0)));
        assert_eq!(fill(&mut scheduler, "known.example"), 2);
        // One that falls silent has not dealt with it.
        scheduler.end(&name(0), id(0), Shown::Strained, at(1));
        assert!(scheduler.may_begin("new.example", at(1)));
        scheduler.begin("new.example", id(0), at(1));
        assert!(!scheduler.may_begin("newer.example", at(1)));
        // One that does is proven, and gets what another has to wait for.
        scheduler.end("new.example", id(0), Shown::Well, at(1));
        scheduler.begin("newer.example", id(0), at(1));
        assert!(!scheduler.may_begin("newest.example", at(1)) && scheduler.may_begin("new.example", at(1)));
        // One that can be reached no more is none of those.
        scheduler.end("known.example", id(0), Shown::Unreachable("no answer"), at(1));
        scheduler.end("known.example", id(1), Shown::Unreachable("no answer"), at(1));
        assert!(!scheduler.may_begin("known.example", at(60)));
    }

    #[test]
    fn what_is_known_of_destinations_is_bounded() {
        let mut scheduler = scheduler();
        prove(&mut scheduler, "proven.example");
        scheduler.begin("busy.example", id(0), at(0));
        for number in 0..2 * DESTINATIONS_MAX {
            let name = format!("d{number}.example");
            scheduler.begin(&name, id(1), at(0));
            scheduler.end(&name, id(1), Shown::Strained, at(0));
            assert!(scheduler.destinations.len() <= DESTINATIONS_MAX);
        }
        assert!(scheduler.is_under_way("busy.example", id(0)));
        assert!(scheduler.destinations.contains_key("proven.example"), "they go last");
        assert_eq!((scheduler.under_way, scheduler.asking_again, scheduler.on_trial), (1, 0, 1));
    }
}
