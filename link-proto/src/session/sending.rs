//! The outbound half of a lane: idle, sending, in doubt, being settled, stopped.
//!
//! What COMPARE decides, from the receiver's reported position:
//!
//! | the receiver reports | means | do |
//! |---|---|---|
//! | exactly what was confirmed, chains equal | the rest was not stored | RESUME there; the same numbers again |
//! | the same, higher generation, and there is a rest | the receiver was restored, and may have had the rest before | replay it under new numbers |
//! | above it, below the next number | in doubt | recompute the chain up to it: equal, RESUME there and its CONFIRMED comes again; not equal, as in the last row but one if this node was restored, else stop |
//! | the same, higher generation, chains equal, and there is a rest | both | OFFER the unconfirmed ids, number anew what is not KNOWN |
//! | exactly what was confirmed, chains differ | corruption or forgery | stop |
//! | more above the next number than anybody has sent | forgery | stop, whatever was decided |
//! | below it, higher generation | the receiver was restored | recompute the chain up to it within the safety store, then replay under new numbers; older than that, stop |
//! | below it, same generation | a snapshot was put back | stop (and both mail lanes) |
//! | at or above the next number, this node's generation was raised | this node was restored | OFFER the unconfirmed ids, number anew what is not KNOWN |
//! | the same, generation as it was | a snapshot was put back here | stop (and both mail lanes) |
//! | anything, higher generation, this node has ever been restored, and its chain is not this node's | the receiver is of a life of this node that is lost, and no number shows what it lacks | OFFER all ids of the safety store and those behind it, number anew what is not KNOWN |
//! | where a rebase left it | its RESUME was lost | RESUME with the same rebase |
//! | the same, higher generation, and there is a rest | the receiver was restored again | replay it under new numbers, unless some of it is gone from the safety store: stop |
//! | anything, after an operator's decision | | replay or number anew, without asking for a proof |
//!
//! Generations are compared with those under which the lane was last settled, which the node stores
//! with the lane; so a session that is cut between HELLO and RESUME forgets nothing.
//!
//! A unit that goes again under its own number is not looked at again by its node, and one under a new number is
//! ([`Settling`]). What a restored receiver lacks has to be: it may have delivered it, and the word of that, on another
//! lane, may have come before the CONFIRMED. At first contact the receiver can have had nothing.
//!
//! Several batches are in flight, within a window of batches and the receiver's credit. A batch is what
//! waits now, at most the limits of `unit`: a lone unit leaves at once, and while confirms are on their
//! way the next batch fills. A CONFIRMED covers one or more whole batches; its chain digest must be the
//! one that this side computed, or the lane stops and the node keeps its copies.

use std::collections::VecDeque;

use super::{Channel, LaneView, NUMBERS_SKIPPED_MAX, Output, Outputs, SessionError};
use crate::frame::{Batch, Confirmed, Credit, Frame, OFFER_UNITS_MAX, Resume, Stop, raw_bytes};
use crate::host::{GENERATION_FIRST, LaneState, Reach, Rebase, Settling};
use crate::unit::{
    BATCH_BYTES_MAX, BATCH_UNITS_MAX, HEAD_BYTES_MAX, INLINE_BODY_BYTES_MAX, Lane, Position, Unit, UnitId,
};

/// How much of a lane may be under way at once. The receiver grants it as credit, and holds the sender
/// to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Batches in flight; the sender's own rule, which lets batches fill.
    pub batches: usize,
    /// Units in flight.
    pub units: u64,
    /// Bytes of heads and inline bodies in flight.
    pub bytes: u64,
}

impl Window {
    /// The window of a lane. `service` and `event` have their own, so that a flood of mail holds up
    /// neither a disabled user nor an outcome.
    pub const fn of(lane: Lane) -> Self {
        match lane {
            Lane::Service | Lane::Event => Self { batches: 8, units: 400, bytes: 1024 * 1024 },
            Lane::Inter | Lane::Batch => Self { batches: 8, units: 400, bytes: 4 * 1024 * 1024 },
        }
    }
}

