//! What a revision does to what waits on the edge, with everything that may be under way at that moment.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use shared::credential::Credential;
use shared::lane::{self, Arrival, take};
use shared::seal::PrivateKey;
use shared::store::Store;
use shared::store::sim::{Faults, SimDisk};
use shared::topology::{SMALLEST, Topology};
use shared::unit::{
    DeliveryState, OUTBOUND, REVISION, Unsettled, Window, WindowCopy, carrier_id, part_id, redirect_after,
};

use super::*;
use crate::apply::{self, Arrived};
use crate::facts::EVENT_LANE;
use crate::queue::{leaving, sample};
use crate::record::{COPIES, CopyRow, Doubt, OUTBOUND_KIND, QUEUE, QueueRecipient};

const KEY: [u8; 32] = [8; 32];
const MESSAGE: Id = [3; 16];
const WINDOW: Id = [1; 16];
const NOW: u64 = 1000;

struct Edge {
    store: Store,
    busy: Arc<Busy>,
}

impl Edge {
    fn new() -> Self {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        Self { store, busy: Arc::default() }
    }

    /// Applies a unit under its id, with its text as its body.
    fn apply(&self, id: Id, head: &ToEdge, text: Option<&str>) -> Result<(), String> {
        let stored = text.map(|text| {
            let key = BodyKey(*blake3::hash(text.as_bytes()).as_bytes());
            let mut writer = self.store.body_writer(key, OUTBOUND_KIND);
            writer.write(text.as_bytes()).and_then(|()| writer.finish(encode(head))).expect("writes")
        });
        let arrived = Arrived { head: encode(head).into(), stored, lost: false };
        let busy = Arc::clone(&self.busy);
        let applied = self.store.commit_blocking(move |txn| {
            let arrival = Arrival { lane: 2, number: 1, id, after: None, alone: None };
            let apply = |txn: &mut Txn<'_>| apply::apply(txn, &KEY, &busy, arrived, NOW);
            take(txn, arrival, NOW, |_, _| Ok(false), apply, |_, _| Ok(()))
        });
        match applied.expect("commits").into_inner() {
            None => Ok(()),
            Some(row) => Err(row.reason),
        }
    }

    fn outbound(&self, recipients: u32) {
        self.offer(0, 0..recipients, "old");
    }

    /// Big tells again, as a message, what revision 1 has brought for one recipient.
    fn offer_revised(&self, recipient: u32) {
        self.offer(1, recipient..recipient + 1, "new 1");
    }

    fn offer(&self, revision: u32, recipients: Range<u32>, text: &str) {
        let named = recipients.clone().map(|index| (index, format!("r{index}@remote.example"))).collect();
        let head = ToEdge::Outbound(sample::outbound(MESSAGE, revision, named));
        self.apply(part_id(&MESSAGE, revision, OUTBOUND, recipients), &head, Some(text)).expect("is taken");
    }

    fn revise(&self, revision: u32, mode: ReviseMode, recipients: &[u32]) {
        let recipients: Vec<_> = recipients.iter().map(|recipient| (*recipient, 0)).collect();
        self.revise_after(revision, mode, &recipients);
    }

    /// Big tells a revision for recipients of whom it knows that others were decided.
    fn revise_after(&self, revision: u32, mode: ReviseMode, recipients: &[(u32, u32)]) {
        let head = ToEdge::Revise(Revise {
            message: MESSAGE,
            revision,
            mode,
            recipients: recipients.to_vec(),
            wrapped_key: vec![9; 80],
            size: 3,
            body_8bit: false,
            utf8_header: false,
            signatures: String::new(),
        });
        let text = format!("new {revision}");
        let text = (mode != ReviseMode::Withdraw).then_some(text.as_str());
        let id = part_id(&MESSAGE, revision, REVISION, recipients.iter().map(|(recipient, _)| *recipient));
        self.apply(id, &head, text).expect("is applied");
    }

    /// This edge goes back to a backup of this moment.
    fn goes_back(self) -> Self {
        let hold_back = |txn: &mut Txn<'_>| crate::maintenance::hold_back(txn, &Busy::default(), NOW);
        self.store.commit_blocking(hold_back).expect("commits");
        Self { busy: Arc::default(), ..self }
    }

    /// An operator has it attempted, though it may have left.
    fn retried(&self) {
        self.change(|recipient| recipient.doubt = Some(Doubt::Retried));
    }

    /// Changes all who wait.
    fn change(&self, change: fn(&mut QueueRecipient)) {
        let changed = self.store.commit_blocking(move |txn| {
            let mut waiting = Waiting::load(txn, MessageId(MESSAGE))?;
            waiting.recipients().for_each(change);
            waiting.store(txn)
        });
        changed.expect("commits");
    }

    /// Big says who waits, and for which revision at the least.
    fn wait(&self, unit: u8, waiting: &[(u32, u32)]) {
        let messages = vec![(MESSAGE, waiting.to_vec())];
        let list = Unsettled { from: [0; 16], to: [0xff; 16], messages, generation: 0 };
        self.apply([unit; 16], &ToEdge::Unsettled(list), None).expect("is told");
    }

    /// An attempt begins: the text that would leave.
    fn begin(&self) -> Option<(u32, String)> {
        let busy = Arc::clone(&self.busy);
        let begun =
            self.store.commit_blocking(move |txn| begin(txn, &busy, MessageId(MESSAGE), None, u64::MAX));
        let Begun { row, under_way } = begun.expect("commits").into_inner()?;
        // It is over with `end`.
        std::mem::forget(under_way);
        Some((row.revision, self.text(row.body)))
    }

    fn text(&self, body: [u8; 32]) -> String {
        let bytes = self.store.body(BodyKey(body)).and_then(|reader| reader.read_all()).expect("is kept");
        String::from_utf8(bytes).expect("text")
    }

