//! Big's end of the link: what the driver asks of a node, answered from the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use link_proto::host::{
    Applied, BodySink, BodySource, Host, HostError, Identity, LaneState, Opening, Partner, Reach, Rebase,
    Rejection, Settling,
};
use link_proto::unit::{Body, Digest, Lane, Position, Unit, UnitId};
use shared::chunk::Unframer;
use shared::fault::{SeededFault, seeded};
use shared::id::{MessageId, monotonic, unix_millis};
use shared::lane::{
    self, Arrival, LanePosition, LaneRow, NodeIdentity, NotApplied, PartnerError, PartnerRow, QueuedBody,
    QueuedUnit, Staged,
};
use shared::seal::Sealer;
use shared::store::{BodyKey, BodyReader, BodyWriter, Rows, Snapshot, Store, StoreError, Txn};
use shared::unit::{Welcome, decode};

use crate::generation::{self, NotRemembered};
use crate::inbound::{self, Prepared, SealedBody};
use crate::mail::{self, Site, outbound_key};
use crate::pressure::Pressure;
use crate::reconcile;
use crate::record::{EDGE, EdgeRow, FORMER_BIG};
use crate::refusal;
use crate::travel::notice;

/// The kind under which large bodies are staged for the units that name them.
pub(crate) const STAGED_KIND: u8 = 3;
/// Bytes of a piece of a large body.
const PIECE_BYTES: usize = 64 * 1024;
/// How long the rest of a body waits before it is asked again whether there is room for it.
const ROOM_PAUSE: Duration = Duration::from_millis(250);

/// Big, as its link sees it.
#[derive(Debug)]
pub struct LinkHost {
    store: Store,
    site: Arc<Site>,
    /// Large bodies that have come ahead of their units.
    staged: Arc<Staged>,
    /// Whether the edge's mail may be taken in, and how much it has been.
    pressure: Arc<Pressure>,
    /// Something was applied that others wait for: reports to write, units to send.
    applied: Arc<tokio::sync::Notify>,
}

impl LinkHost {
    /// The end of a link that applies to `store`.
    pub fn new(
        store: Store,
        site: Arc<Site>,
        pressure: Arc<Pressure>,
        applied: Arc<tokio::sync::Notify>,
    ) -> Self {
        Self { store, site, staged: Arc::default(), pressure, applied }
    }

    fn unit(&self, snapshot: &Snapshot, number: u64, queued: QueuedUnit) -> Result<Unit, HostError> {
        let body = match &queued.body {
            QueuedBody::None | QueuedBody::Ahead { .. } => Body::None,
            QueuedBody::Inline { key } => match self.sealed(snapshot, &queued) {
                Ok(sealed) => Body::Inline(sealed.into()),
                // Without its body it is refused there and becomes a dead letter here; the lane goes on.
                Err(error) if self.is_damaged(BodyKey(*key)) => {
                    tracing::error!(unit = %MessageId(queued.id), %error, "a queued body is damaged");
                    Body::None
                }
                Err(error) => return Err(error),
            },
            QueuedBody::Held { length, digest, .. } => Body::Staged { length: *length, digest: *digest },
        };
        Ok(Unit { number, id: queued.id, after: queued.after, head: queued.head.into(), body })
    }

    fn sealed(&self, snapshot: &Snapshot, queued: &QueuedUnit) -> Result<Vec<u8>, HostError> {
        let mut source = self.sealing(snapshot, queued)?;
        let mut sealed = Vec::new();
        while let Some(piece) = source.next()? {
            sealed.extend_from_slice(&piece);
        }
        Ok(sealed)
    }

    /// Whether a body is not what was stored, rather than out of reach for now.
    fn is_damaged(&self, key: BodyKey) -> bool {
        matches!(self.store.body(key).and_then(BodyReader::read_all), Err(StoreError::Damaged(_)))
    }

