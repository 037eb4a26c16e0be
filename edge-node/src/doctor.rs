//! `doctor`: what a new administrator gets wrong, found before others do, with the records that mend it.
//!
//! It asks the configured resolvers, this edge's own addresses and the running node, and nobody else. `asked` asks,
//! `certificate` reads ours, `firewall` says which ports mail needs; what is found is judged here, without I/O.

mod asked;
mod certificate;
mod firewall;

use std::net::{IpAddr, SocketAddr};

use mail_auth::SpfResult;
use shared::address::Domain;
use shared::doctor::{Finding, txt};
use shared::render::when;
use shared::topology::{Edge, Mode, SmartHost};

use crate::authentication::spf_word;
use crate::delivery::{Ourselves, Passing, SIGNATURES_MEND, is_public};
use crate::request::OutwardView;

pub use asked::{Running, examine};

/// How far this clock may be from big's, in milliseconds: mail is dated, and signatures and windows end by it.
const CLOCK_BORNE: u64 = 60_000;
/// From when on travel windows are not ended by a clock that is apart.
const CLOCK_WRONG: u64 = 3_600_000;
/// Addresses of other hosts that are silent by no chance any more.
const SILENT_MANY: usize = 3;
/// What is said where DNS is silent.
const ASK_AGAIN: &str = "see [edge.dns], and ask again";

/// What DNS answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer<T> {
    /// This; it may be nothing.
    Told(T),
    /// No answer now: why.
    Silent(String),
}

/// A finding where DNS gives no answer.
fn silent(about: String, why: &str) -> Finding {
    Finding::warning(about, format!("DNS gives no answer: {why}"), ASK_AGAIN)
}

/// What a resolver does with the records of DNSSEC, by which hosts that mail goes to prove themselves.
fn signatures(server: SocketAddr, passing: &Passing) -> Finding {
    let about = format!("DNSSEC by {server}");
    match passing {
        Passing::Passes => Finding::ok(about, "passes signatures on"),
        Passing::Strips => {
            let found = "passes no DNSSEC records on: nothing that it says is proved, and mail waits (4.7.5)";
            Finding::wrong(about, found, SIGNATURES_MEND)
        }
        Passing::Unknown(why) => silent(about, why),
    }
}

/// One of our addresses, as DNS has them.
#[derive(Clone, Debug)]
struct OwnAddress {
    address: IpAddr,
    /// It is on the Internet.
    is_public: bool,
    /// This host has it itself; nothing translates it.
    is_here: bool,
    /// It was connected to. What is neither on the Internet nor here nor allowed is somebody else's, whatever DNS says.
    is_asked: bool,
    /// The names that DNS has for it, and whether each leads back to it.
    names: Answer<Vec<(String, bool)>>,
    /// What is said at its port for other MTAs; `None` if nothing is.
    greeting: Option<String>,
}

fn own_addresses(edge: &Edge, found: &Answer<Vec<OwnAddress>>) -> Vec<Finding> {
    let hostname = &edge.hostname;
    let about = format!("addresses of {hostname}");
    let own = match found {
        Answer::Silent(why) => return vec![silent(about, why)],
        Answer::Told(own) => own,
    };
    if own.is_empty() {
        let private = edge.outbound.private_addresses;
        let may_be_ours = |ip: &IpAddr| is_public(*ip) || private && !ip.is_unspecified();
        let known = edge.smtp.iter().map(|at| at.ip()).find(may_be_ours);
        let (kind, address) = match known {
            Some(ip) => (if ip.is_ipv4() { "A" } else { "AAAA" }, ip.to_string()),
            None => ("A", "192.0.2.1 ; this host's public address".to_owned()),
        };
        let mend = "add an address record; without it nobody finds this edge";
        return vec![
            Finding::wrong(about, "it has none", mend).record(format!("{hostname}. IN {kind} {address}")),
        ];
    }
    let list: Vec<_> = own.iter().map(|own| own.address.to_string()).collect();
    let inside: Vec<_> = own.iter().filter(|own| !own.is_public).map(|own| own.address.to_string()).collect();
    let mut findings = vec![match inside.is_empty() || edge.outbound.private_addresses {
        true => Finding::ok(about, list.join(", ")),
        false => {
            let found = format!("{} cannot be reached from the Internet", inside.join(", "));
            Finding::wrong(about, found, "publish the address that the Internet has for this edge")
        }
    }];
    findings.extend(own.iter().flat_map(|own| [name_of(hostname, own), greeting_of(edge, own)]));
    findings
}

