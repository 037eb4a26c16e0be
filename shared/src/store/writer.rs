//! The one writer: takes every operation that waits, commits them together, wakes their callers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::gauge::Gauge;
use super::index::{self, Index, from_redb};
use super::lazy::{AGAIN_TIME, LAZY_TIME, Lazy};
use super::segment::Segments;
use super::touched::Touched;
use super::txn::{Finished, Snapshot, Txn};
use super::{Committed, StoreError, space};
use crate::fault::{SeededFault, seeded};

/// Operations that wait at most; the next caller waits for room.
const QUEUE_MAX: usize = 4096;
/// Operations in one commit.
const COMMIT_MAX: usize = 512;

/// What is told to an operation's caller once its commit has succeeded or failed.
pub(super) type Wake = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
pub(super) type Operation = Box<dyn FnOnce(Result<&mut Txn<'_>, StoreError>) -> Wake + Send>;

pub(super) struct Writer {
    /// `None` once the writer is being dropped.
    queue: Option<mpsc::Sender<Operation>>,
    lazy: Arc<Lazy>,
    state: Arc<RwLock<State>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Drop for Writer {
    /// Closes the store: what has been queued is done, and the disk is free for the next to open it.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there has ended every operation with an error already.
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
enum State {
    Running(Index),
    /// A commit failed: what redb holds in memory is no longer what is on disk. It still reads, and is
    /// opened anew for the next operation.
    Failed(Index, StoreError),
    /// Opening anew failed; tried again for the next operation.
    Closed(StoreError),
    /// A sync failed: what the kernel dropped cannot be had back by asking again.
    Stopped(StoreError),
}

impl State {
    /// What snapshots are taken of.
    fn readable(&self) -> Result<&Index, StoreError> {
        match self {
            Self::Running(index) | Self::Failed(index, _) => Ok(index),
            Self::Closed(error) | Self::Stopped(error) => Err(error.clone()),
        }
    }

    fn running(&self) -> Result<&Index, StoreError> {
        match self {
            Self::Running(index) => Ok(index),
            Self::Failed(_, error) | Self::Closed(error) | Self::Stopped(error) => Err(error.clone()),
        }
    }
}

impl Writer {
    pub fn start(
        disk: Arc<dyn Disk>,
        index: Index,
        segments: Arc<Segments>,
        (gauge, touched): (Arc<Gauge>, Arc<Touched>),
    ) -> Result<Self, StoreError> {
        let (queue, operations) = mpsc::channel(QUEUE_MAX);
        let state = Arc::new(RwLock::new(State::Running(index)));
        let lazy = Arc::new(Lazy::new(queue.downgrade()));
        let thread = Thread {
            disk,
            segments,
            gauge,
            touched,
            state: Arc::clone(&state),
            operations,
            lazy: Arc::clone(&lazy),
        };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || thread.run())?;
        Ok(Self { queue: Some(queue), lazy, state, thread: Some(thread) })
    }

    pub async fn commit<T, E, F>(&self, operation: F) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    {
        let (operation, outcome) = boxed(operation);
        self.queue.as_ref().ok_or_else(gone)?.send(operation).await.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone().into()))
    }

    pub fn commit_blocking<T, E, F>(&self, operation: F) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    {
        let (operation, outcome) = boxed(operation);
        self.queue.as_ref().ok_or_else(gone)?.blocking_send(operation).map_err(|_| gone())?;
        outcome.blocking_recv().unwrap_or_else(|_| Err(gone().into()))
    }

    pub fn commit_lazily<F, D>(&self, operation: F, done: D) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<(), StoreError> + Send + 'static,
        D: FnOnce() + Send + 'static,
    {
        let (operation, _) = boxed(move |txn: &mut Txn<'_>| {
            // Nobody waits for the outcome. That a commit failed is logged where it fails.
            operation(txn).inspect_err(|error| tracing::error!(%error, "a deferred operation failed"))
        });
        let operation = Box::new(move |txn: Result<&mut Txn<'_>, StoreError>| -> Wake {
            let wake = operation(txn);
            Box::new(move |committed| {
                wake(committed);
                done();
            })
        });
        self.lazy.push(operation, LAZY_TIME, Handle::try_current().ok());
        Ok(())
    }

    pub fn commit_eventually<F, D>(&self, operation: F, done: D) -> Result<(), StoreError>
    where
        F: Fn(&mut Txn<'_>) -> Result<(), StoreError> + Send + Sync + 'static,
        D: FnOnce() + Send + 'static,
    {
        let runtime = Handle::try_current().ok();
        let operation = repeated(Arc::new(operation), done, Arc::downgrade(&self.lazy), runtime.clone());
        self.lazy.push(operation, LAZY_TIME, runtime);
        Ok(())
    }

    pub fn read(&self) -> Result<Snapshot, StoreError> {
        Snapshot::of(&self.state.read().unwrap_or_else(PoisonError::into_inner).readable()?.database)
    }

    /// Fails once the writer has stopped for good.
    pub fn usable(&self) -> Result<(), StoreError> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Stopped(error) => Err(error.clone()),
            State::Running(_) | State::Failed(..) | State::Closed(_) => Ok(()),
        }
    }

    /// Whether a commit has failed and the index has not been opened anew since, though the next commit tries to.
    pub fn has_failed(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        matches!(&*state, State::Failed(..) | State::Closed(_))
    }
}

