//! Moments by two clocks, and whether a node's clock may be believed when it says that a travel window's end has come.
//!
//! Logins stop by the clock alone. But keys that are destroyed do not come back when a clock is set right again,
//! and a traveller is far from home; so a clock that jumps ahead by more than an hour is believed only after an
//! hour in which it stays there. A node that starts believes it at once: it may have been away for weeks.

use std::time::Duration;

use crate::id::{monotonic, unix_millis};

/// What a clock may gain on the other one between two looks.
const JUMP_MAX: Duration = Duration::from_secs(3600);
/// For how long a clock that has jumped is not believed.
const DOUBT: Duration = Duration::from_secs(3600);

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
}

impl Trust {
    /// Believes the clock at `at`.
    pub fn new(at: Moment) -> Self {
        Self { believed: at }
    }

    /// Whether the clock is to be believed at `now`. Called often.
    pub fn believe(&mut self, now: Moment) -> bool {
        let gained = now.gained_since(self.believed);
        let believed = gained <= JUMP_MAX || now.elapsed_since(self.believed) >= DOUBT;
        if believed {
            self.believed = now;
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
}
