//! What commands ask of a running big node over its control socket, and what it answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
pub use shared::operator::{DeadCommand, Done, LinkCommand};
pub use shared::report::{DeadLetterView, LaneView, LinkView, Step};
use shared::topology::AttachmentMode;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};

use crate::directory::entry::{Kind, Pop3, Takes};
pub use crate::directory::explain::{Destination, Explanation};
pub use crate::directory::{
    BadRow, GatewayChange, GroupChange, Imported, NewGateway, NewGroup, NewPerson, NewShadow, PersonChange,
    Reach, Rowed, ShadowChange,
};
pub use crate::record::About;
use crate::record::{AfterFetch, Part, Scope, WindowState};

/// A request. A body may go with one: text and attachments, or a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Takes an edge's ticket. Answered with [`Paired`].
    Pair {
        /// As `edge-node invite` printed it.
        ticket: String,
        /// In the place of the edge that is paired already.
        replace: bool,
    },
    /// Copies keys and store. Answered with [`shared::store::Copied`].
    Backup {
        /// A new folder.
        into: PathBuf,
    },
    /// Adds a person. Answered with [`PersonView`].
    PersonAdd(NewPerson),
    /// Changes a person. Answered with [`PersonView`].
    PersonSet(PersonChange),
    /// Everyone. Answered with `Vec<PersonView>`.
    PersonList,
    /// One person. Answered with [`PersonView`].
    PersonShow {
        /// Name or address.
        name: String,
    },
    /// Removes a person. Answered with [`PersonView`].
    PersonRemove {
        /// Name or address.
        name: String,
    },
    /// Shadows. Answered with `Vec<ShadowView>`: those that were asked for, added, changed or removed.
    Shadow(EntryRequest<NewShadow, ShadowChange>),
    /// Groups. Answered with `Vec<GroupView>`, as with shadows.
    Group(EntryRequest<NewGroup, GroupChange>),
    /// A person's nicknames. Answered with `Vec<NicknameView>`, as with shadows.
    Nickname {
        /// Whose.
        person: String,
        /// What about them.
        request: EntryRequest<NewNickname, NewNickname>,
    },
    /// Gateways. Answered with `Vec<GatewayView>`, as with shadows.
    Gateway(EntryRequest<NewGateway, GatewayChange>),
    /// The addresses in the site's domains that a gateway with a list takes. Answered with `Vec<String>`: those
    /// that were asked for, added or removed.
    GatewayRecipients {
        /// The gateway's name.
        gateway: String,
        /// What about them.
        request: RecipientsRequest,
    },
    /// Adds every row of the body, a CSV table, or none. Answered with [`Imported`].
    Import {
        /// What the rows are.
        of: Rowed,
        /// Only tries.
        dry_run: bool,
    },
    /// How far the import is that runs. Answered with [`Progress`].
    ImportProgress,
    /// Everything of a kind. Answered with its number; the body is a CSV table.
    Export {
        /// What.
        kind: Kind,
    },
    /// What would happen to mail for an address. Answered with [`Explanation`].
    Explain {
        /// Who would send; nobody in particular otherwise.
        person: Option<String>,
        /// What would be typed.
        address: String,
    },
    /// A folder's messages, newest first. Answered with `Vec<Line>`.
    MailList {
        /// Whose.
        person: String,
        /// Which folder, by its name.
        folder: String,
        /// At most so many messages.
        max: usize,
        /// Only those older than the message with this id, which may be gone.
        before: Option<String>,
    },
    /// A person's folders. Answered with `Vec<FolderView>`.
    MailFolders {
        /// Whose.
        person: String,
    },
    /// Adds a folder. Answered with `Vec<FolderView>`, as all there are then.
    FolderAdd {
        /// Whose.
        person: String,
        /// What it is to be called.
        name: String,
    },
    /// Renames a folder of the person's own. Answered with `Vec<FolderView>`.
    FolderRename {
        /// Whose.
        person: String,
        /// What it is called.
        name: String,
        /// What it is to be called.
        to: String,
    },
    /// Removes a folder of the person's own that is empty. Answered with `Vec<FolderView>`.
    FolderRemove {
        /// Whose.
        person: String,
        /// What it is called.
        name: String,
    },
    /// Moves a message to a folder. Answered with [`Moved`].
    MailMove {
        /// Whose.
        person: String,
        /// Message id.
        message: String,
        /// The folder's name.
        folder: String,
    },
    /// Marks a message read or unread. Answered with [`Marked`].
    MailMark {
        /// Whose.
        person: String,
        /// Message id.
        message: String,
        /// Read, or not.
        read: bool,
    },
    /// The conversation of a message, as far as it is in the person's mailbox. Answered with `Vec<Line>`,
    /// oldest first.
    MailThread {
        /// Whose.
        person: String,
        /// Message id.
        message: String,
    },
    /// Messages in which every word occurs, newest first. Answered with [`Found`].
    MailSearch {
        /// Whose.
        person: String,
        /// The words, with blanks between them.
        words: String,
        /// Only in the folder of this name.
        folder: Option<String>,
        /// At most so many.
        max: usize,
    },
    /// Waits until the person's mailbox is not as it was, for 25 s at most. Answered with [`Watched`].
    MailWatch {
        /// Whose.
        person: String,
        /// The mark of the last answer; without one, the answer comes at once.
        seen: Option<u64>,
    },
    /// Reads a message, or one part of it, and marks it read. Answered with [`Reading`] and, if `raw`
    /// or for a part other than 0, the bytes as the body.
    MailRead {
        /// Whose.
        person: String,
        /// Message id, or id.part as `mail list` prints it, or id.part.part for a part of a part.
        message: String,
        /// The whole message as it is stored, with its trace headers.
        raw: bool,
    },
    /// Sends a message whose text is the body. Answered with [`Sent`].
    MailSend {
        /// Who sends.
        person: String,
        /// Addresses or local names.
        to: Vec<String>,
        /// More recipients, shown as Cc.
        cc: Vec<String>,
        /// The subject.
        subject: String,
        /// Attachments: name and length of each; their bytes follow the text in the body, in order.
        attachments: Vec<Attached>,
        /// Length of the text in the body.
        text_bytes: usize,
    },
    /// Answers a message; no address is typed. Text and attachments are the body, as with `MailSend`.
    /// Answered with [`Sent`].
    MailReply {
        /// Who answers.
        person: String,
        /// The message that is answered.
        message: String,
        /// Also to its other recipients.
        all: bool,
        /// To the mailing list that it came by.
        #[serde(default)]
        list: bool,
        /// With the text that is answered below the answer.
        #[serde(default)]
        quote: bool,
        /// Attachments.
        attachments: Vec<Attached>,
        /// Length of the text in the body.
        text_bytes: usize,
    },
    /// Sends a message on to others, below a text and with its attachments. Answered with [`Sent`].
    MailForward {
        /// Who forwards.
        person: String,
        /// The message.
        message: String,
        /// Recipients as typed.
        to: Vec<String>,
        /// More recipients, shown as Cc.
        cc: Vec<String>,
        /// Attach it whole, as a message.
        #[serde(default)]
        as_attachment: bool,
        /// The numbers of its attachments that do not go along.
        #[serde(default)]
        without: Vec<u32>,
        /// More attachments.
        attachments: Vec<Attached>,
        /// Length of the text in the body.
        text_bytes: usize,
    },
    /// Amend and return: sends a received message with its text changed back to its sender, or on to others.
    /// The new text is the body. Answered with [`Sent`].
    MailReturn {
        /// Who has changed it.
        person: String,
        /// The message.
        message: String,
        /// Recipients as typed; none is back to its sender.
        to: Vec<String>,
        /// Another subject.
        subject: Option<String>,
        /// The numbers of its attachments that do not go along.
        drop_parts: Vec<u32>,
        /// Length of the text in the body.
        text_bytes: usize,
    },
    /// Saves a draft, in the place of an earlier one if that is named. Text and new attachments are the body,
    /// as with `MailSend`. Answered with [`DraftSaved`].
    DraftSave {
        /// Whose.
        person: String,
        /// The draft that this replaces.
        draft: Option<String>,
        /// What it says.
        content: DraftContent,
    },
    /// A draft, to go on writing it. Answered with [`DraftView`].
    DraftShow {
        /// Whose.
        person: String,
        /// Message id.
        draft: String,
    },
    /// Sends a draft, which is no draft then. Answered with [`Sent`].
    DraftSend {
        /// Who sends.
        person: String,
        /// Message id.
        draft: String,
    },
    /// Moves a message to Trash, or from Trash away. Answered with [`Deleted`].
    MailDelete {
        /// Whose.
        person: String,
        /// Message id.
        message: String,
    },
    /// Where each recipient's copy is. Answered with [`Status`].
    MailStatus {
        /// Whose.
        person: String,
        /// Message id.
        message: String,
    },
    /// Revises a message that the person has sent; its new text, or what is added, is the body. Answered with
    /// [`Status`].
    MailAmend {
        /// Who has sent it.
        person: String,
        /// Message id.
        message: String,
        /// What is done with it.
        mode: ReviseMode,
        /// For which recipients, by their addresses; none for all.
        recipients: Vec<String>,
        /// Another subject.
        subject: Option<String>,
        /// Why.
        reason: Option<String>,
        /// The revision that was read; refused if there is a later one. `None` is the latest.
        base: Option<u32>,
        /// Length of the text in the body.
        text_bytes: usize,
        /// Attachments; their bytes follow the text. None keeps those of the base; some take their place, or
        /// with `append` come to them.
        attachments: Vec<Attached>,
    },
    /// The revisions of a message, the first one first: for its author all, for a reader those that were shown.
    /// Answered with `Vec<RevisionView>`.
    MailHistory {
        /// Who reads.
        person: String,
        /// Message id.
        message: String,
    },
    /// Opens a travel window. Answered with [`Started`].
    TravelStart {
        /// Whose.
        person: String,
        /// Ends, milliseconds since 1970; `None` is standing.
        until: Option<u64>,
        /// What is filed into it.
        scope: Scope,
        /// What a deletion on the road does.
        after_fetch: AfterFetch,
    },
    /// Travel windows. Answered with `Vec<WindowView>`.
    TravelList {
        /// Also those that have ended.
        all: bool,
    },
    /// Ends a person's window. Answered with [`WindowView`].
    TravelEnd {
        /// Whose.
        person: String,
        /// Accept nothing more that was submitted through it.
        revoke: bool,
    },
    /// What waits on big. Answered with [`Queue`].
    QueueList,
    /// Tries a message again at once that waits for an inside gateway, or is held. Answered with [`Done`].
    QueueRetry {
        /// Message id.
        message: String,
    },
    /// Units that the edge refused. Answered with `Vec<DeadLetterView>` for a list, else with one
    /// [`DeadLetterView`].
    QueueDead(DeadCommand),
    /// What an operator decides about the link. Answered with [`Done`].
    Link(LinkCommand),
    /// The link. Answered with [`LinkView`].
    LinkStatus,
    /// Compares with the edge what both hold of messages. Answered with [`Compared`].
    LinkVerify,
    /// A message's way. Answered with `Vec<Step>`.
    Trace {
        /// Message id.
        message: String,
    },
}

