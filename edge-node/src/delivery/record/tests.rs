//! What is recorded of attempts.

use std::sync::Arc;

use shared::lane;
use shared::seal::PrivateKey;
use shared::store::Store;
use shared::store::sim::{Faults, SimDisk};
use shared::tls_wish::TlsWish;
use shared::topology::{SMALLEST, Topology};
use shared::unit::decode;

use super::*;
use crate::cover::Covers;
use crate::record::{QueueRecipient, QueueRow};

const MESSAGE: MessageId = MessageId([3; 16]);
const TO: &str = "bob@remote.example";

/// A node with a message for one recipient, that is due.
async fn node() -> Node {
    let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
    let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
    let node = Node::new(store, Covers::simulated(), topology, PrivateKey::from_bytes([1; 32]), [2; 32]);
    let recipient = QueueRecipient {
        index: 0,
        address: TO.into(),
        state: DeliveryState::Relaying,
        text: String::new(),
        attempts: 0,
        next_attempt_at: 0,
        held: false,
        doubt: None,
        in_doubt: false,
        notify: None,
        original: None,
    };
    let row = QueueRow {
        revision: 0,
        body: [0; 32],
        wrapped_key: vec![7; 80],
        size: 1_000,
        reverse_path: Some("alice@example.com".into()),
        returns: None,
        envelope_id: None,
        tls_wish: TlsWish::Unsaid,
        body_8bit: false,
        utf8_header: false,
        signatures: String::new(),
        recipients: vec![recipient],
        noted: Vec::new(),
        queued_at: 0,
        since: 0,
    };
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
        let busy = Arc::clone(&node.busy);
        let begin = move |txn: &mut Txn<'_>| revise::begin(txn, &busy, MESSAGE, None, u64::MAX);
        let begun = node.store.commit(begin).await.expect("commits").into_inner().expect("is due");
        let report = Report::ours(Status { in_doubt, ..later.clone() });
        record(&node, MESSAGE, &begun, vec![(0, report)]).await.expect("records");
        let waiting = Waiting::load(&node.store.read().expect("reads"), MESSAGE).expect("reads");
        assert!(waiting.rows()[0].recipients[0].in_doubt, "{in_doubt}");
    }
}