fn gone() -> StoreError {
    StoreError::Stopped("the writer has ended".into())
}

type Outcome<T, E> = oneshot::Receiver<Result<Committed<T>, E>>;

fn boxed<T, E, F>(operation: F) -> (Operation, Outcome<T, E>)
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
    F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
{
    let (tell, outcome) = oneshot::channel();
    // A caller that has gone away does not hinder the commit: sends to it may fail.
    let boxed: Operation = Box::new(move |txn| {
        let outcome = match txn {
            Err(error) => Err(error.into()),
            Ok(txn) => {
                let mark = txn.mark();
                // What cannot be undone fails the whole commit.
                operation(txn).inspect_err(|_| drop(txn.undo(mark)))
            }
        };
        // Who is refused is told after the commit as well: nothing of it is under way any more then.
        Box::new(move |committed: Result<(), StoreError>| {
            let told = outcome.and_then(|value| committed.map(|()| Committed(value)).map_err(E::from));
            tell.send(told).ok();
        })
    });
    (boxed, outcome)
}

/// An operation that goes into the next commit again if its own failed, as long as there may be another one.
fn repeated<F, D>(operation: Arc<F>, done: D, lazy: Weak<Lazy>, runtime: Option<Handle>) -> Operation
where
    F: Fn(&mut Txn<'_>) -> Result<(), StoreError> + Send + Sync + 'static,
    D: FnOnce() + Send + 'static,
{
    Box::new(move |txn| {
        let again = Arc::clone(&operation);
        let (operation, _) = boxed(move |txn: &mut Txn<'_>| {
            operation(txn).inspect_err(|error| tracing::error!(%error, "a deferred operation failed"))
        });
        let wake = operation(txn);
        Box::new(move |committed| {
            let outcome = committed.clone();
            wake(committed);
            match outcome {
                Ok(()) => done(),
                Err(StoreError::Stopped(_)) => {}
                Err(_) => {
                    if let Some(queue) = lazy.upgrade() {
                        let operation = repeated(again, done, lazy, runtime.clone());
                        queue.push(operation, AGAIN_TIME, runtime);
                    }
                }
            }
        })
    })
}

struct Thread {
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    gauge: Arc<Gauge>,
    touched: Arc<Touched>,
    state: Arc<RwLock<State>>,
    operations: mpsc::Receiver<Operation>,
    lazy: Arc<Lazy>,
}