fn name_of(hostname: &Domain, own: &OwnAddress) -> Finding {
    let (about, address) = (format!("PTR of {}", own.address), own.address);
    let names = match &own.names {
        Answer::Silent(why) => return silent(about, why),
        Answer::Told(names) => names,
    };
    let mend = format!("ask whoever gave you {address} for this record: many hosts take no mail without it");
    let record = format!("{}. IN PTR {hostname}.", asked::reversed(address));
    let is_ours = |name: &str| name.eq_ignore_ascii_case(hostname.as_str());
    match names.iter().find(|(_, leads_back)| *leads_back) {
        Some((name, _)) if is_ours(name) => Finding::ok(about, format!("{name}, which leads back to it")),
        Some((name, _)) => {
            let found = format!("{name} leads back to it, and this edge says that it is {hostname}");
            Finding::warning(about, found, "let both be one name").record(record)
        }
        None if names.is_empty() => Finding::wrong(about, "there is none", mend).record(record),
        None => {
            let names: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
            Finding::wrong(about, format!("{} does not lead back to it", names.join(", ")), mend)
                .record(record)
        }
    }
}

fn greeting_of(edge: &Edge, own: &OwnAddress) -> Finding {
    let (port, hostname) = (edge.outbound.port, &edge.hostname);
    let about = format!("port {port} of {}", own.address);
    match &own.greeting {
        Some(text) if greets_as(text, hostname) => Finding::ok(about, format!("greets as {hostname}")),
        Some(text) if text.starts_with("421") => {
            Finding::warning(about, format!("refuses sessions: {text}"), "see `edge-node link status`")
        }
        Some(text) => {
            let mend = "another server is there, or [edge] hostname is not the name that it says";
            Finding::wrong(about, format!("it says {text:?}"), mend)
        }
        None if !own.is_asked => {
            let mend = "publish the address that the Internet has for this edge";
            Finding::unchecked(about, "neither on the Internet nor this host's: it is not connected to", mend)
        }
        None if own.is_here => {
            let mend =
                format!("run `edge-node serve` with [edge] smtp on port {port}, or forward that port to it");
            Finding::wrong(about, "nobody answers", mend)
        }
        None => {
            let mend =
                "an address that is translated often cannot be reached from behind it; try from outside";
            Finding::warning(about, "nobody answers from here", mend)
        }
    }
}

/// Whether a greeting is that of `hostname` (RFC 5321 §4.2).
fn greets_as(text: &str, hostname: &Domain) -> bool {
    let mut words = text.split(' ');
    words.next() == Some("220")
        && words.next().is_some_and(|name| name.eq_ignore_ascii_case(hostname.as_str()))
}

/// What was asked about one of the site's domains.
#[derive(Clone, Debug)]
struct OfDomain {
    domain: Domain,
    /// Its MX records: preference, host, and whether that name is an alias.
    exchangers: Answer<Vec<(u16, String, bool)>>,
    /// For each own address what SPF says.
    spf: Vec<(IpAddr, SpfResult)>,
    /// For each selector that was named, what is wrong with its key; `None` is nothing.
    keys: Vec<(String, Answer<Option<String>>)>,
    /// Whether the policy is to do nothing, or what is wrong.
    dmarc: Answer<Result<bool, String>>,
    /// What is wrong with the record of MTA-STS; an empty text if there is none.
    mta_sts: Answer<Result<(), String>>,
    /// The same for TLS reports.
    tls_reports: Answer<Result<(), String>>,
}

