//! The partner: frames that have their place here, mostly with the right fields.

use link_proto::frame::{
    Batch, Compare, CompareLane, Confirmed, Credit, Frame, Hello, Refusal, Refused, Resume, Stop, VERSION,
    VERSION_OLDEST,
};
use link_proto::host::{Applied, Rejection};
use link_proto::session::{Channel, Input, Role, pairing_proof};
use link_proto::unit::{Lane, Position};

use super::super::script::Script;
use super::host::{BINDING, Host, SECRET, body_id, held};
use super::lane;
use super::sample::{self, Side};
use super::watch::Watch;

/// Batches of the largest size that one script gets: they cost time.
const LARGE_MAX: u8 = 6;

/// What the partner has said.
#[derive(Debug, Default)]
pub(super) struct Partner {
    greeted: bool,
    welcomed: bool,
    large: u8,
}

impl Partner {
    /// Takes down what is about to be said.
    pub fn before(&mut self, input: &Input) {
        match input {
            Input::Frame(_, Frame::Hello(_)) => self.greeted = true,
            Input::Frame(_, Frame::Welcome(_)) => self.welcomed = true,
            _ => {}
        }
    }

    /// What it says next where nothing goes wrong.
    pub fn usual(&mut self, host: &Host, watch: &Watch, script: &mut Script<'_>) -> Input {
        let nothing = &mut Script::new(&[]);
        if !self.greeted {
            return Input::Frame(Channel::Control, hello(host, nothing));
        }
        if host.ticket && host.role == Role::Dialler && !self.welcomed {
            return Input::Frame(Channel::Control, Frame::Welcome(b"welcome".to_vec()));
        }
        if !watch.opened {
            return Input::Frame(Channel::Control, compare(host, nothing));
        }
        if let Some(lane) = Lane::ALL.into_iter().find(|lane| !watch.lane(*lane).resumed_in) {
            return Input::Frame(Channel::Lane(lane), resume(lane, watch, nothing));
        }
        let lane = lane(script);
        Input::Frame(Channel::Lane(lane), self.batch(lane, watch, nothing))
    }

    /// A frame of the kind that the script says.
    pub fn frame(&mut self, host: &Host, watch: &Watch, script: &mut Script<'_>) -> Input {
        let kind = script.below(14);
        let lane = lane(script);
        let (channel, frame) = match kind {
            0 => (Channel::Lane(lane), self.batch(lane, watch, script)),
            1 => (Channel::Lane(lane), resume(lane, watch, script)),
            2 => (Channel::Control, confirmed(lane, watch, script)),
            3 => (Channel::Control, Frame::Credit(lane, credit(lane, watch, script))),
            4 => (Channel::Lane(lane), Frame::Stopped(stop(script))),
            5 => (Channel::Lane(lane), offer(lane, watch, script)),
            6 => (Channel::Lane(lane), known(lane, watch, script)),
            7 => (Channel::Control, Frame::BodyPart(body_id(script.byte()), script.number(10))),
            8 => {
                let sent = watch.sent_body(script.below(4)).unwrap_or(held(body_id(script.byte())));
                let (length, digest) = (script.number(sent.length), script.field(sent.digest));
                let body = link_proto::frame::Held { length, digest, ..sent };
                (Channel::Control, Frame::BodyHeld(body))
            }
            9 => (Channel::Control, Frame::BodyFailed(body_id(script.byte()))),
            10 => (Channel::Control, hello(host, script)),
            11 => (Channel::Control, compare(host, script)),
            12 => (Channel::Control, Frame::Welcome(vec![0; script.byte().into()])),
            _ => {
                let refused = Refused { why: Refusal::Stale, generation: 1, epoch: script.number(1) };
                (Channel::Control, Frame::Refused(refused))
            }
        };
        let channel = match script.byte() {
            252.. => Channel::Control,
            248..252 => Channel::Lane(lane),
            _ => channel,
        };
        Input::Frame(channel, frame)
    }

