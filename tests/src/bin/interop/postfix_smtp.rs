//! The SMTP conformance suite, held to Postfix: where it differs is listed, with the reason, in
//! `tests/smtp/postfix.differences`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use async_trait::async_trait;
use tests::dialogue::script::Message;
use tests::dialogue::{Maildrop, Peer, Protocol, Server};
use tests::wait::{SOON, Trouble, until};
use tests::wire::Wire;

use crate::clients::run;
use crate::dovecot::open_to_all;
use crate::held;
use crate::tally::Tally;

const CASE: &str = "Postfix is held to the SMTP dialogues, and differs where it is listed";
/// Dialogues that have to go as they should.
const HELD_MIN: usize = 320;

/// All dialogues that ask for nothing of ours.
pub async fn case(folder: &Path, tally: &mut Tally) {
    if !tally.wants(CASE, "postfix") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, as whom Postfix starts");
    }
    let verdict = held(&folder.join("postfix-smtp")).await.map_err(|e| e.to_string());
    tally.note(CASE, verdict);
}

async fn held(state: &Path) -> Result<(), Trouble> {
    let mut postfix = Postfix::start(state).await?;
    until("Postfix listens", SOON, async || Ok(postfix.connect("").await.ok().map(drop))).await?;
    held::to_dialogues(&mut postfix, "postfix.differences", HELD_MIN).await
}

/// A Postfix that takes mail for example.com, and throws it away.
struct Postfix {
    address: SocketAddr,
    stop: Command,
}

impl Postfix {
    async fn start(folder: &Path) -> Result<Self, Trouble> {
        for (name, owner) in [("etc", 0), ("queue", 0), ("data", account("postfix")?)] {
            fs::create_dir_all(folder.join(name))?;
            chown(folder.join(name), Some(owner), None)?;
        }
        open_to_all(folder)?;
        let made = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()])?;
        fs::write(folder.join("etc/tls.pem"), made.signing_key.serialize_pem() + &made.cert.pem())?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        fs::write(folder.join("etc/main.cf"), main_cf(folder))?;
        let master = MASTER_CF.replacen("smtp      inet", &format!("{address} inet"), 1);
        fs::write(folder.join("etc/master.cf"), master)?;
        let command = |verb| {
            let mut command = Command::new("postfix");
            command.arg("-c").arg(folder.join("etc")).arg(verb);
            command
        };
        let postfix = Self { address, stop: command("stop") };
        run(command("start"), None).await?;
        Ok(postfix)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.stop.output();
    }
}

#[async_trait(?Send)]
impl Server for Postfix {
    fn protocol(&self) -> Protocol {
        Protocol::Smtp
    }

    fn has(&self, _feature: &str) -> bool {
        false
    }

    async fn maildrop(&mut self, _on: &str, _messages: &[Message]) -> Result<Maildrop, Trouble> {
        let (user, password, address) = (String::new(), String::new(), String::new());
        Ok(Maildrop { user, password, address, messages: Vec::new() })
    }

    async fn connect(&mut self, _on: &str) -> Result<Box<dyn Peer>, Trouble> {
        Ok(Box::new(Wire::connect(self.address).await?))
    }
}

/// Its services.
pub const MASTER_CF: &str = "\
smtp      inet  n       -       n       -       -       smtpd
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
pub fn account(name: &str) -> std::io::Result<u32> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name));
    let number = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
    number.ok_or_else(|| std::io::Error::other(format!("there is no account {name}")))
}

/// Where a Postfix that is configured in `folder` finds Debian's programs and accounts, and what is its own.
pub fn installed(folder: &Path) -> String {
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

/// As strict as it can be told to be, without the delays by which it slows errors down.
fn main_cf(folder: &Path) -> String {
    let (here, folder) = (installed(folder), folder.display());
    format!(
        "{here}myhostname = mx.example.com
myorigin = example.com
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
smtpd_relay_restrictions = reject_unauth_destination
smtpd_helo_required = yes
smtpd_forbid_bare_newline = reject
smtpd_forbid_bare_newline_exclusions =
strict_rfc821_envelopes = yes
smtpd_error_sleep_time = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
message_size_limit = 52428800
recipient_delimiter = +
virtual_mailbox_domains = example.com
virtual_mailbox_maps = inline:{{ {{alice@example.com = x}} {{bob@example.com = x}} {{postmaster@example.com = x}} {{abuse@example.com = x}} }}
virtual_transport = discard:
local_transport = discard:
default_transport = discard:
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/etc/tls.pem
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
"
    )
}
