//! The link between a message and its revision: both are on the wire, it is cut between the two or before the result is
//! told, and somebody deletes the message meanwhile.

use std::collections::BTreeMap;

use big_node::harness;
use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::Request;
use edge_node::request::Request as EdgeRequest;
use shared::report::Step;
use shared::state::State;
use shared::trace::Query;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};
use tests::cable::{Cable, Way};
use tests::internet::rules::{Rule, Stage};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{BOB, CAROL, World};

use super::{collected, outside, until_is};

const DAVE: &str = "dave@remote.example";
const ERIN: &str = "erin@remote.example";
const FRANK: &str = "frank@remote.example";

/// A world with a cable between its nodes.
async fn world() -> Result<(World, Cable), Trouble> {
    let mut cable = None;
    let lay = |topology: &mut _| cable = Some(Cable::lay(topology));
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), lay).await?;
    Ok((world, cable.ok_or("no cable was laid")??))
}

/// What is outside takes nothing for these.
fn not_now(world: &World, recipients: &[&str]) {
    let mta = &world.internet.mta;
    mta.clear_rules();
    for recipient in recipients {
        mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now").only_for(recipient));
    }
}

/// Alice sends a text to somebody outside who does not take it yet: it waits on the edge.
async fn deferred(world: &World, to: &str, text: &str) -> Result<String, Trouble> {
    let sent = world.desk("alice").send(to, "plans", text).await?;
    until_is(world, &sent.id, DeliveryState::Deferred).await?;
    Ok(sent.id)
}

/// Alice revises, and nobody can decide it yet.
async fn revise(world: &World, id: &str, mode: ReviseMode, text: &str) -> Result<(), Trouble> {
    let status = world.desk("alice").amend(id, mode, text).await?;
    let results: Vec<_> = status.recipients.into_iter().filter_map(|to| to.revised).collect();
    assert!(results.iter().all(|revised| revised.result == ReviseResult::Pending), "{results:?}");
    Ok(())
}

/// Waits until nothing that was revised is pending, and gives what came of each revision, as big has recorded it: the
/// message's id, the recipient, the revision.
async fn decided(world: &World) -> Result<BTreeMap<(String, String, u32), ReviseResult>, Trouble> {
    until("every revision is decided", SOON, async || {
        let folder = tempfile::tempdir()?;
        let into = folder.path().join("copy");
        let (prepared, _) = world.big().0.ask(Request::Backup, Vec::new()).await?;
        State::open(&world.nodes.state_of(Node::Big))?.take_backup(&prepared, &into)?;
        let revised = harness::revised(&State::open(&into)?.store()?)?;
        let is_open = revised.iter().any(|revised| revised.result == ReviseResult::Pending);
        let result = |of: harness::RevisedFor| ((of.message.to_string(), of.address, of.revision), of.result);
        Ok((!is_open).then(|| revised.into_iter().map(result).collect()))
    })
    .await
}

/// Text that stays long however well it is compressed.
fn long(lines: u32) -> String {
    (0..lines).map(|line| format!("{}\n", blake3::hash(&line.to_be_bytes()).to_hex())).collect()
}

#[tokio::test]
async fn what_is_revised_on_the_wire_leaves_as_its_author_last_wrote_it() -> Result<(), Trouble> {
    let (world, cable) = world().await?;
    let desk = world.desk("alice");
    // However soon it gets to the edge: the host outside takes it only when all is decided.
    not_now(&world, &[CAROL]);
    let mut sent = Vec::new();
    for (mode, lines, octets, result) in [
        (ReviseMode::Replace, 200, 4_000, ReviseResult::Replaced),
        (ReviseMode::Append, 200, 4_000, ReviseResult::Replaced),
        (ReviseMode::Withdraw, 200, 4_000, ReviseResult::Withdrawn),
        // Its body is ahead of it on a stream of its own: the revision overtakes them both.
        (ReviseMode::Replace, 6_000, 8_000, ReviseResult::Replaced),
        (ReviseMode::Withdraw, 6_000, 8_000, ReviseResult::Withdrawn),
    ] {
        world.quiet().await?;
        cable.towards(Node::Edge, Way::Held).await?;
        let old = format!("the old text\n{}", long(lines));
        let id = desk.send(CAROL, &format!("plans {}", sent.len()), &old).await?.id;
        cable.holds(Node::Edge, octets).await?;
        let text = if mode == ReviseMode::Withdraw { "" } else { "the new text" };
        revise(&world, &id, mode, text).await?;
        assert!(!world.edge_queue().await?.iter().any(|queued| queued.id == id), "it has not arrived");
        cable.both(Way::Open).await?;
        desk.revised(&id, result).await?;
        sent.push((id, mode));
    }
    not_now(&world, &[]);
    for (id, mode) in &sent {
        let end =
            if *mode == ReviseMode::Withdraw { DeliveryState::Withdrawn } else { DeliveryState::Relayed };
        until_is(&world, id, end).await?;
    }
    let got = outside(&world);
    assert_eq!(got.len(), 3);
    for text in &got {
        assert!(text.contains("the new text"), "{text}");
        assert_eq!(
            text.contains("the old text"),
            text.contains("Subject: plans 1"),
            "only what was added to"
        );
    }
    world.end().await
}

