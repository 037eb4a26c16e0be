//! Where a person forwards to, as those see it who write to them.

use shared::unit::{ReviseMode, ReviseResult};

use super::revise::amendment;
use super::*;
use crate::desk::recipients_of;
use crate::privacy;
use crate::request::Status;
use crate::revise::Amendment;

const SECRET: &str = "phone@remote.example";
const AWAY: &str = "away@example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_colleague_forwards_to_is_in_nothing_that_the_sender_sees() {
    let world = block_in_place(World::new);
    let id = block_in_place(|| {
        let forward = vec![SECRET.to_owned()];
        world.add_person(NewPerson { name: "away".into(), forward, ..NewPerson::default() });
        let id = world.sends(&[AWAY], "old");
        world.told(id, 0, DeliveryState::Relayed);
        id
    });
    let all = || recipients_of(&world.store.read().expect("reads"), id).expect("reads");
    let rows = block_in_place(all);
    // Whoever operates the node sees the way.
    assert_eq!((rows[0].address.as_str(), rows[0].forwarder.as_deref()), (SECRET, Some(AWAY)));
    let seen_by = |name: &str| {
        let status = Status { id: id.to_string(), subject: String::new(), late: false, recipients: all() };
        let shown = privacy::status(status, &world.known(name)).recipients;
        shown.into_iter().map(|row| (row.address, row.state)).collect::<Vec<_>>()
    };
    block_in_place(|| {
        assert_eq!(seen_by("alice"), [(AWAY.to_owned(), DeliveryState::Delivered)]);
        assert_eq!(seen_by("away"), [(SECRET.to_owned(), DeliveryState::Relayed)], "it is their own");
    });

    // A guess is not confirmed, and the person is named as who they are.
    let replace =
        |to: &str| Amendment { recipients: vec![to.into()], ..amendment(ReviseMode::Replace, "new") };
    let guessed = world.amends("alice", id, replace(SECRET)).await.expect_err("refused");
    assert!(guessed.contains("did not go to"), "{guessed}");
    world.amends("alice", id, replace(AWAY)).await.expect("is revised");
    world.keeps_house().await;
    block_in_place(|| {
        let result = all()[0].revised.as_ref().map(|revised| revised.result);
        assert_eq!(result, Some(ReviseResult::NoticeSent));
        let alice = world.known("alice").id;
        let rows = world.store.read().expect("reads");
        let prefix = crate::record::folder_prefix(&alice, Folder::Sent);
        let sent = rows.prefix::<Entry>(crate::record::MAILBOXES, &prefix, 10).expect("reads");
        assert_eq!(sent.len(), 2, "the message and the notice");
        for (key, _) in sent {
            let message =
                mail::shown(&rows, crate::record::message_of(&key), 0).expect("reads").expect("is there");
            let to: Vec<_> = message.origin.recipients.iter().map(|to| to.address.as_str()).collect();
            assert_eq!(to, [AWAY]);
        }
    });
    // The notice goes where the message went.
    let notice = world.queued().into_iter().find_map(|unit| match unit {
        ToEdge::Outbound(outbound) if outbound.message != id.0 => Some(outbound.recipients),
        _ => None,
    });
    assert_eq!(notice.expect("is queued").into_iter().map(|(_, to)| to).collect::<Vec<_>>(), [SECRET]);
}
