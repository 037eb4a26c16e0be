//! Large bodies, each on a stream of its own.
//!
//! | bytes | is |
//! |---|---|
//! | 16 | the unit's id |
//! | 8 | how many bytes of the body the receiver has from an earlier connection: they are left out |
//! | 4 + n, repeated | a chunk after its length, 1 to [`CHUNK_BYTES_MAX`] |
//! | 4 | zero: the end |
//! | 8 + 32 | length and BLAKE3 of the whole body |
//!
//! Numbers are little endian. Only the trailer means "complete"; a FIN or reset before it means that
//! the sender gave up; what had come by then is kept, and the next connection goes on at that byte. One
//! chunk at a time is in memory on each side.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;

use super::LinkError;
use super::engine::Event;
use super::transport::BROKEN;
use crate::frame::Held;
use crate::host::{BodySink, BodySource, Host, HostError};
use crate::session::{Input, PARTS_MAX};
use crate::unit::{Digest, UnitId};

/// Bytes of one chunk; other streams go first at its end.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one body.
pub const BODY_BYTES_MAX: u64 = 1 << 30;
/// Behind every lane.
const PRIORITY: i32 = -1;

/// Sends the body of `unit`, and says what was sent, or that it broke.
pub(super) async fn send<H: Host>(
    host: Arc<H>,
    connection: Connection,
    unit: UnitId,
    from: u64,
    events: mpsc::Sender<Event>,
) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    let _ = stream.set_priority(PRIORITY);
    if let Err(error) = write(&*host, &mut stream, unit, from, &events).await {
        tracing::warn!(%error, "a body could not be sent");
        let _ = stream.reset(BROKEN);
        let _ = events.send(Event::Input(Input::BodyBroken(unit))).await;
    }
}

async fn write<H: Host>(
    host: &H,
    stream: &mut SendStream,
    unit: UnitId,
    from: u64,
    events: &mpsc::Sender<Event>,
) -> Result<(), LinkError> {
    let lost = |error: quinn::WriteError| LinkError::Lost(error.to_string());
    let mut source = host.body(unit)?;
    let (mut length, mut hasher) = (0, blake3::Hasher::new());
    stream.write_all(&[unit.as_slice(), &from.to_le_bytes()].concat()).await.map_err(lost)?;
    loop {
        let (piece, rest) = next(source).await?;
        let Some(piece) = piece else { break };
        source = rest;
        if piece.is_empty() || piece.len() > CHUNK_BYTES_MAX {
            return Err(HostError("a body's piece is empty or over 64 KiB".into()).into());
        }
        hasher.update(&piece);
        // What the receiver has is read all the same: the digest covers all of it.
        let skipped = usize::try_from(from.saturating_sub(length)).unwrap_or(usize::MAX).min(piece.len());
        length += piece.len() as u64;
        let piece = piece.slice(skipped..);
        if piece.is_empty() {
            continue;
        }
        let size = u32::try_from(piece.len()).expect("a piece is at most 64 KiB").to_le_bytes();
        stream.write_all_chunks(&mut [Bytes::copy_from_slice(&size), piece]).await.map_err(lost)?;
    }
    let digest = *hasher.finalize().as_bytes();
    // Before the trailer, so that the session knows what was sent before the partner can confirm it.
    let _ = events.send(Event::Input(Input::BodySent(Held { unit, length, digest }))).await;
    let trailer = [&[0; 4], length.to_le_bytes().as_slice(), &digest].concat();
    stream.write_all(&trailer).await.map_err(lost)?;
    stream.finish().map_err(|_| LinkError::Streams)
}

/// Reads the next piece where blocking is allowed.
async fn next(mut source: Box<dyn BodySource>) -> Result<(Option<Bytes>, Box<dyn BodySource>), LinkError> {
    let read = tokio::task::spawn_blocking(move || source.next().map(|piece| (piece, source)));
    match read.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(HostError("reading a body was cut off".into()).into()),
    }
}

/// A large body of which the beginning is here.
struct Part<S> {
    unit: UnitId,
    sink: S,
    length: u64,
    hasher: blake3::Hasher,
}

/// What is here of bodies whose connection was lost, for the next one to go on with.
pub(super) struct Parts<S>(Mutex<VecDeque<Part<S>>>);

