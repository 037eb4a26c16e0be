//! What an edge may bring and what it may not, applied to a store in memory.

mod aggregate;
mod compare;
mod conversation;
mod delay;
mod dkim;
mod gateway;
mod hostile;
mod inventory;
mod notify;
mod privacy;
mod redirect;
mod revise;
mod travel_windows;

use std::sync::Arc;
use std::time::Duration;

use link_proto::host::{Host as _, Settling};
use link_proto::unit::{Lane, Position};
use shared::id::MessageId;
use shared::inventory::origin_digest;
use shared::lane::{self, Arrival};
use shared::mime::HeaderFacts;
use shared::origin::{Channel, Mailbox, Origin, OriginalRecipient};
use shared::seal::{BodySealer, FileKey, PrivateKey, Unwrapper, Wrappers};
use shared::store::sim::{Faults, SimDisk};
use shared::store::{Row, Rows, Store, Txn};
use shared::tls_wish::TlsWish;
use shared::topology::{AttachmentMode, Reports};
use shared::unit::{DeliveryState, Id, Inbound, Outcome, PopAct, ToBig, ToEdge, decode, encode};
use tokio::task::block_in_place;

use crate::directory::{self, NewGroup, NewPerson, NewShadow, Policy, RECORD_KIND, srs};
use crate::error::Refused;
use crate::gateway::queue::UnderWay;
use crate::inbound::{self, SealedBody};
use crate::link::LinkHost;
use crate::mail::{self, Site};
use crate::pressure::Pressure;
use crate::reconcile;
use crate::record::{
    AfterFetch, EDGE, EdgeRow, Entry, Folder, MESSAGES, Message, Person, Pop3, RECIPIENTS, Recipient, Record,
    WINDOWS, WindowRow, WindowState,
};
use crate::request::Terms;
use crate::travel::{self, NewWindow};

const NOW: u64 = 1_800_000_000_000;

struct World {
    store: Store,
    site: Arc<Site>,
}

impl World {
    /// A big node with alice, bob and a paired edge.
    fn new() -> Self {
        Self::on(SimDisk::new(Faults::default()))
    }

    fn on(disk: SimDisk) -> Self {
        let (sealing, _) = PrivateKey::generate();
        let (edge, edge_key) = PrivateKey::generate();
        drop(edge);
        let site = Site {
            policy: Policy {
                domains: vec!["example.com".parse().expect("a domain")],
                postmaster: "alice".into(),
                catch_all: std::collections::BTreeMap::new(),
                edge: "mx.example.com".into(),
                srs_key: srs::Key([8; 32]),
            },
            filing: AttachmentMode::BreakApart,
            sealing: Unwrapper::new(sealing),
            wrappers: Wrappers::default(),
            outbound_secret: [5; 32],
            dkim: crate::dkim::Signers::default(),
            content_bytes_max: 1_000_000,
            follow_up: true,
            reports: Reports::default(),
            under_way: UnderWay::default(),
        };
        let store = Store::open(Arc::new(disk)).expect("opens");
        let world = Self { store, site: Arc::new(site) };
        let row = EdgeRow { sealing_key: edge_key.0, directory_key: [6; 32] };
        world.store.commit_blocking(move |txn| txn.put(EDGE, b"edge", &row)).expect("commits");
        ["alice", "bob"].into_iter().for_each(|name| drop(world.person(name)));
        world
    }

    fn person(&self, name: &str) -> Person {
        let new = NewPerson { name: name.into(), ..NewPerson::default() };
        self.add_person(new)
    }

    fn add_person(&self, new: NewPerson) -> Person {
        let person = directory::new_person(&self.store.read().expect("reads"), &self.site.policy, new, NOW)
            .expect("a good person");
        self.add(Record::Person(person.clone()));
        person
    }

    fn add(&self, record: Record) {
        let writer = self.store.body_writer(record.key(), RECORD_KIND);
        let kept = writer.finish(record.encode()).expect("writes");
        self.store.commit_blocking(move |txn| directory::add(txn, &record, Some(&kept))).expect("is new");
    }

    fn remove(&self, name: &'static str) -> Result<(), Refused> {
        let (record, site) = (Record::Person(self.known(name)), Arc::clone(&self.site));
        let removed =
            self.store.commit_blocking(move |txn| directory::remove(txn, &site.policy, &record, NOW));
        removed.map(drop)
    }

