//! Connections of which nobody knows yet whose they are: none of them may keep the partner out.
//!
//! A connection takes a place until its first frame has come and its session may begin. With all places taken a new one gets that of the oldest of
//! those that come from where most come from: who begins handshakes and never ends them pushes out their own.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Who is in the opening, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Openings(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    openings: Mutex<Vec<Opening>>,
    /// Of the next place; none has the number of another one.
    next: AtomicU64,
}

#[derive(Debug)]
struct Opening {
    place: u64,
    network: IpAddr,
    /// `None` until its task is known.
    task: Option<AbortHandle>,
}

/// A place among them, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    openings: Openings,
    number: u64,
}

impl Openings {
    /// The newest place, for a connection from `address`.
    pub(super) fn enter(&self, address: IpAddr) -> Place {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.lock().push(Opening { place: number, network: network(address), task: None });
        Place { openings: self.clone(), number }
    }

    /// The task that a place is for, unless it has left that already.
    pub(super) fn runs(&self, number: u64, task: AbortHandle) {
        if let Some(opening) = self.lock().iter_mut().find(|opening| opening.place == number) {
            opening.task = Some(task);
        }
    }

    /// Ends one of them; `false` if there is none.
    pub(super) fn end_one(&self) -> bool {
        let mut openings = self.lock();
        let networks: Vec<_> = openings.iter().map(|opening| opening.network).collect();
        let Some(index) = crowding(&networks) else { return false };
        openings.remove(index).task.inspect(AbortHandle::abort).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Opening>> {
        self.0.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Gives the place up; `false` if another connection has it already, and this one is ended.
    pub(super) fn leave(&self) -> bool {
        let mut openings = self.openings.lock();
        let before = openings.len();
        openings.retain(|opening| opening.place != self.number);
        openings.len() < before
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Which one has to go: the first of those that are most.
fn crowding(networks: &[IpAddr]) -> Option<usize> {
    let crowd = |network: &IpAddr| networks.iter().filter(|other| *other == network).count();
    let most = networks.iter().map(crowd).max()?;
    networks.iter().position(|network| crowd(network) == most)
}

/// What an address counts for: whoever has one has all of an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_where_most_come_from_has_to_go() {
        let of = |addresses: &[&str]| {
            let parse = |address: &&str| network(address.parse().expect("an address"));
            crowding(&addresses.iter().map(parse).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["192.0.2.1", "192.0.2.2"]), Some(0));
        assert_eq!(of(&["192.0.2.1", "192.0.2.2", "192.0.2.2"]), Some(1));
        assert_eq!(of(&["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:1:a::2"]), Some(1));
        assert_eq!(of(&["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.2"]), Some(1));
    }

    #[tokio::test]
    async fn who_has_lost_the_place_is_told_and_who_has_left_it_is_not_ended() {
        let openings = Openings::default();
        let enter = || {
            let place = openings.enter([192, 0, 2, 1].into());
            let task = tokio::spawn(std::future::pending::<()>());
            openings.runs(place.number(), task.abort_handle());
            (place, task)
        };
        let [(one, ended), (two, runs), (three, _)] = [(); 3].map(|()| enter());
        assert!(openings.end_one());
        assert!(ended.await.is_err_and(|ended| ended.is_cancelled()) && !one.leave());
        assert!(two.leave());
        drop(three);
        assert!(!openings.end_one() && !runs.is_finished());
    }
}