/// What is asked about entries of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryRequest<N, C> {
    /// Add one.
    Add(N),
    /// Change one.
    Set(C),
    /// All of them.
    List,
    /// One.
    Show {
        /// Name or address.
        name: String,
    },
    /// Remove one.
    Remove {
        /// Name or address.
        name: String,
    },
}

/// A nickname, as asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewNickname {
    /// The name.
    pub name: String,
    /// Whom it means: a name or an address in the directory, or an address outside.
    pub target: String,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// All there are.
    pub total: u64,
}

/// A shadow, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowView {
    /// Local name.
    pub name: String,
    /// The address outside.
    pub target: String,
    /// For To lines.
    pub display: String,
    /// Addresses here.
    pub addresses: Vec<String>,
}

/// A group, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupView {
    /// Local name.
    pub name: String,
    /// For To lines.
    pub display: String,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Names and addresses of its members.
    pub members: Vec<String>,
}

/// What is asked of the addresses that a gateway takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientsRequest {
    /// All of them.
    List,
    /// Adds all of these, or none.
    Add {
        /// The addresses.
        addresses: Vec<String>,
    },
    /// Removes all of these, or none.
    Remove {
        /// The addresses.
        addresses: Vec<String>,
    },
}

/// A gateway, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayView {
    /// Its name.
    pub name: String,
    /// `lmtp`, `smtp` or `drop`.
    pub kind: String,
    /// Its hosts, in the order in which they are tried.
    pub hosts: Vec<String>,
    /// Its drop directory.
    pub drop: Option<String>,
    /// Its pick-up directory.
    pub pickup: Option<String>,
    /// The domains that it takes.
    pub domains: Vec<String>,
    /// Which names in the site's domains.
    pub takes: Takes,
    /// How many addresses are listed for it.
    pub listed: usize,
    /// Messages that it has still to get, up to 10,000.
    pub waiting: usize,
}