    /// Seals a stored body as it is read. The same unit always gives the same bytes.
    fn sealing(&self, snapshot: &Snapshot, queued: &QueuedUnit) -> Result<Sealing, HostError> {
        let gone = || HostError("a queued unit has no body".into());
        let key = outbound_key(snapshot, &self.site, &queued.head).map_err(host_error)?.ok_or_else(gone)?;
        let reader = self.store.body(BodyKey(queued.body.key().ok_or_else(gone)?)).map_err(host_error)?;
        Ok(Sealing {
            ready: Bytes::new(),
            reader,
            unframer: Unframer::default(),
            sealer: Some(Sealer::new(&key)),
            held: None,
        })
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
        let epoch = self.store.commit(lane::next_epoch).await.map_err(host_error)?.into_inner();
        let snapshot = self.store.read().map_err(host_error)?;
        let local = lane::identity(&snapshot).map_err(host_error)?;
        let local =
            local.ok_or_else(|| HostError("this store has no identity; run `big-node init`".into()))?;
        let row = lane::partner(&snapshot).map_err(host_error)?;
        let adopt = row.as_ref().is_some_and(|row| row.adopt);
        let partner = row.map(partner);
        let mut lanes = [LaneState::default(); 4];
        for (index, state) in (0..).zip(&mut lanes) {
            *state = lane_state(&lane::state(&snapshot, index).map_err(host_error)?);
        }
        Ok(Opening { local: identity(local), epoch, partner, adopt, lanes })
    }

    async fn remember(&self, partner: Partner) -> Result<(), HostError> {
        let (row, site) = (partner_row(partner), Arc::clone(&self.site));
        let remembered =
            self.store.commit(move |txn| match generation::remember(txn, &row, unix_millis())? {
                true => Ok(reconcile::edge_went_back(txn, &site)?),
                false => Ok::<_, NotRemembered>(()),
            });
        remembered.await.map(drop).map_err(|error| HostError(error.to_string()))
    }

    async fn remember_key(&self, partner: Partner) -> Result<(), HostError> {
        let remembered = self.store.commit(move |txn| lane::pin_next(txn, partner_row(partner)));
        remembered.await.map(drop).map_err(partner_error)
    }

    async fn adopted(&self, partner: Partner) -> Result<(), HostError> {
        let (row, site) = (partner_row(partner), Arc::clone(&self.site));
        let adopted = self.store.commit(move |txn| {
            lane::adopt_store(txn, &row)?;
            txn.delete(FORMER_BIG, &[])?;
            Ok(reconcile::tell_anew(txn, &site)?)
        });
        adopted.await.map(drop).map_err(partner_error)
    }

    fn invitation(&self) -> Option<[u8; 32]> {
        None
    }

    async fn paired_by(&self, _: Partner) -> Result<Vec<u8>, HostError> {
        Err(HostError("big invites nobody".into()))
    }

    async fn paired_with(&self, partner: Partner, welcome: Vec<u8>) -> Result<(), HostError> {
        let welcome: Welcome =
            decode(&welcome).ok_or_else(|| HostError("the edge's welcome is not readable".into()))?;
        let (row, site) = (partner_row(partner), Arc::clone(&self.site));
        let paired = self.store.commit(move |txn| {
            let edge = EdgeRow { sealing_key: welcome.sealing_key, directory_key: welcome.directory_key };
            txn.put(EDGE, b"edge", &edge)?;
            let known = lane::partner(txn)?.filter(|known| known.identity.is_same_store(&row.identity));
            match known {
                // It has another key: nothing begins anew.
                Some(known) => {
                    lane::paired_again(txn, &row)?;
                    match row.identity.generation == known.identity.generation {
                        true => Ok(()),
                        false => reconcile::edge_went_back(txn, &site),
                    }
                }
                None => {
                    lane::adopted(txn, &row)?;
                    txn.delete(FORMER_BIG, &[])?;
                    reconcile::tell_anew(txn, &site)
                }
            }
        });
        paired.await.map(drop).map_err(host_error)
    }

