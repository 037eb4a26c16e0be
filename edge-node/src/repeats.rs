//! Which message is one that was taken in before: a client that has not heard a 250 sends its message again.
//!
//! Messages are remembered by envelope, network and content: one without a 250, or with a 451 of `ack = "pair"`, for as
//! long as clients try; one that had its 250 for an hour, if its session ended and nothing had come behind that. A repeat is
//! then the same message, and not a second one; whatever else looks like it is another message. Only where no answer was
//! given at all does it not matter whether the session goes on: a client may have given up waiting.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rkyv::{Archive, Deserialize, Serialize};
use shared::address::Address;
use shared::age;
use shared::id::{MessageId, unix_millis};
use shared::listener::network;
use shared::notify::Return;
use shared::row;
use shared::smtp::{BodyType, Envelope};
use shared::store::{Rows, StoreError, Table, Txn, behind};
use shared::trace;
use shared::unit::Id;

use crate::border::{self, Count};
use crate::node::Node;

/// Messages whose clients may not know that they were taken in, by [`Fingerprint`].
const UNHEARD: Table = Table("unheard");

/// How long the repeat of a message that was not answered 250 is recognised, in milliseconds of the node's life: RFC 5321
/// §4.5.4.1 has clients try for 4 to 5 days.
const RECOGNISED_MILLIS: u64 = 7 * 24 * 3_600_000;
/// The same of one that was.
const ANSWERED_MILLIS: u64 = 3_600_000;

/// What tells a repeat: who submits it, envelope, network and content.
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
    /// How long the node had lived then, milliseconds.
    pub at: u64,
    /// Its 250 was said, or is about to be.
    pub answered: bool,
}
row!(Unheard, 2);

/// Sessions that go on and have said a 250 which nothing has come behind, by what they had. While one does, its client
/// repeats nothing.
#[derive(Debug, Default)]
pub struct Open(Mutex<HashMap<Fingerprint, usize>>);

