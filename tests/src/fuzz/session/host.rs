//! The node: what its store says, what it was asked to make durable, and its answers.

use std::collections::VecDeque;

use bytes::Bytes;
use link_proto::frame::{Held, OFFER_UNITS_MAX};
use link_proto::host::{Applied, Identity, LaneState, Opening, Partner, Reach, Rebase, Rejection, Settling};
use link_proto::session::{Input, Output, Role, Start};
use link_proto::unit::{Body, Lane, Position, Unit, UnitId};

use super::super::script::Script;
use super::lane;
use super::sample::{self, Side};
use super::watch::Watch;

pub(super) const BINDING: [u8; 32] = [6; 32];
pub(super) const SECRET: [u8; 32] = [7; 32];
/// The furthest that a partner may push the numbers of a lane with one claim.
const REACH_MAX: u64 = 1 << 40;
/// Bodies that wait at first.
const BODIES: u8 = 6;

/// Something that the node makes durable in its own time.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Remember,
    RememberKey,
    Welcome,
    Settle { lane: Lane, received: Position },
    Apply { lane: Lane, from: u64, number: u64 },
    Number(UnitId),
}

/// The node under test.
#[derive(Debug)]
pub(super) struct Host {
    pub role: Role,
    pub ticket: bool,
    adopt: bool,
    paired: bool,
    right_key: bool,
    /// Answers may be wrong.
    liar: bool,
    /// One was.
    pub lied: bool,
    generation: u32,
    pub lanes: [LaneState; 4],
    asks: VecDeque<Ask>,
    waiting: Vec<UnitId>,
    /// Bodies that were asked for and not sent to their end.
    sending: VecDeque<UnitId>,
}

pub(super) fn body_id(number: u8) -> UnitId {
    [0xb0 + number % 8; 16]
}

impl Host {
    pub fn new(script: &mut Script<'_>) -> Self {
        let flags = script.byte();
        let is = |bit: u8| flags & (1 << bit) != 0;
        let generation = if is(6) { 2 } else { 1 };
        let mut lanes =
            [LaneState { next: 1, own_generation: 1, partner_generation: 1, ..Default::default() }; 4];
        if is(7) {
            for (index, state) in lanes.iter_mut().enumerate() {
                let lane = Lane::ALL[index];
                let confirmed = u64::from(script.below(40));
                state.confirmed = sample::position(Side::Own, lane, confirmed);
                state.next = confirmed + u64::from(script.below(120)) + 1;
                state.received = sample::position(Side::Partner, lane, script.below(40).into());
                let settled = script.byte();
                state.rebase = match settled & 3 {
                    2 => Rebase::From(sample::position(Side::Own, lane, (settled >> 4).into())),
                    3 => Rebase::Any,
                    _ => Rebase::None,
                };
                state.own_generation = if settled & 4 == 0 { generation } else { 1 };
                state.partner_generation = u32::from(settled & 8 == 0);
            }
        }
        Self {
            role: if is(0) { Role::Listener } else { Role::Dialler },
            paired: !is(1),
            ticket: is(2),
            adopt: is(3),
            right_key: !is(4),
            liar: is(5),
            lied: false,
            generation,
            lanes,
            asks: VecDeque::new(),
            waiting: (0..BODIES).map(body_id).collect(),
            sending: VecDeque::new(),
        }
    }

    pub fn local(&self) -> Identity {
        Identity { node: [1; 16], log_name: [2; 16], generation: self.generation }
    }

    pub fn partner_identity() -> Identity {
        Identity { node: [3; 16], log_name: [4; 16], generation: 1 }
    }

    pub fn keys() -> [Vec<u8>; 2] {
        [vec![8; 44], vec![9; 44]]
    }

    pub fn start(&self) -> Start {
        let [local_key, peer_key] = Self::keys();
        let key = if self.right_key { peer_key.clone() } else { vec![0; 44] };
        let partner = self.paired.then(|| Partner {
            identity: Self::partner_identity(),
            key,
            next_key: None,
            former_key: None,
            epoch: 5,
        });
        Start {
            role: self.role,
            opening: Opening { local: self.local(), epoch: 9, partner, adopt: self.adopt, lanes: self.lanes },
            local_key,
            next_key: None,
            peer_key,
            binding: BINDING,
            secret: self.ticket.then_some(SECRET),
        }
    }

    fn state(&self, lane: Lane) -> &LaneState {
        &self.lanes[usize::from(lane.index())]
    }

    /// Takes down what the session is about to be told of its node.
    pub fn before(&mut self, input: &Input) {
        if let Input::Remembered { lanes } | Input::Welcome { lanes, .. } = input {
            self.lanes = **lanes;
        }
    }

    /// A claim of the partner moves a lane's numbers: never so far that they could run out.
    pub fn settles_within_reach(&self, lane: Lane, received: Position) {
        let next = self.state(lane).next;
        assert!(
            received.number <= next.saturating_add(REACH_MAX),
            "a lane is to go on at {}",
            received.number
        );
    }