    /// The attempt with a revision ends in the same state for everybody.
    fn end(&self, revision: u32, state: DeliveryState) {
        let busy = Arc::clone(&self.busy);
        let ended = self.store.commit_blocking(move |txn| {
            busy.end(MessageId(MESSAGE), &[0, 1, 2]);
            let mut waiting = Waiting::load(txn, MessageId(MESSAGE))?;
            let row = waiting.row(revision).expect("waits");
            row.recipients.iter_mut().for_each(|recipient| recipient.state = state);
            let decided = waiting.settle(revision, |_| true);
            waiting.store(txn)?;
            tell(txn, MessageId(MESSAGE), decided, NOW)
        });
        ended.expect("commits");
    }

    /// What big has been told: recipient, revision, result.
    fn told(&self) -> Vec<(u32, u32, ReviseResult)> {
        let rows = self.store.read().expect("reads");
        let units = lane::units(&rows, EVENT_LANE, 1, 100).expect("reads");
        let told = units.iter().filter_map(|(_, unit)| match decode::<ToBig>(&unit.head) {
            Some(ToBig::Revised(told)) => Some((told.recipient, told.revision, told.result)),
            _ => None,
        });
        told.collect()
    }

    /// What big has been told that became of whom.
    fn told_outcomes(&self) -> Vec<(u32, DeliveryState)> {
        let rows = self.store.read().expect("reads");
        let units = lane::units(&rows, EVENT_LANE, 1, 100).expect("reads");
        let told = units.iter().filter_map(|(_, unit)| match decode::<ToBig>(&unit.head) {
            Some(ToBig::Outcome(outcome)) => Some((outcome.recipient, outcome.state)),
            _ => None,
        });
        told.collect()
    }

    fn waiting(&self) -> Vec<(u32, String)> {
        let rows =
            self.store.read().and_then(|rows| rows.prefix::<QueueRow>(QUEUE, &[], 100)).expect("reads");
        rows.iter()
            .flat_map(|(_, row)| {
                row.recipients.iter().filter(|r| waits(r)).map(|r| (r.index, self.text(row.body)))
            })
            .collect()
    }

    /// What may leave, besides what is held back.
    fn leaves(&self) -> Vec<(u32, String)> {
        let rows =
            self.store.read().and_then(|rows| rows.prefix::<QueueRow>(QUEUE, &[], 100)).expect("reads");
        let free = |row: &QueueRow| {
            let free = row.recipients.iter().filter(|recipient| is_free(recipient));
            free.map(|recipient| (recipient.index, self.text(row.body))).collect::<Vec<_>>()
        };
        rows.iter().flat_map(|(_, row)| free(row)).collect()
    }

    fn copy(&self) {
        self.copy_of(0, "old copy");
    }

    fn copy_of(&self, revision: u32, text: &str) {
        let copy = WindowCopy {
            window: WINDOW,
            message: MESSAGE,
            revision,
            wrapped_key: vec![7; 80],
            size: 3,
            retrieved: false,
        };
        let id = carrier_id(&MESSAGE, revision, &WINDOW);
        self.apply(id, &ToEdge::Copy(copy), Some(text)).expect("is filed");
    }

    fn revise_copy(&self, revision: u32, mode: ReviseMode) {
        self.tell_of_copy(revision, mode, (true, false));
    }

    fn tell_of_copy(&self, revision: u32, mode: ReviseMode, told: (bool, bool)) {
        self.tell_of_copy_of(3, revision, mode, told);
    }

    fn tell_of_copy_of(&self, size: u64, revision: u32, mode: ReviseMode, (comes, retrieved): (bool, bool)) {
        let copy = CopyRevision {
            window: WINDOW,
            message: MESSAGE,
            revision,
            earlier: (1..revision).collect(),
            mode,
            recipient: 5,
            wrapped_key: vec![9; 80],
            size,
            comes,
            retrieved,
        };
        let id = carrier_id(&MESSAGE, revision, b"revise copy");
        self.apply(id, &ToEdge::ReviseCopy(copy), Some(&format!("new copy {revision}"))).expect("is applied");
    }

    /// What the window offers: the revision, the text.
    fn offered(&self) -> Vec<(u32, String)> {
        let rows =
            self.store.read().and_then(|rows| rows.prefix::<CopyRow>(COPIES, &WINDOW, 10)).expect("reads");
        rows.iter().map(|(key, row)| (crate::record::copy_of(key).1, self.text(row.body))).collect()
    }

    /// A session has ended that has sent the original, or not.
    fn session_ends(&self, sent: bool) {
        self.busy.unlock_maildrop(&WINDOW);
        let ended = self.store.commit_blocking(move |txn| {
            if sent {
                end_session(txn, &WINDOW, &[(MessageId(MESSAGE), 0)])?;
            }
            settle_copies(txn, &WINDOW, NOW)
        });
        ended.expect("commits");
    }

    fn bodies(&self) -> u64 {
        self.store.live_bytes().expect("reads")
    }
}

const BOTH: [u32; 2] = [0, 1];

#[test]
fn an_attempt_whose_beginning_is_not_committed_is_not_under_way() {
    let edge = Edge::new();
    edge.outbound(2);
    let busy = Arc::clone(&edge.busy);
    let failed = edge.store.commit_blocking(move |txn| {
        let begun = begin(txn, &busy, MessageId(MESSAGE), None, u64::MAX)?;
        Err::<Option<Begun>, _>(StoreError::Io(format!("the disk fails behind {begun:?}")))
    });
    assert!(failed.is_err());
    assert_eq!(edge.begin(), Some((0, "old".into())), "it is tried again");
}

#[test]
fn what_waits_is_swapped_and_the_old_text_is_gone() {
    let edge = Edge::new();
    edge.outbound(2);
    edge.revise(1, ReviseMode::Replace, &[1]);
    assert_eq!(edge.told(), [(1, 1, ReviseResult::Replaced)]);
    assert_eq!(edge.waiting(), [(0, "old".into()), (1, "new 1".into())]);
    edge.revise(2, ReviseMode::Withdraw, &[0]);
    assert_eq!(edge.waiting(), [(1, "new 1".into())]);
    assert!(edge.store.body(BodyKey(*blake3::hash(b"old").as_bytes())).is_err(), "nobody needs the old text");
    edge.revise(3, ReviseMode::Withdraw, &BOTH);
    assert_eq!(
        edge.told()[1..],
        [(0, 2, ReviseResult::Withdrawn), (0, 3, ReviseResult::TooLate), (1, 3, ReviseResult::Withdrawn),]
    );
    assert_eq!((edge.begin(), edge.bodies()), (None, 0), "nothing is left of it");
}

