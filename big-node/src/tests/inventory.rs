//! Holding an edge's inventory against big's records.

use shared::id::MessageId;
use shared::inventory::{HOLDINGS_MAX, HOLDINGS_PER_UNIT, Holding, Inventory, origin_digest};
use shared::lane::LanePosition;
use shared::store::StoreError;
use shared::unit::{Id, ToBig, ToEdge};

use super::{Letter, NOW, World};
use crate::inventory::{self, ask};
use crate::request::Compared;

/// The edge of [`World`] hashes under this.
const DIRECTORY_KEY: [u8; 32] = [6; 32];

impl World {
    fn ask(&self) -> Id {
        *self.store.commit_blocking(ask).expect("an edge is paired")
    }

    fn list(&self, asked: Id, holdings: &[Holding], last: bool) -> Result<(), String> {
        let inventory = Inventory { asked, holdings: holdings.to_vec(), last, cut: false };
        self.apply(&ToBig::Inventory(inventory), None)
    }

    fn verdict(&self, asked: &Id) -> Option<Compared> {
        inventory::verdict(&self.store.read().expect("reads"), asked).expect("reads")
    }

    /// As if the edge had confirmed all it was sent.
    fn confirm_all(&self) {
        let confirmed = self.store.commit_blocking(|txn| {
            for lane in 0..4 {
                let number = shared::lane::state(txn, lane)?.last;
                let position = LanePosition { number, chain: [1; 32] };
                shared::lane::confirmed(txn, lane, position, &[], &[], NOW)?;
            }
            Ok::<_, StoreError>(())
        });
        confirmed.expect("commits");
    }
}

/// A world with a message from outside, one to two outside, and one in an open window; and what an honest edge
/// holds of these.
fn world() -> (World, Vec<Holding>) {
    let world = World::new();
    let window = world.window("bob").window.window;
    let received = Letter::new("carol@remote.example", "bob@example.com");
    received.send(&world).expect("is taken");
    let sent = Letter::submitted(window, "bob@example.com", "carol@remote.example");
    sent.send(&world).expect("is taken");
    world.confirm_all();
    let size = received.content.len() as u64;
    let outbound = world.queued().into_iter().find_map(|unit| match unit {
        ToEdge::Outbound(outbound) => Some(outbound),
        _ => None,
    });
    let outbound = outbound.expect("is queued");
    let path = outbound.reverse_path.as_deref();
    let mut holdings = vec![
        Holding::origin(&received.id.0, origin_digest(&DIRECTORY_KEY, &received.origin())),
        Holding::origin(&sent.id.0, origin_digest(&DIRECTORY_KEY, &sent.origin())),
        Holding::recipient(&sent.id.0, 0, "carol@remote.example", 0, outbound.size, path),
        Holding::copy(&window, &received.id.0, 0, size, false),
    ];
    holdings.sort_by(|one, other| one.key.cmp(&other.key));
    (world, holdings)
}

#[test]
fn an_edge_that_holds_what_it_must_differs_in_nothing_however_it_is_listed() {
    let (world, holdings) = world();
    for at in 1..=holdings.len() {
        let asked = world.ask();
        assert_eq!(world.verdict(&asked), None, "nothing was listed yet");
        let (first, second) = holdings.split_at(at);
        assert_eq!(world.list(asked, first, false), Ok(()));
        assert_eq!(world.verdict(&asked), None, "it is not whole yet");
        assert_eq!(world.list(asked, second, true), Ok(()));
        let verdict = world.verdict(&asked).expect("is whole");
        assert_eq!((verdict.compared, verdict.differing, verdict.cut), (4, 0, false), "{verdict:?}");
        world.confirm_all();
    }
}

#[test]
fn whatever_is_not_the_same_is_named() {
    let (world, holdings) = world();
    for at in 0..holdings.len() {
        let is_origin = holdings[at].key[0] == 1;
        let mut gone = holdings.clone();
        gone.remove(at);
        let asked = world.ask();
        world.list(asked, &gone, true).expect("is taken");
        let verdict = world.verdict(&asked).expect("is whole");
        // An edge keeps origins only as long as its safety store.
        assert_eq!(verdict.differing, u64::from(!is_origin), "{verdict:?}");
        let mut other = holdings.clone();
        other[at].digest[0] ^= 1;
        let asked = world.ask();
        world.list(asked, &other, true).expect("is taken");
        let verdict = world.verdict(&asked).expect("is whole");
        assert_eq!(verdict.differing, 1);
        assert!(verdict.named[0].ends_with("is not the same on both nodes"), "{verdict:?}");
    }
    let unknown = MessageId::generate().0;
    let mut more = holdings;
    more.extend([
        Holding::origin(&unknown, [1; 16]),
        Holding::recipient(&unknown, 0, "x@remote.example", 0, 1, None),
        Holding::copy(&unknown, &unknown, 0, 1, false),
    ]);
    more.sort_by(|one, other| one.key.cmp(&other.key));
    let asked = world.ask();
    world.list(asked, &more, true).expect("is taken");
    let verdict = world.verdict(&asked).expect("is whole");
    assert_eq!((verdict.compared, verdict.differing), (7, 3), "{verdict:?}");
    assert!(verdict.named.iter().all(|named| named.ends_with("is on the edge only")), "{verdict:?}");
}

