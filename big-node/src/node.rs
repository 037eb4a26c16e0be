//! What every part of a running big node shares.

use std::sync::Arc;

use link_proto::driver::Handle;
use link_proto::unit::Lane;
use shared::chunk;
use shared::id::{BodyId, MessageId, unix_millis};
use shared::mime::HeaderFacts;
use shared::origin::{Channel, Mailbox, Origin, OriginalRecipient};
use shared::seal::{PrivateKey, Unwrapper, Wrappers};
use shared::state::{State, StateError};
use shared::store::{Store, StoreError, Stored};
use shared::tls_wish::TlsWish;
use shared::topology::Topology;

use crate::directory::{self, Importing, Policy};
use crate::dkim::Signers;
use crate::gateway::queue::UnderWay;
use crate::inbound::{BODY_KIND, rebuild_notes};
use crate::mail::{self, Incoming, Site, Ways};
use crate::part::break_apart;
use crate::pressure::Pressure;
use crate::record::MAILBOXES;

/// Big.
#[derive(Debug)]
pub struct Node {
    /// When, milliseconds since 1970.
    pub started_at: u64,
    /// Where it is and what it is to do.
    pub topology: Topology,
    /// Its store.
    pub store: Store,
    /// What its operations need to know.
    pub site: Arc<Site>,
    /// The running link.
    pub link: Handle,
    pressure: Arc<Pressure>,
    /// The import that runs, if one does.
    pub importing: Arc<Importing>,
    /// Something was applied or queued that others wait for.
    pub changed: Arc<tokio::sync::Notify>,
    /// Something may be due for an inside gateway.
    pub due: tokio::sync::Notify,
}

impl Node {
    /// Opens big's state.
    pub fn open(topology: Topology, state: &State) -> Result<Self, StateError> {
        let outbound_secret = state.key32("outbound")?;
        let site = Site {
            policy: Policy::of(&topology, &outbound_secret),
            filing: topology.site.attachments,
            sealing: Unwrapper::new(PrivateKey::from_bytes(state.key32("sealing")?)),
            wrappers: Wrappers::default(),
            outbound_secret,
            dkim: Signers::load(state)?,
            content_bytes_max: topology.edge.size_max,
            follow_up: topology.site.follow_up,
            reports: topology.edge.reports,
            under_way: UnderWay::default(),
        };
        let store = state.store()?;
        store.touched().observe(MAILBOXES);
        Ok(Self {
            started_at: unix_millis(),
            pressure: Arc::new(Pressure::new(&store, topology.big.inbound_hourly)),
            store,
            topology,
            site: Arc::new(site),
            link: Handle::new(),
            importing: Arc::default(),
            changed: Arc::default(),
            due: tokio::sync::Notify::new(),
        })
    }

    /// Tells the edge what the topology now says of addresses, if that has changed.
    pub async fn settle(&self) -> Result<(), StoreError> {
        let policy = self.site.policy.clone();
        self.store.commit(move |txn| directory::settle(txn, &policy)).await.map(drop)
    }

    /// How much more mail can be taken from the edge.
    pub fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
    }

    /// Something was queued: tells the link, the gateways and the housekeeping.
    pub fn queued(&self) {
        self.wake_link();
        self.due.notify_one();
        self.changed.notify_one();
    }

    /// Tells the link to look for units on every lane: finding none is cheap.
    pub fn wake_link(&self) {
        Lane::ALL.into_iter().for_each(|lane| self.link.units(lane));
        self.link.bodies();
    }
}

/// A message made here, its body written and not yet named.
pub fn incoming(
    store: &Store,
    id: MessageId,
    channel: Channel,
    reverse_path: Option<String>,
    recipients: Vec<String>,
    content: &[u8],
) -> Result<Incoming, StoreError> {
    written(store, id, origin(channel, reverse_path, recipients, content), content)
}

/// Signs a message whose whole content is at hand, if it leaves by the edge; what stays inside is not signed. RSA takes
/// its time, so this is not for a thread that others wait for.
pub fn signed(
    store: &Store,
    site: &Site,
    incoming: Incoming,
    content: &[u8],
) -> Result<Incoming, StoreError> {
    if site.dkim.is_empty() || !mail::leaves(&store.read()?, site, &incoming, unix_millis())? {
        return Ok(incoming);
    }
    let signatures = site.dkim.sign(&incoming.origin, incoming.passes, content);
    Ok(Incoming { signatures, ..incoming })
}

/// Writes a message's body, which no commit names yet. `notes` is what a rebuild makes of it.
pub fn write_body(
    store: &Store,
    kind: u8,
    origin: &Origin,
    content: &[u8],
    notes: Vec<u8>,
) -> Result<Stored, StoreError> {
    let mut writer = store.body_writer(BodyId(origin.body).into(), kind);
    writer.write(&chunk::encode_all(content))?;
    writer.finish(notes)
}

/// The origin of a message made here: what its header and its envelope say.
pub fn origin(
    channel: Channel,
    reverse_path: Option<String>,
    recipients: Vec<String>,
    content: &[u8],
) -> Origin {
    traced_origin(channel, reverse_path, recipients, content, 0)
}

/// The origin of a message brought by an inside gateway: `content` begins with so many octets of our own trace.
pub fn traced_origin(
    channel: Channel,
    reverse_path: Option<String>,
    recipients: Vec<String>,
    content: &[u8],
    trace_bytes: usize,
) -> Origin {
    let facts = HeaderFacts::of(content.get(trace_bytes..).unwrap_or_default());
    let automatic = facts.is_automatic();
    let mailboxes = |from: Vec<shared::mime::Mailbox>| -> Vec<Mailbox> {
        from.into_iter().map(|m| Mailbox { name: m.name.unwrap_or_default(), address: m.address }).collect()
    };
    Origin {
        channel,
        accepted_at: unix_millis(),
        reverse_path,
        recipients: recipients.into_iter().map(OriginalRecipient::new).collect(),
        envelope_id: None,
        return_content: None,
        tls_wish: TlsWish::of(false, facts.tls_dispensable),
        from: mailboxes(facts.from),
        reply_to: mailboxes(facts.reply_to),
        sender: mailboxes(facts.sender),
        mail_followup_to: mailboxes(facts.mail_followup_to),
        to: mailboxes(facts.to),
        cc: mailboxes(facts.cc),
        message_id: facts.message_id,
        in_reply_to: facts.in_reply_to,
        references: facts.references,
        subject: facts.subject.unwrap_or_default(),
        language: facts.content_language,
        automatic,
        verdicts: Vec::new(),
        body_8bit: !content.is_ascii(),
        utf8_header: !content[..shared::mime::header_len(content)].is_ascii(),
        trace_bytes: u32::try_from(trace_bytes).unwrap_or(u32::MAX),
        size: content.len() as u64,
        body: *blake3::hash(content).as_bytes(),
    }
    .bounded()
}

/// Writes the body of a message whose origin is known.
pub fn written(store: &Store, id: MessageId, origin: Origin, content: &[u8]) -> Result<Incoming, StoreError> {
    let stored = write_body(store, BODY_KIND, &origin, content, rebuild_notes(id, &origin))?;
    let (parts, unparsed) = break_apart(Some(content));
    Ok(Incoming {
        id,
        origin,
        stored,
        parts,
        unparsed,
        passes: 0,
        ways: Ways::new(),
        tie: None,
        signatures: String::new(),
    })
}
