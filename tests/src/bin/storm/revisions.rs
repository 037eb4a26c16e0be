//! Who changes their mind: desks that replace, append to and withdraw what they have sent while everything fails, and
//! the books of it.
//!
//! These messages are not in the ledger, which knows one text of each. Here each has all its texts, with a word that
//! is in each alone, and what the author was told of each revision. At the end every result has to be final, and
//! what was found has to fit it: a text that was reported as *replaced* or *withdrawn* is nowhere, nobody has one
//! text twice, and nothing is lost. A copy outside that a kill of edge explains is no fault, as in the ledger; and what
//! the traveller collects is never the old text once that was reported.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use big_node::request::{RecipientView, Request, Sent, Status, Written as Letter};
use shared::control::CallError;
use shared::mime;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};
use tests::ask;
use tests::random::Random;
use tests::site::OUTSIDE;

use crate::field::{BOB, Field, inside};

/// Begins the line that marks each text.
const MARK: &str = "Storm-Text: ";
/// Messages that an author goes on revising: the last ones.
const REMEMBERED: usize = 6;
/// One of so many texts is large, by its lines: too large for the lane of small units, however well it is compressed.
const LARGE_ONE_IN: u64 = 12;
const LARGE_LINES: usize = 6000;
/// The longest pause between two acts of one author.
const PAUSE_MILLIS: u64 = 120;

/// What was written, and what became of it.
#[derive(Default)]
pub struct Revisions {
    written: Mutex<Vec<Written>>,
}

struct Written {
    id: String,
    author: &'static str,
    to: String,
    /// The original first.
    texts: Vec<Text>,
}

struct Text {
    word: String,
    /// What the author has done; `None` for the original.
    mode: Option<ReviseMode>,
    /// Which revision it became, if that was answered: 0 is the original.
    number: Option<u32>,
}

/// A copy that was found.
pub struct Copy {
    /// In whose mailbox, or for whom outside.
    pub recipient: String,
    /// The message.
    pub content: Vec<u8>,
    /// When it got there.
    pub at: SystemTime,
}

/// Whether a message is one of these, or a notice about one.
pub fn is_one(content: &[u8]) -> bool {
    let is_notice = mime::fields(content).any(|field| field.is("Supersedes"));
    is_notice || mime::text_of(content).contains(MARK)
}

/// Sends messages and revises them until the storm is over.
pub async fn reviser(field: Arc<Field>, author: &'static str, mut random: Random) {
    let mut number = 0;
    while !field.is_over() {
        let own: Vec<usize> = {
            let written = field.revisions.written();
            let own = (0..written.len()).filter(|place| written[*place].author == author);
            own.rev().take(REMEMBERED).collect()
        };
        number += 1;
        let word = format!("{MARK}{author}-{number}.");
        match own.is_empty() || random.below(3) == 0 {
            true => send(&field, author, word, &mut random).await,
            false => revise(&field, *random.pick(&own), word, &mut random).await,
        }
        tokio::time::sleep(Duration::from_millis(random.below(PAUSE_MILLIS + 1))).await;
    }
}

async fn send(field: &Field, author: &'static str, word: String, random: &mut Random) {
    let to = match random.below(4) {
        0 => inside("carol"),
        1 => inside(BOB),
        _ => format!("friend{}@{OUTSIDE}", random.below(10)),
    };
    let (to_one, subject) = (vec![to.clone()], "second thoughts".into());
    let letter = Letter { to: to_one, subject, text_bytes: word.len(), ..Letter::default() };
    let request = Request::MailSend { person: author.into(), written: letter, quote: false };
    // Whether there is one that was not answered, only its mark will tell: it is never revised.
    if let Ok((sent, _)) = ask::big::<Sent>(&field.big, request, word.clone().into_bytes()).await {
        let texts = vec![Text { word, mode: None, number: Some(0) }];
        field.revisions.written().push(Written { id: sent.id, author, to, texts });
    }
}

