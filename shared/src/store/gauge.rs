//! What the store measures of itself while it works. Read without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::StoreError;
use super::disk::Disk;

/// A new commit counts for one part in so many of the smoothed latency.
const SMOOTHING: u64 = 8;
/// Without commits the smoothed latency halves in this time, in microseconds: where slow commits have
/// kept the mail away, some is let in to see.
const HALVES_IN_MICROS: u64 = 2_000_000;
/// How old what the disk says of its room may be, in microseconds.
const ROOM_MICROS: u64 = 100_000;
/// No time at all.
const NEVER: u64 = u64::MAX;

/// The measures. Times are microseconds since the store was opened.
#[derive(Debug)]
pub(super) struct Gauge {
    start: Instant,
    /// Commit latency, smoothed, when the last commit ended.
    latency: AtomicU64,
    /// When that was.
    ended_at: AtomicU64,
    /// When the commit that is running began, or [`NEVER`].
    began_at: AtomicU64,
    /// A write has found the disk full; for whoever watches.
    found_full: AtomicBool,
    /// When the disk was asked for its room, or [`NEVER`], and what it said.
    asked_at: AtomicU64,
    free_bytes: AtomicU64,
    /// What a test has let pass, besides.
    #[cfg(test)]
    let_pass: AtomicU64,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            latency: AtomicU64::new(0),
            ended_at: AtomicU64::new(0),
            began_at: AtomicU64::new(NEVER),
            found_full: AtomicBool::new(false),
            asked_at: AtomicU64::new(NEVER),
            free_bytes: AtomicU64::new(0),
            #[cfg(test)]
            let_pass: AtomicU64::new(0),
        }
    }
}

impl Gauge {
    fn now(&self) -> u64 {
        #[cfg(any(test, feature = "sim"))]
        if let Some(passed) = crate::id::sim::passed() {
            return u64::try_from(passed.as_micros()).unwrap_or(NEVER - 1);
        }
        let passed = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(NEVER - 1);
        #[cfg(test)]
        let passed = passed.saturating_add(self.let_pass.load(Ordering::Relaxed));
        passed
    }

    /// Lets time pass.
    #[cfg(test)]
    pub fn let_pass(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).expect("not ages");
        self.let_pass.fetch_add(micros, Ordering::Relaxed);
    }

    /// A commit begins. Only the writer says so.
    pub fn commit_begins(&self) {
        self.began_at.store(self.now(), Ordering::Relaxed);
    }

    /// The commit that began has ended; one that wrote nothing says nothing about the disk.
    pub fn commit_ends(&self, wrote: bool) {
        let now = self.now();
        let took = now.saturating_sub(self.began_at.swap(NEVER, Ordering::Relaxed));
        if wrote {
            let idle = now.saturating_sub(took).saturating_sub(self.ended_at.load(Ordering::Relaxed));
            let old = faded(self.latency.load(Ordering::Relaxed), idle);
            self.latency.store(smoothed(old, took), Ordering::Relaxed);
            self.ended_at.store(now, Ordering::Relaxed);
        }
    }

    /// How long a commit takes: smoothed, or what the running one has taken so far if that is longer.
    pub fn commit_latency(&self) -> Duration {
        let now = self.now();
        let idle = now.saturating_sub(self.ended_at.load(Ordering::Relaxed));
        let latency = self.latency.load(Ordering::Relaxed);
        let micros = match self.began_at.load(Ordering::Relaxed) {
            NEVER => faded(latency, idle),
            began_at => latency.max(now.saturating_sub(began_at)),
        };
        Duration::from_micros(micros)
    }

    /// Notes an error that a write met.
    pub fn failed(&self, error: &StoreError) {
        if matches!(error, StoreError::Full) {
            self.found_full.store(true, Ordering::Release);
            self.asked_at.store(NEVER, Ordering::Relaxed);
        }
    }

    /// Whether a write has found the disk full since this was last asked.
    pub fn take_found_full(&self) -> bool {
        self.found_full.load(Ordering::Relaxed) && self.found_full.swap(false, Ordering::Acquire)
    }

    /// Free bytes, as the disk said at most 100 ms ago.
    pub fn free_bytes(&self, disk: &dyn Disk) -> Result<u64, StoreError> {
        let (now, asked_at) = (self.now(), self.asked_at.load(Ordering::Acquire));
        if asked_at != NEVER && now < asked_at + ROOM_MICROS {
            return Ok(self.free_bytes.load(Ordering::Relaxed));
        }
        let free = disk.free_bytes()?;
        self.free_bytes.store(free, Ordering::Relaxed);
        self.asked_at.store(now, Ordering::Release);
        Ok(free)
    }
}

fn smoothed(old: u64, sample: u64) -> u64 {
    old - old / SMOOTHING + sample / SMOOTHING
}

fn faded(latency: u64, idle: u64) -> u64 {
    latency.checked_shr(u32::try_from(idle / HALVES_IN_MICROS).unwrap_or(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_smoothed_and_fades() {
        assert_eq!(smoothed(0, 8_000), 1_000);
        let after = |commits: usize, each: u64| (0..commits).fold(0, |old, _| smoothed(old, each));
        assert!(after(8, 5_000_000) < 4_000_000, "one slow moment is not a slow disk");
        assert!(after(40, 5_000_000) > 4_900_000, "many are");
        assert_eq!(faded(8_000, 0), 8_000);
        assert_eq!(faded(8_000, HALVES_IN_MICROS - 1), 8_000);
        assert_eq!(faded(8_000, 3 * HALVES_IN_MICROS), 1_000);
        assert_eq!(faded(u64::MAX, u64::MAX), 0);
    }

    #[test]
    fn a_commit_that_hangs_is_seen_while_it_hangs() {
        let gauge = Gauge::default();
        gauge.commit_begins();
        let deadline = Instant::now() + Duration::from_secs(5);
        while gauge.commit_latency() < Duration::from_millis(20) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(gauge.commit_latency() >= Duration::from_millis(20));
        gauge.commit_ends(false);
        assert_eq!(gauge.commit_latency(), Duration::ZERO, "what wrote nothing does not count");
    }
}
