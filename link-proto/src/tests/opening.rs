//! HELLO, pairing and COMPARE: who is let in, and which lanes begin.

use bytes::Bytes;

use super::sim::{BIG, Cut, EDGE, Node, Random, SECRET, Sim};
use crate::frame::{Decoder, Frame, Hello, REJECTIONS_MAX, Refusal, Refused, Stop};
use crate::host::{Identity, Rebase};
use crate::session::{Channel, Input, OPENING_TIME, Output, Session, SessionError, pairing_proof};
use crate::unit::{Body, Lane, Position, Unit};

fn hello(sim: &Sim, epoch: u64) -> Hello {
    Hello { newest: 1, oldest: 1, identity: sim.nodes[BIG].identity, epoch, proof: None, rotates: false }
}

/// What the edge answers to a hello: its refusal, or `None` if it goes on.
fn judge(sim: &Sim, hello: Hello) -> Option<Refused> {
    let mut edge = Session::new(sim.start(EDGE), sim.now).unwrap();
    let result = edge.handle(Input::Frame(Channel::Control, Frame::Hello(hello)), sim.now);
    match (result, edge.poll()) {
        (Ok(()), Some(Output::Remember(_) | Output::PairedBy(_))) => None,
        (
            Err(SessionError::Refused(error)),
            Some(Output::Send(Channel::Control, Frame::Refused(refused))),
        ) => {
            assert_eq!(error.0, refused);
            Some(refused)
        }
        other => panic!("{other:?}"),
    }
}

fn why(sim: &Sim, hello: Hello) -> Option<Refusal> {
    judge(sim, hello).map(|refused| refused.why)
}

#[test]
fn the_bytes_of_a_hello_are_frozen() {
    let identity = Identity { node: [0xa1; 16], log_name: [0xb2; 16], generation: 3 };
    let hello =
        Hello { newest: 1, oldest: 1, identity, epoch: 0x0102_0304, proof: Some([0xc3; 32]), rotates: false };
    let bytes = Frame::Hello(hello.clone()).encode().concat();
    let mut golden = vec![1, 1, 0, 0, 85, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0];
    golden.extend([0xa1; 16]);
    golden.extend([0xb2; 16]);
    golden.extend([3, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 1]);
    golden.extend([0xc3; 32]);
    golden.extend([0; 4]);
    assert_eq!(bytes, golden);
    let mut decoder = Decoder::default();
    decoder.push(&golden);
    assert_eq!(decoder.next_frame(), Ok(Some(Frame::Hello(hello))));
}

#[test]
fn the_bytes_of_a_refusal_are_frozen() {
    let refused = Refused { why: Refusal::Stale, generation: 5, epoch: 6 };
    let golden = [2, 1, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 2, 5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Frame::Refused(refused).encode().concat(), golden);
}

#[test]
fn a_stale_epoch_or_generation_is_refused_with_the_stored_one() {
    let mut sim = Sim::paired();
    sim.connect().unwrap();
    sim.settle().unwrap();
    sim.cut(Cut::Network);
    sim.connect().unwrap();
    sim.settle().unwrap();
    assert_eq!(sim.nodes[EDGE].partner.as_ref().unwrap().epoch, 2);
    let stale = Some(Refused { why: Refusal::Stale, generation: 1, epoch: 2 });
    assert_eq!(judge(&sim, hello(&sim, 1)), stale);
    assert_eq!(judge(&sim, hello(&sim, 2)), stale);
    assert_eq!(judge(&sim, hello(&sim, 3)), None);
    let with_generation = |generation, epoch| {
        let identity = Identity { generation, ..sim.nodes[BIG].identity };
        Hello { identity, ..hello(&sim, epoch) }
    };
    assert_eq!(judge(&sim, with_generation(0, 9)), stale);
    assert_eq!(judge(&sim, with_generation(2, 1)), None, "a higher generation may count from the start");
    let lower = [hello(&sim, 1), with_generation(0, 1)];
    sim.nodes[EDGE].adopt = true;
    assert_eq!(lower.map(|hello| judge(&sim, hello)), [None, None], "an operator says that it is the one");
}

