//! Making the edge right again after one of the nodes went back: restored, adopted, paired anew.
//!
//! Big's own records say what the edge has to know and to hold; so they are told again as a whole. All of
//! it can be told twice: a directory that is renewed, units that bear the id of the message and reader
//! they are for, and so are applied once.
//!
//! That an edge went back is its own word, which costs it nothing. So it is told anew only once it has confirmed what it
//! was told the time before; until then it is owed. What waits for an edge is at most one such telling, however often
//! it says so; and the one that is restored again while it is being told loses nothing, for what it has lost of that is
//! replayed to it, and all of it told once more.

use std::collections::{BTreeMap, HashSet};

use shared::id::MessageId;
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::seal::PublicKey;
use shared::store::{Rows, Store, StoreError, Txn};
use shared::unit::{Id, OUTBOUND, Outbound, ToEdge, Unsettled, decode, encode, part_id};

use crate::error::Refused;
use crate::mail::{self, Site};
use crate::projection;
use crate::record::{
    COPIES, CopyRow, MADE_AGAIN, Named, OVERSIZED, Place, RECIPIENTS, RETELLING, Recipient, Retelling,
    UNSETTLED, WINDOWS, WindowRow, WindowState, key2, message_of,
};
use crate::redirect;
use crate::revise;
use crate::travel::fill::Pace;

/// Messages that one list names.
const LISTED_MAX: usize = 2000;
/// Recipients of reports that were made again, of whom the edge is asked at once.
const ASKED_MAX: usize = 100;
const FIRST: Id = [0; 16];
const LAST: Id = [0xff; 16];

const RETOLD: &[u8] = b"edge";
/// How far the clocks of the nodes may be apart where it is asked whether something was before a restore, milliseconds.
const CLOCKS_APART: u64 = 3_600_000;

/// The edge says that it was restored: it is told everything anew ([`tell_anew`]), at once or when it has confirmed
/// what it is being told already.
pub fn edge_went_back(txn: &mut Txn<'_>, site: &Site) -> Result<(), StoreError> {
    match txn.get::<Retelling>(RETELLING, RETOLD)? {
        Some(retelling) => {
            reconsider(txn, site)?;
            txn.put(RETELLING, RETOLD, &Retelling { owed: true, ..retelling })
        }
        None => tell_anew(txn, site),
    }
}

/// What goes behind its body, or later, has no number, so no lane that is settled looks at it.
fn reconsider(txn: &mut Txn<'_>, site: &Site) -> Result<(), StoreError> {
    lane::reconsider(txn, |txn, unit| again(txn, site, unit))
}

/// The edge has confirmed more: what is owed to it is told once it has all of what it was being told.
pub fn confirmed(txn: &mut Txn<'_>, site: &Site) -> Result<(), StoreError> {
    let Some(retelling) = txn.get::<Retelling>(RETELLING, RETOLD)? else { return Ok(()) };
    for (lane, end) in (0..).zip(retelling.ends) {
        if lane::state(txn, lane)?.confirmed.number < end {
            return Ok(());
        }
    }
    txn.delete(RETELLING, RETOLD)?;
    if retelling.owed { tell_anew(txn, site) } else { Ok(()) }
}

/// A lane was settled with the edge: what it lacks has other numbers, none above the lane's last one.
pub fn settled(txn: &mut Txn<'_>, site: &Site, lane: u8) -> Result<(), StoreError> {
    if let Some(mut retelling) = txn.get::<Retelling>(RETELLING, RETOLD)? {
        let last = lane::state(txn, lane)?.last;
        retelling.ends.iter_mut().skip(lane.into()).take(1).for_each(|end| *end = last);
        txn.put(RETELLING, RETOLD, &retelling)?;
    }
    confirmed(txn, site)
}

