//! The numbers of a message's revisions and redirects, and the ids of the units that carry them.

use super::Id;

/// The reader for whom a message is that leaves by the edge: see [`carrier_id`].
pub const OUTBOUND: &[u8] = b"outbound";
/// The reader for whom a revision of such a message is.
pub const REVISION: &[u8] = b"revise";

/// Revisions of one message.
pub const REVISIONS_MAX: usize = 64;

/// Bits of a revision's number that say which one it is of its message; those above say since when big has not gone
/// back (see [`revision_after`]).
const ORDINAL_BITS: u32 = 7;

/// The number of the revision that comes after the one with the number `latest`, or after the original, made by a big
/// of this generation. A big that was restored has forgotten revisions that an edge may hold: what it makes then has
/// higher numbers than those, and never one that they had, for with the same number two sealed texts would have the
/// same key.
pub fn revision_after(latest: u32, generation: u32) -> u32 {
    let most = (REDIRECTS_FROM - 1) >> ORDINAL_BITS;
    let since = generation.saturating_sub(1).min(most).max(latest >> ORDINAL_BITS);
    (since << ORDINAL_BITS) | revision_ordinal(revision_ordinal(latest) + 1)
}

/// Which revision of its message one with this number is, as people count them; 0 is the original.
pub fn revision_ordinal(number: u32) -> u32 {
    number & ((1 << ORDINAL_BITS) - 1)
}

/// The first number above all that a big of one generation gives: of revisions, or of redirects. Those of one generation
/// follow each other, so what a restored big has forgotten of it is above what it knows of it, whatever was made since.
pub fn generation_end(number: u32) -> u32 {
    (number | ((1 << ORDINAL_BITS) - 1)).saturating_add(1)
}

/// Above the numbers of all revisions, and below those of redirects: no text is one that somebody is still to get who has
/// this for the last one.
pub const NO_REVISION: u32 = REDIRECTS_FROM - 1;

/// Numbers from here on are those of redirects, above the ones of all revisions.
const REDIRECTS_FROM: u32 = 1 << 31;
/// Bits of a redirect's number that say which one it is of its message; those above have to hold a generation, which counts
/// minutes.
const REDIRECT_BITS: u32 = ORDINAL_BITS;

/// Whether a number is a redirect's: the edge gives up a recipient by it as by a withdrawal of that number, and whoever
/// gets the message in their place has it as an index.
pub fn is_redirect(number: u32) -> bool {
    number >= REDIRECTS_FROM
}

/// The number of the redirect that comes after the one with the number `latest`, or is the first of its message, made by
/// a big of this generation; `None` after so many that there is none left. As with revisions, a big that was restored
/// gives none again that it has forgotten.
pub fn redirect_after(latest: Option<u32>, generation: u32) -> Option<u32> {
    let most = (u32::MAX - REDIRECTS_FROM) >> REDIRECT_BITS;
    let first = REDIRECTS_FROM | (generation.saturating_sub(1).min(most) << REDIRECT_BITS) | 1;
    let next = match latest {
        Some(latest) => latest.checked_add(1)?.max(first),
        None => first,
    };
    let is_of_next_generation = next.trailing_zeros() >= REDIRECT_BITS;
    (!is_of_next_generation).then_some(next)
}

/// The id of the unit that carries a revision of a message to one reader: a window, or [`OUTBOUND`]. The same for
/// the same reader is the same unit, also when it is queued anew after a restore, and so it is applied once.
pub fn carrier_id(message: &Id, revision: u32, reader: &[u8]) -> Id {
    let mut hasher = blake3::Hasher::new();
    hasher.update(message).update(&revision.to_be_bytes()).update(reader);
    let mut unit = *message;
    unit[6..].copy_from_slice(&hasher.finalize().as_bytes()[..10]);
    unit
}

/// The same of what goes by the edge ([`OUTBOUND`], [`REVISION`]) to recipients with these indexes. After one of the nodes
/// went back it may go in parts, and each part is a unit of its own.
pub fn part_id(message: &Id, revision: u32, reader: &[u8], recipients: impl Iterator<Item = u32>) -> Id {
    let reader: Vec<u8> = reader.iter().copied().chain(recipients.flat_map(u32::to_be_bytes)).collect();
    carrier_id(message, revision, &reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_revisions_rise_over_restores_and_count_from_one_for_people() {
        assert_eq!([revision_after(0, 1), revision_after(1, 1)], [1, 2]);
        let restored = revision_after(2, 2);
        assert!(restored > revision_after(revision_after(2, 1), 1));
        assert_eq!(revision_ordinal(restored), 3);
        // A store that was made anew from its segments begins with the first generation again.
        assert!(revision_after(restored, 1) > restored);
        assert_eq!(revision_ordinal(revision_after(restored, 1)), 4);
        assert!(revision_after(0, u32::MAX) > revision_after(64, 1 << 23));
        assert!(!is_redirect(revision_after(64, u32::MAX)));
    }

    #[test]
    fn numbers_of_redirects_are_above_those_of_revisions_and_are_given_once() {
        let first = redirect_after(None, 1).expect("is left");
        assert!(is_redirect(first) && first > revision_after(64, u32::MAX));
        let second = redirect_after(Some(first), 1).expect("is left");
        assert!(second > first);
        let restored = redirect_after(Some(first), 2).expect("is left");
        assert!(restored > second);
        assert!(redirect_after(Some(restored), 1).expect("is left") > restored);
        // As late as generations are now, and for as long as revisions have such numbers.
        let restored = [3_702_720, 3_702_721, 16_000_000].map(|generation| redirect_after(None, generation));
        assert!(restored.is_sorted_by(|before, after| before < after), "{restored:?}");
        // None is of a big that is restored later.
        assert_eq!(redirect_after(Some(redirect_after(None, 2).expect("is left") - 2), 1), None);
        assert_eq!(redirect_after(Some(u32::MAX), u32::MAX), None);
    }
}
