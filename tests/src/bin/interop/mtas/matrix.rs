//! The rows: a message each, and what has to become of it. What arrives is compared octet for octet, and so is what the
//! edge has recorded of its way, or what the MTA says of it.

use std::cell::Cell;

use shared::unit::DeliveryState;
use tests::ledger::{Place, Token};
use tests::messages::{Letter, SHORT};
use tests::random::Random;
use tests::wait::{SOON, Trouble, until};
use tests::world::without_trace;

use super::domains::{Domain, host};
use super::lab::Lab;
use super::running::RunningMta;
use super::{Mta, Taken};
use crate::namespaces::EDGE;
use crate::send::same;
use crate::tally::Tally;

/// Octets of the largest message.
const HUGE: usize = 50_000_000;
/// Octets of the text that it repeats.
const REPEATED: usize = 1_000_000;

/// What a message is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// ASCII.
    Text,
    /// What 8BITMIME is for.
    EightBit,
    /// With UTF-8 in addresses and in the header.
    Utf8,
    /// As large as the edge takes them, but for the trace.
    Huge,
}

/// Which MTAs a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    All,
    /// Those whose STARTTLS works.
    Tls,
    /// Those whose STARTTLS is offered, and fails.
    BrokenTls,
    /// Those that offer SMTPUTF8.
    Utf8,
    /// Those that do not.
    NoUtf8,
    /// Those that prove hosts by DANE.
    Dane,
    /// Those that do not.
    NoDane,
    /// Those that prove hosts by MTA-STS, if what they need for that is here.
    Sts,
    /// Those that send by BDAT.
    Chunks,
}

impl For {
    fn is_for(self, mta: &Mta, lab: &Lab) -> bool {
        let words = &mta.words;
        match self {
            Self::All => true,
            Self::Tls => mta.tls,
            Self::BrokenTls => !mta.tls,
            Self::Utf8 => mta.utf8,
            Self::NoUtf8 => !mta.utf8,
            Self::Dane => words.dane.is_some(),
            Self::NoDane => words.dane.is_none(),
            Self::Sts => words.sts.is_some() && lab.has_sts(),
            Self::Chunks => words.chunked.is_some(),
        }
    }
}

/// What becomes of a message to an MTA, as the edge records it.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// The MTA has it; the TLS that was under, and by what the host had proved itself.
    Relayed(Option<&'static str>),
    /// It waits, with this status, and the reason has these words.
    Deferred(&'static str, &'static str),
    /// It comes back, in the same way.
    Failed(&'static str, &'static str),
}

/// A message to an MTA.
struct Out {
    case: &'static str,
    to: Domain,
    content: Content,
    of: For,
    becomes: Becomes,
}

const OPPORTUNISTIC: Becomes = Becomes::Relayed(Some("TLS 1.3"));
const BY_DANE: Becomes = Becomes::Relayed(Some("TLS 1.3, verified by DANE"));
const IN_CLEAR: Becomes = Becomes::Relayed(None);