    /// As if [site] postmaster named somebody else.
    fn site_with_postmaster(&mut self, name: &str) {
        let site = Arc::get_mut(&mut self.site).expect("nothing runs");
        site.policy.postmaster = name.into();
    }

    fn known(&self, name: &str) -> Person {
        directory::by_name(&self.store.read().expect("reads"), name).expect("is there")
    }

    fn window(&self, person: &str) -> WindowRow {
        self.travel(person, Terms { after_fetch: AfterFetch::Delete, ..Terms::default() }).expect("opens").0
    }

    fn travel(&self, person: &str, terms: Terms) -> Result<(WindowRow, usize), Refused> {
        let (key, _, credential) = travel::credentials(&self.site);
        let new = NewWindow { person: person.into(), terms, key, credential };
        let site = Arc::clone(&self.site);
        let started = self.store.commit_blocking(move |txn| travel::start(txn, &site, new, NOW));
        started.map(shared::store::Committed::into_inner)
    }

    /// What applying a unit from the edge comes to.
    fn apply(&self, head: &ToBig, sealed: Option<&[u8]>) -> Result<(), String> {
        self.apply_at(head, sealed, NOW)
    }

    fn apply_at(&self, head: &ToBig, sealed: Option<&[u8]>, now: u64) -> Result<(), String> {
        let body = sealed.map_or(SealedBody::None, SealedBody::Inline);
        let prepared = inbound::prepare(&self.store, &self.site, &encode(head), body);
        let prepared = prepared.map_err(|error| format!("refused before the commit: {error}"))?;
        let (site, bytes) = (Arc::clone(&self.site), encode(head));
        let (id, after) = match head {
            ToBig::Inbound(inbound) => (inbound.message, None),
            ToBig::PopAct(act) => (MessageId::generate().0, Some(act.message)),
            ToBig::Outcome(_)
            | ToBig::WindowClosed { .. }
            | ToBig::WindowUsed { .. }
            | ToBig::Guessing { .. }
            | ToBig::DirectoryCompared(_)
            | ToBig::Inventory(_)
            | ToBig::AggregateReport(_)
            | ToBig::Revised(_) => (MessageId::generate().0, None),
        };
        let alone = sealed.is_none();
        let applied = self.store.commit_blocking(move |txn| {
            let arrival = Arrival { lane: 1, number: 1, id, after, alone: alone.then_some(&*bytes) };
            let known = |txn: &Txn<'_>, id: &[u8; 16]| mail::is_known(txn, MessageId(*id));
            let apply = |txn: &mut Txn<'_>| inbound::apply(txn, &site, prepared, now);
            lane::take(txn, arrival, now, known, apply, |txn, parked| {
                inbound::apply_alone(txn, &site, &parked.head, now)
            })
        });
        match applied.expect("commits").into_inner() {
            None => Ok(()),
            Some(row) if row.later => Err(format!("later: {}", row.reason)),
            Some(row) => Err(row.reason),
        }
    }

    fn entry(&self, person: &str, id: MessageId) -> Option<(Folder, Entry)> {
        mail::entry(&self.store.read().expect("reads"), &self.known(person).id, id).expect("reads")
    }

    /// The heads of all units that wait for the edge.
    fn queued(&self) -> Vec<ToEdge> {
        let snapshot = self.store.read().expect("reads");
        let units = (0..4).flat_map(|lane| lane::units(&snapshot, lane, 1, usize::MAX).expect("reads"));
        units.filter_map(|(_, unit)| decode(&unit.head)).collect()
    }
}

/// A message as an edge seals it.
struct Letter {
    id: MessageId,
    channel: Channel,
    from: &'static str,
    to: &'static str,
    in_reply_to: Option<String>,
    tls_wish: TlsWish,
    content: Vec<u8>,
}

impl Letter {
    fn new(from: &'static str, to: &'static str) -> Self {
        let channel = Channel::Reception { helo: "mx".into(), client: "192.0.2.1".into(), tls: false };
        let content = format!("From: {from}\r\nTo: {to}\r\nSubject: s\r\n\r\ntext\r\n").into_bytes();
        Self {
            id: MessageId::generate(),
            channel,
            from,
            to,
            in_reply_to: None,
            tls_wish: TlsWish::Unsaid,
            content,
        }
    }

