//! A system call of a node that runs fails: a sync, or a write. Nothing that needed it is promised, the node says what it
//! does, and everything that was promised is there afterwards. By strace; without it nothing is proved, and said so.

use big_node::record::Folder;
use edge_node::request::Request as EdgeRequest;
use shared::report::{LaneView, LinkView};
use tests::client::smtp::{Reply, SendError, SmtpClient, SmtpError};
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::{Node, Program};
use tests::tampered::Tampered;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, accepted_as, without_trace};

/// Syncs that a message needs at least, all by the store's writer: its body's, and the index's in both phases of the
/// commit. One of the first so many, whichever comes first, fails.
const SYNCS: u32 = 3;
/// Numbers of letters that no test here reaches.
const LETTERS: u64 = 1_000;
/// What an operator is told of a store that has stopped, and what mends it.
const STOPPED: &str = "the store has stopped after a failed sync";
const MEND: &str = "check the disk, then start the node again";

fn letter(number: u64) -> Vec<u8> {
    Letter { from: CAROL, to: ALICE, subject: "calls", token: Token { seed: 57, number } }.text(SHORT)
}

/// Mail that was answered 250: its number, and the id it got.
type Accepted = Vec<(u64, String)>;

/// What a message is answered, at whichever stage.
async fn send(world: &World, number: u64) -> Result<Reply, Trouble> {
    let mut client = match SmtpClient::ready(world.smtp_address(), None).await {
        Ok(client) => client,
        Err(SmtpError::Answered { reply, .. }) => return Ok(reply),
        Err(error) => return Err(error.into()),
    };
    match client.send(CAROL, &[ALICE], &letter(number)).await {
        Ok(reply) | Err(SendError::Refused { reply, .. }) => Ok(reply),
        Err(error) => Err(error.into()),
    }
}

async fn receive(world: &World, numbers: &[u64], accepted: &mut Accepted) -> Result<(), Trouble> {
    for number in numbers {
        accepted.push((*number, world.receive(&[ALICE], &letter(*number)).await?));
    }
    Ok(())
}

async fn link_of(world: &World, node: Node) -> Result<LinkView, Trouble> {
    match node {
        Node::Big => world.big().link().await,
        Node::Edge => Ok(world.edge().ask(EdgeRequest::LinkStatus, Vec::new()).await?.0),
    }
}

/// Units of mail that the edge knows to be confirmed.
async fn confirmed(world: &World) -> Result<u64, Trouble> {
    let is_mail = |lane: &&LaneView| lane.lane == "inter";
    Ok(world.edge_link().await?.lanes.iter().filter(is_mail).map(|lane| lane.confirmed).sum())
}

/// Waits until a node says that its store has stopped, and what mends that.
async fn says_so(world: &World, node: Node) -> Result<(), Trouble> {
    until("the node says that it has stopped", SOON, async || {
        let said = link_of(world, node).await.err().map(|refused| refused.to_string());
        Ok(said.filter(|said| said.contains(STOPPED) && said.ends_with(MEND)).map(drop))
    })
    .await?;
    let log = std::fs::read_to_string(world.nodes.topology.state.join(format!("{}.log", short(node))))?;
    assert!(log.contains(STOPPED) && log.contains("Input/output error"), "{log}");
    Ok(())
}

fn short(node: Node) -> &'static str {
    match node {
        Node::Big => "big",
        Node::Edge => "edge",
    }
}

/// Everything that was answered 250 is in the mailbox once, as it was, and nothing else is but what `may` be.
async fn all_there(world: &World, accepted: &Accepted, may: &[u64]) -> Result<(), Trouble> {
    world.quiet().await?;
    let desk = world.desk("alice");
    for (number, id) in accepted {
        desk.filed(Folder::In, id).await?;
        assert!(without_trace(&desk.raw(id).await?) == letter(*number), "{number} is altered");
    }
    let (mut others, there) = (Vec::new(), desk.messages(Folder::In).await?);
    for line in there.iter().filter(|line| accepted.iter().all(|(_, id)| *id != line.id)) {
        let raw = desk.raw(&line.id).await?;
        others.extend((0..LETTERS).filter(|number| without_trace(&raw) == letter(*number)));
    }
    assert_eq!(
        there.len(),
        accepted.len() + others.len(),
        "each is there once, and nothing that was not sent"
    );
    assert!(others.iter().all(|number| may.contains(number)), "{others:?} of {may:?}");
    Ok(())
}

fn pair() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

const NOTHING: &str = "strace is not installed, or may not trace: nothing is proved";

