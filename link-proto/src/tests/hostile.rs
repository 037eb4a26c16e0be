//! A partner that lies: the session ends, or one lane stops; nothing panics, nothing is applied.

use bytes::Bytes;

use super::sim::{BIG, Cut, EDGE, Random, Sim};
use crate::frame::{
    Batch, Compare, CompareLane, Confirmed, Credit, Decoder, Frame, FrameError, Held, Hello, OFFER_UNITS_MAX,
    Refusal, Refused, Resume, Stop,
};
use crate::host::{Applied, Identity, Rejection};
use crate::session::{Channel, Input, Session, SessionError, Window};
use crate::unit::{BATCH_BYTES_MAX, Body, Lane, Position, Unit};

const LANE: Channel = Channel::Lane(Lane::Inter);

fn unit(number: u64) -> Unit {
    let body = Body::Inline(Bytes::from(vec![7; 100]));
    Unit { number, id: [8; 16], after: Some([9; 16]), head: Bytes::from_static(b"head"), body }
}

fn batch(from: Position, numbers: impl IntoIterator<Item = u64>) -> Batch {
    let units: Vec<_> = numbers.into_iter().map(unit).collect();
    let chain = units.iter().fold(from, |position, unit| position.after(unit)).chain;
    Batch { units, chain }
}

/// An open pair in which big has one unit in flight on every lane.
fn open() -> Sim {
    let mut sim = Sim::paired();
    sim.connect().unwrap();
    sim.settle().unwrap();
    for lane in Lane::ALL {
        sim.nodes[BIG].offer(lane, [1; 16], b"file", Body::None);
        sim.input(BIG, Input::Wake(lane)).unwrap();
    }
    sim
}

fn violates(result: Result<(), SessionError>) {
    assert!(matches!(result, Err(SessionError::Violation { lane: Lane::Inter, .. })), "{result:?}");
}

fn send(node: usize, channel: Channel, frame: Frame) -> Result<(), SessionError> {
    open().input(node, Input::Frame(channel, frame))
}

#[test]
fn numbers_that_do_not_follow_end_the_session() {
    for numbers in [vec![0], vec![2], vec![3, 4], vec![u64::MAX], vec![1, 3], vec![2, 1], vec![1, 1]] {
        violates(send(EDGE, LANE, Frame::Batch(batch(Position::default(), numbers))));
    }
    let damaged = Batch { chain: [0; 32], ..batch(Position::default(), [1]) };
    violates(send(EDGE, LANE, Frame::Batch(damaged)));
    assert_eq!(send(EDGE, LANE, Frame::Batch(batch(Position::default(), [1, 2]))), Ok(()));
}

#[test]
fn the_same_batch_twice_is_not_applied_twice() {
    let mut sim = open();
    let frame = || Input::Frame(LANE, Frame::Batch(batch(Position::default(), [1])));
    sim.input(EDGE, frame()).unwrap();
    violates(sim.input(EDGE, frame()));
}

#[test]
fn more_than_the_credit_ends_the_session() {
    let mut sim = open();
    let mut position = Position::default();
    for number in 1.. {
        let batch = batch(position, [number]);
        position = position.after(&batch.units[0]);
        let result = sim.input(EDGE, Input::Frame(LANE, Frame::Batch(batch)));
        if number > Window::of(Lane::Inter).units {
            return violates(result);
        }
        result.unwrap();
    }
}

#[test]
fn confirms_are_for_what_was_sent_only() {
    let sent = open().nodes[BIG].units(Lane::Inter, 1, 1, 1000);
    let position = Position::default().after(&sent[0]);
    let confirm = |number, chain, refused: &[u64]| {
        let rejection = |number: &u64| Rejection { number: *number, reason: String::new() };
        let applied = Applied { refused: refused.iter().map(rejection).collect(), deferred: Vec::new() };
        let (lane, position, credit) = (Lane::Inter, Position { number, chain }, Credit::default());
        Frame::Confirmed(Confirmed { lane, position, applied, credit })
    };
    for number in [0, 2, u64::MAX] {
        violates(send(BIG, Channel::Control, confirm(number, position.chain, &[])));
    }
    for refused in [0, 2] {
        violates(send(BIG, Channel::Control, confirm(1, position.chain, &[refused])));
    }
    let mut sim = open();
    let mut say = |frame| sim.input(BIG, Input::Frame(Channel::Control, frame));
    say(confirm(1, position.chain, &[1])).unwrap();
    violates(say(confirm(1, position.chain, &[])));
}

