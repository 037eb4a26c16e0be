//! What comes over the link from big, applied within the commit that stores the lane's position.

use std::collections::BTreeMap;

use bytes::Bytes;
use shared::id::MessageId;
use shared::lane::{self, NotApplied, QueuedBody, QueuedUnit};
use shared::store::{BodyKey, Rows, StoreError, Stored, Txn};
use shared::trace;
use shared::unit::{
    DeliveryState, DirectoryMark, Id, OUTBOUND, Outbound, Outcome, ToBig, ToEdge, Unsettled, Window,
    WindowCopy, carrier_id, decode, encode,
};

use crate::record::{
    COPIES, CopyRow, ENDED_WINDOWS, EndedRow, Held, LOGINS, PERSON_WINDOWS, QUEUE, QueueRecipient, QueueRow,
    SETTINGS, WINDOWS, big, copy_key,
};
use crate::{correspondents, directory, renewal};

const EVENT_LANE: u8 = 1;
/// What is said of a recipient of whom no record is left.
const FORGOTTEN: &str =
    "it left the queue of the edge, and how was lost when a node was restored: it may have been delivered";

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

/// The message that a unit brings for delivery, if it does.
pub fn outbound(head: &[u8]) -> Option<MessageId> {
    match decode::<ToEdge>(head) {
        Some(ToEdge::Outbound(outbound)) => Some(MessageId(outbound.message)),
        _ => None,
    }
}

/// Whether a unit may release what was held after a restore.
pub fn releases_held(head: &[u8]) -> bool {
    matches!(decode::<ToEdge>(head), Some(ToEdge::Unsettled(_)))
}

/// The mark that a unit sets, if it does.
pub fn mark(head: &[u8]) -> Option<DirectoryMark> {
    match decode::<ToEdge>(head) {
        Some(ToEdge::DirectoryMark(mark)) => Some(mark),
        _ => None,
    }
}

/// Applies a unit. Addresses outside are remembered under `directory_key`.
pub fn apply(
    txn: &mut Txn<'_>,
    directory_key: &[u8; 32],
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
                end_window(txn, &window, now)?;
            }
            Ok(directory::complete(txn)?)
        }
        ToEdge::DirectoryMark(mark) => Ok(directory::mark(txn, &mark)?),
        ToEdge::Address(row) => Ok(directory::address(txn, &row)?),
        ToEdge::AddressGone { hash } => Ok(directory::gone(txn, &hash)?),
        ToEdge::Window(window) => {
            renewal::window(txn, &window.window)?;
            Ok(open_window(txn, &window)?)
        }
        ToEdge::Unsettled(unsettled) => Ok(settle_held(txn, &unsettled, now)?),
        ToEdge::WindowEnd { window } => Ok(end_window(txn, &window, now)?),
        ToEdge::Outbound(outbound) => Ok(queue_outbound(txn, directory_key, outbound, body()?, now)?),
        ToEdge::Copy(copy) => Ok(file_copy(txn, copy, body()?)?),
    }
}

/// What was held back after a restore is settled by what big knows: delivered further, or done.
fn settle_held(txn: &mut Txn<'_>, unsettled: &Unsettled, now: u64) -> Result<(), StoreError> {
    let waiting: BTreeMap<_, _> =
        unsettled.messages.iter().map(|(id, recipients)| (*id, recipients)).collect();
    let after = MessageId(unsettled.to);
    let rows = txn.range::<QueueRow>(QUEUE, &unsettled.from, None, usize::MAX)?;
    for (key, mut row) in rows {
        let Ok(id) = key.as_slice().try_into().map(MessageId) else { continue };
        if id > after {
            break;
        }
        if !row.restored {
            continue;
        }
        let left = waiting.get(&id.0);
        row.recipients.retain(|recipient| left.is_some_and(|left| left.contains(&recipient.index)));
        if row.recipients.is_empty() {
            txn.delete(QUEUE, &key)?;
            txn.release_body(BodyKey(row.body))?;
            trace::note(txn, id, now, "settled before this edge was restored")?;
        } else {
            (row.restored, row.held, row.next_attempt_at) = (false, false, now);
            txn.put(QUEUE, &key, &row)?;
            trace::note(txn, id, now, "goes on after a restore of this edge")?;
        }
    }
    for (id, recipients) in &unsettled.messages {
        forgotten(txn, id, recipients, now)?;
    }
    Ok(())
}

