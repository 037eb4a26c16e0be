//! The clerk: changes the directory while everything fails, and knows which refusals are right.
//!
//! Guests are people, groups and shadows that come and go, each with a name that is never used again; people travel from
//! their coming on, until they come home or are removed. Two stay
//! and change: the group *crew*, whose one member is now one colleague and now another, and the shadow *far*,
//! who stands for now this and now that friend outside.
//!
//! A guest of whom the edge knows is taken by it until their removal is asked for: a refusal for good before that is
//! a fault. While one comes or goes either answer is right, and what was accepted is in exactly one place: where
//! the name led, or among the postmaster's undeliverable mail.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::tests::ask;
use ::tests::ledger::Fate;
use ::tests::process::Node;
use ::tests::random::Random;
use ::tests::site::OUTSIDE;
use big_node::directory::{GroupChange, NewGroup, NewPerson, NewShadow, ShadowChange};
use big_node::record::WindowState;
use big_node::request::{EntryRequest, Request, Terms, WindowView};
use edge_node::request::{Explained, Request as EdgeRequest};
use serde_json::Value;
use shared::control::CallError;

use crate::Failure;
use crate::field::{BOB, Field, PEOPLE, inside};

/// The group whose member changes.
const CREW: &str = "crew";
/// Who is in it by turns.
const MEMBERS: [&str; 2] = [BOB, "carol"];
/// The shadow whose target changes.
const FAR: &str = "far";
/// Guests who are there at once.
const PRESENT_MAX: usize = 6;
/// Guests whom senders remember, those that have gone among them.
const REMEMBERED: usize = 10;
/// The longest pause between two changes.
const PAUSE_MILLIS: u64 = 80;
/// The pause after a node was not there, and between two looks at edge.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long the clerk waits for edge to know a guest before going on.
const KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// What a guest is. Its word begins their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a mailbox, which stays when they go.
    Person,
    /// Is the postmaster's by another name.
    Group,
    /// Is a friend outside.
    Shadow,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Person, Self::Group, Self::Shadow];

    fn word(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Group => "group",
            Self::Shadow => "shadow",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| name.starts_with(kind.word()))
    }
}

/// How far a guest has come; it only goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Their coming was asked for.
    Coming,
    /// Edge was seen to know them.
    Known,
    /// Their removal was asked for.
    Going,
}

/// What senders and the count ask of the clerk's work.
#[derive(Default)]
pub struct Guests {
    names: Mutex<Vec<(String, Stage)>>,
    changes: AtomicUsize,
}

impl Guests {
    /// One of those remembered, or of those who stay.
    pub fn pick(&self, random: &mut Random) -> String {
        let names = self.names();
        let last = &names[names.len().saturating_sub(REMEMBERED)..];
        match last.is_empty() || random.below(4) == 0 {
            true => random.pick::<&str>(&[CREW, FAR]).to_string(),
            false => random.pick(last).0.clone(),
        }
    }

    /// Whether a refusal for good would be a fault now.
    pub fn is_known(&self, name: &str) -> bool {
        match self.names().iter().find(|(of, _)| of == name) {
            Some((_, stage)) => *stage == Stage::Known,
            None => true,
        }
    }

    /// Changes of the directory that were made.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    fn enter(&self, name: &str, stage: Stage) {
        let mut names = self.names();
        match names.iter_mut().find(|(of, _)| of == name) {
            Some((_, before)) => *before = stage.max(*before),
            None => names.push((name.to_owned(), stage)),
        }
    }

    fn names(&self) -> MutexGuard<'_, Vec<(String, Stage)>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place where mail for a name of the clerk's may be found.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// The mailbox of one who was there before.
    Colleague(&'a str),
    /// A guest's own mailbox.
    Guest,
    /// The postmaster's undeliverable mail.
    Undeliverable,
    /// A friend's, outside.
    Outside,
}

/// For which of the clerk's names a message is, if it may be there.
pub fn addressee(message: &[u8], at: At<'_>) -> Option<String> {
    let mut fields = shared::mime::fields(message);
    let to = fields.find(|field| field.is("To"))?.unfolded();
    let (name, domain) = to.trim().split_once('@')?;
    let right = match (at, Kind::of(name)) {
        (At::Colleague(who), None) => name == CREW && MEMBERS.contains(&who),
        (At::Colleague(who), Some(kind)) => kind == Kind::Group && who == PEOPLE[0],
        (At::Guest, kind) => kind == Some(Kind::Person),
        (At::Undeliverable, kind) => kind.is_some(),
        (At::Outside, None) => name == FAR,
        (At::Outside, Some(kind)) => kind == Kind::Shadow,
    };
    (right && domain == ::tests::site::INSIDE).then(|| inside(name))
}

/// Makes those who stay.
pub async fn begin(field: &Field) -> Result<(), Failure> {
    for (name, kind) in [(CREW, Kind::Group), (FAR, Kind::Shadow)] {
        let members = vec![MEMBERS[0].to_owned()];
        ask::big::<Value>(&field.big, coming(name, kind, members), Vec::new()).await?;
    }
    Ok(())
}

