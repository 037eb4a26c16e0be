//! What the system refuses a node: descriptors, and memory. Who asks gets a clear answer, nothing that was promised
//! is lost, and the node goes on by itself once there is enough again.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use big_node::record::Folder;
use shared::control::socket_in;
use tests::client::smtp::{SendError, SmtpClient};
use tests::ledger::Token;
use tests::messages::{LONG, Letter, SHORT};
use tests::proc::usage;
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, accepted_as, first, without_trace};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Descriptors of a node that has enough for itself, and for some sessions.
const FEW: &str = "-n 96";
/// Descriptors of a node that has hardly any to spare: it holds 22 by itself.
const HARDLY_ANY: &str = "-n 40";
/// Connections: more than there are descriptors.
const CONNECTIONS: usize = 120;
/// How long a node is watched that cannot accept, and the CPU time that it may use meanwhile.
const WATCHED: Duration = Duration::from_secs(1);
const CPU_MAX: Duration = Duration::from_millis(400);

fn pair() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

/// The same under a limit of the shell's.
fn limited(limit: &str) -> Program {
    pair().through(&["sh", "-c", &format!("ulimit {limit} && exec \"$@\""), "sh"])
}

fn letter(number: u64) -> Vec<u8> {
    Letter { from: CAROL, to: ALICE, subject: "limits", token: Token { seed: 62, number } }.text(SHORT)
}

/// The first line that a server says, or nothing where it closes without a word.
async fn first_words(stream: &mut TcpStream) -> Result<String, Trouble> {
    let mut said = vec![0; 512];
    let length = tokio::time::timeout(SOON, stream.read(&mut said)).await??;
    said.truncate(length);
    Ok(String::from_utf8(said)?)
}

/// Whatever was accepted is in alice's mailbox once, as it was.
async fn filed_once(world: &World, accepted: &[(u64, String)]) -> Result<(), Trouble> {
    let desk = world.desk("alice");
    for (number, id) in accepted {
        desk.filed(Folder::In, id).await?;
        assert!(without_trace(&desk.raw(id).await?) == letter(*number), "{number} is altered");
    }
    world.quiet().await?;
    assert_eq!(desk.messages(Folder::In).await?.len(), accepted.len(), "each is there once");
    Ok(())
}

async fn connected(to: SocketAddr) -> Result<Vec<TcpStream>, Trouble> {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(TcpStream::connect(to).await?);
    }
    Ok(streams)
}

#[tokio::test]
async fn an_edge_with_few_descriptors_answers_421_and_has_some_left() -> Result<(), Trouble> {
    let world = World::of_programs(pair(), limited(FEW), |_| {}).await?;
    let mut session = world.smtp().await?;
    let mut strangers = connected(world.smtp_address()).await?;
    let (mut greeted, mut refused) = (0, 0);
    for stranger in &mut strangers {
        match first_words(stranger).await?.get(..3) {
            Some("220") => greeted += 1,
            Some("421") => refused += 1,
            other => return Err(format!("answered {other:?}").into()),
        }
    }
    assert!(greeted > 0 && refused > greeted, "{greeted} greeted, {refused} refused");
    // Who is in goes on, and strangers take no place of travellers'.
    let reply = session.send(CAROL, &[ALICE], &letter(1)).await?;
    let mut accepted = vec![(1, accepted_as(&reply).ok_or("no id")?)];
    let mut collector = TcpStream::connect(first(&world.nodes.edge_ready().pop3)).await?;
    assert!(first_words(&mut collector).await?.starts_with("+OK"));
    drop((strangers, collector));
    until("strangers come in again", SOON, async || {
        Ok(SmtpClient::ready(world.smtp_address(), None).await.is_ok().then_some(()))
    })
    .await?;
    accepted.push((2, world.receive(&[ALICE], &letter(2)).await?));
    filed_once(&world, &accepted).await?;
    world.end().await
}

