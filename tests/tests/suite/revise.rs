//! What was sent is revised, wherever its copies are: only the new text leaves, and who has the old one is told.

mod crossing;

use std::time::Duration;

use big_node::record::{AfterFetch, Folder, Scope};
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};
use tests::client::pop3::Pop3Client;
use tests::internet::rules::{Action, Rule, Stage};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, accepted_as};

/// How long the host outside takes over a dot.
const AT_THE_DOT: Duration = Duration::from_secs(2);

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

/// What has reached the Internet, as text.
fn outside(world: &World) -> Vec<String> {
    world.internet.mta.mail().iter().map(|mail| String::from_utf8_lossy(&mail.data).into_owned()).collect()
}

async fn until_is(world: &World, id: &str, state: DeliveryState) -> Result<(), Trouble> {
    let desk = world.desk("alice");
    until(&format!("it is {state:?}"), SOON, async || {
        Ok((desk.status(id).await?.recipients[0].state == state).then_some(()))
    })
    .await
}

/// The maildrop's messages, as unique ids and texts, when `fits` says that it is as it should be.
async fn collected(
    world: &World,
    (user, password): (&str, &str),
    retrieve: bool,
    fits: impl Fn(&[(String, String)]) -> bool,
) -> Result<(), Trouble> {
    until("the maildrop is as it should be", SOON, async || {
        let mut session: Pop3Client = world.pop3s(user, password).await?;
        let mut all = Vec::new();
        for (number, uidl) in session.uidl().await? {
            // TOP and RETR show the text, and count: a look that is not to count looks at ids alone.
            let text = if retrieve { session.retr(number).await? } else { Vec::new() };
            all.push((uidl, String::from_utf8_lossy(&text).into_owned()));
        }
        session.quit().await?;
        Ok(fits(&all).then_some(()))
    })
    .await
}

#[tokio::test]
async fn what_waits_for_the_link_or_for_another_attempt_leaves_as_its_author_last_wrote_it()
-> Result<(), Trouble> {
    let mut world = world().await?;
    let desk = world.desk("alice");
    // The link is down: it waits on big.
    world.nodes.kill(Node::Edge).await?;
    let sent = desk.send(CAROL, "plans", "the old text").await?;
    let status = desk.amend(&sent.id, ReviseMode::Replace, "the new text").await?;
    let pending = status.recipients[0].revised.as_ref().map(|revised| revised.result);
    assert_eq!(pending, Some(ReviseResult::Pending));
    let taken_back = desk.send(CAROL, "taken back", "never").await?;
    desk.amend(&taken_back.id, ReviseMode::Withdraw, "").await?;
    world.nodes.start_edge().await?;
    desk.revised(&sent.id, ReviseResult::Replaced).await?;
    desk.revised(&taken_back.id, ReviseResult::Withdrawn).await?;
    until_is(&world, &sent.id, DeliveryState::Relayed).await?;
    until_is(&world, &taken_back.id, DeliveryState::Withdrawn).await?;
    let got = outside(&world);
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].contains("the new text") && !got[0].contains("the old text"), "{}", got[0]);
    assert!(got[0].contains(&format!("Message-ID: <{}@", sent.id)), "{}", got[0]);

    // The host outside does not want it yet: it waits on the edge.
    let mta = &world.internet.mta;
    mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    let sent = desk.send(CAROL, "more plans", "the old text").await?;
    until_is(&world, &sent.id, DeliveryState::Deferred).await?;
    desk.amend(&sent.id, ReviseMode::Append, "and more").await?;
    desk.revised(&sent.id, ReviseResult::Replaced).await?;
    mta.clear_rules();
    until_is(&world, &sent.id, DeliveryState::Relayed).await?;
    let got = outside(&world);
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(got[1].contains("the old text") && got[1].contains("and more"), "{}", got[1]);

    // It has left: a notice follows.
    desk.amend(&sent.id, ReviseMode::Replace, "all new").await?;
    desk.revised(&sent.id, ReviseResult::NoticeSent).await?;
    mta.wait_for(3, SOON).await?;
    let notice = outside(&world).pop().unwrap_or_default();
    assert!(notice.contains(&format!("Supersedes: <{}@", sent.id)), "{notice}");
    assert!(notice.contains("Subject: Amended: more plans") && notice.contains("all new"), "{notice}");
    assert_eq!(desk.history(&sent.id).await?.len(), 3);
    world.end().await
}

