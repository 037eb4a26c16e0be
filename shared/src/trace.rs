//! The trace: facts of each message's way over this node, kept for 30 days and told to the operator who
//! asks where a message is, by its id or by what a fact says: an address, a host, a word of an answer.

use std::num::NonZeroUsize;

use rkyv::{Archive, Deserialize, Serialize};

use crate::command::{Caller, Outcome};
use crate::control::Refused;
use crate::id::{MessageId, unix_millis};
use crate::render;
use crate::report::{Passage, Passages, Step};
use crate::store::{Rows, Store, StoreError, Table, Txn, behind};

/// Message id, time, order to [`Fact`].
const TRACE: Table = Table("trace");
const KEPT_MILLIS: u64 = 30 * 24 * 3_600_000;
const FORGOTTEN_AT_ONCE: usize = 1000;
/// Facts of one message that are told.
const TOLD_MAX: usize = 10_000;
/// Facts that one request looks through: a search goes on with another one, so that what is found is shown meanwhile.
const LOOKED_THROUGH_MAX: usize = 20_000;
/// Octets of a text that is looked for.
const TEXT_BYTES_MAX: usize = 1_000;
/// Messages that one answer lists.
const LISTED_MAX: usize = 10_000;

/// `trace`, as it is typed.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Message id, for its way; or what a way says, for the messages: an address, a domain, a host, a word of an answer
    #[arg(value_name = "ID|TEXT")]
    what: String,
    /// Of a text: at most so many messages
    #[arg(long, value_name = "N", default_value = "50")]
    max: NonZeroUsize,
    /// Of a text: only messages older than this one
    #[arg(long, value_name = "ID")]
    before: Option<String>,
}

/// What is asked of a trace.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// The way of the message with this id. Answered with `Vec<Step>`.
    Way(String),
    /// The messages whose way says something. Answered with [`Passages`].
    Search {
        /// What it says.
        text: String,
        /// Only messages older than the one with this id.
        before: Option<String>,
        /// At most so many.
        max: usize,
    },
}

impl Arguments {
    /// Asks the running node, by what `request` makes of a query, and prints what it answers.
    pub fn run<R: serde::Serialize>(self, caller: &Caller, request: impl Fn(Query) -> R) -> Outcome {
        let Self { what, max, mut before } = self;
        if what.parse::<MessageId>().is_ok() {
            return caller.show(&request(Query::Way(what)), |steps: &Vec<Step>| render::way(steps));
        }
        let (mut left, mut more) = (max.get(), true);
        let empty = "no message of 30 days whose way over this node says that";
        let next = || {
            if !more || left == 0 {
                return Ok(None);
            }
            let query = Query::Search { text: what.clone(), before: before.take(), max: left };
            let (passages, _): (Passages, _) = caller.ask(&request(query), b"")?;
            left = left.saturating_sub(passages.found.len());
            (more, before) = (passages.behind.is_some(), passages.behind);
            Ok(Some(passages.found))
        };
        caller.show_pages(empty, next, render::passages)
    }
}

/// Answers what is asked of the trace of `node`, whose partner is `other`.
pub fn answer(
    rows: &impl Rows,
    (node, other): (&str, &str),
    query: &Query,
) -> Result<serde_json::Value, Refused> {
    let id = |text: &str| text.parse::<MessageId>().map_err(|error| Refused(format!("{text}: {error}")));
    let answered = match query {
        Query::Way(text) => {
            let id = id(text)?;
            let steps = steps(rows, node, id).map_err(failed)?;
            if steps.is_empty() {
                return Err(Refused(format!("{node} knows nothing of {id}; `{other}-node trace {id}` may")));
            }
            serde_json::to_value(steps)
        }
        Query::Search { text, before, max } => {
            let before = before.as_deref().map(id).transpose()?;
            if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
                return Err(Refused(format!("what is looked for has 1 to {TEXT_BYTES_MAX} octets")));
            }
            serde_json::to_value(search(rows, text, before, (*max).min(LISTED_MAX)).map_err(failed)?)
        }
    };
    answered.map_err(failed)
}

