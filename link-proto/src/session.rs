//! One session of the link, from HELLO to its end: a state machine without I/O.
//!
//! The driver gives it frames, the node's answers and the time ([`Session::handle`]), and carries out
//! what it asks for ([`Session::poll`]). A session lives as long as one connection; everything durable
//! is the node's, so a lost connection costs nothing but a new session.
//!
//! | phase | big (dials) | edge (listens) |
//! |---|---|---|
//! | HELLO | sends it first | checks key, identity and (generation, epoch); the node remembers; answers |
//! | WELCOME | pairing only: the node remembers | pairing only: the node takes the new partner |
//! | NEXT KEY | names the key it is about to have, if its HELLO said that there is one | the same, behind HELLO and WELCOME |
//! | COMPARE | log names and positions | the same |
//! | RESUME | per lane: both directions begin, or stop (see `sending` for the table) | the same |
//!
//! Invariants: no unit moves on a lane before its RESUME; CONFIRMED is produced only by
//! [`Input::Applied`], which says that the commit is durable, so nothing can be promised early; a stop
//! concerns one lane and the others go on; whatever else the partner does wrong ends the session with
//! a [`SessionError`], never with a panic.
//!
//! Positions carry a chain digest over every unit, so two nodes compare at any number and not only at
//! a batch's edges: the sender recomputes the chain from what was confirmed up to what the receiver
//! reports. Equal is as good as a CONFIRMED, and the receiver then sends the real one again, so that
//! the refusals and deferrals of a lost CONFIRMED are not lost with it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::frame::{CompareLane, Confirmed, Frame, Held, Refused, Stop};
use crate::host::{Applied, Identity, LaneState, Opening, Partner, Reach, Settling};
use crate::unit::{Lane, Position, Unit, UnitId};

mod bodies;
mod opening;
mod receiving;
mod sending;

pub use bodies::{BODIES_MAX, BODY_RETRY, PARTS_MAX};
pub use opening::{OPENING_TIME, pairing_proof};
pub use sending::Window;

use bodies::Bodies;
use opening::{Handshake, Opened};
use receiving::Receiver;
use sending::{Sender, Verdict, verdict};

/// The furthest that one session may carry a lane's numbers ahead, by a rebase or by the position that a
/// partner claims: numbers are never reused, and there must always be some left.
const NUMBERS_SKIPPED_MAX: u64 = 1 << 40;

/// Which end of the connection this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Big: it dials and speaks first.
    Dialler,
    /// The edge: it listens.
    Listener,
}

/// What a session starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which end this is.
    pub role: Role,
    /// What the node's store says.
    pub opening: Opening,
    /// This node's public key, with which it has opened the connection (SubjectPublicKeyInfo, DER).
    pub local_key: Vec<u8>,
    /// The one it wants to open the next connections with, if that is another one; the same.
    pub next_key: Option<Vec<u8>>,
    /// The partner's public key, as TLS has proved it.
    pub peer_key: Vec<u8>,
    /// Keying material exported from the TLS session (RFC 8446 §7.5), the same on both ends only.
    pub binding: [u8; 32],
    /// Dialler: the secret of the ticket it pairs with. Listener: that of its open invitation.
    pub secret: Option<[u8; 32]>,
}

/// The stream a frame travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// HELLO to COMPARE, CONFIRMED, CREDIT, and what concerns bodies.
    Control,
    /// OFFER, KNOWN, RESUME, STOPPED and BATCH of one lane.
    Lane(Lane),
}

