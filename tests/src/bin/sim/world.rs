//! Two nodes on disks in memory, and the line between them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use big_node::harness::{self as big, Big};
use edge_node::harness::{self as edge, Collecting, Edge};
use link_proto::frame::Frame;
use link_proto::session::{Channel, Role};
use shared::age::Pulse;
use shared::id::unix_millis;
use shared::lane::{self, NodeIdentity, PartnerRow};
use shared::store::sim::{Dice, Faults, SimDisk};
use shared::store::{self, Store, StoreError};
use shared::topology::{SMALLEST, Topology};
use shared::unit::Id;
use tests::kinds;
use tests::process::Node;

use crate::end::{Applied, End, Step, block_on};
use crate::keys::{Keys, Shown};
use crate::line::Line;

/// Bytes of a segment: small, so that schedules see several.
const SEGMENT_BYTES: u64 = 32 * 1024;
const BIG_SEALING: [u8; 32] = [11; 32];
const EDGE_SEALING: [u8; 32] = [12; 32];
const DIRECTORY_KEY: [u8; 32] = [13; 32];

/// One of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The node inside.
    Big,
    /// The node in the DMZ.
    Edge,
}

impl Who {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Big, Self::Edge];

    /// The other one.
    pub fn other(self) -> Self {
        if self == Self::Big { Self::Edge } else { Self::Big }
    }
}

/// Both nodes.
pub struct World {
    topology: Topology,
    /// Big, while it runs.
    pub big: Option<Big>,
    /// The edge, while it runs.
    pub edge: Option<Edge>,
    /// A traveller's session there.
    pub collecting: Option<Collecting>,
    /// Their disks.
    pub big_disk: SimDisk,
    /// See `big_disk`.
    pub edge_disk: SimDisk,
    covers_disk: SimDisk,
    big_end: End<big::LinkHost>,
    edge_end: End<edge::LinkHost>,
    to_big: Line,
    to_edge: Line,
    /// The keys of each; by [`Who`].
    keys: [Keys; 2],
    /// With what each has opened the present connection.
    shown: [Option<Shown>; 2],
    keys_made: u64,
    /// A node went back, perhaps to before a key that counts, or was lied to: an operator may have to pair anew.
    may_pair_anew: bool,
    /// What makes each node that runs older; by [`Who`].
    pulses: [Pulse; 2],
    /// Since the beginning.
    pub now: Duration,
}

/// A copy of a node's store from a moment of its past.
#[derive(Debug)]
pub struct Image {
    disk: SimDisk,
    keys: Keys,
}

impl World {
    /// Two nodes that are paired, and know alice.
    pub fn new() -> Result<Self, StoreError> {
        Self::with(topology())
    }

    /// The same, of this topology.
    pub fn with(topology: Topology) -> Result<Self, StoreError> {
        let mut world = Self {
            topology,
            big: None,
            edge: None,
            collecting: None,
            big_disk: SimDisk::new(Faults::default()),
            edge_disk: SimDisk::new(Faults::default()),
            covers_disk: SimDisk::new(Faults::default()),
            big_end: End::default(),
            edge_end: End::default(),
            to_big: Line::default(),
            to_edge: Line::default(),
            keys: [Keys::first(1), Keys::first(2)],
            shown: [None, None],
            keys_made: 2,
            may_pair_anew: false,
            pulses: [Pulse::begin(), Pulse::begin()],
            now: Duration::ZERO,
        };
        for who in Who::BOTH {
            world.start(who)?;
        }
        let identity =
            |number: u8| NodeIdentity { node: [number; 16], log_name: [number + 100; 16], generation: 1 };
        for (who, own, partner) in [(Who::Big, 1, 2), (Who::Edge, 2, 1)] {
            let key = world.keys[who.other() as usize].present().to_vec();
            let row = PartnerRow {
                identity: identity(partner),
                key,
                next_key: None,
                former_key: None,
                epoch: 0,
                adopt: false,
            };
            world.store(who).ok_or(StoreError::Full)?.commit_blocking(move |txn| {
                lane::set_identity(txn, identity(own))?;
                lane::set_partner(txn, &row)
            })?;
        }
        if let Some(big) = &world.big {
            big.introduce(PublicSealing(EDGE_SEALING).public(), DIRECTORY_KEY)?;
        }
        Ok(world)
    }

