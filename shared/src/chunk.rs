//! Bodies in chunks: each compressed by itself where that helps, and framed by its length.
//!
//! A body's stored form is a row of frames, `u32` length (little-endian) and payload; a payload is one
//! byte saying how (0 as is, 1 zstd) and the chunk. Sealed bodies have the same shape with each
//! payload sealed ([`crate::seal`]). No more than one chunk of a body need be in memory.

use std::cell::RefCell;

/// Plain bytes of a chunk; only the last one may be shorter.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of a frame's payload, sealed or not.
pub const PAYLOAD_BYTES_MAX: usize = CHUNK_BYTES + 64;

const AS_IS: u8 = 0;
const ZSTD: u8 = 1;
const ZSTD_LEVEL: i32 = 1;

/// The bytes are not a body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a whole body in chunks")]
pub struct Broken;

thread_local! {
    // Making a compressor costs more than compressing a small message with it.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The payload of a chunk of at most [`CHUNK_BYTES`].
pub fn encode(chunk: &[u8]) -> Vec<u8> {
    let compressed = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        slot.as_mut()?.compress(chunk).ok()
    });
    let (how, bytes) = match &compressed {
        Some(smaller) if smaller.len() < chunk.len() => (ZSTD, smaller.as_slice()),
        _ => (AS_IS, chunk),
    };
    let mut payload = Vec::with_capacity(1 + bytes.len());
    payload.push(how);
    payload.extend_from_slice(bytes);
    payload
}

/// The chunk of a payload.
pub fn decode(payload: &[u8]) -> Result<Vec<u8>, Broken> {
    match payload.split_first().ok_or(Broken)? {
        (&AS_IS, bytes) if bytes.len() <= CHUNK_BYTES => Ok(bytes.to_vec()),
        (&ZSTD, bytes) => DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = zstd::bulk::Decompressor::new().ok();
            }
            slot.as_mut().ok_or(Broken)?.decompress(bytes, CHUNK_BYTES).map_err(|_| Broken)
        }),
        _ => Err(Broken),
    }
}

/// Appends a frame to `out`.
pub fn frame(payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("a payload is at most PAYLOAD_BYTES_MAX");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Cuts plain bytes into chunks.
#[derive(Debug, Default)]
pub struct Chunker(Vec<u8>);

impl Chunker {
    /// Takes bytes; calls `each` with every chunk that is full and known not to be the last.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.0.len() + bytes.len() > CHUNK_BYTES {
            let (fit, rest) = bytes.split_at(CHUNK_BYTES - self.0.len());
            self.0.extend_from_slice(fit);
            each(&self.0)?;
            self.0.clear();
            bytes = rest;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    /// The last chunk, which may be empty.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Cuts stored bytes into payloads.
#[derive(Debug, Default)]
pub struct Unframer(Vec<u8>);

impl Unframer {
    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Calls `each` with every whole payload.
    pub fn drain<E: From<Broken>>(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut rest = self.0.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk() {
            let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Broken)?;
            if length > PAYLOAD_BYTES_MAX {
                return Err(Broken.into());
            }
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            each(payload)?;
            rest = behind;
        }
        let done = self.0.len() - rest.len();
        self.0.drain(..done);
        Ok(())
    }

    /// Ends the body: nothing may be left over.
    pub fn finish(self) -> Result<(), Broken> {
        self.0.is_empty().then_some(()).ok_or(Broken)
    }
}

/// A whole small body in its stored form.
pub fn encode_all(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() / 2 + 64);
    let mut chunks = plain.chunks(CHUNK_BYTES).peekable();
    if chunks.peek().is_none() {
        frame(&encode(&[]), &mut out);
    }
    chunks.for_each(|chunk| frame(&encode(chunk), &mut out));
    out
}

/// The plain bytes of a whole body in its stored form, if they are at most `max`.
pub fn decode_all(stored: &[u8], max: usize) -> Result<Vec<u8>, Broken> {
    let mut unframer = Unframer::default();
    unframer.push(stored);
    let mut plain = Vec::new();
    unframer.drain(|payload| {
        plain.extend_from_slice(&decode(payload)?);
        if plain.len() > max { Err(Broken) } else { Ok(()) }
    })?;
    unframer.finish()?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_every_size_come_back() {
        for length in [0, 1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let text: Vec<u8> = b"Subject: hello\r\n".iter().copied().cycle().take(length).collect();
            let noise: Vec<u8> = (0..length as u64).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
            for plain in [text, noise] {
                let stored = encode_all(&plain);
                assert_eq!(decode_all(&stored, length), Ok(plain.clone()));
                assert_eq!(decode_all(&stored[..stored.len() - 1], length), Err(Broken));
                if length > 0 {
                    assert_eq!(decode_all(&stored, length - 1), Err(Broken));
                }
            }
        }
    }

    #[test]
    fn a_bomb_stays_one_chunk() {
        let bomb = zstd::bulk::compress(&vec![0; 10 * CHUNK_BYTES], 19).expect("compresses");
        assert_eq!(decode(&[&[ZSTD], bomb.as_slice()].concat()), Err(Broken));
        assert_eq!(decode(&[7, 1, 2]), Err(Broken));
    }
}
