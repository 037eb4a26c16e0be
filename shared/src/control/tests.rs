use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::{JoinHandle, spawn_blocking};

use super::*;

const BODY_MAX: u64 = 3 << 20;

/// A node that answers `{"echo": x}` with x and the body reversed, and refuses `{"refuse": why}`.
struct Node {
    path: PathBuf,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

impl Node {
    fn start() -> Self {
        Self::start_with(Server::bind)
    }

    fn start_with(bind: fn(&Path) -> Result<Server, BindError>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = socket_in(&folder.path().join("state"));
        let server = bind(&path).expect("a free path");
        let serving = tokio::spawn(server.serve(BODY_MAX, |_| true, answer));
        Self { path, serving, _folder: folder }
    }

    async fn call(&self, request: Value, body: Vec<u8>) -> Result<(Value, Vec<u8>), CallError> {
        let path = self.path.clone();
        spawn_blocking(move || call("big-node", &path, &request, &body)).await.expect("no panic")
    }

    /// What comes back for `bytes` sent as they are, when the client then says no more.
    async fn raw(&self, bytes: Vec<u8>) -> Vec<u8> {
        let path = self.path.clone();
        spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).expect("it listens");
            // The node may have hung up on the first bytes; what it sent is what counts.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        })
        .await
        .expect("no panic")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Echo(Value),
    Refuse(String),
    Uid,
    Long,
}

async fn answer(peer: Peer, request: Request, body: Vec<u8>) -> Result<(Value, Vec<u8>), Refused> {
    match request {
        Request::Echo(value) => Ok((value, body.into_iter().rev().collect())),
        Request::Refuse(why) => Err(Refused(why)),
        Request::Uid => Ok((json!(peer.uid), Vec::new())),
        Request::Long => Ok(("x".repeat(ANSWER_MAX).into(), Vec::new())),
    }
}

fn frame(json: &[u8], body_length: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(json.len()).expect("short");
    [&length.to_be_bytes(), json, &body_length.to_be_bytes(), body].concat()
}

#[tokio::test]
async fn a_request_is_answered() {
    let node = Node::start();
    let body: Vec<u8> = (0..=255).cycle().take(2 << 20).collect();
    let (answer, reversed) = node.call(json!({"echo": ["é", 1]}), body.clone()).await.expect("granted");
    assert_eq!(answer, json!(["é", 1]));
    assert!(reversed.iter().rev().eq(body.iter()));
    let (uid, _) = node.call(json!("uid"), Vec::new()).await.expect("granted");
    assert_eq!(uid, json!(rustix::process::geteuid().as_raw()));
}

#[tokio::test]
async fn a_refusal_comes_with_its_reason() {
    let node = Node::start();
    let refused = node.call(json!({"refuse": "no such person"}), Vec::new()).await;
    assert!(matches!(refused, Err(CallError::Refused(Refused(reason))) if reason == "no such person"));
    let unknown = node.call(json!({"from_a_later_version": 1}), Vec::new()).await;
    assert!(matches!(unknown, Err(CallError::Refused(Refused(reason))) if reason.contains("one version")));
    let long = node.call(json!("long"), Vec::new()).await;
    assert!(matches!(long, Err(CallError::Refused(Refused(reason))) if reason.contains("ask for less")));
}

#[tokio::test]
async fn a_bad_client_loses_its_connection_and_nobody_elses() {
    let node = Node::start();
    let echo = br#"{"echo":1}"#;
    for (bytes, why) in [
        (vec![0xff; 12], "a length of 4 GiB"),
        (frame(b"not JSON", 0, b""), "no JSON"),
        (frame(&[b'['; 100_000], 0, b""), "deeply nested JSON"),
        (frame(echo, u64::MAX, b""), "a body of 16 EiB"),
        (frame(echo, BODY_MAX + 1, &vec![0; 5 << 20]), "a body over its limit"),
        (frame(echo, 10, b"half"), "half a body"),
        (frame(echo, 0, b"")[..7].to_vec(), "half a request"),
        (vec![0, 0], "half a length"),
        (Vec::new(), "nothing"),
    ] {
        assert_eq!(node.raw(bytes).await, b"", "{why}");
        assert!(node.call(json!({"echo": 1}), Vec::new()).await.is_ok(), "after {why}");
    }
}

#[tokio::test]
async fn connections_over_the_cap_are_closed_and_come_free_again() {
    let node = Node::start();
    let path = node.path.clone();
    let open = move || UnixStream::connect(&path).expect("it listens");
    let mut idle: Vec<UnixStream> = (0..CONNECTIONS_MAX).map(|_| open()).collect();
    let over = node.call(json!({"echo": 1}), Vec::new()).await;
    assert!(matches!(over, Err(CallError::NoAnswer { .. })), "{over:?}");
    idle.pop();
    let mut freed = false;
    for _ in 0..1_000 {
        freed = node.call(json!({"echo": 1}), Vec::new()).await.is_ok();
        if freed {
            break;
        }
    }
    assert!(freed);
}

#[tokio::test]
async fn one_account_gets_its_share_of_a_socket_for_everybody_and_no_more() {
    let node = Node::start_with(Server::bind_for_everybody);
    let (uid, _) = node.call(json!("uid"), Vec::new()).await.expect("granted");
    assert_eq!(uid, json!(rustix::process::geteuid().as_raw()));
    let path = node.path.clone();
    let mut idle: Vec<UnixStream> =
        (0..ACCOUNT_CONNECTIONS_MAX).map(|_| UnixStream::connect(&path).expect("it listens")).collect();
    let over = node.call(json!({"echo": 1}), Vec::new()).await;
    assert!(matches!(over, Err(CallError::NoAnswer { .. })), "{over:?}");
    idle.clear();
    let mut freed = false;
    for _ in 0..1_000 {
        freed = node.call(json!({"echo": 1}), vec![1; 2 << 20]).await.is_ok();
        if freed {
            break;
        }
    }
    assert!(freed);
}

#[tokio::test]
async fn a_socket_for_everybody_is_where_nobody_else_can_replace_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("run");
    let path = run.join("desk.sock");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    drop(Server::bind_for_everybody(&path).expect("a free path"));
    let server = Server::bind_for_everybody(&path).expect("a free path");
    assert_eq!((mode(&run), mode(&path), mode(&run.join("desk.lock"))), (0o755, 0o666, 0o600));
    assert!(matches!(Server::bind_for_everybody(&path), Err(BindError::Running(_))));
    drop(server);
    for open in [0o775, 0o777, 0o1777] {
        fs::set_permissions(&run, fs::Permissions::from_mode(open)).expect("it is ours");
        assert!(matches!(Server::bind_for_everybody(&path), Err(BindError::WritableFolder(_))), "{open:o}");
    }
}

