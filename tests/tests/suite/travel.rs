//! Mail on the road: the window, the maildrop, submission, and what comes home of it.

use big_node::record::{AfterFetch, Folder, Scope, WindowState};
use big_node::request::{Started, Terms};
use edge_node::request::{LockedView, Request as EdgeRequest};
use shared::unit::DeliveryState;
use tests::client::pop3::Pop3Client;
use tests::client::smtp::{SendError, SmtpClient};
use tests::damage::flip;
use tests::internet::rules::{Rule, Stage};
use tests::ledger::Token;
use tests::messages::{LONG, Letter, SHORT};
use tests::process::{Node, Program};
use tests::road::refused;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, accepted_as, first, without_trace};
use tokio::task::JoinSet;

/// More than an account bears.
const GUESSES: usize = 60;
/// How many of them are tried.
const TRIED: usize = 20;

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

fn letter(number: u64) -> Letter<'static> {
    Letter { from: CAROL, to: ALICE, subject: "test", token: Token { seed: 1, number } }
}

/// Alice travels, and the edge knows it.
async fn set_out(world: &World, scope: Scope, after_fetch: AfterFetch) -> Result<Started, Trouble> {
    world.set_out("alice", Terms { scope, after_fetch, ..Terms::default() }).await
}

#[tokio::test]
async fn the_maildrop_fills_while_the_link_is_down_and_acts_come_home_after() -> Result<(), Trouble> {
    let mut world = world().await?;
    let trip = set_out(&world, Scope::New, AfterFetch::Read).await?;
    world.nodes.kill(Node::Big).await?;
    let messages = [letter(1).text(SHORT), letter(2).with_attachment("a.bin", LONG * 4)];
    let mut ids = Vec::new();
    for message in &messages {
        ids.push(world.receive(&[ALICE], message).await?);
    }
    let mut session = world.log_in(&trip).await?;
    assert_eq!(session.stat().await?.0, 2, "both are there at once");
    for (number, message) in (1..).zip(&messages) {
        assert!(without_trace(&session.retr(number).await?) == message);
    }
    session.quit().await?;
    world.nodes.start_big().await?;
    let desk = world.desk("alice");
    for (id, message) in ids.iter().zip(&messages) {
        desk.filed(Folder::In, id).await?;
        until("it is read at home", SOON, async || Ok(desk.filed(Folder::In, id).await?.read.then_some(())))
            .await?;
        assert!(without_trace(&desk.raw(id).await?) == message);
    }
    assert_eq!(desk.messages(Folder::In).await?.len(), 2);
    let mut session = world.log_in(&trip).await?;
    assert_eq!(session.stat().await?.0, 2, "what the edge had filed is not copied again by big");
    session.quit().await?;
    Ok(())
}

#[tokio::test]
async fn a_maildrop_speaks_all_of_pop3_and_keeps_its_ids() -> Result<(), Trouble> {
    let mut world = world().await?;
    let trip = set_out(&world, Scope::New, AfterFetch::Delete).await?;
    let messages: Vec<_> = (1..=3).map(|number| letter(number).text(SHORT)).collect();
    let mut ids = Vec::new();
    for message in &messages {
        ids.push(world.receive(&[ALICE], message).await?);
    }
    let mut session = world.collect_when(&trip, 3).await?;
    let busy = refused(world.log_in(&trip).await);
    assert!(busy.starts_with("[IN-USE]"), "{busy}");
    let capabilities = session.capabilities().await?;
    for capability in ["UIDL", "TOP", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE"] {
        assert!(capabilities.iter().any(|line| line == capability), "{capability}: {capabilities:?}");
    }
    let uidl = session.uidl().await?;
    let expected: Vec<_> = (1..).zip(&ids).map(|(number, id)| (number, format!("{id}.0.0"))).collect();
    assert_eq!(uidl, expected);
    let list = session.list().await?;
    let whole = session.retr(2).await?;
    assert_eq!(list[1], (2, whole.len() as u64));
    let total: u64 = list.iter().map(|(_, octets)| octets).sum();
    assert_eq!(session.stat().await?, (3, total));
    let top = session.top(2, 2).await?;
    let header = memchr::memmem::find(&whole, b"\r\n\r\n").ok_or("no header")? + 4;
    let lines =
        whole[header..].split_inclusive(|byte| *byte == b'\n').take(2).map(<[u8]>::len).sum::<usize>();
    assert!(top == whole[..header + lines]);
    assert!(refused(session.retr(4).await).len() > 3);
    session.dele(1).await?;
    assert!(refused(session.retr(1).await).len() > 3);
    session.command("RSET").await?;
    session.retr(1).await?;
    session.dele(3).await?;
    // Hanging up deletes nothing (RFC 1939 §6).
    drop(session);
    let mut session = world.collect_when(&trip, 3).await?;
    session.dele(3).await?;
    session.quit().await?;

    world.nodes.kill(Node::Edge).await?;
    world.nodes.start_edge().await?;
    let mut session = world.log_in(&trip).await?;
    assert_eq!(session.uidl().await?, expected[..2]);
    session.quit().await?;
    let desk = world.desk("alice");
    desk.filed(Folder::Trash, &ids[2]).await?;
    desk.filed(Folder::In, &ids[0]).await?;
    Ok(())
}