/// What a session is told.
#[derive(Debug)]
pub enum Input {
    /// A frame arrived. A lane's frames are given only once the session is open.
    Frame(Channel, Frame),
    /// [`Output::Remember`], [`Output::Adopt`] or [`Output::PairedWith`] is durable. `lanes` is where they stand now
    /// that no other session can move them.
    Remembered {
        /// Indexed by [`Lane::index`].
        lanes: Box<[LaneState; 4]>,
    },
    /// [`Output::RememberKey`] is durable.
    KeyRemembered,
    /// [`Output::PairedBy`] is durable.
    Welcome {
        /// What the partner is told.
        welcome: Vec<u8>,
        /// Indexed by [`Lane::index`].
        lanes: Box<[LaneState; 4]>,
    },
    /// The answer to [`Output::Fetch`], empty if there is nothing; given before the next frame.
    Units(Lane, Vec<Unit>),
    /// The answer to [`Output::LookBack`]; given before the next frame.
    Reach(Lane, Reach),
    /// The answer to [`Output::ListIds`]; given before the next frame.
    Ids(Lane, Vec<(u64, UnitId)>),
    /// The answer to [`Output::LookUp`]; given before the next frame.
    Known(Lane, Vec<bool>),
    /// [`Output::Settle`] is durable.
    Settled {
        /// The lane.
        lane: Lane,
        /// Where it goes on.
        position: Position,
        /// The receiver does not stand there, and has to be told.
        rebase: bool,
    },
    /// The node has room for more on a lane, or no more.
    Room(Lane, bool),
    /// The answer to [`Output::Opened`]: bodies of which the first so many bytes are here from an earlier
    /// connection, at most [`PARTS_MAX`]; given before the next frame.
    Parts(Vec<(UnitId, u64)>),
    /// A lane has new units.
    Wake(Lane),
    /// Everything that was to be applied on a lane up to this number is durable.
    Applied {
        /// The lane.
        lane: Lane,
        /// The last number of an [`Output::Apply`] or [`Output::Recall`].
        number: u64,
        /// What became of the units.
        applied: Applied,
    },
    /// Large bodies may be waiting.
    WakeBodies,
    /// The answer to [`Output::ListBodies`]; given before the next frame.
    BodiesWaiting(Vec<UnitId>),
    /// A body's last chunk is about to be sent; this is what was sent. Given before it is.
    BodySent(Held),
    /// A body could not be sent to its end.
    BodyBroken(UnitId),
    /// [`Output::BodyHeld`] is durable: the unit has its number.
    BodyNumbered(UnitId),
    /// An incoming body is complete and staged, durably.
    BodyStaged(Held),
    /// An incoming body could not be staged.
    BodyNotStaged(UnitId),
    /// Time has passed; see [`Session::deadline`].
    Tick,
}

