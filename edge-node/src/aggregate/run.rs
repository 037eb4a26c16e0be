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
use shared::id::{MessageId, monotonic, unix_millis};
use shared::lane::{self, QueuedBody, QueuedUnit};
#[cfg(feature = "sim")]
use shared::store::Committed;
use shared::store::{Store, StoreError, Txn};
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
/// Clock and monotonic time may differ by so much since the last round.
const APART_MAX: Duration = Duration::from_secs(5 * 60);
/// How long no day ends by a clock that was set: until the node's pulse has found that as well (`shared::age`).
const DOUBT: Duration = Duration::from_secs(3 * 60);
/// Reports are large, and nobody waits for them.
const BATCH_LANE: u8 = 3;

/// Runs for ever. `resolver` is asked what domains want.
pub async fn run(node: Arc<Node>, resolver: Resolver) {
    let mut waiting = Waiting::default();
    let mut clock = Clock::of(monotonic(), unix_millis());
    loop {
        tokio::time::sleep(ROUND).await;
        if !clock.is_steady(monotonic(), unix_millis()) {
            continue;
        }
        if let Err(error) = round(&node, &resolver, &mut waiting).await {
            tracing::warn!(%error, "what was counted for reports could not be told; it is tried again");
        }
    }
}

/// The clock, as it was in the last round: a state machine. The pulse, which doubts it for a day, comes once a minute only.
#[derive(Debug)]
struct Clock {
    passed: Duration,
    wall: u64,
    doubted_until: Duration,
}

impl Clock {
    /// `passed` is monotonic time, `wall` in milliseconds since 1970.
    fn of(passed: Duration, wall: u64) -> Self {
        Self { passed, wall, doubted_until: Duration::ZERO }
    }

    /// Whether days may end by it now.
    fn is_steady(&mut self, passed: Duration, wall: u64) -> bool {
        let since = passed.saturating_sub(self.passed).as_millis();
        let expected = self.wall.saturating_add(u64::try_from(since).unwrap_or(u64::MAX));
        if u128::from(wall.abs_diff(expected)) > APART_MAX.as_millis() {
            self.doubted_until = passed.saturating_add(DOUBT);
        }
        (self.passed, self.wall) = (passed, wall);
        passed >= self.doubted_until
    }
}

/// Domains that are asked again later, since DNS gave no answer or what they are to be told could not be written: a state
/// machine.
#[derive(Debug, Default)]
struct Waiting(HashMap<(Kind, Vec<u8>), u64>);

impl Waiting {
    /// Whether a day's domain is to be asked at `now`, milliseconds since 1970.
    fn is_asked(&self, due: &Due, now: u64) -> bool {
        self.0.get(&(due.kind, due.key.clone())).is_none_or(|again| *again <= now)
    }

    /// DNS gave no answer. Whether it is asked again: once at least, however late it was asked first.
    fn unanswered(&mut self, due: &Due, now: u64) -> bool {
        let again = now.saturating_add(AGAIN_MILLIS);
        let is_first = !self.0.contains_key(&(due.kind, due.key.clone()));
        let goes_on = is_first || again < due.since.saturating_add(GIVEN_UP_MILLIS);
        match goes_on {
            true => self.later(due, now),
            false => self.ended(due),
        }
        goes_on
    }

    fn later(&mut self, due: &Due, now: u64) {
        self.0.insert((due.kind, due.key.clone()), now.saturating_add(AGAIN_MILLIS));
    }

    fn ended(&mut self, due: &Due) {
        self.0.remove(&(due.kind, due.key.clone()));
    }
}

/// Deals with all that is due.
async fn round(node: &Node, resolver: &Resolver, waiting: &mut Waiting) -> Result<(), StoreError> {
    // By a clock that was set, days would end that are not over, and what is counted of them later would be lost.
    if !age::is_clock_believed(&node.store.read()?)? {
        return Ok(());
    }
    for kind in Kind::ALL {
        round_of(node, resolver, waiting, kind).await?;
        for due in counts::ahead(&node.store.read()?, kind, unix_millis(), AT_ONCE)? {
            tracing::warn!(domain = due.domain, "counted by a clock that was ahead: no report is made of it");
            node.store.commit(move |txn| counts::discard(txn, &due)).await?;
        }
    }
    Ok(())
}

