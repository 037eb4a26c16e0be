//! Tells big what was counted, when the day is over, of the domains that want to hear it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::NetError;
#[cfg(feature = "sim")]
use shared::address::Address;
use shared::age;
#[cfg(feature = "sim")]
use shared::aggregate::{PolicyKind, TlsPolicy};
use shared::id::{MessageId, unix_millis};
use shared::lane::{self, QueuedBody, QueuedUnit};
#[cfg(feature = "sim")]
use shared::store::Committed;
use shared::store::{StoreError, Txn};
use shared::trace;
use shared::unit::{Id, ToBig, encode};
use tokio::task::JoinSet;

use super::counts::{self, Due, Kind};
use super::destination::{self, Wanted};
use crate::delivery::Resolver;
use crate::node::Node;

/// Before the first look, and between two.
const ROUND: Duration = Duration::from_secs(5);
/// Domains that are asked at once.
const AT_ONCE: usize = 16;
/// A domain of which DNS gave no answer is asked again after so many milliseconds.
const AGAIN_MILLIS: u64 = 3_600_000;
/// It gets no report of a day that has been due for so long (RFC 8460 §5.5).
const GIVEN_UP_MILLIS: u64 = 24 * 3_600_000;
/// Reports are large, and nobody waits for them.
const BATCH_LANE: u8 = 3;

/// Runs for ever. `resolver` is asked what domains want.
pub async fn run(node: Arc<Node>, resolver: Resolver) {
    let mut waiting = Waiting::default();
    loop {
        tokio::time::sleep(ROUND).await;
        if let Err(error) = round(&node, &resolver, &mut waiting).await {
            tracing::warn!(%error, "what was counted for reports could not be told; it is tried again");
        }
    }
}

/// Domains of which DNS gave no answer: a state machine.
#[derive(Debug, Default)]
struct Waiting(HashMap<(Kind, Vec<u8>), u64>);

impl Waiting {
    /// Whether a day's domain is to be asked at `now`, milliseconds since 1970.
    fn is_asked(&self, due: &Due, now: u64) -> bool {
        self.0.get(&(due.kind, due.key.clone())).is_none_or(|again| *again <= now)
    }

    /// DNS gave no answer. Whether it is asked again.
    fn unanswered(&mut self, due: &Due, now: u64) -> bool {
        let again = now.saturating_add(AGAIN_MILLIS);
        let goes_on = again < due.since.saturating_add(GIVEN_UP_MILLIS);
        match goes_on {
            true => drop(self.0.insert((due.kind, due.key.clone()), again)),
            false => self.ended(due),
        }
        goes_on
    }

    fn ended(&mut self, due: &Due) {
        self.0.remove(&(due.kind, due.key.clone()));
    }
}

/// Deals with all that is due.
async fn round(node: &Node, resolver: &Resolver, waiting: &mut Waiting) -> Result<(), StoreError> {
    let now = unix_millis();
    // By a clock that was set, days would end that are not over, and what is counted of them later would be lost.
    if !age::is_clock_believed(&node.store.read()?)? {
        return Ok(());
    }
    for kind in Kind::ALL {
        round_of(node, resolver, waiting, kind, now).await?;
    }
    Ok(())
}

