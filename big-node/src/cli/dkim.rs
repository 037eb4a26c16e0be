//! `dkim …`: the keys that sign what leaves.

use clap::Subcommand;
use shared::command::{Caller, Outcome};
use shared::doctor::txt;
use shared::render::{Table, when, word};

use super::travel;
use crate::request::{Algorithm, DkimKeyView, DkimRemoved, NewDkimKey, Request};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key, and print the record that DNS is to have
    Keygen {
        /// A domain of the site; its first otherwise
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
        /// The key's name under the domain, never used again: a year, a number
        #[arg(long, value_name = "LABEL")]
        selector: String,
        /// `rsa` is known to every verifier; mail is signed with one key of each
        #[arg(long, value_enum, default_value = "rsa")]
        algorithm: Algorithm,
        /// When it begins to sign, and takes over from the key before: 2026-12-01 (UTC) or 2026-12-01T08:00:00Z.
        /// Otherwise a domain's first key signs at once, and another one from a day later on
        #[arg(long, value_name = "TIME", value_parser = travel::from)]
        from: Option<u64>,
    },
    /// All of them, and which sign
    List,
    /// Remove a key. Leave its record in DNS for 5 days after the last mail that it signed has reached the edge
    Remove {
        /// Its domain; the site's first otherwise
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
        /// Its selector
        #[arg(long, value_name = "LABEL")]
        selector: String,
    },
}

pub(super) fn run(caller: &Caller, command: Command) -> Outcome {
    match command {
        Command::Keygen { domain, selector, algorithm, from } => {
            let new = NewDkimKey { domain, selector, algorithm, signs_from: from };
            caller.show(&Request::DkimKeygen(new), made)
        }
        Command::List => caller.show(&Request::DkimList, |keys: &Vec<DkimKeyView>| list(keys)),
        Command::Remove { domain, selector } => {
            caller.show(&Request::DkimRemove { domain, selector }, removed)
        }
    }
}

fn removed(done: &DkimRemoved) -> String {
    let DkimRemoved { removed: DkimKeyView { selector, domain, .. }, signing, resumed } = done;
    let names: Vec<_> =
        signing.iter().map(|key| format!("{} ({})", key.selector, word(&key.algorithm))).collect();
    let now = match names.is_empty() {
        true => format!("mail of {domain} is signed by no key now"),
        false => format!("mail of {domain} is signed by {} now", names.join(" and ")),
    };
    let resumed = resumed.as_ref().map_or_else(String::new, |resumed| {
        format!("\n{resumed} had retired and signs again: see that its record is in DNS, or make a new key")
    });
    format!(
        "removed: {selector} of {domain}; leave its record in DNS until no mail that it signed is under way\n\
         {now}{resumed}\n"
    )
}

fn made(key: &DkimKeyView) -> String {
    format!(
        "made a key of {} that signs from {} UTC; add this record to its zone:\n\n{}\n",
        key.domain,
        when(key.signs_from),
        record(key)
    )
}

/// The record as a zone file has it.
pub(super) fn record(key: &DkimKeyView) -> String {
    txt(&key.record_name, &key.record)
}

fn list(keys: &[DkimKeyView]) -> String {
    let mut table =
        Table::new(["domain", "selector", "algorithm", "state", "signs from (UTC)", "made (UTC)"]);
    for key in keys {
        table.row([
            key.domain.clone(),
            key.selector.clone(),
            word(&key.algorithm),
            word(&key.state),
            when(key.signs_from),
            when(key.made_at),
        ]);
    }
    let records: String = keys.iter().map(|key| format!("{}\n", record(key))).collect();
    match keys.is_empty() {
        true => "mail is not signed: there is no key; `big-node dkim keygen` makes one\n".into(),
        false => format!("{table}\n{records}"),
    }
}
