//! The frame of both nodes' command lines (design §11): options, exit codes, and the one door to the
//! terminal.
//!
//! Exit code 0 is done, 1 refused or failed with the reason and the mend on standard error, 2 usage.
//! All text for people passes [`Caller::print`] or [`explain`], which make it safe for a terminal
//! whatever is in it; JSON is escaped so far that a terminal takes no harm from it either. Standard
//! output carries the answer and nothing else.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::containment;
use crate::control::{self, CallError};
use crate::mime::terminal;
use crate::render;
use crate::state::{Prepared, State};

/// How a command ends; the error is for a person.
pub type Outcome = Result<(), Box<dyn Error>>;

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The file that describes the pair
    #[arg(long, global = true, display_order = 900, value_name = "FILE", default_value = "topology.toml")]
    pub topology: PathBuf,
    /// Print data as one JSON document
    #[arg(long, global = true, display_order = 901)]
    pub json: bool,
}

/// Reads the command line, runs it, and says how it ended.
pub fn run<C: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    run: impl FnOnce(C) -> Outcome,
) -> ExitCode {
    containment::abort_on_panic();
    let command = match C::try_parse_from(arguments) {
        Ok(command) => command,
        Err(error) => {
            // Help and version are asked for, and go to standard output; the rest is usage.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says something to the person at the terminal, beside the answer.
pub fn explain(text: &str) {
    // Who has closed standard error does not want to hear it.
    let _ = writeln!(io::stderr(), "{}", terminal::safe(text));
}

/// A node as its commands reach it, and how they print.
#[derive(Clone, Debug)]
pub struct Caller {
    node: &'static str,
    state: PathBuf,
    socket: PathBuf,
    /// The socket for everybody, if the node has one.
    desk: Option<PathBuf>,
    json: bool,
}

impl Caller {
    /// For the commands of `node`, which keeps its state in `state`, and has a socket for everybody at `desk`.
    pub fn new(node: &'static str, state: &Path, desk: Option<&Path>, options: &Options) -> Self {
        let (socket, desk) = (control::socket_in(state), desk.map(Path::to_owned));
        Self { node, state: state.into(), socket, desk, json: options.json }
    }

    /// Whether data is printed as JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Asks the running node, with a body; returns its answer and the answer's body. Whoever cannot reach the
    /// control socket asks at the one for everybody.
    pub fn ask<A: DeserializeOwned>(
        &self,
        request: &impl Serialize,
        body: &[u8],
    ) -> Result<(A, Vec<u8>), CallError> {
        match (control::call(self.node, &self.socket, request, body), &self.desk) {
            (Err(CallError::NotAllowed { .. } | CallError::NotRunning { .. }), Some(desk)) => {
                control::call(self.node, desk, request, body)
            }
            (answered, _) => answered,
        }
    }

    /// Asks the running node and prints its answer.
    pub fn show<A: DeserializeOwned + Serialize>(
        &self,
        request: &impl Serialize,
        text: impl FnOnce(&A) -> String,
    ) -> Outcome {
        let (answer, _) = self.ask(request, b"")?;
        self.print(&answer, text)
    }

    /// Asks the running node for a backup, puts it into the new folder `into`, and prints what was copied.
    pub fn back_up(&self, request: &impl Serialize, into: &Path) -> Outcome {
        State::may_take_backup(into)?;
        let (prepared, _) = self.ask::<Prepared>(request, b"")?;
        State::open(&self.state)?.take_backup(&prepared, into)?;
        self.print(&prepared.copied, render::copied)
    }

    /// Prints what comes in pages, each as it comes: as one JSON array, or as the text that `text` makes of each page, or
    /// `empty` if nothing is on any. `page` gives the next one, `None` behind the last.
    pub fn show_pages<A: Serialize>(
        &self,
        empty: &str,
        mut page: impl FnMut() -> Result<Option<Vec<A>>, Box<dyn Error>>,
        mut text: impl FnMut(&[A]) -> String,
    ) -> Outcome {
        let mut any = false;
        while let Some(rows) = page()? {
            if rows.is_empty() {
                continue;
            }
            let printed = match self.json {
                true => {
                    let rows = rows.iter().map(json).collect::<Result<Vec<_>, _>>()?;
                    let rows: Vec<_> = rows.iter().map(|row| row.trim_end()).collect();
                    format!("{}{}", if any { "," } else { "[" }, rows.join(","))
                }
                false => terminal::safe(&text(&rows)),
            };
            print_bytes(printed.as_bytes())?;
            any = true;
        }
        match (self.json, any) {
            (true, true) => print_bytes(b"]\n"),
            (true, false) => print_bytes(b"[]\n"),
            (false, true) => Ok(()),
            (false, false) => print_bytes(format!("{empty}\n").as_bytes()),
        }
    }

    /// Prints an answer: as one JSON document, or as the text that `text` makes of it.
    pub fn print<A: Serialize>(&self, answer: &A, text: impl FnOnce(&A) -> String) -> Outcome {
        let text = match self.json {
            true => json(answer)?,
            false => terminal::safe(&text(answer)),
        };
        print_bytes(text.as_bytes())
    }
}

/// Writes to standard output, as they are, bytes that are not for a terminal.
pub fn print_bytes(bytes: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(bytes).and_then(|()| stdout.flush());
    Ok(printed.map_err(|error| format!("done, but the answer could not be printed: {error}"))?)
}

/// The value as one line of JSON, in which every character that is not harmless is escaped.
fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for c in serde_json::to_string(value)?.chars() {
        let harmless = (' '..='~').contains(&c) || !c.is_ascii() && is_harmless(c);
        match harmless {
            true => text.push(c),
            // Outside of strings JSON is printable ASCII, so this is within one.
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(text, "\\u{unit:04x}");
            }),
        }
    }
    text.push('\n');
    Ok(text)
}

fn is_harmless(c: char) -> bool {
    let mut octets = [0; 4];
    let text = c.encode_utf8(&mut octets);
    terminal::safe_line(text) == *text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_value_and_drives_no_terminal() {
        let text = "\x1b[2J\u{9b}2J\u{7f}\u{202e}\u{e0041} \"café\" 日本 😀\r\n";
        let json = json(&text).expect("JSON");
        assert_eq!(serde_json::from_str::<String>(&json).expect("a string"), text);
        assert_eq!(json, "\"\\u001b[2J\\u009b2J\\u007f\\u202e\\udb40\\udc41 \\\"café\\\" 日本 😀\\r\\n\"\n");
    }

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        options: Options,
        #[command(subcommand)]
        command: ProbeCommand,
    }

    #[derive(clap::Subcommand)]
    enum ProbeCommand {
        Look,
    }

    #[test]
    fn exit_codes_tell_refusal_from_usage() {
        let ran = |arguments: &[&str], outcome: fn() -> Outcome| {
            let arguments = ["probe"].iter().chain(arguments).map(OsString::from);
            let code = run(arguments, |probe: Probe| {
                assert_eq!(probe.options.topology, Path::new("t.toml"));
                let ProbeCommand::Look = probe.command;
                outcome()
            });
            format!("{code:?}")
        };
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(ran(&["look", "--topology", "t.toml"], || Ok(())), code(0));
        assert_eq!(ran(&["--topology", "t.toml", "look"], || Err("no".into())), code(1));
        assert_eq!(ran(&["look", "--tpology", "t.toml"], || Ok(())), code(2));
        assert_eq!(ran(&["--help"], || Err("not run".into())), code(0));
    }
}