async fn round_of(
    node: &Node,
    resolver: &Resolver,
    waiting: &mut Waiting,
    kind: Kind,
    now: u64,
) -> Result<(), StoreError> {
    let reports = node.topology.edge.reports;
    let is_sent = match kind {
        Kind::Tls => reports.tls,
        Kind::Dmarc => reports.dmarc,
    };
    let mut from = Vec::new();
    loop {
        let due = counts::due(&node.store.read()?, kind, &from, now, AT_ONCE)?;
        let Some(last) = due.last() else { return Ok(()) };
        from = [last.key.as_slice(), &[0]].concat();
        let mut asking = JoinSet::new();
        for due in due.into_iter().filter(|due| waiting.is_asked(due, now)) {
            let resolver = resolver.clone();
            asking.spawn(async move {
                if !is_sent {
                    // The topology has changed since it was counted.
                    return (due, Ok(Wanted::Nothing));
                }
                let wanted = wanted(&resolver, &due).await;
                (due, wanted)
            });
        }
        while let Some(asked) = asking.join_next().await {
            let Ok((due, wanted)) = asked else { continue };
            let wanted = match wanted {
                Ok(wanted) => wanted,
                Err(error) if waiting.unanswered(&due, now) => {
                    tracing::debug!(domain = due.domain, %error, "DNS does not say whether it wants a report");
                    continue;
                }
                Err(_) => Wanted::Nothing,
            };
            waiting.ended(&due);
            tell(node, due, wanted, now).await?;
        }
    }
}

/// What a domain asks for in DNS.
async fn wanted(resolver: &Resolver, Due { kind, domain, .. }: &Due) -> Result<Wanted, NetError> {
    match kind {
        Kind::Tls => Ok(destination::tls(&resolver.texts(&format!("_smtp._tls.{domain}")).await?)),
        Kind::Dmarc => {
            let wanted = destination::dmarc(&resolver.texts(&format!("_dmarc.{domain}")).await?);
            let Wanted::Mail(mut mailboxes) = wanted else { return Ok(wanted) };
            for mailbox in mailboxes.clone() {
                // Nobody gets reports because somebody else names them (RFC 7489 §7.1).
                if let Some(name) = destination::permission(domain, &mailbox)
                    && !destination::permits(&resolver.texts(&name).await?)
                {
                    mailboxes.retain(|other| *other != mailbox);
                }
            }
            Ok(if mailboxes.is_empty() { Wanted::Nothing } else { Wanted::Mail(mailboxes) })
        }
    }
}

async fn tell(node: &Node, due: Due, wanted: Wanted, now: u64) -> Result<(), StoreError> {
    if wanted == Wanted::AnotherWay {
        tracing::info!(domain = due.domain, "it wants reports by https only, which none are sent by");
    }
    node.store.commit(move |txn| settle(txn, &due, wanted, now)).await?;
    node.queued(BATCH_LANE);
    Ok(())
}

/// For the simulation: a session with a host of a domain is counted, and then what is counted is told as if the day were
/// over. The ids of what was told.
#[cfg(feature = "sim")]
pub fn tell_at_once(node: &Node, domain: String, to: Address) -> Result<Vec<Id>, StoreError> {
    let now = unix_millis();
    node.store.commit_blocking(move |txn| {
        let (kind, text, hosts) = (PolicyKind::NoPolicyFound, Vec::new(), Vec::new());
        let policy = TlsPolicy { kind, domain: domain.clone(), text, hosts };
        counts::count_tls(txn, &domain, &policy, None, now)
    })?;
    let told = node.store.commit_blocking(move |txn| {
        let due = counts::due(txn, Kind::Tls, &[], u64::MAX, usize::MAX)?;
        let told = due.iter().map(|due| settle(txn, due, Wanted::Mail(vec![to.clone()]), now));
        told.filter_map(Result::transpose).collect::<Result<_, _>>()
    });
    node.queued(BATCH_LANE);
    told.map(Committed::into_inner)
}

