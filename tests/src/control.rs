//! The nodes' command lines, as a person or a script uses them: run, exit code, JSON.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::process::{Finished, Node, ProcessError, Program, finish};

/// How long a command may take.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(30);

/// Why a command gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be run to its end.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It said no; exit 1 is refused or failed, 2 is usage (design §11).
    #[error("`{command}` ended with {code:?}: {message}")]
    Refused {
        /// The command.
        command: String,
        /// Its exit code, unless a signal ended it.
        code: Option<i32>,
        /// What it told the person.
        message: String,
    },
    /// It exited 0 and printed something else than was expected.
    #[error("`{command}` printed {output:?}: {reason}")]
    Output {
        /// The command.
        command: String,
        /// What it printed.
        output: String,
        /// What is wrong with that.
        reason: serde_json::Error,
    },
}

impl CommandError {
    /// What the command told the person, if it refused.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// One node's commands, for one topology.
#[derive(Clone, Debug)]
pub struct Commands {
    program: Program,
    node: Node,
    topology: PathBuf,
}

impl Commands {
    /// The commands of `node`, which is in `program`, for the pair that `topology` describes.
    pub fn new(program: Program, node: Node, topology: impl Into<PathBuf>) -> Self {
        Self { program, node, topology: topology.into() }
    }

    /// The command line of `arguments`, ready to be started as a process: `serve`.
    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.program.command(self.node, arguments);
        command.arg("--topology").arg(&self.topology);
        command
    }

    /// Runs a command that must succeed; returns what it printed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, CommandError> {
        self.run_with(arguments, b"").await
    }

    /// The same, with `input` as its standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &[u8]) -> Result<String, CommandError> {
        let done = self.finish(arguments, input).await?;
        if !done.status.success() {
            let (command, code) = (self.describe(arguments), done.status.code());
            return Err(CommandError::Refused { command, code, message: done.stderr.trim().to_owned() });
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Runs a command with `--json`; returns what it printed.
    pub async fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, CommandError> {
        self.json_with(arguments, b"").await
    }

    /// The same, with `input` as its standard input.
    pub async fn json_with<T: DeserializeOwned>(
        &self,
        arguments: &[&str],
        input: &[u8],
    ) -> Result<T, CommandError> {
        let arguments = [arguments, &["--json"]].concat();
        let output = self.run_with(&arguments, input).await?;
        serde_json::from_str(&output).map_err(|reason| {
            let command = self.describe(&arguments);
            CommandError::Output { command, output: output.clone(), reason }
        })
    }

    /// Runs a command, however it ends.
    pub async fn finish(&self, arguments: &[&str], input: &[u8]) -> Result<Finished, ProcessError> {
        finish(self.command(arguments), input, COMMAND_WITHIN).await
    }

    fn describe(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.node.name(), arguments.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that prints its arguments as JSON, or refuses.
    fn commands(folder: &std::path::Path) -> Commands {
        let path = folder.join("node.sh");
        let script = "case $2 in person) cat; printf '[\"%s\",\"%s\",\"%s\"]' $1 $4 $6;;\n\
                      *) echo 'no such person; add one first' >&2; exit 1;; esac\n";
        std::fs::write(&path, script).expect("written");
        let path = path.to_str().expect("UTF-8");
        Commands::new(Program::at(path).through(&["sh"]), Node::Big, "t.toml")
    }

    #[tokio::test]
    async fn commands_are_run_and_their_answers_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let commands = commands(folder.path());
        let printed: Vec<String> = commands.json(&["person", "list"]).await.expect("JSON");
        assert_eq!(printed, ["node-big", "--json", "t.toml"]);
        let refused = commands.run(&["mail"]).await.expect_err("refused");
        assert_eq!(refused.refusal(), Some("no such person; add one first"));
        let odd = commands.json_with::<String>(&["person"], b"oops ").await.expect_err("no JSON");
        assert!(odd.to_string().starts_with("`big-node person --json` printed \"oops ["), "{odd}");
    }
}
