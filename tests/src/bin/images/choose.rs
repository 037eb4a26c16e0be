//! The steps of a workload, chosen by dice from what the books say is there.

use shared::store::sim::Dice;

use crate::book::{Book, Id, LANES, Numbers, number_of, position};
use crate::inbound::{Fate, Incoming, read_head};
use crate::outbound::lacked_after;
use crate::step::{Action, Step};

/// Entries from which on more are removed than added.
const ENTRIES_MANY: u64 = 10;
/// Keys of rows without bodies.
const ROW_KEYS: u64 = 24;

/// Chooses steps.
#[derive(Debug)]
pub struct Chooser {
    dice: Dice,
    next: u64,
}

impl Chooser {
    /// Chooses as `dice` fall; new things are numbered from `first` on.
    pub fn new(dice: Dice, first: u64) -> Self {
        Self { dice, next: first }
    }

    fn new_number(&mut self) -> u64 {
        self.next += 1;
        // The length of a body follows from its number: one in 40 is longer than a piece.
        let class = if self.dice.below(40) == 0 { 15 } else { self.dice.below(15) };
        self.next * 16 + class
    }

    fn any_of<T>(&mut self, mut things: impl ExactSizeIterator<Item = T>) -> Option<T> {
        let place = usize::try_from(self.dice.below(things.len() as u64)).unwrap_or(0);
        things.nth(place)
    }

    /// A step that can follow on what the book says.
    pub fn step(&mut self, book: &Book) -> Step {
        match self.dice.below(40) {
            0 => Step::Reopen,
            1..=3 => Step::Compact,
            4 => Step::Abandon { body: self.new_number() },
            _ => self.commit(book),
        }
    }

    /// A step that commits.
    pub fn commit(&mut self, book: &Book) -> Step {
        let action = self.action(book);
        let lazy = match action {
            // Chosen from what is there before the deferred one, so none that confirms too.
            Action::Confirmed { .. } | Action::QueueDue { .. } => None,
            _ if self.dice.below(4) > 0 => None,
            _ => self.confirm(book, false),
        };
        Step::Commit { lazy, fails: self.dice.below(8) == 0, action }
    }

    fn action(&mut self, book: &Book) -> Action {
        let many = book.entries.len() as u64 >= ENTRIES_MANY;
        let lane = u8::try_from(self.dice.below(u64::from(LANES))).unwrap_or(0);
        match self.dice.below(30) {
            0..=1 if many => self.remove(book),
            0..=5 => {
                let lane = (self.dice.below(3) > 0).then_some(lane);
                Some(Action::Add { body: self.new_number(), lane })
            }
            6..=8 => self.remove(book),
            9..=11 => Some(Action::Queue { unit: self.new_number(), lane }),
            12..=15 => Some(self.arrive(book, lane)),
            16..=18 => self.confirm(book, true),
            19..=20 => self.any_of(book.waiting.keys().copied()).map(|id| Action::Held { id }),
            21 => book.deferred.keys().next().map(|(due, _)| Action::QueueDue { now: *due }),
            22 => self.any_of(book.dead.keys().copied()).map(|id| match self.dice.below(3) {
                0 => Action::Drop { id },
                _ => Action::Retry { id },
            }),
            23..=24 => Some(self.trim(book, lane)),
            25 => Some(self.settle(book, lane)),
            26 => self.forget(book),
            _ => None,
        }
        .unwrap_or_else(|| self.rows())
    }

    fn now(&self) -> u64 {
        1_000 * self.next
    }

    fn remove(&mut self, book: &Book) -> Option<Action> {
        self.any_of(book.entries.keys().copied()).map(|body| Action::Remove { body })
    }

    fn arrive(&mut self, book: &Book, lane: u8) -> Action {
        let units = (0..=self.dice.below(4)).map(|_| self.incoming(book)).collect();
        Action::Arrive { lane, first: book.lane(lane).received.number + 1, units, now: self.now() }
    }