#[test]
fn an_attempt_under_way_decides_by_its_outcome() {
    for (outcome, mode, result, left) in [
        (DeliveryState::Relayed, ReviseMode::Replace, ReviseResult::TooLate, None),
        (DeliveryState::Relayed, ReviseMode::Withdraw, ReviseResult::TooLate, None),
        (DeliveryState::Failed, ReviseMode::Replace, ReviseResult::TooLate, None),
        (DeliveryState::Deferred, ReviseMode::Replace, ReviseResult::Replaced, Some((1, "new 1".to_owned()))),
        (DeliveryState::Deferred, ReviseMode::Append, ReviseResult::Replaced, Some((1, "new 1".to_owned()))),
        (DeliveryState::Deferred, ReviseMode::Withdraw, ReviseResult::Withdrawn, None),
    ] {
        let edge = Edge::new();
        edge.outbound(1);
        assert_eq!(edge.begin(), Some((0, "old".into())));
        edge.revise(1, mode, &[0]);
        assert_eq!(edge.told(), [], "{outcome:?}: nothing is promised while the old text may be leaving");
        edge.end(0, outcome);
        assert_eq!(edge.told(), [(0, 1, result)], "{outcome:?} {mode:?}");
        assert_eq!(edge.begin(), left, "{outcome:?} {mode:?}");
        if left.is_none() {
            assert_eq!(edge.bodies(), 0, "{outcome:?} {mode:?}");
        }
    }
}

/// What a host may have goes to no other address; its author takes it back as well as can be.
#[test]
fn what_a_host_may_have_is_not_redirected() {
    let redirect = redirect_after(None, 1).expect("is left");
    let doubts: [fn(&mut QueueRecipient); 5] = [
        |recipient| recipient.in_doubt = true,
        |recipient| recipient.doubt_it(Doubt::Restored),
        |recipient| recipient.doubt_it(Doubt::Retried),
        |recipient| recipient.doubt_it(Doubt::Revised(1)),
        |recipient| recipient.doubt_it(Doubt::Rebuilt),
    ];
    for doubt in doubts {
        for is_attempted in [false, true] {
            let edge = Edge::new();
            edge.outbound(1);
            assert!(!is_attempted || edge.begin().is_some());
            edge.change(doubt);
            edge.revise(redirect, ReviseMode::Withdraw, &[0]);
            if is_attempted {
                edge.end(0, DeliveryState::Deferred);
            }
            assert_eq!(edge.told(), [(0, redirect, ReviseResult::TooLate)]);
            assert_eq!(edge.waiting(), [(0, "old".into())], "it waits on");
            edge.revise(1, ReviseMode::Withdraw, &[0]);
            assert_eq!(edge.told()[1..], [(0, 1, ReviseResult::Withdrawn)]);
        }
    }
    let edge = Edge::new();
    edge.outbound(1);
    assert!(edge.begin().is_some());
    edge.revise(redirect, ReviseMode::Withdraw, &[0]);
    edge.end(0, DeliveryState::Deferred);
    assert_eq!(edge.told(), [(0, redirect, ReviseResult::Withdrawn)], "its host has refused it for now");
}

#[test]
fn what_an_attempt_that_was_cut_off_may_have_delivered_is_not_redirected() {
    let redirect = redirect_after(None, 1).expect("is left");
    let edge = Edge::new();
    edge.outbound(3);
    assert!(edge.begin().is_some());
    edge.revise(redirect, ReviseMode::Withdraw, &[0, 2]);
    edge.revise(1, ReviseMode::Withdraw, &[1]);
    let settled = edge.store.commit_blocking(|txn| {
        leaving::note(txn, MessageId(MESSAGE), &[0, 1])?;
        let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
        leaving::settle(txn, &topology.edge.outbound, NOW)
    });
    settled.expect("commits");
    let edge = Edge { store: edge.store, busy: Arc::default() };
    assert_eq!(edge.begin(), Some((0, "old".into())));
    let told = edge.told();
    assert!(told.contains(&(0, redirect, ReviseResult::TooLate)), "{told:?}");
    assert!(told.contains(&(1, 1, ReviseResult::Withdrawn)), "{told:?}");
    assert!(
        told.contains(&(2, redirect, ReviseResult::Withdrawn)),
        "its attempt had not come so far: {told:?}"
    );
    // The host refuses the next attempt, which says nothing of the one before.
    edge.end(0, DeliveryState::Deferred);
    edge.revise(redirect + 1, ReviseMode::Withdraw, &[0]);
    assert!(edge.told().contains(&(0, redirect + 1, ReviseResult::TooLate)));
}

#[test]
fn an_attempt_that_begins_after_a_decision_takes_the_new_text() {
    let edge = Edge::new();
    edge.outbound(1);
    edge.revise(1, ReviseMode::Replace, &[0]);
    assert_eq!(edge.begin(), Some((1, "new 1".into())));
    // And one that was noted when the edge went down is decided before the next attempt.
    edge.revise(2, ReviseMode::Replace, &[0]);
    assert_eq!(edge.told(), [(0, 1, ReviseResult::Replaced)]);
    let edge = Edge { store: edge.store, busy: Arc::default() };
    assert_eq!(edge.begin(), Some((2, "new 2".into())));
    assert_eq!(edge.told()[1..], [(0, 2, ReviseResult::Replaced)]);
}

#[test]
fn a_later_revision_that_overtakes_an_earlier_one_stands() {
    let edge = Edge::new();
    edge.outbound(1);
    edge.revise(2, ReviseMode::Replace, &[0]);
    edge.revise(1, ReviseMode::Replace, &[0]);
    assert_eq!(edge.told(), [(0, 2, ReviseResult::Replaced), (0, 1, ReviseResult::Replaced)]);
    assert_eq!(edge.begin(), Some((2, "new 2".into())));
}

