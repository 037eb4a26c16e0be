//! What comes over the link from the edge: opened and checked outside the commit, applied within it
//! together with the lane's position.
//!
//! Every byte here is hostile. A unit may be of a kind that an edge writes, or it is refused; an
//! identity it claims is checked against big's own records, never taken from it.

use shared::address::Address;
use shared::chunk;
use shared::dkim::{BodyHash, Form};
use shared::fault::{SeededFault, seeded};
use shared::id::{MessageId, unix_millis};
use shared::lane::{self, NotApplied};
use shared::mime::{HeaderFacts, HeaderScan};
use shared::origin::{Channel, Origin};
use shared::seal::Opener;
use shared::store::{BodyReader, BodyWriter, Row, Rows, Store, StoreError, Txn};
use shared::trace;
use shared::unit::{DeliveryState, Id, Inbound, Outcome, PopAct, ToBig, decode};

use crate::aggregate;
use crate::compare;
use crate::directory::{self, Policy};
use crate::dkim::Content;
use crate::error::Refused;
use crate::gateway::picked_up;
use crate::inventory;
use crate::mail::{self, Incoming, Site, Ways};
use crate::outcome::{self, Settled};
use crate::part::break_apart;
use crate::record::{
    COPIES, CopyRow, FORMER_BIG, Person, RefusedRow, Succeeds, TRIPS, Trip, WINDOWS, WindowRow, WindowState,
    key2,
};
use crate::redirect;
use crate::revise::{self, Reported, control};
use crate::travel;

/// The kind under which bodies are written on big.
pub const BODY_KIND: u8 = 2;
/// Largest body that is parsed for its attachments; a larger one is filed whole.
pub const PARSED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Octets of trace headers that the edge puts before a message's content, at most.
const TRACE_BYTES_MAX: u64 = 64 * 1024;

fn never(text: &str) -> NotApplied {
    NotApplied::Never(text.into())
}

/// A unit that is ready for its commit.
#[derive(Debug)]
pub enum Prepared {
    /// A message, its body stored.
    Message {
        /// The message.
        incoming: Box<Incoming>,
        /// The window it was submitted through, and what its own header says.
        submitted: Option<Box<(Id, HeaderFacts)>>,
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
pub fn prepare(
    store: &Store,
    site: &Site,
    head: &[u8],
    body: SealedBody<'_>,
) -> Result<Prepared, NotApplied> {
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
) -> Result<Prepared, NotApplied> {
    let id = MessageId(inbound.message);
    if mail::is_known(&store.read()?, id)? {
        return Ok(Prepared::Known);
    }
    let key = site.sealing.unwrap(&inbound.wrapped_key, id)?;
    let note = key.open_note(&inbound.sealed_origin)?;
    let origin = Origin::decode(&note).ok_or_else(|| never("its origin is not readable"))?;
    let claimed = matches!((&origin.channel, inbound.submitted), (Channel::Reception { .. }, None))
        || matches!((&origin.channel, inbound.submitted), (Channel::Submission { window }, Some(by)) if *window == by);
    if !claimed && !seeded(SeededFault::OriginBelieved) {
        return Err(never("its channel is not one by which mail comes from an edge"));
    }
    if origin.size > site.content_bytes_max.saturating_add(TRACE_BYTES_MAX) {
        return Err(never("it is larger than any message may be"));
    }
    store.ready().map_err(|error| NotApplied::Later(error.to_string()))?;
    let mut opened = Opened::new(store, &origin, site);
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
    let written = HeaderFacts::of(opened.header.block());
    if inbound.submitted.is_some() && !speaks_as_one(&written) {
        return Err(never("its header does not say in one way whom it is from"));
    }
    let author = inbound.submitted.map(|_| written);
    let incoming = opened.finish(store, id, origin)?;
    Ok(Prepared::Message {
        incoming: Box::new(incoming),
        submitted: inbound.submitted.zip(author).map(Box::new),
        filed: inbound.filed,
    })
}

/// A body on its way from sealed to stored.
struct Opened<'a> {
    writer: BodyWriter,
    /// The content's header, behind the trace that the edge put before it.
    header: HeaderScan,
    trace_left: usize,
    hasher: blake3::Hasher,
    /// The plain bytes, as long as they are few enough to be parsed.
    plain: Option<Vec<u8>>,
    length: u64,
    announced: u64,
    /// The hash of what is behind the header, if it is to be signed.
    body: Option<BodyHash>,
    site: &'a Site,
}

impl<'a> Opened<'a> {
    fn new(store: &Store, origin: &Origin, site: &'a Site) -> Self {
        let signed = matches!(origin.channel, Channel::Submission { .. }) && !site.dkim.is_empty();
        Self {
            site,
            body: signed.then(|| BodyHash::new(Form::Relaxed)),
            writer: store.body_writer(shared::store::BodyKey(origin.body), BODY_KIND),
            header: HeaderScan::default(),
            trace_left: usize::try_from(origin.trace_bytes).unwrap_or(usize::MAX),
            hasher: blake3::Hasher::new(),
            plain: (origin.size <= PARSED_BYTES_MAX).then(Vec::new),
            length: 0,
            announced: origin.size,
        }
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), NotApplied> {
        let chunk = chunk::decode(payload)?;
        self.length += chunk.len() as u64;
        if self.length > self.announced {
            return Err(never("its body is longer than its origin says"));
        }
        let trace = self.trace_left.min(chunk.len());
        self.trace_left -= trace;
        let before = self.header.block().len();
        self.header.push(&chunk[trace..]);
        let of_header = self.header.block().len() - before;
        if let Some(body) = &mut self.body {
            body.update(&chunk[trace + of_header..]);
        }
        self.hasher.update(&chunk);
        if let Some(plain) = &mut self.plain {
            plain.extend_from_slice(&chunk);
        }
        let mut frame = Vec::with_capacity(payload.len() + 4);
        chunk::frame(payload, &mut frame);
        Ok(self.writer.write(&frame)?)
    }

