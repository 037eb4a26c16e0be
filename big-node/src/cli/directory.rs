//! `person …`, `shadow …`, `group …`, `nickname …`: the directory.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Duration;

use clap::Subcommand;
use shared::command::{Caller, Outcome, print_bytes};
use shared::topology::AttachmentMode;

use super::account::{Account, Accounts};
use super::mail::Who;
use super::show;
use crate::record::{Kind, Pop3};
use crate::request::{
    EntryRequest, GroupChange, GroupView, Imported, NewGroup, NewNickname, NewPerson, NewShadow,
    NicknameView, PersonChange, PersonView, Progress, Request, Rowed, ShadowChange, ShadowView,
};

/// Octets of a file to import.
const IMPORT_MAX: u64 = 64 * 1024 * 1024;
/// Between two looks at an import that runs.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Characters of the bar.
const BAR: u64 = 40;

#[derive(Debug, Subcommand)]
pub(super) enum PersonCommand {
    /// Add a person
    Add(Add),
    /// Change a person; what is not named stays
    Set(Set),
    /// Everyone
    List,
    /// One person
    Show(Name),
    /// Remove a person's name and addresses; the mail stays stored
    Remove(Name),
    /// Add everyone in a CSV file, or nobody
    Import(Table),
    /// Everyone as CSV
    Export,
}

#[derive(Debug, clap::Args)]
pub(super) struct Name {
    /// Name or address
    pub(super) name: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Table {
    /// The file; its first row names the columns, as `export` writes them
    file: PathBuf,
    /// Only say what is wrong with it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Local name: the part of the address before the @
    name: String,
    /// Name for From lines
    #[arg(long, default_value = "", hide_default_value = true)]
    display: String,
    /// One more address, in a domain of the site
    #[arg(long = "alias", value_name = "ADDRESS")]
    aliases: Vec<String>,
    /// Filing of attachments, break-apart or passthru; as the site does it otherwise
    #[arg(long = "attachments", value_name = "MODE")]
    filing: Option<AttachmentMode>,
    /// Their Unix account: its name or its number
    #[arg(long)]
    account: Option<Account>,
    /// Collecting on the road; with passthru, their mail is filed whole
    #[arg(long, value_enum, default_value = "yes")]
    pop3: Pop3,
    /// An address outside, or one that a gateway takes, to which their mail goes on
    #[arg(long = "forward", value_name = "ADDRESS")]
    forward: Vec<String>,
    /// Mail that goes on is filed here too
    #[arg(long)]
    keep_copy: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// Name or address
    name: String,
    /// Name for From lines
    #[arg(long)]
    display: Option<String>,
    /// One more address, in a domain of the site
    #[arg(long = "add-alias", value_name = "ADDRESS")]
    add_aliases: Vec<String>,
    /// An address that goes
    #[arg(long = "remove-alias", value_name = "ADDRESS")]
    remove_aliases: Vec<String>,
    /// Filing of attachments: break-apart, passthru, or site to follow the site
    #[arg(long = "attachments", value_name = "MODE")]
    filing: Option<Otherwise<AttachmentMode>>,
    /// Their Unix account: its name or its number, or none
    #[arg(long, value_name = "ACCOUNT|none")]
    account: Option<Otherwise<Account>>,
    /// Collecting on the road; with passthru, their mail is filed whole
    #[arg(long, value_enum)]
    pop3: Option<Pop3>,
    /// An address outside, or one that a gateway takes, to which mail goes on, in the place of those so far
    #[arg(long = "forward", value_name = "ADDRESS", conflicts_with = "no_forward")]
    forward: Vec<String>,
    /// Their mail goes on no more
    #[arg(long)]
    no_forward: bool,
    /// Whether mail that goes on is filed here too
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    keep_copy: Option<bool>,
}

/// A value, or the word that stands for none.
#[derive(Clone, Debug)]
struct Otherwise<T>(Option<T>);

impl FromStr for Otherwise<AttachmentMode> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "site" => Ok(Self(None)),
            mode => mode.parse().map(|mode| Self(Some(mode))).map_err(|error| format!("{error}, or `site`")),
        }
    }
}

