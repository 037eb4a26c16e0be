//! A node's link key becomes another one: under load, with kills, and with a node that went back behind it.

use std::fs;
use std::path::Path;

use big_node::record::Folder;
use shared::report::{KeysView, LinkView};
use tests::control::Commands;
use tests::ledger::Token;
use tests::messages::{LONG, Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, without_trace};

const BOTH: [Node; 2] = [Node::Big, Node::Edge];

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

fn other(node: Node) -> Node {
    if node == Node::Big { Node::Edge } else { Node::Big }
}

fn commands(world: &World, node: Node) -> &Commands {
    match node {
        Node::Big => &world.nodes.big,
        Node::Edge => &world.nodes.edge,
    }
}

async fn link(world: &World, node: Node) -> Result<LinkView, Trouble> {
    match node {
        Node::Big => world.big().link().await,
        Node::Edge => world.edge_link().await,
    }
}

async fn keys(world: &World, node: Node) -> Result<KeysView, Trouble> {
    Ok(link(world, node).await?.keys)
}

async fn start(world: &mut World, node: Node) -> Result<(), Trouble> {
    match node {
        Node::Big => world.nodes.start_big().await.map(drop)?,
        Node::Edge => world.nodes.start_edge().await.map(drop)?,
    }
    Ok(())
}

fn letter(number: u64) -> Vec<u8> {
    let letter = Letter { from: CAROL, to: ALICE, subject: "rotates", token: Token { seed: 6, number } };
    if number.is_multiple_of(3) { letter.with_attachment("a.bin", LONG * 4) } else { letter.text(SHORT) }
}

/// Letters to alice that the edge has answered 250.
#[derive(Default)]
struct Letters(Vec<String>);

impl Letters {
    async fn more(&mut self, world: &World, count: u64) -> Result<(), Trouble> {
        for _ in 0..count {
            let number = self.0.len() as u64 + 1;
            self.0.push(world.receive(&[ALICE], &letter(number)).await?);
        }
        Ok(())
    }

    async fn are_filed_once(&self, world: &World) -> Result<(), Trouble> {
        let desk = world.desk("alice");
        for (number, id) in (1..).zip(&self.0) {
            desk.filed(Folder::In, id).await?;
            assert!(without_trace(&desk.raw(id).await?) == letter(number), "{number} is altered");
        }
        world.quiet().await?;
        assert_eq!(desk.messages(Folder::In).await?.len(), self.0.len(), "each is there once");
        Ok(())
    }
}

/// Waits until `node` has another key than `old` and its partner has pinned that one alone; the key.
async fn until_rotated(world: &World, node: Node, old: &str) -> Result<String, Trouble> {
    until(&format!("{node:?} has a new key, pinned alone"), SOON, async || {
        let (own, pinned) = (keys(world, node).await?, keys(world, other(node)).await?);
        let alone = own.own != old && own.own_next.is_none() && pinned.partner.as_ref() == Some(&own.own);
        let up = link(world, node).await?.connected;
        Ok((up && alone && pinned.partner_next.is_none()).then_some(own.own))
    })
    .await
}

/// Whom a kill hits, right after `link rotate`.
#[tokio::test(flavor = "multi_thread")]
async fn either_node_rotates_its_key_under_load_whoever_is_killed_meanwhile() -> Result<(), Trouble> {
    let (mut world, mut letters) = (world().await?, Letters::default());
    for node in BOTH {
        for killed in [None, Some(node), Some(other(node))] {
            letters.more(&world, 3).await?;
            let old = keys(&world, node).await?.own;
            let said = commands(&world, node).run(&["link", "rotate"]).await?;
            assert!(said.contains("a new key is made"), "{said}");
            if let Some(killed) = killed {
                world.nodes.kill(killed).await?;
                start(&mut world, killed).await?;
                world.linked().await?;
            }
            letters.more(&world, 3).await?;
            until_rotated(&world, node, &old).await?;
            let pinned = keys(&world, other(node)).await?;
            assert_eq!(pinned.partner_former.as_deref(), Some(old.as_str()), "the old key is refused");
        }
    }
    letters.are_filed_once(&world).await?;
    // What is on the disk is what counts.
    for node in BOTH {
        let before = keys(&world, node).await?;
        world.nodes.kill(node).await?;
        start(&mut world, node).await?;
        world.linked().await?;
        assert_eq!(keys(&world, node).await?, before);
    }
    world.well().await?;
    world.end().await
}