    fn units(
        &self,
        lane: Lane,
        from: u64,
        units_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Unit>, HostError> {
        let snapshot = self.store.read().map_err(host_error)?;
        let (mut units, mut bytes) = (Vec::new(), 0);
        for (number, queued) in lane::units(&snapshot, lane.index(), from, units_max).map_err(host_error)? {
            let unit = self.unit(&snapshot, number, queued)?;
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
        let (store, site, staged) = (self.store.clone(), Arc::clone(&self.site), Arc::clone(&self.staged));
        // What is here, never what a unit claims; a staged body was counted as it came.
        let octets = |unit: &Unit| match &unit.body {
            Body::None | Body::Staged { .. } => unit.head.len() as u64,
            Body::Inline(sealed) => (unit.head.len() + sealed.len()) as u64,
        };
        let (count, taken_in) = (units.len(), units.iter().map(octets).sum());
        let first = units.first().map(|unit| unit.number);
        // Opening a full batch takes milliseconds, and large bodies are read from the disk and written to it
        // again: the other tasks of this thread go elsewhere meanwhile.
        let prepared = tokio::task::block_in_place(|| {
            let prepare = |unit: Unit| {
                let alone = (unit.body == Body::None).then(|| unit.head.clone());
                (unit.number, unit.id, unit.after, alone, prepare_one(&store, &site, &staged, lane, &unit))
            };
            units.into_iter().map(prepare).collect::<Vec<_>>()
        });
        let (site, now) = (Arc::clone(&self.site), unix_millis());
        // Another big had the numbers before, for this one has never had any.
        let succeeds = from.number == 0 && first.is_some_and(|first| first > 1);
        let (from, to) = (stored_position(from), stored_position(position));
        if seeded(SeededFault::PositionApart) {
            let stands = self.store.commit(move |txn| lane::received(txn, lane.index(), from, to));
            stands.await.map_err(host_error)?;
        }
        let committed = self.store.commit(move |txn| {
            let mut applied = Applied::default();
            if succeeds {
                inbound::succeeds(txn)?;
            }
            let queued_before = lane::queue_mark(txn)?;
            for (number, id, after, alone, prepared) in prepared {
                let arrival = Arrival { lane: lane.index(), number, id, after, alone: alone.as_deref() };
                let known = |txn: &Txn<'_>, id: &UnitId| mail::is_known(txn, MessageId(*id));
                let parked = |txn: &mut Txn<'_>, parked: &lane::Parked| {
                    inbound::apply_alone(txn, &site, &parked.head, now)
                };
                let submission = prepared.as_ref().ok().and_then(inbound::submission);
                let apply = |txn: &mut Txn<'_>| inbound::apply(txn, &site, prepared?, now);
                if let Some(row) = lane::take(txn, arrival, now, known, apply, parked)? {
                    if let Some((window, message, refused)) = submission.filter(|_| !row.later) {
                        notice::owe(txn, &window, message, &refused)?;
                    }
                    if !row.later {
                        refusal::note(txn, &row.reason, now)?;
                    }
                    let rejection = Rejection { number, reason: row.reason };
                    if row.later { applied.deferred.push(rejection) } else { applied.refused.push(rejection) }
                }
            }
            if !seeded(SeededFault::PositionApart) {
                lane::received(txn, lane.index(), from, to)?;
            }
            // Facts may have made a report due; mail may have queued copies or answers for the edge.
            let refused = !applied.refused.is_empty();
            let follow_up = lane == Lane::Event || refused || lane::queue_mark(txn)? != queued_before;
            Ok::<_, StoreError>((applied, follow_up))
        });
        let (applied, follow_up) = committed.await.map_err(host_error)?.into_inner();
        for rejection in &applied.refused {
            tracing::warn!(lane = ?lane, number = rejection.number, reason = %rejection.reason, "a unit was refused");
        }
        self.pressure.took_in_units(count, taken_in);
        if follow_up {
            self.applied.notify_one();
        }
        Ok(applied)
    }

    fn rejected(&self, lane: Lane, after: u64) -> Result<Applied, HostError> {
        let snapshot = self.store.read().map_err(host_error)?;
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
        let site = Arc::clone(&self.site);
        let record = move |txn: &mut Txn<'_>| {
            let position = stored_position(position);
            lane::confirmed(txn, lane.index(), position, &refused, &deferred, unix_millis())?;
            reconcile::confirmed(txn, &site)
        };
        if nothing_rejected {
            // Losing this costs a repeat of the confirm by the next session, so it waits for a commit that has to be made
            // anyway; and for another one if that fails, for this session does not repeat it.
            let applied = Arc::clone(&self.applied);
            // Back-fill may wait for the lane to be emptier.
            let tell = move || {
                if lane == Lane::Batch {
                    applied.notify_one()
                }
            };
            self.store.commit_eventually(record, tell).map_err(host_error)
        } else {
            // The next confirm would not repeat these lists.
            self.store.commit(record).await.map(drop).map_err(host_error)
        }
    }

