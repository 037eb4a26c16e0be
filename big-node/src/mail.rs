//! Taking a message in: filing it, tying it to its thread, routing it onwards. All of it in the one
//! commit that makes the message ours.

mod mailbox;
mod outward;

use std::collections::BTreeMap;

use shared::address::Address;
use shared::chunk;
use shared::fault::{SeededFault, seeded};
use shared::id::{MessageId, monotonic};
use shared::origin::{Channel, Origin};
use shared::seal::{FileKey, PublicKey, Sealed, Unwrapper, Wrappers};
use shared::store::{BodyKey, BodyReader, Rows, StoreError, Stored, Txn};
use shared::topology::{AttachmentMode, Reports};
use shared::trace;
use shared::unit::{DeliveryState, Id};
use shared::verdict::Disposition;

use crate::asked::{self, Asked};
use crate::conversation;
use crate::delay;
use crate::desk;
use crate::directory::{self, Letter, Policy, Route, Routed, Wanted, Way};
use crate::dkim::Signers;
use crate::error::Refused;
use crate::gateway::queue::{self, Due, UnderWay};
use crate::reconcile;
use crate::record::{
    ADDRESSES, COPIES, CopyRow, EXPANSIONS, Entry, Expansion, Folder, Holder, Kind, MAILBOXES, MESSAGE_IDS,
    MESSAGES, Message, Named, Part, Person, Pop3, RECIPIENTS, REPORTS, Recipient, UNSETTLED, WINDOWS,
    WindowRow, entry_key, key2, message_id_key,
};
use crate::travel::fill;
pub use mailbox::{after_fetch, delete, discard, entry, erase, forget, mark, read, shown};
pub use outward::{
    asked, hold_for_report, is_awaited, keep_signatures, let_go, outbound_key, queue_copy, queue_outbound,
    queued_body, reverse_path, settled, signatures,
};

/// Names that a trace lists; of more it says how many.
const NAMES_MAX: usize = 10;
/// Characters of each: those of the longest address (RFC 5321 §4.5.3.1).
const NAME_CHARS_MAX: usize = 320;

/// What big's operations need to know besides the store.
#[derive(Debug)]
pub struct Site {
    /// Whose an address is, besides the directory.
    pub policy: Policy,
    /// How attachments are filed for those who have not chosen.
    pub filing: AttachmentMode,
    /// To which inbound bodies' keys are wrapped.
    pub sealing: Unwrapper,
    /// Wrap what is for the edge, or for a window.
    pub wrappers: Wrappers,
    /// From which the keys of outbound bodies are derived.
    pub outbound_secret: [u8; 32],
    /// The keys that sign what leaves.
    pub dkim: Signers,
    /// Octets of content that the edge accepts.
    pub content_bytes_max: u64,
    /// Whether a notice is sent to those outside for whom a revision comes too late.
    pub follow_up: bool,
    /// The aggregate reports that are sent to other domains.
    pub reports: Reports,
    /// Attempts under way for inside gateways.
    pub under_way: UnderWay,
}

impl Site {
    /// The key of an outbound body, wrapped to its reader.
    pub fn wrapped(&self, id: MessageId, revision: u32, reader: &PublicKey) -> Result<Vec<u8>, Sealed> {
        let key = FileKey::of_outbound(&self.outbound_secret, id, revision, reader);
        self.wrappers.wrap(&key, reader, id, monotonic())
    }

    /// How attachments are filed for `person`.
    pub fn filing_of(&self, person: &Person) -> AttachmentMode {
        match person.pop3 {
            Pop3::Passthru => AttachmentMode::Passthru,
            Pop3::No | Pop3::Yes => person.filing.unwrap_or(self.filing),
        }
    }
}

/// The ways out that a person chose, by the address as the envelope has it.
pub type Ways = BTreeMap<String, Way>;

/// A message whose body is complete in the segments.
#[derive(Debug)]
pub struct Incoming {
    /// Given where it was first accepted.
    pub id: MessageId,
    /// How it came.
    pub origin: Origin,
    /// Its body, not yet named by a commit.
    pub stored: Stored,
    /// Its break-apart map.
    pub parts: Vec<Part>,
    /// Why there is no map.
    pub unparsed: Option<String>,
    /// How often it has left through our edge before it came, as its header says.
    pub passes: u32,
    /// The ways that its sender chose.
    pub ways: Ways,
    /// What its author said it is about; otherwise its header says it.
    pub tie: Option<Tie>,
    /// Its DKIM signatures, should it leave by the edge.
    pub signatures: String,
}