#[test]
fn another_key_store_or_version_is_refused() {
    let mut sim = Sim::paired();
    assert_eq!(why(&sim, Hello { newest: 9, oldest: 2, ..hello(&sim, 1) }), Some(Refusal::Version));
    assert_eq!(why(&sim, Hello { newest: 9, ..hello(&sim, 1) }), None);
    let identity = Identity { log_name: [9; 16], ..sim.nodes[BIG].identity };
    assert_eq!(why(&sim, Hello { identity, ..hello(&sim, 1) }), Some(Refusal::LogName));
    sim.nodes[BIG].key = vec![9; 44];
    assert_eq!(judge(&sim, hello(&sim, 1)), Some(Refused { why: Refusal::Unknown, generation: 0, epoch: 0 }));
}

#[test]
fn only_a_right_proof_for_the_open_invitation_pairs() {
    let mut sim = Sim::paired();
    sim.nodes[EDGE].partner = None;
    let start = sim.start(EDGE);
    let with = |secret: [u8; 32], binding: [u8; 32]| {
        let proof = pairing_proof(&secret, &binding, &start.peer_key, &start.local_key);
        Hello { proof: Some(proof), ..hello(&sim, 1) }
    };
    let (right, wrong, elsewhere) =
        (with(SECRET, start.binding), with([1; 32], start.binding), with(SECRET, [1; 32]));
    assert_eq!(why(&sim, right.clone()), Some(Refusal::Unknown), "no invitation is open");
    sim.nodes[EDGE].secret = Some(SECRET);
    assert_eq!(why(&sim, right), None);
    assert_eq!(why(&sim, wrong), Some(Refusal::Unknown));
    assert_eq!(why(&sim, elsewhere), Some(Refusal::Unknown), "a proof is good on its own TLS session only");
}

#[test]
fn a_ticket_is_good_for_one_partner() {
    let mut sim = Sim::new();
    (sim.nodes[BIG].secret, sim.nodes[EDGE].secret) = (Some(SECRET), Some(SECRET));
    sim.connect().unwrap();
    sim.settle().unwrap();
    assert!(sim.sessions.iter().flatten().all(Session::is_open) && sim.nodes[BIG].welcomed);
    assert_eq!(sim.nodes[EDGE].secret, None, "used up");

    // The one that paired lost its welcome, and asks again with the same ticket.
    sim.cut(Cut::Network);
    (sim.nodes[BIG].partner, sim.nodes[BIG].welcomed) = (None, false);
    sim.connect().unwrap();
    sim.settle().unwrap();
    assert!(sim.nodes[BIG].welcomed);

    // Another one found the ticket.
    sim.cut(Cut::Network);
    sim.nodes[BIG].partner = None;
    sim.nodes[BIG].key = vec![9; 44];
    sim.connect().unwrap();
    let refused = Refused { why: Refusal::Unknown, generation: 0, epoch: 0 };
    assert!(matches!(sim.settle(), Err(SessionError::Refused(why)) if why.0 == refused));
}

#[test]
fn big_goes_to_its_own_edge_only() {
    let mut sim = Sim::paired();
    sim.nodes[EDGE].key = vec![9; 44];
    assert!(matches!(sim.connect(), Err(SessionError::WrongKey)));
    let mut sim = Sim::paired();
    sim.nodes[EDGE].identity.log_name = [9; 16];
    sim.connect().unwrap();
    assert!(matches!(sim.settle(), Err(SessionError::WrongStore(_))));
    let mut sim = Sim::new();
    assert!(matches!(sim.connect(), Err(SessionError::NotPaired)));
}

#[test]
fn an_opening_that_stands_still_ends() {
    let mut sim = Sim::paired();
    sim.connect().unwrap();
    assert_eq!(sim.sessions[EDGE].as_ref().unwrap().deadline(), Some(OPENING_TIME));
    sim.now = OPENING_TIME;
    assert_eq!(sim.input(EDGE, Input::Tick), Err(SessionError::OpeningTime));
}

