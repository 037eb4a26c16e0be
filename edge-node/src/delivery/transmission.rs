//! How much of a message a host was sent, which is to be known also of a session that was given up on the way.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::time::{Instant, timeout_at};

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

    /// The end of the content is sent next: the final dot, or the last chunk.
    pub fn ends(&self) {
        self.whole.store(true, Relaxed);
    }

    /// The content cannot be read, or that it leaves not be noted.
    pub fn unsendable(&self) {
        self.unsendable.store(true, Relaxed);
    }

    /// What comes of a session that sends this; `None` if it has not ended by `until`. One that has sent the end by then
    /// ends by itself: its host has ten minutes to answer that, and to give up before would make two messages of one
    /// (RFC 5321 §4.5.3.2.6).
    pub async fn in_time<T>(&self, until: Instant, session: impl Future<Output = T>) -> Option<T> {
        let mut session = pin!(session);
        match timeout_at(until, &mut session).await {
            Ok(talked) => Some(talked),
            Err(_) if self.is_whole() => Some(session.await),
            Err(_) => None,
        }
    }

    /// Whether the host had asked for the content.
    pub fn is_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Whether the end of the content may have been sent: the host may have taken the message.
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
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_ends_no_session_behind_the_final_dot() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        // The dot is sent after so many minutes, and answered after so many more.
        for (dot, answer, expected) in [(1, 1, Some(2)), (14, 9, Some(23)), (16, 0, None)] {
            let (begun, sent) = (Instant::now(), Transmission::default());
            let session = async {
                sleep(minutes(dot)).await;
                sent.ends();
                sleep(minutes(answer)).await;
                begun.elapsed()
            };
            let talked = sent.in_time(begun + minutes(15), session).await;
            assert_eq!(talked, expected.map(minutes), "{dot} {answer}");
            assert_eq!(begun.elapsed(), minutes(expected.unwrap_or(15)));
        }
    }

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
