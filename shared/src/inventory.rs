//! What both nodes must hold alike of messages, and the digests by which that is compared
//! (design §8: equal canonical hashes of what each must hold).
//!
//! Three kinds of *holdings*: the origin of a message that came in by the edge, for as long as the edge's
//! safety store has its unit; a recipient outside who has still to get a message; a copy in an open travel
//! window. Big asks when an operator does; the edge lists its holdings as they are in one commit, by rising
//! keys, and big holds each list against its own records.

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::MessageId;
use crate::store::Row;
use crate::unit::Id;

/// Holdings that one unit lists.
pub const HOLDINGS_PER_UNIT: usize = 1000;
/// Holdings that an edge lists for one question, and that big compares. Of origins, the newest.
pub const HOLDINGS_MAX: usize = 200_000;

/// What a holding is of. The first byte of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A message's origin. The key goes on with the message.
    Origin = 1,
    /// A recipient who waits. The key goes on with the message and the recipient's index on big.
    Recipient = 2,
    /// A copy in a travel window. The key goes on with the window and the message.
    Copy = 3,
}

impl Kind {
    /// Octets of a key of this kind behind its first one.
    fn rest(self) -> usize {
        match self {
            Self::Origin => 16,
            Self::Recipient => 20,
            Self::Copy => 32,
        }
    }
}

/// One thing that a node holds.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which: the kind, then what names it.
    pub key: Vec<u8>,
    /// Over everything that must be equal about it.
    pub digest: [u8; 16],
}

/// One list of an edge's holdings.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The question that it answers.
    pub asked: Id,
    /// By rising keys, and above those of the list before.
    pub holdings: Vec<Holding>,
    /// There is nothing above these.
    pub last: bool,
    /// There is more than is listed.
    pub cut: bool,
}

fn digest(fields: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for field in fields {
        hasher.update(&(field.len() as u64).to_be_bytes()).update(field);
    }
    let mut digest = [0; 16];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// The digest of an origin: keyed, for it crosses and is kept in clear.
pub fn origin_digest(directory_key: &[u8; 32], origin: &crate::origin::Origin) -> [u8; 16] {
    let mut digest = [0; 16];
    blake3::Hasher::new_keyed(directory_key).update(&origin.encode()).finalize_xof().fill(&mut digest);
    digest
}

impl Holding {
    /// A message's origin, by its [`origin_digest`].
    pub fn origin(message: &Id, digest: [u8; 16]) -> Self {
        Self { key: [&[Kind::Origin as u8], message.as_slice()].concat(), digest }
    }

    /// A recipient who waits for `revision` of a message of `size` octets.
    pub fn recipient(
        message: &Id,
        index: u32,
        address: &str,
        revision: u32,
        size: u64,
        reverse_path: Option<&str>,
    ) -> Self {
        let sender = reverse_path.map_or_else(|| vec![0], |path| [&[1], path.as_bytes()].concat());
        Self {
            key: [&[Kind::Recipient as u8], message.as_slice(), &index.to_be_bytes()].concat(),
            digest: digest(&[address.as_bytes(), &revision.to_be_bytes(), &size.to_be_bytes(), &sender]),
        }
    }

    /// A copy of `revision` of a message, of `size` octets. Whether a client has retrieved it is compared of
    /// the original only: a revision is offered again.
    pub fn copy(window: &Id, message: &Id, revision: u32, size: u64, retrieved: bool) -> Self {
        let retrieved = retrieved && revision == 0;
        Self {
            key: [&[Kind::Copy as u8], window.as_slice(), message].concat(),
            digest: digest(&[&revision.to_be_bytes(), &size.to_be_bytes(), &[retrieved.into()]]),
        }
    }

    /// What it is of; `None` if its key is not one.
    pub fn kind(&self) -> Option<Kind> {
        let (first, rest) = self.key.split_first()?;
        let kinds = [Kind::Origin, Kind::Recipient, Kind::Copy];
        kinds.into_iter().find(|kind| *kind as u8 == *first && kind.rest() == rest.len())
    }
}

/// What a key names, for people.
pub fn named(key: &[u8]) -> String {
    let id = |at: usize| -> MessageId {
        MessageId(key.get(at..at + 16).and_then(|id| id.try_into().ok()).unwrap_or_default())
    };
    match key.first() {
        Some(first) if *first == Kind::Origin as u8 => format!("the origin of {}", id(1)),
        Some(first) if *first == Kind::Recipient as u8 => {
            let index = key.last_chunk().map_or(0, |index| u32::from_be_bytes(*index));
            format!("recipient {index} of {}", id(1))
        }
        _ => format!("the copy of {} in window {}", id(17), id(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_must_be_equal_changes_the_digest() {
        let base = Holding::recipient(&[1; 16], 2, "a@example.com", 0, 9, Some("b@example.com"));
        let others = [
            Holding::recipient(&[1; 16], 2, "c@example.com", 0, 9, Some("b@example.com")),
            Holding::recipient(&[1; 16], 2, "a@example.com", 1, 9, Some("b@example.com")),
            Holding::recipient(&[1; 16], 2, "a@example.com", 0, 8, Some("b@example.com")),
            Holding::recipient(&[1; 16], 2, "a@example.com", 0, 9, Some("")),
            Holding::recipient(&[1; 16], 2, "a@example.com", 0, 9, None),
        ];
        for other in &others {
            assert_eq!(other.key, base.key);
            assert_ne!(other.digest, base.digest);
        }
        assert_ne!(others[3].digest, others[4].digest, "the null reverse-path is no empty one");
        let copy = Holding::copy(&[1; 16], &[2; 16], 0, 9, false);
        assert_ne!(copy.digest, Holding::copy(&[1; 16], &[2; 16], 0, 9, true).digest);
        assert_ne!(copy.digest, Holding::copy(&[1; 16], &[2; 16], 1, 9, false).digest);
    }

    #[test]
    fn keys_say_what_they_name_and_foreign_ones_are_none() {
        let message = [1; 16];
        let good = [
            (Holding::origin(&message, [0; 16]), Kind::Origin, "the origin of "),
            (Holding::recipient(&message, 7, "", 0, 0, None), Kind::Recipient, "recipient 7 of "),
            (Holding::copy(&[2; 16], &message, 0, 0, false), Kind::Copy, "the copy of "),
        ];
        for (holding, kind, text) in good {
            assert_eq!(holding.kind(), Some(kind));
            let name = named(&holding.key);
            assert!(name.starts_with(text) && name.contains(&MessageId(message).to_string()), "{name}");
            for length in 0..holding.key.len() {
                let cut = Holding { key: holding.key[..length].to_vec(), digest: [0; 16] };
                assert_eq!(cut.kind(), None, "{length}");
                named(&cut.key);
            }
        }
        assert_eq!(Holding { key: vec![9; 17], digest: [0; 16] }.kind(), None);
    }
}
