//! A real Postfix on an Internet of its own: the edge delivers to it by DNS, and it sends back.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use tests::internet::dns::{Dns, Zone};
use tests::ledger::{Place, Token};
use tests::messages::{LONG, Letter, marked_text};
use tests::nodes::Nodes;
use tests::process::{Program, Running};
use tests::random::Random;
use tests::topology::TestTopology;

use crate::clients::run;
use crate::namespaces::{DNS, EDGE, Namespaces, REMOTE};
use crate::send::{crlf, look, same};
use crate::tally::Tally;

/// Who reads mail at Postfix.
const CAROL: &str = "carol@remote.example";
/// Who reads mail on big.
const ALICE: &str = "alice@example.com";
/// The account that owns Carol's mail: nobody.
const MAIL_OWNER: u32 = 65_534;
/// How long the DNS server may take.
const DNS_WITHIN: Duration = Duration::from_secs(10);

const OUT: &str = "Postfix receives from the edge, found by DNS, under TLS";
const IN: &str = "Postfix sends to the edge, found by DNS, under TLS";

/// Both directions.
pub async fn case(pair: &Path, folder: &Path, tally: &mut Tally) {
    if !tally.wants(&format!("{OUT}; {IN}"), "postfix") || !tally.wants(OUT, "ip") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, who may make network namespaces");
    }
    match Lab::set_up(pair, &folder.join("postfix")).await {
        Ok(lab) => {
            tally.note(OUT, lab.out().await);
            tally.note(IN, lab.back().await);
        }
        Err(reason) => tally.failed(OUT, &reason),
    }
}

