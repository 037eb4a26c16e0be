//! The fuzz targets: whatever bytes they are given, nothing of the link, of the store's format, of messages, of what strangers
//! say by SMTP and POP3, of addresses or of the topology panics, and what the code promises of itself holds.
//!
//! One plain function per target. `tests/fuzz` runs them under libFuzzer; the plain tests run the same
//! functions over the committed corpora (`tests/fuzz/corpus`), so a case that was found once is tried for
//! ever. `tests/fuzz` compiles this module as a crate of its own: it names nothing else of the harness.
//!
//! | target | bytes are | what is asserted |
//! |---|---|---|
//! | [`hello`] | who both nodes are, then a stream that begins with a HELLO | the edge's and big's judgement is the one in the table of `session::opening`, made here a second time |
//! | [`frames`] | how the stream is cut, then the stream | the same frames however it is cut; each comes back when it is encoded |
//! | [`units`] | which type, then its bytes | what can be read comes back when it is written |
//! | [`session`] | what two nodes and their stores do, step by step | see [`session`] |
//! | [`mime`](mime()) | a message | limits hold, names are safe, what is taken apart is the same when it is put together, and what is made lines is lines wherever it is cut |
//! | [`smtp`](smtp()) | which service, how the stream is cut, then what a stranger says | the same replies and messages however it is cut; 250 for what was handed over, once and as it was sent; replies of printable lines within 512 octets; no login in clear; limits hold |
//! | [`reply`](reply()) | what our client is told, what its messages are, how the stream is cut, then what a host says | the same however it is cut; one outcome for each recipient; nothing on what was said before TLS; nothing is sent that was not offered |
//! | [`pop3`](pop3()) | which service, how the stream is cut, then what a client says | the same however it is cut; lines of replies within 512 octets; what DELE has named is deleted, at QUIT and not otherwise |
//! | [`address`](address()) | an address, and what follows `MAIL FROM:` and `RCPT TO:` | what is read comes back when it is written, by itself and from our client to our server; nothing is written that ends a line or has to be quoted |
//! | [`topology`](topology()) | a topology file | what is refused has a place, a reason and a mend; what is valid has a figure |
//! | [`records`] | what is written to a segment, and what damages it | every whole record is found, and nothing else |

mod address;
mod cut;
mod frames;
mod hello;
mod mime;
mod pop3;
mod records;
mod reply;
mod script;
pub mod seeds;
mod session;
mod smtp;
mod topology;
mod units;

use shared::sasl::ScramKeys;

pub use address::address;
pub use frames::frames;
pub use hello::hello;
pub use mime::mime;
pub use pop3::pop3;
pub use records::records;
pub use reply::reply;
pub use session::session;
pub use smtp::smtp;
pub use topology::topology;
pub use units::{is_read, rewritten, units};

/// Bytes of one input; what is longer is cut.
pub const BYTES_MAX: usize = 4096;

/// Of whoever logs in by SCRAM at a target.
const KEYS: ScramKeys =
    ScramKeys { salt: [1; 16], iterations: 4096, stored_key: [2; 32], server_key: [3; 32], nonce: [4; 18] };

/// Takes one input, and panics where it finds something wrong.
pub type Target = fn(&[u8]);

/// Every target and its name, which is that of its corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("hello", hello),
    ("frames", frames),
    ("units", units),
    ("session", session),
    ("records", records),
    ("mime", mime),
    ("smtp", smtp),
    ("reply", reply),
    ("pop3", pop3),
    ("address", address),
    ("topology", topology),
];
