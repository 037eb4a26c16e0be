use std::path::Path;
use std::time::Duration;

use super::*;

fn root_file() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../topology.toml"))
}

fn refusal(text: &str) -> Refusal {
    match Topology::parse(text, "t.toml") {
        Err(TopologyError::Refused(refusal)) => *refusal,
        other => panic!("expected a refusal of {text:?}, got {other:?}"),
    }
}

/// `SMALLEST` with `from` replaced is refused at `line:column` for `reason`; `mend` is part of the mend.
fn check(from: &str, to: &str, line_column: (usize, usize), reason: &str, mend: &str) {
    assert!(SMALLEST.contains(from), "{from:?} is in the smallest file");
    let refusal = refusal(&SMALLEST.replacen(from, to, 1));
    assert_eq!(((refusal.line, refusal.column), refusal.reason.as_str()), (line_column, reason), "{to:?}");
    assert!(refusal.mend.contains(mend), "{to:?}: {:?}", refusal.mend);
}

#[test]
fn what_is_not_in_this_version_is_said_so() {
    let edge = "state = \"var/edge\"";
    let with = |line: &str| format!("{edge}\n{line}");
    let later = "is not in this version";
    check(
        "[edge]",
        "[big.intranet]\npop3 = []\n[edge]",
        (7, 6),
        &format!("`big.intranet` {later}"),
        "leave it out",
    );
    check(edge, &with("send_now = true"), (10, 1), &format!("`edge.send_now` {later}"), "leave it out");
    check("[link]", "[gateways]\n[link]", (10, 2), &format!("`gateways` {later}"), "leave it out");
}

#[test]
fn mail_leaves_by_itself_or_by_a_smart_host() {
    let outbound = |lines: &str| {
        let text = SMALLEST.replace("[link]", &format!("[edge.outbound]\n{lines}\n[link]"));
        Topology::parse(&text, "t.toml").map(|topology| topology.edge.outbound.mode)
    };
    let isp = || SmartHost {
        place: Place::Name("smtp.isp.example".parse().expect("a name"), 587),
        tls: RelayTls::StartTls,
        roots: None,
        login: None,
    };
    let relay = "relay = \"smtp.isp.example:587\"";
    assert_eq!(outbound("").expect("valid"), Mode::Direct);
    assert_eq!(outbound(&format!("mode = \"relay\"\n{relay}")).expect("valid"), Mode::Relay(isp()));
    let all = "mode = \"direct-then-relay\"\nrelay = \"[2001:db8::1]:465\"\nrelay_tls = \"tls\"\n\
               relay_login = \"keys/login\"\nrelay_roots = \"ca.pem\"";
    let all = outbound(all).expect("valid");
    let place = Place::Address("[2001:db8::1]:465".parse().expect("an address"));
    let (login, roots) = (Some("keys/login".into()), Some("ca.pem".into()));
    assert_eq!(all, Mode::DirectThenRelay(SmartHost { place, tls: RelayTls::Implicit, roots, login }));
    for (lines, reason, mend) in [
        ("mode = \"smarthost\"", "`smarthost` is unknown as a value of `mode`", "write mode ="),
        ("mode = \"relay\"", "mode = \"relay\" needs a smart host", "add `relay = …`"),
        (relay, "with mode = \"direct\" no smart host is asked", "leave it out"),
        ("relay_login = \"x\"", "with mode = \"direct\" no smart host is asked", "leave it out"),
        (
            "mode = \"relay\"\nrelay = \"smtp.isp.example\"",
            "is not a host with a port",
            "smtp.isp.example:587",
        ),
        ("mode = \"relay\"\nrelay = \"smtp.isp.example:0\"", "is not a host with a port", "a port"),
        ("mode = \"relay\"\nrelay = \"0.0.0.0:25\"", "is not a host with a port", "a port"),
        ("mode = \"relay\"\nrelay = \"2001:db8::1:25\"", "is not a host with a port", "a port"),
        (
            "mode = \"relay\"\nrelay = \"MX.example.com:587\"",
            "is this edge itself",
            "takes mail for everywhere",
        ),
        (&format!("mode = \"relay\"\n{relay}\nrelay_tls = \"ssl\""), "`ssl` is unknown", "\"opportunistic\""),
        (
            &format!("mode = \"relay\"\n{relay}\nrelay_tls = \"opportunistic\"\nrelay_login = \"x\""),
            "a login with relay_tls = \"opportunistic\", where no host proves its name",
            "\"starttls\" or \"tls\"",
        ),
    ] {
        let refused = outbound(lines).expect_err(lines).to_string();
        assert!(refused.contains(reason) && refused.contains(mend), "{lines}: {refused}");
    }
}

