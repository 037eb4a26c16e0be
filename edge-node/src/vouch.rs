//! What a 250 vouches for: `ack` in the topology (promises §2).
//!
//! | policy | 250 after | big not reached, or no CONFIRMED in time |
//! |---|---|---|
//! | `local` | this edge's commit | 250 all the same |
//! | `pair` | big's CONFIRMED too | 451; the unit stays, and the client's repeat is matched to it |
//! | `pair-or-local` | CONFIRMED, if it comes within [`SOON`] | 250, which says so |
//!
//! A 250 says which way it went.
//!
//! A client that has not heard a 250 sends its message again. So messages are remembered by envelope, network and
//! content: one that had no 250 yet, or a 451 of `pair`, for as long as clients try; one that had its 250 for an hour, if
//! nothing came over its session behind that, and the session is over. A repeat is then the same message, and not a
//! second one; whatever else looks like it is another message.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};
use shared::address::Address;
use shared::id::{MessageId, unix_millis};
use shared::lane::{self, Outstanding};
use shared::notify::Return;
use shared::row;
use shared::smtp::{Enhanced, Envelope, Reply, Verdict};
use shared::store::{Rows, StoreError, Table, Txn, behind};
use shared::topology::Acknowledge;
use shared::trace;
use shared::unit::Id;
use tokio::time::timeout;

use crate::border::{self, Count};
use crate::intake::refusal;
use crate::node::Node;
use crate::record::{COPIES, CopyRow, copy_of};

/// Messages whose clients may not know that they were taken in, by [`Fingerprint`].
const UNHEARD: Table = Table("unheard");

/// How long `pair` waits for big's CONFIRMED before it says 451.
const CONFIRM_TIME: Duration = Duration::from_secs(60);
/// How long `pair-or-local` waits for it.
const SOON: Duration = Duration::from_secs(2);
/// How long the repeat of a message that was answered 451 is recognised, in milliseconds: RFC 5321
/// §4.5.4.1 has clients try for 4 to 5 days.
const RECOGNISED_MILLIS: u64 = 7 * 24 * 3_600_000;
/// The same of one that was answered 250.
const ANSWERED_MILLIS: u64 = 3_600_000;

/// What tells a repeat: reverse-path, forward-paths, network and content.
pub type Fingerprint = [u8; 32];

/// A message whose client may not know that it was taken in.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unheard {
    /// The message, and the id of its unit.
    pub message: Id,
    /// The unit's lane, and its number there when it was queued; none behind a large body.
    pub lane: u8,
    /// See `lane`.
    pub number: Option<u64>,
    /// Since when, milliseconds since 1970.
    pub at: u64,
    /// Its 250 was said, or is about to be.
    pub answered: bool,
}
row!(Unheard, 1);

/// Sessions that go on and have said a 250 which nothing has come behind, by what they had. While one does, its client
/// repeats nothing.
#[derive(Debug, Default)]
pub struct Open(Mutex<HashMap<Fingerprint, usize>>);

impl Open {
    fn with<T>(&self, look: impl FnOnce(&mut HashMap<Fingerprint, usize>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A 250 that a session is about to say, or has said. It is dropped with the session, unless its client was heard before.
#[derive(Debug)]
pub struct Said {
    node: Arc<Node>,
    fingerprint: Fingerprint,
}

impl Said {
    /// Taken before the message can be found by others, so that nobody takes theirs for its repeat.
    pub fn begin(node: &Arc<Node>, fingerprint: Fingerprint) -> Self {
        node.said.with(|open| *open.entry(fingerprint).or_default() += 1);
        Self { node: Arc::clone(node), fingerprint }
    }

    /// The client goes on behind the 250 of `message`: what looks like it from now on is another one.
    pub fn heard(self, message: Id) {
        let fingerprint = self.fingerprint;
        let forget = move |txn: &mut Txn<'_>| match txn.get::<Unheard>(UNHEARD, &fingerprint)? {
            Some(row) if row.message == message => txn.delete(UNHEARD, &fingerprint).map(drop),
            _ => Ok(()),
        };
        // A store that refuses has said so to the next message. The session stays open until it is forgotten.
        let _ = self.node.store.clone().commit_lazily(forget, move || drop(self));
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        self.node.said.with(|open| match open.get_mut(&self.fingerprint) {
            Some(sessions) if *sessions > 1 => *sessions -= 1,
            _ => drop(open.remove(&self.fingerprint)),
        });
    }
}

/// The fingerprint of a message: what its client would send again.
pub fn fingerprint(envelope: &Envelope, client: IpAddr, content: &blake3::Hash) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    };
    add(&envelope.reverse_path.as_ref().map(Address::to_string).unwrap_or_default());
    for recipient in &envelope.recipients {
        add(&recipient.to_string());
        add(&recipient.notify.map(|notify| notify.to_string()).unwrap_or_default());
        add(recipient.original.as_deref().unwrap_or_default());
    }
    add(envelope.envelope_id.as_deref().unwrap_or_default());
    add(envelope.returns.map(Return::as_str).unwrap_or_default());
    add(if envelope.require_tls { "REQUIRETLS" } else { "" });
    hasher.update(&network(client)).update(content.as_bytes());
    *hasher.finalize().as_bytes()
}

