//! What a person types as a recipient: a nickname of theirs, a name or part of one, an address, or a
//! gateway and an address. Ambiguity is answered with the candidates, never guessed.

use shared::address::{Address, canonical_local};
use shared::store::{Rows, StoreError};

use super::entry::{Group, Member, Person, Record, Shadow};
use super::explain::{Rule, Step};
use super::gateway;
use super::lookup::{find, record_of};
use super::naming::{self, shown};
use super::nickname;
use super::policy::Policy;
use super::route::Way;
use crate::error::Refused;
use crate::record::{GROUPS, Holder, NAMES, PERSONS, SHADOWS};

/// Candidates that a refusal names.
const CANDIDATES_MAX: usize = 8;
/// Octets that are typed for one recipient.
const TYPED_MAX: usize = 400;

/// A recipient that was typed.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The address to write into the message and its envelope.
    pub address: Address,
    /// The name beside it.
    pub name: Option<String>,
    /// The way out that was chosen.
    pub by: Option<Way>,
    /// How it was found.
    pub steps: Vec<Step>,
}

impl Resolved {
    fn with(mut self, step: Step) -> Self {
        self.steps.insert(0, step);
        self
    }
}

/// Whom `typed` means, for `person`; without one, nobody's nicknames count.
pub fn resolve(
    rows: &impl Rows,
    policy: &Policy,
    person: Option<&Person>,
    typed: &str,
) -> Result<Resolved, Refused> {
    let text = typed.trim();
    if text.is_empty() || text.len() > TYPED_MAX {
        return Err(Refused::new("a recipient is a name or an address, of one line"));
    }
    if let Some(rest) = text.strip_prefix('/') {
        return by_gateway(rows, policy, rest);
    }
    if let Some(person) = person
        && let Some(found) = nickname::find(rows, person, text)?
    {
        let step = Step::new(Rule::Nickname, format!("{} is a nickname of {}", found.name, person.name));
        let whom = resolve_member(rows, policy, &found.target)?;
        let gone = || Refused::new(format!("{}: whom the nickname means is not here any more", found.name));
        return Ok(whom.ok_or_else(gone)?.with(step));
    }
    if text.contains('@') {
        return by_address(rows, policy, text);
    }
    if let Some(holder) = rows.get::<Holder>(NAMES, canonical_local(text).as_bytes())?
        && let Some(record) = record_of(rows, holder)?
    {
        return entry(&record, Rule::Name);
    }
    by_part(rows, text)
}

fn by_gateway(rows: &impl Rows, policy: &Policy, rest: &str) -> Result<Resolved, Refused> {
    let (name, address) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let edge = Way::Edge.as_str();
    let way = match gateway::of_name(rows, name)? {
        _ if name.eq_ignore_ascii_case(edge) => Way::Edge,
        Some(gateway) => Way::Inside(gateway.name),
        None => {
            let inside = gateway::all(rows)?.into_iter().map(|gateway| format!(", /{}", gateway.name));
            let all = inside.fold(format!("/{edge}"), |all, name| all + &name);
            let text = format!("/{}: there is no such gateway; there is {all}", shown(name));
            return Err(Refused::new(text));
        }
    };
    if address.trim().is_empty() {
        let text = format!("/{name}: an address follows, as in /{name} carol@remote.example");
        return Err(Refused::new(text));
    }
    let address = match way {
        Way::Edge => naming::outside_address(policy, address.trim())?,
        // The mail system behind it may have addresses in our domains, too.
        Way::Inside(_) => naming::parsed(address.trim())?,
    };
    let step = Step::new(Rule::Gateway, format!("{} was named as the gateway", way.as_str()));
    Ok(Resolved { address, name: None, by: Some(way), steps: vec![step] })
}

fn by_address(rows: &impl Rows, policy: &Policy, text: &str) -> Result<Resolved, Refused> {
    let address = naming::parsed(text)?;
    if policy.is_ours(address.domain()) && find(rows, policy, &address)?.is_none() {
        return Err(Refused::new(format!(
            "{}: there is nobody of that name here; `person list` shows who there is",
            shown(text)
        )));
    }
    Ok(Resolved { address, name: None, by: None, steps: Vec::new() })
}

