//! What a session may do, kept beside it: an account of its own, by which every output is judged.

use std::collections::{BTreeMap, VecDeque};

use link_proto::frame::{Batch, Confirmed, Credit, Frame, OFFER_UNITS_MAX, Resume};
use link_proto::host::LaneState;
use link_proto::session::{BODIES_MAX, Channel, Input, Output, Session, Window};
use link_proto::unit::{BATCH_BYTES_MAX, BATCH_UNITS_MAX, Body, Lane, Position, Unit, UnitId};

/// What a session was just given, as far as it decides what may come of it.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    Compare,
    Batch(Lane),
    Resume(Lane, Resume),
    Stopped(Lane),
    Applied(Lane, u64),
    /// A CONFIRMED, or units by which one that came early is judged.
    Confirmed(Lane),
    Known(Lane),
    Parts,
    Other,
}

/// The state of a large body on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Travelling {
    Sending,
    Sent(link_proto::frame::Held),
    Numbering,
}

/// One lane's account.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneWatch {
    /// Inbound: the partner's RESUME was taken; it stands still.
    pub resumed_in: bool,
    pub stopped_in: bool,
    /// Inbound: after the last unit that was handed over to be applied.
    pub arrived: Position,
    /// Where the node stands once it has applied what it was asked to.
    stands: Position,
    /// Inbound: the last number said to be durable.
    durable: u64,
    /// Inbound: commits asked for, with units and bytes of each.
    pub asked: VecDeque<(Position, u64, u64)>,
    granted: Credit,
    taken: Credit,
    done: Credit,
    /// Outbound: its RESUME was sent; it stands still; the node settles it.
    pub resumed_out: bool,
    pub stopped_out: bool,
    settling: bool,
    /// Outbound: after the last unit sent, and where each unconfirmed batch ends.
    pub sent: Position,
    pub ends: VecDeque<Position>,
    confirmed: u64,
    /// Outbound: what the partner takes, and what it was sent of it.
    pub credit: Credit,
    spent: Credit,
    /// Ids that were last offered.
    pub offered: usize,
}

/// The account of a session.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub lanes: [LaneWatch; 4],
    /// The node was asked to take or to remember the partner.
    pub accepted: bool,
    pub opened: bool,
    began: bool,
    travelling: BTreeMap<UnitId, Travelling>,
    /// Something that must not be among the outputs of an error.
    binding: bool,
}

fn bytes_of(units: &[Unit]) -> u64 {
    let of = |unit: &Unit| match &unit.body {
        Body::Inline(bytes) => unit.head.len() + bytes.len(),
        _ => unit.head.len(),
    };
    units.iter().map(of).sum::<usize>() as u64
}

fn follow(mut position: Position, units: &[Unit]) -> Position {
    for unit in units {
        assert_eq!(Some(unit.number), position.number.checked_add(1), "a gap");
        position = position.after(unit);
    }
    position
}

