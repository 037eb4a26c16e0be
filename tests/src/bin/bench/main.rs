//! The bench: how fast the pair takes mail, files it, and what that costs.
//!
//! `cargo run --release --bin bench` runs both nodes as real processes on this machine, fsync before
//! every 250 as always, and measures with 4 KiB and 64 KiB messages:
//!
//! - **alone**: one message at a time, a new connection each; when its 250 came, and when it was filed;
//! - **accept**: edge alone, the link down, at 1, 10, 50 and 200 connections; then how fast the backlog
//!   leaves once big is back;
//! - **end to end**: until every message is in its mailbox, at the same numbers of connections.
//!
//! Each message has a connection of its own unless `--per-connection` says otherwise, and its commands
//! are pipelined (RFC 2920). Generator and nodes share the machine, so the generator's CPU is told
//! too. Messages count as filed when big has applied their units (see [`tests::ask::filed`]). The
//! result is a Markdown table.
//!
//! `bench directory` measures the directory instead: how long a new edge takes to know 50,000 persons, how
//! soon each of 10,000 changes counts at its RCPT, and what comparing costs.
//!
//! `bench desk` measures how soon a sender sees what became of a message, and a long folder.
//!
//! `bench travel` measures how soon a travel window is live at the edge, and over, and how fast it is filled.
//!
//! `bench pop3` measures collecting: a large maildrop, many sessions at once, and what an idle one costs; beside
//! another server if there is one (`tests/bench/pop3-beside-dovecot.sh`).
//!
//! `bench connections` holds thousands of idle connections open, and measures what they cost and whether mail of a known
//! peer, POP3 and the link go on meanwhile; `bench hostile` does so of clients that trickle, and of floods of connections.
//! Both fail if fewer of them are there than are asked for, or the edge needs more memory than it may.
//!
//! `bench queue` starts an edge with a million messages in its queue and lists them, and fails if that takes more memory
//! than it may.
//!
//! `bench compression` measures what compressing saves and costs, by kind of body and level.
//!
//! `bench flights` counts for how many round trips the delivering client waits for each message.
//!
//! `bench count` and `bench send` are for a bench from outside: one keeps the number of messages filed in a file, the
//! other sends from a desk.

mod compression;
mod connections;
mod desk;
mod directory;
mod flights;
mod hostile;
mod load;
mod machine;
mod measure;
mod pop3;
mod queue;
mod send;
mod table;
mod took;
mod travel;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tests::ask;
use tests::process::dispatch;
use tests::site::Site;

use crate::measure::Bench;

/// People whose mailboxes the mail is spread over.
pub const PEOPLE: usize = 50;

