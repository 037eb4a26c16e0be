//! A peer that lies in frames which are well-formed: positions, numbers, chains, confirms and bodies that are not true,
//! close to what is. It knows both lanes' numbers, as a taken-over node does; no true chain is in a lie about a commit,
//! for whoever can make one has stored the units.

use bytes::Bytes;
use link_proto::frame::{
    Batch, Compare, CompareLane, Confirmed, Credit, Frame, Held, Hello, Refusal, Refused, Resume, Stop,
};
use link_proto::host::{Applied, Identity, Rejection};
use link_proto::session::Channel;
use link_proto::unit::{Body, Digest, Lane, Position, Unit, UnitId};
use shared::id::unix_millis;
use shared::lane::{self, LanePosition, LaneRow};
use shared::store::sim::Dice;
use shared::unit::{
    DeliveryState, DirectoryCompared, Id, Inbound, Outcome, PopAct, ReviseResult, Revised, ToBig, encode,
};

use crate::world::{Who, World};

/// Units that no lane of a schedule has unconfirmed.
const MANY: usize = 200;

/// Says one lie to `who`, about messages of these `ids` and about what never was. What was said, in words.
pub fn lie(world: &mut World, who: Who, ids: &[Id], dice: &mut Dice) -> String {
    let row_of = |lane: Lane| {
        let rows = world.store(who).and_then(|store| store.read().ok());
        rows.and_then(|rows| lane::state(&rows, lane.index()).ok()).unwrap_or_default()
    };
    let rows = Lane::ALL.map(row_of);
    let (channel, frame) = Liar { dice, ids }.lie(who, &rows);
    let said = match &frame {
        // Its units are noise.
        Frame::Batch(batch) => {
            format!("BATCH of {:?}", batch.units.iter().map(|u| u.number).collect::<Vec<_>>())
        }
        Frame::Offer(ids) => format!("OFFER of {}", ids.len()),
        Frame::Known(bits) => format!("KNOWN of {}", bits.len()),
        frame => format!("{frame:?}"),
    };
    world.say_to(who, channel, &frame);
    format!("{channel:?} {said}")
}

struct Liar<'a> {
    dice: &'a mut Dice,
    ids: &'a [Id],
}

