//! Nodes that went back, by a restore, by a snapshot put back by hand, or to nothing: what was promised
//! since is there again, and nothing is there twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use big_node::record::{Folder, Scope};
use big_node::request::{Request as BigRequest, Sent, Started, Terms};
use edge_node::request::Held;
use shared::report::LinkView;
use shared::unit::DeliveryState;
use tests::internet::rules::{Rule, Stage};
use tests::ledger::Token;
use tests::messages::{LONG, Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, without_trace};

mod anew;

/// Somebody outside whose host may have nobody answered.
const SLOW: &str = "slow@remote.example";

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

fn letter(number: u64) -> Vec<u8> {
    let letter = Letter { from: CAROL, to: ALICE, subject: "kept", token: Token { seed: 5, number } };
    // Every third is large: its body goes ahead of its unit.
    if number.is_multiple_of(3) { letter.with_attachment("a.bin", LONG * 4) } else { letter.text(SHORT) }
}

/// Numbered letters to alice that the edge has answered 250, and their ids.
#[derive(Default)]
struct Received(Vec<(u64, String)>);

impl Received {
    async fn more(&mut self, world: &World, count: u64) -> Result<(), Trouble> {
        for _ in 0..count {
            let number = self.0.len() as u64 + 1;
            self.0.push((number, world.receive(&[ALICE], &letter(number)).await?));
        }
        Ok(())
    }

    /// The same, all of them large.
    async fn more_large(&mut self, world: &World, count: u64) -> Result<(), Trouble> {
        for _ in 0..count {
            let number = 3 * (self.0.len() as u64 + 1);
            self.0.push((number, world.receive(&[ALICE], &letter(number)).await?));
        }
        Ok(())
    }

    /// Each is in alice's mailbox as it was sent, and nothing else is.
    async fn are_filed_once(&self, world: &World) -> Result<(), Trouble> {
        let desk = world.desk("alice");
        for (number, id) in &self.0 {
            desk.filed(Folder::In, id).await?;
            assert!(without_trace(&desk.raw(id).await?) == letter(*number), "{number} is altered");
        }
        world.quiet().await?;
        assert_eq!(desk.messages(Folder::In).await?.len(), self.0.len(), "each is there once");
        Ok(())
    }
}

/// Alice sends to somebody outside.
async fn send(world: &World, to: &str, subject: &str) -> Result<Sent, Trouble> {
    world.desk("alice").send(to, subject, "text\n").await
}

async fn until_is(world: &World, sent: &Sent, state: DeliveryState) -> Result<(), Trouble> {
    until(&format!("{} is {state:?}", sent.id), SOON, async || {
        let recipients = world.desk("alice").status(&sent.id).await?.recipients;
        Ok(recipients.iter().all(|recipient| recipient.state == state).then_some(()))
    })
    .await
}

/// How often a subject has arrived outside.
fn arrived(world: &World, subject: &str) -> usize {
    let line = format!("\r\nSubject: {subject}\r\n");
    let holds = |data: &[u8]| memchr::memmem::find(data, line.as_bytes()).is_some();
    world.internet.mta.mail().iter().filter(|mail| holds(&mail.data)).count()
}

async fn until_arrived(world: &World, subject: &str) -> Result<(), Trouble> {
    until(&format!("{subject} arrives outside"), SOON, async || {
        Ok((arrived(world, subject) > 0).then_some(()))
    })
    .await
}

/// Nobody at that address is answered before the rules are cleared.
fn keep_waiting(world: &World, address: &str) {
    world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 450, "4.2.1 later").only_for(address));
}

/// Alice travels, and the edge knows it.
async fn set_out(world: &World, scope: Scope) -> Result<Started, Trouble> {
    world.set_out("alice", Terms { scope, ..Terms::default() }).await
}

/// Waits until the maildrop holds exactly these messages; the unique-id of each.
async fn maildrop_holds(
    world: &World,
    trip: &Started,
    numbers: &[u64],
) -> Result<BTreeMap<Vec<u8>, String>, Trouble> {
    let mut session = world.collect_when(trip, numbers.len() as u64).await?;
    let mut expected: Vec<_> = numbers.iter().map(|number| letter(*number)).collect();
    let mut held = BTreeMap::new();
    for (number, unique) in session.uidl().await? {
        let message = session.retr(number).await?;
        let content = without_trace(&message);
        let place = expected.iter().position(|letter| letter == content).ok_or("an altered copy")?;
        held.insert(expected.swap_remove(place), unique);
    }
    session.quit().await?;
    assert!(expected.is_empty(), "{} messages are not there", expected.len());
    Ok(held)
}

