//! Sallypost before another mail system: what goes to a host inside, what it refuses, and what becomes of
//! mail while it is away.

use std::net::Ipv4Addr;
use std::path::Path;

use big_node::record::Folder;
use big_node::request::{GatewayView, Queue, RecipientView, Request};
use shared::topology::Dmarc;
use shared::unit::DeliveryState;
use tests::internet::dns::Zone;
use tests::internet::mta::{Mail, Mta, Options, StartTls};
use tests::internet::rules::{Rule, Stage};
use tests::internet::{DOMAIN, HOST};
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{CAROL, World, accepted_as, without_trace};

/// A domain of ours in which only alice and bob are people.
const SHARED: &str = "example.net";
const USER: &str = "user@example.net";
/// Somebody who has sent nothing.
const FORGED: &str = "erin@forged.example";

/// Carol's domain vouches for what comes from here; that of [`FORGED`] does not, and its mail would go to the same host.
async fn world() -> Result<World, Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| {
        topology.domains.push(SHARED.into());
        topology.authentication.dmarc = Dmarc::Record;
    });
    let world = world.await?;
    for (domain, spf) in [(DOMAIN, "v=spf1 ip4:127.0.0.1 -all"), ("forged.example", "v=spf1 -all")] {
        world
            .internet
            .dns
            .publish(Zone::new(domain).mx(10, HOST).a(HOST, Ipv4Addr::LOCALHOST).txt(domain, spf));
    }
    Ok(world)
}

fn inside() -> Options {
    let (name, starttls) = ("dovecot.inside.example".into(), StartTls::Absent);
    Options { name, lmtp: true, starttls, ..Options::default() }
}

async fn takes(world: &World, address: &str, code: u16) -> Result<(), Trouble> {
    until(&format!("{address} is answered {code}"), SOON, async || {
        Ok((world.rcpt(address).await? == code).then_some(()))
    })
    .await
}

fn letter(to: &str, number: u64) -> Vec<u8> {
    Letter { from: CAROL, to, subject: "for inside", token: Token { seed: 12, number } }.text(SHORT)
}

/// The delivery reports that carol has.
fn reports(world: &World) -> Vec<String> {
    let mail = world.internet.mta.mail();
    let hers = mail.iter().filter(|mail| mail.recipients == [CAROL]);
    hers.map(|mail| String::from_utf8_lossy(&mail.data).into_owned()).collect()
}

/// Big's view of the only recipient that waits.
async fn waiting(world: &World, state: DeliveryState) -> Result<(String, RecipientView), Trouble> {
    until(&format!("a recipient is {state:?}"), SOON, async || {
        let queue: Queue = world.big().0.ask(Request::QueueList, Vec::new()).await?.0;
        let found = queue.messages.into_iter().find_map(|message| {
            let recipient = message.recipients.into_iter().find(|recipient| recipient.state == state)?;
            Some((message.id, recipient))
        });
        Ok(found)
    })
    .await
}

async fn nothing_waits(world: &World) -> Result<(), Trouble> {
    until("nothing waits on big", SOON, async || {
        let queue: Queue = world.big().0.ask(Request::QueueList, Vec::new()).await?.0;
        Ok(queue.messages.is_empty().then_some(()))
    })
    .await
}

/// Starts big again after `gateway` was added: what that needs is in the sandbox from then on.
async fn start_again(world: &mut World, gateway: &str) -> Result<(), Trouble> {
    let list = world.nodes.big.run(&["gateway", "list"]).await?;
    assert!(list.contains(&format!("\n{gateway} is reached from the next start on")), "{list}");
    world.nodes.stop(Node::Big).await?;
    world.nodes.start_big().await?;
    let list = world.nodes.big.run(&["gateway", "list"]).await?;
    assert!(!list.contains("from the next start on"), "{list}");
    world.linked().await
}

