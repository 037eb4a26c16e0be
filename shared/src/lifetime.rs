//! When a daemon ends: told by a signal, or by its parent's going away.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// With this set in the environment, a daemon ends when its standard input does: a node that a test
/// started does not outlive it.
pub const EXIT_ON_STDIN_EOF: &str = "SALLYPOST_EXIT_ON_STDIN_EOF";
/// How long sessions may take to end what they have begun.
const LINGER: Duration = Duration::from_secs(3);
const LINGER_STEP: Duration = Duration::from_millis(20);

/// From now on SIGHUP ends nothing: what is read again at it is, by who reads it. Unless somebody waits for it, it ends a
/// process without a word. For who has no runtime yet, as a start may take minutes before it has.
///
/// # Errors
/// The system allows no handler.
pub fn survive_hangup() -> io::Result<()> {
    // This runtime has no thread, and its handler stays.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _within = runtime.enter();
    signal(SignalKind::hangup()).map(drop)
}

/// Returns why once the process is to end.
pub async fn until_told_to_stop() -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if std::env::var_os(EXIT_ON_STDIN_EOF).is_some() {
        // A thread of its own: such a read cannot be cancelled, and a runtime's end would wait for it.
        std::thread::spawn(|| {
            // However the input ends, by its end or by an error, nobody holds it any more.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            std::process::exit(0);
        });
    }
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("interrupt"),
    }
}

/// Takes as many file descriptors as the system allows this process: each session and each segment in
/// use needs one. How many it has then.
pub fn take_descriptors() -> usize {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, the node runs with what it has.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let taken = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    taken.and_then(|taken| usize::try_from(taken).ok()).unwrap_or(usize::MAX)
}

/// Waits until `left` is 0, but not for long.
pub async fn linger(left: impl Fn() -> usize) {
    let wait = async {
        while left() > 0 {
            tokio::time::sleep(LINGER_STEP).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, wait).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_ends_nothing_where_nobody_waits_for_one() {
        survive_hangup().expect("is allowed");
        let hang_up =
            || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP);
        for _ in 0..3 {
            hang_up().expect("is sent");
        }
        // Nor once a runtime has come and gone that does wait.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut waits = signal(SignalKind::hangup()).expect("is allowed");
            hang_up().expect("is sent");
            waits.recv().await.expect("comes");
        });
        drop(runtime);
        hang_up().expect("is sent");
    }
}
