//! What an operator sees and does of the queue. All of it goes in pages, each a commit where something is changed: the
//! queue may be of any length.

use std::sync::Arc;

use shared::address::{Address, Domain};
use shared::control::Refused;
use shared::id::{MessageId, unix_millis};
use shared::store::{Rows, StoreError, Txn, behind};
use shared::trace;
use shared::unit::{DeliveryState, NO_REVISION, Outcome};

use super::{ROWS_AT_ONCE, destination, is_free, put};
use crate::delivery;
use crate::facts::EVENT_LANE;
use crate::node::Node;
use crate::record::{Doubt, QUEUE, QueueRecipient, QueueRow, queue_key};
use crate::request::{Done, Held, QueueFilter, QueuePage, Queued, Waiting as WaitingView, Which};
use crate::revise::{self, Waiting, busy::Busy, latest, message_of, waits};

/// What a sender is told of a recipient whom an operator gave up on (RFC 3463: mail system status, undefined).
const CANCELLED: &str = "5.3.0";

/// One page of what waits.
pub fn list(node: &Node, filter: &QueueFilter) -> Result<QueuePage, Refused> {
    let domain = filter.domain.as_deref().map(domain_of).transpose()?;
    let from = filter.after.as_deref().map(place_of).transpose()?.unwrap_or_default();
    let rows = node.store.read().and_then(|rows| rows.range::<QueueRow>(QUEUE, &from, None, ROWS_AT_ONCE));
    let rows = rows.map_err(failed)?;
    let last = rows.last().filter(|_| rows.len() == ROWS_AT_ONCE);
    let next = last.map(|(key, row)| place(key, row));
    let is_meant = |recipient: &&QueueRecipient| {
        waits(recipient)
            && domain.as_ref().is_none_or(|domain| destination(&recipient.address) == domain.as_str())
    };
    let is_listed = |row: &QueueRow| {
        let mut meant = row.recipients.iter().filter(is_meant);
        if filter.held { meant.any(|recipient| !is_free(recipient)) } else { meant.next().is_some() }
    };
    let listed = rows.into_iter().filter(|(_, row)| is_listed(row));
    let queue = listed.map(|(key, row)| view(message_of(&key), row)).collect();
    Ok(QueuePage { queue, next })
}

/// Why a recipient who waits is not attempted.
fn why_held(recipient: &QueueRecipient) -> Option<Held> {
    match recipient.doubt {
        Some(Doubt::Restored) => Some(Held::Restored),
        Some(Doubt::Revised(_)) => Some(Held::Revised),
        Some(Doubt::Rebuilt) => Some(Held::Rebuilt),
        None | Some(Doubt::Retried) => recipient.held.then_some(Held::Held),
    }
}

fn view(id: MessageId, row: QueueRow) -> Queued {
    let waiting: Vec<&QueueRecipient> = row.recipients.iter().filter(|recipient| waits(recipient)).collect();
    let free = waiting.iter().filter(|recipient| is_free(recipient));
    let is_free = waiting.iter().any(|recipient| is_free(recipient));
    let held = if is_free { None } else { waiting.iter().find_map(|recipient| why_held(recipient)) };
    let seen = |recipient: &&QueueRecipient| WaitingView {
        address: recipient.address.clone(),
        state: recipient.state,
        text: recipient.text.clone(),
        held: why_held(recipient),
    };
    Queued {
        id: id.to_string(),
        size: row.size,
        queued_at: row.queued_at,
        attempts: waiting.iter().map(|recipient| recipient.attempts).max().unwrap_or_default(),
        next_attempt_at: free.map(|recipient| recipient.next_attempt_at).min().unwrap_or_default(),
        held,
        recipients: waiting.iter().map(seen).collect(),
        from: row.reverse_path.unwrap_or_default(),
    }
}

/// Where a page ends: the message and the revision of its last row.
fn place(key: &[u8], row: &QueueRow) -> String {
    format!("{}-{}", message_of(key), row.revision)
}

/// Where the next one begins.
fn place_of(text: &str) -> Result<Vec<u8>, Refused> {
    let read = |text: &str| {
        let (id, revision) = text.split_once('-')?;
        Some((id.parse::<MessageId>().ok()?, revision.parse::<u32>().ok()?))
    };
    let refused = || Refused(format!("{text}: not where a page of the queue has ended"));
    let (id, revision) = read(text).ok_or_else(refused)?;
    Ok([queue_key(&id.0, revision).as_slice(), &[0]].concat())
}

