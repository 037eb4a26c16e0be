//! Revisions: the table of design §8, and who may ask for what.

use shared::id::unix_millis;
use shared::lane::QueuedBody;
use shared::mime::{self, Draft, DraftMailbox};
use shared::store::{BodyKey, StoreError};
use shared::tls_wish::TlsWish;
use shared::unit::{REVISIONS_MAX, Revise, ReviseMode, ReviseResult, Revised};

use super::*;
use crate::directory::{NewGateway, Reach};
use crate::folder;
use crate::gateway::queue::{self, Due};
use crate::maintenance;
use crate::node::{incoming, signed};
use crate::record::{
    CONTROLS, COPIES, CopyRow, MAILBOXES, REVISED, REVISIONS, RevisedRow, Revision, UNSETTLED, revised_key,
};
use crate::request::{RevisedView, Status};
use crate::revise::{self, Amendment};

const DAY: u64 = 24 * 3_600_000;
const OUTSIDE: &str = "carol@remote.example";

pub(super) fn amendment(mode: ReviseMode, text: &str) -> Amendment {
    Amendment {
        mode,
        recipients: Vec::new(),
        subject: None,
        reason: None,
        base: None,
        text: text.into(),
        attachments: Vec::new(),
    }
}

/// The same for some recipients.
fn for_some(recipients: &[&str], mode: ReviseMode, text: &str) -> Amendment {
    let recipients = recipients.iter().map(|recipient| (*recipient).to_owned()).collect();
    Amendment { recipients, ..amendment(mode, text) }
}

impl World {
    /// Alice sends a message from her desk.
    pub(super) fn sends(&self, to: &[&str], text: &str) -> MessageId {
        self.sends_with(to, text, TlsWish::Unsaid)
    }

    fn sends_with(&self, to: &[&str], text: &str, tls_wish: TlsWish) -> MessageId {
        let (id, alice) = (MessageId::generate(), self.known("alice"));
        let mailbox =
            |address: &str| DraftMailbox { name: None, address: address.parse().expect("an address") };
        let draft = Draft {
            id,
            from: mailbox("alice@example.com"),
            to: to.iter().map(|address| mailbox(address)).collect(),
            cc: Vec::new(),
            subject: "plans".into(),
            date: 1_800_000_000,
            in_reply_to: None,
            references: Vec::new(),
            text: text.into(),
            attachments: Vec::new(),
            entities: Vec::new(),
        };
        let to = to.iter().map(|address| (*address).to_owned()).collect();
        let channel = Channel::Desk { person: alice.id };
        let path = Some("alice@example.com".to_owned());
        let content = mime::compose(&draft);
        let mut incoming = incoming(&self.store, id, channel, path, to, &content).expect("writes");
        incoming.origin.tls_wish = tls_wish;
        let incoming = signed(&self.store, &self.site, incoming, &content).expect("reads");
        let site = Arc::clone(&self.site);
        let sent =
            self.store.commit_blocking(move |txn| mail::send(txn, &site, incoming, &alice, false, NOW));
        sent.expect("is sent");
        id
    }

    pub(super) async fn amends(&self, by: &str, id: MessageId, what: Amendment) -> Result<Status, String> {
        let by = block_in_place(|| self.known(by));
        let amended = revise::amend(&self.store, &self.site, &by, id, what, |_| Ok(())).await;
        amended.map_err(|refused| refused.to_string())
    }

    fn revised(&self, id: MessageId, recipient: u32) -> Option<RevisedView> {
        revise::results(&self.store.read().expect("reads"), id).expect("reads").remove(&recipient)
    }

    /// What one revision came to for a recipient.
    fn result(&self, id: MessageId, recipient: u32, revision: u32) -> Option<ReviseResult> {
        let rows = self.store.read().expect("reads");
        let row = rows.get::<RevisedRow>(REVISED, &revised_key(id, recipient, revision)).expect("reads");
        row.map(|row| row.result)
    }

    /// The text that a person is shown, and what is said of it; `None` if there is none.
    fn shows(&self, person: &str, id: MessageId) -> Option<(String, Entry)> {
        let (folder, entry) = self.received(person, id)?;
        assert_ne!(folder, Folder::Sent);
        Some((self.text(id, entry.revision), entry))
    }

    fn received(&self, person: &str, id: MessageId) -> Option<(Folder, Entry)> {
        self.entry(person, id).filter(|(folder, _)| *folder != Folder::Sent)
    }

    fn text(&self, id: MessageId, revision: u32) -> String {
        let rows = self.store.read().expect("reads");
        let message = mail::shown(&rows, id, revision).expect("reads").expect("is there");
        let content =
            self.store.body(message.body()).and_then(|reader| mail::content(reader, &message, 1 << 20));
        mime::text_of(&content.expect("is whole")).trim().to_owned()
    }

    fn reads(&self, person: &str, id: MessageId) {
        let person = self.known(person).id;
        let (_, entry) =
            mail::entry(&self.store.read().expect("reads"), &person, id).expect("reads").expect("has it");
        let read = move |txn: &mut Txn<'_>| mail::read(txn, &person, id, entry.revision);
        assert!(*self.store.commit_blocking(read).expect("commits"));
    }

    fn deletes(&self, person: &str, id: MessageId) {
        let person = self.known(person);
        self.store.commit_blocking(move |txn| mail::delete(txn, &person, id, NOW)).expect("has it");
    }

    pub(super) fn told(&self, id: MessageId, recipient: u32, state: DeliveryState) {
        let outcome = Outcome {
            message: id.0,
            recipient,
            state,
            at: NOW,
            host: Some("mx.remote.example".into()),
            tls: Some("TLS 1.3".into()),
            relay: None,
            text: "250 fine".into(),
            status: "2.0.0".into(),
            in_doubt: false,
            host_reports: false,
            next_attempt_at: None,
        };
        self.apply(&ToBig::Outcome(outcome), None).expect("is recorded");
    }

    pub(super) fn reports(
        &self,
        id: MessageId,
        recipient: u32,
        revision: u32,
        result: ReviseResult,
    ) -> Result<(), String> {
        let revised = Revised { message: id.0, recipient, revision, result, at: NOW, text: String::new() };
        self.apply(&ToBig::Revised(revised), None)
    }

    pub(super) async fn keeps_house(&self) {
        let postmaster = "postmaster@example.com".parse().expect("an address");
        revise::control::carry_out(&self.store, &self.site, &postmaster).await.expect("is done");
        revise::notice::write_owed(&self.store, &self.site).await.expect("is done");
    }

    fn revisions_for_edge(&self) -> Vec<Revise> {
        let units = self.queued().into_iter();
        units.filter_map(|unit| if let ToEdge::Revise(revise) = unit { Some(revise) } else { None }).collect()
    }
}

/// Where the copy is when it is revised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Unread,
    Read,
    /// Read, and marked unread again since.
    ReadOnce,
    UnreadInTrash,
    DeletedForGood,
    /// With an open window: what the edge reports, and whether it is read at home.
    OnTheRoad(ReviseResult, bool),
    /// Waits outside; what the edge reports.
    Outside(ReviseResult),
    /// The edge has reported that it has left.
    Left,
    Bounced,
    Handover,
    /// An attempt by the gateway is under way, which ends so.
    BeingHandedOver(DeliveryState),
    HandedOver,
}

impl Place {
    fn recipient(self) -> &'static str {
        match self {
            Self::Outside(_) | Self::Left | Self::Bounced => OUTSIDE,
            Self::Handover | Self::BeingHandedOver(_) | Self::HandedOver => "dora@legacy.example",
            _ => "bob@example.com",
        }
    }
}

impl Place {
    /// Whether that is the same row of the table, whatever the edge says of it: what it may say depends on what is done.
    fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::OnTheRoad(_, read), Self::OnTheRoad(_, other)) => read == other,
            (Self::Outside(_), Self::Outside(_)) => true,
            _ => self == other,
        }
    }
}