#[tokio::test]
async fn what_has_left_while_its_outcome_is_on_the_wire_gets_a_notice() -> Result<(), Trouble> {
    let (world, cable) = world().await?;
    let desk = world.desk("alice");
    world.quiet().await?;
    cable.towards(Node::Big, Way::Held).await?;
    let id = desk.send(CAROL, "plans", "the old text").await?.id;
    world.internet.mta.wait_for(1, SOON).await?;
    revise(&world, &id, ReviseMode::Replace, "the new text").await?;
    cable.both(Way::Open).await?;
    desk.revised(&id, ReviseResult::NoticeSent).await?;
    world.internet.mta.wait_for(2, SOON).await?;
    let got = outside(&world);
    assert!(got[0].contains("the old text") && !got[0].contains("the new text"), "{}", got[0]);
    assert!(got[1].contains(&format!("Supersedes: <{id}@")) && got[1].contains("the new text"), "{}", got[1]);
    world.quiet().await?;
    world.end().await
}

/// What happens behind the cut decides: one text leaves there, the others wait.
#[tokio::test]
async fn what_is_revised_while_the_link_is_cut_is_decided_by_what_has_happened_behind_it()
-> Result<(), Trouble> {
    let (world, cable) = world().await?;
    let (desk, mta) = (world.desk("alice"), &world.internet.mta);
    not_now(&world, &[CAROL, DAVE, ERIN, FRANK]);
    let [carols, daves, erins, franks] = [CAROL, DAVE, ERIN, FRANK];
    let carols = deferred(&world, carols, "the old text").await?;
    let daves = deferred(&world, daves, "the old text").await?;
    let erins = deferred(&world, erins, "the old text").await?;
    let franks = deferred(&world, franks, "the old text").await?;
    cable.both(Way::Cut).await?;
    revise(&world, &carols, ReviseMode::Replace, "the new text").await?;
    revise(&world, &daves, ReviseMode::Append, "the new text").await?;
    revise(&world, &erins, ReviseMode::Withdraw, "").await?;
    // At two desks at once: whichever is first, what was withdrawn stays so.
    let (taken_back, replaced) = tokio::join!(
        desk.amend(&franks, ReviseMode::Withdraw, ""),
        desk.amend(&franks, ReviseMode::Replace, "the new text")
    );
    taken_back?;
    if let Err(refused) = &replaced {
        assert!(refused.to_string().contains("was withdrawn on"), "{refused}");
    }
    not_now(&world, &[DAVE, ERIN, FRANK]);
    let left = mta.wait_for(1, SOON).await?;
    assert!(String::from_utf8_lossy(&left[0].data).contains("the old text"), "it has left behind the cut");
    cable.both(Way::Open).await?;
    desk.revised(&carols, ReviseResult::NoticeSent).await?;
    desk.revised(&daves, ReviseResult::Replaced).await?;
    desk.revised(&erins, ReviseResult::Withdrawn).await?;
    desk.revised(&franks, ReviseResult::Withdrawn).await?;
    not_now(&world, &[]);
    until_is(&world, &daves, DeliveryState::Relayed).await?;
    for id in [&erins, &franks] {
        until_is(&world, id, DeliveryState::Withdrawn).await?;
    }
    decided(&world).await?;
    world.quiet().await?;
    let mut to: Vec<_> = mta.mail().iter().flat_map(|mail| mail.recipients.clone()).collect();
    to.sort();
    assert_eq!(to, [CAROL, CAROL, DAVE], "the old text and a notice, and the new text");
    assert!(outside(&world)[1..].iter().all(|text| text.contains("the new text")));
    world.end().await
}

