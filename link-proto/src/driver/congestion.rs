//! How much may be under way: a congestion controller for a path between two nodes of one owner.
//!
//! The usual controllers take a lost packet for a full queue, so a line that loses packets by itself
//! starves them; and they fill the queue before the line, so a small message waits behind a large one.
//! This one looks at what the line does instead:
//!
//! > window = (what the line carries × (its round trip + a little queue)) ÷ (1 − its loss)
//!
//! | term | is |
//! |---|---|
//! | what the line carries | the best of the last [`RATE_ROUNDS`] round trips, acknowledged bytes over time |
//! | its round trip | the shortest of [`PATH_AGE_MAX`]; seen anew by leaving the queue empty for a moment |
//! | a little queue | [`ALLOWANCE`]; it keeps the line busy, and lets the window grow where the line has more |
//! | its loss | the share that gets lost over some rounds, up to [`LOSS_MAX`] |
//!
//! A queue longer than allowed, or more loss than that, means that the estimate is too high: only what
//! the newest rounds carried counts then. Loss might also be a queue shorter than the allowance, so the
//! allowance shrinks while there is some.
//!
//! Time comes in with each call; there is no clock here and no dice.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

/// Bytes under way before the line is known. More than RFC 9002 §7.2 grants a stranger's path: this one
/// is the owner's, and a first message goes out whole.
const WINDOW_INITIAL: u64 = 32 * 1024;
/// Bytes under way at most.
const WINDOW_MAX: u64 = 16 * 1024 * 1024;
/// Packets under way at least: fewer would wait for delayed acknowledgements.
const PACKETS_MIN: u64 = 4;
/// The queue that is kept at the bottleneck: what a small message may have to wait for.
const ALLOWANCE: Duration = Duration::from_millis(20);
/// On long round trips the queue is this part of them at least, or the window would hardly grow.
const ALLOWANCE_PART: u32 = 16;
/// The part of the allowance that is left when loss goes on.
const ALLOWANCE_MIN: f64 = 1.0 / 8.0;
/// Loss above this share shrinks the allowance.
const LOSS_LOW: f64 = 0.02;
/// Loss above this share is the window's fault.
const LOSS_MAX: f64 = 0.25;
/// Fewer lost packets than this prove nothing about a share.
const LOSS_PACKETS_MIN: u64 = 8;
/// Rounds over which the share of loss is taken.
const LOSS_ROUNDS: f64 = 8.0;
/// Rounds over which the best rate is taken.
const RATE_ROUNDS: usize = 10;
/// Rounds that count once the estimate has proved too high.
const RATE_ROUNDS_TRUSTED: usize = 2;
/// While starting, a round that carries less than this many times the best one did not grow.
const GROWTH: f64 = 1.25;
/// Rounds without growth that end the start.
const FLAT_ROUNDS: u32 = 3;
/// Packets in a row that found a queue: the start is over. More than the pacer lets go at once, for
/// these queue behind each other on any slow line.
const QUEUED_PACKETS: u32 = 16;
/// Rounds after which a line that shows no queue is asked for more than it has carried so far.
const PROBE_PAUSE: u32 = 10;
/// How much more: this part of its round trip, and at most twice the allowance.
const PROBE_PART: u32 = 4;
/// Rounds that takes: one in which more leaves, one in which it arrives.
const PROBE_ROUNDS: u32 = 2;
/// The line had more if it then carried this many times what it had before; it is asked again at once.
const PROBE_GROWTH: f64 = 1.05;
/// Rounds in a row with too long a queue, although less and less was sent: it may be no queue.
const CROWDED_ROUNDS: u32 = 3;
/// The path has become another one if its round trip is this many times what it was.
const OTHER_PATH: f64 = 1.25;
/// A shortest round trip older than this is looked for anew.
const PATH_AGE_MAX: Duration = Duration::from_secs(10);
/// Rounds without a queue: one in which it empties, one in which packets find it empty.
const DRAIN_ROUNDS: u32 = 2;
/// The part of the line that is filled meanwhile.
const DRAIN_PART: f64 = 0.75;

/// Makes a [`Steady`] for each connection.
#[derive(Debug)]
pub(super) struct SteadyFactory;

impl ControllerFactory for SteadyFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Steady::new(now, current_mtu))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Doubling each round; so many rounds have not grown.
    Starting { flat: u32 },
    /// At what the line carries. After so many rounds more it may be asked for more.
    Steady { rounds: u32 },
    /// Asking the line for more, for so many rounds more; before, it carried this rate.
    Probing { rounds: u32, before: f64 },
    /// Looking at the empty line for so many rounds more.
    Draining { rounds: u32 },
}

/// One round trip: from a moment until a packet sent after it is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Instant,
    over: bool,
    carried: u64,
    lost: u64,
    rtt_min: Option<Duration>,
    /// There was not enough to send.
    idle: bool,
    /// A router said that its queue grows (RFC 9000 §13.4).
    marked: bool,
}

