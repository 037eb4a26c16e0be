//! REQUIRETLS and TLS-Required (RFC 8689): what a traveller wishes of TLS is kept on the way, or the mail comes back.

use std::net::SocketAddr;

use big_node::record::{AfterFetch, Folder, Scope};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest, Sha256};
use shared::topology::Dnssec;
use shared::unit::DeliveryState;
use tests::client::smtp::SmtpClient;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mta, Options, StartTls};
use tests::internet::signed::SignedDns;
use tests::process::Program;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, World, accepted_as};

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
    let desk = world.desk("alice");
    let trip = desk.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let mut client = world.submission(&trip.user, &trip.password).await?;
    let (required, dispensable) = (" REQUIRETLS", "TLS-Required: No\r\n");
    for (domain, wish, field, state, status) in [
        ("good.example", required, "", DeliveryState::Relayed, "2."),
        ("second.example", required, "", DeliveryState::Relayed, "2."),
        ("old.example", required, "", DeliveryState::Failed, "5.7.30"),
        ("clear.example", required, "", DeliveryState::Failed, "5.7.10"),
        // Of both wishes this one counts.
        ("old.example", required, dispensable, DeliveryState::Failed, "5.7.30"),
        ("old.example", "", "", DeliveryState::Relayed, "2."),
        ("wrong.example", "", "", DeliveryState::Deferred, "4.7.5"),
        ("wrong.example", "", dispensable, DeliveryState::Relayed, "2."),
        ("clear.example", "", dispensable, DeliveryState::Relayed, "2."),
    ] {
        let id = submit(&mut client, &format!("x@{domain}"), wish, field).await?;
        let what = format!("{domain}{wish} {field:?}");
        let view = until(&what, SOON, async || {
            let Ok(status) = desk.status(&id).await else { return Ok(None) };
            let is_attempted = |state| !matches!(state, DeliveryState::Queued | DeliveryState::Relaying);
            Ok(status.recipients.into_iter().find(|view| is_attempted(view.state)))
        });
        let view = view.await?;
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
