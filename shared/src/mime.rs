//! Everything that reads a message's structure, and what writes one (RFC 5322, RFC 2045 to 2049,
//! RFC 2231, RFC 3464, RFC 8460).
//!
//! Two depths, kept apart. The *header scan* ([`HeaderScan`], [`HeaderFacts`]) is bounded and may run
//! while a message is being accepted; so may [`Reencoding`], which follows the parts of a message that
//! comes in octets and not in lines. Everything else ([`scan`], [`text_of`], [`attachments`]) runs
//! only where somebody reads, never on the accept path.
//!
//! All input is hostile. Reading is linear in the octets, does not recurse, and has a named limit
//! for everything that can be counted; a message over a limit is [`TooComplex`] and is shown raw.
//! Nothing here changes a message, but for [`Reencoding`], before it is ours: what is decoded is for
//! display, the stored octets stay.
//! mail-parser converts charsets and reduces HTML of single parts; it never sees a whole message.

mod address_list;
mod aggregate;
mod compose;
mod decode;
mod dsn;
mod entity;
mod facts;
mod file_name;
mod header;
mod html;
mod parameters;
mod reading;
mod reencoding;
mod structure;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod words;
mod write;

pub use address_list::{ADDRESSES_MAX, Mailbox};
pub use aggregate::{AggregateLetter, dmarc_report, tls_report};
pub use compose::{Draft, DraftMailbox, Identity, NewAttachment, compose, compose_as, message_id};
pub use dsn::{Action, DsnRecipient, DsnReport, dsn};
pub use entity::{attached_message, entity};
pub use facts::{HeaderFacts, ListPost, REFERENCES_MAX};
pub use file_name::{FILE_NAME_MAX, file_name};
pub use header::{
    Field, HEADER_BLOCK_MAX, HEADERS_MAX, HeaderScan, fields, find, has_fields_alone, header_len, without,
};
pub use reading::{Attachment, Kind, Opened, TEXT_MAX, attachments, open, text_of};
pub use reencoding::{NotLines, Reencoding};
pub use structure::{DEPTH_MAX, Disposition, Encoding, PARTS_MAX, Part, Structure, TooComplex, scan};
