//! Mail of a big whose store is gone. The one in its place knows nothing of it, so that nobody waits by its word says nothing:
//! such mail is told apart until it has left.

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::MessageId;
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn};
use shared::trace;

use crate::maintenance::for_each_message;
use crate::record::{Doubt, QueueRecipient};
use crate::revise::Waiting;

/// Message to [`Former`].
const FORMER: Table = Table("queue-former");

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Former;
row!(Former, 1);

/// Big has a new store, at `now` in milliseconds since 1970: what waits is the former one's, and goes on.
pub fn take_over(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    for_each_message(txn, |txn, id| {
        txn.put(FORMER, &id.0, &Former)?;
        go_on(txn, id, now)
    })
}

/// Whether a message is a former big's.
pub fn is(rows: &impl Rows, message: MessageId) -> Result<bool, StoreError> {
    Ok(rows.raw(FORMER, &message.0)?.is_some())
}

/// Nothing of it waits any more.
pub fn forget(txn: &mut Txn<'_>, message: MessageId) -> Result<(), StoreError> {
    txn.delete(FORMER, &message.0)
}

/// As nobody can say who has got the message, those who were held back go on: a second copy is better than none. Who was to
/// get a later text than this one waits for the operator.
pub fn go_on(txn: &mut Txn<'_>, message: MessageId, now: u64) -> Result<(), StoreError> {
    let mut waiting = Waiting::load(txn, message)?;
    let mut count = 0;
    let held_back =
        |recipient: &&mut QueueRecipient| matches!(recipient.doubt, Some(Doubt::Restored | Doubt::Retried));
    for recipient in waiting.recipients().filter(held_back) {
        (recipient.doubt, recipient.next_attempt_at) = (None, now);
        count += 1;
    }
    if count == 0 {
        return Ok(());
    }
    waiting.store(txn)?;
    let text = format!("big has a new store, and cannot say who has got it: goes on ({count} recipients)");
    trace::note(txn, message, now, text)
}