/// Both nodes have exchanged `count` units on every lane, and are disconnected.
fn acquainted(count: u8) -> Sim {
    let mut sim = Sim::paired();
    for lane in Lane::ALL {
        for number in 0..count {
            for node in [BIG, EDGE] {
                sim.nodes[node].offer(lane, [number; 16], b"file", Body::Inline(Bytes::from_static(b"body")));
            }
        }
    }
    sim.connect().unwrap();
    sim.settle().unwrap();
    sim.cut(Cut::Network);
    sim
}

fn reconnect(mut sim: Sim) -> Sim {
    sim.stops.clear();
    sim.connect().unwrap();
    sim.settle().unwrap();
    assert!(sim.sessions.iter().flatten().all(Session::is_open));
    sim
}

const INTER: usize = Lane::Inter as usize;

#[test]
fn a_chain_that_differs_stops_its_lane_alone() {
    let mut sim = acquainted(3);
    sim.nodes[EDGE].lanes[INTER].received.chain[0] ^= 1;
    for lane in Lane::ALL {
        sim.nodes[BIG].offer(lane, [77; 16], b"file", Body::None);
    }
    let sim = reconnect(sim);
    let stop = |node, outbound| (node, Lane::Inter, outbound, Stop::Differs);
    assert_eq!(sim.stops, [stop(BIG, true), stop(EDGE, false)]);
    let arrived = Lane::ALL.map(|lane| sim.nodes[EDGE].filed[usize::from(lane.index())].len());
    assert_eq!(arrived, [4, 4, 3, 4]);
}

#[test]
fn a_snapshot_put_back_stops_the_mail_of_both() {
    let mut sim = acquainted(3);
    let before = Sim::paired();
    sim.nodes[EDGE].lanes[0].received = before.nodes[EDGE].lanes[0].received;
    let sim = reconnect(sim);
    for node in [BIG, EDGE] {
        for lane in [Lane::Inter, Lane::Batch] {
            assert!(sim.stops.contains(&(node, lane, true, Stop::ReceiverPutBack)), "{:?}", sim.stops);
        }
    }
    assert!(sim.stops.contains(&(BIG, Lane::Service, true, Stop::ReceiverPutBack)));
    assert!(!sim.stops.iter().any(|(_, lane, ..)| *lane == Lane::Event));
}

const OFFERED: [u8; 3] = [77, 78, 79];

/// Units of one lane, offered to both.
fn offer_more(sim: &mut Sim) {
    for number in OFFERED {
        for node in [BIG, EDGE] {
            sim.nodes[node].offer(Lane::Inter, [number; 16], b"file", Body::None);
        }
    }
}

/// Ids that a node has filed on the lane, each once, in the order in which they were offered.
fn filed(sim: &Sim, node: usize) -> Vec<u8> {
    let ids: Vec<u8> = sim.nodes[node].filed[INTER].iter().map(|(_, id)| id[0]).collect();
    assert!(ids.is_sorted_by(|left, right| left < right), "{ids:?}");
    ids
}

/// Both have filed everything, and nothing is left to send.
fn is_whole(sim: &Sim, count: u8) {
    for node in [BIG, EDGE] {
        let expected: Vec<u8> = (0..count).chain(OFFERED).collect();
        assert_eq!(filed(sim, node), expected, "node {node}");
        assert!(sim.nodes[node].is_idle());
    }
    assert_eq!(sim.stops, []);
}

/// `node` as it was when it had filed `count` units of the lane.
fn restore(sim: &mut Sim, node: usize, count: usize, raise: bool) {
    let taken = sim.nodes[1 - node].units(Lane::Inter, 1, count, usize::MAX);
    let state = &mut sim.nodes[node];
    state.lanes[INTER].received =
        taken.iter().fold(Position::default(), |position, unit| position.after(unit));
    state.filed[INTER].truncate(count);
    state.identity.generation += u32::from(raise);
}

