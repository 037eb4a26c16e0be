//! Mail that has nowhere to go: the edge spools, refuses for now, and goes on by itself; nothing lost, nothing doubled.

use big_node::record::{AfterFetch, Folder, Scope};
use edge_node::request::{Explained, Request as EdgeRequest};
use shared::pressure::Level;
use shared::report::LinkView;
use tests::client::smtp::{Reply, SendError, SmtpClient, SmtpError};
use tests::internet::rules::{Rule, Stage};
use tests::ledger::Token;
use tests::messages::{LONG, Letter};
use tests::process::{Node, Program};
use tests::tampered::Tampered;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, accepted_as, without_trace};

/// The least that `spool_max` may be.
const SPOOL_MAX: u64 = 1 << 20;
/// What big takes in an hour: more than the spool, so that a big that is started anew takes all of that.
const INBOUND_HOURLY: u64 = 2 << 20;
/// More than twice what fits: each is about [`LONG`], and random.
const MESSAGES_MAX: u64 = 250;

fn letter(number: u64) -> Vec<u8> {
    let token = Token { seed: 3, number };
    Letter { from: CAROL, to: ALICE, subject: "spool", token }.with_attachment("a.bin", LONG)
}

async fn level(world: &World) -> Result<Level, Trouble> {
    let (link, _): (LinkView, _) = world.edge().ask(EdgeRequest::LinkStatus, Vec::new()).await?;
    Ok(link.pressure.level)
}

/// A message that was accepted: its number, and the id it got.
type Accepted = (u64, String);

/// Sends letters until the edge refuses one; and what it says then, and at which stage.
async fn until_refused(world: &World) -> Result<(Vec<Accepted>, (&'static str, Reply)), Trouble> {
    let mut accepted = Vec::new();
    for number in 1..=MESSAGES_MAX {
        // A client that waits until what it sent is counted: the bound is looked at four times a second.
        let before = level(world).await?;
        let mut client = match SmtpClient::ready(world.smtp_address(), None).await {
            Ok(client) => client,
            Err(SmtpError::Answered { reply, .. }) => return Ok((accepted, ("connect", reply))),
            Err(error) => return Err(error.into()),
        };
        match client.send(CAROL, &[ALICE], &letter(number)).await {
            Ok(reply) => {
                accepted.push((number, accepted_as(&reply).ok_or("no id")?));
                assert!(before.takes_mail(), "accepted although {before:?}");
            }
            Err(SendError::Refused { stage, reply }) => return Ok((accepted, (stage, reply))),
            Err(error) => return Err(error.into()),
        }
    }
    Err("the spool has no bound".into())
}

/// What is held is counted four times a second: in between it may have grown past the next level, at which
/// connections are refused; or the count fell into the transaction. Which level answers how is tested beside
/// the levels.
fn assert_for_now((stage, reply): (&str, Reply)) {
    let expected = if stage == "connect" { 421 } else { 452 };
    assert_eq!((reply.code, reply.enhanced()), (expected, Some("4.3.1")), "{stage}");
}

/// The edge takes mail again, and each letter that it ever took is in the mailbox once, as it was.
async fn goes_on(world: &World, mut accepted: Vec<Accepted>) -> Result<(), Trouble> {
    until("mail is taken again", SOON, async || Ok((level(world).await? == Level::Open).then_some(())))
        .await?;
    let last = MESSAGES_MAX + 1;
    accepted.push((last, world.receive(&[ALICE], &letter(last)).await?));
    let desk = world.desk("alice");
    for (number, id) in &accepted {
        desk.filed(Folder::In, id).await?;
        assert!(without_trace(&desk.raw(id).await?) == letter(*number), "{number} is altered");
    }
    assert_eq!(desk.messages(Folder::In).await?.len(), accepted.len(), "each is there once");
    Ok(())
}

#[tokio::test]
async fn a_full_spool_refuses_for_now_and_empties_by_itself() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut world = World::with(program, |topology| topology.spool_max = SPOOL_MAX).await?;
    world.nodes.kill(Node::Big).await?;
    let (accepted, refusal) = until_refused(&world).await?;
    assert_for_now(refusal);
    assert!(accepted.len() >= 10, "{} were accepted", accepted.len());
    let room = world.edge_link().await?.room.ok_or("the edge says how much room it has")?;
    assert!(room.spool_max == SPOOL_MAX && room.spool >= SPOOL_MAX - SPOOL_MAX / 8, "{room:?}");
    assert!(room.free_bytes > 0 && room.free_inodes != Some(0), "{room:?}");
    world.nodes.start_big().await?;
    world.linked().await?;
    goes_on(&world, accepted).await
}

