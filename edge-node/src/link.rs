//! The edge's end of the link: what the driver asks of a node, answered from the store.

use std::sync::Arc;

use bytes::Bytes;
use link_proto::host::{
    Applied, BodySink, BodySource, Host, HostError, Identity, LaneState, Opening, Partner, Reach, Rebase,
    Rejection, Settling,
};
use link_proto::unit::{Body, Digest, Lane, Position, Unit, UnitId};
use shared::fault::{SeededFault, seeded};
use shared::id::{MessageId, monotonic, unix_millis};
use shared::lane::{
    self, Arrival, LanePosition, LaneRow, NodeIdentity, PartnerError, PartnerRow, QueuedBody, QueuedUnit,
    Staged,
};
use shared::pressure::Level;
use shared::store::{BodyKey, BodyReader, BodyWriter, Rows, StoreError, Txn};
use shared::unit::{ToEdge, Welcome, encode};

use crate::apply::{self, Arrived};
use crate::node::Node;
use crate::queue::former;
use crate::record::{Invitation, OUTBOUND_KIND, SETTINGS};
use crate::windows;
use shared::moment::Moment;

/// Bytes of a piece of a large body.
const PIECE_BYTES: usize = 64 * 1024;

/// The edge, as its link sees it.
#[derive(Debug)]
pub struct LinkHost {
    node: Arc<Node>,
    /// Large bodies that have come ahead of their units.
    staged: Arc<Staged>,
}

impl LinkHost {
    /// The end of a link that applies to `node`.
    pub fn new(node: Arc<Node>) -> Self {
        Self { node, staged: Arc::default() }
    }

    fn unit(&self, number: u64, queued: QueuedUnit) -> Result<Unit, HostError> {
        let body = match queued.body {
            QueuedBody::None | QueuedBody::Ahead { .. } => Body::None,
            QueuedBody::Inline { key } => {
                match self.node.store.body(BodyKey(key)).and_then(BodyReader::read_all) {
                    Ok(sealed) => Body::Inline(sealed.into()),
                    // Without its body it is refused there and becomes a dead letter here; the lane goes on.
                    Err(StoreError::Damaged(what)) => {
                        tracing::error!(unit = %MessageId(queued.id), %what, "a queued body is damaged");
                        Body::None
                    }
                    Err(error) => return Err(host_error(error)),
                }
            }
            QueuedBody::Held { length, digest, .. } => Body::Staged { length, digest },
        };
        Ok(Unit { number, id: queued.id, after: queued.after, head: queued.head.into(), body })
    }
}

fn host_error(error: StoreError) -> HostError {
    HostError(error.to_string())
}

fn partner_error(error: PartnerError) -> HostError {
    HostError(error.to_string())
}

fn identity(from: NodeIdentity) -> Identity {
    Identity { node: from.node, log_name: from.log_name, generation: from.generation }
}

fn position(from: LanePosition) -> Position {
    Position { number: from.number, chain: from.chain }
}

fn stored_position(from: Position) -> LanePosition {
    LanePosition { number: from.number, chain: from.chain }
}

fn partner(row: PartnerRow) -> Partner {
    let PartnerRow { identity: of, key, next_key, former_key, epoch, adopt: _ } = row;
    Partner { identity: identity(of), key, next_key, former_key, epoch }
}

fn partner_row(partner: Partner) -> PartnerRow {
    let Identity { node, log_name, generation } = partner.identity;
    PartnerRow {
        identity: NodeIdentity { node, log_name, generation },
        key: partner.key,
        next_key: partner.next_key,
        former_key: partner.former_key,
        epoch: partner.epoch,
        adopt: false,
    }
}

fn lane_state(row: &LaneRow) -> LaneState {
    LaneState {
        confirmed: position(row.confirmed),
        next: row.last + 1,
        rebase: match row.rebase {
            lane::Rebase::None => Rebase::None,
            lane::Rebase::From(from) => Rebase::From(position(from)),
            lane::Rebase::Any => Rebase::Any,
        },
        own_generation: row.own_generation,
        partner_generation: row.partner_generation,
        received: position(row.received),
    }
}

impl Host for LinkHost {
    type Sink = Staging;

