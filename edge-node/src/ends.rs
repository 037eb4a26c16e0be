//! Whether this node's clock may be believed when it says that a window's end has come.
//!
//! Logins stop by the clock alone. But keys that are destroyed do not come back when a clock is set right again,
//! and a traveller is far from home; so a clock that jumps ahead by more than an hour is believed only after an
//! hour in which it stays there. A node that starts believes it at once: it may have been away for weeks.

use std::time::Duration;

use crate::fence::Moment;

/// What a clock may gain on the other one between two looks.
const JUMP_MAX: Duration = Duration::from_secs(3600);
/// For how long a clock that has jumped is not believed.
const DOUBT: Duration = Duration::from_secs(3600);

/// The clock as it was believed last.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    believed: Moment,
}

impl Ends {
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
        let mut ends = Ends::new(at(0, 10 * HOUR));
        for (monotonic, wall) in
            [(1000, 10 * HOUR + 1000), (2000, 10 * HOUR), (3000, HOUR), (4000, HOUR + 1000)]
        {
            assert!(ends.believe(at(monotonic, wall)), "{monotonic} {wall}");
        }
    }

    #[test]
    fn a_jump_ahead_is_believed_after_an_hour_and_one_that_is_taken_back_never() {
        let mut ends = Ends::new(at(0, 0));
        assert!(ends.believe(at(1000, HOUR)), "that is not more than a clock may gain");
        assert!(!ends.believe(at(2000, 5 * HOUR)));
        assert!(!ends.believe(at(3000, 5 * HOUR + 1000)));
        assert!(ends.believe(at(4000, HOUR + 4000)), "it was set right");
        assert!(!ends.believe(at(5000, 9000 * HOUR)));
        assert!(!ends.believe(at(4000 + HOUR - 1, 9001 * HOUR)));
        assert!(ends.believe(at(4000 + HOUR, 9001 * HOUR)));
        assert!(ends.believe(at(5000 + HOUR, 9001 * HOUR + 1000)));
    }
}
