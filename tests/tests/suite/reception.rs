//! Mail in, from strangers: what is accepted is inside byte for byte, and all else is refused with its
//! code while the node goes on.

use std::time::Duration;

use big_node::record::Folder;
use big_node::request::Terms;
use tests::client::smtp::{SendError, SmtpClient};
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::Program;
use tests::random::Random;
use tests::services::SmtpService;
use tests::wait::{SOON, Trouble, until};
use tests::wire::Wire;
use tests::world::{ALICE, BOB, CAROL, World, accepted_as, without_trace};

/// What this site takes: small, so that too large is quickly made.
const SIZE_MAX: u64 = 8 * 1024 * 1024;

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

fn letter(number: u64, to: &str) -> Letter<'_> {
    Letter { from: CAROL, to, subject: "test", token: Token { seed: 1, number } }
}

async fn world() -> Result<World, Trouble> {
    World::with(program(), |topology| topology.size_max = SIZE_MAX).await
}

/// The refusal of a message, as stage and reply.
fn refusal(sent: Result<tests::client::smtp::Reply, SendError>) -> (String, String) {
    match sent {
        Err(SendError::Refused { stage, reply }) => (stage.to_owned(), reply.to_string()),
        other => ("not refused".into(), format!("{other:?}")),
    }
}

#[tokio::test]
async fn what_is_accepted_is_inside_byte_for_byte_and_once() -> Result<(), Trouble> {
    let world = world().await?;
    let large = letter(2, ALICE).with_attachment("large.bin", 5 * 1024 * 1024);
    let eight_bit = [letter(3, ALICE).text(SHORT).as_slice(), "caf\u{e9} \u{1f4ee}\r\n".as_bytes()].concat();
    let dots = [letter(4, ALICE).text(400).as_slice(), b".\r\n..\r\n...x\r\n\r\n.\r\n"].concat();
    let messages = [letter(1, ALICE).text(SHORT), large, eight_bit, dots, b"no header at all\r\n".to_vec()];
    let mut ids = Vec::new();
    for message in &messages {
        ids.push(world.receive(&[ALICE, BOB], message).await?);
    }
    for person in ["alice", "bob"] {
        let desk = world.desk(person);
        for (id, message) in ids.iter().zip(&messages) {
            desk.filed(Folder::In, id).await?;
            let raw = desk.raw(id).await?;
            assert!(without_trace(&raw) == message, "{person}'s copy of {id} is not what was sent");
            let trace = String::from_utf8_lossy(&raw[..raw.len() - message.len()]).into_owned();
            assert!(
                trace.starts_with(&format!("Return-Path: <{CAROL}>\r\nReceived: from client.test ")),
                "{trace}"
            );
            assert!(trace.contains("by mx.example.com") && trace.contains(id.as_str()), "{trace}");
        }
        assert_eq!(desk.messages(Folder::In).await?.len(), messages.len());
    }
    let lines = world.desk("alice").list(Folder::In).await?;
    let part = lines.iter().find(|line| line.id == format!("{}.1", ids[1])).ok_or("no part")?;
    assert_eq!(part.subject, "large.bin");
    Ok(())
}

#[tokio::test]
async fn before_the_pairing_mail_is_asked_to_come_later() -> Result<(), Trouble> {
    let world = World::unpaired(program(), |_| {}).await?;
    let sent = world.smtp().await?.send(CAROL, &[ALICE], b"Subject: x\r\n\r\n").await;
    let (stage, reply) = refusal(sent);
    assert_eq!(stage, "RCPT");
    assert!(reply.starts_with("451 4.3.2 "), "{reply}");
    Ok(())
}

#[tokio::test]
async fn a_header_that_swells_when_it_is_read_does_not_stop_the_link() -> Result<(), Trouble> {
    let world = world().await?;
    // Octets that are no UTF-8 become two or three each; the lists of a header are long already.
    let swelling = |name: &str| {
        let field: Vec<u8> =
            (0..1500).flat_map(|_| [&[0xa4; 60][..], b"\r\n <a@b.example>,"].concat()).collect();
        [format!("{name}: ").as_bytes(), &field, b" x@y.example\r\n"].concat()
    };
    for name in ["From", "To", "Subject", "References"] {
        let message = [swelling(name), letter(1, ALICE).text(SHORT)].concat();
        let id = world.receive(&[ALICE], &message).await?;
        world.desk("alice").filed(Folder::In, &id).await?;
    }
    let id = world.receive(&[ALICE], &letter(2, ALICE).text(SHORT)).await?;
    world.desk("alice").filed(Folder::In, &id).await?;
    world.end().await
}

