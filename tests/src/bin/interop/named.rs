//! The edge's name, and an authority that vouches for it: clients are configured by these, as travellers' are, and check
//! what they are shown. So that clients find the one and, where they trust whom the system trusts, the other, this
//! program runs in a mount namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use tests::wait::Trouble;

use crate::certificates::Authority;

/// The edge's name, as the project's topology has it.
const HOST: &str = "mx.example.com";
/// Where the files are that everything here is told of; set inside the namespace.
const INSIDE: &str = "INTEROP_NAMED";
const HOSTS: &str = "/etc/hosts";
/// Whom the system trusts, on Debian.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";
const MOUNT: &str = "mount --bind \"$1\" \"$2\" && { [ ! -e \"$4\" ] || mount --bind \"$3\" \"$4\"; } && shift 4 && \
                     exec \"$@\"";

/// The files.
pub struct Named(PathBuf);

impl Named {
    /// Those that this program was told of; `None` outside the namespace.
    pub fn here() -> Option<Self> {
        std::env::var_os(INSIDE).map(|folder| Self(folder.into()))
    }

    /// The authority's certificate, in PEM.
    pub fn authority(&self) -> PathBuf {
        self.0.join("authority.pem")
    }

    /// The project's topology, with a certificate from the authority.
    pub fn topology(&self) -> PathBuf {
        self.0.join("topology.toml")
    }

    fn make(folder: &Path) -> Result<(), Trouble> {
        let authority = Authority::new()?;
        let certified = authority.issue([HOST.to_owned()])?;
        let named = Self(folder.to_owned());
        fs::write(named.authority(), &authority.pem)?;
        fs::write(folder.join("chain.pem"), &certified.chain)?;
        certified.write_key(&folder.join("key.pem"))?;
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topology.toml");
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        let tls = format!("\n[edge.tls]\ncertificate = {chain:?}\nkey = {key:?}\n");
        fs::write(named.topology(), fs::read_to_string(project)? + &tls)?;
        let hosts = fs::read_to_string(HOSTS).unwrap_or_default();
        fs::write(folder.join("hosts"), format!("{hosts}\n127.0.0.1 {HOST}\n"))?;
        let trusted = fs::read_to_string(TRUSTED).unwrap_or_default();
        fs::write(folder.join("trusted.pem"), trusted + &authority.pem)?;
        Ok(())
    }
}

/// Runs this program once more, inside the namespace; how it ended. `None`, if this is inside, or cannot be without root.
pub fn again() -> Result<Option<ExitCode>, Trouble> {
    if Named::here().is_some() || !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("interop-named").tempdir()?;
    // Clients that are not root read the authority's.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Named::make(folder.path())?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh"]);
    command.arg(folder.path().join("hosts")).arg(HOSTS).arg(folder.path().join("trusted.pem")).arg(TRUSTED);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    let ended = command.env(INSIDE, folder.path()).status()?;
    folder.close()?;
    Ok(Some(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}
