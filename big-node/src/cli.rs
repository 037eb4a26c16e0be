//! big-node's command line (design §11): what can be typed, and which request it becomes.
//!
//! `init`, `check`, `serve` and `verify` work on the node's files; everything else is asked of the
//! running node over its control socket, or over that for everybody, and it decides. Nothing is decided here. `directory`, `mail`, `draft` and
//! `travel` hold the commands that take more than a request and an answer, `save` how a command writes
//! files, `account` how Unix accounts are typed, `show` what answers look like.

mod account;
mod directory;
mod dkim;
mod doctor;
mod draft;
mod gateway;
mod mail;
mod panel;
mod revise;
mod save;
mod settings;
mod show;
#[cfg(test)]
mod tests;
mod travel;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;
use shared::command::{self, Caller, Options, Outcome};
use shared::operator;
use shared::render;
use shared::topology::{self, Topology};
use shared::trace;

use crate::request::{
    AggregateView, Compared, DeadCommand, DeadLetterView, Done, Explanation, LinkCommand, LinkView, Paired,
    Queue, Request,
};
use crate::serve;

/// The command's name.
const NODE: &str = "big-node";
/// Octets of a ticket on standard input; a ticket is some 200.
const TICKET_MAX: u64 = 4096;

#[derive(Debug, Parser)]
#[command(name = NODE, version, about = "Sallypost's node inside: mailboxes, directory, desk")]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this node's state: an empty store, and the keys that are not there yet
    Init,
    /// Validate the topology file and draw the pair
    Check,
    /// Run the node until it is told to end
    Serve,
    /// Take the ticket that `edge-node invite` printed
    Pair {
        /// The ticket, or `-` to read it from standard input
        ticket: String,
        /// In the place of the edge that is paired already: it is gone, or has new keys
        #[arg(long)]
        replace: bool,
    },
    /// Copy keys and store to a new folder, while the node runs; keep it as safe as the node
    Backup {
        /// The folder to make
        dir: PathBuf,
    },
    /// Make this node's state from a backup, where there is none; the other node makes up for what is missing
    Restore {
        /// The backup
        dir: PathBuf,
    },
    /// Check everything stored, while the node does not run
    Verify {
        /// Make the index anew from the segments first
        #[arg(long)]
        rebuild: bool,
    },
    /// People and their addresses
    #[command(subcommand)]
    Person(directory::PersonCommand),
    /// Local names for people outside
    #[command(subcommand)]
    Shadow(directory::ShadowCommand),
    /// Names for several
    #[command(subcommand)]
    Group(directory::GroupCommand),
    /// A person's own names for others
    #[command(subcommand)]
    Nickname(directory::NicknameCommand),
    /// Mail systems inside to which mail is handed
    #[command(subcommand)]
    Gateway(gateway::Command),
    /// What would happen to mail for an address, and by which rule; nothing is sent
    Explain {
        /// As it would be typed: a name, an address, `/GATEWAY address`
        address: String,
        /// Who would type it, for their nicknames
        #[arg(long = "as", value_name = "PERSON")]
        person: Option<String>,
    },
    /// Read and write mail
    #[command(subcommand)]
    Mail(mail::Command),
    /// Read and write mail on a full screen
    Desk {
        /// Whose desk; without it, that of the person whose account this is
        #[arg(long = "as", value_name = "PERSON", env = "SALLYPOST_AS")]
        person: Option<String>,
    },
    /// Secondary mailboxes for people on the road
    #[command(subcommand)]
    Travel(travel::Command),
    /// Keys that sign what leaves
    #[command(subcommand)]
    Dkim(dkim::Command),
    /// What other domains were told of themselves in 30 days: of their hosts (TLS), of mail in their name (DMARC)
    Reports,
    /// Look for what is wrong with the link, the postmaster and the signing keys; exit 1 if something is wrong
    Doctor,
    /// What waits on this node
    #[command(subcommand)]
    Queue(QueueCommand),
    /// The link to the edge
    #[command(subcommand)]
    Link(Link),
    /// Show a message's way, or find the messages whose way says something
    Trace(trace::Arguments),
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Messages that are not at their end, and units the edge has not confirmed
    List,
    /// Try a message again at once that waits for an inside gateway, or is held
    Retry {
        /// Message id
        message: String,
    },
    /// Send a message that waits for an address outside to another one; exit 1 if it has left, or may have
    Redirect {
        /// Message id
        message: String,
        /// The address that it waits for
        #[arg(value_name = "OLD-ADDRESS")]
        from: String,
        /// The address outside that gets it instead
        #[arg(value_name = "NEW-ADDRESS")]
        to: String,
    },
    /// What the edge will never take, and why
    Dead {
        #[command(subcommand)]
        command: Option<DeadCommand>,
    },
}

#[derive(Debug, Subcommand)]
enum Link {
    /// The session, the lanes, and alarms
    Status,
    /// Compare what both nodes hold; exit 1 if it differs
    Verify {
        /// Of messages: origins, recipients who wait, copies in travel windows. The directory is compared each
        /// minute, see `link status`
        #[arg(long, required = true)]
        meta: bool,
    },
    #[command(flatten)]
    Operator(LinkCommand),
}

/// Runs one command; `args` starts with the program's name.
pub fn cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    command::run(args, |Cli { options, command }| {
        let topology = Topology::read(&options.topology)?;
        let desk = topology.big.desk.as_deref();
        run(command, &Caller::new(NODE, &topology.big.state, desk, &options), topology)
    })
}

