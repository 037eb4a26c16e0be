//! The books of a run, kept outside the nodes, and the audit at its end.
//!
//! A message is entered before it is sent, settled by the answer to it, and found again in a mailbox
//! or at another MTA. The audit compares: **lost** was accepted and is nowhere; **doubled** is there
//! more often than it was taken; **ghost** was never sent, or was refused, or is somewhere nobody
//! sent it; **altered** is not what was sent. Each of the four must be empty. **Undetermined** is a
//! message whose answer never came: it may be there once or not at all, and is counted apart.
//! **Repeated** is the one excused doubling, RFC 5321's own: another MTA got a second copy because
//! a node was killed between that MTA's 250 and its own record of it.
//!
//! Contents are compared from the ledger's mark on, since what relays add goes above it. The books
//! never believe a node: they know only what was put on a wire and what came off one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod audit;
mod mark;
#[cfg(test)]
mod tests;

pub use audit::{Audit, Finding};
pub use mark::{HEADER, TEXT, TEXT_END};

use mark::Marked;

/// A kill excuses a repeat outside if it fell within this after the first copy's 250.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(1);

/// The name of one message in the books: unique in a run, and telling one run's from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The run.
    pub seed: u64,
    /// The message.
    pub number: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.seed, self.number)
    }
}

/// The text is not `seed-number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ledger's mark is written seed-number")]
pub struct NotAToken;

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let (seed, number) = text.split_once('-').ok_or(NotAToken)?;
        let parsed = |text: &str| text.parse().map_err(|_| NotAToken);
        Ok(Self { seed: parsed(seed)?, number: parsed(number)? })
    }
}

/// How an attempt to send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Answered 250, or the command exited 0: from now on it may not be lost.
    Accepted,
    /// No answer was seen after the message may have been complete.
    InDoubt,
    /// Refused, or cut before it could be complete: it may not appear.
    NotAccepted,
}

/// Where a copy was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a mailbox of ours: exactly once is the promise.
    Inside,
    /// At an MTA of others: at least once, and again only for a reason.
    Outside,
}

/// The books.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    next: AtomicU64,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    entries: BTreeMap<Token, Entry>,
    copies: Vec<Found>,
    kills: Vec<Kill>,
    file: Option<File>,
}

#[derive(Debug)]
struct Entry {
    digest: String,
    recipients: Vec<String>,
    /// Attempts that were accepted, and that were left in doubt.
    accepted: usize,
    in_doubt: usize,
    /// Attempts not yet settled.
    open: usize,
}

impl Entry {
    /// How many copies there may be for each recipient.
    fn most(&self) -> usize {
        self.accepted + self.in_doubt + self.open
    }

    fn is_undetermined(&self) -> bool {
        self.accepted == 0 && self.in_doubt + self.open > 0
    }
}

#[derive(Debug)]
struct Found {
    place: Place,
    recipient: String,
    at: SystemTime,
    what: Marked,
}

#[derive(Debug)]
struct Kill {
    node: String,
    at: SystemTime,
}

impl Ledger {
    /// Empty books for the run `seed`, in memory.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(1), books: Mutex::default() }
    }

    /// Books that are also written to `path`, a line for each step, fsynced line by line, so that
    /// they outlive whatever stops the run.
    pub fn in_file(seed: u64, path: &Path) -> io::Result<Self> {
        let ledger = Self::new(seed);
        ledger.books().file = Some(File::options().create(true).append(true).open(path)?);
        Ok(ledger)
    }

    /// A mark that no other message has.
    pub fn next_token(&self) -> Token {
        Token { seed: self.seed, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Enters a message that is about to be sent. A message may be entered again for another attempt.
    ///
    /// # Panics
    /// If the message bears no mark: it could not be found again.
    pub fn enter(&self, message: &[u8], recipients: &[&str]) -> io::Result<()> {
        let Marked::Token(token, digest) = mark::read(message) else {
            panic!("a message is marked before it is entered");
        };
        let mut books = self.books();
        books.note(&format!("enter {token} {digest} {}", recipients.join(",")))?;
        let entry = books.entries.entry(token).or_insert_with(|| Entry {
            digest,
            recipients: Vec::new(),
            accepted: 0,
            in_doubt: 0,
            open: 0,
        });
        entry.open += 1;
        let recipients = recipients.iter().map(|recipient| recipient.to_lowercase());
        let new: Vec<_> = recipients.filter(|recipient| !entry.recipients.contains(recipient)).collect();
        entry.recipients.extend(new);
        Ok(())
    }

    /// Settles an attempt that was entered.
    ///
    /// # Panics
    /// If the message was not entered, or has no attempt open.
    pub fn settle(&self, message: &[u8], fate: Fate) -> io::Result<()> {
        let Marked::Token(token, _) = mark::read(message) else {
            panic!("a message is marked before it is settled");
        };
        let mut books = self.books();
        books.note(&format!("settle {token} {fate:?}"))?;
        let entry = books.entries.get_mut(&token).expect("a message is entered before it is settled");
        entry.open = entry.open.checked_sub(1).expect("each attempt is settled once");
        match fate {
            Fate::Accepted => entry.accepted += 1,
            Fate::InDoubt => entry.in_doubt += 1,
            Fate::NotAccepted => {}
        }
        Ok(())
    }

    /// Records a copy found at the end: in whose mailbox, or for whom at another MTA, and when it got
    /// there as far as that is known.
    pub fn found(&self, place: Place, recipient: &str, message: &[u8], at: SystemTime) {
        let copy = Found { place, recipient: recipient.to_lowercase(), at, what: mark::read(message) };
        self.books().copies.push(copy);
    }

    /// Records that a node was killed.
    pub fn killed(&self, node: &str, at: SystemTime) -> io::Result<()> {
        let mut books = self.books();
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        books.note(&format!("kill {node} {}", since.as_millis()))?;
        books.kills.push(Kill { node: node.to_owned(), at });
        Ok(())
    }

    /// Whether a node was killed so soon after `at` that it may not have recorded what it had done then, and not
    /// later than `before`.
    pub fn was_killed_between(&self, at: SystemTime, before: SystemTime) -> bool {
        let within = |kill: &Kill| kill.at.duration_since(at).is_ok_and(|after| after <= REPEAT_WINDOW);
        self.books().kills.iter().any(|kill| kill.at <= before && within(kill))
    }

    /// Whether every message accepted so far has been [found](Self::found): when a drain may end.
    pub fn is_complete(&self) -> bool {
        self.audit().lost.is_empty()
    }

    /// Compares what was sent with what was found.
    pub fn audit(&self) -> Audit {
        audit::audit(&self.books())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn note(&mut self, line: &str) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_data()
    }
}
