//! A travel window's credentials: SCRAM-SHA-256 keys (RFC 5802, RFC 7677) and the private key they
//! open.
//!
//! Big generates the password, shows it once and forgets it. The edge stores StoredKey, ServerKey and
//! the window's private key locked under the ClientKey, which no one has between logins. A plain
//! password gives the ClientKey by computation, a SCRAM login by its proof: every method opens it.

use hmac::Hmac;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::id::random;
use crate::sasl::scram::keyed;
use crate::sasl::{ScramKeys, Secret};
use crate::seal::{PrivateKey, PublicKey, Sealed};

/// PBKDF2 rounds. The password is generated with 100 bits, so rounds add little: RFC 7677's minimum.
pub const ITERATIONS: u32 = 4096;
/// Letters in a generated password, 5 bits each.
const PASSWORD_LETTERS: usize = 20;
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// What the edge keeps of a password.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Salt of the password hash.
    pub salt: [u8; 16],
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// H(ClientKey): proves a login.
    pub stored_key: [u8; 32],
    /// Proves the server to a SCRAM client.
    pub server_key: [u8; 32],
    /// The window's private key, locked under the ClientKey.
    pub locked_private_key: Vec<u8>,
}

/// The salt of all passwords of a site. A SCRAM server tells it to whoever names a user, before any password. Were
/// it of the user's or the window's own, names that share one would be those of somebody who travels at this moment;
/// so it is the same for everybody, also for names that do not exist. A salt keeps one table of guesses from being
/// good for many passwords: of passwords with 100 random bits there is no such table. It follows from big's key,
/// which both nodes know and which stays when an edge is replaced.
pub fn site_salt(big: &PublicKey) -> [u8; 16] {
    let key = blake3::derive_key("sallypost 2026 salt of all travel windows' passwords", &big.0);
    *key.first_chunk().expect("a hash has 32 bytes")
}

impl Credential {
    /// A generated password of 100 bits, in groups that a person can copy, and what is kept of it. The salt is the
    /// site's ([`site_salt`]).
    pub fn generate(window: &PrivateKey, salt: [u8; 16]) -> (String, Self) {
        Self::salted(window, salt)
    }

    /// Another password for the same window. The salt stays, so that the old one can be good for a while longer
    /// without costing whoever logs in more work.
    pub fn rotate(&self, window: &PrivateKey) -> (String, Self) {
        Self::salted(window, self.salt)
    }

    fn salted(window: &PrivateKey, salt: [u8; 16]) -> (String, Self) {
        let letters: Vec<u8> =
            random::<PASSWORD_LETTERS>().iter().map(|byte| ALPHABET[usize::from(byte % 32)]).collect();
        let groups: Vec<_> = letters.chunks(5).map(String::from_utf8_lossy).collect();
        let password = groups.join("-");
        let salted = salted(&password, &salt, ITERATIONS);
        let client_key = keyed(&salted, b"Client Key");
        let credential = Self {
            salt,
            iterations: ITERATIONS,
            stored_key: Sha256::digest(client_key).into(),
            server_key: keyed(&salted, b"Server Key"),
            locked_private_key: window.lock(&client_key),
        };
        (password, credential)
    }

    /// The window's private key, if what somebody knows is right.
    pub fn open(&self, secret: &Secret) -> Result<PrivateKey, Sealed> {
        self.open_with(&self.client_key(secret))
    }

    /// The ClientKey that what somebody knows gives under this salt, right or wrong.
    pub fn client_key(&self, secret: &Secret) -> Box<Zeroizing<[u8; 32]>> {
        match secret {
            Secret::Password(password) => {
                let salted = salted(password, &self.salt, self.iterations);
                Box::new(Zeroizing::new(keyed(&salted, b"Client Key")))
            }
            Secret::ClientKey(key) => key.clone(),
        }
    }

    /// The window's private key, if the ClientKey is right.
    pub fn open_with(&self, client_key: &[u8; 32]) -> Result<PrivateKey, Sealed> {
        let proof: [u8; 32] = Sha256::digest(client_key).into();
        if !bool::from(proof.ct_eq(&self.stored_key)) {
            return Err(Sealed);
        }
        PrivateKey::unlock(&self.locked_private_key, client_key)
    }

    /// What a SCRAM exchange needs of it.
    pub fn scram_keys(&self) -> ScramKeys {
        let Self { salt, iterations, stored_key, server_key, .. } = *self;
        ScramKeys { salt, iterations, stored_key, server_key, nonce: random() }
    }

