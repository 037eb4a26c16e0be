//! Disks that are really full: small file systems of several kinds, filled and emptied again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::Started;
use edge_node::request::Request as EdgeRequest;
use shared::pressure::{CALM_TIME, FREE_BYTES, FREE_INODES, Level};
use shared::report::LinkView;
use tests::client::smtp::{SmtpClient, SmtpError};
use tests::internet::Internet;
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::nodes::Nodes;
use tests::process::Program;
use tests::topology::TestTopology;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, without_trace};

use crate::tally::Tally;

/// A kind of small file system, and what runs short on it.
#[derive(Clone, Copy)]
struct Small {
    case: &'static str,
    /// The program that makes or mounts it.
    program: &'static str,
    kind: Kind,
    short: Short,
    whose: Whose,
}

/// Who keeps its state on it.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    Both,
    Big,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// In memory.
    Tmpfs(&'static str),
    /// In a file of so many MiB.
    Ext4(u64),
}

#[derive(Clone, Copy, PartialEq)]
enum Short {
    Bytes,
    Inodes,
}

const CASES: [Small; 6] = [
    Small {
        case: "a full tmpfs: 452, then 421; travellers go on; nothing lost, and on again by itself",
        program: "mount",
        kind: Kind::Tmpfs("size=112m,mode=700"),
        short: Short::Bytes,
        whose: Whose::Both,
    },
    Small {
        case: "a tmpfs without inodes: the same",
        program: "mount",
        kind: Kind::Tmpfs("size=512m,nr_inodes=2048,mode=700"),
        short: Short::Inodes,
        whose: Whose::Both,
    },
    Small {
        case: "a full ext4 on a loop device: the same",
        program: "mkfs.ext4",
        kind: Kind::Ext4(192),
        short: Short::Bytes,
        whose: Whose::Both,
    },
    Small {
        case: "big's tmpfs is full: the edge spools; a little room changes nothing, enough room everything",
        program: "mount",
        kind: Kind::Tmpfs("size=112m,mode=700"),
        short: Short::Bytes,
        whose: Whose::Big,
    },
    Small {
        case: "big's tmpfs has no inodes: the same",
        program: "mount",
        kind: Kind::Tmpfs("size=512m,nr_inodes=2048,mode=700"),
        short: Short::Inodes,
        whose: Whose::Big,
    },
    Small {
        case: "big's ext4 on a loop device is full: the same",
        program: "mkfs.ext4",
        kind: Kind::Ext4(192),
        short: Short::Bytes,
        whose: Whose::Big,
    },
];

/// Bytes that the filler grows by.
const STEP_BYTES: usize = 1 << 20;

/// Runs the cases, which need root to mount.
pub async fn cases(pair: &Path, folder: &Path, tally: &mut Tally) {
    for (number, small) in CASES.into_iter().enumerate() {
        if !tally.wants(small.case, small.program) {
            continue;
        }
        if !rustix::process::geteuid().is_root() {
            tally.absent("root, who may mount a small file system");
            continue;
        }
        let verdict = match Mounted::at(folder.join(format!("small-{number}")), small.kind) {
            Ok(mounted) => {
                let filled = match small.whose {
                    Whose::Both => fill(pair, &mounted, small.short).await,
                    Whose::Big => fill_big(pair, folder, &mounted, small.short).await,
                };
                filled.map_err(|trouble| trouble.to_string())
            }
            Err(reason) => Err(reason),
        };
        tally.note(small.case, verdict);
    }
}