#[tokio::test]
async fn where_big_takes_no_more_the_edge_spools_and_then_refuses_for_now() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let change = |topology: &mut tests::topology::TestTopology| {
        topology.spool_max = SPOOL_MAX;
        topology.inbound_hourly = INBOUND_HOURLY;
    };
    let mut world = World::with(program, change).await?;
    let (accepted, refusal) = until_refused(&world).await?;
    assert_for_now(refusal);
    let (filed, link) = (world.desk("alice").messages(Folder::In).await?.len(), world.big().link().await?);
    assert!(link.connected && !link.pressure.level.takes_mail(), "{:?}", link.pressure);
    assert!(link.pressure.why.is_some_and(|why| why.contains("inbound_hourly")), "it says what mends it");
    // Two thirds of it on big, and a third on the edge.
    assert!(filed >= 20 && accepted.len() >= filed + 10, "{filed} of {} are filed", accepted.len());
    // Facts pass all the same: a colleague who comes now is known at the edge.
    world.nodes.big.run(&["person", "add", "erin"]).await?;
    until("erin is known", SOON, async || {
        let asked = EdgeRequest::Explain { address: "erin@example.com".into() };
        let (explained, _): (Explained, _) = world.edge().ask(asked, Vec::new()).await?;
        Ok((explained.rule == "exact").then_some(()))
    })
    .await?;
    // So do outcomes, which the edge has to tell while no mail of its own is taken.
    let desk = world.desk("alice");
    let outward = desk.send(CAROL, "outward", "text\n").await?;
    desk.relayed(&outward.id).await?;
    assert!(!world.big().link().await?.pressure.level.takes_mail(), "it has not got room in between");
    // An hour's count ends with the process.
    world.nodes.kill(Node::Big).await?;
    world.nodes.start_big().await?;
    world.linked().await?;
    goes_on(&world, accepted).await
}

/// Room for the levels between the first and the last: what is counted four times a second passes none of them by.
const SPOOL_OF_LEVELS: u64 = 4 << 20;
/// What is sent once strangers are slow.
const HALF_A_LEVEL: usize = 256 * 1024;

#[tokio::test]
async fn a_spool_that_fills_up_slows_strangers_then_refuses_them_and_travellers_last() -> Result<(), Trouble>
{
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut world = World::with(program, |topology| topology.spool_max = SPOOL_OF_LEVELS).await?;
    let trip = world.desk("alice").travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    world.nodes.kill(Node::Big).await?;
    let token = |number| Token { seed: 4, number };
    let of = |number, size| {
        Letter { from: CAROL, to: ALICE, subject: "levels", token: token(number) }
            .with_attachment("a.bin", size)
    };
    // While it is open they are small, and then each has waited: MAIL is refused first.
    let (mut seen, mut number) = (Vec::new(), 0);
    let refused = loop {
        number += 1;
        let before = level(&world).await?;
        seen.push(before);
        seen.dedup();
        let size = if before == Level::Open { LONG } else { HALF_A_LEVEL };
        match world.smtp().await?.send(CAROL, &[ALICE], &of(number, size)).await {
            Ok(_) => assert!(before.takes_mail(), "taken although {before:?}"),
            Err(SendError::Refused { stage, reply }) => break (stage, reply.to_string()),
            Err(error) => return Err(error.into()),
        }
    };
    assert_eq!(level(&world).await?, Level::Closed);
    assert_eq!(seen[..2], [Level::Open, Level::Slow], "{seen:?}");
    assert!(refused.1.starts_with("452 4.3.1 "), "{refused:?}");
    let greeted = world.smtp().await?.command(&format!("MAIL FROM:<{CAROL}>")).await?;
    assert_eq!((greeted.code, greeted.enhanced()), (452, Some("4.3.1")));
    // A traveller collects and sends, until there is no room for that either; and collects.
    let login = (trip.user.as_str(), trip.password.as_str());
    let letter = |number| {
        let from = ALICE;
        Letter { from, to: ALICE, subject: "levels", token: token(number) }
            .with_attachment("a.bin", HALF_A_LEVEL)
    };
    let mut submitted = 0;
    let last = loop {
        world.pop3s(login.0, login.1).await?.quit().await?;
        let sent =
            world.submission(login.0, login.1).await?.send(ALICE, &[ALICE], &letter(1_000 + submitted)).await;
        match sent {
            Ok(_) => submitted += 1,
            Err(SendError::Refused { stage, reply }) => break (stage, reply.to_string()),
            Err(error) => return Err(error.into()),
        }
    };
    assert!(submitted >= 1 && last.1.starts_with("452 4.3.1 "), "{submitted}, then {last:?}");
    assert_eq!(level(&world).await?, Level::Full);
    world.pop3s(login.0, login.1).await?.quit().await?;
    match SmtpClient::ready(world.smtp_address(), None).await {
        Err(SmtpError::Answered { reply, .. }) => {
            assert_eq!((reply.code, reply.enhanced()), (421, Some("4.3.1")));
        }
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

/// A disk that takes longer for each sync than this test waits for anything.
const SLOW_DISK: &str = "fdatasync,fsync:delay_enter=600s";

#[tokio::test]
async fn where_bigs_disk_is_slow_it_takes_no_more_until_it_is_quick_again() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.spool_max = SPOOL_MAX).await?;
    world.quiet().await?;
    let Some(slow) = Tampered::with(world.nodes.big_ready().pid, &[SLOW_DISK])? else {
        println!("strace is not installed, or may not trace: nothing is proved");
        return Ok(());
    };
    let (accepted, refusal) = until_refused(&world).await?;
    assert_for_now(refusal);
    assert!(accepted.len() >= 10, "{} were accepted", accepted.len());
    // What it shows, it shows while a commit is under way.
    until("big takes no mail", SOON, async || {
        let link = world.big().link().await?;
        let is_slow = link.pressure.why.as_deref().is_some_and(|why| why.contains("a commit takes"));
        Ok((link.connected && !link.pressure.level.takes_mail() && is_slow).then_some(()))
    })
    .await?;
    assert_eq!(
        world.desk("alice").messages(Folder::In).await?.len(),
        0,
        "nothing is promised before it is synced"
    );
    slow.let_go()?;
    // Nobody is started again, and nobody asks for anything.
    goes_on(&world, accepted).await?;
    until("big takes mail", SOON, async || {
        Ok((world.big().link().await?.pressure.level == Level::Open).then_some(()))
    })
    .await
}

