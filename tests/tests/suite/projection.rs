//! The directory at the edge: what a recipient is answered and why, how it is kept the same as big's, and
//! what its files tell whoever takes them away.

use std::path::Path;
use std::sync::Arc;

use big_node::request::{PersonView, Request as BigRequest};
use edge_node::harness::Edge;
use edge_node::request::Explained;
use shared::state::State;
use shared::store::sim::{Faults, SimDisk};
use shared::topology::Topology;
use shared::unit::directory_hash;
use tests::client::load::{Outgoing, Plan, drive};
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World};

/// Mail that waits on the edge while the link is down.
const BACKLOG: u64 = 1000;
const NOBODY: &str = "nobody@example.com";

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

async fn explain(world: &World, address: &str) -> Result<Explained, Trouble> {
    Ok(world.nodes.edge.json(&["explain", address]).await?)
}

/// Waits until unknown means unknown: big has been heard of.
async fn fresh(world: &World) -> Result<(), Trouble> {
    until("the directory is compared", SOON, async || {
        Ok((explain(world, NOBODY).await?.rule == "unknown-fresh").then_some(()))
    })
    .await
}

#[tokio::test]
async fn the_edge_says_what_it_answers_and_by_which_rule() -> Result<(), Trouble> {
    let mut world = world().await?;
    fresh(&world).await?;
    for (address, rule, answer) in [
        (ALICE, "exact", "250"),
        ("Bob+tag@EXAMPLE.com", "base", "250"),
        ("postmaster@example.com", "role", "250"),
        ("abuse@example.com", "role", "250"),
        (NOBODY, "unknown-fresh", "550 5.1.1"),
        (CAROL, "foreign", "550 5.7.1"),
    ] {
        let explained = explain(&world, address).await?;
        assert_eq!(explained.rule, rule, "{address}");
        assert!(explained.answer.starts_with(answer), "{address}: {}", explained.answer);
    }
    let text = world.nodes.edge.run(&["explain", ALICE]).await?;
    assert!(text.contains("exact: it is in the directory"), "{text}");
    let refused = world.nodes.edge.run(&["explain", "no address"]).await.expect_err("is refused");
    assert!(refused.refusal().is_some_and(|text| text.contains("name@domain")), "{refused}");
    for link in [world.big().link().await?, world.edge_link().await?] {
        assert!(link.directory.compared_at.is_some() && link.directory.differed == 0, "{:?}", link.directory);
    }

    // An edge that starts while big is away has heard nothing: nobody is refused for good.
    world.nodes.kill(Node::Big).await?;
    world.nodes.stop(Node::Edge).await?;
    world.nodes.start_edge().await?;
    assert_eq!((world.rcpt(ALICE).await?, world.rcpt(NOBODY).await?), (250, 451));
    let explained = explain(&world, NOBODY).await?;
    assert_eq!(explained.rule, "unknown-stale");
    assert!(explained.answer.starts_with("451 4.4.3"), "{}", explained.answer);
    let unsure = world.edge_link().await?.directory.unsure;
    assert!(unsure.is_some_and(|why| why.contains("has not been heard of")));
    world.nodes.start_big().await?;
    fresh(&world).await?;
    assert_eq!((world.rcpt(ALICE).await?, world.rcpt(NOBODY).await?), (250, 550));
    world.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_on_the_edges_disk_is_found_and_only_that_is_mended() -> Result<(), Trouble> {
    let mut world = world().await?;
    fresh(&world).await?;
    world.nodes.stop(Node::Edge).await?;
    let (state, file) = (world.nodes.topology.edge_state(), world.nodes.file.clone());
    let drifted = tokio::task::spawn_blocking(move || drift(&state, &file)).await?;
    drifted?;
    world.nodes.start_edge().await?;
    // Until it is compared it is not known to be gone, and after that it is not gone.
    until("bob is back", SOON, async || match world.rcpt(BOB).await? {
        250 => Ok(Some(())),
        451 => Ok(None),
        code => Err(format!("bob was answered {code}").into()),
    })
    .await?;
    until("both know that it was mended", SOON, async || {
        let (big, edge) = (world.big().link().await?.directory, world.edge_link().await?.directory);
        let mended = |view: &shared::report::DirectoryView| (view.differed, view.mended) == (1, 1);
        Ok((mended(&big) && mended(&edge) && edge.unsure.is_none()).then_some(()))
    })
    .await?;
    assert_eq!(world.rcpt(NOBODY).await?, 550);
    world.end().await
}

/// Takes bob out of the edge's store, behind its back.
fn drift(state: &Path, file: &Path) -> Result<(), Trouble> {
    let state = State::open(state)?;
    let key = state.key32("directory")?;
    // Nobody travels.
    let covers = Arc::new(SimDisk::new(Faults::default()));
    let edge = Edge::new(state.store()?, covers, Topology::read(file)?, state.key32("sealing")?, key);
    edge.drift(directory_hash(&key, BOB), false)?;
    Ok(())
}

#[tokio::test]
async fn without_the_key_file_the_edges_database_is_no_address_book() -> Result<(), Trouble> {
    let mut world = world().await?;
    world.quiet().await?;
    let state = world.nodes.topology.edge_state();
    world.nodes.stop(Node::Edge).await?;
    let mut database = Vec::new();
    for entry in std::fs::read_dir(state.join("store"))? {
        database.extend(std::fs::read(entry?.path())?);
    }
    let contains = |bytes: &[u8]| memchr::memmem::find(&database, bytes).is_some();
    let key = State::open(&state)?.key32("directory")?;
    assert!(!contains(&key), "the key is not in what was taken");
    // Hashing guesses, without the key: as they are, or under whatever else lies in the state.
    let dictionary = ["alice", "bob", "carol", "postmaster", "info", "admin"];
    let sealing = State::open(&state)?.key32("sealing")?;
    for name in dictionary {
        let guess = format!("{name}@example.com");
        assert!(!contains(guess.as_bytes()), "{name} in clear");
        assert!(!contains(blake3::hash(guess.as_bytes()).as_bytes()), "{name} hashed without a key");
        for other in [[0; 32], sealing] {
            assert!(!contains(&directory_hash(&other, &guess)), "{name} under another key");
        }
    }
    // With it, guesses are confirmed: the README says so.
    let confirmed: Vec<_> = dictionary
        .into_iter()
        .filter(|name| contains(&directory_hash(&key, &format!("{name}@example.com"))))
        .collect();
    assert_eq!(confirmed, ["alice", "bob"]);
    world.end().await
}

#[tokio::test]
async fn who_is_removed_is_refused_before_the_mail_that_waits_has_crossed() -> Result<(), Trouble> {
    let mut world = world().await?;
    fresh(&world).await?;
    world.nodes.kill(Node::Big).await?;
    let letter = Letter { from: CAROL, to: ALICE, subject: "waits", token: Token { seed: 8, number: 1 } };
    let data = letter.text(SHORT);
    let make = move |number: u64| {
        let message = Outgoing { from: CAROL.into(), to: ALICE.into(), data: data.clone() };
        (number < BACKLOG).then_some(message)
    };
    let plan =
        Plan { to: world.smtp_address(), connections: 8, per_connection: 50, patience: SOON, login: None };
    assert_eq!(drive(plan, make, |_, _| {}).await.accepted, BACKLOG);
    world.nodes.start_big().await?;
    world.linked().await?;
    let remove = BigRequest::PersonRemove { name: "bob".into() };
    world.big().0.ask::<PersonView>(remove, Vec::new()).await?;
    until("bob is nobody any more", SOON, async || Ok((world.rcpt(BOB).await? == 550).then_some(()))).await?;
    let mail =
        world.edge_link().await?.lanes.into_iter().find(|lane| lane.lane == "inter").ok_or("a lane")?;
    assert!(mail.confirmed < mail.sent, "mail waits still: {mail:?}");
    world.quiet().await?;
    world.end().await
}
