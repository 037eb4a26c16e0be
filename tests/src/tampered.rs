//! A process whose system calls strace tampers with: they take long, or fail, or the process is killed at one.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::process::{Program, installed};
use crate::wait::Trouble;

/// What strace writes behind a call with which it has tampered.
const INJECTED: &str = "(INJECTED)";

/// The calls that strace has traced, as it writes them down.
#[derive(Debug)]
pub struct Trace(NamedTempFile);

impl Trace {
    fn new() -> io::Result<Self> {
        NamedTempFile::with_prefix("strace").map(Self)
    }

    /// Whether a call has failed, or taken long, for strace's sake. Of one at which the process was killed nothing is said.
    pub fn is_injected(&self) -> io::Result<bool> {
        Ok(std::fs::read_to_string(self.0.path())?.contains(INJECTED))
    }

    /// What strace is told to trace here, and to do, with each thread of what it traces.
    fn arguments(&self, injected: &[&str]) -> Vec<String> {
        let mut arguments =
            vec!["-f".to_owned(), "-o".to_owned(), self.0.path().to_string_lossy().into_owned()];
        for one in injected {
            let calls = one.split(':').next().unwrap_or_default();
            arguments.extend(["-e".into(), format!("trace={calls}"), "-e".into(), format!("inject={one}")]);
        }
        arguments
    }
}

/// A program that is tampered with from its first call on, as these expressions of strace's `-e inject` say. strace is no
/// parent of what is started: that bears the number and the standard input and output that it would have alone.
pub fn from_start(program: Program, injected: &[&str]) -> io::Result<(Program, Trace)> {
    let trace = Trace::new()?;
    let arguments = trace.arguments(injected);
    let prefix: Vec<&str> =
        ["strace", "-D"].into_iter().chain(arguments.iter().map(String::as_str)).chain(["--"]).collect();
    Ok((program.through(&prefix), trace))
}

/// A process as long as strace holds it; let go, it goes on as it was.
#[derive(Debug)]
pub struct Tampered {
    strace: Child,
    trace: Trace,
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
        let trace = Trace::new()?;
        let mut command = Command::new("strace");
        command.args(trace.arguments(injected)).args(["-p", &pid.to_string()]);
        let mut strace = command.stderr(Stdio::piped()).spawn()?;
        let mut says = BufReader::new(strace.stderr.take().ok_or("its standard error")?);
        let mut first = String::new();
        says.read_line(&mut first)?;
        let mut tampered = Self { strace, trace, _says: says };
        if first.contains("attached") {
            return Ok(Some(tampered));
        }
        tampered.end()?;
        Ok(None)
    }

    /// What was traced so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
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
