//! The schedule follows the rows whatever is done with them, and a long queue is gone through page by page.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use shared::id::unix_millis;
use shared::lane;
use shared::seal::PrivateKey;
use shared::store::sim::{Faults, SimDisk};
use shared::store::{Committed, DirectoryDisk, Disk, Store};
use shared::topology::{SMALLEST, Topology};
use shared::unit::{DeliveryState, NO_REVISION, ToBig, ToEdge, Unsettled, decode, encode};

use super::operator::{cancel, hold, list, retry};
use super::*;
use crate::apply::{Arrived, apply};
use crate::cover::Covers;
use crate::delivery;
use crate::facts::EVENT_LANE;
use crate::node::Node;
use crate::record::Doubt;
use crate::request::{Held, QueueFilter, Which};
use crate::revise::{self, busy::Busy, latest};

const NOW: u64 = 1_800_000_000_000;

fn node_on(disk: Arc<dyn Disk>) -> Node {
    let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
    let store = Store::open(disk).expect("opens");
    Node::new(store, Covers::simulated(), topology, PrivateKey::from_bytes([1; 32]), [2; 32])
}

fn node() -> Node {
    node_on(Arc::new(SimDisk::new(Faults::default())))
}

fn id(number: u64) -> MessageId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    MessageId(bytes)
}

/// A row for recipients at these domains, due at `at`.
fn row(domains: &[&str], at: u64) -> QueueRow {
    sample::row((0..).zip(domains).map(|(index, domain): (u32, _)| format!("r{index}@{domain}")), at)
}

impl Node {
    fn commit<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        tokio::task::block_in_place(|| self.store.commit_blocking(operation)).map(Committed::into_inner)
    }

    fn enter(&self, rows: Vec<(MessageId, QueueRow)>) {
        let entered = self.commit(move |txn| {
            rows.iter().try_for_each(|(message, row)| put(txn, *message, row))?;
            Ok::<_, StoreError>(())
        });
        entered.expect("commits");
    }

    fn due(&self, now: u64) -> Vec<String> {
        due_destinations(&self.store.read().expect("reads"), now, usize::MAX, |_| true).expect("reads")
    }

    fn message(&self, destination: &str, now: u64, skip: &[u64]) -> Option<MessageId> {
        let skip = |message| skip.iter().any(|number| id(*number) == message);
        due_message(&self.store.read().expect("reads"), destination, now, skip).expect("reads")
    }

    /// How many attempts are scheduled, and for how many destinations.
    fn scheduled(&self) -> (u64, u64) {
        let rows = self.store.read().expect("reads");
        (rows.count(DUE).expect("reads"), rows.count(DESTINATIONS).expect("reads"))
    }

    /// What big is told of recipients: index, state, status.
    fn told(&self) -> Vec<(u32, DeliveryState, String)> {
        let rows = self.store.read().expect("reads");
        let units = lane::units(&rows, 1, 1, 100).expect("reads");
        let told = units.iter().filter_map(|(_, unit)| match decode::<ToBig>(&unit.head) {
            Some(ToBig::Outcome(outcome)) => Some((outcome.recipient, outcome.state, outcome.status)),
            _ => None,
        });
        told.collect()
    }
}

#[test]
fn the_schedule_follows_the_rows() {
    let node = node();
    node.enter(vec![
        (id(1), row(&["a.example", "b.example", "a.example"], NOW)),
        (id(2), row(&["a.example"], NOW + 5)),
        (id(3), row(&["c.example"], NOW - 5)),
    ]);
    assert_eq!(node.scheduled(), (4, 3));
    assert_eq!(node.due(NOW), ["c.example", "a.example", "b.example"]);
    assert_eq!(node.due(NOW - 1), ["c.example"]);
    assert_eq!(next_due(&node.store.read().expect("reads"), NOW - 5).expect("reads"), Some(NOW));
    assert_eq!(node.message("a.example", NOW + 5, &[]), Some(id(1)));
    assert_eq!(node.message("a.example", NOW + 5, &[1]), Some(id(2)));
    assert_eq!(node.message("a.example", NOW, &[1]), None, "not yet");
    // Later, done, and held.
    let mut changed = row(&["a.example", "b.example", "a.example"], NOW + 60);
    changed.recipients[1].state = DeliveryState::Relayed;
    node.enter(vec![(id(1), changed.clone())]);
    assert_eq!(node.due(NOW + 59), ["c.example", "a.example"]);
    assert_eq!(node.message("a.example", NOW + 59, &[]), Some(id(2)));
    changed.recipients.iter_mut().for_each(|recipient| recipient.doubt = Some(Doubt::Rebuilt));
    node.enter(vec![(id(1), changed)]);
    assert_eq!(node.scheduled(), (2, 2));
    for number in 1..=3 {
        node.commit(move |txn| remove(txn, id(number), 0)).expect("commits");
    }
    assert_eq!((node.scheduled(), node.due(u64::MAX)), ((0, 0), Vec::new()));
}

