//! Comparing what the edge holds of messages with big's own records, when an operator asks
//! (`link verify --meta`; [`shared::inventory`]).
//!
//! The edge answers in lists by rising keys. Each is held against the records in the commit that takes it:
//! what the edge has told before its answer is known by then, for it came by the same lane. What big has
//! told it is there only if nothing was under way when big asked, and nothing has been told since: otherwise a
//! difference may be mail on its way, and the verdict says so.

use std::collections::{BTreeMap, HashSet};

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::MessageId;
use shared::inventory::{HOLDINGS_MAX, HOLDINGS_PER_UNIT, Holding, Inventory, Kind, named, origin_digest};
use shared::lane::{self, LANES_MAX, NotApplied};
use shared::row;
use shared::store::{Rows, StoreError, Txn};
use shared::unit::{Id, REVISIONS_MAX, ReviseResult, ToEdge, decode};

use crate::error::Refused;
use crate::mail::{self, Site};
use crate::projection;
use crate::record::{
    COPIES, CopyRow, EDGE, MESSAGES, Message, Named, RECIPIENTS, REVISED, REVISIONS, Recipient, RevisedRow,
    Revision, UNSETTLED, WINDOWS, WindowRow, WindowState, message_of, revised_key,
};
use crate::request::Compared;
use crate::revise;

/// Differences that are named; of more it is said how many.
const NAMED_MAX: usize = 20;
/// Dead letters whose messages are left out.
const DEAD_MAX: usize = 10_000;

/// How far an answer is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct InventoryRow {
    /// The question.
    asked: Id,
    /// The last number of each lane when it had been asked; `None` if something was under way then.
    sent: Option<[u64; 4]>,
    /// The highest key that was listed.
    listed: Vec<u8>,
    /// Holdings listed so far.
    count: u64,
    verdict: Verdict,
    done: bool,
}
row!(InventoryRow, 1);

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
struct Verdict {
    compared: u64,
    differing: u64,
    named: Vec<String>,
    cut: bool,
    quiet: bool,
}

impl Verdict {
    fn differs(&mut self, key: &[u8], how: &str) {
        self.differing = self.differing.saturating_add(1);
        if self.named.len() < NAMED_MAX {
            self.named.push(format!("{}: {how}", named(key)));
        }
    }
}

fn state(rows: &impl Rows) -> Result<Option<InventoryRow>, StoreError> {
    rows.get(EDGE, b"inventory")
}

fn sent(rows: &impl Rows) -> Result<[u64; 4], StoreError> {
    let mut sent = [0; 4];
    for (lane, last) in (0..LANES_MAX).zip(&mut sent) {
        *last = lane::state(rows, lane)?.last;
    }
    Ok(sent)
}

/// Asks the edge, and forgets an earlier question. Returns what names this one.
pub fn ask(txn: &mut Txn<'_>) -> Result<Id, Refused> {
    if projection::edge(txn)?.is_none() {
        return Err(Refused::new(
            "no edge is paired yet; run `edge-node invite`, then `big-node pair TICKET`",
        ));
    }
    // Ids of one millisecond rise by chance; an earlier question has to be told from a later one.
    let above = state(txn)?.map_or(0, |row| u128::from_be_bytes(row.asked).saturating_add(1));
    let asked = u128::from_be_bytes(MessageId::generate().0).max(above).to_be_bytes();
    let quiet = lane::depth(txn)? == [0; 4];
    projection::tell_edge(txn, &ToEdge::InventoryAsked { asked })?;
    let sent = if quiet { Some(sent(txn)?) } else { None };
    let (listed, verdict) = (Vec::new(), Verdict::default());
    let row = InventoryRow { asked, sent, listed, count: 0, verdict, done: false };
    txn.put(EDGE, b"inventory", &row)?;
    Ok(asked)
}

