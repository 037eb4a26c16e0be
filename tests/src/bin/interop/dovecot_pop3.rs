//! The POP3 conformance suite, held to Dovecot: where it differs is listed, with the reason, in
//! `tests/pop3/dovecot.differences`.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tests::dialogue::script::Message;
use tests::dialogue::{Maildrop, Peer, Served, Server};
use tests::wait::{SOON, Trouble, until};
use tests::wire::Wire;

use crate::dovecot::{Daemon, MAIL_OWNER, open_to_all};
use crate::held;
use crate::tally::Tally;

const CASE: &str = "Dovecot is held to the POP3 dialogues, and differs where it is listed";
/// Dialogues that have to go as they should.
const HELD_MIN: usize = 60;
/// Everybody's.
const PASSWORD: &str = "secret-1";
/// One for each dialogue.
const USERS: usize = 200;

/// All dialogues that ask for nothing of ours.
pub async fn case(folder: &Path, tally: &mut Tally) {
    if !tally.wants(CASE, "dovecot") {
        return;
    }
    if !Path::new("/usr/lib/dovecot/pop3").exists() {
        return tally.absent("dovecot's POP3 server");
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, as whom Dovecot starts");
    }
    let verdict = held(&folder.join("dovecot-pop3")).await.map_err(|e| e.to_string());
    tally.note(CASE, verdict);
}

async fn held(state: &Path) -> Result<(), Trouble> {
    let mut dovecot = Dovecot::start(state)?;
    until("Dovecot listens", SOON, async || Ok(dovecot.connect("").await.ok().map(drop))).await?;
    held::to_dialogues(&mut dovecot, "dovecot.differences", |_| true, HELD_MIN).await
}

/// A Dovecot that serves POP3.
struct Dovecot {
    folder: PathBuf,
    clear: SocketAddr,
    tls: SocketAddr,
    users: usize,
    _daemon: Daemon,
}

impl Dovecot {
    fn start(folder: &Path) -> Result<Self, Trouble> {
        fs::create_dir_all(folder)?;
        open_to_all(folder)?;
        let made = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()])?;
        fs::write(folder.join("certificate.pem"), made.cert.pem())?;
        fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let (clear, tls) = (free()?, free()?);
        let user = |number| {
            let home = folder.join(format!("mail/u{number}"));
            format!("u{number}:{{PLAIN}}{PASSWORD}:{MAIL_OWNER}:{MAIL_OWNER}::{}::\n", home.display())
        };
        fs::write(folder.join("users"), (1..=USERS).map(user).collect::<String>())?;
        let daemon = Daemon::start(folder, &configuration(folder, clear.port(), tls.port()))?;
        Ok(Self { folder: folder.to_owned(), clear, tls, users: 0, _daemon: daemon })
    }
}

#[async_trait(?Send)]
impl Server for Dovecot {
    fn has(&self, _feature: &str) -> bool {
        false
    }

    async fn maildrop(&mut self, _on: &str, messages: &[Message]) -> Result<Maildrop, Trouble> {
        self.users += 1;
        let user = format!("u{}", self.users);
        let home = self.folder.join("mail").join(&user);
        for part in ["", "Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"] {
            let folder = home.join(part);
            fs::create_dir_all(&folder)?;
            chown(&folder, Some(MAIL_OWNER), Some(MAIL_OWNER))?;
        }
        let mut served = Vec::new();
        for (number, message) in (1..).zip(messages) {
            let file = home.join(format!("Maildir/new/{}.M{number}P1.test", 1_700_000_000 + number));
            fs::write(&file, &message.octets)?;
            chown(&file, Some(MAIL_OWNER), Some(MAIL_OWNER))?;
            let end: &[u8] = if message.octets.ends_with(b"\r\n") { b"" } else { b"\r\n" };
            served.push(Served { trace: Vec::new(), content: [&message.octets, end].concat() });
        }
        Ok(Maildrop { user, password: PASSWORD.into(), address: String::new(), messages: served })
    }

    async fn connect(&mut self, on: &str) -> Result<Box<dyn Peer>, Trouble> {
        let tls = on != "clear";
        let mut wire = Wire::connect(if tls { self.tls } else { self.clear }).await?;
        if tls {
            wire.start_tls().await?;
        }
        Ok(Box::new(wire))
    }
}

/// Without the delays by which Dovecot slows guessing down.
fn configuration(folder: &Path, clear: u16, tls: u16) -> String {
    let folder = folder.display();
    format!(
        "protocols = pop3
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
listen = 127.0.0.1
ssl = required
ssl_cert = <{folder}/certificate.pem
ssl_key = <{folder}/key.pem
mail_location = maildir:~/Maildir
auth_mechanisms = plain scram-sha-256
auth_failure_delay = 0
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {clear}
  }}
  inet_listener pop3s {{
    address = 127.0.0.1
    port = {tls}
    ssl = yes
  }}
}}
"
    )
}
