//! The fuzz targets: whatever bytes they are given, nothing of the link, of the store's format or of messages panics,
//! and what the code promises of itself holds.
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
//! | [`records`] | what is written to a segment, and what damages it | every whole record is found, and nothing else |

mod frames;
mod hello;
mod mime;
mod records;
mod script;
pub mod seeds;
mod session;
mod units;

pub use frames::frames;
pub use hello::hello;
pub use mime::mime;
pub use records::records;
pub use session::session;
pub use units::{is_read, rewritten, units};

/// Bytes of one input; what is longer is cut.
pub const BYTES_MAX: usize = 4096;

/// Takes one input, and panics where it finds something wrong.
pub type Target = fn(&[u8]);

/// Every target and its name, which is that of its corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("hello", hello),
    ("frames", frames),
    ("units", units),
    ("session", session),
    ("records", records),
    ("mime", mime),
];
