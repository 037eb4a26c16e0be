//! What a 250 vouches for, shown by destroying the edge right after it.

use std::collections::BTreeSet;

use big_node::record::{AfterFetch, Folder, Scope};
use shared::topology::Acknowledge;
use tests::client::smtp::{Reply, SendError, SmtpClient};
use tests::damage::{flip, newest};
use tests::ledger::Token;
use tests::messages::{LONG, Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, accepted_as, without_trace};

async fn world(ack: Acknowledge) -> Result<World, Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    World::with(program, |topology| topology.ack = ack).await
}

fn letter(number: u64) -> Vec<u8> {
    let letter = Letter { from: CAROL, to: ALICE, subject: "kept", token: Token { seed: 7, number } };
    // Every third is large: its body goes ahead of its unit.
    if number.is_multiple_of(3) { letter.with_attachment("a.bin", LONG * 4) } else { letter.text(SHORT) }
}

async fn send(world: &World, number: u64) -> Result<Reply, SendError> {
    let session = world.smtp().await.expect("the edge listens");
    session.send_and_quit(CAROL, &[ALICE], &letter(number)).await
}

fn says(reply: &Reply, way: &str) -> bool {
    reply.lines.last().is_some_and(|line| line.ends_with(way))
}

/// Exactly these letters are in alice's mailbox.
async fn only_these_are_filed(world: &World, ids: &[(u64, String)]) -> Result<(), Trouble> {
    let desk = world.desk("alice");
    for (number, id) in ids {
        desk.filed(Folder::In, id).await?;
        assert!(without_trace(&desk.raw(id).await?) == letter(*number), "{number} is altered");
    }
    assert_eq!(desk.messages(Folder::In).await?.len(), ids.len());
    Ok(())
}

/// Waits until the edge has a small message that big has not. What else it tells big goes by other lanes.
async fn one_waits(world: &World) -> Result<(), Trouble> {
    until("the edge holds a message that big has not", SOON, async || {
        let link = world.edge_link().await?;
        let mail = link.lanes.iter().filter(|lane| lane.lane == "inter");
        let waiting: u64 = mail.map(|lane| lane.sent - lane.confirmed).sum();
        Ok((waiting == 1).then_some(()))
    })
    .await
}

#[tokio::test]
async fn with_pair_an_edge_that_is_destroyed_loses_nothing() -> Result<(), Trouble> {
    let mut world = world(Acknowledge::Pair).await?;
    let mut accepted = Vec::new();
    for number in 1..=6 {
        let reply = send(&world, number).await?;
        assert!(says(&reply, " on both nodes"), "{reply}");
        accepted.push((number, accepted_as(&reply).ok_or("no id")?));
    }
    world.nodes.destroy(Node::Edge).await?;
    only_these_are_filed(&world, &accepted).await
}

#[tokio::test]
async fn with_pair_nothing_is_taken_while_big_is_away() -> Result<(), Trouble> {
    let mut world = world(Acknowledge::Pair).await?;
    world.nodes.kill(Node::Big).await?;
    until("the edge knows that big is away", SOON, async || {
        Ok((!world.edge_link().await?.connected).then_some(()))
    })
    .await?;
    match send(&world, 1).await {
        Err(SendError::Refused { stage, reply }) => {
            assert_eq!((stage, reply.code, reply.enhanced()), ("MAIL", 451, Some("4.4.1")), "{reply}");
        }
        other => panic!("not refused: {other:?}"),
    }
    world.nodes.start_big().await?;
    world.linked().await?;
    let reply = send(&world, 1).await?;
    assert!(says(&reply, " on both nodes"), "{reply}");
    only_these_are_filed(&world, &[(1, accepted_as(&reply).ok_or("no id")?)]).await
}

#[tokio::test]
async fn with_pair_a_repeat_without_a_250_is_the_same_message() -> Result<(), Trouble> {
    let mut world = world(Acknowledge::Pair).await?;
    let trip = world.desk("alice").travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    world.quiet().await?;
    // The link looks up, and nobody confirms.
    world.nodes.freeze(Node::Big)?;
    let address = world.smtp_address();
    let first = tokio::spawn(async move {
        let mut session = SmtpClient::ready(address, None).await?;
        Ok::<_, Trouble>(session.send(CAROL, &[ALICE], &letter(1)).await?)
    });
    one_waits(&world).await?;
    let mut session = world.pop3s(&trip.user, &trip.password).await?;
    assert_eq!(session.stat().await?.0, 0, "a traveller is shown nothing that has no 250");
    session.quit().await?;
    // The edge dies under the client, which never hears what became of it.
    world.nodes.kill(Node::Edge).await?;
    assert!(first.await?.is_err(), "there was no 250");
    world.nodes.start_edge().await?;
    world.nodes.thaw(Node::Big)?;
    world.linked().await?;

    let reply = send(&world, 1).await?;
    assert!(says(&reply, " on both nodes"), "{reply}");
    let id = accepted_as(&reply).ok_or("no id")?;
    let mut session = world.pop3s(&trip.user, &trip.password).await?;
    assert_eq!(session.stat().await?.0, 1, "with the 250 it is shown");
    session.quit().await?;
    only_these_are_filed(&world, &[(1, id.clone())]).await?;
    // After a 250 the same words are another message.
    let reply = send(&world, 1).await?;
    let second = accepted_as(&reply).ok_or("no id")?;
    assert_ne!(id, second);
    only_these_are_filed(&world, &[(1, id), (1, second)]).await
}