/// `is_trusted` says that others can check our certificate.
fn of_domain(edge: &Edge, of: &OfDomain, is_trusted: bool) -> Vec<Finding> {
    let domain = &of.domain;
    let mut findings = vec![exchangers(edge, of)];
    findings.extend(of.spf.iter().map(|(address, result)| sender_policy(edge, domain, *address, *result)));
    for (selector, key) in &of.keys {
        let about = format!("DKIM key {selector} of {domain}");
        let mend = "add or mend the record that `big-node dkim list` prints";
        findings.push(match key {
            Answer::Silent(why) => silent(about, why),
            Answer::Told(None) => Finding::ok(about, "is there and can be read"),
            Answer::Told(Some(fault)) => Finding::wrong(about, fault, mend),
        });
    }
    if of.keys.is_empty() {
        let mend =
            "name with --selector those that sign by `big-node dkim list`, or look with `big-node doctor`";
        findings.push(Finding::unchecked(
            format!("DKIM keys of {domain}"),
            "which there are is known inside",
            mend,
        ));
    }
    let name = format!("_dmarc.{domain}");
    let record = txt(&name, &format!("v=DMARC1; p=none; rua=mailto:postmaster@{domain}"));
    let about = format!("DMARC of {domain}");
    findings.push(match &of.dmarc {
        Answer::Silent(why) => silent(about, why),
        Answer::Told(Ok(false)) => Finding::ok(about, "is there, and asks others to act"),
        Answer::Told(Ok(true)) => Finding::ok(about, "is there, and only asks others to report (p=none)"),
        Answer::Told(Err(none)) if none.is_empty() => {
            Finding::warning(about, "there is none", "some hosts want one; begin with p=none").record(record)
        }
        Answer::Told(Err(fault)) => {
            Finding::wrong(about, fault, "let there be one record, like this").record(record)
        }
    });
    findings.push(mta_sts(edge, of, is_trusted));
    let record = txt(&format!("_smtp._tls.{domain}"), &format!("v=TLSRPTv1; rua=mailto:postmaster@{domain}"));
    findings.push(optional(
        format!("TLS reports of {domain}"),
        &of.tls_reports,
        "others can then tell where TLS fails",
        &record,
    ));
    findings
}

fn exchangers(edge: &Edge, of: &OfDomain) -> Finding {
    let (about, hostname) = (format!("MX of {}", of.domain), &edge.hostname);
    let found = match &of.exchangers {
        Answer::Silent(why) => return silent(about, why),
        Answer::Told(found) => found,
    };
    let record = format!("{}. IN MX 10 {hostname}.", of.domain);
    let is_ours = |name: &str| name.eq_ignore_ascii_case(hostname.as_str());
    let list: Vec<_> = found.iter().map(|(_, name, _)| name.as_str()).collect();
    if let Some((_, name, _)) = found.iter().find(|(.., is_alias)| *is_alias) {
        let found = format!("{name} is an alias, which an MX may not be (RFC 5321 §5.1)");
        return Finding::wrong(about, found, "name the host itself").record(record);
    }
    if found.is_empty() {
        return Finding::wrong(about, "there is none", "without it, mail goes to the domain's own address")
            .record(record);
    }
    if !list.iter().any(|name| is_ours(name)) {
        let found = format!("mail goes to {}", list.join(", "));
        return Finding::wrong(about, found, "let it come here, or forward it from there").record(record);
    }
    let others: Vec<_> = list.into_iter().filter(|name| !is_ours(name)).collect();
    match others.is_empty() {
        true => Finding::ok(about, "leads here"),
        false => {
            let found = format!("leads here, and also to {}", others.join(", "));
            Finding::warning(about, found, "see that those know who is here, and hand mail on")
        }
    }
}

fn sender_policy(edge: &Edge, domain: &Domain, address: IpAddr, result: SpfResult) -> Finding {
    let about = format!("SPF of {domain} for {address}");
    let by_relay = !matches!(edge.outbound.mode, Mode::Direct);
    let policy = if by_relay { "v=spf1 mx include:YOUR-SMART-HOST ~all" } else { "v=spf1 mx -all" };
    let record = txt(domain.as_str(), policy);
    let mend = "add one record, or add `mx` to the one that there is";
    let relayed = "; name what your smart host sends from, too, as it tells you";
    let mend = format!("{mend}{}", if by_relay { relayed } else { "" });
    match result {
        SpfResult::Pass => Finding::ok(about, "lets it send"),
        SpfResult::TempError => silent(about, "not in time"),
        // All mail leaves from the smart host.
        SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral
            if matches!(edge.outbound.mode, Mode::Relay(_)) =>
        {
            Finding::unchecked(
                about,
                "does not let it send, and all leaves by the smart host",
                "see that it lets that one send",
            )
        }
        SpfResult::Neutral | SpfResult::SoftFail => {
            Finding::warning(about, format!("does not clearly let it send ({})", spf_word(result)), mend)
        }
        SpfResult::None => Finding::wrong(about, "there is none", mend).record(record),
        SpfResult::Fail => Finding::wrong(about, "does not let it send: others refuse what does", mend),
        SpfResult::PermError => {
            let found = "cannot be evaluated: it is not well-formed, there are two, or it asks for too much";
            Finding::wrong(about, found, "let there be one record, with 10 names to look up at most")
                .record(record)
        }
    }
}