fn run(command: Command, caller: &Caller, topology: Topology) -> Outcome {
    match command {
        Command::Init => init(caller, &topology),
        Command::Check => caller.print(&json!({ "valid": true }), |_| topology::figure(&topology)),
        Command::Serve => Ok(serve::run(topology)?),
        Command::Pair { ticket, replace } => pair(caller, ticket, replace),
        Command::Backup { dir } => caller.back_up(&Request::Backup, &dir),
        Command::Restore { dir } => restore(caller, &topology, &dir),
        Command::Verify { rebuild } => verify(caller, &topology, rebuild),
        Command::Person(command) => directory::person(caller, command),
        Command::Shadow(command) => directory::shadow(caller, command),
        Command::Group(command) => directory::group(caller, command),
        Command::Nickname(command) => directory::nickname(caller, command),
        Command::Gateway(command) => gateway::run(caller, command),
        Command::Explain { address, person } => caller
            .show(&Request::Explain { person, address }, |explanation: &Explanation| {
                show::explanation(explanation)
            }),
        Command::Mail(command) => mail::run(command, caller, topology.edge.size_max),
        Command::Desk { person } => panel::run(caller, person, topology.edge.size_max),
        Command::Travel(command) => travel::run(command, caller),
        Command::Dkim(command) => dkim::run(caller, command),
        Command::Reports => {
            caller.show(&Request::Reports, |reports: &Vec<AggregateView>| show::reports(reports))
        }
        Command::Doctor => doctor::run(caller, &topology),
        Command::Queue(QueueCommand::List) => {
            caller.show(&Request::QueueList, |queue: &Queue| show::queue(queue))
        }
        Command::Queue(QueueCommand::Retry { message }) => {
            caller.show(&Request::QueueRetry { message }, |done: &Done| format!("{}\n", done.done))
        }
        Command::Queue(QueueCommand::Redirect { message, from, to }) => caller
            .show(&Request::QueueRedirect { message, from, to }, |done: &Done| format!("{}\n", done.done)),
        Command::Queue(QueueCommand::Dead { command: None | Some(DeadCommand::List) }) => caller
            .show(&Request::QueueDead(DeadCommand::List), |dead: &Vec<DeadLetterView>| {
                operator::show_dead(dead)
            }),
        Command::Queue(QueueCommand::Dead { command: Some(command) }) => caller
            .show(&Request::QueueDead(command.clone()), |dead: &DeadLetterView| {
                operator::show_one_dead(&command, dead)
            }),
        Command::Link(Link::Status) => {
            caller.show(&Request::LinkStatus, |link: &LinkView| render::link(link))
        }
        Command::Link(Link::Verify { meta: _ }) => compare(caller),
        Command::Link(Link::Operator(command)) => {
            caller.show(&Request::Link(command), |done: &Done| format!("{}\n", done.done))
        }
        Command::Trace(arguments) => arguments.run(caller, Request::Trace),
    }
}

fn compare(caller: &Caller) -> Outcome {
    let (compared, _): (Compared, _) = caller.ask(&Request::LinkVerify, b"")?;
    caller.print(&compared, show::compared)?;
    match compared.differing {
        0 => Ok(()),
        n if compared.quiet => {
            let compared = compared.compared;
            Err(format!(
                "{n} of {compared} are not the same on both nodes; what the edge lacks is told again once `link hold`, \
                 `link adopt --yes`, `link release` are run there"
            )
            .into())
        }
        n => {
            Err(format!("{n} were not the same, and mail was under way all the time: ask again later").into())
        }
    }
}

fn init(caller: &Caller, topology: &Topology) -> Outcome {
    serve::init(topology)?;
    let state = topology.big.state.display();
    caller.print(&json!({ "state": topology.big.state }), |_| {
        format!("big-node's state is in {state}; next: `big-node serve`, then `big-node pair TICKET`\n")
    })
}

fn restore(caller: &Caller, topology: &Topology, dir: &Path) -> Outcome {
    let held = serve::restore(topology, dir)?;
    let state = topology.big.state.display();
    caller.print(&json!({ "state": topology.big.state, "held": held }), |_| {
        format!(
            "big-node's state is in {state}, from {}; next: `big-node serve`. What it has lost since the backup, \
             the edge sends again as far as its safety store reaches.\n{}",
            dir.display(),
            operator::show_held(held)
        )
    })
}

fn pair(caller: &Caller, mut ticket: String, replace: bool) -> Outcome {
    if ticket == "-" {
        ticket.clear();
        std::io::stdin().take(TICKET_MAX).read_to_string(&mut ticket)?;
    }
    let request = Request::Pair { ticket: ticket.trim().to_owned(), replace };
    caller.show(&request, |Paired { address, held }: &Paired| match held {
        true => format!("paired with the edge at {address}; {}\n", operator::HELD),
        false => format!("paired with the edge at {address}\n"),
    })
}

fn verify(caller: &Caller, topology: &Topology, rebuild: bool) -> Outcome {
    let verdict = serve::verify(topology, rebuild)?;
    caller.print(&verdict, render::verdict)?;
    match verdict.damage.len() {
        0 => Ok(()),
        n => Err(format!("{n} damaged; `big-node verify --rebuild` keeps what is whole").into()),
    }
}
