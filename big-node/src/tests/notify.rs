//! What senders are told of their mail, as they ask: by whom, when, how often, and what is asked of the next host.

mod instead;

use shared::notify::Notify;
use shared::store::StoreError;
use shared::topology::{SMALLEST, Topology};
use shared::unit::{Asked, Outbound};

use super::*;
use crate::delay;
use crate::record::{MAILBOXES, REPORTS, folder_prefix, message_of};
use crate::report::{self, Looks};

const CAROL: &str = "carol@remote.example";
const VOUCHED: &str = "spf=pass smtp.mailfrom=remote.example";
const SIGNED: &str = "dkim=pass header.d=remote.example";

/// Mail from outside, and what its envelope asks for.
struct Request {
    letter: Letter,
    origin: Origin,
}

impl Request {
    fn of(letter: Letter, notify: Option<&str>) -> Self {
        let mut origin = letter.origin();
        origin.recipients[0].notify = notify.map(ToOwned::to_owned);
        origin.verdicts = vec![VOUCHED.into()];
        Self { letter, origin }
    }

    fn from_carol(to: &'static str, notify: &str) -> Self {
        Self::of(Letter::new(CAROL, to), Some(notify))
    }

    fn comes(&self, world: &World) -> MessageId {
        let submitted = match self.origin.channel {
            Channel::Submission { window } => Some(window),
            _ => None,
        };
        let (head, sealed) = self.letter.seal(world, &self.origin, submitted);
        world.apply(&head, Some(&sealed)).expect("is taken");
        self.letter.id
    }
}

impl World {
    /// Has the reports written that are owed; none is owed then.
    fn writes_reports(&self) {
        self.looks_for_reports();
        assert_eq!(self.store.read().and_then(|rows| rows.count(REPORTS)).expect("reads"), 0);
    }

    /// One look for reports that are owed.
    fn looks_for_reports(&self) {
        self.goes_on_looking(&mut Looks::default());
    }

    /// One look for reports, where the last one ended.
    fn goes_on_looking(&self, looks: &mut Looks) {
        let topology = Topology::parse(SMALLEST, "test.toml").expect("is right");
        let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
        runtime
            .block_on(report::write_owed(&self.store, &self.site, &topology, looks, NOW))
            .expect("are written");
    }

    fn content_of(&self, id: MessageId) -> String {
        let message = self.store.read().and_then(|rows| rows.get::<Message>(MESSAGES, &id.0));
        let message = message.expect("reads").expect("is there");
        let reader = self.store.body(message.body()).expect("is kept");
        String::from_utf8(mail::content(reader, &message, 1_000_000).expect("is whole")).expect("text")
    }

    /// What leaves for outside, reports or other mail, in its order.
    fn leaving(&self, reports: bool) -> Vec<Outbound> {
        let units = self.queued().into_iter();
        let outbound =
            units.filter_map(|unit| if let ToEdge::Outbound(unit) = unit { Some(unit) } else { None });
        outbound.filter(|unit| unit.reverse_path.is_none() == reports).collect()
    }

    /// The reports to outside, written now.
    fn told_outside(&self) -> Vec<String> {
        self.writes_reports();
        self.leaving(true).iter().map(|unit| self.content_of(MessageId(unit.message))).collect()
    }

    /// The reports in somebody's mailbox, written now.
    fn told_inside(&self, person: &str) -> Vec<String> {
        self.writes_reports();
        let rows = self.store.read().expect("reads");
        let prefix = folder_prefix(&self.known(person).id, Folder::In);
        let entries = rows.prefix::<Entry>(MAILBOXES, &prefix, 100).expect("reads");
        let texts = entries.iter().map(|(key, _)| self.content_of(message_of(key)));
        texts.filter(|text| text.contains("multipart/report")).collect()
    }

    fn relayed(&self, id: MessageId, recipient: u32, host_reports: bool) {
        let ToBig::Outcome(outcome) = outcome(id.0, DeliveryState::Relayed) else { panic!("an outcome") };
        let text = "250 2.6.0 kept".to_owned();
        let outcome = Outcome { recipient, host_reports, text, status: "2.6.0".into(), ..outcome };
        self.apply(&ToBig::Outcome(outcome), None).expect("is recorded");
    }

