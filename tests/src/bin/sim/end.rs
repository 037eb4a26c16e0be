//! One end of the link: a session, and its node's host, called where the driver would call it.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use link_proto::frame::{Confirmed, Decoder, Held};
use link_proto::host::{BodySink, Host, HostError, Settling};
use link_proto::session::{Input, Output, PARTS_MAX, Role, Session, Start};
use link_proto::unit::{Lane, Position, Unit, UnitId};

use crate::keys::Shown;
use crate::line::{Body, Line, channel};

/// Runs a future whose wakers are other threads'.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// What the node was asked to make durable.
#[derive(Debug)]
enum Work {
    Apply { lane: Lane, units: Vec<Unit>, from: Position, position: Position },
    Confirm(Confirmed),
    Number(Held),
    Settle { lane: Lane, received: Position, settling: Settling },
}

/// Why a session ended; for the log.
pub type Ended = String;

/// A unit that was applied, for the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    /// The unit.
    pub id: UnitId,
    /// It was deferred instead.
    pub deferred: bool,
}

/// A part of a body.
struct Part<S> {
    unit: UnitId,
    sink: S,
    bytes: Vec<u8>,
}

/// One end.
pub struct End<H: Host> {
    session: Option<Session>,
    decoders: BTreeMap<usize, Decoder>,
    /// What waits for the node, in queues that are each kept in order: four of applies, four of
    /// confirms, and the rest.
    work: [VecDeque<Work>; 9],
    /// Bodies that are coming in, and parts from earlier connections.
    parts: Vec<Part<H::Sink>>,
    /// Everything that the node has applied since it was looked at last.
    pub applied: Vec<Applied>,
    /// Lanes that stand still.
    pub stops: Vec<String>,
}

impl<H: Host> Default for End<H> {
    fn default() -> Self {
        Self {
            session: None,
            decoders: BTreeMap::new(),
            work: Default::default(),
            parts: Vec::new(),
            applied: Vec::new(),
            stops: Vec::new(),
        }
    }
}

/// What decides about one end's next step.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Bytes of a stream arrive.
    Bytes(usize),
    /// Bytes of a body arrive.
    Body(usize),
    /// The node makes something durable.
    Work(usize),
}

