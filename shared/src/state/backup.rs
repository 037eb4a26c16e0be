//! A backup in two steps: the node prepares one below its own state, for it may write nowhere else, and the command takes
//! that to where it shall be. The command may do more than the node, so it believes nothing that the node says or has put
//! there: it goes down from its own topology's state by names that it has checked, follows no link, and reads plain files.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{KEYS, STORE, State, StateError, key_name, make_folder, read_key_of};
use crate::id::random;
use crate::store::{self, Copied, DirectoryDisk, Store};

/// The folder of a state in which backups are prepared.
const BACKUPS: &str = "backups";
/// Hex digits of a backup's name.
const NAME_DIGITS: usize = 16;

/// A backup that a node has prepared and that is still to be taken to where it shall be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Prepared {
    /// Its folder's name below [`BACKUPS`].
    name: String,
    /// What is in it.
    pub copied: Copied,
}

impl State {
    /// Copies keys and store, while the node runs, into a new folder of the state itself: the first step of a backup. It
    /// takes the room of the index, for bodies are the store's own files, or of all, where there are no hard links. There is one at a time: what was prepared
    /// before and not taken is removed.
    ///
    /// # Errors
    /// [`StateError::BackupUnderWay`] while another one is prepared or taken; [`StateError::Store`] if that would
    /// take of the room that is kept in reserve.
    pub fn prepare_backup(&self, store: &Store) -> Result<Prepared, StateError> {
        let backups = self.path.join(BACKUPS);
        if !backups.exists() {
            make_folder(&backups)?;
        }
        let _held = hold(open_folder(&backups)?, &backups)?;
        self.forget_backups()?;
        let name = format!("{:016x}", u64::from_be_bytes(random()));
        let copy = Self { path: backups.join(&name) };
        let made = copy.make().and_then(|()| {
            self.copy_keys(&copy)?;
            Ok(store::share(store, &copy.disk()?)?)
        });
        match made {
            Ok(copied) => Ok(Prepared { name, copied }),
            Err(error) => {
                // What cannot be removed now is before the next one, and when the node starts.
                let _ = fs::remove_dir_all(copy.path);
                Err(error)
            }
        }
    }

    /// Puts what this node has prepared into the new folder `into`, and removes it where it was: the second step of a
    /// backup, by whoever has asked for it. The copy is the node's account's, as the state is.
    ///
    /// # Errors
    /// As [`State::may_take_backup`]; [`StateError::BackupName`] and [`StateError::BackupGone`] if that is none.
    pub fn take_backup(&self, prepared: &Prepared, into: &Path) -> Result<(), StateError> {
        let name = &prepared.name;
        if !is_name(name) {
            return Err(StateError::BackupName);
        }
        let path = self.path.join(BACKUPS);
        let state = open_folder(&self.path)?;
        let backups: OwnedFd = hold(open_below(&state, BACKUPS, &path)?, &path)?.into();
        let path = path.join(name);
        let folder = open_below(&backups, name, &path).map_err(|error| match error {
            StateError::File { error, .. } if error.kind() == io::ErrorKind::NotFound => {
                StateError::BackupGone
            }
            other => other,
        })?;
        let owner = rustix::fs::fstat(&state)
            .map_err(|error| StateError::File { path: self.path.clone(), error: error.into() })?;
        let taken =
            place(into).and_then(|place| take(&folder, &path, (into, place), (owner.st_uid, owner.st_gid)));
        // By the folder that was opened: whoever may write in the state may put another one in its place.
        let removed = fs::remove_dir_all(path_of(&backups).join(name));
        taken.and(removed.map_err(|error| StateError::File { path, error }))
    }