impl FromStr for Otherwise<Account> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            account => account
                .parse()
                .map(|account| Self(Some(account)))
                .map_err(|error| format!("{error}, or `none`")),
        }
    }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("`yes` or `no`".into()),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ShadowCommand {
    /// Add a local name for somebody outside
    Add {
        /// Local name
        name: String,
        /// The address outside, or one that a gateway takes, to which mail goes on
        address: String,
        /// Name for To lines
        #[arg(long, default_value = "", hide_default_value = true)]
        display: String,
        /// One more address here
        #[arg(long = "alias", value_name = "ADDRESS")]
        aliases: Vec<String>,
    },
    /// Change one; what is not named stays
    Set {
        /// Name or address here
        name: String,
        /// The address outside
        #[arg(long)]
        address: Option<String>,
        /// Name for To lines
        #[arg(long)]
        display: Option<String>,
        /// One more address here
        #[arg(long = "add-alias", value_name = "ADDRESS")]
        add_aliases: Vec<String>,
        /// An address here that goes
        #[arg(long = "remove-alias", value_name = "ADDRESS")]
        remove_aliases: Vec<String>,
    },
    /// All of them
    List,
    /// One
    Show(Name),
    /// Remove one
    Remove(Name),
    /// Add all in a CSV file, or none
    Import(Table),
    /// All of them as CSV
    Export,
}

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Add a name for several
    Add {
        /// Local name
        name: String,
        /// A member: a name or an address here, or an address outside
        #[arg(long = "member", value_name = "MEMBER")]
        members: Vec<String>,
        /// Name for To lines
        #[arg(long, default_value = "", hide_default_value = true)]
        display: String,
        /// One more address
        #[arg(long = "alias", value_name = "ADDRESS")]
        aliases: Vec<String>,
    },
    /// Change one; what is not named stays
    Set {
        /// Name or address
        name: String,
        /// Who joins
        #[arg(long = "add-member", value_name = "MEMBER")]
        add_members: Vec<String>,
        /// Who leaves
        #[arg(long = "remove-member", value_name = "MEMBER")]
        remove_members: Vec<String>,
        /// Name for To lines
        #[arg(long)]
        display: Option<String>,
        /// One more address
        #[arg(long = "add-alias", value_name = "ADDRESS")]
        add_aliases: Vec<String>,
        /// An address that goes
        #[arg(long = "remove-alias", value_name = "ADDRESS")]
        remove_aliases: Vec<String>,
    },
    /// All of them
    List,
    /// One
    Show(Name),
    /// Remove one; its members stay
    Remove(Name),
    /// Add all in a CSV file, or none
    Import(Table),
    /// All of them as CSV
    Export,
}

#[derive(Debug, Subcommand)]
pub(super) enum NicknameCommand {
    /// Add a name of one's own for somebody
    Add {
        /// The nickname
        name: String,
        /// Whom it means: a name or an address here, or an address outside
        target: String,
        #[command(flatten)]
        who: Who,
    },
    /// Make it mean somebody else
    Set {
        /// The nickname
        name: String,
        /// Whom it means
        target: String,
        #[command(flatten)]
        who: Who,
    },
    /// All of them
    List {
        #[command(flatten)]
        who: Who,
    },
    /// One
    Show {
        /// The nickname
        name: String,
        #[command(flatten)]
        who: Who,
    },
    /// Remove one
    Remove {
        /// The nickname
        name: String,
        #[command(flatten)]
        who: Who,
    },
}

pub(super) fn person(caller: &Caller, command: PersonCommand) -> Outcome {
    let shown = |people: &[PersonView]| show::people(people, &Accounts::read());
    let one = |person: &PersonView| shown(std::slice::from_ref(person));
    match command {
        PersonCommand::Add(Add { name, display, aliases, filing, account, pop3, forward, keep_copy }) => {
            let uid = account.as_ref().map(Account::uid).transpose()?;
            let new = NewPerson { name, display, aliases, filing, uid, pop3, forward, keep_copy };
            caller.show(&Request::PersonAdd(new), one)
        }
        PersonCommand::Set(set) => {
            let change = PersonChange {
                name: set.name,
                display: set.display,
                add_aliases: set.add_aliases,
                remove_aliases: set.remove_aliases,
                filing: set.filing.map(|filing| filing.0),
                uid: match set.account {
                    Some(Otherwise(account)) => Some(account.as_ref().map(Account::uid).transpose()?),
                    None => None,
                },
                pop3: set.pop3,
                forward: (set.no_forward || !set.forward.is_empty()).then_some(set.forward),
                keep_copy: set.keep_copy,
            };
            caller.show(&Request::PersonSet(change), one)
        }
        PersonCommand::List => caller.show(&Request::PersonList, |people: &Vec<PersonView>| shown(people)),
        PersonCommand::Show(Name { name }) => caller.show(&Request::PersonShow { name }, one),
        PersonCommand::Remove(Name { name }) => caller
            .show(&Request::PersonRemove { name }, |person: &PersonView| {
                format!("{} is removed; the mail stays stored\n", person.name)
            }),
        PersonCommand::Import(table) => import(caller, Rowed::Entries(Kind::Person), table),
        PersonCommand::Export => export(caller, Kind::Person),
    }
}

pub(super) fn shadow(caller: &Caller, command: ShadowCommand) -> Outcome {
    let request = match command {
        ShadowCommand::Add { name, address, display, aliases } => {
            EntryRequest::Add(NewShadow { name, target: address, display, aliases })
        }
        ShadowCommand::Set { name, address, display, add_aliases, remove_aliases } => {
            EntryRequest::Set(ShadowChange { name, target: address, display, add_aliases, remove_aliases })
        }
        ShadowCommand::List => EntryRequest::List,
        ShadowCommand::Show(Name { name }) => EntryRequest::Show { name },
        ShadowCommand::Remove(Name { name }) => return removed(caller, &Request::Shadow(remove(name))),
        ShadowCommand::Import(table) => return import(caller, Rowed::Entries(Kind::Shadow), table),
        ShadowCommand::Export => return export(caller, Kind::Shadow),
    };
    caller.show(&Request::Shadow(request), |shadows: &Vec<ShadowView>| show::shadows(shadows))
}

