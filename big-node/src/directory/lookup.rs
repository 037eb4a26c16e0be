//! Who is meant: by id, by name, by address; and everything that the edge has to know.

use shared::address::{Address, canonical_local};
use shared::store::{Rows, StoreError};
use shared::unit::Id;

use super::ROLES;
use super::entry::{Group, Holder, Kind, Person, PolicyRow, Record, Shadow};
use super::gateway;
use super::naming::{self, shown};
use super::policy::Policy;
use super::srs;
use crate::error::Refused;
use crate::record::{ACCOUNTS, ADDRESSES, GROUPS, NAMES, Named, PERSONS, POLICY, SHADOWS};

/// Why an address is somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is theirs.
    Exact,
    /// It is theirs with a tag behind a `+`.
    WithoutTag,
    /// A role that every domain has: the postmaster's.
    Role,
    /// Nobody has it, and somebody takes what nobody has.
    CatchAll,
}

/// Who takes the mail to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An entry, and why.
    Entry(Holder, Rule),
    /// The gateway of this name: nobody has the address, and it takes the rest of the domain.
    Gateway(String),
}

/// Whose mail to `address`, in a domain of ours, is: exact, then without its tag, then a role's holder, then
/// the gateway, if it takes every name or this one, or else the entry that takes the rest.
pub fn find(rows: &impl Rows, policy: &Policy, address: &Address) -> Result<Option<Owner>, StoreError> {
    let base = address.without_tag();
    for (candidate, rule) in [(Some(address), Rule::Exact), (base.as_ref(), Rule::WithoutTag)] {
        let Some(candidate) = candidate else { continue };
        if let Some(holder) = rows.get(ADDRESSES, candidate.canonical().as_bytes())? {
            return Ok(Some(Owner::Entry(holder, rule)));
        }
    }
    let local = canonical_local(base.as_ref().unwrap_or(address).local_part());
    let (name, rule) = match ROLES.contains(&local.as_str()) {
        true => (Some(&policy.postmaster), Rule::Role),
        false => match gateway::of_domain(rows, address.domain().as_str())? {
            Some(gateway) if taken(rows, &gateway, address, base.as_ref())? => {
                return Ok(Some(Owner::Gateway(gateway)));
            }
            _ => (policy.catch_all.get(address.domain()), Rule::CatchAll),
        },
    };
    let Some(name) = name else { return Ok(None) };
    let holder: Option<Holder> = rows.get(NAMES, name.as_bytes())?;
    Ok(holder.map(|holder| Owner::Entry(holder, rule)))
}

fn taken(
    rows: &impl Rows,
    gateway: &str,
    address: &Address,
    base: Option<&Address>,
) -> Result<bool, StoreError> {
    let candidates: Vec<_> = [Some(address), base].into_iter().flatten().map(Address::canonical).collect();
    gateway::takes(rows, gateway, candidates.iter().map(String::as_str))
}

/// An address to which mail goes on: outside, or one in a domain of ours that a gateway has. One that somebody
/// here has is refused, for it may lead back.
pub fn onward_address(rows: &impl Rows, policy: &Policy, text: &str) -> Result<Address, Refused> {
    let address = naming::parsed(text)?;
    if policy.is_ours(address.domain()) && !matches!(find(rows, policy, &address)?, Some(Owner::Gateway(_))) {
        return Err(Refused::new(format!(
            "{} is an address here; one outside is wanted, or one that a gateway takes",
            shown(text)
        )));
    }
    Ok(address)
}

/// The entry behind a name or an address.
pub fn record_of(rows: &impl Rows, holder: Holder) -> Result<Option<Record>, StoreError> {
    Ok(match holder.kind {
        Kind::Person => by_id(rows, &holder.id)?.map(Record::Person),
        Kind::Shadow => rows.get(SHADOWS, &holder.id)?.map(Record::Shadow),
        Kind::Group => rows.get(GROUPS, &holder.id)?.map(Record::Group),
    })
}

/// The person with this id.
pub fn by_id(rows: &impl Rows, id: &Id) -> Result<Option<Person>, StoreError> {
    rows.get(PERSONS, id)
}

/// The person whose Unix account this is.
pub fn of_account(rows: &impl Rows, uid: u32) -> Result<Option<Person>, StoreError> {
    let Some(Named(id)) = rows.get(ACCOUNTS, &uid.to_be_bytes())? else { return Ok(None) };
    by_id(rows, &id)
}

/// The holder of this local name or address.
pub fn holder(rows: &impl Rows, name: &str) -> Result<Option<Holder>, StoreError> {
    match name.parse::<Address>() {
        Ok(address) => rows.get(ADDRESSES, address.canonical().as_bytes()),
        Err(_) => rows.get(NAMES, canonical_local(name).as_bytes()),
    }
}

