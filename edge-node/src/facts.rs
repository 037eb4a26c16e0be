//! Facts for big: what has become of mail, of windows and of the directory here. Small, and never behind mail.

use shared::id::MessageId;
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::store::{StoreError, Txn};
use shared::unit::{Id, ToBig, encode};

/// The lane by which facts go.
pub const EVENT_LANE: u8 = 1;

/// Tells big a fact.
pub fn tell(txn: &mut Txn<'_>, fact: &ToBig) -> Result<(), StoreError> {
    tell_after(txn, fact, None)
}

/// Tells big a fact that it is to take after the unit `after`.
pub fn tell_after(txn: &mut Txn<'_>, fact: &ToBig, after: Option<Id>) -> Result<(), StoreError> {
    let (id, head, body) = (MessageId::generate().0, encode(fact), QueuedBody::None);
    lane::queue(txn, &QueuedUnit { id, lane: EVENT_LANE, after, head, body }).map(drop)
}
