//! Disks that lie: an index that is lost comes back from the segments, never as an empty one in silence; a
//! body that is damaged is said to be, and what stands behind it arrives.

use std::fs;
use std::path::Path;

use big_node::record::Folder;
use big_node::request::{DraftSaved, DraftView};
use edge_node::request::{DeadCommand, Request};
use shared::unit::ReviseMode;
use tests::damage::flip;
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, without_trace};

fn lose_index(state: &Path) -> Result<(), Trouble> {
    Ok(fs::remove_file(state.join("store/index.redb"))?)
}

#[tokio::test]
async fn mailboxes_come_back_from_the_segments() -> Result<(), Trouble> {
    let mut world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let desk = world.desk("alice");
    let token = Token { seed: 1, number: 1 };
    let plain = Letter { from: CAROL, to: ALICE, subject: "plain", token }.text(SHORT);
    let parted = Letter { from: CAROL, to: ALICE, subject: "parted", token: Token { number: 2, ..token } }
        .with_attachment("plan.pdf", 200_000);
    let mut ids = Vec::new();
    for message in [&plain, &parted] {
        let id = world.receive(&[ALICE], message).await?;
        desk.filed(Folder::In, &id).await?;
        ids.push(id);
    }
    let sent = world.desk("bob").send("alice", "from a desk", "hello\n").await?;
    let answer = desk.reply(&ids[0], "An answer").await?;
    let save = ["mail", "draft", "save", "--as", "alice", "--to", "the boss", "--subject", "later"];
    let draft: DraftSaved = world.nodes.big.json_with(&save, b"first").await?;
    world.nodes.big.run_with(&[&save[..], &["--draft", &draft.id]].concat(), b"second").await?;
    world.desk("bob").amend(&sent.id, ReviseMode::Replace, "hello again\n").await?;
    let withdrawn = world.desk("bob").send("alice", "early", "too early\n").await?;
    world.desk("bob").amend(&withdrawn.id, ReviseMode::Withdraw, "").await?;
    world.nodes.stop(Node::Big).await?;
    lose_index(&world.nodes.topology.big_state())?;

    let refused = world.nodes.big.run(&["verify"]).await.expect_err("there is no index");
    assert!(refused.to_string().contains("verify --rebuild"), "{refused}");
    world.nodes.big.run(&["verify", "--rebuild"]).await?;
    world.nodes.start_big().await?;
    for (id, message) in ids.iter().zip([&plain, &parted]) {
        assert!(without_trace(&desk.raw(id).await?) == *message, "{id}");
    }
    let lines = desk.list(Folder::In).await?;
    assert!(lines.iter().any(|line| line.part == 1 && line.subject == "plan.pdf"), "broken apart as before");
    desk.filed(Folder::In, &sent.id).await?;
    world.desk("bob").filed(Folder::Sent, &sent.id).await?;
    assert_eq!(desk.filed(Folder::Sent, &answer.id).await?.thread, ids[0], "tied as before");
    let shown: DraftView =
        world.nodes.big.json(&["mail", "draft", "show", &draft.id, "--as", "alice"]).await?;
    assert_eq!((shown.to, shown.text), (vec!["the boss".to_owned()], "second\n".to_owned()));
    assert_eq!(desk.read(&sent.id).await?.text.trim(), "hello again", "what its author made of it last");
    let taken_back = desk.read(&withdrawn.id).await?;
    assert!(taken_back.withdrawn && !taken_back.text.contains("too early"), "{}", taken_back.text);
    let history = world.desk("bob").history(&sent.id).await?;
    assert_eq!(history.last().map(|last| last.difference.as_str()), Some("-hello\n+hello again\n"));
    world.end().await
}

#[tokio::test]
async fn an_edge_that_lost_its_index_has_what_big_does_not_hold_yet() -> Result<(), Trouble> {
    let mut world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    world.nodes.stop(Node::Big).await?;
    let token = Token { seed: 1, number: 1 };
    let message = Letter { from: CAROL, to: ALICE, subject: "waits", token }.text(SHORT);
    let id = world.receive(&[ALICE], &message).await?;
    world.nodes.stop(Node::Edge).await?;
    lose_index(&world.nodes.topology.edge_state())?;
    world.nodes.edge.run(&["verify", "--rebuild"]).await?;
    world.nodes.start_edge().await?;
    let link: shared::report::LinkView = world.edge().ask(Request::LinkStatus, Vec::new()).await?.0;
    let waiting: u64 = link.lanes.iter().map(|lane| lane.sent - lane.confirmed).sum();
    assert_eq!(waiting, 1, "{id} is offered to big again");
    world.end().await
}

#[tokio::test]
async fn a_damaged_body_is_a_dead_letter_and_holds_nothing_up() -> Result<(), Trouble> {
    let mut world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    world.nodes.stop(Node::Big).await?;
    let letter = |number| {
        Letter { from: CAROL, to: ALICE, subject: "waits", token: Token { seed: 1, number } }.text(SHORT)
    };
    let damaged = world.receive(&[ALICE], &letter(1)).await?;
    let behind = world.receive(&[ALICE], &letter(2)).await?;
    world.nodes.stop(Node::Edge).await?;
    flip(&world.nodes.topology.edge_state(), &damaged)?;
    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    world.desk("alice").filed(Folder::In, &behind).await?;
    let dead: Vec<shared::report::DeadLetterView> = until("the damaged one is given up", SOON, async || {
        let dead: Vec<shared::report::DeadLetterView> =
            world.edge().ask(Request::QueueDead(DeadCommand::List), Vec::new()).await?.0;
        Ok((!dead.is_empty()).then_some(dead))
    })
    .await?;
    assert_eq!(dead.iter().map(|letter| &letter.id).collect::<Vec<_>>(), [&damaged]);
    assert_eq!(world.desk("alice").messages(Folder::In).await?.len(), 1);
    world.end().await
}
