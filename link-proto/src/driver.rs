//! The thin shell that moves a session's frames over QUIC and calls the node's [`Host`].
//!
//! | stream | opened by | carries | priority |
//! |---|---|---|---|
//! | control | big | opening, confirms, what concerns bodies | highest |
//! | `service`, `event` | big, at the same time | their lane, both ways | 2 |
//! | `inter` | big | its lane | 1 |
//! | `batch` | big | its lane | 0 |
//! | one per body | the sender | id, chunks, trailer | lowest |
//!
//! TLS 1.3 only, mutual, with raw Ed25519 public keys (RFC 7250) that are pinned: no CA, nothing that
//! expires. No 0-RTT, no tickets, no datagrams, no migration; every window and stream count is set.
//!
//! Invariants: one session at a time per node. The edge lets the newest connection win: it closes the
//! older one and waits until its commits have come to an end before it reads where the lanes stand,
//! so no two sessions ever move the same lane. A stream's FIN never means "complete". What a
//! connection still holds when it is lost is dropped; the next session finds out what was stored.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use quinn_proto::TransportErrorCode;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::frame::{FrameError, Refusal};
use crate::host::{Host, HostError, Opening, Partner};
use crate::session::{OPENING_TIME, Role, Session, SessionError, Start};
use crate::ticket::Ticket;

mod body;
mod close;
mod congestion;
mod engine;
mod handle;
mod key;
mod keys;
mod openings;
mod redial;
mod seat;
mod streams;
mod tls;
mod transport;
mod workers;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use close::CloseCode;
pub use handle::{Connected, Fault, FormerKeyShown, Handle, Status};
pub use key::{Key, KeyError};
pub use keys::{KeyRing, KeyStore, Keys, Rotation};

use body::Parts;
use close::{Said, close};
use engine::{Begun, Engine, Until};
use openings::{Openings, Place};
use redial::Redial;
use seat::{Seat, Shared};
use streams::Streams;
use tls::{Choice, Known};

/// Connections that the edge holds at once; all but one are in their opening, or closing.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of the sockets' buffers, as far as the system grants them.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Why a connection, or an attempt to make one, ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The session ended it.
    #[error("{0}")]
    Session(#[from] SessionError),
    /// The partner's bytes are no frames.
    #[error("the partner sent {0}")]
    Frame(#[from] FrameError),
    /// The node could not do what the link asked of it.
    #[error("this node could not go on: {0}")]
    Host(#[from] HostError),
    /// The network, TLS, or the partner closed it.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The partner admits other keys only.
    #[error(
        "the partner does not know this node's key: its store is new, or no invitation is open; run `edge-node \
         invite` there, then `big-node pair TICKET`, with --replace if an edge was paired before"
    )]
    NotAdmitted,
    /// The handshake took too long.
    #[error("the partner did not answer within {0:.1} s")]
    NoAnswer(f32),
    /// The partner closed it, and said whose fault that is. Both are the partner's word.
    #[error("the partner closed the connection: {}", Said(code, reason))]
    Closed {
        /// Why; `None` if this version knows no such code.
        code: Option<CloseCode>,
        /// More about it, printable and short; may be empty.
        reason: String,
    },
    /// The edge takes no connection now.
    #[error(
        "the edge takes no connection now: an operator holds its link closed, or too many are opening it"
    )]
    NotTaken,
    /// It is closed in favour of a newer one.
    #[error("a newer connection took over")]
    Superseded,
    /// One of the two nodes has another key.
    #[error("this node's key is another one now: the link is opened anew with it")]
    Rekeyed,
    /// An operator holds it closed.
    #[error("an operator holds the link closed; `link release` lets it come up again")]
    Held,
    /// A stream that has to stay open ended.
    #[error("the partner ended a stream, or opened the wrong ones")]
    Streams,
    /// Frames pile up that the partner does not read.
    #[error("the partner does not read what it is sent")]
    NotRead,
    /// The socket could not be opened.
    #[error("cannot open a UDP socket on {address}: {error}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// TLS could not be set up with this node's key.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The ticket has run out.
    #[error("the ticket has expired; run `edge-node invite` for a new one")]
    TicketExpired,
}

