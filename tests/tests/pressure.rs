//! A spool that reaches its bound: 452, and on again by itself; nothing lost, nothing doubled.

use big_node::record::Folder;
use edge_node::request::Request as EdgeRequest;
use shared::pressure::Level;
use shared::report::LinkView;
use tests::client::smtp::{SendError, SmtpClient, SmtpError};
use tests::ledger::Token;
use tests::messages::{LONG, Letter};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, without_trace};

/// The least that `spool_max` may be.
const SPOOL_MAX: u64 = 1 << 20;
/// More than twice what fits: each is about [`LONG`], and random.
const MESSAGES_MAX: u64 = 40;

fn letter(number: u64) -> Vec<u8> {
    let token = Token { seed: 3, number };
    Letter { from: CAROL, to: ALICE, subject: "spool", token }.with_attachment("a.bin", LONG)
}

async fn level(world: &World) -> Result<Level, Trouble> {
    let (link, _): (LinkView, _) = world.edge().ask(EdgeRequest::LinkStatus, Vec::new()).await?;
    Ok(link.pressure.level)
}

#[tokio::test]
async fn a_full_spool_refuses_for_now_and_empties_by_itself() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut world = World::with(program, |topology| topology.spool_max = SPOOL_MAX).await?;
    world.nodes.kill(Node::Big).await?;
    let mut accepted = Vec::new();
    let mut refused = None;
    for number in 1..=MESSAGES_MAX {
        // A client that waits until what it sent is counted: the bound is looked at four times a second.
        let before = level(&world).await?;
        let mut client = match SmtpClient::ready(world.smtp_address(), None).await {
            Ok(client) => client,
            Err(SmtpError::Answered { reply, .. }) => {
                refused = Some(("connect", reply));
                break;
            }
            Err(error) => return Err(error.into()),
        };
        match client.send(CAROL, &[ALICE], &letter(number)).await {
            Ok(reply) => {
                accepted.push((number, tests::world::accepted_as(&reply).ok_or("no id")?));
                assert!(before.takes_mail(), "accepted although {before:?}");
            }
            Err(SendError::Refused { stage, reply }) => {
                refused = Some((stage, reply));
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let (stage, reply) = refused.ok_or("the spool has no bound")?;
    // What is held is counted four times a second: in between it may have grown past the next level, at
    // which connections are refused; or the count fell into the transaction. Which level answers how is
    // tested beside the levels.
    let expected = if stage == "connect" { 421 } else { 452 };
    assert_eq!((reply.code, reply.enhanced()), (expected, Some("4.3.1")), "{stage}");
    assert!(accepted.len() >= 10, "{} were accepted", accepted.len());

    world.nodes.start_big().await?;
    world.linked().await?;
    until("mail is taken again", SOON, async || Ok((level(&world).await? == Level::Open).then_some(())))
        .await?;
    let last = world.receive(&[ALICE], &letter(100)).await?;
    accepted.push((100, last));
    let desk = world.desk("alice");
    for (number, id) in &accepted {
        desk.filed(Folder::In, id).await?;
        assert!(without_trace(&desk.raw(id).await?) == letter(*number), "{number} is altered");
    }
    assert_eq!(desk.messages(Folder::In).await?.len(), accepted.len(), "each is there once");
    Ok(())
}
