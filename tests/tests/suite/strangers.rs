//! Strangers at port 25: what lists in DNS make of them, and greylisting.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use big_node::record::{AfterFetch, Folder, Scope};
use edge_node::request::{Request, StrangersView};
use shared::topology::Greylist;
use tests::client::smtp::{Reply, SendError, SmtpClient};
use tests::internet::dns::Zone;
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::wire::Wire;
use tests::world::{ALICE, BOB, CAROL, World, accepted_as, first};

/// How long strangers wait: longer than between two commands of one client, however busy the machine is.
const DELAY: Duration = Duration::from_secs(4);

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

/// Host 127.0.0.`n`.
fn host(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, n).into()
}

/// A host in a network of its own.
fn network(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, n, 1).into()
}

/// Five errors are answered at once; each one more waits a second.
#[tokio::test]
async fn who_makes_error_after_error_is_kept_waiting() -> Result<(), Trouble> {
    let world = World::start(program()).await?;
    let mut client = world.smtp().await?;
    let began = Instant::now();
    for _ in 0..7 {
        client.expect("XYZZY", 500).await?;
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    client.expect("QUIT", 221).await?;
    world.end().await
}

/// What a list says of that host: a code, and a text.
fn entry(list: &str, n: u8, code: [u8; 4], text: &str) -> Zone {
    let name = format!("{n}.0.0.127.{list}");
    Zone::new(&name).a(&name, Ipv4Addr::from(code)).txt(&name, text)
}

async fn client(world: &World, n: u8) -> Result<SmtpClient, Trouble> {
    Ok(SmtpClient::ready_from(host(n), world.smtp_address(), None).await?)
}

/// What the host is answered to each RCPT of a message from `from`.
async fn rcpt(world: &World, n: u8, from: &str, to: &[&str]) -> Result<Vec<Reply>, Trouble> {
    let mut client = client(world, n).await?;
    client.expect(&format!("MAIL FROM:<{from}>"), 250).await?;
    let mut replies = Vec::new();
    for recipient in to {
        replies.push(client.command(&format!("RCPT TO:<{recipient}>")).await?);
    }
    Ok(replies)
}

/// Sends a message that has to be taken; what was verified of it.
async fn verdicts(world: &World, n: u8, from: &str, to: &str) -> Result<Vec<String>, Trouble> {
    let message = b"Subject: s\r\n\r\ntext\r\n";
    let reply = client(world, n).await?.send_and_quit(from, &[to], message).await?;
    let id = accepted_as(&reply).ok_or("no id")?;
    let desk = world.desk("alice");
    desk.filed(Folder::In, &id).await?;
    Ok(desk.read(&id).await?.verdicts)
}

async fn view(world: &World) -> Result<StrangersView, Trouble> {
    Ok(world.edge().ask(Request::Strangers, Vec::new()).await?.0)
}

#[tokio::test]
async fn listed_strangers_are_refused_and_reach_the_postmaster_and_who_is_spoken_for_everybody()
-> Result<(), Trouble> {
    let world = World::with(program(), |topology| {
        let lists = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a list")).collect();
        topology.lists.block =
            lists(&["block.example", "codes.example=127.0.0.2,127.0.0.4-7", "late.example"]);
        topology.lists.allow = lists(&["allow.example"]);
    })
    .await?;
    let dns = &world.internet.dns;
    for zone in [
        entry("block.example", 2, [127, 0, 0, 2], "see\u{1b}[2J http://block.example/?127.0.0.2"),
        entry("codes.example", 3, [127, 0, 0, 9], "dynamic"),
        entry("block.example", 4, [127, 255, 255, 254], "too many questions"),
        entry("block.example", 5, [127, 0, 0, 2], "junk"),
        entry("allow.example", 5, [127, 0, 9, 2], "a friend"),
        entry("codes.example", 7, [127, 0, 0, 6], &"long ".repeat(200)),
        entry("block.example", 8, [203, 0, 113, 80], "parked"),
    ] {
        dns.publish(zone);
    }
    dns.silence("6.0.0.127.late.example");

    let replies =
        rcpt(&world, 2, CAROL, &[ALICE, "nobody@example.com", "Postmaster", "abuse@example.com"]).await?;
    let refusal = replies[0].to_string();
    assert!(
        refusal
            .starts_with("554 5.7.1 your address 127.0.0.2 is listed by block.example: see?[2J http://block"),
        "{refusal}"
    );
    assert!(refusal.ends_with("5.7.1 write to postmaster if that is wrong"), "{refusal}");
    assert_eq!(replies[1..].iter().map(|reply| reply.code).collect::<Vec<_>>(), [550, 250, 250]);
    assert_eq!(verdicts(&world, 2, CAROL, "postmaster@example.com").await?, Vec::<String>::new());
    let long = rcpt(&world, 7, CAROL, &[ALICE]).await?.remove(0).to_string();
    assert!(long.starts_with("554 ") && long.len() < 400, "{long}");

    // Not for this code, and not by a complaint.
    for n in [3, 4, 8] {
        assert_eq!(verdicts(&world, n, CAROL, ALICE).await?, Vec::<String>::new(), "{n}");
    }
    let allowed = ["dnswl=pass dns.zone=allow.example policy.ip=127.0.9.2"];
    assert_eq!(verdicts(&world, 5, CAROL, ALICE).await?, allowed);
    let begun = Instant::now();
    assert_eq!(verdicts(&world, 6, CAROL, ALICE).await?, Vec::<String>::new());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?} for a list that is silent", begun.elapsed());

    let seen = view(&world).await?;
    let of = |zone: &str| seen.lists.iter().find(|list| list.list.starts_with(zone)).expect("it is asked");
    assert_eq!((of("block.example").listed, of("block.example").unanswered), (2, 2));
    assert_eq!((of("codes.example").listed, of("late.example").unanswered), (1, 1));
    assert!(of("allow.example").allows && of("allow.example").listed == 1);
    let shown = world.nodes.edge.run(&["strangers"]).await?;
    assert!(shown.contains("codes.example=127.0.0.2,127.0.0.4-7"), "{shown}");

    // A traveller has logged in, wherever that may be.
    let trip = world.desk("alice").travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let asked = dns.questions().len();
    let address = first(&world.nodes.edge_ready().submission);
    let login = Some((trip.user.as_str(), trip.password.as_str()));
    let mut submission = SmtpClient::ready_from(host(2), address, login).await?;
    let letter = format!("From: {ALICE}\r\nTo: {BOB}\r\nSubject: s\r\n\r\ntext\r\n");
    submission.send(ALICE, &[BOB], letter.as_bytes()).await?;
    let about: Vec<_> = dns.questions().split_off(asked);
    assert!(about.iter().all(|(name, _)| !name.ends_with("block.example")), "{about:?}");
    world.end().await
}

