//! The count at the end: every mailbox inside and everything outside, held against the books.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use big_node::request::{Line, Reading, Request};
use shared::control::CallError;
use tests::ask;
use tests::ledger::{Audit, Place};
use tests::site::Site;
use tokio::task::JoinSet;

use crate::field::{BOB, Field, PEOPLE, inside};
use crate::road::Road;

/// Messages of one folder; big lists no more.
const LISTED_MAX: usize = 10_000;
/// Messages read at once.
const READERS: usize = 8;
/// Faults that are printed.
const PRINTED_MAX: usize = 10;

/// All that the count found.
pub struct Tally {
    mail: Audit,
    road: Audit,
    collected: usize,
    /// Everything else that should not be.
    faults: Vec<String>,
}

/// What a storm comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted, by message and recipient.
    pub accepted: usize,
    /// Accepted, and nowhere.
    pub lost: usize,
    /// There more often than taken.
    pub doubled: usize,
    /// There without having been sent there.
    pub ghost: usize,
    /// There, and not what was sent.
    pub altered: usize,
    /// Of unknown fate to the sender; no fault.
    pub undetermined: usize,
    /// Second copies outside that a kill explains; no fault.
    pub repeated: usize,
    /// Everything else that should not be: good mail refused, a link that starved.
    pub faults: usize,
}

impl Counts {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.ghost + self.altered + self.faults == 0
    }

    /// Adds another storm's.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.ghost += other.ghost;
        self.altered += other.altered;
        self.undetermined += other.undetermined;
        self.repeated += other.repeated;
        self.faults += other.faults;
    }

    /// Reads what a record's line says, in the order of the fields.
    pub fn read(line: &str) -> Option<Self> {
        let number = |part: &str, word: &str| part.strip_prefix(word)?.trim().parse().ok();
        let (accepted, rest) = line.split_once(" accepted, ")?;
        let [lost, doubled, ghost, altered, undetermined, repeated, faults] =
            rest.split(", ").collect::<Vec<_>>().try_into().ok()?;
        Some(Self {
            accepted: accepted.parse().ok()?,
            lost: number(lost, "lost")?,
            doubled: number(doubled, "doubled")?,
            ghost: number(ghost, "ghost")?,
            altered: number(altered, "altered")?,
            undetermined: number(undetermined, "undetermined")?,
            repeated: number(repeated, "repeated")?,
            faults: number(faults, "faults")?,
        })
    }
}

/// As the last line of a run has them: what is no difference, and no doubt, is left out.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, lost, doubled, ghost, altered, undetermined, .. } = self;
        write!(f, "{accepted} accepted, lost {lost}, doubled {doubled}, ghost {ghost}, ")?;
        write!(f, "altered {altered}, undetermined {undetermined}")
    }
}

/// Reads everything and compares.
pub async fn count(site: &Site, field: &Arc<Field>, road: &Road) -> Result<Tally, CallError> {
    let mut faults = field.faults().clone();
    let mut bobs = Vec::new();
    for person in PEOPLE {
        let messages = folder(&field.big, person, &mut faults).await?;
        for message in &messages {
            field.books.found(Place::Inside, &inside(person), message, SystemTime::now());
        }
        if person == BOB {
            bobs = messages;
        }
    }
    for mail in site.mta.mail() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(mail.at);
        for recipient in &mail.recipients {
            field.books.found(Place::Outside, recipient, &mail.data, at);
        }
    }
    let (mail, road_audit) = (field.books.audit(), road.audit(&bobs));
    if mail.accepted == 0 {
        faults.push("nothing was accepted at all".into());
    }
    Ok(Tally { mail, road: road_audit, collected: road.collected(), faults })
}

/// Every message in someone's In folder, as it is stored.
async fn folder(big: &Path, person: &str, faults: &mut Vec<String>) -> Result<Vec<Vec<u8>>, CallError> {
    let person = person.to_owned();
    let (whose, folder) = (person.clone(), "in".to_owned());
    let request = Request::MailList { person: whose, folder, max: LISTED_MAX, before: None };
    let (lines, _): (Vec<Line>, _) = ask::big(big, request, Vec::new()).await?;
    if lines.len() >= LISTED_MAX {
        faults.push(format!("{person} has more than {LISTED_MAX} messages, and they cannot all be listed"));
    }
    let mut ids = lines.into_iter().filter(|line| line.part == 0).map(|line| line.id);
    let mut readers = JoinSet::new();
    let mut messages = Vec::new();
    loop {
        while readers.len() < READERS
            && let Some(message) = ids.next()
        {
            let (big, person) = (big.to_owned(), person.clone());
            let request = Request::MailRead { person, message, raw: true };
            readers.spawn(async move { ask::big::<Reading>(&big, request, Vec::new()).await });
        }
        match readers.join_next().await {
            None => return Ok(messages),
            Some(Ok(read)) => messages.push(read?.1),
            Some(Err(died)) => std::panic::resume_unwind(died.into_panic()),
        }
    }
}

impl Tally {
    /// The counts of the mailboxes, the road and outside together.
    pub fn counts(&self) -> Counts {
        let sum = |count: fn(&Audit) -> usize| count(&self.mail) + count(&self.road);
        Counts {
            accepted: self.mail.accepted,
            lost: sum(|audit| audit.lost.len()),
            doubled: sum(|audit| audit.doubled.len()),
            ghost: sum(|audit| audit.ghost.len()),
            altered: sum(|audit| audit.altered.len()),
            undetermined: self.mail.undetermined.len(),
            repeated: self.mail.repeated.len(),
            faults: self.faults.len(),
        }
    }
}

/// Names every offender; each line is ended.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mailboxes and outside: {}", self.mail)?;
        writeln!(f, "repeated outside, explained by a kill of edge: {}", self.mail.repeated.len())?;
        writeln!(f, "delivery reports: {}", self.mail.reports)?;
        writeln!(f, "the road, {} collected: {}", self.collected, self.road)?;
        for fault in self.faults.iter().take(PRINTED_MAX) {
            writeln!(f, "fault: {fault}")?;
        }
        match self.faults.len().saturating_sub(PRINTED_MAX) {
            0 => Ok(()),
            more => writeln!(f, "fault: and {more} more"),
        }
    }
}
