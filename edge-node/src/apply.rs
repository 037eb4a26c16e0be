//! What comes over the link from big, applied within the commit that stores the lane's position.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shared::age;
use shared::fault::{SeededFault, seeded};
use shared::id::MessageId;
use shared::lane::{self, NotApplied};
use shared::store::{StoreError, Stored, Txn};
use shared::trace;
use shared::unit::{
    DeliveryState, DirectoryMark, Outbound, Outcome, ReviseMode, ReviseResult, ToBig, ToEdge, Unsettled,
    Window, are_signatures, decode, is_redirect,
};

use crate::facts::{self, EVENT_LANE};
use crate::queue::{self, ROWS_AT_ONCE, former};
use crate::record::{Doubt, QueueRecipient, QueueRow, SETTINGS, big, queue_key, recipients_of};
use crate::revise::busy::Busy;
use crate::revise::{self, Decided, Waiting, latest};
use crate::{correspondents, directory, inventory, renewal, windows};

/// A unit from big, its body complete in the segments.
#[derive(Debug)]
pub struct Arrived {
    /// What it says.
    pub head: Bytes,
    /// Its body.
    pub stored: Option<Stored>,
    /// It had a large body that came ahead, and this node lost it before it could name it.
    pub lost: bool,
}

/// The window that a unit opens or changes, if it does.
pub fn opened(head: &[u8]) -> Option<Window> {
    match decode::<ToEdge>(head) {
        Some(ToEdge::Window(window)) => Some(*window),
        _ => None,
    }
}

/// Whether a unit may end windows, or change how long they last.
pub fn changes_windows(head: &[u8]) -> bool {
    let kind = decode::<ToEdge>(head);
    matches!(kind, Some(ToEdge::Window(_) | ToEdge::WindowEnd { .. } | ToEdge::DirectoryComplete))
}

/// The mark that a unit sets, if it does.
pub fn mark(head: &[u8]) -> Option<DirectoryMark> {
    match decode::<ToEdge>(head) {
        Some(ToEdge::DirectoryMark(mark)) => Some(mark),
        _ => None,
    }
}

/// Applies a unit. Addresses outside are remembered under `directory_key`; `busy` is what cannot be revised
/// at this moment.
pub fn apply(
    txn: &mut Txn<'_>,
    directory_key: &[u8; 32],
    busy: &Busy,
    arrived: Arrived,
    now: u64,
) -> Result<(), NotApplied> {
    if arrived.lost {
        return Err(NotApplied::Later("its body was lost before it was applied".into()));
    }
    let head = decode::<ToEdge>(&arrived.head)
        .ok_or_else(|| NotApplied::Never("not a kind of unit that big writes".into()))?;
    let body = || arrived.stored.as_ref().ok_or_else(|| NotApplied::Never("a message without a body".into()));
    match head {
        ToEdge::Introduction { sealing_key } => {
            let mut row = big(txn)?;
            row.sealing_key = Some(sealing_key);
            Ok(txn.put(SETTINGS, b"big", &row)?)
        }
        ToEdge::DirectoryBegin => {
            renewal::begin(txn)?;
            Ok(directory::begin(txn)?)
        }
        ToEdge::DirectoryRows(rows) => directory::rows(txn, &rows),
        ToEdge::DirectoryComplete => {
            for window in renewal::complete(txn)? {
                revise::end_window(txn, busy, &window, None, now)?;
            }
            Ok(directory::complete(txn)?)
        }
        ToEdge::DirectoryMark(mark) => Ok(directory::mark(txn, &mark)?),
        ToEdge::Address(row) => Ok(directory::address(txn, &row)?),
        ToEdge::AddressGone { hash } => Ok(directory::gone(txn, &hash)?),
        ToEdge::Window(window) => {
            renewal::window(txn, &window.window)?;
            Ok(windows::open(txn, &window)?)
        }
        ToEdge::Unsettled(unsettled) => Ok(settle_held(txn, busy, &unsettled, now)?),
        ToEdge::WindowEnd { window } => Ok(revise::end_window(txn, busy, &window, None, now)?),
        ToEdge::CopyGone { window, message } => {
            windows::gone(txn, busy, &window, MessageId(message), now)?;
            revise::settle_message(txn, busy, &window, MessageId(message), now)?;
            Ok(revise::apply_early(txn, busy, &[window, message].concat(), now)?)
        }
        ToEdge::InventoryAsked { asked } => Ok(inventory::report(txn, asked)?),
        ToEdge::Outbound(outbound) => {
            let message = outbound.message;
            if !are_signatures(&outbound.signatures) {
                return Err(NotApplied::Never(revise::NOT_SIGNATURES.into()));
            }
            queue_outbound(txn, directory_key, busy, outbound, body()?, now)?;
            Ok(revise::apply_early(txn, busy, &message, now)?)
        }
        ToEdge::Copy(copy) => {
            let prefix = [copy.window, copy.message].concat();
            revise::file_copy(txn, busy, copy, body()?, now)?;
            Ok(revise::apply_early(txn, busy, &prefix, now)?)
        }
        ToEdge::Revise(unit) => revise::revise(txn, busy, unit, arrived.stored.as_ref(), now),
        ToEdge::ReviseCopy(copy) => revise::revise_copy(txn, busy, copy, body()?, now),
    }
}

