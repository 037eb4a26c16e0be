//! The server's side of SASL PLAIN (RFC 4616) and LOGIN, as SMTP (RFC 4954) and POP3 (RFC 5034)
//! carry them: base64 lines in, credentials out.
//!
//! It decides nothing about the credentials; it only makes sure there is one way to read them. Base64
//! is taken strictly, a NUL or control character is refused, and nobody may ask to act for another.
//! A password is wiped from memory when dropped and never shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Octets in a line of an exchange, without its CRLF (RFC 4954 §4).
pub const LINE_BYTES_MAX: usize = 12_288;
/// Octets in a user name.
pub const USER_BYTES_MAX: usize = 255;
/// Octets in a password.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// What a client claims, as yet unchecked.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name, as the client wrote it.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl Credentials {
    /// Credentials that can be looked up and logged without harm.
    ///
    /// # Errors
    /// [`SaslError::Malformed`] when either is empty, too long or holds control characters.
    pub fn new(user: String, password: Zeroizing<String>) -> Result<Self, SaslError> {
        let plain =
            |text: &str, max: usize| (1..=max).contains(&text.len()) && !text.contains(char::is_control);
        if plain(&user, USER_BYTES_MAX) && plain(&password, PASSWORD_BYTES_MAX) {
            Ok(Self { user, password })
        } else {
            Err(SaslError::Malformed)
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why an exchange ended without credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The client sent `*`.
    #[error("authentication cancelled")]
    Cancelled,
    /// Not canonical base64.
    #[error("the response is not base64")]
    Base64,
    /// Base64, but not of what the mechanism wants.
    #[error("the response holds no user name and password")]
    Malformed,
    /// PLAIN with an authorization identity other than the user.
    #[error("one can only act for oneself: leave the authorization identity empty")]
    Identity,
}

/// A mechanism that this server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Never standardised; still what some clients know alone.
    Login,
}

impl Mechanism {
    /// The mechanism of that name, in any case of letters.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            _ if name.eq_ignore_ascii_case("PLAIN") => Some(Self::Plain),
            _ if name.eq_ignore_ascii_case("LOGIN") => Some(Self::Login),
            _ => None,
        }
    }
}

/// An exchange that waits for the client's next line.
#[derive(Debug)]
pub struct Exchange(Waiting);

#[derive(Debug)]
enum Waiting {
    Plain,
    LoginUser,
    LoginPassword { user: String },
}

/// How an exchange goes on.
#[derive(Debug)]
pub enum Step {
    /// The client is to be sent this challenge, base64 already.
    Challenge(&'static str, Exchange),
    /// The exchange is over.
    Done(Credentials),
}

impl Exchange {
    /// Begins, perhaps with the client's initial response (`=` stands for an empty one).
    pub fn begin(mechanism: Mechanism, initial: Option<&str>) -> Result<Step, SaslError> {
        let exchange = match mechanism {
            Mechanism::Plain => Self(Waiting::Plain),
            Mechanism::Login => Self(Waiting::LoginUser),
        };
        match initial {
            Some("=") => exchange.decoded(Zeroizing::default()),
            Some(line) => exchange.answer(line),
            None => Ok(match exchange.0 {
                Waiting::Plain => Step::Challenge("", exchange),
                _ => Step::Challenge("VXNlcm5hbWU6", exchange), // "Username:"
            }),
        }
    }

    /// Goes on with the client's line.
    pub fn answer(self, line: &str) -> Result<Step, SaslError> {
        if line == "*" {
            return Err(SaslError::Cancelled);
        }
        let bytes = STANDARD.decode(line).map_err(|_| SaslError::Base64)?;
        let text = String::from_utf8(bytes).map_err(|_| SaslError::Malformed)?;
        self.decoded(Zeroizing::new(text))
    }

