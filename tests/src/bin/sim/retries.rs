//! Mail that is tried for days, by the virtual clock: when each attempt is made, when its author is told that it waits and
//! that it was given up, and that it is the same each time.

use big_node::harness;
use shared::id::{self, unix_millis};
use shared::topology::Topology;

use crate::end::block_on;
use crate::world::{Who, World, topology};

const SEED: u64 = 5;
const BEGINNING: u64 = 1_800_000_000_000;
const SECOND: u64 = 1_000;
const DAY: u64 = 24 * 3_600 * SECOND;
/// How long the clock goes on at most before the nodes look around, as they do each minute.
const STEP: u64 = 600 * SECOND;
/// After which mail that was sent at the beginning is over and done with.
const END: u64 = 6 * DAY;
/// When the host that was away for days takes mail again.
const BACK: u64 = 3 * DAY;

/// Both nodes, and what was decided: how many seconds after the beginning, and what.
struct Days {
    world: World,
    topology: Topology,
    /// Milliseconds since the beginning, whatever the clocks say.
    passed: u64,
    decided: Vec<(u64, String)>,
    told: usize,
}

impl Days {
    fn begin() -> Self {
        id::sim::begin(SEED, BEGINNING);
        let topology = topology();
        let mut world = World::with(topology.clone()).expect("begins");
        let big = world.big.as_ref().expect("runs");
        big.add_person("alice").expect("is the first");
        big.send(
            "alice",
            &["a@never.example", "b@later.example", "c@fine.example"],
            b"Subject: when?\r\n\r\ntext\r\n",
        )
        .expect("is sent");
        world.connect().expect("nobody lies");
        Self { world, topology, passed: 0, decided: Vec::new(), told: 0 }
    }

    fn decide(&mut self, what: String) {
        self.decided.push((self.passed / SECOND, what));
    }

    /// Everything that is under way arrives.
    fn run(&mut self) {
        self.world.wake().expect("nobody lies");
        while let Some((who, step)) = self.world.steps().first().copied() {
            self.world.step(who, step, usize::MAX, None).expect("nobody lies");
        }
        Who::BOTH.into_iter().for_each(|who| self.world.flush(who));
    }

    /// What is due is attempted and told, and time passes until the next attempt.
    fn step(&mut self) {
        Who::BOTH.into_iter().for_each(|who| self.world.see_to_all(who));
        self.run();
        let (edge, passed) = (self.world.edge.as_ref().expect("runs"), self.passed);
        let takes = |place: &str| match place {
            "never.example" => false,
            "later.example" => passed >= BACK,
            _ => true,
        };
        let attempted = block_on(edge.attempt_due(takes)).expect("commits");
        for (_, place) in attempted {
            let answer = if takes(&place) { "is taken" } else { "comes again" };
            self.decide(format!("{place} {answer}"));
        }
        self.run();
        let big = self.world.big.as_ref().expect("runs");
        block_on(big.write_owed(&self.topology)).expect("commits");
        self.hear();
        let edge = self.world.edge.as_ref().expect("runs");
        let next = edge.next_attempt().expect("reads").map(|at| at.saturating_sub(unix_millis()));
        let millis = next.map_or(STEP, |wait| wait.clamp(1, STEP));
        self.passed += millis;
        self.world.now += std::time::Duration::from_millis(millis);
        id::sim::advance(millis);
    }

    /// Notes what alice has been told since.
    fn hear(&mut self) {
        let filed = harness::mailboxes(self.world.store(Who::Big).expect("runs")).expect("reads");
        let reports: Vec<String> = filed
            .into_iter()
            .map(|filed| String::from_utf8_lossy(&filed.content).into_owned())
            .filter(|text| text.contains("\r\nReporting-MTA: "))
            .collect();
        if reports.len() == self.told {
            return;
        }
        self.told = reports.len();
        let about = |action: &str| {
            let of_them = reports.iter().filter(|text| text.contains(&format!("\r\nAction: {action}\r\n")));
            let named = of_them.flat_map(|text| {
                text.lines().filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; "))
            });
            named.map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        self.decide(format!("told: delayed {:?}, failed {:?}", about("delayed"), about("failed")));
    }

    fn until(&mut self, end: u64) {
        while self.passed < end {
            self.step();
        }
    }

    /// The seconds at which something was decided.
    fn at(&self, what: &str) -> Vec<u64> {
        self.decided.iter().filter(|(_, decided)| decided == what).map(|(at, _)| *at).collect()
    }
}

#[test]
fn mail_is_tried_for_five_days_by_the_schedule_and_twice_with_the_same_decisions() {
    let _alone = crate::alone();
    let play = || {
        let mut days = Days::begin();
        days.until(END);
        days
    };
    let days = play();
    // One minute, five, a quarter of an hour, then hours, as the topology says by default.
    let times = |count: u64| [0, 60, 360].into_iter().chain((0..count).map(|hour| 1_260 + 3_600 * hour));
    let expire = days.topology.edge.outbound.expire.as_secs();
    let never: Vec<u64> = times(200).take_while(|at| *at < expire + 3_600).collect();
    assert_eq!(days.at("never.example comes again"), never);
    assert_eq!(days.at("fine.example is taken"), [0]);
    let later: Vec<u64> = times(200).take_while(|at| *at < BACK / SECOND + 3_600).collect();
    let (taken, before) = later.split_last().expect("some");
    assert_eq!(days.at("later.example comes again"), before);
    assert_eq!(days.at("later.example is taken"), [*taken]);
    let delayed = r#"["a@never.example", "b@later.example"]"#;
    let told: Vec<_> = days.decided.iter().filter(|(_, what)| what.starts_with("told")).collect();
    let [(first, notice), (last, report)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(notice, &format!("told: delayed {delayed}, failed []"));
    assert_eq!(report, &format!(r#"told: delayed {delayed}, failed ["a@never.example"]"#));
    // After four hours, and with the attempt that was the last.
    assert!((14_400..14_400 + STEP / SECOND).contains(first), "{first}");
    assert_eq!(Some(last), never.last());
    assert_eq!(play().decided, days.decided);
}

#[test]
fn a_clock_that_is_set_neither_ends_nor_prolongs_what_is_tried() {
    let _alone = crate::alone();
    let mut days = Days::begin();
    days.until(DAY);
    id::sim::go_ahead(365 * DAY);
    days.until(2 * DAY);
    id::sim::go_back(2 * 365 * DAY);
    days.until(END);
    let expire = days.topology.edge.outbound.expire.as_secs();
    let never = days.at("never.example comes again");
    assert!(never.is_sorted_by(|one, next| one < next && next - one <= 3_600), "{never:?}");
    let last = never.last().expect("some");
    assert!((expire..expire + 3_600).contains(last), "{last}");
    let told: Vec<_> = days.decided.iter().filter(|(_, what)| what.starts_with("told")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1].0, *last);
}