#[tokio::test]
async fn logins_need_tls_and_the_right_password() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = set_out(&world, Scope::New, AfterFetch::Keep).await?;
    let edge = world.nodes.edge_ready();
    let mut clear = Pop3Client::connect(first(&edge.pop3)).await?;
    refused(clear.login(&trip.user, &trip.password).await);
    clear.start_tls().await?;
    let wrong = refused(clear.login(&trip.user, "wrong").await);
    assert!(wrong.starts_with("[AUTH]"), "{wrong}");
    let unknown = refused(clear.login("mallory", &trip.password).await);
    assert_eq!(wrong, unknown, "who is known is not told");
    clear.login_plain(ALICE, &trip.password).await?;
    clear.quit().await?;

    let mut clear = SmtpClient::connect(first(&edge.submission)).await?;
    clear.hello().await?;
    assert!(!clear.offers("AUTH"), "no passwords in clear");
    assert!(clear.login(&trip.user, &trip.password).await.is_err());
    assert_eq!(clear.command("MAIL FROM:<alice@example.com>").await?.code, 530);
    clear.start_tls().await?;
    assert!(clear.offers("AUTH"));
    let wrong = clear.login(&trip.user, "wrong").await.expect_err("refused").to_string();
    assert!(wrong.contains("535 5.7.8"), "{wrong}");
    clear.login(&trip.user, &trip.password).await?;
    let mut implicit = SmtpClient::connect_tls(first(&edge.submissions)).await?;
    implicit.hello().await?;
    implicit.login(ALICE, &trip.password).await?;
    let mut reception = world.smtp().await?;
    reception.start_tls().await?;
    assert!(!reception.offers("AUTH"), "port 25 knows no logins");
    Ok(())
}

#[tokio::test]
async fn a_traveller_sends_only_as_themselves() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = set_out(&world, Scope::New, AfterFetch::Keep).await?;
    let mut session = world.submission(&trip.user, &trip.password).await?;
    let as_bob = "From: bob@example.com\r\nSubject: forged\r\n\r\nx\r\n";
    let as_alice = "From: Alice <alice@example.com>\r\nSubject: true\r\n\r\nx\r\n";
    let two = "From: alice@example.com\r\nFrom: bob@example.com\r\nSubject: two\r\n\r\nx\r\n";
    for (path, message, expected) in [
        (BOB, as_bob, "MAIL"),
        ("", as_bob, "dot"),
        ("alice@remote.example", as_alice, "MAIL"),
        (ALICE, as_bob, "dot"),
        (ALICE, two, "dot"),
        (ALICE, "Subject: nobody\r\n\r\nx\r\n", "dot"),
    ] {
        match session.send(path, &[BOB], message.as_bytes()).await {
            Err(SendError::Refused { stage, reply }) => {
                assert_eq!(stage, expected, "{path} {message:?}: {reply}");
                assert!((550..=553).contains(&reply.code), "{reply}");
            }
            other => panic!("{path} {message:?}: {other:?}"),
        }
    }
    let reply = session.send(ALICE, &[BOB, "carol@remote.example"], as_alice.as_bytes()).await?;
    let id = accepted_as(&reply).ok_or("no id")?;
    world.desk("bob").filed(Folder::In, &id).await?;
    world.desk("alice").filed(Folder::Sent, &id).await?;
    world.internet.mta.wait_for(1, SOON).await?;
    assert_eq!(world.desk("bob").messages(Folder::In).await?.len(), 1);
    // Clients say so that mail was read, and nobody is told if that fails.
    let read = "From: Alice <alice@example.com>\r\nSubject: read\r\nContent-Type: multipart/report; \
                report-type=disposition-notification; boundary=b\r\n\r\n--b\r\n\r\nread\r\n--b--\r\n";
    let nobody = Rule::reply(Stage::Rcpt, 550, "5.1.1 nobody").only_for("gone@remote.example");
    world.internet.mta.add_rule(nobody);
    let desk = world.desk("alice");
    for (to, state) in [(CAROL, DeliveryState::Relayed), ("gone@remote.example", DeliveryState::Failed)] {
        let reply = session.send("", &[to], read.as_bytes()).await?;
        let id = accepted_as(&reply).ok_or("no id")?;
        desk.filed(Folder::Sent, &id).await?;
        until(&format!("it is {state:?}"), SOON, async || {
            Ok((desk.status(&id).await?.recipients[0].state == state).then_some(()))
        })
        .await?;
    }
    world.quiet().await?;
    assert_eq!(world.internet.mta.mail()[1].reverse_path, "");
    assert!(desk.messages(Folder::In).await?.is_empty(), "no report comes");
    Ok(())
}