/// What was held back after a restore is settled by what big knows: delivered further, or done.
fn settle_held(txn: &mut Txn<'_>, busy: &Busy, unsettled: &Unsettled, now: u64) -> Result<(), StoreError> {
    let generation = lane::identity(txn)?.map_or(0, |identity| identity.generation);
    if unsettled.generation != generation {
        tracing::info!("a list of who waits, from before this edge went back: another one follows");
        return Ok(());
    }
    let waiting: BTreeMap<_, _> =
        unsettled.messages.iter().map(|(id, recipients)| (*id, recipients)).collect();
    let end = queue_key(&unsettled.to, u32::MAX);
    let mut cursor = Some(unsettled.from.to_vec());
    while let Some(from) = cursor.take() {
        let (messages, next) = queue::messages(txn, &from, Some(&end))?;
        for id in messages {
            let left = waiting.get(&id.0).map_or(&[][..], |left| left.as_slice());
            settle_message(txn, busy, left, id, now)?;
        }
        cursor = next;
    }
    tell_what_is_unknown(txn, unsettled, now)
}

/// Settles what was held back of a message, by who is `left` to get it and which revision at the least.
fn settle_message(
    txn: &mut Txn<'_>,
    busy: &Busy,
    left: &[(u32, u32)],
    id: MessageId,
    now: u64,
) -> Result<(), StoreError> {
    if former::is(txn, id)? {
        return former::go_on(txn, id, now);
    }
    let least = |index| left.iter().find(|(other, _)| *other == index).map(|(_, least)| *least);
    let is_held_back = |recipient: &QueueRecipient| recipient.doubt.is_some_and(Doubt::is_of_restore);
    let mut waiting = Waiting::load(txn, id)?;
    if !waiting.recipients().any(|recipient| is_held_back(recipient)) {
        return Ok(());
    }
    let mut attempted = busy.attempted(id);
    let mut decided = waiting.settle_left(&attempted);
    let (mut has, mut goes_on, mut revised) = (0, 0, 0);
    for row in waiting.rows_mut() {
        let revision = row.revision;
        let before = row.recipients.len();
        row.recipients.retain(|recipient| !is_held_back(recipient) || least(recipient.index).is_some());
        has += before - row.recipients.len();
        for recipient in row.recipients.iter_mut().filter(|recipient| is_held_back(recipient)) {
            // A text that was replaced since the backup must not leave. Big sends the one that was put in its place, which
            // takes over from this; should big go back too, before that, this is the text again.
            match least(recipient.index).filter(|least| *least > revision) {
                Some(least) => (recipient.doubt, revised) = (Some(Doubt::Revised(least)), revised + 1),
                None => {
                    (recipient.doubt, recipient.next_attempt_at) = (None, now);
                    goes_on += 1;
                }
            }
        }
    }
    // What was noted while an attempt for one is under way who does not wait any more is too late.
    attempted.retain(|recipient| waiting.revision_of(*recipient).is_some());
    decided.extend(waiting.settle_left(&attempted));
    waiting.store(txn)?;
    revise::tell(txn, id, decided, now)?;
    let said = [
        (has, "settled before this edge was restored"),
        (goes_on, "goes on after a restore of this edge"),
        (revised, "was revised since the backup of this edge: waits for the new text"),
    ];
    for (count, what) in said.into_iter().filter(|(count, _)| *count > 0) {
        trace::note(txn, id, now, format!("{what} ({count} recipients)"))?;
    }
    Ok(())
}

