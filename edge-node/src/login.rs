//! Logins to travel windows, by POP3 and submission alike: slowed down where there are guesses, and checked
//! with the same work whoever is meant.

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
use shared::unit::{Id, Login, Window};
use tokio::time::{Instant, sleep_until};

use crate::checks::{Lane, check};
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
/// How long behind the wait a failure is told: what the work of a check takes, and more, so that it does not show.
const PAD: Duration = Duration::from_millis(500);
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
///
/// A failure is told at an instant that follows from its beginning and from what is shown to everybody; what was done
/// for it before, in a known network, changes nothing of that. Only where checks are slower than [`PAD`] it is told when
/// the last one that anybody would get is done, which waits for its turn as everybody's.
pub async fn log_in(
    node: &Node,
    credentials: Credentials,
    client: IpAddr,
) -> Result<(Traveller, PrivateKey), Refused> {
    let begun = Instant::now();
    let attempt = attempt(node, &credentials.user, client)?;
    let (network, known) = (attempt.network, attempt.known);
    let mut trying = Trying::begin(node, attempt);
    let answer = trying.answer;
    let credentials = Arc::new(credentials);
    let opened = tokio::select! {
        biased;
        // What it finds wrong, or cannot read, is told by the other one.
        Some(opened) = open_where_known(node, &credentials, answer, begun), if known => Ok(opened),
        opened = open(node, &credentials, answer, begun) => opened,
    };
    let (traveller, private_key) = match opened {
        Ok(opened) => opened,
        Err(refused) => {
            if refused != Refused::Temporary {
                trying.tried = Tried::Failed;
            }
            return Err(refused);
        }
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

/// What somebody tries who logs in as `user`.
fn attempt(node: &Node, user: &str, client: IpAddr) -> Result<Attempt, StoreError> {
    let window = node.window_of_login(user)?;
    let network = Network::of(client);
    // Of nobody's window the same is read.
    let tried = window.map_or(NOBODY, |window| window.window);
    let known = node.store.read()?.get::<KnownRow>(KNOWN_NETWORKS, &key(&tried, network))?.is_some();
    Ok(Attempt { account: node.account(user), name: user.to_owned(), network, known })
}

/// For the simulation: somebody has a wrong password, which nobody checks.
#[cfg(feature = "sim")]
pub fn fail(node: &Node, user: &str, client: IpAddr) -> Result<(), StoreError> {
    let mut trying = Trying::begin(node, attempt(node, user, client)?);
    trying.tried = Tried::Failed;
    Ok(())
}

/// As whoever was never there before logs in: checked when they are, and not at all where they are locked out.
async fn open(
    node: &Node,
    credentials: &Arc<Credentials>,
    answer: Answer,
    begun: Instant,
) -> Result<(Traveller, PrivateKey), Refused> {
    sleep_until(begun + answer.told_after).await;
    let refused = match answer.locked {
        true => Refused::Guessing,
        false => match check(node, Lane::All, credentials).await {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => Refused::Credentials,
            Err(refused) => refused,
        },
    };
    sleep_until(begun + answer.told_after + PAD).await;
    Err(refused)
}

/// Where the traveller was before the password opens the mailbox also in a lock, and without waiting for others.
async fn open_where_known(
    node: &Node,
    credentials: &Arc<Credentials>,
    answer: Answer,
    begun: Instant,
) -> Option<(Traveller, PrivateKey)> {
    let wait = answer.checked_after?;
    sleep_until(begun + wait).await;
    // The other one is at it.
    if !answer.locked && wait == answer.told_after && !node.checks.is_busy(Lane::All) {
        return None;
    }
    check(node, Lane::Known, credentials).await.ok().flatten()
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
    use std::net::Ipv4Addr;
    use std::sync::Mutex;
    use std::task::Poll;

    use shared::credential::{Credential, site_salt};
    use shared::moment::Moment;
    use shared::seal::PublicKey;
    use shared::store::sim::{Faults, SimDisk};
    use shared::store::{Disk, Store};
    use shared::topology::{SMALLEST, Topology};
    use shared::unit::{Former, directory_hash};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::checks::Checks;
    use crate::cover::Covers;
    use crate::record::{BigRow, SETTINGS};
    use crate::windows;

    const ALICE: &str = "alice";
    /// From where all log in.
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
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
        log_in(node, credentials, CLIENT).await.map(|(by, _)| by.window.window)
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

    /// What became of a login, and how long after the first of them began.
    type Told = (String, Result<Id, Refused>, Duration);

    /// Begins logins in this order, without waiting for any; what is told of each is there in the order in which it
    /// was told.
    async fn begin(
        node: &Arc<Node>,
        logins: &[(String, String)],
    ) -> (Vec<JoinHandle<()>>, Arc<Mutex<Vec<Told>>>) {
        let (start, told) = (Instant::now(), Arc::<Mutex<Vec<_>>>::default());
        let mut begun = Vec::new();
        for (user, password) in logins.iter().cloned() {
            let (node, told) = (Arc::clone(node), Arc::clone(&told));
            begun.push(tokio::spawn(async move {
                let answer = try_login(&node, &user, &password).await;
                told.lock().expect("nobody panics").push((user, answer, start.elapsed()));
            }));
        }
        // On one thread: each comes as far as it can before this goes on.
        for _ in &begun {
            tokio::task::yield_now().await;
        }
        (begun, told)
    }

    async fn ended((begun, told): (Vec<JoinHandle<()>>, Arc<Mutex<Vec<Told>>>)) -> Vec<Told> {
        for login in begun {
            login.await.expect("nobody panics");
        }
        std::mem::take(&mut *told.lock().expect("nobody panics"))
    }

    fn guesses<'u>(users: impl IntoIterator<Item = &'u str>) -> Vec<(String, String)> {
        users.into_iter().map(|user| (user.to_owned(), "a-guess".to_owned())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_tried_is_counted_as_it_begins_and_a_locked_network_tells_nobody_who_travels() {
        let (node, _, password) = edge(None).await;
        assert_eq!(try_login(&node, ALICE, &password).await, Ok([1; 16]), "she was here before");
        assert_eq!(node.checks.take_begun(), 1, "also where she was before one check is enough");
        let node = Arc::new(node);
        // Each is begun before any has ended.
        let logins = guesses(std::iter::repeat_n("nobody", 100).chain([ALICE, "somebody-else"]));
        let begun = begin(&node, &logins).await;
        let start = Instant::now();
        assert_eq!(try_login(&node, ALICE, &password).await, Ok([1; 16]), "she is not locked out");
        assert_eq!(start.elapsed(), Duration::ZERO, "nor kept waiting");
        let told = ended(begun).await;
        let (tried, kept_off): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|(_, answer, _)| *answer == Err(Refused::Credentials));
        assert_eq!(tried.len(), 20);
        let longest = Duration::from_secs(15) + PAD;
        let expected = std::iter::repeat_n("nobody", 80).chain([ALICE, "somebody-else"]);
        let expected: Vec<_> =
            expected.map(|user| (user.to_owned(), Err(Refused::Guessing), longest)).collect();
        assert_eq!(kept_off, expected, "in the order in which they began");
        assert_eq!(
            node.checks.take_begun(),
            20 + 2,
            "none is done for those who are kept off, but for her two"
        );
        let locked = node.with_lockout(|lockout| lockout.locked(monotonic()));
        assert!(locked.iter().all(|locked| locked.failures == 20) && locked.len() == 2);
    }

    /// Who is meant by the last name, or by one in between.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Meant {
        /// Somebody who travels and was in that network.
        Known,
        /// Somebody who travels.
        Traveller,
        Nobody,
    }

    /// All that a guesser sees of names sent at once, with places for checks free, or taken by others for so long.
    async fn seen(meant: Meant, locked: bool, taken: Option<Duration>) -> (Vec<Told>, usize) {
        let (mut node, password) = match meant {
            Meant::Nobody => {
                let (node, _, _, password) = before_it_begins(None);
                (node, password)
            }
            _ => {
                let (node, _, password) = edge(None).await;
                (node, password)
            }
        };
        // Then their order is certain.
        node.checks = Checks::at_once(1);
        let node = Arc::new(node);
        if meant == Meant::Known {
            assert_eq!(try_login(&node, ALICE, &password).await, Ok([1; 16]));
        }
        // From elsewhere in the network, by names that are nobody's.
        let before = if locked { 20 } else { 8 };
        for other in 0..before {
            let name = format!("other{other}");
            let (account, network) = (directory_hash(&node.directory_key, &name), Network::of(CLIENT));
            let attempt = Attempt { account, name, network, known: false };
            node.with_lockout(|lockout| {
                let answer = lockout.begin(&attempt, monotonic());
                lockout.end(&attempt, answer, Tried::Failed, monotonic())
            });
        }
        node.checks.take_begun();
        let places = taken.map(|_| node.checks.occupied());
        let begun = begin(&node, &guesses(["a", "b", ALICE, "c", "d", "e", "f", ALICE])).await;
        if let (Some(taken), Some(places)) = (taken, places) {
            tokio::time::sleep(taken).await;
            drop(places);
        }
        (ended(begun).await, node.checks.take_begun())
    }

    #[tokio::test(start_paused = true)]
    async fn who_guesses_does_not_see_who_travels_by_when_and_in_which_order_they_are_told() {
        let seconds = Duration::from_secs;
        for (locked, taken, instant) in [
            (true, None, seconds(15) + PAD),
            (true, Some(seconds(60)), seconds(15) + PAD),
            (false, None, seconds(15) + PAD),
            // Behind those by whom the places are taken, in the order in which they began.
            (false, Some(seconds(60)), seconds(60)),
        ] {
            let refused = if locked { Refused::Guessing } else { Refused::Credentials };
            let names = ["a", "b", ALICE, "c", "d", "e", "f", ALICE];
            let expected = names.map(|name| (name.to_owned(), Err(refused), instant)).to_vec();
            for meant in [Meant::Nobody, Meant::Traveller, Meant::Known] {
                let (told, checks) = seen(meant, locked, taken).await;
                assert_eq!(told, expected, "{meant:?} {locked} {taken:?}");
                let all = if locked { 0 } else { names.len() };
                match (meant, taken) {
                    // Where she was before her password is looked at by itself, if there is a place in time.
                    (Meant::Known, None) => assert_eq!(checks, all + 2, "{locked}"),
                    (Meant::Known, Some(_)) if !locked => assert!(checks <= all + 2, "{checks}"),
                    _ => assert_eq!(checks, all, "{meant:?} {locked} {taken:?}"),
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn checks_that_others_ask_for_do_not_keep_a_traveller_out_of_where_she_was() {
        let (mut node, _, password) = edge(None).await;
        node.checks = Checks::at_once(1);
        assert_eq!(try_login(&node, ALICE, &password).await, Ok([1; 16]));
        let [all, known] = node.checks.occupied();
        drop(known);
        let start = Instant::now();
        let login = tokio::time::timeout(Duration::from_secs(60), try_login(&node, ALICE, &password));
        assert_eq!(login.await, Ok(Ok([1; 16])));
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(all);
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
        let network = Network::of(CLIENT);
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
        let (opened, _) = log_in(&node, credentials, CLIENT).await.expect("is good");
        assert_eq!((opened.window.window, node.still_open(&opened)), (id, Ok(())));
        let mut watch = node.watch(id, opened.login);
        assert!(watch.is_open(&node));
        // It is good for a moment still, and then its sessions end by themselves.
        let mut soon = window.clone();
        soon.former = soon.former.map(|former| Former { until: unix_millis() + 200, ..former });
        node.store.commit(move |txn| windows::open(txn, &soon)).await.expect("commits");
        node.windows_changed();
        let over = tokio::time::timeout(Duration::from_secs(60), watch.over(&node));
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
