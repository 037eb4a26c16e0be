//! The rows of big's index, and the tables that hold them.
//!
//! Keys that rise with time (message ids) keep a table's new rows together. A person's mailbox is a
//! range of one table: person, folder, message.

mod travel;

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::MessageId;
use shared::notify::Notify;
use shared::origin::Origin;
use shared::row;
use shared::store::Table;
use shared::unit::{DeliveryState, Id, ReviseMode, ReviseResult};

pub use crate::directory::entry::{
    Gateway, Group, Holder, Kind, Listed, Member, Nickname, Person, PolicyRow, Pop3, Record, Shadow, TakenBy,
    Takes, Transport,
};
pub use travel::*;

/// Person id to [`Person`].
pub const PERSONS: Table = Table("persons");
/// Shadow id to [`Shadow`].
pub const SHADOWS: Table = Table("shadows");
/// Group id to [`Group`].
pub const GROUPS: Table = Table("groups");
/// Person id, canonical name to that person's [`Nickname`].
pub const NICKNAMES: Table = Table("nicknames");
/// Name to [`Gateway`].
pub const GATEWAYS: Table = Table("gateways");
/// Domain to the gateway that takes it: [`TakenBy`].
pub const GATEWAY_DOMAINS: Table = Table("gateway-domains");
/// Canonical address to [`Listed`]: the addresses in the site's domains that gateways with lists take.
pub const LISTED: Table = Table("listed");
/// What the topology says of addresses, as the edge was told: [`PolicyRow`] under `site`.
pub const POLICY: Table = Table("policy");
/// Local name to [`Holder`].
pub const NAMES: Table = Table("names");
/// Canonical address to [`Holder`].
pub const ADDRESSES: Table = Table("addresses");
/// Number of a Unix account, big-endian, to the [`Named`] person whose it is.
pub const ACCOUNTS: Table = Table("accounts");
/// Message id to [`Message`].
pub const MESSAGES: Table = Table("messages");
/// Person, folder, message id to [`Entry`].
pub const MAILBOXES: Table = Table("mailboxes");
/// Person, number to [`OwnFolder`].
pub const FOLDERS: Table = Table("folders");
/// Hash of a Message-ID to the [`Named`] message.
pub const MESSAGE_IDS: Table = Table("message-ids");
/// First message of a conversation, message id to the [`Named`] message: those that answer it, or an answer to it.
pub const THREADS: Table = Table("threads");
/// Person, hash of the subject without its prefixes, message id to [`SentSubject`]: what the person has sent lately.
pub const SENT_SUBJECTS: Table = Table("sent-subjects");
/// Message id, hash of a further Message-ID to [`FurtherId`]: by which it became known after it had left.
pub const FURTHER_IDS: Table = Table("further-message-ids");
/// Message id to [`DraftRow`].
pub const DRAFTS: Table = Table("drafts");
/// Message id, recipient index to [`Recipient`].
pub const RECIPIENTS: Table = Table("recipients");
/// Message id, recipient index to the [`Named`] message, as long as that recipient's state is not final and
/// it is the edge that sees to it.
pub const UNSETTLED: Table = Table("unsettled-recipients");
/// Message id, revision to [`Signatures`]: what leaves before the text, as long as somebody outside is still to get it
/// by the edge.
pub const SIGNATURES: Table = Table("signatures");
/// Message id, revision to [`Revision`]: what authors have made of their messages later.
pub const REVISIONS: Table = Table("revisions");
/// Message id, recipient index, revision to [`RevisedRow`].
pub const REVISED: Table = Table("revised-recipients");
/// Message id, recipient index to [`Redirect`]: what is to go to another address, once the edge has given that recipient
/// up.
pub const REDIRECTS: Table = Table("redirects");
/// Message id, revision to the [`Named`] message of which a revision was too late for somebody outside, who has
/// to be sent a notice.
pub const NOTICES: Table = Table("notices");
/// Message id to [`ControlRow`]: what travellers have asked for by mail.
pub const CONTROLS: Table = Table("control-mail");
/// Message id, revision, gateway's name to [`Handover`]: what inside gateways have still to get.
pub const HANDOVERS: Table = Table("handovers");
/// Gateway's name, 0, time of the next attempt, message id, revision to the [`Named`] message: the schedule of
/// [`HANDOVERS`].
pub const HANDOVERS_DUE: Table = Table("handovers-due");
/// Message id to the [`Named`] message whose sender has to be told what became of a recipient.
pub const REPORTS: Table = Table("reports");
/// Message id to the [`Named`] message whose body is held for a [`StandIn`]: as long as an edge may say that it could not go
/// on, and until that is told.
pub const HELD_FOR_REPORT: Table = Table("held-for-report");
/// Person id to [`ToldInstead`].
pub const TOLD_INSTEAD: Table = Table("told-instead");
/// Message id, number to [`Expansion`]: groups of whose expansion the sender is still to be told.
pub const EXPANSIONS: Table = Table("expansions");
/// Message id, recipient index to the [`Named`] report that may have been made before a restore, too: the edge is still to
/// be asked whether anybody waits for it.
pub const MADE_AGAIN: Table = Table("reports-made-again");
/// How long big had lived when it was queued, in milliseconds, message id to the [`Named`] message whose author is still
/// to be told if somebody waits for it too long.
pub const DELAYS: Table = Table("delay-notices");
/// What the edge said at pairing: [`EdgeRow`] under `edge`.
pub const EDGE: Table = Table("edge");
/// Whether the edge was another big's before: one row, [`Succeeds`].
pub const FORMER_BIG: Table = Table("former-big");
/// What the edge is being told anew, until it has confirmed that: [`Retelling`] under `edge`.
pub const RETELLING: Table = Table("retelling");
/// The units of the edge's that were refused lately: one row, [`Refusals`].
pub const REFUSALS: Table = Table("refusals");
/// How often the edge has said that it was restored: one row, [`Rises`].
pub const RISES: Table = Table("rises");

