//! Travel windows on big: what is filled in and in which order, limits, ends, credentials.

use std::time::Duration;

use shared::address::Address;
use shared::id::MessageId;
use shared::lane::{self, LanePosition, QueuedUnit};
use shared::sasl::Secret;
use shared::seal::PublicKey;
use shared::store::{Rows, StoreError, Txn};
use shared::unit::{Id, PopAct, ToBig, ToEdge, Window, decode};
use tokio::task::block_in_place;
use zeroize::Zeroizing;

use super::{Letter, NOW, World};
use crate::error::Refused;
use crate::mail;
use crate::record::{AfterFetch, Folder, MESSAGES, Message, Scope, WINDOWS, WindowRow, WindowState};
use crate::request::{Terms, WindowView};
use crate::travel::{self, fill, notice};

const DAY: u64 = 24 * 3_600_000;

impl World {
    /// Mail for alice that lies at home, of so many octets besides its header.
    fn at_home(&self, octets: usize) -> MessageId {
        let mut letter = Letter::new("carol@remote.example", "alice@example.com");
        let line = [b"x".repeat(76).as_slice(), b"\r\n"].concat();
        letter.content.extend(line.iter().cycle().take(octets));
        letter.send(self).expect("is filed");
        letter.id
    }

    fn commit<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Txn<'_>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        self.store.commit_blocking(act).map(shared::store::Committed::into_inner)
    }

    /// Units that wait for the edge, with the lane of each.
    fn units(&self) -> Vec<(u8, QueuedUnit)> {
        let rows = self.store.read().expect("reads");
        let numbered = (0..4).flat_map(|lane| lane::units(&rows, lane, 1, usize::MAX).expect("reads"));
        let numbered: Vec<_> = numbered.map(|(_, unit)| (unit.lane, unit)).collect();
        let waiting = lane::waiting(&rows, usize::MAX).expect("reads");
        numbered.into_iter().chain(waiting.into_iter().map(|unit| (unit.lane, unit))).collect()
    }

    /// The copies that were queued, in order.
    fn copies(&self) -> Vec<MessageId> {
        let copy = |(_, unit): (u8, QueuedUnit)| match decode(&unit.head) {
            Some(ToEdge::Copy(copy)) => Some(MessageId(copy.message)),
            _ => None,
        };
        self.units().into_iter().filter_map(copy).collect()
    }

    fn told_windows(&self) -> Vec<Window> {
        let window = |head| if let ToEdge::Window(window) = head { Some(*window) } else { None };
        self.queued().into_iter().filter_map(window).collect()
    }

    /// As if the edge had taken all that is numbered.
    fn confirm(&self) {
        let confirmed = self.commit(|txn| {
            for lane in 0..4 {
                let number = lane::state(txn, lane)?.last;
                lane::confirmed(txn, lane, LanePosition { number, chain: [1; 32] }, &[], &[], NOW)?;
            }
            Ok(())
        });
        confirmed.expect("commits");
    }

    fn row(&self, window: &Id) -> WindowRow {
        let row = self.store.read().and_then(|rows| rows.get(WINDOWS, window));
        row.expect("reads").expect("is there")
    }

    fn view(&self, window: &Id) -> WindowView {
        travel::view(&self.store.read().expect("reads"), &self.row(window)).expect("reads")
    }

    async fn go_on(&self) {
        fill::go_on(&self.store, &self.site).await.expect("commits");
    }

    async fn write_notices(&self) {
        let postmaster: Address = "alice@example.com".parse().expect("an address");
        notice::write_owed(&self.store, &self.site, &postmaster).await.expect("writes");
    }
}

