//! The edge's disk as a thief has it: a whole file system, free space and journal included, searched for what was on
//! the road.

use std::path::Path;

use big_node::record::WindowState;
use tests::canary::Canary;
use tests::internet::Internet;
use tests::nodes::Nodes;
use tests::process::{Node, Program};
use tests::topology::TestTopology;
use tests::wait::{SOON, Trouble, until};
use tests::world::World;

use crate::full_disk::{Bound, Kind, Mounted};
use crate::tally::Tally;

const CASE: &str =
    "an image of the edge's disk: no mail, password or key on it, and no cover after the window's end";
/// Room for the nodes' reserve of free space.
const IMAGE_MIB: u64 = 256;

/// Runs the case, which needs root to mount.
pub async fn case(pair: &Path, folder: &Path, tally: &mut Tally) {
    if !tally.wants(CASE, "mkfs.ext4") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        tally.absent("root, who may mount a small file system");
        return;
    }
    let verdict = search(pair, folder).await.map_err(|trouble| trouble.to_string());
    tally.note(CASE, verdict);
}

async fn search(pair: &Path, folder: &Path) -> Result<(), Trouble> {
    let disk = Mounted::at(folder.join("edge-disk"), Kind::Ext4(IMAGE_MIB))?;
    let image = disk.path.with_extension("ext4");
    let internet = Internet::start(None).await?;
    let (dns, port) = (internet.dns.address(), internet.mta.address().port());
    let topology = TestTopology::new(folder.join("image-state"), dns, port)?;
    let program = Program::at(pair);
    // Both are made as ever; then the edge's state goes to a disk of its own.
    drop(Nodes::init(topology.clone(), program.clone(), program.clone()).await?);
    let state = topology.edge_state();
    let bound = Bound::over(&state, &disk)?;

    let mut world = World::of(program, topology, internet, None).await?;
    world.pair().await?;
    world.add_people().await?;
    let canary = Canary::released(&mut world).await?;
    rustix::fs::sync();
    clean(&canary, &image)?;
    if canary.cover_found(&[&image])?.is_empty() {
        return Err("the cover of an open window is not on the image, so the search proves nothing".into());
    }
    world.desk("alice").come_home().await?;
    until("the window has ended", SOON, async || {
        let windows = world.big().windows().await?;
        Ok(windows.iter().all(|window| window.state == WindowState::Ended).then_some(()))
    })
    .await?;
    world.nodes.stop(Node::Edge).await?;
    drop(bound);
    drop(disk);
    rustix::fs::sync();
    clean(&canary, &image)?;
    match canary.cover_found(&[&image])?.is_empty() {
        true => Ok(world.nodes.stop(Node::Big).await?),
        false => Err("the cover is still on the image".into()),
    }
}

fn clean(canary: &Canary, image: &Path) -> Result<(), Trouble> {
    match canary.found(&[image])?.as_slice() {
        [] => Ok(()),
        found => Err(format!("on the image: {found:?}").into()),
    }
}
