//! Starting, running and ending big's daemon; and what is done while no daemon runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use link_proto::driver::{Dialler, Key, KeyError, LinkError};
use shared::control::{BindError, CONNECTIONS_MAX, PEOPLE_CONNECTIONS_MAX, Server, socket_in};
use shared::id::{random, unix_millis};
use shared::lane;
use shared::sandbox::{InForce, SandboxError};
use shared::seal::PrivateKey;
use shared::state::{State, StateError};
use shared::store::{StoreError, Verdict};
use shared::topology::{Confinement, Topology};
use shared::{containment, lifetime, telemetry};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;

use crate::command::Commands;
use crate::directory::Policy;
use crate::link::LinkHost;
use crate::link_key;
use crate::node::Node;
use crate::projection;
use crate::{compare, gateway, maintenance, sandbox};

/// Octets of a control request's body: a message and its attachments.
const CONTROL_BODY_MAX: u64 = 256 * 1024 * 1024;

/// The same of a person's, beside the largest message.
const PERSON_BODY_BESIDE: u64 = 1024 * 1024;
/// The quarter of a socket's connections that commands have for themselves; the others may wait for a mailbox to
/// change.
const WATCHERS_LEAVE: usize = 4;
/// Threads that answer people. They are not those that answer operators and move mail.
const PEOPLE_THREADS: usize = 2;

/// Why big cannot do what was asked.
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
    /// Its link key.
    #[error("the link's key: {0}")]
    Key(#[from] KeyError),
    /// The link.
    #[error("the link: {0}; see [link] dial in the topology")]
    Link(#[from] LinkError),
    /// Its sandbox.
    #[error("the sandbox: {0}; [big] sandbox = false in the topology starts big without it")]
    Sandbox(#[from] SandboxError),
    /// The system.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Makes a new big node: keys, an empty store, a log name.
pub fn init(topology: &Topology) -> Result<(), ServeError> {
    let (sealing, _) = PrivateKey::generate();
    let link = Key::generate()?;
    let keys = [
        ("link", link.pkcs8().to_vec()),
        ("sealing", sealing.as_bytes().to_vec()),
        ("outbound", random::<32>().to_vec()),
    ];
    State::init(&topology.big.state, &keys)?;
    Ok(())
}

/// Makes big from a backup. The edge sends again what this big has lost since, and is told the directory
/// anew. Returns how many units for the edge are held because the backup is too old ([`lane::hold_old`]).
pub fn restore(topology: &Topology, from: &Path) -> Result<usize, ServeError> {
    let sealing = PrivateKey::from_bytes(State::open(from)?.key32("sealing")?).public().0;
    let kept = lane::ids_kept(topology.link.safety(), topology.edge.outbound.expire);
    let (_, held) = State::restore(&topology.big.state, from, move |txn| {
        let held = lane::hold_old(txn, kept, unix_millis())?;
        projection::renew(txn, sealing)?;
        Ok(held)
    })?;
    Ok(held)
}

/// Checks everything stored; with `rebuild`, makes the index anew from the segments first.
pub fn verify(topology: &Topology, rebuild: bool) -> Result<Verdict, ServeError> {
    let state = State::open_own(&topology.big.state)?;
    let policy = Policy::of(topology, &state.key32("outbound")?);
    let (store, rebuilt) = match rebuild {
        true => {
            let (store, rebuilt) = maintenance::rebuild(Arc::new(state.disk()?), state.owner()?, policy)?;
            (store, Some(rebuilt))
        }
        false => (state.store()?, None),
    };
    Ok(Verdict { rebuilt, ..shared::store::verify(&store)? })
}

/// Runs big until it is told to stop.
pub fn run(topology: Topology) -> Result<(), ServeError> {
    telemetry::init();
    lifetime::survive_hangup()?;
    lifetime::take_descriptors();
    let state = State::open_own(&topology.big.state)?;
    let sockets = Sockets::bind(&topology)?;
    state.forget_backups()?;
    let node = Arc::new(Node::open(topology, &state)?);
    // How many there may be is read from files that the sandbox has not.
    let threads = thread::available_parallelism()?.get();
    // Before there are threads that would be left out of it, and before anything of the edge's is read.
    let in_force = match node.topology.big.sandbox {
        Confinement::Off => InForce::default(),
        confinement => sandbox::of(&node)?.enter(confinement, &node.store)?,
    };
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let people = Builder::new_multi_thread().worker_threads(PEOPLE_THREADS).enable_all().build()?;
    let served = runtime.block_on(serve(node, &state, sockets, Arc::new(in_force), people.handle()));
    containment::ends();
    served
}

/// What commands and people call.
struct Sockets {
    control: Server,
    desk: Option<Server>,
}

impl Sockets {
    fn bind(topology: &Topology) -> Result<Self, BindError> {
        let control = Server::bind(&socket_in(&topology.big.state))?;
        let desk = topology.big.desk.as_deref().map(Server::bind_for_everybody).transpose()?;
        Ok(Self { control, desk })
    }
}

/// Big has no listener: this is all there is to say.
#[derive(serde::Serialize)]
struct Ready {
    ready: bool,
    pid: u32,
    control: PathBuf,
}

async fn serve(
    node: Arc<Node>,
    state: &State,
    Sockets { control, desk }: Sockets,
    in_force: Arc<InForce>,
    people: &Handle,
) -> Result<(), ServeError> {
    node.settle().await?;
    let keys = link_key::open(state)?;
    let dialler = Dialler::new(node.topology.link.dial, keys.clone())?;
    let host = Arc::new(LinkHost::new(
        node.store.clone(),
        Arc::clone(&node.site),
        Arc::clone(node.pressure()),
        Arc::clone(&node.changed),
    ));
    let watchers = |connections: usize| Arc::new(Semaphore::new(connections - connections / WATCHERS_LEAVE));
    let commands = Commands {
        node: Arc::clone(&node),
        host: Arc::clone(&host),
        keys,
        state: state.clone(),
        in_force,
        watchers: watchers(CONNECTIONS_MAX),
    };
    if let Some(desk) = desk {
        let commands = Commands { watchers: watchers(PEOPLE_CONNECTIONS_MAX), ..commands.clone() };
        let body_max = node.topology.edge.size_max.saturating_add(PERSON_BODY_BESIDE);
        let known = commands.clone();
        let is_known = move |peer| known.is_a_person(peer);
        people.spawn(desk.serve(body_max, is_known, move |peer, request, body| {
            let commands = commands.clone();
            async move { commands.answer_person(peer, request, body).await }
        }));
    }
    tokio::spawn(control.serve(
        CONTROL_BODY_MAX,
        |_| true,
        move |peer, request, body| {
            let commands = commands.clone();
            async move { commands.answer(peer, request, body).await }
        },
    ));
    tokio::spawn(maintenance::run(Arc::clone(&node)));
    tokio::spawn(gateway::run(Arc::clone(&node)));
    tokio::spawn(gateway::pick_up_all(Arc::clone(&node)));
    tokio::spawn(compare::run(Arc::clone(&node)));
    let pressure = Arc::clone(node.pressure());
    tokio::spawn(async move { pressure.run().await });
    let handle = node.link.clone();
    tokio::spawn(async move { dialler.run(host, handle).await });
    let ready = Ready { ready: true, pid: std::process::id(), control: socket_in(state.path()) };
    println!("{}", serde_json::to_string(&ready).map_err(io::Error::from)?);
    tracing::info!(edge = %node.topology.link.dial, "big is ready");
    let why = lifetime::until_told_to_stop().await?;
    tracing::info!(why, "big stops");
    Ok(())
}
