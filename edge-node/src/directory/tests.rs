use std::sync::Arc;

use shared::lane::{self, PartnerRow};
use shared::seal::PrivateKey;
use shared::smtp::Role;
use shared::store::Store;
use shared::store::sim::{Faults, SimDisk};
use shared::topology::{SMALLEST, Topology};
use shared::unit::{ToEdge, decode, directory_hash, encode};

use super::*;
use crate::apply::{self, Arrived};
use crate::cover::Covers;
use crate::node::{Known, Rule};
use crate::reception::answer;
use crate::revise::busy::Busy;

const KEY: [u8; 32] = [8; 32];

fn node() -> Node {
    let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
    let text = SMALLEST.replace("\"example.com\"", "\"example.com\", \"example.org\"");
    let topology = Topology::parse(&text, "test.toml").expect("is right");
    Node::new(store, Covers::simulated(), topology, PrivateKey::generate().0, KEY)
}

fn row(canonical: &str) -> AddressRow {
    AddressRow { hash: directory_hash(&KEY, canonical), person: Some([1; 16]) }
}

/// All rows in one unit.
fn all(canonical: &[&str]) -> ToEdge {
    let mut rows: Vec<_> = canonical.iter().map(|canonical| row(canonical)).collect();
    rows.sort_by_key(|row| row.hash);
    ToEdge::DirectoryRows(Box::new(DirectoryRows { from: [0; 32], to: [0xff; 32], rows }))
}

fn tell(node: &Node, heads: &[ToEdge]) -> Result<(), String> {
    for head in heads {
        let arrived = Arrived { head: encode(head).into(), stored: None, lost: false };
        let applied = node
            .store
            .commit_blocking(move |txn| {
                Ok::<_, StoreError>(apply::apply(txn, &KEY, &Busy::default(), arrived, 1000))
            })
            .expect("commits");
        applied.into_inner().map_err(|rejected| rejected.to_string())?;
    }
    Ok(())
}

/// What a directory of these addresses comes to.
fn root(canonical: &[&str]) -> [u8; 32] {
    let ToEdge::DirectoryRows(told) = all(canonical) else { unreachable!("is made of rows") };
    let mut digester = Digester::default();
    told.rows.iter().for_each(|row| digester.push(row));
    digester.finish().root()
}

/// An edge that was told of these addresses, and of no others.
pub(crate) fn told(canonical: &[&str]) -> Node {
    let node = node();
    let heads = [
        ToEdge::Introduction { sealing_key: [1; 32] },
        ToEdge::DirectoryBegin,
        all(canonical),
        ToEdge::DirectoryComplete,
    ];
    tell(&node, &heads).expect("is applied");
    node
}

fn lookup(node: &Node, text: &str) -> Known {
    node.lookup(&text.parse().expect("an address")).expect("reads")
}

fn is_known(node: &Node, text: &str) -> bool {
    matches!(lookup(node, text), Known::Yes(..))
}

fn held(node: &Node) -> usize {
    node.store
        .read()
        .and_then(|rows| rows.raw_range(ADDRESSES, &[], None, usize::MAX, false))
        .expect("reads")
        .len()
}

/// What was reported to big, in order.
fn reports(node: &Node) -> Vec<Option<Vec<[u8; 16]>>> {
    let units = lane::units(&node.store.read().expect("reads"), EVENT_LANE, 1, 100).expect("reads");
    let report = |head: &[u8]| match decode::<ToBig>(head) {
        Some(ToBig::DirectoryCompared(compared)) => Some(compared.differs),
        _ => None,
    };
    units.iter().filter_map(|(_, unit)| report(&unit.head)).collect()
}

