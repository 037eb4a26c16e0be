//! The conformance suites of POP3 and SMTP: dialogues in data files (`tests/pop3`, `tests/smtp`), which any server can
//! be held to.
//!
//! A dialogue is one client's conversation: what is sent, and what must come. It is written for people to
//! read, beside the RFCs; [`script`] says how. [`run`] holds a [`Server`] to it: the session as a state machine
//! ([`machine`], [`smtp_machine`]), the edge that listens ([`edge`], [`smtp_edge`]), or another product ([`remote`],
//! [`smtp_remote`]).

pub mod differences;
pub mod edge;
pub mod machine;
pub mod remote;
pub mod run;
pub mod script;
pub mod smtp_edge;
pub mod smtp_machine;
pub mod smtp_remote;

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
    /// The address of who logs in; empty, where nobody sends.
    pub address: String,
    /// What is in it, in order of message numbers.
    pub messages: Vec<Served>,
}

/// A server that dialogues are tried with.
#[async_trait(?Send)]
pub trait Server {
    /// What it speaks.
    fn protocol(&self) -> Protocol {
        Protocol::Pop3
    }

    /// Whether it has what a dialogue needs.
    fn has(&self, feature: &str) -> bool;

    /// Makes what a dialogue `on` that service needs: a user, with a maildrop of these messages, by their names.
    async fn maildrop(&mut self, on: &str, messages: &[script::Message]) -> Result<Maildrop, Trouble>;

    /// A new connection `on` that service, before the greeting.
    async fn connect(&mut self, on: &str) -> Result<Box<dyn Peer>, Trouble>;

    /// The messages that it has taken since [`maildrop`](Self::maildrop), without what it has put on top of them;
    /// `None`, if it cannot be asked.
    async fn kept(&mut self) -> Result<Option<Vec<Vec<u8>>>, Trouble> {
        Ok(None)
    }

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

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// POP3.
    Pop3,
    /// SMTP.
    Smtp,
}

impl Protocol {
    /// Where its suite lies in the source tree.
    pub fn folder(self) -> PathBuf {
        let name = match self {
            Self::Pop3 => "pop3",
            Self::Smtp => "smtp",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }
}