/// Tells big of the recipients for whom it waits in vain: the edge was given their message, and has them in its queue no
/// more. Of whom it has given up by a redirect it says that. What its lane of events still has of the others it says again,
/// for a big that went back may have forgotten it, and one that has not takes it for what it knows. Of the rest nobody knows
/// what became of them, where both nodes went back, to times on either side of a delivery; and their author has to.
fn tell_what_is_unknown(txn: &mut Txn<'_>, unsettled: &Unsettled, now: u64) -> Result<(), StoreError> {
    let mut unknown = BTreeSet::new();
    for (id, recipients) in &unsettled.messages {
        let message = MessageId(*id);
        let (waiting, mut given_up) = (Waiting::load(txn, message)?, Vec::new());
        for (recipient, _) in recipients {
            let waits = waiting.revision_of(*recipient).is_some();
            match latest::latest(txn, message, *recipient)?.filter(|_| !waits) {
                Some(revision) if is_redirect(revision) => given_up.push(Decided {
                    recipient: *recipient,
                    revision,
                    result: ReviseResult::Withdrawn,
                    text: "",
                }),
                Some(_) => {
                    unknown.insert((*id, *recipient));
                }
                None => {}
            }
        }
        revise::tell(txn, message, given_up, now)?;
    }
    if unknown.is_empty() {
        return Ok(());
    }
    // What is queued by this goes behind the last of them.
    let events = lane::state(txn, EVENT_LANE)?;
    let mut next = events.trimmed + 1;
    while next <= events.last && !unknown.is_empty() {
        let units = lane::units(txn, EVENT_LANE, next, ROWS_AT_ONCE)?;
        let Some((last, _)) = units.last() else { break };
        next = last + 1;
        for (_, unit) in units {
            // Whether big has confirmed it says nothing: it may have before it went back, or the confirm is under way.
            if let Some(ToBig::Outcome(outcome)) = decode(&unit.head)
                && !outcome.state.waits()
                && unknown.remove(&(outcome.message, outcome.recipient))
            {
                facts::tell(txn, &ToBig::Outcome(outcome))?;
            }
        }
    }
    for (message, recipient) in unknown {
        let text =
            "both nodes went back to backups, and what became of it is not known: it may have been delivered";
        let outcome = Outcome {
            message,
            recipient,
            state: DeliveryState::Failed,
            at: now,
            host: None,
            tls: None,
            relay: None,
            text: text.into(),
            status: "5.3.0".into(),
            in_doubt: true,
            host_reports: false,
            next_attempt_at: None,
        };
        facts::tell(txn, &ToBig::Outcome(outcome))?;
        trace::note(txn, MessageId(message), now, format!("recipient {recipient}: {text}"))?;
    }
    Ok(())
}

