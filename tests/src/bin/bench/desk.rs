//! The desk: how soon a sender sees what a remote host has answered and what a revision has come to, and how long its
//! requests take where a folder is long.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use big_node::harness::Big;
use big_node::request::{
    FolderView, Found, Line, Reading, RecipientView, Request, Sent, Status, Watched, Written,
};
use serde::de::DeserializeOwned;
use shared::state::State;
use shared::topology::Topology;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};
use tests::ask;
use tests::internet::rules::{Rule, Stage};
use tests::messages::SHORT;
use tests::process::Node;
use tests::site::{INSIDE, OUTSIDE, Site};

use crate::Failure;
use crate::load::message;
use crate::took::Took;

/// How long a message may take to a host that takes it at once.
const WITHIN: Duration = Duration::from_secs(30);
/// Lines that the desk asks for at once.
const PAGE: usize = 100;
/// Times that each request is made; a search, which reads everything, less often.
const TIMES: usize = 200;
/// Revisions of one message; there are 64 at most.
const REVISIONS: usize = 60;
const SEARCHES: usize = 5;

/// Sends `sends` messages out, one after the other; then lays `messages` into alice's In and looks at them.
pub async fn run(state: &Path, messages: u64, sends: usize) -> Result<(), Failure> {
    let mut site = Site::start(state, &["alice".to_owned(), "bob".to_owned()]).await?;
    println!("| {sends} messages out, ms | p50 | p99 | longest |\n|---|---|---|---|");
    let seen = answers_seen(&site, sends).await?;
    println!("{}", seen.row("the remote's answer until its sender has seen it"));
    let seen = decisions_seen(&site).await?;
    println!(
        "{}\n",
        seen.row(&format!("the edge's decision of a revision until its author has seen it, {REVISIONS}"))
    );

    site.nodes.stop(Node::Big).await?;
    let (folder, file) = (site.nodes.topology.big_state(), site.nodes.file.clone());
    let newest = tokio::task::spawn_blocking(move || fill(&folder, &file, messages)).await??;
    site.nodes.start_big().await?;
    println!("| a folder of {messages} messages, ms | p50 | p99 | longest |\n|---|---|---|---|");
    let list = |before| Request::MailList { person: person(), folder: "in".into(), max: PAGE, before };
    let mut took = Vec::new();
    for _ in 0..TIMES {
        took.push(timed::<Vec<Line>>(&site, list(None)).await?.0);
    }
    println!("{}", Took::of(took).row(&format!("open it: {PAGE} lines")));
    let (mut took, mut before) = (Vec::new(), None);
    for _ in 0..TIMES {
        let (time, lines) = timed::<Vec<Line>>(&site, list(before)).await?;
        took.push(time);
        before = lines.last().map(|line| line.id.clone());
    }
    println!("{}", Took::of(took).row(&format!("the next {PAGE} lines")));
    let mut took = Vec::new();
    for _ in 0..TIMES {
        took.push(timed::<Vec<FolderView>>(&site, Request::MailFolders { person: person() }).await?.0);
    }
    println!("{}", Took::of(took).row("all folders, with their counts"));
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let request = Request::MailRead { person: person(), message: newest.clone(), raw: false };
        took.push(timed::<Reading>(&site, request).await?.0);
    }
    println!("{}", Took::of(took).row("read a message"));
    let (mut took, mut first) = (Vec::new(), Vec::new());
    for _ in 0..SEARCHES {
        let (start, mut before) = (Instant::now(), None);
        loop {
            let is_first = before.is_none();
            let words = "a-word-that-nobody-wrote".into();
            let request = Request::MailSearch { person: person(), words, folder: None, max: PAGE, before };
            let (time, found) = timed::<Found>(&site, request).await?;
            if is_first {
                first.push(time);
            }
            before = found.behind;
            if before.is_none() {
                break;
            }
        }
        took.push(start.elapsed());
    }
    println!("{}", Took::of(first).row("search for a word that is nowhere: the first progress"));
    println!("{}", Took::of(took).row("the same: all of it"));
    Ok(())
}