#[test]
fn a_revision_that_overtakes_its_message_is_applied_with_it() {
    let edge = Edge::new();
    edge.revise(1, ReviseMode::Replace, &[0]);
    edge.revise(2, ReviseMode::Withdraw, &[1]);
    assert_eq!(edge.told(), []);
    edge.outbound(2);
    assert_eq!(edge.told(), [(0, 1, ReviseResult::Replaced), (1, 2, ReviseResult::Withdrawn)]);
    assert_eq!(edge.waiting(), [(0, "new 1".into())]);
    // The same for a copy.
    edge.revise_copy(1, ReviseMode::Replace);
    assert_eq!(edge.offered(), []);
    edge.copy();
    assert_eq!(edge.offered(), [(1, "new copy 1".into())]);
}

#[test]
fn what_has_left_is_too_late() {
    let edge = Edge::new();
    edge.outbound(1);
    assert!(edge.begin().is_some());
    edge.end(0, DeliveryState::Relayed);
    edge.revise(1, ReviseMode::Replace, &[0]);
    assert_eq!(edge.told(), [(0, 1, ReviseResult::TooLate)]);
    assert_eq!((edge.waiting(), edge.bodies()), (Vec::new(), 0));
}

#[test]
fn a_copy_is_swapped_unless_a_client_may_have_read_it() {
    for (sent, mode, result, offered) in [
        (false, ReviseMode::Replace, ReviseResult::Replaced, vec![(1, "new copy 1".to_owned())]),
        (false, ReviseMode::Withdraw, ReviseResult::Withdrawn, vec![]),
        (true, ReviseMode::Replace, ReviseResult::Revised, vec![(1, "new copy 1".to_owned())]),
        (true, ReviseMode::Withdraw, ReviseResult::Revised, vec![(1, "new copy 1".to_owned())]),
    ] {
        // Before the session ends, and after it.
        for during in [true, false] {
            let edge = Edge::new();
            edge.copy();
            assert!(edge.busy.lock_maildrop(WINDOW));
            if during {
                edge.revise_copy(1, mode);
                assert_eq!(edge.told(), [], "a session keeps what it saw");
                assert_eq!(edge.offered(), [(0, "old copy".into())]);
            }
            edge.session_ends(sent);
            if !during {
                edge.revise_copy(1, mode);
            }
            assert_eq!(edge.told(), [(5, 1, result)], "{sent} {mode:?} {during}");
            assert_eq!(edge.offered(), offered, "{sent} {mode:?} {during}");
        }
    }
}

/// Revision 1 is large and comes by the lane of large mail, behind revision 2, which is small.
#[test]
fn a_text_that_was_overtaken_does_not_come_back_on_the_road() {
    use ReviseMode::{Append, Replace, Withdraw};
    for (mode, result) in [(Withdraw, ReviseResult::Withdrawn), (Append, ReviseResult::Replaced)] {
        // When the session ends: before the first one comes, between them, behind both.
        for ends_at in 0..3 {
            let edge = Edge::new();
            edge.copy();
            assert!(edge.busy.lock_maildrop(WINDOW));
            for (at, (revision, mode)) in [(2, mode), (1, Replace)].into_iter().enumerate() {
                if at == ends_at {
                    edge.session_ends(false);
                }
                edge.revise_copy(revision, mode);
            }
            if ends_at == 2 {
                edge.session_ends(false);
            }
            let mut told = edge.told();
            told.sort_unstable_by_key(|(_, revision, _)| *revision);
            assert_eq!(told, [(5, 1, ReviseResult::Replaced), (5, 2, result)], "{mode:?} {ends_at}");
            let left = if mode == Withdraw { vec![] } else { vec![(2, "new copy 2".to_owned())] };
            assert_eq!(edge.offered(), left, "{mode:?} {ends_at}");
            // Nor does what big had queued as a copy before, nor again when it tells all anew.
            edge.copy_of(1, "new copy 1");
            assert_eq!(edge.offered(), left, "{mode:?} {ends_at}");
        }
    }
}

#[test]
fn what_was_overtaken_and_deleted_by_a_client_does_not_come_back_either() {
    let edge = Edge::new();
    edge.copy();
    edge.revise_copy(2, ReviseMode::Replace);
    let delete = |txn: &mut Txn<'_>| txn.delete(COPIES, &copy_key(&WINDOW, MessageId(MESSAGE), 2));
    edge.store.commit_blocking(delete).expect("commits");
    edge.revise_copy(1, ReviseMode::Replace);
    assert_eq!(edge.offered(), []);
    assert_eq!(edge.told()[1..], [(5, 1, ReviseResult::Replaced)]);
    // A later one is offered as ever.
    edge.revise_copy(3, ReviseMode::Replace);
    assert_eq!(edge.offered(), [(3, "new copy 3".into())]);
    assert_eq!(edge.told()[2..], [(5, 3, ReviseResult::Revised)]);
}

#[test]
fn what_was_overtaken_outside_does_not_leave_whether_an_attempt_is_under_way_or_not() {
    for under_way in [false, true] {
        let edge = Edge::new();
        edge.outbound(1);
        if under_way {
            assert!(edge.begin().is_some());
        }
        edge.revise(2, ReviseMode::Withdraw, &[0]);
        edge.revise(1, ReviseMode::Replace, &[0]);
        if under_way {
            assert_eq!(edge.told(), []);
            edge.end(0, DeliveryState::Deferred);
        }
        let mut told = edge.told();
        told.sort_unstable_by_key(|(_, revision, _)| *revision);
        assert_eq!(told[1], (0, 2, ReviseResult::Withdrawn), "{under_way}");
        assert_eq!((edge.begin(), edge.bodies()), (None, 0), "{under_way}");
    }
}

#[test]
fn a_copy_that_was_deleted_is_offered_again_and_one_of_an_ended_window_is_not() {
    let edge = Edge::new();
    edge.copy();
    let delete = |txn: &mut Txn<'_>| txn.delete(COPIES, &copy_key(&WINDOW, MessageId(MESSAGE), 0));
    edge.store.commit_blocking(delete).expect("commits");
    edge.revise_copy(1, ReviseMode::Replace);
    assert_eq!(edge.told(), [(5, 1, ReviseResult::Revised)]);
    assert_eq!(edge.offered(), [(1, "new copy 1".into())]);
    edge.apply([7; 16], &ToEdge::WindowEnd { window: WINDOW }, None).expect("ends");
    edge.revise_copy(2, ReviseMode::Replace);
    assert_eq!(edge.told()[1..], [(5, 2, ReviseResult::TooLate)]);
    assert_eq!(edge.offered(), []);
}

