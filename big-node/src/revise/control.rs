//! Revising from the road: a traveller answers their own message, and sends the answer to their own address with
//! the tag `+withdraw` or `+replace`. It is taken in by the commit of any submission, carried out by the
//! housekeeping, and answered by one short message. From port 25 such mail is ordinary mail.

use std::sync::Arc;

use shared::address::Address;
use shared::id::{MessageId, unix_millis};
use shared::mime::{self, Draft, DraftMailbox};
use shared::origin::{Channel, Origin};
use shared::render::word;
use shared::store::{Rows, Store, StoreError, Txn};
use shared::trace;
use shared::unit::ReviseMode;

use super::make::status;
use super::{Amendment, amend};
use crate::directory;
use crate::error::Refused;
use crate::mail::{self, Incoming, Site};
use crate::node::{incoming, signed};
use crate::privacy;
use crate::record::{
    CONTROLS, ControlDone, ControlRow, MESSAGE_IDS, MESSAGES, Message, Named, Person, message_id_key,
};
use crate::request::Status;

const AT_ONCE: usize = 100;
/// Largest request that is read.
const READ_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a submission asks for; `None` for ordinary mail.
pub fn asked(origin: &Origin, author: &Person) -> Option<ReviseMode> {
    let [recipient] = origin.recipients.as_slice() else { return None };
    let address: Address = recipient.address.parse().ok()?;
    let (base, local) = (address.without_tag()?, address.local_part().to_ascii_lowercase());
    if !author.addresses.contains(&base.canonical()) {
        return None;
    }
    match local.split_once('+')?.1 {
        "withdraw" => Some(ReviseMode::Withdraw),
        "replace" => Some(ReviseMode::Replace),
        _ => None,
    }
}

/// Takes a request in; it is carried out later, once. Its row holds the body.
pub fn take(
    txn: &mut Txn<'_>,
    incoming: Incoming,
    author: &Person,
    mode: ReviseMode,
    now: u64,
) -> Result<(), StoreError> {
    let id = incoming.id;
    mail::keep(txn, incoming, now)?;
    trace::note(txn, id, now, format!("{} asks to {} a message", author.name, word(&mode)))?;
    txn.put(CONTROLS, &id.0, &ControlRow { author: author.id, mode, done: None })
}

/// Carries out what was asked, and tells what came of it.
pub async fn carry_out(store: &Store, site: &Arc<Site>, postmaster: &Address) -> Result<(), Refused> {
    for (key, row) in store.read()?.prefix::<ControlRow>(CONTROLS, &[], AT_ONCE)? {
        let id = MessageId(key.first_chunk().copied().unwrap_or_default());
        // One that cannot be done now does not keep the others waiting.
        if let Err(error) = carry_out_one(store, site, postmaster, id, row).await {
            tracing::warn!(message = %id, %error, "a traveller's request could not be carried out yet");
        }
    }
    Ok(())
}

async fn carry_out_one(
    store: &Store,
    site: &Arc<Site>,
    postmaster: &Address,
    id: MessageId,
    row: ControlRow,
) -> Result<(), Refused> {
    let Some(author) = directory::by_id(&store.read()?, &row.author)? else {
        return store.commit(move |txn| over(txn, id)).await.map(drop);
    };
    let done = match row.done.clone() {
        Some(done) => done,
        None => match revise(store, site, &author, id, &row).await {
            Ok(target) => ControlDone::Revised(target.0),
            Err(Refused::Asked(why)) => {
                let refused = ControlRow { done: Some(ControlDone::Refused(why.clone())), ..row };
                store.commit(move |txn| Ok::<_, Refused>(txn.put(CONTROLS, &id.0, &refused)?)).await?;
                ControlDone::Refused(why)
            }
            Err(refused) => return Err(refused),
        },
    };
    // Signing takes a while.
    let answer = tokio::task::block_in_place(|| answer(store, site, postmaster, &author, id, &done))?;
    let site = Arc::clone(site);
    let told = store.commit(move |txn| {
        mail::receive(txn, &site, answer, &[], unix_millis())?;
        over(txn, id)
    });
    told.await.map(drop)
}

