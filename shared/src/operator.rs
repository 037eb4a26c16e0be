//! What an operator does by hand to the link and to dead letters; the same on both nodes.
//!
//! Decisions about lanes need the link to be down, so that no session moves what is decided about:
//! `link hold` closes it and keeps it closed, `link release` lets it come up again. Without `--yes` they
//! only say what they would do. Each leaves a record, which the next contact compares.

use std::fmt;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::Refused;
use crate::id::{MessageId, unix_millis};
use crate::lane::{self, DeadLetter, LANES_MAX, Missing, PartnerRow};
use crate::render::{self, Table, size, when, word};
use crate::report::{DeadLetterView, DecisionView, MissingView};
use crate::store::{Rows, Store, StoreError, Txn};
use crate::trace;

/// Dead letters that one answer lists at most.
const LISTED_MAX: usize = 10_000;
/// Decisions that `link status` shows: the last ones.
const DECISIONS_SHOWN: usize = 8;
/// Ids that an alarm names.
const NAMED_IN_ALARM: usize = 5;

/// How long it is an alarm that somebody has shown a key that does not count any more, or that a node has broken the link
/// down.
const ALARM: Duration = Duration::from_secs(24 * 60 * 60);

/// What `link hold` has brought about.
pub const HELD: &str = "the link is held closed; `link release` lets it come up again";

/// The lanes, as they are named everywhere.
pub const LANE_NAMES: [&str; 4] = ["service", "event", "inter", "batch"];

/// A lane by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LaneName {
    /// Directory changes, records, windows.
    Service,
    /// Outcomes and facts.
    Event,
    /// Mail.
    Inter,
    /// Large mail.
    Batch,
}

/// What became of units in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Stored {
    /// The partner has them.
    Stored,
    /// It has not.
    NotStored,
}

/// `link …`, beside `status`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkCommand {
    /// Close the link and keep it closed, until `link release` or a restart of this node
    Hold,
    /// Let the link come up again
    Release,
    /// Give this node a new key: the partner is told it over the link, and takes no other from its first use on
    Rotate,
    /// Decide what became of the units in doubt on a lane that has stopped
    Resolve {
        /// service, event, inter or batch
        lane: LaneName,
        /// What the partner did with them
        #[arg(long = "as", value_name = "WHAT")]
        stored: Stored,
        /// Do it; without this, only say what would be done
        #[arg(long)]
        yes: bool,
    },
    /// Let a lane begin where the partner stands; what is not confirmed is sent anew
    Reset {
        /// service, event, inter or batch
        lane: LaneName,
        /// Do it; without this, only say what would be done
        #[arg(long)]
        yes: bool,
    },
    /// This node's store was put back without `restore`, or an alarm asks for it: compare and replay as after
    /// a restore
    Adopt {
        /// Do it; without this, only say what would be done
        #[arg(long)]
        yes: bool,
    },
}

/// `queue dead …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadCommand {
    /// All of them, and why
    List,
    /// One of them, with what is known of it
    Show {
        /// Unit id, as `queue dead` lists it
        id: String,
    },
    /// Offer it to the other node again, once what kept it out is mended
    Retry {
        /// Unit id
        id: String,
    },
    /// Drop it for good
    Drop {
        /// Unit id
        id: String,
    },
}

/// What was done, for a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// In a sentence.
    pub done: String,
}

fn failed(error: StoreError) -> Refused {
    Refused(error.to_string())
}

fn done(text: impl Into<String>) -> Done {
    Done { done: text.into() }
}

