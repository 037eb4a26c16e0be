//! The model: nodes whose state is durable or lost, a wire that can be cut, and their schedule.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::frame::{Confirmed, Decoder, Held};
use crate::host::{Applied, Identity, LaneState, Opening, Partner, Reach, Rebase, Rejection, Settling};
use crate::session::{Channel, Input, Output, Role, Session, SessionError, Start};
use crate::unit::{Body, Lane, Position, Unit, UnitId};

pub(super) const BIG: usize = 0;
pub(super) const EDGE: usize = 1;
pub(super) const SECRET: [u8; 32] = [42; 32];
const WELCOME: &[u8] = b"welcome, big";

/// xorshift64: the same schedule for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// What a node was asked to make durable and has not yet.
enum Pending {
    Apply { lane: Lane, units: Vec<Unit>, from: Position, position: Position },
    Confirmed(Confirmed),
    Number(Held),
    Stage(Held),
}

/// A node: everything but `pending` is durable.
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) key: Vec<u8>,
    /// The one it wants to have.
    pub(super) next_key: Option<Vec<u8>>,
    pub(super) epoch: u64,
    pub(super) partner: Option<Partner>,
    pub(super) secret: Option<[u8; 32]>,
    pub(super) lanes: [LaneState; 4],
    /// Every unit that was ever numbered, and whether it was refused or deferred: queue and safety store.
    pub(super) log: [Vec<(Unit, bool)>; 4],
    /// Every position that was confirmed or settled on.
    pub(super) anchors: [Vec<Position>; 4],
    /// Number up to which the safety store has been trimmed.
    pub(super) trimmed: u64,
    /// Behind which numbers the partner was said to lack what is gone.
    pub(super) lacks: Vec<u64>,
    pub(super) adopt: bool,
    /// Every lane was settled so often.
    pub(super) settled: usize,
    /// For each time that a lane was numbered anew, whether the receiver's past was proved.
    pub(super) proved: Vec<bool>,
    /// Number and id of everything that was applied, in order.
    pub(super) filed: [Vec<(u64, UnitId)>; 4],
    rejected: [Applied; 4],
    /// The partner began further on in this session.
    rebased: [Option<u64>; 4],
    deferred_once: HashSet<UnitId>,
    pub(super) dead: Vec<UnitId>,
    waiting: Vec<(UnitId, Held)>,
    staged: HashMap<UnitId, Held>,
    pending: VecDeque<Pending>,
    pub(super) welcomed: bool,
}

impl Node {
    pub(super) fn new(number: u8) -> Self {
        Self {
            identity: Identity { node: [number; 16], log_name: [number + 100; 16], generation: 1 },
            key: vec![number; 44],
            next_key: None,
            epoch: 0,
            partner: None,
            secret: None,
            lanes: Default::default(),
            log: Default::default(),
            anchors: Default::default(),
            trimmed: 0,
            lacks: Vec::new(),
            adopt: false,
            settled: 0,
            proved: Vec::new(),
            filed: Default::default(),
            rejected: Default::default(),
            rebased: Default::default(),
            deferred_once: HashSet::new(),
            dead: Vec::new(),
            waiting: Vec::new(),
            staged: HashMap::new(),
            pending: VecDeque::new(),
            welcomed: false,
        }
    }

    /// Queues a unit durably, in the order of calls.
    pub(super) fn offer(&mut self, lane: Lane, id: UnitId, head: &[u8], body: Body) {
        let state = &mut self.lanes[usize::from(lane.index())];
        state.next = state.next.max(1);
        let unit = Unit { number: state.next, id, after: None, head: Bytes::copy_from_slice(head), body };
        state.next += 1;
        self.log[usize::from(lane.index())].push((unit, false));
    }

    /// Queues a unit whose body has to be carried over first.
    pub(super) fn offer_large(&mut self, id: UnitId) {
        self.waiting.push((id, Held { unit: id, length: 1 << 24, digest: [id[0]; 32] }));
    }

