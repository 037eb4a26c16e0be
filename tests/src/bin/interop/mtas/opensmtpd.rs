//! OpenSMTPD, from Debian's package.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;

use tests::wait::Trouble;

use super::daemon::Daemon;
use super::domains::{Domain, domains_of, host};
use super::{Mta, SIZE_MAX, Words, unpacked};
use crate::namespaces::{NAME_SERVER, Namespaces};

/// What it is, and how it is told. It does without DANE.
pub const OPENSMTPD: Mta = Mta {
    name: "OpenSMTPD",
    label: "opensmtpd",
    address: super::address(30),
    clear: super::address(31),
    packages: &["opensmtpd"],
    start,
    tls: false,
    utf8: false,
    log: "log/start",
    words: Words { dane: None, sts: None, chunked: None, taken: None },
};

fn start(
    mta: &Mta,
    namespaces: &Namespaces,
    folder: &Path,
    _sts: Option<SocketAddr>,
) -> Result<Daemon, Trouble> {
    for name in ["spool", "lib/opensmtpd/empty", "run"] {
        fs::create_dir_all(folder.join(name))?;
    }
    chown(folder.join("key.pem"), Some(0), Some(0))?;
    let file = folder.join("smtpd.conf");
    fs::write(&file, configuration(mta, folder))?;
    let mounts = [
        (folder.join("spool"), "/var/spool"),
        (folder.join("lib"), "/var/lib"),
        (folder.join("run"), "/run"),
        (folder.join("program/usr/libexec"), "/usr/libexec"),
    ];
    let mut command = unpacked::command(namespaces, &mounts, &folder.join("program/usr/sbin/smtpd"));
    command.arg("-d").arg("-f").arg(file);
    Ok(Daemon::start(command, &folder.join("log/start"))?)
}

fn configuration(mta: &Mta, folder: &Path) -> String {
    let domains = domains_of(mta).iter().map(|domain| format!("\"{domain}\"")).collect::<Vec<_>>().join(", ");
    let (without_tls, at) = (Domain::Clear.ours(), host(&Domain::Clear.ours()));
    let Mta { address, clear, .. } = mta;
    let folder = folder.display();
    format!(
        "pki ours cert \"{folder}/chain.pem\"
pki ours key \"{folder}/key.pem\"
smtp max-message-size \"{SIZE_MAX}\"
listen on {address} port 25 tls pki ours hostname mx.plain.opensmtpd.example
listen on {clear} port 25 hostname mx.plain.opensmtpd.example
action \"local\" maildir \"{folder}/mail\" user nobody virtual {{ \"@\" = nobody }}
action \"clear\" relay host \"smtp+notls://{at}\" src {address} helo mx.plain.opensmtpd.example
action \"relay\" relay src {address} helo mx.plain.opensmtpd.example
match from any for domain {{ {domains} }} action \"local\"
match from src {NAME_SERVER} for domain \"{without_tls}\" action \"clear\"
match from src {NAME_SERVER} for any action \"relay\"
"
    )
}
