//! One connection and its session: events in, outputs carried out.
//!
//! One task owns the session. Readers, writers, bodies and workers are tasks of their own, which
//! report to it through one bounded queue; it never waits for the network, and for the node only
//! where the protocol says so (while opening) or where the node is behind with its confirms.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connection, RecvStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::body::Parts;
use super::close::{CloseCode, close};
use super::handle::Handle;
use super::seat::Seat;
use super::streams::{self, Streams, Writer};
use super::workers::{Apply, Workers};
use super::{KeyRing, Keys, LinkError, body, transport};
use crate::frame::Frame;
use crate::host::{Host, LaneState, Partner};
use crate::session::{Channel, Input, Output, Session};
use crate::unit::Lane;

/// Events that wait for the session; its readers wait in turn. A batch is at most 1 MiB.
const EVENTS_QUEUE: usize = 16;

/// How often the node is asked whether it has room, and the connection whether the partner is still there.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// What the tasks of a connection report.
pub(super) enum Event {
    Input(Input),
    Failed(LinkError),
}

/// How long an engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Until the connection is lost.
    Lost,
    /// Until the node remembers its new partner.
    Paired,
}

/// A connection whose session has not said anything yet.
pub(super) struct Begun {
    pub(super) connection: Connection,
    pub(super) session: Session,
    pub(super) streams: Streams,
    pub(super) ring: KeyRing,
    /// Seen are the keys with which it was begun.
    pub(super) keys: watch::Receiver<Keys>,
    /// The one of them that the partner was shown.
    pub(super) shown: Vec<u8>,
    /// The one of them that is wanted, which it was told of if it is another one.
    pub(super) wanted: Vec<u8>,
}

type Paired = Arc<Mutex<Option<Partner>>>;

pub(super) struct Engine<H: Host> {
    host: Arc<H>,
    connection: Connection,
    session: Session,
    seat: Seat,
    handle: Handle,
    began: Instant,
    events: mpsc::Receiver<Event>,
    /// What tasks report with.
    report: mpsc::Sender<Event>,
    control: Writer,
    lanes: Vec<(Writer, Workers)>,
    /// The lanes' receiving halves, until the session is open.
    unread: Vec<RecvStream>,
    /// Tasks that end with the connection.
    tasks: JoinSet<()>,
    /// Tasks that send the last words.
    writers: JoinSet<()>,
    /// Tasks that call the node, and must come to their end.
    workers: JoinSet<()>,
    paired: Paired,
    /// Parts of large bodies, from one connection to the next.
    parts: Arc<Parts<H::Sink>>,
    /// What the node said last of its room, by lane.
    room: [bool; 4],
    /// Datagrams that had come when it was looked last, and when it was seen that there are more.
    heard: (u64, Instant),
    opened: bool,
    /// This node's keys, and as they change; those with which the connection was begun are seen.
    ring: KeyRing,
    keys: watch::Receiver<Keys>,
    /// The key that was shown to the partner.
    shown: Vec<u8>,
    /// The key that was wanted then: shown, or announced.
    wanted: Vec<u8>,
}

impl<H: Host> Engine<H> {
    pub(super) fn new(
        host: Arc<H>,
        begun: Begun,
        seat: Seat,
        handle: Handle,
        parts: Arc<Parts<H::Sink>>,
    ) -> Self {
        let Begun { connection, session, streams, ring, keys, shown, wanted } = begun;
        let (report, events) = mpsc::channel(EVENTS_QUEUE);
        let (mut tasks, mut writers, mut workers) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let mut writer = |stream| {
            let (writer, task) = Writer::new(stream);
            writers.spawn(task);
            writer
        };
        let control = writer(streams.control.0);
        let (mut lanes, mut unread) = (Vec::with_capacity(4), Vec::with_capacity(4));
        for (lane, (send, recv)) in Lane::ALL.into_iter().zip(streams.lanes) {
            lanes.push((writer(send), Workers::start(&host, lane, &report, &mut workers)));
            unread.push(recv);
        }
        let control_read = streams::read(
            connection.clone(),
            streams.control.1,
            Channel::Control,
            streams.decoder,
            report.clone(),
        );
        tasks.spawn(control_read);
        Self {
            host,
            connection,
            session,
            seat,
            handle,
            began: Instant::now(),
            events,
            report,
            control,
            lanes,
            unread,
            tasks,
            writers,
            workers,
            paired: Paired::default(),
            parts,
            room: [true; 4],
            heard: (0, Instant::now()),
            opened: false,
            ring,
            keys,
            shown,
            wanted,
        }
    }

