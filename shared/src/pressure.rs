//! How much more mail a node can take: one level for all that can run short.
//!
//! [`Pressure`] is a pure state machine: measures and the time go in, a [`Level`] with its reason
//! comes out. The level rises at once where a measure reaches its threshold, and falls only when
//! every measure has been beyond a second, easier threshold for [`CALM_TIME`]: a node at its limit
//! does not flap. [`Hour`] counts what was taken in during the last hour. [`Monitor`] reads a store
//! and a clock, and says each change once in the log.

mod hour;
mod monitor;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::render::size;
use crate::report::PressureView;
use crate::store::RESERVE_BYTES;

pub use hour::Hour;
pub use monitor::{MEASURED_EVERY, Monitor};

/// How long everything has to look better before the level falls.
pub const CALM_TIME: Duration = Duration::from_secs(2);
/// Free bytes below which the level is slow, closed, full.
pub const FREE_BYTES: [u64; 3] = [2 * RESERVE_BYTES, RESERVE_BYTES, RESERVE_BYTES / 2];
/// Free inodes below which the level is slow, closed, full.
pub const FREE_INODES: [u64; 3] = [1024, 256, 128];
/// Smoothed commit latency, in milliseconds, from which on the level is slow, closed. A slow disk
/// alone is never full: what travellers send goes on.
pub const COMMIT_MILLIS: [u64; 3] = [1_000, 5_000, u64::MAX];

/// How much a node can take. Levels are ordered: each refuses what the one before it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Everything: no measure has reached its first threshold.
    #[default]
    Open,
    /// Everything, strangers after a pause: something runs short.
    Slow,
    /// No mail from strangers and none over the link: what is left is for travellers, for reading and
    /// for deleting.
    Closed,
    /// No mail at all: what is left is for deleting.
    Full,
    /// Nothing: a sync failed, and the store waits for a person.
    Stopped,
}

impl Level {
    /// Whether mail from strangers and over the link may be taken now.
    pub fn takes_mail(self) -> bool {
        self < Self::Closed
    }

    /// Whether travellers may submit now.
    pub fn takes_submissions(self) -> bool {
        self < Self::Full
    }
}

/// What the level is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// Bytes that can be written on the disk.
    pub free_bytes: u64,
    /// Files that can be made on it.
    pub free_inodes: u64,
    /// A write has found the disk full since the last measures, whatever it says of itself: it may
    /// have a quota.
    pub found_full: bool,
    /// What counts against the [`Bound`], in octets.
    pub held: u64,
    /// How long a commit takes, smoothed.
    pub commit_latency: Duration,
    /// The store has stopped for good.
    pub stopped: bool,
}

/// An administrator's limit on what is held or taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// In octets: reaching it closes. Seven eighths of it slow, an eighth more is full.
    pub octets: u64,
    /// What is counted, for people: "the spool holds".
    pub counted: &'static str,
    /// What mends it, for people.
    pub mend: &'static str,
}

/// What has raised the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Nothing,
    Bytes,
    Inodes,
    FoundFull,
    Bound,
    Latency,
    Stopped,
}

/// The level of one node, and why.
#[derive(Clone, Debug)]
pub struct Pressure {
    bound: Bound,
    level: Level,
    why: Option<String>,
    /// The disk had no room for mail at some time since the level takes none.
    lacks_room: bool,
    /// Since when every measure has allowed a lower level.
    calm_since: Option<Duration>,
}

impl Pressure {
    /// A node of which nothing is known yet: open.
    pub fn new(bound: Bound) -> Self {
        Self { bound, level: Level::Open, why: None, lacks_room: false, calm_since: None }
    }

    /// The level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether no mail is taken, and it is the disk that has no room for it: what only might be needed gives way. A bound
    /// or a slow disk is none of those, for nothing that goes mends them.
    pub fn lacks_room(&self) -> bool {
        self.lacks_room
    }

    /// The level and its reason, for people.
    pub fn view(&self) -> PressureView {
        PressureView { level: self.level, why: self.why.clone() }
    }

    /// Takes measures made at `now`, by any clock that never goes back. Returns the level that was
    /// left, if this changed it.
    pub fn observe(&mut self, now: Duration, measures: &Measures) -> Option<Level> {
        let (reached, reached_by) = self.assess(measures, false);
        let (eased, eased_by) = self.assess(measures, true);
        let before = self.level;
        if eased >= self.level {
            self.calm_since = None;
        }
        if reached > self.level {
            self.level = reached;
        } else if eased < self.level && now >= *self.calm_since.get_or_insert(now) + CALM_TIME {
            self.level = eased;
            self.calm_since = None;
        }
        let Measures { free_bytes, free_inodes, found_full, .. } = *measures;
        let room = scarce(free_bytes, FREE_BYTES, false).max(scarce(free_inodes, FREE_INODES, false));
        let is_short = found_full || !room.takes_mail();
        self.lacks_room = !self.level.takes_mail() && (self.lacks_room || is_short);
        // Between the two thresholds, and until calm has lasted, the old reason stands.
        if self.level == reached {
            self.why = self.reason(reached_by, measures);
        } else if self.level == eased {
            self.why = self.reason(eased_by, measures);
        }
        (self.level != before).then_some(before)
    }

