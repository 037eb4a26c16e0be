//! Calls: a node is killed at a system call, or the call fails, at each number of each call in turn, by strace.
//!
//! No point in the nodes has a name. What anybody else could see lies between two system calls: a node that is killed
//! at one has done all that it had done before, and nothing of that call. `table` lists what is done.

mod table;

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use shared::control::CallError;
use tests::ask;
use tests::control::Commands;
use tests::nodes::NodesError;
use tests::process::{Node, ProcessError, Program, installed};
use tests::random::Random;
use tests::site::Site;
use tests::tampered::{Tampered, Trace, from_start};

use self::table::{Combination, Injection, Table};
use crate::Failure;
use crate::field::Field;

/// How long a call may let itself be waited for.
const REACHED_WITHIN: Duration = Duration::from_secs(6);
/// The pause between two looks at whether it was.
const LOOK_MILLIS: u64 = 10;
/// A round begins at most so long after the one before.
const BEGINS_WITHIN_MILLIS: u64 = 200;
/// Calls fail, and a node is left to itself afterwards, at most so long.
const FAILS_MILLIS: u64 = 300;
/// A node stays dead for at most so long.
const DEAD_MILLIS: u64 = 100;
/// One round in so many does not wait for the link.
const UNJOINED_ONE_IN: u64 = 4;
/// How long a node that goes on may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// A process that has ended is seen to have so soon.
const ENDED_WITHIN: Duration = Duration::from_millis(50);
/// What a node says after a failed sync, until it is started again.
const STOPPED: &str = "the store has stopped";
/// A run of so many rounds has to reach three quarters of its calls.
const COUNTED_ROUNDS: usize = 12;

/// How many rounds reached their calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// All of them.
    pub hit: usize,
    /// A call was not made in time.
    pub missed: usize,
}

impl Reached {
    /// Whether too few were reached for the run to say anything.
    fn is_too_few(self) -> bool {
        let rounds = self.hit + self.missed;
        rounds >= COUNTED_ROUNDS && self.hit * 4 < rounds * 3
    }
}

/// What this machine lacks, if anything.
pub fn missing() -> Result<Option<&'static str>, Failure> {
    if !installed("strace") {
        return Ok(Some("strace"));
    }
    // No other process of this one's has to let itself be traced.
    let mut other = Command::new("cat").stdin(Stdio::piped()).spawn()?;
    let tampered = Tampered::with(other.id(), &["fdatasync:error=EIO:when=1"])?;
    let may = tampered.is_some();
    drop(tampered);
    drop(other.stdin.take());
    other.wait()?;
    Ok((!may).then_some("permission to trace"))
}

/// So many rounds of the table in the order of the storm's seed, after the first `from`.
pub async fn run(
    site: &mut Site,
    field: &Field,
    random: &mut Random,
    from: u32,
    rounds: u32,
) -> Result<Reached, Failure> {
    let table = Table::shuffled(field.seed);
    let (single, pairs) = table.len();
    println!("storm: {single} combinations of node, call, number and what happens there, and {pairs} pairs");
    let mut reached = Reached::default();
    for number in from..from.saturating_add(rounds) {
        let combination = table.of_round(number);
        let came = round(site, field, random, combination).await;
        let came = came.map_err(|e| format!("round {}: {combination}: {e}", number + 1))?;
        let is_hit = !came.contains(&Came::Missed);
        reached.hit += usize::from(is_hit);
        reached.missed += usize::from(!is_hit);
        let came: Vec<_> = came.into_iter().map(Came::words).collect();
        let came = came.join(", then ");
        println!("storm: round {}: {combination}: {came}; {}", number + 1, field.progress());
    }
    if reached.is_too_few() {
        field.fault(format!("only {} rounds reached their calls, {} did not", reached.hit, reached.missed));
    }
    Ok(reached)
}

/// What came of an injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Nothing: the call was not made in time.
    Missed,
    /// The process was killed.
    Killed,
    /// It ended by itself.
    Ended,
    /// It serves nobody until it is started again.
    Stopped,
    /// It goes on by itself.
    WentOn,
    /// It did not end for it, and was then killed.
    Stayed,
}

impl Came {
    fn words(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Killed => "killed",
            Self::Ended => "it ended by itself",
            Self::Stopped => "it stopped",
            Self::WentOn => "it went on",
            Self::Stayed => "it did not end",
        }
    }
}