/// Holds one list of the edge's against the records. False: nobody asked for it.
pub fn reported(txn: &mut Txn<'_>, site: &Site, inventory: &Inventory) -> Result<bool, NotApplied> {
    let Some(mut row) = state(txn)? else { return Ok(false) };
    if inventory.asked < row.asked {
        // Asked anew since: this one is not waited for any more.
        return Ok(true);
    }
    if inventory.asked > row.asked || row.done {
        return Ok(false);
    }
    let never = |text: &str| Err(NotApplied::Never(text.into()));
    let mut before = &row.listed;
    for holding in &inventory.holdings {
        if holding.kind().is_none() || holding.key <= *before {
            return never("not an inventory by rising keys");
        }
        before = &holding.key;
    }
    let count = row.count.saturating_add(inventory.holdings.len() as u64);
    if inventory.holdings.len() > HOLDINGS_PER_UNIT || count > HOLDINGS_MAX as u64 {
        return never("an inventory with more than is compared");
    }
    if inventory.holdings.is_empty() && !inventory.last {
        return never("an inventory that goes on without listing anything");
    }
    let to = before.clone();
    let mut here = expected(txn, site, &row.listed, (!inventory.last).then_some(&to))?;
    for Holding { key, digest } in &inventory.holdings {
        row.verdict.compared = row.verdict.compared.saturating_add(1);
        let expected = match here.remove(key) {
            Some(digest) => Some(digest),
            None if key[0] == Kind::Origin as u8 => origin_of(txn, &key[1..])?,
            None if key[0] == Kind::Copy as u8 => revised_copy(txn, &key[1..], digest)?,
            None => None,
        };
        match expected {
            Some(here) if here == *digest => {}
            Some(_) => row.verdict.differs(key, "is not the same on both nodes"),
            None => row.verdict.differs(key, "is on the edge only"),
        }
    }
    for key in here.keys() {
        row.verdict.compared = row.verdict.compared.saturating_add(1);
        row.verdict.differs(key, "is missing on the edge");
    }
    (row.listed, row.count, row.done) = (to, count, inventory.last);
    row.verdict.cut |= inventory.cut;
    if row.done {
        row.verdict.quiet = row.sent == Some(sent(txn)?) && lane::waiting(txn, 1)?.is_empty();
    }
    txn.put(EDGE, b"inventory", &row)?;
    Ok(true)
}

/// The verdict on the answer to `asked`, once all of it is here.
pub fn verdict(rows: &impl Rows, asked: &Id) -> Result<Option<Compared>, StoreError> {
    let row = state(rows)?.filter(|row| row.asked == *asked && row.done);
    Ok(row.map(|InventoryRow { verdict: Verdict { compared, differing, named, cut, quiet }, .. }| Compared {
        compared,
        differing,
        named,
        cut,
        quiet,
    }))
}

fn origin_of(rows: &impl Rows, message: &[u8]) -> Result<Option<[u8; 16]>, StoreError> {
    let message = rows.get::<Message>(MESSAGES, message)?;
    let edge = projection::edge(rows)?;
    Ok(message.zip(edge).map(|(message, edge)| origin_digest(&edge.directory_key, &message.origin)))
}

/// The digest of a copy that is being revised: until the edge has decided, it may hold an earlier revision. One
/// that is decided is as it should be, or differs.
fn revised_copy(rows: &impl Rows, key: &[u8], listed: &[u8; 16]) -> Result<Option<[u8; 16]>, StoreError> {
    let Some(copy) = rows.get::<CopyRow>(COPIES, key)?.filter(|copy| copy.revision > 0) else {
        return Ok(None);
    };
    let (Some(window), id) = (key.first_chunk(), message_of(key)) else { return Ok(None) };
    if result(rows, window, id, copy.revision)? == Some(ReviseResult::Withdrawn) {
        return Ok(None);
    }
    let made = rows.prefix::<Revision>(REVISIONS, &id.0, REVISIONS_MAX)?;
    let numbers = made.iter().map(|(_, revision)| revision.number).filter(|number| *number <= copy.revision);
    let mut last = None;
    for revision in std::iter::once(0).chain(numbers) {
        for retrieved in [false, true] {
            let Some(message) = mail::shown(rows, id, revision)? else { continue };
            let digest = Holding::copy(window, &id.0, revision, message.origin.size, retrieved).digest;
            if digest == *listed {
                return Ok(Some(digest));
            }
            last = Some(digest);
        }
    }
    Ok(last)
}

/// What a revision came to for the person whose window this is.
fn result(
    rows: &impl Rows,
    window: &Id,
    id: MessageId,
    revision: u32,
) -> Result<Option<ReviseResult>, StoreError> {
    let Some(window) = rows.get::<WindowRow>(WINDOWS, window)? else { return Ok(None) };
    for (key, recipient) in rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)? {
        if recipient.person == Some(window.window.person) {
            let row = rows.get::<RevisedRow>(REVISED, &revised_key(id, revise::index_of(&key), revision))?;
            return Ok(row.map(|row| row.result));
        }
    }
    Ok(None)
}