/// Carries out a decision about lanes. `held` says whether the link is held closed and no session is
/// left; holding and releasing it is the node's own part. `besides` is what the node does in the same commit.
pub async fn decide(
    store: &Store,
    held: bool,
    command: LinkCommand,
    besides: impl FnOnce(&mut Txn<'_>, &LinkCommand) -> Result<(), StoreError> + Send + 'static,
) -> Result<Done, Refused> {
    let (lanes, yes) = match &command {
        LinkCommand::Hold | LinkCommand::Release | LinkCommand::Rotate => return Ok(done("")),
        LinkCommand::Resolve { lane, yes, .. } | LinkCommand::Reset { lane, yes } => {
            (*lane as u8..*lane as u8 + 1, *yes)
        }
        LinkCommand::Adopt { yes } => (0..LANES_MAX, *yes),
    };
    let snapshot = store.read().map_err(failed)?;
    let (mut plan, mut gone) = (Vec::new(), Vec::new());
    for lane in lanes.clone() {
        let row = lane::state(&snapshot, lane).map_err(failed)?;
        let (from, to) = (row.confirmed.number + 1, row.last);
        let units = match row.last - row.confirmed.number {
            0 => "no unit".to_owned(),
            1 => format!("unit {to}"),
            _ => format!("units {from} to {to}"),
        };
        let name = lane_name(lane);
        let missing = lane::missing(&snapshot, lane).map_err(failed)?;
        if let Some(missing) = missing {
            plan.push(format!(
                "{name}: goes on without {} that the other node lacks and this one has no more",
                amount(&missing)
            ));
            gone.extend(named(&snapshot, lane, &missing).map_err(failed)?);
        }
        plan.push(match &command {
            LinkCommand::Resolve { stored: Stored::Stored, .. } => format!(
                "{name}: in doubt: {units}; taken as stored there. What proves not to be is sent under new numbers, and \
                 if not all of it was stored, an alarm says so"
            ),
            LinkCommand::Resolve { .. } => {
                format!("{name}: in doubt: {units}; taken as not stored there, and sent under new numbers")
            }
            LinkCommand::Reset { .. } => format!(
                "{name}: goes on from wherever the other node stands; not confirmed: {units}; sent under new numbers"
            ),
            _ => format!("{name}: compared and replayed as after a restore; not confirmed: {units}; stays queued"),
        });
    }
    if matches!(command, LinkCommand::Adopt { .. }) {
        plan.push("if the other node has a new store, that is taken, once".into());
    }
    let plan = plan.join("\n");
    let list = if gone.is_empty() { String::new() } else { format!("\n{}", render::missing(&gone)) };
    if !yes {
        return Ok(done(format!("would be done with --yes, after `link hold`:\n{plan}{list}")));
    }
    if !held {
        return Err(Refused(
            "nothing was done, for the link may be up: run `link hold` first, and `link release` afterwards"
                .into(),
        ));
    }
    let now = unix_millis();
    let decided = store.commit(move |txn| {
        match command {
            LinkCommand::Resolve { lane, stored, .. } => {
                lane::resolve(txn, lane as u8, stored == Stored::Stored, now).map(drop)
            }
            LinkCommand::Reset { lane, .. } => lane::reset(txn, lane as u8, now).map(drop),
            LinkCommand::Adopt { .. } => lane::adopt(txn, now).map(drop),
            LinkCommand::Hold | LinkCommand::Release | LinkCommand::Rotate => Ok(()),
        }?;
        besides(txn, &command)
    });
    decided.await.map_err(failed)?;
    tracing::warn!(%plan, "an operator decided about the link");
    Ok(done(format!("{plan}{list}\nrun `link release` to let the link come up")))
}

/// What `link rotate` has brought about.
pub fn rotation(begun: bool) -> Done {
    done(match begun {
        true => {
            "a new key is made; the other node is told of it when the link is up, and then the link is opened anew \
             with it; `link status` shows when that is over"
        }
        false => {
            "a new key was made before, and the other node has not been told of it yet: the link has to come up \
             first; nothing was done"
        }
    })
}

/// One of the nodes has broken the link down, `at` a time within a day. It may have come up since.
pub fn fault_alarm(at: SystemTime, error: &str) -> Option<String> {
    let at = within_a_day(at)?;
    Some(format!("on {at} UTC one of the nodes broke the link down: {error}"))
}

/// A time, for people, if it is within a day. A clock that went back since says nothing of how long ago it was.
fn within_a_day(at: SystemTime) -> Option<String> {
    at.elapsed().ok().filter(|ago| *ago < ALARM)?;
    let at = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |at| at.as_millis());
    Some(when(u64::try_from(at).unwrap_or_default()))
}

