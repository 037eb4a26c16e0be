//! What both nodes have stored of a lane differs: that lane stands still with everything that there is on both, the
//! others go on, and the command that the alarm names mends it.

use std::fs;

use big_node::record::Folder;
use link_proto::frame::REJECTIONS_MAX;
use link_proto::unit::{Body, Position, Unit};
use shared::lane::{self, Arrival, LanePosition, NotApplied, QueuedBody, QueuedUnit};
use shared::report::LinkView;
use shared::state::State;
use shared::store::{StoreError, Txn};
use tests::ledger::Token;
use tests::messages::{LONG, Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, without_trace};

/// The lane that stops.
const LANE: u8 = 2;
const NAME: &str = "inter";

fn letter(number: u64, large: bool) -> Vec<u8> {
    let letter = Letter { from: CAROL, to: ALICE, subject: "whole", token: Token { seed: 9, number } };
    if large { letter.with_attachment("a.bin", LONG * 4) } else { letter.text(SHORT) }
}

/// A node that has stopped claims of the lane that it has `more` units, under another digest.
async fn alter(world: &World, node: Node, more: u64) -> Result<(), Trouble> {
    let store = State::open(&world.nodes.state_of(node))?.store()?;
    let received = lane::state(&store.read()?, LANE)?.received;
    let altered = LanePosition { number: received.number + more, chain: [0xa5; 32] };
    store.commit(move |txn| lane::received(txn, LANE, received, altered)).await?;
    Ok(())
}

/// What is said of the lane that has stopped.
fn stop(link: &LinkView) -> Option<&String> {
    link.alarms.iter().find(|alarm| alarm.starts_with(&format!("the {NAME} lane has stopped")))
}

/// Mail from outside stops on its way from the edge: big claims something else than the edge has sent. `more`: of units
/// that are in doubt; `mend` is what the alarm names.
async fn big_claims_another_past(more: u64, mend: &[&str]) -> Result<(), Trouble> {
    let mut world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let desk = world.desk("alice");
    let mut sent = Vec::new();
    for number in 1..=3 {
        sent.push((letter(number, false), world.receive(&[ALICE], &letter(number, false)).await?));
    }
    for (_, id) in &sent {
        desk.filed(Folder::In, id).await?;
    }
    world.quiet().await?;
    world.nodes.stop(Node::Big).await?;
    // Of what is in doubt there is more than big claims.
    for number in 4..=6 {
        sent.push((letter(number, false), world.receive(&[ALICE], &letter(number, false)).await?));
    }
    alter(&world, Node::Big, more).await?;
    world.nodes.start_big().await?;
    world.linked().await?;
    until("both nodes say which lane has stopped, and what mends it", SOON, async || {
        let (big, edge) = (world.big().link().await?, world.edge_link().await?);
        let names =
            |link: &LinkView| stop(link).is_some_and(|alarm| alarm.contains(&format!("`link {}`", mend[0])));
        Ok((names(&big) && names(&edge)).then_some(()))
    })
    .await?;
    for name in ["big.log", "edge.log"] {
        let log = fs::read_to_string(world.nodes.topology.state.join(name))?;
        let said =
            |line: &str| line.contains("a lane of the link stands still") && line.contains("link resolve");
        assert!(log.lines().any(said), "{name} says nothing of it");
    }

    // The other lanes go on, and this one the other way.
    let large = world.receive(&[ALICE], &letter(7, true)).await?;
    desk.filed(Folder::In, &large).await?;
    world.nodes.big.run(&["person", "add", "dave"]).await?;
    until("dave is known", SOON, async || Ok((world.rcpt("dave@example.com").await? == 250).then_some(())))
        .await?;
    let outward = desk.send(CAROL, "outward", "text\n").await?;
    desk.relayed(&outward.id).await?;
    // What stands is on the edge, whole, and the next connection finds it as it was.
    let waits = |link: &LinkView| {
        link.lanes.iter().find(|lane| lane.lane == NAME).map(|lane| lane.sent - lane.confirmed)
    };
    assert_eq!(waits(&world.edge_link().await?), Some(3));
    world.nodes.edge.run(&["link", "hold"]).await?;
    world.nodes.edge.run(&["link", "release"]).await?;
    world.linked().await?;
    until("the lane stands still again", SOON, async || Ok(stop(&world.edge_link().await?).map(drop)))
        .await?;
    assert_eq!(desk.messages(Folder::In).await?.len(), 4, "three, and the large one");

    let edge = &world.nodes.edge;
    let command = [&["link"], mend].concat();
    let shown = edge.run(&command).await?;
    assert!(shown.contains("--yes") && shown.contains(NAME), "{shown}");
    assert_eq!(waits(&world.edge_link().await?), Some(3), "nothing was done");
    edge.run(&["link", "hold"]).await?;
    edge.run(&[&command[..], &["--yes"]].concat()).await?;
    edge.run(&["link", "release"]).await?;
    world.linked().await?;
    sent.push((letter(7, true), large));
    for (letter, id) in &sent {
        desk.filed(Folder::In, id).await?;
        assert!(without_trace(&desk.raw(id).await?) == *letter, "{id} is altered");
    }
    world.well().await?;
    assert_eq!(desk.messages(Folder::In).await?.len(), sent.len(), "each is there once");
    let decided = world.edge_link().await?.decisions;
    let told = |said: &String| said.contains("as decided");
    assert!(
        decided.iter().any(|one| one.lane == NAME && one.outcome.as_ref().is_some_and(told)),
        "{decided:?}"
    );
    world.end().await
}

