//! Mail out: who is asked, in which order, over TLS or not, and what the author hears of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::{RecipientView, Sent};
use edge_node::delivery::ATTEMPTS_MAX;
use edge_node::request::{Held, Queued};
use shared::report::Step;
use shared::unit::DeliveryState;
use tests::desk::Desk;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mail, Mta, Options, StartTls};
use tests::internet::rules::{Action, Rule, Stage};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{BOB, World};

/// More messages than a destination gets at once.
const MANY: usize = 60;
/// Messages at once with which each destination begins.
const FIRST_LIMIT: usize = 2;

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

/// Another MTA, at another address and the same port.
async fn another(world: &World, last: u8, options: Options) -> Result<Mta, Trouble> {
    let listen = SocketAddr::new(loopback(last), world.internet.mta.address().port());
    Ok(Mta::start(Options { listen, ..options }).await?)
}

/// Waits until the only recipient is in `state`.
async fn until_is(desk: &Desk, sent: &Sent, state: DeliveryState) -> Result<RecipientView, Trouble> {
    until(&format!("{:?} is {state:?}", sent.recipients[0].address), SOON, async || {
        let recipients = desk.status(&sent.id).await?.recipients;
        Ok(recipients.into_iter().find(|recipient| recipient.state == state))
    })
    .await
}

/// The DSNs in a folder, as text.
async fn reports(desk: &Desk) -> Result<Vec<String>, Trouble> {
    let mut reports = Vec::new();
    for line in desk.messages(Folder::In).await? {
        reports.push(String::from_utf8_lossy(&desk.raw(&line.id).await?).into_owned());
    }
    Ok(reports)
}

