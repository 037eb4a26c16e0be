//! Both nodes of a run: made, paired, started, killed and started again.
//!
//! Only what their command lines offer is used, as an administrator would.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;

use crate::control::{CommandError, Commands};
use crate::process::{Node, ProcessError, Program, Running};
use crate::ready::{BigReady, EdgeReady};
use crate::topology::TestTopology;

/// How long a node may take to become ready, recovery included.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to end when asked.
pub const END_WITHIN: Duration = Duration::from_secs(30);

/// Why the nodes are not what a run needs.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// The topology could not be written, or a state not removed.
    #[error("the topology or a state could not be written: {0}")]
    Topology(#[from] std::io::Error),
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A process failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Both nodes.
#[derive(Debug)]
pub struct Nodes {
    /// What they read.
    pub topology: TestTopology,
    /// Where it is written.
    pub file: PathBuf,
    /// Big's commands.
    pub big: Commands,
    /// Edge's commands.
    pub edge: Commands,
    big_process: Option<(Running, BigReady)>,
    edge_process: Option<(Running, EdgeReady)>,
}

#[derive(Deserialize)]
struct Invitation {
    ticket: String,
}

impl Nodes {
    /// Writes the topology and makes both nodes, unless they are there from an earlier run; nothing
    /// runs yet.
    pub async fn init(topology: TestTopology, big: Program, edge: Program) -> Result<Self, NodesError> {
        let file = topology.write()?;
        let nodes = Self {
            big: Commands::new(big, Node::Big, &file),
            edge: Commands::new(edge, Node::Edge, &file),
            topology,
            file,
            big_process: None,
            edge_process: None,
        };
        for (commands, state) in
            [(&nodes.edge, nodes.topology.edge_state()), (&nodes.big, nodes.topology.big_state())]
        {
            if !state.exists() {
                commands.run(&["init"]).await?;
            }
        }
        Ok(nodes)
    }

    /// Makes both nodes, starts them and pairs them.
    pub async fn paired(topology: TestTopology, big: Program, edge: Program) -> Result<Self, NodesError> {
        let mut nodes = Self::init(topology, big, edge).await?;
        nodes.start_edge().await?;
        nodes.start_big().await?;
        nodes.pair().await?;
        Ok(nodes)
    }

    /// Pairs both nodes, which must be running.
    pub async fn pair(&self) -> Result<(), NodesError> {
        let invitation: Invitation = self.edge.json(&["invite"]).await?;
        self.big.run(&["pair", &invitation.ticket]).await?;
        Ok(())
    }

    /// Starts one of them, in place of the one that ran.
    pub async fn start(&mut self, node: Node) -> Result<(), NodesError> {
        match node {
            Node::Edge => self.start_edge().await.map(drop),
            Node::Big => self.start_big().await.map(drop),
        }
    }

    /// The commands of one of them, and how it is started.
    pub fn commands(&mut self, node: Node) -> &mut Commands {
        match node {
            Node::Edge => &mut self.edge,
            Node::Big => &mut self.big,
        }
    }

    /// Starts edge, in place of the one that ran.
    pub async fn start_edge(&mut self) -> Result<&EdgeReady, NodesError> {
        self.edge_process = None;
        let log = self.topology.state.join("edge.log");
        let started = Running::start(self.edge.command(&["serve"]), &log, READY_WITHIN).await?;
        Ok(&self.edge_process.insert(started).1)
    }

    /// Starts big, in place of the one that ran.
    pub async fn start_big(&mut self) -> Result<&BigReady, NodesError> {
        self.big_process = None;
        let log = self.topology.state.join("big.log");
        let started = Running::start(self.big.command(&["serve"]), &log, READY_WITHIN).await?;
        Ok(&self.big_process.insert(started).1)
    }

    /// Where the edge that runs is.
    ///
    /// # Panics
    /// If it does not run.
    pub fn edge_ready(&self) -> &EdgeReady {
        &self.edge_process.as_ref().expect("edge runs").1
    }

    /// Where the big that runs is.
    ///
    /// # Panics
    /// If it does not run.
    pub fn big_ready(&self) -> &BigReady {
        &self.big_process.as_ref().expect("big runs").1
    }

    /// `kill -9`, if it runs; returns once the process is gone.
    pub async fn kill(&mut self, node: Node) -> Result<(), NodesError> {
        if let Some(running) = self.take(node) {
            running.kill().await?;
        }
        Ok(())
    }

    /// `kill -9`, and everything that the node kept is gone, as with its disk.
    pub async fn destroy(&mut self, node: Node) -> Result<(), NodesError> {
        self.kill(node).await?;
        Ok(std::fs::remove_dir_all(self.state_of(node))?)
    }

    /// Where a node keeps its state.
    pub fn state_of(&self, node: Node) -> PathBuf {
        match node {
            Node::Big => self.topology.big_state(),
            Node::Edge => self.topology.edge_state(),
        }
    }

    /// Lets a node write no file beyond so many octets, as far as it likes with `None`; its program has to be one
    /// [with bounded files](Program::with_bounded_files).
    pub fn bound_files(&self, node: Node, octets: Option<u64>) -> Result<(), NodesError> {
        self.running(node).map_or(Ok(()), |running| running.bound_files(octets)).map_err(Into::into)
    }

    /// Stops a node where it is, if it runs, until it is [thawed](Self::thaw).
    pub fn freeze(&self, node: Node) -> Result<(), NodesError> {
        self.running(node).map_or(Ok(()), Running::freeze).map_err(Into::into)
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self, node: Node) -> Result<(), NodesError> {
        self.running(node).map_or(Ok(()), Running::thaw).map_err(Into::into)
    }

    /// Asks the node to end, if it runs, and waits until it has.
    pub async fn stop(&mut self, node: Node) -> Result<(), NodesError> {
        if let Some(running) = self.take(node) {
            running.terminate(END_WITHIN).await?;
        }
        Ok(())
    }

    /// Waits until one of the nodes ends by itself, which it should not, and says how.
    pub async fn failure(&mut self) -> Result<(Node, ExitStatus), NodesError> {
        async fn end<R>(process: &mut Option<(Running, R)>) -> Result<ExitStatus, ProcessError> {
            match process {
                Some((running, _)) => running.gone().await,
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            ended = end(&mut self.big_process) => Ok((Node::Big, ended?)),
            ended = end(&mut self.edge_process) => Ok((Node::Edge, ended?)),
        }
    }

    fn running(&self, node: Node) -> Option<&Running> {
        match node {
            Node::Big => self.big_process.as_ref().map(|(running, _)| running),
            Node::Edge => self.edge_process.as_ref().map(|(running, _)| running),
        }
    }

    fn take(&mut self, node: Node) -> Option<Running> {
        match node {
            Node::Big => self.big_process.take().map(|(running, _)| running),
            Node::Edge => self.edge_process.take().map(|(running, _)| running),
        }
    }
}
