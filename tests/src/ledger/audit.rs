//! The audit: what was sent against what was found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use super::{Books, Entry, Found, Kill, Marked, Place, REPEAT_WINDOW, Token};

/// Findings of one kind that are printed; the rest are only counted.
const PRINTED_MAX: usize = 20;

/// One thing the audit found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The message, if it has a mark.
    pub token: Option<Token>,
    /// Whose mailbox or address.
    pub recipient: String,
    /// What is the matter, for a person.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.token {
            Some(token) => write!(f, "{token} for {}: {}", self.recipient, self.what),
            None => write!(f, "for {}: {}", self.recipient, self.what),
        }
    }
}

/// What came of a run. Everything is counted by message and recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Accepted.
    pub accepted: usize,
    /// Accepted, and nowhere.
    pub lost: Vec<Finding>,
    /// There more often than taken.
    pub doubled: Vec<Finding>,
    /// There without having been sent there.
    pub ghost: Vec<Finding>,
    /// There, and not what was sent.
    pub altered: Vec<Finding>,
    /// Of unknown fate to the sender; not a fault.
    pub undetermined: Vec<Finding>,
    /// A second copy at another MTA that a kill explains; not a fault.
    pub repeated: Vec<Finding>,
    /// Delivery reports among what was found.
    pub reports: usize,
}

impl Audit {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        [&self.lost, &self.doubled, &self.ghost, &self.altered].iter().all(|faults| faults.is_empty())
    }

    /// The counts in one line: `M accepted, lost 0, doubled 0, ghost 0, altered 0, undetermined U`.
    pub fn summary(&self) -> String {
        format!(
            "{} accepted, lost {}, doubled {}, ghost {}, altered {}, undetermined {}",
            self.accepted,
            self.lost.len(),
            self.doubled.len(),
            self.ghost.len(),
            self.altered.len(),
            self.undetermined.len()
        )
    }
}

/// Names every offender, and then the summary; nothing ends the last line.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("ghost", &self.ghost),
            ("altered", &self.altered),
            ("repeated outside (explained by a kill)", &self.repeated),
        ];
        for (kind, findings) in kinds {
            for finding in findings.iter().take(PRINTED_MAX) {
                writeln!(f, "{kind}: {finding}")?;
            }
            if let Some(more) = findings.len().checked_sub(PRINTED_MAX).filter(|&more| more > 0) {
                writeln!(f, "{kind}: and {more} more")?;
            }
        }
        f.write_str(&self.summary())
    }
}

/// The copies of one message for one recipient, and the digest of each.
type Copies<'a> = BTreeMap<(Token, &'a str), Vec<(&'a Found, &'a str)>>;

pub(super) fn audit(books: &Books) -> Audit {
    let mut audit = Audit::default();
    let mut copies = Copies::new();
    for copy in &books.copies {
        match &copy.what {
            Marked::Token(token, digest) => {
                copies.entry((*token, &copy.recipient)).or_default().push((copy, digest));
            }
            Marked::Report => audit.reports += 1,
            Marked::Stranger(title) => audit.ghost.push(Finding {
                token: None,
                recipient: copy.recipient.clone(),
                what: format!("nobody sent it: {title:?}"),
            }),
        }
    }
    for (token, entry) in &books.entries {
        for recipient in &entry.recipients {
            let found = copies.remove(&(*token, recipient.as_str())).unwrap_or_default();
            audit.compare(*token, entry, recipient, found, &books.kills);
        }
    }
    for ((token, recipient), found) in copies {
        let known = books.entries.contains_key(&token);
        let what = if known { "it was not sent to that recipient" } else { "nobody sent it" };
        audit.ghost.extend(found.iter().map(|_| finding(token, recipient, what.to_owned())));
    }
    audit
}

impl Audit {
    fn compare(
        &mut self,
        token: Token,
        entry: &Entry,
        recipient: &str,
        mut found: Vec<(&Found, &str)>,
        kills: &[Kill],
    ) {
        self.accepted += usize::from(entry.accepted > 0);
        if entry.is_undetermined() {
            self.undetermined.push(finding(token, recipient, format!("found {} times", found.len())));
        }
        if entry.accepted > 0 && found.is_empty() {
            self.lost.push(finding(token, recipient, "accepted and not found".into()));
        }
        let altered = found.iter().filter(|(_, digest)| **digest != entry.digest);
        self.altered.extend(altered.map(|(copy, digest)| {
            let what = format!("BLAKE3 {}, sent {} ({:?})", short(digest), short(&entry.digest), copy.place);
            finding(token, recipient, what)
        }));
        if entry.most() == 0 {
            let ghosts = found.iter().map(|_| finding(token, recipient, "its sender was refused".into()));
            self.ghost.extend(ghosts);
            return;
        }
        found.sort_by_key(|(copy, _)| copy.at);
        for pair in found.windows(2).skip(entry.most() - 1) {
            let [(first, _), (second, _)] = pair else { continue };
            match explained(first, second, kills) {
                Some(what) => self.repeated.push(finding(token, recipient, what)),
                None => self.doubled.push(finding(token, recipient, doubled(first, second))),
            }
        }
    }
}

/// The kill, if there is one, that fell between an outside MTA's 250 and our record of it.
fn explained(first: &Found, second: &Found, kills: &[Kill]) -> Option<String> {
    let outside = first.place == Place::Outside && second.place == Place::Outside;
    let after_first = |at: SystemTime| at.duration_since(first.at).ok();
    let kill = kills.iter().filter(|kill| outside && kill.at <= second.at).find_map(|kill| {
        let after = after_first(kill.at).filter(|after| *after <= REPEAT_WINDOW)?;
        Some((kill, after))
    });
    kill.map(|(kill, after)| {
        format!("{} was killed {} ms after the first copy's 250", kill.node, after.as_millis())
    })
}

fn doubled(first: &Found, second: &Found) -> String {
    let apart = second.at.duration_since(first.at).unwrap_or_default();
    format!("another copy, {} ms after the one before ({:?})", apart.as_millis(), second.place)
}

fn finding(token: Token, recipient: &str, what: String) -> Finding {
    Finding { token: Some(token), recipient: recipient.to_owned(), what }
}

fn short(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}