    fn reach(&self, lane: Lane, number: u64) -> Result<Reach, HostError> {
        let snapshot = self.store.read().map_err(host_error)?;
        Ok(match lane::reach(&snapshot, lane.index(), number).map_err(host_error)? {
            lane::Reach::From(from) => Reach::From(position(from)),
            lane::Reach::Unproved => Reach::Unproved,
            lane::Reach::Gone => Reach::Gone,
        })
    }

    fn lacks(&self, lane: Lane, number: u64) -> Result<(), HostError> {
        // Lost, it is noted by the next session.
        let note = move |txn: &mut Txn<'_>| lane::lacks(txn, lane.index(), number);
        self.store.commit_lazily(note, || ()).map_err(host_error)
    }

    fn ids(&self, lane: Lane, after: u64, max: usize) -> Result<Vec<(u64, UnitId)>, HostError> {
        let snapshot = self.store.read().map_err(host_error)?;
        lane::ids(&snapshot, lane.index(), after, max).map_err(host_error)
    }

    fn is_here(&self, _: Lane, ids: &[UnitId]) -> Result<Vec<bool>, HostError> {
        let snapshot = self.store.read().map_err(host_error)?;
        ids.iter().map(|id| lane::is_known(&snapshot, id).map_err(host_error)).collect()
    }

    async fn settle(&self, lane: Lane, received: Position, how: Settling) -> Result<Position, HostError> {
        let site = Arc::clone(&self.site);
        let settled = self.store.commit(move |txn| {
            lane::compared(txn, lane.index(), received.number)?;
            let generations = generations(txn)?;
            let received = stored_position(received);
            let again = |txn: &mut Txn<'_>, unit: QueuedUnit| reconcile::again(txn, &site, unit);
            let settled = lane::settle(txn, lane.index(), received, &settling(how), generations, again)?;
            if lane == Lane::Service {
                reconcile::tell_who_waits(txn)?;
            }
            reconcile::settled(txn, &site, lane.index())?;
            Ok::<_, StoreError>(settled)
        });
        Ok(position(settled.await.map_err(host_error)?.into_inner()))
    }

    fn compared(&self, lane: Lane, received: Position) -> Result<(), HostError> {
        let snapshot = self.store.read().map_err(host_error)?;
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
        self.store.commit_lazily(compare, || ()).map_err(host_error)
    }

    fn has_room(&self, lane: Lane) -> bool {
        match lane {
            Lane::Service | Lane::Event => self.pressure.takes_facts(),
            Lane::Inter | Lane::Batch => self.pressure.mail_level().takes_mail(),
        }
    }

    fn waiting(&self, max: usize) -> Result<Vec<UnitId>, HostError> {
        let snapshot = self.store.read().map_err(host_error)?;
        let waiting = lane::waiting(&snapshot, max).map_err(host_error)?;
        Ok(waiting.into_iter().map(|unit| unit.id).collect())
    }

    fn body(&self, unit: UnitId) -> Result<Box<dyn BodySource>, HostError> {
        let snapshot = self.store.read().map_err(host_error)?;
        let queued = lane::waiting_unit(&snapshot, &unit).map_err(host_error)?;
        let queued = queued.ok_or_else(|| HostError("that unit does not wait".into()))?;
        Ok(Box::new(self.sealing(&snapshot, &queued)?))
    }

    async fn body_held(&self, unit: UnitId, length: u64, digest: Digest) -> Result<(), HostError> {
        let held = self.store.commit(move |txn| lane::body_held(txn, &unit, length, digest));
        held.await.map(drop).map_err(host_error)
    }