#[test]
fn a_smart_host_is_not_this_edge_by_another_name() {
    let parse = |relay: &str| {
        let lines = format!(
            "smtp = [\"192.0.2.1:25\", \"[::]:26\"]\nsubmission = [\"0.0.0.0:587\"]\nsubmissions = [\"192.0.2.1:465\"]\n\
             [edge.outbound]\nmode = \"relay\"\nrelay = \"{relay}\"\n[link]"
        );
        Topology::parse(&SMALLEST.replace("[link]", &lines), "t.toml").map(drop)
    };
    for ours in [
        "192.0.2.1:25",
        "127.0.0.1:587",
        "[::1]:26",
        "127.0.0.2:587",
        "[::ffff:127.0.0.1]:587",
        "192.0.2.1:465",
        "MX.example.com:25",
    ] {
        let refused = parse(ours).expect_err(ours).to_string();
        assert!(refused.contains("is this edge itself") && refused.contains("and its port"), "{refused}");
    }
    for other in ["192.0.2.1:2525", "192.0.2.2:25", "127.0.0.1:10025", "127.0.0.1:26", "192.0.2.1:587"] {
        parse(other).expect(other);
    }
}

#[test]
fn a_certificate_comes_from_one_source() {
    let edge = |lines: &str| {
        let text = format!("{SMALLEST}{lines}\n");
        Topology::parse(&text, "t.toml").map(|topology| topology.edge.certificate)
    };
    let (url, http) = ("directory = \"https://acme.example/dir\"", "http = [\"0.0.0.0:80\"]");
    let smallest = format!("[edge.acme]\n{url}\nterms_agreed = true\n{http}");
    let directory: WebPlace = "https://acme.example/dir".parse().expect("a URL");
    let acme = |contact: Option<&str>, roots: Option<&str>| {
        let contact = contact.map(|text| text.parse().expect("an address"));
        let http = vec!["0.0.0.0:80".parse().expect("an address")];
        CertificateSource::Acme(Acme {
            directory: directory.clone(),
            contact,
            roots: roots.map(Into::into),
            http,
        })
    };
    assert_eq!(edge("").expect("valid"), CertificateSource::SelfSigned);
    assert_eq!(edge(&smallest).expect("valid"), acme(None, None));
    let all = format!("{smallest}\ncontact = \"postmaster@example.com\"\nroots = \"ca.pem\"");
    assert_eq!(edge(&all).expect("valid"), acme(Some("postmaster@example.com"), Some("ca.pem")));
    let terms = "terms_agreed = true";
    for (lines, reason, mend) in [
        (format!("[edge.acme]\n{url}\n{http}"), "`edge.acme.terms_agreed` is missing", "agree to the terms"),
        (
            smallest.replace(terms, "terms_agreed = false"),
            "to those who agree to its terms",
            "terms_agreed = true",
        ),
        (smallest.replace("https", "http"), "`http://acme.example/dir` is not a URL", "under TLS"),
        (smallest.replace("\"0.0.0.0:80\"", ""), "has to be answered somewhere", "0.0.0.0:80"),
        (
            format!("{smallest}\ncontact = \"postmaster\""),
            "`postmaster` is not a mail address",
            "or leave it out",
        ),
        (
            format!("[edge.tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n{smallest}"),
            "the certificate comes from files",
            "leave one of",
        ),
    ] {
        let refused = edge(&lines).expect_err(&lines).to_string();
        assert!(refused.contains(reason) && refused.contains(mend), "{lines}: {refused}");
    }
    let twice = SMALLEST.replace("[link]", &format!("smtp = [\"0.0.0.0:80\"]\n{smallest}\n[link]"));
    let refused = Topology::parse(&twice, "t.toml").expect_err("taken").to_string();
    assert!(refused.contains("0.0.0.0:80 is taken"), "{refused}");
}

