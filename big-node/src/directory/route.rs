//! Where a message goes: from the addresses of an envelope to mailboxes here and addresses outside.
//!
//! The one way in which an address becomes recipients, whoever sends: mail from the Internet, from desks,
//! from the road, reports of our own. Each mailbox and each address outside is reached once, however often
//! and through whatever groups it is named.

use std::collections::HashMap;

use shared::address::Address;
use shared::origin::{Origin, RECIPIENTS_BYTES_MAX};
use shared::store::{Rows, StoreError};
use shared::unit::Id;

use super::entry::{Group, Holder, Member, Person, Record, Shadow};
use super::explain::{Rule as Because, Step};
use super::gateway;
use super::group::DEPTH_MAX;
use super::lookup::{Owner, Rule, find, record_of};
use super::policy::Policy;
use super::srs::{self, Returned};
use crate::record::{MESSAGES, Message};

/// Recipients of one message, when its groups are expanded.
pub const EXPANDED_MAX: usize = 10_000;
/// How often it is noted in one walk that a recipient was reached: beyond that, ways that come later are not known.
const NOTED_MAX: usize = 10 * EXPANDED_MAX;
/// How often mail may have left through our edge before and is forwarded all the same. More than one,
/// for a list outside may send back what somebody here wrote to it.
pub const PASSES_MAX: u32 = 2;

/// A way out.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// By the edge, to the hosts that DNS names: the gateway that is always there, `smtp`.
    #[default]
    Edge,
    /// By the inside gateway of this name.
    Inside(String),
}

impl Way {
    /// The gateway's name, as in `/smtp carol@remote.example`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Edge => "smtp",
            Self::Inside(name) => name,
        }
    }
}

/// An address of an envelope.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its text.
    pub address: &'a str,
    /// The way out that its sender chose.
    pub by: Option<&'a Way>,
}

impl<'a> From<&'a str> for Wanted<'a> {
    fn from(address: &'a str) -> Self {
        Self { address, by: None }
    }
}

/// Where one recipient's copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Into a mailbox here.
    Mailbox(Box<Person>),
    /// Out.
    Outside(Way, Address),
    /// Nowhere: why, and as which status (RFC 3463).
    Nowhere(&'static str, &'static str),
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The address as the sender wrote it, or the one it led to.
    pub address: String,
    /// The address that the sender wrote, if it is another.
    pub via: Option<String>,
    /// Whose forward led to it, of several the first.
    pub forwarder: Option<Forwarder>,
    /// A group led to it.
    pub in_group: bool,
    /// What else the sender wrote that led to it.
    pub also: Vec<Lead>,
    /// Where it goes.
    pub route: Route,
}

/// A person who forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarder {
    /// Their address by which it came to them.
    pub address: String,
    /// Who they are, whoever has that address later.
    pub person: Id,
}

/// That an address which the sender wrote leads to a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The address.
    pub written: String,
    /// By a person's forward.
    pub is_forwarded: bool,
    /// By a group.
    pub in_group: bool,
}

impl Routed {
    /// The address that the sender wrote.
    pub fn written(&self) -> &str {
        self.via.as_ref().unwrap_or(&self.address)
    }

    /// It is reached once more. Whom the sender names is called so, whatever group has led there before.
    fn again(&mut self, lead: Lead) {
        let known = self.also.last().is_some_and(|last| last.written == lead.written);
        if known || self.written() == lead.written {
            return;
        }
        let is_named = !lead.in_group && !lead.is_forwarded;
        if is_named && self.in_group && self.forwarder.is_none() {
            let written = self.written().to_owned();
            self.via = (self.address != lead.written).then_some(lead.written);
            self.in_group = false;
            self.also.push(Lead { written, is_forwarded: false, in_group: true });
        } else {
            self.also.push(lead);
        }
    }
}

/// What routing asks of a message.
#[derive(Clone, Copy, Debug)]
pub struct Letter {
    /// Its reverse-path is the null one: it reports a failure.
    pub is_report: bool,
    /// How often it has left through our edge before.
    pub passes: u32,
    /// The present, milliseconds since 1970.
    pub now: u64,
}

impl Letter {
    /// Of a message that came as `origin` says.
    pub fn of(origin: &Origin, passes: u32, now: u64) -> Self {
        Self { is_report: origin.reverse_path.is_none(), passes, now }
    }
}

const NOBODY: Route = Route::Nowhere("there is nobody of that name here", "5.1.1");
const CIRCLES: Route = Route::Nowhere("it goes in circles: it left here and came back", "5.4.6");
const DEEP: Route = Route::Nowhere("the groups in it are nested too deep", "5.4.6");
const MANY: Route = Route::Nowhere("the groups in it have more members than one message goes to", "5.5.3");

