//! The client's side of SCRAM-SHA-256, for tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use sha2::{Digest, Sha256};

use super::scram::keyed;
use super::{ScramKeys, Secret};

/// The example's (RFC 7677 §3).
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const ITERATIONS: u32 = 4096;

fn salted(password: &str) -> [u8; 32] {
    let (salt, mut salted) = (STANDARD.decode(SALT).expect("base64"), [0; 32]);
    pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), &salt, ITERATIONS, &mut salted).expect("any length");
    salted
}

fn hashed(client_key: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(client_key).into()
}

/// What is kept of a password.
pub fn keys_of(password: &str) -> ScramKeys {
    let salted = salted(password);
    ScramKeys {
        salt: STANDARD.decode(SALT).expect("base64").try_into().expect("16 octets"),
        iterations: ITERATIONS,
        stored_key: hashed(&keyed(&salted, b"Client Key")),
        server_key: keyed(&salted, b"Server Key"),
        nonce: [7; 18],
    }
}

/// Whether what somebody knows is what these keys are of.
pub fn knows(keys: &ScramKeys, secret: &Secret) -> bool {
    match secret {
        Secret::Password(password) => keys_of(password).stored_key == keys.stored_key,
        Secret::ClientKey(key) => hashed(key) == keys.stored_key,
    }
}

/// A client that logs in as `user`.
pub struct Client<'c> {
    /// How it begins: the binding's flag, and whom it wants to act for.
    pub header: &'c str,
    /// What it binds to.
    pub data: &'c [u8],
    /// Its password.
    pub password: &'c str,
}

impl Client<'_> {
    const BARE: &'static str = "n=user,r=rOprNGfwEbeRWgbNEkqO";

    /// Its first message, in base64.
    pub fn first(&self) -> String {
        STANDARD.encode(format!("{}{}", self.header, Self::BARE))
    }

    /// Its last message, not in base64, and what the server is to prove itself by, in base64.
    pub fn last(&self, challenge: &str) -> (String, String) {
        let challenge = String::from_utf8(STANDARD.decode(challenge).expect("base64")).expect("UTF-8");
        let nonce = challenge.split(',').next().expect("a nonce");
        assert_eq!(nonce, format!("r=rOprNGfwEbeRWgbNEkqO{}", STANDARD.encode([7; 18])));
        let binding = STANDARD.encode([self.header.as_bytes(), self.data].concat());
        let without_proof = format!("c={binding},{nonce}");
        let said = format!("{},{challenge},{without_proof}", Self::BARE);
        let salted = salted(self.password);
        let mut proof = keyed(&salted, b"Client Key");
        let signature = keyed(&hashed(&proof), said.as_bytes());
        proof.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let server = STANDARD.encode(keyed(&keyed(&salted, b"Server Key"), said.as_bytes()));
        (format!("{without_proof},p={}", STANDARD.encode(proof)), STANDARD.encode(format!("v={server}")))
    }
}
