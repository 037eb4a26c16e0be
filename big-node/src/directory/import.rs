//! Many entries at once: all of them, or none and every reason why.
//!
//! A first pass enters everything in a commit that is not made, and so finds what is wrong with each row
//! as it would be entered after the others. Only when nothing is, the records are written to the segments,
//! and a second pass enters them in one commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use shared::store::{Row, Rows, Store, StoreError, Txn};

use super::entry::{RECORD_KIND, Record};
use super::gateway::new_listed;
use super::group::{NewGroup, join, nesting, new_group};
use super::naming::shown;
use super::person::{NewPerson, new_person};
use super::policy::Policy;
use super::register::add;
use super::shadow::{NewShadow, new_shadow};
use super::table::{Parsed, Rowed, parse};
use crate::error::Refused;
use crate::record::GROUPS;

/// Characters of a reason.
const REASON_MAX: usize = 160;

/// What one row asks for.
#[derive(Clone, Debug)]
pub enum New {
    /// A person.
    Person(NewPerson),
    /// A shadow.
    Shadow(NewShadow),
    /// A group.
    Group(NewGroup),
    /// An address that a gateway takes.
    Recipient {
        /// The gateway's name.
        gateway: String,
        /// The address.
        address: String,
    },
}

/// A row that cannot be entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// The line it begins in; the header is line 1.
    pub line: u64,
    /// The name it is for.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What an import came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Rows of the file.
    pub rows: usize,
    /// Entries that were added: all of them or none.
    pub added: usize,
    /// It was only tried.
    pub dry_run: bool,
    /// Every row that is wrong, by line.
    pub bad: Vec<BadRow>,
}

/// How far an import is, for whoever waits for it; and whether one runs.
#[derive(Debug, Default)]
pub struct Importing {
    /// Held while one runs.
    pub running: tokio::sync::Mutex<()>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Importing {
    fn begin(&self, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
    }

    fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Steps done, and all there are.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// A row on its way.
struct Asked {
    line: u64,
    record: Record,
    /// A group's, which may be in the same file.
    members: Vec<String>,
}

/// Why the first pass ends without a commit: always.
enum Tried {
    Checked(Vec<Asked>, Vec<BadRow>),
    Store(StoreError),
}

impl From<StoreError> for Tried {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Adds everything in a table, or nothing.
pub async fn import(
    store: &Store,
    policy: &Arc<Policy>,
    importing: &Arc<Importing>,
    of: &Rowed,
    text: &[u8],
    dry_run: bool,
    now: u64,
) -> Result<Imported, Refused> {
    let Parsed { rows: parsed, mut bad } = tokio::task::block_in_place(|| parse(of, text))?;
    let rows = parsed.len() + bad.len();
    importing.begin(3 * parsed.len());
    let snapshot = store.read()?;
    let asked = tokio::task::block_in_place(|| asked(&snapshot, policy, parsed, &mut bad, now));
    let checked = {
        let (policy, importing) = (Arc::clone(policy), Arc::clone(importing));
        store.commit(move |txn| Err::<(), _>(check(txn, &policy, &importing, asked))).await
    };
    let asked = match checked {
        Err(Tried::Checked(asked, found)) => {
            bad.extend(found);
            asked
        }
        Err(Tried::Store(error)) => return Err(error.into()),
        Ok(_) => return Err(Refused::new("the first pass of an import is never committed")),
    };
    bad.sort_by_key(|row| row.line);
    if dry_run || !bad.is_empty() {
        return Ok(Imported { rows, added: 0, dry_run, bad });
    }
    let write = |asked: Asked| {
        importing.step();
        let writer = store.body_writer(asked.record.key(), RECORD_KIND);
        Ok::<_, StoreError>((writer.finish(asked.record.encode())?, asked.record))
    };
    let kept: Vec<_> =
        tokio::task::block_in_place(|| asked.into_iter().map(write).collect::<Result<_, StoreError>>())?;
    let added = kept.len();
    let importing = Arc::clone(importing);
    let entered = store.commit(move |txn| {
        kept.iter().try_for_each(|(kept, record)| {
            importing.step();
            add(txn, record, Some(kept))
        })
    });
    entered.await?;
    Ok(Imported { rows, added, dry_run, bad })
}

/// The entries that the rows ask for, as far as each can be judged by itself.
fn asked(
    rows: &impl Rows,
    policy: &Policy,
    parsed: Vec<(u64, New)>,
    bad: &mut Vec<BadRow>,
    now: u64,
) -> Vec<Asked> {
    let mut lines: HashMap<String, u64> = HashMap::new();
    let mut asked = Vec::with_capacity(parsed.len());
    for (line, new) in parsed {
        let mut members = Vec::new();
        let (name, record) = match new {
            New::Person(new) => (new.name.clone(), new_person(rows, policy, new, now).map(Record::Person)),
            New::Shadow(new) => (new.name.clone(), new_shadow(rows, policy, new, now).map(Record::Shadow)),
            New::Group(new) => {
                let group = new_group(policy, &new, now).map(Record::Group);
                members = new.members;
                (new.name, group)
            }
            New::Recipient { gateway, address } => {
                let listed = new_listed(policy, &gateway, &address, now).map(Record::Listed);
                (address, listed)
            }
        };
        let record = record.and_then(|record| match lines.insert(record.name().to_owned(), line) {
            Some(first) => Err(Refused::new(format!("line {first} has that name already"))),
            None => Ok(record),
        });
        match record {
            Ok(record) => asked.push(Asked { line, record, members }),
            Err(refused) => bad.push(bad_row(line, &name, &refused)),
        }
    }
    asked
}

fn bad_row(line: u64, name: &str, refused: &Refused) -> BadRow {
    BadRow { line, name: shown(name), reason: refused.to_string().chars().take(REASON_MAX).collect() }
}

/// Tries to enter everything; what it writes is taken back.
fn check(txn: &mut Txn<'_>, policy: &Policy, importing: &Importing, mut asked: Vec<Asked>) -> Tried {
    let mut bad = Vec::new();
    match try_each(txn, policy, importing, &mut asked, &mut bad) {
        Ok(()) => Tried::Checked(asked, bad),
        Err(error) => Tried::Store(error),
    }
}

fn try_each(
    txn: &mut Txn<'_>,
    policy: &Policy,
    importing: &Importing,
    asked: &mut Vec<Asked>,
    bad: &mut Vec<BadRow>,
) -> Result<(), StoreError> {
    keep_good(asked, bad, |asked| {
        importing.step();
        add(txn, &asked.record, None)
    })?;
    // Every name is there now: members may be named before their own row.
    keep_good(asked, bad, |asked| {
        let Record::Group(group) = &mut asked.record else { return Ok(()) };
        join(txn, policy, group, &asked.members)?;
        Ok(txn.put(GROUPS, &group.id, group)?)
    })?;
    keep_good(asked, bad, |asked| match &asked.record {
        Record::Group(group) => nesting(txn, group),
        _ => Ok(()),
    })
}

/// Applies `check` to each row, and moves the bad ones out.
fn keep_good(
    asked: &mut Vec<Asked>,
    bad: &mut Vec<BadRow>,
    mut check: impl FnMut(&mut Asked) -> Result<(), Refused>,
) -> Result<(), StoreError> {
    let mut good = Vec::with_capacity(asked.len());
    for mut row in std::mem::take(asked) {
        match check(&mut row) {
            Ok(()) => good.push(row),
            Err(Refused::Store(error)) => return Err(error),
            Err(refused) => bad.push(bad_row(row.line, row.record.name(), &refused)),
        }
    }
    *asked = good;
    Ok(())
}
