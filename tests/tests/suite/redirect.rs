//! An operator sends a message that waits to another address: who it waited for never gets it, and the other one once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use big_node::request::{Done, RecipientView, Request, Written};
use shared::notify::Notify;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};
use tests::internet::dns::Zone;
use tests::internet::mta::{Mta, Options};
use tests::internet::rules::{Action, Rule, Stage};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{CAROL, World};

/// At a domain whose host offers DSN.
const NEW: &str = "carol@elsewhere.example";
/// How long the host outside takes over a dot.
const AT_THE_DOT: Duration = Duration::from_secs(2);

async fn world() -> Result<(World, Mta), Trouble> {
    let world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let other = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    let listen = SocketAddr::new(other, world.internet.mta.address().port());
    let elsewhere = Mta::start(Options { listen, dsn: true, ..Options::default() }).await?;
    world.internet.dns.publish(Zone::new("elsewhere.example").a("elsewhere.example", other));
    Ok((world, elsewhere))
}

async fn redirect(world: &World, id: &str) -> Result<String, Trouble> {
    let (message, from, to) = (id.to_owned(), CAROL.to_owned(), NEW.to_owned());
    let done: Done = world.big().0.ask(Request::QueueRedirect { message, from, to }, Vec::new()).await?.0;
    Ok(done.done)
}

/// Waits until the message's last recipient is so.
async fn until_is(world: &World, id: &str, state: DeliveryState) -> Result<Vec<RecipientView>, Trouble> {
    let desk = world.desk("alice");
    until(&format!("it is {state:?}"), SOON, async || {
        let recipients = desk.status(id).await?.recipients;
        Ok(recipients.last().is_some_and(|last| last.state == state).then_some(recipients))
    })
    .await
}

fn states(recipients: &[RecipientView]) -> Vec<(&str, DeliveryState, Option<&str>)> {
    recipients.iter().map(|row| (row.address.as_str(), row.state, row.via.as_deref())).collect()
}

#[tokio::test]
async fn what_waits_goes_to_the_new_address_once_and_never_to_the_old_one() -> Result<(), Trouble> {
    let (mut world, elsewhere) = world().await?;
    let desk = world.desk("alice");
    let once = [(CAROL, DeliveryState::Withdrawn, None), (NEW, DeliveryState::Relayed, Some(CAROL))];

    // The link is down: the message waits on big, and so does the order, also over a kill.
    world.nodes.kill(Node::Edge).await?;
    let text = "it waits on big";
    let notify: Notify = "SUCCESS,FAILURE".parse()?;
    let written = Written {
        to: vec![CAROL.into()],
        subject: "plans".into(),
        text_bytes: text.len(),
        notify: Some(notify),
        ..Written::default()
    };
    let sent = desk.dispatch(written, text).await?;
    let said = redirect(&world, &sent.id).await?;
    assert!(said.contains("once the edge has said"), "{said}");
    assert_eq!(desk.status(&sent.id).await?.recipients[0].redirect.as_deref(), Some(NEW));
    world.nodes.kill(Node::Big).await?;
    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    let recipients = until_is(&world, &sent.id, DeliveryState::Relayed).await?;
    assert_eq!(states(&recipients), once);
    assert!(recipients[1].host_reports, "the next host tells of its success: {recipients:?}");
    let got = elsewhere.wait_for(1, SOON).await?;
    assert_eq!(got[0].recipients, [NEW]);
    assert_eq!(got[0].recipient_parameters, [["NOTIFY=SUCCESS,FAILURE", &format!("ORCPT=rfc822;{CAROL}")]]);

    // The host of the old address takes nothing: the message waits on the edge, which is killed behind its answer.
    let mta = &world.internet.mta;
    mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    let sent = desk.send(CAROL, "more plans", "it waits on the edge").await?;
    until_is(&world, &sent.id, DeliveryState::Deferred).await?;
    // Until the edge is killed the new host lets nobody come as far as the content, which it then would rightly get again.
    elsewhere.add_rule(Rule::new(Stage::Rcpt, Action::Delay(Duration::from_secs(3_600))));
    let said = redirect(&world, &sent.id).await?;
    assert!(said.contains(&format!("goes to {NEW}, and not to {CAROL}")), "{said}");
    world.nodes.kill(Node::Edge).await?;
    elsewhere.clear_rules();
    world.nodes.start_edge().await?;
    world.internet.mta.clear_rules();
    assert_eq!(states(&until_is(&world, &sent.id, DeliveryState::Relayed).await?), once);

    let way = world.nodes.big.run(&["trace", &sent.id]).await?;
    assert!(way.contains(&format!("{CAROL}: redirected to {NEW}")), "{way}");
    world.quiet().await?;
    assert_eq!(elsewhere.mail().len(), 2, "each once");
    assert!(world.internet.mta.mail().is_empty(), "the old address has nothing");
    world.end().await
}