#[test]
fn confirm_faults_cost_nothing_on_any_lane() {
    for lane in Lane::ALL {
        let index = usize::from(lane.index());
        // A confirm of both units of that lane has been recorded; `fault` comes behind it, or instead of it.
        let after = |sent: bool, number: u64, altered: bool, rejected: Option<u64>| {
            let mut sim = open();
            sim.settle().unwrap();
            for id in [[2; 16], [3; 16]] {
                sim.nodes[BIG].offer(lane, id, b"file", Body::None);
            }
            sim.input(BIG, Input::Wake(lane)).unwrap();
            if sent {
                sim.settle().unwrap();
            }
            let units = sim.nodes[BIG].units(lane, 1, 3, usize::MAX);
            let position = units
                .iter()
                .take(usize::try_from(number).unwrap_or(3))
                .fold(Position::default(), |position, unit| position.after(unit));
            let chain = if altered { [9; 32] } else { position.chain };
            let reject = |number| vec![Rejection { number, reason: String::new() }];
            let applied = Applied { refused: rejected.map(reject).unwrap_or_default(), ..Applied::default() };
            let (position, credit) = (Position { number, chain }, Credit::default());
            let frame = Frame::Confirmed(Confirmed { lane, position, applied, credit });
            let result = sim.input(BIG, Input::Frame(Channel::Control, frame));
            (result, sim.nodes[BIG].lanes[index].confirmed.number, sim.stops)
        };
        let refused =
            |(result, confirmed, _): (Result<(), SessionError>, u64, Vec<_>), kept: u64, what: &str| {
                let violates = matches!(result, Err(SessionError::Violation { lane: at, .. }) if at == lane);
                assert!(violates, "{what} on {lane:?}: {result:?}");
                assert_eq!(confirmed, kept, "{what} on {lane:?} is recorded");
            };
        refused(after(false, 4, false, None), 1, "a confirm for what was not sent");
        refused(after(false, u64::MAX, false, None), 1, "a confirm of all numbers");
        refused(after(false, 0, false, None), 1, "a confirm of nothing");
        refused(after(false, 1, false, None), 1, "a confirm that was said before");
        refused(after(true, 3, false, None), 3, "the last confirm twice");
        refused(after(true, 2, false, None), 3, "a lower confirm");
        refused(after(false, 3, false, Some(1)), 1, "a rejection of what was confirmed");
        refused(after(false, 3, false, Some(4)), 1, "a rejection of what is not");
        let (result, confirmed, stops) = after(false, 3, true, None);
        assert_eq!((result, confirmed), (Ok(()), 1), "another digest, on {lane:?}: big keeps its copies");
        assert_eq!(stops, [(BIG, lane, true, Stop::Differs)]);
    }
}

#[test]
fn a_confirm_with_another_digest_stops_its_lane_alone() {
    let mut sim = open();
    let position = Position { number: 1, chain: [0; 32] };
    let (applied, credit) = (Applied::default(), Credit::default());
    let confirmed = Confirmed { lane: Lane::Inter, position, applied, credit };
    sim.input(BIG, Input::Frame(Channel::Control, Frame::Confirmed(confirmed))).unwrap();
    assert_eq!(sim.stops, [(BIG, Lane::Inter, true, Stop::Differs)]);
    sim.settle().unwrap();
    let confirmed = Lane::ALL.map(|lane| sim.nodes[BIG].lanes[usize::from(lane.index())].confirmed.number);
    assert_eq!(confirmed, [1, 1, 0, 1], "the node keeps its copy");
    assert_eq!(sim.sessions[BIG].as_ref().unwrap().lane(Lane::Inter).stopped_out, Some(Stop::Differs));
}

