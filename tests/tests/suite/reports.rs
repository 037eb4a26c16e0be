//! Aggregate reports: what was seen of a domain in a day reaches whom it names, signed, once, and says what there was.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use big_node::request::AggregateView;
use mail_auth::DkimResult;
use serde_json::{Value, json};
use shared::id::sim::AHEAD;
use shared::id::unix_millis;
use shared::mime;
use shared::topology::{Dmarc, Reports};
use shared::unit::DeliveryState;
use tests::control::Commands;
use tests::internet::dns::Zone;
use tests::internet::mta::{Mail, Mta, Options, StartTls};
use tests::internet::web::PolicyHost;
use tests::internet::{DOMAIN, HOST, loopback};
use tests::process::{Node, Program};
use tests::topology::{TestTopology, quoted};
use tests::wait::{SOON, Trouble};
use tests::world::{ALICE, CAROL, World};

use super::dkim::{keygen, verified};

const TLS_BOX: &str = "tls@remote.example";

/// Seconds until whatever was counted today is due: a day, and the hours in which reports leave.
const NEXT_DAY: u64 = 28 * 3_600;

/// The pair by a clock that is so many seconds ahead.
fn ahead(seconds: u64) -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair")).through(&["env", &format!("{AHEAD}={seconds}")])
}

/// Seconds until the next day's noon of UTC: what begins then does not end on another day.
fn until_noon() -> u64 {
    const DAY: u64 = 24 * 3_600;
    let now = unix_millis() / 1_000;
    (now / DAY + 1) * DAY + DAY / 2 - now
}

/// Lets a day pass after `noon`: both nodes are started again, by a clock that is further ahead.
async fn next_day(world: &mut World, noon: u64) -> Result<(), Trouble> {
    let program = ahead(noon + NEXT_DAY);
    world.nodes.stop(Node::Big).await?;
    world.nodes.stop(Node::Edge).await?;
    world.nodes.big = Commands::new(program.clone(), Node::Big, &world.nodes.file);
    world.nodes.edge = Commands::new(program, Node::Edge, &world.nodes.file);
    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    world.linked().await
}

/// The header of a mail in one line for each field, and the report that is attached.
fn opened(mail: &Mail) -> Result<(String, Vec<u8>), Trouble> {
    let structure = mime::scan(&mail.data).map_err(|error| error.to_string())?;
    let attached = structure.attachments(&mail.data);
    let attached = attached.first().ok_or("nothing is attached")?;
    let compressed = structure.open(&mail.data, attached.index).ok_or("it cannot be opened")?.octets;
    let mut document = Vec::new();
    flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut document)?;
    let header = String::from_utf8_lossy(&mail.data[..mime::header_len(&mail.data)]).into_owned();
    Ok((header.replace("\r\n ", " ").replace("\r\n\t", " "), document))
}