/// The host outside takes its time over the dot; meanwhile its author revises.
#[tokio::test]
async fn what_is_being_attempted_is_decided_by_how_that_ends() -> Result<(), Trouble> {
    let world = world().await?;
    let (desk, mta) = (world.desk("alice"), &world.internet.mta);
    let cases = [
        (ReviseMode::Replace, None, ReviseResult::NoticeSent, DeliveryState::Relayed),
        (ReviseMode::Withdraw, None, ReviseResult::NoticeSent, DeliveryState::Relayed),
        (ReviseMode::Append, Some("451 4.3.0 full"), ReviseResult::Replaced, DeliveryState::Relayed),
        (ReviseMode::Withdraw, Some("451 4.3.0 full"), ReviseResult::Withdrawn, DeliveryState::Withdrawn),
    ];
    for (number, (mode, answer, result, state)) in cases.into_iter().enumerate() {
        let (case, before) = (format!("{mode:?} {answer:?}"), outside(&world).len());
        mta.add_rule(Rule::new(Stage::Dot, Action::Delay(AT_THE_DOT)).times(1));
        if let Some(answer) = answer {
            mta.add_rule(Rule::new(Stage::Dot, Action::Reply(answer.to_owned())).times(1));
        }
        let sent = desk.send(CAROL, &format!("plans {number}"), "the old text").await?;
        until("the host is at the dot", SOON, async || Ok(mta.is_used_up().then_some(()))).await?;
        let text = if mode == ReviseMode::Withdraw { "" } else { "the new text" };
        let status = desk.amend(&sent.id, mode, text).await?;
        let pending = status.recipients[0].revised.as_ref().map(|revised| revised.result);
        assert_eq!(pending, Some(ReviseResult::Pending), "{case}");
        desk.revised(&sent.id, result).await?;
        until_is(&world, &sent.id, state).await?;
        let expected = match (answer, mode) {
            (None, _) => 2,
            (Some(_), ReviseMode::Withdraw) => 0,
            (Some(_), _) => 1,
        };
        let got = mta.wait_for(before + expected, SOON).await?.split_off(before);
        let texts: Vec<_> = got.iter().map(|mail| String::from_utf8_lossy(&mail.data).into_owned()).collect();
        assert_eq!(texts.len(), expected, "{case}: {texts:?}");
        if answer.is_some() && expected == 1 {
            assert!(
                texts[0].contains("the old text") && texts[0].contains("the new text"),
                "{case}: {texts:?}"
            );
        }
        mta.clear_rules();
    }
    world.end().await
}

#[tokio::test]
async fn of_two_revisions_from_one_base_one_is_made_and_a_killed_big_forgets_none() -> Result<(), Trouble> {
    let mut world = world().await?;
    let desk = world.desk("alice");
    world.nodes.kill(Node::Edge).await?;
    let sent = desk.send(&format!("{CAROL}, {BOB}"), "plans", "the old text").await?;
    let from_the_original = |text| desk.amend_for(&[], (&sent.id, Some(0)), ReviseMode::Replace, text);
    let (one, other) = tokio::join!(from_the_original("the first"), from_the_original("the second"));
    let refused = match (&one, &other) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused.to_string(),
        _ => panic!("one of them is made: {one:?} {other:?}"),
    };
    assert!(refused.contains("--base 1"), "{refused}");
    // Without a base, each means what is the latest.
    let any = |text| desk.amend(&sent.id, ReviseMode::Replace, text);
    let (one, other) = tokio::join!(any("the third"), any("the fourth"));
    one?;
    other?;
    assert_eq!(desk.history(&sent.id).await?.len(), 4);
    // For some only: the author's own text stays, and the desk goes on from the latest all the same.
    desk.amend_for(&[CAROL], (&sent.id, Some(3)), ReviseMode::Append, "for carol alone").await?;
    let reading = desk.read(&sent.id).await?;
    assert_eq!((reading.revision, reading.latest), (3, Some(4)));
    assert_eq!(world.desk("bob").read(&sent.id).await?.latest, None, "a reader does not learn of it");
    let differ = desk.amend(&sent.id, ReviseMode::Append, "P.S.").await.expect_err("they differ");
    assert!(differ.to_string().contains("carol@remote.example has revision 4"), "{differ}");

    world.nodes.kill(Node::Big).await?;
    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    until("carol's copy is replaced", SOON, async || {
        let status = desk.status(&sent.id).await?;
        let of_carol = status.recipients.iter().find(|recipient| recipient.address == CAROL);
        let revised = of_carol.and_then(|recipient| recipient.revised.as_ref());
        Ok(revised.filter(|revised| revised.result == ReviseResult::Replaced).map(drop))
    })
    .await?;
    let got = world.internet.mta.wait_for(1, SOON).await?;
    let text = String::from_utf8_lossy(&got[0].data).into_owned();
    assert!(text.contains("for carol alone") && !text.contains("the old text"), "{text}");
    world.end().await
}