/// Changes something again and again until the storm is over.
pub async fn clerk(field: Arc<Field>, edge: PathBuf, mut random: Random) {
    let (mut number, mut present, mut turn) = (0, Vec::new(), 0);
    while !field.is_over() {
        match random.below(5) {
            0 | 1 if present.len() < PRESENT_MAX => {
                number += 1;
                let kind = *random.pick(&Kind::ALL);
                let name = format!("{}{number}", kind.word());
                field.guests.enter(&name, Stage::Coming);
                insist(&field, coming(&name, kind, vec![PEOPLE[0].to_owned()])).await;
                if is_known_within(&field, &edge, &name).await {
                    field.guests.enter(&name, Stage::Known);
                }
                if kind == Kind::Person {
                    let (person, terms) = (name.clone(), Terms::default());
                    insist(&field, Request::TravelStart { person, terms }).await;
                }
                present.push((name, kind));
            }
            2 | 3 if !present.is_empty() => {
                let at = usize::try_from(random.below(present.len() as u64)).unwrap_or_default();
                let (name, kind) = present.swap_remove(at);
                field.guests.enter(&name, Stage::Going);
                // The window of who does not come home first ends with them.
                if kind == Kind::Person && random.below(2) == 0 {
                    insist(&field, Request::TravelEnd { person: name.clone(), revoke: false }).await;
                }
                insist(&field, going(name, kind)).await;
            }
            _ => {
                turn += 1;
                insist(&field, changed(turn)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.below(PAUSE_MILLIS + 1))).await;
    }
}

fn coming(name: &str, kind: Kind, members: Vec<String>) -> Request {
    let name = name.to_owned();
    match kind {
        Kind::Person => Request::PersonAdd(NewPerson { name, ..NewPerson::default() }),
        Kind::Group => Request::Group(EntryRequest::Add(NewGroup { name, members, ..NewGroup::default() })),
        Kind::Shadow => {
            Request::Shadow(EntryRequest::Add(NewShadow { name, target: friend(0), ..NewShadow::default() }))
        }
    }
}

fn going(name: String, kind: Kind) -> Request {
    match kind {
        Kind::Person => Request::PersonRemove { name },
        Kind::Group => Request::Group(EntryRequest::Remove { name }),
        Kind::Shadow => Request::Shadow(EntryRequest::Remove { name }),
    }
}

/// The change of this turn to those who stay; turns alternate between the two.
fn changed(turn: usize) -> Request {
    let there = turn / 2 % 2;
    match turn % 2 {
        0 => Request::Group(EntryRequest::Set(GroupChange {
            name: CREW.into(),
            add_members: vec![MEMBERS[there].into()],
            remove_members: vec![MEMBERS[1 - there].into()],
            ..GroupChange::default()
        })),
        _ => Request::Shadow(EntryRequest::Set(ShadowChange {
            name: FAR.into(),
            target: Some(friend(there)),
            ..ShadowChange::default()
        })),
    }
}

fn friend(number: usize) -> String {
    format!("friend{number}@{OUTSIDE}")
}

/// Asks until big has answered: big may be dead, die with the answer, or have calls that fail.
async fn insist(field: &Field, request: Request) {
    let mut in_doubt = false;
    loop {
        let since = Instant::now();
        match ask::big::<Value>(&field.big, request.clone(), Vec::new()).await {
            Ok(_) => break,
            Err(CallError::Refused(_)) if field.disturbances.is_since(Node::Big, since) => {
                // It may have been done.
                in_doubt |= field.disturbances.fate_of_refused(Node::Big, since) == Fate::InDoubt;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            // It was done the first time.
            Err(CallError::Refused(_)) if in_doubt => break,
            Err(CallError::Refused(refused)) => {
                field.refused(&format!("a change of the directory: {refused}"));
                return;
            }
            Err(error) => {
                in_doubt |= matches!(error, CallError::NoAnswer { .. });
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
    field.guests.changes.fetch_add(1, Ordering::Relaxed);
}

/// Whether the window of each guest who has gone is at its end on edge, too; to be asked once all has settled.
pub async fn audit(field: &Field) -> Result<Vec<String>, CallError> {
    let request = Request::TravelList { person: None, all: true };
    let (windows, _): (Vec<WindowView>, _) = ask::big(&field.big, request, Vec::new()).await?;
    let names = field.guests.names();
    let is_there = |person: &String| {
        PEOPLE.contains(&person.as_str())
            || names.iter().any(|(name, stage)| name == person && *stage < Stage::Going)
    };
    let open =
        windows.iter().filter(|window| window.state != WindowState::Ended && !is_there(&window.person));
    Ok(open
        .map(|window| format!("{} has gone, and the window is {:?}", window.person, window.state))
        .collect())
}

async fn is_known_within(field: &Field, edge: &Path, name: &str) -> bool {
    let since = Instant::now();
    while since.elapsed() < KNOWN_WITHIN && !field.is_over() {
        let explained = ask::edge::<Explained>(edge, EdgeRequest::Explain { address: inside(name) }).await;
        if explained.is_ok_and(|explained| explained.answer.starts_with("250")) {
            return true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_for_the_clerks_names_has_its_places() {
        let to = |name: &str| format!("From: a@b.example\r\nTo: {name}@example.com\r\n\r\n").into_bytes();
        let may = |name: &str, at| addressee(&to(name), at) == Some(inside(name));
        assert!(may("crew", At::Colleague("carol")) && !may("crew", At::Colleague("dave")));
        assert!(may("group3", At::Colleague("alice")) && !may("person3", At::Colleague("alice")));
        assert!(may("person3", At::Guest) && !may("group3", At::Guest));
        assert!(may("shadow3", At::Outside) && may("far", At::Outside) && !may("group3", At::Outside));
        assert!(may("shadow3", At::Undeliverable) && !may("crew", At::Undeliverable), "crew is always there");
        assert!(!may("alice", At::Colleague("alice")), "no name of the clerk's");
    }

    #[test]
    fn a_guest_is_refused_rightly_before_edge_knows_and_once_they_go() {
        let guests = Guests::default();
        for (stage, known) in
            [(Stage::Coming, false), (Stage::Known, true), (Stage::Going, false), (Stage::Known, false)]
        {
            guests.enter("person1", stage);
            assert_eq!(guests.is_known("person1"), known, "{stage:?}");
        }
        assert!(guests.is_known("crew"));
    }
}