#[test]
fn a_restored_receiver_is_given_again_what_it_lost_and_nothing_twice() {
    for (node, count) in [(BIG, 0), (BIG, 2), (EDGE, 1), (EDGE, 5)] {
        let mut sim = acquainted(6);
        restore(&mut sim, node, count, true);
        offer_more(&mut sim);
        let sim = reconnect(sim);
        is_whole(&sim, 6);
        assert_eq!(sim.nodes[1 - node].settled, 1);
    }
}

/// `node` has recorded no CONFIRMED of the lane above `count`.
fn unconfirm(sim: &mut Sim, node: usize, count: usize) {
    let units = sim.nodes[node].units(Lane::Inter, 1, count, usize::MAX);
    let confirmed = units.iter().fold(Position::default(), |position, unit| position.after(unit));
    let last = sim.nodes[node].lanes[INTER].next - 1;
    sim.nodes[node].forget_after(Lane::Inter, last, confirmed);
}

/// What a restored receiver may have had before is numbered anew, so that its sender looks at it again.
#[test]
fn a_restored_receiver_is_sent_nothing_again_under_its_own_number() {
    for (confirmed, received, settled) in [(0, 0, 1), (2, 2, 1), (2, 4, 1), (0, 3, 1), (2, 6, 0)] {
        // What is said on two streams comes in any order.
        for seed in 1..=20 {
            let mut sim = acquainted(6);
            restore(&mut sim, EDGE, received, true);
            unconfirm(&mut sim, BIG, confirmed);
            sim.connect().unwrap();
            let mut random = Random(seed);
            while sim.step(Some(&mut random)).unwrap() {}
            assert_eq!(filed(&sim, EDGE), (0..6).collect::<Vec<u8>>());
            let case = format!("{confirmed} {received}, seed {seed}");
            assert_eq!((sim.nodes[BIG].settled, sim.stops.len()), (settled, 0), "{case}");
            let in_doubt = settled * usize::from(received > confirmed);
            assert_eq!(sim.nodes[BIG].proved, vec![true; in_doubt], "{case}: no life of big's is lost");
            let numbers: Vec<u64> = sim.nodes[EDGE].filed[INTER].iter().map(|(number, _)| *number).collect();
            assert!(numbers[received..].iter().all(|number| *number > 6), "{case}: {numbers:?}");
            assert!(sim.nodes[BIG].is_idle());
        }
    }
}

/// Nothing has followed the first restore, so the receiver, which had all, stands where it stood then.
#[test]
fn a_receiver_that_is_restored_twice_is_sent_nothing_again_under_its_own_number() {
    let mut sim = acquainted(6);
    restore(&mut sim, EDGE, 2, true);
    // What it lost is not wanted any more.
    sim.nodes[BIG].log[INTER].iter_mut().for_each(|(_, moved)| *moved = true);
    let mut sim = reconnect(sim);
    let (lanes, filed_then) = (sim.nodes.each_ref().map(|node| node.lanes), sim.nodes[EDGE].filed.clone());
    assert!(matches!(lanes[BIG][INTER].rebase, Rebase::From(_)));
    sim.cut(Cut::Network);
    sim.nodes[BIG].offer(Lane::Inter, [77; 16], b"file", Body::None);
    let next = sim.nodes[BIG].lanes[INTER].next;
    let mut sim = reconnect(sim);
    assert_eq!(filed(&sim, EDGE), [0, 1, 77]);
    sim.cut(Cut::Network);
    (sim.nodes[BIG].lanes, sim.nodes[BIG].lanes[INTER].next) = (lanes[BIG], next);
    (sim.nodes[EDGE].lanes, sim.nodes[EDGE].filed) = (lanes[EDGE], filed_then);
    sim.nodes[EDGE].identity.generation += 1;
    let sim = reconnect(sim);
    assert_eq!(filed(&sim, EDGE), [0, 1, 77]);
    assert!(sim.nodes[EDGE].filed[INTER][2].0 >= next, "{:?}", sim.nodes[EDGE].filed[INTER]);
    assert!(sim.nodes[BIG].is_idle() && sim.stops.is_empty());
}

