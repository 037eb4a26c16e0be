//! Delivery to the Internet: who serves a domain (`resolve`) or takes mail for everywhere (`relay`), how many attempts
//! there may be at once (`scheduler`), one attempt (`attempt`) of one [session](shared::smtp::client) after another, the last
//! of which is kept for the next attempt (`pool`), and what is attempted next ([`Runner`]).
//!
//! An attempt is of one message for one destination: a domain, or the smart host that takes all mail. What is final of some
//! while others go on to the next host is one commit, the rest of its result another: the new state of each recipient in the
//! queue, and the event that tells big. Nothing is believed to have happened before that.

mod attempt;
mod chunking;
mod dane;
mod fallback;
mod mta_sts;
mod ourselves;
mod outward;
mod pool;
mod progress;
mod public;
mod race;
mod record;
mod relay;
mod report;
mod resolve;
mod scheduler;
mod security;
mod sessions;
mod signatures;
mod tally;
mod transmission;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::address::{Address, Domain};
use shared::id::{MessageId, monotonic, unix_millis};
use shared::smtp::client::{Class, Status};
use shared::smtp::{Enhanced, Recipient};
use shared::store::{StoreError, Txn};
use shared::tls_wish::TlsWish;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::facts::EVENT_LANE;
use crate::node::Node;
use crate::queue;
use crate::request::{HostView, OutwardView};
use crate::revise;
use attempt::Attempt;
use mta_sts::Policies;
pub use ourselves::Ourselves;
pub use public::is_public;
use record::Recorder;
#[cfg(any(test, feature = "sim"))]
pub(crate) use record::answered_by_remote;
pub(crate) use record::{again_at, tell};
pub use relay::{RelayError, Route};
use report::{Copies, Report};
pub use resolve::{Resolver, ResolverError};
use scheduler::{Limits, Scheduler, Shown};
pub use signatures::{MEND as SIGNATURES_MEND, Passing, are_needed as are_signatures_needed, passing};

/// Attempts at once, in all; what the limit of open files allows may be less.
pub const ATTEMPTS_MAX: usize = 200;
/// How often all that is due is looked through for destinations that have dealt with mail, while others wait for a place.
const LOOK_THROUGH: Duration = Duration::from_millis(250);
/// How long one attempt may take, over all hosts.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long a destination where nobody could be reached is not asked again, at most.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After an attempt that could not be recorded, or a queue that could not be read.
const AGAIN: Duration = Duration::from_secs(10);
/// Destinations that are looked at in one round: each that may begin has one turn in it.
const ROUND_MAX: usize = 1_000;
/// Looks at the queue at least this often: the clock may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Between two looks for sessions that nobody needs.
const SWEEP: Duration = Duration::from_secs(1);

/// Attempts what is due until the node goes down.
#[derive(Debug)]
pub struct Runner {
    node: Arc<Node>,
    attempt: Arc<Attempt>,
    scheduler: Arc<Mutex<Scheduler<Report>>>,
    /// The destinations whose turn comes next.
    round: VecDeque<String>,
    /// When all that is due was looked through last for nothing.
    vain: Option<Duration>,
}

impl Runner {
    /// A runner with at most `attempts` at once. `resolver` is asked about domains and their hosts, `trusting`, which
    /// validates nothing, about the smart host.
    ///
    /// # Errors
    /// [`RelayError`] if the certificates that it is to trust cannot be used.
    pub fn new(
        node: Arc<Node>,
        resolver: Resolver,
        trusting: Resolver,
        route: Route,
        attempts: usize,
        ourselves: Ourselves,
    ) -> Result<Self, RelayError> {
        let outbound = &node.topology.edge.outbound;
        let limits = Limits {
            attempts,
            destination: outbound.concurrency,
            // It is over when the first that was deferred comes again.
            pause: PAUSE_MAX.min(outbound.wait_after(1) / 2),
        };
        let resolver = Arc::new(resolver);
        let policies = Policies::open(&node, &resolver)?;
        let attempt = Attempt::new(Arc::clone(&node), resolver, trusting, policies, route, limits, ourselves);
        let attempt = Arc::new(attempt);
        Ok(Self {
            node,
            attempt,
            scheduler: Arc::new(Mutex::new(Scheduler::new(limits))),
            round: VecDeque::new(),
            vain: None,
        })
    }

    /// What tells who serves a domain.
    pub fn probe(&self) -> Probe {
        Probe(Arc::clone(&self.attempt))
    }