#[tokio::test]
async fn hosts_are_tried_as_dns_ranks_them() -> Result<(), Trouble> {
    let world = world().await?;
    let second =
        another(&world, 2, Options { name: "mx2.remote.example".into(), ..Options::default() }).await?;
    let first = IpAddr::from(Ipv4Addr::LOCALHOST);
    world.internet.dns.publish(
        // Nobody listens at 127.0.0.9: the next host is tried.
        Zone::new("down.example")
            .mx(10, "gone.down.example")
            .mx(20, "up.down.example")
            .a("gone.down.example", loopback(9))
            .a("up.down.example", first),
    );
    world.internet.dns.publish(
        Zone::new("ranked.example")
            .mx(20, "worse.ranked.example")
            .mx(5, "better.ranked.example")
            .a("worse.ranked.example", first)
            .a("better.ranked.example", loopback(2)),
    );
    world.internet.dns.publish(Zone::new("plain.example").a("plain.example", first));
    world.internet.dns.publish(
        // An MX that has no address is passed over.
        Zone::new("half.example")
            .mx(1, "nowhere.half.example")
            .mx(2, "up.half.example")
            .a("up.half.example", first),
    );
    world.internet.dns.publish(
        // A null MX beside others says nothing (RFC 7505 §3).
        Zone::new("both.example").null_mx().mx(10, "up.both.example").a("up.both.example", first),
    );
    let desk = world.desk("alice");
    for domain in ["down.example", "ranked.example", "plain.example", "half.example", "both.example"] {
        let sent = desk.send(&format!("x@{domain}"), "ranks", "text").await?;
        until_is(&desk, &sent, DeliveryState::Relayed).await?;
    }
    let got = |mta: &Mta| {
        let mut to: Vec<_> = mta.mail().iter().flat_map(|mail| mail.recipients.clone()).collect();
        to.sort();
        to
    };
    assert_eq!(got(&second), ["x@ranked.example"]);
    let others = ["x@both.example", "x@down.example", "x@half.example", "x@plain.example"];
    assert_eq!(got(&world.internet.mta), others);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_delivered_comes_back_once_with_the_reason() -> Result<(), Trouble> {
    let world = world().await?;
    world.internet.dns.publish(Zone::new("null.example").null_mx());
    let refuses = Rule::reply(Stage::Rcpt, 550, "5.2.1 closed for ever").only_for("closed@remote.example");
    world.internet.mta.add_rule(refuses);
    let desk = world.desk("alice");
    for (to, status) in [
        ("x@null.example", "5.1.10"),
        ("x@there-is-no-such.example", "5.1.2"),
        ("closed@remote.example", "5.2.1"),
    ] {
        let sent = desk.send(to, "comes back", "text").await?;
        let view = until_is(&desk, &sent, DeliveryState::Failed).await?;
        assert_eq!(view.status, status, "{to}: {view:?}");
        let wanted = format!("; {to}\r\n");
        let all = until(&format!("{to} comes back"), SOON, async || {
            let all = reports(&desk).await?;
            Ok(all.iter().any(|report| report.contains(&wanted)).then_some(all))
        })
        .await?;
        let about: Vec<_> = all.iter().filter(|report| report.contains(&wanted)).collect();
        assert_eq!(about.len(), 1, "{to} is told once");
        assert!(about[0].contains(&format!("\r\nStatus: {status}\r\n")), "{}", about[0]);
        assert!(about[0].contains("multipart/report") && about[0].contains("Auto-Submitted: auto-replied"));
        // Told once, and nothing is sent to anybody for it.
        assert!(world.internet.mta.mail().is_empty());
    }
    let answered = desk.messages(Folder::Sent).await?.iter().filter(|line| line.answered).count();
    assert_eq!(answered, 0, "a report is no answer");
    Ok(())
}

#[tokio::test]
async fn a_refusal_for_now_is_tried_again() -> Result<(), Trouble> {
    let world = world().await?;
    let mta = &world.internet.mta;
    mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now").times(1));
    let desk = world.desk("alice");
    let sent = desk.send("carol@remote.example", "again", "text").await?;
    let deferred = until_is(&desk, &sent, DeliveryState::Deferred).await?;
    assert_eq!((deferred.status.as_str(), deferred.text.as_str()), ("4.2.0", "451 4.2.0 not now"));
    assert!(deferred.next_attempt_at.is_some());
    until_is(&desk, &sent, DeliveryState::Relayed).await?;
    assert_eq!(mta.mail().len(), 1);

    mta.clear_rules();
    mta.add_rule(Rule::hang_up(Stage::Data).times(1));
    let sent = desk.send("carol@remote.example", "again", "text").await?;
    until_is(&desk, &sent, DeliveryState::Relayed).await?;
    assert_eq!(mta.mail().len(), 2);
    assert!(reports(&desk).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn tls_is_used_where_it_works_and_done_without_where_it_does_not() -> Result<(), Trouble> {
    let world = world().await?;
    let mut others = Vec::new();
    for (last, starttls) in [(2, StartTls::Broken), (3, StartTls::Absent)] {
        others.push(another(&world, last, Options { starttls, ..Options::default() }).await?);
        let domain = format!("tls{last}.example");
        world.internet.dns.publish(Zone::new(&domain).a(&domain, loopback(last)));
    }
    let desk = world.desk("alice");
    for (to, tls) in [("x@remote.example", true), ("x@tls2.example", false), ("x@tls3.example", false)] {
        let sent = desk.send(to, "tls", "text").await?;
        let view = until_is(&desk, &sent, DeliveryState::Relayed).await?;
        assert_eq!(view.tls.as_deref(), tls.then_some("TLS 1.3"), "{to}");
    }
    let under_tls = |mta: &Mta| mta.mail().iter().map(|mail| mail.tls).collect::<Vec<_>>();
    assert_eq!(under_tls(&world.internet.mta), [true]);
    assert_eq!(others.iter().flat_map(under_tls).collect::<Vec<_>>(), [false, false]);
    Ok(())
}

#[tokio::test]
async fn eight_bit_mail_is_not_bent_to_fit_a_seven_bit_host() -> Result<(), Trouble> {
    let world = world().await?;
    let old =
        another(&world, 2, Options { eight_bit_mime: false, smtputf8: false, ..Options::default() }).await?;
    world.internet.dns.publish(Zone::new("old.example").a("old.example", loopback(2)));
    let desk = world.desk("bob");
    let started = desk.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&started.user, &started.password).await?.quit().await?;
    let message = "From: bob@example.com\r\nTo: x@old.example\r\nSubject: eight\r\n\r\ncaf\u{e9}\r\n";
    for to in ["x@old.example", "x@remote.example"] {
        world
            .submission(&started.user, &started.password)
            .await?
            .send(BOB, &[to], message.as_bytes())
            .await?;
    }
    let report = desk.arrival(Folder::In, "the message comes back", |_| true).await?;
    let report = String::from_utf8_lossy(&desk.raw(&report.id).await?).into_owned();
    assert!(report.contains("\r\nStatus: 5.6.3\r\n") && report.contains("; x@old.example\r\n"), "{report}");
    let got = world.internet.mta.wait_for(1, SOON).await?;
    assert!(got[0].data.ends_with(message.as_bytes()), "who takes eight bits gets them as they are");
    assert_eq!(got[0].parameters.iter().filter(|parameter| *parameter == "BODY=8BITMIME").count(), 1);
    assert!(old.mail().is_empty());
    Ok(())
}

/// A listener at 127.0.0.`last`, where hosts are looked for.
fn trap(world: &World, last: u8) -> Result<TcpListener, Trouble> {
    let trap = TcpListener::bind((loopback(last), world.internet.mta.address().port()))?;
    trap.set_nonblocking(true)?;
    Ok(trap)
}

/// Whether somebody has connected.
fn is_sprung(trap: &TcpListener) -> bool {
    trap.accept().is_ok()
}

#[tokio::test]
async fn an_address_that_is_not_on_the_internet_is_not_connected_to() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.private_addresses = false).await?;
    let desk = world.desk("alice");
    let traps = [trap(&world, 2)?, trap(&world, 3)?];
    let private = loopback(2);
    let mapped = Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped();
    for zone in [
        Zone::new("mx.example").mx(10, "a.mx.example").a("a.mx.example", private),
        // An alias of an alias of a host that is not on the Internet.
        Zone::new("alias.example")
            .mx(10, "a.alias.example")
            .cname("a.alias.example", "b.alias.example")
            .cname("b.alias.example", "c.alias.example")
            .a("c.alias.example", private),
        Zone::new("named.example")
            .cname("named.example", "host.named.example")
            .a("host.named.example", private),
        // Without MX the domain's own address.
        Zone::new("fallback.example").a("fallback.example", private),
        // All of several, in each way in which it can be written.
        Zone::new("many.example")
            .mx(10, "a.many.example")
            .mx(20, "b.many.example")
            .a("a.many.example", private)
            .a("a.many.example", Ipv4Addr::new(10, 0, 0, 1))
            .a("b.many.example", mapped)
            .a("b.many.example", Ipv4Addr::new(169, 254, 169, 254)),
    ] {
        world.internet.dns.publish(zone);
    }
    let mut count = 0;
    for domain in ["remote", "mx", "alias", "named", "fallback", "many"] {
        let sent = desk.send(&format!("x@{domain}.example"), "inside out", "text").await?;
        let view = until_is(&desk, &sent, DeliveryState::Failed).await?;
        assert_eq!(view.status, "5.4.4", "{domain}: {view:?}");
        assert!(view.text.contains("127.0.0.") || domain == "many", "{domain}: {view:?}");
        count += 1;
        until(&format!("{count} messages come back"), SOON, async || {
            Ok((desk.messages(Folder::In).await?.len() == count).then_some(()))
        })
        .await?;
    }
    assert!(world.internet.mta.mail().is_empty() && !traps.iter().any(is_sprung));
    Ok(())
}

