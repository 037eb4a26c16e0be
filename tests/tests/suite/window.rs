//! The life of a travel window: how it begins, is put off, is given other credentials and ends, with the link up and
//! down and with nodes that die in between; and what an edge's disk holds of it meanwhile and after.

use std::time::Duration;

use big_node::record::{AfterFetch, Folder, Scope, WindowState};
use big_node::request::{Started, Terms};
use shared::id::unix_millis;
use tests::canary::{Canary, covers};
use tests::client::pop3::{Pop3Client, Pop3Error};
use tests::client::smtp::SmtpClient;
use tests::ledger::Token;
use tests::messages::{LONG, Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, accepted_as, first, without_trace};
use tokio::task::JoinSet;

/// How long a window lasts that is to end during a test: longer than its beginning takes on a busy machine.
const SHORTLY: u64 = 6_000;

/// Sessions that are open at the same time, to look at what they leave in memory.
const SESSIONS_AT_ONCE: usize = 40;

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

fn letter(number: u64) -> Letter<'static> {
    Letter { from: CAROL, to: ALICE, subject: "test", token: Token { seed: 9, number } }
}

/// Alice travels, and the edge knows it.
async fn set_out(world: &World, terms: Terms) -> Result<Started, Trouble> {
    world.set_out("alice", terms).await
}

/// Waits until nobody can log in with these credentials any more.
async fn refused(world: &World, trip: &Started) -> Result<(), Trouble> {
    until("the login is refused", SOON, async || {
        Ok(is_refused(world, &trip.user, &trip.password).await?.then_some(()))
    })
    .await
}

/// Whether a login is refused for its credentials.
async fn is_refused(world: &World, user: &str, password: &str) -> Result<bool, Trouble> {
    let mut session = Pop3Client::connect_tls(first(&world.nodes.edge_ready().pop3s)).await?;
    match session.login(user, password).await {
        // The window may end under a session that was let in.
        Ok(()) => {
            let _ = session.quit().await;
            Ok(false)
        }
        Err(Pop3Error::Lost(_)) => Ok(false),
        Err(Pop3Error::Refused { text, .. }) => Ok(text.starts_with("[AUTH]")),
        Err(other) => Err(other.into()),
    }
}

async fn state(world: &World, expected: WindowState) -> Result<(), Trouble> {
    until(&format!("big lists every window as {expected:?}"), SOON, async || {
        let windows = world.big().windows().await?;
        Ok(windows.iter().all(|window| window.state == expected).then_some(()))
    })
    .await
}

fn shortly() -> Option<u64> {
    Some(unix_millis() + SHORTLY)
}

#[tokio::test]
async fn a_window_ends_at_its_moment_without_the_link_and_its_sessions_with_it() -> Result<(), Trouble> {
    let mut world = world().await?;
    let trip = set_out(&world, Terms { until: shortly(), ..Terms::default() }).await?;
    world.receive(&[ALICE], &letter(1).text(SHORT)).await?;
    let mut reading = world.collect_when(&trip, 1).await?;
    let mut sending = world.submission(&trip.user, &trip.password).await?;
    world.nodes.kill(Node::Big).await?;
    // What was fetched and not committed before the end is not told after it.
    reading.dele(1).await?;
    until("the reading session ends", SOON, async || {
        Ok(reading.command("NOOP").await.is_err().then_some(()))
    })
    .await?;
    assert!(is_refused(&world, &trip.user, &trip.password).await?);
    let text = b"From: alice@example.com\r\nSubject: late\r\n\r\nx\r\n";
    assert!(sending.send(ALICE, &[BOB], text).await.is_err(), "the sending session is over, too");
    until("the cover is destroyed", SOON, async || Ok(covers(&world)?.is_empty().then_some(()))).await?;
    world.nodes.start_big().await?;
    state(&world, WindowState::Ended).await?;
    let kept = world.desk("alice").messages(Folder::In).await?;
    assert!(kept.len() == 1 && !kept[0].read);
    world.end().await
}

