//! Disturbances: the whiles in which calls of a node fail, and what a refusal then means.
//!
//! A node may then refuse for the time being what is good. What it had written when a sync failed may be there, though it
//! was refused; when any other call fails, what was refused may not.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ::tests::client::smtp::SendError;
use ::tests::ledger::Fate;
use ::tests::process::Node;

/// Those of a run, one after another.
#[derive(Default)]
pub struct Disturbances(Mutex<Vec<Disturbance>>);

struct Disturbance {
    of: Node,
    until: Option<Instant>,
    /// They may be syncs.
    syncs: bool,
}

impl Disturbance {
    fn is_since(&self, since: Instant) -> bool {
        self.until.is_none_or(|until| until >= since)
    }
}

impl Disturbances {
    /// Calls of a node may fail from now on, and may be syncs.
    pub fn begin(&self, of: Node, syncs: bool) {
        self.all().push(Disturbance { of, until: None, syncs });
    }

    /// No call fails any more.
    pub fn end(&self) {
        if let Some(last) = self.all().last_mut() {
            last.until = Some(Instant::now());
        }
    }

    /// Whether calls of that node have failed since then.
    pub fn is_since(&self, of: Node, since: Instant) -> bool {
        self.any(of, since, |_| true)
    }

    /// What became of a message that was sent to edge since then, by the answer alone.
    pub fn fate<T>(&self, sent: &Result<T, SendError>, since: Instant) -> Fate {
        match sent {
            Ok(_) => Fate::Accepted,
            Err(SendError::InDoubt(_)) => Fate::InDoubt,
            Err(SendError::Refused { stage: "dot" | "BDAT", .. }) => self.fate_of_refused(Node::Edge, since),
            Err(_) => Fate::NotAccepted,
        }
    }

    /// What became of what a node had all of, and refused since then.
    pub fn fate_of_refused(&self, by: Node, since: Instant) -> Fate {
        match self.any(by, since, |one| one.syncs) {
            true => Fate::InDoubt,
            false => Fate::NotAccepted,
        }
    }

    fn any(&self, of: Node, since: Instant, is_meant: impl Fn(&Disturbance) -> bool) -> bool {
        let all = self.all();
        all.iter().rev().take_while(|one| one.is_since(since)).any(|one| one.of == of && is_meant(one))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Disturbance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::tests::client::smtp::Reply;

    use super::*;

    fn refused(stage: &'static str) -> Result<(), SendError> {
        Err(SendError::Refused { stage, reply: Reply { code: 451, lines: Vec::new() } })
    }

    #[test]
    fn what_is_refused_is_in_doubt_only_while_a_sync_of_that_node_may_have_failed() {
        let (all, before) = (Disturbances::default(), Instant::now());
        let fate = |stage, since| all.fate(&refused(stage), since);
        let is_since = |since| all.is_since(Node::Edge, since);
        assert_eq!((is_since(before), fate("dot", before)), (false, Fate::NotAccepted));
        all.begin(Node::Big, true);
        all.end();
        assert_eq!((is_since(before), fate("dot", before)), (false, Fate::NotAccepted), "the other node's");
        assert_eq!(all.fate_of_refused(Node::Big, before), Fate::InDoubt);
        all.begin(Node::Edge, false);
        assert_eq!((is_since(before), fate("dot", before)), (true, Fate::NotAccepted), "no sync");
        all.end();
        all.begin(Node::Edge, true);
        assert_eq!((fate("dot", before), fate("RCPT", before)), (Fate::InDoubt, Fate::NotAccepted));
        all.end();
        assert_eq!((is_since(before), fate("dot", before)), (true, Fate::InDoubt), "it failed meanwhile");
        let after = Instant::now() + Duration::from_secs(1);
        assert_eq!((is_since(after), fate("dot", after)), (false, Fate::NotAccepted), "it is over");
        all.begin(Node::Edge, false);
        assert_eq!(fate("dot", after), Fate::NotAccepted, "a sync failed long ago");
    }
}
