//! What comes over the link from the edge: opened and checked outside the commit, applied within it
//! together with the lane's position.
//!
//! Every byte here is hostile. A unit may be of a kind that an edge writes, or it is refused; an
//! identity it claims is checked against big's own records, never taken from it.

use shared::address::Address;
use shared::chunk;
use shared::id::MessageId;
use shared::origin::{Channel, Origin};
use shared::seal::{FileKey, Opener, Sealed};
use shared::store::{BodyReader, BodyWriter, Row, Rows, Store, StoreError, Txn};
use shared::unit::{DeliveryState, Id, Inbound, Outcome, PopAct, ToBig, decode};

use crate::directory;
use crate::error::Refused;
use crate::mail::{self, Incoming, Site};
use crate::record::{
    COPIES, CopyRow, Named, OPEN_WINDOWS, PARKED, ParkedRow, Part, Person, RECIPIENTS, REPORTS, Recipient,
    WINDOWS, WindowRow, WindowState, key2, trace,
};

/// The kind under which people's records are written on big. A rebuild restores kinds in order, and
/// mail is filed for people.
pub const PERSON_KIND: u8 = 1;
/// The kind under which bodies are written on big.
pub const BODY_KIND: u8 = 2;
/// Largest body that is parsed for its attachments; a larger one is filed whole.
pub const PARSED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Acts that are parked for one message that has not arrived, and for all of them.
const PARKED_MAX: usize = 16;
const PARKED_IN_ALL_MAX: usize = 10_000;
/// What was submitted before a window's end is accepted for so long after it.
const LATE_AFTER_END_MILLIS: u64 = 7 * 24 * 3_600_000;

/// Why a unit is not applied.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// Never.
    #[error("{0}")]
    Never(String),
    /// Not now.
    #[error("{0}")]
    Later(String),
    /// The store failed: the whole batch is tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Sealed> for Rejected {
    fn from(error: Sealed) -> Self {
        Self::Never(error.to_string())
    }
}

impl From<chunk::Broken> for Rejected {
    fn from(error: chunk::Broken) -> Self {
        Self::Never(error.to_string())
    }
}

fn never(text: &str) -> Rejected {
    Rejected::Never(text.into())
}

/// A unit that is ready for its commit.
#[derive(Debug)]
pub enum Prepared {
    /// A message, its body stored.
    Message {
        /// The message.
        incoming: Box<Incoming>,
        /// The window it was submitted through.
        submitted: Option<Id>,
        /// Windows into which the edge has filed it.
        filed: Vec<Id>,
    },
    /// A message that big holds already: a repeat after a rebuild or a restore.
    Known,
    /// A fact about a copy that the edge holds.
    Fact(ToBig),
}

/// Where the sealed bytes of a unit's body are.
#[derive(Debug)]
pub enum SealedBody<'a> {
    /// The unit has none.
    None,
    /// Here.
    Inline(&'a [u8]),
    /// Staged in the store.
    Staged(BodyReader),
}

/// Reads a unit and, if it is a message, opens, checks and stores its body.
pub fn prepare(store: &Store, site: &Site, head: &[u8], body: SealedBody<'_>) -> Result<Prepared, Rejected> {
    match decode::<ToBig>(head).ok_or_else(|| never("not a kind of unit that an edge writes"))? {
        ToBig::Inbound(inbound) => prepare_message(store, site, inbound, body),
        fact => Ok(Prepared::Fact(fact)),
    }
}

fn prepare_message(
    store: &Store,
    site: &Site,
    inbound: Inbound,
    body: SealedBody<'_>,
) -> Result<Prepared, Rejected> {
    let id = MessageId(inbound.message);
    if mail::is_known(&store.read()?, id)? {
        return Ok(Prepared::Known);
    }
    let key = FileKey::unwrap(&inbound.wrapped_key, &site.sealing, id)?;
    let note = key.open_note(&inbound.sealed_origin)?;
    let origin = Origin::decode(&note).ok_or_else(|| never("its origin is not readable"))?;
    let claimed = matches!((&origin.channel, inbound.submitted), (Channel::Reception { .. }, None))
        || matches!((&origin.channel, inbound.submitted), (Channel::Submission { window }, Some(by)) if *window == by);
    if !claimed {
        return Err(never("its channel is not one by which mail comes from an edge"));
    }
    let mut opened = Opened::new(store, &origin);
    let mut opener = Opener::new(&key);
    match body {
        SealedBody::None => return Err(never("a message without a body")),
        SealedBody::Inline(sealed) => opener.push(sealed, |payload| opened.take(payload))?,
        SealedBody::Staged(mut reader) => {
            while let Some(piece) = reader.next_piece()? {
                opener.push(&piece, |payload| opened.take(payload))?;
            }
        }
    }
    let last = opener.finish()?;
    opened.take(&last)?;
    let incoming = opened.finish(id, origin)?;
    Ok(Prepared::Message { incoming: Box::new(incoming), submitted: inbound.submitted, filed: inbound.filed })
}