#[tokio::test]
async fn a_domain_is_told_of_its_hosts_also_where_tls_fails() -> Result<(), Trouble> {
    let web = PolicyHost::start(&["testing.example"]).await?;
    // Who proves another name is no stranger: its certificate is one that is trusted.
    let good = Mta::start(Options::default()).await?;
    let port = good.address().port();
    let mut written = Ok(());
    let change = |topology: &mut TestTopology| {
        let roots = topology.state.join("roots.pem");
        written = std::fs::write(&roots, [web.certificate(), good.certificate()].concat());
        topology.remote_port = port;
        topology.outbound = vec![
            ("mta_sts_roots", quoted(&roots.display().to_string())),
            ("mta_sts_port", web.address().port().to_string()),
        ];
    };
    let noon = until_noon();
    let mut world = World::with(ahead(noon), change).await?;
    written?;
    let (listen, starttls) = (SocketAddr::new(loopback(2), port), StartTls::Broken);
    let broken =
        Mta::start(Options { listen, starttls, name: "mx2.remote.example".into(), ..Options::default() });
    let broken = broken.await?;
    keygen(&world, "e1", "ed25519").await?;
    let dns = &world.internet.dns;
    let by = |host: &str, last| Zone::new(DOMAIN).mx(10, host).a(host, loopback(last));
    let asks = |domain: &str, record: &str| {
        let name = format!("_smtp._tls.{domain}");
        dns.publish(Zone::new(&name).txt(&name, record));
    };
    asks(DOMAIN, &format!("v=TLSRPTv1; rua=https://remote.example/tls,mailto:{TLS_BOX}"));
    asks("testing.example", &format!("v=TLSRPTv1; rua=mailto:{TLS_BOX}"));
    for domain in ["testing.example", "silent.example"] {
        let mx = format!("mx.{domain}");
        dns.publish(Zone::new(domain).mx(10, &mx).a(&mx, loopback(1)));
    }
    let announced = Zone::new("_mta-sts.testing.example").txt("_mta-sts.testing.example", "v=STSv1; id=1;");
    dns.publish(announced.a("mta-sts.testing.example", loopback(1)));
    web.publish(
        "testing.example",
        "version: STSv1\r\nmode: testing\r\nmx: *.testing.example\r\nmax_age: 86400\r\n",
    );

    for (host, last, to, is_tls) in [
        ("mx2.remote.example", 2, CAROL, false),
        (HOST, 1, CAROL, true),
        (HOST, 1, "x@testing.example", true),
        (HOST, 1, "x@silent.example", true),
    ] {
        world.internet.dns.publish(by(host, last));
        let view = world.first_outcome(to).await?;
        assert_eq!((view.state, view.tls.is_some()), (DeliveryState::Relayed, is_tls), "{view:?}");
    }
    // Reports of what fails have to arrive where it fails.
    world.internet.dns.publish(by("mx2.remote.example", 2));
    next_day(&mut world, noon).await?;
    let mail = broken.wait_for(3, SOON).await?;
    let mut reports = Vec::new();
    for mail in &mail[1..] {
        assert_eq!((mail.reverse_path.as_str(), mail.tls), ("", false));
        assert_eq!(mail.recipients, [TLS_BOX]);
        assert_eq!(verified(&world, &mail.data).await?, [DkimResult::Pass]);
        let (header, document) = opened(mail)?;
        for field in [
            "From: <postmaster@example.com>\r\n",
            "TLS-Report-Submitter: example.com\r\n",
            "TLS-Required: No\r\n",
            "Content-Type: multipart/report; report-type=\"tlsrpt\";",
        ] {
            assert!(header.contains(field), "{field} is not in {header}");
        }
        let document: Value = serde_json::from_slice(&document)?;
        let id = document["report-id"].as_str().ok_or("no id")?;
        let domain = header.split("TLS-Report-Domain: ").nth(1).and_then(|rest| rest.lines().next());
        let domain = domain.ok_or("no domain")?.to_owned();
        let subject =
            format!("Subject: Report Domain: {domain} Submitter: example.com Report-ID: <{id}>\r\n");
        assert!(header.contains(&subject), "{header}");
        reports.push((domain, document["policies"].clone()));
    }
    reports.sort_by(|one, other| one.0.cmp(&other.0));
    let [(remote, of_remote), (testing, of_testing)] = reports.try_into().map_err(|_| "two reports")?;
    assert_eq!((remote.as_str(), testing.as_str()), (DOMAIN, "testing.example"));
    let counts = |policies: &Value| policies[0]["summary"].clone();
    let one = |successes, failures| json!({ "total-successful-session-count": successes, "total-failure-session-count": failures });
    assert_eq!(counts(&of_remote), one(1, 1), "{of_remote}");
    assert_eq!(of_remote[0]["policy"], json!({ "policy-type": "no-policy-found", "policy-domain": DOMAIN }));
    let failed = &of_remote[0]["failure-details"][0];
    for (field, value) in [
        ("result-type", json!("validation-failure")),
        ("receiving-mx-hostname", json!("mx2.remote.example")),
        ("receiving-ip", json!("127.0.0.2")),
        ("failed-session-count", json!(1)),
    ] {
        assert_eq!(failed[field], value, "{failed}");
    }
    assert_eq!(failed["sending-mta-ip"], Value::Null, "strangers are not told of our own network: {failed}");
    // What is only tried out is looked at, although it keeps nothing from being delivered.
    assert_eq!(counts(&of_testing), one(0, 1), "{of_testing}");
    assert_eq!(of_testing[0]["policy"]["policy-type"], "sts");
    assert_eq!(of_testing[0]["policy"]["mx-host"], json!(["*.testing.example"]));
    assert_eq!(
        of_testing[0]["failure-details"][0]["result-type"], "certificate-host-mismatch",
        "{of_testing}"
    );

    world.quiet().await?;
    let listed: Vec<AggregateView> =
        serde_json::from_str(&world.nodes.big.run(&["reports", "--json"]).await?)?;
    let states: Vec<_> = listed.iter().map(|view| (view.kind.as_str(), view.state.as_str())).collect();
    assert_eq!(states, [("tls", "relayed"), ("tls", "relayed")]);
    let table = world.nodes.big.run(&["reports"]).await?;
    assert!(table.contains("testing.example") && !table.contains("silent.example"), "{table}");
    assert_eq!(broken.mail().len(), 3, "once each");
    world.end().await
}

