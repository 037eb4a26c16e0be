//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), with the channel binding
//! tls-exporter (RFC 9266).
//!
//! The client never sends its password, and the server never has it: what the client proves is that it knows
//! the ClientKey, which the server computes from the proof. Whether it is the right one is not decided here:
//! whoever keeps the StoredKey looks, as with a password.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{SaslError, USER_BYTES_MAX};

/// Octets of a client's nonce.
const NONCE_BYTES_MAX: usize = 256;
/// The binding that is spoken.
const TLS_EXPORTER: &str = "tls-exporter";

/// Keying material of the TLS connection, by which both ends know that they talk to each other; under TLS 1.3.
pub type TlsExporter = [u8; 32];

/// What an exchange needs of a user's credential.
#[derive(Clone)]
pub struct ScramKeys {
    /// Salt of the password hash.
    pub salt: [u8; 16],
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// H(ClientKey).
    pub stored_key: [u8; 32],
    /// Proves the server to the client.
    pub server_key: [u8; 32],
    /// The server's part of the nonce: new random for each exchange.
    pub nonce: [u8; 18],
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").finish_non_exhaustive()
    }
}

/// The client's first message was read.
#[derive(Debug)]
pub(super) struct First {
    pub user: String,
    bare: String,
    nonce: String,
    /// What the client's last message has to say in `c=`.
    binding: String,
}

impl First {
    /// Reads `client-first-message`. `plus` says that the mechanism's name ended so; `exporter` is there if the
    /// connection has one.
    pub fn read(text: &str, plus: bool, exporter: Option<&TlsExporter>) -> Result<Self, SaslError> {
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SaslError::Malformed);
        };
        let data: &[u8] = match (flag, flag.strip_prefix("p="), plus) {
            ("n", _, false) => &[],
            // The client could bind and was not told that we can: somebody has taken that out of our list.
            ("y", _, false) if exporter.is_none() => &[],
            (_, Some(TLS_EXPORTER), true) => exporter.ok_or(SaslError::Binding)?,
            ("y", ..) | (_, Some(_), _) => return Err(SaslError::Binding),
            _ => return Err(SaslError::Malformed),
        };
        let mut attributes = bare.split(',');
        let name = attributes.next().and_then(|name| name.strip_prefix("n=")).ok_or(SaslError::Malformed)?;
        let nonce =
            attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(SaslError::Malformed)?;
        let user = unescaped(name).ok_or(SaslError::Malformed)?;
        if !identity.is_empty() {
            let identity = identity.strip_prefix("a=").and_then(unescaped).ok_or(SaslError::Malformed)?;
            if identity != user {
                return Err(SaslError::Identity);
            }
        }
        let plain = (1..=USER_BYTES_MAX).contains(&user.len()) && !user.contains(char::is_control);
        let printed =
            (1..=NONCE_BYTES_MAX).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_graphic());
        if !plain || !printed {
            return Err(SaslError::Malformed);
        }
        let header = &text[..text.len() - bare.len()];
        let binding = STANDARD.encode([header.as_bytes(), data].concat());
        Ok(Self { user, bare: bare.into(), nonce: nonce.into(), binding })
    }

    /// `server-first-message`, and what waits for the client's answer.
    pub fn challenge(self, keys: &ScramKeys) -> (String, Final) {
        let nonce = format!("{}{}", self.nonce, STANDARD.encode(keys.nonce));
        let salt = STANDARD.encode(keys.salt);
        let challenge = format!("r={nonce},s={salt},i={}", keys.iterations);
        let expected = format!("c={},r={nonce}", self.binding);
        let said = format!("{},{challenge}", self.bare);
        let (stored_key, server_key) = (keys.stored_key, keys.server_key);
        (challenge, Final { user: self.user, said, expected, stored_key, server_key })
    }
}

/// The client's last message is waited for.
pub(super) struct Final {
    pub user: String,
    said: String,
    expected: String,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl fmt::Debug for Final {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Final").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a client has proved to know, if that is the right one.
pub(super) struct Proved {
    pub user: String,
    pub client_key: Box<Zeroizing<[u8; 32]>>,
    /// `server-final-message`, to be sent if it is.
    pub last: String,
}

impl Final {
    /// Reads `client-final-message`.
    pub fn answer(self, text: &str) -> Result<Proved, SaslError> {
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(SaslError::Malformed)?;
        // Extensions that are not mandatory may follow (RFC 5802 §5.1).
        match without_proof.strip_prefix(&self.expected) {
            Some("") => {}
            Some(rest) if rest.starts_with(',') && !rest.starts_with(",m=") => {}
            _ => return Err(SaslError::Binding),
        }
        let proof = STANDARD.decode(proof).map_err(|_| SaslError::Base64)?;
        let proof = <[u8; 32]>::try_from(proof).map_err(|_| SaslError::Malformed)?;
        let mut client_key = Box::new(Zeroizing::new(proof));
        let said = format!("{},{without_proof}", self.said);
        let signature = keyed(&self.stored_key, said.as_bytes());
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let last = format!("v={}", STANDARD.encode(keyed(&self.server_key, said.as_bytes())));
        Ok(Proved { user: self.user, client_key, last })
    }
}

/// HMAC-SHA-256.
pub(crate) fn keyed(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// A `saslname`: `=2C` is a comma and `=3D` an equals sign.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = [("2C", ','), ("3D", '=')]
            .into_iter()
            .find_map(|(code, letter)| part.strip_prefix(code).map(|rest| (letter, rest)))?;
        out.push(escaped);
        out.push_str(rest);
    }
    Some(out)
}