#[tokio::test]
async fn a_name_that_has_come_to_lead_inside_is_not_connected_to() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.private_addresses = false).await?;
    let (desk, trap) = (world.desk("alice"), trap(&world, 2)?);
    // First it is not answered, so that the message waits; then it leads inside.
    let name = "mx.rebound.example";
    world.internet.dns.publish(Zone::new("rebound.example").mx(10, name));
    world.internet.dns.fail(name);
    let sent = desk.send("x@rebound.example", "again", "text").await?;
    until_is(&desk, &sent, DeliveryState::Deferred).await?;
    world.internet.dns.publish(Zone::new(name).a(name, loopback(2)));
    world.internet.dns.mend(name);
    let view = until_is(&desk, &sent, DeliveryState::Failed).await?;
    assert_eq!(view.status, "5.4.4", "{view:?}");
    assert!(!is_sprung(&trap));
    Ok(())
}

/// A command of the edge's that has to be refused; what it told the person.
async fn refusal(world: &World, arguments: &[&str]) -> Result<String, Trouble> {
    match world.nodes.edge.run(arguments).await {
        Err(error) => error.refusal().map(str::to_owned).ok_or_else(|| error.into()),
        Ok(said) => Err(format!("{arguments:?} was done: {said}").into()),
    }
}