#[test]
fn a_directory_told_anew_counts_from_one_commit_on_and_not_before() {
    let node = node();
    tell(&node, &[ToEdge::Introduction { sealing_key: [1; 32] }, ToEdge::DirectoryBegin])
        .expect("is applied");
    tell(&node, &[all(&["alice@example.com", "bob@example.com"])]).expect("is applied");
    assert_eq!(lookup(&node, "alice@example.com"), Known::NotYet, "it is not whole");
    tell(&node, &[ToEdge::DirectoryComplete]).expect("is applied");
    assert!(is_known(&node, "alice@example.com") && is_known(&node, "bob@example.com"));
    tell(&node, &[ToEdge::DirectoryBegin, all(&["carol@example.com"])]).expect("is applied");
    assert!(
        is_known(&node, "bob@example.com") && !is_known(&node, "carol@example.com"),
        "the old one counts"
    );
    // It is begun once more, and a change comes meanwhile: that is for both.
    let changes = [ToEdge::DirectoryBegin, ToEdge::Address(row("dave@example.com"))];
    tell(&node, &changes).expect("is applied");
    assert!(is_known(&node, "dave@example.com"));
    let low = ToEdge::DirectoryRows(Box::new(DirectoryRows { from: [0; 32], to: [0; 32], rows: Vec::new() }));
    tell(&node, &[low, ToEdge::DirectoryComplete]).expect("is applied");
    assert!(is_known(&node, "dave@example.com") && !is_known(&node, "bob@example.com"));
    assert!(!is_known(&node, "carol@example.com"), "what was begun again is not mixed in");
    // What nobody looks at is swept away.
    assert!(held(&node) > 1);
    assert!(!node.store.commit_blocking(sweep).expect("commits").into_inner(), "it was little");
    assert_eq!(held(&node), 1);
    assert!(is_swept(&node.store.read().expect("reads")).expect("reads"));
}