    fn fails(&self, id: MessageId, recipient: u32) {
        let ToBig::Outcome(failed) = outcome(id.0, DeliveryState::Failed) else { panic!("an outcome") };
        self.apply(&ToBig::Outcome(Outcome { recipient, ..failed }), None).expect("is recorded");
    }

    fn with_shadow(self) -> Self {
        self.with_shadow_of("dora")
    }

    fn with_shadow_of(self, name: &str) -> Self {
        let target = format!("{name}@far.example");
        let shadow = NewShadow { name: name.into(), target, ..NewShadow::default() };
        let rows = self.store.read().expect("reads");
        let record = directory::new_shadow(&rows, &self.site.policy, shadow, NOW).expect("a shadow");
        self.add(Record::Shadow(record));
        self
    }

    fn with_group(self, members: &[&str]) -> Self {
        let (new, policy) = (NewGroup { name: "team".into(), ..NewGroup::default() }, &self.site.policy);
        let mut group = directory::new_group(policy, &new, NOW).expect("a group");
        let members: Vec<_> = members.iter().map(ToString::to_string).collect();
        directory::join(&self.store.read().expect("reads"), policy, &mut group, &members).expect("are there");
        self.add(Record::Group(group));
        self
    }
}

/// The actions of reports, in order.
fn actions(told: &[String]) -> Vec<&str> {
    told.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("Action: ")).collect()
}

fn asked(notify: Option<&str>, original: Option<&str>) -> Vec<Asked> {
    let notify = notify.map(|notify| notify.parse().expect("a NOTIFY"));
    vec![Asked { count: 1, notify, original: original.map(ToOwned::to_owned) }]
}

#[test]
fn who_asks_and_is_vouched_for_hears_once_that_it_is_delivered() {
    let world = World::new();
    let mut request = Request::from_carol("alice@example.com", "SUCCESS,DELAY");
    request.origin.recipients[0].original = Some("rfc822;al+ice@example.net".into());
    request.origin.envelope_id = Some("QQ 3=1".into());
    request.origin.return_content = Some("FULL".into());
    let id = request.comes(&world);
    let told = world.told_outside();
    let [report] = told.as_slice() else { panic!("one report: {told:?}") };
    for line in [
        "Original-Envelope-Id: QQ 3=1",
        "Original-Recipient: rfc822;al+ice@example.net",
        "Final-Recipient: rfc822; alice@example.com",
        "Action: delivered",
        "Status: 2.1.5",
        "Subject: Delivered: your message arrived",
    ] {
        assert!(report.contains(&format!("\r\n{line}\r\n")), "{line}: {report}");
    }
    assert!(!report.contains("message/rfc822") && report.contains("text/rfc822-headers"), "{report}");
    let unit = &world.leaving(true)[0];
    assert_eq!((&unit.reverse_path, unit.recipients[0].1.as_str()), (&None, CAROL));
    assert_eq!(unit.asked, asked(Some("NEVER"), None), "nobody reports on a report");
    // Neither a repeat nor another look tells it again, nor does what becomes of the report.
    request.comes(&world);
    world.fails(MessageId(unit.message), 0);
    assert_eq!(world.told_outside().len(), 1);
    assert!(world.entry("alice", id).is_some());
}

#[test]
fn nobody_hears_of_a_success_who_may_not_have_asked() {
    let world = World::new();
    let changed = |change: &dyn Fn(&mut Origin)| {
        let mut request = Request::from_carol("alice@example.com", "SUCCESS,FAILURE,DELAY");
        change(&mut request.origin);
        request.comes(&world);
        assert_eq!(world.told_outside(), Vec::<String>::new(), "{:?}", request.origin);
    };
    changed(&|origin| origin.recipients[0].notify = Some("FAILURE,DELAY".into()));
    changed(&|origin| origin.recipients[0].notify = Some("NEVER".into()));
    changed(&|origin| origin.recipients[0].notify = Some("an edge wrote this".into()));
    changed(&|origin| origin.recipients[0].notify = None);
    // Whoever writes in another's name would have us write to them.
    changed(&|origin| origin.verdicts.clear());
    changed(&|origin| origin.verdicts = vec!["spf=pass smtp.mailfrom=other.example".into()]);
    changed(&|origin| origin.verdicts = vec!["spf=softfail smtp.mailfrom=remote.example".into()]);
    // Whoever has a letter that somebody has signed can send it again in the name of anybody in that domain.
    let signed = || vec!["spf=fail smtp.mailfrom=remote.example".into(), SIGNED.into()];
    changed(&|origin| {
        (origin.reverse_path, origin.verdicts) = (Some("victim@remote.example".into()), signed());
    });
    changed(&|origin| {
        origin.verdicts = signed();
        origin.from.push(Mailbox { name: String::new(), address: "victim@remote.example".into() });
    });
    changed(&|origin| (origin.from, origin.verdicts) = (Vec::new(), signed()));
    changed(&|origin| {
        origin.verdicts.push("dmarc=fail header.from=x.example policy.applied=quarantine".into())
    });
    changed(&|origin| origin.reverse_path = None);
    // What leads nowhere is the postmaster's.
    changed(&|origin| origin.recipients[0].address = "gone@example.com".into());
}

