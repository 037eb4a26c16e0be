//! When a certificate is asked for: a state machine without I/O or clock. All times are milliseconds since 1970.
//!
//! Authorities count what is asked of them, so no two attempts follow each other closely, whatever happens: not after
//! failures, not after a success that did not help (a clock that is wrong), and not when a node dies in each attempt.

use rkyv::{Archive, Deserialize, Serialize};
use shared::row;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// The wait after the first failed attempt; each one after it doubles it. Let's Encrypt takes five failures an hour.
const PAUSE: u64 = 15 * MINUTE;
/// The longest wait that failures alone make.
const PAUSE_MAX: u64 = 12 * HOUR;
/// The longest wait that an authority may ask for: the week over which some of them count.
const ASKED_MAX: u64 = 7 * 24 * HOUR;
/// Waits after a success, however soon the new certificate is due.
const REST: u64 = 10 * MINUTE;
const REST_MAX: u64 = 12 * HOUR;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its notBefore.
    pub from: u64,
    /// Its notAfter.
    pub until: u64,
}

impl Validity {
    fn third(&self) -> u64 {
        self.until.saturating_sub(self.from) / 3
    }

    /// When it is to be replaced: a third of its life is left then.
    pub fn renewed_at(&self) -> u64 {
        self.until.saturating_sub(self.third())
    }
}

/// The attempts so far: what is kept of them, so that a node that is started again goes on with it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Those that have failed since one succeeded.
    pub failures: u32,
    /// When the last one began; 0 if there was none.
    pub attempted_at: u64,
    /// No other one begins before this.
    pub again_at: u64,
    /// Why the last one failed, and what mends that.
    pub error: Option<String>,
}
row!(Attempts, 1);

impl Attempts {
    /// When the next one is due; `kept` is the certificate that there is.
    pub fn due_at(&self, kept: Option<&Validity>, now: u64) -> u64 {
        let again_at = self.set_back(now).map_or(self.again_at, |attempts| attempts.again_at);
        kept.map_or(0, Validity::renewed_at).max(again_at)
    }

    /// These by a clock that went back, if it did: the whole wait is counted from `now`, no longer than an authority may
    /// ask for. Whoever counts by it has to keep it, or `now` would move it on and on.
    pub fn set_back(&self, now: u64) -> Option<Self> {
        let is_ahead = self.attempted_at > now || self.again_at > now.saturating_add(ASKED_MAX);
        is_ahead.then(|| {
            let wait = self.again_at.saturating_sub(self.attempted_at).clamp(PAUSE, ASKED_MAX);
            let (attempted_at, again_at) = (self.attempted_at.min(now), now.saturating_add(wait));
            Self { attempted_at, again_at, ..self.clone() }
        })
    }

    /// One begins. It counts as a failure until it has ended: the node may die in it.
    #[must_use]
    pub fn begun(&self, kept: Option<&Validity>, now: u64) -> Self {
        let failures = self.failures.saturating_add(1);
        let error = Some("the edge ended before the authority had answered".to_owned());
        Self { failures, attempted_at: now, again_at: now.saturating_add(pause(failures, kept, now)), error }
    }

    /// The one that has begun failed; `asked` is how long the authority wants to be left alone, if it has said so.
    #[must_use]
    pub fn failed(self, kept: Option<&Validity>, now: u64, asked: Option<u64>, error: String) -> Self {
        let wait = pause(self.failures, kept, now).max(asked.unwrap_or(0).min(ASKED_MAX));
        Self { again_at: now.saturating_add(wait), error: Some(error), ..self }
    }

    /// The one that has begun brought a certificate.
    #[must_use]
    pub fn succeeded(self, now: u64, got: &Validity) -> Self {
        let rest = got.third().clamp(REST, REST_MAX);
        Self { failures: 0, attempted_at: self.attempted_at, again_at: now.saturating_add(rest), error: None }
    }
}

