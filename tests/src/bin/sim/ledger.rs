//! The books outside the nodes, and what comparing them with the nodes brings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use big_node::record::Folder;
use shared::mime;
use shared::unit::{Id, ReviseMode};

use crate::play::road::Trip;

/// A message from outside: known by its content, which no other one has.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// The address that it was sent to.
    pub to: String,
    /// What its sender was told: the id of the 250; `None` while that is not known (it may be there).
    pub answered: Option<Id>,
    /// The edge that answered can still give it to big: it has not gone back to before it.
    pub at_edge: bool,
    /// Neither node had it any more: it is gone with their disks.
    pub excused: bool,
}

/// A message to outside.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// The id of the exit 0; `None` while that is not known.
    pub answered: Option<Id>,
    /// How often a remote host got it.
    pub delivered: u32,
    /// Deliveries that may have been repeats: the record of the one before was lost with a node.
    pub excusable: u32,
    /// Big has forgotten it.
    pub excused: bool,
    /// Both nodes went back to before its delivery: neither can know of it.
    pub unknowable: bool,
    /// What its author has made of it, or may have, in that order.
    pub revisions: Vec<Made>,
    /// Words of texts that were for another recipient alone.
    pub foreign: Vec<String>,
    /// Where an operator has sent it instead, or may have, in that order.
    pub redirects: Vec<Redirected>,
    /// How often a remote host got it for each recipient, by index.
    pub got: BTreeMap<u32, u32>,
}

/// An order to send a message to another address.
#[derive(Clone, Debug)]
pub struct Redirected {
    /// The new one.
    pub to: String,
    /// Its number, if that was answered.
    pub number: Option<u32>,
    /// The edge has gone back since, and may have forgotten it.
    pub edge_went_back: bool,
    /// Big has forgotten it.
    pub undone: bool,
    /// Big has gone back to before it knew what had come of it.
    pub reopened: bool,
    /// How often a remote host had got it there when the edge went back last, which may have forgotten that.
    pub forgotten: u32,
}

/// A message to somebody inside, of whom a copy is on the road.
#[derive(Clone, Debug)]
pub struct Inside {
    /// The id of the exit 0.
    pub id: Id,
    /// What was written.
    pub content: Vec<u8>,
    /// Which recipient of it they are.
    pub recipient: u32,
    /// Big has forgotten it.
    pub excused: bool,
    /// What its author has made of it, or may have, in that order.
    pub revisions: Vec<Made>,
}

impl Inside {
    /// Whether its author has taken it back, or may have.
    pub fn may_be_withdrawn(&self) -> bool {
        self.revisions.iter().any(|made| made.mode == ReviseMode::Withdraw)
    }
}

/// A message from outside to somebody who travels.
#[derive(Clone, Debug)]
pub struct Received {
    /// They.
    pub who: &'static str,
    /// The id of the 250.
    pub id: Id,
    /// What was sent.
    pub content: Vec<u8>,
}

/// A login to a travel window.
#[derive(Clone, Copy, Debug)]
pub struct Login {
    /// The window.
    pub window: Id,
    /// The edge has gone back to before it.
    pub undone: bool,
}

/// What a client did with a copy in a session that came to QUIT.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// The window.
    pub window: Id,
    /// The message.
    pub message: Id,
    /// Its revision.
    pub revision: u32,
    /// It was retrieved.
    pub retrieved: bool,
    /// It was deleted.
    pub deleted: bool,
    /// QUIT was answered +OK. Otherwise it may have been done all the same.
    pub answered: bool,
    /// The edge has gone back to before it.
    pub undone: bool,
}

impl Act {
    /// Whether it is done.
    pub fn is_certain(&self) -> bool {
        self.answered && !self.undone
    }
}

/// What bob did with a message at a desk.
#[derive(Clone, Copy, Debug)]
pub struct Shift {
    /// The message.
    pub message: Id,
    /// Where he has put it; `None` if it is gone for good.
    pub to: Option<Folder>,
    /// It was answered. Otherwise it may have been done all the same.
    pub answered: bool,
    /// Big has gone back to before it.
    pub undone: bool,
}

impl Shift {
    /// Whether it is done.
    pub fn is_certain(&self) -> bool {
        self.answered && !self.undone
    }

    /// Whether it takes the copy from the road for good.
    fn is_deletion(&self) -> bool {
        matches!(self.to, None | Some(Folder::Trash))
    }
}

/// What bob has done with one message, in the order of each node.
#[derive(Debug)]
pub struct Fate<'a> {
    /// On the road.
    pub acts: Vec<&'a Act>,
    /// At desks.
    pub shifts: Vec<&'a Shift>,
}

impl<'a> Fate<'a> {
    /// Of this message.
    pub fn of(ledger: &'a Ledger, id: &Id) -> Self {
        Self {
            acts: ledger.acts.iter().filter(|act| act.message == *id).collect(),
            shifts: ledger.shifts.iter().filter(|shift| shift.message == *id).collect(),
        }
    }