#[tokio::test]
async fn a_slow_destination_delays_no_other() -> Result<(), Trouble> {
    let world = world().await?;
    let slow = another(&world, 2, Options::default()).await?;
    world.internet.dns.publish(Zone::new("slow.example").a("slow.example", loopback(2)));
    // It gets more attempts at once while it takes mail.
    send_all(&world, "slow.example", MANY).await?;
    until("all of them are there", SOON, async || Ok(each_once(&slow.mail(), MANY).then_some(()))).await?;
    // From now on it answers nobody for as long as this test may take.
    slow.add_rule(Rule::new(Stage::Mail, Action::Delay(Duration::from_secs(3_600))));
    let more = ATTEMPTS_MAX + 1;
    send_all(&world, "slow.example", more).await?;
    until("all of them are on the edge", SOON, async || {
        Ok((world.edge_queue().await?.len() == more).then_some(()))
    })
    .await?;
    let desk = world.desk("alice");
    let sent = desk.send("carol@remote.example", "overtakes", "text").await?;
    until_is(&desk, &sent, DeliveryState::Relayed).await?;
    assert_eq!(slow.mail().len(), MANY);
    assert_eq!(world.edge_queue().await?.len(), more);
    Ok(())
}

#[tokio::test]
async fn a_retry_asks_where_nobody_could_be_reached_a_moment_ago() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.retry = vec![3_600]).await?;
    world.internet.dns.publish(Zone::new("away.example").a("away.example", loopback(3)));
    let desk = world.desk("alice");
    let sent = desk.send("x@away.example", "back soon", "text").await?;
    until_is(&desk, &sent, DeliveryState::Deferred).await?;
    let back = another(&world, 3, Options::default()).await?;
    world.nodes.edge.run(&["queue", "retry", &sent.id]).await?;
    until_is(&desk, &sent, DeliveryState::Relayed).await?;
    assert_eq!(back.mail().len(), 1);
    Ok(())
}

#[tokio::test]
async fn hosts_that_say_nothing_keep_no_destination_waiting_that_has_dealt_with_mail() -> Result<(), Trouble>
{
    let world = world().await?;
    let silent = another(&world, 2, Options::default()).await?;
    silent.add_rule(Rule::new(Stage::Connect, Action::Delay(Duration::from_secs(3_600))));
    let desk = world.desk("alice");
    let sent = desk.send("carol@remote.example", "first", "text").await?;
    until_is(&desk, &sent, DeliveryState::Relayed).await?;
    // As reports to senders who choose their domains, and serve them.
    world.nodes.big.run(&["link", "hold"]).await?;
    for number in 0..ATTEMPTS_MAX {
        let domain = format!("silent{number}.example");
        world.internet.dns.publish(Zone::new(&domain).a(&domain, loopback(2)));
        desk.send(&format!("x@{domain}"), "waits", "text").await?;
    }
    world.nodes.big.run(&["link", "release"]).await?;
    until("all of them are on the edge", SOON, async || {
        Ok((world.edge_queue().await?.len() == ATTEMPTS_MAX).then_some(()))
    })
    .await?;
    let sent = desk.send("carol@remote.example", "second", "text").await?;
    until_is(&desk, &sent, DeliveryState::Relayed).await?;
    assert_eq!(world.edge_queue().await?.len(), ATTEMPTS_MAX);
    Ok(())
}