/// Between what it had then and what has followed since, numbers were given anew.
#[test]
fn a_receiver_that_is_restored_to_an_older_backup_and_then_to_a_newer_one_gets_everything_once() {
    for newer in 1..=6 {
        for older in 0..=newer {
            let mut sim = acquainted(6);
            restore(&mut sim, EDGE, newer, true);
            let backup = (sim.nodes[EDGE].lanes[INTER].received, sim.nodes[EDGE].filed[INTER].clone());
            restore(&mut sim, EDGE, older, true);
            let mut sim = reconnect(sim);
            sim.cut(Cut::Network);
            let edge = &mut sim.nodes[EDGE];
            (edge.lanes[INTER].received, edge.filed[INTER]) = backup;
            edge.identity.generation += 1;
            offer_more(&mut sim);
            is_whole(&reconnect(sim), 6);
        }
    }
}

#[test]
fn a_replay_survives_cuts_at_every_frame() {
    for at in 0..60 {
        for confirmed in [0, 2, 6] {
            let mut sim = acquainted(6);
            restore(&mut sim, EDGE, 2, true);
            unconfirm(&mut sim, BIG, confirmed);
            offer_more(&mut sim);
            sim.connect().unwrap();
            for _ in 0..at {
                sim.step(None).unwrap();
            }
            sim.cut(if at % 2 == 0 { Cut::Network } else { Cut::CrashBoth });
            is_whole(&reconnect(sim), 6);
        }
    }
}

#[test]
fn older_than_the_safety_store_stops_until_an_operator_goes_on_without_it() {
    let mut sim = acquainted(6);
    sim.nodes[BIG].trimmed = 3;
    restore(&mut sim, EDGE, 2, true);
    let mut sim = reconnect(sim);
    let stop = |node, outbound| (node, Lane::Inter, outbound, Stop::OlderThanSafety);
    assert_eq!(sim.stops, [stop(BIG, true), stop(EDGE, false)]);
    sim.cut(Cut::Network);
    sim.nodes[BIG].lanes[INTER].rebase = Rebase::Any;
    offer_more(&mut sim);
    is_whole(&reconnect(sim), 6);
}

/// It goes on without what is gone, and before that has come about the receiver is restored to the same backup once more.
#[test]
fn older_than_the_safety_store_once_more_stops_and_says_so() {
    let mut sim = acquainted(6);
    sim.nodes[BIG].trimmed = 3;
    restore(&mut sim, EDGE, 2, true);
    sim.nodes[BIG].lanes[INTER].rebase = Rebase::Any;
    sim.connect().unwrap();
    while sim.nodes[BIG].settled == 0 {
        assert!(sim.step(None).unwrap());
    }
    sim.cut(Cut::CrashBoth);
    assert!(matches!(sim.nodes[BIG].lanes[INTER].rebase, Rebase::From(_)));
    sim.nodes[EDGE].identity.generation += 1;
    let sim = reconnect(sim);
    assert!(sim.stops.contains(&(BIG, Lane::Inter, true, Stop::OlderThanSafety)), "{:?}", sim.stops);
    assert_eq!(sim.nodes[BIG].lacks, [2]);
}

#[test]
fn another_past_in_the_safety_store_is_no_restore() {
    let mut sim = acquainted(6);
    restore(&mut sim, EDGE, 2, true);
    sim.nodes[EDGE].lanes[INTER].received.chain[0] ^= 1;
    let sim = reconnect(sim);
    assert!(sim.stops.contains(&(BIG, Lane::Inter, true, Stop::Differs)), "{:?}", sim.stops);
}

#[test]
fn a_restored_sender_asks_what_is_there_and_numbers_the_rest_anew() {
    for queued_since in [0, 1, 5] {
        let mut sim = acquainted(6);
        let kept = sim.nodes[BIG].units(Lane::Inter, 1, 4, usize::MAX);
        // As it was with four units, of which two were confirmed.
        let confirmed = kept[..2].iter().fold(Position::default(), |p, unit| p.after(unit));
        sim.nodes[BIG].forget_after(Lane::Inter, 4, confirmed);
        sim.nodes[BIG].identity.generation += 1;
        for number in 0..queued_since {
            sim.nodes[BIG].offer(Lane::Inter, [100 + number; 16], b"file", Body::None);
        }
        let sim = reconnect(sim);
        let expected: Vec<u8> = (0..6).chain((0..queued_since).map(|number| 100 + number)).collect();
        assert_eq!(filed(&sim, EDGE), expected, "{queued_since} queued since");
        assert_eq!((sim.stops.len(), sim.nodes[BIG].is_idle()), (0, true));
        assert_eq!(sim.nodes[BIG].proved, [false]);
    }
}

