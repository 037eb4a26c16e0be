//! What a node promises, it has synced before: watched from outside by strace, which also makes each sync slow, so
//! that a promise which does not wait for it comes visibly too early. Without strace nothing is proved, and said so.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shared::report::LaneView;
use tests::control::Commands;
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program, installed};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World};

/// How long each sync takes at least.
const SLOW: Duration = Duration::from_millis(400);
/// Messages that are watched.
const MESSAGES: u64 = 3;
/// The mistake that this has to find.
const FAULT: &str = "confirm-before-commit";

/// One sync of a file, as strace saw it begin.
#[derive(Debug)]
struct Sync {
    at: Duration,
    file: String,
}

fn pair() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

/// The program under strace, which notes each sync in `trace`; with a seeded fault, if one is named.
fn watched(trace: &Path, fault: Option<&str>) -> Result<Program, Trouble> {
    let delay = format!("inject=fdatasync:delay_enter={}", SLOW.as_micros());
    let fault = format!("SEEDED_FAULT={}", fault.unwrap_or_default());
    let trace = trace.to_str().ok_or("UTF-8")?;
    let strace =
        ["strace", "-f", "-qq", "-ttt", "-y", "-o", trace, "-e", "trace=fdatasync,fsync", "-e", &delay];
    let prefix = if fault.ends_with('=') {
        strace.to_vec()
    } else {
        [&["env", fault.as_str()][..], &strace[..]].concat()
    };
    Ok(pair().through(&prefix))
}

fn now() -> Result<Duration, Trouble> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// What strace has noted so far.
fn syncs(trace: &Path) -> Result<Vec<Sync>, Trouble> {
    let mut syncs = Vec::new();
    for line in fs::read_to_string(trace)?.lines() {
        // «1234 1795333263.250000 fdatasync(11</state/store/index.redb>…», whether it has returned or not.
        let mut words = line.split_whitespace().skip(1);
        let (Some(at), Some(call)) = (words.next(), words.next()) else { continue };
        let Some((_, rest)) = call.split_once("sync(") else { continue };
        let file = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        if let (Ok(seconds), Some((file, _))) = (at.parse(), file) {
            syncs.push(Sync { at: Duration::from_secs_f64(seconds), file: file.to_owned() });
        }
    }
    Ok(syncs)
}

/// Whether the body and then the index, in both phases of its commit, were synced after `asked` and before `promised`.
fn is_covered(syncs: &[Sync], state: &Path, asked: Duration, promised: Duration) -> bool {
    let store = state.join("store");
    let returned = |sync: &&Sync| sync.at >= asked && sync.at + SLOW <= promised;
    let of = |end: &'static str| {
        let place = store.clone();
        move |sync: &&Sync| Path::new(&sync.file).starts_with(&place) && sync.file.ends_with(end)
    };
    let body = syncs.iter().filter(returned).find(|sync| of(".seg")(sync));
    body.is_some_and(|body| {
        let index = syncs.iter().filter(returned).filter(of("index.redb"));
        index.filter(|sync| sync.at >= body.at + SLOW).count() >= 2
    })
}

fn letter(number: u64) -> Vec<u8> {
    Letter { from: CAROL, to: ALICE, subject: "synced", token: Token { seed: 56, number } }.text(SHORT)
}

/// Whether each of [`MESSAGES`] promises of `node` was covered by syncs: the edge's 250, or big's CONFIRMED.
async fn keeps_order(node: Node, fault: Option<&str>) -> Result<bool, Trouble> {
    let folder = tempfile::tempdir()?;
    let trace = folder.path().join("trace");
    let mut world = World::start(pair()).await?;
    world.quiet().await?;
    world.nodes.stop(node).await?;
    let commands = Commands::new(watched(&trace, fault)?, node, &world.nodes.file);
    match node {
        Node::Big => {
            world.nodes.big = commands;
            world.nodes.start_big().await?;
        }
        Node::Edge => {
            world.nodes.edge = commands;
            world.nodes.start_edge().await?;
        }
    }
    let state = world.nodes.state_of(node);
    for number in 1..=MESSAGES {
        world.quiet().await?;
        let confirmed = |lanes: &[LaneView]| {
            lanes.iter().filter(|lane| lane.lane == "inter").map(|lane| lane.confirmed).sum::<u64>()
        };
        let before = confirmed(&world.edge_link().await?.lanes);
        let asked = now()?;
        world.receive(&[ALICE], &letter(number)).await?;
        if node == Node::Big {
            until("big has confirmed it", SOON, async || {
                Ok((confirmed(&world.edge_link().await?.lanes) > before).then_some(()))
            })
            .await?;
        }
        let promised = now()?;
        // Sooner or later it is synced; what is asked is when.
        until("it is synced", SOON, async || {
            Ok(is_covered(&syncs(&trace)?, &state, asked, now()?).then_some(()))
        })
        .await?;
        if !is_covered(&syncs(&trace)?, &state, asked, promised) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[tokio::test]
async fn each_250_and_each_confirm_comes_after_the_syncs_it_stands_for() -> Result<(), Trouble> {
    if !installed("strace") {
        println!("strace is not installed: nothing is proved");
        return Ok(());
    }
    for node in [Node::Edge, Node::Big] {
        assert!(keeps_order(node, None).await?, "{}", node.name());
        assert!(!keeps_order(node, Some(FAULT)).await?, "{} with {FAULT}: it is found out", node.name());
    }
    Ok(())
}
