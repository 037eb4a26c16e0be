//! Telling an author of failures: one DSN (RFC 3464) for each, from the node where the author lives.
//!
//! A failure and the note that a report is owed are one commit; the report and the note's removal are
//! another. So a report is written once, whatever happens between them.

use std::sync::Arc;

use shared::address::Address;
use shared::id::{MessageId, unix_millis};
use shared::mime::{Action, DsnRecipient, DsnReport, dsn};
use shared::origin::Channel;
use shared::store::{Rows, Store};
use shared::topology::Topology;
use shared::unit::DeliveryState;

use crate::error::Refused;
use crate::gateway::queue;
use crate::mail::{self, Site};
use crate::node::{Node, incoming, signed};
use crate::record::{MESSAGES, Message, Named, RECIPIENTS, REPORTS, Recipient};

const AT_ONCE: usize = 100;
/// Largest message whose header is read for a report.
pub(crate) const ORIGINAL_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Writes the reports that are owed.
pub async fn write_owed(node: &Arc<Node>) -> Result<(), Refused> {
    for (_, Named(id)) in node.store.read()?.prefix::<Named>(REPORTS, &[], AT_ONCE)? {
        // One that cannot be written does not keep the others waiting.
        if let Err(error) = write_one(node, MessageId(id)).await {
            tracing::warn!(message = %MessageId(id), %error, "a delivery report could not be written yet");
        }
    }
    Ok(())
}

async fn write_one(node: &Arc<Node>, id: MessageId) -> Result<(), Refused> {
    let snapshot = node.store.read()?;
    let message = snapshot.get::<Message>(MESSAGES, &id.0)?;
    let rows = snapshot.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?;
    let failed: Vec<_> =
        rows.into_iter().filter(|(_, row)| row.state == DeliveryState::Failed && !row.reported).collect();
    let author = message.as_ref().and_then(|message| message.origin.reverse_path.as_deref());
    let author = author.and_then(|path| path.parse::<Address>().ok());
    let report = match (&message, author) {
        (Some(message), Some(author)) if !failed.is_empty() => {
            let original = node.store.body(message.body());
            // Without the original, its header is missing from the report; the failure is told all the same.
            let original = original.and_then(|reader| mail::content(reader, message, ORIGINAL_BYTES_MAX));
            let recipients =
                failed.iter().filter_map(|(_, row)| described(row, Action::Failed, None)).collect();
            let (node, original) = ((&node.store, &*node.site, &node.topology), original.unwrap_or_default());
            // Signing takes a while.
            let composed =
                tokio::task::block_in_place(|| compose(node, message, &author, recipients, original));
            Some(composed?)
        }
        // A null reverse-path is told nothing (RFC 5321 §4.5.5).
        _ => None,
    };
    let site = Arc::clone(&node.site);
    let written = node.store.commit(move |txn| {
        for (key, mut row) in failed {
            row.reported = true;
            txn.put(RECIPIENTS, &key, &row)?;
        }
        // More may have failed since the report was composed: it is owed still.
        let now_failed = txn.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?;
        let owed = |row: &Recipient| row.state == DeliveryState::Failed && !row.reported;
        if !now_failed.iter().any(|(_, row)| owed(row)) {
            txn.delete(REPORTS, &id.0)?;
            queue::sweep(txn, id)?;
        }
        match report {
            Some(incoming) => mail::receive(txn, &site, incoming, &[], unix_millis()),
            None => Ok(()),
        }
    });
    written.await.map(drop)
}

/// Whole seconds.
pub(crate) fn seconds(millis: u64) -> i64 {
    i64::try_from(millis / 1000).unwrap_or(i64::MAX)
}

/// What a report says of a recipient; attempts go on until `retry_until`, in seconds since 1970. `None` if their address
/// cannot be written.
pub(crate) fn described(row: &Recipient, action: Action, retry_until: Option<i64>) -> Option<DsnRecipient> {
    let is_attempted = !matches!(row.state, DeliveryState::Queued | DeliveryState::Relaying);
    Some(DsnRecipient {
        // Its author knows the address that was written to, not where that one leads.
        recipient: row.via.as_ref().unwrap_or(&row.address).parse().ok()?,
        original: None,
        action,
        status: if row.status.is_empty() { "4.0.0".into() } else { row.status.clone() },
        // Strangers are not told addresses inside, nor anybody where a person forwards to.
        remote_mta: row.host.clone().filter(|_| row.gateway.is_none() && row.forwarder.is_none()),
        diagnostic: Some(match &row.forwarder {
            Some(_) => "it could not be forwarded".into(),
            None => row.text.clone(),
        }),
        last_attempt: is_attempted.then(|| seconds(row.at)),
        retry_until,
    })
}

/// A report to `author` about a message, whose header is in `original`.
pub(crate) fn compose(
    (store, site, topology): (&Store, &Site, &Topology),
    message: &Message,
    author: &Address,
    recipients: Vec<DsnRecipient>,
    original: Vec<u8>,
) -> Result<mail::Incoming, Refused> {
    let id = MessageId::generate();
    let report = DsnReport {
        id,
        from: topology.site.postmaster.clone(),
        to: author.clone(),
        date: seconds(unix_millis()),
        reporting_mta: topology.edge.hostname.clone(),
        arrival: Some(seconds(message.origin.accepted_at)),
        envelope_id: message.origin.envelope_id.clone(),
        original_message_id: message.origin.message_id.clone(),
        recipients,
        original,
    };
    let (content, to) = (dsn(&report), vec![author.to_string()]);
    let made = incoming(store, id, Channel::Report, None, to, &content)?;
    Ok(signed(store, site, made, &content)?)
}