    fn batch(&mut self, lane: Lane, watch: &Watch, script: &mut Script<'_>) -> Frame {
        let arrived = watch.lane(lane).arrived;
        let count = u64::from(script.below(51)).max(1);
        let first = script.number(arrived.number.saturating_add(1));
        let gap = script.rarely();
        let large = script.rarely() && self.large < LARGE_MAX;
        let mut position = arrived;
        let mut units = Vec::new();
        let count = if large { count.min(4) } else { count };
        self.large += u8::from(large);
        for number in first..first.saturating_add(count) {
            let number = if gap && number > first { number.saturating_add(1) } else { number };
            let make = if large { sample::large } else { sample::unit };
            units.push(make(Side::Partner, lane, number));
            position = position.after(units.last().expect("just pushed"));
        }
        // `frame` decodes no empty batch, nor one with a gap; the session must bear both.
        Frame::Batch(Batch { units, chain: script.field(position.chain) })
    }
}

fn hello(host: &Host, script: &mut Script<'_>) -> Frame {
    let mut identity = Host::partner_identity();
    identity.node = script.field(identity.node);
    identity.log_name = script.field(identity.log_name);
    let generation = script.number(identity.generation.into());
    identity.generation = u32::try_from(generation).unwrap_or(u32::MAX);
    let proved = host.ticket && host.role == Role::Listener;
    let [local, peer] = Host::keys();
    let proof = proved.then(|| script.field(pairing_proof(&SECRET, &BINDING, &peer, &local)));
    let newest = if script.rarely() { VERSION + 1 } else { VERSION };
    let oldest = if script.rarely() { newest } else { VERSION_OLDEST };
    Frame::Hello(Hello { newest, oldest, identity, epoch: script.number(9), proof, rotates: false })
}

fn compare(host: &Host, script: &mut Script<'_>) -> Frame {
    let held = script.field(host.local().log_name);
    let mut lanes = [CompareLane::default(); 4];
    for (lane, (theirs, mine)) in Lane::ALL.into_iter().zip(lanes.iter_mut().zip(&host.lanes)) {
        let place = |script: &mut Script<'_>, side, right: Position| {
            let number = script.number(right.number);
            let position = if number == right.number { right } else { sample::position(side, lane, number) };
            Position { chain: script.field(position.chain), ..position }
        };
        theirs.confirmed = place(script, Side::Partner, mine.received);
        theirs.next = script.number(mine.received.number.saturating_add(1));
        theirs.received = place(script, Side::Own, mine.confirmed);
    }
    Frame::Compare(Box::new(Compare { held, lanes }))
}

fn resume(lane: Lane, watch: &Watch, script: &mut Script<'_>) -> Frame {
    let arrived = watch.lane(lane).arrived;
    let number = script.number(arrived.number);
    let position = Position { number, chain: script.field(arrived.chain) };
    Frame::Resume(Resume { position, rebase: script.byte() & 1 != 0 })
}

fn confirmed(lane: Lane, watch: &Watch, script: &mut Script<'_>) -> Frame {
    let watched = watch.lane(lane);
    let end = watched.ends.get(usize::from(script.below(8))).or(watched.ends.front());
    let right = end.copied().unwrap_or(watched.sent);
    let number = script.number(right.number);
    let position = Position { number, chain: script.field(right.chain) };
    let mut applied = Applied::default();
    for _ in 0..script.below(4) {
        let rejection = Rejection { number: script.number(number), reason: "a reason".into() };
        if script.byte() & 1 == 0 { &mut applied.refused } else { &mut applied.deferred }.push(rejection);
    }
    Frame::Confirmed(Confirmed { lane, position, applied, credit: credit(lane, watch, script) })
}

fn credit(lane: Lane, watch: &Watch, script: &mut Script<'_>) -> Credit {
    let before = watch.lane(lane).credit;
    let more = u64::from(script.byte());
    Credit {
        units: script.number(before.units.saturating_add(more)),
        bytes: script.number(before.bytes.saturating_add(more * 16)),
    }
}

fn stop(script: &mut Script<'_>) -> Stop {
    [Stop::Differs, Stop::ReceiverPutBack, Stop::OlderThanSafety, Stop::SenderPutBack]
        [usize::from(script.below(4))]
}

fn offer(lane: Lane, watch: &Watch, script: &mut Script<'_>) -> Frame {
    let from = watch.lane(lane).arrived.number;
    let end = from.saturating_add(script.byte().into());
    Frame::Offer((from..end).map(|number| sample::id(Side::Partner, lane, number)).collect())
}

fn known(lane: Lane, watch: &Watch, script: &mut Script<'_>) -> Frame {
    let right = watch.lane(lane).offered as u64;
    let count = script.number(right).min(4096);
    let bits = script.byte();
    Frame::Known((0..count).map(|at| bits & (1 << (at % 8)) != 0).collect())
}
