//! Kills: SIGKILL for edge, big or both at random moments.

use std::time::{Duration, SystemTime};

use tests::process::Node;
use tests::random::Random;
use tests::site::Site;

use crate::Failure;
use crate::field::Field;

/// A node is killed at most so long after the one before has come back.
const KILL_WITHIN_MILLIS: u64 = 300;
/// A node stays dead for at most so long.
const DEAD_MILLIS: u64 = 100;
/// One round in so many does not wait for the link before it kills.
const UNJOINED_ONE_IN: u64 = 4;
/// Rounds between two lines of progress.
const PROGRESS_ROUNDS: u32 = 10;

/// Kills in so many rounds.
pub async fn run(site: &mut Site, field: &Field, random: &mut Random, rounds: u32) -> Result<(), Failure> {
    for number in 1..=rounds {
        round(site, field, random).await.map_err(|e| format!("round {number}: {e}"))?;
        if number % PROGRESS_ROUNDS == 0 {
            println!("storm: {number} rounds, {}", field.progress());
        }
    }
    Ok(())
}

/// Kills one node or both at a random moment, and starts what was killed.
async fn round(site: &mut Site, field: &Field, random: &mut Random) -> Result<(), Failure> {
    if random.below(UNJOINED_ONE_IN) != 0 {
        site.until_joined().await?;
    }
    tokio::time::sleep(Duration::from_millis(random.below(KILL_WITHIN_MILLIS + 1))).await;
    let victims: &[Node] = random.pick::<&[Node]>(&[
        &[Node::Edge],
        &[Node::Big],
        &[Node::Edge, Node::Big],
        &[Node::Big, Node::Edge],
    ]);
    for &victim in victims {
        // Big's death excuses no repeat outside: only edge speaks to MTAs.
        if victim == Node::Edge {
            field.books.killed("edge", SystemTime::now())?;
        }
        site.nodes.kill(victim).await?;
    }
    tokio::time::sleep(Duration::from_millis(random.below(DEAD_MILLIS + 1))).await;
    if victims.contains(&Node::Edge) {
        // What edge had written when it died is still read and answered 250 by the MTA outside, which no edge
        // is there to record. The last moment of that is now.
        field.books.killed("edge, dead since before that,", SystemTime::now())?;
    }
    for &victim in victims {
        site.nodes.start(victim).await?;
    }
    Ok(())
}