impl Liar<'_> {
    /// A lie for the node whose lanes stand as in `rows`.
    fn lie(&mut self, who: Who, rows: &[LaneRow; 4]) -> (Channel, Frame) {
        let lane = self.pick(&Lane::ALL);
        let row = &rows[usize::from(lane.index())];
        let on_lane = Channel::Lane(lane);
        match self.dice.below(16) {
            0 => (Channel::Control, Frame::Hello(self.hello(who))),
            1 => (Channel::Control, Frame::Refused(self.refused())),
            2 => (Channel::Control, Frame::Welcome(vec![7; 40])),
            3 | 4 => (Channel::Control, Frame::Compare(Box::new(self.compare(who, rows)))),
            5 => (on_lane, Frame::Resume(self.resume(row))),
            6 => {
                let stops =
                    [Stop::Differs, Stop::ReceiverPutBack, Stop::OlderThanSafety, Stop::SenderPutBack];
                (on_lane, Frame::Stopped(self.pick(&stops)))
            }
            7 | 8 => (on_lane, Frame::Batch(self.batch(who, row))),
            9..=11 => (Channel::Control, Frame::Confirmed(self.confirmed(lane, row))),
            12 => (Channel::Control, Frame::Credit(lane, self.credit())),
            13 => (Channel::Control, self.about_a_body()),
            // More than is ever offered here: who takes the answer for the one to its own offer believes what it says, and
            // who says that mail is there which is not can lose it.
            14 => (on_lane, Frame::Offer([vec![[0xee; 16]; MANY], vec![self.id(), self.id()]].concat())),
            _ => (on_lane, Frame::Known(vec![true; MANY + usize::try_from(self.dice.below(9)).unwrap_or(0)])),
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.dice.below(from.len() as u64)).unwrap_or(0)]
    }

    /// A number near `true_one`, or absurd.
    fn number(&mut self, true_one: u64) -> u64 {
        match self.dice.below(6) {
            0 => true_one.saturating_sub(1),
            1 => true_one.saturating_add(1),
            2 => true_one.saturating_add(2),
            3 => 0,
            4 => u64::MAX,
            _ => true_one,
        }
    }

    fn digest(&mut self) -> Digest {
        let octet = u8::try_from(self.dice.below(256)).unwrap_or(0);
        // All zero is what the beginning of a lane has.
        [octet | 1; 32]
    }

    fn position(&mut self, true_one: LanePosition) -> Position {
        let number = self.number(true_one.number);
        // A true number has a false chain, and the other way round.
        let false_chain = number == true_one.number || self.dice.below(2) == 0;
        Position { number, chain: if false_chain { self.digest() } else { true_one.chain } }
    }

    /// The id of a message that there is, or of none.
    fn id(&mut self) -> UnitId {
        if self.ids.is_empty() || self.dice.below(2) == 0 {
            return self.new_id();
        }
        self.pick(self.ids)
    }

    fn new_id(&mut self) -> UnitId {
        let mut id = [0xee; 16];
        id[..8].copy_from_slice(&self.dice.roll().to_be_bytes());
        id
    }

    /// None that is above what the partner ever had: that is believed of whoever has its key, until an operator says
    /// otherwise.
    fn hello(&mut self, who: Who) -> Hello {
        let generation = u32::try_from(self.dice.below(2)).unwrap_or(0);
        let identity = Identity { node: [partner(who); 16], log_name: [partner(who) + 100; 16], generation };
        Hello { newest: 1, oldest: 1, identity, epoch: self.dice.below(4), proof: None, rotates: false }
    }

    fn refused(&mut self) -> Refused {
        let reasons = [Refusal::Version, Refusal::Stale, Refusal::Unknown, Refusal::LogName];
        let generation = u32::try_from(self.dice.below(5)).unwrap_or(0);
        Refused { why: self.pick(&reasons), generation, epoch: self.number(3) }
    }

    fn compare(&mut self, who: Who, rows: &[LaneRow; 4]) -> Compare {
        let lanes = rows.map(|row| CompareLane {
            confirmed: self.position(row.received),
            next: self.number(row.received.number.saturating_add(1)),
            received: self.position(row.confirmed),
        });
        let own = if who == Who::Big { 1 } else { 2 };
        Compare { held: [own + 100; 16], lanes }
    }

    fn resume(&mut self, row: &LaneRow) -> Resume {
        Resume { position: self.position(row.received), rebase: self.dice.below(2) == 0 }
    }

    /// Units that nobody ever wrote, and half of those for big are such as an edge may write. Their chain is right, for anybody can make that of what they say themselves.
    fn batch(&mut self, who: Who, row: &LaneRow) -> Batch {
        let next = row.received.number.saturating_add(1);
        let first = if self.dice.below(2) == 0 { next } else { self.number(next) };
        let true_one = Position { number: row.received.number, chain: row.received.chain };
        let (mut units, mut position) = (Vec::new(), true_one);
        for number in 0..1 + self.dice.below(3) {
            let body = match self.dice.below(3) {
                0 => Body::None,
                1 => Body::Inline(Bytes::from_static(b"what nobody sealed")),
                _ => Body::Staged { length: self.number(70_000), digest: self.digest() },
            };
            let head = match who == Who::Big && self.dice.below(2) == 0 {
                true => encode(&self.fact()),
                false => vec![0xee; usize::try_from(self.dice.below(300)).unwrap_or(0)],
            };
            let number = first.saturating_add(number);
            let unit = Unit { number, id: self.new_id(), after: None, head: head.into(), body };
            position = position.after(&unit);
            units.push(unit);
        }
        let chain = if self.dice.below(4) == 0 { self.digest() } else { position.chain };
        Batch { units, chain }
    }

    /// What an edge may say, of windows that are none, and of messages that are none or are there.
    fn fact(&mut self) -> ToBig {
        let (message, window) = (self.id(), self.new_id());
        let (recipient, at) = (u32::try_from(self.dice.below(2)).unwrap_or(0), unix_millis());
        let revision = u32::try_from(self.number(1)).unwrap_or(u32::MAX);
        match self.dice.below(8) {
            0 => ToBig::Inbound(Inbound {
                message,
                wrapped_key: vec![0xee; 80],
                sealed_origin: vec![0xee; 100],
                origin_digest: [0xee; 16],
                submitted: self.pick(&[None, Some(window)]),
                filed: vec![window],
            }),
            1 => ToBig::Outcome(Outcome {
                message,
                recipient,
                state: self.pick(&[DeliveryState::Relayed, DeliveryState::Failed, DeliveryState::Withdrawn]),
                at,
                host: None,
                tls: None,
                relay: None,
                text: "a lie".into(),
                status: "2.0.0".into(),
                in_doubt: false,
                host_reports: false,
                next_attempt_at: None,
            }),
            2 => {
                let (retrieved, deleted) = (true, self.dice.below(2) == 0);
                ToBig::PopAct(PopAct { window, message, revision, retrieved, deleted, at })
            }
            3 => ToBig::WindowClosed { window, until: self.pick(&[None, Some(at)]) },
            4 => ToBig::Revised(Revised {
                message,
                recipient,
                revision,
                result: self.pick(&[ReviseResult::Withdrawn, ReviseResult::Replaced, ReviseResult::Pending]),
                at,
                text: "a lie".into(),
            }),
            5 => ToBig::WindowUsed { window, at },
            6 => ToBig::DirectoryCompared(DirectoryCompared {
                differs: self.pick(&[None, Some(())]).map(|()| Vec::new()),
            }),
            _ => ToBig::Guessing { networks: revision, accounts: recipient },
        }
    }

    fn confirmed(&mut self, lane: Lane, row: &LaneRow) -> Confirmed {
        let sent = LanePosition { number: row.last, chain: row.confirmed.chain };
        let about = if self.dice.below(2) == 0 { sent } else { row.confirmed };
        let rejection = Rejection { number: self.number(about.number), reason: "a lie".into() };
        let mut applied = Applied::default();
        match self.dice.below(3) {
            0 => applied.refused.push(rejection),
            1 => applied.deferred.push(rejection),
            _ => {}
        }
        Confirmed { lane, position: self.position(about), applied, credit: self.credit() }
    }

    fn credit(&mut self) -> Credit {
        Credit { units: self.number(400), bytes: self.number(1 << 20) }
    }

    fn about_a_body(&mut self) -> Frame {
        let unit = self.id();
        match self.dice.below(3) {
            0 => Frame::BodyPart(unit, self.number(40_000)),
            1 => Frame::BodyHeld(Held { unit, length: self.number(70_000), digest: self.digest() }),
            _ => Frame::BodyFailed(unit),
        }
    }
}

/// The number that stands for the partner of `who`.
fn partner(who: Who) -> u8 {
    if who == Who::Big { 2 } else { 1 }
}
