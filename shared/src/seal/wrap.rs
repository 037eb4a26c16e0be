//! Wraps of file keys: one HPKE encapsulation (RFC 9180) for many messages to the same reader.
//!
//! To encapsulate, and to undo that, is most of what a small message costs. So the messages of a minute share one, whose
//! exporter (RFC 9180 §5.3) gives the first key of a chain. Each key of the chain gives, with the message id, the one that
//! wraps a file key, and the next of the chain, by which it is overwritten: who finds a chain in the memory of a running
//! node opens what it is still to wrap, and nothing that it has wrapped. HPKE's own sequence of messages would open those,
//! too, for its sender keeps one key for all of them. A machine that is set back or doubled with its memory is at the same
//! place of the same chain twice; ids are random, so the keys that wrap are others all the same.
//!
//! A wrapped key is the encapsulation (32 octets), its place in the chain (1) and the file key under the key of that
//! place and message (48), with the message id bound to it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chacha20poly1305::aead::{Aead as _, Payload};
use hpke::aead::ExportOnlyAead;
use hpke::{Deserializable, HpkeError, OpModeR, OpModeS, Serializable};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{FileKey, Kdf, Kem, PrivateKey, PublicKey, Sealed, in_place, once};
use crate::id::MessageId;
use crate::wipe;

/// Messages that share an encapsulation.
const MESSAGES_MAX: u8 = 64;
/// How long one is shared: what somebody finds in a node's memory opens nothing that is wrapped later than that.
const SHARED_FOR: Duration = Duration::from_secs(60);
/// Readers for whom a node has a chain at once.
const READERS_MAX: usize = 1024;
/// Encapsulations that a reader remembers: of big or the edge, and of whoever was it before a restart.
const OPENED_MAX: usize = 8;

const WRAP_INFO: &[u8] = b"sallypost file keys 2";
const CHAIN_CONTEXT: &[u8] = b"chain";
const WRAP_CONTEXT: &str = "sallypost 2 key that wraps a file key";
const NEXT_CONTEXT: &str = "sallypost 2 next key of a chain";

/// The octets of an encapsulation.
type Encapsulated = [u8; 32];

/// Keys that follow from one another, and from none of them the one before.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Chain {
    /// It stays where it was made, for a move would leave a copy behind.
    key: Box<[u8; 32]>,
    /// Of this key.
    place: u8,
}

impl Chain {
    /// The chain that begins with what `export` gives.
    fn begin(export: impl FnOnce(&[u8], &mut [u8]) -> Result<(), HpkeError>) -> Result<Self, Sealed> {
        let mut key = Box::new([0; 32]);
        export(CHAIN_CONTEXT, key.as_mut_slice()).map_err(|_| Sealed)?;
        Ok(Self { key, place: 0 })
    }

    /// The key that wraps this message's at this place, which is left for the next one.
    fn leave(&mut self, message: MessageId) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(WRAP_CONTEXT);
        hasher.update(self.key.as_slice());
        hasher.update(&message.0);
        self.advance();
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    fn advance(&mut self) {
        *self.key = blake3::derive_key(NEXT_CONTEXT, self.key.as_slice());
        self.place += 1;
    }
}

/// An encapsulation to one reader, and its chain from the next message on.
struct Wrapper {
    encapsulated: Encapsulated,
    chain: Chain,
    since: Duration,
}

impl Wrapper {
    fn new(reader: &PublicKey, now: Duration) -> Result<Self, Sealed> {
        let reader = <Kem as hpke::Kem>::PublicKey::from_bytes(&reader.0).map_err(|_| Sealed)?;
        let made = hpke::setup_sender::<ExportOnlyAead, Kdf, Kem>(&OpModeS::Base, &reader, WRAP_INFO);
        let (encapsulated, context) = made.map_err(|_| Sealed)?;
        let chain = Chain::begin(|about, key| context.export(about, key))?;
        Ok(Self { encapsulated: encapsulated.to_bytes().into(), chain, since: now })
    }

    fn is_spent(&self, now: Duration) -> bool {
        self.chain.place >= MESSAGES_MAX || now.saturating_sub(self.since) >= SHARED_FOR
    }

    fn wrap(&mut self, key: &FileKey, message: MessageId) -> Vec<u8> {
        let place = self.chain.place;
        let payload = Payload { msg: key.0.as_slice(), aad: &message.0 };
        let sealed = once(&self.chain.leave(message)).0.encrypt(&[0; 12].into(), payload);
        let sealed = sealed.expect("32 bytes are below the limit");
        [self.encapsulated.as_slice(), &[place], &sealed].concat()
    }
}