/// The edge has decided, and dies; nobody inside has heard of it, and only the new text leaves all the same.
#[tokio::test]
async fn what_is_decided_and_not_reported_stays_decided_though_the_edge_is_killed() -> Result<(), Trouble> {
    let (mut world, cable) = world().await?;
    not_now(&world, &[CAROL, DAVE]);
    let replaced = deferred(&world, CAROL, "the old text").await?;
    let taken_back = deferred(&world, DAVE, "the old text").await?;
    world.quiet().await?;
    cable.towards(Node::Big, Way::Cut).await?;
    for (id, mode, text, done) in [
        (&replaced, ReviseMode::Replace, "the new text", "replaced"),
        (&taken_back, ReviseMode::Withdraw, "", "withdrawn"),
    ] {
        revise(&world, id, mode, text).await?;
        until("the edge has decided", SOON, async || {
            let request = EdgeRequest::Trace(Query::Way(id.clone()));
            let steps = world.edge().ask::<Vec<Step>>(request, Vec::new()).await?.0;
            let what = format!("revision 1 for recipient 0: {done}");
            Ok(steps.iter().any(|step| step.what == what).then_some(()))
        })
        .await?;
    }
    world.nodes.kill(Node::Edge).await?;
    not_now(&world, &[]);
    world.nodes.start_edge().await?;
    let left = world.internet.mta.wait_for(1, SOON).await?;
    assert!(String::from_utf8_lossy(&left[0].data).contains("the new text"));
    let desk = world.desk("alice");
    let pending = desk.status(&replaced).await?.recipients.remove(0).revised.map(|revised| revised.result);
    assert_eq!(pending, Some(ReviseResult::Pending), "nobody inside has heard of it");
    cable.both(Way::Open).await?;
    desk.revised(&replaced, ReviseResult::Replaced).await?;
    desk.revised(&taken_back, ReviseResult::Withdrawn).await?;
    until_is(&world, &replaced, DeliveryState::Relayed).await?;
    until_is(&world, &taken_back, DeliveryState::Withdrawn).await?;
    world.quiet().await?;
    assert_eq!(outside(&world).len(), 1);
    world.end().await
}

#[tokio::test]
async fn a_revision_ends_though_its_author_deletes_the_message_for_good_and_big_is_killed()
-> Result<(), Trouble> {
    let (mut world, cable) = world().await?;
    let trip = world.desk("bob").travel(Scope::New, AfterFetch::Keep).await?;
    let login = (trip.user.as_str(), trip.password.as_str());
    world.first_pop3s(login.0, login.1).await?.quit().await?;
    not_now(&world, &[CAROL, DAVE]);
    let desk = world.desk("alice");
    let waiting = deferred(&world, CAROL, "the old text").await?;
    let leaving = deferred(&world, DAVE, "the old text").await?;
    let on_the_road = desk.send(BOB, "plans", "the old text").await?.id;
    collected(&world, login, false, |all| all.len() == 1).await?;
    world.quiet().await?;
    cable.both(Way::Cut).await?;
    for id in [&waiting, &leaving, &on_the_road] {
        revise(&world, id, ReviseMode::Replace, "the new text").await?;
        assert!(!desk.delete(id).await?.for_good);
        assert!(desk.delete(id).await?.for_good);
        assert!(desk.status(id).await.is_err(), "she has it no more");
    }
    not_now(&world, &[CAROL]);
    world.internet.mta.wait_for(1, SOON).await?;
    world.nodes.kill(Node::Big).await?;
    world.nodes.start_big().await?;
    cable.both(Way::Open).await?;
    world.linked().await?;
    let results = decided(&world).await?;
    let result = |id: &str, to: &str| results.get(&(id.to_owned(), to.to_owned(), 1)).copied();
    assert_eq!(result(&waiting, CAROL), Some(ReviseResult::Replaced));
    assert_eq!(result(&on_the_road, BOB), Some(ReviseResult::Replaced));
    assert_eq!(result(&leaving, DAVE), Some(ReviseResult::NoticeSent));
    not_now(&world, &[]);
    world.internet.mta.wait_for(3, SOON).await?;
    world.quiet().await?;
    let old = outside(&world).iter().filter(|text| text.contains("the old text")).count();
    assert_eq!((outside(&world).len(), old), (3, 1), "{:?}", outside(&world));
    collected(&world, login, true, |all| all.len() == 1 && all[0].1.contains("the new text")).await?;
    let line = world.desk("bob").filed(Folder::In, &on_the_road).await?;
    assert_eq!(line.revision, 1);
    world.end().await
}