fn due(message: MessageId) -> Due {
    Due { gateway: "inside".into(), message, revision: 0 }
}

/// What the attempt of the gateway brings.
fn handed_over(world: &World, id: MessageId, state: DeliveryState) {
    use shared::smtp::Enhanced;
    use shared::smtp::client::{Class, Status};
    let class = if state == DeliveryState::Relayed { Class::Delivered } else { Class::Temporary };
    let status = Status::ours(class, Enhanced(2, 0, 0), "said");
    let report = queue::Report { recipient: 0, status, host: None, tls: None, host_reports: false };
    let site = Arc::clone(&world.site);
    let recorded =
        world.store.commit_blocking(move |txn| queue::record(txn, &site, &due(id), vec![report], NOW));
    recorded.expect("commits");
}

/// Brings the message to its place, revises it there, and lets happen what was under way.
async fn play(world: &World, place: Place, mode: ReviseMode) -> MessageId {
    let id = block_in_place(|| {
        if matches!(place, Place::OnTheRoad(..)) {
            world.window("bob");
        }
        let id = world.sends(&[place.recipient()], "old");
        match place {
            Place::Read | Place::OnTheRoad(_, true) => world.reads("bob", id),
            Place::ReadOnce => {
                world.reads("bob", id);
                let bob = world.known("bob").id;
                let unread = move |txn: &mut Txn<'_>| mail::mark(txn, &bob, id, |entry| entry.read = false);
                world.store.commit_blocking(unread).expect("commits");
            }
            Place::UnreadInTrash => world.deletes("bob", id),
            Place::DeletedForGood => (0..2).for_each(|_| world.deletes("bob", id)),
            Place::Left => world.told(id, 0, DeliveryState::Relayed),
            Place::Bounced => world.told(id, 0, DeliveryState::Failed),
            Place::HandedOver => handed_over(world, id, DeliveryState::Relayed),
            Place::BeingHandedOver(_) => assert!(world.site.under_way.begin(&due(id))),
            _ => {}
        }
        id
    });
    let status = world.amends("alice", id, amendment(mode, "new")).await.expect("is revised");
    let revised = status.recipients[0].revised.as_ref().expect("is said");
    assert_eq!(revised.revision, 1);
    block_in_place(|| match place {
        Place::OnTheRoad(result, _) | Place::Outside(result) => {
            assert_eq!(revised.result, ReviseResult::Pending, "{place:?}: the edge decides");
            if result == ReviseResult::TooLate && place.recipient() == OUTSIDE {
                world.told(id, 0, DeliveryState::Relayed);
            }
            assert_eq!(world.reports(id, 0, 1, result), Ok(()));
        }
        Place::BeingHandedOver(state) => {
            assert_eq!(revised.result, ReviseResult::Pending, "{place:?}: the attempt decides");
            handed_over(world, id, state);
        }
        _ => {}
    });
    world.keeps_house().await;
    id
}

/// Every cell: where the copy is, what is done, what it comes to, and what is then read there (`None`: nothing).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_table() {
    use ReviseMode::{Append, Replace, Withdraw};
    use ReviseResult::{NoticeSent, Replaced, Revised, TooLate, Withdrawn};
    let notice = Some("alice has withdrawn this message on");
    let cells = [
        (Place::Unread, Replace, Replaced, Some("new")),
        (Place::Unread, Append, Replaced, Some("old\n\n[Added on")),
        (Place::Unread, Withdraw, Withdrawn, None),
        (Place::Read, Replace, Revised, Some("new")),
        (Place::Read, Append, Revised, Some("old\n\n[Added on")),
        (Place::Read, Withdraw, Revised, notice),
        (Place::ReadOnce, Replace, Revised, Some("new")),
        (Place::ReadOnce, Append, Revised, Some("old\n\n[Added on")),
        (Place::ReadOnce, Withdraw, Revised, notice),
        (Place::UnreadInTrash, Replace, Replaced, Some("new")),
        (Place::UnreadInTrash, Append, Replaced, Some("old\n\n[Added on")),
        (Place::UnreadInTrash, Withdraw, Withdrawn, None),
        (Place::DeletedForGood, Replace, TooLate, None),
        (Place::DeletedForGood, Append, TooLate, None),
        (Place::DeletedForGood, Withdraw, TooLate, None),
        (Place::OnTheRoad(Replaced, false), Replace, Replaced, Some("new")),
        (Place::OnTheRoad(Replaced, false), Append, Replaced, Some("old\n\n[Added on")),
        (Place::OnTheRoad(Replaced, true), Append, Revised, Some("old\n\n[Added on")),
        (Place::OnTheRoad(Revised, false), Replace, Revised, Some("new")),
        (Place::OnTheRoad(Revised, true), Replace, Revised, Some("new")),
        (Place::OnTheRoad(Revised, true), Append, Revised, Some("old\n\n[Added on")),
        (Place::OnTheRoad(Revised, true), Withdraw, Revised, notice),
        (Place::OnTheRoad(Revised, false), Append, Revised, Some("old\n\n[Added on")),
        (Place::OnTheRoad(Replaced, true), Replace, Revised, Some("new")),
        (Place::OnTheRoad(TooLate, false), Replace, Replaced, Some("new")),
        (Place::OnTheRoad(TooLate, true), Replace, Revised, Some("new")),
        (Place::OnTheRoad(Withdrawn, false), Withdraw, Withdrawn, None),
        (Place::OnTheRoad(Revised, false), Withdraw, Revised, notice),
        (Place::OnTheRoad(Withdrawn, true), Withdraw, Revised, notice),
        (Place::Outside(Replaced), Replace, Replaced, None),
        (Place::Outside(Replaced), Append, Replaced, None),
        (Place::Outside(Withdrawn), Withdraw, Withdrawn, None),
        (Place::Outside(TooLate), Replace, NoticeSent, None),
        (Place::Outside(TooLate), Append, NoticeSent, None),
        (Place::Outside(TooLate), Withdraw, NoticeSent, None),
        (Place::Left, Replace, NoticeSent, None),
        (Place::Left, Append, NoticeSent, None),
        (Place::Left, Withdraw, NoticeSent, None),
        (Place::Bounced, Replace, TooLate, None),
        (Place::Bounced, Append, TooLate, None),
        (Place::Bounced, Withdraw, TooLate, None),
        (Place::Handover, Replace, Replaced, None),
        (Place::Handover, Append, Replaced, None),
        (Place::Handover, Withdraw, Withdrawn, None),
        (Place::BeingHandedOver(DeliveryState::Deferred), Replace, Replaced, None),
        (Place::BeingHandedOver(DeliveryState::Deferred), Append, Replaced, None),
        (Place::BeingHandedOver(DeliveryState::Deferred), Withdraw, Withdrawn, None),
        (Place::BeingHandedOver(DeliveryState::Relayed), Replace, NoticeSent, None),
        (Place::BeingHandedOver(DeliveryState::Relayed), Append, NoticeSent, None),
        (Place::BeingHandedOver(DeliveryState::Relayed), Withdraw, NoticeSent, None),
        (Place::HandedOver, Replace, NoticeSent, None),
        (Place::HandedOver, Append, NoticeSent, None),
        (Place::HandedOver, Withdraw, NoticeSent, None),
    ];
    // A cell that is missing here is one that nobody has thought of.
    for (place, ..) in cells {
        for mode in [Replace, Append, Withdraw] {
            let has = cells.iter().any(|(other, done, ..)| other.is_like(place) && *done == mode);
            assert!(has, "{place:?} {mode:?}");
        }
    }
    for (place, mode, result, read) in cells {
        let cell = format!("{place:?} {mode:?}");
        let world = block_in_place(|| {
            let world = World::new();
            let reach = Reach { lmtp: vec!["10.0.0.9:24".into()], ..Reach::default() };
            let domains = vec!["legacy.example".into()];
            let new = NewGateway { name: "inside".into(), reach, domains, takes: crate::record::Takes::Any };
            let gateway = directory::new_gateway(&world.store.read().expect("reads"), &new, NOW);
            world.add(Record::Gateway(gateway.expect("a gateway")));
            world
        });
        let id = play(&world, place, mode).await;
        assert_eq!(world.revised(id, 0).map(|revised| revised.result), Some(result), "{cell}");
        if place.recipient() == "bob@example.com" {
            let shown = world.shows("bob", id);
            assert_eq!(shown.is_some(), read.is_some(), "{cell}");
            if let Some((text, entry)) = shown {
                assert!(read.is_some_and(|read| text.starts_with(read)), "{cell}: {text}");
                assert!(
                    entry.amended && !entry.read && entry.withdrawn == (mode == Withdraw),
                    "{cell}: {entry:?}"
                );
            }
        }
        after_it_is_settled(&world, id, result, &cell);
        block_in_place(|| nothing_is_held_for_nobody(&world, id, &cell));
    }
}

