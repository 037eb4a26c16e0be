//! Delivery to the Internet: who serves a domain (`resolve`) or takes mail for everywhere (`relay`), one attempt
//! (`attempt`) of one [conversation](shared::smtp::client), and when ([`Runner`]).
//!
//! An attempt's result is one commit: the new state of each recipient in the queue, and the event that
//! tells big. Nothing is believed to have happened before that.

mod attempt;
mod relay;
mod resolve;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::address::{Address, Domain};
use shared::age;
use shared::id::{MessageId, unix_millis};
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::smtp::Enhanced;
use shared::smtp::client::{Class, Status};
use shared::store::{Rows, StoreError, Txn};
use shared::trace;
use shared::unit::{DeliveryState, Outcome, ToBig, encode};
use tokio::sync::{Semaphore, watch};

use crate::node::Node;
use crate::record::{QUEUE, QueueRow};
use crate::revise::{self, Waiting};
use attempt::{Attempt, Copies, Report};
pub use relay::{RelayError, Route};
pub use resolve::Resolver;

/// Attempts at once.
const ATTEMPTS_MAX: usize = 50;
const EVENT_LANE: u8 = 1;
/// How long one attempt for one group of recipients may take, over all hosts.
const GROUP_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What is to be attempted, and when.
#[derive(Debug, Default)]
pub struct Schedule(Mutex<BTreeSet<(u64, MessageId)>>);

impl Schedule {
    /// Puts a message on the schedule.
    pub fn add(&self, at: u64, message: MessageId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((at, message));
    }

    /// Takes one message that is due, or says when the next one will be.
    fn take(&self, now: u64) -> Result<MessageId, Option<u64>> {
        let mut schedule = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one is due before its time if the clock went back.
        let mut ends = schedule.first().into_iter().chain(schedule.last()).copied();
        match ends.find(|(at, _)| age::is_due(*at, now)) {
            Some(due) => {
                schedule.remove(&due);
                Ok(due.1)
            }
            None => Err(schedule.first().map(|(at, _)| *at)),
        }
    }
}

/// Attempts what is due until the node goes down.
#[derive(Debug)]
pub struct Runner {
    node: Arc<Node>,
    attempt: Arc<Attempt>,
    permits: Arc<Semaphore>,
    running: Arc<Mutex<HashSet<MessageId>>>,
}

impl Runner {
    /// A runner with everything in the queue on its schedule.
    pub fn new(node: Arc<Node>, resolver: Resolver, route: Route) -> Result<Self, StoreError> {
        schedule_all(&node)?;
        let attempt = Arc::new(Attempt::new(Arc::clone(&node), resolver, route));
        Ok(Self { node, attempt, permits: Arc::new(Semaphore::new(ATTEMPTS_MAX)), running: Arc::default() })
    }

    /// Runs until `stopping`; attempts that are under way are given up with the process, and their
    /// recipients are in the queue as they were.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        loop {
            let wait = match self.node.schedule.take(unix_millis()) {
                Ok(message) => {
                    self.start(message).await;
                    continue;
                }
                Err(Some(at)) => Duration::from_millis(at.saturating_sub(unix_millis()).max(1)),
                Err(None) => Duration::from_secs(3600),
            };
            tokio::select! {
                () = self.node.due.notified() => {}
                () = tokio::time::sleep(wait) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    async fn start(&self, message: MessageId) {
        let fresh = self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(message);
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        if !fresh {
            return;
        }
        let (node, attempt, running) =
            (Arc::clone(&self.node), Arc::clone(&self.attempt), Arc::clone(&self.running));
        tokio::spawn(async move {
            let result = deliver(&node, &attempt, message).await;
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&message);
            match result {
                Ok(Some(again_at)) => node.schedule.add(again_at, message),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%message, %error, "a delivery could not be recorded; it is tried again");
                    node.schedule.add(unix_millis() + 10_000, message);
                }
            }
            node.due.notify_one();
            drop(permit);
        });
    }
}

/// Puts everything in the queue that is not held on the schedule.
pub fn schedule_all(node: &Node) -> Result<(), StoreError> {
    for (key, row) in node.store.read()?.prefix::<QueueRow>(QUEUE, &[], usize::MAX)? {
        if !row.held {
            node.schedule.add(row.next_attempt_at, revise::message_of(&key));
        }
    }
    Ok(())
}

/// One attempt for every recipient that waits and is due. Returns when the next one is due, if any is left.
async fn deliver(node: &Node, attempt: &Attempt, message: MessageId) -> Result<Option<u64>, StoreError> {
    loop {
        let busy = Arc::clone(&node.busy);
        let begun = Begun { node, message };
        let begin = move |txn: &mut Txn<'_>| revise::begin(txn, &busy, message, unix_millis());
        let Some(row) = node.store.commit(begin).await?.into_inner() else { break };
        attempt_row(node, attempt, message, &row).await?;
        drop(begun);
    }
    node.queued(EVENT_LANE);
    Ok(Waiting::load(&node.store.read()?, message)?.next_attempt_at())
}

/// An attempt that is under way, until this is dropped, however it ends. At most one for each message.
struct Begun<'n> {
    node: &'n Node,
    message: MessageId,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.node.busy.end(self.message);
    }
}

