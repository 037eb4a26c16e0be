//! `mail …`: reading and writing mail as a person, for people and scripts (design §10).
//!
//! A message or a part of it leaves byte for byte only into a file, which is never one that exists,
//! or into something that is not a terminal.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use shared::command::{Caller, Outcome, explain, print_bytes};
use shared::control::CallError;
use shared::mime::{self, terminal};
use shared::notify::{self, Notify};
use shared::render;

use super::revise;
use super::save::{self, save_as};
use super::{draft, show};
use crate::ebcdic::CodePage;
use crate::part::PartPath;
use crate::request::{
    About, Attached, Deleted, FolderView, Found, Line, Marked, Moved, PersonView, Reading, Request, Saved,
    Sent, Status, Watched, Written,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A folder's messages, newest first, attachments under theirs
    List {
        #[command(flatten)]
        who: Who,
        /// Which folder
        #[arg(long, value_name = "NAME", default_value = "in")]
        folder: String,
        /// At most so many messages
        #[arg(long, value_name = "N", default_value_t = 50)]
        max: usize,
        /// Only those older than this message
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
    /// Read a message, or get an attachment
    Read {
        /// Message id, or ID.N for attachment N, or ID.N.M for attachment M of that
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
    /// Save attachments as new files, which replace none
    Save(Save),
    /// Send a message
    Send(Box<Send>),
    /// Answer a message; addresses and subject follow from it
    Reply(Reply),
    /// Send a message on: its text below yours, its attachments with it
    Forward(Box<Forward>),
    /// Amend and return: send a message with its text changed back to its sender, or on with --to
    Return(Return),
    /// Messages being written
    #[command(subcommand)]
    Draft(draft::Command),
    /// Messages in which every word occurs, newest first
    Search {
        /// Words, in subject, correspondents or text; case and accents do not count
        #[arg(required = true)]
        words: Vec<String>,
        #[command(flatten)]
        who: Who,
        /// Only in this folder
        #[arg(long, value_name = "NAME")]
        folder: Option<String>,
        /// At most so many messages
        #[arg(long, value_name = "N", default_value_t = 50)]
        max: usize,
    },
    /// The conversation of a message, oldest first
    Thread {
        /// Message id
        message: String,
        #[command(flatten)]
        who: Who,
    },
    /// Folders
    #[command(subcommand)]
    Folder(FolderCommand),
    /// Move a message to a folder
    Move {
        /// Message id
        message: String,
        /// The folder's name
        folder: String,
        #[command(flatten)]
        who: Who,
    },
    /// Mark a message read, or unread
    Mark {
        /// Message id
        message: String,
        #[command(flatten)]
        who: Who,
        /// Not read
        #[arg(long)]
        unread: bool,
    },
    /// Wait until the mailbox has changed, 25 s at most; prints a mark for the next time
    Watch {
        #[command(flatten)]
        who: Who,
        /// The mark that was printed before
        #[arg(long, value_name = "MARK")]
        seen: Option<u64>,
    },
    /// Replace what was sent, add to it, or take it back
    Amend(Box<revise::Amend>),
    /// The revisions of a message, and how they differ
    History {
        /// Message id
        message: String,
        #[command(flatten)]
        who: Who,
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
    /// Whose mail: name or address; that of the person whose account this is otherwise
    #[arg(long = "as", value_name = "PERSON", env = "SALLYPOST_AS")]
    pub(super) person: Option<String>,
}

impl Who {
    /// The person's name; the node is asked for it if none was typed.
    pub(super) fn name(self, caller: &Caller) -> Result<String, CallError> {
        match self.person {
            Some(name) => Ok(name),
            None => caller.ask(&Request::Whoami, b"").map(|(own, _): (PersonView, _)| own.name),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum FolderCommand {
    /// Add a folder of one's own
    Add {
        /// What it is to be called
        name: String,
        #[command(flatten)]
        who: Who,
    },
    /// All folders, with their messages and the unread ones
    List {
        #[command(flatten)]
        who: Who,
    },
    /// Rename a folder of one's own
    Rename {
        /// What it is called
        name: String,
        /// What it is to be called
        to: String,
        #[command(flatten)]
        who: Who,
    },
    /// Remove a folder of one's own that is empty
    Remove {
        /// What it is called
        name: String,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Reply {
    /// Message id
    message: String,
    #[command(flatten)]
    who: Who,
    /// Also to its other recipients
    #[arg(long, conflicts_with = "list")]
    all: bool,
    /// To the mailing list that it came by
    #[arg(long)]
    list: bool,
    /// With its text below the answer
    #[arg(long)]
    quote: bool,
    /// File to attach
    #[arg(long = "attach", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The text; from standard input otherwise
    #[arg(long)]
    text: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Forward {
    /// Message id
    message: String,
    #[command(flatten)]
    who: Who,
    /// Recipient: address or local name
    #[arg(long, value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// Recipient, shown as Cc
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<String>,
    /// Attach it whole, as a message
    #[arg(long)]
    as_attachment: bool,
    /// Leave attachment N out; may be given several times
    #[arg(long, value_name = "N", conflicts_with = "as_attachment")]
    without: Vec<u32>,
    /// File to attach
    #[arg(long = "attach", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Your text above it; from standard input otherwise
    #[arg(long)]
    text: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Return {
    /// Message id
    message: String,
    #[command(flatten)]
    who: Who,
    /// Recipient: address or local name; back to its sender otherwise
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Another subject
    #[arg(long)]
    subject: Option<String>,
    /// Leave attachment N out; may be given several times
    #[arg(long, value_name = "N")]
    without: Vec<u32>,
    /// The whole new text; from standard input otherwise
    #[arg(long)]
    text: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Save {
    /// Message id, or ID.N for attachment N
    message: String,
    #[command(flatten)]
    who: Who,
    /// Attachment N; may be given several times
    #[arg(long = "part", value_name = "N", conflicts_with = "all")]
    parts: Vec<PartPath>,
    /// Every attachment
    #[arg(long)]
    all: bool,
    /// The folder to save in
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
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
    #[command(flatten)]
    report: Report,
    /// Be told of: success, failure and delay, with commas between them, or never; of failure and delay otherwise
    #[arg(long, value_name = "WHEN")]
    notify: Option<Notify>,
    /// How much of the message a report of failure is to return; the headers otherwise
    #[arg(long = "return", value_name = "WHAT")]
    returns: Option<notify::Return>,
    /// The text; from standard input otherwise
    #[arg(long)]
    text: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Report {
    /// Report to attach, as text if it is text: a listing, a spool file, anything
    #[arg(long = "report", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Convert the report from this EBCDIC code page: 037, 500 or 1047
    #[arg(long, value_name = "PAGE", requires = "file")]
    ebcdic: Option<CodePage>,
    /// The report's records are of N bytes, and each is a line
    #[arg(long, value_name = "N", requires = "ebcdic")]
    record_length: Option<std::num::NonZeroUsize>,
    /// The report's name; its file's otherwise
    #[arg(long, requires = "file")]
    name: Option<String>,
}

/// Runs one; `size_max` is the largest message that the site takes, in octets.
pub(super) fn run(command: Command, caller: &Caller, size_max: u64) -> Outcome {
    match command {
        Command::List { who, folder, max, before } => {
            let request =
                Request::MailList { person: who.name(caller)?, folder: folder.clone(), max, before };
            caller.show(&request, |lines: &Vec<Line>| show::folder(lines, &folder))
        }
        Command::Read { message, who, raw, output } => read(caller, message, who, raw, output.as_deref()),
        Command::Save(command) => save(caller, command),
        Command::Send(command) => send(caller, *command, size_max),
        Command::Reply(Reply { message, who, all, list, quote, files, text }) => {
            let packed = packed(&files, None, text, size_max)?;
            let about = Some(About::Reply { message, all, list });
            dispatch(caller, who, packed, Written { about, ..Written::default() }, quote)
        }
        Command::Forward(command) => {
            let Forward { message, who, to, cc, as_attachment, without, files, text } = *command;
            let packed = packed(&files, None, text, size_max)?;
            let about = Some(About::Forward { message, as_attachment, without });
            dispatch(caller, who, packed, Written { to, cc, about, ..Written::default() }, false)
        }
        Command::Return(Return { message, who, to, subject, without, text }) => {
            let packed = packed(&[], None, text, size_max)?;
            let (about, subject) = (Some(About::Return { message, without }), subject.unwrap_or_default());
            dispatch(caller, who, packed, Written { to, subject, about, ..Written::default() }, false)
        }
        Command::Draft(command) => draft::run(command, caller, size_max),
        Command::Search { words, who, folder, max } => {
            search(caller, who.name(caller)?, words.join(" "), folder, max)
        }
        Command::Thread { message, who } => caller
            .show(&Request::MailThread { person: who.name(caller)?, message }, |lines: &Vec<Line>| {
                show::thread(lines)
            }),
        Command::Folder(command) => {
            let request = match command {
                FolderCommand::Add { name, who } => Request::FolderAdd { person: who.name(caller)?, name },
                FolderCommand::List { who } => Request::MailFolders { person: who.name(caller)? },
                FolderCommand::Rename { name, to, who } => {
                    Request::FolderRename { person: who.name(caller)?, name, to }
                }
                FolderCommand::Remove { name, who } => {
                    Request::FolderRemove { person: who.name(caller)?, name }
                }
            };
            caller.show(&request, |folders: &Vec<FolderView>| show::folders(folders))
        }
        Command::Move { message, folder, who } => {
            let request = Request::MailMove { person: who.name(caller)?, message, folder };
            caller.show(&request, |moved: &Moved| format!("{} is in {}\n", moved.id, moved.folder))
        }
        Command::Mark { message, who, unread } => {
            let request = Request::MailMark { person: who.name(caller)?, message, read: !unread };
            caller.show(&request, |marked: &Marked| {
                format!("{} is marked {}\n", marked.id, if marked.read { "read" } else { "unread" })
            })
        }
        Command::Watch { who, seen } => {
            let request = Request::MailWatch { person: who.name(caller)?, seen };
            caller.show(&request, |watched: &Watched| format!("{}\n", watched.mark))
        }
        Command::Amend(command) => revise::amend(caller, *command, size_max),
        Command::History { message, who } => revise::history(caller, message, who),
        Command::Delete { message, who } => caller
            .show(&Request::MailDelete { person: who.name(caller)?, message }, |deleted: &Deleted| {
                show::deleted(deleted)
            }),
        Command::Status { message, who } => caller
            .show(&Request::MailStatus { person: who.name(caller)?, message }, |status: &Status| {
                show::status(status)
            }),
    }
}

fn read(caller: &Caller, message: String, who: Who, raw: bool, output: Option<&Path>) -> Outcome {
    let person = who.name(caller)?;
    let is_part = message.split_once('.').is_some_and(|(_, part)| part != "0");
    let raw = raw || output.is_some();
    let request = Request::MailRead { person: person.clone(), message: message.clone(), raw };
    let (reading, bytes): (Reading, _) = caller.ask(&request, b"")?;
    if let Some(file) = output {
        save_as(file, &bytes)?;
        let size = render::size(bytes.len() as u64);
        return caller.print(&reading, |_| format!("{size} in {}\n", file.display()));
    }
    if caller.json() || !(raw || is_part) {
        return caller.print(&reading, |reading| show::reading(reading, &person));
    }
    match io::stdout().is_terminal() {
        false => print_bytes(&bytes),
        true if is_part && !raw => {
            if reading.text.is_empty() && reading.parts.is_empty() {
                return Err(format!(
                    "this is not text: `big-node mail save {message} --as {person}` saves it"
                )
                .into());
            }
            caller.print(&reading, |reading| show::reading(reading, &person))
        }
        true => {
            let text = for_terminal(&bytes).ok_or("this is not plain text: add --output FILE to save it")?;
            print_bytes(text.as_bytes())
        }
    }
}

/// Looks further and further back, and prints what is found as it is found.
fn search(caller: &Caller, person: String, words: String, folder: Option<String>, max: usize) -> Outcome {
    let mut whole = Found::default();
    loop {
        let request = Request::MailSearch {
            person: person.clone(),
            words: words.clone(),
            folder: folder.clone(),
            max: max - whole.lines.len(),
            before: whole.behind.take(),
        };
        let (found, _): (Found, _) = caller.ask(&request, b"")?;
        if !caller.json() && !found.lines.is_empty() {
            caller.print(&found.lines, |lines| show::found(lines, whole.lines.is_empty()))?;
        }
        whole.extend(found);
        if whole.behind.is_none() || whole.lines.len() >= max {
            return caller.print(&whole, show::looked);
        }
    }
}

/// The bytes as a text that does a terminal no harm, if they are a text.
pub(super) fn for_terminal(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?;
    let is_plain = !text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n'));
    is_plain.then(|| terminal::safe(text))
}

/// Takes the message as it is stored and takes it apart here: this process, which may do what its person
/// may do, is the one that writes files.
fn save(caller: &Caller, command: Save) -> Outcome {
    let Save { message, who, mut parts, all, to } = command;
    let person = who.name(caller)?;
    let folder = save::Folder::open(&to)?;
    let (id, path) = message.split_once('.').unwrap_or((&message, "0"));
    let path: PartPath = path.parse().map_err(|error| format!("{message}: {error}"))?;
    let request = Request::MailRead { person: person.clone(), message: id.to_owned(), raw: true };
    let (reading, content): (Reading, _) = caller.ask(&request, b"")?;
    let within = match path.is_whole() {
        true => reading.parts.clone(),
        false => crate::part::within(&path.open(&content, &reading.parts).ok_or_else(|| no_part(id, &path))?),
    };
    if all {
        parts = within.iter().map(|part| part.number.into()).collect();
    }
    let parts: Vec<PartPath> = match within.as_slice() {
        _ if all || !parts.is_empty() => parts.iter().map(|part| path.join(part)).collect(),
        _ if !path.is_whole() => vec![path],
        [_, _, ..] => {
            let text = format!("it has {} attachments: choose with --part N, or --all", within.len());
            return Err(text.into());
        }
        few => few.iter().map(|part| part.number.into()).collect(),
    };
    if parts.is_empty() {
        let why = reading
            .unparsed
            .map_or_else(|| "it has no attachments".into(), |why| format!("its attachments are {why}"));
        return Err(format!(
            "{why}; `big-node mail read {message} --as {person} --output FILE` saves it whole"
        )
        .into());
    }
    let (mut saved, whole) = (Vec::new(), crate::part::Apart::of(&content, &reading.parts));
    let outcome = parts.iter().try_for_each(|part| {
        let opened = whole.open(part).ok_or_else(|| no_part(id, part))?;
        let name = mime::file_name(opened.part.name.as_deref(), &opened.part.content_type, &part.to_string());
        let path = folder.save(&name, &opened.octets)?;
        saved.push(Saved {
            part: part.to_string(),
            path: path.display().to_string(),
            bytes: opened.octets.len() as u64,
            content_type: opened.part.content_type,
        });
        Ok::<_, String>(())
    });
    if !saved.is_empty() {
        caller.print(&saved, |saved| show::saved(saved))?;
    }
    Ok(outcome?)
}

fn no_part(id: &str, part: &PartPath) -> String {
    format!("message {id} has no attachment {part}; `big-node mail read {id}` lists those it has")
}

fn send(caller: &Caller, command: Send, size_max: u64) -> Outcome {
    let Send { who, to, cc, subject, files, report: given, notify, returns, text } = command;
    let packed = packed(&files, Some(given), text, size_max)?;
    let written = Written { to, cc, subject, notify, returns, ..Written::default() };
    dispatch(caller, who, packed, written, false)
}

/// Sends what is written with what was packed for it.
fn dispatch(caller: &Caller, who: Who, packed: Packed, written: Written, quote: bool) -> Outcome {
    let Packed { body, text_bytes, attachments } = packed;
    let written = Written { attachments, text_bytes, ..written };
    let request = Request::MailSend { person: who.name(caller)?, written, quote };
    let (sent, _): (Sent, _) = caller.ask(&request, &body)?;
    caller.print(&sent, show::sent)
}

/// A text and attachments, as the body of a request holds them.
pub(super) struct Packed {
    pub(super) body: Vec<u8>,
    pub(super) text_bytes: usize,
    pub(super) attachments: Vec<Attached>,
}

pub(super) fn packed(
    files: &[PathBuf],
    given: Option<Report>,
    text: Option<String>,
    size_max: u64,
) -> Result<Packed, Box<dyn Error>> {
    // Files first: a name mistyped is said before a text is typed.
    let mut contents = Vec::new();
    for file in files {
        let (name, content) = attachment(file, size_max)?;
        contents.push((name, content, false));
    }
    if let Some(given) = given {
        contents.extend(report(given, size_max)?);
    }
    let mut body = text_or_stdin(text, size_max)?.into_bytes();
    let text_bytes = body.len();
    let mut attachments = Vec::new();
    for (name, content, text) in contents {
        attachments.push(Attached { name, bytes: content.len(), text });
        body.extend(content);
    }
    Ok(Packed { body, text_bytes, attachments })
}

pub(super) fn attachment(path: &Path, size_max: u64) -> Result<(String, Vec<u8>), String> {
    let content = File::open(path).and_then(|file| read_at_most(file, size_max));
    let content = content.map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((name, content))
}

/// The report, if one is sent: its name, its content, and whether that is text.
fn report(report: Report, size_max: u64) -> Result<Option<(String, Vec<u8>, bool)>, String> {
    let Report { file: Some(file), ebcdic, record_length, name } = report else { return Ok(None) };
    let (own_name, content) = attachment(&file, size_max)?;
    let Some(page) = ebcdic else {
        let is_text = is_report_text(&content);
        return Ok(Some((name.unwrap_or(own_name), content, is_text)));
    };
    let text = page.text(&content, record_length.map(Into::into));
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    // A mainframe's name has no ending that says what it is.
    let name = name.unwrap_or_else(|| format!("{own_name}.txt"));
    Ok(Some((name, text.into_bytes(), true)))
}

/// Whether a report is text in UTF-8, which may have tabs and form feeds in it.
fn is_report_text(content: &[u8]) -> bool {
    let is_printed = |c: char| !c.is_control() || matches!(c, '\t' | '\r' | '\n' | '\u{c}');
    str::from_utf8(content).is_ok_and(|text| text.chars().all(is_printed))
}

pub(super) fn text_or_stdin(text: Option<String>, size_max: u64) -> Result<String, Box<dyn Error>> {
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
