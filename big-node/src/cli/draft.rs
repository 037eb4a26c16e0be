//! `mail draft …`: messages being written.

use std::path::PathBuf;

use clap::Subcommand;
use shared::command::{Caller, Outcome};

use super::mail::{Packed, Who, packed};
use super::show;
use crate::record::Folder;
use crate::request::{About, DraftSaved, DraftView, Line, Request, Sent, Written};

/// Drafts that are listed: all there can be.
const LISTED_MAX: usize = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Save a draft, new or in the place of an earlier one; recipients may be missing or wrong still
    Save(Box<Save>),
    /// All drafts, newest first
    List {
        #[command(flatten)]
        who: Who,
    },
    /// A draft as it was typed
    Show {
        /// Message id
        draft: String,
        #[command(flatten)]
        who: Who,
    },
    /// Send a draft
    Send {
        /// Message id
        draft: String,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Save {
    #[command(flatten)]
    who: Who,
    /// The draft that this replaces
    #[arg(long, value_name = "ID")]
    draft: Option<String>,
    /// Its attachment N stays; may be given several times
    #[arg(long, value_name = "N", requires = "draft")]
    keep: Vec<u32>,
    /// Recipient, found out when it is sent
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Recipient, shown as Cc
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<String>,
    /// Subject
    #[arg(long, default_value = "")]
    subject: String,
    #[command(flatten)]
    about: AboutOptions,
    /// File to attach
    #[arg(long = "attach", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The text; from standard input otherwise
    #[arg(long)]
    text: Option<String>,
}

#[derive(Debug, clap::Args)]
struct AboutOptions {
    /// It answers this message
    #[arg(long, value_name = "ID", conflicts_with_all = ["forward", "back"])]
    reply: Option<String>,
    /// The answer goes to its other recipients, too
    #[arg(long, requires = "reply", conflicts_with = "list")]
    all: bool,
    /// The answer goes to the mailing list that it came by
    #[arg(long, requires = "reply")]
    list: bool,
    /// It sends this message on
    #[arg(long, value_name = "ID", conflicts_with = "back")]
    forward: Option<String>,
    /// Attached whole, as a message
    #[arg(long, requires = "forward")]
    as_attachment: bool,
    /// It is this message, its text changed; goes back without --to
    #[arg(long = "return", value_name = "ID")]
    back: Option<String>,
    /// Attachment N of that message does not go along; may be given several times
    #[arg(long, value_name = "N")]
    without: Vec<u32>,
}

impl AboutOptions {
    fn about(self) -> Option<About> {
        let Self { reply, all, list, forward, as_attachment, back, without } = self;
        match (reply, forward, back) {
            (Some(message), _, _) => Some(About::Reply { message, all, list }),
            (_, Some(message), _) => Some(About::Forward { message, as_attachment, without }),
            (_, _, Some(message)) => Some(About::Return { message, without }),
            (None, None, None) => None,
        }
    }
}

pub(super) fn run(command: Command, caller: &Caller, size_max: u64) -> Outcome {
    match command {
        Command::Save(command) => {
            let Save { who, draft, keep, to, cc, subject, about, files, text } = *command;
            let Packed { body, text_bytes, attachments } = packed(&files, None, text, size_max)?;
            let about = about.about();
            let written = Written { to, cc, subject, about, attachments, text_bytes, ..Written::default() };
            let request = Request::DraftSave { person: who.name(caller)?, draft, keep, written };
            let (saved, _): (DraftSaved, _) = caller.ask(&request, &body)?;
            caller.print(&saved, |saved| format!("saved as {}\n", saved.id))
        }
        Command::List { who } => {
            let folder = Folder::Drafts.fixed_name().unwrap_or_default().to_owned();
            let request = Request::MailList {
                person: who.name(caller)?,
                folder: folder.clone(),
                max: LISTED_MAX,
                before: None,
            };
            caller.show(&request, |lines: &Vec<Line>| show::folder(lines, &folder))
        }
        Command::Show { draft, who } => caller
            .show(&Request::DraftShow { person: who.name(caller)?, draft }, |draft: &DraftView| {
                show::draft(draft)
            }),
        Command::Send { draft, who } => caller
            .show(&Request::DraftSend { person: who.name(caller)?, draft }, |sent: &Sent| show::sent(sent)),
    }
}