fn person() -> String {
    "alice".to_owned()
}

async fn timed<A: DeserializeOwned + Send + 'static>(
    site: &Site,
    request: Request,
) -> Result<(Duration, A), Failure> {
    let start = Instant::now();
    let (answer, _) = ask::big::<A>(&site.big(), request, Vec::new()).await?;
    Ok((start.elapsed(), answer))
}

/// From the moment before the host's 250 until a desk has the state.
async fn answers_seen(site: &Site, sends: usize) -> Result<Took, Failure> {
    let mut took = Vec::with_capacity(sends);
    for number in 1..=sends {
        let id = send(site).await?;
        seen(site, &id, |to| to.state == DeliveryState::Relayed).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mail = site.mta.wait_for(number, WITHIN).await?;
        let answered = mail.last().map_or(now, |mail| Duration::from_millis(mail.at));
        took.push(now.saturating_sub(answered));
    }
    Ok(Took::of(took))
}

/// From the edge's decision of a revision of what waits there until a desk has the result.
async fn decisions_seen(site: &Site) -> Result<Took, Failure> {
    site.mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    let message = send(site).await?;
    seen(site, &message, |to| to.state == DeliveryState::Deferred).await?;
    let mut took = Vec::with_capacity(REVISIONS);
    for _ in 0..REVISIONS {
        let request = Request::MailAmend {
            person: person(),
            message: message.clone(),
            mode: ReviseMode::Replace,
            recipients: Vec::new(),
            subject: None,
            reason: None,
            base: None,
            text_bytes: 4,
            attachments: Vec::new(),
        };
        ask::big::<Status>(&site.big(), request, b"text".to_vec()).await?;
        let is_decided = |to: &RecipientView| {
            to.revised.as_ref().is_some_and(|revised| revised.result == ReviseResult::Replaced)
        };
        let status = seen(site, &message, is_decided).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let decided = status.recipients.iter().filter_map(|to| to.revised.as_ref());
        let decided = decided.map(|revised| Duration::from_millis(revised.at)).max().unwrap_or(now);
        took.push(now.saturating_sub(decided));
    }
    site.mta.clear_rules();
    Ok(Took::of(took))
}

/// Alice sends a message out; gives its id.
async fn send(site: &Site) -> Result<String, Failure> {
    let (to, subject) = (vec![format!("carol@{OUTSIDE}")], "status".into());
    let written = Written { to, subject, text_bytes: 4, ..Written::default() };
    let request = Request::MailSend { person: person(), written, quote: false };
    Ok(ask::big::<Sent>(&site.big(), request, b"text".to_vec()).await?.0.id)
}

/// Waits for change as the full-screen desk does, until the status of every recipient is as it should be.
async fn seen(site: &Site, id: &str, is_it: impl Fn(&RecipientView) -> bool) -> Result<Status, Failure> {
    let (since, mut mark) = (Instant::now(), None);
    loop {
        let request = Request::MailStatus { person: person(), message: id.to_owned() };
        let (_, status) = timed::<Status>(site, request).await?;
        if status.recipients.iter().all(&is_it) {
            return Ok(status);
        }
        if since.elapsed() > WITHIN {
            return Err(format!("after {WITHIN:?} {id} is not as it should be: {status:?}").into());
        }
        let request = Request::MailWatch { person: person(), seen: mark };
        mark = Some(timed::<Watched>(site, request).await?.1.mark);
    }
}

/// Mail in alice's In, put there while big does not run; returns the id of the newest.
fn fill(state: &Path, file: &Path, messages: u64) -> Result<String, Failure> {
    let state = State::open(state)?;
    let big = Big::new(state.store()?, &Topology::read(file)?, state.key32("sealing")?);
    let mut newest = None;
    for number in 0..messages {
        newest = Some(big.send("bob", &[&format!("alice@{INSIDE}")], &message(number, SHORT))?);
    }
    let newest = newest.ok_or("a folder has a message")?;
    Ok(shared::id::MessageId(newest).to_string())
}
