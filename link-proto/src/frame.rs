//! The frames of the link, and their bytes.
//!
//! A frame is a header of 12 bytes, a *meta* part and a *raw* part:
//!
//! | bytes | is |
//! |---|---|
//! | 1 | kind |
//! | 1 | version of that kind, 1 |
//! | 2 | zero |
//! | 4 | length of meta, little endian |
//! | 4 | length of raw, little endian; zero but for a batch |
//!
//! Both lengths are checked against the kind's limit before anything is allocated. HELLO and REFUSED
//! are laid out by hand and, from the first release on, frozen, so that any two versions understand each
//! other's opening; the meta of the others is a flat rkyv record, read by the checked API only and copied
//! into owned types at once. Heads and inline bodies are never inside rkyv: they are the raw part, cut by the
//! lengths that the meta gives. QUIC has authenticated every byte, so there is no checksum of our own; the
//! chain digest of a batch covers what its units mean.
//!
//! No frame asks the partner for a mailbox, a message, a search or a file (promises §5, T53).

use bytes::{BufMut, Bytes, BytesMut};

use crate::host::{Applied, Identity};
use crate::spki::PublicKey;
use crate::unit::{BATCH_BYTES_MAX, Body, Digest, Lane, Position, Unit, UnitId};

mod wire;

/// The newest version of the link's protocol that this code speaks.
pub const VERSION: u16 = 1;
/// The oldest it still understands.
pub const VERSION_OLDEST: u16 = 1;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 12;
/// Bytes of what the edge tells big at its first welcome.
pub const WELCOME_BYTES_MAX: usize = 64 * 1024;
/// Units that one CONFIRMED may list as refused or deferred.
pub const REJECTIONS_MAX: usize = 4096;
/// Units that one OFFER may list.
pub const OFFER_UNITS_MAX: usize = 2048;
/// Bytes of one rejection's reason; a longer one is cut.
pub const REASON_BYTES_MAX: usize = 256;
/// Bytes of all the reasons of one CONFIRMED; where there are many, each is cut shorter.
const REASONS_BYTES_MAX: usize = 128 * 1024;
/// Pieces below this size are copied together; larger ones are passed on as they are.
const COPY_BELOW: usize = 2048;
/// Bytes of a HELLO's meta.
const HELLO_BYTES: usize = 85;
/// Bytes of a REFUSED's meta.
const REFUSED_BYTES: usize = 13;

/// Who is calling, and what it speaks. The first frame in each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The newest version the sender speaks.
    pub newest: u16,
    /// The oldest version the sender understands.
    pub oldest: u16,
    /// Node, log name and generation of the sender.
    pub identity: Identity,
    /// Big: the epoch of this attempt. Edge: the same, in answer.
    pub epoch: u64,
    /// Big, while pairing: proof that it knows the invitation's secret.
    pub proof: Option<Digest>,
    /// The sender's key is about to be another one, which NEXT KEY names.
    pub rotates: bool,
}

/// Why the edge refuses a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// No version in common.
    Version = 1,
    /// (generation, epoch) is not above the stored one: stale or replayed.
    Stale = 2,
    /// The key is not the partner's, and no open invitation was proved.
    Unknown = 3,
    /// The key is the partner's, but node or log name is not: it lost its store.
    LogName = 4,
}

/// The edge's answer to a HELLO that it does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// The generation that the edge has stored; 0 for those it does not know.
    pub generation: u32,
    /// The epoch that the edge has stored; 0 for those it does not know.
    pub epoch: u64,
}

/// Where the sender of a COMPARE stands on one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompareLane {
    /// Outbound: what the partner confirmed.
    pub confirmed: Position,
    /// Outbound: the number its next unit will get.
    pub next: u64,
    /// Inbound: its own position.
    pub received: Position,
}

/// Log names and positions, once both know who they talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// What the sender holds the receiver's log name to be.
    pub held: [u8; 16],
    /// Indexed by [`Lane::index`].
    pub lanes: [CompareLane; 4],
}

/// Why a lane stands still until an operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Stop {
    /// The chain digests differ at a position both claim.
    #[error(
        "what both sides stored differs; keep copies of both stores. If one of them was put back without `restore`, \
         run `link adopt` there, and what it lacks is sent again; else `link resolve` or `link reset` on the sending side"
    )]
    Differs = 1,
    /// The receiver is below what it had confirmed, at the same generation.
    #[error(
        "the receiver's store was put back without `restore`; run `link adopt` there, and what it lacks is \
         sent again"
    )]
    ReceiverPutBack = 2,
    /// The receiver was restored, and lacks more than the sender's safety store still has.
    #[error(
        "the receiver was restored from a backup that is older than the safety store; on the sending side \
         `link status` lists what is gone, and `link hold`, `link adopt --yes`, `link release` go on without it"
    )]
    OlderThanSafety = 3,
    /// The receiver is at or above the sender's next number, at the sender's same generation.
    #[error(
        "the sender's store was put back without `restore`; run `link adopt` there, and what the receiver \
         does not hold is sent again"
    )]
    SenderPutBack = 4,
    /// The receiver has rejected more, since what the sender has recorded, than one CONFIRMED can say again. Only the
    /// receiver knows; no frame says it.
    #[error(
        "the sender, whose store went back, would have to be told again of more refused and deferred units than a \
         CONFIRMED holds; run `link hold`, `link reset`, `link release` on the sending side, and they are offered anew"
    )]
    Untold = 5,
}

