//! Logins to travel windows, by POP3 and submission alike: slowed down where there are guesses, and checked
//! with the same work whoever is meant.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};
use shared::age;
use shared::id::{monotonic, unix_millis};
use shared::row;
use shared::sasl::Credentials;
use shared::seal::PrivateKey;
use shared::store::{Rows, StoreError, Table, Txn, behind};
use shared::telemetry::Quoted;
use shared::unit::{Id, Login, Window, directory_hash};
use shared::wipe;

use crate::cover::NOBODY;
use crate::lockout::{Answer, Attempt, Network, Tried};
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
    /// Too many guesses.
    Guessing,
    /// It cannot be checked now.
    Temporary,
}

impl From<StoreError> for Refused {
    fn from(_: StoreError) -> Self {
        Self::Temporary
    }
}

/// Who has logged in: to which window, and by which of its passwords.
#[derive(Clone, Debug)]
pub struct Traveller {
    /// The window as it was then.
    pub window: Window,
    /// The password.
    pub login: Login,
}

/// Who logs in with these credentials, and the private key of their window, which they open.
pub async fn log_in(
    node: &Node,
    credentials: Credentials,
    client: IpAddr,
) -> Result<(Traveller, PrivateKey), Refused> {
    let window = node.window_of_login(&credentials.user)?;
    let network = Network::of(client);
    // Of nobody's window the same is read.
    let tried = window.map_or(NOBODY, |window| window.window);
    let known = node.store.read()?.get::<KnownRow>(KNOWN_NETWORKS, &key(&tried, network))?.is_some();
    let account = directory_hash(&node.directory_key, &node.account_name(&credentials.user));
    let attempt = Attempt { account, name: credentials.user.clone(), network, known };
    let mut trying = Trying::begin(node, attempt);
    let Answer { checked_after, told_after, locked } = trying.answer;
    let waited = checked_after.unwrap_or(told_after);
    tokio::time::sleep(waited).await;
    // It may have begun, ended or got another password meanwhile.
    let mut window = match node.window_of_login(&credentials.user)? {
        Some(window) => window,
        None => node.nobody().map_err(|_| Refused::Temporary)?,
    };
    let covers = node.covers.clone();
    let opened = tokio::task::spawn_blocking(move || {
        covers.uncover(&mut window)?;
        let key = window.open(&credentials.secret, unix_millis()).ok();
        wipe::stack();
        Ok::<_, io::Error>(key.map(|(key, login)| (Traveller { window, login }, key)))
    });
    let Ok(Ok(opened)) = opened.await else { return Err(Refused::Temporary) };
    // Whoever is locked out has waited for the same work.
    let Some((traveller, private_key)) = opened.filter(|_| checked_after.is_some()) else {
        tokio::time::sleep(told_after.saturating_sub(waited)).await;
        trying.tried = Tried::Failed;
        return Err(if locked { Refused::Guessing } else { Refused::Credentials });
    };
    let id = traveller.window.window;
    if !node.is_open(&id, &traveller.login) {
        return Err(Refused::Credentials);
    }
    trying.tried = Tried::Succeeded;
    drop(trying);
    let now = unix_millis();
    let known_at = node.store.read()?.get::<KnownRow>(KNOWN_NETWORKS, &key(&id, network))?;
    if known_at.is_none_or(|known| known.at.saturating_add(AGAIN_MILLIS) < now) {
        // Without it the login is good all the same.
        if let Err(error) = node.store.commit(move |txn| remember(txn, &id, network, now)).await {
            tracing::warn!(%error, "from where a traveller logs in could not be remembered");
        }
    }
    node.used(id)?;
    Ok((traveller, private_key))
}

/// A login that is being tried, which ends when this is dropped: as one that was not checked, unless something else is
/// said before.
struct Trying<'n> {
    node: &'n Node,
    attempt: Attempt,
    answer: Answer,
    tried: Tried,
}