impl LinkError {
    /// Whether one of the two nodes did, or could not do, what ended it: neither the line, nor somebody's wish.
    fn is_fault(&self) -> bool {
        let code = match self {
            Self::Closed { code, .. } => *code,
            other => Some(CloseCode::of(other)),
        };
        matches!(code, Some(CloseCode::Protocol | CloseCode::Node | CloseCode::NotRead))
    }

    /// Whether the edge does not know the key it was shown, and may know another one of this node. It says so in TLS, or,
    /// while it invites somebody, to the hello.
    fn is_unknown_key(&self) -> bool {
        match self {
            Self::NotAdmitted => true,
            Self::Session(SessionError::RefusedBy(refused)) => refused.0.why == Refusal::Unknown,
            _ => false,
        }
    }
}

impl From<quinn::ConnectionError> for LinkError {
    fn from(error: quinn::ConnectionError) -> Self {
        match &error {
            quinn::ConnectionError::ApplicationClosed(said) => close::read(said.error_code, &said.reason),
            quinn::ConnectionError::ConnectionClosed(said)
                if said.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::NotTaken
            }
            quinn::ConnectionError::LocallyClosed => Self::Superseded,
            quinn::ConnectionError::ConnectionClosed(said) if said.error_code == tls::not_pinned() => {
                Self::NotAdmitted
            }
            quinn::ConnectionError::TransportError(error) if error.code == tls::not_pinned() => {
                SessionError::WrongKey.into()
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// The edge's end: it listens.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    keys: KeyRing,
}

impl Listener {
    /// Opens the UDP socket; nobody is let in before [`Listener::serve`]. Runs within tokio.
    ///
    /// # Errors
    /// [`LinkError::Socket`]: the address is taken, or not this machine's.
    pub fn bind(address: SocketAddr, keys: KeyRing) -> Result<Self, LinkError> {
        let endpoint = endpoint(address, transport::listening(&keys.keys().present))?;
        Ok(Self { endpoint, keys })
    }

    /// Where it listens; useful after binding port 0.
    ///
    /// # Errors
    /// [`LinkError::Socket`], if the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        self.endpoint.local_addr().map_err(|error| LinkError::Socket { address: unknown, error })
    }

    /// Serves big for ever: a pinned key at any time, any other key while an invitation is open and
    /// only as far as proving it. The newest connection wins. Ends only if serving cannot begin.
    ///
    /// Dropping the future closes everything; commits that are under way may then be cut off, so a
    /// node does that only when it ends.
    pub async fn serve<H: Host>(&self, host: Arc<H>, handle: Handle) -> LinkError {
        let shared = match host.open().await {
            Ok(opening) => Arc::new(Shared::new(opening.partner)),
            Err(error) => return error.into(),
        };
        // Each connection has a configuration of its own, with the keys of its time; this one answers until then.
        match self.config(&host, &shared, &handle) {
            Ok((config, _)) => self.endpoint.set_server_config(Some(config)),
            Err(error) => return error,
        }
        let (mut connections, openings) = (JoinSet::new(), Openings::default());
        let parts = Arc::new(Parts::default());
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { return LinkError::Lost("the endpoint is closed".into()) };
                    // What has ended takes nobody's place.
                    while connections.try_join_next().is_some() {}
                    if !incoming.remote_address_validated() {
                        // A validated address has room for the retry; an error means it has not.
                        let _ = incoming.retry();
                    } else if handle.is_held() || connections.len() >= CONNECTIONS_MAX && !openings.end_one() {
                        incoming.refuse();
                    } else {
                        if connections.len() >= CONNECTIONS_MAX {
                            // One has just been ended, so that one comes to its end now.
                            let _ = connections.join_next().await;
                        }
                        let place = openings.enter(incoming.remote_address().ip());
                        let number = place.number();
                        let (host, shared) = (Arc::clone(&host), Arc::clone(&shared));
                        let (handle, ring) = (handle.clone(), self.keys.clone());
                        let parts = Arc::clone(&parts);
                        // Before the keys are read, so that whatever changes after that is seen.
                        let keys = ring.watch();
                        let arriving = match self.config(&host, &shared, &handle) {
                            Ok((config, choice)) => Arriving { incoming, place, config, choice, ring, keys },
                            Err(error) => return error,
                        };
                        let task = connections.spawn(async move {
                            let error = serve_one(arriving, host, shared, handle.clone(), parts).await;
                            handle.failed(&error);
                        });
                        openings.runs(number, task);
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// The configuration of a connection that begins now, and which key it shows.
    fn config<H: Host>(
        &self,
        host: &Arc<H>,
        shared: &Arc<Shared>,
        handle: &Handle,
    ) -> Result<(quinn::ServerConfig, Arc<Choice>), LinkError> {
        let (shared, host) = (Arc::clone(shared), Arc::clone(host));
        let choice = Choice::new(self.keys.keys());
        let known = move |key: &[u8]| {
            let known = Known::of(key, shared.partner().as_ref());
            Known { admitted: known.admitted || host.invitation().is_some(), ..known }
        };
        Ok((tls::server_config(Arc::clone(&choice), known, handle.clone())?, choice))
    }
}

/// A connection of the edge of which the first packet has come.
struct Arriving {
    incoming: quinn::Incoming,
    place: Place,
    config: quinn::ServerConfig,
    choice: Arc<Choice>,
    ring: KeyRing,
    keys: watch::Receiver<Keys>,
}

/// One connection of the edge, from its first packet to its end.
async fn serve_one<H: Host>(
    arriving: Arriving,
    host: Arc<H>,
    shared: Arc<Shared>,
    handle: Handle,
    parts: Arc<Parts<H::Sink>>,
) -> LinkError {
    let Arriving { incoming, place, config, choice, ring, keys } = arriving;
    let deadline = Instant::now() + OPENING_TIME;
    let shaken =
        timeout_at(deadline, async { Ok::<_, LinkError>(incoming.accept_with(Arc::new(config))?.await?) });
    let connection = match shaken.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return error,
        Err(_) => return SessionError::OpeningTime.into(),
    };
    let opened = timeout_at(deadline, async {
        let mut streams = Streams::accept(&connection).await?;
        let hello = streams.first_frame().await?;
        Ok::<_, LinkError>((streams, hello))
    });
    let opened = opened.await.unwrap_or_else(|_| Err(SessionError::OpeningTime.into()));
    let (streams, hello) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            close(&connection, &error);
            return error;
        }
    };
    let (shown, wanted) = (choice.shown().public().to_vec(), choice.wanted().public().to_vec());
    let _under_way = handle.under_way();
    if handle.is_held() {
        close(&connection, &LinkError::Held);
        return LinkError::Held;
    }
    let gate = Arc::clone(&shared.gate).lock_owned().await;
    if !place.leave() {
        return LinkError::NotTaken;
    }
    let session = async {
        let opening = host.open().await?;
        shared.pin(opening.partner.as_ref());
        let start = Start {
            role: Role::Listener,
            opening,
            next_key: choice.announced(),
            local_key: shown.clone(),
            peer_key: tls::peer_key(&connection)?,
            binding: tls::binding(&connection)?,
            secret: host.invitation(),
        };
        Ok::<_, LinkError>(Session::new(start, Duration::ZERO)?)
    };
    let session = match session.await {
        Ok(session) => session,
        Err(error) => {
            close(&connection, &error);
            return error;
        }
    };
    let seat = Seat::listener(shared, gate);
    let begun = Begun { connection, session, streams, ring, keys, shown, wanted };
    let engine = Engine::new(host, begun, seat, handle, parts);
    engine.run(Some(hello), Until::Lost).await
}