/// A nickname, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NicknameView {
    /// The nickname.
    pub name: String,
    /// Whom it means; `None` for one who was removed.
    pub target: Option<String>,
}

/// An attachment to send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// File name.
    pub name: String,
    /// Length in bytes.
    pub bytes: usize,
    /// Whether it is text in UTF-8, to be shown where it arrives.
    #[serde(default)]
    pub text: bool,
}

/// The edge took the ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paired {
    /// Where the edge is.
    pub address: String,
}

/// A person, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PersonView {
    /// Local name.
    pub name: String,
    /// For From lines.
    pub display: String,
    /// Addresses; the first is written as From.
    pub addresses: Vec<String>,
    /// Filing of attachments; `None` follows the site.
    pub filing: Option<AttachmentMode>,
    /// Unix account.
    pub uid: Option<u32>,
    /// Collecting on the road.
    pub pop3: Pop3,
    /// Addresses outside to which their mail goes on.
    pub forward: Vec<String>,
    /// Whether mail that goes on is filed here too.
    pub keep_copy: bool,
    /// Whether a travel window is open.
    pub travelling: bool,
}

/// What a draft says, besides its text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DraftContent {
    /// Recipients as typed: whom they mean is found out when it is sent.
    pub to: Vec<String>,
    /// More of them, shown as Cc.
    pub cc: Vec<String>,
    /// The subject; an empty one of an answer follows from the message that is answered.
    pub subject: String,
    /// What it answers or sends on.
    pub about: Option<About>,
    /// The numbers of the earlier draft's attachments that stay; they come before the new ones.
    pub keep: Vec<u32>,
    /// New attachments.
    pub attachments: Vec<Attached>,
    /// Length of the text in the body.
    pub text_bytes: usize,
}

