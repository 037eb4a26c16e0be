//! What a node gives its link: durable positions, numbered units, bodies, and commits.

use std::future::Future;

use bytes::Bytes;

use crate::unit::{Digest, Lane, Position, Unit, UnitId};

/// The node could not do what the link asked of its store; the session ends and is tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);

/// The generation of a node that has never gone back.
pub const GENERATION_FIRST: u32 = 1;

/// Who a node is on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Fixed when the node was created.
    pub node: [u8; 16],
    /// Created with the node's store; a node that lost its store has another one.
    pub log_name: [u8; 16],
    /// [`GENERATION_FIRST`], and raised at every restore or explicit adopt.
    pub generation: u32,
}

/// What a node remembers of its partner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// The partner's identity at the last accepted hello.
    pub identity: Identity,
    /// The partner's pinned Ed25519 public key (SubjectPublicKeyInfo, DER).
    pub key: Vec<u8>,
    /// The one it is about to have, which is pinned beside it: once the partner has shown it, only that one is.
    pub next_key: Option<Vec<u8>>,
    /// The one that it has had before, and that is refused.
    pub former_key: Option<Vec<u8>>,
    /// Edge only: the highest epoch accepted from big's current generation; 0 on big.
    pub epoch: u64,
}

impl Partner {
    /// Whether a key is pinned.
    pub fn is_pinned(&self, key: &[u8]) -> bool {
        self.key == key || self.next_key.as_deref() == Some(key)
    }
}

/// How a session has to begin a lane whose two ends do not stand together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebase {
    /// They do.
    #[default]
    None,
    /// The receiver, which stands here, goes on after what is confirmed.
    From(Position),
    /// An operator has decided: the receiver goes on from wherever it stands.
    Any,
}

/// Where one lane stands on this node, both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneState {
    /// Outbound: the last position the partner confirmed and this node recorded.
    pub confirmed: Position,
    /// Outbound: the number the next unit will get.
    pub next: u64,
    /// Outbound: how it begins.
    pub rebase: Rebase,
    /// Outbound: this node's generation when the lane was last settled with the partner.
    pub own_generation: u32,
    /// Outbound: the partner's generation then.
    pub partner_generation: u32,
    /// Inbound: this node's own position, committed with the effects.
    pub received: Position,
}

/// How far a safety store reaches back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The chain can be computed from this position, which is at the number asked for or below it.
    From(Position),
    /// What followed that number is here, but the chain cannot be computed: this node was restored since.
    Unproved,
    /// Something that followed is gone.
    Gone,
}

/// What makes the ends of a lane stand together again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settling {
    /// The receiver was restored: it is given again, from the safety store, what it has lost.
    Replay,
    /// What the receiver does not hold is numbered anew, above where it stands.
    Renumber {
        /// Units that it says it holds.
        held: Vec<UnitId>,
        /// Its chain was shown to be this node's, so all that it holds lies here under the numbers it came by.
        proved: bool,
        /// It was asked for what lies behind this number.
        after: u64,
    },
}

/// Everything durable that a session starts from.
#[derive(Clone, Debug)]
pub struct Opening {
    /// This node.
    pub local: Identity,
    /// Big only: the epoch of this attempt, already stored; 0 on the edge.
    pub epoch: u64,
    /// The partner, once paired.
    pub partner: Option<Partner>,
    /// An operator said that the partner lost its store, and that its new one is to be taken.
    pub adopt: bool,
    /// Indexed by [`Lane::index`].
    pub lanes: [LaneState; 4],
}

/// A unit that was not applied, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its number in the lane.
    pub number: u64,
    /// For a person: what is wrong with it.
    pub reason: String,
}

/// What became of a batch, once its commit is durable. The position covers every unit of the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Never acceptable: dead letters for the sender.
    pub refused: Vec<Rejection>,
    /// Not acceptable now: offered again later, under a new number and the same id.
    pub deferred: Vec<Rejection>,
}

/// A large body on its way out, read in order.
pub trait BodySource: Send {
    /// The next piece, at most 64 KiB; `None` at the end.
    fn next(&mut self) -> Result<Option<Bytes>, HostError>;
}

/// A large body on its way in, written in order.
pub trait BodySink: Send + 'static {
    /// Appends a piece. Nothing need be durable yet. A call that is cut off (dropped) has written all of
    /// it or nothing, for a body goes on after the last piece when its connection was lost.
    fn write(&mut self, piece: Bytes) -> impl Future<Output = Result<(), HostError>> + Send;
    /// The body is complete and its digest was checked: keep it staged for the unit that names it.
    fn finish(self, length: u64, digest: Digest) -> impl Future<Output = Result<(), HostError>> + Send;
}

