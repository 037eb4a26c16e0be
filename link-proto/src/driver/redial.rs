//! When big dials again, and how long it lets an attempt go on.
//!
//! A line that was just cut comes back at any moment, and then every second counts; an edge that has
//! been away for long is not to be hammered. Time comes in with each call.

use std::time::Duration;

use tokio::time::Instant;

use crate::session::OPENING_TIME;

/// The first pause; it doubles with every attempt that fails.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause while the path was healthy not long ago.
const PAUSE_HEALTHY_MAX: Duration = Duration::from_secs(1);
/// The longest pause at any other time.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a link has to be up to end what is remembered of links that broke down.
const SOUND: Duration = Duration::from_secs(60);
/// How long ago "not long ago" may be.
const HEALTHY: Duration = Duration::from_secs(10 * 60);
/// What a handshake gets at least on a path that is known. The first packet is repeated after 0.3, 0.9
/// and 2.1 s; the next pause would be longer than starting anew.
const PATIENCE_MIN: Duration = Duration::from_millis(2500);
/// What it gets in round trips: the edge's retry, the handshake, and a lost packet in each.
const PATIENCE_ROUND_TRIPS: u32 = 6;

/// How the last attempts went.
#[derive(Debug)]
pub(super) struct Redial {
    pause: Duration,
    patience: Duration,
    /// When a link was lost last.
    healthy: Option<Instant>,
}

impl Default for Redial {
    fn default() -> Self {
        Self { pause: PAUSE_MIN, patience: OPENING_TIME, healthy: None }
    }
}

impl Redial {
    /// A link was up until `now`, on a path of that round trip.
    pub(super) fn lost(&mut self, now: Instant, round_trip: Duration) {
        self.healthy = Some(now);
        self.pause = PAUSE_MIN;
        self.patience = (round_trip * PATIENCE_ROUND_TRIPS).clamp(PATIENCE_MIN, OPENING_TIME);
    }

    /// A link was up for `up` until `now`, and broke down by what one of the two nodes did or could not do: it may do so
    /// each time.
    pub(super) fn broke_down(&mut self, now: Instant, round_trip: Duration, up: Duration) {
        let pause = if up < SOUND { (self.pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
        self.lost(now, round_trip);
        self.pause = pause;
    }

    /// An attempt came to nothing.
    pub(super) fn failed(&mut self, now: Instant) {
        let healthy = self.healthy.is_some_and(|lost| now.saturating_duration_since(lost) < HEALTHY);
        if !healthy {
            // It may be another path by now.
            self.patience = OPENING_TIME;
        }
        self.pause = (self.pause * 2).min(if healthy { PAUSE_HEALTHY_MAX } else { PAUSE_MAX });
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// How long the next handshake may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(redial: &mut Redial, now: Instant, attempts: usize) -> Vec<u128> {
        (0..attempts)
            .map(|_| {
                redial.failed(now);
                redial.pause().as_millis()
            })
            .collect()
    }

    #[test]
    fn a_path_that_was_healthy_is_tried_every_second_and_any_other_ever_less_often() {
        let began = Instant::now();
        let mut redial = Redial::default();
        assert_eq!(pauses(&mut redial, began, 9), [400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        redial.lost(began, Duration::from_millis(100));
        assert_eq!(redial.pause(), PAUSE_MIN);
        assert_eq!(pauses(&mut redial, began + HEALTHY / 2, 5), [400, 800, 1000, 1000, 1000]);
        assert_eq!(pauses(&mut redial, began + HEALTHY, 6), [2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn a_link_that_comes_up_and_breaks_down_again_and_again_comes_up_ever_less_often() {
        let (began, round_trip) = (Instant::now(), Duration::from_millis(100));
        let mut redial = Redial::default();
        let broken = |redial: &mut Redial, up| {
            redial.broke_down(began, round_trip, up);
            redial.pause().as_millis()
        };
        let pauses: Vec<_> = (0..9).map(|_| broken(&mut redial, Duration::from_secs(1))).collect();
        assert_eq!(pauses, [400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(broken(&mut redial, SOUND), 200, "it had been sound");
        assert_eq!(broken(&mut redial, SOUND / 2), 400);
        redial.lost(began, round_trip);
        assert_eq!(redial.pause(), PAUSE_MIN, "a line that was cut is no fault of theirs");
    }

    #[test]
    fn a_handshake_gets_what_its_path_needs() {
        let began = Instant::now();
        let mut redial = Redial::default();
        assert_eq!(redial.patience(), OPENING_TIME);
        for (round_trip, patience) in [(1, 2500), (100, 2500), (600, 3600), (5000, 10_000)] {
            redial.lost(began, Duration::from_millis(round_trip));
            assert_eq!(redial.patience(), Duration::from_millis(patience), "{round_trip} ms");
            redial.failed(began);
            assert_eq!(redial.patience(), Duration::from_millis(patience));
        }
        redial.failed(began + HEALTHY);
        assert_eq!(redial.patience(), OPENING_TIME);
    }
}