/// Big's end: it dials.
#[derive(Debug)]
pub struct Dialler {
    endpoint: Endpoint,
    address: SocketAddr,
    keys: KeyRing,
}

impl Dialler {
    /// Opens a UDP socket from which `address` will be dialled. Runs within tokio.
    ///
    /// # Errors
    /// [`LinkError::Socket`]: the system gives none.
    pub fn new(address: SocketAddr, keys: KeyRing) -> Result<Self, LinkError> {
        Ok(Self { endpoint: endpoint(any_port(address), EndpointConfig::default())?, address, keys })
    }

    /// Keeps the link up for ever. A lost link is dialled again at once; the pause between attempts
    /// grows only while they fail, to a second where the path was healthy not long ago and to half a
    /// minute otherwise, and while what comes up breaks down by a node's fault, to half a minute.
    /// [`Handle::redial`] cuts it short. Once the link is up, what waits leaves at once.
    ///
    /// Dropping the future closes everything; commits that are under way may then be cut off, so a
    /// node does that only when it ends.
    pub async fn run<H: Host>(&self, host: Arc<H>, handle: Handle) {
        let (mut redial, mut turn) = (Redial::default(), 0);
        let parts = Arc::new(Parts::default());
        loop {
            handle.until_held(false).await;
            let line = handle.line().await;
            let (error, round_trip) = self.attempt(&host, &handle, redial.patience(), &parts, turn).await;
            drop(line);
            // An edge that went back to a backup knows another one of this node's keys.
            turn = if error.is_unknown_key() { turn + 1 } else { 0 };
            match (round_trip, handle.was_open()) {
                (Some(round_trip), Some(up)) if error.is_fault() => {
                    redial.broke_down(Instant::now(), round_trip, up);
                }
                (Some(round_trip), Some(_)) => redial.lost(Instant::now(), round_trip),
                _ => redial.failed(Instant::now()),
            }
            handle.failed(&error);
            tokio::select! {
                () = tokio::time::sleep(jittered(redial.pause())) => {}
                () = handle.asked_to_redial() => {}
            }
        }
    }