    fn finish(self, store: &Store, id: MessageId, origin: Origin) -> Result<Incoming, NotApplied> {
        if self.length != self.announced || self.hasher.finalize() != origin.body {
            return Err(never("its body is not the one that its origin names"));
        }
        let (parts, unparsed) = break_apart(self.plain.as_deref());
        let stored = self.writer.finish(rebuild_notes(id, &origin))?;
        let header = self.header.block();
        let passes = passes(header, &self.site.policy);
        let (ways, signatures, now) = (Ways::new(), String::new(), unix_millis());
        let mut incoming =
            Incoming { id, origin, stored, parts, unparsed, passes, ways, tie: None, signatures };
        if let Some(body) = self.body
            && mail::leaves(&store.read()?, self.site, &incoming, now)?
        {
            incoming.signatures = self.site.dkim.sign_hashed(&Content { header, body: body.finish() }, now);
        }
        Ok(incoming)
    }
}

/// How often mail with this header has come in through our edge or from a gateway already. Who forges that of the
/// edge keeps mail from being forwarded, and it is filed then.
pub fn passes(header: &[u8], policy: &Policy) -> u32 {
    let by_us = |field: &shared::mime::Field<'_>| {
        let text = field.unfolded();
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        // At any place: a client may call itself «by».
        let names_us = |pair: &[&str]| pair[0] == "by" && pair[1].eq_ignore_ascii_case(&policy.edge);
        field.is("Received") && words.windows(2).any(names_us)
    };
    let by_edge = shared::mime::fields(header).filter(by_us).count();
    u32::try_from(by_edge + picked_up(header, policy)).unwrap_or(u32::MAX)
}

/// What a rebuild of the index needs: the message and its origin.
pub fn rebuild_notes(id: MessageId, origin: &Origin) -> Vec<u8> {
    [id.0.as_slice(), &origin.encode()].concat()
}

/// Applies a unit without a body that was parked until now.
pub fn apply_alone(txn: &mut Txn<'_>, site: &Site, head: &[u8], now: u64) -> Result<(), NotApplied> {
    let fact = decode::<ToBig>(head).ok_or_else(|| never("not a kind of unit that an edge writes"))?;
    apply(txn, site, Prepared::Fact(fact), now)
}

