//! `mail …`: reading and writing mail as a person, for people and scripts (design §10).
//!
//! A message or a part of it leaves byte for byte only into a file, which is never one that exists,
//! or into something that is not a terminal.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use shared::command::{Caller, Outcome, explain, print_bytes};
use shared::mime::terminal;
use shared::render;

use super::show;
use crate::record::Folder;
use crate::request::{Attached, Deleted, Line, Reading, Request, Sent, Status};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A folder's messages, newest first, attachments under theirs
    List {
        #[command(flatten)]
        who: Who,
        /// Which folder
        #[arg(long, value_enum, default_value = "in")]
        folder: Folder,
        /// At most so many messages
        #[arg(long, value_name = "N", default_value_t = 50)]
        max: usize,
    },
    /// Read a message, or get an attachment
    Read {
        /// Message id, or ID.N for attachment N
        message: String,
        #[command(flatten)]
        who: Who,
        /// The bytes as they are stored, with trace headers
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// Write the bytes to a new file
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Send a message
    Send(Send),
    /// Answer a message; addresses and subject follow from it
    Reply {
        /// Message id
        message: String,
        #[command(flatten)]
        who: Who,
        /// Also to its other recipients
        #[arg(long)]
        all: bool,
        /// The text; from standard input otherwise
        #[arg(long)]
        text: Option<String>,
    },
    /// Move a message to Trash, or from Trash away for good
    Delete {
        /// Message id
        message: String,
        #[command(flatten)]
        who: Who,
    },
    /// Where each recipient's copy of a message is
    Status {
        /// Message id
        message: String,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Who {
    /// Whose mail: name or address
    #[arg(long = "as", value_name = "PERSON", env = "SALLYPOST_AS")]
    pub(super) person: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Send {
    #[command(flatten)]
    who: Who,
    /// Recipient: address or local name
    #[arg(long, value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// Recipient, shown as Cc
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<String>,
    /// Subject
    #[arg(long)]
    subject: String,
    /// File to attach
    #[arg(long = "attach", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The text; from standard input otherwise
    #[arg(long)]
    text: Option<String>,
}

/// Runs one; `size_max` is the largest message that the site takes, in octets.
pub(super) fn run(command: Command, caller: &Caller, size_max: u64) -> Outcome {
    match command {
        Command::List { who: Who { person }, folder, max } => {
            let request = Request::MailList { person, folder, max };
            caller.show(&request, |lines: &Vec<Line>| show::folder(lines, folder))
        }
        Command::Read { message, who, raw, output } => read(caller, message, who, raw, output.as_deref()),
        Command::Send(command) => send(caller, command, size_max),
        Command::Reply { message, who: Who { person }, all, text } => {
            let text = text_or_stdin(text, size_max)?;
            let request = Request::MailReply { person, message, all };
            let (sent, _): (Sent, _) = caller.ask(&request, text.as_bytes())?;
            caller.print(&sent, show::sent)
        }
        Command::Delete { message, who: Who { person } } => {
            caller.show(&Request::MailDelete { person, message }, |deleted: &Deleted| show::deleted(deleted))
        }
        Command::Status { message, who: Who { person } } => {
            caller.show(&Request::MailStatus { person, message }, |status: &Status| show::status(status))
        }
    }
}

fn read(caller: &Caller, message: String, who: Who, raw: bool, output: Option<&Path>) -> Outcome {
    let person = who.person;
    let is_part = message.split_once('.').is_some_and(|(_, part)| part != "0");
    let raw = raw || output.is_some();
    let request = Request::MailRead { person: person.clone(), message, raw };
    let (reading, bytes): (Reading, _) = caller.ask(&request, b"")?;
    if let Some(file) = output {
        save(file, &bytes)?;
        let size = render::size(bytes.len() as u64);
        return caller.print(&reading, |_| format!("{size} in {}\n", file.display()));
    }
    if caller.json() || !(raw || is_part) {
        return caller.print(&reading, |reading| show::reading(reading, &person));
    }
    match io::stdout().is_terminal() {
        false => print_bytes(&bytes),
        true => {
            let text = for_terminal(&bytes).ok_or("this is not plain text: add --output FILE to save it")?;
            print_bytes(text.as_bytes())
        }
    }
}

/// The bytes as a text that does a terminal no harm, if they are a text.
pub(super) fn for_terminal(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?;
    let is_plain = !text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n'));
    is_plain.then(|| terminal::safe(text))
}

/// Makes the file, for its owner alone; leaves one that exists as it is.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} exists and is left as it is: choose another name", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a file would look like a whole one; why it is half is said either way.
        let _ = fs::remove_file(path);
        failed(error)
    })
}

fn send(caller: &Caller, command: Send, size_max: u64) -> Outcome {
    let Send { who, to, cc, subject, files, text } = command;
    // Files first: a name mistyped is said before a text is typed.
    let contents: Vec<_> = files.iter().map(|file| attachment(file, size_max)).collect::<Result<_, _>>()?;
    let mut body = text_or_stdin(text, size_max)?.into_bytes();
    let text_bytes = body.len();
    let mut attachments = Vec::new();
    for (name, content) in contents {
        attachments.push(Attached { name, bytes: content.len() });
        body.extend(content);
    }
    let request = Request::MailSend { person: who.person, to, cc, subject, attachments, text_bytes };
    let (sent, _): (Sent, _) = caller.ask(&request, &body)?;
    caller.print(&sent, show::sent)
}

fn attachment(path: &Path, size_max: u64) -> Result<(String, Vec<u8>), String> {
    let content = File::open(path).and_then(|file| read_at_most(file, size_max));
    let content = content.map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((name, content))
}

fn text_or_stdin(text: Option<String>, size_max: u64) -> Result<String, Box<dyn Error>> {
    if let Some(text) = text {
        return Ok(text);
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        explain("The text, please; Ctrl-D on a line of its own ends it.");
    }
    let text = String::from_utf8(read_at_most(stdin.lock(), size_max)?);
    Ok(text.map_err(|_| "the text is not UTF-8: convert it, or send it as a file with --attach")?)
}

/// All of `source`, which may not be longer than the largest message.
pub(super) fn read_at_most(source: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(io::Error::other(format!("more than a message may hold here: {}", render::size(max)))),
        false => Ok(bytes),
    }
}