impl Watch {
    pub fn lane(&self, lane: Lane) -> &LaneWatch {
        &self.lanes[usize::from(lane.index())]
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneWatch {
        &mut self.lanes[usize::from(lane.index())]
    }

    /// A body that was sent to its end and is not held yet.
    pub fn sent_body(&self, after: u8) -> Option<link_proto::frame::Held> {
        let sent = |state: &Travelling| if let Travelling::Sent(held) = state { Some(*held) } else { None };
        self.travelling.values().filter_map(sent).nth(after.into())
    }

    /// Takes down what the session is about to be given. `mine` is where the node's lanes stand.
    pub fn before(&mut self, input: &Input, mine: &[LaneState; 4]) -> Cause {
        self.binding = false;
        match input {
            Input::Frame(Channel::Lane(lane), Frame::Batch(_)) => Cause::Batch(*lane),
            Input::Frame(Channel::Lane(lane), Frame::Resume(resume)) => Cause::Resume(*lane, *resume),
            Input::Frame(Channel::Lane(lane), Frame::Stopped(_)) => Cause::Stopped(*lane),
            Input::Frame(Channel::Control, Frame::Compare(_)) => Cause::Compare,
            Input::Frame(Channel::Control, Frame::Confirmed(confirmed)) => {
                let lane = self.lane_mut(confirmed.lane);
                // Of what is confirmed already it brings nothing but its credit, or ends the session.
                if confirmed.position.number <= lane.confirmed {
                    lane.credited(confirmed.credit);
                }
                Cause::Confirmed(confirmed.lane)
            }
            Input::Frame(Channel::Control, Frame::Credit(lane, credit)) => {
                self.lane_mut(*lane).credited(*credit);
                Cause::Other
            }
            Input::Units(lane, _) => Cause::Confirmed(*lane),
            Input::Applied { lane, number, .. } => Cause::Applied(*lane, *number),
            Input::Known(lane, _) => Cause::Known(*lane),
            Input::Parts(_) if self.opened && !self.began => {
                self.began = true;
                for (lane, mine) in self.lanes.iter_mut().zip(mine) {
                    (lane.arrived, lane.stands, lane.durable) =
                        (mine.received, mine.received, mine.received.number);
                    lane.confirmed = mine.confirmed.number;
                }
                Cause::Parts
            }
            Input::Settled { lane, position, .. } => {
                let lane = self.lane_mut(*lane);
                if std::mem::take(&mut lane.settling) {
                    lane.confirmed = position.number;
                }
                Cause::Other
            }
            Input::BodySent(held) => {
                if let Some(state @ Travelling::Sending) = self.travelling.get_mut(&held.unit) {
                    *state = Travelling::Sent(*held);
                }
                Cause::Other
            }
            Input::BodyBroken(unit) | Input::Frame(Channel::Control, Frame::BodyFailed(unit)) => {
                if self.travelling.get(unit).is_some_and(|state| *state != Travelling::Numbering) {
                    self.travelling.remove(unit);
                }
                Cause::Other
            }
            Input::BodyNumbered(unit) => {
                self.travelling.remove(unit);
                Cause::Other
            }
            _ => Cause::Other,
        }
    }

    /// Judges one output.
    pub fn output(&mut self, cause: &Cause, output: &Output) {
        match output {
            Output::Send(channel, frame) => self.sent(cause, *channel, frame),
            Output::Remember(_) | Output::PairedBy(_) | Output::PairedWith(..) | Output::Adopt(_) => {
                assert!(!std::mem::replace(&mut self.accepted, true), "the partner is taken twice");
                assert!(!self.opened);
            }
            Output::RememberKey(partner) => {
                assert!(self.accepted && !self.opened && partner.next_key.is_some());
            }
            Output::Opened => {
                assert!(matches!(cause, Cause::Compare), "opened by {cause:?}");
                assert!(!std::mem::replace(&mut self.opened, true), "opened twice");
                self.binding = true;
            }
            Output::Apply { lane, units, from, position } => {
                assert!(matches!(cause, Cause::Batch(batch) if batch == lane), "units out of {cause:?}");
                self.binding = true;
                self.lane_mut(*lane).apply(units, *from, *position);
            }
            Output::Recall { lane, after, number } => {
                assert!(matches!(cause, Cause::Parts));
                let lane = self.lane_mut(*lane);
                assert_eq!(*number, lane.arrived.number);
                assert!(after < number);
                lane.asked.push_back((lane.arrived, 0, 0));
            }
            Output::Confirmed(confirmed) => {
                assert!(matches!(cause, Cause::Confirmed(lane) if *lane == confirmed.lane), "by {cause:?}");
                self.binding = true;
                self.lane_mut(confirmed.lane).was_confirmed(confirmed);
            }
            Output::Rebased { lane, from, to } => {
                assert!(matches!(cause, Cause::Resume(resumed, resume) if resumed == lane && resume.rebase));
                assert!(*from == self.lane(*lane).arrived.number && from <= to);
            }
            Output::Settle { lane, .. } => {
                let lane = self.lane_mut(*lane);
                assert!(!lane.resumed_out && !std::mem::replace(&mut lane.settling, true));
            }
            Output::Fetch { lane, from, units_max, bytes_max } => {
                assert!((1..=BATCH_UNITS_MAX).contains(units_max) && *bytes_max <= BATCH_BYTES_MAX);
                let lane = self.lane(*lane);
                assert!(!lane.resumed_out || Some(*from) == lane.sent.number.checked_add(1));
            }
            Output::ListBodies { max } => assert!(*max <= BODIES_MAX + 64, "asks for {max} bodies"),
            Output::SendBody { unit, .. } => {
                let old = self.travelling.insert(*unit, Travelling::Sending);
                assert!(old.is_none() && self.travelling.len() <= BODIES_MAX, "a body too many");
            }
            Output::BodyHeld(held) => {
                let state = self.travelling.insert(held.unit, Travelling::Numbering);
                assert_eq!(state, Some(Travelling::Sent(*held)), "a body that was not sent like that");
                self.binding = true;
            }
            Output::LookUp { .. }
            | Output::LookBack { .. }
            | Output::Lacks { .. }
            | Output::ListIds { .. } => {}
            Output::Compared { .. } | Output::Stopped { .. } => {}
        }
        let early = matches!(
            output,
            Output::Send(Channel::Control, _)
                | Output::Remember(_)
                | Output::RememberKey(_)
                | Output::PairedBy(_)
                | Output::PairedWith(..)
                | Output::Adopt(_)
                | Output::Opened
                // Settling a lane asks and answers what is there.
                | Output::Send(_, Frame::Offer(_) | Frame::Known(_))
                // Bodies wait for credit, and for nothing else.
                | Output::ListBodies { .. }
                | Output::SendBody { .. }
                | Output::BodyHeld(_)
        );
        assert!(early || self.began, "before the lanes began: {output:?}");
    }

    fn sent(&mut self, cause: &Cause, channel: Channel, frame: &Frame) {
        match (channel, frame) {
            (Channel::Control, Frame::Hello(_) | Frame::Refused(_) | Frame::Welcome(_)) => {
                assert!(!self.opened, "{} in an open session", frame.name());
            }
            // The listener's leaves with the opening.
            (Channel::Control, Frame::Compare(_)) => assert!(!self.opened),
            (Channel::Control, Frame::Confirmed(confirmed)) => {
                let durable = matches!(cause, Cause::Applied(lane, number)
                    if (*lane, *number) == (confirmed.lane, confirmed.position.number));
                assert!(durable, "CONFIRMED by {cause:?}");
                self.binding = true;
                self.lane_mut(confirmed.lane).confirm(confirmed);
            }
            (Channel::Control, Frame::Credit(lane, credit)) => self.lane_mut(*lane).grant(*lane, *credit),
            (Channel::Control, Frame::BodyPart(..)) => assert!(matches!(cause, Cause::Parts)),
            (Channel::Control, Frame::BodyHeld(_) | Frame::BodyFailed(_)) => {}
            (Channel::Lane(lane), Frame::Resume(resume)) => self.lane_mut(lane).resume(resume),
            (Channel::Lane(lane), Frame::Batch(batch)) => self.lane_mut(lane).batch(lane, batch),
            (Channel::Lane(lane), Frame::Stopped(_)) => {
                let lane = self.lane_mut(lane);
                assert!(!std::mem::replace(&mut lane.stopped_out, true), "stops twice");
            }
            (Channel::Lane(lane), Frame::Offer(ids)) => {
                let lane = self.lane_mut(lane);
                assert!(!lane.resumed_out && (1..=OFFER_UNITS_MAX).contains(&ids.len()));
                lane.offered = ids.len();
            }
            (Channel::Lane(lane), Frame::Known(_)) => {
                assert!(matches!(cause, Cause::Known(asked) if *asked == lane));
            }
            _ => panic!("{} on {channel:?}", frame.name()),
        }
    }

    /// The session took what it was given: compares what it says of itself.
    pub fn after(&mut self, cause: &Cause, session: &Session) {
        match cause {
            Cause::Resume(lane, resume) => {
                let lane = self.lane_mut(*lane);
                assert!(!std::mem::replace(&mut lane.resumed_in, true), "resumed twice");
                assert!(resume.rebase || resume.position == lane.arrived, "resumed elsewhere");
                assert!(resume.position.number >= lane.arrived.number, "resumed below");
                lane.arrived = resume.position;
            }
            Cause::Stopped(lane) => self.lane_mut(*lane).stopped_in = true,
            _ => {}
        }
        assert_eq!(session.is_open(), self.opened);
        assert!(self.opened || session.deadline().is_some(), "an opening without an end");
        for (lane, watch) in Lane::ALL.into_iter().zip(&self.lanes) {
            let view = session.lane(lane);
            assert!(view.in_flight <= Window::of(lane).batches, "{} batches in flight", view.in_flight);
            if self.began {
                assert_eq!((view.arrived, view.received), (watch.arrived.number, watch.durable));
                assert_eq!(view.stopped_in.is_some(), watch.stopped_in);
                assert_eq!(view.stopped_out.is_some(), watch.stopped_out);
            }
            if watch.resumed_out {
                let known = (watch.sent.number, watch.confirmed, watch.ends.len());
                assert_eq!((view.sent, view.confirmed, view.in_flight), known);
            }
        }
    }

    /// The session has ended with an error: nothing that binds a node was among its last words.
    pub fn ended(&self) {
        assert!(!self.binding, "an error, and yet something durable was asked for or said");
    }
}

impl LaneWatch {
    fn credited(&mut self, credit: Credit) {
        self.credit.units = self.credit.units.max(credit.units);
        self.credit.bytes = self.credit.bytes.max(credit.bytes);
    }

