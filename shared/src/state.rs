//! A node's state directory: its keys, its store, its control socket. Mode 0700, keys 0600.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::id::unix_millis;
use crate::lane::{self, NodeIdentity};
use crate::store::{self, DirectoryDisk, Owner, Store, StoreError, Txn};

mod backup;

pub use backup::Prepared;

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// `init` has not been run.
    #[error("{0} holds no node; if it held one, mount the disk that it is on, else make one with `init`")]
    Missing(PathBuf),
    /// Another account's.
    #[error("{0} is another account's; run this as the account that serves, whose state it is")]
    NotOpen(PathBuf),
    /// A folder into which others can look, with something in it.
    #[error(
        "{0} holds other things and is open to others; name a folder that is not there yet, or is empty, for the node alone"
    )]
    Shared(PathBuf),
    /// `init` has been run before.
    #[error("{0} holds a node already; nothing was changed")]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A key that others can read.
    #[error("{0} can be read by others; `chmod 600` it, and make a new key if others may have read it")]
    KeyExposed(PathBuf),
    /// A key that this kind of node has is not there.
    #[error(
        "{0} is not there: this is the state of another kind of node, or the key is lost; name this node's own \
         state in the topology, or `restore` a backup into an empty state"
    )]
    KeyMissing(PathBuf),
    /// What a backup cannot be put into.
    #[error(
        "{0} is not an empty folder; name one that is not there yet, or remove what a backup that was broken off has left"
    )]
    NotEmpty(PathBuf),
    /// A folder in which others could change what is written.
    #[error("{0} is another account's, or others may write there; name a folder that is not there yet")]
    NotOwn(PathBuf),
    /// A folder whose parent is missing.
    #[error("{0} is to be made in a folder that is not there; make that one first")]
    NoFolder(PathBuf),
    /// Another backup.
    #[error("another backup of this node is under way; run it again when that is done")]
    BackupUnderWay,
    /// A backup that was removed.
    #[error(
        "what the node has prepared is gone: another backup was begun meanwhile, or the node was started again; \
         run it again"
    )]
    BackupGone,
    /// What is no name of a backup.
    #[error(
        "the node answered with something else than the name of a backup; see its log, and do not trust it"
    )]
    BackupName,
    /// A key that is not a file.
    #[error("{0} is not a plain file, or is longer than any key; put the key itself there")]
    KeyNotPlain(PathBuf),
    /// A key that is another account's file.
    #[error("{0} is another account's file; see how it came there, and do not trust the node")]
    KeyNotOwn(PathBuf),
    /// A key of the wrong length.
    #[error("{0} is not a key of this node")]
    KeyBroken(PathBuf),
    /// The store, which is there and cannot be opened.
    #[error("{path}: {error}")]
    Closed {
        /// Its folder.
        path: PathBuf,
        /// Why not.
        error: StoreError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The key by which a store knows its node: what lies in it is sealed to that.
const OWNERS_KEY: &str = "sealing";

/// The folder of a state for its keys.
const KEYS: &str = "keys";

/// The folder of a state for its store.
const STORE: &str = "store";

/// The folders of a state that may lie elsewhere, behind links.
pub(crate) const FOLDERS: [&str; 2] = [KEYS, STORE];

/// Octets of a key's file.
const KEY_BYTES_MAX: u64 = 1024 * 1024;

/// An existing state directory.
#[derive(Clone, Debug)]
pub struct State {
    path: PathBuf,
}

impl State {
    /// Makes a node: its directory, a store with an identity and a log name, and those of the named keys
    /// that are not there. A node that lost its store keeps its keys, and can read what was sealed to it.
    pub fn init(path: &Path, keys: &[(&str, Vec<u8>)]) -> Result<Self, StateError> {
        let state = Self { path: path.into() };
        state.make()?;
        for (name, bytes) in keys {
            if state.key_path(name).exists() {
                state.key(name)?;
            } else {
                state.write_key(name, bytes)?;
            }
        }
        let store = state.store()?;
        let identity = NodeIdentity::new();
        store.commit_blocking(move |txn| lane::set_identity(txn, identity))?;
        Ok(state)
    }

    /// Opens the state directory of a node.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let state = Self { path: path.into() };
        match fs::metadata(state.store_path()) {
            Ok(found) if found.is_dir() => Ok(state),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(StateError::NotOpen(path.into()))
            }
            Ok(_) | Err(_) => Err(StateError::Missing(path.into())),
        }
    }

    /// Opens the state directory of the node that this process is, or works on in its place.
    pub fn open_own(path: &Path) -> Result<Self, StateError> {
        let state = Self::open(path)?;
        state.is_own()?;
        Ok(state)
    }

    /// Fails if root would make files in it that the node, under another account, could not open.
    fn is_own(&self) -> Result<(), StateError> {
        let failed = |error| StateError::File { path: self.path.clone(), error };
        let owner = fs::metadata(&self.path).map_err(failed)?.uid();
        match rustix::process::geteuid().is_root() && owner != 0 {
            true => Err(StateError::NotOpen(self.path.clone())),
            false => Ok(()),
        }
    }

    /// Fails if there is a state at `path` already.
    pub fn may_be_made(path: &Path) -> Result<(), StateError> {
        match (Self { path: path.into() }).store_path().exists() {
            true => Err(StateError::Exists(path.into())),
            false => Ok(()),
        }
    }

    /// Makes a node's state from a backup. `first` runs in the first commit; before it, this node's
    /// generation has been raised, so that the other node knows that this one went back. Also what `first` has
    /// returned.
    pub fn restore<T: Send + 'static>(
        path: &Path,
        from: &Path,
        first: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(Self, T), StateError> {
        let (state, backup) = (Self { path: path.into() }, Self::open(from)?);
        state.make()?;
        backup.copy_keys(&state)?;
        // It is the node's store only with that commit in it: started without, it would do again what was done since.
        let (unfinished, store_path) = (state.path.join("store.unfinished"), state.store_path());
        let failed = |error| StateError::File { path: unfinished.clone(), error };
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(failed)?;
        }
        let disk = || DirectoryDisk::open(&unfinished).map_err(|error| state.closed(error));
        backup.store().and_then(|store| Ok(store::backup(&store, &disk()?)?))?;
        let done = Store::open(Arc::new(disk()?))?.commit_blocking(move |txn| {
            lane::restored(txn, unix_millis())?;
            first(txn)
        })?;
        fs::rename(&unfinished, &store_path)
            .and_then(|()| fs::File::open(&state.path)?.sync_all())
            .map_err(failed)?;
        Ok((state, done.into_inner()))
    }

    /// Makes the folders of a state that is not there yet.
    fn make(&self) -> Result<(), StateError> {
        Self::may_be_made(&self.path)?;
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(|error| StateError::File { path: parent.into(), error })?;
        }
        for dir in [self.path.clone(), self.path.join(KEYS)] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(|error| StateError::File { path: dir, error })?;
            // Before anything is made in it.
            self.is_own()?;
        }
        self.close()
    }

    /// Lets nobody else into the folder, which may have been made for it.
    fn close(&self) -> Result<(), StateError> {
        let failed = |error| StateError::File { path: self.path.clone(), error };
        if fs::metadata(&self.path).map_err(failed)?.mode() & 0o077 == 0 {
            return Ok(());
        }
        let mut names =
            fs::read_dir(&self.path).map_err(failed)?.map(|entry| entry.map(|entry| entry.file_name()));
        // A state that had lost its store has keys.
        if names.any(|name| name.is_ok_and(|name| name != KEYS)) {
            return Err(StateError::Shared(self.path.clone()));
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700)).map_err(failed)
    }

    fn copy_keys(&self, to: &Self) -> Result<(), StateError> {
        // `link-next` before `link`: one that takes the other's place meanwhile is copied under either name.
        let mut names = self.key_names()?;
        names.sort_unstable_by(|left, right| right.cmp(left));
        names.iter().try_for_each(|name| self.copy_key(name, to))
    }

    /// Copies a key that was there when they were listed; one that has been removed since is none of the node's.
    fn copy_key(&self, name: &str, to: &Self) -> Result<(), StateError> {
        match self.key(name) {
            // Of a copy that was broken off some are there.
            Ok(key) if to.key(name).is_ok_and(|there| there == key) => Ok(()),
            Ok(key) => to.write_key(name, &key),
            Err(StateError::KeyMissing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The names of all keys.
    pub fn key_names(&self) -> Result<Vec<String>, StateError> {
        let path = self.path.join(KEYS);
        let failed = |error| StateError::File { path: path.clone(), error };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            names.extend(key_name(&entry.map_err(failed)?.path()).map(str::to_owned));
        }
        Ok(names)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the store, which one process can do at a time. Only the store of the node whose keys these are is
    /// opened.
    pub fn store(&self) -> Result<Store, StateError> {
        let (disk, owner) = (Arc::new(self.disk()?), self.owner()?);
        Store::open_of(disk, owner).map_err(|error| self.closed(error))
    }

    /// By what its store knows this node.
    pub fn owner(&self) -> Result<Owner, StateError> {
        Ok(Owner::of_key(&self.key(OWNERS_KEY)?))
    }

    /// The folder of the store, held for this process alone.
    pub fn disk(&self) -> Result<DirectoryDisk, StateError> {
        DirectoryDisk::open(&self.store_path()).map_err(|error| self.closed(error))
    }

    fn closed(&self, error: StoreError) -> StateError {
        StateError::Closed { path: self.store_path(), error }
    }

    /// Where the store's files are.
    fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Reads a key.
    pub fn key(&self, name: &str) -> Result<Vec<u8>, StateError> {
        read_key(&self.key_path(name))
    }

    /// Reads a key that need not be there.
    pub fn key_if_there(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        match self.key(name) {
            Err(StateError::KeyMissing(_)) => Ok(None),
            read => read.map(Some),
        }
    }

    /// Reads a key of 32 bytes.
    pub fn key32(&self, name: &str) -> Result<[u8; 32], StateError> {
        self.key(name)?.try_into().map_err(|_| self.broken(name))
    }

    /// Writes a key that is not there yet, for its owner alone: all of it under its name, or nothing.
    pub fn write_key(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.key_path(name);
        let failed = |error| StateError::File { path: path.clone(), error };
        let part = path.with_extension("part");
        // Of one that was broken off: it may be the key's own file under its other name.
        if part.exists() {
            fs::remove_file(&part).map_err(failed)?;
        }
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(&part);
        let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        // A link is never made over what is there, as a rename would be.
        written.and_then(|()| fs::hard_link(&part, &path)).map_err(failed)?;
        let kept = fs::remove_file(&part).and_then(|()| self.sync_keys());
        kept.map_err(|error| {
            // The caller goes on without it, and is not to find it after a restart.
            let _ = fs::remove_file(&path);
            failed(error)
        })
    }

    /// The names under which lie the key that is to take the place of another one, and the one whose place that took.
    pub fn names_beside(name: &str) -> (String, String) {
        (format!("{name}-next"), format!("{name}-former"))
    }

    /// The next key takes the place of key `name`, which is kept as the former one. Whatever this is broken off at, a
    /// key lies under `name`, and the next one there or under its own.
    pub fn turn_key(&self, name: &str) -> Result<(), StateError> {
        let (next, former) = Self::names_beside(name);
        let (path, next, former) = (self.key_path(name), self.key_path(&next), self.key_path(&former));
        let failed = |error| StateError::File { path: path.clone(), error };
        if next.exists() {
            let unwritten = former.with_extension("part");
            if unwritten.exists() {
                fs::remove_file(&unwritten).map_err(failed)?;
            }
            let kept = fs::hard_link(&path, &unwritten).and_then(|()| fs::rename(&unwritten, &former));
            kept.and_then(|()| fs::rename(&next, &path)).map_err(failed)?;
        }
        self.sync_keys().map_err(failed)
    }

    /// Removes a key.
    pub fn remove_key(&self, name: &str) -> Result<(), StateError> {
        let path = self.key_path(name);
        let part = path.with_extension("part");
        let unfinished = if part.exists() { fs::remove_file(&part) } else { Ok(()) };
        let removed = unfinished.and_then(|()| fs::remove_file(&path)).and_then(|()| self.sync_keys());
        removed.map_err(|error| StateError::File { path, error })
    }

    /// That what is under this name is not a key of this node.
    pub fn broken(&self, name: &str) -> StateError {
        StateError::KeyBroken(self.key_path(name))
    }

    fn sync_keys(&self) -> io::Result<()> {
        fs::File::open(self.path.join(KEYS)).and_then(|folder| folder.sync_all())
    }

    fn key_path(&self, name: &str) -> PathBuf {
        self.path.join(KEYS).join(format!("{name}.key"))
    }
}

/// The name of the key that lies at `path`, if it is one.
fn key_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(".key")
}

/// Reads a key, and follows no link: whoever may write in a state is not to choose what is read.
fn read_key(path: &Path) -> Result<Vec<u8>, StateError> {
    read_key_of(path, None)
}

/// As [`read_key`], of an account's files only.
fn read_key_of(path: &Path, owner: Option<u32>) -> Result<Vec<u8>, StateError> {
    let failed = |error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => StateError::KeyMissing(path.into()),
        Some(Errno::LOOP) => StateError::KeyNotPlain(path.into()),
        _ => StateError::File { path: path.into(), error },
    };
    let mut options = fs::OpenOptions::new();
    // Opening a pipe must not wait for its other end.
    options.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > KEY_BYTES_MAX {
        return Err(StateError::KeyNotPlain(path.into()));
    }
    if owner.is_some_and(|account| account != metadata.uid()) {
        return Err(StateError::KeyNotOwn(path.into()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(StateError::KeyExposed(path.into()));
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Makes a folder for its owner alone, in one that is there.
fn make_folder(path: &Path) -> Result<(), StateError> {
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| StateError::File { path: path.into(), error })
}

/// Writes a file of mode 0600 in the place of the one that is there, whole or not at all. It is durable when this
/// returns.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/"))).and_then(|folder| folder.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::listener::TlsIdentity;

    #[test]
    fn a_folder_that_was_made_for_it_is_closed_and_one_with_other_things_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str, holds: &[&str]| {
            let path = folder.path().join(name);
            for dir in holds {
                fs::create_dir_all(path.join(dir)).expect("is made");
            }
            fs::create_dir_all(&path).expect("is made");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("is changed");
            (
                State::init(&path, &[(OWNERS_KEY, vec![7; 32])]),
                fs::metadata(&path).expect("is there").mode() & 0o777,
            )
        };
        assert!(matches!(make("empty", &[]), (Ok(_), 0o700)));
        assert!(matches!(make("keys", &[KEYS]), (Ok(_), 0o700)));
        assert!(matches!(make("lib", &["other"]), (Err(StateError::Shared(_)), 0o755)));
        let deep = folder.path().join("new").join("state");
        State::init(&deep, &[(OWNERS_KEY, vec![7; 32])]).expect("is made");
        let usual = folder.path().join("usual");
        fs::create_dir(&usual).expect("is made");
        let mode = |path: &Path| fs::metadata(path).expect("is there").mode();
        assert_eq!(mode(&deep) & 0o777, 0o700);
        assert_eq!(mode(deep.parent().expect("a folder")), mode(&usual), "what is above it is not its own");
    }

    #[test]
    fn root_makes_nothing_in_the_state_of_another_account() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can: not tested");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let given =
            |path: &Path| std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).expect("is given");
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).expect("is made");
        given(&empty);
        let keys = [(OWNERS_KEY, vec![7; 32])];
        assert!(matches!(State::init(&empty, &keys), Err(StateError::NotOpen(_))));
        assert_eq!(fs::read_dir(&empty).expect("is there").count(), 0);
        let served = folder.path().join("served");
        State::init(&served, &keys).expect("is made");
        State::open_own(&served).expect("is root's");
        given(&served);
        assert!(matches!(State::open_own(&served), Err(StateError::NotOpen(_))));
        State::open(&served).expect("for who takes a backup out of it");
    }

    #[test]
    fn a_node_is_made_once_and_its_keys_are_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node");
        assert!(matches!(State::open(&path), Err(StateError::Missing(_))));
        let state = State::init(&path, &[("sealing", vec![7; 32])]).expect("made");
        assert!(matches!(State::init(&path, &[]), Err(StateError::Exists(_))));
        assert_eq!(state.key32("sealing").expect("readable"), [7; 32]);
        let identity = lane::identity(&state.store().expect("opens").read().expect("reads")).expect("reads");
        assert!(identity.is_some());
        let shown = |path: &Path| TlsIdentity::self_signed_in(path, "mx.example.com").expect("made or kept");
        let certificate = shown(&path).chain().to_vec();
        let backup = dir.path().join("backup");
        let prepared = state.prepare_backup(&state.store().expect("opens")).expect("prepared");
        state.take_backup(&prepared, &backup).expect("taken");
        let again = dir.path().join("again");
        let broken_off = State::restore(&again, &backup, |_| Err::<(), _>(StoreError::Full));
        assert!(broken_off.is_err() && State::open(&again).is_err(), "half a restore is no state");
        let (restored, ()) = State::restore(&again, &backup, |_| Ok(())).expect("restored");
        assert!(matches!(State::restore(&again, &backup, |_| Ok(())), Err(StateError::Exists(_))));
        assert_eq!(restored.key32("sealing").expect("readable"), [7; 32]);
        assert_eq!(shown(restored.path()).chain(), certificate, "DNS may name its key");
        let raised = lane::identity(&restored.store().expect("opens").read().expect("reads")).expect("reads");
        let (raised, identity) = (raised.expect("is there"), identity.expect("is there"));
        assert!(raised.node == identity.node && raised.generation > identity.generation);
        fs::remove_dir_all(state.store_path()).expect("removed");
        let anew = State::init(&path, &[("sealing", vec![8; 32]), ("link", vec![9; 32])]).expect("made");
        assert_eq!(anew.key32("sealing").expect("readable"), [7; 32], "a key that is there is kept");
        assert_eq!(anew.key32("link").expect("readable"), [9; 32]);
        assert!(state.write_key("link", &[1; 32]).is_err(), "a key is never written over");
        assert_eq!(anew.key32("link").expect("readable"), [9; 32]);
        anew.remove_key("link").and_then(|()| anew.remove_key("tls")).expect("removed");
        anew.copy_key("link", &restored).expect("was removed while a backup was taken");
        assert_eq!(anew.key_names().expect("listed"), ["sealing"]);
        fs::set_permissions(state.key_path("sealing"), fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(state.key("sealing"), Err(StateError::KeyExposed(_))));
    }

    #[test]
    fn a_key_takes_anothers_place_in_one_step_and_a_backup_has_it_under_either_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = [("sealing", vec![1; 32]), ("link", vec![2; 32])];
        let state = State::init(&dir.path().join("node"), &keys).expect("made");
        state.turn_key("link").expect("there is none to take its place");
        let (next, former) = State::names_beside("link");
        let key = |name: &str| state.key_if_there(name).expect("readable").map(|key| key[0]);
        for (turn, left) in [(3, 2), (4, 3)] {
            state.write_key(&next, &[turn; 32]).expect("written");
            let copy = State { path: dir.path().join(format!("copy{turn}")) };
            copy.make().expect("made");
            let mut names = state.key_names().expect("listed");
            names.sort_unstable_by(|left, right| right.cmp(left));
            assert!(
                names.iter().position(|name| *name == next) < names.iter().position(|name| name == "link")
            );
            // The backup has come as far as this when the key takes its place.
            let (first, rest) = names.split_at(names.iter().position(|name| name == "link").expect("there"));
            first.iter().for_each(|name| state.copy_key(name, &copy).expect("copied"));
            // What a turn leaves that was broken off: the present key under another name.
            let unfinished = state.key_path(&former).with_extension("part");
            fs::hard_link(state.key_path("link"), unfinished).expect("linked");
            state.turn_key("link").expect("turned");
            assert_eq!([key("link"), key(&next), key(&former)], [Some(turn), None, Some(left)]);
            let mode = fs::metadata(state.key_path("link")).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            rest.iter().for_each(|name| state.copy_key(name, &copy).expect("copied"));
            assert_eq!(copy.key("link").expect("there"), [turn; 32]);
        }
        state.turn_key("link").expect("a turn that was broken off before its end is told is repeated");
        assert_eq!(key("link"), Some(4));
    }
}
