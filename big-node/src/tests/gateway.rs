//! Inside gateways: what goes by them, what their hosts answer, and what of it the edge has no say in.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use shared::store::{BodyKey, Rows};
use shared::unit::Unsettled;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::*;
use crate::directory::{NewGateway, Reach};
use crate::gateway::queue::{self, Due};
use crate::gateway::{hand_over, pick_up};
use crate::record::{Handover, REPORTS, Takes};

/// For hosts and attempts; what blocks is done outside.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// An LMTP host on loopback. At each final dot it says the next lines of its script; a message without lines
/// gets none, and the connection ends.
struct Host {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn start(script: Vec<Vec<&'static str>>) -> Self {
        Self::offering(None, script)
    }

    /// Offers STARTTLS, if it has a reply to it, and does no TLS.
    fn offering(starttls: Option<&'static str>, script: Vec<Vec<&'static str>>) -> Self {
        let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let lines = Arc::clone(&heard);
        RUNTIME.spawn(async move {
            for replies in script {
                let (stream, _) = listener.accept().await.expect("a client");
                let _ = Self::serve(stream, starttls, &replies, &lines).await;
            }
        });
        Self { address, heard }
    }

    async fn serve(
        stream: TcpStream,
        starttls: Option<&str>,
        replies: &[&str],
        heard: &Mutex<Vec<String>>,
    ) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 inside LMTP\r\n").await?;
        let mut content = false;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            heard.lock().expect("not poisoned").push(line.trim_end().to_owned());
            let answer = match line.trim_end() {
                "." if replies.is_empty() => return Ok(()),
                "." => {
                    content = false;
                    replies.iter().map(|reply| format!("{reply}\r\n")).collect()
                }
                _ if content => continue,
                "DATA" => {
                    content = true;
                    "354 go on\r\n".to_owned()
                }
                line if line.starts_with("LHLO") => {
                    let offer = starttls.map_or("", |_| "250-STARTTLS\r\n");
                    format!("250-inside\r\n{offer}250 8BITMIME\r\n")
                }
                "STARTTLS" => match starttls {
                    // Whoever comes to the handshake is hung up on.
                    Some(reply) if reply.starts_with("220") => {
                        return stream.write_all(format!("{reply}\r\n").as_bytes()).await;
                    }
                    reply => format!("{}\r\n", reply.unwrap_or("502 5.5.1 unknown")),
                },
                line if line.contains("unknown@") => "550 5.1.1 nobody\r\n".to_owned(),
                _ => "250 2.0.0 fine\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await?;
        }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("not poisoned").clone()
    }
}

impl World {
    fn gateway(&self, reach: Reach, domain: &str) {
        let new =
            NewGateway { name: "inside".into(), reach, domains: vec![domain.into()], takes: Takes::Any };
        let gateway = directory::new_gateway(&self.store.read().expect("reads"), &new, NOW);
        self.add(Record::Gateway(gateway.expect("a gateway")));
    }

    fn lmtp(&self, host: &Host, domain: &str) {
        // Nobody listens at the first.
        let lmtp = vec!["127.0.0.1:9".into(), host.address.to_string()];
        self.gateway(Reach { lmtp, ..Reach::default() }, domain);
    }

    fn state(&self, id: MessageId, index: u32) -> Recipient {
        let key = mail::recipient_key(id, index);
        self.store.read().and_then(|rows| rows.get(RECIPIENTS, &key)).expect("reads").expect("is there")
    }

    fn handover(&self, id: MessageId) -> Option<Handover> {
        queue::get(&self.store.read().expect("reads"), &due(id)).expect("reads")
    }

    fn scheduled(&self, now: u64) -> Vec<MessageId> {
        queue::due(&self.store.read().expect("reads"), "inside", now, 100)
            .expect("reads")
            .0
            .into_iter()
            .map(|due| due.message)
            .collect()
    }

