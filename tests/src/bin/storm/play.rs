//! One storm, from the first start of the nodes to the audit.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tests::random::Random;
use tokio::task::JoinSet;

use crate::count::{self, Counts};
use crate::field::{BOB, Field, PEOPLE};
use crate::road::Road;
use crate::weather::Weather;
use crate::{Failure, clerk, revisions, senders};

/// How long everything may take to arrive once the storm is over.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(120);
/// Senders from outside.
const STRANGERS: u64 = 6;

/// Runs a storm with its state and logs in the folder `state`; prints every offender and returns what
/// it comes to.
pub async fn play(weather: &Weather, seed: u64, state: &Path) -> Result<Counts, Failure> {
    let people: Vec<String> = PEOPLE.iter().map(|&name| name.to_owned()).collect();
    let mut site = weather.site(state, &people).await?;
    let field = Arc::new(Field::new(&site, seed, weather.pause_millis()));
    let password = senders::open_window(&field, BOB).await?;
    clerk::begin(&field).await?;
    site.until_settled(SETTLE_WITHIN).await?;

    let mut random = Random::new(seed);
    let mut load = JoinSet::new();
    for number in 0..STRANGERS {
        load.spawn(senders::stranger(field.clone(), Random::new(seed ^ (number + 1))));
    }
    for (number, person) in (0..).zip(PEOPLE) {
        load.spawn(senders::desk(field.clone(), person, Random::new(seed ^ (100 + number))));
    }
    revisions::deferring().into_iter().for_each(|rule| site.mta.add_rule(rule));
    for (number, author) in (0..).zip([PEOPLE[0], "dave"]) {
        load.spawn(revisions::desk(field.clone(), author, Random::new(seed ^ (400 + number))));
    }
    load.spawn(revisions::traveller(field.clone(), password.clone(), Random::new(seed ^ 500)));
    load.spawn(clerk::clerk(field.clone(), site.edge(), Random::new(seed ^ 300)));
    load.spawn(senders::traveller(field.clone(), password.clone(), Random::new(seed ^ 200)));
    let road = Arc::new(Road::new(field.clone(), password));
    load.spawn(road.clone().collect_until_over());

    let reached = weather.run(&mut site, &field, &mut random).await?;
    field.end();
    while let Some(ended) = load.join_next().await {
        ended?;
    }
    site.mta.clear_rules();
    site.until_joined().await?;
    let mut settled = site.until_settled(SETTLE_WITHIN).await;
    if settled.is_ok() {
        // What is owed for revisions, notices and answers, is sent only now.
        revisions::until_decided(&field, SETTLE_WITHIN).await?;
        settled = site.until_settled(SETTLE_WITHIN).await;
    }
    if settled.is_ok() {
        road.collect_rest(SETTLE_WITHIN).await?;
    }
    if let Err(late) = settled {
        field.fault(late.to_string());
    }
    let tally = count::count(&site, &field, &road, state, weather.kills()).await?;
    print!("{tally}");
    Ok(Counts { reached, ..tally.counts() })
}
