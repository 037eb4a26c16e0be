//! Email authentication on the edge: what is found of mail from outside, where it is told, and what becomes of the mail.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use big_node::record::{AfterFetch, Folder, Scope};
use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::{Ed25519Key, RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::DkimSigner;
use mail_auth::{ArcOutput, AuthenticatedMessage, AuthenticationResults};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use shared::mime;
use shared::topology::Dmarc;
use tests::client::smtp::SendError;
use tests::internet::dns::Zone;
use tests::process::Program;
use tests::wait::Trouble;
use tests::world::{ALICE, BOB, World, accepted_as, without_trace};

/// The key pair of RFC 8463, appendix A.
const PRIVATE: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
/// A forwarder whose ARC seal is believed.
const SEALER: &str = "lists.example";

/// A world that verifies.
async fn world(dmarc: Dmarc) -> Result<World, Trouble> {
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), |topology| {
        topology.authentication.dmarc = dmarc;
        topology.binarymime = true;
        topology.authentication.trusted_sealers = vec![SEALER.parse().expect("a domain")];
    })
    .await?;
    let key = format!("v=DKIM1; k=ed25519; p={PUBLIC}");
    for (domain, spf, policy) in [
        ("good.example", "v=spf1 ip4:127.0.0.1 -all", "reject"),
        ("bad.example", "v=spf1 -all", "quarantine"),
        ("lenient.example", "v=spf1 ~all", "none"),
        ("signs.example", "v=spf1 -all", "reject"),
        ("wrong.example", "v=spf1 ip4:nonsense -all", "none"),
        ("loops.example", "v=spf1 include:loops.example -all", "none"),
        ("broken.example", "v=spf1 -all", "reject"),
        ("slow.example", "v=spf1 -all", "reject"),
        ("other.example", "v=spf1 ip4:127.0.0.1 -all", "none"),
        (SEALER, "v=spf1 ip4:127.0.0.1 -all", "none"),
        ("stranger.example", "v=spf1 ip4:127.0.0.1 -all", "none"),
    ] {
        let zone = Zone::new(domain).txt(domain, spf);
        let zone = zone.txt(&format!("_dmarc.{domain}"), &format!("v=DMARC1; p={policy}"));
        world.internet.dns.publish(zone.txt(&format!("k._domainkey.{domain}"), &key));
    }
    world.internet.dns.fail("_dmarc.broken.example");
    world.internet.dns.silence("_dmarc.slow.example");
    Ok(world)
}

fn letter(domain: &str, body: &str) -> String {
    format!("From: Carol <carol@{domain}>\r\nTo: {ALICE}\r\nSubject: s\r\n\r\n{body}")
}

fn key() -> Result<Ed25519Key, Trouble> {
    Ed25519Key::from_seed_and_public_key(&STANDARD.decode(PRIVATE)?, &STANDARD.decode(PUBLIC)?)
        .map_err(|error| error.to_string().into())
}

/// The message with a signature of a domain before it.
fn signed(domain: &str, message: &str) -> Result<String, Trouble> {
    let signer = DkimSigner::from_key(key()?).domain(domain).selector("k").headers(["From", "To", "Subject"]);
    let signature = signer.sign(message.as_bytes()).map_err(|error| error.to_string())?;
    Ok(signature.to_header() + message)
}

/// The message as a forwarder seals it, who has found `told` and then has put something under it.
fn sealed(sealer: &str, message: &str, told: &str) -> Result<String, Trouble> {
    let message = format!("{message}-- \r\na mailing list\r\n");
    let parsed = AuthenticatedMessage::parse(message.as_bytes()).ok_or("a message")?;
    let host = format!("mx.{sealer}; {told}");
    let results = AuthenticationResults::new(&host);
    let seal = ArcSealer::from_key(key()?).domain(sealer).selector("k").headers(["From", "To", "Subject"]);
    let set = seal.seal(&parsed, &results, &ArcOutput::default()).map_err(|error| error.to_string())?;
    Ok(set.to_header() + &message)
}

/// Sends a message to alice, with a reverse-path of its own; the id under which it was accepted.
async fn receive(world: &World, domain: &str, message: &str) -> Result<String, Trouble> {
    let session = world.smtp().await?;
    let sent = session.send_and_quit(&format!("carol@{domain}"), &[ALICE], message.as_bytes()).await?;
    accepted_as(&sent).ok_or_else(|| format!("no id in {sent}").into())
}