    /// Runs until `stopping`; attempts that are under way are given up with the process, and their
    /// recipients are in the queue as they were.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let swept = Arc::clone(&self.attempt);
        let sweeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                swept.close_idle();
            }
        });
        let kept = Arc::clone(&self.attempt);
        let keeping = tokio::spawn(async move {
            tokio::join!(kept.watch_signatures(), kept.keep_policies());
        });
        loop {
            let wait = match self.begin_due() {
                Ok(Some(at)) => {
                    Duration::from_millis(at.saturating_sub(unix_millis()).max(1)).min(LOOK_AGAIN)
                }
                Ok(None) => LOOK_AGAIN,
                Err(error) => {
                    tracing::warn!(%error, "the queue cannot be read; it is tried again");
                    AGAIN
                }
            };
            tokio::select! {
                () = self.node.due.notified() => {}
                () = tokio::time::sleep(wait) => {}
                _ = stopping.wait_for(|stopping| *stopping) => break,
            }
        }
        sweeping.abort();
        keeping.abort();
    }

    /// Begins what is due and has a place. Each destination has its turn before any has another one. Returns when the
    /// next will be due, milliseconds since 1970.
    fn begin_due(&mut self) -> Result<Option<u64>, StoreError> {
        // The snapshot first: what an operator has made due in it has left its domain there before.
        let (snapshot, now) = (self.node.store.read()?, unix_millis());
        for domain in self.node.take_retried() {
            lock(&self.scheduler).end_pause(self.attempt.place(&domain));
            self.attempt.end_pause_of_fallback();
        }
        let (mut has_begun, mut on_trial) = (true, VecDeque::new());
        loop {
            let lane = match self.round.pop_front() {
                Some(lane) => lane,
                None if !std::mem::take(&mut has_begun) => break,
                None => {
                    let scheduler = lock(&self.scheduler);
                    // Those that have dealt with mail may be anywhere among all that is due.
                    let is_long = !scheduler.has_place_for_trial();
                    if is_long && self.vain.is_some_and(|vain| monotonic() < vain + LOOK_THROUGH) {
                        break;
                    }
                    let waits = self.attempt.waits_for_fallback();
                    let may_begin = |place: &str| {
                        let now = monotonic();
                        scheduler.may_begin(place, now) && !(waits && scheduler.is_paused(place, now))
                    };
                    // Many domains need not be looked at for a smart host that has no place.
                    if scheduler.has_place() && self.attempt.only_place().is_none_or(may_begin) {
                        let may_begin = |lane: &str| may_begin(self.attempt.place(lane));
                        self.round = queue::due_destinations(&snapshot, now, ROUND_MAX, may_begin)?.into();
                        self.vain = (is_long && self.round.is_empty()).then(monotonic);
                    }
                    continue;
                }
            };
            let mut scheduler = lock(&self.scheduler);
            if !scheduler.has_place() {
                drop(scheduler);
                self.round.push_front(lane);
                break;
            }
            let place = self.attempt.place(&lane);
            if !scheduler.may_begin(place, monotonic()) {
                if scheduler.waits_for_trial(place) {
                    on_trial.push_back(lane);
                }
                continue;
            }
            let is_under_way = |message| scheduler.is_under_way(place, message);
            if let Some(message) = queue::due_message(&snapshot, &lane, now, is_under_way)? {
                let at = monotonic();
                let takes_place = self.attempt.falls_back() && scheduler.is_paused(place, at);
                let fallback = takes_place.then(|| self.attempt.fallback()).flatten();
                if takes_place && fallback.is_none() {
                    continue;
                }
                let known = scheduler.begin(place, message, at).map(|why| Known { why, fallback });
                drop(scheduler);
                self.begin(place.to_owned(), message, known);
                has_begun = true;
            }
        }
        // Their turn is still to come.
        on_trial.append(&mut self.round);
        self.round = on_trial;
        let next = queue::next_due(&snapshot, now)?;
        let again = self.vain.map(|_| now + u64::try_from(LOOK_THROUGH.as_millis()).unwrap_or_default());
        Ok(next.into_iter().chain(again).min())
    }

    fn begin(&self, place: String, message: MessageId, known: Option<Known>) {
        let (node, attempt) = (Arc::clone(&self.node), Arc::clone(&self.attempt));
        let scheduler = Arc::clone(&self.scheduler);
        tokio::spawn(async move {
            let shown = match deliver(&node, &attempt, &place, message, known).await {
                Ok(shown) => shown,
                Err(error) => {
                    tracing::error!(%message, %error, "a delivery could not be recorded; it is tried again");
                    tokio::time::sleep(AGAIN).await;
                    Shown::Nothing
                }
            };
            lock(&scheduler).end(&place, message, shown, monotonic());
            node.due.notify_one();
        });
    }
}