    pub(super) fn units(&self, lane: Lane, from: u64, units_max: usize, bytes_max: usize) -> Vec<Unit> {
        let mut bytes = 0;
        let fits = |unit: &&Unit| {
            bytes += crate::frame::raw_bytes(std::slice::from_ref(unit));
            bytes <= bytes_max
        };
        let log = self.log[usize::from(lane.index())].iter().map(|(unit, _)| unit);
        log.filter(|unit| unit.number >= from).take(units_max).take_while(fits).cloned().collect()
    }

    /// Forgets units of an outbound lane above `last`, as a backup does.
    pub(super) fn forget_after(&mut self, lane: Lane, last: u64, confirmed: Position) {
        let index = usize::from(lane.index());
        self.log[index].retain(|(unit, _)| unit.number <= last);
        self.anchors[index].retain(|anchor| anchor.number <= confirmed.number);
        (self.lanes[index].next, self.lanes[index].confirmed) = (last + 1, confirmed);
    }

    /// As the durable lanes of a node do it.
    fn settle(&mut self, lane: Lane, received: Position, settling: &Settling) -> Input {
        let index = usize::from(lane.index());
        let state = &mut self.lanes[index];
        let (from, held) = match settling {
            Settling::Replay => (received.number, Vec::new()),
            Settling::Renumber { held, after, .. } => (*after, held.clone()),
        };
        if let Settling::Renumber { proved, .. } = settling {
            self.proved.push(*proved);
        }
        let gap = received.number + 1 < state.next;
        let number = if gap { state.next } else { received.number };
        let base = Position { number, chain: received.chain };
        state.confirmed = base;
        state.next = base.number + 1;
        state.rebase = if base == received { Rebase::None } else { Rebase::From(received) };
        state.own_generation = self.identity.generation;
        state.partner_generation = self.partner.as_ref().map_or(0, |partner| partner.identity.generation);
        let again = self.log[index].extract_if(.., |(unit, _)| unit.number > from).collect::<Vec<_>>();
        for (unit, moved) in again {
            if !moved && !held.contains(&unit.id) {
                self.offer(lane, unit.id, &unit.head, unit.body);
            }
        }
        self.anchors[index].retain(|anchor| anchor.number <= from);
        self.anchors[index].push(base);
        self.settled += 1;
        Input::Settled { lane, position: base, rebase: base != received }
    }

    fn reach(&self, lane: Lane, number: u64) -> Reach {
        let anchors = self.anchors[usize::from(lane.index())].iter();
        let below = anchors.filter(|anchor| anchor.number <= number).max_by_key(|anchor| anchor.number);
        if number < self.trimmed { Reach::Gone } else { Reach::From(below.copied().unwrap_or_default()) }
    }

    /// Makes the oldest request durable, and answers it.
    fn commit(&mut self) -> Option<Input> {
        match self.pending.pop_front()? {
            Pending::Apply { lane, units, from, position } => Some(self.apply(lane, units, from, position)),
            Pending::Confirmed(confirmed) => {
                let lane = confirmed.lane;
                self.record(confirmed);
                Some(Input::Wake(lane))
            }
            Pending::Number(held) => {
                self.waiting.retain(|(id, _)| *id != held.unit);
                let body = Body::Staged { length: held.length, digest: held.digest };
                self.offer(Lane::Batch, held.unit, b"large", body);
                Some(Input::BodyNumbered(held.unit))
            }
            Pending::Stage(held) => {
                self.staged.insert(held.unit, held);
                Some(Input::BodyStaged(held))
            }
        }
    }

    fn apply(&mut self, lane: Lane, units: Vec<Unit>, from: Position, position: Position) -> Input {
        let index = usize::from(lane.index());
        assert_eq!(self.lanes[index].received, from);
        let mut applied = Applied::default();
        if let Some(number) = self.rebased[index].take() {
            self.lanes[index].received.number = number;
        }
        for unit in units {
            assert_eq!(unit.number, self.lanes[index].received.number + 1, "applied in order, once");
            self.lanes[index].received = self.lanes[index].received.after(&unit);
            let rejection = Rejection { number: unit.number, reason: "a reason".into() };
            if self.filed[index].iter().any(|(_, id)| *id == unit.id) {
                continue;
            }
            if unit.head.starts_with(b"refuse") {
                applied.refused.push(rejection);
            } else if unit.head.starts_with(b"defer") && self.deferred_once.insert(unit.id) {
                applied.deferred.push(rejection);
            } else {
                if let Body::Staged { length, digest } = unit.body {
                    let held = self.staged.remove(&unit.id).expect("staged before it was numbered");
                    assert_eq!((held.length, held.digest), (length, digest));
                }
                self.filed[index].push((unit.number, unit.id));
            }
        }
        assert_eq!(self.lanes[index].received, position);
        self.rejected[index].refused.extend(applied.refused.clone());
        self.rejected[index].deferred.extend(applied.deferred.clone());
        Input::Applied { lane, number: position.number, applied }
    }