    /// One connection, from the raised epoch to its loss: why it ended, and how long its round trip
    /// was. The handshake gets `patience`, and it is the `turn` of one of this node's keys.
    async fn attempt<H: Host>(
        &self,
        host: &Arc<H>,
        handle: &Handle,
        patience: Duration,
        parts: &Arc<Parts<H::Sink>>,
        turn: usize,
    ) -> (LinkError, Option<Duration>) {
        let _under_way = handle.under_way();
        if handle.is_held() {
            return (LinkError::Held, None);
        }
        let ready = async {
            let opening = host.open().await?;
            let partner = opening.partner.clone().ok_or(SessionError::NotPaired)?;
            let (address, keys) = (self.address, &self.keys);
            let way = Way { endpoint: &self.endpoint, address, keys, turn, patience, handle };
            let name = tls::server_name(std::iter::once(&partner.key).chain(&partner.next_key));
            way.connect(&name, move |key| Known::of(key, Some(&partner)), opening, None).await
        };
        let ready = tokio::select! {
            ready = ready => ready,
            () = handle.until_pairing() => Err(LinkError::Superseded),
            () = handle.until_held(true) => Err(LinkError::Held),
        };
        match ready {
            Ok(begun) => {
                let (host, handle, path) = (Arc::clone(host), handle.clone(), begun.connection.clone());
                let engine = Engine::new(host, begun, Seat::Dialler, handle, Arc::clone(parts));
                (engine.run(None, Until::Lost).await, Some(path.rtt()))
            }
            Err(error) => (error, None),
        }
    }
}