/// What a session asks for, in the order in which it is to be done.
#[derive(Debug)]
pub enum Output {
    /// Send this frame.
    Send(Channel, Frame),
    /// Remember the partner; answer [`Input::Remembered`]. The listener first ends any older session,
    /// and lets its commits come to an end.
    Remember(Partner),
    /// The partner's next key is another one: remember it; answer [`Input::KeyRemembered`].
    RememberKey(Partner),
    /// Listener: a new partner proved the invitation's secret (or a known one, whose welcome was lost,
    /// asks again); answer [`Input::Welcome`]. It ends any older session first.
    PairedBy(Partner),
    /// Dialler: the edge took the ticket; answer [`Input::Remembered`].
    PairedWith(Partner, Vec<u8>),
    /// The partner has a new store, which an operator said is to be taken: remember it, and let every
    /// lane begin anew; answer [`Input::Remembered`]. The listener first ends any older session.
    Adopt(Partner),
    /// Positions were compared; lanes now begin. Lane frames may be read. Answer [`Input::Parts`].
    Opened,
    /// A lane's ends stand together as they are: its generations and decisions count as compared.
    Compared {
        /// The lane, outbound.
        lane: Lane,
        /// Where the receiver stands.
        received: Position,
    },
    /// How far does the safety store of an outbound lane reach back, seen from `number`? Answer
    /// [`Input::Reach`].
    LookBack {
        /// The lane.
        lane: Lane,
        /// A number that the receiver reports.
        number: u64,
    },
    /// List units of an outbound lane, to be offered; answer [`Input::Ids`], empty at the end.
    ListIds {
        /// The lane.
        lane: Lane,
        /// Those behind this number.
        after: u64,
        /// At most so many.
        max: usize,
    },
    /// Of what is gone from the safety store of an outbound lane the receiver may lack what lies behind `number`: to be noted
    /// for the operator.
    Lacks {
        /// The lane.
        lane: Lane,
        /// Where the receiver stands, or 0 if nothing shows what it holds.
        number: u64,
    },
    /// Which of these units has this node applied? Answer [`Input::Known`].
    LookUp {
        /// The lane.
        lane: Lane,
        /// The partner's own units.
        ids: Vec<UnitId>,
    },
    /// Let an outbound lane go on after where the receiver stands; answer [`Input::Settled`].
    Settle {
        /// The lane.
        lane: Lane,
        /// Where the receiver stands.
        received: Position,
        /// How.
        settling: Settling,
    },
    /// The partner began a lane further on; for the log.
    Rebased {
        /// The lane, inbound.
        lane: Lane,
        /// Where this node stood.
        from: u64,
        /// Where it goes on.
        to: u64,
    },
    /// Read numbered units from the store; answer [`Input::Units`].
    Fetch {
        /// The lane.
        lane: Lane,
        /// The first number wanted.
        from: u64,
        /// At most so many.
        units_max: usize,
        /// At most so many bytes of heads and inline bodies.
        bytes_max: usize,
    },
    /// Apply these units and store the position, in one commit; answer [`Input::Applied`]. Several
    /// may be asked for before one is answered; they are applied in order.
    Apply {
        /// The lane.
        lane: Lane,
        /// Contiguous, after the previous ones.
        units: Vec<Unit>,
        /// Where the node stands when what was asked for before is applied: below the units, by more than one where the
        /// partner goes on further on.
        from: Position,
        /// The position after the last.
        position: Position,
    },
    /// A CONFIRMED may have been lost: say again what was refused and deferred above `after`; answer
    /// [`Input::Applied`] with `number`, before the next frame.
    Recall {
        /// The lane.
        lane: Lane,
        /// The last number whose CONFIRMED the partner has recorded.
        after: u64,
        /// This node's own position.
        number: u64,
    },
    /// The partner's commit is durable: record it.
    Confirmed(Confirmed),
    /// Ask the node which bodies wait; answer [`Input::BodiesWaiting`].
    ListBodies {
        /// At most so many.
        max: usize,
    },
    /// Send this unit's body on a stream of its own; answer [`Input::BodySent`] or `BodyBroken`.
    SendBody {
        /// The unit.
        unit: UnitId,
        /// So many of its bytes are with the partner already.
        from: u64,
    },
    /// The partner holds the body: give the unit its number; answer [`Input::BodyNumbered`].
    BodyHeld(Held),
    /// A lane stands still; an alarm for the operator.
    Stopped {
        /// The lane.
        lane: Lane,
        /// Whether it is the outbound direction (else the inbound one).
        outbound: bool,
        /// Why.
        why: Stop,
    },
}

/// Why a session ended. The driver closes the connection; big dials again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The opening did not complete in time.
    #[error("the partner did not complete the opening within {} s", OPENING_TIME.as_secs())]
    OpeningTime,
    /// A frame that has no place here.
    #[error("the partner sent {0} where it has no place")]
    Unexpected(&'static str),
    /// The partner broke a rule of the protocol.
    #[error("the partner broke the protocol on lane {lane:?}: {what}")]
    Violation {
        /// The lane.
        lane: Lane,
        /// The rule.
        what: &'static str,
    },
    /// A confirm for a body that was not sent like that.
    #[error("the partner claims to hold a body that was not sent to it like that")]
    BodyNotSent,
    /// No version in common.
    #[error(
        "the partner speaks versions {oldest} to {newest} of the link; update the older of the two nodes"
    )]
    Version {
        /// The oldest it understands.
        oldest: u16,
        /// The newest it speaks.
        newest: u16,
    },
    /// Dialler: there is no partner, and no ticket.
    #[error("this node is not paired; run `edge-node invite` there and `big-node pair TICKET` here")]
    NotPaired,
    /// Not the pinned key, and no invitation was proved.
    #[error(
        "the partner's key is not the one this node was paired with; if it was replaced or has new keys, run \
         `edge-node invite` and `big-node pair --replace TICKET`"
    )]
    WrongKey,
    /// The partner wants a key again that it has had before: it was put back from a backup.
    #[error(
        "the partner announces a key that it has put away, and that somebody else may have; remove \
         `keys/link-next.key` of its state, and start it again"
    )]
    FormerKey,
    /// Node, log name or generation are not what this node remembers.
    #[error("the partner lost its store, or it is another node: {0}; run `link adopt` if that is meant")]
    WrongStore(&'static str),
    /// Listener: it refused the partner and said so.
    #[error("refused the partner: {0}")]
    Refused(RefusedBecause),
    /// Dialler: the edge refused it.
    #[error("the edge refused: {0}")]
    RefusedBy(RefusedBecause),
    /// The node's store contradicts itself.
    #[error("this node's store does not give the units it numbered on lane {lane:?}: {what}")]
    Store {
        /// The lane.
        lane: Lane,
        /// What is missing.
        what: &'static str,
    },
}

