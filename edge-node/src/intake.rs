//! A message as it is taken in: compressed, sealed and written while it arrives, and made ours by one
//! commit. One from the Internet that is not larger than [`HELD_MAX`] waits in memory until its end, so that
//! what was found of it can be written before it; of larger ones only the record tells.
//!
//! No plain byte of it reaches the disk. The commit names the sealed body, queues the unit for big
//! and files it into the secondary mailboxes of its travelling recipients; the 250 is built from it.

use std::net::IpAddr;
use std::sync::Arc;

use link_proto::unit::HEAD_BYTES_MAX;
use shared::address::Address;
use shared::age;
use shared::aggregate::{DmarcFound, DmarcPolicy};
use shared::id::{MessageId, unix_millis};
use shared::inventory::origin_digest;
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::mime::{HeaderFacts, HeaderScan, Mailbox as HeaderMailbox, header_len, without};
use shared::origin::{Channel, Mailbox, Origin, OriginalRecipient, RECIPIENTS_BYTES_MAX};
use shared::seal::{BodySealer, FileKey, PublicKey};
use shared::smtp::{BodyType, Enhanced, Envelope, Facts, Recipient, Reply, received, return_path};
use shared::store::{BodyWriter, Committed, Row, Rows, StoreError, Txn};
use shared::tls_wish::TlsWish;
use shared::topology::Acknowledge;
use shared::trace;
use shared::unit::{Id, Inbound, ToBig, Window, encode};
use shared::verdict::{self, Disposition};
use tokio::sync::OwnedSemaphorePermit;

use crate::aggregate::{count_dmarc, is_told};
use crate::authentication::{Authenticator, Hashing, Sender, Verdicts};
use crate::login::Traveller;
use crate::node::{Known, Node};
use crate::record::{CopyRow, INBOUND_KIND, WINDOWS, big, copy_key, inbound_body};
use crate::repeats::{self, Fingerprint, Said, Unheard};
use crate::vouch;
use crate::windows;

const INTER_LANE: u8 = 2;
const BATCH_LANE: u8 = 3;
/// A sealed body up to this size travels inside its unit.
const INLINE_BYTES_MAX: u64 = 64 * 1024;

/// Octets of a message that wait in memory for what will be found of it.
const HELD_MAX: usize = 1024 * 1024;
/// Octets that are sealed and written before other sessions have their turn.
const WRITTEN_AT_ONCE: usize = 64 * 1024;

/// A message from the Internet, while it is not verified.
#[derive(Debug)]
struct Unverified {
    authenticator: Arc<Authenticator>,
    body: Body,
    /// Of one that is BINARYMIME, what has come.
    received: Option<Received>,
}

/// What signatures are over, where that is not the content.
#[derive(Debug, Default)]
struct Received {
    header: HeaderScan,
    /// Of the body, once that begins.
    hashing: Option<Hashing>,
}

#[derive(Debug)]
enum Body {
    /// All that has come waits in memory, and with a place it may be [`HELD_MAX`]; without one, its header may.
    Held(Vec<u8>, Option<OwnedSemaphorePermit>),
    /// It is written as it passes by, and hashed, unless what was received is.
    Passing(Option<Hashing>),
}

impl Received {
    async fn push(&mut self, octets: &[u8]) {
        let mut body = octets;
        if self.hashing.is_none() {
            let known = self.header.block().len();
            self.header.push(octets);
            if !self.header.has_ended() {
                return;
            }
            body = octets.get(self.header.block().len().saturating_sub(known)..).unwrap_or_default();
            self.hashing = Some(Hashing::of(self.header.block()));
        }
        if let Some(hashing) = &mut self.hashing {
            // Without threads to hash, the node goes down, and the message is refused at its end.
            hashing.push(body).await;
        }
    }
}

