//! Starting, running and ending the edge's daemon; and what is done while no daemon runs.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link_proto::driver::{Key, KeyError, LinkError, Listener as LinkListener};
use shared::address::Address;
use shared::control::{BindError, Server, socket_in};
use shared::id::{random, unix_millis};
use shared::lane;
use shared::listener::{Acceptor, Admission, IdentityError, Kept, Listener};
use shared::sandbox::{InForce, SandboxError};
use shared::seal::PrivateKey;
use shared::smtp::{Config, Role};
use shared::state::{State, StateError};
use shared::store::{StoreError, Verdict};
use shared::topology::{Dnssec, Topology};
use shared::{containment, lifetime, telemetry};
use tokio::sync::watch;

use crate::acquainted::Acquainted;
use crate::authentication::Authenticator;
use crate::certificate::{self, Certificate, http01};
use crate::command::Commands;
use crate::delivery::{ATTEMPTS_MAX, Ourselves, RelayError, Resolver, Route, Runner};
use crate::link::LinkHost;
use crate::link_key;
use crate::node::Node;
use crate::revise::busy::Busy;
use crate::strangers::Strangers;
use crate::{aggregate, interfaces, login, maildrop, maintenance, reception, sandbox};

/// Submission sessions at once. Submission and POP3 have pools of their own, so that a flood of mail cannot
/// keep travellers out.
const SUBMITTERS_MAX: usize = 200;
const SUBMITTERS_PER_HOST_MAX: usize = 50;
/// Sessions of strangers, submission sessions, attempts to deliver, and sessions that wait for another message to
/// deliver, never take more than one of so many descriptors each.
const SESSIONS_SHARE: usize = 8;
/// POP3 sessions at once, most of which wait: a client may stay for as long as it likes. Never more than half of
/// the descriptors.
const COLLECTORS_MAX: usize = 4_000;
const COLLECTORS_PER_HOST_MAX: usize = 400;
/// How long one submitted message may take to arrive.
const SUBMISSION_DATA_TIMEOUT: Duration = Duration::from_secs(3600);
/// Descriptors that the node needs for itself: segments, connections of commands, DNS, those who look for a token.
const OWN_DESCRIPTORS: usize = 2_000;
/// What all but strangers need at most, so that what is beyond it may be theirs: submission, POP3, attempts to deliver
/// and sessions that wait for another message, the node itself.
const OTHERS_DESCRIPTORS: usize = SUBMITTERS_MAX + COLLECTORS_MAX + 2 * ATTEMPTS_MAX + OWN_DESCRIPTORS;
/// One of so many places of strangers is kept for those from whom a message has been taken.
const KEPT_SHARE: usize = 10;
/// Of so many places the strangers of a network get one, but a few at least.
const STRANGERS_SHARE: usize = 5;
const STRANGERS_PER_NETWORK_MIN: usize = 4;
/// Octets of a control request's body: this node's requests have none.
const CONTROL_BODY_MAX: u64 = 0;