#[test]
fn old_rows_are_swept_in_bounded_steps() {
    let node = told(&[]);
    let names: Vec<_> = (0..2 * SWEPT_AT_ONCE + 10).map(|number| format!("p{number}@example.com")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    tell(&node, &[ToEdge::DirectoryBegin, all(&names), ToEdge::DirectoryComplete]).expect("is applied");
    tell(&node, &[ToEdge::DirectoryBegin, all(&names[..5]), ToEdge::DirectoryComplete]).expect("is applied");
    let mut steps = vec![held(&node)];
    while node.store.commit_blocking(sweep).expect("commits").into_inner() {
        steps.push(held(&node));
    }
    steps.push(held(&node));
    assert_eq!(steps, [2 * SWEPT_AT_ONCE + 15, SWEPT_AT_ONCE + 15, 15, 5]);
}

#[test]
fn rows_out_of_order_or_bounds_are_refused() {
    let node = told(&["alice@example.com"]);
    let (low, high) =
        (AddressRow { hash: [1; 32], person: None }, AddressRow { hash: [2; 32], person: None });
    for (from, to, rows) in [
        ([0; 32], [9; 32], vec![high.clone(), low.clone()]),
        ([0; 32], [9; 32], vec![low.clone(), low.clone()]),
        ([2; 32], [9; 32], vec![low.clone(), high.clone()]),
        ([0; 32], [1; 32], vec![low, high]),
    ] {
        let unit = ToEdge::DirectoryRows(Box::new(DirectoryRows { from, to, rows }));
        assert!(tell(&node, &[unit]).is_err_and(|why| why.contains("not in order")));
    }
    assert!(is_known(&node, "alice@example.com"));
}

#[test]
fn an_address_is_looked_for_as_it_is_then_without_its_tag_then_as_a_role_then_by_its_domain() {
    let node = told(&["alice@example.com", "alice+x@example.com", "@example.org"]);
    let by = |text: &str| match lookup(&node, text) {
        Known::Yes(_, rule) => Some(rule),
        _ => None,
    };
    for (text, rule) in [
        ("Alice@EXAMPLE.com", Some(Rule::Exact)),
        ("alice+x@example.com", Some(Rule::Exact)),
        ("alice+list@example.com", Some(Rule::Base)),
        ("postmaster@example.com", Some(Rule::Role)),
        ("Abuse@example.org", Some(Rule::Role)),
        ("anybody@example.org", Some(Rule::CatchAll)),
        ("anybody+tag@example.org", Some(Rule::CatchAll)),
        ("anybody@example.com", None),
        ("bob+alice@example.com", None),
        ("alice@elsewhere.example", None),
    ] {
        assert_eq!(by(text), rule, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_difference_is_found_reported_and_answered_for_now_until_it_is_mended() {
    let names = ["alice@example.com", "bob@example.com", "carol@example.com"];
    let node = tokio::task::block_in_place(|| told(&names));
    let mark = |root| ToEdge::DirectoryMark(DirectoryMark { epoch: 1, root });
    let tell = |heads: &[ToEdge]| tokio::task::block_in_place(|| tell(&node, heads)).expect("is applied");
    let code = |text: &str| {
        answer(&lookup(&node, text), Role::Reception).map_or_else(|reply| reply.code(), |()| 250)
    };
    assert_eq!(code("nobody@example.com"), 451, "nothing was heard of big yet");
    tell(&[mark(Some(root(&names)))]);
    compare(&node, Moment::now()).await.expect("compares");
    assert_eq!((reports(&node), code("nobody@example.com")), (vec![None], 550));
    // A row is gone, one is there that should not be, one is somebody else's: each is found.
    let mut mended = 0;
    for (canonical, there) in
        [("bob@example.com", false), ("ghost@example.com", true), ("alice@example.com", true)]
    {
        let hash = row(canonical).hash;
        tokio::task::block_in_place(|| node.store.commit_blocking(move |txn| drift(txn, hash, there)))
            .expect("commits");
        tell(&[mark(Some(root(&names)))]);
        compare(&node, Moment::now()).await.expect("compares");
        let report = reports(&node).pop().flatten().expect("differs");
        let mut whole = Digester::default();
        let ToEdge::DirectoryRows(all_rows) = all(&names) else { unreachable!("is made of rows") };
        all_rows.rows.iter().for_each(|row| whole.push(row));
        let differing = whole.finish().differing(&Digests::reported(report).expect("one for each bucket"));
        assert_eq!(differing, [hash[0]], "{canonical}");
        assert_eq!((code("nobody@example.com"), code("carol@example.com")), (451, 250), "{canonical}");
        // Big tells that bucket anew.
        let (mut from, mut to) = ([0; 32], [0xff; 32]);
        (from[0], to[0]) = (hash[0], hash[0]);
        let rows: Vec<_> = all_rows.rows.iter().filter(|row| row.hash[0] == hash[0]).cloned().collect();
        let mend = ToEdge::DirectoryRows(Box::new(DirectoryRows { from, to, rows }));
        tell(&[mend, mark(Some(root(&names)))]);
        compare(&node, Moment::now()).await.expect("compares");
        mended += 1;
        assert_eq!((reports(&node).pop(), code("nobody@example.com")), (Some(None), 550), "{canonical}");
        let view = node.directory_view().expect("reads");
        assert_eq!((view.differed, view.mended, view.unsure), (mended, mended, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_mark_is_void_with_the_next_change_and_counts_as_a_word_all_the_same() {
    let node = tokio::task::block_in_place(|| told(&["alice@example.com"]));
    let tell = |heads: &[ToEdge]| tokio::task::block_in_place(|| tell(&node, heads)).expect("is applied");
    // A digest that would not match, if it were compared with what came after it.
    let mark = ToEdge::DirectoryMark(DirectoryMark { epoch: 1, root: Some(root(&["alice@example.com"])) });
    for change in [
        ToEdge::Address(row("bob@example.com")),
        ToEdge::AddressGone { hash: row("bob@example.com").hash },
        all(&["alice@example.com"]),
        ToEdge::DirectoryBegin,
        ToEdge::DirectoryComplete,
        ToEdge::DirectoryMark(DirectoryMark { epoch: 1, root: None }),
    ] {
        tell(&[mark.clone(), change.clone()]);
        let void = state(&node.store.read().expect("reads")).expect("reads").root.is_none();
        assert!(void || matches!(change, ToEdge::DirectoryBegin), "{change:?}");
        if void {
            compare(&node, Moment::now()).await.expect("compares");
        }
    }
    assert_eq!(reports(&node), [], "there was nothing to compare");
    assert_eq!(lookup(&node, "nobody@example.com"), Known::No);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_of_an_earlier_connection_is_no_word_of_big() {
    use link_proto::host::Host;
    use link_proto::unit::{Body, Lane, Position, Unit};

    let node = Arc::new(tokio::task::block_in_place(|| told(&["alice@example.com"])));
    let identity = lane::NodeIdentity { node: [1; 16], log_name: [1; 16], generation: 1 };
    let partner =
        PartnerRow { identity, key: vec![1; 44], next_key: None, former_key: None, epoch: 7, adopt: false };
    node.store.commit(move |txn| lane::set_partner(txn, &partner)).await.expect("commits");
    let host = crate::link::LinkHost::new(Arc::clone(&node));
    let mut position = Position::default();
    for (epoch, heard) in [(6, false), (7, true), (8, true)] {
        let head = encode(&ToEdge::DirectoryMark(DirectoryMark { epoch, root: None }));
        let number = position.number + 1;
        let unit = Unit { number, id: [number as u8; 16], after: None, head: head.into(), body: Body::None };
        let from = position;
        position = from.after(&unit);
        host.apply(Lane::Service, vec![unit], from, position).await.expect("commits");
        assert_eq!(node.take_marked().is_some(), heard, "{epoch}");
    }
}
