//! What a panic does. It ends the process, as a kill does, for nothing that was promised depends on what would have
//! come after it; and a node that has gone on behind a broken invariant can promise what is not so.
//!
//! Work that hands what strangers wrote to a library of others is the exception: the library keeps no state of ours,
//! so its panic breaks nothing, and a stranger who could end the node with a message could do so again and again.
//! Such work runs in [`contain`], which makes an error of the panic. The mark is of the thread, so a panic beside it
//! ends the process as ever.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::telemetry::Quoted;

#[cfg(panic = "abort")]
compile_error!("a panic could not be contained: build with panic = \"unwind\", the hook ends the process");

thread_local! {
    /// Whether this thread is at work that is contained.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the node's runtime ends: [`ends`].
static ENDS: AtomicBool = AtomicBool::new(false);
/// What tokio says to a task that asks for a timer of a runtime that ends.
const NO_TIMERS: &str = "is being shutdown";

/// Contained work has panicked. Where, and what it said, is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a library has panicked over it")]
pub struct Panicked;

/// Makes every panic that is not contained end the process. Called first thing in a node's `main`.
pub fn abort_on_panic() {
    let told_before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if CONTAINED.get() {
            let at = info.location().map(ToString::to_string).unwrap_or_default();
            let text = info.payload_as_str().unwrap_or("no text");
            tracing::error!(at, text = %Quoted(text), "a panic was contained");
        } else if !(ENDS.load(Ordering::Relaxed)
            && info.payload_as_str().is_some_and(|text| text.contains(NO_TIMERS)))
        {
            told_before(info);
            process::abort();
        }
    }));
}

/// The node has done all that it had to, and its runtime is dropped next. A task that was at work on a thread of its own
/// (`block_in_place`) may go on after that, and finds the timers gone: tokio makes a panic of it, which ends that task and
/// not the process.
pub fn ends() {
    ENDS.store(true, Ordering::Relaxed);
}

/// Does `work` on this thread, and survives its panic. It may share with the rest of the node only what is whole after
/// a panic at any moment.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = CONTAINED.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    done.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::pin::pin;
    use std::process::{Command, ExitStatus};
    use std::sync::mpsc;
    use std::task::Poll;
    use std::thread;
    use std::time::{Duration, Instant};

    /// Set in the process that is to panic.
    const PANICS: &str = "SALLYPOST_TEST_PANICS";
    const SIGABRT: i32 = 6;

    #[test]
    fn contained_work_gives_its_result_or_an_error() {
        assert_eq!(contain(|| 1), Ok(1));
        assert_eq!(contain(|| contain(|| panic!("inner")).is_err()), Ok(true));
        assert_eq!(contain(|| -> u8 { panic!("outer") }), Err(Panicked));
        assert!(!CONTAINED.get(), "the mark is taken away");
    }

    #[test]
    fn a_panic_ends_the_process_unless_it_is_contained() {
        if std::env::var_os(PANICS).is_some() {
            abort_on_panic();
            assert_eq!(contain(|| -> u8 { panic!("contained") }), Err(Panicked));
            println!("is alive");
            // Of a thread beside contained work, whose panic nobody waits for.
            let beside = contain(|| thread::spawn(|| panic!("not contained")).join());
            println!("is still alive: {beside:?}");
            return;
        }
        let (said, status) = played("containment::tests::a_panic_ends_the_process_unless_it_is_contained");
        assert!(said.contains("is alive") && !said.contains("is still alive"), "{said}");
        assert_eq!(status.signal(), Some(SIGABRT));
    }

    /// Plays a test in a process of its own. What it said, and how it ended.
    fn played(test: &str) -> (String, ExitStatus) {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test, "--nocapture"])
            .env(PANICS, "1")
            .output()
            .expect("the same program");
        (String::from_utf8_lossy(&child.stdout).into_owned(), child.status)
    }

    #[test]
    fn a_task_that_finds_its_runtime_gone_does_not_end_the_process() {
        if std::env::var_os(PANICS).is_some() {
            abort_on_panic();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("a runtime");
            let (begun, has_begun) = mpsc::channel();
            runtime.spawn(async move {
                // Meanwhile another thread has become the worker.
                let (beside, is_beside) = mpsc::channel();
                tokio::spawn(async move { beside.send(()).is_ok() });
                tokio::task::block_in_place(|| is_beside.recv()).expect("the other task runs");
                begun.send(()).expect("it is waited for");
                let until = Instant::now() + Duration::from_secs(60);
                while Instant::now() < until {
                    let mut timer = pin!(tokio::time::sleep(Duration::from_secs(60)));
                    let once = std::future::poll_fn(|context| Poll::Ready(timer.as_mut().poll(context)));
                    let _ = tokio::task::unconstrained(once).await;
                }
                println!("has its timers");
            });
            has_begun.recv().expect("it is at work");
            ends();
            drop(runtime);
            println!("is alive");
            let beside = thread::spawn(|| panic!("of another kind")).join();
            println!("is still alive: {beside:?}");
            return;
        }
        let (said, status) =
            played("containment::tests::a_task_that_finds_its_runtime_gone_does_not_end_the_process");
        assert!(!said.contains("has its timers"), "the task has not found them gone: {said}");
        assert!(said.contains("is alive") && !said.contains("is still alive"), "{said}");
        assert_eq!(status.signal(), Some(SIGABRT));
    }
}
