//! The rows of one queued message: one for each revision that some recipient is still to get. Moving recipients
//! between them is all that a revision does to the queue.

use std::collections::HashSet;

use shared::id::MessageId;
use shared::store::{BodyKey, Rows, StoreError, Txn};
use shared::unit::{DeliveryState, Id, ReviseMode, ReviseResult, is_redirect};

use crate::queue::{self, former};
use crate::record::{Doubt, Noted, QUEUE, QueueRecipient, QueueRow};

/// What was decided for a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The recipient's index on big.
    pub recipient: u32,
    /// Which revision.
    pub revision: u32,
    /// What it came to.
    pub result: ReviseResult,
    /// Why, if that is not plain.
    pub text: &'static str,
}

/// The rows of a message, read together and written together.
#[derive(Debug)]
pub struct Waiting {
    message: MessageId,
    rows: Vec<QueueRow>,
    /// Revisions that lay in the queue when it was read.
    stored: Vec<u32>,
}

/// Whether a recipient has still to get the message.
pub fn waits(recipient: &QueueRecipient) -> bool {
    recipient.state.waits()
}

impl Waiting {
    /// The rows of `message`.
    pub fn load(rows: &impl Rows, message: MessageId) -> Result<Self, StoreError> {
        let rows = rows.prefix::<QueueRow>(QUEUE, &message.0, usize::MAX)?;
        let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
        let stored = rows.iter().map(|row| row.revision).collect();
        Ok(Self { message, rows, stored })
    }

    /// Whether nothing of the message is queued.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Its rows, by revision.
    pub fn rows(&self) -> &[QueueRow] {
        &self.rows
    }

    /// The same, to be changed.
    pub fn rows_mut(&mut self) -> &mut [QueueRow] {
        &mut self.rows
    }

    /// Everybody who is still to get it.
    pub fn recipients(&mut self) -> impl Iterator<Item = &mut QueueRecipient> {
        self.rows.iter_mut().flat_map(|row| &mut row.recipients).filter(|recipient| waits(recipient))
    }

    /// The row of a revision.
    pub fn row(&mut self, revision: u32) -> Option<&mut QueueRow> {
        self.rows.iter_mut().find(|row| row.revision == revision)
    }

    /// Adds the row of a revision, which holds a body; `false` if there is one.
    pub fn add(&mut self, row: QueueRow) -> bool {
        if self.row(row.revision).is_some() {
            return false;
        }
        self.rows.push(row);
        true
    }

    /// The revision that a recipient is still to get.
    pub fn revision_of(&self, recipient: u32) -> Option<u32> {
        let is_it = |waiting: &QueueRecipient| waiting.index == recipient && waits(waiting);
        self.rows.iter().find(|row| row.recipients.iter().any(is_it)).map(|row| row.revision)
    }

    /// Decides a revision for a recipient who waits, or notes it if an attempt for that one is under way.
    pub fn revise(
        &mut self,
        recipient: u32,
        revision: u32,
        mode: ReviseMode,
        is_attempted: bool,
    ) -> Option<Decided> {
        let decided = |result, text| Some(Decided { recipient, revision, result, text });
        match self.revision_of(recipient) {
            None => Some(late(recipient, revision)),
            // A later revision has overtaken this one: the old text is gone all the same.
            Some(present) if present >= revision => decided(ReviseResult::Replaced, ""),
            Some(present) if is_attempted => {
                let (row, noted) = (self.row(present)?, Noted { recipient, revision, mode });
                if !row.noted.contains(&noted) {
                    row.noted.push(noted);
                }
                None
            }
            Some(present) => {
                if is_redirect(revision)
                    && let Some(why) = self.may_have_left(recipient)
                {
                    return decided(ReviseResult::TooLate, why);
                }
                self.shift(recipient, present, (mode != ReviseMode::Withdraw).then_some(revision));
                decided(done(mode), "")
            }
        }
    }

