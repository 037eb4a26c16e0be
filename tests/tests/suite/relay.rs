//! Mail out by a smart host: all of it, or what cannot be routed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use big_node::record::Folder;
use big_node::request::{RecipientView, Sent};
use shared::unit::DeliveryState;
use tests::desk::Desk;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mta, Options, StartTls};
use tests::internet::rules::{Action, Rule, Stage};
use tests::process::Program;
use tests::topology::quoted;
use tests::wait::{SOON, Trouble, until};
use tests::world::World;

const ISP: &str = "smtp.isp.example";
const PASSWORD: &str = "correct horse";

/// A smart host that wants a login, at 127.0.0.2.
async fn smart_host(starttls: StartTls) -> Result<Mta, Trouble> {
    let login = Some(("example-com".to_owned(), PASSWORD.to_owned()));
    let listen = SocketAddr::new(loopback(2), 0);
    Ok(Mta::start(Options { name: ISP.into(), listen, starttls, login, ..Options::default() }).await?)
}

/// A world whose mail leaves by `host` as `mode` says, with this password, or with no login, and who trusts `trusted`.
async fn world(mode: &str, host: &Mta, tls: &str, password: &str, trusted: &Mta) -> Result<World, Trouble> {
    world_with(mode, host, tls, password, trusted, |_| {}).await
}

/// The same, with a topology that `further` has been over.
async fn world_with(
    mode: &str,
    host: &Mta,
    tls: &str,
    password: &str,
    trusted: &Mta,
    further: impl FnOnce(&mut tests::topology::TestTopology),
) -> Result<World, Trouble> {
    let (port, pem) = (host.address().port(), trusted.certificate().to_owned());
    let mut written = Ok(());
    let change = |topology: &mut tests::topology::TestTopology| {
        let file = |name: &str| -> PathBuf { topology.state.join(name) };
        let (login, roots) = (file("relay.login"), file("isp.pem"));
        written =
            secret(&login, &format!("example-com\n{password}\n")).and_then(|()| std::fs::write(&roots, pem));
        let path = |path: &PathBuf| quoted(&path.display().to_string());
        topology.outbound = vec![
            ("mode", quoted(mode)),
            ("relay", quoted(&format!("{ISP}:{port}"))),
            ("relay_tls", quoted(tls)),
            ("relay_roots", path(&roots)),
        ];
        if !password.is_empty() {
            topology.outbound.push(("relay_login", path(&login)));
        }
        further(topology);
    };
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), change).await?;
    written?;
    world.internet.dns.publish(Zone::new("isp.example").a(ISP, loopback(2)));
    Ok(world)
}

fn secret(path: &std::path::Path, content: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
}

/// Waits until every recipient is in `state`.
async fn until_all(desk: &Desk, sent: &Sent, state: DeliveryState) -> Result<Vec<RecipientView>, Trouble> {
    until(&format!("{:?} are {state:?}", sent.recipients), SOON, async || {
        let recipients = desk.status(&sent.id).await?.recipients;
        Ok(recipients.iter().all(|recipient| recipient.state == state).then_some(recipients))
    })
    .await
}

