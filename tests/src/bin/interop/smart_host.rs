//! A real smart host: Postfix, whose logins Dovecot checks, takes what a pair has for the Internet, under TLS and with the
//! right login only.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use big_node::request::RecipientView;
use shared::unit::DeliveryState;
use tests::desk::{AtBig, Operator};
use tests::internet::dns::{Dns, Zone};
use tests::ledger::{Place, Token};
use tests::messages::marked_text;
use tests::nodes::Nodes;
use tests::process::Program;
use tests::random::Random;
use tests::topology::{TestTopology, quoted};
use tests::wait::{SOON, Trouble, until};

use crate::certificates::Authority;
use crate::dovecot::{MAIL_OWNER, open_to_all};
use crate::logins::{self, Logins};
use crate::postfix::{self, Postfix};
use crate::send::{crlf, same};
use crate::tally::Tally;

/// Its name.
const HOST: &str = "smtp.isp.example";
/// As whom the site logs in.
const USER: &str = "example-com";
const PASSWORD: &str = "correct horse";
/// Whom mail is for. No DNS knows the domain: the smart host gets it all.
const TO: &str = "carol@remote.example";

/// One of its services.
#[derive(Clone, Copy, Debug)]
enum Service {
    /// 587's role: STARTTLS.
    StartTls,
    /// The same, where LOGIN is the only mechanism.
    LoginAlone,
    /// 465's role: TLS from the first octet.
    Tls,
}

impl Service {
    const ALL: [Self; 3] = [Self::StartTls, Self::LoginAlone, Self::Tls];

    /// What `relay_tls` is for it.
    fn relay_tls(self) -> &'static str {
        match self {
            Self::StartTls | Self::LoginAlone => "starttls",
            Self::Tls => "tls",
        }
    }

    /// What main.cf has otherwise.
    fn options(self) -> &'static str {
        match self {
            Self::StartTls => "smtpd_tls_security_level=encrypt",
            Self::LoginAlone => "smtpd_tls_security_level=encrypt -o smtpd_sasl_mechanism_filter=login",
            Self::Tls => "smtpd_tls_wrappermode=yes",
        }
    }
}

/// A message by the smart host.
struct Row {
    case: &'static str,
    service: Service,
    password: &'static str,
}

const ROWS: [Row; 5] = [
    Row { case: "STARTTLS, the right login", service: Service::StartTls, password: PASSWORD },
    Row { case: "STARTTLS, the right login by LOGIN", service: Service::LoginAlone, password: PASSWORD },
    Row { case: "STARTTLS, a wrong login: it waits", service: Service::StartTls, password: "wrong" },
    Row { case: "implicit TLS, the right login", service: Service::Tls, password: PASSWORD },
    Row { case: "implicit TLS, a wrong login: it waits", service: Service::Tls, password: "wrong" },
];

fn title(row: &Row) -> String {
    format!("Postfix as a smart host: {}", row.case)
}

/// Every row, with a pair of its own.
pub async fn cases(pair: &Path, folder: &Path, tally: &mut Tally) {
    let wanted: Vec<_> = ROWS.iter().filter(|row| tally.is_wanted(&title(row))).collect();
    if wanted.is_empty() || !["postfix", "dovecot"].iter().all(|program| tally.has(program)) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, as whom Postfix and Dovecot start");
    }
    let host = match SmartHost::start(&folder.join("smart-host")).await {
        Ok(host) => host,
        Err(trouble) => return tally.failed("Postfix as a smart host", &trouble.to_string()),
    };
    for (row, number) in wanted.into_iter().zip(1..) {
        let token = Token { seed: Random::any_seed(), number };
        let verdict = goes(pair, &host, row, token).await;
        tally.note(&title(row), verdict.map_err(|trouble| host.with_log(&trouble)));
    }
}

/// Whether a message of Alice's goes as the row says.
async fn goes(pair: &Path, host: &SmartHost, row: &Row, token: Token) -> Result<(), Trouble> {
    let dns = Dns::start([Zone::new("isp.example").a(HOST, Ipv4Addr::LOCALHOST)]).await?;
    let state = host.folder.join(format!("pair-{}", token.number));
    let mut topology = TestTopology::new(&state, dns.address(), 9)?;
    fs::create_dir_all(&topology.state)?;
    let login = topology.state.join("relay.login");
    fs::write(&login, format!("{USER}\n{}\n", row.password))?;
    fs::set_permissions(&login, fs::Permissions::from_mode(0o600))?;
    let path = |path: &Path| quoted(&path.display().to_string());
    topology.outbound = vec![
        ("mode", quoted("relay")),
        ("relay", quoted(&format!("{HOST}:{}", host.address(row.service).port()))),
        ("relay_tls", quoted(row.service.relay_tls())),
        ("relay_roots", path(&host.folder.join("roots.pem"))),
        ("relay_login", path(&login)),
    ];
    // Nothing is tried again while this looks.
    topology.retry = vec![3_600];
    let program = Program::at(pair);
    let nodes = Nodes::paired(topology, program.clone(), program).await?;
    nodes.big.run(&["person", "add", "alice"]).await?;
    let desk = AtBig(Operator::new("big-node", &nodes.topology.big_state())).desk("alice");
    let body = marked_text(token);
    let sent = desk.send(TO, "by the smart host", &body).await?;
    let view = until("the edge has attempted it", SOON, async || {
        let waits = |state| matches!(state, DeliveryState::Queued | DeliveryState::Relaying);
        Ok(desk.status(&sent.id).await?.recipients.into_iter().find(|view| !waits(view.state)))
    })
    .await?;
    match row.password {
        PASSWORD => has(host, &view, &body, token).await,
        password => waits(host, &view, password, token),
    }
}

