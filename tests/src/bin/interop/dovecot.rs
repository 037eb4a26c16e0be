//! A real Dovecot inside: big hands it mail by LMTP, and tells the sender what it refuses.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tests::ledger::{Place, Token};
use tests::messages::marked_text;
use tests::nodes::Nodes;
use tests::process::{Node, Program};
use tests::random::Random;
use tests::topology::TestTopology;

use crate::send::{crlf, look, same};
use crate::tally::Tally;

/// Who reads mail at Dovecot.
const USER: &str = "user@legacy.example";
/// Whom Dovecot does not know.
const NOBODY: &str = "nobody@legacy.example";
/// The account that owns the users' mail: nobody.
pub const MAIL_OWNER: u32 = 65_534;

const CASE: &str = "Dovecot receives from big by LMTP, and whom it does not know is reported";

/// The way in, and the way of a refusal back.
pub async fn case(pair: &Path, folder: &Path, tally: &mut Tally) {
    if !tally.wants(CASE, "dovecot") {
        return;
    }
    if !Path::new("/usr/lib/dovecot/lmtp").exists() {
        return tally.absent("dovecot's LMTP server");
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, as whom Dovecot starts");
    }
    tally.note(CASE, run(pair, &folder.join("dovecot")).await);
}

async fn run(pair: &Path, folder: &Path) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    let dovecot = Dovecot::start(folder).map_err(text)?;
    // Nothing goes to the Internet here.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let topology = TestTopology::new(folder.join("pair"), nowhere, 9).map_err(text)?;
    let program = Program::at(pair);
    let mut nodes = Nodes::paired(topology, program.clone(), program).await.map_err(|e| e.to_string())?;
    let host = dovecot.address.to_string();
    for command in [
        &["person", "add", "alice"][..],
        &["gateway", "add", "dovecot", "--lmtp", &host, "--domain", "legacy.example"],
    ] {
        nodes.big.run(command).await.map_err(|e| e.to_string())?;
    }
    // Its sandbox has Dovecot's port from then on.
    nodes.stop(Node::Big).await.map_err(|e| e.to_string())?;
    nodes.start_big().await.map_err(|e| e.to_string())?;
    let big = &nodes.big;
    let token = Token { seed: Random::any_seed(), number: 1 };
    let body = marked_text(token);
    let to = ["--to", USER, "--to", NOBODY, "--subject", "to Dovecot"];
    let send = [&["mail", "send", "--as", "alice"][..], &to].concat();
    big.run_with(&send, body.as_bytes()).await.map_err(|e| e.to_string())?;
    let found = look(async || dovecot.delivered(token), "Dovecot did not get it").await;
    let found = found.map_err(|reason| dovecot.with_log(&reason))?;
    same(body.as_bytes(), USER, Place::Inside, &found)?;
    let report = look(async || report(&nodes).await, "Alice is not told of the refusal").await;
    let report = report.map_err(|reason| dovecot.with_log(&reason))?;
    match report.contains("Status: 5.1.1") && report.contains(NOBODY) && !report.contains("; user@") {
        true => Ok(()),
        false => Err(format!("the report is another one:\n{report}")),
    }
}

/// The report in Alice's mailbox.
async fn report(nodes: &Nodes) -> Option<String> {
    let list: serde_json::Value = nodes.big.json(&["mail", "list", "--as", "alice"]).await.ok()?;
    let id = list.as_array()?.first()?.get("id")?.as_str()?;
    let done = nodes.big.finish(&["mail", "read", id, "--as", "alice", "--raw"], b"").await.ok()?;
    Some(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A Dovecot that takes mail by LMTP.
struct Dovecot {
    folder: PathBuf,
    address: SocketAddr,
    _daemon: Daemon,
}

impl Dovecot {
    fn start(folder: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(folder.join("mail"))?;
        chown(folder.join("mail"), Some(MAIL_OWNER), None)?;
        open_to_all(folder)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mail = folder.join("mail/user");
        fs::write(folder.join("users"), format!("user::{MAIL_OWNER}:{MAIL_OWNER}::{}::\n", mail.display()))?;
        let daemon = Daemon::start(folder, &configuration(folder, address.port()))?;
        Ok(Self { folder: folder.to_owned(), address, _daemon: daemon })
    }

    /// The user's copy of the message.
    fn delivered(&self, token: Token) -> Option<Vec<u8>> {
        let entries = fs::read_dir(self.folder.join("mail/user/new")).ok()?;
        let messages = entries.flatten().filter_map(|entry| fs::read(entry.path()).ok());
        let marked =
            |message: &Vec<u8>| memchr::memmem::find(message, token.to_string().as_bytes()).is_some();
        messages.map(|message| crlf(&message)).find(marked)
    }

    fn with_log(&self, reason: &str) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        format!("{reason}; Dovecot's log:\n{log}")
    }
}

/// Lets Dovecot's accounts, and the owner of mail, get through to a folder in the suite's own.
pub fn open_to_all(folder: &Path) -> std::io::Result<()> {
    let mut folders = folder.ancestors().take(2);
    folders.try_for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)))
}

/// A Dovecot with a configuration of its own. It ends when it is dropped.
pub struct Daemon(Child);

impl Daemon {
    /// Starts it with its files in `folder`.
    pub fn start(folder: &Path, configuration: &str) -> std::io::Result<Self> {
        for name in ["run", "state"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::write(folder.join("dovecot.conf"), configuration)?;
        let mut command = Command::new("dovecot");
        command.arg("-F").arg("-c").arg(folder.join("dovecot.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Self)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Told to end, it ends its own processes.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "protocols = lmtp
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
listen = 127.0.0.1
ssl = no
mail_location = maildir:{folder}/mail/%n
passdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"
    )
}
