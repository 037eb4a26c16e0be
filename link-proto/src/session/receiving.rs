//! The inbound half of a lane: what arrived, what is durable, what is confirmed, what is still taken.
//!
//! A batch starts right after the last one and carries the chain digest that this side computes too;
//! a batch that does not is never applied. Several applies may wait for their commits; each commit
//! (or one commit for several) produces one CONFIRMED, in order, and nothing else does.
//!
//! When the partner has not recorded everything that is durable here, its CONFIRMED was lost: the
//! node is asked for the rejections since, and the CONFIRMED is sent again as the lane's first. If they are more than it
//! holds, for the partner's store went back far, nothing is said and nothing of the lane is taken, unless the partner, told
//! by its operator to, asks by ids what is here.
//!
//! The partner may send what it has credit for, in units and bytes since the session began. A CONFIRMED
//! carries more of it, as much as was dealt with; while the node has no room there is none, and a CREDIT
//! says so once there is room again. More than was granted ends the session.

use std::collections::VecDeque;

use super::{Channel, LaneView, NUMBERS_SKIPPED_MAX, Output, Outputs, SessionError, Window};
use crate::frame::{Batch, CompareLane, Confirmed, Credit, Frame, REJECTIONS_MAX, Resume, Stop, raw_bytes};
use crate::host::Applied;
use crate::unit::{Lane, Position, UnitId};

/// OFFERs that are answered on one lane of one session: 16 million ids, as many as a safety store of 1 GiB has of the
/// smallest units.
const OFFERS_MAX: u32 = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before COMPARE.
    Closed,
    /// Before the partner's RESUME.
    Waiting,
    Flowing,
    Stopped(Stop),
}

/// A commit that is asked for and not yet durable.
#[derive(Clone, Copy, Debug)]
struct Pending {
    position: Position,
    units: u64,
    bytes: u64,
}

/// The inbound half of a lane.
#[derive(Debug)]
pub(super) struct Receiver {
    lane: Lane,
    window: Window,
    state: State,
    /// The position after the last unit that arrived.
    arrived: Position,
    /// Where the node stands once it has applied all that it was asked to.
    asked: Position,
    /// The last number that is durable.
    durable: u64,
    pending: VecDeque<Pending>,
    /// What the partner may send, what it has sent, and how much of that is dealt with.
    granted: Credit,
    taken: Credit,
    done: Credit,
    /// The node has room for more.
    room: bool,
    offers: u32,
    /// What was rejected since the partner's last record is more than can be said again.
    untold: bool,
}

