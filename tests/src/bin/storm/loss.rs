//! Loss: the line drops packets at random, in both directions, and mail must arrive nevertheless.

use std::time::{Duration, Instant};

use tests::ask;
use tests::site::Site;

use crate::Failure;
use crate::field::Field;
use crate::lab::Lab;
use crate::line::Line;

/// The link is starved if nothing arrives for so long while the strangers send.
const STARVED_AFTER: Duration = Duration::from_secs(5);
/// The pause between two looks at what has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One loss after another, each for `each`.
///
/// # Errors
/// If the link starves, or no packet was dropped: then nothing was tried.
pub async fn run(
    site: &Site,
    field: &Field,
    lab: Lab,
    percents: &[u8],
    each: Duration,
) -> Result<(), Failure> {
    let line = Line::new(lab).await?;
    for &percent in percents {
        let stage = stage(site, field, &line, percent, each).await;
        println!("storm: {}", stage.map_err(|e| format!("loss of {percent} %: {e}"))?);
    }
    Ok(line.clear().await?)
}

/// Returns what came of it, in words.
async fn stage(
    site: &Site,
    field: &Field,
    line: &Line,
    percent: u8,
    each: Duration,
) -> Result<String, Failure> {
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
        } else if moved.elapsed() > STARVED_AFTER {
            return Err(
                format!("nothing has arrived inside for {:?}: the link starves", moved.elapsed()).into()
            );
        }
    }
    let (accepted, arrived) = (field.books.audit().accepted - accepted, last - first);
    let now = line.dropped().await?;
    let (for_edge, for_big) = (now.0 - dropped.0, now.1 - dropped.1);
    if for_edge == 0 || for_big == 0 {
        return Err("no packet was dropped".into());
    }
    Ok(format!(
        "loss of {percent} % for {} s: {accepted} accepted, {arrived} units of mail arrived inside, longest \
         pause {} ms; dropped {for_edge} packets for edge, {for_big} for big",
        each.as_secs(),
        longest.as_millis()
    ))
}

/// How much mail has arrived inside since the beginning.
async fn arrived(site: &Site) -> Result<u64, Failure> {
    Ok(ask::filed(&ask::big_link(&site.big()).await?))
}
