//! DKIM: what leaves is signed on big, as other people's verifiers see it, and the edge never has a key.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::{DkimKeyState, DkimKeyView};
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator};
use shared::unit::ReviseMode;
use tests::canary::holding;
use tests::internet::dns::Zone;
use tests::internet::rules::{Rule, Stage};
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble};
use tests::world::{ALICE, CAROL, World};

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

/// Makes a key and publishes its record.
pub(crate) async fn keygen(world: &World, selector: &str, algorithm: &str) -> Result<DkimKeyView, Trouble> {
    let made = ["dkim", "keygen", "--selector", selector, "--algorithm", algorithm, "--json"];
    let key: DkimKeyView = serde_json::from_str(&world.nodes.big.run(&made).await?)?;
    world.internet.dns.publish(Zone::new(&key.record_name).txt(&key.record_name, &key.record));
    Ok(key)
}

fn verifier(server: SocketAddr) -> Result<MessageAuthenticator, Trouble> {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    config.connections.iter_mut().for_each(|connection| connection.port = server.port());
    Ok(MessageAuthenticator::new(
        ResolverConfig::from_parts(None, Vec::new(), vec![config]),
        ResolverOpts::default(),
    )?)
}

/// What mail-auth makes of each signature.
pub(crate) async fn verified(world: &World, message: &[u8]) -> Result<Vec<DkimResult>, Trouble> {
    let message = AuthenticatedMessage::parse(message).ok_or("is a message")?;
    let outputs = verifier(world.internet.dns.address())?.verify_dkim(&message).await;
    Ok(outputs.iter().map(|output| output.result().clone()).collect())
}

/// What dkimpy makes of each signature; `None` where it is not installed.
fn verified_by_python(keys: &[&DkimKeyView], message: &[u8]) -> Result<Option<String>, Trouble> {
    const SCRIPT: &str = "import sys
content = sys.stdin.buffer.read()
try:
    import dkim, nacl
except ImportError:
    sys.exit(77)
keys = dict(zip(sys.argv[1::2], sys.argv[2::2]))
def record(name, timeout=5):
    return keys[name.decode().rstrip('.')].encode()
message = dkim.DKIM(content)
print(*[message.verify(idx=n, dnsfunc=record) for n in range(len(keys))])";
    // Debian's, for which the packages are.
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", SCRIPT]).args(keys.iter().flat_map(|key| [&key.record_name, &key.record]));
    let Ok(mut child) = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else { return Ok(None) };
    // It reads nothing, and the pipe breaks, where what it needs is not installed.
    let written = child.stdin.take().ok_or("a pipe")?.write_all(message);
    let done = child.wait_with_output()?;
    if done.status.code() == Some(77) {
        return Ok(None);
    }
    written?;
    Ok(Some(String::from_utf8(done.stdout)?.trim().to_owned()))
}

