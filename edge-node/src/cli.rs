//! edge-node's command line (design §11): what can be typed, and which request it becomes.
//!
//! `init`, `check`, `serve` and `verify` work on the node's files; everything else is asked of the
//! running node over its control socket, which decides.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;
use shared::address::Domain;
use shared::command::{self, Caller, Options, Outcome, explain};
use shared::operator;
use shared::render::{self, Table, when, word};
use shared::topology::{self, Topology};
use shared::trace;

use crate::doctor::Running;
use crate::request::{
    CertificateView, ClockView, DeadCommand, DeadLetterView, Done, Explained, HostView, Invited, LinkCommand,
    LinkView, LockedFor, LockedView, OutwardView, QueueFilter, QueuePage, Queued, Request, StrangersView,
    Which,
};
use crate::{doctor, serve};

/// The command's name.
const NODE: &str = "edge-node";
/// What is said of an empty queue.
const NOTHING_WAITS: &str = "nothing waits";

#[derive(Debug, Parser)]
#[command(name = NODE, version, about = "Sallypost's node in the DMZ: SMTP, delivery, secondary mailboxes")]
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
    /// Print a ticket for `big-node pair`, on standard output and nothing else there
    Invite,
    /// Check everything stored, while the node does not run
    Verify {
        /// Make the index anew from the segments first
        #[arg(long)]
        rebuild: bool,
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
    /// Take no more mail from other MTAs, so that this node can be emptied: port 25 answers 421 until `resume`; a restart
    /// changes nothing of that
    Drain,
    /// Take mail from other MTAs again
    Resume,
    /// What waits for delivery
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Networks that are locked out and accounts that are guarded, because too many logins have failed
    Logins {
        #[command(subcommand)]
        command: Option<LoginsCommand>,
    },
    /// What lists in DNS and greylisting have made of strangers since the node was started, and which networks are locked
    Strangers {
        #[command(subcommand)]
        command: Option<StrangersCommand>,
    },
    /// The link to big
    #[command(subcommand)]
    Link(Link),
    /// Show a message's way over this node, or find the messages whose way says something
    Trace(trace::Arguments),
    /// Look for what is wrong with addresses, DNS, certificate and clock, and print the records that mend it; exit 1 if
    /// something is wrong
    Doctor {
        /// A DKIM key that each domain has to have in DNS, by its selector; several may be named
        #[arg(long = "selector", value_name = "LABEL")]
        selectors: Vec<Domain>,
    },
    /// The certificate that is shown: who has made it, until when it is valid, and when the authority is asked again
    Certificate {
        #[command(subcommand)]
        command: Option<CertificateCommand>,
    },
    /// Show who serves a domain outside, and what each host has to prove before it gets mail (DANE, MTA-STS)
    Policy {
        /// The domain
        domain: String,
    },
    /// Show what a recipient would be answered on port 25, and by which rule
    Explain {
        /// The address
        address: String,
    },
}

#[derive(Debug, Subcommand)]
enum LoginsCommand {
    /// Forget the logins that have failed in a network or at an account
    Release {
        /// The network, an address in it, or the account
        what: String,
    },
}

#[derive(Debug, Subcommand)]
enum StrangersCommand {
    /// Let a network go that is locked, whether for unknown recipients or for failed logins
    Release {
        /// The network, or an address in it
        what: String,
    },
}

