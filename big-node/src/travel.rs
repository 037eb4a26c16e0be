//! Travel windows: opened with credentials that are shown once, filled (`fill`), put off, ended.
//!
//! The edge ends a window at its moment by its own clock, and says so. Big, whose clock may be another one, takes no
//! part in it until a day has gone by without that word.

pub mod fill;
pub mod guessing;
pub mod notice;

use std::time::Duration;

use shared::credential::{Credential, site_salt};
use shared::id::{MessageId, random};
use shared::render;
use shared::seal::PrivateKey;
use shared::store::{Rows, StoreError, Txn, behind};
use shared::unit::{Former, Id, ToEdge, Window};

use crate::directory;
use crate::error::Refused;
use crate::mail::Site;
use crate::projection;
use crate::record::{
    AfterFetch, COPIES, CopyRow, ENDING_WINDOWS, Named, OPEN_WINDOWS, OVERSIZED, Person, Place, Pop3, TRIPS,
    Trip, WAITING_COPIES, WINDOW_KEYS, WINDOWS, WindowKey, WindowRow, WindowState,
};
use crate::request::{Terms, WindowView};

/// What was submitted before a window's end is accepted for so long after it.
const LATE_AFTER_END_MILLIS: u64 = 7 * 24 * 3_600_000;
/// How long after its end the edge is waited for to end a window by its own clock.
const OWN_CLOCK_MILLIS: u64 = 24 * 3_600_000;
/// How far the clocks of the nodes may be apart.
const CLOCKS_MILLIS: u64 = 3_600_000;
/// The least limit on the size of messages, and the least quota, in octets.
pub const SIZE_MIN: u64 = 1024;
/// The longest time for which a password that was rotated away stays good.
pub const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Deletions on the road within [`DELETIONS_MILLIS`] that are an alarm.
pub const DELETIONS_MAX: u64 = 200;
/// For how long deletions are counted together.
pub const DELETIONS_MILLIS: u64 = 3_600_000;
/// Ends that were put off of which is known that they were.
const PUT_OFF_MAX: usize = 64;
/// How long an alarm of the road is shown.
const ALARM_MILLIS: u64 = 24 * 3_600_000;

/// What a window is opened with.
#[derive(Debug)]
pub struct NewWindow {
    /// Whose.
    pub person: String,
    /// When, for what, and with which limits.
    pub terms: Terms,
    /// The private half of its keys; the edge gets it locked.
    pub key: PrivateKey,
    /// The login.
    pub credential: Credential,
}

/// Opens a window, tells the edge, and begins its back-fill. Returns it and how many messages that is.
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
        let text = format!(
            "{} travels already; `travel extend {}` changes the end, `travel end {}` ends it",
            person.name, person.name, person.name
        );
        return Err(Refused::new(text));
    }
    let Terms { from, until, scope, after_fetch, headers_first, size_max, quota } = new.terms;
    // One that begins at once begins on both nodes, whatever their clocks say.
    let from = from.filter(|from| *from > now).unwrap_or(0);
    check_end(from.max(now), until, now)?;
    if [size_max, quota].into_iter().flatten().any(|limit| limit < SIZE_MIN) {
        return Err(Refused::new(format!(
            "a limit below {SIZE_MIN} octets lets no mail through; give a larger one"
        )));
    }
    let (logins, senders) = projection::window_hashes(&edge, &person);
    let public_key = new.key.public().0;
    let window = Window {
        logins,
        senders,
        from,
        until,
        size_max,
        quota,
        ..Window::new(random(), person.id, public_key, new.credential)
    };
    let row = WindowRow {
        window,
        scope,
        after_fetch,
        state: WindowState::Open,
        ended_at: None,
        revoked: false,
        headers_first,
        told: false,
        put_off: Vec::new(),
        made_at: now,
    };
    txn.put(WINDOW_KEYS, &row.window.window, &WindowKey(*new.key.as_bytes()))?;
    txn.put(OPEN_WINDOWS, &person.id, &Named(row.window.window))?;
    put(txn, &row)?;
    let filled = fill::begin(txn, site, &row)?;
    Ok((row, usize::try_from(filled).unwrap_or(usize::MAX)))
}

fn check_end(from: u64, until: Option<u64>, now: u64) -> Result<(), Refused> {
    match until {
        Some(until) if until <= from.max(now) => {
            Err(Refused::new("the window would end before it begins; give a later --until"))
        }
        _ => Ok(()),
    }
}

/// Writes an open window, and tells the edge of it.
fn put(txn: &mut Txn<'_>, row: &WindowRow) -> Result<(), StoreError> {
    txn.put(WINDOWS, &row.window.window, row)?;
    projection::tell_edge(txn, &ToEdge::Window(Box::new(row.window.clone())))
}