/// A message on its way in.
#[derive(Debug)]
pub struct Intake {
    node: Arc<Node>,
    id: MessageId,
    envelope: Envelope,
    client: IpAddr,
    /// Who submits it; `None` on port 25.
    submitted: Option<Traveller>,
    big: PublicKey,
    key: FileKey,
    sealer: BodySealer,
    hasher: blake3::Hasher,
    /// Of what has come, without our trace, by which a repeat is recognised.
    content_hasher: blake3::Hasher,
    writer: BodyWriter,
    header: HeaderScan,
    /// What was found of the client before there was a message.
    found: Vec<String>,
    unverified: Option<Unverified>,
    /// Our Received field.
    received: String,
    trace_bytes: u32,
    size: u64,
    sealed: Vec<u8>,
}

/// A message that is ours.
#[derive(Debug)]
pub struct Accepted {
    /// Its id.
    pub message: MessageId,
    /// What the 250 says behind it of where the message is.
    pub way: &'static str,
    /// The 250 that is to be said now.
    pub said: Said,
}

/// The store's refusal, as SMTP says it. Temporary: nothing was lost, and the client keeps the message.
pub fn refusal(error: &StoreError) -> Reply {
    match error {
        StoreError::Full => Reply::new(452, Enhanced(4, 3, 1), "the disk is full; try again later"),
        _ => Reply::new(451, Enhanced(4, 3, 0), "cannot take mail at the moment; try again later"),
    }
}

impl Intake {
    /// Opens a body, and writes the trace headers (RFC 5321 §4.4) before the content, unless that is to be verified by
    /// `authenticator`.
    pub fn begin(
        node: &Arc<Node>,
        mut envelope: Envelope,
        client: IpAddr,
        submitted: Option<Traveller>,
        authenticator: Option<Arc<Authenticator>>,
    ) -> Result<Self, Reply> {
        node.store.ready().map_err(|error| refusal(&error))?;
        let big = node.store.read().and_then(|snapshot| big(&snapshot)).map_err(|error| refusal(&error))?;
        let Some(sealing_key) = big.sealing_key else {
            return Err(Reply::new(451, Enhanced(4, 3, 2), "not in service yet; try again later"));
        };
        if !fit(&mut envelope.recipients) {
            let text = "too many recipients with long names; send the message to fewer at once";
            return Err(Reply::new(452, Enhanced(4, 5, 3), text));
        }
        let id = MessageId::generate();
        let key = FileKey::generate();
        let mut intake = Self {
            node: Arc::clone(node),
            id,
            client,
            submitted,
            big: PublicKey(sealing_key),
            sealer: BodySealer::new(&key),
            key,
            hasher: blake3::Hasher::new(),
            content_hasher: blake3::Hasher::new(),
            writer: node.store.body_writer(inbound_body(id), INBOUND_KIND),
            header: HeaderScan::default(),
            found: Vec::new(),
            unverified: authenticator.map(|authenticator| {
                let body = Body::Held(Vec::new(), authenticator.place());
                let received = (envelope.body == BodyType::Binary).then(Received::default);
                Unverified { authenticator, body, received }
            }),
            received: String::new(),
            trace_bytes: 0,
            size: 0,
            sealed: Vec::new(),
            envelope,
        };
        let seconds = i64::try_from(id.unix_millis() / 1000).unwrap_or(i64::MAX);
        let hostname = &node.topology.edge.hostname;
        intake.received = received(&intake.envelope, client, hostname, &id.to_string(), seconds);
        if intake.unverified.is_none() {
            intake.trace("").map_err(|error| refusal(&error))?;
        }
        Ok(intake)
    }

    /// Verdicts on the client, which go with the message.
    pub fn verdicts(&mut self, found: impl IntoIterator<Item = String>) {
        self.found.extend(found);
    }

    /// Writes our trace; `results` is the field that tells what was found.
    fn trace(&mut self, results: &str) -> Result<(), StoreError> {
        let path = match &self.submitted {
            None => return_path(self.envelope.reverse_path.as_ref()),
            Some(_) => String::new(),
        };
        let headers = format!("{path}{results}{}", self.received);
        self.trace_bytes = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        self.write(headers.as_bytes())
    }

    /// Takes what has come of a message that is BINARYMIME.
    pub async fn received(&mut self, bytes: &[u8]) {
        self.content_hasher.update(bytes);
        if let Some(received) = self.unverified.as_mut().and_then(|unverified| unverified.received.as_mut()) {
            received.push(bytes).await;
        }
    }