/// The hidden half of this program: the DNS server inside the namespace.
pub async fn serve_dns(address: SocketAddr) -> ExitCode {
    let remote = Zone::new("remote.example").mx(10, "mx.remote.example").a("mx.remote.example", REMOTE);
    let ours = Zone::new("example.com").mx(10, "mx.example.com").a("mx.example.com", EDGE);
    match Dns::start_at(address, [remote, ours]).await {
        Ok(_dns) => {
            println!("{{\"ready\":true}}");
            let end = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = tokio::task::spawn_blocking(end).await;
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("the DNS server cannot listen on {address}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// In the order in which they are to end.
struct Lab {
    nodes: Nodes,
    postfix: Postfix,
    _dns: Running,
    namespaces: Namespaces,
}

impl Lab {
    async fn set_up(pair: &Path, folder: &Path) -> Result<Self, String> {
        let text = |e: std::io::Error| e.to_string();
        fs::create_dir_all(folder).map_err(text)?;
        let namespaces = Namespaces::make().await?;
        let this = std::env::current_exe().map_err(text)?;
        let mut command = namespaces.on_remote(this);
        command.arg("--serve-dns").arg(format!("{DNS}:53"));
        let started = Running::start::<serde_json::Value>(command, &folder.join("dns.log"), DNS_WITHIN).await;
        let (dns, _) = started.map_err(|e| e.to_string())?;
        let postfix = Postfix::start(&namespaces, folder).await?;

        let mut topology =
            TestTopology::new(folder.join("pair"), SocketAddr::from((DNS, 53)), 25).map_err(text)?;
        topology.smtp = vec![SocketAddr::from((EDGE, 25))];
        let program = Program::at(pair).through(&namespaces.on_edge());
        let nodes = Nodes::paired(topology, program.clone(), program).await.map_err(|e| e.to_string())?;
        nodes.big.run(&["person", "add", "alice"]).await.map_err(|e| e.to_string())?;
        Ok(Self { nodes, postfix, _dns: dns, namespaces })
    }

    /// From Alice's desk by big, the link and the edge to Carol.
    async fn out(&self) -> Result<(), String> {
        let token = token();
        let text = marked_text(token);
        let send = ["mail", "send", "--as", "alice", "--to", CAROL, "--subject", "to Postfix"];
        self.nodes.big.run_with(&send, text.as_bytes()).await.map_err(|e| e.to_string())?;
        let found = look(async || self.postfix.delivered(token), "Postfix did not get it").await;
        let found = found.map_err(|reason| self.postfix.with_log(&reason))?;
        let header = String::from_utf8_lossy(&found).into_owned();
        if !header.contains("using TLSv1.3") {
            return Err(format!("it came in clear:\n{header}"));
        }
        same(text.as_bytes(), CAROL, Place::Outside, &found)
    }

    /// From Carol by Postfix to the edge, and over the link to Alice.
    async fn back(&self) -> Result<(), String> {
        let token = token();
        let letter = Letter { from: CAROL, to: ALICE, subject: "from Postfix", token };
        let message = letter.with_attachment("report.pdf", LONG);
        self.postfix.send(&self.namespaces, &message).await?;
        let found = look(async || self.filed(token).await, "Alice did not get it").await;
        same(&message, ALICE, Place::Inside, &found.map_err(|reason| self.postfix.with_log(&reason))?)
    }

    /// The message in Alice's mailbox, whole.
    async fn filed(&self, token: Token) -> Option<Vec<u8>> {
        let list: serde_json::Value = self.nodes.big.json(&["mail", "list", "--as", "alice"]).await.ok()?;
        for mail in list.as_array()? {
            let id = mail.get("id")?.as_str()?;
            let read = ["mail", "read", id, "--as", "alice", "--raw"];
            let done = self.nodes.big.finish(&read, b"").await.ok()?;
            if contains(&done.stdout, token) {
                return Some(done.stdout);
            }
        }
        None
    }
}

fn token() -> Token {
    Token { seed: Random::any_seed(), number: 1 }
}

fn contains(message: &[u8], token: Token) -> bool {
    memchr::memmem::find(message, token.to_string().as_bytes()).is_some()
}

/// A Postfix with a configuration and a queue of its own.
struct Postfix {
    folder: PathBuf,
    stop: Command,
}

impl Postfix {
    async fn start(namespaces: &Namespaces, folder: &Path) -> Result<Self, String> {
        Self::write(folder).map_err(|e| format!("its configuration cannot be written: {e}"))?;
        let command = |verb| {
            let mut command = namespaces.on_remote("postfix");
            command.arg("-c").arg(folder.join("etc")).arg(verb);
            command
        };
        let postfix = Self { folder: folder.to_owned(), stop: command("stop") };
        run(command("start"), None).await.map_err(|reason| postfix.with_log(&reason))?;
        Ok(postfix)
    }

    fn write(folder: &Path) -> std::io::Result<()> {
        for (name, owner) in [("etc", 0), ("queue", 0), ("data", account("postfix")?), ("mail", MAIL_OWNER)] {
            fs::create_dir_all(folder.join(name))?;
            chown(folder.join(name), Some(owner), None)?;
        }
        // Postfix's own account, and nobody, must get through to their folders.
        for folder in folder.ancestors().take(2) {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        }
        let made = rcgen::generate_simple_self_signed(["mx.remote.example".to_owned()]);
        let made = made.map_err(std::io::Error::other)?;
        fs::write(folder.join("etc/tls.pem"), made.signing_key.serialize_pem() + &made.cert.pem())?;
        fs::write(folder.join("etc/main.cf"), main_cf(folder))?;
        fs::write(folder.join("etc/master.cf"), MASTER_CF)
    }

    /// Carol's copy of the message.
    fn delivered(&self, token: Token) -> Option<Vec<u8>> {
        let entries = fs::read_dir(self.folder.join("mail/carol/new")).ok()?;
        let messages = entries.flatten().filter_map(|entry| fs::read(entry.path()).ok());
        messages.map(|message| crlf(&message)).find(|message| contains(message, token))
    }

    /// Gives Postfix a message of Carol's to send to Alice.
    async fn send(&self, namespaces: &Namespaces, message: &[u8]) -> Result<(), String> {
        let file = self.folder.join("message");
        fs::write(&file, message).map_err(|e| e.to_string())?;
        let mut command = namespaces.on_remote("sendmail");
        command.arg("-C").arg(self.folder.join("etc")).args(["-i", "-f", CAROL, ALICE]);
        run(command, Some(&file)).await
    }

    fn with_log(&self, reason: &str) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let last = log.lines().rev().take(20).collect::<Vec<_>>();
        format!("{reason}; Postfix's log, latest first:\n{}", last.join("\n"))
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.stop.output();
    }
}

fn main_cf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.remote.example
mydestination =
local_recipient_maps =
inet_interfaces = {REMOTE}, 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
virtual_mailbox_domains = remote.example
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = inline:{{ {CAROL}=carol/ }}
virtual_uid_maps = static:{MAIL_OWNER}
virtual_gid_maps = static:{MAIL_OWNER}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/etc/tls.pem
smtpd_tls_received_header = yes
smtp_tls_security_level = encrypt
smtp_address_preference = ipv4
minimal_backoff_time = 2s
queue_run_delay = 2s
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
"
    )
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