/// Pairs big with the edge that gave out `ticket`: one attempt. On success the host was told by
/// [`Host::paired_with`]; the link itself is then kept up by [`Dialler::run`]. The session that `handle` stands for is
/// ended first, and none begins meanwhile: who was the partner is to change nothing of the one that takes its place.
///
/// # Errors
/// The ticket has expired or was used, or the edge cannot be reached.
pub async fn pair<H: Host>(
    ticket: &Ticket,
    keys: &KeyRing,
    host: Arc<H>,
    handle: &Handle,
) -> Result<Partner, LinkError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if ticket.is_expired(now.as_secs()) {
        return Err(LinkError::TicketExpired);
    }
    let endpoint = endpoint(any_port(ticket.address), EndpointConfig::default())?;
    let _line = handle.line_for_pairing().await;
    let _under_way = handle.under_way();
    let mut opening = host.open().await?;
    opening.partner = None;
    let secret = Some(ticket.secret);
    let way =
        Way { endpoint: &endpoint, address: ticket.address, keys, turn: 0, patience: OPENING_TIME, handle };
    let begun = {
        let pinned = ticket.key.clone();
        let name = tls::server_name([&pinned]);
        way.connect(&name, move |key| Known::by(key, &pinned), opening, secret).await?
    };
    let mut engine = Engine::new(host, begun, Seat::Dialler, Handle::new(), Arc::default());
    let partner = engine.paired_with();
    let error = engine.run(None, Until::Paired).await;
    // The edge is told that the connection is closed, or it would wait for its idle timeout.
    let _ = timeout(transport::CLOSE_TIME, endpoint.wait_idle()).await;
    let partner = partner.lock().map(|mut partner| partner.take()).unwrap_or_default();
    partner.ok_or(error)
}

/// Big's way to a session that has not said anything yet.
struct Way<'a> {
    endpoint: &'a Endpoint,
    address: SocketAddr,
    keys: &'a KeyRing,
    /// Whose turn it is of the keys.
    turn: usize,
    /// How long the handshake may take.
    patience: Duration,
    handle: &'a Handle,
}

impl Way<'_> {
    async fn connect(
        self,
        name: &str,
        known: impl Fn(&[u8]) -> Known + Send + Sync + 'static,
        opening: Opening,
        secret: Option<[u8; 32]>,
    ) -> Result<Begun, LinkError> {
        let Self { endpoint, address, keys: ring, turn, patience, handle } = self;
        let watch = ring.watch();
        let keys = watch.borrow().clone();
        let key = keys.in_order().nth(turn % keys.in_order().count()).unwrap_or(&keys.present);
        let connecting = endpoint
            .connect_with(tls::client_config(key, known, handle.clone())?, address, name)
            .map_err(|error| LinkError::Lost(error.to_string()))?;
        let connection = timeout(patience, connecting)
            .await
            .map_err(|_| LinkError::NoAnswer(patience.as_secs_f32()))??;
        let (shown, wanted) = (key.public().to_vec(), keys.wanted().public().to_vec());
        let begun = async {
            let streams = timeout(OPENING_TIME, Streams::open(&connection))
                .await
                .map_err(|_| SessionError::OpeningTime)??;
            let start = Start {
                role: Role::Dialler,
                opening,
                next_key: keys.announced_beside(&shown),
                local_key: shown.clone(),
                peer_key: tls::peer_key(&connection)?,
                binding: tls::binding(&connection)?,
                secret,
            };
            Ok::<_, LinkError>((Session::new(start, Duration::ZERO)?, streams))
        };
        match begun.await {
            Ok((session, streams)) => {
                Ok(Begun { connection, session, streams, ring: ring.clone(), keys: watch, shown, wanted })
            }
            Err(error) => {
                close(&connection, &error);
                Err(error)
            }
        }
    }
}

/// A QUIC endpoint on a socket with large buffers.
fn endpoint(address: SocketAddr, config: EndpointConfig) -> Result<Endpoint, LinkError> {
    let open = move || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
        // The system may grant less; the link then only loses and repeats more packets.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Endpoint::new(config, None, UdpSocket::from(socket), Arc::new(TokioRuntime))
    };
    open().map_err(|error| LinkError::Socket { address, error })
}

/// Any free port of the family of `address`.
fn any_port(address: SocketAddr) -> SocketAddr {
    if address.is_ipv4() { SocketAddr::from(([0, 0, 0, 0], 0)) } else { SocketAddr::from(([0u16; 8], 0)) }
}

/// Between half of `pause` and all of it, so that many nodes do not dial in step.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness the pause is only less random.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
    let part = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + part / 2.0)
}
