//! What an operator decides by hand: about lanes, whose decisions are compared at the next contact, and
//! about dead letters.

use big_node::record::Folder;
use shared::report::{DeadLetterView, LinkView};
use tests::control::Commands;
use tests::damage::flip;
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, without_trace};

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

fn letter(number: u64) -> Vec<u8> {
    Letter { from: CAROL, to: ALICE, subject: "kept", token: Token { seed: 6, number } }.text(SHORT)
}

/// Both letters are in alice's mailbox, once.
async fn filed_once(world: &World, ids: &[(u64, String)]) -> Result<(), Trouble> {
    let desk = world.desk("alice");
    for (number, id) in ids {
        desk.filed(Folder::In, id).await?;
        assert!(without_trace(&desk.raw(id).await?) == letter(*number), "{number} is altered");
    }
    world.quiet().await?;
    assert_eq!(desk.messages(Folder::In).await?.len(), ids.len());
    Ok(())
}

/// A command that has to be refused; what it told the person.
async fn refusal(commands: &Commands, arguments: &[&str]) -> Result<String, Trouble> {
    match commands.run(arguments).await {
        Err(error) => error.refusal().map(str::to_owned).ok_or_else(|| error.into()),
        Ok(said) => Err(format!("{arguments:?} was done: {said}").into()),
    }
}

fn damage_of(link: &LinkView) -> Option<&String> {
    link.alarms.iter().find(|alarm| alarm.contains("damage"))
}

#[tokio::test]
async fn a_wrong_decision_about_a_lane_is_reported_and_loses_nothing() -> Result<(), Trouble> {
    let mut world = world().await?;
    let mut ids = vec![(1, world.receive(&[ALICE], &letter(1)).await?)];
    filed_once(&world, &ids).await?;
    let edge = &world.nodes.edge;
    for arguments in [
        &["link", "resolve", "inter", "--as", "stored"][..],
        &["link", "resolve", "inter", "--as", "not-stored"],
        &["link", "reset", "inter"],
        &["link", "adopt"],
    ] {
        let shown = edge.run(arguments).await?;
        assert!(shown.contains("with --yes") && shown.contains("inter: "), "{arguments:?}: {shown}");
        let refused = refusal(edge, &[arguments, &["--yes"]].concat()).await?;
        assert!(refused.contains("`link hold`"), "{arguments:?}: {refused}");
    }
    world.well().await?;

    world.nodes.kill(Node::Big).await?;
    for number in 2..=3 {
        ids.push((number, world.receive(&[ALICE], &letter(number)).await?));
    }
    let edge = &world.nodes.edge;
    edge.run(&["link", "hold"]).await?;
    let done = edge.run(&["link", "resolve", "inter", "--as", "stored", "--yes"]).await?;
    assert!(done.contains("units 2 to 3") && done.contains("`link release`"), "{done}");
    edge.run(&["link", "release"]).await?;
    let link = world.edge_link().await?;
    let inter = link.lanes.iter().find(|lane| lane.lane == "inter").ok_or("no lane")?;
    assert_eq!((inter.confirmed, inter.sent), (1, 3), "the next contact shows which of them are");
    let decided = link.decisions.last().ok_or("no record")?;
    assert_eq!((decided.decision.as_str(), &decided.outcome), ("stored", &None));
    world.nodes.start_big().await?;
    world.linked().await?;
    until("the edge says where big stood: it had the first only", SOON, async || {
        let lanes = world.edge_link().await?.lanes;
        let inter = lanes.into_iter().find(|lane| lane.lane == "inter").and_then(|lane| lane.partner);
        Ok(inter.filter(|there| there.received == 1).map(drop))
    })
    .await?;
    filed_once(&world, &ids).await?;
    let link = world.edge_link().await?;
    let damage = damage_of(&link).ok_or_else(|| format!("no alarm says so: {:?}", link.alarms))?;
    assert!(damage.contains("inter") && damage.contains("units 2 to 3"), "{damage}");
    world.end().await
}