/// The entry of this kind with this local name or address.
pub fn entry(rows: &impl Rows, kind: Kind, name: &str) -> Result<Record, Refused> {
    let word = kind.as_str();
    let found = holder(rows, name)?;
    if let Some(holder) = found.filter(|holder| holder.kind == kind)
        && let Some(record) = record_of(rows, holder)?
    {
        return Ok(record);
    }
    let other =
        found.map_or_else(String::new, |other| format!("; there is a {} of that name", other.kind.as_str()));
    Err(Refused::new(format!("there is no {word} {}{other}; `{word} list` shows who there is", shown(name))))
}

/// The person with this local name or address.
pub fn by_name(rows: &impl Rows, name: &str) -> Result<Person, Refused> {
    match entry(rows, Kind::Person, name)? {
        Record::Person(person) => Ok(person),
        _ => Err(Refused::new(format!("{} is no person", shown(name)))),
    }
}

/// The person who reads the postmaster's mail, once there is one.
pub fn postmaster_person(rows: &impl Rows, policy: &Policy) -> Result<Option<Person>, StoreError> {
    match rows.get::<Holder>(NAMES, policy.postmaster.as_bytes())? {
        Some(holder) => person_of(rows, holder),
        None => Ok(None),
    }
}

/// The person behind a name, if it is a person's.
fn person_of(rows: &impl Rows, holder: Holder) -> Result<Option<Person>, StoreError> {
    match holder.kind {
        Kind::Person => by_id(rows, &holder.id),
        Kind::Shadow | Kind::Group => Ok(None),
    }
}

/// Everyone, by name.
pub fn list(rows: &impl Rows) -> Result<Vec<Person>, StoreError> {
    let mut people: Vec<Person> = all(rows.prefix(PERSONS, &[], usize::MAX)?);
    people.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(people)
}

/// Every shadow, by name.
pub fn shadows(rows: &impl Rows) -> Result<Vec<Shadow>, StoreError> {
    let mut shadows: Vec<Shadow> = all(rows.prefix(SHADOWS, &[], usize::MAX)?);
    shadows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(shadows)
}

/// Every group, by name.
pub fn groups(rows: &impl Rows) -> Result<Vec<Group>, StoreError> {
    let mut groups: Vec<Group> = all(rows.prefix(GROUPS, &[], usize::MAX)?);
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(groups)
}

fn all<R>(rows: Vec<(Vec<u8>, R)>) -> Vec<R> {
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Every canonical address that takes mail, and into whose mailbox, as the edge has to know it. A domain
/// in which every name takes mail is `@domain`.
pub fn known(rows: &impl Rows) -> Result<Vec<(String, Option<Id>)>, StoreError> {
    let people =
        rows.prefix::<Person>(PERSONS, &[], usize::MAX)?.into_iter().map(|(_, row)| Record::Person(row));
    let shadows =
        rows.prefix::<Shadow>(SHADOWS, &[], usize::MAX)?.into_iter().map(|(_, row)| Record::Shadow(row));
    let groups =
        rows.prefix::<Group>(GROUPS, &[], usize::MAX)?.into_iter().map(|(_, row)| Record::Group(row));
    let mut known = Vec::new();
    for record in people.chain(shadows).chain(groups) {
        known.extend(record.addresses().iter().map(|address| (address.clone(), record.mailbox())));
    }
    known.extend(gateway::listed_and_taken(rows)?.into_iter().map(|listed| (listed.address, None)));
    let policy: PolicyRow = rows.get(POLICY, b"site")?.unwrap_or_default();
    known.extend(known_of_policy(rows, &policy)?);
    Ok(known)
}

/// What the edge has to know because the topology or a gateway says so.
pub fn known_of_policy(
    rows: &impl Rows,
    policy: &PolicyRow,
) -> Result<Vec<(String, Option<Id>)>, StoreError> {
    let returning = policy.domains.first().map(|first| (format!("{}@{first}", srs::NAME), None));
    let mut known: Vec<_> = returning.into_iter().collect();
    for domain in &policy.domains {
        if let Some(gateway) = gateway::of_domain(rows, domain)?
            && gateway::takes_any(rows, &gateway)?
        {
            known.push((format!("@{domain}"), None));
            continue;
        }
        let Some((_, name)) = policy.catch_all.iter().find(|(of, _)| of == domain) else { continue };
        let holder = rows.get::<Holder>(NAMES, name.as_bytes())?;
        if let Some(record) = holder.map(|holder| record_of(rows, holder)).transpose()?.flatten() {
            known.push((format!("@{domain}"), record.mailbox()));
        }
    }
    Ok(known)
}
