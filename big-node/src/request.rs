//! What commands ask of a running big node over its control socket. What it answers is in `view`.

mod view;

use serde::{Deserialize, Serialize};
use shared::notify::{Notify, Return};
pub use shared::operator::{DeadCommand, Done, LinkCommand};
pub use shared::report::{DeadLetterView, LaneView, LinkView, PartnerLaneView, Step};
use shared::trace::Query;
use shared::unit::ReviseMode;

use crate::directory::entry::Kind;
pub use crate::directory::explain::{Destination, Explanation};
pub use crate::directory::{
    BadRow, GatewayChange, GroupChange, Imported, NewGateway, NewGroup, NewPerson, NewShadow, PersonChange,
    Reach, Rowed, ShadowChange,
};
pub use crate::dkim::Algorithm;
pub use crate::record::About;
use crate::record::{AfterFetch, Scope};
pub use view::*;

/// A request. A body may go with one: text and attachments, or a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Makes a key that signs mail. Answered with [`DkimKeyView`].
    DkimKeygen(NewDkimKey),
    /// The keys that sign mail. Answered with `Vec<DkimKeyView>`.
    DkimList,
    /// Removes a key. Answered with [`DkimRemoved`].
    DkimRemove {
        /// Whose; the site's first domain otherwise.
        domain: Option<String>,
        /// Its selector.
        selector: String,
    },
    /// The aggregate reports that other domains were sent. Answered with `Vec<AggregateView>`.
    Reports,
    /// Takes an edge's ticket. Answered with [`Paired`].
    Pair {
        /// As `edge-node invite` printed it.
        ticket: String,
        /// In the place of the edge that is paired already.
        replace: bool,
    },
    /// Copies keys and store into the state, for whoever asks to take them elsewhere. Answered with
    /// [`shared::state::Prepared`].
    Backup,
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
    /// The person whose account asks. Answered with [`PersonView`].
    Whoami,
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
    /// Messages in which every word occurs, newest first, among those that one request looks at. Answered with
    /// [`Found`].
    MailSearch {
        /// Whose.
        person: String,
        /// The words, with blanks between them.
        words: String,
        /// Only in the folder of this name.
        folder: Option<String>,
        /// At most so many.
        max: usize,
        /// Only those older than the message with this id.
        before: Option<String>,
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
    /// Sends what is written: a message of its own, an answer, a message that goes on, or one that is amended and goes
    /// back. Answered with [`Sent`].
    MailSend {
        /// Who sends.
        person: String,
        /// What it is. Its text and attachments are the body.
        written: Written,
        /// Of an answer: with the text that is answered below it.
        #[serde(default)]
        quote: bool,
    },
    /// Saves a draft, in the place of an earlier one if that is named. Answered with [`DraftSaved`].
    DraftSave {
        /// Whose.
        person: String,
        /// The draft that this replaces.
        draft: Option<String>,
        /// The numbers of its attachments that stay; they come before the new ones.
        keep: Vec<u32>,
        /// What it is. Its text and new attachments are the body.
        written: Written,
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
        /// When, for what, and with which limits.
        terms: Terms,
    },
    /// Puts the end of a person's window off, or forward. Answered with [`WindowView`].
    TravelExtend {
        /// Whose.
        person: String,
        /// Ends, milliseconds since 1970; `None` is standing.
        until: Option<u64>,
    },
    /// Gives a person's window another password. Answered with [`Started`].
    TravelRotate {
        /// Whose.
        person: String,
        /// Seconds for which the old one is good besides.
        grace: u64,
    },
    /// Travel windows. Answered with `Vec<WindowView>`.
    TravelList {
        /// Whose; everybody's otherwise.
        #[serde(default)]
        person: Option<String>,
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
    /// Sends a message that waits for one recipient outside to another address. Answered with [`Done`].
    QueueRedirect {
        /// Message id.
        message: String,
        /// The address that it waits for.
        from: String,
        /// The address that gets it instead.
        to: String,
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
    /// A message's way, or the messages whose way says something. Answered as [`Query`] says.
    Trace(Query),
}

/// What a travel window is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Opens, milliseconds since 1970; `None` is at once.
    #[serde(default)]
    pub from: Option<u64>,
    /// Ends, milliseconds since 1970; `None` is standing.
    pub until: Option<u64>,
    /// What is filed into it.
    pub scope: Scope,
    /// What a deletion on the road does.
    pub after_fetch: AfterFetch,
    /// What is small is filled in before what is large.
    #[serde(default)]
    pub headers_first: bool,
    /// Larger messages stay at home, octets.
    #[serde(default)]
    pub size_max: Option<u64>,
    /// Octets that the window may hold on the edge.
    #[serde(default)]
    pub quota: Option<u64>,
}

impl Default for Terms {
    /// At once and standing, for what comes from then on; nothing happens at home, and nothing is limited.
    fn default() -> Self {
        Self {
            from: None,
            until: None,
            scope: Scope::New,
            after_fetch: AfterFetch::Keep,
            headers_first: false,
            size_max: None,
            quota: None,
        }
    }
}

/// Whose a request is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks<'a> {
    /// The person of this name or address: it is about what is theirs.
    Own(&'a str),
    /// Everybody who has an account here, each about what is theirs; whoever operates the node about everybody's.
    OwnOrAll,
    /// Everybody who has an account here; this is what they are shown of the answer.
    Everybody(Shows),
    /// Who operates the node.
    Operator,
}

/// What one person is shown of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// All of it.
    All,
    /// A [`PersonView`]: of somebody else, name and addresses.
    Person,
    /// Several of them.
    People,
    /// Of [`GatewayView`]s, what they are called and take.
    Gateways,
    /// Of a [`Sent`], what its sender may know of where colleagues forward to.
    Sent,
    /// Of a [`Status`], the same.
    Status,
    /// Of an [`Explanation`], the same.
    Explanation,
}