#[tokio::test]
async fn a_message_waits_while_it_is_not_known_where_one_of_the_hosts_is() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.private_addresses = false).await?;
    let (desk, dns) = (world.desk("alice"), &world.internet.dns);
    // The other one has an address that nobody outside may have.
    let name = "mx.elsewhere.example";
    dns.publish(
        Zone::new("half.example").mx(10, "in.half.example").mx(20, name).a("in.half.example", loopback(2)),
    );
    dns.fail(name);
    let sent = desk.send("x@half.example", "which way", "text").await?;
    let view = until_is(&desk, &sent, DeliveryState::Deferred).await?;
    assert_eq!(view.status, "4.4.3", "{view:?}");
    dns.publish(Zone::new(name).a(name, loopback(3)));
    dns.mend(name);
    let view = until_is(&desk, &sent, DeliveryState::Failed).await?;
    assert_eq!(view.status, "5.4.4", "{view:?}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_greets_with_a_refusal_speaks_for_itself_while_another_is_not_known()
-> Result<(), Trouble> {
    let world = world().await?;
    let dns = &world.internet.dns;
    let refusing = another(&world, 2, Options::default()).await?;
    refusing.add_rule(Rule::reply(Stage::Connect, 554, "5.3.2 not here"));
    let name = "mx.elsewhere.example";
    dns.publish(
        Zone::new("half.example").mx(10, name).mx(20, "b.half.example").a("b.half.example", loopback(2)),
    );
    dns.fail(name);
    let desk = world.desk("alice");
    let sent = desk.send("x@half.example", "which way", "text").await?;
    let view = until_is(&desk, &sent, DeliveryState::Deferred).await?;
    assert!(view.text.contains("not here"), "{view:?}");
    Ok(())
}

/// Alice sends so many messages to one domain, which the edge gets at the same time.
async fn send_all(world: &World, domain: &str, count: usize) -> Result<(), Trouble> {
    world.nodes.big.run(&["link", "hold"]).await?;
    let desk = world.desk("alice");
    for number in 0..count {
        desk.send(&format!("x{number}@{domain}"), "one of many", "text").await?;
    }
    world.nodes.big.run(&["link", "release"]).await?;
    Ok(())
}

/// Each of so many messages is at the host, once.
fn each_once(mail: &[Arc<Mail>], count: usize) -> bool {
    let recipients: BTreeSet<_> = mail.iter().flat_map(|mail| &mail.recipients).collect();
    (mail.len(), recipients.len()) == (count, count)
}

#[tokio::test]
async fn a_host_that_bears_it_gets_more_messages_at_once_up_to_what_the_topology_allows()
-> Result<(), Trouble> {
    let most = 5;
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), |topology| {
        topology.outbound.push(("concurrency", most.to_string()));
    })
    .await?;
    let mta = &world.internet.mta;
    // So that they meet there.
    mta.add_rule(Rule::new(Stage::Dot, Action::Delay(Duration::from_millis(200))));
    send_all(&world, "remote.example", MANY).await?;
    let mail = mta.wait_for(MANY, SOON).await?;
    assert!(each_once(&mail, MANY));
    let at_once = mta.most_at_once();
    assert!((FIRST_LIMIT + 1..=most).contains(&at_once), "{at_once} at once");
    world.quiet().await?;
    assert_eq!(mta.mail().len(), MANY, "and no more");
    world.end().await
}

#[tokio::test]
async fn a_host_that_has_few_places_turns_away_few_and_gets_each_message_once() -> Result<(), Trouble> {
    let world = world().await?;
    let places = 3;
    let host = another(&world, 2, Options { sessions_max: Some(places), ..Options::default() }).await?;
    host.add_rule(Rule::new(Stage::Dot, Action::Delay(Duration::from_millis(50))));
    world.internet.dns.publish(Zone::new("small.example").a("small.example", loopback(2)));
    send_all(&world, "small.example", MANY).await?;
    let mail = host.wait_for(MANY, SOON).await?;
    assert!(each_once(&mail, MANY));
    assert_eq!(host.most_at_once(), places);
    // Each time it is one too many, and half of them are let go then; they would be most of the messages otherwise.
    let turned_away = host.turned_away();
    assert!((1..=MANY / places).contains(&turned_away), "{turned_away} were turned away");
    world.quiet().await?;
    assert_eq!(host.mail().len(), MANY, "and no more");
    assert!(world.edge_queue().await?.is_empty());
    world.end().await
}

