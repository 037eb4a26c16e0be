//! What every mode of `pair` stands on: the topology made of the one given, the stand-in Internet, and
//! both nodes.

use std::fs;
use std::path::{Path, PathBuf};

use big_node::record::{AfterFetch, Scope, WindowState};
use shared::topology::Topology;
use tests::internet::{DOMAIN, Internet};
use tests::process::Program;
use tests::ready::{PairBig, PairEdge, PairInternet, PairLink, PairPerson, PairReady};
use tests::topology::TestTopology;
use tests::wait::Trouble;
use tests::world::{PEOPLE, World, first};

/// Who travels while `pair` stays.
pub const TRAVELLER: &str = "bob";

/// Which ports the nodes listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Those of the topology, so that a person can type them.
    AsWritten,
    /// Any, so that pairs run side by side.
    Free,
}

/// A pair that runs.
pub struct Stage {
    /// Both nodes and the Internet.
    pub world: World,
    mailbox_dir: PathBuf,
    temporary: bool,
}

/// `topology.toml` in this folder, or the one at the root of the project.
pub fn usual_topology() -> PathBuf {
    let here = PathBuf::from("topology.toml");
    match here.exists() {
        true => here,
        false => Path::new(env!("CARGO_MANIFEST_DIR")).join("../topology.toml"),
    }
}

/// Whether the folder holds anything.
pub fn is_used(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

impl Stage {
    /// Starts the Internet and both nodes.
    pub async fn set(file: &Path, state: Option<&Path>, ports: Ports) -> Result<Self, Trouble> {
        let written = Topology::read(file)?;
        let temporary = match state {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("sallypost").tempdir()?),
        };
        let folder = state.or(temporary.as_ref().map(|folder| folder.path())).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let folder = std::path::absolute(folder)?;
        let mailbox_dir = folder.join("internet");
        let internet = Internet::start(Some(mailbox_dir.clone())).await?;
        let (dns, port) = (internet.dns.address(), internet.mta.address().port());
        let mut topology = TestTopology::of(&written, folder, dns, port);
        if ports == Ports::Free {
            // Fixed, for what a traveller is told is what the file says.
            topology = topology.on_free_ports()?.with_fixed_ports()?;
        }
        let temporary_state = temporary.is_some();
        let world = World::of(Program::this()?, topology, internet, temporary).await?;
        Ok(Self { world, mailbox_dir, temporary: temporary_state })
    }

    /// Whether the state goes when the pair ends.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Pairs the nodes and makes the people, as far as that is still to be done.
    pub async fn open(&self) -> Result<(), Trouble> {
        self.world.pair().await?;
        self.world.add_people().await
    }

    /// Opens bob's standing window, in place of one from an earlier run whose password nobody knows any
    /// more; returns the new password once the edge takes it.
    pub async fn send_bob_travelling(&self) -> Result<String, Trouble> {
        let desk = self.world.desk(TRAVELLER);
        let windows = self.world.big().windows().await?;
        if windows.iter().any(|window| window.person == TRAVELLER && window.state == WindowState::Open) {
            desk.come_home().await?;
        }
        let started = desk.travel(Scope::All, AfterFetch::Keep).await?;
        self.world.first_pop3s(TRAVELLER, &started.password).await?.quit().await?;
        Ok(started.password)
    }

    /// Where everything is, for scripts and for the guide.
    pub fn ready(&self, bobs_password: &str) -> PairReady {
        let nodes = &self.world.nodes;
        let (edge, big) = (nodes.edge_ready(), nodes.big_ready());
        let person = |name: &&str| PairPerson {
            name: (*name).to_owned(),
            address: self.world.address(name),
            password: (*name == TRAVELLER).then(|| bobs_password.to_owned()),
        };
        PairReady {
            ready: true,
            edge: PairEdge {
                pid: edge.pid,
                smtp: first(&edge.smtp),
                submission: first(&edge.submission),
                submissions: first(&edge.submissions),
                pop3: first(&edge.pop3),
                pop3s: first(&edge.pop3s),
                state: nodes.topology.edge_state(),
            },
            big: PairBig { pid: big.pid, control: big.control.clone(), state: nodes.topology.big_state() },
            link: PairLink { address: edge.link },
            people: PEOPLE.iter().map(person).collect(),
            internet: PairInternet {
                dns: self.world.internet.dns.address(),
                smtp: self.world.internet.mta.address(),
                domain: DOMAIN.into(),
                mailbox_dir: self.mailbox_dir.clone(),
            },
            topology: nodes.file.clone(),
        }
    }
}
