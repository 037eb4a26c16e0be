//! What secrets leave behind in memory that no value owns any more.
//!
//! A value that holds a secret overwrites it when it is dropped, and lies on the heap, so that a move leaves no copy
//! behind. What functions work with in between (the halves of a key exchange, the state of a hash) stays on the stack
//! after they have returned, until others write there.

#[cfg(any(test, feature = "sim"))]
pub mod behind;

use std::hint::black_box;

use zeroize::Zeroize;

/// Words of the stack that are overwritten: more than what works with keys here takes.
const WORDS: usize = 2 * 1024;

/// Overwrites what functions that have returned have left on this thread's stack. To be called by whoever has called
/// them, for it is what lies below its own frame.
#[inline(never)]
pub fn stack() {
    let mut below = [0_u64; WORDS];
    below.zeroize();
    black_box(&below);
}
