//! Aggregate reports: from what the edge has counted to a mail that is signed and sent once.

use shared::aggregate::{
    AggregateReport, Counts, DmarcCount, DmarcCounts, DmarcFound, DmarcPolicy, FailureCount, FailureOptions,
    Handling, Override, PolicyCounts, PolicyKind, ResultType, SignatureFound, TlsFailure, TlsPolicy,
};
use shared::notify::Notify;
use shared::store::Table;
use shared::topology::Reports;

use super::*;
use crate::aggregate;
use crate::request::AggregateView;

/// What an edge has counted of a domain, for these mailboxes.
pub(super) fn report(domain: &str, to: &[&str]) -> AggregateReport {
    let failure = TlsFailure {
        result: ResultType::CertificateHostMismatch,
        sending_ip: Some("192.0.2.7".into()),
        host: Some(format!("mx.{domain}")),
        receiving_ip: Some("192.0.2.1".into()),
        reason: Some("it is for \"another\" name".into()),
    };
    let text = vec!["version: STSv1".into(), "mode: testing".into()];
    AggregateReport {
        id: MessageId::from_parts(
            NOW / 86_400_000 * 86_400_000,
            *blake3::hash(domain.as_bytes()).as_bytes().first_chunk().expect("ten"),
        )
        .0,
        domain: domain.into(),
        begin: NOW / 86_400_000 * 86_400 - 86_400,
        to: to.iter().map(|to| (*to).to_owned()).collect(),
        counts: Counts::Tls(vec![PolicyCounts {
            policy: TlsPolicy {
                kind: PolicyKind::Sts,
                domain: domain.into(),
                text,
                hosts: vec!["*.a.example".into()],
            },
            successes: 7,
            failures: 3,
            details: vec![FailureCount { failure, count: 3 }],
        }]),
        left_out: 2,
    }
}

fn tell(world: &World, report: AggregateReport) -> Result<(), String> {
    block_in_place(|| world.apply(&ToBig::AggregateReport(Box::new(report)), None))
}

fn listed(world: &World) -> Vec<AggregateView> {
    aggregate::list(&world.store.read().expect("reads"), 100).expect("reads")
}

fn outbound(world: &World) -> Vec<shared::unit::Outbound> {
    let outbound = |unit| match unit {
        ToEdge::Outbound(outbound) => Some(outbound),
        _ => None,
    };
    world.queued().into_iter().filter_map(outbound).collect()
}