#[tokio::test]
async fn a_revision_ends_though_its_reader_deletes_the_message_for_good_and_the_edge_is_killed()
-> Result<(), Trouble> {
    let (mut world, cable) = world().await?;
    let (alice, bob) = (world.desk("alice"), world.desk("bob"));
    let trip = bob.travel(Scope::New, AfterFetch::Keep).await?;
    let login = (trip.user.as_str(), trip.password.as_str());
    world.first_pop3s(login.0, login.1).await?.quit().await?;
    let mut sent = Vec::new();
    for mode in [ReviseMode::Replace, ReviseMode::Withdraw] {
        sent.push((alice.send(BOB, "plans", "the old text").await?.id, mode));
    }
    collected(&world, login, false, |all| all.len() == 2).await?;
    world.quiet().await?;
    cable.both(Way::Cut).await?;
    // One is deleted behind its revision, the other before it.
    let (replaced, withdrawn) = (&sent[0].0, &sent[1].0);
    revise(&world, replaced, ReviseMode::Replace, "the new text").await?;
    for id in [replaced, withdrawn] {
        bob.delete(id).await?;
        assert!(bob.delete(id).await?.for_good);
    }
    alice.amend(withdrawn, ReviseMode::Withdraw, "").await?;
    world.nodes.kill(Node::Edge).await?;
    world.nodes.start_edge().await?;
    cable.both(Way::Open).await?;
    world.linked().await?;
    let results = decided(&world).await?;
    let result = |id: &str| results.get(&(id.to_owned(), BOB.to_owned(), 1)).copied();
    assert_eq!(result(replaced), Some(ReviseResult::Replaced), "he has seen neither text");
    assert_eq!(result(withdrawn), Some(ReviseResult::TooLate), "there was nothing to take back");
    collected(&world, login, false, |all| all.is_empty()).await?;

    // While his client is connected, the edge changes nothing: the revision and the deletion both wait for it.
    let shown = alice.send(BOB, "plans", "the old text").await?.id;
    collected(&world, login, false, |all| all.len() == 1).await?;
    let mut session = world.pop3s(login.0, login.1).await?;
    revise(&world, &shown, ReviseMode::Replace, "the new text").await?;
    bob.delete(&shown).await?;
    assert!(bob.delete(&shown).await?.for_good);
    world.quiet().await?;
    assert_eq!(session.stat().await?.0, 1, "a session keeps what it has");
    session.quit().await?;
    assert_eq!(decided(&world).await?.get(&(shown, BOB.to_owned(), 1)), Some(&ReviseResult::Replaced));
    collected(&world, login, false, |all| all.is_empty()).await?;
    assert!(bob.messages(Folder::In).await?.is_empty());
    world.end().await
}

#[tokio::test]
async fn who_is_not_the_author_revises_nothing_from_a_desk_or_by_mail_though_big_is_killed()
-> Result<(), Trouble> {
    let (mut world, _cable) = world().await?;
    let (alice, bob) = (world.desk("alice"), world.desk("bob"));
    let trip = bob.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    not_now(&world, &[CAROL]);
    let sent = alice.send(&format!("{CAROL}, {BOB}"), "plans", "the text").await?;
    bob.filed(Folder::In, &sent.id).await?;
    let refused = bob.amend(&sent.id, ReviseMode::Replace, "his text").await.expect_err("it is hers");
    assert!(refused.to_string().contains("has sent no message"), "{refused}");
    // He has it, and answers it as its author would to withdraw it.
    let mut session = world.submission(&trip.user, &trip.password).await?;
    world.nodes.kill(Node::Big).await?;
    let control = "bob+withdraw@example.com";
    let letter = format!(
        "From: {BOB}\r\nTo: {control}\r\nSubject: plans\r\nMessage-ID: <1@phone.example>\r\n\
         In-Reply-To: <{}@example.com>\r\n\r\n\r\n",
        sent.id
    );
    session.send(BOB, &[control], letter.as_bytes()).await?;
    drop(session);
    world.nodes.start_big().await?;
    bob.arrival(Folder::In, "the answer", |line| line.subject == "Not revised").await?;
    assert!(decided(&world).await?.is_empty(), "nothing was revised");
    not_now(&world, &[]);
    world.internet.mta.wait_for(1, SOON).await?;
    assert!(outside(&world)[0].contains("the text"));
    assert_eq!(bob.messages(Folder::In).await?.len(), 2, "it is there still, and the answer is");
    world.quiet().await?;
    world.end().await
}
