//! Entering, changing and removing entries: one namespace for names and addresses, the edge told in the
//! same commit, and the record in the segments that a rebuild goes by.

use shared::store::{BodyKey, Rows, StoreError, Stored, Txn};
use shared::unit::ToEdge;

use super::entry::{Gateway, Holder, Kind, Nickname, Person, Record, TakenBy};
use super::gateway;
use super::lookup::{known_of_policy, of_account, record_of};
use super::nickname;
use super::policy::{Policy, tell_difference};
use crate::error::Refused;
use crate::projection::{self, tell_gone, tell_known};
use crate::record::{
    ACCOUNTS, ADDRESSES, GATEWAY_DOMAINS, GATEWAYS, GROUPS, LISTED, NAMES, NICKNAMES, Named, OPEN_WINDOWS,
    PERSONS, POLICY, PolicyRow, SHADOWS, TOLD_INSTEAD, WINDOWS, WindowRow, key2,
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
    let rest = rest(txn)?;
    enter(txn, record)?;
    if let Some(kept) = kept {
        txn.keep_body(kept)?;
        for address in record.addresses() {
            tell_known(txn, address, record.mailbox())?;
        }
        tell_of_rest(txn, &rest)?;
    }
    Ok(())
}

/// Puts an entry in the place of what it was, and tells the edge the difference.
pub fn replace(txn: &mut Txn<'_>, old: &Record, new: &Record, kept: &Stored) -> Result<(), Refused> {
    free(txn, new, old.addresses())?;
    let rest = rest(txn)?;
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
    tell_of_rest(txn, &rest)?;
    Ok(renew_window(txn, new)?)
}

/// Removes an entry, ends a person's travel window, and forgets what is listed for a gateway. The mail stays in the store until it is deleted.
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
        txn.delete(TOLD_INSTEAD, &person.id)?;
    }
    let rest = rest(txn)?;
    if let Record::Gateway(gateway) = record {
        for listed in gateway::listed(txn, &gateway.name)? {
            depart(txn, &Record::Listed(listed))?;
        }
    }
    depart(txn, record)?;
    Ok(tell_of_rest(txn, &rest)?)
}