#[tokio::test]
async fn an_edge_without_descriptors_waits_for_some_and_loses_nothing() -> Result<(), Trouble> {
    let world = World::of_programs(pair(), limited(HARDLY_ANY), |_| {}).await?;
    let mut accepted = vec![(1, world.receive(&[ALICE], &letter(1)).await?)];
    let mut session = world.smtp().await?;
    let collectors = connected(first(&world.nodes.edge_ready().pop3)).await?;
    let pid = world.nodes.edge_ready().pid;
    until("there are no more descriptors", SOON, async || {
        Ok((std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() >= 40).then_some(()))
    })
    .await?;
    let before = usage(pid)?.cpu;
    tokio::time::sleep(WATCHED).await;
    let used = usage(pid)?.cpu.saturating_sub(before);
    assert!(used <= CPU_MAX, "{used:?} of CPU time in {WATCHED:?} without an accept");
    // Who is in gets an answer, whichever it is.
    match session.send(CAROL, &[ALICE], &letter(2)).await {
        Ok(reply) => accepted.push((2, accepted_as(&reply).ok_or("no id")?)),
        Err(SendError::Refused { reply, .. }) => assert!((400..500).contains(&reply.code), "{reply}"),
        Err(error) => return Err(error.into()),
    }
    drop((collectors, session));
    until("mail is taken again", SOON, async || {
        let Ok(mut session) = world.smtp().await else { return Ok(None) };
        Ok(session.command(&format!("MAIL FROM:<{CAROL}>")).await?.is_positive().then_some(()))
    })
    .await?;
    accepted.push((3, world.receive(&[ALICE], &letter(3)).await?));
    filed_once(&world, &accepted).await?;
    world.end().await
}

#[tokio::test]
async fn a_big_without_descriptors_waits_for_some_and_loses_nothing() -> Result<(), Trouble> {
    let world = World::of_programs(limited(HARDLY_ANY), pair(), |_| {}).await?;
    let socket = socket_in(&world.nodes.state_of(Node::Big));
    let pid = world.nodes.big_ready().pid;
    let mut clients = Vec::new();
    until("there are no more descriptors", SOON, async || {
        clients.extend((0..10).map_while(|_| UnixStream::connect(&socket).ok()));
        Ok((std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() >= 40).then_some(()))
    })
    .await?;
    let before = usage(pid)?.cpu;
    let mut accepted = Vec::new();
    for number in 1..=10 {
        accepted.push((number, world.receive(&[ALICE], &letter(number)).await?));
    }
    tokio::time::sleep(WATCHED).await;
    let used = usage(pid)?.cpu.saturating_sub(before);
    assert!(used <= CPU_MAX + CPU_MAX, "{used:?} of CPU time without an accept");
    drop(clients);
    filed_once(&world, &accepted).await?;
    world.end().await
}

/// Address space, in KiB, that a node has beside what it uses at rest.
const SPACE_KIB: u64 = 96 * 1024;
/// Clients at once, each with a message of [`LONG`] octets.
const CLIENTS: u64 = 24;

/// The address space of a process, in KiB.
fn space_of(pid: u32) -> Result<u64, Trouble> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).ok_or("VmSize")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[tokio::test]
async fn a_node_that_is_refused_memory_loses_nothing_that_it_has_answered_for() -> Result<(), Trouble> {
    for node in [Node::Edge, Node::Big] {
        let plain = World::start(pair()).await?;
        let pid = if node == Node::Edge { plain.nodes.edge_ready().pid } else { plain.nodes.big_ready().pid };
        let limit = format!("-v {}", space_of(pid)? + SPACE_KIB);
        plain.end().await?;
        let (big, edge) =
            if node == Node::Big { (limited(&limit), pair()) } else { (pair(), limited(&limit)) };
        let change = |topology: &mut tests::topology::TestTopology| {
            *topology = topology.clone().with_fixed_ports().expect("free ports");
        };
        let mut world = World::of_programs(big, edge, change).await?;
        let to = world.smtp_address();
        let mut sending = tokio::task::JoinSet::new();
        for number in 1..=CLIENTS {
            sending.spawn(async move {
                let token = Token { seed: 63, number };
                let data =
                    Letter { from: CAROL, to: ALICE, subject: "large", token }.with_attachment("a", 8 * LONG);
                let mut client = SmtpClient::ready(to, None).await?;
                let sent = client.send(CAROL, &[ALICE], &data).await?;
                Ok::<_, Trouble>((data, accepted_as(&sent).ok_or("no id")?))
            });
        }
        let mut accepted = Vec::new();
        while let Some(sent) = sending.join_next().await {
            // A refusal, or an end, is an answer: there is no memory.
            accepted.extend(sent?.ok());
        }
        // If it has ended, whoever supervises it starts it again.
        match node {
            Node::Edge => drop(world.nodes.start_edge().await?),
            Node::Big => drop(world.nodes.start_big().await?),
        }
        world.linked().await?;
        assert!(!accepted.is_empty(), "{node:?} takes something");
        let desk = world.desk("alice");
        for (data, id) in &accepted {
            desk.filed(Folder::In, id).await?;
            assert!(without_trace(&desk.raw(id).await?) == *data, "{node:?}: {id} is altered");
        }
        world.end().await?;
    }
    Ok(())
}
