//! Many messages over many SMTP connections, as fast as the server answers.
//!
//! With PIPELINING (RFC 2920) MAIL, RCPT and DATA travel together, and the next message's travel with
//! this one's dot: a connection pays one round trip a message. What became of each message is told
//! one by one, with the same three-way honesty as [`SendError`](super::smtp::SendError), so that a
//! ledger can be kept under fire; a lost connection is made again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::smtp::{ANSWER_WITHIN, Reply, SmtpClient, read_reply};
use crate::wire::{Wire, dot_stuffed};

/// The pause before a connection that cannot be made is tried again.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// How the load is applied.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub to: SocketAddr,
    /// Connections at once.
    pub connections: usize,
    /// Messages over one connection before it is closed and made anew.
    pub per_connection: usize,
    /// How long a connection that cannot be made is tried again before a message counts as not sent:
    /// the server may be starting.
    pub patience: Duration,
    /// User and password, for submission; also means STARTTLS.
    pub login: Option<(String, String)>,
}

/// One message to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Reverse-path.
    pub from: String,
    /// Forward-path.
    pub to: String,
    /// The message, in CRLF lines, not dot-stuffed.
    pub data: Vec<u8>,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 250 after the dot, so long after MAIL was sent or could have been.
    Accepted(Duration),
    /// Refused with this reply; the server has not taken it.
    Refused(Reply),
    /// The connection was lost after the dot may have left.
    InDoubt,
    /// The connection could not be made or was lost before the dot.
    NotSent,
}

/// The sum of a load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Messages answered 250.
    pub accepted: u64,
    /// Messages refused.
    pub refused: u64,
    /// Messages of unknown fate.
    pub in_doubt: u64,
    /// Messages that never got that far.
    pub not_sent: u64,
    /// From the first connection to the last answer.
    pub elapsed: Duration,
    /// How long each accepted message took, sorted.
    pub latencies: Vec<Duration>,
}

impl Report {
    /// Accepted messages a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that `percent` of a hundred accepted messages stayed within.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get(last * percent.min(100) / 100).copied()
    }

    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Accepted(latency) => {
                self.accepted += 1;
                self.latencies.push(*latency);
            }
            Outcome::Refused(_) => self.refused += 1,
            Outcome::InDoubt => self.in_doubt += 1,
            Outcome::NotSent => self.not_sent += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.in_doubt += other.in_doubt;
        self.not_sent += other.not_sent;
        self.latencies.extend(other.latencies);
    }
}

/// Sends messages 0, 1, 2, …, each made by `make` when its turn comes, until `make` has no more, and
/// tells `told` what became of each. No message is tried twice: a retry is a new message of the
/// caller's.
pub async fn drive(
    plan: Plan,
    make: impl Fn(u64) -> Option<Outgoing> + Send + Sync + 'static,
    told: impl Fn(u64, &Outcome) + Send + Sync + 'static,
) -> Report {
    let shared = Arc::new(Shared { next: AtomicU64::new(0), plan, make, told });
    let started = Instant::now();
    let mut lanes = JoinSet::new();
    for _ in 0..shared.plan.connections {
        let shared = shared.clone();
        lanes.spawn(async move { Connection { shared: &shared, report: Report::default() }.run().await });
    }
    let mut report = Report::default();
    while let Some(lane) = lanes.join_next().await {
        report.add(lane.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic())));
    }
    report.elapsed = started.elapsed();
    report.latencies.sort_unstable();
    report
}

/// A message and its number.
type Job = (u64, Outgoing);

struct Shared<M, T> {
    next: AtomicU64,
    plan: Plan,
    make: M,
    told: T,
}

impl<M: Fn(u64) -> Option<Outgoing>, T: Fn(u64, &Outcome)> Shared<M, T> {
    fn take(&self) -> Option<Job> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Some((number, (self.make)(number)?))
    }

    /// A session that is ready for MAIL, as soon as the server gives one.
    async fn connect(&self) -> Option<Wire> {
        let login = self.plan.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        let since = Instant::now();
        loop {
            if let Ok(client) = SmtpClient::ready(self.plan.to, login).await {
                return Some(client.into_wire());
            }
            if since.elapsed() >= self.plan.patience {
                return None;
            }
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }
}

/// One of the plan's connections, made again as often as it ends.
struct Connection<'a, M, T> {
    shared: &'a Shared<M, T>,
    report: Report,
}

impl<M: Fn(u64) -> Option<Outgoing>, T: Fn(u64, &Outcome)> Connection<'_, M, T> {
    async fn run(mut self) -> Report {
        while let Some(job) = self.shared.take() {
            match self.shared.connect().await {
                Some(mut wire) => self.converse(&mut wire, job).await,
                None => self.tell(&job, &Outcome::NotSent),
            }
        }
        self.report
    }

    /// Sends over one connection until it has carried its share, or is refused something, or is lost.
    async fn converse(&mut self, wire: &mut Wire, mut job: Job) {
        let mut started = Instant::now();
        // A connection lost here is seen by the read that follows.
        let _ = wire.send(envelope(&job.1).as_bytes()).await;
        for room in (0..self.shared.plan.per_connection).rev() {
            match begun(wire).await {
                Ok(None) => {}
                Ok(Some(reply)) => return self.tell(&job, &Outcome::Refused(reply)),
                Err(_) => return self.tell(&job, &Outcome::NotSent),
            }
            let next = if room > 0 { self.shared.take() } else { None };
            let after = next.as_ref().map_or_else(|| "QUIT\r\n".into(), |(_, mail)| envelope(mail));
            let reply = content(wire, &job.1.data, &after).await;
            let outcome = match reply {
                Ok(reply) if reply.code == 250 => Outcome::Accepted(started.elapsed()),
                Ok(reply) => Outcome::Refused(reply),
                Err(_) => Outcome::InDoubt,
            };
            self.tell(&job, &outcome);
            let Some(next) = next else { return };
            job = next;
            started = Instant::now();
        }
    }

    fn tell(&mut self, (number, _): &Job, outcome: &Outcome) {
        self.report.count(outcome);
        (self.shared.told)(*number, outcome);
    }
}

fn envelope(mail: &Outgoing) -> String {
    format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", mail.from, mail.to)
}

/// Takes the answers to MAIL, RCPT and DATA: `None` if all were good, else the first that was not.
async fn begun(wire: &mut Wire) -> io::Result<Option<Reply>> {
    for _ in 0..3 {
        let reply = answer(wire).await?;
        if !reply.is_positive() {
            return Ok(Some(reply));
        }
    }
    Ok(None)
}

/// Sends a message and its dot, with what follows in the same write, and takes the dot's answer.
async fn content(wire: &mut Wire, message: &[u8], after: &str) -> io::Result<Reply> {
    let mut bytes = dot_stuffed(message);
    bytes.extend_from_slice(b".\r\n");
    bytes.extend_from_slice(after.as_bytes());
    wire.send(&bytes).await?;
    answer(wire).await
}

async fn answer(wire: &mut Wire) -> io::Result<Reply> {
    tokio::time::timeout(ANSWER_WITHIN, read_reply(wire)).await?
}