/// Big waits for what has become of a message. If it came here and waits no more, then it was dealt with, and big
/// has lost that. What is left of it here comes before this on the event lane and counts; if nothing is, the sender
/// has to be told that nobody knows, for sent again it might be there twice.
fn forgotten(txn: &mut Txn<'_>, message: &Id, recipients: &[u32], now: u64) -> Result<(), StoreError> {
    let came = lane::is_here(txn, &carrier_id(message, 0, OUTBOUND))?;
    if !came || txn.raw(QUEUE, message)?.is_some() {
        return Ok(());
    }
    for recipient in recipients {
        let outcome = Outcome {
            message: *message,
            recipient: *recipient,
            state: DeliveryState::Failed,
            at: now,
            host: None,
            tls: false,
            text: FORGOTTEN.into(),
            status: "5.3.0".into(),
            in_doubt: true,
            next_attempt_at: None,
        };
        let unit = QueuedUnit {
            id: MessageId::generate().0,
            lane: EVENT_LANE,
            after: None,
            head: encode(&ToBig::Outcome(outcome)),
            body: QueuedBody::None,
        };
        lane::queue(txn, &unit)?;
    }
    Ok(())
}

fn open_window(txn: &mut Txn<'_>, window: &Window) -> Result<(), StoreError> {
    for login in &window.logins {
        txn.put(LOGINS, login, &Held(window.window))?;
    }
    txn.put(PERSON_WINDOWS, &window.person, &Held(window.window))?;
    txn.put(WINDOWS, &window.window, window)
}

/// Destroys a window: with its credential goes the only way to its private key, and so to whatever of
/// its copies a disk may still hold.
fn end_window(txn: &mut Txn<'_>, id: &Id, now: u64) -> Result<(), StoreError> {
    txn.put(ENDED_WINDOWS, id, &EndedRow { at: now })?;
    if let Some(window) = txn.get::<Window>(WINDOWS, id)? {
        for login in &window.logins {
            if txn.get::<Held>(LOGINS, login)? == Some(Held(*id)) {
                txn.delete(LOGINS, login)?;
            }
        }
        if txn.get::<Held>(PERSON_WINDOWS, &window.person)? == Some(Held(*id)) {
            txn.delete(PERSON_WINDOWS, &window.person)?;
        }
        txn.delete(WINDOWS, id)?;
    }
    for (key, copy) in txn.prefix::<CopyRow>(COPIES, id, usize::MAX)? {
        txn.delete(COPIES, &key)?;
        txn.release_body(BodyKey(copy.body))?;
    }
    let closed = QueuedUnit {
        id: MessageId::generate().0,
        lane: EVENT_LANE,
        after: None,
        head: encode(&ToBig::WindowClosed { window: *id }),
        body: QueuedBody::None,
    };
    lane::queue(txn, &closed).map(drop)
}

fn queue_outbound(
    txn: &mut Txn<'_>,
    directory_key: &[u8; 32],
    outbound: Outbound,
    body: &Stored,
    now: u64,
) -> Result<(), StoreError> {
    if txn.raw(QUEUE, &outbound.message)?.is_some() {
        return Ok(());
    }
    txn.keep_body(body)?;
    for (_, recipient) in &outbound.recipients {
        correspondents::learn(txn, directory_key, recipient, now)?;
    }
    let recipient = |(index, address)| QueueRecipient {
        index,
        address,
        state: DeliveryState::Relaying,
        text: String::new(),
    };
    let row = QueueRow {
        revision: outbound.revision,
        body: body.key().0,
        wrapped_key: outbound.wrapped_key,
        size: outbound.size,
        reverse_path: outbound.reverse_path,
        body_8bit: outbound.body_8bit,
        utf8_header: outbound.utf8_header,
        recipients: outbound.recipients.into_iter().map(recipient).collect(),
        queued_at: now,
        attempts: 0,
        next_attempt_at: now,
        held: false,
        restored: false,
    };
    txn.put(QUEUE, &outbound.message, &row)?;
    trace::note(txn, MessageId(outbound.message), now, "queued for delivery by the edge")
}