/// A rotation that the partner cannot be told of waits for it, is not begun twice, and survives a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_the_link() -> Result<(), Trouble> {
    let mut world = world().await?;
    for node in BOTH {
        let old = keys(&world, node).await?.own;
        commands(&world, other(node)).run(&["link", "hold"]).await?;
        commands(&world, node).run(&["link", "rotate"]).await?;
        let next = keys(&world, node).await?.own_next;
        let again = commands(&world, node).run(&["link", "rotate"]).await?;
        assert!(again.contains("nothing was done"), "{again}");
        world.nodes.kill(node).await?;
        start(&mut world, node).await?;
        let waiting = keys(&world, node).await?;
        assert_eq!((&waiting.own, &waiting.own_next), (&old, &next));
        assert!(next.is_some());
        let shown = commands(&world, node).run(&["link", "status"]).await?;
        assert!(shown.contains("next, not in use yet: "), "{shown}");
        commands(&world, other(node)).run(&["link", "release"]).await?;
        assert_eq!(Some(until_rotated(&world, node, &old).await?), next);
    }
    world.end().await
}

async fn back_up(world: &World, node: Node, folder: &Path) -> Result<(), Trouble> {
    commands(world, node).run(&["backup", folder.to_str().ok_or("UTF-8")?]).await?;
    Ok(())
}

async fn go_back(world: &mut World, node: Node, folder: &Path) -> Result<(), Trouble> {
    world.nodes.destroy(node).await?;
    commands(world, node).run(&["restore", folder.to_str().ok_or("UTF-8")?]).await?;
    start(world, node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_that_went_back_behind_a_rotation_learns_the_new_key_by_itself() -> Result<(), Trouble> {
    let (mut world, mut letters) = (world().await?, Letters::default());
    let backups = tempfile::tempdir()?;
    for node in BOTH {
        letters.more(&world, 3).await?;
        world.quiet().await?;
        let folder = backups.path().join(format!("{node:?}"));
        back_up(&world, other(node), &folder).await?;
        let old = keys(&world, node).await?.own;
        commands(&world, node).run(&["link", "rotate"]).await?;
        let new = until_rotated(&world, node, &old).await?;
        go_back(&mut world, other(node), &folder).await?;
        assert_eq!(until_rotated(&world, node, &old).await?, new, "the former key opens the link once");
        letters.more(&world, 3).await?;
    }
    letters.are_filed_once(&world).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_went_back_behind_its_rotation_is_refused_and_paired_anew() -> Result<(), Trouble> {
    for node in BOTH {
        let (mut world, mut letters) = (world().await?, Letters::default());
        letters.more(&world, 3).await?;
        world.quiet().await?;
        let backups = tempfile::tempdir()?;
        let folder = backups.path().join("node");
        back_up(&world, node, &folder).await?;
        let old = keys(&world, node).await?.own;
        commands(&world, node).run(&["link", "rotate"]).await?;
        let new = until_rotated(&world, node, &old).await?;
        letters.more(&world, 3).await?;
        world.quiet().await?;
        go_back(&mut world, node, &folder).await?;
        // The partner says what was shown to it, and keeps what it has pinned.
        until("the old key is refused, and an alarm", SOON, async || {
            let view = link(&world, other(node)).await?;
            let told = view.alarms.iter().any(|alarm| alarm.contains("had before its last rotation"));
            // The connection that was cut off by the kill may be thought alive for a while.
            Ok((told && !view.connected).then_some(()))
        })
        .await?;
        let pinned = keys(&world, other(node)).await?;
        assert_eq!((pinned.partner, pinned.partner_former), (Some(new), Some(old.clone())));
        let log = fs::read_to_string(world.nodes.topology.state.join(match node {
            Node::Big => "edge.log",
            Node::Edge => "big.log",
        }))?;
        let refusals = log.lines().filter(|line| line.contains("the partner's key is not the one")).count();
        assert_eq!(refusals, 1, "it goes on knocking, and is in the log once a minute:\n{log}");

        #[derive(serde::Deserialize)]
        struct Invitation {
            ticket: String,
        }
        let invitation: Invitation = world.nodes.edge.json(&["invite"]).await?;
        world.nodes.big.run(&["pair", "--replace", &invitation.ticket]).await?;
        world.linked().await?;
        assert_eq!(keys(&world, other(node)).await?.partner, Some(old));
        let view = link(&world, other(node)).await?;
        assert!(view.alarms.iter().all(|alarm| !alarm.contains("last rotation")), "{:?}", view.alarms);
        letters.more(&world, 2).await?;
        letters.are_filed_once(&world).await?;
        world.end().await?;
    }
    Ok(())
}
