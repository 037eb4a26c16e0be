//! Redirects: who gets a message in another one's place, and that nobody does before the edge has given that one up.

use shared::store::BodyKey;
use shared::unit::{Outbound, Revise, ReviseMode, ReviseResult, is_redirect};

use super::dkim::with_a_key;
use super::revise::amendment;
use super::*;
use crate::directory::{NewGateway, Reach};
use crate::record::{REDIRECTS, Redirect, UNSETTLED};
use crate::redirect::{self, Ordered};
use crate::request::RecipientView;
use crate::revise::{self, Amendment};

const OLD: &str = "carol@remote.example";
const NEW: &str = "carol@elsewhere.example";
const PENDING: ReviseResult = ReviseResult::Pending;

impl World {
    fn redirects(&self, id: MessageId, from: &'static str, to: &'static str) -> Result<Ordered, String> {
        let site = Arc::clone(&self.site);
        let ordered = self.store.commit_blocking(move |txn| redirect::order(txn, &site, id, (from, to), NOW));
        ordered.map(shared::store::Committed::into_inner).map_err(|refused| refused.to_string())
    }

    /// What the edge was asked to give up, and what it was given for the index of a redirect.
    fn given_up_and_sent(&self) -> (Vec<Revise>, Vec<Outbound>) {
        let (mut given_up, mut sent) = (Vec::new(), Vec::new());
        for unit in self.queued() {
            match unit {
                ToEdge::Revise(revise) if is_redirect(revise.revision) => given_up.push(revise),
                ToEdge::Outbound(outbound)
                    if outbound.recipients.iter().any(|(index, _)| is_redirect(*index)) =>
                {
                    sent.push(outbound);
                }
                _ => {}
            }
        }
        (given_up, sent)
    }

    fn shown(&self, id: MessageId) -> Vec<RecipientView> {
        crate::desk::recipients_of(&self.store.read().expect("reads"), id).expect("reads")
    }

    fn waits(&self, id: MessageId) -> Vec<u32> {
        let rows = self.store.read().expect("reads");
        let rows = rows.prefix::<crate::record::Named>(UNSETTLED, &id.0, 100).expect("reads");
        rows.iter().map(|(key, _)| revise::index_of(key)).collect()
    }

    /// How many hold the body of a message.
    fn holders(&self, id: MessageId) -> u64 {
        let rows = self.store.read().expect("reads");
        let key =
            BodyKey(rows.get::<Message>(MESSAGES, &id.0).expect("reads").expect("is there").origin.body);
        rows.body_use(key).expect("reads").expect("is there").references.into()
    }

    fn way(&self, id: MessageId) -> String {
        let steps = shared::trace::steps(&self.store.read().expect("reads"), "big", id).expect("reads");
        steps.into_iter().map(|step| format!("{}\n", step.what)).collect()
    }
}

