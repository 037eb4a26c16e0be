//! The master directory: people, shadows, groups and nicknames, in one namespace of names and addresses.
//!
//! `entry` is what there is, `naming` what a name may be, `person`, `shadow`, `group` and `nickname` how
//! each kind is made and changed, `gateway` the mail systems inside that take whole domains, `register` how entries come and go. `lookup` says whose an address is,
//! `route` where its mail goes, `resolve` what a person means who types a recipient, `explain` tells it
//! all without sending. `srs` makes the addresses by which reports about forwarded mail come home, `table`
//! is entries as CSV, `import` many at once.

pub mod entry;
pub mod explain;
mod gateway;
mod group;
mod import;
mod lookup;
mod naming;
mod nickname;
mod person;
mod policy;
mod register;
mod resolve;
mod route;
mod shadow;
pub mod srs;
mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use entry::RECORD_KIND;
pub use explain::explain;
pub use gateway::{
    GatewayChange, NewGateway, Reach, all as gateways, changed as changed_gateway, known as known_gateway,
    known_listed, listed, new_gateway, new_listed, of_name as gateway,
};
pub use group::{GroupChange, NewGroup, changed as changed_group, join, member_name, nesting, new_group};
pub use import::{BadRow, Imported, Importing, import};
pub use lookup::{by_id, by_name, entry, groups, known, list, of_account, postmaster_person, shadows};
pub use naming::shown;
pub use nickname::{known as known_nickname, new_nickname, of as nicknames, retargeted};
pub use person::{NewPerson, PersonChange, changed as changed_person, new_person};
pub use policy::{Policy, settle};
pub use register::{add, remove, replace, restore};
pub use resolve::{Resolved, resolve};
pub use route::{Letter, Route, Routed, Wanted, Way, route};
pub use shadow::{NewShadow, ShadowChange, changed as changed_shadow, new_shadow};
pub use table::{Rowed, export};

/// Role names that every domain has (RFC 5321 §4.5.1, RFC 2142): the postmaster reads them.
pub const ROLES: [&str; 2] = ["postmaster", "abuse"];
