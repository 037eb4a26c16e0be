//! What an attempt to deliver has brought for one recipient, whoever made it: the edge or a gateway's runner.

use shared::id::MessageId;
use shared::store::{Rows, StoreError, Txn};
use shared::trace;
use shared::unit::{DeliveryState, Outcome};

use crate::mail::{self, recipient_key};
use crate::record::{Named, RECIPIENTS, REPORTS, Recipient};

/// Characters of what a host says about a delivery.
const TEXT_MAX: usize = 512;

/// What became of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is recorded, or the recipient was at their end already.
    Recorded,
    /// There is no such recipient.
    Nobody,
    /// Their copy goes another way: whoever says this cannot know.
    AnotherWay,
}

/// Records an outcome: the recipient's state, the trace, and whether its author has to be told.
/// `by` is the gateway that made the attempt; without one, it was the edge.
pub fn settle(txn: &mut Txn<'_>, outcome: &Outcome, by: Option<&str>) -> Result<Settled, StoreError> {
    let id = MessageId(outcome.message);
    let key = recipient_key(id, outcome.recipient);
    let Some(mut row) = txn.get::<Recipient>(RECIPIENTS, &key)? else { return Ok(Settled::Nobody) };
    if row.gateway.as_deref() != by {
        return Ok(Settled::AnotherWay);
    }
    if matches!(row.state, DeliveryState::Relayed | DeliveryState::Failed | DeliveryState::Delivered) {
        return Ok(Settled::Recorded);
    }
    // What was withdrawn waits no more. That it has left all the same, from an edge that was put back by hand, is
    // said.
    if row.state == DeliveryState::Withdrawn && outcome.state != DeliveryState::Relayed {
        return Ok(Settled::Recorded);
    }
    let cut = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
    row.state = outcome.state;
    row.at = outcome.at;
    row.host = outcome.host.as_deref().map(cut);
    row.tls = outcome.tls.as_deref().map(cut);
    row.relay = outcome.relay.as_deref().map(cut);
    row.text = cut(&outcome.text);
    row.status = cut(&outcome.status);
    row.in_doubt = outcome.in_doubt;
    // What it was not asked to report it does not.
    row.host_reports = outcome.host_reports && row.passed_on() == row.notify;
    row.next_attempt_at = outcome.next_attempt_at;
    txn.put(RECIPIENTS, &key, &row)?;
    mail::touch_author(txn, id)?;
    if row.state != DeliveryState::Deferred {
        mail::settled(txn, id, &key)?;
    }
    if row.is_report_owed() {
        txn.put(REPORTS, &id.0, &Named(id.0))?;
    }
    let state = serde_json::to_value(row.state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default().to_owned();
    let host = row.host.as_deref().map(|host| format!(" by {host}")).unwrap_or_default();
    trace::note(txn, id, outcome.at, format!("{}: {state}{host}: {}", row.address, row.text))?;
    Ok(Settled::Recorded)
}