const OUT: [Out; 15] = [
    Out {
        case: "STARTTLS, 8-bit",
        to: Domain::Plain,
        content: Content::EightBit,
        of: For::Tls,
        becomes: OPPORTUNISTIC,
    },
    Out {
        case: "a STARTTLS that fails, 8-bit: in clear",
        to: Domain::Plain,
        content: Content::EightBit,
        of: For::BrokenTls,
        becomes: IN_CLEAR,
    },
    Out {
        case: "no STARTTLS, 8-bit",
        to: Domain::Clear,
        content: Content::EightBit,
        of: For::All,
        becomes: IN_CLEAR,
    },
    Out {
        case: "no STARTTLS, 50 MB",
        to: Domain::Clear,
        content: Content::Huge,
        of: For::BrokenTls,
        becomes: IN_CLEAR,
    },
    Out { case: "DANE, 50 MB", to: Domain::Dane, content: Content::Huge, of: For::Tls, becomes: BY_DANE },
    Out {
        case: "DANE and another key: it waits",
        to: Domain::AnotherKey,
        content: Content::Text,
        of: For::Tls,
        becomes: Becomes::Deferred("4.7.5", "no TLSA record matches its certificates"),
    },
    Out {
        case: "DANE and a STARTTLS that fails: it waits",
        to: Domain::Dane,
        content: Content::Text,
        of: For::BrokenTls,
        becomes: Becomes::Deferred("4.7.5", "TLS"),
    },
    Out {
        case: "DANE and no STARTTLS: it waits",
        to: Domain::Stripped,
        content: Content::Text,
        of: For::All,
        becomes: Becomes::Deferred("4.7.10", "TLS is required and the host does not offer it"),
    },
    Out {
        case: "SMTPUTF8",
        to: Domain::Plain,
        content: Content::Utf8,
        of: For::Utf8,
        becomes: OPPORTUNISTIC,
    },
    Out { case: "SMTPUTF8, DANE", to: Domain::Dane, content: Content::Utf8, of: For::Utf8, becomes: BY_DANE },
    Out {
        case: "SMTPUTF8, which it does not offer: it comes back",
        to: Domain::Plain,
        content: Content::Utf8,
        of: For::NoUtf8,
        becomes: Becomes::Failed("5.6.7", "the message is internationalized"),
    },
    Out {
        case: "MTA-STS, enforced",
        to: Domain::Enforced,
        content: Content::Text,
        of: For::Tls,
        becomes: Becomes::Relayed(Some("TLS 1.3, verified by MTA-STS")),
    },
    Out {
        case: "MTA-STS, enforced, and a STARTTLS that fails: it waits",
        to: Domain::Enforced,
        content: Content::Text,
        of: For::BrokenTls,
        becomes: Becomes::Deferred("4.7.5", "TLS"),
    },
    Out {
        case: "MTA-STS, enforced, and a certificate for another name: it waits",
        to: Domain::Unproved,
        content: Content::Text,
        of: For::Tls,
        becomes: Becomes::Deferred("4.7.5", "certificate not valid for name"),
    },
    Out {
        case: "MTA-STS, testing, and a certificate for another name",
        to: Domain::Testing,
        content: Content::Text,
        of: For::Tls,
        becomes: OPPORTUNISTIC,
    },
];

/// What an MTA has to say of a message that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    /// That the edge has proved itself by DANE.
    Verified,
    /// That it has gone by BDAT.
    Chunked,
}

/// A message from an MTA; with what protocol the edge says that it came (RFC 3848, RFC 6531), `None` if it is not to come.
struct In {
    case: &'static str,
    to: Domain,
    content: Content,
    of: For,
    protocol: Option<&'static str>,
    says: Says,
}

const IN: [In; 10] = [
    In {
        case: "STARTTLS, 8-bit",
        to: Domain::Plain,
        content: Content::EightBit,
        of: For::All,
        protocol: Some("ESMTPS"),
        says: Says::Nothing,
    },
    In {
        case: "BDAT, 8-bit",
        to: Domain::Plain,
        content: Content::EightBit,
        of: For::Chunks,
        protocol: Some("ESMTPS"),
        says: Says::Chunked,
    },
    In {
        case: "no STARTTLS, 8-bit",
        to: Domain::Clear,
        content: Content::EightBit,
        of: For::All,
        protocol: Some("ESMTP"),
        says: Says::Nothing,
    },
    In {
        case: "DANE, 50 MB",
        to: Domain::Dane,
        content: Content::Huge,
        of: For::Dane,
        protocol: Some("ESMTPS"),
        says: Says::Verified,
    },
    In {
        case: "STARTTLS, 50 MB",
        to: Domain::Plain,
        content: Content::Huge,
        of: For::NoDane,
        protocol: Some("ESMTPS"),
        says: Says::Nothing,
    },
    In {
        case: "DANE and another key: it waits",
        to: Domain::AnotherKey,
        content: Content::Text,
        of: For::Dane,
        protocol: None,
        says: Says::Nothing,
    },
    In {
        case: "MTA-STS in enforce",
        to: Domain::Enforced,
        content: Content::Text,
        of: For::Sts,
        protocol: Some("ESMTPS"),
        says: Says::Verified,
    },
    In {
        case: "MTA-STS in enforce and another name in the certificate: it waits",
        to: Domain::Unproved,
        content: Content::Text,
        of: For::Sts,
        protocol: None,
        says: Says::Nothing,
    },
    In {
        case: "MTA-STS in testing and another name in the certificate",
        to: Domain::Testing,
        content: Content::Text,
        of: For::Sts,
        protocol: Some("ESMTPS"),
        says: Says::Nothing,
    },
    In {
        case: "SMTPUTF8",
        to: Domain::Plain,
        content: Content::Utf8,
        of: For::Utf8,
        protocol: Some("UTF8SMTPS"),
        says: Says::Nothing,
    },
];