/// One round; the node runs undisturbed again.
async fn round(
    site: &mut Site,
    field: &Field,
    random: &mut Random,
    combination: Combination,
) -> Result<Vec<Came>, Failure> {
    let Combination { node, first, then } = combination;
    if random.below(UNJOINED_ONE_IN) != 0 {
        site.until_joined().await?;
    }
    pause(random.below(BEGINS_WITHIN_MILLIS + 1)).await;
    let fails = [Some(first), then].into_iter().flatten().filter(|injection| !injection.is_kill());
    let syncs = fails.clone().any(|injection| injection.is_failed_sync());
    let disturbs = fails.count() > 0;
    if disturbs {
        field.disturbances.begin(node, syncs);
    }
    let mut came = vec![under_load(site, field, random, node, first).await?];
    if let Some(Came::Killed | Came::Ended | Came::Stopped) = came.last() {
        pause(random.below(DEAD_MILLIS + 1)).await;
        if let Some(then) = then {
            came.push(at_start(site, field, random, node, then).await?);
        }
        died(field, node)?;
        site.nodes.start(node).await?;
    }
    if disturbs {
        field.disturbances.end();
    }
    Ok(came)
}

/// Lets it happen to a node that runs, and sees what comes of it. A node that is not to be left as it is has ended then.
async fn under_load(
    site: &mut Site,
    field: &Field,
    random: &mut Random,
    node: Node,
    injection: Injection,
) -> Result<Came, Failure> {
    let pid = match node {
        Node::Edge => site.nodes.edge_ready().pid,
        Node::Big => site.nodes.big_ready().pid,
    };
    let Some(tampered) = Tampered::with(pid, &[&injection.expression()])? else {
        return Err("strace could not attach".into());
    };
    let mut seen = watched(site, node, injection, tampered.trace()).await?;
    if seen == Seen::Injected {
        if injection.may_lose_a_record() {
            may_not_have_recorded(field, node, "a call of edge's failed, as if it")?;
        }
        pause(random.below(FAILS_MILLIS + 1)).await;
    }
    tampered.let_go()?;
    if !matches!(seen, Seen::Ended(_))
        && let Ok(ended) = tokio::time::timeout(ENDED_WITHIN, site.nodes.failure()).await
    {
        seen = Seen::Ended(of(node, ended?)?);
    }
    let came = match seen {
        Seen::Ended(status) => {
            died(field, node)?;
            ended(field, node, injection, status)
        }
        Seen::Nothing => Came::Missed,
        Seen::Injected if goes_on(site, field, node, injection).await => Came::WentOn,
        Seen::Injected => {
            died(field, node)?;
            site.nodes.kill(node).await?;
            Came::Stopped
        }
    };
    if !is_right(injection, came) {
        field.fault(format!("{}, {injection}: {}", node.name(), came.words()));
    }
    Ok(came)
}

/// A node that runs promises nothing more behind a failed sync, and gets over all else that fails.
fn is_right(injection: Injection, came: Came) -> bool {
    let right = match injection.is_kill() {
        true => Came::Killed,
        false if injection.is_failed_sync() => Came::Stopped,
        false => Came::WentOn,
    };
    came == right || came == Came::Missed
}

/// Starts a node to which it happens, and sees what comes of it. It has ended then.
async fn at_start(
    site: &mut Site,
    field: &Field,
    random: &mut Random,
    node: Node,
    injection: Injection,
) -> Result<Came, Failure> {
    let (program, trace) = from_start(Program::this()?, &[&injection.expression()])?;
    let tampered = Commands::new(program, node, &site.nodes.file);
    let plain = std::mem::replace(site.nodes.commands(node), tampered);
    let started = site.nodes.start(node).await;
    *site.nodes.commands(node) = plain;
    let seen = match started {
        Ok(()) => watched(site, node, injection, &trace).await?,
        Err(NodesError::Process(ProcessError::Ended { status, .. }))
            if injection.is_kill() || trace.is_injected()? =>
        {
            Seen::Ended(status)
        }
        Err(error) => return Err(error.into()),
    };
    if seen == Seen::Injected {
        pause(random.below(FAILS_MILLIS + 1)).await;
    }
    died(field, node)?;
    match seen {
        Seen::Ended(status) => Ok(ended(field, node, injection, status)),
        Seen::Injected | Seen::Nothing => {
            site.nodes.kill(node).await?;
            Ok(if seen == Seen::Nothing { Came::Missed } else { Came::Stayed })
        }
    }
}