async fn backup(world: &World, node: Node, folder: &Path) -> Result<(), Trouble> {
    let folder = folder.to_str().ok_or("UTF-8")?;
    let said = commands(world, node).run(&["backup", folder]).await?;
    assert!(said.contains("with the keys"), "{said}");
    Ok(())
}

fn commands(world: &World, node: Node) -> &tests::control::Commands {
    if node == Node::Big { &world.nodes.big } else { &world.nodes.edge }
}

/// A node's disk is lost, and its state is made from the backup.
async fn restore(world: &mut World, node: Node, folder: &Path) -> Result<(), Trouble> {
    world.nodes.destroy(node).await?;
    commands(world, node).run(&["restore", folder.to_str().ok_or("UTF-8")?]).await?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Trouble> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let (entry, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            copy(&entry, &target)?;
        } else if entry.is_file() {
            fs::copy(&entry, &target)?;
        }
    }
    Ok(())
}

fn stopped(link: &LinkView, lane: &str) -> Option<String> {
    link.alarms.iter().find(|alarm| alarm.starts_with(&format!("the {lane} lane has stopped"))).cloned()
}

#[tokio::test]
async fn a_big_that_was_restored_is_given_again_what_it_lost() -> Result<(), Trouble> {
    let mut world = world().await?;
    let refuses = Rule::reply(Stage::Rcpt, 550, "5.2.1 closed").only_for("closed@remote.example");
    world.internet.mta.add_rule(refuses);
    keep_waiting(&world, SLOW);
    let (alice, bob) = (world.desk("alice"), world.desk("bob"));
    let mut received = Received::default();
    received.more(&world, 2).await?;
    received.are_filed_once(&world).await?;
    let before = send(&world, CAROL, "before the backup").await?;
    until_is(&world, &before, DeliveryState::Relayed).await?;
    let waits = send(&world, SLOW, "waits at the backup").await?;
    until_is(&world, &waits, DeliveryState::Deferred).await?;
    bob.send("closed@remote.example", "fails before", "text\n").await?;
    let told = bob.arrival(Folder::In, "bob is told of the failure", |_| true).await?;
    world.quiet().await?;

    let backups = tempfile::tempdir()?;
    let folder = backups.path().join("big");
    backup(&world, Node::Big, &folder).await?;

    // All of this big forgets.
    received.more(&world, 4).await?;
    received.are_filed_once(&world).await?;
    alice.send(BOB, "at home", "text\n").await?;
    world.big().0.ask::<serde_json::Value>(delete("alice", &received.0[0].1), Vec::new()).await?;
    world.internet.mta.clear_rules();
    until_is(&world, &waits, DeliveryState::Relayed).await?;
    let after = send(&world, CAROL, "after the backup").await?;
    until_is(&world, &after, DeliveryState::Relayed).await?;
    world.nodes.big.run(&["person", "add", "dave"]).await?;
    until("dave is known", SOON, async || Ok((world.rcpt("dave@example.com").await? == 250).then_some(())))
        .await?;
    let trip = set_out(&world, Scope::All).await?;
    // Five are in her mailbox: six came, and one was deleted.
    let mut session = world.collect_when(&trip, 5).await?;
    session.retr(1).await?;
    session.dele(1).await?;
    session.quit().await?;
    world.quiet().await?;

    restore(&mut world, Node::Big, &folder).await?;
    // What comes in while it is away is not mixed up with what it has to be given again.
    received.more(&world, 1).await?;
    world.nodes.start_big().await?;
    received.are_filed_once(&world).await?;
    until("dave, of whom big knows nothing, is unknown at the edge", SOON, async || {
        Ok((world.rcpt("dave@example.com").await? == 550).then_some(()))
    })
    .await?;
    assert_eq!(world.rcpt(BOB).await?, 250);
    assert!(world.pop3s(&trip.user, &trip.password).await.is_err(), "the window is ended at the edge");
    until_is(&world, &waits, DeliveryState::Relayed).await?;
    world.well().await?;
    let reports = bob.messages(Folder::In).await?;
    assert_eq!(reports.iter().map(|line| &line.id).collect::<Vec<_>>(), [&told.id], "told once");
    for subject in ["before the backup", "waits at the backup", "after the backup"] {
        assert_eq!(arrived(&world, subject), 1, "{subject}");
    }
    assert!(world.edge_queue().await?.is_empty());

    let again = send(&world, CAROL, "as ever").await?;
    until_is(&world, &again, DeliveryState::Relayed).await?;
    received.more(&world, 1).await?;
    received.are_filed_once(&world).await?;
    world.end().await
}