    fn record(&mut self, confirmed: Confirmed) {
        let Confirmed { lane, position, applied, .. } = confirmed;
        let index = usize::from(lane.index());
        self.lanes[index].confirmed = position;
        self.lanes[index].rebase = Rebase::None;
        self.anchors[index].push(position);
        let mut take = |rejection: &Rejection| {
            let found = self.log[index].iter_mut().find(|(unit, _)| unit.number == rejection.number);
            let (unit, moved) = found.unwrap();
            *moved = true;
            unit.clone()
        };
        let refused: Vec<_> = applied.refused.iter().map(&mut take).collect();
        let deferred: Vec<_> = applied.deferred.iter().map(&mut take).collect();
        self.dead.extend(refused.iter().map(|unit| unit.id));
        for unit in deferred {
            self.offer(lane, unit.id, &unit.head, unit.body.clone());
        }
    }

    fn recall(&mut self, lane: Lane, after: u64) -> Applied {
        let rejected = &mut self.rejected[usize::from(lane.index())];
        rejected.refused.retain(|one| one.number > after);
        rejected.deferred.retain(|one| one.number > after);
        rejected.clone()
    }

    /// Everything left this node, and was answered.
    pub(super) fn is_idle(&self) -> bool {
        let confirmed = |state: &LaneState| state.next.saturating_sub(1) == state.confirmed.number;
        self.lanes.iter().all(confirmed) && self.waiting.is_empty() && self.pending.is_empty()
    }
}

/// What happens at a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The connection is lost; both stores finish what they were asked.
    Network,
    /// One node crashes too, and what was not durable there is gone.
    Crash(usize),
    /// Both do.
    CrashBoth,
}

/// Two nodes and what is between them.
pub(super) struct Sim {
    pub(super) nodes: [Node; 2],
    pub(super) sessions: [Option<Session>; 2],
    wire: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    bodies: VecDeque<(usize, Held)>,
    pub(super) now: Duration,
    /// Frames and bodies delivered so far.
    pub(super) delivered: usize,
    connections: u32,
    /// Alarms: node, lane, outbound.
    pub(super) stops: Vec<(usize, Lane, bool, crate::frame::Stop)>,
    pub(super) in_flight_max: usize,
}

impl Sim {
    pub(super) fn new() -> Self {
        Self {
            nodes: [Node::new(1), Node::new(2)],
            sessions: [None, None],
            wire: BTreeMap::new(),
            bodies: VecDeque::new(),
            now: Duration::ZERO,
            delivered: 0,
            connections: 0,
            stops: Vec::new(),
            in_flight_max: 0,
        }
    }

    /// Two nodes that know each other.
    pub(super) fn paired() -> Self {
        let mut sim = Self::new();
        let partner = |node: &Node| Partner {
            identity: node.identity,
            key: node.key.clone(),
            next_key: None,
            former_key: None,
            epoch: 0,
        };
        sim.nodes[BIG].partner = Some(partner(&sim.nodes[EDGE]));
        sim.nodes[EDGE].partner = Some(partner(&sim.nodes[BIG]));
        sim
    }

    pub(super) fn is_open(&self, node: usize) -> bool {
        self.sessions[node].as_ref().is_some_and(Session::is_open)
    }

    /// What a session of `node` would start from.
    pub(super) fn start(&self, node: usize) -> Start {
        let (this, other) = (&self.nodes[node], &self.nodes[1 - node]);
        Start {
            role: if node == BIG { Role::Dialler } else { Role::Listener },
            opening: Opening {
                local: this.identity,
                epoch: this.epoch,
                partner: this.partner.clone(),
                adopt: this.adopt,
                lanes: this.lanes,
            },
            local_key: this.key.clone(),
            next_key: this.next_key.clone(),
            peer_key: other.key.clone(),
            binding: *blake3::hash(&self.connections.to_le_bytes()).as_bytes(),
            secret: this.secret.filter(|_| node == EDGE || this.partner.is_none()),
        }
    }

