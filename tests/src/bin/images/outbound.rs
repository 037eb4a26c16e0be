//! The books' page for units on their way to the partner: the log with the safety store, and what left it.

use std::collections::BTreeMap;

use shared::lane::{LanePosition, LaneRow, QueuedBody, QueuedUnit, Reach, Rebase};

use crate::book::{Book, Fact, Facts, Id, Item, body_length, number_of, position, reason};

/// A deferred unit is due after so many milliseconds.
const DEFERRED_MILLIS: u64 = 5_000;

/// A unit in a lane's log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub unit: QueuedUnit,
    /// Octets of everything that was numbered before it.
    before: u64,
    /// It lives on elsewhere.
    moved: bool,
}

/// A lane.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    pub row: LaneRow,
    pub units: BTreeMap<u64, Logged>,
    /// Chain and time of each recorded confirm.
    pub confirms: BTreeMap<u64, ([u8; 32], u64)>,
    gone: BTreeMap<u64, Id>,
}

fn octets(unit: &QueuedUnit) -> u64 {
    let body = unit.body.key().map_or(0, |key| body_length(number_of(&key)));
    (unit.head.len() + body) as u64
}

fn goes_ahead_again(mut unit: QueuedUnit) -> QueuedUnit {
    if let QueuedBody::Held { key, .. } = unit.body {
        unit.body = QueuedBody::Ahead { key };
    }
    unit
}

/// What a node makes of a unit that is to be sent anew: some are no longer needed, some say something else.
pub fn again(mut unit: QueuedUnit) -> Option<QueuedUnit> {
    match number_of(&unit.id) % 7 {
        0 => return None,
        1 => unit.head.push(7),
        _ => {}
    }
    Some(unit)
}

impl Lane {
    /// Octets that were numbered up to the last confirmed unit.
    fn confirmed_octets(&self) -> u64 {
        let later = self.units.range(self.row.confirmed.number + 1..);
        self.row.bytes - later.map(|(_, logged)| octets(&logged.unit)).sum::<u64>()
    }

    /// Octets of the safety store.
    pub fn kept(&self) -> u64 {
        let oldest = self.units.range(..=self.row.confirmed.number).next();
        oldest.map_or(0, |(_, logged)| self.confirmed_octets() - logged.before)
    }

    fn reach(&self, number: u64, chain: [u8; 32]) -> Reach {
        if lacked_after(&self.row, number) < self.row.trimmed {
            Reach::Gone
        } else if is_unproved(&self.row, number) {
            Reach::Unproved
        } else {
            Reach::From(LanePosition { number, chain })
        }
    }

    /// The facts of lane `lane`.
    pub fn enter_facts(&self, lane: u8, facts: &mut Facts) {
        facts.insert(Item::Lane(lane), Fact::Lane(self.row));
        let units = self.units.iter();
        facts.extend(units.map(|(at, logged)| (Item::Unit(lane, *at), Fact::Unit(logged.unit.clone()))));
        let confirms = self.confirms.iter();
        facts.extend(
            confirms.map(|(at, (chain, _))| (Item::Confirm(lane, *at), Fact::Reach(self.reach(*at, *chain)))),
        );
        facts.extend(self.gone.iter().map(|(at, id)| (Item::Gone(lane, *at), Fact::Gone(*id))));
    }
}

/// Whether what the receiver has up to this number was sent in a life of the sender that is lost.
fn is_unproved(row: &LaneRow, number: u64) -> bool {
    row.unproved_after < number && number < row.unproved_to
}

/// Behind which number of the sender's log a receiver that stands at `number` may lack units.
pub fn lacked_after(row: &LaneRow, number: u64) -> u64 {
    if is_unproved(row, number) { row.unproved_after } else { number }
}

impl Book {
    fn release_unit(&mut self, unit: &QueuedUnit) {
        if let Some(key) = unit.body.key() {
            self.release(number_of(&key));
        }
    }

    /// A unit is queued.
    pub fn queue(&mut self, unit: QueuedUnit) {
        if matches!(unit.body, QueuedBody::Ahead { .. }) {
            if let Some(older) = self.waiting.insert(unit.id, unit) {
                self.release_unit(&older);
            }
            return;
        }
        let Lane { row, units, .. } = &mut self.lanes[usize::from(unit.lane)];
        row.last += 1;
        let before = row.bytes;
        row.bytes += octets(&unit);
        units.insert(row.last, Logged { unit, before, moved: false });
    }

    /// The partner holds a waiting unit's body.
    pub fn held(&mut self, id: Id, length: u64, digest: [u8; 32]) {
        if let Some(mut unit) = self.waiting.remove(&id) {
            if let QueuedBody::Ahead { key } = unit.body {
                unit.body = QueuedBody::Held { key, length, digest };
            }
            self.queue(unit);
        }
    }