/// A body on its way from sealed to stored.
struct Opened {
    writer: BodyWriter,
    hasher: blake3::Hasher,
    /// The plain bytes, as long as they are few enough to be parsed.
    plain: Option<Vec<u8>>,
    length: u64,
    announced: u64,
}

impl Opened {
    fn new(store: &Store, origin: &Origin) -> Self {
        Self {
            writer: store.body_writer(shared::store::BodyKey(origin.body), BODY_KIND),
            hasher: blake3::Hasher::new(),
            plain: (origin.size <= PARSED_BYTES_MAX).then(Vec::new),
            length: 0,
            announced: origin.size,
        }
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), Rejected> {
        let chunk = chunk::decode(payload)?;
        self.length += chunk.len() as u64;
        if self.length > self.announced {
            return Err(never("its body is longer than its origin says"));
        }
        self.hasher.update(&chunk);
        if let Some(plain) = &mut self.plain {
            plain.extend_from_slice(&chunk);
        }
        let mut frame = Vec::with_capacity(payload.len() + 4);
        chunk::frame(payload, &mut frame);
        Ok(self.writer.write(&frame)?)
    }

    fn finish(self, id: MessageId, origin: Origin) -> Result<Incoming, Rejected> {
        if self.length != self.announced || self.hasher.finalize() != origin.body {
            return Err(never("its body is not the one that its origin names"));
        }
        let (parts, unparsed) = break_apart(self.plain.as_deref());
        let stored = self.writer.finish(rebuild_notes(id, &origin))?;
        Ok(Incoming { id, origin, stored, parts, unparsed })
    }
}

/// What a rebuild of the index needs: the message and its origin.
pub fn rebuild_notes(id: MessageId, origin: &Origin) -> Vec<u8> {
    [id.0.as_slice(), &origin.encode()].concat()
}

/// The break-apart map of a message.
pub fn break_apart(plain: Option<&[u8]>) -> (Vec<Part>, Option<String>) {
    let Some(plain) = plain else { return (Vec::new(), Some("too large to be broken apart".into())) };
    match shared::mime::scan(plain) {
        Ok(structure) => {
            let parts = (1..).zip(structure.attachments(plain)).map(|(number, attachment)| Part {
                number,
                index: u32::try_from(attachment.index).unwrap_or(u32::MAX),
                name: attachment.name,
                content_type: attachment.content_type,
                size: attachment.size as u64,
            });
            (parts.collect(), None)
        }
        Err(error) => (Vec::new(), Some(error.to_string())),
    }
}

/// Applies a prepared unit.
pub fn apply(txn: &mut Txn<'_>, site: &Site, prepared: Prepared, now: u64) -> Result<(), Rejected> {
    match prepared {
        Prepared::Known => Ok(()),
        // The same message twice in one batch.
        Prepared::Message { incoming, .. } if mail::is_known(txn, incoming.id)? => Ok(()),
        Prepared::Message { incoming, submitted: None, filed } => {
            let id = incoming.id;
            mail::receive(txn, site, *incoming, &filed, now)?;
            unpark(txn, id)
        }
        Prepared::Message { incoming, submitted: Some(window), .. } => {
            submit(txn, site, *incoming, &window, now)
        }
        Prepared::Fact(ToBig::Outcome(outcome)) => apply_outcome(txn, &outcome),
        Prepared::Fact(ToBig::PopAct(act)) => apply_act(txn, &act, now),
        Prepared::Fact(ToBig::WindowClosed { window }) => close_window(txn, &window),
        Prepared::Fact(ToBig::Inbound(_)) => Err(never("a message that was not prepared")),
    }
}

/// Mail from the road: the window is checked against our own records, not against the edge's word.
fn submit(txn: &mut Txn<'_>, site: &Site, incoming: Incoming, window: &Id, now: u64) -> Result<(), Rejected> {
    let row =
        txn.get::<WindowRow>(WINDOWS, window)?.ok_or_else(|| never("there is no such travel window"))?;
    let accepted_at = incoming.origin.accepted_at;
    let late = row.state != WindowState::Open || row.window.until.is_some_and(|until| accepted_at > until);
    if late {
        let ended = row.ended_at.or(row.window.until).unwrap_or(now);
        if row.revoked || row.state == WindowState::Ended || now > ended + LATE_AFTER_END_MILLIS {
            return Err(never("its travel window has ended"));
        }
    }
    let author =
        directory::by_id(txn, &row.window.person)?.ok_or_else(|| never("its author is not here any more"))?;
    if !speaks_as(&incoming.origin, &author) {
        return Err(never("it is not sent as its author"));
    }
    mail::send(txn, site, incoming, &author, late, now).map_err(|refused| match refused {
        Refused::Store(error) => error.into(),
        Refused::Asked(reason) => Rejected::Never(reason),
    })
}