/// What a message has to do with an earlier one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// It answers it.
    Answers(MessageId),
    /// It sends it on.
    Forwards(MessageId),
}

impl Tie {
    fn message(self) -> MessageId {
        match self {
            Self::Answers(message) | Self::Forwards(message) => message,
        }
    }
}

/// Whether big holds this message already.
pub fn is_known(rows: &impl Rows, id: MessageId) -> Result<bool, StoreError> {
    Ok(rows.raw(MESSAGES, &id.0)?.is_some() && !seeded(SeededFault::DedupeDropped))
}

/// Files mail from the Internet. `filed` names the windows into which the edge has filed it.
pub fn receive(
    txn: &mut Txn<'_>,
    site: &Site,
    incoming: Incoming,
    filed: &[Id],
    now: u64,
) -> Result<(), Refused> {
    let (id, passes, signatures) = (incoming.id, incoming.passes, incoming.signatures.clone());
    let message = keep(txn, incoming, now)?;
    let routed = routed(txn, site, &message.origin, passes, &Ways::new(), now)?;
    let asked = asked::of(&message.origin, &routed);
    enter_expansions(txn, id, &message, &routed)?;
    let (mut readers, mut outside, mut undeliverable): (Vec<Person>, _, _) =
        (Vec::new(), Vec::new(), Vec::new());
    let mut told = Vec::new();
    for (routed, asked) in routed.into_iter().zip(asked) {
        if let Route::Mailbox(person) = &routed.route
            && asked.notify.is_some_and(|notify| notify.success)
        {
            told.push(delivered(&routed, asked.clone(), person, message.origin.accepted_at));
        }
        match routed.route {
            Route::Mailbox(person) => readers.push(*person),
            Route::Outside(..) => outside.push((routed, asked)),
            Route::Nowhere(why, _) => undeliverable.push((routed.address, why)),
        }
    }
    for window in filed {
        // The edge's word for it: only windows that are there, and of those whom the message is for.
        let row = txn.get::<WindowRow>(WINDOWS, window)?;
        if row.is_some_and(|row| readers.iter().any(|reader| reader.id == row.window.person)) {
            let size = message.origin.size;
            let copy = CopyRow { filed_by_edge: true, size, ..CopyRow::default() };
            txn.put(COPIES, &key2(window, &id.0), &copy)?;
        }
    }
    let folder = arrives_in(&message.origin);
    for reader in &readers {
        file_arrived(txn, site, (&message, id), reader, folder, now)?;
    }
    // Behind those who wait, whose indexes the edge and gateways are told.
    for (index, row) in (u32::try_from(outside.len()).unwrap_or(u32::MAX)..).zip(&told) {
        enter_recipient(txn, id, index, row)?;
    }
    forward(txn, site, (&message, id, &signatures), outside, now)?;
    if !undeliverable.is_empty() {
        // The 250 has been given: nothing is dropped in silence (design §6).
        let (names, whys): (Vec<_>, Vec<_>) = undeliverable.into_iter().unzip();
        let (names, why) = (listed(&names), whys.first().copied().unwrap_or_default());
        match directory::postmaster_person(txn, &site.policy)? {
            Some(postmaster) => {
                file(txn, &message, id, &postmaster, Folder::Undeliverable, Entry::default(), now)?;
                trace::note(txn, id, now, format!("not for {names} ({why}): filed as undeliverable"))?;
            }
            None => {
                let text = "there is no postmaster to take it; add the person whom [site] postmaster names";
                return Err(Refused::new(text));
            }
        }
    }
    Ok(txn.release_body(message.body())?)
}

/// Files a report of ours for a person here, wherever their mail goes on to.
pub fn file_report(
    txn: &mut Txn<'_>,
    site: &Site,
    incoming: Incoming,
    (person, folder): (&Person, Folder),
    now: u64,
) -> Result<(), StoreError> {
    let id = incoming.id;
    let message = keep(txn, incoming, now)?;
    file_arrived(txn, site, (&message, id), person, folder, now)?;
    txn.release_body(message.body())
}