/// The edge was restored, has a new store, or is another one: queues the directory, what still waits for
/// delivery, and what belongs into open windows. Nothing, while no edge is paired.
pub fn tell_anew(txn: &mut Txn<'_>, site: &Site) -> Result<(), StoreError> {
    if projection::edge(txn)?.is_none() {
        return Ok(());
    }
    reconsider(txn, site)?;
    projection::everything(txn, site.sealing.public().0)?;
    tell_who_waits(txn)?;
    for (id, recipients) in unsettled(txn)? {
        offer_again(txn, site, id, &recipients)?;
    }
    fill_windows(txn, site)?;
    revise::send_again(txn, site)?;
    let mut ends = [0; 4];
    for (lane, end) in (0..).zip(&mut ends) {
        *end = lane::state(txn, lane)?.last;
    }
    txn.put(RETELLING, RETOLD, &Retelling { ends, owed: false })
}

/// A message, and its recipients outside who have not got it: for each the index, and the revision that leaves.
type Waiting = (Id, Vec<(u32, u32)>);

/// Messages with recipients outside who have not got them, also those who get them in place of another one as soon as
/// this node hears that the edge has given that one up: it may be what it has forgotten.
fn unsettled(rows: &impl Rows) -> Result<Vec<Waiting>, StoreError> {
    let mut unsettled: BTreeMap<Id, Vec<(u32, u32)>> = BTreeMap::new();
    for (key, Named(id)) in rows.prefix::<Named>(UNSETTLED, &[], usize::MAX)? {
        let revision = rows.get::<Recipient>(RECIPIENTS, &key)?.map_or(0, |row| row.revision);
        unsettled.entry(id).or_default().push((revise::index_of(&key), revision));
    }
    for (id, redirect) in redirect::all_pending(rows)? {
        unsettled.entry(id).or_default().push((redirect.number, redirect.revision));
    }
    Ok(unsettled.into_iter().collect())
}