#[test]
fn a_signature_vouches_for_the_author_of_what_was_signed() {
    let world = World::new();
    let mut request = Request::of(Letter::new("Carol@Remote.example", "alice@example.com"), Some("SUCCESS"));
    request.origin.verdicts = vec![SIGNED.into()];
    request.origin.from[0].address = CAROL.into();
    request.comes(&world);
    assert_eq!(actions(&world.told_outside()), ["delivered"]);
}

#[test]
fn reports_to_outside_are_the_same_whatever_is_known_together() {
    let reports = |together: bool| {
        let world = World::new().with_shadow().with_shadow_of("emil");
        let mut letter = Letter::new(CAROL, "dora@example.com");
        letter.id = MessageId::from_parts(NOW, [3; 10]);
        let mut request = Request::of(letter, Some("SUCCESS,FAILURE"));
        request.origin.recipients.push(OriginalRecipient::new("emil@example.com"));
        let alice = OriginalRecipient::new("alice@example.com");
        request.origin.recipients.push(OriginalRecipient { notify: Some("SUCCESS".into()), ..alice });
        let id = request.comes(&world);
        if !together {
            world.writes_reports();
        }
        world.relayed(id, 0, false);
        if !together {
            world.writes_reports();
        }
        world.fails(id, 1);
        world.writes_reports();
        let mut ids: Vec<_> = world.leaving(true).iter().map(|unit| unit.message).collect();
        ids.sort_unstable();
        ids
    };
    let apart = reports(false);
    assert_eq!((apart.len(), reports(true)), (3, apart));
}

#[test]
fn a_big_that_went_back_asks_of_many_reports_at_once() {
    let world = World::new();
    world.store.commit_blocking(|txn| lane::restored(txn, NOW)).expect("commits");
    for to in ["alice@example.com", "bob@example.com"] {
        Request::from_carol(to, "SUCCESS").comes(&world);
    }
    assert_eq!(world.told_outside().len(), 2);
    let mut made: Vec<_> = world.leaving(true).iter().map(|unit| (unit.message, vec![(0, 0)])).collect();
    made.sort_unstable();
    let lists = world.queued().into_iter().filter_map(|unit| match unit {
        ToEdge::Unsettled(list) => Some((list.from, list.to, list.messages)),
        _ => None,
    });
    // What the edge holds back of any other message it keeps.
    assert_eq!(lists.collect::<Vec<_>>(), [(made[0].0, made[0].0, made)]);
}

#[test]
fn what_is_asked_by_any_way_to_a_recipient_counts() {
    for (team, named, state, expected) in [
        (Some("NEVER"), None, DeliveryState::Failed, &["failed"][..]),
        (Some("NEVER"), Some("FAILURE"), DeliveryState::Failed, &["failed"]),
        (None, Some("NEVER"), DeliveryState::Failed, &["failed"]),
        (Some("NEVER"), Some("NEVER"), DeliveryState::Failed, &[]),
        (Some("NEVER"), Some("SUCCESS"), DeliveryState::Relayed, &["relayed"]),
        (Some("SUCCESS"), Some("NEVER"), DeliveryState::Relayed, &["expanded"]),
    ] {
        for team_first in [true, false] {
            let world = World::new().with_group(&["x@far.example"]);
            let window = world.window("bob").window.window;
            let letter = Letter::submitted(window, "bob@example.com", "team@example.com");
            let mut request = Request::of(letter, team);
            let directly = OriginalRecipient::new("x@far.example");
            let notify = named.map(ToOwned::to_owned);
            request.origin.recipients.push(OriginalRecipient { notify, ..directly });
            if !team_first {
                request.origin.recipients.reverse();
            }
            let id = request.comes(&world);
            match state {
                DeliveryState::Failed => world.fails(id, 0),
                _ => world.relayed(id, 0, false),
            }
            let told = world.told_inside("bob");
            assert_eq!(actions(&told), expected, "{team:?} {named:?} {team_first}: {told:?}");
            let is_named = told.iter().all(|text| text.contains("Final-Recipient: rfc822; x@far.example"));
            assert!(is_named || expected == ["expanded"], "{told:?}");
        }
    }
}