#[test]
fn who_other_hosts_prove_themselves_to_is_said_or_built_in() {
    let edge = |lines: &str| {
        let text = format!("{SMALLEST}{lines}\n");
        Topology::parse(&text, "t.toml").map(|topology| topology.edge)
    };
    let plain = edge("").expect("valid");
    assert_eq!(plain.dnssec, Dnssec::Root);
    assert_eq!(plain.outbound.mta_sts, Some(MtaSts { roots: None, port: 443 }));
    let given = edge(
        "[edge.dns]\ntrust_anchors = \"root.key\"\n[edge.outbound]\nmta_sts_roots = \"ca.pem\"\nmta_sts_port = 8443",
    )
    .expect("valid");
    assert_eq!(given.dnssec, Dnssec::Anchors("root.key".into()));
    assert_eq!(given.outbound.mta_sts, Some(MtaSts { roots: Some("ca.pem".into()), port: 8443 }));
    let off = edge("[edge.dns]\ndnssec = false\n[edge.outbound]\nmta_sts = false").expect("valid");
    assert_eq!((off.dnssec, off.outbound.mta_sts), (Dnssec::Off, None));
    for (lines, reason) in [
        ("[edge.dns]\ndnssec = false\ntrust_anchors = \"root.key\"", "nothing is validated by these keys"),
        ("[edge.outbound]\nmta_sts = false\nmta_sts_roots = \"ca.pem\"", "no policies are fetched"),
        ("[edge.outbound]\nmta_sts = false\nmta_sts_port = 443", "no policies are fetched"),
        ("[edge.outbound]\nmta_sts_port = 0", "0 is out of range for `mta_sts_port`"),
    ] {
        let refused = edge(lines).expect_err(lines).to_string();
        assert!(refused.contains(reason), "{lines}: {refused}");
    }
}

#[test]
fn ports_that_are_forwarded_are_told_for_services_that_there_are() {
    let public = |lines: &str| {
        let edge = "state = \"var/edge\"";
        let text = SMALLEST.replace(edge, &format!("{edge}\npop3s = [\"127.0.0.1:2995\"]\n{lines}"));
        Topology::parse(&text, "t.toml").map(|topology| topology.edge.public)
    };
    assert_eq!(public("").expect("valid"), PublicPorts::default());
    let forwarded = PublicPorts { pop3s: Some(995), ..PublicPorts::default() };
    assert_eq!(public("[edge.public]\npop3s = 995").expect("valid"), forwarded);
    for (lines, reason, mend) in [
        ("public.pop3s = 0", "0 is out of range for `pop3s`", "from 1 to 65535"),
        ("public.pop3s = 65536", "65536 is out of range for `pop3s`", "from 1 to 65535"),
        ("public.pop3 = 110", "the edge has no listener for `pop3`", "add `pop3 = …` to [edge]"),
        ("public.imap = 143", "`edge.public.imap` is unknown", "pop3s"),
        ("public.pop3s = \"995\"", "invalid type", "write a port number, like 995"),
    ] {
        let refused = public(lines).expect_err(lines).to_string();
        assert!(refused.contains(reason) && refused.contains(mend), "{lines}: {refused}");
    }
}