fn file_copy(txn: &mut Txn<'_>, copy: WindowCopy, body: &Stored) -> Result<(), StoreError> {
    let key = copy_key(&copy.window, MessageId(copy.message), copy.revision);
    // A second arrival changes nothing; a window that has ended takes nothing. One that is still on its
    // way in another lane does: nobody can log in to it yet.
    if txn.raw(ENDED_WINDOWS, &copy.window)?.is_some() || txn.raw(COPIES, &key)?.is_some() {
        return Ok(());
    }
    txn.keep_body(body)?;
    let row = CopyRow {
        body: body.key().0,
        wrapped_key: copy.wrapped_key,
        size: copy.size,
        retrieved: false,
        after: None,
        hidden: false,
    };
    txn.put(COPIES, &key, &row)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::credential::Credential;
    use shared::seal::PrivateKey;
    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};

    use super::*;
    use crate::record::OUTBOUND_KIND;

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
        let applied = store.commit_blocking(move |txn| Ok::<_, StoreError>(apply(txn, &KEY, arrived, 1000)));
        applied.expect("commits").into_inner().map_err(|rejected| format!("{rejected:?}"))
    }

    fn window() -> ToEdge {
        let (key, public) = PrivateKey::generate();
        let (_, credential) = Credential::generate(&key);
        ToEdge::Window(Box::new(Window {
            window: WINDOW,
            person: PERSON,
            logins: vec![[4; 32], [5; 32]],
            senders: vec![[6; 32]],
            from: 0,
            until: None,
            public_key: public.0,
            credential,
        }))
    }

    fn copy(revision: u32) -> ToEdge {
        let (window, message) = (WINDOW, MESSAGE);
        ToEdge::Copy(WindowCopy { window, message, revision, wrapped_key: vec![7; 80], size: 6 })
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
        assert_eq!(decode(&told[0].1.head), Some(ToBig::WindowClosed { window: WINDOW }));
    }

    #[test]
    fn a_message_that_came_and_waits_no_more_has_an_end_though_its_record_is_lost() {
        let store = store();
        let outbound = encode(&ToEdge::Outbound(Outbound {
            message: MESSAGE,
            revision: 0,
            wrapped_key: vec![7; 80],
            size: 6,
            reverse_path: None,
            recipients: vec![(0, "carol@remote.example".into()), (1, "dave@remote.example".into())],
            body_8bit: false,
            utf8_header: false,
        }));
        let mut writer = store.body_writer(BodyKey([1; 32]), OUTBOUND_KIND);
        let stored = writer.write(b"sealed").and_then(|()| writer.finish(outbound.clone())).expect("writes");
        let unit = lane::Arrival {
            lane: 2,
            number: 1,
            id: carrier_id(&MESSAGE, 0, OUTBOUND),
            after: None,
            alone: None,
        };
        let arrived = Arrived { head: outbound.into(), stored: Some(stored), lost: false };
        let take = move |txn: &mut Txn<'_>| {
            lane::take(
                txn,
                unit,
                1000,
                |_, _| Ok(false),
                |txn| apply(txn, &KEY, arrived, 1000),
                |_, _| Ok(()),
            )
        };
        assert_eq!(store.commit_blocking(take).expect("commits").into_inner(), None);

        let never_came = [9; 16];
        let list = ToEdge::Unsettled(Unsettled {
            from: [0; 16],
            to: [0xff; 16],
            messages: vec![(MESSAGE, vec![1]), (never_came, vec![0])],
        });
        let told = || lane::units(&store.read().expect("reads"), EVENT_LANE, 1, 10).expect("reads");
        assert_eq!(apply_unit(&store, 2, &list, false), Ok(()));
        assert!(told().is_empty(), "one waits, the other is yet to come");
        store.commit_blocking(|txn| txn.delete(QUEUE, &MESSAGE)).expect("commits");
        assert_eq!(apply_unit(&store, 3, &list, false), Ok(()));
        let told = told();
        let outcomes: Vec<_> = told.iter().map(|(_, unit)| decode::<ToBig>(&unit.head)).collect();
        let [Some(ToBig::Outcome(outcome))] = outcomes.as_slice() else { panic!("{outcomes:?}") };
        assert_eq!(
            (outcome.message, outcome.recipient, outcome.state, outcome.in_doubt),
            (MESSAGE, 1, DeliveryState::Failed, true)
        );
    }

    #[test]
    fn who_is_written_to_is_known_from_then_on() {
        let store = store();
        let outbound = ToEdge::Outbound(Outbound {
            message: MESSAGE,
            revision: 0,
            wrapped_key: vec![7; 80],
            size: 6,
            reverse_path: None,
            recipients: vec![(0, "Carol@remote.example".into()), (1, "dave@remote.example".into())],
            body_8bit: false,
            utf8_header: false,
        });
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
    fn what_big_does_not_write_is_refused_and_a_lost_body_is_asked_for_again() {
        let store = store();
        let apply_raw = |head: Vec<u8>, lost| {
            let arrived = Arrived { head: head.into(), stored: None, lost };
            let applied =
                store.commit_blocking(move |txn| Ok::<_, StoreError>(apply(txn, &KEY, arrived, 1000)));
            applied.expect("commits").into_inner()
        };
        assert!(matches!(apply_raw(Vec::new(), false), Err(NotApplied::Never(_))));
        assert!(matches!(apply_raw(encode(&copy(0)), false), Err(NotApplied::Never(_))), "no body");
        assert!(matches!(apply_raw(encode(&copy(0)), true), Err(NotApplied::Later(_))));
        assert_eq!(copies(&store), 0);
    }
}