/// What xmllint makes of a report; `None` where it is not installed.
fn validated(document: &[u8]) -> Result<Option<String>, Trouble> {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/reports/dmarc.xsd");
    let mut xmllint = Command::new("xmllint");
    xmllint.args(["--noout", "--schema", schema, "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = xmllint.spawn() else { return Ok(None) };
    child.stdin.take().ok_or("a pipe")?.write_all(document)?;
    Ok(Some(String::from_utf8(child.wait_with_output()?.stderr)?.trim().to_owned()))
}

#[tokio::test]
async fn a_domain_is_told_of_mail_in_its_name_by_whom_it_names_and_who_agrees() -> Result<(), Trouble> {
    let noon = until_noon();
    let mut world = World::with(ahead(noon), |topology| {
        topology.authentication.dmarc = Dmarc::Quarantine;
        topology.reports = Reports { tls: false, dmarc: true };
    })
    .await?;
    keygen(&world, "e1", "ed25519").await?;
    let dns = &world.internet.dns;
    let publish = |name: &str, text: &str| dns.publish(Zone::new(name).txt(name, text));
    let named = "mailto:dmarc@remote.example!10m,mailto:victim@other.example";
    for (domain, spf, policy) in [
        ("bad.example", "v=spf1 -all", &*format!("v=DMARC1; p=quarantine; ri=60; rua={named}")),
        ("sub.bad.example", "v=spf1 ip4:127.0.0.1 -all", ""),
        ("silent.example", "v=spf1 -all", "v=DMARC1; p=reject"),
    ] {
        publish(domain, spf);
        if !policy.is_empty() {
            publish(&format!("_dmarc.{domain}"), policy);
        }
    }
    publish("bad.example._report._dmarc.remote.example", "v=DMARC1");
    for (domain, times) in [("bad.example", 2), ("sub.bad.example", 1), ("silent.example", 1)] {
        for number in 0..times {
            let from = format!("carol{number}@{domain}");
            let letter =
                format!("From: Carol <{from}>\r\nTo: {ALICE}\r\nSubject: s\r\n\r\ntext {number}\r\n");
            world.smtp().await?.send(&from, &[ALICE], letter.as_bytes()).await?;
        }
    }
    world.quiet().await?;
    next_day(&mut world, noon).await?;
    let mail = world.internet.mta.wait_for(1, SOON).await?;
    assert_eq!(
        (mail[0].reverse_path.as_str(), &mail[0].recipients[..]),
        ("", &["dmarc@remote.example".to_owned()][..])
    );
    assert_eq!(verified(&world, &mail[0].data).await?, [DkimResult::Pass]);
    let (header, document) = opened(&mail[0])?;
    let subject = "Subject: Report Domain: bad.example Submitter: example.com Report-ID: <";
    assert!(header.contains(subject) && !header.contains("TLS-Required"), "{header}");
    match validated(&document)? {
        Some(said) => assert_eq!(said, "- validates", "{}", String::from_utf8_lossy(&document)),
        None => println!("xmllint is not installed: not held to the schema"),
    }
    let xml = String::from_utf8(document)?;
    let records: Vec<String> =
        xml.split("<record>").skip(1).map(|record| record.split_whitespace().collect()).collect();
    assert_eq!(records.len(), 2, "{xml}");
    let record = |author: &str| {
        let name = format!("<header_from>{author}</header_from>");
        records.iter().find(|record| record.contains(&name)).cloned().unwrap_or_default()
    };
    let (bad, sub) = (record("bad.example"), record("sub.bad.example"));
    for part in [
        "<source_ip>127.0.0.1</source_ip><count>2</count>",
        "<disposition>quarantine</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated>",
        "<scope>mfrom</scope><result>fail</result>",
    ] {
        assert!(bad.contains(part), "{part} is not in {bad}");
    }
    assert!(sub.contains("<count>1</count>") && sub.contains("<spf>pass</spf></policy_evaluated>"), "{sub}");
    assert!(!xml.contains("carol"), "{xml}");
    world.quiet().await?;
    let listed: Vec<AggregateView> =
        serde_json::from_str(&world.nodes.big.run(&["reports", "--json"]).await?)?;
    let states: Vec<_> = listed.iter().map(|view| (view.kind.as_str(), view.state.as_str())).collect();
    assert_eq!(states, [("dmarc", "relayed")]);
    world.end().await
}