/// The day goes, and what big is told of it comes, under this id.
fn settle(txn: &mut Txn<'_>, due: &Due, wanted: Wanted, now: u64) -> Result<Option<Id>, StoreError> {
    let to = match wanted {
        Wanted::Mail(mailboxes) => mailboxes.iter().map(ToString::to_string).collect(),
        Wanted::Nothing | Wanted::AnotherWay => Vec::new(),
    };
    let is_wanted = !to.is_empty();
    let Some(report) = counts::take(txn, due, to)?.filter(|_| is_wanted) else { return Ok(None) };
    let id = report.id;
    let what = format!("{} report of {}: big is told what was counted", report.counts.kind(), report.domain);
    trace::note(txn, MessageId(id), now, what)?;
    let (head, body) = (encode(&ToBig::AggregateReport(Box::new(report))), QueuedBody::None);
    lane::queue(txn, &QueuedUnit { id, lane: BATCH_LANE, after: None, head, body })?;
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use link_proto::unit::HEAD_BYTES_MAX;
    use shared::aggregate::{PolicyKind, ResultType, TlsFailure, TlsPolicy};
    use shared::store::sim::{Faults, SimDisk};
    use shared::store::{Rows, Store};
    use shared::unit::decode;

    use super::*;

    const NOON: u64 = 20_000 * 24 * 3_600_000 + 12 * 3_600_000;

    fn counted(domain: &str) -> (Store, Due) {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let name = domain.to_owned();
        let due = store.commit_blocking(move |txn| {
            // As large as it may be.
            for n in 0..700_u32 {
                let (kind, text) = (PolicyKind::Tlsa, vec![format!("{}", n % 20)]);
                let policy = TlsPolicy { kind, domain: name.clone(), text, hosts: Vec::new() };
                let reason = format!("{n}{}", "x".repeat(250));
                let failure = TlsFailure::unconnected(ResultType::TlsaInvalid, None, &reason);
                counts::count_tls(txn, &name, &policy, Some(&failure), NOON)?;
            }
            counts::due(txn, Kind::Tls, &[], u64::MAX, 1)
        });
        let due = due.expect("commits").into_inner().remove(0);
        (store, due)
    }

    fn units(store: &Store) -> Vec<QueuedUnit> {
        let units = lane::units(&store.read().expect("reads"), BATCH_LANE, 1, 10).expect("reads");
        units.into_iter().map(|(_, unit)| unit).collect()
    }

    #[test]
    fn a_day_becomes_a_unit_in_one_commit_or_is_gone() {
        let (store, due) = counted("a.example");
        let mail = Wanted::Mail(vec!["tls@a.example".parse().expect("an address")]);
        for wanted in [Wanted::Nothing, Wanted::AnotherWay, mail] {
            let (store, due) = counted("a.example");
            let is_wanted = matches!(wanted, Wanted::Mail(_));
            store.commit_blocking(move |txn| settle(txn, &due, wanted, NOON)).expect("commits");
            assert_eq!(
                counts::due(&store.read().expect("reads"), Kind::Tls, &[], u64::MAX, 9).expect("reads"),
                []
            );
            assert_eq!(units(&store).len(), usize::from(is_wanted));
            for unit in units(&store) {
                assert!(unit.head.len() <= HEAD_BYTES_MAX, "{}", unit.head.len());
                let Some(ToBig::AggregateReport(report)) = decode(&unit.head) else { panic!("{unit:?}") };
                assert_eq!((unit.id, report.to.as_slice()), (report.id, &["tls@a.example".to_owned()][..]));
            }
        }
        // A commit that fails leaves the day as it was.
        let failed = store.commit_blocking(move |txn| {
            settle(txn, &due, Wanted::Nothing, NOON)?;
            Err::<(), _>(StoreError::Full)
        });
        assert!(failed.is_err());
        assert_eq!(
            store.read().and_then(|rows| rows.count(shared::store::Table("tls-counts"))).expect("reads"),
            1
        );
    }

    #[test]
    fn a_domain_that_dns_does_not_answer_for_is_asked_each_hour_for_a_day() {
        let due = Due { kind: Kind::Tls, key: b"k".to_vec(), domain: "a.example".into(), since: NOON };
        let (mut waiting, mut asked) = (Waiting::default(), 0);
        let mut now = NOON;
        loop {
            if waiting.is_asked(&due, now) {
                asked += 1;
                if !waiting.unanswered(&due, now) {
                    break;
                }
            }
            now += 60_000;
        }
        assert_eq!((asked, now - NOON), (24, 23 * AGAIN_MILLIS));
        assert!(waiting.0.is_empty());
    }
}