/// What was verified of a message, and the message as it is stored.
async fn found(world: &World, folder: Folder, id: &str) -> Result<(Vec<String>, String), Trouble> {
    let desk = world.desk("alice");
    desk.filed(folder, id).await?;
    Ok((desk.read(id).await?.verdicts, String::from_utf8(desk.raw(id).await?)?))
}

/// Receives a message, of which all these verdicts have to be found.
async fn check(
    world: &World,
    domain: &str,
    message: &str,
    expected: &[&str],
) -> Result<Vec<String>, Trouble> {
    let id = receive(world, domain, message).await?;
    let (verdicts, raw) = found(world, Folder::In, &id).await?;
    for verdict in expected {
        assert!(verdicts.iter().any(|found| found == verdict), "{domain}: no {verdict} in {verdicts:?}");
    }
    assert_eq!(without_trace(raw.as_bytes()), message.as_bytes(), "{domain}");
    Ok(verdicts)
}

#[tokio::test]
async fn verdicts_are_recorded_and_told_before_the_message_and_forged_ones_go() -> Result<(), Trouble> {
    let world = world(Dmarc::Record).await?;
    let others = "Authentication-Results: other.example; spf=pass\r\n";
    let forged = "Authentication-Results: (x) MX.example.com;\r\n\tdmarc=pass header.from=bank.example\r\n";
    let rest = letter("good.example", "text\r\n");
    let id = receive(&world, "good.example", &format!("{others}{forged}{rest}")).await?;
    let (verdicts, raw) = found(&world, Folder::In, &id).await?;
    let told: String = verdicts.iter().map(|verdict| format!(";\r\n\t{verdict}")).collect();
    let begin =
        format!("Return-Path: <carol@good.example>\r\nAuthentication-Results: mx.example.com{told}\r\n");
    assert!(raw.starts_with(&begin), "{raw}");
    assert!(!raw.contains("bank.example"), "{raw}");
    // All else is as it came.
    assert_eq!(String::from_utf8_lossy(without_trace(raw.as_bytes())), format!("{others}{rest}"));
    let way = world.nodes.edge.run(&["trace", &id]).await?;
    assert!(way.contains("spf=pass") && !way.contains("good.example"), "{way}");
    let shown = world.nodes.big.run(&["mail", "read", &id, "--as", "alice"]).await?;
    assert!(shown.contains("good.example vouches for its author (DMARC)"), "{shown}");
    // What is too large to be held has no field, and forged ones go all the same.
    let large = "a line that makes the body large\r\n".repeat(40_000);
    let rest = letter("good.example", &large);
    let id = receive(&world, "good.example", &format!("{forged}{rest}")).await?;
    let (verdicts, raw) = found(&world, Folder::In, &id).await?;
    assert!(verdicts.iter().any(|verdict| verdict.starts_with("dmarc=pass ")), "{verdicts:?}");
    assert!(raw.starts_with("Return-Path: <carol@good.example>\r\nReceived:"), "{}", &raw[..300]);
    assert!(without_trace(raw.as_bytes()) == rest.as_bytes(), "it is as it came, but for the forgery");
    world.end().await
}