#[tokio::test]
async fn an_edge_that_was_away_ends_a_window_before_it_serves_anybody() -> Result<(), Trouble> {
    let mut world = world().await?;
    let ends = shortly();
    let trip =
        set_out(&world, Terms { until: ends, after_fetch: AfterFetch::Delete, ..Terms::default() }).await?;
    assert_eq!(covers(&world)?.len(), 1);
    world.nodes.kill(Node::Edge).await?;
    // Big cannot have it confirmed, and says so.
    until("the moment has come", SOON, async || Ok((ends < Some(unix_millis())).then_some(()))).await?;
    state(&world, WindowState::Ending).await?;
    let windows = world.big().windows().await?;
    assert!(windows.iter().all(|window| window.ended_at.is_some()));
    world.nodes.start_edge().await?;
    assert_eq!(covers(&world)?.len(), 0, "when it is ready, it is done");
    assert!(is_refused(&world, &trip.user, &trip.password).await?);
    state(&world, WindowState::Ended).await?;
    world.end().await
}

#[tokio::test]
async fn a_window_begins_when_it_is_to_and_its_end_can_be_put_off() -> Result<(), Trouble> {
    let world = world().await?;
    let before = letter(1).text(SHORT);
    let id = world.receive(&[ALICE], &before).await?;
    world.desk("alice").filed(Folder::In, &id).await?;
    let from = shortly();
    let terms = Terms { from, scope: Scope::All, ..Terms::default() };
    let trip = world.desk("alice").travel_on(terms).await?;
    assert_eq!(trip.backfilled, 1);
    world.quiet().await?;
    if from > Some(unix_millis() + 1000) {
        assert!(is_refused(&world, &trip.user, &trip.password).await?, "not before");
    }
    let mut session = world.first_pop3s(&trip.user, &trip.password).await?;
    assert!(from <= Some(unix_millis()));
    assert!(without_trace(&session.retr(1).await?) == before, "what it was filled with is there at once");
    let uidl = session.uidl().await?;
    session.quit().await?;

    let desk = world.desk("alice");
    let ends = shortly();
    desk.extend(ends).await?;
    world.quiet().await?;
    let later = desk.extend(None).await?;
    assert_eq!((later.until, later.state), (None, WindowState::Open));
    until("the first end has passed", SOON, async || Ok((ends < Some(unix_millis())).then_some(()))).await?;
    let mut session = world.log_in(&trip).await?;
    assert_eq!(session.uidl().await?, uidl, "the same credentials and the same mailbox");
    session.quit().await?;
    until("the login is told", SOON, async || {
        Ok(world.big().windows().await?.iter().all(|window| window.last_login.is_some()).then_some(()))
    })
    .await?;
    world.end().await
}

/// The end passes while big's word that it was put off cannot come; then it comes.
#[tokio::test]
async fn a_window_that_has_ended_too_early_opens_again_with_all_it_held() -> Result<(), Trouble> {
    let mut world = world().await?;
    let ends = shortly();
    let trip = set_out(&world, Terms { until: ends, ..Terms::default() }).await?;
    let messages = [letter(1).text(SHORT), letter(2).with_attachment("a.bin", LONG * 4)];
    for message in &messages {
        world.receive(&[ALICE], message).await?;
    }
    world.collect_when(&trip, 2).await?.quit().await?;
    world.quiet().await?;
    // The edge stands still while big puts the end off, and so learns of both at once.
    world.nodes.kill(Node::Edge).await?;
    world.desk("alice").extend(None).await?;
    until("the moment has come", SOON, async || Ok((ends < Some(unix_millis())).then_some(()))).await?;
    world.nodes.start_edge().await?;
    let mut session = until("the window opens again with both", SOON, async || {
        let Ok(mut session) = world.log_in(&trip).await else { return Ok(None) };
        if session.stat().await?.0 == 2 {
            return Ok(Some(session));
        }
        session.quit().await?;
        Ok(None)
    })
    .await?;
    for (number, message) in (1..).zip(&messages) {
        assert!(without_trace(&session.retr(number).await?) == message);
    }
    session.quit().await?;
    world.end().await
}

