use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::age;
use crate::store::Store;
use crate::store::sim::{Faults, SimDisk};

const LANE: u8 = 2;

fn store() -> Store {
    Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens")
}

fn unit(id: u8, body: QueuedBody) -> QueuedUnit {
    QueuedUnit { id: [id; 16], lane: LANE, after: None, head: vec![id; 100], body }
}

fn position(number: u64, chain: u8) -> LanePosition {
    LanePosition { number, chain: [chain; 32] }
}

fn numbers(rows: &impl Rows) -> Vec<(u64, u8)> {
    let found = units(rows, LANE, 1, usize::MAX).expect("reads");
    found.into_iter().map(|(number, unit)| (number, unit.id[0])).collect()
}

fn in_one_commit(test: impl FnOnce(&mut Txn<'_>) -> Result<(), StoreError> + Send + 'static) {
    store().commit_blocking(test).expect("commits");
}

fn five(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    (1..=5).try_for_each(|id| queue(txn, &unit(id, QueuedBody::None)).map(drop))
}

fn same(_: &mut Txn<'_>, unit: QueuedUnit) -> Result<Option<QueuedUnit>, StoreError> {
    Ok(Some(unit))
}

/// The node lives longer by so many milliseconds, whatever its clock says.
fn live(txn: &mut Txn<'_>, millis: u64) -> Result<(), StoreError> {
    age::live_on(txn, Duration::from_millis(millis), 0)
}

#[test]
fn units_are_numbered_confirmed_refused_and_offered_again() {
    in_one_commit(|txn| {
        for id in 1..=3 {
            queue(txn, &unit(id, QueuedBody::None))?;
        }
        queue(txn, &unit(4, QueuedBody::Ahead { key: [4; 32] }))?;
        assert_eq!(units(txn, LANE, 1, 10)?.len(), 3, "a body that has not gone ahead has no number");
        assert_eq!(waiting(txn, 10)?.len(), 1);
        body_held(txn, &[4; 16], 70_000, [1; 32])?;
        assert_eq!(units(txn, LANE, 4, 10)?[0].0, 4);
        assert_eq!(depth(txn)?, [0, 0, 4, 0]);

        confirmed(txn, LANE, position(4, 9), &[(1, "malformed".into())], &[(4, "body lost".into())], 1000)?;
        assert_eq!((depth(txn)?, deferred(txn)?), ([0, 0, 1, 0], [0, 0, 1, 0]), "it has still to go");
        assert_eq!(dead_letters(txn, 10)?[0].reason, "malformed");
        assert_eq!(units(txn, LANE, 1, 10)?.len(), 4, "the safety store keeps them");
        assert_eq!(queue_due(txn, 1000)?, 0, "later is not now");
        assert!(is_due(txn, 999)?, "unless the clock went back since");
        assert!(!is_due(txn, 1000)? && is_due(txn, 1000 + OFFER_AGAIN_MILLIS)?);
        assert_eq!(queue_due(txn, 1000 + OFFER_AGAIN_MILLIS)?, 1);
        assert_eq!(waiting(txn, 10)?[0].id, [4; 16], "its body goes ahead again");
        // A confirm that comes again changes nothing.
        confirmed(txn, LANE, position(4, 9), &[], &[(2, "late".into())], 1000)?;
        assert_eq!((depth(txn)?, deferred(txn)?), ([0, 0, 0, 1], [0; 4]));
        assert_eq!(state(txn, LANE)?.confirmed, position(4, 9));

        assert!(retry_dead(txn, &[1; 16])?.is_some_and(|letter| !letter.inbound));
        assert_eq!(numbers(txn).last(), Some(&(5, 1)), "a new number, the same id");
        assert!(retry_dead(txn, &[1; 16])?.is_none() && drop_dead(txn, &[1; 16])?.is_none());
        Ok(())
    });
}

/// Both went back, and back again: the unit had number 6 in a life of the sender that is lost, and lies at 1 in its log.
#[test]
fn a_unit_that_was_held_under_another_number_is_given_again_to_a_receiver_that_lost_it() {
    in_one_commit(|txn| {
        queue(txn, &unit(1, QueuedBody::None))?;
        let held = Settling::Renumber { held: vec![[1; 16]], proved: false, after: 0 };
        settle(txn, LANE, position(7, 7), &held, (2, 1), same)?;
        assert_eq!(numbers(txn), [(1, 1)], "it belongs to the safety store");
        assert_eq!(reach(txn, LANE, 5)?, Reach::Unproved);
        settle(txn, LANE, position(5, 5), &Settling::Replay, (2, 3), same)?;
        assert_eq!(numbers(txn), [(9, 1)], "a number that nobody has used");
        Ok(())
    });
}

#[test]
fn a_receiver_that_may_lack_what_is_gone_is_not_given_the_rest_as_if_it_were_all() {
    in_one_commit(|txn| {
        five(txn)?;
        let held = Settling::Renumber { held: (1..=5).map(|id| [id; 16]).collect(), proved: false, after: 0 };
        settle(txn, LANE, position(9, 9), &held, (2, 1), same)?;
        trim(txn, LANE, 0, 300)?;
        assert_eq!(state(txn, LANE)?.trimmed, 2);
        assert_eq!(reach(txn, LANE, 7)?, Reach::Gone, "it had any of them under numbers that are lost");
        lacks(txn, LANE, 7)?;
        let missing = missing(txn, LANE)?.expect("are gone");
        assert_eq!((missing.after, missing.units), (0, 2));
        assert_eq!(reach(txn, LANE, 9)?, Reach::From(position(9, 9)));
        // Nor is what is trimmed a question any more when this node goes back once more.
        queue(txn, &unit(7, QueuedBody::None))?;
        confirmed(txn, LANE, position(10, 10), &[], &[], 1_000)?;
        trim(txn, LANE, 0, 0)?;
        settle(
            txn,
            LANE,
            position(20, 20),
            &Settling::Renumber { held: Vec::new(), proved: false, after: 10 },
            (3, 1),
            same,
        )?;
        let row = state(txn, LANE)?;
        assert_eq!((row.unproved_after, row.unproved_to), (10, 20));
        Ok(())
    });
}

/// The receiver was restored, and more of what this node has sent is with it than it had confirmed: no life is lost.
#[test]
fn a_receiver_whose_past_is_proved_is_not_taken_for_one_of_a_life_that_is_lost() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(1, 1), &[], &[], 1_000)?;
        let held = Settling::Renumber { held: vec![[2; 16], [3; 16]], proved: true, after: 1 };
        settle(txn, LANE, position(3, 3), &held, (1, 2), same)?;
        assert_eq!(numbers(txn), [(1, 1), (2, 2), (3, 3), (7, 4), (8, 5)]);
        assert_eq!(reach(txn, LANE, 3)?, Reach::From(position(1, 1)), "its chain is asked for");
        // It is restored to the same backup once more, when what it has was trimmed.
        confirmed(txn, LANE, position(8, 8), &[], &[], 2_000)?;
        trim(txn, LANE, 0, 350)?;
        assert_eq!(state(txn, LANE)?.trimmed, 2);
        assert_eq!(reach(txn, LANE, 3)?, Reach::From(position(1, 1)), "it lacks nothing that is gone");
        settle(txn, LANE, position(3, 3), &Settling::Replay, (1, 3), same)?;
        assert_eq!(numbers(txn), [(3, 3), (10, 4), (11, 5)]);
        Ok(())
    });
}