#[tokio::test]
async fn what_came_before_is_filled_in_and_after_the_end_nothing_is_left() -> Result<(), Trouble> {
    let world = world().await?;
    let desk = world.desk("alice");
    let before = letter(1).text(SHORT);
    let id = world.receive(&[ALICE], &before).await?;
    desk.filed(Folder::In, &id).await?;
    let large = letter(2).with_attachment("b.bin", LONG * 4);
    let id = world.receive(&[ALICE], &large).await?;
    desk.filed(Folder::In, &id).await?;
    let trip = set_out(&world, Scope::All, AfterFetch::Keep).await?;
    assert_eq!(trip.backfilled, 2);
    world.desk("bob").send(ALICE, "inside", "text").await?;
    let mut session = world.collect_when(&trip, 3).await?;
    let mut collected = Vec::new();
    for number in 1..=3 {
        collected.push(without_trace(&session.retr(number).await?).to_vec());
    }
    assert!(collected.contains(&before) && collected.contains(&large));
    session.quit().await?;

    assert_eq!(desk.come_home().await?.state, WindowState::Ending);
    until("the login ends", SOON, async || Ok(world.log_in(&trip).await.is_err().then_some(()))).await?;
    assert!(world.submission(&trip.user, &trip.password).await.is_err());
    until("big lists the window as ended", SOON, async || {
        let windows = world.big().windows().await?;
        Ok(windows.iter().all(|window| window.state == WindowState::Ended).then_some(()))
    })
    .await?;
    let people = world.big().people().await?;
    assert!(people.iter().all(|person| !person.travelling));
    assert_eq!(desk.messages(Folder::In).await?.len(), 3, "nothing at home is lost by it");
    let again = set_out(&world, Scope::New, AfterFetch::Keep).await?;
    assert_ne!(again.password, trip.password);
    assert!(world.log_in(&trip).await.is_err(), "the old password opens nothing");
    Ok(())
}

#[tokio::test]
async fn every_way_to_log_in_opens_the_maildrop_and_none_tells_who_is_there() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = set_out(&world, Scope::New, AfterFetch::Keep).await?;
    let message = letter(1).text(SHORT);
    world.receive(&[ALICE], &message).await?;
    world.collect_when(&trip, 1).await?.quit().await?;
    let pop3 = first(&world.nodes.edge_ready().pop3);
    let (user, password) = (trip.user.as_str(), trip.password.as_str());
    for (plus, tls) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut session = match tls {
            true => Pop3Client::connect_tls(first(&world.nodes.edge_ready().pop3s)).await?,
            false => {
                let mut session = Pop3Client::connect(pop3).await?;
                let offered = session.capabilities().await?;
                assert!(!offered.iter().any(|line| line.contains("SCRAM")), "in the clear: {offered:?}");
                session.start_tls().await?;
                session
            }
        };
        let offered = session.capabilities().await?;
        let sasl = "SASL PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS";
        assert!(offered.iter().any(|line| line == sasl), "{offered:?}");
        session.login_scram(user, password, plus).await?;
        // The key that opens the mail came out of the proof.
        assert!(without_trace(&session.retr(1).await?) == message);
        session.quit().await?;
    }
    let mut refusals = Vec::new();
    for (user, password) in [(user, "abcde-fghij-kmnpq-rstuv"), ("nobody", password)] {
        for plus in [false, true] {
            let mut session = Pop3Client::connect_tls(first(&world.nodes.edge_ready().pop3s)).await?;
            refusals.push(refused(session.login_scram(user, password, plus).await));
        }
        let mut session = Pop3Client::connect_tls(first(&world.nodes.edge_ready().pop3s)).await?;
        refusals.push(refused(session.login(user, password).await));
        refusals.push(refused(session.login_plain(user, password).await));
    }
    refusals.dedup();
    assert_eq!(refusals, ["[AUTH] bad user name or password"]);
    world.end().await
}