/// Content that whoever takes another ending for the end of the first message would take for a second one, which it
/// could send.
const SECOND: &str = "MAIL FROM:<alice@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n\
                      From: alice@example.com\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";
/// The first one's header.
const FIRST: &str = "From: alice@example.com\r\nSubject: first\r\n\r\n";

#[tokio::test]
async fn a_second_message_cannot_be_smuggled_in_the_first_at_any_service() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = world.set_out("alice", Terms::default()).await?;
    let (mut inside, mut outside) = (0, 0);
    for service in SmtpService::ALL {
        // What a traveller sends goes inside and to another host.
        let to = if service.is_for_travellers() { &[BOB, CAROL][..] } else { &[BOB] };
        for ending in [
            "\n.\n",
            "\r.\r",
            "\r.\n",
            "\n.\r",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r\n",
            "\r\n.\r",
            "\r\n\0.\r\n",
            "\r\n.\0\r\n",
            "\r\n.\r\r\n",
            "\r\r\n.\r\r\n",
        ] {
            for split in [0, 1, ending.len() - 1] {
                let mut client = world.session(service, &trip).await?;
                client.expect(&format!("MAIL FROM:<{ALICE}>"), 250).await?;
                for recipient in to {
                    client.expect(&format!("RCPT TO:<{recipient}>"), 250).await?;
                }
                client.expect("DATA", 354).await?;
                let (head, tail) = ending.split_at(split);
                client.raw(format!("{FIRST}body{head}").as_bytes()).await?;
                client.raw(format!("{tail}{SECOND}\r\n.\r\n").as_bytes()).await?;
                let reply = client.reply().await?;
                assert!(reply.code == 550, "{service:?}, {ending:?}: {reply}");
                // The session is over, and a connection that is closed with octets unread may be reset.
                let rest = match client.rest().await {
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Vec::new(),
                    rest => rest?,
                };
                assert!(rest.is_empty(), "{service:?}, {ending:?}: {}", rest.escape_ascii());
            }
        }
        // What is no trick is taken, and is one message.
        let innocent = format!("{FIRST}..\r\n. \r\n.x\r\n{SECOND}");
        let reply =
            world.session(service, &trip).await?.send_and_quit(ALICE, to, innocent.as_bytes()).await?;
        let id = accepted_as(&reply).ok_or("no id")?;
        let desk = world.desk("bob");
        desk.filed(Folder::In, &id).await?;
        let raw = desk.raw(&id).await?;
        assert!(without_trace(&raw) == innocent.as_bytes(), "{service:?}: {}", raw.escape_ascii());
        inside += 1;
        outside += usize::from(service.is_for_travellers());
        let sent = world.internet.mta.wait_for(outside, SOON).await?;
        let octets = sent.last().map_or(&[][..], |mail| &mail.data);
        assert!(outside == 0 || octets.ends_with(innocent.as_bytes()), "{}", octets.escape_ascii());
    }
    world.quiet().await?;
    assert_eq!(world.desk("bob").messages(Folder::In).await?.len(), inside, "and no second one");
    assert_eq!(world.internet.mta.mail().len(), outside);
    world.end().await
}

/// A connection that has said EHLO.
async fn introduced(world: &World) -> Result<Wire, Trouble> {
    let mut wire = Wire::connect(world.smtp_address()).await?;
    wire.line().await?;
    wire.send(b"EHLO before\r\n").await?;
    while wire.line().await?.get(3) == Some(&b'-') {}
    Ok(wire)
}

#[tokio::test]
async fn nothing_is_carried_across_starttls() -> Result<(), Trouble> {
    let world = world().await?;
    let mut wire = introduced(&world).await?;
    wire.send(b"STARTTLS\r\nNOOP injected\r\nRSET\r\n").await?;
    let refused = String::from_utf8_lossy(&wire.line().await?).into_owned();
    assert!(refused.starts_with("503 5.5.1 "), "what was sent along is told: {refused}");
    let rest = String::from_utf8_lossy(&wire.rest().await?).into_owned();
    assert_eq!(rest, "", "nothing of it is answered");
    // Commands in a segment of their own, behind the 220, are no handshake.
    let mut wire = introduced(&world).await?;
    wire.send(b"STARTTLS\r\n").await?;
    assert!(wire.line().await?.starts_with(b"220 "));
    wire.send(b"NOOP injected\r\nRSET\r\n").await?;
    let rest = wire.rest().await?;
    assert!(!rest.windows(3).any(|word| word == b"250"), "{}", rest.escape_ascii());
    // And with none, the EHLO from before is forgotten.
    let mut wire = introduced(&world).await?;
    wire.send(b"STARTTLS\r\n").await?;
    assert!(wire.line().await?.starts_with(b"220 "));
    wire.start_tls().await?;
    wire.send(b"MAIL FROM:<>\r\n").await?;
    let first = String::from_utf8_lossy(&wire.line().await?).into_owned();
    assert!(first.starts_with("503 "), "the EHLO from before is forgotten: {first}");
    Ok(())
}

