//! Big: what an organisation keeps inside.
//!
//! It holds the mailboxes and the master directory, files and routes mail, dials the edge, and hands mail
//! to other mail systems inside. It opens no Internet-facing socket and resolves no names; commands reach
//! it over a Unix socket.

mod aggregate;
mod asked;
pub mod cli;
mod command;
mod compare;
mod conversation;
mod delay;
mod desk;
mod difference;
pub mod directory;
mod dkim;
mod ebcdic;
mod error;
mod folder;
mod gateway;
mod generation;
#[cfg(feature = "sim")]
pub mod harness;
mod inbound;
mod inventory;
mod link;
mod link_key;
mod mail;
mod maintenance;
mod node;
mod outcome;
mod part;
pub mod pressure;
mod privacy;
mod projection;
mod reconcile;
pub mod record;
mod redirect;
mod refusal;
mod report;
pub mod request;
mod revise;
mod sandbox;
pub mod serve;
#[cfg(test)]
mod tests;
mod travel;

pub use cli::cli;
