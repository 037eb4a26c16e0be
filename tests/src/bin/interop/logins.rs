//! Who checks Postfix's logins: a Dovecot that does nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dovecot::Daemon;

/// What it offers, in Dovecot's names. Postfix may offer less.
const MECHANISMS: &str = "plain login scram-sha-256";

/// A Dovecot that knows one user. It ends when it is dropped.
pub struct Logins {
    socket: PathBuf,
    _daemon: Daemon,
}

impl Logins {
    /// Starts it with its files in `folder`.
    pub fn start(folder: &Path, user: &str, password: &str) -> std::io::Result<Self> {
        fs::write(folder.join("users"), format!("{user}:{{PLAIN}}{password}::::::\n"))?;
        let _daemon = Daemon::start(folder, &dovecot_conf(folder))?;
        Ok(Self { socket: socket(folder), _daemon })
    }

    /// Whether it can be asked.
    pub fn are_here(&self) -> bool {
        self.socket.exists()
    }
}

/// What Postfix's main.cf in the same folder says of it: logins are for those under TLS.
pub fn main_cf(folder: &Path) -> String {
    format!(
        "smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {}
smtpd_tls_auth_only = yes
",
        socket(folder).display()
    )
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("sasl")
}

/// Without the delays by which Dovecot slows guessing down.
fn dovecot_conf(folder: &Path) -> String {
    let (socket, folder) = (socket(folder), folder.display());
    format!(
        "protocols = none
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
ssl = no
auth_mechanisms = {MECHANISMS}
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {} {{
    mode = 0600
    user = postfix
  }}
}}
",
        socket.display()
    )
}
