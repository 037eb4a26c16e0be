//! What every part of a running edge shares.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use link_proto::driver::Handle;
use link_proto::unit::Lane;
use shared::address::{Address, Domain, canonical_local};
use shared::credential::{Credential, site_salt};
use shared::id::{MessageId, monotonic, random, unix_millis};
use shared::report::DirectoryView;
use shared::sasl::ScramKeys;
use shared::seal::{FileKey, PrivateKey, PublicKey, Sealed, Unwrapper, Wrappers};
use shared::smtp::{Enhanced, Reply};
use shared::state::{State, StateError};
use shared::store::{DirectoryDisk, Rows, Snapshot, Store, StoreError};
use shared::topology::Topology;
use shared::unit::{Id, Login, Window, directory_hash};
use tokio::sync::watch;

use crate::checks::Checks;
use crate::cover::{Covers, NOBODY};
use crate::directory::{self, DirectoryRow};
use crate::fence::Fence;
use crate::harvest::Harvest;
use crate::lockout::{Account, Lockout};
use crate::login::Traveller;
use crate::maildrop::LastLogins;
use crate::pressure::Pressure;
use crate::queue::leaving;
use crate::record::{Held, LOGINS, PERSON_WINDOWS, WINDOWS, big};
use crate::revise::busy::Busy;
use crate::{correspondents, repeats, revise, windows};
use shared::age;
use shared::moment::{Moment, Trust};

/// Role names that every domain has (RFC 5321 §4.5.1, RFC 2142).
const ROLES: [&str; 2] = ["postmaster", "abuse"];

/// The end of what is standing, milliseconds since 1970.
const NEVER: u64 = u64::MAX;
/// After this a session looks whether its window is open still, whatever it has been told.
const LOOKED_AT: Duration = Duration::from_secs(24 * 3600);
/// How long a session that has nothing to do waits before it looks again at what could not be read.
const LOOKED_AT_AGAIN: Duration = Duration::from_secs(1);

/// The edge.
#[derive(Debug)]
pub struct Node {
    /// Where it is and what it is to do.
    pub topology: Topology,
    /// Its store.
    pub store: Store,
    /// To which outbound bodies' keys are wrapped.
    pub sealing: Unwrapper,
    wrappers: Wrappers,
    /// Under which addresses and logins are hashed.
    pub directory_key: [u8; 32],
    /// How much more mail can be taken.
    pub pressure: Pressure,
    /// The running link.
    pub link: Handle,
    /// What is to be delivered, or when, has changed.
    pub due: tokio::sync::Notify,
    /// Domains that an operator wants asked again now.
    retried: Arc<Mutex<BTreeSet<String>>>,
    /// Raised with every confirm of big's that has been recorded.
    pub confirms: watch::Sender<u64>,
    /// Big was heard of: there is something to compare.
    pub comparison_due: tokio::sync::Notify,
    /// When, if that has not been compared yet.
    marked: Mutex<Option<Moment>>,
    fence: Mutex<Fence>,
    lockout: Mutex<Lockout>,
    harvest: Mutex<Harvest>,
    /// How many passwords are checked at once.
    pub checks: Checks,
    last_logins: Mutex<LastLogins>,
    /// Sessions that wait for a confirm.
    vouching: AtomicUsize,
    /// Sessions that have said a 250 last.
    pub said: Arc<repeats::Open>,
    /// Attempts under way and maildrops in use.
    pub busy: Arc<Busy>,
    /// The covers of the windows' keys.
    pub covers: Covers,
    /// Made when it is needed first: see [`Node::nobody`].
    nobody: OnceLock<Window>,
    /// Held from the making or the last use of a cover to the commit that goes with it.
    pub covering: tokio::sync::Mutex<()>,
    /// Whether the clock may end windows for good.
    trust: Mutex<Trust>,
    /// Raised when a window has ended, or ends at another moment than before.
    windows_changed: watch::Sender<u64>,
}