/// Files what has come for a person. What is not for their inbox answers nothing, and does not go on the road.
pub fn file_arrived(
    txn: &mut Txn<'_>,
    site: &Site,
    (message, id): (&Message, MessageId),
    person: &Person,
    folder: Folder,
    now: u64,
) -> Result<(), StoreError> {
    let mut place = String::new();
    if folder == Folder::In {
        file_received(txn, message, id, person, now)?;
        fill::arrived(txn, site, message, id, &person.id, now)?;
    } else {
        file(txn, message, id, person, folder, Entry::default(), now)?;
        place = folder.fixed_name().map(|name| format!("in {name} ")).unwrap_or_default();
    }
    trace::note(txn, id, now, format!("filed {place}for {}", person.name))
}

/// The folder for a received message.
pub fn arrives_in(origin: &Origin) -> Folder {
    match Disposition::of(&origin.verdicts) {
        Disposition::Quarantine => Folder::Junk,
        Disposition::Deliver | Disposition::Mark => Folder::In,
    }
}

/// Some of many names, which an edge brought, for a person.
fn listed(names: &[String]) -> String {
    let cut = |name: &String| name.chars().take(NAME_CHARS_MAX).collect::<String>();
    let mut text = names.iter().take(NAMES_MAX).map(cut).collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(NAMES_MAX) {
        text += &format!(" and {more} more");
    }
    text
}

/// Takes mail from a person of ours: files it in Sent, marks what it answers, delivers inside and
/// queues the rest for the edge and for inside gateways.
pub fn send(
    txn: &mut Txn<'_>,
    site: &Site,
    incoming: Incoming,
    author: &Person,
    late: bool,
    now: u64,
) -> Result<(), Refused> {
    let (id, passes, ways, tie) = (incoming.id, incoming.passes, incoming.ways.clone(), incoming.tie);
    let signatures = incoming.signatures.clone();
    let message = keep(txn, incoming, now)?;
    for recipient in &message.origin.recipients {
        let parsed: Result<Address, _> = recipient.address.parse();
        parsed.map_err(|error| Refused::new(format!("{}: {error}", recipient.address)))?;
    }
    file(txn, &message, id, author, Folder::Sent, Entry { read: true, late, ..Entry::default() }, now)?;
    if let Some(parent) = message.parent {
        let forwards = tie
            .map_or_else(|| conversation::sends_on(&message.origin), |tie| matches!(tie, Tie::Forwards(_)));
        mark(txn, &author.id, MessageId(parent), |entry| match forwards {
            true => entry.forwarded = true,
            false => entry.answered = true,
        })?;
    }
    conversation::note_sent(txn, author, &message, id, now)?;
    let mut outside = Vec::new();
    let routed = routed(txn, site, &message.origin, passes, &ways, now)?;
    let asked = asked::of(&message.origin, &routed);
    enter_expansions(txn, id, &message, &routed)?;
    for ((index, routed), asked) in (0..).zip(routed).zip(asked) {
        let row = match &routed.route {
            Route::Mailbox(person) => {
                deliver_inside(txn, site, &message, id, person, now)?;
                delivered(&routed, asked, person, now)
            }
            Route::Outside(..) => {
                outside.push((index, routed, asked));
                continue;
            }
            Route::Nowhere(why, status) => {
                recipient_row(&routed, asked, DeliveryState::Failed, why, status, now)
            }
        };
        enter_recipient(txn, id, index, &row)?;
    }
    send_on(txn, site, (&message, id, &signatures), outside, now)?;
    Ok(txn.release_body(message.body())?)
}

/// The recipients that a message's envelope leads to.
fn routed(
    rows: &impl Rows,
    site: &Site,
    origin: &Origin,
    passes: u32,
    ways: &Ways,
    now: u64,
) -> Result<Vec<Routed>, StoreError> {
    let wanted = |address| Wanted { address, by: ways.get(address) };
    let addresses = origin.recipients.iter().map(|recipient| wanted(recipient.address.as_str()));
    directory::route(rows, &site.policy, Letter::of(origin, passes, now), addresses)
}

