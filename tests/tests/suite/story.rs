//! The story that `pair --once` plays, as anybody runs it.

use std::process::Command;
use std::time::Duration;

use tests::process::{Running, finish};
use tests::ready::PairReady;
use tests::wait::Trouble;

const WITHIN: Duration = Duration::from_secs(120);

fn pair(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pair"));
    command.args(arguments);
    command
}

#[tokio::test]
async fn the_story_ends_with_every_message_accounted_for() -> Result<(), Trouble> {
    let told = finish(pair(&["--once"]), b"", WITHIN).await?;
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "{text}\n{}", told.stderr);
    let last = text.lines().last().unwrap_or_default();
    assert_eq!(last, "story: 23 steps, 9 messages, every one accounted for exactly once");
    Ok(())
}

#[tokio::test]
async fn a_pair_that_stays_says_where_it_is_ends_when_told_and_can_be_taken_up_again() -> Result<(), Trouble>
{
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let arguments = ["--json", "--state", state.to_str().ok_or("UTF-8")?];
    let mut passwords = Vec::new();
    for _ in 0..2 {
        let (running, ready): (_, PairReady) =
            Running::start(pair(&arguments), &folder.path().join("log"), WITHIN).await?;
        let people: Vec<_> = ready.people.iter().map(|person| person.address.as_str()).collect();
        assert_eq!(people, ["alice@example.com", "bob@example.com"]);
        let bob = ready.people.into_iter().find(|person| person.name == "bob").ok_or("no bob")?;
        let password = bob.password.ok_or("bob travels")?;
        let mut session = tests::client::pop3::Pop3Client::connect_tls(ready.edge.pop3s).await?;
        session.login(&bob.address, &password).await?;
        session.quit().await?;
        passwords.push(password);
        let ended = running.interrupt(WITHIN).await?;
        assert!(ended.success(), "{ended}");
    }
    assert_ne!(passwords[0], passwords[1], "a password is shown once, and then made anew");
    Ok(())
}

#[tokio::test]
async fn a_story_is_not_told_over_an_old_one() -> Result<(), Trouble> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("something"), "")?;
    let refused =
        finish(pair(&["--once", "--state", folder.path().to_str().ok_or("UTF-8")?]), b"", WITHIN).await?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("give --state a new folder"), "{}", refused.stderr);
    Ok(())
}