#[test]
fn a_revision_that_waits_for_its_copy_is_decided_when_the_copy_will_not_come() {
    let ends: [(&str, ToEdge); 2] = [
        ("the window has ended", ToEdge::WindowEnd { window: WINDOW }),
        ("gone at home", ToEdge::CopyGone { window: WINDOW, message: MESSAGE }),
    ];
    for (why, unit) in ends {
        let edge = Edge::new();
        edge.revise_copy(1, ReviseMode::Withdraw);
        assert_eq!(edge.told(), [], "it waits");
        edge.apply([7; 16], &unit, None).expect("is applied");
        assert_eq!(edge.told(), [(5, 1, ReviseResult::TooLate)], "{why}");
        assert_eq!(edge.bodies(), 0, "{why}");
    }
}

#[test]
fn a_revision_that_big_files_after_a_restore_takes_the_place_of_the_copy() {
    for sent in [false, true] {
        for during in [true, false] {
            let edge = Edge::new();
            edge.copy();
            assert!(edge.busy.lock_maildrop(WINDOW));
            if during {
                edge.copy_of(1, "new copy 1");
                assert_eq!(edge.offered(), [(0, "old copy".into())], "a session keeps what it saw");
            }
            edge.session_ends(sent);
            if !during {
                edge.copy_of(1, "new copy 1");
            }
            assert_eq!(edge.offered(), [(1, "new copy 1".into())], "{sent} {during}");
            // Whose result was lost with the edge is told again; what overtakes what it revises stands.
            edge.tell_of_copy(1, ReviseMode::Replace, (true, false));
            let result = if sent { ReviseResult::Revised } else { ReviseResult::Replaced };
            assert_eq!(edge.told(), [(5, 1, result)], "{sent} {during}");
            edge.copy();
            assert_eq!(edge.offered(), [(1, "new copy 1".into())], "{sent} {during}");
        }
    }
}

#[test]
fn a_withdrawal_that_is_told_again_waits_for_no_copy() {
    for (retrieved, result, offered) in [
        (false, ReviseResult::Withdrawn, vec![]),
        (true, ReviseResult::Revised, vec![(1, "new copy 1".to_owned())]),
    ] {
        let edge = Edge::new();
        edge.tell_of_copy(1, ReviseMode::Withdraw, (false, retrieved));
        assert_eq!(edge.told(), [(5, 1, result)]);
        assert_eq!(edge.offered(), offered);
    }
}

#[test]
fn a_revision_of_a_copy_that_will_not_come_is_offered_at_once() {
    // A client had deleted the copy, which an edge that went back does not know.
    let edge = Edge::new();
    edge.tell_of_copy(1, ReviseMode::Replace, (false, true));
    assert_eq!(edge.told(), [(5, 1, ReviseResult::Revised)]);
    assert_eq!(edge.offered(), [(1, "new copy 1".to_owned())]);
    // The next one takes its place unseen.
    edge.tell_of_copy(2, ReviseMode::Replace, (true, false));
    assert_eq!(edge.told()[1..], [(5, 2, ReviseResult::Revised)]);
    assert_eq!(edge.offered(), [(2, "new copy 2".to_owned())]);
}

#[test]
fn a_revision_that_waits_for_its_message_has_brought_nothing_yet() {
    let edge = Edge::new();
    edge.revise(1, ReviseMode::Replace, &[0]);
    edge.wait(9, &[(0, 1)]);
    let rows = edge.store.read().expect("reads");
    assert_eq!(lane::units(&rows, EVENT_LANE, 1, 10).expect("reads"), [], "nothing is given up");
    edge.offer_revised(0);
    assert_eq!(edge.waiting(), [(0, "new 1".into())]);
    assert_eq!(edge.told(), [(0, 1, ReviseResult::Replaced)]);
}

#[test]
fn after_a_restore_only_what_was_put_in_its_place_leaves() {
    let edge = Edge::new();
    edge.outbound(2);
    let edge = edge.goes_back();
    // Since the backup, recipient 1 was sent another text.
    edge.wait(9, &[(0, 0), (1, 1)]);
    assert_eq!(edge.leaves(), [(0, "old".into())]);
    edge.offer_revised(1);
    assert_eq!(edge.leaves(), [(0, "old".into()), (1, "new 1".into())]);
}

#[test]
fn a_list_of_who_waited_before_the_edge_went_back_releases_nothing() {
    let edge = Edge::new();
    edge.outbound(1);
    let restored = edge.store.commit_blocking(|txn| {
        crate::maintenance::hold_back(txn, &Busy::default(), NOW)?;
        lane::restored(txn, NOW)
    });
    let now = restored.expect("commits").generation;
    for (unit, generation) in [(9, now - 1), (10, now)] {
        let messages = vec![(MESSAGE, vec![(0, 0)])];
        let list = Unsettled { from: [0; 16], to: [0xff; 16], messages, generation };
        edge.apply([unit; 16], &ToEdge::Unsettled(list), None).expect("is told");
        assert_eq!(edge.begin().is_some(), generation == now);
    }
}

/// Big lost its store; then the edge goes back to a backup from after that, or is told to adopt big once more.
#[test]
fn what_a_former_big_has_sent_is_not_let_go_by_the_list_of_the_one_in_its_place() {
    let edge = Edge::new();
    edge.outbound(2);
    let edge = edge.goes_back();
    // Recipient 1 was to get another text, which is lost with that big.
    edge.wait(9, &[(0, 0), (1, 1)]);
    edge.store.commit_blocking(|txn| queue::former::take_over(txn, NOW)).expect("commits");
    let edge = edge.goes_back();
    assert!(edge.begin().is_none(), "nobody knows yet that big has not gone back, too");
    edge.wait(10, &[]);
    assert_eq!(edge.leaves(), [(0, "old".into())], "the old text does not leave where it was replaced");
    let waiting = edge.waiting();
    assert_eq!(waiting.len(), 2, "the operator decides about who was to get another one: {waiting:?}");
}