    /// The partner has confirmed up to number `to`, and rejected some.
    pub fn confirmed(&mut self, lane: u8, to: u64, refused: &[u64], deferred: &[u64], now: u64) {
        let book = &mut self.lanes[usize::from(lane)];
        let from = book.row.confirmed.number;
        if to <= from {
            return;
        }
        book.row.confirmed = position(lane, to);
        book.row.rebase = Rebase::None;
        book.confirms.insert(to, (position(lane, to).chain, now));
        let mut moved = Vec::new();
        for (number, logged) in book.units.range_mut(from + 1..=to) {
            if refused.contains(number) || deferred.contains(number) {
                logged.moved = true;
                moved.push((*number, logged.unit.clone()));
            }
        }
        for (number, unit) in moved {
            // Where it goes refers to its body, and the log still does.
            if let Some(key) = unit.body.key() {
                self.refer(number_of(&key));
            }
            if refused.contains(&number) {
                self.dead.insert(unit.id, (unit, reason(number), now, false));
            } else {
                self.deferred.insert((now + DEFERRED_MILLIS, unit.id), goes_ahead_again(unit));
            }
        }
    }

    /// Deferred units that are due are queued again, and those that no clock which only went forward can
    /// have deferred.
    pub fn queue_due(&mut self, now: u64) {
        let (due, later): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.deferred)
            .into_iter()
            .partition(|((due, _), _)| *due <= now || *due > now + DEFERRED_MILLIS);
        self.deferred = later;
        for (_, unit) in due {
            self.queue(unit);
        }
    }

    /// The safety store gives up what was confirmed before `before`, and the oldest beyond `octets_max`.
    pub fn trim(&mut self, lane: u8, before: u64, octets_max: u64) {
        let book = &mut self.lanes[usize::from(lane)];
        let aged = book.confirms.iter().take_while(|(_, (_, at))| *at < before).last();
        let aged = aged.map_or(0, |(number, _)| *number);
        let mut released = Vec::new();
        while let Some((number, _)) = book.units.range(..=book.row.confirmed.number).next()
            && (*number <= aged || book.kept() > octets_max)
        {
            let number = *number;
            if let Some(Logged { unit, moved, .. }) = book.units.remove(&number) {
                if !moved {
                    book.gone.insert(number, unit.id);
                }
                released.push(unit);
            }
            book.row.trimmed = number;
        }
        if released.is_empty() {
            return;
        }
        let trimmed = book.row.trimmed;
        if let Some((edge, _)) = book.confirms.range(..=trimmed).next_back() {
            book.confirms = book.confirms.split_off(&{ *edge });
        }
        for unit in released {
            self.release_unit(&unit);
        }
    }

    /// A lane goes on after `received`: what the receiver lacks is numbered anew. With `held` the receiver
    /// is the one to be believed and holds these; without, it was restored.
    pub fn settle(
        &mut self,
        lane: u8,
        received: LanePosition,
        held: Option<(&[Id], bool, u64)>,
        generations: (u32, u32),
        now: u64,
    ) {
        let Lane { row, units, confirms, .. } = &mut self.lanes[usize::from(lane)];
        let from = match held {
            Some((_, _, after)) => after,
            None => lacked_after(row, received.number),
        };
        let behind = units.split_off(&(from + 1));
        // What goes again is counted anew, behind what stays.
        row.bytes = behind.first_key_value().map_or(row.bytes, |(_, first)| first.before);
        let stays = |logged: &Logged| held.is_some_and(|(held, ..)| held.contains(&logged.unit.id));
        let (stay, lacks): (BTreeMap<_, _>, BTreeMap<_, _>) =
            behind.into_iter().partition(|(_, logged)| stays(logged));
        for (number, logged) in stay {
            units.insert(number, Logged { before: row.bytes, ..logged });
            row.bytes += octets(&units[&number].unit);
        }
        // No receiver has ever stood where one that is told of a gap goes on.
        row.last = if received.number < row.last { row.last + 1 } else { received.number };
        row.confirmed = LanePosition { number: row.last, chain: received.chain };
        row.rebase = match received.number == row.last {
            true => Rebase::None,
            false => Rebase::From(received),
        };
        (row.own_generation, row.partner_generation) = generations;
        if held.is_some_and(|(_, proved, _)| !proved) {
            let is_over = row.unproved_to <= row.trimmed;
            row.unproved_after = if is_over { from } else { row.unproved_after.min(from) };
            row.unproved_to = row.last;
        }
        confirms.insert(row.last, (received.chain, now));
        for (_, logged) in lacks {
            let unit = goes_ahead_again(logged.unit);
            match again(unit.clone()) {
                Some(unit) if !logged.moved => self.queue(unit),
                _ => self.release_unit(&unit),
            }
        }
    }

    /// A dead letter is offered again, unless it came from the partner.
    pub fn retry(&mut self, id: &Id) {
        if self.dead.get(id).is_some_and(|(.., inbound)| !inbound)
            && let Some((unit, ..)) = self.dead.remove(id)
        {
            self.queue(goes_ahead_again(unit));
        }
    }

    /// A dead letter is dropped.
    pub fn drop_dead(&mut self, id: &Id) {
        if let Some((unit, ..)) = self.dead.remove(id) {
            self.release_unit(&unit);
        }
    }
}
