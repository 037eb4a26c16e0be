//! Of mail that could not go on, whoever is told in the place of a sender for whom nobody vouches has the message itself,
//! and one report.

use shared::lane::{self, LanePosition, confirmed};
use shared::smtp::Enhanced;
use shared::smtp::client::{Class, Status};
use shared::store::BodyKey;

use super::*;
use crate::directory::{NewGateway, Reach};
use crate::gateway::queue::{self, Due};
use crate::record::{HANDOVERS, HELD_FOR_REPORT, TOLD_INSTEAD, Takes, ToldInstead};

const FAR: [&str; 2] = ["phone@far.example", "other@far.example"];

impl World {
    /// A person who forwards.
    fn with_away(self, forward: &[&str], keep_copy: bool) -> Self {
        let forward = forward.iter().map(ToString::to_string).collect();
        self.add_person(NewPerson { name: "away".into(), forward, keep_copy, ..NewPerson::default() });
        self
    }

    /// A gateway that takes what nobody has in the site's domain.
    fn with_gateway(self) -> Self {
        let reach = Reach { lmtp: vec!["10.0.0.9:24".into()], ..Reach::default() };
        let (name, domains, takes) = ("inside".into(), vec!["example.com".into()], Takes::Any);
        let new = NewGateway { name, reach, domains, takes };
        let gateway = directory::new_gateway(&self.store.read().expect("reads"), &new, NOW);
        self.add(Record::Gateway(gateway.expect("a gateway")));
        self
    }

    /// The system behind the gateway refuses the first recipient.
    fn refused_inside(&self, message: MessageId) {
        let status = Status::ours(Class::Permanent, Enhanced(5, 1, 1), "no such user");
        let report = queue::Report { recipient: 0, status, host: None, tls: None, host_reports: false };
        let (due, site) = (Due { gateway: "inside".into(), message, revision: 0 }, Arc::clone(&self.site));
        let record = move |txn: &mut Txn<'_>| queue::record(txn, &site, &due, vec![report], NOW);
        self.store.commit_blocking(record).expect("is recorded");
    }

    /// The edge has confirmed everything, and the safety store has let it go.
    fn forgets_what_left(&self) {
        let confirm = |txn: &mut Txn<'_>| {
            (0..4).try_for_each(|lane| {
                let position = LanePosition { number: lane::state(txn, lane)?.last, chain: [0; 32] };
                confirmed(txn, lane, position, &[], &[], NOW)
            })
        };
        self.store.commit_blocking(confirm).expect("commits");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(lane::trim_all(&self.store, u64::MAX, 0)).expect("trims");
    }

    fn folder(&self, person: &str, id: MessageId) -> Option<Folder> {
        self.entry(person, id).map(|(folder, _)| folder)
    }

    /// How many hold a body.
    fn holders_of(&self, body: [u8; 32]) -> u32 {
        let rows = self.store.read().expect("reads");
        rows.body_use(BodyKey(body)).expect("reads").map_or(0, |used| used.references)
    }
}

/// Mail from carol, for whom nobody vouches.
fn strangers(to: &'static str) -> Request {
    let mut request = Request::of(Letter::new(CAROL, to), None);
    request.origin.verdicts.clear();
    request
}

#[test]
fn of_a_forward_that_failed_whoever_forwards_is_told_where_nobody_vouches_for_the_sender() {
    for (verdict, keep_copy) in [(None, false), (None, true), (Some(VOUCHED), false)] {
        let world = World::new().with_away(&FAR[..1], keep_copy);
        let mut request = strangers("away@example.com");
        request.origin.verdicts = verdict.into_iter().map(str::to_owned).collect();
        let id = request.comes(&world);
        world.fails(id, 0);
        let (outside, inside) = (world.told_outside(), world.told_inside("away"));
        let is_here = verdict.is_none();
        assert_eq!((outside.len(), inside.len()), if is_here { (0, 1) } else { (1, 0) }, "{verdict:?}");
        if let [told] = inside.as_slice() {
            // What happened is no secret to her.
            let fields = "Final-Recipient: rfc822; phone@far.example\r\nAction: failed\r\n";
            assert!(told.contains(fields) && told.contains("To: away@example.com"), "{told}");
        }
        assert_eq!(world.folder("away", id), is_here.then_some(Folder::In));
        assert_eq!(world.leaving(false).len(), 1, "the report is not forwarded");
    }
    // Behind a shadow nobody here has forwarded it: the postmaster is told.
    let world = World::new().with_shadow();
    let id = strangers("dora@example.com").comes(&world);
    world.fails(id, 0);
    assert_eq!((world.told_outside().len(), world.told_inside("alice").len()), (0, 1));
    assert_eq!(world.folder("alice", id), Some(Folder::Undeliverable));
}

