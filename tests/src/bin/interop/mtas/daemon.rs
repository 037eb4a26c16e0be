//! A program that serves until it is dropped, in the foreground.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tests::wait::Trouble;

/// How long one may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Lines of a log that are shown.
const SHOWN_MAX: usize = 12;

/// It, and all that it has started.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it says goes to `log`.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let file = fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        Ok(Self { child: command.spawn()?, log: log.to_owned() })
    }

    /// The trouble, and what it has said last.
    pub fn with_log(&self, trouble: &impl Display) -> Trouble {
        with_log(trouble, &self.log)
    }

    fn has_ended(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < END_WITHIN {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(LOOK_AGAIN);
        }
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        // Each fails only where there is nobody any more.
        let _ = kill_process(pid, Signal::TERM);
        if !self.has_ended() {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The trouble, and the last lines of a log.
pub fn with_log(trouble: &impl Display, log: &Path) -> Trouble {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().take(SHOWN_MAX).collect::<Vec<_>>();
    format!("{trouble}; {} has, latest first:\n{}", log.display(), last.join("\n")).into()
}
