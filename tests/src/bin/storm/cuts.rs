//! Cuts: the line is out for a moment, again and again, and now and then a node stands still.

use std::time::{Duration, Instant};

use tests::ask;
use tests::process::Node;
use tests::random::Random;
use tests::site::Site;

use crate::Failure;
use crate::field::Field;
use crate::lab::Lab;
use crate::line::{Cut, Line, Side};

/// The shortest cut.
const CUT_LEAST_MILLIS: u64 = 20;
/// The longest cut.
const CUT_MOST_MILLIS: u64 = 400;
/// The line is good for at most so long between two cuts.
const GOOD_MILLIS: u64 = 60;
/// One cut in so many is followed by a node's standing still.
const FREEZE_ONE_IN: u64 = 25;
/// The shortest and the longest that a node then stands still.
const FREEZE_MILLIS: (u64, u64) = (100, 600);
/// Cuts between two lines of progress.
const PROGRESS_CUTS: u32 = 100;
/// Mail must arrive at least once in so long.
const STARVED_AFTER: Duration = Duration::from_secs(30);

/// So many cuts; in the middle of them each node stands still for `long`, which is to be longer than
/// the link's idle time.
///
/// # Errors
/// If the link starves, does not form again, or outlives `long`: then nothing was tried.
pub async fn run(
    site: &Site,
    field: &Field,
    random: &mut Random,
    lab: Lab,
    cuts: u32,
    long: Duration,
) -> Result<(), Failure> {
    let line = Line::new(lab).await?;
    let mut frozen = 0;
    let (mut last, mut moved) = (arrived(site).await?, Instant::now());
    for number in 1..=cuts {
        pause(random.below(GOOD_MILLIS + 1)).await;
        cut(&line, random).await.map_err(|e| format!("cut {number}: {e}"))?;
        if random.below(FREEZE_ONE_IN) == 0 {
            let (least, most) = FREEZE_MILLIS;
            let node = *random.pick(&[Node::Big, Node::Edge]);
            site.nodes.freeze(node)?;
            pause(least + random.below(most - least + 1)).await;
            site.nodes.thaw(node)?;
            frozen += 1;
        }
        if number == cuts.div_ceil(2) {
            for node in [Node::Big, Node::Edge] {
                stand_still(site, node, long).await?;
            }
        }
        let now = arrived(site).await?;
        if now > last {
            (last, moved) = (now, Instant::now());
        } else if moved.elapsed() > STARVED_AFTER {
            return Err(format!("cut {number}: nothing has arrived inside for {STARVED_AFTER:?}").into());
        }
        if number % PROGRESS_CUTS == 0 {
            println!("storm: {number} cuts, a node frozen {frozen} times, {}", field.progress());
        }
    }
    let (for_edge, for_big) = line.dropped().await?;
    println!("storm: the cuts dropped {for_edge} packets for edge, {for_big} for big");
    Ok(())
}

/// One cut. Short ones come more often than long ones.
async fn cut(line: &Line, random: &mut Random) -> Result<(), Failure> {
    let kind = *random.pick(&[
        Cut::Silent,
        Cut::Silent,
        Cut::Silent,
        Cut::Silent,
        Cut::Unplugged(Side::Edge),
        Cut::Unplugged(Side::Big),
    ]);
    let span = CUT_MOST_MILLIS - CUT_LEAST_MILLIS + 1;
    let millis = CUT_LEAST_MILLIS + random.below(span) * random.below(span) / span;
    line.cut(kind).await?;
    pause(millis).await;
    Ok(line.mend(kind).await?)
}

/// Freezes `node` for longer than the link lives without it, and sees that it forms again.
async fn stand_still(site: &Site, node: Node, long: Duration) -> Result<(), Failure> {
    site.until_joined().await?;
    let before = ask::big_link(&site.big()).await?.epoch;
    site.nodes.freeze(node)?;
    tokio::time::sleep(long).await;
    site.nodes.thaw(node)?;
    let since = Instant::now();
    // A node that has just come to itself may still take the old session for a living one.
    let name = node.name();
    loop {
        site.until_joined().await.map_err(|e| format!("after {name} stood still for {long:?}: {e}"))?;
        if ask::big_link(&site.big()).await?.epoch > before {
            break;
        }
        if since.elapsed() > STARVED_AFTER {
            return Err(format!("{name} stood still for {long:?} and the link outlived it").into());
        }
        pause(GOOD_MILLIS).await;
    }
    println!(
        "storm: {name} stood still for {long:?}; a new session {} ms after",
        since.elapsed().as_millis()
    );
    Ok(())
}

/// How much mail has arrived inside since the beginning.
async fn arrived(site: &Site) -> Result<u64, Failure> {
    Ok(ask::filed(&ask::big_link(&site.big()).await?))
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
