use super::*;
use crate::messages::{Letter, SHORT, marked_text};

const BOB: &str = "bob@remote.example";
const EVE: &str = "eve@remote.example";

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_000_000 + millis)
}

fn letter(token: Token) -> Vec<u8> {
    Letter { from: "alice@example.com", to: BOB, subject: "x", token }.text(SHORT)
}

/// Books with one message to Bob that ended as `fate`, and that message.
fn one(fate: Fate) -> (Ledger, Vec<u8>) {
    let ledger = Ledger::new(9);
    let message = letter(ledger.next_token());
    ledger.enter(&message, &[BOB]).expect("entered");
    ledger.settle(&message, fate).expect("settled");
    (ledger, message)
}

/// Counts: accepted, lost, doubled, ghost, altered, undetermined, repeated.
fn check(ledger: &Ledger, expected: [usize; 7]) {
    let audit = ledger.audit();
    let faults = [&audit.lost, &audit.doubled, &audit.ghost, &audit.altered];
    let all = faults.into_iter().chain([&audit.undetermined, &audit.repeated]).map(Vec::len);
    let counts: Vec<_> = std::iter::once(audit.accepted).chain(all).collect();
    assert_eq!(counts, expected, "{audit}");
    assert_eq!(audit.is_clean(), expected[1..5].iter().sum::<usize>() == 0);
}

#[test]
fn accepted_and_found_once_is_clean_whatever_relays_put_above_it() {
    let (ledger, message) = one(Fate::Accepted);
    let mut relayed = b"Return-Path: <alice@example.com>\r\nReceived: from a by b\r\n".to_vec();
    relayed.extend_from_slice(&message);
    ledger.found(Place::Inside, "Bob@Remote.Example", &relayed, at(0));
    check(&ledger, [1, 0, 0, 0, 0, 0, 0]);
    assert!(ledger.is_complete());
}

#[test]
fn lost_is_accepted_and_nowhere() {
    let (ledger, _) = one(Fate::Accepted);
    check(&ledger, [1, 1, 0, 0, 0, 0, 0]);
    assert!(!ledger.is_complete());
}

#[test]
fn lost_is_told_for_each_recipient() {
    let ledger = Ledger::new(9);
    let message = letter(ledger.next_token());
    ledger.enter(&message, &[BOB, EVE]).expect("entered");
    ledger.settle(&message, Fate::Accepted).expect("settled");
    ledger.found(Place::Inside, EVE, &message, at(0));
    check(&ledger, [2, 1, 0, 0, 0, 0, 0]);
    assert_eq!(ledger.audit().lost[0].recipient, BOB);
}

