//! Two network namespaces joined by a cable: an edge's DMZ, and an Internet that is one host with many addresses.
//!
//! The addresses are TEST-NET-1 (RFC 5737) and there is no way out. Both namespaces bear this
//! process's number, and go when this value is dropped; nothing of the machine's own network is
//! touched.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::netns::{End, Namespace, ip, within};
use tests::wait::Trouble;
use tests::wire::Wire;

/// The edge.
pub const EDGE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The name server of every zone, and where connections within the Internet come from.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// The resolver that all ask.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 54);
/// The web host.
pub const WEB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// Where iproute2 looks for the files that a namespace has of its own.
const ETC: &str = "/etc/netns";

/// The two namespaces.
pub struct Namespaces {
    edge: Host,
    internet: Host,
}

/// One of them, and the files it has of its own.
struct Host {
    namespace: Namespace,
    etc: PathBuf,
}

impl Namespaces {
    /// Makes them; needs root. The Internet has these addresses beside those above.
    pub async fn make(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Result<Self, Trouble> {
        let number = std::process::id();
        let edge = Host::make(format!("sp-dmz-{number}")).await?;
        let internet = Host::make(format!("sp-net-{number}")).await?;
        Namespace::join(edge.end(EDGE), internet.end(NAME_SERVER)).await?;
        for address in [RESOLVER, WEB].into_iter().chain(addresses) {
            ip(&format!("-n {} addr add {address}/24 dev eth0", internet.namespace.name())).await?;
        }
        Ok(Self { edge, internet })
    }

    /// What to put before a command that is to run on the edge.
    pub fn on_edge(&self) -> [&str; 4] {
        within(self.edge.namespace.name())
    }

    /// `program`, to be run on the Internet.
    pub fn on_internet(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.internet.namespace.name()]).arg(program.as_ref());
        command
    }

    /// Gives the Internet a file of its own in /etc, where the machine has one of that name.
    pub fn file(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.internet.etc.join(name), text)
    }

    /// A connection of the edge's own.
    pub fn connect_on_edge(&self, to: SocketAddr) -> io::Result<Wire> {
        connect(&self.edge.namespace, to)
    }

    /// A connection on the Internet.
    pub fn connect_on_internet(&self, to: SocketAddr) -> io::Result<Wire> {
        connect(&self.internet.namespace, to)
    }

    /// A socket that listens on the Internet.
    pub fn listen_on_internet(&self, at: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let listener = self.internet.namespace.within(|| TcpListener::bind(at))?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    }
}

fn connect(namespace: &Namespace, to: SocketAddr) -> io::Result<Wire> {
    let stream = namespace.within(|| TcpStream::connect(to))?;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream).map(Wire::new)
}

impl Host {
    async fn make(name: String) -> Result<Self, Trouble> {
        let etc = Path::new(ETC).join(&name);
        let namespace = Namespace::make(name).await?;
        let host = Self { namespace, etc };
        fs::create_dir_all(&host.etc)?;
        // Who asks believes that resolver's AD bit, as MTAs do that know DANE and validate nothing themselves.
        let text = format!("nameserver {RESOLVER}\noptions edns0 trust-ad\n");
        fs::write(host.etc.join("resolv.conf"), text)?;
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
