//! `mail amend` and `mail history`: what its author makes of a message after it was sent.

use std::path::PathBuf;

use shared::command::{Caller, Outcome};
use shared::mime::terminal;
use shared::render::{line, when, word};
use shared::unit::ReviseMode;

use super::mail::{Who, attachment, text_or_stdin};
use super::show;
use crate::request::{Attached, Request, RevisionView, Status};

#[derive(Debug, clap::Args)]
pub(super) struct Amend {
    /// Message id
    message: String,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    mode: Mode,
    /// Only for this recipient: address or local name; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Another subject
    #[arg(long, conflicts_with = "withdraw")]
    subject: Option<String>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// Refuse if this is not the latest revision; 0 is the original
    #[arg(long, value_name = "N")]
    base: Option<u32>,
    /// File to attach: in the place of those there are, or with --append besides them
    #[arg(long = "attach", value_name = "FILE", conflicts_with = "withdraw")]
    files: Vec<PathBuf>,
    /// The new text, or what is added; from standard input otherwise
    #[arg(long, conflicts_with = "withdraw")]
    text: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Mode {
    /// A new text takes the place of the old one; this is what is done without any of the three
    #[arg(long)]
    replace: bool,
    /// The text is added to the old one
    #[arg(long)]
    append: bool,
    /// The message is taken back
    #[arg(long)]
    withdraw: bool,
}

/// Revises a message; `size_max` is the largest one that the site takes, in octets.
pub(super) fn amend(caller: &Caller, command: Amend, size_max: u64) -> Outcome {
    let Amend { message, who, mode, to, subject, reason, base, files, text } = command;
    let mode = match mode {
        Mode { withdraw: true, .. } => ReviseMode::Withdraw,
        Mode { append: true, .. } => ReviseMode::Append,
        Mode { .. } => ReviseMode::Replace,
    };
    let mut contents = Vec::new();
    for file in &files {
        contents.push(attachment(file, size_max)?);
    }
    let mut body = match mode {
        ReviseMode::Withdraw => Vec::new(),
        ReviseMode::Replace | ReviseMode::Append => text_or_stdin(text, size_max)?.into_bytes(),
    };
    let (text_bytes, mut attachments) = (body.len(), Vec::new());
    for (name, content) in contents {
        attachments.push(Attached { name, bytes: content.len(), text: false });
        body.extend(content);
    }
    let request = Request::MailAmend {
        person: who.name(caller)?,
        message,
        mode,
        recipients: to,
        subject,
        reason,
        base,
        text_bytes,
        attachments,
    };
    let (status, _): (Status, _) = caller.ask(&request, &body)?;
    caller.print(&status, show::status)
}

/// Shows the revisions of a message.
pub(super) fn history(caller: &Caller, message: String, who: Who) -> Outcome {
    let request = Request::MailHistory { person: who.name(caller)?, message };
    caller.show(&request, |history: &Vec<RevisionView>| shown(history))
}

/// The revisions, each with what sets it apart from the one before. What authors wrote comes behind a mark or in
/// a line's value.
pub(super) fn shown(history: &[RevisionView]) -> String {
    let revision = |revision: &RevisionView| {
        let mode = revision.mode.as_ref().map_or_else(|| "original".to_owned(), word);
        let mut text =
            line(&format!("Revision {}", revision.revision), &format!("{mode}, {} UTC", when(revision.at)));
        text += &line("By", &revision.author);
        text += &line("Subject", &revision.subject);
        if let Some(reason) = &revision.reason {
            text += &line("Reason", reason);
        }
        match revision.difference.is_empty() {
            true => text,
            false => format!("{text}\n{}\n", terminal::safe(&revision.difference).trim_end_matches('\n')),
        }
    };
    history.iter().map(revision).collect::<Vec<_>>().join("\n")
}