#[tokio::test]
async fn limits_are_said_with_their_codes() -> Result<(), Trouble> {
    let world = world().await?;
    let mut client = world.smtp().await?;
    let reply = client.command(&format!("MAIL FROM:<{CAROL}> SIZE={}", SIZE_MAX + 1)).await?;
    assert!(reply.to_string().starts_with("552 5.3.4 "), "{reply}");

    let mut too_large = letter(1, ALICE).text(SHORT);
    let line = [[b'x'; 76].as_slice(), b"\r\n"].concat();
    while too_large.len() as u64 <= SIZE_MAX {
        too_large.extend_from_slice(&line);
    }
    let (stage, reply) = refusal(client.send(CAROL, &[ALICE], &too_large).await);
    assert_eq!(stage, "dot");
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");

    let long_line = [b"Subject: x\r\n\r\n".as_slice(), &[b'y'; 999], b"\r\n"].concat();
    let (stage, reply) = refusal(client.send(CAROL, &[ALICE], &long_line).await);
    assert_eq!(stage, "dot");
    assert!(reply.starts_with("550 5.6.0 "), "{reply}");
    let longest = [b"Subject: x\r\n\r\n".as_slice(), &[b'y'; 998], b"\r\n"].concat();
    client.send(CAROL, &[ALICE], &longest).await?;

    client.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
    let many: String = (0..1001).map(|n| format!("RCPT TO:<alice+{n}@example.com>\r\n")).collect();
    client.raw(many.as_bytes()).await?;
    for n in 0..1000 {
        assert_eq!(client.reply().await?.code, 250, "{n}");
    }
    let over = client.reply().await?;
    assert!(over.to_string().starts_with("452 4.5.3 "), "{over}");
    client.expect("DATA", 354).await?;
    client.raw(b"Subject: many\r\n\r\nx\r\n.\r\n").await?;
    let accepted = client.reply().await?;
    let id = accepted_as(&accepted).ok_or("no id")?;
    world.desk("alice").filed(Folder::In, &id).await?;
    assert_eq!(world.desk("alice").messages(Folder::In).await?.len(), 2, "a thousand tags are one person");
    Ok(())
}

#[tokio::test]
async fn clients_that_stop_or_talk_nonsense_leave_nothing_and_harm_nobody() -> Result<(), Trouble> {
    let world = world().await?;
    for part in [
        "",
        "Subject: half\r\n",
        "Subject: half\r\n\r\nbody\r\n",
        "Subject: half\r\n\r\nbody\r\n.",
        "Subject: half\r\n\r\nbody\r\n.\r",
    ] {
        let mut client = world.smtp().await?;
        client.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
        client.expect(&format!("RCPT TO:<{ALICE}>"), 250).await?;
        client.expect("DATA", 354).await?;
        client.raw(part.as_bytes()).await?;
    }
    let mut random = Random::new(7);
    let noise: Vec<u8> = (0..100_000).map(|_| random.next_u64().to_le_bytes()[0]).collect();
    let edge = world.nodes.edge_ready();
    for address in [&edge.smtp, &edge.submission, &edge.submissions, &edge.pop3, &edge.pop3s] {
        let mut wire = Wire::connect(tests::world::first(address)).await?;
        // The node may close while noise is still coming.
        let _ = wire.send(&noise).await;
        let _ = wire.close().await;
        let ended = tokio::time::timeout(Duration::from_secs(90), wire.rest()).await;
        assert!(ended.is_ok(), "the node ends a session that is noise");
    }
    let mut client = SmtpClient::connect(world.smtp_address()).await?;
    let long = [b"EHLO ".as_slice(), &[b'x'; 100_000], b"\r\n"].concat();
    let _ = client.raw(&long).await;
    assert_eq!(client.reply().await?.code, 500);

    let id = world.receive(&[ALICE], &letter(9, ALICE).text(SHORT)).await?;
    let desk = world.desk("alice");
    desk.filed(Folder::In, &id).await?;
    until("the link is quiet", SOON, async || {
        let link = world.big().link().await?;
        Ok(link.lanes.iter().all(|lane| lane.sent == lane.confirmed).then_some(()))
    })
    .await?;
    assert_eq!(desk.messages(Folder::In).await?.len(), 1, "only the whole message is there");
    Ok(())
}
