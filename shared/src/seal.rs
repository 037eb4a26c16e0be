//! Sealing: what lies on the edge can be read only by big, or by a traveller who has logged in.
//!
//! The construction is age's: a random [`FileKey`] per body; the body sealed chunk by chunk with
//! ChaCha20-Poly1305 as a STREAM (so no chunk can be cut, swapped or dropped unseen); the file key
//! wrapped to each reader by HPKE (RFC 9180: X25519, HKDF-SHA256) and ChaCha20-Poly1305, with the
//! message id bound to it, see [`Wrappers`]. The primitives are libraries; only their order is ours. Sealed
//! bytes never change, so they can be resumed, moved and checked by whoever cannot read them.

mod wrap;

pub use wrap::{Unwrapper, Wrappers};

use aead_stream::{DecryptorBE32, EncryptorBE32, Nonce, StreamBE32};
use chacha20poly1305::aead::Aead as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hpke::{Deserializable, Kem as _, Serializable};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::chunk::{self, Broken, Chunker, Unframer};
use crate::id::{MessageId, random};
use crate::wipe;

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type StreamNonce = Nonce<ChaCha20Poly1305, StreamBE32<ChaCha20Poly1305>>;

const BODY_CONTEXT: &str = "sallypost 1 body";
const NOTE_CONTEXT: &str = "sallypost 1 note";
const LOCK_CONTEXT: &str = "sallypost 1 private key under a login secret";
const OUTBOUND_CONTEXT: &str = "sallypost 1 file key of an outbound body";

/// Sealed bytes that this key does not open, or that were altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed bytes do not open: altered, or for another key")]
pub struct Sealed;

impl From<Broken> for Sealed {
    fn from(_: Broken) -> Self {
        Self
    }
}

/// The key of one body and its note. It stays where it was made, for a move would leave a copy behind.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct FileKey(Box<[u8; 32]>);

impl FileKey {
    /// A new random key.
    #[inline(never)]
    pub fn generate() -> Self {
        Self(Box::new(random()))
    }

    /// The key under which big seals an outbound body: always the same for the same message,
    /// revision and reader, so that a body whose crossing was cut off is sealed to the same bytes.
    pub fn of_outbound(secret: &[u8; 32], message: MessageId, revision: u32, reader: &PublicKey) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(OUTBOUND_CONTEXT);
        hasher.update(secret);
        hasher.update(&message.0);
        hasher.update(&revision.to_le_bytes());
        hasher.update(&reader.0);
        Self(Box::new(*hasher.finalize().as_bytes()))
    }

    fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, &*self.0))
    }

    /// What seals the body, for a test that looks for it in memory.
    #[cfg(any(test, feature = "sim"))]
    pub fn body_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive(BODY_CONTEXT)
    }

    /// Seals the one note that goes with the body. Call it once for each key.
    pub fn seal_note(&self, note: &[u8]) -> Vec<u8> {
        once(&self.derive(NOTE_CONTEXT))
            .0
            .encrypt(&[0; 12].into(), note)
            .expect("a note is far below the limit")
    }

    /// Opens the note.
    pub fn open_note(&self, sealed: &[u8]) -> Result<Vec<u8>, Sealed> {
        once(&self.derive(NOTE_CONTEXT)).0.decrypt(&[0; 12].into(), sealed).map_err(|_| Sealed)
    }
}

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKey")
    }
}

/// A key where it lies.
fn in_place(key: Vec<u8>) -> Result<Box<[u8; 32]>, Sealed> {
    key.into_boxed_slice().try_into().map_err(|_| Sealed)
}

/// A cipher whose key seals exactly one thing, so that its nonce may be zero.
struct Once(ChaCha20Poly1305);

fn once(key: &[u8; 32]) -> Once {
    Once(ChaCha20Poly1305::new(key.into()))
}

/// To whom a file key can be wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

/// The other half of a [`PublicKey`]. It stays where it was made, for a move would leave a copy behind.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey(Box<[u8; 32]>);

