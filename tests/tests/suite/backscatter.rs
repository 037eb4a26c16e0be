//! Backscatter: mail in the name of people who have sent nothing is refused while its sender waits for the answer, or is
//! told of here. Nobody else hears of it.

use std::net::{Ipv4Addr, SocketAddr};

use big_node::record::Folder;
use big_node::request::{Queue, Request};
use shared::topology::Dmarc;
use tests::client::smtp::{SendError, SmtpClient};
use tests::internet::dns::Zone;
use tests::internet::mta::{Mta, Options, StartTls};
use tests::internet::rules::{Rule, Stage};
use tests::internet::{DOMAIN, HOST, loopback};
use tests::process::{Node, Program};
use tests::topology::TestTopology;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, World};
use tokio::task::JoinSet;

/// Sessions at once, which is less than an edge lets a network of strangers have.
const AT_ONCE: usize = 8;
/// Recipients who are not here that a session names: of more it is told later.
const PER_SESSION: usize = 4;
/// What this site takes.
const SIZE_MAX: u64 = 1024 * 1024;
/// Reports that one person gets in an hour.
const REPORTS_MAX: usize = 20;

/// The sender of a forged message: the host of their domain would take what is sent to them.
fn victim(number: usize) -> String {
    format!("victim{number}@{DOMAIN}")
}

fn letter(number: usize, size: usize) -> Vec<u8> {
    let line = "not of theirs\r\n";
    format!("From: {}\r\nSubject: forged\r\n\r\n{}", victim(number), line.repeat(size.div_ceil(line.len())))
        .into_bytes()
}

/// How a forged message is made and what it comes to.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// For somebody who is not here: refused at RCPT.
    Unknown,
    /// Larger than is taken, as MAIL says: refused there.
    TooLarge,
    /// The same, as its content shows: refused at the dot.
    TurnsOutLarge,
    /// For whoever forwards to a host that refuses it: taken.
    Forwarded,
    /// For whoever a system behind a gateway does not know: taken.
    Gateway,
}

/// Sends the messages of these numbers over one connection, each in the name of somebody else.
async fn send(to: SocketAddr, kind: Kind, numbers: Vec<usize>) -> Result<(), Trouble> {
    let mut client = SmtpClient::ready(to, None).await?;
    for number in numbers {
        let (from, notify) = (victim(number), "RET=FULL");
        let sent = match kind {
            Kind::Unknown => {
                client.expect(&format!("MAIL FROM:<{from}> {notify}"), 250).await?;
                let rcpt = format!("RCPT TO:<nobody{number}@example.com> NOTIFY=SUCCESS,FAILURE,DELAY");
                client.expect(&rcpt, 550).await?;
                client.expect("RSET", 250).await?;
                continue;
            }
            Kind::TooLarge => {
                client.expect(&format!("MAIL FROM:<{from}> SIZE={}", SIZE_MAX + 1), 552).await?;
                continue;
            }
            Kind::TurnsOutLarge => {
                client.send(&from, &[ALICE], &letter(number, usize::try_from(SIZE_MAX)? + 1)).await
            }
            Kind::Forwarded => client.send(&from, &["away@example.com"], &letter(number, 1)).await,
            Kind::Gateway => client.send(&from, &["gone@example.net"], &letter(number, 1)).await,
        };
        match (kind, sent) {
            (Kind::TurnsOutLarge, Err(SendError::Refused { stage: "dot", reply })) if reply.code == 552 => {}
            (Kind::Forwarded | Kind::Gateway, Ok(_)) => {}
            (_, sent) => return Err(format!("{kind:?} {number}: {sent:?}").into()),
        }
    }
    Ok(client.quit().await?)
}

/// Sends so many of them, some sessions at once.
async fn send_all(to: SocketAddr, kind: Kind, count: usize) -> Result<(), Trouble> {
    let (mut sessions, mut number) = (JoinSet::new(), 0);
    while number < count || !sessions.is_empty() {
        if number < count && sessions.len() < AT_ONCE {
            let numbers = (number..count.min(number + PER_SESSION)).collect();
            sessions.spawn(send(to, kind, numbers));
            number += PER_SESSION;
        } else if let Some(done) = sessions.join_next().await {
            done??;
        }
    }
    Ok(())
}