/// A refused HELLO, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedBecause(pub Refused);

/// One lane of a live session, for `link status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneView {
    /// Outbound: the last number the partner confirmed.
    pub confirmed: u64,
    /// Outbound: the last number sent.
    pub sent: u64,
    /// Outbound: batches sent and not confirmed.
    pub in_flight: usize,
    /// Outbound: the partner takes no more for now.
    pub no_credit: bool,
    /// Inbound: this node takes no more for now.
    pub no_room: bool,
    /// Inbound: the last number that arrived.
    pub arrived: u64,
    /// Inbound: the last number that is durable here.
    pub received: u64,
    /// Why the outbound direction stands still.
    pub stopped_out: Option<Stop>,
    /// Why the inbound direction stands still.
    pub stopped_in: Option<Stop>,
    /// Where the partner said that it stood when this session began; `None` before that.
    pub partner: Option<CompareLane>,
}

/// The outputs of a session, in order.
type Outputs = VecDeque<Output>;

/// The state machine of one connection.
#[derive(Debug)]
pub struct Session {
    handshake: Option<Handshake>,
    /// What was compared, until the lanes begin.
    opened: Option<Opened>,
    /// What the partner said then.
    theirs: Option<[CompareLane; 4]>,
    senders: [Sender; 4],
    receivers: [Receiver; 4],
    bodies: Bodies,
    now: Duration,
    outputs: Outputs,
}

impl Session {
    /// A session on a fresh connection; the dialler's first output is its HELLO.
    ///
    /// # Errors
    /// [`SessionError::NotPaired`]: a dialler with neither partner nor ticket.
    pub fn new(start: Start, now: Duration) -> Result<Self, SessionError> {
        let mut outputs = Outputs::new();
        let handshake = Handshake::begin(start, now, &mut outputs)?;
        Ok(Self {
            handshake: Some(handshake),
            opened: None,
            theirs: None,
            senders: Lane::ALL.map(Sender::new),
            receivers: Lane::ALL.map(Receiver::new),
            bodies: Bodies::new(),
            now,
            outputs,
        })
    }

    /// Takes one input. Outputs, if any, are drained with [`Session::poll`] before the next frame.
    ///
    /// # Errors
    /// The session is over. What it still has to send (a REFUSED) is among the outputs.
    pub fn handle(&mut self, input: Input, now: Duration) -> Result<(), SessionError> {
        self.now = now;
        let result = self.take(input);
        if self.is_open() {
            let paused = !self.senders[index(Lane::Batch)].has_credit();
            self.bodies.pause(paused, now, &mut self.outputs);
        }
        result
    }