/// Units that follow each other without gaps, and the chain digest after the last of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// 1 to [`crate::unit::BATCH_UNITS_MAX`] units.
    pub units: Vec<Unit>,
    /// The sender's chain after the last unit.
    pub chain: Digest,
}

/// A lane begins, or begins again further on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The next unit follows this position.
    pub position: Position,
    /// It is not where the receiver stands: numbers in between are skipped, and the receiver goes on
    /// from here.
    pub rebase: bool,
}

/// How much of a lane the receiver takes in this session, counted from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Units in all.
    pub units: u64,
    /// Bytes of heads and inline bodies in all; the batch that reaches it is still taken.
    pub bytes: u64,
}

/// The receiver's commit of everything up to `position` is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// On which lane.
    pub lane: Lane,
    /// The receiver's position.
    pub position: Position,
    /// What was refused or deferred since the last CONFIRMED.
    pub applied: Applied,
    /// What may be sent from now on.
    pub credit: Credit,
}

/// A large body that is complete at the receiver, and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The unit that it belongs to.
    pub unit: UnitId,
    /// Bytes.
    pub length: u64,
    /// BLAKE3 of all its bytes.
    pub digest: Digest,
}

/// Everything that one node says to the other.
///
/// HELLO to COMPARE, CONFIRMED, CREDIT and what concerns bodies travel on the control stream, so that a
/// confirm never waits behind mail; OFFER, KNOWN, RESUME, STOPPED and BATCH on their lane's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opening, 1.
    Hello(Hello),
    /// Opening, instead of the edge's hello; the connection ends.
    Refused(Refused),
    /// Pairing: what the edge tells big first; opaque to the link.
    Welcome(Vec<u8>),
    /// The sender's next key: it counts beside the present one from now on.
    NextKey(PublicKey),
    /// Opening, 2: log names and positions.
    Compare(Box<Compare>),
    /// A restored sender asks which of its unconfirmed units the receiver holds.
    Offer(Vec<UnitId>),
    /// The answer to an OFFER: one bit each.
    Known(Vec<bool>),
    /// A lane begins.
    Resume(Resume),
    /// A lane does not begin, or goes no further.
    Stopped(Stop),
    /// Units.
    Batch(Batch),
    /// Their commit.
    Confirmed(Confirmed),
    /// How much more of a lane may be sent.
    Credit(Lane, Credit),
    /// A part of a large body is here from an earlier connection: its first so many bytes.
    BodyPart(UnitId, u64),
    /// A large body arrived and is staged.
    BodyHeld(Held),
    /// A large body could not be taken; it is offered again later.
    BodyFailed(UnitId),
}

/// The bytes are not a frame of this protocol. The connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such kind.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// No such version of the kind.
    #[error("a {kind} frame of unknown version {version}")]
    Version {
        /// The frame's name.
        kind: &'static str,
        /// The version it claims.
        version: u8,
    },
    /// Over the kind's limit, or not the length it has to be.
    #[error("a {kind} frame of {meta} and {raw} bytes")]
    Length {
        /// The frame's name.
        kind: &'static str,
        /// Bytes of meta it claims.
        meta: u32,
        /// Bytes of raw it claims.
        raw: u32,
    },
    /// The content cannot be right.
    #[error("a {kind} frame that cannot be read: {what}")]
    Malformed {
        /// The frame's name.
        kind: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// One row per kind: its number, its name, and the most bytes of meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hello = 1,
    Refused,
    Welcome,
    Compare,
    Resume,
    Stopped,
    Batch,
    Confirmed,
    BodyHeld,
    BodyFailed,
    Offer,
    Known,
    Credit,
    BodyPart,
    NextKey,
}

