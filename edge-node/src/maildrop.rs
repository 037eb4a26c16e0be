//! Drives POP3 sessions on the secondary mailboxes.
//!
//! A login opens the window's private key, which lives as long as the session, in the maildrop that it locks (`locked`);
//! messages are opened with it as they are read, and the next one before it is asked for (`ahead`). What the client did
//! goes to big as events, queued in the commit that deletes.

mod ahead;
#[cfg(feature = "sim")]
pub mod collecting;
mod locked;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::listener::{Acceptor, Listener, Stream};
use shared::pop3::{Action, Config, End, Session};
use shared::telemetry::Quoted;
use shared::wipe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

pub use self::locked::LastLogins;
use self::locked::{Maildrop, end_of};
use crate::content::Content;
use crate::node::Node;

/// Octets read from the network at once.
const READ_BYTES: usize = 4 * 1024;
/// How long a client may take to accept what it asked for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// One of the edge's POP3 services.
#[derive(Clone)]
pub struct Service {
    /// The node it serves.
    pub node: Arc<Node>,
    /// Its certificate.
    pub acceptor: Acceptor,
    /// TLS comes first (port 995).
    pub implicit_tls: bool,
    /// Logins in the clear are taken from this host itself: for the bench, see [`for_the_bench`].
    pub clear_logins: bool,
    /// Becomes true when the node is going down.
    pub stopping: watch::Receiver<bool>,
}

/// Whether logins are taken in the clear from this host's own loopback, so that what TLS costs can be measured. Only a
/// program that is not the edge's own asks for that, see [`crate::harness::take_clear_logins`].
#[cfg(feature = "sim")]
pub fn for_the_bench() -> bool {
    crate::harness::takes_clear_logins()
}

/// Whether logins are taken in the clear: never.
#[cfg(not(feature = "sim"))]
pub fn for_the_bench() -> bool {
    false
}

impl Service {
    /// Serves connections until the node goes down.
    pub async fn run(self, listener: Listener) {
        let stopping = self.stopping.clone();
        listener.serve(stopping, |stream, peer| self.clone().connection(stream, peer)).await;
    }

    async fn connection(self, stream: Stream, peer: SocketAddr) -> io::Result<()> {
        let mut maildrop = None;
        let ended = self.session(stream, peer, &mut maildrop).await;
        // A session that does not come to QUIT deletes nothing, but it may have shown much.
        if let Some(maildrop) = maildrop {
            maildrop.abandon().await.map_err(io::Error::other)?;
        }
        ended
    }

    async fn session(
        &self,
        mut stream: Stream,
        peer: SocketAddr,
        maildrop: &mut Option<Maildrop>,
    ) -> io::Result<()> {
        let start = Instant::now();
        if self.implicit_tls {
            stream = stream.start_tls(&self.acceptor).await?;
        }
        let config = Config {
            login_delay: self.node.topology.edge.login_delay,
            plaintext_login: self.clear_logins && peer.ip().is_loopback(),
            ..Config::default()
        };
        let mut session = Session::new(config, self.implicit_tls, start.elapsed());
        session.bound_to(stream.exporter());
        let mut reading: Option<Content> = None;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            while let Some(action) = session.poll(start.elapsed()) {
                match action {
                    Action::Send(bytes) => {
                        tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await??;
                        stream.flush().await?;
                    }
                    Action::StartTls => {
                        stream = stream.start_tls(&self.acceptor).await?;
                        session.tls_established();
                        session.bound_to(stream.exporter());
                    }
                    Action::Keys(user) => session.keys(self.node.scram_keys(&user).ok().as_ref()),
                    Action::Authenticate(credentials) => {
                        wipe::stack();
                        let user = credentials.user.clone();
                        let verdict = match Maildrop::open(&self.node, credentials, peer.ip()).await {
                            Ok((locked, opened)) => {
                                let messages = opened.entries.len();
                                tracing::info!(%peer, user = %Quoted(&user), messages, "POP3 login");
                                *maildrop = Some(locked);
                                Ok(opened)
                            }
                            Err(refusal) => {
                                tracing::warn!(%peer, user = %Quoted(&user), ?refusal, "POP3 login refused");
                                Err(refusal)
                            }
                        };
                        session.authenticated(verdict);
                    }
                    Action::Fetch { entry, next, .. } => {
                        let read = maildrop.as_mut().ok_or(End::Later);
                        match read.and_then(|maildrop| maildrop.read(entry, next)) {
                            Ok(content) => reading = Some(content),
                            Err(end) => session.content_end(end),
                        }
                    }
                    Action::Commit { deleted, retrieved } => {
                        let done = match maildrop.take() {
                            Some(maildrop) => maildrop.commit(&deleted, &retrieved).await,
                            None => Ok(()),
                        };
                        session.committed(done.is_ok());
                    }
                    Action::Close => return stream.shutdown().await,
                }
            }
            if let Some(message) = &mut reading {
                if maildrop.as_mut().is_some_and(|maildrop| !maildrop.is_open()) {
                    return stream.shutdown().await;
                }
                match message.next() {
                    Ok(Some(piece)) if session.content(&piece) => {}
                    // The end, or as much of it as TOP wanted.
                    Ok(_) => {
                        reading = None;
                        session.content_end(End::Whole);
                    }
                    Err(error) => {
                        tracing::error!(%error, "a message in a secondary mailbox cannot be read");
                        reading = None;
                        session.content_end(end_of(&error));
                    }
                }
                continue;
            }
            if !session.wants_input() {
                continue;
            }
            if let Some(maildrop) = maildrop.as_mut() {
                maildrop.read_ahead();
            }
            let wait = session.deadline().saturating_sub(start.elapsed());
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => session.disconnected(),
                    Ok(length) => session.receive(&buffer[..length], start.elapsed()),
                },
                () = tokio::time::sleep(wait) => session.handle_timeout(start.elapsed()),
                // With the window ends every session in it; nobody is left to whom an answer could be promised.
                () = over(maildrop.as_mut()) => return stream.shutdown().await,
            }
        }
    }
}

/// Returns when the window of a session has ended; without one, never.
async fn over(maildrop: Option<&mut Maildrop>) {
    match maildrop {
        Some(maildrop) => maildrop.over().await,
        None => std::future::pending().await,
    }
}
