//! A client that has not heard a 250 sends its message again: when that is the same message, and when it is another one.

use std::net::{IpAddr, Ipv4Addr};

use shared::topology::Acknowledge;
use tests::client::smtp::SmtpClient;
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::Trouble;
use tests::world::{ALICE, BOB, CAROL, World, accepted_as};

async fn world() -> Result<World, Trouble> {
    World::with(Program::at(env!("CARGO_BIN_EXE_pair")), |_| {}).await
}

fn letter(number: u64) -> Vec<u8> {
    Letter { from: CAROL, to: ALICE, subject: "again", token: Token { seed: 8, number } }.text(SHORT)
}

async fn send(session: &mut SmtpClient, to: &[&str], message: &[u8]) -> Result<String, Trouble> {
    let reply = session.send(CAROL, to, message).await?;
    accepted_as(&reply).ok_or_else(|| format!("no id in {reply}").into())
}

/// Sends a letter to alice, and goes without another word.
async fn send_and_vanish(world: &World, number: u64) -> Result<String, Trouble> {
    let mut session = world.smtp().await?;
    let id = send(&mut session, &[ALICE], &letter(number)).await?;
    session.vanish().await?;
    Ok(id)
}

/// How many repeats the edge has recognised.
async fn repeats(world: &World) -> Result<u64, Trouble> {
    Ok(world.edge_link().await?.border.ok_or("the edge has a border")?.repeats)
}

async fn filed(world: &World) -> Result<usize, Trouble> {
    world.quiet().await?;
    Ok(world.desk("alice").messages(big_node::record::Folder::In).await?.len())
}

#[tokio::test]
async fn a_message_whose_250_was_not_heard_is_answered_with_the_same_and_is_there_once() -> Result<(), Trouble>
{
    let world = world().await?;
    let id = send_and_vanish(&world, 1).await?;
    assert_eq!((send_and_vanish(&world, 1).await?, repeats(&world).await?), (id.clone(), 1));
    let mut session = world.smtp().await?;
    assert_eq!(send(&mut session, &[ALICE], &letter(1)).await?, id, "and once more");
    session.quit().await?;
    assert_eq!((repeats(&world).await?, filed(&world).await?), (2, 1));
    // Now it was heard.
    assert_ne!(send_and_vanish(&world, 1).await?, id);
    assert_eq!((repeats(&world).await?, filed(&world).await?), (2, 2));
    Ok(())
}

#[tokio::test]
async fn what_merely_looks_like_a_message_is_another_one() -> Result<(), Trouble> {
    let world = world().await?;
    let mut ids = Vec::new();
    // While its session goes on, nothing repeats it; nor what comes behind it there.
    let mut first = world.smtp().await?;
    ids.push(send(&mut first, &[ALICE], &letter(1)).await?);
    ids.push(world.receive(&[ALICE], &letter(1)).await?);
    ids.push(send(&mut first, &[ALICE], &letter(1)).await?);
    first.quit().await?;
    // Another envelope, other words, another network.
    ids.push(send_and_vanish(&world, 2).await?);
    let mut session = world.smtp().await?;
    ids.push(send(&mut session, &[ALICE, BOB], &letter(2)).await?);
    session.vanish().await?;
    ids.push(send_and_vanish(&world, 3).await?);
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 1));
    let mut session = SmtpClient::ready_from(elsewhere, world.smtp_address(), None).await?;
    ids.push(send(&mut session, &[ALICE], &letter(3)).await?);
    session.quit().await?;
    // Whoever has not waited for the 250 to say QUIT goes on, too.
    for _ in 0..2 {
        let mut session = world.smtp().await?;
        session.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
        session.expect(&format!("RCPT TO:<{ALICE}>"), 250).await?;
        session.expect("DATA", 354).await?;
        session.raw(&[&letter(4), &b".\r\nQUIT\r\n"[..]].concat()).await?;
        ids.push(accepted_as(&session.reply().await?).ok_or("no id")?);
        session.rest().await?;
    }
    let sent = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), repeats(&world).await?, filed(&world).await?), (sent, 0, sent));
    Ok(())
}

#[tokio::test]
async fn with_pair_too_a_message_is_there_once_behind_a_250_that_was_not_heard() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.ack = Acknowledge::Pair).await?;
    let id = send_and_vanish(&world, 1).await?;
    assert_eq!((send_and_vanish(&world, 1).await?, repeats(&world).await?), (id, 1));
    assert_eq!(filed(&world).await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_edge_that_is_killed_behind_its_250_knows_the_repeat() -> Result<(), Trouble> {
    let mut world = world().await?;
    let mut session = world.smtp().await?;
    let id = send(&mut session, &[ALICE], &letter(1)).await?;
    world.nodes.kill(Node::Edge).await?;
    world.nodes.start_edge().await?;
    world.linked().await?;
    assert_eq!((send_and_vanish(&world, 1).await?, repeats(&world).await?), (id, 1));
    assert_eq!(filed(&world).await?, 1);
    Ok(())
}