/// Whom an entry's or a nickname's member is; `None` if it was removed.
fn resolve_member(rows: &impl Rows, policy: &Policy, member: &Member) -> Result<Option<Resolved>, Refused> {
    match member {
        Member::Outside(address) => by_address(rows, policy, address).map(Some),
        Member::Entry(holder) => {
            record_of(rows, *holder)?.map(|record| entry(&record, Rule::Name)).transpose()
        }
    }
}

/// Mail for a shadow is written to the address outside; for a person or a group, to theirs here.
fn entry(record: &Record, rule: Rule) -> Result<Resolved, Refused> {
    let (text, what) = match record {
        Record::Shadow(shadow) => {
            (Some(&shadow.target), format!("{} stands for {}", shadow.name, shadow.target))
        }
        record => {
            let kind = record.holder().map_or("", |holder| holder.kind.as_str());
            (record.addresses().first(), format!("{} is a {kind} in the directory", record.name()))
        }
    };
    let nowhere = || Refused::new(format!("{} has no address", record.name()));
    let address = naming::parsed(text.ok_or_else(nowhere)?)?;
    let name = Some(record.display().to_owned()).filter(|name| !name.is_empty());
    Ok(Resolved { address, name, by: None, steps: vec![Step::new(rule, what)] })
}

fn by_part(rows: &impl Rows, text: &str) -> Result<Resolved, Refused> {
    let found = candidates(rows, text)?;
    // A name that is written in full is not part of a longer one.
    let wanted = words(text);
    let mut whole = found.iter().filter(|record| words(record.display()) == wanted);
    if let (Some(record), None) = (whole.next(), whole.next()) {
        return entry(record, Rule::Name);
    }
    match found.as_slice() {
        [] => Err(Refused::new(format!(
            "nobody here is called {}; `person list`, `shadow list` and `group list` show who there is, and \
             somebody outside is written name@domain",
            shown(text)
        ))),
        [record] => entry(record, Rule::PartOfName),
        several => {
            let shown_names: Vec<_> = several.iter().take(CANDIDATES_MAX).map(candidate).collect();
            let more = match several.len().saturating_sub(CANDIDATES_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            Err(Refused::new(format!(
                "{} may be {}{more}: write one of these names",
                shown(text),
                shown_names.join(", ")
            )))
        }
    }
}

fn candidate(record: &Record) -> String {
    let kind = record.holder().map_or("", |holder| holder.kind.as_str());
    match record.display() {
        display if display.is_empty() || display == record.name() => format!("{} ({kind})", record.name()),
        display => format!("{} ({kind}, {display})", record.name()),
    }
}

/// Everybody of whose name `text` is a part, by name: each word of it begins a word of their name.
fn candidates(rows: &impl Rows, text: &str) -> Result<Vec<Record>, StoreError> {
    let wanted = words(text);
    let mut found = Vec::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let mut consider = |record: Record| {
        if fits(&wanted, &words(record.name())) || fits(&wanted, &words(record.display())) {
            found.push(record);
        }
    };
    for (_, person) in rows.prefix::<Person>(PERSONS, &[], usize::MAX)? {
        consider(Record::Person(person));
    }
    for (_, shadow) in rows.prefix::<Shadow>(SHADOWS, &[], usize::MAX)? {
        consider(Record::Shadow(shadow));
    }
    for (_, group) in rows.prefix::<Group>(GROUPS, &[], usize::MAX)? {
        consider(Record::Group(group));
    }
    found.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(found)
}

fn words(text: &str) -> Vec<String> {
    let text = canonical_local(text);
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether each wanted word begins a word of the name, in their order.
fn fits(wanted: &[String], name: &[String]) -> bool {
    let mut name = name.iter();
    wanted.iter().all(|wanted| name.any(|word| word.starts_with(wanted.as_str())))
}
