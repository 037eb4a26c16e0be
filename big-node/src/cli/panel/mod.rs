//! `desk`: a person's mail on a full screen, the descendant of a 3270 panel (design §10).
//!
//! It is one more client of the control socket: everything it does is a request that a command makes, too.
//! `model` is a state machine without I/O, of which `listing`, `reader`, `compose`, `book` and `pane` are the
//! screens; `keys` and `command` say what can be typed, `view` draws, `text` and `editor` make text fit for a
//! screen, `driver` owns the terminal and the threads, `outside` the files and the person's own editor.

mod book;
mod command;
mod compose;
mod driver;
mod editor;
mod keys;
mod listing;
mod model;
mod outside;
mod pane;
mod reader;
#[cfg(test)]
mod tests;
mod text;
mod view;

use std::env;
use std::io::{self, IsTerminal};

use shared::command::{Caller, Outcome};

use crate::request::{PersonView, Request};
use text::Repertoire;

/// What the terminal can do, as the environment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Terminal {
    repertoire: Repertoire,
    colour: bool,
}

/// Runs a person's desk until they end it; without a name, that of whose account this is. `size_max` is the
/// largest message that the site takes, in octets.
pub(super) fn run(caller: &Caller, person: Option<String>, size_max: u64) -> Outcome {
    let terminal = Terminal::of(|name| env::var(name).unwrap_or_default())?;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err("the desk needs a terminal; `big-node mail` is for scripts".into());
    }
    let person: PersonView = match person {
        Some(name) => caller.ask(&Request::PersonShow { name }, b"")?.0,
        None => caller.ask(&Request::Whoami, b"")?.0,
    };
    driver::run(caller, person, terminal, size_max)
}

impl Terminal {
    fn of(variable: impl Fn(&str) -> String) -> Result<Self, String> {
        let term = variable("TERM");
        if matches!(term.as_str(), "" | "dumb" | "unknown") {
            return Err(format!(
                "the desk needs a terminal that can place its cursor, and TERM is {}; `big-node mail` does \
                 without",
                if term.is_empty() { "not set" } else { &term }
            ));
        }
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(&variable);
        let locale = locale.iter().find(|locale| !locale.is_empty()).map_or("", String::as_str);
        let is_utf8 = ["UTF-8", "UTF8"].iter().any(|name| locale.to_uppercase().contains(name));
        let is_mono = term.starts_with("vt1") || term.starts_with("vt2") || term.ends_with("-m");
        Ok(Self {
            repertoire: if is_utf8 { Repertoire::Unicode } else { Repertoire::Ascii },
            colour: !is_mono && variable("NO_COLOR").is_empty(),
        })
    }
}
