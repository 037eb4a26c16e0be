//! A bound on lines: whoever can make a node warn, or refuse something, must not fill its disk with that.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

/// Warnings, or errors, that one place in the code writes within a minute.
pub const A_MINUTE_MAX: u32 = 60;

/// The same of lines that say what goes on.
pub const INFO_A_MINUTE_MAX: u32 = 6_000;

/// Lets each place that warns do so [`A_MINUTE_MAX`] times a minute, each that says what goes on [`INFO_A_MINUTE_MAX`]
/// times, and says how often it did besides.
#[derive(Debug)]
pub(super) struct Bounded<M> {
    counts: Mutex<HashMap<Identifier, Count>>,
    start: Instant,
    log: M,
}

impl<M> Bounded<M> {
    pub fn new(log: M) -> Self {
        Self { counts: Mutex::default(), start: Instant::now(), log }
    }
}

impl<S: Subscriber, M: for<'a> MakeWriter<'a> + 'static> Layer<S> for Bounded<M> {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let max = match *metadata.level() {
            Level::ERROR | Level::WARN => A_MINUTE_MAX,
            Level::INFO => INFO_A_MINUTE_MAX,
            _ => return true,
        };
        let answer = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.entry(metadata.callsite()).or_default().another(max, self.start.elapsed())
        };
        if let Some(left_out @ 1..) = answer {
            let (file, line) = (metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
            let text =
                format!("{left_out} lines before this one were left out, of those from {file}:{line}\n");
            // There is nowhere to tell that telling failed.
            let _ = self.log.make_writer().write_all(text.as_bytes());
        }
        answer.is_some()
    }
}

/// What one place has said in the current minute.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    minute: u64,
    said: u32,
    left_out: u64,
}

impl Count {
    /// One more of `max` in a minute, at a time since some beginning: `None` if it is one too many, else how many have been
    /// left out since one was said.
    fn another(&mut self, max: u32, now: Duration) -> Option<u64> {
        let minute = now.as_secs() / 60;
        if minute != self.minute {
            (self.minute, self.said) = (minute, 0);
        }
        if self.said == max {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_counted_and_told_with_the_next() {
        let mut count = Count::default();
        let at = Duration::from_secs;
        for _ in 0..A_MINUTE_MAX {
            assert_eq!(count.another(A_MINUTE_MAX, at(59)), Some(0));
        }
        assert_eq!((count.another(A_MINUTE_MAX, at(59)), count.another(A_MINUTE_MAX, at(59))), (None, None));
        assert_eq!(
            (count.another(A_MINUTE_MAX, at(60)), count.another(A_MINUTE_MAX, at(60))),
            (Some(2), Some(0))
        );
    }
}
