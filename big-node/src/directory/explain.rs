//! What would happen to mail for an address, and by which rule: told without sending.

use serde::{Deserialize, Serialize};
use shared::store::Rows;
use shared::topology::AttachmentMode;

use super::entry::{Person, Pop3};
use super::naming::shown;
use super::resolve::{Resolved, resolve};
use super::route::{Letter, Route, Routed, Way, route_with_steps};
use crate::error::Refused;
use crate::mail::Site;
use crate::record::{Named, OPEN_WINDOWS};

/// The rule behind a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A nickname of the person who types.
    Nickname,
    /// A name in the directory.
    Name,
    /// Part of one name in the directory, and of no other.
    PartOfName,
    /// A gateway was named.
    Gateway,
    /// An address here.
    Address,
    /// An address here with a tag.
    Tag,
    /// A role that every domain has.
    Role,
    /// `[site] catch_all`.
    CatchAll,
    /// A returning address.
    Returned,
    /// A shadow.
    Shadow,
    /// A group.
    Group,
    /// A person's forwarding.
    Forward,
    /// It left here and came back.
    Circles,
    /// Each recipient gets it once.
    Once,
    /// The gateway that takes its domain.
    Domain,
    /// An address outside.
    Outside,
    /// How it is filed.
    Filed,
    /// Nobody is meant.
    Nobody,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// By which rule.
    pub rule: Rule,
    /// What it does.
    pub what: String,
    /// The address of the person whose forward it is about.
    pub forwarder: Option<String>,
}

impl Step {
    /// A step.
    pub fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self { rule, what: what.into(), forwarder: None }
    }
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was typed.
    pub typed: String,
    /// The address it stands for; `None` if it is refused at the desk.
    pub address: Option<String>,
    /// Why it is refused.
    pub refused: Option<String>,
    /// Step by step.
    pub steps: Vec<Step>,
    /// Where copies go in the end.
    pub recipients: Vec<Destination>,
    /// What the edge says to it from the Internet: RCPT's code, if it is an address.
    pub rcpt: Option<u16>,
}

/// Where one copy goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The address.
    pub address: String,
    /// Where to, for a person.
    pub to: String,
    /// It arrives nowhere.
    pub failed: bool,
    /// The address of the person whose forward led there.
    pub forwarder: Option<String>,
}

/// What would happen to a message of `person`, or of nobody in particular, to `typed`.
pub fn explain(
    rows: &impl Rows,
    site: &Site,
    person: Option<&Person>,
    typed: &str,
    now: u64,
) -> Result<Explanation, Refused> {
    let mut explanation = Explanation {
        typed: typed.to_owned(),
        address: None,
        refused: None,
        steps: Vec::new(),
        recipients: Vec::new(),
        rcpt: None,
    };
    let at_desk = resolve(rows, &site.policy, person, typed);
    let (address, by) = match at_desk {
        Ok(Resolved { address, by, steps, .. }) => {
            explanation.steps = steps;
            (address, by)
        }
        Err(Refused::Asked(reason)) => {
            explanation.refused = Some(reason);
            // What a stranger would have in the end, for an address that looks like one.
            match typed.parse() {
                Ok(address) => (address, None),
                Err(_) => return Ok(explanation),
            }
        }
        Err(error) => return Err(error),
    };
    let letter = Letter { is_report: false, passes: 0, now };
    let (routed, steps) = route_with_steps(rows, &site.policy, letter, &address, by.as_ref())?;
    explanation.steps.extend(steps);
    // The edge does not see which way a person inside would choose.
    let by_itself = match by {
        Some(_) => route_with_steps(rows, &site.policy, letter, &address, None)?.0,
        None => routed.clone(),
    };
    let known = by_itself.iter().any(|routed| !matches!(routed.route, Route::Nowhere(..)));
    explanation.rcpt = Some(match site.policy.is_ours(address.domain()) && known {
        true => 250,
        false => 550,
    });
    explanation.address = Some(address.to_string());
    for routed in routed {
        let to = match &routed.route {
            Route::Mailbox(person) => {
                let steps = filed(rows, site, person)?;
                let forwarder = routed.forwarder.as_ref().map(|forwarder| forwarder.address.clone());
                let of_forward = |step| Step { forwarder: forwarder.clone(), ..step };
                explanation.steps.extend(steps.into_iter().map(of_forward));
                format!("the mailbox of {}", person.name)
            }
            Route::Outside(way @ Way::Edge, _) => format!("outside, by {}", way.as_str()),
            Route::Outside(Way::Inside(name), _) => format!("the gateway {name}"),
            Route::Nowhere(why, status) => format!("nowhere: {status} {why}"),
        };
        let failed = matches!(routed.route, Route::Nowhere(..));
        let Routed { address, forwarder, .. } = routed;
        let forwarder = forwarder.map(|forwarder| forwarder.address);
        explanation.recipients.push(Destination { address: shown(&address), to, failed, forwarder });
    }
    Ok(explanation)
}

fn filed(rows: &impl Rows, site: &Site, person: &Person) -> Result<Vec<Step>, Refused> {
    let why = match (person.pop3, person.filing) {
        (Pop3::Passthru, _) => "pop3 = passthru",
        (_, Some(_)) => "their own mode",
        (_, None) => "as the site does it",
    };
    let how = match site.filing_of(person) {
        AttachmentMode::BreakApart => "broken apart into a cover and its attachments",
        AttachmentMode::Passthru => "whole",
    };
    let mut steps = vec![Step::new(Rule::Filed, format!("filed for {}, {how} ({why})", person.name))];
    if rows.get::<Named>(OPEN_WINDOWS, &person.id)?.is_some() {
        steps.push(Step::new(Rule::Filed, format!("{} travels: a copy waits on the edge", person.name)));
    }
    Ok(steps)
}
