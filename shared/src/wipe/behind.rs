//! For tests: what some work has left on the stack of its thread.

use std::fs::{self, File};
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

/// The stack of a thread that has done its work, as that has left it. Dropping it ends the thread.
#[derive(Debug)]
pub struct Behind {
    stack: Range<usize>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Behind {
    /// Has a new thread do `work`. What that returned is returned as well.
    ///
    /// # Panics
    /// If the work does, or where there is no `/proc`.
    pub fn work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (Self, T) {
        let (done, is_done) = channel();
        let (end, ended) = channel::<()>();
        let thread = thread::spawn(move || {
            let here = black_box(0_u8);
            let of_work = work();
            // Whoever waits no more has no use for it.
            let _ = done.send((std::ptr::from_ref(&here).addr(), of_work));
            let _ = ended.recv();
        });
        let (address, of_work) = is_done.recv().expect("the work is done");
        let maps = fs::read_to_string("/proc/self/maps").expect("there is /proc");
        let mut mappings = maps.lines().filter_map(|line| {
            let (start, end) = line.split_whitespace().next()?.split_once('-')?;
            let address = |text: &str| usize::from_str_radix(text, 16).ok();
            Some(address(start)?..address(end)?)
        });
        let stack = mappings.find(|mapping| mapping.contains(&address)).expect("a stack is mapped");
        (Self { stack, end: Some(end), thread: Some(thread) }, of_work)
    }

    /// Whether these octets stand there.
    ///
    /// # Panics
    /// If the stack cannot be read.
    pub fn holds(&self, octets: &[u8]) -> bool {
        let mut found = vec![0; self.stack.len()];
        let memory = File::open("/proc/self/mem").expect("there is /proc");
        memory.read_exact_at(&mut found, self.stack.start as u64).expect("it is our own");
        memchr::memmem::find(&found, octets).is_some()
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wipe;

    const LEFT: &[u8; 32] = b"what some function has left here";

    #[inline(never)]
    fn leave() {
        black_box([*LEFT; 256]);
    }

    #[test]
    fn a_stack_is_searched_and_wiped() {
        assert!(Behind::work(leave).0.holds(LEFT));
        let wiped = || {
            leave();
            wipe::stack();
        };
        assert!(!Behind::work(wiped).0.holds(LEFT));
    }
}