#[test]
fn a_group_to_which_a_person_forwards_is_not_told() {
    let world = World::new().with_group(&["x@far.example", "y@far.example"]);
    // Nobody can say so, but the address may have become the group's after the forward was entered.
    let new = NewPerson { name: "away".into(), ..NewPerson::default() };
    let person = directory::new_person(&world.store.read().expect("reads"), &world.site.policy, new, NOW);
    let forward = vec!["team@example.com".into()];
    world.add(Record::Person(Person { forward, ..person.expect("a good person") }));
    let id = Request::from_carol("away@example.com", "SUCCESS").comes(&world);
    assert_eq!(world.told_outside(), Vec::<String>::new());
    world.relayed(id, 0, false);
    world.relayed(id, 1, false);
    let told = world.told_outside();
    assert_eq!(actions(&told), ["delivered"], "{told:?}");
    assert!(told[0].contains("Final-Recipient: rfc822; away@example.com\r\n"), "{told:?}");
}

#[test]
fn a_big_that_went_back_makes_the_same_report_again() {
    let letter = |content: &str| {
        let mut letter = Letter::new(CAROL, "alice@example.com");
        letter.id = MessageId::from_parts(NOW, [3; 10]);
        letter.content = content.as_bytes().to_vec();
        letter
    };
    let report = |content, went_back: bool| {
        let world = World::new();
        if went_back {
            world.store.commit_blocking(|txn| lane::restored(txn, NOW)).expect("commits");
        }
        Request::of(letter(content), Some("SUCCESS")).comes(&world);
        let told = world.told_outside();
        let waits = world.queued().into_iter().filter_map(|unit| match unit {
            ToEdge::Unsettled(list) => Some(list.messages),
            _ => None,
        });
        (world.leaving(true)[0].message, told, waits.collect::<Vec<_>>())
    };
    let content = "From: carol@remote.example\r\n\r\ntext\r\n";
    let (first, told, waits) = report(content, false);
    assert_eq!(waits, Vec::<Vec<_>>::new());
    // The edge, which knows the unit, is asked whether anybody waits of it.
    assert_eq!(report(content, true), (first, told, vec![vec![(first, vec![(0, 0)])]]));
    assert_ne!(report("From: carol@remote.example\r\nTo: alice\r\n\r\ntext\r\n", false).0, first);
}

#[test]
fn what_comes_about_at_two_times_is_in_two_reports_whenever_they_are_written() {
    let world = World::new().with_shadow();
    let mut request = Request::from_carol("alice@example.com", "SUCCESS");
    let dora =
        OriginalRecipient { notify: Some("SUCCESS".into()), ..OriginalRecipient::new("dora@example.com") };
    request.origin.recipients.push(dora);
    let id = request.comes(&world);
    let ToBig::Outcome(relayed) = outcome(id.0, DeliveryState::Relayed) else { panic!("an outcome") };
    world.apply(&ToBig::Outcome(Outcome { at: NOW + 5, ..relayed }), None).expect("is recorded");
    let told = world.told_outside();
    let actions: Vec<_> = told.iter().map(|text| text.matches("\r\nAction: ").count()).collect();
    assert_eq!(actions, [1, 1], "{told:?}");
    assert!(told[0].contains("Action: delivered") && told[1].contains("Action: relayed"), "{told:?}");
}