    /// The level that the measures alone ask for, and what asks for it: by the thresholds at which the
    /// level rises, or by the easier ones below which it falls.
    fn assess(&self, measures: &Measures, eased: bool) -> (Level, Cause) {
        let Measures { free_bytes, free_inodes, found_full, held, commit_latency, stopped } = *measures;
        let at = |raised, level| if raised { level } else { Level::Open };
        let octets = self.bound.octets;
        let bound = [octets - octets / 8, octets, octets.saturating_add(octets / 8)];
        let millis = u64::try_from(commit_latency.as_millis()).unwrap_or(u64::MAX);
        let causes = [
            (at(stopped, Level::Stopped), Cause::Stopped),
            (scarce(free_bytes, FREE_BYTES, eased), Cause::Bytes),
            (scarce(free_inodes, FREE_INODES, eased), Cause::Inodes),
            (at(found_full, Level::Closed), Cause::FoundFull),
            (heavy(held, bound, if eased { 16 } else { 0 }), Cause::Bound),
            (heavy(millis, COMMIT_MILLIS, if eased { 2 } else { 0 }), Cause::Latency),
        ];
        let worse = |a: (Level, Cause), b: (Level, Cause)| if b.0 > a.0 { b } else { a };
        causes.into_iter().fold((Level::Open, Cause::Nothing), worse)
    }

    fn reason(&self, cause: Cause, measures: &Measures) -> Option<String> {
        let Bound { octets, counted, mend } = self.bound;
        match cause {
            Cause::Nothing => None,
            Cause::Bytes => Some(format!(
                "{} are free on the disk, {} are kept in reserve; make room on it",
                size(measures.free_bytes),
                size(RESERVE_BYTES)
            )),
            Cause::Inodes => Some(format!(
                "{} inodes are free on the file system, {} are kept in reserve; remove files from it",
                measures.free_inodes, FREE_INODES[1]
            )),
            Cause::FoundFull => Some("a write found the disk full; make room on it".into()),
            Cause::Bound => {
                Some(format!("{counted} {}, {} are allowed; {mend}", size(measures.held), size(octets)))
            }
            Cause::Latency => Some(format!(
                "a commit takes {:.1} s; the disk is too slow for what it is asked",
                measures.commit_latency.as_secs_f64()
            )),
            Cause::Stopped => Some(
                "the store has stopped after a failed sync; check the disk, then start the node again".into(),
            ),
        }
    }
}

const LEVELS: [Level; 3] = [Level::Slow, Level::Closed, Level::Full];

/// The level at which so little is left; eased, an eighth more of it is wanted.
fn scarce(left: u64, thresholds: [u64; 3], eased: bool) -> Level {
    let wanted = |threshold: u64| if eased { threshold + threshold / 8 } else { threshold };
    reached(thresholds.map(|threshold| left < wanted(threshold)))
}

/// The level at which so much is used; eased, by that fraction of it less.
fn heavy(used: u64, thresholds: [u64; 3], eased_by: u64) -> Level {
    let allowed = |threshold: u64| threshold - threshold.checked_div(eased_by).unwrap_or(0);
    reached(thresholds.map(|threshold| used >= allowed(threshold)))
}

