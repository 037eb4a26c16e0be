//! Real messages, as people and programs wrote them: each is inside byte for byte and is collected on the
//! road so, or was refused because it breaks SMTP's rules for content. None is accepted and altered.
//!
//! Skipped, with a printed line, where the corpus is not beside the project.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::{Line, Started};
use shared::mime;
use tests::client::pop3::Pop3Client;
use tests::client::smtp::{Reply, SendError};
use tests::process::Program;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, accepted_as, first, without_trace};

/// Sessions at once.
const SESSIONS: usize = 4;
/// Octets of a line (RFC 5321 §4.5.3.1.6), without its CRLF.
const LINE_MAX: usize = 998;

#[tokio::test]
async fn every_message_of_the_corpus_is_kept_as_it_is_or_refused() -> Result<(), Trouble> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    let files = Arc::new(messages_in(&folder));
    if files.is_empty() {
        println!("skipped: there is no corpus at {}", folder.display());
        return Ok(());
    }
    let world = Arc::new(World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?);
    let trip = world.desk("bob").travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let mut sessions = Vec::new();
    for lane in 0..SESSIONS {
        let (world, files) = (world.clone(), files.clone());
        sessions.push(tokio::spawn(async move {
            let mut accepted = Vec::new();
            let mut refused = 0;
            for file in files.iter().skip(lane).step_by(SESSIONS) {
                match send(&world, file).await? {
                    Some(one) => accepted.push(one),
                    None => refused += 1,
                }
            }
            Ok::<_, Trouble>((accepted, refused))
        }));
    }
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for session in sessions {
        let (taken, not) = session.await??;
        accepted.extend(taken);
        refused += not;
    }
    let lines = Arc::new(filed(&world, accepted.len()).await?);
    let accepted = Arc::new(accepted);
    let mut comparisons = Vec::new();
    for lane in 0..SESSIONS {
        let (world, lines, accepted) = (world.clone(), lines.clone(), accepted.clone());
        comparisons.push(tokio::spawn(async move {
            for (id, file) in accepted.iter().skip(lane).step_by(SESSIONS) {
                let lines = lines.get(id).map(Vec::as_slice).unwrap_or_default();
                compare(&world, id, file, lines).await?;
            }
            Ok::<_, Trouble>(())
        }));
    }
    for comparison in comparisons {
        comparison.await??;
    }
    let collected = collected(&world, &trip, &accepted).await?;
    println!(
        "{} messages: {} inside as they are, {collected} of them collected so, {refused} refused",
        files.len(),
        accepted.len()
    );
    assert_eq!(collected, accepted.len());
    // An origin and a copy of each.
    assert_eq!(world.same().await?, 2 * u64::try_from(accepted.len())?);
    assert_eq!(accepted.len() + refused, files.len());
    assert!(accepted.len() > refused, "most real messages keep the rules");
    Ok(())
}

/// Sends one in a session of its own; its id if it was accepted.
async fn send(world: &World, file: &Path) -> Result<Option<(String, PathBuf)>, Trouble> {
    let message = in_crlf(&fs::read(file)?);
    let sent = world.smtp().await?.send_and_quit(CAROL, &[ALICE, BOB], &message).await;
    let (accepted, reply): (bool, Reply) = match sent {
        Ok(reply) => (true, reply),
        Err(SendError::Refused { stage: "dot", reply }) => (false, reply),
        Err(other) => return Err(format!("{}: {other}", file.display()).into()),
    };
    if accepted {
        assert!(keeps_the_rules(&message), "{} breaks the rules and was accepted", file.display());
        let id = accepted_as(&reply).ok_or_else(|| format!("no id in {reply}"))?;
        return Ok(Some((id, file.to_owned())));
    }
    assert!((550..=554).contains(&reply.code) && reply.enhanced().is_some(), "{}: {reply}", file.display());
    assert!(!keeps_the_rules(&message) || reply.code != 550, "{}: {reply}", file.display());
    Ok(None)
}

/// Waits until `count` messages are filed; gives each one's lines.
async fn filed(world: &World, count: usize) -> Result<BTreeMap<String, Vec<Line>>, Trouble> {
    let desk = world.desk("alice");
    until(&format!("{count} messages are filed"), 3 * SOON, async || {
        let mut messages: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        for line in desk.list(Folder::In).await? {
            let id = line.id.split('.').next().unwrap_or_default().to_owned();
            messages.entry(id).or_default().push(line);
        }
        assert!(messages.len() <= count, "more is there than was sent");
        Ok((messages.len() == count).then_some(messages))
    })
    .await
}

/// The bytes, and the names of the attachments as they are listed.
async fn compare(world: &World, id: &str, file: &Path, lines: &[Line]) -> Result<(), Trouble> {
    let ended = as_sent(file)?;
    let raw = world.desk("alice").raw(id).await?;
    let inside = without_trace(&raw);
    assert!(inside == ended, "{} is not inside as it was sent", file.display());
    let expected: Vec<_> =
        mime::attachments(&ended).into_iter().map(|part| part.name.unwrap_or_default()).collect();
    let listed: Vec<_> = lines.iter().filter(|line| line.part > 0).map(|line| line.subject.clone()).collect();
    assert_eq!(listed, expected, "{}", file.display());
    Ok(())
}

/// Collects all by POP3, and compares the bytes; gives how many there are.
async fn collected(world: &World, trip: &Started, accepted: &[(String, PathBuf)]) -> Result<usize, Trouble> {
    let files: BTreeMap<_, _> = accepted.iter().map(|(id, file)| (format!("{id}.0.0"), file)).collect();
    let mut session = Pop3Client::connect_tls(first(&world.nodes.edge_ready().pop3s)).await?;
    // Without it, headers that are not ASCII come encoded.
    session.command("UTF8").await?;
    session.login(&trip.user, &trip.password).await?;
    let messages = session.uidl().await?;
    for (number, id) in &messages {
        let file = files.get(id).ok_or_else(|| format!("{id} was not accepted"))?;
        assert!(without_trace(&session.retr(*number).await?) == as_sent(file)?, "{}", file.display());
    }
    session.quit().await?;
    Ok(messages.len())
}

/// What was sent of a file: a final line without its end has been given one, as SMTP must.
fn as_sent(file: &Path) -> Result<Vec<u8>, Trouble> {
    let mut sent = in_crlf(&fs::read(file)?);
    if !sent.is_empty() && !sent.ends_with(b"\r\n") {
        sent.extend_from_slice(b"\r\n");
    }
    Ok(sent)
}

/// Every `.eml` below the folder, in order.
fn messages_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "eml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Files end their lines in LF; a sender ends them in CRLF. A lone CR stays what it is.
fn in_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    let mut last = 0;
    for &octet in text {
        if octet == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        out.push(octet);
        last = octet;
    }
    out
}

/// Whether content has only CRLF for line ends, no NUL, and no line that is too long.
fn keeps_the_rules(message: &[u8]) -> bool {
    let lines: Vec<_> = memchr::memmem::find_iter(message, b"\r\n").collect();
    let bare = message.iter().filter(|&&octet| matches!(octet, b'\r' | b'\n')).count() != lines.len() * 2;
    let mut start = 0;
    let mut longest = 0;
    for end in lines.into_iter().chain([message.len()]) {
        longest = longest.max(end.saturating_sub(start));
        start = end + 2;
    }
    !bare && !message.contains(&0) && longest <= LINE_MAX
}
