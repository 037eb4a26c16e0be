//! The DNS of this Internet: BIND's programs sign the root and two zones below it, and BIND serves them and resolves.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::process::finish;
use tests::wait::{SOON, Trouble, until};

use super::daemon::Daemon;
use super::domains::{OUR_ZONE, THEIR_ZONE};
use crate::namespaces::{NAME_SERVER, Namespaces, RESOLVER};

/// How long one of BIND's programs may take.
const TOOL_WITHIN: Duration = Duration::from_secs(30);
/// Each zone's first lines.
const HEAD: &str = "$TTL 60\n@ SOA ns.example. hostmaster.example. 1 3600 60 86400 60\n@ NS ns.example.\n";

/// A running name server, which is the resolver, too. It ends when it is dropped.
pub struct Dns {
    /// The root's key, as a file of trust anchors has it.
    pub anchor: String,
    _named: Daemon,
}

impl Dns {
    /// Starts it with these lines in our zone and in that of the MTAs, its files in `folder`.
    pub async fn start(
        namespaces: &Namespaces,
        folder: &Path,
        ours: &str,
        theirs: &str,
    ) -> Result<Self, Trouble> {
        fs::create_dir_all(folder)?;
        let address = format!("ns.example. A {NAME_SERVER}\n");
        let root = format!("{THEIR_ZONE}. NS ns.example.\n{OUR_ZONE}. NS ns.example.\n{address}");
        // The two ways to deny that there is a record (RFC 4034 §4, RFC 5155).
        sign(folder, OUR_ZONE, ours, &[]).await?;
        sign(folder, THEIR_ZONE, &format!("{address}{theirs}"), &["-3", "-"]).await?;
        let key = sign(folder, ".", &root, &["-g"]).await?;
        fs::write(folder.join("hints"), format!(". 60 NS ns.example.\nns.example. 60 A {NAME_SERVER}\n"))?;
        let configuration = folder.join("named.conf");
        fs::write(&configuration, named_conf(folder, &key))?;
        let mut command = namespaces.on_internet("named");
        command.arg("-g").arg("-c").arg(&configuration);
        let named = Daemon::start(command, &folder.join("log"))?;
        let ready = until("BIND listens", SOON, async || {
            let at = |address| namespaces.connect_on_internet(SocketAddr::from((address, 53))).ok();
            Ok(at(NAME_SERVER).zip(at(RESOLVER)).map(drop))
        });
        ready.await.map_err(|trouble| named.with_log(&trouble))?;
        Ok(Self { anchor: format!(". 3600 IN DNSKEY {key}\n"), _named: named })
    }
}

/// Makes a key for the zone `apex` and signs it; what the key's record says. The zones below it, as far as they are signed
/// already, are put into it with `-g`.
async fn sign(folder: &Path, apex: &str, lines: &str, more: &[&str]) -> Result<String, Trouble> {
    let name = if apex == "." { "root" } else { apex };
    let zone = folder.join(name);
    fs::write(&zone, format!("{HEAD}{lines}"))?;
    let mut keygen = Command::new("dnssec-keygen");
    keygen.args(["-q", "-a", "ECDSAP256SHA256", "-f", "KSK", "-K"]).arg(folder).arg(apex);
    let made = run(keygen).await?;
    let file = fs::read_to_string(folder.join(format!("{}.key", made.trim())))?;
    let record = file.lines().find_map(|line| line.split_once(" DNSKEY "));
    let (_, key) = record.ok_or("dnssec-keygen has made no key")?;
    let mut signzone = Command::new("dnssec-signzone");
    // One key for everything, though it is marked as one that signs keys.
    signzone.args(["-q", "-S", "-z", "-K"]).arg(folder).arg("-d").arg(folder).args(["-o", apex]).args(more);
    run(arg(signzone, &zone)).await?;
    Ok(key.trim().to_owned())
}

fn arg(mut command: Command, path: &Path) -> Command {
    command.arg(path);
    command
}

async fn run(command: Command) -> Result<String, Trouble> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = finish(command, b"", TOOL_WITHIN).await?;
    if done.status.success() {
        Ok(String::from_utf8(done.stdout)?)
    } else {
        Err(format!("{name} ended with {}: {}", done.status, done.stderr).into())
    }
}

/// One program in two views: the authority for the zones, and a resolver that has nothing but the root's address and key.
fn named_conf(folder: &Path, key: &str) -> String {
    let zone = |apex: &str, file: &str| {
        format!("    zone \"{apex}\" {{ type primary; file \"{file}.signed\"; }};\n")
    };
    let zones = [zone(".", "root"), zone(THEIR_ZONE, THEIR_ZONE), zone(OUR_ZONE, OUR_ZONE)].concat();
    let folder = folder.display();
    let mut words = key.splitn(4, ' ');
    let numbers = words.by_ref().take(3).collect::<Vec<_>>().join(" ");
    let public = words.next().unwrap_or_default();
    format!(
        "options {{
    directory \"{folder}\";
    listen-on {{ {NAME_SERVER}; {RESOLVER}; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    allow-transfer {{ none; }};
    empty-zones-enable no;
    dnssec-validation yes;
}};
controls {{ }};
trust-anchors {{ \".\" static-key {numbers} \"{public}\"; }};
view \"authority\" {{
    match-destinations {{ {NAME_SERVER}; }};
    recursion no;
{zones}}};
view \"resolver\" {{
    match-destinations {{ {RESOLVER}; }};
    recursion yes;
    allow-recursion {{ any; }};
    zone \".\" {{ type hint; file \"hints\"; }};
}};
"
    )
}
