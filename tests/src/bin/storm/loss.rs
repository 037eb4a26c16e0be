//! Loss: the line drops packets at random, in both directions, and mail must arrive nevertheless.

use std::time::{Duration, Instant};

use tests::ask;
use tests::site::Site;

use crate::Failure;
use crate::field::Field;
use crate::lab::Lab;
use crate::line::Line;

/// The link is starved if nothing arrives for so long while the strangers send: many times what lost
/// probes can explain on a line without delay.
const STARVED_AFTER: Duration = Duration::from_secs(5);
/// The pause between two looks at what has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One loss after another, each for `each`. A link that starves is a fault.
///
/// # Errors
/// If no packet was dropped: then nothing was tried.
pub async fn run(
    site: &Site,
    field: &Field,
    lab: Lab,
    percents: &[u8],
    each: Duration,
) -> Result<(), Failure> {
    let line = Line::new(lab).await?;
    for &percent in percents {
        stage(site, field, &line, percent, each).await.map_err(|e| format!("loss of {percent} %: {e}"))?;
    }
    Ok(line.clear().await?)
}

async fn stage(site: &Site, field: &Field, line: &Line, percent: u8, each: Duration) -> Result<(), Failure> {
    let (accepted, dropped) = (field.books.audit().accepted, line.dropped().await?);
    let first = arrived(site).await?;
    let (mut last, mut longest) = (first, Duration::ZERO);
    line.lose(percent).await?;
    let (began, mut moved) = (Instant::now(), Instant::now());
    while began.elapsed() < each {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = arrived(site).await?;
        longest = longest.max(moved.elapsed());
        if now > last {
            (last, moved) = (now, Instant::now());
        }
    }
    let (accepted, arrived) = (field.books.audit().accepted - accepted, last - first);
    let now = line.dropped().await?;
    let (for_edge, for_big) = (now.0 - dropped.0, now.1 - dropped.1);
    if for_edge == 0 || for_big == 0 {
        return Err("no packet was dropped".into());
    }
    let longest_millis = longest.as_millis();
    println!(
        "storm: loss of {percent} % for {} s: {accepted} accepted, {arrived} units of mail arrived inside, \
         longest pause {longest_millis} ms; dropped {for_edge} packets for edge, {for_big} for big",
        each.as_secs()
    );
    if longest > STARVED_AFTER {
        field
            .fault(format!("loss of {percent} %: the link starved, nothing arrived for {longest_millis} ms"));
    }
    Ok(())
}

/// How much mail has arrived inside since the beginning.
async fn arrived(site: &Site) -> Result<u64, Failure> {
    Ok(ask::filed(&ask::big_link(&site.big()).await?))
}
