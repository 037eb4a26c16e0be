//! Units that both sides agree on, so that a script need not spell them out.

use std::sync::LazyLock;

use bytes::Bytes;
use link_proto::unit::{Body, Lane, Position, Unit, UnitId};

/// Whose units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The node under test.
    Own,
    /// Its partner.
    Partner,
}

/// Numbers up to which positions are kept; above, a position is one that nobody can prove.
const KEPT: u64 = 512;
/// Bytes of a large head: four of them fill a batch.
const LARGE: usize = 256 * 1024;

type Positions = [[Vec<Position>; 4]; 2];

static POSITIONS: LazyLock<Positions> = LazyLock::new(|| {
    [Side::Own, Side::Partner].map(|side| {
        Lane::ALL.map(|lane| {
            let mut positions = vec![Position::default()];
            let mut last = Position::default();
            for number in 1..=KEPT {
                last = last.after(&unit(side, lane, number));
                positions.push(last);
            }
            positions
        })
    })
});
static HEAD: LazyLock<Bytes> = LazyLock::new(|| vec![b'h'; LARGE].into());

/// The id of the unit `number` of a lane.
pub(super) fn id(side: Side, lane: Lane, number: u64) -> UnitId {
    let mut id = [side as u8; 16];
    id[1] = lane.index();
    id[8..].copy_from_slice(&number.to_be_bytes());
    id
}

/// The unit `number` of a lane.
pub(super) fn unit(side: Side, lane: Lane, number: u64) -> Unit {
    let body = match number % 3 {
        0 => Body::None,
        1 => Body::Inline(Bytes::from_static(b"a small body")),
        _ => Body::Staged { length: number, digest: [lane.index(); 32] },
    };
    let after = number.is_multiple_of(4).then(|| id(side, lane, number / 2));
    Unit { number, id: id(side, lane, number), after, head: Bytes::from_static(b"a head"), body }
}

/// The same with the largest head there is.
pub(super) fn large(side: Side, lane: Lane, number: u64) -> Unit {
    Unit { head: HEAD.clone(), body: Body::None, ..unit(side, lane, number) }
}

/// Where a lane stands after its unit `number`.
pub(super) fn position(side: Side, lane: Lane, number: u64) -> Position {
    let kept = &POSITIONS[side as usize][usize::from(lane.index())];
    let known = usize::try_from(number).ok().and_then(|number| kept.get(number));
    known.copied().unwrap_or(Position { number, chain: [0xee; 32] })
}