/// What goes again under another number is counted there, and not where it lay.
#[test]
fn octets_are_counted_once_where_a_receiver_holds_some_of_what_is_numbered_anew() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(1, 1), &[], &[], 1_000)?;
        let held = Settling::Renumber { held: vec![[3; 16], [5; 16]], proved: false, after: 1 };
        settle(txn, LANE, position(9, 9), &held, (2, 1), same)?;
        assert_eq!(numbers(txn), [(1, 1), (3, 3), (5, 5), (10, 2), (11, 4)]);
        assert_eq!((state(txn, LANE)?.bytes, kept_octets(txn)?), (500, 300));
        confirmed(txn, LANE, position(11, 11), &[], &[], 2_000)?;
        assert_eq!(kept_octets(txn)?, 500);
        // By size only what is beyond it goes, unit by unit.
        for (octets, left) in [(500, 5), (499, 4), (301, 3), (200, 2), (100, 1), (99, 0)] {
            trim(txn, LANE, 0, octets)?;
            assert_eq!((numbers(txn).len(), kept_octets(txn)?), (left, 100 * left as u64), "{octets}");
        }
        Ok(())
    });
}

#[test]
fn units_without_a_number_are_looked_at_again_too() {
    in_one_commit(|txn| {
        for id in [1, 2] {
            queue(txn, &unit(id, QueuedBody::Ahead { key: [id; 32] }))?;
        }
        for id in [3, 4] {
            queue(txn, &unit(id, QueuedBody::None))?;
        }
        confirmed(txn, LANE, position(2, 2), &[], &[(1, "full".into()), (2, "full".into())], 1_000)?;
        reconsider(txn, |_, unit| Ok((unit.id[0] % 2 == 0).then(|| QueuedUnit { head: vec![7], ..unit })))?;
        queue_due(txn, 1_000 + OFFER_AGAIN_MILLIS)?;
        let left =
            waiting(txn, 10)?.into_iter().chain(units(txn, LANE, 3, 10)?.into_iter().map(|(_, unit)| unit));
        assert_eq!(
            left.map(|unit| (unit.id[0], unit.head)).collect::<Vec<_>>(),
            [(2, vec![7]), (4, vec![7])]
        );
        Ok(())
    });
}