/// The edge has told another big before this one, whose store is lost: it may speak of what is not recorded here.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Succeeds;
row!(Succeeds, 1);

/// Something that stands for a message or a window.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named(pub Id);
row!(Named, 1);

/// How far the edge is to confirm before it has been told everything anew.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retelling {
    /// The last number of each lane that may belong to it.
    pub ends: [u64; 4],
    /// The edge has gone back again meanwhile, so it is told everything once more after that.
    pub owed: bool,
}
row!(Retelling, 1);

/// One attachment in a message's break-apart map.
#[derive(
    Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
pub struct Part {
    /// From 1; part 0 is the whole message.
    pub number: u32,
    /// Which MIME part it is, in the order of [`shared::mime::scan`].
    pub index: u32,
    /// The file name as the sender gave it; data, never a path.
    pub name: Option<String>,
    /// Media type.
    pub content_type: String,
    /// Decoded length in bytes.
    pub size: u64,
}

/// The DKIM signatures of a revision of a message, as header fields.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Signatures(pub String);
row!(Signatures, 1);

/// A message on big.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Message {
    /// How it came; immutable.
    pub origin: Origin,
    /// 0 for the original.
    pub revision: u32,
    /// The first message of its conversation.
    pub thread: Id,
    /// The message that this one answers.
    pub parent: Option<Id>,
    /// Its break-apart map: the attachments, in order.
    pub parts: Vec<Part>,
    /// Why the map is missing although there may be attachments.
    pub unparsed: Option<String>,
}
row!(Message, 2);

/// A folder of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Folder {
    /// Received.
    In,
    /// Sent.
    Sent,
    /// Being written.
    Drafts,
    /// Kept.
    Saved,
    /// One of the person's own: its number, from [`OWN_FIRST`] on.
    Own(u8),
    /// For the postmaster: accepted mail whose recipient has vanished, or that could not go on to them.
    Undeliverable,
    /// Received, but not from whom it says it is, where the site sets such mail aside.
    Junk,
    /// Deleted by the person, or on the road; emptied after 30 days.
    Trash,
}

/// The number of a person's first own folder; the last is 255, so there are [`OWN_FOLDERS_MAX`].
pub const OWN_FIRST: u8 = 56;
/// Folders of one person's own.
pub const OWN_FOLDERS_MAX: usize = 200;