/// Both orders come to the edge at once, the redirect first: it gives the old address up by that.
#[tokio::test]
async fn what_its_author_withdraws_meanwhile_goes_nowhere_and_what_they_write_anew_goes_there()
-> Result<(), Trouble> {
    let (world, elsewhere) = world().await?;
    let (desk, mta) = (world.desk("alice"), &world.internet.mta);
    mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    let withdrawn = desk.send(CAROL, "plans", "it is taken back").await?;
    let revised = desk.send(CAROL, "more plans", "it is old").await?;
    for sent in [&withdrawn, &revised] {
        until_is(&world, &sent.id, DeliveryState::Deferred).await?;
    }
    let big = &world.nodes.big;
    big.run(&["link", "hold"]).await?;
    for sent in [&withdrawn, &revised] {
        let said = redirect(&world, &sent.id).await?;
        assert!(said.contains("once the edge has said"), "{said}");
    }
    desk.amend(&withdrawn.id, ReviseMode::Withdraw, "").await?;
    desk.amend(&revised.id, ReviseMode::Replace, "it is new").await?;
    big.run(&["link", "release"]).await?;
    desk.revised(&withdrawn.id, ReviseResult::Withdrawn).await?;
    let recipients = until_is(&world, &revised.id, DeliveryState::Relayed).await?;
    assert_eq!(recipients.len(), 2, "{recipients:?}");
    world.quiet().await?;
    assert_eq!(
        states(&desk.status(&withdrawn.id).await?.recipients),
        [(CAROL, DeliveryState::Withdrawn, None)]
    );
    let got = elsewhere.mail();
    let [got] = got.as_slice() else { return Err(format!("one goes there: {got:?}").into()) };
    let text = String::from_utf8_lossy(&got.data);
    assert!(text.contains("it is new") && !text.contains("it is old"), "{text}");
    assert!(mta.mail().is_empty(), "the old address has nothing");
    world.end().await
}

#[tokio::test]
async fn what_is_leaving_is_not_redirected_once_it_has_left() -> Result<(), Trouble> {
    let (world, elsewhere) = world().await?;
    let (desk, mta) = (world.desk("alice"), &world.internet.mta);
    mta.add_rule(Rule::new(Stage::Dot, Action::Delay(AT_THE_DOT)).times(1));
    let sent = desk.send(CAROL, "plans", "it is leaving").await?;
    until("the host is at the dot", SOON, async || Ok(mta.is_used_up().then_some(()))).await?;
    let late = redirect(&world, &sent.id).await.expect_err("it leaves").to_string();
    assert!(late.contains(&format!("too late for {CAROL}")) && late.contains("nothing goes to"), "{late}");
    let left = [(CAROL, DeliveryState::Relayed, None)];
    assert_eq!(states(&until_is(&world, &sent.id, DeliveryState::Relayed).await?), left);
    let again = redirect(&world, &sent.id).await.expect_err("it has left").to_string();
    assert!(again.contains("does not wait for") && again.contains("relayed"), "{again}");
    world.quiet().await?;
    assert_eq!((mta.mail().len(), elsewhere.mail().len()), (1, 0));
    world.end().await
}

/// The host has all of it for one when the edge is killed, and has not answered; the other one it has refused.
#[tokio::test]
async fn what_has_left_when_the_edge_is_killed_is_undetermined_and_not_redirected() -> Result<(), Trouble> {
    let (mut world, elsewhere) = world().await?;
    let desk = world.desk("alice");
    let for_ever = Action::Delay(Duration::from_secs(3_600));
    world.internet.mta.add_rule(Rule::new(Stage::Dot, for_ever).times(1));
    let gone = "gone@remote.example";
    let nobody = Rule::reply(Stage::Rcpt, 550, "5.1.1 nobody").only_for(gone);
    world.internet.mta.add_rule(nobody.clone().times(1));
    let sent = desk.send(&format!("{gone}, {CAROL}"), "plans", "it has left").await?;
    until("the host is at the dot", SOON, async || Ok(world.internet.mta.is_used_up().then_some(()))).await?;
    world.nodes.kill(Node::Edge).await?;
    world.internet.mta.add_rule(nobody);
    world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now").only_for(CAROL));
    world.nodes.start_edge().await?;
    world.linked().await?;
    let recipients = until_is(&world, &sent.id, DeliveryState::Deferred).await?;
    assert!(recipients[1].in_doubt && !recipients[0].in_doubt, "{recipients:?}");
    let refused = redirect(&world, &sent.id).await.expect_err("it may be there").to_string();
    assert!(refused.contains("may have") && refused.contains("goes to nobody else"), "{refused}");
    until("the other one has failed", SOON, async || {
        let first = desk.status(&sent.id).await?.recipients.remove(0);
        Ok((first.state == DeliveryState::Failed).then_some(()))
    })
    .await?;
    world.internet.mta.clear_rules();
    let recipients = until_is(&world, &sent.id, DeliveryState::Relayed).await?;
    let expected = [(gone, DeliveryState::Failed, None), (CAROL, DeliveryState::Relayed, None)];
    assert_eq!(states(&recipients), expected);
    assert!(!recipients[0].in_doubt, "{recipients:?}");
    assert_eq!(world.edge_link().await?.border.expect("is the edge's").undetermined, 1);
    world.quiet().await?;
    assert_eq!((world.internet.mta.mail().len(), elsewhere.mail().len()), (1, 0));
    world.end().await
}
