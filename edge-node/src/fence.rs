//! The staleness fence: whether an address that is not in the directory is nobody's, or only not here yet.
//!
//! Big says every minute that it has told everything. From each such word on, whatever big knew then is
//! known here; so `stale_after` later, what big has known for longer is known here still, and after that
//! nothing is refused for good. The fence is in memory: an edge that starts has heard nothing yet.

use std::time::Duration;

use shared::moment::Moment;

/// What is known of the directory's age.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    /// When big said last that it has told everything.
    heard: Option<Moment>,
    /// The last comparison found a difference, and none since has found it mended.
    differs: bool,
}

impl Fence {
    /// Big's word, and nothing to compare with it.
    pub fn heard(&mut self, at: Moment) {
        self.heard = Some(at);
    }

    /// Big's word, and the directory was the same then, or was not.
    pub fn compared(&mut self, at: Moment, same: bool) {
        self.heard(at);
        self.differs = !same;
    }

    /// Why unknown may not mean unknown; `None` while it does.
    pub fn unsure(&self, now: Moment, stale_after: Duration) -> Option<String> {
        let Some(heard) = self.heard else {
            return Some("big has not been heard of since this edge started".into());
        };
        match now.since(heard) {
            _ if self.differs => Some("the directory is not the same as big's, and is being mended".into()),
            None => Some("the clock was set back since big was heard of".into()),
            Some(age) if age > stale_after => {
                Some(format!("big was heard of {} s ago, see [edge] stale_after", age.as_secs()))
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(600);

    fn moment(monotonic: u64, wall: u64) -> Moment {
        Moment::of(Duration::from_secs(monotonic), wall * 1000)
    }

    #[test]
    fn unknown_means_unknown_for_so_long_after_bigs_word() {
        let mut fence = Fence::default();
        let is_sure = |fence: &Fence, now| fence.unsure(now, AFTER).is_none();
        assert!(!is_sure(&fence, moment(0, 1000)), "nothing was heard");
        fence.heard(moment(10, 1010));
        assert!(is_sure(&fence, moment(10, 1010)) && is_sure(&fence, moment(610, 1610)));
        assert!(!is_sure(&fence, moment(611, 1611)));
        // The machine slept, or the clock was set ahead; it was set back.
        assert!(!is_sure(&fence, moment(20, 5000)));
        assert!(!is_sure(&fence, moment(20, 1009)));
        assert!(!is_sure(&fence, moment(611, 1020)), "however the clock was set");
    }

    #[test]
    fn a_difference_is_not_forgotten_before_it_is_mended() {
        let mut fence = Fence::default();
        fence.compared(moment(10, 1010), false);
        assert!(fence.unsure(moment(11, 1011), AFTER).is_some_and(|why| why.contains("mended")));
        fence.heard(moment(70, 1070));
        assert!(fence.unsure(moment(70, 1070), AFTER).is_some(), "a word alone mends nothing");
        fence.compared(moment(71, 1071), true);
        assert_eq!(fence.unsure(moment(71, 1071), AFTER), None);
    }
}