/// A node, as its link sees it.
pub trait Host: Send + Sync + 'static {
    /// Where incoming large bodies are staged.
    type Sink: BodySink;

    /// Begins an attempt: big raises and stores its epoch first.
    fn open(&self) -> impl Future<Output = Result<Opening, HostError>> + Send;

    /// Remembers the partner (new log name at pairing, generation, epoch) before the session goes on.
    fn remember(&self, partner: Partner) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Pins the partner's next key beside the present one, which the session was opened with; nothing else of the
    /// partner has changed.
    fn remember_key(&self, partner: Partner) -> impl Future<Output = Result<(), HostError>> + Send;

    /// The partner has a new store, which an operator said is to be taken: remembers it, and lets
    /// every lane begin anew.
    fn adopted(&self, partner: Partner) -> impl Future<Output = Result<(), HostError>> + Send {
        let _ = partner;
        async { Err(HostError("this node adopts nobody".into())) }
    }

    /// Edge: the secret of the open invitation, if one is open.
    fn invitation(&self) -> Option<[u8; 32]>;

    /// Edge: an unknown big proved the invitation's secret. Uses the invitation up, remembers the
    /// partner, and returns what big is told at its first welcome (opaque to the link).
    fn paired_by(&self, partner: Partner) -> impl Future<Output = Result<Vec<u8>, HostError>> + Send;

    /// Big: the edge took the ticket; `welcome` is what the edge's `paired_by` returned.
    fn paired_with(
        &self,
        partner: Partner,
        welcome: Vec<u8>,
    ) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Numbered units of `lane` from number `from` on, in order, as many as fit `units_max` and `bytes_max` (but always
    /// at least one if there is one): without gaps above what is confirmed, and below it with those of numbers that were
    /// given anew.
    fn units(
        &self,
        lane: Lane,
        from: u64,
        units_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Unit>, HostError>;

    /// How far an outbound lane's safety store reaches back, seen from `number`.
    fn reach(&self, lane: Lane, number: u64) -> Result<Reach, HostError> {
        let _ = (lane, number);
        Ok(Reach::Gone)
    }

    /// The partner may lack what is gone from an outbound lane's safety store behind `number`: notes it for the operator.
    fn lacks(&self, lane: Lane, number: u64) -> Result<(), HostError> {
        let _ = (lane, number);
        Ok(())
    }

    /// Number and id of the units of an outbound lane behind number `after`, of its safety store and behind it, that the
    /// partner has not rejected; in order, at most `max`, and empty only at the end.
    fn ids(&self, lane: Lane, after: u64, max: usize) -> Result<Vec<(u64, UnitId)>, HostError> {
        let _ = (lane, after, max);
        Ok(Vec::new())
    }

    /// For each id, whether a unit of that id has come from the partner and was stored: applied, or kept until it can be, or
    /// kept for the operator. Not one that was refused or deferred, for the partner has to hear that again.
    fn is_here(&self, lane: Lane, ids: &[UnitId]) -> Result<Vec<bool>, HostError> {
        let _ = lane;
        Ok(vec![false; ids.len()])
    }

    /// Lets an outbound lane go on after `received`, where the receiver stands; durably. Returns the
    /// position after which its next unit follows.
    fn settle(
        &self,
        lane: Lane,
        received: Position,
        settling: Settling,
    ) -> impl Future<Output = Result<Position, HostError>> + Send {
        let _ = (lane, received, settling);
        async { Err(HostError("this node cannot settle a lane".into())) }
    }

    /// The ends of an outbound lane stand together as they are: the generations of both count as
    /// compared, and so do decisions of an operator.
    fn compared(&self, lane: Lane, received: Position) -> Result<(), HostError> {
        let _ = (lane, received);
        Ok(())
    }

    /// Whether the partner may send more on a lane: room, quota and the store's speed allow it.
    fn has_room(&self, lane: Lane) -> bool {
        let _ = lane;
        true
    }

    /// Applies a batch and stores `position`, in one commit; returns once that is durable. A node that does not stand
    /// at `from` then applies nothing: what this batch follows is not there, or it has come by another session.
    fn apply(
        &self,
        lane: Lane,
        units: Vec<Unit>,
        from: Position,
        position: Position,
    ) -> impl Future<Output = Result<Applied, HostError>> + Send;

    /// What `apply` refused and deferred on `lane` above number `after`, in ascending order.
    ///
    /// A CONFIRMED may be lost with its connection. It is then sent again, and must list the same
    /// rejections: they are part of the commit that `apply` made, and are kept until a later call asks
    /// for a higher `after` (all up to that number are recorded by the partner). A node that neither
    /// refuses nor defers has nothing to keep.
    fn rejected(&self, lane: Lane, after: u64) -> Result<Applied, HostError> {
        let _ = (lane, after);
        Ok(Applied::default())
    }

    /// The partner has stored everything up to `position`: record it and let those units go.
    fn confirmed(
        &self,
        lane: Lane,
        position: Position,
        applied: Applied,
    ) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Units that wait for their large body to be carried over, oldest first, at most `max`.
    fn waiting(&self, max: usize) -> Result<Vec<UnitId>, HostError>;

    /// Opens the large body of a waiting unit.
    fn body(&self, unit: UnitId) -> Result<Box<dyn BodySource>, HostError>;

    /// The partner holds the body complete: give the unit its number, durably.
    fn body_held(
        &self,
        unit: UnitId,
        length: u64,
        digest: Digest,
    ) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Opens a place for an incoming large body.
    fn stage(&self, unit: UnitId) -> Result<Self::Sink, HostError>;
}