    fn submitted(window: Id, from: &'static str, to: &'static str) -> Self {
        Self { channel: Channel::Submission { window }, ..Self::new(from, to) }
    }

    /// A rebuild finds it.
    fn is_found(&self, world: &World) {
        let (id, origin, policy) = (self.id, self.origin(), world.site.policy.clone());
        let body = shared::store::BodyKey(origin.body);
        let mut writer = world.store.body_writer(body, inbound::BODY_KIND);
        writer.write(&shared::chunk::encode_all(&self.content)).expect("writes");
        let kept = writer.finish(inbound::rebuild_notes(id, &origin)).expect("writes");
        let restored = world.store.commit_blocking(move |txn| {
            txn.keep_body(&kept)?;
            mail::restore(txn, id, origin, body, &policy)
        });
        restored.expect("commits");
    }

    fn origin(&self) -> Origin {
        let facts = HeaderFacts::of(&self.content);
        let from =
            facts.from.into_iter().map(|m| Mailbox { name: String::new(), address: m.address }).collect();
        Origin {
            channel: self.channel.clone(),
            accepted_at: NOW,
            reverse_path: (!self.from.is_empty()).then(|| self.from.into()),
            recipients: vec![OriginalRecipient::new(self.to)],
            envelope_id: None,
            tls_wish: self.tls_wish,
            return_content: None,
            from,
            reply_to: Vec::new(),
            sender: Vec::new(),
            mail_followup_to: Vec::new(),
            to: Vec::new(),
            cc: Vec::new(),
            message_id: Some(format!("{}@test", self.id)),
            in_reply_to: self.in_reply_to.clone().into_iter().collect(),
            references: Vec::new(),
            subject: "s".into(),
            language: None,
            automatic: false,
            verdicts: Vec::new(),
            body_8bit: false,
            utf8_header: false,
            trace_bytes: 0,
            size: self.content.len() as u64,
            body: *blake3::hash(&self.content).as_bytes(),
        }
    }

    fn seal(&self, world: &World, origin: &Origin, submitted: Option<Id>) -> (ToBig, Vec<u8>) {
        let (key, big) = (FileKey::generate(), world.site.sealing.public());
        let wrapped_key = world.site.wrappers.wrap(&key, &big, self.id, Duration::ZERO).expect("wraps");
        let (mut sealer, mut sealed) = (BodySealer::new(&key), Vec::new());
        sealer.push(&self.content, &mut sealed);
        sealer.finish(&mut sealed);
        let head = ToBig::Inbound(Inbound {
            message: self.id.0,
            wrapped_key,
            sealed_origin: key.seal_note(&origin.encode()),
            origin_digest: origin_digest(&[6; 32], origin),
            submitted,
            filed: Vec::new(),
        });
        (head, sealed)
    }

    fn send_filed(&self, world: &World, windows: Vec<Id>) -> Result<(), String> {
        let (mut head, sealed) = self.seal(world, &self.origin(), None);
        if let ToBig::Inbound(inbound) = &mut head {
            inbound.filed = windows;
        }
        world.apply(&head, Some(&sealed))
    }

    fn send(&self, world: &World) -> Result<(), String> {
        self.send_at(world, NOW)
    }

    /// Its unit comes to big at that time.
    fn send_at(&self, world: &World, now: u64) -> Result<(), String> {
        let submitted = match self.channel {
            Channel::Submission { window } => Some(window),
            _ => None,
        };
        let (head, sealed) = self.seal(world, &self.origin(), submitted);
        world.apply_at(&head, Some(&sealed), now)
    }
}

#[test]
fn mail_is_filed_once_however_often_it_comes() {
    let world = World::new();
    let letter = Letter::new("carol@remote.example", "alice+list@example.com");
    assert_eq!(letter.send(&world), Ok(()));
    assert_eq!(letter.send(&world), Ok(()), "a repeat is no error");
    let (folder, entry) = world.entry("alice", letter.id).expect("is filed");
    assert_eq!((folder, entry.read), (Folder::In, false));
    assert!(world.entry("bob", letter.id).is_none());
    let message = world.store.read().and_then(|s| s.get::<Message>(MESSAGES, &letter.id.0)).expect("reads");
    let body = world.store.body(message.as_ref().expect("is there").body()).expect("is kept");
    assert_eq!(mail::content(body, &message.expect("is there"), 1000).expect("is whole"), letter.content);
}