/// How long it is waited after so many failures. A certificate that is about to end leaves no time to wait long; one that
/// has ended is past hurrying.
fn pause(failures: u32, kept: Option<&Validity>, now: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = (PAUSE << doublings).min(PAUSE_MAX);
    let left = kept.map(|kept| kept.until.saturating_sub(now)).filter(|left| *left > 0);
    left.map_or(pause, |left| pause.min((left / 4).max(REST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * HOUR;
    const NOW: u64 = 1_795_333_263_250;

    /// An authority and a clock that a test moves.
    struct World {
        now: u64,
        kept: Option<Validity>,
        attempts: Attempts,
    }

    impl World {
        fn new(kept: Option<Validity>) -> Self {
            Self { now: NOW, kept, attempts: Attempts::default() }
        }

        /// Waits for the next attempt, looking once a minute at least, as the node does; how long that was.
        fn wait(&mut self) -> u64 {
            let begun = self.now;
            loop {
                if let Some(set_back) = self.attempts.set_back(self.now) {
                    self.attempts = set_back;
                }
                let due = self.attempts.due_at(self.kept.as_ref(), self.now);
                if due <= self.now {
                    return self.now - begun;
                }
                self.now = due.min(self.now + MINUTE);
            }
        }

        fn begin(&mut self) {
            self.attempts = self.attempts.begun(self.kept.as_ref(), self.now);
        }

        fn fail(&mut self, asked: Option<u64>) {
            self.begin();
            self.attempts = self.attempts.clone().failed(self.kept.as_ref(), self.now, asked, "no".into());
        }

        fn succeed(&mut self, life: u64) {
            let got = Validity { from: self.now, until: self.now + life };
            self.begin();
            self.attempts = self.attempts.clone().succeeded(self.now, &got);
            self.kept = Some(got);
        }
    }

    #[test]
    fn without_a_certificate_it_is_asked_for_at_once_and_then_when_a_third_is_left() {
        let mut world = World::new(None);
        assert_eq!(world.wait(), 0);
        world.succeed(90 * DAY);
        assert_eq!(world.wait(), 60 * DAY);
        world.succeed(6 * DAY);
        assert_eq!(world.wait(), 4 * DAY);
        let mut kept = World::new(Some(Validity { from: NOW - DAY, until: NOW + 89 * DAY }));
        assert_eq!(kept.wait(), 59 * DAY, "a node that is started asks for nothing that it has");
    }

    #[test]
    fn failures_are_further_and_further_apart_and_a_success_ends_that() {
        let mut world = World::new(None);
        let mut waits = Vec::new();
        for _ in 0..9 {
            world.fail(None);
            waits.push(world.wait() / MINUTE);
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 720, 720, 720]);
        for _ in 0..100 {
            world.fail(None);
            assert_eq!(world.wait(), PAUSE_MAX);
        }
        world.succeed(90 * DAY);
        assert_eq!((world.attempts.failures, world.attempts.error.clone()), (0, None));
        world.wait();
        world.fail(None);
        assert_eq!(world.wait(), PAUSE, "it begins anew");
    }

    #[test]
    fn a_certificate_that_is_not_due_is_not_asked_for_whatever_failed_before() {
        let mut world = World::new(Some(Validity { from: NOW, until: NOW + 90 * DAY }));
        world.fail(None);
        assert_eq!(world.wait(), 60 * DAY);
    }

    #[test]
    fn an_authority_is_left_alone_for_as_long_as_it_asks_and_not_for_ever() {
        let mut world = World::new(None);
        world.fail(Some(3 * HOUR));
        assert_eq!(world.wait(), 3 * HOUR);
        world.fail(Some(1));
        assert_eq!(world.wait(), 2 * PAUSE, "nor shorter than by itself");
        world.fail(Some(u64::MAX));
        assert_eq!(world.wait(), ASKED_MAX);
    }

    #[test]
    fn a_node_that_dies_in_each_attempt_does_not_ask_each_time_it_is_started() {
        let mut world = World::new(None);
        world.begin();
        assert!(world.attempts.error.as_ref().is_some_and(|error| error.contains("the edge ended")));
        assert_eq!(world.wait(), PAUSE);
        world.begin();
        assert_eq!(world.wait(), 2 * PAUSE);
    }

    #[test]
    fn what_has_ended_when_it_comes_makes_no_tight_loop() {
        let mut world = World::new(None);
        for life in [0, 1, MINUTE, HOUR, DAY] {
            world.succeed(life);
            assert!(world.wait() >= REST, "{life}");
        }
        // By a clock that is far ahead each one is due when it comes.
        let mut ahead = World::new(None);
        let got = Validity { from: NOW - 80 * DAY, until: NOW + 10 * DAY };
        ahead.begin();
        ahead.attempts = ahead.attempts.clone().succeeded(NOW, &got);
        ahead.kept = Some(got);
        assert_eq!(ahead.wait(), REST_MAX);
    }

    #[test]
    fn a_clock_that_went_back_does_not_stop_it() {
        let ahead = || World { now: NOW + 3650 * DAY, ..World::new(None) };
        for (asked, wait) in [(None, PAUSE), (Some(3 * HOUR), 3 * HOUR), (Some(u64::MAX), ASKED_MAX)] {
            let mut world = ahead();
            world.fail(asked);
            world.now = NOW;
            assert_eq!(world.wait(), wait, "the same wait, from now");
            assert_eq!(world.attempts.attempted_at, NOW);
        }
        // It was set while the authority was asked, back or ahead.
        let mut world = ahead();
        world.begin();
        world.now = NOW;
        world.attempts = world.attempts.clone().failed(None, NOW, None, "no".into());
        assert_eq!(world.wait(), PAUSE);
        world.begin();
        world.attempts = world.attempts.clone().failed(None, NOW + 3650 * DAY, None, "no".into());
        assert_eq!(world.wait(), ASKED_MAX);
        // By a little, and it is neither asked sooner nor for ever later.
        let mut world = World::new(None);
        world.fail(None);
        world.now -= 2 * MINUTE;
        assert_eq!(world.wait(), PAUSE);
    }

    #[test]
    fn a_certificate_of_a_short_life_does_not_end_in_a_long_wait() {
        let mut world = World::new(Some(Validity { from: NOW, until: NOW + DAY }));
        assert_eq!(world.wait(), 16 * HOUR);
        let mut attempts = 0;
        while world.now < NOW + DAY {
            let left = NOW + DAY - world.now;
            world.fail(None);
            assert!(world.wait() <= (left / 4).max(REST), "{left} were left");
            attempts += 1;
        }
        assert!((8..30).contains(&attempts), "{attempts}");
        world.fail(None);
        assert_eq!(world.wait(), PAUSE_MAX, "it has ended");
        let mut asked = World::new(Some(Validity { from: NOW, until: NOW + HOUR }));
        asked.fail(Some(3 * HOUR));
        assert_eq!(asked.wait(), 3 * HOUR, "the authority's word counts");
    }
}
