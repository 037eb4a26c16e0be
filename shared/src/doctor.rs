//! What `doctor` finds, on either node: a line for each check, what mends it, and the records for DNS.

use serde::{Deserialize, Serialize};

use crate::render::word;

/// Octets of one string of a TXT record (RFC 1035 §3.3.14).
const STRING_MAX: usize = 255;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Nobody can tell from here.
    Unchecked,
    /// Mail works without it, or nothing proves that it is wrong.
    Warning,
    /// Mail is lost, refused or late until it is mended.
    Wrong,
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub about: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; empty if nothing has to be done.
    pub mend: String,
    /// The records that DNS has to have for it, as a zone file has them.
    pub records: Vec<String>,
}

impl Finding {
    /// Something is as it should be.
    pub fn ok(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(State::Ok, about, found, "")
    }

    /// Something cannot be looked at from here; how else.
    pub fn unchecked(about: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(State::Unchecked, about, found, mend)
    }

    /// Something could be better.
    pub fn warning(about: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(State::Warning, about, found, mend)
    }

    /// Something is wrong.
    pub fn wrong(about: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(State::Wrong, about, found, mend)
    }

    /// The same with a record that mends it.
    pub fn record(mut self, record: impl Into<String>) -> Self {
        self.records.push(record.into());
        self
    }

    fn new(
        state: State,
        about: impl Into<String>,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { about: about.into(), state, found: found.into(), mend: mend.into(), records: Vec::new() }
    }
}

/// A TXT record as a zone file has it, its text cut into strings.
pub fn txt(name: &str, text: &str) -> String {
    let strings = text.as_bytes().chunks(STRING_MAX).map(String::from_utf8_lossy);
    let strings: Vec<_> = strings.map(|string| format!("\"{string}\"")).collect();
    match strings.as_slice() {
        [one] => format!("{name}. IN TXT {one}"),
        several => format!("{name}. IN TXT ( {} )", several.join(" ")),
    }
}

/// The findings as text, with all records at the end, each once.
pub fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { about, state, found, mend, .. } in findings {
        let mend = if mend.is_empty() { String::new() } else { format!("; {mend}") };
        out += &format!("{:<10}{about}: {found}{mend}\n", word(state));
    }
    let mut records: Vec<&String> = Vec::new();
    for record in findings.iter().flat_map(|finding| &finding.records) {
        if !records.contains(&record) {
            records.push(record);
        }
    }
    if !records.is_empty() {
        out += "\nrecords for DNS:\n\n";
        records.iter().for_each(|record| out += &format!("{record}\n"));
    }
    out
}

/// Refuses findings of which one is wrong.
pub fn outcome(findings: &[Finding]) -> Result<(), String> {
    match findings.iter().filter(|finding| finding.state == State::Wrong).count() {
        0 => Ok(()),
        wrong => Err(format!("{wrong} of {} are wrong", findings.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_and_each_record_is_there_once() {
        let record = txt("example.com", "v=spf1 mx -all");
        let findings = [
            Finding::ok("MX of example.com", "leads here"),
            Finding::wrong("SPF of example.com for 192.0.2.1", "there is none", "add it").record(&record),
            Finding::warning("SPF of example.com for 192.0.2.2", "there is none", "add it").record(&record),
            Finding::unchecked("firewall", "not seen from here", ""),
        ];
        assert_eq!(
            text(&findings),
            "ok        MX of example.com: leads here\n\
             wrong     SPF of example.com for 192.0.2.1: there is none; add it\n\
             warning   SPF of example.com for 192.0.2.2: there is none; add it\n\
             unchecked firewall: not seen from here\n\
             \nrecords for DNS:\n\nexample.com. IN TXT \"v=spf1 mx -all\"\n"
        );
        assert_eq!(outcome(&findings), Err("1 of 4 are wrong".into()));
        assert_eq!(outcome(&findings[2..]), Ok(()));
        let long = txt("k._domainkey.example.com", &"x".repeat(256));
        assert!(
            long.starts_with("k._domainkey.example.com. IN TXT ( \"xxx") && long.ends_with("x\" \"x\" )"),
            "{long}"
        );
    }
}