/// Tells the edge which messages wait, in ranges that together cover every id. Nothing, while no edge is
/// paired.
pub fn tell_who_waits(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    if projection::edge(txn)?.is_none() {
        return Ok(());
    }
    let unsettled = unsettled(txn)?;
    let generation = lane::partner(txn)?.map_or(0, |edge| edge.identity.generation);
    let mut from = FIRST;
    let mut chunks = unsettled.chunks(LISTED_MAX).peekable();
    loop {
        let messages = chunks.next().unwrap_or_default().to_vec();
        let next = chunks.peek().and_then(|chunk| chunk.first()).map(|(id, _)| *id);
        let to = next.map_or(LAST, |next| (u128::from_be_bytes(next) - 1).to_be_bytes());
        projection::tell_edge(txn, &ToEdge::Unsettled(Unsettled { from, to, messages, generation }))?;
        match next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

/// Notes of a report that this big may have made before it went back: the edge knows the unit then, takes no second one,
/// and has told what became of it to a big that has forgotten it. So it is asked ([`ask_of_made_again`]).
pub fn made_again(txn: &mut Txn<'_>, id: MessageId, recipients: &[u32]) -> Result<(), StoreError> {
    let went_back = lane::identity(txn)?.and_then(|identity| identity.went_back_at());
    if went_back.is_none_or(|at| id.unix_millis() > at.saturating_add(CLOCKS_APART)) {
        return Ok(());
    }
    let mut rows = recipients.iter().map(|index| mail::recipient_key(id, *index));
    rows.try_for_each(|key| txn.put(MADE_AGAIN, &key, &Named(id.0)))
}

/// Tells the edge who waits of reports that may have been made before, some at once, for it looks through all that it
/// has told. It says what became of those of whom it knows that nobody waits.
pub async fn ask_of_made_again(store: &Store) -> Result<(), Refused> {
    if store.read()?.prefix::<Named>(MADE_AGAIN, &[], 1)?.is_empty() {
        return Ok(());
    }
    let asked = store.commit(|txn| {
        let mut messages: Vec<Waiting> = Vec::new();
        for (key, Named(id)) in txn.prefix::<Named>(MADE_AGAIN, &[], ASKED_MAX)? {
            txn.delete(MADE_AGAIN, &key)?;
            let recipient = (revise::index_of(&key), 0);
            match messages.last_mut().filter(|(last, _)| *last == id) {
                Some((_, recipients)) => recipients.push(recipient),
                None => messages.push((id, vec![recipient])),
            }
        }
        let Some((first, _)) = messages.first() else { return Ok(()) };
        // What the edge holds back of a range, and is not listed, it takes for settled. So the range is the first
        // message alone; of the others the edge only says what it knows.
        let (from, to) = (*first, *first);
        let generation = lane::partner(txn)?.map_or(0, |edge| edge.identity.generation);
        projection::tell_edge(txn, &ToEdge::Unsettled(Unsettled { from, to, messages, generation }))
    });
    asked.await.map(drop).map_err(|error: StoreError| Refused::from(error))
}

fn offer_again(txn: &mut Txn<'_>, site: &Site, id: Id, recipients: &[(u32, u32)]) -> Result<(), StoreError> {
    let mut outside: BTreeMap<u32, Vec<(u32, String)>> = BTreeMap::new();
    for (index, revision) in recipients {
        if let Some(row) = txn.get::<Recipient>(RECIPIENTS, &mail::recipient_key(MessageId(id), *index))? {
            outside.entry(*revision).or_default().push((*index, row.address));
        }
    }
    let held = held_by_operator(txn, &id)?;
    for (revision, mut outside) in outside {
        outside.retain(|(index, _)| !held.contains(&(revision, *index)));
        if outside.is_empty() {
            continue;
        }
        let Some(message) = mail::shown(txn, MessageId(id), revision)? else { continue };
        match mail::queue_outbound(txn, site, &message, MessageId(id), outside) {
            Ok(()) => {}
            // Its author has deleted it for good: what the edge or the safety store has of it still goes.
            Err(Refused::Store(StoreError::Damaged(_)) | Refused::Asked(_)) => {
                tracing::warn!(message = %MessageId(id), "a message that waits cannot be offered again: its body is gone");
            }
            Err(Refused::Store(error)) => return Err(error),
        }
    }
    Ok(())
}

/// What of a message is a dead letter, and so waits for the operator: revisions, and for whom.
pub(crate) fn held_by_operator(rows: &impl Rows, id: &Id) -> Result<HashSet<(u32, u32)>, StoreError> {
    // The id of a unit begins with the time of its message.
    let letters = lane::dead_letters_under(rows, &id[..6])?;
    let outbound = letters.iter().filter_map(|letter| match decode::<ToEdge>(&letter.unit.head) {
        Some(ToEdge::Outbound(outbound)) if outbound.message == *id => Some(outbound),
        _ => None,
    });
    let held = |outbound: Outbound| {
        let revision = outbound.revision;
        outbound.recipients.into_iter().map(move |(index, _)| (revision, index))
    };
    Ok(outbound.flat_map(held).collect())
}

fn fill_windows(txn: &mut Txn<'_>, site: &Site) -> Result<(), StoreError> {
    let mut undecided = HashSet::new();
    for (id, recipient, _) in revise::undecided(txn)? {
        let row = txn.get::<Recipient>(RECIPIENTS, &mail::recipient_key(id, recipient))?;
        undecided.extend(row.and_then(|row| row.person).map(|person| (id, person)));
    }
    for (_, row) in txn.prefix::<WindowRow>(WINDOWS, &[], usize::MAX)? {
        if row.state != WindowState::Open {
            continue;
        }
        for (key, copy) in txn.prefix::<CopyRow>(COPIES, &row.window.window, usize::MAX)? {
            let (window, id) = (row.window.window, message_of(&key));
            // It was deleted at a desk, which this edge may have forgotten, also if it lies in Trash.
            if copy.place == Place::Gone {
                projection::tell_edge(txn, &ToEdge::CopyGone { window, message: id.0 })?;
                continue;
            }
            let Some((_, entry)) = mail::entry(txn, &row.window.person, id)? else {
                // It was withdrawn. What this edge has still to decide it is told again.
                if copy.place == Place::Edge && !undecided.contains(&(id, row.window.person)) {
                    projection::tell_edge(txn, &ToEdge::CopyGone { window, message: id.0 })?;
                }
                continue;
            };
            // Of what is too large the traveller is told again: the notice was on that edge only.
            if copy.place == Place::TooLarge {
                txn.put(OVERSIZED, &key, &Named(id.0))?;
            }
            let message = mail::shown(txn, id, entry.revision)?.filter(|_| copy.is_there());
            let Some(message) = message else { continue };
            // Until a revision is decided, what a client had is the text before it.
            let retrieved = copy.retrieved && !revise::is_open_for(txn, id, &row.window.person)?;
            match mail::queue_copy(txn, site, &message, id, &row, (retrieved, Pace::Batch)) {
                // The person has deleted it at home.
                Ok(()) | Err(StoreError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// A unit that is to be sent once more, as it has to be now: without the recipients who have the message,
/// with its key for the edge there is; `None` if nobody needs it any more. Lists of who waits are among
/// those: one from then would release what has left since, so it is told anew ([`tell_who_waits`]).
pub fn again(txn: &mut Txn<'_>, site: &Site, unit: QueuedUnit) -> Result<Option<QueuedUnit>, StoreError> {
    match decode::<ToEdge>(&unit.head) {
        Some(ToEdge::Outbound(outbound)) => outbound_again(txn, site, unit, outbound),
        Some(ToEdge::Copy(copy)) => {
            let row = txn.get::<WindowRow>(WINDOWS, &copy.window)?;
            let sent = txn.get::<CopyRow>(COPIES, &key2(&copy.window, &copy.message))?;
            let Some(row) = row.filter(|row| row.state == WindowState::Open) else { return Ok(None) };
            let id = MessageId(copy.message);
            let wanted = match sent {
                None => true,
                Some(sent) if !sent.is_there() => false,
                // A revision that has come before the message waits there until it comes.
                Some(sent) => {
                    sent.revision <= copy.revision || revise::is_open_for(txn, id, &row.window.person)?
                }
            };
            Ok(wanted.then_some(unit))
        }
        // As it is now, if it is open still: one that has ended must not open again for a moment.
        Some(ToEdge::Window(window)) => {
            let row = txn.get::<WindowRow>(WINDOWS, &window.window)?;
            let row = row.filter(|row| row.state == WindowState::Open);
            Ok(row.map(|row| QueuedUnit { head: encode(&ToEdge::Window(Box::new(row.window))), ..unit }))
        }
        Some(ToEdge::Revise(_) | ToEdge::ReviseCopy(_)) => revise::again(txn, site, unit),
        Some(ToEdge::Unsettled(_)) => Ok(None),
        _ => Ok(Some(unit)),
    }
}

fn outbound_again(
    txn: &mut Txn<'_>,
    site: &Site,
    unit: QueuedUnit,
    mut outbound: Outbound,
) -> Result<Option<QueuedUnit>, StoreError> {
    let id = MessageId(outbound.message);
    let mut left = Vec::new();
    for (index, address) in std::mem::take(&mut outbound.recipients) {
        let key = mail::recipient_key(id, index);
        let revision = txn.get::<Recipient>(RECIPIENTS, &key)?.map_or(0, |row| row.revision);
        if txn.raw(UNSETTLED, &key)?.is_some() && revision == outbound.revision {
            left.push((index, address));
        }
    }
    let edge = projection::edge(txn)?;
    let (Some(edge), false, Some(_)) = (edge, left.is_empty(), unit.body.key()) else { return Ok(None) };
    let wrapped = site.wrapped(id, outbound.revision, &PublicKey(edge.sealing_key));
    outbound.wrapped_key =
        wrapped.map_err(|error| StoreError::Damaged(format!("the edge's key ({error})")))?;
    // It goes by the place of each recipient.
    outbound.asked = mail::asked(txn, id, &left)?;
    outbound.recipients = left;
    let indexes = outbound.recipients.iter().map(|(index, _)| *index);
    let part = part_id(&outbound.message, outbound.revision, OUTBOUND, indexes);
    let body = match unit.body {
        QueuedBody::Held { key, .. } => QueuedBody::Ahead { key },
        body => body,
    };
    Ok(Some(QueuedUnit { id: part, head: encode(&ToEdge::Outbound(outbound)), body, ..unit }))
}
