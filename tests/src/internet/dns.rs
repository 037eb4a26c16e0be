//! An authoritative DNS server on loopback, for every name there is.
//!
//! It answers from a small table over UDP and TCP, with authority from the root down: a name that
//! nobody published does not exist (NXDOMAIN), a name without the type asked for has no data
//! (RFC 2308), a CNAME is followed as far as the table reaches (RFC 1034 §3.6.2), and a name told to
//! fail answers SERVFAIL. It recurses to nobody, so a test never leaves the machine. The table can be
//! changed while it runs, and every question is kept, so that a test can ask what was looked up.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, MX, SOA, TLSA, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

/// Seconds an answer may be cached: none, so that a change is seen by the next question.
const TTL: u32 = 0;
/// Steps along a chain of CNAMEs.
const CNAME_STEPS_MAX: usize = 8;
/// How long a TCP client may be silent.
pub(super) const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers buffered for one TCP client.
pub(super) const TCP_ANSWERS_MAX: usize = 32;
/// Attempts to find one port that is free for both UDP and TCP.
const BIND_ATTEMPTS: usize = 20;

/// What one organisation publishes.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(super) apex: Name,
    pub(super) records: Vec<(Name, RData)>,
}

impl Zone {
    /// An empty zone at `apex`, such as `remote.example`. The apex exists even if nothing is added.
    ///
    /// # Panics
    /// Here and below, if a text is not a domain name: it is the test that is wrong.
    pub fn new(apex: &str) -> Self {
        Self { apex: name(apex), records: Vec::new() }
    }

    /// The apex has a mail exchanger `host`.
    pub fn mx(self, preference: u16, host: &str) -> Self {
        let apex = self.apex.clone();
        self.with(apex, RData::MX(MX::new(preference, name(host))))
    }

    /// The apex takes no mail at all (RFC 7505).
    pub fn null_mx(self) -> Self {
        self.mx(0, ".")
    }

    /// `host` has an address: A or AAAA, by its kind.
    pub fn a(self, host: &str, address: impl Into<IpAddr>) -> Self {
        let data = match address.into() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.with(name(host), data)
    }

    /// `host` has a text record, in as many strings as it takes (RFC 1035 §3.3.14).
    pub fn txt(self, host: &str, text: &str) -> Self {
        let strings = text.as_bytes().chunks(255).map(|string| String::from_utf8_lossy(string).into_owned());
        self.with(name(host), RData::TXT(TXT::new(strings.collect())))
    }

    /// `alias` is another name of `target`.
    pub fn cname(self, alias: &str, target: &str) -> Self {
        self.with(name(alias), RData::CNAME(CNAME(name(target))))
    }

    /// The certificate of the service at `port` of `host` is the one that these numbers and octets name (RFC 6698).
    pub fn tlsa(self, host: &str, port: u16, (usage, selector, matching): (u8, u8, u8), data: &[u8]) -> Self {
        let tlsa = TLSA::new(usage.into(), selector.into(), matching.into(), data.to_vec());
        self.with(name(&format!("_{port}._tcp.{host}")), RData::TLSA(tlsa))
    }

    fn with(mut self, owner: Name, data: RData) -> Self {
        self.records.push((owner, data));
        self
    }
}

/// A running server. It stops when it is dropped.
pub struct Dns {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
    server: Server<Answers>,
}