/// What is said on port 25 instead of a greeting.
async fn refusal(world: &World) -> Result<Reply, Trouble> {
    match SmtpClient::connect(world.smtp_address()).await {
        Err(SmtpError::Answered { reply, .. }) => Ok(reply),
        other => Err(format!("it is greeted, or lost: {other:?}").into()),
    }
}

#[tokio::test]
async fn a_drained_edge_takes_no_strangers_mail_and_what_it_has_goes_on_until_it_is_empty()
-> Result<(), Trouble> {
    let mut world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let desk = world.desk("alice");
    let trip = desk.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    // One message waits to leave, and one for big, which is away.
    world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    let outward = desk.send(CAROL, "outward", "text\n").await?;
    until("it waits to leave", SOON, async || Ok((!world.edge_queue().await?.is_empty()).then_some(())))
        .await?;
    world.nodes.kill(Node::Big).await?;
    let before = world.receive(&[ALICE], &letter(1)).await?;
    let (idle, mut busy) = (world.smtp().await?, world.smtp().await?);
    busy.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
    world.nodes.edge.run(&["drain"]).await?;
    let is_closed = |reply: &Reply| (reply.code, reply.enhanced()) == (421, Some("4.3.2"));
    let refused = refusal(&world).await?;
    assert!(is_closed(&refused), "{refused}");
    let log = std::fs::read_to_string(world.nodes.topology.state.join("edge.log"))?;
    assert!(log.contains(r#"refused client=127.0.0.1 reply="421 4.3.2 closed for maintenance"#), "{log}");
    // What has begun is taken, and then the session ends.
    busy.expect(&format!("RCPT TO:<{ALICE}>"), 250).await?;
    busy.expect("DATA", 354).await?;
    busy.raw(&letter(2)).await?;
    let under_way = accepted_as(&busy.expect(".", 250).await?).ok_or("no id")?;
    for mut session in [busy, idle] {
        let reply = session.command(&format!("MAIL FROM:<{CAROL}>")).await?;
        assert!(is_closed(&reply), "{reply}");
        assert!(session.rest().await?.is_empty(), "it is over");
    }
    // Travellers have no other way.
    let (user, password) = (trip.user.as_str(), trip.password.as_str());
    let note = Letter { from: ALICE, to: ALICE, subject: "note", token: Token { seed: 5, number: 1 } };
    world
        .submission(user, password)
        .await?
        .send_and_quit(ALICE, &[ALICE], &note.with_attachment("a.bin", 10))
        .await?;
    world.pop3s(user, password).await?.quit().await?;
    let link = world.edge_link().await?;
    assert!(link.drained_since.is_some());
    assert!(link.alarms.iter().any(|alarm| alarm.contains("`edge-node resume`")), "{:?}", link.alarms);

    world.nodes.kill(Node::Edge).await?;
    world.nodes.start_edge().await?;
    let refused = refusal(&world).await?;
    assert!(is_closed(&refused), "{refused}");
    assert_eq!(world.edge_link().await?.drained_since, link.drained_since);
    world.internet.mta.clear_rules();
    world.nodes.start_big().await?;
    world.linked().await?;
    for (number, id) in [(1, before), (2, under_way)] {
        desk.filed(Folder::In, &id).await?;
        assert!(without_trace(&desk.raw(&id).await?) == letter(number), "{number} is altered");
    }
    desk.relayed(&outward.id).await?;
    world.quiet().await?;
    assert!(world.edge_queue().await?.is_empty(), "it is empty");
    world.nodes.edge.run(&["resume"]).await?;
    let after = world.receive(&[ALICE], &letter(3)).await?;
    desk.filed(Folder::In, &after).await?;
    assert_eq!(world.edge_link().await?.drained_since, None);
    world.well().await?;
    world.end().await
}
