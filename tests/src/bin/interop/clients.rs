//! The command lines of other people's mail programs, from Debian's packages.
//!
//! Each is told the settings that a traveller is told, with the edge's name, and checks the certificate by that name and
//! by the authority that vouches for it.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use big_node::request::Started;
use tests::ledger::Token;
use tests::process::finish;
use tests::random::Random;
use tests::ready::{PairPerson, PairReady};

use crate::send::{look, maildrop};

/// How long a client may take.
pub const CLIENT_WITHIN: Duration = Duration::from_secs(30);

/// How a client gets to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not at all.
    Clear,
    /// By STARTTLS or STLS.
    Upgrade,
    /// From the first octet.
    Implicit,
}

/// A service of the edge's, as a client is told it.
#[derive(Clone, Debug)]
pub struct Server {
    /// The edge's name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The pair, and what the cases share.
pub struct Setting {
    /// The pair.
    pub ready: PairReady,
    /// Whom clients trust, in PEM.
    pub authority: PathBuf,
    /// What the traveller was told.
    told: Started,
    folder: PathBuf,
    seed: u64,
    last: Cell<u64>,
}

impl Setting {
    /// Cases with `ready`, leaving their files under `folder`. The traveller is given another password, so that
    /// everything that a client is to be told is printed.
    pub async fn new(
        pair: &Path,
        ready: PairReady,
        folder: &Path,
        authority: PathBuf,
    ) -> Result<Self, String> {
        let on_the_road = ready.people.iter().find(|person| person.password.is_some());
        let traveller = on_the_road.ok_or("the pair has no traveller; POP3 and submission need one")?;
        let mut rotate = Command::new(pair);
        rotate.args(["node-big", "travel", "rotate", &traveller.name, "--json", "--topology"]);
        rotate.arg(&ready.topology);
        let done = finish(rotate, b"", CLIENT_WITHIN).await.map_err(|e| e.to_string())?;
        if !done.status.success() {
            return Err(format!("travel rotate: {}", done.stderr));
        }
        let told: Started =
            serde_json::from_slice(&done.stdout).map_err(|e| format!("travel rotate: {e}"))?;
        let seed = Random::any_seed();
        let setting = Self { ready, authority, told, folder: folder.to_owned(), seed, last: Cell::new(0) };
        let (pop3, user) = (setting.ready.edge.pop3, &setting.told.user);
        let known = async || maildrop(pop3, user, &setting.told.password, false).await.ok().map(drop);
        look(known, "the edge does not take the new password").await?;
        Ok(setting)
    }

    /// The person on the road, and the password.
    pub fn traveller(&self) -> (&PairPerson, &str) {
        let is_them = |person: &'_ PairPerson| person.password.is_some();
        let person = self.ready.people.iter().find(|person| is_them(person)).expect("checked when made");
        (person, &self.told.password)
    }

    /// Where they collect.
    pub fn pop3(&self, way: Way) -> Server {
        let settings = &self.told.settings;
        self.server(if way == Way::Implicit { &settings.pop3s } else { &settings.pop3 })
    }

    /// Where they send.
    pub fn submission(&self, way: Way) -> Server {
        let settings = &self.told.settings;
        self.server(if way == Way::Implicit { &settings.submissions } else { &settings.submission })
    }

    /// Where others send.
    pub fn smtp(&self) -> Server {
        Server { host: self.told.settings.host.clone(), port: self.ready.edge.smtp.port() }
    }

    fn server(&self, sockets: &[String]) -> Server {
        let port = sockets.first().and_then(|socket| socket.rsplit_once(':')?.1.parse().ok());
        Server { host: self.told.settings.host.clone(), port: port.unwrap_or_default() }
    }

    /// A mark that no other case has.
    pub fn token(&self) -> Token {
        self.last.set(self.last.get() + 1);
        Token { seed: self.seed, number: self.last.get() }
    }