    /// Does what the session asks, or keeps it for later. Returns the answer that is due at once.
    pub fn carry_out(&mut self, output: Output, script: &mut Script<'_>) -> Option<Input> {
        let right = match output {
            Output::Opened => Input::Parts(vec![(body_id(7), 100)]),
            Output::LookBack { lane, number } => Input::Reach(lane, self.reach(lane, number, script)),
            Output::ListIds { lane, after, max } => {
                let from = after.saturating_add(1);
                let last = self.state(lane).next.min(from.saturating_add(max.min(OFFER_UNITS_MAX) as u64));
                let units = (from..last).map(|number| (number, sample::id(Side::Own, lane, number)));
                Input::Ids(lane, units.collect())
            }
            Output::LookUp { lane, ids } => {
                Input::Known(lane, ids.iter().map(|id| id[15] & 1 == 0).collect())
            }
            Output::Fetch { lane, from, units_max, .. } => {
                Input::Units(lane, self.units(lane, from, units_max))
            }
            Output::Recall { lane, after, number } => {
                let deferred = vec![Rejection { number: after + 1, reason: "not now".into() }];
                Input::Applied { lane, number, applied: Applied { refused: Vec::new(), deferred } }
            }
            Output::ListBodies { max } => {
                Input::BodiesWaiting(self.waiting.iter().copied().take(max).collect())
            }
            other => {
                self.keep(other);
                return None;
            }
        };
        if self.liar && script.rarely() {
            self.lied = true;
            return match right {
                Input::Units(lane, units) => Some(Input::Units(lane, altered(lane, units, script))),
                Input::Ids(lane, _) => Some(Input::Ids(lane, vec![(u64::MAX, [0; 16])])),
                Input::Known(lane, mut bits) => {
                    bits.push(true);
                    Some(Input::Known(lane, bits))
                }
                Input::BodiesWaiting(_) => Some(Input::BodiesWaiting(vec![body_id(1); 9])),
                // No answer at all.
                _ => None,
            };
        }
        Some(right)
    }

    fn keep(&mut self, output: Output) {
        match output {
            Output::Remember(_) | Output::PairedWith(..) => self.asks.push_back(Ask::Remember),
            Output::Adopt(_) => {
                for state in &mut self.lanes {
                    state.received = Position::default();
                    (state.rebase, state.partner_generation) = (Rebase::Any, 0);
                }
                self.asks.push_back(Ask::Remember);
            }
            Output::RememberKey(_) => self.asks.push_back(Ask::RememberKey),
            Output::PairedBy(_) => self.asks.push_back(Ask::Welcome),
            Output::Settle { lane, received, settling } => {
                if let Settling::Renumber { held, after, .. } = settling {
                    let asked = self.state(lane).next - after;
                    assert!(held.len() as u64 <= asked, "more units are held than there were");
                }
                self.asks.push_back(Ask::Settle { lane, received });
            }
            Output::Apply { lane, units, position, .. } => {
                let from = units.first().map_or(0, |unit| unit.number);
                self.asks.push_back(Ask::Apply { lane, from, number: position.number });
            }
            Output::BodyHeld(held) => self.asks.push_back(Ask::Number(held.unit)),
            Output::SendBody { unit, .. } => self.sending.push_back(unit),
            Output::Confirmed(confirmed) => {
                let state = &mut self.lanes[usize::from(confirmed.lane.index())];
                state.confirmed = confirmed.position;
            }
            _ => {}
        }
    }

    fn units(&self, lane: Lane, from: u64, max: usize) -> Vec<Unit> {
        let end = self.state(lane).next.min(from.saturating_add(max as u64));
        (from..end).map(|number| sample::unit(Side::Own, lane, number)).collect()
    }

    fn reach(&self, lane: Lane, number: u64, script: &mut Script<'_>) -> Reach {
        match script.byte() {
            0..128 => Reach::From(sample::position(Side::Own, lane, number)),
            128..192 => {
                Reach::From(sample::position(Side::Own, lane, number.saturating_sub(script.byte().into())))
            }
            192..224 => Reach::Unproved,
            224.. => Reach::Gone,
        }
    }

    /// The oldest of what was to be made durable is.
    pub fn answer_oldest(&mut self) -> Option<Input> {
        self.asks.pop_front().map(|ask| self.answered(ask, 0))
    }

    /// Something that was to be made durable is; on one lane in order, else in any order.
    pub fn answer(&mut self, script: &mut Script<'_>) -> Option<Input> {
        if self.asks.is_empty() {
            return None;
        }
        let chosen = usize::from(script.byte()) % self.asks.len();
        let lane_of = |ask: &Ask| match ask {
            Ask::Apply { lane, .. } => Some(*lane),
            _ => None,
        };
        let lane = lane_of(&self.asks[chosen]);
        // One commit may answer for several applies of its lane.
        let earlier = |(at, ask): (usize, &Ask)| at < chosen && lane.is_some() && lane_of(ask) == lane;
        let covered: Vec<usize> =
            self.asks.iter().enumerate().filter(|found| earlier(*found)).map(|(at, _)| at).collect();
        let mut ask = self.asks.remove(chosen)?;
        for at in covered.into_iter().rev() {
            if let (Some(Ask::Apply { from: first, .. }), Ask::Apply { from, .. }) =
                (self.asks.remove(at), &mut ask)
            {
                *from = first;
            }
        }
        Some(self.answered(ask, script.byte()))
    }

