//! The table: every node, every call that it makes, every number of that call and everything that happens there, and
//! every pair of a kill under load and something while the node starts again. A seed decides the order.

use std::fmt;

use ::tests::process::Node;
use ::tests::random::Random;

use What::{Fails, KeepsFailing, Killed};

/// The last number of a call that is made often.
const OFTEN: u32 = 20;
/// One round in so many is a pair.
const PAIR_ONE_IN: u32 = 4;

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The process is killed instead of making it.
    Killed,
    /// It fails once, by the name of its error.
    Fails(&'static str),
    /// It and all behind it fail for a moment.
    KeepsFailing(&'static str),
}

/// A call, and what happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    call: &'static str,
    /// Which of the calls of one thread, from 1: strace counts them thread by thread.
    number: u32,
    what: What,
}

impl Injection {
    /// As strace's `-e inject` has it.
    pub fn expression(&self) -> String {
        let Self { call, number, what } = self;
        match what {
            Killed => format!("{call}:signal=KILL:when={number}"),
            Fails(error) => format!("{call}:error={error}:when={number}"),
            KeepsFailing(error) => format!("{call}:error={error}:when={number}+"),
        }
    }

    /// Whether the process is killed at it.
    pub fn is_kill(&self) -> bool {
        self.what == Killed
    }

    /// Whether a node that goes on may have to do again what it has not recorded.
    pub fn may_lose_a_record(&self) -> bool {
        matches!(self.call, "fdatasync" | "pwrite64") && !self.is_kill()
    }

    /// Whether it is a sync that fails: then nobody knows what is on the disk.
    pub fn is_failed_sync(&self) -> bool {
        self.call == "fdatasync" && !self.is_kill()
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, number, what } = self;
        match what {
            Killed => write!(f, "killed at {call} {number}"),
            Fails(error) => write!(f, "{call} {number} fails with {error}"),
            KeepsFailing(error) => write!(f, "{call} fails with {error} from {number} on"),
        }
    }
}

/// What one round does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combination {
    /// To whom.
    pub node: Node,
    /// Under load.
    pub first: Injection,
    /// While it starts again.
    pub then: Option<Injection>,
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, first, then } = self;
        write!(f, "{}, {first}", node.name())?;
        then.map_or(Ok(()), |then| write!(f, ", and as it starts again {then}"))
    }
}

/// A call, its last number, and what may happen there.
type Row = (&'static str, u32, &'static [What]);

/// What both nodes call under load. `write` wakes another thread, as behind a commit; `sendmsg` is the link, `sendto` an
/// answer.
const UNDER_LOAD: [Row; 6] = [
    ("fdatasync", OFTEN, &[Killed, Fails("EIO"), KeepsFailing("EIO")]),
    ("pwrite64", OFTEN, &[Killed, Fails("EIO"), Fails("ENOSPC"), KeepsFailing("ENOSPC")]),
    ("sendmsg", OFTEN, &[Killed, Fails("ENOBUFS"), Fails("EPERM"), KeepsFailing("ENETUNREACH")]),
    ("sendto", OFTEN, &[Killed, Fails("ENOBUFS"), Fails("ECONNRESET")]),
    ("write", OFTEN, &[Killed]),
    ("accept4", OFTEN, &[Killed, Fails("EMFILE"), KeepsFailing("EMFILE")]),
];
/// What only edge does: TLS, and bodies of the road, each of which it opens.
const OF_EDGE: [Row; 2] = [
    ("writev", OFTEN, &[Killed, Fails("ECONNRESET")]),
    ("openat", 3, &[Killed, Fails("EMFILE"), Fails("ENOSPC"), KeepsFailing("EMFILE")]),
];
/// What both call as they start.
const AT_START: [Row; 6] = [
    ("openat", OFTEN, &[Killed, Fails("EMFILE"), Fails("EACCES")]),
    ("pwrite64", OFTEN, &[Killed, Fails("EIO"), KeepsFailing("ENOSPC")]),
    ("fdatasync", 10, &[Killed, Fails("EIO")]),
    ("write", 10, &[Killed]),
    ("sendmsg", 3, &[Killed]),
    ("unlink", 1, &[Killed, Fails("EACCES")]),
];

fn under_load(node: Node) -> Vec<Injection> {
    let of_edge: &[Row] = if node == Node::Edge { &OF_EDGE } else { &[] };
    injections(UNDER_LOAD.iter().chain(of_edge))
}