/// A client's network: a sender's farm repeats from a neighbouring address.
fn network(client: IpAddr) -> [u8; 16] {
    let mut octets = match client {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let kept = if client.is_ipv4() { 15 } else { 8 };
    octets[kept..].fill(0);
    octets
}

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

/// Remembers, in the commit that takes a message in, that its client does not know.
pub fn remember(txn: &mut Txn<'_>, fingerprint: &Fingerprint, unheard: &Unheard) -> Result<(), StoreError> {
    txn.put(UNHEARD, fingerprint, unheard)
}

/// The message that this one repeats, if it does. [`Said`] is not to be begun for it yet.
pub fn repeated(node: &Node, fingerprint: &Fingerprint) -> Result<Option<Unheard>, StoreError> {
    let Some(found) = node.store.read()?.get::<Unheard>(UNHEARD, fingerprint)? else { return Ok(None) };
    let kept = if found.answered { ANSWERED_MILLIS } else { RECOGNISED_MILLIS };
    let is_open = || node.said.with(|open| open.contains_key(fingerprint));
    let is_recognised = unix_millis().abs_diff(found.at) < kept && !(found.answered && is_open());
    Ok(is_recognised.then_some(found))
}

/// Counts a repeat that is about to be answered with its message's 250.
pub async fn count_repeat(node: &Node, message: Id) -> Result<(), StoreError> {
    let counted = node.store.commit(move |txn| {
        border::count(txn, Count::Repeats)?;
        trace::note(
            txn,
            MessageId(message),
            unix_millis(),
            "sent again by a client that had not heard the 250",
        )
    });
    counted.await.map(drop)
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
        txn.put(UNHEARD, &fingerprint, &Unheard { answered: true, at: unix_millis(), ..message })?;
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
pub fn forget(txn: &mut Txn<'_>, cursor: &[u8], max: usize, now: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let found = txn.range::<Unheard>(UNHEARD, cursor, None, max)?;
    let then = behind(&found, max);
    for (key, row) in found {
        let age = now.abs_diff(row.at);
        if !row.answered
            && age > u64::try_from(CONFIRM_TIME.as_millis()).unwrap_or(u64::MAX)
            && lane::outstanding(txn, row.lane, &row.message)? == Outstanding::Confirmed
        {
            show_copies(txn, &row.message)?;
        }
        if age >= if row.answered { ANSWERED_MILLIS } else { RECOGNISED_MILLIS } {
            txn.delete(UNHEARD, &key)?;
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

    /// Whether a message that was remembered `ago` milliseconds before is recognised.
    fn recognises(node: &Node, answered: bool, ago: i64) -> bool {
        let at = unix_millis().saturating_add_signed(-ago);
        let row = Unheard { answered, at, ..MESSAGE };
        node.store.commit_blocking(move |txn| remember(txn, &[3; 32], &row)).expect("commits");
        repeated(node, &[3; 32]).expect("reads").is_some()
    }

    #[test]
    fn a_repeat_is_recognised_for_an_hour_behind_a_250_and_a_week_without_one() {
        const HOUR: i64 = 3_600_000;
        let node = node("local");
        let recognised = [0, HOUR - 10_000, HOUR + 10_000].map(|ago| recognises(&node, true, ago));
        assert_eq!(recognised, [true, true, false]);
        let recognised = [0, 2 * HOUR, 8 * 24 * HOUR].map(|ago| recognises(&node, false, ago));
        assert_eq!(recognised, [true, true, false]);
        // A clock that has gone back since makes nothing last.
        assert!(!recognises(&node, true, -2 * HOUR));
        let now = unix_millis();
        node.store.commit_blocking(move |txn| forget(txn, &[], 10, now)).expect("commits");
        assert_eq!(node.store.read().and_then(|rows| rows.count(UNHEARD)).expect("reads"), 0);
    }

    #[test]
    fn while_its_session_is_open_no_message_is_repeated() {
        let node = in_doubt("local");
        assert!(recognises(&node, true, 0));
        let [first, second] = [Said::begin(&node, [3; 32]), Said::begin(&node, [3; 32])];
        assert!(!recognises(&node, true, 0));
        drop(first);
        assert!(!recognises(&node, true, 0), "nor while one of them is");
        drop(second);
        assert!(recognises(&node, true, 0));
        // A session that goes on forgets its own message only.
        let heard = |message| {
            block_on(async {
                Said::begin(&node, [3; 32]).heard(message);
                node.store.commit(|_| Ok::<_, StoreError>(())).await.expect("commits");
            });
            repeated(&node, &[3; 32]).expect("reads").is_some()
        };
        assert!(heard([9; 16]));
        assert!(!heard(MESSAGE.message));
    }
}