    fn attempt(&self, id: MessageId) {
        RUNTIME.block_on(hand_over(&self.store, &self.site, &due(id))).expect("is recorded");
    }

    fn pick_up(&self, folder: &Path) -> usize {
        self.pick_up_behind(folder, &mut None)
    }

    fn pick_up_behind(&self, folder: &Path, after: &mut Option<String>) -> usize {
        RUNTIME.block_on(pick_up(&self.store, &self.site, "inside", folder, after)).expect("picks up")
    }
}

fn due(message: MessageId) -> Due {
    Due { gateway: "inside".into(), message, revision: 0 }
}

#[test]
fn each_recipient_has_the_answer_that_the_host_gave_for_them() {
    let world = World::new();
    let host = Host::start(vec![
        vec!["250 2.0.0 kept", "552 5.2.2 over quota", "452 4.2.0 locked"],
        vec!["250 2.0.0 kept now"],
    ]);
    world.lmtp(&host, "legacy.example");
    let policy = &world.site.policy;
    let mut group =
        directory::new_group(policy, &NewGroup { name: "all".into(), ..NewGroup::default() }, NOW)
            .expect("a group");
    let members =
        ["good@legacy.example", "unknown@legacy.example", "full@legacy.example", "busy@legacy.example"];
    let rows = world.store.read().expect("reads");
    directory::join(&rows, policy, &mut group, &members.map(str::to_owned)).expect("are outside");
    world.add(Record::Group(group));

    let letter = Letter::new("carol@remote.example", "all@example.com");
    assert_eq!(letter.send(&world), Ok(()));
    assert!(!world.queued().iter().any(|unit| matches!(unit, ToEdge::Outbound(_))), "not by the edge");
    assert_eq!(world.scheduled(NOW), [letter.id]);
    world.attempt(letter.id);
    let states: Vec<_> = (0..4).map(|index| world.state(letter.id, index)).collect();
    let seen: Vec<_> = states.iter().map(|row| (row.state, row.status.as_str())).collect();
    assert_eq!(
        seen,
        [
            (DeliveryState::Relayed, "2.0.0"),
            (DeliveryState::Failed, "5.1.1"),
            (DeliveryState::Failed, "5.2.2"),
            (DeliveryState::Deferred, "4.2.0"),
        ]
    );
    assert!(
        states[3].next_attempt_at.is_some() && states[0].host.as_deref() == Some(&host.address.to_string())
    );
    let heard = host.heard();
    let unchanged = heard.iter().any(|line| line.starts_with("MAIL FROM:<carol@remote.example>"));
    assert!(unchanged, "{heard:?}");
    assert!(heard.contains(&"text".to_owned()));

    // Only who waits is attempted again, and only once it is due.
    assert_eq!(world.handover(letter.id).map(|row| row.recipients), Some(vec![3]));
    let later = states[3].next_attempt_at.expect("there is one");
    assert!(world.scheduled(later - 1).is_empty());
    assert_eq!(world.scheduled(later), [letter.id]);
    world.attempt(letter.id);
    let again: Vec<_> = host.heard().split_off(heard.len());
    let asked: Vec<_> = again.iter().filter(|line| line.starts_with("RCPT")).collect();
    assert_eq!(asked, ["RCPT TO:<busy@legacy.example>"]);
    assert_eq!(world.state(letter.id, 3).state, DeliveryState::Relayed);

    // The report quotes the message: it is kept until that is written, and gone after it.
    let body = BodyKey(letter.origin().body);
    let owed = |world: &World| world.store.read().and_then(|rows| rows.raw(REPORTS, &letter.id.0));
    assert!(owed(&world).expect("reads").is_some() && world.store.body(body).is_ok());
    assert!(world.scheduled(u64::MAX - 1).is_empty());
    let id = letter.id;
    let written = world.store.commit_blocking(move |txn| {
        txn.delete(REPORTS, &id.0)?;
        queue::sweep(txn, id)
    });
    written.expect("commits");
    assert!(world.handover(id).is_none() && world.store.body(body).is_err());
}

