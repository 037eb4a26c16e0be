//! What a daemon may still do once it has opened what it needs, whatever then runs in it.
//!
//! Two means of the kernel's, neither of which can be taken back: Landlock says which files and TCP ports, `calls`
//! (seccomp) which calls of the system. What is refused fails with an error, as it does where an account may not; the
//! process is not killed, so that a fault here costs one operation, and is told in the log.
//!
//! Landlock holds for the thread that asks for it and those that it begins. So a daemon enters its sandbox before it has
//! any but its own and the store's, and before it reads a byte of anybody's. UDP is beyond what Landlock knows: by that
//! the process can reach whatever the firewall of its host lets it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io, thread};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, PathBeneath, PathFd, PathFdError,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};

use crate::report::SandboxView;
use crate::state;
use crate::store::{Store, StoreError};
use crate::topology::Confinement;

mod calls;
#[cfg(test)]
mod tests;

/// The version of Landlock whose rights are known here. Those that a kernel lacks are not enforced.
const KNOWN: ABI = ABI::V7;
/// The first one that knows TCP ports.
const KNOWS_TCP: ABI = ABI::V4;

/// How often threads are counted, for one that has ended is still named for a moment.
const COUNTS: usize = 100;
/// Between two counts.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a sandbox cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A folder or file that it has to name.
    #[error("{}: {error}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: PathFdError,
    },
    /// Landlock.
    #[error("Landlock: {0}")]
    Landlock(#[from] RulesetError),
    /// The store, whose thread it is for, too.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Threads that would be left out.
    #[error(
        "threads {0:?} of this process have begun too early and would stay outside; report this as a fault of Sallypost"
    )]
    Threads(Vec<OsString>),
    /// What the kernel lacks of it, where all of it is required.
    #[error(
        "all of it is required, and this kernel lacks some: {}; with `sandbox = true` the node is content with what there is",
        .0.join("; ")
    )]
    Lacks(Vec<String>),
    /// `/proc`, which tells of threads.
    #[error("/proc: {0}; mount it where this node runs")]
    Proc(#[from] io::Error),
}

/// What is still allowed. All else of the kind is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Folders in and below which anything may be done, but for running programs.
    pub writable: BTreeSet<PathBuf>,
    /// Files, and folders with what is below, that may be read.
    pub readable: BTreeSet<PathBuf>,
    /// Folders out of which files may be removed.
    pub removable: BTreeSet<PathBuf>,
    /// TCP ports at which this process may listen; 0 stands for the one that the system chooses.
    pub listens: BTreeSet<u16>,
    /// TCP ports, of whatever host, to which it may connect; `None` if to all.
    pub connects: Option<BTreeSet<u16>>,
}

/// What of a [`Sandbox`] is in force. Without one, all is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// `None` without a sandbox.
    lacks: Option<Vec<String>>,
    writable: Option<BTreeSet<PathBuf>>,
    connects: Option<BTreeSet<u16>>,
}

impl InForce {
    /// Whether files may be made in this folder. What the sandbox allows was found when it was entered: a folder that
    /// was made after that is another one.
    pub fn may_write(&self, folder: &Path) -> bool {
        let within = |allowed: &BTreeSet<PathBuf>| folder.ancestors().any(|above| allowed.contains(above));
        self.writable.as_ref().is_none_or(within)
    }

    /// For `link status`.
    pub fn view(&self) -> SandboxView {
        SandboxView { on: self.lacks.is_some(), lacks: self.lacks.clone().unwrap_or_default() }
    }

    /// Whether this process may connect to this TCP port.
    pub fn may_connect(&self, port: u16) -> bool {
        self.connects.as_ref().is_none_or(|allowed| allowed.contains(&port))
    }
}

impl Sandbox {
    /// What every node needs: its state. Folders of it may lie elsewhere, behind links.
    pub fn of_state(state: &Path) -> Self {
        let folders =
            state::FOLDERS.map(|folder| state.join(folder)).into_iter().filter(|folder| folder.exists());
        Self { writable: folders.chain([state.to_path_buf()]).collect(), ..Self::default() }
    }

    /// Confines this process for good: the thread that calls, the store's, and every one that either begins. What the
    /// kernel lacks is said in the log, and left out if that is allowed.
    ///
    /// # Errors
    /// [`SandboxError`]; among them [`SandboxError::Threads`] if there are others already, which would stay as they are, and
    /// [`SandboxError::Lacks`] if all of it is required and some is not to be had.
    pub fn enter(&self, confinement: Confinement, store: &Store) -> Result<InForce, SandboxError> {
        self.enter_beside(&[], confinement, store)
    }

