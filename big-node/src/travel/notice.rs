//! What travellers are told by mail: on the road, of each message that is too large for their window; at home, of
//! each submission that was refused because the window had been revoked. Each once: it is owed in one commit, and
//! written in another.

use std::sync::Arc;

use shared::address::Address;
use shared::id::{MessageId, unix_millis};
use shared::mime::{self, Draft, DraftMailbox};
use shared::origin::Channel;
use shared::render;
use shared::store::{Rows, Store, StoreError, Txn};
use shared::trace;
use shared::unit::{Id, carrier_id};

use super::fill::Pace;
use crate::directory;
use crate::error::Refused;
use crate::mail::{self, Incoming, Site};
use crate::node::{incoming, signed};
use crate::record::{
    COPIES, CopyRow, Named, OVERSIZED, Person, REFUSED_SUBMISSIONS, RefusedRow, WINDOWS, WindowRow,
    WindowState, key2, message_of,
};

const AT_ONCE: usize = 100;
/// Recipients that are named.
const NAMED_MAX: usize = 10;
/// Characters of a name or a subject that are quoted.
const QUOTED_MAX: usize = 200;

/// Writes what is owed.
pub async fn write_owed(store: &Store, site: &Arc<Site>, postmaster: &Address) -> Result<(), Refused> {
    for (key, Named(id)) in store.read()?.prefix::<Named>(OVERSIZED, &[], AT_ONCE)? {
        // One that cannot be written does not keep the others waiting.
        if let Err(error) = too_large(store, site, postmaster, key, MessageId(id)).await {
            tracing::warn!(message = %MessageId(id), %error, "a traveller could not be told of a large message yet");
        }
    }
    for (key, row) in store.read()?.prefix::<RefusedRow>(REFUSED_SUBMISSIONS, &[], AT_ONCE)? {
        let id = message_of(&key);
        if let Err(error) = refused(store, site, postmaster, key, row).await {
            tracing::warn!(message = %id, %error, "a refused submission could not be reported yet");
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A letter from the postmaster to a person. The same arguments always make the same bytes.
fn letter(
    store: &Store,
    postmaster: &Address,
    person: &Person,
    (id, at): (MessageId, u64),
    subject: String,
    text: String,
) -> Result<(Incoming, Vec<u8>), Refused> {
    let first = person.addresses.first().map(|address| address.parse::<Address>());
    let Some(Ok(address)) = first else {
        return Err(Refused::new(format!("{} has no address", person.name)));
    };
    let mailbox = |name: &str, address: &Address| DraftMailbox {
        name: Some(name.to_owned()),
        address: address.clone(),
    };
    let draft = Draft {
        id,
        from: mailbox("Sallypost", postmaster),
        to: vec![mailbox(&person.display, &address)],
        cc: Vec::new(),
        subject,
        date: i64::try_from(at / 1000).unwrap_or(i64::MAX),
        in_reply_to: None,
        references: Vec::new(),
        text,
        attachments: Vec::new(),
        entities: Vec::new(),
    };
    let content = mime::compose(&draft);
    let made = incoming(store, id, Channel::Report, None, vec![address.to_string()], &content)?;
    Ok((made, content))
}

/// Tells a traveller of a message that is too large. The notice is in the secondary mailbox only: at home there is
/// the message.
async fn too_large(
    store: &Store,
    site: &Arc<Site>,
    postmaster: &Address,
    key: Vec<u8>,
    id: MessageId,
) -> Result<(), Refused> {
    let snapshot = store.read()?;
    let window: Id = key.first_chunk().copied().unwrap_or_default();
    let row = snapshot.get::<WindowRow>(WINDOWS, &window)?.filter(|row| row.state == WindowState::Open);
    let mut notice = None;
    if let Some(row) = &row
        && let Some(person) = directory::by_id(&snapshot, &row.window.person)?
        && let Some((_, entry)) = mail::entry(&snapshot, &person.id, id)?
        && let Some(message) = mail::shown(&snapshot, id, entry.revision)?
    {
        let sender = message.origin.from.first().map(|from| format!("{} <{}>", from.name, from.address));
        let sender = sender.or_else(|| message.origin.reverse_path.clone()).unwrap_or_else(|| "<>".into());
        let subject = quoted(&message.origin.subject);
        let text = format!(
            "A message has come for you that is too large for this mailbox. It waits at home.\n\n\
             From:    {}\nSubject: {subject}\nSize:    {}\nCame:    {} UTC\n",
            quoted(&sender),
            render::size(message.origin.size),
            render::when(entry.filed_at),
        );
        // The same notice whenever it is written, so that the edge takes it once.
        let named = MessageId(carrier_id(&id.0, entry.revision, &[b"notice", window.as_slice()].concat()));
        let subject = format!("Too large for the road: {subject}");
        // It leaves for nowhere, so nothing is signed.
        notice = Some(letter(store, postmaster, &person, (named, entry.filed_at), subject, text)?.0);
    }
    let site = Arc::clone(site);
    let written = store.commit(move |txn| {
        if txn.raw(OVERSIZED, &key)?.is_none() {
            return Ok(());
        }
        txn.delete(OVERSIZED, &key)?;
        let (Some(row), Some(notice)) = (row, notice) else { return Ok(()) };
        let (named, now) = (notice.id, unix_millis());
        let message = mail::keep(txn, notice, now)?;
        let copy = CopyRow { size: message.origin.size, ..CopyRow::default() };
        txn.put(COPIES, &key2(&row.window.window, &named.0), &copy)?;
        mail::queue_copy(txn, &site, &message, named, &row, (false, Pace::Live))?;
        txn.release_body(message.body())?;
        trace::note(txn, id, now, "too large for the travel window: its traveller is told")
    });
    Ok(written.await.map(drop)?)
}

/// Notes that a person is to be told of a submission, if it was refused because the window was revoked.
pub fn owe(txn: &mut Txn<'_>, window: &Id, id: MessageId, row: &RefusedRow) -> Result<(), StoreError> {
    let revoked = txn.get::<WindowRow>(WINDOWS, window)?.is_some_and(|window| window.revoked);
    if revoked { txn.put(REFUSED_SUBMISSIONS, &key2(window, &id.0), row) } else { Ok(()) }
}

async fn refused(
    store: &Store,
    site: &Arc<Site>,
    postmaster: &Address,
    key: Vec<u8>,
    row: RefusedRow,
) -> Result<(), Refused> {
    let snapshot = store.read()?;
    let window: Id = key.first_chunk().copied().unwrap_or_default();
    let person = match snapshot.get::<WindowRow>(WINDOWS, &window)? {
        Some(row) => directory::by_id(&snapshot, &row.window.person)?,
        None => None,
    };
    let letter = match person {
        // Nobody is left to be told.
        None => None,
        Some(person) => {
            let subject = quoted(&row.subject);
            let mut to = row.to.iter().take(NAMED_MAX).map(|to| quoted(to)).collect::<Vec<_>>().join(", ");
            if let Some(more @ 1..) = row.to.len().checked_sub(NAMED_MAX) {
                to += &format!(" and {more} more");
            }
            let text = format!(
                "A message was submitted through your travel window, which has been revoked. It was refused: nobody \
                 got it.\n\nTo:        {to}\nSubject:   {subject}\nSubmitted: {} UTC\n",
                render::when(row.at),
            );
            let subject = format!("Refused: {subject}");
            let at = (MessageId::generate(), unix_millis());
            let (letter, content) = letter(store, postmaster, &person, at, subject, text)?;
            // Signing takes a while.
            Some(tokio::task::block_in_place(|| signed(store, site, letter, &content))?)
        }
    };
    let site = Arc::clone(site);
    let written = store.commit(move |txn| {
        if txn.raw(REFUSED_SUBMISSIONS, &key)?.is_none() {
            return Ok(());
        }
        txn.delete(REFUSED_SUBMISSIONS, &key)?;
        match letter {
            Some(letter) => mail::receive(txn, &site, letter, &[], unix_millis()),
            None => Ok(()),
        }
    });
    written.await.map(drop)
}