/// Wraps file keys to their readers. Nothing of it is ever written: a node that starts begins anew.
#[derive(Default)]
pub struct Wrappers(Mutex<HashMap<[u8; 32], Wrapper>>);

impl Wrappers {
    /// Wraps the key of a message to `reader`; `now` is of a clock that nobody sets. Fails if there can be no such reader.
    pub fn wrap(
        &self,
        key: &FileKey,
        reader: &PublicKey,
        message: MessageId,
        now: Duration,
    ) -> Result<Vec<u8>, Sealed> {
        let wrapped = self.wrap_unwiped(key, reader, message, now);
        wipe::stack();
        wrapped
    }

    /// Wraps, and leaves what it has worked with on the stack: all of it in frames of its own, below its caller's.
    #[inline(never)]
    fn wrap_unwiped(
        &self,
        key: &FileKey,
        reader: &PublicKey,
        message: MessageId,
        now: Duration,
    ) -> Result<Vec<u8>, Sealed> {
        let mut wrappers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if wrappers.get(&reader.0).is_none_or(|wrapper| wrapper.is_spent(now)) {
            let wrapper = Wrapper::new(reader, now)?;
            wrappers.retain(|_, wrapper| !wrapper.is_spent(now));
            if wrappers.len() >= READERS_MAX {
                // The others begin anew.
                wrappers.clear();
            }
            wrappers.insert(reader.0, wrapper);
        }
        wrappers.get_mut(&reader.0).map(|wrapper| wrapper.wrap(key, message)).ok_or(Sealed)
    }
}

impl std::fmt::Debug for Wrappers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wrappers")
    }
}

/// An encapsulation that was undone: its chain from the beginning, and from where it was left.
struct Opened {
    encapsulated: Encapsulated,
    first: Chain,
    left: Chain,
}

impl Opened {
    fn new(encapsulated: &Encapsulated, reader: &PrivateKey) -> Result<Self, Sealed> {
        let encapped = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| Sealed)?;
        let private = reader.hpke()?;
        let context =
            hpke::setup_receiver::<ExportOnlyAead, Kdf, Kem>(&OpModeR::Base, &private, &encapped, WRAP_INFO);
        let context = context.map_err(|_| Sealed)?;
        let first = Chain::begin(|about, key| context.export(about, key))?;
        Ok(Self { encapsulated: *encapsulated, left: first.clone(), first })
    }

    /// The key that wraps this message's at `place`: one step on where messages are read in the order in which they came.
    fn key(&mut self, place: u8, message: MessageId) -> Zeroizing<[u8; 32]> {
        if place < self.left.place {
            self.left = self.first.clone();
        }
        while self.left.place < place {
            self.left.advance();
        }
        self.left.leave(message)
    }
}

/// A reader, who unwraps what [`Wrappers`] wrapped. The encapsulations that were undone last are remembered, so that the
/// next message of each costs little.
pub struct Unwrapper {
    reader: PrivateKey,
    /// The last one used behind the others.
    opened: Mutex<VecDeque<Opened>>,
}

impl Unwrapper {
    /// The reader with this key.
    pub fn new(reader: PrivateKey) -> Self {
        Self { reader, opened: Mutex::default() }
    }

    /// To which keys are wrapped for this reader.
    pub fn public(&self) -> PublicKey {
        self.reader.public()
    }

    /// Unwraps the key of a message. Whoever calls it for a key that is to leave no trace wipes the stack behind it
    /// ([`wipe::stack`]).
    #[inline(never)]
    pub fn unwrap(&self, wrapped: &[u8], message: MessageId) -> Result<FileKey, Sealed> {
        let (encapsulated, rest) = wrapped.split_first_chunk::<32>().ok_or(Sealed)?;
        let (place, sealed) = rest.split_first().ok_or(Sealed)?;
        if *place >= MESSAGES_MAX {
            return Err(Sealed);
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let known = opened.iter().position(|opened| opened.encapsulated == *encapsulated);
        let mut one = match known.and_then(|at| opened.remove(at)) {
            Some(one) => one,
            None => Opened::new(encapsulated, &self.reader)?,
        };
        let payload = Payload { msg: sealed, aad: &message.0 };
        let key = once(&one.key(*place, message)).0.decrypt(&[0; 12].into(), payload);
        // Only what has opened something takes the place of the one that was not used for longest.
        if known.is_some() || key.is_ok() {
            if opened.len() >= OPENED_MAX {
                opened.pop_front();
            }
            opened.push_back(one);
        }
        drop(opened);
        Ok(FileKey(in_place(key.map_err(|_| Sealed)?)?))
    }
}

impl std::fmt::Debug for Unwrapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unwrapper")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wipe::behind::Behind;

