//! What this edge holds of messages, listed for big's comparison ([`shared::inventory`]).

use std::collections::HashSet;

use shared::inventory::{HOLDINGS_MAX, HOLDINGS_PER_UNIT, Holding, Inventory};
use shared::lane;
use shared::store::{Rows, StoreError, Txn};
use shared::unit::{Id, ToBig, decode};

use crate::facts;
use crate::record::{COPIES, CopyRow, QUEUE, QueueRow, copy_of};
use crate::revise::message_of;

/// The lanes by which messages go to big.
const MAIL_LANES: [u8; 2] = [2, 3];

/// Queues the answer to big's question: everything as it is in this commit, so that what was told before it
/// is known to big when the answer comes.
pub fn report(txn: &mut Txn<'_>, asked: Id) -> Result<(), StoreError> {
    let (holdings, cut) = holdings(txn)?;
    let mut lists = holdings.chunks(HOLDINGS_PER_UNIT).peekable();
    loop {
        let holdings = lists.next().unwrap_or_default().to_vec();
        let last = lists.peek().is_none();
        facts::tell(txn, &ToBig::Inventory(Inventory { asked, holdings, last, cut }))?;
        if last {
            return Ok(());
        }
    }
}

/// Everything, by rising keys, and whether that is not all.
fn holdings(rows: &impl Rows) -> Result<(Vec<Holding>, bool), StoreError> {
    let mut holdings = Vec::new();
    for (key, row) in rows.prefix::<QueueRow>(QUEUE, &[], HOLDINGS_MAX)? {
        let message = message_of(&key).0;
        let waits = row.recipients.iter().filter(|recipient| recipient.state.waits());
        let path = row.reverse_path.as_deref();
        holdings.extend(waits.map(|recipient| {
            let address = &recipient.address;
            Holding::recipient(&message, recipient.index, address, row.revision, row.size, path)
        }));
    }
    let under_way = under_way(rows)?;
    for (key, row) in rows.prefix::<CopyRow>(COPIES, &[], HOLDINGS_MAX)? {
        let Some(window) = key.first_chunk() else { continue };
        let (message, revision) = copy_of(&key);
        // Big does not know yet of what has not reached it.
        if row.hidden || row.after.is_some_and(|unit| under_way.contains(&unit)) {
            continue;
        }
        let copy = Holding::copy(window, &message.0, revision, row.size, row.retrieved);
        // Of several revisions of one message the last one.
        match holdings.last_mut() {
            Some(before) if before.key == copy.key => *before = copy,
            _ => holdings.push(copy),
        }
    }
    let mut origins = Vec::new();
    for lane in MAIL_LANES {
        for unit in lane::applied(rows, lane, HOLDINGS_MAX)? {
            if let Some(ToBig::Inbound(inbound)) = decode(&unit.head) {
                origins.push(Holding::origin(&inbound.message, inbound.origin_digest));
            }
        }
    }
    // Of origins the newest, which have the highest keys; one that was replayed is there twice.
    let left = HOLDINGS_MAX.saturating_sub(holdings.len());
    origins.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    origins.dedup();
    let older = origins.len().saturating_sub(left);
    holdings.extend(origins.drain(older..));
    holdings.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let cut = older > 0 || holdings.len() > HOLDINGS_MAX;
    holdings.truncate(HOLDINGS_MAX);
    Ok((holdings, cut))
}

/// Units with messages that big has not confirmed.
fn under_way(rows: &impl Rows) -> Result<HashSet<Id>, StoreError> {
    let mut ids: HashSet<Id> = lane::waiting(rows, HOLDINGS_MAX)?.into_iter().map(|unit| unit.id).collect();
    for lane in MAIL_LANES {
        ids.extend(lane::unconfirmed_ids(rows, lane, HOLDINGS_MAX)?.into_iter().map(|(_, id)| id));
    }
    Ok(ids)
}
