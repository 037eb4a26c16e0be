//! What leaves big for the edge: messages for outside, and copies for travel windows, each as a unit with a sealed body.

use shared::address::Address;
use shared::chunk;
use shared::id::MessageId;
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::origin::{Origin, RECIPIENTS_BYTES_MAX};
use shared::seal::{FileKey, PublicKey};
use shared::store::{BodyKey, Rows, StoreError, Txn};
use shared::unit::{self, Asked, Id, OUTBOUND, Outbound, ToEdge, WindowCopy, carrier_id, part_id};

use super::{Site, recipient_key};
use crate::directory::srs;
use crate::error::Refused;
use crate::projection;
use crate::record::{
    HELD_FOR_REPORT, MESSAGES, Message, Named, RECIPIENTS, REPORTS, Recipient, SIGNATURES, Signatures,
    UNSETTLED, WINDOWS, WindowRow, revision_key,
};
use crate::travel::fill::{self, Pace};

const INTER_LANE: u8 = 2;
const BATCH_LANE: u8 = 3;
/// A sealed body up to this size travels inside its unit.
const INLINE_BYTES_MAX: u64 = 64 * 1024;
/// What sealing adds to a chunk of a stored body.
const SEAL_BYTES: u64 = 16;

/// Queues a copy of a message for a window: whether a client had it already, and how urgent it is.
pub fn queue_copy(
    txn: &mut Txn<'_>,
    site: &Site,
    message: &Message,
    id: MessageId,
    row: &WindowRow,
    (retrieved, pace): (bool, Pace),
) -> Result<(), StoreError> {
    let (window, reader) = (row.window.window, PublicKey(row.window.public_key));
    let wrapped_key = site
        .wrapped(id, message.revision, &reader)
        .map_err(|error| StoreError::Damaged(format!("a window's key ({error})")))?;
    let head = ToEdge::Copy(WindowCopy {
        window,
        message: id.0,
        revision: message.revision,
        wrapped_key,
        size: message.origin.size,
        retrieved,
    });
    // What is sent anew because the edge had ended the window is another unit than the one it has applied.
    let reader = match fill::trip(txn, &window)?.again {
        0 => window.to_vec(),
        again => [window.as_slice(), &again.to_be_bytes()].concat(),
    };
    queue_with_body(txn, &head, message, carrier_id(&id.0, message.revision, &reader), pace)
}

/// Queues a message for recipients outside.
pub fn queue_outbound(
    txn: &mut Txn<'_>,
    site: &Site,
    message: &Message,
    id: MessageId,
    recipients: Vec<(u32, String)>,
) -> Result<(), Refused> {
    let Some(edge) = projection::edge(txn)? else {
        return Err(Refused::new(
            "no edge is paired yet, so nothing can leave; run `edge-node invite`, then `big-node pair TICKET`",
        ));
    };
    let wrapped_key = site
        .wrapped(id, message.revision, &PublicKey(edge.sealing_key))
        .map_err(|error| Refused::new(error.to_string()))?;
    let unit = part_id(&id.0, message.revision, OUTBOUND, recipients.iter().map(|(index, _)| *index));
    let names = recipients.iter().map(|(_, address)| address.len()).sum::<usize>();
    if names > RECIPIENTS_BYTES_MAX {
        return Err(Refused::new("too many recipients with long names; send the message to fewer at once"));
    }
    let head = ToEdge::Outbound(Outbound {
        message: id.0,
        revision: message.revision,
        wrapped_key,
        size: message.origin.size,
        reverse_path: reverse_path(site, id, &message.origin),
        asked: asked(txn, id, &recipients)?,
        returns: message.origin.returns(),
        envelope_id: message.origin.named().map(ToOwned::to_owned),
        tls_wish: message.origin.tls_wish,
        recipients,
        body_8bit: message.origin.body_8bit,
        utf8_header: message.origin.utf8_header,
        signatures: signatures(txn, id, message.revision)?,
    });
    Ok(queue_with_body(txn, &head, message, unit, Pace::Live)?)
}

/// What is asked of recipients, whose rows are there.
pub fn asked(
    rows: &impl Rows,
    id: MessageId,
    recipients: &[(u32, String)],
) -> Result<Vec<Asked>, StoreError> {
    let (mut asked, mut octets): (Vec<Asked>, usize) = (Vec::new(), 0);
    for (index, address) in recipients {
        let row = rows.get::<Recipient>(RECIPIENTS, &recipient_key(id, *index))?;
        let (notify, original) = row.map_or((None, None), |row| (row.passed_on(), row.original));
        octets += address.len();
        match asked.last_mut().filter(|last| last.notify == notify && last.original == original) {
            Some(last) => last.count += 1,
            None => {
                octets += original.as_ref().map_or(0, String::len);
                asked.push(Asked { count: 1, notify, original });
            }
        }
    }
    if octets > RECIPIENTS_BYTES_MAX {
        // A unit does not hold all of it, and the mail is worth more than what its recipients were called.
        asked.iter_mut().for_each(|asked| asked.original = None);
    }
    Ok(asked)
}

/// Keeps what a revision of a message was signed with, for as long as it may have to be told to an edge again.
pub fn keep_signatures(
    txn: &mut Txn<'_>,
    id: MessageId,
    revision: u32,
    signatures: &str,
) -> Result<(), StoreError> {
    match signatures {
        "" => Ok(()),
        _ => txn.put(SIGNATURES, &revision_key(id, revision), &Signatures(signatures.into())),
    }
}

