//! REQUIRETLS and TLS-Required (RFC 8689): what a sender wishes of TLS is kept on the way, or the mail comes back.

use std::net::SocketAddr;

use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::{GatewayView, RecipientView};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest, Sha256};
use shared::topology::{Dmarc, Dnssec};
use shared::unit::DeliveryState;
use tests::client::smtp::SmtpClient;
use tests::desk::Desk;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mta, Options, StartTls};
use tests::internet::signed::SignedDns;
use tests::internet::web::PolicyHost;
use tests::process::{Node, Program};
use tests::topology::quoted;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, World, accepted_as};

/// DANE-EE(3) Cert(0) SHA2-256(1).
const OWN: (u8, u8, u8) = (3, 0, 1);

/// Submits a message to one recipient, with these parameters of MAIL and this before its header; its id.
async fn submit(client: &mut SmtpClient, to: &str, wish: &str, field: &str) -> Result<String, Trouble> {
    client.expect(&format!("MAIL FROM:<{ALICE}>{wish}"), 250).await?;
    client.expect(&format!("RCPT TO:<{to}>"), 250).await?;
    client.expect("DATA", 354).await?;
    let content = format!("{field}From: {ALICE}\r\nTo: {to}\r\nSubject: wishes\r\n\r\nthe secret text\r\n.");
    accepted_as(&client.expect(&content, 250).await?).ok_or_else(|| "no id".into())
}

/// Alice on the road, and her session.
async fn traveller(world: &World) -> Result<(Desk, SmtpClient), Trouble> {
    let desk = world.desk("alice");
    let trip = desk.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let client = world.submission(&trip.user, &trip.password).await?;
    Ok((desk, client))
}

/// What became of a message's recipient in its first attempt.
async fn attempted(desk: &Desk, id: &str, what: &str) -> Result<RecipientView, Trouble> {
    until(what, SOON, async || {
        let Ok(status) = desk.status(id).await else { return Ok(None) };
        let is_attempted = |state| !matches!(state, DeliveryState::Queued | DeliveryState::Relaying);
        Ok(status.recipients.into_iter().find(|view| is_attempted(view.state)))
    })
    .await
}

#[tokio::test]
async fn what_a_sender_wishes_of_tls_is_kept_or_the_mail_comes_back() -> Result<(), Trouble> {
    let mta = async |last: u8, port: u16, require_tls: bool, starttls: StartTls| {
        let listen = SocketAddr::new(loopback(last), port);
        Mta::start(Options { listen, require_tls, starttls, ..Options::default() }).await
    };
    let good = mta(1, 0, true, StartTls::SelfSigned).await?;
    let port = good.address().port();
    let old = mta(2, port, false, StartTls::SelfSigned).await?;
    let clear = mta(3, port, false, StartTls::Absent).await?;
    let later = mta(4, port, true, StartTls::NotNow).await?;
    let digest = |mta: &Mta| -> Result<Vec<u8>, Trouble> {
        Ok(Sha256::digest(CertificateDer::from_pem_slice(mta.certificate().as_bytes())?).to_vec())
    };
    let (of_good, of_old) = (digest(&good)?, digest(&old)?);
    let host = |domain: &str, last: u8, digest: &[u8]| {
        let mx = format!("mx.{domain}");
        Zone::new(domain).mx(10, &mx).a(&mx, loopback(last)).tlsa(&mx, port, OWN, digest)
    };
    let signed = vec![
        host("good.example", 1, &of_good),
        host("old.example", 2, &of_old),
        // The first of its hosts does not pass it on, the second does.
        Zone::new("second.example").mx(10, "mx.old.example").mx(20, "mx.good.example"),
        host("clear.example", 3, &of_good),
        host("later.example", 4, &of_good),
        // A host with another certificate than its TLSA record has.
        host("wrong.example", 2, &of_good),
    ];
    let dns = SignedDns::start(signed, Vec::new()).await?;
    let mut written = Ok(());
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), |topology| {
        let anchors = topology.state.join("anchors");
        written = std::fs::write(&anchors, dns.anchor());
        (topology.dns, topology.dnssec) = (vec![dns.address()], Dnssec::Anchors(anchors));
        (topology.remote_port, topology.retry) = (port, vec![3_600]);
    })
    .await?;
    written?;
    let (desk, mut client) = traveller(&world).await?;
    let (required, dispensable) = (" REQUIRETLS", "TLS-Required: No\r\n");
    for (domain, wish, field, state, status) in [
        ("good.example", required, "", DeliveryState::Relayed, "2."),
        ("second.example", required, "", DeliveryState::Relayed, "2."),
        ("old.example", required, "", DeliveryState::Failed, "5.7.30"),
        ("clear.example", required, "", DeliveryState::Failed, "5.7.10"),
        ("later.example", required, "", DeliveryState::Deferred, "4.7.0"),
        // Of both wishes this one counts.
        ("old.example", required, dispensable, DeliveryState::Failed, "5.7.30"),
        ("old.example", "", "", DeliveryState::Relayed, "2."),
        ("wrong.example", "", "", DeliveryState::Deferred, "4.7.5"),
        ("wrong.example", "", dispensable, DeliveryState::Relayed, "2."),
        ("clear.example", "", dispensable, DeliveryState::Relayed, "2."),
    ] {
        let id = submit(&mut client, &format!("x@{domain}"), wish, field).await?;
        let what = format!("{domain}{wish} {field:?}");
        let view = attempted(&desk, &id, &what).await?;
        assert!(view.state == state && view.status.starts_with(status), "{what}: {view:?}");
    }
    let asked = |mta: &Mta| -> Vec<bool> {
        let mail = mta.mail();
        mail.iter().map(|mail| mail.parameters.iter().any(|given| given == "REQUIRETLS")).collect()
    };
    assert_eq!(
        (asked(&good), asked(&old), asked(&clear)),
        (vec![true, true], vec![false, false], vec![false])
    );
    assert!(later.mail().is_empty());
    // What comes back quotes no more than the header.
    let reports = until("three reports", SOON, async || {
        let mut reports = Vec::new();
        for line in desk.messages(Folder::In).await? {
            let text = String::from_utf8_lossy(&desk.raw(&line.id).await?).into_owned();
            reports.extend(text.contains("Action: failed").then_some(text));
        }
        Ok((reports.len() == 3).then_some(reports))
    });
    for report in reports.await? {
        assert!(report.contains("Subject: wishes") && !report.contains("the secret text"), "{report}");
    }
    Ok(())
}

