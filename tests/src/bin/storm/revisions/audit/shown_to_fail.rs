//! The audit finds each kind of fault, and nothing where there is none.

use shared::id::MessageId;
use tests::site::OUTSIDE;

use super::super::{MARK, MARK_END, SECOND_THOUGHTS};
use super::*;

const DECIDED: u64 = 5_000;
const CAROL: &str = "carol@example.com";

fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

fn friend() -> String {
    format!("friend@{OUTSIDE}")
}

fn mark(number: u32) -> String {
    format!("{MARK}alice-{number}{MARK_END}")
}

/// Text 0 is the original.
fn text(number: u32, mode: Option<ReviseMode>, to: &[String]) -> Text {
    let whole = if mode == Some(ReviseMode::Withdraw) { String::new() } else { mark(number) };
    let told_at = Some(time(DECIDED));
    Text { word: mark(number), whole, mode, to: to.to_vec(), number: Some(number), told_at }
}

/// A message to a friend outside and to carol, and what its author has made of it for both.
fn message(modes: &[ReviseMode]) -> Written {
    let to = vec![friend(), CAROL.to_owned()];
    let mut texts = vec![text(0, None, &to)];
    texts.extend((1..).zip(modes).map(|(number, mode)| text(number, Some(*mode), &to)));
    let id = Some(MessageId([1; 16]).to_string());
    Written { id, author: "alice", message_id: None, to, texts }
}

fn results(all: &[(&str, u32, ReviseResult)]) -> BTreeMap<String, Vec<RevisedFor>> {
    let message = MessageId([1; 16]);
    let result = |(to, revision, result): &(&str, u32, ReviseResult)| RevisedFor {
        message,
        address: (*to).to_owned(),
        revision: *revision,
        result: *result,
        at: DECIDED,
    };
    BTreeMap::from([(message.to_string(), all.iter().map(result).collect())])
}

fn copy(to: &str, number: u32, at: u64) -> Copy {
    Copy { recipient: to.to_owned(), text: format!("{}\n", mark(number)), is_notice: false, at: time(at) }
}

fn notice(to: &str, number: u32) -> Copy {
    Copy { is_notice: true, ..copy(to, number, 1) }
}

/// The faults that are found, and how much a kill at 7 explains.
fn found(
    written: Written,
    told: &[(&str, u32, ReviseResult)],
    copies: [Vec<Copy>; 3],
) -> (Vec<String>, usize) {
    let mut findings = Findings::default();
    let [end, road, read] = &copies;
    findings.compare(&[written], &results(told), [end, road, read], |at, before| {
        (time(6)..=time(7)).contains(&at) && time(7) <= before
    });
    (findings.faults, findings.explained)
}

#[test]
fn each_kind_of_fault_of_a_revision_is_found() {
    use ReviseMode::{Replace, Withdraw};
    use ReviseResult::{NoticeSent, Pending, Replaced, Revised, TooLate, Withdrawn};
    let out = friend();
    let out = out.as_str();
    // What was done, what it came to for the friend and for carol, what the friend and carol have, what is wrong.
    let fine: &[&str] = &[];
    let cases = [
        (Replace, [Replaced, Replaced], vec![copy(out, 1, 1), copy(CAROL, 1, 1)], fine),
        (Replace, [Replaced, Replaced], vec![copy(CAROL, 1, 1)], &["it is lost"]),
        (Replace, [Replaced, Replaced], vec![copy(out, 1, 1)], &["it is lost"]),
        (
            Replace,
            [Replaced, Replaced],
            vec![copy(out, 0, 1), copy(CAROL, 1, 1)],
            &["text Some(0), was received all the same", "it is lost"],
        ),
        (
            Replace,
            [Replaced, Replaced],
            vec![copy(out, 0, 1), copy(out, 1, 2), copy(CAROL, 1, 1)],
            &["text Some(0), was received all the same"],
        ),
        (
            Replace,
            [Replaced, Replaced],
            vec![copy(out, 1, 1), copy(CAROL, 0, 1), copy(CAROL, 1, 1)],
            &["text Some(0), was received all the same"],
        ),
        (
            Replace,
            [Replaced, Replaced],
            vec![copy(out, 1, 1), copy(out, 1, 2), copy(CAROL, 1, 1)],
            &["text 1 is there 2 times"],
        ),
        (
            Replace,
            [Replaced, Replaced],
            vec![copy(out, 1, 1), copy(CAROL, 1, 7), copy(CAROL, 1, 7)],
            &["text 1 is there 2 times"],
        ),
        (Withdraw, [Withdrawn, Withdrawn], vec![], fine),
        (
            Withdraw,
            [Withdrawn, Withdrawn],
            vec![copy(out, 0, 1), copy(CAROL, 0, 1)],
            &["text Some(0), was received all the same", "text Some(0), was received all the same"],
        ),
        (Withdraw, [Withdrawn, Revised], vec![copy(CAROL, 1, 1)], fine),
        (
            Withdraw,
            [Withdrawn, Revised],
            vec![copy(CAROL, 0, 1)],
            &["text Some(0), was received all the same"],
        ),
        (Replace, [NoticeSent, Revised], vec![copy(out, 0, 1), notice(out, 1), copy(CAROL, 1, 1)], fine),
        (
            Replace,
            [NoticeSent, Revised],
            vec![copy(out, 0, 1), copy(CAROL, 1, 1)],
            &["the notice of revision 1"],
        ),
        (
            Replace,
            [NoticeSent, Revised],
            vec![copy(out, 0, 1), notice(out, 1), notice(out, 1), copy(CAROL, 1, 1)],
            &["2 notices of revision 1"],
        ),
        (
            Replace,
            [Replaced, Revised],
            vec![copy(out, 1, 1), notice(out, 1), copy(CAROL, 1, 1)],
            &["there is a notice of revision 1"],
        ),
        (Replace, [NoticeSent, Revised], vec![notice(out, 1), copy(CAROL, 1, 1)], &["it is lost"]),
        (
            Replace,
            [TooLate, Revised],
            vec![copy(out, 0, 1), copy(CAROL, 1, 1)],
            &["revision 1 came too late, and nobody was told"],
        ),
        (
            Replace,
            [Pending, Replaced],
            vec![copy(out, 0, 1), copy(CAROL, 1, 1)],
            &["revision 1 is not decided"],
        ),
        (
            Replace,
            [Replaced, TooLate],
            vec![copy(out, 1, 1), copy(CAROL, 0, 1)],
            &["revision 1 came too late for a mailbox"],
        ),
    ];
    for (number, (mode, [friends, carols], end, expected)) in cases.into_iter().enumerate() {
        let told = [(out, 1, friends), (CAROL, 1, carols)];
        let (faults, _) = found(message(&[mode]), &told, [end, vec![], vec![]]);
        assert_eq!(faults.len(), expected.len(), "{number}: {faults:?}");
        for (fault, says) in faults.iter().zip(expected) {
            assert!(fault.contains(says), "{number}: {fault}");
        }
    }
}

