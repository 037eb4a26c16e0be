//! What a domain publishes (RFC 8461 §3): the record that says there is a policy, and the policy. Pure.

use rkyv::{Archive, Deserialize, Serialize};

/// Patterns of one policy, at most.
const MX_MAX: usize = 32;
/// The longest life of a policy, in seconds: a year (RFC 8461 §3.2).
const MAX_AGE: u64 = 31_557_600;
/// Characters of an id.
const ID_MAX: usize = 32;
/// What the record and the policy begin with.
const VERSION: &str = "STSv1";

/// What is done about hosts that do not fit a policy.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They get nothing.
    Enforce,
    /// Nothing: its domain only tries it out.
    Testing,
    /// Nothing: its domain has no policy any more.
    None,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What is done about hosts that do not fit.
    pub mode: Mode,
    /// The names that hosts may have, in small letters; `*.` before a name is any one label.
    pub mx: Vec<String>,
    /// How long it holds, in seconds.
    pub max_age: u64,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPolicy {
    /// It has another version, or none.
    #[error("it is not of version {VERSION}")]
    Version,
    /// A field is missing, or has no value that can be meant.
    #[error("its `{0}` is missing or cannot be meant")]
    Field(&'static str),
    /// It has too many patterns.
    #[error("it names more than {MX_MAX} hosts")]
    TooMany,
}

/// The id in the TXT records of `_mta-sts`, each a text; `None` if there is no policy, or no telling which.
pub fn id(records: &[String]) -> Option<String> {
    let is_ours = |record: &&String| {
        let rest = record.strip_prefix("v=").and_then(|rest| rest.strip_prefix(VERSION));
        rest.is_some_and(|rest| rest.trim_start().starts_with(';'))
    };
    let mut records = records.iter().filter(is_ours);
    let (Some(record), None) = (records.next(), records.next()) else { return None };
    let id = record.split(';').find_map(|field| field.trim().strip_prefix("id="))?.trim();
    let fits = (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| id.to_owned())
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`NotAPolicy`] says what is wrong with the text. What it says besides is not looked at.
    pub fn read(text: &str) -> Result<Self, NotAPolicy> {
        let fields: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        // Of a field that is there twice, the first counts.
        let first = |wanted: &str| fields.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        if first("version") != Some(VERSION) {
            return Err(NotAPolicy::Version);
        }
        let mode = match first("mode") {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(NotAPolicy::Field("mode")),
        };
        let is_number = |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let max_age = first("max_age").filter(is_number).ok_or(NotAPolicy::Field("max_age"))?;
        // More than can be counted is more than a year.
        let max_age = max_age.parse().unwrap_or(u64::MAX).min(MAX_AGE);
        let mx: Vec<String> = fields
            .iter()
            .filter(|(key, _)| *key == "mx")
            .map(|(_, value)| value.trim_end_matches('.').to_ascii_lowercase())
            .collect();
        if mx.len() > MX_MAX {
            return Err(NotAPolicy::TooMany);
        }
        let is_pattern = |pattern: &String| {
            let name = pattern.strip_prefix("*.").unwrap_or(pattern);
            name.parse::<shared::address::Domain>().is_ok()
        };
        if !mx.iter().all(is_pattern) || (mx.is_empty() && mode != Mode::None) {
            return Err(NotAPolicy::Field("mx"));
        }
        Ok(Self { mode, mx, max_age })
    }
}

/// Whether a host's name is one that patterns allow (RFC 8461 §4.1).
pub fn allows(mx: &[String], host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
        None => *pattern == host,
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_the_policys_id_if_it_is_the_only_one() {
        let id = |records: &[&str]| id(&records.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let one = "v=STSv1; id=20261126T1200;";
        assert_eq!(id(&[one]).as_deref(), Some("20261126T1200"));
        assert_eq!(id(&["v=spf1 -all", one]).as_deref(), Some("20261126T1200"));
        assert_eq!(id(&["v=STSv1;id=1"]).as_deref(), Some("1"));
        assert_eq!(id(&["v=STSv1 ; more=1; id=a1"]).as_deref(), Some("a1"));
        let long = format!("v=STSv1; id={}", "1".repeat(33));
        for none in [&[one, one][..], &[], &["v=STSv1"], &["v=STSv2; id=1"], &["v=STSv1; id="], &[&long]] {
            assert_eq!(id(none), None, "{none:?}");
        }
        assert_eq!(id(&["v=STSv1; id=a-b"]), None);
    }

    #[test]
    fn a_policy_is_read_and_what_cannot_be_meant_is_none() {
        let text = "version: STSv1\r\nmode: enforce\r\nmx: MX.remote.example\r\nmx: *.backup.example\r\nmore: x\r\n\
                    max_age: 604800\r\n";
        let policy = Policy::read(text).expect("a policy");
        assert_eq!(policy.mx, ["mx.remote.example", "*.backup.example"]);
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 604_800));
        let none =
            Policy::read("version:STSv1\nmode:none\nmax_age:99999999999999999999999").expect("a policy");
        assert_eq!((none.mode, none.max_age), (Mode::None, MAX_AGE));
        let twice = Policy::read(&format!("{text}mode: none\r\nmax_age: 1\r\n")).expect("a policy");
        assert_eq!(twice, policy, "the first counts");
        let many = "mx: a.example\n".repeat(33);
        for (text, why) in [
            ("", NotAPolicy::Version),
            ("<html>version: STSv1</html>", NotAPolicy::Version),
            ("version: STSv1\nmax_age: 1\nmx: a.example", NotAPolicy::Field("mode")),
            ("version: STSv1\nmode: enforced\nmax_age: 1\nmx: a.example", NotAPolicy::Field("mode")),
            ("version: STSv1\nmode: enforce\nmx: a.example", NotAPolicy::Field("max_age")),
            ("version: STSv1\nmode: enforce\nmax_age: -1\nmx: a.example", NotAPolicy::Field("max_age")),
            ("version: STSv1\nmode: enforce\nmax_age: 1", NotAPolicy::Field("mx")),
            ("version: STSv1\nmode: testing\nmax_age: 1\nmx: a.*.example", NotAPolicy::Field("mx")),
            (&format!("version: STSv1\nmode: enforce\nmax_age: 1\n{many}"), NotAPolicy::TooMany),
        ] {
            assert_eq!(Policy::read(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let mx = ["mx.remote.example".to_owned(), "*.backup.example".to_owned()];
        for good in ["mx.remote.example", "MX.Remote.Example.", "a.backup.example"] {
            assert!(allows(&mx, good), "{good}");
        }
        for bad in [
            "remote.example",
            "a.mx.remote.example",
            "backup.example",
            "a.b.backup.example",
            ".backup.example",
        ] {
            assert!(!allows(&mx, bad), "{bad}");
        }
    }
}