#[test]
fn ten_thousand_aborts_leave_nothing() {
    let mut sim = Sim::paired();
    sim.nodes[BIG].offer(Lane::Inter, [1; 16], b"file", Body::None);
    for _ in 0..10_000 {
        sim.connect().unwrap();
        while !sim.sessions[BIG].as_ref().is_some_and(Session::is_open) {
            sim.step(None).unwrap();
        }
        let resume = Resume { position: Position::default(), rebase: false };
        sim.input(BIG, Input::Frame(LANE, Frame::Resume(resume))).unwrap();
        sim.input(BIG, Input::Frame(LANE, Frame::Batch(batch(Position::default(), 1..=3)))).unwrap();
        // Prepared, and never committed.
        sim.cut(Cut::CrashBoth);
    }
    let (inter, big) = (usize::from(Lane::Inter.index()), &sim.nodes[BIG]);
    assert!(big.filed.iter().all(Vec::is_empty));
    assert_eq!((big.lanes[inter].received, big.lanes[inter].confirmed), Default::default());
    assert_eq!((big.lanes[inter].next, big.epoch), (2, 10_000), "its unit waits, under its number");
}

#[test]
fn a_generation_that_rises_each_time_doubles_nothing_and_wastes_few_numbers() {
    let mut sim = open();
    sim.settle().unwrap();
    for _ in 0..200 {
        sim.cut(Cut::Network);
        // "I was restored, to nothing", again and again; what it has is kept all the same.
        sim.nodes[EDGE].identity.generation += 1;
        for state in &mut sim.nodes[EDGE].lanes {
            state.received = Position::default();
        }
        sim.connect().unwrap();
        sim.settle().unwrap();
        assert_eq!(sim.stops, []);
    }
    for lane in Lane::ALL {
        let index = usize::from(lane.index());
        assert_eq!(sim.nodes[EDGE].filed[index].len(), 1, "{lane:?}");
        assert!(sim.nodes[BIG].lanes[index].next <= 2 + 2 * 200, "{lane:?}: two new numbers for each replay");
    }
}

/// Frames that say nothing that could be wrong.
fn harmless(frame: &Frame) -> bool {
    matches!(frame, Frame::BodyFailed(_) | Frame::Credit(..) | Frame::BodyPart(..))
}

#[test]
fn sequence_faults_end_the_session_on_every_lane() {
    for lane in Lane::ALL {
        let on = Channel::Lane(lane);
        let refused = |result: Result<(), SessionError>, what: &str| {
            let violates = matches!(result, Err(SessionError::Violation { lane: at, .. }) if at == lane);
            assert!(violates, "{what} on {lane:?}: {result:?}");
        };
        // Three units have come; then the same again, two ahead, one back, none, the last of all numbers.
        for number in [3, 5, 2, 0, u64::MAX] {
            let mut sim = open();
            let first = batch(Position::default(), 1..=3);
            let here = first.units.iter().fold(Position::default(), |position, unit| position.after(unit));
            sim.input(EDGE, Input::Frame(on, Frame::Batch(first))).unwrap();
            let result = sim.input(EDGE, Input::Frame(on, Frame::Batch(batch(here, [number]))));
            refused(result, &format!("number {number}"));
        }
        // The same number with other content, as if the first had never been sent.
        let mut sim = open();
        sim.input(EDGE, Input::Frame(on, Frame::Batch(batch(Position::default(), [1])))).unwrap();
        let mut other = batch(Position::default(), [1]);
        other.units[0].head = Bytes::from_static(b"other");
        other.chain = Position::default().after(&other.units[0]).chain;
        refused(sim.input(EDGE, Input::Frame(on, Frame::Batch(other))), "other content");
    }
}

/// An edge that has just compared and may begin a lane; big's units are with it.
fn waiting() -> Sim {
    let mut sim = Sim::paired();
    sim.connect().unwrap();
    while !sim.sessions.iter().flatten().all(Session::is_open) {
        sim.step(None).unwrap();
    }
    sim
}

#[test]
fn a_rebase_goes_on_within_its_bound_and_never_back() {
    let resume = |number, rebase| {
        let resume = Resume { position: Position { number, chain: [5; 32] }, rebase };
        waiting().input(EDGE, Input::Frame(LANE, Frame::Resume(resume)))
    };
    violates(resume(1, false));
    assert_eq!(resume(1, true), Ok(()));
    assert_eq!(resume(1 << 40, true), Ok(()));
    violates(resume((1 << 40) + 1, true));
    violates(resume(u64::MAX, true));
    let mut sim = open();
    sim.input(EDGE, Input::Frame(LANE, Frame::Batch(batch(Position::default(), [1])))).unwrap();
    let back = Resume { position: Position::default(), rebase: true };
    let result = sim.input(EDGE, Input::Frame(LANE, Frame::Resume(back)));
    assert_eq!(result, Err(SessionError::Unexpected("RESUME")), "a lane begins once");
    sim.cut(Cut::Network);
    sim.connect().unwrap();
    while !sim.sessions.iter().flatten().all(Session::is_open) {
        sim.step(None).unwrap();
    }
    violates(sim.input(EDGE, Input::Frame(LANE, Frame::Resume(back))));
}