#[tokio::test]
async fn other_credentials_open_the_same_mailbox_and_the_old_ones_end() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = set_out(&world, Terms::default()).await?;
    let message = letter(1).text(SHORT);
    world.receive(&[ALICE], &message).await?;
    let mut session = world.collect_when(&trip, 1).await?;
    let uidl = session.uidl().await?;
    session.quit().await?;
    let desk = world.desk("alice");
    let second = desk.rotate(3600).await?;
    assert_ne!(second.password, trip.password);
    for password in [&trip.password, &second.password] {
        let mut session = world.first_pop3s(&second.user, password).await?;
        assert_eq!(session.uidl().await?, uidl);
        assert!(without_trace(&session.retr(1).await?) == message);
        session.quit().await?;
    }
    let mut scram = Pop3Client::connect_tls(first(&world.nodes.edge_ready().pop3s)).await?;
    scram.login_scram(&second.user, &second.password, true).await?;
    assert!(without_trace(&scram.retr(1).await?) == message);
    scram.quit().await?;
    let mut held = world.log_in(&second).await?;
    let third = desk.rotate(0).await?;
    until("a session of the old password is over", SOON, async || {
        Ok(held.stat().await.is_err().then_some(()))
    })
    .await?;
    refused(&world, &second).await?;
    assert!(
        is_refused(&world, &trip.user, &trip.password).await?,
        "each rotation leaves one old password at most"
    );
    let mut session = world.log_in(&third).await?;
    assert_eq!(session.uidl().await?, uidl);
    session.quit().await?;
    world.end().await
}

#[tokio::test]
async fn of_what_is_too_large_there_is_a_notice_and_what_does_not_fit_comes_later() -> Result<(), Trouble> {
    let world = world().await?;
    let limit = (LONG * 2) as u64;
    let terms = Terms { size_max: Some(limit), quota: Some(limit), ..Terms::default() };
    let trip = set_out(&world, terms).await?;
    let large = letter(1).with_attachment("a.bin", LONG * 4);
    let id = world.receive(&[ALICE], &large).await?;
    let mut session = world.collect_when(&trip, 1).await?;
    let notice = String::from_utf8(session.retr(1).await?)?;
    for told in ["Subject: Too large for the road: test", CAROL, "KiB"] {
        assert!(notice.contains(told), "{told} in {notice}");
    }
    session.dele(1).await?;
    session.quit().await?;
    assert!(without_trace(&world.desk("alice").raw(&id).await?) == large, "it is at home");

    let messages: Vec<_> = (2..5).map(|number| letter(number).with_attachment("b.bin", LONG)).collect();
    for message in &messages {
        world.receive(&[ALICE], message).await?;
    }
    let mut collected = Vec::new();
    while collected.len() < messages.len() {
        let mut session = until("some are in the maildrop", SOON, async || {
            let mut session = world.log_in(&trip).await?;
            let (count, octets) = session.stat().await?;
            assert!(octets <= limit, "{octets} octets are more than the quota");
            if count > 0 {
                return Ok(Some(session));
            }
            session.quit().await?;
            Ok(None)
        })
        .await?;
        for number in 1..=session.stat().await?.0 {
            collected.push(without_trace(&session.retr(number).await?).to_vec());
            session.dele(number).await?;
        }
        session.quit().await?;
    }
    assert!(messages.iter().all(|message| collected.contains(message)) && collected.len() == messages.len());
    world.end().await
}

