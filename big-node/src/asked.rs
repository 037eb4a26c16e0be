//! What senders want to be told of whom (RFC 3461), as it is recorded when a message is taken in: NOTIFY and ORCPT of
//! each recipient that the envelope leads to (§5.2.7), and the groups of whose expansion a sender is to be told.
//!
//! Success is told to those only of whom it is known that they have asked: people inside, and senders outside for whose
//! reverse-path somebody vouches. Otherwise anybody could have reports sent to anybody.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use shared::address::Address;
use shared::notify::{Notify, is_original_recipient, typed};
use shared::origin::{Channel, Origin};
use shared::verdict;

use crate::directory::{Route, Routed};
use crate::record::StandIn;

/// What is asked of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of what the sender wants to be told, if they have said so.
    pub notify: Option<Notify>,
    /// The recipient that the sender named: as they say, or else the address that led to this one.
    pub original: Option<String>,
    /// Who is told of a failure, if that is not the sender.
    pub stand_in: Option<StandIn>,
}

/// What is asked of each recipient, in their order. Of one who is reached by several ways each counts: a failure is told
/// if it is to be by any of them. A group has been told of as a whole, and of a person who forwards there is one
/// success: in their mailbox, or else where the first forward goes.
pub fn of(origin: &Origin, routed: &[Routed]) -> Vec<Asked> {
    let (envelope, is_vouched) = (envelope(origin), is_vouched(origin));
    let kept = routed.iter().filter(|routed| matches!(routed.route, Route::Mailbox(_))).flat_map(leads);
    let mut told: HashSet<&str> = kept.filter(|lead| !lead.is_forwarded).map(|lead| lead.written).collect();
    let one = |routed| {
        let wishes = leads(routed).map(|lead| {
            let wish = envelope.get(lead.written).and_then(|wish| wish.notify);
            let is_told = is_vouched && !lead.in_group && (!lead.is_forwarded || told.insert(lead.written));
            if is_told { wish } else { wish.map(Notify::without_success) }
        });
        let notify = wishes.reduce(merged).flatten();
        let alias = || routed.via.as_ref().and_then(|via| via.parse().ok());
        let named = envelope.get(routed.written()).and_then(|wish| wish.named).map(ToOwned::to_owned);
        let original = named.or_else(|| {
            let (kind, address) = typed(&alias()?);
            Some(format!("{kind};{address}")).filter(|original| is_original_recipient(original))
        });
        Asked { notify, original, stand_in: stand_in(origin, is_vouched, routed) }
    };
    routed.iter().map(one).collect()
}

/// Who is told that a recipient's copy could not go on, in the place of a sender for whom nobody vouches: whether it was to
/// go outside or to a system behind a gateway. Of a null reverse-path nobody is told.
fn stand_in(origin: &Origin, is_vouched: bool, routed: &Routed) -> Option<StandIn> {
    let is_strangers = matches!(origin.channel, Channel::Reception { .. }) && origin.reverse_path.is_some();
    match (&routed.route, &routed.forwarder) {
        _ if is_vouched || !is_strangers => None,
        (Route::Outside(..), Some(forwarder)) => Some(StandIn::Forwarder(forwarder.person)),
        (Route::Outside(..), None) => Some(StandIn::Postmaster),
        (Route::Mailbox(_) | Route::Nowhere(..), _) => None,
    }
}

/// A way by which a recipient was reached.
struct Lead<'a> {
    written: &'a str,
    is_forwarded: bool,
    in_group: bool,
}

fn leads(routed: &Routed) -> impl Iterator<Item = Lead<'_>> {
    let (is_forwarded, in_group) = (routed.forwarder.is_some(), routed.in_group);
    let first = Lead { written: routed.written(), is_forwarded, in_group };
    let also = routed.also.iter();
    let also = also.map(|lead| Lead {
        written: &lead.written,
        is_forwarded: lead.is_forwarded,
        in_group: lead.in_group,
    });
    std::iter::once(first).chain(also)
}

/// Two wishes as one. Without one, failures and delays are told.
fn merged(one: Option<Notify>, other: Option<Notify>) -> Option<Notify> {
    const UNSAID: Notify = Notify { success: false, failure: true, delay: true };
    if one.is_none() && other.is_none() {
        return None;
    }
    let (one, other) = (one.unwrap_or(UNSAID), other.unwrap_or(UNSAID));
    Some(Notify {
        success: one.success || other.success,
        failure: one.failure || other.failure,
        delay: one.delay || other.delay,
    })
}

/// The groups of whose expansion the sender wants to be told, each once: its address, and ORCPT if it was given.
pub fn expanded<'a>(origin: &'a Origin, routed: &[Routed]) -> Vec<(&'a str, Option<&'a str>)> {
    if !is_vouched(origin) {
        return Vec::new();
    }
    let (envelope, mut seen) = (envelope(origin), HashSet::new());
    let reached = routed.iter().filter(|routed| !matches!(routed.route, Route::Nowhere(..)));
    let groups = reached.flat_map(leads).filter(|lead| lead.in_group && seen.insert(lead.written));
    let wishes = groups.filter_map(|group| envelope.get_key_value(group.written));
    let wants = |wish: &Wish<'_>| wish.notify.is_some_and(|notify| notify.success);
    wishes.filter(|(_, wish)| wants(wish)).map(|(written, wish)| (*written, wish.named)).collect()
}

/// What an envelope asks of one address.
struct Wish<'a> {
    notify: Option<Notify>,
    named: Option<&'a str>,
}

/// What is asked of each address of an envelope. Of one that is named twice, both count.
fn envelope(origin: &Origin) -> HashMap<&str, Wish<'_>> {
    let mut wishes: HashMap<&str, Wish<'_>> = HashMap::new();
    for recipient in &origin.recipients {
        let (notify, named) = (recipient.asked(), recipient.named());
        match wishes.entry(&recipient.address) {
            Entry::Occupied(mut earlier) => {
                let earlier = earlier.get_mut();
                earlier.notify = merged(earlier.notify, notify);
                earlier.named = earlier.named.or(named);
            }
            Entry::Vacant(first) => drop(first.insert(Wish { notify, named })),
        }
    }
    wishes
}

/// Whether it is known that a message's sender has asked for what its envelope says. What is in Junk is told to nobody.
fn is_vouched(origin: &Origin) -> bool {
    match origin.channel {
        Channel::Desk { .. } | Channel::Submission { .. } => true,
        Channel::Reception { .. } => {
            is_senders(origin)
                && verdict::Disposition::of(&origin.verdicts) != verdict::Disposition::Quarantine
        }
        Channel::Report | Channel::Gateway { .. } => false,
    }
}

/// Whether the reverse-path of mail from outside is its sender's. A signature is of the message, not of the envelope:
/// whoever has a signed message can send it again under anybody's address. So it counts for its one author only, who
/// can be told of nothing but what they have written.
fn is_senders(origin: &Origin) -> bool {
    let path = origin.reverse_path.as_ref().and_then(|path| path.parse::<Address>().ok());
    let Some(path) = path else { return false };
    let domain = path.domain().as_str();
    let is_author = || {
        let [author] = origin.from.as_slice() else { return false };
        let author = author.address.parse::<Address>();
        author.is_ok_and(|author| author.canonical() == path.canonical())
    };
    verdict::may_send(&origin.verdicts, domain)
        || (verdict::is_signed_by(&origin.verdicts, domain) && is_author())
}
