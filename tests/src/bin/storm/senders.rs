//! Who sends in the storm: strangers to the edge, the desks inside, the traveller.
//!
//! Each enters a message in the books before the first octet leaves and settles it by the answer
//! alone. Nothing is sent twice: after a loss the next message is a new one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use big_node::request::{About, Line, Request, Sent, Started, Terms, Written};
use shared::control::CallError;
use tests::ask;
use tests::client::smtp::{SendError, SmtpClient, SmtpError};
use tests::ledger::Fate;
use tests::messages::{LONG, SHORT, marked_text};
use tests::process::Node;
use tests::random::Random;
use tests::site::OUTSIDE;

use crate::field::{BOB, Field, PEOPLE, STRANGER, inside};

/// The pause after a node was not there.
const AWAY_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two messages of one desk, and of the traveller.
const PERSON_PAUSE_MILLIS: u64 = 120;
/// Messages over one connection, at most.
const PER_CONNECTION: u64 = 20;
/// One message in so many goes to one of the clerk's names.
const GUEST_ONE_IN: u64 = 4;
/// Messages that a desk looks at for one to answer.
const LOOKED_AT: usize = 5;

/// Opens a travel window for everything that comes from now on; returns the password.
pub async fn open_window(field: &Field, person: &str) -> Result<String, CallError> {
    let request = Request::TravelStart { person: person.to_owned(), terms: Terms::default() };
    let (started, _): (Started, _) = ask::big(&field.big, request, Vec::new()).await?;
    Ok(started.password)
}

/// A stranger: sends to people inside over port 25's role, one connection after another.
pub async fn stranger(field: Arc<Field>, mut random: Random) {
    while !field.is_over() {
        let Ok(mut client) = connect(&field, random.below(4) == 0).await else {
            tokio::time::sleep(AWAY_PAUSE).await;
            continue;
        };
        for _ in 0..=random.below(PER_CONNECTION) {
            let guest = (random.below(GUEST_ONE_IN) == 0).then(|| field.guests.pick(&mut random));
            let to = guest.as_ref().map_or_else(|| recipients(&mut random), |name| inside(name));
            let letter = field.letter(STRANGER, &to);
            let message = match random.below(20) {
                0 => letter.with_attachment("storm.bin", LONG),
                _ => letter.text(SHORT),
            };
            let to: Vec<&str> = to.split(", ").collect();
            let known = |name: &String| field.guests.is_known(name);
            let before = guest.as_ref().is_none_or(known);
            let is_fault = || before && guest.as_ref().is_none_or(known);
            if field.is_over() || !send(&field, &mut client, STRANGER, &to, &message, is_fault).await {
                break;
            }
            pause(&mut random, field.stranger_pause_millis).await;
        }
    }
}

/// The traveller: submits, to outside and inside, as `bob`.
pub async fn traveller(field: Arc<Field>, password: String, mut random: Random) {
    let from = inside(BOB);
    let login = Some((BOB, password.as_str()));
    while !field.is_over() {
        let mut client = match SmtpClient::ready(field.submission, login).await {
            Ok(client) => client,
            Err(error) => {
                note_refusal(&field, "submission's login", &error);
                tokio::time::sleep(AWAY_PAUSE).await;
                continue;
            }
        };
        for _ in 0..=random.below(3) {
            let to = match random.below(4) {
                0 => inside("carol"),
                _ => format!("friend{}@{OUTSIDE}", random.below(10)),
            };
            let message = field.letter(&from, &to).text(SHORT);
            if field.is_over() || !send(&field, &mut client, &from, &[&to], &message, || true).await {
                break;
            }
            pause(&mut random, PERSON_PAUSE_MILLIS).await;
        }
    }
}