async fn round_of(
    node: &Node,
    resolver: &Resolver,
    waiting: &mut Waiting,
    kind: Kind,
) -> Result<(), StoreError> {
    let reports = node.topology.edge.reports;
    let is_sent = match kind {
        Kind::Tls => reports.tls,
        Kind::Dmarc => reports.dmarc,
    };
    let mut from = Vec::new();
    loop {
        // Asking takes a while.
        let now = unix_millis();
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
                Err(error) => {
                    tracing::info!(domain = due.domain, %error, "it gets no report: DNS does not say whether it wants one");
                    Wanted::Nothing
                }
            };
            // One day that fails keeps no other waiting.
            match tell(&node.store, &due, wanted, now).await {
                Ok(()) => waiting.ended(&due),
                Err(error) => {
                    tracing::warn!(domain = due.domain, %error, "what was counted could not be told; it is tried again");
                    waiting.later(&due, now);
                }
            }
            node.queued(BATCH_LANE);
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

/// Deals with one day.
async fn tell(store: &Store, due: &Due, wanted: Wanted, now: u64) -> Result<(), StoreError> {
    if wanted == Wanted::AnotherWay {
        tracing::info!(domain = due.domain, "it wants reports by https only, which none are sent by");
    }
    let day = due.clone();
    store.commit(move |txn| settle(txn, &day, wanted, now)).await.map(drop)
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

/// The day goes, and what big is told of it comes, under this id. A day that cannot be read is thrown away, for it would be
/// in the way for ever; so is what big would refuse.
fn settle(txn: &mut Txn<'_>, due: &Due, wanted: Wanted, now: u64) -> Result<Option<Id>, StoreError> {
    let to = match wanted {
        Wanted::Mail(mailboxes) => mailboxes.iter().map(ToString::to_string).collect(),
        Wanted::Nothing | Wanted::AnotherWay => Vec::new(),
    };
    let is_wanted = !to.is_empty();
    let taken = match counts::take(txn, due, to) {
        Err(StoreError::Damaged(what)) => {
            tracing::error!(domain = due.domain, what, "what was counted cannot be read, and is thrown away");
            counts::discard(txn, due)?;
            return Ok(None);
        }
        taken => taken?,
    };
    let Some(report) = taken.filter(|report| is_wanted && report.counts.is_sound()) else { return Ok(None) };
    if !counts::may_be_told(txn, now)? {
        tracing::info!(domain = due.domain, "it gets no report: there were as many as there may be in a day");
        return Ok(None);
    }
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
    use shared::store::Rows;
    use shared::store::sim::{Faults, SimDisk};
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

    #[test]
    fn who_is_asked_late_is_asked_twice() {
        let due = Due { kind: Kind::Tls, key: b"k".to_vec(), domain: "a.example".into(), since: NOON };
        let (mut waiting, late) = (Waiting::default(), NOON + 10 * GIVEN_UP_MILLIS);
        assert!(waiting.unanswered(&due, late) && !waiting.is_asked(&due, late));
        assert!(
            waiting.is_asked(&due, late + AGAIN_MILLIS) && !waiting.unanswered(&due, late + AGAIN_MILLIS)
        );
        assert!(waiting.0.is_empty());
    }

    #[test]
    fn no_day_ends_by_a_clock_that_was_set() {
        let (second, day) = (Duration::from_secs(1), 24 * 3_600_000);
        let mut clock = Clock::of(second, NOON);
        assert!(clock.is_steady(second * 6, NOON + 5_000));
        assert!(clock.is_steady(second * 11, NOON + 70_000), "it is corrected a little");
        for (passed, wall) in [(16, NOON + day), (21, NOON + day + 5_000), (26, NOON + 15_000)] {
            assert!(!clock.is_steady(second * passed, wall), "{passed}");
        }
        let until = 26 + DOUBT.as_secs();
        assert!(clock.is_steady(Duration::from_secs(until), NOON + 15_000 + DOUBT.as_secs() * 1_000));
    }

    #[test]
    fn big_is_told_of_no_more_than_it_takes_in_a_day() {
        let (store, due) = counted("a.example");
        let told = store.commit_blocking(move |txn| {
            for _ in 1..shared::aggregate::REPORTS_A_DAY_MAX {
                assert!(counts::may_be_told(txn, NOON)?);
            }
            let policy = TlsPolicy {
                kind: PolicyKind::NoPolicyFound,
                domain: "b.example".into(),
                text: Vec::new(),
                hosts: Vec::new(),
            };
            counts::count_tls(txn, "b.example", &policy, None, NOON)?;
            let second = counts::due(txn, Kind::Tls, &[], u64::MAX, 9)?;
            let second = second.into_iter().find(|day| *day != due).expect("is there");
            for day in [&due, &second] {
                settle(txn, day, Wanted::Mail(vec!["tls@a.example".parse().expect("an address")]), NOON)?;
            }
            assert_eq!(counts::due(txn, Kind::Tls, &[], u64::MAX, 9)?, [], "both days are over");
            counts::may_be_told(txn, NOON + 24 * 3_600_000)
        });
        assert!(told.expect("commits").into_inner(), "the next day");
        assert_eq!(units(&store).len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_day_that_cannot_be_read_is_over_as_well() {
        let (store, due) = tokio::task::block_in_place(|| counted("a.example"));
        let key = due.key.clone();
        let table = shared::store::Table("tls-counts");
        let damage = store.commit(move |txn| txn.put(table, &key, &Unreadable(1)));
        let damaged: Result<_, StoreError> = damage.await;
        damaged.expect("commits");
        let mail = Wanted::Mail(vec!["tls@a.example".parse().expect("an address")]);
        tell(&store, &due, mail, NOON).await.expect("deals with it");
        assert_eq!(
            counts::due(&store.read().expect("reads"), Kind::Tls, &[], u64::MAX, 9).expect("reads"),
            []
        );
        assert!(units(&store).is_empty());
    }

    #[test]
    fn a_number_of_reports_that_cannot_be_read_costs_no_day() {
        let (store, due) = counted("a.example");
        let told = store.commit_blocking(move |txn| {
            txn.put(shared::store::Table("aggregate-told"), b"", &Unreadable(1))?;
            settle(txn, &due, Wanted::Mail(vec!["tls@a.example".parse().expect("an address")]), NOON)
        });
        assert!(told.expect("commits").into_inner().is_some());
        assert_eq!(units(&store).len(), 1);
    }

    /// A row of a version that this one cannot read.
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Unreadable(u64);
    shared::row!(Unreadable, 99);
}