/// What must be true of every recipient outside and of the gateway's queue.
fn after_it_is_settled(world: &World, id: MessageId, result: ReviseResult, cell: &str) {
    let rows = world.store.read().expect("reads");
    let state =
        rows.get::<Recipient>(RECIPIENTS, &mail::recipient_key(id, 0)).expect("reads").expect("is there");
    let waits = rows.raw(UNSETTLED, &mail::recipient_key(id, 0)).expect("reads").is_some();
    let queued = queue::of_message(&rows, id).expect("reads");
    match result {
        ReviseResult::Withdrawn if state.person.is_none() => {
            assert_eq!((state.state, waits, queued.len()), (DeliveryState::Withdrawn, false, 0), "{cell}");
        }
        ReviseResult::Replaced if state.gateway.is_some() => {
            let rows: Vec<_> =
                queued.iter().map(|(due, row)| (due.revision, row.recipients.clone())).collect();
            assert_eq!(rows, [(1, vec![0])], "{cell}: only the new text is handed over");
        }
        ReviseResult::Replaced if state.person.is_none() => {
            assert_eq!((state.revision, waits), (1, true), "{cell}")
        }
        _ => {}
    }
    let notices = world.notices(id);
    assert_eq!(notices, usize::from(result == ReviseResult::NoticeSent), "{cell}: one notice, if any");
}

impl World {
    /// Messages that supersede another one.
    fn notices(&self, id: MessageId) -> usize {
        let rows = self.store.read().expect("reads");
        let all = rows.prefix::<Message>(MESSAGES, &[], 1000).expect("reads");
        let names = |message: &Message| {
            let reader = self.store.body(message.body()).expect("is kept");
            let content = mail::content(reader, message, 1 << 20).expect("is whole");
            String::from_utf8_lossy(&content).contains(&format!("Supersedes: <{id}@example.com>"))
        };
        all.iter().filter(|(key, message)| key.as_slice() != id.0 && names(message)).count()
    }
}

