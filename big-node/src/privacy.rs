//! What a sender sees of the mail that colleagues forward: that they have it, not where it goes on to. Whoever operates
//! the node sees all of it, and so does the person whose forward it is.

use shared::unit::{DeliveryState, ReviseResult};

use crate::directory::explain::{Destination, Explanation};
use crate::record::Person;
use crate::request::{RecipientView, Sent, Status};

/// A status as its sender sees it.
pub fn status(mut status: Status, sender: &Person) -> Status {
    status.recipients = recipients(status.recipients, sender);
    status
}

/// What was sent, as its sender sees it.
pub fn sent(mut sent: Sent, sender: &Person) -> Sent {
    sent.recipients = recipients(sent.recipients, sender);
    sent
}

/// An explanation as a person sees it.
pub fn explanation(mut explanation: Explanation, person: &Person) -> Explanation {
    explanation.steps.retain(|step| !is_anothers(step.forwarder.as_deref(), person));
    let (hidden, mut shown): (Vec<_>, Vec<_>) = explanation
        .recipients
        .into_iter()
        .partition(|recipient| is_anothers(recipient.forwarder.as_deref(), person));
    for recipient in hidden {
        let Some(forwarder) = recipient.forwarder else { continue };
        match shown.iter_mut().find(|other| other.address == forwarder) {
            // One way that leads there is enough.
            Some(other) => other.failed &= recipient.failed,
            None => {
                let to = format!("{forwarder}, who has it");
                shown.push(Destination { to, failed: recipient.failed, address: forwarder, forwarder: None });
            }
        }
    }
    explanation.recipients = shown;
    explanation
}

fn is_anothers(forwarder: Option<&str>, person: &Person) -> bool {
    forwarder.is_some_and(|forwarder| !person.addresses.iter().any(|own| own == forwarder))
}

fn recipients(all: Vec<RecipientView>, sender: &Person) -> Vec<RecipientView> {
    // Who keeps a copy is told of by that alone.
    let kept: Vec<_> =
        all.iter().filter(|row| row.forwarder.is_none()).map(|row| row.address.clone()).collect();
    let mut shown: Vec<RecipientView> = Vec::new();
    for row in all {
        let Some(forwarder) = row.forwarder.clone().filter(|_| is_anothers(row.forwarder.as_deref(), sender))
        else {
            shown.push(row);
            continue;
        };
        if kept.contains(&forwarder) {
            continue;
        }
        let row = forwarded(row, forwarder);
        match shown.iter_mut().find(|other| other.address == row.address) {
            Some(other) => join(other, row),
            None => shown.push(row),
        }
    }
    shown
}

/// A copy that went on, as that of the person who forwards it.
fn forwarded(row: RecipientView, forwarder: String) -> RecipientView {
    let is_known = |state| matches!(state, DeliveryState::Failed | DeliveryState::Withdrawn);
    let state = match row.state {
        DeliveryState::Relayed => DeliveryState::Delivered,
        DeliveryState::Relaying | DeliveryState::Deferred => DeliveryState::Queued,
        state => state,
    };
    RecipientView {
        via: row.via.filter(|via| *via != forwarder),
        address: forwarder,
        forwarder: None,
        gateway: None,
        state,
        at: row.at,
        host: None,
        tls: None,
        relay: None,
        status: if is_known(state) { row.status } else { String::new() },
        text: if state == DeliveryState::Failed { "it could not be forwarded".into() } else { String::new() },
        in_doubt: false,
        host_reports: false,
        next_attempt_at: None,
        redirect: None,
        revised: row.revised.map(|mut revised| {
            revised.text.clear();
            revised
        }),
    }
}