/// What a revision of a message was signed with; empty if it was not.
pub fn signatures(rows: &impl Rows, id: MessageId, revision: u32) -> Result<String, StoreError> {
    let row = rows.get::<Signatures>(SIGNATURES, &revision_key(id, revision))?;
    Ok(row.map_or_else(String::new, |Signatures(signatures)| signatures))
}

/// A recipient has the message from the edge, or never will. With the last one the signatures go, and what was held for a
/// report of failures, unless there are any.
pub fn settled(txn: &mut Txn<'_>, id: MessageId, recipient: &[u8]) -> Result<(), StoreError> {
    txn.delete(UNSETTLED, recipient)?;
    if is_awaited(txn, id)? {
        return Ok(());
    }
    for (key, _) in txn.prefix::<Signatures>(SIGNATURES, &id.0, usize::MAX)? {
        txn.delete(SIGNATURES, &key)?;
    }
    if txn.raw(HELD_FOR_REPORT, &id.0)?.is_none() {
        return Ok(());
    }
    // What failed earlier has waited for this, to be told in one report.
    if txn.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?.iter().any(|(_, row)| row.is_report_owed()) {
        txn.put(REPORTS, &id.0, &Named(id.0))?;
    }
    let_go(txn, id)
}

/// Whether somebody may still get a message from the edge.
pub fn is_awaited(rows: &impl Rows, id: MessageId) -> Result<bool, StoreError> {
    Ok(!rows.prefix::<Named>(UNSETTLED, &id.0, 1)?.is_empty())
}

/// Holds a message's body for whoever is told here if it cannot go on: the edge, once it has confirmed the unit, may have the
/// only other copy.
pub fn hold_for_report(txn: &mut Txn<'_>, id: MessageId, message: &Message) -> Result<(), StoreError> {
    txn.reference_body(message.body())?;
    txn.put(HELD_FOR_REPORT, &id.0, &Named(id.0))
}

/// Lets go of a body that was held for a report, if nobody waits for it at the edge and no report is owed.
pub fn let_go(txn: &mut Txn<'_>, id: MessageId) -> Result<(), StoreError> {
    if is_awaited(txn, id)?
        || txn.raw(REPORTS, &id.0)?.is_some()
        || txn.raw(HELD_FOR_REPORT, &id.0)?.is_none()
    {
        return Ok(());
    }
    txn.delete(HELD_FOR_REPORT, &id.0)?;
    match txn.get::<Message>(MESSAGES, &id.0)? {
        Some(message) => txn.release_body(message.body()),
        None => Ok(()),
    }
}

/// The reverse-path under which a message leaves. A stranger's is not ours to speak for: what is
/// forwarded for them bears an address of ours that brings reports of failure home.
pub fn reverse_path(site: &Site, id: MessageId, origin: &Origin) -> Option<String> {
    let policy = &site.policy;
    let sender: Address = origin.reverse_path.as_ref()?.parse().ok()?;
    if policy.is_ours(sender.domain()) {
        return origin.reverse_path.clone();
    }
    let wrapped = srs::wrap(&policy.srs_key, policy.domains.first()?, &sender, id, origin.accepted_at);
    wrapped.map(|address| address.to_string())
}

/// Queues a unit that carries the message's body; the unit holds the body until it is confirmed.
fn queue_with_body(
    txn: &mut Txn<'_>,
    head: &ToEdge,
    message: &Message,
    id: Id,
    pace: Pace,
) -> Result<(), StoreError> {
    let (lane, body) = match (queued_body(txn, message)?, pace) {
        (small @ QueuedBody::Inline { .. }, Pace::Live) => (INTER_LANE, small),
        (body, _) => (BATCH_LANE, body),
    };
    lane::queue(txn, &QueuedUnit { id, lane, after: None, head: unit::encode(head), body }).map(drop)
}

/// How a message's body goes with a unit, which holds it from now on.
pub fn queued_body(txn: &mut Txn<'_>, message: &Message) -> Result<QueuedBody, StoreError> {
    if !txn.reference_body(message.body())? {
        return Err(StoreError::Damaged("a message to be sent has no body: it".into()));
    }
    let key = message.origin.body;
    let chunks = message.origin.size / chunk::CHUNK_BYTES as u64 + 1;
    let sealed = txn.body_length(BodyKey(key))?.unwrap_or(u64::MAX).saturating_add(chunks * SEAL_BYTES);
    Ok(match sealed {
        0..=INLINE_BYTES_MAX => QueuedBody::Inline { key },
        _ => QueuedBody::Ahead { key },
    })
}

/// The key and the reader of the sealed body that a queued unit carries.
pub fn outbound_key(rows: &impl Rows, site: &Site, head: &[u8]) -> Result<Option<FileKey>, StoreError> {
    let (message, revision, reader) = match unit::decode::<ToEdge>(head) {
        Some(ToEdge::Outbound(outbound)) => {
            (outbound.message, outbound.revision, projection::edge(rows)?.map(|edge| edge.sealing_key))
        }
        Some(ToEdge::Copy(copy)) => {
            let row = rows.get::<WindowRow>(WINDOWS, &copy.window)?;
            (copy.message, copy.revision, row.map(|row| row.window.public_key))
        }
        Some(ToEdge::Revise(revise)) => {
            (revise.message, revise.revision, projection::edge(rows)?.map(|edge| edge.sealing_key))
        }
        Some(ToEdge::ReviseCopy(copy)) => {
            let row = rows.get::<WindowRow>(WINDOWS, &copy.window)?;
            (copy.message, copy.revision, row.map(|row| row.window.public_key))
        }
        _ => return Ok(None),
    };
    let secret = &site.outbound_secret;
    Ok(reader.map(|reader| FileKey::of_outbound(secret, MessageId(message), revision, &PublicKey(reader))))
}