impl Folder {
    /// The folders that everybody has, with their names.
    pub const FIXED: [(Self, &'static str); 7] = [
        (Self::In, "in"),
        (Self::Sent, "sent"),
        (Self::Drafts, "drafts"),
        (Self::Saved, "saved"),
        (Self::Undeliverable, "undeliverable"),
        (Self::Junk, "junk"),
        (Self::Trash, "trash"),
    ];

    /// The folder's byte in the keys of [`MAILBOXES`].
    pub fn byte(self) -> u8 {
        match self {
            Self::In => 1,
            Self::Sent => 2,
            Self::Trash => 3,
            Self::Undeliverable => 4,
            Self::Drafts => 5,
            Self::Saved => 6,
            Self::Junk => 7,
            Self::Own(number) => number,
        }
    }

    /// The folder that a key of [`MAILBOXES`] names.
    pub fn of_byte(byte: u8) -> Option<Self> {
        let fixed = Self::FIXED.iter().map(|(folder, _)| *folder).find(|folder| folder.byte() == byte);
        fixed.or((byte >= OWN_FIRST).then_some(Self::Own(byte)))
    }

    /// The name of a folder that everybody has.
    pub fn fixed_name(self) -> Option<&'static str> {
        Self::FIXED.iter().find(|(folder, _)| *folder == self).map(|(_, name)| *name)
    }
}

/// A folder of a person's own.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OwnFolder {
    /// What it is called.
    pub name: String,
}
row!(OwnFolder, 1);

/// A message in a mailbox, with its marks.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct Entry {
    /// Filed here, milliseconds since 1970.
    pub filed_at: u64,
    /// Read.
    pub read: bool,
    /// Answered.
    pub answered: bool,
    /// Forwarded.
    pub forwarded: bool,
    /// Submitted by a traveller after the window's end.
    pub late: bool,
    /// The revision that is shown, whose body this entry holds.
    pub revision: u32,
    /// The revisions that were read here, or fetched on the road: bit N for revision N.
    pub shown: u128,
    /// Its author has revised it.
    pub amended: bool,
    /// Its author has taken it back; what is shown is the notice of that.
    pub withdrawn: bool,
}
row!(Entry, 2);

/// What an author has made of a message later. It holds its body, and the first one that of the original, for
/// as long as the author has the message.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Revision {
    /// Rises from one to the next ([`shared::unit::revision_after`]).
    pub number: u32,
    /// Who made it.
    pub author: Id,
    /// When, milliseconds since 1970.
    pub at: u64,
    /// What it does.
    pub mode: ReviseMode,
    /// Why, as the author says.
    pub reason: Option<String>,
    /// The latest revision before it, for whomever that was.
    pub base: u32,
    /// Indexes of the recipients it is for.
    pub scope: Vec<u32>,
    /// Whether those are all there are.
    pub for_all: bool,
    /// The new message; what is not of its content is the original's.
    pub origin: Origin,
    /// Its break-apart map.
    pub parts: Vec<Part>,
    /// Why there is no map.
    pub unparsed: Option<String>,
    /// Whether it holds its body still.
    pub holds: bool,
}
row!(Revision, 2);

/// Units that were refused.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Refusals {
    /// How many, each within a day of the one before.
    pub count: u64,
    /// The last one, milliseconds since 1970.
    pub at: u64,
    /// Why that one was.
    pub reason: String,
}
row!(Refusals, 1);

/// How often the edge's generation has risen, as an allowance that fills up again.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct Rises {
    /// How long this node has to have lived, in milliseconds, for all of the allowance to be there again.
    pub paid_at: u64,
    /// When a rise used it up last.
    pub used_up: Option<UsedUp>,
}
row!(Rises, 2);

/// When the allowance was used up.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct UsedUp {
    /// Milliseconds since 1970, for a person.
    pub at: u64,
    /// How long this node had lived then, in milliseconds.
    pub lived: u64,
}

/// What a revision came to for one recipient.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct RevisedRow {
    /// What it does.
    pub mode: ReviseMode,
    /// What it came to.
    pub result: ReviseResult,
    /// Since when, milliseconds since 1970.
    pub at: u64,
    /// More about it.
    pub text: String,
    /// What it came to in the mailbox here, while a copy on the road is not decided.
    pub home: Option<ReviseResult>,
    /// It came too late, and a notice has to be sent.
    pub notice_owed: bool,
}
row!(RevisedRow, 1);

/// A redirect that the edge has not decided. It holds the body of what is to go to the new address.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// By which the edge gives the old address up; the index of the new one ([`shared::unit::redirect_after`]).
    pub number: u32,
    /// The new address.
    pub to: String,
    /// The revision that is to go there: that of the old address.
    pub revision: u32,
}
row!(Redirect, 1);