/// A draft was saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DraftSaved {
    /// Message id; the same as before if it replaces one.
    pub id: String,
}

/// A draft, as it was typed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DraftView {
    /// Message id.
    pub id: String,
    /// Saved, milliseconds since 1970.
    pub at: u64,
    /// Recipients as typed.
    pub to: Vec<String>,
    /// More of them.
    pub cc: Vec<String>,
    /// The subject.
    pub subject: String,
    /// What it answers or sends on.
    pub about: Option<About>,
    /// The text.
    pub text: String,
    /// Its attachments.
    pub parts: Vec<Part>,
}

/// A folder, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderView {
    /// Its name.
    pub name: String,
    /// Whether it is one of the person's own, which can be renamed and removed.
    pub own: bool,
    /// Messages in it.
    pub messages: u64,
    /// Those of them that are not read.
    pub unread: u64,
}

/// A message was moved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moved {
    /// Message id.
    pub id: String,
    /// The folder it is in now.
    pub folder: String,
}

/// A message was marked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marked {
    /// Message id.
    pub id: String,
    /// Whether it is read.
    pub read: bool,
}

/// What a search found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The messages, newest first.
    pub lines: Vec<Line>,
    /// Messages that were looked at.
    pub looked_at: u64,
    /// Those of them whose text was not looked at: it is too large, or damaged.
    pub unread_texts: u64,
    /// Why older ones were not looked at.
    pub ended: Option<String>,
}