#[tokio::test]
async fn what_is_older_than_the_safety_store_is_listed_and_gone_on_without() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut world = World::with(program, |topology| topology.safety_bytes = 1 << 20).await?;
    let mut received = Received::default();
    received.more_large(&world, 1).await?;
    received.are_filed_once(&world).await?;
    let backups = tempfile::tempdir()?;
    let folder = backups.path().join("big");
    backup(&world, Node::Big, &folder).await?;
    received.more_large(&world, 8).await?;
    received.are_filed_once(&world).await?;
    until("the safety store gives up something since the backup", SOON, async || {
        let lanes = world.edge_link().await?.lanes;
        Ok(lanes.iter().any(|lane| lane.lane == "batch" && lane.trimmed > 1).then_some(()))
    })
    .await?;

    restore(&mut world, Node::Big, &folder).await?;
    world.nodes.start_big().await?;
    let gone = until("the edge lists what is gone", SOON, async || {
        let (big, edge) = (world.big().link().await?, world.edge_link().await?);
        let stops = stopped(&big, "batch").zip(stopped(&edge, "batch"));
        let older = |stop: &str| stop.contains("older than the safety store");
        let both = stops.is_some_and(|(big, edge)| older(&big) && older(&edge));
        Ok((both && !edge.missing.is_empty()).then_some(edge.missing))
    })
    .await?;
    // The backup has the first; the safety store has the last ones.
    let ids: Vec<_> = received.0.iter().map(|(_, id)| id.as_str()).collect();
    let listed: Vec<_> = gone.iter().map(|gone| gone.id.as_str()).collect();
    assert_eq!(listed, ids[1..=gone.len()]);
    assert!(gone.len() < 8, "{gone:?}");
    for unit in &gone {
        assert_eq!(unit.lane, "batch");
        assert!(unit.octets > 150_000, "{unit:?}");
        assert!(unit.from.as_ref().is_some_and(|from| from.contains("from 127.0.0.1")), "{unit:?}");
    }
    let alarms = world.edge_link().await?.alarms;
    let told = |alarm: &&String| alarm.contains(&gone[0].id) && alarm.contains("`link adopt --yes`");
    assert_eq!(alarms.iter().filter(told).count(), 1, "{alarms:?}");
    let edge = &world.nodes.edge;
    for asked in [&["link", "adopt"][..], &["link", "status"]] {
        let shown = edge.run(asked).await?;
        assert!(gone.iter().all(|unit| shown.contains(&unit.id)), "{asked:?}: {shown}");
    }

    edge.run(&["link", "hold"]).await?;
    edge.run(&["link", "adopt", "--yes"]).await?;
    edge.run(&["link", "release"]).await?;
    received.0.retain(|(_, id)| gone.iter().all(|unit| unit.id != *id));
    received.are_filed_once(&world).await?;
    world.well().await?;
    let link = world.edge_link().await?;
    assert!(link.missing.is_empty());
    let batch = link.decisions.iter().find(|decision| decision.lane == "batch").ok_or("no record")?;
    assert_eq!(batch.missing, gone.iter().map(|unit| unit.id.clone()).collect::<Vec<_>>());
    assert!(batch.outcome.as_ref().is_some_and(|said| said.contains("as decided")), "{batch:?}");
    received.more_large(&world, 1).await?;
    received.are_filed_once(&world).await?;
    world.end().await
}

fn delete(person: &str, message: &str) -> BigRequest {
    BigRequest::MailDelete { person: person.into(), message: message.into() }
}

