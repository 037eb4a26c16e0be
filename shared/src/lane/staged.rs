//! Large bodies that have come ahead of their units, until those name them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::Stored;

/// Bodies that may be staged.
pub const STAGED_MAX: usize = 32;
/// After so long a body gives its place to another one: should its unit come after all, it is deferred, and
/// the body goes ahead again.
pub const STAGED_TIME: Duration = Duration::from_secs(600);

/// A staged body: its unit, and since when it is here.
#[derive(Debug)]
struct Place {
    unit: [u8; 16],
    since: Duration,
    body: Stored,
}

/// The places, in the order in which they were taken. No commit names what is in them: a restart empties them.
#[derive(Debug, Default)]
pub struct Staged(Mutex<Vec<Place>>);

impl Staged {
    fn with<T>(&self, change: impl FnOnce(&mut Vec<Place>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is a place at `now`, or one that has been taken for too long, which is freed.
    pub fn has_room(&self, now: Duration) -> bool {
        self.with(|places| {
            if places.len() >= STAGED_MAX
                && places.first().is_some_and(|oldest| now.saturating_sub(oldest.since) >= STAGED_TIME)
            {
                let Place { unit, .. } = places.remove(0);
                tracing::warn!(unit = %crate::id::MessageId(unit), "a large body's unit has not come: its place is freed");
            }
            places.len() < STAGED_MAX
        })
    }

    /// Stages the body of `unit`, in place of one that it had.
    pub fn put(&self, unit: [u8; 16], body: Stored, now: Duration) {
        self.with(|places| {
            places.retain(|place| place.unit != unit);
            places.push(Place { unit, since: now, body });
        });
    }

    /// Takes out the body of `unit`.
    pub fn take(&self, unit: &[u8; 16]) -> Option<Stored> {
        self.with(|places| {
            let at = places.iter().position(|place| place.unit == *unit)?;
            Some(places.remove(at).body)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sim::{Faults, SimDisk};
    use crate::store::{BodyKey, Store};

    #[test]
    fn a_unit_that_never_comes_gives_its_place_up() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let staged = Staged::default();
        let body = || store.body_writer(BodyKey([1; 32]), 1).finish(Vec::new()).expect("is written");
        for unit in 0..STAGED_MAX {
            assert!(staged.has_room(STAGED_TIME));
            staged.put([u8::try_from(unit).expect("few"); 16], body(), Duration::from_secs(unit as u64));
        }
        assert!(!staged.has_room(STAGED_TIME - Duration::from_millis(1)));
        // The same one again takes its own place, as the youngest.
        staged.put([0; 16], body(), STAGED_TIME);
        assert!(!staged.has_room(STAGED_TIME));
        assert!(staged.has_room(STAGED_TIME + Duration::from_secs(1)));
        assert!(staged.take(&[1; 16]).is_none(), "it was the oldest");
        assert!(staged.take(&[0; 16]).is_some() && staged.take(&[0; 16]).is_none());
    }
}
