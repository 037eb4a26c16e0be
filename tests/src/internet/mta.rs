//! A receiving MTA on loopback: it takes every message for everyone and remembers exactly what came.
//!
//! What it keeps is the bytes between DATA and the final dot, unstuffed, or those of BDAT's chunks, and otherwise as received.
//! With a directory it is the independent half of a storm's books: each message is a `.eml` and a
//! `.json` file, written under another name, fsynced and renamed **before** its 250, so that
//! whatever happens to the sender there is no 250 without the file. It outlives any client, however
//! rudely the client ends; one session never disturbs another.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::rules::{Action, Rule, Stage, decide};
use super::session;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// The pause after the system refused a connection, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What STARTTLS does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartTls {
    /// It is not offered.
    Absent,
    /// It is offered and works, with a self-signed certificate.
    #[default]
    SelfSigned,
    /// It is offered, and the handshake fails.
    Broken,
    /// It is offered, and refused for the moment (454, RFC 3207 §4).
    NotNow,
    /// TLS comes from the first byte instead, with a self-signed certificate.
    Implicit,
}

/// What kind of host this is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The name it gives itself.
    pub name: String,
    /// What STARTTLS does.
    pub starttls: StartTls,
    /// Whether it takes 8-bit content (RFC 6152).
    pub eight_bit_mime: bool,
    /// Whether it takes addresses beyond ASCII (RFC 6531).
    pub smtputf8: bool,
    /// Whether it is told what senders want to hear of their mail (RFC 3461). It never tells them.
    pub dsn: bool,
    /// Whether it passes on that a message may go under TLS only (RFC 8689). Offered under TLS.
    pub require_tls: bool,
    /// Whether it takes content in chunks (RFC 3030).
    pub chunking: bool,
    /// The largest message, in octets (RFC 1870).
    pub size_max: u64,
    /// Whether it speaks LMTP (RFC 2033), with an answer to the dot for each recipient, and not SMTP.
    pub lmtp: bool,
    /// The user and the password without whom it takes nothing (RFC 4954), offered under TLS only.
    pub login: Option<(String, String)>,
    /// Sessions that it has at once; whoever connects beyond that is answered 421.
    pub sessions_max: Option<usize>,
    /// A directory that also keeps each message, durably, before its 250.
    pub keep_in: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: "mx.remote.example".into(),
            starttls: StartTls::default(),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: false,
            require_tls: false,
            chunking: false,
            size_max: 64 * 1024 * 1024,
            lmtp: false,
            login: None,
            sessions_max: None,
            keep_in: None,
        }
    }
}

/// One message as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Mail {
    /// 1 for the first this MTA ever took.
    pub number: u64,
    /// Milliseconds since 1970, just before the 250.
    pub at: u64,
    /// Who connected.
    pub peer: SocketAddr,
    /// What the peer called itself.
    pub hello: String,
    /// Whether it came under TLS.
    pub tls: bool,
    /// As whom the peer had logged in.
    pub user: Option<String>,
    /// The reverse-path; empty for `<>`.
    pub reverse_path: String,
    /// Whether its content came in chunks.
    pub chunked: bool,
    /// What followed the reverse-path, such as `BODY=8BITMIME`.
    pub parameters: Vec<String>,
    /// The forward-paths.
    pub recipients: Vec<String>,
    /// What followed each forward-path that was taken, such as `NOTIFY=NEVER`.
    pub recipient_parameters: Vec<Vec<String>>,
    /// BLAKE3 of `data`, in hex.
    pub digest: String,
    /// The message as received, dots unstuffed.
    #[serde(skip)]
    pub data: Vec<u8>,
}

/// Fewer messages came than were waited for.
#[derive(Debug, thiserror::Error)]
#[error("what was waited for did not arrive in {within:?}; {arrived} messages had")]
pub struct NotArrived {
    /// How many had arrived.
    pub arrived: usize,
    /// How long was waited.
    pub within: Duration,
}

/// A running MTA. It stops, with its sessions, when it is dropped.
pub struct Mta {
    address: SocketAddr,
    host: Arc<Host>,
    accepting: JoinHandle<()>,
}

impl Mta {
    /// Starts one.
    pub async fn start(options: Options) -> io::Result<Self> {
        let socket = if options.listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(options.listen)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let host = Arc::new(Host::new(options)?);
        let served = host.clone();
        let accepting = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        served.connections.fetch_add(1, Ordering::Relaxed);
                        sessions.spawn(session::run(served.clone(), stream, peer));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
                while sessions.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, host, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.host.certificate
    }

