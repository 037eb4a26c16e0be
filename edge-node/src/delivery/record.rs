//! What attempts brought, in the store: the queue and the events for big.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::age;
use shared::id::{MessageId, unix_millis};
use shared::smtp::client::{Class, Status};
use shared::smtp::{Enhanced, Recipient};
use shared::store::{StoreError, Txn};
use shared::topology;
use shared::trace;
use shared::unit::{DeliveryState, Outcome, ToBig};

use super::AGAIN;
use super::report::Report;
use crate::border::{self, Count};
use crate::facts::{self, EVENT_LANE};
use crate::node::Node;
use crate::queue::{self, leaving};
use crate::revise::{self, Begun, Waiting};

/// Records what becomes of the recipients of one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorder<'a> {
    pub node: &'a Node,
    pub message: MessageId,
    pub begun: &'a Begun,
}

impl Recorder<'_> {
    /// Records some of them, for whom the attempt is over with that. A host may have taken the message: what is tried
    /// again if it fails is the record, not the attempt.
    pub async fn record(&self, reports: Vec<(u32, Report)>) {
        let Self { node, message, begun } = *self;
        if reports.is_empty() {
            return;
        }
        while let Err(error) = record(node, message, begun, reports.clone()).await {
            tracing::error!(%message, %error, "what came of an attempt could not be recorded; it is tried again");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// A host has said that, and another one is asked: what the attempt comes to will be what that one says.
    pub async fn passed(&self, said: &Report) {
        let host = said.host.as_deref().unwrap_or("a host");
        let what = format!("{host}: {}; another is asked", said.status.text);
        let (message, now) = (self.message, unix_millis());
        if let Err(error) = self.node.store.commit(move |txn| trace::note(txn, message, now, what)).await {
            tracing::warn!(%message, %error, "what a host has said could not be noted");
        }
    }

    /// A host that was sent the message has answered for these, who go to the next one.
    pub async fn answered(&self, left: &[(u32, Recipient)]) {
        let (message, left) = (self.message, left.iter().map(|(index, _)| *index).collect::<Vec<_>>());
        let forgotten: Result<_, StoreError> =
            self.node.store.commit(move |txn| leaving::forget(txn, message, &left)).await;
        if let Err(error) = forgotten {
            // If the node stops now they are in doubt, who are not.
            tracing::warn!(%message, %error, "that a host has answered could not be noted");
        }
    }
}

/// For the simulation and tests: a remote host has taken the message for everybody who is due, or says to come again at once.
#[cfg(any(test, feature = "sim"))]
pub(crate) async fn answered_by_remote(
    node: &Node,
    message: MessageId,
    begun: Begun,
    taken: bool,
) -> Result<(), StoreError> {
    let status = match taken {
        true => Status::ours(Class::Delivered, Enhanced(2, 0, 0), "taken"),
        false => Status::ours(Class::Temporary, Enhanced(4, 2, 1), "later"),
    };
    let (taken, leaving) = (Report::ours(status), begun.under_way.recipients.clone());
    node.store.commit(move |txn| leaving::note(txn, message, &leaving)).await?;
    let reports = begun.under_way.recipients.iter().map(|index| (*index, taken.clone())).collect();
    record(node, message, &begun, reports).await
}

/// Commits what an attempt brought some of its recipients: the queue, the revisions that were noted while it was under
/// way, and the events for big. For them the attempt is over, from this commit on.
pub(super) async fn record(
    node: &Node,
    message: MessageId,
    begun: &Begun,
    reports: Vec<(u32, Report)>,
) -> Result<(), StoreError> {
    let (now, outbound, busy) = (unix_millis(), node.topology.edge.outbound.clone(), Arc::clone(&node.busy));
    let revision = begun.row.revision;
    let attempted: Vec<u32> = reports.iter().map(|(index, _)| *index).collect();
    let recorded = attempted.clone();
    let was_due: BTreeMap<u32, u64> =
        begun.row.recipients.iter().map(|recipient| (recipient.index, recipient.next_attempt_at)).collect();
    let committed = node.store.commit(move |txn| {
        // What follows in the same commit finds it over.
        busy.end(message, &recorded);
        leaving::forget(txn, message, &recorded)?;
        let (mut waiting, lived) = (Waiting::load(txn, message)?, age::lived(txn)?);
        let Some(row) = waiting.row(revision) else { return Ok(()) };
        let expired = lived >= row.since.saturating_add(millis(outbound.expire));
        let (mut places, mut in_doubt) = (BTreeSet::new(), false);
        for (index, report) in reports {
            let Some(recipient) = row.recipients.iter_mut().find(|recipient| recipient.index == index) else {
                continue;
            };
            let waits = report.waits && !expired;
            if waits && recipient.state == DeliveryState::Deferred && recipient.text == report.status.text {
                // Big knows.
                continue;
            }
            recipient.attempts = recipient.attempts.saturating_add(u32::from(!waits));
            let failures = usize::try_from(recipient.attempts).unwrap_or(usize::MAX);
            // What an operator has made due since is due.
            let is_retried = was_due.get(&index).is_some_and(|due| *due != recipient.next_attempt_at);
            if !waits && !is_retried {
                recipient.next_attempt_at = again_at(&outbound, recipient.attempts, now);
            }
            let mut status = report.status;
            if status.class == Class::Temporary && expired {
                let text =
                    format!("given up after {failures} attempts; the last answer was: {}", status.text);
                status = Status::ours(Class::Permanent, Enhanced(4, 4, 7), &text);
            }
            recipient.state = match status.class {
                Class::Delivered => DeliveryState::Relayed,
                Class::Temporary => DeliveryState::Deferred,
                Class::Permanent => DeliveryState::Failed,
            };
            recipient.text.clone_from(&status.text);
            places.insert(queue::destination(&recipient.address));
            in_doubt |= status.in_doubt;
            recipient.in_doubt |= status.in_doubt;
            let again = status.class == Class::Temporary;
            let outcome = Outcome {
                message: message.0,
                recipient: recipient.index,
                state: recipient.state,
                at: now,
                host: report.host,
                tls: report.tls,
                relay: report.relay,
                text: status.text,
                status: status.enhanced.to_string(),
                in_doubt: recipient.in_doubt && recipient.state != DeliveryState::Relayed,
                host_reports: report.host_reports,
                next_attempt_at: again.then_some(recipient.next_attempt_at.max(now)),
            };
            tell(txn, &recipient.address, outcome)?;
        }
        if in_doubt {
            border::count(txn, Count::Undetermined)?;
        }
        // Behind the outcome, so that big knows what a revision was too late for.
        let decided = waiting.settle(revision, |recipient| recorded.contains(&recipient));
        waiting.store(txn)?;
        places.iter().try_for_each(|place| queue::bring_back(txn, place, now))?;
        revise::tell(txn, message, decided, now)
    });
    if let Err(error) = committed.await {
        node.busy.go_on(message, &attempted);
        return Err(error);
    }
    node.queued(EVENT_LANE);
    Ok(())
}

/// Queues what became of a recipient for big, and notes it in the trace.
pub(crate) fn tell(txn: &mut Txn<'_>, address: &str, outcome: Outcome) -> Result<(), StoreError> {
    let state = serde_json::to_value(outcome.state).unwrap_or_default();
    let what = format!("{address}: {}: {}", state.as_str().unwrap_or_default(), outcome.text);
    trace::note(txn, MessageId(outcome.message), outcome.at, what)?;
    facts::tell(txn, &ToBig::Outcome(outcome))
}

/// When a recipient is attempted again who has been so many times by `now`, milliseconds since 1970.
pub(crate) fn again_at(outbound: &topology::Outbound, attempts: u32, now: u64) -> u64 {
    let failures = usize::try_from(attempts).unwrap_or(usize::MAX);
    now.saturating_add(millis(outbound.wait_after(failures)))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