    /// A running node's store.
    pub fn store(&self, who: Who) -> Option<&Store> {
        match who {
            Who::Big => self.big.as_ref().map(Big::store),
            Who::Edge => self.edge.as_ref().map(Edge::store),
        }
    }

    /// Whether a node runs.
    pub fn runs(&self, who: Who) -> bool {
        self.store(who).is_some()
    }

    fn disk(&mut self, who: Who) -> &mut SimDisk {
        match who {
            Who::Big => &mut self.big_disk,
            Who::Edge => &mut self.edge_disk,
        }
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, who: Who) -> Result<(), StoreError> {
        let disk: Arc<SimDisk> = Arc::new(self.disk(who).clone());
        let store = Store::open_with(disk, SEGMENT_BYTES)?;
        self.pulses[who as usize] = Pulse::begin();
        match who {
            Who::Big => self.big = Some(Big::new(store, &self.topology, BIG_SEALING)),
            Who::Edge => {
                let topology = self.topology.clone();
                let covers = Arc::new(self.covers_disk.clone());
                let edge = Edge::new(store, covers, topology, EDGE_SEALING, DIRECTORY_KEY);
                // What the disk refuses now is done later.
                let _ = block_on(edge.wake());
                self.edge = Some(edge);
            }
        }
        Ok(())
    }

    /// Ends a node without any warning; its disk keeps some of what was not synced.
    pub fn lose_power(&mut self, who: Who, dice: &mut Dice) {
        let left = self.disk(who).after_power_cut(dice, Faults::default());
        self.cut_line(Some(who));
        *self.disk(who) = left;
        if let Who::Edge = who {
            self.covers_disk = self.covers_disk.after_power_cut(dice, Faults::default());
        }
    }

    /// The node goes; what its session was asked for goes with it.
    fn drop_node(&mut self, who: Who) {
        match who {
            Who::Big => {
                self.big_end.lose(None);
                self.big = None;
            }
            Who::Edge => {
                self.edge_end.lose(None);
                self.collecting = None;
                self.edge = None;
            }
        }
    }

    /// Cuts the line; `dead` has lost its power.
    pub fn cut_line(&mut self, dead: Option<Who>) {
        if let Some(dead) = dead {
            self.drop_node(dead);
        }
        self.big_end.lose(self.big.as_ref().map(|big| &big.host));
        self.edge_end.lose(self.edge.as_ref().map(|edge| &edge.host));
        self.to_big.cut();
        self.to_edge.cut();
        self.shown = [None, None];
    }

    /// Whether there is a session.
    pub fn is_connected(&self) -> bool {
        self.big_end.is_connected() && self.edge_end.is_connected()
    }

    /// Whether its lanes have begun on both ends.
    pub fn is_open(&self) -> bool {
        self.big_end.is_open() && self.edge_end.is_open()
    }

    /// Big dials.
    pub fn connect(&mut self) -> Result<(), String> {
        if self.big.is_none() || self.edge.is_none() {
            return Ok(());
        }
        let (of_big, of_edge) = self.shown()?;
        let (Some(big), Some(edge)) = (&self.big, &self.edge) else { return Ok(()) };
        let (big_key, edge_key) = (of_big.key.clone(), of_edge.key.clone());
        let now = self.now;
        self.edge_end.connect(&edge.host, Role::Listener, &of_edge, big_key, now, &mut self.to_big)?;
        self.big_end.connect(&big.host, Role::Dialler, &of_big, edge_key, now, &mut self.to_edge)?;
        self.shown = [Some(of_big), Some(of_edge)];
        Ok(())
    }

    /// With what the nodes, which run, open a connection. Where they do not know each other, because one of them went
    /// back or was lied to, by whoever has the other one's key, an operator pairs them anew; nothing else makes them strangers.
    fn shown(&mut self) -> Result<(Shown, Shown), String> {
        for _ in 0..2 {
            let shown = |world: &Self, who: Who| {
                let pinned = world.pinned(who.other())?;
                world.keys[who as usize].shown_to(&pinned)
            };
            if let (Some(of_big), Some(of_edge)) = (shown(self, Who::Big), shown(self, Who::Edge)) {
                return Ok((of_big, of_edge));
            }
            if self.may_pair_anew {
                self.may_pair_anew = !self.pair_anew().map_err(|error| error.to_string())?;
            }
        }
        Err("the nodes do not know each other's keys".into())
    }

