//! Mail that waits to leave, and is sent to another address.

use big_node::harness::Big;
use shared::unit::{DeliveryState, Id, ReviseResult};

use super::{OUTSIDE, Play, named};
use crate::ledger::{Outbound, Outcome, Redirected};
use crate::world::Who;

impl Play {
    /// An operator sends what waits for an address to another one; sometimes for one that it was sent away from before.
    pub fn redirect(&mut self) {
        let sent = self.ledger.outbound.values().filter(|out| !out.excused).filter_map(|out| out.answered);
        let sent: Vec<Id> = sent.collect();
        if sent.is_empty() {
            return;
        }
        let id = sent[usize::try_from(self.dice.below(sent.len() as u64)).unwrap_or(0)];
        self.written += 1;
        let to = format!("r{}@remote.example", self.written);
        let is_last = self.dice.below(4) > 0;
        let Some(big) = &self.world.big else { return };
        let Some(out) = self.ledger.outbound.values_mut().find(|out| out.answered == Some(id)) else {
            return;
        };
        let from =
            out.redirects.last().filter(|_| is_last).map_or(OUTSIDE, |last| last.to.as_str()).to_owned();
        let ordered = big.redirect(id, &from, &to);
        // Refused, it may be there all the same: the power went before the answer.
        out.redirects.push(Redirected {
            to: to.clone(),
            number: ordered.as_ref().ok().copied(),
            edge_went_back: false,
            undone: false,
            reopened: false,
            forgotten: 0,
        });
        self.say(|| format!("{} goes to {to} and not to {from}: {ordered:?}", named(&id)));
        self.mourn(Who::Big);
    }
}

/// Whether each order was decided, and what was redirected has left for the new address and not for the old one.
pub fn audit(out: &Outbound, id: Id, big: &Big, outcome: &mut Outcome) {
    let recipients = big.recipients(id).unwrap_or_default();
    let got = |index: &u32| out.got.get(index).copied().unwrap_or_default();
    for redirect in out.redirects.iter().filter(|redirect| !redirect.undone) {
        let Some(number) = redirect.number else { continue };
        let results = recipients.keys().flat_map(|index| big.results(id, *index).unwrap_or_default());
        let result = results.into_iter().find(|result| result.revision == number).map(|result| result.result);
        let entered = recipients.get(&number).map(|recipient| recipient.address.as_str());
        let is_right = match result {
            Some(ReviseResult::Withdrawn) => entered == Some(redirect.to.as_str()),
            // Its author has withdrawn it from a big that knew no more that it had left.
            Some(ReviseResult::Refused) if redirect.reopened && out.may_be_withdrawn() => entered.is_none(),
            // Both nodes went back to before the old address was given up: neither knows that it had left for the new one.
            Some(ReviseResult::TooLate) if redirect.reopened => {
                entered.is_none() && got(&number) <= redirect.forgotten
            }
            Some(ReviseResult::TooLate | ReviseResult::Refused) => entered.is_none() && got(&number) == 0,
            _ => false,
        };
        if !is_right {
            let what = format!(
                "{} was redirected, which is {result:?}, and {entered:?} gets it: {redirect:?}",
                named(&id)
            );
            outcome.fault(|outcome| &mut outcome.lost, what);
        }
    }
    for (index, recipient) in recipients.iter().filter(|(_, recipient)| recipient.person.is_none()) {
        let is_right = match recipient.state {
            DeliveryState::Relayed => got(index) > 0,
            DeliveryState::Withdrawn => got(index) <= out.excusable,
            state => !state.waits(),
        };
        if !is_right {
            let what = format!(
                "{} has left for {} {} times, and is {:?}",
                named(&id),
                recipient.address,
                got(index),
                recipient.state
            );
            outcome.fault(|outcome| &mut outcome.altered, what);
        }
    }
}