/// A message by which a traveller asks to revise another one. It holds the message's body.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct ControlRow {
    /// Whose it is.
    pub author: Id,
    /// What is asked for.
    pub mode: ReviseMode,
    /// What came of it, for the author; `None` until it is carried out.
    pub done: Option<ControlDone>,
}
row!(ControlRow, 1);

/// What came of a traveller's request.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub enum ControlDone {
    /// The message was revised.
    Revised(Id),
    /// It was not, and why.
    Refused(String),
}

/// A message that a person has sent lately, by its subject.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct SentSubject {
    /// Sent, milliseconds since 1970.
    pub at: u64,
}
row!(SentSubject, 1);

/// A Message-ID that a message became known by later, because a relay has rewritten its own. Written once.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct FurtherId {
    /// The Message-ID.
    pub message_id: String,
    /// Learned, milliseconds since 1970.
    pub at: u64,
    /// The message that named it.
    pub by: Id,
}
row!(FurtherId, 1);

/// What a draft has besides its message: recipients as they were typed, and what it is about.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DraftRow {
    /// Recipients.
    pub to: Vec<String>,
    /// More of them, shown as Cc.
    pub cc: Vec<String>,
    /// The subject as it was typed.
    pub subject: String,
    /// What it answers or sends on.
    pub about: Option<About>,
}
row!(DraftRow, 1);

/// What a message that is being written has to do with another one.
#[derive(
    Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// It answers it. Without typed recipients it goes to whom the answer goes by itself.
    Reply {
        /// Message id.
        message: String,
        /// Also to its other recipients.
        all: bool,
        /// To the mailing list that it came by.
        list: bool,
    },
    /// It sends it on.
    Forward {
        /// Message id.
        message: String,
        /// Attached whole, as a message.
        as_attachment: bool,
        /// The numbers of its attachments that do not go along.
        without: Vec<u32>,
    },
    /// It is its text, changed; without typed recipients it goes back.
    Return {
        /// Message id.
        message: String,
        /// The numbers of its attachments that do not go along.
        without: Vec<u32>,
    },
}

/// One recipient of a message sent from inside.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct Recipient {
    /// The forward-path.
    pub address: String,
    /// The address of ours that led to it, if the sender wrote that one: a group, a shadow, a forward.
    pub via: Option<String>,
    /// The address of the person whose forward led to it. Where that leads is theirs to tell.
    pub forwarder: Option<String>,
    /// The inside gateway by which it goes; `None` is by the edge, or not out at all.
    pub gateway: Option<String>,
    /// Where its copy is.
    pub state: DeliveryState,
    /// Since when, milliseconds since 1970.
    pub at: u64,
    /// The remote host that answered last.
    pub host: Option<String>,
    /// The TLS that was under, and by what the host had proved itself; `None` is in clear.
    pub tls: Option<String>,
    /// Why the smart host was asked; `None` if the domain's own hosts were.
    pub relay: Option<String>,
    /// Its reply, or our reason, word for word.
    pub text: String,
    /// Enhanced status code (RFC 3463).
    pub status: String,
    /// A remote may have it although it did not say so.
    pub in_doubt: bool,
    /// The next attempt, milliseconds since 1970.
    pub next_attempt_at: Option<u64>,
    /// The author has been told what became of it.
    pub reported: bool,
    /// The host that has taken it tells the author what they want to hear of it.
    pub host_reports: bool,
    /// Of what the author is told, if they have said so (RFC 3461).
    pub notify: Option<Notify>,
    /// The recipient that the author named, with its type (ORCPT), if that is told.
    pub original: Option<String>,
    /// The person here in whose mailbox it was filed.
    pub person: Option<Id>,
    /// The revision that leaves for it, as far as that is decided.
    pub revision: u32,
    /// Who is told in the place of its sender, for whom nobody vouches, if it cannot go on.
    pub stand_in: Option<StandIn>,
}
row!(Recipient, 8);

/// Who here is told of a failure in the place of a sender for whom nobody vouches.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// The person who forwards; the postmaster, should they be here no more.
    Forwarder(Id),
    /// The postmaster.
    Postmaster,
}