#[test]
fn the_safety_store_is_trimmed_by_age_and_by_size() {
    in_one_commit(|txn| {
        five(txn)?;
        live(txn, 1_000)?;
        confirmed(txn, LANE, position(2, 2), &[], &[], 1_000)?;
        live(txn, 1_000)?;
        confirmed(txn, LANE, position(4, 4), &[], &[], 1_000)?;
        assert_eq!(reach(txn, LANE, 0)?, Reach::From(LanePosition::default()));
        assert_eq!(reach(txn, LANE, 3)?, Reach::From(position(2, 2)));
        assert_eq!(trim(txn, LANE, 1_000, 1_000_000)?, 0, "confirmed at 1,000 is not before 1,000");
        assert_eq!(trim(txn, LANE, 1_001, 1_000_000)?, 2);
        assert_eq!(reach(txn, LANE, 1)?, Reach::Gone, "older than the safety store");
        assert_eq!(reach(txn, LANE, 3)?, Reach::From(position(2, 2)), "the edge of what is kept is known");
        assert_eq!(gone(txn, LANE, 1, 10)?, [(2, Gone { id: [2; 16], octets: 100 })]);
        assert_eq!(trim(txn, LANE, 0, 200)?, 0, "two confirmed units of 100 octets");
        assert_eq!(trim(txn, LANE, 0, 199)?, 1);
        assert_eq!(trim(txn, LANE, u64::MAX, 0)?, 1);
        assert_eq!(numbers(txn), [(5, 5)], "what is not confirmed is never trimmed");
        Ok(())
    });
}

#[test]
fn a_restored_receiver_is_given_again_what_it_lost_in_order_above_all_numbers() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(4, 4), &[(3, "malformed".into())], &[], 1_000)?;
        let base = settle(txn, LANE, position(1, 1), &Settling::Replay, (1, 2), same)?;
        assert_eq!(base, position(6, 1), "the chain goes on from where the receiver stands");
        assert_eq!(numbers(txn), [(1, 1), (7, 2), (8, 4), (9, 5)], "what was refused stays a dead letter");
        let row = state(txn, LANE)?;
        assert_eq!(
            (row.rebase, row.own_generation, row.partner_generation),
            (Rebase::From(position(1, 1)), 1, 2)
        );
        confirmed(txn, LANE, position(8, 8), &[], &[], 3_000)?;
        assert_eq!(state(txn, LANE)?.rebase, Rebase::None);
        assert_eq!(reach(txn, LANE, 7)?, Reach::From(position(6, 1)));
        assert_eq!(
            reach(txn, LANE, 5)?,
            Reach::From(position(4, 4)),
            "a later backup may stand there, with the old chain"
        );
        Ok(())
    });
}

#[test]
fn a_restored_sender_numbers_anew_what_the_receiver_does_not_hold() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(2, 2), &[], &[], 1_000)?;
        assert_eq!(unconfirmed_ids(txn, LANE, 2)?, [(3, [3; 16]), (4, [4; 16])]);
        let settling = Settling::Renumber { held: vec![[3; 16], [5; 16]], proved: false, after: 2 };
        assert_eq!(settle(txn, LANE, position(9, 9), &settling, (2, 1), same)?, position(9, 9));
        assert_eq!(
            numbers(txn),
            [(1, 1), (2, 2), (3, 3), (5, 5), (10, 4)],
            "the others are kept for a replay"
        );
        assert_eq!(state(txn, LANE)?.rebase, Rebase::None, "the receiver stands there already");
        assert_eq!(reach(txn, LANE, 4)?, Reach::Unproved);
        assert_eq!(reach(txn, LANE, 9)?, Reach::From(position(9, 9)));
        Ok(())
    });
}

