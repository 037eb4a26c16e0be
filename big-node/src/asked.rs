//! What senders want to be told of whom (RFC 3461), as it is recorded when a message is taken in: NOTIFY and ORCPT of
//! each recipient that the envelope leads to (§5.2.7), and the groups of whose expansion a sender is to be told.
//!
//! Success is told to those only of whom it is known that they have asked: people inside, and senders outside for whose
//! reverse-path their domain has vouched. Otherwise anybody could have reports sent to anybody.

use std::collections::{HashMap, HashSet};

use shared::notify::{Notify, typed};
use shared::origin::{Channel, Origin, OriginalRecipient};
use shared::verdict;

use crate::directory::{Route, Routed};

/// What is asked of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of what the sender wants to be told, if they have said so.
    pub notify: Option<Notify>,
    /// The recipient that the sender named: as they say, or else the address that led to this one.
    pub original: Option<String>,
}

/// What is asked of each recipient, in their order. A group has been told of as a whole, and of a person who forwards
/// there is one success: in their mailbox, or else where the first forward goes.
pub fn of(origin: &Origin, routed: &[Routed]) -> Vec<Asked> {
    let (envelope, is_vouched) = (envelope(origin), is_vouched(origin));
    let is_kept = |routed: &&Routed| matches!(routed.route, Route::Mailbox(_)) && routed.forwarder.is_none();
    let mut told: HashSet<&str> = routed.iter().filter(is_kept).map(Routed::written).collect();
    let one = |routed| {
        let written = Routed::written(routed);
        let given = envelope.get(written);
        let is_told = is_vouched && !routed.in_group && (routed.forwarder.is_none() || told.insert(written));
        let notify = given.and_then(|given| given.asked());
        let alias = || routed.via.as_ref().and_then(|via| via.parse().ok());
        let original = given.and_then(|given| given.named()).map(ToOwned::to_owned).or_else(|| {
            let (kind, address) = typed(&alias()?);
            Some(format!("{kind};{address}"))
        });
        Asked { notify: if is_told { notify } else { notify.map(Notify::without_success) }, original }
    };
    routed.iter().map(one).collect()
}

/// The groups of whose expansion the sender wants to be told, each once.
pub fn expanded<'a>(origin: &'a Origin, routed: &[Routed]) -> Vec<&'a OriginalRecipient> {
    if !is_vouched(origin) {
        return Vec::new();
    }
    let (envelope, mut seen) = (envelope(origin), HashSet::new());
    let members =
        routed.iter().filter(|routed| routed.in_group && !matches!(routed.route, Route::Nowhere(..)));
    let groups = members.filter(|routed| seen.insert(routed.written()));
    let wants = |given: &&OriginalRecipient| given.asked().is_some_and(|notify| notify.success);
    groups.filter_map(|routed| envelope.get(routed.written()).copied()).filter(wants).collect()
}

/// The recipients of an envelope by their addresses. Of one that is named twice, the first counts, as for its way.
fn envelope(origin: &Origin) -> HashMap<&str, &OriginalRecipient> {
    let named = origin.recipients.iter().rev();
    named.map(|recipient| (recipient.address.as_str(), recipient)).collect()
}

/// Whether it is known that a message's sender has asked for what its envelope says. What is in Junk is told to nobody.
fn is_vouched(origin: &Origin) -> bool {
    match origin.channel {
        Channel::Desk { .. } | Channel::Submission { .. } => true,
        Channel::Reception { .. } => {
            let domain = origin.reverse_path.as_ref().and_then(|path| path.rsplit_once('@'));
            domain.is_some_and(|(_, domain)| verdict::vouches(&origin.verdicts, domain))
                && verdict::Disposition::of(&origin.verdicts) != verdict::Disposition::Quarantine
        }
        Channel::Report | Channel::Gateway { .. } => false,
    }
}
