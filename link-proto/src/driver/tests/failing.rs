//! A node that cannot apply a batch.

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::driver::engine::Event;
use crate::driver::workers::{Apply, Workers};

/// Its partner would take it for applied: the position says so, and the chain.
#[tokio::test]
async fn what_follows_a_batch_that_was_not_applied_is_not_applied_either() {
    let node = Memory::new(2);
    let (release, gate) = oneshot::channel();
    node.with(|state| state.failing = Some(gate));
    let (events, mut reports) = mpsc::channel(4);
    let mut tasks = JoinSet::new();
    let workers = Workers::start(&Arc::new(Node(Arc::clone(&node))), Lane::Inter, &events, &mut tasks);
    let first = Position::default();
    let batch = |from: Position| {
        let unit = Unit {
            number: from.number + 1,
            id: unit_id(1),
            after: None,
            head: Bytes::from_static(b"head"),
            body: Body::None,
        };
        Apply { position: from.after(&unit), units: vec![unit], from }
    };
    let (one, two) = (batch(first), batch(batch(first).position));
    assert!(workers.apply.try_send(one).is_ok());
    node.until("the first is being applied", |state| state.failing.is_none()).await;
    assert!(workers.apply.try_send(two).is_ok());
    release.send(()).expect("it waits");
    drop(workers);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a worker ends well");
    }
    assert!(matches!(reports.recv().await, Some(Event::Failed(_))));
    node.with(|state| assert_eq!((state.lanes[2].received, &state.filed[2]), (first, &vec![])));
}