    /// A new folder for one case.
    pub fn scratch(&self) -> io::Result<PathBuf> {
        let folder = self.folder.join(self.token().to_string());
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// How a client is to send a message, which is in a file, made as the client wants it.
pub struct Sending<'a> {
    /// The pair and the rest.
    pub setting: &'a Setting,
    /// The server.
    pub server: Server,
    /// How to get to TLS.
    pub way: Way,
    /// User and password, for submission.
    pub login: Option<(&'a str, &'a str)>,
    /// Reverse-path.
    pub from: &'a str,
    /// Forward-path.
    pub to: &'a str,
}

/// A maildrop for a client to collect.
pub struct Collecting<'a> {
    /// The pair and the rest.
    pub setting: &'a Setting,
    /// The server.
    pub server: Server,
    /// How to get to TLS.
    pub way: Way,
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
    /// How many messages wait there.
    pub count: usize,
    /// Whether they are to be deleted.
    pub delete: bool,
    /// Where each message is to be put, as a file of its own.
    pub folder: &'a Path,
}

/// Runs a client, which must end well; `input` is a file for its standard input.
pub async fn run(command: Command, input: Option<&Path>) -> Result<(), String> {
    let input = input.map(std::fs::read).transpose().map_err(|e| e.to_string())?;
    let done = finish(command, &input.unwrap_or_default(), CLIENT_WITHIN).await.map_err(|e| e.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stdout);
    Err(format!("it ended with {}\n{said}{}", done.status, done.stderr))
}

/// swaks, with PLAIN.
pub fn swaks_plain(sending: &Sending<'_>, file: &Path) -> Command {
    swaks(sending, file, "PLAIN")
}

/// swaks, with LOGIN.
pub fn swaks_login(sending: &Sending<'_>, file: &Path) -> Command {
    swaks(sending, file, "LOGIN")
}

fn swaks(sending: &Sending<'_>, file: &Path, mechanism: &str) -> Command {
    let mut command = Command::new("swaks");
    command.arg("--server").arg(sending.server.to_string()).args(["--helo", "client.test", "--pipeline"]);
    command.args(["--from", sending.from, "--to", sending.to]);
    command.arg("--data").arg(format!("@{}", file.display()));
    command.args(["--tls-verify", "--tls-ca-path"]).arg(&sending.setting.authority);
    match sending.way {
        Way::Clear => {}
        Way::Upgrade => {
            command.arg("--tls");
        }
        Way::Implicit => {
            command.arg("--tls-on-connect");
        }
    }
    if let Some((user, password)) = sending.login {
        command.args(["--auth", mechanism, "--auth-user", user, "--auth-password", password]);
    }
    command
}

/// curl, sending.
pub fn curl_send(sending: &Sending<'_>, file: &Path) -> Command {
    let mut command = Command::new("curl");
    let scheme = if sending.way == Way::Implicit { "smtps" } else { "smtp" };
    command.args(["--silent", "--show-error", "--cacert"]).arg(&sending.setting.authority);
    command.args(["--url", &format!("{scheme}://{}/client.test", sending.server)]);
    command.args(["--mail-from", sending.from, "--mail-rcpt", sending.to]).arg("-T").arg(file);
    if sending.way == Way::Upgrade {
        command.arg("--ssl-reqd");
    }
    if let Some((user, password)) = sending.login {
        command.args(["--user", &format!("{user}:{password}"), "--login-options", "AUTH=PLAIN"]);
    }
    command
}

/// msmtp; the message is its standard input.
pub fn msmtp(sending: &Sending<'_>, file: &Path) -> Command {
    msmtp_by("plain", sending, file)
}

/// msmtp with SCRAM.
pub fn msmtp_scram(sending: &Sending<'_>, file: &Path) -> Command {
    msmtp_by("scram-sha-256", sending, file)
}

fn msmtp_by(method: &str, sending: &Sending<'_>, _: &Path) -> Command {
    let mut command = Command::new("msmtp");
    let onoff = |on| if on { "on" } else { "off" };
    command.args(["--file=/dev/null", "--domain=client.test"]);
    command.arg(format!("--host={}", sending.server.host)).arg(format!("--port={}", sending.server.port));
    command.arg(format!("--tls={}", onoff(sending.way != Way::Clear)));
    command.arg(format!("--tls-starttls={}", onoff(sending.way == Way::Upgrade)));
    command.arg(format!("--tls-trust-file={}", sending.setting.authority.display()));
    command.arg(format!("--from={}", sending.from));
    match sending.login {
        Some((user, password)) => {
            command.args([format!("--auth={method}"), format!("--user={user}")]);
            command.arg("--passwordeval=printenv INTEROP_PASSWORD").env("INTEROP_PASSWORD", password);
        }
        None => {
            command.arg("--auth=off");
        }
    }
    command.args(["--", sending.to]);
    command
}

const SMTPLIB: &str = r#"
import smtplib, ssl, sys
host, port, way, authority, user, password, sender, recipient, file = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if way == "Implicit":
    s = smtplib.SMTP_SSL(host, int(port), "client.test", context=context, timeout=20)
else:
    s = smtplib.SMTP(host, int(port), "client.test", timeout=20)
if way == "Upgrade":
    s.starttls(context=context)
if user:
    s.login(user, password)
refused = s.sendmail(sender, [recipient], open(file, "rb").read())
assert not refused, refused
s.quit()
"#;

/// Python's smtplib.
pub fn smtplib(sending: &Sending<'_>, file: &Path) -> Command {
    let (user, password) = sending.login.unwrap_or_default();
    let mut command = python(SMTPLIB, sending.setting, &sending.server, sending.way);
    command.args([user, password, sending.from, sending.to]).arg(file);
    command
}

fn python(script: &str, setting: &Setting, server: &Server, way: Way) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script, &server.host, &server.port.to_string(), &format!("{way:?}")]);
    command.arg(&setting.authority);
    command
}