impl Recipient {
    /// Whether its author, or who stands in for them, is still to be told what became of it.
    pub fn is_report_owed(&self) -> bool {
        let wants = match self.state {
            // What a stranger wishes does not make mail vanish.
            DeliveryState::Failed => {
                self.stand_in.is_some() || self.notify.is_none_or(|notify| notify.failure)
            }
            DeliveryState::Delivered => self.notify.is_some_and(|notify| notify.success),
            DeliveryState::Relayed => self.notify.is_some_and(|notify| notify.success) && !self.host_reports,
            DeliveryState::Queued
            | DeliveryState::Relaying
            | DeliveryState::Deferred
            | DeliveryState::Withdrawn => false,
        };
        wants && !self.reported
    }

    /// What the next host is told of [`Recipient::notify`]. Where a person forwards to is theirs to tell: a host there
    /// reports no success.
    pub fn passed_on(&self) -> Option<Notify> {
        match self.forwarder {
            Some(_) => self.notify.map(Notify::without_success),
            None => self.notify,
        }
    }
}

/// How many reports a person has had lately as a [`StandIn`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToldInstead {
    /// When the first one of this hour came, milliseconds since 1970.
    pub since: u64,
    /// How many in it.
    pub count: u32,
}
row!(ToldInstead, 1);

/// A group that a message has been expanded for.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Expansion {
    /// The address that the sender wrote.
    pub address: String,
    /// ORCPT, if it was given.
    pub original: Option<String>,
    /// When, milliseconds since 1970.
    pub at: u64,
}
row!(Expansion, 1);

/// A revision for a recipient that came while an attempt was under way.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The recipient's index.
    pub recipient: u32,
    /// Which revision.
    pub revision: u32,
    /// What it does.
    pub mode: ReviseMode,
}

/// A revision of a message that an inside gateway has still to get. It holds the body.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The indexes of the recipients who wait.
    pub recipients: Vec<u32>,
    /// Later revisions for some of them, to be decided when the attempt that is under way has ended.
    pub noted: Vec<Noted>,
    /// Attempts so far.
    pub attempts: u32,
    /// Taken in, milliseconds since 1970.
    pub queued_at: u64,
    /// How long this node had lived then, in milliseconds: what its age is counted from.
    pub since: u64,
    /// The next attempt, milliseconds since 1970.
    pub next_attempt_at: u64,
    /// A rebuild found it, and it may have been handed over already: it waits for an operator.
    pub held: bool,
}
row!(Handover, 3);

/// What the edge said at pairing.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub struct EdgeRow {
    /// To which outbound bodies' keys are wrapped.
    pub sealing_key: [u8; 32],
    /// Under which addresses cross as hashes.
    pub directory_key: [u8; 32],
}
row!(EdgeRow, 1);

/// A key of two parts.
pub fn key2(first: &Id, second: &[u8]) -> Vec<u8> {
    [first.as_slice(), second].concat()
}

/// The key of a message's revision.
pub fn revision_key(id: MessageId, revision: u32) -> Vec<u8> {
    key2(&id.0, &revision.to_be_bytes())
}

/// The key of what a revision came to for a recipient.
pub fn revised_key(id: MessageId, recipient: u32, revision: u32) -> Vec<u8> {
    [id.0.as_slice(), &recipient.to_be_bytes(), &revision.to_be_bytes()].concat()
}

/// The key of a mailbox entry.
pub fn entry_key(person: &Id, folder: Folder, message: MessageId) -> Vec<u8> {
    [person.as_slice(), &[folder.byte()], &message.0].concat()
}

/// What the keys of a folder's entries begin with.
pub fn folder_prefix(person: &Id, folder: Folder) -> Vec<u8> {
    key2(person, &[folder.byte()])
}

/// The folder of a mailbox entry's key.
pub fn folder_of(key: &[u8]) -> Option<Folder> {
    Folder::of_byte(*key.get(size_of::<Id>())?)
}

/// The message of a key that ends in its id.
pub fn message_of(key: &[u8]) -> MessageId {
    MessageId(key.last_chunk().copied().unwrap_or_default())
}

/// The key under which a Message-ID is looked up.
pub fn message_id_key(message_id: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(message_id.as_bytes()).as_bytes()[..16]);
    key
}

impl Message {
    /// The body's key in the store.
    pub fn body(&self) -> shared::store::BodyKey {
        shared::store::BodyKey(self.origin.body)
    }
}