#[test]
fn the_whole_message_is_there_though_it_failed_long_after_it_had_left() {
    let world = World::new().with_away(&FAR[..1], false);
    let mut letter = Letter::new(CAROL, "away@example.com");
    // More than a report would return, and 8-bit.
    letter.content.extend("Grüße\r\n".repeat(40_000).into_bytes());
    let mut request = Request::of(letter, None);
    request.origin.verdicts.clear();
    let id = request.comes(&world);
    world.forgets_what_left();
    world.fails(id, 0);
    let told = world.told_inside("away");
    assert!(told.len() == 1 && told[0].contains("text/rfc822-headers"), "{told:?}");
    assert!(told[0].contains("Subject: s\r\n") && !told[0].contains("Gr"), "the text is not in it once more");
    assert_eq!(world.content_of(id).into_bytes(), request.letter.content);
}

#[test]
fn a_body_is_held_until_nobody_waits_and_no_longer() {
    let world = World::new().with_away(&FAR, false);
    let request = strangers("away@example.com");
    let id = request.comes(&world);
    world.forgets_what_left();
    assert_eq!(world.holders_of(request.origin.body), 1);
    world.relayed(id, 0, false);
    assert_eq!(world.holders_of(request.origin.body), 1, "one still waits");
    world.relayed(id, 1, false);
    assert_eq!(world.holders_of(request.origin.body), 0);
    // What failed is held by the entry then.
    let request = strangers("away@example.com");
    let id = request.comes(&world);
    world.forgets_what_left();
    (0..2).for_each(|recipient| world.fails(id, recipient));
    assert_eq!(world.holders_of(request.origin.body), 1, "until the report is written");
    world.writes_reports();
    assert_eq!(world.holders_of(request.origin.body), 1);
    assert_eq!(world.store.read().and_then(|rows| rows.count(HELD_FOR_REPORT)).expect("reads"), 0);
    let away = world.known("away");
    for _ in 0..2 {
        let away = away.clone();
        world.store.commit_blocking(move |txn| mail::delete(txn, &away, id, NOW)).expect("is deleted");
    }
    assert_eq!(world.holders_of(request.origin.body), 0, "with the entry it goes");
}

#[test]
fn there_is_one_report_of_all_that_failed_and_the_message_comes_before_it() {
    for first_is_relayed in [false, true] {
        let world = World::new().with_away(&["a@far.example", "b@far.example", "c@far.example"], false);
        let id = strangers("away@example.com").comes(&world);
        world.fails(id, 0);
        assert_eq!(world.told_inside("away").len(), 0, "two still wait");
        assert_eq!(world.folder("away", id), Some(Folder::In), "she has it all the same");
        world.fails(id, 1);
        world.writes_reports();
        // The last to be known is a failure, or is not.
        match first_is_relayed {
            true => world.relayed(id, 2, false),
            false => world.fails(id, 2),
        }
        let told = world.told_inside("away");
        let [report] = told.as_slice() else { panic!("one report: {told:?}") };
        let failures = if first_is_relayed { 2 } else { 3 };
        assert_eq!(report.matches("Action: failed").count(), failures, "{report}");
        assert_eq!((world.told_outside().len(), world.told_inside("away").len()), (0, 1), "once");
    }
}

#[test]
fn of_more_than_so_many_in_an_hour_a_person_has_the_messages_only() {
    let world = World::new().with_away(&FAR[..1], false);
    let ids: Vec<_> = (0..25).map(|_| strangers("away@example.com").comes(&world)).collect();
    ids.iter().for_each(|id| world.fails(*id, 0));
    assert_eq!(world.told_inside("away").len(), 20);
    assert!(ids.iter().all(|id| world.folder("away", *id) == Some(Folder::In)));
    // Another hour begins.
    world
        .store
        .commit_blocking(|txn| {
            let (key, row) = txn.prefix::<ToldInstead>(TOLD_INSTEAD, &[], 1)?.pop().expect("is counted");
            txn.put(TOLD_INSTEAD, &key, &ToldInstead { since: row.since - 3_600_000, ..row })
        })
        .expect("commits");
    let id = strangers("away@example.com").comes(&world);
    world.fails(id, 0);
    assert_eq!(world.told_inside("away").len(), 21);
}

#[test]
fn what_a_stranger_wishes_to_hear_does_not_make_mail_vanish() {
    for notify in ["NEVER", "SUCCESS"] {
        let world = World::new().with_away(&FAR[..1], false);
        let mut request = strangers("away@example.com");
        request.origin.recipients[0].notify = Some(notify.into());
        request.origin.return_content = Some("FULL".into());
        let id = request.comes(&world);
        world.fails(id, 0);
        assert_eq!((world.told_outside().len(), world.told_inside("away").len()), (0, 1), "{notify}");
        assert_eq!(world.folder("away", id), Some(Folder::In), "{notify}");
    }
}