/// Nobody could be reached at a place a moment ago.
#[derive(Debug)]
struct Known {
    why: Report,
    /// A place at the smart host, where that is asked instead.
    fallback: Option<fallback::Place<Report>>,
}

/// Tells who serves a domain, and what they have to prove, without delivering anything.
#[derive(Clone, Debug)]
pub struct Probe(Arc<Attempt>);

impl Probe {
    /// The hosts that serve a domain, best first.
    ///
    /// # Errors
    /// Why there are none, or none now.
    pub async fn hosts(&self, domain: &Domain) -> Result<Vec<HostView>, Status> {
        let view = |(host, asked): attempt::Host| HostView {
            name: host.name,
            addresses: host.addresses.iter().map(ToString::to_string).collect(),
            asks: asked.as_ref().map_or_else(ToString::to_string, |security| security.asks().to_owned()),
            usable: asked.is_ok(),
        };
        Ok(self.0.hosts(domain, TlsWish::Unsaid).await?.hosts.into_iter().map(view).collect())
    }

    /// Whether other hosts can be reached, by what attempts have seen.
    pub fn outward(&self) -> OutwardView {
        self.0.outward()
    }

    /// Why all mail waits, if DNS can prove nothing.
    pub fn alarm(&self) -> Option<String> {
        self.0.alarm()
    }
}

fn lock(scheduler: &Mutex<Scheduler<Report>>) -> MutexGuard<'_, Scheduler<Report>> {
    scheduler.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One attempt for every recipient at a destination who waits and is due. With `known`, which says why nobody can be
/// reached there, nobody is asked.
async fn deliver(
    node: &Node,
    attempt: &Attempt,
    place: &str,
    message: MessageId,
    mut known: Option<Known>,
) -> Result<Shown<Report>, StoreError> {
    let mut shown = Shown::Nothing;
    loop {
        let (busy, destination) = (Arc::clone(&node.busy), attempt.destination(place).map(ToOwned::to_owned));
        let begin = move |txn: &mut Txn<'_>| {
            revise::begin(txn, &busy, message, destination.as_deref(), unix_millis())
        };
        let Some(begun) = node.store.commit(begin).await?.into_inner() else { break };
        let recorder = Recorder { node, message, begun: &begun };
        let (reports, of_it) = attempt_row(attempt, place, recorder, known.as_mut()).await;
        shown = of_it;
        let waits = reports.iter().any(|(_, report)| report.waits);
        recorder.record(reports).await;
        // It is due as before, once there is a place at the smart host; or an operator has made it due meanwhile, and what
        // is known from before is not for that.
        if waits || known.is_some() {
            break;
        }
    }
    node.queued(EVENT_LANE);
    Ok(shown)
}

/// Attempts one revision of a message. Exactly one report for each recipient whose own was not recorded before.
async fn attempt_row(
    attempt: &Attempt,
    place: &str,
    recorder: Recorder<'_>,
    mut known: Option<&mut Known>,
) -> (Vec<(u32, Report)>, Shown<Report>) {
    let Recorder { message, begun, .. } = recorder;
    let (mut readable, mut reports) = (Vec::new(), Vec::new());
    let is_for = |index: &u32| begun.under_way.recipients.contains(index);
    for recipient in begun.row.recipients.iter().filter(|recipient| is_for(&recipient.index)) {
        match recipient.address.parse::<Address>() {
            Ok(address) => {
                let (notify, original) = (recipient.notify, recipient.original.clone());
                readable.push((recipient.index, Recipient { address, notify, original }));
            }
            // Big should not have sent it.
            Err(error) => {
                let status = Status::ours(Class::Permanent, Enhanced(5, 1, 3), &error.to_string());
                reports.push((recipient.index, Report::ours(status)));
            }
        }
    }
    if readable.is_empty() {
        return (reports, Shown::Nothing);
    }
    let until = Instant::now() + ATTEMPT_TIMEOUT;
    let copies = Copies { message, row: &begun.row, recipients: &readable, recorder, until };
    let fallback = known.as_mut().and_then(|known| known.fallback.take());
    let why = known.map(|known| &known.why);
    let (told, shown) = attempt.deliver(copies, place, why, fallback).await;
    reports.extend(told);
    (reports, shown)
}
