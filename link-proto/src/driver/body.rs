//! Large bodies, each on a stream of its own.
//!
//! | bytes | is |
//! |---|---|
//! | 16 | the unit's id |
//! | 4 + n, repeated | a chunk after its length, 1 to [`CHUNK_BYTES_MAX`] |
//! | 4 | zero: the end |
//! | 8 + 32 | length and BLAKE3 of the whole body |
//!
//! Numbers are little endian. Only the trailer means "complete"; a FIN or reset before it means that
//! the sender gave up. One chunk at a time is in memory on each side.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;

use super::LinkError;
use super::engine::Event;
use super::transport::BROKEN;
use crate::frame::Held;
use crate::host::{BodySink, BodySource, Host, HostError};
use crate::session::Input;
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
    events: mpsc::Sender<Event>,
) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    let _ = stream.set_priority(PRIORITY);
    if let Err(error) = write(&*host, &mut stream, unit, &events).await {
        tracing::warn!(%error, "a body could not be sent");
        let _ = stream.reset(BROKEN);
        let _ = events.send(Event::Input(Input::BodyBroken(unit))).await;
    }
}

async fn write<H: Host>(
    host: &H,
    stream: &mut SendStream,
    unit: UnitId,
    events: &mpsc::Sender<Event>,
) -> Result<(), LinkError> {
    let lost = |error: quinn::WriteError| LinkError::Lost(error.to_string());
    let mut source = host.body(unit)?;
    let (mut length, mut hasher) = (0, blake3::Hasher::new());
    stream.write_all(&unit).await.map_err(lost)?;
    loop {
        let (piece, rest) = next(source).await?;
        let Some(piece) = piece else { break };
        source = rest;
        if piece.is_empty() || piece.len() > CHUNK_BYTES_MAX {
            return Err(HostError("a body's piece is empty or over 64 KiB".into()).into());
        }
        hasher.update(&piece);
        length += piece.len() as u64;
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

/// Receives one body, and says that it is staged, or that it could not be.
pub(super) async fn receive<H: Host>(host: Arc<H>, mut stream: RecvStream, events: mpsc::Sender<Event>) {
    let mut unit = UnitId::default();
    if stream.read_exact(&mut unit).await.is_err() {
        return;
    }
    let event = match stage(&*host, &mut stream, unit).await {
        Ok((length, digest)) => Input::BodyStaged(Held { unit, length, digest }),
        Err(error) => {
            tracing::warn!(%error, "a body could not be taken");
            Input::BodyNotStaged(unit)
        }
    };
    let _ = events.send(Event::Input(event)).await;
}

async fn stage<H: Host>(host: &H, stream: &mut RecvStream, unit: UnitId) -> Result<(u64, Digest), LinkError> {
    let mut sink = host.stage(unit)?;
    let (mut length, mut hasher) = (0, blake3::Hasher::new());
    loop {
        let size = u32::from_le_bytes(read_array(stream).await?) as usize;
        if size == 0 {
            break;
        }
        length += size as u64;
        if size > CHUNK_BYTES_MAX || length > BODY_BYTES_MAX {
            return Err(LinkError::Lost("a body or its chunk is over the limit".into()));
        }
        let mut piece = BytesMut::zeroed(size);
        stream.read_exact(&mut piece).await.map_err(|_| LinkError::Streams)?;
        hasher.update(&piece);
        sink.write(piece.freeze()).await?;
    }
    let digest = *hasher.finalize().as_bytes();
    let claimed = (u64::from_le_bytes(read_array(stream).await?), read_array::<32>(stream).await?);
    if claimed != (length, digest) {
        return Err(LinkError::Lost("a body is not what its trailer says".into()));
    }
    sink.finish(length, digest).await?;
    Ok((length, digest))
}

async fn read_array<const N: usize>(stream: &mut RecvStream) -> Result<[u8; N], LinkError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|_| LinkError::Streams)?;
    Ok(bytes)
}