#[test]
fn what_was_revised_since_the_backup_waits_until_big_says_what_leaves() {
    let edge = Edge::new();
    edge.outbound(1);
    let edge = edge.goes_back();
    edge.wait(9, &[(0, 1)]);
    assert!(edge.begin().is_none(), "the old text does not leave");
    // Before the new one came, big went back to a time when nothing was revised.
    edge.wait(10, &[(0, 0)]);
    assert_eq!(edge.begin(), Some((0, "old".into())));
    assert_eq!(edge.told(), [], "and nobody is told that it is lost");
}

#[test]
fn what_was_noted_of_one_whom_big_has_settled_meanwhile_is_too_late() {
    let edge = Edge::new();
    edge.outbound(1);
    // An operator had it attempted before big has said who waits.
    edge.change(|recipient| recipient.doubt_it(Doubt::Retried));
    assert!(edge.begin().is_some());
    edge.revise(1, ReviseMode::Replace, &[0]);
    assert_eq!(edge.told(), [], "it is under way");
    edge.wait(9, &[]);
    assert_eq!(edge.told(), [(0, 1, ReviseResult::TooLate)]);
    assert_eq!(edge.waiting(), []);
}

#[test]
fn what_a_revision_has_brought_is_not_queued_again_when_it_is_offered() {
    let edge = Edge::new();
    edge.outbound(1);
    edge.revise(1, ReviseMode::Replace, &[0]);
    assert!(edge.begin().is_some());
    edge.end(1, DeliveryState::Relayed);
    edge.offer_revised(0);
    assert_eq!((edge.waiting(), edge.bodies()), (Vec::new(), 0));
}

#[test]
fn another_text_of_what_has_left_is_too_late_also_where_a_big_that_went_back_offers_it() {
    let edge = Edge::new();
    edge.outbound(2);
    assert!(edge.begin().is_some());
    edge.end(0, DeliveryState::Relayed);
    edge.offer_revised(0);
    assert_eq!((edge.waiting(), edge.bodies()), (Vec::new(), 0));
    assert_eq!(edge.told(), [(0, 1, ReviseResult::TooLate)]);
    edge.revise_after(2, ReviseMode::Withdraw, &[(0, 1)]);
    assert_eq!(edge.told()[1..], [(0, 2, ReviseResult::TooLate)], "it waits for no text in between");
    // What became of it is told again, also if that is for another text than big waits for.
    edge.wait(9, &[(1, 1)]);
    assert_eq!(edge.told_outcomes(), [(1, DeliveryState::Failed)], "of what it has forgotten");
}

#[test]
fn whom_it_has_given_up_by_a_redirect_it_says_to_a_big_that_waits_for_them() {
    let edge = Edge::new();
    edge.outbound(1);
    let redirect = redirect_after(None, 1).expect("a number");
    edge.revise(redirect, ReviseMode::Withdraw, &[0]);
    edge.wait(9, &[(0, 0)]);
    assert_eq!(edge.told(), [(0, redirect, ReviseResult::Withdrawn); 2]);
    assert_eq!(edge.told_outcomes(), []);
}

/// It went back, and big, which had told it who waits, went back after that and asks again.
#[test]
fn whoever_has_the_new_address_of_a_redirect_has_given_up_the_old_one() {
    for knows_new in [true, false] {
        let edge = Edge::new();
        edge.outbound(1);
        let edge = edge.goes_back();
        let redirect = redirect_after(None, 1).expect("a number");
        if knows_new {
            edge.offer(0, redirect..redirect + 1, "old");
        }
        edge.wait(9, &[(redirect, 0)]);
        assert!(edge.waiting().iter().all(|(recipient, _)| *recipient != 0), "it waits for nobody there");
        edge.revise(redirect, ReviseMode::Withdraw, &[0]);
        let told: Vec<_> = edge.told().into_iter().filter(|(_, revision, _)| *revision == redirect).collect();
        let result = if knows_new { ReviseResult::Withdrawn } else { ReviseResult::TooLate };
        assert_eq!(told, [(0, redirect, result)], "{knows_new}");
    }
}

#[test]
fn another_text_is_no_younger_and_as_held_as_the_one_before() {
    let edge = Edge::new();
    edge.outbound(2);
    let held = edge.store.commit_blocking(|txn| {
        let mut waiting = Waiting::load(txn, MessageId(MESSAGE))?;
        waiting
            .recipients()
            .filter(|recipient| recipient.index == 0)
            .for_each(|recipient| recipient.held = true);
        waiting.store(txn)?;
        age::live_on(txn, Duration::from_millis(5000), NOW)
    });
    held.expect("commits");
    edge.offer_revised(0);
    let rows = edge.store.read().and_then(|rows| Waiting::load(&rows, MessageId(MESSAGE))).expect("reads");
    let is_held = |row: &QueueRow| row.recipients.iter().map(|recipient| recipient.held).collect::<Vec<_>>();
    let seen: Vec<_> = rows.rows().iter().map(|row| (row.revision, row.since, is_held(row))).collect();
    assert_eq!(seen, [(0, 0, vec![false]), (1, 0, vec![true])]);
}

/// An edge that went back has the original, and is to get revision 1 again, which goes by a slower lane than revision 2.
#[test]
fn a_text_that_was_withdrawn_meanwhile_does_not_come_behind_its_withdrawal() {
    for (mode, result, left) in [
        (ReviseMode::Withdraw, ReviseResult::Withdrawn, None),
        (ReviseMode::Replace, ReviseResult::Replaced, Some((2, "new 2".to_owned()))),
    ] {
        let edge = Edge::new();
        edge.outbound(1);
        edge.revise(2, mode, &[0]);
        edge.offer_revised(0);
        assert_eq!(edge.told(), [(0, 2, result)]);
        assert_eq!(edge.begin(), left);
        if left.is_some() {
            edge.end(2, DeliveryState::Relayed);
        }
        edge.offer_revised(0);
        assert_eq!((edge.waiting(), edge.bodies()), (Vec::new(), 0), "{mode:?}");
    }
    let edge = Edge::new();
    edge.outbound(1);
    edge.revise(2, ReviseMode::Withdraw, &[0]);
    let decisions = || edge.store.read().and_then(|rows| latest::count(&rows)).expect("reads");
    for (before, left) in [(0, 1), (1, 0)] {
        edge.store.commit_blocking(move |txn| latest::forget(txn, &[], 10, before)).expect("commits");
        assert_eq!(decisions(), left);
    }
}

