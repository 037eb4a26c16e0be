//! A drained edge takes no more mail from other MTAs, so that an administrator can empty it before maintenance.
//!
//! Port 25 alone is closed, by 421: other MTAs have queues, and perhaps another MX to go to. Travellers have neither, and
//! submit as before. Kept in the index, so that a restart changes nothing of it.

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::unix_millis;
use shared::render::when;
use shared::row;
use shared::smtp::{Enhanced, Reply, Role, Verdict};
use shared::store::{Rows, Store, StoreError};

use crate::intake::refusal;
use crate::record::SETTINGS;
use crate::request::Done;

/// The key of [`DrainedRow`] in [`SETTINGS`].
const DRAINED: &[u8] = b"drained";

/// There while the edge is drained.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct DrainedRow {
    /// Since when, milliseconds since 1970.
    since: u64,
}
row!(DrainedRow, 1);

/// Since when the edge is drained, milliseconds since 1970; `None` while it is not.
pub fn since(rows: &impl Rows) -> Result<Option<u64>, StoreError> {
    Ok(rows.get::<DrainedRow>(SETTINGS, DRAINED)?.map(|row| row.since))
}

/// Whether `role` may begin a transaction; else the reply that says no and ends the session (RFC 3463: 4.3.2).
pub fn admits(store: &Store, role: Role) -> Verdict {
    if role == Role::Submission {
        return Ok(());
    }
    match store.read().and_then(|rows| since(&rows)) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => {
            let text = "closed for maintenance; try again later, or another MX";
            Err(Reply::new(421, Enhanced(4, 3, 2), text))
        }
        Err(error) => Err(refusal(&error)),
    }
}

/// Drains the edge. Since when it is drained stays as it was if it is already.
pub async fn drain(store: &Store) -> Result<Done, StoreError> {
    let now = unix_millis();
    let drained = store.commit(move |txn| match since(txn)? {
        Some(since) => Ok(since),
        None => txn.put(SETTINGS, DRAINED, &DrainedRow { since: now }).map(|()| now),
    });
    let since = drained.await?.into_inner();
    tracing::info!(since, "drained by an operator");
    let done = format!(
        "drained since {} UTC: port 25 answers 421 until `edge-node resume`; the edge is empty once nothing waits in `link \
         status` and in `queue list`, and the sessions are over that were open",
        when(since)
    );
    Ok(Done { done })
}

/// Ends that.
pub async fn resume(store: &Store) -> Result<Done, StoreError> {
    let resumed = store.commit(move |txn| {
        let was_drained = since(txn)?.is_some();
        txn.delete(SETTINGS, DRAINED).map(|_| was_drained)
    });
    if !resumed.await?.into_inner() {
        return Ok(Done { done: "it was not drained".into() });
    }
    tracing::info!("resumed by an operator");
    Ok(Done { done: "not drained any more: other MTAs are greeted on port 25".into() })
}

/// What an operator has to see to: mail is refused.
pub fn alarm(since: u64) -> String {
    format!(
        "no mail is taken on port 25, for this edge is drained since {} UTC; `edge-node resume` ends that",
        when(since)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::store::sim::{Faults, SimDisk};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn port_25_alone_is_closed_until_it_is_resumed_whoever_starts_the_edge_again() {
        let disk = SimDisk::new(Faults::default());
        let open = || Store::open(Arc::new(disk.clone())).expect("opens");
        let at = |store: &Store| store.read().and_then(|rows| since(&rows)).expect("reads");
        let refused = |store: &Store, role| admits(store, role).err().map(|reply| reply.to_string());
        let store = open();
        assert_eq!((at(&store), refused(&store, Role::Reception)), (None, None));
        assert_eq!(resume(&store).await.expect("commits").done, "it was not drained");
        drain(&store).await.expect("commits");
        let first = at(&store).expect("it is drained");
        drain(&store).await.expect("commits");
        assert_eq!(at(&store), Some(first), "it has been since then");
        drop(store);
        let store = open();
        assert_eq!(at(&store), Some(first));
        let text = refused(&store, Role::Reception).expect("no");
        assert_eq!(text, "421 4.3.2 closed for maintenance; try again later, or another MX");
        assert_eq!(refused(&store, Role::Submission), None);
        assert!(alarm(1_795_333_263_250).contains("since 2026-11-22 07:41 UTC; `edge-node resume`"));
        resume(&store).await.expect("commits");
        assert_eq!((at(&store), refused(&store, Role::Reception)), (None, None));
    }
}