#[test]
fn what_was_under_way_is_told_from_a_difference() {
    let (world, holdings) = world();
    let asked = world.ask();
    world.list(asked, &holdings, true).expect("is taken");
    assert!(world.verdict(&asked).expect("is whole").quiet);
    // The question before is not confirmed yet: something was under way when this one was asked.
    let asked = world.ask();
    world.list(asked, &holdings, true).expect("is taken");
    assert!(!world.verdict(&asked).expect("is whole").quiet);
    world.confirm_all();
    let asked = world.ask();
    Letter::new("carol@remote.example", "bob@example.com").send(&world).expect("is taken");
    world.list(asked, &holdings, true).expect("is taken");
    let verdict = world.verdict(&asked).expect("is whole");
    assert!(!verdict.quiet && verdict.differing == 1, "its copy is on its way: {verdict:?}");
}

#[test]
fn an_inventory_that_nobody_asked_for_or_that_is_none_is_refused() {
    let (world, holdings) = world();
    let never = MessageId::generate().0;
    assert!(world.list(never, &holdings, true).is_err(), "nobody has asked yet");
    let before = world.ask();
    let asked = world.ask();
    assert_eq!(world.list(before, &holdings, true), Ok(()), "an answer to the question before");
    assert_eq!(world.verdict(&before), None);
    assert!(world.list([0xff; 16], &holdings, true).is_err(), "of a question to come");
    let mut falling = holdings.clone();
    falling.swap(0, 1);
    let many = vec![holdings[0].clone(); HOLDINGS_PER_UNIT + 1];
    let foreign = [Holding { key: vec![7; 17], digest: [0; 16] }];
    let bad: [&[Holding]; 4] = [&falling, &many, &foreign, &[]];
    for list in bad {
        assert!(world.list(asked, list, false).is_err());
    }
    assert_eq!(world.list(asked, &holdings, true), Ok(()), "what was refused has changed nothing");
    assert!(world.list(asked, &holdings, true).is_err(), "the answer is whole");
    assert_eq!(world.verdict(&asked).expect("is whole").differing, 0);
    // As much as is compared, and one more.
    let asked = world.ask();
    let mut number = 0_u128;
    for list in 0..=HOLDINGS_MAX / HOLDINGS_PER_UNIT {
        let holdings: Vec<_> = (0..HOLDINGS_PER_UNIT)
            .map(|_| {
                number += 1;
                Holding::origin(&number.to_be_bytes(), [0; 16])
            })
            .collect();
        let taken = world.list(asked, &holdings, false);
        assert_eq!(taken.is_ok(), list < HOLDINGS_MAX / HOLDINGS_PER_UNIT, "{taken:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revised_copy_is_compared_as_what_the_edge_has_decided() {
    use shared::unit::{ReviseMode, ReviseResult};

    use crate::record::{REVISED, RevisedRow, revised_key};

    let world = tokio::task::block_in_place(World::new);
    let (id, window) = tokio::task::block_in_place(|| {
        let window = world.window("bob").window.window;
        (world.sends(&["bob@example.com"], "old"), window)
    });
    let size = |revision| {
        let rows = world.store.read().expect("reads");
        crate::mail::shown(&rows, id, revision).expect("reads").expect("is there").origin.size
    };
    let old = Holding::copy(&window, &id.0, 0, size(0), false);
    world
        .amends("alice", id, super::revise::amendment(ReviseMode::Replace, "a longer text"))
        .await
        .expect("revised");
    let new = Holding::copy(&window, &id.0, 1, size(1), false);
    let differing = |holdings: &[Holding]| {
        let asked = world.ask();
        world.list(asked, holdings, true).expect("is taken");
        world.verdict(&asked).expect("is whole").differing
    };
    let decide = |result| {
        let decided = world.store.commit_blocking(move |txn| {
            let key = revised_key(id, 0, 1);
            let row: RevisedRow = shared::store::Rows::get(txn, REVISED, &key)?.expect("is there");
            txn.put(REVISED, &key, &RevisedRow { result, ..row })
        });
        decided.expect("commits");
    };
    tokio::task::block_in_place(|| {
        for (result, before, after, gone) in [
            (ReviseResult::Pending, 0, 0, 0),
            (ReviseResult::Replaced, 1, 0, 1),
            (ReviseResult::Revised, 1, 0, 1),
            (ReviseResult::Withdrawn, 1, 1, 0),
        ] {
            decide(result);
            let found = [std::slice::from_ref(&old), std::slice::from_ref(&new), &[]].map(differing);
            assert_eq!(found, [before, after, gone], "{result:?}");
        }
    });
}