    fn take(&mut self, input: Input) -> Result<(), SessionError> {
        let now = self.now;
        match input {
            Input::Frame(channel, frame) => return self.frame(channel, frame),
            Input::Remembered { lanes } => self.remembered(*lanes, None)?,
            Input::KeyRemembered => {
                let handshake =
                    self.handshake.as_mut().ok_or(SessionError::Unexpected("an answer of the node"))?;
                handshake.key_remembered(&mut self.outputs)?;
            }
            Input::Welcome { welcome, lanes } => self.remembered(*lanes, Some(welcome))?,
            Input::Units(lane, units) => return self.senders[index(lane)].units(units, &mut self.outputs),
            Input::Reach(lane, reach) => self.senders[index(lane)].reach(reach, &mut self.outputs),
            Input::Ids(lane, units) => {
                self.senders[index(lane)].ids(units, &mut self.outputs);
            }
            Input::Known(lane, bits) => {
                let known = Output::Send(Channel::Lane(lane), Frame::Known(bits));
                self.outputs.push_back(known);
            }
            Input::Settled { lane, position, rebase } => {
                self.senders[index(lane)].settled(position, rebase, &mut self.outputs);
                // Units with large bodies go the whole way again, and may be in no list yet.
                self.bodies.wake(now, &mut self.outputs);
            }
            Input::Room(lane, room) => self.receivers[index(lane)].room(room, &mut self.outputs),
            Input::Parts(parts) => self.begin(parts),
            Input::Wake(lane) => self.senders[index(lane)].wake(&mut self.outputs),
            Input::Applied { lane, number, applied } => {
                return self.receivers[index(lane)].applied(number, applied, &mut self.outputs);
            }
            Input::Tick => return self.tick(),
            Input::WakeBodies => self.bodies.wake(now, &mut self.outputs),
            Input::BodiesWaiting(units) => self.bodies.listed(units, &mut self.outputs),
            Input::BodySent(held) => self.bodies.sent(held),
            Input::BodyBroken(unit) => self.bodies.failed(unit, now, &mut self.outputs),
            Input::BodyNumbered(unit) => {
                self.bodies.numbered(unit, now, &mut self.outputs);
                for sender in &mut self.senders {
                    sender.wake(&mut self.outputs);
                }
            }
            Input::BodyStaged(held) => self.control(Frame::BodyHeld(held)),
            Input::BodyNotStaged(unit) => self.control(Frame::BodyFailed(unit)),
        }
        Ok(())
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.handshake.as_ref().map(Handshake::deadline).or_else(|| self.bodies.deadline())
    }

    /// Whether positions were compared and lanes have begun.
    pub fn is_open(&self) -> bool {
        self.handshake.is_none()
    }

    /// How a lane stands.
    pub fn lane(&self, lane: Lane) -> LaneView {
        let partner = self.theirs.map(|lanes| lanes[index(lane)]);
        let mut view = LaneView { partner, ..LaneView::default() };
        self.senders[index(lane)].view(&mut view);
        self.receivers[index(lane)].view(&mut view);
        view
    }

    fn remembered(&mut self, lanes: [LaneState; 4], welcome: Option<Vec<u8>>) -> Result<(), SessionError> {
        let handshake = self.handshake.as_mut().ok_or(SessionError::Unexpected("an answer of the node"))?;
        handshake.remembered(lanes, welcome, &mut self.outputs)
    }

    fn control(&mut self, frame: Frame) {
        self.outputs.push_back(Output::Send(Channel::Control, frame));
    }

    fn tick(&mut self) -> Result<(), SessionError> {
        match &self.handshake {
            Some(handshake) if self.now >= handshake.deadline() => Err(SessionError::OpeningTime),
            Some(_) => Ok(()),
            None => {
                self.bodies.tick(self.now, &mut self.outputs);
                Ok(())
            }
        }
    }

    fn frame(&mut self, channel: Channel, frame: Frame) -> Result<(), SessionError> {
        if let Some(handshake) = &mut self.handshake {
            if channel != Channel::Control {
                return Err(SessionError::Unexpected(frame.name()));
            }
            if let Some(opened) = handshake.frame(frame, &mut self.outputs)? {
                self.handshake = None;
                self.theirs = Some(opened.theirs);
                self.opened = Some(opened);
                self.outputs.push_back(Output::Opened);
            }
            return Ok(());
        }
        match (channel, frame) {
            (Channel::Lane(lane), Frame::Batch(batch)) => {
                self.receivers[index(lane)].batch(batch, &mut self.outputs)
            }
            (Channel::Lane(lane), Frame::Resume(resume)) => {
                self.receivers[index(lane)].resume(resume, &mut self.outputs)
            }
            (Channel::Lane(lane), Frame::Offer(ids)) => {
                self.receivers[index(lane)].offered(ids, &mut self.outputs)
            }
            (Channel::Lane(lane), Frame::Known(bits)) => {
                self.senders[index(lane)].known(&bits, &mut self.outputs)
            }
            (Channel::Lane(lane), Frame::Stopped(why)) => self.stopped_by_partner(lane, why),
            (Channel::Control, Frame::Confirmed(confirmed)) => {
                self.senders[index(confirmed.lane)].confirmed(confirmed, &mut self.outputs)
            }
            (Channel::Control, Frame::Credit(lane, credit)) => {
                self.senders[index(lane)].granted(credit, &mut self.outputs);
                Ok(())
            }
            (Channel::Control, Frame::BodyPart(unit, length)) => self.bodies.part(unit, length),
            (Channel::Control, Frame::BodyHeld(held)) => self.bodies.held(held, &mut self.outputs),
            (Channel::Control, Frame::BodyFailed(unit)) => {
                self.bodies.failed(unit, self.now, &mut self.outputs);
                Ok(())
            }
            (_, frame) => Err(SessionError::Unexpected(frame.name())),
        }
    }