/// A message on its way.
struct Sent {
    token: Token,
    message: Vec<u8>,
    to: String,
    subject: String,
    /// The pair's id, of a message of Alice's.
    id: String,
}

fn out_title(mta: &Mta, row: &Out) -> String {
    let by_bdat = mta.words.taken.is_some() && matches!(row.becomes, Becomes::Relayed(_));
    format!("MTAs, to {}: {}{}", mta.name, row.case, if by_bdat { ", by BDAT" } else { "" })
}

fn in_title(mta: &Mta, row: &In) -> String {
    format!("MTAs, from {}: {}", mta.name, row.case)
}

/// Whether a row with this MTA is wanted.
pub fn is_wanted(mta: &Mta, tally: &Tally) -> bool {
    let out = OUT.iter().map(|row| out_title(mta, row));
    out.chain(IN.iter().map(|row| in_title(mta, row))).any(|title| tally.is_wanted(&title))
}

/// Sends what is wanted of all rows, and then looks what has become of it.
pub async fn rows(lab: &Lab, tally: &mut Tally) {
    let (seed, last) = (Random::any_seed(), Cell::new(0));
    let token = || {
        last.set(last.get() + 1);
        Token { seed, number: last.get() }
    };
    for running in &lab.mtas {
        let out = OUT.iter().filter(|row| row.of.is_for(running.mta, lab));
        let out =
            out.map(|row| (out_title(running.mta, row), row)).filter(|(title, _)| tally.is_wanted(title));
        let mut to_it = Vec::new();
        for (title, row) in out {
            to_it.push((title, row, submit(lab, running, row, token()).await));
        }
        let rows = IN.iter().filter(|row| row.of.is_for(running.mta, lab));
        let rows =
            rows.map(|row| (in_title(running.mta, row), row)).filter(|(title, _)| tally.is_wanted(title));
        let mut from_it = Vec::new();
        for (title, row) in rows {
            from_it.push((title, row, give(lab, running, row, token()).await));
        }
        for (title, row, sent) in to_it {
            let verdict = match sent {
                Ok(sent) => became(lab, running, row, &sent).await,
                Err(trouble) => Err(trouble),
            };
            note(tally, running, &title, verdict);
        }
        for (title, row, sent) in from_it {
            let verdict = match sent {
                Ok(sent) => came(lab, running, row, &sent).await,
                Err(trouble) => Err(trouble),
            };
            note(tally, running, &title, verdict);
        }
    }
}

fn note(tally: &mut Tally, running: &RunningMta, title: &str, verdict: Result<(), Trouble>) {
    tally.note(title, verdict.map_err(|trouble| running.with_log(&trouble).to_string()));
}

/// A message of this kind, and its subject.
fn write(content: Content, from: &str, to: &str, token: Token) -> (Vec<u8>, String) {
    let subject = match content {
        Content::Utf8 => format!("{token} \u{2603}"),
        _ => token.to_string(),
    };
    let letter = Letter { from, to, subject: &subject, token };
    let message = match content {
        Content::Text | Content::Utf8 => letter.text(SHORT),
        Content::EightBit => letter.eight_bit(),
        Content::Huge => {
            let mut message = letter.text(REPEATED);
            let header = memchr::memmem::find(&message, b"\r\n\r\n").map_or(0, |at| at + 4);
            let body = message.split_off(header);
            message.extend(body.repeat((HUGE - header) / body.len()));
            message
        }
    };
    (message, subject)
}

async fn submit(lab: &Lab, running: &RunningMta, row: &Out, token: Token) -> Result<Sent, Trouble> {
    let to = theirs(row.content, row.to, running.mta);
    let (message, subject) = write(row.content, &Lab::alice(Domain::Plain, false), &to, token);
    let id = lab.submit(&to, &message).await?;
    Ok(Sent { token, message, to, subject, id })
}

