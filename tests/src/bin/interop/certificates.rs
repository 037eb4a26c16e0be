//! An authority for this suite, and the certificates that it issues.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData as _};
use sha2::{Digest as _, Sha256};
use tests::wait::Trouble;

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub pem: String,
}

/// A certificate, and its key.
pub struct Certified {
    /// The certificate, in PEM.
    pub chain: String,
    /// The key, in PEM.
    pub key: String,
    /// The certificate of who has issued it, in PEM.
    pub root: String,
    /// The SHA-256 of the public key, as a TLSA record 3 1 1 has it: hexadecimal.
    pub key_hash: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self, Trouble> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "interop");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate for these names, with a key of its own.
    pub fn issue(&self, names: impl IntoIterator<Item = String>) -> Result<Certified, Trouble> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(names.into_iter().collect::<Vec<_>>())?;
        let chain = params.signed_by(&key, &self.issuer)?.pem();
        let hash = Sha256::digest(key.subject_public_key_info());
        let key_hash = hash.iter().map(|octet| format!("{octet:02x}")).collect();
        Ok(Certified { chain, key: key.serialize_pem(), root: self.pem.clone(), key_hash })
    }
}

impl Certified {
    /// Writes the key into a new file that nobody else can read.
    pub fn write_key(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(self.key.as_bytes())
    }
}