/// The state of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Another one for each state; it says nothing else.
    pub mark: u64,
}

/// A line of a folder's list: a message, or under a cover one of its attachments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Message id; with `.N` for part N.
    pub id: String,
    /// 0 for the message or cover.
    pub part: u32,
    /// Milliseconds since 1970.
    pub at: u64,
    /// Who wrote it.
    pub from: String,
    /// To whom, in Sent.
    pub to: Vec<String>,
    /// Subject, or an attachment's file name.
    pub subject: String,
    /// Length in bytes.
    pub size: u64,
    /// Media type of an attachment.
    pub content_type: Option<String>,
    /// Marks.
    pub read: bool,
    /// Marks.
    pub answered: bool,
    /// Marks.
    pub forwarded: bool,
    /// Submitted after the window's end.
    pub late: bool,
    /// The revision that is shown; 0 is the original.
    pub revision: u32,
    /// Its author has revised it.
    pub amended: bool,
    /// Its author has taken it back: what is shown is the notice of that.
    pub withdrawn: bool,
    /// The first message of its conversation.
    pub thread: String,
    /// The name of the folder it is in.
    pub folder: String,
    /// In a conversation, how many answers it is away from the first message; 0 otherwise.
    pub depth: u32,
}

/// A message, as read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reading {
    /// Message id.
    pub id: String,
    /// Who wrote it, `Name <address>` each.
    pub from: Vec<String>,
    /// To.
    pub to: Vec<String>,
    /// Cc.
    pub cc: Vec<String>,
    /// Subject.
    pub subject: String,
    /// Milliseconds since 1970.
    pub at: u64,
    /// Readable text.
    pub text: String,
    /// Attachments.
    pub parts: Vec<Part>,
    /// Why attachments could not be told apart.
    pub unparsed: Option<String>,
    /// Marks.
    pub answered: bool,
    /// Marks.
    pub forwarded: bool,
    /// The name of the folder it is in.
    pub folder: String,
    /// The revision that is shown; 0 is the original.
    pub revision: u32,
    /// Its author has revised it.
    pub amended: bool,
    /// Its author has taken it back: what is shown is the notice of that.
    pub withdrawn: bool,
    /// The message that it answers.
    pub parent: Option<String>,
    /// The file name of the part that was asked for.
    pub part_name: Option<String>,
    /// The media type of the part that was asked for.
    pub content_type: Option<String>,
}

/// An attachment was saved as a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// Which: its number in the message, or numbers with full stops between them.
    pub part: String,
    /// The new file.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its media type, as the message says.
    pub content_type: String,
}

/// A message was sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Message id.
    pub id: String,
    /// Where each recipient's copy is.
    pub recipients: Vec<RecipientView>,
}