#[test]
fn offers_are_bounded_and_have_their_time() {
    let mut sim = waiting();
    let offer = || Input::Frame(LANE, Frame::Offer(vec![[1; 16]; OFFER_UNITS_MAX]));
    let unexpected = Err(SessionError::Unexpected("OFFER"));
    let answered = (0..).find(|_| sim.input(EDGE, offer()) == unexpected);
    assert_eq!(answered, Some(8192));
    assert_eq!(open().input(EDGE, offer()), unexpected, "its lane has begun");
}

#[test]
fn a_position_where_nobody_can_stand_stops_its_lane() {
    // Believed by a restored node, it would use up every number there is.
    for lane in 0..4 {
        for (number, taken) in [((1 << 40) + 2, true), ((1 << 40) + 3, false), (u64::MAX, false)] {
            let mut sim = Sim::paired();
            sim.nodes[BIG].offer(Lane::ALL[lane], [1; 16], b"file", Body::None);
            sim.nodes[BIG].identity.generation = 2;
            sim.connect().unwrap();
            let hello = Hello {
                newest: 1,
                oldest: 1,
                identity: sim.nodes[EDGE].identity,
                epoch: 1,
                proof: None,
                rotates: false,
            };
            sim.input(BIG, Input::Frame(Channel::Control, Frame::Hello(hello))).unwrap();
            let mut lanes = [CompareLane { next: 1, ..CompareLane::default() }; 4];
            lanes[lane].received.number = number;
            let compare = Compare { held: sim.nodes[BIG].identity.log_name, lanes };
            let frame = Frame::Compare(Box::new(compare));
            let result = sim.input(BIG, Input::Frame(Channel::Control, frame));
            assert_eq!(result, Ok(()), "{number}");
            let stopped = sim.stops.contains(&(BIG, Lane::ALL[lane], true, Stop::Differs));
            assert_eq!(stopped, !taken, "{number}: {:?}", sim.stops);
        }
    }
}

#[test]
fn frames_out_of_place_end_the_session() {
    for frame in samples() {
        let (name, placed) = (frame.name(), harmless(&frame));
        let results = [BIG, EDGE].map(|node| send(node, Channel::Control, frame.clone()));
        assert_eq!(results.iter().all(Result::is_ok), placed, "{name}: {results:?}");
        let mut early = Sim::paired();
        early.connect().unwrap();
        let result = early.input(EDGE, Input::Frame(LANE, frame));
        assert!(matches!(result, Err(SessionError::Unexpected(_))), "{name} on a lane before COMPARE");
    }
}

#[test]
fn a_body_that_was_not_sent_is_not_held() {
    let held = Held { unit: [5; 16], length: 1 << 24, digest: [5; 32] };
    let mut sim = open();
    sim.nodes[BIG].offer_large([5; 16]);
    sim.input(BIG, Input::WakeBodies).unwrap();
    for lie in [Held { length: 1, ..held }, Held { digest: [0; 32], ..held }, Held { unit: [6; 16], ..held }]
    {
        let result = sim.input(BIG, Input::Frame(Channel::Control, Frame::BodyHeld(lie)));
        assert_eq!(result, Err(SessionError::BodyNotSent));
    }
    sim.input(BIG, Input::Frame(Channel::Control, Frame::BodyHeld(held))).unwrap();
}

#[test]
fn a_body_that_cannot_be_taken_rests_and_is_offered_again() {
    let mut sim = open();
    sim.nodes[BIG].offer_large([5; 16]);
    sim.input(BIG, Input::WakeBodies).unwrap();
    sim.lose_bodies();
    sim.input(BIG, Input::Frame(Channel::Control, Frame::BodyFailed([5; 16]))).unwrap();
    let until = sim.sessions[BIG].as_ref().unwrap().deadline().unwrap();
    assert_eq!(until, sim.now + crate::session::BODY_RETRY);
    sim.now = until;
    sim.input(BIG, Input::Tick).unwrap();
    sim.settle().unwrap();
    assert!(sim.nodes[BIG].is_idle(), "it went the second time");
}