#[tokio::test]
async fn a_mail_system_inside_takes_what_nobody_here_has() -> Result<(), Trouble> {
    let mut world = world().await?;
    let big = &world.nodes.big;
    assert_eq!(world.rcpt(USER).await?, 550);
    let refused = big.run(&["gateway", "add", "far", "--lmtp", "8.8.8.8:24"]).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("not a private address")));

    let host = Mta::start(inside()).await?;
    let address = host.address().to_string();
    let added: Vec<GatewayView> =
        big.json(&["gateway", "add", "dovecot", "--lmtp", &address, "--domain", SHARED]).await?;
    assert_eq!(
        (added[0].kind.as_str(), &added[0].hosts, &added[0].domains),
        ("lmtp", &vec![address], &vec![SHARED.to_owned()])
    );
    // At ports of mail it would be reached at once.
    big.run(&["gateway", "add", "usual", "--lmtp", "127.0.0.1:24"]).await?;
    start_again(&mut world, "dovecot").await?;
    takes(&world, USER, 250).await?;
    let big = &world.nodes.big;

    // To somebody there and somebody here in one transaction, byte for byte.
    let message = letter(USER, 1);
    let id = world.receive(&[USER, "alice@example.net"], &message).await?;
    let mail = host.wait_for(1, SOON).await?;
    assert_eq!(
        (mail[0].recipients.as_slice(), mail[0].reverse_path.as_str()),
        (&[USER.to_owned()][..], CAROL)
    );
    assert_eq!(without_trace(&mail[0].data), message);
    let desk = world.desk("alice");
    desk.filed(Folder::In, &id).await?;

    // One recipient of three is refused before the content, one after it: carol is told, once of each.
    host.add_rule(Rule::reply(Stage::Rcpt, 550, "5.1.1 no such user").only_for("gone@example.net"));
    host.add_rule(Rule::reply(Stage::Dot, 552, "5.2.2 over quota").only_for("full@example.net"));
    let to = [USER, "gone@example.net", "full@example.net"];
    world.receive(&to, &letter(USER, 2)).await?;
    let mail = host.wait_for(2, SOON).await?;
    assert_eq!(mail[1].recipients, [USER]);
    let told = |text: &str| reports(&world).into_iter().filter(|report| report.contains(text)).count();
    until("carol is told of both", SOON, async || {
        Ok((told("Status: 5.1.1") > 0 && told("Status: 5.2.2") > 0).then_some(()))
    })
    .await?;
    nothing_waits(&world).await?;
    world.quiet().await?;
    assert_eq!(
        (told("gone@example.net"), told("full@example.net"), told("no such user"), told("over quota")),
        (1, 1, 1, 1)
    );
    assert_eq!(told("Final-Recipient: rfc822; user@example.net"), 0);
    assert_eq!(told("Remote-MTA"), 0, "a stranger is not told addresses inside");

    // In the place of a sender for whom nobody vouches the postmaster is told, and has the message.
    let (desk, outside) = (world.desk("alice"), world.internet.mta.mail().len());
    let forged = world.smtp().await?.send_and_quit(FORGED, &["gone@example.net"], &letter(USER, 3)).await?;
    desk.filed(Folder::Undeliverable, &accepted_as(&forged).ok_or("no id")?).await?;
    let told =
        desk.arrival(Folder::In, "alice is told", |line| line.subject.starts_with("Undelivered")).await?;
    nothing_waits(&world).await?;
    world.quiet().await?;
    assert_eq!(world.internet.mta.mail().len(), outside, "erin is told nothing");
    desk.delete(&told.id).await?;

    // From a desk: by the domain, and by the gateway's name wherever the address is.
    for to in [USER, "/dovecot friend@elsewhere.example"] {
        let sent = desk.send(to, "from a desk", "text").await?;
        until(&format!("{to} has it"), SOON, async || {
            let recipient = desk.status(&sent.id).await?.recipients.remove(0);
            assert_eq!(recipient.gateway.as_deref(), Some("dovecot"));
            Ok((recipient.state == DeliveryState::Relayed).then_some(()))
        })
        .await?;
    }
    let mail: Vec<_> = host.mail().iter().skip(2).map(|mail| Mail::clone(mail)).collect();
    let envelopes: Vec<_> =
        mail.iter().map(|mail| (mail.reverse_path.as_str(), mail.recipients.join(" "))).collect();
    let alice = "alice@example.com";
    assert_eq!(envelopes, [(alice, USER.to_owned()), (alice, "friend@elsewhere.example".to_owned())]);
    let sent = desk.send("/dovecot gone@example.net", "from a desk", "text").await?;
    desk.arrival(Folder::In, "alice is told", |line| line.subject.starts_with("Undelivered")).await?;
    assert_eq!(desk.status(&sent.id).await?.recipients[0].status, "5.1.1");

    // An SMTP host, under TLS if it offers that.
    let notes = Mta::start(Options { name: "notes.inside.example".into(), ..Options::default() }).await?;
    let address = notes.address().to_string();
    big.run(&["gateway", "add", "notes", "--smtp", &address, "--domain", "legacy.example"]).await?;
    start_again(&mut world, "notes").await?;
    let (big, desk) = (&world.nodes.big, world.desk("alice"));
    desk.send("lotus@legacy.example", "from a desk", "text").await?;
    let mail = notes.wait_for(1, SOON).await?;
    assert_eq!((mail[0].recipients.join(" ").as_str(), mail[0].tls), ("lotus@legacy.example", true));

    big.run(&["gateway", "remove", "dovecot"]).await?;
    takes(&world, USER, 550).await?;
    takes(&world, "alice@example.net", 250).await?;
    world.end().await
}

