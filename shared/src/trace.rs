//! The trace: facts of each message's way over this node, kept for 30 days and told to the operator who
//! asks where a message is.

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{MessageId, unix_millis};
use crate::report::Step;
use crate::store::{Rows, Store, StoreError, Table, Txn};

/// Message id, time, order to [`Fact`].
const TRACE: Table = Table("trace");
const KEPT_MILLIS: u64 = 30 * 24 * 3_600_000;
const FORGOTTEN_AT_ONCE: usize = 1000;
/// Facts of one message that are told.
const TOLD_MAX: usize = 10_000;

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct Fact {
    what: String,
}
crate::row!(Fact, 1);

/// Adds a fact. Those of one millisecond keep their order.
pub fn note(
    txn: &mut Txn<'_>,
    message: MessageId,
    now: u64,
    what: impl Into<String>,
) -> Result<(), StoreError> {
    let prefix = [message.0.as_slice(), &now.to_be_bytes()].concat();
    let last = txn.prefix_backwards::<Fact>(TRACE, &prefix, 1)?.pop();
    let order = last.and_then(|(key, _)| key.last_chunk().copied()).map_or(0, u16::from_be_bytes);
    let key = [prefix.as_slice(), &order.saturating_add(1).to_be_bytes()].concat();
    txn.put(TRACE, &key, &Fact { what: what.into() })
}

/// What `node` knows of a message, oldest first.
pub fn steps(rows: &impl Rows, node: &str, message: MessageId) -> Result<Vec<Step>, StoreError> {
    let facts = rows.prefix::<Fact>(TRACE, &message.0, TOLD_MAX)?;
    let step = |(key, fact): (Vec<u8>, Fact)| {
        let at = key.get(16..24).and_then(|at| at.try_into().ok()).map_or(0, u64::from_be_bytes);
        Step { at, node: node.into(), what: fact.what }
    };
    Ok(facts.into_iter().map(step).collect())
}

/// The first that is known of a message: how it came here.
pub fn first(rows: &impl Rows, message: MessageId) -> Result<Option<String>, StoreError> {
    let fact = rows.prefix::<Fact>(TRACE, &message.0, 1)?.pop();
    Ok(fact.map(|(_, fact)| fact.what))
}

/// Forgets what is older than 30 days.
pub async fn forget_old(store: &Store) -> Result<(), StoreError> {
    // Ids rise with time, so the oldest messages come first.
    let old = MessageId::from_parts(unix_millis().saturating_sub(KEPT_MILLIS), [0; 10]);
    let forget = move |txn: &mut Txn<'_>| {
        let facts = txn.range::<Fact>(TRACE, &[], Some(&old.0), FORGOTTEN_AT_ONCE)?;
        facts.iter().try_for_each(|(key, _)| txn.delete(TRACE, key))?;
        Ok::<_, StoreError>(facts.len())
    };
    while store.commit(forget).await?.into_inner() == FORGOTTEN_AT_ONCE {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sim::{Faults, SimDisk};

    #[tokio::test(flavor = "multi_thread")]
    async fn facts_keep_their_order_and_old_ones_are_forgotten() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let (new, old) = (MessageId::generate(), MessageId::from_parts(1, [0; 10]));
        let noted = store.commit(move |txn| {
            for (at, what) in [(5, "first"), (5, "second"), (4, "before both")] {
                note(txn, new, at, what)?;
            }
            note(txn, old, 1, "long ago")
        });
        noted.await.expect("commits");
        forget_old(&store).await.expect("forgets");
        let told = |id| steps(&store.read().expect("reads"), "big", id).expect("reads");
        let whats: Vec<_> = told(new).into_iter().map(|step| (step.at, step.what)).collect();
        assert_eq!(whats, [(4, "before both".into()), (5, "first".into()), (5, "second".into())]);
        assert!(told(old).is_empty());
        let rows = store.read().expect("reads");
        assert_eq!(first(&rows, new).expect("reads").as_deref(), Some("before both"));
        assert_eq!(first(&rows, old).expect("reads"), None);
    }
}