/// Attempts one revision of a message, as its row was when that was entered as under way.
async fn attempt_row(
    node: &Node,
    attempt: &Attempt,
    message: MessageId,
    row: &QueueRow,
) -> Result<(), StoreError> {
    let retry = &node.topology.edge.outbound;
    let number = row.attempts.saturating_add(1);
    let wait = retry.wait_after(usize::try_from(number).unwrap_or(usize::MAX));
    let made = Made { revision: row.revision, number, again_at: unix_millis() + millis(wait) };
    let (groups, unreadable) = groups(row, attempt);
    let mut left = groups.len();
    if !unreadable.is_empty() || left == 0 {
        record(node, message, unreadable, made, left == 0).await?;
    }
    for (domain, recipients) in groups {
        left -= 1;
        let copies = Copies { message, row, recipients: &recipients };
        let attempted = tokio::time::timeout(GROUP_TIMEOUT, attempt.deliver(copies, domain.as_ref()));
        let reports = attempted.await.unwrap_or_else(|_| {
            let slow = Status::ours(Class::Temporary, Enhanced(4, 4, 1), "the hosts there were too slow");
            copies.all(&Report::ours(slow))
        });
        // Group by group: what one host has taken must not wait for what another does.
        record(node, message, reports, made, left == 0).await?;
    }
    Ok(())
}

/// Which attempt this is, and when the next one is due, milliseconds since 1970.
#[derive(Clone, Copy)]
struct Made {
    revision: u32,
    number: u32,
    again_at: u64,
}

type Groups = BTreeMap<Option<Domain>, Vec<(u32, Address)>>;

/// The recipients that wait, with their indexes on big, by whom they are attempted with; and reports of those that
/// are no addresses, which big should not have sent.
fn groups(row: &QueueRow, attempt: &Attempt) -> (Groups, Vec<(u32, Report)>) {
    let (mut groups, mut unreadable) = (Groups::new(), Vec::new());
    for recipient in row.recipients.iter().filter(|recipient| revise::waits(recipient)) {
        let index = recipient.index;
        match recipient.address.parse::<Address>() {
            Ok(address) => groups.entry(attempt.group(&address)).or_default().push((index, address)),
            Err(error) => {
                let status = Status::ours(Class::Permanent, Enhanced(5, 1, 3), &error.to_string());
                unreadable.push((index, Report::ours(status)));
            }
        }
    }
    (groups, unreadable)
}

/// For the simulation: a remote host has taken the message for everybody who waits, or says to come again.
#[cfg(feature = "sim")]
pub(crate) async fn answered_by_remote(
    node: &Node,
    message: MessageId,
    row: QueueRow,
    taken: bool,
) -> Result<(), StoreError> {
    let _begun = Begun { node, message };
    let status = match taken {
        true => Status::ours(Class::Delivered, Enhanced(2, 0, 0), "taken"),
        false => Status::ours(Class::Temporary, Enhanced(4, 2, 1), "later"),
    };
    let taken = Report::ours(status);
    let waiting = row.recipients.iter().filter(|recipient| revise::waits(recipient));
    let reports = waiting.map(|recipient| (recipient.index, taken.clone())).collect();
    let number = row.attempts.saturating_add(1);
    let made = Made { revision: row.revision, number, again_at: unix_millis() };
    record(node, message, reports, made, true).await
}

/// Commits what an attempt brought: the queue, the revisions that were noted while it was under way, and the
/// events for big. With its `last` reports the attempt is over, from this commit on.
async fn record(
    node: &Node,
    message: MessageId,
    reports: Vec<(u32, Report)>,
    made: Made,
    last: bool,
) -> Result<(), StoreError> {
    let (now, expire, busy) = (unix_millis(), node.topology.edge.outbound.expire, Arc::clone(&node.busy));
    let committed = node.store.commit(move |txn| {
        if last {
            busy.end(message);
        }
        let (mut waiting, lived) = (Waiting::load(txn, message)?, age::lived(txn)?);
        let Some(row) = waiting.row(made.revision) else { return Ok(()) };
        row.attempts = made.number;
        row.next_attempt_at = made.again_at;
        let expired = lived >= row.since.saturating_add(millis(expire));
        let reported: Vec<u32> = reports.iter().map(|(index, _)| *index).collect();
        for (index, report) in reports {
            let Some(recipient) = row.recipients.iter_mut().find(|recipient| recipient.index == index) else {
                continue;
            };
            let mut status = report.status;
            if status.class == Class::Temporary && expired {
                status = Status::ours(
                    Class::Permanent,
                    Enhanced(4, 4, 7),
                    &format!("given up after {} attempts; the last answer was: {}", made.number, status.text),
                );
            }
            recipient.state = match status.class {
                Class::Delivered => DeliveryState::Relayed,
                Class::Temporary => DeliveryState::Deferred,
                Class::Permanent => DeliveryState::Failed,
            };
            recipient.text.clone_from(&status.text);
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
                in_doubt: status.in_doubt,
                next_attempt_at: again.then_some(made.again_at),
            };
            let state = serde_json::to_value(outcome.state).unwrap_or_default();
            let what =
                format!("{}: {}: {}", recipient.address, state.as_str().unwrap_or_default(), outcome.text);
            trace::note(txn, message, now, what)?;
            let unit = QueuedUnit {
                id: MessageId::generate().0,
                lane: EVENT_LANE,
                after: None,
                head: encode(&ToBig::Outcome(outcome)),
                body: QueuedBody::None,
            };
            lane::queue(txn, &unit)?;
        }
        // Behind the outcome, so that big knows what a revision was too late for.
        let decided = waiting.settle(made.revision, (!last).then_some(reported.as_slice()));
        waiting.store(txn)?;
        revise::tell(txn, message, decided, now)
    });
    committed.await?;
    node.queued(EVENT_LANE);
    Ok(())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
