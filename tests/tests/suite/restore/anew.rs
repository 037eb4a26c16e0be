//! A node whose store is gone: the other one is warm, and gives it again what it has.

use std::fs;

use big_node::record::{Scope, WindowState};
use big_node::request::{Sent, Started};
use edge_node::request::{DeadCommand, Held, Request as EdgeRequest};
use shared::report::DeadLetterView;
use shared::unit::DeliveryState;
use tests::client::pop3::Pop3Client;
use tests::process::Node;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World};

use super::{
    Received, SLOW, arrived, keep_waiting, maildrop_holds, send, set_out, until_arrived, until_is, world,
};

/// A pair at work: three messages received, which a traveller has with them, one sent, and one that waits to leave.
struct Before {
    world: World,
    received: Received,
    trip: Started,
    waits: Sent,
}

impl Before {
    async fn of() -> Result<Self, Trouble> {
        let world = world().await?;
        keep_waiting(&world, SLOW);
        let mut received = Received::default();
        received.more(&world, 3).await?;
        received.are_filed_once(&world).await?;
        let trip = set_out(&world, Scope::All).await?;
        let before = send(&world, CAROL, "before").await?;
        until_is(&world, &before, DeliveryState::Relayed).await?;
        let waits = send(&world, SLOW, "waits").await?;
        until_is(&world, &waits, DeliveryState::Deferred).await?;
        Ok(Self { world, received, trip, waits })
    }
}

/// The edge's store is gone; with `keys`, its keys are not.
async fn begins_anew(keys: bool) -> Result<(), Trouble> {
    let Before { mut world, mut received, trip, waits } = Before::of().await?;
    let unique = maildrop_holds(&world, &trip, &[1, 2, 3]).await?;
    world.quiet().await?;

    let state = world.nodes.state_of(Node::Edge);
    if keys {
        world.nodes.kill(Node::Edge).await?;
        fs::remove_dir_all(state.join("store"))?;
    } else {
        world.nodes.destroy(Node::Edge).await?;
    }
    let key = fs::read(state.join("keys/sealing.key")).ok();
    world.nodes.edge.run(&["init"]).await?;
    let now = fs::read(state.join("keys/sealing.key"))?;
    assert_eq!(key.is_some_and(|key| key == now), keys, "keys that are there are kept");
    world.nodes.start_edge().await?;
    until("big says what has to be done", SOON, async || {
        let link = world.big().link().await?;
        Ok(link.alarms.iter().any(|alarm| alarm.contains("--replace")).then_some(()))
    })
    .await?;
    assert_eq!(world.rcpt(ALICE).await?, 451, "unknown is temporary while there is no directory");

    let ticket = world.nodes.edge.run(&["invite"]).await?;
    let refused = world.nodes.big.run(&["pair", ticket.trim()]).await.expect_err("there is an edge");
    assert!(refused.refusal().is_some_and(|text| text.contains("--replace")), "{refused}");
    world.internet.mta.clear_rules();
    world.nodes.big.run(&["pair", "--replace", ticket.trim()]).await?;
    until_is(&world, &waits, DeliveryState::Relayed).await?;
    until_arrived(&world, "waits").await?;
    assert_eq!(maildrop_holds(&world, &trip, &[1, 2, 3]).await?, unique, "no client takes one for another");
    // What SCRAM tells of a name follows from big, so its clients need not be told of another edge.
    let pop3s = *world.nodes.edge_ready().pop3s.first().ok_or("the topology has one")?;
    let mut session = Pop3Client::connect_tls(pop3s).await?;
    session.login_scram(&trip.user, &trip.password, false).await?;
    session.quit().await?;
    received.more(&world, 1).await?;
    received.are_filed_once(&world).await?;
    assert_eq!(world.rcpt("nobody@example.com").await?, 550, "the directory is whole");
    world.well().await?;
    assert_eq!((arrived(&world, "before"), arrived(&world, "waits")), (1, 1));
    let open = world.big().windows().await?.iter().filter(|window| window.state == WindowState::Open).count();
    assert_eq!(open, 1);
    world.end().await
}

#[tokio::test]
async fn an_edge_that_lost_its_store_is_given_everything_again() -> Result<(), Trouble> {
    begins_anew(true).await
}

#[tokio::test]
async fn another_edge_in_its_place_is_given_everything_again() -> Result<(), Trouble> {
    begins_anew(false).await
}

/// How big's store was lost, and what the operator of the edge does about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// Its keys are kept; big is paired anew.
    Store,
    /// The same, and the edge was told before by `link adopt` to take another store.
    StoreAndAdopted,
    /// Its keys are gone, too.
    Keys,
}

