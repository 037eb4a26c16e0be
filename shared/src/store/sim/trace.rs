//! What was done to a disk, and the disk after a power cut at any point of it.

use super::state::{Loss, Op, State};
use super::{Dice, SimDisk};

/// A copy of the disk's state is kept for every so many things done.
const BETWEEN_STATES: usize = 32;

/// Everything that was done to a disk while it recorded, in order.
#[derive(Clone, Debug)]
pub struct Trace {
    ops: Vec<Op>,
    /// The state before op 0, 32, 64 and so on.
    states: Vec<State>,
}

/// Equal if the same was done, byte for byte.
impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        self.ops == other.ops
    }
}

impl Trace {
    pub(super) fn new(first: &State, ops: Vec<Op>) -> Self {
        let mut state = first.clone();
        let mut states = Vec::with_capacity(ops.len() / BETWEEN_STATES + 1);
        for (index, op) in ops.iter().enumerate() {
            if index.is_multiple_of(BETWEEN_STATES) {
                states.push(state.clone());
            }
            state.apply(op);
        }
        if ops.len().is_multiple_of(BETWEEN_STATES) {
            states.push(state);
        }
        Self { ops, states }
    }

    /// Things done: writes, lengths, names made, changed or removed, and syncs.
    pub fn len(&self) -> u64 {
        self.ops.len() as u64
    }

    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The disk as the next start finds it when the power went after the first `at` things done. `at` is
    /// at most [`Trace::len`].
    pub fn cut(&self, at: u64, loss: Loss, dice: &mut Dice) -> SimDisk {
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(self.ops.len());
        let known = at / BETWEEN_STATES;
        let mut state = self.states[known].clone();
        self.ops[known * BETWEEN_STATES..at].iter().for_each(|op| state.apply(op));
        SimDisk::of(state.after_power_cut(loss, dice))
    }
}