async fn write(world: &World) {
    aggregate::write_owed(&world.store, &world.site, NOW).await.expect("writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_leaves_once_signed_and_says_what_the_rfc_asks_for() {
    let mut world = block_in_place(World::new);
    block_in_place(|| dkim::with_a_key(&mut world));
    let report = report("remote.example", &["tls@remote.example", "ops@other.example"]);
    assert_eq!(tell(&world, report.clone()), Ok(()));
    assert_eq!(listed(&world)[0].state, "to be written");
    write(&world).await;
    // The edge went back, and tells it once more; so does one that was written already.
    assert_eq!(tell(&world, report.clone()), Ok(()));
    write(&world).await;
    let [view] = listed(&world).try_into().expect("one");
    let AggregateView { id, kind, domain, to, state, .. } = view;
    assert_eq!((kind.as_str(), domain.as_str(), state.as_str()), ("tls", "remote.example", "queued, queued"));
    assert_eq!(to, report.to);
    let id: MessageId = id.parse().expect("an id");
    let rows = world.store.read().expect("reads");
    let message = rows.get::<Message>(MESSAGES, &id.0).expect("reads").expect("is there");
    assert_eq!(message.origin.reverse_path, None);
    assert_eq!(message.origin.tls_wish, TlsWish::Dispensable);
    let outbound = outbound(&world);
    let [outbound] = outbound.as_slice() else { panic!("{outbound:?}") };
    assert!(outbound.signatures.contains("d=example.com"), "{}", outbound.signatures);
    assert!(outbound.asked.iter().all(|asked| asked.notify == Some(Notify::NEVER)));
    let content = mail::content(world.store.body(message.body()).expect("is there"), &message, 1 << 20);
    let content = content.expect("readable");
    let structure = shared::mime::scan(&content).expect("can be taken apart");
    let [attached] = structure.attachments(&content).try_into().expect("one attachment");
    let document = structure.open(&content, attached.index).expect("can be opened");
    let mut json = String::new();
    use std::io::Read as _;
    flate2::read::GzDecoder::new(document.octets.as_slice()).read_to_string(&mut json).expect("compressed");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let day = shared::render::when(report.begin * 1_000)[..10].to_owned();
    let expected = serde_json::json!({
        "organization-name": "example.com",
        "date-range": {
            "start-datetime": format!("{day}T00:00:00Z"),
            "end-datetime": format!("{day}T23:59:59Z"),
        },
        "contact-info": "postmaster@example.com",
        "report-id": format!("{id}@example.com"),
        "policies": [{
            "policy": {
                "policy-type": "sts",
                "policy-string": ["version: STSv1", "mode: testing"],
                "policy-domain": "remote.example",
                "mx-host": ["*.a.example"],
            },
            "summary": { "total-successful-session-count": 7, "total-failure-session-count": 3 },
            "failure-details": [{
                "result-type": "certificate-host-mismatch",
                "sending-mta-ip": "192.0.2.7",
                "receiving-mx-hostname": "mx.remote.example",
                "receiving-ip": "192.0.2.1",
                "failed-session-count": 3,
                "failure-reason-code": "it is for \"another\" name",
            }],
        }],
    });
    assert_eq!(json, expected);
}

/// The same of mail in its name, whose senders have chosen names that are none.
fn of_mail(domain: &str) -> AggregateReport {
    let found = DmarcFound {
        source: "192.0.2.1".into(),
        disposition: Handling::Quarantine,
        dkim: false,
        spf: false,
        overridden: Some(Override::LocalPolicy),
        header_from: domain.into(),
        envelope_from: String::new(),
        signatures: vec![SignatureFound {
            domain: "k.example".into(),
            selector: "2026".into(),
            result: "fail".into(),
        }],
        spf_domain: "</spf>&".into(),
        spf_of_helo: true,
        spf_result: "softfail".into(),
    };
    let policy = DmarcPolicy {
        domain: domain.into(),
        own: Handling::Reject,
        below: Handling::Quarantine,
        dkim_strict: true,
        spf_strict: false,
        failures: FailureOptions::DkimSpf,
    };
    let records = vec![DmarcCount { found, count: 4 }];
    let counts = Counts::Dmarc(DmarcCounts { policy, records });
    AggregateReport { counts, ..report(domain, &["dmarc@remote.example"]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_of_mail_is_told_as_xml_whatever_strangers_call_themselves() {
    let mut world = block_in_place(World::new);
    block_in_place(|| dkim::with_a_key(&mut world));
    Arc::get_mut(&mut world.site).expect("nothing runs").reports = Reports { tls: false, dmarc: true };
    assert_eq!(tell(&world, of_mail("remote.example")), Ok(()));
    write(&world).await;
    assert_eq!(outbound(&world).len(), 1);
    let id: MessageId = listed(&world)[0].id.parse().expect("an id");
    let rows = world.store.read().expect("reads");
    let message = rows.get::<Message>(MESSAGES, &id.0).expect("reads").expect("is there");
    let content = mail::content(world.store.body(message.body()).expect("is there"), &message, 1 << 20);
    let content = content.expect("readable");
    let text = String::from_utf8_lossy(&content);
    let subject = "Subject: Report Domain: remote.example Submitter: example.com";
    assert!(text.contains(subject) && text.contains("Content-Type: application/gzip\r\n"), "{text}");
    assert!(!text.contains("TLS-Required"), "{text}");
    let day = of_mail("remote.example").begin;
    let name = format!("filename=\"example.com!remote.example!{day}!{}!{id}.xml.gz\"", day + 86_399);
    assert!(text.contains(&name), "{text}");
    let structure = shared::mime::scan(&content).expect("can be taken apart");
    let [attached] = structure.attachments(&content).try_into().expect("one attachment");
    let document = structure.open(&content, attached.index).expect("can be opened");
    let mut xml = String::new();
    use std::io::Read as _;
    flate2::read::GzDecoder::new(document.octets.as_slice()).read_to_string(&mut xml).expect("compressed");
    let lines: Vec<_> = xml.lines().map(str::trim).collect();
    let at =
        |line: &str| lines.iter().position(|other| *other == line).unwrap_or_else(|| panic!("{line}: {xml}"));
    let order = [
        "<feedback>",
        "<version>1.0</version>",
        "<report_metadata>",
        "<org_name>example.com</org_name>",
        "<policy_published>",
        "<adkim>s</adkim>",
        "<aspf>r</aspf>",
        "<p>reject</p>",
        "<sp>quarantine</sp>",
        "<fo>d:s</fo>",
        "<source_ip>192.0.2.1</source_ip>",
        "<count>4</count>",
        "<disposition>quarantine</disposition>",
        "<type>local_policy</type>",
        "<envelope_from></envelope_from>",
        "<header_from>remote.example</header_from>",
        "<domain>k.example</domain>",
        "<selector>2026</selector>",
        "<domain>&lt;/spf&gt;&amp;</domain>",
        "<scope>helo</scope>",
        "<result>softfail</result>",
        "</feedback>",
    ];
    assert!(order.map(at).is_sorted(), "{xml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_signed_is_not_sent_and_the_list_says_so() {
    let world = block_in_place(World::new);
    assert_eq!(tell(&world, report("remote.example", &["tls@remote.example"])), Ok(()));
    write(&world).await;
    let state = listed(&world)[0].state.clone();
    assert!(state.contains("dkim keygen"), "{state}");
    assert_eq!(outbound(&world).len(), 0);
    // One of our own domains is told inside, where nothing is signed.
    assert_eq!(tell(&world, report("example.com", &["alice@example.com"])), Ok(()));
    write(&world).await;
    assert!(listed(&world).iter().any(|view| view.state == "sent"), "{:?}", listed(&world));
}

/// With what it counts changed.
fn with_policy(change: impl FnOnce(&mut PolicyCounts)) -> AggregateReport {
    let mut report = report("remote.example", &["tls@remote.example"]);
    let Counts::Tls(policies) = &mut report.counts else { panic!("{report:?}") };
    change(&mut policies[0]);
    report
}

#[test]
fn an_edge_has_no_report_sent_that_is_none() {
    let world = World::new();
    let good = || report("remote.example", &["tls@remote.example"]);
    let day = good().begin;
    for bad in [
        AggregateReport { to: Vec::new(), ..good() },
        AggregateReport { to: vec!["a@b.example".into(); 3], ..good() },
        AggregateReport { to: vec!["a@b.example\r\nBcc: c@d.example".into()], ..good() },
        AggregateReport { domain: "a\r\nb".into(), ..good() },
        AggregateReport { begin: day + 1, ..good() },
        AggregateReport { begin: u64::MAX / 86_400 * 86_400, ..good() },
        AggregateReport { begin: (NOW / 86_400_000 + 30) * 86_400, ..good() },
        AggregateReport { begin: day - 86_400, ..good() },
        AggregateReport { id: MessageId::from_parts(u64::MAX >> 16, [0; 10]).0, ..good() },
        with_policy(|counts| counts.policy.domain = "buy this".into()),
        with_policy(|counts| counts.policy.hosts = vec!["see http://evil.example".into()]),
        with_policy(|counts| counts.policy.text = vec!["x".repeat(1_000)]),
        with_policy(|counts| counts.details[0].failure.reason = Some("a\nb".into())),
        with_policy(|counts| counts.details[0].failure.sending_ip = Some("call 555".into())),
    ] {
        assert!(tell(&world, bad.clone()).is_err(), "{bad:?}");
    }
    assert_eq!(listed(&world), []);
    assert_eq!(tell(&world, good()), Ok(()));
}

#[test]
fn what_is_not_wanted_too_late_or_too_much_is_taken_and_not_sent() {
    let mut world = World::new();
    let domain = |n: u32| report(&format!("d{n}.example"), &[&format!("a@d{n}.example")]);
    // A refused unit would be a dead letter of an edge that has done nothing wrong.
    assert_eq!(tell(&world, of_mail("remote.example")), Ok(()));
    assert!(listed(&world)[0].state.contains("[edge.reports]"), "{:?}", listed(&world));
    Arc::get_mut(&mut world.site).expect("nothing runs").reports = Reports { tls: false, dmarc: true };
    assert_eq!(tell(&world, domain(0)), Ok(()));
    Arc::get_mut(&mut world.site).expect("nothing runs").reports = Reports { tls: true, dmarc: true };
    let late = domain(1);
    let ends = (late.begin - 7 * 86_400 + 86_400) * 1_000;
    let id = MessageId::from_parts(ends, [1; 10]).0;
    assert_eq!(tell(&world, AggregateReport { id, begin: ends / 1_000 - 86_400, ..late }), Ok(()));
    assert!(listed(&world).iter().any(|view| view.state.contains("too long")), "{:?}", listed(&world));
    for n in 3..5_000 {
        assert_eq!(tell(&world, domain(n)), Ok(()));
    }
    let sent = |world: &World| {
        let rows = world.store.read().expect("reads");
        (rows.count(Table("aggregate-reports")), rows.count(Table("aggregate-reports-owed")))
    };
    let counts = |world: &World| {
        let (all, owed) = sent(world);
        (all.expect("counts"), owed.expect("counts"))
    };
    assert_eq!(counts(&world), (5_000, 4_997));
    assert_eq!(tell(&world, domain(6_000)), Ok(()), "one too many for a day");
    assert_eq!(counts(&world), (5_000, 4_997));
}

#[test]
fn nobody_gets_ever_more_reports_because_strangers_name_them() {
    let world = World::new();
    let victims = ["victim@x.example", "victim2@x.example"];
    for n in 0..60 {
        let tagged = [format!("victim+{n}@x.example"), "victim2@x.example".to_owned()];
        let to: [&str; 2] = [&tagged[0], &tagged[1]];
        assert_eq!(tell(&world, report(&format!("s{n}.evil.example"), &to)), Ok(()));
    }
    let is_unsent = |view: &&AggregateView| view.state.contains("too many today");
    assert_eq!(listed(&world).iter().filter(is_unsent).count(), 10);
    // Who is told of their own domain is told all the same.
    assert_eq!(tell(&world, report("x.example", &victims)), Ok(()));
    assert_eq!(tell(&world, report("a.example", &["victim@x.example", "r@mail.a.example"])), Ok(()));
    let listed = listed(&world);
    let to = |domain: &str| listed.iter().find(|view| view.domain == domain).map(|view| view.to.clone());
    assert_eq!(to("x.example").as_deref(), Some(&victims.map(String::from)[..]));
    assert_eq!(to("a.example").as_deref(), Some(&["r@mail.a.example".to_owned()][..]));
    // Nor all of a domain.
    for n in 0..600 {
        let to = format!("v{n}@y.example");
        assert_eq!(tell(&world, report(&format!("s{n}.bad.example"), &[&to])), Ok(()));
    }
    let rows = world.store.read().expect("reads");
    assert_eq!(rows.count(Table("aggregate-reports-owed")).expect("counts"), 50 + 2 + 500);
}

/// A row of a version that this one cannot read.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Unreadable(u64);
shared::row!(Unreadable, 99);

const OWED: Table = Table("aggregate-reports-owed");

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_read_keeps_no_other_waiting() {
    let mut world = block_in_place(World::new);
    block_in_place(|| dkim::with_a_key(&mut world));
    for domain in ["a.example", "b.example"] {
        assert_eq!(tell(&world, report(domain, &[&format!("tls@{domain}")])), Ok(()));
    }
    let damage = world.store.commit(|txn| {
        let key = txn.keys(OWED, &[], 1)?.remove(0);
        txn.put(OWED, &key, &Unreadable(7))
    });
    let damaged: Result<_, shared::store::StoreError> = damage.await;
    damaged.expect("commits");
    write(&world).await;
    let states: Vec<_> = listed(&world).into_iter().map(|view| view.state).collect();
    assert!(states.iter().any(|state| state.contains("damaged")), "{states:?}");
    assert!(states.iter().any(|state| state == "queued"), "{states:?}");
    assert_eq!(world.store.read().expect("reads").count(OWED).expect("counts"), 0);
}

#[test]
fn a_count_or_a_row_that_cannot_be_read_keeps_nothing_waiting() {
    let world = World::new();
    let damage = |table: &'static str, key: Vec<u8>| {
        let damaged = world.store.commit_blocking(move |txn| txn.put(Table(table), &key, &Unreadable(7)));
        damaged.expect("commits");
    };
    assert_eq!(tell(&world, report("a.example", &["r@elsewhere.example"])), Ok(()));
    let first =
        world.store.read().and_then(|rows| rows.keys(Table("aggregate-reports"), &[], 1)).expect("reads");
    damage("aggregate-reports", first[0].clone());
    damage("aggregate-reports-taken", Vec::new());
    let day = (NOW / 86_400_000).to_be_bytes();
    for name in ["r@elsewhere.example", "elsewhere.example"] {
        damage("aggregate-reports-sent", [day.as_slice(), name.as_bytes()].concat());
    }
    assert_eq!(tell(&world, report("b.example", &["r@elsewhere.example"])), Ok(()));
    assert_eq!(listed(&world).into_iter().map(|view| view.domain).collect::<Vec<_>>(), ["b.example"]);
}

#[test]
fn a_clock_that_is_behind_makes_no_enemy_of_the_edge() {
    let world = World::new();
    let day = NOW / 86_400_000 + 30;
    let report = AggregateReport {
        id: MessageId::from_parts((day + 1) * 86_400_000, [1; 10]).0,
        begin: day * 86_400,
        ..report("a.example", &["r@a.example"])
    };
    assert_eq!(tell(&world, report), Ok(()));
    assert_eq!(listed(&world), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_cannot_be_written_wait_for_a_day_and_keep_no_other_waiting() {
    let mut world = block_in_place(World::new);
    block_in_place(|| dkim::with_a_key(&mut world));
    world.site_with_postmaster("nobody");
    // Nobody of ours has that name, and there is no postmaster to take it.
    for n in 0..25 {
        let domain = format!("s{n}.evil.example");
        assert_eq!(tell(&world, report(&domain, &["nobody@example.com"])), Ok(()));
    }
    assert_eq!(tell(&world, report("good.example", &["tls@good.example"])), Ok(()));
    let at = |now| aggregate::write_owed(&world.store, &world.site, now);
    at(NOW).await.expect("goes on");
    at(NOW).await.expect("goes on");
    assert_eq!(outbound(&world).len(), 1, "the good one");
    let count = || world.store.read().expect("reads").count(OWED).expect("counts");
    assert_eq!(count(), 25);
    let keys = || world.store.read().expect("reads").keys(OWED, &[], 99).expect("reads");
    let before = keys();
    at(NOW + 60_000).await.expect("goes on");
    assert_eq!(keys(), before, "none is tried again so soon");
    for _ in 0..2 {
        at(NOW + 25 * 3_600_000).await.expect("goes on");
    }
    assert_eq!(count(), 0);
    let given_up =
        listed(&world).iter().filter(|view| view.state.contains("not sent: there is no postmaster")).count();
    assert_eq!(given_up, 25, "{:?}", listed(&world));
}

#[test]
fn old_reports_are_forgotten_and_what_is_owed_is_not() {
    let world = World::new();
    assert_eq!(tell(&world, report("a.example", &["tls@b.example"])), Ok(()));
    const DAY: u64 = 86_400_000;
    for (later, left) in [(29 * DAY, 1), (39 * DAY, 0)] {
        world.store.commit_blocking(move |txn| aggregate::forget_old(txn, NOW + later)).expect("commits");
        assert_eq!(listed(&world).len(), left);
        let rows = world.store.read().expect("reads");
        assert_eq!(rows.count(OWED).expect("counts"), 1);
        assert_eq!(rows.count(Table("aggregate-reports-sent")).expect("counts"), 0);
    }
}
