//! Sessions with hosts that are open between two messages: a state machine, which reads no clock and no socket.

use std::time::Duration;

/// How long a session waits for its next message.
pub const IDLE_TIME: Duration = Duration::from_secs(5);
/// Messages over one session.
pub const MESSAGES_MAX: usize = 100;

/// Sessions that wait, each under what it is good for.
#[derive(Debug)]
pub struct Pool<K, S> {
    /// The one that has waited longest comes first.
    waiting: Vec<Waiting<K, S>>,
    max: usize,
}

#[derive(Debug)]
struct Waiting<K, S> {
    key: K,
    session: S,
    since: Duration,
}

impl<K: PartialEq, S> Pool<K, S> {
    /// No sessions, and at most `max` of them.
    pub fn new(max: usize) -> Self {
        Self { waiting: Vec::new(), max }
    }

    /// A session waits from `now` on. Returns the one that has to go for it, if there are too many.
    pub fn put(&mut self, key: K, session: S, now: Duration) -> Option<S> {
        self.waiting.push(Waiting { key, session, since: now });
        (self.waiting.len() > self.max).then(|| self.waiting.remove(0).session)
    }

    /// Takes the session that is good for the first of `keys` that has one, and of those the one that has waited least.
    pub fn take(&mut self, keys: &[K], now: Duration) -> Option<(K, S)> {
        let place = keys.iter().find_map(|key| {
            let is_good = |waiting: &Waiting<K, S>| {
                waiting.key == *key && now.saturating_sub(waiting.since) < IDLE_TIME
            };
            self.waiting.iter().rposition(is_good)
        })?;
        let Waiting { key, session, .. } = self.waiting.remove(place);
        Some((key, session))
    }

    /// Takes those that have waited for too long at `now`.
    pub fn overdue(&mut self, now: Duration) -> Vec<S> {
        let left = self.waiting.partition_point(|waiting| now.saturating_sub(waiting.since) >= IDLE_TIME);
        self.waiting.drain(..left).map(|waiting| waiting.session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_session_is_taken_by_what_it_is_good_for_only_and_once() {
        let mut pool = Pool::new(3);
        assert_eq!(pool.put("a", 1, at(0)), None);
        assert_eq!(pool.put("b", 2, at(1)), None);
        assert_eq!(pool.put("a", 3, at(2)), None);
        assert_eq!(pool.take(&["c"], at(2)), None);
        assert_eq!(pool.take(&["c", "a"], at(2)), Some(("a", 3)));
        assert_eq!(pool.take(&["a"], at(2)), Some(("a", 1)));
        assert_eq!(pool.take(&["a"], at(2)), None);
        assert_eq!(pool.take(&["b"], at(2)), Some(("b", 2)));
    }

    #[test]
    fn what_is_asked_for_first_comes_before_what_has_waited_less() {
        let mut pool = Pool::new(2);
        assert_eq!(pool.put("better", 1, at(0)), None);
        assert_eq!(pool.put("worse", 2, at(1)), None);
        assert_eq!(pool.take(&["better", "worse"], at(2)), Some(("better", 1)));
        assert_eq!(pool.take(&["better", "worse"], at(2)), Some(("worse", 2)));
    }

    #[test]
    fn sessions_wait_for_a_bounded_time_and_in_a_bounded_number() {
        let mut pool = Pool::new(2);
        for (session, seconds) in [(1, 0), (2, 1)] {
            assert_eq!(pool.put("a", session, at(seconds)), None);
        }
        assert_eq!(pool.put("a", 3, at(3)), Some(1), "the oldest goes");
        let end = IDLE_TIME + at(1);
        assert_eq!(pool.overdue(end - Duration::from_millis(1)), Vec::<i32>::new());
        assert_eq!(pool.take(&["a"], end + at(2)), None, "none that has waited for so long is used");
        assert_eq!(pool.overdue(end), [2]);
        assert_eq!(pool.overdue(end + at(2)), [3]);
    }
}