/// What COMPARE means for the outbound half of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on after what was confirmed.
    Resume,
    /// In doubt up to this position.
    Check {
        received: Position,
        otherwise: Otherwise,
        /// What follows if the chains are equal: the receiver was restored, and may have had what is behind it.
        receiver_restored: bool,
    },
    /// The receiver was restored and stands here, if its chain is this node's.
    LookBack { received: Position, otherwise: Otherwise },
    /// The receiver was restored and stands here.
    Replay(Position),
    /// What the receiver, which stands here, does not hold is numbered anew.
    Renumber { received: Position, asked: Asked },
    /// The receiver, which stands here, has to be told again to go on from what is confirmed.
    Rebase(Position),
    /// Stand still.
    Stop(Stop),
}

/// Which ids a receiver is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Those that are not confirmed.
    Unconfirmed,
    /// All that the safety store has, too. What is trimmed the receiver is shown to hold if it holds the oldest of the
    /// rest; if not, the lane stops, unless an operator has decided that it goes on.
    All { decided: bool },
}

/// What follows where the receiver's chain is not this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// No backup explains it.
    Stop(Stop),
    /// It stands where it has stood the last time.
    Replay,
    /// Nodes that were restored do: what the receiver does not hold is numbered anew.
    Renumber(Asked),
}

/// The table above. `own` and `partner` are the generations now.
pub(super) fn verdict(mine: &LaneState, received: Position, own: u32, partner: u32) -> Verdict {
    if received.number.saturating_sub(mine.next) > NUMBERS_SKIPPED_MAX {
        return Verdict::Stop(Stop::Differs);
    }
    let confirmed = mine.confirmed;
    let (restored, receiver_restored) = (own > mine.own_generation, partner > mine.partner_generation);
    let first_contact = mine.own_generation == 0;
    let has_rest = confirmed.number.max(received.number).saturating_add(1) < mine.next;
    let goes_again = receiver_restored && !first_contact && has_rest;
    // A life of this node that is lost may have been replaying when its receiver went back to a backup of that time: such
    // a receiver stands high, and lacks what is confirmed here.
    let lives = receiver_restored && own > GENERATION_FIRST && !first_contact;
    match mine.rebase {
        // What an operator has gone on without the last time is told again, and asked for again.
        Rebase::From(from) if received == from && goes_again => {
            return Verdict::LookBack { received, otherwise: Otherwise::Replay };
        }
        Rebase::From(from) if received == from => return Verdict::Rebase(received),
        // Who has nothing need not be asked.
        Rebase::Any if lives && received.number > 0 => {
            return Verdict::Renumber { received, asked: Asked::All { decided: true } };
        }
        Rebase::Any if received.number < confirmed.number => return Verdict::Replay(received),
        Rebase::Any => return Verdict::Renumber { received, asked: Asked::Unconfirmed },
        Rebase::From(_) | Rebase::None => {}
    }
    let otherwise = match (lives, restored) {
        (true, _) => Otherwise::Renumber(Asked::All { decided: false }),
        (false, true) if received.number > confirmed.number => Otherwise::Renumber(Asked::Unconfirmed),
        (false, _) => Otherwise::Stop(Stop::Differs),
    };
    if received.number >= mine.next {
        if restored { otherwise.verdict(received) } else { Verdict::Stop(Stop::SenderPutBack) }
    } else if received.number < confirmed.number {
        match receiver_restored {
            true => Verdict::LookBack { received, otherwise },
            false => Verdict::Stop(Stop::ReceiverPutBack),
        }
    } else if received.number > confirmed.number {
        Verdict::Check { received, otherwise, receiver_restored: goes_again }
    } else if received.chain != confirmed.chain {
        otherwise.verdict(received)
    } else if goes_again {
        Verdict::Replay(received)
    } else {
        Verdict::Resume
    }
}

impl Otherwise {
    fn verdict(self, received: Position) -> Verdict {
        match self {
            Self::Stop(why) => Verdict::Stop(why),
            Self::Replay => Verdict::Replay(received),
            Self::Renumber(asked) => Verdict::Renumber { received, asked },
        }
    }
}

