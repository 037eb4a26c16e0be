//! What answers what, where Message-IDs do not say it; and where a message may lie.

use super::*;
use crate::conversation;
use crate::folder;
use crate::record::{FURTHER_IDS, FurtherId, SENT_SUBJECTS};

const DAY: u64 = 24 * 3_600_000;

/// A message that alice has sent to carol.
fn sent(world: &World, to: &'static str) -> MessageId {
    let window = world.window("alice").window.window;
    let letter = Letter::submitted(window, "alice@example.com", to);
    letter.send(world).expect("is sent");
    letter.id
}

/// The origin of an answer from `from` to alice.
fn answer(from: &'static str, subject: &str, names: &str) -> (Letter, Origin) {
    let letter = Letter::new(from, "alice@example.com");
    let origin = Origin { subject: subject.into(), in_reply_to: vec![names.into()], ..letter.origin() };
    (letter, origin)
}

fn arrive(world: &World, (letter, origin): &(Letter, Origin)) -> Message {
    let (head, sealed) = letter.seal(world, origin, None);
    world.apply(&head, Some(&sealed)).expect("is filed");
    let message = world.store.read().and_then(|rows| rows.get::<Message>(MESSAGES, &letter.id.0));
    message.expect("reads").expect("is there")
}

#[test]
fn an_answer_that_names_an_unknown_id_is_tied_by_its_subject_and_the_id_is_learned() {
    let world = World::new();
    let id = sent(&world, "carol@remote.example");
    let first = arrive(&world, &answer("carol@remote.example", "Re: S", "rewritten@relay"));
    assert_eq!((first.parent, first.thread), (Some(id.0), id.0));
    let (folder, entry) = world.entry("alice", id).expect("is there");
    assert_eq!((folder, entry.answered), (Folder::Sent, true));
    let next = arrive(&world, &answer("dan@elsewhere.example", "something else", "rewritten@relay"));
    assert_eq!(next.parent, Some(id.0), "the id is known now");
    let learned = world.store.read().and_then(|rows| rows.prefix::<FurtherId>(FURTHER_IDS, &id.0, 9));
    let learned = learned.expect("reads");
    assert_eq!(learned.len(), 1);
    assert_eq!(learned[0].1.message_id, "rewritten@relay");
    let rows = world.store.read().expect("reads");
    let thread = conversation::thread(&rows, id.0).expect("reads");
    assert_eq!(thread.iter().map(|(_, _, depth)| *depth).collect::<Vec<_>>(), [0, 1, 1]);
}

#[test]
fn only_what_fits_is_tied_by_its_subject() {
    let world = World::new();
    let id = sent(&world, "carol@remote.example");
    for (from, subject, days, is_tied) in [
        ("carol@remote.example", "Re: s", 0, true),
        ("office@remote.example", "AW: Re: S", 59, true),
        ("carol@remote.example", "s", 0, false),
        ("carol@remote.example", "Re: t", 0, false),
        ("carol@remote.example", "Re:", 0, false),
        ("carol@remote.example", "Fwd: s", 0, false),
        ("carol@elsewhere.example", "Re: s", 0, false),
        ("carol@remote.example", "Re: s", 61, false),
    ] {
        let (letter, origin) = answer(from, subject, "unknown@relay");
        let at = NOW + days * DAY;
        // The operation is undone, so that no row sees what another one has taught.
        let parent = world.store.commit_blocking(move |txn| {
            let parent = conversation::parent_of(txn, &origin, letter.id, at)?;
            Err::<(), _>(Refused::new(format!("{parent:?}")))
        });
        let expected = if is_tied { format!("{:?}", Some(id.0)) } else { "None".into() };
        assert_eq!(parent.expect_err("is undone").to_string(), expected, "{from} {subject} {days}");
    }
    let automatic = answer("carol@remote.example", "Re: s", "unknown@relay");
    let automatic = Origin { automatic: true, ..automatic.1 };
    let parent = world
        .store
        .commit_blocking(move |txn| conversation::parent_of(txn, &automatic, MessageId([1; 16]), NOW));
    assert_eq!(parent.expect("reads").into_inner(), None);
}

