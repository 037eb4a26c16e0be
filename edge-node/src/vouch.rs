//! What a 250 vouches for: `ack` in the topology (promises §2).
//!
//! | policy | 250 after | big not reached, or no CONFIRMED in time |
//! |---|---|---|
//! | `local` | this edge's commit | 250 all the same |
//! | `pair` | big's CONFIRMED too | 451; the unit stays, and the client's repeat is matched to it |
//! | `pair-or-local` | CONFIRMED, if it comes within [`SOON`] | 250, which says so |
//!
//! A 250 says which way it went.

use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};
use shared::age;
use shared::lane::{self, Outstanding};
use shared::row;
use shared::smtp::{Enhanced, Reply, Verdict};
use shared::store::{Rows, StoreError, Table, Txn};
use shared::topology::Acknowledge;
use shared::unit::Id;
use tokio::time::timeout;

use crate::intake::refusal;
use crate::node::Node;
use crate::record::{COPIES, CopyRow, copy_of};
use crate::repeats::{self, Fingerprint, Unheard};

/// How long `pair` waits for big's CONFIRMED before it says 451.
const CONFIRM_TIME: Duration = Duration::from_secs(60);
/// How long `pair-or-local` waits for it.
const SOON: Duration = Duration::from_secs(2);

/// Whether a transaction may begin: `pair` needs big.
pub fn may_begin(node: &Node) -> Verdict {
    match node.topology.edge.ack {
        Acknowledge::Pair if !node.link.is_open() => {
            let text = "the node that keeps the mail cannot be reached; try again later";
            Err(Reply::new(451, Enhanced(4, 4, 1), text))
        }
        _ => Ok(()),
    }
}

/// Waits as the policy says for big to have a message that this edge holds durably. What the 250 says
/// behind the message's id, or the refusal for now.
pub async fn wait(node: &Node, message: Unheard, fingerprint: Fingerprint) -> Result<&'static str, Reply> {
    match node.topology.edge.ack {
        Acknowledge::Local => Ok(""),
        Acknowledge::PairOrLocal => wait_for(SOON, node, message, fingerprint).await,
        Acknowledge::Pair => wait_for(CONFIRM_TIME, node, message, fingerprint).await,
    }
}

async fn wait_for(
    within: Duration,
    node: &Node,
    message: Unheard,
    fingerprint: Fingerprint,
) -> Result<&'static str, Reply> {
    let confirmed = timeout(within, until_confirmed(node, &message)).await;
    match (confirmed, node.topology.edge.ack) {
        (Ok(Ok(Outstanding::Confirmed)), _) => {
            answered(node, message, fingerprint).await.map_err(|error| refusal(&error))?;
            Ok(" on both nodes")
        }
        (Ok(Ok(_)), Acknowledge::Pair) => {
            let text = "the node that keeps the mail does not take it; the postmaster has to see to it";
            Err(Reply::new(451, Enhanced(4, 3, 0), text))
        }
        (Ok(Err(error)), Acknowledge::Pair) => Err(refusal(&error)),
        (Err(_), Acknowledge::Pair) => {
            let text = "not confirmed in time; try again, and the same message is recognised";
            Err(Reply::new(451, Enhanced(4, 4, 7), text))
        }
        _ => {
            answered(node, message, fingerprint).await.map_err(|error| refusal(&error))?;
            Ok(" on the edge alone")
        }
    }
}

/// Waits until big has applied the message, or has refused it.
async fn until_confirmed(node: &Node, message: &Unheard) -> Result<Outstanding, StoreError> {
    let mut confirms = node.confirms.subscribe();
    let _vouching = node.vouching();
    loop {
        confirms.borrow_and_update();
        let rows = node.store.read()?;
        // As long as its first number is not reached, there is no need to look for it.
        let reached = match message.number {
            Some(number) => lane::state(&rows, message.lane)?.confirmed.number >= number,
            None => true,
        };
        if reached {
            match lane::outstanding(&rows, message.lane, &message.message)? {
                Outstanding::Waits => {}
                done => return Ok(done),
            }
        }
        drop(rows);
        // The sender is the node's, which is here.
        let _ = confirms.changed().await;
    }
}

/// The 250 is about to be said, and the message's copies are shown.
async fn answered(node: &Node, message: Unheard, fingerprint: Fingerprint) -> Result<(), StoreError> {
    let show = move |txn: &mut Txn<'_>| {
        repeats::answered(txn, &fingerprint, message)?;
        show_copies(txn, &message.message)
    };
    node.store.commit(show).await.map(drop)
}