#[tokio::test]
async fn what_happens_at_home_shows_on_the_road() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = set_out(&world, Terms::default()).await?;
    let mut ids = Vec::new();
    for number in 1..=3 {
        ids.push(world.receive(&[ALICE], &letter(number).text(SHORT)).await?);
    }
    let desk = world.desk("alice");
    for id in &ids {
        desk.filed(Folder::In, id).await?;
    }
    let mut session = world.collect_when(&trip, 3).await?;
    desk.delete(&ids[0]).await?;
    world.quiet().await?;
    assert!(without_trace(&session.retr(1).await?) == letter(1).text(SHORT), "a session keeps what it saw");
    session.quit().await?;
    desk.read(&ids[1]).await?;
    desk.delete(&ids[2]).await?;
    let mut session = world.collect_when(&trip, 1).await?;
    assert!(without_trace(&session.retr(1).await?) == letter(2).text(SHORT), "what was read at home stays");
    session.quit().await?;
    world.end().await
}

#[tokio::test]
async fn what_is_deleted_on_the_road_does_at_home_what_was_asked_for() -> Result<(), Trouble> {
    let world = world().await?;
    let desk = world.desk("alice");
    for (number, (after_fetch, read, folder)) in (1..).zip([
        (AfterFetch::Keep, false, Folder::In),
        (AfterFetch::Read, true, Folder::In),
        (AfterFetch::Delete, true, Folder::Trash),
    ]) {
        let trip = set_out(&world, Terms { after_fetch, ..Terms::default() }).await?;
        let id = world.receive(&[ALICE], &letter(number).text(SHORT)).await?;
        let mut session = world.collect_when(&trip, 1).await?;
        session.retr(1).await?;
        session.dele(1).await?;
        session.quit().await?;
        until("it is told at home", SOON, async || {
            let windows = world.big().windows().await?;
            Ok(windows
                .iter()
                .any(|window| window.after_fetch == after_fetch && window.deleted == 1)
                .then_some(()))
        })
        .await?;
        assert_eq!(desk.filed(folder, &id).await?.read, read, "{after_fetch:?}");
        desk.come_home().await?;
        state(&world, WindowState::Ended).await?;
    }
    world.end().await
}

#[tokio::test]
async fn what_was_sent_before_the_end_is_late_and_before_a_revocation_refused_with_a_report()
-> Result<(), Trouble> {
    for revoke in [false, true] {
        let mut world = world().await?;
        let trip = set_out(&world, Terms::default()).await?;
        // Nothing goes to big while it stands still, and what is decided there is decided first.
        let mut session = world.submission(&trip.user, &trip.password).await?;
        world.nodes.kill(Node::Big).await?;
        let text = b"From: alice@example.com\r\nSubject: sent before\r\n\r\nx\r\n";
        let reply = session.send(ALICE, &[BOB], text).await?;
        let id = accepted_as(&reply).ok_or("no id")?;
        world.nodes.kill(Node::Edge).await?;
        world.nodes.start_big().await?;
        let (alice, bob) = (world.desk("alice"), world.desk("bob"));
        if revoke {
            alice.revoke().await?
        } else {
            alice.come_home().await?
        };
        world.nodes.start_edge().await?;
        if revoke {
            let told =
                alice.arrival(Folder::In, "alice is told", |line| line.subject == "Refused: sent before");
            let report = alice.read(&told.await?.id).await?;
            assert!(report.text.contains(BOB) && report.text.contains("revoked"), "{}", report.text);
            assert_eq!(bob.messages(Folder::In).await?.len() + alice.messages(Folder::Sent).await?.len(), 0);
        } else {
            assert!(alice.filed(Folder::Sent, &id).await?.late);
            assert!(alice.status(&id).await?.late);
            bob.filed(Folder::In, &id).await?;
        }
        state(&world, WindowState::Ended).await?;
    }
    Ok(())
}

/// What is done to a window.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    Extend,
    Rotate,
    End,
}