#[test]
fn a_host_that_may_have_it_is_asked_again() {
    let world = World::new();
    let host = Host::start(vec![vec![], vec!["250 2.0.0 kept"]]);
    world.lmtp(&host, "example.com");
    let letter = Letter::new("carol@remote.example", "gone@example.com");
    letter.send(&world).expect("is taken in");
    assert!(world.entry("alice", letter.id).is_none(), "the gateway has it, not the postmaster");
    world.attempt(letter.id);
    let row = world.state(letter.id, 0);
    assert_eq!((row.state, row.in_doubt), (DeliveryState::Deferred, true), "{}", row.text);
    world.attempt(letter.id);
    let row = world.state(letter.id, 0);
    assert_eq!((row.state, row.in_doubt), (DeliveryState::Relayed, false), "{}", row.text);
    assert!(world.handover(letter.id).is_none());
}

#[test]
fn a_gateway_that_is_down_or_gone_is_said() {
    let world = World::new();
    let nobody =
        RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port").local_addr().expect("an address");
    world.gateway(Reach { smtp: vec![nobody.to_string()], ..Reach::default() }, "legacy.example");
    let policy = &world.site.policy;
    let shadow = NewShadow { name: "old".into(), target: "o@legacy.example".into(), ..NewShadow::default() };
    world.add(Record::Shadow(
        directory::new_shadow(&world.store.read().expect("reads"), policy, shadow, NOW).expect("a shadow"),
    ));
    let letter = Letter::new("carol@remote.example", "old@example.com");
    letter.send(&world).expect("is taken in");
    world.attempt(letter.id);
    let row = world.state(letter.id, 0);
    assert_eq!((row.state, row.status.as_str()), (DeliveryState::Deferred, "4.4.1"), "{}", row.text);
    assert!(row.text.starts_with("the host cannot be reached"), "{}", row.text);
    assert_eq!(row.host, Some(nobody.to_string()), "for our operator");
    assert_eq!(world.handover(letter.id).map(|row| row.attempts), Some(1));
    let site = Arc::clone(&world.site);
    let removed = world.store.commit_blocking(move |txn| {
        let gateway = directory::known_gateway(txn, "inside")?;
        directory::remove(txn, &site.policy, &Record::Gateway(gateway), NOW)
    });
    removed.expect("is removed");
    world.attempt(letter.id);
    let row = world.state(letter.id, 0);
    assert_eq!((row.state, row.text.as_str()), (DeliveryState::Failed, "the gateway inside was removed"));
}

const CAROL: &str = "carol@remote.example";

/// What becomes of mail of that sender that came with REQUIRETLS, if `hosts` are those of its gateway.
fn required(from: &'static str, hosts: &[&Host]) -> (DeliveryState, String) {
    let row = required_row(from, hosts);
    (row.state, row.status)
}

fn required_row(from: &'static str, hosts: &[&Host]) -> Recipient {
    let world = World::new();
    let hosts = hosts.iter().map(|host| host.address.to_string());
    world.gateway(Reach { lmtp: hosts.collect(), ..Reach::default() }, "example.com");
    let letter = Letter { tls_wish: TlsWish::Required, ..Letter::new(from, "gone@example.com") };
    letter.send(&world).expect("is taken in");
    world.attempt(letter.id);
    world.state(letter.id, 0)
}

