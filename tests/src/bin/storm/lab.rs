//! The lab: three namespaces, for the Internet, the edge's DMZ and the inside, joined by two cables.
//!
//! ```text
//!   load, DNS, MTA ──dmz0── edge-node ──line0── big-node
//! ```
//!
//! Only the link's cable is ever disturbed, so that every client reaches the edge whatever the weather.
//! The addresses are TEST-NETs (RFC 5737). This program makes the lab and then runs itself again on the
//! Internet's side of it: the load, too, leaves the machine's own network alone. When this program is
//! told to stop, or is gone, the one inside ends, and its nodes with it.

use std::net::Ipv4Addr;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use tests::netns::{End, Namespace, NetworkError, within};
use tests::process::{EXIT_ON_STDIN_EOF, Program, installed};
use tests::site::Hosts;
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

/// Where the load, the DNS server and the other MTA are.
const INTERNET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Where edge serves them.
const EDGE_OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where edge listens for the link.
const EDGE_INSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Where big dials from.
const BIG: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// What the link's cable is called at both its ends.
pub const LINK_DEVICE: &str = "line0";
/// What the other cable is called at both its ends.
const DMZ_DEVICE: &str = "dmz0";
/// What is needed besides root.
const PROGRAMS: [&str; 2] = ["ip", "nft"];

/// The names in a lab: they bear the number of the process that made it.
#[derive(Clone, Copy, Debug)]
pub struct Lab(pub u32);

impl Lab {
    fn internet(self) -> String {
        format!("sp-storm-net-{}", self.0)
    }

    /// The edge's namespace.
    pub fn edge(self) -> String {
        format!("sp-storm-dmz-{}", self.0)
    }

    /// Big's namespace.
    pub fn big(self) -> String {
        format!("sp-storm-in-{}", self.0)
    }

    /// Its hosts, as a site sees them.
    pub fn hosts(self) -> std::io::Result<Hosts> {
        let program = Program::this()?;
        Ok(Hosts {
            internet: INTERNET,
            edge_outside: EDGE_OUTSIDE,
            edge_inside: EDGE_INSIDE,
            edge: program.clone().through(&within(&self.edge())),
            big: program.through(&within(&self.big())),
        })
    }
}

/// What this machine lacks for a lab, if anything.
pub fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("root, who may make network namespaces");
    }
    PROGRAMS.into_iter().find(|program| !installed(program))
}

/// Makes a lab, runs this program inside it with the same options, and removes the lab.
pub async fn run_inside() -> Result<ExitCode, Failure> {
    let lab = Lab(std::process::id());
    let namespaces = build(lab).await?;
    let name = lab.internet();
    let [ip, netns, exec, name] = within(&name);
    let mut command = Command::new(ip);
    command.args([netns, exec, name]).arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("--lab").arg(lab.0.to_string());
    // As for a node: it ends when nobody holds its standard input.
    command.stdin(Stdio::piped()).env(EXIT_ON_STDIN_EOF, "1");
    let ended = until_ended(command.spawn()?).await?;
    drop(namespaces);
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends this process when whoever made the lab is gone; to be called inside it.
pub fn end_with_maker() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}

async fn build(lab: Lab) -> Result<[Namespace; 3], NetworkError> {
    let internet = Namespace::make(lab.internet()).await?;
    let edge = Namespace::make(lab.edge()).await?;
    let big = Namespace::make(lab.big()).await?;
    let end = |namespace, device, address| End { namespace, device, address };
    Namespace::join(end(&internet, DMZ_DEVICE, INTERNET), end(&edge, DMZ_DEVICE, EDGE_OUTSIDE)).await?;
    Namespace::join(end(&edge, LINK_DEVICE, EDGE_INSIDE), end(&big, LINK_DEVICE, BIG)).await?;
    Ok([internet, edge, big])
}

async fn until_ended(mut child: Child) -> Result<ExitStatus, Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let held = child.stdin.take();
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    tokio::select! {
        status = &mut ended => return Ok(status??),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(held);
    Ok(ended.await??)
}
