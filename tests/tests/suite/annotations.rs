//! Five hundred messages whose headers say all that an origin holds, and everything that is learned of a message later:
//! read, answered, sent on, deleted, collected on the road, revised. Both nodes hold the same of them.

use std::sync::Arc;

use big_node::record::{AfterFetch, Folder, Scope};
use shared::unit::{ReviseMode, ReviseResult};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, accepted_as};

const MESSAGES: usize = 500;
/// Sessions at once.
const SESSIONS: usize = 4;

/// Message number `n`, with the headers that its number has.
fn message(n: usize) -> Vec<u8> {
    let header = |every: usize, text: String| if n.is_multiple_of(every) { text } else { String::new() };
    let headers = [
        format!("From: =?utf-8?Q?C=C3=A4rol_{n}?= <{CAROL}>\r\nTo: {ALICE}, team: {BOB};\r\n"),
        format!("Subject: =?utf-8?B?w7xiZXI=?= {}\r\nMessage-ID: <{n}@remote.example>\r\n", n % 50),
        header(2, format!("References: <{}@remote.example> <x{n}@y.example>\r\n", n / 2)),
        header(2, format!("In-Reply-To: <{}@remote.example>\r\n", n / 2)),
        header(3, "Reply-To: \"The office\" <office@remote.example>, b@x.example\r\n".into()),
        header(4, "Sender: secretary@remote.example\r\nCc: someone@x.example\r\n".into()),
        header(5, "Mail-Followup-To: list@lists.example, dave@remote.example\r\n".into()),
        header(7, "List-Post: <mailto:list@lists.example>\r\nList-Id: <list.lists.example>\r\n".into()),
        header(9, "Content-Language: de, en\r\n".into()),
        header(11, "Auto-Submitted: auto-generated\r\n".into()),
    ];
    format!("{}\r\ntext {n}\r\n", headers.concat()).into_bytes()
}

/// Sends all of them, and gives their ids.
async fn arrive(world: &Arc<World>) -> Result<Vec<String>, Trouble> {
    let mut sessions = Vec::new();
    for lane in 0..SESSIONS {
        let world = Arc::clone(world);
        sessions.push(tokio::spawn(async move {
            let (mut client, mut ids) = (world.smtp().await?, Vec::new());
            for n in (lane..MESSAGES).step_by(SESSIONS) {
                let reply = client.send(CAROL, &[ALICE, BOB], &message(n)).await?;
                ids.push(accepted_as(&reply).ok_or_else(|| format!("no id in {reply}"))?);
            }
            Ok::<_, Trouble>(ids)
        }));
    }
    let mut ids = Vec::new();
    for session in sessions {
        ids.extend(session.await??);
    }
    Ok(ids)
}

#[tokio::test]
async fn of_five_hundred_messages_both_nodes_hold_the_same() -> Result<(), Trouble> {
    let world = Arc::new(World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?);
    let (alice, bob) = (world.desk("alice"), world.desk("bob"));
    let trip = bob.travel(Scope::New, AfterFetch::Read).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let ids = arrive(&world).await?;
    assert_eq!(ids.len(), MESSAGES);
    until("they are filed", 3 * SOON, async || {
        let all = alice.messages(Folder::In).await?.len() == MESSAGES
            && bob.messages(Folder::In).await?.len() == MESSAGES;
        Ok(all.then_some(()))
    })
    .await?;
    world.quiet().await?;
    // An origin and a copy of each.
    assert_eq!(world.same().await?, 2 * MESSAGES as u64);

    // What people do at their desks, and the traveller on the road.
    for id in &ids[..30] {
        alice.read(id).await?;
    }
    for id in &ids[30..40] {
        alice.reply(id, "Thank you.").await?;
    }
    for id in &ids[40..50] {
        alice.delete(id).await?;
        bob.delete(id).await?;
    }
    let mut written = Vec::new();
    for n in 0..15 {
        written.push(alice.send(BOB, &format!("plan {n}"), "the old text").await?.id);
    }
    let mut session = world.pop3s(&trip.user, &trip.password).await?;
    let listed = session.uidl().await?;
    for (number, _) in listed.iter().take(40) {
        session.retr(*number).await?;
    }
    for (number, _) in listed.iter().take(20) {
        session.dele(*number).await?;
    }
    session.quit().await?;
    for (n, id) in written.iter().enumerate() {
        match n % 3 {
            0 => alice.amend(id, ReviseMode::Replace, "the new text").await?,
            1 => alice.amend(id, ReviseMode::Append, "and more").await?,
            _ => alice.amend(id, ReviseMode::Withdraw, "").await?,
        };
    }
    for (n, id) in written.iter().enumerate() {
        let result = if n % 3 == 2 { ReviseResult::Withdrawn } else { ReviseResult::Replaced };
        alice.revised(id, result).await?;
    }
    let answer = format!(
        "From: {BOB}\r\nTo: {CAROL}\r\nSubject: Re\r\nMessage-ID: <a@phone.example>\r\n\
         In-Reply-To: <499@remote.example>\r\n\r\nFrom the road.\r\n"
    );
    world.submission(&trip.user, &trip.password).await?.send(BOB, &[CAROL], answer.as_bytes()).await?;
    until("what the road has brought is at home", SOON, async || {
        let lines = bob.messages(Folder::In).await?;
        let (read, answered) = (
            lines.iter().filter(|line| line.read).count(),
            lines.iter().filter(|line| line.answered).count(),
        );
        Ok((read >= 20 && answered == 1).then_some(()))
    })
    .await?;
    world.quiet().await?;
    assert!(world.same().await? > MESSAGES as u64);

    // The same once the link was away in between.
    let mut world = Arc::into_inner(world).ok_or("somebody else has the world")?;
    world.nodes.kill(Node::Edge).await?;
    for id in &written[..6] {
        // Every third one is withdrawn from everybody, and stays so.
        let again = alice.amend(id, ReviseMode::Replace, "the last text").await;
        assert_eq!(again.is_err(), id == &written[2] || id == &written[5]);
    }
    world.nodes.start_edge().await?;
    for n in [0, 1, 3, 4] {
        alice.revised(&written[n], ReviseResult::Replaced).await?;
    }
    world.quiet().await?;
    assert!(world.same().await? > MESSAGES as u64);
    world.end().await
}