    /// What `who` has pinned of its partner.
    fn pinned(&self, who: Who) -> Option<PartnerRow> {
        lane::partner(&self.store(who)?.read().ok()?).ok().flatten()
    }

    /// What `pair --replace` does to the keys, which are all that has changed; if both stores can be read.
    fn pair_anew(&mut self) -> Result<bool, StoreError> {
        let (Some(of_big), Some(of_edge)) = (self.pinned(Who::Big), self.pinned(Who::Edge)) else {
            return Ok(false);
        };
        for (who, row) in [(Who::Big, of_big), (Who::Edge, of_edge)] {
            let key = self.keys[who.other() as usize].present().to_vec();
            let row = PartnerRow { key, next_key: None, former_key: None, ..row };
            let store = self.store(who).ok_or(StoreError::Full)?;
            store.commit_blocking(move |txn| lane::set_partner(txn, &row))?;
        }
        Ok(true)
    }

    /// An operator runs `link rotate` on a node. Whether a new key was made.
    pub fn rotate(&mut self, who: Who) -> bool {
        self.keys_made += 1;
        let begun = self.keys[who as usize].rotate(self.keys_made);
        if begun {
            self.cut_line(None);
        }
        begun
    }

    /// Where a session has opened, a key that was shown or announced is pinned: it is in use from now on.
    fn turn(&mut self) {
        for (who, open) in [(Who::Big, self.big_end.is_open()), (Who::Edge, self.edge_end.is_open())] {
            let Some(shown) = self.shown[who as usize].take_if(|_| open) else { continue };
            if self.keys[who as usize].opened(&shown) {
                self.cut_line(None);
            }
        }
    }

    /// Whether no rotation is under way, and each node has pinned the other's present key and nothing else.
    pub fn keys_are_settled(&self) -> bool {
        Who::BOTH.into_iter().all(|who| {
            let pinned = self.pinned(who.other());
            pinned.is_some_and(|pinned| self.keys[who as usize].are_settled(&pinned))
        })
    }

    /// Everything that could happen on the link next.
    pub fn steps(&self) -> Vec<(Who, Step)> {
        let at = |who, steps: Vec<Step>| steps.into_iter().map(move |step| (who, step));
        let mut steps = Vec::new();
        if self.big.is_some() {
            steps.extend(at(Who::Big, self.big_end.steps(&self.to_big)));
        }
        if self.edge.is_some() {
            steps.extend(at(Who::Edge, self.edge_end.steps(&self.to_edge)));
        }
        steps
    }

    /// Lets one of them happen; of bytes, `count`. An error ends the session.
    pub fn step(&mut self, who: Who, step: Step, count: usize, garbage: Option<u8>) -> Result<(), String> {
        self.may_pair_anew |= garbage.is_some();
        let now = self.now;
        let result = match who {
            Who::Big => match &self.big {
                Some(big) => take(
                    &mut self.big_end,
                    &big.host,
                    step,
                    count,
                    garbage,
                    now,
                    &mut self.to_big,
                    &mut self.to_edge,
                ),
                None => Ok(None),
            },
            Who::Edge => match &self.edge {
                Some(edge) => take(
                    &mut self.edge_end,
                    &edge.host,
                    step,
                    count,
                    garbage,
                    now,
                    &mut self.to_edge,
                    &mut self.to_big,
                ),
                None => Ok(None),
            },
        };
        self.turn();
        result.map(drop)
    }

    /// Puts a frame on the line to `who` that its partner has never said.
    pub fn say_to(&mut self, who: Who, channel: Channel, frame: &Frame) {
        self.may_pair_anew = true;
        let line = if who == Who::Big { &mut self.to_big } else { &mut self.to_edge };
        line.send(channel, frame.encode());
    }

    /// Tells both sessions that units may wait and time has passed.
    pub fn wake(&mut self) -> Result<(), String> {
        if let Some(big) = &self.big {
            self.big_end.wake(&big.host, self.now, &mut self.to_edge)?;
        }
        if let Some(edge) = &self.edge {
            self.edge_end.wake(&edge.host, self.now, &mut self.to_big)?;
        }
        Ok(())
    }

