//! Mail addresses (RFC 5321 §4.1.2, RFC 6531), and their one canonical form.
//!
//! An [`Address`] can hold only a Dot-string local part of at most 64 octets and a host name: no
//! quoted strings, no address literals, no source routes. What cannot be held cannot be smuggled
//! into a command, a path or a header.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization;

/// Octets in a local part (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_MAX: usize = 64;
/// Octets in a domain name (RFC 5321 §4.5.3.1.2, RFC 1035 §2.3.4).
pub const DOMAIN_MAX: usize = 253;

/// A host name in its canonical form: lower case, A-labels, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// The name, in lower-case ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('[') {
            return Err(AddressError::Literal);
        }
        let ascii = idna::domain_to_ascii_strict(text).map_err(|_| AddressError::Domain)?;
        let all_digits = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        if ascii.len() > DOMAIN_MAX
            || ascii.split('.').any(|label| !is_label(label))
            || ascii.split('.').next_back().is_none_or(all_digits)
        {
            return Err(AddressError::Domain);
        }
        Ok(Self(ascii))
    }
}

/// A letter-digit-hyphen label (RFC 1035 §2.3.1); an underscore is let through, as DNS does.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One mailbox address. Its local part is kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: String,
    domain: Domain,
}

/// Why a text is not an address that Sallypost carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`, or nothing on one side of it.
    #[error("an address is written name@domain")]
    Shape,
    /// The local part is not a Dot-string.
    #[error("the part before the @ is not a plain name (letters, digits, dots between them)")]
    LocalPart,
    /// Over 64 octets before the `@`.
    #[error("the part before the @ is longer than 64 octets")]
    LocalPartLong,
    /// The domain is not a host name.
    #[error("the part after the @ is not a host name")]
    Domain,
    /// `user@[192.0.2.1]`.
    #[error("addresses with a number in brackets instead of a domain are not accepted")]
    Literal,
    /// A quoted local part, percent hack, bang path or source route.
    #[error("quoted names and routes are not accepted")]
    Route,
}

impl Address {
    /// An address of `local` at `domain`.
    pub fn new(local: &str, domain: &Domain) -> Result<Self, AddressError> {
        if local.len() > LOCAL_PART_MAX {
            return Err(AddressError::LocalPartLong);
        }
        if local.split('.').any(|atom| atom.is_empty() || !atom.chars().all(is_atext)) {
            return Err(AddressError::LocalPart);
        }
        Ok(Self { local: local.into(), domain: domain.clone() })
    }

    /// The part before the `@`, as written.
    pub fn local_part(&self) -> &str {
        &self.local
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether it can be sent to a host without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }

    /// The form under which the directory knows it: NFC, lower case, A-labels.
    pub fn canonical(&self) -> String {
        format!("{}@{}", canonical_local(&self.local), self.domain)
    }

    /// The address without its `+tag`, when it has one and is an address without it.
    pub fn without_tag(&self) -> Option<Self> {
        let (base, _) = self.local.split_once('+')?;
        Self::new(base, &self.domain).ok()
    }
}

/// The canonical form of a local part, and of a name that can be one: NFC, lower case.
pub fn canonical_local(local: &str) -> String {
    local.nfc().flat_map(char::to_lowercase).nfc().collect()
}

/// atext of RFC 5322 §3.2.3, and any printable non-ASCII character (RFC 6531 §3.3).
fn is_atext(c: char) -> bool {
    match c {
        '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^' | '_' | '`' | '{'
        | '|' | '}' | '~' => true,
        c if c.is_ascii() => c.is_ascii_alphanumeric(),
        c => c.is_alphanumeric() || unicode_normalization::char::is_combining_mark(c),
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with(['"', '@']) {
            return Err(AddressError::Route);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Shape)?;
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Shape);
        }
        Self::new(local, &domain.parse()?)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, AddressError>) {
        let got = text.parse::<Address>().map(|a| a.canonical());
        assert_eq!(got.as_deref().map_err(|e| *e), expected, "{text:?}");
    }

    #[test]
    fn addresses_are_dot_strings_at_host_names() {
        check("Alice@Example.COM", Ok("alice@example.com"));
        check("o'brien+list@example.com", Ok("o'brien+list@example.com"));
        check("jos\u{65}\u{301}@b\u{fc}cher.example", Ok("jos\u{e9}@xn--bcher-kva.example"));
        check("alice", Err(AddressError::Shape));
        check("@example.com", Err(AddressError::Route));
        check("alice@", Err(AddressError::Shape));
        check("a..b@example.com", Err(AddressError::LocalPart));
        check(".a@example.com", Err(AddressError::LocalPart));
        check("a b@example.com", Err(AddressError::LocalPart));
        check("a\0@example.com", Err(AddressError::LocalPart));
        check("a@b@example.com", Err(AddressError::LocalPart));
        check("\"a b\"@example.com", Err(AddressError::Route));
        check("@relay.example:a@example.com", Err(AddressError::Route));
        check("a@[127.0.0.1]", Err(AddressError::Literal));
        check("a@127.0.0.1", Err(AddressError::Domain));
        check("a@-bad.example", Err(AddressError::Domain));
        check("a@example..com", Err(AddressError::Domain));
        check("a@example.com.", Err(AddressError::Domain));
        check(&format!("{}@example.com", "a".repeat(64)), Ok(&format!("{}@example.com", "a".repeat(64))));
        check(&format!("{}@example.com", "a".repeat(65)), Err(AddressError::LocalPartLong));
    }

    #[test]
    fn a_tag_comes_off() {
        let tagged: Address = "alice+list@example.com".parse().expect("valid");
        assert_eq!(tagged.without_tag().map(|a| a.to_string()), Some("alice@example.com".into()));
        for bare in ["+x@example.com", "a.+x@example.com", "a@example.com"] {
            let bare: Address = bare.parse().expect("valid");
            assert_eq!(bare.without_tag(), None, "{bare}");
        }
    }
}
