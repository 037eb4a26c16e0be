//! What a store refuses to open, and what a rebuild makes of segments that are damaged.

use super::*;

/// All that is on a disk.
fn content_of(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &String| {
        let mut bytes = vec![0; disk.length(name)];
        disk.peek(name, 0, &mut bytes);
        bytes
    };
    disk.list().expect("a list").iter().map(|name| (name.clone(), read(name))).collect()
}

/// A disk with a store that has run, and what it was told.
fn a_store() -> (SimDisk, Ledger) {
    let (disk, mut ledger) = (SimDisk::new(Faults::default()), Ledger::default());
    let store = Store::open_of(Arc::new(disk.clone()), node(1)).expect("opens");
    script(&store, &mut ledger, 0).expect("a clean run");
    (disk, ledger)
}

/// Why the store of node 1 is not opened. Whatever is refused is left as it is.
fn refusal(disk: &SimDisk, case: &str) -> StoreError {
    let before = content_of(disk);
    let error = Store::open_of(Arc::new(disk.clone()), node(1)).expect_err(case);
    assert!(content_of(disk) == before, "{case}: something was changed");
    error
}

/// Puts `bytes` in the place of a file.
fn replace(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let file = disk.create(name).expect("is made");
    file.set_len(0).and_then(|()| file.write_at(0, bytes)).expect("is written");
}

