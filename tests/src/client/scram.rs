//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), with or without tls-exporter (RFC 9266).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The client's part of the nonce; a test needs no new one.
const NONCE: &str = "fyko+d2lbbFgONRv9qkxdawL";

/// A client that wants to log in.
#[derive(Debug)]
pub struct Scram<'c> {
    /// The user.
    pub user: &'c str,
    /// The password.
    pub password: &'c str,
    /// The keying material of the connection, for -PLUS.
    pub exporter: Option<[u8; 32]>,
}

impl Scram<'_> {
    /// The mechanism's name.
    pub fn mechanism(&self) -> &'static str {
        if self.exporter.is_some() { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" }
    }

    fn header(&self) -> &'static str {
        if self.exporter.is_some() { "p=tls-exporter,," } else { "n,," }
    }

    fn bare(&self) -> String {
        format!("n={},r={NONCE}", self.user)
    }

    /// The first message, in base64.
    pub fn first(&self) -> String {
        BASE64.encode(format!("{}{}", self.header(), self.bare()))
    }

    /// The last message, and by what the server is to prove that it knows the user; both in base64. `None` for
    /// a challenge that is none.
    pub fn last(&self, challenge: &str) -> Option<(String, String)> {
        let challenge = String::from_utf8(BASE64.decode(challenge).ok()?).ok()?;
        let mut fields = challenge.split(',');
        let nonce = fields.next()?.strip_prefix("r=")?;
        let salt = BASE64.decode(fields.next()?.strip_prefix("s=")?).ok()?;
        let rounds = fields.next()?.strip_prefix("i=")?.parse().ok()?;
        if !nonce.starts_with(NONCE) || nonce.len() == NONCE.len() {
            return None;
        }
        let binding =
            BASE64.encode([self.header().as_bytes(), self.exporter.as_ref().map_or(&[], |e| e)].concat());
        let without_proof = format!("c={binding},r={nonce}");
        let said = format!("{},{challenge},{without_proof}", self.bare());
        let mut salted = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(self.password.as_bytes(), &salt, rounds, &mut salted).ok()?;
        let client_key = keyed(&salted, b"Client Key");
        let signature = keyed(&Sha256::digest(client_key), said.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, mask)| key ^ mask).collect();
        let server = keyed(&keyed(&salted, b"Server Key"), said.as_bytes());
        let last = BASE64.encode(format!("{without_proof},p={}", BASE64.encode(proof)));
        Some((last, BASE64.encode(format!("v={}", BASE64.encode(server)))))
    }
}

fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}