impl Round {
    fn new(began: Instant) -> Self {
        Self { began, over: false, carried: 0, lost: 0, rtt_min: None, idle: false, marked: false }
    }
}

/// The controller of one connection's path.
#[derive(Clone, Debug)]
pub(super) struct Steady {
    mtu: u64,
    /// Bytes that may be under way.
    window: u64,
    phase: Phase,
    round: Round,
    /// Bytes per second, of the last rounds in which there was enough to send.
    rates: VecDeque<f64>,
    /// The shortest round trip, and when it was seen.
    path: Option<(Duration, Instant)>,
    /// The part of the allowance that is used now.
    allowance: f64,
    /// Bytes lost and carried, each round weighing less than the next.
    lost: f64,
    carried: f64,
    /// Packets in a row that found a queue.
    queued: u32,
    /// Rounds in a row that were crowded.
    crowded: u32,
}

impl Steady {
    fn new(now: Instant, mtu: u16) -> Self {
        Self {
            mtu: u64::from(mtu),
            window: WINDOW_INITIAL,
            phase: Phase::Starting { flat: 0 },
            round: Round::new(now),
            rates: VecDeque::with_capacity(RATE_ROUNDS),
            path: None,
            allowance: 1.0,
            lost: 0.0,
            carried: 0.0,
            queued: 0,
            crowded: 0,
        }
    }

    /// A packet of `bytes` that left at `sent` has arrived.
    fn acknowledged(&mut self, now: Instant, sent: Instant, bytes: u64, idle: bool) {
        let rtt = now.saturating_duration_since(sent);
        if self.path.is_none_or(|(shortest, _)| rtt <= shortest) {
            self.path = Some((rtt, now));
        }
        self.round.carried += bytes;
        self.round.rtt_min = Some(self.round.rtt_min.map_or(rtt, |least| least.min(rtt)));
        self.round.idle |= idle;
        self.round.over |= sent >= self.round.began;
        // Without waiting for the round's end: a queue grows by what the window grows.
        if matches!(self.phase, Phase::Starting { .. }) && !idle && self.queued < QUEUED_PACKETS {
            self.window = (self.window + bytes).min(WINDOW_MAX);
            self.queued = if self.queue(rtt) > self.allowed() / 2 { self.queued + 1 } else { 0 };
        }
    }

    /// All that one acknowledgement told was said.
    fn settle(&mut self, now: Instant) {
        if self.round.over && now > self.round.began {
            let round = std::mem::replace(&mut self.round, Round::new(now));
            self.end(round, now);
        }
    }

    fn end(&mut self, round: Round, now: Instant) {
        let elapsed = now.duration_since(round.began);
        let rate = round.carried as f64 / elapsed.as_secs_f64();
        self.weigh_loss(&round);
        let crowded = self.is_crowded(&round);
        let grown = rate >= self.rate() * GROWTH;
        if let Phase::Draining { rounds } = self.phase {
            self.drain(rounds, &round, now);
        } else {
            if !round.idle || rate > self.rate() {
                self.rates.truncate(RATE_ROUNDS - 1);
                self.rates.push_front(rate);
            }
            self.crowded = if crowded { self.crowded + 1 } else { 0 };
            if crowded {
                self.rates.truncate(RATE_ROUNDS_TRUSTED);
            }
            if !round.idle {
                self.advance(&round, grown, crowded);
            }
            self.age(&round, now);
        }
        self.resize();
    }

    fn weigh_loss(&mut self, round: &Round) {
        let keep = 1.0 - 1.0 / LOSS_ROUNDS;
        self.lost = self.lost * keep + round.lost as f64;
        self.carried = self.carried * keep + round.carried as f64;
        let change = if self.loss() > LOSS_LOW { keep } else { 1.0 + 1.0 / (LOSS_ROUNDS * LOSS_ROUNDS) };
        self.allowance = (self.allowance * change).clamp(ALLOWANCE_MIN, 1.0);
    }

    /// Whether more is under way than the line takes.
    fn is_crowded(&mut self, round: &Round) -> bool {
        let lossy = self.lost >= (LOSS_PACKETS_MIN * self.mtu) as f64
            && self.lost > (self.lost + self.carried) * LOSS_MAX;
        if lossy {
            // What got lost is no property of the line.
            (self.lost, self.carried) = (0.0, 0.0);
        }
        // The allowance and half of it: bursts queue for a moment, too.
        let queued = round.rtt_min.is_some_and(|rtt| self.queue(rtt) > self.allowed_max() * 3 / 2);
        lossy || queued || round.marked
    }