impl Dns {
    /// Starts on a free port of 127.0.0.1, the same for UDP and TCP.
    pub async fn start(zones: impl IntoIterator<Item = Zone>) -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), zones).await
    }

    /// Starts at `address`; port 0 takes a free one.
    pub async fn start_at(
        address: SocketAddr,
        zones: impl IntoIterator<Item = Zone>,
    ) -> std::io::Result<Self> {
        let (udp, tcp) = bind(address).await?;
        let address = udp.local_addr()?;
        let table = Arc::new(Mutex::new(Table::default()));
        let mut server = Server::new(Answers(table.clone()));
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS_MAX);
        let dns = Self { address, table, server };
        for zone in zones {
            dns.publish(zone);
        }
        Ok(dns)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Publishes `zone`, in place of what was known of the same names.
    pub fn publish(&self, zone: Zone) {
        let mut table = lock(&self.table);
        table.names.insert(zone.apex, Vec::new());
        for (owner, _) in &zone.records {
            table.names.insert(owner.clone(), Vec::new());
        }
        for (owner, data) in zone.records {
            table.names.entry(owner).or_default().push(data);
        }
    }

    /// Questions about `host` are answered SERVFAIL until it is [mended](Self::mend).
    pub fn fail(&self, host: &str) {
        lock(&self.table).failing.insert(name(host));
    }

    /// Ends a failure.
    pub fn mend(&self, host: &str) {
        let mut table = lock(&self.table);
        table.failing.remove(&name(host));
        table.silent.remove(&name(host));
    }

    /// Questions about `host` get no answer at all, until it is [mended](Self::mend).
    pub fn silence(&self, host: &str) {
        lock(&self.table).silent.insert(name(host));
    }

    /// Every question so far, such as `("remote.example", "MX")`, in order.
    pub fn questions(&self) -> Vec<(String, String)> {
        lock(&self.table).questions.clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.server.shutdown_token().cancel();
    }
}

/// A socket and a listener at `address`; port 0 takes one that is free for both.
pub(super) async fn bind(address: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut attempt = 1;
    loop {
        let udp = UdpSocket::bind(address).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(_) if address.port() == 0 && attempt < BIND_ATTEMPTS => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

pub(super) fn name(text: &str) -> Name {
    let mut name = Name::from_str(text).expect("a test names a valid domain").to_lowercase();
    name.set_fqdn(true);
    name
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Table {
    names: HashMap<Name, Vec<RData>>,
    failing: HashSet<Name>,
    silent: HashSet<Name>,
    questions: Vec<(String, String)>,
}

impl Table {
    fn answer(&mut self, asked: &Name, kind: RecordType) -> (ResponseCode, Vec<Record>) {
        let asked = asked.to_lowercase();
        self.questions.push((asked.to_string().trim_end_matches('.').to_owned(), kind.to_string()));
        let mut owner = asked;
        let mut answers = Vec::new();
        for _ in 0..CNAME_STEPS_MAX {
            if self.failing.contains(&owner) {
                return (ResponseCode::ServFail, Vec::new());
            }
            let Some(data) = self.names.get(&owner) else {
                return (self.absent(&owner), answers);
            };
            let matching = data.iter().filter(|data| data.record_type() == kind);
            answers.extend(matching.map(|data| Record::from_rdata(owner.clone(), TTL, data.clone())));
            let alias = data.iter().find_map(|data| match data {
                RData::CNAME(CNAME(target)) if kind != RecordType::CNAME => Some(target.clone()),
                _ => None,
            });
            let Some(target) = alias else { return (ResponseCode::NoError, answers) };
            answers.push(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
            owner = target;
        }
        (ResponseCode::ServFail, Vec::new())
    }

    /// A name below which others exist is there, though empty (RFC 8020).
    fn absent(&self, owner: &Name) -> ResponseCode {
        if self.names.keys().any(|known| owner.zone_of(known)) {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        }
    }
}

/// hickory's way in: one question, one answer.
struct Answers(Arc<Mutex<Table>>);

#[async_trait::async_trait]
impl RequestHandler for Answers {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut responses: R,
    ) -> ResponseInfo {
        let is_silent = |name: &Name| lock(&self.0).silent.contains(&name.to_lowercase());
        if request.request_info().is_ok_and(|info| is_silent(info.query.original().name())) {
            std::future::pending::<()>().await;
        }
        let (code, answers) = match request.request_info() {
            Ok(info) => lock(&self.0).answer(info.query.original().name(), info.query.query_type()),
            Err(_) => (ResponseCode::FormErr, Vec::new()),
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        metadata.authoritative = true;
        let root = start_of_authority();
        let negative = answers.is_empty() && matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().max(512));
            edns
        });
        let mut response = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            response.edns(edns);
        }
        let response = response.build(metadata, &answers, [], negative.then_some(&root), []);
        match responses.send_response(response).await {
            Ok(info) => info,
            // The asker is gone: what would have been said is only for hickory's counters.
            Err(_) => hickory_server::proto::op::Header { metadata, counts: Default::default() }.into(),
        }
    }
}

