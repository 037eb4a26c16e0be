//! The server's side of SASL PLAIN (RFC 4616), LOGIN and SCRAM-SHA-256 (`scram`), as SMTP (RFC 4954) and POP3
//! (RFC 5034) carry them: base64 lines in, credentials out.
//!
//! It decides nothing about the credentials; it only makes sure there is one way to read them. Base64
//! is taken strictly, a NUL or control character is refused, and nobody may ask to act for another.
//! A password is wiped from memory when dropped and never shown.

pub(crate) mod scram;
#[cfg(test)]
pub(crate) mod test_client;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub use scram::{ScramKeys, TlsExporter};

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
    /// What they know.
    pub secret: Secret,
}

/// By what somebody claims to be who they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password.
    Password(Zeroizing<String>),
    /// SCRAM's ClientKey.
    ClientKey(Box<Zeroizing<[u8; 32]>>),
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
            Ok(Self { user, secret: Secret::Password(password) })
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
    /// SCRAM: what the client says of the channel or of the exchange is not so.
    #[error("that exchange is not bound to this connection")]
    Binding,
}

/// A mechanism that this server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Never standardised; still what some clients know alone.
    Login,
    /// RFC 7677.
    Scram,
    /// RFC 7677, bound to the TLS connection.
    ScramPlus,
}

/// The mechanisms that both SMTP and POP3 offer under TLS, as they list them; `bound`, if there is something to
/// bind to.
pub fn mechanisms(bound: bool) -> &'static str {
    if bound { "PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS" } else { "PLAIN SCRAM-SHA-256" }
}

impl Mechanism {
    /// The mechanism of that name, in any case of letters.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            _ if name.eq_ignore_ascii_case("PLAIN") => Some(Self::Plain),
            _ if name.eq_ignore_ascii_case("LOGIN") => Some(Self::Login),
            _ if name.eq_ignore_ascii_case("SCRAM-SHA-256") => Some(Self::Scram),
            _ if name.eq_ignore_ascii_case("SCRAM-SHA-256-PLUS") => Some(Self::ScramPlus),
            _ => None,
        }
    }
}

/// An exchange that waits for the client's next line, or for keys.
#[derive(Debug)]
pub struct Exchange(Waiting);

#[derive(Debug)]
enum Waiting {
    Plain,
    LoginUser,
    LoginPassword { user: String },
    ScramFirst { plus: bool, exporter: Option<TlsExporter> },
    ScramKeys(Box<scram::First>),
    ScramFinal(Box<scram::Final>),
}

/// How an exchange goes on.
#[derive(Debug)]
pub enum Step {
    /// The client is to be sent this challenge, base64 already.
    Challenge(String, Exchange),
    /// The keys of this user are wanted, as [`Exchange::keys`].
    Keys(String, Exchange),
    /// The exchange is over. If the credentials are good and there is a last word, base64 already, the client
    /// is to be sent that as a challenge, and answers it with an empty line.
    Done(Credentials, Option<String>),
}