/// Whether somebody is to get a message by the edge, as the directory is at `now`. Who becomes one between this and the
/// commit that takes the message in gets it unsigned.
pub fn leaves(rows: &impl Rows, site: &Site, incoming: &Incoming, now: u64) -> Result<bool, StoreError> {
    let routed = routed(rows, site, &incoming.origin, incoming.passes, &incoming.ways, now)?;
    let by_edge = |route: &Route| matches!(route, Route::Outside(way, _) if !matches!(way, Way::Inside(_)));
    Ok(routed.iter().any(|routed| by_edge(&routed.route)))
}

/// Queues a message for recipients who are not here, each by the way to them. Only what leaves by the edge is signed.
fn send_on(
    txn: &mut Txn<'_>,
    site: &Site,
    (message, id, signatures): (&Message, MessageId, &str),
    outside: Vec<(u32, Routed, Asked)>,
    now: u64,
) -> Result<(), Refused> {
    if outside.is_empty() {
        return Ok(());
    }
    let (mut edge, mut inside): (_, BTreeMap<String, Vec<u32>>) = (Vec::new(), BTreeMap::new());
    let mut is_held = false;
    for (index, routed, asked) in outside {
        let waits = match &routed.route {
            Route::Outside(Way::Inside(name), _) => {
                inside.entry(name.clone()).or_default().push(index);
                format!("waits for the gateway {name}")
            }
            _ => {
                edge.push((index, routed.address.clone()));
                is_held |= asked.stand_in.is_some();
                "waits for the link".into()
            }
        };
        let row = recipient_row(&routed, asked, DeliveryState::Queued, &waits, "", now);
        enter_recipient(txn, id, index, &row)?;
    }
    delay::note(txn, id, message)?;
    if !edge.is_empty() {
        keep_signatures(txn, id, message.revision, signatures)?;
        let indexes: Vec<u32> = edge.iter().map(|(index, _)| *index).collect();
        queue_outbound(txn, site, message, id, edge)?;
        if is_held {
            hold_for_report(txn, id, message)?;
        }
        if message.origin.channel == Channel::Report {
            reconcile::made_again(txn, id, &indexes)?;
        }
        let how = if signatures.is_empty() { "" } else { ", signed" };
        trace::note(txn, id, now, format!("queued for the edge{how}"))?;
    }
    for (gateway, recipients) in inside {
        trace::note(txn, id, now, format!("queued for the gateway {gateway}"))?;
        queue::enter(
            txn,
            &Due { gateway, message: id, revision: 0 },
            message.body(),
            recipients,
            false,
            now,
        )?;
    }
    Ok(())
}

/// Queues mail that came from outside and goes on: to others outside, or to an inside gateway.
fn forward(
    txn: &mut Txn<'_>,
    site: &Site,
    (message, id, signatures): (&Message, MessageId, &str),
    outside: Vec<(Routed, Asked)>,
    now: u64,
) -> Result<(), Refused> {
    if outside.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = outside.iter().map(|(routed, _)| routed.address.clone()).collect();
    trace::note(txn, id, now, format!("goes on to {}", listed(&names)))?;
    let outside = (0..).zip(outside).map(|(index, (routed, asked))| (index, routed, asked)).collect();
    send_on(txn, site, (message, id, signatures), outside, now)
}

/// Notes of which groups the sender is to be told that they were expanded.
fn enter_expansions(
    txn: &mut Txn<'_>,
    id: MessageId,
    message: &Message,
    routed: &[Routed],
) -> Result<(), StoreError> {
    for (number, (address, original)) in (0_u32..).zip(asked::expanded(&message.origin, routed)) {
        let (address, original) = (address.to_owned(), original.map(ToOwned::to_owned));
        let expansion = Expansion { address, original, at: message.origin.accepted_at };
        txn.put(EXPANSIONS, &key2(&id.0, &number.to_be_bytes()), &expansion)?;
        txn.put(REPORTS, &id.0, &Named(id.0))?;
    }
    Ok(())
}