/// Takes an entry's rows and its record away, and tells the edge of its addresses.
fn depart(txn: &mut Txn<'_>, record: &Record) -> Result<(), StoreError> {
    leave(txn, record)?;
    txn.release_body(record.key())?;
    record.addresses().iter().try_for_each(|address| tell_gone(txn, address))
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
        Record::Gateway(gateway) => rivals.extend(gateway_rivals(txn, gateway)?.map(Record::Gateway)),
        Record::Listed(listed) => {
            rivals.extend(listing(txn, &listed.address)?);
            holders.extend(txn.get::<Holder>(ADDRESSES, listed.address.as_bytes())?);
        }
        _ => {
            holders.extend(found.holder());
            holders.extend(txn.get::<Holder>(NAMES, found.name().as_bytes())?);
            if let Record::Person(Person { uid: Some(uid), .. }) = found {
                let Named(id) = txn.get(ACCOUNTS, &uid.to_be_bytes())?.unwrap_or(Named(found.id()));
                holders.push(Holder { kind: Kind::Person, id });
            }
            for address in found.addresses() {
                holders.extend(txn.get::<Holder>(ADDRESSES, address.as_bytes())?);
                rivals.extend(listing(txn, address)?);
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

fn listing(rows: &impl Rows, address: &str) -> Result<Option<Record>, StoreError> {
    Ok(rows.get(LISTED, address.as_bytes())?.map(Record::Listed))
}

/// The gateways that have the name or a domain of this one, each once.
fn gateway_rivals(rows: &impl Rows, gateway: &Gateway) -> Result<impl Iterator<Item = Gateway>, StoreError> {
    let mut names = std::collections::BTreeSet::from([gateway.name.clone()]);
    for domain in &gateway.domains {
        let taken = rows.get::<TakenBy>(GATEWAY_DOMAINS, domain.as_bytes())?;
        names.extend(taken.map(|TakenBy(name)| name));
    }
    let found = names.into_iter().map(|name| rows.get::<Gateway>(GATEWAYS, name.as_bytes()));
    Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten())
}

/// Refuses a name or an address that somebody has, except those in `own`.
fn free(rows: &impl Rows, record: &Record, own: &[String]) -> Result<(), Refused> {
    match record {
        Record::Nickname(nickname) => return nickname::free(rows, nickname),
        Record::Gateway(gateway) => {
            let mut rivals = gateway_rivals(rows, gateway)?.filter(|rival| rival.id != gateway.id);
            return rivals.next().map_or(Ok(()), |rival| {
                let text = format!("its name or a domain of its belongs to the gateway {}", rival.name);
                Err(Refused::new(text))
            });
        }
        Record::Listed(listed) => gateway::may_list(rows, listed)?,
        _ => {}
    }
    let holder = record.holder();
    if let Record::Person(Person { id, uid: Some(uid), .. }) = record
        && let Some(other) = of_account(rows, *uid)?.filter(|other| other.id != *id)
    {
        let name = other.name;
        return Err(Refused::new(format!(
            "account {uid} is {name}'s, and one account is one person's; `person set {name} --account none` first"
        )));
    }
    if holder.is_some()
        && let Some(other) = rows.get::<Holder>(NAMES, record.name().as_bytes())?
        && Some(other) != holder
    {
        let (kind, name) = (other.kind.as_str(), record.name());
        return Err(Refused::new(format!("there is a {kind} {name} already; choose another name")));
    }
    for address in record.addresses().iter().filter(|address| !own.contains(address)) {
        gateway::not_listed(rows, address)?;
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
        Record::Person(person) => {
            if let Some(uid) = person.uid {
                txn.put(ACCOUNTS, &uid.to_be_bytes(), &Named(person.id))?;
            }
            txn.put(PERSONS, &person.id, person)
        }
        Record::Shadow(shadow) => txn.put(SHADOWS, &shadow.id, shadow),
        Record::Group(group) => txn.put(GROUPS, &group.id, group),
        Record::Nickname(nickname) => txn.put(NICKNAMES, &nickname_key(nickname), nickname),
        Record::Gateway(gateway) => {
            for domain in &gateway.domains {
                txn.put(GATEWAY_DOMAINS, domain.as_bytes(), &TakenBy(gateway.name.clone()))?;
            }
            txn.put(GATEWAYS, gateway.name.as_bytes(), gateway)
        }
        Record::Listed(listed) => txn.put(LISTED, listed.address.as_bytes(), listed),
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
        Record::Person(person) => {
            if let Some(uid) = person.uid {
                txn.delete(ACCOUNTS, &uid.to_be_bytes())?;
            }
            txn.delete(PERSONS, &person.id)
        }
        Record::Shadow(shadow) => txn.delete(SHADOWS, &shadow.id),
        Record::Group(group) => txn.delete(GROUPS, &group.id),
        Record::Nickname(nickname) => txn.delete(NICKNAMES, &nickname_key(nickname)),
        Record::Gateway(gateway) => {
            for domain in &gateway.domains {
                txn.delete(GATEWAY_DOMAINS, domain.as_bytes())?;
            }
            txn.delete(GATEWAYS, gateway.name.as_bytes())
        }
        Record::Listed(listed) => txn.delete(LISTED, listed.address.as_bytes()),
    }
}

/// The key of a nickname's row.
pub fn nickname_key(nickname: &Nickname) -> Vec<u8> {
    key2(&nickname.owner, nickname.name.as_bytes())
}

/// The whole domains that the edge takes mail for now: a gateway or the catch-all has what nobody has.
fn rest(rows: &impl Rows) -> Result<Vec<(String, Option<shared::unit::Id>)>, StoreError> {
    let policy: PolicyRow = rows.get(POLICY, b"site")?.unwrap_or_default();
    let known = known_of_policy(rows, &policy)?;
    Ok(known.into_iter().filter(|(address, _)| address.starts_with('@')).collect())
}

/// Tells the edge where that is not as it was.
fn tell_of_rest(txn: &mut Txn<'_>, before: &[(String, Option<shared::unit::Id>)]) -> Result<(), StoreError> {
    let now = rest(txn)?;
    tell_difference(txn, before, &now)
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