    /// What follows on a round in which there was enough to send.
    fn advance(&mut self, round: &Round, grown: bool, crowded: bool) {
        let probing = Phase::Probing { rounds: PROBE_ROUNDS, before: self.rate() };
        self.phase = match self.phase {
            _ if crowded || self.queued >= QUEUED_PACKETS => Phase::Steady { rounds: PROBE_PAUSE },
            Phase::Starting { .. } if grown => Phase::Starting { flat: 0 },
            Phase::Starting { flat } if flat + 1 < FLAT_ROUNDS => Phase::Starting { flat: flat + 1 },
            Phase::Starting { .. } => Phase::Steady { rounds: PROBE_PAUSE },
            Phase::Steady { rounds: 0 } if self.is_without_queue(round) => probing,
            Phase::Steady { rounds } => Phase::Steady { rounds: rounds.saturating_sub(1) },
            Phase::Probing { rounds, before } if rounds > 1 => Phase::Probing { rounds: rounds - 1, before },
            Phase::Probing { before, .. } if self.rate() >= before * PROBE_GROWTH => probing,
            Phase::Probing { .. } => Phase::Steady { rounds: PROBE_PAUSE },
            draining @ Phase::Draining { .. } => draining,
        };
        self.queued = 0;
    }

    fn is_without_queue(&self, round: &Round) -> bool {
        round.rtt_min.is_some_and(|rtt| self.queue(rtt) < self.allowed_max() / 4)
    }

    /// Looks after the shortest round trip: it may have become longer.
    fn age(&mut self, round: &Round, now: Instant) {
        let is_old = self.path.is_some_and(|(_, seen)| now.saturating_duration_since(seen) >= PATH_AGE_MAX);
        match (self.phase, round.rtt_min) {
            // Nothing of this connection's queues.
            (_, Some(rtt)) if is_old && round.idle => self.path = Some((rtt, now)),
            (Phase::Steady { .. }, _) if is_old || self.crowded >= CROWDED_ROUNDS => {
                self.phase = Phase::Draining { rounds: DRAIN_ROUNDS };
            }
            _ => {}
        }
    }

    fn drain(&mut self, rounds: u32, round: &Round, now: Instant) {
        if rounds > 1 {
            self.phase = Phase::Draining { rounds: rounds - 1 };
            return;
        }
        self.crowded = 0;
        self.phase = Phase::Steady { rounds: PROBE_PAUSE };
        if let (Some(rtt), Some((shortest, _))) = (round.rtt_min, self.path) {
            if rtt > shortest.mul_f64(OTHER_PATH) && self.queue(rtt) > self.allowed_max() {
                self.phase = Phase::Starting { flat: 0 };
            }
            self.path = Some((rtt, now));
        }
    }

    fn resize(&mut self) {
        let Some((path, _)) = self.path else { return };
        let full = path + self.allowed();
        let more = (path / PROBE_PART).min(self.allowed_max() * 2);
        let filled = match self.phase {
            Phase::Starting { .. } => return,
            Phase::Steady { .. } => full.as_secs_f64() / (1.0 - self.loss()),
            Phase::Probing { .. } => (full + more).as_secs_f64() / (1.0 - self.loss()),
            Phase::Draining { .. } => path.as_secs_f64() * DRAIN_PART,
        };
        self.window = ((self.rate() * filled) as u64).clamp(PACKETS_MIN * self.mtu, WINDOW_MAX);
    }

    /// The line is as good as dead, or another one.
    fn restart(&mut self) {
        self.window = PACKETS_MIN * self.mtu;
        self.phase = Phase::Starting { flat: 0 };
        self.rates.clear();
        (self.lost, self.carried, self.queued, self.crowded) = (0.0, 0.0, 0, 0);
    }

    /// Bytes per second that the line carries; 0 before the first round.
    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// How long a packet with this round trip has queued.
    fn queue(&self, rtt: Duration) -> Duration {
        self.path.map_or(Duration::ZERO, |(shortest, _)| rtt.saturating_sub(shortest))
    }

    /// The queue that is allowed where nothing gets lost.
    fn allowed_max(&self) -> Duration {
        self.path.map_or(ALLOWANCE, |(shortest, _)| ALLOWANCE.max(shortest / ALLOWANCE_PART))
    }

    fn allowed(&self) -> Duration {
        self.allowed_max().mul_f64(self.allowance)
    }

    fn loss(&self) -> f64 {
        let sent = self.lost + self.carried;
        if sent > 0.0 { (self.lost / sent).min(LOSS_MAX) } else { 0.0 }
    }
}

impl Controller for Steady {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _: &RttEstimator) {
        self.acknowledged(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, _in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.settle(now);
    }

    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.round.lost += lost_bytes;
        // Marked packets come without lost bytes.
        self.round.marked |= lost_bytes == 0;
        if is_persistent {
            self.restart();
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(PACKETS_MIN * self.mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW_INITIAL
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
