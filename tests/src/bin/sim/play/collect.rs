//! What becomes of mail for people inside: they collect it by POP3 on the road, delete and move it at a desk, and somebody
//! guesses at their passwords.

use std::net::{IpAddr, Ipv4Addr};

use big_node::harness::Big;
use big_node::record::Folder;
use edge_node::harness::Collecting;
use shared::mime;
use shared::unit::{Id, ReviseMode};

use super::{Play, named, road};
use crate::end::block_on;
use crate::ledger::{Act, Fate, Ledger, Login, Made, Outcome, Shift};
use crate::world::Who;

/// Who travels all the time, and whose deletions on the road move messages to Trash at home.
pub const PERSON: &str = "bob";
pub const ADDRESS: &str = "bob@example.com";
/// Failures after which a network is locked out.
const GUESSES: usize = 20;
/// What an answer to a desk says that has found nothing to do.
const REFUSALS: [&str; 2] = ["has no message", "stays where it is"];

impl Play {
    /// Somebody who travels logs in, or the session that goes on ends.
    pub fn collect(&mut self) {
        match self.world.collecting.take() {
            Some(session) => self.log_out(session),
            None => self.log_in(),
        }
        self.mourn(Who::Edge);
    }

    fn log_in(&mut self) {
        let trip = self.ledger.trips.last().map(|trip| (road::PERSON, trip.window, trip.key));
        let bob = self.standing.map(|(window, key)| (PERSON, window, key));
        let Some((who, window, key)) = trip.filter(|_| self.dice.below(3) == 0).or(bob) else { return };
        let Some(edge) = &self.world.edge else { return };
        let begun = block_on(edge.collect(&window, key));
        self.say(|| format!("{who} logs in: {:?}", begun.as_ref().map(|session| session.listed().len())));
        let Ok(mut session) = begun else { return };
        self.ledger.logins.push(Login { window, undone: false });
        for (place, (id, revision)) in session.listed().into_iter().enumerate() {
            if self.dice.below(2) == 0
                && let Some(content) = session.retrieve(place)
            {
                self.say(|| format!("{who} retrieves {} as {revision}", named(&id)));
                self.retrieved((id, revision), &content);
            }
        }
        if self.dice.below(2) == 0 {
            self.log_out(session);
        } else {
            self.world.collecting = Some(session);
        }
    }

    /// A client was sent this.
    fn retrieved(&mut self, (id, revision): (Id, u32), content: &[u8]) {
        let is_it = if let Some(received) = self.ledger.received.iter().find(|received| received.id == id) {
            content.ends_with(&received.content)
        } else if let Some(message) = self.ledger.inside.iter().find(|message| message.id == id) {
            let mut made = message.revisions.iter().filter(|made| made.number == Some(revision)).peekable();
            let text = mime::text_of(content);
            // What is withdrawn has no text of its author's; of what nobody has answered for, nothing is known.
            let is_word = |made: &Made| made.mode == ReviseMode::Withdraw || text.contains(&made.word);
            match revision {
                0 => content.ends_with(&message.content),
                _ => made.peek().is_none() || made.any(is_word),
            }
        } else {
            true
        };
        if !is_it {
            let what = format!("revision {revision} of {} is another text on the road", named(&id));
            self.outcome.fault(|outcome| &mut outcome.altered, what);
        }
    }

    /// QUIT, behind some DELEs; or the connection is lost before that.
    fn log_out(&mut self, session: Collecting) {
        let (window, listed, retrieved) = (session.window(), session.listed(), session.retrieved());
        if self.dice.below(4) == 0 {
            let ended = block_on(session.cut()).is_ok();
            self.say(|| format!("a session is cut off: {ended}"));
            return;
        }
        let deleted: Vec<usize> = (0..listed.len()).filter(|_| self.dice.below(3) == 0).collect();
        let answered = block_on(session.quit(&deleted)).is_ok();
        self.say(|| format!("QUIT behind {} of {} deleted: {answered}", deleted.len(), listed.len()));
        for (place, (message, revision)) in listed.into_iter().enumerate() {
            let (retrieved, deleted) = (retrieved.contains(&(message, revision)), deleted.contains(&place));
            if retrieved || deleted {
                let undone = false;
                let act = Act { window, message, revision, retrieved, deleted, answered, undone };
                self.ledger.acts.push(act);
            }
        }
    }