/// Waits until a stranger who is told to wait comes in.
async fn comes_in(world: &World, n: u8, from: &str, to: &str) -> Result<(), Trouble> {
    until(&format!("{from} comes in"), SOON, async || {
        let reply = rcpt(world, n, from, &[to]).await?.remove(0);
        Ok(reply.is_positive().then_some(()))
    })
    .await
}

#[tokio::test]
async fn who_is_new_comes_again_and_who_is_known_does_not_have_to() -> Result<(), Trouble> {
    let mut world = World::with(program(), |topology| {
        topology.greylist = Some(Greylist { delay: DELAY, window: Duration::from_secs(3_600) });
        topology.lists.allow = vec!["allow.example".parse().expect("a list")];
    })
    .await?;
    let dns = &world.internet.dns;
    dns.publish(entry("allow.example", 20, [127, 0, 0, 2], "a friend"));
    dns.publish(Zone::new("good.example").txt("good.example", "v=spf1 ip4:127.0.0.0/8 -all"));
    dns.publish(Zone::new("bad.example").txt("bad.example", "v=spf1 -all"));

    let sent = client(&world, 2).await?.send(CAROL, &[ALICE], b"Subject: s\r\n\r\n").await;
    let Err(SendError::Refused { stage: "RCPT", reply }) = sent else { panic!("{sent:?}") };
    let text = "451 4.7.1 you are new here: send it again in 4 s or later";
    assert!(reply.to_string().starts_with(text), "{reply}");
    // Not for the postmaster, not for whom a list speaks, and not for whom somebody here writes to.
    assert_eq!(rcpt(&world, 2, CAROL, &["postmaster@example.com"]).await?[0].code, 250);
    assert_eq!(rcpt(&world, 20, CAROL, &[ALICE]).await?[0].code, 250);
    world.desk("alice").send("dave@remote.example", "s", "text").await?;
    world.quiet().await?;
    assert_eq!(rcpt(&world, 21, "dave@remote.example", &[BOB]).await?[0].code, 250);

    // Whom SPF vouches for comes again from another host, as somebody else of the domain.
    assert_eq!(rcpt(&world, 3, "a@good.example", &[ALICE]).await?[0].code, 451);
    assert_eq!(rcpt(&world, 3, "a@bad.example", &[ALICE]).await?[0].code, 451);
    comes_in(&world, 4, "b@good.example", ALICE).await?;
    assert_eq!(rcpt(&world, 4, "b@bad.example", &[ALICE]).await?[0].code, 451);

    comes_in(&world, 2, CAROL, ALICE).await?;
    assert_eq!(rcpt(&world, 2, "new@remote.example", &[ALICE]).await?[0].code, 451);
    assert_eq!(rcpt(&world, 5, "late@remote.example", &[BOB]).await?[0].code, 451);
    // A report does not wait, nor a host that asks back whether somebody is there; that makes nobody known.
    verdicts(&world, 5, "", ALICE).await?;
    assert_eq!(rcpt(&world, 5, "after@remote.example", &[ALICE]).await?[0].code, 451);
    verdicts(&world, 2, CAROL, ALICE).await?;
    // A message has been taken from its address, and not from its neighbour's.
    assert_eq!(rcpt(&world, 2, "new@remote.example", &[ALICE]).await?[0].code, 250);
    assert_eq!(rcpt(&world, 5, "next@remote.example", &[ALICE]).await?[0].code, 451);

    // What is remembered outlives a restart; whom the edge was acquainted with does not.
    until("it is on the disk", SOON, async || {
        // Those two of bad.example, the first of good.example by its network, new, late, after and next.
        let seen = view(&world).await?.greylist.ok_or("it is on")?;
        Ok((seen.waiting == 7).then_some(()))
    })
    .await?;
    world.nodes.stop(Node::Edge).await?;
    world.nodes.start_edge().await?;
    world.linked().await?;
    assert_eq!(rcpt(&world, 6, CAROL, &[ALICE]).await?[0].code, 250, "from the same network");
    assert_eq!(rcpt(&world, 2, "other@remote.example", &[ALICE]).await?[0].code, 451);
    comes_in(&world, 5, "late@remote.example", BOB).await?;
    let shown = world.nodes.edge.run(&["strangers"]).await?;
    assert!(shown.contains("told to wait") && shown.contains("came again"), "{shown}");
    world.end().await
}