fn mta_sts(edge: &Edge, of: &OfDomain, is_trusted: bool) -> Finding {
    let (domain, hostname) = (&of.domain, &edge.hostname);
    let about = format!("MTA-STS of {domain}");
    if let (Answer::Told(Ok(())), false) = (&of.mta_sts, is_trusted) {
        let mend = "get a certificate for [edge.tls] that others can check, or remove the record";
        return Finding::wrong(
            about,
            "it is there, and hosts that heed it do not take our certificate",
            mend,
        );
    }
    if !is_trusted {
        return Finding::unchecked(about, "it needs a certificate that others can check", "");
    }
    let policy = format!("https://mta-sts.{domain}/.well-known/mta-sts.txt");
    if let Answer::Told(Ok(())) = &of.mta_sts {
        let mend = format!("see that the policy at {policy} names {hostname}");
        return Finding::unchecked(about, "the record is there", mend);
    }
    let why = format!(
        "with it others insist on TLS; it needs a web server: {policy} with the lines `version: STSv1`, `mode: testing`, \
         `mx: {hostname}`, `max_age: 604800`"
    );
    optional(about, &of.mta_sts, &why, &txt(&format!("_mta-sts.{domain}"), "v=STSv1; id=1"))
}

/// Of something that need not be there; `why` it is good to have.
fn optional(about: String, found: &Answer<Result<(), String>>, why: &str, record: &str) -> Finding {
    match found {
        Answer::Silent(why) => silent(about, why),
        Answer::Told(Ok(())) => Finding::ok(about, "is there"),
        Answer::Told(Err(none)) if none.is_empty() => {
            Finding::warning(about, "there is none, and need not be", why).record(record)
        }
        Answer::Told(Err(fault)) => {
            Finding::wrong(about, fault, "let there be one record, like this").record(record)
        }
    }
}

/// A TLSA record: usage, selector, matching, data.
type Association = (u8, u8, u8, Vec<u8>);

/// `key_hash` is that of our certificate's key, `certificate_hash` that of the certificate.
fn associations(edge: &Edge, found: &Answer<Vec<Association>>, key_hash: &[u8; 32]) -> Finding {
    let (port, hostname) = (edge.outbound.port, &edge.hostname);
    let name = format!("_{port}._tcp.{hostname}");
    let hash: String = key_hash.iter().map(|octet| format!("{octet:02x}")).collect();
    let (about, record) = (format!("TLSA of {name}"), format!("{name}. IN TLSA 3 1 1 {hash}"));
    let found = match found {
        Answer::Silent(why) => return silent(about, why),
        Answer::Told(found) => found,
    };
    if found.is_empty() {
        let why = "with it, and a zone that is signed (DNSSEC), others can be sure of our certificate, whoever made it (DANE)";
        return Finding::warning(about, "there is none, and need not be", why).record(record);
    }
    let of_key = |(usage, selector, matching, data): &Association| {
        (*usage, *selector, *matching) == (3, 1, 1) && data.as_slice() == key_hash
    };
    let is_other = |(usage, selector, matching, _): &Association| (*usage, *selector, *matching) != (3, 1, 1);
    if found.iter().any(of_key) {
        Finding::ok(about, "names our certificate's key")
    } else if found.iter().any(is_other) {
        // One that fits is enough (RFC 7672 §3.1).
        Finding::unchecked(
            about,
            "does not name our certificate's key by its hash (3 1 1), and has records of other kinds",
            "see that it fits our certificate",
        )
        .record(record)
    } else {
        let mend = "add this one before the certificate is changed: hosts that heed it send no mail here";
        Finding::wrong(about, "names another key than our certificate's", mend).record(record)
    }
}

/// How far our clock is ahead of big's, in milliseconds, if big has said what its is.
fn clock(ahead: Option<i64>) -> Finding {
    let Some(ahead) = ahead else {
        return Finding::unchecked(
            "clock",
            "big has not said lately what its clock is",
            "see that the link is up",
        );
    };
    let found = format!(
        "{:.1} s {} big's",
        ahead.unsigned_abs() as f64 / 1000.0,
        if ahead < 0 { "behind" } else { "ahead of" }
    );
    let mend = "let both nodes keep time by NTP; see which is right";
    match ahead.unsigned_abs() {
        0..=CLOCK_BORNE => Finding::ok("clock", found),
        apart if apart <= CLOCK_WRONG => Finding::warning("clock", found, mend),
        _ => Finding::wrong("clock", found, mend),
    }
}

