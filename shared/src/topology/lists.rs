//! Lists of addresses in DNS (RFC 5782): which are asked, and what their answers mean.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::address::{DOMAIN_MAX, Domain};

/// Lists of one kind that may be asked: each costs strangers a question.
pub const LISTS_MAX: usize = 8;
/// Codes, or ranges of them, that may be named for one list.
pub const CODES_MAX: usize = 16;
/// Octets of an IPv6 address as it stands before a zone: 32 digits, each with its dot.
const REVERSED_MAX: usize = 64;

/// `[edge.lists]`: who speaks against strangers' addresses, and who for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// An address that one of these has is refused.
    pub block: Vec<DnsList>,
    /// An address that one of these has is not refused for the others' sake, nor told to wait.
    pub allow: Vec<DnsList>,
}

/// One list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsList {
    /// Below which name it answers.
    pub zone: Domain,
    /// The codes that count, from the first to the last of each range; none means all.
    codes: Vec<(Ipv4Addr, Ipv4Addr)>,
}

/// What a list answers with one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The address is listed.
    Listed,
    /// It is listed for something that does not count here.
    Other,
    /// Nothing is said of the address: the list refuses to answer us, or somebody else answers in its name.
    Error,
}

impl DnsList {
    /// What `code` says. Lists answer from 127.0.0.0/8 (RFC 5782 §2.1), and operators complain from 127.255.255.0/24:
    /// of too many questions, or of a public resolver.
    pub fn says(&self, code: Ipv4Addr) -> Word {
        let octets = code.octets();
        if octets[0] != 127 || octets[1..3] == [255, 255] {
            return Word::Error;
        }
        let counts =
            self.codes.is_empty() || self.codes.iter().any(|(first, last)| (*first..=*last).contains(&code));
        if counts { Word::Listed } else { Word::Other }
    }
}

/// The text is no list.
#[derive(Debug, thiserror::Error)]
#[error("a list is a zone, or a zone with the codes that count, like `list.example=127.0.0.2,127.0.0.4-7`")]
pub struct NotAList;

impl FromStr for DnsList {
    type Err = NotAList;

    fn from_str(text: &str) -> Result<Self, NotAList> {
        let (zone, codes) = text.split_once('=').map_or((text, None), |(zone, codes)| (zone, Some(codes)));
        let zone: Domain = zone.parse().map_err(|_| NotAList)?;
        let codes: Vec<_> =
            codes.map_or_else(|| Ok(Vec::new()), |codes| codes.split(',').map(range).collect())?;
        let list = Self { zone, codes };
        // A code that means nothing would only mislead.
        let means = |(first, last): &(Ipv4Addr, Ipv4Addr)| {
            [first, last].iter().all(|code| list.says(**code) == Word::Listed)
        };
        let fits = list.zone.as_str().len() + REVERSED_MAX <= DOMAIN_MAX && list.codes.len() <= CODES_MAX;
        let is_good = fits && list.codes.iter().all(means);
        is_good.then_some(list).ok_or(NotAList)
    }
}

/// `127.0.0.4-7` or `127.0.0.2`.
fn range(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), NotAList> {
    let (first, last) = text.split_once('-').map_or((text, None), |(first, last)| (first, Some(last)));
    let first: Ipv4Addr = first.parse().map_err(|_| NotAList)?;
    let [a, b, c, d] = first.octets();
    let last = last.map_or(Ok(d), str::parse).map_err(|_| NotAList)?;
    if last < d { Err(NotAList) } else { Ok((first, Ipv4Addr::new(a, b, c, last))) }
}

impl fmt::Display for DnsList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.zone)?;
        for (nth, (first, last)) in self.codes.iter().enumerate() {
            write!(f, "{}{first}", if nth == 0 { "=" } else { "," })?;
            if first != last {
                write!(f, "-{}", last.octets()[3])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_its_codes_mean_and_complaints_are_no_listing() {
        let some: DnsList = "list.example=127.0.0.2,127.0.0.4-7".parse().expect("a list");
        let all: DnsList = "list.example".parse().expect("a list");
        let (listed, other, error) = (Word::Listed, Word::Other, Word::Error);
        for (code, of_some, of_all) in [
            ("127.0.0.2", listed, listed),
            ("127.0.0.3", other, listed),
            ("127.0.0.4", listed, listed),
            ("127.0.0.7", listed, listed),
            ("127.0.0.8", other, listed),
            ("127.255.254.255", other, listed),
            ("127.255.255.254", error, error),
            ("127.255.255.0", error, error),
            // A name that is gone, and whose new owner answers everything.
            ("203.0.113.9", error, error),
        ] {
            let code = code.parse().expect("an address");
            assert_eq!((some.says(code), all.says(code)), (of_some, of_all), "{code}");
        }
        assert_eq!(some.to_string(), "list.example=127.0.0.2,127.0.0.4-7");
        assert_eq!(some.to_string().parse::<DnsList>().expect("a list"), some);
    }

    #[test]
    fn what_means_nothing_is_no_list() {
        let many = format!("list.example={}", ["127.0.0.2"; CODES_MAX + 1].join(","));
        let long = format!("{}.example", ["a23456789"; 19].join("."));
        for text in [
            "",
            "list example",
            "list.example=",
            "list.example=127.0.0.2,",
            "list.example=127.0.0.7-4",
            "list.example=127.0.0.4-300",
            "list.example=10.0.0.1",
            "list.example=127.255.255.254",
            "list.example=127.0.0.2=3",
            &many,
            &long,
        ] {
            assert!(text.parse::<DnsList>().is_err(), "{text}");
        }
    }
}