/// mutt, composing a message around the text on its standard input.
pub fn mutt_send(sending: &Sending<'_>, _: &Path) -> Command {
    let (user, password) = sending.login.unwrap_or_default();
    let scheme = if sending.way == Way::Implicit { "smtps" } else { "smtp" };
    let mut command = mutt(sending.setting, password, "smtp");
    command.args(["-e", &format!("set smtp_url={scheme}://{user}@{}", sending.server)]);
    command.args(["-e", &format!("set from={} use_from=yes use_envelope_from=yes", sending.from)]);
    command.args(["-e", "set copy=no smtp_authenticators=plain hostname=client.test sendmail=false"]);
    command.args(["-s", "from mutt", "--", sending.to]);
    command
}

/// mutt with nothing of the user's.
fn mutt(setting: &Setting, password: &str, protocol: &str) -> Command {
    let mut command = Command::new("mutt");
    command.args(["-n", "-F", "/dev/null", "-e", &format!("set {protocol}_pass={password}")]);
    let tls = "ssl_starttls=yes ssl_force_tls=yes ssl_verify_host=yes";
    command.args(["-e", &format!("set {tls} certificate_file={}", setting.authority.display())]);
    // It would ask whether to make the folder it usually has.
    command.args(["-e", &format!("set folder={}", setting.folder.display())]);
    command.env("HOME", &setting.folder).env("TERM", "xterm");
    command
}