    /// Whether a revision of it cannot be on the road: it was deleted there, or the message at home.
    pub fn is_off_the_road(&self, revision: u32) -> bool {
        self.acts.iter().any(|act| act.is_certain() && act.deleted && act.revision == revision)
            || self.shifts.iter().any(|shift| shift.is_certain() && shift.is_deletion())
    }

    /// Whether a revision of it may be gone from the road: what was not answered may be done, and of what one node has
    /// forgotten the other one may know.
    pub fn may_be_off_the_road(&self, revision: u32) -> bool {
        self.acts.iter().any(|act| act.deleted && act.revision == revision)
            || self.shifts.iter().any(|shift| shift.is_deletion())
    }

    /// Whether the edge may have gone back to before it was deleted there, or not have deleted it.
    pub fn may_be_there_again(&self) -> bool {
        self.acts.iter().any(|act| act.deleted && !act.is_certain())
    }

    /// Whether big may have gone back to before it was deleted at a desk, of which it has told the edge.
    pub fn may_be_at_home_alone(&self) -> bool {
        self.shifts.iter().any(|shift| shift.is_deletion() && !shift.is_certain())
    }

    /// Whether the nodes may not know the same of its having been retrieved.
    pub fn may_be_retrieved(&self) -> bool {
        self.acts.iter().any(|act| act.retrieved && !act.is_certain())
    }

    /// What bob has done with it last at a desk, and whatever behind that he may have done.
    fn last_shifts(&self) -> Vec<&'a Shift> {
        let known: Vec<&Shift> = self.shifts.iter().copied().filter(|shift| !shift.undone).collect();
        let certain = known.iter().rposition(|shift| shift.is_certain()).unwrap_or(0);
        known[certain..].to_vec()
    }

    /// Whether it is gone from home for good.
    pub fn is_erased(&self) -> bool {
        matches!(self.last_shifts()[..], [last] if last.is_certain() && last.to.is_none())
    }

    /// Whether it may be gone from home for good.
    pub fn may_be_erased(&self) -> bool {
        self.shifts.iter().any(|shift| shift.to.is_none() && !shift.undone)
    }

    /// Where it may lie at home, which shows this revision. What is deleted on the road goes from In to Trash, and that may
    /// have come home before or after what was done at a desk.
    pub fn folders(&self, revision: u32) -> Vec<Folder> {
        let last = self.last_shifts();
        let mut folders: Vec<Folder> = last.iter().filter_map(|shift| shift.to).collect();
        if !last.first().is_some_and(|shift| shift.is_certain()) {
            folders.push(Folder::In);
        }
        if folders.contains(&Folder::In) && self.acts.iter().any(|act| act.deleted) {
            folders.push(Folder::Trash);
            let is_it = |act: &&Act| act.is_certain() && act.deleted && act.revision == revision;
            if last.is_empty() && self.acts.iter().any(is_it) {
                folders.retain(|folder| *folder != Folder::In);
            }
        }
        folders
    }
}

/// What an author has made of a message, or may have.
#[derive(Clone, Debug)]
pub struct Made {
    /// What it does.
    pub mode: ReviseMode,
    /// A word that is in its text, and in what was added to that.
    pub word: String,
    /// Its number, if that was answered. An author who saw no answer does not know whether there is such a revision.
    pub number: Option<u32>,
    /// Big has gone back to before it.
    pub undone: bool,
}

impl Outbound {
    /// Which of its texts `content` is: the place in `revisions` of the last whose word is in it.
    pub fn text_in(&self, content: &[u8]) -> Option<usize> {
        let text = mime::text_of(content);
        self.revisions.iter().rposition(|made| made.mode != ReviseMode::Withdraw && text.contains(&made.word))
    }

    /// Whether a remote got it for somebody to whom it goes, or has gone: index and address.
    pub fn is_for(&self, (index, address): &(u32, String), first: &str) -> bool {
        *index == 0 && address == first || self.redirects.iter().any(|redirect| redirect.to == *address)
    }

    /// Whether a remote got a text that was for another one.
    pub fn is_foreign(&self, content: &[u8]) -> bool {
        let text = mime::text_of(content);
        self.foreign.iter().any(|word| text.contains(word))
    }

    /// Whether its author has taken it back, or may have.
    pub fn may_be_withdrawn(&self) -> bool {
        self.revisions.iter().any(|made| made.mode == ReviseMode::Withdraw)
    }
}

/// Everything that was promised.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By content.
    pub inbound: BTreeMap<Vec<u8>, Inbound>,
    /// By content.
    pub outbound: BTreeMap<Vec<u8>, Outbound>,
    /// Big has gone back: what was done at desks since the backup is lost.
    pub big_went_back: bool,
    /// Travel windows that begin and end, in their order.
    pub trips: Vec<Trip>,
    /// To bob, who travels, in the order of their exits 0.
    pub inside: Vec<Inside>,
    /// To those who travel, in the order of their 250s.
    pub received: Vec<Received>,
    /// Logins of those who travel.
    pub logins: Vec<Login>,
    /// What was done on the road, in that order.
    pub acts: Vec<Act>,
    /// What was done at desks, in that order.
    pub shifts: Vec<Shift>,
    /// What the edge has told last of guesses at passwords: networks and accounts.
    pub guesses: Option<(u32, u32)>,
    /// Ids of aggregate reports that the edge has told big of.
    pub reports: Vec<Id>,
    /// Small mail to big, in the order of its 250s.
    pub inward: Order,
    /// Small mail to the edge, in the order of its exits 0.
    pub outward: Order,
}

