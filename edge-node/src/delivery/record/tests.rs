//! What is recorded of attempts.

use std::sync::Arc;

use shared::lane;
use shared::seal::PrivateKey;
use shared::store::Store;
use shared::store::sim::{Faults, SimDisk};
use shared::topology::{SMALLEST, Topology};
use shared::unit::decode;

use super::*;
use crate::cover::Covers;

const MESSAGE: MessageId = MessageId([3; 16]);
const TO: &str = "bob@remote.example";

/// A node with a message for one recipient, that is due.
async fn node() -> Node {
    node_on(SimDisk::new(Faults::default())).await
}

fn open(disk: SimDisk) -> Node {
    let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
    let store = Store::open(Arc::new(disk)).expect("opens");
    Node::new(store, Covers::simulated(), topology, PrivateKey::from_bytes([1; 32]), [2; 32])
}

async fn node_on(disk: SimDisk) -> Node {
    let node = open(disk);
    let row = queue::sample::row([TO.to_owned()], 0);
    node.store.commit(move |txn| queue::put(txn, MESSAGE, &row)).await.expect("commits");
    node
}

/// An attempt that finds no place at the smart host; `true` if the message was due.
async fn waits(node: &Node) -> bool {
    let busy = Arc::clone(&node.busy);
    let begin = move |txn: &mut Txn<'_>| revise::begin(txn, &busy, MESSAGE, None, unix_millis());
    let Some(begun) = node.store.commit(begin).await.expect("commits").into_inner() else { return false };
    let status = Status::ours(Class::Temporary, Enhanced(4, 4, 1), "nobody is there");
    let report = Report { waits: true, ..Report::ours(status) };
    record(node, MESSAGE, &begun, vec![(0, report)]).await.expect("records");
    true
}

/// What big is told of recipients: state and text.
fn told(node: &Node) -> Vec<(DeliveryState, String)> {
    let rows = node.store.read().expect("reads");
    let units = lane::units(&rows, EVENT_LANE, 1, 100).expect("reads");
    let outcome = |head: &[u8]| match decode::<ToBig>(head) {
        Some(ToBig::Outcome(outcome)) => Some((outcome.state, outcome.text)),
        _ => None,
    };
    units.iter().filter_map(|(_, unit)| outcome(&unit.head)).collect()
}

#[tokio::test]
async fn mail_without_a_place_at_the_smart_host_is_due_as_before_until_it_is_too_old() {
    let node = node().await;
    assert!(waits(&node).await && waits(&node).await, "it is due all the time");
    assert_eq!(told(&node), [(DeliveryState::Deferred, "nobody is there".into())], "once");
    let lived = node.topology.edge.outbound.expire;
    node.store.commit(move |txn| age::live_on(txn, lived, unix_millis())).await.expect("commits");
    assert!(waits(&node).await);
    let (state, text) = told(&node).pop().expect("big is told");
    assert_eq!(state, DeliveryState::Failed);
    assert!(text.starts_with("given up") && text.ends_with("nobody is there"), "{text}");
    assert!(!waits(&node).await, "that is the end of it");
}

#[tokio::test]
async fn that_a_host_may_have_it_is_kept_whatever_later_attempts_bring() {
    let node = node().await;
    let later = Status::ours(Class::Temporary, Enhanced(4, 4, 2), "the connection was lost");
    for in_doubt in [true, false] {
        let begun = begin(&node).await;
        let report = Report::ours(Status { in_doubt, ..later.clone() });
        record(&node, MESSAGE, &begun, vec![(0, report)]).await.expect("records");
        let waiting = Waiting::load(&node.store.read().expect("reads"), MESSAGE).expect("reads");
        assert!(waiting.rows()[0].recipients[0].in_doubt, "{in_doubt}");
    }
}

#[tokio::test]
async fn an_attempt_goes_on_until_what_came_of_it_is_recorded() {
    let disk = SimDisk::new(Faults::default());
    let node = node_on(disk.clone()).await;
    let begun = begin(&node).await;
    let taken = vec![(0, Report::ours(Status::ours(Class::Delivered, Enhanced(2, 0, 0), "taken")))];
    disk.fill_up();
    record(&node, MESSAGE, &begun, taken.clone()).await.expect_err("the disk is full");
    assert!(node.busy.attempted(MESSAGE).contains(&0), "a host may have it, and nobody has been told");
    disk.make_room();
    record(&node, MESSAGE, &begun, taken).await.expect("records");
    assert!(node.busy.attempted(MESSAGE).is_empty());
}

async fn begin(node: &Node) -> Begun {
    let busy = Arc::clone(&node.busy);
    let begin = move |txn: &mut Txn<'_>| revise::begin(txn, &busy, MESSAGE, None, u64::MAX);
    node.store.commit(begin).await.expect("commits").into_inner().expect("is due")
}

#[tokio::test]
async fn what_has_left_when_the_edge_stops_is_in_doubt_and_counted_once() {
    for (noted, answered) in [(true, false), (false, false), (true, true)] {
        let has_left = noted && !answered;
        let disk = SimDisk::new(Faults::default());
        let node = node_on(disk.clone()).await;
        let begun = begin(&node).await;
        if noted {
            let note = |txn: &mut Txn<'_>| leaving::note(txn, MESSAGE, &[0]);
            node.store.commit(note).await.expect("commits");
        }
        if answered {
            let next = [(0, TO.parse::<shared::address::Address>().expect("an address").into())];
            Recorder { node: &node, message: MESSAGE, begun: &begun }.answered(&next).await;
        }
        drop((begun, node));
        let undetermined =
            |node: &Node| border::view(&node.store.read().expect("reads")).expect("reads").undetermined;
        for _ in 0..2 {
            let node = open(disk.clone());
            node.wake().await.expect("wakes");
            let waiting = Waiting::load(&node.store.read().expect("reads"), MESSAGE).expect("reads");
            assert_eq!(waiting.rows()[0].recipients[0].in_doubt, has_left);
            assert_eq!(
                (told(&node).len(), undetermined(&node)),
                (usize::from(has_left), u64::from(has_left))
            );
        }
        // What is answered is not in doubt, whenever the edge stops then.
        let node = open(disk.clone());
        let begun = begin(&node).await;
        answered_by_remote(&node, MESSAGE, begun, true).await.expect("records");
        let before = undetermined(&node);
        drop(node);
        let node = open(disk);
        node.wake().await.expect("wakes");
        assert_eq!(undetermined(&node), before);
        assert_eq!(told(&node).last().expect("told").0, DeliveryState::Relayed);
    }
}