/// Writes a recipient's row, and what follows from its state.
pub(crate) fn enter_recipient(
    txn: &mut Txn<'_>,
    id: MessageId,
    index: u32,
    row: &Recipient,
) -> Result<(), StoreError> {
    if row.state == DeliveryState::Queued && row.gateway.is_none() {
        txn.put(UNSETTLED, &recipient_key(id, index), &Named(id.0))?;
    }
    if row.is_report_owed() {
        txn.put(REPORTS, &id.0, &Named(id.0))?;
    }
    txn.put(RECIPIENTS, &recipient_key(id, index), row)
}

fn deliver_inside(
    txn: &mut Txn<'_>,
    site: &Site,
    message: &Message,
    id: MessageId,
    person: &Person,
    now: u64,
) -> Result<(), StoreError> {
    if txn.raw(MAILBOXES, &entry_key(&person.id, Folder::In, id))?.is_some() {
        return Ok(());
    }
    file_received(txn, message, id, person, now)?;
    fill::arrived(txn, site, message, id, &person.id, now)?;
    trace::note(txn, id, now, format!("filed for {}", person.name))
}

/// The row of a recipient who has it in the mailbox since `at`.
fn delivered(routed: &Routed, asked: Asked, person: &Person, at: u64) -> Recipient {
    let row = recipient_row(routed, asked, DeliveryState::Delivered, "in the mailbox", "2.1.5", at);
    Recipient { person: Some(person.id), ..row }
}

fn recipient_row(
    routed: &Routed,
    asked: Asked,
    state: DeliveryState,
    text: &str,
    status: &str,
    now: u64,
) -> Recipient {
    Recipient {
        address: routed.address.clone(),
        via: routed.via.clone(),
        forwarder: routed.forwarder.as_ref().map(|forwarder| forwarder.address.clone()),
        gateway: match &routed.route {
            Route::Outside(Way::Inside(name), _) => Some(name.clone()),
            _ => None,
        },
        state,
        at: now,
        host: None,
        tls: None,
        relay: None,
        text: text.into(),
        status: status.into(),
        in_doubt: false,
        next_attempt_at: None,
        reported: false,
        host_reports: false,
        notify: asked.notify,
        original: asked.original,
        person: None,
        revision: 0,
        stand_in: asked.stand_in,
    }
}

/// The key of a recipient's row.
pub fn recipient_key(id: MessageId, index: u32) -> Vec<u8> {
    key2(&id.0, &index.to_be_bytes())
}

/// Files a message that a rebuild found, as its origin says. Its body is kept already, for the rebuild.
pub fn restore(
    txn: &mut Txn<'_>,
    id: MessageId,
    origin: Origin,
    body: BodyKey,
    policy: &Policy,
) -> Result<(), StoreError> {
    let message =
        Message { origin, revision: 0, thread: id.0, parent: None, parts: Vec::new(), unparsed: None };
    if let Channel::Desk { person } = message.origin.channel
        && message.origin.reverse_path.is_none()
    {
        return desk::restore_draft(txn, id, message, &person);
    }
    enter(txn, id, &message)?;
    let (now, mut filed) = (message.origin.accepted_at, false);
    let author = match message.origin.channel {
        Channel::Desk { .. } | Channel::Submission { .. } => sender(&message.origin),
        Channel::Reception { .. } | Channel::Report | Channel::Gateway { .. } => None,
    };
    let mut places: Vec<(Person, Folder, Entry)> = Vec::new();
    let mut inside = Vec::new();
    let postmaster = directory::postmaster_person(txn, policy)?;
    let undeliverable = postmaster.map(|person| (person, Folder::Undeliverable, Entry::default()));
    match author.map(|path| directory::by_name(txn, path)) {
        Some(Ok(person)) => places.push((person, Folder::Sent, Entry { read: true, ..Entry::default() })),
        Some(Err(Refused::Store(error))) => return Err(error),
        Some(Err(Refused::Asked(_))) => places.extend(undeliverable.clone()),
        None => {}
    }
    let addresses = message.origin.recipients.iter().map(|recipient| recipient.address.as_str());
    let routed = directory::route(txn, policy, Letter::of(&message.origin, 0, now), addresses)?;
    let asked = asked::of(&message.origin, &routed);
    for (routed, asked) in routed.into_iter().zip(asked) {
        match routed.route {
            Route::Mailbox(person) => {
                let folder = arrives_in(&message.origin);
                places.push((*person, folder, Entry::default()));
            }
            // The edge has what it was given, and nothing is sent again.
            Route::Outside(Way::Edge, _) => {}
            Route::Outside(Way::Inside(_), _) => inside.push((routed, asked)),
            Route::Nowhere(..) => places.extend(undeliverable.clone()),
        }
    }
    for (person, folder, entry) in places {
        if txn.raw(MAILBOXES, &entry_key(&person.id, folder, id))?.is_none() {
            file(txn, &message, id, &person, folder, entry, now)?;
            filed = true;
        }
    }
    filed |= !inside.is_empty();
    hold(txn, &message, id, inside, now)?;
    // What nobody is there for stays in the store all the same.
    if filed { txn.release_body(body) } else { Ok(()) }
}