#[test]
fn strangers_are_asked_about_and_told_to_wait_only_where_it_is_wanted() {
    let edge = |lines: &str| {
        let text = SMALLEST.replace("[link]", &format!("{lines}\n[link]"));
        Topology::parse(&text, "t.toml").map(|topology| topology.edge)
    };
    let none = edge("").expect("valid");
    assert_eq!((none.lists, none.greylist), (Lists::default(), None));
    let all = edge(
        "[edge.lists]\nblock = [\"b.example\", \"c.example=127.0.0.2\"]\nallow = [\"a.example\"]\n[edge.greylist]",
    );
    let all = all.expect("valid");
    let list = |text: &str| text.parse::<DnsList>().expect("a list");
    assert_eq!(all.lists.block, [list("b.example"), list("c.example=127.0.0.2")]);
    assert_eq!(all.lists.allow, [list("a.example")]);
    let seconds =
        |delay, window| Greylist { delay: Duration::from_secs(delay), window: Duration::from_secs(window) };
    assert_eq!(all.greylist, Some(seconds(300, 172_800)));
    let set = edge("[edge.greylist]\ndelay = 1\nwindow = 3600").expect("valid");
    assert_eq!(set.greylist, Some(seconds(1, 3_600)));
    let nine: Vec<_> = (0..9).map(|n| format!("\"l{n}.example\"")).collect();
    for (lines, reason, mend) in [
        ("block = [\"b.example=10.0.0.1\"]", "`b.example=10.0.0.1` is not a list in DNS", "127.0.0.4-7"),
        (
            "block = [\"b.example\"]\nallow = [\"B.example\"]",
            "b.example is asked twice",
            "leave one of them out",
        ),
        (&format!("block = [{}]", nine.join(", ")), "8 lists may be asked", "leave some out"),
        ("score = 3", "`edge.lists.score` is unknown", "[edge.lists] has: block, allow"),
        ("[edge.greylist]\ndelay = 0", "0 is out of range for `delay`", "from 1 to 1800"),
        ("[edge.greylist]\nwindow = 60", "60 is out of range for `window`", "from 3600 to 604800"),
    ] {
        let refused = edge(&format!("[edge.lists]\n{lines}")).expect_err(lines).to_string();
        assert!(refused.contains(reason) && refused.contains(mend), "{lines}: {refused}");
    }
}

#[test]
fn the_figure_shows_the_smart_host() {
    let figure_of = |mode: &str| {
        let lines = format!("[edge.outbound]\nmode = \"{mode}\"\nrelay = \"smtp.isp.example:587\"\n[link]");
        figure(&Topology::parse(&SMALLEST.replace("[link]", &lines), "t.toml").expect("valid"))
    };
    let (relay, both) = (figure_of("relay"), figure_of("direct-then-relay"));
    let host = "  smart host  ◀─SMTP──────── │ smtp.isp.example:587, starttls";
    assert!(relay.contains(host) && !relay.contains("other MTAs  ◀"), "{relay}");
    assert!(both.contains(host) && both.contains("other MTAs  ◀"), "{both}");
}

#[test]
fn unknown_and_missing_keys_are_refused() {
    let edge = "state = \"var/edge\"";
    let with = |line: &str| format!("{edge}\n{line}");
    check(edge, &with("smpt = []"), (10, 1), "`edge.smpt` is unknown", "[edge] has: hostname, state, smtp");
    check("[link]", "[lnik]", (10, 2), "`lnik` is unknown", "the sections are: site, big, edge, link");
    check(
        edge,
        &with("ack = \"none\""),
        (10, 7),
        "`none` is unknown as a value of `ack`",
        "write ack = \"local\", \"pair\" or \"pair-or-local\"",
    );
    check("hostname = \"mx.example.com\"\n", "", (7, 2), "`edge.hostname` is missing", "add `hostname = …`");
    check("[big]\nstate = \"var/big\"\n", "", (1, 1), "the section [big] is missing", "add it");
    let half = with("tls.key = \"key.pem\"");
    check(edge, &half, (10, 1), "`edge.tls.certificate` is missing", "below [edge.tls]");
    check(edge, &with("dns = 3"), (10, 1), "`edge.dns` is a section, not a value", "a line [edge.dns]");
}

