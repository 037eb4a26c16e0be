//! The race of connections to the addresses of one host (RFC 8305 §5): each address has a head start on the next, and
//! the first connection that is made wins.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long an address is tried alone before the next one is tried, too (Connection Attempt Delay). One where no connection
/// can be made gives way at once.
const HEAD_START: Duration = Duration::from_millis(250);

/// What came of a race.
#[derive(Debug)]
pub struct Raced<C> {
    /// The connection that was made first, and where; `None` if none could be.
    pub won: Option<(SocketAddr, C)>,
    /// Where none could be made, and why. An address that was merely slower is not among them.
    pub failed: Vec<(SocketAddr, io::Error)>,
}

/// Connects to the first of `addresses` that takes a connection; they are in the order in which they begin. What is under
/// way to the others then is dropped.
pub async fn race<C, F>(addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> F) -> Raced<C>
where
    C: Send + 'static,
    F: Future<Output = io::Result<C>> + Send + 'static,
{
    let (mut waiting, mut under_way, mut failed) = (addresses.iter(), JoinSet::new(), Vec::new());
    loop {
        if let Some(address) = waiting.next() {
            let (address, connecting) = (*address, connect(*address));
            under_way.spawn(async move { (address, connecting.await) });
        }
        let ended = match waiting.len() {
            0 => Ok(under_way.join_next().await),
            _ => timeout(HEAD_START, under_way.join_next()).await,
        };
        match ended {
            Ok(Some(Ok((address, Ok(connection))))) => {
                return Raced { won: Some((address, connection)), failed };
            }
            Ok(Some(Ok((address, Err(error))))) => failed.push((address, error)),
            Ok(None) => return Raced { won: None, failed },
            // The next one's turn has come; or a connection was given up with the runtime.
            Err(_) | Ok(Some(Err(_))) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::{Instant, sleep};

    use super::*;

    /// What an address does with a connection, how many milliseconds after it was asked for.
    #[derive(Clone, Copy)]
    enum Does {
        Takes(u64),
        Refuses(u64),
        Nothing,
    }
    use Does::{Nothing, Refuses, Takes};

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, u8::try_from(number).expect("few")], 25))
    }

    /// When an address is there no more, the connection being dropped.
    struct Dropped(Arc<Mutex<Vec<usize>>>, usize);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.lock().expect("whole").push(self.1);
        }
    }

    /// Races addresses that do this. Returns who has won, who has failed, when each was asked, and when it was over, in
    /// milliseconds.
    async fn raced(does: &[Does]) -> (Option<usize>, Vec<usize>, Vec<u64>, u64) {
        let (start, asked) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let dropped = Arc::new(Mutex::new(Vec::new()));
        let since = move || u64::try_from(start.elapsed().as_millis()).expect("short");
        let addresses: Vec<_> = (0..does.len()).map(address).collect();
        let number = |at: SocketAddr| addresses.iter().position(|other| *other == at).expect("one of them");
        let race = race(&addresses, |at| {
            asked.lock().expect("whole").push(since());
            let (does, pending) = (does[number(at)], Dropped(Arc::clone(&dropped), number(at)));
            async move {
                let _pending = pending;
                match does {
                    Takes(after) => sleep(Duration::from_millis(after)).await,
                    Refuses(after) => {
                        sleep(Duration::from_millis(after)).await;
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    Nothing => std::future::pending().await,
                }
                Ok(())
            }
        });
        let Raced { won, failed } = race.await;
        let over = since();
        // What is aborted goes as soon as its task is looked at.
        tokio::task::yield_now().await;
        let asked = asked.lock().expect("whole").clone();
        let mut dropped = dropped.lock().expect("whole").clone();
        dropped.sort_unstable();
        assert_eq!(dropped, (0..asked.len()).collect::<Vec<_>>(), "nothing goes on behind the race");
        let failed = failed.iter().map(|(at, _)| number(*at)).collect();
        (won.map(|(at, ())| number(at)), failed, asked, over)
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_a_head_start_and_the_first_connection_wins() {
        // One that answers in time is the only one that is asked.
        assert_eq!(raced(&[Takes(249), Takes(0)]).await, (Some(0), vec![], vec![0], 249));
        // One that says nothing costs its head start.
        assert_eq!(raced(&[Nothing, Takes(10)]).await, (Some(1), vec![], vec![0, 250], 260));
        assert_eq!(
            raced(&[Nothing, Nothing, Takes(10), Takes(0)]).await,
            (Some(2), vec![], vec![0, 250, 500], 510)
        );
        // A slow one may win still.
        assert_eq!(raced(&[Takes(300), Takes(100)]).await, (Some(0), vec![], vec![0, 250], 300));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_gives_way_at_once() {
        assert_eq!(raced(&[Refuses(1), Takes(10)]).await, (Some(1), vec![0], vec![0, 1], 11));
        // The first's end is the third's beginning.
        assert_eq!(
            raced(&[Refuses(300), Nothing, Takes(10)]).await,
            (Some(2), vec![0], vec![0, 250, 300], 310)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_race_that_nobody_wins_ends_with_the_last_of_them() {
        assert_eq!(
            raced(&[Refuses(30_000), Refuses(30_000), Refuses(1)]).await,
            (None, vec![2, 0, 1], vec![0, 250, 500], 30_250)
        );
        assert_eq!(raced(&[]).await, (None, vec![], vec![], 0));
    }
}
