//! Returning addresses: the reverse-path of mail that is forwarded.
//!
//! A host outside checks (SPF, RFC 7208) that a reverse-path's domain permits the host that speaks. What
//! we forward for a stranger cannot bear the stranger's; it bears an address of ours that holds theirs, in
//! the form of the Sender Rewriting Scheme: `srs0+HASH=DAY=domain=local@ours`. The edge knows it as
//! `srs0` with a tag. A report of failure sent there comes home and goes on to the stranger; nothing else
//! does, and nothing with a hash that we did not make, so no one can relay through it.

use shared::address::{Address, Domain};
use shared::id::MessageId;

/// The name before the tag.
pub const NAME: &str = "srs0";
/// How long after the forwarding a report may come: longer than anybody tries to deliver.
const DAYS_MAX: u64 = 30;
/// Days are counted modulo this, as two characters can hold.
const DAYS: u64 = 1024;
const DAY_MILLIS: u64 = 24 * 3_600_000;
/// Characters of the hash: 40 bits, of which no one learns anything by trying.
const HASH_CHARS: usize = 8;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The key of the hashes.
#[derive(Clone)]
pub struct Key(pub [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// What a returning address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// A sender's address.
    Sender(Address),
    /// The sender of a message here: their address did not fit.
    Of(MessageId),
}

/// The returning address at `ours` for mail from `sender` that we took as `message` at `at`, in
/// milliseconds since 1970.
pub fn wrap(key: &Key, ours: &Domain, sender: &Address, message: MessageId, at: u64) -> Option<Address> {
    let stamp = stamp(at / DAY_MILLIS);
    let long = tag(key, &stamp, sender.domain().as_str(), sender.local_part());
    let address = Address::new(&format!("{NAME}+{long}"), ours);
    // A local part holds 64 octets; a message's id always fits.
    let short = || Address::new(&format!("{NAME}+{}", tag(key, &stamp, "", &message.to_string())), ours);
    address.or_else(|_| short()).ok()
}

/// What the returning address with this local part stands for, at the time `now`; `None` if it is not one
/// that we made in the last days.
pub fn unwrap(key: &Key, local: &str, now: u64) -> Option<Returned> {
    let (name, tag) = local.split_once('+')?;
    let mut parts = tag.splitn(4, '=');
    let (hash, stamp, domain, local) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let whole =
        name.eq_ignore_ascii_case(NAME) && hash.eq_ignore_ascii_case(&hashed(key, stamp, domain, local));
    let age = ((now / DAY_MILLIS) % DAYS + DAYS - day(stamp)?) % DAYS;
    if !whole || age > DAYS_MAX {
        return None;
    }
    match domain {
        "" => local.parse().ok().map(Returned::Of),
        domain => Address::new(local, &domain.parse().ok()?).ok().map(Returned::Sender),
    }
}

/// The sender in a returning address that somebody else made, with this local part and in the scheme's usual form. It
/// is what the address says; nothing proves it.
pub fn sender_of_foreign(local: &str) -> Option<Address> {
    let (name, rest) = local.split_at_checked(4)?;
    let rest = rest.strip_prefix(['=', '+', '-'])?;
    let inner = match name.to_ascii_uppercase().as_str() {
        "SRS0" => rest,
        // Rewritten twice: the first rewriting stands behind the forwarder's name.
        "SRS1" => rest.split_once("==")?.1,
        _ => return None,
    };
    let mut parts = inner.splitn(4, '=');
    let (_, _, domain, local) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Address::new(local, &domain.parse().ok()?).ok()
}

fn tag(key: &Key, stamp: &str, domain: &str, local: &str) -> String {
    format!("{}={stamp}={domain}={local}", hashed(key, stamp, domain, local))
}

/// Hosts on the way may change the case, so it does not count.
fn hashed(key: &Key, stamp: &str, domain: &str, local: &str) -> String {
    let text = format!("{stamp}={domain}={local}").to_lowercase();
    let hash = blake3::keyed_hash(&key.0, text.as_bytes());
    let bits = hash.as_bytes()[..5].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..HASH_CHARS).rev().map(|at| letter(bits >> (5 * at))).collect()
}