    async fn open(&self) -> Result<Opening, HostError> {
        // What was confirmed and waits to be recorded counts before the lanes are compared.
        self.node.store.commit(|_| Ok::<_, StoreError>(())).await.map_err(host_error)?;
        let snapshot = self.node.store.read().map_err(host_error)?;
        let local = lane::identity(&snapshot).map_err(host_error)?;
        let local =
            local.ok_or_else(|| HostError("this store has no identity; run `edge-node init`".into()))?;
        let row = lane::partner(&snapshot).map_err(host_error)?;
        let adopt = row.as_ref().is_some_and(|row| row.adopt);
        let partner = row.map(partner);
        let mut lanes = [LaneState::default(); 4];
        for (index, state) in (0..).zip(&mut lanes) {
            *state = lane_state(&lane::state(&snapshot, index).map_err(host_error)?);
        }
        Ok(Opening { local: identity(local), epoch: 0, partner, adopt, lanes })
    }

    async fn remember(&self, partner: Partner) -> Result<(), HostError> {
        let row = partner_row(partner);
        let remembered = self.node.store.commit(move |txn| lane::remember_partner(txn, &row));
        remembered.await.map(drop).map_err(partner_error)
    }

    async fn remember_key(&self, partner: Partner) -> Result<(), HostError> {
        let remembered = self.node.store.commit(move |txn| lane::pin_next(txn, partner_row(partner)));
        remembered.await.map(drop).map_err(partner_error)
    }

    async fn adopted(&self, partner: Partner) -> Result<(), HostError> {
        let row = partner_row(partner);
        let adopted = self.node.store.commit(move |txn| {
            lane::adopt_store(txn, &row)?;
            Ok(former::take_over(txn, unix_millis())?)
        });
        adopted.await.map_err(partner_error)?;
        self.node.due.notify_one();
        Ok(())
    }

    fn invitation(&self) -> Option<[u8; 32]> {
        let snapshot = self.node.store.read().ok()?;
        let invitation = snapshot.get::<Invitation>(SETTINGS, b"invitation").ok()??;
        invitation.is_open(unix_millis() / 1000).then_some(invitation.secret)
    }

    async fn paired_by(&self, partner: Partner) -> Result<Vec<u8>, HostError> {
        let row = partner_row(partner);
        let paired = self.node.store.commit(move |txn| {
            txn.delete(SETTINGS, b"invitation")?;
            let same_store = |known: PartnerRow| known.identity.is_same_store(&row.identity);
            // A partner whose welcome was lost asks again, or it has another key: nothing begins anew.
            match lane::partner(txn)?.is_some_and(same_store) {
                true => lane::paired_again(txn, &row),
                false => {
                    lane::adopted(txn, &row)?;
                    former::take_over(txn, unix_millis())
                }
            }
        });
        paired.await.map_err(host_error)?;
        self.node.due.notify_one();
        tracing::info!("paired with big");
        let sealing_key = self.node.sealing.public().0;
        Ok(encode(&Welcome { sealing_key, directory_key: self.node.directory_key }))
    }

    async fn paired_with(&self, _: Partner, _: Vec<u8>) -> Result<(), HostError> {
        Err(HostError("an edge takes no ticket".into()))
    }