impl Thread {
    fn run(mut self) {
        while let Some(first) = self.operations.blocking_recv() {
            let mut waited = vec![first];
            while waited.len() < COMMIT_MAX {
                let Ok(next) = self.operations.try_recv() else { break };
                waited.push(next);
            }
            // Taken last and run first: whoever waits for a commit finds done what was asked before.
            let mut operations = self.lazy.take();
            operations.append(&mut waited);
            let mut wakes = Vec::with_capacity(operations.len());
            self.reopen();
            self.gauge.commit_begins();
            let committed = self.commit(operations, &mut wakes);
            self.gauge.commit_ends(matches!(committed, Ok(true)));
            if let Err(error) = &committed {
                self.gauge.failed(error);
                self.failed(error);
            }
            let committed = committed.map(drop);
            for wake in wakes {
                wake(committed.clone());
            }
        }
    }

    /// Runs the operations and commits what they wrote, if they wrote anything: returns whether.
    fn commit(&self, operations: Vec<Operation>, wakes: &mut Vec<Wake>) -> Result<bool, StoreError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let begun = state.running().and_then(|index| {
            let mut transaction = index.database.begin_write().map_err(from_redb)?;
            // Attackers choose what is stored: the one-phase commit's checksum does not resist them.
            transaction.set_two_phase_commit(true);
            transaction.set_quick_repair(true);
            Ok(transaction)
        });
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) => {
                wakes.extend(operations.into_iter().map(|operation| operation(Err(error.clone()))));
                return Err(error);
            }
        };
        let mut txn = Txn::new(&transaction);
        for operation in operations {
            wakes.push(operation(Ok(&mut txn)));
        }
        let Finished { written, emptied } = txn.finish()?;
        if written.is_empty() {
            transaction.abort().map_err(from_redb)?;
            self.give_back_or_say(&state);
            return Ok(false);
        }
        if seeded(SeededFault::ConfirmBeforeCommit) {
            wakes.drain(..).for_each(|wake| wake(Ok(())));
        }
        self.segments.sync().map_err(|error| StoreError::Stopped(error.to_string()))?;
        transaction.commit().map_err(from_redb)?;
        self.touched.committed(written.iter().map(|(table, key)| (*table, key.as_slice())));
        emptied.into_iter().for_each(|number| self.segments.emptied(number));
        self.give_back_or_say(&state);
        Ok(true)
    }

    fn give_back_or_say(&self, state: &State) {
        if let Err(error) = self.give_back(state) {
            tracing::warn!(%error, "space could not be given back");
        }
    }

    fn give_back(&self, state: &State) -> Result<(), StoreError> {
        let index = state.running()?;
        let mut snapshot = None;
        self.segments.remove_emptied(|number| {
            if snapshot.is_none() {
                snapshot = Some(Snapshot::of(&index.database)?);
            }
            snapshot.as_ref().map_or(Ok(true), |snapshot| space::is_live(snapshot, number))
        })
    }

    /// After a failed commit.
    fn failed(&self, error: &StoreError) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *state, State::Closed(error.clone()));
        *state = match old {
            State::Running(index) => {
                let sync_failed = index.sync_failed.load(Ordering::Acquire);
                match error {
                    StoreError::Stopped(_) => State::Stopped(error.clone()),
                    _ if sync_failed => State::Stopped(StoreError::Stopped(error.to_string())),
                    _ => State::Failed(index, error.clone()),
                }
            }
            other => other,
        };
        match &*state {
            State::Stopped(reason) => tracing::error!(%reason, "the store has stopped"),
            _ => tracing::warn!(%error, "a commit failed"),
        }
    }

    /// After a commit that failed otherwise than by a sync: goes back to what is on disk.
    fn reopen(&self) {
        let failed = |state: &State| matches!(state, State::Failed(..) | State::Closed(_));
        if !failed(&self.state.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // The old one is closed before the new one is opened: both write to the same file.
        *state = State::Closed(StoreError::Full);
        *state = match index::open(self.disk.as_ref(), true, |_| Ok(())) {
            Ok(index) => State::Running(index),
            Err(error) => State::Closed(error),
        };
    }
}
