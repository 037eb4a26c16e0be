//! Unix accounts, as they are typed and shown. What is kept is the number, which is what the kernel says of who
//! calls; names are looked up in /etc/passwd alone, and accounts that are elsewhere are typed as numbers.

use std::fs::File;
use std::io::Read;
use std::str::FromStr;

/// Where names of accounts are looked up.
const PASSWD: &str = "/etc/passwd";
/// Octets of it that are read.
const PASSWD_MAX: u64 = 4 << 20;
/// Octets of an account's name.
const NAME_MAX: usize = 256;

/// An account, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// By its number.
    Number(u32),
    /// By its name.
    Name(String),
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        let is_name = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
        let fits = (1..=NAME_MAX).contains(&text.len()) && text.chars().all(is_name);
        let fits = fits && !text.starts_with(['-', '+']);
        fits.then(|| Self::Name(text.to_owned())).ok_or_else(|| "the name or the number of an account".into())
    }
}

impl Account {
    /// Its number.
    ///
    /// # Errors
    /// If it is a name that is not in /etc/passwd, with the mend.
    pub(super) fn uid(&self) -> Result<u32, String> {
        match self {
            Self::Number(uid) => Ok(*uid),
            Self::Name(name) => Accounts::read().uid(name).ok_or_else(|| {
                format!(
                    "{PASSWD} knows no account {name}; if it is elsewhere, write its number: `id -u {name}`"
                )
            }),
        }
    }
}

/// The accounts of this host, as far as /etc/passwd has them.
#[derive(Debug, Default)]
pub(super) struct Accounts(String);

impl Accounts {
    /// Reads them; none, if that cannot be done.
    pub(super) fn read() -> Self {
        let mut text = Vec::new();
        let read = File::open(PASSWD).and_then(|file| file.take(PASSWD_MAX).read_to_end(&mut text));
        // They only give names to numbers, and the numbers are what counts.
        read.map_or_else(|_| Self::default(), |_| Self(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Name and number of each: the first of those that share one is meant (getpwnam(3)).
    fn each(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next()?, fields.nth(1)?);
            Some((name, uid.parse().ok()?))
        })
    }

    fn uid(&self, name: &str) -> Option<u32> {
        self.each().find(|(known, _)| *known == name).map(|(_, uid)| uid)
    }

    /// An account as it is shown: its name and its number.
    pub(super) fn shown(&self, uid: u32) -> String {
        let name = self.each().find(|(_, known)| *known == uid).map(|(name, _)| name);
        name.map_or_else(|| uid.to_string(), |name| format!("{name} ({uid})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_typed_by_name_or_number() {
        assert_eq!("1001".parse(), Ok(Account::Number(1001)));
        assert_eq!("al.ice-2".parse(), Ok(Account::Name("al.ice-2".into())));
        for bad in ["", "-1", "+", "a b", "a:b", "a\n", &"x".repeat(NAME_MAX + 1)] {
            assert!(bad.parse::<Account>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_found_as_the_system_finds_them() {
        let text = "root:x:0:0:root:/root:/bin/sh\nalice:x:1001:1001::/home/alice:/bin/sh\nalice:x:7:7::/:\n\
                    broken\nodd:x:-1:0::/:\nal:x:1001:1::/:\n";
        let accounts = Accounts(text.into());
        assert_eq!((accounts.uid("alice"), accounts.uid("root")), (Some(1001), Some(0)));
        assert_eq!((accounts.uid("broken"), accounts.uid("odd"), accounts.uid("ali")), (None, None, None));
        assert_eq!((accounts.shown(1001), accounts.shown(9)), ("alice (1001)".into(), "9".into()));
    }
}