/// Somebody has shown `key`, which the partner has had before, `at` a time within a day.
pub fn former_key_alarm(at: SystemTime, key: &[u8], partner: Option<&PartnerRow>) -> Option<String> {
    let at = within_a_day(at)?;
    // Another one may have been put away since, or the partner paired anew.
    partner?.former_key.as_ref().filter(|former| *former == key)?;
    Some(format!(
        "on {at} UTC somebody showed the key that the other node had before its last rotation, and was refused: that node \
         went back to a backup from before it (put its later `keys/link.key` back, or pair anew: `edge-node invite`, \
         `big-node pair --replace TICKET`), or somebody else has its former key"
    ))
}

fn lane_name(lane: u8) -> &'static str {
    LANE_NAMES.get(usize::from(lane)).copied().unwrap_or_default()
}

fn amount(missing: &Missing) -> String {
    format!("{} units ({})", missing.units, size(missing.octets))
}

/// The units that are named of what is missing, and what is known of each.
fn named(rows: &impl Rows, lane: u8, missing: &Missing) -> Result<Vec<MissingView>, StoreError> {
    let view = |(_, gone): &(u64, lane::Gone)| {
        let id = MessageId(gone.id);
        let from = trace::first(rows, id)?;
        Ok(MissingView { lane: lane_name(lane).into(), id: id.to_string(), octets: gone.octets, from })
    };
    missing.named.iter().map(view).collect()
}

/// What the other node lacks and this one has no more, where a lane stands still because of that.
pub fn missing(rows: &impl Rows) -> Result<Vec<MissingView>, StoreError> {
    let mut views = Vec::new();
    for lane in 0..LANES_MAX {
        if let Some(missing) = lane::missing(rows, lane)? {
            views.extend(named(rows, lane, &missing)?);
        }
    }
    Ok(views)
}

/// The last decisions about lanes, oldest first.
pub fn decisions(rows: &impl Rows) -> Result<Vec<DecisionView>, StoreError> {
    let mut rows = lane::decisions(rows)?;
    let shown = rows.split_off(rows.len().saturating_sub(DECISIONS_SHOWN));
    let view = |row: lane::DecisionRow| DecisionView {
        at: row.at,
        lane: lane_name(row.lane).into(),
        decision: word(&row.decision),
        outcome: row.outcome,
        missing_units: row.missing.units,
        missing_octets: row.missing.octets,
        missing: row.missing.named.iter().map(|(_, gone)| MessageId(gone.id).to_string()).collect(),
    };
    Ok(shown.into_iter().map(view).collect())
}

/// Lists, shows, retries or drops dead letters.
pub async fn dead(store: &Store, command: DeadCommand) -> Result<Value, Refused> {
    let answer = match command {
        DeadCommand::List => {
            let letters = lane::dead_letters(&store.read().map_err(failed)?, LISTED_MAX).map_err(failed)?;
            serde_json::to_value(letters.into_iter().map(view).collect::<Vec<_>>())
        }
        DeadCommand::Show { id } => {
            let letter = lane::dead_letter(&store.read().map_err(failed)?, &unit_id(&id)?).map_err(failed)?;
            serde_json::to_value(letter.map(view).ok_or_else(|| unknown(&id))?)
        }
        DeadCommand::Retry { id } => {
            let unit = unit_id(&id)?;
            let retried = store.commit(move |txn| lane::retry_dead(txn, &unit)).await.map_err(failed)?;
            let letter = retried.into_inner().ok_or_else(|| unknown(&id))?;
            if letter.inbound {
                let text = format!(
                    "{id} came from the other node, and waited here for a unit that was refused; \
                                    it can only be dropped"
                );
                return Err(Refused(text));
            }
            serde_json::to_value(view(letter))
        }
        DeadCommand::Drop { id } => {
            let unit = unit_id(&id)?;
            let dropped = store.commit(move |txn| lane::drop_dead(txn, &unit)).await.map_err(failed)?;
            serde_json::to_value(view(dropped.into_inner().ok_or_else(|| unknown(&id))?))
        }
    };
    answer.map_err(|error| Refused(error.to_string()))
}

fn unit_id(text: &str) -> Result<[u8; 16], Refused> {
    let id: MessageId = text.parse().map_err(|error| Refused(format!("{text}: {error}")))?;
    Ok(id.0)
}

fn unknown(id: &str) -> Refused {
    Refused(format!("there is no dead letter {id}; `queue dead` lists them"))
}

