//! Signatures: what leaves has those of its own text, also when it is told to an edge again, and nothing else has any.

use shared::state::State;
use shared::unit::{ReviseMode, are_signatures};

use super::revise::amendment;
use super::*;
use crate::dkim::Signers;
use crate::node::{incoming, signed};
use crate::record::SIGNATURES;
use crate::request::{Algorithm, NewDkimKey};

const OUTSIDE: &str = "carol@remote.example";

/// A world whose domain has a key.
fn world() -> World {
    let mut world = World::new();
    with_a_key(&mut world);
    world
}

/// Gives its domain a key.
pub(super) fn with_a_key(world: &mut World) {
    let dir = tempfile::tempdir().expect("a directory");
    let state = State::init(&dir.path().join("big"), &[("sealing", vec![7; 32])]).expect("made");
    let signers = Signers::default();
    let key = NewDkimKey {
        domain: None,
        selector: "k1".into(),
        algorithm: Algorithm::Ed25519,
        signs_from: Some(0),
    };
    signers.make(&state, &world.site.policy.domains, &key).expect("made");
    Arc::get_mut(&mut world.site).expect("nothing runs").dkim = signers;
}

impl World {
    /// The signatures of each message and each revision for outside, in the order in which they were queued.
    fn signatures(&self) -> Vec<String> {
        let signatures = |unit| match unit {
            ToEdge::Outbound(outbound) => Some(outbound.signatures),
            ToEdge::Revise(revise) => Some(revise.signatures),
            _ => None,
        };
        self.queued().into_iter().filter_map(signatures).collect()
    }

    fn keeps_signatures(&self) -> bool {
        let rows = self.store.read().expect("reads");
        !rows.prefix::<crate::record::Signatures>(SIGNATURES, &[], 1).expect("reads").is_empty()
    }
}

/// The hash of the body that a signature is over.
fn body_of(signature: &str) -> &str {
    signature.split("bh=").nth(1).and_then(|rest| rest.split(';').next()).expect("a hash")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_is_signed_once_and_each_revision_anew() {
    let world = block_in_place(world);
    let id = block_in_place(|| world.sends(&[OUTSIDE, "bob@example.com"], "the old text"));
    let [first] = block_in_place(|| world.signatures()).try_into().expect("one message");
    assert!(first.contains("d=example.com; s=k1;") && are_signatures(&first), "{first}");
    world.amends("alice", id, amendment(ReviseMode::Replace, "the new text")).await.expect("is revised");
    let mut all = block_in_place(|| world.signatures());
    all.retain(|signature| *signature != first);
    let [revised] = all.try_into().expect("the message as it was, and a revision");
    assert_ne!(body_of(&revised), body_of(&first), "a new text is signed anew");
    block_in_place(|| {
        // To an edge that has lost it, the same is told.
        let site = Arc::clone(&world.site);
        let again = world.store.commit_blocking(move |txn| {
            let (message, to) = (mail::shown(txn, id, 0)?.expect("is there"), vec![(0, OUTSIDE.to_owned())]);
            mail::queue_outbound(txn, &site, &message, id, to)
        });
        again.expect("is queued");
        assert_eq!(world.signatures().iter().filter(|signature| **signature == first).count(), 2);
        assert!(world.keeps_signatures());
        world.told(id, 0, DeliveryState::Deferred);
        assert!(world.keeps_signatures(), "it waits still");
        world.told(id, 0, DeliveryState::Relayed);
        assert!(!world.keeps_signatures(), "nobody waits for it any more");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_is_not_signed_and_ends_what_was_kept() {
    let world = block_in_place(world);
    let id = block_in_place(|| world.sends(&[OUTSIDE], "text"));
    world.amends("alice", id, amendment(ReviseMode::Withdraw, "")).await.expect("is withdrawn");
    block_in_place(|| {
        assert_eq!(world.signatures().iter().filter(|signature| signature.is_empty()).count(), 1);
        world.reports(id, 0, 1, shared::unit::ReviseResult::Withdrawn).expect("is recorded");
        assert!(!world.keeps_signatures());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_inside_is_not_signed() {
    let world = block_in_place(world);
    let site = Arc::clone(&world.site);
    let made = |to: &str| {
        let letter = Letter::new("alice@example.com", "bob@example.com");
        let channel = Channel::Desk { person: world.known("alice").id };
        let (path, to) = (Some("alice@example.com".into()), vec![to.to_owned()]);
        let incoming = incoming(&world.store, letter.id, channel, path, to, &letter.content).expect("writes");
        signed(&world.store, &site, incoming, &letter.content).expect("reads").signatures
    };
    block_in_place(|| {
        assert_eq!(made("bob@example.com"), "");
        assert!(are_signatures(&made(OUTSIDE)) && !made(OUTSIDE).is_empty());
        let forward = vec!["away@remote.example".into()];
        world.add_person(NewPerson { name: "away".into(), forward, ..NewPerson::default() });
        assert!(!made("away@example.com").is_empty(), "it goes on to somebody outside");
        let window = world.window("alice").window.window;
        Letter::submitted(window, "alice@example.com", "bob@example.com").send(&world).expect("is taken");
    });
    let id = block_in_place(|| world.sends(&["bob@example.com"], "text"));
    world.amends("alice", id, amendment(ReviseMode::Replace, "new")).await.expect("is revised");
    assert!(block_in_place(|| !world.keeps_signatures()));
}

#[test]
fn a_travellers_mail_is_signed_and_a_strangers_is_not() {
    let world = world();
    let window = world.window("alice").window.window;
    Letter::submitted(window, "alice@example.com", OUTSIDE).send(&world).expect("is taken");
    let [signed] = world.signatures().try_into().expect("one message");
    let whole = Letter::new("alice@example.com", OUTSIDE).content;
    let expected = world.site.dkim.sign_hashed(&crate::dkim::Content::of(&whole), NOW);
    assert_eq!(body_of(&signed), body_of(&expected), "over what was submitted");
    // Somebody on the Internet writes as alice to a person whose mail goes on to an address outside.
    world.add_person(NewPerson {
        name: "away".into(),
        forward: vec!["away@remote.example".into()],
        ..NewPerson::default()
    });
    Letter::new("alice@example.com", "away@example.com").send(&world).expect("is taken");
    let all = world.signatures();
    assert_eq!(all.iter().filter(|signature| signature.is_empty()).count(), 1, "{all:?}");
    assert_eq!(all.len(), 2);
}