/// Shows the copies of a message that were filed with its 250 still to come.
fn show_copies(txn: &mut Txn<'_>, message: &Id) -> Result<(), StoreError> {
    for (key, row) in txn.prefix::<Hidden>(HIDDEN, message, usize::MAX)? {
        txn.delete(HIDDEN, &key)?;
        if let Some(copy) = txn.get::<CopyRow>(COPIES, &row.copy)? {
            txn.put(COPIES, &row.copy, &CopyRow { hidden: false, ..copy })?;
        }
    }
    Ok(())
}

/// Message and window to the key of a copy that is not shown yet.
const HIDDEN: Table = Table("hidden-copies");

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct Hidden {
    copy: Vec<u8>,
}
row!(Hidden, 1);

/// Files a copy that is shown only with the message's 250.
pub fn hide(txn: &mut Txn<'_>, window: &Id, copy: &[u8]) -> Result<(), StoreError> {
    let (message, _) = copy_of(copy);
    let key = [message.0.as_slice(), window].concat();
    txn.put(HIDDEN, &key, &Hidden { copy: copy.to_vec() })
}

/// Forgets messages whose repeat has not come, among `max` behind `cursor`, and shows the copies of those without a 250
/// that big has: they are at home, whatever their sender believes. Returns where to go on; `None` at the end.
pub fn forget(txn: &mut Txn<'_>, cursor: &[u8], max: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let lived = age::lived(txn)?;
    let (waiting, then) = repeats::forget(txn, cursor, max, lived)?;
    for row in waiting {
        if lived.saturating_sub(row.at) > u64::try_from(CONFIRM_TIME.as_millis()).unwrap_or(u64::MAX)
            && lane::outstanding(txn, row.lane, &row.message)? == Outstanding::Confirmed
        {
            show_copies(txn, &row.message)?;
        }
    }
    Ok(then)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use link_proto::host::{Applied, Host as _};
    use link_proto::unit::{Lane, Position};
    use shared::lane::{QueuedBody, QueuedUnit};
    use shared::seal::PrivateKey;
    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};
    use shared::topology::{SMALLEST, Topology};

    use super::*;
    use crate::cover::Covers;
    use crate::link::LinkHost;

    const MESSAGE: Unheard =
        Unheard { message: [1; 16], lane: Lane::Inter as u8, number: Some(1), at: 0, answered: false };

    fn node(ack: &str) -> Node {
        let text = SMALLEST.replace("[link]", &format!("ack = \"{ack}\"\n[link]"));
        let topology = Topology::parse(&text, "test.toml").expect("is right");
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        Node::new(store, Covers::simulated(), topology, PrivateKey::from_bytes([1; 32]), [2; 32])
    }

    const SHORT: Duration = Duration::from_millis(20);

    /// A node that holds a unit which big has not confirmed.
    fn in_doubt(ack: &str) -> Arc<Node> {
        let node = Arc::new(node(ack));
        let Unheard { message: id, lane, .. } = MESSAGE;
        let unit = QueuedUnit { id, lane, after: None, head: vec![1], body: QueuedBody::None };
        node.store.commit_blocking(move |txn| lane::queue(txn, &unit)).expect("there is room");
        node
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(future)
    }

    #[test]
    fn what_big_does_not_confirm_in_time_is_451_with_pair_and_250_with_pair_or_local() {
        let answer = |ack| block_on(wait_for(SHORT, &in_doubt(ack), MESSAGE, [3; 32]));
        let text = "not confirmed in time; try again, and the same message is recognised";
        assert_eq!(answer("pair"), Err(Reply::new(451, Enhanced(4, 4, 7), text)));
        assert_eq!(answer("pair-or-local"), Ok(" on the edge alone"));
    }

    #[test]
    fn a_confirm_whose_record_waits_for_another_commit_is_told_to_who_has_come_meanwhile() {
        let node = in_doubt("pair");
        let answer = block_on(async {
            let (host, position) = (LinkHost::new(Arc::clone(&node)), Position { number: 1, chain: [0; 32] });
            host.confirmed(Lane::Inter, position, Applied::default()).await.expect("is recorded");
            wait(&node, MESSAGE, [3; 32]).await
        });
        assert_eq!(answer, Ok(" on both nodes"));
    }
}