fn letter(value: u64) -> char {
    char::from(ALPHABET[usize::try_from(value % 32).unwrap_or_default()])
}

fn stamp(day: u64) -> String {
    [letter(day / 32), letter(day)].into_iter().collect()
}

fn day(stamp: &str) -> Option<u64> {
    let value = |c: char| ALPHABET.iter().position(|letter| char::from(*letter) == c.to_ascii_lowercase());
    let mut letters = stamp.chars();
    let (high, low, None) = (letters.next()?, letters.next()?, letters.next()) else { return None };
    u64::try_from(value(high)? * 32 + value(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn key() -> Key {
        Key([3; 32])
    }

    fn wrapped(sender: &str) -> Address {
        let sender = sender.parse().expect("an address");
        wrap(&key(), &"example.com".parse().expect("a domain"), &sender, MessageId([1; 16]), NOW)
            .expect("fits")
    }

    #[test]
    fn a_returning_address_comes_back_to_its_sender() {
        for sender in ["carol@remote.example", "c.a+tag=x@remote.example", "josé@xn--bcher-kva.example"] {
            let address = wrapped(sender);
            assert_eq!(address.without_tag().map(|base| base.to_string()), Some("srs0@example.com".into()));
            let expected = Some(Returned::Sender(sender.parse().expect("an address")));
            assert_eq!(unwrap(&key(), address.local_part(), NOW), expected);
            assert_eq!(unwrap(&key(), &address.local_part().replacen("srs0", "SRS0", 1), NOW), expected);
            assert_eq!(unwrap(&key(), address.local_part(), NOW + 30 * DAY_MILLIS), expected);
            assert_eq!(unwrap(&key(), address.local_part(), NOW + 32 * DAY_MILLIS), None, "too old");
            assert_eq!(unwrap(&key(), address.local_part(), NOW - 2 * DAY_MILLIS), None, "not made yet");
        }
    }

    #[test]
    fn what_does_not_fit_is_found_by_its_message() {
        let address = wrapped(&format!("{}@a-rather-long-name.remote.example", "c".repeat(40)));
        assert!(address.local_part().len() <= 64);
        assert_eq!(unwrap(&key(), address.local_part(), NOW), Some(Returned::Of(MessageId([1; 16]))));
    }

    #[test]
    fn the_usual_forms_of_others_are_read() {
        for (local, expected) in [
            ("SRS0=abcd=XY=remote.example=carol", Some("carol@remote.example")),
            ("srs0+abcd=XY=remote.example=c=d", Some("c=d@remote.example")),
            ("SRS1=efgh=relay.example==abcd=XY=remote.example=carol", Some("carol@remote.example")),
            ("SRS0=abcd=XY=remote.example", None),
            ("carol", None),
            ("SRS2=abcd=XY=remote.example=carol", None),
            ("SRS0=abcd=XY==carol", None),
        ] {
            let read = sender_of_foreign(local).map(|address| address.to_string());
            assert_eq!(read.as_deref(), expected, "{local}");
        }
    }

    #[test]
    fn nobody_else_makes_one() {
        let local = wrapped("carol@remote.example").local_part().to_owned();
        for (from, to) in [("carol", "cores"), ("remote", "relate"), ("srs0", "srs1")] {
            assert_eq!(unwrap(&key(), &local.replacen(from, to, 1), NOW), None, "{to}");
        }
        for at in 0..local.len() {
            let mut forged = local.clone().into_bytes();
            forged[at] = if forged[at] == b'q' { b'r' } else { b'q' };
            assert_eq!(unwrap(&key(), &String::from_utf8_lossy(&forged), NOW), None, "{at}");
        }
        assert_eq!(unwrap(&Key([4; 32]), &local, NOW), None, "another node's");
        for odd in ["srs0", "srs0+", "srs0+====", "srs0+a=bb=c", "srs0+aaaaaaaa=éé=x=y", ""] {
            assert_eq!(unwrap(&key(), odd, NOW), None, "{odd}");
        }
    }
}
