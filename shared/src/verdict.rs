//! What email authentication found of a message, as its origin holds it: one text for each method, `method=result` and
//! what it is about, as RFC 8601 writes it (`spf=pass smtp.mailfrom=remote.example`). The edge writes them, and both
//! nodes read from them what becomes of the message and whom a person may believe.

use std::fmt;

/// What the site does with a message for which its author's domain does not speak, although that domain wants such
/// mail refused or set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing: the verdict is recorded.
    #[default]
    Deliver,
    /// It is filed as ever, with a mark in lists.
    Mark,
    /// It is filed in Junk, and does not go on the road.
    Quarantine,
}

/// The property of a DMARC verdict that tells what was done.
const APPLIED: &str = "policy.applied";
/// The property of a DMARC verdict that names the sealer whose word was taken.
const SEALER: &str = "policy.arc";

impl Disposition {
    const TOLD: [(Self, &'static str); 2] = [(Self::Mark, "mark"), (Self::Quarantine, "quarantine")];

    /// What was done with the message that has these verdicts.
    pub fn of(verdicts: &[String]) -> Self {
        let applied = of_method(verdicts, "dmarc").and_then(|verdict| verdict.property(APPLIED));
        let told = Self::TOLD.iter().find(|(_, word)| applied == Some(*word));
        told.map(|(disposition, _)| *disposition).unwrap_or_default()
    }

    /// A DMARC verdict with what is done about it.
    pub fn applied(self, dmarc: &str) -> String {
        match Self::TOLD.iter().find(|(disposition, _)| *disposition == self) {
            Some((_, word)) => format!("{dmarc} {APPLIED}={word}"),
            None => dmarc.to_owned(),
        }
    }
}

/// A DMARC verdict that does not count, because `sealer` had found that the message was its author's (ARC, RFC 8617).
pub fn overridden(dmarc: &str, sealer: impl fmt::Display) -> String {
    format!("{dmarc} {SEALER}={sealer}")
}

/// Only methods and results: no names that strangers chose.
pub fn in_short(verdicts: &[String]) -> String {
    let words = verdicts.iter().filter_map(|verdict| verdict.split(' ').next());
    words.collect::<Vec<_>>().join(", ")
}

/// Who vouches for a message's author, for a person; `None` if it was not asked.
pub fn summary(verdicts: &[String]) -> Option<String> {
    let dmarc = of_method(verdicts, "dmarc")?;
    let author = dmarc.property("header.from").unwrap_or_default();
    let wants = dmarc.property("policy.dmarc");
    Some(match (dmarc.result, dmarc.property(SEALER), wants) {
        ("pass", ..) => format!("{author} vouches for its author (DMARC)"),
        ("fail", Some(sealer), _) => format!("{sealer} vouches that it was {author}'s (ARC)"),
        ("fail", None, Some("reject")) => {
            format!("NOBODY vouches for its author; {author} wants such mail refused")
        }
        ("fail", None, Some("quarantine")) => {
            format!("NOBODY vouches for its author; {author} wants such mail set aside")
        }
        ("temperror", ..) => "not known: DNS gave no answer when it came".to_owned(),
        _ => match speaks_for(verdicts, author) {
            Some((domain, method)) => format!("{domain} vouches for its author ({method})"),
            None => "nobody vouches for its author".to_owned(),
        },
    })
}

/// Whether SPF has found that the host which brought a message may use reverse-paths in `domain`.
pub fn may_send(verdicts: &[String], domain: &str) -> bool {
    passed(verdicts, "spf", "smtp.mailfrom").any(|passed| passed == domain)
}

/// Whether a message bears a signature of `domain`, or of one above it, that has been verified (DKIM). It says nothing
/// of the envelope, with which anybody may send the message once more.
pub fn is_signed_by(verdicts: &[String], domain: &str) -> bool {
    passed(verdicts, "dkim", "header.d").any(|passed| is_or_is_above(passed, domain))
}

/// The domains for which a method's checks have passed.
fn passed<'a>(verdicts: &'a [String], method: &'a str, property: &'a str) -> impl Iterator<Item = &'a str> {
    let verdicts = verdicts.iter().filter_map(|text| Verdict::read(text));
    let passed = verdicts.filter(move |verdict| verdict.method == method && verdict.result == "pass");
    passed.filter_map(move |verdict| verdict.property(property).filter(|domain| !domain.is_empty()))
}