/// A life of big's that is lost was replaying what the edge had lost, and had told it `again` of four units when it was
/// backed up: it stands high, and lacks what big has confirmed.
fn both_restored_in_a_replay(again: usize) -> Sim {
    let mut sim = acquainted(6);
    restore(&mut sim, EDGE, 2, true);
    let stood = sim.nodes[EDGE].lanes[INTER].received;
    let big = &sim.nodes[BIG];
    let (lane, log, anchors) = (big.lanes[INTER], big.log.clone(), big.anchors.clone());
    let mut sim = reconnect(sim);
    sim.cut(Cut::Network);
    let told = sim.nodes[BIG].units(Lane::Inter, 7, again, usize::MAX);
    let base = |unit: &Unit| Position { number: unit.number - 1, ..stood };
    let edge = &mut sim.nodes[EDGE];
    edge.lanes[INTER].received =
        told.iter().fold(told.first().map_or(stood, base), |position, unit| position.after(unit));
    edge.filed[INTER].truncate(2 + again);
    let big = &mut sim.nodes[BIG];
    (big.lanes[INTER], big.log, big.anchors) = (lane, log, anchors);
    for node in &mut sim.nodes {
        node.identity.generation += 1;
        node.proved.clear();
    }
    sim
}

#[test]
fn two_nodes_that_were_restored_while_one_was_told_again_keep_everything() {
    for again in 0..=4 {
        let mut sim = both_restored_in_a_replay(again);
        offer_more(&mut sim);
        let sim = reconnect(sim);
        is_whole(&sim, 6);
        let asked = if again == 0 { vec![] } else { vec![false] };
        assert_eq!(sim.nodes[BIG].proved, asked, "{again} told again");
    }
}

#[test]
fn two_nodes_that_were_restored_go_on_without_what_is_trimmed_when_an_operator_says_so() {
    for (trimmed, again, stands) in [(2, 4, false), (3, 1, true), (4, 2, true), (3, 2, false), (6, 4, true)] {
        let mut sim = both_restored_in_a_replay(again);
        sim.nodes[BIG].trimmed = trimmed;
        let mut sim = reconnect(sim);
        let stop = |node, outbound| (node, Lane::Inter, outbound, Stop::OlderThanSafety);
        let expected = if stands { vec![stop(BIG, true), stop(EDGE, false)] } else { Vec::new() };
        assert_eq!(sim.stops, expected, "{trimmed} trimmed, {again} told again");
        assert_eq!(sim.nodes[BIG].lacks, if stands { vec![0] } else { vec![] }, "nothing is said too early");
        sim.cut(Cut::Network);
        sim.nodes[BIG].lanes[INTER].rebase = Rebase::Any;
        let sim = reconnect(sim);
        assert_eq!(sim.stops, []);
        assert!(sim.nodes[BIG].is_idle());
        let lacked = 2 + again as u8..trimmed as u8;
        assert_eq!(filed(&sim, EDGE), (0..6).filter(|id| !lacked.contains(id)).collect::<Vec<_>>());
    }
}

/// Its number is below what is confirmed here, or the same, and its chain is of a life of this node that is lost.
#[test]
fn a_restored_receiver_with_another_past_is_asked_what_it_holds_by_a_restored_sender() {
    for (count, settled) in [(3, false), (6, false), (3, true), (6, true)] {
        let mut sim = acquainted(6);
        restore(&mut sim, EDGE, count, true);
        sim.nodes[EDGE].lanes[INTER].received.chain[0] ^= 1;
        sim.nodes[EDGE].filed[INTER].remove(1);
        sim.nodes[BIG].identity.generation += 1;
        // It was restored before the two have met the last time, or since.
        sim.nodes[BIG].lanes[INTER].own_generation += u32::from(settled);
        let sim = reconnect(sim);
        let mut ids: Vec<u8> = sim.nodes[EDGE].filed[INTER].iter().map(|(_, id)| id[0]).collect();
        ids.sort_unstable();
        assert_eq!((ids, sim.stops.len()), ((0..6).collect(), 0));
    }
}

