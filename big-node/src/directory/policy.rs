//! What the topology and the node's keys say of addresses.

use std::collections::BTreeMap;

use shared::address::{Domain, canonical_local};
use shared::store::{Rows, StoreError, Txn};
use shared::topology::Topology;
use shared::unit::Id;

use super::entry::PolicyRow;
use super::lookup::known_of_policy;
use super::srs;
use crate::projection;
use crate::record::POLICY;

/// The context in which the key of returning addresses is derived; never changes.
const SRS_CONTEXT: &str = "Sallypost 2026-11-25 returning addresses of forwarded mail";

/// What routing goes by besides the directory itself.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our domains; the first is the one we write as.
    pub domains: Vec<Domain>,
    /// The name of the person who reads the postmaster's mail.
    pub postmaster: String,
    /// The name that takes mail for names that nobody has in a domain.
    pub catch_all: BTreeMap<Domain, String>,
    /// The name that our edge writes into Received.
    pub edge: String,
    /// Under which returning addresses are made.
    pub srs_key: srs::Key,
}

impl Policy {
    /// As `topology` says it; `secret` is one of this node's own.
    pub fn of(topology: &Topology, secret: &[u8; 32]) -> Self {
        let catch_all = topology.site.catch_all.iter();
        Self {
            domains: topology.site.domains.clone(),
            postmaster: canonical_local(topology.site.postmaster.local_part()),
            catch_all: catch_all
                .map(|(domain, name)| (domain.clone(), canonical_local(name.local_part())))
                .collect(),
            edge: topology.edge.hostname.to_string(),
            srs_key: srs::Key(blake3::derive_key(SRS_CONTEXT, secret)),
        }
    }

    /// Whether `domain` is ours.
    pub fn is_ours(&self, domain: &Domain) -> bool {
        self.domains.contains(domain)
    }

    fn row(&self) -> PolicyRow {
        let domains = self.domains.iter().map(ToString::to_string).collect();
        let catch_all =
            self.catch_all.iter().map(|(domain, name)| (domain.to_string(), name.clone())).collect();
        PolicyRow { domains, catch_all }
    }
}

/// Remembers what the topology says now, and tells the edge what that changes.
pub fn settle(txn: &mut Txn<'_>, policy: &Policy) -> Result<(), StoreError> {
    let before: PolicyRow = txn.get(POLICY, b"site")?.unwrap_or_default();
    let now = policy.row();
    if before == now {
        return Ok(());
    }
    let (old, new) = (known_of_policy(txn, &before)?, known_of_policy(txn, &now)?);
    txn.put(POLICY, b"site", &now)?;
    tell_difference(txn, &old, &new)
}

/// An address that the edge has to know, and into whose mailbox its mail goes.
type Known = (String, Option<Id>);

/// Tells the edge what it has to know now, where it was told something else.
pub fn tell_difference(txn: &mut Txn<'_>, old: &[Known], new: &[Known]) -> Result<(), StoreError> {
    for (gone, _) in old.iter().filter(|(old, _)| new.iter().all(|(new, _)| new != old)) {
        projection::tell_gone(txn, gone)?;
    }
    for (address, person) in new.iter().filter(|known| !old.contains(known)) {
        projection::tell_known(txn, address, *person)?;
    }
    Ok(())
}