impl Exchange {
    /// Begins, perhaps with the client's initial response (`=` stands for an empty one). `exporter` is there if
    /// the connection has one.
    pub fn begin(
        mechanism: Mechanism,
        initial: Option<&str>,
        exporter: Option<TlsExporter>,
    ) -> Result<Step, SaslError> {
        let exchange = Self(match mechanism {
            Mechanism::Plain => Waiting::Plain,
            Mechanism::Login => Waiting::LoginUser,
            Mechanism::Scram => Waiting::ScramFirst { plus: false, exporter },
            Mechanism::ScramPlus => Waiting::ScramFirst { plus: true, exporter },
        });
        match initial {
            Some("=") => exchange.decoded(Zeroizing::default()),
            Some(line) => exchange.answer(line),
            None => Ok(match exchange.0 {
                Waiting::LoginUser => Step::Challenge("VXNlcm5hbWU6".into(), exchange), // "Username:"
                _ => Step::Challenge(String::new(), exchange),
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

    /// Goes on with the keys that [`Step::Keys`] has asked for; those of nobody look the same.
    pub fn keys(self, keys: &ScramKeys) -> Result<Step, SaslError> {
        let Waiting::ScramKeys(first) = self.0 else { return Err(SaslError::Malformed) };
        let (challenge, waiting) = first.challenge(keys);
        Ok(Step::Challenge(STANDARD.encode(challenge), Self(Waiting::ScramFinal(Box::new(waiting)))))
    }

    fn decoded(self, text: Zeroizing<String>) -> Result<Step, SaslError> {
        match self.0 {
            Waiting::Plain => plain(&text).map(|credentials| Step::Done(credentials, None)),
            Waiting::LoginUser => {
                let waiting = Waiting::LoginPassword { user: text.to_string() };
                Ok(Step::Challenge("UGFzc3dvcmQ6".into(), Self(waiting))) // "Password:"
            }
            Waiting::LoginPassword { user } => {
                Credentials::new(user, text).map(|credentials| Step::Done(credentials, None))
            }
            Waiting::ScramFirst { plus, exporter } => {
                let first = scram::First::read(&text, plus, exporter.as_ref())?;
                Ok(Step::Keys(first.user.clone(), Self(Waiting::ScramKeys(Box::new(first)))))
            }
            Waiting::ScramKeys(_) => Err(SaslError::Malformed),
            Waiting::ScramFinal(waiting) => {
                let scram::Proved { user, client_key, last } = waiting.answer(&text)?;
                let credentials = Credentials { user, secret: Secret::ClientKey(client_key) };
                Ok(Step::Done(credentials, Some(STANDARD.encode(last))))
            }
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
    use super::test_client::{Client, keys_of, knows};
    use super::*;

    fn done(step: Result<Step, SaslError>) -> Result<(String, String), SaslError> {
        match step? {
            Step::Done(Credentials { user, secret: Secret::Password(password) }, None) => {
                Ok((user, password.to_string()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn challenge(step: Result<Step, SaslError>) -> (String, Exchange) {
        match step {
            Ok(Step::Challenge(challenge, exchange)) => {
                (String::from_utf8(STANDARD.decode(challenge).expect("base64")).expect("UTF-8"), exchange)
            }
            other => panic!("{other:?}"),
        }
    }

    fn plain_of(message: &str) -> Result<(String, String), SaslError> {
        done(Exchange::begin(Mechanism::Plain, Some(&STANDARD.encode(message)), None))
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
            assert_eq!(
                done(Exchange::begin(Mechanism::Plain, Some(bad), None)),
                Err(SaslError::Base64),
                "{bad}"
            );
        }
        assert_eq!(done(Exchange::begin(Mechanism::Plain, Some("="), None)), Err(SaslError::Malformed));
        assert_eq!(done(Exchange::begin(Mechanism::Plain, Some("*"), None)), Err(SaslError::Cancelled));
        assert_eq!(
            done(Exchange::begin(Mechanism::Plain, Some("AP8A/w=="), None)),
            Err(SaslError::Malformed)
        );
    }

    #[test]
    fn login_asks_for_the_name_then_the_password() {
        let (asked, exchange) = challenge(Exchange::begin(Mechanism::Login, None, None));
        assert_eq!(asked, "Username:");
        let (asked, exchange) = challenge(exchange.answer("YWxpY2U="));
        assert_eq!(asked, "Password:");
        assert_eq!(done(exchange.answer("c2VjcmV0")), Ok(("alice".into(), "secret".into())));
    }

    #[test]
    fn credentials_do_not_show_the_password() {
        let credentials = Credentials::new("alice".into(), Zeroizing::new("secret".into())).expect("sound");
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    /// An exchange with a client that knows the password; `alter` may change what its last message says.
    fn scram(
        mechanism: Mechanism,
        header: &str,
        exporter: Option<TlsExporter>,
        data: &[u8],
        alter: impl Fn(String) -> String,
    ) -> Result<Credentials, SaslError> {
        let client = Client { header, data, password: "pencil" };
        let exchange = match Exchange::begin(mechanism, Some(&client.first()), exporter)? {
            Step::Keys(user, exchange) if user == "user" => exchange,
            other => panic!("{other:?}"),
        };
        let Ok(Step::Challenge(challenge, exchange)) = exchange.keys(&keys_of("pencil")) else {
            panic!("it is challenged");
        };
        let (last, server) = client.last(&challenge);
        match exchange.answer(&STANDARD.encode(alter(last)))? {
            Step::Done(credentials, Some(proof)) => {
                assert_eq!(proof, server, "the server is who it is");
                Ok(credentials)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scram_gives_the_client_key_and_proves_the_server() {
        let right = |credentials: Credentials| {
            matches!(credentials.secret, Secret::ClientKey(_))
                && credentials.user == "user"
                && knows(&keys_of("pencil"), &credentials.secret)
        };
        let exporter = Some([9; 32]);
        for (mechanism, header, exporter, data) in [
            (Mechanism::Scram, "n,,", None, &[][..]),
            (Mechanism::Scram, "n,,", exporter, &[]),
            (Mechanism::Scram, "y,,", None, &[]),
            (Mechanism::Scram, "n,a=user,", None, &[]),
            (Mechanism::ScramPlus, "p=tls-exporter,,", exporter, &[9; 32]),
        ] {
            let done = scram(mechanism, header, exporter, data, |last| last);
            assert!(done.is_ok_and(right), "{header}");
        }
        // A proof of another password is a proof of another key.
        let wrong = |last: String| last[..last.len() - 44].to_owned() + &STANDARD.encode([1; 32]);
        let client = Client { header: "n,,", data: &[], password: "pencil" };
        let Ok(Step::Keys(_, exchange)) = Exchange::begin(Mechanism::Scram, Some(&client.first()), None)
        else {
            panic!("it asks for keys");
        };
        let (challenge, exchange) = match exchange.keys(&keys_of("pencil")) {
            Ok(Step::Challenge(challenge, exchange)) => (challenge, exchange),
            other => panic!("{other:?}"),
        };
        match exchange.answer(&STANDARD.encode(wrong(client.last(&challenge).0))) {
            Ok(Step::Done(credentials, _)) => assert!(!right(credentials)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scram_is_bound_to_its_connection_and_exchange() {
        let (ours, theirs) = (Some([9; 32]), [8; 32]);
        let bad = [
            ("somebody between", Mechanism::ScramPlus, "p=tls-exporter,,", ours, &theirs[..]),
            ("PLUS was taken out of the list", Mechanism::Scram, "y,,", ours, &[]),
            ("nothing to bind to", Mechanism::ScramPlus, "p=tls-exporter,,", None, &theirs),
            ("another binding", Mechanism::ScramPlus, "p=tls-unique,,", ours, &theirs),
            ("bound without PLUS", Mechanism::Scram, "p=tls-exporter,,", ours, &[9; 32]),
        ];
        for (why, mechanism, header, exporter, data) in bad {
            assert_eq!(
                scram(mechanism, header, exporter, data, |last| last).err(),
                Some(SaslError::Binding),
                "{why}"
            );
        }
        let done = scram(Mechanism::ScramPlus, "n,,", ours, &[], |last| last);
        assert_eq!(done.err(), Some(SaslError::Malformed), "PLUS without a binding");
        let alter: [fn(String) -> String; 3] = [
            |last| last.replacen("r=r", "r=R", 1),
            |last| last.replacen("c=", "c=x", 1),
            |last| last.replacen(",p=", ",m=1,p=", 1),
        ];
        for alter in alter {
            assert_eq!(scram(Mechanism::Scram, "n,,", None, &[], alter).err(), Some(SaslError::Binding));
        }
        let other_user = scram(Mechanism::Scram, "n,a=bob,", None, &[], |last| last);
        assert_eq!(other_user.err(), Some(SaslError::Identity));
    }

    #[test]
    fn a_first_message_has_one_reading() {
        let long = format!("n,,n=u,r={}", "x".repeat(257));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=u",
            "n,,r=x,n=u",
            "n,,m=1,n=u,r=x",
            "n,,n=,r=x",
            "n,,n=u,r=",
            "x,,n=u,r=x",
            "n,,n=a=b,r=x",
            "n,,n=a=2,r=x",
            "n,,n=u\n,r=x",
            "n,,n=u,r=x\t",
            "n,bob,n=u,r=x",
            &long,
        ] {
            let begun = Exchange::begin(Mechanism::Scram, Some(&STANDARD.encode(bad)), None);
            assert!(matches!(begun, Err(SaslError::Malformed)), "{bad:?}");
        }
        match Exchange::begin(Mechanism::Scram, Some(&STANDARD.encode("n,,n=a=2Cb=3Dc,r=x,z=1")), None) {
            Ok(Step::Keys(user, _)) => assert_eq!(user, "a,b=c"),
            other => panic!("{other:?}"),
        }
    }
}