#[test]
fn a_receiver_that_claims_a_number_out_of_reach_gets_its_lane_stopped() {
    for number in [u64::MAX, 1 << 50] {
        for decided in [Rebase::None, Rebase::Any] {
            let mut sim = acquainted(6);
            sim.nodes[BIG].identity.generation += 1;
            sim.nodes[BIG].lanes[INTER].rebase = decided;
            sim.nodes[EDGE].lanes[INTER].received.number = number;
            sim.connect().unwrap();
            sim.settle().unwrap();
            assert!(sim.stops.contains(&(BIG, Lane::Inter, true, Stop::Differs)), "{:?}", sim.stops);
            assert!(sim.nodes[BIG].lanes[INTER].next < 100, "its numbers are used up");
        }
    }
}

#[test]
fn a_senders_snapshot_that_was_put_back_stops_the_mail_of_both() {
    let mut sim = acquainted(6);
    sim.nodes[BIG].forget_after(Lane::Inter, 4, Position::default());
    let sim = reconnect(sim);
    for node in [BIG, EDGE] {
        for lane in [Lane::Inter, Lane::Batch] {
            assert!(sim.stops.contains(&(node, lane, true, Stop::SenderPutBack)), "{:?}", sim.stops);
        }
    }
}

#[test]
fn a_partner_with_a_new_store_is_taken_only_when_an_operator_says_so() {
    for warm in [BIG, EDGE] {
        let mut sim = acquainted(6);
        let cold = 1 - warm;
        let partner = sim.nodes[cold].partner.clone();
        let key = sim.nodes[cold].key.clone();
        let epoch = sim.nodes[cold].epoch;
        sim.nodes[cold] = Node::new(50);
        (sim.nodes[cold].partner, sim.nodes[cold].key, sim.nodes[cold].epoch) = (partner, key, epoch);
        // What the warm one has of the cold one's past does not hinder its new beginning.
        offer_more(&mut sim);
        sim.connect().unwrap();
        let refused = sim.settle().unwrap_err();
        assert!(matches!(refused, SessionError::WrongStore(_) | SessionError::Refused(_)), "{refused:?}");
        sim.cut(Cut::Network);
        sim.nodes[warm].adopt = true;
        let sim = reconnect(sim);
        let expected: Vec<u8> = (0..6).chain(OFFERED).collect();
        assert_eq!(filed(&sim, cold), expected, "it gets everything that is kept");
        assert_eq!(sim.nodes[warm].filed[INTER].len(), 9, "and what it sends is taken");
    }
}

#[test]
fn a_generation_that_the_edge_never_had_is_given_up_when_an_operator_says_so() {
    let mut sim = acquainted(6);
    let true_one = sim.nodes[EDGE].identity.generation;
    // As a taken-over edge may have said.
    sim.nodes[BIG].partner.as_mut().unwrap().identity.generation = u32::MAX;
    sim.connect().unwrap();
    assert!(matches!(sim.settle(), Err(SessionError::WrongStore(_))));
    sim.cut(Cut::Network);
    sim.nodes[BIG].adopt = true;
    offer_more(&mut sim);
    let sim = reconnect(sim);
    assert_eq!(sim.nodes[BIG].partner.as_ref().unwrap().identity.generation, true_one);
    assert_eq!(filed(&sim, EDGE), (0..6).chain(OFFERED).collect::<Vec<u8>>(), "nothing twice");
}

