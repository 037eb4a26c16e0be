//! The inbound half of a lane: what arrived, what is durable, what is confirmed.
//!
//! A batch starts right after the last one and carries the chain digest that this side computes too;
//! a batch that does not is never applied. Several applies may wait for their commits; each commit
//! (or one commit for several) produces one CONFIRMED, in order, and nothing else does.
//!
//! When the partner has not recorded everything that is durable here, its CONFIRMED was lost: the
//! node is asked for the rejections since, and the CONFIRMED is sent again as the lane's first.

use std::collections::VecDeque;

use super::{Channel, LaneView, Output, Outputs, SessionError, Window};
use crate::frame::{Batch, CompareLane, Confirmed, Frame, REJECTIONS_MAX, Stop, raw_bytes};
use crate::host::Applied;
use crate::unit::{Lane, Position};

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
    bytes: usize,
}

/// The inbound half of a lane.
#[derive(Debug)]
pub(super) struct Receiver {
    lane: Lane,
    window: Window,
    state: State,
    /// The position after the last unit that arrived.
    arrived: Position,
    /// The last number that is durable.
    durable: u64,
    pending: VecDeque<Pending>,
    bytes_pending: usize,
}

impl Receiver {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            lane,
            window: Window::of(lane),
            state: State::Closed,
            arrived: Position::default(),
            durable: 0,
            pending: VecDeque::new(),
            bytes_pending: 0,
        }
    }

    pub(super) fn view(&self, view: &mut LaneView) {
        (view.arrived, view.received) = (self.arrived.number, self.durable);
        view.stopped_in = if let State::Stopped(why) = self.state { Some(why) } else { None };
    }

    /// COMPARE is complete: this node stands at `received`, the partner's outbound half as it says.
    pub(super) fn open(&mut self, received: Position, theirs: &CompareLane, outputs: &mut Outputs) {
        self.state = State::Waiting;
        self.arrived = received;
        self.durable = received.number;
        if theirs.confirmed.number < received.number && received.number < theirs.next {
            self.pending.push_back(Pending { position: received, bytes: 0 });
            outputs.push_back(Output::Recall {
                lane: self.lane,
                after: theirs.confirmed.number,
                number: received.number,
            });
        }
    }

    /// The partner begins.
    pub(super) fn resume(&mut self, position: Position) -> Result<(), SessionError> {
        if self.state != State::Waiting {
            return Err(SessionError::Unexpected("RESUME"));
        }
        if position != self.arrived {
            return Err(self.violation("it resumes elsewhere than where this node stands"));
        }
        self.state = State::Flowing;
        Ok(())
    }

    /// The partner stands still.
    pub(super) fn stopped(&mut self, why: Stop, outputs: &mut Outputs) -> Result<(), SessionError> {
        if matches!(self.state, State::Closed | State::Stopped(_)) {
            return Err(SessionError::Unexpected("STOPPED"));
        }
        self.state = State::Stopped(why);
        outputs.push_back(Output::Stopped { lane: self.lane, outbound: false, why });
        Ok(())
    }

    /// Units arrived.
    pub(super) fn batch(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), SessionError> {
        if self.state != State::Flowing {
            return Err(SessionError::Unexpected("BATCH"));
        }
        if self.pending.len() >= self.window.batches || self.bytes_pending >= self.window.bytes {
            return Err(self.violation("more in flight than the window allows"));
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
        let bytes = raw_bytes(&batch.units);
        self.arrived = position;
        self.bytes_pending += bytes;
        self.pending.push_back(Pending { position, bytes });
        outputs.push_back(Output::Apply { lane: self.lane, units: batch.units, position });
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
            return Err(self.store("more rejections than a CONFIRMED can list"));
        }
        let position = self.pending[index].position;
        self.bytes_pending -= self.pending.drain(..=index).map(|pending| pending.bytes).sum::<usize>();
        self.durable = number;
        let confirmed = Confirmed { lane: self.lane, position, applied };
        outputs.push_back(Output::Send(Channel::Control, Frame::Confirmed(confirmed)));
        Ok(())
    }

    fn violation(&self, what: &'static str) -> SessionError {
        SessionError::Violation { lane: self.lane, what }
    }

    fn store(&self, what: &'static str) -> SessionError {
        SessionError::Store { lane: self.lane, what }
    }
}
