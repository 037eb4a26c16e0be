//! `travel …`: windows for people on the road (design §9), and how their ends and scopes are typed.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use shared::command::{Caller, Outcome, explain};

use super::{settings, show};
use crate::record::{AfterFetch, Scope};
use crate::request::{PersonView, Request, Started, Terms, WindowView};

/// Days that a scope may reach back: ten years.
const DAYS_MAX: u32 = 3653;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Open a window and print its credentials, once
    Start {
        /// Who travels: name or address
        person: String,
        /// Its beginning, if that is later: 2026-12-01 (that day included, UTC) or 2026-12-01T08:00:00+01:00
        #[arg(long, value_name = "TIME", value_parser = from)]
        from: Option<u64>,
        /// Its end: 2026-12-10 (that day included, UTC), 2026-12-10T18:00:00+01:00, or `standing`
        #[arg(long, value_name = "TIME", value_parser = until)]
        until: Until,
        /// What is filed into it: `new` mail, also that of the last days (`7d`), or `all`
        #[arg(long, value_name = "SCOPE", value_parser = scope, default_value = "new")]
        scope: Scope,
        /// What a deletion on the road does at home: nothing, mark as read, move to Trash
        #[arg(long, value_enum, default_value = "keep")]
        after_fetch: AfterFetch,
        /// Of what was there before, all small messages first, then the large ones
        #[arg(long)]
        headers_first: bool,
        /// Larger messages stay at home, and the traveller gets a notice of each: octets, or 500K, 5M, 1G
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
        /// What the window may hold on the edge; beyond it copies wait at home
        #[arg(long, value_name = "SIZE", value_parser = size)]
        quota: Option<u64>,
        #[command(flatten)]
        given: Given,
    },
    /// Change the end of a person's window; the credentials stay
    Extend {
        /// Whose: name or address
        person: String,
        /// Its new end, later or earlier, or `standing`
        #[arg(long, value_name = "TIME", value_parser = until)]
        until: Until,
    },
    /// Give a window other credentials and print them, once; the mailbox goes on
    Rotate {
        /// Whose: name or address
        person: String,
        /// How long the old password is good besides: 30m, 24h, 7d (not for SCRAM logins)
        #[arg(long, value_name = "TIME", value_parser = grace, default_value = "0m")]
        grace: Duration,
        #[command(flatten)]
        given: Given,
    },
    /// Windows that are open or not yet confirmed as ended
    List {
        /// Whose; everybody's otherwise
        #[arg(long = "as", value_name = "PERSON")]
        person: Option<String>,
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

/// How credentials are given besides being printed.
#[derive(Args, Debug)]
pub(super) struct Given {
    /// Also write files for Thunderbird and for Apple's Mail into this folder
    #[arg(long, value_name = "DIR")]
    settings: Option<PathBuf>,
    /// Print a QR code for Thunderbird on Android, also when the output is no terminal
    #[arg(long)]
    qr: bool,
}

/// When a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Not by itself.
    Standing,
    /// Then, milliseconds since 1970.
    Time(u64),
}

impl Until {
    fn millis(self) -> Option<u64> {
        match self {
            Self::Standing => None,
            Self::Time(millis) => Some(millis),
        }
    }
}

pub(super) fn run(command: Command, caller: &Caller) -> Outcome {
    let one = |window: &WindowView| show::windows(std::slice::from_ref(window));
    match command {
        Command::Start { person, from, until, scope, after_fetch, headers_first, max_size, quota, given } => {
            let (until, size_max) = (until.millis(), max_size);
            let terms = Terms { from, until, scope, after_fetch, headers_first, size_max, quota };
            give(caller, &person, &Request::TravelStart { person: person.clone(), terms }, &given)
        }
        Command::Rotate { person, grace, given } => {
            let request = Request::TravelRotate { person: person.clone(), grace: grace.as_secs() };
            give(caller, &person, &request, &given)
        }
        Command::Extend { person, until } => {
            caller.show(&Request::TravelExtend { person, until: until.millis() }, one)
        }
        Command::List { person, all } => caller
            .show(&Request::TravelList { person, all }, |windows: &Vec<WindowView>| show::windows(windows)),
        Command::End { person, revoke } => caller.show(&Request::TravelEnd { person, revoke }, one),
    }
}

/// Prints a person's credentials, and then gives them in the other ways: what has been printed is not lost if a file
/// cannot be written.
fn give(caller: &Caller, person: &str, request: &Request, given: &Given) -> Outcome {
    if let Some(folder) = &given.settings {
        let (person, _) = caller.ask::<PersonView>(&Request::PersonShow { name: person.into() }, b"")?;
        let address = person.addresses.first().map_or("", String::as_str);
        settings::make_room(folder, &person.name, address)?;
    }
    let (started, _) = caller.ask::<Started>(request, b"")?;
    let with_code = given.qr || !caller.json() && std::io::stdout().is_terminal();
    caller.print(&started, |started| {
        let code = settings::payload(started).and_then(|payload| settings::code(&payload));
        match code.filter(|_| with_code) {
            Some(code) => format!(
                "{}\nThunderbird for Android reads the account from this code, password included:\n\n{code}",
                show::started(started)
            ),
            None => show::started(started),
        }
    })?;
    if let Some(folder) = &given.settings {
        settings::write(folder, &started)?.iter().for_each(|said| explain(said));
        explain("records for DNS, by which clients find these services:");
        settings::records(&started).iter().for_each(|record| explain(record));
    }
    Ok(())
}

/// A day begins with its first millisecond, in UTC.
pub(super) fn from(text: &str) -> Result<u64, String> {
    let begin = |day: Date| day.to_datetime(jiff::civil::Time::midnight());
    time(text, begin).ok_or_else(|| "write 2026-12-01, or 2026-12-01T08:00:00Z".into())
}

/// A date, of which `at` says the moment, or a moment; milliseconds since 1970.
fn time(text: &str, at: impl Fn(Date) -> DateTime) -> Option<u64> {
    let of_day = |day: Date| at(day).to_zoned(TimeZone::UTC).map(|time| time.timestamp()).ok();
    // A date with a time is a date too for jiff, and would lose its time.
    let time = match text.len() {
        10 => text.parse().ok().and_then(of_day),
        _ => text.parse::<Timestamp>().ok(),
    };
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok())
}

/// Octets: a number, or one with K, M or G behind it.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let factor = match &text[digits.len()..] {
        "" => Some(1),
        "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        _ => None,
    };
    let octets =
        digits.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    octets.ok_or_else(|| "write a number of octets, or 500K, 5M, 1G".into())
}

/// Minutes, hours or days.
pub(super) fn grace(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(['m', 'h', 'd']);
    let seconds = match &text[digits.len()..] {
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let found =
        digits.parse::<u64>().ok().zip(seconds).and_then(|(number, seconds)| number.checked_mul(seconds));
    found.map(Duration::from_secs).ok_or_else(|| "write 30m, 24h or 7d".into())
}

/// A day ends with its last millisecond, in UTC.
pub(super) fn until(text: &str) -> Result<Until, String> {
    if text == "standing" {
        return Ok(Until::Standing);
    }
    time(text, |day| day.at(23, 59, 59, 999_000_000))
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