#[test]
fn a_revision_without_a_text_is_refused_and_one_without_a_message_given_up() {
    let edge = Edge::new();
    let head = ToEdge::Revise(Revise {
        message: MESSAGE,
        revision: 1,
        mode: ReviseMode::Replace,
        recipients: vec![(0, 0)],
        wrapped_key: Vec::new(),
        size: 3,
        body_8bit: false,
        utf8_header: false,
        signatures: String::new(),
    });
    assert!(edge.apply([5; 16], &head, None).is_err());
    edge.revise(1, ReviseMode::Replace, &[0]);
    let live_and_forget = |millis, clock| {
        let lived = move |txn: &mut Txn<'_>| {
            age::live_on(txn, Duration::from_millis(millis), clock)?;
            forget_early(txn, clock)
        };
        edge.store.commit_blocking(lived).expect("commits");
    };
    live_and_forget(EARLY_MILLIS, NOW + 100 * EARLY_MILLIS);
    assert_eq!(edge.told(), [], "whatever the clock says");
    live_and_forget(1, NOW);
    assert_eq!((edge.told(), edge.bodies()), (vec![(0, 1, ReviseResult::TooLate)], 0));
}

#[test]
fn a_revision_that_an_attempt_had_left_noted_is_decided_when_the_edge_goes_back() {
    // Big was told before the edge went back that it is decided, or was not.
    for least in [1, 0] {
        let edge = Edge::new();
        edge.outbound(1);
        assert!(edge.begin().is_some());
        edge.revise(1, ReviseMode::Replace, &[0]);
        let edge = edge.goes_back();
        assert_eq!(edge.told(), [(0, 1, ReviseResult::Replaced)]);
        assert_eq!(edge.begin(), None, "nothing leaves before big has said who waits");
        edge.wait(9, &[(0, least)]);
        edge.offer_revised(0);
        assert_eq!(edge.begin(), Some((1, "new 1".into())), "{least}");
        edge.end(1, DeliveryState::Relayed);
        assert_eq!(edge.bodies(), 0);
    }
    let edge = Edge::new();
    edge.outbound(1);
    assert!(edge.begin().is_some());
    edge.revise(1, ReviseMode::Withdraw, &[0]);
    let edge = edge.goes_back();
    edge.wait(9, &[(0, 0)]);
    assert_eq!((edge.begin(), edge.bodies()), (None, 0));
    assert_eq!(edge.told()[0], (0, 1, ReviseResult::Withdrawn));
}

#[test]
fn a_revision_is_brought_to_each_recipient_by_itself() {
    let edge = Edge::new();
    edge.outbound(3);
    let edge = edge.goes_back();
    // Before it went back it had decided revision 1 for the first two.
    edge.wait(9, &[(0, 1), (1, 1), (2, 0)]);
    edge.revise(1, ReviseMode::Replace, &[2]);
    assert_eq!(edge.leaves(), [(2, "new 1".into())]);
    edge.offer(1, 0..2, "new 1");
    assert_eq!(edge.leaves(), [(2, "new 1".into()), (0, "new 1".into()), (1, "new 1".into())]);
    // And again in other parts, while it waits and when it has left.
    edge.offer(1, 0..3, "new 1");
    assert_eq!(edge.leaves().len(), 3);
    edge.begin();
    edge.end(1, DeliveryState::Relayed);
    edge.offer(1, 1..3, "new 1");
    assert_eq!((edge.waiting(), edge.bodies()), (Vec::new(), 0));
    // A big that went back asks again, in parts, and is told the same.
    edge.revise(1, ReviseMode::Replace, &[0, 2]);
    assert_eq!(edge.told(), [2, 0, 2].map(|to| (to, 1, ReviseResult::Replaced)));
    assert_eq!(edge.bodies(), 0);
}

/// To an edge that went back to before a message, it comes in parts: for recipient 1 as revision 1, which goes by a
/// slower lane than what takes its place.
#[test]
fn a_revision_waits_for_each_recipient_s_own_text() {
    use ReviseMode::{Replace, Withdraw};
    for (mode, result) in [(Replace, ReviseResult::Replaced), (Withdraw, ReviseResult::Withdrawn)] {
        for before in [true, false] {
            let edge = Edge::new();
            if before {
                edge.revise_after(2, mode, &[(0, 0)]);
                edge.revise_after(2, mode, &[(0, 0), (1, 1)]);
            }
            edge.offer(0, 0..1, "old");
            if !before {
                edge.revise_after(2, mode, &[(0, 0), (1, 1)]);
            }
            assert_eq!(edge.told(), [(0, 2, result)], "{mode:?} {before}");
            edge.offer_revised(1);
            assert_eq!(edge.told()[1..], [(1, 2, result)], "{mode:?} {before}");
            let left = [(0, "new 2".to_owned()), (1, "new 2".to_owned())];
            let left = if mode == Withdraw { &[][..] } else { &left };
            assert_eq!(edge.leaves(), left, "{mode:?} {before}");
            if edge.begin().is_some() {
                edge.end(2, DeliveryState::Relayed);
            }
            assert_eq!(edge.bodies(), 0, "{mode:?} {before}");
        }
    }
}