    fn units(
        &self,
        lane: Lane,
        from: u64,
        units_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Unit>, HostError> {
        let snapshot = self.node.store.read().map_err(host_error)?;
        let (mut units, mut bytes) = (Vec::new(), 0);
        for (number, queued) in lane::units(&snapshot, lane.index(), from, units_max).map_err(host_error)? {
            let unit = self.unit(number, queued)?;
            bytes += unit.head.len() + if let Body::Inline(body) = &unit.body { body.len() } else { 0 };
            if bytes > bytes_max && !units.is_empty() {
                break;
            }
            units.push(unit);
        }
        Ok(units)
    }

    async fn apply(
        &self,
        lane: Lane,
        units: Vec<Unit>,
        from: Position,
        position: Position,
    ) -> Result<Applied, HostError> {
        // Held until the keys that come are in the store under their covers, and those that go are destroyed.
        let changes_windows = units.iter().any(|unit| apply::changes_windows(&unit.head));
        let _covering = match changes_windows {
            true => Some(self.node.covering.lock().await),
            false => None,
        };
        let mut arrived = Vec::with_capacity(units.len());
        for mut unit in units {
            if let Some(mut window) = apply::opened(&unit.head) {
                self.node.covers.cover(&mut window).map_err(|error| HostError(error.to_string()))?;
                unit.head = encode(&ToEdge::Window(Box::new(window))).into();
            }
            let stored = match &unit.body {
                Body::None => None,
                Body::Inline(sealed) => {
                    let mut writer = self.node.store.body_writer(body_key(&unit.id), OUTBOUND_KIND);
                    let stored = writer.write(sealed).and_then(|()| writer.finish(unit.head.to_vec()));
                    Some(stored.map_err(host_error)?)
                }
                Body::Staged { .. } => self.staged.take(&unit.id),
            };
            let lost = stored.is_none() && unit.body != Body::None;
            arrived.push((unit.number, unit.id, unit.after, Arrived { head: unit.head, stored, lost }));
        }
        let now = unix_millis();
        let (from, to) = (stored_position(from), stored_position(position));
        if seeded(SeededFault::PositionApart) {
            let stands = self.node.store.commit(move |txn| lane::received(txn, lane.index(), from, to));
            stands.await.map_err(host_error)?;
        }
        let marks =
            arrived.iter().filter_map(|(_, id, _, arrived)| apply::mark(&arrived.head).zip(Some(*id)));
        let mark = marks.last();
        let (heard, directory_key) = (Moment::now(), self.node.directory_key);
        let busy = Arc::clone(&self.node.busy);
        let committed = self.node.store.commit(move |txn| {
            let mut applied = Applied::default();
            for (number, id, after, arrived) in arrived {
                let head = arrived.head.clone();
                let alone = (arrived.stored.is_none() && !arrived.lost).then_some(&*head);
                let arrival = Arrival { lane: lane.index(), number, id, after, alone };
                let parked = |txn: &mut Txn<'_>, parked: &lane::Parked| {
                    let head = parked.head.clone().into();
                    apply::apply(txn, &directory_key, &busy, Arrived { head, stored: None, lost: false }, now)
                };
                let apply = |txn: &mut Txn<'_>| apply::apply(txn, &directory_key, &busy, arrived, now);
                if let Some(row) = lane::take(txn, arrival, now, |_, _| Ok(false), apply, parked)? {
                    let rejection = Rejection { number, reason: row.reason };
                    if row.later { applied.deferred.push(rejection) } else { applied.refused.push(rejection) }
                }
            }
            if !seeded(SeededFault::PositionApart) {
                lane::received(txn, lane.index(), from, to)?;
            }
            Ok::<_, StoreError>(applied)
        });
        let applied = committed.await.map_err(host_error)?.into_inner();
        for rejection in &applied.refused {
            tracing::warn!(?lane, number = rejection.number, reason = %rejection.reason, "a unit was refused");
        }
        if changes_windows {
            self.node.windows_changed();
            if let Err(error) = self.node.destroy_covers() {
                // It is tried again within a minute.
                tracing::warn!(%error, "the cover of a window that has ended could not be destroyed");
            }
        }
        // Mail to deliver may have come, or have been released after a restore.
        self.node.due.notify_one();
        if let Some((mark, id)) = mark {
            let partner = lane::partner(&self.node.store.read().map_err(host_error)?).map_err(host_error)?;
            // One of an earlier connection is old news: changes may wait behind it.
            if partner.is_some_and(|partner| mark.epoch >= partner.epoch) {
                // It was made a moment ago, and its id says when that was by big's clock.
                self.node.with_trust(|trust| trust.told(heard, MessageId(id).unix_millis()));
                self.node.marked(heard);
            }
        }
        // An ended window or a revision has queued a report.
        self.node.queued(Lane::Event.index());
        Ok(applied)
    }

    fn rejected(&self, lane: Lane, after: u64) -> Result<Applied, HostError> {
        let snapshot = self.node.store.read().map_err(host_error)?;
        let mut applied = Applied::default();
        for (number, row) in lane::rejected(&snapshot, lane.index(), after).map_err(host_error)? {
            let rejection = Rejection { number, reason: row.reason };
            if row.later { applied.deferred.push(rejection) } else { applied.refused.push(rejection) }
        }
        Ok(applied)
    }

