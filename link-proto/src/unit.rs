//! Units, lanes and positions: what the link moves, and how it is counted.

use bytes::Bytes;

/// A BLAKE3 digest.
pub type Digest = [u8; 32];
/// The 128-bit id of a unit, unique at birth. It stays the same when the unit is numbered anew.
pub type UnitId = [u8; 16];

/// Bytes of a unit's head.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a body that travels inside its unit; a larger one has a stream of its own.
pub const INLINE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Units in one batch.
pub const BATCH_UNITS_MAX: usize = 50;
/// Bytes (heads and inline bodies) in one batch.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// A class of service (LU6.2: a mode). Each has its own sequence per direction, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// Directory changes, reply and amend records, travel windows.
    Service = 0,
    /// Outcomes, POP3 acts, trace facts: from edge to big.
    Event = 1,
    /// Mail whose body travels inside its unit.
    Inter = 2,
    /// Larger mail, and the back-fill of secondary mailboxes.
    Batch = 3,
}

impl Lane {
    /// Every lane, in order of priority.
    pub const ALL: [Self; 4] = [Self::Service, Self::Event, Self::Inter, Self::Batch];

    /// The lane numbered `index` on the wire and in the store.
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// Its number on the wire and in the store.
    pub fn index(self) -> u8 {
        self as u8
    }
}

/// How a unit's body travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The unit is its head alone.
    None,
    /// At most [`INLINE_BODY_BYTES_MAX`] bytes, in the unit's own frame.
    Inline(Bytes),
    /// Sent before, on a body stream; the receiver has said that it holds it complete.
    Staged {
        /// Length in bytes.
        length: u64,
        /// BLAKE3 of all its bytes.
        digest: Digest,
    },
}

/// One numbered thing that the link carries and that is committed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Position in its lane, from 1, without gaps.
    pub number: u64,
    /// Unique at birth.
    pub id: UnitId,
    /// A unit that must be applied before this one.
    pub after: Option<UnitId>,
    /// Opaque to the link.
    pub head: Bytes,
    /// Opaque to the link.
    pub body: Body,
}

/// How far a lane is stored in one direction: the last number, and the digest of the whole chain up
/// to it. Two nodes that agree on a position agree on everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last number, 0 before the first unit.
    pub number: u64,
    /// `chain` of every unit up to it; all zero before the first.
    pub chain: Digest,
}

impl Position {
    /// The position after `unit`, whose number follows this one's.
    ///
    /// The chain covers number, id, `after`, head and body of each unit, so a position proves the
    /// whole past of its lane and not only the last batch.
    pub fn after(self, unit: &Unit) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.chain);
        hasher.update(&unit.number.to_le_bytes());
        hasher.update(&unit.id);
        hasher.update(&[u8::from(unit.after.is_some())]);
        hasher.update(&unit.after.unwrap_or_default());
        hasher.update(&(unit.head.len() as u64).to_le_bytes());
        hasher.update(&unit.head);
        let (length, digest) = match &unit.body {
            Body::None => (0, [0; 32]),
            Body::Inline(bytes) => (bytes.len() as u64, *blake3::hash(bytes).as_bytes()),
            Body::Staged { length, digest } => (*length, *digest),
        };
        hasher.update(&length.to_le_bytes());
        hasher.update(&digest);
        Self { number: unit.number, chain: *hasher.finalize().as_bytes() }
    }
}
