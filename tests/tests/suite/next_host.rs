//! Mail that a host will not take now goes to the next one in the same attempt, and nobody gets it from two of them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use big_node::record::Folder;
use big_node::request::Sent;
use shared::report::Step;
use shared::unit::DeliveryState::{self, Deferred, Failed, Queued, Relayed};
use tests::client::smtp::SmtpClient;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mta, Options};
use tests::internet::rules::{Action, Rule, Stage};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, accepted_as};

/// A world with a host at 127.0.0.2; the one at 127.0.0.1 is there already.
async fn two_hosts() -> Result<(World, Mta), Trouble> {
    let world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let listen = SocketAddr::new(loopback(2), world.internet.mta.address().port());
    let options = Options { listen, name: "first.remote.example".into(), ..Options::default() };
    let first = Mta::start(options).await?;
    Ok((world, first))
}

/// A domain for which 127.0.0.2 is asked first, and then 127.0.0.1.
fn publish(world: &World, domain: &str) {
    let (first, second) = (format!("first.{domain}"), format!("second.{domain}"));
    let zone = Zone::new(domain).mx(10, &first).mx(20, &second);
    world.internet.dns.publish(zone.a(&first, loopback(2)).a(&second, loopback(1)));
}

/// Waits until its recipients are in these states, in their order; the hosts and texts that go with them.
async fn until_are(
    world: &World,
    sent: &Sent,
    states: &[DeliveryState],
) -> Result<Vec<(Option<String>, String)>, Trouble> {
    let addresses: Vec<_> = sent.recipients.iter().map(|recipient| &recipient.address).collect();
    until(&format!("{addresses:?} are {states:?}"), SOON, async || {
        let recipients = world.desk("alice").status(&sent.id).await?.recipients;
        let is_so = recipients.iter().map(|recipient| recipient.state).eq(states.iter().copied());
        let told = recipients.into_iter().map(|recipient| (recipient.host, recipient.text));
        Ok(is_so.then(|| told.collect()))
    })
    .await
}

/// How often one of its recipients was deferred.
async fn deferrals(world: &World, sent: &Sent) -> Result<usize, Trouble> {
    let way: Vec<Step> = world.nodes.edge.json(&["trace", &sent.id]).await?;
    Ok(way.iter().filter(|step| step.what.contains(": deferred: ")).count())
}

fn recipients(mta: &Mta) -> Vec<String> {
    mta.mail().iter().flat_map(|mail| mail.recipients.clone()).collect()
}

#[tokio::test]
async fn what_a_host_will_not_take_now_the_next_one_gets_in_the_same_attempt() -> Result<(), Trouble> {
    let (world, first) = two_hosts().await?;
    let desk = world.desk("alice");
    let mut expected = Vec::new();
    for stage in [Stage::Connect, Stage::Hello, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
        let rules = [
            Rule::reply(stage, 451, "4.3.0 not now"),
            Rule::reply(stage, 421, "4.3.2 closing"),
            Rule::hang_up(stage),
        ];
        // Who hangs up after the dot may have it.
        let last = if stage == Stage::Dot { 2 } else { 3 };
        for rule in rules.into_iter().take(last) {
            // A session with the second host is open still, and would be used again for the same domain.
            let domain = format!("d{}.example", expected.len());
            publish(&world, &domain);
            first.add_rule(rule.clone().times(1));
            let to = format!("x@{domain}");
            let sent = desk.send(&to, "next", "text").await?;
            let told = until_are(&world, &sent, &[Relayed]).await?;
            assert_eq!(told[0].0, Some(format!("second.{domain}")), "{rule:?}");
            assert_eq!(deferrals(&world, &sent).await?, 0, "{rule:?}");
            let way: Vec<Step> = world.nodes.edge.json(&["trace", &sent.id]).await?;
            let is_passed = |step: &&Step| {
                step.what.starts_with(&format!("first.{domain}: "))
                    && step.what.ends_with("; another is asked")
            };
            assert_eq!(way.iter().filter(is_passed).count(), 1, "{rule:?}: {way:?}");
            assert!(first.is_used_up(), "{rule:?}");
            expected.push(to);
        }
    }
    assert_eq!(recipients(&world.internet.mta), expected);
    assert_eq!(first.mail().len(), 0);
    Ok(())
}

#[tokio::test]
async fn what_a_host_may_have_taken_the_next_one_does_not_get() -> Result<(), Trouble> {
    let (world, first) = two_hosts().await?;
    publish(&world, "doubt.example");
    first.add_rule(Rule::keep_and_hang_up().times(1));
    let sent = world.desk("alice").send("x@doubt.example", "in doubt", "text").await?;
    until_are(&world, &sent, &[Relayed]).await?;
    assert_eq!(deferrals(&world, &sent).await?, 1);
    // It was tried again, by an attempt of its own.
    assert_eq!(recipients(&first), ["x@doubt.example"; 2]);
    assert_eq!(recipients(&world.internet.mta), [""; 0]);
    Ok(())
}

