//! The TRANSACTION state (RFC 1939 §5): lists, messages, marks, and QUIT.

use std::mem;

use super::ascii_header::AsciiHeader;
use super::command::Command;
use super::maildrop::{Entry, Maildrop, Top};
use super::session::{Action, Phase, REPLIES_BYTES_MAX, Session};
use crate::wire::{DotStuffing, LineError};

/// A list that is written piece by piece.
#[derive(Debug)]
pub(super) struct Listing {
    kind: ListKind,
    /// The index to go on from.
    next: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ListKind {
    Sizes,
    UniqueIds,
}

impl ListKind {
    fn line(self, number: usize, entry: &Entry) -> String {
        match self {
            Self::Sizes => format!("{number} {}", entry.size),
            Self::UniqueIds => format!("{number} {}", entry.unique_id()),
        }
    }
}

/// How the content of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it was given, or all that was wanted.
    Whole,
    /// It cannot be read now.
    Later,
    /// It cannot be had here any more.
    Lost,
}

/// A message that is sent piece by piece.
#[derive(Debug)]
pub(super) struct Fetching {
    index: usize,
    /// Where TOP ends; RETR has none.
    top: Option<Top>,
    /// The header is to be ASCII.
    ascii: Option<AsciiHeader>,
    /// What is written once +OK is.
    stuffing: Option<DotStuffing>,
}

impl Session {
    pub(super) fn transaction(&mut self, mut maildrop: Maildrop, command: Command) {
        let done = match command {
            Command::Quit => return self.update(&maildrop),
            Command::List(None) => return self.list(maildrop, ListKind::Sizes),
            Command::Uidl(None) => return self.list(maildrop, ListKind::UniqueIds),
            Command::Retr(number) => return self.fetch(maildrop, number, None),
            Command::Top(number, lines) => return self.fetch(maildrop, number, Some(lines)),
            Command::List(Some(number)) => self.list_one(&maildrop, number, ListKind::Sizes),
            Command::Uidl(Some(number)) => self.list_one(&maildrop, number, ListKind::UniqueIds),
            Command::Dele(number) => maildrop.index(number).map(|index| {
                maildrop.delete(index);
                self.ok("deleted at QUIT");
            }),
            Command::Stat => {
                let (count, size) = maildrop.total();
                self.ok(&format!("{count} {size}"));
                Ok(())
            }
            Command::Rset => {
                maildrop.undelete();
                self.ok("nothing is deleted");
                Ok(())
            }
            Command::Noop => {
                self.ok("still here");
                Ok(())
            }
            Command::Capa => {
                self.capabilities();
                Ok(())
            }
            Command::Lang(range) => self.language(range.as_deref()),
            Command::Utf8 => Err("UTF8 comes before the login"),
            Command::User(_) | Command::Pass(_) | Command::Auth { .. } | Command::Stls => {
                Err("you are logged in")
            }
        };
        self.phase = Phase::Transaction(maildrop);
        if let Err(text) = done {
            self.bad_command(text);
        }
    }

    fn list_one(&mut self, maildrop: &Maildrop, number: u64, kind: ListKind) -> Result<(), &'static str> {
        let index = maildrop.index(number)?;
        if let Some((number, entry)) = maildrop.next(index) {
            self.ok(&kind.line(number, entry));
        }
        Ok(())
    }

    fn list(&mut self, maildrop: Maildrop, kind: ListKind) {
        let (count, size) = maildrop.total();
        self.ok(&format!("{count} messages ({size} octets)"));
        self.phase = Phase::Listing(maildrop, Listing { kind, next: 0 });
    }

    /// Writes as much of a list as is sent at once.
    pub(super) fn list_on(&mut self, maildrop: Maildrop, mut listing: Listing) {
        while self.replies.len() < REPLIES_BYTES_MAX {
            let Some((number, entry)) = maildrop.next(listing.next) else {
                self.line(".");
                self.phase = Phase::Transaction(maildrop);
                return;
            };
            let line = listing.kind.line(number, entry);
            listing.next = number;
            self.line(&line);
        }
        self.phase = Phase::Listing(maildrop, listing);
    }

    fn fetch(&mut self, maildrop: Maildrop, number: u64, lines: Option<u64>) {
        match maildrop.index(number) {
            Ok(index) => {
                let next = maildrop.entry(index + 1);
                self.actions.extend(maildrop.entry(index).map(|entry| Action::Fetch { entry, lines, next }));
                let ascii = (!self.utf8).then(AsciiHeader::new);
                let fetching = Fetching { index, top: lines.map(Top::new), ascii, stuffing: None };
                self.phase = Phase::Fetching(maildrop, fetching);
            }
            Err(text) => {
                self.phase = Phase::Transaction(maildrop);
                self.bad_command(text);
            }
        }
    }

    /// Gives the next piece of the message of [`Action::Fetch`]; `false` when no more is wanted. The
    /// pieces are the driver's to size: what is given is held until the next poll.
    pub fn content(&mut self, piece: &[u8]) -> bool {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Fetching(maildrop, mut fetching) => {
                let written = fetching.write(piece, &mut self.replies);
                let more = fetching.top.as_ref().is_none_or(|top| !top.is_done());
                self.phase = Phase::Fetching(maildrop, fetching);
                if written.is_err() {
                    self.broken_message();
                }
                more && written.is_ok()
            }
            other => {
                self.phase = other;
                false
            }
        }
    }

    /// Ends the message of [`Action::Fetch`].
    pub fn content_end(&mut self, end: End) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Fetching(mut maildrop, fetching) => {
                self.rearm();
                let (index, started, is_top) =
                    (fetching.index, fetching.stuffing.is_some(), fetching.top.is_some());
                if end == End::Later && !started {
                    self.err("[SYS/TEMP] the message cannot be read now: try again later");
                } else if end == End::Lost && !started {
                    self.err("[SYS/PERM] the message cannot be had here any more: ask for it at home");
                } else if end != End::Whole || fetching.finish(&mut self.replies).is_err() {
                    return self.broken_message();
                } else if !is_top {
                    maildrop.retrieved(index);
                }
                self.phase = Phase::Transaction(maildrop);
            }
            other => self.phase = other,
        }
    }

    /// The reply has begun and cannot be completed: only hanging up tells the client so.
    fn broken_message(&mut self) {
        self.close();
    }

    /// QUIT: the UPDATE state.
    fn update(&mut self, maildrop: &Maildrop) {
        let (deleted, retrieved) = maildrop.marks();
        self.phase = Phase::Committing;
        self.actions.push_back(Action::Commit { deleted, retrieved });
    }
}

impl Fetching {
    fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), LineError> {
        let wanted = match &mut self.top {
            Some(top) => top.cut(piece),
            None => piece,
        };
        match &mut self.ascii {
            Some(header) => {
                let header = header.piece(wanted);
                self.begun(out).piece(&header, out)
            }
            None => self.begun(out).piece(wanted, out),
        }
    }

    fn finish(mut self, out: &mut Vec<u8>) -> Result<(), LineError> {
        if let Some(header) = self.ascii.take() {
            self.begun(out).piece(&header.finish(), out)?;
        }
        mem::take(self.begun(out)).finish(out)
    }

    /// The encoder, with +OK written before its first use.
    fn begun(&mut self, out: &mut Vec<u8>) -> &mut DotStuffing {
        self.stuffing.get_or_insert_with(|| {
            out.extend_from_slice(b"+OK message follows\r\n");
            DotStuffing::new()
        })
    }
}