#[tokio::test]
async fn an_edge_that_was_restored_is_told_what_has_become_of_its_mail() -> Result<(), Trouble> {
    let mut world = world().await?;
    keep_waiting(&world, SLOW);
    keep_waiting(&world, "late@remote.example");
    let mut received = Received::default();
    received.more(&world, 1).await?;
    received.are_filed_once(&world).await?;
    let trip = set_out(&world, Scope::All).await?;
    let late = send(&world, "late@remote.example", "delivered after the backup").await?;
    let waits = send(&world, SLOW, "waits at the backup").await?;
    for sent in [&late, &waits] {
        until_is(&world, sent, DeliveryState::Deferred).await?;
    }
    // What its author has deleted for good has been sent all the same.
    let gone = send(&world, SLOW, "deleted by its author").await?;
    until_is(&world, &gone, DeliveryState::Deferred).await?;
    for _ in 0..2 {
        world.big().0.ask::<serde_json::Value>(delete("alice", &gone.id), Vec::new()).await?;
    }
    world.quiet().await?;
    let backups = tempfile::tempdir()?;
    let folder = backups.path().join("edge");
    backup(&world, Node::Edge, &folder).await?;

    world.internet.mta.clear_rules();
    keep_waiting(&world, SLOW);
    until_is(&world, &late, DeliveryState::Relayed).await?;
    received.more(&world, 3).await?;
    let sent = send(&world, CAROL, "sent after the backup").await?;
    until_is(&world, &sent, DeliveryState::Relayed).await?;
    let waits_too = send(&world, SLOW, "waits since").await?;
    until_is(&world, &waits_too, DeliveryState::Deferred).await?;
    let unique = maildrop_holds(&world, &trip, &[1, 2, 3, 4]).await?;
    received.are_filed_once(&world).await?;

    world.nodes.stop(Node::Big).await?;
    restore(&mut world, Node::Edge, &folder).await?;
    world.nodes.start_edge().await?;
    let queue = world.edge_queue().await?;
    assert_eq!(queue.len(), 3, "{queue:?}");
    assert!(
        queue.iter().all(|queued| queued.held == Some(Held::Restored)),
        "nothing leaves before big has spoken: {queue:?}"
    );
    world.internet.mta.clear_rules();
    world.nodes.start_big().await?;
    for sent in [&waits, &waits_too] {
        until_is(&world, sent, DeliveryState::Relayed).await?;
    }
    until_arrived(&world, "deleted by its author").await?;
    assert_eq!(
        maildrop_holds(&world, &trip, &[1, 2, 3, 4]).await?,
        unique,
        "no client takes one for another"
    );
    received.more(&world, 1).await?;
    received.are_filed_once(&world).await?;
    world.well().await?;
    for subject in [
        "delivered after the backup",
        "waits at the backup",
        "sent after the backup",
        "waits since",
        "deleted by its author",
    ] {
        assert_eq!(arrived(&world, subject), 1, "{subject}");
    }
    assert!(world.edge_queue().await?.is_empty());
    world.end().await
}