#[test]
fn bad_values_are_refused() {
    let edge = "state = \"var/edge\"";
    let with = |line: &str| format!("{edge}\n{line}");
    let number = "invalid type: string \"many\", expected i64";
    check(edge, &with("receivers = \"many\""), (10, 13), number, "write a number");
    check(edge, &with("receivers = 0"), (10, 13), "0 is out of range for `receivers`", "from 1 to 20000");
    check(
        edge,
        &with("receivers = 20001"),
        (10, 13),
        "20001 is out of range for `receivers`",
        "from 1 to 20000",
    );
    check(edge, &with("size_max = 1000"), (10, 12), "1000 is out of range for `size_max`", "from 65536");
    let high = "3601 is out of range for `login_delay`";
    check(edge, &with("login_delay = 3601"), (10, 15), high, "from 0 to 3600");
    let high = "31 is out of range for `greeting_pause`";
    check(edge, &with("greeting_pause = 31"), (10, 18), high, "from 0 to 30");
    let low = "60 is out of range for `stale_after`";
    check(edge, &with("stale_after = 60"), (10, 15), low, "from 120 to 604800");
    let low = "1048575 is out of range for `spool_max`";
    check(edge, &with("spool_max = 1_048_575"), (10, 13), low, "from 1048576 to 1125899906842624");
    let big = "state = \"var/big\"";
    let high = "1125899906842625 is out of range for `inbound_hourly`";
    check(big, &format!("{big}\ninbound_hourly = 1_125_899_906_842_625"), (7, 18), high, "from 1048576 to");
    let inside = "people cannot get to a socket in the state's folder, which is the node's alone";
    check(big, &format!("{big}\ndesk = \"var/big/desk.sock\""), (7, 8), inside, "a folder of its own");
    let dial = "dial = \"127.0.0.1:7625\"";
    for (hours, wrong) in [("0", "0 is out of range"), ("721", "721 is out of range")] {
        let line = format!("{dial}\nsafety_hours = {hours}");
        check(dial, &line, (13, 16), &format!("{wrong} for `safety_hours`"), "from 1 to 720");
    }
    let line = format!("{dial}\nsafety_bytes = 0");
    check(dial, &line, (13, 16), "0 is out of range for `safety_bytes`", "from 1048576");
    check(
        edge,
        &with("outbound.delay_notice = -1"),
        (10, 25),
        "-1 is out of range for `delay_notice`",
        "from 0",
    );
    check(edge, &with("outbound.concurrency = 0"), (10, 24), "0 is out of range for `concurrency`", "from 1");
    check(edge, &with("outbound.retry = []"), (10, 18), "`retry` lists 1 to 64 waits", "like [60, 300");
    check(edge, &with("outbound.retry = [60, 0]"), (10, 23), "0 is out of range for `retry`", "from 1");
    check(
        edge,
        &with("smtp = [\"mx:25\"]"),
        (10, 9),
        "`mx:25` is not an IP address with a port",
        "192.0.2.1:25",
    );
    let twice = with("smtp = [\"0.0.0.0:25\"]\npop3 = [\"127.0.0.1:25\"]");
    let taken = "127.0.0.1:25 is taken: another listener has 0.0.0.0:25";
    check(edge, &twice, (11, 9), taken, "a port of its own");
    check("[\"example.com\"]", "[]", (3, 11), "a site has one domain or more", "like [\"example.com\"]");
    check("[\"example.com\"]", "[\"-x.com\"]", (3, 12), "`-x.com` is not a host name", "write a name");
    let doubled = "[\"example.com\", \"EXAMPLE.com\"]";
    check("[\"example.com\"]", doubled, (3, 27), "example.com is listed twice", "leave one");
    check("\"alice\"", "\"alice@example.com\"", (4, 14), "`postmaster` is not a local name", "before the @");
    let catch_all = "\"alice\"\ncatch_all = \"all of them\"";
    check("\"alice\"", catch_all, (5, 13), "`catch_all` is not a local name", "to refuse unknown names");
    check(
        "\"var/edge\"",
        "\"var/big\"",
        (9, 9),
        "both nodes would keep their state in one folder",
        "of its own",
    );
    let name = "`mx.example.com:7625` is not an IP address with a port";
    check(
        "dial = \"127.0.0.1:7625\"",
        "dial = \"mx.example.com:7625\"",
        (12, 8),
        name,
        "big resolves no names",
    );
    check(
        "\"alice\"",
        "\"alice",
        (4, 20),
        "this is not TOML: invalid basic string, expected `\"`",
        "as TOML",
    );
}

#[test]
fn a_refusal_shows_the_line_with_a_caret() {
    let error = Topology::parse(&SMALLEST.replace("state = \"var/edge\"", "smpt = 25"), "t.toml");
    let text = error.expect_err("smpt is unknown").to_string();
    let shown: Vec<&str> = text.lines().take(4).collect();
    assert_eq!(shown, ["t.toml:9:1: `edge.smpt` is unknown", "  |", "9 | smpt = 25", "  | ^^^^"]);
    assert!(text.lines().last().is_some_and(|line| line.starts_with("  mend: ")), "{text}");
}

