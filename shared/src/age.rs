//! How long a node has lived, which is what ages are counted in.
//!
//! A clock can be set: years ahead by a dead battery, and back again. Nothing that was promised may end because
//! of that: what the safety store keeps, the ids by which repeats are known, mail that is tried for days. So
//! their ages are differences of a number that only rises, by what a monotonic clock says while the node runs.
//! Each node's housekeeping adds to it once a minute ([`Pulse`]). While a node is down nothing ages.
//!
//! What people see as a date (Trash, traces) goes by the clock, and only while that can be believed: for a day
//! after the clock and the time that the node has run went apart, nothing is thrown away by its date. A node that
//! starts some days later than it stopped was switched off, and its clock is not doubted for that: else one that is
//! off each night would never throw anything away.

use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{monotonic, unix_millis};
use crate::moment::{Moment, Trust};
use crate::store::{Rows, Store, StoreError, Table, Txn};

const LIVED: Table = Table("lived");
const KEY: &[u8] = b"node";
/// Clock and monotonic time may differ by so much between two pulses: an hour.
const APART_MAX: u64 = 3_600_000;
/// For how long a node may have been switched off, in milliseconds: a week.
const OFF_MAX: u64 = 7 * 24 * 3_600_000;
/// The longest wait between two attempts, in milliseconds: a day, as `[edge.outbound] retry` allows.
const WAIT_MAX: u64 = 24 * 3_600_000;
/// How long a clock that went apart is not believed, in milliseconds of life: a day.
const DOUBT: u64 = 24 * 3_600_000;

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
struct LivedRow {
    /// Milliseconds.
    lived: u64,
    /// The clock then, milliseconds since 1970; 0 before the first pulse.
    clock: u64,
    /// The clock is not believed before this node has lived so long.
    doubted_until: u64,
    /// How long it had lived when clock and life were last seen apart, for whatever reason.
    apart_at: Option<u64>,
}
crate::row!(LivedRow, 2);

fn row(rows: &impl Rows) -> Result<LivedRow, StoreError> {
    Ok(rows.get(LIVED, KEY)?.unwrap_or_default())
}

/// How long this node has lived, in milliseconds, as of the last pulse.
pub fn lived(rows: &impl Rows) -> Result<u64, StoreError> {
    Ok(row(rows)?.lived)
}

/// Whether what has a date may be thrown away by it.
pub fn is_clock_believed(rows: &impl Rows) -> Result<bool, StoreError> {
    let row = row(rows)?;
    Ok(row.lived >= row.doubted_until)
}

/// How long this node has lived since its clock and its life were last seen apart; `None` if they never were.
pub fn since_apart(rows: &impl Rows) -> Result<Option<Duration>, StoreError> {
    let row = row(rows)?;
    Ok(row.apart_at.map(|at| Duration::from_millis(row.lived.saturating_sub(at))))
}

/// This node has lived longer by `passed`, and its clock stands at `clock`, in milliseconds since 1970.
pub fn live_on(txn: &mut Txn<'_>, passed: Duration, clock: u64) -> Result<(), StoreError> {
    go_on(txn, passed, clock, 0)
}

/// This node starts, and its clock stands at `clock`, in milliseconds since 1970.
pub fn wake(txn: &mut Txn<'_>, clock: u64) -> Result<(), StoreError> {
    go_on(txn, Duration::ZERO, clock, OFF_MAX)
}

fn go_on(txn: &mut Txn<'_>, passed: Duration, clock: u64, off_max: u64) -> Result<(), StoreError> {
    let mut row = row(txn)?;
    let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    row.lived = row.lived.saturating_add(passed);
    let expected = row.clock.saturating_add(passed);
    let apart = clock.abs_diff(expected);
    if row.clock > 0 && apart > APART_MAX {
        row.apart_at = Some(row.lived);
        if clock < expected || apart > off_max {
            row.doubted_until = row.lived.saturating_add(DOUBT);
            let hours = apart / APART_MAX;
            tracing::warn!(
                hours,
                "the clock was set, or this node was down: for a day nothing goes by its date"
            );
        }
    }
    row.clock = clock;
    txn.put(LIVED, KEY, &row)
}

/// This node starts: how far its clock can be trusted with the ends of travel windows.
pub async fn awake(store: &Store) -> Result<Trust, StoreError> {
    store.commit(|txn| wake(txn, unix_millis())).await?;
    Ok(Trust::starting(Moment::now(), since_apart(&store.read()?)?))
}