#[tokio::test]
async fn each_recipient_goes_its_own_way_and_what_is_final_is_told_at_once() -> Result<(), Trouble> {
    let (mut world, first) = two_hosts().await?;
    publish(&world, "mixed.example");
    publish(&world, "slow.example");
    let desk = world.desk("alice");
    first.add_rule(Rule::reply(Stage::Rcpt, 450, "4.2.1 not now").only_for("later@mixed.example"));
    first.add_rule(Rule::reply(Stage::Rcpt, 450, "4.2.1 nor now").only_for("never@mixed.example"));
    first.add_rule(Rule::reply(Stage::Rcpt, 550, "5.1.1 nobody").only_for("gone@mixed.example"));
    let second = &world.internet.mta;
    second.add_rule(Rule::reply(Stage::Rcpt, 451, "4.7.1 later").only_for("never@mixed.example"));
    let to = "taken@mixed.example, later@mixed.example, gone@mixed.example, never@mixed.example";
    let sent = desk.send(to, "mixed", "text").await?;
    let told = until_are(&world, &sent, &[Relayed, Relayed, Failed, Deferred]).await?;
    let (one, two) = (Some("first.mixed.example".to_owned()), Some("second.mixed.example".to_owned()));
    assert_eq!(told.iter().map(|(host, _)| host).collect::<Vec<_>>(), [&one, &two, &one, &two], "{told:?}");
    assert_eq!((&*told[2].1, &*told[3].1), ("550 5.1.1 nobody", "451 4.7.1 later"));
    // What is tried again later is for the one who is deferred only.
    second.clear_rules();
    until_are(&world, &sent, &[Relayed, Relayed, Failed, Relayed]).await?;
    assert_eq!(recipients(&first), ["taken@mixed.example"]);
    assert_eq!(recipients(second), ["later@mixed.example", "never@mixed.example"]);

    // The second host greets nobody for as long as this test may take: who needs no second one does not wait for it.
    first.clear_rules();
    first.add_rule(Rule::reply(Stage::Rcpt, 450, "4.2.1 not now").only_for("later@slow.example"));
    second.add_rule(Rule::new(Stage::Connect, Action::Delay(Duration::from_secs(3_600))));
    let sent = desk.send("taken@slow.example, later@slow.example", "slow", "text").await?;
    until_are(&world, &sent, &[Relayed, Queued]).await?;
    // Nor does an edge that is killed meanwhile send anything twice.
    world.nodes.kill(Node::Edge).await?;
    world.internet.mta.clear_rules();
    world.nodes.start_edge().await?;
    world.linked().await?;
    until_are(&world, &sent, &[Relayed, Relayed]).await?;
    assert_eq!(recipients(&first)[1..], ["taken@slow.example"]);
    assert_eq!(recipients(&world.internet.mta)[2..], ["later@slow.example"]);
    Ok(())
}

/// A host at 127.0.0.3.
async fn third(world: &World, options: Options) -> Result<Mta, Trouble> {
    let listen = SocketAddr::new(loopback(3), world.internet.mta.address().port());
    Ok(Mta::start(Options { listen, name: "third.remote.example".into(), ..options }).await?)
}

#[tokio::test]
async fn what_one_host_does_not_offer_another_may() -> Result<(), Trouble> {
    let (world, first) = two_hosts().await?;
    let poor = third(&world, Options { size_max: 10, ..Options::default() }).await?;
    let zone = |domain: &str, hosts: &[u8]| {
        let name = |host: &u8| format!("mx{host}.{domain}");
        let zone = Zone::new(domain);
        let ranked = hosts.iter().zip(1..).fold(zone, |zone, (host, rank)| zone.mx(rank, &name(host)));
        hosts.iter().fold(ranked, |zone, host| zone.a(&name(host), loopback(*host)))
    };
    for (domain, hosts) in [
        ("behind.example", &[2, 3][..]),
        ("before.example", &[3, 2]),
        ("none.example", &[3]),
        ("away.example", &[3, 9]),
    ] {
        world.internet.dns.publish(zone(domain, hosts));
    }
    let desk = world.desk("alice");
    // What the better host defers a poorer one does not bounce.
    first.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now").times(1));
    let sent = desk.send("x@behind.example", "offer", "text").await?;
    let told = until_are(&world, &sent, &[Relayed]).await?;
    assert_eq!((told[0].0.as_deref(), deferrals(&world, &sent).await?), (Some("mx2.behind.example"), 1));
    let sent = desk.send("x@before.example", "offer", "text").await?;
    let told = until_are(&world, &sent, &[Relayed]).await?;
    assert_eq!((told[0].0.as_deref(), deferrals(&world, &sent).await?), (Some("mx2.before.example"), 0));
    // Nobody listens at 127.0.0.9, the worse one of the two.
    for domain in ["none.example", "away.example"] {
        let sent = desk.send(&format!("x@{domain}"), "offer", "text").await?;
        let told = until_are(&world, &sent, &[Failed]).await?;
        let status = desk.status(&sent.id).await?.recipients.remove(0).status;
        assert_eq!(
            (status.as_str(), told[0].0.clone()),
            ("5.3.4", Some(format!("mx3.{domain}"))),
            "{told:?}"
        );
        assert_eq!(deferrals(&world, &sent).await?, 0);
    }
    assert_eq!(recipients(&first), ["x@behind.example", "x@before.example"]);
    assert_eq!(recipients(&poor), [""; 0]);
    Ok(())
}

