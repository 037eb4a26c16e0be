//! What is found of messages, by a resolver on loopback that does not answer everything.

use std::net::{Ipv4Addr, SocketAddr};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, PTR, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record};
use shared::topology::Dnssec;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::*;
use crate::delivery::Resolver;

/// Text records. Names that are in no table are not there, and of those in `slow.example` nothing is said at all.
const TEXTS: [(&str, &[&str]); 4] = [
    ("_dmarc.told.example.", &["v=DMARC1; p=reject; rua=mailto:d@told.example"]),
    ("_dmarc.ab--cd.example.", &["v=DMARC1; p=reject; rua=mailto:d@told.example"]),
    ("_dmarc.bank.example.", &["v=DMARC1; p=reject"]),
    ("_dmarc.two.example.", &["v=DMARC1; p=reject", "v=DMARC1; p=none"]),
];

/// Names of clients at 192.0.2.x.
const NAMES: [(&str, &str); 4] = [
    ("10.2.0.192.in-addr.arpa.", "client.good.example."),
    ("11.2.0.192.in-addr.arpa.", "client.elsewhere.example."),
    ("14.2.0.192.in-addr.arpa.", "not-there.example."),
    ("15.2.0.192.in-addr.arpa.", "client.broken.example."),
];

const ADDRESSES: [(&str, Ipv4Addr); 2] = [
    ("client.good.example.", Ipv4Addr::new(192, 0, 2, 10)),
    ("client.elsewhere.example.", Ipv4Addr::new(198, 51, 100, 10)),
];

/// Of those it is said that they cannot be answered.
const BROKEN: [&str; 2] = ["13.2.0.192.in-addr.arpa.", "client.broken.example."];

/// What there is of a name.
fn data(name: &str) -> Vec<RData> {
    let texts = TEXTS.iter().filter(|(owner, _)| *owner == name).flat_map(|(_, texts)| texts.iter());
    let texts = texts.map(|text| RData::TXT(TXT::new(vec![(*text).to_owned()])));
    let names = NAMES.iter().filter(|(owner, _)| *owner == name);
    let names = names.map(|(_, to)| RData::PTR(PTR(Name::from_ascii(to).expect("a name"))));
    let addresses = ADDRESSES.iter().filter(|(owner, _)| *owner == name);
    texts.chain(names).chain(addresses.map(|(_, address)| RData::A(A(*address)))).collect()
}

async fn asking() -> (Arc<Authenticator>, JoinHandle<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let servers: [SocketAddr; 1] = [socket.local_addr().expect("bound")];
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let Ok(asked) = Message::from_vec(&buffer[..length]) else { continue };
            let Some(query) = asked.queries.first() else { continue };
            let name = query.name().to_ascii().to_ascii_lowercase();
            if name.ends_with("slow.example.") {
                continue;
            }
            let mut message = Message::response(asked.metadata.id, OpCode::Query);
            message.add_query(query.clone());
            let there = data(&name);
            if BROKEN.contains(&name.as_str()) {
                message.metadata.response_code = ResponseCode::ServFail;
            } else if there.is_empty() {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            let asked_for = there.into_iter().filter(|data| data.record_type() == query.query_type());
            message.add_answers(asked_for.map(|data| Record::from_rdata(query.name().clone(), 60, data)));
            drop(socket.send_to(&message.to_vec().expect("encodable"), from).await);
        }
    });
    let resolver = Resolver::new(&servers, &Dnssec::Off).expect("a resolver");
    let site = Authentication { dmarc: Dmarc::Refuse, trusted_sealers: Vec::new() };
    let hostname = "mx.example.com".parse().expect("a domain");
    (Authenticator::new(resolver.inner(), hostname, site).expect("it verifies"), answering)
}

/// What is found of a message by somebody at `author`, from a sender whose SPF record does not come.
async fn found(author: &str) -> Verdicts {
    found_of(9, "slow.example", author).await
}

/// The same of one from 192.0.2.`client`, whose sender is in `domain`.
async fn found_of(client: u8, domain: &str, author: &str) -> Verdicts {
    let (authenticator, answering) = asking().await;
    let sender = Sender {
        client: Ipv4Addr::new(192, 0, 2, client).into(),
        helo: format!("client.{domain}"),
        reverse_path: format!("x@{domain}").parse().ok(),
    };
    let content = format!("From: a@{author}\r\nSubject: s\r\n\r\ntext\r\n");
    let deadline = Instant::now() + DMARC_TIME + Duration::from_millis(300);
    let verdicts = authenticator.ask(&sender, content.as_bytes(), None, deadline).await;
    answering.abort();
    verdicts
}

fn says(verdicts: &Verdicts, what: &str) -> bool {
    verdicts.found.iter().any(|verdict| verdict.starts_with(what))
}

#[tokio::test]
async fn who_makes_one_method_slow_costs_the_others_nothing() {
    let verdicts = found("bank.example").await;
    for what in ["spf=temperror", "dkim=none", "arc=none", "dmarc=fail header.from=bank.example"] {
        assert!(says(&verdicts, what), "no {what} in {verdicts:?}");
    }
    assert!(verdicts.refused.is_some(), "neither speaks for the author, whose domain wants that refused");
    // Where the author's own domain is silent nobody can say.
    let verdicts = found("slow.example").await;
    assert!(says(&verdicts, "dmarc=temperror") && verdicts.refused.is_none(), "{verdicts:?}");
}

#[tokio::test]
async fn several_policies_are_none() {
    let verdicts = found("two.example").await;
    assert!(says(&verdicts, "dmarc=none") && verdicts.refused.is_none(), "{verdicts:?}");
}

#[tokio::test]
async fn what_is_found_in_a_name_that_no_report_could_be_about_is_not_counted() {
    let verdicts = found("told.example").await;
    let (policy, found_of) = *verdicts.counted.clone().expect("its domain wants to be told");
    assert!(policy.domain == "told.example" && found_of.is_sound(), "{found_of:?}");
    let verdicts = found("ab--cd.example").await;
    assert!(says(&verdicts, "dmarc=fail header.from=ab--cd.example"), "it has a policy: {verdicts:?}");
    assert!(verdicts.counted.is_none(), "{:?}", verdicts.counted);
}

#[tokio::test]
async fn a_client_has_the_name_that_leads_back_to_it() {
    for (client, expected, what) in [
        (10, "pass", "its name leads back"),
        (11, "fail", "its name leads elsewhere"),
        (12, "fail", "it has no name"),
        (13, "temperror", "its name is not told now"),
        (14, "fail", "its name is not there"),
        (15, "temperror", "where its name leads is not told now"),
    ] {
        let verdicts = found_of(client, "nobody.example", "nobody.example").await;
        let iprev: Vec<_> = verdicts.found.iter().filter(|verdict| verdict.starts_with("iprev=")).collect();
        assert_eq!(iprev, [&format!("iprev={expected}")], "{what}");
    }
}
