//! `travel …`: windows for people on the road (design §9), and how their ends and scopes are typed.

use clap::Subcommand;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use shared::command::{Caller, Outcome};

use super::show;
use crate::record::{AfterFetch, Scope};
use crate::request::{Request, Started, WindowView};

/// Days that a scope may reach back: ten years.
const DAYS_MAX: u32 = 3653;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Open a window and print its credentials, once
    Start {
        /// Who travels: name or address
        person: String,
        /// Its end: 2026-12-10 (that day included, UTC), 2026-12-10T18:00:00+01:00, or `standing`
        #[arg(long, value_name = "TIME", value_parser = until)]
        until: Until,
        /// What is filed into it: `new` mail, also that of the last days (`7d`), or `all`
        #[arg(long, value_name = "SCOPE", value_parser = scope, default_value = "new")]
        scope: Scope,
        /// What a deletion on the road does at home: nothing, mark as read, move to Trash
        #[arg(long, value_enum, default_value = "keep")]
        after_fetch: AfterFetch,
    },
    /// Windows that are open or not yet confirmed as ended
    List {
        /// Also those that have ended
        #[arg(long)]
        all: bool,
    },
    /// End a person's window
    End {
        /// Whose: name or address
        person: String,
        /// Accept nothing more that was submitted through it: a stolen laptop
        #[arg(long)]
        revoke: bool,
    },
}

/// When a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Not by itself.
    Standing,
    /// Then, milliseconds since 1970.
    Time(u64),
}

pub(super) fn run(command: Command, caller: &Caller) -> Outcome {
    match command {
        Command::Start { person, until, scope, after_fetch } => {
            let until = match until {
                Until::Standing => None,
                Until::Time(millis) => Some(millis),
            };
            let request = Request::TravelStart { person, until, scope, after_fetch };
            caller.show(&request, |started: &Started| show::started(started))
        }
        Command::List { all } => {
            caller.show(&Request::TravelList { all }, |windows: &Vec<WindowView>| show::windows(windows))
        }
        Command::End { person, revoke } => caller
            .show(&Request::TravelEnd { person, revoke }, |window: &WindowView| {
                show::windows(std::slice::from_ref(window))
            }),
    }
}

/// A day ends with its last millisecond, in UTC.
pub(super) fn until(text: &str) -> Result<Until, String> {
    if text == "standing" {
        return Ok(Until::Standing);
    }
    let end_of_day =
        |day: Date| day.at(23, 59, 59, 999_000_000).to_zoned(TimeZone::UTC).map(|end| end.timestamp()).ok();
    // A date with a time is a date too for jiff, and would lose its time.
    let time = match text.len() {
        10 => text.parse().ok().and_then(end_of_day),
        _ => text.parse::<Timestamp>().ok(),
    };
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok())
        .map(Until::Time)
        .ok_or_else(|| "write 2026-12-10, or 2026-12-10T18:00:00Z, or standing".into())
}

pub(super) fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "new" => Ok(Scope::New),
        "all" => Ok(Scope::All),
        _ => text
            .strip_suffix('d')
            .and_then(|days| days.parse().ok())
            .filter(|days| (1..=DAYS_MAX).contains(days))
            .map(Scope::Days)
            .ok_or_else(|| format!("write new, all, or a number of days from 1d to {DAYS_MAX}d")),
    }
}