/// What recomputing the chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// The receiver may have stored what it has not confirmed. `receiver_restored`: it may have had what is behind that.
    Unconfirmed { receiver_restored: bool },
    /// The receiver was restored to a position within the safety store.
    Restored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before COMPARE.
    Closed,
    /// Asked the node how far the safety store reaches back.
    LookingBack(Position, Otherwise),
    /// Asked the node whether anything is trimmed, before the receiver is asked for the rest.
    LookingForAll {
        received: Position,
        decided: bool,
    },
    /// Recomputing the chain up to what the receiver reports.
    Checking(Position, Doubt, Otherwise),
    /// An OFFER is with the partner, or its next ids are with the node.
    Offering(Offering),
    /// The node settles the lane.
    Settling,
    /// Idle or sending.
    Flowing,
    Stopped(Stop),
}

/// What the receiver is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offering {
    /// Where the receiver stands.
    received: Position,
    /// Its chain is this node's up to there.
    proved: bool,
    /// It is asked for what lies behind this number; `None` before the first unit of a safety store that was trimmed.
    after: Option<u64>,
    /// What if it does not hold the first unit.
    oldest: Oldest,
}

/// What a receiver is taken for that does not hold the oldest unit of those that it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oldest {
    /// For one that lacks no more than it says.
    IsFirst,
    /// For one that may lack what is trimmed: the lane stops, or goes on as an operator has `decided`.
    MayFollowWhatIsGone { decided: bool },
}

/// The outbound half of a lane.
#[derive(Debug)]
pub(super) struct Sender {
    lane: Lane,
    window: Window,
    state: State,
    confirmed: u64,
    /// The number that the next unit would have had when the lane was compared.
    next: u64,
    /// The position after the last unit sent (or recomputed).
    sent: Position,
    /// Where each batch ends that is not confirmed yet.
    in_flight: VecDeque<Position>,
    /// What the receiver takes in this session, and what it has been sent of it.
    credit: Credit,
    spent: Credit,
    /// So many units were asked for, at most, and are not here yet.
    fetching: Option<usize>,
    /// There may be units that were not fetched.
    more: bool,
    /// A CONFIRMED that came while the chain was being recomputed.
    early: Option<Confirmed>,
    /// The receiver says again what it has confirmed up to here, on another stream than the answer to an OFFER, which may be
    /// here before it: settling has taken it into account.
    recalled: Option<u64>,
    /// Ids of the OFFER that is with the partner, and the last number among them.
    offered: (Vec<UnitId>, u64),
    /// Units that the partner knows.
    held: Vec<UnitId>,
}