    async fn confirmed(&self, lane: Lane, position: Position, applied: Applied) -> Result<(), HostError> {
        let pairs = |list: Vec<Rejection>| list.into_iter().map(|r| (r.number, r.reason)).collect::<Vec<_>>();
        let (refused, deferred) = (pairs(applied.refused), pairs(applied.deferred));
        let nothing_rejected = refused.is_empty() && deferred.is_empty();
        let (busy, mail) = (Arc::clone(&self.node.busy), matches!(lane, Lane::Inter | Lane::Batch));
        let record = move |txn: &mut Txn<'_>| {
            for (number, _) in refused.iter().filter(|_| mail) {
                // What big does not take is not left on the road either.
                let unit = lane::units(txn, lane.index(), *number, 1)?.pop();
                if let Some((_, unit)) = unit.filter(|(found, _)| found == number) {
                    windows::refused(txn, &busy, MessageId(unit.id), unix_millis())?;
                }
            }
            lane::confirmed(txn, lane.index(), stored_position(position), &refused, &deferred, unix_millis())
        };
        if nothing_rejected && !self.node.is_vouching() {
            // Losing this costs a repeat of the confirm by the next session, so it waits for a commit that has to be made
            // anyway; and for another one if that fails, for this session does not repeat it.
            let confirms = self.node.confirms.clone();
            let tell = move || confirms.send_modify(|confirms| *confirms += 1);
            self.node.store.commit_eventually(record, tell).map_err(host_error)
        } else {
            // The next confirm would not repeat these lists; and who waits for it is told.
            self.node.store.commit(record).await.map_err(host_error)?;
            self.node.confirms.send_modify(|confirms| *confirms += 1);
            Ok(())
        }
    }

    fn reach(&self, lane: Lane, number: u64) -> Result<Reach, HostError> {
        let snapshot = self.node.store.read().map_err(host_error)?;
        Ok(match lane::reach(&snapshot, lane.index(), number).map_err(host_error)? {
            lane::Reach::From(from) => Reach::From(position(from)),
            lane::Reach::Unproved => Reach::Unproved,
            lane::Reach::Gone => Reach::Gone,
        })
    }

    fn lacks(&self, lane: Lane, number: u64) -> Result<(), HostError> {
        // Lost, it is noted by the next session.
        let note = move |txn: &mut Txn<'_>| lane::lacks(txn, lane.index(), number);
        self.node.store.commit_lazily(note, || ()).map_err(host_error)
    }

    fn ids(&self, lane: Lane, after: u64, max: usize) -> Result<Vec<(u64, UnitId)>, HostError> {
        let snapshot = self.node.store.read().map_err(host_error)?;
        lane::ids(&snapshot, lane.index(), after, max).map_err(host_error)
    }

    fn is_here(&self, _: Lane, ids: &[UnitId]) -> Result<Vec<bool>, HostError> {
        let snapshot = self.node.store.read().map_err(host_error)?;
        ids.iter().map(|id| lane::is_known(&snapshot, id).map_err(host_error)).collect()
    }

    async fn settle(&self, lane: Lane, received: Position, how: Settling) -> Result<Position, HostError> {
        let settled = self.node.store.commit(move |txn| {
            lane::compared(txn, lane.index(), received.number)?;
            let generations = generations(txn)?;
            let received = stored_position(received);
            lane::settle(txn, lane.index(), received, &settling(how), generations, |_, unit| Ok(Some(unit)))
        });
        let settled = settled.await.map_err(host_error)?.into_inner();
        // What the partner turned out to hold counts as confirmed.
        self.node.confirms.send_modify(|confirms| *confirms += 1);
        Ok(position(settled))
    }

    fn compared(&self, lane: Lane, received: Position) -> Result<(), HostError> {
        let snapshot = self.node.store.read().map_err(host_error)?;
        let row = lane::state(&snapshot, lane.index()).map_err(host_error)?;
        if generations(&snapshot).map_err(host_error)? == (row.own_generation, row.partner_generation) {
            return Ok(());
        }
        let compare = move |txn: &mut Txn<'_>| {
            lane::compared(txn, lane.index(), received.number)?;
            let generations = generations(txn)?;
            lane::together(txn, lane.index(), generations)
        };
        // Lost, it is compared again.
        self.node.store.commit_lazily(compare, || ()).map_err(host_error)
    }

    fn has_room(&self, lane: Lane) -> bool {
        let level = self.node.pressure.level();
        match lane {
            // A disabled user must be known here whatever else does not fit.
            Lane::Service | Lane::Event => level != Level::Stopped,
            Lane::Inter | Lane::Batch => level.takes_submissions(),
        }
    }

    fn waiting(&self, max: usize) -> Result<Vec<UnitId>, HostError> {
        let snapshot = self.node.store.read().map_err(host_error)?;
        let waiting = lane::waiting(&snapshot, max).map_err(host_error)?;
        Ok(waiting.into_iter().map(|unit| unit.id).collect())
    }

    fn body(&self, unit: UnitId) -> Result<Box<dyn BodySource>, HostError> {
        let snapshot = self.node.store.read().map_err(host_error)?;
        let queued = lane::waiting_unit(&snapshot, &unit).map_err(host_error)?;
        let key = queued.and_then(|queued| queued.body.key());
        let key = key.ok_or_else(|| HostError("that unit does not wait".into()))?;
        let reader = self.node.store.body(BodyKey(key)).map_err(host_error)?;
        Ok(Box::new(Sealed { reader, piece: Bytes::new() }))
    }

    async fn body_held(&self, unit: UnitId, length: u64, digest: Digest) -> Result<(), HostError> {
        let held = self.node.store.commit(move |txn| lane::body_held(txn, &unit, length, digest));
        held.await.map(drop).map_err(host_error)
    }

    fn stage(&self, unit: UnitId) -> Result<Staging, HostError> {
        self.node.store.ready().map_err(host_error)?;
        if !self.staged.has_room(monotonic()) {
            return Err(HostError("too many bodies wait for their units".into()));
        }
        let writer = self.node.store.body_writer(body_key(&unit), OUTBOUND_KIND);
        Ok(Staging { unit, writer, staged: Arc::clone(&self.staged) })
    }
}

