//! People: what is asked for when one is added or changed.

use serde::{Deserialize, Deserializer, Serialize};
use shared::id::random;
use shared::store::Rows;
use shared::topology::AttachmentMode;

use super::entry::{Person, Pop3};
use super::lookup::onward_address;
use super::naming::{self, ADDRESSES_MAX};
use super::policy::Policy;
use super::register::changed_after;
use crate::error::Refused;
use crate::record::{Named, OPEN_WINDOWS};

/// Addresses outside to which one person's mail goes on.
pub const FORWARDS_MAX: usize = 10;

/// The account that is nobody's (user_namespaces(7)).
const NOBODY: u32 = 65_534;

/// A new person, as asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewPerson {
    /// The local name.
    pub name: String,
    /// For From lines; empty means the name.
    pub display: String,
    /// More addresses.
    pub aliases: Vec<String>,
    /// Filing of attachments.
    pub filing: Option<AttachmentMode>,
    /// The number of their Unix account.
    pub uid: Option<u32>,
    /// Collecting on the road.
    #[serde(default)]
    pub pop3: Pop3,
    /// Addresses outside, or of a gateway, to which their mail goes on.
    #[serde(default)]
    pub forward: Vec<String>,
    /// Whether mail that goes on is filed here too.
    #[serde(default)]
    pub keep_copy: bool,
}

/// What changes of a person; what is `None` stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PersonChange {
    /// Name or address.
    pub name: String,
    /// For From lines; empty means the name.
    pub display: Option<String>,
    /// More addresses.
    pub add_aliases: Vec<String>,
    /// Addresses that go.
    pub remove_aliases: Vec<String>,
    /// Filing of attachments; `Some(None)` follows the site.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub filing: Option<Option<AttachmentMode>>,
    /// The number of their Unix account; `Some(None)` is none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub uid: Option<Option<u32>>,
    /// Collecting on the road.
    pub pop3: Option<Pop3>,
    /// Addresses outside, or of a gateway, to which their mail goes on.
    pub forward: Option<Vec<String>>,
    /// Whether mail that goes on is filed here too.
    pub keep_copy: Option<bool>,
}

/// The account, if it can be somebody's: for those that it cannot name, the kernel has one number.
fn account(uid: u32) -> Result<u32, Refused> {
    match uid {
        NOBODY | u32::MAX => {
            Err(Refused::new(format!("account {uid} stands for those that have none; choose another")))
        }
        uid => Ok(uid),
    }
}

/// A field that is there: `null` says something, and is not the same as nothing.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The person that is asked for, with an address in each of the site's domains.
pub fn new_person(rows: &impl Rows, policy: &Policy, new: NewPerson, now: u64) -> Result<Person, Refused> {
    let (name, mut addresses) = naming::names(policy, &new.name)?;
    add_aliases(policy, &mut addresses, &new.aliases)?;
    Ok(Person {
        id: random(),
        display: naming::display(&new.display, &new.name)?,
        name,
        addresses,
        filing: new.filing,
        uid: new.uid.map(account).transpose()?,
        pop3: new.pop3,
        forward: forwards(rows, policy, &new.forward)?,
        keep_copy: new.keep_copy,
        changed_at: now,
    })
}

/// The person as changed.
pub fn changed(
    rows: &impl Rows,
    policy: &Policy,
    person: &Person,
    change: PersonChange,
    now: u64,
) -> Result<Person, Refused> {
    let mut person = Person { changed_at: changed_after(person.changed_at, now), ..person.clone() };
    if let Some(display) = change.display {
        person.display = naming::display(&display, &person.name)?;
    }
    remove_aliases(policy, &person.name, &mut person.addresses, &change.remove_aliases)?;
    add_aliases(policy, &mut person.addresses, &change.add_aliases)?;
    person.filing = change.filing.unwrap_or(person.filing);
    if let Some(uid) = change.uid {
        person.uid = uid.map(account).transpose()?;
    }
    person.pop3 = change.pop3.unwrap_or(person.pop3);
    if let Some(forward) = change.forward {
        person.forward = forwards(rows, policy, &forward)?;
    }
    person.keep_copy = change.keep_copy.unwrap_or(person.keep_copy);
    if person.pop3 == Pop3::No && rows.get::<Named>(OPEN_WINDOWS, &person.id)?.is_some() {
        let text = format!("{} travels; `travel end {}` first", person.name, person.name);
        return Err(Refused::new(text));
    }
    Ok(person)
}

/// Adds aliases to an entry's addresses.
pub fn add_aliases(policy: &Policy, addresses: &mut Vec<String>, aliases: &[String]) -> Result<(), Refused> {
    for alias in aliases {
        let alias = naming::own_address(policy, alias)?;
        if !addresses.contains(&alias) {
            addresses.push(alias);
        }
    }
    match addresses.len() > ADDRESSES_MAX {
        true => Err(Refused::new(format!("nobody has more than {ADDRESSES_MAX} addresses; a group may do"))),
        false => Ok(()),
    }
}

/// Takes aliases from an entry's addresses; those of its own name stay.
pub fn remove_aliases(
    policy: &Policy,
    name: &str,
    addresses: &mut Vec<String>,
    aliases: &[String],
) -> Result<(), Refused> {
    for alias in aliases {
        let alias = naming::own_address(policy, alias)?;
        let (local, _) = alias.split_once('@').unwrap_or_default();
        if local == name {
            let text = format!("{alias} is the address of the name itself; it goes with `remove`");
            return Err(Refused::new(text));
        }
        let before = addresses.len();
        addresses.retain(|address| *address != alias);
        if addresses.len() == before {
            return Err(Refused::new(format!("{name} has no address {alias}")));
        }
    }
    Ok(())
}

fn forwards(rows: &impl Rows, policy: &Policy, forward: &[String]) -> Result<Vec<String>, Refused> {
    if forward.len() > FORWARDS_MAX {
        return Err(Refused::new(format!(
            "mail goes on to {FORWARDS_MAX} addresses at most; a group may do"
        )));
    }
    let onward = |text: &String| Ok(onward_address(rows, policy, text)?.to_string());
    forward.iter().map(onward).collect()
}
