//! What one node tells the other, and what a store keeps of it, out of any bytes.

use std::fmt::Debug;

use shared::lane::{
    DeadLetter, DecisionRow, Gone, LaneRow, NodeIdentity, Parked, PartnerRow, QueuedUnit, RejectedRow,
};
use shared::origin::Origin;
use shared::store::Row;
use shared::unit::{self, AddressRow, ToBig, ToEdge, Welcome, Window};

use super::script::Script;

/// Each type, by number. New ones are put at the end: corpora count on the numbers.
const TYPES: [fn(&[u8]); 15] = [
    head::<ToBig>,
    head::<ToEdge>,
    origin,
    row::<AddressRow>,
    row::<Window>,
    head::<Welcome>,
    row::<LaneRow>,
    row::<QueuedUnit>,
    row::<NodeIdentity>,
    row::<PartnerRow>,
    row::<RejectedRow>,
    row::<Parked>,
    row::<Gone>,
    row::<DecisionRow>,
    row::<DeadLetter>,
];

/// The first byte says which type, the others are its bytes.
///
/// # Panics
/// If something that can be read is something else once it was written and read again.
pub fn units(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let number = usize::from(script.byte());
    TYPES[number % TYPES.len()](script.rest());
}

fn head<R: Row + PartialEq + Debug>(bytes: &[u8]) {
    if let Some(head) = unit::decode::<R>(bytes) {
        assert_eq!(unit::decode::<R>(&unit::encode(&head)).as_ref(), Some(&head));
    }
}

fn row<R: Row + PartialEq + Debug>(bytes: &[u8]) {
    if let Some(row) = R::decode(bytes) {
        assert_eq!(R::decode(&row.encode()).as_ref(), Some(&row));
    }
}

fn origin(bytes: &[u8]) {
    row::<Origin>(bytes);
    if let Some(origin) = Origin::decode(bytes) {
        let bounded = origin.bounded();
        assert_eq!(bounded.clone().bounded(), bounded, "what was cut to fit does not fit");
    }
}
