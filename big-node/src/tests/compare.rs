//! The directory as the edge is told it: whole, by changes, and where it reports a difference.

use shared::lane::{LanePosition, confirmed, next_epoch};
use shared::projection::{BUCKETS, Digester};
use shared::unit::{AddressRow, DirectoryCompared, DirectoryMark, DirectoryRows};

use super::*;
use crate::compare::{self, BUCKETS_PER_HOUR, REPORTS_PER_HOUR};
use crate::projection;

const HOUR: u64 = 3_600_000;

fn tell(world: &World) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    runtime.block_on(compare::tell(&world.store, NOW)).expect("commits");
}

/// The edge has got everything that was queued.
fn confirm(world: &World) {
    let confirm = |txn: &mut Txn<'_>| {
        let last = lane::state(txn, 0)?.last;
        confirmed(txn, 0, LanePosition { number: last, chain: [0; 32] }, &[], &[], NOW)
    };
    world.store.commit_blocking(confirm).expect("commits");
}

fn report(world: &World, differs: Option<Vec<[u8; 16]>>) -> Result<(), String> {
    world.apply(&ToBig::DirectoryCompared(DirectoryCompared { differs }), None)
}

fn rows(world: &World) -> Vec<AddressRow> {
    let snapshot = world.store.read().expect("reads");
    let edge = projection::edge(&snapshot).expect("reads").expect("is paired");
    projection::rows(&snapshot, &edge).expect("reads")
}

/// What an edge that holds these rows reports.
fn digests(rows: &[AddressRow]) -> Vec<[u8; 16]> {
    let mut digester = Digester::default();
    rows.iter().for_each(|row| digester.push(row));
    digester.finish().into_buckets()
}

fn marks(world: &World) -> Vec<DirectoryMark> {
    let mark = |unit| match unit {
        ToEdge::DirectoryMark(mark) => Some(mark),
        _ => None,
    };
    world.queued().into_iter().filter_map(mark).collect()
}

fn told_rows(world: &World) -> Vec<DirectoryRows> {
    let rows = |unit| match unit {
        ToEdge::DirectoryRows(rows) => Some(*rows),
        _ => None,
    };
    world.queued().into_iter().filter_map(rows).collect()
}

#[test]
fn a_whole_directory_goes_in_units_of_many_rows_that_leave_no_gap() {
    let world = World::new();
    for count in [0, 1, projection::ROWS_PER_UNIT, projection::ROWS_PER_UNIT + 1, 1000] {
        let mut rows: Vec<_> = (0..count)
            .map(|number| {
                let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
                AddressRow { hash, person: Some([1; 16]) }
            })
            .collect();
        rows.sort_by_key(|row| row.hash);
        let before = told_rows(&world).len();
        let told = rows.clone();
        let tell = move |txn: &mut Txn<'_>| projection::tell_rows(txn, &told, [[0; 32], [0xff; 32]]);
        world.store.commit_blocking(tell).expect("commits");
        let units = told_rows(&world).split_off(before);
        assert_eq!(units.len(), count.div_ceil(projection::ROWS_PER_UNIT).max(1), "{count}");
        assert!(
            units.iter().all(|unit| encode(&ToEdge::DirectoryRows(Box::new(unit.clone()))).len() < 16 * 1024)
        );
        let (first, last) = (&units[0], &units[units.len() - 1]);
        assert_eq!((first.from, last.to), ([0; 32], [0xff; 32]));
        for (one, next) in units.iter().zip(&units[1..]) {
            assert!(one.to < next.from && next.rows[0].hash == next.from, "the next begins right behind it");
            let mut behind = one.to;
            // One more than where it ends.
            let at = behind.iter().rposition(|byte| *byte != 0xff).expect("is not the last hash");
            behind[at] += 1;
            behind[at + 1..].fill(0);
            assert_eq!(behind, next.from);
        }
        assert_eq!(units.into_iter().flat_map(|unit| unit.rows).collect::<Vec<_>>(), rows);
    }
}

#[test]
fn a_mark_is_told_once_for_a_connection_and_says_what_all_comes_to() {
    let world = World::new();
    world.store.commit_blocking(next_epoch).expect("commits");
    tell(&world);
    tell(&world);
    let mut digester = Digester::default();
    rows(&world).iter().for_each(|row| digester.push(row));
    let root = Some(digester.finish().root());
    assert_eq!(marks(&world), [DirectoryMark { epoch: 1, root }], "the second waits for the first");
    // Another connection: changes may wait behind the first mark.
    world.store.commit_blocking(next_epoch).expect("commits");
    tell(&world);
    assert_eq!(marks(&world)[1..], [DirectoryMark { epoch: 2, root }]);
    confirm(&world);
    world.person("carol");
    tell(&world);
    assert_ne!(marks(&world)[2].root, root);
}