/// The smart host has it from who has logged in.
async fn has(host: &SmartHost, view: &RecipientView, body: &str, token: Token) -> Result<(), Trouble> {
    let verified = view.tls.as_deref() == Some("TLS 1.3, verified by its certificate");
    if view.state != DeliveryState::Relayed || view.host.as_deref() != Some(HOST) || !verified {
        return Err(format!("it was not relayed there under TLS: {view:?}").into());
    }
    let found = until("it is in the mailbox", SOON, async || Ok(host.received(token))).await?;
    same(body.as_bytes(), TO, Place::Outside, &found)?;
    let text = String::from_utf8_lossy(&found);
    let said = [format!("(Authenticated sender: {USER})"), format!("by {HOST} (Postfix) with ESMTPSA id ")];
    match said.iter().find(|words| !text.contains(*words)) {
        None => Ok(()),
        Some(words) => Err(format!("its trace does not say {words:?}:\n{text}").into()),
    }
}

/// It waits, and why names the login and not the password.
fn waits(host: &SmartHost, view: &RecipientView, password: &str, token: Token) -> Result<(), Trouble> {
    let refused = view.text.starts_with("the host refused our login: 535 5.7.8 ");
    if view.state != DeliveryState::Deferred || view.status != "4.7.8" || !refused {
        return Err(format!("it does not wait for a login: {view:?}").into());
    }
    if view.text.contains(password) {
        return Err(format!("the password is told: {view:?}").into());
    }
    match host.received(token) {
        None => Ok(()),
        Some(_) => Err("it has it all the same".into()),
    }
}

/// A Postfix that takes mail for everybody from who has logged in, and keeps it; a Dovecot that knows who that is.
struct SmartHost {
    folder: PathBuf,
    addresses: [SocketAddr; Service::ALL.len()],
    _postfix: Postfix,
    logins: Logins,
}

impl SmartHost {
    async fn start(folder: &Path) -> Result<Self, Trouble> {
        fs::create_dir_all(folder.join("mail"))?;
        chown(folder.join("mail"), Some(MAIL_OWNER), Some(MAIL_OWNER))?;
        open_to_all(folder)?;
        let authority = Authority::new()?;
        let certified = authority.issue([HOST.to_owned()])?;
        fs::write(folder.join("roots.pem"), &authority.pem)?;
        fs::write(folder.join("chain.pem"), &certified.chain)?;
        certified.write_key(&folder.join("key.pem"))?;

        // All are held until each has its own.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let held = [free()?, free()?, free()?];
        let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); Service::ALL.len()];
        let mut services = String::new();
        for ((service, address), held) in Service::ALL.iter().zip(&mut addresses).zip(&held) {
            *address = held.local_addr()?;
            services.push_str(&format!("{address} inet n - n - - smtpd\n  -o {}\n", service.options()));
        }
        drop(held);
        postfix::write(folder, &main_cf(folder), &services)?;
        let logins = Logins::start(folder, USER, PASSWORD)?;
        let postfix = Postfix::start(folder).await?;
        let host = Self { folder: folder.to_owned(), addresses, _postfix: postfix, logins };
        until("Postfix listens, and Dovecot", SOON, async || {
            let all = host.addresses.iter().all(|address| TcpStream::connect(address).is_ok());
            Ok((all && host.logins.are_here()).then_some(()))
        })
        .await
        .map_err(|trouble| host.with_log(&trouble))?;
        Ok(host)
    }

    fn address(&self, service: Service) -> SocketAddr {
        self.addresses[service as usize]
    }

    /// The message that it has got with this mark, in CRLF lines.
    fn received(&self, token: Token) -> Option<Vec<u8>> {
        let entries = fs::read_dir(self.folder.join("mail/new")).ok()?;
        let messages = entries.flatten().filter_map(|entry| fs::read(entry.path()).ok());
        let marked =
            |message: &Vec<u8>| memchr::memmem::find(message, token.to_string().as_bytes()).is_some();
        messages.map(|message| crlf(&message)).find(marked)
    }

    fn with_log(&self, trouble: &Trouble) -> String {
        let log = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        format!("{trouble}; Postfix's log:\n{}Dovecot's log:\n{}", log("log"), log("dovecot.log"))
    }
}

fn main_cf(folder: &Path) -> String {
    let (logins, folder) = (logins::main_cf(folder), folder.display());
    format!(
        "myhostname = {HOST}
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_error_sleep_time = 0
smtpd_peername_lookup = no
smtpd_sasl_authenticated_header = yes
smtpd_tls_chain_files = {folder}/key.pem, {folder}/chain.pem
default_transport = virtual
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:{MAIL_OWNER}
virtual_gid_maps = static:{MAIL_OWNER}
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
{logins}"
    )
}