#[test]
fn what_is_left_out_has_defaults() {
    let topology = Topology::parse(SMALLEST, "t.toml").expect("valid");
    assert_eq!(topology.site.attachments, AttachmentMode::BreakApart);
    assert_eq!(topology.site.postmaster.to_string(), "alice@example.com");
    assert!(topology.site.catch_all.is_empty(), "who has no name here is refused");
    let edge = topology.edge;
    assert!(
        edge.smtp.is_empty()
            && edge.dns_servers.is_empty()
            && edge.certificate == CertificateSource::SelfSigned
    );
    assert_eq!((edge.receivers, edge.size_max), (50, 52_428_800));
    assert_eq!((edge.spool_max, edge.ack), (10 << 30, Acknowledge::Local));
    assert_eq!((edge.stale_after, edge.login_delay), (Duration::from_secs(600), Duration::ZERO));
    assert!(!edge.binarymime, "a sender to whom it is not offered encodes before it signs");
    assert_eq!((edge.greeting_pause, edge.sandbox), (Duration::from_secs(2), Confinement::Wanted));
    assert_eq!((topology.big.inbound_hourly, topology.big.sandbox), (10 << 30, Confinement::Wanted));
    assert_eq!((topology.link.safety_hours, topology.link.safety_bytes), (48, 1 << 30));
    assert_eq!((edge.outbound.port, edge.outbound.private_addresses), (25, false));
    let waits = [0, 1, 2, 4, 5, 900].map(|failures| edge.outbound.wait_after(failures).as_secs());
    assert_eq!(waits, [60, 60, 300, 3_600, 3_600, 3_600]);
    assert_eq!(edge.outbound.expire, Duration::from_secs(5 * 86_400));
    assert_eq!(
        (edge.outbound.delay_notice, edge.outbound.concurrency),
        (Some(Duration::from_secs(14_400)), 20)
    );
}

#[test]
fn every_way_to_acknowledge_has_its_word() {
    let ways = [Acknowledge::Local, Acknowledge::Pair, Acknowledge::PairOrLocal];
    for (word, ack) in ["local", "pair", "pair-or-local"].into_iter().zip(ways) {
        let text = SMALLEST.replace("[link]", &format!("ack = \"{word}\"\n[link]"));
        let topology = Topology::parse(&text, "t.toml").expect("valid");
        assert_eq!((topology.edge.ack, ack.as_str()), (ack, word));
    }
}

#[test]
fn every_policy_by_dmarc_has_its_word_and_sealers_are_domains() {
    let read = |section: &str| {
        let text = format!("{SMALLEST}\n[edge.authentication]\n{section}\n");
        Topology::parse(&text, "t.toml").map(|topology| topology.edge.authentication)
    };
    for dmarc in Dmarc::ALL {
        let section = format!("dmarc = \"{}\"", dmarc.as_str());
        assert_eq!(read(&section).expect("valid"), Authentication { dmarc, trusted_sealers: vec![] });
    }
    let sealers = read("trusted_sealers = [\"Lists.example\"]").expect("valid").trusted_sealers;
    assert_eq!(sealers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["lists.example"]);
    for (section, reason) in [
        ("dmarc = \"reject\"", "`reject` is unknown as a value of `dmarc`"),
        ("trusted_sealers = [\"a b\"]", "`a b`"),
        ("spf = \"record\"", "`edge.authentication.spf` is unknown"),
    ] {
        let refused = read(section).expect_err(section).to_string();
        assert!(refused.contains(reason), "{section}: {refused}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Topology::read(Path::new("/nowhere/topology.toml")).expect_err("it is not there");
    assert!(error.to_string().starts_with("/nowhere/topology.toml: "), "{error}");
}

#[test]
fn the_root_file_says_the_defaults_and_its_paths_are_beside_it() {
    let root = Topology::read(root_file()).expect("the root file is valid");
    let folder = root_file().parent().expect("it is in a folder");
    assert_eq!(root.big.state, folder.join("var/big"));
    assert_eq!(root.edge.state, folder.join("var/edge"));
    let smallest = Topology::parse(SMALLEST, "t.toml").expect("valid");
    assert_eq!(root.site, smallest.site);
    assert_eq!(root.link, smallest.link);
    assert_eq!(root.big.inbound_hourly, smallest.big.inbound_hourly);
    assert_eq!((root.big.desk, &smallest.big.desk), (None, &None));
    assert_eq!((root.edge.spool_max, root.edge.ack), (smallest.edge.spool_max, smallest.edge.ack));
    assert_eq!(root.edge.authentication, smallest.edge.authentication);
    assert_eq!(root.edge.stale_after, smallest.edge.stale_after);
    assert_eq!(root.edge.login_delay, smallest.edge.login_delay);
    assert_eq!(root.edge.greeting_pause, smallest.edge.greeting_pause);
    assert_eq!(root.edge.binarymime, smallest.edge.binarymime);
    assert!(root.edge.outbound.private_addresses, "the demonstration delivers on loopback");
    assert_eq!(Outbound { private_addresses: false, ..root.edge.outbound }, smallest.edge.outbound);
}

#[test]
fn the_figure_has_the_values_in_it() {
    let text = fs::read_to_string(root_file()).expect("the root file is there");
    let topology = Topology::parse(&text, "topology.toml").expect("valid");
    assert_eq!(figure(&topology), include_str!("figure.txt"));
}

#[test]
fn the_figure_stays_within_its_width() {
    let mut topology = Topology::parse(SMALLEST, "t.toml").expect("valid");
    topology.edge.smtp =
        vec!["[2001:db8:1234:5678:9abc:def0:1234:5678]:2525".parse().expect("an address"); 3];
    topology.big.state = PathBuf::from(format!("/srv/{}", "deep/".repeat(40)));
    let figure = figure(&topology);
    let widths: Vec<usize> = figure.lines().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width <= 100), "{figure}");
    assert!(figure.contains("deep/"), "{figure}");
}

