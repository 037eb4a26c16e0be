//! An edge that holds valid keys and means ill: what it may bring is bounded, what it may write is listed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link_proto::host::{Applied, BodySink, Host, Identity, Partner, Settling};
use link_proto::unit::{Body, HEAD_BYTES_MAX, Lane, Position, Unit};
use shared::age;
use shared::credential::Credential;
use shared::id::unix_millis;
use shared::inventory::Inventory;
use shared::lane::{self, NodeIdentity, PartnerRow};
use shared::origin::Channel;
use shared::seal::PrivateKey;
use shared::store::sim::{Faults, SimDisk};
use shared::store::{Rows, StoreError};
use shared::unit::{
    AddressRow, CopyRevision, DirectoryCompared, DirectoryMark, DirectoryRows, Inbound, Outbound, Outcome,
    PopAct, Revise, ReviseMode, ReviseResult, Revised, ToBig, ToEdge, Unsettled, Window, WindowCopy, decode,
    encode,
};
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::{Letter, NOW, World};
use crate::inbound::{self, SealedBody};
use crate::link::LinkHost;
use crate::pressure::Pressure;
use crate::refusal;

/// Octets of the edge's mail in an hour.
const HOURLY: u64 = 1_000_000;
const PIECE: usize = 64 * 1024;

/// Big's end of the link, and what it says of its room.
struct End {
    host: LinkHost,
    pressure: Arc<Pressure>,
    positions: [Position; 4],
}

impl End {
    fn new(world: &World) -> Self {
        Self::with(world, HOURLY)
    }

    fn with(world: &World, hourly: u64) -> Self {
        let pressure = Arc::new(Pressure::new(&world.store, hourly));
        let (store, site) = (world.store.clone(), Arc::clone(&world.site));
        let host = LinkHost::new(store, site, Arc::clone(&pressure), Arc::default());
        Self { host, pressure, positions: [Position::default(); 4] }
    }

    /// What applying one unit comes to.
    async fn bring(&mut self, lane: Lane, id: [u8; 16], head: Vec<u8>, body: Body) -> Applied {
        let position = &mut self.positions[usize::from(lane.index())];
        let unit = Unit { number: position.number + 1, id, after: None, head: head.into(), body };
        let from = std::mem::replace(position, position.after(&unit));
        self.host.apply(lane, vec![unit], from, *position).await.expect("commits")
    }

    /// Stages a large body, as far as it is let. Returns the octets that were taken.
    async fn flood(&self, unit: [u8; 16], pieces: usize) -> u64 {
        let Ok(mut sink) = self.host.stage(unit) else { return 0 };
        for _ in 0..pieces {
            sink.write(Bytes::from(vec![7; PIECE])).await.expect("is within a body's limit");
        }
        let length = (pieces * PIECE) as u64;
        sink.finish(length, [0; 32]).await.expect("is staged");
        length
    }
}