impl PrivateKey {
    /// A new key pair.
    pub fn generate() -> (Self, PublicKey) {
        let (private, _) = Kem::derive_keypair(&random::<32>());
        let private = Self(Box::new(private.to_bytes().into()));
        let public = private.public();
        (private, public)
    }

    /// The key in these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Box::new(bytes))
    }

    /// Its bytes, to be kept in a file of mode 0600 or under a login secret.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let private = self.hpke().expect("any 32 bytes are an X25519 private key");
        PublicKey(Kem::sk_to_pk(&private).to_bytes().into())
    }

    /// The key under a login secret: only who has logged in can open it.
    pub fn lock(&self, secret: &[u8; 32]) -> Vec<u8> {
        let key = Zeroizing::new(blake3::derive_key(LOCK_CONTEXT, secret));
        once(&key).0.encrypt(&[0; 12].into(), self.0.as_slice()).expect("32 bytes are below the limit")
    }

    /// Opens what [`PrivateKey::lock`] made.
    pub fn unlock(locked: &[u8], secret: &[u8; 32]) -> Result<Self, Sealed> {
        let key = Zeroizing::new(blake3::derive_key(LOCK_CONTEXT, secret));
        let opened = once(&key).0.decrypt(&[0; 12].into(), locked).map_err(|_| Sealed)?;
        Ok(Self(in_place(opened)?))
    }

    fn hpke(&self) -> Result<<Kem as hpke::Kem>::PrivateKey, Sealed> {
        <Kem as hpke::Kem>::PrivateKey::from_bytes(&*self.0).map_err(|_| Sealed)
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// Seals the payloads of a body in chunks. Its key stays where it was made, for a move would leave a copy behind; but
/// whoever has one that is to leave no trace wipes the stack behind each call ([`wipe::stack`]).
pub struct Sealer(Box<EncryptorBE32<ChaCha20Poly1305>>);

impl Sealer {
    /// Seals under `key`, which seals nothing else.
    #[inline(never)]
    pub fn new(key: &FileKey) -> Self {
        let stream = EncryptorBE32::from_aead(once(&key.derive(BODY_CONTEXT)).0, &StreamNonce::default());
        Self(Box::new(stream))
    }

    /// Appends the next payload's sealed frame to `out`.
    #[inline(never)]
    pub fn next(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let sealed = self.0.encrypt_next(payload).expect("a body has far fewer than 2^32 chunks");
        chunk::frame(&sealed, out);
    }

    /// Appends the last payload's sealed frame to `out`.
    #[inline(never)]
    pub fn last(self, payload: &[u8], out: &mut Vec<u8>) {
        let sealed = self.0.encrypt_last(payload).expect("a payload is below the limit");
        chunk::frame(&sealed, out);
    }
}

/// Opens a sealed body piece by piece.
pub struct Opener {
    /// Where its key stays.
    stream: Box<DecryptorBE32<ChaCha20Poly1305>>,
    unframer: Unframer,
    /// The last whole payload so far: how it opens depends on whether another one follows.
    held: Option<Vec<u8>>,
}

impl Opener {
    /// Opens what was sealed under `key`.
    pub fn new(key: &FileKey) -> Self {
        let stream = DecryptorBE32::from_aead(once(&key.derive(BODY_CONTEXT)).0, &StreamNonce::default());
        Self { stream: Box::new(stream), unframer: Unframer::default(), held: None }
    }

    /// Takes sealed bytes; calls `each` with every payload that they complete.
    pub fn push<E: From<Sealed> + From<Broken>>(
        &mut self,
        sealed: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.unframer.push(sealed);
        let (stream, held) = (&mut self.stream, &mut self.held);
        self.unframer.drain(|payload| {
            if let Some(previous) = held.replace(payload.to_vec()) {
                each(&stream.decrypt_next(previous.as_slice()).map_err(|_| Sealed)?)?;
            }
            Ok(())
        })
    }

    /// The last payload; fails if the body is not whole.
    pub fn finish(self) -> Result<Vec<u8>, Sealed> {
        self.unframer.finish()?;
        self.stream.decrypt_last(self.held.ok_or(Sealed)?.as_slice()).map_err(|_| Sealed)
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

/// Compresses and seals a body as it arrives: no plain byte of it is kept, and its key leaves no trace on the stack.
pub struct BodySealer {
    chunker: Chunker,
    sealer: Sealer,
}

impl BodySealer {
    /// Seals under `key`.
    pub fn new(key: &FileKey) -> Self {
        let sealer = Sealer::new(key);
        wipe::stack();
        Self { chunker: Chunker::default(), sealer }
    }

    /// Takes plain bytes, appends sealed ones to `out`.
    pub fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let sealer = &mut self.sealer;
        let seal = |chunk: &[u8]| {
            sealer.next(&chunk::encode(chunk), out);
            wipe::stack();
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = self.chunker.push(plain, seal);
    }

    /// Ends the body.
    pub fn finish(self, out: &mut Vec<u8>) {
        self.sealer.last(&chunk::encode(&self.chunker.finish()), out);
        wipe::stack();
    }
}

impl std::fmt::Debug for BodySealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodySealer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wipe::behind::Behind;

    fn seal(key: &FileKey, plain: &[u8]) -> Vec<u8> {
        let (mut sealer, mut out) = (BodySealer::new(key), Vec::new());
        plain.chunks(1000).for_each(|some| sealer.push(some, &mut out));
        sealer.finish(&mut out);
        out
    }

    fn open(key: &FileKey, sealed: &[u8]) -> Result<Vec<u8>, Sealed> {
        let (mut opener, mut plain) = (Opener::new(key), Vec::new());
        let mut take = |payload: &[u8]| {
            plain.extend_from_slice(&chunk::decode(payload)?);
            Ok::<(), Sealed>(())
        };
        for some in sealed.chunks(777) {
            opener.push(some, &mut take)?;
        }
        take(&opener.finish()?)?;
        Ok(plain)
    }

    #[test]
    fn a_body_opens_with_its_key_and_only_whole() {
        for length in [0, 1, chunk::CHUNK_BYTES, 200_000] {
            let key = FileKey::generate();
            let plain: Vec<u8> = (0..length).map(|n: usize| ((n * n) >> 5) as u8).collect();
            let sealed = seal(&key, &plain);
            assert_eq!(open(&key, &sealed), Ok(plain));
            assert_eq!(open(&FileKey::generate(), &sealed), Err(Sealed));
            for cut in [1, sealed.len() / 2, sealed.len() - 1] {
                assert_eq!(open(&key, &sealed[..cut]), Err(Sealed), "cut at {cut} of {}", sealed.len());
            }
            let mut flipped = sealed.clone();
            flipped[sealed.len() / 2] ^= 1;
            assert_eq!(open(&key, &flipped), Err(Sealed));
        }
    }

    #[test]
    fn what_has_sealed_a_body_leaves_no_key_on_its_stack() {
        let sealed_with = || {
            let key = FileKey::generate();
            (seal(&key, &vec![7; 2 * chunk::CHUNK_BYTES]), key)
        };
        let (behind, (_, key)) = Behind::work(sealed_with);
        assert!(!behind.holds(key.0.as_slice()), "the file key");
        assert!(!behind.holds(key.body_key().as_slice()), "the body's");
    }

    #[test]
    fn dropping_the_last_chunk_is_found() {
        let key = FileKey::generate();
        let sealed = seal(&key, &vec![7; 2 * chunk::CHUNK_BYTES]);
        let first = 4 + u32::from_le_bytes([sealed[0], sealed[1], sealed[2], sealed[3]]) as usize;
        assert_eq!(open(&key, &sealed[..first]), Err(Sealed));
    }

    #[test]
    fn notes_and_private_keys_open_only_with_their_key() {
        let key = FileKey::generate();
        assert_eq!(key.open_note(&key.seal_note(b"note")).as_deref(), Ok(b"note".as_slice()));
        assert!(FileKey::generate().open_note(&key.seal_note(b"note")).is_err());
        let (private, public) = PrivateKey::generate();
        let locked = private.lock(&[1; 32]);
        assert_eq!(PrivateKey::unlock(&locked, &[1; 32]).map(|key| key.public()), Ok(public));
        assert!(PrivateKey::unlock(&locked, &[2; 32]).is_err());
    }
}
