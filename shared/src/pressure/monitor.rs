//! The driver of [`Pressure`]: a store's measures, a clock, and one line in the log for each change.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Bound, Level, Measures, Pressure};
use crate::id::monotonic;
use crate::render::word;
use crate::report::PressureView;
use crate::store::Store;

/// How old measures may be; whoever asks for the level then makes new ones.
pub const MEASURED_EVERY: Duration = Duration::from_millis(100);

/// How often [`Monitor::watch`] looks by itself.
const WATCHED_EVERY: Duration = Duration::from_millis(250);
/// How often it gives space back while mail is refused.
const RECLAIMED_EVERY: Duration = Duration::from_secs(1);
/// How often it tries whether a disk that refused a write takes one again, and for which share of the time at most: an
/// index is looked over whenever it is opened.
const RECOVERED_EVERY: Duration = Duration::from_secs(3);
const RECOVERED_SHARE: u32 = 10;

/// The level of a running node. Asking is cheap: the disk is asked at most once in
/// [`MEASURED_EVERY`], and at once when a write has found it full or the bound is reached.
#[derive(Debug)]
pub struct Monitor {
    store: Store,
    /// What may count against the bound.
    octets: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pressure: Pressure,
    /// When measures were made last, by [`monotonic`].
    measured_at: Option<Duration>,
}

impl Monitor {
    /// A monitor of `store`.
    pub fn new(store: Store, bound: Bound) -> Self {
        let octets = bound.octets;
        let state = State { pressure: Pressure::new(bound), measured_at: None };
        Self { store, octets, state: Mutex::new(state) }
    }

    /// The level, with `held` octets counting against the bound.
    pub fn level(&self, held: u64) -> Level {
        self.level_at(monotonic(), held)
    }

    /// Whether no mail is taken because the disk has no room for it.
    pub fn lacks_room(&self, held: u64) -> bool {
        self.fresh(monotonic(), held).pressure.lacks_room()
    }

    /// The level and its reason, for people.
    pub fn view(&self, held: u64) -> PressureView {
        self.fresh(monotonic(), held).pressure.view()
    }

    fn level_at(&self, now: Duration, held: u64) -> Level {
        self.fresh(now, held).pressure.level()
    }

    /// Looks again and again, for ever, so that a change is logged and acted on when nobody asks: while
    /// no mail is taken, whatever space can be given back is; and a store whose disk refused a write is opened again
    /// once the disk takes it, for where all that is asked is refused no commit would come to find out. `held` says what
    /// counts against the bound.
    pub async fn watch(&self, held: impl Fn() -> u64) {
        let (mut reclaimed_at, mut recovery_due) = (None, Duration::ZERO);
        loop {
            tokio::time::sleep(WATCHED_EVERY).await;
            let begun = monotonic();
            if self.store.has_failed() && begun >= recovery_due {
                match self.store.recover().await {
                    Ok(()) => tracing::info!("the store is open again"),
                    // That it failed is logged where it fails.
                    Err(error) => tracing::debug!(%error, "the store could not be opened again"),
                }
                let ended = monotonic();
                recovery_due = ended + RECOVERED_EVERY.max(ended.saturating_sub(begun) * RECOVERED_SHARE);
            }
            let level = self.level(held());
            let now = monotonic();
            let due = reclaimed_at.is_none_or(|at| now >= at + RECLAIMED_EVERY);
            if !level.takes_mail() && level != Level::Stopped && due {
                if let Err(error) = self.store.reclaim().await {
                    tracing::warn!(%error, "space could not be given back");
                }
                reclaimed_at = Some(monotonic());
            }
        }
    }

