//! Two network namespaces joined by a cable: an edge's DMZ, and an Internet of one host.
//!
//! The addresses are TEST-NET-1 (RFC 5737) and there is no way out. Both namespaces bear this
//! process's number, and go when this value is dropped; nothing of the machine's own network is
//! touched.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::process::finish;

use crate::clients::CLIENT_WITHIN;

/// The edge.
pub const EDGE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The host on the Internet.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The DNS server of both.
pub const DNS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// Where iproute2 looks for the files that a namespace has of its own.
const ETC: &str = "/etc/netns";

/// The two namespaces.
pub struct Namespaces {
    edge: String,
    remote: String,
}

impl Namespaces {
    /// Makes them; needs root.
    pub async fn make() -> Result<Self, String> {
        let number = std::process::id();
        let namespaces = Self { edge: format!("sp-dmz-{number}"), remote: format!("sp-net-{number}") };
        let Self { edge, remote } = &namespaces;
        let (link, peer) = ("eth0", "eth0");
        for name in [edge, remote] {
            ip(&format!("netns add {name}")).await?;
            ip(&format!("-n {name} link set lo up")).await?;
            let folder = etc(name);
            fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
            fs::write(folder.join("resolv.conf"), format!("nameserver {DNS}\n"))
                .map_err(|e| e.to_string())?;
        }
        ip(&format!("link add {link} netns {edge} type veth peer name {peer} netns {remote}")).await?;
        for (name, address) in [(edge, EDGE), (remote, REMOTE), (remote, DNS)] {
            ip(&format!("-n {name} addr add {address}/24 dev eth0")).await?;
        }
        for name in [edge, remote] {
            ip(&format!("-n {name} link set eth0 up")).await?;
        }
        Ok(namespaces)
    }

    /// What to put before a command that is to run on the edge.
    pub fn on_edge(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.edge]
    }

    /// `program`, to be run on the Internet's host.
    pub fn on_remote(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.remote]).arg(program.as_ref());
        command
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // What cannot be removed was never made.
        for name in [&self.edge, &self.remote] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
            let _ = fs::remove_dir_all(etc(name));
        }
    }
}

fn etc(name: &str) -> PathBuf {
    Path::new(ETC).join(name)
}

async fn ip(words: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    let done = finish(command, b"", CLIENT_WITHIN).await.map_err(|e| e.to_string())?;
    if done.status.success() { Ok(()) } else { Err(format!("ip {words}: {}", done.stderr.trim())) }
}