/// A snapshot of a node's state is put back by hand; its lanes stop until it is adopted there.
async fn put_back_and_adopted(node: Node, says: &str) -> Result<(), Trouble> {
    let mut world = world().await?;
    let mut received = Received::default();
    received.more(&world, 1).await?;
    received.are_filed_once(&world).await?;
    let backups = tempfile::tempdir()?;
    let (snapshot, state) = (backups.path().join("snapshot"), world.nodes.state_of(node));
    world.nodes.stop(node).await?;
    copy(&state, &snapshot)?;
    start(&mut world, node).await?;
    received.more(&world, 3).await?;
    received.are_filed_once(&world).await?;
    let before = send(&world, CAROL, "before").await?;
    until_is(&world, &before, DeliveryState::Relayed).await?;
    world.quiet().await?;

    world.nodes.destroy(node).await?;
    copy(&snapshot, &state)?;
    start(&mut world, node).await?;
    // Big's epoch went back with it, so it is refused until it has risen again.
    for lane in ["inter", "batch"] {
        until(&format!("both nodes raise an alarm about {lane}"), SOON, async || {
            let (big, edge) = (world.big().link().await?, world.edge_link().await?);
            let alarms = stopped(&big, lane).zip(stopped(&edge, lane));
            let told = |alarm: &str| alarm.contains(says) && alarm.contains("run `link adopt` there");
            Ok(alarms.filter(|(big, edge)| told(big) && told(edge)).map(drop))
        })
        .await?;
    }
    received.more(&world, 1).await?;
    for (node, log) in [(Node::Big, "big.log"), (Node::Edge, "edge.log")] {
        let log = fs::read_to_string(world.nodes.topology.state.join(log))?;
        assert!(log.contains("link adopt"), "{node:?}'s log does not say what to do");
    }
    let there = commands(&world, node);
    let shown = there.run(&["link", "adopt"]).await?;
    assert!(shown.contains("--yes"), "{shown}");
    let refused = there.run(&["link", "adopt", "--yes"]).await.expect_err("the link is up");
    assert!(refused.refusal().is_some_and(|text| text.contains("link hold")), "{refused}");
    assert!(stopped(&world.edge_link().await?, "inter").is_some(), "nothing was done");
    there.run(&["link", "hold"]).await?;
    there.run(&["link", "adopt", "--yes"]).await?;
    there.run(&["link", "release"]).await?;
    received.are_filed_once(&world).await?;
    let after = send(&world, CAROL, "after").await?;
    until_is(&world, &after, DeliveryState::Relayed).await?;
    world.well().await?;
    assert_eq!((arrived(&world, "before"), arrived(&world, "after")), (1, 1));
    world.end().await
}

async fn start(world: &mut World, node: Node) -> Result<(), Trouble> {
    match node {
        Node::Big => drop(world.nodes.start_big().await?),
        Node::Edge => drop(world.nodes.start_edge().await?),
    }
    world.linked().await
}

#[tokio::test]
async fn an_edge_put_back_by_hand_stops_the_mail_until_it_is_adopted() -> Result<(), Trouble> {
    put_back_and_adopted(Node::Edge, "store was put back without `restore`").await
}

#[tokio::test]
async fn a_big_put_back_by_hand_stops_the_mail_until_it_is_adopted() -> Result<(), Trouble> {
    put_back_and_adopted(Node::Big, "store was put back without `restore`").await
}

/// Both nodes are restored from backups: big's of a time when a message waited on the edge, the edge's older or
/// newer by what happens between. Whatever neither backup holds, the message's status comes to an end.
async fn both_went_back(edge_first: bool) -> Result<(), Trouble> {
    let mut world = world().await?;
    keep_waiting(&world, SLOW);
    let mut received = Received::default();
    received.more(&world, 1).await?;
    received.are_filed_once(&world).await?;
    let backups = tempfile::tempdir()?;
    let (big, edge) = (backups.path().join("big"), backups.path().join("edge"));
    if edge_first {
        backup(&world, Node::Edge, &edge).await?;
    }
    let waits = send(&world, SLOW, "waits at the backup").await?;
    until_is(&world, &waits, DeliveryState::Deferred).await?;
    world.quiet().await?;
    backup(&world, Node::Big, &big).await?;
    world.internet.mta.clear_rules();
    until_is(&world, &waits, DeliveryState::Relayed).await?;
    world.quiet().await?;
    if !edge_first {
        backup(&world, Node::Edge, &edge).await?;
    }

    restore(&mut world, Node::Big, &big).await?;
    restore(&mut world, Node::Edge, &edge).await?;
    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    until_is(&world, &waits, DeliveryState::Relayed).await?;
    world.well().await?;
    // An edge that has forgotten all of it delivers again; one that knows does not.
    assert_eq!(arrived(&world, "waits at the backup"), if edge_first { 2 } else { 1 });
    received.more(&world, 1).await?;
    world.quiet().await?;
    assert!(world.edge_queue().await?.is_empty());
    world.end().await
}

#[tokio::test]
async fn both_nodes_restored_the_edge_to_an_older_state_leave_nothing_waiting() -> Result<(), Trouble> {
    both_went_back(true).await
}

#[tokio::test]
async fn both_nodes_restored_the_edge_to_a_newer_state_leave_nothing_waiting() -> Result<(), Trouble> {
    both_went_back(false).await
}