/// Both went back, and the receiver had stood in the middle of what a life of the sender that is lost had replayed.
#[test]
fn a_restored_sender_numbers_anew_what_a_restored_receiver_lacks_of_the_safety_store() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(4, 4), &[(2, "malformed".into())], &[], 1_000)?;
        let two = |from, to| [(from, [from as u8; 16]), (to, [to as u8; 16])];
        assert_eq!(ids(txn, LANE, 0, 2)?, two(1, 3), "what was refused lives elsewhere");
        assert_eq!(ids(txn, LANE, 3, 2)?, two(4, 5));
        let held = Settling::Renumber { held: vec![[1; 16]], proved: false, after: 0 };
        assert_eq!(settle(txn, LANE, position(9, 9), &held, (2, 2), same)?, position(9, 9));
        assert_eq!(numbers(txn), [(1, 1), (10, 3), (11, 4), (12, 5)]);
        assert_eq!(dead_letters(txn, 10)?.len(), 1);
        assert_eq!(state(txn, LANE)?.bytes, 400, "of what is left and what was numbered since");
        // A later backup of it may be as far back.
        assert_eq!(reach(txn, LANE, 2)?, Reach::Unproved);
        Ok(())
    });
}

#[test]
fn what_was_trimmed_since_a_receiver_was_asked_for_it_is_not_passed_over() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(4, 4), &[], &[], 1_000)?;
        trim(txn, LANE, 0, 300)?;
        assert_eq!(state(txn, LANE)?.trimmed, 1);
        let held = Settling::Renumber { held: vec![[2; 16]], proved: false, after: 0 };
        assert!(matches!(settle(txn, LANE, position(9, 9), &held, (2, 2), same), Err(StoreError::Moved)));
        let held = Settling::Renumber { held: vec![[2; 16]], proved: false, after: 1 };
        settle(txn, LANE, position(9, 9), &held, (2, 2), same)?;
        assert_eq!(numbers(txn), [(2, 2), (10, 3), (11, 4), (12, 5)]);
        Ok(())
    });
}

#[test]
fn a_decision_is_compared_at_the_next_contact_and_damage_is_said() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(2, 2), &[], &[], 1_000)?;
        assert_eq!(resolve(txn, LANE, true, 2_000)?, (2, 5));
        compared(txn, LANE, 3)?;
        let record = decisions(txn)?.remove(0);
        assert!(record.damage && record.outcome.is_some_and(|said| said.contains("units 4 to 5")));
        reset(txn, LANE, 3_000)?;
        compared(txn, LANE, 5)?;
        assert!(!decisions(txn)?[1].damage);
        Ok(())
    });
}

/// What the receiver had to say of them is in a confirm that was lost: of what it has stored it has deferred one, and its
/// COMPARE is about what was confirmed before.
#[test]
fn what_is_resolved_as_stored_is_not_lost_where_it_was_deferred() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(2, 2), &[], &[], 1_000)?;
        resolve(txn, LANE, true, 2_000)?;
        let row = state(txn, LANE)?;
        assert_eq!((row.confirmed, row.rebase), (position(2, 2), Rebase::Any));
        let asked: Vec<_> = unconfirmed_ids(txn, LANE, 10)?.into_iter().map(|(_, id)| id).collect();
        assert_eq!(asked, [[3; 16], [4; 16], [5; 16]]);
        let held = Settling::Renumber { held: vec![[3; 16], [5; 16]], proved: false, after: 2 };
        settle(txn, LANE, position(5, 9), &held, (1, 1), same)?;
        compared(txn, LANE, 5)?;
        assert_eq!(numbers(txn), [(1, 1), (2, 2), (3, 3), (5, 5), (6, 4)], "the fourth goes again");
        assert_eq!(depth(txn)?, [0, 0, 1, 0]);
        Ok(())
    });
}

