//! HELLO, pairing and COMPARE: who is let in, and which lanes begin.

use bytes::Bytes;

use super::sim::{BIG, Cut, EDGE, SECRET, Sim};
use crate::frame::{Decoder, Frame, Hello, Refusal, Refused, Stop};
use crate::host::Identity;
use crate::session::{Channel, Input, OPENING_TIME, Output, Session, SessionError, pairing_proof};
use crate::unit::{Body, Lane};

fn hello(sim: &Sim, epoch: u64) -> Hello {
    Hello { newest: 1, oldest: 1, identity: sim.nodes[BIG].identity, epoch, proof: None }
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
    let hello = Hello { newest: 1, oldest: 1, identity, epoch: 0x0102_0304, proof: Some([0xc3; 32]) };
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
            assert!(sim.stops.contains(&(node, lane, true, Stop::SnapshotPutBack)), "{:?}", sim.stops);
        }
    }
    assert!(sim.stops.contains(&(BIG, Lane::Service, true, Stop::SnapshotPutBack)));
    assert!(!sim.stops.iter().any(|(_, lane, ..)| *lane == Lane::Event));
}

#[test]
fn a_restored_partner_stops_what_it_lost() {
    let mut sim = acquainted(3);
    sim.nodes[BIG].identity.generation = 2;
    sim.nodes[BIG].lanes[INTER].received = crate::unit::Position::default();
    let sim = reconnect(sim);
    let stop = |node, outbound| (node, Lane::Inter, outbound, Stop::ReceiverRestored);
    assert_eq!(sim.stops, [stop(EDGE, true), stop(BIG, false)]);
}

#[test]
fn a_restored_sender_stops() {
    let mut sim = acquainted(3);
    sim.nodes[BIG].lanes[INTER].confirmed = crate::unit::Position::default();
    sim.nodes[BIG].lanes[INTER].next = 2;
    let sim = reconnect(sim);
    let stop = |node, outbound| (node, Lane::Inter, outbound, Stop::SenderRestored);
    assert_eq!(sim.stops, [stop(BIG, true), stop(EDGE, false)]);
}
