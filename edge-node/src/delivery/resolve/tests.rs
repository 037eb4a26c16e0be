//! What answers come to, made by hand, and from a root on loopback that is signed, beside zones that are not.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use hickory_resolver::net::NoRecords;
use hickory_resolver::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::dnssec::{DnssecSigner, SigningKey as _};
use hickory_resolver::proto::op::{Message, OpCode, Query};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, TLSA};
use hickory_resolver::proto::rr::{DNSClass, RecordSet};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::*;

/// Seconds an answer may be cached.
const TTL: u32 = 60;
/// Where a zone that is not signed begins: its owner may say in it what it likes.
const EVIL: &str = "evil.example.";
const PLAIN: &str = "plain.example.";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TLSA_NAME: &str = "_25._tcp.mx.good.example.";

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), TTL, data)
}

fn proved(owner: &str, data: RData, proof: Proof) -> Record {
    let mut record = record(owner, data);
    record.proof = proof;
    record
}

fn a(owner: &str) -> Record {
    record(owner, RData::A(A(ADDRESS)))
}

fn mx(owner: &str, host: &str) -> Record {
    record(owner, RData::MX(MX::new(10, name(host))))
}

fn cname(owner: &str, target: &str) -> Record {
    record(owner, RData::CNAME(CNAME(name(target))))
}

fn tlsa(owner: &str) -> Record {
    record(owner, RData::TLSA(TLSA::new(3.into(), 1.into(), 1.into(), vec![1; 32])))
}

fn soa(zone: &str) -> Record {
    let soa = SOA::new(name("ns.example."), name("hostmaster.example."), 1, 3600, 600, 86_400, TTL);
    record(zone, RData::SOA(soa))
}

#[test]
fn tlsa_records_count_at_names_that_dns_proves() {
    use Proof::{Bogus, Indeterminate, Insecure, Secure};
    let address = |owner, proof| proved(owner, RData::A(A(ADDRESS)), proof);
    let alias = |owner, target, proof| proved(owner, RData::CNAME(CNAME(name(target))), proof);
    let own = ["mx.a.example"];
    for (records, wanted) in [
        (vec![address("MX.a.Example.", Secure)], &own[..]),
        (vec![address("mx.a.example.", Insecure)], &[]),
        (vec![address("mx.a.example.", Indeterminate)], &[]),
        (vec![address("mx.a.example.", Secure), address("mx.a.example.", Bogus)], &[]),
        (
            vec![alias("mx.a.example.", "h.B.example.", Secure), address("h.B.example.", Secure)],
            &["h.b.example", "mx.a.example"],
        ),
        // Where it leads to is not proved, that it leads there is.
        (vec![alias("mx.a.example.", "h.b.example.", Secure), address("h.b.example.", Insecure)], &own),
        (vec![alias("mx.a.example.", "h.b.example.", Insecure), address("h.b.example.", Secure)], &[]),
    ] {
        assert_eq!(bases("mx.a.example", &records), wanted, "{records:?}");
    }
}

#[test]
fn an_answer_is_what_the_name_has_behind_its_aliases_and_nothing_else() {
    let (asked, kind) = (name("mx.a.example."), RecordType::A);
    let aliases = [cname("MX.a.example.", "h.a.example."), cname("h.a.example.", "i.a.example.")];
    for (answers, end, wanted) in [
        (vec![a("mx.a.Example.")], "mx.a.example.", vec![a("mx.a.example.")]),
        // Of others, before and behind.
        (
            vec![cname("x.evil.example.", "y.evil.example."), a("x.evil.example."), a("mx.a.example.")],
            "mx.a.example.",
            vec![a("mx.a.example.")],
        ),
        (
            vec![a("i.a.example."), a("mx.b.example."), aliases[1].clone(), aliases[0].clone()],
            "i.a.example.",
            vec![aliases[0].clone(), aliases[1].clone(), a("i.a.example.")],
        ),
        // Nothing that was asked for.
        (vec![a("x.evil.example."), mx("mx.a.example.", "h.a.example.")], "mx.a.example.", vec![]),
        (vec![aliases[0].clone(), a("x.evil.example.")], "h.a.example.", vec![aliases[0].clone()]),
    ] {
        assert_eq!(chain(&asked, kind, &answers), (name(end), wanted), "{answers:?}");
    }
    let (_, endless) = chain(&asked, kind, &[cname("mx.a.example.", "mx.a.example.")]);
    assert_eq!(endless.len(), ALIASES_MAX);
    // Who asks for an alias is not led on.
    let (_, step) = chain(&asked, RecordType::CNAME, &aliases);
    assert_eq!(step, aliases[..1]);
}