#[test]
fn adopting_goes_on_without_what_is_gone_and_says_exactly_what_that_is() {
    in_one_commit(|txn| {
        five(txn)?;
        queue(txn, &QueuedUnit { lane: 1, ..unit(9, QueuedBody::None) })?;
        confirmed(txn, LANE, position(5, 5), &[(3, "malformed".into())], &[], 1_000)?;
        trim(txn, LANE, 0, 100)?;
        assert_eq!(missing(txn, LANE)?, None, "nobody lacks anything");
        lacks(txn, LANE, 1)?;
        assert_eq!(trim(txn, LANE, 2_000, 100)?, 0, "nothing more goes by its age until that is decided");
        let gone = |id| (u64::from(id), Gone { id: [id; 16], octets: 100 });
        // The third was refused, and is a dead letter.
        let exact = Missing { after: 1, units: 2, octets: 200, named: vec![gone(2), gone(4)] };
        assert_eq!(missing(txn, LANE)?, Some(exact.clone()));

        adopt(txn, 2_000)?;
        assert_eq!(state(txn, LANE)?.rebase, Rebase::Any);
        assert_eq!(state(txn, 1)?.rebase, Rebase::None, "the other lanes ask for their proofs");
        let decided = |txn: &Txn<'_>| Ok::<_, StoreError>(decisions(txn)?.swap_remove(usize::from(LANE)));
        assert_eq!(decided(txn)?.missing, exact, "the record has the list");
        lacks(txn, LANE, 0)?;
        compared(txn, LANE, 1)?;
        settle(txn, LANE, position(1, 1), &Settling::Replay, (2, 2), same)?;
        assert_eq!(numbers(txn).last(), Some(&(7, 5)), "what is left is sent again");
        let record = decided(txn)?;
        assert!(!record.damage && record.missing == exact, "{record:?}");
        assert_eq!(missing(txn, LANE)?, None);
        Ok(())
    });
}

#[test]
fn a_decision_that_loses_more_than_it_listed_is_damage() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(5, 5), &[], &[], 1_000)?;
        trim(txn, LANE, 0, 100)?;
        reset(txn, LANE, 2_000)?;
        compared(txn, LANE, 2)?;
        let record = decisions(txn)?.remove(0);
        assert!(record.damage && record.outcome.is_some_and(|said| said.contains("2 units")));
        assert_eq!(record.missing.named.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4]);
        Ok(())
    });
}

#[test]
fn what_is_parked_is_small() {
    in_one_commit(|txn| {
        for (octets, parked) in [(1024, true), (1025, false)] {
            let head = vec![7; octets];
            let id = [u8::from(parked); 16];
            let arrival = Arrival { lane: LANE, number: 1, id, after: Some([9; 16]), alone: Some(&head) };
            let row = take(txn, arrival, 1_000, |_, _| Ok(false), |_| Ok(()), |_, _| Ok(()))?;
            assert_eq!(row.is_none(), parked, "{octets}");
            assert!(row.is_none_or(|row| row.later), "it may come again once its target is here");
        }
        Ok(())
    });
}

#[test]
fn what_one_partner_was_told_is_no_answer_to_the_next_one() {
    in_one_commit(|txn| {
        let partner = |store| PartnerRow {
            identity: NodeIdentity { node: [1; 16], log_name: [store; 16], generation: 1 },
            key: vec![store],
            next_key: None,
            former_key: None,
            epoch: 0,
            adopt: false,
        };
        adopted(txn, &partner(1))?;
        for number in 120..=130 {
            taken(txn, number, None)?.expect("is refused");
        }
        received(txn, LANE, LanePosition::default(), position(130, 1))?;
        assert_eq!(rejected(txn, LANE, 0)?.len(), 11);
        adopted(txn, &partner(2))?;
        assert_eq!(rejected(txn, LANE, 0)?, []);
        Ok(())
    });
}

#[test]
fn a_batch_that_does_not_follow_on_what_is_here_moves_nothing() {
    let store = store();
    let receive = |from, to| store.commit_blocking(move |txn| received(txn, LANE, from, to)).map(drop);
    receive(LanePosition::default(), position(3, 3)).expect("follows");
    for from in [LanePosition::default(), position(2, 2), position(3, 4), position(5, 5)] {
        assert!(matches!(receive(from, position(9, 9)), Err(StoreError::Moved)), "{from:?}");
    }
    assert_eq!(state(&store.read().expect("reads"), LANE).expect("reads").received, position(3, 3));
    receive(position(3, 3), position(9, 9)).expect("follows");
}