    /// Every lane begins or stops, in both directions. What is here of bodies is told before the credit
    /// with which they start.
    fn begin(&mut self, parts: Vec<(UnitId, u64)>) {
        let Some(opened) = self.opened.take() else { return };
        for (unit, length) in parts.into_iter().take(PARTS_MAX) {
            self.control(Frame::BodyPart(unit, length));
        }
        let (own, partner) = opened.generations;
        let of = |index: usize| verdict(&opened.mine[index], opened.theirs[index].received, own, partner);
        let verdicts: [Verdict; 4] = std::array::from_fn(of);
        let put_back = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Stop(why @ (Stop::ReceiverPutBack | Stop::SenderPutBack)) => Some(*why),
            _ => None,
        });
        for (index, lane) in Lane::ALL.into_iter().enumerate() {
            let (mine, theirs) = (&opened.mine[index], &opened.theirs[index]);
            let verdict = match (put_back, verdicts[index]) {
                (_, verdict @ Verdict::Stop(_)) => verdict,
                (Some(why), _) if is_mail(lane) => Verdict::Stop(why),
                (_, verdict) => verdict,
            };
            self.receivers[index].open(mine.received, theirs, &mut self.outputs);
            self.senders[index].open(mine, verdict, &mut self.outputs);
        }
        self.bodies.wake(self.now, &mut self.outputs);
    }

    /// The partner stands still on a lane. If it says that a store was put back, mail must not leave
    /// from here either.
    fn stopped_by_partner(&mut self, lane: Lane, why: Stop) -> Result<(), SessionError> {
        self.receivers[index(lane)].stopped(why, &mut self.outputs)?;
        if matches!(why, Stop::ReceiverPutBack | Stop::SenderPutBack) {
            for sender in self.senders.iter_mut().filter(|sender| is_mail(sender.lane())) {
                sender.stop(why, &mut self.outputs);
            }
        }
        Ok(())
    }
}

/// A lane's place in arrays.
fn index(lane: Lane) -> usize {
    usize::from(lane.index())
}

/// Whether a lane carries mail.
fn is_mail(lane: Lane) -> bool {
    matches!(lane, Lane::Inter | Lane::Batch)
}

impl std::fmt::Display for RefusedBecause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::frame::Refusal;
        let Refused { why, generation, epoch } = self.0;
        match why {
            Refusal::Version => f.write_str("no version of the link in common; update the older node"),
            Refusal::Stale => write!(
                f,
                "(generation, epoch) is not above ({generation}, {epoch}), which the edge has stored; if big's \
                 store was put back by hand, or restored twice from the same backup, run `link adopt` \
                 there, or on the edge"
            ),
            Refusal::Unknown => f.write_str(
                "the key is unknown, and the ticket is used up, expired or for another edge; run `edge-node \
                 invite` and pair with the new ticket",
            ),
            Refusal::LogName => {
                f.write_str("the store is not the one that was paired; pair again with a ticket")
            }
        }
    }
}

/// The identity with which a partner presents itself.
fn claimed(identity: Identity, key: &[u8], epoch: u64) -> Partner {
    Partner { identity, key: key.to_vec(), next_key: None, former_key: None, epoch }
}
