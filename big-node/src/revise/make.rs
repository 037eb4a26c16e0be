//! Composing a revision: a complete new message with the identity of the one it is of.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::address::Address;
use shared::id::{MessageId, unix_millis};
use shared::mime::{self, Draft, DraftMailbox, Identity, NewAttachment};
use shared::origin::{Mailbox, Origin};
use shared::render::when;
use shared::store::{Row, Rows, Snapshot, Store, StoreError, Txn};
use shared::unit::{ReviseMode, revision_ordinal};

use super::{REVISION_KIND, enter, may_be_revised, own};
use crate::desk;
use crate::directory;
use crate::error::Refused;
use crate::mail::{self, Site};
use crate::node;
use crate::part::{PartPath, break_apart};
use crate::record::{Message, Person, RECIPIENTS, Recipient, RevisedRow, Revision};
use crate::request::Status;

/// Largest message that is read whole into memory.
const READ_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Characters of a reason.
const REASON_MAX: usize = 500;
/// Recipients that a refusal names.
const NAMED_MAX: usize = 10;
/// How often a revision without a base is tried again because another one came before it.
const TRIES_MAX: usize = 5;

/// What is to be made of a message.
#[derive(Clone, Debug)]
pub struct Amendment {
    /// What is done with it.
    pub mode: ReviseMode,
    /// For which recipients, by address or name; none for all.
    pub recipients: Vec<String>,
    /// Another subject.
    pub subject: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The revision that its author has before them; `None` is the latest.
    pub base: Option<u32>,
    /// The new text, or what is added.
    pub text: String,
    /// In the place of those there are; with `append` besides them. None keeps those.
    pub attachments: Vec<NewAttachment>,
}

/// Revises a message that the person has sent. `besides` is done in the same commit.
pub async fn amend(
    store: &Store,
    site: &Arc<Site>,
    author: &Person,
    id: MessageId,
    amendment: Amendment,
    besides: impl Fn(&mut Txn<'_>) -> Result<(), Refused> + Clone + Send + 'static,
) -> Result<Status, Refused> {
    if amendment.mode != ReviseMode::Withdraw
        && amendment.text.trim().is_empty()
        && amendment.attachments.is_empty()
    {
        return Err(Refused::new("a revision needs a text; `--withdraw` takes the message back"));
    }
    if amendment.reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_MAX) {
        return Err(Refused::new(format!("a reason has at most {REASON_MAX} characters")));
    }
    for attempt in 1.. {
        let snapshot = store.read()?;
        let (revisions, recipients) = (super::revisions(&snapshot, id)?.len(), super::reach(&snapshot, id)?);
        match amend_as_of(store, site, snapshot, author, id, (&amendment, besides.clone())).await {
            Ok(()) => break,
            Err(Refused::Asked(why)) if attempt < TRIES_MAX => {
                // Somebody was faster: the author who has named no base means whatever is the latest.
                let rows = store.read()?;
                let has_base = amendment.base.is_some();
                let was_revised = !has_base && super::revisions(&rows, id)?.len() > revisions;
                if !was_revised && super::reach(&rows, id)? == recipients {
                    return Err(Refused::Asked(why));
                }
            }
            Err(refused) => return Err(refused),
        }
    }
    status(store, id)
}