#[test]
fn an_index_that_is_cut_short_is_refused_or_whole_and_never_an_empty_one() {
    let (disk, ledger) = a_store();
    let whole = content_of(&disk).remove("index.redb").expect("an index");
    let lengths = (0..whole.len()).step_by(whole.len() / 150).chain([1, 100, 4096, whole.len() - 1]);
    let (mut refused, mut opened) = (0, 0);
    for length in lengths {
        let case = format!("cut at {length} of {}", whole.len());
        let cut = disk.copy();
        cut.open("index.redb").and_then(|file| file.set_len(length as u64)).expect("cuts");
        let before = content_of(&cut);
        match Store::open_of(Arc::new(cut.clone()), node(1)) {
            Ok(store) => {
                audit(&store, &ledger, &case);
                opened += 1;
            }
            Err(error) => {
                assert!(matches!(error, StoreError::IndexDamaged(_)), "{case}: {error}");
                assert!(content_of(&cut) == before, "{case}: something was changed");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused} refused, {opened} had lost nothing but free pages");
}

#[test]
fn what_is_no_index_is_refused_and_says_so() {
    let (disk, _) = a_store();
    let length = disk.length("index.redb");
    for (case, bytes) in [("zeros", vec![0; length]), ("text", b"not an index\n".repeat(length / 13))] {
        let image = disk.copy();
        replace(&image, "index.redb", &bytes);
        let error = refusal(&image, case);
        assert!(matches!(error, StoreError::IndexDamaged(_)), "{case}: {error}");
        assert!(error.to_string().contains("verify --rebuild"), "{case}: {error}");
    }
}

#[test]
fn a_store_is_opened_by_its_own_node_only() {
    let (disk, ledger) = a_store();
    let before = content_of(&disk);
    let error = Store::open_of(Arc::new(disk.clone()), node(2)).expect_err("another node's");
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    assert!(content_of(&disk) == before, "something was changed");

    // The index of another store of the same node: its segments would all be taken for what no commit names.
    let (other, _) = a_store();
    let mixed = disk.copy();
    replace(&mixed, "index.redb", &content_of(&other)["index.redb"]);
    let error = refusal(&mixed, "an index from elsewhere");
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");

    // A marker that is lost is found again, and the label says nothing else afterwards.
    disk.remove("marker").expect("was there");
    for _ in 0..2 {
        audit(&Store::open_of(Arc::new(disk.clone()), node(1)).expect("opens"), &ledger, "without a marker");
    }
}

#[test]
fn a_rebuild_is_of_ones_own_store_only() {
    let (disk, ledger) = a_store();
    let rebuilt = |disk: &SimDisk, owner| {
        let kept = |_: &mut Txn<'_>, _: &Recovered| Ok(());
        rebuild(Arc::new(disk.clone()), owner, kept, |_| String::new(), |_| Ok(())).map(drop)
    };
    let before = content_of(&disk);
    let error = rebuilt(&disk, node(2)).expect_err("another node's");
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    let (other, _) = a_store();
    let mixed = disk.copy();
    replace(&mixed, "index.redb", &content_of(&other)["index.redb"]);
    let error = rebuilt(&mixed, node(1)).expect_err("an index from elsewhere");
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    assert!(content_of(&disk) == before, "something was changed");
    // One that says nothing any more is why there is a rebuild; it is labelled from then on.
    replace(&disk, "index.redb", b"no index");
    rebuilt(&disk, node(1)).expect("is rebuilt");
    let error = Store::open_of(Arc::new(disk.clone()), node(2)).expect_err("another node's");
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    let store = Store::open_of(Arc::new(disk), node(1)).expect("opens");
    let rows = store.read().expect("reads");
    let present = ledger.confirmed.values().filter(|present| **present).count();
    assert!(rows.count(Table("bodies")).expect("reads") >= present as u64);
}

#[test]
fn a_store_without_a_label_gets_one() {
    let (disk, mut ledger) = (SimDisk::new(Faults::default()), Ledger::default());
    script(&Store::open(Arc::new(disk.clone())).expect("opens"), &mut ledger, 0).expect("a clean run");
    audit(&Store::open_of(Arc::new(disk.clone()), node(1)).expect("opens"), &ledger, "as it was");
    let error = Store::open_of(Arc::new(disk), node(2)).expect_err("it is labelled now");
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
}

/// A label as a newer program may write it.
struct Later;

impl Row for Later {
    const VERSION: u8 = 200;

    fn encode(&self) -> Vec<u8> {
        b"whatever it says".to_vec()
    }

    fn decode(_: &[u8]) -> Option<Self> {
        None
    }
}

#[test]
fn a_store_of_a_newer_version_is_left_to_that() {
    let (disk, _) = a_store();
    let store = Store::open(Arc::new(disk.clone())).expect("opens");
    store.commit_blocking(|txn| txn.put(Table("label"), b"store", &Later)).expect("commits");
    drop(store);
    let error = refusal(&disk, "a newer one");
    assert!(matches!(error, StoreError::Newer(_)) && error.to_string().contains("format 200"), "{error}");
}

#[test]
fn what_a_rebuild_cannot_keep_is_listed_and_set_aside() {
    let disk = SimDisk::new(Faults::default());
    let store = open(&disk).expect("opens");
    for number in 0..18 {
        add(&store, number).expect("adds");
    }
    drop(store);
    let segments: Vec<String> =
        disk.list().expect("a list").into_iter().filter(|n| n.ends_with(".seg")).collect();
    assert!(segments.len() >= 3, "{segments:?}");
    // One body of several pieces loses its first, another its last, and a small one all it has.
    let (broken, endless, unreadable, gone) = (5, 11, 7, 8);
    let at = |number: u64, piece: u32| {
        segments.iter().find_map(|name| {
            let bytes = content_of(&disk)[name].clone();
            let starts = (0..bytes.len()).step_by(8);
            let found = |at: usize| {
                sim::piece_at(&bytes[at..]).is_some_and(|p| p.key == key(number) && p.piece == piece)
            };
            starts.filter(|at| found(*at)).map(|at| (name.clone(), at)).next()
        })
    };
    for (number, piece) in [(broken, 0), (endless, 1), (gone, 0)] {
        let (name, offset) = at(number, piece).expect("is there");
        disk.flip(&name, (offset + 100) * 8);
    }
    let before = content_of(&disk);
    // The first that is restored is released at once, as one that another one has replaced.
    let replaced = 0;
    let restore = move |txn: &mut Txn<'_>, found: &Recovered| match u64::from_be_bytes(
        found.notes.as_slice().try_into().expect("our notes"),
    ) {
        number if number == unreadable => Err(NotRestored::Unreadable),
        number if number == replaced => Ok(txn.release_body(found.key)?),
        _ => Ok(()),
    };
    let name = |lost: &Lost| format!("body {:02x?}", lost.key.0);
    let (store, rebuilt) =
        rebuild(Arc::new(disk.clone()), node(1), restore, name, |_| Ok(())).expect("rebuilds");
    assert_eq!(rebuilt.kept, 14);
    let says = |number: u64, why: &str| {
        let line = format!("body {:02x?}: {why}", key(number).0);
        assert!(rebuilt.lost.contains(&line), "{line} in {:#?}", rebuilt.lost);
    };
    says(broken, "1 of 2 pieces are here");
    says(endless, "its end is not here, only pieces before it: 1");
    says(unreadable, "its notes cannot be read");
    assert!(rebuilt.lost.iter().any(|line| line.contains("octets of 0000000")), "{:#?}", rebuilt.lost);
    for number in (0..18).filter(|number| ![replaced, broken, endless, unreadable, gone].contains(number)) {
        assert_eq!(store.body(key(number)).and_then(BodyReader::read_all).expect("kept"), content(number));
    }
    // Whatever becomes of the segments now, each one that holds what was lost lies there as it was.
    for (number, piece) in [(broken, 1), (endless, 0), (unreadable, 0)] {
        let (name, _) = at(number, piece).expect("is there");
        assert!(content_of(&disk)[&format!("{name}.aside-1")] == before[&name], "{name}");
    }
    drop(store);
    assert!(open(&disk).is_ok(), "what lies aside is in nobody's way");
}