/// curl, collecting: each message, its TOP, the lists, and then perhaps the deletions.
pub fn curl_collect(collecting: &Collecting<'_>) -> Vec<Command> {
    let scheme = if collecting.way == Way::Implicit { "pop3s" } else { "pop3" };
    let base = format!("{scheme}://{}/", collecting.server);
    let each = format!("{base}[1-{}]", collecting.count);
    let files = collecting.folder.join("#1.eml").display().to_string();
    let mut lines = vec![
        vec![base.as_str()],
        vec![&base, "-X", "UIDL"],
        vec![&base, "-X", "STAT", "--head"],
        vec![&base, "-X", "TOP 1 0"],
        vec![&each, "--output", &files],
    ];
    let deletions: Vec<_> = (1..=collecting.count).map(|number| format!("DELE {number}")).collect();
    if collecting.delete {
        lines.extend(deletions.iter().map(|dele| vec![base.as_str(), "-X", dele, "--head"]));
    }
    let command = |line: Vec<&str>| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--ssl-reqd", "--cacert"]);
        command.arg(&collecting.setting.authority);
        command.args(["--user", &format!("{}:{}", collecting.user, collecting.password)]).args(line);
        command
    };
    // Each deletion is a session of its own, after which the numbers close ranks: from the last one.
    let (reading, deleting) = lines.split_at(5);
    reading.iter().chain(deleting.iter().rev()).cloned().map(command).collect()
}

/// fetchmail, giving each message to a program that files it.
pub fn fetchmail(collecting: &Collecting<'_>) -> io::Result<Vec<Command>> {
    let file = collecting.folder.with_extension("fetchmailrc");
    let (server, folder) = (&collecting.server, collecting.folder.display());
    let authority = collecting.setting.authority.display();
    let keep = if collecting.delete { "fetchall nokeep" } else { "keep" };
    let tls = if collecting.way == Way::Implicit { "ssl" } else { "sslproto 'TLS1.2+'" };
    std::fs::write(
        &file,
        format!(
            "poll {} proto pop3 port {} uidl\n  user \"{}\" password \"{}\" {tls} sslcertck \
             sslcertfile '{authority}' {keep} no rewrite\n  mda \"cat > {folder}/$$.eml\"\n",
            server.host, server.port, collecting.user, collecting.password
        ),
    )?;
    restrict(&file)?;
    // It ends with 1 where there was nothing new.
    let mut command = Command::new("sh");
    command
        .args(["-c", "\"$@\" || [ $? = 1 ]", "sh", "fetchmail", "--nodetach", "--nosyslog", "-v", "-f"])
        .arg(&file);
    command.arg("-i").arg(file.with_extension("ids")).arg("--pidfile").arg(file.with_extension("pid"));
    command.env("HOME", &collecting.setting.folder);
    Ok(vec![command])
}

/// fetchmail reads no file that others could.
fn restrict(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
}

/// getmail, giving each message to a program that files it; it knows no STLS.
pub fn getmail(collecting: &Collecting<'_>) -> io::Result<Vec<Command>> {
    let file = collecting.folder.with_extension("getmailrc");
    let Collecting { server, user, password, delete, folder, .. } = collecting;
    let (host, port, folder) = (&server.host, server.port, folder.display());
    let authority = collecting.setting.authority.display();
    std::fs::write(
        &file,
        format!(
            "[retriever]\ntype = SimplePOP3SSLRetriever\nserver = {host}\nport = {port}\nusername = {user}\n\
             password = {password}\nca_certs = {authority}\n[destination]\ntype = MDA_external\npath = /bin/sh\n\
             arguments = (\"-c\", \"cat > {folder}/$$.eml\")\nallow_root_commands = true\n\
             [options]\nread_all = false\ndelete = {delete}\ndelivered_to = false\nreceived = false\n"
        ),
    )?;
    restrict(&file)?;
    let state = file.with_extension("getmail");
    std::fs::create_dir_all(&state)?;
    let mut command = Command::new("getmail");
    command.arg("--rcfile").arg(&file).arg("--getmaildir").arg(&state);
    Ok(vec![command])
}

/// mpop, filing into a maildir.
pub fn mpop(collecting: &Collecting<'_>) -> io::Result<Vec<Command>> {
    mpop_by("user", collecting)
}

/// mpop with SCRAM.
pub fn mpop_scram(collecting: &Collecting<'_>) -> io::Result<Vec<Command>> {
    mpop_by("scram-sha-256", collecting)
}