/// The story of one file system. Neither node is started again in it.
async fn fill(pair: &Path, small: &Mounted, short: Short) -> Result<(), Trouble> {
    let internet = Internet::start(None).await?;
    let (dns, port) = (internet.dns.address(), internet.mta.address().port());
    let topology = TestTopology::new(small.path.join("state"), dns, port)?;
    let world = World::of(Program::at(pair), topology, internet, None).await?;
    world.pair().await?;
    world.add_people().await?;
    let trip = world.desk("alice").travel(Scope::New, AfterFetch::Delete).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;

    let first = world.receive(&[ALICE], &letter(CAROL, ALICE, 1)).await?;
    world.desk("alice").filed(Folder::In, &first).await?;

    let filler = Filler::new(small.path.join("filler"), short)?;
    filler.leave(1)?;
    until("port 25 answers 452 to MAIL", SOON, async || {
        let reply = world.smtp().await?.command(&format!("MAIL FROM:<{CAROL}>")).await?;
        Ok((reply.code == 452 && reply.enhanced() == Some("4.3.1")).then_some(()))
    })
    .await?;
    shown(&world, Level::Closed).await?;
    // What travellers send, and all that is only read, goes on.
    let mut road = world.submission(&trip.user, &trip.password).await?;
    let sent = road.send(ALICE, &[BOB], &letter(ALICE, BOB, 2)).await?;
    let sent = tests::world::accepted_as(&sent).ok_or("no id for what was submitted")?;
    world.desk("bob").filed(Folder::In, &sent).await?;

    filler.leave(2)?;
    until("port 25 answers 421 instead of a greeting", SOON, async || {
        match SmtpClient::connect(world.smtp_address()).await {
            Err(SmtpError::Answered { reply, .. }) if reply.code == 421 => Ok(Some(())),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(None),
        }
    })
    .await?;
    shown(&world, Level::Full).await?;
    world.desk("alice").raw(&first).await?;
    collected(&world, &trip).await?;

    filler.remove()?;
    until("port 25 takes mail again", SOON, async || {
        let Ok(mut session) = world.smtp().await else { return Ok(None) };
        let reply = session.command(&format!("MAIL FROM:<{CAROL}>")).await?;
        Ok((reply.code == 250).then_some(()))
    })
    .await?;
    let third = world.receive(&[ALICE], &letter(CAROL, ALICE, 3)).await?;
    let desk = world.desk("alice");
    desk.filed(Folder::In, &third).await?;
    let inside = [("alice", third, letter(CAROL, ALICE, 3)), ("bob", sent, letter(ALICE, BOB, 2))];
    for (person, id, expected) in inside {
        if without_trace(&world.desk(person).raw(&id).await?) != expected {
            return Err(format!("what {person} has is not what was accepted").into());
        }
    }
    // Alice's first went to Trash with her client's DELE; each is there once.
    let count =
        async |person: &str, folder| Ok::<_, Trouble>(world.desk(person).messages(folder).await?.len());
    until("her client's DELE has come home", SOON, async || {
        Ok((count("alice", Folder::Trash).await? == 1).then_some(()))
    })
    .await?;
    let counts = (count("alice", Folder::In).await?, count("bob", Folder::In).await?);
    if counts != (1, 1) {
        return Err(format!("alice and bob have {counts:?} messages, not 1 each").into());
    }
    world.end().await
}

/// Messages that come while big has no room: more than it had granted credit for before, which is 4 MiB and a batch
/// (they are compressed to three quarters).
const SPOOLED: u64 = 200;
/// Octets of each, which travel inside their units.
const SPOOLED_OCTETS: usize = 45_000;

fn spooled(number: u64) -> Vec<u8> {
    let token = Token { seed: 2, number };
    Letter { from: CAROL, to: ALICE, subject: "spooled", token }.with_attachment("a.bin", SPOOLED_OCTETS)
}

/// The story of one file system that is big's alone. Neither node is started again in it.
async fn fill_big(pair: &Path, folder: &Path, small: &Mounted, short: Short) -> Result<(), Trouble> {
    let internet = Internet::start(None).await?;
    let (dns, port) = (internet.dns.address(), internet.mta.address().port());
    let state = tempfile::Builder::new().prefix("big-small").tempdir_in(folder)?;
    let topology = TestTopology::new(state.path().join("state"), dns, port)?;
    let program = Program::at(pair);
    drop(Nodes::init(topology.clone(), program.clone(), program.clone()).await?);
    let bound = Bound::over(&topology.big_state(), small)?;
    let world = World::of(program, topology, internet, None).await?;
    world.pair().await?;
    world.add_people().await?;
    let mut accepted = vec![(1, world.receive(&[ALICE], &spooled(1)).await?)];
    let desk = world.desk("alice");
    desk.filed(Folder::In, &accepted[0].1).await?;
    let filed = async || Ok::<_, Trouble>(desk.messages(Folder::In).await?.len());

    let filler = Filler::new(small.path.join("filler"), short)?;
    filler.leave(1)?;
    big_shows(&world, |level| level == Level::Closed).await?;
    for number in 2..2 + SPOOLED {
        accepted.push((number, world.receive(&[ALICE], &spooled(number)).await?));
    }
    filler.leave(2)?;
    big_shows(&world, |level| level == Level::Full).await?;
    filler.ease(2)?;
    filler.ease(1)?;
    // Each longer than it has to be calm before a level falls: what there is is not enough. What had been granted before
    // has come by then.
    tokio::time::sleep(CALM_TIME * 2).await;
    let before = filed().await?;
    tokio::time::sleep(CALM_TIME * 2).await;
    let link = world.big().link().await?;
    if link.pressure.level.takes_mail() || !link.connected {
        return Err(format!("with too little room big shows {:?}", link.pressure).into());
    }
    if filed().await? != before || before >= accepted.len() {
        return Err(format!("mail was taken without room: {before} of {}", accepted.len()).into());
    }
    desk.raw(&accepted[0].1).await?;

    filler.remove()?;
    big_shows(&world, Level::takes_mail).await?;
    for (number, id) in &accepted {
        desk.filed(Folder::In, id).await?;
        if without_trace(&desk.raw(id).await?) != spooled(*number) {
            return Err(format!("{number} is not what was accepted").into());
        }
    }
    world.quiet().await?;
    if filed().await? != accepted.len() {
        return Err("each is not there once".into());
    }
    world.end().await?;
    drop(bound);
    Ok(())
}