/// How long ago the node whose state this is lived last, by the clock, which stands at `clock` milliseconds since 1970:
/// the age of a backup; none, if it never lived. `None`, if the clock is more than an hour behind that: one of them is
/// wrong, and nobody can tell how old it is.
pub fn rested(rows: &impl Rows, clock: u64) -> Result<Option<Duration>, StoreError> {
    let row = row(rows)?;
    if row.clock > clock.saturating_add(APART_MAX) {
        return Ok(None);
    }
    Ok(Some(Duration::from_millis(if row.clock > 0 { clock.saturating_sub(row.clock) } else { 0 })))
}

/// Whether an attempt that was set for `at` is to be made at `now`, both in milliseconds since 1970. What is further
/// off than any wait was set by a clock that has gone back since.
pub fn is_due(at: u64, now: u64) -> bool {
    at <= now || at > now.saturating_add(WAIT_MAX)
}

/// The first time, in milliseconds since 1970, that [`is_due`] takes for one before the clock went back to `now`.
pub fn too_far(now: u64) -> u64 {
    now.saturating_add(WAIT_MAX + 1)
}

/// What adds to a node's life while it runs.
#[derive(Debug)]
pub struct Pulse(Duration);

impl Pulse {
    /// From here on.
    pub fn begin() -> Self {
        Self(monotonic())
    }

    /// Adds the time that has passed since the last pulse; what fails is added by the next one.
    pub async fn beat(&mut self, store: &Store) -> Result<(), StoreError> {
        let now = monotonic();
        let passed = now.saturating_sub(self.0);
        store.commit(move |txn| live_on(txn, passed, unix_millis())).await?;
        self.0 = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sim::{Faults, SimDisk};

    const YEAR: u64 = 365 * 24 * 3_600_000;
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn no_attempt_waits_for_a_clock_that_went_back() {
        let now = 50 * YEAR;
        for (at, due) in [(now, true), (now + 1, false), (now + WAIT_MAX, false), (now + WAIT_MAX + 1, true)]
        {
            assert_eq!(is_due(at, now), due, "{at}");
        }
        assert!(is_due(now, now - 10 * YEAR) && is_due(now, now + 10 * YEAR));
        assert!(is_due(too_far(now), now) && !is_due(too_far(now) - 1, now));
    }

    #[test]
    fn life_goes_on_by_what_passes_whatever_the_clock_says() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let beats = store.commit_blocking(|txn| {
            let mut clock = 50 * YEAR;
            for (jump, believed) in [
                (60_000, true),
                (60_000 + APART_MAX, true),
                (60_001 + APART_MAX, false),
                (60_000, false),
                (10 * YEAR, false),
            ] {
                clock += jump;
                live_on(txn, MINUTE, clock)?;
                assert_eq!(is_clock_believed(txn)?, believed, "{jump}");
            }
            for minutes in 1..=24 * 60 {
                clock += 60_000;
                live_on(txn, MINUTE, clock)?;
                assert_eq!(is_clock_believed(txn)?, minutes == 24 * 60, "{minutes}");
            }
            live_on(txn, MINUTE, 1)?;
            assert!(!is_clock_believed(txn)?, "back to 1970");
            assert_eq!(lived(txn)?, (5 + 24 * 60 + 1) * 60_000);
            Ok::<_, StoreError>(())
        });
        beats.expect("commits");
    }

    #[test]
    fn who_is_off_each_night_is_not_doubted_and_who_wakes_years_later_or_earlier_is() {
        const HOUR: u64 = 3_600_000;
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let life = store.commit_blocking(|txn| {
            let mut clock = 50 * YEAR;
            wake(txn, clock)?;
            assert_eq!((is_clock_believed(txn)?, since_apart(txn)?), (true, None), "the first time");
            // Nights, weekends, and a week off.
            for off in [14, 14, 62, 14, 7 * 24] {
                for _ in 0..10 {
                    clock += HOUR;
                    live_on(txn, Duration::from_millis(HOUR), clock)?;
                }
                clock += off * HOUR;
                wake(txn, clock)?;
                assert!(is_clock_believed(txn)?, "off for {off} h");
                assert_eq!(since_apart(txn)?, Some(Duration::ZERO), "what cannot be undone waits a little");
            }
            clock += HOUR;
            live_on(txn, Duration::from_millis(HOUR), clock)?;
            assert_eq!(since_apart(txn)?, Some(Duration::from_millis(HOUR)));
            for jump in [|clock| clock + OFF_MAX + 1, |clock| clock + 10 * YEAR, |_| 1_u64] {
                let wrong = jump(clock);
                wake(txn, wrong)?;
                assert!(!is_clock_believed(txn)?, "{wrong}");
                live_on(txn, Duration::from_millis(DOUBT), wrong + DOUBT)?;
                assert!(is_clock_believed(txn)?, "a day later");
                clock = wrong + DOUBT;
            }
            Ok::<_, StoreError>(())
        });
        life.expect("commits");
    }
}