/// Takes a unit that says only its number; those below 100 are applied, by noting them.
fn taken(txn: &mut Txn<'_>, number: u8, after: Option<u8>) -> Result<Option<RejectedRow>, StoreError> {
    let apply = move |txn: &mut Txn<'_>| match number {
        0..100 => Ok(txn.put(Table("applied"), &[number], &Gone { id: [number; 16], octets: 0 })?),
        _ => Err(NotApplied::Never("too large a number".into())),
    };
    let head = [number];
    let (id, after) = ([number; 16], after.map(|after| [after; 16]));
    let arrival = Arrival { lane: LANE, number: number.into(), id, after, alone: Some(&head) };
    take(
        txn,
        arrival,
        1_000,
        |_, _| Ok(false),
        apply,
        |txn, parked| {
            assert!(txn.raw(Table("applied"), &parked.head)?.is_none(), "parked units are applied once");
            Ok(txn.put(Table("applied"), &parked.head, &Gone { id: parked.id, octets: 0 })?)
        },
    )
}

#[test]
fn a_unit_is_applied_once_and_not_before_what_it_follows() {
    in_one_commit(|txn| {
        let applied = |txn: &Txn<'_>| txn.prefix::<Gone>(Table("applied"), &[], 100).map(|rows| rows.len());
        assert_eq!(taken(txn, 2, Some(1))?, None);
        assert_eq!(taken(txn, 3, Some(200))?, None);
        assert_eq!(applied(txn)?, 0, "parked");
        assert_eq!(taken(txn, 1, None)?, None);
        assert_eq!(applied(txn)?, 2, "its target has come");
        assert_eq!(taken(txn, 1, None)?, None);
        assert_eq!(taken(txn, 2, None)?, None);
        assert_eq!(applied(txn)?, 2, "repeats change nothing");
        live(txn, 1_000)?;
        assert!(taken(txn, 200, None)?.is_some_and(|row| !row.later));
        assert_eq!(dead_letters(txn, 10)?.len(), 1, "its target was refused");
        for number in 10..26 {
            assert_eq!(taken(txn, number, Some(99))?, None);
            assert_eq!(
                taken(txn, number, Some(99))?,
                None,
                "one that comes again while it is parked waits once"
            );
        }
        assert!(taken(txn, 26, Some(99))?.is_some_and(|row| row.later), "what is parked is bounded");
        bury_overdue(txn, 1_000, 2_000)?;
        assert_eq!(dead_letters(txn, 100)?.len(), 1, "nothing has waited so long");
        bury_overdue(txn, 1_001, 2_000)?;
        assert_eq!(dead_letters(txn, 100)?.len(), 17);
        Ok(())
    });
}

/// Both nodes went back, and the sender asks what of its own is here: of this it was told that it is stored.
#[test]
fn what_is_parked_or_a_dead_letter_here_is_known_and_what_was_refused_or_deferred_is_not() {
    in_one_commit(|txn| {
        taken(txn, 2, Some(1))?;
        assert!(is_known(txn, &[2; 16])? && !is_here(txn, &[2; 16])?, "parked");
        taken(txn, 1, None)?;
        assert!(is_known(txn, &[2; 16])? && is_here(txn, &[2; 16])?);
        assert!(txn.count(Table("parked-ids"))? == 0);
        taken(txn, 3, Some(200))?;
        taken(txn, 200, None)?;
        assert!(is_known(txn, &[3; 16])?, "what it follows was refused");
        assert!(!is_known(txn, &[200; 16])?, "refused");
        for id in 10..27 {
            taken(txn, id, Some(99))?;
        }
        assert!(!is_known(txn, &[26; 16])?, "deferred");
        bury_overdue(txn, 1, 2_000)?;
        assert_eq!((dead_letters(txn, 100)?.len(), txn.count(Table("parked-ids"))?), (17, 0));
        for id in 10..26 {
            assert!(is_known(txn, &[id; 16])?, "what it follows has not come");
        }
        drop_dead(txn, &[10; 16])?;
        assert!(!is_known(txn, &[10; 16])?, "an operator has dropped it");
        // Of this side's own units nobody else is told.
        queue(txn, &unit(60, QueuedBody::None))?;
        confirmed(txn, LANE, position(1, 1), &[(1, "malformed".into())], &[], 1_000)?;
        assert!(dead_letter(txn, &[60; 16])?.is_some() && !is_known(txn, &[60; 16])?);
        Ok(())
    });
}