    fn answered(&mut self, ask: Ask, how: u8) -> Input {
        match ask {
            Ask::RememberKey => Input::KeyRemembered,
            Ask::Remember => Input::Remembered { lanes: Box::new(self.lanes) },
            Ask::Welcome => Input::Welcome { welcome: b"welcome".to_vec(), lanes: Box::new(self.lanes) },
            Ask::Settle { lane, received } => {
                let state = &mut self.lanes[usize::from(lane.index())];
                let last = state.next.saturating_sub(1);
                let rebase = last > received.number;
                let position = if rebase { sample::position(Side::Own, lane, last) } else { received };
                state.confirmed = position;
                state.next = position.number + 1 + u64::from(how % 8);
                Input::Settled { lane, position, rebase }
            }
            Ask::Apply { lane, from, number } => {
                let rejection = |number| vec![Rejection { number, reason: "a reason".into() }];
                let mut applied = Applied::default();
                if how & 1 != 0 {
                    applied.refused = rejection(from);
                }
                if how & 2 != 0 {
                    applied.deferred = rejection(number);
                }
                Input::Applied { lane, number, applied }
            }
            Ask::Number(unit) => {
                self.waiting.retain(|waiting| *waiting != unit);
                self.lanes[usize::from(Lane::Batch.index())].next += 1;
                Input::BodyNumbered(unit)
            }
        }
    }

    /// Something that nobody asked for, or another answer than the one that is due.
    pub fn lie(&mut self, watch: &Watch, script: &mut Script<'_>) -> Input {
        let lane = lane(script);
        match script.below(10) {
            0 => {
                let from = script.number(watch.lane(lane).sent.number.saturating_add(1));
                let end = from.saturating_add(script.below(60).into());
                let units = (from..end).map(|number| sample::unit(Side::Own, lane, number)).collect();
                Input::Units(lane, altered(lane, units, script))
            }
            1 => Input::Reach(lane, self.reach(lane, script.byte().into(), script)),
            2 => Input::Ids(lane, vec![(script.number(1), [0; 16])]),
            3 => Input::Known(lane, vec![true; script.byte().into()]),
            4 => {
                let position = sample::position(Side::Own, lane, script.byte().into());
                Input::Settled { lane, position, rebase: script.byte() & 1 == 0 }
            }
            5 => Input::Remembered { lanes: Box::new(self.lanes) },
            6 => Input::Parts(vec![(body_id(script.byte()), script.number(10)); 12]),
            7 => {
                let number = script.number(watch.lane(lane).arrived.number);
                let rejection = Rejection { number: script.number(number), reason: "a reason".into() };
                let refused = vec![rejection; usize::from(script.byte()) * 20];
                Input::Applied { lane, number, applied: Applied { refused, deferred: Vec::new() } }
            }
            8 => Input::BodiesWaiting((0..script.byte()).map(body_id).collect()),
            _ => Input::BodyNumbered(body_id(script.byte())),
        }
    }

    /// New units are numbered.
    pub fn grow(&mut self, script: &mut Script<'_>) -> Input {
        let lane = lane(script);
        let state = &mut self.lanes[usize::from(lane.index())];
        state.next = state.next.saturating_add(u64::from(script.byte()) + 1).min(u64::MAX - 1);
        Input::Wake(lane)
    }

    /// A body is sent, or breaks; one arrives.
    pub fn body(&mut self, script: &mut Script<'_>) -> Input {
        match script.below(4) {
            0 => {
                let unit = self.sending.pop_front().unwrap_or(body_id(script.byte()));
                Input::BodySent(held(unit))
            }
            1 => Input::BodyBroken(self.sending.pop_front().unwrap_or(body_id(script.byte()))),
            2 => Input::BodyStaged(held(body_id(script.byte()))),
            _ => Input::BodyNotStaged(body_id(script.byte())),
        }
    }
}

/// What a body of that unit is.
pub(super) fn held(unit: UnitId) -> Held {
    Held { unit, length: 100_000, digest: [unit[0]; 32] }
}

/// The units that were asked for, and something wrong with them.
fn altered(lane: Lane, mut units: Vec<Unit>, script: &mut Script<'_>) -> Vec<Unit> {
    let next = units.last().map_or(1, |unit| unit.number.saturating_add(1));
    match script.below(6) {
        0 => units.clear(),
        1 => {
            let end = next.saturating_add(script.byte().into());
            units.extend((next..end).map(|number| sample::unit(Side::Own, lane, number)));
        }
        2 => units.retain(|unit| unit.number % 5 != 0),
        3 => units.push(sample::large(Side::Own, lane, next)),
        4 => {
            let body = Body::Inline(Bytes::from(vec![0; 70_000]));
            units.push(Unit { body, ..sample::unit(Side::Own, lane, next) });
        }
        _ => units.reverse(),
    }
    units
}
