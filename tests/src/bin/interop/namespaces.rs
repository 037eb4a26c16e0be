//! Two network namespaces joined by a cable: an edge's DMZ, and an Internet of one host.
//!
//! The addresses are TEST-NET-1 (RFC 5737) and there is no way out. Both namespaces bear this
//! process's number, and go when this value is dropped; nothing of the machine's own network is
//! touched.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::netns::{End, Namespace, ip, within};

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
    edge: Host,
    remote: Host,
}

/// One of them, and the files it has of its own.
struct Host {
    namespace: Namespace,
    etc: PathBuf,
}

impl Namespaces {
    /// Makes them; needs root.
    pub async fn make() -> Result<Self, String> {
        let number = std::process::id();
        let edge = Host::make(format!("sp-dmz-{number}")).await?;
        let remote = Host::make(format!("sp-net-{number}")).await?;
        let joined = Namespace::join(edge.end(EDGE), remote.end(REMOTE)).await;
        joined.map_err(|e| e.to_string())?;
        let second = format!("-n {} addr add {DNS}/24 dev eth0", remote.namespace.name());
        ip(&second).await.map_err(|e| e.to_string())?;
        Ok(Self { edge, remote })
    }

    /// What to put before a command that is to run on the edge.
    pub fn on_edge(&self) -> [&str; 4] {
        within(self.edge.namespace.name())
    }

    /// `program`, to be run on the Internet's host.
    pub fn on_remote(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.remote.namespace.name()]).arg(program.as_ref());
        command
    }
}

impl Host {
    async fn make(name: String) -> Result<Self, String> {
        let etc = Path::new(ETC).join(&name);
        let namespace = Namespace::make(name).await.map_err(|e| e.to_string())?;
        let host = Self { namespace, etc };
        fs::create_dir_all(&host.etc).map_err(|e| e.to_string())?;
        let text = format!("nameserver {DNS}\n");
        fs::write(host.etc.join("resolv.conf"), text).map_err(|e| e.to_string())?;
        Ok(host)
    }

    fn end(&self, address: Ipv4Addr) -> End<'_> {
        End { namespace: &self.namespace, device: "eth0", address }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What cannot be removed was never made.
        let _ = fs::remove_dir_all(&self.etc);
    }
}
