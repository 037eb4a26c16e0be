//! POP3, held to the dialogues of `tests/pop3`: the session by itself, and the edge that listens.

use tests::dialogue::edge::Edge;
use tests::dialogue::machine::Machine;
use tests::dialogue::{Server, folder, run, script};
use tests::process::Program;
use tests::wait::Trouble;
use tests::world::World;

/// Exchanges that the suite has at least.
const EXCHANGES_MIN: usize = 150;

/// Holds `server` to those dialogues that it has what they need for; how many.
async fn hold(server: &mut dyn Server, delays: bool) -> Result<usize, Trouble> {
    let messages = script::messages(&folder())?;
    let (mut held, mut differences) = (0, Vec::new());
    for dialogue in &script::dialogues(&folder())? {
        if dialogue.needs.iter().any(|feature| feature == "login-delay") != delays {
            continue;
        }
        match run::run(server, dialogue, &messages).await? {
            None => {}
            Some(Ok(())) => held += 1,
            Some(Err(difference)) => differences.push(difference.to_string()),
        }
    }
    if differences.is_empty() { Ok(held) } else { Err(differences.join("\n").into()) }
}

#[test]
fn the_suite_covers_what_it_should() -> Result<(), Trouble> {
    let dialogues = script::dialogues(&folder())?;
    let exchanges = script::exchanges(&dialogues);
    assert!(exchanges >= EXCHANGES_MIN, "{exchanges} exchanges");
    let mut titles: Vec<_> = dialogues.iter().map(|dialogue| &dialogue.title).collect();
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), dialogues.len(), "each title is there once");
    Ok(())
}

#[tokio::test]
async fn the_session_machine_is_held_to_all_of_it() -> Result<(), Trouble> {
    let held = hold(&mut Machine::new(false), false).await? + hold(&mut Machine::new(true), true).await?;
    assert_eq!(held, script::dialogues(&folder())?.len(), "none is left out");
    Ok(())
}

#[tokio::test]
async fn the_edge_is_held_to_what_can_be_seen_from_outside() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut edge = Edge::new(World::start(program).await?);
    let held = hold(&mut edge, false).await?;
    assert!(held >= 60, "{held} dialogues");
    edge.into_world().end().await
}

#[tokio::test]
async fn an_edge_with_a_login_delay_keeps_it() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.login_delay = 30).await?;
    let mut edge = Edge::new(world);
    assert!(hold(&mut edge, true).await? > 0);
    edge.into_world().end().await
}