impl Kind {
    const ALL: [(Self, &'static str, usize); 15] = [
        (Self::Hello, "HELLO", HELLO_BYTES),
        (Self::Refused, "REFUSED", REFUSED_BYTES),
        (Self::Welcome, "WELCOME", WELCOME_BYTES_MAX + 64),
        (Self::Compare, "COMPARE", 1024),
        (Self::Resume, "RESUME", 128),
        (Self::Stopped, "STOPPED", 64),
        (Self::Batch, "BATCH", 16 * 1024),
        (Self::Confirmed, "CONFIRMED", 256 * 1024),
        (Self::BodyHeld, "BODY HELD", 128),
        (Self::BodyFailed, "BODY FAILED", 64),
        (Self::Offer, "OFFER", OFFER_UNITS_MAX * 16),
        (Self::Known, "KNOWN", OFFER_UNITS_MAX),
        (Self::Credit, "CREDIT", 64),
        (Self::BodyPart, "BODY PART", 64),
        (Self::NextKey, "NEXT KEY", 32),
    ];

    fn row(number: u8) -> Option<(Self, &'static str, usize)> {
        Self::ALL.into_iter().find(|(kind, _, _)| *kind as u8 == number)
    }

    fn name(self) -> &'static str {
        Self::row(self as u8).map_or("", |(_, name, _)| name)
    }

    fn malformed(self, what: &'static str) -> FrameError {
        FrameError::Malformed { kind: self.name(), what }
    }
}

impl Frame {
    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Refused(_) => Kind::Refused,
            Self::Welcome(_) => Kind::Welcome,
            Self::Compare(_) => Kind::Compare,
            Self::Resume(_) => Kind::Resume,
            Self::Stopped(_) => Kind::Stopped,
            Self::Batch(_) => Kind::Batch,
            Self::Confirmed(_) => Kind::Confirmed,
            Self::BodyHeld(_) => Kind::BodyHeld,
            Self::BodyFailed(_) => Kind::BodyFailed,
            Self::Offer(_) => Kind::Offer,
            Self::Known(_) => Kind::Known,
            Self::Credit(..) => Kind::Credit,
            Self::BodyPart(..) => Kind::BodyPart,
            Self::NextKey(_) => Kind::NextKey,
        }
    }

    /// Its bytes, as the pieces to write one after the other. Large heads and bodies are not copied.
    pub fn encode(&self) -> Vec<Bytes> {
        let meta = match self {
            Self::Hello(hello) => encode_hello(hello),
            Self::Refused(refused) => encode_refused(refused),
            other => wire::encode(other),
        };
        let mut pieces = Pieces::default();
        let raw_bytes = if let Self::Batch(batch) = self { raw_bytes(&batch.units) } else { 0 };
        pieces.tail.reserve(HEADER_BYTES + meta.len());
        pieces.tail.put_slice(&[self.kind() as u8, 1, 0, 0]);
        pieces.tail.put_u32_le(length_on_wire(meta.len()));
        pieces.tail.put_u32_le(length_on_wire(raw_bytes));
        pieces.tail.put_slice(&meta);
        if let Self::Batch(batch) = self {
            for unit in &batch.units {
                pieces.put(&unit.head);
                if let Body::Inline(bytes) = &unit.body {
                    pieces.put(bytes);
                }
            }
        }
        pieces.finish()
    }
}

/// Bytes of heads and inline bodies: what a batch's limits and a lane's window count.
pub(crate) fn raw_bytes(units: &[Unit]) -> usize {
    let of = |unit: &Unit| match &unit.body {
        Body::Inline(bytes) => unit.head.len() + bytes.len(),
        Body::None | Body::Staged { .. } => unit.head.len(),
    };
    units.iter().map(of).sum()
}

/// A length of our own making as the wire has it.
fn length_on_wire(length: usize) -> u32 {
    u32::try_from(length).expect("a frame of our own is below its limits, which are below 4 GiB")
}

/// Collects pieces, copying only the small ones.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    tail: BytesMut,
}

impl Pieces {
    fn put(&mut self, bytes: &Bytes) {
        if bytes.len() < COPY_BELOW {
            self.tail.extend_from_slice(bytes);
        } else {
            self.flush();
            self.done.push(bytes.clone());
        }
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.done.push(self.tail.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.done
    }
}

/// Cuts a stream of bytes into frames. It holds at most one frame and what was pushed last.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if it is complete. Call it until it gives `None` before pushing more.
    ///
    /// # Errors
    /// The bytes are not a frame; the stream cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = Header::read(&self.buffer)? else { return Ok(None) };
        let total = HEADER_BYTES + header.meta + header.raw;
        if self.buffer.len() < total {
            self.buffer.reserve(total - self.buffer.len());
            return Ok(None);
        }
        let frame = self.buffer.split_to(total).freeze();
        let meta = frame.slice(HEADER_BYTES..HEADER_BYTES + header.meta);
        let raw = frame.slice(HEADER_BYTES + header.meta..);
        match header.kind {
            Kind::Hello => decode_hello(&meta).map(Some),
            Kind::Refused => decode_refused(&meta).map(Some),
            kind => wire::decode(kind, &meta, raw).map(Some),
        }
    }

    /// Whether the stream stands between two frames.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

