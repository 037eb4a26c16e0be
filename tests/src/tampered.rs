//! A process whose system calls strace tampers with: they take long, or fail.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::installed;
use crate::wait::Trouble;

/// A process as long as strace holds it; let go, it goes on as it was.
#[derive(Debug)]
pub struct Tampered {
    strace: Child,
    /// What strace says: of each new thread, too, so somebody has to keep the pipe.
    _says: BufReader<ChildStderr>,
}

impl Tampered {
    /// Tampers with a process that runs, and with each of its threads, as these expressions of strace's `-e inject` say.
    /// `None` where nobody may: strace is missing, or it is forbidden.
    pub fn with(pid: u32, injected: &[&str]) -> Result<Option<Self>, Trouble> {
        if !installed("strace") {
            return Ok(None);
        }
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null"]);
        for one in injected {
            let calls = one.split(':').next().unwrap_or_default();
            command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={one}")]);
        }
        command.args(["-p", &pid.to_string()]);
        let mut strace = command.stderr(Stdio::piped()).spawn()?;
        let mut says = BufReader::new(strace.stderr.take().ok_or("its standard error")?);
        let mut first = String::new();
        says.read_line(&mut first)?;
        let mut tampered = Self { strace, _says: says };
        if first.contains("attached") {
            return Ok(Some(tampered));
        }
        tampered.end()?;
        Ok(None)
    }

    /// Leaves the process as it found it.
    pub fn let_go(mut self) -> Result<(), Trouble> {
        self.end()
    }

    /// Asked to, strace detaches.
    fn end(&mut self) -> Result<(), Trouble> {
        let pid = Pid::from_child(&self.strace);
        if self.strace.try_wait()?.is_none() {
            kill_process(pid, Signal::TERM)?;
            self.strace.wait()?;
        }
        Ok(())
    }
}

impl Drop for Tampered {
    fn drop(&mut self) {
        // Of a test that has failed: its world ends after it, and takes the traced process along.
        let _ = self.end();
    }
}