impl<H: Host> End<H> {
    /// Whether a session is there.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Whether lanes have begun.
    pub fn is_open(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_open)
    }

    /// Begins a session. The dialler's first words go on `out`.
    pub fn connect(
        &mut self,
        host: &H,
        role: Role,
        shown: &Shown,
        peer_key: Vec<u8>,
        now: Duration,
        out: &mut Line,
    ) -> Result<(), Ended> {
        self.stops.clear();
        let opening = block_on(host.open()).map_err(|error| error.to_string())?;
        let start = Start {
            role,
            opening,
            local_key: shown.key.clone(),
            next_key: shown.announced(),
            peer_key,
            binding: [0; 32],
            secret: None,
        };
        self.session = Some(Session::new(start, now).map_err(|error| error.to_string())?);
        self.drain(host, now, out)
    }

    /// The connection is lost: what the node was asked for comes to its end, if it still runs.
    pub fn lose(&mut self, host: Option<&H>) {
        self.session = None;
        self.decoders.clear();
        match host {
            Some(host) => {
                for queue in 0..self.work.len() {
                    while let Some(work) = self.work[queue].pop_front() {
                        // A worker whose call failed ends: what waits behind it is dropped.
                        if self.call(host, work).is_err() {
                            self.work[queue].clear();
                        }
                    }
                }
            }
            None => {
                self.work.iter_mut().for_each(VecDeque::clear);
                self.parts.clear();
            }
        }
        self.parts.truncate(PARTS_MAX);
        self.parts.retain(|part| !part.bytes.is_empty());
    }

    /// Everything that could happen next here: `line` is what comes in.
    pub fn steps(&self, line: &Line) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(session) = &self.session {
            let readable = |place: &usize| *place == 0 || session.is_open();
            steps.extend(line.busy().into_iter().filter(readable).map(Step::Bytes));
            if session.is_open() {
                steps.extend((0..line.bodies.len()).map(Step::Body));
            }
        }
        let busy = |queue: &usize| !self.work[*queue].is_empty();
        steps.extend((0..self.work.len()).filter(busy).map(Step::Work));
        steps
    }

    /// Bytes arrive, all of them garbage if the peer lies.
    pub fn bytes(
        &mut self,
        host: &H,
        place: usize,
        bytes: &[u8],
        now: Duration,
        out: &mut Line,
    ) -> Result<(), Ended> {
        self.decoders.entry(place).or_default().push(bytes);
        loop {
            let decoder = self.decoders.entry(place).or_default();
            let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? else { return Ok(()) };
            self.input(host, Input::Frame(channel(place), frame), now, out)?;
        }
    }

    /// Bytes of a body arrive; at its end it is staged. `back` is the line to its sender, who learns of it
    /// through its own session: the caller passes on what is returned.
    pub fn body(
        &mut self,
        host: &H,
        body: &mut Body,
        count: usize,
        now: Duration,
        out: &mut Line,
    ) -> Result<bool, Ended> {
        let part = match self.parts.iter().position(|part| part.unit == body.unit) {
            Some(index) if self.parts[index].bytes.len() == body.arrived && body.arrived > 0 => index,
            index => {
                index.map(|index| self.parts.remove(index));
                if body.arrived > 0 {
                    return Err("a body goes on where none was left".into());
                }
                match host.stage(body.unit) {
                    Ok(sink) => self.parts.push(Part { unit: body.unit, sink, bytes: Vec::new() }),
                    Err(_) => {
                        self.input(host, Input::BodyNotStaged(body.unit), now, out)?;
                        return Ok(true);
                    }
                }
                self.parts.len() - 1
            }
        };
        let end = body.bytes.len().min(body.arrived + count);
        let piece = body.bytes[body.arrived..end].to_vec();
        body.arrived = end;
        if block_on(self.parts[part].sink.write(piece.clone().into())).is_err() {
            self.parts.remove(part);
            self.input(host, Input::BodyNotStaged(body.unit), now, out)?;
            return Ok(true);
        }
        self.parts[part].bytes.extend_from_slice(&piece);
        if end < body.bytes.len() {
            return Ok(false);
        }
        let part = self.parts.remove(part);
        let held = Held {
            unit: body.unit,
            length: part.bytes.len() as u64,
            digest: *blake3::hash(&part.bytes).as_bytes(),
        };
        if held.digest != body.digest {
            return Err("a body is not what its trailer says".into());
        }
        let staged = match block_on(part.sink.finish(held.length, held.digest)) {
            Ok(()) => Input::BodyStaged(held),
            Err(_) => Input::BodyNotStaged(body.unit),
        };
        self.input(host, staged, now, out)?;
        Ok(true)
    }

    /// The node makes the oldest thing of a queue durable, and the session is told.
    pub fn work(&mut self, host: &H, queue: usize, now: Duration, out: &mut Line) -> Result<(), Ended> {
        let Some(work) = self.work[queue].pop_front() else { return Ok(()) };
        let answer = self.call(host, work).map_err(|error| {
            // The worker ends: what waits behind it is dropped.
            self.work[queue].clear();
            error.to_string()
        })?;
        match (answer, self.session.is_some()) {
            (Some(answer), true) => self.input(host, answer, now, out),
            _ => Ok(()),
        }
    }

    /// New units may wait; time may have passed; there may be room, or none.
    pub fn wake(&mut self, host: &H, now: Duration, out: &mut Line) -> Result<(), Ended> {
        if !self.is_open() {
            return Ok(());
        }
        for lane in Lane::ALL {
            self.input(host, Input::Wake(lane), now, out)?;
        }
        self.input(host, Input::WakeBodies, now, out)?;
        self.input(host, Input::Tick, now, out)
    }

    /// The node has room for mail, or none: it is the schedule that decides, for a level depends on the
    /// machine's clock.
    pub fn room(&mut self, host: &H, room: bool, now: Duration, out: &mut Line) -> Result<(), Ended> {
        if self.is_open() {
            self.input(host, Input::Room(Lane::Inter, room), now, out)?;
            self.input(host, Input::Room(Lane::Batch, room), now, out)?;
        }
        Ok(())
    }

    /// Gives the session one input, and carries out what follows.
    pub fn input(&mut self, host: &H, input: Input, now: Duration, out: &mut Line) -> Result<(), Ended> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let result = session.handle(input, now);
        self.drain(host, now, out)?;
        result.map_err(|error| error.to_string())
    }

    fn drain(&mut self, host: &H, now: Duration, out: &mut Line) -> Result<(), Ended> {
        while let Some(output) = self.session.as_mut().and_then(Session::poll) {
            if let Some(answer) = self.carry_out(host, output, out).map_err(|error| error.to_string())? {
                let Some(session) = &mut self.session else { return Ok(()) };
                session.handle(answer, now).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, host: &H, output: Output, out: &mut Line) -> Result<Option<Input>, HostError> {
        Ok(match output {
            Output::Send(channel, frame) => {
                out.send(channel, frame.encode());
                None
            }
            Output::Remember(partner) => {
                block_on(host.remember(partner))?;
                Some(Input::Remembered { lanes: Box::new(lanes_now(host)?) })
            }
            Output::RememberKey(partner) => {
                block_on(host.remember_key(partner))?;
                Some(Input::KeyRemembered)
            }
            Output::Adopt(partner) => {
                block_on(host.adopted(partner))?;
                Some(Input::Remembered { lanes: Box::new(lanes_now(host)?) })
            }
            Output::PairedBy(_) | Output::PairedWith(..) => None,
            Output::Opened => {
                let parts = self.parts.iter().map(|part| (part.unit, part.bytes.len() as u64));
                Some(Input::Parts(parts.collect()))
            }
            Output::Compared { lane, received } => {
                host.compared(lane, received)?;
                None
            }
            Output::LookBack { lane, number } => Some(Input::Reach(lane, host.reach(lane, number)?)),
            Output::Lacks { lane, number } => {
                host.lacks(lane, number)?;
                None
            }
            Output::ListIds { lane, after, max } => Some(Input::Ids(lane, host.ids(lane, after, max)?)),
            Output::LookUp { lane, ids } => Some(Input::Known(lane, host.is_here(lane, &ids)?)),
            Output::Settle { lane, received, settling } => {
                self.work[8].push_back(Work::Settle { lane, received, settling });
                None
            }
            Output::Rebased { .. } => None,
            Output::Fetch { lane, from, units_max, bytes_max } => {
                Some(Input::Units(lane, host.units(lane, from, units_max, bytes_max)?))
            }
            Output::Apply { lane, units, from, position } => {
                self.work[usize::from(lane.index())].push_back(Work::Apply { lane, units, from, position });
                None
            }
            Output::Recall { lane, after, number } => {
                Some(Input::Applied { lane, number, applied: host.rejected(lane, after)? })
            }
            Output::Confirmed(confirmed) => {
                self.work[4 + usize::from(confirmed.lane.index())].push_back(Work::Confirm(confirmed));
                None
            }
            Output::ListBodies { max } => Some(Input::BodiesWaiting(host.waiting(max)?)),
            Output::SendBody { unit, from } => match read(host, unit) {
                Ok(bytes) => {
                    let held =
                        Held { unit, length: bytes.len() as u64, digest: *blake3::hash(&bytes).as_bytes() };
                    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
                    out.bodies.push(Body { unit, bytes, arrived: from, digest: held.digest });
                    Some(Input::BodySent(held))
                }
                Err(_) => Some(Input::BodyBroken(unit)),
            },
            Output::BodyHeld(held) => {
                self.work[8].push_back(Work::Number(held));
                None
            }
            Output::Stopped { lane, outbound, why } => {
                self.stops.push(format!("{lane:?} {}: {why}", if outbound { "out" } else { "in" }));
                None
            }
        })
    }

    fn call(&mut self, host: &H, work: Work) -> Result<Option<Input>, HostError> {
        Ok(match work {
            Work::Apply { lane, units, from, position } => {
                let ids: Vec<_> = units.iter().map(|unit| (unit.number, unit.id)).collect();
                let applied = block_on(host.apply(lane, units, from, position))?;
                for (number, id) in ids {
                    let is = |rejections: &[link_proto::host::Rejection]| {
                        rejections.iter().any(|one| one.number == number)
                    };
                    if !is(&applied.refused) {
                        self.applied.push(Applied { id, deferred: is(&applied.deferred) });
                    }
                }
                Some(Input::Applied { lane, number: position.number, applied })
            }
            Work::Confirm(Confirmed { lane, position, applied, .. }) => {
                block_on(host.confirmed(lane, position, applied))?;
                None
            }
            Work::Number(held) => {
                block_on(host.body_held(held.unit, held.length, held.digest))?;
                Some(Input::BodyNumbered(held.unit))
            }
            Work::Settle { lane, received, settling } => {
                let position = block_on(host.settle(lane, received, settling))?;
                Some(Input::Settled { lane, position, rebase: position != received })
            }
        })
    }
}

fn lanes_now<H: Host>(host: &H) -> Result<[link_proto::host::LaneState; 4], HostError> {
    Ok(block_on(host.open())?.lanes)
}

fn read<H: Host>(host: &H, unit: UnitId) -> Result<Vec<u8>, HostError> {
    let mut source = host.body(unit)?;
    let mut bytes = Vec::new();
    while let Some(piece) = source.next()? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