    const NOW: Duration = Duration::from_secs(1_000);

    fn wrap(wrappers: &Wrappers, reader: &PublicKey, now: Duration) -> (FileKey, MessageId, Vec<u8>) {
        let (key, message) = (FileKey::generate(), MessageId::generate());
        let wrapped = wrappers.wrap(&key, reader, message, now).expect("wraps");
        (key, message, wrapped)
    }

    fn same(key: &FileKey, other: &Result<FileKey, Sealed>) -> bool {
        other.as_ref().is_ok_and(|other| key.0 == other.0)
    }

    /// How many encapsulations these keys have come by.
    fn encapsulations(wrapped: &[(FileKey, MessageId, Vec<u8>)]) -> usize {
        wrapped.iter().map(|(_, _, wrapped)| &wrapped[..32]).collect::<std::collections::HashSet<_>>().len()
    }

    #[test]
    fn an_encapsulation_is_shared_by_so_many_messages_and_for_so_long() {
        let (_, reader) = PrivateKey::generate();
        let wrappers = Wrappers::default();
        let mut wrapped: Vec<_> = (0..=MESSAGES_MAX).map(|_| wrap(&wrappers, &reader, NOW)).collect();
        assert_eq!(encapsulations(&wrapped[..usize::from(MESSAGES_MAX)]), 1);
        assert_eq!(encapsulations(&wrapped), 2, "so many, and no more");
        let last = NOW + SHARED_FOR - Duration::from_millis(1);
        wrapped.push(wrap(&wrappers, &reader, last));
        assert_eq!(encapsulations(&wrapped), 2);
        wrapped.push(wrap(&wrappers, &reader, NOW + SHARED_FOR));
        assert_eq!(encapsulations(&wrapped), 3, "so long, and no longer");
        wrapped.push(wrap(&wrappers, &PrivateKey::generate().1, NOW + SHARED_FOR));
        assert_eq!(encapsulations(&wrapped), 4, "each reader has its own");
    }

    #[test]
    fn keys_are_unwrapped_in_any_order_and_again() {
        let (private, reader) = PrivateKey::generate();
        let (wrappers, unwrapper) = (Wrappers::default(), Unwrapper::new(private));
        let wrapped: Vec<_> = (0..200).map(|_| wrap(&wrappers, &reader, NOW)).collect();
        let mixed = (0..200).map(|n| n * 77 % 200);
        for at in (0..200).chain((0..200).rev()).chain(mixed).chain([5, 5, 70, 5]) {
            let (key, message, wrapped) = &wrapped[at];
            assert!(same(key, &unwrapper.unwrap(wrapped, *message)), "{at}");
        }
    }

    #[test]
    fn only_the_reader_unwraps_and_only_the_message() {
        let (private, reader) = PrivateKey::generate();
        let wrappers = Wrappers::default();
        let (stranger, unwrapper) = (Unwrapper::new(PrivateKey::generate().0), Unwrapper::new(private));
        for _ in 0..3 {
            let (key, message, wrapped) = wrap(&wrappers, &reader, NOW);
            assert_eq!(wrapped.len(), 81);
            assert!(same(&key, &unwrapper.unwrap(&wrapped, message)));
            assert!(stranger.unwrap(&wrapped, message).is_err());
            assert!(unwrapper.unwrap(&wrapped, MessageId::generate()).is_err());
            for length in 0..wrapped.len() {
                assert!(unwrapper.unwrap(&wrapped[..length], message).is_err(), "{length}");
            }
            assert!(unwrapper.unwrap(&[wrapped.as_slice(), &[0]].concat(), message).is_err());
            for at in 0..wrapped.len() {
                let mut other = wrapped.clone();
                other[at] ^= 1;
                assert!(unwrapper.unwrap(&other, message).is_err(), "{at}");
            }
            // Every other place, those that no chain has among them.
            for place in (0..=u8::MAX).filter(|place| *place != wrapped[32]) {
                let mut other = wrapped.clone();
                other[32] = place;
                assert!(unwrapper.unwrap(&other, message).is_err(), "{place}");
            }
            assert!(same(&key, &unwrapper.unwrap(&wrapped, message)), "what failed does no harm");
        }
        // A point of small order, which gives every private key the same secret.
        assert!(unwrapper.unwrap(&[0; 81], MessageId::generate()).is_err());
        assert!(
            wrappers.wrap(&FileKey::generate(), &PublicKey([0; 32]), MessageId::generate(), NOW).is_err()
        );
    }