pub(super) fn group(caller: &Caller, command: GroupCommand) -> Outcome {
    let request = match command {
        GroupCommand::Add { name, members, display, aliases } => {
            EntryRequest::Add(NewGroup { name, display, members, aliases })
        }
        GroupCommand::Set { name, add_members, remove_members, display, add_aliases, remove_aliases } => {
            EntryRequest::Set(GroupChange {
                name,
                display,
                add_members,
                remove_members,
                add_aliases,
                remove_aliases,
            })
        }
        GroupCommand::List => EntryRequest::List,
        GroupCommand::Show(Name { name }) => EntryRequest::Show { name },
        GroupCommand::Remove(Name { name }) => return removed(caller, &Request::Group(remove(name))),
        GroupCommand::Import(table) => return import(caller, Rowed::Entries(Kind::Group), table),
        GroupCommand::Export => return export(caller, Kind::Group),
    };
    caller.show(&Request::Group(request), |groups: &Vec<GroupView>| show::groups(groups))
}

pub(super) fn nickname(caller: &Caller, command: NicknameCommand) -> Outcome {
    let (who, request) = match command {
        NicknameCommand::Add { name, target, who } => (who, EntryRequest::Add(NewNickname { name, target })),
        NicknameCommand::Set { name, target, who } => (who, EntryRequest::Set(NewNickname { name, target })),
        NicknameCommand::List { who } => (who, EntryRequest::List),
        NicknameCommand::Show { name, who } => (who, EntryRequest::Show { name }),
        NicknameCommand::Remove { name, who } => {
            return removed(caller, &Request::Nickname { person: who.name(caller)?, request: remove(name) });
        }
    };
    let request = Request::Nickname { person: who.name(caller)?, request };
    caller.show(&request, |nicknames: &Vec<NicknameView>| show::nicknames(nicknames))
}

pub(super) fn remove<N, C>(name: String) -> EntryRequest<N, C> {
    EntryRequest::Remove { name }
}

pub(super) fn removed(caller: &Caller, request: &Request) -> Outcome {
    caller.show(request, |removed: &Vec<serde_json::Value>| {
        let names = removed.iter().filter_map(|entry| entry.get("name")?.as_str());
        format!("{} is removed\n", names.collect::<Vec<_>>().join(", "))
    })
}

fn export(caller: &Caller, kind: Kind) -> Outcome {
    let (_, table): (usize, _) = caller.ask(&Request::Export { kind }, b"")?;
    print_bytes(&table)
}

pub(super) fn import(caller: &Caller, of: Rowed, Table { file, dry_run }: Table) -> Outcome {
    let table = read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let request = Request::Import { of, dry_run };
    let (imported, _): (Imported, _) = match io::stderr().is_terminal() {
        true => with_progress(caller, || caller.ask(&request, &table))?,
        false => caller.ask(&request, &table)?,
    };
    caller.print(&imported, show::imported)?;
    match imported.bad.len() {
        0 => Ok(()),
        bad => Err(format!("{bad} of {} rows are wrong; nothing was changed", imported.rows).into()),
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut table = Vec::new();
    fs::File::open(file)?.take(IMPORT_MAX + 1).read_to_end(&mut table)?;
    match table.len() as u64 > IMPORT_MAX {
        true => Err(io::Error::other(format!("more than {IMPORT_MAX} octets; import it in parts"))),
        false => Ok(table),
    }
}

/// Draws how far the node is while `work` waits for it.
fn with_progress<T>(caller: &Caller, work: impl FnOnce() -> T) -> T {
    let (done, until_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = until_done.recv_timeout(PROGRESS_EVERY) {
                if let Ok((progress, _)) = caller.ask::<Progress>(&Request::ImportProgress, b"") {
                    draw(&bar(progress));
                }
            }
            // The line belongs to what comes next.
            draw(&" ".repeat(bar(Progress { done: 0, total: 1 }).len()));
            draw("");
        });
        let answer = work();
        drop(done);
        answer
    })
}

fn draw(line: &str) {
    // Who has closed standard error does not want to see it.
    let _ = write!(io::stderr(), "\r{line}");
    let _ = io::stderr().flush();
}

pub(super) fn bar(Progress { done, total }: Progress) -> String {
    let (done, total) = (done.min(total), total.max(1));
    let full = usize::try_from(done * BAR / total).unwrap_or_default();
    let empty = usize::try_from(BAR).unwrap_or_default() - full;
    format!("[{}{}] {:3} %", "#".repeat(full), " ".repeat(empty), done * 100 / total)
}