/// Applies a prepared unit.
pub fn apply(txn: &mut Txn<'_>, site: &Site, prepared: Prepared, now: u64) -> Result<(), NotApplied> {
    match prepared {
        Prepared::Known => Ok(()),
        // The same message twice in one batch.
        Prepared::Message { incoming, .. } if mail::is_known(txn, incoming.id)? => Ok(()),
        Prepared::Message { incoming, submitted: None, filed } => {
            mail::receive(txn, site, *incoming, &filed, now).map_err(|refused| match refused {
                Refused::Store(error) => NotApplied::Store(error),
                // The edge has given its 250: there is no refusing it, only waiting for the mend.
                Refused::Asked(reason) => NotApplied::Later(reason),
            })
        }
        Prepared::Message { incoming, submitted: Some(submitted), .. } => {
            let (window, written) = *submitted;
            submit(txn, site, *incoming, &window, &written, now)
        }
        Prepared::Fact(ToBig::Outcome(outcome)) => apply_outcome(txn, site, &outcome, now),
        Prepared::Fact(ToBig::PopAct(act)) => apply_act(txn, &act, now),
        Prepared::Fact(ToBig::WindowClosed { window, until }) => close_window(txn, &window, until, now),
        Prepared::Fact(ToBig::WindowUsed { window, at }) => window_used(txn, &window, at, now),
        Prepared::Fact(ToBig::Guessing { networks, accounts }) => {
            Ok(travel::guessing::told(txn, networks, accounts, now)?)
        }
        Prepared::Fact(ToBig::DirectoryCompared(compared)) => compare::reported(txn, &compared, now),
        Prepared::Fact(ToBig::Inventory(inventory)) => match inventory::reported(txn, site, &inventory)? {
            true => Ok(()),
            false => of_what_was_lost(txn, "an inventory that nobody asked for"),
        },
        Prepared::Fact(ToBig::Revised(revised)) => match revise::reported(txn, site, &revised, now)? {
            Reported::Recorded => Ok(()),
            Reported::Nobody => {
                of_what_was_lost(txn, "a result of a revision that was not sent to the edge")?;
                Ok(revise::withdrawn_before_restore(txn, &revised)?)
            }
            Reported::Impossible(why) => Err(never(why)),
        },
        Prepared::Fact(ToBig::AggregateReport(report)) => aggregate::received(txn, site, *report, now),
        Prepared::Fact(ToBig::Inbound(_)) => Err(never("a message that was not prepared")),
    }
}

/// Mail from the road: the window is checked against our own records, not against the edge's word.
fn submit(
    txn: &mut Txn<'_>,
    site: &Site,
    incoming: Incoming,
    window: &Id,
    written: &HeaderFacts,
    now: u64,
) -> Result<(), NotApplied> {
    let row =
        txn.get::<WindowRow>(WINDOWS, window)?.ok_or_else(|| never("there is no such travel window"))?;
    if !travel::may_have_begun(&row, now) {
        return Err(never("its travel window has not begun"));
    }
    let accepted_at = incoming.origin.accepted_at;
    let late = row.state != WindowState::Open || row.window.until.is_some_and(|until| accepted_at > until);
    if late {
        // That the edge has closed the window says nothing: events overtake mail.
        if travel::is_too_late(&row, now) {
            return Err(never("its travel window has ended"));
        }
    }
    let author =
        directory::by_id(txn, &row.window.person)?.ok_or_else(|| never("its author is not here any more"))?;
    if !speaks_as(&incoming.origin, written, &author) {
        return Err(never("it is not sent as its author"));
    }
    if let Some(mode) = control::asked(&incoming.origin, &author) {
        return Ok(control::take(txn, incoming, &author, mode, now)?);
    }
    mail::send(txn, site, incoming, &author, late, now).map_err(|refused| match refused {
        Refused::Store(error) => error.into(),
        Refused::Asked(reason) => NotApplied::Never(reason),
    })
}

/// Whether a header leaves no doubt about its author.
fn speaks_as_one(written: &HeaderFacts) -> bool {
    let twice = |name: &&str| written.duplicated.iter().any(|duplicated| duplicated == name);
    !written.cut && !written.from.is_empty() && !["From", "Sender"].iter().any(twice)
}

/// Whether the reverse-path, unless it is the null one, and every From are addresses of the author's own: those of the
/// content as well, for the origin is the edge's word. Nor may a name say another address, which some readers show in its place.
fn speaks_as(origin: &Origin, written: &HeaderFacts, author: &Person) -> bool {
    let own = |text: &str| {
        let address: Result<Address, _> = text.parse();
        address.is_ok_and(|address| author.addresses.contains(&address.canonical()))
    };
    let is_of_another = |word: &str| word.parse::<Address>().is_ok() && !own(word);
    let named =
        |name: &str| name.split(|c: char| c.is_whitespace() || "<>()[]\",;:".contains(c)).any(is_of_another);
    let mut senders = written.from.iter().chain(&written.sender);
    origin.reverse_path.as_deref().is_none_or(own)
        && origin.from.iter().all(|mailbox| own(&mailbox.address))
        && senders.all(|mailbox| own(&mailbox.address) && !mailbox.name.as_deref().is_some_and(named))
}

fn apply_outcome(txn: &mut Txn<'_>, site: &Site, outcome: &Outcome, now: u64) -> Result<(), NotApplied> {
    if !matches!(outcome.state, DeliveryState::Deferred | DeliveryState::Relayed | DeliveryState::Failed) {
        return Err(never("not a state that an attempt ends in"));
    }
    let mut settled = outcome::settle(txn, outcome, None)?;
    if settled == Settled::Nobody {
        redirect::proven(txn, site, outcome, now)?;
        settled = outcome::settle(txn, outcome, None)?;
    }
    match settled {
        Settled::Recorded => Ok(()),
        Settled::Nobody => of_what_was_lost(txn, "an outcome for nobody we sent to"),
        Settled::AnotherWay => Err(never("an outcome for somebody whose mail does not go by the edge")),
    }
}