    /// Where the partner will be found, once the node was told of it by `paired_with`.
    pub(super) fn paired_with(&mut self) -> Paired {
        Arc::clone(&self.paired)
    }

    /// Runs the session to its end, and waits until nothing of it is left.
    pub(super) async fn run(mut self, first: Option<Frame>, until: Until) -> LinkError {
        let error = match self.drive(first, until).await {
            Ok(()) => LinkError::Closed { code: Some(CloseCode::Ended), reason: String::new() },
            Err(error) => error,
        };
        self.end(&error).await;
        error
    }

    async fn drive(&mut self, first: Option<Frame>, until: Until) -> Result<(), LinkError> {
        if let Some(frame) = first {
            self.input(Input::Frame(Channel::Control, frame)).await?;
        }
        self.settle().await?;
        let mut waiting = Vec::with_capacity(EVENTS_QUEUE);
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if until == Until::Paired && self.paired.lock().unwrap_or_else(PoisonError::into_inner).is_some()
            {
                return Ok(());
            }
            if self.opened {
                self.handle.moved(self.connection.rtt(), Lane::ALL.map(|lane| self.session.lane(lane)));
            }
            let deadline = self.session.deadline().map(|deadline| self.began + deadline);
            tokio::select! {
                _ = self.events.recv_many(&mut waiting, EVENTS_QUEUE) => {
                    for event in waiting.drain(..) {
                        match event {
                            Event::Input(input) => self.input(input).await?,
                            Event::Failed(error) => return Err(error),
                        }
                    }
                }
                (lanes, bodies) = self.handle.woken(), if self.opened => {
                    for lane in lanes {
                        self.input(Input::Wake(lane)).await?;
                    }
                    if bodies {
                        self.input(Input::WakeBodies).await?;
                    }
                }
                // QUIC's stream limit keeps the number of bodies at once. They are this engine's own tasks,
                // so that the next connection finds what they leave.
                Ok(stream) = self.connection.accept_uni(), if self.opened => {
                    let (host, parts) = (Arc::clone(&self.host), Arc::clone(&self.parts));
                    self.tasks.spawn(body::receive(host, parts, stream, self.report.clone()));
                }
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(deadline) => self.input(Input::Tick).await?,
                () = self.handle.until_held(true) => return Err(LinkError::Held),
                () = self.handle.until_pairing() => return Err(LinkError::Superseded),
                Ok(()) = self.keys.changed() => return Err(LinkError::Rekeyed),
                _ = look.tick(), if self.opened => {
                    self.listen()?;
                    self.look_for_room().await?;
                }
            }
        }
    }

    /// Ends a connection on which nothing has come for long. QUIC would wait for three of its probes (RFC 9000 §10.1.1), which
    /// on a bad line come ever less often, up to a minute apart; a new connection finds the line as it is now.
    fn listen(&mut self) -> Result<(), LinkError> {
        let (datagrams, now) = (self.connection.stats().udp_rx.datagrams, Instant::now());
        if self.heard.0 != datagrams {
            self.heard = (datagrams, now);
        }
        match now.duration_since(self.heard.1) < transport::IDLE_TIME {
            true => Ok(()),
            false => Err(quinn::ConnectionError::TimedOut.into()),
        }
    }

    async fn look_for_room(&mut self) -> Result<(), LinkError> {
        for lane in Lane::ALL {
            let room = self.host.has_room(lane);
            let known = &mut self.room[usize::from(lane.index())];
            if std::mem::replace(known, room) != room {
                self.input(Input::Room(lane, room)).await?;
            }
        }
        Ok(())
    }

    /// Gives the session an input and carries out all that follows.
    async fn input(&mut self, input: Input) -> Result<(), LinkError> {
        let result = self.session.handle(input, self.began.elapsed());
        self.settle().await?;
        Ok(result?)
    }

    async fn settle(&mut self) -> Result<(), LinkError> {
        while let Some(output) = self.session.poll() {
            if let Some(answer) = self.carry_out(output).await? {
                self.session.handle(answer, self.began.elapsed())?;
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, output: Output) -> Result<Option<Input>, LinkError> {
        match output {
            Output::Send(Channel::Control, frame) => self.control.send(frame)?,
            Output::Send(Channel::Lane(lane), frame) => self.lane(lane).0.send(frame)?,
            Output::Remember(partner) => return self.remember(partner).await.map(Some),
            Output::RememberKey(partner) => {
                self.host.remember_key(partner.clone()).await?;
                self.seat.pin(&partner);
                tracing::info!("the partner's next key is pinned beside the present one");
                return Ok(Some(Input::KeyRemembered));
            }
            Output::PairedBy(partner) => return self.paired_by(partner).await.map(Some),
            Output::PairedWith(partner, welcome) => {
                self.host.paired_with(partner.clone(), welcome).await?;
                *self.paired.lock().unwrap_or_else(PoisonError::into_inner) = Some(partner);
                // For a new partner the lanes begin elsewhere than when the attempt began.
                let lanes = self.lanes_now().await?;
                return Ok(Some(Input::Remembered { lanes }));
            }
            Output::Adopt(partner) => return self.adopt(partner).await.map(Some),
            Output::Opened => {
                self.open();
                self.turn()?;
                return Ok(Some(Input::Parts(self.parts.list())));
            }
            Output::Compared { lane, received } => self.host.compared(lane, received)?,
            Output::LookBack { lane, number } => {
                return Ok(Some(Input::Reach(lane, self.host.reach(lane, number)?)));
            }
            Output::ListIds { lane, after, max } => {
                return Ok(Some(Input::Ids(lane, self.host.ids(lane, after, max)?)));
            }
            Output::Lacks { lane, number } => self.host.lacks(lane, number)?,
            Output::LookUp { lane, ids } => {
                return Ok(Some(Input::Known(lane, self.host.is_here(lane, &ids)?)));
            }
            Output::Settle { lane, received, settling } => {
                tracing::warn!(?lane, received = received.number, "a lane is settled anew");
                let (host, report) = (Arc::clone(&self.host), self.report.clone());
                self.workers.spawn(async move {
                    let event = match host.settle(lane, received, settling).await {
                        Ok(position) => {
                            Event::Input(Input::Settled { lane, position, rebase: position != received })
                        }
                        Err(error) => Event::Failed(error.into()),
                    };
                    let _ = report.send(event).await;
                });
            }
            Output::Rebased { lane, from, to } => {
                tracing::warn!(?lane, from, to, "the partner goes on further on in a lane");
            }
            Output::Fetch { lane, from, units_max, bytes_max } => {
                let units = self.host.units(lane, from, units_max, bytes_max)?;
                return Ok(Some(Input::Units(lane, units)));
            }
            Output::Apply { lane, units, from, position } => {
                // The receiver's credit is as long as this queue; a worker that ended has reported why.
                let _ = self.lane(lane).1.apply.try_send(Apply { units, from, position });
            }
            Output::Recall { lane, after, number } => {
                let applied = self.host.rejected(lane, after)?;
                return Ok(Some(Input::Applied { lane, number, applied }));
            }
            Output::Confirmed(confirmed) => {
                let _ = self.lane(confirmed.lane).1.confirm.send(confirmed).await;
            }
            Output::ListBodies { max } => return Ok(Some(Input::BodiesWaiting(self.host.waiting(max)?))),
            Output::SendBody { unit, from } => {
                let (host, connection) = (Arc::clone(&self.host), self.connection.clone());
                self.tasks.spawn(body::send(host, connection, unit, from, self.report.clone()));
            }
            Output::BodyHeld(held) => {
                let (host, report) = (Arc::clone(&self.host), self.report.clone());
                self.workers.spawn(async move {
                    let event = match host.body_held(held.unit, held.length, held.digest).await {
                        Ok(()) => Event::Input(Input::BodyNumbered(held.unit)),
                        Err(error) => Event::Failed(error.into()),
                    };
                    let _ = report.send(event).await;
                });
            }
            Output::Stopped { lane, outbound, why } => {
                tracing::error!(?lane, outbound, %why, "a lane of the link stands still");
            }
        }
        Ok(None)
    }

    fn lane(&self, lane: Lane) -> &(Writer, Workers) {
        &self.lanes[usize::from(lane.index())]
    }

    async fn remember(&mut self, partner: Partner) -> Result<Input, LinkError> {
        self.seat.take(&self.connection).await;
        self.host.remember(partner.clone()).await?;
        let lanes = self.lanes_now().await?;
        self.seat.taken(&partner);
        Ok(Input::Remembered { lanes })
    }

    async fn adopt(&mut self, partner: Partner) -> Result<Input, LinkError> {
        self.seat.take(&self.connection).await;
        self.host.adopted(partner.clone()).await?;
        self.seat.taken(&partner);
        Ok(Input::Remembered { lanes: self.lanes_now().await? })
    }

    async fn paired_by(&mut self, partner: Partner) -> Result<Input, LinkError> {
        self.seat.take(&self.connection).await;
        let welcome = self.host.paired_by(partner.clone()).await?;
        let lanes = self.lanes_now().await?;
        self.seat.taken(&partner);
        Ok(Input::Welcome { welcome, lanes })
    }

    /// Where the lanes stand, now that no other session moves them, and the node has remembered who its partner is.
    async fn lanes_now(&self) -> Result<Box<[LaneState; 4]>, LinkError> {
        Ok(Box::new(self.host.open().await?.lanes))
    }

    /// The lanes were compared, so the partner has pinned the key that it was shown and the one that it was told of: one
    /// of them is the one that is wanted, and opens the next connection, unless it has opened this one.
    fn turn(&mut self) -> Result<(), LinkError> {
        if let Err(error) = self.ring.turn(&self.wanted) {
            // The partner has pinned both, so this connection is as good; the next one tries it again.
            tracing::error!(%error, "the link's next key could not take the place of the present one");
            return Ok(());
        }
        match self.keys.borrow_and_update().wanted().public() == self.shown {
            true => Ok(()),
            false => Err(LinkError::Rekeyed),
        }
    }

    /// Lanes and bodies may come now.
    fn open(&mut self) {
        self.opened = true;
        self.handle.opened(self.connection.remote_address());
        for (lane, stream) in Lane::ALL.into_iter().zip(self.unread.drain(..)) {
            let channel = Channel::Lane(lane);
            self.tasks.spawn(streams::read(
                self.connection.clone(),
                stream,
                channel,
                crate::frame::Decoder::default(),
                self.report.clone(),
            ));
        }
    }

    /// Last words, then silence; and nothing that the node was asked for is still under way.
    async fn end(self, error: &LinkError) {
        let Self { connection, control, lanes, mut tasks, mut writers, mut workers, events, report, .. } =
            self;
        drop((events, report, control, lanes));
        tasks.shutdown().await;
        let last_words = async { while writers.join_next().await.is_some() {} };
        if connection.close_reason().is_none() {
            let _ = tokio::time::timeout(transport::CLOSE_TIME, last_words).await;
        }
        close(&connection, error);
        while workers.join_next().await.is_some() {}
        if self.opened {
            self.handle.closed();
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