#[test]
fn what_is_learned_and_noted_has_bounds() {
    let world = World::new();
    let id = sent(&world, "carol@remote.example");
    for n in 0..20 {
        arrive(&world, &answer("carol@remote.example", "Re: s", &format!("rewritten{n}@relay")));
    }
    let rows = world.store.read().expect("reads");
    assert_eq!(rows.prefix::<FurtherId>(FURTHER_IDS, &id.0, 99).expect("reads").len(), 16);
    assert_eq!(rows.count(SENT_SUBJECTS).expect("counts"), 1);
    for (at, left) in [(NOW + 59 * DAY, 1), (NOW + 62 * DAY, 0)] {
        world.store.commit_blocking(move |txn| conversation::forget_old(txn, &[], 9, at)).expect("commits");
        let rows = world.store.read().expect("reads");
        assert_eq!(rows.count(SENT_SUBJECTS).expect("counts"), left);
    }
}

#[test]
fn what_is_only_sent_on_answers_nothing() {
    let world = World::new();
    let id = sent(&world, "carol@remote.example");
    let (letter, origin) = answer("carol@remote.example", "Fwd: s", "x@y");
    let references = vec![format!("{id}@test")];
    let origin = Origin { in_reply_to: Vec::new(), references, ..origin };
    let message = arrive(&world, &(letter, origin));
    assert_eq!(message.parent, Some(id.0), "it is in the conversation");
    assert!(!world.entry("alice", id).expect("is there").1.answered);
}

#[test]
fn messages_lie_where_they_belong() {
    let world = World::new();
    let alice = world.known("alice");
    let mine = sent(&world, "carol@remote.example");
    let theirs = Letter::new("carol@remote.example", "alice@example.com");
    theirs.send(&world).expect("is filed");
    let whose = alice.clone();
    world.store.commit_blocking(move |txn| folder::add(txn, &whose, "Travel")).expect("adds");
    for (id, to, expected) in [
        (theirs.id, "travel", Folder::Own(56)),
        (theirs.id, "sent", Folder::Own(56)),
        (theirs.id, "drafts", Folder::Own(56)),
        (theirs.id, "undeliverable", Folder::Own(56)),
        (theirs.id, "trash", Folder::Trash),
        (theirs.id, "saved", Folder::Saved),
        (theirs.id, "in", Folder::In),
        (mine, "saved", Folder::Saved),
        (mine, "SENT", Folder::Sent),
        (mine, "Travel", Folder::Own(56)),
    ] {
        let whose = alice.clone();
        let moved = world.store.commit_blocking(move |txn| {
            let to = folder::find(txn, &whose, to)?;
            folder::shift(txn, &whose, id, to, NOW)
        });
        assert_eq!(world.entry("alice", id).map(|(folder, _)| folder), Some(expected), "{to}");
        let went =
            folder::find(&world.store.read().expect("reads"), &alice, to).expect("is there") == expected;
        assert_eq!(moved.is_ok(), went, "{to}: {moved:?}");
    }
    let whose = alice.clone();
    let refused = world.store.commit_blocking(move |txn| folder::remove(txn, &whose, "travel"));
    assert!(refused.expect_err("refused").to_string().contains("is not empty"));
    let whose = alice.clone();
    let renamed = world.store.commit_blocking(move |txn| folder::rename(txn, &whose, "Travel", "Trips"));
    renamed.expect("renames");
    let views = folder::list(&world.store.read().expect("reads"), &alice.id).expect("lists");
    let trips = views.last().expect("one's own comes last");
    assert_eq!((trips.name.as_str(), trips.own, trips.messages), ("Trips", true, 1));
}