#[test]
fn ids_are_remembered_for_as_long_as_a_unit_may_come_again() {
    let days = |days: u64| Duration::from_secs(days * 24 * 3_600);
    assert_eq!(ids_kept(days(2), days(5)), days(30));
    assert_eq!(ids_kept(days(30), days(5)), days(35));
    in_one_commit(|txn| {
        taken(txn, 1, None)?;
        live(txn, 1_000)?;
        taken(txn, 2, None)?;
        assert_eq!(forget_ids(txn, &[], 1, 1_000)?.as_deref(), Some(&[&[1; 16][..], &[0]].concat()[..]));
        assert_eq!(forget_ids(txn, &[1; 17], 10, 1_000)?, None);
        assert!(!is_here(txn, &[1; 16])? && is_here(txn, &[2; 16])?);
        Ok(())
    });
}

#[test]
fn what_is_parked_for_something_parked_follows_it() {
    in_one_commit(|txn| {
        let applied = |txn: &Txn<'_>| txn.prefix::<Gone>(Table("applied"), &[], 100).map(|rows| rows.len());
        assert_eq!(taken(txn, 3, Some(2))?, None);
        assert_eq!(taken(txn, 2, Some(1))?, None);
        assert_eq!(taken(txn, 1, None)?, None);
        assert_eq!(applied(txn)?, 3);
        Ok(())
    });
}

#[test]
fn no_parked_unit_takes_the_place_of_another() {
    in_one_commit(|txn| {
        let parked = |id: u8, at| Parked { id: [id; 16], lane: LANE, head: vec![id], at };
        for (id, at) in [(1, 0), (2, 10)] {
            assert!(receive::park(txn, &[9; 16], &parked(id, at))?);
        }
        bury_overdue(txn, 5, 20)?;
        assert!(receive::park(txn, &[9; 16], &parked(3, 20))?);
        assert_eq!(taken(txn, 9, None)?, None);
        let applied = txn.prefix::<Gone>(Table("applied"), &[], 100)?;
        assert_eq!(applied.iter().map(|(_, row)| row.id[0]).collect::<Vec<_>>(), [2, 3, 9]);
        Ok(())
    });
}

#[test]
fn two_restores_of_one_backup_have_two_generations() {
    const NOW: u64 = 1_800_000_000_000;
    in_one_commit(|txn| {
        let backup = identity(txn)?.unwrap_or_default();
        let mut at = |now| {
            set_identity(txn, backup)?;
            Ok::<_, StoreError>(restored(txn, now)?.generation)
        };
        let (first, second) = (at(NOW)?, at(NOW + 60_000)?);
        assert_eq!(second, first + 1);
        assert_eq!(at(0)?, backup.generation + 1, "also by a clock that knows nothing");
        assert_eq!(at(u64::MAX)?, backup.generation + 1, "and one that is far ahead");
        let first = at(NOW)?;
        assert_eq!(restored(txn, 0)?.generation, first + 1, "it only rises");
        Ok(())
    });
}

#[test]
fn mail_of_a_backup_older_than_ids_are_remembered_is_held() {
    const DAY: u64 = 24 * 3_600_000;
    let kept = ids_kept(Duration::from_secs(3600), Duration::from_secs(3600));
    let born = 20_000 * DAY;
    // With a clock that is behind the backup, nobody can tell how old it is.
    let cases =
        [(born + DAY, 0), (born + 30 * DAY, 0), (born + 31 * DAY, 3), (born - DAY / 25, 0), (born - DAY, 3)];
    for (clock, held) in cases {
        let store = store();
        let commit = store.commit_blocking(move |txn| {
            age::live_on(txn, Duration::from_secs(60), born)?;
            let unit = |number: u8, lane: u8, body: QueuedBody| QueuedUnit {
                id: [number; 16],
                lane,
                after: None,
                head: vec![number],
                body,
            };
            queue(txn, &unit(1, 2, QueuedBody::None))?;
            queue(txn, &unit(2, 2, QueuedBody::None))?;
            queue(txn, &unit(3, 2, QueuedBody::None))?;
            queue(txn, &unit(4, 1, QueuedBody::None))?;
            let chain = [9; 32];
            // The first is confirmed, the second refused for now, the third not answered; a large one waits.
            let position = LanePosition { number: 2, chain };
            confirmed(txn, 2, position, &[], &[(2, "later".into())], born)?;
            txn.put(WAITING, &[5; 16], &unit(5, 3, QueuedBody::None))?;
            let count = hold_old(txn, kept, clock)?;
            assert_eq!(count, held, "{clock}");
            let ids: Vec<u8> = dead_letters(txn, 9)?.iter().map(|letter| letter.unit.id[0]).collect();
            assert_eq!(ids, if held > 0 { vec![2, 3, 5] } else { vec![] });
            assert!(dead_letters(txn, 9)?.iter().all(|letter| letter.reason.starts_with("held:")
                && letter.reason.contains("set the clock") == (clock < born)));
            let waits = |id: u8, lane| outstanding(txn, lane, &[id; 16]);
            assert_eq!(waits(4, 1)?, Outstanding::Waits, "facts go again");
            // Retried by an operator, it goes as anything else.
            if held > 0 {
                retry_dead(txn, &[3; 16])?;
                assert_eq!(outstanding(txn, 2, &[3; 16])?, Outstanding::Waits);
            }
            Ok::<_, StoreError>(())
        });
        commit.expect("commits");
    }
}

