//! The nodes as real processes: started, waited for, killed.
//!
//! Every program of this crate carries both nodes in itself. Called with `node-big` or `node-edge` as
//! its first argument it *is* that node, with the rest as the node's command line ([`dispatch`]); so
//! the harness starts its own executable and never has to know where another binary lies.
//!
//! A process ends when its [`Running`] is dropped. If the harness itself is killed, the node sees the
//! end of its standard input and exits (the variable [`EXIT_ON_STDIN_EOF`] tells it to), so no node
//! is ever left behind. Signals go to a pidfd: never to a process that merely has the same number.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, prlimit,
    waitid,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;

/// Set to `1` for a node that is to exit at once when its standard input ends.
pub const EXIT_ON_STDIN_EOF: &str = "SALLYPOST_EXIT_ON_STDIN_EOF";
/// Octets of a ready line, and of a command's output.
const OUTPUT_MAX: u64 = 64 * 1024 * 1024;
/// Octets of a log that an error quotes.
const QUOTED_MAX: usize = 2000;

/// One of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The one inside.
    Big,
    /// The one in the DMZ.
    Edge,
}

impl Node {
    /// Its program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Big => "big-node",
            Self::Edge => "edge-node",
        }
    }

    fn argument(self) -> &'static str {
        match self {
            Self::Big => "node-big",
            Self::Edge => "node-edge",
        }
    }
}

/// The first thing in a harness program's `main`: if this process was started to be a node, runs it,
/// with the node's own command line (its name first, as in any argv), and returns how it ended.
pub fn dispatch(
    big: impl FnOnce(Vec<OsString>) -> ExitCode,
    edge: impl FnOnce(Vec<OsString>) -> ExitCode,
) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    let command_line = |node: Node| std::iter::once(node.name().into()).chain(arguments).collect();
    if first == Node::Big.argument() {
        Some(big(command_line(Node::Big)))
    } else if first == Node::Edge.argument() {
        Some(edge(command_line(Node::Edge)))
    } else {
        None
    }
}

/// A program that [`dispatch`]es, and how to reach it.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    through: Vec<OsString>,
}

impl Program {
    /// The running program itself.
    pub fn this() -> io::Result<Self> {
        std::env::current_exe().map(Self::at)
    }