    /// Bob deletes a message at a desk, or puts it somewhere else.
    pub fn at_a_desk(&mut self) {
        let inside = self.ledger.inside.iter().filter(|message| !message.excused).map(|message| message.id);
        let received = self.ledger.received.iter().filter(|received| received.who == PERSON);
        let all: Vec<Id> = inside.chain(received.map(|received| received.id)).collect();
        if all.is_empty() {
            return;
        }
        let message = all[usize::try_from(self.dice.below(all.len() as u64)).unwrap_or(0)];
        let roll = self.dice.below(4);
        let Some(big) = &self.world.big else { return };
        let Ok(found) = big.entry(PERSON, message) else { return self.mourn(Who::Big) };
        let from = found.map(|(folder, _)| folder);
        // What is attempted: the answer may be lost.
        let to = match roll {
            // From Trash it goes for good.
            0 | 1 => (from != Some(Folder::Trash)).then_some(Folder::Trash),
            2 => Some(Folder::Saved),
            _ => Some(Folder::In),
        };
        let done = match (roll, to) {
            (2.., Some(to)) => big.shift(PERSON, message, to),
            _ => big.delete(PERSON, message).map(drop),
        };
        self.say(|| format!("{PERSON} puts {} from {from:?} to {to:?}: {done:?}", named(&message)));
        let is_refused = done.as_ref().is_err_and(|why| REFUSALS.iter().any(|refusal| why.contains(refusal)));
        if !is_refused {
            let answered = done.is_ok();
            self.ledger.shifts.push(Shift { message, to, answered, undone: false });
        }
        self.mourn(Who::Big);
    }

    /// Somebody guesses at bob's password until their network is locked out.
    pub fn guess(&mut self) {
        let network = u8::try_from(self.dice.below(4)).unwrap_or(0);
        let Some(edge) = &self.world.edge else { return };
        let guessed = edge.guess(PERSON, IpAddr::V4(Ipv4Addr::new(198, 51, network, 1)), GUESSES).is_ok();
        let told = block_on(edge.tell_guesses());
        self.say(|| format!("somebody guesses: {guessed}, told {told:?}"));
        match told {
            Ok(None) => {}
            Ok(told) => self.ledger.guesses = told,
            // It may have been told.
            Err(_) => self.ledger.guesses = None,
        }
        self.mourn(Who::Edge);
    }
}

/// Whether all that was done on the road has come home, and all that was done at desks is so on both nodes; but for mail of
/// which an operator was told that it is `gone`.
pub fn audit(
    ledger: &Ledger,
    (big, copies): (&Big, &[(Id, u32)]),
    gone: &[(u8, Id)],
    has_jumped: bool,
    outcome: &mut Outcome,
) {
    let is_over = |window: &Id| {
        let trip = ledger.trips.iter().find(|trip| trip.window == *window);
        // What comes out of it may be refused; of one that ended long ago nothing is kept.
        trip.is_some_and(|trip| trip.revoked || has_jumped)
    };
    let is_lost = |id: &Id| ledger.is_lost(id) || gone.iter().any(|(_, gone)| gone == id);
    if let Some(told) = ledger.guesses
        && big.guesses().ok().flatten() != Some(told)
    {
        let what = format!("{told:?} guessed, and big knows of {:?}", big.guesses());
        outcome.fault(|outcome| &mut outcome.lost, what);
    }
    for login in ledger.logins.iter().filter(|login| !login.undone && !is_over(&login.window)) {
        if !matches!(big.last_login(&login.window), Ok(Some(_))) {
            let what = format!("the window {} was used, and big does not know", named(&login.window));
            outcome.fault(|outcome| &mut outcome.lost, what);
        }
    }
    for act in ledger.acts.iter().filter(|act| act.is_certain() && !is_over(&act.window)) {
        if is_lost(&act.message) {
            continue;
        }
        let copy = big.copy(&act.window, act.message).ok().flatten();
        // Of an earlier revision it says nothing any more.
        let is_known = copy.is_some_and(|copy| {
            copy.revision > act.revision || copy.retrieved >= act.retrieved && copy.deleted >= act.deleted
        });
        if !is_known {
            let what = format!("{} was collected, and at home it is {copy:?}: {act:?}", named(&act.message));
            outcome.fault(|outcome| &mut outcome.lost, what);
        }
    }
    let received = ledger.received.iter().filter(|received| received.who == PERSON);
    for received in received.filter(|received| !is_lost(&received.id)) {
        audit_message(ledger, (big, copies), received.id, Some(0), outcome);
    }
}

