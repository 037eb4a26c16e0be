//! The books' page for units from the partner: applied once and in order, rejected, or parked.

use shared::lane::{Parked, QueuedBody, QueuedUnit, RejectedRow};

use crate::book::{Book, Id, number_of, position};

/// Units that may wait for the same one.
const PARKED_MAX: usize = 16;

/// What a node makes of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Applied,
    Refused,
    Deferred,
}

/// A unit that comes from the partner.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Its id stands for this number.
    pub number: u64,
    /// The unit or the entry that it follows.
    pub after: Option<u64>,
    pub fate: Fate,
    /// Its head is all of it.
    pub alone: bool,
}

/// The id of unit `number` from the partner.
pub fn incoming_id(number: u64) -> Id {
    let mut id = [4; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

/// Why unit `number` is not applied.
pub fn objection(number: u64) -> String {
    format!("reason {number}")
}

impl Incoming {
    /// What it says.
    pub fn head(&self) -> Vec<u8> {
        let mut head = self.number.to_be_bytes().to_vec();
        head.push(self.fate as u8);
        head
    }
}

/// Number and fate of the unit that says this.
pub fn read_head(head: &[u8]) -> (u64, Fate) {
    let fate = match head.last() {
        Some(0) => Fate::Applied,
        Some(1) => Fate::Refused,
        _ => Fate::Deferred,
    };
    (number_of(head), fate)
}

impl Book {
    /// Units arrive on a lane under the numbers from `first` on, and the position with them.
    pub fn arrive(&mut self, lane: u8, first: u64, units: &[Incoming], now: u64) {
        for (number, unit) in (first..).zip(units) {
            if let Some(row) = self.take(lane, unit, now) {
                self.rejected.insert((lane, number), row);
            }
        }
        self.lanes[usize::from(lane)].row.received = position(lane, first + units.len() as u64 - 1);
    }

    fn take(&mut self, lane: u8, unit: &Incoming, now: u64) -> Option<RejectedRow> {
        let id = incoming_id(unit.number);
        if self.seen.contains_key(&id) {
            return None;
        }
        let is_here =
            |number: &u64| self.seen.contains_key(&incoming_id(*number)) || self.entries.contains_key(number);
        if let Some(target) = unit.after.filter(|target| !is_here(target)) {
            let parked = self.parked.entry(incoming_id(target)).or_default();
            let waits = parked.iter().any(|parked| parked.id == id);
            if unit.alone && !waits && parked.len() < PARKED_MAX {
                parked.push(Parked { id, lane, head: unit.head(), at: now });
            } else if !unit.alone || !waits {
                return Some(RejectedRow { later: true, reason: "what it follows is not here yet".into() });
            }
            return None;
        }
        let reason = objection(unit.number);
        match unit.fate {
            Fate::Applied => {
                self.apply(id, now);
                None
            }
            Fate::Deferred => Some(RejectedRow { later: true, reason }),
            Fate::Refused => {
                for parked in self.parked.remove(&id).unwrap_or_default() {
                    self.bury(parked, format!("what it follows was refused: {reason}"), now);
                }
                Some(RejectedRow { later: false, reason })
            }
        }
    }

    /// A unit is applied, and with it what waited for it, and for that.
    fn apply(&mut self, id: Id, now: u64) {
        if self.seen.insert(id, now).is_some() {
            return;
        }
        *self.applied.entry(number_of(&id)).or_default() += 1;
        for parked in self.parked.remove(&id).unwrap_or_default() {
            match read_head(&parked.head) {
                (_, Fate::Applied) => self.apply(parked.id, now),
                (number, _) => self.bury(parked, objection(number), now),
            }
        }
    }

    fn bury(&mut self, parked: Parked, reason: String, now: u64) {
        let Parked { id, lane, head, .. } = parked;
        if !self.seen.contains_key(&id) {
            let unit = QueuedUnit { id, lane, after: None, head, body: QueuedBody::None };
            self.dead.insert(id, (unit, reason, now, true));
        }
    }

    /// What was parked before `before` has waited too long.
    pub fn bury_overdue(&mut self, before: u64, now: u64) {
        for (target, parked) in std::mem::take(&mut self.parked) {
            let (overdue, waits): (Vec<_>, Vec<_>) = parked.into_iter().partition(|unit| unit.at < before);
            for unit in overdue {
                self.bury(unit, "what it follows has not come".into(), now);
            }
            self.parked.insert(target, waits);
        }
    }

    /// Old ids are forgotten.
    pub fn forget_seen(&mut self, before: u64) {
        self.seen.retain(|_, at| *at >= before);
    }
}
