//! Nodes that are killed: whatever was answered 250 is filed once, and nothing else is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use big_node::record::Folder;
use tests::client::load::{Outcome, Outgoing, Plan, Report, drive};
use tests::internet::rules::{Action, Rule, Stage};
use tests::ledger::{Fate, Ledger, Place};
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program};
use tests::random::Random;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, without_trace};

/// How long the host outside takes over a dot.
const AT_THE_DOT: Duration = Duration::from_secs(2);
const ROUNDS: u64 = 5;
/// Enough that a kill falls among them.
const MESSAGES_A_ROUND: u64 = 200;

async fn world() -> Result<World, Trouble> {
    // A client that is under way finds the edge again where it was.
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    World::with(program, |topology| {
        *topology = topology.clone().with_fixed_ports().expect("free ports");
    })
    .await
}

/// Sends a round's messages and keeps the books.
async fn load(to: SocketAddr, ledger: Arc<Ledger>) -> Report {
    let letter = || {
        let token = ledger.next_token();
        Letter { from: CAROL, to: ALICE, subject: "under load", token }.text(SHORT)
    };
    let messages: Arc<Vec<_>> = Arc::new((0..MESSAGES_A_ROUND).map(|_| letter()).collect());
    let plan = Plan { to, connections: 3, per_connection: 4, patience: SOON, login: None };
    let (sent, made) = (messages.clone(), ledger.clone());
    let make = move |number: u64| {
        let data = sent.get(usize::try_from(number).ok()?)?.clone();
        made.enter(&data, &[ALICE]).expect("books in memory");
        Some(Outgoing { from: CAROL.into(), to: ALICE.into(), data })
    };
    let tell = move |number: u64, outcome: &Outcome| {
        let fate = match outcome {
            Outcome::Accepted(_) => Fate::Accepted,
            Outcome::InDoubt => Fate::InDoubt,
            Outcome::Refused(_) | Outcome::NotSent => Fate::NotAccepted,
        };
        let message = usize::try_from(number).ok().and_then(|number| messages.get(number));
        ledger.settle(message.expect("it was made"), fate).expect("books in memory");
    };
    drive(plan, make, tell).await
}

/// Everything in alice's mailbox, into the books.
async fn find(world: &World, ledger: &Ledger) -> Result<(), Trouble> {
    let desk = world.desk("alice");
    for line in desk.messages(Folder::In).await? {
        ledger.found(Place::Inside, ALICE, &desk.raw(&line.id).await?, SystemTime::now());
    }
    Ok(())
}

#[tokio::test]
async fn an_edge_killed_right_after_its_250_has_the_message() -> Result<(), Trouble> {
    let mut world = world().await?;
    let desk = world.desk("alice");
    for number in 1..=3 {
        let token = tests::ledger::Token { seed: 1, number };
        let message = Letter { from: CAROL, to: ALICE, subject: "kill", token }.text(SHORT);
        let id = world.receive(&[ALICE], &message).await?;
        world.nodes.kill(Node::Edge).await?;
        world.nodes.start_edge().await?;
        desk.filed(Folder::In, &id).await?;
        assert!(without_trace(&desk.raw(&id).await?) == message);
    }
    assert_eq!(desk.messages(Folder::In).await?.len(), 3, "each is there once");
    Ok(())
}

/// The host outside has the whole message, and the edge never hears its answer: it counts that, asks once more, and not
/// again.
#[tokio::test]
async fn an_edge_killed_between_the_dot_and_its_answer_tries_once_more() -> Result<(), Trouble> {
    let mut world = world().await?;
    world.internet.mta.add_rule(Rule::new(Stage::Dot, Action::Delay(AT_THE_DOT)).times(1));
    let desk = world.desk("alice");
    let sent = desk.send(CAROL, "plans", "the text").await?;
    let mta = &world.internet.mta;
    until("the host is at the dot", SOON, async || Ok(mta.is_used_up().then_some(()))).await?;
    world.nodes.kill(Node::Edge).await?;
    world.nodes.start_edge().await?;
    desk.relayed(&sent.id).await?;
    world.quiet().await?;
    assert!(world.edge_queue().await?.is_empty());
    // One that the edge has not heard of, and the one that it has.
    let got = world.internet.mta.wait_for(2, SOON).await?;
    assert_eq!(got.len(), 2, "one attempt more, and no third");
    assert_eq!(got[0].digest, got[1].digest, "the same message");
    assert_eq!(world.edge_link().await?.border.expect("is the edge's").undetermined, 1);
    world.end().await
}

#[tokio::test]
async fn either_node_may_be_killed_at_any_moment_under_load() -> Result<(), Trouble> {
    let mut world = world().await?;
    let seed = 20_261_122;
    let mut random = Random::new(seed);
    let ledger = Arc::new(Ledger::new(seed));
    for round in 0..ROUNDS {
        let load = tokio::spawn(load(world.smtp_address(), ledger.clone()));
        // Somewhere in the load: which moment it is does not matter, that they differ does.
        tokio::time::sleep(Duration::from_millis(random.below(100))).await;
        for node in if round % 2 == 0 { &[Node::Big][..] } else { &[Node::Big, Node::Edge] } {
            world.nodes.kill(*node).await?;
            match node {
                Node::Big => drop(world.nodes.start_big().await?),
                Node::Edge => drop(world.nodes.start_edge().await?),
            }
        }
        load.await?;
    }
    world.linked().await?;
    until("what was accepted is filed", SOON, async || {
        let link = world.big().link().await?;
        let edge: shared::report::LinkView =
            world.edge().ask(edge_node::request::Request::LinkStatus, Vec::new()).await?.0;
        let quiet = link.connected && edge.lanes.iter().all(|lane| lane.sent == lane.confirmed);
        Ok(quiet.then_some(()))
    })
    .await?;
    find(&world, &ledger).await?;
    let audit = ledger.audit();
    println!("{audit}");
    assert!(audit.is_clean(), "{audit}");
    assert!(audit.accepted > 0, "{audit}");
    Ok(())
}