#[test]
fn who_is_left_when_a_message_is_sent_once_more_is_asked_for_their_own() {
    let world = World::new();
    let id = world.sends(&["one@remote.example", "two@remote.example"], "hello");
    let wishes = ["never", "success"];
    let ask = move |txn: &mut Txn<'_>| {
        for (index, notify) in (0..).zip(wishes) {
            let key = mail::recipient_key(id, index);
            let row = txn.get::<Recipient>(RECIPIENTS, &key)?.expect("is there");
            let (notify, original) = (notify.parse().ok(), Some(format!("rfc822;{index}@remote.example")));
            txn.put(RECIPIENTS, &key, &Recipient { notify, original, ..row })?;
        }
        Ok::<_, StoreError>(())
    };
    world.store.commit_blocking(ask).expect("commits");
    let units = lane::units(&world.store.read().expect("reads"), 2, 1, 10).expect("reads");
    let queued = |(_, unit): (u64, lane::QueuedUnit)| {
        let Some(ToEdge::Outbound(outbound)) = decode(&unit.head) else { return None };
        let asked = [asked(Some("never"), None), asked(Some("success"), None)].concat();
        Some(lane::QueuedUnit { head: encode(&ToEdge::Outbound(Outbound { asked, ..outbound })), ..unit })
    };
    let unit = units.into_iter().find_map(queued).expect("is queued");
    world.told(id, 0, DeliveryState::Relayed);
    let site = Arc::clone(&world.site);
    let again = world.store.commit_blocking(move |txn| reconcile::again(txn, &site, unit)).expect("commits");
    let Some(ToEdge::Outbound(again)) = again.as_ref().and_then(|unit| decode(&unit.head)) else {
        panic!("somebody waits")
    };
    assert_eq!(again.recipients, [(1, "two@remote.example".to_owned())]);
    assert_eq!(again.asked, asked(Some("success"), Some("rfc822;1@remote.example")));
}

#[test]
fn an_alias_passes_on_what_is_asked_and_the_next_host_reports_or_else_we_do() {
    for host_reports in [true, false] {
        let world = World::new().with_shadow();
        let mut request = Request::from_carol("dora@example.com", "SUCCESS");
        request.origin.envelope_id = Some("id".into());
        request.origin.return_content = Some("HDRS".into());
        let id = request.comes(&world);
        let unit = &world.leaving(false)[0];
        assert_eq!(unit.asked, asked(Some("SUCCESS"), Some("rfc822;dora@example.com")));
        assert_eq!((unit.envelope_id.as_deref(), unit.returns), (Some("id"), request.origin.returns()));
        world.relayed(id, 0, host_reports);
        let told = world.told_outside();
        assert_eq!(told.len(), usize::from(!host_reports), "{told:?}");
        for report in told {
            let fields = "Final-Recipient: rfc822; dora@example.com\r\nAction: relayed\r\nStatus: 2.6.0\r\n";
            assert!(report.contains(fields) && report.contains("Original-Envelope-Id: id\r\n"), "{report}");
        }
    }
    // What is not as an edge takes it is not passed on, for a host behind a gateway would read it as commands.
    let world = World::new().with_shadow();
    let mut request = Request::from_carol("dora@example.com", "SUCCESS");
    request.origin.recipients[0].original = Some("x\r\nDATA;y".into());
    request.origin.envelope_id = Some("a".repeat(200));
    request.comes(&world);
    let unit = &world.leaving(false)[0];
    assert_eq!(
        (&unit.asked, &unit.envelope_id),
        (&asked(Some("SUCCESS"), Some("rfc822;dora@example.com")), &None)
    );
    // Who is not vouched for has no other host report in their name either.
    let world = World::new().with_shadow();
    let mut request = Request::from_carol("dora@example.com", "SUCCESS,FAILURE");
    request.origin.verdicts.clear();
    let id = request.comes(&world);
    assert_eq!(world.leaving(false)[0].asked, asked(Some("FAILURE"), Some("rfc822;dora@example.com")));
    world.relayed(id, 0, false);
    assert_eq!(world.told_outside(), Vec::<String>::new());
}