fn id(number: u64) -> [u8; 16] {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_is_a_lie_is_not_believed() {
    let world = block_in_place(World::new);
    let mut end = End::new(&world);
    let units: Vec<_> = (1..=2)
        .map(|number| {
            let body = Body::Staged { length: u64::MAX, digest: [0; 32] };
            Unit { number, id: id(number), after: None, head: Bytes::from_static(b"x"), body }
        })
        .collect();
    let position = units.iter().fold(Position::default(), |position, unit| position.after(unit));
    let applied = end.host.apply(Lane::Batch, units, Position::default(), position).await.expect("commits");
    assert_eq!((applied.refused.len(), applied.deferred.len()), (0, 2), "nothing was staged for them");
    assert!(end.pressure.view().alarm().is_none(), "and nothing was taken in");
    end.positions[usize::from(Lane::Batch.index())] = position;
    let head = encode(&ToBig::WindowClosed { window: id(9), until: None });
    assert_eq!(end.bring(Lane::Event, id(3), head, Body::None).await.refused.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_for_units_that_never_come_are_counted() {
    for same in [false, true] {
        let world = block_in_place(World::new);
        let end = End::new(&world);
        let (mut taken, mut bodies) = (0, 0);
        // Others, or the same again and again: room for 32 is one bound, the hour's octets the other.
        for number in 0..100 {
            let length = end.flood(id(if same { 0 } else { number }), 2).await;
            taken += length;
            bodies += u64::from(length > 0);
        }
        assert!(taken <= HOURLY + 2 * PIECE as u64, "{taken}");
        assert!(bodies > 1);
        assert!(!end.host.has_room(Lane::Inter) && !end.host.has_room(Lane::Batch));
        assert!(end.host.has_room(Lane::Event) && end.host.has_room(Lane::Service), "they go on");
        assert!(end.pressure.view().alarm().is_some_and(|alarm| alarm.contains("inbound_hourly")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_had_begun_go_on_a_little_longer_than_mail_and_not_for_ever() {
    let world = block_in_place(World::new);
    let end = End::new(&world);
    let begun = |number| end.host.stage(id(number)).expect("there is room");
    let (mut sinks, mut taken) = ((0..8).map(begun).collect::<Vec<_>>(), 0);
    for _ in 0..3 {
        for sink in &mut sinks {
            // Taken at once, or kept waiting until the hour is over.
            let written = timeout(Duration::from_millis(10), sink.write(Bytes::from(vec![7; PIECE]))).await;
            taken += written.map_or(0, |taken| taken.map(|()| PIECE as u64).expect("it is not given up"));
        }
    }
    assert!(taken > HOURLY, "{taken}");
    assert!(taken <= HOURLY + HOURLY / 40 + PIECE as u64, "{taken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_mail_ends_at_its_quota_and_one_of_facts_soon_after() {
    let world = block_in_place(World::new);
    let letter = Letter::new("carol@remote.example", "alice@example.com");
    assert_eq!(block_in_place(|| letter.send(&world)), Ok(()));
    let mut end = End::new(&world);
    let mut came = 0u64;
    while end.host.has_room(Lane::Inter) {
        let applied =
            end.bring(Lane::Inter, id(came), b"garbage".to_vec(), Body::Inline(vec![7; PIECE].into()));
        assert_eq!(applied.await.refused.len(), 1);
        came += 1;
        assert!(came < 1000, "it ends");
    }
    assert!(came * PIECE as u64 <= HOURLY + PIECE as u64, "{came}");
    assert!(end.pressure.view().alarm().is_some());
    let head = encode(&ToBig::WindowClosed { window: id(9), until: None });
    assert_eq!(end.bring(Lane::Event, id(5000), head, Body::None).await.refused.len(), 1, "is looked at");
    let mut facts = 0u64;
    while end.host.has_room(Lane::Event) {
        let head = encode(&ToBig::WindowClosed { window: id(9), until: None });
        end.bring(Lane::Event, id(6000 + facts), head, Body::None).await;
        facts += 1;
        assert!(facts * 1024 <= HOURLY / 20, "facts end too");
    }
    let inside = Letter::new("alice@example.com", "bob@example.com");
    assert_eq!(
        block_in_place(|| inside.send(&world)),
        Ok(()),
        "what is not the link's has a budget of its own"
    );
}

/// Octets of the edge's mail in an hour, where the disk is measured.
const MEASURED_HOURLY: u64 = 16 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_grows_by_no_more_than_the_quota_in_a_flood() {
    for staged in [false, true] {
        let disk = SimDisk::new(Faults::default());
        let world = block_in_place(|| World::on(disk.clone()));
        let mut end = End::with(&world, MEASURED_HOURLY);
        let (before, mut number) = (disk.bytes() as u64, 0);
        while end.host.has_room(Lane::Inter) {
            if staged {
                // Whole bodies, each for a unit that comes and is refused.
                let length = end.flood(id(number), 8).await;
                let body = Body::Staged { length, digest: [0; 32] };
                let refused = end.bring(Lane::Batch, id(number), b"garbage".to_vec(), body).await.refused;
                assert_eq!(refused.len(), 1);
                number += 1;
            } else {
                // Each unit as small as can be, so that what is noted of it is most beside it.
                let place = &mut end.positions[usize::from(Lane::Inter.index())];
                let units: Vec<_> = (1..=50)
                    .map(|next| Unit {
                        number: place.number + next,
                        id: id(number + next),
                        after: None,
                        head: Bytes::from_static(b"x"),
                        body: Body::Inline(Bytes::from_static(b"y")),
                    })
                    .collect();
                let from = *place;
                *place = units.iter().fold(from, |position, unit| position.after(unit));
                let applied = end.host.apply(Lane::Inter, units, from, *place).await.expect("commits");
                assert_eq!(applied.refused.len(), 50);
                number += 50;
            }
            assert!(number < 1_000_000, "it ends");
        }
        let grown = (disk.bytes() as u64).saturating_sub(before);
        // Bodies lie in segments, notes in the index.
        let percent = if staged { 105 } else { 130 };
        assert!(grown * 100 <= MEASURED_HOURLY * percent, "{grown} octets after {number} units");
    }
}

const LANES: [Lane; 4] = [Lane::Service, Lane::Event, Lane::Inter, Lane::Batch];

/// The edge, in this generation.
fn edge(generation: u32) -> Partner {
    let identity = Identity { node: [1; 16], log_name: [2; 16], generation };
    Partner { identity, key: vec![3; 44], next_key: None, former_key: None, epoch: 0 }
}

/// Big knows the edge, in the generation 0.
async fn paired(world: &World) -> End {
    know(world, 0, false).await;
    End::new(world)
}

async fn know(world: &World, generation: u32, adopt: bool) {
    let partner = PartnerRow {
        identity: NodeIdentity { node: [1; 16], log_name: [2; 16], generation },
        key: vec![3; 44],
        next_key: None,
        former_key: None,
        epoch: 0,
        adopt,
    };
    let known = world.store.commit(move |txn| lane::set_partner(txn, &partner));
    known.await.expect("commits");
}

/// Big lives on for so long.
async fn live(world: &World, passed: Duration) {
    let lives = world.store.commit(move |txn| age::live_on(txn, passed, 0));
    lives.await.expect("commits");
}

/// An edge that says it has gone back at each HELLO, whether or not a session follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_goes_back_at_each_hello_is_told_anew_once_and_again_only_when_it_has_confirmed() {
    let world = block_in_place(World::new);
    block_in_place(|| {
        world.window("bob");
        world.sends(&["bob@example.com", "carol@remote.example"], "text");
    });
    let end = paired(&world).await;
    let went_back = async |generation| {
        // At once it would not be taken so often.
        live(&world, Duration::from_secs(10 * 60)).await;
        end.host.remember(edge(generation)).await.expect("commits");
    };
    let rows = || world.store.read().expect("reads");
    let numbered = || lane::queue_mark(&rows()).expect("reads").0;
    let waiting = || lane::depth(&rows()).expect("reads").iter().sum::<u64>();
    let confirms_all = async || {
        for lane in LANES {
            let number = lane::state(&rows(), lane.index()).expect("reads").last;
            let all = Position { number, chain: [4; 32] };
            end.host.confirmed(lane, all, Applied::default()).await.expect("is taken");
        }
        // What is recorded lazily comes with the next commit.
        world.store.commit(|_| Ok::<_, StoreError>(())).await.expect("commits");
    };
    confirms_all().await;
    assert_eq!(waiting(), 0);
    let before = numbered();
    went_back(1).await;
    let told = numbered() - before;
    assert!(told > 5 && waiting() == told, "directory, window, copy, who waits and what for: {told}");
    for generation in 2..=101 {
        went_back(generation).await;
    }
    assert_eq!((numbered(), waiting()), (before + told, told), "without a session after it");
    for generation in 102..=201 {
        went_back(generation).await;
        for lane in LANES {
            end.host.settle(lane, Position::default(), Settling::Replay).await.expect("settles");
        }
        // It has lost all that it ever got, as it says.
        assert!(waiting() <= before + told, "{} after {generation}", waiting());
    }
    // It is told all of it once more, for what it had before it went back may have been less.
    confirms_all().await;
    assert_eq!(waiting(), told, "what was owed");
    confirms_all().await;
    assert_eq!(waiting(), 0, "nothing is owed any more");
    went_back(202).await;
    assert_eq!(waiting(), told, "who is restored later is told at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_goes_back_too_often_has_to_wait_for_it_and_an_honest_one_does_not() {
    const APART: Duration = Duration::from_secs(10 * 60);
    let world = block_in_place(World::new);
    let end = paired(&world).await;
    let numbered = || lane::queue_mark(&world.store.read().expect("reads")).expect("reads").0;
    let generation = || {
        let known = lane::partner(&world.store.read().expect("reads")).expect("reads");
        known.map(|known| known.identity.generation)
    };
    let alarm = || crate::generation::alarm(&world.store.read().expect("reads")).expect("reads");
    let refused = async |generation| {
        let refused = end.host.remember(edge(generation)).await;
        refused.map_err(|error| error.0).expect_err("it is too often")
    };
    // Who connects again without having gone back is let in as often as it comes.
    for _ in 0..20 {
        end.host.remember(edge(0)).await.expect("is let in");
    }
    for number in 1..=6 {
        assert_eq!(alarm(), None, "{number}");
        end.host.remember(edge(number)).await.expect("is let in");
    }
    assert!(alarm().is_some_and(|alarm| alarm.contains("restored 6 times")));
    let before = numbered();
    for number in 7..=500 {
        let why = refused(number).await;
        assert!(why.contains("in 10 minutes, or at once after `big-node link hold`"), "{why}");
    }
    assert_eq!((numbered(), generation()), (before, Some(6)), "it costs big nothing");
    end.host.remember(edge(6)).await.expect("as it was known it is let in");

    live(&world, APART / 2).await;
    assert!(refused(7).await.contains("in 5 minutes"));
    live(&world, APART / 2).await;
    end.host.remember(edge(7)).await.expect("is let in");
    refused(8).await;
    // An operator has the last word, once.
    know(&world, 7, true).await;
    end.host.remember(edge(9)).await.expect("is let in");
    refused(10).await;
    // A day of life, whatever the clock says; the last was a little before that.
    assert!(alarm().is_some());
    live(&world, APART * 6 * 24).await;
    assert_eq!(alarm(), None, "it is over after a day");
    for number in 10..16 {
        end.host.remember(edge(number)).await.expect("no more is saved up than there was, and no less");
    }
    refused(16).await;
}

/// What big keeps of refused units is where they stood, which their number and the lane's chain say, and why (promises
/// §5.7 T51): the dead letter, with all that they said, is the edge's.
fn keeps_reasons_only(world: &World, end: &End, lane: Lane, refused: &[([u8; 16], &[u8])]) {
    let rows = world.store.read().expect("reads");
    let kept = lane::rejected(&rows, lane.index(), 0).expect("reads");
    assert_eq!(kept.len(), refused.len());
    let row = lane::state(&rows, lane.index()).expect("reads");
    let position = end.positions[usize::from(lane.index())];
    assert_eq!((row.received.number, row.received.chain), (position.number, position.chain));
    assert!(lane::dead_letters(&rows, usize::MAX).expect("reads").is_empty());
    for (id, content) in refused {
        assert!(!lane::is_here(&rows, id).expect("reads"));
        for (_, row) in &kept {
            assert!(row.reason.len() < 300 && !row.reason.contains(&*String::from_utf8_lossy(content)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_on_a_lane_for_facts_is_refused() {
    let world = block_in_place(World::new);
    let mut end = End::new(&world);
    let letter = Letter::new("carol@remote.example", "alice@example.com");
    let (head, sealed) = block_in_place(|| letter.seal(&world, &letter.origin(), None));
    for lane in [Lane::Service, Lane::Event] {
        let body = Body::Inline(sealed.clone().into());
        let applied = end.bring(lane, letter.id.0, encode(&head), body).await;
        assert!(applied.refused[0].reason.contains("lanes of its own"), "{applied:?}");
        assert_eq!(end.flood(id(7), 2).await, 2 * PIECE as u64);
        let body = Body::Staged { length: 2 * PIECE as u64, digest: [0; 32] };
        assert_eq!(end.bring(lane, id(7), encode(&head), body).await.refused.len(), 1);
        let said = b"remote.example".as_slice();
        block_in_place(|| keeps_reasons_only(&world, &end, lane, &[(letter.id.0, said), (id(7), said)]));
    }
    assert!(world.entry("alice", letter.id).is_none());
    let body = Body::Inline(sealed.into());
    assert_eq!(end.bring(Lane::Inter, letter.id.0, encode(&head), body).await.refused, []);
    assert!(world.entry("alice", letter.id).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_author_or_an_invented_context_is_refused_and_alarmed() {
    let world = block_in_place(World::new);
    let mut end = End::new(&world);
    let alarm = |at| {
        let rows = world.store.read().expect("reads");
        refusal::alarm(&rows, at).expect("reads")
    };
    assert_eq!(block_in_place(|| alarm(unix_millis())), None);
    let alice = block_in_place(|| world.known("alice").id);
    let mut refused = 0;
    let (mut mail, mut facts) = (Vec::new(), Vec::new());
    // Somebody at a desk, a report of our own, a traveller of a window that big has not opened.
    for channel in [Channel::Desk { person: alice }, Channel::Report, Channel::Submission { window: id(9) }] {
        let submitted = matches!(channel, Channel::Submission { .. }).then(|| id(9));
        let letter = Letter { channel, ..Letter::new("alice@example.com", "bob@example.com") };
        let (head, sealed) = block_in_place(|| letter.seal(&world, &letter.origin(), submitted));
        let applied = end.bring(Lane::Inter, letter.id.0, encode(&head), Body::Inline(sealed.into())).await;
        assert_eq!(applied.refused.len(), 1, "{applied:?}");
        refused += 1;
        mail.push((letter.id.0, b"text\r\n".as_slice()));
        block_in_place(|| {
            assert!(world.entry("bob", letter.id).is_none() && world.entry("alice", letter.id).is_none());
        });
    }
    // What became of a message that nobody has sent, and of a revision that nobody has made.
    for fact in [ToBig::Outcome(outcome(NOW, "250 fine")), ToBig::Revised(revised())] {
        let applied = end.bring(Lane::Event, id(20 + refused), encode(&fact), Body::None).await;
        assert_eq!(applied.refused.len(), 1, "{applied:?}");
        facts.push((id(20 + refused), b"250 fine".as_slice()));
        refused += 1;
    }
    block_in_place(|| {
        keeps_reasons_only(&world, &end, Lane::Inter, &mail);
        keeps_reasons_only(&world, &end, Lane::Event, &facts);
    });
    let said = block_in_place(|| alarm(unix_millis())).expect("is said");
    assert!(said.starts_with(&format!("{refused} units of the edge's were refused here")), "{said}");
    // Mail that is as it should be raises none, and an old alarm ends.
    let letter = Letter::new("carol@remote.example", "alice@example.com");
    let (head, sealed) = block_in_place(|| letter.seal(&world, &letter.origin(), None));
    end.bring(Lane::Inter, letter.id.0, encode(&head), Body::Inline(sealed.into())).await;
    assert_eq!(block_in_place(|| alarm(unix_millis())).as_ref(), Some(&said));
    assert_eq!(block_in_place(|| alarm(unix_millis() + 25 * 3_600_000)), None);
}

/// The kind after this one: no wildcard, so that a new kind takes its place in the row.
fn next_kind(kind: &ToEdge) -> Option<ToEdge> {
    let (window, message, wrapped_key) = (id(1), id(2), vec![3; 80]);
    Some(match kind {
        ToEdge::Introduction { .. } => ToEdge::Outbound(Outbound {
            message,
            revision: 0,
            wrapped_key,
            size: 9,
            reverse_path: Some("alice@example.com".into()),
            recipients: vec![(0, "carol@remote.example".into())],
            asked: Vec::new(),
            returns: None,
            envelope_id: None,
            tls_wish: shared::tls_wish::TlsWish::Unsaid,
            body_8bit: false,
            utf8_header: false,
            signatures: String::new(),
        }),
        ToEdge::Outbound(_) => {
            ToEdge::Copy(WindowCopy { window, message, revision: 0, wrapped_key, size: 9, retrieved: false })
        }
        ToEdge::Copy(_) => ToEdge::CopyGone { window, message },
        ToEdge::CopyGone { .. } => ToEdge::Address(AddressRow { hash: [1; 32], person: Some(id(2)) }),
        ToEdge::Address(_) => ToEdge::AddressGone { hash: [1; 32] },
        ToEdge::AddressGone { .. } => ToEdge::Window(Box::new(Window {
            logins: vec![[3; 32]],
            senders: vec![[4; 32]],
            from: NOW,
            until: Some(NOW),
            ..Window::new(
                window,
                id(2),
                [5; 32],
                Credential::generate(&PrivateKey::from_bytes([6; 32]), [9; 16]).1,
            )
        })),
        ToEdge::Window(_) => ToEdge::WindowEnd { window },
        ToEdge::WindowEnd { .. } => ToEdge::DirectoryBegin,
        ToEdge::DirectoryBegin => ToEdge::DirectoryComplete,
        ToEdge::DirectoryComplete => {
            ToEdge::Unsettled(Unsettled { from: id(0), to: id(9), messages: Vec::new(), generation: 1 })
        }
        ToEdge::Unsettled(_) => {
            let rows = vec![AddressRow { hash: [1; 32], person: None }];
            ToEdge::DirectoryRows(Box::new(DirectoryRows { from: [0; 32], to: [9; 32], rows }))
        }
        ToEdge::DirectoryRows(_) => ToEdge::DirectoryMark(DirectoryMark { epoch: 1, root: Some([1; 32]) }),
        ToEdge::DirectoryMark(_) => ToEdge::InventoryAsked { asked: id(1) },
        ToEdge::InventoryAsked { .. } => ToEdge::Revise(Revise {
            message,
            revision: 1,
            mode: ReviseMode::Replace,
            recipients: vec![(0, 0)],
            wrapped_key,
            size: 9,
            body_8bit: false,
            utf8_header: false,
            signatures: String::new(),
        }),
        ToEdge::Revise(_) => ToEdge::ReviseCopy(CopyRevision {
            window,
            message,
            revision: 1,
            earlier: Vec::new(),
            mode: ReviseMode::Replace,
            recipient: 0,
            wrapped_key,
            size: 9,
            comes: true,
            retrieved: false,
        }),
        ToEdge::ReviseCopy(_) => return None,
    })
}

/// One of every kind that big writes.
fn kinds_of_big() -> Vec<ToEdge> {
    let first = ToEdge::Introduction { sealing_key: [1; 32] };
    std::iter::successors(Some(first), next_kind).collect()
}

#[test]
fn an_edge_writes_only_its_own_kinds() {
    let world = World::new();
    let kinds = kinds_of_big();
    assert_eq!(kinds.len(), 16, "every kind is in the row once");
    for kind in kinds {
        let head = encode(&kind);
        let prepared = inbound::prepare(&world.store, &world.site, &head, SealedBody::None);
        // The way decides what bytes are: at most a fact that an edge may write anyway.
        assert!(prepared.is_err() || decode::<ToBig>(&head).is_some(), "{kind:?}");
    }
    for head in [Vec::new(), vec![0], vec![1; 7], vec![255; HEAD_BYTES_MAX]] {
        assert!(inbound::prepare(&world.store, &world.site, &head, SealedBody::None).is_err());
    }
}

/// What big may later send an edge because of a unit: no wildcard, so that a new kind needs a row.
fn reveals(unit: &ToBig) -> (&'static str, &'static str) {
    match unit {
        ToBig::Inbound(_) => (
            "Inbound",
            "nothing but what its recipients' own rules and answers send out, revisions of what a traveller has sent, and a report that a recipient is here, if it says that its sender has asked",
        ),
        ToBig::Outcome(_) => {
            ("Outcome", "a report of it to a sender outside, with a message that it was given before")
        }
        ToBig::PopAct(_) => ("PopAct", "nothing"),
        ToBig::WindowClosed { .. } => {
            ("WindowClosed", "the window and its copies again, where its end had been put off meanwhile")
        }
        ToBig::WindowUsed { .. } => ("WindowUsed", "nothing"),
        ToBig::Guessing { .. } => ("Guessing", "nothing"),
        ToBig::DirectoryCompared(_) => {
            ("DirectoryCompared", "parts of its own directory, as they were queued for it before")
        }
        ToBig::Inventory(_) => ("Inventory", "nothing"),
        ToBig::AggregateReport(_) => {
            ("AggregateReport", "its own counts, as a signed report to the addresses that it names")
        }
        ToBig::Revised(_) => ("Revised", "a notice to those outside who had the message already"),
    }
}

fn outcome(at: u64, text: &str) -> Outcome {
    Outcome {
        message: id(1),
        recipient: 0,
        state: shared::unit::DeliveryState::Failed,
        at,
        host: Some(text.into()),
        tls: None,
        relay: None,
        text: text.into(),
        status: text.into(),
        in_doubt: true,
        host_reports: false,
        next_attempt_at: Some(at),
    }
}

fn revised() -> Revised {
    let result = ReviseResult::Replaced;
    Revised { message: id(1), recipient: 0, revision: 1, result, at: NOW, text: String::new() }
}

#[test]
fn the_document_says_of_every_unit_what_it_can_reveal() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../link-proto/docs/PROTOCOL.md");
    let document = std::fs::read_to_string(path).expect("is beside the crates");
    let inbound = Inbound {
        message: id(1),
        wrapped_key: Vec::new(),
        sealed_origin: Vec::new(),
        origin_digest: [0; 16],
        submitted: None,
        filed: Vec::new(),
    };
    let act = PopAct { window: id(1), message: id(2), revision: 0, retrieved: true, deleted: true, at: NOW };
    let units = [
        ToBig::Inbound(inbound),
        ToBig::Outcome(outcome(NOW, "")),
        ToBig::PopAct(act),
        ToBig::WindowClosed { window: id(1), until: None },
        ToBig::WindowUsed { window: id(1), at: NOW },
        ToBig::Guessing { networks: 1, accounts: 2 },
        ToBig::DirectoryCompared(DirectoryCompared { differs: None }),
        ToBig::Inventory(Inventory { asked: id(1), holdings: Vec::new(), last: true, cut: false }),
        ToBig::AggregateReport(Box::new(super::aggregate::report("remote.example", &["tls@remote.example"]))),
        ToBig::Revised(revised()),
    ];
    for unit in &units {
        let (kind, revealed) = reveals(unit);
        let row = format!("| {kind} | {revealed} |");
        assert!(document.contains(&row), "PROTOCOL.md has no row `{row}`");
        for word in ["mailbox", "search", "file", "request"] {
            assert!(!format!("{kind} {revealed}").to_lowercase().contains(word), "{row}");
        }
    }
}

#[test]
fn absurd_times_names_and_numbers_are_borne() {
    let year_9999 = 253_402_300_799_000;
    for at in [0, 1, year_9999, u64::MAX] {
        let world = World::new();
        // A message of ours, so that the outcome is looked at.
        let window = world.window("alice").window.window;
        let sent = Letter::submitted(window, "alice@example.com", "carol@remote.example");
        let mut origin = sent.origin();
        origin.accepted_at = at;
        origin.recipients[0].original = Some("rfc822;a\0b\r\nX: y".into());
        let (head, sealed) = sent.seal(&world, &origin, Some(window));
        // Late or not, it is an answer and no panic.
        let taken = world.apply(&head, Some(&sealed));
        let words = "no\0\r\nBcc: everybody\u{202e}".repeat(5_000);
        let mut told = outcome(at, &words);
        told.message = sent.id.0;
        let told = world.apply(&ToBig::Outcome(told), None);
        assert_eq!(taken.is_ok(), told.is_ok(), "{at}: {taken:?} {told:?}");
        let rows = world.store.read().expect("reads");
        for step in shared::trace::steps(&rows, "big", sent.id).expect("reads") {
            assert!(step.what.len() < 8 * 1024, "{at}");
            assert!(!shared::render::moment(step.at).is_empty());
        }
    }
}

#[test]
fn many_recipients_with_absurd_names_are_one_undeliverable_message() {
    let world = World::new();
    let letter = Letter::new("carol@remote.example", "alice@example.com");
    let mut origin = letter.origin();
    let one = origin.recipients[0].clone();
    // As many as a head may carry, and more.
    origin.recipients = (0..20_000)
        .map(|number| {
            let mut one = one.clone();
            one.address = format!("../{number}\0@example.com");
            one
        })
        .collect();
    let (head, sealed) = letter.seal(&world, &origin, None);
    assert!(encode(&head).len() > HEAD_BYTES_MAX, "a million would never cross");
    assert_eq!(world.apply(&head, Some(&sealed)), Ok(()));
    assert_eq!(
        world.entry("alice", letter.id).map(|(folder, _)| folder),
        Some(crate::record::Folder::Undeliverable)
    );
    let steps = shared::trace::steps(&world.store.read().expect("reads"), "big", letter.id).expect("reads");
    assert!(steps.iter().all(|step| step.what.len() < 8 * 1024), "what is noted is cut");
}

#[test]
fn the_same_message_with_other_content_changes_nothing() {
    let world = World::new();
    let letter = Letter::new("carol@remote.example", "alice@example.com");
    assert_eq!(letter.send(&world), Ok(()));
    let mut other = Letter::new("mallory@remote.example", "bob@example.com");
    other.id = letter.id;
    other.content = b"From: mallory@remote.example\r\n\r\nanother\r\n".to_vec();
    assert_eq!(other.send(&world), Ok(()), "a repeat, as far as anybody can know");
    assert!(world.entry("bob", letter.id).is_none());
    let message = world
        .store
        .read()
        .and_then(|rows| rows.get::<crate::record::Message>(crate::record::MESSAGES, &letter.id.0));
    assert_eq!(
        message.expect("reads").expect("is there").origin.body,
        *blake3::hash(&letter.content).as_bytes()
    );
}
