//! The desk: how soon a sender sees what a remote host has answered, and how long its requests take where a folder
//! is long.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use big_node::harness::Big;
use big_node::request::{FolderView, Found, Line, Reading, Request, Sent, Status, Watched, Written};
use serde::de::DeserializeOwned;
use shared::state::State;
use shared::topology::Topology;
use shared::unit::DeliveryState;
use tests::ask;
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
const SEARCHES: usize = 5;

/// Sends `sends` messages out, one after the other; then lays `messages` into alice's In and looks at them.
pub async fn run(state: &Path, messages: u64, sends: usize) -> Result<(), Failure> {
    let mut site = Site::start(state, &["alice".to_owned(), "bob".to_owned()]).await?;
    println!("| {sends} messages out, ms | p50 | p99 | longest |\n|---|---|---|---|");
    let seen = answers_seen(&site, sends).await?;
    println!("{}\n", seen.row("the remote's answer until its sender has seen it"));

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

/// From the moment before the host's 250 until a desk, which waits for change as the full-screen one does, has the
/// state.
async fn answers_seen(site: &Site, sends: usize) -> Result<Took, Failure> {
    let mut took = Vec::with_capacity(sends);
    for number in 1..=sends {
        let (to, subject) = (vec![format!("carol@{OUTSIDE}")], "status".into());
        let written = Written { to, subject, text_bytes: 4, ..Written::default() };
        let request = Request::MailSend { person: person(), written, quote: false };
        let (sent, _) = ask::big::<Sent>(&site.big(), request, b"text".to_vec()).await?;
        let (since, mut seen) = (Instant::now(), None);
        loop {
            let request = Request::MailStatus { person: person(), message: sent.id.clone() };
            let (_, status) = timed::<Status>(site, request).await?;
            if status.recipients.iter().all(|recipient| recipient.state == DeliveryState::Relayed) {
                break;
            }
            if since.elapsed() > WITHIN {
                return Err(format!("{} was not delivered within {WITHIN:?}", sent.id).into());
            }
            let watched = timed::<Watched>(site, Request::MailWatch { person: person(), seen }).await?.1;
            seen = Some(watched.mark);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mail = site.mta.wait_for(number, WITHIN).await?;
        let answered = mail.last().map_or(now, |mail| Duration::from_millis(mail.at));
        took.push(now.saturating_sub(answered));
    }
    Ok(Took::of(took))
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
