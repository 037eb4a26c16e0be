//! The rows of travel windows, and the tables that hold them.

use rkyv::{Archive, Deserialize, Serialize};
use shared::row;
use shared::store::Table;
use shared::unit::Window;

/// Window id to [`WindowRow`].
pub const WINDOWS: Table = Table("windows");
/// Person id to the [`Named`](super::Named) open window.
pub const OPEN_WINDOWS: Table = Table("open-windows");
/// Window id, message id to [`CopyRow`].
pub const COPIES: Table = Table("copies");
/// Window id to the [`Named`](super::Named) window that has ended here and is not confirmed.
pub const ENDING_WINDOWS: Table = Table("ending-windows");
/// Window id to [`WindowKey`], while it is open.
pub const WINDOW_KEYS: Table = Table("window-keys");
/// Window id to [`Trip`].
pub const TRIPS: Table = Table("trips");
/// Window id, message id to the [`Named`](super::Named) message: copies that wait for room on the edge.
pub const WAITING_COPIES: Table = Table("waiting-copies");
/// Window id, message id to the [`Named`](super::Named) message: too large for the window, of which its traveller is still to
/// be told.
pub const OVERSIZED: Table = Table("oversized-messages");
/// Window id, message id to [`RefusedRow`]: submissions that a revoked window's person is still to be told of.
pub const REFUSED_SUBMISSIONS: Table = Table("refused-submissions");

/// What is filed into a window.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// What comes while it is open.
    New,
    /// That, and what came in so many days before.
    Days(u32),
    /// That, and everything in the In folder.
    All,
}

/// What a deletion on the road does at home.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum AfterFetch {
    /// Nothing.
    Keep,
    /// Marks the message read.
    Read,
    /// Moves it to Trash.
    Delete,
}

/// How far a window is through its life.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum WindowState {
    /// Logins are possible.
    Open,
    /// Ended here; the edge has not confirmed that its keys and copies are gone.
    Ending,
    /// The edge has confirmed it.
    Ended,
}

/// A travel window.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct WindowRow {
    /// As the edge holds it.
    pub window: Window,
    /// What is filed into it.
    pub scope: Scope,
    /// What a deletion on the road does.
    pub after_fetch: AfterFetch,
    /// How far it is.
    pub state: WindowState,
    /// Ended here, milliseconds since 1970.
    pub ended_at: Option<u64>,
    /// Nothing submitted through it is accepted after its end.
    pub revoked: bool,
    /// What is small is filled in before what is large.
    pub headers_first: bool,
    /// The edge has been told to end it.
    pub told: bool,
    /// Ends that were put off: each may have come at the edge before it knew.
    pub put_off: Vec<u64>,
    /// When it was made, milliseconds since 1970.
    pub made_at: u64,
}
row!(WindowRow, 3);

impl WindowRow {
    /// When it begins, milliseconds since 1970.
    pub fn begins_at(&self) -> u64 {
        self.window.from.max(self.made_at)
    }
}

/// The private half of an open window's keys, so that it can be locked under another password. It does not leave big
/// but so locked.
#[derive(Archive, Serialize, Deserialize, Clone)]
pub struct WindowKey(pub [u8; 32]);
row!(WindowKey, 1);

impl std::fmt::Debug for WindowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WindowKey")
    }
}

/// How far the mail of a window is, and what its traveller does.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub struct Trip {
    /// Messages that were to be filled in when it was opened.
    pub total: u64,
    /// How many of them have been dealt with.
    pub done: u64,
    /// The key of the last mailbox entry that was filled in, newest first; `None` when all have been.
    pub cursor: Option<Vec<u8>>,
    /// Which of them this pass fills in.
    pub pass: Pass,
    /// Octets of the message that the edge has no room for.
    pub needs: Option<u64>,
    /// How often copies were sent anew because the edge had ended the window.
    pub again: u32,
    /// The last login that was told, milliseconds since 1970.
    pub last_login: Option<u64>,
    /// Since when deletions are counted, milliseconds since 1970.
    pub counted_from: u64,
    /// Deletions on the road since then.
    pub deletions: u64,
    /// When there were too many of them within an hour, milliseconds since 1970.
    pub alarmed_at: Option<u64>,
}
row!(Trip, 1);

/// Which messages are filled in.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pass {
    /// All.
    #[default]
    All,
    /// The small ones.
    Small,
    /// The others.
    Large,
}

/// A submission that was refused because its window had been revoked.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct RefusedRow {
    /// To whom it was.
    pub to: Vec<String>,
    /// Its subject.
    pub subject: String,
    /// Accepted by the edge, milliseconds since 1970.
    pub at: u64,
}
row!(RefusedRow, 1);

/// A message in a secondary mailbox.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct CopyRow {
    /// The edge filed it on arrival; otherwise big sent it.
    pub filed_by_edge: bool,
    /// A client has retrieved it.
    pub retrieved: bool,
    /// A client has deleted it.
    pub deleted: bool,
    /// The revision that those two are of.
    pub acted: u32,
    /// The revision that was sent last.
    pub revision: u32,
    /// Its octets, as POP3 serves it.
    pub size: u64,
    /// Where it is.
    pub place: Place,
}
row!(CopyRow, 4);

/// Where the copy of a message for a secondary mailbox is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// On the edge, or on its way there.
    #[default]
    Edge,
    /// Here, because the edge has no room for it.
    Waiting,
    /// Nowhere: it is too large, and its traveller is told so.
    TooLarge,
    /// Nowhere: the message is at home no more.
    Gone,
}

impl CopyRow {
    /// Whether a client can get it.
    pub fn is_there(&self) -> bool {
        self.place == Place::Edge && !self.deleted
    }
}