/// Whether the books know a message, which may be filed with this content, and it is not for bob.
pub fn is_anothers(ledger: &Ledger, id: &Id, filed: Option<&[u8]>) -> bool {
    let answered = ledger.inbound.values().find(|message| message.answered == Some(*id));
    let message = answered.or_else(|| filed.and_then(|content| ledger.inbound.get(content)));
    let is_inside = ledger.inside.iter().any(|message| message.id == *id);
    let is_outbound = ledger.outbound.values().any(|message| message.answered == Some(*id));
    message.is_some_and(|message| message.to != ADDRESS) || is_outbound && !is_inside
}

/// Whether bob has of a message what he should, at home and on the road, and once: this revision of it, if he has not
/// deleted it.
pub fn audit_message(
    ledger: &Ledger,
    (big, copies): (&Big, &[(Id, u32)]),
    id: Id,
    should: Option<u32>,
    outcome: &mut Outcome,
) {
    let fate = Fate::of(ledger, &id);
    let name = named(&id);
    let on_the_road: Vec<u32> =
        copies.iter().filter(|(of, _)| *of == id).map(|(_, revision)| *revision).collect();
    // One that a big which went back has forgotten may be there in its place, or it was withdrawn by that.
    let lost = ledger.lost_revisions(&id);
    let is_lost = |revision: u32| {
        let is_known = Some(revision) == should || revision == 0;
        !is_known && lost.iter().any(|made| made.number.is_none_or(|number| number == revision))
    };
    let may_be_gone = |revision: u32| fate.may_be_off_the_road(revision);
    let is_right = match on_the_road[..] {
        [] => {
            should.is_none_or(may_be_gone)
                || lost.iter().any(|made| made.mode == ReviseMode::Withdraw)
                || fate.acts.iter().any(|act| act.deleted && is_lost(act.revision))
        }
        // Where the edge went back to before it was deleted, it is there with the text of then.
        [revision] => {
            (Some(revision) == should
                || is_lost(revision)
                || fate.acts.iter().any(|act| act.deleted && act.undone))
                && !fate.is_off_the_road(revision)
        }
        _ => false,
    };
    if !is_right {
        let what = format!("{name} is {on_the_road:?} on the road, and should be {should:?}: {fate:?}");
        let count: fn(&mut Outcome) -> &mut u64 = match on_the_road.is_empty() {
            false if should.is_none_or(may_be_gone) => |outcome| &mut outcome.ghost,
            _ => |outcome| &mut outcome.altered,
        };
        outcome.fault(count, what);
    }
    let entry = big.entry(PERSON, id).ok().flatten();
    let withdrawn = ledger.inside.iter().any(|message| message.id == id && message.may_be_withdrawn());
    let at_home = entry.map(|(_, entry)| entry.revision);
    let is_right = match at_home {
        Some(_) if fate.is_erased() => withdrawn,
        None if fate.is_erased() => true,
        None => should.is_none() || fate.may_be_erased(),
        Some(_) => at_home == should,
    };
    if !is_right {
        let what = format!("{name} is {at_home:?} at home, and should be {should:?}: {fate:?}");
        outcome.fault(|outcome| &mut outcome.altered, what);
    }
    let (Some((folder, entry)), false) = (entry, withdrawn) else { return };
    let folders = fate.folders(entry.revision);
    // A big that has forgotten a revision takes no act on it.
    let mut certain = fate.acts.iter().filter(|act| act.is_certain() && !is_lost(act.revision));
    let is_shown = certain.clone().all(|act| big.was_shown(&entry, act.revision));
    let is_read = entry.read || !certain.any(|act| act.revision == entry.revision);
    if !folders.contains(&folder) || !is_shown || !is_read {
        let what =
            format!("{name} is in {folder:?} at home, and should be in {folders:?}: {entry:?}, {fate:?}");
        outcome.fault(|outcome| &mut outcome.altered, what);
    }
}
