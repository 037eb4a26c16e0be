//! The link is away for three days by the virtual clock, and mail comes to the edge all the while: once it is back, everything
//! is on big, once, in its order.

use std::collections::HashSet;
use std::time::Duration;

use shared::id::{self, unix_millis};
use shared::lane;
use shared::store::sim::Dice;
use shared::unit::Id;

use crate::end::block_on;
use crate::world::{Who, World};

const SEED: u64 = 7;
const BEGINNING: u64 = 1_800_000_000_000;
/// How long the link is away, in milliseconds.
const AWAY: u64 = 72 * HOUR;
const HOUR: u64 = 3_600_000;
/// How long the nodes go on afterwards, a second at a time, before it is looked at what is there.
const AFTER: u64 = 20;
/// Among the messages so many are large: their bodies go ahead of their units, which have a lane of their own.
const LARGE: u64 = 50;
/// Letters of a large one.
const LARGE_BYTES: usize = 200_000;

fn pass(world: &mut World, millis: u64) {
    world.now += Duration::from_millis(millis);
    id::sim::advance(millis);
    Who::BOTH.into_iter().for_each(|who| world.offer_deferred(who, unix_millis()));
    world.wake().expect("nobody lies");
    while let Some((who, step)) = world.steps().first().copied() {
        world.step(who, step, usize::MAX, None).expect("nobody lies");
    }
    Who::BOTH.into_iter().for_each(|who| world.flush(who));
}

/// Lines that cannot be made much shorter, of so many letters.
fn lines(dice: &mut Dice, letters: usize) -> String {
    let mut text = String::new();
    for place in 1..=letters {
        text.push(char::from(b'a' + u8::try_from(dice.below(26)).expect("a letter")));
        if place % 70 == 0 {
            text.push_str("\r\n");
        }
    }
    text + "\r\n"
}

/// So many messages wait on the edge for a link that comes back.
fn waits_for_the_link(units: u64) {
    let _alone = crate::alone();
    id::sim::begin(SEED, BEGINNING);
    let mut world = World::new().expect("begins");
    world.big.as_ref().expect("runs").add_person("alice").expect("is the first");
    world.connect().expect("nobody lies");
    pass(&mut world, 1_000);
    world.cut_line(None);
    let (from, to) = ("a@remote.example".parse().expect("one"), "alice@example.com".parse().expect("one"));
    let (mut accepted, mut large, mut hours) = (Vec::<Id>::new(), HashSet::new(), 0);
    let mut dice = Dice::new(SEED);
    for number in 0..units {
        let is_large = number % (units / LARGE) == 0;
        let text = if is_large { lines(&mut dice, LARGE_BYTES) } else { String::new() };
        let content = format!("Subject: {number}\r\n\r\n{number} of {units}\r\n{text}");
        let edge = world.edge.as_ref().expect("runs");
        let id = block_on(edge.accept(&from, &to, content.as_bytes())).expect("is taken");
        accepted.push(id);
        if is_large {
            large.insert(id);
        }
        world.now += Duration::from_millis(AWAY / units);
        id::sim::advance(AWAY / units);
        if (number + 1) * (AWAY / units) / HOUR > hours {
            hours += 1;
            Who::BOTH.into_iter().for_each(|who| world.see_to_all(who));
        }
    }
    assert_eq!(world.applied(Who::Big).len(), 0, "the link is away");
    assert!(hours >= 71, "{hours} hours");
    let waiting =
        world.store(Who::Edge).expect("runs").read().and_then(|rows| lane::waiting(&rows, usize::MAX));
    assert_eq!(waiting.expect("is read").len(), large.len(), "whose bodies go ahead");
    world.connect().expect("nobody lies");
    for _ in 0..AFTER {
        pass(&mut world, 1_000);
    }
    let applied: Vec<Id> = world.applied(Who::Big).iter().map(|applied| applied.id).collect();
    let applied: Vec<Id> = applied.into_iter().filter(|id| *id >= accepted[0]).collect();
    assert_eq!(applied.len(), accepted.len(), "each is there, once");
    for of_large in [false, true] {
        let of_lane = |ids: &[Id]| -> Vec<Id> {
            ids.iter().filter(|id| large.contains(*id) == of_large).copied().collect()
        };
        assert!(
            of_lane(&applied) == of_lane(&accepted),
            "in another order than they came, large: {of_large}"
        );
    }
    assert!(world.is_quiet() && world.dead_letters().is_empty(), "{}", world.left());
}

#[test]
fn after_three_days_without_the_link_all_that_waited_is_on_big_once_and_in_its_order() {
    waits_for_the_link(2_000);
}

/// As many as promises §6 has: `cargo test --release -p tests --bin sim -- --ignored outage::`.
#[test]
#[ignore = "takes minutes"]
fn so_are_a_hundred_thousand() {
    waits_for_the_link(100_000);
}
