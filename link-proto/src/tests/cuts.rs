//! Whatever is cut, and whenever: every unit is applied exactly once, in order, and both agree.

use bytes::Bytes;

use super::sim::{BIG, Cut, EDGE, Random, SECRET, Sim};
use crate::unit::{Body, Lane, UnitId};

const REFUSED: u8 = b'r';
const DEFERRED: u8 = b'd';
const PLAIN: u8 = b'p';

/// An id that says where its unit comes from and what becomes of it.
fn id(node: usize, lane: Lane, number: u8, kind: u8) -> UnitId {
    let mut id = [0; 16];
    (id[0], id[1], id[2], id[3]) = (number, u8::try_from(node).unwrap(), lane.index(), kind);
    id
}

/// Units for every lane of a node: small ones, full ones, some to be refused or deferred, large ones.
fn offer(sim: &mut Sim, node: usize, first: u8, count: u8) {
    for lane in Lane::ALL {
        for number in first..first + count {
            let (kind, head): (u8, &[u8]) = match number % 7 {
                3 => (REFUSED, b"refuse this"),
                5 => (DEFERRED, b"defer this"),
                _ => (PLAIN, b"file this"),
            };
            let body = match number % 9 {
                0 if lane == Lane::Inter => Body::Inline(Bytes::from(vec![number; 64 * 1024])),
                1 => Body::None,
                _ => Body::Inline(Bytes::from(vec![number; 100])),
            };
            sim.nodes[node].offer(lane, id(node, lane, number, kind), head, body);
        }
    }
    let large = 200 + first / 10;
    for number in large..large + count / 8 {
        sim.nodes[node].offer_large(id(node, Lane::Batch, number, PLAIN));
    }
}

/// The work of every run: some waits before the first contact, some comes while the link is busy.
struct Work {
    sim: Sim,
    late: bool,
}

impl Work {
    fn new() -> Self {
        let mut sim = Sim::new();
        (sim.nodes[BIG].secret, sim.nodes[EDGE].secret) = (Some(SECRET), Some(SECRET));
        for node in [BIG, EDGE] {
            offer(&mut sim, node, 0, 60);
        }
        Self { sim, late: false }
    }

    /// Connects, and again after every cut, until all is done. `cut` decides before each step.
    fn run(&mut self, mut random: Option<Random>, mut cut: impl FnMut(&Sim) -> Option<Cut>) {
        self.sim.connect().unwrap();
        loop {
            if let Some(cut) = cut(&self.sim) {
                self.sim.cut(cut);
                self.sim.connect().unwrap();
            }
            if self.sim.delivered > 20 && !self.late {
                self.late = true;
                self.more();
            }
            if !self.sim.step(random.as_mut()).unwrap() {
                break;
            }
        }
    }

    fn more(&mut self) {
        for node in [BIG, EDGE] {
            offer(&mut self.sim, node, 100, 20);
            if self.sim.sessions[node].as_ref().is_some_and(crate::session::Session::is_open) {
                for lane in Lane::ALL {
                    self.sim.input(node, crate::session::Input::Wake(lane)).unwrap();
                }
                self.sim.input(node, crate::session::Input::WakeBodies).unwrap();
            }
        }
    }

    fn check(&self, what: &str) {
        assert_eq!(self.sim.stops, [], "{what}");
        assert!(self.late, "{what}: the run was long enough for late units");
        for (from, to) in [(BIG, EDGE), (EDGE, BIG)] {
            let (sender, receiver) = (&self.sim.nodes[from], &self.sim.nodes[to]);
            assert!(sender.is_idle(), "{what}: all left node {from}");
            for lane in Lane::ALL {
                let index = usize::from(lane.index());
                assert_eq!(sender.lanes[index].confirmed, receiver.lanes[index].received, "{what}: {lane:?}");
                assert_eq!(
                    receiver.lanes[index].received.number + 1,
                    sender.lanes[index].next,
                    "{what}: {lane:?}"
                );
                let filed = &receiver.filed[index];
                assert!(filed.is_sorted_by(|left, right| left.0 < right.0), "{what}: {lane:?} in order");
                let mut ids: Vec<_> = filed.iter().map(|(_, id)| *id).collect();
                let direct: Vec<_> = ids.iter().filter(|id| id[3] == PLAIN && id[0] < 200).collect();
                assert!(direct.is_sorted(), "{what}: {lane:?} in the order of the offers");
                ids.sort_unstable();
                let mut expected = expected(from, lane);
                expected.sort_unstable();
                assert_eq!(ids, expected, "{what}: {lane:?} from {from} exactly once");
            }
            let mut dead = sender.dead.clone();
            dead.sort_unstable();
            let mut refused: Vec<_> =
                Lane::ALL.iter().flat_map(|lane| small(from, *lane, &[REFUSED])).collect();
            refused.sort_unstable();
            assert_eq!(dead, refused, "{what}: what was refused is a dead letter, once");
        }
        assert!(self.sim.nodes[BIG].welcomed, "{what}");
    }
}

fn small(node: usize, lane: Lane, kinds: &[u8]) -> Vec<UnitId> {
    let kind = |number: u8| match number % 7 {
        3 => REFUSED,
        5 => DEFERRED,
        _ => PLAIN,
    };
    let numbers = (0..60).chain(100..120);
    numbers.filter(|number| kinds.contains(&kind(*number))).map(|n| id(node, lane, n, kind(n))).collect()
}

fn expected(node: usize, lane: Lane) -> Vec<UnitId> {
    let mut ids = small(node, lane, &[PLAIN, DEFERRED]);
    if lane == Lane::Batch {
        ids.extend((200..207).chain(210..212).map(|number| id(node, lane, number, PLAIN)));
    }
    ids
}

#[test]
fn a_clean_run_moves_everything() {
    let mut work = Work::new();
    work.run(None, |_| None);
    work.check("clean");
    assert!(work.sim.in_flight_max > 1, "several batches were in flight");
}

#[test]
fn a_cut_at_any_frame_loses_and_doubles_nothing() {
    let mut clean = Work::new();
    clean.run(None, |_| None);
    for at in 0..=clean.sim.delivered {
        for kind in [Cut::Network, Cut::Crash(BIG), Cut::Crash(EDGE), Cut::CrashBoth] {
            let mut work = Work::new();
            let mut done = false;
            work.run(None, |sim| {
                let now = !done && sim.delivered == at;
                done |= now;
                now.then_some(kind)
            });
            work.check(&format!("{kind:?} at frame {at}"));
        }
    }
}

#[test]
fn random_schedules_with_many_cuts_lose_and_double_nothing() {
    for seed in 1..=150u64 {
        let mut work = Work::new();
        let mut dice = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut cuts = 0;
        work.run(Some(Random(seed)), |_| {
            let kinds = [Cut::Network, Cut::Crash(BIG), Cut::Crash(EDGE), Cut::CrashBoth];
            let now = cuts < 25 && dice.below(12) == 0;
            cuts += usize::from(now);
            now.then(|| kinds[dice.below(4)])
        });
        work.check(&format!("seed {seed}"));
    }
}
