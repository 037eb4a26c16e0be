//! Notices: what those outside get who have the old text already. One for each revision, in one commit with the
//! note that it is owed no more.

use std::sync::Arc;

use shared::id::{MessageId, unix_millis};
use shared::mime::{self, Draft, Identity};
use shared::origin::{Channel, Origin};
use shared::store::{Rows, Store, StoreError, Txn};
use shared::trace;
use shared::unit::{ReviseMode, ReviseResult, revision_ordinal};

use super::index_of;
use super::make::{attachments_of, from, written};
use super::result::decided_late;
use crate::directory::{self, Way};
use crate::error::Refused;
use crate::mail::{self, Site, Ways};
use crate::node;
use crate::record::{
    MESSAGES, Message, NOTICES, Named, Person, RECIPIENTS, REVISED, REVISIONS, Recipient, RevisedRow,
    Revision, revised_key, revision_key,
};

const AT_ONCE: usize = 100;
/// Largest message that is read whole into memory.
const READ_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Writes the notices that are owed.
pub async fn write_owed(store: &Store, site: &Arc<Site>) -> Result<(), Refused> {
    for (key, Named(id)) in store.read()?.prefix::<Named>(NOTICES, &[], AT_ONCE)? {
        // One that cannot be written does not keep the others waiting.
        if let Err(error) = write_one(store, site, MessageId(id), index_of(&key)).await {
            tracing::warn!(message = %MessageId(id), %error, "a notice of a revision could not be sent yet");
        }
    }
    Ok(())
}

async fn write_one(store: &Store, site: &Arc<Site>, id: MessageId, number: u32) -> Result<(), Refused> {
    let snapshot = store.read()?;
    let original = snapshot.get::<Message>(MESSAGES, &id.0)?;
    let revision = snapshot.get::<Revision>(REVISIONS, &revision_key(id, number))?;
    let (Some(original), Some(revision)) = (original, revision) else { return Ok(()) };
    let owed = owed(&snapshot, id, number)?;
    let author = directory::by_id(&snapshot, &revision.author)?.filter(|_| !owed.is_empty());
    let composed = tokio::task::block_in_place(|| {
        author.as_ref().map(|author| compose(store, site, author, id, &original, revision, &owed)).transpose()
    });
    // Without its author or its text there is nothing to send, and nobody waits for it.
    let notice = match composed {
        Ok(notice) => notice,
        Err(Refused::Store(error)) => {
            tracing::warn!(message = %id, %error, "a revision cannot be read: no notice of it is sent");
            None
        }
        Err(refused) => return Err(refused),
    };
    let (site, recipients) = (Arc::clone(site), owed.into_iter().map(|(recipient, _)| recipient));
    let recipients: Vec<u32> = recipients.collect();
    let sent = store.commit(move |txn| {
        let now = unix_millis();
        let (result, text) = match (author, notice) {
            (Some(author), Some(notice)) => {
                let sent_as = notice.id;
                let before = mail::entry(txn, &author.id, id)?.is_some_and(|(_, entry)| entry.answered);
                mail::send(txn, &site, notice, &author, false, now)?;
                // It names the message, but it is no answer to it.
                mail::mark(txn, &author.id, id, |entry| entry.answered = before)?;
                trace::note(
                    txn,
                    id,
                    now,
                    format!("revision {}: a notice was sent as {sent_as}", revision_ordinal(number)),
                )?;
                (ReviseResult::NoticeSent, format!("it had left already; a notice was sent as {sent_as}"))
            }
            _ => (ReviseResult::TooLate, "it had left already".to_owned()),
        };
        settle(txn, id, number, &recipients, result, &text, now)
    });
    sent.await.map(drop)
}

/// Records that notices were sent, or will not be. More may be owed since they were written.
fn settle(
    txn: &mut Txn<'_>,
    id: MessageId,
    number: u32,
    recipients: &[u32],
    result: ReviseResult,
    text: &str,
    now: u64,
) -> Result<(), Refused> {
    for recipient in recipients {
        decided_late(txn, id, *recipient, number, (result, text), now)?;
    }
    match owed(txn, id, number)?.is_empty() {
        true => Ok(txn.delete(NOTICES, &revision_key(id, number))?),
        false => Ok(()),
    }
}

/// Who is owed a notice of a revision: also whoever a redirect has made a recipient since.
fn owed(rows: &impl Rows, id: MessageId, number: u32) -> Result<Vec<(u32, Recipient)>, StoreError> {
    let mut owed = Vec::new();
    for (key, who) in rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)? {
        let recipient = index_of(&key);
        let row = rows.get::<RevisedRow>(REVISED, &revised_key(id, recipient, number))?;
        if row.is_some_and(|row| row.notice_owed) {
            owed.push((recipient, who));
        }
    }
    Ok(owed)
}

fn compose(
    store: &Store,
    site: &Site,
    author: &Person,
    id: MessageId,
    original: &Message,
    revision: Revision,
    owed: &[(u32, Recipient)],
) -> Result<mail::Incoming, Refused> {
    let (mode, reason, message) = (revision.mode, revision.reason.clone(), revision.of(original));
    let content = mail::content(store.body(message.body())?, &message, READ_BYTES_MAX)?;
    let (word, text) = match mode {
        ReviseMode::Withdraw => ("Withdrawn", mime::text_of(&content)),
        ReviseMode::Replace | ReviseMode::Append => {
            let mut text = String::from(
                "This takes the place of the message of the same subject that was sent before.\n",
            );
            if let Some(reason) = reason {
                text += &format!("Reason: {reason}\n");
            }
            ("Amended", format!("{text}\n{}", mime::text_of(&content)))
        }
    };
    let own = &original.origin;
    let draft = Draft {
        id: MessageId::generate(),
        from: from(author, own)?,
        to: written(&own.to),
        cc: written(&own.cc),
        subject: format!("{word}: {}", message.origin.subject),
        date: i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX),
        in_reply_to: own.message_id.clone(),
        references: own.references.iter().chain(&own.message_id).cloned().collect(),
        text,
        attachments: attachments_of(&content, &message),
        entities: Vec::new(),
    };
    let content =
        mime::compose_as(&draft, &Identity { message_id: None, supersedes: own.message_id.clone() });
    let (mut recipients, mut ways) = (Vec::new(), Ways::new());
    for (_, who) in owed {
        // The author sees whom it goes to. Where a person forwards to is theirs to tell: it goes the same way again.
        if let Some(forwarder) = &who.forwarder {
            if !recipients.contains(forwarder) {
                recipients.push(forwarder.clone());
            }
            continue;
        }
        recipients.push(who.address.clone());
        if let Some(gateway) = &who.gateway {
            ways.insert(who.address.clone(), Way::Inside(gateway.clone()));
        }
    }
    tracing::debug!(message = %id, notice = %draft.id, "a notice of a revision");
    let channel = Channel::Desk { person: author.id };
    let reverse_path = Some(draft.from.address.to_string());
    // It holds the text of the message, which is no less secret for that.
    let origin = node::origin(channel, reverse_path, recipients, &content);
    let origin = Origin { tls_wish: own.tls_wish, ..origin };
    let notice = node::written(store, draft.id, origin, &content)?;
    Ok(node::signed(store, site, mail::Incoming { ways, ..notice }, &content)?)
}