/// Holds those who wait, or releases whom an operator holds.
pub async fn hold(node: &Node, which: &Which, held: bool) -> Result<Done, Refused> {
    let (mut from, to, domain) = match which {
        Which::Message(text) => {
            let id = message(text)?;
            (queue_key(&id.0, 0), Some(queue_key(&id.0, u32::MAX)), None)
        }
        Which::Domain(text) => (Vec::new(), None, Some(domain_of(text)?)),
        Which::All => (Vec::new(), None, None),
    };
    let mut changed = Changed::default();
    loop {
        let (to, domain) = (to.clone(), domain.clone());
        let page = move |txn: &mut Txn<'_>| hold_page(txn, &from, to.as_deref(), domain.as_ref(), held);
        let (page, next) = node.store.commit(page).await.map_err(failed)?.into_inner();
        changed.add(page);
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    node.due.notify_one();
    let Changed { messages, recipients, in_doubt, .. } = changed;
    match (recipients > 0, held) {
        (true, true) => Ok(done(format!(
            "held: {recipients} recipients of {messages} messages; an attempt that is under way is not stopped"
        ))),
        (true, false) => Ok(done(format!("released: {recipients} recipients of {messages} messages"))),
        (false, _) if changed.waiting == 0 => Err(Refused(match which {
            Which::Message(id) => not_here(id),
            Which::Domain(domain) => format!("nobody in {domain} waits here; `queue list` shows who does"),
            Which::All => "nothing waits here".into(),
        })),
        (false, true) => Err(Refused("all who are meant are held already; `queue list --held` shows them".into())),
        (false, false) if in_doubt > 0 => Err(Refused(
            "no operator holds it: it may have left already, see `queue list --held`; `queue retry ID` attempts it all \
             the same"
                .into(),
        )),
        (false, false) => Err(Refused("nobody who is meant is held; `queue list --held` shows who is".into())),
    }
}

/// What a command has found and changed.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    /// Recipients who wait.
    waiting: u64,
    /// Recipients who are held because they may have the message already.
    in_doubt: u64,
    messages: u64,
    recipients: u64,
}

impl Changed {
    fn add(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.in_doubt += other.in_doubt;
        self.messages += other.messages;
        self.recipients += other.recipients;
    }
}

fn hold_page(
    txn: &mut Txn<'_>,
    from: &[u8],
    to: Option<&[u8]>,
    domain: Option<&Domain>,
    held: bool,
) -> Result<(Changed, Option<Vec<u8>>), StoreError> {
    let mut changed = Changed::default();
    let rows = txn.range::<QueueRow>(QUEUE, from, to, ROWS_AT_ONCE)?;
    let next = behind(&rows, ROWS_AT_ONCE);
    for (key, mut row) in rows {
        let is_meant = |recipient: &&mut QueueRecipient| {
            waits(recipient) && domain.is_none_or(|domain| destination(&recipient.address) == domain.as_str())
        };
        let mut here = 0;
        for recipient in row.recipients.iter_mut().filter(is_meant) {
            changed.waiting += 1;
            changed.in_doubt += u64::from(!matches!(recipient.doubt, None | Some(Doubt::Retried)));
            here += u64::from(recipient.held != held);
            recipient.held = held;
        }
        if here > 0 {
            (changed.messages, changed.recipients) = (changed.messages + 1, changed.recipients + here);
            put(txn, message_of(&key), &row)?;
            let what = if held { "held by the operator" } else { "released by the operator" };
            trace::note(txn, message_of(&key), unix_millis(), format!("{what}: {here} recipients"))?;
        }
    }
    Ok((changed, next))
}

/// Makes a message due now, whatever may have left of it already, and its destinations due to be asked.
pub async fn retry(node: &Node, text: &str) -> Result<Queued, Refused> {
    let (id, now, retry_at) = (message(text)?, unix_millis(), node.retrier());
    let retried =
        node.store.commit(move |txn| {
            let rows = txn.prefix::<QueueRow>(QUEUE, &id.0, ROWS_AT_ONCE)?;
            if rows.is_empty() {
                return Ok(Err(Refused(not_here(&id.to_string()))));
            }
            let is_both = |recipient: &QueueRecipient| {
                waits(recipient) && recipient.held && !matches!(recipient.doubt, None | Some(Doubt::Retried))
            };
            if rows.iter().any(|(_, row)| row.recipients.iter().any(is_both)) {
                // Their release, later, would not say any more that they may have it.
                return Ok(Err(Refused(format!(
                    "{id} may have left already, and the operator holds some who wait for it; `queue release {id}`, then \
                     retry it for all of them"
                ))));
            }
            let mut retried = None;
            for (_, mut row) in rows {
                let is_meant = |recipient: &&mut QueueRecipient| {
                    let revised = matches!(recipient.doubt, Some(Doubt::Revised(_)));
                    waits(recipient) && !recipient.held && !revised
                };
                let mut meant = row.recipients.iter_mut().filter(is_meant).peekable();
                if meant.peek().is_none() {
                    continue;
                }
                meant.for_each(|recipient| {
                    // What big says about it still counts when it comes.
                    let restored = recipient.doubt.is_some_and(Doubt::is_of_restore);
                    recipient.doubt = restored.then_some(Doubt::Retried);
                    recipient.next_attempt_at = now;
                    retry_at(destination(&recipient.address));
                });
                put(txn, id, &row)?;
                retried = Some(view(id, row));
            }
            Ok::<_, StoreError>(retried.ok_or_else(|| {
                Refused(format!(
                    "{id} is held by the operator, and `queue release {id}` lets it go; or its author has revised it since the \
                     backup of this edge: big sends the new text when the link is up, if it has it; `queue cancel {id}` gives \
                     it up"
                ))
            }))
        });
    let retried = retried.await.map_err(failed)?.into_inner()?;
    node.due.notify_one();
    Ok(retried)
}