#[tokio::test]
async fn an_edge_whose_sync_fails_says_no_250_behind_it_and_has_all_that_it_had_promised()
-> Result<(), Trouble> {
    for failing in 1..=SYNCS {
        let (mut world, mut accepted) = (World::start(pair()).await?, Accepted::new());
        world.quiet().await?;
        // What nobody else has when the sync fails.
        world.nodes.kill(Node::Big).await?;
        receive(&world, &[1, 2], &mut accepted).await?;
        let injected = format!("fdatasync:error=EIO:when={failing}");
        let Some(failed) = Tampered::with(world.nodes.edge_ready().pid, &[&injected])? else {
            println!("{NOTHING}");
            return Ok(());
        };
        let mut answers = vec![send(&world, 3).await?];
        says_so(&world, Node::Edge).await?;
        // Syncs would succeed again.
        for number in 4..=5 {
            answers.push(send(&world, number).await?);
        }
        for reply in &answers {
            let (code, enhanced) = (reply.code, reply.enhanced());
            assert!(matches!(code, 421 | 451) && enhanced == Some("4.3.0"), "sync {failing}: {reply}");
        }
        failed.let_go()?;
        world.nodes.kill(Node::Edge).await?;
        world.nodes.start_edge().await?;
        world.nodes.start_big().await?;
        world.linked().await?;
        receive(&world, &[6], &mut accepted).await?;
        // What was not answered may be there: it was written, and nobody knows how far.
        all_there(&world, &accepted, &[3]).await?;
        world.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_big_whose_sync_fails_confirms_nothing_behind_it_and_has_all_that_it_had_promised()
-> Result<(), Trouble> {
    for failing in 1..=SYNCS {
        let (mut world, mut accepted) = (World::start(pair()).await?, Accepted::new());
        receive(&world, &[1, 2], &mut accepted).await?;
        world.quiet().await?;
        let before = confirmed(&world).await?;
        let injected = format!("fdatasync:error=EIO:when={failing}");
        let Some(failed) = Tampered::with(world.nodes.big_ready().pid, &[&injected])? else {
            println!("{NOTHING}");
            return Ok(());
        };
        receive(&world, &[3], &mut accepted).await?;
        says_so(&world, Node::Big).await?;
        // Syncs would succeed again; neither door promises anything.
        receive(&world, &[4], &mut accepted).await?;
        let refused = world.desk("alice").send(CAROL, "calls", "text\n").await.map(|sent| sent.id);
        let refused = refused.expect_err("nothing is promised").to_string();
        assert!(refused.contains(STOPPED) && refused.ends_with(MEND), "{refused}");
        assert_eq!(confirmed(&world).await?, before, "sync {failing}: nothing is confirmed");
        failed.let_go()?;
        world.nodes.kill(Node::Big).await?;
        world.nodes.start_big().await?;
        world.linked().await?;
        all_there(&world, &accepted, &[]).await?;
        assert!(confirmed(&world).await? >= before + 2, "what was not confirmed then is now");
        world.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_refused_a_write_promises_nothing_then_and_goes_on_by_itself() -> Result<(), Trouble> {
    for node in [Node::Edge, Node::Big] {
        let (mut world, mut accepted) = (World::start(pair()).await?, Accepted::new());
        receive(&world, &[1, 2], &mut accepted).await?;
        world.quiet().await?;
        let pid = match node {
            Node::Edge => world.nodes.edge_ready().pid,
            Node::Big => world.nodes.big_ready().pid,
        };
        let Some(failed) = Tampered::with(pid, &["pwrite64:error=ENOSPC:when=1"])? else {
            println!("{NOTHING}");
            return Ok(());
        };
        let mut number = 2;
        let refused = until("mail is taken", SOON, async || {
            number += 1;
            let reply = send(&world, number).await?;
            if reply.code == 250 {
                accepted.push((number, accepted_as(&reply).ok_or("no id")?));
                return Ok(Some(number - 3));
            }
            let is_full = matches!(reply.code, 421 | 452) && reply.enhanced() == Some("4.3.1");
            if is_full { Ok(None) } else { Err(format!("{} answers {reply}", node.name()).into()) }
        })
        .await?;
        // Where big is refused its writes, the edge takes mail all the while.
        assert_eq!(refused == 0, node == Node::Big, "{refused} were refused");
        // Nobody is started again, and nobody asks for anything.
        all_there(&world, &accepted, &[]).await?;
        failed.let_go()?;
        // And what was promised is on the disk.
        for node in [Node::Edge, Node::Big] {
            world.nodes.kill(node).await?;
        }
        world.nodes.start_edge().await?;
        world.nodes.start_big().await?;
        world.linked().await?;
        all_there(&world, &accepted, &[]).await?;
        let log = std::fs::read_to_string(world.nodes.topology.state.join(format!("{}.log", short(node))))?;
        assert!(log.contains("No space left on device") || log.contains("full"), "{log}");
        world.end().await?;
    }
    Ok(())
}
