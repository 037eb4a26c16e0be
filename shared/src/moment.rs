//! Moments by two clocks, and whether a node's clock may be believed when it says that a travel window's end has come.
//!
//! Logins stop by the clock alone. But keys that are destroyed do not come back when a clock is set right again,
//! and a traveller is far from home; so a clock that jumps ahead by more than an hour is believed only after an
//! hour in which it stays there, restarts or not, or as soon as the partner's clock says the same. While the
//! partner's says otherwise, it is not believed.
//!
//! A node that starts, and whose clock is more than an hour from where it was left, may have been away for weeks, or
//! its clock may be wrong: the same hour, and the same word of the partner, decide.

use std::time::Duration;

use crate::id::{monotonic, unix_millis};

/// What a clock may gain on the other one between two looks.
const JUMP_MAX: Duration = Duration::from_secs(3600);
/// For how long a clock that has jumped is not believed.
const DOUBT: Duration = Duration::from_secs(3600);
/// By how much the clocks of both nodes may differ for them to say the same, in milliseconds.
const AGREEING: u64 = 3_600_000;
/// For how long the partner's word counts.
const WORD_KEPT: Duration = Duration::from_secs(3600);

/// A moment, by two clocks: one can be set, the other may stand still while the machine sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    monotonic: Duration,
    wall: u64,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Self { monotonic: monotonic(), wall: unix_millis() }
    }

    /// One that is made up.
    #[cfg(any(test, feature = "sim"))]
    pub fn of(monotonic: Duration, wall: u64) -> Self {
        Self { monotonic, wall }
    }

    /// How long ago `earlier` is by the clock that nobody can set.
    pub fn elapsed_since(self, earlier: Self) -> Duration {
        self.monotonic.saturating_sub(earlier.monotonic)
    }

    /// By how much the clock that can be set has run ahead of the other one since `earlier`; nothing, if it has
    /// fallen behind.
    pub fn gained_since(self, earlier: Self) -> Duration {
        let wall = Duration::from_millis(self.wall.saturating_sub(earlier.wall));
        wall.saturating_sub(self.elapsed_since(earlier))
    }

    /// How long ago `earlier` is by the clock that says more; `None` if a clock was set back.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        let monotonic = self.monotonic.checked_sub(earlier.monotonic)?;
        Some(monotonic.max(Duration::from_millis(self.wall.checked_sub(earlier.wall)?)))
    }
}

/// The clock as it was believed last.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    believed: Moment,
    /// It is not believed before the clock that nobody can set says so much.
    from: Duration,
    /// When the partner said what its clock was, and what that was, in milliseconds since 1970.
    told: Option<(Moment, u64)>,
}

impl Trust {
    /// Believes the clock at `at`.
    pub fn new(at: Moment) -> Self {
        Self { believed: at, from: Duration::ZERO, told: None }
    }

    /// Of a node that starts at `at` and has lived for so long since its clock was seen apart from its life, if it
    /// ever was.
    pub fn starting(at: Moment, since_apart: Option<Duration>) -> Self {
        let left = since_apart.map_or(Duration::ZERO, |since| DOUBT.saturating_sub(since));
        Self { from: at.monotonic.saturating_add(left), ..Self::new(at) }
    }

    /// The partner's clock stood at `clock`, in milliseconds since 1970, a moment before `at`.
    pub fn told(&mut self, at: Moment, clock: u64) {
        self.told = Some((at, clock));
    }

    /// What the partner's clock is at `now`, in milliseconds since 1970, if it has said so lately.
    fn partners(&self, now: Moment) -> Option<u64> {
        let (at, clock) = self.told?;
        let passed = now.elapsed_since(at);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        (passed < WORD_KEPT).then(|| clock.saturating_add(millis))
    }

    /// How far the clock is ahead of the partner's at `now`, in milliseconds; `None` if the partner has not said lately
    /// what its clock is.
    pub fn ahead(&self, now: Moment) -> Option<i64> {
        let partners = self.partners(now)?;
        let apart = i64::try_from(partners.abs_diff(now.wall)).unwrap_or(i64::MAX);
        Some(if now.wall >= partners { apart } else { -apart })
    }

    /// How far the clock is from the partner's at `now`, if that is too far.
    pub fn differs(&self, now: Moment) -> Option<Duration> {
        let apart = self.partners(now)?.abs_diff(now.wall);
        (apart > AGREEING).then(|| Duration::from_millis(apart))
    }

