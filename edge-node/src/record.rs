//! The rows of the edge's index, and the tables that hold them.

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::MessageId;
use shared::notify::{Notify, Return};
use shared::row;
use shared::store::{BodyKey, Rows, StoreError, Table};
use shared::tls_wish::TlsWish;
use shared::unit::{DeliveryState, Id, Outbound, ReviseMode};

/// Window id to [`shared::unit::Window`].
pub const WINDOWS: Table = Table("windows");
/// Window id to [`EndedRow`], for windows that are no more.
pub const ENDED_WINDOWS: Table = Table("ended-windows");
/// Person id to the [`Held`] window.
pub const PERSON_WINDOWS: Table = Table("person-windows");
/// Keyed login hash to the [`Held`] window.
pub const LOGINS: Table = Table("logins");
/// Window, message id, revision to [`CopyRow`].
pub const COPIES: Table = Table("copies");
/// Window id to its open session: see [`crate::revise::begin_session`].
pub const SESSIONS: Table = Table("maildrop-sessions");
/// Message id, revision to [`QueueRow`]. Written by [`crate::queue`] only.
pub const QUEUE: Table = Table("queue");
/// `big` to [`BigRow`], `invitation` to [`Invitation`], `directory` to [`crate::directory::DirectoryRow`].
pub const SETTINGS: Table = Table("settings");

/// Kind of a sealed body that came in from outside.
pub const INBOUND_KIND: u8 = 1;
/// Kind of a sealed body that big sent: for outside, or for a secondary mailbox.
pub const OUTBOUND_KIND: u8 = 2;
/// A window that a person or a login stands for.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held(pub Id);
row!(Held, 1);

/// A window that is no more: what arrives for it is dropped.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedRow {
    /// Milliseconds since 1970.
    pub at: u64,
}
row!(EndedRow, 1);

/// What the edge knows of big.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct BigRow {
    /// To which inbound bodies' keys are wrapped; `None` until big has introduced itself.
    pub sealing_key: Option<[u8; 32]>,
}
row!(BigRow, 2);

/// An open invitation.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Invitation {
    /// What the ticket proves.
    pub secret: [u8; 32],
    /// Seconds since 1970 after which it is void.
    pub expires_at: u64,
}
row!(Invitation, 1);

/// How long an invitation is open, in seconds: a day.
pub const INVITATION_SECONDS: u64 = 24 * 3600;

impl Invitation {
    /// Whether it is open at `now`, seconds since 1970. A clock that went back opens no old one again.
    pub fn is_open(&self, now: u64) -> bool {
        self.expires_at > now && self.expires_at - now <= INVITATION_SECONDS
    }
}

/// A message in a secondary mailbox.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct CopyRow {
    /// The sealed body.
    pub body: [u8; 32],
    /// Its file key, wrapped to the window.
    pub wrapped_key: Vec<u8>,
    /// Octets as POP3 serves it.
    pub size: u64,
    /// A client has retrieved it.
    pub retrieved: bool,
    /// It was sent to a client in a session that did not end well: it may have been read.
    pub seen: bool,
    /// An earlier revision was fetched: this one is offered beside it.
    pub again: bool,
    /// The unit that tells big of the message, if the edge filed it: what clients do is told after it.
    pub after: Option<Id>,
    /// The message has no 250 yet: it is not shown.
    pub hidden: bool,
}
row!(CopyRow, 4);

/// One recipient of a queued message.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct QueueRecipient {
    /// Its index on big.
    pub index: u32,
    /// The forward-path.
    pub address: String,
    /// Relaying, deferred, or done.
    pub state: DeliveryState,
    /// What was said last.
    pub text: String,
    /// Attempts so far.
    pub attempts: u32,
    /// The next attempt, milliseconds since 1970.
    pub next_attempt_at: u64,
    /// The operator has put it on hold.
    pub held: bool,
    /// It may not be to get this: nothing is attempted before that is settled, unless an operator wants it.
    pub doubt: Option<Doubt>,
    /// A host may have it: an attempt ended without the answer to its end, or an older state of this edge may have
    /// delivered it. Nothing that comes later changes that.
    pub in_doubt: bool,
    /// Of what its sender wants to be told, if they have said so.
    pub notify: Option<Notify>,
    /// The recipient that the sender named, if that is told.
    pub original: Option<String>,
}

impl QueueRecipient {
    /// It may not be to get this, for an older state of this edge may have delivered it.
    pub fn doubt_it(&mut self, why: Doubt) {
        (self.doubt, self.in_doubt) = (Some(why), true);
    }
}

/// Why a recipient may not be to get a text.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The message is from a backup that was restored: big says who has still to get it.
    Restored,
    /// The same, and an operator has it attempted all the same.
    Retried,
    /// Big has said so, and that the recipient is to get this revision at the least: it comes from there.
    Revised(u32),
    /// The message was found by a rebuild, and may have left: an operator decides.
    Rebuilt,
}

impl Doubt {
    /// Whether big settles it.
    pub fn is_of_restore(self) -> bool {
        self != Self::Rebuilt
    }
}

