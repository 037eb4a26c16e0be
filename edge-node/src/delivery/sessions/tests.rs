//! What goes in chunks, what by DATA, and what is remembered of it.

use shared::id::MessageId;
use shared::seal::{BodySealer, FileKey, PrivateKey};
use shared::smtp::client::opportunistic;
use shared::store::Store;
use shared::store::sim::SimDisk;
use shared::topology::{SMALLEST, Topology};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::cover::Covers;
use crate::delivery::record::Recorder;
use crate::queue;
use crate::record::OUTBOUND_KIND;
use crate::revise::{self, Begun};

const MESSAGE: MessageId = MessageId([3; 16]);
const TO: &str = "bob@remote.example";
const BODY: BodyKey = BodyKey([5; 32]);

const HELLO: [&str; 4] = ["220 hello\r\n", "250-hello\r\n250 CHUNKING\r\n", "250 alice\r\n", "250 bob\r\n"];

/// Replies of a session that comes to the first chunk or to DATA, and what it says then.
fn says<const N: usize>(then: [&'static str; N]) -> Vec<&'static str> {
    HELLO.into_iter().chain(then).collect()
}

/// A node, and an attempt of the only message there, `text`.
async fn attempt() -> (Arc<Node>, Begun) {
    let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
    let store = Store::open(Arc::new(SimDisk::default())).expect("opens");
    let sealing = PrivateKey::from_bytes([1; 32]);
    let (key, reader) = (FileKey::generate(), sealing.public());
    let (mut sealer, mut sealed) = (BodySealer::new(&key), Vec::new());
    sealer.push(b"text\r\n", &mut sealed);
    sealer.finish(&mut sealed);
    let mut writer = store.body_writer(BODY, OUTBOUND_KIND);
    writer.write(&sealed).expect("writes");
    let stored = writer.finish(Vec::new()).expect("writes");
    store.commit(move |txn| txn.keep_body(&stored)).await.expect("commits");
    let node = Arc::new(Node::new(store, Covers::simulated(), topology, sealing, [2; 32]));
    let mut row = queue::sample::row([TO.to_owned()], 0);
    (row.body, row.wrapped_key) = (BODY.0, node.wrap(&key, &reader, MESSAGE).expect("wraps"));
    let busy = Arc::clone(&node.busy);
    let begun = node.store.commit(move |txn| {
        queue::put(txn, MESSAGE, &row)?;
        revise::begin(txn, &busy, MESSAGE, None, u64::MAX)
    });
    let begun = begun.await.expect("commits").into_inner().expect("is due");
    (node, begun)
}

/// A host without PIPELINING that says these, one connection after another: each reply but the first behind a command, a chunk that
/// it takes or content. Behind the last it waits for the end, and behind none it hangs up. What it has heard, command by command.
async fn host(connections: Vec<Vec<&'static str>>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, heard) = (listener.local_addr().expect("bound"), Arc::default());
    let hears = Arc::clone(&heard);
    tokio::spawn(async move {
        for replies in connections {
            let (stream, _) = listener.accept().await?;
            let hears = Arc::clone(&hears);
            tokio::spawn(async move { session(stream, &replies, &hears).await });
        }
        Ok::<_, io::Error>(())
    });
    (address, heard)
}

async fn session(mut stream: TcpStream, replies: &[&str], heard: &Mutex<Vec<String>>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let (mut reader, mut before) = (BufReader::new(reader), "");
    for reply in replies {
        let mut line = String::new();
        if before.starts_with("354") {
            while line != ".\r\n" {
                line.clear();
                reader.read_line(&mut line).await?;
            }
        } else if !before.is_empty() {
            reader.read_line(&mut line).await?;
            heard.lock().expect("nobody panics").push(line.trim_end().to_owned());
        }
        if let Some(length) = line.strip_prefix("BDAT ").filter(|_| reply.starts_with("250")) {
            let length = length.split_whitespace().next().and_then(|length| length.parse().ok());
            reader.read_exact(&mut vec![0; length.expect("a number")]).await?;
        }
        writer.write_all(reply.as_bytes()).await?;
        before = reply;
    }
    if !replies.is_empty() {
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
    }
    Ok(())
}

/// Delivers the message over new sessions, once; what came of it.
async fn talk(sessions: &Sessions, begun: &Begun, address: SocketAddr) -> Talk {
    let node = &sessions.node;
    let recipients = [(0, TO.parse::<shared::address::Address>().expect("an address").into())];
    let copies = Copies {
        message: MESSAGE,
        row: &begun.row,
        recipients: &recipients,
        recorder: Recorder { node, message: MESSAGE, begun },
        until: Instant::now() + std::time::Duration::from_secs(600),
    };
    let target = Target {
        name: "mx.remote.example",
        asked: "mx.remote.example",
        addresses: vec![address],
        tls: Arc::new(opportunistic()),
        policy: TlsPolicy::Opportunistic,
        security: Security::Opportunistic,
        login: None,
        is_smart_host: false,
        preference: 10,
        counted: None,
    };
    sessions.talk(copies, "remote.example", &target, vec![address], &Transmission::default()).await.talk
}

/// How content has come: the commands behind RCPT.
fn contents(heard: &Mutex<Vec<String>>) -> Vec<String> {
    let heard = heard.lock().expect("nobody panics");
    heard.iter().filter(|line| ["BDAT", "DATA"].iter().any(|verb| line.starts_with(verb))).cloned().collect()
}

/// Whether bob has it, as the talk says.
fn is_delivered(talk: &Talk) -> bool {
    matches!(talk, Talk::Done(outcomes, _) if outcomes.iter().all(|one| one.status.class == Class::Delivered))
}

const BY_CHUNKS: [&str; 2] = ["250 1 octet\r\n", "250 kept\r\n"];
const BY_DATA: [&str; 2] = ["354 go on\r\n", "250 kept\r\n"];

#[tokio::test]
async fn each_session_tries_chunks_and_none_at_a_host_that_is_known_to_refuse_them() {
    let (node, begun) = attempt().await;
    let sessions = Sessions::new(node, 0);
    let unknown = says(["502 5.5.1 what\r\n"]);
    let connections = vec![says(BY_CHUNKS), says(BY_CHUNKS), unknown, says(BY_DATA), says(BY_DATA)];
    let (address, heard) = host(connections).await;
    for expected in [
        &["BDAT 1", "BDAT 5 LAST"][..],
        // Another machine may be at the address by now.
        &["BDAT 1", "BDAT 5 LAST"],
        &["BDAT 1", "DATA"],
        &["DATA"],
    ] {
        let talk = talk(&sessions, &begun, address).await;
        assert!(is_delivered(&talk), "{talk:?}");
        assert_eq!(contents(&heard), expected);
        heard.lock().expect("nobody panics").clear();
    }
}

#[tokio::test]
async fn a_word_about_the_message_at_its_first_chunk_is_not_remembered() {
    let (node, begun) = attempt().await;
    let sessions = Sessions::new(node, 0);
    let policy = "550 5.7.1 not from you\r\n";
    let (address, heard) = host(vec![says([policy]), says([policy]), says(BY_CHUNKS)]).await;
    let Talk::Done(outcomes, _) = talk(&sessions, &begun, address).await else { panic!("it is refused") };
    assert_eq!(outcomes[0].status.class, Class::Permanent, "it was said again at DATA");
    assert!(is_delivered(&talk(&sessions, &begun, address).await));
    assert_eq!(contents(&heard), ["BDAT 1", "DATA", "BDAT 1", "BDAT 5 LAST"]);
}

#[tokio::test]
async fn a_session_that_comes_to_no_chunk_says_nothing_of_them() {
    let (node, begun) = attempt().await;
    let sessions = Sessions::new(node, 0);
    let [greeting, ehlo, mail, _] = HELLO;
    let (address, heard) =
        host(vec![vec![greeting, ehlo, mail, "502 5.5.1 what\r\n"], says(BY_CHUNKS)]).await;
    assert!(matches!(talk(&sessions, &begun, address).await, Talk::Done(..)));
    assert!(is_delivered(&talk(&sessions, &begun, address).await));
    assert_eq!(contents(&heard), ["BDAT 1", "BDAT 5 LAST"]);
}

/// Or the mail would go to a smart host as if nobody were there.
#[tokio::test]
async fn a_host_that_has_refused_a_chunk_was_there_whatever_comes_of_the_next_connection() {
    let (node, begun) = attempt().await;
    let sessions = Sessions::new(node, 0);
    let (address, heard) = host(vec![says(["502 5.5.1 what\r\n"]), vec![]]).await;
    let talk = talk(&sessions, &begun, address).await;
    assert!(matches!(talk, Talk::Next { greeted: true, .. }), "{talk:?}");
    assert_eq!(contents(&heard), ["BDAT 1"]);
}