#[test]
fn what_came_with_requiretls_goes_to_no_host_in_clear() {
    let failed = (DeliveryState::Failed, "5.7.10".to_owned());
    let (one, other) = (Host::start(vec![vec![]]), Host::start(vec![vec![]]));
    assert_eq!(required(CAROL, &[&one, &other]), failed);
    for host in [one, other] {
        assert!(host.heard().iter().all(|line| !line.starts_with("MAIL")), "{:?}", host.heard());
    }
    // While one is away, it may be one with TLS, better or worse.
    let clear = || Host::start(vec![vec![]]);
    let away = || Host { address: ([127, 0, 0, 1], 9).into(), heard: Arc::default() };
    assert_eq!(required(CAROL, &[&away(), &clear()]), (DeliveryState::Deferred, "4.4.1".to_owned()));
    assert_eq!(required(CAROL, &[&clear(), &away()]), (DeliveryState::Deferred, "4.4.1".to_owned()));
    let (_, closed) = required(CAROL, &[&clear(), &away(), &clear()]);
    assert_eq!(closed, "4.4.1");
    // A report is not lost for it.
    let taken = Host::start(vec![vec!["250 2.0.0 kept"]]);
    assert_eq!(required("", &[&taken]).0, DeliveryState::Relayed);
    assert!(taken.heard().iter().any(|line| line == "MAIL FROM:<>"), "{:?}", taken.heard());
}

/// A report quotes the row's words, and goes to strangers.
#[test]
fn the_address_of_a_host_that_fails_at_tls_is_told_to_nobody() {
    let host = Host::offering(Some("220 go on"), vec![vec![]]);
    let row = required_row(CAROL, &[&host]);
    assert_eq!((row.state, row.status.as_str()), (DeliveryState::Deferred, "4.7.5"), "{}", row.text);
    assert!(row.text.starts_with("the host offers TLS and fails at it"), "{}", row.text);
    assert!(!row.text.contains("127.0.0.1"), "{}", row.text);
}

#[test]
fn a_host_that_has_no_tls_now_is_asked_again_for_mail_under_requiretls() {
    let host = Host::offering(Some("454 4.7.0 no entropy"), vec![vec![]]);
    let row = required_row(CAROL, &[&host]);
    assert_eq!((row.state, row.status.as_str()), (DeliveryState::Deferred, "4.7.0"), "{}", row.text);
    assert_eq!(row.text, "the host has no TLS now: 454 4.7.0 no entropy");
    let never = Host::offering(Some("502 5.5.1 no certificate"), vec![vec![]]);
    let row = required_row(CAROL, &[&never]);
    assert_eq!((row.state, row.status.as_str()), (DeliveryState::Failed, "5.7.10"), "{}", row.text);
    assert!(row.text.ends_with("refuses it: 502 5.5.1 no certificate"), "{}", row.text);
}

#[test]
fn what_is_not_handed_over_in_five_days_fails() {
    use shared::smtp::Enhanced;
    use shared::smtp::client::{Class, Status};
    let world = World::new();
    world.gateway(Reach { smtp: vec!["10.0.0.9:25".into()], ..Reach::default() }, "example.com");
    let letter = Letter::new("carol@remote.example", "gone@example.com");
    letter.send(&world).expect("is taken in");
    let id = letter.id;
    let report = |now: u64, lived: u64| {
        let passed = Duration::from_millis(lived);
        world.store.commit_blocking(move |txn| shared::age::live_on(txn, passed, now)).expect("commits");
        let status = Status::ours(Class::Temporary, Enhanced(4, 4, 1), "down");
        let site = Arc::clone(&world.site);
        let report = queue::Report { recipient: 0, status, host: None, tls: None, host_reports: false };
        world
            .store
            .commit_blocking(move |txn| queue::record(txn, &site, &due(id), vec![report], now))
            .expect("commits");
        world.state(id, 0)
    };
    let day = 24 * 3_600_000;
    assert_eq!(report(NOW, 0).next_attempt_at, Some(NOW + 5_000));
    assert_eq!(report(NOW + 4 * day, 4 * day).next_attempt_at, Some(NOW + 4 * day + 30_000));
    let years = 10 * 365 * day;
    assert_eq!(report(NOW + years, day - 1).state, DeliveryState::Deferred, "the clock jumps ahead");
    let due =
        |now| queue::due(&world.store.read().expect("reads"), "inside", now, 10).expect("reads").0.len();
    assert_eq!((due(NOW + years), due(NOW)), (0, 1), "nothing waits for a clock that went back");
    assert_eq!(report(NOW, 0).state, DeliveryState::Deferred, "and back");
    let row = report(NOW, 1);
    assert_eq!((row.state, row.status.as_str()), (DeliveryState::Failed, "4.4.7"));
    assert!(row.text.contains("given up after 5 attempts"), "{}", row.text);
}