/// When everybody has deleted the message and nothing is queued, no body of it is left.
fn nothing_is_held_for_nobody(world: &World, id: MessageId, cell: &str) {
    let rows = world.store.read().expect("reads");
    let entries = rows.prefix::<Entry>(MAILBOXES, &[], 1000).expect("reads");
    for (key, _) in entries.iter().filter(|(key, _)| crate::record::message_of(key) == id) {
        let person: Id = key.first_chunk().copied().expect("a person");
        let person = directory::by_id(&rows, &person).expect("reads").expect("is there");
        for _ in 0..2 {
            let person = person.clone();
            let _ = world.store.commit_blocking(move |txn| mail::delete(txn, &person, id, NOW));
        }
    }
    let rows = world.store.read().expect("reads");
    let mut bodies = vec![rows.get::<Message>(MESSAGES, &id.0).expect("reads").expect("is there").body()];
    let revisions = rows.prefix::<Revision>(REVISIONS, &id.0, 100).expect("reads");
    bodies.extend(revisions.iter().map(|(_, revision)| BodyKey(revision.origin.body)));
    for (due, _) in queue::of_message(&rows, id).expect("reads") {
        let message = mail::shown(&rows, id, due.revision).expect("reads").expect("is there");
        let release = move |txn: &mut Txn<'_>| txn.release_body(message.body());
        world.store.commit_blocking(release).expect("commits");
    }
    for lane in 0..4 {
        for (_, unit) in lane::units(&rows, lane, 1, 1000).expect("reads") {
            if let QueuedBody::Inline { key } = unit.body {
                world.store.commit_blocking(move |txn| txn.release_body(BodyKey(key))).expect("commits");
            }
        }
    }
    for body in bodies {
        assert!(world.store.body(body).is_err(), "{cell}: a body is held by nobody");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_author_revises_and_from_the_latest() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&["bob@example.com", OUTSIDE], "old"));
    let replace = |base| Amendment { base, ..amendment(ReviseMode::Replace, "new") };
    let not_his = world.amends("bob", id, replace(None)).await.expect_err("he only received it");
    let unknown = MessageId::generate();
    let not_there = world.amends("bob", unknown, replace(None)).await.expect_err("there is none");
    assert_eq!(not_his.replace(&id.to_string(), ""), not_there.replace(&unknown.to_string(), ""), "alike");
    assert!(world.amends("alice", id, replace(Some(0))).await.is_ok());
    let stale = world.amends("alice", id, replace(Some(0))).await.expect_err("another one was faster");
    assert!(stale.contains("the latest revision") && stale.contains("--base 1"), "{stale}");
    assert!(world.amends("alice", id, replace(None)).await.is_ok(), "without a base, the latest is meant");
    let nobody = Amendment { recipients: vec!["dave@remote.example".into()], ..replace(None) };
    let nobody = world.amends("alice", id, nobody).await.expect_err("it did not go there");
    assert!(nobody.contains("did not go to"), "{nobody}");
    assert!(world.amends("alice", id, amendment(ReviseMode::Replace, " \n")).await.is_err(), "no text");
    assert!(world.amends("alice", id, amendment(ReviseMode::Withdraw, "")).await.is_ok());
    let gone = world.amends("alice", id, replace(None)).await.expect_err("it is withdrawn");
    assert!(gone.contains("was withdrawn on"), "{gone}");
    // Mail from outside has no author here, whatever it says.
    let letter = Letter::new("alice@example.com", "alice@example.com");
    block_in_place(|| letter.send(&world)).expect("comes in");
    assert!(world.amends("alice", letter.id, replace(None)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_revised_64_times_and_no_more() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&["bob@example.com"], "old"));
    for number in 0..REVISIONS_MAX {
        let text = format!("text {number}");
        world.amends("alice", id, amendment(ReviseMode::Replace, &text)).await.expect("is revised");
    }
    let refused =
        world.amends("alice", id, amendment(ReviseMode::Replace, "more")).await.expect_err("is the end");
    assert!(refused.contains("64 times"), "{refused}");
    assert_eq!(world.shows("bob", id).map(|(text, _)| text).as_deref(), Some("text 63"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_recipients_are_revised_and_others_not() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&["bob@example.com", OUTSIDE, "dave@remote.example"], "old"));
    let some = Amendment { recipients: vec![OUTSIDE.into()], ..amendment(ReviseMode::Withdraw, "") };
    world.amends("alice", id, some).await.expect("is revised");
    let sent = world.revisions_for_edge();
    assert_eq!(sent.iter().map(|revise| revise.recipients.clone()).collect::<Vec<_>>(), [vec![(1, 0)]]);
    assert_eq!(
        world.shows("bob", id).map(|(text, entry)| (text, entry.amended)),
        Some(("old".into(), false))
    );
    assert_eq!(
        world.entry("alice", id).map(|(_, entry)| entry.revision),
        Some(0),
        "hers is as it was for most"
    );
    block_in_place(|| world.reports(id, 1, 1, ReviseResult::Withdrawn)).expect("is recorded");
    // All that are left: who has nothing any more is told nothing.
    world.amends("alice", id, amendment(ReviseMode::Append, "more")).await.expect("is revised");
    assert_eq!(world.revised(id, 1).map(|revised| revised.result), Some(ReviseResult::Refused));
    assert_eq!(world.revisions_for_edge().last().map(|revise| revise.recipients.clone()), Some(vec![(2, 0)]));
    let (text, _) = world.shows("bob", id).expect("has it");
    assert!(text.starts_with("old") && text.ends_with("more"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_shows_a_reader_what_was_read_and_its_author_everything() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&["bob@example.com"], "one\ntwo"));
    let replace = |text| Amendment { reason: Some("mistake".into()), ..amendment(ReviseMode::Replace, text) };
    world.amends("alice", id, replace("never\nread")).await.expect("is revised");
    world.amends("alice", id, replace("one\nthree")).await.expect("is revised");
    block_in_place(|| world.reads("bob", id));
    world.amends("alice", id, replace("one\nfour")).await.expect("is revised");
    let history = |person: &str| {
        let person = world.known(person);
        revise::history(&world.store, &person, &id.to_string()).expect("is there")
    };
    let (hers, his) = block_in_place(|| (history("alice"), history("bob")));
    assert_eq!(hers.iter().map(|view| view.revision).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(hers[1].difference, "-one\n-two\n+never\n+read\n");
    assert_eq!(his.iter().map(|view| view.revision).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((his[0].difference.as_str(), his[1].difference.as_str()), ("", " one\n-three\n+four\n"));
    assert_eq!((his[1].author.as_str(), his[1].reason.as_deref()), ("alice", Some("mistake")));
    assert_eq!(world.shows("bob", id).map(|(_, entry)| entry.read), Some(false), "it is new again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_reports_what_it_was_asked_and_nothing_else() {
    use ReviseResult::{NoticeSent, Pending, Refused, Replaced, TooLate, Withdrawn};
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&["bob@example.com", OUTSIDE, "dave@remote.example"], "old"));
    let refused = |recipient, revision, result| {
        let told = block_in_place(|| world.reports(id, recipient, revision, result));
        told.expect_err("is refused")
    };
    assert!(refused(1, 1, Replaced).contains("was not sent to the edge"), "there is no revision yet");
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    for (recipient, revision, result) in [
        (1, 2, Replaced),
        (7, 1, Replaced),
        (1, 1, Withdrawn),
        (1, 1, Pending),
        (1, 1, NoticeSent),
        (1, 1, Refused),
        (1, 1, ReviseResult::Revised),
    ] {
        refused(recipient, revision, result);
        assert_eq!(
            world.revised(id, 1).map(|view| view.result),
            Some(Pending),
            "{recipient} {revision} {result:?}"
        );
    }
    // What was decided here stays, whatever the edge says of it.
    assert_eq!(block_in_place(|| world.reports(id, 0, 1, TooLate)), Ok(()));
    assert_eq!(world.revised(id, 0).map(|view| view.result), Some(Replaced));
    // It cannot have replaced what it has reported as delivered.
    block_in_place(|| world.told(id, 2, DeliveryState::Relayed));
    assert_eq!(block_in_place(|| world.reports(id, 2, 1, Replaced)), Ok(()));
    let late = world.revised(id, 2).expect("is said");
    assert!(late.result == Pending && late.text.contains("a notice will follow"), "{late:?}");
    for _ in 0..2 {
        assert_eq!(block_in_place(|| world.reports(id, 1, 1, Replaced)), Ok(()), "a repeat is no error");
    }
    let unknown = MessageId::generate();
    assert!(block_in_place(|| world.reports(unknown, 0, 1, Replaced)).is_err(), "no context is invented");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_follow_up_late_is_late() {
    let mut world = block_in_place(World::new);
    Arc::get_mut(&mut world.site).expect("nothing runs").follow_up = false;
    let id = block_in_place(|| {
        let id = world.sends(&[OUTSIDE], "old");
        world.told(id, 0, DeliveryState::Relayed);
        id
    });
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    world.keeps_house().await;
    assert_eq!(world.revised(id, 0).map(|view| view.result), Some(ReviseResult::TooLate));
    assert_eq!(world.notices(id), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawal_that_was_late_for_some_lets_them_be_revised() {
    let mut world = block_in_place(World::new);
    Arc::get_mut(&mut world.site).expect("nothing runs").follow_up = false;
    let id = block_in_place(|| {
        let id = world.sends(&[OUTSIDE, "dave@remote.example"], "old");
        world.told(id, 0, DeliveryState::Relayed);
        id
    });
    world.amends("alice", id, for_some(&[OUTSIDE], ReviseMode::Withdraw, "")).await.expect("is revised");
    assert_eq!(world.revised(id, 0).map(|view| view.result), Some(ReviseResult::TooLate));
    world.amends("alice", id, for_some(&[OUTSIDE], ReviseMode::Replace, "new")).await.expect("is revised");
    assert_eq!(world.revised(id, 0).map(|view| view.result), Some(ReviseResult::TooLate), "not refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overtaken_revision_that_comes_when_all_is_delivered_is_no_news() {
    let world = block_in_place(World::new);
    // The first one is large: the second overtakes it, and is delivered. Of another message it comes too late, too.
    let [swapped, left] = block_in_place(|| [0; 2].map(|_| world.sends(&[OUTSIDE], "old")));
    for id in [swapped, left] {
        for text in ["one", "two"] {
            world.amends("alice", id, amendment(ReviseMode::Replace, text)).await.expect("is revised");
        }
    }
    block_in_place(|| {
        world.reports(swapped, 0, 2, ReviseResult::Replaced).expect("is recorded");
        world.told(swapped, 0, DeliveryState::Relayed);
        world.reports(swapped, 0, 1, ReviseResult::TooLate).expect("is recorded");
        world.told(left, 0, DeliveryState::Relayed);
        world.reports(left, 0, 2, ReviseResult::TooLate).expect("is recorded");
        world.reports(left, 0, 1, ReviseResult::TooLate).expect("is recorded");
    });
    world.keeps_house().await;
    assert_eq!(world.notices(swapped), 0, "they have the new text");
    assert_eq!(world.result(swapped, 0, 1), Some(ReviseResult::Replaced));
    assert_eq!(world.notices(left), 1, "of the last text");
    assert_eq!(world.result(left, 0, 1), Some(ReviseResult::TooLate));
    assert_eq!(world.result(left, 0, 2), Some(ReviseResult::NoticeSent));
}

/// What one was sent in addition, under a subject of its own, another is not sent, whatever is done after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_for_one_recipient_goes_to_no_other() {
    use ReviseMode::{Append, Replace, Withdraw};
    const BOB: &str = "bob@example.com";
    let file = || {
        let (name, content_type) = ("secret.pdf".to_owned(), "application/pdf".to_owned());
        vec![mime::NewAttachment { name, content_type, content: b"secret".to_vec() }]
    };
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&[BOB, OUTSIDE, "dave@remote.example"], "old"));
    let for_bob = Amendment {
        subject: Some("secret".into()),
        attachments: file(),
        ..for_some(&[BOB], Append, "secret")
    };
    world.amends("alice", id, for_bob).await.expect("is revised");
    let says = |number| {
        let rows = world.store.read().expect("reads");
        let message = mail::shown(&rows, id, number).expect("reads").expect("is there");
        let content = world.store.body(message.body()).and_then(|r| mail::content(r, &message, 1 << 20));
        String::from_utf8_lossy(&content.expect("is whole")).into_owned()
    };
    // Each has what was theirs before.
    world.amends("alice", id, for_some(&[OUTSIDE], Append, "P.S.")).await.expect("is revised");
    let hers = says(2);
    assert!(hers.contains("old") && hers.contains("P.S.") && !hers.contains("secret"), "{hers}");
    // Several who have different texts are not added to, nor do they keep what only one of them has.
    for refused in [
        amendment(Append, "more"),
        for_some(&[BOB, OUTSIDE], Append, "more"),
        for_some(&[BOB, OUTSIDE], Replace, "new"),
    ] {
        let why = world.amends("alice", id, refused).await.expect_err("they differ");
        assert!(why.contains("bob@example.com has revision 1") && why.contains("--to"), "{why}");
        assert!(why.contains("carol@remote.example has revision 2"), "{why}");
    }
    world
        .amends("alice", id, for_some(&[OUTSIDE, "dave@remote.example"], Replace, "new"))
        .await
        .expect("may be");
    assert!(!says(3).contains("secret"));
    // With files of its own it keeps nothing.
    let own = vec![mime::NewAttachment {
        name: "a.txt".into(),
        content_type: "text/plain".into(),
        content: b"a".to_vec(),
    }];
    let with_own = Amendment { attachments: own, ..for_some(&[BOB, OUTSIDE], Replace, "new") };
    world.amends("alice", id, with_own).await.expect("is revised");
    assert!(says(4).contains("a.txt") && !says(4).contains("secret"), "{}", says(4));
    world.amends("alice", id, for_some(&[OUTSIDE], Append, "more")).await.expect("is revised");
    world.amends("alice", id, amendment(Withdraw, "")).await.expect("is taken back");
    assert!(!says(6).contains("secret") && says(6).contains("Subject: plans"), "{}", says(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traveller_who_fetched_one_text_is_not_shown_what_another_reader_has() {
    use ReviseMode::Replace;
    let world = block_in_place(World::new);
    let id = block_in_place(|| {
        world.window("bob");
        world.sends(&["bob@example.com", OUTSIDE], "old")
    });
    world.amends("alice", id, for_some(&[OUTSIDE], Replace, "for carol alone")).await.expect("is revised");
    world.amends("alice", id, amendment(Replace, "for all")).await.expect("is revised");
    block_in_place(|| world.reports(id, 0, 2, ReviseResult::Revised)).expect("is recorded");
    let bob = world.known("bob");
    let history = block_in_place(|| revise::history(&world.store, &bob, &id.to_string())).expect("is there");
    assert_eq!(history.iter().map(|view| view.revision).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(history[1].difference, "-old\n+for all\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_at_home_is_offered_again_on_the_road() {
    let world = block_in_place(World::new);
    let ids = block_in_place(|| {
        world.window("bob");
        let ids = [0; 2].map(|_| world.sends(&["bob@example.com"], "old"));
        world.reads("bob", ids[0]);
        ids
    });
    for id in ids {
        world.amends("alice", id, amendment(ReviseMode::Withdraw, "")).await.expect("is revised");
    }
    let told = |units: Vec<ToEdge>| {
        let copies = units.into_iter().filter_map(|unit| match unit {
            ToEdge::ReviseCopy(copy) => Some((MessageId(copy.message), copy.comes, copy.retrieved)),
            _ => None,
        });
        copies.collect::<Vec<_>>()
    };
    assert_eq!(told(world.queued()), [(ids[0], true, true), (ids[1], true, false)]);
    let (before, site) = (world.queued().len(), Arc::clone(&world.site));
    world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await.expect("commits");
    assert!(world.queued().len() > before);
    let again: Vec<_> = told(world.queued()).into_iter().filter(|(_, comes, _)| !comes).collect();
    assert_eq!(again, [(ids[1], false, false), (ids[0], false, true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_goes_only_under_tls_where_the_message_did() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| {
        let id = world.sends_with(&[OUTSIDE], "old", TlsWish::Required);
        world.told(id, 0, DeliveryState::Relayed);
        id
    });
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::TooLate)).expect("is recorded");
    world.keeps_house().await;
    let notices = world.queued().into_iter().filter_map(|unit| match unit {
        ToEdge::Outbound(outbound) if outbound.message != id.0 => Some(outbound.tls_wish),
        _ => None,
    });
    assert_eq!(notices.collect::<Vec<_>>(), [TlsWish::Required]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_names_the_message_once_and_is_no_answer_to_it() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| {
        let id = world.sends(&[OUTSIDE, "dave@remote.example"], "old");
        world.told(id, 0, DeliveryState::Relayed);
        id
    });
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    for _ in 0..3 {
        world.keeps_house().await;
    }
    block_in_place(|| {
        world.told(id, 1, DeliveryState::Relayed);
        world.reports(id, 1, 1, ReviseResult::TooLate).expect("is recorded");
    });
    for _ in 0..3 {
        world.keeps_house().await;
    }
    assert_eq!(world.notices(id), 2, "one for each who was late, each once");
    let (_, entry) = world.entry("alice", id).expect("is in Sent");
    assert!(!entry.answered);
    let outbound = world.queued().into_iter().filter_map(|unit| match unit {
        ToEdge::Outbound(outbound) if outbound.message != id.0 => {
            Some(outbound.recipients.into_iter().map(|(_, address)| address).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert_eq!(outbound.collect::<Vec<_>>(), [vec![OUTSIDE], vec!["dave@remote.example"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traveller_asks_by_mail_and_a_stranger_cannot() {
    let world = block_in_place(World::new);
    let (id, window) = block_in_place(|| {
        let window = world.window("alice").window.window;
        let sent = Letter::submitted(window, "alice@example.com", "bob@example.com");
        sent.send(&world).expect("is sent");
        (sent.id, window)
    });
    let asks = |letter: Letter, of: MessageId, text: &str| {
        let head =
            String::from_utf8_lossy(&letter.content).replace("\r\n\r\ntext", &format!("\r\n\r\n{text}"));
        Letter { in_reply_to: Some(format!("{of}@test")), content: head.into_bytes(), ..letter }
    };
    // From port 25 it is mail for alice.
    let forged = asks(Letter::new("alice@example.com", "alice+withdraw@example.com"), id, "");
    block_in_place(|| forged.send(&world)).expect("comes in");
    world.keeps_house().await;
    assert!(world.received("alice", forged.id).is_some());
    assert_eq!(world.shows("bob", id).map(|(text, _)| text).as_deref(), Some("text"));
    // From the road it is asked for.
    let replace =
        asks(Letter::submitted(window, "alice@example.com", "alice+replace@example.com"), id, "better");
    block_in_place(|| replace.send(&world)).expect("comes in");
    world.keeps_house().await;
    assert_eq!(world.shows("bob", id).map(|(text, _)| text).as_deref(), Some("better"));
    assert!(world.entry("alice", replace.id).is_none(), "a request is filed nowhere");
    let withdraw = asks(Letter::submitted(window, "alice@example.com", "alice+withdraw@example.com"), id, "");
    block_in_place(|| withdraw.send(&world)).expect("comes in");
    for _ in 0..2 {
        world.keeps_house().await;
    }
    assert!(world.shows("bob", id).is_none());
    // What is not hers is refused, in words.
    let his = block_in_place(|| {
        let his =
            Letter::submitted(world.window("bob").window.window, "bob@example.com", "alice@example.com");
        his.send(&world).expect("is sent");
        his.id
    });
    let not_hers =
        asks(Letter::submitted(window, "alice@example.com", "alice+withdraw@example.com"), his, "");
    block_in_place(|| not_hers.send(&world)).expect("comes in");
    world.keeps_house().await;
    assert!(world.received("alice", his).is_some());
    let rows = world.store.read().expect("reads");
    assert_eq!(rows.count(CONTROLS).expect("reads"), 0);
    let subjects = rows.prefix::<Message>(MESSAGES, &[], 100).expect("reads");
    let mut subjects: Vec<_> = subjects
        .into_iter()
        .filter(|(_, message)| message.origin.channel == Channel::Report)
        .map(|(_, message)| message.origin.subject)
        .collect();
    subjects.sort();
    assert_eq!(subjects, ["Not revised", "Revised: s", "Revised: s"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_on_the_road_before_a_revision_came_is_not_what_is_shown_now() {
    let world = block_in_place(World::new);
    let (id, window) = block_in_place(|| {
        let window = world.window("bob").window.window;
        (world.sends(&["bob@example.com"], "old"), window)
    });
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    let act = |revision, deleted| {
        let act = PopAct { window, message: id.0, revision, retrieved: true, deleted, at: NOW };
        block_in_place(|| world.apply(&ToBig::PopAct(act), None)).expect("is recorded");
    };
    act(0, true);
    let (text, entry) = world.shows("bob", id).expect("stays");
    assert_eq!((text.as_str(), entry.read, entry.shown), ("new", false, 1));
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::Revised)).expect("is recorded");
    let copy = |rows: &shared::store::Snapshot| {
        rows.get::<CopyRow>(COPIES, &crate::record::key2(&window, &id.0)).expect("reads").expect("is there")
    };
    let row = copy(&world.store.read().expect("reads"));
    assert_eq!((row.revision, row.retrieved, row.deleted), (1, false, false), "the new one is offered");
    act(1, false);
    assert_eq!(world.shows("bob", id).map(|(_, entry)| entry.read), Some(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_with_the_new_text_before_the_edge_reported_it_counts_for_it() {
    // An edge that went back is told the text twice, and shows what comes first before it reports the other.
    for (first, second) in [((0, false), (1, true)), ((0, true), (1, false))] {
        let world = block_in_place(World::new);
        let (id, window) = block_in_place(|| {
            let window = world.window("bob").window.window;
            (world.sends(&["bob@example.com"], "old"), window)
        });
        world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
        for (revision, deleted) in [first, second] {
            let act = PopAct { window, message: id.0, revision, retrieved: true, deleted, at: NOW };
            block_in_place(|| world.apply(&ToBig::PopAct(act), None)).expect("is recorded");
        }
        block_in_place(|| world.reports(id, 0, 1, ReviseResult::Revised)).expect("is recorded");
        let rows = world.store.read().expect("reads");
        let copy = rows.get::<CopyRow>(COPIES, &crate::record::key2(&window, &id.0)).expect("reads");
        let copy = copy.expect("is there");
        assert_eq!((copy.acted, copy.retrieved, copy.deleted), (1, true, second.1));
        assert_eq!(world.shows("bob", id).map(|(_, entry)| entry.read), Some(true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_taken_back_ends_the_text_before_it_for_an_edge_that_goes_back() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| {
        world.window("bob");
        world.sends(&["bob@example.com"], "old")
    });
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    world.amends("alice", id, amendment(ReviseMode::Withdraw, "")).await.expect("is withdrawn");
    let result = |revision| {
        let rows = world.store.read().expect("reads");
        let row = rows.get::<RevisedRow>(REVISED, &revised_key(id, 0, revision)).expect("reads");
        row.map(|row| row.result)
    };
    // The small one has overtaken the text, which the edge has still to report.
    block_in_place(|| world.reports(id, 0, 2, ReviseResult::Withdrawn)).expect("is recorded");
    assert_eq!((result(1), result(2)), (Some(ReviseResult::Replaced), Some(ReviseResult::Withdrawn)));
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::Replaced)).expect("is no news");
    assert_eq!(result(2), Some(ReviseResult::Withdrawn));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_text_that_an_edge_which_went_back_has_shown_is_noted() {
    let world = block_in_place(World::new);
    let (id, window) = block_in_place(|| {
        let window = world.window("bob").window.window;
        (world.sends(&["bob@example.com"], "old"), window)
    });
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::Replaced)).expect("is recorded");
    for (revision, deleted, shown) in [(1, true, 2), (0, false, 3), (0, false, 3)] {
        let act = PopAct { window, message: id.0, revision, retrieved: true, deleted, at: NOW };
        block_in_place(|| world.apply(&ToBig::PopAct(act), None)).expect("is recorded");
        assert_eq!(world.entry("bob", id).map(|(_, entry)| entry.shown), Some(shown));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_of_what_was_deleted_on_the_road_says_that_no_copy_comes() {
    let world = block_in_place(World::new);
    let (id, window) = block_in_place(|| {
        let window = world.window("bob").window.window;
        (world.sends(&["bob@example.com"], "old"), window)
    });
    let told = || {
        let copies = world.queued().into_iter().filter_map(|unit| match unit {
            ToEdge::ReviseCopy(copy) => Some((copy.revision, copy.comes, copy.retrieved)),
            _ => None,
        });
        copies.collect::<Vec<_>>()
    };
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    let act = PopAct { window, message: id.0, revision: 0, retrieved: false, deleted: true, at: NOW };
    block_in_place(|| world.apply(&ToBig::PopAct(act), None)).expect("is recorded");
    world.amends("alice", id, amendment(ReviseMode::Replace, "newer")).await.expect("is revised");
    assert_eq!(told(), [(1, true, false), (2, false, true)]);
    let site = Arc::clone(&world.site);
    world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await.expect("commits");
    assert_eq!(told()[2..], [(2, false, true), (1, false, true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_went_back_is_told_which_text_of_a_copy_was_retrieved() {
    let world = block_in_place(World::new);
    let (id, window) = block_in_place(|| {
        let window = world.window("bob").window.window;
        (world.sends(&["bob@example.com"], "old"), window)
    });
    let retrieve = |revision, deleted| {
        let act = PopAct { window, message: id.0, revision, retrieved: true, deleted, at: NOW };
        block_in_place(|| world.apply(&ToBig::PopAct(act), None)).expect("is recorded");
    };
    // The revision of the copy that is sent, and whether a client had that.
    let sent_again = async || {
        let site = Arc::clone(&world.site);
        world.store.commit(move |txn| reconcile::tell_anew(txn, &site)).await.expect("commits");
        let mut copies = world.queued().into_iter().filter_map(|unit| match unit {
            ToEdge::Copy(copy) => Some((copy.revision, copy.retrieved)),
            _ => None,
        });
        copies.next_back()
    };
    retrieve(0, false);
    assert_eq!(sent_again().await, Some((0, true)));
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    assert_eq!(sent_again().await, Some((1, false)), "it is not decided, and nobody had it");
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::Revised)).expect("is recorded");
    assert_eq!(sent_again().await, Some((1, false)));
    retrieve(0, true);
    assert_eq!(sent_again().await, Some((1, false)), "that edge had gone back to the old text");
    retrieve(1, false);
    assert_eq!(sent_again().await, Some((1, true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_edge_went_back_it_gets_the_text_that_counts() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&[OUTSIDE, "dave@remote.example", "erin@remote.example"], "old"));
    let to = |name: &str, mode| Amendment { recipients: vec![name.into()], ..amendment(mode, "new") };
    world.amends("alice", id, to(OUTSIDE, ReviseMode::Replace)).await.expect("is revised");
    world.amends("alice", id, to("dave@remote.example", ReviseMode::Withdraw)).await.expect("is revised");
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::Replaced)).expect("is recorded");
    let before = world.queued().len();
    let site = Arc::clone(&world.site);
    let went_back = world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await;
    went_back.expect("commits");
    let mut told = Vec::new();
    let units = world.queued();
    assert!(units.len() > before);
    // By lanes: what is sent again lies behind what was sent before.
    for unit in units {
        match unit {
            ToEdge::Unsettled(list) => told.push(format!("waits {:?}", list.messages[0].1)),
            ToEdge::Outbound(outbound) => {
                let recipients: Vec<_> = outbound.recipients.iter().map(|(index, _)| *index).collect();
                told.push(format!("outbound {} {recipients:?}", outbound.revision));
            }
            ToEdge::Revise(revise) => {
                told.push(format!("revise {} {:?}", revise.revision, revise.recipients))
            }
            _ => {}
        }
    }
    assert_eq!(
        told,
        [
            "revise 1 [(0, 0)]",
            "revise 2 [(1, 0)]",
            "waits [(0, 1), (1, 0), (2, 0)]",
            "revise 2 [(1, 0)]",
            "outbound 0 [0, 1, 2]",
            "outbound 0 [1, 2]",
            "outbound 1 [0]",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_went_back_is_told_what_is_at_home_no_more_and_waits_for_nothing() {
    let world = block_in_place(World::new);
    let (gone, open, left) = block_in_place(|| {
        world.window("bob");
        let [gone, open] = [0; 2].map(|_| world.sends(&["bob@example.com"], "old"));
        (gone, open, world.sends(&[OUTSIDE], "old"))
    });
    for (id, mode) in
        [(gone, ReviseMode::Withdraw), (open, ReviseMode::Withdraw), (left, ReviseMode::Replace)]
    {
        world.amends("alice", id, amendment(mode, "new")).await.expect("is revised");
    }
    block_in_place(|| {
        world.reports(gone, 0, 1, ReviseResult::Withdrawn).expect("is recorded");
        // The edge went back before it could report that the revision came too late.
        world.apply(&outcome(left.0, DeliveryState::Relayed), None).expect("is recorded");
    });
    let before = world.queued();
    let site = Arc::clone(&world.site);
    world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await.expect("commits");
    let told: Vec<_> = world.queued().into_iter().filter(|unit| !before.contains(unit)).collect();
    let of_bob = told.iter().filter_map(|unit| match unit {
        ToEdge::CopyGone { message, .. } => Some((MessageId(*message), false)),
        ToEdge::ReviseCopy(copy) => Some((MessageId(copy.message), !copy.comes)),
        ToEdge::Copy(copy) => panic!("{} is at home no more", MessageId(copy.message)),
        _ => None,
    });
    let mut of_bob: Vec<_> = of_bob.collect();
    of_bob.sort_unstable();
    assert_eq!(of_bob, [(gone, false), (open, true)]);
    assert!(!told.iter().any(|unit| matches!(unit, ToEdge::Revise(_))));
    let undecided = revise::undecided(&world.store.read().expect("reads")).expect("reads");
    assert_eq!(
        undecided.iter().map(|(id, ..)| *id).collect::<Vec<_>>(),
        [open],
        "the other one came too late"
    );
}

/// The edge, which has waited for a message by its revision, must get the message, though another text counts now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_sent_once_more_for_as_long_as_a_revision_of_it_is_open() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| {
        world.window("bob");
        world.sends(&["bob@example.com"], "old")
    });
    world.amends("alice", id, amendment(ReviseMode::Withdraw, "")).await.expect("is revised");
    let rows = world.store.read().expect("reads");
    let units = (0..lane::LANES_MAX).flat_map(|lane| lane::units(&rows, lane, 1, 100).expect("reads"));
    let is_copy = |unit: &lane::QueuedUnit| matches!(decode(&unit.head), Some(ToEdge::Copy(_)));
    let copy = units.map(|(_, unit)| unit).find(is_copy).expect("was queued");
    let again = async || {
        let (site, copy) = (Arc::clone(&world.site), copy.clone());
        let again = world.store.commit(move |txn| reconcile::again(txn, &site, copy)).await;
        again.expect("commits").into_inner().is_some()
    };
    assert!(again().await, "the edge may wait for it");
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::Withdrawn)).expect("is recorded");
    assert!(!again().await, "it is decided");
}

/// A big that went back may know what a revision came to before the edge, which went back too, has its message again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_go_behind_its_body_is_looked_at_again_when_the_edge_went_back() {
    let world = block_in_place(World::new);
    // Large however well it is compressed.
    let text: String =
        (0..4_000_u32).map(|n| format!("{}\n", blake3::hash(&n.to_be_bytes()).to_hex())).collect();
    let ids = block_in_place(|| [0; 2].map(|_| world.sends(&[OUTSIDE], &text)));
    world.amends("alice", ids[0], amendment(ReviseMode::Withdraw, "")).await.expect("is revised");
    block_in_place(|| world.reports(ids[0], 0, 1, ReviseResult::Withdrawn)).expect("is recorded");
    let waiting = || {
        let units = lane::waiting(&world.store.read().expect("reads"), 10).expect("reads");
        let outbound = |unit: lane::QueuedUnit| match decode(&unit.head) {
            Some(ToEdge::Outbound(outbound)) => Some(MessageId(outbound.message)),
            _ => None,
        };
        units.into_iter().filter_map(outbound).collect::<Vec<_>>()
    };
    assert_eq!(waiting().len(), 2);
    let site = Arc::clone(&world.site);
    world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await.expect("commits");
    assert_eq!(waiting(), [ids[1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_is_told_again_is_not_what_the_window_has_last() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| {
        world.window("bob");
        world.sends(&["bob@example.com"], "old")
    });
    for text in ["one", "two"] {
        world.amends("alice", id, amendment(ReviseMode::Replace, text)).await.expect("is revised");
    }
    block_in_place(|| world.reports(id, 0, 2, ReviseResult::Replaced)).expect("is recorded");
    let site = Arc::clone(&world.site);
    world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await.expect("commits");
    let copies = world.store.read().and_then(|rows| rows.prefix::<CopyRow>(COPIES, &[], 10)).expect("reads");
    assert_eq!(copies.iter().map(|(_, copy)| copy.revision).collect::<Vec<_>>(), [2]);
}

/// The messages whose copies the edge was told to remove.
fn told_gone(world: &World) -> Vec<MessageId> {
    let gone = |unit| match unit {
        ToEdge::CopyGone { message, .. } => Some(MessageId(message)),
        _ => None,
    };
    world.queued().into_iter().filter_map(gone).collect()
}

/// Trash is emptied as of a moment. Returns how much that was.
fn trash_is_emptied(world: &World, now: u64) -> usize {
    let emptied = world.store.commit_blocking(move |txn| maintenance::empty_trash(txn, now));
    emptied.expect("commits").into_inner()
}

#[test]
fn what_goes_from_trash_and_was_sent_takes_no_copy_of_what_was_received() {
    let world = World::new();
    world.window("alice");
    let id = world.sends(&["alice@example.com"], "to myself");
    let alice = world.known("alice");
    let moved = world.store.commit_blocking(move |txn| {
        folder::shift(txn, &alice, id, Folder::Saved, NOW)?;
        mail::delete(txn, &alice, id, NOW)
    });
    assert_eq!(moved.expect("is moved").into_inner(), Folder::Sent);
    assert_eq!(trash_is_emptied(&world, NOW + 31 * DAY), 1);
    assert_eq!(world.entry("alice", id).map(|(folder, _)| folder), Some(Folder::Saved));
    assert_eq!(told_gone(&world), []);
    (0..2).for_each(|_| world.deletes("alice", id));
    assert_eq!(told_gone(&world), [id], "once nothing that was received is left");
}

/// What was deleted on the road lies in Trash; its author then sends another text there, which nobody has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_of_what_lies_in_trash_has_30_days_of_its_own() {
    let world = block_in_place(World::new);
    let now = unix_millis();
    let id = block_in_place(|| {
        let window = world.window("bob").window.window;
        let id = world.sends(&["bob@example.com"], "old");
        let (message, at) = (id.0, now - 29 * DAY);
        let act = PopAct { window, message, revision: 0, retrieved: true, deleted: true, at };
        assert_eq!(world.apply_at(&ToBig::PopAct(act), None, at), Ok(()));
        id
    });
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    block_in_place(|| {
        assert_eq!(trash_is_emptied(&world, now + 2 * DAY), 0);
        assert_eq!(world.received("bob", id).map(|(folder, _)| folder), Some(Folder::Trash));
        assert_eq!(told_gone(&world), []);
        assert_eq!(trash_is_emptied(&world, now + 31 * DAY), 1);
        assert_eq!(told_gone(&world), [id]);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_went_back_is_told_what_was_deleted_at_home_though_it_lies_in_trash() {
    let world = block_in_place(World::new);
    let ids = block_in_place(|| {
        world.window("bob");
        [0; 2].map(|_| world.sends(&["bob@example.com"], "old"))
    });
    // Of one the edge has a revision to decide.
    world.amends("alice", ids[1], amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    block_in_place(|| ids.iter().for_each(|id| world.deletes("bob", *id)));
    lanes_are_empty(&world).await;
    assert_eq!(told_gone(&world), []);
    let site = Arc::clone(&world.site);
    world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await.expect("commits");
    assert_eq!(told_gone(&world), ids);
    assert_eq!(revise::undecided(&world.store.read().expect("reads")).expect("reads"), []);
}

/// The edge has got all that was queued, and what is kept for a replay is trimmed.
async fn lanes_are_empty(world: &World) {
    let emptied = world.store.commit(|txn| {
        for lane in 0..lane::LANES_MAX {
            let number = lane::state(txn, lane)?.last;
            let position = lane::LanePosition { number, ..lane::LanePosition::default() };
            lane::confirmed(txn, lane, position, &[], &[], NOW)?;
            while lane::trim(txn, lane, u64::MAX, 0)? > 0 {}
        }
        Ok::<_, StoreError>(())
    });
    emptied.await.expect("commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_revision_is_lost_with_all_texts_is_removed_from_an_edge_that_went_back() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| {
        world.window("bob");
        world.sends(&["bob@example.com"], "old")
    });
    world.amends("alice", id, amendment(ReviseMode::Withdraw, "")).await.expect("is revised");
    block_in_place(|| (0..2).for_each(|_| world.deletes("alice", id)));
    lanes_are_empty(&world).await;
    let undecided = revise::undecided(&world.store.read().expect("reads")).expect("reads");
    assert_eq!(undecided, [(id, 0, 1)], "the edge has not said what it came to");
    let site = Arc::clone(&world.site);
    world.store.commit(move |txn| reconcile::edge_went_back(txn, &site)).await.expect("commits");
    let of_it = world.queued().into_iter().filter_map(|unit| match unit {
        ToEdge::CopyGone { message, .. } => Some(message),
        ToEdge::ReviseCopy(copy) => panic!("{} has no text", MessageId(copy.message)),
        _ => None,
    });
    assert_eq!(of_it.collect::<Vec<_>>(), [id.0]);
    let revised = world.revised(id, 0).expect("is recorded");
    assert_eq!(
        (revised.result, revised.text.as_str()),
        (ReviseResult::Withdrawn, "its text is here no more")
    );
    assert_eq!(revise::undecided(&world.store.read().expect("reads")).expect("reads"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_does_not_make_up_what_a_restored_big_may_have_forgotten() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&[OUTSIDE, "dave@remote.example"], "old"));
    let to_dave =
        Amendment { recipients: vec!["dave@remote.example".into()], ..amendment(ReviseMode::Replace, "new") };
    world.amends("alice", id, to_dave).await.expect("is revised");
    let restored = world.store.commit(|txn| lane::restored(txn, NOW));
    let generation = restored.await.expect("commits").generation;
    let since = shared::unit::revision_after(0, generation);
    // Of that revision it is known that it is not hers, and one that was made since would be known.
    for (revision, state) in [
        (1, DeliveryState::Queued),
        (since, DeliveryState::Queued),
        (u32::MAX, DeliveryState::Queued),
        (2, DeliveryState::Withdrawn),
    ] {
        block_in_place(|| world.reports(id, 0, revision, ReviseResult::Withdrawn)).expect("may be so");
        let rows = world.store.read().expect("reads");
        let row = rows.get::<Recipient>(RECIPIENTS, &mail::recipient_key(id, 0)).expect("reads");
        assert_eq!(row.expect("is there").state, state, "{revision}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_big_learns_that_what_it_has_forgotten_to_have_withdrawn_does_not_leave() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&[OUTSIDE, "bob@example.com"], "old"));
    let withdrawn = |recipient| block_in_place(|| world.reports(id, recipient, 1, ReviseResult::Withdrawn));
    let state = |recipient| {
        let rows = world.store.read().expect("reads");
        let row = rows.get::<Recipient>(RECIPIENTS, &mail::recipient_key(id, recipient)).expect("reads");
        row.expect("is there").state
    };
    assert!(withdrawn(0).is_err(), "an edge does not make it up");
    world.store.commit(|txn| lane::restored(txn, NOW)).await.expect("commits");
    withdrawn(0).expect("may be so");
    withdrawn(1).expect("may be so");
    assert_eq!(state(0), DeliveryState::Withdrawn);
    assert_eq!((state(1), world.shows("bob", id).is_some()), (DeliveryState::Delivered, true), "he has it");
    let rows = world.store.read().expect("reads");
    assert_eq!(rows.count(UNSETTLED).expect("reads"), 0, "and nothing is waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_that_was_restored_gives_no_number_again() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&[OUTSIDE], "old"));
    // What was revised before it is forgotten here, and may be at the edge.
    let restored = world.store.commit(|txn| lane::restored(txn, 1_800_000_000_000));
    let generation = restored.await.expect("commits").generation;
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    let first = world.revisions_for_edge().last().map(|revise| revise.revision).expect("is queued");
    assert_eq!(first, shared::unit::revision_after(0, generation));
    assert!(first > REVISIONS_MAX as u32, "{first}");
    let stale = Amendment { base: Some(0), ..amendment(ReviseMode::Replace, "x") };
    let stale = world.amends("alice", id, stale).await.expect_err("there is one");
    assert!(stale.contains("--base 1"), "people count from 1: {stale}");
    let base = Amendment { base: Some(1), ..amendment(ReviseMode::Withdraw, "") };
    world.amends("alice", id, base).await.expect("is the latest");
    let alice = world.known("alice");
    let history =
        block_in_place(|| revise::history(&world.store, &alice, &id.to_string())).expect("is there");
    assert_eq!(history.iter().map(|view| view.revision).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_author_sees_revisions_wherever_the_message_was_moved() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&["bob@example.com"], "old"));
    let alice = world.known("alice");
    let moved = world.store.commit(move |txn| folder::shift(txn, &alice, id, Folder::Saved, NOW));
    moved.await.expect("is moved");
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    let (text, entry) = world.shows("alice", id).expect("she has it");
    assert_eq!((text.as_str(), entry.revision, entry.read), ("new", 1, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_wakes_its_authors_desk_and_nobody_elses() {
    let world = block_in_place(World::new);
    world.store.touched().observe(MAILBOXES);
    let id = block_in_place(|| world.sends(&[OUTSIDE], "old"));
    let (alice, bob) = (world.known("alice").id, world.known("bob").id);
    let times = || (world.store.touched().times(&alice), world.store.touched().times(&bob));
    let (hers, his) = times();
    block_in_place(|| world.apply(&outcome(id.0, DeliveryState::Relayed), None)).expect("is recorded");
    assert_eq!(times(), (hers + 1, his));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_to_some_is_another_unit_than_what_went_to_all() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| world.sends(&[OUTSIDE, "dave@remote.example"], "old"));
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::Replaced)).expect("is recorded");
    let site = Arc::clone(&world.site);
    let again = world.store.commit(move |txn| {
        let mut again = Vec::new();
        for lane in [0, 2] {
            for (_, unit) in lane::units(txn, lane, 1, 100)? {
                let before = unit.id;
                if let Some(unit) = reconcile::again(txn, &site, unit)? {
                    again.push((decode::<ToEdge>(&unit.head), unit.id == before));
                }
            }
        }
        Ok::<_, StoreError>(again)
    });
    let again = again.await.expect("commits").into_inner();
    let named = again.into_iter().filter_map(|(head, is_same)| match head {
        Some(ToEdge::Outbound(outbound)) => Some((outbound.recipients.len(), is_same)),
        Some(ToEdge::Revise(revise)) => Some((revise.recipients.len(), is_same)),
        _ => None,
    });
    // The revision is open for one; the original still waits for that one alone.
    assert_eq!(named.collect::<Vec<_>>(), [(1, false), (1, false)]);
}
