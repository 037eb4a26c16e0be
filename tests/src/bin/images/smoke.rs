//! The program's parts at work, a little of each: what a plain test run has time for.

use crate::faults::{self, Fault};
use crate::flips::{self, Damage, Outcome};
use crate::image::{self, Tally};
use crate::workload;

#[test]
fn a_workload_does_the_same_each_time() {
    let (first, second) = (workload::record(1).expect("runs"), workload::record(1).expect("runs"));
    assert!(first.trace == second.trace, "an image's seed would not be the same image again");
    assert!(first.trace.len() > 500, "{} things done", first.trace.len());
}

#[test]
fn two_hundred_images() {
    let run = workload::record(0).expect("runs");
    let mut sum = Tally::default();
    for seed in 0..200 {
        let (tally, wrong) = image::make(&run, seed);
        assert_eq!(wrong, None, "seed {seed}");
        sum += tally;
    }
    assert!(sum.is_clean() && sum.images == 200 && sum.double == 40, "{sum:?}");
}

#[test]
fn some_of_the_faults() {
    let run = workload::record(2).expect("runs");
    let faults = faults::all(&run).expect("runs");
    assert!(faults.contains(&Fault::Full(1)) && faults.contains(&Fault::Sync(1)), "{faults:?}");
    for fault in faults.iter().step_by(faults.len() / 30) {
        assert_eq!(faults::meet(&run, *fault).wrong, None, "{fault:?}");
    }
}

#[test]
fn some_damage() {
    let run = workload::record(3).expect("runs");
    let (closed, known) = (flips::closed(&run), run.end());
    for kind in [Damage::Bits, Damage::Pages] {
        let (mut harmless, mut detected) = (0, 0);
        for seed in 0..100 {
            // redb may panic on its own pages; that is no answer, so it is not a wrong one.
            match std::panic::catch_unwind(|| flips::meet(&closed, &known, kind, seed)) {
                Ok(Outcome::Harmless) => harmless += 1,
                Ok(Outcome::Silent | Outcome::Missing) => panic!("{kind:?} {seed}: it is not noticed"),
                Ok(Outcome::Detected) | Err(_) => detected += 1,
            }
        }
        assert!(detected > 10 && harmless > 10, "{kind:?}: {detected} detected, {harmless} harmless");
    }
}

/// Pages of the index that a stray write replaced by older pages: every row in them has the right hash, and
/// only the checksums that the store checks when it is opened tell that they are not the newest.
#[test]
fn a_page_in_the_place_of_another_is_found() {
    let run = workload::record(0).expect("runs");
    let (closed, known) = (flips::closed(&run), run.end());
    let mut detected = 0;
    for seed in [162, 183, 387, 652, 763, 1069] {
        match std::panic::catch_unwind(|| flips::meet(&closed, &known, Damage::Pages, seed)) {
            // Nothing was read from that page.
            Ok(Outcome::Harmless) => {}
            Ok(Outcome::Silent | Outcome::Missing) => panic!("damage {seed} is not noticed"),
            // Or redb panics on it, as above.
            Ok(Outcome::Detected) | Err(_) => detected += 1,
        }
    }
    assert!(detected > 0, "none was read");
}

#[test]
fn the_audit_finds_what_is_wrong() {
    let run = workload::record(4).expect("runs");
    // The books of an earlier moment, as if everything since had been made up or lost.
    let early = run.known(run.trace.len() / 2);
    let store = crate::step::open(&flips::closed(&run)).expect("opens");
    let (tally, _) = image::audit(&store, &early).expect_err("a difference");
    assert!(tally.lost > 0 && tally.phantom > 0 && tally.altered > 0, "{tally:?}");
    image::audit(&store, &[run.end()]).expect("the right books");
}