/// Enters a message that a rebuild found for inside gateways, which may have it already: it is held there until
/// an operator lets it go.
fn hold(
    txn: &mut Txn<'_>,
    message: &Message,
    id: MessageId,
    inside: Vec<(Routed, Asked)>,
    now: u64,
) -> Result<(), StoreError> {
    let mut held: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (index, (routed, asked)) in (0..).zip(inside) {
        let row = recipient_row(&routed, asked, DeliveryState::Queued, queue::HELD, "", now);
        enter_recipient(txn, id, index, &row)?;
        held.entry(row.gateway.unwrap_or_default()).or_default().push(index);
    }
    for (gateway, recipients) in held {
        queue::enter(txn, &Due { gateway, message: id, revision: 0 }, message.body(), recipients, true, now)?;
    }
    Ok(())
}

/// Writes a message's row, and makes it known by its Message-ID.
fn enter(txn: &mut Txn<'_>, id: MessageId, message: &Message) -> Result<(), StoreError> {
    if let Some(message_id) = &message.origin.message_id {
        let key = message_id_key(message_id);
        // The first to bear a Message-ID keeps it: a later one may be a forgery.
        if txn.raw(MESSAGE_IDS, &key)?.is_none() {
            txn.put(MESSAGE_IDS, &key, &Named(id.0))?;
        }
    }
    txn.put(MESSAGES, &id.0, message)
}

/// Names the body and writes the message's row, tied into its thread. The reference on the body is the caller's.
pub fn keep(txn: &mut Txn<'_>, incoming: Incoming, now: u64) -> Result<Message, StoreError> {
    let Incoming { id, origin, stored, parts, unparsed, tie, .. } = incoming;
    let parent = match tie {
        Some(tie) => Some(tie.message().0),
        None => conversation::parent_of(txn, &origin, id, now)?,
    };
    let thread = match parent {
        Some(parent) => txn.get::<Message>(MESSAGES, &parent)?.map_or(parent, |parent| parent.thread),
        None => id.0,
    };
    // This reference is the operation's own; it drops it once the entries and units hold the body.
    txn.keep_body(&stored)?;
    let message = Message { origin, revision: 0, thread, parent, parts, unparsed };
    enter(txn, id, &message)?;
    conversation::enter(txn, &message, id)?;
    note_taken(txn, id, &message.origin, now)?;
    Ok(message)
}

/// Notes how a message came, from whom and for whom, so that it is found by each of them.
fn note_taken(txn: &mut Txn<'_>, id: MessageId, origin: &Origin, now: u64) -> Result<(), StoreError> {
    let names: Vec<_> = origin.recipients.iter().map(|recipient| recipient.address.clone()).collect();
    let mut names = names.chunks(NAMES_MAX).map(listed);
    let reverse_path = listed(origin.reverse_path.as_slice());
    let what = format!("taken in by big ({}), from <{reverse_path}>", channel_name(origin));
    let to = names.next().map(|names| format!(", for {names}")).unwrap_or_default();
    trace::note(txn, id, now, what + &to)?;
    names.try_for_each(|names| trace::note(txn, id, now, format!("and for {names}")))
}

fn channel_name(origin: &Origin) -> &'static str {
    match origin.channel {
        Channel::Reception { .. } => "from the Internet",
        Channel::Submission { .. } => "from a traveller",
        Channel::Desk { .. } => "from a desk",
        Channel::Report => "a report of our own",
        Channel::Gateway { .. } => "from an inside gateway",
    }
}