/// What RCPT is answered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Ours, and somebody's or a role's.
    Yes(Option<Id>, Rule),
    /// Ours, and nobody's.
    No,
    /// Ours, and not here; why it may be somebody's all the same.
    Unsure(String),
    /// Another domain.
    Foreign,
    /// The directory has never been whole: nothing can be said.
    NotYet,
}

/// By what an address is somebody's, in the order in which it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// It is in the directory as it is.
    Exact,
    /// It is without its tag.
    Base,
    /// It is the role of postmaster or abuse.
    Role,
    /// Its domain takes whatever is nobody else's.
    CatchAll,
}

impl Node {
    /// Opens the edge's state.
    pub fn open(topology: Topology, state: &State) -> Result<Self, StateError> {
        let sealing = PrivateKey::from_bytes(state.key32("sealing")?);
        let (directory_key, store) = (state.key32("directory")?, state.store()?);
        let covers = Covers::on(Arc::new(DirectoryDisk::open(&state.path().join("windows"))?));
        Ok(Self::new(store, covers, topology, sealing, directory_key))
    }

    /// An edge over an open store.
    pub fn new(
        store: Store,
        covers: Covers,
        topology: Topology,
        sealing: PrivateKey,
        directory_key: [u8; 32],
    ) -> Self {
        Self {
            covers,
            nobody: OnceLock::new(),
            covering: tokio::sync::Mutex::default(),
            trust: Mutex::new(Trust::new(Moment::now())),
            windows_changed: watch::Sender::new(0),
            pressure: Pressure::new(&store, topology.edge.spool_max),
            store,
            sealing: Unwrapper::new(sealing),
            wrappers: Wrappers::default(),
            directory_key,
            topology,
            link: Handle::new(),
            due: tokio::sync::Notify::new(),
            retried: Arc::default(),
            confirms: watch::Sender::new(0),
            comparison_due: tokio::sync::Notify::new(),
            marked: Mutex::default(),
            fence: Mutex::default(),
            lockout: Mutex::default(),
            harvest: Mutex::default(),
            checks: Checks::default(),
            last_logins: Mutex::default(),
            vouching: AtomicUsize::new(0),
            said: Arc::default(),
            busy: Arc::default(),
        }
    }

    /// Wraps the key of a message to big, or to a window.
    pub fn wrap(&self, key: &FileKey, reader: &PublicKey, message: MessageId) -> Result<Vec<u8>, Sealed> {
        self.wrappers.wrap(key, reader, message, monotonic())
    }

    /// Whether somebody inside has written to `address` lately.
    pub fn is_known_correspondent(&self, address: &Address) -> Result<bool, StoreError> {
        correspondents::is_known(&self.store.read()?, &self.directory_key, address, unix_millis())
    }

    /// Whether `domain` is ours.
    pub fn is_ours(&self, domain: &Domain) -> bool {
        self.topology.site.domains.contains(domain)
    }

    /// Who `address` is, by the directory as big has pushed it: exact, then without its tag, then a
    /// role, then its domain's catch-all.
    pub fn lookup(&self, address: &Address) -> Result<Known, StoreError> {
        if !self.is_ours(address.domain()) {
            return Ok(Known::Foreign);
        }
        let snapshot = self.store.read()?;
        let state = directory::state(&snapshot)?;
        if state.current == 0 || big(&snapshot)?.sealing_key.is_none() {
            return Ok(Known::NotYet);
        }
        let find = |canonical: String| {
            directory::find(&snapshot, &state, &directory_hash(&self.directory_key, &canonical))
        };
        if let Some(row) = find(address.canonical())? {
            return Ok(Known::Yes(row.person, Rule::Exact));
        }
        if let Some(base) = address.without_tag()
            && let Some(row) = find(base.canonical())?
        {
            return Ok(Known::Yes(row.person, Rule::Base));
        }
        if is_role(address) {
            return Ok(Known::Yes(None, Rule::Role));
        }
        if let Some(row) = find(format!("@{}", address.domain()))? {
            return Ok(Known::Yes(row.person, Rule::CatchAll));
        }
        Ok(self.unsure().map_or(Known::No, Known::Unsure))
    }

