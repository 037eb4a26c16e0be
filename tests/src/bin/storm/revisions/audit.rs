//! The audit of what was revised.
//!
//! What each revision came to for each recipient is read from big's records, and has to be final. What was found has to
//! fit it: once a revision was *replaced* or *withdrawn*, no text from before it has left, is in a mailbox, or was ever
//! read or collected on the road; nobody has a text that was never written, was for somebody
//! else or is not whole; who was not taken the message from has one text, and each notice came once. A copy outside
//! that a kill of edge explains, which died between a host's 250 and its record, is no fault and is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use big_node::harness::RevisedFor;
use big_node::request::{Line, Reading, Request, RevisionView, Status};
use shared::control::CallError;
use shared::render::word;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};
use tests::ask;
use tests::site::INSIDE;

use super::authors::may_be_refused;
use super::{Asked, Copy, Text, Written, answers};
use crate::field::{BOB, Field};

/// The pause between two looks at what is not decided yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Lines of the traveller's mailbox that are looked at for answers; big lists no more.
const LISTED_MAX: usize = 10_000;
/// With a longer text its history is only asked for what nobody was told: comparing long texts takes long.
const COMPARED_BYTES_MAX: usize = 1_000;

/// What the audit comes to.
#[derive(Default)]
pub struct Findings {
    /// Everything that should not be.
    pub faults: Vec<String>,
    /// Second and old copies outside that a kill of edge explains; no fault.
    pub explained: usize,
    messages: usize,
    from_the_road: usize,
    revisions: BTreeMap<String, usize>,
    for_some: usize,
    by_mail: usize,
    results: BTreeMap<String, usize>,
    collected: usize,
    read: usize,
}

/// How much was revised, in words.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, from_the_road, for_some, by_mail, collected, read, explained, .. } = self;
        write!(f, "{messages} messages, {from_the_road} of them from the road; revisions")?;
        for (mode, count) in &self.revisions {
            write!(f, " {mode} {count},")?;
        }
        write!(f, " for some {for_some}, by mail {by_mail}; the last ones, for each recipient")?;
        for (result, count) in &self.results {
            write!(f, " {result} {count},")?;
        }
        write!(f, " texts collected on the road {collected}, read inside {read}; ")?;
        write!(f, "copies outside explained by a kill of edge {explained}")
    }
}

