//! Nicknames: one person's own names for others.

use shared::address::canonical_local;
use shared::id::random;
use shared::store::{Rows, StoreError};

use super::entry::{Nickname, Person};
use super::group::member;
use super::lookup::by_id;
use super::naming::{self, shown};
use super::policy::Policy;
use super::register::changed_after;
use crate::error::Refused;
use crate::record::{NICKNAMES, key2};

/// Nicknames of one person.
pub const NICKNAMES_MAX: usize = 1000;

/// The nickname that is asked for: `name` for what `target` means in the directory, or outside.
pub fn new_nickname(
    rows: &impl Rows,
    policy: &Policy,
    owner: &Person,
    name: &str,
    target: &str,
    now: u64,
) -> Result<Nickname, Refused> {
    let name = naming::local_name(name)?;
    let target = member(rows, policy, target)?;
    Ok(Nickname { id: random(), owner: owner.id, name, target, changed_at: now })
}

/// The nickname, for another target.
pub fn retargeted(
    rows: &impl Rows,
    policy: &Policy,
    nickname: &Nickname,
    target: &str,
    now: u64,
) -> Result<Nickname, Refused> {
    let changed_at = changed_after(nickname.changed_at, now);
    Ok(Nickname { target: member(rows, policy, target)?, changed_at, ..nickname.clone() })
}

/// Refuses a nickname that its owner, who has to be there still, has for something else already, and one too
/// many.
pub fn free(rows: &impl Rows, nickname: &Nickname) -> Result<(), Refused> {
    let Some(owner) = by_id(rows, &nickname.owner)? else {
        return Err(Refused::new("whose nickname it would be is not here any more"));
    };
    match find(rows, &owner, &nickname.name)? {
        Some(other) if other.id == nickname.id => Ok(()),
        Some(_) => Err(Refused::new(format!(
            "{} has a nickname {} already; change it with `set`",
            owner.name, nickname.name
        ))),
        None if of(rows, &owner)?.len() >= NICKNAMES_MAX => {
            Err(Refused::new(format!("{} has {NICKNAMES_MAX} nicknames already", owner.name)))
        }
        None => Ok(()),
    }
}

/// What `name` means to `owner`.
pub fn find(rows: &impl Rows, owner: &Person, name: &str) -> Result<Option<Nickname>, StoreError> {
    rows.get(NICKNAMES, &key2(&owner.id, canonical_local(name).as_bytes()))
}

/// The same, which has to be there.
pub fn known(rows: &impl Rows, owner: &Person, name: &str) -> Result<Nickname, Refused> {
    find(rows, owner, name)?.ok_or_else(|| {
        let text = format!("{} has no nickname {}; `nickname list` shows them", owner.name, shown(name));
        Refused::new(text)
    })
}

/// All of a person's, by name.
pub fn of(rows: &impl Rows, owner: &Person) -> Result<Vec<Nickname>, StoreError> {
    let found = rows.prefix::<Nickname>(NICKNAMES, &owner.id, usize::MAX)?;
    Ok(found.into_iter().map(|(_, nickname)| nickname).collect())
}
