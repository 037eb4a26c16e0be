//! Who may be sent a message at this moment, on disk: it is noted before a host is sent the message's end, and forgotten
//! once what the host said is known, for those who are done in the commit that records it. What a node finds noted when it starts is *undetermined*: it ended between the
//! final dot and the record of the answer (RFC 1047).

use std::collections::BTreeMap;

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::MessageId;
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn, behind};
use shared::topology::Outbound;
use shared::unit::{DeliveryState, Outcome};

use super::ROWS_AT_ONCE;
use crate::border::{self, Count};
use crate::delivery;
use crate::record::Doubt;
use crate::revise::{Waiting, message_of};

/// Message, index of a recipient to [`Leaving`].
const LEAVING: Table = Table("queue-leaving");

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Leaving;
row!(Leaving, 1);

fn key(message: MessageId, recipient: u32) -> Vec<u8> {
    [message.0.as_slice(), &recipient.to_be_bytes()].concat()
}

/// Notes that a host is about to be sent a message for these recipients.
pub fn note(txn: &mut Txn<'_>, message: MessageId, recipients: &[u32]) -> Result<(), StoreError> {
    recipients.iter().try_for_each(|recipient| txn.put(LEAVING, &key(message, *recipient), &Leaving))
}

/// It is known what the host has said of these recipients.
pub fn forget(txn: &mut Txn<'_>, message: MessageId, recipients: &[u32]) -> Result<(), StoreError> {
    recipients.iter().try_for_each(|recipient| txn.delete(LEAVING, &key(message, *recipient)))
}

/// The node starts at `now`, milliseconds since 1970: whoever is noted is in doubt, which big is told and which is counted
/// once for each message. That was an attempt: it is tried again after the usual wait.
pub fn settle(txn: &mut Txn<'_>, outbound: &Outbound, now: u64) -> Result<(), StoreError> {
    let mut cursor = Some(Vec::new());
    let mut noted: BTreeMap<MessageId, Vec<u32>> = BTreeMap::new();
    while let Some(from) = cursor.take() {
        let found = txn.range::<Leaving>(LEAVING, &from, None, ROWS_AT_ONCE)?;
        cursor = behind(&found, ROWS_AT_ONCE);
        for (key, _) in found {
            let recipient = key.last_chunk().copied().map_or(0, u32::from_be_bytes);
            noted.entry(message_of(&key)).or_default().push(recipient);
        }
    }
    for (message, recipients) in noted {
        settle_message(txn, message, &recipients, outbound, now)?;
        forget(txn, message, &recipients)?;
    }
    Ok(())
}

fn settle_message(
    txn: &mut Txn<'_>,
    message: MessageId,
    recipients: &[u32],
    outbound: &Outbound,
    now: u64,
) -> Result<(), StoreError> {
    let mut waiting = Waiting::load(txn, message)?;
    let mut doubtful = Vec::new();
    for recipient in waiting.recipients().filter(|recipient| recipients.contains(&recipient.index)) {
        recipient.in_doubt = true;
        // Of what waits since a restore big knows more than this edge.
        if matches!(recipient.doubt, None | Some(Doubt::Retried)) {
            recipient.state = DeliveryState::Deferred;
            recipient.attempts = recipient.attempts.saturating_add(1);
            recipient.next_attempt_at = delivery::again_at(outbound, recipient.attempts, now);
            recipient.text = "the edge stopped before it had recorded what the host said to it".into();
            doubtful.push(recipient.clone());
        }
    }
    waiting.store(txn)?;
    if !doubtful.is_empty() {
        border::count(txn, Count::Undetermined)?;
    }
    for recipient in doubtful {
        let outcome = Outcome {
            message: message.0,
            recipient: recipient.index,
            state: recipient.state,
            at: now,
            host: None,
            tls: None,
            relay: None,
            text: recipient.text,
            status: "4.4.2".into(),
            in_doubt: true,
            host_reports: false,
            next_attempt_at: (!recipient.held).then_some(recipient.next_attempt_at),
        };
        delivery::tell(txn, &recipient.address, outcome)?;
    }
    Ok(())
}