/// A world whose mail is signed, and a message for carol, who is told of nothing but a success.
fn world() -> (World, MessageId) {
    let mut world = World::new();
    with_a_key(&mut world);
    let id = world.sends(&[OLD], "the text");
    world
        .store
        .commit_blocking(move |txn| {
            let key = mail::recipient_key(id, 0);
            let row = txn.get::<Recipient>(RECIPIENTS, &key)?.expect("is there");
            let notify = Some("SUCCESS".parse().expect("a NOTIFY"));
            txn.put(RECIPIENTS, &key, &Recipient { notify, ..row })
        })
        .expect("commits");
    (world, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_address_gets_the_message_once_and_only_after_the_edge_has_given_the_old_one_up() {
    block_in_place(|| {
        let (world, id) = world();
        let ordered = world.redirects(id, OLD, NEW).expect("is ordered");
        let (given_up, sent) = world.given_up_and_sent();
        let [give_up] = given_up.as_slice() else { panic!("{given_up:?}") };
        assert_eq!((give_up.mode, give_up.revision), (ReviseMode::Withdraw, ordered.number));
        assert_eq!(give_up.recipients, [(0, 0)]);
        assert!(sent.is_empty(), "nothing leaves for the new address yet");
        let shown = world.shown(id);
        assert_eq!((shown.len(), shown[0].redirect.as_deref()), (1, Some(NEW)));
        assert!(world.redirects(id, OLD, "x@y.example").expect_err("one is under way").contains(NEW));

        world.reports(id, 0, ordered.number, ReviseResult::Withdrawn).expect("is recorded");
        // The edge says it again to a big that may have forgotten it.
        world.reports(id, 0, ordered.number, ReviseResult::Withdrawn).expect("is known");
        let (_, sent) = world.given_up_and_sent();
        let [sent] = sent.as_slice() else { panic!("it is sent once: {sent:?}") };
        assert_eq!(sent.recipients, [(ordered.number, NEW.to_owned())]);
        assert!(sent.signatures.contains("d=example.com"), "it is signed as before: {sent:?}");
        // RFC 3461 §5.2.7: what was asked goes along, and the old address is who was meant.
        let [asked] = sent.asked.as_slice() else { panic!("{sent:?}") };
        assert_eq!(asked.original.as_deref(), Some("rfc822;carol@remote.example"));
        assert_eq!(asked.notify.map(|notify| (notify.success, notify.failure)), Some((true, false)));
        assert_eq!(world.waits(id), [ordered.number]);
        let shown = world.shown(id);
        let states: Vec<_> =
            shown.iter().map(|row| (row.address.as_str(), row.state, row.via.as_deref())).collect();
        let (old, new) = (DeliveryState::Withdrawn, DeliveryState::Queued);
        assert_eq!(states, [(OLD, old, None), (NEW, new, Some(OLD))]);
        assert_eq!(
            (shown[0].text.as_str(), &shown[0].redirect),
            ("redirected to carol@elsewhere.example", &None)
        );
        assert!(world.way(id).contains("carol@remote.example: redirected to carol@elsewhere.example"));
        // An edge that would have it left all the same cannot say so of the new one's row.
        world.told(id, ordered.number, DeliveryState::Relayed);
        assert_eq!(world.shown(id)[1].state, DeliveryState::Relayed);
        assert!(world.waits(id).is_empty());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_left_is_not_redirected() {
    block_in_place(|| {
        let (world, id) = world();
        let before = world.holders(id);
        let ordered = world.redirects(id, OLD, NEW).expect("is ordered");
        assert_eq!(world.holders(id), before + 1, "the text stays for the new address");
        world.told(id, 0, DeliveryState::Relayed);
        world.reports(id, 0, ordered.number, ReviseResult::TooLate).expect("is recorded");
        assert_eq!(world.holders(id), before);
        assert!(world.given_up_and_sent().1.is_empty());
        let shown = world.shown(id);
        assert_eq!(shown.iter().map(|row| row.state).collect::<Vec<_>>(), [DeliveryState::Relayed]);
        let result = redirect::result(&world.store.read().expect("reads"), &ordered).expect("reads");
        assert_eq!(result.map(|(result, _)| result), Some(ReviseResult::TooLate));
        assert!(
            world.way(id).contains("not redirected to carol@elsewhere.example: too late"),
            "{}",
            world.way(id)
        );
        // No notice follows it, as one follows a revision.
        let notices = world.store.read().expect("reads").count(crate::record::NOTICES).expect("reads");
        assert_eq!(notices, 0);
        let refused = world.redirects(id, OLD, NEW).expect_err("it has left");
        assert!(refused.contains("relayed by mx.remote.example"), "{refused}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_from_who_waits_to_an_address_outside_that_has_it_not() {
    block_in_place(|| {
        let world = World::new();
        let gateway = NewGateway {
            name: "inside".into(),
            reach: Reach { lmtp: vec!["10.0.0.5:24".into()], ..Reach::default() },
            domains: vec!["legacy.example".into()],
            ..NewGateway::default()
        };
        let gateway = directory::new_gateway(&world.store.read().expect("reads"), &gateway, NOW);
        world.add(Record::Gateway(gateway.expect("a good gateway")));
        let all = [OLD, "dave@remote.example", "bob@example.com", "dora@legacy.example"];
        let id = world.sends(&all, "the text");
        let cases = [
            ("nobody@remote.example", NEW, "does not go to nobody@remote.example"),
            ("bob@example.com", NEW, "does not wait for bob@example.com any more: delivered"),
            ("dora@legacy.example", NEW, "by the gateway inside"),
            (OLD, "alice@example.com", "an address of ours"),
            (OLD, "nobody@example.com", "an address of ours"),
            (OLD, "ed@legacy.example", "reached by the gateway inside"),
            (OLD, "Carol@remote.EXAMPLE", "a recipient of"),
            (OLD, "dave@remote.example", "a recipient of"),
            (OLD, "carol elsewhere", "carol elsewhere"),
            (OLD, "a@b@c", "a@b@c"),
        ];
        for (from, to, why) in cases {
            let refused = world.redirects(id, from, to).expect_err(to);
            assert!(refused.contains(why), "{from} to {to}: {refused}");
        }
        let other = MessageId([1; 16]);
        assert!(world.redirects(other, OLD, NEW).expect_err("is not here").contains("big knows nothing of"));
        world.redirects(id, "dave@remote.example", NEW).expect("is ordered");
        let twice = world.redirects(id, OLD, NEW).expect_err("it would have it twice");
        assert!(twice.contains("already, from another address"), "{twice}");
        let outcome = Outcome {
            message: id.0,
            recipient: 0,
            state: DeliveryState::Deferred,
            at: NOW,
            host: None,
            tls: None,
            relay: None,
            text: "the connection was lost".into(),
            status: "4.4.2".into(),
            in_doubt: true,
            host_reports: false,
            next_attempt_at: Some(NOW + 1),
        };
        world.apply(&ToBig::Outcome(outcome), None).expect("is recorded");
        let doubt = world.redirects(id, OLD, "x@elsewhere.example").expect_err("it may have left");
        assert!(doubt.contains("may have"), "{doubt}");
        let given_up = world.given_up_and_sent().0;
        assert_eq!(given_up.len(), 1, "what was refused asks the edge for nothing: {given_up:?}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_of_the_old_address_goes_to_the_new_one_and_is_revised_there() {
    let (world, id) = block_in_place(world);
    let author = |what| world.amends("alice", id, what);
    author(amendment(ReviseMode::Replace, "the new text")).await.expect("is revised");
    let pending = block_in_place(|| world.redirects(id, OLD, NEW)).expect_err("revision 1 is not decided");
    assert!(pending.contains("revision 1"), "{pending}");
    block_in_place(|| world.reports(id, 0, 1, ReviseResult::Replaced)).expect("is recorded");
    let ordered = block_in_place(|| world.redirects(id, OLD, NEW)).expect("is ordered");
    // What its author adds while the edge decides goes to whoever gets it.
    let status = author(amendment(ReviseMode::Append, "P.S.")).await.expect("is entered");
    assert_eq!(status.recipients[0].revised.as_ref().map(|revised| revised.result), Some(PENDING));
    block_in_place(|| {
        assert!(world.way(id).contains("revision 2 is what goes to carol@elsewhere.example"));
        world.reports(id, 0, ordered.number, ReviseResult::Withdrawn).expect("is recorded");
        // It came to the edge behind the redirect.
        world.reports(id, 0, 2, ReviseResult::TooLate).expect("is recorded");
    });
    let sent = block_in_place(|| world.given_up_and_sent()).1;
    let [sent] = sent.as_slice() else { panic!("it is sent once: {sent:?}") };
    assert_eq!(sent.revision, 2, "as its author last wrote it");
    assert!(sent.signatures.contains("d=example.com"), "{sent:?}");
    let shown = block_in_place(|| world.shown(id));
    let results = shown.iter().map(|row| row.revised.as_ref().map(|revised| revised.result));
    assert_eq!(results.collect::<Vec<_>>(), [Some(ReviseResult::Replaced); 2]);
    // What is added is added to that.
    author(Amendment { recipients: vec![NEW.into()], ..amendment(ReviseMode::Append, "P.P.S.") })
        .await
        .expect("is revised");
    let rows = world.store.read().expect("reads");
    let last = mail::shown(&rows, id, 3).expect("reads").expect("is there");
    let content = world.store.body(last.body()).and_then(|reader| mail::content(reader, &last, 1 << 20));
    let text = shared::mime::text_of(&content.expect("is whole"));
    assert!(text.contains("the new text") && text.contains("P.P.S.") && text.contains("\nP.S."), "{text}");
}

/// The edge may have decided by the redirect's number, by the withdrawal's, or not at all: it has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_author_withdraws_while_the_edge_decides_goes_nowhere() {
    let (too_late, withdrawn) = (ReviseResult::TooLate, ReviseResult::Withdrawn);
    // What the edge says of the redirect and of the withdrawal, which of them first, and what it came to.
    let cases = [
        ((withdrawn, too_late), true, withdrawn),
        ((withdrawn, too_late), false, withdrawn),
        ((too_late, withdrawn), true, withdrawn),
        ((too_late, withdrawn), false, withdrawn),
        ((too_late, too_late), true, too_late),
    ];
    for ((of_redirect, of_author), redirect_first, came_to) in cases {
        let (world, id) = block_in_place(world);
        let before = block_in_place(|| world.holders(id));
        let ordered = block_in_place(|| world.redirects(id, OLD, NEW)).expect("is ordered");
        world.amends("alice", id, amendment(ReviseMode::Withdraw, "")).await.expect("is withdrawn");
        block_in_place(|| {
            // That it is revised holds the original, the redirect no more.
            assert_eq!(world.holders(id), before, "its author is shown the withdrawal, and it is revised");
            assert_eq!(world.shown(id)[0].redirect, None);
            let mut said = [(ordered.number, of_redirect), (1, of_author)];
            if !redirect_first {
                said.reverse();
            }
            for (number, result) in said {
                world.reports(id, 0, number, result).expect("is recorded");
            }
            assert!(world.given_up_and_sent().1.is_empty(), "nothing goes to the new address");
            let shown = world.shown(id);
            let [who] = shown.as_slice() else { panic!("{shown:?}") };
            assert_eq!(who.revised.as_ref().map(|revised| revised.result), Some(came_to), "{who:?}");
            assert_eq!(who.state == DeliveryState::Withdrawn, came_to == withdrawn, "{who:?}");
            let result = redirect::result(&world.store.read().expect("reads"), &ordered).expect("reads");
            let (result, why) = result.expect("is decided");
            assert_eq!((result, why.as_str()), (ReviseResult::Refused, "its author has withdrawn it"));
            let way = world.way(id);
            let ended = "not redirected to carol@elsewhere.example: its author has withdrawn it";
            assert!(way.contains(ended), "{way}");
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_was_composed_before_there_was_a_new_address_is_composed_again() {
    let (world, id) = block_in_place(world);
    let (before, ordered, alice) = block_in_place(|| {
        let before = world.store.read().expect("reads");
        let ordered = world.redirects(id, OLD, NEW).expect("is ordered");
        world.reports(id, 0, ordered.number, ReviseResult::Withdrawn).expect("is recorded");
        (before, ordered, world.known("alice"))
    });
    let withdrawal = amendment(ReviseMode::Withdraw, "");
    let nothing = |_: &mut Txn<'_>| Ok(());
    let refused =
        revise::amend_as_of(&world.store, &world.site, before, &alice, id, (&withdrawal, nothing)).await;
    let refused = refused.expect_err("it is for the old address only").to_string();
    assert!(refused.contains("redirected to another address meanwhile"), "{refused}");
    let status = world.amends("alice", id, withdrawal).await.expect("is withdrawn");
    assert_eq!(status.recipients[1].revised.as_ref().map(|revised| revised.result), Some(PENDING));
    block_in_place(|| world.reports(id, ordered.number, 1, ReviseResult::Withdrawn)).expect("is recorded");
    assert_eq!(block_in_place(|| world.shown(id))[1].state, DeliveryState::Withdrawn);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_may_have_it_is_none_to_redirect_it_to() {
    block_in_place(|| {
        let world = World::new();
        let id = world.sends(&[OLD, "dave@remote.example"], "the text");
        let fails = |in_doubt| {
            let changed = world.store.commit_blocking(move |txn| {
                let key = mail::recipient_key(id, 1);
                let row = txn.get::<Recipient>(RECIPIENTS, &key)?.expect("is there");
                let text = "given up".into();
                txn.put(RECIPIENTS, &key, &Recipient { state: DeliveryState::Failed, text, in_doubt, ..row })
            });
            changed.expect("commits");
        };
        fails(true);
        let refused = world.redirects(id, OLD, "dave@remote.example").expect_err("it may have it");
        assert!(refused.contains("may have it (failed: given up)"), "{refused}");
        fails(false);
        world.redirects(id, OLD, "dave@remote.example").expect("it has it not");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_went_back_is_asked_again_and_given_the_message_again() {
    block_in_place(|| {
        let (world, id) = world();
        let ordered = world.redirects(id, OLD, NEW).expect("is ordered");
        let units = |world: &World| {
            let rows = world.store.read().expect("reads");
            let units = (0..4).flat_map(|lane| lane::units(&rows, lane, 1, usize::MAX).expect("reads"));
            let of_redirect = |head: &[u8]| match decode::<ToEdge>(head) {
                Some(ToEdge::Revise(revise)) => is_redirect(revise.revision),
                Some(ToEdge::Outbound(outbound)) => is_redirect(outbound.recipients[0].0),
                _ => false,
            };
            let all: Vec<Id> =
                units.filter(|(_, unit)| of_redirect(&unit.head)).map(|(_, unit)| unit.id).collect();
            all
        };
        let went_back = |world: &World| {
            let site = Arc::clone(&world.site);
            world.store.commit_blocking(move |txn| reconcile::tell_anew(txn, &site)).expect("commits");
        };
        went_back(&world);
        let asked = units(&world);
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0], asked[1], "the same unit, which is applied once");
        world.reports(id, 0, ordered.number, ReviseResult::Withdrawn).expect("is recorded");
        went_back(&world);
        let sent = units(&world).split_off(2);
        assert_eq!(sent.len(), 2, "the message for the new address, and again");
        assert_eq!(sent[0], sent[1]);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_that_was_restored_gives_no_redirect_the_number_of_one_it_has_forgotten() {
    block_in_place(|| {
        let (before, id) = world();
        let first = before.redirects(id, OLD, NEW).expect("is ordered").number;
        // What the backup has of it is nothing.
        let (forgotten, other) = world();
        forgotten.store.commit_blocking(move |txn| lane::restored(txn, NOW)).expect("commits");
        let second = forgotten.redirects(other, OLD, NEW).expect("is ordered").number;
        assert!(is_redirect(second) && second > first, "{first} {second}");
        // An edge cannot say of one that was made since that it was forgotten.
        forgotten.reports(other, 0, second + 1, ReviseResult::Withdrawn).expect("may be so");
        assert_eq!(forgotten.shown(other)[0].state, DeliveryState::Queued);
        // Of the forgotten one it says that it has given the old address up: its author is told.
        forgotten.reports(other, 0, first, ReviseResult::Withdrawn).expect("may be so");
        let shown = forgotten.shown(other);
        assert_eq!((shown.len(), shown[0].state), (1, DeliveryState::Failed));
        assert!(
            shown[0].text.contains("it was redirected before this node was restored"),
            "{}",
            shown[0].text
        );
        // It may be the address that another one leads to.
        let twice = forgotten.store.read().expect("reads");
        let row = twice.get::<Recipient>(RECIPIENTS, &mail::recipient_key(other, 0)).expect("reads");
        assert!(row.expect("is there").in_doubt);
        // So the second one comes to nothing.
        forgotten.reports(other, 0, second, ReviseResult::TooLate).expect("is recorded");
        assert!(forgotten.given_up_and_sent().1.is_empty());
        let rows = forgotten.store.read().expect("reads");
        assert!(rows.prefix::<Redirect>(REDIRECTS, &[], 1).expect("reads").is_empty());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_the_first_of_two_restores_has_forgotten_is_told_whatever_was_made_between() {
    block_in_place(|| {
        let (before, id) = world();
        let forgotten = before.redirects(id, OLD, NEW).expect("is ordered").number;
        let (world, id) = world();
        world.store.commit_blocking(move |txn| lane::restored(txn, NOW)).expect("commits");
        let between = world.redirects(id, OLD, NEW).expect("is ordered").number;
        world.store.commit_blocking(move |txn| lane::restored(txn, NOW)).expect("commits");
        world.reports(id, 0, forgotten, ReviseResult::Withdrawn).expect("may be so");
        assert_eq!(world.shown(id)[0].state, DeliveryState::Failed);
        world.reports(id, 0, between, ReviseResult::TooLate).expect("is recorded");
        assert_eq!(world.shown(id)[0].state, DeliveryState::Failed);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_address_of_a_redirect_that_a_restored_big_is_still_to_hear_of_is_listed_and_its_outcome_taken()
 {
    block_in_place(|| {
        let (world, id) = world();
        let number = world.redirects(id, OLD, NEW).expect("is ordered").number;
        // What the edge holds back of the new address is to go on there.
        world.store.commit_blocking(reconcile::tell_who_waits).expect("commits");
        let listed = world.queued().into_iter().find_map(|unit| match unit {
            ToEdge::Unsettled(list) => Some(list.messages),
            _ => None,
        });
        assert_eq!(listed, Some(vec![(id.0, vec![(0, 0), (number, 0)])]));
        // Nobody is at any other index, and this big was not restored.
        let ToBig::Outcome(of_nobody) = outcome(id.0, DeliveryState::Relayed) else { unreachable!() };
        let of_nobody = ToBig::Outcome(Outcome { recipient: number + 1, ..of_nobody });
        assert!(world.apply(&of_nobody, None).is_err());
        assert_eq!(world.shown(id).len(), 1);

        world.told(id, number, DeliveryState::Relayed);
        let states = |world: &World| {
            let shown = world.shown(id).into_iter();
            shown.map(|row| (row.address, row.state)).collect::<Vec<_>>()
        };
        let left = vec![(OLD.into(), DeliveryState::Withdrawn), (NEW.into(), DeliveryState::Relayed)];
        assert_eq!(states(&world), left);
        assert!(world.waits(id).is_empty());
        // What the edge says of the old address comes behind that.
        world.reports(id, 0, number, ReviseResult::Withdrawn).expect("is known");
        assert_eq!(states(&world), left);
    });
}

/// A restored big has forgotten that the old text was on its way to the new address, or an operator has had a restored edge
/// attempt it: what was taken for replaced was not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_left_though_it_was_taken_for_replaced_is_followed_by_one_notice() {
    for is_redirected in [true, false] {
        let (world, id) = block_in_place(world);
        let ordered =
            is_redirected.then(|| block_in_place(|| world.redirects(id, OLD, NEW)).expect("is ordered"));
        world.amends("alice", id, amendment(ReviseMode::Replace, "the new text")).await.expect("is entered");
        let recipient = ordered.map_or(0, |ordered| ordered.number);
        block_in_place(|| {
            let (number, result) = match is_redirected {
                true => (recipient, ReviseResult::Withdrawn),
                false => (1, ReviseResult::Replaced),
            };
            world.reports(id, 0, number, result).expect("is recorded");
            world.told(id, recipient, DeliveryState::Relayed);
        });
        let place = usize::from(is_redirected);
        let result = |world: &World| {
            block_in_place(|| world.shown(id)[place].revised.as_ref().map(|revised| revised.result))
        };
        assert_eq!(result(&world), Some(ReviseResult::Replaced));
        for expected in [PENDING, ReviseResult::NoticeSent] {
            block_in_place(|| world.reports(id, recipient, 1, ReviseResult::TooLate))
                .expect("is news, or known");
            assert_eq!(result(&world), Some(expected));
            revise::notice::write_owed(&world.store, &world.site).await.expect("is written");
        }
        let notices = block_in_place(|| world.queued()).into_iter().filter_map(|unit| match unit {
            ToEdge::Outbound(outbound) if outbound.message != id.0 => Some(outbound.recipients),
            _ => None,
        });
        let to = if is_redirected { NEW } else { OLD };
        assert_eq!(notices.collect::<Vec<_>>(), [vec![(0, to.to_owned())]]);
    }
}