#[test]
fn unknown_names_are_taken_by_one_for_all_domains_or_by_one_for_each() {
    let site = |line: &str| {
        let two = SMALLEST.replace("[\"example.com\"]", "[\"example.com\", \"b\u{fc}cher.example\"]");
        let text = two.replace("postmaster = \"alice\"\n", &format!("postmaster = \"alice\"\n{line}\n"));
        Topology::parse(&text, "topology.toml").map(|topology| {
            let by = topology.site.catch_all.into_iter();
            by.map(|(domain, name)| format!("{domain} {}", name.local_part())).collect::<Vec<_>>()
        })
    };
    let read = |line: &str| site(line).expect("is good");
    assert_eq!(read("catch_all = \"rest\""), ["example.com rest", "xn--bcher-kva.example rest"]);
    assert_eq!(read("catch_all = { \"B\u{fc}cher.example\" = \"bob\" }"), ["xn--bcher-kva.example bob"]);
    let section = "[site.catch_all]\n\"example.com\" = \"alice\"\n\"b\u{fc}cher.example\" = \"bob\"";
    assert_eq!(read(section), ["example.com alice", "xn--bcher-kva.example bob"]);
    for (line, reason) in [
        ("catch_all = { \"other.example\" = \"bob\" }", "not one of the site's domains"),
        ("catch_all = { \"example.com\" = \"bob@example.com\" }", "not a local name"),
        ("catch_all = { \"b\u{fc}cher.example\" = \"a\", \"xn--bcher-kva.example\" = \"b\" }", "has two"),
        ("catch_all = { \"example.com\" = 1 }", "string"),
        ("catch_all = [\"alice\"]", "a name, or a table of domains and names"),
    ] {
        let refused = site(line).expect_err(line).to_string();
        assert!(refused.contains(reason), "{line}: {refused}");
    }
}

#[test]
fn a_sandbox_is_wanted_required_or_off() {
    let with = |value: &str| {
        let text = SMALLEST.replacen("[big]\n", &format!("[big]\nsandbox = {value}\n"), 1);
        Topology::parse(&text, "t.toml").map(|topology| topology.big.sandbox)
    };
    for (value, confinement) in
        [("true", Confinement::Wanted), ("false", Confinement::Off), ("\"required\"", Confinement::Required)]
    {
        assert_eq!(with(value).expect("valid"), confinement);
    }
    for value in ["\"wanted\"", "1", "[]"] {
        let refused = with(value).expect_err("is refused").to_string();
        assert!(refused.contains("mend: write true, false or \"required\""), "{refused}");
    }
}
