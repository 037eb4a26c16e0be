//! A taken-over edge: it holds the edge's own keys and says what it likes, as fast as it can. Big's memory and disk
//! stay bounded, its people's mail goes on, and nothing is written that is not an edge's to write.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use big_node::record::Folder;
use edge_node::harness::Edge;
use link_proto::driver::{Handle, Key, KeyRing, Listener};
use link_proto::unit::Lane;
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::state::State;
use shared::store::sim::{Faults, SimDisk};
use shared::store::{BodyKey, Store, StoreError};
use shared::topology::Topology;
use shared::unit::{AddressRow, PopAct, ToBig, ToEdge, encode};
use tests::proc::{forget_peak, resident, usage};
use tests::process::{Node, Program};
use tests::random::Random;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, World};

/// What big takes from the edge in an hour.
const HOURLY: u64 = 16 << 20;
/// Octets of a body that travels inside its unit.
const BODY: usize = 60 * 1024;
/// Ten times what big takes in an hour.
const FLOOD: u64 = 10 * HOURLY / BODY as u64;
/// What may come after the count is full: the credit that was granted before, and as much again that is on its way through
/// the writer when the level, which is looked at ten times a second, falls.
const UNDER_WAY: u64 = 8 << 20;
/// How much big's memory may grow: what is under way, and the index's cache.
const MEMORY_GROWTH_MAX: u64 = 64 << 20;
/// Octets that the index may take besides: redb doubles its file.
const INDEX_OCTETS: u64 = 8 << 20;

/// An edge that is nobody's but the test's, with the keys of the one that was.
struct Rogue {
    store: Store,
    handle: Handle,
    serving: tokio::task::JoinHandle<()>,
    random: Random,
    ids: u64,
}

impl Rogue {
    /// Takes the place of the edge of `world`, which has been stopped.
    fn in_the_place_of(world: &World) -> Result<Self, Trouble> {
        let topology = Topology::read(&world.nodes.file)?;
        let state = State::open(&world.nodes.state_of(Node::Edge))?;
        let (key, listen) = (Key::from_pkcs8(&state.key("link")?)?, topology.link.listen);
        let covers = Arc::new(SimDisk::new(Faults::default()));
        let edge =
            Edge::new(state.store()?, covers, topology, state.key32("sealing")?, state.key32("directory")?);
        let (store, handle) = (edge.store().clone(), Handle::new());
        let (link, served, host) =
            (Listener::bind(listen, KeyRing::fixed(key))?, handle.clone(), Arc::new(edge.host));
        let serving = tokio::spawn(async move { drop(link.serve(host, served).await) });
        Ok(Self { store, handle, serving, random: Random::new(52), ids: 0 })
    }

    fn id(&mut self) -> [u8; 16] {
        self.ids += 1;
        // Rising, as those of true units.
        u128::from(self.ids).to_be_bytes()
    }

    /// Queues units of these ids and heads, each with a body of noise if `body` is set.
    async fn queue(
        &mut self,
        lane: Lane,
        units: Vec<([u8; 16], Vec<u8>)>,
        body: bool,
    ) -> Result<(), Trouble> {
        let noise: Vec<u8> = (0..BODY / 8).flat_map(|_| self.random.next_u64().to_le_bytes()).collect();
        let key = BodyKey(*blake3::hash(&noise).as_bytes());
        let mut writer = self.store.body_writer(key, 1);
        writer.write(&noise)?;
        let stored = writer.finish(Vec::new())?;
        let queued = self.store.commit(move |txn| {
            if body {
                txn.keep_body(&stored)?;
            }
            for (id, head) in units {
                let body = if body {
                    txn.reference_body(key)?;
                    QueuedBody::Inline { key: key.0 }
                } else {
                    QueuedBody::None
                };
                lane::queue(txn, &QueuedUnit { id, lane: lane.index(), after: None, head, body })?;
            }
            Ok::<_, StoreError>(())
        });
        queued.await?;
        self.handle.units(lane);
        Ok(())
    }

    /// Ten times what big takes in an hour: garbage with bodies, and, with the same ids over and over, deletions in
    /// windows that are not there.
    async fn flood(&mut self) -> Result<(), Trouble> {
        let garbage =
            (0..FLOOD).map(|number| (self.id(), vec![u8::try_from(number % 251).unwrap_or(0); 200]));
        let garbage: Vec<_> = garbage.collect();
        self.queue(Lane::Inter, garbage, true).await?;
        let acts = (0..2_000_u128).map(|number| {
            let id = (number % 100 + 1_000_000).to_be_bytes();
            let act = PopAct { window: id, message: id, revision: 0, retrieved: true, deleted: true, at: 1 };
            (id, encode(&ToBig::PopAct(act)))
        });
        self.queue(Lane::Event, acts.collect(), false).await
    }

