//! The five streams of a connection: the first byte says which one it is, frames follow.

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;

use super::LinkError;
use super::engine::Event;
use super::transport::{BROKEN, CLOSE_TIME};
use crate::frame::{Decoder, Frame};
use crate::session::{Channel, Input};
use crate::unit::Lane;

/// Frames that wait for a stream to take them. The session's windows keep it below; a queue that is
/// full means that the partner does not read.
const QUEUE_FRAMES: usize = 256;
/// Bytes read from a stream at once.
const READ_BYTES: usize = 64 * 1024;
/// Frames that are written together.
const WRITE_FRAMES: usize = 16;
/// Control and the lanes.
const STREAMS: usize = 5;

type Pair = (SendStream, RecvStream);

/// Control, and the lanes by [`Lane::index`].
pub(super) struct Streams {
    pub(super) control: Pair,
    pub(super) lanes: Vec<Pair>,
    /// What was read from control beyond its first frame.
    pub(super) decoder: Decoder,
}

impl Streams {
    /// Big opens all of them, each with its first byte.
    pub(super) async fn open(connection: &Connection) -> Result<Self, LinkError> {
        let mut pairs = Vec::with_capacity(STREAMS);
        for place in 0..STREAMS {
            let (mut send, recv) = connection.open_bi().await?;
            send.write_all(&[first_byte(place)]).await.map_err(|_| LinkError::Streams)?;
            pairs.push((send, recv));
        }
        Self::arrange(pairs)
    }

    /// The edge accepts them. QUIC hands them over in the order in which they were opened.
    pub(super) async fn accept(connection: &Connection) -> Result<Self, LinkError> {
        let mut pairs = Vec::with_capacity(STREAMS);
        for place in 0..STREAMS {
            let (send, mut recv) = connection.accept_bi().await?;
            let mut first = [0];
            recv.read_exact(&mut first).await.map_err(|_| LinkError::Streams)?;
            if first != [first_byte(place)] {
                return Err(LinkError::Streams);
            }
            pairs.push((send, recv));
        }
        Self::arrange(pairs)
    }

    fn arrange(mut pairs: Vec<Pair>) -> Result<Self, LinkError> {
        let lanes = pairs.split_off(1);
        let control = pairs.pop().ok_or(LinkError::Streams)?;
        // A stream that was just opened takes a priority.
        let _ = control.0.set_priority(3);
        for (lane, (send, _)) in Lane::ALL.into_iter().zip(&lanes) {
            let _ = send.set_priority(priority(lane));
        }
        Ok(Self { control, lanes, decoder: Decoder::default() })
    }

    /// The first frame on control.
    pub(super) async fn first_frame(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let chunk = self.control.1.read_chunk(READ_BYTES, true).await.map_err(lost)?;
            self.decoder.push(&chunk.ok_or(LinkError::Streams)?.bytes);
        }
    }
}

fn first_byte(place: usize) -> u8 {
    u8::try_from(place).expect("one of five")
}

fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Service | Lane::Event => 2,
        Lane::Inter => 1,
        Lane::Batch => 0,
    }
}

/// The sending half of a stream, which has a task of its own.
pub(super) struct Writer(mpsc::Sender<Frame>);

impl Writer {
    /// The handle, and the task to spawn. Once the handle is dropped the task sends what is left, ends
    /// the stream and waits a little for the partner to have it.
    pub(super) fn new(stream: SendStream) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE_FRAMES);
        (Self(sender), write(stream, receiver))
    }

    pub(super) fn send(&self, frame: Frame) -> Result<(), LinkError> {
        match self.0.try_send(frame) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(LinkError::NotRead),
            // The connection is lost; the reader of control says why.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }
}

async fn write(mut stream: SendStream, mut frames: mpsc::Receiver<Frame>) {
    let mut waiting = Vec::with_capacity(WRITE_FRAMES);
    while frames.recv_many(&mut waiting, WRITE_FRAMES).await > 0 {
        let mut pieces: Vec<Bytes> = waiting.drain(..).flat_map(|frame| frame.encode()).collect();
        if stream.write_all_chunks(&mut pieces).await.is_err() {
            let _ = stream.reset(BROKEN);
            return;
        }
    }
    if stream.finish().is_ok() {
        let _ = tokio::time::timeout(CLOSE_TIME, stream.stopped()).await;
    }
}

/// Reads frames from a stream until it is lost, and says so.
pub(super) async fn read(
    connection: Connection,
    mut stream: RecvStream,
    channel: Channel,
    mut decoder: Decoder,
    events: mpsc::Sender<Event>,
) {
    let error = loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => {
                if events.send(Event::Input(Input::Frame(channel, frame))).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => break error.into(),
        }
        match stream.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => decoder.push(&chunk.bytes),
            Ok(None) => break ended(&connection).await,
            Err(error) => break lost(error),
        }
    };
    let _ = events.send(Event::Failed(error)).await;
}

/// A stream that has to stay open ended. A partner that closes the connection in order says why right after
/// its last words.
async fn ended(connection: &Connection) -> LinkError {
    match tokio::time::timeout(CLOSE_TIME * 2, connection.closed()).await {
        Ok(closed) => closed.into(),
        Err(_) => LinkError::Streams,
    }
}

fn lost(error: quinn::ReadError) -> LinkError {
    match error {
        quinn::ReadError::ConnectionLost(error) => error.into(),
        _ => LinkError::Streams,
    }
}
