//! Big has no room for mail: the edge spools, then refuses for now; and once there is room, mail flows again, without a restart
//! and without a command. By the virtual clock, for a quota is one of an hour.

use std::collections::BTreeSet;
use std::time::Duration;

use link_proto::host::Host;
use link_proto::unit::Lane;
use shared::id::{self, unix_millis};
use shared::store::sim::Dice;
use shared::unit::Id;

use crate::end::block_on;
use crate::world::{Who, World, topology};

const SEED: u64 = 6;
const BEGINNING: u64 = 1_800_000_000_000;
/// Octets that the edge may hold: the least.
const SPOOL_MAX: u64 = 1 << 20;
/// Octets that big takes in an hour: more than the edge may hold, so that an hour later it takes all of that.
const INBOUND_HOURLY: u64 = 2 << 20;
/// Octets of a message, which cannot be compressed to less than two thirds.
const LETTER: u64 = 40_000;
/// More than fit in both.
const LETTERS_MAX: usize = 500;
/// Between two looks of the nodes.
const LOOK: u64 = 1_000;
/// Room that no level asks for more than, and room that is none: octets and inodes.
const ROOM: (u64, u64) = (1 << 40, 1 << 30);
const NO_ROOM: (u64, u64) = (1 << 20, 1 << 30);

/// What big has no room by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    /// What it takes in an hour.
    Quota,
    /// Its disk.
    Disk,
}

struct Pair {
    world: World,
    accepted: Vec<Id>,
    /// What big has applied, in that order.
    applied: Vec<Id>,
    /// What was on its way when there was no room any more.
    deferred: Vec<Id>,
}

impl Pair {
    fn begin(inbound_hourly: u64) -> Self {
        id::sim::begin(SEED, BEGINNING);
        let mut topology = topology();
        topology.edge.spool_max = SPOOL_MAX;
        let mut world = World::with(topology).expect("begins");
        world.big = world.big.take().map(|big| big.with_pressure(inbound_hourly));
        world.big.as_ref().expect("runs").add_person("alice").expect("is the first");
        world.connect().expect("nobody lies");
        let mut pair = Self { world, accepted: Vec::new(), applied: Vec::new(), deferred: Vec::new() };
        pair.pass(LOOK);
        pair
    }

    /// Time passes, both nodes look for room as the link's driver does, and everything that is under way arrives.
    fn pass(&mut self, millis: u64) {
        self.world.now += Duration::from_millis(millis);
        id::sim::advance(millis);
        // As each node does four times a second.
        self.mail();
        Who::BOTH.into_iter().for_each(|who| self.world.offer_deferred(who, unix_millis()));
        loop {
            for who in Who::BOTH {
                let room = self.has_room(who);
                self.world.room(who, room).expect("nobody lies");
            }
            self.world.wake().expect("nobody lies");
            let Some((who, step)) = self.world.steps().first().copied() else { break };
            self.world.step(who, step, usize::MAX, None).expect("nobody lies");
        }
        Who::BOTH.into_iter().for_each(|who| self.world.flush(who));
        for applied in
            self.world.applied(Who::Big).into_iter().filter(|unit| self.accepted.contains(&unit.id))
        {
            if applied.deferred { self.deferred.push(applied.id) } else { self.applied.push(applied.id) }
        }
    }

    /// Whether everything that was accepted is on big, once, and in its order but for what was deferred.
    fn is_all_there(&self) -> bool {
        let in_order = |ids: &[Id]| -> Vec<Id> {
            ids.iter().copied().filter(|id| !self.deferred.contains(id)).collect()
        };
        let sorted = |ids: &[Id]| ids.iter().copied().collect::<BTreeSet<_>>();
        self.applied.len() == self.accepted.len()
            && sorted(&self.applied) == sorted(&self.accepted)
            && in_order(&self.applied) == in_order(&self.accepted)
    }

    fn has_room(&self, who: Who) -> bool {
        match who {
            Who::Big => self.world.big.as_ref().expect("runs").host.has_room(Lane::Inter),
            Who::Edge => self.world.edge.as_ref().expect("runs").host.has_room(Lane::Inter),
        }
    }

    /// The code that MAIL is answered with.
    fn mail(&self) -> u16 {
        self.world.edge.as_ref().expect("runs").mail().expect("counts")
    }

    /// A message for alice comes to the edge, which has room for it.
    fn accept(&mut self) {
        let mut noise = Dice::new(self.accepted.len() as u64);
        let letters = (0..LETTER).map(|_| b'a' + u8::try_from(noise.below(26)).unwrap_or(0));
        let content: Vec<u8> =
            b"Subject: room\r\n\r\n".iter().copied().chain(letters).chain(*b"\r\n").collect();
        let (from, to) =
            ("a@remote.example".parse().expect("one"), "alice@example.com".parse().expect("one"));
        let edge = self.world.edge.as_ref().expect("runs");
        self.accepted.push(block_on(edge.accept(&from, &to, &content)).expect("there is room"));
    }

    fn disk(&self, (bytes, inodes): (u64, u64)) {
        self.world.big_disk.set_free(bytes, inodes);
    }
}

fn fills_up_and_goes_on(short: Short) {
    let mut pair = Pair::begin(match short {
        Short::Quota => INBOUND_HOURLY,
        Short::Disk => u64::MAX,
    });
    pair.disk(ROOM);
    if short == Short::Disk {
        for _ in 0..3 {
            pair.accept();
            pair.pass(LOOK);
        }
        assert!(pair.is_all_there(), "{short:?}: it flows");
        pair.disk(NO_ROOM);
    }
    // Big takes what it has room for, the edge holds what it has room for, and then MAIL is refused for now.
    while pair.mail() == 250 {
        pair.accept();
        pair.pass(LOOK);
        assert!(pair.accepted.len() < LETTERS_MAX, "{short:?}: nothing is ever refused");
    }
    assert_eq!(pair.mail(), 452, "{short:?}");
    assert!(
        !pair.has_room(Who::Big) && pair.world.is_open(),
        "{short:?}: the link is up, and grants nothing"
    );
    let (applied, accepted) = (pair.applied.len(), pair.accepted.len());
    assert!(applied >= 3 && accepted >= applied + 10, "{short:?}: {applied} of {accepted} are on big");
    // Nothing changes by itself before there is room.
    for _ in 0..60 {
        pair.pass(LOOK);
    }
    assert_eq!((pair.mail(), pair.applied.len()), (452, applied), "{short:?}: there is no room yet");
    match short {
        // Nobody does anything: an hour passes.
        Short::Quota => (0..63).for_each(|_| pair.pass(60 * LOOK)),
        Short::Disk => {
            pair.disk(ROOM);
            (0..10).for_each(|_| pair.pass(LOOK));
        }
    }
    assert_eq!(pair.mail(), 250, "{short:?}: mail is taken again");
    pair.accept();
    pair.pass(LOOK);
    assert!(pair.is_all_there(), "{short:?}: each is there once, in their order");
    assert!(pair.world.dead_letters().is_empty());
}

#[test]
fn an_edge_spools_and_then_refuses_while_big_has_had_its_hours_worth_and_goes_on_an_hour_later() {
    let _alone = crate::alone();
    fills_up_and_goes_on(Short::Quota);
}

#[test]
fn an_edge_spools_and_then_refuses_while_bigs_disk_is_full_and_goes_on_when_it_is_not() {
    let _alone = crate::alone();
    fills_up_and_goes_on(Short::Disk);
}
