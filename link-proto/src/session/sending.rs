//! The outbound half of a lane: idle, sending, in doubt, stopped.
//!
//! What COMPARE decides, from the receiver's reported position:
//!
//! | the receiver reports | means | do |
//! |---|---|---|
//! | exactly what was confirmed, chains equal | the rest was not stored | RESUME there; the same numbers again |
//! | above it, below the next number | in doubt | recompute the chain up to it: equal, RESUME there and its CONFIRMED comes again; not equal, stop |
//! | exactly what was confirmed, chains differ | corruption or forgery | stop |
//! | below it, same generation | a snapshot was put back | stop (and both mail lanes) |
//! | below it, higher generation | the receiver was restored | stop (replay is not in this version) |
//! | at or above the next number | the sender was restored | stop |
//!
//! Several batches are in flight, within a window of batches and bytes. A batch is what waits now, at
//! most the limits of `unit`: a lone unit leaves at once, and while confirms are on their way the
//! next batch fills. A CONFIRMED covers one or more whole batches; its chain digest must be the one
//! that this side computed, or the lane stops and the node keeps its copies.

use std::collections::VecDeque;

use super::{Channel, LaneView, Output, Outputs, SessionError};
use crate::frame::{Batch, CompareLane, Confirmed, Frame, Stop, raw_bytes};
use crate::unit::{
    BATCH_BYTES_MAX, BATCH_UNITS_MAX, HEAD_BYTES_MAX, INLINE_BODY_BYTES_MAX, Lane, Position, Unit,
};

/// How much of a lane may be sent before it is confirmed. Both ends know it: the sender keeps to it,
/// the receiver holds the sender to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Batches in flight.
    pub batches: usize,
    /// Another batch may leave while fewer bytes than this are in flight.
    pub bytes: usize,
}

impl Window {
    /// The window of a lane. `service` and `event` have their own, so that a flood of mail holds up
    /// neither a disabled user nor an outcome.
    pub const fn of(lane: Lane) -> Self {
        match lane {
            Lane::Service | Lane::Event => Self { batches: 8, bytes: 1024 * 1024 },
            Lane::Inter | Lane::Batch => Self { batches: 8, bytes: 4 * 1024 * 1024 },
        }
    }
}

/// What COMPARE means for the outbound half of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on after what was confirmed.
    Resume,
    /// In doubt up to this position.
    Check(Position),
    /// Stand still.
    Stop(Stop),
}