fn queue_outbound(
    txn: &mut Txn<'_>,
    directory_key: &[u8; 32],
    busy: &Busy,
    mut outbound: Outbound,
    body: &Stored,
    now: u64,
) -> Result<(), StoreError> {
    let (id, revision) = (MessageId(outbound.message), outbound.revision);
    let mut waiting = Waiting::load(txn, id)?;
    // What was noted comes first: it may have taken back what this is a part of.
    let attempted = busy.attempted(id);
    let decided = waiting.settle_left(&attempted);
    if !decided.is_empty() {
        waiting.store(txn)?;
        revise::tell(txn, id, decided, now)?;
        waiting = Waiting::load(txn, id)?;
    }
    // After this edge went back, a message comes again for those of whom big knows that this text is theirs. It may have
    // come already; or a later one has, which goes by another lane; or an older one has left meanwhile, which big has not
    // heard yet.
    let (mut news, mut late) = (Vec::new(), Vec::new());
    for recipient in recipients_of(&mut outbound, now) {
        let index = recipient.index;
        match latest::latest(txn, id, index)?.filter(|_| !seeded(SeededFault::DedupeDropped)) {
            Some(latest) if latest >= revision => {}
            Some(_) if waiting.revision_of(index).is_none() => late.push(revise::late(index, revision)),
            _ => {
                latest::remember(txn, id, index, revision)?;
                correspondents::learn(txn, directory_key, &recipient.address, now)?;
                news.push(recipient);
            }
        }
    }
    revise::tell(txn, id, late, now)?;
    if news.is_empty() {
        return Ok(());
    }
    let row = QueueRow::of(outbound, body.key(), now, age::lived(txn)?);
    // The revision itself may have brought it for others.
    if waiting.add(row) {
        txn.keep_body(body)?;
    }
    let (older, mut fresh): (Vec<_>, Vec<_>) =
        news.into_iter().partition(|recipient| waiting.revision_of(recipient.index).is_some());
    for recipient in &older {
        let is_attempted = attempted.contains(&recipient.index);
        // That it takes the place is what big has said, and need not be told.
        waiting.revise(recipient.index, revision, ReviseMode::Replace, is_attempted);
    }
    // Big says by this that they have still to get it, also who is being attempted: the note may outlive the attempt.
    let is_told = |recipient: &&mut QueueRecipient| {
        older.iter().any(|told| told.index == recipient.index)
            && recipient.doubt.is_some_and(Doubt::is_of_restore)
    };
    let told = waiting.recipients().filter(is_told);
    told.for_each(|recipient| (recipient.doubt, recipient.next_attempt_at) = (None, now));
    if let Some(row) = waiting.row(revision) {
        row.recipients.append(&mut fresh);
    }
    waiting.store(txn)?;
    trace::note(txn, id, now, "queued for delivery by the edge")
}

#[cfg(test)]
mod tests {
    use shared::tls_wish::TlsWish;
    use shared::unit::encode;
    use std::sync::Arc;

    use shared::credential::Credential;
    use shared::seal::PrivateKey;
    use shared::store::sim::{Faults, SimDisk};

    use shared::store::{BodyKey, Rows, Store};
    use shared::unit::{Id, OUTBOUND, WindowCopy, carrier_id};

    use super::*;
    use crate::queue::sample;
    use crate::record::{COPIES, CopyRow, LOGINS, OUTBOUND_KIND, PERSON_WINDOWS, WINDOWS};

    const WINDOW: Id = [1; 16];
    const PERSON: Id = [2; 16];
    const MESSAGE: Id = [3; 16];
    const KEY: [u8; 32] = [8; 32];

    fn store() -> Store {
        Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens")
    }

    /// Applies a unit with, if `body`, a small body of its own.
    fn apply_unit(store: &Store, unit: u8, head: &ToEdge, body: bool) -> Result<(), String> {
        let key = BodyKey([unit; 32]);
        let stored = body.then(|| {
            let mut writer = store.body_writer(key, OUTBOUND_KIND);
            writer.write(b"sealed").and_then(|()| writer.finish(encode(head))).expect("writes")
        });
        let arrived = Arrived { head: encode(head).into(), stored, lost: false };
        let applied = store.commit_blocking(move |txn| {
            Ok::<_, StoreError>(apply(txn, &KEY, &Busy::default(), arrived, 1000))
        });
        applied.expect("commits").into_inner().map_err(|rejected| format!("{rejected:?}"))
    }

    fn window() -> ToEdge {
        let (key, public) = PrivateKey::generate();
        let (_, credential) = Credential::generate(&key, [9; 16]);
        ToEdge::Window(Box::new(Window {
            logins: vec![[4; 32], [5; 32]],
            senders: vec![[6; 32]],
            ..Window::new(WINDOW, PERSON, public.0, credential)
        }))
    }

    fn copy(revision: u32) -> ToEdge {
        let (window, message) = (WINDOW, MESSAGE);
        ToEdge::Copy(WindowCopy {
            window,
            message,
            revision,
            wrapped_key: vec![7; 80],
            size: 6,
            retrieved: false,
        })
    }