/// Files a message in a folder; the entry holds the body.
fn file(
    txn: &mut Txn<'_>,
    message: &Message,
    id: MessageId,
    person: &Person,
    folder: Folder,
    entry: Entry,
    now: u64,
) -> Result<(), StoreError> {
    txn.reference_body(message.body())?;
    txn.put(MAILBOXES, &entry_key(&person.id, folder, id), &Entry { filed_at: now, ..entry })
}

/// The address that a person inside has sent a message as: its reverse-path, or From behind the null one.
fn sender(origin: &Origin) -> Option<&str> {
    origin.reverse_path.as_deref().or_else(|| origin.from.first().map(|from| from.address.as_str()))
}

/// Who has sent a message, by the channel it came by; never by what it says of itself. What was submitted is of whose
/// window that was. Of a window that a rebuild has not brought back, big had checked that the sender was its person.
pub fn author_of(rows: &impl Rows, message: &Message) -> Result<Option<Id>, StoreError> {
    let window = match message.origin.channel {
        Channel::Desk { person } => return Ok(Some(person)),
        Channel::Submission { window } => window,
        Channel::Reception { .. } | Channel::Report | Channel::Gateway { .. } => return Ok(None),
    };
    if let Some(row) = rows.get::<WindowRow>(WINDOWS, &window)? {
        return Ok(Some(row.window.person));
    }
    let Some(Ok(path)) = sender(&message.origin).map(str::parse::<Address>) else { return Ok(None) };
    let holder = rows.get::<Holder>(ADDRESSES, path.canonical().as_bytes())?;
    Ok(holder.filter(|holder| holder.kind == Kind::Person).map(|holder| holder.id))
}

/// Where the author of a message is told what becomes of it: at its reverse-path while that is theirs, and else at their own
/// address. `None` if nobody inside has sent it, or who has is here no more: whoever has the reverse-path by then is another.
pub fn author_address(rows: &impl Rows, message: &Message) -> Result<Option<Address>, StoreError> {
    let Some(author) = author_of(rows, message)?.map(|id| directory::by_id(rows, &id)).transpose()?.flatten()
    else {
        return Ok(None);
    };
    let path = message.origin.reverse_path.as_deref().and_then(|path| path.parse::<Address>().ok());
    let is_theirs = |path: &Address| author.addresses.contains(&path.canonical());
    let own = || author.addresses.first().and_then(|address| address.parse().ok());
    Ok(path.filter(is_theirs).or_else(own))
}

/// Whether a person has sent a message.
pub fn is_author(rows: &impl Rows, message: &Message, person: &Person) -> Result<bool, StoreError> {
    Ok(author_of(rows, message)? == Some(person.id))
}

/// What a message's author is shown of it has changed: tells their desk, if it waits.
pub fn touch_author(txn: &mut Txn<'_>, id: MessageId) -> Result<(), StoreError> {
    if let Some(message) = txn.get::<Message>(MESSAGES, &id.0)?
        && let Some(author) = author_of(txn, &message)?
    {
        txn.touch(MAILBOXES, &author);
    }
    Ok(())
}

/// Files a received message, and marks what it answers, if the receiver has sent that.
fn file_received(
    txn: &mut Txn<'_>,
    message: &Message,
    id: MessageId,
    person: &Person,
    now: u64,
) -> Result<(), StoreError> {
    file(txn, message, id, person, Folder::In, Entry::default(), now)?;
    // A report or an absence notice answers nothing, nor does what is only sent on.
    let answers = !message.origin.automatic && !conversation::sends_on(&message.origin);
    let Some(parent) = message.parent.filter(|_| answers) else { return Ok(()) };
    match txn.get::<Message>(MESSAGES, &parent)? {
        Some(sent) if is_author(txn, &sent, person)? => {
            mark(txn, &person.id, MessageId(parent), |entry| entry.answered = true)
        }
        _ => Ok(()),
    }
}

/// A message's plain bytes, trace headers and content, checked against its hash.
pub fn content(reader: BodyReader, message: &Message, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
    let damaged = || StoreError::Damaged("a body".into());
    let plain = chunk::decode_all(&reader.read_all()?, bytes_max).map_err(|_| damaged())?;
    if blake3::hash(&plain) != message.origin.body {
        return Err(damaged());
    }
    Ok(plain)
}
