//! POP3: one large maildrop, many at once, and what a session costs that does nothing; by itself, or beside
//! another server with the same messages.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use big_node::request::{Request, Started, Terms};
use clap::Args;
use tests::ask;
use tests::client::load::{Outgoing, Plan, drive};
use tests::client::pop3::Pop3Client;
use tests::proc::resident;
use tests::process::Node;
use tests::site::{INSIDE, OUTSIDE, Site};
use tests::wait::until;
use tokio::task::JoinSet;

use crate::Failure;
use crate::load::message;

/// Octets of a message.
const SIZE: usize = 4 * 1024;
/// Connections by which the maildrops are filled.
const FILLERS: usize = 20;
/// How long filling may take.
const FILLED_WITHIN: Duration = Duration::from_secs(600);
/// The account that owns mail at the other server: nobody.
const MAIL_OWNER: u32 = 65_534;

/// What is measured.
#[derive(Args)]
pub struct Options {
    /// Messages in the large maildrop
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    messages: u64,
    /// Sessions at once
    #[arg(long, default_value_t = 200, value_name = "N")]
    sessions: u64,
    /// Messages for each of them
    #[arg(long, default_value_t = 50, value_name = "N")]
    each: u64,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 3, value_name = "N")]
    repetitions: usize,
    /// Another server's addresses, with STLS or in the clear, and under TLS; its users are u0, u1, …
    #[arg(long, value_delimiter = ',', requires = "maildirs", value_name = "ADDRESS,ADDRESS")]
    beside: Vec<SocketAddr>,
    /// Where that server's users have their homes, each with a Maildir, which are filled here
    #[arg(long, value_name = "DIR")]
    maildirs: Option<PathBuf>,
    /// The password of them all
    #[arg(long, default_value = "secret", value_name = "TEXT")]
    password: String,
}

/// A server, and who has mail there: the first the large maildrop.
struct Server {
    name: &'static str,
    clear: SocketAddr,
    tls: SocketAddr,
    users: Vec<(String, String)>,
}

/// How a client logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// TLS from the first octet.
    Tls,
    /// By STLS.
    Upgrade,
    /// Without TLS.
    Clear,
}

const WAYS: [(&str, Way); 3] =
    [("995", Way::Tls), ("110 STLS", Way::Upgrade), ("110 in the clear", Way::Clear)];

/// One round's figures, by way.
struct Round {
    /// Login, STAT and UIDL of the large maildrop.
    opened: Duration,
    /// Messages a second from it.
    one: f64,
    /// Messages a second from many.
    many: f64,
}

/// Measures, and prints a table.
pub async fn run(folder: &Path, options: &Options) -> Result<(), Failure> {
    let (mut site, ours) = ours(folder, options).await?;
    let other = options.maildirs.as_deref().zip(options.beside.first().zip(options.beside.get(1)));
    let mut servers = vec![ours];
    if let Some((maildirs, (clear, tls))) = other {
        servers.push(theirs(maildirs, *clear, *tls, options)?);
    }
    println!("| | way | {} |", servers.iter().map(|server| server.name).collect::<Vec<_>>().join(" | "));
    println!("|---|---|{}", "---|".repeat(servers.len()));
    for (name, way) in WAYS {
        let mut rounds: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
        // Once before it counts, so that all pages are in memory.
        for repetition in 0..=options.repetitions {
            for (server, rounds) in servers.iter().zip(&mut rounds) {
                let round = measure(server, way, options).await?;
                if repetition > 0 {
                    rounds.push(round);
                }
            }
        }
        let row = |what: String, figure: fn(&Round) -> f64| {
            let cells: Vec<_> =
                rounds.iter().map(|rounds| cell(rounds.iter().map(figure).collect())).collect();
            println!("| {what} | {name} | {} |", cells.join(" | "));
        };
        let Options { messages, sessions, each, .. } = options;
        row(format!("login, STAT and UIDL of {messages}, ms"), |round| round.opened.as_secs_f64() * 1000.0);
        row(format!("RETR of {messages}, messages/s"), |round| round.one);
        row(format!("{sessions} sessions of {each} at once, messages/s"), |round| round.many);
    }
    println!("\n{}", idle(&mut site, &servers[0]).await?);
    Ok(())
}

/// A site of ours with full maildrops on the edge.
async fn ours(folder: &Path, options: &Options) -> Result<(Site, Server), Failure> {
    let names: Vec<String> = (0..=options.sessions).map(|number| format!("u{number}")).collect();
    let people: Vec<String> = std::iter::once("alice".to_owned()).chain(names.clone()).collect();
    let site = Site::start(folder, &people).await?;
    let mut users = Vec::new();
    for person in &names {
        let request = Request::TravelStart { person: person.clone(), terms: Terms::default() };
        let (started, _): (Started, _) = ask::big(&site.big(), request, Vec::new()).await?;
        users.push((started.user, started.password));
    }
    site.until_settled(FILLED_WITHIN).await?;
    let ready = site.nodes.edge_ready();
    let address = |addresses: &[SocketAddr]| addresses.first().copied().ok_or("every service listens");
    let (smtp, clear, tls) = (address(&ready.smtp)?, address(&ready.pop3)?, address(&ready.pop3s)?);
    let plan = Plan {
        to: smtp,
        connections: FILLERS,
        per_connection: 1_000,
        patience: Duration::from_secs(10),
        login: None,
    };
    let (large, each) = (options.messages, options.each);
    let total = large + options.sessions * each;
    let make = move |number: u64| {
        let user = if number < large { 0 } else { 1 + (number - large) / each };
        (number < total).then(|| Outgoing {
            from: format!("sender@{OUTSIDE}"),
            to: format!("u{user}@{INSIDE}"),
            data: message(number, SIZE),
        })
    };
    let report = drive(plan, make, |_, _| {}).await;
    if report.accepted != total {
        return Err(format!("{} of {total} messages were accepted", report.accepted).into());
    }
    site.until_settled(FILLED_WITHIN).await?;
    Ok((site, Server { name: "Sallypost", clear, tls, users }))
}

