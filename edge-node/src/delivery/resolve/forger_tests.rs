//! A name server on loopback that lies in every way that it can, and somebody who forges its answers: nothing of it is
//! believed, and each question ends in time.

use std::net::{Ipv4Addr, UdpSocket as StdSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, MX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::*;

/// Where the hosts are, and where forgers would have them.
const TRUTH: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FORGED: Ipv4Addr = Ipv4Addr::new(10, 6, 6, 6);
/// How long the hosts of a domain may take, whatever answers.
const BOUND: Duration = Duration::from_secs(30);
const DOMAIN: &str = "a.example";
const BANK: &str = "bank.example";
const IDS: u32 = 65_536;
/// Octets of a header, behind which the question is (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// A question.
struct Asked {
    message: Message,
    kind: RecordType,
    /// The name, in lower case and without its last dot.
    name: String,
    is_tcp: bool,
}

impl Asked {
    fn read(bytes: &[u8], is_tcp: bool) -> Option<Self> {
        let message = Message::from_vec(bytes).ok()?;
        let query = message.queries.first()?;
        let name = query.name().to_lowercase().to_ascii().trim_end_matches('.').to_owned();
        Some(Self { kind: query.query_type(), name, message, is_tcp })
    }

    fn id(&self) -> u16 {
        self.message.metadata.id
    }

    fn is(&self, name: &str, kind: RecordType) -> bool {
        (self.name.as_str(), self.kind) == (name, kind)
    }

    /// The answer with no records yet.
    fn empty(&self) -> Message {
        let mut answer = Message::response(self.id(), OpCode::Query);
        answer.metadata.authoritative = true;
        answer.add_queries(self.message.queries.clone());
        answer
    }

    /// Who serves a domain is `mx` in it, and hosts are there.
    fn answer(&self, there: Ipv4Addr) -> Message {
        let mut answer = self.empty();
        let owner = self.message.queries[0].name().clone();
        let host = self.name.starts_with("mx");
        match self.kind {
            RecordType::MX if !host => {
                answer
                    .add_answer(record(&owner, RData::MX(MX::new(10, name(&format!("mx.{}.", self.name))))));
            }
            RecordType::A => {
                answer.add_answer(record(&owner, RData::A(A(there))));
            }
            _ => {}
        }
        answer
    }

    fn true_answer(&self) -> Said {
        here(&self.answer(TRUTH))
    }

    fn forged(&self) -> Message {
        self.answer(FORGED)
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), 60, data)
}

/// What comes, and from where.
enum Said {
    /// The server's own port.
    Here(Vec<u8>),
    /// Another one.
    Elsewhere(Vec<u8>),
    /// Many, from either port, as fast as they can be sent.
    Flood { is_here: bool, answers: Vec<Vec<u8>> },
}

fn here(message: &Message) -> Said {
    Said::Here(message.to_vec().expect("encodable"))
}

/// What comes to each question.
type Answers = fn(&Asked) -> Vec<Said>;

/// A name server, and the questions that came to it.
struct Server {
    resolver: Resolver,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    /// By UDP and TCP at one port.
    async fn start(answers: Answers) -> Self {
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            // Another test may have it for UDP.
            if let Ok(socket) = StdSocket::bind(listener.local_addr().expect("bound")) {
                break (listener, Arc::new(socket));
            }
        };
        let resolver =
            Resolver::new(&[socket.local_addr().expect("bound")], &Dnssec::Off).expect("a resolver");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        socket.set_nonblocking(true).expect("a socket");
        let cloned = socket.try_clone().expect("a socket");
        let from = UdpSocket::from_std(cloned).expect("a socket");
        let seen = Arc::clone(&asked);
        let udp = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = from.recv_from(&mut buffer).await {
                let Some(asked) = Asked::read(&buffer[..length], false) else { continue };
                let query = asked.message.queries[0].name().to_ascii();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(query);
                let (said, socket) = (answers(&asked), Arc::clone(&socket));
                let sending = tokio::task::spawn_blocking(move || send(&socket, peer, said));
                sending.await.expect("sent");
            }
        });
        let tcp = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Ok(length) = stream.read_u16().await else { continue };
                let mut question = vec![0; length.into()];
                if stream.read_exact(&mut question).await.is_err() {
                    continue;
                }
                let Some(asked) = Asked::read(&question, true) else { continue };
                if let Some(Said::Here(bytes)) = answers(&asked).into_iter().next() {
                    let length = u16::try_from(bytes.len()).expect("a length").to_be_bytes();
                    drop(stream.write_all(&[&length[..], &bytes].concat()).await);
                }
            }
        });
        Self { resolver, asked, tasks: [udp, tcp] }
    }

    /// The hosts of a domain: their addresses, or why there are none.
    async fn hosts(&self, domain: &str) -> Result<Vec<IpAddr>, Status> {
        let domain = domain.parse().expect("a domain");
        let (hosts, _) = timeout(BOUND, self.resolver.hosts(&domain, 25, None)).await.expect("in time")?;
        Ok(hosts.into_iter().flat_map(|host| host.addresses).collect())
    }

    fn questions(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn send(here: &StdSocket, peer: SocketAddr, said: Vec<Said>) {
    let elsewhere = StdSocket::bind("127.0.0.1:0").expect("a port");
    for said in said {
        let (socket, answers) = match said {
            Said::Here(bytes) => (here, vec![bytes]),
            Said::Elsewhere(bytes) => (&elsewhere, vec![bytes]),
            Said::Flood { is_here: true, answers } => (here, answers),
            Said::Flood { is_here: false, answers } => (&elsewhere, answers),
        };
        // What the other end has no room for is lost, as on any line.
        answers.iter().for_each(|bytes| drop(socket.send_to(bytes, peer)));
    }
}

/// What a domain's hosts come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// Where they are.
    Found,
    /// It is asked again later.
    Later,
    /// There is none.
    Never,
}

