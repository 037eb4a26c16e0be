//! A whole site for a run: the paired nodes, their people, and the Internet they know, which is one
//! DNS server and one receiving MTA.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use big_node::directory::NewPerson;
use big_node::request::{PersonView, Queue, Request as BigRequest};
use shared::control::{CallError, socket_in};

use crate::ask;
use crate::internet::dns::{Dns, Zone};
use crate::internet::mta::{Mta, Options};
use crate::nodes::{Nodes, NodesError};
use crate::process::{ProcessError, Program};
use crate::topology::TestTopology;

/// The domain whose people live in the nodes.
pub const INSIDE: &str = "example.com";
/// The domain whose mail the receiving MTA takes.
pub const OUTSIDE: &str = "remote.example";
/// How long the nodes may take to find each other.
pub const JOIN_WITHIN: Duration = Duration::from_secs(30);
/// The pause between two looks at a node.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why a site is not what a run needs.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The stand-in Internet could not be started.
    #[error("the stand-in Internet could not be started: {0}")]
    Internet(#[from] std::io::Error),
    /// The nodes could not be made, or started.
    #[error(transparent)]
    Nodes(#[from] NodesError),
    /// A node refused a request, or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The link was not there in time.
    #[error("the link was not there within {JOIN_WITHIN:?}: {why}; see edge.log and big.log in {}", state.display())]
    NotJoined {
        /// What big says about it.
        why: String,
        /// Where the logs are.
        state: PathBuf,
    },
    /// Something was still on its way when it should have arrived.
    #[error("still on the way after {within:?}: {what}")]
    NotSettled {
        /// What.
        what: String,
        /// How long was waited.
        within: Duration,
    },
}

impl From<ProcessError> for SiteError {
    fn from(error: ProcessError) -> Self {
        Self::Nodes(error.into())
    }
}

/// A site that runs. Everything of it ends when it is dropped.
pub struct Site {
    /// The pair.
    pub nodes: Nodes,
    /// Who takes mail for [`OUTSIDE`].
    pub mta: Mta,
    _dns: Dns,
}

/// The hosts of a site whose nodes are not on loopback.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Where the stand-in Internet is: this process.
    pub internet: Ipv4Addr,
    /// Where edge serves the Internet.
    pub edge_outside: Ipv4Addr,
    /// Where edge listens for the link.
    pub edge_inside: Ipv4Addr,
    /// Edge's program, on its host.
    pub edge: Program,
    /// Big's program, on its host.
    pub big: Program,
}

impl Site {
    /// Makes a site on loopback in the folder `state`, whose nodes are this very program (see
    /// [`dispatch`](crate::process::dispatch)) and keep their ports when they are started again, and
    /// adds `people`.
    pub async fn start(state: &Path, people: &[String]) -> Result<Self, SiteError> {
        let program = Program::this()?;
        let adapt = |topology: TestTopology| topology.with_fixed_ports();
        Self::start_with(state, people, Ipv4Addr::LOCALHOST, adapt, program.clone(), program).await
    }

    /// The same, with each node on a host of its own.
    pub async fn start_on(hosts: Hosts, state: &Path, people: &[String]) -> Result<Self, SiteError> {
        let Hosts { internet, edge_outside, edge_inside, edge, big } = hosts;
        let adapt = |topology: TestTopology| Ok(topology.on_a_host(edge_outside, edge_inside));
        Self::start_with(state, people, internet, adapt, edge, big).await
    }

    async fn start_with(
        state: &Path,
        people: &[String],
        internet: Ipv4Addr,
        adapt: impl FnOnce(TestTopology) -> std::io::Result<TestTopology>,
        edge: Program,
        big: Program,
    ) -> Result<Self, SiteError> {
        let host = format!("mx.{OUTSIDE}");
        let any_port = SocketAddr::from((internet, 0));
        let mta = Mta::start(Options { listen: any_port, name: host.clone(), ..Options::default() }).await?;
        let zone = Zone::new(OUTSIDE).mx(10, &host).a(&host, internet);
        let dns = Dns::start_at(any_port, [zone]).await?;
        let topology = adapt(TestTopology::new(state, dns.address(), mta.address().port())?)?;
        let nodes = Nodes::paired(topology, big, edge).await?;
        let site = Self { nodes, mta, _dns: dns };
        for name in people {
            let person = NewPerson { name: name.clone(), ..NewPerson::default() };
            ask::big::<PersonView>(&site.big(), BigRequest::PersonAdd(person), Vec::new()).await?;
        }
        site.until_settled(JOIN_WITHIN).await?;
        Ok(site)
    }

    /// Big's control socket.
    pub fn big(&self) -> PathBuf {
        socket_in(&self.nodes.topology.big_state())
    }

    /// Edge's control socket.
    pub fn edge(&self) -> PathBuf {
        socket_in(&self.nodes.topology.edge_state())
    }

    /// Waits until a session between the nodes is open.
    pub async fn until_joined(&self) -> Result<(), SiteError> {
        let since = Instant::now();
        loop {
            let link = ask::big_link(&self.big()).await?;
            if link.connected {
                return Ok(());
            }
            if since.elapsed() > JOIN_WITHIN {
                let why = match link.alarms.is_empty() {
                    true => "big raises no alarm".to_owned(),
                    false => link.alarms.join("; "),
                };
                return Err(SiteError::NotJoined { why, state: self.nodes.topology.state.clone() });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until nothing is on its way any more: no unit unconfirmed, no message waiting for
    /// delivery. Nothing new may be sent meanwhile.
    pub async fn until_settled(&self, within: Duration) -> Result<(), SiteError> {
        let since = Instant::now();
        let mut quiet = 0;
        // What one node had just handed over may make the other send something: it takes two looks
        // in a row that find nothing.
        while quiet < 2 {
            match self.on_the_way().await? {
                None => quiet += 1,
                Some(what) if since.elapsed() > within => return Err(SiteError::NotSettled { what, within }),
                Some(_) => quiet = 0,
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// What is still on its way, in words.
    async fn on_the_way(&self) -> Result<Option<String>, CallError> {
        for (node, link) in
            [("big", ask::big_link(&self.big()).await?), ("edge", ask::edge_link(&self.edge()).await?)]
        {
            if !ask::is_confirmed(&link) {
                let state = if link.connected { "connected" } else { "not connected" };
                return Ok(Some(format!("{node} has unconfirmed units, {state}; {:?}", link.lanes)));
            }
        }
        let waiting = ask::edge_queue(&self.edge()).await?;
        if let Some(first) = waiting.first() {
            return Ok(Some(format!("{} messages wait on edge, first {first:?}", waiting.len())));
        }
        let (queue, _): (Queue, _) = ask::big(&self.big(), BigRequest::QueueList, Vec::new()).await?;
        let first = queue.messages.first();
        Ok(first
            .map(|first| format!("{} messages are not final on big, first {first:?}", queue.messages.len())))
    }
}
