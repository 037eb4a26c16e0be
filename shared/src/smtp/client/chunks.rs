//! Content in chunks (BDAT, RFC 3030), and how a host comes to get it by DATA.
//!
//! A host that offers CHUNKING may not know BDAT all the same, or what stands before it may not: it would read content as
//! commands, and whoever writes content would speak in our name. So the first chunk of a session is one octet of the content,
//! which is no command (some refuse one of no octets), and no other one goes before it is answered. That takes a round trip,
//! as the 354 to DATA does. Nor does any later one go ahead of the answer to the one before: a host that ends the transaction at one
//! may not read the octets of the next as such. So that this costs few round trips, they grow.

use std::mem;

use crate::smtp::Enhanced;
use crate::wire::LineError;

use super::outgoing::Outgoing;
use super::reply::HostReply;

/// Octets of the first chunk behind the one of one octet, or of a message; each has twice those of the one before.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Octets that no chunk has more of.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// What a session in which a chunk was refused or lost says of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChunks {
    /// The host had a word about this message: it goes by DATA.
    ThisMessage,
    /// All content goes by DATA there.
    AtThisHost,
}

/// Whether this answer to BDAT is of the command rather than of the message: it, or its argument, is not known, or not here, or
/// the host waits for something else.
pub(super) fn is_of_command(code: u16) -> bool {
    matches!(code, 300..400 | 500..=504 | 555)
}

/// What a refusal of a session's first chunk says of the next session. A word about the message is one that says so, and not of the
/// command: of an address, a mailbox, the content or policy (RFC 3463: x.1, x.2, x.6, x.7), or of its size or of room for it (452,
/// 552).
pub(super) fn of_trial(reply: &HostReply) -> NoChunks {
    match (reply.code, reply.enhanced) {
        (code, _) if is_of_command(code) => NoChunks::AtThisHost,
        (452 | 552, _) | (_, Some(Enhanced(_, 1 | 2 | 6 | 7, _))) => NoChunks::ThisMessage,
        _ => NoChunks::AtThisHost,
    }
}

/// One message's content on its way out in chunks, which begin with their BDAT.
#[derive(Debug)]
pub(super) struct Chunks {
    /// `None` once all content is there.
    outgoing: Option<Outgoing>,
    /// What is to go, behind the octets that have gone already.
    held: Vec<u8>,
    gone: usize,
    /// Octets of the next chunk, if there is so much content.
    size: usize,
    /// A chunk was sent and not answered.
    is_open: bool,
    /// The host has taken a chunk in this session. The first one has one octet.
    is_tried: bool,
}

/// What chunks wait for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// That this one, which is not the last, is sent.
    Chunk(Vec<u8>),
    /// More content.
    Content,
    /// The host.
    Answers,
    /// The last one: all others were taken.
    Last,
}

impl Chunks {
    /// Content behind header fields that were put before it, whose lines end with CRLF. With `is_tried` the host has taken a
    /// chunk in this session.
    pub(super) fn behind(before: Vec<u8>, is_tried: bool) -> Self {
        let outgoing = Some(Outgoing::counted(before));
        Self { outgoing, held: Vec::new(), gone: 0, size: CHUNK_BYTES, is_open: false, is_tried }
    }

    /// Whether the only chunk that was sent has one octet and no answer.
    pub(super) fn is_trial(&self) -> bool {
        self.is_open && !self.is_tried
    }

    /// Whether a chunk was sent in this session.
    pub(super) fn is_begun(&self) -> bool {
        self.is_open || self.is_tried
    }

    /// The host took one; `false` if there was none that it could have meant.
    pub(super) fn taken(&mut self) -> bool {
        if self.is_tried {
            self.size = CHUNK_BYTES_MAX.min(self.size * 2);
        }
        self.is_tried |= self.is_open;
        mem::take(&mut self.is_open)
    }

    /// Takes the next piece of content, of any size.
    ///
    /// # Errors
    /// As [`Outgoing::piece`]: no octet of the piece leaves.
    pub(super) fn piece(&mut self, content: &[u8]) -> Result<(), LineError> {
        self.held.drain(..mem::take(&mut self.gone));
        self.outgoing.as_mut().map_or(Ok(()), |outgoing| outgoing.piece(content, &mut self.held))
    }

    /// There is no more content. Returns whether there was any.
    ///
    /// # Errors
    /// As [`Outgoing::finish`].
    pub(super) fn finish(&mut self) -> Result<bool, LineError> {
        self.outgoing.take().map_or(Ok(()), |outgoing| outgoing.finish(&mut self.held))?;
        Ok(!self.rest().is_empty())
    }

    /// What is to be done next.
    pub(super) fn next(&mut self) -> Step {
        let rest = self.rest().len();
        let length = if self.is_open {
            return Step::Answers;
        } else if !self.is_tried && rest > 0 {
            1
        } else if rest > self.size {
            // The last one has some.
            self.size
        } else if self.outgoing.is_some() {
            return Step::Content;
        } else {
            return Step::Last;
        };
        self.is_open = true;
        let (octets, _) = self.rest().split_at(length);
        let chunk = chunk(octets, "");
        self.gone += length;
        Step::Chunk(chunk)
    }

    /// The last chunk, at [`Step::Last`].
    pub(super) fn last(&self) -> Vec<u8> {
        chunk(self.rest(), " LAST")
    }

    fn rest(&self) -> &[u8] {
        self.held.get(self.gone..).unwrap_or_default()
    }
}

fn chunk(octets: &[u8], last: &str) -> Vec<u8> {
    [format!("BDAT {}{last}\r\n", octets.len()).as_bytes(), octets].concat()
}