impl Request {
    /// What is shown of the answer to a person who asks about what is theirs.
    pub fn shows(&self) -> Shows {
        match self {
            Self::MailSend { .. } | Self::DraftSend { .. } => Shows::Sent,
            Self::MailStatus { .. } | Self::MailAmend { .. } => Shows::Status,
            Self::Explain { .. } => Shows::Explanation,
            _ => Shows::All,
        }
    }

    /// Whose it is to make. A new request does not compile without its row here.
    pub fn asks(&self) -> Asks<'_> {
        match self {
            Self::Nickname { person, .. }
            | Self::Explain { person: Some(person), .. }
            | Self::MailList { person, .. }
            | Self::MailFolders { person }
            | Self::FolderAdd { person, .. }
            | Self::FolderRename { person, .. }
            | Self::FolderRemove { person, .. }
            | Self::MailMove { person, .. }
            | Self::MailMark { person, .. }
            | Self::MailThread { person, .. }
            | Self::MailSearch { person, .. }
            | Self::MailWatch { person, .. }
            | Self::MailRead { person, .. }
            | Self::MailSend { person, .. }
            | Self::DraftSave { person, .. }
            | Self::DraftShow { person, .. }
            | Self::DraftSend { person, .. }
            | Self::MailDelete { person, .. }
            | Self::MailStatus { person, .. }
            | Self::MailAmend { person, .. }
            | Self::MailHistory { person, .. }
            | Self::TravelStart { person, .. }
            | Self::TravelExtend { person, .. }
            | Self::TravelRotate { person, .. }
            | Self::TravelList { person: Some(person), .. }
            | Self::TravelEnd { person, .. } => Asks::Own(person),
            Self::Whoami => Asks::Everybody(Shows::All),
            Self::Explain { person: None, .. } => Asks::Everybody(Shows::Explanation),
            Self::PersonList => Asks::Everybody(Shows::People),
            Self::PersonShow { .. } => Asks::Everybody(Shows::Person),
            Self::Shadow(EntryRequest::List | EntryRequest::Show { .. })
            | Self::Group(EntryRequest::List | EntryRequest::Show { .. }) => Asks::Everybody(Shows::All),
            Self::Gateway(EntryRequest::List | EntryRequest::Show { .. }) => Asks::Everybody(Shows::Gateways),
            Self::TravelList { person: None, .. } => Asks::OwnOrAll,
            // A message's way names all its recipients, and whoever knows an id could ask.
            Self::Trace(_)
            | Self::Pair { .. }
            | Self::Backup
            | Self::PersonAdd(_)
            | Self::PersonSet(_)
            | Self::PersonRemove { .. }
            | Self::Shadow(EntryRequest::Add(_) | EntryRequest::Set(_) | EntryRequest::Remove { .. })
            | Self::Group(EntryRequest::Add(_) | EntryRequest::Set(_) | EntryRequest::Remove { .. })
            | Self::Gateway(EntryRequest::Add(_) | EntryRequest::Set(_) | EntryRequest::Remove { .. })
            | Self::GatewayRecipients { .. }
            | Self::Import { .. }
            | Self::ImportProgress
            | Self::Export { .. }
            | Self::QueueList
            | Self::QueueRetry { .. }
            | Self::QueueRedirect { .. }
            | Self::QueueDead(_)
            | Self::Link(_)
            | Self::DkimKeygen(_)
            | Self::DkimList
            | Self::Reports
            | Self::DkimRemove { .. }
            | Self::LinkStatus
            | Self::LinkVerify => Asks::Operator,
        }
    }
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

/// A DKIM key, as asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewDkimKey {
    /// For which domain of the site; its first otherwise.
    pub domain: Option<String>,
    /// Its name under the domain: one label of a host name.
    pub selector: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// From when on it signs, milliseconds since 1970; by itself at once, or a day later than one that signs already.
    pub signs_from: Option<u64>,
}

/// A nickname, as asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewNickname {
    /// The name.
    pub name: String,
    /// Whom it means: a name or an address in the directory, or an address outside.
    pub target: String,
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

/// What is written, but for its text and what is in its attachments, which follow one another in the request's body.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Written {
    /// Recipients as typed: addresses, names here, nicknames, `/GATEWAY address`. An answer, and what goes back, needs
    /// none.
    pub to: Vec<String>,
    /// More of them, shown as Cc.
    pub cc: Vec<String>,
    /// The subject; an empty one follows from the message that this is about.
    pub subject: String,
    /// What it answers, sends on or returns.
    pub about: Option<About>,
    /// New attachments, in the order of the body.
    pub attachments: Vec<Attached>,
    /// Octets of the text in the body.
    pub text_bytes: usize,
    /// Of which ends of the delivery its author wants reports, if not of failures and delays.
    #[serde(default)]
    pub notify: Option<Notify>,
    /// How much of the message a report of failure returns, if that is said.
    #[serde(default)]
    pub returns: Option<Return>,
}