#[tokio::test]
async fn an_attempt_sends_the_whole_message_twice_at_most() -> Result<(), Trouble> {
    let (world, first) = two_hosts().await?;
    let other = third(&world, Options::default()).await?;
    let name = |host: &str| format!("{host}.example");
    let zone =
        Zone::new("three.example").mx(10, &name("a.three")).mx(20, &name("b.three")).mx(30, &name("c.three"));
    let hosts = [("a.three", 2), ("b.three", 3), ("c.three", 1)];
    world
        .internet
        .dns
        .publish(hosts.iter().fold(zone, |zone, (host, last)| zone.a(&name(host), loopback(*last))));
    let desk = world.desk("alice");
    for mta in [&first, &other] {
        mta.add_rule(Rule::reply(Stage::Dot, 451, "4.3.0 not now").times(1));
    }
    let sent = desk.send("x@three.example", "twice", "text").await?;
    let told = until_are(&world, &sent, &[Relayed]).await?;
    assert_eq!((told[0].0.clone(), deferrals(&world, &sent).await?), (Some(name("a.three")), 1));
    assert_eq!(recipients(&world.internet.mta), [""; 0], "the third was not asked");

    // A host that defers what it has whole and ends the session is not asked by its other address, but the next one is.
    let zone = Zone::new("both.example").mx(10, &name("a.both")).mx(20, &name("b.both"));
    let zone = [("a.both", 2), ("a.both", 3), ("b.both", 1)]
        .iter()
        .fold(zone, |zone, (host, last)| zone.a(&name(host), loopback(*last)));
    world.internet.dns.publish(zone);
    for mta in [&first, &other] {
        mta.clear_rules();
        mta.add_rule(Rule::reply(Stage::Dot, 421, "4.3.2 closing").times(1));
    }
    let sent = desk.send("x@both.example", "twice", "text").await?;
    let told = until_are(&world, &sent, &[Relayed]).await?;
    assert_eq!((told[0].0.clone(), deferrals(&world, &sent).await?), (Some(name("b.both")), 0));
    assert_ne!(first.is_used_up(), other.is_used_up(), "one of them was asked");
    Ok(())
}