    fn apply(&mut self, units: &[Unit], from: Position, position: Position) {
        assert!(self.resumed_in && !self.stopped_in, "units before RESUME, or after STOPPED");
        assert!((1..=BATCH_UNITS_MAX).contains(&units.len()));
        assert_eq!(follow(self.arrived, units), position);
        assert_eq!(std::mem::replace(&mut self.stands, position), from);
        let (count, bytes) = (units.len() as u64, bytes_of(units));
        assert!(self.taken.bytes < self.granted.bytes, "more bytes than there was credit for");
        self.taken.units += count;
        self.taken.bytes += bytes;
        assert!(self.taken.units <= self.granted.units, "more units than there was credit for");
        self.arrived = position;
        self.asked.push_back((position, count, bytes));
    }

    fn confirm(&mut self, confirmed: &Confirmed) {
        let found = self.asked.iter().position(|(position, ..)| *position == confirmed.position);
        for (position, units, bytes) in self.asked.drain(..=found.expect("nobody asked for that commit")) {
            self.done.units += units;
            self.done.bytes += bytes;
            self.durable = position.number;
        }
        self.grant(confirmed.lane, confirmed.credit);
    }

    fn grant(&mut self, lane: Lane, credit: Credit) {
        let (window, done) = (Window::of(lane), self.done);
        assert!(
            credit.units >= self.granted.units && credit.bytes >= self.granted.bytes,
            "credit taken back"
        );
        assert!(credit.units <= done.units + window.units && credit.bytes <= done.bytes + window.bytes);
        self.granted = credit;
    }