#[tokio::test]
async fn a_lane_whose_past_differs_stops_alone_and_goes_on_when_its_doubt_is_resolved() -> Result<(), Trouble>
{
    big_claims_another_past(0, &["resolve", NAME, "--as", "not-stored"]).await
}

#[tokio::test]
async fn a_lane_whose_units_in_doubt_differ_stops_alone_and_goes_on_when_it_is_reset() -> Result<(), Trouble>
{
    big_claims_another_past(1, &["reset", NAME]).await
}

/// While both nodes are stopped: the edge has these units in its queue, and big has refused each of them, which the edge does
/// not know, as if its store had gone back to before it was told.
async fn refuse_untold(world: &World, units: Vec<QueuedUnit>) -> Result<(), Trouble> {
    let [edge, big] = [Node::Edge, Node::Big]
        .map(|node| State::open(&world.nodes.state_of(node)).map(|state| state.store()));
    let (edge, big) = (edge??, big??);
    let queued = units.clone();
    edge.commit(move |txn| queued.iter().try_for_each(|unit| lane::queue(txn, unit).map(drop))).await?;
    let from = lane::state(&big.read()?, LANE)?.received;
    big.commit(move |txn| {
        let mut position = Position { number: from.number, chain: from.chain };
        for QueuedUnit { id, head, .. } in units {
            let number = position.number + 1;
            position = position.after(&Unit { number, id, after: None, head: head.into(), body: Body::None });
            let arrival = Arrival { lane: LANE, number, id, after: None, alone: None };
            let never = |_: &mut Txn<'_>| Err(NotApplied::Never("it was nothing".into()));
            lane::take(txn, arrival, 0, |_, _| Ok(false), never, |_, _| Ok(()))?;
        }
        let to = LanePosition { number: position.number, chain: position.chain };
        lane::received(txn, LANE, from, to)?;
        Ok::<_, StoreError>(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_lane_whose_sender_cannot_be_told_all_again_says_so_and_goes_on_when_it_is_reset()
-> Result<(), Trouble> {
    let mut world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let desk = world.desk("alice");
    let first = world.receive(&[ALICE], &letter(1, false)).await?;
    desk.filed(Folder::In, &first).await?;
    world.quiet().await?;
    world.nodes.stop(Node::Edge).await?;
    world.nodes.stop(Node::Big).await?;
    let unit = |number: u64| {
        let mut id = [0xa5; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        QueuedUnit { id, lane: LANE, after: None, head: b"no head".to_vec(), body: QueuedBody::None }
    };
    refuse_untold(&world, (0..=REJECTIONS_MAX as u64).map(unit).collect()).await?;
    world.nodes.start_big().await?;
    world.nodes.start_edge().await?;
    world.linked().await?;
    until("big says what the lane waits for, and what mends it", SOON, async || {
        let link = world.big().link().await?;
        let Some(alarm) = stop(&link) else { return Ok(None) };
        let commands = ["`link hold`", "`link reset`", "`link release`", "on the sending side"];
        assert!(alarm.contains("more refused and deferred units than a CONFIRMED holds"), "{alarm}");
        assert!(commands.iter().all(|command| alarm.contains(command)), "{alarm}");
        Ok(Some(()))
    })
    .await?;

    // The other lanes go on; this one waits.
    let behind = world.receive(&[ALICE], &letter(2, false)).await?;
    let large = world.receive(&[ALICE], &letter(3, true)).await?;
    desk.filed(Folder::In, &large).await?;
    assert_eq!(desk.messages(Folder::In).await?.len(), 2, "what is behind waits");
    let edge = &world.nodes.edge;
    edge.run(&["link", "hold"]).await?;
    edge.run(&["link", "reset", NAME, "--yes"]).await?;
    edge.run(&["link", "release"]).await?;
    world.linked().await?;
    desk.filed(Folder::In, &behind).await?;
    assert_eq!(stop(&world.big().link().await?), None);
    assert_eq!(desk.messages(Folder::In).await?.len(), 3, "each is there once");
    world.end().await
}