    fn decoded(self, text: Zeroizing<String>) -> Result<Step, SaslError> {
        match self.0 {
            Waiting::Plain => plain(&text).map(Step::Done),
            Waiting::LoginUser => {
                let waiting = Waiting::LoginPassword { user: text.to_string() };
                Ok(Step::Challenge("UGFzc3dvcmQ6", Self(waiting))) // "Password:"
            }
            Waiting::LoginPassword { user } => Credentials::new(user, text).map(Step::Done),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd`.
fn plain(text: &str) -> Result<Credentials, SaslError> {
    let mut fields = text.split('\0');
    let (Some(identity), Some(user), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(SaslError::Malformed);
    };
    if !identity.is_empty() && identity != user {
        return Err(SaslError::Identity);
    }
    Credentials::new(user.into(), Zeroizing::new(password.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(step: Result<Step, SaslError>) -> Result<(String, String), SaslError> {
        match step? {
            Step::Done(credentials) => Ok((credentials.user, credentials.password.to_string())),
            Step::Challenge(challenge, _) => panic!("challenged with {challenge:?}"),
        }
    }

    fn plain_of(message: &str) -> Result<(String, String), SaslError> {
        done(Exchange::begin(Mechanism::Plain, Some(&STANDARD.encode(message))))
    }

    #[test]
    fn plain_has_one_reading() {
        let alice = Ok(("alice".to_owned(), "pass word".to_owned()));
        assert_eq!(plain_of("\0alice\0pass word"), alice);
        assert_eq!(plain_of("alice\0alice\0pass word"), alice);
        assert_eq!(plain_of("bob\0alice\0pass word"), Err(SaslError::Identity));
        for bad in [
            "",
            "\0",
            "\0\0",
            "\0alice\0",
            "\0\0secret",
            "alice\0secret",
            "\0a\0b\0c",
            "\0a\nb\0c",
            "\0a\0b\r",
        ] {
            assert_eq!(plain_of(bad), Err(SaslError::Malformed), "{bad:?}");
        }
        assert_eq!(plain_of(&format!("\0{}\0x", "u".repeat(255))).map(|c| c.0.len()), Ok(255));
        assert_eq!(plain_of(&format!("\0{}\0x", "u".repeat(256))), Err(SaslError::Malformed));
        assert_eq!(plain_of(&format!("\0x\0{}", "p".repeat(1024))).map(|c| c.1.len()), Ok(1024));
        assert_eq!(plain_of(&format!("\0x\0{}", "p".repeat(1025))), Err(SaslError::Malformed));
    }

    #[test]
    fn base64_is_taken_strictly() {
        for bad in ["AGFsaWNlAHB3!", "AGFsaWNlAHA", "AGFs aWNlAHB3", "AGFsaWNlAHB3=", "====", "AGFsaWNlAHB="]
        {
            assert_eq!(done(Exchange::begin(Mechanism::Plain, Some(bad))), Err(SaslError::Base64), "{bad}");
        }
        assert_eq!(done(Exchange::begin(Mechanism::Plain, Some("="))), Err(SaslError::Malformed));
        assert_eq!(done(Exchange::begin(Mechanism::Plain, Some("*"))), Err(SaslError::Cancelled));
        assert_eq!(done(Exchange::begin(Mechanism::Plain, Some("AP8A/w=="))), Err(SaslError::Malformed));
    }

    #[test]
    fn login_asks_for_the_name_then_the_password() {
        let Ok(Step::Challenge("VXNlcm5hbWU6", exchange)) = Exchange::begin(Mechanism::Login, None) else {
            panic!("LOGIN asks for the user name");
        };
        let Ok(Step::Challenge("UGFzc3dvcmQ6", exchange)) = exchange.answer("YWxpY2U=") else {
            panic!("LOGIN asks for the password");
        };
        assert_eq!(done(exchange.answer("c2VjcmV0")), Ok(("alice".into(), "secret".into())));
    }

    #[test]
    fn credentials_do_not_show_the_password() {
        let credentials = Credentials::new("alice".into(), Zeroizing::new("secret".into())).expect("sound");
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
