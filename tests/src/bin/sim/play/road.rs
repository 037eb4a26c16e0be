//! Travel windows that begin and end while everything else goes on: by their moment, by `travel end`, with and without
//! `--revoke`; and what is sent from the road meanwhile.

use big_node::record::{AfterFetch, WindowState};
use big_node::request::Terms;
use shared::address::Address;
use shared::id::unix_millis;
use shared::unit::Id;

use super::{Play, named};
use crate::end::block_on;
use crate::ledger::{Inbound, Outcome};
use crate::world::Who;

/// Who travels again and again.
pub const PERSON: &str = "carol";
pub const ADDRESS: &str = "carol@example.com";
/// To whom they write.
const TO: &str = "alice@example.com";
/// The longest that a window lasts, in milliseconds: schedules are not much longer.
const LASTS_MAX: u64 = 20_000;

/// A window that was opened, or may have been.
#[derive(Clone, Debug)]
pub struct Trip {
    /// It.
    pub window: Id,
    /// Its private key.
    pub key: [u8; 32],
    /// The contents of what was sent through it and answered.
    pub sent: Vec<Vec<u8>>,
    /// `travel end` was answered.
    pub ended: bool,
    /// With `--revoke`, or that may have been: what was sent and is not there yet may be refused.
    pub revoked: bool,
}

impl Play {
    /// Somebody sets out, writes home, or comes home.
    pub fn road(&mut self) {
        match self.dice.below(6) {
            0 | 1 => self.set_out(),
            2..5 => self.write_home(),
            _ => self.come_home(),
        }
    }

    fn set_out(&mut self) {
        let until = (self.dice.below(2) == 0).then(|| unix_millis() + 1_000 + self.dice.below(LASTS_MAX));
        let Some(big) = &self.world.big else { return };
        let terms = Terms { until, after_fetch: AfterFetch::Keep, ..Terms::default() };
        let started = big.travel(PERSON, terms);
        self.say(|| {
            format!(
                "{PERSON} travels until {until:?}: {:?}",
                started.as_ref().map(|(window, _)| named(window))
            )
        });
        if let Ok((window, key)) = started {
            self.ledger.trips.push(Trip { window, key, sent: Vec::new(), ended: false, revoked: false });
        }
        self.mourn(Who::Big);
    }

    fn write_home(&mut self) {
        let mut content =
            format!("From: {ADDRESS}\r\nDate: Fri, 15 Jan 2027 08:00:00 +0000\r\n").into_bytes();
        content.extend(format!("Message-ID: <{}@example.com>\r\n", self.written + 1).into_bytes());
        content.extend(self.content());
        let Some(place) = self.ledger.trips.len().checked_sub(1) else { return };
        let window = self.ledger.trips[place].window;
        let Some(edge) = &self.world.edge else { return };
        let (from, to): (Address, Address) =
            (ADDRESS.parse().expect("an address"), TO.parse().expect("an address"));
        let sent = block_on(edge.submit(&window, &from, &to, &content));
        self.say(|| format!("{PERSON} writes {} octets: {:?}", content.len(), sent.as_ref().map(named)));
        let answered = sent.ok();
        if answered.is_some() {
            self.outcome.accepted += 1;
            self.ledger.trips[place].sent.push(content.clone());
        }
        // Of one that was not answered nobody knows; it may be there.
        let to = TO.to_owned();
        self.ledger.inbound.insert(content, Inbound { to, answered, at_edge: true, excused: false });
        self.mourn(Who::Edge);
    }

    fn come_home(&mut self) {
        let revoke = self.dice.below(3) == 0;
        let Some(big) = &self.world.big else { return };
        let ended = big.end_travel(PERSON, revoke);
        self.say(|| format!("{PERSON} is home, revoked {revoke}: {:?}", ended.as_ref().map(named)));
        for trip in &mut self.ledger.trips {
            let is_it = ended.as_ref().is_ok_and(|window| *window == trip.window);
            trip.ended |= is_it;
            // One that was not answered may have been done all the same; and one that ended lately is revoked, too.
            trip.revoked |= revoke;
        }
        self.mourn(Who::Big);
    }

    /// Windows end by the clocks of both nodes.
    pub fn end_overdue(&mut self) {
        if let Some(big) = &self.world.big {
            // What the disk refuses now is done the next time.
            let _ = big.end_overdue();
        }
        if let Some(edge) = &self.world.edge {
            let _ = block_on(edge.end_overdue());
        }
    }

    /// What was sent before a window was revoked may be refused after that. So may anything, once clocks have jumped: what
    /// comes a week after the end, or before the beginning, is not taken.
    pub fn excuse_refused(&mut self) {
        for trip in &self.ledger.trips {
            if !trip.revoked && !self.jumped {
                continue;
            }
            for content in &trip.sent {
                if let Some(message) = self.ledger.inbound.get_mut(content) {
                    message.excused = true;
                }
            }
        }
    }

    /// Whether each window that was ended is confirmed, and nothing is left of one that is.
    pub fn audit_trips(&mut self) {
        let (Some(big), Some(edge)) = (&self.world.big, &self.world.edge) else { return };
        let outcome: &mut Outcome = &mut self.outcome;
        for trip in &self.ledger.trips {
            let window = named(&trip.window);
            match big.window(&trip.window) {
                Ok(Some((is, told))) => match is {
                    WindowState::Ended => match edge.left_of(&trip.window) {
                        Ok(left) if left.is_empty() => {}
                        left => {
                            let what = format!("of the window {window}, which has ended, there is {left:?}");
                            outcome.fault(|outcome| &mut outcome.ghost, what);
                        }
                    },
                    WindowState::Ending if !told => {}
                    _ if trip.ended => {
                        let what = format!("the window {window} was ended, and is {is:?}");
                        outcome.fault(|outcome| &mut outcome.stuck, what);
                    }
                    WindowState::Open | WindowState::Ending => {}
                },
                other => {
                    let what = format!("big does not know the window {window}: {other:?}");
                    outcome.fault(|outcome| &mut outcome.lost, what);
                }
            }
        }
    }
}

/// Whether a dead letter is one of those that may be refused.
pub fn may_be_refused(jumped: bool, trips: &[Trip], reason: &str) -> bool {
    let over =
        ["its travel window has ended", "its travel window has not begun", "the edge had closed that window"];
    (jumped || trips.iter().any(|trip| trip.revoked)) && over.iter().any(|over| reason.contains(over))
}