fn all(terms: Terms) -> Terms {
    Terms { scope: Scope::All, ..terms }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_fill_goes_newest_first_behind_live_mail_and_only_some_at_a_time() {
    let world = block_in_place(World::new);
    let before: Vec<_> = (0..300).map(|_| block_in_place(|| world.at_home(0))).collect();
    let (row, filled) = block_in_place(|| world.travel("alice", all(Terms::default()))).expect("opens");
    assert_eq!(filled, 300);
    world.go_on().await;
    let window = row.window.window;
    let copies = world.copies();
    assert!((128..=192).contains(&copies.len()), "{} are under way", copies.len());
    assert!(copies.iter().eq(before.iter().rev().take(copies.len())), "newest first");
    assert_eq!(world.view(&window).back_fill, (copies.len() as u64, 300));
    let in_batch = |units: Vec<(u8, QueuedUnit)>| units.iter().filter(|(lane, _)| *lane == 3).count();
    assert_eq!(in_batch(world.units()), copies.len());
    let live = block_in_place(|| world.at_home(0));
    let live_lane = world.units().into_iter().find(|(_, unit)| unit.id[..6] == live.0[..6] && unit.lane == 2);
    assert!(live_lane.is_some(), "live mail is not behind it");
    world.go_on().await;
    assert_eq!(in_batch(world.units()), copies.len(), "nothing more while those are under way");
    for _ in 0..3 {
        block_in_place(|| world.confirm());
        world.go_on().await;
    }
    assert_eq!(world.view(&window).back_fill, (300, 300));
    assert_eq!(world.view(&window).filed, 301);
}

#[test]
fn headers_first_is_an_order_and_days_are_counted_from_the_beginning() {
    let world = World::new();
    let large = world.at_home(100_000);
    let small = [world.at_home(0), world.at_home(0)];
    let terms = all(Terms { headers_first: true, ..Terms::default() });
    let (row, filled) = world.travel("alice", terms).expect("opens");
    assert_eq!(filled, 3);
    assert_eq!(world.copies(), [small[1], small[0]], "the large one is for another pass");
    world.confirm();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(world.go_on());
    assert_eq!(world.view(&row.window.window).back_fill, (3, 3));
    assert!(world.copies().contains(&large));

    let world = World::new();
    world.at_home(0);
    let terms = |days| Terms { from: Some(NOW + 2 * DAY), scope: Scope::Days(days), ..Terms::default() };
    assert_eq!(world.travel("alice", terms(1)).expect("opens").1, 0, "it came more than a day before");
    world.at_home(0);
    assert_eq!(world.copies().len(), 1, "what comes until then is in the days before it");
    world.commit(|txn| travel::end(txn, "alice", false, NOW)).expect("ends");
    assert_eq!(world.travel("alice", terms(3)).expect("opens").1, 2);
    // What is to come while it is open, and only that.
    let later = Terms { from: Some(NOW + 1), ..Terms::default() };
    world.travel("bob", later).expect("opens");
    let letter = Letter::new("carol@remote.example", "bob@example.com");
    let before = world.copies().len();
    letter.send(&world).expect("is filed");
    assert_eq!(world.copies().len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_stays_at_home_and_one_notice_of_it_goes() {
    let world = block_in_place(World::new);
    let old = block_in_place(|| world.at_home(9000));
    let terms = all(Terms { size_max: Some(5000), ..Terms::default() });
    let (row, _) = block_in_place(|| world.travel("alice", terms)).expect("opens");
    let new = block_in_place(|| world.at_home(9000));
    for _ in 0..2 {
        world.write_notices().await;
        world.go_on().await;
    }
    let copies = world.copies();
    assert!(copies.len() == 2 && !copies.contains(&old) && !copies.contains(&new), "{copies:?}");
    let view = world.view(&row.window.window);
    assert_eq!((view.too_large, view.filed, view.back_fill), (2, 2, (1, 1)));
    let rows = world.store.read().expect("reads");
    for notice in copies {
        let message = mail::shown(&rows, notice, 0).expect("reads").expect("is there");
        let body = world.store.body(message.body()).expect("the unit holds it");
        let text =
            String::from_utf8(mail::content(body, &message, 1 << 20).expect("reads")).expect("is text");
        for said in ["Too large for the road", "carol@remote.example", "Subject: s", "8.9 KiB"] {
            assert!(text.contains(said), "{said} in {text}");
        }
        assert!(world.entry("alice", notice).is_none(), "at home there is the message");
        assert!(world.entry("alice", old).is_some());
        // What a client does with the notice does nothing to the message.
        let act = PopAct {
            window: row.window.window,
            message: notice.0,
            revision: 0,
            retrieved: true,
            deleted: true,
            at: NOW,
        };
        assert_eq!(block_in_place(|| world.apply(&ToBig::PopAct(act), None)), Ok(()));
        assert_eq!(world.entry("alice", old).map(|(folder, _)| folder), Some(Folder::In));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_quota_copies_wait_and_go_on_in_their_order_when_there_is_room() {
    let world = block_in_place(World::new);
    let terms = Terms { quota: Some(12_000), after_fetch: AfterFetch::Keep, ..Terms::default() };
    let (row, _) = block_in_place(|| world.travel("alice", terms)).expect("opens");
    let window = row.window.window;
    let first = block_in_place(|| world.at_home(8000));
    let second = block_in_place(|| world.at_home(8000));
    // It would fit, but it does not overtake.
    let third = block_in_place(|| world.at_home(0));
    world.go_on().await;
    assert_eq!(world.copies(), [first]);
    let view = world.view(&window);
    assert_eq!((view.waiting, view.filed), (2, 1));
    assert!((8000..12_000).contains(&view.bytes), "{}", view.bytes);
    let act = |message: MessageId| {
        ToBig::PopAct(PopAct {
            window,
            message: message.0,
            revision: 0,
            retrieved: true,
            deleted: true,
            at: NOW,
        })
    };
    assert_eq!(block_in_place(|| world.apply(&act(first), None)), Ok(()));
    world.go_on().await;
    assert_eq!(world.copies(), [first, second, third]);
    // What is deleted at home while it waits is waited for no more.
    let fourth = block_in_place(|| world.at_home(8000));
    assert_eq!(world.view(&window).waiting, 1);
    block_in_place(|| {
        let alice = world.known("alice");
        world.commit(move |txn| mail::delete(txn, &alice, fourth, NOW)).expect("is deleted");
    });
    assert_eq!(world.view(&window).waiting, 0);
    // Of what can never fit the traveller is told.
    block_in_place(|| world.at_home(20_000));
    assert_eq!(world.view(&window).too_large, 1);
}

#[test]
fn what_is_deleted_at_home_goes_on_the_road_and_what_was_deleted_there_once_it_goes_from_trash() {
    let world = World::new();
    let window = world.window("alice").window.window;
    let (here, there) = (world.at_home(0), world.at_home(0));
    let gone = |world: &World| {
        let gone =
            |head| if let ToEdge::CopyGone { message, .. } = head { Some(MessageId(message)) } else { None };
        world.queued().into_iter().filter_map(gone).collect::<Vec<_>>()
    };
    let act = PopAct { window, message: there.0, revision: 0, retrieved: true, deleted: true, at: NOW };
    assert_eq!(world.apply(&ToBig::PopAct(act), None), Ok(()));
    assert_eq!(world.entry("alice", there).map(|(folder, _)| folder), Some(Folder::Trash));
    assert_eq!(gone(&world), []);
    let alice = world.known("alice");
    world.commit(move |txn| mail::delete(txn, &alice, here, NOW)).expect("is deleted");
    assert_eq!(gone(&world), [here]);
    // For good, from Trash: there is nothing left to tell.
    let alice = world.known("alice");
    world.commit(move |txn| mail::delete(txn, &alice, here, NOW)).expect("is deleted");
    assert_eq!(gone(&world), [here]);
    // An edge that went back has what was deleted there again, and so has one to which its author has sent another text.
    let alice = world.known("alice");
    world.commit(move |txn| mail::delete(txn, &alice, there, NOW)).expect("is deleted");
    assert_eq!(gone(&world), [here, there]);
}

#[test]
fn an_extension_keeps_the_credentials_and_a_rotation_changes_nothing_else() {
    let world = World::new();
    let terms = Terms { until: Some(NOW + DAY), ..Terms::default() };
    let (row, _) = world.travel("alice", terms).expect("opens");
    let extend = |until| world.commit(move |txn| travel::extend(txn, "alice", until, NOW));
    for until in [Some(NOW + 9 * DAY), None, Some(NOW + DAY / 2)] {
        let extended = extend(until).expect("is extended");
        assert_eq!(extended.window, Window { until, ..row.window.clone() });
        assert_eq!(world.told_windows().last(), Some(&extended.window));
    }
    assert!(extend(Some(NOW)).expect_err("in the past").to_string().contains("later --until"));
    let nobody = world.commit(|txn| travel::extend(txn, "bob", None, NOW));
    assert!(nobody.expect_err("has no window").to_string().contains("no open travel window"));

    let rotate =
        |grace| world.commit(move |txn| travel::rotate(txn, "alice", Duration::from_secs(grace), NOW));
    let (rotated, password) = rotate(3600).expect("is rotated");
    assert_eq!(world.told_windows().last(), Some(&rotated.window));
    let Window { window, person, public_key, until, credential, former, .. } = rotated.window.clone();
    assert_eq!((window, person, public_key), (row.window.window, row.window.person, row.window.public_key));
    assert_eq!(until, Some(NOW + DAY / 2));
    let former = former.expect("is good for an hour");
    assert_eq!((former.credential, former.until), (row.window.credential.clone(), NOW + 3_600_000));
    assert_ne!(credential, row.window.credential);
    let secret = Secret::Password(Zeroizing::new(password));
    let opened = rotated.window.open(&secret, NOW).map(|(key, _)| key.public());
    assert_eq!(opened, Ok(PublicKey(public_key)), "the same mailbox");
    for (now, is_there) in [(NOW + 3_599_999, true), (NOW + 3_600_000, false)] {
        world.store.commit_blocking(move |txn| travel::end_overdue(txn, now)).expect("commits");
        let told = world.told_windows();
        let told = told.last().expect("is told");
        assert_eq!((told.former.is_some(), told.until), (is_there, until), "{now}");
        let due = travel::overdue(&world.store.read().expect("reads"), now).expect("reads");
        assert!(due.is_empty(), "it is seen to");
    }
    assert_eq!(rotate(0).expect("at once").0.window.former, None);
    assert!(rotate(31 * 86_400).is_err());
}

#[test]
fn limits_that_let_nothing_through_and_ends_before_beginnings_are_refused() {
    let world = World::new();
    for terms in [
        Terms { size_max: Some(1023), ..Terms::default() },
        Terms { quota: Some(0), ..Terms::default() },
        Terms { until: Some(NOW), ..Terms::default() },
        Terms { from: Some(NOW + 10), until: Some(NOW + 10), ..Terms::default() },
    ] {
        assert!(world.travel("alice", terms).is_err(), "{terms:?}");
    }
    let again = [world.travel("alice", Terms::default()), world.travel("alice", Terms::default())];
    assert!(again[0].is_ok());
    assert!(again[1].as_ref().is_err_and(|refused| refused.to_string().contains("travel extend")));
}

/// The edge's clock decides: before big's says so, hours later, or after the end was put off.
#[test]
fn an_end_by_the_edges_clock_counts_whatever_bigs_says() {
    let until = Some(NOW + DAY);
    let open = || {
        let world = World::new();
        let (row, _) = world.travel("alice", Terms { until, ..Terms::default() }).expect("opens");
        (world, row.window.window)
    };
    let overdue = |world: &World, now| {
        world.store.commit_blocking(move |txn| travel::end_overdue(txn, now)).expect("commits");
    };
    let told_end = |world: &World, window| world.queued().contains(&ToEdge::WindowEnd { window });

    let (world, window) = open();
    assert_eq!(world.apply(&ToBig::WindowClosed { window, until }, None), Ok(()), "its clock is ahead");
    assert_eq!(world.row(&window).state, WindowState::Ended);

    let (world, window) = open();
    overdue(&world, NOW + DAY - 1);
    assert_eq!(world.row(&window).state, WindowState::Open);
    overdue(&world, NOW + DAY);
    let row = world.row(&window);
    assert_eq!((row.state, row.ended_at), (WindowState::Ending, Some(NOW + DAY)));
    assert!(!told_end(&world, window), "the edge, whose clock is behind, has hours left");
    overdue(&world, NOW + 2 * DAY - 1);
    assert!(!told_end(&world, window));
    overdue(&world, NOW + 2 * DAY);
    assert!(told_end(&world, window), "a day without its word is enough");
    let again =
        world.commit(|txn| travel::end(txn, "alice", true, NOW + 2 * DAY)).expect("can still be revoked");
    assert!(again.revoked);
    assert_eq!(world.apply(&ToBig::WindowClosed { window, until }, None), Ok(()));
    assert_eq!(world.row(&window).state, WindowState::Ended);

    let (world, window) = open();
    let message = world.at_home(0);
    world.commit(|txn| travel::extend(txn, "alice", Some(NOW + 9 * DAY), NOW)).expect("is extended");
    assert_eq!(world.apply(&ToBig::WindowClosed { window, until }, None), Ok(()));
    assert_eq!(world.row(&window).state, WindowState::Open, "it opens again");
    assert_eq!(world.told_windows().last().and_then(|window| window.until), Some(NOW + 9 * DAY));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(world.go_on());
    assert_eq!(world.copies(), [message, message]);
    let ids: std::collections::BTreeSet<Id> = world
        .units()
        .into_iter()
        .filter(|(_, unit)| matches!(decode(&unit.head), Some(ToEdge::Copy(_))))
        .map(|(_, unit)| unit.id)
        .collect();
    assert_eq!(ids.len(), 2, "as another unit, for the edge has applied the first");
    // Said again it is believed: else an edge could have all of it sent again and again.
    assert_eq!(world.apply(&ToBig::WindowClosed { window, until }, None), Ok(()));
    assert_eq!(world.row(&window).state, WindowState::Ended);
    assert_eq!(world.copies().len(), 2);

    // What was done before the end may be told behind it, until somebody revokes what comes out of the window.
    let act = |deleted| {
        let message = message.0;
        let act = PopAct { window, message, revision: 0, retrieved: true, deleted, at: NOW };
        world.apply(&ToBig::PopAct(act), None)
    };
    assert_eq!(act(false), Ok(()));
    let revoked = world.commit(|txn| travel::end(txn, "alice", true, NOW + DAY));
    assert!(revoked.expect("also when its end is confirmed").revoked);
    assert!(act(true).is_err());
}

#[test]
fn many_deletions_on_the_road_are_an_alarm() {
    let world = World::new();
    let window = world.window("alice").window.window;
    let count = |times: u64, at: u64| {
        let counted = world.store.commit_blocking(move |txn| {
            (0..times).try_for_each(|_| travel::count_deletion(txn, &window, at))
        });
        counted.expect("commits");
    };
    let alarms = |now| travel::alarms(&world.store.read().expect("reads"), now).expect("reads");
    count(travel::DELETIONS_MAX, NOW);
    count(1, NOW + travel::DELETIONS_MILLIS);
    assert_eq!(alarms(NOW), Vec::<String>::new());
    count(travel::DELETIONS_MAX, NOW + travel::DELETIONS_MILLIS + 1);
    let told = alarms(NOW + travel::DELETIONS_MILLIS);
    assert!(told.len() == 1 && told[0].contains("alice") && told[0].contains("Trash"), "{told:?}");
    assert_eq!(alarms(NOW + 2 * DAY), Vec::<String>::new());
}

#[test]
fn guesses_at_the_edge_are_an_alarm_for_a_day() {
    let world = World::new();
    let alarms = |now| travel::alarms(&world.store.read().expect("reads"), now).expect("reads");
    assert_eq!(alarms(NOW), Vec::<String>::new());
    for accounts in [1, 7, u32::MAX] {
        assert_eq!(world.apply(&ToBig::Guessing { networks: 2, accounts }, None), Ok(()));
        let told = alarms(NOW + 1);
        let what = format!("2 networks were locked out, {accounts} accounts guarded");
        assert!(told.len() == 1 && told[0].contains(&what), "{told:?}");
    }
    assert_eq!(alarms(NOW + DAY), Vec::<String>::new());
}

#[test]
fn logins_are_remembered_and_those_of_no_window_refused() {
    let world = World::new();
    let window = world.window("alice").window.window;
    assert_eq!(world.apply(&ToBig::WindowUsed { window, at: 7 }, None), Ok(()));
    assert_eq!(world.view(&window).last_login, Some(7));
    assert!(world.apply(&ToBig::WindowUsed { window: [9; 16], at: 7 }, None).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_revoked_a_window_is_told_of_what_was_refused() {
    let world = block_in_place(World::new);
    let window = block_in_place(|| world.window("bob")).window.window;
    block_in_place(|| world.commit(|txn| travel::end(txn, "bob", true, NOW))).expect("ends");
    let letter = Letter::submitted(window, "bob@example.com", "alice@example.com");
    let (head, sealed) = letter.seal(&world, &letter.origin(), Some(window));
    let prepared = crate::inbound::prepare(
        &world.store,
        &world.site,
        &shared::unit::encode(&head),
        crate::inbound::SealedBody::Inline(&sealed),
    );
    let (of, id, row) = crate::inbound::submission(&prepared.expect("is well formed")).expect("a submission");
    assert_eq!((of, id), (window, letter.id));
    world.store.commit(move |txn| notice::owe(txn, &of, id, &row)).await.expect("commits");
    for _ in 0..2 {
        world.write_notices().await;
    }
    let rows = world.store.read().expect("reads");
    let bob = world.known("bob");
    let inbox: Vec<_> = rows
        .prefix::<crate::record::Entry>(
            crate::record::MAILBOXES,
            &crate::record::folder_prefix(&bob.id, Folder::In),
            10,
        )
        .expect("reads");
    assert_eq!(inbox.len(), 1, "once");
    let message =
        mail::shown(&rows, crate::record::message_of(&inbox[0].0), 0).expect("reads").expect("is there");
    assert_eq!(message.origin.subject, "Refused: s");
    // A window that only ended refuses nothing in silence: there is nothing to tell.
    let open = block_in_place(|| world.window("bob")).window.window;
    let row = crate::record::RefusedRow { to: Vec::new(), subject: "s".into(), at: NOW };
    let owe = move |txn: &mut Txn<'_>| -> Result<(), StoreError> { notice::owe(txn, &open, id, &row) };
    world.store.commit(owe).await.expect("commits");
    let rows = world.store.read().expect("reads");
    let owed = rows.prefix::<crate::record::RefusedRow>(crate::record::REFUSED_SUBMISSIONS, &[], 10);
    assert!(owed.expect("reads").is_empty());
}

#[test]
fn nothing_comes_out_of_a_window_that_has_not_begun() {
    const HOUR: u64 = 3_600_000;
    let world = World::new();
    let tomorrow = |delay| Terms {
        from: Some(NOW + delay),
        after_fetch: AfterFetch::Delete,
        scope: Scope::All,
        ..Terms::default()
    };
    let at_home = world.at_home(0);
    let (alice, _) = world.travel("alice", tomorrow(HOUR + 1)).expect("opens");
    let (bob, _) = world.travel("bob", tomorrow(HOUR)).expect("opens");
    let [alice, bob] = [alice, bob].map(|row| row.window.window);
    for to in ["bob@example.com", "alice+withdraw@example.com"] {
        let refused = Letter::submitted(alice, "alice@example.com", to).send(&world);
        assert!(refused.as_ref().is_err_and(|why| why.contains("has not begun")), "{to}: {refused:?}");
    }
    let act = ToBig::PopAct(PopAct {
        window: alice,
        message: at_home.0,
        revision: 0,
        retrieved: true,
        deleted: true,
        at: NOW,
    });
    assert!(world.apply(&act, None).is_err());
    assert!(world.apply(&ToBig::WindowUsed { window: alice, at: NOW }, None).is_err());
    assert_eq!(world.entry("alice", at_home).map(|(folder, _)| folder), Some(Folder::In));
    assert_eq!(world.view(&alice).last_login, None);
    let sent = Letter::submitted(bob, "bob@example.com", "alice@example.com").send(&world);
    assert_eq!(sent, Ok(()), "clocks differ by an hour at the most");
    assert_eq!(world.apply(&ToBig::WindowUsed { window: bob, at: NOW }, None), Ok(()));
}

#[test]
fn what_was_held_up_is_late_mail_for_seven_days_and_then_its_window_is_forgotten() {
    const WEEK: u64 = 7 * DAY;
    let world = World::new();
    let filed = [world.at_home(0), world.at_home(0), world.at_home(0)];
    let (row, _) = world.travel("alice", all(Terms::default())).expect("opens");
    let window = row.window.window;
    world.commit(|txn| travel::end(txn, "alice", false, NOW)).expect("ends");
    assert_eq!(world.apply(&ToBig::WindowClosed { window, until: None }, None), Ok(()));
    let letter = || Letter::submitted(window, "alice@example.com", "bob@example.com");
    let late = letter();
    assert_eq!(late.send_at(&world, NOW + WEEK), Ok(()));
    assert_eq!(world.entry("alice", late.id).map(|(_, entry)| entry.late), Some(true));
    let refused = letter().send_at(&world, NOW + WEEK + 1);
    assert!(refused.is_err_and(|why| why.contains("has ended")), "on the eighth day");
    let act = |at| {
        let message = filed[0].0;
        let act = PopAct { window, message, revision: 0, retrieved: true, deleted: false, at: NOW };
        world.apply_at(&ToBig::PopAct(act), None, at)
    };
    assert!(act(NOW + WEEK + 1).is_err());
    assert_eq!(act(NOW + WEEK), Ok(()));
    let forget = |now| world.commit(move |txn| Ok(travel::forget_ended(txn, &[], 2, now)?)).expect("commits");
    assert_eq!((forget(NOW + WEEK), world.view(&window).filed), (None, 3));
    let goes_on = [(); 3].map(|()| forget(NOW + WEEK + 1).is_some());
    assert_eq!(goes_on, [true, false, false], "two rows at a time");
    let view = world.view(&window);
    assert_eq!((view.filed, view.fetched, view.back_fill), (0, 0, (0, 0)));
    // Whose it is that was submitted through it is known still.
    let rows = world.store.read().expect("reads");
    let sent = rows.get::<Message>(MESSAGES, &late.id.0).expect("reads").expect("is there");
    assert_eq!(mail::author_of(&rows, &sent).expect("reads"), Some(row.window.person));
}