/// Whether the smart host is this host itself, by its addresses.
fn smart_host(host: &SmartHost, addresses: &Answer<Vec<SocketAddr>>, ours: &Ourselves) -> Finding {
    let about = format!("smart host {}", host.place);
    let addresses = match addresses {
        Answer::Told(addresses) => addresses,
        Answer::Silent(why) => return silent(about, why),
    };
    match addresses.iter().find(|address| ours.is_reached_at(**address)) {
        Some(address) => Finding::wrong(
            about,
            format!("it is this edge itself, at {address}, and mail would go round"),
            "`relay` in [edge.outbound] has to name the host that takes mail for everywhere",
        ),
        None if addresses.is_empty() => {
            Finding::wrong(about, "it has no address", "see `relay` in [edge.outbound], and its name in DNS")
        }
        None => Finding::ok(about, "is no address of this host"),
    }
}

/// Whether mail can leave, by what attempts have seen: nobody is asked for it.
fn outward_port(edge: &Edge, seen: Option<OutwardView>) -> Finding {
    let port = edge.outbound.port;
    let about = format!("port {port} outward");
    let by_hand = match &edge.outbound.mode {
        Mode::Direct => format!(
            "try `nc -v` to that port of any mail host: many providers block TCP {port} until they are asked"
        ),
        Mode::Relay(host) => {
            return Finding::ok(
                about,
                format!("it is not needed: all mail goes to the smart host {}", host.place),
            );
        }
        Mode::DirectThenRelay(host) => {
            format!("no host but our own is asked here; try `nc -v` to the smart host ({})", host.place)
        }
    };
    let OutwardView { reached_at, silent, silent_since } = seen.unwrap_or_default();
    match (reached_at, silent_since) {
        (_, Some(since)) if silent >= SILENT_MANY => {
            let found = format!(
                "since {} UTC none of {silent} addresses of other hosts has answered: it is probably blocked, by a firewall or \
                 the provider",
                when(since)
            );
            let mend = format!("let TCP {port} out, or ask the provider to; {by_hand}");
            Finding::warning(about, found, mend)
        }
        (Some(at), _) => Finding::ok(about, format!("a host was reached {} UTC", when(at))),
        (None, Some(_)) => {
            let found = format!("{silent} addresses of other hosts did not answer, and none has yet");
            Finding::unchecked(about, found, by_hand)
        }
        (None, None) => Finding::unchecked(about, "no mail has shown it since the edge was started", by_hand),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use shared::doctor::State;
    use shared::listener::TlsIdentity;
    use shared::topology::{SMALLEST, Topology};

    use super::*;
    use crate::request::CertificateView;

    fn edge(private: bool) -> Edge {
        edge_with(&format!("private_addresses = {private}"))
    }

    fn edge_with(outbound: &str) -> Edge {
        let outbound = format!("[edge.outbound]\n{outbound}\n[link]");
        Topology::parse(&SMALLEST.replace("[link]", &outbound), "t.toml").expect("valid").edge
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_resolver_that_keeps_signatures_back_is_wrong_and_what_mends_it_is_said() {
        let of = |passing: &Passing| signatures("192.0.2.53:53".parse().expect("an address"), passing);
        assert_eq!(of(&Passing::Passes).state, State::Ok);
        assert_eq!(of(&Passing::Unknown("timed out".into())).state, State::Warning);
        let wrong = of(&Passing::Strips);
        assert_eq!((wrong.state, wrong.about.as_str()), (State::Wrong, "DNSSEC by 192.0.2.53:53"));
        assert!(wrong.mend.contains("[edge.dns] `servers`") && wrong.mend.contains("`dnssec = false`"));
    }

    fn good_address() -> OwnAddress {
        OwnAddress {
            address: address("192.0.2.1"),
            is_public: true,
            is_here: true,
            is_asked: true,
            names: Answer::Told(vec![("MX.example.com".into(), true)]),
            greeting: Some("220 mx.example.com ESMTP Sallypost".into()),
        }
    }

    fn good_domain() -> OfDomain {
        OfDomain {
            domain: "example.com".parse().expect("a domain"),
            exchangers: Answer::Told(vec![(10, "mx.example.com".into(), false)]),
            spf: vec![(address("192.0.2.1"), SpfResult::Pass)],
            keys: vec![("k".into(), Answer::Told(None))],
            dmarc: Answer::Told(Ok(false)),
            mta_sts: Answer::Told(Ok(())),
            tls_reports: Answer::Told(Ok(())),
        }
    }

    /// The states of the findings, and all that they say.
    fn told(findings: &[Finding]) -> (Vec<State>, String) {
        (findings.iter().map(|finding| finding.state).collect(), shared::doctor::text(findings))
    }

    #[test]
    fn own_addresses_are_public_named_and_answered_by_us() {
        let of = |change: fn(&mut OwnAddress)| {
            let mut own = good_address();
            change(&mut own);
            told(&own_addresses(&edge(false), &Answer::Told(vec![own])))
        };
        let (ok, wrong, warning) = (State::Ok, State::Wrong, State::Warning);
        assert_eq!(of(|_| {}).0, [ok, ok, ok]);
        let (states, text) = of(|own| own.is_public = false);
        assert_eq!(states, [wrong, ok, ok]);
        assert!(text.contains("192.0.2.1 cannot be reached from the Internet"), "{text}");
        let (states, text) = of(|own| own.names = Answer::Told(Vec::new()));
        assert_eq!(states, [ok, wrong, ok]);
        assert!(text.contains("\n1.2.0.192.in-addr.arpa. IN PTR mx.example.com.\n"), "{text}");
        assert_eq!(
            of(|own| own.names = Answer::Told(vec![("mx.example.com".into(), false)])).0,
            [ok, wrong, ok]
        );
        let other = |own: &mut OwnAddress| own.names = Answer::Told(vec![("host7.isp.example".into(), true)]);
        assert_eq!(of(other).0, [ok, warning, ok]);
        assert_eq!(of(|own| own.names = Answer::Silent("timed out".into())).0, [ok, warning, ok]);
        assert_eq!(of(|own| own.greeting = Some("220 other.example ESMTP".into())).0, [ok, ok, wrong]);
        assert_eq!(of(|own| own.greeting = Some("421 4.3.1 no room".into())).0, [ok, ok, warning]);
        assert_eq!(of(|own| own.greeting = None).0, [ok, ok, wrong]);
        let translated = |own: &mut OwnAddress| (own.greeting, own.is_here) = (None, false);
        assert_eq!(of(translated).0, [ok, ok, warning], "nothing proves that it is wrong");
        let elsewhere = |own: &mut OwnAddress| {
            (own.greeting, own.is_public, own.is_here, own.is_asked) = (None, false, false, false);
        };
        assert_eq!(of(elsewhere).0, [wrong, ok, State::Unchecked]);
        let (states, text) = told(&own_addresses(&edge(false), &Answer::Told(Vec::new())));
        assert_eq!(states, [wrong]);
        assert!(text.contains("mx.example.com. IN A 192.0.2.1 ; this host's public address"), "{text}");
        let listening = |at: &str| Edge { smtp: vec![at.parse().expect("an address")], ..edge(false) };
        for (at, record) in [
            ("127.0.0.1:25", "A 192.0.2.1 ;"),
            ("198.18.0.1:25", "A 192.0.2.1 ;"),
            ("[2600::1]:25", "AAAA 2600::1\n"),
        ] {
            let text = told(&own_addresses(&listening(at), &Answer::Told(Vec::new()))).1;
            assert!(text.contains(record), "{at}: {text}");
        }
        assert_eq!(told(&own_addresses(&edge(false), &Answer::Silent("timed out".into()))).0, [warning]);
    }

    #[test]
    fn a_domain_leads_here_and_lets_us_send_and_what_is_missing_comes_with_its_record() {
        let of = |change: fn(&mut OfDomain), is_trusted| {
            let mut of = good_domain();
            change(&mut of);
            told(&of_domain(&edge(false), &of, is_trusted))
        };
        let (ok, wrong, warning, unchecked) = (State::Ok, State::Wrong, State::Warning, State::Unchecked);
        let (states, text) = of(|_| {}, true);
        assert_eq!(states, [ok, ok, ok, ok, unchecked, ok], "nobody fetches the policy");
        let policy =
            "see that the policy at https://mta-sts.example.com/.well-known/mta-sts.txt names mx.example.com";
        assert!(text.contains(policy), "{text}");
        assert_eq!(of(|_| {}, false).0, [ok, ok, ok, ok, wrong, ok], "MTA-STS without a certificate");
        let bare = |of: &mut OfDomain| {
            of.exchangers = Answer::Told(Vec::new());
            of.spf = vec![(address("192.0.2.1"), SpfResult::None)];
            of.keys = Vec::new();
            of.dmarc = Answer::Told(Err(String::new()));
            of.mta_sts = Answer::Told(Err(String::new()));
            of.tls_reports = Answer::Told(Err(String::new()));
        };
        let (states, text) = of(bare, true);
        assert_eq!(states, [wrong, wrong, unchecked, warning, warning, warning]);
        for record in [
            "example.com. IN MX 10 mx.example.com.",
            "example.com. IN TXT \"v=spf1 mx -all\"",
            "_dmarc.example.com. IN TXT \"v=DMARC1; p=none; rua=mailto:postmaster@example.com\"",
            "_mta-sts.example.com. IN TXT \"v=STSv1; id=1\"",
            "_smtp._tls.example.com. IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@example.com\"",
        ] {
            assert!(text.contains(&format!("\n{record}\n")), "no {record} in {text}");
        }
        assert!(!of(bare, false).1.contains("_mta-sts.example.com. IN"), "not before there is a certificate");
        let bad = |of: &mut OfDomain| {
            of.exchangers = Answer::Told(vec![(10, "mail.example.com".into(), true)]);
            of.spf = vec![
                (address("192.0.2.1"), SpfResult::PermError),
                (address("2001:db8::1"), SpfResult::SoftFail),
            ];
            of.keys = vec![("k".into(), Answer::Told(Some("it cannot be read".into())))];
            of.dmarc = Answer::Told(Err("there are 2, and so none counts".into()));
        };
        assert_eq!(of(bad, true).0, [wrong, wrong, warning, wrong, wrong, unchecked, ok]);
        let elsewhere = |of: &mut OfDomain| {
            of.exchangers = Answer::Told(vec![(10, "old.example".into(), false)]);
        };
        assert_eq!(of(elsewhere, true).0[0], wrong);
        let both = |of: &mut OfDomain| {
            let backup = (20, "backup.example".into(), false);
            of.exchangers = Answer::Told(vec![(10, "mx.example.com".into(), false), backup]);
        };
        assert_eq!(of(both, true).0[0], warning);
    }

    #[test]
    fn behind_a_smart_host_no_record_is_printed_that_forbids_it_to_send() {
        let domain = "example.com".parse().expect("a domain");
        let records = |edge: &Edge, result| {
            sender_policy(edge, &domain, address("192.0.2.1"), result).records.join("\n")
        };
        let bare = [SpfResult::None, SpfResult::PermError];
        for result in bare {
            assert!(records(&edge(false), result).ends_with("\"v=spf1 mx -all\""), "{result:?}");
            for mode in ["relay", "direct-then-relay"] {
                let edge = edge_with(&format!("mode = \"{mode}\"\nrelay = \"smtp.isp.example:587\""));
                let record = records(&edge, result);
                assert!(record.contains("include:YOUR-SMART-HOST ~all"), "{record}");
            }
        }
    }

    #[test]
    fn a_smart_host_that_is_this_edge_is_found_at_any_address_of_this_host() {
        let mut edge = edge_with("mode = \"relay\"\nrelay = \"smtp.isp.example:587\"");
        edge.submission = vec!["0.0.0.0:587".parse().expect("an address")];
        let ours = Ourselves::of(&edge, &[address("192.0.2.7")]);
        let host = edge.outbound.mode.smart_host().expect("there is one");
        let told = |at: &[&str]| {
            let at = at.iter().map(|at| at.parse().expect("an address")).collect();
            let found = smart_host(host, &Answer::Told(at), &ours);
            (found.state, found.found)
        };
        assert_eq!(told(&["192.0.2.8:587", "192.0.2.7:25"]).0, State::Ok);
        let (state, found) = told(&["192.0.2.8:587", "192.0.2.7:587"]);
        assert!(state == State::Wrong && found.contains("192.0.2.7:587"), "{found}");
        assert_eq!(told(&[]).0, State::Wrong);
        assert_eq!(smart_host(host, &Answer::Silent("no".into()), &ours).state, State::Warning);
    }

    #[test]
    fn the_way_out_is_as_attempts_have_found_it() {
        let of = |reached_at, silent, silent_since| {
            let found = outward_port(&edge(false), Some(OutwardView { reached_at, silent, silent_since }));
            (found.state, found.found)
        };
        let at = Some(1_795_333_263_250);
        assert_eq!(outward_port(&edge(false), None).state, State::Unchecked);
        assert_eq!(of(None, 0, None).0, State::Unchecked);
        assert_eq!(of(None, 2, at).0, State::Unchecked, "two hosts may be away");
        assert_eq!(of(at, 0, None), (State::Ok, "a host was reached 2026-11-22 07:41 UTC".into()));
        assert_eq!(of(at, 2, at).0, State::Ok);
        for reached_at in [None, at] {
            let (state, found) = of(reached_at, 3, at);
            assert!(state == State::Warning && found.contains("none of 3 addresses"), "{found}");
        }
    }

    #[test]
    fn a_clock_beside_bigs() {
        for (ahead, state) in [
            (None, State::Unchecked),
            (Some(-59_000), State::Ok),
            (Some(61_000), State::Warning),
            (Some(-3_600_001), State::Wrong),
        ] {
            assert_eq!(clock(ahead).state, state, "{ahead:?}");
        }
    }

    #[test]
    fn who_issues_certificates_and_does_not_is_told_with_the_mend() {
        let asked = CertificateView {
            directory: Some("https://acme.example/dir".into()),
            attempted_at: Some(1_795_333_263_250),
            valid_until: Some(1_795_333_263_250),
            next_attempt_at: Some(1_795_333_263_250),
            ..CertificateView::default()
        };
        let state = |view: &CertificateView| certificate::renewal(view).map(|found| found.state);
        assert_eq!(state(&asked), Some(State::Ok));
        assert_eq!(state(&CertificateView { attempted_at: None, ..asked.clone() }), Some(State::Unchecked));
        assert_eq!(state(&CertificateView { directory: None, ..asked.clone() }), None);
        assert_eq!(state(&CertificateView { is_asking: true, ..asked.clone() }), Some(State::Unchecked));
        let early = CertificateView { error: Some("port 80 is closed".into()), ..asked };
        assert_eq!(state(&early), Some(State::Ok), "nothing is due");
        let failed = CertificateView { is_due: true, ..early };
        let found = certificate::renewal(&failed).expect("a finding");
        assert_eq!((found.state, found.found.as_str()), (State::Wrong, "port 80 is closed"));
        assert!(
            found.mend.contains("2026-11-22 07:41 UTC") && found.mend.contains("certificate renew"),
            "{found:?}"
        );
    }

    #[test]
    fn a_certificate_is_for_our_name_and_for_now_and_dns_may_name_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = TlsIdentity::self_signed_in(folder.path(), "mx.example.com").expect("made");
        let kept = TlsIdentity::kept_in(folder.path()).expect("readable").expect("kept");
        assert_eq!(kept.key_hash().expect("a hash"), identity.key_hash().expect("a hash"));
        let mut roots = RootCertStore::empty();
        roots.add(identity.chain()[0].clone()).expect("a certificate");
        // rcgen's are good from 1975 to 4096.
        let now = Duration::from_secs(1_800_000_000);
        let of = |hostname: &str, roots: &RootCertStore, now| {
            let edge = Edge { hostname: hostname.parse().expect("a name"), ..edge(false) };
            let (found, is_trusted) = certificate::of_chain(&edge, identity.chain(), roots.clone(), now);
            (found.state, is_trusted)
        };
        let nobody = RootCertStore::empty();
        assert_eq!(of("mx.example.com", &roots, now), (State::Ok, true));
        assert_eq!(of("mx.example.com", &nobody, now), (State::Warning, false), "nobody vouches for it");
        for roots in [&roots, &nobody] {
            assert_eq!(of("other.example.com", roots, now), (State::Wrong, false));
            assert_eq!(
                of("mx.example.com", roots, Duration::from_secs(100_000_000_000)),
                (State::Wrong, false)
            );
        }
        let hash = identity.key_hash().expect("a hash");
        let of = |found: Vec<Association>| associations(&edge(false), &Answer::Told(found), &hash);
        let none = of(Vec::new());
        assert_eq!(none.state, State::Warning);
        assert!(none.records[0].starts_with("_25._tcp.mx.example.com. IN TLSA 3 1 1 "), "{none:?}");
        assert_eq!(of(vec![(3, 1, 1, vec![0; 32]), (3, 1, 1, hash.to_vec())]).state, State::Ok);
        assert_eq!(of(vec![(3, 1, 1, vec![0; 32])]).state, State::Wrong);
        assert_eq!(of(vec![(2, 1, 1, hash.to_vec())]).state, State::Unchecked);
        assert_eq!(of(vec![(3, 1, 1, vec![0; 32]), (3, 0, 1, vec![1; 32])]).state, State::Unchecked);
    }
}