#[test]
fn a_denial_is_believed_if_its_zone_holds_the_name() {
    let none = |asked: &str, code, zone: Option<(&str, Proof)>| {
        let mut none = NoRecords::new(Query::query(name(asked), RecordType::TLSA), code);
        none.soa = zone.map(|(zone, proof)| {
            let data = SOA::new(name("ns.example."), name("h.example."), 1, 3600, 600, 86_400, TTL);
            let mut soa = Record::from_rdata(name(zone), TTL, data);
            soa.proof = proof;
            Box::new(soa)
        });
        NetError::from(none)
    };
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        for (asked, zone, is_believed) in [
            ("mx.good.example.", Some(("good.Example.", Proof::Secure)), true),
            ("mx.good.example.", Some(("good.example.", Proof::Insecure)), true),
            ("mx.good.example.", Some(("good.example.", Proof::Bogus)), false),
            ("mx.good.example.", Some(("good.example.", Proof::Indeterminate)), false),
            ("mx.good.example.", Some(("evil.example.", Proof::Insecure)), false),
            ("mx.good.example.", Some(("x.mx.good.example.", Proof::Secure)), false),
            ("mx.good.example.", None, false),
            // The library asks nobody about these.
            ("mx.invalid.", None, true),
        ] {
            let error = none(asked, code, zone);
            assert_eq!(denial(&error, true), Some(Denial { code, is_believed }), "{asked} {zone:?}");
            // Whoever validates nothing has to believe everything.
            assert_eq!(denial(&error, false), Some(Denial { code, is_believed: true }));
        }
    }
    for error in [
        none("a.", ResponseCode::ServFail, Some((".", Proof::Secure))),
        NetError::Dns(DnsError::DnssecBogus),
        NetError::Timeout,
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)),
        NetError::Message(NOT_THERE),
    ] {
        assert_eq!(denial(&error, true), None, "{error}");
    }
}

/// What somebody on the way makes of an answer.
type Forger = fn(&Query, &mut Message);

/// A root that is signed and holds all names, but for two zones that it gives away unsigned.
struct Root {
    signer: DnssecSigner,
    records: Vec<Record>,
    forge: Forger,
}

impl Root {
    fn signed(&self, records: Vec<Record>) -> Vec<Record> {
        let Some(first) = records.first() else { return records };
        let mut set = RecordSet::with_ttl(first.name.clone(), first.record_type(), TTL);
        for record in &records {
            set.insert(record.clone(), 1);
        }
        let begins = SystemTime::now() - Duration::from_secs(60);
        let signature = RRSIG::from_rrset(&set, DNSClass::IN, begins.into(), &self.signer).expect("signs");
        let signature = RData::DNSSEC(DNSSECRData::RRSIG(signature));
        let signature = Record::from_rdata(first.name.clone(), TTL, signature);
        records.into_iter().chain([signature]).collect()
    }