    /// The like for a user who does not exist, with the salt of those who do. `secret` is the node's own.
    pub fn scram_keys_of_nobody(secret: &[u8; 32], salt: [u8; 16], user: &str) -> ScramKeys {
        let mut derived = [0; 64];
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(b"scram keys of nobody").update(user.as_bytes()).finalize_xof().fill(&mut derived);
        let mut parts = derived.as_slice();
        let mut part = |out: &mut [u8]| {
            let (taken, rest) = parts.split_at(out.len());
            out.copy_from_slice(taken);
            parts = rest;
        };
        let (mut stored_key, mut server_key) = ([0; 32], [0; 32]);
        part(&mut stored_key);
        part(&mut server_key);
        ScramKeys { salt, iterations: ITERATIONS, stored_key, server_key, nonce: random() }
    }
}

fn salted(password: &str, salt: &[u8; 16], iterations: u32) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), salt, iterations, out.as_mut_slice())
        .expect("HMAC takes keys of any length");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{Former, Window};

    const SALT: [u8; 16] = [9; 16];

    #[test]
    fn the_keys_are_those_of_rfc_7677() {
        // RFC 7677 §3: user "user", password "pencil".
        let salt =
            [0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81];
        let salted = salted("pencil", &salt, 4096);
        let auth = b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = keyed(&keyed(&salted, b"Server Key"), auth);
        use base64::Engine as _;
        assert_eq!(
            base64::engine::general_purpose::STANDARD.encode(signature),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn nobody_has_the_same_keys_each_time_and_others_than_somebody_else() {
        let of = |secret: u8, user: &str| {
            let keys = Credential::scram_keys_of_nobody(&[secret; 32], SALT, user);
            assert_eq!((keys.salt, keys.iterations), (SALT, ITERATIONS), "as of somebody");
            keys.stored_key
        };
        assert_eq!(of(1, "mallory"), of(1, "mallory"));
        assert_ne!(of(1, "mallory"), of(1, "trudy"));
        assert_ne!(of(1, "mallory"), of(2, "mallory"));
        let nonce = || Credential::scram_keys_of_nobody(&[1; 32], SALT, "mallory").nonce;
        assert_ne!(nonce(), nonce());
    }

    #[test]
    fn only_the_password_opens_the_window() {
        let (private, public) = PrivateKey::generate();
        let (password, credential) = Credential::generate(&private, SALT);
        assert_eq!(password.len(), PASSWORD_LETTERS + 3);
        let open = |password: &str| credential.open(&Secret::Password(Zeroizing::new(password.into())));
        assert_eq!(open(&password).map(|key| key.public()), Ok(public));
        assert!(open("abcde-fghij-kmnpq-rstuv").is_err());
        let client_key = keyed(&salted(&password, &credential.salt, ITERATIONS), b"Client Key");
        let open = |key: [u8; 32]| credential.open(&Secret::ClientKey(Box::new(Zeroizing::new(key))));
        assert_eq!(open(client_key).map(|key| key.public()), Ok(public));
        assert!(open(credential.stored_key).is_err() && open(credential.server_key).is_err());
        let (other, _) = Credential::generate(&private, SALT);
        assert_ne!(other, password);
    }

    #[test]
    fn after_a_rotation_the_new_password_opens_the_same_key_and_the_old_one_for_as_long_as_it_was_given() {
        let (private, public) = PrivateKey::generate();
        let (old, former) = Credential::generate(&private, SALT);
        let (new, credential) = former.rotate(&private);
        assert_ne!((&old, former.stored_key), (&new, credential.stored_key));
        let keys = (credential.stored_key, former.stored_key);
        let former = Some(Former { credential: former, until: 1000 });
        let window = Window { former, ..Window::new([1; 16], [2; 16], public.0, credential) };
        let opens = |password: &str, now| {
            let secret = Secret::Password(Zeroizing::new(password.into()));
            window.open(&secret, now).ok().map(|(key, login)| (key.public() == public, login))
        };
        assert_eq!([999, 1000].map(|now| opens(&new, now)), [Some((true, keys.0)); 2]);
        assert_eq!([999, 1000].map(|now| opens(&old, now)), [Some((true, keys.1)), None]);
        assert_eq!(opens("abcde-fghij-kmnpq-rstuv", 999), None);
    }
}