#[test]
fn what_a_clock_that_went_back_has_set_is_due() {
    let node = node();
    let year = 365 * 24 * 3_600_000;
    node.enter(vec![(id(1), row(&["a.example"], NOW)), (id(2), row(&["b.example"], NOW + 1))]);
    assert_eq!(node.due(NOW - year), ["a.example", "b.example"]);
    assert_eq!(node.message("a.example", NOW - year, &[]), Some(id(1)));
    assert_eq!(node.due(NOW - 1), Vec::<String>::new());
}

#[test]
fn what_a_clock_that_went_back_has_set_is_not_hidden_by_what_is_set_anew() {
    let node = node();
    let (year, now) = (365 * 24 * 3_600_000, NOW - 365 * 24 * 3_600_000);
    // Of one destination some are far ahead, and one has failed since: all wait for that one.
    node.enter(vec![
        (id(1), row(&["a.example", "b.example"], NOW)),
        (id(2), row(&["a.example"], NOW + year)),
        (id(3), row(&["a.example"], now + 3_600_000)),
    ]);
    assert_eq!(node.due(now), ["b.example"]);
    node.commit(move |txn| bring_back(txn, "a.example", now)).expect("commits");
    assert_eq!(node.due(now), ["a.example", "b.example"]);
    let (first, second) = (node.message("a.example", now, &[]), node.message("a.example", now, &[1]));
    assert_eq!((first, second), (Some(id(1)), Some(id(2))));
    assert_eq!(node.message("a.example", now, &[1, 2]), None, "what is set anew waits for its time");
    // The other destination of the first is as it was.
    assert_eq!(node.message("b.example", NOW - 1, &[]), None);
}