#[test]
fn a_vanished_recipient_is_not_silence() {
    let world = World::new();
    let letter = Letter::new("carol@remote.example", "gone@example.com");
    assert_eq!(letter.send(&world), Ok(()));
    let (folder, _) = world.entry("alice", letter.id).expect("the postmaster has it");
    assert_eq!(folder, Folder::Undeliverable);
}

#[test]
fn without_a_postmaster_nothing_is_dropped() {
    let mut world = World::new();
    world.site_with_postmaster("nobody");
    let letter = Letter::new("carol@remote.example", "gone@example.com");
    let text = letter.send(&world).expect_err("waits for the mend");
    assert!(text.starts_with("later") && text.contains("postmaster"), "{text}");
    world.site_with_postmaster("alice");
    assert!(world.remove("alice").is_err(), "the postmaster stays");
}

#[test]
fn who_is_removed_travels_no_more() {
    let world = World::new();
    let window = world.window("bob").window.window;
    world.remove("bob").expect("is removed");
    let row = world.store.read().and_then(|s| s.get::<WindowRow>(WINDOWS, &window)).expect("reads");
    assert_eq!(row.map(|row| (row.state, row.revoked)), Some((WindowState::Ending, true)));
    assert!(world.queued().contains(&ToEdge::WindowEnd { window }));
}

#[test]
fn a_body_goes_with_its_last_entry() {
    let world = World::new();
    let alice = world.known("alice");
    let letter =
        Letter::submitted(world.window("alice").window.window, "alice@example.com", "alice@example.com");
    letter.send(&world).expect("is sent to oneself");
    let body = shared::store::BodyKey(letter.origin().body);
    // In and Sent to one Trash, then from Trash away; a copy for the window holds it too.
    for held in [true, true, true] {
        assert_eq!(world.store.body(body).is_ok(), held);
        let (alice, id) = (alice.clone(), letter.id);
        world.store.commit_blocking(move |txn| mail::delete(txn, &alice, id, NOW)).expect("is deleted");
    }
    let snapshot = world.store.read().expect("reads");
    let queued = (0..4).flat_map(|lane| lane::units(&snapshot, lane, 1, 100).expect("reads"));
    for key in queued.filter_map(|(_, unit)| unit.body.key()) {
        let release = move |txn: &mut Txn<'_>| txn.release_body(shared::store::BodyKey(key));
        world.store.commit_blocking(release).expect("commits");
    }
    assert!(world.store.body(body).is_err(), "nothing holds it any more");
}

#[test]
fn what_was_sent_with_the_null_reverse_path_is_its_authors_also_behind_a_rebuild() {
    let (world, rebuilt) = (World::new(), World::new());
    let window = world.window("alice").window.window;
    let read = Letter { from: "", ..Letter::submitted(window, "alice@example.com", "carol@remote.example") };
    read.send(&world).expect("is sent");
    read.is_found(&rebuilt);
    for world in [&world, &rebuilt] {
        let (rows, alice) = (world.store.read().expect("reads"), world.known("alice").id);
        let message = rows.get::<Message>(MESSAGES, &read.id.0).expect("reads").expect("is there");
        assert!(message.origin.reverse_path.is_none());
        assert_eq!(mail::author_of(&rows, &message).expect("reads"), Some(alice));
        let entry = mail::entry(&rows, &alice, read.id).expect("reads");
        assert!(entry.is_some_and(|(folder, _)| folder == Folder::Sent));
    }
    // What From says is not the edge's to choose.
    let mut forged = read.origin();
    forged.from[0].address = "bob@example.com".into();
    let another = Letter { id: MessageId::generate(), ..read };
    let (head, sealed) = another.seal(&world, &forged, Some(window));
    assert!(world.apply(&head, Some(&sealed)).is_err());
}

