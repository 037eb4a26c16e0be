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

/// Everything that is under way arrives, but what is not to reach big: CONFIRMED, on the control channel.
fn run(world: &mut World, confirms: bool) {
    let held_up = |who: Who, step: Step| match step {
        Step::Bytes(at) => !confirms && who == Who::Big && at == place(Channel::Control),
        Step::Body(_) | Step::Work(_) => false,
    };
    world.wake().expect("nobody lies");
    while let Some((who, step)) = world.steps().into_iter().find(|(who, step)| !held_up(*who, *step)) {
        world.step(who, step, usize::MAX, None).expect("nobody lies");
    }
    Who::BOTH.into_iter().for_each(|who| world.flush(who));
}

fn connect(world: &mut World) {
    world.cut_line(None);
    world.connect().expect("nobody lies");
    run(world, true);
}

fn send(world: &World, subject: &str) -> Id {
    let content = format!("Subject: {subject}\r\n\r\ntext\r\n");
    let big = world.big.as_ref().expect("runs");
    big.send("alice", &["friend@partner.example"], content.as_bytes()).expect("is sent")
}

fn back_up(world: &World) -> Image {
    world.back_up(Who::Edge).expect("is backed up")
}

/// Sends mail that is delivered, with all of its CONFIRMED still under way when big hears of it; then the edge goes back,
/// to before it had the first of the messages or between them. Returns what it delivers again.
fn delivered_again(has_first: bool) -> Vec<Id> {
    id::sim::begin(SEED, BEGINNING);
    let mut world = World::new().expect("begins");
    world.big.as_ref().expect("runs").add_person("alice").expect("is the first");
    connect(&mut world);
    let mut image = back_up(&world);
    let mut sent = Vec::new();
    for subject in ["first", "second"] {
        sent.push(send(&world, subject));
        run(&mut world, false);
        if has_first && sent.len() == 1 {
            image = back_up(&world);
        }
    }
    let edge = world.edge.as_ref().expect("runs");
    for id in &sent {
        let (_, recorded) = block_on(edge.deliver(*id, true)).expect("waits there");
        recorded.expect("commits");
    }
    run(&mut world, false);
    let big = world.big.as_ref().expect("runs");
    for id in &sent {
        assert_eq!(big.state_of(*id).expect("reads"), Some(DeliveryState::Relayed), "big has heard of it");
    }
    id::sim::advance(3_600_000);
    world.now += Duration::from_secs(3_600);
    world.put_back(Who::Edge, &image, true, &mut Dice::new(SEED)).expect("goes back");
    connect(&mut world);
    run(&mut world, true);
    assert!(world.is_quiet(), "{}", world.left());
    let queue = world.edge.as_ref().expect("runs").queue().expect("reads");
    queue.into_iter().filter(|(_, held)| !held).map(|(id, _)| id).collect()
}

#[test]
fn what_big_has_heard_of_as_delivered_goes_to_a_restored_edge_no_more() {
    let _alone = crate::alone();
    assert_eq!(delivered_again(false), Vec::<Id>::new(), "it had neither");
    assert_eq!(delivered_again(true), Vec::<Id>::new(), "it had the first");
}
