//! A disk that is really full: a small file system in memory, filled and emptied again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use big_node::record::Folder;
use tests::internet::Internet;
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::Program;
use tests::topology::TestTopology;
use tests::wait::Trouble;
use tests::world::{ALICE, CAROL, World, without_trace};

use crate::tally::Tally;

const CASE: &str = "a full disk: 452, nothing lost, and on again by itself";
/// The file system; both nodes need 64 MiB of it free.
const SIZE_MIB: usize = 160;
/// What leaves less than that.
const FILLER_MIB: usize = 120;

/// Runs the case, which needs root to mount.
pub async fn case(pair: &Path, folder: &Path, tally: &mut Tally) {
    if !tally.wants(CASE, "mount") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, who may mount a small file system");
    }
    let verdict = match Mounted::at(folder.join("small")) {
        Ok(small) => full(pair, &small).await.map_err(|trouble| trouble.to_string()),
        Err(reason) => Err(reason),
    };
    tally.note(CASE, verdict);
}

async fn full(pair: &Path, small: &Mounted) -> Result<(), Trouble> {
    let internet = Internet::start(None).await?;
    let (dns, port) = (internet.dns.address(), internet.mta.address().port());
    let topology = TestTopology::new(small.0.join("state"), dns, port)?;
    let world = World::of(Program::at(pair), topology, internet, None).await?;
    world.pair().await?;
    world.add_people().await?;
    let letter = |number| {
        Letter { from: CAROL, to: ALICE, subject: "room", token: Token { seed: 1, number } }.text(SHORT)
    };
    let first = world.receive(&[ALICE], &letter(1)).await?;
    let filler = small.0.join("filler");
    fs::write(&filler, vec![0x55; FILLER_MIB << 20])?;
    let refused = world.receive(&[ALICE], &letter(2)).await.err().map(|trouble| trouble.to_string());
    if !refused.as_deref().is_some_and(|text| text.contains("452")) {
        return Err(format!("with a full disk the answer was {refused:?}, not 452").into());
    }
    world.desk("alice").filed(Folder::In, &first).await?;
    fs::remove_file(&filler)?;
    let third = world.receive(&[ALICE], &letter(3)).await?;
    let desk = world.desk("alice");
    desk.filed(Folder::In, &third).await?;
    if without_trace(&desk.raw(&third).await?) != letter(3) || desk.messages(Folder::In).await?.len() != 2 {
        return Err("what is filed is not what was accepted".into());
    }
    world.end().await
}

/// A file system that is unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        let size = format!("size={SIZE_MIB}m,mode=700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "sallypost-test"]).arg(&path).status();
        match mount {
            Ok(status) if status.success() => Ok(Self(path)),
            other => Err(format!("a small file system could not be mounted: {other:?}")),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a node that was not ended in time may still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