/// The request is dealt with.
fn over(txn: &mut Txn<'_>, id: MessageId) -> Result<(), Refused> {
    txn.delete(CONTROLS, &id.0)?;
    if let Some(message) = txn.get::<Message>(MESSAGES, &id.0)? {
        txn.release_body(message.body())?;
    }
    Ok(())
}

/// Revises the message that is answered, and notes that in the same commit. Returns which one that was.
async fn revise(
    store: &Store,
    site: &Arc<Site>,
    author: &Person,
    id: MessageId,
    row: &ControlRow,
) -> Result<MessageId, Refused> {
    let snapshot = store.read()?;
    let request = snapshot.get::<Message>(MESSAGES, &id.0)?;
    let request = request.ok_or_else(|| Refused::new("the request is not here any more"))?;
    let named = request.origin.in_reply_to.first().or(request.origin.references.last());
    let target = match named {
        Some(message_id) => snapshot.get::<Named>(MESSAGE_IDS, &message_id_key(message_id))?,
        None => None,
    };
    let target = target.map(|Named(id)| MessageId(id)).ok_or_else(|| {
        Refused::new(
            "it does not answer a message of yours: answer the one that is meant, from your Sent folder",
        )
    })?;
    let content = mail::content(store.body(request.body())?, &request, READ_BYTES_MAX)?;
    let amendment = Amendment {
        mode: row.mode,
        recipients: Vec::new(),
        subject: None,
        reason: None,
        base: None,
        text: mime::text_of(&content),
        attachments: Vec::new(),
    };
    let done = ControlRow { done: Some(ControlDone::Revised(target.0)), ..row.clone() };
    let note = move |txn: &mut Txn<'_>| Ok(txn.put(CONTROLS, &id.0, &done)?);
    amend(store, site, author, target, amendment, note).await?;
    Ok(target)
}

/// What came of a request, for its author.
fn answer(
    store: &Store,
    site: &Site,
    postmaster: &Address,
    author: &Person,
    id: MessageId,
    done: &ControlDone,
) -> Result<Incoming, Refused> {
    let snapshot = store.read()?;
    let asked = snapshot.get::<Message>(MESSAGES, &id.0)?;
    let origin = asked.as_ref().map(|asked| &asked.origin);
    let (subject, text) = match done {
        ControlDone::Refused(why) => {
            ("Not revised".to_owned(), format!("Your message was not revised: {why}.\n"))
        }
        ControlDone::Revised(target) => {
            let target = MessageId(*target);
            let status = status(store, target);
            let subject = status.as_ref().map_or_else(|_| String::new(), |status| status.subject.clone());
            (
                format!("Revised: {subject}"),
                status
                    .map_or_else(|error| error.to_string(), |status| told(&privacy::status(status, author))),
            )
        }
    };
    let address = author.addresses.first().map(|address| address.parse::<Address>());
    let Some(Ok(to)) = address else { return Err(Refused::new(format!("{} has no address", author.name))) };
    let draft = Draft {
        id: MessageId::generate(),
        from: DraftMailbox { name: None, address: postmaster.clone() },
        to: vec![DraftMailbox { name: None, address: to.clone() }],
        cc: Vec::new(),
        subject,
        date: i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX),
        in_reply_to: origin.and_then(|origin| origin.message_id.clone()),
        references: Vec::new(),
        text,
        attachments: Vec::new(),
        entities: Vec::new(),
    };
    let content = mime::compose(&draft);
    let made = incoming(store, draft.id, Channel::Report, None, vec![to.to_string()], &content)?;
    Ok(signed(store, site, made, &content)?)
}

fn told(status: &Status) -> String {
    let mut text = format!("Your message {} was revised. By now:\n\n", status.id);
    for recipient in &status.recipients {
        let result = recipient.revised.as_ref().map_or_else(String::new, |revised| word(&revised.result));
        text += &format!("  {}: {result}\n", recipient.address);
    }
    text + "\nWhat is pending is decided when the node that holds the copy has been asked.\n"
}