#[tokio::test]
async fn with_pair_a_repeat_after_a_451_is_the_same_message() -> Result<(), Trouble> {
    let mut world = world(Acknowledge::Pair).await?;
    let edge = world.nodes.state_of(Node::Edge);
    world.nodes.freeze(Node::Big)?;
    let address = world.smtp_address();
    let first = tokio::spawn(async move {
        let mut session = SmtpClient::ready(address, None).await.expect("the edge listens");
        session.send(CAROL, &[ALICE], &letter(1)).await
    });
    one_waits(&world).await?;
    // Big will never take it, for its body is damaged before it is sent again.
    world.nodes.kill(Node::Big).await?;
    let held = newest(&edge)?;
    flip(&edge, &held)?;
    world.nodes.start_big().await?;
    refused_at_the_dot(first.await?);
    refused_at_the_dot(send(&world, 1).await);
    flip(&edge, &held)?;
    world.nodes.edge.run(&["queue", "dead", "retry", &held]).await?;
    let reply = send(&world, 1).await?;
    assert!(says(&reply, " on both nodes"), "{reply}");
    assert_eq!(accepted_as(&reply), Some(held.clone()), "the same message");
    only_these_are_filed(&world, &[(1, held)]).await
}

/// The edge has the message, and says that big does not.
fn refused_at_the_dot(sent: Result<Reply, SendError>) {
    match sent {
        Err(SendError::Refused { stage, reply }) => {
            assert_eq!((stage, reply.code, reply.enhanced()), ("dot", 451, Some("4.3.0")), "{reply}");
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn with_pair_a_250_waits_for_big() -> Result<(), Trouble> {
    let world = world(Acknowledge::Pair).await?;
    world.nodes.freeze(Node::Big)?;
    let address = world.smtp_address();
    let waits = tokio::spawn(async move {
        let mut session = SmtpClient::ready(address, None).await?;
        Ok::<_, Trouble>(session.send(CAROL, &[ALICE], &letter(1)).await?)
    });
    one_waits(&world).await?;
    assert!(!waits.is_finished(), "no 250 before big has it");
    world.nodes.thaw(Node::Big)?;
    let reply = waits.await??;
    assert!(says(&reply, " on both nodes"), "{reply}");
    only_these_are_filed(&world, &[(1, accepted_as(&reply).ok_or("no id")?)]).await
}

#[tokio::test]
async fn with_pair_or_local_a_destroyed_edge_loses_what_was_on_it_alone() -> Result<(), Trouble> {
    let mut world = world(Acknowledge::PairOrLocal).await?;
    let mut on_both = Vec::new();
    for number in 1..=3 {
        let reply = send(&world, number).await?;
        assert!(says(&reply, " on both nodes"), "{reply}");
        on_both.push((number, accepted_as(&reply).ok_or("no id")?));
    }
    world.nodes.kill(Node::Big).await?;
    let reply = send(&world, 4).await?;
    assert!(says(&reply, " on the edge alone"), "{reply}");
    world.nodes.destroy(Node::Edge).await?;
    world.nodes.start_big().await?;
    only_these_are_filed(&world, &on_both).await
}

#[tokio::test]
async fn with_local_a_destroyed_edge_loses_what_was_not_confirmed() -> Result<(), Trouble> {
    let mut world = world(Acknowledge::Local).await?;
    let mut confirmed = Vec::new();
    for number in 1..=3 {
        confirmed.push((number, world.receive(&[ALICE], &letter(number)).await?));
    }
    only_these_are_filed(&world, &confirmed).await?;
    world.nodes.kill(Node::Big).await?;
    let mut alone = BTreeSet::new();
    for number in 4..=8 {
        alone.insert(world.receive(&[ALICE], &letter(number)).await?);
    }
    world.nodes.destroy(Node::Edge).await?;
    world.nodes.start_big().await?;
    only_these_are_filed(&world, &confirmed).await?;
    let filed: BTreeSet<_> =
        world.desk("alice").messages(Folder::In).await?.into_iter().map(|line| line.id).collect();
    let answered: BTreeSet<_> = confirmed.into_iter().map(|(_, id)| id).chain(alone.clone()).collect();
    let lost: BTreeSet<_> = answered.difference(&filed).cloned().collect();
    assert_eq!(lost, alone, "what was answered 250 on the edge alone is lost with it, and nothing else");
    Ok(())
}
