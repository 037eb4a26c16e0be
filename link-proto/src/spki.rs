//! Ed25519 public keys, as they are pinned and as they cross.

/// What stands before the 32 bytes of a key in its SubjectPublicKeyInfo (RFC 8410 §4).
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The bytes of an Ed25519 public key (RFC 8032 §5.1.5).
pub type PublicKey = [u8; 32];

/// The key as it is pinned: SubjectPublicKeyInfo, DER.
pub fn from_raw(key: &PublicKey) -> Vec<u8> {
    [PREFIX.as_slice(), key].concat()
}

/// The key as it crosses; `None` if this is not the SubjectPublicKeyInfo of an Ed25519 key.
pub fn to_raw(spki: &[u8]) -> Option<PublicKey> {
    spki.strip_prefix(&PREFIX)?.try_into().ok()
}