#[tokio::test]
async fn a_right_decision_about_a_lane_is_no_alarm() -> Result<(), Trouble> {
    let mut world = world().await?;
    let mut ids = vec![(1, world.receive(&[ALICE], &letter(1)).await?)];
    filed_once(&world, &ids).await?;
    for (number, decision) in [(2, &["resolve", "inter", "--as", "not-stored"][..]), (3, &["reset", "inter"])]
    {
        world.nodes.kill(Node::Big).await?;
        ids.push((number, world.receive(&[ALICE], &letter(number)).await?));
        let edge = &world.nodes.edge;
        edge.run(&["link", "hold"]).await?;
        edge.run(&[&["link"], decision, &["--yes"]].concat()).await?;
        world.nodes.start_big().await?;
        edge_is_held(&world).await?;
        world.nodes.edge.run(&["link", "release"]).await?;
        world.linked().await?;
        filed_once(&world, &ids).await?;
        world.well().await?;
    }
    world.end().await
}

/// The link does not come up while it is held, and the edge says why.
async fn edge_is_held(world: &World) -> Result<(), Trouble> {
    until("big has tried", SOON, async || Ok((!world.big().link().await?.alarms.is_empty()).then_some(())))
        .await?;
    let link = world.edge_link().await?;
    assert!(!link.connected);
    assert!(link.alarms.iter().any(|alarm| alarm.contains("`link release`")), "{:?}", link.alarms);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_is_shown_and_retried_after_the_mend_or_dropped() -> Result<(), Trouble> {
    let mut world = world().await?;
    world.nodes.stop(Node::Big).await?;
    let mended = world.receive(&[ALICE], &letter(1)).await?;
    let dropped = world.receive(&[ALICE], &letter(2)).await?;
    let state = world.nodes.state_of(Node::Edge);
    world.nodes.stop(Node::Edge).await?;
    for id in [&mended, &dropped] {
        flip(&state, id)?;
    }
    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    let dead = async || -> Result<Vec<DeadLetterView>, Trouble> {
        Ok(world.nodes.edge.json(&["queue", "dead", "list"]).await?)
    };
    let letters = until("both are given up", SOON, async || {
        let letters = dead().await?;
        Ok((letters.len() == 2).then_some(letters))
    })
    .await?;
    assert_eq!(letters.iter().map(|letter| &letter.id).collect::<Vec<_>>(), [&mended, &dropped]);
    assert!(letters.iter().all(|letter| letter.with_body && !letter.inbound && letter.lane == "inter"));
    let alarms = world.edge_link().await?.alarms;
    assert!(alarms.iter().any(|alarm| alarm.contains("2 dead letters")), "{alarms:?}");
    let shown = world.nodes.edge.run(&["queue", "dead", "show", &mended]).await?;
    assert!(shown.contains(&mended) && shown.contains(&letters[0].reason), "{shown}");

    // Without the mend it only dies again.
    world.nodes.edge.run(&["queue", "dead", "retry", &mended]).await?;
    until("it is refused again", SOON, async || Ok((dead().await?.len() == 2).then_some(()))).await?;
    assert!(world.desk("alice").messages(Folder::In).await?.is_empty());
    world.nodes.stop(Node::Edge).await?;
    flip(&state, &mended)?;
    world.nodes.start_edge().await?;
    world.linked().await?;
    world.nodes.edge.run(&["queue", "dead", "retry", &mended]).await?;
    world.nodes.edge.run(&["queue", "dead", "drop", &dropped]).await?;
    filed_once(&world, &[(1, mended.clone())]).await?;
    for command in ["show", "retry", "drop"] {
        let refused = refusal(&world.nodes.edge, &["queue", "dead", command, &dropped]).await?;
        assert!(refused.contains("`queue dead`"), "{refused}");
    }
    world.quiet().await?;
    // Big goes on saying what it has refused; nothing else is wrong.
    let alarms = world.big().link().await?.alarms;
    let refused = |alarm: &String| alarm.starts_with("3 units of the edge's were refused here");
    assert!(alarms.len() == 1 && alarms.iter().all(refused), "{alarms:?}");
    assert!(world.edge_link().await?.alarms.is_empty());
    world.end().await
}
