//! Every kind of unit that is said to be played here is, and no other: schedules are played until they have told them all.

use std::collections::BTreeSet;

use tests::kinds::{Played, all};

use crate::play::schedule;

/// Schedules in which each of them comes at the latest.
const SCHEDULES_MAX: u64 = 200;

#[test]
fn every_kind_of_unit_is_played() {
    let _alone = crate::alone();
    let said = |is: fn(&Played) -> bool| all().filter(move |kind| is(&kind.sim)).map(|kind| kind.name);
    let mut missing: BTreeSet<_> = said(|played| matches!(played, Played::By(_))).collect();
    let never: BTreeSet<_> = said(|played| matches!(played, Played::Not(_))).collect();
    for seed in 1..=SCHEDULES_MAX {
        let told = schedule(seed, false).kinds;
        let wrong: Vec<_> = told.intersection(&never).collect();
        assert!(wrong.is_empty(), "seed {seed} tells what is said not to be played: {wrong:?}");
        missing.retain(|kind| !told.contains(kind));
        if missing.is_empty() {
            return;
        }
    }
    panic!("said to be played, and in none of {SCHEDULES_MAX} schedules: {missing:?}");
}