/// Each step with each node killed: the edge before it, so that it learns of it later; big right behind its answer.
#[tokio::test]
async fn whoever_is_killed_at_whatever_step_the_step_counts() -> Result<(), Trouble> {
    let mut world = world().await?;
    let desk = world.desk("alice");
    for victim in [Node::Edge, Node::Big] {
        let mut trip = None;
        let mut old = None;
        for step in [Step::Start, Step::Extend, Step::Rotate, Step::End] {
            if victim == Node::Edge {
                world.nodes.kill(Node::Edge).await?;
            }
            match step {
                Step::Start => {
                    trip =
                        Some(desk.travel_on(Terms { until: Some(u64::MAX / 2), ..Terms::default() }).await?)
                }
                Step::Extend => drop(desk.extend(None).await?),
                Step::Rotate => old = trip.replace(desk.rotate(0).await?),
                Step::End => drop(desk.come_home().await?),
            }
            match victim {
                Node::Edge => drop(world.nodes.start_edge().await?),
                Node::Big => {
                    world.nodes.kill(Node::Big).await?;
                    world.nodes.start_big().await?;
                }
            }
            world.linked().await?;
            let now = trip.as_ref().ok_or("it has begun")?;
            match step {
                Step::Start => world.first_pop3s(&now.user, &now.password).await?.quit().await?,
                Step::Extend => {
                    world.quiet().await?;
                    world.log_in(now).await?.quit().await?;
                    let windows = world.big().windows().await?;
                    assert!(
                        windows
                            .iter()
                            .any(|window| window.state == WindowState::Open && window.until.is_none())
                    );
                }
                Step::Rotate => {
                    world.first_pop3s(&now.user, &now.password).await?.quit().await?;
                    refused(&world, old.as_ref().ok_or("it was rotated")?).await?;
                }
                Step::End => {
                    refused(&world, now).await?;
                    state(&world, WindowState::Ended).await?;
                    assert_eq!(covers(&world)?.len(), 0);
                }
            }
        }
    }
    world.end().await
}

/// Nothing on the edge's disk reads as mail, password or key, while a window is open and after it has ended.
#[tokio::test]
async fn an_edges_disk_holds_nothing_that_can_be_read_of_a_window() -> Result<(), Trouble> {
    let mut world = world().await?;
    let canary = Canary::released(&mut world).await?;
    let edge = world.nodes.state_of(Node::Edge);
    let log = world.nodes.topology.state.join("edge.log");
    assert!(!canary.found_at_home(&world)?.is_empty(), "the search finds what is there");
    assert_eq!(canary.found(&[&edge, &log])?, Vec::<String>::new());
    assert_eq!(canary.cover_found(&[&edge, &log])?.len(), 1, "the cover is in its file and nowhere else");
    world.desk("alice").come_home().await?;
    state(&world, WindowState::Ended).await?;
    world.quiet().await?;
    assert_eq!(canary.found(&[&edge, &log])?, Vec::<String>::new());
    assert_eq!(
        canary.cover_found(&[&edge, &log])?,
        Vec::<String>::new(),
        "what is left of the locked key is noise"
    );
    // Nor does an edge that dies leave any of it.
    world.nodes.kill(Node::Edge).await?;
    assert_eq!(canary.found(&[&edge, &log])?, Vec::<String>::new());
    world.nodes.start_edge().await?;
    world.linked().await?;
    world.end().await
}