#[test]
fn a_recipient_that_is_no_address_has_a_turn_like_the_others() {
    let node = node();
    let mut bad = row(&["a.example"], NOW);
    bad.recipients[0].address = "not an address".into();
    node.enter(vec![(id(1), bad)]);
    assert_eq!((node.due(NOW), node.message("", NOW, &[])), (vec![String::new()], Some(id(1))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_an_operator_holds_waits_until_it_is_released_and_says_so() {
    let disk = SimDisk::new(Faults::default());
    let node = node_on(Arc::new(disk));
    node.enter(vec![(id(1), row(&["a.example", "b.example"], NOW)), (id(2), row(&["b.example"], NOW))]);
    let domain = Which::Domain("B.example".into());
    let said = hold(&node, &domain, true).await.expect("are held").done;
    assert!(said.starts_with("held: 2 recipients of 2 messages"), "{said}");
    assert_eq!(node.due(u64::MAX / 2), ["a.example"]);
    assert!(hold(&node, &domain, true).await.expect_err("are held").0.contains("already"));
    let held = QueueFilter { held: true, ..QueueFilter::default() };
    let listed = list(&node, &held).expect("is listed").queue;
    assert_eq!(listed.iter().map(|message| message.held).collect::<Vec<_>>(), [None, Some(Held::Held)]);
    assert_eq!(listed[0].recipients.iter().map(|one| one.held).collect::<Vec<_>>(), [None, Some(Held::Held)]);
    // Of the first one is free, of the second nobody.
    retry(&node, &id(1).to_string()).await.expect("is retried");
    let refused = retry(&node, &id(2).to_string()).await.expect_err("is held").0;
    assert!(refused.contains("queue release"), "{refused}");
    let said = hold(&node, &Which::All, false).await.expect("are released").done;
    assert_eq!(said, "released: 2 recipients of 2 messages");
    assert_eq!(node.scheduled(), (3, 2));
    for (which, held, why) in [
        (Which::All, false, "nobody who is meant is held"),
        (Which::Message(id(9).to_string()), true, "does not wait here"),
        (Which::Message("x".into()), true, "not a message id"),
        (Which::Domain("c.example".into()), false, "nobody in c.example waits here"),
        (Which::Domain("..".into()), true, ".."),
    ] {
        let refused = hold(&node, &which, held).await.expect_err("is refused").0;
        assert!(refused.contains(why), "{which:?}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_retried_while_its_attempt_is_under_way_is_due_when_that_has_failed() {
    let (node, now) = (node(), unix_millis());
    node.enter(vec![(id(1), row(&["a.example"], now)), (id(2), row(&["b.example"], now))]);
    let begin = |message, domain: &'static str| {
        let busy = Arc::clone(&node.busy);
        let begun = node.commit(move |txn| revise::begin(txn, &busy, message, Some(domain), unix_millis()));
        begun.expect("commits").expect("is due")
    };
    let begun = [(id(1), begin(id(1), "a.example")), (id(2), begin(id(2), "b.example"))];
    retry(&node, &id(1).to_string()).await.expect("is retried");
    for (message, begun) in begun {
        delivery::answered_by_remote(&node, message, begun, false).await.expect("is recorded");
    }
    assert_eq!(node.due(unix_millis()), ["a.example"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_may_have_left_already_is_no_operators_to_release_or_to_cancel() {
    let node = node();
    node.enter(vec![(id(1), row(&["a.example"], NOW))]);
    node.commit(|txn| crate::maintenance::hold_back(txn, &Busy::default(), NOW)).expect("commits");
    let refused = hold(&node, &Which::Message(id(1).to_string()), false).await.expect_err("is refused").0;
    assert!(refused.contains("queue retry"), "{refused}");
    let refused = cancel(&node, &id(1).to_string(), None).await.expect_err("is refused").0;
    assert!(refused.contains("big has still to say"), "{refused}");
    assert_eq!(list(&node, &QueueFilter::default()).expect("is listed").queue[0].held, Some(Held::Restored));
    assert_eq!(node.scheduled(), (0, 0));
    hold(&node, &Which::All, true).await.expect("are held");
    let refused = retry(&node, &id(1).to_string()).await.expect_err("is refused").0;
    assert!(refused.contains("queue release"), "{refused}");
    hold(&node, &Which::All, false).await.expect("are released");
    retry(&node, &id(1).to_string()).await.expect("is retried");
    assert_eq!(node.scheduled(), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_text_that_was_revised_since_the_backup_leaves_by_no_command() {
    let node = node();
    let mut revised = row(&["a.example"], NOW);
    revised.recipients[0].doubt = Some(Doubt::Revised(2));
    node.enter(vec![(id(1), revised)]);
    let listed = list(&node, &QueueFilter { held: true, ..QueueFilter::default() }).expect("is listed").queue;
    assert_eq!(listed[0].held, Some(Held::Revised));
    let refused = retry(&node, &id(1).to_string()).await.expect_err("is refused").0;
    assert!(refused.contains("revised it since the backup"), "{refused}");
    assert_eq!(node.scheduled(), (0, 0));
    cancel(&node, &id(1).to_string(), None).await.expect("is given up");
    let rows = node.store.read().expect("reads");
    let latest = latest::latest(&rows, id(1), 0).expect("reads");
    assert_eq!(latest, Some(NO_REVISION), "what comes for it now is not queued");
    // Nor is it one that was redirected: should big not know that it has failed, it is told so.
    let messages = vec![(id(1).0, vec![(0, 2)])];
    let list = Unsettled { from: id(1).0, to: id(1).0, messages, generation: 0 };
    let told = |node: &Node| {
        let units = lane::units(&node.store.read().expect("reads"), EVENT_LANE, 1, 100).expect("reads");
        units.iter().filter_map(|(_, unit)| decode::<ToBig>(&unit.head)).collect::<Vec<_>>()
    };
    let before = told(&node);
    let arrived = Arrived { head: encode(&ToEdge::Unsettled(list)).into(), stored: None, lost: false };
    let busy = Busy::default();
    let applied = node.commit(move |txn| Ok(apply(txn, &[0; 32], &busy, arrived, 1000).is_ok()));
    assert!(applied.expect("commits"));
    let said = told(&node).split_off(before.len());
    assert_eq!(said, before[before.len() - 1..], "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_is_cancelled_has_failed_and_the_others_wait() {
    let node = node();
    node.enter(vec![(id(1), row(&["a.example", "b.example", "c.example"], NOW))]);
    let message = id(1).to_string();
    let under_way = node.busy.begin(id(1), vec![0]);
    for (recipient, why) in [
        (Some("r0@a.example"), "is under way"),
        (None, "is under way"),
        (Some("r9@a.example"), "does not wait for"),
        (Some("nobody"), "nobody: "),
    ] {
        let refused = cancel(&node, &message, recipient).await.expect_err("is refused").0;
        assert!(refused.contains(why), "{recipient:?}: {refused}");
    }
    assert_eq!(node.told(), []);
    cancel(&node, &message, Some("R1@B.example")).await.expect("it is the same however it is typed");
    assert_eq!(node.told(), [(1, DeliveryState::Failed, "5.3.0".into())]);
    assert_eq!(node.due(NOW), ["a.example", "c.example"]);
    drop(under_way);
    hold(&node, &Which::All, true).await.expect("are held");
    cancel(&node, &message, None).await.expect("those who are held, too");
    assert_eq!(node.told().len(), 3);
    assert!(list(&node, &QueueFilter::default()).expect("is listed").queue.is_empty());
    assert!(cancel(&node, &message, None).await.expect_err("is gone").0.contains("does not wait here"));
}

/// A queue of `count` messages, of which all but each hundredth are for one destination, is scheduled, listed and held.
async fn goes_through(node: &Node, count: u64) {
    let begun = Instant::now();
    let took =
        |what: &str| println!("{what}: {:.1} s, {} KiB resident", begun.elapsed().as_secs_f64(), resident());
    for first in (0..count).step_by(5_000) {
        let domain = |number: u64| match number % 100 {
            0 => format!("d{}.example", number / 100),
            _ => "slow.example".to_owned(),
        };
        let rows = (first..count.min(first + 5_000))
            .map(|number| (id(number), row(&[&domain(number)], NOW + number)));
        node.enter(rows.collect());
    }
    took("filled");
    let others = usize::try_from(count / 100).expect("few");
    assert_eq!(node.scheduled(), (count, count / 100 + 1));
    let rows = node.store.read().expect("reads");
    let due = due_destinations(&rows, NOW + count, 100, |name| name != "slow.example").expect("reads");
    assert_eq!(due.len(), others.min(100));
    assert_eq!(
        (&due[0], node.message("slow.example", NOW + count, &[1, 2])),
        (&"d0.example".into(), Some(id(3)))
    );
    drop(rows);
    took("looked for what is due");
    let (mut listed, mut pages, mut filter) = (0, 0, QueueFilter::default());
    loop {
        let page = list(node, &filter).expect("is listed");
        assert!(page.queue.len() <= ROWS_AT_ONCE);
        (listed, pages) = (listed + page.queue.len() as u64, pages + 1);
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    assert!((count, pages) == (listed, count / ROWS_AT_ONCE as u64 + 1), "{listed} on {pages} pages");
    took("listed");
    hold(node, &Which::Domain("slow.example".into()), true).await.expect("are held");
    assert_eq!(node.scheduled(), (count / 100, count / 100));
    took("held one destination");
}

/// Resident memory of this process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_queue_is_gone_through_page_by_page() {
    goes_through(&node(), 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement: minutes, and some GiB of disk"]
async fn a_million_messages_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = || Arc::new(DirectoryDisk::open(folder.path()).expect("opens"));
    goes_through(&node_on(disk()), 1_000_000).await;
    let begun = Instant::now();
    let node = node_on(disk());
    assert_eq!(node.due(u64::MAX / 2).len(), 10_000);
    println!("opened again: {:.1} s, {} KiB resident", begun.elapsed().as_secs_f64(), resident());
}
