//! What a running big node answers, as commands show it.

use serde::{Deserialize, Serialize};
use shared::report::DeadLetterView;
use shared::topology::AttachmentMode;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};

use crate::directory::entry::{Pop3, Takes};
use crate::dkim::Algorithm;
use crate::record::{About, AfterFetch, Part, Scope, WindowState};

/// How far an import is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// All there are.
    pub total: u64,
}

/// Whether a DKIM key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DkimKeyState {
    /// Its time has not come.
    Waiting,
    /// Mail is signed with it.
    Signing,
    /// Another one has taken over; mail that it has signed may still be under way.
    Retired,
}

/// A DKIM key, as shown. The private half is shown nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimKeyView {
    /// For which domain.
    pub domain: String,
    /// Its name under the domain.
    pub selector: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// When it was made, milliseconds since 1970.
    pub made_at: u64,
    /// From when on it signs, milliseconds since 1970.
    pub signs_from: u64,
    /// Whether it does.
    pub state: DkimKeyState,
    /// The name of its record in DNS.
    pub record_name: String,
    /// The text of its record.
    pub record: String,
}

/// An aggregate report, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregateView {
    /// Its mail.
    pub id: String,
    /// The kind of report.
    pub kind: String,
    /// The domain that it is about.
    pub domain: String,
    /// The beginning of the day that it is about, milliseconds since 1970.
    pub begin: u64,
    /// To whom.
    pub to: Vec<String>,
    /// When the edge brought it, milliseconds since 1970.
    pub at: u64,
    /// How far it is.
    pub state: String,
}

/// What became of a DKIM key that is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimRemoved {
    /// As it was.
    pub removed: DkimKeyView,
    /// The keys that sign for its domain now; none, if its mail is signed no more.
    pub signing: Vec<DkimKeyView>,
    /// The selector of the one among them that had retired, and signs again.
    pub resumed: Option<String>,
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
    /// Whether it is reached only once big has been started again: its sandbox is older than the gateway.
    #[serde(default)]
    pub restart: bool,
}

/// A nickname, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NicknameView {
    /// The nickname.
    pub name: String,
    /// Whom it means; `None` for one who was removed.
    pub target: Option<String>,
}

/// The edge took the ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paired {
    /// Where the edge is.
    pub address: String,
    /// An operator holds the link closed: it stays so.
    pub held: bool,
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

/// What a search found, as far as one request has looked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// The messages, newest first.
    pub lines: Vec<Line>,
    /// Messages that were looked at.
    pub looked_at: u64,
    /// Those of them whose text was not looked at: it is too large, or damaged.
    pub unread_texts: u64,
    /// The last one that was looked at, if there are older ones: another request goes on behind it.
    pub behind: Option<String>,
}

impl Found {
    /// Takes what the next request of the same search has found.
    pub fn extend(&mut self, next: Self) {
        self.lines.extend(next.lines);
        self.looked_at += next.looked_at;
        self.unread_texts += next.unread_texts;
        self.behind = next.behind;
    }
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
    /// Nobody vouches for its author, whose domain wants such mail refused or set aside.
    pub suspect: bool,
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
    /// For its author: the latest revision, which may be for some recipients only; 0 is the original.
    pub latest: Option<u32>,
    /// Its author has revised it.
    pub amended: bool,
    /// Its author has taken it back: what is shown is the notice of that.
    pub withdrawn: bool,
    /// The message that it answers.
    pub parent: Option<String>,
    /// What the edge has verified of it, as [`shared::verdict`] has it.
    pub verdicts: Vec<String>,
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
    /// The address of the person whose forward led to it.
    pub forwarder: Option<String>,
    /// The inside gateway by which it goes.
    pub gateway: Option<String>,
    /// Where its copy is.
    pub state: DeliveryState,
    /// Since when, milliseconds since 1970.
    pub at: u64,
    /// The remote host.
    pub host: Option<String>,
    /// The TLS that was under, and by what the host had proved itself; `None` is in clear.
    pub tls: Option<String>,
    /// Why the edge's smart host was asked; `None` if the domain's own hosts were.
    pub relay: Option<String>,
    /// Enhanced status code.
    pub status: String,
    /// The remote's answer, or our reason.
    pub text: String,
    /// A remote may have it although it did not say so.
    pub in_doubt: bool,
    /// The remote host has it, and tells the author what they want to hear of it.
    #[serde(default)]
    pub host_reports: bool,
    /// The next attempt, milliseconds since 1970.
    pub next_attempt_at: Option<u64>,
    /// The address that an operator redirects it to, while the edge has still to say whether it has left.
    #[serde(default)]
    pub redirect: Option<String>,
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
    /// How its text and its attachments differ from those of the revision before: each line with `+`, `-` or a space
    /// before it, or with `@`, which says what is not shown.
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
    /// Submitted by a traveller, and here only after the window's end.
    #[serde(default)]
    pub late: bool,
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
    /// The address that its person writes from.
    pub address: String,
    /// The name beside it.
    pub display: String,
    /// Client settings: service, host name and addresses.
    pub settings: Settings,
}

/// What a mail client is to be told: where each service is reached, as address and port, or as a colon and the port
/// that is forwarded to it.
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
    /// What is small is filled in before what is large.
    pub headers_first: bool,
    /// Larger messages stay at home, octets.
    pub size_max: Option<u64>,
    /// Octets that it may hold on the edge.
    pub quota: Option<u64>,
    /// How far it is.
    pub state: WindowState,
    /// Ended here, milliseconds since 1970.
    pub ended_at: Option<u64>,
    /// Copies that were filed on the edge.
    pub filed: usize,
    /// Copies that a client has retrieved.
    pub fetched: usize,
    /// Copies that a client has deleted.
    pub deleted: usize,
    /// Copies that wait for room on the edge.
    pub waiting: usize,
    /// Messages that are too large for it.
    pub too_large: usize,
    /// Octets of copies on the edge.
    pub bytes: u64,
    /// Of the messages that were there before, how many have been dealt with, and how many there are.
    pub back_fill: (u64, u64),
    /// The last login, milliseconds since 1970; of several within ten minutes one is told.
    pub last_login: Option<u64>,
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
