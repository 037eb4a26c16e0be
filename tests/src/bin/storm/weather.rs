//! What the nodes are put through.

use std::time::Duration;

use tests::random::Random;
use tests::site::Site;

use crate::calls::Reached;
use crate::field::Field;
use crate::lab::Lab;
use crate::{Failure, calls, cuts, kills, loss};

/// The longest pause between two messages of one stranger, where nodes are killed all the time.
const DENSE_MILLIS: u64 = 20;
/// The same where the run is long and the line bad: the line is to be kept busy, not to be flooded.
const STEADY_MILLIS: u64 = 150;

/// One kind of storm.
#[derive(Debug)]
pub enum Weather {
    /// Nodes are killed, on loopback.
    Kills {
        /// How often.
        rounds: u32,
    },
    /// The line loses packets.
    Loss {
        /// Where.
        lab: Lab,
        /// Percent of the packets, one after another.
        percents: Vec<u8>,
        /// How long each.
        each: Duration,
    },
    /// The line is cut, and nodes stand still.
    Cuts {
        /// Where.
        lab: Lab,
        /// How often.
        cuts: u32,
        /// How long each node once stands still.
        long: Duration,
    },
    /// A node is killed at a system call, or the call fails, on loopback.
    Calls {
        /// After so many rounds in the order of the seed.
        from: u32,
        /// How often.
        rounds: u32,
    },
}

impl Weather {
    /// How often the nodes are disturbed.
    pub fn rounds(&self) -> usize {
        match self {
            Self::Kills { rounds: count }
            | Self::Cuts { cuts: count, .. }
            | Self::Calls { rounds: count, .. } => *count as usize,
            Self::Loss { percents, .. } => percents.len(),
        }
    }

    /// What to call this program with to have it again, beside the seed.
    pub fn again(&self) -> String {
        match self {
            Self::Calls { from, rounds } => format!(" --calls {rounds} --from {from}"),
            Self::Kills { .. } | Self::Loss { .. } | Self::Cuts { .. } => String::new(),
        }
    }

    /// Rounds of kills.
    pub fn kills(&self) -> usize {
        match self {
            Self::Kills { rounds } => *rounds as usize,
            Self::Loss { .. } | Self::Cuts { .. } | Self::Calls { .. } => 0,
        }
    }

    /// The longest pause between two messages of one stranger, in milliseconds.
    pub fn pause_millis(&self) -> u64 {
        match self {
            Self::Kills { .. } | Self::Calls { .. } => DENSE_MILLIS,
            Self::Loss { .. } | Self::Cuts { .. } => STEADY_MILLIS,
        }
    }

    /// The site it breaks over.
    pub async fn site(&self, state: &std::path::Path, people: &[String]) -> Result<Site, Failure> {
        Ok(match self {
            Self::Kills { .. } | Self::Calls { .. } => Site::start(state, people).await?,
            Self::Loss { lab, .. } | Self::Cuts { lab, .. } => {
                Site::start_on(lab.hosts()?, state, people).await?
            }
        })
    }

    /// Breaks; returns when the nodes run undisturbed again, and which calls were reached.
    pub async fn run(&self, site: &mut Site, field: &Field, random: &mut Random) -> Result<Reached, Failure> {
        match self {
            Self::Kills { rounds } => kills::run(site, field, random, *rounds).await?,
            Self::Loss { lab, percents, each } => loss::run(site, field, *lab, percents, *each).await?,
            Self::Cuts { lab, cuts, long } => cuts::run(site, field, random, *lab, *cuts, *long).await?,
            Self::Calls { from, rounds } => return calls::run(site, field, random, *from, *rounds).await,
        }
        Ok(Reached::default())
    }
}
