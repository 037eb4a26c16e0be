//! What may stand in a report. The edge counts nothing else, and big signs nothing else: a stranger chooses names and texts,
//! and an edge that is taken over all of it. Pure.

use std::net::IpAddr;

use super::{Counts, DmarcFound, DmarcPolicy, PolicyCounts, SignatureFound, TlsFailure, TlsPolicy};
use crate::address::{DOMAIN_MAX, Domain};

/// Octets of a text in what is counted.
pub const TEXT_BYTES_MAX: usize = 256;
/// Records, or patterns, of a policy that a report shows.
pub const SHOWN_MAX: usize = 16;
/// Lines of a policy: its patterns, and what else it says (RFC 8461 §3.2).
const LINES_MAX: usize = SHOWN_MAX + 3;
/// Policies of one domain in one day.
pub const POLICIES_MAX: usize = 16;
/// Ways to fail under one policy.
pub const DETAILS_MAX: usize = 64;
/// Signatures of a message that are verified, and seals of its ARC chain.
pub const SIGNATURES_MAX: usize = 10;
/// Octets of a word for a result (RFC 8601 §2.7).
const WORD_BYTES_MAX: usize = 16;

/// A text for a count, of [`TEXT_BYTES_MAX`] octets at most: strangers choose it. What is not printable ASCII is a question
/// mark.
pub fn cut(text: &str) -> String {
    text.chars().take(TEXT_BYTES_MAX).map(|c| if is_printable(c) { c } else { '?' }).collect()
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

fn is_text(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && text.chars().all(is_printable)
}

fn is_name(text: &str) -> bool {
    text.is_ascii() && text.parse::<Domain>().is_ok()
}

fn is_pattern(text: &str) -> bool {
    is_name(text.strip_prefix("*.").unwrap_or(text))
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_word(text: &str) -> bool {
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

impl TlsPolicy {
    /// Whether it is as it may stand in a report.
    pub fn is_sound(&self) -> bool {
        is_name(&self.domain)
            && self.text.len() <= LINES_MAX
            && self.text.iter().all(|line| is_text(line))
            && self.hosts.len() <= SHOWN_MAX
            && self.hosts.iter().all(|host| is_pattern(host))
    }
}

impl TlsFailure {
    /// Whether it is as it may stand in a report.
    pub fn is_sound(&self) -> bool {
        let addresses = [&self.sending_ip, &self.receiving_ip];
        addresses.into_iter().flatten().all(|address| is_address(address))
            && self.host.as_deref().is_none_or(is_name)
            && self.reason.as_deref().is_none_or(is_text)
    }
}

impl PolicyCounts {
    fn is_sound(&self) -> bool {
        self.policy.is_sound()
            && self.details.len() <= DETAILS_MAX
            && self.details.iter().all(|detail| detail.failure.is_sound())
    }
}

impl DmarcPolicy {
    /// Whether it is as it may stand in a report.
    pub fn is_sound(&self) -> bool {
        is_name(&self.domain)
    }
}

impl SignatureFound {
    /// Whether it is as it may stand in a report: a key could be there (RFC 6376 §3.1).
    pub fn is_sound(&self) -> bool {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        is_name(&self.domain)
            && (1..=DOMAIN_MAX).contains(&self.selector.len())
            && self.selector.bytes().all(is_part)
            && is_word(&self.result)
    }
}

impl DmarcFound {
    /// Whether it is as it may stand in a report.
    pub fn is_sound(&self) -> bool {
        is_address(&self.source)
            && is_name(&self.header_from)
            && (self.envelope_from.is_empty() || is_name(&self.envelope_from))
            && self.signatures.len() <= SIGNATURES_MAX
            && self.signatures.iter().all(SignatureFound::is_sound)
            && is_text(&self.spf_domain)
            && is_word(&self.spf_result)
    }
}

impl Counts {
    /// Whether all of it may stand in a report.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Tls(policies) => {
                policies.len() <= POLICIES_MAX && policies.iter().all(PolicyCounts::is_sound)
            }
            Self::Dmarc(counts) => {
                counts.policy.is_sound() && counts.records.iter().all(|record| record.found.is_sound())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Handling, PolicyKind, ResultType, SignatureFound};

    #[test]
    fn a_text_is_cut_to_what_may_stand_in_a_report() {
        for (text, expected) in [("it is for \"a\"", "it is for \"a\""), ("a\r\nb\0é\u{202e}", "a??b???")] {
            assert_eq!(cut(text), expected);
        }
        assert!(is_text(&cut(&"é".repeat(1_000))));
        assert_eq!(cut(&"x".repeat(1_000)).len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn names_addresses_and_texts_are_what_they_say() {
        let policy = |domain: &str, text: &str, host: &str| TlsPolicy {
            kind: PolicyKind::Sts,
            domain: domain.into(),
            text: vec![text.into()],
            hosts: vec![host.into()],
        };
        assert!(policy("a.example", "mx: *.a.example", "*.a.example").is_sound());
        for bad in [
            policy("buy at a.example", "x", "a.example"),
            policy("é.example", "x", "a.example"),
            policy("a.example", &"x".repeat(257), "a.example"),
            policy("a.example", "x\ny", "a.example"),
            policy("a.example", "x", "*.*.example"),
            TlsPolicy { text: vec![String::new(); 20], ..policy("a.example", "", "a.example") },
            TlsPolicy { hosts: vec!["a.example".into(); 17], ..policy("a.example", "", "a.example") },
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
        let good = TlsFailure {
            sending_ip: Some("192.0.2.1".into()),
            receiving_ip: Some("2001:db8::1".into()),
            ..TlsFailure::unconnected(ResultType::ValidationFailure, Some("mx.a.example"), "why")
        };
        assert!(good.is_sound());
        for bad in [
            TlsFailure { sending_ip: Some("here".into()), ..good.clone() },
            TlsFailure { receiving_ip: Some("192.0.2.1 or so".into()), ..good.clone() },
            TlsFailure { host: Some("visit us".into()), ..good.clone() },
            TlsFailure { reason: Some("é".into()), ..good },
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_found_of_mail_has_no_words_of_anybodys() {
        let signature = |domain: &str, selector: &str, result: &str| SignatureFound {
            domain: domain.into(),
            selector: selector.into(),
            result: result.into(),
        };
        let good = DmarcFound {
            source: "192.0.2.1".into(),
            disposition: Handling::None,
            dkim: true,
            spf: false,
            overridden: None,
            header_from: "a.example".into(),
            envelope_from: String::new(),
            signatures: vec![signature("a.example", "20260101", "pass"); 10],
            spf_domain: "[192.0.2.1]".into(),
            spf_of_helo: true,
            spf_result: "softfail".into(),
        };
        assert!(good.is_sound());
        for bad in [
            DmarcFound { source: "me".into(), ..good.clone() },
            DmarcFound { header_from: "-a.example".into(), ..good.clone() },
            DmarcFound { envelope_from: "b@a.example".into(), ..good.clone() },
            DmarcFound { signatures: vec![signature("</dkim>", "a", "pass")], ..good.clone() },
            DmarcFound { signatures: vec![signature("a.example", "a b", "pass")], ..good.clone() },
            DmarcFound { signatures: vec![signature("a.example", "a", "see our shop")], ..good.clone() },
            DmarcFound { signatures: vec![signature("a.example", "a", "pass"); 11], ..good.clone() },
            DmarcFound { spf_domain: "x".repeat(257), ..good.clone() },
            DmarcFound { spf_result: String::new(), ..good },
        ] {
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }
}