impl Receiver {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            lane,
            window: Window::of(lane),
            state: State::Closed,
            arrived: Position::default(),
            asked: Position::default(),
            durable: 0,
            pending: VecDeque::new(),
            granted: Credit::default(),
            taken: Credit::default(),
            done: Credit::default(),
            room: true,
            offers: 0,
            untold: false,
        }
    }

    pub(super) fn view(&self, view: &mut LaneView) {
        (view.arrived, view.received) = (self.arrived.number, self.durable);
        view.no_room = !self.room;
        view.stopped_in = if let State::Stopped(why) = self.state { Some(why) } else { None };
    }

    /// COMPARE is complete: this node stands at `received`, the partner's outbound half as it says.
    pub(super) fn open(&mut self, received: Position, theirs: &CompareLane, outputs: &mut Outputs) {
        self.state = State::Waiting;
        (self.arrived, self.asked) = (received, received);
        self.durable = received.number;
        self.grant(outputs);
        if theirs.confirmed.number < received.number && received.number < theirs.next {
            self.pending.push_back(Pending { position: received, units: 0, bytes: 0 });
            outputs.push_back(Output::Recall {
                lane: self.lane,
                after: theirs.confirmed.number,
                number: received.number,
            });
        }
    }

    /// The node has room for more, or no more.
    pub(super) fn room(&mut self, room: bool, outputs: &mut Outputs) {
        self.room = room;
        if self.state != State::Closed {
            self.grant(outputs);
        }
    }

    /// The partner begins.
    pub(super) fn resume(&mut self, resume: Resume, outputs: &mut Outputs) -> Result<(), SessionError> {
        if self.state != State::Waiting {
            return Err(SessionError::Unexpected("RESUME"));
        }
        let Resume { position, rebase } = resume;
        // Where it has asked by ids, it knows.
        if self.untold && !rebase && self.offers == 0 {
            self.state = State::Stopped(Stop::Untold);
            outputs.push_back(Output::Stopped { lane: self.lane, outbound: false, why: Stop::Untold });
            return Ok(());
        }
        if !rebase && position != self.arrived {
            return Err(self.violation("it resumes elsewhere than where this node stands"));
        }
        let skipped = position.number.checked_sub(self.arrived.number);
        if rebase && skipped.is_none_or(|skipped| skipped > NUMBERS_SKIPPED_MAX) {
            return Err(self.violation("it begins again below where this node stands, or too far above"));
        }
        if rebase {
            let (from, to) = (self.arrived.number, position.number);
            outputs.push_back(Output::Rebased { lane: self.lane, from, to });
        }
        self.arrived = position;
        self.state = State::Flowing;
        Ok(())
    }

    /// The partner was restored, and asks what of its own is here.
    pub(super) fn offered(&mut self, ids: Vec<UnitId>, outputs: &mut Outputs) -> Result<(), SessionError> {
        self.offers += 1;
        if self.state != State::Waiting || self.offers > OFFERS_MAX {
            return Err(SessionError::Unexpected("OFFER"));
        }
        outputs.push_back(Output::LookUp { lane: self.lane, ids });
        Ok(())
    }

    /// The partner stands still.
    pub(super) fn stopped(&mut self, why: Stop, outputs: &mut Outputs) -> Result<(), SessionError> {
        if self.state == State::Stopped(Stop::Untold) {
            return Ok(());
        }
        if matches!(self.state, State::Closed | State::Stopped(_)) {
            return Err(SessionError::Unexpected("STOPPED"));
        }
        self.state = State::Stopped(why);
        outputs.push_back(Output::Stopped { lane: self.lane, outbound: false, why });
        Ok(())
    }

    /// Units arrived.
    pub(super) fn batch(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), SessionError> {
        let is_untold = self.state == State::Stopped(Stop::Untold);
        if self.state != State::Flowing && !is_untold {
            return Err(SessionError::Unexpected("BATCH"));
        }
        // It would cost no credit, and a commit.
        if batch.units.is_empty() {
            return Err(self.violation("a batch without units"));
        }
        let (units, bytes) = (batch.units.len() as u64, raw_bytes(&batch.units) as u64);
        if self.taken.units + units > self.granted.units || self.taken.bytes >= self.granted.bytes {
            return Err(self.violation("more than it has credit for"));
        }
        if is_untold {
            // The partner does not know. It is given no more credit, and finds all of this in doubt.
            self.taken.units += units;
            self.taken.bytes += bytes;
            return Ok(());
        }
        let mut position = self.arrived;
        for unit in &batch.units {
            if position.number.checked_add(1) != Some(unit.number) {
                return Err(self.violation("its numbers do not follow the last ones"));
            }
            position = position.after(unit);
        }
        if position.chain != batch.chain {
            return Err(self.violation("its chain digest is not that of its units"));
        }
        self.arrived = position;
        let from = std::mem::replace(&mut self.asked, position);
        self.taken.units += units;
        self.taken.bytes += bytes;
        self.pending.push_back(Pending { position, units, bytes });
        outputs.push_back(Output::Apply { lane: self.lane, units: batch.units, from, position });
        Ok(())
    }

    /// Everything up to `number` is durable.
    pub(super) fn applied(
        &mut self,
        number: u64,
        applied: Applied,
        outputs: &mut Outputs,
    ) -> Result<(), SessionError> {
        let Some(index) = self.pending.iter().position(|pending| pending.position.number == number) else {
            return Err(self.store("a commit that was not asked for"));
        };
        if applied.refused.len() + applied.deferred.len() > REJECTIONS_MAX {
            if self.state != State::Waiting {
                return Err(self.store("more rejections than a CONFIRMED can list"));
            }
            self.pending.drain(..=index);
            self.untold = true;
            return Ok(());
        }
        let position = self.pending[index].position;
        for pending in self.pending.drain(..=index) {
            self.done.units += pending.units;
            self.done.bytes += pending.bytes;
        }
        self.durable = number;
        self.raise();
        let confirmed = Confirmed { lane: self.lane, position, applied, credit: self.granted };
        outputs.push_back(Output::Send(Channel::Control, Frame::Confirmed(confirmed)));
        Ok(())
    }

    /// Grants what there is room for; whether that is more than before.
    fn raise(&mut self) -> bool {
        let before = self.granted;
        if self.room {
            self.granted.units = self.done.units.saturating_add(self.window.units);
            self.granted.bytes = self.done.bytes.saturating_add(self.window.bytes);
        }
        self.granted != before
    }

    fn grant(&mut self, outputs: &mut Outputs) {
        if self.raise() {
            let credit = Frame::Credit(self.lane, self.granted);
            outputs.push_back(Output::Send(Channel::Control, credit));
        }
    }

    fn violation(&self, what: &'static str) -> SessionError {
        SessionError::Violation { lane: self.lane, what }
    }

    fn store(&self, what: &'static str) -> SessionError {
        SessionError::Store { lane: self.lane, what }
    }
}
