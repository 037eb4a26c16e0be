//! MTA-STS: a domain's policy, proved by its web host, says which hosts get its mail, and that they prove their names.

use std::net::SocketAddr;

use shared::unit::DeliveryState;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mta, Options, StartTls};
use tests::internet::web::PolicyHost;
use tests::process::{Node, Program};
use tests::topology::quoted;
use tests::wait::Trouble;
use tests::world::World;

/// A domain with one host and a policy.
fn zone(domain: &str, last: u8) -> Zone {
    let mx = format!("mx.{domain}");
    let record = format!("_mta-sts.{domain}");
    Zone::new(domain)
        .mx(10, &mx)
        .a(&mx, loopback(last))
        .txt(&record, "v=STSv1; id=1;")
        .a(&format!("mta-sts.{domain}"), loopback(1))
}

fn policy(mode: &str, mx: &str) -> String {
    format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n")
}

#[tokio::test]
async fn a_policy_says_who_gets_mail_and_holds_when_it_cannot_be_fetched() -> Result<(), Trouble> {
    let domains = ["good.example", "wrong.example", "unnamed.example", "testing.example", "none.example"];
    let web = PolicyHost::start(&domains).await?;
    // Whoever proves another name is no stranger: its certificate is one that is trusted.
    let good = Mta::start(Options { name: "mx.good.example".into(), ..Options::default() }).await?;
    let port = good.address().port();
    let listen = SocketAddr::new(loopback(2), port);
    let clear = Mta::start(Options { listen, starttls: StartTls::Absent, ..Options::default() }).await?;
    let mut written = Ok(());
    let change = |topology: &mut tests::topology::TestTopology| {
        let roots = topology.state.join("roots.pem");
        written = std::fs::write(&roots, [web.certificate(), good.certificate()].concat());
        (topology.remote_port, topology.retry) = (port, vec![3_600]);
        topology.outbound = vec![
            ("mta_sts_roots", quoted(&roots.display().to_string())),
            ("mta_sts_port", web.address().port().to_string()),
        ];
    };
    let mut world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), change).await?;
    written?;
    for domain in domains.iter().chain(&["unproved.example"]) {
        world.internet.dns.publish(zone(domain, 1));
    }
    web.publish("good.example", &policy("enforce", "*.good.example"));
    web.publish("wrong.example", &policy("enforce", "mx.wrong.example"));
    web.publish("unnamed.example", &policy("enforce", "mx.good.example"));
    web.publish("testing.example", &policy("testing", "mx.elsewhere.example"));
    // Its web host does not prove that name.
    web.publish("unproved.example", &policy("enforce", "mx.elsewhere.example"));
    for (domain, tls) in [
        ("good.example", "TLS 1.3, verified by MTA-STS"),
        ("good.example", "TLS 1.3, verified by MTA-STS"),
        ("testing.example", "TLS 1.3"),
        ("none.example", "TLS 1.3"),
        ("none.example", "TLS 1.3"),
        ("unproved.example", "TLS 1.3"),
    ] {
        let view = world.first_outcome(&format!("x@{domain}")).await?;
        assert_eq!((view.state, view.tls.as_deref()), (DeliveryState::Relayed, Some(tls)), "{view:?}");
    }
    let asked = web.asked();
    assert_eq!(
        asked,
        ["mta-sts.good.example", "mta-sts.testing.example", "mta-sts.none.example"],
        "once each"
    );
    for (domain, status, said) in [
        ("wrong.example", "4.7.5", "invalid peer certificate: certificate not valid for name"),
        ("unnamed.example", "4.7.5", "mx.unnamed.example is none of the hosts that its domain's MTA-STS"),
    ] {
        let view = world.first_outcome(&format!("x@{domain}")).await?;
        assert_eq!((view.state, view.status.as_str()), (DeliveryState::Deferred, status), "{view:?}");
        assert!(view.text.contains(said) && view.next_attempt_at.is_some(), "{view:?}");
    }
    assert_eq!(good.mail().len(), 6, "nor in clear");

    // Somebody takes the record and the web host away, and leads the mail elsewhere; the edge starts anew.
    drop(web);
    let stripped = Zone::new("good.example").mx(10, "mx.good.example").a("mx.good.example", loopback(2));
    world.internet.dns.publish(stripped);
    world.internet.dns.publish(Zone::new("_mta-sts.good.example"));
    world.nodes.stop(Node::Edge).await?;
    world.nodes.start_edge().await?;
    world.linked().await?;
    let view = world.first_outcome("x@good.example").await?;
    assert_eq!((view.state, view.status.as_str()), (DeliveryState::Deferred, "4.7.10"), "{view:?}");
    assert!(clear.mail().is_empty());
    Ok(())
}