    /// Adds an unkindness, after those there are.
    pub fn add_rule(&self, rule: Rule) {
        self.host.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// Whether every unkindness has been done as often as it was to be: the session under way is at it now, or past it.
    pub fn is_used_up(&self) -> bool {
        self.host.rules.lock().unwrap_or_else(PoisonError::into_inner).iter().all(Rule::is_used_up)
    }

    /// Is kind again.
    pub fn clear_rules(&self) {
        self.host.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many messages at once it has been taking, at most.
    pub fn most_at_once(&self) -> usize {
        self.host.taking.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// How often somebody has connected.
    pub fn connections(&self) -> u64 {
        self.host.connections.load(Ordering::Relaxed)
    }

    /// How many were answered 421, for there was no place for another session.
    pub fn turned_away(&self) -> usize {
        self.host.turned_away.load(Ordering::Relaxed)
    }

    /// Everything kept so far, in order.
    pub fn mail(&self) -> Vec<Arc<Mail>> {
        self.host.kept.borrow().clone()
    }

    /// Waits until `count` messages have been kept, and gives all there are.
    pub async fn wait_for(&self, count: usize, within: Duration) -> Result<Vec<Arc<Mail>>, NotArrived> {
        self.wait_until(within, |mail| mail.len() >= count).await
    }

    /// Waits until what has been kept satisfies `enough`, and gives it.
    pub async fn wait_until(
        &self,
        within: Duration,
        mut enough: impl FnMut(&[Arc<Mail>]) -> bool,
    ) -> Result<Vec<Arc<Mail>>, NotArrived> {
        let mut kept = self.host.kept.subscribe();
        let waited = tokio::time::timeout(within, kept.wait_for(|mail| enough(mail))).await;
        match waited {
            Ok(Ok(mail)) => Ok(mail.clone()),
            _ => Err(NotArrived { arrived: self.host.kept.borrow().len(), within }),
        }
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What all sessions share.
pub(super) struct Host {
    pub(super) options: Options,
    pub(super) tls: Option<TlsAcceptor>,
    certificate: String,
    rules: Mutex<Vec<Rule>>,
    kept: watch::Sender<Vec<Arc<Mail>>>,
    numbers: AtomicU64,
    connections: AtomicU64,
    /// A permit for each session that there may be.
    pub(super) places: Semaphore,
    pub(super) turned_away: AtomicUsize,
    /// Messages whose content is being taken, and the most of them that there were at once.
    taking: Mutex<(usize, usize)>,
}

/// A message whose content is being taken, until this is dropped.
pub(super) struct Taking<'h>(&'h Host);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.taking.lock().unwrap_or_else(PoisonError::into_inner).0 -= 1;
    }
}

impl Host {
    fn new(options: Options) -> io::Result<Self> {
        let last = match &options.keep_in {
            Some(directory) => last_number(directory)?,
            None => 0,
        };
        let (acceptor, certificate) = crate::tls::self_signed_acceptor(&options.name);
        Ok(Self {
            tls: matches!(options.starttls, StartTls::SelfSigned | StartTls::Implicit).then_some(acceptor),
            certificate,
            rules: Mutex::default(),
            kept: watch::Sender::default(),
            numbers: AtomicU64::new(last + 1),
            connections: AtomicU64::new(0),
            places: Semaphore::new(options.sessions_max.unwrap_or(Semaphore::MAX_PERMITS)),
            turned_away: AtomicUsize::new(0),
            taking: Mutex::default(),
            options,
        })
    }

    /// The content of a message is being taken from here on.
    pub(super) fn takes(&self) -> Taking<'_> {
        let mut taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        taking.0 += 1;
        taking.1 = taking.1.max(taking.0);
        Taking(self)
    }

    /// What the rules say about this point of a session.
    pub(super) fn decide(&self, stage: Stage, recipients: &[String]) -> Vec<Action> {
        decide(&mut self.rules.lock().unwrap_or_else(PoisonError::into_inner), stage, recipients)
    }

    /// Takes a message: once this returns, it is here to stay.
    pub(super) async fn keep(self: Arc<Self>, mut mail: Mail) -> io::Result<()> {
        mail.number = self.numbers.fetch_add(1, Ordering::Relaxed);
        mail.digest = blake3::hash(&mail.data).to_hex().to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        mail.at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mail = Arc::new(mail);
        if let Some(directory) = self.options.keep_in.clone() {
            let copy = mail.clone();
            tokio::task::spawn_blocking(move || write(&directory, &copy))
                .await
                .map_err(io::Error::other)??;
        }
        self.kept.send_modify(|kept| kept.push(mail));
        Ok(())
    }
}

/// The highest number already used in `directory`, which is made if it is not there.
fn last_number(directory: &Path) -> io::Result<u64> {
    fs::create_dir_all(directory)?;
    let mut last = 0;
    for entry in fs::read_dir(directory)? {
        let number = entry?.path().file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        last = last.max(number.unwrap_or(0));
    }
    Ok(last)
}

/// The `.json` is renamed last: a message is there when its `.json` is.
fn write(directory: &Path, mail: &Mail) -> io::Result<()> {
    let json = serde_json::to_vec(mail)?;
    for (kind, bytes) in [("eml", &mail.data), ("json", &json)] {
        let unfinished = directory.join(format!(".{:08}.{kind}", mail.number));
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, directory.join(format!("{:08}.{kind}", mail.number)))?;
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