/// This node's generation and the partner's.
fn generations(rows: &impl Rows) -> Result<(u32, u32), StoreError> {
    let own = lane::identity(rows)?.map_or(0, |identity| identity.generation);
    let partner = lane::partner(rows)?.map_or(0, |partner| partner.identity.generation);
    Ok((own, partner))
}

fn settling(how: Settling) -> lane::Settling {
    match how {
        Settling::Replay => lane::Settling::Replay,
        Settling::Renumber { held, proved, after } => lane::Settling::Renumber { held, proved, after },
    }
}

/// The key of a body that big sent: by its unit, which is unique at birth.
fn body_key(unit: &UnitId) -> BodyKey {
    BodyKey(*blake3::hash(unit).as_bytes())
}

/// A large body on its way in.
#[derive(Debug)]
pub struct Staging {
    unit: UnitId,
    writer: BodyWriter,
    staged: Arc<Staged>,
}

impl BodySink for Staging {
    async fn write(&mut self, piece: Bytes) -> Result<(), HostError> {
        self.writer.write(&piece).map_err(host_error)
    }

    async fn finish(self, _: u64, _: Digest) -> Result<(), HostError> {
        let stored = self.writer.finish(Vec::new()).map_err(host_error)?;
        self.staged.put(self.unit, stored, monotonic());
        Ok(())
    }
}

/// A sealed body on its way out, as it lies in the store.
struct Sealed {
    reader: BodyReader,
    piece: Bytes,
}

impl BodySource for Sealed {
    fn next(&mut self) -> Result<Option<Bytes>, HostError> {
        if self.piece.is_empty() {
            let Some(piece) = self.reader.next_piece().map_err(host_error)? else { return Ok(None) };
            self.piece = piece.into();
        }
        Ok(Some(self.piece.split_to(self.piece.len().min(PIECE_BYTES))))
    }
}