#[tokio::test]
async fn a_host_that_comes_back_gets_each_message_once_though_big_was_killed() -> Result<(), Trouble> {
    let mut world = world().await?;
    let host = Mta::start(inside()).await?;
    let listen = host.address();
    drop(host);
    world
        .nodes
        .big
        .run(&["gateway", "add", "dovecot", "--lmtp", &listen.to_string(), "--domain", SHARED])
        .await?;
    takes(&world, USER, 250).await?;
    let message = letter(USER, 3);
    let id = world.receive(&[USER], &message).await?;
    let (waits, recipient) = waiting(&world, DeliveryState::Deferred).await?;
    assert_eq!(
        (waits, recipient.status.as_str(), recipient.gateway.as_deref()),
        (id.clone(), "4.4.1", Some("dovecot"))
    );
    assert!(recipient.next_attempt_at.is_some());

    world.nodes.kill(Node::Big).await?;
    world.nodes.start_big().await?;
    let host = Mta::start(Options { listen, ..inside() }).await?;
    retry(&world, &id).await?;
    let mail = host.wait_for(1, SOON).await?;
    assert_eq!(without_trace(&mail[0].data), message);
    nothing_waits(&world).await?;

    // It takes one and does not say so, and big is killed over it: the one repeat there is.
    host.add_rule(Rule::keep_and_hang_up().times(1));
    let twice = letter(USER, 4);
    let id = world.receive(&[USER], &twice).await?;
    host.wait_for(2, SOON).await?;
    world.nodes.kill(Node::Big).await?;
    world.nodes.start_big().await?;
    retry(&world, &id).await?;
    host.wait_for(3, SOON).await?;
    nothing_waits(&world).await?;

    // What was settled is settled: a restart does not bring it again.
    world.nodes.kill(Node::Big).await?;
    world.nodes.start_big().await?;
    world.linked().await?;
    let after = letter(USER, 5);
    world.receive(&[USER], &after).await?;
    host.wait_for(4, SOON).await?;
    nothing_waits(&world).await?;
    let kept: Vec<_> = host.mail().iter().map(|mail| without_trace(&mail.data).to_vec()).collect();
    assert_eq!(kept, [message, twice.clone(), twice, after]);
    assert!(reports(&world).is_empty());
    world.end().await
}

/// Has a message tried at once, unless its own time has come already.
async fn retry(world: &World, id: &str) -> Result<(), Trouble> {
    let done = world.nodes.big.finish(&["queue", "retry", id], b"").await?;
    let settled = done.stderr.contains("waits for no inside gateway");
    if done.status.success() || settled { Ok(()) } else { Err(done.stderr.into()) }
}