    fn stage(&self, unit: UnitId) -> Result<Staging, HostError> {
        self.store.ready().map_err(host_error)?;
        if !self.pressure.mail_level().takes_mail() {
            return Err(HostError("there is no room for large mail at the moment".into()));
        }
        if !self.staged.has_room(monotonic()) {
            return Err(HostError("too many bodies wait for their units".into()));
        }
        // Not the body's final key: nothing names these bytes but the unit that follows.
        let key = BodyKey(*blake3::hash(&unit).as_bytes());
        let writer = self.store.body_writer(key, STAGED_KIND);
        let bytes_max = self.site.content_bytes_max.saturating_mul(2);
        let (staged, pressure) = (Arc::clone(&self.staged), Arc::clone(&self.pressure));
        Ok(Staging { unit, writer, bytes_max, staged, pressure })
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

fn prepare_one(
    store: &Store,
    site: &Site,
    staged: &Staged,
    lane: Lane,
    unit: &Unit,
) -> Result<Prepared, NotApplied> {
    if unit.body != Body::None && matches!(lane, Lane::Service | Lane::Event) {
        staged.take(&unit.id);
        // Facts have a share of the hour's octets of their own, which mail must not take.
        return Err(NotApplied::Never("mail has lanes of its own, and this is not one of them".into()));
    }
    match &unit.body {
        Body::None => inbound::prepare(store, site, &unit.head, SealedBody::None),
        Body::Inline(sealed) => inbound::prepare(store, site, &unit.head, SealedBody::Inline(sealed)),
        Body::Staged { .. } => {
            let stored = staged
                .take(&unit.id)
                .ok_or_else(|| NotApplied::Later("its body was lost before it was applied".into()))?;
            inbound::prepare(store, site, &unit.head, SealedBody::Staged(store.staged(&stored)))
        }
    }
}

/// A large body on its way in.
#[derive(Debug)]
pub struct Staging {
    unit: UnitId,
    writer: BodyWriter,
    /// A sealed body is hardly longer than the plain one may be.
    bytes_max: u64,
    staged: Arc<Staged>,
    pressure: Arc<Pressure>,
}

impl BodySink for Staging {
    async fn write(&mut self, piece: Bytes) -> Result<(), HostError> {
        if self.writer.length() > self.bytes_max {
            return Err(HostError("a body is larger than any message may be".into()));
        }
        // It is not refused: all that has come of it would have to come again.
        while !self.pressure.takes_rest() {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        self.writer.write(&piece).map_err(host_error)?;
        // At once: whether a unit ever names these bytes is the edge's choice.
        self.pressure.took_in(piece.len() as u64);
        Ok(())
    }

    async fn finish(self, _: u64, _: Digest) -> Result<(), HostError> {
        let stored = self.writer.finish(Vec::new()).map_err(host_error)?;
        self.staged.put(self.unit, stored, monotonic());
        Ok(())
    }
}

/// A stored body on its way out, sealed as it goes.
struct Sealing {
    ready: Bytes,
    reader: BodyReader,
    unframer: Unframer,
    /// `None` once the last payload has been sealed.
    sealer: Option<Sealer>,
    held: Option<Vec<u8>>,
}

impl BodySource for Sealing {
    fn next(&mut self) -> Result<Option<Bytes>, HostError> {
        while self.ready.is_empty() {
            let Some(sealer) = &mut self.sealer else { return Ok(None) };
            let mut out = Vec::new();
            match self.reader.next_piece().map_err(host_error)? {
                Some(piece) => {
                    self.unframer.push(&piece);
                    let held = &mut self.held;
                    let sealed = self.unframer.drain(|payload| {
                        if let Some(previous) = held.replace(payload.to_vec()) {
                            sealer.next(&previous, &mut out);
                        }
                        Ok::<(), shared::chunk::Broken>(())
                    });
                    sealed.map_err(|error| HostError(error.to_string()))?;
                }
                None => {
                    let last = self.held.take().ok_or_else(|| HostError("a stored body is empty".into()))?;
                    if let Some(sealer) = self.sealer.take() {
                        sealer.last(&last, &mut out);
                    }
                }
            }
            self.ready = out.into();
        }
        Ok(Some(self.ready.split_to(self.ready.len().min(PIECE_BYTES))))
    }
}