async fn give(lab: &Lab, running: &RunningMta, row: &In, token: Token) -> Result<Sent, Trouble> {
    let from = theirs(row.content, Domain::Plain, running.mta);
    let to = Lab::alice(row.to, row.content == Content::Utf8);
    let (message, subject) = write(row.content, &from, &to, token);
    lab.give(running, &from, &to, &message).await?;
    Ok(Sent { token, message, to, subject, id: String::new() })
}

/// An address at an MTA.
fn theirs(content: Content, domain: Domain, mta: &Mta) -> String {
    let name = if content == Content::Utf8 { "j\u{f6}rg" } else { "carol" };
    format!("{name}@{}", domain.of(mta))
}

/// Whether what the edge has recorded is what the row says, and the MTA has what it should have.
async fn became(lab: &Lab, running: &RunningMta, row: &Out, sent: &Sent) -> Result<(), Trouble> {
    let view = lab.outcome(&sent.id).await?;
    let is_so = match row.becomes {
        Becomes::Relayed(tls) => view.state == DeliveryState::Relayed && view.tls.as_deref() == tls,
        Becomes::Deferred(status, why) => {
            view.state == DeliveryState::Deferred && view.status == status && view.text.contains(why)
        }
        Becomes::Failed(status, why) => {
            view.state == DeliveryState::Failed && view.status == status && view.text.contains(why)
        }
    };
    if !is_so {
        return Err(format!("this is not {:?}: {view:?}", row.becomes).into());
    }
    if !matches!(row.becomes, Becomes::Relayed(_)) {
        return match running.received(sent.token) {
            None => Ok(()),
            Some(_) => Err("it has it all the same".into()),
        };
    }
    let found = until("it is in the mailbox", SOON, async || Ok(running.received(sent.token))).await?;
    same(&sent.message, &sent.to, Place::Outside, &found)?;
    match running.mta.words.taken {
        None => Ok(()),
        // The mark of another one may begin with this.
        Some(Taken::Message(words)) => says(running, &format!("{}@", sent.token), words).await,
        Some(Taken::Session { begins, ends, by_bdat, by_data }) => {
            let edge = format!("[{EDGE}]");
            // The edge keeps a session for a moment, and how mail has come is said at its end.
            let ended = until("all its sessions with the edge have ended", SOON, async || {
                let ended = running.lines(&edge, ends);
                Ok((ended.len() == running.lines(&edge, begins).len()).then_some(ended))
            });
            let ended = ended.await?;
            match ended.iter().find(|line| line.contains(by_data)) {
                Some(line) => Err(format!("mail has come by DATA: {line}").into()),
                None if ended.iter().any(|line| line.contains(by_bdat)) => Ok(()),
                None => Err("no mail has come by BDAT".into()),
            }
        }
    }
}

/// Whether it has come to Alice as the row says, or has not.
async fn came(lab: &Lab, running: &RunningMta, row: &In, sent: &Sent) -> Result<(), Trouble> {
    let words = &running.mta.words;
    // Of all MTAs for whose rows it counts.
    let proof = if row.of == For::Sts { words.sts } else { words.dane };
    let proof = proof.ok_or("it lets no host prove itself");
    let Some(protocol) = row.protocol else {
        says(running, &sent.to, proof?.another).await?;
        return match lab.is_filed(&sent.subject).await? {
            false => Ok(()),
            true => Err("it has arrived all the same".into()),
        };
    };
    let found = lab.filed(&sent.subject).await?;
    same(&sent.message, &sent.to, Place::Inside, &found)?;
    let trace = String::from_utf8_lossy(&found[..found.len() - without_trace(&found).len()]).into_owned();
    if !trace.contains(&format!(" with {protocol} id ")) {
        return Err(format!("the edge does not say that it came by {protocol}: {trace}").into());
    }
    match row.says {
        Says::Nothing => Ok(()),
        Says::Verified => says(running, &host(&row.to.ours()), proof?.verified).await,
        Says::Chunked => says(running, &sent.to, words.chunked.unwrap_or_default()).await,
    }
}

async fn says(running: &RunningMta, about: &str, words: &str) -> Result<(), Trouble> {
    let what = format!("its log has {words:?} of {about}");
    until(&what, SOON, async || Ok(running.says(about, words).then_some(()))).await
}