/// Waits until big's `link status` shows such a level.
async fn big_shows(world: &World, is_so: impl Fn(Level) -> bool) -> Result<(), Trouble> {
    until("big shows the level", SOON, async || {
        Ok(is_so(world.big().link().await?.pressure.level).then_some(()))
    })
    .await
}

/// Waits until both nodes, who share the file system, show `level` and take no mail.
async fn shown(world: &World, level: Level) -> Result<(), Trouble> {
    until("both nodes show the level", SOON, async || {
        let (edge, _): (LinkView, _) = world.edge().ask(EdgeRequest::LinkStatus, Vec::new()).await?;
        let big = world.big().link().await?;
        let as_expected = |link: &LinkView| {
            link.pressure.level == level && link.alarms.iter().any(|alarm| alarm.contains("no mail is taken"))
        };
        Ok((as_expected(&edge) && as_expected(&big)).then_some(()))
    })
    .await
}

/// The traveller collects and deletes.
async fn collected(world: &World, trip: &Started) -> Result<(), Trouble> {
    let mut session = world.pop3s(&trip.user, &trip.password).await?;
    if without_trace(&session.retr(1).await?) != letter(CAROL, ALICE, 1) {
        return Err("what was collected is not what was accepted".into());
    }
    session.dele(1).await?;
    Ok(session.quit().await?)
}

fn letter(from: &str, to: &str, number: u64) -> Vec<u8> {
    Letter { from, to, subject: "room", token: Token { seed: 1, number } }.text(SHORT)
}

/// What fills the file system up.
struct Filler {
    folder: PathBuf,
    short: Short,
}

impl Filler {
    fn new(folder: PathBuf, short: Short) -> io::Result<Self> {
        fs::create_dir(&folder)?;
        Ok(Self { folder, short })
    }

    /// Leaves less than the threshold of that step (see [`FREE_BYTES`]), and enough above the next.
    fn leave(&self, step: usize) -> io::Result<()> {
        match self.short {
            Short::Bytes => {
                let block = vec![0x55; STEP_BYTES];
                let mut file = fs::File::options().create(true).append(true).open(self.folder.join("0"))?;
                while self.free()? >= FREE_BYTES[step] - 12 * STEP_BYTES as u64 {
                    io::Write::write_all(&mut file, &block)?;
                }
                file.sync_all()
            }
            Short::Inodes => {
                let made = fs::read_dir(&self.folder)?.count();
                for number in made.. {
                    if self.free()? < FREE_INODES[step] - 30 {
                        break;
                    }
                    fs::File::create(self.folder.join(number.to_string()))?;
                }
                Ok(())
            }
        }
    }

    /// Gives back as much as brings what is left above the threshold of that step, but not above the one at which the
    /// level falls, which is an eighth higher.
    fn ease(&self, step: usize) -> io::Result<()> {
        match self.short {
            Short::Bytes => {
                let file = fs::File::options().write(true).open(self.folder.join("0"))?;
                let wanted = FREE_BYTES[step] + 2 * STEP_BYTES as u64;
                let length = file.metadata()?.len();
                file.set_len(length.saturating_sub(wanted.saturating_sub(self.free()?)))?;
                file.sync_all()
            }
            Short::Inodes => {
                for entry in fs::read_dir(&self.folder)? {
                    if self.free()? >= FREE_INODES[step] + 10 {
                        break;
                    }
                    fs::remove_file(entry?.path())?;
                }
                Ok(())
            }
        }
    }

    fn free(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.folder)?;
        Ok(match self.short {
            Short::Bytes => space.f_bavail * space.f_frsize,
            Short::Inodes => space.f_favail,
        })
    }

    fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}

/// A file system that is unmounted when dropped.
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
}

impl Mounted {
    pub(crate) fn at(path: PathBuf, kind: Kind) -> Result<Self, String> {
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        let mut mount = Command::new("mount");
        match kind {
            Kind::Tmpfs(options) => mount.args(["-t", "tmpfs", "-o", options, "sallypost-test"]),
            Kind::Ext4(mib) => {
                let image = path.with_extension("ext4");
                let made = fs::File::create(&image).and_then(|file| file.set_len(mib << 20));
                made.map_err(|error| error.to_string())?;
                run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
                mount.args(["-o", "loop"]).arg(&image)
            }
        };
        run(mount.arg(&path))?;
        Ok(Self { path })
    }
}

/// A state that lies on a small file system, until this is dropped.
pub(crate) struct Bound(PathBuf);

impl Bound {
    /// Moves a node's state, which is made and not in use, onto `disk`.
    pub(crate) fn over(state: &Path, disk: &Mounted) -> Result<Self, Trouble> {
        run(Command::new("cp").arg("-a").arg(state.join(".")).arg(&disk.path))?;
        fs::remove_dir_all(state)?;
        fs::create_dir(state)?;
        run(Command::new("mount").arg("--bind").arg(&disk.path).arg(state))?;
        Ok(Self(state.to_owned()))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("a small file system could not be mounted: {command:?}: {other:?}")),
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a node that was not ended in time may still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