#[tokio::test]
async fn copies_on_the_road_are_swapped_or_offered_again() -> Result<(), Trouble> {
    let world = world().await?;
    let (alice, bob) = (world.desk("alice"), world.desk("bob"));
    let trip = bob.travel(Scope::New, AfterFetch::Keep).await?;
    let login = (trip.user.as_str(), trip.password.as_str());
    world.first_pop3s(login.0, login.1).await?.quit().await?;
    let sent = alice.send(BOB, "lunch", "at noon").await?;
    let ids = |revision: u32| format!("{}.{revision}.0", sent.id);
    collected(&world, login, false, |all| all.len() == 1 && all[0].0 == ids(0)).await?;
    alice.amend(&sent.id, ReviseMode::Replace, "at one").await?;
    alice.revised(&sent.id, ReviseResult::Replaced).await?;
    let is = |all: &[(String, String)], revision, text| {
        all.len() == 1 && all[0].0 == ids(revision) && all[0].1.contains(text)
    };
    collected(&world, login, true, |all| is(all, 1, "at one")).await?;
    // Fetched by now.
    alice.amend(&sent.id, ReviseMode::Replace, "at two").await?;
    alice.revised(&sent.id, ReviseResult::Revised).await?;
    collected(&world, login, false, |all| is(all, 2, "")).await?;
    let line = bob.filed(Folder::In, &sent.id).await?;
    assert!(line.amended && !line.read && line.revision == 2, "{line:?}");
    // A session under way keeps what it saw, and what it fetches is read.
    let mut session = world.pop3s(login.0, login.1).await?;
    alice.amend(&sent.id, ReviseMode::Withdraw, "").await?;
    assert!(String::from_utf8_lossy(&session.retr(1).await?).contains("at two"));
    drop(session);
    alice.revised(&sent.id, ReviseResult::Revised).await?;
    collected(&world, login, true, |all| is(all, 3, "withdrawn this message")).await?;
    assert!(bob.filed(Folder::In, &sent.id).await?.withdrawn);

    let unread = alice.send(BOB, "unread", "nobody fetches this").await?;
    collected(&world, login, false, |all| all.len() == 2).await?;
    alice.amend(&unread.id, ReviseMode::Withdraw, "").await?;
    alice.revised(&unread.id, ReviseResult::Withdrawn).await?;
    collected(&world, login, false, |all| all.len() == 1).await?;
    assert_eq!(bob.messages(Folder::In).await?.len(), 1);
    world.end().await
}

#[tokio::test]
async fn what_a_killed_edge_had_shown_is_not_said_to_be_withdrawn() -> Result<(), Trouble> {
    let mut world = world().await?;
    let trip = world.desk("bob").travel(Scope::New, AfterFetch::Keep).await?;
    let login = (trip.user.as_str(), trip.password.as_str());
    world.first_pop3s(login.0, login.1).await?.quit().await?;
    let shown = world.desk("alice").send(BOB, "lunch", "at noon").await?;
    collected(&world, login, false, |all| all.len() == 1).await?;
    let mut session = world.pop3s(login.0, login.1).await?;
    assert!(String::from_utf8_lossy(&session.retr(1).await?).contains("at noon"));
    world.nodes.kill(Node::Edge).await?;
    drop(session);
    world.nodes.start_edge().await?;
    let alice = world.desk("alice");
    let unread = alice.send(BOB, "unread", "nobody fetches this").await?;
    collected(&world, login, false, |all| all.len() == 2).await?;
    for (sent, result) in [(shown, ReviseResult::Revised), (unread, ReviseResult::Withdrawn)] {
        alice.amend(&sent.id, ReviseMode::Withdraw, "").await?;
        alice.revised(&sent.id, result).await?;
    }
    collected(&world, login, true, |all| all.len() == 1 && all[0].1.contains("withdrawn this message")).await
}

#[tokio::test]
async fn a_traveller_withdraws_by_answering_their_own_message() -> Result<(), Trouble> {
    let world = world().await?;
    let desk = world.desk("alice");
    let trip = desk.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    let letter = |to: &str, head: &str| {
        format!("From: {ALICE}\r\nTo: {to}\r\nSubject: offer\r\n{head}\r\nthe text\r\n").into_bytes()
    };
    let mut session = world.submission(&trip.user, &trip.password).await?;
    let reply = session.send(ALICE, &[CAROL], &letter(CAROL, "Message-ID: <1@phone.example>\r\n")).await?;
    let id = accepted_as(&reply).ok_or("no id")?;
    desk.filed(Folder::Sent, &id).await?;
    let control = "alice+withdraw@example.com";
    let head = "Message-ID: <2@phone.example>\r\nIn-Reply-To: <1@phone.example>\r\n";
    // Anybody may write that; from outside it is mail like any other.
    let forged = world.receive(&[control], &letter(control, head)).await?;
    desk.filed(Folder::In, &forged).await?;
    session.send(ALICE, &[control], &letter(control, head)).await?;
    desk.revised(&id, ReviseResult::Withdrawn).await?;
    let answer = desk.arrival(Folder::In, "the answer", |line| line.subject == "Revised: offer").await?;
    assert!(desk.read(&answer.id).await?.text.contains(CAROL));
    world.internet.mta.clear_rules();
    until_is(&world, &id, DeliveryState::Withdrawn).await?;
    assert!(outside(&world).is_empty(), "it never left");
    drop(session);
    world.end().await
}