async fn revise(field: &Field, place: usize, word: String, random: &mut Random) {
    let (id, author) = {
        let written = &field.revisions.written()[place];
        (written.id.clone(), written.author)
    };
    let mode = match random.below(8) {
        0 => ReviseMode::Withdraw,
        1 | 2 => ReviseMode::Append,
        _ => ReviseMode::Replace,
    };
    let mut text = if mode == ReviseMode::Withdraw { String::new() } else { word.clone() };
    // A large one goes by the lane of large mail, and may be overtaken by the next.
    if mode != ReviseMode::Withdraw && random.below(LARGE_ONE_IN) == 0 {
        for _ in 0..LARGE_LINES {
            text.push_str(&format!("\n{:016x}{:016x}", random.below(u64::MAX), random.below(u64::MAX)));
        }
    }
    let request = Request::MailAmend {
        person: author.into(),
        message: id,
        mode,
        recipients: Vec::new(),
        subject: None,
        // What stays of a message that was read and withdrawn is a notice with the reason: so it has a mark, too.
        reason: (mode == ReviseMode::Withdraw).then(|| word.clone()),
        base: None,
        text_bytes: text.len(),
        attachments: Vec::new(),
    };
    let amended = ask::big::<Status>(&field.big, request, text.into_bytes()).await;
    let number = match &amended {
        Ok((status, _)) => {
            status.recipients.first().and_then(|to| to.revised.as_ref()).map(|made| made.revision)
        }
        Err(CallError::NoAnswer { .. }) => None,
        Err(CallError::Refused(refused)) => {
            // What was withdrawn is not revised, nor what was revised 64 times.
            if !refused.0.contains("was withdrawn") && !refused.0.contains("as often as may be") {
                field.refused(&format!("a revision: {refused}"));
            }
            return;
        }
        Err(_) => return,
    };
    field.revisions.written()[place].texts.push(Text { word, mode: Some(mode), number });
}

impl Revisions {
    fn written(&self) -> MutexGuard<'_, Vec<Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much was revised, and everything that should not be. `copies` is where they are in the end, `collected` what came
/// off the road, each with the time at which it was asked for.
pub async fn audit(
    field: &Field,
    copies: &[Copy],
    collected: &[Copy],
) -> Result<(String, Vec<String>), CallError> {
    let mut faults = Vec::new();
    let written = std::mem::take(&mut *field.revisions.written());
    let mut results = std::collections::BTreeMap::<String, usize>::new();
    for message in &written {
        let request = Request::MailStatus { person: message.author.into(), message: message.id.clone() };
        let (status, _): (Status, _) = ask::big(&field.big, request, Vec::new()).await?;
        let Some(recipient) = status.recipients.first() else {
            faults.push(format!("{} has no recipient", message.id));
            continue;
        };
        let result = recipient.revised.as_ref().map(|revised| revised.result);
        *results
            .entry(result.map_or_else(|| "as it was".into(), |result| shared::render::word(&result)))
            .or_default() += 1;
        let (found, road) = (message.found_in(copies), message.found_in(collected));
        let excused = |at: SystemTime| field.books.was_killed_after(at);
        let late = message.collected_late(recipient, &road);
        faults.extend(message.faults(recipient, &found, excused).into_iter().chain(late).map(|what| {
            let texts: Vec<_> = message.texts.iter().map(|text| (text.mode, text.number)).collect();
            format!("{} to {}: {what}; {texts:?}, {recipient:?}", message.id, message.to)
        }));
    }
    let mut summary = format!("{} messages, {} texts collected on the road", written.len(), collected.len());
    for (result, count) in &results {
        // Writing to a string does not fail.
        let _ = write!(summary, ", {result} {count}");
    }
    Ok((summary, faults))
}

impl Written {
    /// Which of its texts is in a message: the last whose word is, for what is added to a text keeps it.
    fn text_in(&self, content: &str) -> Option<usize> {
        self.texts
            .iter()
            .rposition(|text| text.mode != Some(ReviseMode::Withdraw) && content.contains(&text.word))
    }

