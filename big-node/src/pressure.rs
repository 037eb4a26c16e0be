//! How much more mail big can take from the edge.
//!
//! Against `[big] inbound_hourly` counts what the edge's units took within the last hour: their octets, and
//! 1 KiB for the rows of each. The count is in memory: a restart forgives it, and an edge cannot restart big.
//! Facts about mail go on a little longer than mail, until a twentieth more, and large bodies that have begun half as far.

use std::sync::{Mutex, PoisonError};

use shared::fault::{SeededFault, seeded};
use shared::id::monotonic;
use shared::pressure::{Bound, Hour, Level, Monitor};
use shared::report::PressureView;
use shared::store::Store;

/// Octets that count for each unit besides its own: its id, and what applying it writes.
const UNIT_OCTETS: u64 = 1024;
/// Facts may take one part in so many of `inbound_hourly` when mail has taken all of it.
const FACTS_SHARE: u64 = 20;

/// Big's level, and what it is made from.
#[derive(Debug)]
pub struct Pressure {
    monitor: Monitor,
    inbound_hourly: u64,
    hour: Mutex<Hour>,
    /// For the simulation, whose outcome must not depend on the machine's clock.
    #[cfg(feature = "sim")]
    always_open: bool,
}

impl Pressure {
    /// The pressure on `store`, which may take `inbound_hourly` octets of the edge's mail in an hour.
    pub fn new(store: &Store, inbound_hourly: u64) -> Self {
        let bound = Bound {
            octets: inbound_hourly,
            counted: "within the last hour the edge's units took",
            mend: "see what floods the edge, or raise [big] inbound_hourly",
        };
        let monitor = Monitor::new(store.clone(), bound);
        Self {
            monitor,
            inbound_hourly,
            hour: Mutex::default(),
            #[cfg(feature = "sim")]
            always_open: false,
        }
    }

    /// No pressure, whatever happens.
    #[cfg(feature = "sim")]
    pub fn none(store: &Store) -> Self {
        Self { always_open: true, ..Self::new(store, u64::MAX) }
    }

    /// The level for mail over the link: while it does not [`take mail`](Level::takes_mail), the mail
    /// lanes get no credit. The other lanes are not asked. Cheap enough for every batch.
    pub fn mail_level(&self) -> Level {
        #[cfg(feature = "sim")]
        if self.always_open {
            return Level::Open;
        }
        self.monitor.level(self.taken_in())
    }

    /// Whether no mail is taken because the disk has no room for it.
    pub fn lacks_room(&self) -> bool {
        self.monitor.lacks_room(self.taken_in())
    }

    /// Whether the lanes of facts get credit: what became of mail is told while no more mail is taken, but
    /// no flood of it fills the disk either.
    pub fn takes_facts(&self) -> bool {
        self.takes_beyond(self.inbound_hourly / FACTS_SHARE)
    }

    /// Whether large bodies that have begun to come go on: half as far as facts, for which the other half is kept.
    pub fn takes_rest(&self) -> bool {
        self.takes_beyond(self.inbound_hourly / FACTS_SHARE / 2)
    }

    fn takes_beyond(&self, share: u64) -> bool {
        self.mail_level() != Level::Stopped && self.taken_in() < self.inbound_hourly.saturating_add(share)
    }

    /// The level and its reason, for people.
    pub fn view(&self) -> PressureView {
        self.monitor.view(self.taken_in())
    }

    /// Counts units from the edge, with all their octets.
    pub fn took_in_units(&self, units: usize, octets: u64) {
        self.took_in(octets.saturating_add(UNIT_OCTETS.saturating_mul(units as u64)));
    }

    /// Counts octets of a body that the edge sends ahead of its unit.
    pub fn took_in(&self, octets: u64) {
        if seeded(SeededFault::QuotaIgnored) {
            return;
        }
        self.hour.lock().unwrap_or_else(PoisonError::into_inner).add(monotonic(), octets);
    }

    fn taken_in(&self) -> u64 {
        self.hour.lock().unwrap_or_else(PoisonError::into_inner).total(monotonic())
    }

    /// Logs changes and gives space back, for ever.
    pub async fn run(&self) {
        self.monitor.watch(|| self.taken_in()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::store::sim::{Faults, SimDisk};

    use super::*;

    #[test]
    fn an_hours_worth_closes_the_mail_lanes() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        for (octets, level) in [(999, Level::Slow), (1000, Level::Closed), (1001, Level::Closed)] {
            let pressure = Pressure::new(&store, 1000);
            pressure.took_in(500);
            pressure.took_in(octets - 500);
            assert_eq!(pressure.mail_level(), level, "{octets}");
            let alarm = pressure.view().alarm();
            assert_eq!(alarm.is_some(), level == Level::Closed, "{alarm:?}");
        }
    }

    #[test]
    fn facts_go_on_a_little_longer_than_mail_and_not_for_ever() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let pressure = Pressure::new(&store, 1_000_000);
        pressure.took_in(1_000_000);
        assert!(!pressure.mail_level().takes_mail() && pressure.takes_facts());
        let mut units = 0;
        while pressure.takes_facts() {
            pressure.took_in_units(1, 100);
            units += 1;
        }
        assert_eq!(units, 45, "a twentieth, at 1,124 octets each");
    }
}