    fn copies(store: &Store) -> usize {
        store.read().and_then(|rows| rows.prefix::<CopyRow>(COPIES, &WINDOW, 10)).expect("reads").len()
    }

    #[test]
    fn a_copy_may_overtake_its_window_and_comes_once() {
        let store = store();
        assert_eq!(apply_unit(&store, 1, &copy(0), true), Ok(()));
        assert_eq!(apply_unit(&store, 2, &window(), false), Ok(()));
        assert_eq!(apply_unit(&store, 3, &copy(0), true), Ok(()));
        assert_eq!(copies(&store), 1);
        assert!(store.body(BodyKey([1; 32])).is_ok());
        assert!(store.body(BodyKey([3; 32])).is_err(), "the second arrival keeps nothing");
    }

    #[test]
    fn a_window_that_ends_takes_everything_with_it() {
        let store = store();
        apply_unit(&store, 1, &window(), false).expect("opens");
        apply_unit(&store, 2, &copy(0), true).expect("is filed");
        apply_unit(&store, 3, &ToEdge::WindowEnd { window: WINDOW }, false).expect("ends");
        apply_unit(&store, 4, &copy(1), true).expect("comes too late and is no error");
        assert_eq!(copies(&store), 0);
        let rows = store.read().expect("reads");
        for (table, key) in [(WINDOWS, WINDOW.as_slice()), (PERSON_WINDOWS, &PERSON), (LOGINS, &[4; 32])] {
            assert!(rows.raw(table, key).expect("reads").is_none(), "{table:?}");
        }
        assert!(store.body(BodyKey([2; 32])).is_err() && store.body(BodyKey([4; 32])).is_err());
        let told = lane::units(&rows, EVENT_LANE, 1, 10).expect("reads");
        assert_eq!(decode(&told[0].1.head), Some(ToBig::WindowClosed { window: WINDOW, until: None }));
    }

    #[test]
    fn who_is_written_to_is_known_from_then_on() {
        let store = store();
        let recipients = vec![(0, "Carol@remote.example".into()), (1, "dave@remote.example".into())];
        let outbound =
            ToEdge::Outbound(Outbound { reverse_path: None, ..sample::outbound(MESSAGE, 0, recipients) });
        let is_known = |text: &str| {
            let address = text.parse().expect("an address");
            store
                .read()
                .and_then(|rows| correspondents::is_known(&rows, &KEY, &address, 1000))
                .expect("reads")
        };
        assert!(!is_known("carol@remote.example"));
        assert_eq!(apply_unit(&store, 1, &outbound, true), Ok(()));
        assert!(is_known("carol@remote.example") && is_known("dave@remote.example"));
        assert!(!is_known("eve@remote.example"));
    }