    /// A new unit, or one that comes again, or one that another waits for.
    fn incoming(&mut self, book: &Book) -> Incoming {
        let seen = |ids: &mut dyn Iterator<Item = Id>| ids.map(|id| number_of(&id)).collect::<Vec<_>>();
        let parked =
            book.parked.iter().flat_map(|(target, units)| units.iter().map(move |unit| (target, unit)));
        let fate = match self.dice.below(6) {
            0 => Fate::Refused,
            1 => Fate::Deferred,
            _ => Fate::Applied,
        };
        let known = match self.dice.below(10) {
            0 => self.any_of(seen(&mut book.seen.keys().copied()).into_iter()),
            // A unit keeps what it follows and what becomes of it: one that is parked comes again as it is.
            1..=3 => {
                let waits = |id: &Id| parked.clone().any(|(_, unit)| unit.id == *id);
                let targets = book.parked.keys().filter(|target| !waits(target)).copied().collect::<Vec<_>>();
                self.any_of(seen(&mut targets.into_iter()).into_iter())
            }
            4 => {
                if let Some((target, unit)) = self.any_of(parked.collect::<Vec<_>>().into_iter()) {
                    let (number, fate) = read_head(&unit.head);
                    return Incoming { number, after: Some(number_of(target)), fate, alone: true };
                }
                None
            }
            _ => None,
        };
        let number = known.unwrap_or_else(|| self.new_number());
        let after = match self.dice.below(8) {
            _ if known.is_some() => None,
            0 => Some(self.new_number()),
            1..=2 => self.any_of(seen(&mut book.parked.keys().copied()).into_iter()),
            3 => self.any_of(seen(&mut book.seen.keys().copied()).into_iter()),
            4 => self.any_of(book.entries.keys().copied()),
            _ => None,
        };
        Incoming { number, after, fate, alone: self.dice.below(6) > 0 }
    }

    /// Ids that are old, or units that have been parked for long.
    fn forget(&mut self, book: &Book) -> Option<Action> {
        // Just not, and just.
        let edge = self.dice.below(2);
        if self.dice.below(3) == 0 {
            return self.any_of(book.seen.values().copied()).map(|at| Action::Forget { before: at + edge });
        }
        let since: Vec<u64> = book.parked.values().flatten().map(|unit| unit.at).collect();
        self.any_of(since.into_iter()).map(|at| Action::BuryOverdue { before: at + edge, now: self.now() })
    }

    fn trim(&mut self, book: &Book, lane: u8) -> Action {
        let confirms: Vec<u64> = book.lanes[usize::from(lane)].confirms.values().map(|(_, at)| *at).collect();
        let before = match self.any_of(confirms.into_iter()) {
            Some(at) if self.dice.below(2) == 0 => at + self.dice.below(2),
            _ => 0,
        };
        let kept = book.lanes[usize::from(lane)].kept();
        let octets_max = if self.dice.below(2) == 0 { self.dice.below(kept + 1) } else { kept };
        Action::Trim { lane, before, octets_max }
    }

    /// The partner was restored and stands further back; or this node was, and the partner stands further
    /// on and holds some of what is not confirmed.
    fn settle(&mut self, book: &Book, lane: u8) -> Action {
        let row = book.lane(lane);
        let after = if self.dice.below(3) == 0 { row.trimmed } else { row.confirmed.number };
        let behind = (self.dice.below(2) == 0)
            .then(|| row.trimmed + self.dice.below(row.confirmed.number - row.trimmed + 1));
        // What may be lacking and is trimmed has stopped the lane before anything is settled.
        let behind = behind.filter(|number| lacked_after(&row, *number) >= row.trimmed);
        let (number, held) = if let Some(number) = behind {
            (number, None)
        } else {
            let asked = book.lanes[usize::from(lane)].units.range(after + 1..);
            let held = asked.map(|(_, logged)| logged.unit.id).filter(|_| self.dice.below(2) == 0).collect();
            (row.confirmed.number + self.dice.below(row.last - row.confirmed.number + 4), Some(held))
        };
        let generations = (row.own_generation + u32::from(held.is_some()), row.partner_generation + 1);
        let (received, proved) = (position(lane, number), self.dice.below(2) == 0);
        Action::Settle { lane, received, held, proved, after, generations, now: self.now() }
    }

    fn rows(&mut self) -> Action {
        let changes = (0..=self.dice.below(6)).map(|_| {
            let key = self.dice.below(ROW_KEYS);
            let length = self.dice.below(120);
            let row =
                (self.dice.below(4) > 0).then(|| Numbers((0..length).map(|_| self.dice.roll()).collect()));
            (key, row)
        });
        Action::Rows { changes: changes.collect() }
    }

    /// The partner confirms some of the first lane that has something to confirm.
    fn confirm(&mut self, book: &Book, rejects: bool) -> Option<Action> {
        let first = self.dice.below(u64::from(LANES));
        let open = |lane: &u8| book.lane(*lane).last > book.lane(*lane).confirmed.number;
        let lane = (0..LANES).map(|n| (n + u8::try_from(first).unwrap_or(0)) % LANES).find(open)?;
        let row = book.lane(lane);
        let to = row.confirmed.number + 1 + self.dice.below(row.last - row.confirmed.number);
        let (mut refused, mut deferred) = (Vec::new(), Vec::new());
        for number in row.confirmed.number + 1..=to {
            match self.dice.below(10) {
                0 if rejects => refused.push(number),
                1..=2 if rejects => deferred.push(number),
                _ => {}
            }
        }
        // A confirm that comes again changes nothing.
        let again = rejects && self.dice.below(10) == 0;
        let to = if again { row.confirmed.number } else { to };
        Some(Action::Confirmed { lane, to, refused, deferred, now: self.now() })
    }
}
