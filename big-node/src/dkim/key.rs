//! A signing key, the file that keeps it, and the record that publishes its public half (RFC 6376 §3.6.1).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use getrandom::SysRng;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use serde::{Deserialize, Serialize};
use shared::address::{DOMAIN_MAX, Domain};

use crate::error::Refused;

/// Bits of an RSA key: what every verifier takes (RFC 8301 §3.2), and a record that fits a packet.
const RSA_BITS: usize = 2048;
/// Octets of a selector: one label.
const SELECTOR_MAX: usize = 63;
/// What stands between selector and domain in DNS.
const BETWEEN: &str = "._domainkey.";

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// ed25519-sha256 (RFC 8463): short; not every verifier knows it.
    Ed25519,
    /// rsa-sha256: what every verifier knows.
    Rsa,
}

impl Algorithm {
    /// The word for it in a signature, before `-sha256`, and in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        }
    }
}

#[derive(Debug)]
enum Pair {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// A key of a domain. Showing it shows nothing secret.
#[derive(Clone, Debug)]
pub struct Key {
    /// The domain that it signs for.
    pub domain: Domain,
    /// Its name under that domain.
    pub selector: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// When it was made, milliseconds since 1970.
    pub made_at: u64,
    /// From when on it signs, milliseconds since 1970.
    pub signs_from: u64,
    /// The public half, as the record has it.
    public: String,
    pair: Arc<Pair>,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct File {
    domain: String,
    selector: String,
    algorithm: Algorithm,
    made_at: u64,
    signs_from: u64,
    public: String,
    /// The private half: PKCS#8, in base64.
    private: String,
}

/// Whether a text is a selector: one label of a host name.
pub fn is_selector(text: &str) -> bool {
    (1..=SELECTOR_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a file of the state with this name is a DKIM key.
pub fn is_file(name: &str) -> bool {
    name.contains(BETWEEN)
}

impl Key {
    /// A new key, made and to sign at these moments, and what its file is to hold.
    pub fn generate(
        domain: Domain,
        selector: String,
        algorithm: Algorithm,
        (made_at, signs_from): (u64, u64),
    ) -> Result<(Self, Vec<u8>), Refused> {
        if selector.len() + BETWEEN.len() + domain.as_str().len() > DOMAIN_MAX {
            return Err(Refused::new(
                "selector and domain are too long for a name in DNS; take a shorter selector",
            ));
        }
        let failed = |what: &str| Refused::new(format!("the key could not be made: {what}"));
        let (public, private) = match algorithm {
            Algorithm::Ed25519 => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| failed("the system gives no random numbers"))?;
                let pair =
                    Ed25519KeyPair::from_pkcs8(made.as_ref()).map_err(|error| failed(&error.to_string()))?;
                (STANDARD.encode(pair.public_key()), STANDARD.encode(made.as_ref()))
            }
            Algorithm::Rsa => {
                let made = rsa::PrivateKey::new(&mut SysRng, RSA_BITS)
                    .map_err(|error| failed(&error.to_string()))?;
                let private = made.to_pkcs8_der().map_err(|error| failed(&error.to_string()))?;
                let public = made.to_public_key().to_public_key_der();
                let public = public.map_err(|error| failed(&error.to_string()))?;
                (STANDARD.encode(public.as_bytes()), STANDARD.encode(private.as_bytes()))
            }
        };
        let file =
            File { domain: domain.to_string(), selector, algorithm, made_at, signs_from, public, private };
        let bytes = serde_json::to_vec(&file).map_err(|error| failed(&error.to_string()))?;
        let key = Self::decode(&bytes).ok_or_else(|| failed("it does not sign"))?;
        Ok((key, bytes))
    }

    /// Reads what a file holds.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let file: File = serde_json::from_slice(bytes).ok()?;
        let private = STANDARD.decode(&file.private).ok()?;
        let pair = match file.algorithm {
            Algorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::from_pkcs8(&private).ok()?),
            Algorithm::Rsa => Pair::Rsa(RsaKeyPair::from_pkcs8(&private).ok()?),
        };
        let domain = file.domain.parse().ok()?;
        is_selector(&file.selector).then_some(Self {
            domain,
            selector: file.selector,
            algorithm: file.algorithm,
            made_at: file.made_at,
            signs_from: file.signs_from,
            public: file.public,
            pair: Arc::new(pair),
        })
    }

    /// The name of its file in the state.
    pub fn file(&self) -> String {
        self.record_name()
    }

    /// The name under which DNS has its public half.
    pub fn record_name(&self) -> String {
        format!("{}{BETWEEN}{}", self.selector, self.domain)
    }

    /// The text of its record.
    pub fn record(&self) -> String {
        format!("v=DKIM1; k={}; p={}", self.algorithm.as_str(), self.public)
    }

    /// Signs the SHA-256 of `message`; `None` if ring cannot.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self.pair.as_ref() {
            // RFC 8463 §3: what is signed is the hash, which Ed25519 hashes again.
            Pair::Ed25519(pair) => {
                let hash = ring::digest::digest(&ring::digest::SHA256, message);
                Some(pair.sign(hash.as_ref()).as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
                signed.ok().map(|()| signature)
            }
        }
    }
}