impl Open {
    fn with<T>(&self, look: impl FnOnce(&mut HashMap<Fingerprint, usize>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has(&self, fingerprint: &Fingerprint) -> bool {
        self.with(|open| open.contains_key(fingerprint))
    }
}

/// A 250 that a session is about to say, or has said. It is dropped with the session, unless its client was heard before.
#[derive(Debug)]
pub struct Said {
    open: Arc<Open>,
    fingerprint: Fingerprint,
}

impl Said {
    /// Taken before the message can be found by others, so that nobody takes theirs for its repeat.
    pub fn begin(node: &Node, fingerprint: Fingerprint) -> Self {
        node.said.with(|open| *open.entry(fingerprint).or_default() += 1);
        Self { open: Arc::clone(&node.said), fingerprint }
    }

    /// The client goes on behind the 250 of `message`: what looks like it from now on is another one. A node that is killed
    /// before that is written, with the next commit, takes it for silence.
    pub fn heard(self, node: &Node, message: Id) {
        let fingerprint = self.fingerprint;
        let forget = move |txn: &mut Txn<'_>| match txn.get::<Unheard>(UNHEARD, &fingerprint)? {
            Some(row) if row.message == message => txn.delete(UNHEARD, &fingerprint).map(drop),
            _ => Ok(()),
        };
        let store = node.store.clone();
        let done = move || {
            let row = store.read().and_then(|rows| rows.get::<Unheard>(UNHEARD, &fingerprint));
            match row {
                Ok(None) => drop(self),
                Ok(Some(row)) if row.message != message => drop(self),
                // The commit has failed: as long as this node runs, the session counts as open.
                Ok(Some(_)) | Err(_) => std::mem::forget(self),
            }
        };
        if let Err(error) = node.store.commit_lazily(forget, done) {
            tracing::debug!(%error, "that a 250 was heard is not noted");
        }
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        self.open.with(|open| match open.get_mut(&self.fingerprint) {
            Some(sessions) if *sessions > 1 => *sessions -= 1,
            _ => drop(open.remove(&self.fingerprint)),
        });
    }
}

/// The fingerprint of a message: what its client would send again. `by` is the window of who has logged in.
pub fn fingerprint(
    envelope: &Envelope,
    client: IpAddr,
    by: Option<&Id>,
    content: &blake3::Hash,
) -> Fingerprint {
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
    add(if envelope.smtputf8 { "SMTPUTF8" } else { "" });
    add(match envelope.body {
        BodyType::SevenBit => "",
        BodyType::EightBit => "BODY=8BITMIME",
        BodyType::Binary => "BODY=BINARYMIME",
    });
    hasher.update(by.map_or(&[], |window| window.as_slice()));
    // A sender's farm repeats from a neighbouring address.
    let network = match network(client) {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    hasher.update(&network).update(content.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Remembers, in the commit that takes a message in, that its client does not know.
pub fn remember(txn: &mut Txn<'_>, fingerprint: &Fingerprint, unheard: &Unheard) -> Result<(), StoreError> {
    txn.put(UNHEARD, fingerprint, unheard)
}

/// The 250 of a message is about to be said. The hour begins with the first one.
pub fn answered(txn: &mut Txn<'_>, fingerprint: &Fingerprint, message: Unheard) -> Result<(), StoreError> {
    let at = if message.answered { message.at } else { age::lived(txn)? };
    remember(txn, fingerprint, &Unheard { answered: true, at, ..message })
}

/// The message that this one repeats, if it does. [`Said`] is not to be begun for it yet.
pub fn repeated(node: &Node, fingerprint: &Fingerprint) -> Result<Option<Unheard>, StoreError> {
    // Before and behind the look at the rows: a session may begin or end meanwhile.
    let was_open = node.said.has(fingerprint);
    let rows = node.store.read()?;
    let Some(found) = rows.get::<Unheard>(UNHEARD, fingerprint)? else { return Ok(None) };
    let is_kept = is_kept(&found, age::lived(&rows)?);
    let is_open = found.answered && (was_open || node.said.has(fingerprint));
    Ok((is_kept && !is_open).then_some(found))
}

/// Whether a message is remembered still, when the node has `lived` so many milliseconds.
fn is_kept(row: &Unheard, lived: u64) -> bool {
    lived.saturating_sub(row.at) < if row.answered { ANSWERED_MILLIS } else { RECOGNISED_MILLIS }
}

/// Counts a repeat that is about to be answered with its message's 250.
pub async fn count(node: &Node, message: Id) -> Result<(), StoreError> {
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

/// Forgets what is not recognised any more, among `max` rows behind `cursor`. Those that still wait for their 250, and where
/// to go on; `None` at the end.
pub fn forget(
    txn: &mut Txn<'_>,
    cursor: &[u8],
    max: usize,
    lived: u64,
) -> Result<(Vec<Unheard>, Option<Vec<u8>>), StoreError> {
    let found = txn.range::<Unheard>(UNHEARD, cursor, None, max)?;
    let (then, mut waiting) = (behind(&found, max), Vec::new());
    for (key, row) in found {
        if !is_kept(&row, lived) {
            txn.delete(UNHEARD, &key)?;
        }
        if !row.answered {
            waiting.push(row);
        }
    }
    Ok((waiting, then))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::seal::PrivateKey;
    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};
    use shared::topology::{SMALLEST, Topology};

    use super::*;
    use crate::cover::Covers;

    const KEY: Fingerprint = [3; 32];
    const MESSAGE: Id = [1; 16];
    const HOUR: Duration = Duration::from_secs(3_600);

    fn node() -> Node {
        let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        Node::new(store, Covers::simulated(), topology, PrivateKey::from_bytes([1; 32]), [2; 32])
    }

    fn take_in(node: &Node, is_answered: bool) {
        let taken = node.store.commit_blocking(move |txn| {
            let at = age::lived(txn)?;
            let row = Unheard { message: MESSAGE, lane: 2, number: Some(1), at, answered: is_answered };
            remember(txn, &KEY, &row)
        });
        taken.expect("commits");
    }

    fn is_recognised(node: &Node) -> bool {
        repeated(node, &KEY).expect("reads").is_some()
    }

    /// The node lives on, whatever its clock says.
    fn live(node: &Node, passed: Duration) {
        node.store.commit_blocking(move |txn| age::live_on(txn, passed, 0)).expect("commits");
    }

    #[test]
    fn a_repeat_is_recognised_for_an_hour_behind_a_250_and_a_week_without_one() {
        for (is_answered, kept) in [(true, HOUR), (false, HOUR * 24 * 7)] {
            let node = node();
            take_in(&node, is_answered);
            live(&node, kept / 2);
            assert!(is_recognised(&node));
            // A repeat that is answered again prolongs nothing.
            if is_answered {
                let again = |txn: &mut Txn<'_>| match txn.get::<Unheard>(UNHEARD, &KEY)? {
                    Some(row) => answered(txn, &KEY, row),
                    None => Ok(()),
                };
                node.store.commit_blocking(again).expect("commits");
            }
            live(&node, kept / 2 - Duration::from_secs(1));
            assert!(is_recognised(&node));
            live(&node, Duration::from_secs(1));
            assert!(!is_recognised(&node));
            let forgotten = node.store.commit_blocking(|txn| {
                let lived = age::lived(txn)?;
                forget(txn, &[], 10, lived)
            });
            forgotten.expect("commits");
            assert_eq!(node.store.read().and_then(|rows| rows.count(UNHEARD)).expect("reads"), 0);
        }
    }

    #[test]
    fn while_its_session_is_open_nothing_repeats_what_was_answered() {
        let node = node();
        take_in(&node, true);
        assert!(is_recognised(&node));
        let [first, second] = [Said::begin(&node, KEY), Said::begin(&node, KEY)];
        assert!(!is_recognised(&node));
        drop(first);
        assert!(!is_recognised(&node), "nor while one of them is");
        drop(second);
        assert!(is_recognised(&node));
        // A client that has given up waiting for an answer sends again before its session is known to be over.
        take_in(&node, false);
        let said = Said::begin(&node, KEY);
        assert!(is_recognised(&node));
        drop(said);
    }

    #[test]
    fn a_session_that_goes_on_forgets_its_own_message_only() {
        let node = node();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let heard = |message| {
            take_in(&node, true);
            runtime.block_on(async {
                Said::begin(&node, KEY).heard(&node, message);
                node.store.commit(|_| Ok::<_, StoreError>(())).await.expect("commits");
            });
            is_recognised(&node)
        };
        assert!(heard([9; 16]));
        assert!(!heard(MESSAGE));
    }
}
