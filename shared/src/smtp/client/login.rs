//! The client's side of AUTH (RFC 4954): PLAIN (RFC 4616), or LOGIN with hosts that know only that.

use std::collections::VecDeque;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::sasl::{Credentials, Secret};

/// The mechanisms that a host offers, of those known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offered {
    plain: bool,
    login: bool,
}

impl Offered {
    /// Reads what follows AUTH in an EHLO reply.
    pub fn read<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut offered = Self::default();
        for name in names {
            offered.plain |= name.eq_ignore_ascii_case("PLAIN");
            offered.login |= name.eq_ignore_ascii_case("LOGIN");
        }
        offered
    }
}

/// An exchange under way: what is still to be said.
pub(super) struct Login {
    answers: VecDeque<Zeroizing<Vec<u8>>>,
    cancelled: bool,
}

impl Login {
    /// Begins an exchange with its first line; `None` if the host offers no mechanism that is known here.
    pub fn begin(credentials: &Credentials, offered: Offered) -> Option<(Self, Zeroizing<Vec<u8>>)> {
        // Keys of SCRAM open nothing elsewhere.
        let Secret::Password(password) = &credentials.secret else { return None };
        let user = &credentials.user;
        let (first, answers) = if offered.plain {
            let response = Zeroizing::new(format!("\0{user}\0{}", password.as_str()));
            let mut first = Zeroizing::new(b"AUTH PLAIN ".to_vec());
            first.extend_from_slice(&line(response.as_bytes()));
            (first, VecDeque::new())
        } else if offered.login {
            let first = Zeroizing::new(b"AUTH LOGIN\r\n".to_vec());
            (first, VecDeque::from([line(user.as_bytes()), line(password.as_bytes())]))
        } else {
            return None;
        };
        Some((Self { answers, cancelled: false }, first))
    }

    /// The answer to a challenge: the next line, or once the word that ends the exchange.
    pub fn challenged(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.answers.pop_front().or_else(|| {
            let again = std::mem::replace(&mut self.cancelled, true);
            (!again).then(|| Zeroizing::new(b"*\r\n".to_vec()))
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

/// One response as it is sent.
fn line(response: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut line = Zeroizing::new(STANDARD.encode(response).into_bytes());
    line.extend_from_slice(b"\r\n");
    line
}