struct Header {
    kind: Kind,
    meta: usize,
    raw: usize,
}

impl Header {
    /// Reads and checks a header; `None` while it is not complete.
    fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((&[number, version, zero0, zero1, m0, m1, m2, m3, r0, r1, r2, r3], _)) =
            bytes.split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let (kind, name, meta_max) = Kind::row(number).ok_or(FrameError::Kind(number))?;
        if version != 1 {
            return Err(FrameError::Version { kind: name, version });
        }
        let (meta, raw) = (u32::from_le_bytes([m0, m1, m2, m3]), u32::from_le_bytes([r0, r1, r2, r3]));
        let wrong = FrameError::Length { kind: name, meta, raw };
        let raw_max = if kind == Kind::Batch { BATCH_BYTES_MAX } else { 0 };
        let meta = usize::try_from(meta).map_err(|_| wrong.clone())?;
        let raw = usize::try_from(raw).map_err(|_| wrong.clone())?;
        let exact = matches!(kind, Kind::Hello | Kind::Refused);
        if meta > meta_max || (exact && meta != meta_max) || raw > raw_max {
            return Err(wrong);
        }
        if (zero0, zero1) != (0, 0) {
            return Err(kind.malformed("bytes that must be zero are not"));
        }
        Ok(Some(Self { kind, meta, raw }))
    }
}

/// The bit of a HELLO's flags that says that the sender's key is about to be another one. The others have no meaning
/// yet: they are sent as zero and not read.
const ROTATES: u32 = 1;

/// `newest oldest node log-name generation epoch has-proof proof flags`, little endian; frozen.
fn encode_hello(hello: &Hello) -> Vec<u8> {
    let mut meta = Vec::with_capacity(HELLO_BYTES);
    meta.put_u16_le(hello.newest);
    meta.put_u16_le(hello.oldest);
    meta.put_slice(&hello.identity.node);
    meta.put_slice(&hello.identity.log_name);
    meta.put_u32_le(hello.identity.generation);
    meta.put_u64_le(hello.epoch);
    meta.put_u8(u8::from(hello.proof.is_some()));
    meta.put_slice(&hello.proof.unwrap_or_default());
    meta.put_u32_le(if hello.rotates { ROTATES } else { 0 });
    meta
}

fn decode_hello(meta: &[u8]) -> Result<Frame, FrameError> {
    let mut fields = Fields(meta);
    let read = |fields: &mut Fields<'_>| {
        Some((
            Hello {
                newest: u16::from_le_bytes(fields.take()?),
                oldest: u16::from_le_bytes(fields.take()?),
                identity: Identity {
                    node: fields.take()?,
                    log_name: fields.take()?,
                    generation: u32::from_le_bytes(fields.take()?),
                },
                epoch: u64::from_le_bytes(fields.take()?),
                proof: None,
                rotates: false,
            },
            fields.take::<1>()?,
            fields.take::<32>()?,
            u32::from_le_bytes(fields.take()?),
        ))
    };
    let (hello, has_proof, proof, flags) = read(&mut fields).ok_or(Kind::Hello.malformed("too short"))?;
    let hello = Hello { rotates: flags & ROTATES != 0, ..hello };
    match has_proof {
        [0] => Ok(Frame::Hello(hello)),
        [1] => Ok(Frame::Hello(Hello { proof: Some(proof), ..hello })),
        _ => Err(Kind::Hello.malformed("neither with nor without a proof")),
    }
}

/// `why generation epoch`, little endian; frozen.
fn encode_refused(refused: &Refused) -> Vec<u8> {
    let mut meta = Vec::with_capacity(REFUSED_BYTES);
    meta.put_u8(refused.why as u8);
    meta.put_u32_le(refused.generation);
    meta.put_u64_le(refused.epoch);
    meta
}

fn decode_refused(meta: &[u8]) -> Result<Frame, FrameError> {
    let mut fields = Fields(meta);
    let read = |fields: &mut Fields<'_>| Some((fields.take::<1>()?, fields.take()?, fields.take()?));
    let (why, generation, epoch) = read(&mut fields).ok_or(Kind::Refused.malformed("too short"))?;
    let why = match why {
        [1] => Refusal::Version,
        [2] => Refusal::Stale,
        [3] => Refusal::Unknown,
        [4] => Refusal::LogName,
        _ => return Err(Kind::Refused.malformed("an unknown reason")),
    };
    let (generation, epoch) = (u32::from_le_bytes(generation), u64::from_le_bytes(epoch));
    Ok(Frame::Refused(Refused { why, generation, epoch }))
}

/// Reads fields of fixed size, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}
