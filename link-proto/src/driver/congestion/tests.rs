//! The controller over a path in virtual time: a rate, a queue that drops what does not fit, a delay,
//! random loss. The sender paces and finds losses as quinn does, and always has more to send.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::*;

const PACKET: u64 = 1452;
/// Packets that quinn's pacer lets go at once.
const BURST: f64 = 10.0;
/// Packets after a missing one that prove it lost (RFC 9002 §6.1.1).
const REORDERING: u64 = 3;

#[derive(Clone, Copy)]
struct Path {
    mbit: f64,
    rtt_ms: f64,
    loss: f64,
    queue_bytes: f64,
}

/// What a span of the run looked like.
#[derive(Debug)]
struct Seen {
    /// Delivered, as a share of what the line can deliver at its loss.
    filled: f64,
    /// Dropped by the queue, as a share of what was sent.
    dropped: f64,
    /// Milliseconds that packets queued.
    queue_mean: f64,
    queue_p99: f64,
}

struct Sim {
    controller: Steady,
    path: Path,
    epoch: Instant,
    /// Seconds since `epoch`.
    now: f64,
    random: u64,
    /// When the bottleneck is free again.
    free: f64,
    /// Packets that will be acknowledged: microseconds, number.
    acks: BinaryHeap<Reverse<(u64, u64)>>,
    outstanding: BTreeMap<u64, f64>,
    next: u64,
    tokens: f64,
    refilled: f64,
    srtt: f64,
    heard: f64,
    delivered: u64,
    sent: u64,
    dropped: u64,
    queued: Vec<f64>,
}

