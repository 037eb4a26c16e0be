//! DANE: a host proves itself by what a signed DNS says of its certificate, or gets nothing.

use std::net::SocketAddr;

use edge_node::request::{HostView, Request as EdgeRequest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest, Sha256};
use shared::topology::Dnssec;
use shared::unit::DeliveryState;
use tests::ask;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mta, Options, StartTls};
use tests::internet::signed::SignedDns;
use tests::process::Program;
use tests::wait::{SOON, Trouble, until};
use tests::world::{CAROL, World};

/// DANE-EE(3) Cert(0) SHA2-256(1).
const OWN: (u8, u8, u8) = (3, 0, 1);

async fn mta(last: u8, port: u16, starttls: StartTls) -> Result<Mta, Trouble> {
    let listen = SocketAddr::new(loopback(last), port);
    Ok(Mta::start(Options { listen, starttls, ..Options::default() }).await?)
}

fn digest(mta: &Mta) -> Result<Vec<u8>, Trouble> {
    Ok(Sha256::digest(CertificateDer::from_pem_slice(mta.certificate().as_bytes())?).to_vec())
}

/// Both nodes, and an edge that validates what `dns` says of hosts at `port`.
async fn world(dns: &SignedDns, port: u16) -> Result<World, Trouble> {
    let mut written = Ok(());
    let change = |topology: &mut tests::topology::TestTopology| {
        let anchors = topology.state.join("anchors");
        written = std::fs::write(&anchors, dns.anchor());
        (topology.dns, topology.dnssec) = (vec![dns.address()], Dnssec::Anchors(anchors));
        // Nothing is tried again while this looks.
        (topology.remote_port, topology.retry) = (port, vec![3_600]);
    };
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), change).await?;
    written?;
    Ok(world)
}

#[tokio::test]
async fn a_host_gets_mail_only_if_its_certificate_is_the_one_that_dns_proves() -> Result<(), Trouble> {
    let good = mta(1, 0, StartTls::SelfSigned).await?;
    let port = good.address().port();
    let wrong = mta(2, port, StartTls::SelfSigned).await?;
    let clear = mta(3, port, StartTls::Absent).await?;
    let (ours, host) = (digest(&good)?, |domain: &str, last: u8| {
        let mx = format!("mx.{domain}");
        Zone::new(domain).mx(10, &mx).a(&mx, loopback(last))
    });
    let tlsa =
        |domain: &str, last, numbers| host(domain, last).tlsa(&format!("mx.{domain}"), port, numbers, &ours);
    let signed = vec![
        tlsa("good.example", 1, OWN),
        tlsa("wrong.example", 2, OWN),
        tlsa("clear.example", 3, OWN),
        // PKIX-EE(1), which SMTP cannot use.
        tlsa("odd.example", 2, (1, 0, 1)),
        Zone::new("second.example").mx(10, "mx.wrong.example").mx(20, "mx.good.example"),
        Zone::new("alias.example")
            .mx(10, "mail.alias.example")
            .cname("mail.alias.example", "mx.good.example"),
        Zone::new("itself.example").a("itself.example", loopback(1)).tlsa("itself.example", port, OWN, &ours),
        host("plain.example", 2),
        host("forged-tlsa.example", 1),
        Zone::new("forged-mx.example").a("mx.forged-mx.example", loopback(1)),
    ];
    let forged = vec![
        Zone::new("forged-tlsa.example").tlsa("mx.forged-tlsa.example", port, OWN, &ours),
        Zone::new("forged-mx.example").mx(10, "mx.forged-mx.example"),
    ];
    let dns = SignedDns::start(signed, forged).await?;
    let world = world(&dns, port).await?;
    for (domain, tls) in [
        ("good.example", "TLS 1.3, verified by DANE"),
        ("second.example", "TLS 1.3, verified by DANE"),
        ("alias.example", "TLS 1.3, verified by DANE"),
        ("itself.example", "TLS 1.3, verified by DANE"),
        ("odd.example", "TLS 1.3, its TLSA records cannot be used"),
        ("plain.example", "TLS 1.3"),
    ] {
        let view = world.first_outcome(&format!("x@{domain}")).await?;
        assert_eq!((view.state, view.tls.as_deref()), (DeliveryState::Relayed, Some(tls)), "{view:?}");
    }
    let taken = |mta: &Mta| mta.mail().len();
    assert_eq!((taken(&good), taken(&wrong), taken(&clear)), (4, 2, 0));
    for (domain, status, said) in [
        ("wrong.example", "4.7.5", "no TLSA record matches its certificates"),
        ("clear.example", "4.7.10", "TLS is required and the host does not offer it"),
        ("forged-tlsa.example", "4.7.5", "DNS does not say how mx.forged-tlsa.example proves itself (TLSA)"),
        ("forged-mx.example", "4.7.5", "DNS gives no answer about forged-mx.example"),
    ] {
        let view = world.first_outcome(&format!("x@{domain}")).await?;
        assert_eq!((view.state, view.status.as_str()), (DeliveryState::Deferred, status), "{view:?}");
        assert!(view.text.contains(said) && view.next_attempt_at.is_some(), "{view:?}");
    }
    assert_eq!((taken(&good), taken(&wrong), taken(&clear)), (4, 2, 0), "nor in clear");
    let by_dane = "TLS with the certificate that its TLSA records name (DANE)";
    for (domain, usable, asks) in [
        ("alias.example", true, by_dane),
        ("odd.example", true, "TLS with any certificate: its TLSA records cannot be used"),
        ("plain.example", true, "nothing: TLS if it offers it, with any certificate"),
        ("forged-tlsa.example", false, "DNS does not say how mx.forged-tlsa.example proves itself (TLSA)"),
    ] {
        let asked = EdgeRequest::Policy { domain: domain.into() };
        let hosts: Vec<HostView> = ask::edge(&world.nodes.edge_ready().control, asked).await?;
        assert_eq!(hosts.len(), 1, "{hosts:?}");
        assert!(hosts[0].usable == usable && hosts[0].asks.starts_with(asks), "{hosts:?}");
    }
    Ok(())
}

#[tokio::test]
async fn resolvers_that_keep_signatures_back_raise_an_alarm_and_doctor_says_what_to_do() -> Result<(), Trouble>
{
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.dnssec = Dnssec::Root).await?;
    let resolver = world.internet.dns.address();
    let view = world.first_outcome(CAROL).await?;
    assert_eq!((view.state, view.status.as_str()), (DeliveryState::Deferred, "4.7.5"), "{view:?}");
    let alarm = until("an alarm", SOON, async || {
        let alarms = world.edge_link().await?.alarms;
        Ok(alarms.into_iter().find(|alarm| alarm.contains("DNSSEC")))
    });
    let alarm = alarm.await?;
    assert!(alarm.contains(&format!("the resolver {resolver},")), "{alarm}");
    assert!(alarm.contains("mail waits") && alarm.contains("[edge.dns] `servers`"), "{alarm}");
    let done = world.nodes.edge.finish(&["doctor"], b"").await?;
    let found = String::from_utf8_lossy(&done.stdout).into_owned();
    let line = format!("wrong     DNSSEC by {resolver}: passes no DNSSEC records on");
    assert!(!done.status.success() && found.contains(&line), "{found}");
    Ok(())
}