#[test]
fn the_edge_has_no_say_in_what_goes_by_a_gateway() {
    let world = World::new();
    world.gateway(Reach { lmtp: vec!["10.0.0.9:24".into()], ..Reach::default() }, "example.com");
    let letter = Letter::new("carol@remote.example", "gone@example.com");
    letter.send(&world).expect("is taken in");
    let outcome = Outcome {
        message: letter.id.0,
        recipient: 0,
        state: DeliveryState::Relayed,
        at: NOW,
        host: None,
        tls: None,
        relay: None,
        text: "trust me".into(),
        status: "2.0.0".into(),
        in_doubt: false,
        host_reports: false,
        next_attempt_at: None,
    };
    let refused = world.apply(&ToBig::Outcome(outcome), None).expect_err("is refused");
    assert!(refused.contains("does not go by the edge"), "{refused}");
    assert_eq!(world.state(letter.id, 0).state, DeliveryState::Queued);
    // An edge that went back is told of nothing that is not its own.
    let site = Arc::clone(&world.site);
    world.store.commit_blocking(move |txn| reconcile::edge_went_back(txn, &site)).expect("commits");
    let mut lists = 0;
    for unit in world.queued() {
        match unit {
            ToEdge::Unsettled(Unsettled { messages, .. }) => {
                assert!(messages.is_empty());
                lists += 1;
            }
            ToEdge::Outbound(_) => panic!("is offered to the edge"),
            _ => {}
        }
    }
    assert_eq!(lists, 1);
}

#[test]
fn what_a_rebuild_finds_is_held_until_an_operator_lets_it_go() {
    let world = World::new();
    world.gateway(Reach { lmtp: vec!["10.0.0.9:24".into()], ..Reach::default() }, "example.com");
    let letter = Letter::new("carol@remote.example", "gone@example.com");
    let (id, body) = (letter.id, BodyKey(letter.origin().body));
    letter.is_found(&world);
    assert_eq!(world.handover(id).map(|row| row.held), Some(true));
    assert!(world.scheduled(u64::MAX - 1).is_empty());
    assert_eq!(world.state(id, 0).text, queue::HELD);
    world.store.commit_blocking(move |txn| queue::retry(txn, id, NOW)).expect("waits");
    assert_eq!(world.scheduled(NOW), [id]);
    assert!(world.store.body(body).is_ok());
    let nothing = MessageId::generate();
    assert!(world.store.commit_blocking(move |txn| queue::retry(txn, nothing, NOW)).is_err());
}

