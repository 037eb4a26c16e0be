//! Entering, changing and removing entries: one namespace for names and addresses, the edge told in the
//! same commit, and the record in the segments that a rebuild goes by.

use shared::store::{BodyKey, Rows, StoreError, Stored, Txn};
use shared::unit::ToEdge;

use super::entry::{Holder, Nickname, Record};
use super::lookup::{known_of_policy, record_of};
use super::policy::Policy;
use crate::error::Refused;
use crate::projection::{self, tell_gone, tell_known};
use crate::record::{
    ADDRESSES, GROUPS, NAMES, NICKNAMES, Named, OPEN_WINDOWS, PERSONS, POLICY, PolicyRow, SHADOWS, WINDOWS,
    WindowRow, key2,
};
use crate::travel;

/// The time of a change: later than that of the one before, whatever the clock says.
pub fn changed_after(before: u64, now: u64) -> u64 {
    now.max(before + 1)
}

/// Enters a new entry and tells the edge. Without `kept`, its record in the segments, this only tries
/// whether it could be entered, within a commit that will not be made.
pub fn add(txn: &mut Txn<'_>, record: &Record, kept: Option<&Stored>) -> Result<(), Refused> {
    free(txn, record, &[])?;
    enter(txn, record)?;
    if let Some(kept) = kept {
        txn.keep_body(kept)?;
        for address in record.addresses() {
            tell_known(txn, address, record.mailbox())?;
        }
        tell_of_catch_all(txn, record)?;
    }
    Ok(())
}

/// Puts an entry in the place of what it was, and tells the edge the difference.
pub fn replace(txn: &mut Txn<'_>, old: &Record, new: &Record, kept: &Stored) -> Result<(), Refused> {
    free(txn, new, old.addresses())?;
    leave(txn, old)?;
    enter(txn, new)?;
    txn.keep_body(kept)?;
    txn.release_body(old.key())?;
    for gone in old.addresses().iter().filter(|address| !new.addresses().contains(address)) {
        tell_gone(txn, gone)?;
    }
    let anew = old.mailbox() != new.mailbox();
    for address in new.addresses().iter().filter(|address| anew || !old.addresses().contains(address)) {
        tell_known(txn, address, new.mailbox())?;
    }
    if anew {
        tell_of_catch_all(txn, new)?;
    }
    Ok(renew_window(txn, new)?)
}

/// Removes an entry, and ends a person's travel window. The mail stays in the store until it is deleted.
pub fn remove(txn: &mut Txn<'_>, policy: &Policy, record: &Record, now: u64) -> Result<(), Refused> {
    if record.name() == policy.postmaster && matches!(record, Record::Person(_)) {
        let text = format!(
            "{} reads the postmaster's mail; name somebody else in [site] postmaster first",
            record.name()
        );
        return Err(Refused::new(text));
    }
    if let Record::Person(person) = record {
        if let Some(Named(window)) = txn.get(OPEN_WINDOWS, &person.id)? {
            travel::close(txn, &window, true, now)?;
        }
        for (key, nickname) in txn.prefix::<Nickname>(NICKNAMES, &person.id, usize::MAX)? {
            txn.delete(NICKNAMES, &key)?;
            txn.release_body(Record::Nickname(nickname).key())?;
        }
    }
    let caught = if is_catch_all(txn, record)? { caught(txn)? } else { Vec::new() };
    leave(txn, record)?;
    txn.release_body(record.key())?;
    for address in record.addresses() {
        tell_gone(txn, address)?;
    }
    for (address, _) in caught {
        tell_gone(txn, &address)?;
    }
    Ok(())
}

/// Enters an entry that a rebuild found. The segments may hold what was changed or removed since: of one
/// entry the latest change counts, and of two that claim a name the one that was changed later. Returns
/// the records that count no more.
pub fn restore(txn: &mut Txn<'_>, found: &Record) -> Result<Vec<BodyKey>, StoreError> {
    let mut rivals: Vec<Record> = Vec::new();
    let mut holders = Vec::new();
    match found {
        Record::Nickname(nickname) => {
            rivals.extend(txn.get(NICKNAMES, &nickname_key(nickname))?.map(Record::Nickname));
        }
        _ => {
            holders.extend(found.holder());
            holders.extend(txn.get::<Holder>(NAMES, found.name().as_bytes())?);
            for address in found.addresses() {
                holders.extend(txn.get::<Holder>(ADDRESSES, address.as_bytes())?);
            }
        }
    }
    for holder in holders {
        if rivals.iter().all(|rival| rival.holder() != Some(holder)) {
            rivals.extend(record_of(txn, holder)?);
        }
    }
    if rivals.iter().any(|rival| rival.changed_at() >= found.changed_at()) {
        return Ok(vec![found.key()]);
    }
    for rival in &rivals {
        leave(txn, rival)?;
    }
    enter(txn, found)?;
    Ok(rivals.iter().map(Record::key).collect())
}

