//! Groups: names for several, who may be groups again.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use shared::address::Address;
use shared::id::random;
use shared::store::{Rows, StoreError};
use shared::unit::Id;

use super::entry::{Group, Holder, Kind, Member, Record};
use super::lookup::{Owner, find, holder, record_of};
use super::naming::{self, shown};
use super::person::{add_aliases, remove_aliases};
use super::policy::Policy;
use super::register::changed_after;
use crate::error::Refused;
use crate::record::GROUPS;

/// Members of one group.
pub const MEMBERS_MAX: usize = 5000;
/// How deep groups are nested in groups.
pub const DEPTH_MAX: usize = 16;

/// A new group, as asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewGroup {
    /// The local name.
    pub name: String,
    /// For To lines; empty means the name.
    pub display: String,
    /// Names, addresses here, or addresses outside.
    pub members: Vec<String>,
    /// More addresses.
    pub aliases: Vec<String>,
}

/// What changes of a group; what is `None` stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GroupChange {
    /// Name or address.
    pub name: String,
    /// For To lines; empty means the name.
    pub display: Option<String>,
    /// Who joins.
    pub add_members: Vec<String>,
    /// Who leaves.
    pub remove_members: Vec<String>,
    /// More addresses.
    pub add_aliases: Vec<String>,
    /// Addresses that go.
    pub remove_aliases: Vec<String>,
}

/// The group that is asked for, with an address in each of the site's domains and no members yet: they
/// may be entered together with it.
pub fn new_group(policy: &Policy, new: &NewGroup, now: u64) -> Result<Group, Refused> {
    let (name, mut addresses) = naming::names(policy, &new.name)?;
    add_aliases(policy, &mut addresses, &new.aliases)?;
    let display = naming::display(&new.display, &new.name)?;
    Ok(Group { id: random(), name, display, addresses, members: Vec::new(), changed_at: now })
}

/// The group as changed.
pub fn changed(
    rows: &impl Rows,
    policy: &Policy,
    group: &Group,
    change: GroupChange,
    now: u64,
) -> Result<Group, Refused> {
    let mut group = Group { changed_at: changed_after(group.changed_at, now), ..group.clone() };
    if let Some(display) = change.display {
        group.display = naming::display(&display, &group.name)?;
    }
    remove_aliases(policy, &group.name, &mut group.addresses, &change.remove_aliases)?;
    add_aliases(policy, &mut group.addresses, &change.add_aliases)?;
    for text in &change.remove_members {
        let gone = member(rows, policy, text)?;
        let before = group.members.len();
        group.members.retain(|member| comparable(member) != comparable(&gone));
        if group.members.len() == before {
            return Err(Refused::new(format!("{} is not a member of {}", shown(text), group.name)));
        }
    }
    join(rows, policy, &mut group, &change.add_members)?;
    nesting(rows, &group)?;
    Ok(group)
}

/// Adds members to a group; [`nesting`] says whether it may have them.
pub fn join(rows: &impl Rows, policy: &Policy, group: &mut Group, members: &[String]) -> Result<(), Refused> {
    let mut there: HashSet<Member> = group.members.iter().map(comparable).collect();
    for text in members {
        let new = member(rows, policy, text)?;
        if there.insert(comparable(&new)) {
            group.members.push(new);
        }
    }
    match group.members.len() > MEMBERS_MAX {
        true => {
            Err(Refused::new(format!("a group has {MEMBERS_MAX} members at most; make groups of groups")))
        }
        false => Ok(()),
    }
}

/// Refuses a group that would contain itself, and one whose groups are nested too deep.
pub fn nesting(rows: &impl Rows, group: &Group) -> Result<(), Refused> {
    no_cycle(rows, group.id, &group.members, &mut vec![group.name.clone()], &mut HashSet::new())
}

/// A member as it is compared: an address outside in its canonical form.
fn comparable(member: &Member) -> Member {
    match member {
        Member::Outside(text) => {
            let address = text.parse::<Address>();
            Member::Outside(address.map_or_else(|_| text.clone(), |address| address.canonical()))
        }
        entry => entry.clone(),
    }
}

/// Whom a member's text means: an entry by name or address, or an address outside.
pub fn member(rows: &impl Rows, policy: &Policy, text: &str) -> Result<Member, Refused> {
    if let Some(holder) = holder(rows, text)? {
        return Ok(Member::Entry(holder));
    }
    let nobody = || Refused::new(format!("{}: there is nobody of that name here", shown(text)));
    if !text.contains('@') {
        return Err(nobody());
    }
    let address = naming::parsed(text)?;
    // What a gateway has of a domain of ours is outside, too.
    match policy.is_ours(address.domain()).then(|| find(rows, policy, &address)).transpose()? {
        None | Some(Some(Owner::Gateway(_))) => Ok(Member::Outside(address.to_string())),
        Some(_) => Err(nobody()),
    }
}

/// `cleared` are groups that were looked at, each with the depth at which it was.
fn no_cycle(
    rows: &impl Rows,
    root: Id,
    members: &[Member],
    way: &mut Vec<String>,
    cleared: &mut HashSet<(Id, usize)>,
) -> Result<(), Refused> {
    for member in members {
        let Member::Entry(Holder { kind: Kind::Group, id }) = member else { continue };
        if *id == root {
            let text = format!("{} would contain itself: {} > {}", way[0], way.join(" > "), way[0]);
            return Err(Refused::new(text));
        }
        if !cleared.insert((*id, way.len())) {
            continue;
        }
        let Some(inner) = rows.get::<Group>(GROUPS, id)? else { continue };
        way.push(inner.name);
        if way.len() > DEPTH_MAX {
            let text = format!("groups are nested {DEPTH_MAX} deep at most, not {}", way.join(" > "));
            return Err(Refused::new(text));
        }
        no_cycle(rows, root, &inner.members, way, cleared)?;
        way.pop();
    }
    Ok(())
}

/// What a member is called: a name, or an address outside; `None` for one that was removed.
pub fn member_name(rows: &impl Rows, member: &Member) -> Result<Option<String>, StoreError> {
    Ok(match member {
        Member::Outside(address) => Some(address.clone()),
        Member::Entry(holder) => record_of(rows, *holder)?.map(|record: Record| record.name().to_owned()),
    })
}