    /// A node has room for mail, or none.
    pub fn room(&mut self, who: Who, room: bool) -> Result<(), String> {
        match (who, &self.big, &self.edge) {
            (Who::Big, Some(big), _) => self.big_end.room(&big.host, room, self.now, &mut self.to_edge),
            (Who::Edge, _, Some(edge)) => self.edge_end.room(&edge.host, room, self.now, &mut self.to_big),
            _ => Ok(()),
        }
    }

    /// What was applied since this was asked last.
    pub fn applied(&mut self, who: Who) -> Vec<Applied> {
        match who {
            Who::Big => std::mem::take(&mut self.big_end.applied),
            Who::Edge => std::mem::take(&mut self.edge_end.applied),
        }
    }

    /// Lanes that stand still, as each end says.
    pub fn stops(&self) -> Vec<String> {
        self.big_end.stops.iter().chain(&self.edge_end.stops).cloned().collect()
    }

    /// What waits to be done with the next commit is done.
    pub fn flush(&self, who: Who) {
        if let Some(store) = self.store(who) {
            // A store that refuses is seen elsewhere.
            let _ = store.commit_blocking(|_| Ok::<_, StoreError>(()));
        }
    }

    /// Queues deferred units that are due.
    pub fn offer_deferred(&self, who: Who, now: u64) {
        if let Some(store) = self.store(who) {
            let _ = store.commit_blocking(move |txn| lane::queue_due(txn, now));
        }
    }

    /// Big goes on with what is to be copied into travel windows.
    pub fn fill_windows(&self, who: Who) {
        if let (Who::Big, Some(big)) = (who, &self.big) {
            // What the disk refuses now is done the next time.
            let _ = block_on(big.fill_windows());
        }
    }

    /// What a node sees to every minute: its safety store and what else has aged, and space.
    pub fn see_to_all(&mut self, who: Who) {
        let pulse = &mut self.pulses[who as usize];
        // A store that refuses is seen elsewhere.
        let _ = match (who, &self.big, &self.edge) {
            (Who::Big, Some(big), _) => block_on(big.see_to_all(pulse, &self.topology)),
            (Who::Edge, _, Some(edge)) => block_on(edge.see_to_all(pulse)),
            _ => Ok(()),
        };
    }

    /// The edge's safety store has room for so many octets.
    pub fn trim(&self, octets: u64) {
        if let Some(edge) = &self.edge {
            let _ = block_on(lane::trim_all(edge.store(), 0, octets));
        }
    }

    /// Whether the edge's safety store has given anything up.
    pub fn has_trimmed(&self) -> bool {
        let Some(Ok(rows)) = self.edge.as_ref().map(|edge| edge.store().read()) else { return false };
        (0..4).any(|lane| lane::state(&rows, lane).is_ok_and(|row| row.trimmed > 0))
    }

    /// What an operator of the edge has decided to go on without: lane and id.
    pub fn gone(&self) -> Result<Vec<(u8, Id)>, StoreError> {
        let Some(edge) = &self.edge else { return Ok(Vec::new()) };
        let mut gone = Vec::new();
        for row in lane::decisions(&edge.store().read()?)? {
            gone.extend(row.missing.named.iter().map(|(_, unit)| (row.lane, unit.id)));
        }
        Ok(gone)
    }

    /// A backup, as the command makes it.
    pub fn back_up(&self, who: Who) -> Option<Image> {
        let disk = SimDisk::new(Faults::default());
        store::backup(self.store(who)?, &disk).ok()?;
        Some(Image { disk, keys: self.keys[who as usize].clone() })
    }

    /// Puts an image in the place of a node's store: by `restore`, or by hand without it.
    pub fn put_back(
        &mut self,
        who: Who,
        image: &Image,
        by_restore: bool,
        dice: &mut Dice,
    ) -> Result<(), StoreError> {
        self.cut_line(Some(who));
        *self.disk(who) = image.disk.after_power_cut(dice, Faults::default());
        self.keys[who as usize] = image.keys.clone();
        self.may_pair_anew = true;
        if let Who::Edge = who {
            // They are no part of a backup.
            self.covers_disk = SimDisk::new(Faults::default());
        }
        if by_restore {
            let disk: Arc<SimDisk> = Arc::new(self.disk(who).clone());
            let store = Store::open_with(disk, SEGMENT_BYTES)?;
            store.commit_blocking(move |txn| {
                lane::restored(txn, unix_millis())?;
                match who {
                    Who::Big => big::restored(txn, BIG_SEALING),
                    Who::Edge => edge::restored(txn),
                }
            })?;
        }
        self.start(who)
    }

