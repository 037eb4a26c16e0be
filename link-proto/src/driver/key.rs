//! A node's own Ed25519 key.

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The key cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gives no randomness.
    #[error("cannot make a key: the system gives no randomness")]
    Randomness,
    /// It could not be kept.
    #[error("the new key could not be kept: {0}")]
    NotKept(String),
    /// Not an Ed25519 key.
    #[error("not an Ed25519 private key in PKCS #8 (DER); restore the node's key file from a backup")]
    NotAKey,
}

/// An Ed25519 key pair, which is who a node is on the link. `Debug` shows the public half only.
#[derive(Clone)]
pub struct Key {
    pkcs8: Arc<[u8]>,
    certified: Arc<CertifiedKey>,
    public: Arc<[u8]>,
}

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Randomness)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// The key that [`Key::pkcs8`] gave.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).map_err(|_| KeyError::NotAKey)?;
        let public = signing.public_key().ok_or(KeyError::NotAKey)?.to_vec();
        // RFC 7250: the place of the certificate is taken by the public key itself.
        let certified = CertifiedKey::new(vec![CertificateDer::from(public.clone())], signing);
        Ok(Self { pkcs8: der.into(), certified: Arc::new(certified), public: public.into() })
    }

    /// The private key (PKCS #8, DER), to be kept in a file of mode 0600.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key (SubjectPublicKeyInfo, DER), which the partner pins.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("public", &self.public).finish_non_exhaustive()
    }
}