fn failed(error: impl ToString) -> Refused {
    Refused(error.to_string())
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct Fact {
    what: String,
}
crate::row!(Fact, 1);

/// Adds a fact. Those of one millisecond keep their order.
pub fn note(
    txn: &mut Txn<'_>,
    message: MessageId,
    now: u64,
    what: impl Into<String>,
) -> Result<(), StoreError> {
    let prefix = [message.0.as_slice(), &now.to_be_bytes()].concat();
    let last = txn.prefix_backwards::<Fact>(TRACE, &prefix, 1)?.pop();
    let order = last.and_then(|(key, _)| key.last_chunk().copied()).map_or(0, u16::from_be_bytes);
    let key = [prefix.as_slice(), &order.saturating_add(1).to_be_bytes()].concat();
    txn.put(TRACE, &key, &Fact { what: what.into() })
}

/// What `node` knows of a message, oldest first.
pub fn steps(rows: &impl Rows, node: &str, message: MessageId) -> Result<Vec<Step>, StoreError> {
    let facts = rows.prefix::<Fact>(TRACE, &message.0, TOLD_MAX)?;
    let step = |(key, fact): (Vec<u8>, Fact)| Step { at: noted_at(&key), node: node.into(), what: fact.what };
    Ok(facts.into_iter().map(step).collect())
}

fn noted_at(key: &[u8]) -> u64 {
    key.get(16..24).and_then(|at| at.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn message_of(key: &[u8]) -> Option<MessageId> {
    key.first_chunk().copied().map(MessageId)
}

/// The messages of which a fact says `text`, whatever the case of its letters, with the first such fact of each; newest
/// first, at most `max`, only those older than `before`, and as far as one request looks.
fn search(
    rows: &impl Rows,
    text: &str,
    before: Option<MessageId>,
    max: usize,
) -> Result<Passages, StoreError> {
    let wanted = text.to_lowercase();
    let before = before.as_ref().map(|before| before.0.as_slice());
    let mut facts = rows.range_backwards::<Fact>(TRACE, &[], before, LOOKED_THROUGH_MAX)?;
    let mut behind = None;
    if facts.len() == LOOKED_THROUGH_MAX {
        // The facts of the last one may go on where the reading ended: it is left to the next request.
        let whole = |last| facts.iter().rposition(|(key, _)| message_of(key) != last);
        if let Some(whole) = facts.last().and_then(|(key, _)| whole(message_of(key))) {
            facts.truncate(whole + 1);
        }
        behind = facts.last().and_then(|(key, _)| message_of(key));
    }
    let mut found: Vec<Passage> = Vec::new();
    for of_one in facts.chunk_by(|(one, _), (next, _)| message_of(one) == message_of(next)) {
        let says = |(_, fact): &&(Vec<u8>, Fact)| fact.what.to_lowercase().contains(&wanted);
        let Some(id) = of_one.first().and_then(|(key, _)| message_of(key)) else { continue };
        let first = match of_one.len() < LOOKED_THROUGH_MAX {
            true => of_one.iter().rev().find(says).cloned(),
            // There may be more of its facts than were read.
            false => first_that(rows, id, |fact| says(&fact))?,
        };
        let Some((key, fact)) = first else { continue };
        found.push(Passage { id: id.to_string(), at: noted_at(&key), what: fact.what });
        if found.len() >= max {
            behind = Some(id);
            break;
        }
    }
    Ok(Passages { found, behind: behind.map(|behind| behind.to_string()) })
}

/// The first fact of a message of which that is so.
fn first_that(
    rows: &impl Rows,
    message: MessageId,
    is_so: impl Fn(&(Vec<u8>, Fact)) -> bool,
) -> Result<Option<(Vec<u8>, Fact)>, StoreError> {
    let (mut from, end) = (message.0.to_vec(), [message.0.as_slice(), &[0xff; 10]].concat());
    loop {
        let facts = rows.range::<Fact>(TRACE, &from, Some(&end), LOOKED_THROUGH_MAX)?;
        let next = behind(&facts, LOOKED_THROUGH_MAX);
        if let Some(found) = facts.into_iter().find(|fact| is_so(fact)) {
            return Ok(Some(found));
        }
        let Some(next) = next else { return Ok(None) };
        from = next;
    }
}

/// The first that is known of a message: how it came here.
pub fn first(rows: &impl Rows, message: MessageId) -> Result<Option<String>, StoreError> {
    let fact = rows.prefix::<Fact>(TRACE, &message.0, 1)?.pop();
    Ok(fact.map(|(_, fact)| fact.what))
}

/// Forgets what is older than 30 days.
pub async fn forget_old(store: &Store) -> Result<(), StoreError> {
    // Ids rise with time, so the oldest messages come first.
    let old = MessageId::from_parts(unix_millis().saturating_sub(KEPT_MILLIS), [0; 10]);
    let forget = move |txn: &mut Txn<'_>| {
        let facts = txn.range::<Fact>(TRACE, &[], Some(&old.0), FORGOTTEN_AT_ONCE)?;
        facts.iter().try_for_each(|(key, _)| txn.delete(TRACE, key))?;
        Ok::<_, StoreError>(facts.len())
    };
    while store.commit(forget).await?.into_inner() == FORGOTTEN_AT_ONCE {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sim::{Faults, SimDisk};

    /// The messages that are found, in the order of the requests, with `max` of each.
    fn found(rows: &impl Rows, text: &str, max: usize) -> Vec<(MessageId, String)> {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let passages = search(rows, text, before, max).expect("reads");
            let named = |passage: Passage| (passage.id.parse().expect("an id"), passage.what);
            found.extend(passages.found.into_iter().map(named));
            match passages.behind {
                Some(behind) => before = Some(behind.parse().expect("an id")),
                None => return found,
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn messages_are_found_by_what_a_fact_of_theirs_says_newest_first() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let id = |at| MessageId::from_parts(at, [7; 10]);
        let noted = store.commit(move |txn| {
            for at in 1..=4 {
                note(txn, id(at), at, format!("from <Bob@Example.org>, for person{at}@example.com"))?;
                note(txn, id(at), at + 1, "bob@example.org: delivered")?;
            }
            note(txn, id(5), 5, "of somebody else")?;
            // More facts of one message, and of many, than one request looks through.
            for at in 0..LOOKED_THROUGH_MAX as u64 + 10 {
                note(txn, id(6), at, if at == 7 { "said by one of many" } else { "one of many" })?;
                note(txn, id(10 + at), at, "of others")?;
            }
            note(txn, id(3), 1, "the first that is known of it")
        });
        noted.await.expect("commits");
        let rows = store.read().expect("reads");
        for max in [1, 3, 100] {
            let messages: Vec<_> =
                found(&rows, "bob@EXAMPLE.org", max).into_iter().map(|(id, _)| id).collect();
            assert_eq!(messages, [id(4), id(3), id(2), id(1)], "at most {max} at once");
        }
        let told = found(&rows, "person3@", 10);
        assert_eq!(told, [(id(3), "from <Bob@Example.org>, for person3@example.com".into())]);
        assert_eq!(found(&rows, "bob@example.org: delivered", 10).len(), 4);
        assert_eq!(found(&rows, "said by one", 10), [(id(6), "said by one of many".into())]);
        assert_eq!(found(&rows, "nobody", 10), []);
        let first = search(&rows, "others", None, 2).expect("reads");
        assert_eq!(
            (first.found.len(), first.behind.as_deref()),
            (2, first.found.get(1).map(|last| last.id.as_str()))
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn facts_keep_their_order_and_old_ones_are_forgotten() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let (new, old) = (MessageId::generate(), MessageId::from_parts(1, [0; 10]));
        let noted = store.commit(move |txn| {
            for (at, what) in [(5, "first"), (5, "second"), (4, "before both")] {
                note(txn, new, at, what)?;
            }
            note(txn, old, 1, "long ago")
        });
        noted.await.expect("commits");
        forget_old(&store).await.expect("forgets");
        let told = |id| steps(&store.read().expect("reads"), "big", id).expect("reads");
        let whats: Vec<_> = told(new).into_iter().map(|step| (step.at, step.what)).collect();
        assert_eq!(whats, [(4, "before both".into()), (5, "first".into()), (5, "second".into())]);
        assert!(told(old).is_empty());
        let rows = store.read().expect("reads");
        assert_eq!(first(&rows, new).expect("reads").as_deref(), Some("before both"));
        assert_eq!(first(&rows, old).expect("reads"), None);
    }
}