fn is_or_is_above(domain: &str, other: &str) -> bool {
    other.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A domain that is the author's, or above it, and has passed a check of its own.
fn speaks_for<'a>(verdicts: &'a [String], author: &str) -> Option<(&'a str, &'static str)> {
    let checks = [("dkim", "header.d", "DKIM"), ("spf", "smtp.mailfrom", "SPF")];
    verdicts.iter().filter_map(|text| Verdict::read(text)).find_map(|verdict| {
        let (_, property, name) = checks.iter().find(|(method, ..)| *method == verdict.method)?;
        let domain = verdict.property(property).filter(|domain| !domain.is_empty())?;
        let speaks = verdict.result == "pass" && is_or_is_above(domain, author);
        speaks.then_some((domain, *name))
    })
}

/// One verdict, read. Whatever else is in it is passed over: an edge wrote it.
struct Verdict<'a> {
    method: &'a str,
    result: &'a str,
    properties: &'a str,
}

impl<'a> Verdict<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (word, properties) = text.split_once(' ').unwrap_or((text, ""));
        let (method, result) = word.split_once('=')?;
        Some(Self { method, result, properties })
    }

    fn property(&self, name: &str) -> Option<&'a str> {
        self.properties.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

fn of_method<'a>(verdicts: &'a [String], method: &str) -> Option<Verdict<'a>> {
    verdicts.iter().filter_map(|text| Verdict::read(text)).find(|verdict| verdict.method == method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(verdicts: &[&str]) -> Option<String> {
        summary(&verdicts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn one_line_says_who_vouches() {
        let fail = "dmarc=fail header.from=bank.example policy.dmarc=reject";
        for (verdicts, line) in [
            (
                &["dmarc=pass header.from=a.example policy.dmarc=none"][..],
                "a.example vouches for its author (DMARC)",
            ),
            (&[fail], "NOBODY vouches for its author; bank.example wants such mail refused"),
            (&[&overridden(fail, "list.example")], "list.example vouches that it was bank.example's (ARC)"),
            (
                &["dkim=pass header.d=example", "dmarc=none header.from=a.example"],
                "example vouches for its author (DKIM)",
            ),
            (
                &["spf=pass smtp.mailfrom=a.example", "dmarc=none header.from=a.example"],
                "a.example vouches for its author (SPF)",
            ),
            (
                &[
                    "spf=pass smtp.mailfrom=other.example",
                    "dkim=fail header.d=a.example",
                    "dmarc=none header.from=a.example",
                ],
                "nobody vouches for its author",
            ),
            (
                &["dkim=pass header.d=xample", "dmarc=none header.from=a.example"],
                "nobody vouches for its author",
            ),
            (&["dmarc=temperror header.from=a.example"], "not known: DNS gave no answer when it came"),
            (&["dmarc"], "nothing"),
        ] {
            assert_eq!(told(verdicts).as_deref().unwrap_or("nothing"), line, "{verdicts:?}");
        }
        assert_eq!(told(&[]), None, "what nobody has checked is not talked of");
    }

    #[test]
    fn spf_is_of_the_very_domain_and_a_signature_may_be_of_one_above() {
        let spf = |text: &str| may_send(&[text.to_owned()], "mail.a.example");
        assert!(spf("spf=pass smtp.mailfrom=mail.a.example"));
        for other in [
            "spf=pass smtp.mailfrom=a.example",
            "spf=pass smtp.helo=mail.a.example",
            "spf=fail smtp.mailfrom=mail.a.example",
            "dkim=pass header.d=mail.a.example",
        ] {
            assert!(!spf(other), "{other}");
        }
        let signed = |text: &str| is_signed_by(&[text.to_owned()], "mail.a.example");
        assert!(signed("dkim=pass header.d=mail.a.example") && signed("dkim=pass header.d=a.example"));
        for other in
            ["dkim=pass header.d=il.a.example", "dkim=fail header.d=a.example", "dkim=pass header.d="]
        {
            assert!(!signed(other), "{other}");
        }
    }

    #[test]
    fn what_was_done_is_read_as_it_was_told() {
        let fail = "dmarc=fail header.from=a.example policy.dmarc=reject";
        for disposition in [Disposition::Deliver, Disposition::Mark, Disposition::Quarantine] {
            let verdicts = ["spf=fail policy.applied=quarantine".to_owned(), disposition.applied(fail)];
            assert_eq!(Disposition::of(&verdicts), disposition);
        }
        for strange in ["dmarc=fail policy.applied=discard", "dmarc=fail xpolicy.applied=mark", "", "dmarc"] {
            assert_eq!(Disposition::of(&[strange.to_owned()]), Disposition::Deliver, "{strange:?}");
        }
        let both = ["spf=pass smtp.mailfrom=a.example".to_owned(), fail.to_owned()];
        assert_eq!(in_short(&both), "spf=pass, dmarc=fail");
    }
}