impl Sender {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            lane,
            window: Window::of(lane),
            state: State::Closed,
            confirmed: 0,
            next: 0,
            sent: Position::default(),
            in_flight: VecDeque::new(),
            credit: Credit::default(),
            spent: Credit::default(),
            fetching: None,
            more: true,
            early: None,
            recalled: None,
            offered: (Vec::new(), 0),
            held: Vec::new(),
        }
    }

    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    pub(super) fn view(&self, view: &mut LaneView) {
        (view.confirmed, view.sent, view.in_flight) =
            (self.confirmed, self.sent.number, self.in_flight.len());
        view.no_credit = self.state == State::Flowing && !self.has_credit();
        view.stopped_out = if let State::Stopped(why) = self.state { Some(why) } else { None };
    }

    /// COMPARE is complete.
    pub(super) fn open(&mut self, mine: &LaneState, verdict: Verdict, outputs: &mut Outputs) {
        let confirmed = mine.confirmed;
        (self.confirmed, self.next) = (confirmed.number, mine.next);
        self.sent = confirmed;
        match verdict {
            Verdict::Resume => {
                outputs.push_back(Output::Compared { lane: self.lane, received: confirmed });
                self.resume(false, outputs);
            }
            Verdict::Rebase(received) => {
                outputs.push_back(Output::Compared { lane: self.lane, received });
                self.resume(true, outputs);
            }
            Verdict::Check { received, otherwise, receiver_restored } => {
                self.state = State::Checking(received, Doubt::Unconfirmed { receiver_restored }, otherwise);
                self.pump(outputs);
            }
            Verdict::LookBack { received, otherwise } => {
                self.state = State::LookingBack(received, otherwise);
                outputs.push_back(Output::LookBack { lane: self.lane, number: received.number });
            }
            Verdict::Replay(received) => self.settle(received, Settling::Replay, outputs),
            Verdict::Renumber { received, asked } => self.ask(received, asked, outputs),
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

    /// The receiver takes more, in all, than it has said before.
    pub(super) fn granted(&mut self, credit: Credit, outputs: &mut Outputs) {
        self.credit.units = self.credit.units.max(credit.units);
        self.credit.bytes = self.credit.bytes.max(credit.bytes);
        self.pump(outputs);
    }

    /// Whether the receiver takes anything now.
    pub(super) fn has_credit(&self) -> bool {
        self.spent.units < self.credit.units && self.spent.bytes < self.credit.bytes
    }

    /// How far the safety store reaches back.
    pub(super) fn reach(&mut self, reach: Reach, outputs: &mut Outputs) {
        let (received, otherwise) = match self.state {
            State::LookingBack(received, otherwise) => (received, otherwise),
            State::LookingForAll { received, decided } => {
                let (after, oldest) = match reach {
                    Reach::Gone => (None, Oldest::MayFollowWhatIsGone { decided }),
                    _ => (Some(0), Oldest::IsFirst),
                };
                return self.offer(Offering { received, proved: false, after, oldest }, outputs);
            }
            _ => return,
        };
        match reach {
            Reach::From(from) if from.number <= received.number => {
                self.sent = from;
                self.state = State::Checking(received, Doubt::Restored, otherwise);
                if from.number == received.number {
                    self.checked(received, Doubt::Restored, otherwise, outputs);
                }
                self.pump(outputs);
            }
            Reach::Unproved => self.unproved(received, otherwise, outputs),
            Reach::From(_) | Reach::Gone => {
                self.lacks(received.number, outputs);
                self.stop(Stop::OlderThanSafety, outputs);
            }
        }
    }

    /// The next ids to be offered.
    pub(super) fn ids(&mut self, mut units: Vec<(u64, UnitId)>, outputs: &mut Outputs) {
        let State::Offering(offering) = &mut self.state else { return };
        units.truncate(OFFER_UNITS_MAX);
        // Those that were queued since go behind, whatever the receiver holds.
        units.retain(|(number, _)| *number < self.next);
        if let Some((first, _)) = units.first() {
            offering.after.get_or_insert(first.saturating_sub(1));
        }
        match units.last() {
            None => {
                let Offering { received, proved, after, oldest } = *offering;
                if !self.goes_on(oldest, outputs) {
                    return;
                }
                let after = after.unwrap_or(self.confirmed);
                let held = std::mem::take(&mut self.held);
                self.settle(received, Settling::Renumber { held, proved, after }, outputs);
            }
            Some((last, _)) => {
                self.offered = (units.iter().map(|(_, id)| *id).collect(), *last);
                let offer = Frame::Offer(self.offered.0.clone());
                outputs.push_back(Output::Send(Channel::Lane(self.lane), offer));
            }
        }
    }

    /// The partner's answer to an OFFER.
    pub(super) fn known(&mut self, bits: &[bool], outputs: &mut Outputs) -> Result<(), SessionError> {
        let (ids, last) = std::mem::take(&mut self.offered);
        // It was under way when the partner said that a store was put back.
        if matches!(self.state, State::Stopped(_)) && !ids.is_empty() {
            return Ok(());
        }
        let State::Offering(offering) = &mut self.state else {
            return Err(self.violation("an answer to what was not offered"));
        };
        if ids.is_empty() || ids.len() != bits.len() {
            return Err(self.violation("an answer to what was not offered"));
        }
        let oldest = std::mem::replace(&mut offering.oldest, Oldest::IsFirst);
        if bits.first() == Some(&false) && !self.goes_on(oldest, outputs) {
            return Ok(());
        }
        self.held.extend(ids.into_iter().zip(bits).filter(|(_, known)| **known).map(|(id, _)| id));
        outputs.push_back(Output::ListIds { lane: self.lane, after: last, max: OFFER_UNITS_MAX });
        Ok(())
    }

    /// The node has settled the lane.
    pub(super) fn settled(&mut self, position: Position, rebase: bool, outputs: &mut Outputs) {
        if self.state != State::Settling {
            return;
        }
        (self.confirmed, self.sent) = (position.number, position);
        // It said what it had stored before the lane was settled; settling has taken that into account.
        if self.early.take().is_some() {
            self.recalled = None;
        }
        self.more = true;
        self.resume(rebase, outputs);
    }

    /// The units that were asked for.
    pub(super) fn units(&mut self, units: Vec<Unit>, outputs: &mut Outputs) -> Result<(), SessionError> {
        let asked = self.fetching.take().ok_or(self.store("units that were not asked for"))?;
        if units.len() > asked {
            return Err(self.store("more units than were asked for"));
        }
        match self.state {
            State::Checking(until, doubt, otherwise) => {
                self.check(&units, until, doubt, otherwise, outputs)?;
            }
            State::Flowing if !units.is_empty() => {
                self.more = true;
                self.send(units, outputs)?;
            }
            _ => {}
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
            State::Flowing => {}
            _ if self.early.is_some() => {
                return Err(self.violation("two confirms before its lane resumed"));
            }
            _ => {
                self.early = Some(confirmed);
                return Ok(());
            }
        }
        let Confirmed { position, applied, .. } = &confirmed;
        if self.recalled.take_if(|recalled| *recalled == position.number).is_some() {
            self.granted(confirmed.credit, outputs);
            return Ok(());
        }
        if position.number <= self.confirmed {
            return Err(self.violation("a confirm at or below an earlier one"));
        }
        let Some(index) = self.in_flight.iter().position(|end| end.number == position.number) else {
            return Err(self.violation("a confirm for what was not sent, or for a part of a batch"));
        };
        let range = self.confirmed + 1..=position.number;
        if applied.refused.iter().chain(&applied.deferred).any(|one| !range.contains(&one.number)) {
            return Err(self.violation("a rejection of a unit that the confirm does not cover"));
        }
        if self.in_flight[index].chain != position.chain {
            self.stop(Stop::Differs, outputs);
            return Ok(());
        }
        self.in_flight.drain(..=index);
        self.confirmed = position.number;
        let credit = confirmed.credit;
        outputs.push_back(Output::Confirmed(confirmed));
        self.granted(credit, outputs);
        Ok(())
    }

    fn resume(&mut self, rebase: bool, outputs: &mut Outputs) {
        self.state = State::Flowing;
        let resume = Frame::Resume(Resume { position: self.sent, rebase });
        outputs.push_back(Output::Send(Channel::Lane(self.lane), resume));
        self.pump(outputs);
    }

    /// The receiver's chain is not this node's.
    fn unlike(&mut self, received: Position, otherwise: Otherwise, outputs: &mut Outputs) {
        match otherwise {
            Otherwise::Stop(why) => self.stop(why, outputs),
            Otherwise::Replay => self.settle(received, Settling::Replay, outputs),
            Otherwise::Renumber(asked) => self.ask(received, asked, outputs),
        }
    }

    /// Nothing can show whether the receiver's chain is this node's.
    fn unproved(&mut self, received: Position, otherwise: Otherwise, outputs: &mut Outputs) {
        match otherwise {
            Otherwise::Stop(_) => self.settle(received, Settling::Replay, outputs),
            otherwise => self.unlike(received, otherwise, outputs),
        }
    }

    fn ask(&mut self, received: Position, asked: Asked, outputs: &mut Outputs) {
        match asked {
            Asked::Unconfirmed => self.offer_unconfirmed(received, false, outputs),
            Asked::All { decided } => {
                self.state = State::LookingForAll { received, decided };
                outputs.push_back(Output::LookBack { lane: self.lane, number: 0 });
            }
        }
    }

    fn offer_unconfirmed(&mut self, received: Position, proved: bool, outputs: &mut Outputs) {
        let after = Some(self.confirmed);
        self.offer(Offering { received, proved, after, oldest: Oldest::IsFirst }, outputs);
    }

    fn offer(&mut self, offering: Offering, outputs: &mut Outputs) {
        self.recalled = Some(offering.received.number);
        self.state = State::Offering(offering);
        let after = offering.after.unwrap_or_default();
        outputs.push_back(Output::ListIds { lane: self.lane, after, max: OFFER_UNITS_MAX });
    }

    /// The receiver does not hold the oldest unit that there is. Whether the lane goes on.
    fn goes_on(&mut self, oldest: Oldest, outputs: &mut Outputs) -> bool {
        let Oldest::MayFollowWhatIsGone { decided } = oldest else { return true };
        self.lacks(0, outputs);
        if !decided {
            self.stop(Stop::OlderThanSafety, outputs);
        }
        decided
    }

    /// Of what is gone from the safety store the receiver may lack what lies behind this number.
    fn lacks(&mut self, number: u64, outputs: &mut Outputs) {
        outputs.push_back(Output::Lacks { lane: self.lane, number });
    }

    fn settle(&mut self, received: Position, settling: Settling, outputs: &mut Outputs) {
        self.state = State::Settling;
        outputs.push_back(Output::Settle { lane: self.lane, received, settling });
    }

    /// Asks for the next units, if there is room for them.
    fn pump(&mut self, outputs: &mut Outputs) {
        let Some(from) = self.sent.number.checked_add(1) else { return };
        let units_max = match self.state {
            State::Checking(until, ..) => until.number.saturating_sub(self.sent.number),
            State::Flowing if self.more && self.has_room() => self.credit.units - self.spent.units,
            _ => return,
        };
        if self.fetching.is_some() {
            return;
        }
        self.more = false;
        let units_max = usize::try_from(units_max).unwrap_or(BATCH_UNITS_MAX).min(BATCH_UNITS_MAX);
        self.fetching = Some(units_max);
        outputs.push_back(Output::Fetch { lane: self.lane, from, units_max, bytes_max: BATCH_BYTES_MAX });
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.window.batches && self.has_credit()
    }

    /// Recomputes the chain over the next units in doubt.
    fn check(
        &mut self,
        mut units: &[Unit],
        until: Position,
        doubt: Doubt,
        otherwise: Otherwise,
        outputs: &mut Outputs,
    ) -> Result<(), SessionError> {
        if doubt == Doubt::Restored {
            let numbers = self.sent.number.saturating_add(1)..;
            let follow =
                units.iter().zip(numbers).take_while(|(unit, number)| unit.number == *number).count();
            units = &units[..follow];
            if units.is_empty() {
                // They were given other numbers by an earlier replay: what follows is judged by its ids.
                self.unproved(until, otherwise, outputs);
                return Ok(());
            }
        }
        if units.is_empty() {
            return Err(self.store("units that are in doubt are not there"));
        }
        self.advance(units)?;
        if self.sent.number < until.number {
            return Ok(());
        }
        if let Some(confirmed) = self.checked(until, doubt, otherwise, outputs) {
            self.confirmed(confirmed, outputs)?;
        }
        Ok(())
    }

    /// The chain was recomputed up to what the receiver reports. Returns a CONFIRMED that came before.
    fn checked(
        &mut self,
        until: Position,
        doubt: Doubt,
        otherwise: Otherwise,
        outputs: &mut Outputs,
    ) -> Option<Confirmed> {
        match (doubt, self.sent.chain == until.chain) {
            (_, false) => self.unlike(until, otherwise, outputs),
            (Doubt::Restored, true) => self.settle(until, Settling::Replay, outputs),
            (Doubt::Unconfirmed { receiver_restored: true }, true) => {
                self.offer_unconfirmed(until, true, outputs);
            }
            (Doubt::Unconfirmed { receiver_restored: false }, true) => {
                self.in_flight.push_back(until);
                self.more = true;
                outputs.push_back(Output::Compared { lane: self.lane, received: until });
                self.resume(false, outputs);
                return self.early.take();
            }
        }
        None
    }

    fn send(&mut self, units: Vec<Unit>, outputs: &mut Outputs) -> Result<(), SessionError> {
        let bytes = raw_bytes(&units);
        if bytes > BATCH_BYTES_MAX {
            return Err(self.store("more bytes than were asked for"));
        }
        self.advance(&units)?;
        self.in_flight.push_back(self.sent);
        self.spent.units += units.len() as u64;
        self.spent.bytes += bytes as u64;
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
