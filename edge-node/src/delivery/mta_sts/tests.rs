//! Policies that grow old, a name server and a web host on loopback.

use std::net::Ipv4Addr;

use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::rdata::{A, TXT};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use shared::id::unix_millis;
use shared::seal::PrivateKey;
use shared::store::Store;
use shared::store::sim::SimDisk;
use shared::topology::{Dnssec, SMALLEST, Topology};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::*;
use crate::cover::Covers;
use crate::web::sample;

/// Domains whose policies are kept: an old one, an old one whose web host has none any more, and one that is not old.
const OLD: &str = "old.example";
const GONE: &str = "gone.example";
const FRESH: &str = "fresh.example";
/// The id of all policies, before and after: that it has changed is not why one is fetched.
const ID: &str = "1";
/// How long policies hold, in seconds: they are old when half of it is over.
const MAX_AGE: u64 = 1_000;
/// How long the node has lived, in milliseconds, when it looks them over.
const LIVED: u64 = MAX_AGE * 1_000 - 1;

/// The policies of a node, and what they are asked of.
struct Lab {
    policies: Policies,
    /// The hosts whose policies were asked for.
    asked: Arc<Mutex<Vec<String>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Lab {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let roots = folder.path().join("roots.pem");
        let (port, asked, web) = web_host(&roots).await;
        let (resolver, dns) = name_server().await;
        let mut topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
        topology.edge.outbound.private_addresses = true;
        topology.edge.outbound.mta_sts = Some(MtaSts { roots: Some(roots), port });
        let store = Store::open(Arc::new(SimDisk::default())).expect("opens");
        let sealing = PrivateKey::from_bytes([1; 32]);
        let node = Arc::new(Node::new(store, Covers::simulated(), topology, sealing, [2; 32]));
        let policies = Policies::open(&node, &Arc::new(resolver)).expect("opens").expect("is wanted");
        Self { policies, asked, tasks: [web, dns] }
    }

    /// Keeps a policy of this domain that was fetched when the node had lived for `fetched` milliseconds.
    async fn keep(&self, domain: &'static str, fetched: u64) -> StsRow {
        let row = StsRow::new(ID.into(), Policy::read(&text(&format!("mx.{domain}"))).expect("one"), fetched);
        let kept = row.clone();
        let keeping = self.policies.node.store.commit(move |txn| cache::keep(txn, domain, &kept));
        keeping.await.expect("commits");
        row
    }

    /// What is kept of this domain, whether it has ended or not.
    fn kept(&self, domain: &str) -> Option<StsRow> {
        cache::find(&self.policies.node.store.read().expect("reads"), domain, 0).expect("reads")
    }
}

fn text(mx: &str) -> String {
    format!("version: STSv1\r\nmode: enforce\r\nmx: {mx}\r\nmax_age: {MAX_AGE}\r\n")
}

/// A web host, whose certificate is put into `roots`: its port, and who was asked about. Every domain has a new policy
/// there but [`GONE`].
async fn web_host(roots: &Path) -> (u16, Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let names = [OLD, GONE, FRESH].map(|domain| format!("mta-sts.{domain}"));
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let hears = Arc::clone(&asked);
    let says = move |request: &str, _| {
        let host = request.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default();
        lock(&hears).push(host.to_owned());
        let (status, body) = match host.strip_prefix("mta-sts.") {
            Some(domain) if domain != GONE => ("200 OK", text(&format!("new.{domain}"))),
            _ => ("404 Not Found", String::new()),
        };
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n\r\n{body}")
    };
    let (address, serving) = sample::serve(names.into(), roots, says).await;
    (address.port(), asked, serving)
}

/// A resolver whose name server says that every domain has a policy of [`ID`], and its web host is on loopback.
async fn name_server() -> (Resolver, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let resolver = Resolver::new(&[socket.local_addr().expect("bound")], &Dnssec::Off).expect("a resolver");
    let serving = tokio::spawn(async move {
        let mut octets = [0; 4_096];
        while let Ok((length, peer)) = socket.recv_from(&mut octets).await {
            let question = Message::from_vec(&octets[..length]).expect("a question");
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.metadata.authoritative = true;
            answer.add_queries(question.queries.clone());
            let query = &question.queries[0];
            let data = match query.query_type() {
                RecordType::TXT => Some(RData::TXT(TXT::new(vec![format!("v=STSv1; id={ID};")]))),
                RecordType::A => Some(RData::A(A(Ipv4Addr::LOCALHOST))),
                _ => None,
            };
            if let Some(data) = data {
                answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            }
            socket.send_to(&answer.to_vec().expect("encodable"), peer).await.expect("sent");
        }
    });
    (resolver, serving)
}

#[tokio::test]
async fn what_is_old_is_fetched_anew_unasked_and_what_is_not_is_left_alone() {
    let lab = Lab::start().await;
    let old = lab.keep(OLD, 0).await;
    let gone = lab.keep(GONE, 0).await;
    let fresh = lab.keep(FRESH, LIVED / 2 + 1).await;
    let living =
        lab.policies.node.store.commit(|txn| age::live_on(txn, Duration::from_millis(LIVED), unix_millis()));
    living.await.expect("commits");
    lab.policies.refresh().await.expect("refreshes");

    let asked = lock(&lab.asked).clone();
    assert_eq!(asked, [format!("mta-sts.{GONE}"), format!("mta-sts.{OLD}")], "what is old, once each");
    let renewed = lab.kept(OLD).expect("is kept");
    assert_eq!(renewed.mx, [format!("new.{OLD}")]);
    assert_eq!((renewed.fetched, renewed.ends), (LIVED, old.ends + LIVED), "it holds for as long again");
    assert_eq!(lab.kept(GONE), Some(gone), "what cannot be fetched holds until it ends");
    assert_eq!(lab.kept(FRESH), Some(fresh));
}