/// The table above. `raised`: the receiver's generation rose since the last contact.
pub(super) fn verdict(mine: &CompareLane, received: Position, raised: bool) -> Verdict {
    let confirmed = mine.confirmed;
    if received.number >= mine.next {
        Verdict::Stop(Stop::SenderRestored)
    } else if received.number < confirmed.number {
        Verdict::Stop(if raised { Stop::ReceiverRestored } else { Stop::SnapshotPutBack })
    } else if received.number > confirmed.number {
        Verdict::Check(received)
    } else if received.chain == confirmed.chain {
        Verdict::Resume
    } else {
        Verdict::Stop(Stop::Differs)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before COMPARE.
    Closed,
    /// In doubt: recomputing the chain up to what the receiver reports.
    Checking(Position),
    /// Idle or sending.
    Flowing,
    Stopped(Stop),
}

/// A batch that is not confirmed yet.
#[derive(Clone, Copy, Debug)]
struct Flight {
    end: Position,
    bytes: usize,
}

/// The outbound half of a lane.
#[derive(Debug)]
pub(super) struct Sender {
    lane: Lane,
    window: Window,
    state: State,
    confirmed: u64,
    /// The position after the last unit sent (or recomputed).
    sent: Position,
    in_flight: VecDeque<Flight>,
    bytes_in_flight: usize,
    /// A fetch is asked for and not answered.
    fetching: bool,
    /// There may be units that were not fetched.
    more: bool,
    /// A CONFIRMED that came while the chain was being recomputed.
    early: Option<Confirmed>,
}

impl Sender {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            lane,
            window: Window::of(lane),
            state: State::Closed,
            confirmed: 0,
            sent: Position::default(),
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            fetching: false,
            more: true,
            early: None,
        }
    }

    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    pub(super) fn view(&self, view: &mut LaneView) {
        (view.confirmed, view.sent, view.in_flight) =
            (self.confirmed, self.sent.number, self.in_flight.len());
        view.stopped_out = if let State::Stopped(why) = self.state { Some(why) } else { None };
    }

    /// COMPARE is complete.
    pub(super) fn open(&mut self, confirmed: Position, verdict: Verdict, outputs: &mut Outputs) {
        self.confirmed = confirmed.number;
        self.sent = confirmed;
        match verdict {
            Verdict::Resume => self.resume(outputs),
            Verdict::Check(received) => {
                self.state = State::Checking(received);
                self.pump(outputs);
            }
            Verdict::Stop(why) => self.stop(why, outputs),
        }
    }

    /// Stands still, tells the partner and the operator; once.
    pub(super) fn stop(&mut self, why: Stop, outputs: &mut Outputs) {
        if matches!(self.state, State::Stopped(_)) {
            return;
        }
        self.state = State::Stopped(why);
        outputs.push_back(Output::Send(Channel::Lane(self.lane), Frame::Stopped(why)));
        outputs.push_back(Output::Stopped { lane: self.lane, outbound: true, why });
    }

    /// New units wait.
    pub(super) fn wake(&mut self, outputs: &mut Outputs) {
        self.more = true;
        self.pump(outputs);
    }

    /// The units that were asked for.
    pub(super) fn units(&mut self, units: Vec<Unit>, outputs: &mut Outputs) -> Result<(), SessionError> {
        self.fetching = false;
        match self.state {
            State::Checking(until) => self.check(&units, until, outputs)?,
            State::Flowing if !units.is_empty() => {
                self.more = true;
                self.send(units, outputs)?;
            }
            State::Flowing | State::Closed | State::Stopped(_) => {}
        }
        self.pump(outputs);
        Ok(())
    }

    /// The partner says that its commit is durable.
    pub(super) fn confirmed(
        &mut self,
        confirmed: Confirmed,
        outputs: &mut Outputs,
    ) -> Result<(), SessionError> {
        match self.state {
            State::Closed => return Err(self.violation("a confirm before its lane began")),
            State::Stopped(_) => return Ok(()),
            State::Checking(_) if self.early.is_some() => {
                return Err(self.violation("two confirms before its lane resumed"));
            }
            State::Checking(_) => {
                self.early = Some(confirmed);
                return Ok(());
            }
            State::Flowing => {}
        }
        let Confirmed { position, applied, .. } = &confirmed;
        if position.number <= self.confirmed {
            return Err(self.violation("a confirm at or below an earlier one"));
        }
        let Some(index) = self.in_flight.iter().position(|flight| flight.end.number == position.number)
        else {
            return Err(self.violation("a confirm for what was not sent, or for a part of a batch"));
        };
        let range = self.confirmed + 1..=position.number;
        if applied.refused.iter().chain(&applied.deferred).any(|one| !range.contains(&one.number)) {
            return Err(self.violation("a rejection of a unit that the confirm does not cover"));
        }
        if self.in_flight[index].end.chain != position.chain {
            self.stop(Stop::Differs, outputs);
            return Ok(());
        }
        self.bytes_in_flight -= self.in_flight.drain(..=index).map(|flight| flight.bytes).sum::<usize>();
        self.confirmed = position.number;
        outputs.push_back(Output::Confirmed(confirmed));
        self.pump(outputs);
        Ok(())
    }

    fn resume(&mut self, outputs: &mut Outputs) {
        self.state = State::Flowing;
        outputs.push_back(Output::Send(Channel::Lane(self.lane), Frame::Resume(self.sent)));
        self.pump(outputs);
    }

    /// Asks for the next units, if there is room for them.
    fn pump(&mut self, outputs: &mut Outputs) {
        let Some(from) = self.sent.number.checked_add(1) else { return };
        let units_max = match self.state {
            State::Checking(until) => until.number.saturating_sub(self.sent.number),
            State::Flowing if self.more && self.has_room() => u64::MAX,
            State::Flowing | State::Closed | State::Stopped(_) => return,
        };
        if self.fetching {
            return;
        }
        self.fetching = true;
        self.more = false;
        let units_max = usize::try_from(units_max).unwrap_or(BATCH_UNITS_MAX).min(BATCH_UNITS_MAX);
        outputs.push_back(Output::Fetch { lane: self.lane, from, units_max, bytes_max: BATCH_BYTES_MAX });
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.window.batches && self.bytes_in_flight < self.window.bytes
    }

    /// Recomputes the chain over the next units in doubt.
    fn check(&mut self, units: &[Unit], until: Position, outputs: &mut Outputs) -> Result<(), SessionError> {
        if units.is_empty() {
            return Err(self.store("units that are in doubt are not there"));
        }
        self.advance(units)?;
        if self.sent.number > until.number {
            return Err(self.store("more units than were asked for"));
        }
        if self.sent.number < until.number {
            return Ok(());
        }
        if self.sent.chain != until.chain {
            self.stop(Stop::Differs, outputs);
            return Ok(());
        }
        self.in_flight.push_back(Flight { end: until, bytes: 0 });
        self.more = true;
        self.resume(outputs);
        match self.early.take() {
            Some(confirmed) => self.confirmed(confirmed, outputs),
            None => Ok(()),
        }
    }

    fn send(&mut self, units: Vec<Unit>, outputs: &mut Outputs) -> Result<(), SessionError> {
        let bytes = raw_bytes(&units);
        if units.len() > BATCH_UNITS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(self.store("more units or bytes than were asked for"));
        }
        self.advance(&units)?;
        self.in_flight.push_back(Flight { end: self.sent, bytes });
        self.bytes_in_flight += bytes;
        let batch = Batch { units, chain: self.sent.chain };
        outputs.push_back(Output::Send(Channel::Lane(self.lane), Frame::Batch(batch)));
        Ok(())
    }

    /// Moves `sent` over units that follow it.
    fn advance(&mut self, units: &[Unit]) -> Result<(), SessionError> {
        for unit in units {
            if self.sent.number.checked_add(1) != Some(unit.number) {
                return Err(self.store("a gap in the numbers"));
            }
            if unit.head.len() > HEAD_BYTES_MAX || inline_bytes(unit) > INLINE_BODY_BYTES_MAX {
                return Err(self.store("a unit over the link's limits"));
            }
            self.sent = self.sent.after(unit);
        }
        Ok(())
    }

    fn violation(&self, what: &'static str) -> SessionError {
        SessionError::Violation { lane: self.lane, what }
    }

    fn store(&self, what: &'static str) -> SessionError {
        SessionError::Store { lane: self.lane, what }
    }
}

fn inline_bytes(unit: &Unit) -> usize {
    raw_bytes(std::slice::from_ref(unit)) - unit.head.len()
}