#[tokio::test]
async fn a_host_is_tried_at_each_of_its_addresses() -> Result<(), Trouble> {
    let (world, first) = two_hosts().await?;
    let desk = world.desk("alice");
    // Nobody listens at 127.0.0.9, and the machine at 127.0.0.2 does not want to talk.
    let many = Zone::new("many.example").mx(10, "mx.many.example");
    let many = [9, 2, 1].into_iter().fold(many, |zone, last| zone.a("mx.many.example", loopback(last)));
    world.internet.dns.publish(many);
    first.add_rule(Rule::reply(Stage::Connect, 421, "4.3.2 full"));
    let sent = desk.send("x@many.example", "addresses", "text").await?;
    until_are(&world, &sent, &[Relayed]).await?;
    assert_eq!(deferrals(&world, &sent).await?, 0);
    // What it says of a recipient it says at all of its addresses.
    world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 450, "4.2.1 not now").times(1));
    let one = Zone::new("one.example").mx(10, "mx.one.example").a("mx.one.example", loopback(1));
    world.internet.dns.publish(one.a("mx.one.example", loopback(2)));
    first.clear_rules();
    first.add_rule(Rule::reply(Stage::Rcpt, 450, "4.2.1 not now").times(1));
    let sent = desk.send("x@one.example", "addresses", "text").await?;
    until_are(&world, &sent, &[Relayed]).await?;
    assert_eq!(deferrals(&world, &sent).await?, 1);
    assert_ne!(first.is_used_up(), world.internet.mta.is_used_up(), "one of them was asked");
    // Where it can be reached nowhere, each of them is named.
    let none = Zone::new("none.example").mx(10, "mx.none.example");
    let none = [9, 8].into_iter().fold(none, |zone, last| zone.a("mx.none.example", loopback(last)));
    world.internet.dns.publish(none);
    let sent = desk.send("x@none.example", "addresses", "text").await?;
    let told = until_are(&world, &sent, &[Deferred]).await?;
    for last in [9, 8] {
        let named = format!("mx.none.example (127.0.0.{last}:");
        assert!(told[0].1.contains(&named), "{told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn ipv6_and_ipv4_are_raced_and_whichever_is_there_gets_it() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let world = World::with(program, |topology| topology.smtp.push(v6)).await?;
    let listen = SocketAddr::new(v6.ip(), world.internet.mta.address().port());
    let sixth = Mta::start(Options { listen, name: "six.example".into(), ..Options::default() }).await?;
    // Nobody listens at 127.0.0.9, nor at the IPv6 address that is kept for documentation.
    let nowhere: IpAddr = "2001:db8::1".parse()?;
    for (domain, addresses) in
        [("six.example", [loopback(9), v6.ip()]), ("four.example", [nowhere, loopback(1)])]
    {
        let zone = addresses.iter().fold(Zone::new(domain), |zone, address| zone.a(domain, *address));
        world.internet.dns.publish(zone);
    }
    let desk = world.desk("alice");
    for domain in ["six.example", "four.example"] {
        let sent = desk.send(&format!("x@{domain}"), "raced", "text").await?;
        until_are(&world, &sent, &[Relayed]).await?;
        assert_eq!(deferrals(&world, &sent).await?, 0, "{domain}");
    }
    assert_eq!(recipients(&sixth), ["x@six.example"]);
    assert_eq!(recipients(&world.internet.mta), ["x@four.example"]);

    // And in by IPv6.
    let ours = world.nodes.edge_ready().smtp.iter().find(|address| address.is_ipv6()).copied();
    let mut client = SmtpClient::ready(ours.ok_or("it listens by IPv6, too")?, None).await?;
    let taken = client.send(CAROL, &[ALICE], b"Subject: six\r\n\r\ntext\r\n").await?;
    let id = accepted_as(&taken).ok_or("no id")?;
    desk.filed(Folder::In, &id).await?;
    let raw = String::from_utf8_lossy(&desk.raw(&id).await?).into_owned();
    assert!(raw.contains("[IPv6:::1]"), "{raw}");
    world.end().await
}

#[tokio::test]
async fn mail_that_dns_leads_back_to_this_host_is_not_sent_round() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    // The edge takes mail at the port where it looks for others, too.
    let world = World::with(program, |topology| {
        topology.smtp.push(SocketAddr::new(loopback(3), topology.remote_port));
    })
    .await?;
    let mta = &world.internet.mta;
    let listen = SocketAddr::new(loopback(2), mta.address().port());
    let worse = Mta::start(Options { listen, name: "worse.example".into(), ..Options::default() }).await?;
    let own = world.nodes.topology.hostname.clone();
    for zone in [
        Zone::new("worse.example").a("worse.example", loopback(2)),
        // Who is better than this host is asked, and nobody else.
        Zone::new("backed.example").mx(10, "mx.remote.example").mx(20, &own).mx(20, "worse.example"),
        Zone::new("named.example").mx(10, &own.to_ascii_uppercase()).mx(20, "worse.example"),
        // By its address.
        Zone::new("led.example")
            .mx(10, "mx.led.example")
            .mx(10, "worse.example")
            .a("mx.led.example", loopback(3)),
        Zone::new(&own).a(&own, loopback(3)),
    ] {
        world.internet.dns.publish(zone);
    }
    let desk = world.desk("alice");
    mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now").times(1));
    let sent = desk.send("x@backed.example", "loops", "text").await?;
    until_are(&world, &sent, &[Relayed]).await?;
    assert_eq!((deferrals(&world, &sent).await?, recipients(mta)), (1, vec!["x@backed.example".to_owned()]));
    for domain in ["named.example", "led.example", &own] {
        let sent = desk.send(&format!("x@{domain}"), "loops", "text").await?;
        let told = until_are(&world, &sent, &[Failed]).await?;
        let status = desk.status(&sent.id).await?.recipients.remove(0).status;
        assert_eq!((status.as_str(), &told[0].0), ("5.4.6", &None), "{domain}: {told:?}");
        let text = &told[0].1;
        assert!(text.contains(domain) && text.contains("this host") && text.contains("`domains`"), "{text}");
    }
    assert_eq!(recipients(&worse), [""; 0]);
    Ok(())
}