#[tokio::test]
async fn each_method_passes_fails_and_errs() -> Result<(), Trouble> {
    let world = world(Dmarc::Record).await?;
    let dns = &world.internet.dns;
    for (domain, expected) in [
        (
            "good.example",
            &[
                "spf=pass smtp.mailfrom=good.example",
                // Of loopback the resolver library knows the name by itself: other clients are in the edge's own tests.
                "iprev=pass",
                "dkim=none",
                "arc=none",
                "dmarc=pass header.from=good.example policy.dmarc=reject",
            ][..],
        ),
        (
            "bad.example",
            &[
                "spf=fail smtp.mailfrom=bad.example",
                "dmarc=fail header.from=bad.example policy.dmarc=quarantine",
            ],
        ),
        ("lenient.example", &["spf=softfail smtp.mailfrom=lenient.example"]),
        (
            "nothing.example",
            &[
                "spf=none smtp.mailfrom=nothing.example",
                "dmarc=none header.from=nothing.example policy.dmarc=none",
            ],
        ),
        ("wrong.example", &["spf=permerror smtp.mailfrom=wrong.example"]),
        ("loops.example", &["spf=permerror smtp.mailfrom=loops.example"]),
        ("broken.example", &["dmarc=temperror header.from=broken.example policy.dmarc=none"]),
    ] {
        check(&world, domain, &letter(domain, "text\r\n"), expected).await?;
    }
    let asked = dns.questions().iter().filter(|(name, _)| name == "loops.example").count();
    assert!(asked <= 12, "{asked} questions for a loop (RFC 7208 §4.6.4)");
    dns.fail("good.example");
    let expected = [
        "spf=temperror smtp.mailfrom=good.example",
        "dmarc=temperror header.from=good.example policy.dmarc=reject",
    ];
    check(&world, "good.example", &letter("good.example", "text\r\n"), &expected).await?;
    // Aligned is who speaks for the author, not for the envelope.
    let expected =
        ["spf=pass smtp.mailfrom=other.example", "dmarc=fail header.from=signs.example policy.dmarc=reject"];
    check(&world, "other.example", &letter("signs.example", "text\r\n"), &expected).await?;
    let two = letter("good.example", "text\r\n").replace("To:", "From: a@bad.example\r\nTo:");
    check(&world, "other.example", &two, &["dmarc=permerror"]).await?;
    // Programs differ on where such a header ends.
    let hidden = format!("To: {ALICE}\r\nSubject: s\r\nhello\r\nFrom: carol@good.example\r\n\r\ntext\r\n");
    check(&world, "other.example", &hidden, &["dmarc=permerror"]).await?;
    // Who is shown as the author is who has to be spoken for.
    let behind = letter("x", "text\r\n").replace("Carol <carol@x>", "<carol@signs.example> x@other.example");
    let expected = ["dmarc=fail header.from=signs.example policy.dmarc=reject"];
    check(&world, "other.example", &behind, &expected).await?;
    world.end().await
}

#[tokio::test]
async fn signatures_are_verified_over_bodies_of_any_size() -> Result<(), Trouble> {
    let world = world(Dmarc::Record).await?;
    let message = signed("signs.example", &letter("signs.example", "hello\r\n"))?;
    let large = "a line of text that is long enough to make the body large, and no longer\r\n".repeat(20_000);
    let large = signed("signs.example", &letter("signs.example", &large))?;
    let passes = "dkim=pass header.d=signs.example";
    for (message, verdict) in [
        (message.clone(), passes),
        // Blank lines at the end do not count in the relaxed form.
        (format!("{message} \r\n\r\n"), passes),
        (message.replace("hello", "hallo"), "dkim=neutral header.d=signs.example"),
        (message.replace("Subject: s", "Subject: t"), "dkim=fail header.d=signs.example"),
        (message.replace("d=signs.example", "d=keyless.example"), "dkim=permerror header.d=keyless.example"),
        (large.clone(), passes),
        (large.replacen("no longer", "no shorter", 1), "dkim=neutral header.d=signs.example"),
    ] {
        let result = if verdict == passes { "pass" } else { "fail" };
        let dmarc = format!("dmarc={result} header.from=signs.example policy.dmarc=reject");
        check(&world, "signs.example", &message, &[verdict, &dmarc]).await?;
    }
    world.internet.dns.fail("k._domainkey.signs.example");
    check(&world, "signs.example", &message, &["dkim=temperror header.d=signs.example"]).await?;
    world.internet.dns.mend("k._domainkey.signs.example");
    // RSA as big signs.
    let pem = include_str!("authentication.pem");
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())?;
    let rsa = RsaKey::<Sha256>::from_key_der(der).map_err(|error| error.to_string())?;
    let record = format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(rsa.public_key()));
    world
        .internet
        .dns
        .publish(Zone::new("r._domainkey.signs.example").txt("r._domainkey.signs.example", &record));
    let letter = letter("signs.example", "hello\r\n");
    let signer = DkimSigner::from_key(rsa).domain("signs.example").selector("r").headers(["From", "To"]);
    let signature = signer.sign(letter.as_bytes()).map_err(|error| error.to_string())?;
    check(&world, "signs.example", &(signature.to_header() + &letter), &[passes]).await?;
    world.end().await
}