/// Alias upon alias, from the domain to `steps` of them, and then a host, if it does not begin again.
fn aliases(asked: &Asked, steps: usize, ends: bool) -> Vec<Said> {
    let number = |text: &str| text.strip_prefix('c').and_then(|rest| rest.split('.').next()?.parse().ok());
    let at: usize = number(&asked.name).unwrap_or(0);
    if asked.name.starts_with("mx") {
        return vec![asked.true_answer()];
    }
    let mut answer = asked.empty();
    let mut owner = asked.message.queries[0].name().clone();
    for step in at + 1..=steps {
        let target = name(&format!("c{step}.{DOMAIN}."));
        answer.add_answer(record(&owner, RData::CNAME(CNAME(target.clone()))));
        owner = target;
    }
    if !ends {
        answer.add_answer(record(&owner, RData::CNAME(CNAME(name(&format!("{DOMAIN}."))))));
    } else if asked.kind == RecordType::MX {
        answer.add_answer(record(&owner, RData::MX(MX::new(10, name(&format!("mx.{DOMAIN}."))))));
    }
    vec![here(&answer)]
}

/// Header and question of an answer, and behind them what no library writes.
fn raw(asked: &Asked, answers: u16, rest: &[u8]) -> Vec<Said> {
    let mut bytes = asked.empty().to_vec().expect("encodable");
    bytes[6..8].copy_from_slice(&answers.to_be_bytes());
    bytes.extend_from_slice(rest);
    vec![Said::Here(bytes)]
}

/// The same, with an owner's name at that offset from its beginning.
fn with_owner(asked: &Asked, owner: impl Fn(u16) -> Vec<u8>) -> Vec<Said> {
    let begins = asked.empty().to_vec().expect("encodable").len();
    let mut rest = owner(u16::try_from(begins).expect("small"));
    rest.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 6, 6, 6]);
    raw(asked, 1, &rest)
}

/// 2,800 exchanges in one answer over TCP.
fn huge(asked: &Asked) -> Vec<Said> {
    match (asked.kind, asked.is_tcp) {
        (RecordType::MX, false) => truncated(asked),
        (RecordType::MX, true) => {
            let mut records = Vec::new();
            for number in 0..2_800_u16 {
                let label = format!("mx{number:04}");
                records.extend_from_slice(&[0xc0, 12, 0, 15, 0, 1, 0, 0, 0, 60, 0, 11]);
                records.extend_from_slice(&[0, 10, 6]);
                records.extend_from_slice(label.as_bytes());
                records.extend_from_slice(&[0xc0, 12]);
            }
            raw(asked, 2_800, &records)
        }
        _ => vec![asked.true_answer()],
    }
}

fn truncated(asked: &Asked) -> Vec<Said> {
    let mut answer = asked.empty();
    answer.metadata.truncation = true;
    vec![here(&answer)]
}

fn coded(asked: &Asked, code: ResponseCode) -> Vec<Said> {
    let mut answer = asked.empty();
    answer.metadata.response_code = code;
    vec![here(&answer)]
}

fn living(asked: &Asked, seconds: u32) -> Vec<Said> {
    let mut answer = asked.answer(TRUTH);
    answer.answers.iter_mut().for_each(|record| record.ttl = seconds);
    vec![here(&answer)]
}

