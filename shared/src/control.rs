//! The control socket: how commands on the same host speak to a running node.
//!
//! A Unix socket, mode 0600 in a folder of mode 0700. One request and one answer per connection,
//! each a JSON value and a body:
//!
//! ```text
//! length of the JSON (u32 BE) | JSON | length of the body (u64 BE) | body
//! ```
//!
//! The socket admits the account the node runs as, and root; the handler is told which. A client
//! that sends too much, too little, too slowly or no JSON loses its connection, and nobody else
//! notices. Each length is checked before memory is given to it.
//!
//! A node may serve a second socket of the same kind for everybody on its host: each account gets a share of it,
//! and what it may ask is the handler's to say. A node that serves both keeps them apart.
//!
//! [`Server`] is the node's half, [`call`] the command's.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::{CallError, call};
pub use server::{BindError, Peer, Server};

/// Octets of JSON in a request.
pub const REQUEST_MAX: usize = 1 << 20;
/// Octets of JSON in an answer: a long list is longer than any request.
pub const ANSWER_MAX: usize = 16 << 20;
/// Connections at once; the next is closed unheard.
pub const CONNECTIONS_MAX: usize = 128;
/// Connections at once to a socket for everybody.
pub const PEOPLE_CONNECTIONS_MAX: usize = 512;
/// Of those, from one account.
pub const ACCOUNT_CONNECTIONS_MAX: usize = 8;

/// A request that was understood and not granted: the reason and the mend, for the person who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Where the control socket of the node that keeps its state in `state` is.
pub fn socket_in(state: &Path) -> PathBuf {
    state.join("control")
}

/// What an answer's JSON is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    /// The request was granted.
    Done(T),
    /// It was not.
    Refused(String),
}