fn reached(over: [bool; 3]) -> Level {
    LEVELS.into_iter().zip(over).filter(|(_, over)| *over).map(|(level, _)| level).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1_600;
    const WELL: Measures = Measures {
        free_bytes: u64::MAX,
        free_inodes: u64::MAX,
        found_full: false,
        held: 0,
        commit_latency: Duration::ZERO,
        stopped: false,
    };

    fn pressure() -> Pressure {
        Pressure::new(Bound { octets: MAX, counted: "the spool holds", mend: "see to the link" })
    }

    fn level(measures: Measures) -> Level {
        let mut pressure = pressure();
        pressure.observe(Duration::ZERO, &measures);
        assert_eq!(pressure.view().why.is_none(), pressure.level() == Level::Open, "a level has a reason");
        pressure.level()
    }

    #[test]
    fn every_threshold_is_exact() {
        use Level::{Closed, Full, Open, Slow, Stopped};
        let below = [(0, Slow, Open), (1, Closed, Slow), (2, Full, Closed)];
        for (step, over, under) in below {
            for (left, expected) in [(-1, over), (0, under), (1, under)] {
                let free_bytes = FREE_BYTES[step].saturating_add_signed(left);
                assert_eq!(level(Measures { free_bytes, ..WELL }), expected, "{free_bytes} bytes");
                let free_inodes = FREE_INODES[step].saturating_add_signed(left);
                assert_eq!(level(Measures { free_inodes, ..WELL }), expected, "{free_inodes} inodes");
            }
            for (used, expected) in [(-1, under), (0, over), (1, over)] {
                let held = [1_400_u64, 1_600, 1_800][step].saturating_add_signed(used);
                assert_eq!(level(Measures { held, ..WELL }), expected, "{held} held");
                if step < 2 {
                    let millis = COMMIT_MILLIS[step].saturating_add_signed(used);
                    let commit_latency = Duration::from_millis(millis);
                    assert_eq!(level(Measures { commit_latency, ..WELL }), expected, "{millis} ms");
                }
            }
        }
        assert_eq!(level(Measures { commit_latency: Duration::from_secs(3600), ..WELL }), Closed);
        assert_eq!(level(Measures { found_full: true, ..WELL }), Closed);
        assert_eq!(level(Measures { stopped: true, free_bytes: 0, ..WELL }), Stopped);
        assert_eq!(level(WELL), Open);
        assert!(Slow.takes_mail() && !Closed.takes_mail());
        assert!(Closed.takes_submissions() && !Full.takes_submissions() && !Stopped.takes_submissions());
    }

    #[test]
    fn room_is_what_the_disk_lacks_and_not_what_a_bound_or_a_slow_disk_refuses() {
        let lacks = |measures: &[Measures]| {
            let mut pressure = pressure();
            for (at, measures) in (0..).zip(measures) {
                pressure.observe(Duration::from_secs(10 * at), measures);
            }
            pressure.lacks_room()
        };
        let short = Measures { free_bytes: FREE_BYTES[1] - 1, ..WELL };
        let held = Measures { held: 2 * MAX, ..WELL };
        for measures in [short, Measures { free_inodes: 0, ..WELL }, Measures { found_full: true, ..WELL }] {
            assert!(lacks(&[measures]), "{measures:?}");
            assert!(!lacks(&[measures, WELL, WELL]), "{measures:?} is over");
        }
        assert!(lacks(&[
            Measures { found_full: true, ..WELL },
            Measures { free_bytes: FREE_BYTES[1], ..WELL }
        ]));
        for measures in [
            WELL,
            held,
            Measures { commit_latency: Duration::from_secs(60), ..WELL },
            Measures { free_bytes: FREE_BYTES[1], ..WELL },
        ] {
            assert!(!lacks(&[measures]), "{measures:?}");
        }
    }

    #[test]
    fn it_rises_at_once_and_falls_late() {
        let mut pressure = pressure();
        let full = Measures { held: MAX, ..WELL };
        let millis = Duration::from_millis;
        assert_eq!(pressure.observe(millis(0), &full), Some(Level::Open));
        assert_eq!(pressure.level(), Level::Closed);
        // Just below the limit is not below the easier one, however long it lasts.
        let nearly = Measures { held: MAX - MAX / 16, ..WELL };
        assert_eq!(pressure.observe(millis(1_000), &nearly), None);
        assert_eq!(pressure.observe(millis(900_000), &nearly), None);
        let better = Measures { held: MAX - MAX / 16 - 1, ..WELL };
        assert_eq!(pressure.observe(millis(1_000_000), &better), None);
        assert_eq!(pressure.observe(millis(1_001_999), &better), None);
        assert_eq!(pressure.observe(millis(1_002_000), &better), Some(Level::Closed));
        assert_eq!(pressure.level(), Level::Slow, "from there it falls on as far as it may");
        assert_eq!(pressure.observe(millis(1_003_000), &WELL), None);
        assert_eq!(pressure.observe(millis(1_005_000), &WELL), Some(Level::Slow));
        assert_eq!(pressure.view(), PressureView { level: Level::Open, why: None });
    }

    #[test]
    fn it_does_not_flap() {
        let mut pressure = pressure();
        let mut changes = 0;
        // A minute around the limit, measured four times a second.
        for round in 0..240 {
            let held = if round % 2 == 0 { MAX + 1 } else { 0 };
            let now = Duration::from_millis(250 * round);
            changes += u32::from(pressure.observe(now, &Measures { held, ..WELL }).is_some());
        }
        assert_eq!((changes, pressure.level()), (1, Level::Closed));
    }

    #[test]
    fn a_reason_says_the_figure_and_the_mend() {
        let mut pressure = pressure();
        pressure.observe(Duration::ZERO, &Measures { held: 2_048, ..WELL });
        let why = "the spool holds 2.0 KiB, 1.6 KiB are allowed; see to the link";
        assert_eq!(pressure.view(), PressureView { level: Level::Full, why: Some(why.into()) });
        pressure.observe(Duration::ZERO, &Measures { free_bytes: 1 << 20, ..WELL });
        let why = "1.0 MiB are free on the disk, 64.0 MiB are kept in reserve; make room on it";
        assert_eq!(pressure.view().why.as_deref(), Some(why));
        // While calm has not lasted, the reason is still that of the level.
        pressure.observe(Duration::from_secs(1), &WELL);
        assert_eq!(pressure.view().why.as_deref(), Some(why));
    }
}