/// A revision for a recipient that came while an attempt was under way: decided by the attempt's outcome.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The recipient's index on big.
    pub recipient: u32,
    /// Which revision; the row of that one holds its body.
    pub revision: u32,
    /// What it does.
    pub mode: ReviseMode,
}

/// A revision of a message on its way outside, and who is to get that one.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct QueueRow {
    /// Its revision.
    pub revision: u32,
    /// The sealed body.
    pub body: [u8; 32],
    /// The body's file key, wrapped to the edge.
    pub wrapped_key: Vec<u8>,
    /// Length of the plain body.
    pub size: u64,
    /// The reverse-path; `None` is the null one.
    pub reverse_path: Option<String>,
    /// How much of it a report of failure returns, if its sender has said so.
    pub returns: Option<Return>,
    /// What the sender calls it.
    pub envelope_id: Option<String>,
    /// What the sender wishes of TLS.
    pub tls_wish: TlsWish,
    /// Whether the content holds 8-bit bytes.
    pub body_8bit: bool,
    /// Whether the header needs SMTPUTF8.
    pub utf8_header: bool,
    /// Header fields that leave before the body: big's signatures.
    pub signatures: String,
    /// Who is still to get it, and who has.
    pub recipients: Vec<QueueRecipient>,
    /// Later revisions for some of them, to be decided when the attempt that is under way has ended.
    pub noted: Vec<Noted>,
    /// Queued here, milliseconds since 1970.
    pub queued_at: u64,
    /// How long this node had lived then, in milliseconds: what its age is counted from.
    pub since: u64,
}
row!(QueueRow, 11);

impl QueueRow {
    /// What its sender's wish of TLS has hosts do before they get it. A report, which quotes a header at most, is not to be
    /// lost for that (RFC 8689 §5): nobody would hear of it.
    pub fn tls_demanded(&self) -> TlsWish {
        match &self.reverse_path {
            None if self.tls_wish == TlsWish::Required => TlsWish::Unsaid,
            _ => self.tls_wish,
        }
    }

    /// What a unit of big says of a message, held in `body`, at `now` in milliseconds since 1970 and `since` of the node's
    /// life ([`shared::age`]); for nobody yet.
    pub fn of(outbound: Outbound, body: BodyKey, now: u64, since: u64) -> Self {
        Self {
            revision: outbound.revision,
            body: body.0,
            wrapped_key: outbound.wrapped_key,
            size: outbound.size,
            reverse_path: outbound.reverse_path,
            returns: outbound.returns,
            envelope_id: outbound.envelope_id,
            tls_wish: outbound.tls_wish,
            body_8bit: outbound.body_8bit,
            utf8_header: outbound.utf8_header,
            signatures: outbound.signatures,
            recipients: Vec::new(),
            noted: Vec::new(),
            queued_at: now,
            since,
        }
    }
}

/// Takes its recipients out of such a unit, each due at `now`, milliseconds since 1970.
pub fn recipients_of(outbound: &mut Outbound, now: u64) -> impl Iterator<Item = QueueRecipient> + use<> {
    outbound.take_recipients().map(move |(index, address, notify, original)| QueueRecipient {
        index,
        address,
        state: DeliveryState::Relaying,
        text: String::new(),
        attempts: 0,
        next_attempt_at: now,
        held: false,
        doubt: None,
        in_doubt: false,
        notify,
        original,
    })
}

/// The key of a queued message's revision.
pub fn queue_key(message: &Id, revision: u32) -> Vec<u8> {
    [message.as_slice(), &revision.to_be_bytes()].concat()
}

/// The key of a copy.
pub fn copy_key(window: &Id, message: MessageId, revision: u32) -> Vec<u8> {
    [window.as_slice(), &message.0, &revision.to_be_bytes()].concat()
}

/// The message and the revision of a copy's key.
pub fn copy_of(key: &[u8]) -> (MessageId, u32) {
    let message = key.get(16..32).and_then(|id| id.try_into().ok()).unwrap_or_default();
    let revision = key.last_chunk().map_or(0, |revision| u32::from_be_bytes(*revision));
    (MessageId(message), revision)
}

/// The key of an inbound body.
pub fn inbound_body(message: MessageId) -> BodyKey {
    BodyKey::of_message(message, 0, b"inbound")
}

/// What the edge knows of big.
pub fn big(rows: &impl Rows) -> Result<BigRow, StoreError> {
    Ok(rows.get(SETTINGS, b"big")?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_open_for_a_day_whatever_the_clock_does() {
        let made = 1_800_000_000;
        let invitation = Invitation { secret: [7; 32], expires_at: made + INVITATION_SECONDS };
        let open = [made, made + INVITATION_SECONDS - 1];
        let void = [made + INVITATION_SECONDS, made + 10 * INVITATION_SECONDS, made - 1, 0, u64::MAX];
        assert!(open.into_iter().all(|now| invitation.is_open(now)));
        assert!(void.into_iter().all(|now| !invitation.is_open(now)));
    }
}
