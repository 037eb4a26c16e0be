//! What one node tells the other, and what a store keeps of it, out of any bytes.

use std::fmt::Debug;

use shared::lane::{
    DeadLetter, DecisionRow, Gone, LaneRow, NodeIdentity, Parked, PartnerRow, QueuedUnit, RejectedRow,
};
use shared::origin::Origin;
use shared::store::Row;
use shared::unit::{self, AddressRow, ToBig, ToEdge, Welcome, Window};

/// What can be asked of a type's bytes.
struct Type {
    /// Reads them and puts down what they are; whether they are anything.
    read: fn(&[u8]) -> bool,
    /// Reads them, and writes what they are; that is the same again.
    again: fn(&[u8]) -> Option<Vec<u8>>,
}

impl Type {
    const fn head<R: Row + PartialEq + Debug>() -> Self {
        Self { read: |bytes| unit::decode::<R>(bytes).is_some(), again: head::<R> }
    }

    const fn row<R: Row + PartialEq + Debug>() -> Self {
        Self { read: |bytes| R::decode(bytes).is_some(), again: row::<R> }
    }
}

/// Each type, by number. New ones are put at the end: corpora count on the numbers.
const TYPES: [Type; 15] = [
    Type::head::<ToBig>(),
    Type::head::<ToEdge>(),
    Type { again: origin, ..Type::row::<Origin>() },
    Type::row::<AddressRow>(),
    Type::row::<Window>(),
    Type::head::<Welcome>(),
    Type::row::<LaneRow>(),
    Type::row::<QueuedUnit>(),
    Type::row::<NodeIdentity>(),
    Type::row::<PartnerRow>(),
    Type::row::<RejectedRow>(),
    Type::row::<Parked>(),
    Type::row::<Gone>(),
    Type::row::<DecisionRow>(),
    Type::row::<DeadLetter>(),
];

/// The first byte says which type, the others are its bytes.
fn of(bytes: &[u8]) -> (&'static Type, &[u8]) {
    let (number, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    (&TYPES[usize::from(*number) % TYPES.len()], bytes)
}

/// Whether the bytes behind the first one are a value of the type that it says.
pub fn is_read(bytes: &[u8]) -> bool {
    let (of_type, bytes) = of(bytes);
    (of_type.read)(bytes)
}

/// What is read of the bytes behind the first one, as this code writes it.
///
/// # Panics
/// If something that can be read is something else once it was written and read again.
pub fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
    let (of_type, bytes) = of(bytes);
    (of_type.again)(bytes)
}

/// The first byte says which type, the others are its bytes.
///
/// # Panics
/// If something that can be read is something else once it was written and read again.
pub fn units(bytes: &[u8]) {
    let _ = rewritten(bytes);
}

fn head<R: Row + PartialEq + Debug>(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = unit::decode::<R>(bytes)?;
    let again = unit::encode(&head);
    assert_eq!(unit::decode::<R>(&again).as_ref(), Some(&head));
    Some(again)
}

fn row<R: Row + PartialEq + Debug>(bytes: &[u8]) -> Option<Vec<u8>> {
    let row = R::decode(bytes)?;
    let again = row.encode();
    assert_eq!(R::decode(&again).as_ref(), Some(&row));
    Some(again)
}

fn origin(bytes: &[u8]) -> Option<Vec<u8>> {
    let again = row::<Origin>(bytes)?;
    let bounded = Origin::decode(bytes)?.bounded();
    assert_eq!(bounded.clone().bounded(), bounded, "what was cut to fit does not fit");
    Some(again)
}
