//! What was taken in during the last hour.

use std::time::Duration;

/// Seconds that one bucket covers.
const BUCKET_SECONDS: u64 = 60;
/// Buckets: the last hour, and the minute that has begun.
const BUCKETS: u64 = 61;

/// A sum over the last hour, to the minute: what is older than an hour and a minute does not count,
/// what is younger than an hour does. Constant size.
#[derive(Clone, Debug)]
pub struct Hour {
    buckets: [u64; BUCKETS as usize],
    /// The bucket that is being filled, counted from the clock's beginning.
    current: u64,
}

impl Default for Hour {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS as usize], current: 0 }
    }
}

impl Hour {
    /// Counts `amount` at `now`, by any clock that never goes back.
    pub fn add(&mut self, now: Duration, amount: u64) {
        self.turn_to(now);
        let bucket = &mut self.buckets[place(self.current)];
        *bucket = bucket.saturating_add(amount);
    }

    /// The sum at `now`.
    pub fn total(&mut self, now: Duration) -> u64 {
        self.turn_to(now);
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(*bucket))
    }

    fn turn_to(&mut self, now: Duration) {
        let bucket = now.as_secs() / BUCKET_SECONDS;
        // Going round once empties them all.
        for passed in (self.current + 1..=bucket).take(self.buckets.len()) {
            self.buckets[place(passed)] = 0;
        }
        self.current = self.current.max(bucket);
    }
}

fn place(bucket: u64) -> usize {
    usize::try_from(bucket % BUCKETS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_rolls() {
        let mut hour = Hour::default();
        let at = Duration::from_secs;
        hour.add(at(0), 5);
        hour.add(at(59), 6);
        hour.add(at(1800), 7);
        assert_eq!(hour.total(at(3600)), 18, "an hour ago counts");
        assert_eq!(hour.total(at(3659)), 18);
        assert_eq!(hour.total(at(3660)), 7, "a minute more does not");
        assert_eq!(hour.total(at(1800 + 3659)), 7);
        assert_eq!(hour.total(at(1800 + 3660)), 0);
        hour.add(at(1_000_000), 9);
        assert_eq!(hour.total(at(1_000_000)), 9);
        assert_eq!(hour.total(at(9_000_000)), 0, "after any pause");
        hour.add(at(9_000_000), u64::MAX);
        hour.add(at(9_000_060), 1);
        assert_eq!(hour.total(at(9_000_060)), u64::MAX);
    }
}
