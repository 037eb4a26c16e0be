//! An edge that goes back to before what it has delivered, when big has heard of the delivery and not yet of the unit.

use std::time::Duration;

use link_proto::session::Channel;
use shared::id;
use shared::store::sim::Dice;
use shared::unit::{DeliveryState, Id};

use crate::end::{Step, block_on};
use crate::line::place;
use crate::world::{Image, Who, World};

const SEED: u64 = 7;
const BEGINNING: u64 = 1_800_000_000_000;

/// What does not arrive.
type HeldUp = fn(Who, Step) -> bool;

fn nothing(_: Who, _: Step) -> bool {
    false
}

/// What big would hear on the control channel.
fn confirms(who: Who, step: Step) -> bool {
    matches!((who, step), (Who::Big, Step::Bytes(at)) if at == place(Channel::Control))
}

fn confirms_and_bodies(who: Who, step: Step) -> bool {
    confirms(who, step) || matches!(step, Step::Body(_))
}

/// Everything else that is under way arrives.
fn run(world: &mut World, held_up: HeldUp) {
    world.wake().expect("nobody lies");
    while let Some((who, step)) = world.steps().into_iter().find(|(who, step)| !held_up(*who, *step)) {
        world.step(who, step, usize::MAX, None).expect("nobody lies");
    }
    Who::BOTH.into_iter().for_each(|who| world.flush(who));
}

fn connect(world: &mut World, held_up: HeldUp) {
    world.cut_line(None);
    world.connect().expect("nobody lies");
    while !world.is_open() {
        let (who, step) = world.steps()[0];
        world.step(who, step, usize::MAX, None).expect("nobody lies");
    }
    run(world, held_up);
}

fn send(world: &World, text: &str) -> Id {
    let content = format!("Subject: hello\r\n\r\n{text}\r\n");
    let big = world.big.as_ref().expect("runs");
    big.send("alice", &["friend@partner.example"], content.as_bytes()).expect("is sent")
}

fn back_up(world: &World) -> Image {
    world.back_up(Who::Edge).expect("is backed up")
}

/// Two nodes that know alice.
fn begin() -> World {
    id::sim::begin(SEED, BEGINNING);
    let mut world = World::new().expect("begins");
    world.big.as_ref().expect("runs").add_person("alice").expect("is the first");
    connect(&mut world, nothing);
    world
}

/// Remote hosts take these, and big hears of it.
fn deliver(world: &mut World, sent: &[Id], held_up: HeldUp) {
    let edge = world.edge.as_ref().expect("runs");
    for id in sent {
        let delivered = block_on(edge.deliver(*id, true)).expect("waits there");
        delivered.recorded.expect("commits");
    }
    run(world, held_up);
    let big = world.big.as_ref().expect("runs");
    for id in sent {
        assert_eq!(big.state_of(*id).expect("reads"), Some(DeliveryState::Relayed), "big has heard of it");
    }
}

fn restore(world: &mut World, image: &Image, held_up: HeldUp) {
    id::sim::advance(3_600_000);
    world.now += Duration::from_secs(3_600);
    world.put_back(Who::Edge, image, true, &mut Dice::new(SEED)).expect("goes back");
    connect(world, held_up);
}

/// What the edge would deliver now.
fn free(world: &World) -> Vec<Id> {
    let queue = world.edge.as_ref().expect("runs").queue().expect("reads");
    queue.into_iter().filter(|(_, held)| !held).map(|(id, _)| id).collect()
}

/// The edge goes back, and both have said all. Returns what it would deliver then.
fn free_after(world: &mut World, image: &Image) -> Vec<Id> {
    restore(world, image, nothing);
    run(world, nothing);
    assert!(world.is_quiet(), "{}", world.left());
    free(world)
}

#[test]
fn what_big_has_heard_of_as_delivered_goes_to_a_restored_edge_no_more() {
    let _alone = crate::alone();
    for has_first in [false, true] {
        let mut world = begin();
        let mut image = back_up(&world);
        let mut sent = Vec::new();
        for text in ["first", "second"] {
            sent.push(send(&world, text));
            run(&mut world, confirms);
            if has_first && sent.len() == 1 {
                image = back_up(&world);
            }
        }
        deliver(&mut world, &sent, confirms);
        assert_eq!(free_after(&mut world, &image), Vec::<Id>::new(), "it had the first: {has_first}");
    }
}

#[test]
fn nor_does_it_when_the_edge_goes_back_to_the_same_backup_twice() {
    let _alone = crate::alone();
    let mut world = begin();
    let image = back_up(&world);
    let first = send(&world, "first");
    run(&mut world, nothing);
    deliver(&mut world, &[first], nothing);
    assert_eq!(free_after(&mut world, &image), Vec::<Id>::new());
    // Nothing has gone to it since, so it has not stored yet where the lane goes on.
    let second = send(&world, "second");
    run(&mut world, confirms);
    deliver(&mut world, &[second], confirms);
    assert_eq!(free_after(&mut world, &image), Vec::<Id>::new());
}

#[test]
fn nor_when_it_is_told_a_large_one_again_that_it_had_and_then_has_lost() {
    let _alone = crate::alone();
    let mut world = begin();
    let before = back_up(&world);
    let mut dice = Dice::new(SEED);
    let large =
        send(&world, &(0..12_000).map(|_| format!("{:016x}\r\n", dice.below(u64::MAX))).collect::<String>());
    run(&mut world, nothing);
    let behind = back_up(&world);
    // It is told all, which it does not confirm; the body comes late.
    restore(&mut world, &behind, confirms_and_bodies);
    assert_eq!(free(&world), [large]);
    deliver(&mut world, &[large], confirms_and_bodies);
    assert_eq!(free_after(&mut world, &before), Vec::<Id>::new());
}