#[test]
fn an_edge_cannot_speak_for_anybody_inside() {
    let world = World::new();
    let person = world.known("alice").id;
    let desk =
        Letter { channel: Channel::Desk { person }, ..Letter::new("alice@example.com", "bob@example.com") };
    assert!(desk.send(&world).expect_err("refused").contains("its channel is not one"));
    let report = Letter { channel: Channel::Report, ..Letter::new("alice@example.com", "bob@example.com") };
    assert!(report.send(&world).is_err());
    // A submission through a window that big has not opened, or with a channel that says otherwise.
    assert!(Letter::submitted([9; 16], "alice@example.com", "bob@example.com").send(&world).is_err());
    let window = world.window("alice").window.window;
    let honest = Letter::submitted(window, "alice@example.com", "bob@example.com");
    let (head, sealed) = honest.seal(&world, &honest.origin(), None);
    assert!(world.apply(&head, Some(&sealed)).is_err());
    for from in ["bob@example.com", "carol@remote.example"] {
        let text = Letter::submitted(window, from, "bob@example.com").send(&world).expect_err("refused");
        assert!(text.contains("not sent as its author"), "{text}");
    }
    // From another than the reverse-path.
    let mut forged = Letter::submitted(window, "alice@example.com", "bob@example.com");
    forged.content = b"From: bob@example.com\r\n\r\ntext\r\n".to_vec();
    assert!(forged.send(&world).is_err());
    forged.from = "";
    assert!(forged.send(&world).is_err(), "nor is the null reverse-path a way around that");
    assert!(world.entry("bob", honest.id).is_none() && world.entry("bob", forged.id).is_none());
}

#[test]
fn a_body_that_is_not_what_its_origin_says_is_refused() {
    let world = World::new();
    let letter = Letter::new("carol@remote.example", "alice@example.com");
    let good = letter.origin();
    for wrong in [
        Origin { size: good.size + 1, ..good.clone() },
        Origin { size: good.size - 1, ..good.clone() },
        Origin { body: [0; 32], ..good.clone() },
    ] {
        let (head, sealed) = letter.seal(&world, &wrong, None);
        assert!(world.apply(&head, Some(&sealed)).is_err());
    }
    let (head, sealed) = letter.seal(&world, &good, None);
    assert!(world.apply(&head, None).is_err());
    for at in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        assert!(world.apply(&head, Some(&flipped)).is_err(), "byte {at}");
    }
    assert_eq!(world.apply(&head, Some(&sealed)), Ok(()));
}

#[test]
fn a_traveller_sends_and_the_answer_ties_to_its_original() {
    let world = World::new();
    let window = world.window("alice").window.window;
    let from_bob = Letter::new("carol@remote.example", "alice@example.com");
    from_bob.send(&world).expect("is filed");
    let mut answer = Letter::submitted(window, "alice@example.com", "carol@remote.example");
    answer.in_reply_to = Some(format!("{}@test", from_bob.id));
    assert_eq!(answer.send(&world), Ok(()));
    let (folder, sent) = world.entry("alice", answer.id).expect("is in Sent");
    assert_eq!((folder, sent.read, sent.late), (Folder::Sent, true, false));
    assert!(world.entry("alice", from_bob.id).expect("is there").1.answered);
    let outbound = world.queued().into_iter().filter(|unit| matches!(unit, ToEdge::Outbound(_))).count();
    assert_eq!(outbound, 1);
    let row =
        world.store.read().and_then(|s| s.get::<Recipient>(RECIPIENTS, &mail::recipient_key(answer.id, 0)));
    assert_eq!(row.expect("reads").expect("is there").state, DeliveryState::Queued);
}

#[test]
fn after_the_end_a_submission_is_late_and_after_a_revocation_it_is_nothing() {
    for revoke in [false, true] {
        let world = World::new();
        let window = world.window("alice").window.window;
        world.store.commit_blocking(move |txn| travel::end(txn, "alice", revoke, NOW)).expect("ends");
        let letter = Letter::submitted(window, "alice@example.com", "bob@example.com");
        assert_eq!(letter.send(&world).is_ok(), !revoke);
        assert_eq!(world.entry("alice", letter.id).map(|(_, entry)| entry.late), (!revoke).then_some(true));
        assert_eq!(world.apply(&ToBig::WindowClosed { window, until: None }, None), Ok(()));
        let row = world.store.read().and_then(|s| s.get::<WindowRow>(WINDOWS, &window)).expect("reads");
        assert_eq!(row.expect("is there").state, WindowState::Ended);
        // Events overtake mail: that the edge has closed the window does not make what it held void.
        let letter = Letter::submitted(window, "alice@example.com", "bob@example.com");
        assert_eq!(letter.send(&world).is_ok(), !revoke);
    }
}

