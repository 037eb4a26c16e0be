//! Places at the smart host for mail that cannot be routed to the hosts of its domain: as many at once as at any other
//! destination, by the same rules. Who finds none does not wait in one of the places for all attempts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::id::{MessageId, monotonic, random};

use super::scheduler::{Limits, Scheduler, Shown};

/// The smart host has no name here, as where it takes all mail.
const PLACE: &str = "";

/// The places; clones share them. `W` says why the smart host could not be reached.
#[derive(Debug)]
pub struct Fallback<W>(Arc<Mutex<Scheduler<W>>>);

impl<W> Clone for Fallback<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: Clone> Fallback<W> {
    /// All places are free.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Scheduler::new(limits))))
    }

    /// Whether a place is free.
    pub fn has_place(&self) -> bool {
        lock(&self.0).may_begin(PLACE, monotonic())
    }

    /// The pause of a smart host that could not be reached is over.
    pub fn end_pause(&self) {
        lock(&self.0).end_pause(PLACE);
    }

    /// Takes a place, if one is free.
    pub fn place(&self) -> Option<Place<W>> {
        let mut scheduler = lock(&self.0);
        if !scheduler.may_begin(PLACE, monotonic()) {
            return None;
        }
        // One message may be on its way there for several domains.
        let ticket = MessageId(random());
        let known = scheduler.begin(PLACE, ticket, monotonic());
        Some(Place { scheduler: Arc::clone(&self.0), ticket, known, shown: Shown::Nothing })
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place<W: Clone> {
    scheduler: Arc<Mutex<Scheduler<W>>>,
    ticket: MessageId,
    /// Why the smart host is not to be asked, if it could not be reached a moment ago.
    pub known: Option<W>,
    /// What it has shown.
    shown: Shown<W>,
}

impl<W: Clone> Place<W> {
    /// The smart host is asked: if the attempt is given up before it has shown something, it was too slow.
    pub fn begins(&mut self) {
        self.shown = Shown::Strained;
    }

    /// The attempt has shown this.
    pub fn showed(&mut self, shown: Shown<W>) {
        self.shown = shown;
    }
}

impl<W: Clone> Drop for Place<W> {
    fn drop(&mut self) {
        let shown = std::mem::replace(&mut self.shown, Shown::Nothing);
        lock(&self.scheduler).end(PLACE, self.ticket, shown, monotonic());
    }
}

fn lock<W>(scheduler: &Mutex<Scheduler<W>>) -> MutexGuard<'_, Scheduler<W>> {
    scheduler.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn places_are_as_many_as_the_smart_host_bears_and_one_while_it_is_away() {
        let limits = Limits { attempts: 100, destination: 3, pause: Duration::from_secs(3_600) };
        let fallback = Fallback::new(limits);
        let take = || std::iter::from_fn(|| fallback.place()).collect::<Vec<_>>();
        for most in [2, 3, 3] {
            let mut places = take();
            assert_eq!((places.len(), fallback.has_place()), (most, false));
            places.iter_mut().for_each(|place| place.showed(Shown::Well));
        }
        // One that is not used says nothing.
        drop(fallback.place());
        assert_eq!(take().len(), 3);
        // Given up: half as many.
        fallback.place().expect("is free").begins();
        let mut places = take();
        assert_eq!(places.len(), 1);
        places[0].showed(Shown::Unreachable("no answer"));
        drop(places);
        for _ in 0..2 {
            let places = take();
            assert_eq!(places.iter().map(|place| place.known).collect::<Vec<_>>(), [Some("no answer")]);
        }
        fallback.end_pause();
        assert_eq!(fallback.place().expect("is free").known, None, "it is asked");
    }
}
