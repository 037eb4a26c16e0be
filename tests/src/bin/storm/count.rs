//! The count at the end: every mailbox inside and everything outside, held against the books.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use big_node::harness;
use big_node::record::Folder;
use big_node::request::{Compared, Line, Reading, Request};
use edge_node::request::Request as EdgeRequest;
use shared::control::CallError;
use shared::state::{Prepared, State};
use shared::store::Store;
use shared::unit::Id;
use tests::ledger::{Audit, Place};
use tests::process::Node;
use tests::site::Site;
use tests::{ask, kinds};
use tokio::task::JoinSet;

use crate::Failure;
use crate::calls::Reached;
use crate::clerk::{self, At};
use crate::field::{BOB, Field, PEOPLE, inside};
use crate::play::SETTLE_WITHIN;
use crate::revisions::{self, Findings};
use crate::road::Road;

/// Messages of one folder; big lists no more.
const LISTED_MAX: usize = 10_000;
/// Messages read at once.
const READERS: usize = 8;
/// What a line calls the changes of the directory.
const CHANGES: &str = "directory changes";
/// What it calls mail for those who were gone.
const UNDELIVERABLE: &str = "undeliverable";
/// What it calls rounds that reached their system calls, and those that did not.
const HIT: &str = "hit";
const MISSED: &str = "missed";
/// Faults that are printed.
const PRINTED_MAX: usize = 10;

/// All that the count found.
pub struct Tally {
    mail: Audit,
    road: Audit,
    /// What became of what was revised.
    revised: Findings,
    collected: usize,
    /// Changes of the directory.
    changes: usize,
    /// Found in the postmaster's undeliverable mail.
    undeliverable: usize,
    /// Kinds of units that the nodes have told each other.
    told: usize,
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
    /// Second copies outside, or texts that were revised since, that a kill explains; no fault.
    pub repeated: usize,
    /// Everything else that should not be: good mail refused, a link that starved.
    pub faults: usize,
    /// Changes of the directory that were made.
    pub changes: usize,
    /// Accepted for somebody who was gone when it was filed, and the postmaster's.
    pub undeliverable: usize,
    /// Rounds that reached their system calls, and those that did not.
    pub reached: Reached,
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
        self.changes += other.changes;
        self.undeliverable += other.undeliverable;
        self.reached.hit += other.reached.hit;
        self.reached.missed += other.reached.missed;
    }

    /// Reads what a record's line says. A line of before there was a clerk says nothing of their work.
    pub fn read(line: &str) -> Option<Self> {
        let (accepted, rest) = line.split_once(" accepted, ")?;
        let mut parts: BTreeMap<&str, usize> = BTreeMap::new();
        for part in rest.split(", ") {
            let (word, number) = part.rsplit_once(' ')?;
            parts.insert(word, number.trim().parse().ok()?);
        }
        let counts = Self {
            accepted: accepted.parse().ok()?,
            lost: parts.remove("lost")?,
            doubled: parts.remove("doubled")?,
            ghost: parts.remove("ghost")?,
            altered: parts.remove("altered")?,
            undetermined: parts.remove("undetermined")?,
            repeated: parts.remove("repeated")?,
            faults: parts.remove("faults")?,
            changes: parts.remove(CHANGES).unwrap_or_default(),
            undeliverable: parts.remove(UNDELIVERABLE).unwrap_or_default(),
            reached: Reached {
                hit: parts.remove(HIT).unwrap_or_default(),
                missed: parts.remove(MISSED).unwrap_or_default(),
            },
        };
        parts.is_empty().then_some(counts)
    }
}

/// As the last line of a run has them: what is no difference, no doubt and no part of the directory is left out,
/// and calls where none were to be reached.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, lost, doubled, ghost, altered, undetermined, changes, undeliverable, .. } = self;
        write!(f, "{accepted} accepted, lost {lost}, doubled {doubled}, ghost {ghost}, ")?;
        write!(f, "altered {altered}, undetermined {undetermined}, ")?;
        write!(f, "{CHANGES} {changes}, {UNDELIVERABLE} {undeliverable}")?;
        match self.reached {
            Reached { hit: 0, missed: 0 } => Ok(()),
            Reached { hit, missed } => write!(f, ", {HIT} {hit}, {MISSED} {missed}"),
        }
    }
}