/// Of so many forged messages nobody outside hears.
async fn nobody_hears_of(unknown: usize, too_large: usize, taken: usize) -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology: &mut TestTopology| {
        topology.size_max = SIZE_MAX;
        topology.domains.push("example.net".into());
        topology.authentication.dmarc = Dmarc::Record;
    })
    .await?;
    // All that would go to a victim would come to that host.
    let forged = Zone::new(DOMAIN).mx(10, HOST).a(HOST, Ipv4Addr::LOCALHOST).txt(DOMAIN, "v=spf1 -all");
    world.internet.dns.publish(forged);
    let listen = SocketAddr::new(loopback(2), world.internet.mta.address().port());
    let far = Mta::start(Options { listen, ..Options::default() }).await?;
    far.add_rule(Rule::reply(Stage::Rcpt, 550, "5.7.1 not from there"));
    world.internet.dns.publish(Zone::new("far.example").a("far.example", loopback(2)));
    let inside = Options {
        name: "inside.example".into(),
        lmtp: true,
        starttls: StartTls::Absent,
        ..Options::default()
    };
    let inside = Mta::start(inside).await?;
    inside.add_rule(Rule::reply(Stage::Rcpt, 550, "5.1.1 no such user"));
    let world = with_ways_on(world, &inside.address().to_string()).await?;

    let (to, forged) = (world.smtp_address(), 2 * taken);
    send_all(to, Kind::Unknown, unknown).await?;
    send_all(to, Kind::TooLarge, too_large).await?;
    send_all(to, Kind::TurnsOutLarge, AT_ONCE).await?;
    send_all(to, Kind::Forwarded, taken).await?;
    send_all(to, Kind::Gateway, taken).await?;
    // Who forwards has what could not be forwarded, the postmaster what a system inside did not take; and so many reports.
    for (person, folder) in [("away", Folder::In), ("alice", Folder::Undeliverable)] {
        let desk = world.desk(person);
        until(&format!("{person} has all of them"), SOON + SOON, async || {
            let reports = desk.messages(Folder::In).await?;
            let reports = reports.iter().filter(|line| line.subject.starts_with("Undelivered")).count();
            let forged = desk.messages(folder).await?;
            let forged = forged.iter().filter(|line| line.subject == "forged").count();
            Ok(((forged, reports) == (taken, REPORTS_MAX.min(taken))).then_some(()))
        })
        .await?;
    }
    until("nothing waits", SOON, async || {
        let queue: Queue = world.big().0.ask(Request::QueueList, Vec::new()).await?.0;
        Ok((queue.messages.is_empty() && world.edge_queue().await?.is_empty()).then_some(()))
    })
    .await?;
    world.quiet().await?;
    println!("{} forged messages, {forged} of them taken", unknown + too_large + AT_ONCE + forged);
    assert!(world.internet.mta.mail().is_empty());
    assert_eq!(world.internet.mta.connections(), 0, "nobody was connected to");
    assert_eq!((far.mail().len(), inside.mail().len()), (0, 0));
    world.end().await
}

/// Somebody who forwards to another host, and a gateway to `inside`, both known to the edge.
async fn with_ways_on(mut world: World, inside: &str) -> Result<World, Trouble> {
    let big = &world.nodes.big;
    big.run(&["person", "add", "away", "--forward", "away@far.example"]).await?;
    big.run(&["gateway", "add", "inside", "--lmtp", inside, "--domain", "example.net"]).await?;
    // From then on the port is in its sandbox.
    world.nodes.stop(Node::Big).await?;
    world.nodes.start_big().await?;
    world.linked().await?;
    for address in ["away@example.com", "gone@example.net"] {
        until(&format!("{address} is known"), SOON, async || {
            Ok((world.rcpt(address).await? == 250).then_some(()))
        })
        .await?;
    }
    Ok(world)
}

#[tokio::test]
async fn of_two_thousand_forged_messages_nobody_hears_who_has_sent_nothing() -> Result<(), Trouble> {
    nobody_hears_of(1_400, 500, 50).await
}

/// As many as the threat model asks for; half a minute.
#[tokio::test]
#[ignore = "takes half a minute: run it by its name with --ignored"]
async fn of_ten_thousand_forged_messages_nobody_hears_who_has_sent_nothing() -> Result<(), Trouble> {
    nobody_hears_of(7_000, 2_000, 500).await
}