#[test]
fn what_waits_for_a_new_text_goes_on_with_that_or_a_later_one() {
    let edge = Edge::new();
    edge.outbound(1);
    let edge = edge.goes_back();
    edge.wait(9, &[(0, 2)]);
    edge.revise_after(1, ReviseMode::Replace, &[(0, 2)]);
    assert_eq!(edge.leaves(), [], "revision 2 has taken the place of this one");
    edge.revise_after(3, ReviseMode::Replace, &[(0, 2)]);
    assert_eq!(edge.leaves(), [(0, "new 3".into())]);
    edge.offer(2, 0..1, "new 2");
    assert_eq!(edge.leaves(), [(0, "new 3".into())]);
}

#[test]
fn what_an_operator_had_attempted_is_still_settled_by_what_big_says() {
    for (waiting, left) in [(&[][..], None), (&[(0, 1)], None), (&[(0, 0)], Some((0, "old".to_owned())))] {
        let edge = Edge::new();
        edge.outbound(1);
        let edge = edge.goes_back();
        edge.retried();
        assert!(edge.begin().is_some());
        edge.end(0, DeliveryState::Deferred);
        edge.wait(9, waiting);
        assert_eq!(edge.begin(), left, "{waiting:?}");
    }
}

/// An edge that went back attempts, for its operator, what big says was revised, and goes down meanwhile.
#[test]
fn what_was_noted_when_the_edge_goes_down_is_decided_whatever_waits_for_big() {
    for withdrawn in [false, true] {
        let edge = Edge::new();
        edge.outbound(1);
        let edge = edge.goes_back();
        edge.retried();
        assert_eq!(edge.begin(), Some((0, "old".into())));
        edge.wait(9, &[(0, 1)]);
        if withdrawn {
            edge.revise_after(2, ReviseMode::Withdraw, &[(0, 1)]);
        } else {
            edge.offer_revised(0);
        }
        let edge = Edge { busy: Arc::default(), ..edge };
        edge.offer_revised(0);
        assert_eq!(edge.leaves().len(), usize::from(!withdrawn), "it is due again, if it is anybody's");
        let left = (!withdrawn).then(|| (1, "new 1".to_owned()));
        assert_eq!(edge.begin(), left, "{withdrawn}");
        if withdrawn {
            assert_eq!((edge.told().last(), edge.bodies()), (Some(&(0, 2, ReviseResult::Withdrawn)), 0));
        }
    }
}

#[test]
fn a_text_that_comes_again_while_the_older_is_attempted_leaves_the_notes_alone() {
    let edge = Edge::new();
    edge.outbound(1);
    let edge = edge.goes_back();
    edge.retried();
    assert_eq!(edge.begin(), Some((0, "old".into())));
    edge.revise_after(2, ReviseMode::Withdraw, &[(0, 1)]);
    edge.offer_revised(0);
    assert_eq!(edge.told(), []);
    edge.end(0, DeliveryState::Deferred);
    assert_eq!(edge.told().last(), Some(&(0, 2, ReviseResult::Withdrawn)));
    assert_eq!((edge.begin(), edge.bodies()), (None, 0));
}

#[test]
fn a_revision_of_a_copy_counts_toward_the_quota_and_waits_for_room() {
    let edge = Edge::new();
    let (key, public) = PrivateKey::generate();
    let (_, credential) = Credential::generate(&key, [9; 16]);
    let window = Window { quota: Some(10), ..Window::new(WINDOW, [2; 16], public.0, credential) };
    let (opened, other) = (window.clone(), [4; 16]);
    edge.store.commit_blocking(move |txn| windows::open(txn, &opened)).expect("commits");
    let left = |room| {
        let rows = edge.store.read().expect("reads");
        [room, room + 1].map(|size| windows::has_room(&rows, &window, size).expect("reads"))
    };
    let settle = || edge.store.commit_blocking(|txn| settle_copies(txn, &WINDOW, NOW)).expect("commits");
    edge.copy();
    let copy = WindowCopy {
        window: WINDOW,
        message: other,
        revision: 0,
        wrapped_key: vec![7; 80],
        size: 5,
        retrieved: false,
    };
    edge.apply(carrier_id(&other, 0, &WINDOW), &ToEdge::Copy(copy), Some("another")).expect("is filed");
    assert_eq!(left(2), [true, false]);

    edge.tell_of_copy_of(5, 1, ReviseMode::Replace, (true, false));
    assert_eq!(edge.told(), [(5, 1, ReviseResult::Replaced)]);
    assert_eq!(left(0), [true, false], "it is as large as it was made");

    edge.tell_of_copy_of(6, 2, ReviseMode::Replace, (true, false));
    settle();
    assert_eq!((edge.told().len(), left(0)), (1, [true, false]), "it is not decided");
    let first = |offered: Vec<(u32, String)>| offered.into_iter().next().map(|(revision, _)| revision);
    assert_eq!(first(edge.offered()), Some(1), "and what it had is offered");
    let busy = Arc::clone(&edge.busy);
    let gone = move |txn: &mut Txn<'_>| windows::gone(txn, &busy, &WINDOW, MessageId(other), NOW);
    edge.store.commit_blocking(gone).expect("commits");
    settle();
    assert_eq!(edge.told()[1..], [(5, 2, ReviseResult::Replaced)], "now there is room");
    assert_eq!((first(edge.offered()), left(4)), (Some(2), [true, false]));

    edge.tell_of_copy_of(11, 3, ReviseMode::Replace, (true, false));
    settle();
    assert_eq!((edge.told().len(), first(edge.offered())), (2, Some(2)), "it can never be");
    // Big tells it again, as a copy and for its report, before and after this; the window ends while somebody reads.
    let copy = WindowCopy {
        window: WINDOW,
        message: MESSAGE,
        revision: 3,
        wrapped_key: vec![7; 80],
        size: 11,
        retrieved: false,
    };
    edge.apply(carrier_id(&MESSAGE, 3, &WINDOW), &ToEdge::Copy(copy), Some("again")).expect("is taken");
    assert!(edge.busy.lock_maildrop(WINDOW));
    let busy = Arc::clone(&edge.busy);
    edge.store.commit_blocking(move |txn| end_window(txn, &busy, &WINDOW, None, NOW)).expect("commits");
    assert_eq!(edge.told()[2..], [(5, 3, ReviseResult::TooLate)]);
    assert_eq!(edge.bodies(), 0, "and nothing is kept of it");
}