    #[test]
    fn where_nobody_knows_what_became_of_a_message_big_is_told_so_and_always_the_same() {
        let store = store();
        let outbound = |message: u8| {
            ToEdge::Outbound(Outbound {
                message: [message; 16],
                revision: 0,
                wrapped_key: vec![7; 80],
                size: 6,
                reverse_path: None,
                recipients: vec![(0, "carol@remote.example".into()), (4, "dave@remote.example".into())],
                asked: Vec::new(),
                returns: None,
                envelope_id: None,
                tls_wish: TlsWish::Unsaid,
                body_8bit: false,
                utf8_header: false,
                signatures: String::new(),
            })
        };
        let [waits, gone, told, never_given] = [10, 11, 12, 13];
        for message in [waits, gone, told] {
            let id = carrier_id(&[message; 16], 0, OUTBOUND);
            let head = outbound(message);
            apply_unit(&store, message, &head, true).expect("is queued");
            let arrival = move |txn: &mut Txn<'_>| {
                let arrival = lane::Arrival { lane: 2, number: 1, id, after: None, alone: None };
                let known = |_: &Txn<'_>, _: &Id| Ok(false);
                lane::take(txn, arrival, 1000, known, |_| Ok(()), |_, _| Ok(()))
            };
            assert_eq!(*store.commit_blocking(arrival).expect("commits"), None, "it is here from now on");
        }
        let outcome = |recipient, state| Outcome {
            message: [told; 16],
            recipient,
            state,
            at: 1,
            host: None,
            tls: None,
            relay: None,
            text: String::new(),
            status: "2.0.0".into(),
            in_doubt: false,
            host_reports: false,
            next_attempt_at: None,
        };
        // The lane is longer than what is looked at together.
        let other = Outcome { message: [99; 16], ..outcome(0, DeliveryState::Relayed) };
        let events = vec![other; ROWS_AT_ONCE].into_iter();
        let told_events = [outcome(0, DeliveryState::Relayed), outcome(4, DeliveryState::Deferred)];
        let events: Vec<_> = events.chain(told_events).collect();
        let behind = events.len() as u64 + 1;
        let forgotten = store.commit_blocking(move |txn| {
            queue::remove(txn, MessageId([gone; 16]), 0)?;
            queue::remove(txn, MessageId([told; 16]), 0)?;
            events.into_iter().try_for_each(|event| facts::tell(txn, &ToBig::Outcome(event)))
        });
        forgotten.expect("commits");
        let messages =
            [waits, gone, told, never_given].map(|message| ([message; 16], vec![(0, 0), (4, 0)])).to_vec();
        let list = ToEdge::Unsettled(Unsettled { from: [0; 16], to: [0xff; 16], messages, generation: 0 });
        // The second list finds what the first has come to.
        for _ in 0..2 {
            assert_eq!(apply_unit(&store, 20, &list, false), Ok(()));
        }
        let rows = store.read().expect("reads");
        let units = lane::units(&rows, EVENT_LANE, behind, 10).expect("reads");
        let said: Vec<_> = units
            .iter()
            .filter_map(|(_, unit)| match decode(&unit.head) {
                Some(ToBig::Outcome(outcome)) => Some(outcome),
                _ => None,
            })
            .map(|outcome| (outcome.message[0], outcome.recipient, outcome.state, outcome.in_doubt))
            .collect();
        let unknown = [(gone, 0), (gone, 4), (told, 4)].map(|(id, to)| (id, to, DeliveryState::Failed, true));
        let known = [(told, 0, DeliveryState::Relayed, false)];
        assert_eq!(said, [known.as_slice(), &unknown, &known, &unknown].concat());
        // A big that has confirmed what it was told of one, and waits for it, has forgotten it.
        let position = lane::LanePosition { number: behind - 2, ..lane::LanePosition::default() };
        let confirmed =
            store.commit_blocking(move |txn| lane::confirmed(txn, EVENT_LANE, position, &[], &[], 1000));
        confirmed.expect("commits");
        let messages = vec![([told; 16], vec![(0, 0), (4, 0)])];
        let list = ToEdge::Unsettled(Unsettled { from: [0; 16], to: [0xff; 16], messages, generation: 0 });
        assert_eq!(apply_unit(&store, 20, &list, false), Ok(()));
        let rows = store.read().expect("reads");
        let units = lane::units(&rows, EVENT_LANE, behind + 8, 10).expect("reads");
        let again: Vec<ToBig> = units.iter().filter_map(|(_, unit)| decode(&unit.head)).collect();
        assert_eq!(again.len(), 2);
        assert_eq!(again[0], ToBig::Outcome(outcome(0, DeliveryState::Relayed)));
    }

    #[test]
    fn what_big_does_not_write_is_refused_and_a_lost_body_is_asked_for_again() {
        let store = store();
        let apply_raw = |head: Vec<u8>, lost| {
            let arrived = Arrived { head: head.into(), stored: None, lost };
            let applied = store.commit_blocking(move |txn| {
                Ok::<_, StoreError>(apply(txn, &KEY, &Busy::default(), arrived, 1000))
            });
            applied.expect("commits").into_inner()
        };
        assert!(matches!(apply_raw(Vec::new(), false), Err(NotApplied::Never(_))));
        assert!(matches!(apply_raw(encode(&copy(0)), false), Err(NotApplied::Never(_))), "no body");
        assert!(matches!(apply_raw(encode(&copy(0)), true), Err(NotApplied::Later(_))));
        assert_eq!(copies(&store), 0);
    }
}
