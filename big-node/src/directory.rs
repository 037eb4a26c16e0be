//! The master directory: people and their addresses.

use shared::address::{Address, Domain};
use shared::id::random;
use shared::store::{BodyKey, Rows, StoreError, Stored, Txn};
use shared::topology::AttachmentMode;
use shared::unit::Id;

use crate::error::Refused;
use crate::record::{ADDRESSES, Holder, NAMES, Named, OPEN_WINDOWS, PERSONS, Person};
use crate::{projection, travel};

/// Role names that every domain has (RFC 5321 §4.5.1, RFC 2142): the postmaster reads them.
pub const ROLES: [&str; 2] = ["postmaster", "abuse"];

/// A new person, as asked for.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct NewPerson {
    /// The local name.
    pub name: String,
    /// For From lines; empty means the name.
    pub display: String,
    /// More addresses.
    pub aliases: Vec<String>,
    /// Filing of attachments.
    pub filing: Option<AttachmentMode>,
    /// The Unix account that may act as this person.
    pub uid: Option<u32>,
}

/// The person that is asked for, with an address in each of the site's domains.
pub fn new_person(domains: &[Domain], new: NewPerson) -> Result<Person, Refused> {
    let name = new.name.to_lowercase();
    if ROLES.contains(&name.as_str()) {
        let text = format!("{name} is a role that every domain has; its mail goes to the postmaster");
        return Err(Refused::new(text));
    }
    let mut addresses = Vec::new();
    for domain in domains {
        let address =
            Address::new(&name, domain).map_err(|error| Refused::new(format!("{name}: {error}")))?;
        addresses.push(address.canonical());
    }
    for alias in new.aliases {
        addresses.push(own_address(domains, &alias)?.canonical());
    }
    let display = if new.display.is_empty() { new.name } else { new.display };
    Ok(Person { id: random(), name, display, addresses, filing: new.filing, uid: new.uid })
}

/// The key under which a person's record lies in the segments, for a rebuild of the index.
pub fn record_key(person: &Id) -> BodyKey {
    BodyKey(*blake3::hash(person).as_bytes())
}

/// Adds a person, whose record has been written, and tells the edge.
pub fn add(txn: &mut Txn<'_>, person: &Person, record: &Stored) -> Result<(), Refused> {
    if txn.get::<Holder>(NAMES, person.name.as_bytes())?.is_some() {
        let text = format!("there is a person {} already; choose another name", person.name);
        return Err(Refused::new(text));
    }
    for address in &person.addresses {
        if txn.get::<Holder>(ADDRESSES, address.as_bytes())?.is_some() {
            return Err(Refused::new(format!("{address} belongs to somebody else")));
        }
        projection::tell_known(txn, address, Some(person.id))?;
    }
    txn.keep_body(record)?;
    Ok(enter(txn, person)?)
}

/// Writes a person's rows.
pub fn enter(txn: &mut Txn<'_>, person: &Person) -> Result<(), StoreError> {
    for address in &person.addresses {
        txn.put(ADDRESSES, address.as_bytes(), &Holder(person.id))?;
    }
    txn.put(NAMES, person.name.as_bytes(), &Holder(person.id))?;
    txn.put(PERSONS, &person.id, person)
}

fn own_address(domains: &[Domain], text: &str) -> Result<Address, Refused> {
    let address: Address = text.parse().map_err(|error| Refused::new(format!("{text}: {error}")))?;
    if !domains.contains(address.domain()) {
        return Err(Refused::new(format!(
            "{text} is not in a domain of this site; see [site] domains in the topology"
        )));
    }
    Ok(address)
}

/// Removes a person's name and addresses, and ends their travel window. The mail stays in the store until it is deleted.
pub fn remove(txn: &mut Txn<'_>, name: &str, postmaster: &str, now: u64) -> Result<Person, Refused> {
    let person = by_name(txn, name)?;
    if person.name == postmaster {
        let text = format!(
            "{} reads the postmaster's mail; name somebody else in [site] postmaster first",
            person.name
        );
        return Err(Refused::new(text));
    }
    if let Some(Named(window)) = txn.get(OPEN_WINDOWS, &person.id)? {
        travel::close(txn, &window, true, now)?;
    }
    for address in &person.addresses {
        txn.delete(ADDRESSES, address.as_bytes())?;
        projection::tell_gone(txn, address)?;
    }
    txn.delete(NAMES, person.name.as_bytes())?;
    txn.delete(PERSONS, &person.id)?;
    txn.release_body(record_key(&person.id))?;
    Ok(person)
}

/// Everyone, by name.
pub fn list(rows: &impl Rows) -> Result<Vec<Person>, StoreError> {
    let mut people: Vec<Person> =
        rows.prefix(PERSONS, &[], usize::MAX)?.into_iter().map(|(_, p)| p).collect();
    people.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(people)
}

/// The person with this local name or address.
pub fn by_name(rows: &impl Rows, name: &str) -> Result<Person, Refused> {
    let name = name.to_lowercase();
    let holder = match name.contains('@') {
        true => rows.get::<Holder>(ADDRESSES, name.as_bytes())?,
        false => rows.get::<Holder>(NAMES, name.as_bytes())?,
    };
    match holder {
        Some(Holder(id)) => by_id(rows, &id)?.ok_or_else(|| unknown(&name)),
        None => Err(unknown(&name)),
    }
}

fn unknown(name: &str) -> Refused {
    Refused::new(format!("there is no person {name}; `person list` shows who there is"))
}

/// The person with this id.
pub fn by_id(rows: &impl Rows, id: &Id) -> Result<Option<Person>, StoreError> {
    rows.get(PERSONS, id)
}

/// The person whom mail to `address` reaches: exact, then without its tag, then a role's holder.
pub fn lookup(rows: &impl Rows, address: &Address, postmaster: &str) -> Result<Option<Person>, StoreError> {
    for candidate in [Some(address.clone()), address.without_tag()].into_iter().flatten() {
        if let Some(Holder(id)) = rows.get(ADDRESSES, candidate.canonical().as_bytes())? {
            return by_id(rows, &id);
        }
    }
    if ROLES.contains(&address.local_part().to_lowercase().as_str()) {
        return postmaster_person(rows, postmaster);
    }
    Ok(None)
}

/// The person who reads the postmaster's mail, once there is one.
pub fn postmaster_person(rows: &impl Rows, postmaster: &str) -> Result<Option<Person>, StoreError> {
    match rows.get::<Holder>(NAMES, postmaster.to_lowercase().as_bytes())? {
        Some(Holder(id)) => by_id(rows, &id),
        None => Ok(None),
    }
}