/// Big's store is gone. The edge has what it had accepted for big and what waits to leave.
async fn big_begins_anew(lost: Lost) -> Result<(), Trouble> {
    let Before { mut world, mut received, trip, .. } = Before::of().await?;
    maildrop_holds(&world, &trip, &[1, 2, 3]).await?;
    world.quiet().await?;

    let state = world.nodes.state_of(Node::Big);
    if lost == Lost::Keys {
        world.nodes.destroy(Node::Big).await?;
    } else {
        world.nodes.kill(Node::Big).await?;
        fs::remove_dir_all(state.join("store"))?;
    }
    received.more(&world, 2).await?;
    let key = fs::read(state.join("keys/sealing.key")).ok();
    world.nodes.big.run(&["init"]).await?;
    let now = fs::read(state.join("keys/sealing.key"))?;
    assert_eq!(key.is_some_and(|key| key == now), lost != Lost::Keys, "keys that are there are kept");
    world.nodes.start_big().await?;
    // Before it is paired, for what comes for somebody who is not here goes back to its sender.
    world.add_people().await?;
    until("big says what has to be done", SOON, async || {
        let alarms = world.big().link().await?.alarms;
        Ok(alarms.iter().any(|alarm| alarm.contains("edge-node invite")).then_some(()))
    })
    .await?;
    assert_eq!(world.rcpt(ALICE).await?, 250, "the edge goes on");

    if lost == Lost::StoreAndAdopted {
        for command in [&["link", "hold"][..], &["link", "adopt", "--yes"], &["link", "release"]] {
            world.nodes.edge.run(command).await?;
        }
        let queue = world.edge_queue().await?;
        assert!(queue.iter().all(|queued| queued.held == Some(Held::Restored)), "{queue:?}");
    }
    let ticket = world.nodes.edge.run(&["invite"]).await?;
    world.nodes.big.run(&["pair", "--replace", ticket.trim()]).await?;
    world.linked().await?;
    world.internet.mta.clear_rules();
    // What waits to leave is not big's any more, and leaves.
    until_arrived(&world, "waits").await?;
    until("the edge has nothing left to deliver", SOON, async || {
        Ok(world.edge_queue().await?.is_empty().then_some(()))
    })
    .await?;
    if lost == Lost::Keys {
        // Nobody can open what was sealed for the former big: it is said, and an operator drops it.
        let dead: Vec<DeadLetterView> = until("what cannot be opened is listed", SOON, async || {
            let dead: Vec<DeadLetterView> =
                world.edge().ask(EdgeRequest::QueueDead(DeadCommand::List), Vec::new()).await?.0;
            Ok((dead.len() >= received.0.len()).then_some(dead))
        })
        .await?;
        let mut ids: Vec<_> = dead.iter().map(|letter| letter.id.as_str()).collect();
        let mut lost: Vec<_> = received.0.iter().map(|(_, id)| id.as_str()).collect();
        ids.sort_unstable();
        lost.sort_unstable();
        assert_eq!(ids, lost);
        for id in ids {
            world.nodes.edge.run(&["queue", "dead", "drop", id]).await?;
        }
        received.0.clear();
    }
    received.more(&world, 1).await?;
    received.are_filed_once(&world).await?;
    until("the window that nobody knows is ended", SOON, async || {
        Ok(world.pop3s(&trip.user, &trip.password).await.is_err().then_some(()))
    })
    .await?;
    assert_eq!(world.rcpt("nobody@example.com").await?, 550, "the directory is whole");
    let again = send(&world, CAROL, "as ever").await?;
    until_is(&world, &again, DeliveryState::Relayed).await?;
    if lost == Lost::Keys {
        // Big says for a day that it has refused what it cannot open.
        world.quiet().await?;
        let alarms = world.big().link().await?.alarms;
        assert!(alarms.len() == 1 && alarms[0].contains("for another key"), "{alarms:?}");
        let alarms = world.edge_link().await?.alarms;
        assert!(alarms.is_empty(), "{alarms:?}");
    } else {
        world.well().await?;
    }
    for subject in ["before", "waits", "as ever"] {
        assert_eq!(arrived(&world, subject), 1, "{subject}");
    }
    world.end().await
}

#[tokio::test]
async fn a_big_that_lost_its_store_is_given_what_the_edge_has() -> Result<(), Trouble> {
    big_begins_anew(Lost::Store).await
}

#[tokio::test]
async fn a_big_that_lost_its_store_and_is_adopted_is_given_what_the_edge_has() -> Result<(), Trouble> {
    big_begins_anew(Lost::StoreAndAdopted).await
}

#[tokio::test]
async fn another_big_in_its_place_is_told_what_it_cannot_open() -> Result<(), Trouble> {
    big_begins_anew(Lost::Keys).await
}