#[tokio::test]
async fn strangers_who_do_nothing_keep_no_known_peer_out() -> Result<(), Trouble> {
    let world = World::with(program(), |topology| topology.receivers = 20).await?;
    let letter = b"Subject: s\r\n\r\ntext\r\n";
    world.receive(&[ALICE], letter).await?;
    let (mut greeted, mut refused) = (Vec::new(), 0);
    // Until there is no place for strangers: a session that has ended may keep one for a moment.
    until("strangers are refused", SOON, async || {
        let n = u8::try_from(10 + greeted.len() + refused)?;
        let mut wire = Wire::connect_from(network(n), world.smtp_address()).await?;
        match wire.line().await?.get(..3) {
            Some(b"220") => greeted.push(wire),
            Some(b"421") => refused += 1,
            other => return Err(format!("answered {other:?}").into()),
        }
        Ok((greeted.len() == 18 && refused > 0).then_some(()))
    })
    .await?;
    let sent = SmtpClient::ready_from(network(250), world.smtp_address(), None).await;
    assert!(sent.is_err(), "there is no place for another stranger");
    world.receive(&[ALICE], letter).await?;
    drop(greeted);
    world.end().await
}

/// Where a client stops in the middle.
#[derive(Clone, Copy, Debug)]
enum Within {
    Command,
    Content,
    Handshake,
}