fn partner_row(key: u8, generation: u32) -> PartnerRow {
    PartnerRow {
        identity: NodeIdentity { node: [1; 16], log_name: [2; 16], generation },
        key: vec![key; 44],
        next_key: None,
        former_key: None,
        epoch: 0,
        adopt: false,
    }
}

#[test]
fn a_session_of_a_partner_that_was_replaced_changes_nothing_of_the_one_that_took_its_place() {
    in_one_commit(|txn| {
        let replaced = |result: Result<(), PartnerError>| matches!(result, Err(PartnerError::Replaced));
        let old = partner_row(1, 1);
        let next = PartnerRow { next_key: Some(vec![9; 44]), ..old.clone() };
        let raised = partner_row(1, 2);
        assert!(replaced(remember_partner(txn, &raised)) && replaced(pin_next(txn, next.clone())), "nobody");
        // Another key, another store with the same key, and one whose next key the session was not opened with.
        let other_store =
            PartnerRow { identity: NodeIdentity { log_name: [3; 16], ..old.identity }, ..old.clone() };
        let turned = PartnerRow { key: vec![5; 44], next_key: Some(vec![1; 44]), ..old.clone() };
        for (what, row) in [("a key", partner_row(2, 1)), ("a store", other_store)] {
            set_partner(txn, &row)?;
            assert!(replaced(remember_partner(txn, &raised)), "{what}");
            assert!(replaced(pin_next(txn, next.clone())), "{what}");
            assert_eq!(partner(txn)?, Some(row), "{what}");
        }
        set_partner(txn, &turned)?;
        assert!(replaced(pin_next(txn, next.clone())), "a key that is only about to be the partner's");
        set_partner(txn, &PartnerRow { adopt: true, ..partner_row(2, 1) })?;
        assert!(replaced(adopt_store(txn, &old)), "its new store");
        set_partner(txn, &old)?;
        assert!(replaced(adopt_store(txn, &old)), "no store is to be taken");

        // The partner's own.
        pin_next(txn, next.clone()).expect("pinned");
        assert_eq!(partner(txn)?, Some(next.clone()));
        let shown = PartnerRow { key: vec![9; 44], former_key: Some(vec![1; 44]), ..raised };
        remember_partner(txn, &shown).expect("remembered");
        assert_eq!(partner(txn)?, Some(shown));
        Ok(())
    });
}

/// Between what a session asks of the safety store and the replay, the store may have been trimmed.
#[test]
fn what_was_trimmed_meanwhile_is_not_passed_over_by_a_replay() {
    in_one_commit(|txn| {
        five(txn)?;
        confirmed(txn, LANE, position(5, 5), &[], &[], 1_000)?;
        assert!(matches!(reach(txn, LANE, 2)?, Reach::From(_)));
        trim(txn, LANE, 0, 0)?;
        let replayed = settle(txn, LANE, position(2, 2), &Settling::Replay, (1, 2), same);
        assert!(matches!(replayed, Err(StoreError::Moved)), "{replayed:?}");
        assert_eq!(reach(txn, LANE, 2)?, Reach::Gone, "as the next session finds");
        Ok(())
    });
}