    /// Which of its texts are among these, and when.
    fn found_in(&self, copies: &[Copy]) -> Vec<(usize, SystemTime)> {
        let its = copies.iter().filter(|copy| copy.recipient == self.to);
        its.filter_map(|copy| Some((self.text_in(&mime::text_of(&copy.content))?, copy.at))).collect()
    }

    /// Whether the revision of this number takes it back; of one that was not answered, whether it may.
    fn is_withdrawal(&self, last: u32) -> bool {
        let is_one = |text: &Text| text.mode == Some(ReviseMode::Withdraw);
        match self.texts.iter().find(|text| text.number == Some(last)) {
            Some(text) => is_one(text),
            None => self.texts.iter().any(|text| text.number.is_none() && is_one(text)),
        }
    }

    /// Texts that were asked for on the road, and came, after another one was reported in their place.
    fn collected_late(&self, recipient: &RecipientView, road: &[(usize, SystemTime)]) -> Vec<String> {
        let Some(revised) = &recipient.revised else { return Vec::new() };
        if !matches!(revised.result, ReviseResult::Replaced | ReviseResult::Withdrawn) {
            return Vec::new();
        }
        let decided_at = SystemTime::UNIX_EPOCH + Duration::from_millis(revised.at);
        let is_old = |place: usize| self.texts[place].number.is_some_and(|number| number < revised.revision);
        let late = road.iter().filter(|(place, at)| is_old(*place) && *at > decided_at);
        late.map(|(place, at)| format!("text {place} came off the road at {at:?}, after it was decided"))
            .collect()
    }

    fn faults(
        &self,
        recipient: &RecipientView,
        found: &[(usize, SystemTime)],
        excused: impl Fn(SystemTime) -> bool,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let revised = recipient.revised.as_ref().map(|revised| (revised.revision, revised.result));
        let at_end = matches!(
            recipient.state,
            DeliveryState::Relayed | DeliveryState::Delivered | DeliveryState::Withdrawn
        );
        if !at_end {
            faults.push("it is not at its end".to_owned());
        }
        // The text that may be found, if it is one alone: the one of the last revision.
        let may_be = |place: usize| match revised {
            None => self.texts[place].number.is_none_or(|number| number == 0),
            Some((last, ReviseResult::Replaced | ReviseResult::Revised)) => {
                self.texts[place].number.is_none_or(|number| number == last)
            }
            Some((_, ReviseResult::Withdrawn)) => false,
            Some((_, ReviseResult::NoticeSent | ReviseResult::TooLate)) => true,
            Some((_, ReviseResult::Pending | ReviseResult::Refused)) => true,
        };
        if let Some((_, ReviseResult::Pending)) = revised {
            faults.push("it is not decided".to_owned());
        }
        // What stays of one that was read is a notice.
        let is_gone = match revised {
            Some((_, ReviseResult::Withdrawn)) => true,
            Some((last, ReviseResult::Revised)) => self.is_withdrawal(last),
            _ => false,
        };
        if !is_gone && found.iter().all(|(place, _)| !may_be(*place)) {
            faults.push("it is lost".to_owned());
        }
        for (place, at) in found.iter().filter(|(place, at)| !may_be(*place) && !excused(*at)) {
            faults.push(format!("text {place} was received all the same, {at:?}"));
        }
        for place in 0..self.texts.len() {
            let mut times: Vec<_> = found.iter().filter(|(of, _)| *of == place).map(|(_, at)| *at).collect();
            times.sort_unstable();
            if times.len() > 1 && !times[..times.len() - 1].iter().all(|at| excused(*at)) {
                faults.push(format!("text {place} is there {} times", times.len()));
            }
        }
        faults
    }
}

#[cfg(test)]
mod shown_to_fail {
    use big_node::request::RevisedView;

    use super::*;