#[tokio::test]
async fn all_mail_goes_to_the_smart_host_under_tls_and_with_a_login() -> Result<(), Trouble> {
    for (starttls, tls) in [(StartTls::SelfSigned, "starttls"), (StartTls::Implicit, "tls")] {
        let host = smart_host(starttls).await?;
        let world = world("relay", &host, tls, PASSWORD, &host).await?;
        let desk = world.desk("alice");
        // Nobody asks DNS about them: one is not even there.
        let to = "x@remote.example, y@there-is-no-such.example";
        let sent = desk.send(to, "by the smart host", "text").await?;
        for recipient in until_all(&desk, &sent, DeliveryState::Relayed).await? {
            assert_eq!(recipient.host.as_deref(), Some(ISP));
            assert_eq!(recipient.relay.as_deref(), Some("all mail goes there"));
            assert_eq!(recipient.tls.as_deref(), Some("TLS 1.3, verified by its certificate"));
        }
        let mail = host.wait_for(1, SOON).await?;
        assert_eq!(mail.len(), 1, "one transaction for all");
        assert_eq!(mail[0].recipients, ["x@remote.example", "y@there-is-no-such.example"]);
        assert_eq!((mail[0].user.as_deref(), mail[0].tls), (Some("example-com"), true));
        assert!(world.internet.mta.mail().is_empty());
        let asked = world.internet.dns.questions();
        assert!(asked.iter().all(|(name, _)| name.contains("isp.example")), "{asked:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_smart_host_that_cannot_be_used_loses_nothing_and_hears_no_secret() -> Result<(), Trouble> {
    let host = smart_host(StartTls::SelfSigned).await?;
    let stranger = smart_host(StartTls::SelfSigned).await?;
    for (password, trusted, status, said) in [
        // Its operator forgot the login: that speaks of nobody's mail.
        ("", &host, "4.7.0", "530 5.7.0 log in first"),
        ("wrong", &host, "4.7.8", "the host refused our login: 535 5.7.8 not with these credentials"),
        (
            PASSWORD,
            &stranger,
            "4.7.5",
            "smtp.isp.example offers TLS and fails at it: invalid peer certificate",
        ),
    ] {
        let world = world("relay", &host, "starttls", password, trusted).await?;
        let desk = world.desk("alice");
        let sent = desk.send("x@remote.example", "waits", "text").await?;
        let deferred = until_all(&desk, &sent, DeliveryState::Deferred).await?;
        let view = &deferred[0];
        assert_eq!(view.status, status, "{view:?}");
        assert!(view.text.starts_with(said) && view.next_attempt_at.is_some(), "{view:?}");
        assert!(host.mail().is_empty() && world.internet.mta.mail().is_empty());
        assert!(password.is_empty() || !format!("{view:?}").contains(password));
    }
    Ok(())
}

#[tokio::test]
async fn a_smart_host_whose_name_leads_to_the_edge_itself_is_sent_nothing() -> Result<(), Trouble> {
    let change = |topology: &mut tests::topology::TestTopology| {
        *topology = topology.clone().with_fixed_ports().expect("free ports");
        let relay = format!("{ISP}:{}", topology.smtp[0].port());
        topology.outbound = vec![("mode", quoted("relay")), ("relay", quoted(&relay))];
    };
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), change).await?;
    world.internet.dns.publish(Zone::new("isp.example").a(ISP, loopback(1)));
    let desk = world.desk("alice");
    let sent = desk.send("x@remote.example", "would go round", "text").await?;
    let view = until_all(&desk, &sent, DeliveryState::Deferred).await?.remove(0);
    assert_eq!(view.status, "4.4.6", "{view:?}");
    let said = "the smart host smtp.isp.example is this edge itself, at 127.0.0.1:";
    assert!(view.text.starts_with(said) && view.text.contains("[edge.outbound]"), "{view:?}");
    Ok(())
}