/// The recipients that `addresses`, those of an envelope, lead to.
pub fn route<'a>(
    rows: &impl Rows,
    policy: &Policy,
    letter: Letter,
    addresses: impl IntoIterator<Item: Into<Wanted<'a>>>,
) -> Result<Vec<Routed>, StoreError> {
    let mut walk = Walk::new(rows, policy, letter, None);
    for wanted in addresses {
        walk.wanted(wanted.into())?;
    }
    Ok(walk.routed)
}

/// The recipients of one address, and each step that led to them.
pub fn route_with_steps(
    rows: &impl Rows,
    policy: &Policy,
    letter: Letter,
    address: &Address,
    by: Option<&Way>,
) -> Result<(Vec<Routed>, Vec<Step>), StoreError> {
    let mut walk = Walk::new(rows, policy, letter, Some(Vec::new()));
    walk.address(address, by, address.to_string())?;
    Ok((walk.routed, walk.steps.unwrap_or_default()))
}

struct Walk<'a, R> {
    rows: &'a R,
    policy: &'a Policy,
    letter: Letter,
    /// The entries that were come to, and the rows of those to whom each leads.
    entries: HashMap<Holder, Vec<usize>>,
    /// How often such a row was noted.
    noted: usize,
    /// The entries by which it came to the present one.
    way: Vec<Holder>,
    /// The first person on that way who forwards.
    forwarder: Option<Forwarder>,
    /// There is a group on that way, before whoever forwards.
    in_group: bool,
    /// The row of each address outside.
    outside: HashMap<String, usize>,
    /// Octets of addresses outside: one unit carries them all.
    octets: usize,
    routed: Vec<Routed>,
    /// How it came to that, if somebody asks.
    steps: Option<Vec<Step>>,
}

impl<'a, R: Rows> Walk<'a, R> {
    fn new(rows: &'a R, policy: &'a Policy, letter: Letter, steps: Option<Vec<Step>>) -> Self {
        Self {
            rows,
            policy,
            letter,
            entries: HashMap::new(),
            noted: 0,
            way: Vec::new(),
            forwarder: None,
            in_group: false,
            outside: HashMap::new(),
            octets: 0,
            routed: Vec::new(),
            steps,
        }
    }

    fn step(&mut self, because: Because, what: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.steps {
            let forwarder = self.forwarder.as_ref().map(|forwarder| forwarder.address.clone());
            steps.push(Step { forwarder, ..Step::new(because, what()) });
        }
    }

    fn push(&mut self, address: String, written: &str, route: Route) {
        let via = (address != written).then(|| written.to_owned());
        let forwarder = self.forwarder.clone();
        let row = self.routed.len();
        self.routed.push(Routed {
            address,
            via,
            forwarder,
            in_group: self.in_group,
            also: Vec::new(),
            route,
        });
        self.note(row);
    }

    /// Notes that the entries on the way lead to a row; whether there was room for it.
    fn note(&mut self, row: usize) -> bool {
        if self.noted + self.way.len() >= NOTED_MAX {
            return false;
        }
        self.noted += self.way.len() + 1;
        for holder in &self.way {
            self.entries.entry(*holder).or_default().push(row);
        }
        true
    }

    /// Rows are reached once more, by another way: what is asked of each way counts.
    fn again(&mut self, rows: &[usize], written: &str) {
        for row in rows {
            if !self.note(*row) {
                return;
            }
            let (is_forwarded, in_group) = (self.forwarder.is_some(), self.in_group);
            if let Some(routed) = self.routed.get_mut(*row) {
                routed.again(Lead { written: written.to_owned(), is_forwarded, in_group });
            }
        }
    }

    fn wanted(&mut self, Wanted { address: text, by }: Wanted<'_>) -> Result<(), StoreError> {
        match text.parse::<Address>() {
            Ok(address) => self.address(&address, by, text.to_owned()),
            Err(_) => {
                self.push(text.to_owned(), text, NOBODY);
                Ok(())
            }
        }
    }