    /// The program at `path`: in an integration test, `env!("CARGO_BIN_EXE_pair")`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), through: Vec::new() }
    }

    /// The same program, started through another that replaces itself by it: `ip netns exec NAME`.
    pub fn through(self, prefix: &[&str]) -> Self {
        Self { through: prefix.iter().map(OsString::from).collect(), ..self }
    }

    /// The same program, for [`Running::bound_files`]: a write beyond the bound fails, and does not end the process.
    /// What it writes to standard error goes through a pipe, so that it is not bound.
    pub fn with_bounded_files(self) -> Self {
        self.through(&["bash", "-c", "trap '' XFSZ; exec \"$0\" \"$@\" 2> >(exec cat >&2)"])
    }

    /// The command that makes it `node`, with that node's arguments.
    pub fn command(&self, node: Node, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut words = self.through.iter().map(OsString::as_os_str).chain([self.path.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg(node.argument()).args(arguments);
        command
    }
}

/// Why a process did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The system refused.
    #[error("{program} could not be run: {source}")]
    System {
        /// What was run.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It ended, or closed its output, before it said that it was ready.
    #[error("{program} ended before it was ready ({status}); its log {} ends:\n{tail}", log.display())]
    Ended {
        /// What was run.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// It did not get there in time.
    #[error("{program} did not {what} within {within:?}")]
    Late {
        /// What was run.
        program: String,
        /// What it should have done.
        what: &'static str,
        /// The time it had.
        within: Duration,
    },
    /// Its ready line is not what was expected.
    #[error("{program} printed {line:?} where its ready line was expected: {reason}")]
    NotReady {
        /// What was run.
        program: String,
        /// What it printed.
        line: String,
        /// What is wrong with it.
        reason: serde_json::Error,
    },
}

/// A process that runs until it is told to stop, or is dropped.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    handle: OwnedFd,
    log: PathBuf,
}

impl Running {
    /// Starts `command` and waits for the one line of JSON it prints when it is ready. What it writes
    /// to standard error is appended to `log`.
    ///
    /// # Errors
    /// With the end of the log, if the process ends first. A process that is late is killed.
    pub async fn start<R: DeserializeOwned>(
        mut command: Command,
        log: &Path,
        within: Duration,
    ) -> Result<(Self, R), ProcessError> {
        let program = describe(&command);
        let system = |source| ProcessError::System { program: program.clone(), source };
        let errors = File::options().create(true).append(true).open(log).map_err(system)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).env(EXIT_ON_STDIN_EOF, "1");
        // Ctrl-C is for whoever started it, who will end it in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(system)?;
        let output = child.stdout.take().expect("standard output is piped");
        let handle = pidfd(&child).map_err(system)?;
        let mut running = Self { program: program.clone(), child, handle, log: log.to_owned() };

        let output = pipe::Receiver::from_owned_fd(output.into()).map_err(system)?;
        let mut output = BufReader::new(output.take(OUTPUT_MAX));
        let mut line = String::new();
        let read = tokio::time::timeout(within, output.read_line(&mut line)).await;
        match read {
            Err(_) => return Err(ProcessError::Late { program, what: "become ready", within }),
            Ok(Err(source)) => return Err(system(source)),
            Ok(Ok(0)) => return Err(running.ended(within).await),
            Ok(Ok(_)) => {}
        }
        // Whatever it prints after that must not make it wait for a reader.
        tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });
        let ready = serde_json::from_str(&line).map_err(|reason| ProcessError::NotReady {
            program,
            line: line.clone(),
            reason,
        })?;
        Ok((running, ready))
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `kill -9`; returns once the process is gone.
    pub async fn kill(mut self) -> Result<(), ProcessError> {
        self.signal(Signal::KILL)?;
        self.gone().await?;
        Ok(())
    }

    /// Asks it to end with SIGTERM; returns how it ended. A process that is late is killed.
    pub async fn terminate(self, within: Duration) -> Result<ExitStatus, ProcessError> {
        self.stop(Signal::TERM, within).await
    }

    /// Asks it to end as Ctrl-C does, with SIGINT; otherwise the same.
    pub async fn interrupt(self, within: Duration) -> Result<ExitStatus, ProcessError> {
        self.stop(Signal::INT, within).await
    }

    async fn stop(mut self, signal: Signal, within: Duration) -> Result<ExitStatus, ProcessError> {
        self.signal(signal)?;
        match tokio::time::timeout(within, self.gone()).await {
            Ok(ended) => ended,
            Err(_) => Err(ProcessError::Late { program: self.program.clone(), what: "end", within }),
        }
    }

    /// Waits until the process ends by itself.
    pub async fn gone(&mut self) -> Result<ExitStatus, ProcessError> {
        let ended = async {
            let handle = self.handle.try_clone()?;
            // It is only looked at here, so that the process number stays taken until `wait`.
            let look = move || {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(handle.as_fd()), options))
            };
            tokio::task::spawn_blocking(look).await??;
            self.child.wait()
        };
        ended.await.map_err(|source| ProcessError::System { program: self.program.clone(), source })
    }

    /// From now on it can write no file beyond so many octets; with `None`, as far as it likes.
    pub fn bound_files(&self, octets: Option<u64>) -> Result<(), ProcessError> {
        let bounded = Rlimit { current: octets, maximum: None };
        match prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, bounded) {
            Ok(_) => Ok(()),
            Err(e) => Err(ProcessError::System { program: self.program.clone(), source: e.into() }),
        }
    }

    /// Stops it where it is (SIGSTOP), as a machine does that hangs; it can still be killed.
    pub fn freeze(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`freeze`](Self::freeze) (SIGCONT).
    pub fn thaw(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.handle, signal) {
            // It ended by itself a moment ago.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(ProcessError::System { program: self.program.clone(), source: e.into() }),
        }
    }

    async fn ended(&mut self, within: Duration) -> ProcessError {
        let program = self.program.clone();
        match tokio::time::timeout(within, self.gone()).await {
            Err(_) => ProcessError::Late { program, what: "become ready", within },
            Ok(Err(e)) => e,
            Ok(Ok(status)) => {
                let text = fs::read(&self.log).unwrap_or_default();
                let tail = text.get(text.len().saturating_sub(QUOTED_MAX)..).unwrap_or_default();
                let tail = String::from_utf8_lossy(tail).into_owned();
                ProcessError::Ended { program, status, log: self.log.clone(), tail }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process that ran to its end left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error.
    pub stderr: String,
}

/// Runs `command` to its end with `input` as its standard input.
///
/// # Errors
/// If it cannot be started, or does not end in time; it is killed then. How it ends is no error.
pub async fn finish(mut command: Command, input: &[u8], within: Duration) -> Result<Finished, ProcessError> {
    let program = describe(&command);
    let system = |source| ProcessError::System { program: program.clone(), source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // This process may itself be one that ends with its input; a command must read its own to the end.
    command.env_remove(EXIT_ON_STDIN_EOF);
    let mut child = command.spawn().map_err(system)?;
    let handle = pidfd(&child).map_err(system)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut running = Running { program: program.clone(), child, handle, log: PathBuf::new() };

    let write = async {
        let stdin = stdin.expect("standard input is piped");
        let mut stdin = pipe::Sender::from_owned_fd(stdin.into())?;
        // A process may end without reading all of it.
        let _ = stdin.write_all(input).await;
        Ok(())
    };
    let all = async {
        let stdout = read_all(stdout.expect("standard output is piped").into());
        let stderr = read_all(stderr.expect("standard error is piped").into());
        let ((), stdout, stderr) = tokio::try_join!(write, stdout, stderr)?;
        io::Result::Ok((stdout, stderr))
    };
    let late = |_| ProcessError::Late { program: program.clone(), what: "finish", within };
    let (stdout, stderr) = tokio::time::timeout(within, all).await.map_err(late)?.map_err(system)?;
    let status = tokio::time::timeout(within, running.gone()).await.map_err(late)??;
    Ok(Finished { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

/// Whether `program` can be run by its name.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Programs for administrators are where only root's PATH goes.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).any(|file| file.is_file())
}

async fn read_all(output: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe::Receiver::from_owned_fd(output)?.take(OUTPUT_MAX).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    Ok(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::BigReady;

    const WITHIN: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    async fn start(script: &str) -> Result<(Running, BigReady), ProcessError> {
        let folder = tempfile::tempdir().expect("a folder");
        Running::start(sh(script), &folder.path().join("log"), WITHIN).await
    }

    #[tokio::test]
    async fn a_ready_line_is_read_and_a_kill_is_final() {
        let script = "echo '{\"ready\":true,\"pid\":7,\"control\":\"c\"}'; while :; do echo more; done";
        let (running, ready) = start(script).await.expect("ready");
        assert_eq!((ready.pid, ready.control), (7, "c".into()));
        running.kill().await.expect("gone");
    }

    #[tokio::test]
    async fn a_node_outlives_nothing_that_holds_its_input() {
        let script = "echo '{\"ready\":true,\"pid\":1,\"control\":\"c\"}'; cat; exit 3";
        let (mut running, _) = start(script).await.expect("ready");
        drop(running.child.stdin.take());
        assert_eq!(running.gone().await.expect("gone").code(), Some(3));
    }

    #[tokio::test]
    async fn one_that_ends_first_is_quoted() {
        let error = start("echo 'no such topology' >&2; exit 2").await.expect_err("it ended").to_string();
        assert!(error.contains("exit status: 2") && error.ends_with("no such topology\n"), "{error}");
    }

    #[tokio::test]
    async fn a_term_is_waited_for_and_its_answer_kept() {
        let script = "trap 'exit 5' TERM; echo '{\"ready\":true,\"pid\":1,\"control\":\"c\"}'; while :; do sleep 0.01; done";
        let (running, _) = start(script).await.expect("ready");
        assert_eq!(running.terminate(WITHIN).await.expect("ended").code(), Some(5));
    }

    #[tokio::test]
    async fn a_command_is_run_to_its_end_with_input_and_both_outputs() {
        let input = vec![b'x'; 1 << 20];
        let done = finish(sh("tee /dev/stderr; exit 1"), &input, WITHIN).await.expect("finished");
        assert_eq!((done.status.code(), done.stdout.len(), done.stderr.len()), (Some(1), 1 << 20, 1 << 20));
    }

    #[test]
    fn a_program_may_be_reached_through_another() {
        let program = Program::at("/bin/pair").through(&["ip", "netns", "exec", "dmz"]);
        let command = program.command(Node::Edge, &["serve"]);
        assert_eq!(describe(&command), "ip netns exec dmz /bin/pair node-edge serve");
        assert_eq!(describe(&Program::at("p").command(Node::Big, &["check"])), "p node-big check");
    }
}
