//! postfix-mta-sts-resolver, which tells Postfix what the MTA-STS policies of domains have it insist on.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tests::wait::{SOON, Trouble, until};

use super::daemon::Daemon;
use crate::namespaces::{NAME_SERVER, Namespaces};

/// Its program.
pub const PROGRAM: &str = "mta-sts-daemon";
/// Where it is asked.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(NAME_SERVER), 8461);

/// Starts it with its files in `folder`, and waits until it listens. The host of policies has this certificate.
pub async fn start(namespaces: &Namespaces, folder: &Path, certificate: &str) -> Result<Daemon, Trouble> {
    fs::create_dir_all(folder)?;
    let (roots, configuration) = (folder.join("roots.pem"), folder.join("daemon.yml"));
    fs::write(&roots, certificate)?;
    let (host, port) = (ADDRESS.ip(), ADDRESS.port());
    fs::write(&configuration, format!("host: {host}\nport: {port}\ncache:\n  type: internal\n"))?;
    // Its library of TLS trusts whom this names.
    let mut command = namespaces.on_internet("env");
    command.arg(format!("SSL_CERT_FILE={}", roots.display())).arg(PROGRAM).arg("-c").arg(&configuration);
    let daemon = Daemon::start(command, &folder.join("log"))?;
    let listens = until("postfix-mta-sts-resolver listens", SOON, async || {
        Ok(namespaces.connect_on_internet(ADDRESS).ok().map(drop))
    });
    listens.await.map_err(|trouble| daemon.with_log(&trouble))?;
    Ok(daemon)
}