impl Sim {
    fn new(path: Path) -> Self {
        let epoch = Instant::now();
        Self {
            controller: Steady::new(epoch, u16::try_from(PACKET).unwrap()),
            path,
            epoch,
            now: 0.0,
            random: 1,
            free: 0.0,
            acks: BinaryHeap::new(),
            outstanding: BTreeMap::new(),
            next: 0,
            tokens: BURST,
            refilled: 0.0,
            srtt: 0.1,
            heard: 0.0,
            delivered: 0,
            sent: 0,
            dropped: 0,
            queued: Vec::new(),
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.epoch + Duration::from_secs_f64(seconds)
    }

    fn rate(&self) -> f64 {
        self.path.mbit * 1e6 / 8.0
    }

    /// SplitMix64.
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.random;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ bits >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn run(&mut self, seconds: f64) -> Seen {
        let (began, end) = (self.now, self.now + seconds);
        (self.delivered, self.sent, self.dropped) = (0, 0, 0);
        self.queued.clear();
        while self.now < end {
            self.send();
            let ack = self.acks.peek().map_or(f64::MAX, |Reverse((at, _))| *at as f64 / 1e6);
            let pacer = if self.is_blocked() { f64::MAX } else { self.now + self.pacer_wait() };
            let probe = self.heard + 3.0 * self.srtt + 0.025;
            self.now = ack.min(pacer).min(probe).max(self.now);
            if ack <= self.now {
                self.hear();
            } else if probe <= self.now {
                // Nothing was heard for long: all of it is lost.
                let first = self.next;
                self.lose(first);
                self.heard = self.now;
            }
        }
        self.queued.sort_by(f64::total_cmp);
        let packets = self.queued.len();
        let possible = self.rate() * (1.0 - self.path.loss) * (self.now - began);
        Seen {
            filled: self.delivered as f64 / possible,
            dropped: self.dropped as f64 / self.sent as f64,
            queue_mean: self.queued.iter().sum::<f64>() / packets as f64 * 1e3,
            queue_p99: self.queued[packets * 99 / 100] * 1e3,
        }
    }

    fn is_blocked(&self) -> bool {
        (self.outstanding.len() as u64 + 1) * PACKET >= self.controller.window()
    }

    fn pace(&self) -> f64 {
        1.25 * self.controller.window() as f64 / PACKET as f64 / self.srtt
    }

    /// Until there is room for a burst; never nothing, or time would stand still.
    fn pacer_wait(&self) -> f64 {
        ((BURST - self.tokens) / self.pace()).max(1e-6)
    }

    fn send(&mut self) {
        self.tokens =
            (self.tokens + (self.now - self.refilled) * self.pace()).min(BURST.max(self.pace() * 0.002));
        self.refilled = self.now;
        while !self.is_blocked() && self.tokens >= 1.0 {
            self.tokens -= 1.0;
            let number = self.next;
            self.next += 1;
            self.sent += 1;
            self.outstanding.insert(number, self.now);
            let queue = (self.free - self.now).max(0.0);
            if queue * self.rate() + PACKET as f64 > self.path.queue_bytes {
                self.dropped += 1;
                continue;
            }
            self.queued.push(queue);
            self.free = self.free.max(self.now) + PACKET as f64 / self.rate();
            if self.chance() >= self.path.loss {
                let back = self.free + self.path.rtt_ms / 1e3;
                self.acks.push(Reverse(((back * 1e6).ceil() as u64, number)));
            }
        }
    }

    fn hear(&mut self) {
        let Some(Reverse((_, number))) = self.acks.pop() else { return };
        self.heard = self.now;
        self.delivered += PACKET;
        let Some(sent) = self.outstanding.remove(&number) else { return };
        self.srtt += (self.now - sent - self.srtt) / 8.0;
        self.controller.acknowledged(self.at(self.now), self.at(sent), PACKET, false);
        self.controller.settle(self.at(self.now));
        self.lose(number.saturating_sub(REORDERING - 1));
    }

    /// All before `number` that are still outstanding are lost.
    fn lose(&mut self, number: u64) {
        let rest = self.outstanding.split_off(&number);
        let lost = std::mem::replace(&mut self.outstanding, rest);
        if let Some((_, sent)) = lost.last_key_value() {
            let (now, sent) = (self.at(self.now), self.at(*sent));
            self.controller.on_congestion_event(now, sent, false, lost.len() as u64 * PACKET);
        }
    }
}

fn path(mbit: f64, rtt_ms: f64, loss: f64, queue_kib: f64) -> Path {
    Path { mbit, rtt_ms, loss, queue_bytes: queue_kib * 1024.0 }
}

/// Until the start must be over.
const START_ROUND_TRIPS: f64 = 30.0;

#[test]
fn lines_are_filled_with_a_short_queue() {
    for (name, path, seconds, filled, mean, p99) in [
        ("10 Mbit/s, 100 ms, 1 %", path(10.0, 100.0, 0.01, 256.0), 60.0, 0.97, 22.0, 30.0),
        ("10 Mbit/s, 100 ms, 10 %", path(10.0, 100.0, 0.1, 256.0), 60.0, 0.95, 22.0, 52.0),
        ("100 Mbit/s, 20 ms", path(100.0, 20.0, 0.0, 1024.0), 30.0, 0.97, 22.0, 30.0),
        ("100 Mbit/s, 100 ms, 5 %", path(100.0, 100.0, 0.05, 1024.0), 20.0, 0.95, 22.0, 52.0),
        ("1 Mbit/s, 300 ms, 5 %", path(1.0, 300.0, 0.05, 64.0), 120.0, 0.95, 30.0, 110.0),
        ("2 Mbit/s, 600 ms, 3 %", path(2.0, 600.0, 0.03, 256.0), 120.0, 0.92, 50.0, 150.0),
        ("1 Gbit/s, 0.1 ms", path(1000.0, 0.1, 0.0, 4096.0), 2.0, 0.97, 22.0, 30.0),
    ] {
        let mut sim = Sim::new(path);
        sim.run(START_ROUND_TRIPS * path.rtt_ms / 1e3);
        let seen = sim.run(seconds);
        assert!(seen.filled >= filled, "{name}: {seen:?}");
        assert!(seen.queue_mean <= mean && seen.queue_p99 <= p99, "{name}: {seen:?}");
    }
}

#[test]
fn the_start_is_quick_and_does_not_flood_the_queue() {
    let mut sim = Sim::new(path(10.0, 100.0, 0.01, 256.0));
    let seen = sim.run(1.0);
    assert!(seen.filled > 0.7 && seen.dropped == 0.0 && seen.queue_p99 < 150.0, "{seen:?}");
}

#[test]
fn much_loss_does_not_starve() {
    let mut sim = Sim::new(path(10.0, 100.0, 0.2, 256.0));
    sim.run(5.0);
    let seen = sim.run(60.0);
    assert!(seen.filled > 0.9, "{seen:?}");
}

#[test]
fn a_queue_shorter_than_the_allowance_is_not_overrun() {
    let mut sim = Sim::new(path(10.0, 100.0, 0.0, 12.0));
    sim.run(5.0);
    let seen = sim.run(60.0);
    assert!(seen.dropped < 0.05 && seen.filled > 0.9, "{seen:?}");
}

#[test]
fn a_line_that_becomes_slower_or_faster_or_longer_is_followed() {
    let mut sim = Sim::new(path(10.0, 100.0, 0.01, 256.0));
    sim.run(10.0);
    for (mbit, rtt_ms) in [(2.0, 100.0), (20.0, 100.0), (20.0, 200.0), (20.0, 50.0)] {
        (sim.path.mbit, sim.path.rtt_ms) = (mbit, rtt_ms);
        let change = sim.run(PATH_AGE_MAX.as_secs_f64() + 5.0);
        let seen = sim.run(30.0);
        assert!(seen.filled > 0.95 && seen.queue_p99 < 52.0, "{mbit} {rtt_ms}: {change:?} {seen:?}");
    }
}

#[test]
fn a_dead_line_begins_anew() {
    let mut sim = Sim::new(path(10.0, 100.0, 0.01, 256.0));
    sim.run(5.0);
    let now = sim.at(sim.now);
    sim.controller.on_congestion_event(now, now, true, PACKET);
    assert_eq!(sim.controller.window(), PACKETS_MIN * PACKET);
    let seen = sim.run(3.0);
    assert!(seen.filled > 0.75, "{seen:?}");
}

#[test]
fn without_enough_to_send_nothing_is_concluded() {
    let epoch = Instant::now();
    let mut controller = Steady::new(epoch, 1200);
    for second in 1..100 {
        let sent = epoch + Duration::from_secs(second);
        controller.acknowledged(sent + Duration::from_millis(100), sent, 1200, true);
        controller.settle(sent + Duration::from_millis(100));
        assert_eq!(controller.window(), WINDOW_INITIAL);
    }
}