fn outcome(message: [u8; 16], state: DeliveryState) -> ToBig {
    ToBig::Outcome(Outcome {
        message,
        recipient: 0,
        state,
        at: NOW,
        host: None,
        tls: None,
        relay: None,
        text: "so it is".into(),
        status: "5.0.0".into(),
        in_doubt: false,
        host_reports: false,
        next_attempt_at: None,
    })
}

#[test]
fn facts_about_what_is_not_ours_are_refused_and_early_ones_wait_for_their_message() {
    let world = World::new();
    let window = world.window("alice").window.window;
    assert!(world.apply(&outcome([1; 16], DeliveryState::Failed), None).is_err());
    let act = |window, message: MessageId| {
        ToBig::PopAct(PopAct {
            window,
            message: message.0,
            revision: 0,
            retrieved: true,
            deleted: true,
            at: NOW,
        })
    };
    let letter = Letter::new("carol@remote.example", "alice@example.com");
    // They overtook their message, which says into which window it was filed.
    assert_eq!(world.apply(&act([9; 16], letter.id), None), Ok(()));
    assert_eq!(world.apply(&act(window, letter.id), None), Ok(()));
    letter.send_filed(&world, vec![window]).expect("is filed");
    let dead = lane::dead_letters(&world.store.read().expect("reads"), 10).expect("reads");
    assert!(dead.len() == 1 && dead[0].inbound, "there is no such window: {dead:?}");
    assert_eq!(
        world.entry("alice", letter.id).map(|(folder, _)| folder),
        Some(Folder::Trash),
        "--after-fetch delete"
    );
    // An edge cannot reach mail that was not filed into the window it names.
    let for_bob = Letter::new("carol@remote.example", "bob@example.com");
    for_bob.send(&world).expect("is filed");
    assert!(world.apply(&act(window, for_bob.id), None).is_err());
    assert_eq!(world.entry("bob", for_bob.id).map(|(folder, _)| folder), Some(Folder::In));
    assert!(world.apply(&ToBig::WindowClosed { window, until: None }, None).is_err(), "it is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_who_waits_is_told_anew_and_never_replayed() {
    let world = block_in_place(World::new);
    let window = block_in_place(|| world.window("alice")).window.window;
    let [left, waits] = ["one@remote.example", "two@remote.example"].map(|to| {
        let letter = Letter::submitted(window, "alice@example.com", to);
        block_in_place(|| letter.send(&world)).expect("is sent");
        letter.id
    });
    // The edge was restored, and was told of both; then the first one left, and now it is restored again.
    let site = Arc::clone(&world.site);
    let told = world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await;
    told.expect("commits");
    let relayed = outcome(left.0, DeliveryState::Relayed);
    assert_eq!(block_in_place(|| world.apply(&relayed, None)), Ok(()));
    let pressure = Arc::new(Pressure::new(&world.store, u64::MAX));
    let host = LinkHost::new(world.store.clone(), Arc::clone(&world.site), pressure, Arc::default());
    let settled = host.settle(Lane::Service, Position::default(), Settling::Replay).await.expect("settles");
    let snapshot = world.store.read().expect("reads");
    let units = lane::units(&snapshot, Lane::Service.index(), settled.number + 1, usize::MAX).expect("reads");
    let lists = units.into_iter().filter_map(|(_, unit)| match decode(&unit.head) {
        Some(ToEdge::Unsettled(list)) => Some(list.messages),
        _ => None,
    });
    assert_eq!(lists.collect::<Vec<_>>(), [vec![(waits.0, vec![(0, 0)])]]);
}

#[test]
fn mail_goes_on_with_a_path_that_brings_reports_home() {
    let world = World::new();
    let forward = vec!["both@remote.example".to_owned()];
    world.add_person(NewPerson { name: "both".into(), forward, keep_copy: true, ..NewPerson::default() });
    let outbound = || {
        let units = world.queued().into_iter();
        units.filter_map(|unit| if let ToEdge::Outbound(outbound) = unit { Some(outbound) } else { None })
    };
    let letter = Letter::new("dave@away.example", "both@example.com");
    for _ in 0..2 {
        assert_eq!(letter.send(&world), Ok(()));
    }
    assert_eq!(world.entry("both", letter.id).map(|(folder, _)| folder), Some(Folder::In), "a copy is kept");
    let sent: Vec<_> = outbound().collect();
    assert_eq!(sent.len(), 1, "once, however often it comes");
    assert_eq!(sent[0].recipients, [(0, "both@remote.example".to_owned())]);
    let path = sent[0].reverse_path.clone().expect("is not a report");
    assert!(path.starts_with("srs0+") && path.ends_with("=away.example=dave@example.com"), "{path}");
    let row =
        world.store.read().and_then(|s| s.get::<Recipient>(RECIPIENTS, &mail::recipient_key(letter.id, 0)));
    let row = row.expect("reads").expect("is there");
    assert_eq!((row.state, row.via.as_deref()), (DeliveryState::Queued, Some("both@example.com")));

    let report = Letter::new("", Box::leak(path.into_boxed_str()));
    assert_eq!(report.send(&world), Ok(()));
    let home = outbound().find(|unit| unit.message == report.id.0).expect("goes on");
    assert_eq!((home.reverse_path, home.recipients), (None, vec![(0, "dave@away.example".to_owned())]));
    let forged = Letter::new("", "srs0+aaaaaaaa=aa=away.example=dave@example.com");
    assert_eq!(forged.send(&world), Ok(()));
    let folder = world.entry("alice", forged.id).map(|(folder, _)| folder);
    assert_eq!(folder, Some(Folder::Undeliverable), "and leaves nowhere");

    // A person of ours speaks for themselves, wherever their mail goes.
    let own = Letter::new("alice@example.com", "both@example.com");
    own.send(&world).expect("is filed");
    let unit = outbound().find(|unit| unit.message == own.id.0).expect("goes on");
    assert_eq!(unit.reverse_path.as_deref(), Some("alice@example.com"));

    let mut circling = Letter::new("dave@away.example", "both@example.com");
    let passed = "Received: from a.example (a.example [192.0.2.1])\r\n\tby mx.example.com with ESMTP;\r\n";
    circling.content = [passed.repeat(3).as_bytes(), &circling.content].concat();
    circling.send(&world).expect("is filed");
    assert!(world.entry("both", circling.id).is_some());
    assert!(outbound().all(|unit| unit.message != circling.id.0), "it has been here three times");
}

#[test]
fn a_group_reaches_each_member_once_and_each_shows_in_the_status() {
    let world = World::new();
    let policy = &world.site.policy;
    let shadow =
        NewShadow { name: "carol".into(), target: "carol@remote.example".into(), ..NewShadow::default() };
    world.add(Record::Shadow(
        directory::new_shadow(&world.store.read().expect("reads"), policy, shadow, NOW).expect("a shadow"),
    ));
    let new = NewGroup { name: "team".into(), ..NewGroup::default() };
    let mut group = directory::new_group(policy, &new, NOW).expect("a group");
    let members = ["alice", "bob", "carol", "x@remote.example"].map(str::to_owned);
    directory::join(&world.store.read().expect("reads"), policy, &mut group, &members).expect("are there");
    world.add(Record::Group(group));

    let window = world.window("bob").window.window;
    let letter = Letter::submitted(window, "bob@example.com", "team@example.com");
    letter.send(&world).expect("is sent");
    let rows = crate::desk::recipients_of(&world.store.read().expect("reads"), letter.id).expect("reads");
    let shown: Vec<_> =
        rows.iter().map(|row| (row.address.as_str(), row.via.as_deref(), row.state)).collect();
    let via = Some("team@example.com");
    assert_eq!(
        shown,
        [
            ("alice@example.com", via, DeliveryState::Delivered),
            ("bob@example.com", via, DeliveryState::Delivered),
            ("carol@remote.example", via, DeliveryState::Queued),
            ("x@remote.example", via, DeliveryState::Queued),
        ]
    );
    for person in ["alice", "bob"] {
        assert!(world.entry(person, letter.id).is_some(), "{person}");
    }
}

#[test]
fn who_may_not_collect_on_the_road_does_not_travel() {
    let world = World::new();
    world.add_person(NewPerson { name: "desk".into(), pop3: Pop3::No, ..NewPerson::default() });
    let refused = world.travel("desk", Terms::default());
    assert!(refused.expect_err("is refused").to_string().contains("--pop3 yes"));
}
