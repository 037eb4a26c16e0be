//! Who has second thoughts: desks that send, revise and read, and a traveller who revises by mail.
//!
//! Each enters a text in the books before the first octet of it leaves, and what became of it by the answer alone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use big_node::request::{Reading, Request, Sent, Status, Written as Letter};
use shared::control::CallError;
use shared::unit::ReviseMode;
use tests::ask;
use tests::client::smtp::{SendError, SmtpClient};
use tests::internet::rules::{Action, Rule, Stage};
use tests::ledger::Fate;
use tests::process::Node;
use tests::random::Random;
use tests::site::OUTSIDE;
use tests::world::accepted_as;

use super::{Asked, Copy, MARK, MARK_END, SECOND_THOUGHTS, Text, Written};
use crate::field::{BOB, Field, inside};

/// Messages that an author goes on revising: the last ones.
const REMEMBERED: usize = 6;
/// One of so many texts of a desk is large, by its lines: too large for the lane of small units, however well it is
/// compressed.
const LARGE_ONE_IN: u64 = 12;
const LARGE_LINES: usize = 6000;
/// The longest pause between two acts of one author.
const PAUSE_MILLIS: u64 = 60;
/// Who reads at a desk inside what these authors send.
const READER: &str = "carol";
/// Friends outside.
const FRIENDS: u64 = 10;
/// The friend whose host takes nothing while the storm lasts: what is sent there waits on edge.
const DEFERRED: &str = "deferred";
/// The friend whose host is slow: attempts are under way for a while.
const SLOW: &str = "slow";
/// How slow; before the text is sent, so that nobody has a text of which edge knows nothing.
const SLOWLY: Duration = Duration::from_millis(150);

/// What the host outside does with the two friends it does not treat as the others.
pub fn deferring() -> [Rule; 2] {
    [
        Rule::reply(Stage::Rcpt, 451, "4.2.0 not now").only_for(&outside(DEFERRED)),
        Rule::new(Stage::Rcpt, Action::Delay(SLOWLY)).only_for(&outside(SLOW)),
    ]
}

fn outside(name: &str) -> String {
    format!("{name}@{OUTSIDE}")
}