    fn resume(&mut self, resume: &Resume) {
        assert!(!self.resumed_out && !self.stopped_out && !self.settling);
        self.resumed_out = true;
        self.sent = resume.position;
        // In doubt until now: its CONFIRMED is still to come.
        if self.sent.number > self.confirmed {
            self.ends.push_back(self.sent);
        }
    }

    fn batch(&mut self, lane: Lane, batch: &Batch) {
        assert!(self.resumed_out && !self.stopped_out, "units before RESUME, or after STOPPED");
        assert!((1..=BATCH_UNITS_MAX).contains(&batch.units.len()));
        let (count, bytes) = (batch.units.len() as u64, bytes_of(&batch.units));
        assert!(bytes <= BATCH_BYTES_MAX as u64);
        assert!(self.spent.bytes < self.credit.bytes, "more bytes than there is credit for");
        self.spent.units += count;
        self.spent.bytes += bytes;
        assert!(self.spent.units <= self.credit.units, "more units than there is credit for");
        self.sent = follow(self.sent, &batch.units);
        assert_eq!(self.sent.chain, batch.chain);
        self.ends.push_back(self.sent);
        assert!(self.ends.len() <= Window::of(lane).batches, "more batches than the window has");
    }

    fn was_confirmed(&mut self, confirmed: &Confirmed) {
        assert!(self.resumed_out && !self.stopped_out);
        let Confirmed { position, applied, credit, .. } = confirmed;
        let found = self.ends.iter().position(|end| end == position);
        self.ends.drain(..=found.expect("confirmed what was not sent"));
        for rejection in applied.refused.iter().chain(&applied.deferred) {
            assert!((self.confirmed + 1..=position.number).contains(&rejection.number));
        }
        self.confirmed = position.number;
        self.credited(*credit);
    }
}