#[tokio::test]
async fn what_leaves_is_signed_and_verifies() -> Result<(), Trouble> {
    let world = world().await?;
    let desk = world.desk("alice");
    desk.send(CAROL, "before there is a key", "text").await?;
    world.internet.mta.wait_for(1, SOON).await?;
    let (rsa, ed25519) = (keygen(&world, "r1", "rsa").await?, keygen(&world, "e1", "ed25519").await?);
    assert_eq!((rsa.state, ed25519.state), (DkimKeyState::Signing, DkimKeyState::Signing));
    desk.send(CAROL, "from a desk", "two  blanks \n\n \n\n").await?;
    world.internet.mta.wait_for(2, SOON).await?;
    let trip = desk.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let mut session = world.submission(&trip.user, &trip.password).await?;
    // One that fits a unit, and one whose body goes ahead.
    let letter = |number| Letter {
        from: ALICE,
        to: CAROL,
        subject: "from the road",
        token: Token { seed: 6, number },
    };
    for message in [letter(1).text(SHORT), letter(2).with_attachment("large.bin", 200_000)] {
        session.send(ALICE, &[CAROL], &message).await?;
    }
    let mail = world.internet.mta.wait_for(4, SOON).await?;
    assert!(verified(&world, &mail[0].data).await?.is_empty(), "it was sent before");
    for mail in &mail[1..] {
        let text = String::from_utf8_lossy(&mail.data);
        assert_eq!(verified(&world, &mail.data).await?, [DkimResult::Pass, DkimResult::Pass], "{text}");
        match verified_by_python(&[&rsa, &ed25519], &mail.data)? {
            Some(said) => assert_eq!(said, "True True", "{text}"),
            None => println!("python3-dkim is not installed: not verified by it"),
        }
        let altered = text.replacen("Subject: ", "Subject: not ", 1);
        let altered = verified(&world, altered.as_bytes()).await?;
        assert!(altered.iter().all(|result| *result != DkimResult::Pass), "{altered:?}");
    }
    // The stored message is as it was sent: signatures are only on what leaves.
    let sent = desk.messages(Folder::Sent).await?;
    let raw = desk.raw(&sent.last().ok_or("sent mail")?.id).await?;
    assert!(!String::from_utf8_lossy(&raw).contains("DKIM-Signature"));
    for key in [&rsa, &ed25519] {
        let file = world.nodes.state_of(Node::Big).join("keys").join(format!("{}.key", key.record_name));
        let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let private = kept["private"].as_str().ok_or("a key")?.as_bytes().to_vec();
        use base64::Engine as _;
        let plain = base64::engine::general_purpose::STANDARD.decode(&private)?;
        assert!(!holding(&[&world.nodes.state_of(Node::Big)], &private)?.is_empty(), "the search finds it");
        for secret in [private, plain] {
            assert_eq!(holding(&[&world.nodes.state_of(Node::Edge)], &secret)?, Vec::<String>::new());
        }
    }
    world.end().await
}

#[tokio::test]
async fn what_waits_keeps_its_signature_and_a_revision_has_its_own() -> Result<(), Trouble> {
    let mut world = world().await?;
    keygen(&world, "e1", "ed25519").await?;
    let busy = Rule::reply(Stage::Rcpt, 451, "4.2.0 later").only_for(CAROL);
    world.internet.mta.add_rule(busy);
    let desk = world.desk("alice");
    let (first, second) =
        (desk.send(CAROL, "stays", "the text").await?, desk.send(CAROL, "is revised", "old").await?);
    world.quiet().await?;
    desk.amend(&second.id, ReviseMode::Replace, "the new text").await?;
    world.quiet().await?;
    // Another key takes over; what was signed before is as it was, and both nodes may start anew.
    world
        .nodes
        .big
        .run(&["dkim", "keygen", "--selector", "e2", "--algorithm", "ed25519", "--from", "2020-01-01"])
        .await?;
    world.nodes.stop(Node::Edge).await?;
    world.nodes.stop(Node::Big).await?;
    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    world.linked().await?;
    world.internet.mta.clear_rules();
    for sent in [&first, &second] {
        world.nodes.edge.run(&["queue", "retry", &sent.id]).await?;
    }
    let mail = world.internet.mta.wait_for(2, SOON).await?;
    for mail in &mail {
        let text = String::from_utf8_lossy(&mail.data);
        assert_eq!(verified(&world, &mail.data).await?, [DkimResult::Pass], "{text}");
    }
    assert!(mail.iter().any(|mail| String::from_utf8_lossy(&mail.data).contains("the new text")));
    desk.send(CAROL, "signed by the other key", "text").await?;
    let mail = world.internet.mta.wait_for(3, SOON).await?;
    assert!(mail.iter().any(|mail| String::from_utf8_lossy(&mail.data).contains("s=e2;")));
    let listed = world.nodes.big.run(&["dkim", "list"]).await?;
    assert!(listed.contains("e2") && listed.contains("v=DKIM1; k=ed25519; p="), "{listed}");
    world.nodes.big.run(&["dkim", "remove", "--selector", "e1"]).await?;
    assert!(!world.nodes.big.run(&["dkim", "list"]).await?.contains("e1._domainkey"));
    world.end().await
}
