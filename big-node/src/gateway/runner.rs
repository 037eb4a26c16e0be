//! Attempts what is due for inside gateways. Each attempt ends in one commit: the recipients' new states, the
//! trace, what reports are owed, and when the next attempt is. Nothing is believed to have happened before.

use std::sync::Arc;
use std::time::Duration;

use shared::address::Address;
use shared::id::unix_millis;
use shared::smtp::client::{Class, Protocol, Status};
use shared::smtp::{self, Enhanced};
use shared::store::{Store, StoreError};

use super::queue::{self, Due, Report};
use super::{attempt, dropped};
use crate::directory;
use crate::mail::{self, Site};
use crate::node::Node;
use crate::record::{Gateway, Message, Recipient, Transport};

/// Attempts at once for one gateway: one that hangs holds up no other.
const ATTEMPTS_MAX: usize = 8;
/// How long one attempt may take, over all hosts.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Looks at the schedule at least this often.
const ROUND: Duration = Duration::from_secs(60);
/// After an attempt that could not be recorded.
const PAUSE: Duration = Duration::from_secs(10);

/// An attempt that is under way, until this is dropped, however it ends.
struct Running {
    due: Due,
    site: Arc<Site>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.site.under_way.end(&self.due);
    }
}

/// Runs for ever. Attempts that are under way end with the process, and their recipients wait as before.
pub async fn run(node: Arc<Node>) {
    loop {
        let wait = match start_due(&node) {
            Ok(Some(at)) => Duration::from_millis(at.saturating_sub(unix_millis()).max(1)).min(ROUND),
            Ok(None) => ROUND,
            Err(error) => {
                tracing::warn!(%error, "the gateways' queue cannot be read; it is tried again");
                PAUSE
            }
        };
        let _ = tokio::time::timeout(wait, node.due.notified()).await;
    }
}

/// Starts what is due and has room. Returns when the next is due, milliseconds since 1970.
fn start_due(node: &Arc<Node>) -> Result<Option<u64>, StoreError> {
    let (snapshot, now) = (node.store.read()?, unix_millis());
    let mut next = None;
    for gateway in queue::gateways(&snapshot)? {
        // Those under way are in the schedule still, at its beginning.
        let (due, later) = queue::due(&snapshot, &gateway, now, 2 * ATTEMPTS_MAX)?;
        next = next.into_iter().chain(later).min();
        for due in due {
            let site = Arc::clone(&node.site);
            if site.under_way.count(&gateway) >= ATTEMPTS_MAX {
                break;
            }
            if site.under_way.begin(&due) {
                tokio::spawn(attempt_one(Arc::clone(node), Running { due, site }));
            }
        }
    }
    Ok(next)
}

async fn attempt_one(node: Arc<Node>, running: Running) {
    let result = hand_over(&node.store, &node.site, &running.due).await;
    if let Err(error) = &result {
        let message = running.due.message;
        tracing::error!(%message, %error, "a handover could not be recorded; it is tried again");
        tokio::time::sleep(PAUSE).await;
    }
    drop(running);
    // A report may be owed, and there is room for another attempt.
    node.queued();
}

/// One attempt for all recipients who wait, and its commit.
pub async fn hand_over(store: &Store, site: &Arc<Site>, due: &Due) -> Result<(), StoreError> {
    let (begun, by) = (due.clone(), Arc::clone(site));
    let begun = store.commit(move |txn| queue::begin(txn, &by, &begun, unix_millis())).await?;
    let Some(row) = begun.into_inner() else { return Ok(()) };
    let snapshot = store.read()?;
    let message = mail::shown(&snapshot, due.message, due.revision)?;
    let gateway = directory::gateway(&snapshot, &due.gateway)?;
    let named = queue::recipients(&snapshot, due.message.0, &row)?;
    drop(snapshot);
    let all = |status: &Status| -> Vec<Report> {
        let report = |(recipient, _): &(u32, Recipient)| Report {
            recipient: *recipient,
            status: status.clone(),
            host: None,
            tls: None,
            host_reports: false,
        };
        named.iter().map(report).collect()
    };
    let reports = match (gateway, &message) {
        (Some(gateway), Some(message)) => {
            let attempted = by_transport(store, site, &gateway, due, message, &named);
            tokio::time::timeout(ATTEMPT_TIMEOUT, attempted).await.unwrap_or_else(|_| {
                all(&Status::ours(Class::Temporary, Enhanced(4, 4, 1), "the gateway was too slow"))
            })
        }
        (None, _) => {
            let text = format!("the gateway {} was removed", due.gateway);
            all(&Status::ours(Class::Permanent, Enhanced(5, 4, 4), &text))
        }
        (_, None) => {
            all(&Status::ours(Class::Permanent, Enhanced(5, 3, 0), "the message is not here any more"))
        }
    };
    let (due, site) = (due.clone(), Arc::clone(site));
    store.commit(move |txn| queue::record(txn, &site, &due, reports, unix_millis())).await.map(drop)
}

async fn by_transport(
    store: &Store,
    site: &Site,
    gateway: &Gateway,
    due: &Due,
    message: &Message,
    named: &[(u32, Recipient)],
) -> Vec<Report> {
    let (mut good, mut reports) = (Vec::new(), Vec::new());
    for (recipient, row) in named {
        match row.address.parse::<Address>() {
            Ok(address) => {
                let (notify, original) = (row.passed_on(), row.original.clone());
                good.push((*recipient, smtp::Recipient { address, notify, original }));
            }
            Err(error) => {
                let status = Status::ours(Class::Permanent, Enhanced(5, 1, 3), &error.to_string());
                reports.push(Report {
                    recipient: *recipient,
                    status,
                    host: None,
                    tls: None,
                    host_reports: false,
                });
            }
        }
    }
    if good.is_empty() {
        return reports;
    }
    let told = match &gateway.transport {
        Transport::Lmtp(hosts) => {
            attempt::attempt(store, &site.policy.domains, (Protocol::Lmtp, hosts), message, good).await
        }
        Transport::Smtp(hosts) => {
            attempt::attempt(store, &site.policy.domains, (Protocol::Smtp, hosts), message, good).await
        }
        Transport::Drop { folder, .. } => dropped::attempt(store, folder, due.message, message, good).await,
    };
    reports.extend(told);
    reports
}