/// The other server with the same messages.
fn theirs(homes: &Path, clear: SocketAddr, tls: SocketAddr, options: &Options) -> Result<Server, Failure> {
    let mut number = 0;
    for user in 0..=options.sessions {
        let home = homes.join(format!("u{user}"));
        for part in ["", "Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"] {
            fs::create_dir_all(home.join(part))?;
            chown(home.join(part), Some(MAIL_OWNER), Some(MAIL_OWNER))?;
        }
        for _ in 0..if user == 0 { options.messages } else { options.each } {
            let content = message(number, SIZE);
            let name =
                format!("{}.M{number:09}P1.bench,S={1},W={1}:2,", 1_700_000_000 + number, content.len());
            let file = home.join("Maildir/cur").join(name);
            fs::write(&file, content)?;
            chown(&file, Some(MAIL_OWNER), Some(MAIL_OWNER))?;
            number += 1;
        }
    }
    let user = |number| (format!("u{number}"), options.password.clone());
    Ok(Server { name: "Dovecot", clear, tls, users: (0..=options.sessions).map(user).collect() })
}

async fn measure(server: &Server, way: Way, options: &Options) -> Result<Round, Failure> {
    let start = Instant::now();
    let mut session = session(server, 0, way).await?;
    let (count, _) = session.stat().await?;
    if count != options.messages {
        return Err(format!("{} has {count} of {} messages", server.name, options.messages).into());
    }
    session.command("UIDL").await?;
    session.skip_block().await?;
    let opened = start.elapsed();
    let start = Instant::now();
    fetch(&mut session, count).await?;
    let one = count as f64 / start.elapsed().as_secs_f64();
    session.quit().await?;

    let start = Instant::now();
    let mut sessions = JoinSet::new();
    for user in 1..server.users.len() {
        let (name, password) = server.users[user].clone();
        let (address, each) = (server.address(way), options.each);
        sessions.spawn(async move {
            let mut session = connect(address, way, &name, &password).await?;
            let (count, _) = session.stat().await?;
            fetch(&mut session, count).await?;
            session.quit().await?;
            if count == each { Ok(()) } else { Err(Failure::from(format!("{name} has {count} messages"))) }
        });
    }
    while let Some(done) = sessions.join_next().await {
        done??;
    }
    let many = (options.sessions * options.each) as f64 / start.elapsed().as_secs_f64();
    Ok(Round { opened, one, many })
}

impl Server {
    fn address(&self, way: Way) -> SocketAddr {
        match way {
            Way::Tls => self.tls,
            Way::Upgrade | Way::Clear => self.clear,
        }
    }
}

async fn session(server: &Server, user: usize, way: Way) -> Result<Pop3Client, Failure> {
    let (name, password) = server.users.get(user).ok_or("there is such a user")?;
    connect(server.address(way), way, name, password).await
}

async fn connect(address: SocketAddr, way: Way, user: &str, password: &str) -> Result<Pop3Client, Failure> {
    let mut session = match way {
        Way::Tls => Pop3Client::connect_tls(address).await?,
        Way::Upgrade | Way::Clear => Pop3Client::connect(address).await?,
    };
    if way == Way::Upgrade {
        session.start_tls().await?;
    }
    session.login(user, password).await?;
    Ok(session)
}

/// Fetches all messages, one after the other as clients do.
async fn fetch(session: &mut Pop3Client, count: u64) -> Result<(), Failure> {
    for number in 1..=count {
        session.command(&format!("RETR {number}")).await?;
        session.skip_block().await?;
    }
    Ok(())
}

/// What a session costs that is logged in and does nothing, at an edge that has done nothing else.
async fn idle(site: &mut Site, server: &Server) -> Result<String, Failure> {
    site.nodes.stop(Node::Edge).await?;
    site.nodes.start_edge().await?;
    session(server, 1, Way::Tls).await?.quit().await?;
    let edge = site.nodes.edge_ready().pid;
    let before = resident(edge)?;
    let mut sessions = Vec::new();
    for user in 1..server.users.len() {
        let open = until("a maildrop is free", FILLED_WITHIN, async || {
            Ok(session(server, user, Way::Tls).await.ok())
        });
        sessions.push(open.await?);
    }
    let each = resident(edge)?.saturating_sub(before) / sessions.len().max(1) as u64;
    Ok(format!("{} sessions under TLS that do nothing: {} KiB each.", sessions.len(), each / 1024))
}

/// Median, least and most.
fn cell(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let at = |place: usize| figures.get(place).copied().unwrap_or_default();
    format!("{:.1} ({:.1}-{:.1})", at(figures.len() / 2), at(0), at(figures.len().saturating_sub(1)))
}