#[test]
fn who_has_the_address_of_a_person_who_forwarded_is_not_told() {
    let world = World::new().with_away(&FAR[..1], false);
    let id = strangers("away@example.com").comes(&world);
    world.remove("away").expect("is removed");
    let mut heir = world.person("heir");
    heir.addresses.push("away@example.com".into());
    let heir = Record::Person(heir);
    let writer = world.store.body_writer(heir.key(), RECORD_KIND);
    let kept = writer.finish(heir.encode()).expect("writes");
    let old = Record::Person(world.known("heir"));
    let replaced = world.store.commit_blocking(move |txn| directory::replace(txn, &old, &heir, &kept));
    replaced.expect("the address is free");
    world.fails(id, 0);
    let told = world.told_inside("alice");
    assert_eq!((told.len(), world.told_inside("heir").len(), world.folder("heir", id)), (1, 0, None));
    assert!(!told[0].contains("phone@far.example"), "where it went is not the postmaster's: {}", told[0]);
    assert_eq!(world.folder("alice", id), Some(Folder::Undeliverable));
}

#[test]
fn of_what_is_quarantined_nothing_comes_to_the_inbox() {
    let quarantined = "dmarc=fail header.from=x.example policy.applied=quarantine";
    for (to, who) in [("away@example.com", "away"), ("dora@example.com", "alice")] {
        let world = World::new().with_away(&FAR[..1], false).with_shadow();
        let mut request = strangers(to);
        request.origin.verdicts.push(quarantined.into());
        let id = request.comes(&world);
        world.fails(id, 0);
        assert_eq!((world.told_outside().len(), world.told_inside(who).len()), (0, 0));
        let rows = world.store.read().expect("reads");
        let junk = folder_prefix(&world.known(who).id, Folder::Junk);
        let junk = rows.prefix::<Entry>(MAILBOXES, &junk, 10).expect("reads");
        assert_eq!((junk.len(), world.folder(who, id)), (2, Some(Folder::Junk)), "it and the report");
    }
}

#[test]
fn without_a_postmaster_it_stays_owed_and_others_are_told() {
    let mut world = World::new().with_away(&FAR[..1], false).with_shadow();
    world.site_with_postmaster("nobody");
    // More than are looked at together.
    let owed: Vec<_> = (0..101).map(|_| strangers("dora@example.com").comes(&world)).collect();
    owed.iter().for_each(|id| world.fails(*id, 0));
    let id = strangers("away@example.com").comes(&world);
    world.fails(id, 0);
    let count = |world: &World| world.store.read().and_then(|rows| rows.count(REPORTS)).expect("reads");
    world.looks_for_reports();
    assert_eq!((count(&world), world.leaving(true).len()), (101, 0));
    assert_eq!(world.folder("away", id), Some(Folder::In));
    world.site_with_postmaster("alice");
    world.looks_for_reports();
    world.looks_for_reports();
    assert_eq!((count(&world), world.leaving(true).len()), (0, 0));
    assert!(owed.iter().all(|id| world.folder("alice", *id) == Some(Folder::Undeliverable)));
}

#[test]
fn what_waits_for_a_postmaster_costs_a_bounded_look_and_others_are_told_in_their_turn() {
    let mut world = World::new().with_away(&FAR[..1], false).with_shadow();
    world.site_with_postmaster("nobody");
    for _ in 0..1_050 {
        let id = strangers("dora@example.com").comes(&world);
        world.fails(id, 0);
    }
    let id = strangers("away@example.com").comes(&world);
    world.fails(id, 0);
    let mut looks = Looks::default();
    world.goes_on_looking(&mut looks);
    assert_eq!(world.folder("away", id), None, "it is behind those that one look takes");
    world.goes_on_looking(&mut looks);
    assert_eq!(world.folder("away", id), Some(Folder::In));
}

#[test]
fn what_a_gateway_refuses_is_told_to_a_sender_only_if_somebody_vouches_for_them() {
    for (verdict, path) in [(None, CAROL), (Some(VOUCHED), CAROL), (None, "")] {
        let world = World::new().with_gateway();
        let mut request = strangers("gone@example.com");
        request.origin.verdicts = verdict.into_iter().map(str::to_owned).collect();
        request.origin.reverse_path = Some(path.to_owned()).filter(|path| !path.is_empty());
        let id = request.comes(&world);
        world.refused_inside(id);
        let (outside, inside) = (world.told_outside().len(), world.told_inside("alice"));
        let expected = match (verdict, path) {
            (_, "") => (0, 0),
            (None, _) => (0, 1),
            (Some(_), _) => (1, 0),
        };
        assert_eq!((outside, inside.len()), expected, "{verdict:?} {path}");
        if let [told] = inside.as_slice() {
            let fields = "Final-Recipient: rfc822; gone@example.com\r\nAction: failed\r\n";
            assert!(told.contains(fields) && told.contains("no such user"), "{told}");
            assert_eq!(world.content_of(id).into_bytes(), request.letter.content, "the message is there");
        }
        let is_here = expected == (0, 1);
        assert_eq!(world.folder("alice", id), is_here.then_some(Folder::Undeliverable));
        let waits = world.store.read().and_then(|rows| rows.count(HANDOVERS)).expect("reads");
        assert_eq!(
            (waits, world.holders_of(request.origin.body)),
            (0, u32::from(is_here)),
            "no more is held"
        );
    }
}