    /// `written` is the address that the sender wrote, which led to this one.
    fn address(&mut self, address: &Address, by: Option<&Way>, written: String) -> Result<(), StoreError> {
        if let Some(way) = by {
            let what = || format!("{address} goes by {}", way.as_str());
            self.leave_by(way.clone(), address, &written, Because::Outside, what);
            return Ok(());
        }
        if !self.policy.is_ours(address.domain()) {
            return self.leave(address, &written);
        }
        if let Some(sender) = self.returned(address)? {
            match sender {
                Some(sender) => {
                    self.step(Because::Returned, || format!("a report of failure goes on to {sender}"));
                    self.leave(&sender, &written)?;
                }
                None => {
                    let what =
                        "not a returning address that we made in the last 30 days, or no report of failure";
                    self.step(Because::Nobody, || what.into());
                    self.push(address.to_string(), &written, NOBODY);
                }
            }
            return Ok(());
        }
        match find(self.rows, self.policy, address)? {
            None => {
                self.step(Because::Nobody, || format!("{address}: there is nobody of that name here"));
                self.push(address.to_string(), &written, NOBODY);
                Ok(())
            }
            Some(Owner::Gateway(name)) => {
                let what = format!(
                    "nobody here is called {address}; the gateway {name} takes the rest of its domain"
                );
                match self.goes_in_circles() {
                    true => self.push(address.to_string(), &written, CIRCLES),
                    false => self.leave_by(Way::Inside(name), address, &written, Because::Domain, || what),
                }
                Ok(())
            }
            Some(Owner::Entry(holder, rule)) => {
                self.step(
                    match rule {
                        Rule::Exact => Because::Address,
                        Rule::WithoutTag => Because::Tag,
                        Rule::Role => Because::Role,
                        Rule::CatchAll => Because::CatchAll,
                    },
                    || match rule {
                        Rule::Exact => format!("{} is an address here", address.canonical()),
                        Rule::WithoutTag => format!("{address} is an address here without its tag"),
                        Rule::Role => format!("{address} is the postmaster's, as in every domain"),
                        Rule::CatchAll => {
                            format!("nobody is called {address}; [site] catch_all takes it")
                        }
                    },
                );
                self.entry(holder, &address.to_string(), &written, 0)
            }
        }
    }

    /// Whose a returning address is; `None` if `address` is none, `Some(None)` if it is not to be believed.
    fn returned(&self, address: &Address) -> Result<Option<Option<Address>>, StoreError> {
        let base = address.without_tag();
        if base.is_none_or(|base| !base.local_part().eq_ignore_ascii_case(srs::NAME)) {
            return Ok(None);
        }
        let returned = srs::unwrap(&self.policy.srs_key, address.local_part(), self.letter.now);
        let sender = match returned.filter(|_| self.letter.is_report) {
            Some(Returned::Sender(sender)) => Some(sender),
            Some(Returned::Of(id)) => {
                let message = self.rows.get::<Message>(MESSAGES, &id.0)?;
                let path = message.and_then(|message| message.origin.reverse_path);
                path.and_then(|path| path.parse().ok())
            }
            None => None,
        };
        Ok(Some(sender.filter(|sender| !self.policy.is_ours(sender.domain()))))
    }

    /// Leaves by the gateway that takes the domain, else by the edge.
    fn leave(&mut self, address: &Address, written: &str) -> Result<(), StoreError> {
        match gateway::of_domain(self.rows, address.domain().as_str())? {
            Some(name) => {
                let what = format!("{address} is outside, and the gateway {name} takes its domain");
                self.leave_by(Way::Inside(name), address, written, Because::Domain, || what);
            }
            None => {
                let way = Way::default();
                let what = format!("{address} is outside: by the default gateway, {}", way.as_str());
                self.leave_by(way, address, written, Because::Outside, || what);
            }
        }
        Ok(())
    }

    fn leave_by(
        &mut self,
        way: Way,
        address: &Address,
        written: &str,
        because: Because,
        what: impl FnOnce() -> String,
    ) {
        if let Some(row) = self.outside.get(&address.canonical()).copied() {
            self.step(Because::Once, || format!("{address} has it already"));
            self.again(&[row], written);
            return;
        }
        self.outside.insert(address.canonical(), self.routed.len());
        let text = address.to_string();
        self.octets += text.len();
        if self.octets > RECIPIENTS_BYTES_MAX || self.routed.len() >= EXPANDED_MAX {
            self.push(text, written, MANY);
            return;
        }
        self.step(because, what);
        self.push(text, written, Route::Outside(way, address.clone()));
    }

    fn entry(&mut self, holder: Holder, at: &str, written: &str, depth: usize) -> Result<(), StoreError> {
        if let Some(rows) = self.entries.get(&holder).cloned() {
            self.step(Because::Once, || format!("{at} has it already"));
            self.again(&rows, written);
            return Ok(());
        }
        self.entries.insert(holder, Vec::new());
        self.way.push(holder);
        let walked = match record_of(self.rows, holder)? {
            Some(Record::Person(person)) => self.person(person, at, written, depth),
            Some(Record::Shadow(shadow)) => self.shadow(&shadow, at, written, depth),
            Some(Record::Group(group)) => self.group(&group, at, written, depth),
            // What a group holds of it is passed over; an address always leads to an entry.
            Some(Record::Nickname(_) | Record::Gateway(_) | Record::Listed(_)) | None => Ok(()),
        };
        self.way.pop();
        walked
    }