#[derive(Debug, Subcommand)]
enum CertificateCommand {
    /// Ask the authority now, or read the files again; it counts what it is asked, so not without need
    Renew,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Messages that wait, and who is still to get them
    List {
        /// Only what somebody in this domain waits for
        #[arg(long)]
        domain: Option<String>,
        /// Only what is held
        #[arg(long)]
        held: bool,
    },
    /// Make no attempts for those who wait now, until they are released; a restart changes nothing of that
    Hold(WhichArgs),
    /// Let those go on whom `hold` holds
    Release(WhichArgs),
    /// What was accepted here and big will never take, and why
    Dead {
        #[command(subcommand)]
        command: Option<DeadCommand>,
    },
    /// Attempt a message now, also one that may have left already; not one that `hold` holds
    Retry {
        /// Message id
        message: String,
    },
    /// Give up on those who wait for a message, or on one of them: the sender gets a report
    Cancel {
        /// Message id
        message: String,
        /// The address of the only one who is meant
        recipient: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct WhichArgs {
    /// Message id
    message: Option<String>,
    /// Those in this domain
    #[arg(long)]
    domain: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl From<WhichArgs> for Which {
    fn from(args: WhichArgs) -> Self {
        match (args.message, args.domain) {
            (Some(message), _) => Self::Message(message),
            (None, Some(domain)) => Self::Domain(domain),
            (None, None) => Self::All,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Link {
    /// The session, the lanes, and alarms
    Status,
    #[command(flatten)]
    Operator(LinkCommand),
}

/// Runs one command; `args` starts with the program's name.
pub fn cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    command::run(args, |Cli { options, command }| {
        let topology = Topology::read(&options.topology)?;
        run(command, &Caller::new(NODE, &topology.edge.state, None, &options), topology)
    })
}

fn run(command: Command, caller: &Caller, topology: Topology) -> Outcome {
    match command {
        Command::Init => init(caller, &topology),
        Command::Check => caller.print(&json!({ "valid": true }), |_| topology::figure(&topology)),
        Command::Serve => Ok(serve::run(topology)?),
        Command::Invite => invite(caller),
        Command::Verify { rebuild } => verify(caller, &topology, rebuild),
        Command::Drain => say(caller, &Request::Drain),
        Command::Resume => say(caller, &Request::Resume),
        Command::Queue(QueueCommand::List { domain, held }) => list(caller, domain, held),
        Command::Queue(QueueCommand::Hold(which)) => say(caller, &Request::QueueHold(which.into())),
        Command::Queue(QueueCommand::Release(which)) => say(caller, &Request::QueueRelease(which.into())),
        Command::Queue(QueueCommand::Cancel { message, recipient }) => {
            say(caller, &Request::QueueCancel { message, recipient })
        }
        Command::Backup { dir } => caller.back_up(&Request::Backup, &dir),
        Command::Restore { dir } => restore(caller, &topology, &dir),
        Command::Queue(QueueCommand::Dead { command: None | Some(DeadCommand::List) }) => caller
            .show(&Request::QueueDead(DeadCommand::List), |dead: &Vec<DeadLetterView>| {
                operator::show_dead(dead)
            }),
        Command::Queue(QueueCommand::Dead { command: Some(command) }) => caller
            .show(&Request::QueueDead(command.clone()), |dead: &DeadLetterView| {
                operator::show_one_dead(&command, dead)
            }),
        Command::Queue(QueueCommand::Retry { message }) => caller
            .show(&Request::QueueRetry { message }, |queued: &Queued| {
                show_queue(std::slice::from_ref(queued))
            }),
        Command::Logins { command: None } => {
            caller.show(&Request::Logins, |locked: &Vec<LockedView>| show_locked(locked))
        }
        Command::Logins { command: Some(LoginsCommand::Release { what }) } => {
            say(caller, &Request::LoginsRelease { what })
        }
        Command::Strangers { command: None } => {
            caller.show(&Request::Strangers, |strangers: &StrangersView| show_strangers(strangers))
        }
        Command::Strangers { command: Some(StrangersCommand::Release { what }) } => {
            say(caller, &Request::StrangersRelease { what })
        }
        Command::Link(Link::Status) => {
            caller.show(&Request::LinkStatus, |link: &LinkView| render::link(link))
        }
        Command::Link(Link::Operator(command)) => say(caller, &Request::Link(command)),
        Command::Trace(arguments) => arguments.run(caller, Request::Trace),
        Command::Doctor { selectors } => examine(caller, &topology, &selectors),
        Command::Certificate { command } => {
            let request = match command {
                None => Request::Certificate,
                Some(CertificateCommand::Renew) => Request::CertificateRenew,
            };
            caller.show(&request, |view: &CertificateView| show_certificate(&topology, view))
        }
        Command::Policy { domain } => {
            caller.show(&Request::Policy { domain }, |hosts: &Vec<HostView>| show_hosts(hosts))
        }
        Command::Explain { address } => caller.show(&Request::Explain { address }, show_explained),
    }
}

fn examine(caller: &Caller, topology: &Topology, selectors: &[Domain]) -> Outcome {
    // A node that does not run is a finding, too.
    let clock = caller.ask::<ClockView>(&Request::Clock, b"").map(|(clock, _)| clock.ahead_millis);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clock = clock.map_err(|error| error.to_string());
    let renewal = caller.ask::<CertificateView>(&Request::Certificate, b"").ok().map(|(view, _)| view);
    let outward = caller.ask::<OutwardView>(&Request::Outward, b"").ok().map(|(view, _)| view);
    let running = Running { clock, renewal, outward };
    let findings = runtime.block_on(doctor::examine(topology, selectors, running))?;
    caller.print(&findings, |findings| shared::doctor::text(findings))?;
    Ok(shared::doctor::outcome(&findings)?)
}

fn show_certificate(topology: &Topology, view: &CertificateView) -> String {
    let edge = &topology.edge;
    let mut text = render::line("name", edge.hostname.as_str());
    text += &render::line("made by", &view.source);
    if let (Some(from), Some(until)) = (view.valid_from, view.valid_until) {
        text += &render::line("valid", &format!("{} to {} UTC", when(from), when(until)));
    }
    if let Some(hash) = &view.key_hash {
        let record = format!("_{}._tcp.{}. IN TLSA 3 1 1 {hash}", edge.outbound.port, edge.hostname);
        text += &render::line("its key", &record);
    }
    text.extend(view.directory.as_deref().map(|url| render::line("authority", url)));
    let ends = if view.is_asking { ", and has not answered yet" } else { "" };
    text.extend(view.attempted_at.map(|at| render::line("asked last", &format!("{} UTC{ends}", when(at)))));
    text.extend(view.error.as_deref().map(|error| render::line("ERROR", error)));
    text.extend(view.next_attempt_at.map(|at| render::line("asked next", &format!("{} UTC", when(at)))));
    text
}

fn show_hosts(hosts: &[HostView]) -> String {
    let mut table = Table::new(["host", "addresses", "has to prove"]);
    for host in hosts {
        let asks = if host.usable { host.asks.clone() } else { format!("gets nothing: {}", host.asks) };
        table.row([host.name.clone(), host.addresses.join(", "), asks]);
    }
    table.or("no hosts")
}

/// Asks for something that is answered in a sentence.
fn say(caller: &Caller, request: &Request) -> Outcome {
    caller.show(request, |done: &Done| format!("{}\n", done.done))
}

fn list(caller: &Caller, domain: Option<String>, held: bool) -> Outcome {
    let mut next = Some(None);
    let page = || {
        let Some(after) = next.take() else { return Ok(None) };
        let filter = QueueFilter { domain: domain.clone(), held, after };
        let (page, _): (QueuePage, _) = caller.ask(&Request::QueueList(filter), b"")?;
        next = page.next.map(Some);
        Ok(Some(page.queue))
    };
    caller.show_pages(NOTHING_WAITS, page, show_queue)
}

fn init(caller: &Caller, topology: &Topology) -> Outcome {
    serve::init(topology)?;
    let state = topology.edge.state.display();
    caller.print(&json!({ "state": topology.edge.state }), |_| {
        format!("edge-node's state is in {state}; next: `edge-node serve`, then `edge-node invite`\n")
    })
}

fn restore(caller: &Caller, topology: &Topology, dir: &Path) -> Outcome {
    let held = serve::restore(topology, dir)?;
    let state = topology.edge.state.display();
    caller.print(&json!({ "state": topology.edge.state, "held": held }), |_| {
        format!(
            "edge-node's state is in {state}, from {}; next: `edge-node serve`. What waits for delivery is held \
             until big has said who has got it since.\n{}",
            dir.display(),
            operator::show_held(held)
        )
    })
}

fn invite(caller: &Caller) -> Outcome {
    let (invited, _): (Invited, _) = caller.ask(&Request::Invite, b"")?;
    caller.print(&invited, |invited| format!("{}\n", invited.ticket))?;
    let expiry = when(invited.expires_at.saturating_mul(1000));
    explain(&format!(
        "Give it to `big-node pair` on the node inside before {expiry} UTC. It is a secret and works once; \
         an earlier ticket is void now."
    ));
    Ok(())
}

fn verify(caller: &Caller, topology: &Topology, rebuild: bool) -> Outcome {
    let verdict = serve::verify(topology, rebuild)?;
    caller.print(&verdict, render::verdict)?;
    match verdict.damage.len() {
        0 => Ok(()),
        n => Err(format!("{n} damaged; `edge-node verify --rebuild` keeps what is whole").into()),
    }
}

fn show_explained(explained: &Explained) -> String {
    let Explained { address, answer, rule, why } = explained;
    let rule = format!("{rule}: {why}");
    render::line("address", address) + &render::line("answer", answer) + &render::line("rule", &rule)
}

fn show_locked(locked: &[LockedView]) -> String {
    let mut table = Table::new(["what", "state", "failed logins", "over in"]);
    for one in locked {
        let state = if one.is_network { "locked out" } else { "guarded" };
        table.row([one.what.clone(), state.into(), one.failures.to_string(), minutes(one.seconds_left)]);
    }
    table.or("nobody is locked out")
}

fn minutes(seconds: u64) -> String {
    format!("{} min", seconds.div_ceil(60))
}

fn show_strangers(StrangersView { lists, greylist, locked }: &StrangersView) -> String {
    let mut out = String::new();
    if !lists.is_empty() {
        let mut table = Table::new(["list", "says", "listed", "not listed", "no answer"]);
        for one in lists {
            let says = match (one.is_aside, one.allows) {
                (true, _) => "left aside: it has everybody",
                (false, true) => "allow",
                (false, false) => "block",
            };
            let counts = [one.listed, one.unlisted, one.unanswered].map(|count| count.to_string());
            let [listed, unlisted, unanswered] = counts;
            table.row([one.list.clone(), says.into(), listed, unlisted, unanswered]);
        }
        out += &table.to_string();
    }
    if let Some(greylist) = greylist {
        out += &render::line("told to wait", &greylist.told_to_wait.to_string());
        out += &render::line("came again", &greylist.returned.to_string());
        out += &render::line("known", &greylist.known.to_string());
        out += &render::line("remembered", &format!("{}, {} waiting", greylist.remembered, greylist.waiting));
    }
    if out.is_empty() {
        out += "nothing is asked of strangers\n";
    }
    let mut table = Table::new(["locked", "for", "count", "over in"]);
    for one in locked {
        let why = match one.why {
            LockedFor::UnknownRecipients => "unknown recipients",
            LockedFor::FailedLogins => "failed logins",
        };
        table.row([one.what.clone(), why.into(), one.count.to_string(), minutes(one.seconds_left)]);
    }
    out + &table.or("no network is locked")
}

/// Each message, and under it who is still to get it.
fn show_queue(queue: &[Queued]) -> String {
    let mut table = Table::new(["id", "queued (UTC)", "attempts", "next (UTC)", "size", "from"]);
    for message in queue {
        let from = if message.from.is_empty() { "<>" } else { &message.from };
        table.row([
            message.id.clone(),
            when(message.queued_at),
            message.attempts.to_string(),
            message.held.map_or_else(|| when(message.next_attempt_at), |held| word(&held)),
            render::size(message.size),
            from.to_owned(),
        ]);
        for recipient in &message.recipients {
            let held = recipient.held.map_or_else(String::new, |held| format!("{}, ", word(&held)));
            let said =
                format!("to {}: {held}{} {}", recipient.address, word(&recipient.state), recipient.text);
            let blank = String::new;
            table.row([blank(), blank(), blank(), blank(), blank(), format!("  {}", said.trim_end())]);
        }
    }
    table.or(NOTHING_WAITS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use shared::unit::DeliveryState;

    use super::*;
    use crate::request::{Held, LockedNetworkView, Waiting};

    const AT: u64 = 1_795_333_263_250;

    #[test]
    fn what_can_be_typed_and_what_cannot() {
        Cli::command().debug_assert();
        let parsed = |line: &str| Cli::try_parse_from([NODE].into_iter().chain(line.split_whitespace()));
        for line in [
            "init",
            "check",
            "serve --topology t.toml",
            "invite --json",
            "verify --rebuild",
            "queue list --json --topology t.toml",
            "queue list --domain remote.example --held",
            "queue hold ID",
            "queue hold --domain remote.example",
            "queue release --all",
            "queue cancel ID",
            "queue cancel ID carol@remote.example",
            "queue dead",
            "queue dead show ID",
            "queue dead retry ID",
            "queue dead drop ID",
            "backup DIR",
            "restore DIR",
            "link hold",
            "link release",
            "link resolve inter --as stored",
            "link resolve batch --as not-stored --yes",
            "link reset service --yes",
            "link adopt --yes",
            "queue retry ID",
            "link status",
            "logins",
            "logins release alice",
            "strangers --json",
            "strangers release 192.0.2.0/24",
            "certificate",
            "certificate renew --json",
            "doctor",
            "doctor --selector 2026a --selector 2026b --json",
            "trace ID",
            "explain alice@example.com --json",
        ] {
            assert!(parsed(line).is_ok(), "{line}");
        }
        for line in [
            "",
            "invite now",
            "queue",
            "queue hold",
            "queue hold ID --all",
            "queue release --all --domain remote.example",
            "queue cancel",
            "logins release",
            "strangers release",
            "strangers 192.0.2.0/24",
            "link resolve inter",
            "link reset",
            "backup",
            "trace",
            "explain",
            "doctor --selector a_b",
            "certificate now",
            "pair TICKET",
            "mail list",
        ] {
            assert_eq!(parsed(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn logins_show_who_is_locked_out() {
        let network =
            LockedView { what: "192.0.2.0/24".into(), is_network: true, failures: 20, seconds_left: 61 };
        let account = LockedView { what: "al\x1bice".into(), is_network: false, ..network.clone() };
        assert_eq!(
            show_locked(&[network, account]),
            "what          state       failed logins  over in\n\
             192.0.2.0/24  locked out  20             2 min\n\
             al␛ice        guarded     20             2 min\n"
        );
        assert_eq!(show_locked(&[]), "nobody is locked out\n");
    }

    #[test]
    fn strangers_show_which_networks_are_locked_and_for_how_long() {
        let (why, seconds_left) = (LockedFor::UnknownRecipients, 3_541);
        let named = LockedNetworkView { what: "192.0.2.0/24".into(), why, count: 50, seconds_left };
        let failed = LockedNetworkView {
            what: "2001:db8::/64".into(),
            why: LockedFor::FailedLogins,
            count: 20,
            seconds_left: 60,
        };
        let shown = |locked| show_strangers(&StrangersView { locked, ..StrangersView::default() });
        assert_eq!(
            shown(vec![named, failed]),
            "nothing is asked of strangers\n\
             locked         for                 count  over in\n\
             192.0.2.0/24   unknown recipients  50     60 min\n\
             2001:db8::/64  failed logins       20     1 min\n"
        );
        assert_eq!(shown(Vec::new()), "nothing is asked of strangers\nno network is locked\n");
    }

    #[test]
    fn a_queue_shows_who_waits_and_what_was_said() {
        let waiting = |text: &str| Waiting {
            address: "carol@elsewhere.example".into(),
            state: DeliveryState::Deferred,
            text: text.into(),
            held: None,
        };
        let message = Queued {
            id: "01KAN0Q5WJ8J1V9Z8G8Q4T7RXE".into(),
            from: "alice@example.com".into(),
            size: 2048,
            queued_at: AT,
            attempts: 2,
            next_attempt_at: AT + 60_000,
            held: None,
            recipients: vec![waiting("450 later"), waiting("\x1b[2J\r\nforged")],
        };
        let restored = Queued { held: Some(Held::Restored), recipients: vec![], ..message.clone() };
        let one = Waiting { held: Some(Held::Held), ..waiting("") };
        let held =
            Queued { held: Some(Held::Held), from: String::new(), recipients: vec![one], ..message.clone() };
        let blank = " ".repeat(83);
        assert_eq!(
            show_queue(&[message, restored, held]),
            format!(
                "id                          queued (UTC)      attempts  next (UTC)        size     from\n\
                 01KAN0Q5WJ8J1V9Z8G8Q4T7RXE  2026-11-22 07:41  2         2026-11-22 07:42  2.0 KiB  alice@example.com\n\
                 {blank}  to carol@elsewhere.example: deferred 450 later\n\
                 {blank}  to carol@elsewhere.example: deferred ␛[2J␍␊forged\n\
                 01KAN0Q5WJ8J1V9Z8G8Q4T7RXE  2026-11-22 07:41  2         restored          2.0 KiB  alice@example.com\n\
                 01KAN0Q5WJ8J1V9Z8G8Q4T7RXE  2026-11-22 07:41  2         held              2.0 KiB  <>\n\
                 {blank}  to carol@elsewhere.example: held, deferred\n"
            )
        );
        assert_eq!(show_queue(&[]), "nothing waits\n");
    }
}