/// One recipient of a message sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecipientView {
    /// Address.
    pub address: String,
    /// The address that was written, if it led to this one: a group, a shadow, a forward.
    pub via: Option<String>,
    /// The inside gateway by which it goes.
    pub gateway: Option<String>,
    /// Where its copy is.
    pub state: DeliveryState,
    /// Since when, milliseconds since 1970.
    pub at: u64,
    /// The remote host.
    pub host: Option<String>,
    /// Whether that was under TLS.
    pub tls: bool,
    /// Enhanced status code.
    pub status: String,
    /// The remote's answer, or our reason.
    pub text: String,
    /// A remote may have it although it did not say so.
    pub in_doubt: bool,
    /// The next attempt, milliseconds since 1970.
    pub next_attempt_at: Option<u64>,
    /// What the last revision for this recipient came to.
    pub revised: Option<RevisedView>,
}

/// What a revision came to for one recipient.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevisedView {
    /// Which revision, from 1.
    pub revision: u32,
    /// What it came to.
    pub result: ReviseResult,
    /// Since when, milliseconds since 1970.
    pub at: u64,
    /// More about it.
    pub text: String,
}

/// A revision of a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevisionView {
    /// 0 is the original.
    pub revision: u32,
    /// When it was made, milliseconds since 1970.
    pub at: u64,
    /// What it did; `None` for the original.
    pub mode: Option<ReviseMode>,
    /// Why, as its author said.
    pub reason: Option<String>,
    /// Who made it.
    pub author: String,
    /// Its subject.
    pub subject: String,
    /// How its text differs from that of the revision before: each line with `+`, `-` or a space before it.
    pub difference: String,
}

/// A message was deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deleted {
    /// Message id.
    pub id: String,
    /// It was in Trash, and is gone for good.
    pub for_good: bool,
}

/// Where the copies of a message are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Message id.
    pub id: String,
    /// Subject.
    pub subject: String,
    /// Recipients, in order.
    pub recipients: Vec<RecipientView>,
}

/// A travel window was opened. The password is shown here and nowhere else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    /// The window.
    pub window: WindowView,
    /// User name for POP3 and submission.
    pub user: String,
    /// Password.
    pub password: String,
    /// Messages queued for back-fill.
    pub backfilled: usize,
    /// Client settings: service, host name and addresses.
    pub settings: Settings,
}

/// What a mail client is to be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The edge's host name.
    pub host: String,
    /// POP3 with STARTTLS.
    pub pop3: Vec<String>,
    /// POP3 under TLS.
    pub pop3s: Vec<String>,
    /// Submission with STARTTLS.
    pub submission: Vec<String>,
    /// Submission under TLS.
    pub submissions: Vec<String>,
}

/// A travel window, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WindowView {
    /// Window id.
    pub id: String,
    /// Whose.
    pub person: String,
    /// Opened, milliseconds since 1970.
    pub from: u64,
    /// Ends, milliseconds since 1970; `None` is standing.
    pub until: Option<u64>,
    /// What is filed into it.
    pub scope: Scope,
    /// What a deletion on the road does.
    pub after_fetch: AfterFetch,
    /// How far it is.
    pub state: WindowState,
    /// Copies filed, fetched and deleted.
    pub filed: usize,
    /// Copies that a client has retrieved.
    pub fetched: usize,
    /// Copies that a client has deleted.
    pub deleted: usize,
}

/// What comparing came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Holdings that were compared: origins, recipients who wait, copies in travel windows.
    pub compared: u64,
    /// Of those, how many are not the same on both nodes.
    pub differing: u64,
    /// The first of these, in words.
    pub named: Vec<String>,
    /// There was more than is compared; of origins, only the newest were.
    pub cut: bool,
    /// Nothing was under way meanwhile. Otherwise a difference may be mail on its way.
    pub quiet: bool,
}

/// What waits on big.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// Units not yet confirmed by the edge, by lane: service, event, inter, batch.
    pub units: [u64; 4],
    /// Recipients that are not final, by message.
    pub messages: Vec<Status>,
    /// Units that the edge refused.
    pub dead_letters: Vec<DeadLetterView>,
}