#[tokio::test]
async fn what_fails_is_refused_where_its_domain_wants_that_and_only_then() -> Result<(), Trouble> {
    let world = world(Dmarc::Refuse).await?;
    let bad = letter("bad.example", "text\r\n");
    match world.smtp().await?.send("carol@bad.example", &[ALICE], bad.as_bytes()).await {
        Err(SendError::Refused { stage, reply }) => {
            assert_eq!((stage, reply.code), ("dot", 550), "{reply}");
            assert!(reply.to_string().contains("neither SPF nor DKIM speaks for bad.example"), "{reply}");
        }
        other => panic!("{other:?}"),
    }
    for (domain, dmarc) in [
        ("good.example", "dmarc=pass header.from=good.example policy.dmarc=reject"),
        ("lenient.example", "dmarc=fail header.from=lenient.example policy.dmarc=none"),
        ("broken.example", "dmarc=temperror header.from=broken.example policy.dmarc=none"),
    ] {
        check(&world, domain, &letter(domain, "text\r\n"), &[dmarc]).await?;
    }
    // Behind a mailing list nothing of the author's holds; a forwarder that is believed had seen that it did.
    let of_author = letter("signs.example", "text\r\n");
    let pass = "dmarc=pass header.from=signs.example";
    let expected =
        ["arc=pass", "dmarc=fail header.from=signs.example policy.dmarc=reject policy.arc=lists.example"];
    check(&world, SEALER, &sealed(SEALER, &of_author, pass)?, &expected).await?;
    let sealed_by_a_stranger = sealed("stranger.example", &of_author, pass)?;
    let told_otherwise = sealed(SEALER, &of_author, "dmarc=fail header.from=signs.example")?;
    let changed_behind = sealed(SEALER, &of_author, pass)?.replace("a mailing list", "an evil list");
    for message in [sealed_by_a_stranger, told_otherwise, changed_behind] {
        let sent = world.smtp().await?.send("carol@other.example", &[ALICE], message.as_bytes()).await;
        assert!(matches!(&sent, Err(SendError::Refused { stage: "dot", .. })), "{sent:?}: {message}");
    }
    // A traveller has logged in: nothing is verified.
    let trip = world.desk("alice").travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let message = format!("From: {ALICE}\r\nTo: {BOB}\r\nSubject: s\r\n\r\ntext\r\n");
    let mut submission = world.submission(&trip.user, &trip.password).await?;
    let reply = submission.send(ALICE, &[BOB], message.as_bytes()).await?;
    let id = accepted_as(&reply).ok_or("no id")?;
    world.desk("bob").filed(Folder::In, &id).await?;
    assert_eq!(world.desk("bob").read(&id).await?.verdicts, Vec::<String>::new());
    world.end().await
}

#[tokio::test]
async fn what_fails_is_marked_or_set_aside_at_home_and_not_taken_on_the_road() -> Result<(), Trouble> {
    for (dmarc, folder) in [(Dmarc::Mark, Folder::In), (Dmarc::Quarantine, Folder::Junk)] {
        let world = world(dmarc).await?;
        let trip = world.desk("alice").travel(Scope::New, AfterFetch::Keep).await?;
        world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
        let id = receive(&world, "bad.example", &letter("bad.example", "text\r\n")).await?;
        let (verdicts, raw) = found(&world, folder, &id).await?;
        let applied = format!(
            "dmarc=fail header.from=bad.example policy.dmarc=quarantine policy.applied={}",
            dmarc.as_str()
        );
        assert!(verdicts.contains(&applied) && raw.contains(&applied), "{verdicts:?}: {raw}");
        let good = receive(&world, "good.example", &letter("good.example", "text\r\n")).await?;
        let desk = world.desk("alice");
        assert!(!desk.filed(Folder::In, &good).await?.suspect);
        assert!(desk.filed(folder, &id).await?.suspect);
        let name = folder.fixed_name().ok_or("a name")?;
        let list = world.nodes.big.run(&["mail", "list", "--as", "alice", "--folder", name]).await?;
        assert!(list.contains("suspect"), "{list}");
        let shown = world.nodes.big.run(&["mail", "read", &id, "--as", "alice"]).await?;
        assert!(shown.contains("NOBODY vouches for its author; bad.example wants"), "{shown}");
        world.quiet().await?;
        let mut session = world.pop3s(&trip.user, &trip.password).await?;
        let on_the_road = session.list().await?.len();
        session.quit().await?;
        assert_eq!(on_the_road, if folder == Folder::In { 2 } else { 1 });
        // Who finds it there after all puts it where it belongs.
        if folder == Folder::Junk {
            world.nodes.big.run(&["mail", "move", &id, "in", "--as", "alice"]).await?;
            desk.filed(Folder::In, &id).await?;
        }
        world.end().await?;
    }
    Ok(())
}