    /// How many units of a lane big has dealt with.
    fn confirmed(&self, lane: Lane) -> Result<u64, Trouble> {
        Ok(lane::state(&self.store.read()?, lane.index())?.confirmed.number)
    }

    /// Closes the link, and the store with it.
    async fn end(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

/// Octets of all files of a folder.
fn octets(folder: &Path) -> io::Result<u64> {
    let mut octets = 0;
    for entry in fs::read_dir(folder)? {
        octets += entry?.metadata()?.len();
    }
    Ok(octets)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_units_takes_neither_bigs_memory_nor_its_disk() -> Result<(), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut world = World::with(program, |topology| topology.inbound_hourly = HOURLY).await?;
    world.quiet().await?;
    world.nodes.stop(Node::Edge).await?;
    let mut rogue = Rogue::in_the_place_of(&world)?;
    let store = world.nodes.state_of(Node::Big).join("store");
    let before = octets(&store)?;

    // A big that is started anew has forgotten the hour's count: the second flood finds what the first has left.
    for flood in 1..=2_u64 {
        until("big has a session", SOON, async || Ok(world.big().link().await?.connected.then_some(())))
            .await?;
        let pid = world.nodes.big_ready().pid;
        forget_peak(pid)?;
        let at_rest = resident(pid)?;
        rogue.flood().await?;
        until("big takes no more", SOON, async || {
            let link = world.big().link().await?;
            let says = link.alarms.iter().any(|alarm| alarm.contains("inbound_hourly"));
            Ok((!link.pressure.level.takes_mail() && says).then_some(()))
        })
        .await?;
        // Those inside do not notice.
        let sent = world.desk("bob").send(ALICE, &format!("flood {flood}"), "inside\n").await?;
        world.desk("alice").filed(Folder::In, &sent.id).await?;

        let grown = usage(pid)?.peak_memory.saturating_sub(at_rest);
        assert!(grown <= MEMORY_GROWTH_MAX, "flood {flood}: {grown} octets of memory");
        let (took, disk) =
            (rogue.confirmed(Lane::Inter)? * BODY as u64, octets(&store)?.saturating_sub(before));
        let allowed = flood * (HOURLY + HOURLY / 20 + UNDER_WAY);
        assert!(took <= allowed, "flood {flood}: {took} octets of mail");
        assert!(disk <= allowed + INDEX_OCTETS, "flood {flood}: {disk} octets of disk");
        assert!(took > 0 && took < flood * FLOOD * BODY as u64, "some of it, and not all: {took}");
        world.nodes.stop(Node::Big).await?;
        world.nodes.start_big().await?;
    }
    let messages = world.desk("alice").messages(Folder::In).await?;
    assert_eq!(messages.len(), 2, "bob's, and nothing of the rogue's");
    rogue.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_an_edges_to_write_is_refused() -> Result<(), Trouble> {
    let mut world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    world.quiet().await?;
    let people = world.big().people().await?;
    world.nodes.stop(Node::Edge).await?;
    let mut rogue = Rogue::in_the_place_of(&world)?;
    let row = AddressRow { hash: [1; 32], person: Some([2; 16]) };
    let heads = [
        encode(&ToEdge::Introduction { sealing_key: [9; 32] }),
        encode(&ToEdge::Address(row)),
        encode(&ToEdge::AddressGone { hash: [1; 32] }),
        encode(&ToEdge::WindowEnd { window: [3; 16] }),
        encode(&ToEdge::DirectoryBegin),
        b"GET /mailbox/alice".to_vec(),
        Vec::new(),
    ];
    let sent = heads.len() as u64;
    for lane in [Lane::Service, Lane::Event, Lane::Inter] {
        let before = rogue.confirmed(lane)?;
        let units = heads.iter().map(|head| (rogue.id(), head.clone())).collect();
        rogue.queue(lane, units, false).await?;
        until("big has dealt with them", SOON, async || {
            Ok((rogue.confirmed(lane)? == before + sent).then_some(()))
        })
        .await?;
    }
    let dead = lane::dead_letter_count(&rogue.store.read()?)?;
    assert!(
        dead >= 3 * sent - 3,
        "{dead} of {} are refused: at most a fact of an edge's own is not",
        3 * sent
    );
    assert_eq!(world.big().people().await?.len(), people.len(), "the directory is big's");
    assert!(world.big().link().await?.connected, "it is answered, unit by unit");
    rogue.end().await;
    Ok(())
}