/// A client that is in, and has stopped there.
async fn stopped(from: IpAddr, world: &World, within: Within) -> Result<SmtpClient, Trouble> {
    let mut client = SmtpClient::ready_from(from, world.smtp_address(), None).await?;
    let part: &[u8] = match within {
        Within::Command => b"MAIL FR",
        Within::Content => {
            client.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
            client.expect(&format!("RCPT TO:<{ALICE}>"), 250).await?;
            client.expect("DATA", 354).await?;
            b"Subject: sl"
        }
        Within::Handshake => {
            client.expect("STARTTLS", 220).await?;
            // Of a ClientHello.
            &[0x16, 3, 1, 2, 0, 1]
        }
    };
    client.raw(part).await?;
    Ok(client)
}

#[tokio::test]
async fn clients_that_stop_in_the_middle_and_a_flood_from_one_network_keep_nobody_else_out()
-> Result<(), Trouble> {
    let world = World::with(program(), |topology| topology.receivers = 40).await?;
    let letter = b"Subject: s\r\n\r\ntext\r\n";
    let trip = world.desk("alice").travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    world.receive(&[ALICE], letter).await?;
    // All that four networks may have: one in five each.
    let mut slow = Vec::new();
    for n in 10..14 {
        for (number, within) in
            (1..=8).zip([Within::Command, Within::Content, Within::Handshake].iter().cycle())
        {
            let from = Ipv4Addr::new(127, 0, n, number).into();
            slow.push(stopped(from, &world, *within).await?);
        }
        let ninth =
            SmtpClient::ready_from(Ipv4Addr::new(127, 0, n, 9).into(), world.smtp_address(), None).await;
        assert!(ninth.is_err_and(|error| error.to_string().contains("421 4.3.2")), "another address of {n}");
    }
    // Whoever is known, a stranger from elsewhere and a traveller come in.
    let goes_on = async || {
        let id = world.receive(&[ALICE], letter).await?;
        world.desk("alice").filed(Folder::In, &id).await?;
        world.pop3s(&trip.user, &trip.password).await?.quit().await?;
        Ok::<_, Trouble>(())
    };
    goes_on().await?;
    let mut other = until("a stranger comes in", SOON, async || {
        Ok(SmtpClient::ready_from(network(20), world.smtp_address(), None).await.ok())
    })
    .await?;
    other.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
    other.quit().await?;
    // A flood from all addresses of one network gets no more than that, and what is left of strangers' places.
    let (mut greeted, mut refused) = (Vec::new(), 0);
    for number in 1..=200 {
        let mut wire =
            Wire::connect_from(Ipv4Addr::new(127, 0, 30, number).into(), world.smtp_address()).await?;
        match wire.line().await?.get(..3) {
            Some(b"220") => greeted.push(wire),
            Some(b"421") => refused += 1,
            other => return Err(format!("answered {other:?}").into()),
        }
    }
    assert!(
        (1..=4).contains(&greeted.len()) && refused >= 196,
        "{} greeted, {refused} refused",
        greeted.len()
    );
    goes_on().await?;
    drop((slow, greeted));
    until("strangers come in again", SOON, async || {
        Ok(SmtpClient::ready_from(network(30), world.smtp_address(), None).await.ok())
    })
    .await?
    .quit()
    .await?;
    world.end().await
}
