//! Shadows: local names for people outside.

use serde::{Deserialize, Serialize};
use shared::id::random;
use shared::store::Rows;

use super::entry::Shadow;
use super::lookup::onward_address;
use super::naming;
use super::person::{add_aliases, remove_aliases};
use super::policy::Policy;
use super::register::changed_after;
use crate::error::Refused;

/// A new shadow, as asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewShadow {
    /// The local name.
    pub name: String,
    /// The address outside, or of a gateway.
    pub target: String,
    /// For To lines; empty means the name.
    pub display: String,
    /// More addresses here.
    pub aliases: Vec<String>,
}

/// What changes of a shadow; what is `None` stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShadowChange {
    /// Name or address here.
    pub name: String,
    /// The address outside, or of a gateway.
    pub target: Option<String>,
    /// For To lines; empty means the name.
    pub display: Option<String>,
    /// More addresses here.
    pub add_aliases: Vec<String>,
    /// Addresses here that go.
    pub remove_aliases: Vec<String>,
}

/// The shadow that is asked for, with an address in each of the site's domains.
pub fn new_shadow(rows: &impl Rows, policy: &Policy, new: NewShadow, now: u64) -> Result<Shadow, Refused> {
    let (name, mut addresses) = naming::names(policy, &new.name)?;
    add_aliases(policy, &mut addresses, &new.aliases)?;
    Ok(Shadow {
        id: random(),
        display: naming::display(&new.display, &new.name)?,
        name,
        addresses,
        target: onward_address(rows, policy, &new.target)?.to_string(),
        changed_at: now,
    })
}

/// The shadow as changed.
pub fn changed(
    rows: &impl Rows,
    policy: &Policy,
    shadow: &Shadow,
    change: ShadowChange,
    now: u64,
) -> Result<Shadow, Refused> {
    let mut shadow = Shadow { changed_at: changed_after(shadow.changed_at, now), ..shadow.clone() };
    if let Some(target) = change.target {
        shadow.target = onward_address(rows, policy, &target)?.to_string();
    }
    if let Some(display) = change.display {
        shadow.display = naming::display(&display, &shadow.name)?;
    }
    remove_aliases(policy, &shadow.name, &mut shadow.addresses, &change.remove_aliases)?;
    add_aliases(policy, &mut shadow.addresses, &change.add_aliases)?;
    Ok(shadow)
}
