//! `doctor` on both nodes: it names what is missing, with the records that mend it, and is content when they are there.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use shared::doctor::{Finding, State};
use shared::listener::TlsIdentity;
use tests::control::CommandError;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mta, Options};
use tests::process::Program;
use tests::topology::quoted;
use tests::wait::{SOON, Trouble};
use tests::world::{CAROL, World};

/// The public key of RFC 8463, appendix A.
const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
/// What the tests' edge is called.
const HOST: &str = "mx.example.com";

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

/// What the edge finds, and whether it exits 0.
async fn findings(world: &World) -> Result<(Vec<Finding>, bool), Trouble> {
    let done = world.nodes.edge.finish(&["doctor", "--selector", "k", "--json"], b"").await?;
    Ok((serde_json::from_slice(&done.stdout)?, done.status.success()))
}

fn of<'a>(findings: &'a [Finding], about: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.about.starts_with(about));
    found.unwrap_or_else(|| panic!("nothing about {about} in {findings:?}"))
}

#[tokio::test]
async fn the_edges_doctor_names_what_is_missing_and_is_content_when_it_is_there() -> Result<(), Trouble> {
    let mut port = 0;
    let world = World::with(program(), |topology| {
        *topology = topology.clone().with_fixed_ports().expect("free ports");
        topology.lists.block = vec!["list.example".parse().expect("a list")];
        // The port at which other hosts would look for this one.
        port = topology.smtp[0].port();
        topology.remote_port = port;
    })
    .await?;
    let (bare, is_good) = findings(&world).await?;
    assert!(!is_good);
    for (about, state, record) in [
        ("addresses of mx.example.com", State::Wrong, "mx.example.com. IN A 127.0.0.1"),
        ("MX of example.com", State::Wrong, "example.com. IN MX 10 mx.example.com."),
        ("DKIM key k of example.com", State::Wrong, ""),
        ("DMARC of example.com", State::Warning, "_dmarc.example.com. IN TXT "),
        ("MTA-STS of example.com", State::Unchecked, ""),
        ("TLS reports of example.com", State::Warning, "_smtp._tls.example.com. IN TXT "),
        ("certificate for mx.example.com", State::Warning, ""),
        ("list list.example", State::Warning, ""),
        ("SMTP on 127.0.0.1:", State::Ok, ""),
        ("POP3 under TLS on 127.0.0.1:", State::Ok, ""),
        ("firewall", State::Unchecked, ""),
    ] {
        let found = of(&bare, about);
        assert_eq!(found.state, state, "{found:?}");
        let first = found.records.first().map_or("", String::as_str);
        assert!(first.starts_with(record) && first.is_empty() == record.is_empty(), "{found:?}");
    }

    let identity = TlsIdentity::kept_in(&world.nodes.topology.edge_state())?.ok_or("it made one")?;
    let tlsa = format!("_{port}._tcp.{HOST}");
    let key = format!("v=DKIM1; k=ed25519; p={PUBLIC}");
    for zone in [
        Zone::new(HOST).a(HOST, Ipv4Addr::LOCALHOST).tlsa(HOST, port, (3, 1, 1), &identity.key_hash()?),
        Zone::new("example.com")
            .mx(10, HOST)
            .txt("example.com", "v=spf1 mx -all")
            .txt("_dmarc.example.com", "v=DMARC1; p=reject")
            .txt("_smtp._tls.example.com", "v=TLSRPTv1; rua=mailto:postmaster@example.com")
            .txt("k._domainkey.example.com", &key),
        Zone::new("2.0.0.127.list.example").a("2.0.0.127.list.example", [127, 0, 0, 2]),
    ] {
        world.internet.dns.publish(zone);
    }
    let (good, is_good) = findings(&world).await?;
    assert!(is_good, "{good:?}");
    for about in [
        "addresses of mx.example.com",
        &format!("port {port} of 127.0.0.1"),
        "MX of example.com",
        "SPF of example.com for 127.0.0.1",
        "DKIM key k of example.com",
        "DMARC of example.com",
        "TLS reports of example.com",
        &format!("TLSA of {tlsa}"),
        "list list.example",
    ] {
        assert_eq!(of(&good, about).state, State::Ok, "{:?}", of(&good, about));
    }
    // Of loopback the resolver library knows the name by itself.
    assert_eq!(of(&good, "PTR of 127.0.0.1").state, State::Warning);
    // Both nodes have one clock here; big may not have said yet what its is.
    let clock = of(&good, "clock");
    assert!(matches!(clock.state, State::Ok | State::Unchecked), "{clock:?}");
    // A name that leads elsewhere, a policy that lets nobody send, and a list that has everybody.
    world
        .internet
        .dns
        .publish(Zone::new("example.com").mx(10, "old.example").txt("example.com", "v=spf1 -all"));
    let everybody = "1.0.0.127.list.example";
    world.internet.dns.publish(Zone::new(everybody).a(everybody, [127, 0, 0, 2]));
    let (bad, is_good) = findings(&world).await?;
    assert!(!is_good);
    for about in ["MX of example.com", "SPF of example.com for 127.0.0.1", "list list.example"] {
        assert_eq!(of(&bad, about).state, State::Wrong, "{:?}", of(&bad, about));
    }
    // Resolvers that answer nothing are told once, and not of each name.
    world.internet.dns.fail(".");
    let (deaf, is_good) = findings(&world).await?;
    assert!(!is_good && of(&deaf, "resolvers").state == State::Wrong);
    assert!(deaf.iter().all(|finding| !finding.about.starts_with("MX of")), "{deaf:?}");
    world.end().await
}