/// The edge counts on from what it has told another big, which was here before this one.
pub fn succeeds(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    txn.put(FORMER_BIG, &[], &Succeeds)
}

/// A fact about something that is not recorded here: refused, unless this big has been restored, or is in the place of
/// one whose store is lost. Then it may be of the time since the backup or before this store, the edge says it rightly,
/// and no record is left that it could change.
fn of_what_was_lost(txn: &Txn<'_>, refusal: &str) -> Result<(), NotApplied> {
    let was_restored = lane::identity(txn)?.is_some_and(|identity| identity.generation > 1);
    if was_restored || txn.raw(FORMER_BIG, &[])?.is_some() {
        tracing::info!(fact = refusal, "a fact of the time before the restore");
        return Ok(());
    }
    Err(never(refusal))
}

fn apply_act(txn: &mut Txn<'_>, act: &PopAct, now: u64) -> Result<(), NotApplied> {
    let id = MessageId(act.message);
    let Some(row) = txn.get::<WindowRow>(WINDOWS, &act.window)? else {
        return of_what_was_lost(txn, "there is no such travel window");
    };
    if !travel::may_have_begun(&row, now) {
        return Err(never("that window has not begun"));
    }
    // What was done before the end may be told behind it: an act waits for its message, and the end does not.
    if row.state == WindowState::Ended && travel::is_too_late(&row, now) {
        return Err(never("the edge had closed that window"));
    }
    let key = key2(&act.window, &id.0);
    let Some(mut copy) = txn.get::<CopyRow>(COPIES, &key)? else {
        return of_what_was_lost(txn, "that message was not filed into that window");
    };
    // Of a text that another one has taken the place of, for an edge that went back has shown it since, the copy says nothing.
    // While that is not decided, it counts for the decision, unless a client has had the later one already.
    let is_earlier = act.revision < copy.acted
        || act.revision < copy.revision && !revise::is_open_for(txn, id, &row.window.person)?;
    // What was done with an earlier text was not done with this one, which an edge that went back may show before it reports
    // the revision. Of one that this node has forgotten, it counts for the one that is known.
    let acted = act.revision.min(copy.revision);
    if copy.acted < acted {
        copy = CopyRow { retrieved: false, deleted: false, acted, ..copy };
    }
    if is_earlier || copy.retrieved >= act.retrieved && copy.deleted >= act.deleted {
        let shown = revise::bit(act.revision);
        return Ok(mail::mark(txn, &row.window.person, id, |entry| entry.shown |= shown)?);
    }
    copy.retrieved |= act.retrieved;
    copy.deleted |= act.deleted;
    txn.put(COPIES, &key, &copy)?;
    mail::after_fetch(txn, &row, act, now)?;
    if act.deleted {
        travel::count_deletion(txn, &act.window, now)?;
    }
    let what = match (act.retrieved, act.deleted) {
        (true, true) => "fetched and deleted on the road",
        (_, true) => "deleted on the road",
        _ => "fetched on the road",
    };
    Ok(trace::note(txn, id, act.at, what)?)
}

fn close_window(txn: &mut Txn<'_>, window: &Id, until: Option<u64>, now: u64) -> Result<(), NotApplied> {
    let Some(row) = txn.get::<WindowRow>(WINDOWS, window)? else {
        return of_what_was_lost(txn, "there is no such travel window");
    };
    // By its own clock an edge ends what has an end, and nothing else.
    if row.state == WindowState::Open && until.is_none() {
        return Err(never("that window is open"));
    }
    Ok(travel::closed(txn, row, until, now)?)
}

fn window_used(txn: &mut Txn<'_>, window: &Id, at: u64, now: u64) -> Result<(), NotApplied> {
    let Some(row) = txn.get::<WindowRow>(WINDOWS, window)? else {
        return of_what_was_lost(txn, "there is no such travel window");
    };
    if !travel::may_have_begun(&row, now) {
        return Err(never("that window has not begun"));
    }
    let trip = travel::fill::trip(txn, window)?;
    Ok(txn.put(TRIPS, window, &Trip { last_login: Some(at), ..trip })?)
}

/// What a person is told of a submission, should it be refused.
pub fn submission(prepared: &Prepared) -> Option<(Id, MessageId, RefusedRow)> {
    let Prepared::Message { incoming, submitted: Some(submitted), .. } = prepared else { return None };
    let origin = &incoming.origin;
    let to = origin.recipients.iter().map(|recipient| recipient.address.clone()).collect();
    let row = RefusedRow { to, subject: origin.subject.clone(), at: origin.accepted_at };
    Some((submitted.0, incoming.id, row))
}
