//! Content in chunks (BDAT, RFC 3030), and what is known of them at a host.
//!
//! A host that offers CHUNKING may not know BDAT all the same, or what stands before it may not: it would read content as
//! commands, and whoever writes content would speak in our name. So the first chunk that a host gets is one octet of the content,
//! which is no command (some refuse one of no octets), and no other one goes before it is answered.

use std::mem;

use crate::wire::LineError;

use super::outgoing::Outgoing;

/// Octets that each chunk has at least, but the last.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// What is known of a host that offers CHUNKING.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunking {
    /// Nothing yet.
    #[default]
    Untried,
    /// It takes chunks.
    Works,
    /// It refuses them without a word of the message, or was lost over them: content goes by DATA.
    Fails,
}

/// Whether this answer to BDAT is of the command rather than of the message: it, or its argument, is not known, or not here.
pub(super) fn is_of_command(code: u16) -> bool {
    matches!(code, 500..=504 | 555)
}

/// One message's content on its way out in chunks, which begin with their BDAT.
#[derive(Debug)]
pub(super) struct Chunks {
    outgoing: Outgoing,
    /// What goes with the next chunk, whose BDAT says whether it is the last.
    held: Vec<u8>,
    /// Chunks that were sent and not answered.
    open: usize,
    trial: Trial,
}

/// How far the first chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// It is to have one octet.
    Wanted,
    /// It has, and nothing else is sent before it is answered.
    Open,
    /// The host takes chunks.
    Over,
}

impl Chunks {
    /// Content behind header fields that were put before it, whose lines end with CRLF. With `is_trial` nobody knows whether
    /// the host takes chunks.
    pub(super) fn behind(before: Vec<u8>, is_trial: bool) -> Self {
        let trial = if is_trial { Trial::Wanted } else { Trial::Over };
        Self { outgoing: Outgoing::counted(before), held: Vec::new(), open: 0, trial }
    }

    /// Whether the only chunk that was sent has one octet and no answer.
    pub(super) fn is_trial(&self) -> bool {
        self.trial == Trial::Open
    }

    /// Whether answers are to be awaited before there is more, where so many chunks may be sent ahead of them.
    pub(super) fn is_full(&self, ahead: usize) -> bool {
        self.is_trial() || self.open >= ahead
    }

    /// The host took one; `false` if there was none that it could have meant.
    pub(super) fn taken(&mut self) -> bool {
        let is_open = self.open > 0;
        self.open = self.open.saturating_sub(1);
        if self.is_trial() {
            self.trial = Trial::Over;
        }
        is_open
    }

    /// Takes the next piece of content, and appends a chunk to `out` if there is enough for one.
    ///
    /// # Errors
    /// As [`Outgoing::piece`].
    pub(super) fn piece(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), LineError> {
        let mut full = Vec::new();
        if self.held.len() >= CHUNK_BYTES {
            full = mem::take(&mut self.held);
        }
        // Nothing leaves with what is unfit.
        self.outgoing.piece(content, &mut self.held)?;
        if self.trial == Trial::Wanted && !self.held.is_empty() {
            full.extend(self.held.drain(..1));
            self.trial = Trial::Open;
        }
        if !full.is_empty() {
            chunk(&full, "", out);
            self.open += 1;
        }
        Ok(())
    }

    /// Appends the last chunk. Returns how many before it are not answered.
    ///
    /// # Errors
    /// As [`Outgoing::finish`].
    pub(super) fn finish(self, out: &mut Vec<u8>) -> Result<usize, LineError> {
        let Self { outgoing, mut held, open, .. } = self;
        outgoing.finish(&mut held)?;
        chunk(&held, " LAST", out);
        Ok(open)
    }
}

fn chunk(octets: &[u8], last: &str, out: &mut Vec<u8>) {
    let command = format!("BDAT {}{last}\r\n", octets.len());
    out.reserve(command.len() + octets.len());
    out.extend_from_slice(command.as_bytes());
    out.extend_from_slice(octets);
}
