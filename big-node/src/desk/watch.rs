//! Waiting for a mailbox to change.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::Refused;
use crate::node::Node;
use crate::record::Person;
use crate::request::Watched;

/// How long a request waits.
const WAIT: Duration = Duration::from_secs(25);
/// Bits of a mark below the time of the node's start, so that no mark of an earlier run is given again.
const TIMES_BITS: u32 = 20;

/// Waits until the person's mailbox is not as it was at `seen`, but not for ever. `watchers` has a permit for each
/// who may wait at once.
pub async fn watch(
    node: &Node,
    watchers: &Semaphore,
    person: &Person,
    seen: Option<u64>,
) -> Result<Watched, Refused> {
    let _permit = watchers
        .try_acquire()
        .map_err(|_| Refused::new("too many wait for their mailboxes at once; ask again in some seconds"))?;
    let (touched, start) = (node.store.touched(), node.started_at << TIMES_BITS);
    let times = match seen.and_then(|seen| seen.checked_sub(start)) {
        // Another run of the node, or nothing seen yet.
        None => touched.times(&person.id),
        Some(seen) => {
            let changed = tokio::time::timeout(WAIT, touched.differs(&person.id, seen));
            changed.await.unwrap_or_else(|_| touched.times(&person.id))
        }
    };
    Ok(Watched { mark: start + times })
}