/// A stranger's message comes to port 25 under TLS, for one recipient.
async fn come(world: &World, from: &str, to: &str) -> Result<(), Trouble> {
    let mut client = world.smtp().await?;
    client.start_tls().await?;
    assert!(client.offers("REQUIRETLS"));
    client.expect(&format!("MAIL FROM:<{from}> REQUIRETLS"), 250).await?;
    client.expect(&format!("RCPT TO:<{to}>"), 250).await?;
    client.expect("DATA", 354).await?;
    let author = if from.is_empty() { "mailer-daemon@good.example" } else { from };
    let content = format!("From: {author}\r\nTo: {to}\r\nSubject: for {to}\r\n\r\nthe secret text\r\n.");
    client.expect(&content, 250).await?;
    client.quit().await?;
    Ok(())
}

#[tokio::test]
async fn what_strangers_wish_of_tls_holds_for_forwards_and_gateways_or_they_are_told() -> Result<(), Trouble>
{
    let mta = async |last: u8, port: u16, require_tls: bool, starttls: StartTls| {
        let listen = SocketAddr::new(loopback(last), port);
        Mta::start(Options { listen, require_tls, starttls, ..Options::default() }).await
    };
    let good = mta(1, 0, true, StartTls::SelfSigned).await?;
    let port = good.address().port();
    let old = mta(2, port, false, StartTls::SelfSigned).await?;
    let inside = [
        ("passing", "passing.example", mta(1, 0, true, StartTls::SelfSigned).await?),
        ("old", "old-inside.example", mta(1, 0, false, StartTls::SelfSigned).await?),
        ("clear", "clear-inside.example", mta(1, 0, true, StartTls::Absent).await?),
    ];
    // The first two of its hosts do not pass it on, the last does.
    let several = [&inside[1], &inside[2], &inside[0]].map(|(.., host)| host.address().to_string());
    const SEVERAL: &str = "several-inside.example";
    let host = |domain: &str, last: u8, mta: &Mta| -> Result<Zone, Trouble> {
        let digest = Sha256::digest(CertificateDer::from_pem_slice(mta.certificate().as_bytes())?);
        let mx = format!("mx.{domain}");
        let zone = Zone::new(domain).mx(10, &mx).a(&mx, loopback(last)).tlsa(&mx, port, OWN, &digest);
        Ok(zone.txt(domain, "v=spf1 ip4:127.0.0.1 -all"))
    };
    let signed = vec![host("good.example", 1, &good)?, host("old.example", 2, &old)?];
    let dns = SignedDns::start(signed, Vec::new()).await?;
    let mut written = Ok(());
    let mut world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), |topology| {
        let anchors = topology.state.join("anchors");
        written = std::fs::write(&anchors, dns.anchor());
        (topology.dns, topology.dnssec) = (vec![dns.address()], Dnssec::Anchors(anchors));
        (topology.remote_port, topology.retry) = (port, vec![3_600]);
        topology.authentication.dmarc = Dmarc::Record;
        topology.domains.extend(inside.iter().map(|(_, domain, _)| (*domain).to_owned()));
        topology.domains.push(SEVERAL.into());
    })
    .await?;
    written?;
    let big = &world.nodes.big;
    big.run(&["person", "set", "alice", "--forward", "alice@good.example"]).await?;
    big.run(&["person", "set", "bob", "--forward", "bob@old.example"]).await?;
    for (name, domain, host) in &inside {
        let address = host.address().to_string();
        let _: Vec<GatewayView> =
            big.json(&["gateway", "add", name, "--smtp", &address, "--domain", domain]).await?;
    }
    let hosts = several.iter().flat_map(|address| ["--smtp", address.as_str()]);
    let add: Vec<_> =
        ["gateway", "add", "several"].into_iter().chain(hosts).chain(["--domain", SEVERAL]).collect();
    let _: Vec<GatewayView> = big.json(&add).await?;
    // The sandbox lets it connect to those ports from the next start on.
    world.nodes.stop(Node::Big).await?;
    world.nodes.start_big().await?;
    world.linked().await?;
    let carol = "carol@good.example";
    let user = |domain: &str| format!("user@{domain}");
    for domain in inside.iter().map(|(_, domain, _)| *domain).chain([SEVERAL]) {
        until("the gateway is known", SOON, async || {
            Ok((world.rcpt(&user(domain)).await? == 250).then_some(()))
        })
        .await?;
        come(&world, carol, &user(domain)).await?;
    }
    come(&world, carol, ALICE).await?;
    come(&world, carol, BOB).await?;

    // What is forwarded asks the next host for the same, and so do the reports to carol.
    let mail = good.wait_for(4, SOON).await?;
    for mail in &mail {
        assert!(mail.tls && mail.parameters.iter().any(|given| given == "REQUIRETLS"), "{mail:?}");
    }
    let text = |to: &str| -> Vec<String> {
        let of = mail.iter().filter(|mail| mail.recipients == [to]);
        of.map(|mail| String::from_utf8_lossy(&mail.data).into_owned()).collect()
    };
    assert!(text("alice@good.example").concat().contains("the secret text"));
    let reports = text(carol);
    for (to, status, words) in [
        (BOB.to_owned(), "5.7.30", "could not be forwarded, for TLS is not certain there"),
        (user(inside[1].1), "5.7.30", "the host does not offer that under TLS"),
        (user(inside[2].1), "5.7.10", "TLS is required and the host does not offer it"),
    ] {
        let report = reports.iter().find(|report| report.contains(&format!("Subject: for {to}")));
        let report = report.ok_or_else(|| format!("no report of {to}"))?;
        assert!(
            report.contains("Action: failed") && report.contains(&format!("Status: {status}")),
            "{report}"
        );
        assert!(report.contains(words) && !report.contains("the secret text"), "{report}");
    }
    assert_eq!(reports.len(), 3);
    // A report is not lost where that cannot be had.
    come(&world, "dave@old.example", BOB).await?;
    let report = old.wait_for(1, SOON).await?.remove(0);
    assert_eq!(
        (report.recipients.join(" ").as_str(), report.reverse_path.as_str()),
        ("dave@old.example", "")
    );
    assert!(!report.parameters.iter().any(|given| given == "REQUIRETLS"), "{report:?}");
    let report = String::from_utf8_lossy(&report.data);
    assert!(report.contains("Status: 5.7.30") && !report.contains("the secret text"), "{report}");
    for passed in inside[0].2.wait_for(2, SOON).await? {
        assert!(passed.tls && passed.parameters.iter().any(|given| given == "REQUIRETLS"), "{passed:?}");
    }
    assert_eq!((old.mail().len(), inside[1].2.mail().len(), inside[2].2.mail().len()), (1, 0, 0));
    // Nor is what others send with the null reverse-path, of which nobody would be told.
    for (to, host, count) in [(BOB, &old, 2), (&user(inside[1].1), &inside[1].2, 1)] {
        come(&world, "", to).await?;
        let mail = host.wait_for(count, SOON).await?.remove(count - 1);
        assert!(mail.tls && mail.reverse_path.is_empty(), "{mail:?}");
        assert!(!mail.parameters.iter().any(|given| given == "REQUIRETLS"), "{mail:?}");
    }
    world.end().await
}

