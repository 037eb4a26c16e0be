//! How long something took, many times.

use std::time::Duration;

/// Times, the shortest first.
pub struct Took(Vec<Duration>);

impl Took {
    /// Of these times.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// What so many percent stayed within, in milliseconds; 100 is the longest.
    pub fn ms(&self, percent: usize) -> f64 {
        let at = self.0.len().saturating_sub(1) * percent / 100;
        self.0.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0
    }

    /// A table's row: p50, p99 and the longest.
    pub fn row(&self, what: &str) -> String {
        format!("| {what} | {:.1} | {:.1} | {:.1} |", self.ms(50), self.ms(99), self.ms(100))
    }
}
