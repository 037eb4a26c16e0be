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

/// The shortest and the longest cut.
const CUT_MILLIS: (u64, u64) = (20, 400);
/// The line is good for so long at least and at most between two cuts. QUIC probes a silent line ever
/// more seldom: one that is out for most of the time would hardly be met while it is good.
const GOOD_MILLIS: (u64, u64) = (20, 120);
/// The pause between two looks at a link that forms again.
const LOOK_MILLIS: u64 = 10;
/// One cut in so many is followed by a node's standing still.
const FREEZE_ONE_IN: u64 = 25;
/// The shortest and the longest that a node then stands still.
const FREEZE_MILLIS: (u64, u64) = (100, 600);
/// Cuts between two lines of progress.
const PROGRESS_CUTS: u32 = 100;
/// The link is starved if nothing arrives for so long.
const STARVED_AFTER: Duration = Duration::from_secs(20);

/// So many cuts; in the middle of them each node stands still for `long`, which is to be longer than
/// the link's idle time.
///
/// # Errors
/// If the link does not form again, or outlives `long`: then nothing was tried.
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
        pause(between(random, GOOD_MILLIS)).await;
        cut(&line, random).await.map_err(|e| format!("cut {number}: {e}"))?;
        if random.below(FREEZE_ONE_IN) == 0 {
            let node = *random.pick(&[Node::Big, Node::Edge]);
            site.nodes.freeze(node)?;
            pause(between(random, FREEZE_MILLIS)).await;
            site.nodes.thaw(node)?;
            frozen += 1;
        }
        if number == cuts.div_ceil(2) {
            for node in [Node::Big, Node::Edge] {
                stand_still(site, node, long).await?;
            }
            // What may starve is a link between nodes that run.
            moved = Instant::now();
        }
        let now = arrived(site).await?;
        if now > last {
            (last, moved) = (now, Instant::now());
        } else if moved.elapsed() > STARVED_AFTER {
            field.fault(format!("cut {number}: nothing has arrived inside for {STARVED_AFTER:?}"));
            moved = Instant::now();
        }
        if number % PROGRESS_CUTS == 0 {
            println!("storm: {number} cuts, a node frozen {frozen} times, {}", field.progress());
        }
    }
    let (for_edge, for_big) = line.dropped().await?;
    println!("storm: the cuts dropped {for_edge} packets for edge, {for_big} for big");
    Ok(())
}

/// One cut. Short ones come far more often than long ones.
async fn cut(line: &Line, random: &mut Random) -> Result<(), Failure> {
    let kind = *random.pick(&[
        Cut::Silent,
        Cut::Silent,
        Cut::Silent,
        Cut::Silent,
        Cut::Unplugged(Side::Edge),
        Cut::Unplugged(Side::Big),
    ]);
    let (least, most) = CUT_MILLIS;
    let most = (0..2).fold(most, |most, _| between(random, (least, most)));
    let millis = between(random, (least, most));
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
        pause(LOOK_MILLIS).await;
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

/// A number of milliseconds from the first to the second.
fn between(random: &mut Random, (least, most): (u64, u64)) -> u64 {
    least + random.below(most - least + 1)
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
