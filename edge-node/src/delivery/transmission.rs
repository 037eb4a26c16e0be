//! How much of a message a host was sent, which is to be known also of a session that was given up on the way.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The content on its way over one session.
#[derive(Debug, Default)]
pub struct Transmission {
    begun: AtomicBool,
    whole: AtomicBool,
    unsendable: AtomicBool,
}

impl Transmission {
    /// The session was given this piece of the content; `None` is its end.
    pub fn given<P, E>(&self, piece: &Result<Option<P>, E>) {
        self.begun.store(true, Relaxed);
        if piece.is_err() {
            self.unsendable();
        }
    }

    /// The final dot is sent next.
    pub fn ends(&self) {
        self.whole.store(true, Relaxed);
    }

    /// The content cannot be read, or that it leaves not be noted.
    pub fn unsendable(&self) {
        self.unsendable.store(true, Relaxed);
    }

    /// Whether the host had asked for the content.
    pub fn is_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Whether the final dot may have been sent: the host may have taken the message.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Relaxed)
    }

    /// Whether no host can be sent it now.
    pub fn is_unsendable(&self) -> bool {
        self.unsendable.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_once_its_end_is_sent() {
        let sent = Transmission::default();
        let seen = || [sent.is_begun(), sent.is_whole(), sent.is_unsendable()];
        assert_eq!(seen(), [false; 3]);
        sent.given(&Ok::<_, ()>(Some("a piece")));
        assert_eq!(seen(), [true, false, false]);
        sent.given(&Ok::<Option<&str>, ()>(None));
        assert_eq!(seen(), [true, false, false]);
        sent.ends();
        assert_eq!(seen(), [true, true, false]);
        let sent = Transmission::default();
        sent.given(&Err::<Option<&str>, _>(()));
        assert_eq!([sent.is_begun(), sent.is_whole(), sent.is_unsendable()], [true, false, true]);
    }
}