/// Gives up on those who wait for a message, or on the one with the address `recipient`. Big tells the sender.
pub async fn cancel(node: &Node, text: &str, recipient: Option<&str>) -> Result<Done, Refused> {
    let (id, now) = (message(text)?, unix_millis());
    let address = |text: &str| text.parse::<Address>().map_err(|error| Refused(format!("{text}: {error}")));
    let only = recipient.map(address).transpose()?.map(|address| address.canonical());
    let busy = Arc::clone(&node.busy);
    let why = format!("cancelled by the operator of {}", node.topology.edge.hostname);
    let cancelled = node.store.commit(move |txn| cancel_within(txn, &busy, id, only.as_deref(), &why, now));
    let cancelled = cancelled.await.map_err(failed)?.into_inner()?;
    node.queued(EVENT_LANE);
    Ok(done(format!("cancelled: {cancelled} recipients; the sender is told")))
}

/// Returns how many recipients that were.
fn cancel_within(
    txn: &mut Txn<'_>,
    busy: &Busy,
    id: MessageId,
    only: Option<&str>,
    why: &str,
    now: u64,
) -> Result<Result<usize, Refused>, StoreError> {
    let mut waiting = Waiting::load(txn, id)?;
    if waiting.is_empty() {
        return Ok(Err(Refused(not_here(&id.to_string()))));
    }
    if waiting.recipients().any(|recipient| recipient.doubt == Some(Doubt::Restored)) {
        return Ok(Err(Refused(format!(
            "{id} is held because this edge went back to a backup: big has still to say who has got it, which it does \
             when the link is up; `queue retry {id}` attempts it all the same"
        ))));
    }
    let attempted = busy.attempted(id);
    let decided = waiting.settle_left(&attempted);
    let is_meant = |recipient: &&mut QueueRecipient| only.is_none_or(|only| is_at(&recipient.address, only));
    let meant: Vec<_> = waiting.recipients().filter(is_meant).collect();
    if let Some(attempted) = meant.iter().find(|recipient| attempted.contains(&recipient.index)) {
        return Ok(Err(Refused(format!(
            "an attempt for {} is under way: see with `queue list` what comes of it, and try again then",
            attempted.address
        ))));
    }
    if meant.is_empty() {
        let who = only.unwrap_or("nobody");
        return Ok(Err(Refused(format!("{who} does not wait for {id}; `queue list` shows who does"))));
    }
    let cancelled = meant.len();
    for recipient in meant {
        recipient.state = DeliveryState::Failed;
        // A text that big still sends for that one, as far as it knows, comes too late.
        if recipient.doubt.is_some() {
            latest::remember(txn, id, recipient.index, NO_REVISION)?;
        }
        let outcome = Outcome {
            message: id.0,
            recipient: recipient.index,
            state: DeliveryState::Failed,
            at: now,
            host: None,
            tls: None,
            relay: None,
            text: why.to_owned(),
            status: CANCELLED.into(),
            in_doubt: recipient.in_doubt,
            host_reports: false,
            next_attempt_at: None,
        };
        delivery::tell(txn, &recipient.address, outcome)?;
    }
    waiting.store(txn)?;
    revise::tell(txn, id, decided, now)?;
    Ok(Ok(cancelled))
}

/// Whether a recipient's address is the one with this canonical form.
fn is_at(address: &str, canonical: &str) -> bool {
    address.parse::<Address>().is_ok_and(|address| address.canonical() == canonical)
}

fn message(text: &str) -> Result<MessageId, Refused> {
    text.parse().map_err(|error| Refused(format!("{text}: {error}")))
}

fn domain_of(text: &str) -> Result<Domain, Refused> {
    text.parse().map_err(|error| Refused(format!("{text}: {error}")))
}

fn not_here(id: &str) -> String {
    format!("{id} does not wait here; `queue list` shows what does")
}

fn done(done: String) -> Done {
    Done { done }
}

fn failed(error: StoreError) -> Refused {
    Refused(error.to_string())
}