    /// An operator runs `link adopt` on a node.
    pub fn adopt(&self, who: Who, now: u64) {
        if let Some(store) = self.store(who) {
            let _ = store.commit_blocking(move |txn| {
                lane::adopt(txn, now)?;
                match who {
                    Who::Big => big::restored(txn, BIG_SEALING),
                    Who::Edge => edge::restored(txn),
                }
            });
        }
    }

    /// An operator runs `link reset` for every lane of a node.
    pub fn reset(&self, who: Who, now: u64) {
        if let Some(store) = self.store(who) {
            let _ = store.commit_blocking(move |txn| {
                (0..4).try_for_each(|lane| lane::reset(txn, lane, now).map(drop))?;
                if who == Who::Big { big::restored(txn, BIG_SEALING) } else { Ok(()) }
            });
        }
    }

    /// The kinds of units that the nodes have told each other.
    pub fn kinds(&self) -> Result<BTreeSet<&'static str>, StoreError> {
        let mut told = BTreeSet::new();
        for (who, node) in [(Who::Big, Node::Big), (Who::Edge, Node::Edge)] {
            if let Some(store) = self.store(who) {
                told.extend(kinds::applied(store, node)?);
            }
        }
        Ok(told)
    }

    /// Whether nothing is left to send on either node.
    pub fn is_quiet(&self) -> bool {
        Who::BOTH.into_iter().all(|who| {
            let Some(store) = self.store(who) else { return false };
            store.read().and_then(|rows| lane::depth(&rows)).is_ok_and(|depth| depth == [0; 4])
        })
    }

    /// What is left to send, in words.
    pub fn left(&self) -> String {
        let mut left = String::new();
        for who in Who::BOTH {
            let Some(Ok(rows)) = self.store(who).map(Store::read) else { continue };
            let (depth, deferred) = (lane::depth(&rows), lane::deferred(&rows));
            left += &format!("{who:?} has {depth:?} waiting, of which {deferred:?} are deferred; ");
        }
        left + &format!("open: {}, steps: {:?}", self.is_open(), self.steps())
    }

    /// Dead letters of both nodes, in words.
    pub fn dead_letters(&self) -> Vec<String> {
        let mut dead = Vec::new();
        for who in Who::BOTH {
            if let Some(Ok(rows)) = self.store(who).map(Store::read) {
                let letters = lane::dead_letters(&rows, 100).unwrap_or_default();
                dead.extend(letters.into_iter().map(|letter| format!("{who:?}: {}", letter.reason)));
            }
        }
        dead
    }
}

/// The public half of a sealing key, as a welcome says it.
struct PublicSealing([u8; 32]);

impl PublicSealing {
    fn public(&self) -> [u8; 32] {
        shared::seal::PrivateKey::from_bytes(self.0).public().0
    }
}

#[expect(clippy::too_many_arguments, reason = "one place for both ends, whose hosts are of two types")]
fn take<H: link_proto::host::Host>(
    end: &mut End<H>,
    host: &H,
    step: Step,
    count: usize,
    garbage: Option<u8>,
    now: Duration,
    incoming: &mut Line,
    outgoing: &mut Line,
) -> Result<Option<()>, String> {
    match step {
        Step::Bytes(place) => {
            let mut bytes = incoming.take(place, count);
            if let (Some(garbage), Some(byte)) = (garbage, bytes.last_mut()) {
                *byte ^= garbage;
            }
            end.bytes(host, place, &bytes, now, outgoing)?;
        }
        Step::Body(index) => {
            if let Some(mut body) = (index < incoming.bodies.len()).then(|| incoming.bodies.remove(index))
                && !end.body(host, &mut body, count, now, outgoing)?
            {
                incoming.bodies.insert(index, body);
            }
        }
        Step::Work(queue) => end.work(host, queue, now, outgoing)?,
    }
    Ok(Some(()))
}

/// The topology of both.
pub fn topology() -> Topology {
    Topology::parse(SMALLEST, "sim.toml").expect("a topology of our own is right")
}
