//! A program that serves until it is dropped, in the foreground.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tests::wait::Trouble;

/// Runs the rest of its words in a process namespace, behind a shell that is its first process: with this program's
/// thread, however that ends, all goes that was started there, whatever it has done to leave its group or session. What
/// changes its user loses the signal for that, and the shell does not.
const MORTAL: [&str; 11] = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "sh",
    "-c",
    "\"$@\"; exit \"$?\"",
    "sh",
];
/// Lines of a log that are shown.
const SHOWN_MAX: usize = 12;

/// It, and all that it has started.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it says goes to `log`.
    pub fn start(command: Command, log: &Path) -> io::Result<Self> {
        let file = fs::File::options().create(true).append(true).open(log)?;
        let [program, words @ ..] = MORTAL;
        let mut mortal = Command::new(program);
        mortal.args(words).arg(command.get_program()).args(command.get_args());
        mortal.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: mortal.spawn()?, log: log.to_owned() })
    }

    /// The trouble, and what it has said last.
    pub fn with_log(&self, trouble: &impl Display) -> Trouble {
        with_log(trouble, &self.log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The trouble, and the last lines of a log.
pub fn with_log(trouble: &impl Display, log: &Path) -> Trouble {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().take(SHOWN_MAX).collect::<Vec<_>>();
    format!("{trouble}; {} has, latest first:\n{}", log.display(), last.join("\n")).into()
}