    fn fresh(&self, now: Duration, held: u64) -> MutexGuard<'_, State> {
        // Nothing in the critical section leaves the state half changed.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let found_full = self.store.take_found_full();
        let old = state.measured_at.is_none_or(|at| now >= at + MEASURED_EVERY);
        // A bound that waited for the next measures would be passed by what a fast line carries meanwhile.
        let passed = held >= self.octets && state.pressure.level().takes_mail();
        if old || found_full || passed {
            state.measured_at = Some(now);
            self.observe(&mut state.pressure, now, held, found_full);
        }
        state
    }

    fn observe(&self, pressure: &mut Pressure, now: Duration, held: u64, found_full: bool) {
        // A disk that cannot be asked has no room.
        let (free_bytes, free_inodes) = self.store.free().unwrap_or_default();
        let measures = Measures {
            free_bytes,
            free_inodes,
            found_full,
            held,
            commit_latency: self.store.commit_latency(),
            stopped: self.store.has_stopped(),
        };
        let Some(before) = pressure.observe(now, &measures) else { return };
        let PressureView { level, why } = pressure.view();
        let why = why.unwrap_or_else(|| "everything is well".into());
        let (rising, before, level) = (level > before, word(&before), word(&level));
        match rising {
            true => tracing::warn!(before, level, why, "pressure rises"),
            false => tracing::info!(before, level, why, "pressure falls"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lane;
    use crate::store::sim::{Faults, SimDisk};
    use crate::store::{BodyKey, RESERVE_BYTES, StoreError};

    const BOUND: Bound = Bound { octets: 1000, counted: "the spool holds", mend: "see to the link" };

    /// What a message does: a body, and a commit that names it.
    fn store_body(store: &Store, number: u8) -> Result<(), StoreError> {
        let mut writer = store.body_writer(BodyKey([number; 32]), 1);
        writer.write(&[number; 3000])?;
        let stored = writer.finish(Vec::new())?;
        store.commit_blocking(move |txn| txn.keep_body(&stored)).map(drop)
    }

    #[test]
    fn the_disk_closes_and_opens_again() {
        let disk = SimDisk::new(Faults::default());
        let store = Store::open(Arc::new(disk.clone())).expect("opens");
        let monitor = || Monitor::new(store.clone(), BOUND);
        assert_eq!(monitor().level(0), Level::Open);
        disk.set_free(RESERVE_BYTES - 1, u64::MAX);
        assert_eq!(monitor().level(0), Level::Closed);
        disk.set_free(u64::MAX, 255);
        assert_eq!(monitor().level(0), Level::Closed);
        disk.set_free(u64::MAX, u64::MAX);
        assert_eq!(monitor().level(1000), Level::Closed);
        assert_eq!(monitor().level(999), Level::Slow);
    }

    #[test]
    fn a_write_that_finds_the_disk_full_closes_at_once_whatever_the_disk_says() {
        let disk = SimDisk::new(Faults::default());
        let store = Store::open(Arc::new(disk.clone())).expect("opens");
        store_body(&store, 1).expect("there is room");
        let monitor = Monitor::new(store.clone(), BOUND);
        assert_eq!(monitor.level(0), Level::Open);
        disk.fill_up();
        // As with a quota: there is room, but not for us.
        disk.set_free(u64::MAX, u64::MAX);
        assert!(matches!(store_body(&store, 2), Err(StoreError::Full)));
        assert_eq!(monitor.level(0), Level::Closed, "the measures of a moment ago do not count");
        assert_eq!(monitor.view(0).why.as_deref(), Some("a write found the disk full; make room on it"));
        disk.make_room();
        store_body(&store, 2).expect("recovers without being opened again");
    }

    /// The level is what big gives credit by.
    #[test]
    fn slow_commits_alone_end_the_credit_and_it_comes_back_by_itself() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let monitor = Monitor::new(store.clone(), BOUND);
        let second = Duration::from_secs;
        // A commit that takes so long, and how long the store says that one takes while it does.
        let commit = |takes: Duration| {
            let slow = store.clone();
            let seen = store.commit_blocking(move |txn| {
                slow.let_pass(takes);
                lane::next_epoch(txn).map(|_| slow.commit_latency())
            });
            seen.expect("commits").into_inner()
        };
        commit(Duration::ZERO);
        assert_eq!(monitor.level_at(second(1), 0), Level::Open);
        // One in eight of what it takes counts.
        assert!(commit(second(20)) >= second(20), "it is seen while it hangs");
        assert_eq!(monitor.level_at(second(2), 0), Level::Slow);
        commit(second(40));
        assert_eq!(monitor.level_at(second(3), 0), Level::Closed);
        assert!(!monitor.level_at(second(3), 0).takes_mail());
        let why = monitor.view(0).why.expect("there is a reason");
        assert!(why.starts_with("a commit takes 7.") && why.contains("the disk is too slow"), "{why}");
        // No mail comes, so nothing is committed: some is let in again to see.
        store.let_pass(second(12));
        assert_eq!(monitor.level_at(second(100), 0), Level::Closed, "for now it only looks better");
        assert_eq!(monitor.level_at(second(103), 0), Level::Open);
        // The disk is as slow as it was.
        commit(second(60));
        assert_eq!(monitor.level_at(second(104), 0), Level::Closed);
        store.let_pass(second(12));
        for _ in 0..40 {
            commit(Duration::ZERO);
        }
        assert_eq!(monitor.level_at(second(110), 0), Level::Closed);
        assert_eq!(monitor.level_at(second(113), 0), Level::Open);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_that_was_refused_a_write_is_opened_again_though_nobody_commits() {
        let disk = SimDisk::new(Faults::default());
        let store = Store::open(Arc::new(disk.clone())).expect("opens");
        let filled = (store.clone(), disk.clone());
        let refused = tokio::task::spawn_blocking(move || {
            let (store, disk) = filled;
            store_body(&store, 1).expect("there is room");
            disk.fill_up();
            // The second one finds that it cannot even be opened.
            (0..2).for_each(|_| assert!(store.commit_blocking(lane::next_epoch).is_err()));
        });
        refused.await.expect("is refused");
        assert!(store.has_failed() && store.read().is_err(), "nothing can be read either");
        disk.make_room();
        let monitor = Monitor::new(store.clone(), BOUND);
        let opened = async {
            while store.has_failed() {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), async {
            tokio::select! {
                () = monitor.watch(|| 0) => {}
                () = opened => {}
            }
        });
        in_time.await.expect("is opened again");
        let rows = store.read().expect("reads");
        assert!(rows.body_use(BodyKey([1; 32])).expect("reads").is_some(), "what was there is there");
    }

    #[test]
    fn a_failed_sync_stops() {
        let disk = SimDisk::new(Faults::default());
        let store = Store::open(Arc::new(disk.clone())).expect("opens");
        store_body(&store, 1).expect("stores");
        disk.fail_next_sync();
        assert!(matches!(store_body(&store, 2), Err(StoreError::Stopped(_))));
        let monitor = Monitor::new(store, BOUND);
        assert_eq!(monitor.level(0), Level::Stopped);
    }
}
