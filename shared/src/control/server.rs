//! The node's half of the control socket, and of the one for everybody.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{
    ACCOUNT_CONNECTIONS_MAX, ANSWER_MAX, Answer, CONNECTIONS_MAX, PEOPLE_CONNECTIONS_MAX, REQUEST_MAX,
    Refused,
};

/// How long a client may take to send its request, and again to take its answer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the node may take to answer.
const HANDLING_TIMEOUT: Duration = Duration::from_secs(300);
/// Requests with a large body that are held in memory at once.
const LARGE_BODIES_MAX: usize = 4;
/// Octets from which a body is large.
const LARGE_BODY: u64 = 1 << 20;
/// The pause after `accept` failed, for descriptors to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who sent a request, as the kernel knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The account's number.
    pub uid: u32,
}

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process serves it.
    #[error("{} is served already: this node is running; stop it first", .0.display())]
    Running(PathBuf),
    /// The folder lets others in.
    #[error("{} must be open to its owner alone: chmod 700 it, owned by the account that serves", .0.display())]
    OpenFolder(PathBuf),
    /// Others could put another socket in its place.
    #[error(
        "{} must belong to the account that serves, or to root, and nobody else may write to it: chmod go-w it",
        .0.display()
    )]
    WritableFolder(PathBuf),
    /// Something else has the socket's name.
    #[error("{} is in the way and is not a socket: move it elsewhere", .0.display())]
    InTheWay(PathBuf),
    /// The system refused.
    #[error(
        "cannot make the control socket {}: {source}; its folder has to be there and this account's to write to",
        .path.display()
    )]
    Io {
        /// Where it should be; the system allows about 100 octets.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Whom a socket admits, and how much each may hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// The account the node runs as, and root.
    Operators,
    /// Every account: the handler is told which, and decides.
    Everybody,
}

impl Door {
    fn admits(self, uid: u32) -> bool {
        self == Self::Everybody || uid == own_uid() || uid == 0
    }

    /// Connections at once: in all, and of one account.
    fn connections(self) -> (usize, usize) {
        match self {
            Self::Operators => (CONNECTIONS_MAX, CONNECTIONS_MAX),
            Self::Everybody => (PEOPLE_CONNECTIONS_MAX, ACCOUNT_CONNECTIONS_MAX),
        }
    }

    /// Requests with a large body that are held in memory at once: in all, and of one account.
    fn large_bodies(self) -> (usize, usize) {
        match self {
            Self::Operators => (LARGE_BODIES_MAX, LARGE_BODIES_MAX),
            Self::Everybody => (LARGE_BODIES_MAX, 1),
        }
    }
}

/// What one account, or all of them together, may hold at once.
#[derive(Debug)]
struct Quota {
    connections: Arc<Semaphore>,
    large_bodies: Semaphore,
}

impl Quota {
    fn new(connections: usize, large_bodies: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(connections)),
            large_bodies: Semaphore::new(large_bodies),
        })
    }
}

/// A socket that a running node serves; removed when dropped.
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    path: PathBuf,
    door: Door,
    /// Held locked while the socket is ours. A lock dies with its process, however that dies, so a
    /// socket file found without one is stale.
    _lock: File,
}