    fn answer(&self, id: u16, query: &Query) -> Message {
        let (asked, kind) = (query.name().to_lowercase(), query.query_type());
        let mut message = Message::response(id, OpCode::Query);
        message.metadata.authoritative = true;
        message.add_query(query.clone());
        let of = |kind: RecordType| -> Vec<Record> {
            let is_it = |record: &&Record| record.name == asked && record.record_type() == kind;
            self.records.iter().filter(is_it).cloned().collect()
        };
        let found = [of(kind), of(RecordType::CNAME)].into_iter().find(|found| !found.is_empty());
        let zone = [EVIL, PLAIN].into_iter().find(|zone| name(zone).zone_of(&asked));
        match (zone, found) {
            (Some(zone), _) if name(zone) == asked && kind == RecordType::DS => {
                message.add_authorities(self.denied(&asked, vec![RecordType::NS]));
            }
            (Some(_), Some(found)) => {
                message.add_answers(found);
            }
            (Some(zone), None) => {
                let is_there = |record: &Record| record.name == asked;
                if !self.records.iter().any(is_there) {
                    message.metadata.response_code = ResponseCode::NXDomain;
                }
                message.add_authority(soa(zone));
            }
            (None, Some(found)) => {
                message.add_answers(self.signed(found));
            }
            (None, None) => {
                let here = self.records.iter().filter(|record| record.name == asked);
                let kinds = here.map(Record::record_type).collect();
                message.add_authorities(self.denied(&asked, kinds));
            }
        }
        (self.forge)(query, &mut message);
        message
    }

    /// That a name has only these.
    fn denied(&self, asked: &Name, kinds: Vec<RecordType>) -> Vec<Record> {
        let next = asked.prepend_label("0").expect("a name");
        let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new_cover_self(next, kinds)));
        let nsec = self.signed(vec![Record::from_rdata(asked.clone(), TTL, nsec)]);
        [self.signed(vec![soa(".")]), nsec].concat()
    }
}

/// The resolver that validates what that root says, one that does not, and the root's task.
async fn asking(forge: Forger) -> (Resolver, Resolver, JoinHandle<()>) {
    let pkcs8 = Ed25519SigningKey::generate_pkcs8().expect("a key");
    let key = Ed25519SigningKey::from_pkcs8(&pkcs8).expect("a key");
    let dnskey = DNSKEY::from_key(&key.to_public_key().expect("a key"));
    let folder = tempfile::tempdir().expect("a folder");
    let anchors = folder.path().join("anchors");
    std::fs::write(&anchors, format!(". 3600 IN DNSKEY {dnskey}\n")).expect("written");
    let records = vec![
        Record::from_rdata(Name::root(), TTL, RData::DNSSEC(DNSSECRData::DNSKEY(dnskey.clone()))),
        record(".", RData::NS(NS(name("ns.example.")))),
        mx("good.example.", "mx.good.example."),
        a("good.example."),
        a("mx.good.example."),
        tlsa(TLSA_NAME),
        mx("half.example.", "mx.plain.example."),
        mx("alias.example.", "mail.alias.example."),
        cname("mail.alias.example.", "mx.good.example."),
        a("itself.example."),
        record(PLAIN, RData::NS(NS(name("ns.plain.example.")))),
        mx(PLAIN, "mx.plain.example."),
        a("mx.plain.example."),
        tlsa("_25._tcp.mx.plain.example."),
        record(EVIL, RData::NS(NS(name("ns.evil.example.")))),
        a("x.evil.example."),
    ];
    let signer = DnssecSigner::new(dnskey, Box::new(key), Name::root(), Duration::from_secs(86_400));
    let root = Root { signer, records, forge };
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let servers = [socket.local_addr().expect("bound")];
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let Ok(asked) = Message::from_vec(&buffer[..length]) else { continue };
            let Some(query) = asked.queries.first() else { continue };
            let answer = root.answer(asked.metadata.id, query).to_vec().expect("encodable");
            drop(socket.send_to(&answer, from).await);
        }
    });
    let validating = Resolver::new(&servers, &Dnssec::Anchors(anchors)).expect("a resolver");
    let trusting = Resolver::new(&servers, &Dnssec::Off).expect("a resolver");
    (validating, trusting, answering)
}

/// Adds what is true to whatever is said of a domain that is signed, before all else.
fn add(query: &Query, message: &mut Message, record: Record) {
    if name("good.example.").zone_of(query.name()) && !message.answers.is_empty() {
        message.answers.insert(0, record);
    }
}

/// The hosts of a domain, where answers are forged like this.
async fn hosts(domain: &str, forge: Forger) -> Result<Vec<MailHost>, Status> {
    let (validating, _, answering) = asking(forge).await;
    let hosts = validating.hosts(&domain.parse().expect("a domain"), 25, None).await.map(|(hosts, _)| hosts);
    answering.abort();
    hosts
}

