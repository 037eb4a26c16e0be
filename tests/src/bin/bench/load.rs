//! The generator: messages made beforehand, so that sending costs little beside receiving.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tests::client::load::{Outgoing, Plan, Report, drive};
use tests::ledger::Token;
use tests::messages::Letter;
use tests::site::{INSIDE, OUTSIDE};

use crate::PEOPLE;

/// Different messages that are made; sent in turn, to everyone in turn.
const MADE: u64 = 64;
/// How long a server that does not answer is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address of person `number`, counted round and round.
pub fn person(number: u64) -> String {
    match number % PEOPLE as u64 {
        0 => format!("alice@{INSIDE}"),
        n => format!("user{n:03}@{INSIDE}"),
    }
}

/// One message of about `size` octets.
pub fn message(number: u64, size: usize) -> Vec<u8> {
    let from = format!("sender@{OUTSIDE}");
    let token = Token { seed: 1, number };
    Letter { from: &from, to: &person(number), subject: "bench", token }.text(size)
}

/// Sends to `to` over `connections` for as long as `seconds`; what has begun then is finished.
pub async fn send(
    to: SocketAddr,
    connections: usize,
    per_connection: usize,
    size: usize,
    seconds: Duration,
) -> Report {
    let made: Arc<[Vec<u8>]> = (0..MADE).map(|number| message(number, size)).collect();
    let plan = Plan { to, connections, per_connection, patience: PATIENCE, login: None };
    let from = format!("sender@{OUTSIDE}");
    let until = Instant::now() + seconds;
    let make = move |number: u64| {
        let data = made.get(usize::try_from(number % MADE).ok()?)?.clone();
        (Instant::now() < until).then(|| Outgoing { from: from.clone(), to: person(number), data })
    };
    drive(plan, make, |_, _| {}).await
}