/// Of several copies that one person forwards, what the sender is told: the best of them, and of revisions what has
/// not been decided yet, or the last.
fn join(one: &mut RecipientView, other: RecipientView) {
    let rank = |row: &RecipientView| match row.state {
        DeliveryState::Delivered | DeliveryState::Relayed => 3,
        DeliveryState::Queued | DeliveryState::Relaying | DeliveryState::Deferred => 2,
        DeliveryState::Withdrawn => 1,
        DeliveryState::Failed => 0,
    };
    let revised = [one.revised.take(), other.revised.clone()].into_iter().flatten();
    let revised = revised.max_by_key(|revised| (revised.result == ReviseResult::Pending, revised.at));
    if rank(&other) > rank(one) {
        *one = other;
    }
    one.revised = revised;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::explain::{Rule, Step};
    use crate::request::RevisedView;

    const SECRET: [&str; 2] = ["phone@remote.example", "secret"];

    fn person(address: &str) -> Person {
        let world = crate::directory::tests::World::new();
        let rows = world.store.read().expect("reads");
        let known = crate::directory::by_name(&rows, "alice").expect("she is there");
        Person { addresses: vec![address.into()], ..known }
    }

    fn row(address: &str, forwarder: Option<&str>, state: DeliveryState) -> RecipientView {
        RecipientView {
            address: address.into(),
            via: forwarder.map(str::to_owned),
            forwarder: forwarder.map(str::to_owned),
            gateway: Some("secret".into()),
            state,
            at: 7,
            host: Some("mx.secret.example".into()),
            tls: Some("TLS 1.3".into()),
            relay: Some("secret".into()),
            status: "5.1.1".into(),
            text: "550 no phone@remote.example here".into(),
            in_doubt: true,
            host_reports: true,
            next_attempt_at: Some(8),
            redirect: forwarder.map(|_| "secret@remote.example".into()),
            revised: None,
        }
    }

    fn seen(rows: Vec<RecipientView>, by: &Person) -> Vec<(String, DeliveryState)> {
        let status = Status { id: "1".into(), subject: String::new(), late: false, recipients: rows };
        let shown = status_without_secrets(status, by);
        shown.recipients.into_iter().map(|row| (row.address, row.state)).collect()
    }

    fn status_without_secrets(given: Status, by: &Person) -> Status {
        let shown = status(given, by);
        let text = serde_json::to_string(&shown).expect("JSON");
        assert!(!SECRET.iter().any(|secret| text.contains(secret)), "{text}");
        shown
    }

    #[test]
    fn the_sender_sees_that_a_person_has_it_and_not_where_it_went_on() {
        use DeliveryState::{Deferred, Delivered, Failed, Queued, Relayed, Relaying};
        let (bob, alice) = (person("bob@example.com"), "alice@example.com");
        let phone = |state| row("phone@remote.example", Some(alice), state);
        let other = |state| row("secret@remote.example", Some(alice), state);
        for (rows, expected) in [
            (vec![phone(Queued)], Queued),
            (vec![phone(Relaying)], Queued),
            (vec![phone(Deferred)], Queued),
            (vec![phone(Relayed)], Delivered),
            (vec![phone(Failed)], Failed),
            (vec![phone(Failed), other(Relayed)], Delivered),
            (vec![phone(Relayed), other(Failed)], Delivered),
            (vec![phone(Failed), other(Deferred)], Queued),
        ] {
            assert_eq!(seen(rows.clone(), &bob), [(alice.to_owned(), expected)], "{rows:?}");
        }
        // Who keeps a copy has it, whatever becomes of the other.
        let copy = RecipientView {
            host: None,
            gateway: None,
            relay: None,
            text: String::new(),
            ..row(alice, None, Delivered)
        };
        for rows in [vec![phone(Failed), copy.clone()], vec![copy.clone(), phone(Queued)]] {
            assert_eq!(seen(rows, &bob), [(alice.to_owned(), Delivered)]);
        }
        // It is no secret to her.
        let all =
            Status { id: "1".into(), subject: String::new(), late: false, recipients: vec![phone(Relayed)] };
        let own = status(all, &person(alice));
        assert_eq!(own.recipients[0].address, "phone@remote.example");
    }

    #[test]
    fn a_revision_that_is_pending_anywhere_is_pending() {
        let bob = person("bob@example.com");
        let revised = |result, at| Some(RevisedView { revision: 1, result, at, text: "secret".into() });
        let with = |address: &str, result, at| RecipientView {
            revised: revised(result, at),
            ..row(address, Some("alice@example.com"), DeliveryState::Relayed)
        };
        for (rows, expected) in [
            (
                vec![
                    with("a@x.example", ReviseResult::Pending, 1),
                    with("b@x.example", ReviseResult::Replaced, 2),
                ],
                ReviseResult::Pending,
            ),
            (
                vec![
                    with("a@x.example", ReviseResult::Replaced, 1),
                    with("b@x.example", ReviseResult::NoticeSent, 2),
                ],
                ReviseResult::NoticeSent,
            ),
        ] {
            let given = Status { id: "1".into(), subject: String::new(), late: false, recipients: rows };
            let shown = status_without_secrets(given, &bob).recipients;
            let results: Vec<_> =
                shown.into_iter().filter_map(|row| row.revised).map(|it| it.result).collect();
            assert_eq!(results, [expected]);
        }
    }

    #[test]
    fn an_explanation_ends_at_the_person_who_forwards() {
        let step = |what: &str, forwarder: Option<&str>| Step {
            forwarder: forwarder.map(str::to_owned),
            ..Step::new(Rule::Forward, what)
        };
        let alice = Some("alice@example.com");
        let told = || Explanation {
            typed: "alice".into(),
            address: alice.map(str::to_owned),
            refused: None,
            steps: vec![step("an address here", None), step("forwards to phone@remote.example", alice)],
            recipients: vec![Destination {
                address: "phone@remote.example".into(),
                to: "outside, by secret".into(),
                failed: false,
                forwarder: alice.map(str::to_owned),
            }],
            rcpt: Some(250),
        };
        let shown = explanation(told(), &person("bob@example.com"));
        assert_eq!(shown.steps.len(), 1);
        let text = serde_json::to_string(&shown).expect("JSON");
        assert!(!SECRET.iter().any(|secret| text.contains(secret)), "{text}");
        assert_eq!(shown.recipients[0].address, "alice@example.com");
        assert_eq!(explanation(told(), &person("alice@example.com")), told());
    }
}
