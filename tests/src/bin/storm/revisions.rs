//! Second thoughts: what is replaced, appended to and withdrawn while everything fails, and the books of it.
//!
//! These messages are not in the ledger, which knows one text of each. Here each has all its texts, with a word that is
//! in each alone, for whom each was, and which revision it became. `authors` are those who write, revise and read;
//! `audit` holds what was found against the books.

mod audit;
mod authors;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use shared::mime;
use shared::unit::ReviseMode;

pub use audit::{Findings, audit, until_decided};
pub use authors::{deferring, desk, traveller};

/// Begins the line that marks each text.
const MARK: &str = "Storm-Text: ";
/// Ends each mark.
const MARK_END: char = '.';
/// The host in the Message-IDs of what the traveller writes here.
const SECOND_THOUGHTS: &str = "second-thoughts.example";

/// What was written, and what became of it.
#[derive(Default)]
pub struct Revisions {
    written: Mutex<Vec<Written>>,
    /// What the traveller has asked for by mail.
    asked: Mutex<Vec<Asked>>,
    /// What readers inside were shown, as they asked for it.
    read: Mutex<Vec<Copy>>,
}

/// A message.
struct Written {
    /// `None` if its sender got no answer: it is never revised, and may be there or not.
    id: Option<String>,
    author: &'static str,
    /// The Message-ID of one from the road, which its author answers to revise it.
    message_id: Option<String>,
    to: Vec<String>,
    /// The original first, then as they were asked for.
    texts: Vec<Text>,
}

/// One text of a message: the original, or what a revision makes of it.
struct Text {
    /// Its mark, which no other text has.
    word: String,
    /// All of it, as it was written; of what is withdrawn there is none.
    whole: String,
    /// What the author has done; `None` for the original.
    mode: Option<ReviseMode>,
    /// For whom.
    to: Vec<String>,
    /// Which revision it became: 0 is the original. `None` if nobody has said so; then it may have become one.
    number: Option<u32>,
    /// When its author was told that it is entered.
    told_at: Option<SystemTime>,
}

/// A request that was mailed from the road.
struct Asked {
    message_id: String,
    /// Whether the edge has taken it; else nobody knows.
    taken: bool,
}

/// A copy that was found, or seen.
pub struct Copy {
    /// In whose mailbox, or for whom outside.
    recipient: String,
    text: String,
    /// It tells of a revision, and names the message (`Supersedes`).
    is_notice: bool,
    /// When it got there; on the road and at a desk, when it was asked for.
    at: SystemTime,
}

impl Copy {
    /// A message as it is stored or was sent.
    pub fn of(recipient: String, content: &[u8], at: SystemTime) -> Self {
        let is_notice = mime::fields(content).any(|field| field.is("Supersedes"));
        Self { recipient, text: mime::text_of(content), is_notice, at }
    }

    /// The marks in it.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.text.match_indices(MARK).filter_map(|(at, _)| {
            let rest = &self.text[at..];
            Some(&rest[..=rest.find(MARK_END)?])
        })
    }
}

/// Whether a message is one of these, a notice about one, or the answer to a traveller who has revised one.
pub fn is_one(content: &[u8]) -> bool {
    let is_ours = |name: &str, value: &str| match name {
        "Supersedes" => true,
        "Message-ID" | "In-Reply-To" => value.contains(SECOND_THOUGHTS),
        _ => false,
    };
    let names = ["Supersedes", "Message-ID", "In-Reply-To"];
    mime::fields(content)
        .any(|field| names.iter().any(|name| field.is(name) && is_ours(name, &field.unfolded())))
        || mime::text_of(content).contains(MARK)
}

/// The request from the road that a message answers.
fn answers(content: &[u8]) -> Option<String> {
    let field = mime::fields(content).find(|field| field.is("In-Reply-To"))?;
    let named = field.unfolded().trim().to_owned();
    named.contains(SECOND_THOUGHTS).then_some(named)
}

impl Revisions {
    fn written(&self) -> MutexGuard<'_, Vec<Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> MutexGuard<'_, Vec<Copy>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