    fn shadow(&mut self, shadow: &Shadow, at: &str, written: &str, depth: usize) -> Result<(), StoreError> {
        self.step(Because::Shadow, || format!("{} stands for {}", shadow.name, shadow.target));
        let nowhere = match shadow.target.parse::<Address>() {
            _ if self.goes_in_circles() => Some(CIRCLES),
            Ok(target) => self.onward(&target, written, depth)?,
            Err(_) => Some(NOBODY),
        };
        if let Some(nowhere) = nowhere {
            self.push(at.to_owned(), written, nowhere);
        }
        Ok(())
    }

    /// Goes on to what an entry stands for or forwards to. Returns why nobody has it then, if so.
    fn onward(&mut self, target: &Address, written: &str, depth: usize) -> Result<Option<Route>, StoreError> {
        if !self.policy.is_ours(target.domain()) {
            self.leave(target, written)?;
            return Ok(None);
        }
        // A gateway had it when it was entered; it may be somebody's now, and lead back.
        match find(self.rows, self.policy, target)? {
            None => {
                self.step(Because::Nobody, || format!("{target}: there is nobody of that name here"));
                Ok(Some(NOBODY))
            }
            Some(Owner::Gateway(name)) => {
                let what = format!("{target} is what the gateway {name} takes");
                self.leave_by(Way::Inside(name), target, written, Because::Domain, || what);
                Ok(None)
            }
            Some(Owner::Entry(holder, _)) if self.way.contains(&holder) => {
                self.step(Because::Circles, || format!("{target} is where it came from"));
                Ok(Some(CIRCLES))
            }
            Some(Owner::Entry(..)) if depth >= DEPTH_MAX => Ok(Some(DEEP)),
            Some(Owner::Entry(holder, _)) => {
                let (there, before) = (self.entries.contains_key(&holder), self.routed.len());
                self.entry(holder, &target.to_string(), written, depth + 1)?;
                Ok((!there && self.routed.len() == before).then_some(CIRCLES))
            }
        }
    }

    fn goes_in_circles(&self) -> bool {
        self.letter.passes > PASSES_MAX
    }

    fn person(&mut self, person: Person, at: &str, written: &str, depth: usize) -> Result<(), StoreError> {
        let forwards = !person.forward.is_empty() && !self.goes_in_circles();
        let mut stays = !forwards || person.keep_copy;
        if forwards {
            let before = self.forwarder.clone();
            self.forwarder.get_or_insert_with(|| Forwarder { address: at.to_owned(), person: person.id });
            for target in &person.forward {
                let Ok(target) = target.parse::<Address>() else { continue };
                self.step(Because::Forward, || format!("{} forwards to {target}", person.name));
                stays |= self.onward(&target, written, depth)?.is_some();
            }
            if !stays {
                self.step(Because::Forward, || format!("{} keeps no copy", person.name));
            }
            self.forwarder = before;
        }
        if !stays {
            return Ok(());
        }
        if !forwards && !person.forward.is_empty() {
            let what = || format!("{} forwards, but it left here and came back: it stays", person.name);
            self.step(Because::Circles, what);
        }
        match self.routed.len() >= EXPANDED_MAX {
            true => self.push(at.to_owned(), written, MANY),
            false => self.push(at.to_owned(), written, Route::Mailbox(Box::new(person))),
        }
        Ok(())
    }

    fn group(&mut self, group: &Group, at: &str, written: &str, depth: usize) -> Result<(), StoreError> {
        let count = group.members.len();
        self.step(Because::Group, || format!("{} is a group of {count}", group.name));
        if depth >= DEPTH_MAX {
            self.push(at.to_owned(), written, DEEP);
            return Ok(());
        }
        // Behind a forward it is the forward's: the sender is told of who forwards.
        let in_group = self.in_group || self.forwarder.is_none();
        let before = std::mem::replace(&mut self.in_group, in_group);
        let walked = self.members(group, written, depth);
        self.in_group = before;
        walked
    }

    fn members(&mut self, group: &Group, written: &str, depth: usize) -> Result<(), StoreError> {
        for member in &group.members {
            if self.routed.len() > EXPANDED_MAX {
                // One recipient says that there are too many.
                return Ok(());
            }
            match member {
                Member::Entry(holder) => {
                    let at =
                        record_of(self.rows, *holder)?.and_then(|record| record.addresses().first().cloned());
                    if let Some(at) = at {
                        self.entry(*holder, &at, written, depth + 1)?;
                    }
                }
                Member::Outside(address) => match address.parse::<Address>() {
                    _ if self.goes_in_circles() => self.push(address.clone(), written, CIRCLES),
                    // A gateway had it, and may not have it now.
                    Ok(address) if self.policy.is_ours(address.domain()) => {
                        self.address(&address, None, written.to_owned())?;
                    }
                    Ok(address) => self.leave(&address, written)?,
                    Err(_) => self.push(address.clone(), written, NOBODY),
                },
            }
        }
        Ok(())
    }
}