/// One of every kind.
pub(super) fn samples() -> Vec<Frame> {
    let position = Position { number: 9, chain: [3; 32] };
    let lane = CompareLane { confirmed: position, next: 10, received: position };
    let rejection = || vec![Rejection { number: 9, reason: "spool full: wait".into() }];
    let applied = Applied { refused: rejection(), deferred: rejection() };
    let identity = Identity { node: [0xa1; 16], log_name: [0xb2; 16], generation: 3 };
    vec![
        Frame::Hello(Hello {
            newest: 1,
            oldest: 1,
            identity,
            epoch: 0x0102_0304,
            proof: Some([0xc3; 32]),
            rotates: false,
        }),
        Frame::Refused(Refused { why: Refusal::Stale, generation: 1, epoch: 2 }),
        Frame::Welcome(b"welcome".to_vec()),
        Frame::Compare(Box::new(Compare { held: [4; 16], lanes: [lane; 4] })),
        Frame::Resume(Resume { position, rebase: true }),
        Frame::Offer(vec![[1; 16], [2; 16]]),
        Frame::Known(vec![true, false]),
        Frame::Credit(Lane::Batch, Credit { units: 7, bytes: 1 << 40 }),
        Frame::BodyPart([8; 16], 1 << 20),
        Frame::Stopped(Stop::Differs),
        Frame::Batch(batch(position, 10..13)),
        Frame::Confirmed(Confirmed {
            lane: Lane::Event,
            position,
            applied,
            credit: Credit { units: 1, bytes: 2 },
        }),
        Frame::BodyHeld(Held { unit: [1; 16], length: 5, digest: [6; 32] }),
        Frame::BodyFailed([7; 16]),
        Frame::NextKey([9; 32]),
    ]
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    decoder.next_frame()
}

#[test]
fn every_frame_survives_its_bytes_however_they_are_cut() {
    let all: Vec<u8> = samples().iter().flat_map(|frame| frame.encode().concat()).collect();
    for size in [1, 7, 64, all.len()] {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for chunk in all.chunks(size) {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, samples());
        assert!(decoder.is_empty());
    }
}

#[test]
fn a_frame_over_its_limit_is_refused_by_its_header_alone() {
    for kind in 0..=255 {
        let mut header = [kind, 1, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0];
        assert!(decode(&header).is_err(), "meta of kind {kind}");
        header[4..].copy_from_slice(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]);
        assert!(decode(&header).is_err(), "raw of kind {kind}");
    }
    let largest = u32::try_from(BATCH_BYTES_MAX).unwrap().to_le_bytes();
    let [a, b, c, d] = largest;
    assert_eq!(decode(&[7, 1, 0, 0, 1, 0, 0, 0, a, b, c, d]), Ok(None));
    assert!(decode(&[7, 2, 0, 0, 1, 0, 0, 0, a, b, c, d]).is_err(), "another version of the kind");
}

#[test]
fn cut_and_flipped_frames_never_panic_and_never_grow() {
    for frame in samples() {
        let bytes = frame.encode().concat();
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Ok(None), "cut at {end}: wait for the rest");
            let mut short = bytes.clone();
            short.remove(end);
            let _ = decode(&short);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Some(Frame::Batch(batch))) = decode(&flipped) {
                let total: usize = batch.units.iter().map(|unit| unit.head.len()).sum();
                assert!(total <= bytes.len());
            }
        }
    }
}

#[test]
fn whatever_bytes_arrive_the_session_answers_without_a_panic() {
    let mut random = Random(7);
    let mut sim = open();
    for _ in 0..20_000 {
        let samples = samples();
        let mut bytes = samples[random.below(samples.len())].encode().concat();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        let channel = if random.below(2) == 0 { Channel::Control } else { LANE };
        if let Ok(Some(frame)) = decode(&bytes)
            && sim.input(BIG + random.below(2), Input::Frame(channel, frame)).is_err()
        {
            sim = open();
        }
    }
    assert!(sim.nodes.iter().all(|node| node.filed.iter().all(|filed| filed.len() <= 1)));
}
