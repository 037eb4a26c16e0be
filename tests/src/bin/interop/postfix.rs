//! Debian's Postfix with a configuration of its own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use tests::wait::Trouble;

use crate::clients::run;

/// Makes its folders and writes its configuration into `folder`; `main_cf` says what is special about it, and `services`
/// what listens.
pub fn write(folder: &Path, main_cf: &str, services: &str) -> std::io::Result<()> {
    for (name, owner) in [("etc", 0), ("queue", 0), ("data", account("postfix")?)] {
        fs::create_dir_all(folder.join(name))?;
        chown(folder.join(name), Some(owner), None)?;
    }
    fs::write(folder.join("etc/main.cf"), installed(folder) + main_cf)?;
    fs::write(folder.join("etc/master.cf"), services.to_owned() + MASTER_CF)
}

/// One that runs. It ends when it is dropped.
pub struct Postfix {
    stop: Command,
}

impl Postfix {
    /// Starts what is configured in `folder`.
    pub async fn start(folder: &Path) -> Result<Self, Trouble> {
        let command = |verb| {
            let mut command = Command::new("postfix");
            command.arg("-c").arg(folder.join("etc")).arg(verb);
            command
        };
        let postfix = Self { stop: command("stop") };
        run(command("start"), None).await?;
        Ok(postfix)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.stop.output();
    }
}

/// Its services but those that listen.
const MASTER_CF: &str = "\
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
";

/// The number of an account.
fn account(name: &str) -> std::io::Result<u32> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name));
    let number = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
    number.ok_or_else(|| std::io::Error::other(format!("there is no account {name}")))
}

/// Where it finds Debian's programs and accounts, and what is its own.
fn installed(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
"
    )
}