/// What a session was opened with, and the keys that it has opened, are in the edge's memory while it lives, and not after
/// it: however it was opened, and however it has ended.
#[tokio::test]
async fn an_edges_memory_holds_no_key_and_no_password_of_a_session_that_is_over() -> Result<(), Trouble> {
    let mut world = world().await?;
    let canary = Canary::released(&mut world).await?;
    let Started { user, password, .. } = &canary.trip;
    let ready = world.nodes.edge_ready();
    let (pop3, pop3s) = (first(&ready.pop3), first(&ready.pop3s));
    let mut open = Pop3Client::connect_tls(pop3s).await?;
    open.login(user, password).await?;
    open.retr(1).await?;
    let found = canary.found_in_memory(&world)?;
    assert!(found.iter().any(|found| found.starts_with("the private key")), "the search finds what is there");
    // Another one is told that the maildrop is in use; its password was right.
    let mut second = Pop3Client::connect_tls(pop3s).await?;
    assert!(second.login_scram(user, password, true).await.is_err());
    drop(second);
    open.quit().await?;
    for way in ["PLAIN", "SCRAM", "PLUS", "a guess"] {
        let mut session = Pop3Client::connect(pop3).await?;
        session.start_tls().await?;
        match way {
            "PLAIN" => session.login_plain(user, password).await?,
            "SCRAM" => session.login_scram(user, password, false).await?,
            "PLUS" => session.login_scram(user, password, true).await?,
            _ => assert!(session.login(user, &format!("{password}x")).await.is_err()),
        }
        if way != "a guess" {
            session.retr(2).await?;
        }
        // The last one hangs up.
        if way != "PLUS" {
            session.quit().await?;
        }
    }
    // Many at once use more of the memory, and leave more of it behind.
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS_AT_ONCE {
        let (user, password) = (user.clone(), password.clone());
        let submission = first(&world.nodes.edge_ready().submission);
        sessions.spawn(async move {
            if number % 2 == 0 {
                let login = Some((user.as_str(), password.as_str()));
                return SmtpClient::ready(submission, login).await.map(|session| (Some(session), None)).ok();
            }
            let mut session = Pop3Client::connect_tls(pop3s).await.ok()?;
            // One of them has the maildrop; the others know the password as well.
            let _ = match number % 4 {
                1 => session.login(&user, &password).await,
                _ => session.login_plain(&user, &password).await,
            };
            Some((None, Some(session)))
        });
    }
    let sessions = sessions.join_all().await;
    assert!(sessions.iter().all(Option::is_some), "all were served");
    drop(sessions);
    // A client has its answer before the edge has put the session away.
    let mut found = Vec::new();
    let over = until("nothing of it is left", SOON, async || {
        found = canary.found_in_memory(&world)?;
        Ok(found.is_empty().then_some(()))
    });
    let over = over.await;
    assert!(over.is_ok(), "{found:#?}");
    world.end().await
}

/// A client that is set to submit while it collects: one login each, both done.
#[tokio::test]
async fn mail_is_sent_while_a_maildrop_is_open() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = set_out(&world, Terms::default()).await?;
    world.receive(&[ALICE], &letter(1).text(SHORT)).await?;
    let mut reading = world.collect_when(&trip, 1).await?;
    let mut sending: SmtpClient = world.submission(&trip.user, &trip.password).await?;
    reading.retr(1).await?;
    let text = b"From: alice@example.com\r\nSubject: meanwhile\r\n\r\nx\r\n";
    let id = accepted_as(&sending.send(ALICE, &[BOB], text).await?).ok_or("no id")?;
    reading.dele(1).await?;
    reading.quit().await?;
    tokio::time::timeout(Duration::from_secs(20), world.desk("bob").filed(Folder::In, &id)).await??;
    world.end().await
}

/// CAPA tells a client how long it may leave its mail there, by the window as it is at the login.
#[tokio::test]
async fn whole_days_are_told_until_the_window_ends() -> Result<(), Trouble> {
    const DAY: u64 = 24 * 3_600_000;
    let world = world().await?;
    let expire = async |trip: &Started| -> Result<String, Trouble> {
        let mut session = Pop3Client::connect_tls(first(&world.nodes.edge_ready().pop3s)).await?;
        let is_expire = |line: &String| line.starts_with("EXPIRE");
        let before = session.capabilities().await?;
        assert!(!before.iter().any(is_expire), "nobody knows yet whose: {before:?}");
        session.login(&trip.user, &trip.password).await?;
        let told = session.capabilities().await?.into_iter().find(is_expire).ok_or("it is told")?;
        session.quit().await?;
        Ok(told)
    };
    let now = unix_millis();
    let trip = set_out(&world, Terms { until: Some(now + 3 * DAY + DAY / 2), ..Terms::default() }).await?;
    assert_eq!(expire(&trip).await?, "EXPIRE 3");
    for (until, told) in [(Some(now + DAY / 2), "EXPIRE 0"), (None, "EXPIRE NEVER")] {
        world.desk("alice").extend(until).await?;
        world.quiet().await?;
        assert_eq!(expire(&trip).await?, told);
    }
    world.end().await
}
