//! Logins to travel windows, by POP3 and submission alike: slowed down where there are guesses, and checked
//! with the same work whoever is meant.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};
use shared::age;
use shared::credential::Credential;
use shared::id::{monotonic, unix_millis};
use shared::row;
use shared::sasl::Credentials;
use shared::seal::PrivateKey;
use shared::store::{Rows, StoreError, Table, Txn, behind};
use shared::telemetry::Quoted;
use shared::unit::{Id, Window, directory_hash};

use crate::lockout::{Answer, Attempt, Network};
use crate::node::Node;
use crate::record::WINDOWS;

/// Window and network to [`KnownRow`]: from where travellers have logged in. It outlives a restart, so that
/// nobody is locked out who was known.
const KNOWN_NETWORKS: Table = Table("known-networks");
/// Networks that are remembered of one window; a new one takes the place of the one not used for longest.
const NETWORKS_MAX: usize = 32;
/// How long a network is remembered.
const KNOWN_MILLIS: u64 = 90 * 24 * 3_600_000;
/// How exactly the last login is known.
const AGAIN_MILLIS: u64 = 24 * 3_600_000;
/// Between two looks for networks that can be forgotten.
const ROUND: Duration = Duration::from_secs(3_600);
/// Rows that are looked at in one operation.
const ROWS_AT_ONCE: usize = 10_000;

/// A network from which somebody has logged in to a window.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct KnownRow {
    /// The last time, milliseconds since 1970, give or take a day.
    at: u64,
}
row!(KnownRow, 1);

/// Why somebody is not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Wrong password, no such user, or no open window.
    Credentials,
    /// Too many guesses: nothing was checked.
    Guessing,
    /// It cannot be checked now.
    Temporary,
}

impl From<StoreError> for Refused {
    fn from(_: StoreError) -> Self {
        Self::Temporary
    }
}

/// The open window that these credentials log in to, and the private key that they open.
pub async fn log_in(
    node: &Node,
    credentials: Credentials,
    client: IpAddr,
) -> Result<(Window, PrivateKey), Refused> {
    let window = node.window_of_login(&credentials.user)?;
    let network = Network::of(client);
    // Of nobody's window the same is read.
    let id = window.as_ref().map_or([0; 16], |window| window.window);
    let known_at = node.store.read()?.get::<KnownRow>(KNOWN_NETWORKS, &key(&id, network))?;
    let known = known_at.is_some();
    let account = directory_hash(&node.directory_key, &node.account_name(&credentials.user));
    let attempt = Attempt { account, name: credentials.user.clone(), network, known };
    match node.with_lockout(|lockout| lockout.ask(&attempt, monotonic())) {
        Answer::After(delay) => tokio::time::sleep(delay).await,
        Answer::Locked => return Err(Refused::Guessing),
    }
    // It may have ended or got another password meanwhile.
    let window = node.window_of_login(&credentials.user)?;
    let covers = node.covers.clone();
    let opened = tokio::task::spawn_blocking(move || match window {
        Some(mut window) => {
            covers.uncover(&mut window).map_err(|_| Refused::Temporary)?;
            let key = window.open(&credentials.secret, unix_millis()).ok();
            Ok::<_, Refused>(key.map(|key| (window, key)))
        }
        None => {
            Credential::open_nothing(&credentials.secret);
            Ok(None)
        }
    });
    let Some((window, private_key)) = opened.await.map_err(|_| Refused::Temporary)?? else {
        for locked in node.with_lockout(|lockout| lockout.failed(&attempt, monotonic())) {
            let what = Quoted(&locked.what);
            match locked.is_network {
                true => tracing::warn!(network = %what, "too many failed logins: a network is locked out"),
                false => tracing::warn!(user = %what, "too many failed logins: an account is guarded"),
            }
        }
        return Err(Refused::Credentials);
    };
    if !node.is_open(&window.window, &window.credential.stored_key) {
        return Err(Refused::Credentials);
    }
    node.with_lockout(|lockout| lockout.succeeded(&attempt));
    let now = unix_millis();
    if known_at.is_none_or(|known| known.at.saturating_add(AGAIN_MILLIS) < now) {
        // Without it the login is good all the same.
        if let Err(error) = node.store.commit(move |txn| remember(txn, &id, network, now)).await {
            tracing::warn!(%error, "from where a traveller logs in could not be remembered");
        }
    }
    node.used(id)?;
    Ok((window, private_key))
}

/// Forgets networks of windows that are no more and of long ago, for ever.
pub async fn run(node: Arc<Node>) {
    loop {
        // By a clock that has jumped, travellers would be forgotten who logged in yesterday.
        let believed = node.store.read().and_then(|rows| age::is_clock_believed(&rows)).unwrap_or(false);
        let mut from = believed.then(Vec::new);
        while let Some(start) = from.take() {
            let forgotten = node.store.commit(move |txn| forget(txn, &start, unix_millis())).await;
            match forgotten {
                Ok(next) => from = next.into_inner(),
                Err(error) => tracing::warn!(%error, "networks of old logins could not be forgotten"),
            }
        }
        tokio::time::sleep(ROUND).await;
    }
}

fn key(window: &Id, network: Network) -> Vec<u8> {
    [window.as_slice(), &network.octets()].concat()
}

fn remember(txn: &mut Txn<'_>, window: &Id, network: Network, now: u64) -> Result<(), StoreError> {
    let key = key(window, network);
    let mut others = txn.prefix::<KnownRow>(KNOWN_NETWORKS, window, NETWORKS_MAX + 1)?;
    others.retain(|(other, _)| *other != key);
    if others.len() >= NETWORKS_MAX
        && let Some((oldest, _)) = others.iter().min_by_key(|(_, row)| row.at)
    {
        txn.delete(KNOWN_NETWORKS, oldest)?;
    }
    txn.put(KNOWN_NETWORKS, &key, &KnownRow { at: now })
}

/// Looks at some rows from `from` on; where to go on.
fn forget(txn: &mut Txn<'_>, from: &[u8], now: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let rows = txn.range::<KnownRow>(KNOWN_NETWORKS, from, None, ROWS_AT_ONCE)?;
    for (key, row) in &rows {
        let is_open = match key.get(..16) {
            Some(window) => txn.raw(WINDOWS, window)?.is_some(),
            None => false,
        };
        if !is_open || row.at.saturating_add(KNOWN_MILLIS) < now {
            txn.delete(KNOWN_NETWORKS, key)?;
        }
    }
    Ok(behind(&rows, ROWS_AT_ONCE))
}