    /// As [`Sandbox::enter`], beside threads that may stay outside.
    fn enter_beside(
        &self,
        outside: &[OsString],
        confinement: Confinement,
        store: &Store,
    ) -> Result<InForce, SandboxError> {
        if confinement == Confinement::Off {
            return Ok(InForce::default());
        }
        let of_store = store.commit_blocking(|_| this_thread().map_err(SandboxError::from))?.into_inner();
        are_all(&[&[this_thread()?, of_store], outside].concat())?;
        let ruleset = self.ruleset()?;
        let of_store = ruleset.try_clone()?;
        // An operation, because it is run by that thread.
        store.commit_blocking(move |_| of_store.restrict_self().map_err(SandboxError::from))?;
        let status = ruleset.restrict_self()?;
        let mut lacks: Vec<String> = lacking(&status).into_iter().collect();
        lacks.extend(calls::deny());
        if confinement == Confinement::Required && !lacks.is_empty() {
            return Err(SandboxError::Lacks(lacks));
        }
        for lack in &lacks {
            tracing::warn!(lack, "the sandbox is weaker here than it is meant to be");
        }
        Ok(self.in_force(&status, lacks))
    }

    fn in_force(&self, status: &RestrictionStatus, lacks: Vec<String>) -> InForce {
        let known = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => Some(effective_abi),
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
        };
        InForce {
            lacks: Some(lacks),
            writable: known.map(|_| self.writable.clone()),
            connects: known.filter(|abi| *abi >= KNOWS_TCP).and_then(|_| self.connects.clone()),
        }
    }

    fn ruleset(&self) -> Result<RulesetCreated, SandboxError> {
        let not_run = AccessFs::from_all(KNOWN) & !AccessFs::Execute;
        let reading = AccessFs::from_read(KNOWN) & !AccessFs::Execute;
        let tcp = match self.connects {
            Some(_) => AccessNet::from_all(KNOWN),
            None => AccessNet::BindTcp.into(),
        };
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(tcp)?
            .scope(Scope::from_all(KNOWN))?
            .create()?;
        for (paths, access) in [
            (&self.writable, not_run & !(AccessFs::MakeChar | AccessFs::MakeBlock)),
            (&self.readable, reading),
            (&self.removable, AccessFs::RemoveFile.into()),
        ] {
            for path in paths {
                let failed = |error| SandboxError::Path { path: path.clone(), error };
                let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
                ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path).map_err(failed)?, access))?;
            }
        }
        for (ports, access) in
            [(Some(&self.listens), AccessNet::BindTcp), (self.connects.as_ref(), AccessNet::ConnectTcp)]
        {
            for port in ports.into_iter().flatten() {
                ruleset = ruleset.add_rule(NetPort::new(*port, access))?;
            }
        }
        Ok(ruleset)
    }
}

/// What this kernel's Landlock cannot do.
fn lacking(status: &RestrictionStatus) -> Option<String> {
    if status.ruleset == RulesetStatus::FullyEnforced {
        return None;
    }
    Some(match status.landlock {
        LandlockStatus::NotImplemented => "Landlock is not built into it, so files and ports are free".into(),
        LandlockStatus::NotEnabled => {
            "Landlock is not enabled (`lsm=` of its command line), so files and ports are free".into()
        }
        LandlockStatus::Available { effective_abi, .. } => {
            format!(
                "its Landlock is an old one ({effective_abi:?}), which knows some rights to files and ports only"
            )
        }
    })
}

/// The thread that asks, as `/proc` names it.
fn this_thread() -> io::Result<OsString> {
    let link = fs::read_link("/proc/thread-self")?;
    link.file_name().map(OsString::from).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Fails if this process has other threads.
fn are_all(expected: &[OsString]) -> Result<(), SandboxError> {
    let mut others = Vec::new();
    for _ in 0..COUNTS {
        let threads = fs::read_dir("/proc/self/task")?.map(|entry| Ok(entry?.file_name()));
        others = threads.collect::<io::Result<Vec<_>>>()?;
        others.retain(|thread| !expected.contains(thread));
        if others.is_empty() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    Err(SandboxError::Threads(others))
}