    /// A new connection: big raises its epoch, and both begin.
    pub(super) fn connect(&mut self) -> Result<(), SessionError> {
        self.connections += 1;
        self.nodes[BIG].epoch += 1;
        self.wire.clear();
        self.bodies.clear();
        for node in [BIG, EDGE] {
            self.sessions[node] = Some(Session::new(self.start(node), self.now)?);
        }
        self.drain(BIG)
    }

    pub(super) fn cut(&mut self, cut: Cut) {
        self.sessions = [None, None];
        for node in [BIG, EDGE] {
            if cut == Cut::CrashBoth || cut == Cut::Crash(node) {
                self.nodes[node].pending.clear();
            }
            while self.nodes[node].commit().is_some() {}
            self.nodes[node].rebased = Default::default();
        }
    }

    /// Gives a session one input, and carries out what it asks for.
    pub(super) fn input(&mut self, node: usize, input: Input) -> Result<(), SessionError> {
        let session = self.sessions[node].as_mut().expect("connected");
        let result = session.handle(input, self.now);
        self.in_flight_max = self.in_flight_max.max(session.lane(Lane::Inter).in_flight);
        self.drain(node)?;
        result
    }

    fn drain(&mut self, node: usize) -> Result<(), SessionError> {
        while let Some(output) = self.sessions[node].as_mut().and_then(Session::poll) {
            if let Some(answer) = self.carry_out(node, output) {
                self.sessions[node].as_mut().expect("connected").handle(answer, self.now)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, output: Output) -> Option<Input> {
        let lanes = Box::new(self.nodes[node].lanes);
        let this = &mut self.nodes[node];
        match output {
            Output::Send(channel, frame) => {
                let bytes = frame.encode().concat();
                self.wire.entry((1 - node, place(channel))).or_default().push_back(bytes);
            }
            Output::Remember(partner) => {
                this.partner = Some(partner);
                return Some(Input::Remembered { lanes });
            }
            Output::RememberKey(partner) => {
                this.partner = Some(partner);
                return Some(Input::KeyRemembered);
            }
            Output::PairedBy(partner) => {
                this.partner = Some(partner);
                this.secret = None;
                return Some(Input::Welcome { welcome: WELCOME.to_vec(), lanes });
            }
            Output::PairedWith(partner, welcome) => {
                assert_eq!(welcome, WELCOME);
                (this.partner, this.welcomed) = (Some(partner), true);
                return Some(Input::Remembered { lanes });
            }
            Output::Adopt(partner) => {
                (this.partner, this.adopt) = (Some(partner), false);
                for state in &mut this.lanes {
                    state.received = Position::default();
                    (state.rebase, state.partner_generation) = (Rebase::Any, 0);
                }
                return Some(Input::Remembered { lanes: Box::new(this.lanes) });
            }
            Output::Opened => return Some(Input::Parts(Vec::new())),
            Output::Compared { lane, .. } => {
                let state = &mut this.lanes[usize::from(lane.index())];
                state.own_generation = this.identity.generation;
                state.partner_generation = this.partner.as_ref().unwrap().identity.generation;
            }
            Output::LookBack { lane, number } => return Some(Input::Reach(lane, this.reach(lane, number))),
            Output::ListIds { lane, after, max } => {
                let log = this.log[usize::from(lane.index())].iter();
                // Few, so that there are several offers; but no more of them than are answered.
                let at_once = if log.len() > 1000 { max } else { 2 };
                let trimmed = this.trimmed.max(after);
                let ids = log.filter(|(unit, moved)| unit.number > trimmed && !moved);
                return Some(Input::Ids(
                    lane,
                    ids.take(at_once).map(|(unit, _)| (unit.number, unit.id)).collect(),
                ));
            }
            Output::LookUp { lane, ids } => {
                let filed = &this.filed[usize::from(lane.index())];
                let known = |id: &UnitId| filed.iter().any(|(_, filed)| filed == id);
                return Some(Input::Known(lane, ids.iter().map(known).collect()));
            }
            Output::Settle { lane, received, settling } => {
                return Some(this.settle(lane, received, &settling));
            }
            Output::Rebased { lane, from, to } => {
                assert!(from <= to);
                // It becomes durable with the first units that follow.
                this.rebased[usize::from(lane.index())] = Some(to);
            }
            Output::Fetch { lane, from, units_max, bytes_max } => {
                return Some(Input::Units(lane, this.units(lane, from, units_max, bytes_max)));
            }
            Output::Apply { lane, units, from, position } => {
                this.pending.push_back(Pending::Apply { lane, units, from, position });
            }
            Output::Recall { lane, after, number } => {
                return Some(Input::Applied { lane, number, applied: this.recall(lane, after) });
            }
            Output::Confirmed(confirmed) => this.pending.push_back(Pending::Confirmed(confirmed)),
            Output::ListBodies { max } => {
                return Some(Input::BodiesWaiting(
                    this.waiting.iter().map(|(id, _)| *id).take(max).collect(),
                ));
            }
            Output::SendBody { unit, .. } => {
                let held = this.waiting.iter().find(|(id, _)| *id == unit).expect("listed").1;
                self.bodies.push_back((1 - node, held));
                return Some(Input::BodySent(held));
            }
            Output::BodyHeld(held) => this.pending.push_back(Pending::Number(held)),
            Output::Lacks { number, .. } => this.lacks.push(number),
            Output::Stopped { lane, outbound, why } => self.stops.push((node, lane, outbound, why)),
        }
        None
    }

    /// Bodies on their way arrive nowhere.
    pub(super) fn lose_bodies(&mut self) {
        self.bodies.clear();
    }

    /// Everything that could happen next.
    fn events(&self) -> Vec<Event> {
        let deliverable = |(&(to, place), frames): (&(usize, usize), &VecDeque<_>)| {
            (!frames.is_empty() && (place == 0 || self.is_open(to))).then_some(Event::Frame(to, place))
        };
        let mut events: Vec<_> = self.wire.iter().filter_map(deliverable).collect();
        events.extend(self.bodies.front().filter(|(to, _)| self.is_open(*to)).map(|_| Event::Body));
        let commits = (0..2).filter(|node| !self.nodes[*node].pending.is_empty());
        events.extend(commits.map(Event::Commit));
        events
    }

    /// Lets the next thing happen: the first possible one, or one at random. `false` if nothing can.
    pub(super) fn step(&mut self, random: Option<&mut Random>) -> Result<bool, SessionError> {
        self.now += Duration::from_millis(1);
        let events = self.events();
        if events.is_empty() {
            return Ok(false);
        }
        match events[random.map_or(0, |random| random.below(events.len()))] {
            Event::Frame(to, place) => {
                let bytes = self.wire.get_mut(&(to, place)).and_then(VecDeque::pop_front).unwrap();
                self.delivered += 1;
                let mut decoder = Decoder::default();
                decoder.push(&bytes);
                let frame = decoder.next_frame().unwrap().unwrap();
                assert!(decoder.is_empty());
                self.input(to, Input::Frame(channel(place), frame))?;
            }
            Event::Body => {
                let (to, held) = self.bodies.pop_front().unwrap();
                self.delivered += 1;
                self.nodes[to].pending.push_back(Pending::Stage(held));
            }
            Event::Commit(node) => {
                let answer = self.nodes[node].commit().unwrap();
                if self.sessions[node].is_some() {
                    self.input(node, answer)?;
                }
            }
        }
        Ok(true)
    }

    /// Runs until nothing more can happen.
    pub(super) fn settle(&mut self) -> Result<(), SessionError> {
        while self.step(None)? {}
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Event {
    Frame(usize, usize),
    Body,
    Commit(usize),
}

fn place(channel: Channel) -> usize {
    match channel {
        Channel::Control => 0,
        Channel::Lane(lane) => 1 + usize::from(lane.index()),
    }
}

fn channel(place: usize) -> Channel {
    place.checked_sub(1).map_or(Channel::Control, |index| Channel::Lane(Lane::ALL[index]))
}