fn host(name: &str, published: Published) -> MailHost {
    let addresses = vec![ADDRESS.into()];
    MailHost { name: name.into(), preference: 10, addresses, is_proved: true, published }
}

fn good(names: &[&str]) -> Published {
    let record = TlsaRecord { usage: 3, selector: 1, matching: 1, data: vec![1; 32] };
    Published::Records {
        base: "mx.good.example".into(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        records: vec![record],
    }
}

#[tokio::test]
async fn a_delegation_that_is_not_signed_is_as_if_nobody_signed() {
    let nothing = |name| Ok(vec![host(name, Published::Nothing)]);
    let honest: Forger = |_, _| ();
    // Nor does it prove that this is its host.
    let unsigned = MailHost { is_proved: false, ..host("mx.plain.example", Published::Nothing) };
    assert_eq!(hosts("plain.example", honest).await, Ok(vec![unsigned]));
    assert_eq!(hosts("half.example", honest).await, nothing("mx.plain.example"));
    // It says itself who is not there, and that is believed.
    let absent = hosts("absent.plain.example", honest).await.expect_err("no such domain");
    assert_eq!((absent.class, absent.enhanced), (Class::Permanent, Enhanced(5, 1, 2)));
    // Whoever signs is proved.
    let proved = Ok(vec![host("mx.good.example", good(&["mx.good.example", "good.example"]))]);
    assert_eq!(hosts("good.example", honest).await, proved);
    let alias = Ok(vec![host("mail.alias.example", good(&["mx.good.example", "alias.example"]))]);
    assert_eq!(hosts("alias.example", honest).await, alias);
    let itself = MailHost { preference: 0, ..host("itself.example", Published::Nothing) };
    assert_eq!(hosts("itself.example", honest).await, Ok(vec![itself]));
}

#[tokio::test]
async fn what_is_added_to_an_answer_neither_turns_dane_off_nor_leads_mail_away() {
    let proved = Ok(vec![host("mx.good.example", good(&["mx.good.example", "good.example"]))]);
    for added in [
        (|query, message| add(query, message, tlsa("x.evil.example."))) as Forger,
        |query, message| add(query, message, a("x.evil.example.")),
        |query, message| add(query, message, mx("x.evil.example.", "y.evil.example.")),
        |query, message| add(query, message, cname("x.evil.example.", "y.evil.example.")),
    ] {
        assert_eq!(hosts("good.example", added).await, proved);
    }
}

#[tokio::test]
async fn an_answer_that_is_kept_back_is_not_one_that_is_not_there() {
    for forge in [
        // The records, where nobody validates.
        (|query, message| {
            if query.query_type() == RecordType::TLSA {
                message.additionals = std::mem::replace(&mut message.answers, vec![a("x.evil.example.")]);
            }
        }) as Forger,
        // Denials of a zone that holds no such name.
        |query, message| {
            if query.query_type() == RecordType::TLSA {
                (message.answers, message.authorities) = (Vec::new(), vec![soa(EVIL)]);
            }
        },
        |query, message| {
            if query.query_type() == RecordType::TLSA {
                (message.answers, message.authorities) = (Vec::new(), vec![soa(EVIL)]);
                message.metadata.response_code = ResponseCode::NXDomain;
            }
        },
    ] {
        let found = hosts("good.example", forge).await.expect("hosts");
        assert!(matches!(&found[..], [MailHost { published: Published::Unknown(_), .. }]), "{found:?}");
    }
    for forge in [
        (|query, message| {
            if query.query_type() == RecordType::MX {
                (message.answers, message.authorities) = (Vec::new(), vec![soa(EVIL)]);
                message.metadata.response_code = ResponseCode::NXDomain;
            }
        }) as Forger,
        |query, message| {
            if query.query_type() == RecordType::MX {
                (message.answers, message.authorities) = (Vec::new(), vec![soa(EVIL)]);
            }
        },
        |query, message| {
            if query.query_type() == RecordType::MX {
                message.answers = vec![mx("x.evil.example.", "x.evil.example.")];
            }
        },
        // Not signed in a zone that is.
        |query, message| {
            if query.query_type() == RecordType::MX {
                message.answers = vec![mx("good.example.", "x.evil.example.")];
            }
        },
    ] {
        let status = hosts("good.example", forge).await.expect_err("nothing to go by");
        assert_eq!((status.class, status.enhanced), (Class::Temporary, UNPROVED), "{status:?}");
    }
    // Where a host is has been forged: it is not another that says so, and none to go round.
    let found = hosts("good.example", |query, message| {
        if matches!(query.query_type(), RecordType::A | RecordType::AAAA) {
            (message.answers, message.authorities) = (Vec::new(), vec![soa(EVIL)]);
        }
    });
    let found = found.await.expect("a host that is not to be used");
    assert!(matches!(&found[..], [MailHost { published: Published::Unknown(_), .. }]), "{found:?}");
}

#[tokio::test]
async fn servers_of_zones_that_are_not_signed_may_deny_without_saying_for_which() {
    let found = hosts("plain.example", |query, message| {
        if matches!(query.query_type(), RecordType::MX | RecordType::AAAA) {
            (message.answers, message.authorities) = (Vec::new(), Vec::new());
        }
        if *query.name() == name(PLAIN) && query.query_type() == RecordType::A {
            (message.answers, message.authorities) = (vec![a(PLAIN)], Vec::new());
            message.metadata.response_code = ResponseCode::NoError;
        }
    });
    let itself = MailHost { preference: 0, ..host("plain.example", Published::Nothing) };
    assert_eq!(found.await, Ok(vec![itself]));
}

#[tokio::test]
async fn a_name_that_only_our_network_knows_is_found_by_who_validates_nothing() {
    let (validating, trusting, answering) = asking(|query, message| {
        if *query.name() == name("smart.lan.example.") && query.query_type() == RecordType::A {
            (message.answers, message.authorities) = (vec![a("smart.lan.example.")], Vec::new());
        }
    })
    .await;
    assert!(validating.addresses("smart.lan.example").await.is_err());
    assert_eq!(trusting.addresses("smart.lan.example").await.expect("known"), [IpAddr::from(ADDRESS)]);
    answering.abort();
}

#[tokio::test]
async fn servers_that_keep_signatures_back_are_told_from_those_that_are_silent() {
    let passing = async |forge: Forger| {
        let (validating, _, answering) = asking(forge).await;
        let passing = validating.passing().await;
        answering.abort();
        passing
    };
    assert_eq!(passing(|_, _| {}).await, Passing::Passes);
    let stripped: Forger = |_, message| {
        message.answers.retain(|record| !matches!(record.data, RData::DNSSEC(_)));
        message.authorities.retain(|record| !matches!(record.data, RData::DNSSEC(_)));
    };
    assert_eq!(passing(stripped).await, Passing::Strips);
    let unknown = passing(|_, message| {
        message.answers.clear();
        message.authorities.clear();
        message.metadata.response_code = ResponseCode::ServFail;
    });
    assert!(matches!(unknown.await, Passing::Unknown(_)));
}

#[test]
fn addresses_of_both_families_are_tried_in_turn() {
    let four = |last: u8| RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
    let six = |last: u16| RData::AAAA(AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)));
    for (records, expected) in [
        (
            (1..=7).map(four).chain((1..=2).map(six)).collect::<Vec<_>>(),
            "192.0.2.1 2001:db8::1 192.0.2.2 2001:db8::2 192.0.2.3",
        ),
        (
            (1..=1).map(four).chain((1..=7).map(six)).collect(),
            "192.0.2.1 2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4",
        ),
        ((1..=2).map(six).collect(), "2001:db8::1 2001:db8::2"),
    ] {
        let records: Vec<_> = records.into_iter().map(|data| record("mx.example.", data)).collect();
        let found: Vec<_> = alternating(&records).iter().map(ToString::to_string).collect();
        assert_eq!(found.join(" "), expected);
    }
}

#[test]
fn servers_are_those_that_are_named() {
    let named = [SocketAddr::from(([192, 0, 2, 53], 53)), SocketAddr::from(([192, 0, 2, 53], 5353))];
    assert_eq!(Resolver::servers(&named).expect("named"), named);
}