/// Lines are made of octets (RFC 3030), and the signature is over the octets.
#[tokio::test]
async fn a_signature_is_verified_over_the_octets_that_came() -> Result<(), Trouble> {
    let world = world(Dmarc::Refuse).await?;
    // One that waits for its verdicts, and one that is too large for that.
    for octets in [3_000, 3_000_000] {
        let binary = "MIME-Version: 1.0\r\nContent-Type: image/jpeg\r\nContent-Transfer-Encoding: binary\r\n";
        let body = "\0\u{1}".repeat(octets / 2);
        let message = signed("signs.example", &format!("{binary}{}", letter("signs.example", &body)))?;
        let mut session = world.smtp().await?;
        let changed = message.replacen("\0\u{1}", "\0\0", 1);
        let refused = session.send_binary("x@signs.example", &[ALICE], changed.as_bytes(), 1 << 18).await;
        assert!(
            refused.is_err_and(|error| error.to_string().contains("(DMARC)")),
            "of octets that were changed"
        );
        let sent = session.send_binary("x@signs.example", &[ALICE], message.as_bytes(), 1 << 18).await?;
        session.quit().await?;
        let id = accepted_as(&sent).ok_or("no id")?;
        let (verdicts, raw) = found(&world, Folder::In, &id).await?;
        for verdict in
            ["dkim=pass header.d=signs.example", "dmarc=pass header.from=signs.example policy.dmarc=reject"]
        {
            assert!(verdicts.iter().any(|found| found == verdict), "no {verdict} in {verdicts:?}");
        }
        assert_eq!(raw.contains("Authentication-Results: mx.example.com;"), octets < 1_000_000);
        assert!(raw.contains("\r\nContent-Transfer-Encoding: base64\r\n"));
        let opened = mime::open(raw.as_bytes(), 0).ok_or("it cannot be opened")?.octets;
        assert!(opened == body.as_bytes(), "{octets} octets");
    }
    Ok(())
}

#[tokio::test]
async fn hostile_signatures_keys_and_a_silent_resolver_cost_little_and_refuse_nobody() -> Result<(), Trouble>
{
    let world = world(Dmarc::Refuse).await?;
    let dns = &world.internet.dns;
    let signature = |n: usize| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=d{n}.example; s=k; h=From; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
        )
    };
    let many: String = (0..900).map(signature).collect();
    let before = dns.questions().len();
    let verdicts =
        check(&world, "good.example", &(many + &letter("good.example", "")), &["dkim=policy"]).await?;
    let signatures = verdicts.iter().filter(|verdict| verdict.starts_with("dkim=")).count();
    assert_eq!(signatures, 11, "{verdicts:?}");
    let asked = dns.questions().len() - before;
    assert!(asked < 60, "{asked} questions");
    // A key of 16,384 bits, and a record of 60,000 octets.
    let huge = |octets: usize| format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(vec![0xab; octets]));
    for (selector, record) in [("big", huge(2_100)), ("huge", huge(45_000))] {
        let name = format!("{selector}._domainkey.good.example");
        dns.publish(Zone::new(&name).txt(&name, &record));
        let message = signed("good.example", &letter("good.example", "text\r\n"))?
            .replace("s=k;", &format!("s={selector};"))
            .replace("a=ed25519-sha256", "a=rsa-sha256");
        let verdicts = check(&world, "good.example", &message, &[]).await?;
        assert!(!verdicts.iter().any(|verdict| verdict.starts_with("dkim=pass")), "{verdicts:?}");
        assert!(verdicts.iter().any(|verdict| verdict.starts_with("dmarc=pass")), "{verdicts:?}");
    }
    let begun = Instant::now();
    let verdicts = check(&world, "slow.example", &letter("slow.example", "text\r\n"), &[]).await?;
    assert!(verdicts.iter().any(|verdict| verdict.starts_with("dmarc=temperror")), "{verdicts:?}");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    world.end().await
}
