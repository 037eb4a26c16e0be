//! The staleness fence under random cuts, changes and restarts of the edge: what RCPT is answered, beside
//! what big knows at that moment and since when.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::address::Address;
use shared::id;
use shared::store::sim::Dice;

use crate::end::block_on;
use crate::world::{Who, World, topology};

const SEED: u64 = 4;
const BEGINNING: u64 = 1_800_000_000_000;
/// Cuts, each with what happens around it.
const CUTS: u64 = 1000;
const STALE_AFTER: Duration = Duration::from_secs(120);
/// Between two marks, as big makes them.
const EVERY: Duration = Duration::from_secs(60);
/// Names that come and go.
const NAMES: u64 = 12;
/// Changes of a burst while the line is down: more than one batch.
const BURST: u64 = 70;
/// Steps in which everything under way arrives.
const ALL: u64 = 100_000;

struct Fence {
    world: World,
    dice: Dice,
    /// Who is known on big, and since when.
    known: BTreeMap<String, Duration>,
    /// When big has last marked, over the connection that is open.
    marked: Option<Duration>,
    cuts: u64,
    /// Answers of 250, 451 and 550.
    answers: [u64; 3],
}

impl Fence {
    fn pass(&mut self) {
        let millis = 1 + self.dice.below(if self.world.is_connected() { 40_000 } else { 120_000 });
        self.world.now += Duration::from_millis(millis);
        id::sim::advance(millis);
    }

    fn change(&mut self) {
        let name = format!("p{}", self.dice.below(NAMES));
        let big = self.world.big.as_ref().expect("runs");
        if self.known.remove(&name).is_some() {
            big.remove_person(&name).expect("is there");
        } else {
            big.add_person(&name).expect("is new");
            self.known.insert(name, self.world.now);
        }
    }

    fn cut(&mut self) {
        self.world.cut_line(None);
        self.marked = None;
        self.cuts += 1;
    }

    /// Lets up to `steps` things happen on the line.
    fn run(&mut self, steps: u64) {
        self.world.wake().expect("nobody lies");
        for _ in 0..steps {
            let possible = self.world.steps();
            if possible.is_empty() {
                break;
            }
            let (who, step) = possible[self.dice.below(possible.len() as u64) as usize];
            let count = 1 + self.dice.below(2000) as usize;
            self.world.step(who, step, count, None).expect("nobody lies");
        }
        Who::BOTH.into_iter().for_each(|who| self.world.flush(who));
        let edge = self.world.edge.as_ref().expect("runs");
        block_on(edge.compare()).expect("compares");
    }

    fn mark(&mut self) {
        let due = self.marked.is_none_or(|at| self.world.now - at >= EVERY);
        if self.world.is_open() && due {
            let big = self.world.big.as_ref().expect("runs");
            block_on(big.tell_directory()).expect("commits");
            self.marked = Some(self.world.now);
        }
    }

    fn probe(&mut self) {
        let edge = self.world.edge.as_ref().expect("runs");
        for number in 0..NAMES {
            let name = format!("p{number}");
            let address: Address = format!("{name}@example.com").parse().expect("an address");
            let code = edge.recipient(&address).expect("reads");
            let since = self.known.get(&name).map(|since| self.world.now - *since);
            if code == 550 {
                assert!(
                    since.is_none_or(|since| since <= STALE_AFTER),
                    "{name} is refused for good, and big knows it since {since:?}; after {} cuts",
                    self.cuts
                );
            }
            let answer = [250, 451, 550].iter().position(|known| *known == code).expect("one of these");
            self.answers[answer] += 1;
        }
        let alice = "alice@example.com".parse().expect("an address");
        assert_eq!(edge.recipient(&alice).expect("reads"), 250, "fresh or stale, who is known is known");
    }

    fn round(&mut self) {
        self.pass();
        match self.dice.below(if self.world.is_connected() { 3 } else { 12 }) {
            0 => self.change(),
            3 => (0..BURST).for_each(|_| self.change()),
            _ => {}
        }
        if self.dice.below(60) == 0 {
            self.cut();
            self.world.lose_power(Who::Edge, &mut self.dice);
            self.world.start(Who::Edge).expect("starts");
            self.probe();
        }
        if !self.world.is_connected() && self.dice.below(4) == 0 {
            self.world.connect().expect("nobody lies");
        }
        if self.world.is_connected() {
            // What arrives in part is cut in the middle; else no time passes on the line.
            let whole = self.dice.below(2) == 0;
            let pieces = if whole { 2 } else { self.dice.below(20) };
            for _ in 0..pieces {
                let steps = if whole { ALL } else { 1 + self.dice.below(12) };
                self.run(steps);
                self.probe();
                self.mark();
            }
            if whole {
                self.run(ALL);
            } else {
                self.cut();
            }
        }
        self.probe();
    }
}

#[test]
fn nobody_whom_big_has_known_for_longer_than_the_fence_is_refused_for_good() {
    let _alone = crate::alone();
    id::sim::begin(SEED, BEGINNING);
    let mut topology = topology();
    topology.edge.stale_after = STALE_AFTER;
    let mut fence = Fence {
        world: World::with(topology).expect("begins"),
        dice: Dice::new(SEED),
        known: BTreeMap::new(),
        marked: None,
        cuts: 0,
        answers: [0; 3],
    };
    fence.world.big.as_ref().expect("runs").add_person("alice").expect("is the first");
    fence.world.connect().expect("nobody lies");
    fence.run(ALL);
    while fence.cuts < CUTS {
        fence.round();
    }
    // All three were seen, each often.
    assert!(fence.answers.iter().all(|count| *count > CUTS), "{:?}", fence.answers);
}
