//! Large bodies on their way out: which ones travel, and what became of them.
//!
//! At most [`BODIES_MAX`] travel at once, each on a stream of its own, which the driver reads and
//! writes. A unit gets its number only when the partner holds its body, so a body in transfer holds up
//! no lane. The partner's claim to hold one counts only if length and digest are those that were sent.
//! A body that could not be taken is offered again after [`BODY_RETRY`], and none travels while the
//! `batch` lane has no credit: a full disk at the receiver neither ends the session nor makes the sender
//! spin. What is left of a body from an earlier connection is told by the receiver when the session
//! opens, and the body goes on from there.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Output, Outputs, SessionError};
use crate::frame::Held;
use crate::unit::UnitId;

/// Bodies that travel at once, per direction.
pub const BODIES_MAX: usize = 4;
/// How long a body that could not be taken rests before it is offered again.
pub const BODY_RETRY: Duration = Duration::from_secs(30);
/// Parts of bodies that are kept for the next connection.
pub const PARTS_MAX: usize = 8;
/// While so many bodies rest no other is offered: a receiver that takes none would be sent the beginning of each in turn.
const RESTING_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Sending,
    Sent(Held),
    Numbering,
}

#[derive(Debug)]
pub(super) struct Bodies {
    travelling: Vec<(UnitId, Step)>,
    /// What the partner holds of bodies from earlier connections.
    parts: Vec<(UnitId, u64)>,
    /// The partner takes no more for now.
    paused: bool,
    /// Bodies that failed, with the time at which they are offered again, in that order.
    resting: VecDeque<(UnitId, Duration)>,
    /// A list is asked for and not answered.
    listing: bool,
    /// There may be bodies that were not listed.
    more: bool,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self {
            travelling: Vec::new(),
            parts: Vec::new(),
            // Until the partner's first CREDIT for the batch lane.
            paused: true,
            resting: VecDeque::new(),
            listing: false,
            more: false,
        }
    }

    pub(super) fn wake(&mut self, now: Duration, outputs: &mut Outputs) {
        self.more = true;
        self.tick(now, outputs);
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.resting.front().map(|(_, until)| *until)
    }

    /// The partner holds the first `length` bytes of a body. It keeps a few, and says so once each.
    pub(super) fn part(&mut self, unit: UnitId, length: u64) -> Result<(), SessionError> {
        if self.parts.len() >= PARTS_MAX {
            return Err(SessionError::Unexpected("BODY PART"));
        }
        self.parts.push((unit, length));
        Ok(())
    }

    /// The partner takes more, or no more.
    pub(super) fn pause(&mut self, paused: bool, now: Duration, outputs: &mut Outputs) {
        if self.paused != paused {
            self.paused = paused;
            self.tick(now, outputs);
        }
    }

    /// Rested bodies are free again; asks for a list if there is room for one.
    pub(super) fn tick(&mut self, now: Duration, outputs: &mut Outputs) {
        while self.resting.pop_front_if(|(_, until)| *until <= now).is_some() {
            self.more = true;
        }
        let may_offer = self.travelling.len() < BODIES_MAX && self.resting.len() < RESTING_MAX;
        if self.more && !self.listing && !self.paused && may_offer {
            self.more = false;
            self.listing = true;
            outputs.push_back(Output::ListBodies { max: BODIES_MAX + self.resting.len() });
        }
    }

    /// The oldest waiting bodies, among them those that travel or rest already.
    pub(super) fn listed(&mut self, units: Vec<UnitId>, outputs: &mut Outputs) {
        self.listing = false;
        for unit in units {
            let busy = self.find(unit).is_some() || self.resting.iter().any(|(resting, _)| *resting == unit);
            if !busy && self.travelling.len() < BODIES_MAX {
                self.travelling.push((unit, Step::Sending));
                let part = self.parts.iter().position(|(part, _)| *part == unit);
                let from = part.map_or(0, |part| self.parts.swap_remove(part).1);
                outputs.push_back(Output::SendBody { unit, from });
            }
        }
    }

    /// All of a body was read; its trailer is about to leave.
    pub(super) fn sent(&mut self, held: Held) {
        if let Some(step @ Step::Sending) = self.find(held.unit) {
            *step = Step::Sent(held);
        }
    }

    /// The partner says that it holds a body.
    pub(super) fn held(&mut self, held: Held, outputs: &mut Outputs) -> Result<(), SessionError> {
        let step = self.find(held.unit).ok_or(SessionError::BodyNotSent)?;
        if *step != Step::Sent(held) {
            return Err(SessionError::BodyNotSent);
        }
        *step = Step::Numbering;
        outputs.push_back(Output::BodyHeld(held));
        Ok(())
    }

    /// A body could not be read, sent or taken; it rests. Both ends may find that out, in any order.
    pub(super) fn failed(&mut self, unit: UnitId, now: Duration, outputs: &mut Outputs) {
        if !matches!(self.find(unit), Some(Step::Sending | Step::Sent(_))) {
            return;
        }
        self.forget(unit);
        self.resting.push_back((unit, now + BODY_RETRY));
        self.wake(now, outputs);
    }

    /// The unit has its number; there is room for another body.
    pub(super) fn numbered(&mut self, unit: UnitId, now: Duration, outputs: &mut Outputs) {
        self.forget(unit);
        self.wake(now, outputs);
    }

    fn find(&mut self, unit: UnitId) -> Option<&mut Step> {
        self.travelling.iter_mut().find(|(travelling, _)| *travelling == unit).map(|(_, step)| step)
    }

    fn forget(&mut self, unit: UnitId) {
        self.travelling.retain(|(travelling, _)| *travelling != unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_bodies_wait_a_partner_that_takes_none_is_offered_a_bounded_number_in_half_a_minute() {
        let waiting: Vec<UnitId> = (0..200).map(|number| [number; 16]).collect();
        let (mut bodies, mut outputs) = (Bodies::new(), Outputs::default());
        bodies.pause(false, Duration::ZERO, &mut outputs);
        let mut sent = [0, 0];
        for (half_minute, sent) in sent.iter_mut().enumerate() {
            let now = BODY_RETRY * u32::try_from(half_minute).expect("a few");
            bodies.wake(now, &mut outputs);
            while let Some(output) = outputs.pop_front() {
                match output {
                    Output::ListBodies { max } => {
                        bodies.listed(waiting.iter().take(max).copied().collect(), &mut outputs);
                    }
                    Output::SendBody { unit, .. } => {
                        *sent += 1;
                        assert!(*sent < 1_000, "it ends");
                        bodies.failed(unit, now, &mut outputs);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        // Those that travel as the last place is taken rest, too.
        assert!(sent.iter().all(|sent| (RESTING_MAX..RESTING_MAX + BODIES_MAX).contains(sent)), "{sent:?}");
    }
}