impl<S> Default for Parts<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S> Parts<S> {
    /// Unit and length of each.
    pub(super) fn list(&self) -> Vec<(UnitId, u64)> {
        self.lock().iter().map(|part| (part.unit, part.length)).collect()
    }

    fn keep(&self, part: Part<S>) {
        let mut parts = self.lock();
        if part.length > 0 && parts.len() >= PARTS_MAX {
            parts.pop_front();
        }
        if part.length > 0 {
            parts.push_back(part);
        }
    }

    fn take(&self, unit: UnitId) -> Option<Part<S>> {
        let mut parts = self.lock();
        let index = parts.iter().position(|part| part.unit == unit)?;
        parts.remove(index)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Part<S>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part that is being added to. Dropped, as when the connection is lost, it is kept.
struct Growing<S> {
    parts: Arc<Parts<S>>,
    part: Option<Part<S>>,
}

impl<S> Drop for Growing<S> {
    fn drop(&mut self) {
        if let Some(part) = self.part.take() {
            self.parts.keep(part);
        }
    }
}

/// Receives one body, and says that it is staged, or that it could not be.
pub(super) async fn receive<H: Host>(
    host: Arc<H>,
    parts: Arc<Parts<H::Sink>>,
    mut stream: RecvStream,
    events: mpsc::Sender<Event>,
) {
    let mut unit = UnitId::default();
    if stream.read_exact(&mut unit).await.is_err() {
        return;
    }
    let event = match stage(&*host, parts, &mut stream, unit).await {
        Ok((length, digest)) => Input::BodyStaged(Held { unit, length, digest }),
        Err(error) => {
            tracing::warn!(%error, "a body could not be taken");
            Input::BodyNotStaged(unit)
        }
    };
    let _ = events.send(Event::Input(event)).await;
}

async fn stage<H: Host>(
    host: &H,
    parts: Arc<Parts<H::Sink>>,
    stream: &mut RecvStream,
    unit: UnitId,
) -> Result<(u64, Digest), LinkError> {
    let from = u64::from_le_bytes(read_array(stream).await?);
    let part = match (parts.take(unit), from) {
        (_, 0) => Part { unit, sink: host.stage(unit)?, length: 0, hasher: blake3::Hasher::new() },
        (Some(part), from) if part.length == from => part,
        _ => return Err(LinkError::Lost("a body goes on where none was left".into())),
    };
    let mut growing = Growing { parts, part: Some(part) };
    let claimed = fill(&mut growing, stream).await?;
    let Some(part) = growing.part.take() else { return Err(LinkError::Streams) };
    let digest = *part.hasher.finalize().as_bytes();
    if claimed != (part.length, digest) {
        return Err(LinkError::Lost("a body is not what its trailer says".into()));
    }
    part.sink.finish(part.length, digest).await?;
    Ok((part.length, digest))
}

/// Adds what comes, to the last byte, until the trailer. A part that cannot be what was sent is not kept.
async fn fill<S: BodySink>(
    growing: &mut Growing<S>,
    stream: &mut RecvStream,
) -> Result<(u64, Digest), LinkError> {
    loop {
        let mut left = u32::from_le_bytes(read_array(stream).await?) as usize;
        if left == 0 {
            return Ok((u64::from_le_bytes(read_array(stream).await?), read_array::<32>(stream).await?));
        }
        let length = growing.part.as_ref().map_or(0, |part| part.length);
        if left > CHUNK_BYTES_MAX || length + left as u64 > BODY_BYTES_MAX {
            growing.part = None;
            return Err(LinkError::Lost("a body or its chunk is over the limit".into()));
        }
        while left > 0 {
            let chunk = stream.read_chunk(left, true).await.map_err(|_| LinkError::Streams)?;
            let bytes = chunk.ok_or(LinkError::Streams)?.bytes;
            left -= bytes.len();
            let Some(part) = &mut growing.part else { return Err(LinkError::Streams) };
            if let Err(error) = part.sink.write(bytes.clone()).await {
                growing.part = None;
                return Err(error.into());
            }
            part.hasher.update(&bytes);
            part.length += bytes.len() as u64;
        }
    }
}

async fn read_array<const N: usize>(stream: &mut RecvStream) -> Result<[u8; N], LinkError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|_| LinkError::Streams)?;
    Ok(bytes)
}