/// What is seen of a node that is tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Ended(ExitStatus),
    Injected,
    Nothing,
}

async fn watched(site: &mut Site, node: Node, injection: Injection, trace: &Trace) -> Result<Seen, Failure> {
    let injected = async {
        while injection.is_kill() || !trace.is_injected()? {
            pause(LOOK_MILLIS).await;
        }
        io::Result::Ok(Seen::Injected)
    };
    tokio::select! {
        ended = site.nodes.failure() => Ok(Seen::Ended(of(node, ended?)?)),
        seen = injected => Ok(seen?),
        () = tokio::time::sleep(REACHED_WITHIN) => Ok(Seen::Nothing),
    }
}

/// How `node` ended; the other one should not have.
fn of(node: Node, (which, status): (Node, ExitStatus)) -> Result<ExitStatus, Failure> {
    match which == node {
        true => Ok(status),
        false => Err(format!("{} ended, with which nobody tampered: {status}", which.name()).into()),
    }
}

/// A node that starts may end by itself after a failed call, but not by a panic, which aborts; and a kill is a kill.
fn ended(field: &Field, node: Node, injection: Injection, status: ExitStatus) -> Came {
    let is_killed = status.signal() == Some(rustix::process::Signal::KILL.as_raw());
    let is_right = match injection.is_kill() {
        true => is_killed,
        false => status.signal().is_none(),
    };
    if !is_right {
        field.fault(format!("{}, {injection}: it ended with {status}", node.name()));
    }
    if is_killed { Came::Killed } else { Came::Ended }
}

/// Whether a node with which nobody tampers any more goes on by itself. One that says that it has stopped does not.
async fn goes_on(site: &Site, field: &Field, node: Node, injection: Injection) -> bool {
    let since = Instant::now();
    loop {
        let link = match node {
            Node::Big => ask::big_link(&site.big()).await,
            Node::Edge => ask::edge_link(&site.edge()).await,
        };
        match link {
            Ok(_) => return true,
            Err(CallError::Refused(refused)) if refused.0.contains(STOPPED) => return false,
            Err(error) if since.elapsed() > ANSWERS_WITHIN => {
                field.fault(format!("{}, {injection}: it does not answer: {error}", node.name()));
                return false;
            }
            Err(_) => pause(LOOK_MILLIS).await,
        }
    }
}

fn died(field: &Field, node: Node) -> io::Result<()> {
    may_not_have_recorded(field, node, "edge")
}

/// Notes that a node may not have recorded what it had just done. Big's failing excuses no repeat outside: only edge
/// speaks to MTAs.
fn may_not_have_recorded(field: &Field, node: Node, what: &str) -> io::Result<()> {
    match node {
        Node::Edge => field.books.killed(what, SystemTime::now()),
        Node::Big => Ok(()),
    }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[cfg(test)]
mod shown_to_fail {
    use super::*;

    #[test]
    fn a_run_that_reaches_fewer_than_three_quarters_of_its_calls_is_no_run() {
        let is_too_few = |hit, missed| Reached { hit, missed }.is_too_few();
        assert!(is_too_few(8, 4) && is_too_few(0, 50));
        assert!(!is_too_few(9, 3) && !is_too_few(12, 0));
        assert!(!is_too_few(1, 10), "too short to say");
    }

    #[test]
    fn a_node_stops_behind_a_failed_sync_and_behind_nothing_else() {
        let combinations = (0..2_000).map(|number| Table::shuffled(1).of_round(number).first);
        let mut seen = [false; 3];
        for injection in combinations {
            let right: Vec<_> = [Came::Killed, Came::Stopped, Came::WentOn, Came::Ended]
                .into_iter()
                .filter(|came| is_right(injection, *came))
                .collect();
            let expected = match injection.to_string() {
                text if text.starts_with("killed") => (0, Came::Killed),
                text if text.starts_with("fdatasync") => (1, Came::Stopped),
                _ => (2, Came::WentOn),
            };
            seen[expected.0] = true;
            assert_eq!(right, [expected.1], "{injection}");
        }
        assert_eq!(seen, [true; 3]);
    }
}