#[test]
fn what_a_kill_of_edge_explains_outside_is_counted_and_is_no_fault() {
    let out = friend();
    let told = [(out.as_str(), 1, ReviseResult::Replaced), (CAROL, 1, ReviseResult::Replaced)];
    let end = |old| vec![copy(&out, 0, old), copy(&out, 1, 7), copy(&out, 1, 8), copy(CAROL, 1, 1)];
    let audit = |old| found(message(&[ReviseMode::Replace]), &told, [end(old), vec![], vec![]]);
    assert_eq!(audit(7), (vec![], 2));
    let (faults, explained) = audit(8);
    assert!(explained == 1 && faults[0].contains("received all the same"), "after the kill: {faults:?}");
}

#[test]
fn a_revision_has_one_result_for_each_whom_it_was_for() {
    let out = friend();
    let mut for_one = message(&[ReviseMode::Replace]);
    for_one.texts[1].to = vec![out.clone()];
    let end = || vec![copy(&out, 1, 1), copy(CAROL, 0, 1)];
    let told = [(out.as_str(), 1, ReviseResult::Replaced)];
    assert_eq!(found(for_one, &told, [end(), vec![], vec![]]).0, Vec::<String>::new());
    let for_both = message(&[ReviseMode::Replace]);
    let (faults, _) = found(for_both, &told, [end(), vec![], vec![]]);
    assert!(faults.iter().any(|fault| fault.contains("revision 1 has come to nothing")), "{faults:?}");
    let told = [told[0], (CAROL, 1, ReviseResult::Replaced)];
    let mut for_one = message(&[ReviseMode::Replace]);
    for_one.texts[1].to = vec![out.clone()];
    let end = vec![copy(&out, 1, 1), copy(CAROL, 1, 1)];
    let (faults, _) = found(for_one, &told, [end, vec![], vec![]]);
    for says in ["is not for carol@example.com, who has it", "revision 1 was not for them"] {
        assert!(faults.iter().any(|fault| fault.contains(says)), "{says}: {faults:?}");
    }
}

