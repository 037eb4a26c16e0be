//! Texts of ours on the screen: help, where copies are, revisions, travel.

use shared::mime::terminal;
use shared::render::{line, when, word};

use super::command;
use super::keys::{self, Place};
use super::text::Repertoire;
use crate::cli::show;
use crate::request::{RecipientView, RevisionView, Status, WindowView};

/// What a text is about, for it to be renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Nothing that changes.
    Fixed,
    /// Where the copies of a message are.
    Status(String),
    /// One's travel windows.
    Travel,
}

/// A text on the screen.
#[derive(Clone, Debug)]
pub(super) struct Pane {
    /// What it is.
    pub(super) title: String,
    /// What it is about.
    pub(super) about: About,
    text: String,
    /// Its lines for `columns`.
    pub(super) lines: Vec<String>,
    columns: usize,
    /// The first line on the screen.
    pub(super) top: usize,
}

impl Pane {
    /// With a text.
    pub(super) fn new(title: impl Into<String>, about: About, text: impl Into<String>) -> Self {
        Self { title: title.into(), about, text: text.into(), lines: Vec::new(), columns: 0, top: 0 }
    }

    /// Another text, at the same place.
    pub(super) fn renew(&mut self, text: String) {
        if self.text != text {
            self.text = text;
            self.columns = 0;
        }
    }

    /// Lays it out, unless that is done.
    pub(super) fn lay_out(&mut self, columns: usize, repertoire: Repertoire) {
        if self.columns != columns {
            self.lines = repertoire.wrapped(self.text.trim_end(), columns);
            self.columns = columns;
        }
    }

    /// Moves the screen of `rows`.
    pub(super) fn go(&mut self, top: usize, rows: usize) {
        self.top = top.min(self.lines.len().saturating_sub(rows));
    }
}

/// Keys of the screen that one came from, and all commands.
pub(super) fn help(place: Place) -> String {
    let keys = keys::help(place);
    let commands = command::help();
    format!(
        "KEYS HERE\n\n{keys}\nWhere mail is listed or read, a digit opens the attachment of that number.\n\n\
         COMMANDS (/ begins one, a beginning of the word will do, Tab completes names)\n\n{commands}\n\
         MARKS IN LISTS\n\n  N new   A answered   F forwarded   R revised by its author   X taken back   L late\n  S suspect: nobody vouches for its author\n"
    )
}

/// Where each recipient's copy is.
pub(super) fn status(status: &Status) -> String {
    let mut text = line("message", &status.id) + &line("subject", &status.subject);
    for recipient in &status.recipients {
        let mut address = recipient.address.clone();
        if let Some(via) = &recipient.via {
            address += &format!(" (by {via})");
        }
        if let Some(gateway) = &recipient.gateway {
            address = format!("/{gateway} {address}");
        }
        let state = format!("{}, {} UTC", word(&recipient.state), when(recipient.at));
        text += &format!("\n{}\n  {state}\n", terminal::safe_line(&address));
        // What a revision came to has a line of its own.
        let said = show::said(&RecipientView { revised: None, ..recipient.clone() });
        if !said.is_empty() {
            text += &format!("  {}\n", terminal::safe_line(&said));
        }
        if let Some(revised) = &recipient.revised {
            let (result, at) = (word(&revised.result), when(revised.at));
            let more = if revised.text.is_empty() { "" } else { ": " };
            let more = format!("{more}{}", terminal::safe_line(&revised.text));
            text += &format!("  revision {}: {result}, {at} UTC{more}\n", revised.revision);
        }
    }
    if status.recipients.is_empty() { text + "\nno recipients: it was not sent from here\n" } else { text }
}

/// The revisions of a message.
pub(super) fn history(revisions: &[RevisionView]) -> String {
    let mut text = String::new();
    for revision in revisions {
        let what = match &revision.mode {
            None => "the original".to_owned(),
            Some(mode) => word(mode),
        };
        let author = terminal::safe_line(&revision.author);
        text += &format!("REVISION {}: {what}, by {author}, {} UTC\n", revision.revision, when(revision.at));
        text += &line("subject", &revision.subject);
        if let Some(reason) = &revision.reason {
            text += &line("reason", reason);
        }
        // Each line of it begins with a sign or a blank, so none can pass for one of ours.
        text += &format!("\n{}\n\n", terminal::safe(&revision.difference).trim_end());
    }
    if text.is_empty() { "it has not been revised\n".into() } else { text }
}

/// A person's travel windows.
pub(super) fn travel(windows: &[WindowView], person: &str) -> String {
    let mut text = String::new();
    for window in windows.iter().filter(|window| window.person == person) {
        let until =
            window.until.map_or_else(|| "until it is ended".into(), |at| format!("until {} UTC", when(at)));
        text += &line("window", &window.id);
        text += &line("state", &format!("{}, {until}", word(&window.state)));
        text += &line("scope", &show::scope(window.scope));
        text += &line("after fetch", &word(&window.after_fetch));
        let counts = (window.filed, window.fetched, window.deleted);
        text += &line("copies", &format!("{} filed, {} fetched, {} deleted", counts.0, counts.1, counts.2));
        text.push('\n');
    }
    if text.is_empty() {
        text = "You do not travel.\n\n".into();
    }
    text + "A mailbox for the road is on the edge, for any mail client:\n\n\
            /TRAVEL START 2026-12-10          until that day; or STANDING, until it is ended\n\
            /TRAVEL START 2026-12-10 7d       with the mail of the last 7 days; or ALL\n\
            /TRAVEL START 2026-12-10 7d READ  what is deleted there is marked read here; with\n\
            \x20                                 DELETE it goes to Trash, with KEEP nothing happens\n\
            /TRAVEL END                       ends it; END REVOKE also refuses what was sent\n\
            \x20                                 through it and is not here yet\n"
}