    /// Removes what was prepared and not taken: those who asked for it have gone. What else somebody has put there stays.
    pub fn forget_backups(&self) -> Result<(), StateError> {
        let path = self.path.join(BACKUPS);
        let failed = |error| StateError::File { path: path.clone(), error };
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let is_ours = entry.file_name().to_str().is_some_and(is_name);
            if is_ours && entry.file_type().map_err(failed)?.is_dir() {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Fails unless a backup can be put into `into`: a folder that is still to be made in one that is there, or an empty
    /// one of whoever asks.
    ///
    /// # Errors
    /// [`StateError::Exists`], [`StateError::NotEmpty`], [`StateError::NotOwn`], or [`StateError::File`] if it, or what
    /// it shall be made in, cannot be looked at.
    pub fn may_take_backup(into: &Path) -> Result<(), StateError> {
        place(into).map(drop)
    }
}

/// Where a backup is to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A folder that is still to be made.
    New,
    /// An empty one of whoever asks.
    Empty,
}

/// What there is at `into`, looked at once.
fn place(into: &Path) -> Result<Place, StateError> {
    State::may_be_made(into)?;
    let failed = |error| StateError::File { path: into.into(), error };
    let found = match fs::symlink_metadata(into) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = into.parent().filter(|above| !above.as_os_str().is_empty());
            return match above.is_none_or(Path::is_dir) {
                true => Ok(Place::New),
                false => Err(StateError::NoFolder(into.into())),
            };
        }
        found => found.map_err(failed)?,
    };
    if !found.is_dir() || fs::read_dir(into).map_err(failed)?.next().is_some() {
        return Err(StateError::NotEmpty(into.into()));
    }
    // Whoever else may write there would lead astray what is written there.
    match found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0 {
        true => Ok(Place::Empty),
        false => Err(StateError::NotOwn(into.into())),
    }
}

/// Whether a folder's name is one that [`State::prepare_backup`] gives.
fn is_name(name: &str) -> bool {
    name.len() == NAME_DIGITS && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Copies the prepared backup in `folder`, which lies at `path`, to `into`, and gives what was made to an account.
fn take(
    folder: &OwnedFd,
    path: &Path,
    (into, place): (&Path, Place),
    to: (u32, u32),
) -> Result<(), StateError> {
    let is_new = place == Place::New;
    let (keys, store) = (open_below(folder, KEYS, path)?, open_below(folder, STORE, path)?);
    let copy = State { path: into.into() };
    if is_new {
        // It fails if somebody else has made it meanwhile.
        make_folder(into)?;
    }
    let failed = |error: rustix::io::Errno| StateError::File { path: path.into(), error: error.into() };
    let account = rustix::fs::fstat(folder).map_err(failed)?.st_uid;
    // What whoever asks may read, and the node may not, is not brought to it: it may have been given a name there.
    let owner = Some(account).filter(|account| *account != rustix::process::geteuid().as_raw());
    make_folder(&into.join(KEYS))?;
    let failed = |error| StateError::File { path: path.join(KEYS), error };
    for entry in fs::read_dir(path_of(&keys)).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = key_name(&path) {
            copy.write_key(name, &read_key_of(&path, owner)?)?;
        }
    }
    let closed = |error| StateError::Closed { path: path.join(STORE), error };
    let prepared = DirectoryDisk::open(&path_of(&store)).map_err(closed)?;
    let prepared = match owner {
        Some(account) => prepared.of_account(account),
        None => prepared,
    };
    store::take(&prepared, &copy.disk()?)?;
    if rustix::process::geteuid().as_raw() == to.0 {
        return Ok(());
    }
    let give = |path: &Path| {
        lchown(path, Some(to.0), Some(to.1)).map_err(|error| StateError::File { path: path.into(), error })
    };
    // What is in a folder first: nobody but who runs this reaches into one that is not given away yet.
    for folder in [into.join(KEYS), into.join(STORE)] {
        let failed = |error| StateError::File { path: folder.clone(), error };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            give(&entry.map_err(failed)?.path())?;
        }
        give(&folder)?;
    }
    if is_new { give(into) } else { Ok(()) }
}

fn open_folder(path: &Path) -> Result<OwnedFd, StateError> {
    let opened = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|error| StateError::File { path: path.into(), error: error.into() })
}

