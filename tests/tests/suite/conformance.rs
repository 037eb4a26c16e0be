//! POP3 and SMTP, held to the dialogues of `tests/pop3` and `tests/smtp`: the sessions by themselves, and the edge that
//! listens.

use tests::dialogue::edge::Edge;
use tests::dialogue::machine::Machine;
use tests::dialogue::smtp_edge::SmtpEdge;
use tests::dialogue::smtp_machine::SmtpMachine;
use tests::dialogue::{Protocol, Server, run, script};
use tests::process::Program;
use tests::wait::Trouble;
use tests::wire::Wire;
use tests::world::{ALICE, World};

/// Exchanges that the suite of POP3 has at least.
const EXCHANGES_MIN: usize = 150;
/// Dialogues that the suite of SMTP has at least.
const SMTP_DIALOGUES_MIN: usize = 250;

/// What an edge that runs cannot give to a dialogue: a clock that can be told to go, and steps that fail.
const NEVER: [&str; 2] = ["clock", "faults"];
/// What the usual edge of POP3 is run without: that, and a wait between two logins.
const POP3_WITHOUT: [&str; 3] = ["clock", "faults", "login-delay"];
/// What the usual edge of SMTP is run without: that, binary parts, a pause before the greeting, and limits that are met soon.
const SMTP_WITHOUT: [&str; 5] = ["binary", "clock", "faults", "pause", "small"];

/// Holds `server` to those dialogues that it has what they need for, and which need `feature` or, unless `needed`, do not;
/// how many.
async fn hold(server: &mut dyn Server, feature: &str, needed: bool) -> Result<usize, Trouble> {
    let folder = server.protocol().folder();
    let messages = script::messages(&folder)?;
    let (mut held, mut differences) = (0, Vec::new());
    for dialogue in &script::dialogues(&folder)? {
        if dialogue.needs.iter().any(|need| need == feature) != needed {
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

/// The suite of a protocol, in which each title is there once.
fn suite(protocol: Protocol) -> Result<Vec<script::Dialogue>, Trouble> {
    let dialogues = script::dialogues(&protocol.folder())?;
    let mut titles: Vec<_> = dialogues.iter().map(|dialogue| &dialogue.title).collect();
    titles.sort();
    let twice = titles.iter().zip(titles.iter().skip(1)).find(|(one, other)| one == other);
    if let Some((title, _)) = twice {
        return Err(format!("{title:?} is there twice").into());
    }
    Ok(dialogues)
}

/// How many dialogues of a suite need `feature`, where one is named, and nothing of what a server is run `without`.
fn due(protocol: Protocol, feature: Option<&str>, without: &[&str]) -> Result<usize, Trouble> {
    let dialogues = suite(protocol)?;
    let is_due = |dialogue: &&script::Dialogue| {
        let needs = |wanted: &str| dialogue.needs.iter().any(|need| need == wanted);
        feature.is_none_or(needs) && !without.iter().any(|lacking| needs(lacking))
    };
    Ok(dialogues.iter().filter(is_due).count())
}

#[test]
fn the_suites_cover_what_they_should() -> Result<(), Trouble> {
    let exchanges = script::exchanges(&suite(Protocol::Pop3)?);
    assert!(exchanges >= EXCHANGES_MIN, "{exchanges} exchanges of POP3");
    let dialogues = suite(Protocol::Smtp)?.len();
    assert!(dialogues >= SMTP_DIALOGUES_MIN, "{dialogues} dialogues of SMTP");
    Ok(())
}

#[tokio::test]
async fn the_session_machine_is_held_to_all_of_it() -> Result<(), Trouble> {
    let delay = "login-delay";
    let held = hold(&mut Machine::new(false), delay, false).await?
        + hold(&mut Machine::new(true), delay, true).await?;
    assert_eq!(held, suite(Protocol::Pop3)?.len(), "none is left out");
    Ok(())
}

#[tokio::test]
async fn the_smtp_session_machine_is_held_to_all_of_it() -> Result<(), Trouble> {
    let (mut usual, mut small) = (SmtpMachine::new(false), SmtpMachine::new(true));
    let held = hold(&mut usual, "small", false).await?
        + hold(&mut small, "small", true).await?
        + hold(&mut SmtpMachine::binary(true), "binary", true).await?;
    assert_eq!(held, suite(Protocol::Smtp)?.len(), "none is left out");
    Ok(())
}

#[tokio::test]
async fn the_edge_is_held_to_what_can_be_seen_from_outside() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut edge = Edge::new(World::start(program).await?);
    let held = hold(&mut edge, "login-delay", false).await?;
    assert_eq!(held, due(Protocol::Pop3, None, &POP3_WITHOUT)?, "none is left out");
    edge.into_world().end().await
}

#[tokio::test]
async fn an_edge_with_a_login_delay_keeps_it() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| topology.login_delay = 30).await?;
    let mut edge = Edge::new(world);
    let held = hold(&mut edge, "login-delay", true).await?;
    assert_eq!(held, due(Protocol::Pop3, Some("login-delay"), &NEVER)?, "none is left out");
    edge.into_world().end().await
}

#[tokio::test]
async fn the_listening_edge_is_held_to_the_dialogues_of_smtp() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut edge = SmtpEdge::new(World::start(program).await?);
    let held = hold(&mut edge, "small", false).await?;
    assert_eq!(held, due(Protocol::Smtp, None, &SMTP_WITHOUT)?, "none is left out");
    edge.into_world().end().await
}

#[tokio::test]
async fn an_edge_that_offers_binarymime_is_held_to_its_dialogues() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut edge = SmtpEdge::new(World::with(program, |topology| topology.binarymime = true).await?);
    let held = hold(&mut edge, "binary", true).await?;
    assert_eq!(held, due(Protocol::Smtp, Some("binary"), &NEVER)?, "none is left out");
    edge.into_world().end().await
}

#[tokio::test]
async fn an_edge_lets_strangers_wait_for_its_greeting_and_nobody_who_has_sent() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut edge = SmtpEdge::new(World::with(program, |topology| topology.greeting_pause = 1).await?);
    let held = hold(&mut edge, "pause", true).await?;
    assert_eq!(held, due(Protocol::Smtp, Some("pause"), &NEVER)?, "none is left out");
    let world = edge.into_world();
    world.receive(&[ALICE], b"Subject: x\r\n\r\nbody\r\n").await?;
    let mut wire = Wire::connect(world.smtp_address()).await?;
    wire.send(b"NOOP\r\n").await?;
    let greeting = wire.line().await?;
    assert!(greeting.starts_with(b"220 "), "{}", greeting.escape_ascii());
    world.end().await
}