#[tokio::test]
async fn guesses_lock_who_was_not_there_before_and_the_operator_sees_it() -> Result<(), Trouble> {
    let mut world = world().await?;
    let alice = set_out(&world, Scope::New, AfterFetch::Keep).await?;
    let bob = world.desk("bob").travel(Scope::New, AfterFetch::Keep).await?;
    world.quiet().await?;
    // All at once, for one after the other they would be slowed down.
    let mut guessers = JoinSet::new();
    for _ in 0..GUESSES {
        let mut session = Pop3Client::connect_tls(first(&world.nodes.edge_ready().pop3s)).await?;
        session.command("USER bob@example.com").await?;
        guessers.spawn(async move { refused(session.command("PASS a-guess").await) });
    }
    let (tried, kept_off): (Vec<_>, Vec<_>) =
        guessers.join_all().await.into_iter().partition(|refusal| refusal.starts_with("[AUTH]"));
    assert!(kept_off.iter().all(|refusal| refusal.starts_with("[SYS/TEMP] too many")), "{kept_off:?}");
    assert_eq!(tried.len(), TRIED, "and no more, although all came at once");
    let (locked, _): (Vec<LockedView>, _) = world.edge().ask(EdgeRequest::Logins, Vec::new()).await?;
    let [LockedView { what, is_network: false, failures: 20, .. }] = locked.as_slice() else {
        panic!("one account is guarded: {locked:?}")
    };
    assert_eq!(what, "bob@example.com");
    let alarms = world.edge_link().await?.alarms;
    assert!(alarms.iter().any(|alarm| alarm.contains("being guessed")), "{alarms:?}");

    until("big's operator is told", SOON, async || {
        let alarms = world.big().link().await?.alarms;
        Ok(alarms.iter().any(|alarm| alarm.contains("0 networks were locked out, 1 accounts")).then_some(()))
    })
    .await?;

    let from_here = world.pop3s(&bob.user, &bob.password).await.err().ok_or("bob was not here before")?;
    assert!(from_here.to_string().contains("[SYS/TEMP] too many failed logins"), "{from_here}");
    let sending = world.submission("bob@example.com", &bob.password).await.err().ok_or("it is one count")?;
    assert!(sending.to_string().contains("454 4.7.0"), "{sending}");
    world.pop3s(&alice.user, &alice.password).await?.quit().await?;

    world.nodes.kill(Node::Edge).await?;
    world.nodes.start_edge().await?;
    world.pop3s(&bob.user, &bob.password).await?.quit().await?;
    world.end().await
}

#[tokio::test]
async fn what_is_damaged_is_lost_for_good_and_what_cannot_be_read_now_is_not() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = set_out(&world, Scope::New, AfterFetch::Delete).await?;
    let messages = [letter(1).text(SHORT), letter(2).text(SHORT)];
    let mut ids = Vec::new();
    for message in &messages {
        ids.push(world.receive(&[ALICE], message).await?);
    }
    let mut session = world.collect_when(&trip, 2).await?;
    let edge = world.nodes.state_of(Node::Edge);
    flip(&edge, &ids[0])?;
    for command in ["RETR 1", "TOP 1 0"] {
        let said = refused(session.command(command).await);
        assert!(said.starts_with("[SYS/PERM]"), "{command}: {said}");
    }
    assert!(without_trace(&session.retr(2).await?) == messages[1], "the session and the rest go on");
    flip(&edge, &ids[0])?;
    assert!(without_trace(&session.retr(1).await?) == messages[0]);
    session.quit().await?;
    world.end().await
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_said_to_be_for_now_and_nothing_is_lost() -> Result<(), Trouble> {
    let world = World::start(Program::at(env!("CARGO_BIN_EXE_pair")).with_bounded_files()).await?;
    let trip = set_out(&world, Scope::New, AfterFetch::Delete).await?;
    let mut ids = Vec::new();
    for number in 1..=2 {
        ids.push(world.receive(&[ALICE], &letter(number).text(SHORT)).await?);
    }
    let mut session = world.collect_when(&trip, 2).await?;
    let uidl = session.uidl().await?;
    session.retr(1).await?;
    session.dele(1).await?;
    world.quiet().await?;
    world.nodes.bound_files(Node::Edge, Some(1))?;
    let said = refused(session.quit().await);
    assert!(said.starts_with("[SYS/TEMP]"), "{said}");
    let said = refused(world.log_in(&trip).await);
    assert!(said.starts_with("[SYS/TEMP]"), "{said}");
    world.nodes.bound_files(Node::Edge, None)?;
    // The edge finds out by itself that the disk takes it.
    let mut session =
        until("the maildrop opens again", SOON, async || Ok(world.log_in(&trip).await.ok())).await?;
    assert_eq!(session.uidl().await?, uidl, "nothing was deleted");
    session.dele(1).await?;
    session.quit().await?;
    world.desk("alice").filed(Folder::Trash, &ids[0]).await?;
    world.end().await
}