#[test]
fn a_generation_that_big_never_had_is_given_up_when_the_edges_operator_says_so() {
    let mut sim = acquainted(6);
    let true_one = sim.nodes[BIG].identity.generation;
    sim.nodes[EDGE].partner.as_mut().unwrap().identity.generation = u32::MAX;
    sim.connect().unwrap();
    assert!(matches!(sim.settle(), Err(SessionError::Refused(_))));
    sim.cut(Cut::Network);
    sim.nodes[EDGE].adopt = true;
    offer_more(&mut sim);
    let sim = reconnect(sim);
    assert_eq!(sim.nodes[EDGE].partner.as_ref().unwrap().identity.generation, true_one);
    assert_eq!(filed(&sim, BIG), (0..6).chain(OFFERED).collect::<Vec<u8>>(), "nothing twice");
}

#[test]
fn credit_ends_and_comes_back() {
    let mut sim = Sim::paired();
    for number in 0..200 {
        sim.nodes[BIG].offer(Lane::Inter, [number; 16], b"file", Body::None);
        sim.nodes[BIG].offer(Lane::Inter, [number; 16].map(|byte| byte ^ 0x80), b"file", Body::None);
        sim.nodes[BIG].offer(
            Lane::Inter,
            [number, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            b"x",
            Body::None,
        );
        sim.nodes[BIG].offer(Lane::Service, [number; 16], b"file", Body::None);
    }
    sim.connect().unwrap();
    while !sim.sessions[EDGE].as_ref().unwrap().is_open() {
        sim.step(None).unwrap();
    }
    sim.input(EDGE, Input::Room(Lane::Inter, false)).unwrap();
    sim.settle().unwrap();
    let came = sim.nodes[EDGE].lanes[INTER].received.number;
    assert_eq!(came, 400, "what was granted when the session began");
    assert!(sim.sessions[BIG].as_ref().unwrap().lane(Lane::Inter).no_credit);
    assert_eq!(sim.nodes[EDGE].filed[0].len(), 200, "the other lanes have credit of their own");
    sim.input(EDGE, Input::Room(Lane::Inter, true)).unwrap();
    sim.settle().unwrap();
    assert_eq!(sim.nodes[EDGE].lanes[INTER].received.number, 600);
}

/// The sender's store went back behind more rejections than a CONFIRMED can say again: its other lanes go on, and it is told
/// by ids once its operator lets it ask.
#[test]
fn more_rejections_than_can_be_said_again_stop_their_lane_and_end_no_session() {
    let (lane, index) = (Lane::Inter, usize::from(Lane::Inter.index()));
    let id = |number: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        id
    };
    let count = u32::try_from(REJECTIONS_MAX).unwrap() + 1;
    let mut sim = Sim::paired();
    for number in 1..=count {
        sim.nodes[BIG].offer(lane, id(number), b"refuse", Body::None);
    }
    sim.connect().unwrap();
    sim.settle().unwrap();
    assert_eq!(sim.nodes[BIG].dead.len(), count as usize);

    sim.cut(Cut::Network);
    let big = &mut sim.nodes[BIG];
    big.dead.clear();
    big.log[index].iter_mut().for_each(|(_, moved)| *moved = false);
    big.anchors[index].clear();
    big.lanes[index].confirmed = Position::default();
    big.offer(lane, id(count + 1), b"file", Body::None);
    big.offer(Lane::Event, id(count + 2), b"file", Body::None);
    sim.connect().unwrap();
    sim.settle().unwrap();
    assert_eq!(sim.stops, [(EDGE, lane, false, Stop::Untold)]);
    let filed = |sim: &Sim, lane: Lane| sim.nodes[EDGE].filed[usize::from(lane.index())].len();
    assert_eq!((filed(&sim, lane), filed(&sim, Lane::Event)), (0, 1));

    sim.cut(Cut::Network);
    sim.nodes[BIG].lanes[index].rebase = Rebase::Any;
    sim.connect().unwrap();
    sim.settle().unwrap();
    assert_eq!(sim.stops.len(), 1, "{:?}", sim.stops);
    assert_eq!(sim.nodes[BIG].dead.len(), count as usize, "each is refused again");
    assert_eq!(filed(&sim, lane), 1);
    assert!(sim.nodes[BIG].is_idle());
}