/// Whether the reverse-path and every From are addresses of the author's own.
fn speaks_as(origin: &Origin, author: &Person) -> bool {
    let own = |text: &str| {
        let address: Result<Address, _> = text.parse();
        address.is_ok_and(|address| author.addresses.contains(&address.canonical()))
    };
    let senders = origin.from.iter().chain(&origin.sender);
    origin.reverse_path.as_deref().is_some_and(own)
        && !origin.from.is_empty()
        && senders.into_iter().all(|mailbox| own(&mailbox.address))
}

fn apply_outcome(txn: &mut Txn<'_>, outcome: &Outcome) -> Result<(), Rejected> {
    let id = MessageId(outcome.message);
    let key = mail::recipient_key(id, outcome.recipient);
    let mut row =
        txn.get::<Recipient>(RECIPIENTS, &key)?.ok_or_else(|| never("an outcome for nobody we sent to"))?;
    let final_already =
        matches!(row.state, DeliveryState::Relayed | DeliveryState::Failed | DeliveryState::Delivered);
    if final_already {
        return Ok(());
    }
    row.state = outcome.state;
    row.at = outcome.at;
    row.host.clone_from(&outcome.host);
    row.tls = outcome.tls;
    row.text.clone_from(&outcome.text);
    row.status.clone_from(&outcome.status);
    row.in_doubt = outcome.in_doubt;
    row.next_attempt_at = outcome.next_attempt_at;
    txn.put(RECIPIENTS, &key, &row)?;
    if row.state == DeliveryState::Failed {
        txn.put(REPORTS, &id.0, &Named(id.0))?;
    }
    let state = serde_json::to_value(row.state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default().to_owned();
    let host = row.host.as_deref().map(|host| format!(" by {host}")).unwrap_or_default();
    Ok(trace(txn, id, outcome.at, format!("{}: {state}{host}: {}", row.address, row.text))?)
}

fn apply_act(txn: &mut Txn<'_>, act: &PopAct, now: u64) -> Result<(), Rejected> {
    let id = MessageId(act.message);
    let Some(row) = txn.get::<WindowRow>(WINDOWS, &act.window)? else {
        return Err(never("there is no such travel window"));
    };
    let key = key2(&act.window, &id.0);
    let Some(mut copy) = txn.get::<CopyRow>(COPIES, &key)? else {
        return match mail::is_known(txn, id)? {
            true => Err(never("that message was not filed into that window")),
            false => park(txn, act, now),
        };
    };
    copy.retrieved |= act.retrieved;
    copy.deleted |= act.deleted;
    txn.put(COPIES, &key, &copy)?;
    mail::after_fetch(txn, &row, id, act.retrieved, act.deleted)?;
    let what = match (act.retrieved, act.deleted) {
        (true, true) => "fetched and deleted on the road",
        (_, true) => "deleted on the road",
        _ => "fetched on the road",
    };
    Ok(trace(txn, id, act.at, what)?)
}

/// Keeps an act until the message it speaks of arrives in its own lane.
fn park(txn: &mut Txn<'_>, act: &PopAct, now: u64) -> Result<(), Rejected> {
    let parked = txn.prefix::<ParkedRow>(PARKED, &act.message, PARKED_MAX)?.len();
    let in_all = txn.raw_range(PARKED, &[], None, PARKED_IN_ALL_MAX, false)?.len();
    if parked == PARKED_MAX || in_all == PARKED_IN_ALL_MAX {
        return Err(Rejected::Later("too much is told of messages that have not arrived".into()));
    }
    let order = u32::try_from(parked).unwrap_or(u32::MAX).to_be_bytes();
    Ok(txn.put(PARKED, &key2(&act.message, &order), &ParkedRow { act: act.clone(), at: now })?)
}

/// Applies what was told of a message before it arrived.
fn unpark(txn: &mut Txn<'_>, id: MessageId) -> Result<(), Rejected> {
    for (key, ParkedRow { act, at }) in txn.prefix::<ParkedRow>(PARKED, &id.0, PARKED_MAX)? {
        txn.delete(PARKED, &key)?;
        // An act that proves false does not take the message down with it.
        match apply_act(txn, &act, at) {
            Ok(()) | Err(Rejected::Never(_) | Rejected::Later(_)) => {}
            Err(error @ Rejected::Store(_)) => return Err(error),
        }
    }
    Ok(())
}

fn close_window(txn: &mut Txn<'_>, window: &Id) -> Result<(), Rejected> {
    let mut row =
        txn.get::<WindowRow>(WINDOWS, window)?.ok_or_else(|| never("there is no such travel window"))?;
    if row.state == WindowState::Open {
        return Err(never("that window is open"));
    }
    row.state = WindowState::Ended;
    txn.put(WINDOWS, window, &row)?;
    if txn.get::<Named>(OPEN_WINDOWS, &row.window.person)? == Some(Named(*window)) {
        txn.delete(OPEN_WINDOWS, &row.window.person)?;
    }
    Ok(())
}
