//! The pairing ticket: one line that an operator carries from the edge to big.
//!
//! `sallypost1:` and then, in lower-case base32 (RFC 4648 §6, no padding), with numbers in big endian:
//!
//! | bytes | is |
//! |---|---|
//! | 8 | when it expires, in seconds since 1970 |
//! | 32 | the invitation's secret |
//! | 2 | the edge's port |
//! | 1 + 4 or 16 | the edge's address, after its length |
//! | 1 + n | the edge's public key (SubjectPublicKeyInfo, DER), after its length |
//! | 4 | the start of the BLAKE3 digest of all before, against slips of copying |
//!
//! Whoever holds an unexpired ticket can pair once: it is a secret until it is used. It is not shown
//! by `Debug`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::unit::Digest;

/// What every ticket of this version starts with.
const PREFIX: &str = "sallypost1:";
/// Characters of a ticket; a longer line is not one.
const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of the checksum.
const CHECK_BYTES: usize = 4;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// An invitation, as big receives it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Where the edge listens for the link.
    pub address: SocketAddr,
    /// The edge's public key (SubjectPublicKeyInfo, DER), at most 255 bytes.
    pub key: Vec<u8>,
    /// Proves the invitation, once.
    pub secret: [u8; 32],
    /// When the invitation ends, in seconds since 1970.
    pub expires: u64,
}

/// The line is not a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Another text, or a ticket of another version.
    #[error("not a ticket: it starts with `sallypost1:`, as `edge-node invite` prints it")]
    Prefix,
    /// A character that no ticket has.
    #[error("the ticket holds a character that none has; copy the whole line again")]
    Character,
    /// The checksum does not fit.
    #[error("the ticket is incomplete or was changed; copy the whole line again")]
    Checksum,
}

impl Ticket {
    /// Whether it has expired at `unix_seconds`.
    pub fn is_expired(&self, unix_seconds: u64) -> bool {
        unix_seconds >= self.expires
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.address.port().to_be_bytes());
        match self.address.ip() {
            IpAddr::V4(ip) => put(&mut bytes, &ip.octets()),
            IpAddr::V6(ip) => put(&mut bytes, &ip.octets()),
        }
        put(&mut bytes, &self.key);
        bytes.extend_from_slice(&check(&bytes));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        if check(content) != *checksum {
            return None;
        }
        let (expires, rest) = content.split_first_chunk()?;
        let (secret, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (address, rest) = take(rest)?;
        let (key, rest) = take(rest)?;
        let ip = match address.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        };
        rest.is_empty().then(|| Self {
            address: SocketAddr::new(ip, u16::from_be_bytes(*port)),
            key: key.to_vec(),
            secret: *secret,
            expires: u64::from_be_bytes(*expires),
        })
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        f.write_str(&to_base32(&self.to_bytes()))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("address", &self.address)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let coded =
            text.strip_prefix(PREFIX).filter(|_| text.len() <= TEXT_BYTES_MAX).ok_or(TicketError::Prefix)?;
        let bytes = from_base32(coded).ok_or(TicketError::Character)?;
        Self::from_bytes(&bytes).ok_or(TicketError::Checksum)
    }
}

/// Appends a field after its length.
fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.push(u8::try_from(field.len()).expect("an address or a public key is below 256 bytes"));
    bytes.extend_from_slice(field);
}

/// Splits off a field that stands after its length.
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest: Digest = *blake3::hash(bytes).as_bytes();
    let [first, second, third, fourth, ..] = digest;
    [first, second, third, fourth]
}

fn to_base32(bytes: &[u8]) -> String {
    let group = |group: &[u8]| {
        let bits =
            group.iter().enumerate().fold(0, |bits, (i, byte)| bits | u64::from(*byte) << (32 - 8 * i));
        let letters = (group.len() * 8).div_ceil(5);
        (0..letters).map(move |i| char::from(ALPHABET[(bits >> (35 - 5 * i) & 31) as usize]))
    };
    bytes.chunks(5).flat_map(group).collect()
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len()), 0u32, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter.to_ascii_lowercase())?;
        bits = bits << 5 | u32::try_from(value).ok()?;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ticket(address: &str) -> Ticket {
        Ticket {
            address: address.parse().unwrap(),
            key: vec![7; 44],
            secret: [9; 32],
            expires: 1_800_000_000,
        }
    }

    #[test]
    fn survives_the_way_from_terminal_to_terminal() {
        for address in ["127.0.0.1:7625", "[2001:db8::1]:1"] {
            let line = format!(" {}\n", ticket(address));
            assert_eq!(line.parse::<Ticket>().unwrap(), ticket(address));
            assert_eq!(line.len(), line.trim().len() + 2);
        }
    }

    #[test]
    fn base32_is_that_of_rfc_4648() {
        let vectors =
            [("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foob", "mzxw6yq"), ("fooba", "mzxw6ytb")];
        for (plain, coded) in vectors {
            assert_eq!(to_base32(plain.as_bytes()), coded);
            assert_eq!(from_base32(coded).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn every_slip_is_told_apart() {
        let line = ticket("127.0.0.1:7625").to_string();
        assert_eq!("hello".parse::<Ticket>(), Err(TicketError::Prefix));
        assert_eq!(line.replacen(':', ":!", 1).parse::<Ticket>(), Err(TicketError::Character));
        for end in PREFIX.len()..line.len() {
            assert_eq!(line[..end].parse::<Ticket>(), Err(TicketError::Checksum), "cut at {end}");
        }
    }

    #[test]
    fn expires_and_keeps_its_secret_to_itself() {
        let ticket = ticket("127.0.0.1:7625");
        assert!(!ticket.is_expired(1_799_999_999) && ticket.is_expired(1_800_000_000));
        assert!(!format!("{ticket:?}").contains("secret"));
    }
}