#[test]
fn nobody_has_what_was_never_written_or_only_a_part_of_it() {
    let out = friend();
    let end = |first: Copy| vec![first, copy(CAROL, 0, 1)];
    let (faults, _) = found(message(&[]), &[], [end(copy(&out, 9, 1)), vec![], vec![]]);
    assert!(faults[0].contains("what nobody wrote"), "{faults:?}");
    let stranger = copy("eve@remote.example", 0, 1);
    let (faults, _) =
        found(message(&[]), &[], [vec![copy(&out, 0, 1), copy(CAROL, 0, 1), stranger], vec![], vec![]]);
    assert!(faults.iter().any(|fault| fault.contains("which went elsewhere")), "{faults:?}");
    let mut long = message(&[]);
    long.texts[0].whole += "\nand more";
    let (faults, _) = found(long, &[], [vec![copy(&out, 0, 1), copy(CAROL, 0, 1)], vec![], vec![]]);
    assert_eq!(faults.iter().filter(|fault| fault.contains("is not whole")).count(), 2, "{faults:?}");
    let mut never = message(&[ReviseMode::Replace]);
    never.texts[1].number = None;
    let (faults, _) = found(never, &[], [end(copy(&out, 1, 1)), vec![], vec![]]);
    assert!(faults.iter().any(|fault| fault.contains("was never made")), "{faults:?}");
    // Of one that nobody knows to have been sent there is one copy, or none.
    let in_doubt = || Written { id: None, ..message(&[]) };
    assert_eq!(found(in_doubt(), &[], [vec![copy(&out, 0, 1)], vec![], vec![]]).0, Vec::<String>::new());
    let (faults, _) = found(in_doubt(), &[], [vec![copy(&out, 0, 1), copy(&out, 0, 2)], vec![], vec![]]);
    assert!(faults[0].contains("there are 2 copies"), "{faults:?}");
}

#[test]
fn the_old_text_is_found_if_it_was_seen_in_spite_of_its_replacement() {
    let end = || vec![copy(&friend(), 1, 1), copy(CAROL, 1, 1)];
    // What it came to, which text was seen and when, and whether that is wrong on the road and at a desk.
    for (result, number, at, road_wrong, desk_wrong) in [
        (ReviseResult::Replaced, 0, DECIDED - 1, 1, 1),
        (ReviseResult::Replaced, 0, DECIDED + 1, 1, 1),
        (ReviseResult::Replaced, 1, DECIDED + 1, 0, 0),
        (ReviseResult::Revised, 0, DECIDED - 1, 0, 0),
        (ReviseResult::Revised, 0, DECIDED + 1, 0, 1),
        (ReviseResult::Revised, 1, DECIDED + 1, 0, 0),
    ] {
        let out = friend();
        let told = [(out.as_str(), 1, ReviseResult::Replaced), (CAROL, 1, result)];
        let seen = || vec![copy(CAROL, number, at)];
        let road = found(message(&[ReviseMode::Replace]), &told, [end(), seen(), vec![]]).0;
        assert_eq!(road.len(), road_wrong, "{result:?} {number} {at}: {road:?}");
        let read = found(message(&[ReviseMode::Replace]), &told, [end(), vec![], seen()]).0;
        assert_eq!(read.len(), desk_wrong, "{result:?} {number} {at}: {read:?}");
    }
}

#[test]
fn every_request_from_the_road_is_answered_once_and_not_refused_without_a_reason() {
    let named = |number: u32| format!("<{number}@{SECOND_THOUGHTS}>");
    let asked = |number, taken| Asked { message_id: named(number), taken };
    let answer = |number, text: &str| {
        format!("Subject: Revised: x\r\nIn-Reply-To: {}\r\n\r\n{text}\r\n", named(number)).into_bytes()
    };
    let done = "Your message 1 was revised. By now:";
    assert!(unanswered(&[asked(1, true), asked(2, false)], &[answer(1, done)]).is_empty());
    assert_eq!(unanswered(&[asked(1, true)], &[]).len(), 1);
    assert_eq!(unanswered(&[asked(1, true)], &[answer(1, done), answer(1, done)]).len(), 1);
    assert_eq!(unanswered(&[], &[answer(1, done)]).len(), 1);
    let withdrawn = "Your message was not revised: 1 was withdrawn on Monday.";
    assert!(unanswered(&[asked(1, true)], &[answer(1, withdrawn)]).is_empty());
    let unknown = "Your message was not revised: it does not answer a message of yours.";
    assert_eq!(unanswered(&[asked(1, true)], &[answer(1, unknown)]).len(), 1);
}

#[test]
fn the_history_tells_what_became_of_what_nobody_was_told() {
    let view = |revision, mode, difference: &str| RevisionView {
        revision,
        at: DECIDED,
        mode,
        reason: None,
        author: "alice".into(),
        subject: "x".into(),
        difference: difference.into(),
    };
    let mut written = message(&[ReviseMode::Replace, ReviseMode::Replace]);
    (written.texts[1].number, written.texts[2].number) = (None, None);
    let made = view(1, Some(ReviseMode::Replace), &format!("-{}\n+{}\n", mark(0), mark(2)));
    assert_eq!(written.learn(&[view(0, None, ""), made.clone()]), Vec::<String>::new());
    assert_eq!(written.texts.iter().map(|text| text.number).collect::<Vec<_>>(), [Some(0), None, Some(1)]);
    let unknown = view(2, Some(ReviseMode::Replace), "+something else\n");
    assert_eq!(written.learn(&[view(0, None, ""), made, unknown]).len(), 1);
    assert_eq!(message(&[ReviseMode::Replace]).learn(&[view(0, None, "")]).len(), 1, "it is in no history");
}
