//! How an error in a topology file looks: where it is, the line with a caret, and the mend.

use std::fmt;
use std::io;
use std::ops::Range;

/// Why a topology file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file could not be read.
    #[error("{file}: {source}\n  mend: {}", mend(source))]
    Unreadable {
        /// The file's name as it was given.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it is wrong, or not in this version.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

/// One thing in a topology file that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file's name as it was given.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub mend: String,
    source_line: String,
    width: usize,
}

/// The text being read, and its name.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// A refusal of the bytes in `span`.
    pub(super) fn refuse(
        &self,
        span: Range<usize>,
        reason: impl Into<String>,
        mend: impl Into<String>,
    ) -> TopologyError {
        let start = self.text.floor_char_boundary(span.start);
        let (before, from) = self.text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let lead = &before[line_start..];
        let rest = from.lines().next().unwrap_or("");
        let marked = self.text.get(start..span.end).unwrap_or("").lines().next().unwrap_or("");
        TopologyError::Refused(Box::new(Refusal {
            file: self.file.into(),
            line: before.matches('\n').count() + 1,
            column: lead.chars().count() + 1,
            reason: reason.into(),
            mend: mend.into(),
            source_line: format!("{lead}{rest}").replace('\t', " "),
            width: marked.chars().count().max(1),
        }))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let caret = format!("{}{}", " ".repeat(self.column - 1), "^".repeat(self.width));
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.reason)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.source_line)?;
        writeln!(f, "{margin} | {caret}")?;
        write!(f, "{margin} mend: {}", self.mend)
    }
}

impl std::error::Error for Refusal {}

/// What to do about a file that could not be read.
fn mend(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "let this account read it, and enter the folders above it",
        io::ErrorKind::InvalidData => "write it in UTF-8",
        _ => "name the topology file with --topology FILE",
    }
}