#[test]
fn a_drop_directory_gets_the_message_and_then_its_envelope() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8").to_owned();
    world.gateway(Reach { drop: Some(path), ..Reach::default() }, "example.com");
    let letter =
        Letter { tls_wish: TlsWish::Required, ..Letter::new("carol@remote.example", "gone@example.com") };
    letter.send(&world).expect("is taken in");
    // What lies in the way is not written through.
    let victim = folder.path().join("victim");
    fs::write(&victim, "untouched").expect("writes");
    for ending in ["eml", "json"] {
        symlink(&victim, folder.path().join(format!(".{}.{ending}.part", letter.id))).expect("links");
    }
    world.attempt(letter.id);
    let row = world.state(letter.id, 0);
    assert_eq!(row.state, DeliveryState::Relayed, "{}", row.text);
    let read =
        |ending: &str| fs::read(folder.path().join(format!("{}.{ending}", letter.id))).expect("is there");
    assert_eq!(read("eml"), letter.content);
    let envelope: serde_json::Value = serde_json::from_slice(&read("json")).expect("JSON");
    assert_eq!(envelope["reverse_path"], "carol@remote.example");
    assert_eq!(envelope["recipients"], serde_json::json!(["gone@example.com"]));
    assert_eq!((&envelope["size"], &envelope["require_tls"]), (&letter.content.len().into(), &true.into()));
    assert_eq!(envelope["blake3"], blake3::hash(&letter.content).to_hex().as_str());
    assert_eq!(fs::read(&victim).expect("is there"), b"untouched");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3, "nothing unfinished is left");
    // A folder that is not there is a fault that may be mended.
    let other = Letter::new("carol@remote.example", "gone@example.com");
    other.send(&world).expect("is taken in");
    fs::remove_dir_all(folder.path()).expect("is removed");
    world.attempt(other.id);
    assert_eq!(world.state(other.id, 0).state, DeliveryState::Deferred);
}

fn pair(folder: &Path, name: &str, envelope: &str, content: &str) {
    fs::write(folder.join(format!("{name}.eml")), content).expect("writes");
    let json = File::create(folder.join(format!("{name}.json"))).expect("creates");
    std::io::Write::write_all(&mut &json, envelope.as_bytes()).expect("writes");
    json.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("is older");
}

/// Looks at hundreds of pairs that are not ready: what lies behind them comes all the same, and so does what is new.
#[test]
fn pairs_that_cannot_be_taken_keep_no_others_waiting() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let content = "From: x@legacy.example\r\nSubject: back\r\n\r\ntext\r\n";
    let good = format!(
        r#"{{"reverse_path":"x@legacy.example","recipients":["alice@example.com"],"size":{}}}"#,
        content.len()
    );
    for number in 0..550 {
        fs::write(at.join(format!("m{number}.json")), "{").expect("writes");
    }
    pair(at, "z", &good, content);
    let mut after = None;
    let taken: Vec<_> = (0..6).map(|_| world.pick_up_behind(at, &mut after)).collect();
    assert_eq!(taken, [0, 0, 0, 0, 0, 1]);
    pair(at, "a", &good, content);
    assert_eq!(world.pick_up_behind(at, &mut after), 1, "it begins anew at the end");
}