/// Revises a message as it was in `rows`. Refused if something has come between.
pub(crate) async fn amend_as_of(
    store: &Store,
    site: &Arc<Site>,
    rows: Snapshot,
    author: &Person,
    id: MessageId,
    (amendment, besides): (&Amendment, impl Fn(&mut Txn<'_>) -> Result<(), Refused> + Send + 'static),
) -> Result<(), Refused> {
    // Attachments may be large: composing and hashing them takes a while.
    let (revision, content) =
        tokio::task::block_in_place(|| revision(store, site, &rows, author, id, amendment))?;
    let notes = [id.0.as_slice(), &revision.encode()].concat();
    let stored = tokio::task::block_in_place(|| {
        node::write_body(store, REVISION_KIND, &revision.origin, &content, notes)
    })?;
    let signatures = match leaves(&rows, id, &revision)? {
        true => tokio::task::block_in_place(|| site.dkim.sign(&revision.origin, 0, &content)),
        false => String::new(),
    };
    let (site, by, recipients) = (Arc::clone(site), author.clone(), super::reach(&rows, id)?);
    drop(rows);
    let entered = store.commit(move |txn| {
        enter(txn, &site, &by, (id, revision, &stored, &signatures), recipients, unix_millis())?;
        besides(txn)
    });
    entered.await.map(drop)
}

/// Whether somebody may still get the text of a revision by the edge.
fn leaves(rows: &impl Rows, id: MessageId, revision: &Revision) -> Result<bool, Refused> {
    if revision.mode == ReviseMode::Withdraw {
        return Ok(false);
    }
    for recipient in &revision.scope {
        let row = rows.get::<Recipient>(RECIPIENTS, &mail::recipient_key(id, *recipient))?;
        if row.is_some_and(|row| row.person.is_none() && row.gateway.is_none() && row.state.waits()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where each recipient's copy of a message is, and what its last revision came to.
pub(super) fn status(store: &Store, id: MessageId) -> Result<Status, Refused> {
    let rows = store.read()?;
    let latest = super::revisions(&rows, id)?.pop();
    let subject = match latest {
        Some(latest) => latest.origin.subject,
        None => mail::shown(&rows, id, 0)?.map(|message| message.origin.subject).unwrap_or_default(),
    };
    Ok(Status { id: id.to_string(), subject, late: false, recipients: desk::recipients_of(&rows, id)? })
}

/// The next revision of a message, and its content.
fn revision(
    store: &Store,
    site: &Site,
    rows: &Snapshot,
    author: &Person,
    id: MessageId,
    amendment: &Amendment,
) -> Result<(Revision, Vec<u8>), Refused> {
    let (original, earlier) = own(rows, author, id)?;
    may_be_revised(id, &earlier, amendment.base)?;
    let latest = earlier.last().map_or(0, |revision| revision.number);
    let (scope, for_all) = scope(site, rows, author, id, &amendment.recipients)?;
    let texts = texts(rows, id, &scope)?;
    let base = base(rows, id, &original, earlier, &texts, amendment)?;
    let now = unix_millis();
    let content = mime::compose_as(
        &draft(store, author, id, &original, &base, amendment, now)?,
        &Identity { message_id: original.origin.message_id.clone(), supersedes: None },
    );
    desk::within_size(site, &content)?;
    let recipients = original.origin.recipients.iter().map(|recipient| recipient.address.clone()).collect();
    let own = &original.origin;
    let origin = Origin {
        accepted_at: own.accepted_at,
        envelope_id: own.envelope_id.clone(),
        return_content: own.return_content.clone(),
        tls_wish: own.tls_wish,
        recipients: own.recipients.clone(),
        ..node::origin(own.channel.clone(), own.reverse_path.clone(), recipients, &content)
    };
    let (parts, unparsed) = break_apart(Some(&content));
    let revision = Revision {
        number: super::next_number(rows, latest)?,
        author: author.id,
        at: now,
        mode: amendment.mode,
        reason: amendment.reason.clone(),
        base: latest,
        scope,
        for_all,
        origin,
        parts,
        unparsed,
        holds: true,
    };
    Ok((revision, content))
}

/// The indexes of the recipients that are named, and whether those are all.
fn scope(
    site: &Site,
    rows: &impl Rows,
    author: &Person,
    id: MessageId,
    named: &[String],
) -> Result<(Vec<u32>, bool), Refused> {
    let all = rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?;
    let all: Vec<_> = all.into_iter().map(|(key, row)| (super::index_of(&key), row)).collect();
    if all.is_empty() {
        return Err(Refused::new(format!("{id} went to nobody, so there is nothing to revise")));
    }
    let mut scope = Vec::new();
    for text in named {
        let address = directory::resolve(rows, &site.policy, Some(author), text)?.address.canonical();
        let is_meant = |row: &Recipient| {
            let is_it =
                |written: &str| written.parse::<Address>().is_ok_and(|other| other.canonical() == address);
            // Where a person forwards to is not found out by naming it.
            let reached = row.forwarder.as_deref().unwrap_or(&row.address);
            is_it(reached) || row.via.as_deref().is_some_and(is_it)
        };
        let meant: Vec<u32> = all.iter().filter(|(_, row)| is_meant(row)).map(|(index, _)| *index).collect();
        if meant.is_empty() {
            let text = format!("{id} did not go to {text}; `mail status {id}` shows its recipients");
            return Err(Refused::new(text));
        }
        scope.extend(meant);
    }
    scope.sort_unstable();
    scope.dedup();
    let for_all = scope.is_empty() || scope.len() == all.len();
    Ok((if for_all { all.into_iter().map(|(index, _)| index).collect() } else { scope }, for_all))
}

/// The texts that were for those in `scope` from whom the message was not taken back, by the revision's number, and
/// for whom each was. One that took it back has nothing that others are to read.
fn texts(rows: &impl Rows, id: MessageId, scope: &[u32]) -> Result<BTreeMap<u32, Vec<u32>>, StoreError> {
    let mut texts: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for recipient in scope {
        if !super::taken_back(rows, id, *recipient, u32::MAX)? {
            let is_text = |row: &RevisedRow| row.mode != ReviseMode::Withdraw;
            let number = super::last_for(rows, id, *recipient, u32::MAX, is_text)?;
            texts.entry(number).or_default().push(*recipient);
        }
    }
    Ok(texts)
}

/// What a revision is made from: the text that all it is for have. If they have different ones, the original, which
/// they all had; and what only some of them have goes to no other.
fn base(
    rows: &impl Rows,
    id: MessageId,
    original: &Message,
    earlier: Vec<Revision>,
    texts: &BTreeMap<u32, Vec<u32>>,
    amendment: &Amendment,
) -> Result<Message, Refused> {
    let mut had: Vec<Message> = earlier
        .into_iter()
        .filter(|revision| texts.contains_key(&revision.number))
        .map(|revision| revision.of(original))
        .collect();
    if texts.len() <= 1 {
        return Ok(had.pop().unwrap_or_else(|| original.clone()));
    }
    if texts.contains_key(&0) {
        had.push(original.clone());
    }
    let has_attachments = |message: &Message| !message.parts.is_empty() || message.unparsed.is_some();
    let keeps = match amendment.mode {
        ReviseMode::Append => true,
        ReviseMode::Replace => amendment.attachments.is_empty() && had.iter().any(has_attachments),
        ReviseMode::Withdraw => false,
    };
    match keeps {
        true => Err(they_differ(rows, id, texts)?),
        false => Ok(original.clone()),
    }
}

/// Why nothing is added to several texts at once, nor kept of them.
fn they_differ(
    rows: &impl Rows,
    id: MessageId,
    texts: &BTreeMap<u32, Vec<u32>>,
) -> Result<Refused, StoreError> {
    let mut named = Vec::new();
    let all = texts.iter().flat_map(|(number, whose)| whose.iter().map(move |recipient| (number, recipient)));
    for (number, recipient) in all.clone().take(NAMED_MAX) {
        if let Some(row) = rows.get::<Recipient>(RECIPIENTS, &mail::recipient_key(id, *recipient))? {
            let who = row.forwarder.unwrap_or(row.address);
            named.push(format!("{who} has revision {}", revision_ordinal(*number)));
        }
    }
    let more = all.count().saturating_sub(NAMED_MAX);
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    Ok(Refused::new(format!(
        "the recipients of {id} have different texts ({}), and what was for one of them is not for another; revise it \
         for those who have the same (`--to ADDRESS`), or replace it for all with the attachments it is to have",
        named.join(", ")
    )))
}

fn draft(
    store: &Store,
    author: &Person,
    id: MessageId,
    original: &Message,
    base: &Message,
    amendment: &Amendment,
    now: u64,
) -> Result<Draft, Refused> {
    let content = mail::content(store.body(base.body())?, base, READ_BYTES_MAX)?;
    let given = amendment.attachments.clone();
    let keeps = || {
        let unparsed = base.unparsed.as_ref().map(|why| {
            Refused::new(format!(
                "its attachments could not be told apart ({why}); name those that it is to have"
            ))
        });
        unparsed.map_or_else(|| Ok(attachments_of(&content, base)), Err)
    };
    let (text, attachments) = match amendment.mode {
        ReviseMode::Replace => (amendment.text.clone(), if given.is_empty() { keeps()? } else { given }),
        ReviseMode::Append => {
            let before = mime::text_of(&content);
            let text = format!("{}\n\n[Added on {} UTC]\n\n{}", before.trim_end(), when(now), amendment.text);
            (text, [keeps()?, given].concat())
        }
        ReviseMode::Withdraw => {
            let mut text = format!("{} has withdrawn this message on {} UTC.\n", author.display, when(now));
            if let Some(reason) = &amendment.reason {
                text += &format!("\nReason: {reason}\n");
            }
            (text, Vec::new())
        }
    };
    let origin = &original.origin;
    Ok(Draft {
        id,
        from: from(author, origin)?,
        to: written(&origin.to),
        cc: written(&origin.cc),
        subject: amendment.subject.clone().unwrap_or_else(|| base.origin.subject.clone()),
        date: i64::try_from(origin.accepted_at / 1000).unwrap_or(i64::MAX),
        in_reply_to: origin.in_reply_to.first().cloned(),
        references: origin.references.clone(),
        text,
        attachments,
        entities: Vec::new(),
    })
}

/// As whom the author wrote it.
pub(super) fn from(author: &Person, origin: &Origin) -> Result<DraftMailbox, Refused> {
    let as_written = written(&origin.from).into_iter().next();
    let nowhere = || Refused::new(format!("{} has no address", author.name));
    as_written.map_or_else(
        || {
            let address = author.addresses.first().ok_or_else(nowhere)?;
            let address = address.parse().map_err(|error| Refused::new(format!("{address}: {error}")))?;
            Ok(DraftMailbox { name: Some(author.display.clone()), address })
        },
        Ok,
    )
}

/// Mailboxes as they can be written again.
pub(super) fn written(mailboxes: &[Mailbox]) -> Vec<DraftMailbox> {
    let mailbox = |mailbox: &Mailbox| {
        let name = (!mailbox.name.is_empty()).then(|| mailbox.name.clone());
        Some(DraftMailbox { name, address: mailbox.address.parse().ok()? })
    };
    mailboxes.iter().filter_map(mailbox).collect()
}

/// The attachments of a message, to be attached again.
pub(super) fn attachments_of(content: &[u8], message: &Message) -> Vec<NewAttachment> {
    let opened = message.parts.iter().filter_map(|part| {
        let opened = PartPath::from(part.number).open(content, &message.parts)?;
        let name = mime::file_name(part.name.as_deref(), &part.content_type, &part.number.to_string());
        Some(NewAttachment { name, content_type: part.content_type.clone(), content: opened.octets })
    });
    opened.collect()
}