#[tokio::test]
async fn only_what_cannot_be_routed_goes_to_the_smart_host() -> Result<(), Trouble> {
    let host = smart_host(StartTls::SelfSigned).await?;
    let world = world("direct-then-relay", &host, "starttls", PASSWORD, &host).await?;
    let (dns, mta) = (&world.internet.dns, &world.internet.mta);
    // Nobody listens at 127.0.0.9.
    dns.publish(Zone::new("down.example").mx(10, "mx.down.example").a("mx.down.example", loopback(9)));
    dns.publish(Zone::new("silent.example"));
    dns.fail("silent.example");
    dns.publish(Zone::new("null.example").null_mx());
    dns.publish(Zone::new("busy.example").mx(10, "mx.busy.example").a("mx.busy.example", loopback(1)));
    mta.add_rule(Rule::reply(Stage::Rcpt, 550, "5.1.1 nobody").only_for("gone@remote.example"));
    let desk = world.desk("alice");
    for (to, state, relay) in [
        ("here@remote.example", DeliveryState::Relayed, None),
        ("x@down.example", DeliveryState::Relayed, Some("mx.down.example (127.0.0.9:")),
        ("x@silent.example", DeliveryState::Relayed, Some("DNS gives no answer about silent.example")),
        // Explicit answers are the end of it, or a reason to come back.
        ("gone@remote.example", DeliveryState::Failed, None),
        ("x@null.example", DeliveryState::Failed, None),
        ("x@there-is-no-such.example", DeliveryState::Failed, None),
        ("x@busy.example", DeliveryState::Deferred, None),
    ] {
        if state == DeliveryState::Deferred {
            mta.add_rule(Rule::reply(Stage::Connect, 421, "4.3.2 not today").times(1));
        }
        let sent = desk.send(to, "which way", "text").await?;
        let view = until_all(&desk, &sent, state).await?.remove(0);
        let why = view.relay.as_deref();
        assert_eq!(why.is_some(), relay.is_some(), "{to}: {view:?}");
        assert!(relay.is_none_or(|begins| why.is_some_and(|why| why.starts_with(begins))), "{to}: {view:?}");
        if relay.is_some() {
            assert_eq!(view.host.as_deref(), Some(ISP), "{to}: {view:?}");
        }
    }
    let relayed: Vec<_> = host.mail().iter().flat_map(|mail| mail.recipients.clone()).collect();
    assert_eq!(relayed, ["x@down.example", "x@silent.example"]);
    // The three that failed are reported, once each.
    let reports = until("the reports", SOON, async || {
        let lines = desk.messages(Folder::In).await?;
        Ok((lines.len() >= 3).then_some(lines))
    });
    assert_eq!(reports.await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn many_domains_that_cannot_be_reached_take_turns_at_the_smart_host() -> Result<(), Trouble> {
    let host = smart_host(StartTls::SelfSigned).await?;
    // So that they would meet there.
    host.add_rule(Rule::new(Stage::Dot, Action::Delay(Duration::from_millis(50))));
    let world = world_with("direct-then-relay", &host, "starttls", PASSWORD, &host, |topology| {
        topology.outbound.push(("concurrency", "2".to_owned()));
    });
    let world = world.await?;
    // Nobody listens at 127.0.0.9.
    let names: Vec<_> = (0..12).map(|number| format!("down{number}.example")).collect();
    for name in &names {
        let mx = format!("mx.{name}");
        world.internet.dns.publish(Zone::new(name).mx(10, &mx).a(&mx, loopback(9)));
    }
    let desk = world.desk("alice");
    let to: Vec<_> = names.iter().map(|name| format!("x@{name}")).collect();
    for subject in ["first", "second"] {
        let sent = desk.send(&to.join(", "), subject, "text").await?;
        for view in until_all(&desk, &sent, DeliveryState::Relayed).await? {
            assert!(view.relay.as_deref().is_some_and(|why| why.contains("127.0.0.9")), "{view:?}");
        }
    }
    assert_eq!(host.mail().len(), 2 * names.len());
    assert_eq!(host.most_at_once(), 2, "as at any destination");
    // Mail that can be routed has waited for none of them.
    let sent = desk.send("here@remote.example", "third", "text").await?;
    until_all(&desk, &sent, DeliveryState::Relayed).await?;
    Ok(())
}

#[tokio::test]
async fn mail_without_a_place_at_the_smart_host_says_so() -> Result<(), Trouble> {
    let host = smart_host(StartTls::SelfSigned).await?;
    // Whoever has the only place keeps it.
    host.add_rule(Rule::new(Stage::Dot, Action::Delay(Duration::from_secs(3_600))));
    let world = world_with("direct-then-relay", &host, "starttls", PASSWORD, &host, |topology| {
        topology.outbound.push(("concurrency", "1".to_owned()));
    });
    let world = world.await?;
    // Nobody listens at 127.0.0.9.
    for name in ["first.example", "second.example"] {
        let mx = format!("mx.{name}");
        world.internet.dns.publish(Zone::new(name).mx(10, &mx).a(&mx, loopback(9)));
    }
    let desk = world.desk("alice");
    desk.send("x@first.example", "takes the place", "text").await?;
    let is_asked = || world.internet.dns.questions().iter().any(|(name, _)| name == ISP);
    until("the smart host is asked", SOON, async || Ok(is_asked().then_some(()))).await?;
    let sent = desk.send("x@second.example", "finds none", "text").await?;
    let view = until_all(&desk, &sent, DeliveryState::Deferred).await?.remove(0);
    assert!(view.text.contains("127.0.0.9"), "{view:?}");
    assert!(view.text.ends_with("it waits for a place at the smart host"), "{view:?}");
    assert!(host.mail().is_empty());
    Ok(())
}