/// Waits until nothing that was revised is pending, and every request from the road is answered. What is not by then
/// is for the audit.
pub async fn until_decided(field: &Field, within: Duration) -> Result<(), CallError> {
    let since = Instant::now();
    let ids = |written: &Written| Some((written.author, written.id.clone()?));
    let mut open: Vec<_> = field.revisions.written().iter().filter_map(ids).collect();
    let (mut looked_at, mut answered) = (BTreeSet::new(), BTreeSet::new());
    while since.elapsed() < within {
        let mut pending = Vec::new();
        for (author, id) in open {
            let request = Request::MailStatus { person: author.into(), message: id.clone() };
            let (status, _): (Status, _) = ask::big(&field.big, request, Vec::new()).await?;
            let is_pending = status.recipients.iter().filter_map(|to| to.revised.as_ref());
            if is_pending.into_iter().any(|revised| revised.result == ReviseResult::Pending) {
                pending.push((author, id));
            }
        }
        open = pending;
        let (person, folder) = (BOB.to_owned(), "in".to_owned());
        let request = Request::MailList { person, folder, max: LISTED_MAX, before: None };
        let (lines, _): (Vec<Line>, _) = ask::big(&field.big, request, Vec::new()).await?;
        let is_answer = |line: &Line| line.subject.starts_with("Revised: ") || line.subject == "Not revised";
        for line in lines.into_iter().filter(|line| line.part == 0 && is_answer(line)) {
            if looked_at.insert(line.id.clone()) {
                let request = Request::MailRead { person: BOB.into(), message: line.id, raw: true };
                let (_, content) = ask::big::<Reading>(&field.big, request, Vec::new()).await?;
                answered.extend(answers(&content));
            }
        }
        let is_open = |asked: &Asked| asked.taken && !answered.contains(&asked.message_id);
        if open.is_empty() && !field.revisions.asked().iter().any(is_open) {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Compares. `results` is what big has recorded, `copies` where texts are in the end, `collected` what came off the road,
/// `inbox` what is in the traveller's mailbox at home.
pub async fn audit(
    field: &Field,
    results: Vec<RevisedFor>,
    copies: &[Copy],
    collected: &[Copy],
    inbox: &[Vec<u8>],
) -> Result<Findings, CallError> {
    let mut written = std::mem::take(&mut *field.revisions.written());
    let asked = std::mem::take(&mut *field.revisions.asked());
    let read = std::mem::take(&mut *field.revisions.read());
    let mut findings = Findings { collected: collected.len(), read: read.len(), ..Findings::default() };
    findings.faults.extend(unanswered(&asked, inbox));
    let mut by_message: BTreeMap<String, Vec<RevisedFor>> = BTreeMap::new();
    for result in results {
        by_message.entry(result.message.to_string()).or_default().push(result);
    }
    for message in &mut written {
        findings.count(message);
        let Some(id) = message.id.clone() else { continue };
        let person = message.author.to_owned();
        if message.needs_history() {
            let request = Request::MailHistory { person: person.clone(), message: id.clone() };
            let (history, _): (Vec<RevisionView>, _) = ask::big(&field.big, request, Vec::new()).await?;
            findings.faults.extend(message.learn(&history));
        }
        let request = Request::MailStatus { person, message: id.clone() };
        let (status, _): (Status, _) = ask::big(&field.big, request, Vec::new()).await?;
        let waits = status.recipients.iter().filter(|to| !is_at_end(to.state));
        findings.faults.extend(waits.map(|to| format!("{id} is not at its end: {to:?}")));
    }
    let excused = |at: SystemTime, before: SystemTime| field.books.was_killed_between(at, before);
    findings.compare(&written, &by_message, [copies, collected, &read], excused);
    Ok(findings)
}

fn is_at_end(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Relayed | DeliveryState::Delivered | DeliveryState::Withdrawn)
}

fn is_inside(address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(_, domain)| domain == INSIDE)
}

fn is_swapped(result: ReviseResult) -> bool {
    matches!(result, ReviseResult::Replaced | ReviseResult::Withdrawn)
}

/// Requests from the road that nobody has answered, or twice, and answers that should not be.
fn unanswered(asked: &[Asked], inbox: &[Vec<u8>]) -> Vec<String> {
    let mut answered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for content in inbox {
        if let Some(named) = answers(content) {
            answered.entry(named).or_default().push(shared::mime::text_of(content));
        }
    }
    let mut faults = Vec::new();
    for Asked { message_id, taken } in asked {
        let texts = answered.remove(message_id).unwrap_or_default();
        if texts.len() > 1 || (*taken && texts.is_empty()) {
            faults.push(format!("the request {message_id} from the road is answered {} times", texts.len()));
        }
        let refused = texts.iter().filter(|text| text.contains("was not revised"));
        faults.extend(
            refused
                .filter(|text| !may_be_refused(text))
                .map(|text| format!("the request {message_id} from the road was refused: {text}")),
        );
    }
    faults.extend(answered.keys().map(|named| format!("{named} is answered, and nobody asked")));
    faults
}

impl Written {
    /// Whether its history is to be asked: what nobody was told, or everything if that is short.
    fn needs_history(&self) -> bool {
        let is_told = self.texts.iter().all(|text| text.number.is_some());
        !is_told || self.texts.iter().all(|text| text.whole.len() <= COMPARED_BYTES_MAX)
    }

    /// Holds its history against the texts, and learns from it what became of those of which nobody was told.
    fn learn(&mut self, history: &[RevisionView]) -> Vec<String> {
        let mut faults = Vec::new();
        let id = self.id.clone().unwrap_or_default();
        for text in self.texts.iter().filter(|text| text.number.is_some()) {
            let is_it = |view: &&RevisionView| Some(view.revision) == text.number && view.mode == text.mode;
            if !history.iter().any(|view| is_it(&view)) {
                faults.push(format!("{id}: revision {:?} is not in its history", text.number));
            }
        }
        for view in history {
            if self.texts.iter().any(|text| text.number == Some(view.revision)) {
                continue;
            }
            let says = |text: &Text| match text.mode {
                Some(ReviseMode::Withdraw) => view.reason.as_ref().is_none_or(|reason| *reason == text.word),
                _ => view.difference.contains(&format!("+{}", text.word)),
            };
            let is_it = |text: &&mut Text| text.number.is_none() && text.mode == view.mode && says(text);
            match self.texts.iter_mut().find(is_it) {
                Some(text) => text.number = Some(view.revision),
                None => faults.push(format!("{id}: nobody has made revision {}", view.revision)),
            }
        }
        faults
    }

    /// The number of the text that a copy shows: the last whose mark is in it, for what is added to a text keeps it. And
    /// what is wrong with the copy itself.
    fn shown_in(&self, copy: &Copy) -> (Option<&Text>, Vec<String>) {
        let (mut shown, mut faults) = (None, Vec::new());
        let words: BTreeSet<&str> = copy.words().collect();
        for text in self.texts.iter().filter(|text| words.contains(text.word.as_str())) {
            if !text.to.contains(&copy.recipient) {
                faults.push(format!("{} is not for {}, who has it", text.word, copy.recipient));
            }
            if text.number.is_none() && self.id.is_some() {
                faults.push(format!("{} was never made, and {} has it", text.word, copy.recipient));
            }
            shown = Some(text);
        }
        if let Some(text) = shown.filter(|text| !copy.text.contains(&text.whole)) {
            faults.push(format!("{} is not whole at {}", text.word, copy.recipient));
        }
        (shown, faults)
    }
}

/// A copy of one message at one recipient.
struct Shown<'a> {
    text: &'a Text,
    is_notice: bool,
    at: SystemTime,
}