/// The truth, behind what `forge` makes of a forged answer.
fn behind(asked: &Asked, forge: fn(Message) -> Said) -> Vec<Said> {
    let mut said = vec![forge(asked.forged()), asked.true_answer()];
    if asked.is_tcp {
        said.remove(0);
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_name_server_says_ends_in_time_and_only_what_is_asked_for_is_believed() {
    let cases: &[(&str, Comes, Answers)] = &[
        ("the truth", Comes::Found, |asked| vec![asked.true_answer()]),
        ("three aliases", Comes::Found, |asked| aliases(asked, 3, true)),
        ("nine aliases and a loop", Comes::Later, |asked| aliases(asked, 9, false)),
        ("forty aliases", Comes::Later, |asked| aliases(asked, 40, true)),
        ("an alias of itself", Comes::Later, |asked| aliases(asked, 0, false)),
        ("64 kB over TCP", Comes::Found, huge),
        ("a pointer to itself", Comes::Later, |asked| {
            with_owner(asked, |at| (0xc000 | at).to_be_bytes().to_vec())
        }),
        ("two pointers to each other", Comes::Later, |asked| {
            with_owner(asked, |at| [(0xc000 | (at + 2)).to_be_bytes(), (0xc000 | at).to_be_bytes()].concat())
        }),
        ("a name that leads into itself", Comes::Later, |asked| {
            with_owner(asked, |at| [&b"\x01x"[..], &(0xc000 | at).to_be_bytes()].concat())
        }),
        ("a pointer beyond the end", Comes::Later, |asked| with_owner(asked, |_| vec![0xff, 0xff])),
        ("a label of no kind", Comes::Later, |asked| with_owner(asked, |_| vec![0x80, 0])),
        ("more records than there are", Comes::Later, |asked| raw(asked, u16::MAX, &[])),
        ("data beyond the end", Comes::Later, |asked| {
            raw(asked, 1, &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0xff, 0xff, 1])
        }),
        ("truncated, and whole over TCP", Comes::Found, |asked| match asked.is_tcp {
            false => truncated(asked),
            true => vec![asked.true_answer()],
        }),
        ("truncated everywhere", Comes::Later, truncated),
        ("a header cut off", Comes::Later, |asked| {
            vec![Said::Here(asked.empty().to_vec().expect("encodable")[..HEADER - 2].to_vec())]
        }),
        ("another id before the truth", Comes::Found, |asked| {
            behind(asked, |mut forged| {
                forged.metadata.id ^= 1;
                here(&forged)
            })
        }),
        ("another question before the truth", Comes::Found, |asked| {
            behind(asked, |mut forged| {
                forged.queries[0].set_name(name("b.example."));
                here(&forged)
            })
        }),
        ("no question before the truth", Comes::Found, |asked| {
            behind(asked, |mut forged| {
                forged.queries.clear();
                here(&forged)
            })
        }),
        ("another port before the truth", Comes::Found, |asked| {
            behind(asked, |forged| Said::Elsewhere(forged.to_vec().expect("encodable")))
        }),
        ("nothing that may be kept", Comes::Found, |asked| living(asked, 0)),
        ("for 68 years", Comes::Found, |asked| living(asked, i32::MAX.unsigned_abs())),
        ("for longer than there is", Comes::Found, |asked| living(asked, 1 << 31)),
        ("for ever", Comes::Found, |asked| living(asked, u32::MAX)),
        ("no such domain", Comes::Never, |asked| coded(asked, ResponseCode::NXDomain)),
        ("the server has failed", Comes::Later, |asked| coded(asked, ResponseCode::ServFail)),
        ("the server refuses", Comes::Later, |asked| coded(asked, ResponseCode::Refused)),
    ];
    let mut asking = JoinSet::new();
    for (what, comes, answers) in cases.iter().copied() {
        asking.spawn(async move {
            let found = Server::start(answers).await.hosts(DOMAIN).await;
            let came = match &found {
                Ok(addresses) => {
                    assert!(
                        addresses.iter().all(|address| *address == IpAddr::V4(TRUTH)),
                        "{what}: {found:?}"
                    );
                    assert!((1..=HOSTS_MAX).contains(&addresses.len()), "{what}: {found:?}");
                    Comes::Found
                }
                Err(status) if status.class == Class::Permanent => Comes::Never,
                Err(_) => Comes::Later,
            };
            assert_eq!(came, comes, "{what}: {found:?}");
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.expect("as it should be");
    }
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_kept() {
    let answers: Answers = |asked| {
        let mut answer = asked.answer(TRUTH);
        let poison = record(&name(&format!("mx.{BANK}.")), RData::A(A(FORGED)));
        let exchange = record(&name(&format!("{BANK}.")), RData::MX(MX::new(1, name("mx.evil.example."))));
        if asked.name.ends_with(DOMAIN) {
            answer.add_answers([poison.clone(), exchange.clone()]);
            answer.add_authority(exchange);
            answer.add_additional(poison);
        }
        vec![here(&answer)]
    };
    let server = Server::start(answers).await;
    for domain in [DOMAIN, BANK] {
        assert_eq!(server.hosts(domain).await, Ok(vec![IpAddr::V4(TRUTH)]), "{domain}");
    }
    let asked = server.questions();
    assert!(asked.iter().any(|name| name.eq_ignore_ascii_case("mx.bank.example.")), "{asked:?}");
}

/// Of a forged answer one for each id; those for which `is_sent` are sent.
fn for_each_id(forged: &Message, is_sent: impl Fn(u16) -> bool) -> Vec<Vec<u8>> {
    let bytes = forged.to_vec().expect("encodable");
    let ids = (0..IDS).filter_map(|id| u16::try_from(id).ok()).filter(|id| is_sent(*id));
    ids.map(|id| [&id.to_be_bytes()[..], &bytes[2..]].concat()).collect()
}

/// The name that was asked for, with every letter the other way.
fn other_case(forged: &mut Message) {
    let asked = forged.queries[0].name().to_ascii();
    let turned: String = asked
        .chars()
        .map(|one| if one.is_ascii_lowercase() { one.to_ascii_uppercase() } else { one.to_ascii_lowercase() })
        .collect();
    forged.queries[0].set_name(name(&turned));
}

/// Whether this is the question that is forged: where mail is to go.
fn is_forged(asked: &Asked) -> bool {
    !asked.is_tcp && asked.is("mx.a.example", RecordType::A)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_of_65_536_that_are_forged_is_believed() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    fn flood(asked: &Asked, is_here: bool, answers: Vec<Vec<u8>>) -> Vec<Said> {
        SENT.fetch_add(answers.len(), Ordering::Relaxed);
        vec![Said::Flood { is_here, answers }, asked.true_answer()]
    }
    let floods: [(&str, Answers); 3] = [
        ("another port, each id", |asked| match is_forged(asked) {
            true => flood(asked, false, for_each_id(&asked.forged(), |_| true)),
            false => vec![asked.true_answer()],
        }),
        ("each id but the one", |asked| match is_forged(asked) {
            true => flood(asked, true, for_each_id(&asked.forged(), |id| id != asked.id())),
            false => vec![asked.true_answer()],
        }),
        ("each id, and each letter the other way", |asked| match is_forged(asked) {
            true => {
                let mut forged = asked.forged();
                other_case(&mut forged);
                // The one that is right but for its case comes first, so that it is not lost with those for which there
                // is no room.
                let mut answers = for_each_id(&forged, |id| id != asked.id());
                answers.insert(0, forged.to_vec().expect("encodable"));
                flood(asked, true, answers)
            }
            false => vec![asked.true_answer()],
        }),
    ];
    for (what, answers) in floods {
        let before = SENT.load(Ordering::Relaxed);
        let server = Server::start(answers).await;
        match server.hosts(DOMAIN).await {
            Ok(addresses) => assert_eq!(addresses, [IpAddr::V4(TRUTH)], "{what}"),
            // The true one may be lost among so many that come from where it does.
            Err(status) => {
                assert_eq!(status.class, Class::Temporary, "{what}: {status:?}");
                assert!(!what.starts_with("another port"), "{what}: {status:?}");
            }
        }
        let sent = SENT.load(Ordering::Relaxed) - before;
        assert!(sent >= 65_535, "{what}: {sent} were sent");
        let asked = server.questions().concat();
        assert!(asked.chars().any(|one| one.is_ascii_uppercase()), "the case is not at random: {asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_kept_for_as_long_as_it_says_and_never_for_more_than_a_day() {
    const DAY: u64 = 86_400;
    let cases: [(u64, usize, Answers); 3] = [
        (0, 2, |asked| living(asked, 0)),
        (60, 1, |asked| living(asked, 60)),
        (DAY, 1, |asked| living(asked, u32::MAX)),
    ];
    for (kept_at_most, asked_for, answers) in cases {
        let server = Server::start(answers).await;
        for _ in 0..2 {
            assert_eq!(server.hosts(DOMAIN).await.expect("the truth"), [IpAddr::V4(TRUTH)]);
        }
        let is_domain = |asked: &&String| asked.trim_end_matches('.').eq_ignore_ascii_case(DOMAIN);
        let asked = server.questions().iter().filter(is_domain).count();
        assert_eq!(asked, asked_for, "kept for {kept_at_most} s at most");
        let lookup = server.resolver.inner().lookup(DOMAIN, RecordType::MX).await.expect("the truth");
        let kept = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
        assert!(kept <= Duration::from_secs(kept_at_most), "{kept:?} for {kept_at_most} s at most");
    }
}