/// Why the edge cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its control socket.
    #[error(transparent)]
    Control(#[from] BindError),
    /// Its certificate.
    #[error(transparent)]
    Certificate(#[from] certificate::OpenError),
    /// Its use.
    #[error(transparent)]
    Tls(#[from] IdentityError),
    /// Its link key.
    #[error("the link's key: {0}")]
    Key(#[from] KeyError),
    /// Its link socket.
    #[error("the link on {address}: {error}; see [link] listen in the topology")]
    Link {
        /// Where it should listen.
        address: SocketAddr,
        /// Why not.
        error: LinkError,
    },
    /// A listener.
    #[error("{service} on {address}: {error}; {}", listen_mend(error))]
    Listen {
        /// Which service.
        service: &'static str,
        /// Where it should listen.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// DNS.
    #[error("the resolvers cannot be used: {0}; see [edge.dns] in the topology")]
    Resolver(String),
    /// The smart host.
    #[error("the smart host: {0}")]
    Relay(#[from] RelayError),
    /// Whom it is to trust for MTA-STS.
    #[error("MTA-STS: {0}")]
    MtaSts(RelayError),
    /// Its sandbox.
    #[error("the sandbox: {0}; [edge] sandbox = false in the topology starts the edge without it")]
    Sandbox(#[from] SandboxError),
    /// The system.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Makes a new edge: keys, an empty store, a log name.
pub fn init(topology: &Topology) -> Result<(), ServeError> {
    let (sealing, _) = PrivateKey::generate();
    let link = Key::generate()?;
    let keys = [
        ("link", link.pkcs8().to_vec()),
        ("sealing", sealing.as_bytes().to_vec()),
        ("directory", random::<32>().to_vec()),
    ];
    State::init(&topology.edge.state, &keys)?;
    Ok(())
}

/// Makes an edge from a backup. What it was to deliver is held until big has said who has got it since. Returns how
/// many units for big are held because the backup is too old ([`lane::hold_old`]).
pub fn restore(topology: &Topology, from: &Path) -> Result<usize, ServeError> {
    let kept = lane::ids_kept(topology.link.safety(), topology.edge.outbound.expire);
    let (_, held) = State::restore(&topology.edge.state, from, move |txn| {
        maintenance::hold_back(txn, &Busy::default(), unix_millis())?;
        lane::hold_old(txn, kept, unix_millis())
    })?;
    Ok(held)
}

/// Checks everything stored; with `rebuild`, makes the index anew from the segments first.
pub fn verify(topology: &Topology, rebuild: bool) -> Result<Verdict, ServeError> {
    let state = State::open_own(&topology.edge.state)?;
    // What another kind of node has stored is not for this one to make anything of.
    state.key32("directory")?;
    let (store, rebuilt) = match rebuild {
        true => {
            let (store, rebuilt) = maintenance::rebuild(Arc::new(state.disk()?), state.owner()?)?;
            (store, Some(rebuilt))
        }
        false => (state.store()?, None),
    };
    Ok(Verdict { rebuilt, ..shared::store::verify(&store)? })
}

/// What helps where a service cannot listen.
fn listen_mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another server is there: stop it, or name another port in [edge]",
        io::ErrorKind::AddrNotAvailable => "this host has no such address: see [edge] in the topology",
        io::ErrorKind::PermissionDenied => {
            "for ports below 1024 this account needs CAP_NET_BIND_SERVICE, which the unit for systemd gives it"
        }
        _ => "see [edge] in the topology",
    }
}

/// Runs the edge until it is told to stop.
pub fn run(topology: Topology) -> Result<(), ServeError> {
    telemetry::init();
    lifetime::survive_hangup()?;
    let descriptors = lifetime::take_descriptors();
    let state = State::open_own(&topology.edge.state)?;
    let control = Server::bind(&socket_in(state.path()))?;
    state.forget_backups()?;
    let node = Arc::new(Node::open(topology, &state)?);
    // How many there may be is read from files that the sandbox has not.
    let threads = std::thread::available_parallelism()?.get();
    // Nor does it let anybody ask for these.
    let addresses = interfaces::addresses().unwrap_or_else(|error| {
        tracing::warn!(%error, "the addresses of this host are not known: a smart host that is this edge is not noticed");
        Vec::new()
    });
    let ourselves = Ourselves::of(&node.topology.edge, &addresses);
    // Before there are threads that would be left out of it, and before anything of anybody's is read.
    let in_force = sandbox::of(&node.topology).enter(node.topology.edge.sandbox, &node.store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let served = runtime.block_on(serve(node, &state, control, in_force, descriptors, ourselves));
    containment::ends();
    served
}

/// What listens, for the ready line.
#[derive(serde::Serialize)]
struct Ready {
    ready: bool,
    smtp: Vec<SocketAddr>,
    submission: Vec<SocketAddr>,
    submissions: Vec<SocketAddr>,
    pop3: Vec<SocketAddr>,
    pop3s: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    link: SocketAddr,
    pid: u32,
    control: std::path::PathBuf,
}

async fn serve(
    node: Arc<Node>,
    state: &State,
    control: Server,
    in_force: InForce,
    descriptors: usize,
    ourselves: Ourselves,
) -> Result<(), ServeError> {
    // Before anybody is served: this edge may have been away for weeks. Big says whether that is so.
    node.wake().await?;
    if let Err(error) = node.end_overdue().await.and_then(|()| node.destroy_covers()) {
        // Logins are refused by the clock; the rest is tried again while it runs.
        tracing::warn!(%error, "travel windows that have run out could not be destroyed yet");
    }
    if let Err(error) = node.nobody() {
        // It is made when it is needed.
        tracing::warn!(%error, "the cover for names that do not exist could not be made yet");
    }
    let edge = &node.topology.edge;
    let link_address = node.topology.link.listen;
    let keys = link_key::open(state)?;
    let in_link = |error| ServeError::Link { address: link_address, error };
    let link = LinkListener::bind(link_address, keys.clone()).map_err(in_link)?;
    let link_bound = link.local_addr().map_err(in_link)?;

    let (stop, stopping) = watch::channel(false);
    // However many places one host takes, some are left for the others.
    let share = (descriptors / SESSIONS_SHARE).max(1);
    let receivers = edge.receivers.min(share.max(descriptors.saturating_sub(OTHERS_DESCRIPTORS)));
    if receivers < edge.receivers {
        tracing::warn!(
            descriptors,
            receivers,
            "fewer sessions than [edge] receivers: raise the limit of open files"
        );
    }
    let per_host = (receivers * 4 / 5).max(1);
    let of_strangers = (receivers / STRANGERS_SHARE).max(STRANGERS_PER_NETWORK_MIN);
    let acquainted: Arc<Mutex<Acquainted>> = Arc::default();
    let known = Arc::clone(&acquainted);
    let is_known = move |client| known.lock().unwrap_or_else(PoisonError::into_inner).has(client);
    let kept = Kept {
        places: receivers / KEPT_SHARE,
        others_per_network_max: of_strangers,
        is_known: Box::new(is_known),
    };
    let strangers = Admission::keeping(receivers, per_host, kept);
    let submitters = Admission::new(SUBMITTERS_MAX.min(share), SUBMITTERS_PER_HOST_MAX);
    let collectors = Admission::new(COLLECTORS_MAX.min(descriptors / 2), COLLECTORS_PER_HOST_MAX);
    let smtp_busy = "421 4.3.2 too many sessions; try again later\r\n";
    let pop3_busy = "-ERR [SYS/TEMP] too many sessions; try again later\r\n";

    let resolver = |dnssec| {
        let resolver = Resolver::new(&edge.dns_servers, dnssec);
        resolver.map_err(|error| ServeError::Resolver(error.to_string()))
    };
    // What is asked about senders says who they are not: a forged answer only makes one of them less believed.
    let (senders, resolver) = (resolver(&Dnssec::Off)?, resolver(&edge.dnssec)?);
    let certificate = Arc::new(Certificate::open(&node, state, &senders)?);
    let (smtp_tls, pop3_tls) =
        (Acceptor::new(certificate.current(), "smtp")?, Acceptor::new(certificate.current(), "pop3")?);
    let (asked, hostname, wanted) = (senders.inner(), edge.hostname.clone(), edge.authentication.clone());
    let authenticator = Authenticator::new(asked, hostname, wanted);
    let door = Strangers::new(&senders, edge);
    // By that name, and not as whoever reads it, so that strangers who are refused reach them all the same.
    let first = node.topology.site.domains.first();
    let postmaster = first.and_then(|domain| Address::new("postmaster", domain).ok());
    let postmaster = postmaster.expect("a site has a domain, and the role is a local name");
    let smtp = |role, implicit_tls| {
        let mut config = Config::new(role, edge.hostname.clone(), postmaster.clone());
        config.content.bytes_max = edge.size_max;
        config.binarymime = edge.binarymime;
        if role == Role::Submission {
            // Travellers have slow lines; the least rate and the login bound them.
            config.data_timeout = SUBMISSION_DATA_TIMEOUT;
        }
        let acceptor = smtp_tls.clone();
        let (node, stopping) = (Arc::clone(&node), stopping.clone());
        // Travellers have logged in.
        let authenticator = authenticator.clone().filter(|_| role == Role::Reception);
        let strangers = door.clone().filter(|_| role == Role::Reception);
        let (config, acquainted) = (Arc::new(config), Arc::clone(&acquainted));
        reception::Service {
            node,
            config,
            acceptor,
            acquainted,
            implicit_tls,
            authenticator,
            strangers,
            stopping,
        }
    };
    let pop3 = |implicit_tls| {
        let (node, stopping, acceptor) = (Arc::clone(&node), stopping.clone(), pop3_tls.clone());
        let clear_logins = maildrop::for_the_bench();
        maildrop::Service { node, acceptor, implicit_tls, clear_logins, stopping }
    };
    let listen = |service: &'static str, addresses: &[SocketAddr], admission: &Arc<Admission>, busy| {
        let bound = addresses.iter().map(|address| {
            let listener = Listener::bind(*address, Arc::clone(admission), busy);
            listener.map_err(|error| ServeError::Listen { service, address: *address, error })
        });
        bound.collect::<Result<Vec<_>, _>>()
    };
    let ports = |listeners: &[Listener]| {
        listeners.iter().map(Listener::local_address).collect::<io::Result<Vec<_>>>()
    };

    let on_smtp = listen("SMTP", &edge.smtp, &strangers, smtp_busy)?;
    let on_submission = listen("submission", &edge.submission, &submitters, smtp_busy)?;
    let on_submissions = listen("submission under TLS", &edge.submissions, &submitters, "")?;
    let on_pop3 = listen("POP3", &edge.pop3, &collectors, pop3_busy)?;
    let on_pop3s = listen("POP3 under TLS", &edge.pop3s, &collectors, "")?;
    let on_http = listen(
        "HTTP for the certificate's authority",
        edge.certificate.http(),
        &http01::places(share),
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )?;
    let route = Route::open(&edge.outbound.mode)?;
    let asked_for_reports = senders.clone();
    let attempts = ATTEMPTS_MAX.min(share);
    let runner = Runner::new(Arc::clone(&node), resolver, senders, route, attempts, ourselves);
    let runner = runner.map_err(ServeError::MtaSts)?;
    let ready = Ready {
        ready: true,
        smtp: ports(&on_smtp)?,
        submission: ports(&on_submission)?,
        submissions: ports(&on_submissions)?,
        pop3: ports(&on_pop3)?,
        pop3s: ports(&on_pop3s)?,
        http: ports(&on_http)?,
        link: link_bound,
        pid: std::process::id(),
        control: socket_in(state.path()),
    };

    for (listeners, service) in [
        (on_smtp, smtp(Role::Reception, false)),
        (on_submission, smtp(Role::Submission, false)),
        (on_submissions, smtp(Role::Submission, true)),
    ] {
        listeners.into_iter().for_each(|listener| drop(tokio::spawn(service.clone().run(listener))));
    }
    for (listeners, service) in [(on_pop3, pop3(false)), (on_pop3s, pop3(true))] {
        listeners.into_iter().for_each(|listener| drop(tokio::spawn(service.clone().run(listener))));
    }
    for listener in on_http {
        tokio::spawn(http01::serve(listener, Arc::clone(certificate.tokens()), stopping.clone()));
    }
    let kept = Arc::clone(&certificate);
    tokio::spawn(async move { kept.run().await });
    if let Some(door) = door.clone() {
        tokio::spawn(async move { door.watch().await });
    }
    let commands = Commands {
        node: Arc::clone(&node),
        link: link_bound,
        keys,
        state: state.clone(),
        in_force,
        strangers: door.clone(),
        probe: runner.probe(),
        certificate,
    };
    tokio::spawn(control.serve(
        CONTROL_BODY_MAX,
        |_| true,
        move |_, request, _| {
            let commands = commands.clone();
            async move { commands.answer(request).await }
        },
    ));
    tokio::spawn(runner.run(stopping.clone()));
    tokio::spawn(aggregate::run(Arc::clone(&node), asked_for_reports));
    tokio::spawn(maintenance::run(Arc::clone(&node)));
    tokio::spawn(maintenance::compare(Arc::clone(&node)));
    tokio::spawn(login::run(Arc::clone(&node)));
    let watched = Arc::clone(&node);
    tokio::spawn(async move { watched.pressure.run().await });
    let host = Arc::new(LinkHost::new(Arc::clone(&node)));
    let handle = node.link.clone();
    tokio::spawn(async move { link.serve(host, handle).await });

    println!("{}", serde_json::to_string(&ready).map_err(io::Error::from)?);
    tracing::info!(hostname = %edge.hostname, "the edge is ready");
    let why = lifetime::until_told_to_stop().await?;
    tracing::info!(why, "the edge stops");
    // Sessions may end what they have begun; what is queued is durable.
    stop.send_replace(true);
    lifetime::linger(|| strangers.sessions() + submitters.sessions() + collectors.sessions()).await;
    Ok(())
}