/// Measures the pair on this machine.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    /// Connections at once
    #[arg(long, value_delimiter = ',', default_value = "1,10,50,200", value_name = "N,…")]
    connections: Vec<usize>,
    /// Octets of a message
    #[arg(long, value_delimiter = ',', default_value = "4096,65536", value_name = "N,…")]
    sizes: Vec<usize>,
    /// What to measure
    #[arg(long, value_delimiter = ',', default_value = "alone,accept,end-to-end", value_name = "WHAT,…")]
    only: Vec<What>,
    /// How long each measurement sends
    #[arg(long, default_value_t = 5, value_name = "N")]
    seconds: u64,
    /// Messages over one connection before it is made anew
    #[arg(long, default_value_t = 1, value_name = "N")]
    per_connection: usize,
    /// Keep the state in this folder, on the disk to be measured; a temporary folder otherwise
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Alone,
    Accept,
    EndToEnd,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the directory: a new edge, changes, comparisons
    Directory {
        /// Persons that a new edge has to know
        #[arg(long, default_value_t = 50_000)]
        people: usize,
        /// Changes, one after the other
        #[arg(long, default_value_t = 10_000)]
        changes: usize,
    },
    /// Measure the desk: what became of a message is seen, and a long folder is worked with
    Desk {
        /// Messages in the folder
        #[arg(long, default_value_t = 50_000)]
        messages: u64,
        /// Messages that are sent out before, one after the other
        #[arg(long, default_value_t = 200)]
        sends: usize,
    },
    /// Measure travel windows: from the command to the login, to its refusal, and how fast they fill
    Travel {
        /// Windows, one after the other
        #[arg(long, default_value_t = 200)]
        trips: usize,
        /// Messages that lie at home, to be filled into another one
        #[arg(long, default_value_t = 3000)]
        messages: u64,
    },
    /// Measure what thousands of idle connections cost, and mail, POP3 and the link beside them
    Connections(connections::Options),
    /// Measure what a known peer, POP3 and the link notice of clients that trickle and of floods of connections
    Hostile(hostile::Options),
    /// Measure what compressing bodies saves and costs, and what it would with heads
    Compression(compression::Options),
    /// Measure how often the delivering client waits for a host that is far away
    Flights(flights::Options),
    /// Measure starting with a long queue, and listing it; exit 1 if the edge needs more memory than it may
    Queue(queue::Options),
    /// Measure collecting by POP3
    Pop3(pop3::Options),
    /// Keep the number of messages that a running big has filed in a file, as `{"count":N}`
    Count {
        /// Big's control socket
        #[arg(long)]
        control: PathBuf,
        /// The file
        #[arg(long)]
        into: PathBuf,
        /// Microseconds between two looks
        #[arg(long, default_value_t = 20_000)]
        every: u64,
    },
    /// Send from a desk of a running big to d000.test, d001.test …
    Send(send::Options),
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    // Of this program's edges the bench of POP3 takes logins in the clear, too.
    let edge = |arguments| {
        edge_node::harness::take_clear_logins();
        edge_node::cli(arguments)
    };
    if let Some(code) = dispatch(big_node::cli, edge) {
        return code;
    }
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::from);
    let done = runtime.and_then(|runtime| match &options.command {
        Some(Command::Count { control, into, every }) => {
            runtime.block_on(count(control, into, Duration::from_micros(*every)))
        }
        Some(Command::Directory { people, changes }) => {
            runtime.block_on(measure_directory((*people).max(1), (*changes).max(2)))
        }
        Some(Command::Desk { messages, sends }) => {
            runtime.block_on(measure_desk((*messages).max(1), (*sends).max(1)))
        }
        Some(Command::Travel { trips, messages }) => {
            runtime.block_on(measure_travel((*trips).max(1), *messages))
        }
        Some(Command::Connections(options)) => runtime.block_on(measure_connections(options)),
        Some(Command::Hostile(options)) => runtime.block_on(measure_hostile(options)),
        Some(Command::Pop3(options)) => runtime.block_on(measure_pop3(options)),
        Some(Command::Queue(options)) => runtime.block_on(measure_queue(options)),
        Some(Command::Compression(options)) => compression::run(options),
        Some(Command::Flights(options)) => runtime.block_on(flights::run(options)),
        Some(Command::Send(options)) => runtime.block_on(send::run(options)),
        None => runtime.block_on(run(&options)),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bench").tempdir()?;
    let state = options.state.as_deref().unwrap_or(folder.path());
    println!("{}\n", machine::describe(state));
    let people: Vec<String> =
        std::iter::once("alice".to_owned()).chain((1..PEOPLE).map(|n| format!("user{n:03}"))).collect();
    let site = Site::start(state, &people).await?;
    let seconds = Duration::from_secs(options.seconds);
    let mut bench = Bench::new(site, seconds, options.per_connection);

    if options.only.contains(&What::Alone) {
        println!("{}", table::ALONE);
        for &size in &options.sizes {
            println!("{}", bench.alone(size).await?);
        }
        println!();
    }
    let loads = options.sizes.iter().flat_map(|size| options.connections.iter().map(move |c| (*c, *size)));
    if options.only.contains(&What::Accept) {
        println!("{}", table::ACCEPT);
        for (connections, size) in loads.clone() {
            println!("{}", bench.accept(connections, size).await?);
        }
        println!();
    }
    if options.only.contains(&What::EndToEnd) {
        println!("{}", table::END_TO_END);
        for (connections, size) in loads {
            println!("{}", bench.end_to_end(connections, size).await?);
        }
    }
    Ok(())
}

async fn measure_directory(people: usize, changes: usize) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bench").tempdir()?;
    println!("{}\n", machine::describe(folder.path()));
    directory::run(folder.path(), people, changes).await
}

async fn measure_desk(messages: u64, sends: usize) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bench").tempdir()?;
    println!("{}\n", machine::describe(folder.path()));
    desk::run(folder.path(), messages, sends).await
}

async fn measure_travel(trips: usize, messages: u64) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bench").tempdir()?;
    println!("{}\n", machine::describe(folder.path()));
    travel::run(folder.path(), trips, messages).await
}

async fn measure_connections(options: &connections::Options) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bench").tempdir()?;
    println!("{}\n", machine::describe(folder.path()));
    connections::run(folder.path(), options).await
}

async fn measure_hostile(options: &hostile::Options) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bench").tempdir()?;
    println!("{}\n", machine::describe(folder.path()));
    hostile::run(folder.path(), options).await
}

async fn measure_queue(options: &queue::Options) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bench").tempdir()?;
    println!("{}\n", machine::describe(folder.path()));
    queue::run(folder.path(), options).await
}

async fn measure_pop3(options: &pop3::Options) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("bench").tempdir()?;
    println!("{}\n", machine::describe(folder.path()));
    pop3::run(folder.path(), options).await
}

/// Keeps the count until it is killed. Written in place and at one width, so that a reader never
/// sees half of it.
async fn count(control: &Path, into: &Path, every: Duration) -> Result<(), Failure> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(into)?;
    loop {
        // A big that is away has filed nothing more.
        if let Ok(link) = ask::big_link(control).await {
            file.write_all_at(format!("{{\"count\":{}}}{:20}\n", ask::filed(&link), "").as_bytes(), 0)?;
        }
        tokio::time::sleep(every).await;
    }
}