#[tokio::test]
async fn a_session_takes_the_next_message_and_one_that_was_over_is_made_anew() -> Result<(), Trouble> {
    let world = world().await?;
    let (desk, mta) = (world.desk("alice"), &world.internet.mta);
    for number in 0..20 {
        desk.send(&format!("x{number}@remote.example"), "one after another", "text").await?;
    }
    let mail = mta.wait_for(20, SOON).await?;
    let sessions = |mail: &[Arc<Mail>]| mail.iter().map(|mail| mail.peer).collect::<BTreeSet<_>>().len();
    assert!(sessions(&mail) <= 10, "{} sessions for 20 messages", sessions(&mail));
    assert!(mail.iter().all(|mail| mail.tls));
    // What a host says to the next MAIL of a session speaks of the session only.
    mta.clear_rules();
    desk.send("before@remote.example", "opens a session", "text").await?;
    mta.wait_for(21, SOON).await?;
    mta.add_rule(Rule::reply(Stage::Mail, 421, "4.3.2 that was enough").times(1));
    let sent = desk.send("after@remote.example", "over another one", "text").await?;
    until_is(&desk, &sent, DeliveryState::Relayed).await?;
    let way: Vec<Step> = world.nodes.edge.json(&["trace", &sent.id]).await?;
    assert!(way.iter().all(|step| !step.what.contains("deferred")), "{way:?}");
    Ok(())
}

#[tokio::test]
async fn an_operator_holds_releases_and_cancels_what_waits() -> Result<(), Trouble> {
    let mut world = world().await?;
    world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    let desk = world.desk("alice");
    let held = desk.send("carol@remote.example", "is held", "text").await?;
    until_is(&desk, &held, DeliveryState::Deferred).await?;
    world.nodes.edge.run(&["queue", "hold", "--domain", "remote.example"]).await?;
    let refused = refusal(&world, &["queue", "retry", &held.id]).await?;
    assert!(refused.contains("queue release"), "{refused}");
    // The attempt that may have been under way has ended, and a restart changes nothing.
    world.nodes.stop(Node::Edge).await?;
    world.internet.mta.clear_rules();
    world.nodes.start_edge().await?;
    world.linked().await?;
    let listed: Vec<Queued> = world.nodes.edge.json(&["queue", "list", "--held"]).await?;
    assert_eq!(
        listed.iter().map(|message| (&*message.id, message.held)).collect::<Vec<_>>(),
        [(&*held.id, Some(Held::Held))]
    );
    // What is sent to the same domain now goes at once: only what waited is held.
    let other = desk.send("dave@remote.example", "goes", "text").await?;
    until_is(&desk, &other, DeliveryState::Relayed).await?;
    assert_eq!(world.internet.mta.mail().len(), 1);
    world.nodes.edge.run(&["queue", "release", &held.id]).await?;
    until_is(&desk, &held, DeliveryState::Relayed).await?;

    world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    let cancelled = desk.send("erin@remote.example", "is cancelled", "text").await?;
    until_is(&desk, &cancelled, DeliveryState::Deferred).await?;
    world.nodes.edge.run(&["queue", "hold", "--all"]).await?;
    until("no attempt is under way, and it is cancelled", SOON, async || {
        Ok(world.nodes.edge.run(&["queue", "cancel", &cancelled.id]).await.ok())
    })
    .await?;
    let view = until_is(&desk, &cancelled, DeliveryState::Failed).await?;
    assert_eq!(
        (view.status.as_str(), view.text.as_str()),
        ("5.3.0", "cancelled by the operator of mx.example.com")
    );
    let report = desk.arrival(Folder::In, "the sender is told", |_| true).await?;
    let report = String::from_utf8_lossy(&desk.raw(&report.id).await?).into_owned();
    assert!(report.contains("\r\nAction: failed\r\nStatus: 5.3.0\r\n"), "{report}");
    assert!(world.edge_queue().await?.is_empty());
    world.end().await
}
