//! Travel windows: opened with credentials that are shown once, filled, ended.

use shared::credential::Credential;
use shared::id::{MessageId, random};
use shared::seal::PrivateKey;
use shared::store::{Rows, StoreError, Txn};
use shared::unit::{Id, ToEdge, Window};

use crate::directory;
use crate::error::Refused;
use crate::mail::{self, Site};
use crate::projection;
use crate::record::{
    AfterFetch, COPIES, CopyRow, Entry, Folder, MAILBOXES, Named, OPEN_WINDOWS, Person, Pop3, Scope, WINDOWS,
    WindowRow, WindowState, folder_prefix, message_of,
};
use crate::request::WindowView;

const DAY_MILLIS: u64 = 24 * 3_600_000;

/// What a window is opened with.
#[derive(Debug)]
pub struct NewWindow {
    /// Whose.
    pub person: String,
    /// Ends, milliseconds since 1970; `None` is standing.
    pub until: Option<u64>,
    /// What is filed into it.
    pub scope: Scope,
    /// What a deletion on the road does.
    pub after_fetch: AfterFetch,
    /// The private half of its keys; the edge gets it locked.
    pub key: PrivateKey,
    /// The login.
    pub credential: Credential,
}

/// Opens a window, tells the edge, and queues the back-fill. Returns it and how many messages that is.
pub fn start(
    txn: &mut Txn<'_>,
    site: &Site,
    new: NewWindow,
    now: u64,
) -> Result<(WindowRow, usize), Refused> {
    let person = directory::by_name(txn, &new.person)?;
    let Some(edge) = projection::edge(txn)? else {
        return Err(Refused::new(
            "no edge is paired yet; run `edge-node invite`, then `big-node pair TICKET`",
        ));
    };
    if person.pop3 == Pop3::No {
        let text = format!(
            "{} may not collect mail on the road; `person set {} --pop3 yes` first",
            person.name, person.name
        );
        return Err(Refused::new(text));
    }
    if txn.get::<Named>(OPEN_WINDOWS, &person.id)?.is_some() {
        let text = format!("{} travels already; `travel end {}` first", person.name, person.name);
        return Err(Refused::new(text));
    }
    if new.until.is_some_and(|until| until <= now) {
        return Err(Refused::new("the window would end before it begins; give a later --until"));
    }
    let (logins, senders) = projection::window_hashes(&edge, &person);
    let window = Window {
        window: random(),
        person: person.id,
        logins,
        senders,
        from: now,
        until: new.until,
        public_key: new.key.public().0,
        credential: new.credential,
    };
    let row = WindowRow {
        window,
        scope: new.scope,
        after_fetch: new.after_fetch,
        state: WindowState::Open,
        ended_at: None,
        revoked: false,
    };
    txn.put(WINDOWS, &row.window.window, &row)?;
    txn.put(OPEN_WINDOWS, &person.id, &Named(row.window.window))?;
    projection::tell_edge(txn, &ToEdge::Window(Box::new(row.window.clone())))?;
    let filled = back_fill(txn, site, &person, new.scope, now)?;
    Ok((row, filled))
}

/// Queues copies of what came before the window.
fn back_fill(
    txn: &mut Txn<'_>,
    site: &Site,
    person: &Person,
    scope: Scope,
    now: u64,
) -> Result<usize, StoreError> {
    let since = match scope {
        Scope::New => return Ok(0),
        Scope::Days(days) => now.saturating_sub(u64::from(days) * DAY_MILLIS),
        Scope::All => 0,
    };
    let folder = folder_prefix(&person.id, Folder::In);
    let mut filled = 0;
    for (key, entry) in txn.prefix::<Entry>(MAILBOXES, &folder, usize::MAX)? {
        let id = message_of(&key);
        if entry.filed_at < since {
            continue;
        }
        if let Some(message) = mail::shown(txn, id, entry.revision)? {
            mail::copy_to_window(txn, site, &message, id, &person.id)?;
            filled += 1;
        }
    }
    Ok(filled)
}

/// Ends a person's window and tells the edge to destroy it.
pub fn end(txn: &mut Txn<'_>, person: &str, revoke: bool, now: u64) -> Result<WindowRow, Refused> {
    let person = directory::by_name(txn, person)?;
    let Some(Named(window)) = txn.get(OPEN_WINDOWS, &person.id)? else {
        return Err(Refused::new(format!(
            "{} has no open travel window; `travel list --all` shows past ones",
            person.name
        )));
    };
    Ok(close(txn, &window, revoke, now)?)
}

/// Ends a window and tells the edge to destroy it.
pub fn close(txn: &mut Txn<'_>, window: &Id, revoke: bool, now: u64) -> Result<WindowRow, StoreError> {
    let row = txn.get::<WindowRow>(WINDOWS, window)?;
    let mut row = row.ok_or_else(|| StoreError::Damaged("a travel window".into()))?;
    row.state = WindowState::Ending;
    row.ended_at = Some(now);
    row.revoked = revoke;
    txn.put(WINDOWS, window, &row)?;
    txn.delete(OPEN_WINDOWS, &row.window.person)?;
    projection::tell_edge(txn, &ToEdge::WindowEnd { window: *window })?;
    Ok(row)
}

/// Windows whose time has come.
pub fn overdue(rows: &impl Rows, now: u64) -> Result<Vec<Id>, StoreError> {
    let open = rows.prefix::<Named>(OPEN_WINDOWS, &[], usize::MAX)?;
    let mut overdue = Vec::new();
    for (_, Named(window)) in open {
        let row = rows.get::<WindowRow>(WINDOWS, &window)?;
        if row.is_some_and(|row| row.window.until.is_some_and(|until| until <= now)) {
            overdue.push(window);
        }
    }
    Ok(overdue)
}

/// Ends the windows whose time has come.
pub fn end_overdue(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    for window in overdue(txn, now)? {
        close(txn, &window, false, now)?;
    }
    Ok(())
}

/// Windows as shown; with `all`, also those that have ended.
pub fn list(rows: &impl Rows, all: bool) -> Result<Vec<WindowView>, StoreError> {
    let mut views = Vec::new();
    for (_, row) in rows.prefix::<WindowRow>(WINDOWS, &[], usize::MAX)? {
        if all || row.state != WindowState::Ended {
            views.push(view(rows, &row)?);
        }
    }
    views.sort_by_key(|view| view.from);
    Ok(views)
}

/// A window as shown.
pub fn view(rows: &impl Rows, row: &WindowRow) -> Result<WindowView, StoreError> {
    let copies = rows.prefix::<CopyRow>(COPIES, &row.window.window, usize::MAX)?;
    let person = directory::by_id(rows, &row.window.person)?;
    Ok(WindowView {
        id: MessageId(row.window.window).to_string(),
        person: person.map_or_else(|| "(removed)".into(), |person| person.name),
        from: row.window.from,
        until: row.window.until,
        scope: row.scope,
        after_fetch: row.after_fetch,
        state: row.state,
        filed: copies.len(),
        fetched: copies.iter().filter(|(_, copy)| copy.retrieved).count(),
        deleted: copies.iter().filter(|(_, copy)| copy.deleted).count(),
    })
}

/// A new window's keys and its password, which is shown once.
pub fn credentials() -> (PrivateKey, String, Credential) {
    let (key, _) = PrivateKey::generate();
    let (password, credential) = Credential::generate(&key);
    (key, password, credential)
}