#[test]
fn pairs_are_picked_up_once_and_bad_ones_set_aside() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let content = "From: x@legacy.example\r\nSubject: back\r\n\r\ntext\r\n";
    let envelope = |to: &str, size: usize| {
        format!(r#"{{"reverse_path":"x@legacy.example","recipients":["{to}"],"size":{size},"more":1}}"#)
    };
    let good = envelope("alice@example.com", content.len());
    pair(at, "good", &good.replace("\"more\":1", "\"require_tls\":true"), content);
    pair(at, "short", &envelope("alice@example.com", content.len() + 1), content);
    pair(at, "nobody", &envelope("not an address", content.len()), content);
    pair(at, "lines", &envelope("alice@example.com", 7), "a: b\n\nc");
    pair(at, "hash", &good.replace("\"more\":1", "\"blake3\":\"00\""), content);
    pair(at, "half", "{\"reverse_path\":", content);
    pair(at, ".hidden", &good, content);
    // Another file of this host's under the name of a message, and of an envelope.
    fs::write(at.join("secret"), content).expect("writes");
    pair(at, "link", &good, content);
    fs::remove_file(at.join("link.eml")).expect("is removed");
    symlink(at.join("secret"), at.join("link.eml")).expect("links");
    pair(at, "hard", &good, content);
    fs::remove_file(at.join("hard.eml")).expect("is removed");
    fs::hard_link(at.join("secret"), at.join("hard.eml")).expect("links");
    // One that is being written still.
    fs::write(at.join("young.json"), "{").expect("writes");

    let picked = world.pick_up(at);
    assert_eq!(picked, 1);
    let alice = world.known("alice").id;
    let filed = |world: &World| {
        let rows = world.store.read().expect("reads");
        let found = rows.prefix::<Message>(MESSAGES, &[], 100).expect("reads");
        let ids = found.iter().map(|(key, _)| MessageId(key.as_slice().try_into().expect("an id")));
        let ids: Vec<_> =
            ids.filter(|id| mail::entry(&rows, &alice, *id).expect("reads").is_some()).collect();
        (
            ids.len(),
            found
                .into_iter()
                .map(|(_, message)| (message.origin.channel, message.origin.tls_wish))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(filed(&world), (1, vec![(Channel::Gateway { name: "inside".into() }, TlsWish::Required)]));
    let mut left: Vec<_> =
        fs::read_dir(at).expect("a folder").map(|entry| entry.expect("reads").file_name()).collect();
    left.sort();
    assert_eq!(left, [".hidden.eml", ".hidden.json", "bad", "secret", "young.json"]);
    for (name, reason) in [
        ("short", "octets, not"),
        ("nobody", "not an address"),
        ("lines", "CR and LF"),
        ("hash", "hash"),
        ("half", "the envelope"),
        ("link", "the message"),
        ("hard", "plain file"),
    ] {
        let text = fs::read_to_string(at.join(format!("bad/{name}.reason"))).expect(name);
        assert!(text.contains(reason), "{name}: {text}");
        assert!(fs::symlink_metadata(at.join(format!("bad/{name}.json"))).is_ok(), "{name}");
    }

    // It has our trace before it, and is otherwise as it was put there.
    let rows = world.store.read().expect("reads");
    let (key, message) = rows.prefix::<Message>(MESSAGES, &[], 1).expect("reads").remove(0);
    let stored = mail::content(world.store.body(message.body()).expect("is there"), &message, 4096);
    let stored = String::from_utf8(stored.expect("is whole")).expect("is text");
    let (trace, rest) = stored.split_at(message.origin.trace_bytes as usize);
    assert_eq!(rest, content);
    let id = MessageId(key.as_slice().try_into().expect("an id"));
    let begins = format!(
        "Return-Path: <x@legacy.example>\r\nReceived: by example.com with local id {id}\r\n\t(gateway "
    );
    assert!(trace.starts_with(&begins) && trace.ends_with("+0000\r\n"), "{trace}");

    // Another system sends it back again and again: the third time it is set aside.
    let mut round = stored;
    for time in 1..=2 {
        let name = format!("round{time}");
        pair(at, &name, &envelope("alice@example.com", round.len()), &round);
        world.pick_up(at);
        let reason = fs::read_to_string(at.join(format!("bad/{name}.reason")));
        assert_eq!(reason.is_ok_and(|text| text.contains("round in a loop")), time == 2, "the {time}. time");
        let rows = world.store.read().expect("reads");
        let mut found = rows.prefix::<Message>(MESSAGES, &[], 100).expect("reads");
        found.sort_by_key(|(_, message)| message.origin.size);
        let (_, longest) = found.pop().expect("there is one");
        let stored = mail::content(world.store.body(longest.body()).expect("is there"), &longest, 4096);
        round = String::from_utf8(stored.expect("is whole")).expect("is text");
    }
    let before = filed(&world).0;

    // Cut short between the commit and the removal: found again, and known.
    let modified = SystemTime::now() - Duration::from_secs(90);
    for _ in 0..2 {
        pair(at, "again", &good, content);
        File::options()
            .write(true)
            .open(at.join("again.json"))
            .expect("opens")
            .set_modified(modified)
            .expect("is set");
        world.pick_up(at);
        assert_eq!(filed(&world).0, before + 1);
        assert!(!at.join("again.json").exists() && !at.join("again.eml").exists());
    }
}