/// A person's open window, or what to say to who asks for it.
fn open_window(rows: &impl Rows, person: &Person) -> Result<WindowRow, Refused> {
    fill::open_window(rows, &person.id)?.ok_or_else(|| {
        Refused::new(format!(
            "{} has no open travel window; `travel list --all` shows past ones",
            person.name
        ))
    })
}

/// Changes the end of a person's window; `None` makes it standing. Its credentials stay.
pub fn extend(txn: &mut Txn<'_>, person: &str, until: Option<u64>, now: u64) -> Result<WindowRow, Refused> {
    let person = directory::by_name(txn, person)?;
    let mut row = open_window(txn, &person)?;
    check_end(row.begins_at(), until, now)?;
    row.put_off.extend(row.window.until);
    row.put_off.drain(..row.put_off.len().saturating_sub(PUT_OFF_MAX));
    row.window.until = until;
    put(txn, &row)?;
    Ok(row)
}

/// Gives a person's window another password, and returns it. The old one is good for `grace` more; mailbox and keys
/// stay as they are.
pub fn rotate(
    txn: &mut Txn<'_>,
    person: &str,
    grace: Duration,
    now: u64,
) -> Result<(WindowRow, String), Refused> {
    let person = directory::by_name(txn, person)?;
    let mut row = open_window(txn, &person)?;
    if grace > GRACE_MAX {
        let days = GRACE_MAX.as_secs() / 86_400;
        return Err(Refused::new(format!("an old password is good for {days} days more at the most")));
    }
    let key = txn.get::<WindowKey>(WINDOW_KEYS, &row.window.window)?;
    let key = key.ok_or_else(|| StoreError::Damaged("a travel window's key".into()))?;
    let (password, credential) = row.window.credential.rotate(&PrivateKey::from_bytes(key.0));
    let old = std::mem::replace(&mut row.window.credential, credential);
    let good_until = now.saturating_add(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    row.window.former = (!grace.is_zero()).then_some(Former { credential: old, until: good_until });
    put(txn, &row)?;
    Ok((row, password))
}

/// Ends a person's window and tells the edge to destroy it.
pub fn end(txn: &mut Txn<'_>, person: &str, revoke: bool, now: u64) -> Result<WindowRow, Refused> {
    let person = directory::by_name(txn, person)?;
    let row = match (open_window(txn, &person), revoke) {
        // One that has ended, and was not confirmed, can still be revoked.
        (Err(Refused::Asked(why)), true) => match ending(txn, &person)? {
            Some(row) => row,
            // Nor does an end that was confirmed keep away what was submitted before it, and is taken for a while.
            None => return revoke_ended(txn, &person, now)?.ok_or(Refused::Asked(why)),
        },
        (found, _) => found?,
    };
    Ok(close(txn, &row.window.window, revoke, now)?)
}

/// The last window of a person that the edge has not confirmed as ended.
fn ending(rows: &impl Rows, person: &Person) -> Result<Option<WindowRow>, StoreError> {
    let mut last: Option<WindowRow> = None;
    for (window, _) in rows.prefix::<Named>(ENDING_WINDOWS, &[], usize::MAX)? {
        let row = rows.get::<WindowRow>(WINDOWS, &window)?.filter(|row| row.window.person == person.id);
        last = last.into_iter().chain(row).max_by_key(|row| row.ended_at);
    }
    Ok(last)
}

/// Revokes the windows of a person that have ended lately; returns the last of them.
fn revoke_ended(txn: &mut Txn<'_>, person: &Person, now: u64) -> Result<Option<WindowRow>, StoreError> {
    let mut last: Option<WindowRow> = None;
    for (window, mut row) in txn.prefix::<WindowRow>(WINDOWS, &[], usize::MAX)? {
        let is_theirs = row.window.person == person.id && row.state == WindowState::Ended;
        if is_theirs && !is_too_late(&row, now) {
            row.revoked = true;
            txn.put(WINDOWS, &window, &row)?;
            last = last.into_iter().chain([row]).max_by_key(|row| row.ended_at);
        }
    }
    Ok(last)
}

/// Whether nothing more is taken that comes out of a window that has ended.
pub fn is_too_late(row: &WindowRow, now: u64) -> bool {
    row.revoked || is_long_over(row, now)
}

fn is_long_over(row: &WindowRow, now: u64) -> bool {
    let ended = row.ended_at.or(row.window.until).unwrap_or(now);
    now.saturating_sub(ended) > LATE_AFTER_END_MILLIS
}

/// Forgets the copies of windows that the edge has ended, once nothing is taken any more that comes out of them; looks
/// at windows from `from` on and removes `at_once` rows. Returns where to go on. The windows' own rows stay: they say
/// whose the messages are that were submitted through them ([`crate::mail::author_of`]).
pub fn forget_ended(
    txn: &mut Txn<'_>,
    from: &[u8],
    at_once: usize,
    now: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let trips = txn.range::<Trip>(TRIPS, from, None, at_once)?;
    let mut left = at_once;
    for (window, _) in &trips {
        let row = txn.get::<WindowRow>(WINDOWS, window)?;
        if row.is_some_and(|row| row.state != WindowState::Ended || !is_long_over(&row, now)) {
            continue;
        }
        let copies = txn.prefix::<CopyRow>(COPIES, window, left)?;
        for (copy, _) in &copies {
            txn.delete(COPIES, copy)?;
        }
        left -= copies.len();
        if left == 0 {
            return Ok(Some(window.clone()));
        }
        txn.delete(TRIPS, window)?;
    }
    Ok(behind(&trips, at_once))
}

/// Whether a window may have begun on the edge. Before that nobody is let in there, so what comes out of it is of an
/// edge that somebody has taken over; clocks that are an hour apart are borne.
pub fn may_have_begun(row: &WindowRow, now: u64) -> bool {
    row.window.from <= now.saturating_add(CLOCKS_MILLIS)
}

/// Ends a window and tells the edge to destroy it.
pub fn close(txn: &mut Txn<'_>, window: &Id, revoke: bool, now: u64) -> Result<WindowRow, StoreError> {
    let mut row = is_over(txn, window, WindowState::Ending, now)?;
    (row.revoked, row.told) = (revoke, true);
    txn.put(WINDOWS, window, &row)?;
    projection::tell_edge(txn, &ToEdge::WindowEnd { window: *window })?;
    Ok(row)
}

/// A window is over here: its key goes, and nothing more is filled into it.
fn is_over(txn: &mut Txn<'_>, window: &Id, state: WindowState, now: u64) -> Result<WindowRow, StoreError> {
    let row = txn.get::<WindowRow>(WINDOWS, window)?;
    let mut row = row.ok_or_else(|| StoreError::Damaged("a travel window".into()))?;
    row.state = state;
    row.ended_at = row.ended_at.or(Some(now));
    row.window.former = None;
    txn.put(WINDOWS, window, &row)?;
    if txn.get::<Named>(OPEN_WINDOWS, &row.window.person)? == Some(Named(*window)) {
        txn.delete(OPEN_WINDOWS, &row.window.person)?;
    }
    match state {
        WindowState::Ending => txn.put(ENDING_WINDOWS, window, &Named(*window))?,
        WindowState::Open | WindowState::Ended => txn.delete(ENDING_WINDOWS, window)?,
    }
    txn.delete(WINDOW_KEYS, window)?;
    for table in [WAITING_COPIES, OVERSIZED] {
        for (key, _) in txn.prefix::<Named>(table, window, usize::MAX)? {
            txn.delete(table, &key)?;
        }
    }
    let trip = fill::trip(txn, window)?;
    txn.put(TRIPS, window, &Trip { cursor: None, ..trip })?;
    Ok(row)
}

/// The edge has ended a window, because its end `until` had come there, or because it was told to.
pub fn closed(txn: &mut Txn<'_>, mut row: WindowRow, until: Option<u64>, now: u64) -> Result<(), StoreError> {
    let window = row.window.window;
    let put_off = row.put_off.iter().position(|end| Some(*end) == until);
    if let (WindowState::Open, Some(place)) = (row.state, put_off) {
        // It did not know that yet: it opens again, with the same credentials. Once for each end that was put off,
        // or an edge could have everything sent to it again and again.
        row.put_off.drain(..=place);
        tracing::info!(window = %MessageId(window), "a travel window that the edge had ended opens again");
        put(txn, &row)?;
        return fill::again(txn, &row);
    }
    is_over(txn, &window, WindowState::Ended, now).map(drop)
}

/// Whether a window has a former password that is good no more. It would open the window's key still, for whoever has
/// the disk.
fn has_outlived(row: &WindowRow, now: u64) -> bool {
    row.window.former.as_ref().is_some_and(|former| former.until <= now)
}

/// Windows whose time has come here: those to be marked as ending, those that the edge is to be told of, and those
/// whose former password is to be forgotten.
pub fn overdue(rows: &impl Rows, now: u64) -> Result<Vec<Id>, StoreError> {
    let mut overdue = Vec::new();
    for table in [OPEN_WINDOWS, ENDING_WINDOWS] {
        for (_, Named(window)) in rows.prefix::<Named>(table, &[], usize::MAX)? {
            let Some(row) = rows.get::<WindowRow>(WINDOWS, &window)? else { continue };
            let is_past =
                |millis: u64| row.window.until.is_some_and(|until| until.saturating_add(millis) <= now);
            let due = match row.state {
                WindowState::Open => is_past(0) || has_outlived(&row, now),
                WindowState::Ending => !row.told && is_past(OWN_CLOCK_MILLIS),
                WindowState::Ended => false,
            };
            if due {
                overdue.push(window);
            }
        }
    }
    Ok(overdue)
}

/// Sees to the windows whose time has come.
pub fn end_overdue(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    for window in overdue(txn, now)? {
        match txn.get::<WindowRow>(WINDOWS, &window)? {
            Some(mut row)
                if row.state == WindowState::Open && row.window.until.is_none_or(|until| now < until) =>
            {
                row.window.former = None;
                put(txn, &row)?;
            }
            Some(row) if row.state == WindowState::Open => {
                is_over(txn, &window, WindowState::Ending, now)?;
            }
            _ => drop(close(txn, &window, false, now)?),
        }
    }
    Ok(())
}

/// Counts a deletion on the road. More than [`DELETIONS_MAX`] within an hour may be a client that is set wrongly, or
/// an edge that is not ours any more.
pub fn count_deletion(txn: &mut Txn<'_>, window: &Id, now: u64) -> Result<(), StoreError> {
    let mut trip = fill::trip(txn, window)?;
    if now.abs_diff(trip.counted_from) >= DELETIONS_MILLIS {
        (trip.counted_from, trip.deletions) = (now, 0);
    }
    trip.deletions += 1;
    if trip.deletions > DELETIONS_MAX {
        trip.alarmed_at = Some(now);
    }
    txn.put(TRIPS, window, &trip)
}

/// What an operator should know of the road: guesses, and deletions.
pub fn alarms(rows: &impl Rows, now: u64) -> Result<Vec<String>, StoreError> {
    let mut alarms: Vec<_> = guessing::alarm(rows, now)?.into_iter().collect();
    for (key, trip) in rows.prefix::<Trip>(TRIPS, &[], usize::MAX)? {
        let Some(at) = trip.alarmed_at.filter(|at| now.abs_diff(*at) < ALARM_MILLIS) else { continue };
        let row = rows.get::<WindowRow>(WINDOWS, &key)?;
        let moved = row.filter(|row| row.after_fetch == AfterFetch::Delete);
        let Some(row) = moved else { continue };
        let person = directory::by_id(rows, &row.window.person)?;
        let name = person.map_or_else(|| "(removed)".into(), |person| person.name);
        alarms.push(format!(
            "more than {DELETIONS_MAX} messages of {name} were deleted on the road within an hour, at {} UTC: they \
             are in Trash for 30 days; if that was not meant, `big-node travel end {name} --revoke`",
            render::when(at)
        ));
    }
    Ok(alarms)
}

/// Windows as shown, of one person or of everybody; with `all`, also those that have ended.
pub fn list(rows: &impl Rows, person: Option<&Person>, all: bool) -> Result<Vec<WindowView>, StoreError> {
    let mut views = Vec::new();
    for (_, row) in rows.prefix::<WindowRow>(WINDOWS, &[], usize::MAX)? {
        let asked_for = person.is_none_or(|person| person.id == row.window.person);
        if asked_for && (all || row.state != WindowState::Ended) {
            views.push(view(rows, &row)?);
        }
    }
    views.sort_by_key(|view| view.from);
    Ok(views)
}

/// A window as shown.
pub fn view(rows: &impl Rows, row: &WindowRow) -> Result<WindowView, StoreError> {
    let window = &row.window;
    let copies = rows.prefix::<CopyRow>(COPIES, &window.window, usize::MAX)?;
    let count = |fits: fn(&CopyRow) -> bool| copies.iter().filter(|(_, copy)| fits(copy)).count();
    let person = directory::by_id(rows, &window.person)?;
    let trip = fill::trip(rows, &window.window)?;
    let is_there = row.state != WindowState::Ended;
    Ok(WindowView {
        id: MessageId(window.window).to_string(),
        person: person.map_or_else(|| "(removed)".into(), |person| person.name),
        from: row.begins_at(),
        until: window.until,
        scope: row.scope,
        after_fetch: row.after_fetch,
        headers_first: row.headers_first,
        size_max: window.size_max,
        quota: window.quota,
        state: row.state,
        ended_at: row.ended_at,
        filed: count(|copy| copy.place == Place::Edge),
        fetched: count(|copy| copy.retrieved),
        deleted: count(|copy| copy.deleted),
        waiting: count(|copy| copy.place == Place::Waiting),
        too_large: count(|copy| copy.place == Place::TooLarge),
        bytes: if is_there { fill::bytes(rows, &window.window)? } else { 0 },
        back_fill: (trip.done, trip.total),
        last_login: trip.last_login,
    })
}

/// A new window's keys and its password, which is shown once.
pub fn credentials(site: &Site) -> (PrivateKey, String, Credential) {
    let (key, _) = PrivateKey::generate();
    let (password, credential) = Credential::generate(&key, site_salt(&site.sealing.public()));
    (key, password, credential)
}