fn mpop_by(method: &str, collecting: &Collecting<'_>) -> io::Result<Vec<Command>> {
    for part in ["tmp", "new", "cur"] {
        std::fs::create_dir_all(collecting.folder.join(part))?;
    }
    let onoff = |on| if on { "on" } else { "off" };
    let mut command = Command::new("mpop");
    command.args(["--file=/dev/null", "--tls=on"]).arg(format!("--auth={method}"));
    command.arg(format!("--tls-trust-file={}", collecting.setting.authority.display()));
    command.arg(format!("--host={}", collecting.server.host));
    command.arg(format!("--port={}", collecting.server.port));
    command.arg(format!("--tls-starttls={}", onoff(collecting.way == Way::Upgrade)));
    command.arg(format!("--user={}", collecting.user));
    command.arg("--passwordeval=printenv INTEROP_PASSWORD").env("INTEROP_PASSWORD", collecting.password);
    command.arg(format!("--uidls-file={}", collecting.folder.with_extension("uidls").display()));
    command.arg(format!("--keep={}", onoff(!collecting.delete)));
    command.arg(format!("--delivery=maildir,{}", collecting.folder.display()));
    command.env("HOME", &collecting.setting.folder);
    Ok(vec![command])
}

const POPLIB: &str = r#"
import os, poplib, ssl, sys
host, port, way, authority, user, password, count, delete, folder = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if way == "Implicit":
    p = poplib.POP3_SSL(host, int(port), context=context, timeout=20)
else:
    p = poplib.POP3(host, int(port), timeout=20)
    p.stls(context)
p.user(user)
p.pass_(password)
number, octets = p.stat()
assert number == int(count), (number, count)
sizes = [int(line.split()[1]) for line in p.list()[1]]
assert sum(sizes) == octets, (sizes, octets)
uids = [line.split()[1] for line in p.uidl()[1]]
assert len(set(uids)) == number, uids
for n in range(1, number + 1):
    lines = p.retr(n)[1]
    data = b"".join(line + b"\r\n" for line in lines)
    assert len(data) == sizes[n - 1], (len(data), sizes[n - 1])
    top = p.top(n, 1)[1]
    assert lines[:len(top)] == top, top
    with open(os.path.join(folder, "%d.eml" % n), "wb") as f:
        f.write(data)
p.dele(1)
p.rset()
p.noop()
if delete == "true":
    for n in range(1, number + 1):
        p.dele(n)
p.quit()
"#;

/// Python's poplib: every command it has.
pub fn poplib(collecting: &Collecting<'_>) -> Vec<Command> {
    let mut command = python(POPLIB, collecting.setting, &collecting.server, collecting.way);
    command.args([collecting.user, collecting.password, &collecting.count.to_string()]);
    command.arg(collecting.delete.to_string()).arg(collecting.folder);
    vec![command]
}

/// mutt on a terminal of `script`'s: it opens the maildrop, copies every message away and, if they
/// are to go, deletes them.
pub fn mutt_collect(collecting: &Collecting<'_>) -> Vec<Command> {
    let scheme = if collecting.way == Way::Implicit { "pops" } else { "pop" };
    let act = if collecting.delete { "tag-prefix><save-message" } else { "tag-prefix><copy-message" };
    // mutt makes the maildir itself.
    let folder = collecting.folder.join("maildir");
    let keys = format!("<tag-pattern>.<enter><{act}>{}<enter><sync-mailbox><quit>", folder.display());
    let mut inner = mutt(collecting.setting, collecting.password, "pop");
    inner.args(["-e", "set mbox_type=Maildir confirmcreate=no confirmappend=no delete=yes quit=yes move=no"]);
    inner.args(["-e", "set pop_delete=no pop_authenticators=user wait_key=no sleep_time=0"]);
    inner.args(["-e", &format!("push '{keys}'")]);
    inner.args(["-f", &format!("{scheme}://{}@{}/", collecting.user, collecting.server)]);
    let words = std::iter::once(inner.get_program()).chain(inner.get_args());
    let line: Vec<_> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    vec![command]
}

/// One word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