/// Whether the edge has to hold this revision of a copy: the original, or one that it has decided.
fn is_settled(rows: &impl Rows, window: &Id, id: MessageId, revision: u32) -> Result<bool, StoreError> {
    let decided = [Some(ReviseResult::Replaced), Some(ReviseResult::Revised)];
    Ok(revision == 0 || decided.contains(&result(rows, window, id, revision)?))
}

/// What the edge should hold besides origins, of the keys above `from` and up to `to`; without `to`, of all.
fn expected(
    rows: &impl Rows,
    site: &Site,
    from: &[u8],
    to: Option<&Vec<u8>>,
) -> Result<BTreeMap<Vec<u8>, [u8; 16]>, StoreError> {
    let dead = dead(rows)?;
    let mut expected = BTreeMap::new();
    for (key, Named(id)) in within::<Named>(rows, Kind::Recipient, UNSETTLED, from, to)? {
        let Some(recipient) = rows.get::<Recipient>(RECIPIENTS, &key)? else { continue };
        let Some(message) = mail::shown(rows, MessageId(id), recipient.revision)? else { continue };
        if !dead.contains(&id) {
            let index = key.last_chunk().map_or(0, |index| u32::from_be_bytes(*index));
            let path = mail::reverse_path(site, MessageId(id), &message.origin);
            let (revision, size) = (message.revision, message.origin.size);
            let Holding { key, digest } =
                Holding::recipient(&id, index, &recipient.address, revision, size, path.as_deref());
            expected.insert(key, digest);
        }
    }
    let mut open: BTreeMap<Id, bool> = BTreeMap::new();
    for (key, copy) in within::<CopyRow>(rows, Kind::Copy, COPIES, from, to)? {
        let Some(window) = key.first_chunk::<16>() else { continue };
        let is_open = match open.get(window) {
            Some(is_open) => *is_open,
            None => {
                let row = rows.get::<WindowRow>(WINDOWS, window)?;
                let is_open = row.is_some_and(|row| row.state != WindowState::Ended);
                open.insert(*window, is_open);
                is_open
            }
        };
        let id = message_of(&key);
        let is_there = is_open && copy.is_there() && !dead.contains(&id.0);
        if is_there
            && is_settled(rows, window, id, copy.revision)?
            && let Some(message) = mail::shown(rows, id, copy.revision)?
        {
            let (revision, size) = (message.revision, message.origin.size);
            let Holding { key, digest } = Holding::copy(window, &id.0, revision, size, copy.retrieved);
            expected.insert(key, digest);
        }
    }
    Ok(expected)
}

/// The rows of a table whose keys, as those of holdings of `kind`, are above `from` and up to `to`.
fn within<R: shared::store::Row>(
    rows: &impl Rows,
    kind: Kind,
    table: shared::store::Table,
    from: &[u8],
    to: Option<&Vec<u8>>,
) -> Result<Vec<(Vec<u8>, R)>, StoreError> {
    let behind = |key: &[u8]| [key, &[0]].concat();
    let of_kind = |key: &[u8]| key.first().map(|first| first.cmp(&(kind as u8)));
    let start = match of_kind(from) {
        Some(std::cmp::Ordering::Greater) => return Ok(Vec::new()),
        Some(std::cmp::Ordering::Equal) => behind(&from[1..]),
        _ => Vec::new(),
    };
    let end = match to.and_then(|to| of_kind(to).zip(Some(to))) {
        Some((std::cmp::Ordering::Less, _)) => return Ok(Vec::new()),
        Some((std::cmp::Ordering::Equal, to)) => Some(behind(&to[1..])),
        _ => None,
    };
    rows.range(table, &start, end.as_deref(), HOLDINGS_MAX)
}

/// Messages that the edge has refused: an operator sees to those.
fn dead(rows: &impl Rows) -> Result<HashSet<Id>, StoreError> {
    let letters = lane::dead_letters(rows, DEAD_MAX)?;
    let message = |head: &[u8]| match decode::<ToEdge>(head) {
        Some(ToEdge::Outbound(outbound)) => Some(outbound.message),
        Some(ToEdge::Copy(copy)) => Some(copy.message),
        _ => None,
    };
    Ok(letters.into_iter().filter_map(|letter| message(&letter.unit.head)).collect())
}