#[test]
fn failures_are_told_unless_that_is_not_wanted() {
    for (notify, is_told) in
        [(None, true), (Some("FAILURE"), true), (Some("NEVER"), false), (Some("SUCCESS,DELAY"), false)]
    {
        let world = World::new().with_shadow();
        let id = Request::of(Letter::new(CAROL, "dora@example.com"), notify).comes(&world);
        world.fails(id, 0);
        assert_eq!(world.told_outside().len(), usize::from(is_told), "{notify:?}");
    }
    // All of it comes back where that is asked for.
    let world = World::new();
    let window = world.window("alice").window.window;
    let letter = Letter::submitted(window, "alice@example.com", "dave@far.example");
    let mut request = Request::of(letter, None);
    request.origin.return_content = Some("FULL".into());
    let id = request.comes(&world);
    world.fails(id, 0);
    let told = world.told_inside("alice");
    assert!(
        told.len() == 1 && told[0].contains("message/rfc822\r\n\r\nFrom: alice@example.com\r\n"),
        "{told:?}"
    );
    assert!(told[0].contains("\r\n\r\ntext\r\n"), "{told:?}");
}

#[test]
fn that_a_person_forwards_is_not_told_and_a_copy_at_home_is_the_success() {
    for keep_copy in [false, true] {
        let world = World::new();
        let forward = ["phone@far.example", "other@far.example"].map(ToOwned::to_owned).to_vec();
        world.add_person(NewPerson { name: "away".into(), forward, keep_copy, ..NewPerson::default() });
        let id = Request::from_carol("away@example.com", "SUCCESS,FAILURE").comes(&world);
        let unit = &world.leaving(false)[0];
        let original = Some("rfc822;away@example.com".into());
        let notify = Some(Notify { failure: true, ..Notify::NEVER });
        assert_eq!(unit.asked, [Asked { count: 2, notify, original }]);
        assert_eq!(
            world.told_outside().len(),
            usize::from(keep_copy),
            "it is in the mailbox already, or not"
        );
        world.relayed(id, 0, true);
        world.relayed(id, 1, true);
        let told = world.told_outside();
        assert_eq!(told.len(), 1, "once: {told:?}");
        let fields = "Final-Recipient: rfc822; away@example.com\r\nAction: delivered\r\nStatus: 2.1.5\r\n";
        assert!(told[0].contains(fields) && !told[0].contains("far.example"), "{}", told[0]);
    }
}

#[test]
fn a_group_is_expanded_and_its_members_are_asked_for_no_success() {
    let world = World::new().with_group(&["alice", "bob", "x@far.example"]);
    let window = world.window("bob").window.window;
    let letter = Letter::submitted(window, "bob@example.com", "team@example.com");
    let id = Request::of(letter, Some("SUCCESS,FAILURE")).comes(&world);
    assert_eq!(
        world.leaving(false)[0].asked,
        asked(Some("FAILURE"), Some("rfc822;team@example.com")),
        "RFC 3461 §5.2.7.3"
    );
    let told = world.told_inside("bob");
    let fields = "Final-Recipient: rfc822; team@example.com\r\nAction: expanded\r\nStatus: 2.1.5\r\n";
    assert!(told.len() == 1 && told[0].contains(fields), "{told:?}");
    assert_eq!(told[0].matches("Final-Recipient").count(), 1, "{}", told[0]);
    world.relayed(id, 2, false);
    assert_eq!(world.told_inside("bob").len(), 1);
    // A failure of one of them is still told.
    let letter = Letter::submitted(window, "bob@example.com", "team@example.com");
    let id = Request::of(letter, Some("FAILURE")).comes(&world);
    world.fails(id, 2);
    let told = world.told_inside("bob");
    assert!(told.len() == 2 && told.iter().any(|text| text.contains("Action: failed")), "{told:?}");
}

#[test]
fn a_delay_is_told_unless_that_is_not_wanted() {
    let text = SMALLEST.replace("[link]", "[edge.outbound]\ndelay_notice = 3_600\n[link]");
    let topology = Topology::parse(&text, "test.toml").expect("is right");
    let world = World::new();
    let window = world.window("alice").window.window;
    for notify in [None, Some("DELAY"), Some("SUCCESS,FAILURE"), Some("NEVER")] {
        Request::of(Letter::submitted(window, "alice@example.com", "late@far.example"), notify).comes(&world);
    }
    let lives = |txn: &mut Txn<'_>| shared::age::live_on(txn, Duration::from_secs(2 * 3_600), NOW);
    world.store.commit_blocking(lives).expect("commits");
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    runtime.block_on(delay::tell_due(&world.store, &world.site, &topology)).expect("is done");
    let told = world.told_inside("alice");
    assert_eq!(told.iter().filter(|text| text.contains("Action: delayed")).count(), 2, "{told:?}");
}
