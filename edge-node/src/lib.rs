//! The edge: what faces the Internet.
//!
//! It receives mail and seals it before it reaches the disk, serves travellers, and delivers by DNS.
//! It holds no mailbox but the travellers' secondary ones and writes no directory; what it must know it
//! is told by big over the link.

mod acquainted;
mod aged;
mod aggregate;
mod apply;
mod authentication;
mod border;
mod certificate;
mod checks;
pub mod cli;
mod command;
mod content;
mod correspondents;
mod cover;
pub mod delivery;
mod directory;
mod doctor;
mod drain;
mod facts;
mod fence;
mod greylist;
#[cfg(feature = "sim")]
pub mod harness;
mod harvest;
mod intake;
mod interfaces;
mod inventory;
mod link;
mod link_key;
mod lists;
mod lockout;
mod login;
mod maildrop;
mod maintenance;
mod node;
pub mod pressure;
mod queue;
mod reception;
mod record;
mod renewal;
mod repeats;
pub mod request;
mod revise;
mod sandbox;
pub mod serve;
mod strangers;
mod vouch;
mod web;
mod windows;

pub use cli::cli;

/// What is freed is overwritten, whoever has freed it: passwords, keys and plaintext are also in buffers of the TLS
/// library's and of the async runtime's, which overwrite nothing themselves.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);