/// What the revisions of one message came to for one recipient.
struct Outcome<'a> {
    written: &'a Written,
    to: &'a str,
    /// By the revision's number.
    results: BTreeMap<u32, &'a RevisedFor>,
}

impl Outcome<'_> {
    /// What may be of a message that nobody knows to have been sent: one copy.
    fn in_doubt(&self, shown: &[Shown<'_>], excused: impl Fn(SystemTime, SystemTime) -> bool) -> Vec<String> {
        let mut times: Vec<_> = shown.iter().map(|shown| shown.at).collect();
        times.sort_unstable();
        let more = times.windows(2).filter(|pair| is_inside(self.to) || !excused(pair[0], pair[1]));
        more.map(|pair| format!("there are {} copies, one of {:?}", times.len(), pair[0])).collect()
    }

    /// The last revision that has taken the place of what was there before, or taken it away; 0 is the original.
    fn last(&self, counts: impl Fn(ReviseResult) -> bool) -> (u32, Option<ReviseResult>) {
        let last = self.results.iter().rfind(|(_, row)| counts(row.result));
        last.map_or((0, None), |(number, row)| (*number, Some(row.result)))
    }

    fn mode(&self, number: u32) -> Option<ReviseMode> {
        self.written.texts.iter().find(|text| text.number == Some(number)).and_then(|text| text.mode)
    }

    /// When the first revision was decided that has taken the place of a text, or taken it away: what a killed edge had
    /// handed over without a record it had handed over before that.
    fn swapped_at(&self, text: Option<u32>) -> SystemTime {
        let later = self.results.values().filter(|row| is_swapped(row.result) && Some(row.revision) > text);
        let at = later.map(|row| row.at).min().unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_millis(at)
    }

    /// Each revision has one final result for each recipient it was for, and none for others.
    fn undecided(&self) -> Vec<String> {
        let is_its = |text: &&Text| text.mode.is_some() && text.to.iter().any(|to| to == self.to);
        let made: BTreeSet<u32> =
            self.written.texts.iter().filter(is_its).filter_map(|text| text.number).collect();
        let mut faults = Vec::new();
        for number in &made {
            match self.results.get(number).map(|row| row.result) {
                None => faults.push(format!("revision {number} has come to nothing")),
                Some(ReviseResult::Pending) => faults.push(format!("revision {number} is not decided")),
                Some(ReviseResult::NoticeSent | ReviseResult::TooLate) if is_inside(self.to) => {
                    faults.push(format!("revision {number} came too late for a mailbox"));
                }
                // Who has the old text is told, but for what a later notice has told already.
                Some(ReviseResult::TooLate)
                    if self.last(|result| result == ReviseResult::NoticeSent).0 < *number =>
                {
                    faults.push(format!("revision {number} came too late, and nobody was told"));
                }
                Some(_) => {}
            }
        }
        let others = self.results.keys().filter(|number| !made.contains(number));
        faults.extend(others.map(|number| format!("revision {number} was not for them")));
        faults
    }

    /// What is in the mailbox, or has left, against the results. Returns how much of it a kill explains.
    fn compare(
        &self,
        shown: &[Shown<'_>],
        excused: impl Fn(SystemTime, SystemTime) -> bool,
    ) -> (Vec<String>, usize) {
        let (mut faults, mut missing, mut explained) = (Vec::new(), Vec::new(), 0);
        let mut explain = |at: SystemTime, before: SystemTime, fault: String| match !is_inside(self.to)
            && excused(at, before)
        {
            true => explained += 1,
            false => faults.push(fault),
        };
        let (last, result) = match is_inside(self.to) {
            true => self.last(|result| is_swapped(result) || result == ReviseResult::Revised),
            false => self.last(is_swapped),
        };
        // What stays of one that was read is a notice in its place.
        let may_be_gone = self.mode(last) == Some(ReviseMode::Withdraw);
        let is_gone = result == Some(ReviseResult::Withdrawn);
        let texts: Vec<_> = shown.iter().filter(|shown| !shown.is_notice).collect();
        let is_right = |shown: &&&Shown<'_>| shown.text.number == Some(last) && !is_gone;
        for wrong in texts.iter().filter(|shown| !is_right(shown)) {
            let Text { word, number, .. } = wrong.text;
            let fault = format!("{word}, text {number:?}, was received all the same, {:?}", wrong.at);
            explain(wrong.at, self.swapped_at(*number), fault);
        }
        let mut right: Vec<_> = texts.iter().filter(is_right).map(|shown| shown.at).collect();
        right.sort_unstable();
        for pair in right.windows(2) {
            explain(pair[0], pair[1], format!("text {last} is there {} times", right.len()));
        }
        if right.is_empty() && !may_be_gone {
            missing.push("it is lost".to_owned());
        }
        for (number, row) in &self.results {
            let notices = shown.iter().filter(|shown| shown.is_notice && shown.text.number == Some(*number));
            let mut notices: Vec<_> = notices.map(|shown| shown.at).collect();
            notices.sort_unstable();
            let is_owed = row.result == ReviseResult::NoticeSent;
            if !is_owed && !notices.is_empty() {
                missing.push(format!("there is a notice of revision {number}, which is {:?}", row.result));
            }
            for pair in notices.windows(2) {
                explain(pair[0], pair[1], format!("{} notices of revision {number}", notices.len()));
            }
            // One that withdraws by a request from the road has no mark.
            let is_marked = self.mode(*number) != Some(ReviseMode::Withdraw) || self.written.author != BOB;
            if notices.is_empty() && is_owed && is_marked {
                missing.push(format!("the notice of revision {number} is lost"));
            }
        }
        faults.append(&mut missing);
        (faults, explained)
    }

    /// Texts that were read, or came off the road, though another one is said to have come in their place unread: whether
    /// before that was decided or after it.
    fn seen_all_the_same(&self, seen: &[Shown<'_>]) -> Vec<String> {
        let mut faults = Vec::new();
        for Shown { text, at, .. } in seen {
            let is_swapped = |row: &&&RevisedFor| is_swapped(row.result) && text.number < Some(row.revision);
            if let Some(row) = self.results.values().find(is_swapped) {
                let (word, number) = (&text.word, row.revision);
                faults
                    .push(format!("{word} was seen, as asked for at {at:?}, in spite of revision {number}"));
            }
        }
        faults
    }

    /// Texts that a reader was shown, who had asked for them after the author was told of another one: that is offered in
    /// their place, whether they were read before or not.
    fn read_late(&self, read: &[Shown<'_>]) -> Vec<String> {
        let told_at = |number: u32| {
            let text = self.written.texts.iter().find(|text| text.number == Some(number))?;
            text.told_at
        };
        let mut faults = Vec::new();
        for Shown { text, at, .. } in read {
            let is_late = |(number, row): &(&u32, &&RevisedFor)| {
                let is_shown = row.result == ReviseResult::Revised && text.number < Some(**number);
                is_shown && told_at(**number).is_some_and(|told| told < *at)
            };
            if let Some((number, _)) = self.results.iter().find(is_late) {
                faults.push(format!("{} was read at {at:?}, after its author knew of {number}", text.word));
            }
        }
        faults
    }
}

impl Findings {
    fn count(&mut self, message: &Written) {
        self.messages += usize::from(message.id.is_some());
        self.from_the_road += usize::from(message.id.is_some() && message.message_id.is_some());
    }

    /// Holds copies against the books: those in mailboxes and outside, those off the road, those that were read.
    fn compare(
        &mut self,
        written: &[Written],
        results: &BTreeMap<String, Vec<RevisedFor>>,
        copies: [&[Copy]; 3],
        excused: impl Fn(SystemTime, SystemTime) -> bool,
    ) {
        let texts = written.iter().enumerate();
        let words: BTreeMap<&str, usize> = texts
            .flat_map(|(place, message)| message.texts.iter().map(move |text| (text.word.as_str(), place)))
            .collect();
        // By message and recipient: in the end, off the road, read.
        let mut shown: BTreeMap<(usize, &str), [Vec<Shown<'_>>; 3]> = BTreeMap::new();
        for (kind, copies) in copies.into_iter().enumerate() {
            for copy in copies {
                let places: BTreeSet<_> = copy.words().map(|word| words.get(word).copied()).collect();
                let place = match places.iter().collect::<Vec<_>>().as_slice() {
                    // What was withdrawn by a request from the road has no mark.
                    [] => continue,
                    [Some(place)] => *place,
                    _ => {
                        self.faults
                            .push(format!("{} has what nobody wrote: {:?}", copy.recipient, copy.text));
                        continue;
                    }
                };
                let (text, faults) = written[place].shown_in(copy);
                self.faults.extend(faults);
                if let Some(text) = text {
                    let found = shown.entry((place, copy.recipient.as_str())).or_default();
                    found[kind].push(Shown { text, is_notice: copy.is_notice, at: copy.at });
                }
            }
        }
        for (place, message) in written.iter().enumerate() {
            self.count_revisions(message);
            let nothing = Vec::new();
            let of_message = message.id.as_ref().and_then(|id| results.get(id)).unwrap_or(&nothing);
            for to in &message.to {
                let [found, road, read] = shown.remove(&(place, to.as_str())).unwrap_or_default();
                let rows = of_message.iter().filter(|row| row.address == *to);
                let results = rows.map(|row| (row.revision, row)).collect();
                let outcome = Outcome { written: message, to, results };
                let faults = if message.id.is_none() {
                    outcome.in_doubt(&found, &excused)
                } else {
                    let word =
                        outcome.results.values().next_back().map_or("as it was".into(), |r| word(&r.result));
                    *self.results.entry(word).or_default() += 1;
                    let (faults, explained) = outcome.compare(&found, &excused);
                    self.explained += explained;
                    let others = [
                        outcome.undecided(),
                        outcome.seen_all_the_same(&road),
                        outcome.seen_all_the_same(&read),
                        outcome.read_late(&read),
                    ];
                    [faults, others.concat()].concat()
                };
                let id = message.id.as_deref().unwrap_or("a message in doubt");
                self.faults.extend(faults.into_iter().map(|what| {
                    let texts: Vec<_> = message.texts.iter().map(|text| (text.mode, text.number)).collect();
                    format!("{id} to {to}: {what}; {texts:?}, {:?}", outcome.results)
                }));
            }
        }
        let strangers = shown
            .keys()
            .map(|(place, to)| format!("{to} has {:?}, which went elsewhere", written[*place].id));
        self.faults.extend(strangers);
    }

    fn count_revisions(&mut self, message: &Written) {
        for text in message.texts.iter().filter(|text| text.number.is_some()) {
            let Some(mode) = text.mode else { continue };
            *self.revisions.entry(word(&mode)).or_default() += 1;
            self.for_some += usize::from(text.to.len() < message.to.len());
            self.by_mail += usize::from(message.message_id.is_some());
        }
    }
}

#[cfg(test)]
mod shown_to_fail;