    /// Takes content. An error here is said at the end of it.
    pub async fn content(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.header.push(bytes);
        if self.envelope.body != BodyType::Binary {
            self.content_hasher.update(bytes);
        }
        match self.unverified.as_mut().map(|unverified| &mut unverified.body) {
            None => self.write(bytes),
            Some(Body::Passing(hashing)) => {
                if let Some(hashing) = hashing {
                    // Without threads to hash, the node goes down, and the message is refused at its end.
                    hashing.push(bytes).await;
                }
                self.write(bytes)
            }
            Some(Body::Held(held, place)) => {
                held.extend_from_slice(bytes);
                let bytes_max = if place.is_some() { HELD_MAX } else { 0 };
                if held.len() > bytes_max && self.header.has_ended() {
                    Box::pin(self.let_pass()).await
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Writes what was held, and holds no more of it.
    async fn let_pass(&mut self) -> Result<(), StoreError> {
        let Some(Unverified { authenticator, body: Body::Held(held, _), received }) = self.unverified.take()
        else {
            return Ok(());
        };
        let mut hashing = None;
        if received.is_none() {
            let (header, body) = held.split_at(header_len(&held));
            hashing.insert(Hashing::of(header)).push(body).await;
        }
        self.write_held(&authenticator, &held, "").await?;
        self.unverified = Some(Unverified { authenticator, body: Body::Passing(hashing), received });
        Ok(())
    }

    /// Writes our trace and what was held, without the verdicts that strangers have forged in our name.
    async fn write_held(
        &mut self,
        authenticator: &Authenticator,
        held: &[u8],
        results: &str,
    ) -> Result<(), StoreError> {
        let (header, body) = held.split_at(header_len(held));
        self.trace(results)?;
        self.write(&without(header, |field| authenticator.is_forged(field)))?;
        for piece in body.chunks(WRITTEN_AT_ONCE) {
            self.write(piece)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Verifies a message from the Internet, and writes what waited for that.
    async fn verify(&mut self) -> Result<Verdicts, Reply> {
        let before = std::mem::take(&mut self.found);
        let Some(Unverified { authenticator, body, received }) = self.unverified.take() else {
            return Ok(Verdicts { found: before, ..Verdicts::default() });
        };
        let (held, _place, passing) = match body {
            Body::Held(held, place) => (Some(Arc::new(held)), place, None),
            Body::Passing(hashing) => (None, None, hashing),
        };
        // What is verified: all of it, or its header and what was hashed behind that.
        let (content, hashing) = match (received, &held) {
            (Some(received), _) => (Arc::new(received.header.block().to_vec()), received.hashing),
            (None, Some(held)) => (Arc::clone(held), None),
            (None, None) => (Arc::new(self.header.block().to_vec()), passing),
        };
        let hashes = match hashing {
            Some(hashing) => Some(hashing.finish().await.ok_or_else(|| {
                Reply::new(451, Enhanced(4, 3, 2), "the server goes down; try again later")
            })?),
            None => None,
        };
        let sender = Sender {
            client: self.client,
            helo: self.envelope.helo.clone(),
            reverse_path: self.envelope.reverse_path.clone(),
        };
        let mut verdicts = authenticator.verify(sender, &content, hashes).await;
        verdicts.found.extend(before);
        if let Some(why) = &verdicts.refused {
            count(&self.node, verdicts.counted.take());
            let (client, found) = (self.client, verdict::in_short(&verdicts.found));
            tracing::info!(message = %self.id, %client, why, found, "refused by DMARC");
            return Err(Reply::new(550, Enhanced(5, 7, 26), why));
        }
        if let Some(held) = held {
            let results = authenticator.field(&verdicts.found);
            let written = self.write_held(&authenticator, &held, &results).await;
            written.map_err(|error| refusal(&error))?;
        }
        Ok(verdicts)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.size += bytes.len() as u64;
        self.hasher.update(bytes);
        self.sealer.push(bytes, &mut self.sealed);
        self.writer.write(&self.sealed)?;
        self.sealed.clear();
        Ok(())
    }

    /// Makes the message ours. What is returned is for the 250, which only a commit can give.
    pub async fn complete(mut self, facts: Facts) -> Result<Accepted, Reply> {
        let header = HeaderFacts::of(self.header.block());
        if let Some(by) = &self.submitted {
            self.node.still_open(by)?;
            self.check_author(&by.window, &header)?;
        }
        let fingerprint = self.fingerprint();
        let repeated = repeats::repeated(&self.node, &fingerprint).map_err(|error| refusal(&error))?;
        let said = Said::begin(&self.node, fingerprint);
        if let Some(first) = repeated {
            tracing::info!(message = %MessageId(first.message), client = %self.client, "a repeat of a message");
            let way = vouch::wait(&self.node, first, fingerprint).await?;
            if first.answered {
                let counted = repeats::count(&self.node, first.message).await;
                counted.map_err(|error| refusal(&error))?;
            }
            return Ok(Accepted { message: MessageId(first.message), way, said });
        }
        let verdicts = self.verify().await?;
        let windows = match verdicts.disposition {
            // It is in Junk, and that is at home.
            Disposition::Quarantine => Vec::new(),
            Disposition::Deliver | Disposition::Mark => self.windows().map_err(|error| refusal(&error))?,
        };
        let mut accepted_from = format!("accepted by the edge from {}", self.client);
        if !verdicts.found.is_empty() {
            accepted_from += &format!("; {}", verdict::in_short(&verdicts.found));
        }
        let counted = verdicts.counted;
        let origin = self.origin(header, &facts, verdicts.found).bounded();
        self.sealer.finish(&mut self.sealed);
        self.writer.write(&self.sealed).map_err(|error| refusal(&error))?;
        let unsealable = |_| Reply::new(451, Enhanced(4, 3, 5), "cannot seal the message; try again later");
        let mut unit = Inbound {
            message: self.id.0,
            wrapped_key: self.node.wrap(&self.key, &self.big, self.id).map_err(unsealable)?,
            sealed_origin: self.key.seal_note(&origin.encode()),
            origin_digest: origin_digest(&self.node.directory_key, &origin),
            submitted: self.submitted.as_ref().map(|by| by.window.window),
            filed: windows.iter().map(|(window, _)| *window).collect(),
        };
        let head = encode(&ToBig::Inbound(unit.clone()));
        if head.len() > HEAD_BYTES_MAX {
            return Err(Reply::new(552, Enhanced(5, 3, 4), "too many recipients, or a header too large"));
        }
        let (id, size, node) = (self.id, self.size, self.node);
        let stored = self.writer.finish(head).map_err(|error| refusal(&error))?;
        let key = stored.key().0;
        let (lane, body) = match stored.length() {
            0..=INLINE_BYTES_MAX => (INTER_LANE, QueuedBody::Inline { key }),
            _ => (BATCH_LANE, QueuedBody::Ahead { key }),
        };
        // From here on a confirm is recorded at once.
        let waits = node.topology.edge.ack != Acknowledge::Local;
        let _vouching = waits.then(|| node.vouching());
        let committed: Result<Committed<Unheard>, StoreError> = node
            .store
            .commit(move |txn| {
                txn.keep_body(&stored)?;
                // A window that has ended meanwhile gets nothing, nor one that others have filled; big sees to the
                // rest.
                let windows: Vec<_> = windows
                    .into_iter()
                    .map(|window| admitted(txn, window, size))
                    .collect::<Result<_, _>>()?;
                let windows: Vec<_> = windows.into_iter().flatten().collect();
                unit.filed = windows.iter().map(|(window, _)| *window).collect();
                let head = encode(&ToBig::Inbound(unit));
                let unit = QueuedUnit { id: id.0, lane, after: None, head, body };
                let number = lane::queue(txn, &unit)?;
                let now = unix_millis();
                let unheard = Unheard { message: id.0, lane, number, at: age::lived(txn)?, answered: !waits };
                repeats::remember(txn, &fingerprint, &unheard)?;
                for (window, wrapped_key) in windows {
                    let body = stored.key();
                    txn.reference_body(body)?;
                    let row = CopyRow {
                        body: body.0,
                        wrapped_key,
                        size,
                        retrieved: false,
                        seen: false,
                        again: false,
                        after: Some(id.0),
                        hidden: waits,
                    };
                    let key = copy_key(&window, id, 0);
                    if row.hidden {
                        vouch::hide(txn, &window, &key)?;
                    }
                    windows::put_copy(txn, &key, &row)?;
                }
                trace::note(txn, id, now, accepted_from)?;
                Ok(unheard)
            })
            .await;
        let durable = committed.map_err(|error| refusal(&error))?;
        count(&node, counted);
        node.queued(lane);
        let way = vouch::wait(&node, *durable, fingerprint).await?;
        Ok(Accepted { message: MessageId(durable.message), way, said })
    }

    fn fingerprint(&self) -> Fingerprint {
        let by = self.submitted.as_ref().map(|by| &by.window.window);
        repeats::fingerprint(&self.envelope, self.client, by, &self.content_hasher.finalize())
    }

    /// The author of a submission speaks only as themselves (RFC 6409 §6.1).
    fn check_author(&self, window: &Window, header: &HeaderFacts) -> Result<(), Reply> {
        let own = |mailbox: &HeaderMailbox| {
            let address: Result<Address, _> = mailbox.address.parse();
            address.is_ok_and(|address| window.senders.contains(&self.node.address_hash(&address)))
        };
        let ambiguous = ["From", "Sender"].iter().find(|name| header.duplicated.iter().any(|d| d == *name));
        if let Some(name) = ambiguous {
            let text = format!("the header has more than one {name}: send it with one");
            return Err(Reply::new(550, Enhanced(5, 6, 0), &text));
        }
        if header.cut {
            return Err(Reply::new(550, Enhanced(5, 6, 0), "the header is too large to be checked"));
        }
        if header.from.is_empty() || !header.from.iter().chain(&header.sender).all(own) {
            return Err(Reply::new(
                550,
                Enhanced(5, 7, 1),
                "From is not an address of yours: send as yourself",
            ));
        }
        Ok(())
    }

    /// The open windows of the recipients, and the file key wrapped to each.
    fn windows(&self) -> Result<Vec<Copied>, StoreError> {
        // A traveller's own submission never short-cuts past big.
        if self.submitted.is_some() {
            return Ok(Vec::new());
        }
        let mut filed: Vec<Copied> = Vec::new();
        for recipient in &self.envelope.recipients {
            let Known::Yes(Some(person), _) = self.node.lookup(&recipient.address)? else { continue };
            let Some(window) = self.node.window_of_person(&person)? else { continue };
            // Big tells the traveller of what is too large, and sends the rest when there is room. Whether there still
            // is some is asked again in the commit.
            if !windows::has_room(&self.node.store.read()?, &window, self.size)? {
                continue;
            }
            if filed.iter().all(|(known, _)| *known != window.window)
                && let Ok(wrapped_key) = self.node.wrap(&self.key, &PublicKey(window.public_key), self.id)
            {
                filed.push((window.window, wrapped_key));
            }
        }
        Ok(filed)
    }

    fn origin(&self, header: HeaderFacts, facts: &Facts, verdicts: Vec<String>) -> Origin {
        let automatic = header.is_automatic();
        let channel = match &self.submitted {
            Some(by) => Channel::Submission { window: by.window.window },
            None => Channel::Reception {
                helo: self.envelope.helo.clone(),
                client: self.client.to_string(),
                tls: self.envelope.tls,
            },
        };
        let recipient = |recipient: &Recipient| OriginalRecipient {
            address: recipient.address.to_string(),
            original: recipient.original.clone(),
            notify: recipient.notify.map(|notify| notify.to_string()),
        };
        Origin {
            channel,
            accepted_at: self.id.unix_millis(),
            reverse_path: self.envelope.reverse_path.as_ref().map(Address::to_string),
            recipients: self.envelope.recipients.iter().map(recipient).collect(),
            envelope_id: self.envelope.envelope_id.clone(),
            return_content: self.envelope.returns.map(|returns| returns.as_str().to_owned()),
            tls_wish: TlsWish::of(self.envelope.require_tls, header.tls_dispensable),
            from: mailboxes(header.from),
            reply_to: mailboxes(header.reply_to),
            sender: mailboxes(header.sender),
            mail_followup_to: mailboxes(header.mail_followup_to),
            to: mailboxes(header.to),
            cc: mailboxes(header.cc),
            message_id: header.message_id,
            in_reply_to: header.in_reply_to,
            references: header.references,
            subject: header.subject.unwrap_or_default(),
            language: header.content_language,
            automatic,
            verdicts,
            body_8bit: facts.eight_bit,
            utf8_header: self.envelope.smtputf8 && facts.header_eight_bit,
            trace_bytes: self.trace_bytes,
            size: self.size,
            body: *self.hasher.finalize().as_bytes(),
        }
    }
}

/// Has recipients fit one unit, whether they do then: the mail is worth more than what its recipients were called.
fn fit(recipients: &mut [Recipient]) -> bool {
    let octets = |recipients: &[Recipient]| recipients.iter().map(named_octets).sum::<usize>();
    if octets(recipients) > RECIPIENTS_BYTES_MAX {
        recipients.iter_mut().for_each(|recipient| recipient.original = None);
    }
    octets(recipients) <= RECIPIENTS_BYTES_MAX
}

/// Octets of a recipient, with what is asked of it.
fn named_octets(recipient: &Recipient) -> usize {
    let notify = recipient.notify.map_or(0, |notify| notify.to_string().len());
    recipient.address.to_string().len() + notify + recipient.original.as_ref().map_or(0, String::len)
}

/// Counts what was found of a message, if its author's domain may want to be told of it. It waits for another commit: a
/// power cut costs a count.
fn count(node: &Node, counted: Option<Box<(DmarcPolicy, DmarcFound)>>) {
    let edge = &node.topology.edge;
    let is_counted =
        |found: &DmarcFound| edge.reports.dmarc && is_told(found, edge.outbound.private_addresses);
    let Some(counted) = counted.filter(|counted| is_counted(&counted.1)) else { return };
    let now = unix_millis();
    let counting = node.store.commit_lazily(
        move |txn| {
            let (policy, found) = *counted;
            count_dmarc(txn, &policy, &found, now)
        },
        || {},
    );
    if let Err(error) = counting {
        tracing::warn!(%error, "a message could not be counted for a report of DMARC");
    }
}

/// A window that a message is filed into, and its file key wrapped to that.
type Copied = (Id, Vec<u8>);

/// The window, if it is there and has room for `size` octets.
fn admitted(txn: &Txn<'_>, copied: Copied, size: u64) -> Result<Option<Copied>, StoreError> {
    let Some(window) = txn.get::<Window>(WINDOWS, &copied.0)? else { return Ok(None) };
    Ok(windows::has_room(txn, &window, size)?.then_some(copied))
}

fn mailboxes(from: Vec<HeaderMailbox>) -> Vec<Mailbox> {
    from.into_iter()
        .map(|mailbox| Mailbox { name: mailbox.name.unwrap_or_default(), address: mailbox.address })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recipients_were_called_is_given_up_before_the_mail_is() {
        let recipient = |original: usize| Recipient {
            original: Some(format!("rfc822;{}", "o".repeat(original))),
            ..Recipient::from("alice@example.com".parse::<Address>().expect("an address"))
        };
        let mut few = vec![recipient(400); 100];
        assert!(fit(&mut few) && few.iter().all(|recipient| recipient.original.is_some()));
        let mut many = vec![recipient(400); 1000];
        assert!(fit(&mut many) && many.iter().all(|recipient| recipient.original.is_none()));
        let mut too_many = vec![recipient(1); RECIPIENTS_BYTES_MAX / "alice@example.com".len() + 1];
        assert!(!fit(&mut too_many));
    }
}