/// Opens the folder `name` of an open one, and no link; `path` is told in an error.
fn open_below(folder: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd, StateError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, name, flags, Mode::empty());
    opened.map_err(|error| StateError::File { path: path.into(), error: error.into() })
}

/// What leads to an open folder, wherever its name has gone.
fn path_of(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}

/// Holds the folder in which backups are prepared, until what this returns is dropped.
fn hold(backups: OwnedFd, path: &Path) -> Result<File, StateError> {
    let backups = File::from(backups);
    match backups.try_lock() {
        Ok(()) => Ok(backups),
        Err(TryLockError::WouldBlock) => Err(StateError::BackupUnderWay),
        Err(TryLockError::Error(error)) => Err(StateError::File { path: path.into(), error }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn made(at: &Path) -> (State, Store) {
        let state = State::init(&at.join("node"), &[("sealing", vec![7; 32])]).expect("made");
        let store = state.store().expect("opens");
        (state, store)
    }

    #[test]
    fn what_is_prepared_is_taken_once_and_there_is_one_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, store) = made(dir.path());
        let prepared = || fs::read_dir(state.path.join(BACKUPS)).expect("a folder").count();
        let first = state.prepare_backup(&store).expect("prepared");
        let second = state.prepare_backup(&store).expect("prepared");
        assert_eq!(prepared(), 1, "what nobody took is removed");
        let into = dir.path().join("backup");
        assert!(matches!(state.take_backup(&first, &into), Err(StateError::BackupGone)));
        let held = hold(open_folder(&state.path.join(BACKUPS)).expect("opens"), &state.path).expect("held");
        assert!(matches!(state.prepare_backup(&store), Err(StateError::BackupUnderWay)));
        assert!(matches!(state.take_backup(&second, &into), Err(StateError::BackupUnderWay)));
        drop(held);
        state.take_backup(&second, &into).expect("taken");
        assert_eq!(State::open(&into).expect("a state").key32("sealing").expect("there"), [7; 32]);
        assert!(prepared() == 0 && state.take_backup(&second, &dir.path().join("more")).is_err());
        state.prepare_backup(&store).expect("prepared");
        let others = [state.path.join(BACKUPS).join("monday"), state.path.join(BACKUPS).join("note")];
        fs::create_dir(&others[0]).and_then(|()| fs::write(&others[1], b"text")).expect("somebody else's");
        state.forget_backups().expect("removed");
        assert!(prepared() == 2 && others.iter().all(|other| other.exists()), "what is not ours stays");
    }

    /// What a node says and has put there is not believed: it may be somebody else's by now.
    #[test]
    fn nothing_but_the_states_own_is_read_given_away_or_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, store) = made(dir.path());
        let victim = dir.path().join("victim");
        for folder in [victim.clone(), victim.join(KEYS), victim.join(STORE)] {
            make_folder(&folder).expect("made");
        }
        let secret = victim.join(KEYS).join("sealing.key");
        fs::write(&secret, [1; 32]).expect("written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("changed");
        let into = |name: &str| dir.path().join(name);
        let refused = |named: &Prepared, name: &str| {
            let error = state.take_backup(named, &into(name)).expect_err(name);
            assert!(secret.exists(), "{name}");
            let key = into(name).join(KEYS).join("sealing.key");
            assert_ne!(fs::read(key).ok(), Some(vec![1; 32]), "{name}");
            error
        };
        let prepared = state.prepare_backup(&store).expect("prepared");
        let victims = victim.to_str().expect("UTF-8");
        for name in ["", ".", "..", "../../victim", victims, "0123456789abcde/", "0123456789ABCDEF"] {
            let named = Prepared { name: name.into(), ..prepared.clone() };
            assert!(matches!(refused(&named, "named"), StateError::BackupName), "{name}");
        }
        // Links in the place of the folder, of each of its folders, and of a key.
        let folder = state.path.join(BACKUPS).join(&prepared.name);
        for (at, to) in [
            (folder.clone(), victim.clone()),
            (folder.join(KEYS), victim.join(KEYS)),
            (folder.join(STORE), victim.join(STORE)),
            (folder.join(KEYS).join("sealing.key"), secret.clone()),
        ] {
            let prepared = state.prepare_backup(&store).expect("prepared");
            let at =
                state.path.join(BACKUPS).join(&prepared.name).join(at.strip_prefix(&folder).expect("below"));
            let name = format!("link to {}", to.file_name().unwrap_or_default().display());
            match at.is_dir() {
                true => fs::remove_dir_all(&at).expect("removed"),
                false => fs::remove_file(&at).expect("removed"),
            }
            symlink(&to, at.as_os_str().to_str().expect("UTF-8").trim_end_matches('/')).expect("linked");
            refused(&prepared, &name);
        }
        // And of all of them.
        let prepared = state.prepare_backup(&store).expect("prepared");
        let (backups, elsewhere) = (state.path.join(BACKUPS), into("elsewhere"));
        fs::rename(&backups, &elsewhere).and_then(|()| symlink(&elsewhere, &backups)).expect("linked");
        refused(&prepared, "all");
        assert!(elsewhere.join(&prepared.name).join(KEYS).exists());
    }

    /// A file that was given a name in what is prepared, by whoever may not read it.
    #[test]
    fn what_is_another_accounts_is_not_read_for_the_node() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, _store) = made(dir.path());
        let own = rustix::process::geteuid().as_raw();
        let key = state.path.join(KEYS).join("sealing.key");
        assert_eq!(read_key_of(&key, Some(own)).expect("own"), [7; 32]);
        assert!(matches!(read_key_of(&key, Some(own + 1)), Err(StateError::KeyNotOwn(_))));
        fs::write(dir.path().join("body"), "x").expect("written");
        let opens = |account| {
            let disk = DirectoryDisk::open(dir.path()).expect("opens").of_account(account);
            store::Disk::open(&disk, "body").map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(opens(own), Ok(()));
        assert!(opens(own + 1).is_err_and(|error| error.contains("another account")));
    }

    #[test]
    fn a_folder_that_somebody_else_makes_meanwhile_is_not_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, store) = made(dir.path());
        let prepared = state.prepare_backup(&store).expect("prepared");
        let path = state.path.join(BACKUPS).join(prepared.name);
        let (folder, into) = (open_folder(&path).expect("opens"), dir.path().join("new"));
        let new = place(&into).expect("it may be made");
        assert_eq!(new, Place::New);
        make_folder(&into).expect("somebody else's");
        let refused = take(&folder, &path, (&into, new), (0, 0)).expect_err("it is there");
        assert!(matches!(refused, StateError::File { .. }), "{refused}");
        assert_eq!(fs::read_dir(&into).expect("there").count(), 0);
    }

    #[test]
    fn a_backup_goes_into_a_new_folder_or_an_empty_one_of_ones_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, store) = made(dir.path());
        let at = |name: &str| dir.path().join(name);
        for name in ["empty", "full", "open"] {
            make_folder(&at(name)).expect("made");
        }
        fs::write(at("full").join("a"), "mine").expect("written");
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).expect("changed");
        symlink(at("empty"), at("link")).expect("linked");
        for (name, means) in [
            ("no/folder", "is to be made in"),
            ("full", "not an empty folder"),
            ("full/a", "not an empty folder"),
            ("link", "not an empty folder"),
            ("open", "others may write"),
        ] {
            let prepared = state.prepare_backup(&store).expect("prepared");
            let error = state.take_backup(&prepared, &at(name)).expect_err(name).to_string();
            assert!(error.contains(means), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(at("full")).expect("there").count(), 1, "nothing was put there");
        for name in ["empty", "new"] {
            let prepared = state.prepare_backup(&store).expect("prepared");
            state.take_backup(&prepared, &at(name)).expect(name);
            assert!(matches!(State::may_take_backup(&at(name)), Err(StateError::Exists(_))));
        }
    }
}