#[tokio::test]
async fn mail_goes_out_as_files_and_comes_back_as_files() -> Result<(), Trouble> {
    let mut world = world().await?;
    let folder = tempfile::tempdir()?;
    let (out, back) = (folder.path().join("out"), folder.path().join("back"));
    std::fs::create_dir(&out)?;
    std::fs::create_dir(&back)?;
    let path = |path: &Path| path.to_str().map(str::to_owned).ok_or("UTF-8");
    let (drop_dir, pickup) = (path(&out)?, path(&back)?);
    let add = ["gateway", "add", "files", "--drop", &drop_dir, "--pickup", &pickup, "--domain", SHARED];
    world.nodes.big.run(&add).await?;
    start_again(&mut world, "files").await?;
    takes(&world, USER, 250).await?;
    let message = letter(USER, 6);
    let id = world.receive(&[USER], &message).await?;
    let envelope =
        until("the envelope is there", SOON, async || Ok(std::fs::read(out.join(format!("{id}.json"))).ok()))
            .await?;
    assert_eq!(without_trace(&std::fs::read(out.join(format!("{id}.eml")))?), message);
    let envelope: serde_json::Value = serde_json::from_slice(&envelope)?;
    assert_eq!(envelope["recipients"], serde_json::json!([USER]));
    assert_eq!(envelope["reverse_path"], CAROL);

    let answer = b"From: user@example.net\r\nTo: alice@example.com\r\nSubject: as a file\r\n\r\ntext\r\n";
    std::fs::write(back.join("1.eml"), answer)?;
    let to = serde_json::json!(["alice@example.com", CAROL]);
    let envelope = serde_json::json!({ "reverse_path": USER, "recipients": to, "size": answer.len() });
    std::fs::write(back.join(".1.json"), envelope.to_string())?;
    std::fs::rename(back.join(".1.json"), back.join("1.json"))?;
    let desk = world.desk("alice");
    let line = desk.arrival(Folder::In, "it came back", |line| line.subject == "as a file").await?;
    assert_eq!(without_trace(&desk.raw(&line.id).await?), answer);
    // Inside may write to the Internet, in its own name.
    let mail = world.internet.mta.wait_for(1, SOON).await?;
    assert_eq!(mail[0].reverse_path, USER);
    assert!(mail[0].data.starts_with(b"Received: by example.com with local id "), "and without Return-Path");
    assert_eq!(without_trace(&mail[0].data), answer);
    until("the pair is removed", SOON, async || Ok((std::fs::read_dir(&back)?.count() == 0).then_some(())))
        .await?;

    // With a list, the edge refuses what is not on it.
    let big = &world.nodes.big;
    big.run(&["gateway", "set", "files", "--recipients", "listed"]).await?;
    takes(&world, USER, 550).await?;
    big.run(&["gateway", "recipient", "add", "files", USER]).await?;
    takes(&world, USER, 250).await?;
    takes(&world, &format!("postmaster@{SHARED}"), 250).await?;
    assert_eq!(big.run(&["gateway", "recipient", "list", "files"]).await?, format!("{USER}\n"));
    let table = folder.path().join("users.csv");
    std::fs::write(&table, format!("address\nuser2@{SHARED}\n{USER}\n"))?;
    let import = ["gateway", "recipient", "import", "files", &path(&table)?].map(str::to_owned);
    let refused = big.run(&import.each_ref().map(String::as_str)).await.expect_err("one is there already");
    assert!(refused.refusal().is_some_and(|text| text.contains("1 of 2 rows")), "{refused}");
    std::fs::write(&table, format!("address\nuser2@{SHARED}\n"))?;
    big.run(&import.each_ref().map(String::as_str)).await?;
    takes(&world, &format!("user2@{SHARED}"), 250).await?;
    big.run(&["gateway", "recipient", "remove", "files", USER]).await?;
    takes(&world, USER, 550).await?;
    world.end().await
}