/// One to three recipients, each once.
fn recipients(random: &mut Random, author: &str) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..*random.pick(&[1, 2, 2, 3]) {
        let one = match random.below(6) {
            0 => inside(READER),
            1 if author != BOB => inside(BOB),
            2 => outside(DEFERRED),
            3 => outside(SLOW),
            _ => outside(&format!("friend{}", random.below(FRIENDS))),
        };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// All of them, or some if there are several.
fn some_of(all: &[String], random: &mut Random) -> Vec<String> {
    if random.below(2) == 0 {
        return all.to_vec();
    }
    let some: Vec<_> = all.iter().filter(|_| random.below(2) == 0).cloned().collect();
    if some.is_empty() { vec![random.pick(all).clone()] } else { some }
}

impl Text {
    fn original(word: String, to: Vec<String>) -> Self {
        Self { whole: word.clone(), word, mode: None, to, number: None, told_at: None }
    }
}

impl Field {
    /// The last messages of an author whose ids are known, by their place in the books.
    fn own(&self, author: &str) -> Vec<usize> {
        let written = self.revisions.written();
        let is_own = |place: &usize| written[*place].author == author && written[*place].id.is_some();
        (0..written.len()).filter(is_own).rev().take(REMEMBERED).collect()
    }
}

/// A desk: sends messages, revises them, and lets the reader inside read, until the storm is over.
pub async fn desk(field: Arc<Field>, author: &'static str, mut random: Random) {
    let mut number = 0;
    while !field.is_over() {
        number += 1;
        let word = format!("{MARK}{author}-{number}{MARK_END}");
        let own = field.own(author);
        match random.below(8) {
            0..3 => send(&field, author, word, &mut random).await,
            _ if own.is_empty() => send(&field, author, word, &mut random).await,
            3 => read(&field, &own).await,
            _ => revise(&field, *random.pick(&own), word, &mut random).await,
        }
        pause(&mut random).await;
    }
}

/// Whether big may have done what it has refused since then.
fn is_in_doubt(field: &Field, since: Instant) -> bool {
    field.disturbances.fate_of_refused(Node::Big, since) == Fate::InDoubt
}

async fn send(field: &Field, author: &'static str, word: String, random: &mut Random) {
    let to = recipients(random, author);
    let text = Text::original(word.clone(), to.clone());
    let place =
        enter(field, Written { id: None, author, message_id: None, to: to.clone(), texts: vec![text] });
    let subject = "second thoughts".into();
    let letter = Letter { to, subject, text_bytes: word.len(), ..Letter::default() };
    let request = Request::MailSend { person: author.into(), written: letter, quote: false };
    let since = Instant::now();
    match ask::big::<Sent>(&field.big, request, word.into_bytes()).await {
        Ok((sent, _)) => accepted(field, place, sent.id),
        // It may have been sent.
        Err(CallError::NoAnswer { .. }) => {}
        Err(CallError::Refused(_)) if is_in_doubt(field, since) => {}
        Err(error) => {
            field.revisions.written()[place].texts.clear();
            if let CallError::Refused(refused) = error
                && !field.disturbances.is_since(Node::Big, since)
            {
                field.refused(&format!("a desk's message: {refused}"));
            }
        }
    }
}

fn enter(field: &Field, written: Written) -> usize {
    let mut all = field.revisions.written();
    all.push(written);
    all.len() - 1
}

fn accepted(field: &Field, place: usize, id: String) {
    let written = &mut field.revisions.written()[place];
    written.id = Some(id);
    (written.texts[0].number, written.texts[0].told_at) = (Some(0), Some(SystemTime::now()));
}

/// What the reader inside is shown of the newest of these messages that is there: from then on it is read.
async fn read(field: &Field, own: &[usize]) {
    let newest = {
        let written = field.revisions.written();
        let is_theirs = |place: &&usize| written[**place].to.contains(&inside(READER));
        own.iter().find(is_theirs).and_then(|place| written[*place].id.clone())
    };
    let Some(message) = newest else { return };
    let at = SystemTime::now();
    let request = Request::MailRead { person: READER.into(), message, raw: false };
    if let Ok((reading, _)) = ask::big::<Reading>(&field.big, request, Vec::new()).await {
        let copy = Copy { recipient: inside(READER), text: reading.text, is_notice: false, at };
        field.revisions.read().push(copy);
    }
}

async fn revise(field: &Field, place: usize, word: String, random: &mut Random) {
    let (id, author, all) = {
        let written = &field.revisions.written()[place];
        (written.id.clone().unwrap_or_default(), written.author, written.to.clone())
    };
    let mode = match random.below(8) {
        0 => ReviseMode::Withdraw,
        1..4 => ReviseMode::Append,
        _ => ReviseMode::Replace,
    };
    let to = some_of(&all, random);
    let mut whole = if mode == ReviseMode::Withdraw { String::new() } else { word.clone() };
    // A large one goes by the lane of large mail, and may be overtaken by the next.
    if mode != ReviseMode::Withdraw && random.below(LARGE_ONE_IN) == 0 {
        for _ in 0..LARGE_LINES {
            whole.push_str(&format!("\n{:016x}{:016x}", random.below(u64::MAX), random.below(u64::MAX)));
        }
    }
    let request = Request::MailAmend {
        person: author.into(),
        message: id,
        mode,
        recipients: if to == all { Vec::new() } else { to.clone() },
        subject: None,
        // What stays of a message that was read and withdrawn is a notice with the reason: so it has a mark, too.
        reason: (mode == ReviseMode::Withdraw).then(|| word.clone()),
        base: None,
        text_bytes: whole.len(),
        attachments: Vec::new(),
    };
    let octets = whole.clone().into_bytes();
    let text = Text { word, whole, mode: Some(mode), to, number: None, told_at: None };
    let at = {
        let texts = &mut field.revisions.written()[place].texts;
        texts.push(text);
        texts.len() - 1
    };
    let since = Instant::now();
    let amended = ask::big::<Status>(&field.big, request, octets).await;
    let texts = &mut field.revisions.written()[place].texts;
    match amended {
        Ok((status, _)) => {
            let revised = status.recipients.iter().filter_map(|to| to.revised.as_ref());
            texts[at].number = revised.map(|made| made.revision).max();
            texts[at].told_at = Some(SystemTime::now());
        }
        // It may have been made.
        Err(CallError::NoAnswer { .. }) => {}
        Err(CallError::Refused(_)) if is_in_doubt(field, since) => {}
        Err(error) => {
            // Nobody revises this message but its author, who waits for each answer.
            texts.truncate(at);
            if let CallError::Refused(refused) = error
                && !may_be_refused(&refused.0)
                && !field.disturbances.is_since(Node::Big, since)
            {
                field.refused(&format!("a revision: {refused}"));
            }
        }
    }
}

/// What was withdrawn is not revised, nor what was revised 64 times, and nothing is added to several texts at once.
pub(super) fn may_be_refused(why: &str) -> bool {
    ["was withdrawn", "as often as may be", "have different texts"].iter().any(|may| why.contains(may))
}

/// The traveller: submits messages, and revises them by answering to an address of their own.
pub async fn traveller(field: Arc<Field>, password: String, mut random: Random) {
    let mut number = 0;
    while !field.is_over() {
        let Ok(mut client) = SmtpClient::ready(field.submission, Some((BOB, password.as_str()))).await else {
            pause(&mut random).await;
            continue;
        };
        for _ in 0..=random.below(3) {
            number += 1;
            let own = field.own(BOB);
            let goes_on = match own.is_empty() || random.below(3) == 0 {
                true => submit(&field, &mut client, number, &mut random).await,
                false => ask_by_mail(&field, &mut client, *random.pick(&own), number, &mut random).await,
            };
            pause(&mut random).await;
            if field.is_over() || !goes_on {
                break;
            }
        }
    }
}

fn letter(to: &str, message_id: &str, answered: Option<&str>, text: &str) -> Vec<u8> {
    let answered = answered.map_or_else(String::new, |answered| format!("In-Reply-To: {answered}\r\n"));
    format!(
        "From: {}\r\nTo: {to}\r\nSubject: second thoughts\r\nDate: Mon, 2 Nov 2026 09:00:00 +0000\r\n\
         Message-ID: {message_id}\r\n{answered}MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n{text}\r\n",
        inside(BOB)
    )
    .into_bytes()
}

/// Sends a new message; whether the session can go on.
async fn submit(field: &Field, client: &mut SmtpClient, number: u64, random: &mut Random) -> bool {
    let (word, to) = (format!("{MARK}{BOB}-{number}{MARK_END}"), recipients(random, BOB));
    let message_id = format!("<{number}@{SECOND_THOUGHTS}>");
    let message = letter(&to.join(", "), &message_id, None, &word);
    let texts = vec![Text::original(word, to.clone())];
    let written = Written { id: None, author: BOB, message_id: Some(message_id), to: to.clone(), texts };
    let place = enter(field, written);
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let since = Instant::now();
    let sent = client.send(&inside(BOB), &to, &message).await;
    match &sent {
        Ok(reply) => match accepted_as(reply) {
            Some(id) => accepted(field, place, id),
            None => field.fault(format!("no id in {reply}")),
        },
        Err(_) if field.disturbances.fate(&sent, since) == Fate::InDoubt => {}
        Err(_) => field.revisions.written()[place].texts.clear(),
    }
    note_refusal(field, &sent);
    sent.is_ok()
}

/// Asks by mail for a revision; whether the session can go on.
async fn ask_by_mail(
    field: &Field,
    client: &mut SmtpClient,
    place: usize,
    number: u64,
    random: &mut Random,
) -> bool {
    let (word, message_id) =
        (format!("{MARK}{BOB}-{number}{MARK_END}"), format!("<{number}@{SECOND_THOUGHTS}>"));
    let (mode, tag) = match random.below(6) {
        0 => (ReviseMode::Withdraw, "withdraw"),
        _ => (ReviseMode::Replace, "replace"),
    };
    let to = inside(&format!("{BOB}+{tag}"));
    let message = {
        let written = &mut field.revisions.written()[place];
        let whole = if mode == ReviseMode::Withdraw { String::new() } else { word.clone() };
        let all = written.to.clone();
        let message = letter(&to, &message_id, written.message_id.as_deref(), &whole);
        written.texts.push(Text { word, whole, mode: Some(mode), to: all, number: None, told_at: None });
        message
    };
    let since = Instant::now();
    let sent = client.send(&inside(BOB), &[&to], &message).await;
    match field.disturbances.fate(&sent, since) {
        Fate::Accepted | Fate::InDoubt => {
            field.revisions.asked().push(Asked { message_id, taken: sent.is_ok() });
        }
        Fate::NotAccepted => drop(field.revisions.written()[place].texts.pop()),
    }
    note_refusal(field, &sent);
    sent.is_ok()
}

fn note_refusal<T>(field: &Field, sent: &Result<T, SendError>) {
    if let Err(SendError::Refused { stage, reply }) = sent
        && reply.code >= 500
    {
        field.refused(&format!("{stage} from the road: {reply}"));
    }
}

async fn pause(random: &mut Random) {
    tokio::time::sleep(Duration::from_millis(random.below(PAUSE_MILLIS + 1))).await;
}
