//! The rkyv records of the wire, and their checks.
//!
//! Flat types only: integers, arrays, `Vec`, `String`, `Option` and enums; no maps, no shared
//! pointers, no recursion. A record of a (kind, version) never changes: a new layout is a new version.
//! rkyv validates memory and not meaning, and a flipped bit often still validates; so everything is
//! checked here once more before it becomes a [`Frame`].

use bytes::Bytes;
use rkyv::rancor::Error;
use rkyv::{Archive, Deserialize, Serialize};

use super::{
    Batch, Compare, CompareLane, Confirmed, Credit, Frame, FrameError, Held, Kind, OFFER_UNITS_MAX,
    REASON_BYTES_MAX, REASONS_BYTES_MAX, REJECTIONS_MAX, Resume, Stop, WELCOME_BYTES_MAX, length_on_wire,
};
use crate::host::{Applied, Rejection};
use crate::unit::{
    BATCH_UNITS_MAX, Body, Digest, HEAD_BYTES_MAX, INLINE_BODY_BYTES_MAX, Lane, Position, Unit, UnitId,
};

#[derive(Archive, Serialize, Deserialize)]
struct WirePosition {
    number: u64,
    chain: Digest,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireLane {
    confirmed: WirePosition,
    next: u64,
    received: WirePosition,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireCompare {
    held: [u8; 16],
    lanes: [WireLane; 4],
}

#[derive(Archive, Serialize, Deserialize)]
enum WireBody {
    None,
    Inline(u32),
    Staged { length: u64, digest: Digest },
}

#[derive(Archive, Serialize, Deserialize)]
struct WireUnit {
    number: u64,
    id: UnitId,
    after: Option<UnitId>,
    head: u32,
    body: WireBody,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireBatch {
    chain: Digest,
    units: Vec<WireUnit>,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireRejection {
    number: u64,
    reason: String,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireConfirmed {
    lane: u8,
    position: WirePosition,
    refused: Vec<WireRejection>,
    deferred: Vec<WireRejection>,
    units: u64,
    bytes: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireResume {
    position: WirePosition,
    rebase: bool,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireCredit {
    lane: u8,
    units: u64,
    bytes: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct WirePart {
    unit: UnitId,
    length: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct WireHeld {
    unit: UnitId,
    length: u64,
    digest: Digest,
}

/// The meta of every kind but HELLO and REFUSED, which `super` lays out by hand.
pub(super) fn encode(frame: &Frame) -> Vec<u8> {
    let bytes = match frame {
        Frame::Hello(_) | Frame::Refused(_) => return Vec::new(),
        Frame::Welcome(bytes) => return bytes.clone(),
        Frame::BodyFailed(unit) => return unit.to_vec(),
        Frame::NextKey(key) => return key.to_vec(),
        Frame::Stopped(stop) => return vec![*stop as u8],
        Frame::Compare(compare) => rkyv::to_bytes::<Error>(&WireCompare {
            held: compare.held,
            lanes: compare.lanes.map(|lane| WireLane {
                confirmed: lane.confirmed.into(),
                next: lane.next,
                received: lane.received.into(),
            }),
        }),
        Frame::Offer(ids) => return ids.concat(),
        Frame::Known(bits) => return bits.iter().map(|bit| u8::from(*bit)).collect(),
        Frame::Credit(lane, credit) => rkyv::to_bytes::<Error>(&WireCredit {
            lane: lane.index(),
            units: credit.units,
            bytes: credit.bytes,
        }),
        Frame::BodyPart(unit, length) => rkyv::to_bytes::<Error>(&WirePart { unit: *unit, length: *length }),
        Frame::Resume(resume) => {
            rkyv::to_bytes::<Error>(&WireResume { position: resume.position.into(), rebase: resume.rebase })
        }
        Frame::Batch(batch) => rkyv::to_bytes::<Error>(&WireBatch {
            chain: batch.chain,
            units: batch.units.iter().map(WireUnit::from).collect(),
        }),
        Frame::Confirmed(confirmed) => rkyv::to_bytes::<Error>(&WireConfirmed::from(confirmed)),
        Frame::BodyHeld(held) => {
            rkyv::to_bytes::<Error>(&WireHeld { unit: held.unit, length: held.length, digest: held.digest })
        }
    };
    bytes.expect("flat records within the limits always serialize").into_vec()
}

/// Reads and checks the meta and raw parts of every kind but HELLO and REFUSED.
pub(super) fn decode(kind: Kind, meta: &[u8], raw: Bytes) -> Result<Frame, FrameError> {
    match kind {
        Kind::Hello | Kind::Refused => Err(kind.malformed("read in the wrong place")),
        Kind::Welcome if meta.len() <= WELCOME_BYTES_MAX => Ok(Frame::Welcome(meta.to_vec())),
        Kind::Welcome => Err(kind.malformed("too long")),
        Kind::Compare => {
            let wire: WireCompare = read(kind, meta)?;
            let lanes = wire.lanes.map(|lane| CompareLane {
                confirmed: lane.confirmed.into(),
                next: lane.next,
                received: lane.received.into(),
            });
            Ok(Frame::Compare(Box::new(Compare { held: wire.held, lanes })))
        }
        Kind::Resume => {
            let wire: WireResume = read(kind, meta)?;
            Ok(Frame::Resume(Resume { position: wire.position.into(), rebase: wire.rebase }))
        }
        Kind::Offer => match meta.as_chunks() {
            (ids, []) if !ids.is_empty() && ids.len() <= OFFER_UNITS_MAX => Ok(Frame::Offer(ids.to_vec())),
            _ => Err(kind.malformed("not a list of ids")),
        },
        Kind::Known if meta.iter().all(|bit| *bit < 2) => {
            Ok(Frame::Known(meta.iter().map(|bit| *bit == 1).collect()))
        }
        Kind::Known => Err(kind.malformed("neither known nor unknown")),
        Kind::Credit => {
            let WireCredit { lane, units, bytes } = read(kind, meta)?;
            let lane = Lane::from_index(lane).ok_or(kind.malformed("an unknown lane"))?;
            Ok(Frame::Credit(lane, Credit { units, bytes }))
        }
        Kind::BodyPart => {
            let WirePart { unit, length } = read(kind, meta)?;
            Ok(Frame::BodyPart(unit, length))
        }
        Kind::Stopped => stop(meta).map(Frame::Stopped).ok_or(kind.malformed("an unknown reason")),
        Kind::Batch => batch(&read::<WireBatch, _>(kind, meta)?, raw).map(Frame::Batch),
        Kind::Confirmed => confirmed(read(kind, meta)?).map(Frame::Confirmed),
        Kind::BodyHeld => {
            let WireHeld { unit, length, digest } = read(kind, meta)?;
            Ok(Frame::BodyHeld(Held { unit, length, digest }))
        }
        Kind::NextKey => meta.try_into().map(Frame::NextKey).map_err(|_| kind.malformed("not a key")),
        Kind::BodyFailed => {
            UnitId::try_from(meta).map(Frame::BodyFailed).map_err(|_| kind.malformed("not a unit's id"))
        }
    }
}

fn read<T, A>(kind: Kind, meta: &[u8]) -> Result<T, FrameError>
where
    T: Archive<Archived = A>,
    A: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, Error>>
        + Deserialize<T, rkyv::api::high::HighDeserializer<Error>>,
{
    rkyv::from_bytes::<T, Error>(meta).map_err(|_| kind.malformed("its record is not valid"))
}

fn stop(meta: &[u8]) -> Option<Stop> {
    match meta {
        [1] => Some(Stop::Differs),
        [2] => Some(Stop::ReceiverPutBack),
        [3] => Some(Stop::OlderThanSafety),
        [4] => Some(Stop::SenderPutBack),
        _ => None,
    }
}

fn batch(wire: &WireBatch, mut raw: Bytes) -> Result<Batch, FrameError> {
    let wrong = |what| Kind::Batch.malformed(what);
    if wire.units.is_empty() || wire.units.len() > BATCH_UNITS_MAX {
        return Err(wrong("none or too many units"));
    }
    let mut units: Vec<Unit> = Vec::with_capacity(wire.units.len());
    for unit in &wire.units {
        if units.last().is_some_and(|last| last.number.checked_add(1) != Some(unit.number)) {
            return Err(wrong("a gap in its numbers"));
        }
        let head = cut(&mut raw, unit.head, HEAD_BYTES_MAX).ok_or(wrong("a head of the wrong length"))?;
        let body = match unit.body {
            WireBody::None => Body::None,
            WireBody::Inline(length) => Body::Inline(
                cut(&mut raw, length, INLINE_BODY_BYTES_MAX).ok_or(wrong("a body of the wrong length"))?,
            ),
            WireBody::Staged { length, digest } => Body::Staged { length, digest },
        };
        units.push(Unit { number: unit.number, id: unit.id, after: unit.after, head, body });
    }
    if !raw.is_empty() {
        return Err(wrong("bytes that belong to no unit"));
    }
    Ok(Batch { units, chain: wire.chain })
}

/// Takes `length` bytes off the front, if they are there and within `max`.
fn cut(raw: &mut Bytes, length: u32, max: usize) -> Option<Bytes> {
    let length = usize::try_from(length).ok()?;
    (length <= max && length <= raw.len()).then(|| raw.split_to(length))
}

fn confirmed(wire: WireConfirmed) -> Result<Confirmed, FrameError> {
    let wrong = |what| Kind::Confirmed.malformed(what);
    let lane = Lane::from_index(wire.lane).ok_or(wrong("an unknown lane"))?;
    if wire.refused.len() + wire.deferred.len() > REJECTIONS_MAX {
        return Err(wrong("too many rejections"));
    }
    let applied = Applied { refused: rejections(wire.refused)?, deferred: rejections(wire.deferred)? };
    let credit = Credit { units: wire.units, bytes: wire.bytes };
    Ok(Confirmed { lane, position: wire.position.into(), applied, credit })
}

fn rejections(wire: Vec<WireRejection>) -> Result<Vec<Rejection>, FrameError> {
    if wire.iter().any(|rejection| rejection.reason.len() > REASON_BYTES_MAX) {
        return Err(Kind::Confirmed.malformed("a reason that is too long"));
    }
    if !wire.is_sorted_by(|left, right| left.number < right.number) {
        return Err(Kind::Confirmed.malformed("rejections out of order"));
    }
    Ok(wire.into_iter().map(|WireRejection { number, reason }| Rejection { number, reason }).collect())
}

impl From<Position> for WirePosition {
    fn from(position: Position) -> Self {
        Self { number: position.number, chain: position.chain }
    }
}

impl From<WirePosition> for Position {
    fn from(wire: WirePosition) -> Self {
        Self { number: wire.number, chain: wire.chain }
    }
}

impl From<&Unit> for WireUnit {
    fn from(unit: &Unit) -> Self {
        let body = match &unit.body {
            Body::None => WireBody::None,
            Body::Inline(bytes) => WireBody::Inline(length_on_wire(bytes.len())),
            Body::Staged { length, digest } => WireBody::Staged { length: *length, digest: *digest },
        };
        let head = length_on_wire(unit.head.len());
        Self { number: unit.number, id: unit.id, after: unit.after, head, body }
    }
}

impl From<&Confirmed> for WireConfirmed {
    fn from(confirmed: &Confirmed) -> Self {
        let Applied { refused, deferred } = &confirmed.applied;
        let each = REASONS_BYTES_MAX.checked_div(refused.len() + deferred.len()).unwrap_or_default();
        let wire = |list: &[Rejection]| list.iter().map(|one| shortened(one, each)).collect();
        Self {
            lane: confirmed.lane.index(),
            position: confirmed.position.into(),
            refused: wire(refused),
            deferred: wire(deferred),
            units: confirmed.credit.units,
            bytes: confirmed.credit.bytes,
        }
    }
}

/// A rejection whose reason is cut, at a character's boundary, to what the frame has room for.
fn shortened(rejection: &Rejection, room: usize) -> WireRejection {
    let end = rejection.reason.floor_char_boundary(room.min(REASON_BYTES_MAX));
    let reason = rejection.reason.get(..end).unwrap_or_default().to_owned();
    WireRejection { number: rejection.number, reason }
}
