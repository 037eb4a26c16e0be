//! Network namespaces joined by cables: a small world in which a run may lose packets and pull
//! cables, and nothing of the machine's own network is touched.
//!
//! Needs root and iproute2. A namespace goes when its [`Namespace`] is dropped, and its cables with it.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{ProcessError, finish};

/// How long a command that changes the network may take.
const CHANGE_WITHIN: Duration = Duration::from_secs(30);
/// Where iproute2 keeps namespaces by their names.
const NAMES: &str = "/run/netns";

/// Why the network is not what a run needs.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A command could not be run to its end.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A command said no.
    #[error("`{command}`: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// What it said.
        reason: String,
    },
}

/// One end of a cable.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace it is in.
    pub namespace: &'a Namespace,
    /// The interface it is called there.
    pub device: &'a str,
    /// Its address, in a network of 24 bits.
    pub address: Ipv4Addr,
}

/// A network namespace that this program made.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes an empty one, with its loopback up.
    pub async fn make(name: String) -> Result<Self, NetworkError> {
        ip(&format!("netns add {name}")).await?;
        let namespace = Self { name };
        ip(&format!("-n {} link set lo up", namespace.name)).await?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does something in it, on a thread that ends with that: a socket that is made there stays there.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let namespace = File::open(Path::new(NAMES).join(&self.name))?;
        let inside = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        };
        let done = thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|_| Err(io::Error::other("what was done in a namespace panicked")))
    }

    /// Lays a cable between two, and sets both ends up.
    pub async fn join(one: End<'_>, other: End<'_>) -> Result<(), NetworkError> {
        let (near, far) = (one.namespace.name(), other.namespace.name());
        let peer = format!("type veth peer name {} netns {far}", other.device);
        ip(&format!("link add {} netns {near} {peer}", one.device)).await?;
        for End { namespace, device, address } in [one, other] {
            ip(&format!("-n {} addr add {address}/24 dev {device}", namespace.name)).await?;
            ip(&format!("-n {} link set {device} up", namespace.name)).await?;
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What cannot be removed was removed by somebody else.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// What to put before a command that is to run in the namespace `name`.
pub fn within(name: &str) -> [&str; 4] {
    ["ip", "netns", "exec", name]
}

/// Runs `ip` with `words`.
pub async fn ip(words: &str) -> Result<(), NetworkError> {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    run(command, "").await?;
    Ok(())
}

/// Runs nftables' `script` in the namespace `name`, all of it or nothing.
pub async fn nft(name: &str, script: &str) -> Result<(), NetworkError> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name, "nft", "-f", "-"]);
    run(command, script).await?;
    Ok(())
}

/// What nftables lists in the namespace `name` as `what`, such as `ruleset`; JSON (libnftables-json(5)).
pub async fn nft_list(name: &str, what: &str) -> Result<String, NetworkError> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name, "nft", "-j", "list"]).args(what.split(' '));
    run(command, "").await
}

async fn run(command: Command, input: &str) -> Result<String, NetworkError> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let done = finish(command, input.as_bytes(), CHANGE_WITHIN).await?;
    if !done.status.success() {
        return Err(NetworkError::Refused {
            command: words.join(" "),
            reason: done.stderr.trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