impl<'n> Trying<'n> {
    fn begin(node: &'n Node, attempt: Attempt) -> Self {
        let answer = node.with_lockout(|lockout| lockout.begin(&attempt, monotonic()));
        Self { node, attempt, answer, tried: Tried::Unchecked }
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        let Self { node, attempt, answer, tried } = self;
        for locked in node.with_lockout(|lockout| lockout.end(attempt, *answer, *tried, monotonic())) {
            let what = Quoted(&locked.what);
            match locked.is_network {
                true => tracing::warn!(network = %what, "too many failed logins: a network is locked out"),
                false => tracing::warn!(user = %what, "too many failed logins: an account is guarded"),
            }
        }
    }
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

/// Forgets from where a window was used.
pub fn forget_window(txn: &mut Txn<'_>, window: &Id) -> Result<(), StoreError> {
    for (key, _) in txn.prefix::<KnownRow>(KNOWN_NETWORKS, window, NETWORKS_MAX + 1)? {
        txn.delete(KNOWN_NETWORKS, &key)?;
    }
    Ok(())
}

/// Whether it is known from where a window was used.
#[cfg(feature = "sim")]
pub fn is_remembered(rows: &impl Rows, window: &Id) -> Result<bool, StoreError> {
    Ok(!rows.prefix::<KnownRow>(KNOWN_NETWORKS, window, 1)?.is_empty())
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use shared::credential::{Credential, site_salt};
    use shared::moment::Moment;
    use shared::seal::PublicKey;
    use shared::store::sim::{Faults, SimDisk};
    use shared::store::{Disk, Store};
    use shared::topology::{SMALLEST, Topology};
    use shared::unit::Former;

    use super::*;
    use crate::cover::Covers;
    use crate::record::{BigRow, SETTINGS};
    use crate::windows;

    const ALICE: &str = "alice";
    /// The public key of big, from which the salt follows.
    const BIG: [u8; 32] = [9; 32];

    /// An edge with a window of Alice's until then, its covers' disk, and her password.
    async fn edge(until: Option<u64>) -> (Node, Arc<SimDisk>, String) {
        let (node, covers, window, password) = before_it_begins(until);
        node.store.commit(move |txn| windows::open(txn, &window)).await.expect("commits");
        (node, covers, password)
    }

    /// The same edge that does not know of the window yet.
    fn before_it_begins(until: Option<u64>) -> (Node, Arc<SimDisk>, Window, String) {
        let disk = || Arc::new(SimDisk::new(Faults::default()));
        let store = Store::open(disk()).expect("opens");
        let (topology, covers) = (Topology::parse(SMALLEST, "test.toml").expect("is right"), disk());
        let on_disk = Covers::on(Arc::<SimDisk>::clone(&covers));
        let node = Node::new(store, on_disk, topology, PrivateKey::from_bytes([1; 32]), [2; 32]);
        let (key, public) = PrivateKey::generate();
        let (password, credential) = Credential::generate(&key, site_salt(&PublicKey(BIG)));
        let mut window = Window {
            logins: [ALICE, "alice@example.com"]
                .map(|name| directory_hash(&node.directory_key, name))
                .to_vec(),
            until,
            ..Window::new([1; 16], [2; 16], public.0, credential)
        };
        node.covers.cover(&mut window).expect("covers");
        (node, covers, window, password)
    }

    async fn try_login(node: &Node, user: &str, password: &str) -> Result<Id, Refused> {
        let credentials = Credentials::new(user.into(), password.to_owned().into()).expect("may be tried");
        let client = IpAddr::from([192, 0, 2, 1]);
        log_in(node, credentials, client).await.map(|(by, _)| by.window.window)
    }

    #[tokio::test]
    async fn a_cover_is_read_for_a_name_that_does_not_exist_as_for_one_that_does() {
        let (node, covers, password) = edge(None).await;
        assert_eq!(try_login(&node, ALICE, &password).await, Ok([1; 16]));
        for user in [ALICE, "nobody"] {
            assert_eq!(try_login(&node, user, "a-guess").await, Err(Refused::Credentials), "{user}");
        }
        let names = covers.list().expect("lists");
        assert_eq!(names.len(), 2, "hers, and the one that is nobody's");
        assert_eq!(node.covers.windows().expect("lists"), [[1; 16]]);
        node.destroy_covers().expect("destroys");
        // A disk that cannot be read shows who is there as little.
        names.iter().try_for_each(|name| covers.remove(name)).expect("removes");
        for user in [ALICE, "nobody"] {
            assert_eq!(try_login(&node, user, "a-guess").await, Err(Refused::Temporary), "{user}");
        }
    }

    #[tokio::test]
    async fn what_is_tried_is_counted_as_it_begins_and_a_locked_network_tells_nobody_who_travels() {
        let (node, _, password) = edge(None).await;
        assert_eq!(try_login(&node, ALICE, &password).await, Ok([1; 16]), "she was here before");
        let mut begun = Vec::new();
        for user in std::iter::repeat_n("nobody", 100).chain([ALICE, "somebody-else"]) {
            // Each is begun before any has ended.
            let mut guess = Box::pin(try_login(&node, user, "a-guess"));
            let under_way = poll_fn(|context| Poll::Ready(guess.as_mut().poll(context))).await;
            assert_eq!(under_way, Poll::Pending);
            begun.push(guess);
        }
        assert_eq!(try_login(&node, ALICE, &password).await, Ok([1; 16]), "she is not locked out");
        let mut answers = Vec::new();
        for guess in begun {
            answers.push(guess.await);
        }
        let (tried, kept_off) = answers.split_at(20);
        assert!(tried.iter().all(|answer| *answer == Err(Refused::Credentials)), "{tried:?}");
        assert!(kept_off.iter().all(|answer| *answer == Err(Refused::Guessing)), "{kept_off:?}");
        let locked = node.with_lockout(|lockout| lockout.locked(monotonic()));
        assert!(locked.iter().all(|locked| locked.failures == 20) && locked.len() == 2);
    }

    #[tokio::test]
    async fn a_window_that_begins_while_a_login_waits_is_the_one_that_is_used() {
        let (node, _, window, password) = before_it_begins(None);
        let mut login = Box::pin(try_login(&node, ALICE, &password));
        let under_way = poll_fn(|context| Poll::Ready(login.as_mut().poll(context))).await;
        assert_eq!(under_way, Poll::Pending);
        node.store.commit(move |txn| windows::open(txn, &window)).await.expect("commits");
        assert_eq!(login.await, Ok([1; 16]));
        node.store.commit(|_| Ok::<_, StoreError>(())).await.expect("commits");
        let rows = node.store.read().expect("reads");
        assert!(windows::is_use_told(&rows, &NOBODY, unix_millis()).expect("reads"));
        assert!(
            !windows::is_use_told(&rows, &[1; 16], unix_millis()).expect("reads"),
            "big is told of its use"
        );
        let network = Network::of(IpAddr::from([192, 0, 2, 1]));
        assert!(rows.raw(KNOWN_NETWORKS, &key(&NOBODY, network)).expect("reads").is_none());
        assert!(rows.raw(KNOWN_NETWORKS, &key(&[1; 16], network)).expect("reads").is_some());
    }

    #[tokio::test]
    async fn scram_tells_nobody_who_travels() {
        let (node, _, _) = edge(None).await;
        let introduced = |txn: &mut Txn<'_>| txn.put(SETTINGS, b"big", &BigRow { sealing_key: Some(BIG) });
        node.store.commit(introduced).await.expect("commits");
        let shown = |user: &str| {
            let keys = node.scram_keys(user).expect("reads");
            (keys.salt, keys.iterations)
        };
        let hers = shown(ALICE);
        for user in ["alice@example.com", "bob", "bob@example.com", "", "nobody@remote.example"] {
            assert_eq!(shown(user), hers, "{user}");
        }
    }

    #[tokio::test]
    async fn who_logged_in_with_a_former_password_is_out_when_that_is_good_no_more() {
        let (node, _, mut window, password) = before_it_begins(None);
        let (key, _) = PrivateKey::generate();
        let (_, other) = window.credential.rotate(&key);
        let former = std::mem::replace(&mut window.credential, other);
        window.former = Some(Former { credential: former, until: unix_millis() + 3_600_000 });
        let (rotated, id) = (window.clone(), window.window);
        node.store.commit(move |txn| windows::open(txn, &rotated)).await.expect("commits");
        let credentials = Credentials::new(ALICE.into(), password.into()).expect("may be tried");
        let (opened, _) = log_in(&node, credentials, IpAddr::from([192, 0, 2, 1])).await.expect("is good");
        assert_eq!((opened.window.window, node.still_open(&opened)), (id, Ok(())));
        // It is good for a moment still, and then its sessions end by themselves.
        let mut soon = window.clone();
        soon.former = soon.former.map(|former| Former { until: unix_millis() + 200, ..former });
        node.store.commit(move |txn| windows::open(txn, &soon)).await.expect("commits");
        node.windows_changed();
        let over = tokio::time::timeout(Duration::from_secs(60), node.over(&id, &opened.login));
        assert_eq!(over.await, Ok(()));
        assert!(node.still_open(&opened).is_err());
    }

    /// It was seen apart from the node's life a moment before the start, or an hour of life before.
    #[tokio::test]
    async fn a_start_behind_a_jump_of_the_clock_ends_a_window_for_good_only_once_it_is_known_to_be_right() {
        const HOUR: u64 = 3_600_000;
        let hour = Duration::from_millis(HOUR);
        for (lived_since, told, ends) in [
            (Duration::ZERO, None, false),
            (hour / 2, None, false),
            (hour, None, true),
            (Duration::ZERO, Some(0), true),
            (hour, Some(2 * HOUR), false),
        ] {
            let (node, _, password) = edge(Some(unix_millis() - 1)).await;
            let past = unix_millis() - 5 * HOUR;
            node.store.commit(move |txn| age::live_on(txn, Duration::ZERO, past)).await.expect("commits");
            let jumped = move |txn: &mut Txn<'_>| {
                age::live_on(txn, Duration::ZERO, unix_millis())?;
                age::live_on(txn, lived_since, unix_millis())
            };
            node.store.commit(jumped).await.expect("commits");
            node.wake().await.expect("wakes");
            if let Some(behind) = told {
                node.with_trust(|trust| trust.told(Moment::now(), unix_millis() - behind));
            }
            node.end_overdue().await.expect("is read");
            let destroyed = node.covers.windows().expect("lists").is_empty();
            assert_eq!(destroyed, ends, "{lived_since:?} {told:?}");
            assert_eq!(try_login(&node, ALICE, &password).await, Err(Refused::Credentials), "in any case");
        }
    }
}