    /// Decides what was noted while an attempt with `revision` was under way, for the recipients for whom that `is_over`.
    pub fn settle(&mut self, revision: u32, is_over: impl Fn(u32) -> bool) -> Vec<Decided> {
        let Some(row) = self.row(revision) else { return Vec::new() };
        let is_due = |noted: &Noted| is_over(noted.recipient);
        let (mut due, left): (Vec<_>, Vec<_>) = row.noted.drain(..).partition(is_due);
        row.noted = left;
        due.sort_by_key(|noted| noted.revision);
        let mut decided = Vec::new();
        for Noted { recipient, revision: noted, mode } in due {
            let state = self.state_of(recipient);
            let (result, text) = match (self.revision_of(recipient), state) {
                // A later one has come by another lane.
                (Some(present), _) if present >= noted => (ReviseResult::Replaced, ""),
                (Some(present), _) => {
                    if is_redirect(noted)
                        && let Some(text) = self.may_have_left(recipient)
                    {
                        decided.push(Decided {
                            recipient,
                            revision: noted,
                            result: ReviseResult::TooLate,
                            text,
                        });
                        continue;
                    }
                    self.shift(recipient, present, (mode != ReviseMode::Withdraw).then_some(noted));
                    (done(mode), "")
                }
                (None, Some(DeliveryState::Failed)) => (ReviseResult::TooLate, "its delivery had failed"),
                (None, _) => (ReviseResult::TooLate, "the attempt that was under way has delivered it"),
            };
            decided.push(Decided { recipient, revision: noted, result, text });
        }
        decided
    }

    /// Decides what attempts that were cut off have left noted: what is of recipients who are not `attempted`.
    pub fn settle_left(&mut self, attempted: &HashSet<u32>) -> Vec<Decided> {
        let revisions: Vec<u32> = self.rows.iter().map(|row| row.revision).collect();
        let settled = |revision: &u32| self.settle(*revision, |recipient| !attempted.contains(&recipient));
        revisions.iter().flat_map(settled).collect()
    }

    /// Why a recipient who waits may have the message all the same. An author takes it back as well as can be; to another
    /// address it does not go then, for it would have arrived twice.
    fn may_have_left(&mut self, recipient: u32) -> Option<&'static str> {
        let waiting = self.recipients().find(|other| other.index == recipient)?;
        waiting.in_doubt.then_some(match waiting.doubt {
            Some(Doubt::Rebuilt) => "a host may have it: it was found by a rebuild",
            Some(_) => "a host may have it: the edge went back to a backup",
            None => "a host may have it: what it answered is not known",
        })
    }

    /// How far the delivery to a recipient is, who may not wait any more.
    pub fn state_of(&self, recipient: u32) -> Option<DeliveryState> {
        let mut all = self.rows.iter().flat_map(|row| &row.recipients);
        all.find(|other| other.index == recipient).map(|recipient| recipient.state)
    }

    /// Moves a recipient who waits to the row of another revision, or away.
    pub fn shift(&mut self, recipient: u32, from: u32, to: Option<u32>) {
        let Some(row) = self.row(from) else { return };
        let Some(place) = row.recipients.iter().position(|other| other.index == recipient) else { return };
        let mut moved = row.recipients.remove(place);
        if to.is_some_and(|to| matches!(moved.doubt, Some(Doubt::Revised(least)) if least <= to)) {
            moved.doubt = None;
        }
        let (queued_at, since) = (row.queued_at, row.since);
        let Some(target) = to.and_then(|to| self.row(to)) else { return };
        if target.recipients.is_empty() {
            (target.queued_at, target.since) = (queued_at, since);
        }
        // Revising does not make a message younger.
        target.queued_at = target.queued_at.min(queued_at);
        target.since = target.since.min(since);
        target.recipients.push(moved);
    }

    /// Writes the rows. Those that nobody waits for, and that no note may still need, go with their bodies.
    pub fn store(self, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let attempted = self.rows.iter().filter(|row| row.recipients.iter().any(waits));
        let noted: HashSet<u32> = attempted.flat_map(|row| &row.noted).map(|noted| noted.revision).collect();
        let mut is_over = true;
        for row in self.rows {
            if row.recipients.iter().any(waits) || noted.contains(&row.revision) {
                queue::put(txn, self.message, &row)?;
                is_over = false;
            } else {
                if self.stored.contains(&row.revision) {
                    queue::remove(txn, self.message, row.revision)?;
                }
                txn.release_body(BodyKey(row.body))?;
            }
        }
        if is_over { former::forget(txn, self.message) } else { Ok(()) }
    }
}

/// What a revision comes to for one whose text has left, or was given up.
pub(crate) fn late(recipient: u32, revision: u32) -> Decided {
    Decided { recipient, revision, result: ReviseResult::TooLate, text: "it does not wait here any more" }
}

/// What a revision comes to for one who has not got the old text.
pub(super) fn done(mode: ReviseMode) -> ReviseResult {
    match mode {
        ReviseMode::Replace | ReviseMode::Append => ReviseResult::Replaced,
        ReviseMode::Withdraw => ReviseResult::Withdrawn,
    }
}

/// The message of a queue row's key.
pub fn message_of(key: &[u8]) -> MessageId {
    let id: Option<Id> = key.first_chunk().copied();
    MessageId(id.unwrap_or_default())
}