/// Reads everything and compares, after so many rounds of kills. The nodes' stores are copied to folders in `state`: no
/// desk reads the mailboxes of those who have gone, and no command says which kinds of units were told.
pub async fn count(
    site: &Site,
    field: &Arc<Field>,
    road: &Road,
    state: &Path,
    kills: usize,
) -> Result<Tally, Failure> {
    let mut faults = field.faults().clone();
    let (mut bobs, mut revised, mut inbox) = (Vec::new(), Vec::new(), Vec::new());
    for person in PEOPLE {
        let messages = folder(&field.big, person, &mut faults).await?;
        let (second_thoughts, messages): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| revisions::is_one(message));
        let copy = |content: &Vec<u8>| revisions::Copy::of(inside(person), content, SystemTime::now());
        revised.extend(second_thoughts.iter().map(copy));
        for message in &messages {
            let whose = clerk::addressee(message, At::Colleague(person)).unwrap_or_else(|| inside(person));
            field.books.found(Place::Inside, &whose, message, SystemTime::now());
        }
        if person == BOB {
            (bobs, inbox) = (messages, second_thoughts);
        }
    }
    for mail in site.mta.mail() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(mail.at);
        if revisions::is_one(&mail.data) {
            let copy = |recipient: &String| revisions::Copy::of(recipient.clone(), &mail.data, at);
            revised.extend(mail.recipients.iter().map(copy));
            continue;
        }
        for recipient in &mail.recipients {
            let whose = clerk::addressee(&mail.data, At::Outside);
            field.books.found(Place::Outside, whose.as_ref().unwrap_or(recipient), &mail.data, at);
        }
    }
    let (held, _): (Compared, _) = ask::big(&field.big, Request::LinkVerify, Vec::new()).await?;
    if held.differing > 0 {
        let Compared { compared, differing, named, .. } = held;
        faults.push(format!("of {compared} that both nodes hold {differing} differ: {named:?}"));
    }
    // The edge records that its answer has come to big.
    if let Err(late) = site.until_settled(SETTLE_WITHIN).await {
        faults.push(late.to_string());
    }
    let (prepared, _) = ask::big(&field.big, Request::Backup, Vec::new()).await?;
    let store = copied(&site.nodes.topology.big_state(), &prepared, &state.join("counted"))?;
    let mut told = kinds::applied(&store, Node::Big)?;
    let prepared = ask::edge(&site.edge(), EdgeRequest::Backup).await?;
    let of_edge = copied(&site.nodes.topology.edge_state(), &prepared, &state.join("counted-edge"))?;
    told.extend(kinds::applied(&of_edge, Node::Edge)?);
    faults.extend(crate::kinds::faults(&told, kills));
    faults.extend(clerk::audit(field).await?);
    let undeliverable = guests(field, &store, &mut faults)?;
    let results = harness::revised(&store)?;
    let mut revised = revisions::audit(field, results, &revised, &road.revised(), &inbox).await?;
    faults.append(&mut revised.faults);
    let (mail, road_audit) = (field.books.audit(), road.audit(&bobs));
    if mail.accepted == 0 {
        faults.push("nothing was accepted at all".into());
    }
    let (collected, changes) = (road.collected(), field.guests.changes());
    Ok(Tally { mail, road: road_audit, revised, collected, changes, undeliverable, told: told.len(), faults })
}

/// A node's store out of the backup that it has prepared in its state.
fn copied(state: &Path, prepared: &Prepared, into: &Path) -> Result<Store, Failure> {
    State::open(state)?.take_backup(prepared, into)?;
    Ok(State::open(into)?.store()?)
}

/// Books what is in the mailboxes of guests, those who have gone among them, and in the postmaster's undeliverable
/// mail. Returns how much that is.
fn guests(field: &Arc<Field>, store: &Store, faults: &mut Vec<String>) -> Result<usize, Failure> {
    let mut undeliverable = 0;
    let mut owners: BTreeMap<Id, String> = BTreeMap::new();
    for filed in harness::mailboxes(store)? {
        let at = match filed.folder {
            Folder::Undeliverable => At::Undeliverable,
            Folder::In if !filed.name.as_ref().is_some_and(|name| PEOPLE.contains(&name.as_str())) => {
                At::Guest
            }
            _ => continue,
        };
        let whose = clerk::addressee(&filed.content, at);
        undeliverable += usize::from(filed.folder == Folder::Undeliverable);
        if filed.folder == Folder::In {
            let name = whose.clone().unwrap_or_default();
            let before = owners.entry(filed.person).or_insert_with(|| name.clone());
            if *before != name {
                faults.push(format!("mail for {before} and for {name} is in one mailbox"));
            }
        }
        let whose = whose.unwrap_or_else(|| "nobody of the clerk's".into());
        field.books.found(Place::Inside, &whose, &filed.content, SystemTime::now());
    }
    Ok(undeliverable)
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
            repeated: self.mail.repeated.len() + self.revised.explained,
            faults: self.faults.len(),
            changes: self.changes,
            undeliverable: self.undeliverable,
            reached: Reached::default(),
        }
    }
}

/// Names every offender; each line is ended.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mailboxes and outside: {}", self.mail)?;
        writeln!(f, "repeated outside, explained by a kill of edge: {}", self.mail.repeated.len())?;
        writeln!(f, "delivery reports: {}", self.mail.reports)?;
        writeln!(f, "revised: {}", self.revised)?;
        writeln!(f, "the road, {} collected: {}", self.collected, self.road)?;
        writeln!(f, "kinds of units told: {} of {}", self.told, kinds::all().count())?;
        for fault in self.faults.iter().take(PRINTED_MAX) {
            writeln!(f, "fault: {fault}")?;
        }
        match self.faults.len().saturating_sub(PRINTED_MAX) {
            0 => Ok(()),
            more => writeln!(f, "fault: and {more} more"),
        }
    }
}