#[tokio::test]
async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = socket_in(&folder.path().join("state"));
    let first = Server::bind(&path).expect("a free path");
    assert!(matches!(Server::bind(&path), Err(BindError::Running(_))));
    drop(first);
    // A process that is killed leaves the file, and loses the lock.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("the file was removed"));
    drop(Server::bind(&path).expect("a stale socket is replaced"));
    fs::write(&path, "precious").expect("a file");
    assert!(matches!(Server::bind(&path), Err(BindError::InTheWay(_))));
    assert_eq!(fs::read(&path).expect("it is still there"), b"precious");
}

#[tokio::test]
async fn the_socket_is_open_to_its_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let path = socket_in(&state);
    let server = Server::bind(&path).expect("a free path");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&path)), (0o700, 0o600));
    drop(server);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o750)).expect("it is ours");
    assert!(matches!(Server::bind(&path), Err(BindError::OpenFolder(_))));
}

#[tokio::test]
async fn a_node_that_does_not_run_is_named() {
    let node = Node::start();
    node.serving.abort();
    let _ = node.serving.await;
    let path = node.path.clone();
    let error = call::<_, Value>("big-node", &path, &json!("uid"), &[]).expect_err("nobody serves");
    let text = "big-node is not running for this topology: start it with `big-node serve`";
    assert_eq!(error.to_string(), text);
}