/// In which order the units of a lane were promised, and came.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// As they were promised.
    pub promised: Vec<Id>,
    /// Those that were deferred, or whose node went back: they may come later than their place.
    pub displaced: Vec<Id>,
    /// As they were applied.
    pub applied: Vec<Id>,
}

impl Order {
    /// All that there is may come again, whenever.
    pub fn displace(&mut self) {
        self.displaced.extend_from_slice(&self.promised);
        self.applied.clear();
    }

    /// A unit was applied, or deferred.
    pub fn came(&mut self, id: Id, deferred: bool) {
        match deferred {
            true => self.displaced.push(id),
            false => self.applied.push(id),
        }
    }

    /// Those that came first behind one that was promised later. What comes once more, as for an edge that went back, is taken
    /// for what is there.
    pub fn late(&self) -> Vec<Id> {
        let (mut last, mut seen) = (None, BTreeSet::new());
        let mut late = Vec::new();
        for id in self.applied.iter().filter(|id| seen.insert(**id) && !self.displaced.contains(id)) {
            let Some(at) = self.promised.iter().position(|promised| promised == id) else { continue };
            if last.is_some_and(|last| at < last) {
                late.push(*id);
            }
            last = Some(at);
        }
        late
    }
}

impl Ledger {
    /// Whether a message is lost with a node.
    pub fn is_lost(&self, id: &Id) -> bool {
        if let Some(received) = self.received.iter().find(|received| received.id == *id) {
            return self.inbound.get(&received.content).is_none_or(|message| message.excused);
        }
        self.inside.iter().find(|message| message.id == *id).is_none_or(|message| message.excused)
    }

    /// The revisions of a message to bob that big has forgotten, and of which the edge may know.
    pub fn lost_revisions(&self, id: &Id) -> Vec<&Made> {
        let message = self.inside.iter().find(|message| message.id == *id);
        let revisions = message.map_or(&[][..], |message| &message.revisions);
        revisions.iter().filter(|made| made.undone).collect()
    }
}

/// What one schedule came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Promised and not there.
    pub lost: u64,
    /// There twice.
    pub doubled: u64,
    /// There and never sent.
    pub ghost: u64,
    /// There and different.
    pub altered: u64,
    /// Applied in another order than was promised.
    pub out_of_order: u64,
    /// Did not come to rest, or stood still without a cause.
    pub stuck: u64,
    /// Each of them, in words.
    pub faults: Vec<String>,
    /// What happened, for a seed to be compared with itself.
    pub fingerprint: [u8; 32],
    /// Messages that were answered.
    pub accepted: u64,
    /// Power cuts, restores and stores put back.
    pub crashes: u64,
    /// The kinds of units that were told and applied.
    pub kinds: BTreeSet<&'static str>,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.ghost + self.altered + self.out_of_order + self.stuck == 0
    }

    /// Notes a fault.
    pub fn fault(&mut self, count: fn(&mut Self) -> &mut u64, what: String) {
        *count(self) += 1;
        self.faults.push(what);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lost {}, doubled {}, ghost {}, altered {}, out of order {}, stuck {}",
            self.lost, self.doubled, self.ghost, self.altered, self.out_of_order, self.stuck
        )
    }
}

/// What many schedules came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many.
    pub schedules: u64,
    counts: [u64; 6],
    accepted: u64,
    crashes: u64,
}

impl Tally {
    /// Adds one schedule.
    pub fn add(&mut self, one: Outcome) {
        let counts = [one.lost, one.doubled, one.ghost, one.altered, one.out_of_order, one.stuck];
        self.join(Self { schedules: 1, counts, accepted: one.accepted, crashes: one.crashes });
    }

    /// Adds what another process played.
    pub fn join(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.accepted += other.accepted;
        self.crashes += other.crashes;
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.counts == [0; 6]
    }

    /// For [`Tally::of_line`].
    pub fn to_line(&self) -> String {
        let [a, b, c, d, e, g] = self.counts;
        format!(
            "{} schedules, {} accepted, {} crashes, faults {a} {b} {c} {d} {e} {g}",
            self.schedules, self.accepted, self.crashes
        )
    }

    /// Reads what [`Tally::to_line`] wrote.
    pub fn of_line(line: &str) -> Option<Self> {
        let numbers: Vec<u64> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter(|word| !word.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let [schedules, accepted, crashes, counts @ ..] = numbers.as_slice() else { return None };
        Some(Self {
            schedules: *schedules,
            accepted: *accepted,
            crashes: *crashes,
            counts: counts.try_into().ok()?,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lost, doubled, ghost, altered, order, stuck] = self.counts;
        if stuck > 0 {
            write!(f, "{stuck} did not come to rest; ")?;
        }
        write!(
            f,
            "{} schedules, lost {lost}, doubled {doubled}, ghost {ghost}, altered {altered}, out of order {order}",
            self.schedules
        )
    }
}