#[tokio::test]
async fn bigs_doctor_sees_the_link_the_postmaster_and_who_signs() -> Result<(), Trouble> {
    let world = World::start(program()).await?;
    world.quiet().await?;
    world.nodes.big.run(&["dkim", "keygen", "--selector", "k", "--algorithm", "ed25519"]).await?;
    let found = world.nodes.big.run(&["doctor"]).await?;
    for line in [
        "ok        link: is up\n",
        "ok        postmaster: alice reads the mail\n",
        "unchecked DKIM of example.com: signed by k; ",
        "\nk._domainkey.example.com. IN TXT \"v=DKIM1; k=ed25519; p=",
    ] {
        assert!(found.contains(line), "no {line:?} in {found}");
    }
    let unpaired = World::unpaired(program(), |_| {}).await?;
    let Err(CommandError::Refused { message, .. }) = unpaired.nodes.big.run(&["doctor"]).await else {
        return Err("there is no edge, and no alice".into());
    };
    assert!(message.contains("2 of ") && message.contains("are wrong"), "{message}");
    world.end().await
}

#[tokio::test]
async fn the_edges_doctor_tells_from_the_mail_that_left_whether_any_can() -> Result<(), Trouble> {
    let world = World::start(program()).await?;
    let port = format!("port {} outward", world.internet.mta.address().port());
    let (before, _) = findings(&world).await?;
    assert_eq!(of(&before, &port).state, State::Unchecked, "{before:?}");
    world.desk("alice").send(CAROL, "leaves", "text").await?;
    world.internet.mta.wait_for(1, SOON).await?;
    let (after, _) = findings(&world).await?;
    let found = of(&after, &port);
    assert!(found.state == State::Ok && found.found.starts_with("a host was reached"), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn a_smart_host_is_no_proof_to_the_edges_doctor_that_other_hosts_can_be_reached() -> Result<(), Trouble>
{
    let listen = SocketAddr::new(loopback(2), 0);
    let host = Mta::start(Options { name: "smtp.isp.example".into(), listen, ..Options::default() }).await?;
    let port = host.address().port();
    for (mode, expected) in [("direct-then-relay", State::Unchecked), ("relay", State::Ok)] {
        let world = World::with(program(), |topology| {
            // Both are at one port, as where the smart host is at 25.
            topology.remote_port = port;
            let relay = ("relay", quoted(&host.address().to_string()));
            topology.outbound = vec![("mode", quoted(mode)), relay, ("relay_tls", quoted("opportunistic"))];
        })
        .await?;
        let taken = host.mail().len();
        world.internet.dns.publish(Zone::new("silent.example"));
        world.internet.dns.fail("silent.example");
        world.desk("alice").send("x@silent.example", "leaves", "text").await?;
        host.wait_for(taken + 1, SOON).await?;
        let (found, _) = findings(&world).await?;
        let found = of(&found, &format!("port {port} outward"));
        assert_eq!(found.state, expected, "{found:?}");
        assert!(mode != "relay" || found.found.starts_with("it is not needed"), "{found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_edges_doctor_asks_nobody_but_the_resolvers_and_this_host() -> Result<(), Trouble> {
    let world = World::with(program(), |topology| {
        *topology = topology.clone().with_fixed_ports().expect("free ports");
        topology.remote_port = topology.smtp[0].port();
    })
    .await?;
    let port = world.nodes.topology.remote_port;
    // Where somebody else would be asked: by SMTP, and for the policy by HTTPS where that port can be had.
    let mut theirs = Vec::new();
    for (last, port) in [(2, port), (3, port), (2, 443), (3, 443), (2, 25), (3, 25)] {
        let is_theirs = port == world.nodes.topology.remote_port;
        let address = SocketAddr::new(loopback(last), port);
        match TcpListener::bind(address) {
            Ok(listener) => theirs.push(listener),
            Err(error) if is_theirs => return Err(error.into()),
            // Not everybody may, and another test may have it.
            Err(error) => println!("{address} cannot be had ({error}): of it nothing is proved"),
        }
    }
    for zone in [
        Zone::new("mx.other.example").a("mx.other.example", loopback(2)),
        Zone::new("mta-sts.example.com").a("mta-sts.example.com", loopback(3)),
        Zone::new("example.com")
            .mx(10, HOST)
            .mx(20, "mx.other.example")
            .txt("example.com", "v=spf1 mx include:other.example -all")
            .txt("_mta-sts.example.com", "v=STSv1; id=1")
            .txt("_smtp._tls.example.com", "v=TLSRPTv1; rua=https://mta-sts.example.com/report"),
        Zone::new(HOST).a(HOST, Ipv4Addr::LOCALHOST),
    ] {
        world.internet.dns.publish(zone);
    }
    let (found, _) = findings(&world).await?;
    let mx = of(&found, "MX of example.com");
    assert!(mx.found.contains("mx.other.example") || mx.state == State::Ok, "{mx:?}");
    let asked = world.internet.dns.questions();
    assert!(asked.iter().any(|(name, kind)| name == "example.com" && kind == "MX"), "{asked:?}");
    for listener in &theirs {
        listener.set_nonblocking(true)?;
        assert!(listener.accept().is_err(), "{:?} was reached: {found:?}", listener.local_addr());
    }
    world.end().await
}
