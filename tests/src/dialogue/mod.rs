//! The POP3 conformance suite: dialogues in data files (`tests/pop3`), which any server can be held to.
//!
//! A dialogue is one client's conversation: what is sent, and what must come. It is written for people to
//! read, beside the RFCs; [`script`] says how. [`run`] holds a [`Server`] to it: the session as a state machine
//! ([`machine`]), the edge that listens ([`edge`]), or another product.

pub mod edge;
pub mod machine;
pub mod run;
pub mod script;

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::wait::Trouble;
use crate::wire::Wire;

/// A message in a maildrop, as the server serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// What the server has put on top of it.
    pub trace: Vec<u8>,
    /// The message as it was sent, every line ended.
    pub content: Vec<u8>,
}

/// A maildrop that was made for one dialogue.
#[derive(Clone, Debug)]
pub struct Maildrop {
    /// Who logs in.
    pub user: String,
    /// By what.
    pub password: String,
    /// What is in it, in order of message numbers.
    pub messages: Vec<Served>,
}

/// A server that dialogues are tried with.
#[async_trait(?Send)]
pub trait Server {
    /// Whether it has what a dialogue needs.
    fn has(&self, feature: &str) -> bool;

    /// Makes a user with a maildrop of these messages, by their names.
    async fn maildrop(&mut self, messages: &[script::Message]) -> Result<Maildrop, Trouble>;

    /// A new connection, before the greeting; under TLS if so asked.
    async fn connect(&mut self, tls: bool) -> Result<Box<dyn Peer>, Trouble>;

    /// Lets time pass, where it can be told to.
    fn wait(&mut self, _seconds: u64) {}

    /// Makes the next step of that name fail, where that can be told.
    fn fault(&mut self, _step: &str) {}
}

/// One connection to a server.
#[async_trait(?Send)]
pub trait Peer {
    /// Sends octets.
    async fn send(&mut self, octets: &[u8]) -> std::io::Result<()>;

    /// The next line with its CRLF.
    ///
    /// # Errors
    /// `TimedOut` if nothing comes, another one once the server has closed.
    async fn line(&mut self) -> std::io::Result<Vec<u8>>;

    /// Goes over to TLS.
    async fn start_tls(&mut self) -> std::io::Result<()>;

    /// What a login can be bound to.
    fn exporter(&self) -> Option<[u8; 32]>;
}

#[async_trait(?Send)]
impl Peer for Wire {
    async fn send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        Self::send(self, octets).await
    }

    async fn line(&mut self) -> std::io::Result<Vec<u8>> {
        Self::line(self).await
    }

    async fn start_tls(&mut self) -> std::io::Result<()> {
        Self::start_tls(self).await
    }

    fn exporter(&self) -> Option<[u8; 32]> {
        Self::exporter(self)
    }
}

/// Where the suite lies in the source tree.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pop3")
}