#[test]
fn only_buckets_that_differ_are_told_anew_with_a_mark_behind_them() {
    let world = World::new();
    (0..40).for_each(|number| drop(world.person(&format!("p{number}"))));
    confirm(&world);
    let rows = rows(&world);
    // At the edge one is missing, one is somebody else's, and one is there that should not be.
    let mut there = rows.clone();
    there[30].person = None;
    let missing = there.remove(10);
    let ghost = AddressRow { hash: [0x55; 32], person: None };
    there.push(ghost.clone());
    there.sort_by_key(|row| row.hash);
    let units = world.queued().len();
    assert_eq!(report(&world, Some(digests(&there))), Ok(()));
    assert_eq!(world.queued().len(), units, "a report by itself makes big say nothing");
    tell(&world);
    let mut wrong = vec![missing.hash[0], rows[30].hash[0], ghost.hash[0]];
    wrong.sort_unstable();
    wrong.dedup();
    let told = told_rows(&world);
    let buckets: Vec<_> = told.iter().map(|unit| unit.from[0]).collect();
    assert_eq!(buckets, wrong);
    for unit in &told {
        let bucket = unit.from[0];
        assert!(unit.from[1..] == [0; 31] && unit.to[0] == bucket && unit.to[1..] == [0xff; 31]);
        let here: Vec<_> = rows.iter().filter(|row| row.hash[0] == bucket).cloned().collect();
        assert_eq!(unit.rows, here, "whole, as it is here");
    }
    assert!(matches!(
        world.queued().last(),
        Some(ToEdge::DirectoryMark(DirectoryMark { root: Some(_), .. }))
    ));
    let view = world.store.read().and_then(|rows| compare::view(&rows)).expect("reads");
    assert_eq!((view.compared_at, view.differed, view.mended), (Some(NOW), 1, wrong.len() as u64));
}

#[test]
fn an_edge_that_reports_differences_for_ever_costs_a_bounded_amount() {
    let world = World::new();
    let alarm = |now| world.store.read().and_then(|rows| compare::alarm(&rows, now)).expect("reads");
    for number in 1..=3 * REPORTS_PER_HOUR {
        assert_eq!(report(&world, Some(vec![[9; 16]; BUCKETS])), Ok(()), "{number}");
        tell(&world);
        confirm(&world);
    }
    assert_eq!(told_rows(&world).len(), BUCKETS_PER_HOUR as usize, "each bucket is one unit here");
    assert!(marks(&world).len() <= 3 * REPORTS_PER_HOUR as usize);
    assert!(alarm(NOW).is_some_and(|alarm| alarm.contains("again and again")), "{:?}", alarm(NOW));
    assert_eq!(alarm(NOW + HOUR), None, "another hour, another word");
    // What it reports meanwhile is one at a time, however fast.
    for _ in 0..1000 {
        assert_eq!(report(&world, None), Ok(()));
    }
    let snapshot = world.store.read().expect("reads");
    assert!(!compare::is_reported(&snapshot).expect("reads"));
}

#[test]
fn a_report_that_no_edge_makes_is_refused_and_changes_nothing() {
    let world = World::new();
    for length in [0, 1, BUCKETS - 1, BUCKETS + 1, 10_000] {
        let refused = report(&world, Some(vec![[0; 16]; length])).expect_err("is refused");
        assert!(refused.contains("not one digest for each bucket"), "{refused}");
    }
    let snapshot = world.store.read().expect("reads");
    assert!(!compare::is_reported(&snapshot).expect("reads"));
    assert_eq!(compare::view(&snapshot).expect("reads").compared_at, None);
}

#[test]
fn nothing_is_told_while_no_edge_is_paired() {
    let world = World::new();
    world.store.commit_blocking(|txn| txn.delete(EDGE, b"edge")).expect("commits");
    let units = world.queued().len();
    tell(&world);
    assert_eq!(world.queued().len(), units);
}

#[test]
fn who_is_removed_between_rcpt_and_filing_leaves_mail_to_the_postmaster() {
    let world = World::new();
    // The edge has answered 250 when bob was there.
    let letter = Letter::new("carol@remote.example", "bob@example.com");
    world.store.commit_blocking(|txn| directory::remove(txn, "bob", "alice", NOW)).expect("is removed");
    assert!(matches!(world.queued().last(), Some(ToEdge::AddressGone { .. })), "the edge is told at once");
    assert_eq!(letter.send(&world), Ok(()));
    let (folder, _) = world.entry("alice", letter.id).expect("the postmaster has it");
    assert_eq!(folder, Folder::Undeliverable);
}