/// Refuses a name or an address that somebody has, except those in `own`.
fn free(rows: &impl Rows, record: &Record, own: &[String]) -> Result<(), Refused> {
    if let Record::Nickname(_) = record {
        return Ok(());
    }
    let holder = record.holder();
    if let Some(other) = rows.get::<Holder>(NAMES, record.name().as_bytes())?
        && Some(other) != holder
    {
        let (kind, name) = (other.kind.as_str(), record.name());
        return Err(Refused::new(format!("there is a {kind} {name} already; choose another name")));
    }
    for address in record.addresses().iter().filter(|address| !own.contains(address)) {
        if let Some(other) = rows.get::<Holder>(ADDRESSES, address.as_bytes())? {
            let whose = record_of(rows, other)?.map_or_else(String::new, |other| other.name().to_owned());
            return Err(Refused::new(format!("{address} belongs to {} {whose}", other.kind.as_str())));
        }
    }
    Ok(())
}

/// Writes an entry's rows.
fn enter(txn: &mut Txn<'_>, record: &Record) -> Result<(), StoreError> {
    if let Some(holder) = record.holder() {
        for address in record.addresses() {
            txn.put(ADDRESSES, address.as_bytes(), &holder)?;
        }
        txn.put(NAMES, record.name().as_bytes(), &holder)?;
    }
    match record {
        Record::Person(person) => txn.put(PERSONS, &person.id, person),
        Record::Shadow(shadow) => txn.put(SHADOWS, &shadow.id, shadow),
        Record::Group(group) => txn.put(GROUPS, &group.id, group),
        Record::Nickname(nickname) => txn.put(NICKNAMES, &nickname_key(nickname), nickname),
    }
}

/// Removes an entry's rows.
fn leave(txn: &mut Txn<'_>, record: &Record) -> Result<(), StoreError> {
    if record.holder().is_some() {
        for address in record.addresses() {
            txn.delete(ADDRESSES, address.as_bytes())?;
        }
        txn.delete(NAMES, record.name().as_bytes())?;
    }
    match record {
        Record::Person(person) => txn.delete(PERSONS, &person.id),
        Record::Shadow(shadow) => txn.delete(SHADOWS, &shadow.id),
        Record::Group(group) => txn.delete(GROUPS, &group.id),
        Record::Nickname(nickname) => txn.delete(NICKNAMES, &nickname_key(nickname)),
    }
}

/// The key of a nickname's row.
pub fn nickname_key(nickname: &Nickname) -> Vec<u8> {
    key2(&nickname.owner, nickname.name.as_bytes())
}

/// The whole domains that the edge takes mail for now.
fn caught(rows: &impl Rows) -> Result<Vec<(String, Option<shared::unit::Id>)>, StoreError> {
    let policy: PolicyRow = rows.get(POLICY, b"site")?.unwrap_or_default();
    let known = known_of_policy(rows, &policy)?;
    Ok(known.into_iter().filter(|(address, _)| address.starts_with('@')).collect())
}

fn is_catch_all(rows: &impl Rows, record: &Record) -> Result<bool, StoreError> {
    let policy: PolicyRow = rows.get(POLICY, b"site")?.unwrap_or_default();
    Ok(record.holder().is_some() && policy.catch_all.as_deref() == Some(record.name()))
}

fn tell_of_catch_all(txn: &mut Txn<'_>, record: &Record) -> Result<(), StoreError> {
    if is_catch_all(txn, record)? {
        for (address, person) in caught(txn)? {
            tell_known(txn, &address, person)?;
        }
    }
    Ok(())
}

/// An open travel window goes by its person's names.
fn renew_window(txn: &mut Txn<'_>, record: &Record) -> Result<(), StoreError> {
    let Record::Person(person) = record else { return Ok(()) };
    let (Some(edge), Some(Named(id))) = (projection::edge(txn)?, txn.get(OPEN_WINDOWS, &person.id)?) else {
        return Ok(());
    };
    let Some(mut row) = txn.get::<WindowRow>(WINDOWS, &id)? else { return Ok(()) };
    let (logins, senders) = projection::window_hashes(&edge, person);
    if (&logins, &senders) != (&row.window.logins, &row.window.senders) {
        (row.window.logins, row.window.senders) = (logins, senders);
        txn.put(WINDOWS, &id, &row)?;
        projection::tell_edge(txn, &ToEdge::Window(Box::new(row.window)))?;
    }
    Ok(())
}