impl Server {
    /// Makes the control socket at `path`, in place of one that a killed process left. Nobody is heard before it is served.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let is_own = own_folder(folder).map_err(|source| BindError::Io { path: path.into(), source })?;
        is_own.then_some(()).ok_or_else(|| BindError::OpenFolder(folder.into()))?;
        Self::bind_at(path, Door::Operators)
    }

    /// Makes a socket at `path` to which every account of this host may connect, as far as its folder lets them.
    /// The folder is made if it is absent.
    pub fn bind_for_everybody(path: &Path) -> Result<Self, BindError> {
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let is_safe = shared_folder(folder).map_err(|source| BindError::Io { path: path.into(), source })?;
        is_safe.then_some(()).ok_or_else(|| BindError::WritableFolder(folder.into()))?;
        Self::bind_at(path, Door::Everybody)
    }

    fn bind_at(path: &Path, door: Door) -> Result<Self, BindError> {
        let io = |source| BindError::Io { path: path.into(), source };
        // Who may open the lock could hold it, and the node would not start.
        let mut lock = OpenOptions::new();
        let lock = lock.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(path.with_extension("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BindError::Running(path.into())),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        match fs::symlink_metadata(path) {
            Ok(stale) if stale.file_type().is_socket() => fs::remove_file(path).map_err(io)?,
            Ok(_) => return Err(BindError::InTheWay(path.into())),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io(source)),
        }
        let listener =
            StdListener::bind(path).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = listener.map_err(io)?;
        let mode = match door {
            Door::Operators => 0o600,
            Door::Everybody => 0o666,
        };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io)?;
        Ok(Self { listener, path: path.into(), door, _lock: lock })
    }

    /// Serves requests with bodies of at most `body_max` octets, until dropped; dropping it ends
    /// the requests under way. Runs within tokio. All accounts of which `is_known` knows nothing share what one may hold: a host has
    /// as many of them as anybody likes.
    pub async fn serve<Q, A, H, F>(
        self,
        body_max: u64,
        is_known: impl Fn(Peer) -> bool + Send + 'static,
        handler: H,
    ) where
        Q: DeserializeOwned + Send + 'static,
        A: Serialize + Send + 'static,
        H: Fn(Peer, Q, Vec<u8>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(A, Vec<u8>), Refused>> + Send + 'static,
    {
        let ((connections, of_one), (large_bodies, large_of_one)) =
            (self.door.connections(), self.door.large_bodies());
        let listener = match self.listener.try_clone().and_then(UnixListener::from_std) {
            Ok(listener) => listener,
            Err(error) => {
                return tracing::error!(%error, path = %self.path.display(), "the socket cannot be served");
            }
        };
        let all = Quota::new(connections, large_bodies);
        // Those that have a connection: as many as there are connections, at most.
        let mut accounts: HashMap<Option<u32>, Arc<Quota>> = HashMap::new();
        let mut sessions = JoinSet::new();
        loop {
            while sessions.try_join_next().is_some() {}
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(peer) = peer(&stream).filter(|peer| self.door.admits(peer.uid)) else { continue };
            accounts.retain(|_, quota| Arc::strong_count(quota) > 1);
            let account = Some(peer.uid).filter(|_| is_known(peer));
            let own = accounts.entry(account).or_insert_with(|| Quota::new(of_one, large_of_one));
            let permits = [&*own, &all].map(|quota| Arc::clone(&quota.connections).try_acquire_owned());
            let [Ok(first), Ok(second)] = permits else { continue };
            let (handler, quotas) = (handler.clone(), [Arc::clone(own), Arc::clone(&all)]);
            sessions.spawn(async move {
                let _permits = (first, second);
                if let Err(error) = session(stream, peer, body_max, &quotas, handler).await {
                    tracing::debug!(%error, uid = peer.uid, "a control connection was cut");
                }
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already, or a folder that vanished: either way nobody can call.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the folder if it is absent. Whether it is this account's alone.
fn own_folder(folder: &Path) -> io::Result<bool> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::metadata(folder)?;
    Ok(found.mode() & 0o077 == 0 && found.uid() == own_uid())
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes the folder if it is absent, open to others. Whether nobody else can put something in the socket's place.
fn shared_folder(folder: &Path) -> io::Result<bool> {
    if !folder.try_exists()? {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        // Whatever mask the node was started with.
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    let found = fs::metadata(folder)?;
    let is_ours = found.mode() & 0o022 == 0 && [own_uid(), 0].contains(&found.uid());
    // Nor can the folder itself be moved away: what is above it is not for others to write, or sticky as /tmp is.
    let folder = folder.canonicalize()?;
    let mut above = folder.ancestors().skip(1);
    Ok(is_ours
        && above.try_fold(true, |safe, folder| {
            let mode = fs::metadata(folder)?.mode();
            Ok::<_, io::Error>(safe && (mode & 0o022 == 0 || mode & 0o1000 != 0))
        })?)
}

/// Who is at the other end, as the kernel says.
fn peer(stream: &UnixStream) -> Option<Peer> {
    Some(Peer { uid: stream.peer_cred().ok()?.uid() })
}

/// One request and its answer.
async fn session<Q, A, H, F>(
    mut stream: UnixStream,
    peer: Peer,
    body_max: u64,
    quotas: &[Arc<Quota>; 2],
    handler: H,
) -> io::Result<()>
where
    Q: DeserializeOwned,
    A: Serialize,
    H: Fn(Peer, Q, Vec<u8>) -> F,
    F: Future<Output = Result<(A, Vec<u8>), Refused>>,
{
    let reading = read_request(&mut stream, body_max, quotas);
    let (request, body, _large) = timeout(TRANSFER_TIMEOUT, reading).await??;
    let handled = match serde_json::from_slice::<Q>(&request) {
        Ok(request) => timeout(HANDLING_TIMEOUT, handler(peer, request, body)).await.unwrap_or_else(|_| {
            Err(Refused(format!(
                "the node did not finish within {} s; its log may say why",
                HANDLING_TIMEOUT.as_secs()
            )))
        }),
        Err(error) if error.is_data() => {
            Err(Refused(format!("the node does not know this request ({error}): are both of one version?")))
        }
        Err(error) => return Err(error.into()),
    };
    let (answer, body) = encode(handled)?;
    timeout(TRANSFER_TIMEOUT, write_answer(&mut stream, &answer, &body)).await?
}

type Request<'a> = (Vec<u8>, Vec<u8>, Vec<SemaphorePermit<'a>>);

/// The JSON and the body of one request, and the permits that a large body needs.
async fn read_request<'a>(
    stream: &mut UnixStream,
    body_max: u64,
    quotas: &'a [Arc<Quota>; 2],
) -> io::Result<Request<'a>> {
    let length = u64::from(stream.read_u32().await?);
    let json = read_exactly(stream, length, REQUEST_MAX as u64).await?;
    let length = stream.read_u64().await?;
    let mut permits = Vec::new();
    if length >= LARGE_BODY {
        // The account's own first: who waits for that holds nothing of what is everybody's.
        for quota in quotas {
            permits.extend(quota.large_bodies.acquire().await.ok());
        }
    }
    let body = read_exactly(stream, length, body_max).await?;
    Ok((json, body, permits))
}

/// `length` octets; memory grows with what arrives, not with what was announced.
async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), length: u64, max: u64) -> io::Result<Vec<u8>> {
    if length > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{length} octets announced, {max} allowed"),
        ));
    }
    let mut octets = Vec::new();
    stream.take(length).read_to_end(&mut octets).await?;
    if octets.len() as u64 == length { Ok(octets) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn encode<A: Serialize>(handled: Result<(A, Vec<u8>), Refused>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let refusal = |reason: String| serde_json::to_vec(&Answer::<()>::Refused(reason));
    Ok(match handled {
        Ok((answer, body)) => match serde_json::to_vec(&Answer::Done(answer))? {
            long if long.len() > ANSWER_MAX => {
                (refusal("the answer would be too long: ask for less at once".into())?, Vec::new())
            }
            answer => (answer, body),
        },
        Err(Refused(reason)) => (refusal(reason)?, Vec::new()),
    })
}

async fn write_answer(stream: &mut UnixStream, answer: &[u8], body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(answer.len()).map_err(io::Error::other)?;
    stream.write_u32(length).await?;
    stream.write_all(answer).await?;
    stream.write_u64(body.len() as u64).await?;
    stream.write_all(body).await?;
    stream.shutdown().await
}