#[test]
fn doubled_is_there_more_often_than_taken() {
    let (ledger, message) = one(Fate::Accepted);
    for millis in [0, 10] {
        ledger.found(Place::Inside, BOB, &message, at(millis));
    }
    ledger.killed("edge", at(5)).expect("noted");
    check(&ledger, [1, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn a_repeat_outside_is_excused_only_by_a_kill_just_after_the_250() {
    for (kill, excused) in [(5, true), (1_100, false), (1_500, false)] {
        let (ledger, message) = one(Fate::Accepted);
        for millis in [0, 1_200] {
            ledger.found(Place::Outside, BOB, &message, at(millis));
        }
        ledger.killed("edge", at(kill)).expect("noted");
        let (doubled, repeated) = (usize::from(!excused), usize::from(excused));
        check(&ledger, [1, 0, doubled, 0, 0, 0, repeated]);
    }
}

#[test]
fn in_doubt_may_be_there_once_or_not_at_all() {
    for copies in 0..3 {
        let (ledger, message) = one(Fate::InDoubt);
        (0..copies).for_each(|_| ledger.found(Place::Inside, BOB, &message, at(0)));
        check(&ledger, [0, 0, usize::from(copies > 1), 0, 0, 1, 0]);
    }
}

#[test]
fn a_second_attempt_after_doubt_allows_a_second_copy() {
    let (ledger, message) = one(Fate::InDoubt);
    ledger.enter(&message, &[BOB]).expect("entered");
    ledger.settle(&message, Fate::Accepted).expect("settled");
    (0..2).for_each(|_| ledger.found(Place::Inside, BOB, &message, at(0)));
    check(&ledger, [1, 0, 0, 0, 0, 0, 0]);
    ledger.found(Place::Inside, BOB, &message, at(0));
    check(&ledger, [1, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn ghosts_are_what_nobody_sent_there() {
    let (ledger, message) = one(Fate::NotAccepted);
    ledger.found(Place::Inside, BOB, &message, at(0));
    ledger.found(Place::Inside, EVE, &message, at(0));
    ledger.found(Place::Inside, BOB, &letter(Token { seed: 8, number: 1 }), at(0));
    ledger.found(Place::Inside, BOB, b"Subject: buy now\r\n\r\n", at(0));
    check(&ledger, [0, 0, 0, 4, 0, 0, 0]);
}

#[test]
fn altered_is_any_other_byte_from_the_mark_on() {
    let (ledger, mut message) = one(Fate::Accepted);
    let last = message.len() - 3;
    message[last] ^= 1;
    ledger.found(Place::Inside, BOB, &message, at(0));
    check(&ledger, [1, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn a_message_entered_and_never_settled_is_undetermined() {
    let ledger = Ledger::new(9);
    ledger.enter(&letter(ledger.next_token()), &[BOB]).expect("entered");
    check(&ledger, [0, 0, 0, 0, 0, 1, 0]);
}

#[test]
fn a_marked_text_is_known_in_whatever_message_a_composer_makes_of_it() {
    let ledger = Ledger::new(9);
    let text = marked_text(ledger.next_token());
    ledger.enter(text.as_bytes(), &[BOB]).expect("entered");
    ledger.settle(text.as_bytes(), Fate::Accepted).expect("settled");
    let quoted = format!("> {}", marked_text(ledger.next_token()));
    let composed = format!("Subject: Re: x\r\n\r\nHello,\r\n{text}\r\n-- \r\nalice\r\n{quoted}");
    ledger.found(Place::Outside, BOB, composed.as_bytes(), at(0));
    check(&ledger, [1, 0, 0, 0, 0, 0, 0]);
    let cut = composed.replace(TEXT_END, "gone");
    ledger.found(Place::Outside, BOB, cut.as_bytes(), at(0));
    check(&ledger, [1, 0, 1, 0, 1, 0, 0]);
}

#[test]
fn a_delivery_report_is_none_of_the_messages_it_quotes() {
    let (ledger, message) = one(Fate::NotAccepted);
    let mut report = b"Content-Type: multipart/report; report-type=delivery-status\r\n\r\n".to_vec();
    report.extend_from_slice(&message);
    ledger.found(Place::Inside, "alice@example.com", &report, at(0));
    check(&ledger, [0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ledger.audit().reports, 1);
}

#[test]
fn offenders_are_named_and_the_summary_comes_last() {
    let (ledger, _) = one(Fate::Accepted);
    let audit = ledger.audit().to_string();
    assert_eq!(
        audit,
        "lost: 9-1 for bob@remote.example: accepted and not found\n\
         1 accepted, lost 1, doubled 0, ghost 0, altered 0, undetermined 0"
    );
}

#[test]
fn the_file_has_a_line_for_every_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger");
    let ledger = Ledger::in_file(9, &path).expect("a file");
    let message = letter(ledger.next_token());
    ledger.enter(&message, &[BOB]).expect("entered");
    ledger.settle(&message, Fate::Accepted).expect("settled");
    ledger.killed("edge", at(0)).expect("noted");
    let lines = std::fs::read_to_string(&path).expect("readable");
    let steps: Vec<_> = lines.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(steps, ["enter", "settle", "kill"]);
}