fn injections<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Injection> {
    let mut all = Vec::new();
    for &(call, last, whats) in rows {
        for &what in whats {
            all.extend((1..=last).map(|number| Injection { call, number, what }));
        }
    }
    all
}

/// All combinations, in the order of a seed.
pub struct Table {
    single: Vec<Combination>,
    pairs: Vec<Combination>,
}

impl Table {
    /// The order that `seed` stands for.
    pub fn shuffled(seed: u64) -> Self {
        let (mut single, mut pairs) = (Vec::new(), Vec::new());
        let at_start = injections(&AT_START);
        for node in [Node::Edge, Node::Big] {
            for first in under_load(node) {
                single.push(Combination { node, first, then: None });
                if first.is_kill() {
                    pairs.extend(at_start.iter().map(|&then| Combination { node, first, then: Some(then) }));
                }
            }
        }
        let mut random = Random::new(seed);
        shuffle(&mut single, &mut random);
        shuffle(&mut pairs, &mut random);
        Self { single, pairs }
    }

    /// How many there are: those of one injection, and pairs.
    pub fn len(&self) -> (usize, usize) {
        (self.single.len(), self.pairs.len())
    }

    /// What the round of this number does, from 0. Nothing comes again before all of its kind have come.
    pub fn of_round(&self, number: u32) -> Combination {
        let pairs_before = number / PAIR_ONE_IN;
        let (all, place) = match number % PAIR_ONE_IN == PAIR_ONE_IN - 1 {
            true => (&self.pairs, pairs_before),
            false => (&self.single, number - pairs_before),
        };
        all[place as usize % all.len()]
    }
}

/// Fisher and Yates' shuffle.
fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for last in (1..all.len()).rev() {
        let at = random.below(last as u64 + 1);
        all.swap(last, usize::try_from(at).unwrap_or(last));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rounds(seed: u64, count: usize) -> Vec<Combination> {
        let table = Table::shuffled(seed);
        (0..).take(count).map(|number| table.of_round(number)).collect()
    }

    #[test]
    fn nothing_comes_again_before_all_have_come() {
        let (single, pairs) = Table::shuffled(7).len();
        let there: BTreeSet<_> = rounds(7, pairs * 4).iter().map(ToString::to_string).collect();
        assert_eq!(there.len(), single + pairs, "all of them, each by its own name");
        // One in four is a pair, so those of one injection have all come by then.
        let first = rounds(7, (single - 1) / 3 * 4 + (single - 1) % 3 + 1);
        let alone: Vec<_> = first.iter().filter(|combination| combination.then.is_none()).collect();
        let different: BTreeSet<_> = alone.iter().map(ToString::to_string).collect();
        assert_eq!((alone.len(), different.len()), (single, single));
    }

    #[test]
    fn every_call_of_either_node_is_there_with_each_number_and_each_thing_that_happens() {
        let (single, _) = Table::shuffled(1).len();
        let there: BTreeSet<_> = rounds(1, single * 2).iter().map(ToString::to_string).collect();
        for (node, rows) in [("edge-node", [&UNDER_LOAD[..], &OF_EDGE]), ("big-node", [&UNDER_LOAD[..], &[]])]
        {
            for injection in injections(rows.into_iter().flatten()) {
                assert!(there.contains(&format!("{node}, {injection}")), "{node}, {injection}");
            }
        }
        assert!(!there.contains("big-node, killed at writev 1"), "it makes no such call");
    }

    #[test]
    fn a_seed_decides_the_order_and_every_fourth_is_a_pair_that_begins_with_a_kill() {
        assert_eq!(rounds(3, 100), rounds(3, 100));
        assert_ne!(rounds(3, 100), rounds(4, 100));
        for (number, combination) in (1..).zip(rounds(3, 100)) {
            assert_eq!(combination.then.is_some(), number % 4 == 0, "{number}: {combination}");
            assert!(combination.then.is_none() || combination.first.is_kill(), "{combination}");
        }
    }

    #[test]
    fn an_injection_is_written_as_strace_reads_it() {
        let expression = |what| Injection { call: "fdatasync", number: 3, what }.expression();
        assert_eq!(expression(Killed), "fdatasync:signal=KILL:when=3");
        assert_eq!(expression(Fails("EIO")), "fdatasync:error=EIO:when=3");
        assert_eq!(expression(KeepsFailing("EIO")), "fdatasync:error=EIO:when=3+");
    }
}