    const DECIDED: u64 = 5_000;

    fn time(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    /// A message, and a text in its place.
    fn replaced() -> Written {
        let text =
            |word: &str, mode, number| Text { word: format!("{MARK}{word}."), mode, number: Some(number) };
        let texts = vec![text("a-1", None, 0), text("a-2", Some(ReviseMode::Replace), 1)];
        Written { id: "1".into(), author: "alice", to: inside(BOB), texts }
    }

    fn told(state: DeliveryState, result: ReviseResult) -> RecipientView {
        RecipientView {
            address: inside(BOB),
            via: None,
            forwarder: None,
            gateway: None,
            state,
            at: DECIDED,
            host: None,
            tls: None,
            relay: None,
            status: String::new(),
            text: String::new(),
            in_doubt: false,
            host_reports: false,
            next_attempt_at: None,
            revised: Some(RevisedView { revision: 1, result, at: DECIDED, text: String::new() }),
        }
    }

    #[test]
    fn each_kind_of_fault_of_a_revision_is_found() {
        let done = DeliveryState::Delivered;
        let nothing: &[&str] = &[];
        for (state, result, found, expected) in [
            (done, ReviseResult::Replaced, vec![1], nothing),
            (done, ReviseResult::Replaced, vec![0], &["it is lost", "text 0 was received"]),
            (done, ReviseResult::Replaced, vec![0, 1], &["text 0 was received"]),
            (done, ReviseResult::Replaced, vec![1, 1], &["text 1 is there 2 times"]),
            (done, ReviseResult::Replaced, vec![], &["it is lost"]),
            (DeliveryState::Withdrawn, ReviseResult::Withdrawn, vec![], nothing),
            (DeliveryState::Withdrawn, ReviseResult::Withdrawn, vec![1], &["text 1 was received"]),
            (done, ReviseResult::TooLate, vec![0], nothing),
            (done, ReviseResult::TooLate, vec![], &["it is lost"]),
            (done, ReviseResult::Pending, vec![0], &["it is not decided"]),
            (DeliveryState::Deferred, ReviseResult::Replaced, vec![1], &["it is not at its end"]),
        ] {
            let found: Vec<_> = found.into_iter().map(|place| (place, time(1))).collect();
            let faults = replaced().faults(&told(state, result), &found, |_| false);
            assert_eq!(faults.len(), expected.len(), "{result:?} {found:?}: {faults:?}");
            for (fault, begins) in faults.iter().zip(expected) {
                assert!(fault.starts_with(begins), "{result:?} {found:?}: {faults:?}");
            }
        }
        // A host outside that was killed before it could answer has it twice, and nobody is to blame.
        let twice = [(1, time(1)), (1, time(2))];
        let status = told(DeliveryState::Relayed, ReviseResult::Replaced);
        assert!(replaced().faults(&status, &twice, |at| at == time(1)).is_empty());
    }

    #[test]
    fn the_old_text_is_found_if_it_comes_off_the_road_behind_its_replacement() {
        let (old, new) = (format!("{MARK}a-1."), format!("{MARK}a-2."));
        for (result, text, at, late) in [
            (ReviseResult::Replaced, &old, DECIDED - 1, 0),
            (ReviseResult::Replaced, &old, DECIDED + 1, 1),
            (ReviseResult::Replaced, &new, DECIDED + 1, 0),
            (ReviseResult::Withdrawn, &old, DECIDED + 1, 1),
            (ReviseResult::TooLate, &old, DECIDED + 1, 0),
        ] {
            let content = format!("Subject: x\r\n\r\n{text}\r\n").into_bytes();
            let road = replaced().found_in(&[Copy { recipient: inside(BOB), content, at: time(at) }]);
            assert_eq!(road.len(), 1, "{text}");
            let found = replaced().collected_late(&told(DeliveryState::Delivered, result), &road);
            assert_eq!(found.len(), late, "{result:?} {text} {at}: {found:?}");
        }
    }
}