    #[test]
    fn a_chain_does_not_lead_back() {
        let (private, reader) = PrivateKey::generate();
        let (wrappers, unwrapper) = (Wrappers::default(), Unwrapper::new(private));
        let wrapped: Vec<_> = (0..8).map(|_| wrap(&wrappers, &reader, NOW)).collect();
        // What is in the node's memory now, at any place.
        let found = wrappers.0.lock().expect("no thread has died")[&reader.0].chain.clone();
        for (_, message, wrapped) in &wrapped {
            let mut found = found.clone();
            while found.place < MESSAGES_MAX {
                let payload = Payload { msg: &wrapped[33..], aad: &message.0 };
                assert!(once(&found.leave(*message)).0.decrypt(&[0; 12].into(), payload).is_err());
            }
        }
        // But the reader, who has the beginning, opens them.
        assert!(
            wrapped.iter().all(|(key, message, wrapped)| same(key, &unwrapper.unwrap(wrapped, *message)))
        );
    }

    #[test]
    fn a_chain_that_is_continued_twice_wraps_under_other_keys() {
        let (private, reader) = PrivateKey::generate();
        let (wrappers, twin) = (Wrappers::default(), Wrappers::default());
        wrap(&wrappers, &reader, NOW);
        // A machine is doubled with its memory, and both take a message.
        {
            let of = wrappers.0.lock().expect("no thread has died");
            let Wrapper { encapsulated, chain, since } = &of[&reader.0];
            let wrapper = Wrapper { encapsulated: *encapsulated, chain: chain.clone(), since: *since };
            twin.0.lock().expect("no thread has died").insert(reader.0, wrapper);
        }
        let [one, other] = [&wrappers, &twin].map(|wrappers| wrap(wrappers, &reader, NOW));
        assert_eq!(one.2[..33], other.2[..33], "at the same place of the same chain");
        // One stream of key octets would show how the two file keys differ.
        let differ = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a ^ b).collect::<Vec<u8>>();
        assert_ne!(differ(&one.2[33..65], &other.2[33..65]), differ(&*one.0.0, &*other.0.0));
        let unwrapper = Unwrapper::new(private);
        for (key, message, wrapped) in [one, other] {
            assert!(same(&key, &unwrapper.unwrap(&wrapped, message)));
        }
    }

    #[test]
    fn what_has_wrapped_leaves_no_key_on_its_stack() {
        let (private, reader) = PrivateKey::generate();
        let (behind, all_wrapped) = Behind::work(move || {
            let wrappers = Wrappers::default();
            [(); 2].map(|()| wrap(&wrappers, &reader, NOW))
        });
        let encapsulated = all_wrapped[0].2.first_chunk().expect("begins with it");
        let mut opened = Opened::new(encapsulated, &private).expect("is for this reader");
        for (place, (_, message, wrapped)) in (0..).zip(&all_wrapped) {
            assert_eq!((&wrapped[..32], wrapped[32]), (encapsulated.as_slice(), place));
            let key = opened.key(place, *message);
            assert!(!behind.holds(key.as_slice()), "the key that wrapped at {place}");
            assert!(!behind.holds(opened.left.key.as_slice()), "the key of the chain behind {place}");
        }
        assert!(!behind.holds(opened.first.key.as_slice()), "the first key of the chain");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (private, reader) = PrivateKey::generate();
        let unwrapper = Unwrapper::new(private.clone());
        let remembered = |unwrapper: &Unwrapper| unwrapper.opened.lock().expect("no thread has died").len();
        for _ in 0..2 * OPENED_MAX {
            let (key, message, mut wrapped) = wrap(&Wrappers::default(), &reader, NOW);
            assert!(same(&key, &unwrapper.unwrap(&wrapped, message)));
            wrapped[80] ^= 1;
            assert!(unwrapper.unwrap(&wrapped, message).is_err());
        }
        assert_eq!(remembered(&unwrapper), OPENED_MAX);
        let unwrapper = Unwrapper::new(private);
        let (_, message, mut wrapped) = wrap(&Wrappers::default(), &reader, NOW);
        wrapped[80] ^= 1;
        assert!(unwrapper.unwrap(&wrapped, message).is_err());
        assert_eq!(remembered(&unwrapper), 0, "what opens nothing is not remembered");

        let wrappers = Wrappers::default();
        for _ in 0..READERS_MAX + 10 {
            wrap(&wrappers, &PrivateKey::generate().1, NOW);
        }
        let held = || wrappers.0.lock().expect("no thread has died").len();
        assert_eq!(held(), 10);
        wrap(&wrappers, &reader, NOW + SHARED_FOR);
        assert_eq!(held(), 1, "what is spent goes with the next that is made");
    }
}
