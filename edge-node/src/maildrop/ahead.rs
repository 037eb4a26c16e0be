//! Reading ahead: a client that fetches message after message has the next one opened while it looks at the last.

use shared::pop3::Entry;

/// Octets of a message that is opened ahead, for it waits in memory as long as its client does.
const AHEAD_BYTES_MAX: u64 = 16 * 1024;

/// Which message is opened ahead, and that one; of one session.
#[derive(Debug)]
pub struct Ahead<T> {
    /// What is behind the message that was fetched last.
    next: Option<Entry>,
    /// Whether that is to be opened: the client goes in order.
    wanted: bool,
    opened: Option<(Entry, T)>,
}

// Without it, a message would have to have a default.
impl<T> Default for Ahead<T> {
    fn default() -> Self {
        Self { next: None, wanted: false, opened: None }
    }
}

impl<T> Ahead<T> {
    /// A client fetches `entry`, behind which is `next`. The message, if it has been opened.
    pub fn fetch(&mut self, entry: Entry, next: Option<Entry>) -> Option<T> {
        let goes_on = self.next == Some(entry);
        self.next = next;
        self.wanted = goes_on && next.is_some_and(|next| next.size <= AHEAD_BYTES_MAX);
        self.opened.take().filter(|(opened, _)| *opened == entry).map(|(_, message)| message)
    }

    /// What is to be opened while the client says nothing, told once.
    pub fn wanted(&mut self) -> Option<Entry> {
        self.next.filter(|_| std::mem::take(&mut self.wanted))
    }

    /// That is open.
    pub fn opened(&mut self, entry: Entry, message: T) {
        self.opened = Some((entry, message));
    }
}

#[cfg(test)]
mod tests {
    use shared::id::MessageId;

    use super::*;

    fn entry(number: u8) -> Entry {
        Entry { size: AHEAD_BYTES_MAX, message: MessageId([number; 16]), revision: 0 }
    }

    #[test]
    fn the_next_one_is_opened_for_whom_goes_in_order() {
        let mut ahead = Ahead::default();
        assert_eq!((ahead.fetch(entry(1), Some(entry(2))), ahead.wanted()), (None, None), "may be all");
        assert_eq!(ahead.fetch(entry(2), Some(entry(3))), None);
        assert_eq!((ahead.wanted(), ahead.wanted()), (Some(entry(3)), None), "is told once");
        ahead.opened(entry(3), "third");
        assert_eq!(ahead.fetch(entry(3), Some(entry(4))), Some("third"));
        assert_eq!(ahead.wanted(), Some(entry(4)));
        ahead.opened(entry(4), "fourth");
        assert_eq!(ahead.fetch(entry(7), Some(entry(8))), None, "another one is");
        assert_eq!(
            (ahead.wanted(), ahead.fetch(entry(4), Some(entry(5)))),
            (None, None),
            "and that one goes"
        );
    }

    #[test]
    fn what_is_large_or_not_there_is_not_opened() {
        let mut ahead: Ahead<()> = Ahead::default();
        let large = Entry { size: AHEAD_BYTES_MAX + 1, ..entry(3) };
        ahead.fetch(entry(1), Some(entry(2)));
        ahead.fetch(entry(2), Some(large));
        assert_eq!(ahead.wanted(), None);
        ahead.fetch(large, Some(entry(4)));
        assert_eq!(ahead.wanted(), Some(entry(4)));
        ahead.fetch(entry(4), None);
        assert_eq!(ahead.wanted(), None);
    }
}