/// A desk: writes to outside and to colleagues, and answers strangers.
pub async fn desk(field: Arc<Field>, person: &'static str, mut random: Random) {
    while !field.is_over() {
        let text = marked_text(field.token()).into_bytes();
        let (request, to) = match random.below(4) {
            0 => match answer_to(&field, person, &mut random).await {
                Some(message) => {
                    let about = Some(About::Reply { message, all: false, list: false });
                    let written = Written { about, text_bytes: text.len(), ..Written::default() };
                    let request = Request::MailSend { person: person.into(), written, quote: false };
                    (request, STRANGER.to_owned())
                }
                None => {
                    tokio::time::sleep(AWAY_PAUSE).await;
                    continue;
                }
            },
            1 => {
                let to = inside(random.pick::<&str>(&PEOPLE));
                (new_message(person, &to, text.len()), to)
            }
            _ => {
                let to = format!("friend{}@{OUTSIDE}", random.below(10));
                (new_message(person, &to, text.len()), to)
            }
        };
        field.enter(&text, &[&to]);
        let since = Instant::now();
        let sent = ask::big::<Sent>(&field.big, request, text.clone()).await;
        field.settle(&text, fate_of_call(&field, &sent, since));
        pause(&mut random, PERSON_PAUSE_MILLIS).await;
    }
}

fn new_message(person: &str, to: &str, text_bytes: usize) -> Request {
    let (to, subject) = (vec![to.to_owned()], "storm".to_owned());
    let written = Written { to, subject, text_bytes, ..Written::default() };
    Request::MailSend { person: person.to_owned(), written, quote: false }
}

/// A stranger's message among the newest, to be answered.
async fn answer_to(field: &Field, person: &str, random: &mut Random) -> Option<String> {
    let (person, folder) = (person.to_owned(), "in".to_owned());
    let request = Request::MailList { person, folder, max: LOOKED_AT, before: None };
    let (lines, _): (Vec<Line>, _) = ask::big(&field.big, request, Vec::new()).await.ok()?;
    let strangers: Vec<_> =
        lines.into_iter().filter(|line| line.part == 0 && line.from.contains(STRANGER)).collect();
    (!strangers.is_empty()).then(|| random.pick(&strangers).id.clone())
}

/// Exit 0 is a promise; a node that was not there took nothing; anything between is in doubt.
fn fate_of_call(field: &Field, sent: &Result<(Sent, Vec<u8>), CallError>, since: Instant) -> Fate {
    match sent {
        Ok(_) => Fate::Accepted,
        Err(CallError::NoAnswer { .. }) => Fate::InDoubt,
        Err(CallError::Refused(_)) if field.disturbances.is_since(Node::Big, since) => {
            field.disturbances.fate_of_refused(Node::Big, since)
        }
        Err(CallError::Refused(refused)) => {
            field.refused(&format!("a desk's message: {refused}"));
            Fate::NotAccepted
        }
        Err(_) => Fate::NotAccepted,
    }
}

async fn connect(field: &Field, tls: bool) -> Result<SmtpClient, SmtpError> {
    let mut client = SmtpClient::ready(field.smtp, None).await?;
    if tls {
        client.start_tls().await?;
    }
    Ok(client)
}

/// One person inside, sometimes two; as a To line.
fn recipients(random: &mut Random) -> String {
    let first = random.below(PEOPLE.len() as u64);
    let address = |number: u64| inside(PEOPLE[usize::try_from(number).unwrap_or(0) % PEOPLE.len()]);
    match random.below(8) {
        0 => format!("{}, {}", address(first), address(first + 1)),
        _ => address(first),
    }
}

/// Sends one message and books what became of it; whether the session can go on. `is_fault` is asked after a
/// refusal for good.
async fn send(
    field: &Field,
    client: &mut SmtpClient,
    from: &str,
    to: &[&str],
    message: &[u8],
    is_fault: impl Fn() -> bool,
) -> bool {
    field.enter(message, to);
    let since = Instant::now();
    let sent = client.send(from, to, message).await;
    if let Err(SendError::Refused { stage, reply }) = &sent
        && reply.code >= 500
        && is_fault()
    {
        field.refused(&format!("{stage} from {from} to {}: {reply}", to.join(", ")));
    }
    let fate = field.disturbances.fate(&sent, since);
    field.settle(message, fate);
    fate == Fate::Accepted
}

fn note_refusal(field: &Field, what: &str, error: &SmtpError) {
    if let SmtpError::Answered { reply, .. } = error
        && reply.code >= 500
    {
        field.refused(&format!("{what}: {reply}"));
    }
}

async fn pause(random: &mut Random, most_millis: u64) {
    tokio::time::sleep(Duration::from_millis(random.below(most_millis + 1))).await;
}