    /// Whether the clock is to be believed at `now`. Called often.
    pub fn believe(&mut self, now: Moment) -> bool {
        let believed = match self.partners(now) {
            Some(clock) => clock.abs_diff(now.wall) <= AGREEING,
            None => {
                let gained = now.gained_since(self.believed);
                let stays = gained <= JUMP_MAX || now.elapsed_since(self.believed) >= DOUBT;
                stays && now.monotonic >= self.from
            }
        };
        if believed {
            (self.believed, self.from) = (now, Duration::ZERO);
        }
        believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(monotonic: u64, wall: u64) -> Moment {
        Moment::of(Duration::from_millis(monotonic), wall)
    }

    #[test]
    fn a_clock_that_goes_on_or_back_is_believed() {
        let mut trust = Trust::new(at(0, 10 * HOUR));
        for (monotonic, wall) in
            [(1000, 10 * HOUR + 1000), (2000, 10 * HOUR), (3000, HOUR), (4000, HOUR + 1000)]
        {
            assert!(trust.believe(at(monotonic, wall)), "{monotonic} {wall}");
        }
    }

    #[test]
    fn a_jump_ahead_is_believed_after_an_hour_and_one_that_is_taken_back_never() {
        let mut trust = Trust::new(at(0, 0));
        assert!(trust.believe(at(1000, HOUR)), "that is not more than a clock may gain");
        assert!(!trust.believe(at(2000, 5 * HOUR)));
        assert!(!trust.believe(at(3000, 5 * HOUR + 1000)));
        assert!(trust.believe(at(4000, HOUR + 4000)), "it was set right");
        assert!(!trust.believe(at(5000, 9000 * HOUR)));
        assert!(!trust.believe(at(4000 + HOUR - 1, 9001 * HOUR)));
        assert!(trust.believe(at(4000 + HOUR, 9001 * HOUR)));
        assert!(trust.believe(at(5000 + HOUR, 9001 * HOUR + 1000)));
    }

    #[test]
    fn a_node_that_starts_with_another_clock_doubts_it_for_an_hour_of_its_life() {
        assert!(Trust::starting(at(0, 0), None).believe(at(0, 0)));
        assert!(Trust::starting(at(0, 0), Some(DOUBT)).believe(at(0, 0)));
        // It had jumped half an hour before the restart, which changes nothing.
        let mut trust = Trust::starting(at(500, 9000 * HOUR), Some(DOUBT / 2));
        assert!(!trust.believe(at(500, 9000 * HOUR)));
        assert!(!trust.believe(at(500 + HOUR / 2 - 1, 9000 * HOUR)));
        assert!(trust.believe(at(500 + HOUR / 2, 9000 * HOUR + HOUR / 2)));
    }

    #[test]
    fn what_the_partner_says_counts_for_as_long_as_it_is_fresh() {
        let mut trust = Trust::starting(at(0, 900 * HOUR), Some(Duration::ZERO));
        assert!(!trust.believe(at(0, 900 * HOUR)));
        assert_eq!(trust.ahead(at(1000, 900 * HOUR)), None);
        trust.told(at(1000, 900 * HOUR), 899 * HOUR);
        assert_eq!(
            trust.ahead(at(3000, 900 * HOUR + 1000)),
            Some(i64::try_from(HOUR).expect("small") - 1000)
        );
        assert!(trust.believe(at(1000, 900 * HOUR)), "it is weeks later there, too");
        // It jumps, and stays there.
        assert!(!trust.believe(at(2000, 905 * HOUR)));
        assert_eq!(trust.differs(at(1000, 905 * HOUR)), Some(Duration::from_millis(6 * HOUR)));
        trust.told(at(1000 + HOUR, 906 * HOUR), 900 * HOUR);
        assert!(!trust.believe(at(1001 + HOUR, 906 * HOUR)), "not while it is known to be wrong");
        trust.told(at(1002 + HOUR, 906 * HOUR), 906 * HOUR);
        assert!(trust.believe(at(1002 + HOUR, 906 * HOUR)), "a machine that slept");
        assert_eq!(trust.differs(at(1002 + HOUR, 906 * HOUR)), None);
        // Without a word of the partner, the hour decides.
        let last = 1002 + HOUR;
        assert!(trust.believe(at(last + HOUR, 907 * HOUR)));
        assert!(!trust.believe(at(last + HOUR + 1, 990 * HOUR)));
        assert!(trust.believe(at(last + 2 * HOUR, 991 * HOUR)));
    }
}