#[tokio::test]
async fn what_the_smart_host_will_not_do_waits_for_the_domain_to_be_back() -> Result<(), Trouble> {
    const ISP: &str = "smtp.isp.example";
    let listen = SocketAddr::new(loopback(2), 0);
    let smart = Mta::start(Options { name: ISP.into(), listen, ..Options::default() }).await?;
    let port = smart.address().port();
    // Nobody listens at 127.0.0.9.
    let away = Zone::new("away.example").mx(10, "mx.away.example").a("mx.away.example", loopback(9));
    let away = away.tlsa("mx.away.example", port, OWN, &[1; 32]);
    let dns = SignedDns::start(vec![away, Zone::new("isp.example").a(ISP, loopback(2))], Vec::new()).await?;
    for tls in ["starttls", "opportunistic"] {
        let mut written = Ok(());
        let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), |topology| {
            let file = |name: &str| topology.state.join(name);
            let (anchors, roots) = (file("anchors"), file("isp.pem"));
            written = std::fs::write(&anchors, dns.anchor())
                .and_then(|()| std::fs::write(&roots, smart.certificate()));
            topology.outbound = vec![
                ("mode", quoted("direct-then-relay")),
                ("relay", quoted(&format!("{ISP}:{port}"))),
                ("relay_tls", quoted(tls)),
            ];
            if tls == "starttls" {
                topology.outbound.push(("relay_roots", quoted(&roots.display().to_string())));
            }
            (topology.dns, topology.dnssec) = (vec![dns.address()], Dnssec::Anchors(anchors));
            (topology.remote_port, topology.retry) = (port, vec![3_600]);
        })
        .await?;
        written?;
        let (desk, mut client) = traveller(&world).await?;
        // The second while the domain is not asked again.
        for what in ["first", "second"] {
            let id = submit(&mut client, "x@away.example", " REQUIRETLS", "").await?;
            let view = attempted(&desk, &id, what).await?;
            let seen = (view.state, view.host.as_deref(), view.relay.as_deref());
            assert_eq!(
                seen,
                (DeliveryState::Deferred, Some("mx.away.example"), None),
                "{tls} {what}: {view:?}"
            );
        }
        let id = submit(&mut client, "x@away.example", "", "").await?;
        assert_eq!(attempted(&desk, &id, "without a wish").await?.host.as_deref(), Some(ISP));
    }
    assert_eq!(smart.mail().len(), 2, "those without a wish");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_known_now_of_a_host_is_no_reason_to_give_up() -> Result<(), Trouble> {
    let web = PolicyHost::start(&["good.example", "unfetched.example"]).await?;
    let options = Options { name: "mx.good.example".into(), require_tls: true, ..Options::default() };
    let mta = Mta::start(options).await?;
    let mut written = Ok(());
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), |topology| {
        let roots = topology.state.join("roots.pem");
        written = std::fs::write(&roots, [web.certificate(), mta.certificate()].concat());
        (topology.remote_port, topology.retry) = (mta.address().port(), vec![3_600]);
        topology.outbound = vec![
            ("mta_sts_roots", quoted(&roots.display().to_string())),
            ("mta_sts_port", web.address().port().to_string()),
        ];
    })
    .await?;
    written?;
    let dns = &world.internet.dns;
    let served = |domain: &str| {
        let mx = format!("mx.{domain}");
        Zone::new(domain).mx(20, &mx).a(&mx, loopback(1))
    };
    let announced = |domain: &str| {
        let zone = served(domain).txt(&format!("_mta-sts.{domain}"), "v=STSv1; id=1;");
        zone.a(&format!("mta-sts.{domain}"), loopback(1))
    };
    dns.publish(announced("good.example"));
    web.publish(
        "good.example",
        "version: STSv1\r\nmode: enforce\r\nmx: mx.good.example\r\nmax_age: 86400\r\n",
    );
    dns.publish(announced("unfetched.example"));
    dns.publish(served("unsaid.example"));
    dns.fail("_mta-sts.unsaid.example");
    dns.publish(served("unproved.example"));
    // The best of its hosts may be one that will do.
    dns.publish(served("unsure.example").mx(10, "mx.elsewhere.example"));
    dns.fail("mx.elsewhere.example");
    let (desk, mut client) = traveller(&world).await?;
    for (domain, state, status) in [
        ("good.example", DeliveryState::Relayed, "2."),
        ("unfetched.example", DeliveryState::Deferred, "4.7.5"),
        // While it is not fetched again.
        ("unfetched.example", DeliveryState::Deferred, "4.7.5"),
        ("unsaid.example", DeliveryState::Deferred, "4.7.5"),
        ("unsure.example", DeliveryState::Deferred, "4.4.3"),
        ("unproved.example", DeliveryState::Failed, "5.7.30"),
    ] {
        let id = submit(&mut client, &format!("x@{domain}"), " REQUIRETLS", "").await?;
        let view = attempted(&desk, &id, domain).await?;
        assert!(view.state == state && view.status.starts_with(status), "{domain}: {view:?}");
    }
    // Others do not wait for that.
    for domain in ["unfetched.example", "unsaid.example", "unsure.example"] {
        let id = submit(&mut client, &format!("x@{domain}"), "", "").await?;
        assert_eq!(attempted(&desk, &id, domain).await?.state, DeliveryState::Relayed, "{domain}");
    }
    assert_eq!(mta.mail().len(), 4);
    Ok(())
}