    /// Why an address that is not in the directory may be somebody's all the same; `None` while it is
    /// nobody's.
    pub fn unsure(&self) -> Option<String> {
        let stale_after = self.topology.edge.stale_after;
        self.with_fence(|fence| fence.unsure(Moment::now(), stale_after))
    }

    /// Looks at the staleness fence, or moves it.
    pub fn with_fence<T>(&self, action: impl FnOnce(&mut Fence) -> T) -> T {
        action(&mut self.fence.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the domains that an operator wants asked now, though nobody could be reached there a moment ago: for the
    /// operation that makes a message due there, so that who sees it due has seen them.
    pub fn retrier(&self) -> impl Fn(String) + Send + 'static {
        let retried = Arc::clone(&self.retried);
        move |domain| {
            retried.lock().unwrap_or_else(PoisonError::into_inner).insert(domain);
        }
    }

    /// Takes the domains that [`Self::retrier`] was told.
    pub fn take_retried(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.retried.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Big said, over the connection that is open now, that it has told everything.
    pub fn marked(&self, at: Moment) {
        *self.marked.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        self.comparison_due.notify_one();
    }

    /// When big said so, unless that has been asked since.
    pub fn take_marked(&self) -> Option<Moment> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How far the directory is, for people.
    pub fn directory_view(&self) -> Result<DirectoryView, StoreError> {
        let DirectoryRow { compared_at, differed, mended, .. } = directory::state(&self.store.read()?)?;
        let compared_at = Some(compared_at).filter(|at| *at > 0);
        Ok(DirectoryView { compared_at, differed, mended, unsure: self.unsure() })
    }

    /// The hash under which an address is known here.
    pub fn address_hash(&self, address: &Address) -> [u8; 32] {
        directory_hash(&self.directory_key, &address.canonical())
    }

    /// Tells big of a login, seldom; losing that costs nothing, so it waits for another commit.
    pub fn used(&self, window: Id) -> Result<(), StoreError> {
        let now = unix_millis();
        if !windows::is_use_told(&self.store.read()?, &window, now)? {
            return Ok(());
        }
        let link = self.link.clone();
        self.store.commit_lazily(move |txn| windows::used(txn, &window, now), move || link.units(Lane::Event))
    }

    /// This node starts: what it knows of its clock counts from here on.
    pub async fn wake(&self) -> Result<(), StoreError> {
        let trust = age::awake(&self.store).await?;
        self.with_trust(|known| *known = trust);
        let now = unix_millis();
        let outbound = self.topology.edge.outbound.clone();
        self.store.commit(move |txn| leaving::settle(txn, &outbound, now)).await?;
        // Of sessions that ended with the last life of this node, only their windows are known.
        for window in revise::sessions(&self.store.read()?)? {
            self.store.commit(move |txn| revise::settle_copies(txn, &window, now)).await?;
        }
        Ok(())
    }

    /// Looks at how far the clock is trusted, or changes it.
    pub fn with_trust<T>(&self, action: impl FnOnce(&mut Trust) -> T) -> T {
        action(&mut self.trust.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the windows whose end has come, and destroys their keys, if the clock is to be believed. Logins stop by
    /// the clock in any case.
    pub async fn end_overdue(&self) -> Result<(), StoreError> {
        if !self.with_trust(|trust| trust.believe(Moment::now())) {
            return Ok(());
        }
        let now = unix_millis();
        let overdue = windows::overdue(&self.store.read()?, now)?;
        if overdue.is_empty() {
            return Ok(());
        }
        let _covering = self.covering.lock().await;
        let busy = Arc::clone(&self.busy);
        let ended = self.store.commit(move |txn| {
            // Big may have put an end off since.
            let overdue = windows::overdue(txn, now)?;
            for (window, until) in &overdue {
                revise::end_window(txn, &busy, window, Some(*until), now)?;
            }
            Ok::<_, StoreError>(overdue)
        });
        for (window, _) in ended.await?.into_inner() {
            tracing::info!(window = %MessageId(window), "a travel window has ended");
            self.covers.destroy(&window).map_err(|error| StoreError::Io(error.to_string()))?;
        }
        self.windows_changed();
        self.queued(Lane::Event.index());
        Ok(())
    }

    /// Destroys the covers of windows that are no more. The caller holds `covering`.
    pub fn destroy_covers(&self) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError::Io(error.to_string());
        let snapshot = self.store.read()?;
        for window in self.covers.windows().map_err(failed)? {
            if snapshot.raw(WINDOWS, &window)?.is_none() {
                self.covers.destroy(&window).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Tells sessions to look whether their windows are open still.
    pub fn windows_changed(&self) {
        self.windows_changed.send_modify(|changes| *changes += 1);
    }

    /// Whether a window is open to whom it was opened with this login; what cannot be read now may be.
    pub fn is_open(&self, window: &Id, login: &Login) -> bool {
        let open = self.store.read().and_then(|snapshot| open_to(&snapshot, window, login));
        !matches!(open, Ok(None))
    }

    /// Watches a window for whom it was opened to with this login.
    pub fn watch(&self, window: Id, login: Login) -> WindowWatch {
        let changes = self.windows_changed.subscribe();
        let mut watch = WindowWatch { window, login, changes, until: NEVER, known_until: Duration::ZERO };
        watch.look(self);
        watch
    }

    /// An account as logins are counted: by its name without one of our domains.
    pub fn account(&self, user: &str) -> Account {
        let address = user.parse::<Address>().ok().filter(|address| self.is_ours(address.domain()));
        let name = canonical_local(address.as_ref().map_or(user, |address| address.local_part()));
        directory_hash(&self.directory_key, &name)
    }

    /// Looks at the counts of recipients who are not here and were named, or adds to them.
    pub fn with_harvest<T>(&self, action: impl FnOnce(&mut Harvest) -> T) -> T {
        action(&mut self.harvest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the counts of failed logins, or adds to them.
    pub fn with_lockout<T>(&self, action: impl FnOnce(&mut Lockout) -> T) -> T {
        action(&mut self.lockout.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at when maildrops were opened, or adds to it.
    pub fn with_logins<T>(&self, action: impl FnOnce(&mut LastLogins) -> T) -> T {
        action(&mut self.last_logins.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a SCRAM exchange needs of a user's credential; of nobody's, something that looks the same.
    pub fn scram_keys(&self, user: &str) -> Result<ScramKeys, StoreError> {
        let salt = self.salt()?;
        Ok(match self.window_of_login(user)? {
            Some(window) => window.credential.scram_keys(),
            None => Credential::scram_keys_of_nobody(&self.directory_key, salt, &canonical_login(user)),
        })
    }

    /// The salt of all passwords. Before big has introduced itself there is none to be told from.
    fn salt(&self) -> Result<[u8; 16], StoreError> {
        let key = big(&self.store.read()?)?.sealing_key;
        Ok(site_salt(&PublicKey(key.unwrap_or_default())))
    }

    /// The open window of a login name.
    pub fn window_of_login(&self, user: &str) -> Result<Option<Window>, StoreError> {
        let hash = directory_hash(&self.directory_key, &canonical_login(user));
        let snapshot = self.store.read()?;
        match snapshot.get::<Held>(LOGINS, &hash)? {
            Some(Held(window)) => open_window(&snapshot, &window),
            None => Ok(None),
        }
    }

    /// The window, under its cover, that a name without one is checked against. Nobody has its password, and it is
    /// not open.
    pub fn nobody(&self) -> io::Result<Window> {
        if let Some(window) = self.nobody.get() {
            return Ok(window.clone());
        }
        let (private, public) = PrivateKey::generate();
        // Its salt is told to nobody.
        let (_, credential) = Credential::generate(&private, random());
        let mut window = Window::new(NOBODY, NOBODY, public.0, credential);
        self.covers.cover(&mut window)?;
        Ok(self.nobody.get_or_init(|| window).clone())
    }

    /// The open window of a person.
    pub fn window_of_person(&self, person: &Id) -> Result<Option<Window>, StoreError> {
        let snapshot = self.store.read()?;
        match snapshot.get::<Held>(PERSON_WINDOWS, person)? {
            Some(Held(window)) => open_window(&snapshot, &window),
            None => Ok(None),
        }
    }

    /// Refuses one who logged in to a window that has ended since, or got another password.
    pub fn still_open(&self, by: &Traveller) -> Result<(), Reply> {
        let open = self.store.read().and_then(|snapshot| open_to(&snapshot, &by.window.window, &by.login));
        match open {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                let text = "your travel window has ended, or has another password";
                Err(Reply::new(421, Enhanced(4, 7, 0), text))
            }
            Err(_) => Err(Reply::new(451, Enhanced(4, 3, 0), "cannot check that now; try again later")),
        }
    }

    /// Tells the link that a unit was queued on `lane`.
    pub fn queued(&self, lane: u8) {
        if let Some(lane) = Lane::from_index(lane) {
            self.link.units(lane);
            if lane == Lane::Batch {
                self.link.bodies();
            }
        }
    }

    /// Counts a session that waits for a confirm, for as long as what is returned lives.
    pub fn vouching(&self) -> Vouching<'_> {
        self.vouching.fetch_add(1, Ordering::AcqRel);
        Vouching(&self.vouching)
    }

    /// Whether anybody waits for a confirm.
    pub fn is_vouching(&self) -> bool {
        self.vouching.load(Ordering::Acquire) > 0
    }

    /// Locks a window's maildrop for one session (RFC 1939 §4); `None` if another one has it.
    pub fn lock_maildrop(self: &Arc<Self>, window: Id) -> Option<MaildropLock> {
        self.busy.lock_maildrop(window).then(|| MaildropLock { node: Arc::clone(self), window })
    }
}

/// Whether an address is that of a role, which every domain has.
pub fn is_role(address: &Address) -> bool {
    ROLES.iter().any(|role| address.local_part().eq_ignore_ascii_case(role))
}

/// A login name, which may be an address, as big knows it.
fn canonical_login(user: &str) -> String {
    user.parse::<Address>().map_or_else(|_| canonical_local(user), |address| address.canonical())
}

/// Until when a window is open to whom it was opened with this login; `None` if it has ended, or the password has
/// been rotated away and is good no more.
fn open_to(snapshot: &Snapshot, window: &Id, login: &Login) -> Result<Option<u64>, StoreError> {
    let Some(window) = open_window(snapshot, window)? else { return Ok(None) };
    let good = window.good(unix_millis()).find(|(credential, _)| credential.stored_key == *login);
    Ok(good.map(|(_, until)| until.into_iter().chain(window.until).min().unwrap_or(NEVER)))
}

fn open_window(snapshot: &Snapshot, window: &Id) -> Result<Option<Window>, StoreError> {
    let now = unix_millis();
    let window = snapshot.get::<Window>(WINDOWS, window)?;
    Ok(window.filter(|window| window.from <= now && window.until.is_none_or(|until| now < until)))
}

/// Watches the window that a session has logged in to, without a look at the store for each thing that it does.
#[derive(Debug)]
pub struct WindowWatch {
    window: Id,
    login: Login,
    changes: watch::Receiver<u64>,
    /// When it ends, as of the last look.
    until: u64,
    /// Until when that look is enough if nothing changes, as the node's life goes; zero if it has failed.
    known_until: Duration,
}

impl WindowWatch {
    fn look(&mut self, node: &Node) {
        self.changes.mark_unchanged();
        match node.store.read().and_then(|snapshot| open_to(&snapshot, &self.window, &self.login)) {
            Ok(until) => {
                self.until = until.unwrap_or_default();
                self.known_until = monotonic() + LOOKED_AT;
            }
            // What cannot be read now may be open still, but the change has not been seen.
            Err(error) => {
                self.known_until = Duration::ZERO;
                tracing::warn!(%error, "a travel window cannot be looked at");
            }
        }
    }

    /// Whether it is open to them still: it has not ended, and has no other password.
    pub fn is_open(&mut self, node: &Node) -> bool {
        // The sender is the node's, which is here.
        if self.changes.has_changed().unwrap_or_default() || monotonic() >= self.known_until {
            self.look(node);
        }
        unix_millis() < self.until
    }

    /// Returns when it is open to them no more.
    pub async fn over(&mut self, node: &Node) {
        while self.is_open(node) {
            let left = Duration::from_millis(self.until.saturating_sub(unix_millis()));
            let known = self.known_until.saturating_sub(monotonic()).max(LOOKED_AT_AGAIN);
            tokio::select! {
                _ = self.changes.changed() => self.look(node),
                () = tokio::time::sleep(left.min(known)) => {}
            }
        }
    }
}

/// A session that waits for a confirm.
#[derive(Debug)]
pub struct Vouching<'n>(&'n AtomicUsize);

impl Drop for Vouching<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A locked maildrop; dropping it unlocks.
#[derive(Debug)]
pub struct MaildropLock {
    node: Arc<Node>,
    window: Id,
}

impl Drop for MaildropLock {
    fn drop(&mut self) {
        self.node.busy.unlock_maildrop(&self.window);
    }
}

#[cfg(test)]
mod tests {
    use shared::store::sim::SimDisk;
    use shared::topology::SMALLEST;

    use super::*;

    #[tokio::test]
    async fn a_look_at_a_window_that_fails_is_made_again() {
        const WINDOW: Id = [1; 16];
        let store = Store::open(Arc::new(SimDisk::default())).expect("opens");
        let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
        let (key, public) = PrivateKey::generate();
        let covers = Covers::on(Arc::new(SimDisk::default()));
        let node = Node::new(store, covers, topology, key.clone(), [2; 32]);
        let (_, credential) = Credential::generate(&key, [9; 16]);
        let login = credential.stored_key;
        let window = Window::new(WINDOW, [2; 16], public.0, credential);
        let put = window.clone();
        node.store.commit(move |txn| txn.put(WINDOWS, &WINDOW, &put)).await.expect("commits");
        let mut watch = node.watch(WINDOW, login);
        assert!(watch.is_open(&node));
        // It cannot be read when a change is told.
        node.store.commit(|txn| txn.put(WINDOWS, &WINDOW, &Held(WINDOW))).await.expect("commits");
        assert!(node.store.read().and_then(|rows| open_to(&rows, &WINDOW, &login)).is_err());
        node.windows_changed();
        assert!(watch.is_open(&node), "it may be open still");
        // It can again, and has ended; of that nothing more is told.
        node.store.commit(|txn| txn.delete(WINDOWS, &WINDOW)).await.expect("commits");
        assert!(!watch.is_open(&node));

        node.store.commit(move |txn| txn.put(WINDOWS, &WINDOW, &window)).await.expect("commits");
        let mut watch = node.watch(WINDOW, login);
        node.store.commit(|txn| txn.delete(WINDOWS, &WINDOW)).await.expect("commits");
        assert!(watch.is_open(&node), "not every question is a look");
        watch.known_until = monotonic();
        assert!(!watch.is_open(&node), "what was seen so long ago is looked at again");
    }

    #[test]
    fn a_login_name_is_the_same_however_it_is_typed() {
        for (typed, known) in [
            ("Alice", "alice"),
            ("ALICE@Example.COM", "alice@example.com"),
            ("Ju\u{308}rgen", "j\u{fc}rgen"),
            ("J\u{dc}RGEN@b\u{fc}cher.example", "j\u{fc}rgen@xn--bcher-kva.example"),
        ] {
            assert_eq!(canonical_login(typed), known);
        }
    }
}
