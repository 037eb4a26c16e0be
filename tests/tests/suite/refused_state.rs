//! State that a node must not start from: it says which file is wrong, how, and which command mends it; it ends with
//! exit code 1 and leaves everything on the disk as it was.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use big_node::record::Folder;
use shared::state::State;
use shared::store::{DirectoryDisk, Row, Table};
use tests::control::Commands;
use tests::internet::Internet;
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::nodes::Nodes;
use tests::process::{Node, Program};
use tests::topology::TestTopology;
use tests::wait::Trouble;
use tests::world::{ALICE, CAROL, World, without_trace};

const INDEX: &str = "store/index.redb";

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

/// Copies a folder with all that is in it; sockets are left out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
        let to = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Puts the folder `kept` in the place of `folder`.
fn put_back(kept: &Path, folder: &Path) -> io::Result<()> {
    fs::remove_dir_all(folder)?;
    copy(kept, folder)
}

/// Every file under `folder` but the locks, with a hash of what is in it.
fn content_of(folder: &Path) -> io::Result<BTreeMap<PathBuf, blake3::Hash>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() && !entry.file_name().to_string_lossy().ends_with("lock") => {
                    found.insert(entry.path(), blake3::hash(&fs::read(entry.path())?));
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Starts the node, and looks over its store: neither is done, both name `place` in its state and say all of `words`, and
/// nothing is changed.
async fn refused(
    commands: &Commands,
    (state, place): (&Path, &str),
    case: &str,
    words: &[&str],
) -> Result<(), Trouble> {
    let (before, place) = (content_of(state)?, state.join(place).components().collect::<PathBuf>());
    for command in ["serve", "verify"] {
        let done = commands.finish(&[command], b"").await?;
        let said = &done.stderr;
        assert_eq!(done.status.code(), Some(1), "{case}, {command}: {said}");
        for word in words.iter().copied().chain(place.to_str()) {
            assert!(said.contains(word), "{case}, {command}: {word} is not in {said:?}");
        }
        assert!(!said.contains("panicked"), "{case}, {command}: {said}");
    }
    assert!(content_of(state)? == before, "{case}: something was changed");
    Ok(())
}

/// A label as a newer version may write it.
struct Later;

impl Row for Later {
    const VERSION: u8 = 200;

    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(_: &[u8]) -> Option<Self> {
        None
    }
}

fn letter() -> Vec<u8> {
    let token = Token { seed: 57, number: 1 };
    Letter { from: CAROL, to: ALICE, subject: "kept", token }.text(SHORT)
}

#[tokio::test]
async fn what_is_not_this_nodes_state_is_refused_and_left_alone() -> Result<(), Trouble> {
    let mut world = World::start(program()).await?;
    let id = world.receive(&[ALICE], &letter()).await?;
    world.desk("alice").filed(Folder::In, &id).await?;
    world.nodes.stop(Node::Big).await?;
    world.nodes.stop(Node::Edge).await?;

    // Another pair, never started: same kinds of nodes, other ones.
    let folder = tempfile::tempdir()?;
    let internet = Internet::start(None).await?;
    let topology = TestTopology::new(folder.path().join("other"), internet.dns.address(), 25)?;
    let others = Nodes::init(topology, program(), program()).await?;

    for node in [Node::Big, Node::Edge] {
        let (state, kept) = (world.nodes.state_of(node), folder.path().join(node.name()));
        copy(&state, &kept)?;
        let commands = if node == Node::Big { &world.nodes.big } else { &world.nodes.edge };
        let at = (state.as_path(), "store");
        let cut = |length: u64| fs::File::options().write(true).open(state.join(INDEX))?.set_len(length);

        cut(0)?;
        refused(commands, at, "an empty index", &["index.redb", "it is empty", "verify --rebuild"]).await?;
        put_back(&kept, &state)?;
        cut(fs::metadata(state.join(INDEX))?.len() / 2)?;
        refused(commands, at, "half an index", &["index.redb", "damaged", "verify --rebuild"]).await?;
        put_back(&kept, &state)?;
        fs::write(state.join(INDEX), b"this is no index\n".repeat(10_000))?;
        refused(commands, at, "another file", &["index.redb", "damaged", "verify --rebuild"]).await?;
        put_back(&kept, &state)?;
        fs::rename(state.join(INDEX), state.join("elsewhere"))?;
        std::os::unix::fs::symlink(state.join("elsewhere"), state.join(INDEX))?;
        refused(commands, at, "a link in its place", &["symbolic links"]).await?;
        put_back(&kept, &state)?;
        fs::remove_file(state.join(INDEX))?;
        refused(commands, at, "no index", &["index.redb", "is not", "verify --rebuild"]).await?;

        let store = state.join("store");
        put_back(&others.state_of(node).join("store"), &store)?;
        refused(commands, at, "another node's store", &["not the store of this node", "restore"]).await?;
        let other = if node == Node::Big { Node::Edge } else { Node::Big };
        put_back(&world.nodes.state_of(other).join("store"), &store)?;
        refused(commands, at, "the other node's store", &["not the store of this node", "restore"]).await?;
        let of_another_kind = if node == Node::Big { "outbound.key" } else { "directory.key" };
        put_back(&others.state_of(other), &state)?;
        let words = [of_another_kind, "another kind of node", "topology", "restore"];
        refused(commands, (&state, "keys"), "the other kind's state", &words).await?;

        put_back(&kept, &state)?;
        let newer = State::open(&state)?.store()?;
        newer.commit(|txn| txn.put(Table("label"), b"store", &Later)).await?;
        drop(newer);
        refused(commands, at, "a newer store", &["newer version", "start that version"]).await?;
        put_back(&kept, &state)?;
        let held = DirectoryDisk::open(&store)?;
        refused(commands, at, "a store in use", &["in use by another process", "stop that one"]).await?;
        drop(held);
        fs::remove_dir_all(&store)?;
        refused(commands, (&state, ""), "no store", &["holds no node", "init"]).await?;
        put_back(&kept, &state)?;
    }

    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    let second = world.nodes.big.finish(&["serve"], b"").await?;
    assert_eq!(second.status.code(), Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("this node is running; stop it first"), "{}", second.stderr);
    world.linked().await?;
    assert!(without_trace(&world.desk("alice").raw(&id).await?) == letter(), "as it was");
    world.end().await
}

/// What `verify --rebuild --json` prints, as far as it is looked at.
#[derive(serde::Deserialize)]
struct Verdict {
    damage: Vec<String>,
    rebuilt: Rebuilt,
}

#[derive(serde::Deserialize)]
struct Rebuilt {
    kept: u64,
    lost: Vec<String>,
}

#[tokio::test]
async fn what_is_readable_is_kept_and_what_is_not_is_listed() -> Result<(), Trouble> {
    let mut world = World::start(program()).await?;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = world.receive(&[ALICE], &letter()).await?;
        world.desk("alice").filed(Folder::In, &id).await?;
        ids.push(id);
    }
    world.nodes.stop(Node::Big).await?;
    let state = world.nodes.topology.big_state();
    let index = fs::File::options().write(true).open(state.join(INDEX))?;
    index.set_len(fs::metadata(state.join(INDEX))?.len() / 2)?;
    // The last record loses its end, as a disk does that was cut short.
    let segments = || -> io::Result<Vec<PathBuf>> {
        let names = fs::read_dir(state.join("store"))?.map(|entry| entry.map(|entry| entry.path()));
        let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
        names.retain(|name| name.extension().is_some_and(|end| end == "seg"));
        names.sort();
        Ok(names)
    };
    let last = segments()?.pop().ok_or("a segment")?;
    let whole = fs::read(&last)?;
    fs::write(&last, &whole[..whole.len() - 64])?;
    let cut = fs::read(&last)?;

    let verdict: Verdict = world.nodes.big.json(&["verify", "--rebuild"]).await?;
    assert!(verdict.damage.is_empty(), "{:?}", verdict.damage);
    let name = last.file_name().and_then(|name| name.to_str()).ok_or("UTF-8")?;
    let [lost] = &verdict.rebuilt.lost[..] else { return Err(format!("{:?}", verdict.rebuilt.lost).into()) };
    let copy = format!("{name}.aside-1");
    assert!(lost.contains(name) && lost.contains(&copy), "{lost}");
    assert!(fs::read(state.join("store").join(copy))? == cut, "it lies aside as it was");
    assert!(state.join("store/index.redb.aside-1").exists());
    // Alice, Bob, and two of three messages.
    assert!(verdict.rebuilt.kept >= 4, "{}", verdict.rebuilt.kept);
    world.nodes.start_big().await?;
    let desk = world.desk("alice");
    for id in &ids[..2] {
        assert!(without_trace(&desk.raw(id).await?) == letter(), "{id}");
    }
    assert_eq!(desk.messages(Folder::In).await?.len(), 2);
    Ok(())
}