/// The root's SOA, whose presence makes a negative answer one (RFC 2308 §2).
pub(super) fn start_of_authority() -> Record {
    let soa = SOA::new(name("a.root.example"), name("hostmaster.root.example"), 1, 3600, 600, 86_400, TTL);
    Record::from_rdata(Name::root(), TTL, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_server::proto::op::{Message, MessageType, OpCode, Query};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn question(host: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name(host), kind));
        message.to_vec().expect("encodable")
    }

    async fn ask(dns: &Dns, host: &str, kind: RecordType) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        socket.send_to(&question(host, kind), dns.address()).await.expect("sent");
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer).await.expect("an answer");
        Message::from_vec(&answer[..length]).expect("a message")
    }

    async fn check(dns: &Dns, host: &str, kind: RecordType, code: ResponseCode, answers: &[&str]) {
        let message = ask(dns, host, kind).await;
        let texts: Vec<_> =
            message.answers.iter().map(|r| format!("{} {}", r.record_type(), r.data)).collect();
        assert_eq!(message.metadata.response_code, code, "{host}");
        assert_eq!(texts, answers, "{host}");
        assert!(message.metadata.authoritative, "{host}");
        let negative = answers.is_empty() && code != ResponseCode::ServFail;
        assert_eq!(message.authorities.len(), usize::from(negative), "{host}: SOA");
    }

    async fn server() -> Dns {
        let zones = [
            Zone::new("remote.example")
                .mx(20, "backup.remote.example")
                .mx(10, "mx.remote.example")
                .a("mx.remote.example", [127, 0, 0, 1])
                .a("mx.remote.example", [0, 0, 0, 0, 0, 0, 0, 1])
                .txt("remote.example", "v=spf1 mx -all")
                .cname("mail.remote.example", "mx.remote.example"),
            Zone::new("deaf.example").null_mx(),
        ];
        Dns::start(zones).await.expect("a server")
    }

    #[tokio::test]
    async fn every_kind_of_record_is_answered() {
        let dns = server().await;
        use RecordType::{A, AAAA, MX, TXT};
        let ok = ResponseCode::NoError;
        let exchangers = ["MX 20 backup.remote.example.", "MX 10 mx.remote.example."];
        check(&dns, "Remote.Example", MX, ok, &exchangers).await;
        check(&dns, "mx.remote.example", A, ok, &["A 127.0.0.1"]).await;
        check(&dns, "mx.remote.example", AAAA, ok, &["AAAA ::1"]).await;
        check(&dns, "remote.example", TXT, ok, &["TXT v=spf1 mx -all"]).await;
        check(&dns, "mail.remote.example", A, ok, &["CNAME mx.remote.example.", "A 127.0.0.1"]).await;
        check(&dns, "deaf.example", MX, ok, &["MX 0 ."]).await;
        assert_eq!(dns.questions()[0], ("remote.example".into(), "MX".into()));
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_apart() {
        let dns = server().await;
        check(&dns, "remote.example", RecordType::A, ResponseCode::NoError, &[]).await;
        check(&dns, "example", RecordType::A, ResponseCode::NoError, &[]).await;
        check(&dns, "nosuch.example", RecordType::MX, ResponseCode::NXDomain, &[]).await;
        dns.fail("remote.example");
        check(&dns, "remote.example", RecordType::MX, ResponseCode::ServFail, &[]).await;
        dns.mend("remote.example");
        dns.publish(Zone::new("remote.example").mx(5, "new.remote.example"));
        check(&dns, "remote.example", RecordType::MX, ResponseCode::NoError, &["MX 5 new.remote.example."])
            .await;
    }

    #[tokio::test]
    async fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
        let many = (0..60).fold(Zone::new("many.example"), |zone, n| {
            zone.mx(n, &format!("a-rather-long-host-name-{n}.many.example"))
        });
        let dns = Dns::start([many]).await.expect("a server");
        assert!(ask(&dns, "many.example", RecordType::MX).await.metadata.truncation);
        let mut tcp = tokio::net::TcpStream::connect(dns.address()).await.expect("connected");
        let question = question("many.example", RecordType::MX);
        tcp.write_u16(u16::try_from(question.len()).expect("short")).await.expect("sent");
        tcp.write_all(&question).await.expect("sent");
        let mut answer = vec![0; usize::from(tcp.read_u16().await.expect("a length"))];
        tcp.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(Message::from_vec(&answer).expect("a message").answers.len(), 60);
    }
}