/// A dead letter, as it is listed.
pub fn view(letter: DeadLetter) -> DeadLetterView {
    DeadLetterView {
        id: MessageId(letter.unit.id).to_string(),
        lane: lane_name(letter.unit.lane).into(),
        head_bytes: letter.unit.head.len() as u64,
        with_body: letter.unit.body.key().is_some(),
        inbound: letter.inbound,
        reason: letter.reason,
        at: letter.at,
    }
}

/// Alarms of a lane that stands still: from whom to whom, and why, if it does.
pub fn stopped<W: fmt::Display>(lane: &str, directions: [(&str, &str, &Option<W>); 2]) -> Vec<String> {
    let of_one = |(from, to, why): (&str, &str, &Option<W>)| {
        why.as_ref().map(|why| format!("the {lane} lane has stopped, from {from} to {to}: {why}"))
    };
    directions.into_iter().filter_map(of_one).collect()
}

/// Alarms that the durable lanes raise by themselves: what is gone, decisions that proved wrong, dead letters.
pub fn alarms(rows: &impl Rows) -> Result<Vec<String>, StoreError> {
    let mut alarms = Vec::new();
    for lane in 0..LANES_MAX {
        let Some(missing) = lane::missing(rows, lane)?.filter(|missing| missing.units > 0) else { continue };
        let ids = missing.named.iter().take(NAMED_IN_ALARM).map(|(_, gone)| MessageId(gone.id).to_string());
        let more =
            if missing.units > NAMED_IN_ALARM as u64 { " and others, which `link status` lists" } else { "" };
        alarms.push(format!(
            "the {} lane stands: the other node was restored from too old a backup, and {} that it lacks are gone \
             here: {}{more}; `link hold`, `link adopt --yes`, `link release` here go on without them",
            lane_name(lane),
            amount(&missing),
            ids.collect::<Vec<_>>().join(", ")
        ));
    }
    for row in lane::decisions(rows)? {
        if let Some(outcome) = row.outcome.filter(|_| row.damage) {
            let name = lane_name(row.lane);
            alarms.push(format!("the {name} lane, decided by hand on {} UTC: {outcome}", when(row.at)));
        }
    }
    let dead = lane::dead_letter_count(rows)?;
    if dead > 0 {
        alarms.push(format!(
            "{dead} dead letters; `queue dead` lists them; after the mend `queue dead retry ID`, or `queue dead drop ID`"
        ));
    }
    Ok(alarms)
}

/// What was done with one dead letter, as text.
pub fn show_one_dead(command: &DeadCommand, letter: &DeadLetterView) -> String {
    let table = show_dead(std::slice::from_ref(letter));
    let body = if letter.with_body { ", and a body, which is kept" } else { "" };
    let then = match command {
        DeadCommand::Retry { .. } => {
            "It is offered to the other node again; `queue dead` lists it if it is refused once more.".into()
        }
        DeadCommand::Drop { .. } => "It is dropped, with its body.".into(),
        DeadCommand::List | DeadCommand::Show { .. } => format!(
            "It says {} octets{body}. Mend what the reason names, then `queue dead retry {id}`; or give it up with \
             `queue dead drop {id}`.",
            letter.head_bytes,
            id = letter.id
        ),
    };
    format!("{table}\n{then}\n")
}

/// What a restore from a backup that is too old holds back, as text; nothing, if that is nothing.
pub fn show_held(held: usize) -> String {
    match held {
        0 => String::new(),
        held => format!(
            "The backup is so old, or this clock so far behind it, that the other node may have forgotten what it had \
             got before: {held} units of mail are held. When the node runs, `queue dead` lists them; look whether each has arrived, then `queue dead \
             retry` or `queue dead drop` it.\n"
        ),
    }
}

/// Dead letters as text.
pub fn show_dead(dead: &[DeadLetterView]) -> String {
    let mut table = Table::new(["id", "at (UTC)", "lane", "why"]);
    for letter in dead {
        let why = match letter.inbound {
            true => format!("from the other node: {}", letter.reason),
            false => letter.reason.clone(),
        };
        table.row([letter.id.clone(), when(letter.at), letter.lane.clone(), why]);
    }
    table.or("there are no dead letters")
}
