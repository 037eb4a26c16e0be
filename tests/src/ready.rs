//! The one line of JSON by which a node, or the pair, says that it is ready and where it is.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What edge-node prints: where it listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EdgeReady {
    /// Always true.
    pub ready: bool,
    /// Port 25's role.
    pub smtp: Vec<SocketAddr>,
    /// Port 587's role.
    pub submission: Vec<SocketAddr>,
    /// Port 465's role.
    pub submissions: Vec<SocketAddr>,
    /// Port 110's role.
    pub pop3: Vec<SocketAddr>,
    /// Port 995's role.
    pub pop3s: Vec<SocketAddr>,
    /// Port 80's role, for the certificate's authority.
    pub http: Vec<SocketAddr>,
    /// The peer link, UDP.
    pub link: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// Its control socket.
    pub control: PathBuf,
}

/// What big-node prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BigReady {
    /// Always true.
    pub ready: bool,
    /// Its process.
    pub pid: u32,
    /// Its control socket.
    pub control: PathBuf,
}

/// What `pair --json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairReady {
    /// Always true.
    pub ready: bool,
    /// The node in the DMZ.
    pub edge: PairEdge,
    /// The node inside.
    pub big: PairBig,
    /// The peer link.
    pub link: PairLink,
    /// Who has a mailbox.
    pub people: Vec<PairPerson>,
    /// The stand-in Internet.
    pub internet: PairInternet,
    /// The topology file that both nodes read.
    pub topology: PathBuf,
}

/// The pair's edge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairEdge {
    /// Its process.
    pub pid: u32,
    /// Port 25's role.
    pub smtp: SocketAddr,
    /// Port 587's role.
    pub submission: SocketAddr,
    /// Port 465's role.
    pub submissions: SocketAddr,
    /// Port 110's role.
    pub pop3: SocketAddr,
    /// Port 995's role.
    pub pop3s: SocketAddr,
    /// Its state.
    pub state: PathBuf,
}

/// The pair's big.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairBig {
    /// Its process.
    pub pid: u32,
    /// Its control socket.
    pub control: PathBuf,
    /// Its state.
    pub state: PathBuf,
}

/// The pair's link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairLink {
    /// Where edge listens, UDP.
    pub address: SocketAddr,
}

/// One person of the pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairPerson {
    /// The local name.
    pub name: String,
    /// The address.
    pub address: String,
    /// What POP3 and submission ask for; only travellers have one.
    pub password: Option<String>,
}

/// The pair's stand-in Internet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairInternet {
    /// Its DNS server.
    pub dns: SocketAddr,
    /// Its receiving MTA.
    pub smtp: SocketAddr,
    /// A domain whose mail that MTA takes.
    pub domain: String,
    /// Where it keeps each message, as a `.eml` and a `.json` file.
    pub mailbox_dir: PathBuf,
}
