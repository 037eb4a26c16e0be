//! Topology files for test runs: everything on loopback, in a folder of the run's own.
//!
//! The nodes bind port 0 and report what they got, except for the link: big dials it, so its port
//! must be in the file. A free one is taken beforehand and let go; the little time until edge binds
//! it is the one race here, and it fails loudly.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shared::topology::{
    Acknowledge, Acme, AttachmentMode, Authentication, CertificateSource, Confinement, Dmarc, Dnssec,
    Greylist, Lists, Reports, TlsFiles, Topology,
};

/// The link's port on a host that has it to itself.
const LINK_PORT: u16 = 4460;

/// What a test run's pair looks like. Change any field before [`write`](Self::write).
#[derive(Clone, Debug)]
pub struct TestTopology {
    /// The domains whose mail is ours.
    pub domains: Vec<String>,
    /// Who reads the postmaster's mail.
    pub postmaster: String,
    /// The edge's name.
    pub hostname: String,
    /// The folder of both nodes' state; short, since it holds Unix sockets.
    pub state: PathBuf,
    /// Where mail from other MTAs arrives.
    pub smtp: Vec<SocketAddr>,
    /// Where travellers submit, with STARTTLS.
    pub submission: Vec<SocketAddr>,
    /// Where travellers submit, under TLS.
    pub submissions: Vec<SocketAddr>,
    /// Where travellers collect, with STLS.
    pub pop3: Vec<SocketAddr>,
    /// Where travellers collect, under TLS.
    pub pop3s: Vec<SocketAddr>,
    /// SMTP sessions at once.
    pub receivers: u32,
    /// The largest message, in octets.
    pub size_max: u64,
    /// Octets that edge holds for big and for delivery.
    pub spool_max: u64,
    /// What a 250 vouches for.
    pub ack: Acknowledge,
    /// How mail from outside is verified.
    pub authentication: Authentication,
    /// The lists that are asked about strangers.
    pub lists: Lists,
    /// How long strangers are told to wait.
    pub greylist: Option<Greylist>,
    /// Which aggregate reports are sent.
    pub reports: Reports,
    /// Seconds between two logins of a traveller's.
    pub login_delay: u64,
    /// Seconds that strangers wait for the greeting.
    pub greeting_pause: u64,
    /// Whether BINARYMIME is offered.
    pub binarymime: bool,
    /// Whether both nodes confine themselves.
    pub sandbox: Confinement,
    /// Where big's socket for everybody is.
    pub desk: Option<PathBuf>,
    /// Octets that big takes in within an hour.
    pub inbound_hourly: u64,
    /// Who answers DNS questions.
    pub dns: Vec<SocketAddr>,
    /// By which keys their answers are validated.
    pub dnssec: Dnssec,
    /// The certificate and key that edge shows; without them it makes its own.
    pub tls: Option<TlsFiles>,
    /// The authority that edge gets its certificate from.
    pub acme: Option<Acme>,
    /// How attachments are filed for those who have not chosen.
    pub attachments: AttachmentMode,
    /// Whether mail may be delivered to loopback addresses.
    pub private_addresses: bool,
    /// The port of other MTAs.
    pub remote_port: u16,
    /// Seconds between attempts to deliver.
    pub retry: Vec<u32>,
    /// Seconds until delivery is given up.
    pub expire: u32,
    /// Further lines of `[edge.outbound]`: keys and their values as TOML.
    pub outbound: Vec<(&'static str, String)>,
    /// Where edge listens for the link.
    pub link_listen: SocketAddr,
    /// Where big dials it.
    pub link_dial: SocketAddr,
    /// Hours that confirmed units are kept.
    pub safety_hours: u64,
    /// Octets of confirmed units that are kept.
    pub safety_bytes: u64,
}

impl TestTopology {
    /// A pair on loopback with its state under `state`, whose Internet is `dns` and MTAs on
    /// `remote_port`.
    pub fn new(state: impl Into<PathBuf>, dns: SocketAddr, remote_port: u16) -> io::Result<Self> {
        let any = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        let link = free_udp_port()?;
        Ok(Self {
            domains: vec!["example.com".into()],
            postmaster: "alice".into(),
            hostname: "mx.example.com".into(),
            state: state.into(),
            smtp: any.clone(),
            submission: any.clone(),
            submissions: any.clone(),
            pop3: any.clone(),
            pop3s: any,
            receivers: 250,
            size_max: 50 * 1024 * 1024,
            spool_max: 10 << 30,
            ack: Acknowledge::default(),
            // It asks DNS several times a message, which only its own tests are about.
            authentication: Authentication { dmarc: Dmarc::Off, trusted_sealers: Vec::new() },
            lists: Lists::default(),
            greylist: None,
            reports: Reports::default(),
            login_delay: 0,
            greeting_pause: 0,
            binarymime: false,
            sandbox: Confinement::Wanted,
            desk: None,
            inbound_hourly: 10 << 30,
            dns: vec![dns],
            // The stand-in Internet signs nothing.
            dnssec: Dnssec::Off,
            tls: None,
            acme: None,
            attachments: AttachmentMode::default(),
            private_addresses: true,
            remote_port,
            retry: vec![1, 2, 5],
            expire: 3600,
            outbound: Vec::new(),
            link_listen: link,
            link_dial: link,
            safety_hours: 48,
            safety_bytes: 1 << 30,
        })
    }

    /// The pair that `file` describes, with its ports, but with its state under `state`, its Internet
    /// `dns`, other MTAs on `remote_port`, and no smart host.
    pub fn of(file: &Topology, state: impl Into<PathBuf>, dns: SocketAddr, remote_port: u16) -> Self {
        let (edge, outbound) = (&file.edge, &file.edge.outbound);
        let seconds = |span: &Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
        Self {
            domains: file.site.domains.iter().map(ToString::to_string).collect(),
            postmaster: file.site.postmaster.local_part().to_owned(),
            hostname: edge.hostname.to_string(),
            state: state.into(),
            smtp: edge.smtp.clone(),
            submission: edge.submission.clone(),
            submissions: edge.submissions.clone(),
            pop3: edge.pop3.clone(),
            pop3s: edge.pop3s.clone(),
            receivers: u32::try_from(edge.receivers).unwrap_or(u32::MAX),
            size_max: edge.size_max,
            spool_max: edge.spool_max,
            ack: edge.ack,
            authentication: edge.authentication.clone(),
            lists: edge.lists.clone(),
            greylist: edge.greylist,
            reports: edge.reports,
            login_delay: edge.login_delay.as_secs(),
            greeting_pause: edge.greeting_pause.as_secs(),
            binarymime: edge.binarymime,
            sandbox: edge.sandbox,
            desk: file.big.desk.clone(),
            inbound_hourly: file.big.inbound_hourly,
            dns: vec![dns],
            // The stand-in Internet signs nothing.
            dnssec: Dnssec::Off,
            tls: match &edge.certificate {
                CertificateSource::Files(files) => Some(files.clone()),
                CertificateSource::SelfSigned | CertificateSource::Acme(_) => None,
            },
            acme: match &edge.certificate {
                CertificateSource::Acme(acme) => Some(acme.clone()),
                CertificateSource::SelfSigned | CertificateSource::Files(_) => None,
            },
            attachments: file.site.attachments,
            private_addresses: true,
            remote_port,
            retry: outbound.retry.iter().map(seconds).collect(),
            expire: seconds(&outbound.expire),
            outbound: Vec::new(),
            link_listen: file.link.listen,
            link_dial: file.link.dial,
            safety_hours: file.link.safety_hours,
            safety_bytes: file.link.safety_bytes,
        }
    }

    /// Lets every service and the link take any free port, so that pairs run side by side.
    pub fn on_free_ports(mut self) -> io::Result<Self> {
        let any = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        for addresses in
            [&mut self.smtp, &mut self.submission, &mut self.submissions, &mut self.pop3, &mut self.pop3s]
        {
            addresses.clone_from(&any);
        }
        self.link_listen = free_udp_port()?;
        self.link_dial = self.link_listen;
        Ok(self)
    }

    /// Gives each listener a port of its own that stays the same when edge is started again, so that
    /// clients find it; free now, taken when edge binds it. None that the system gives whoever connects meanwhile.
    pub fn with_fixed_ports(mut self) -> io::Result<Self> {
        let listeners =
            [&mut self.smtp, &mut self.submission, &mut self.submissions, &mut self.pop3, &mut self.pop3s];
        let mut held = Vec::new();
        for address in listeners.into_iter().flatten() {
            let listener =
                if address.port() == 0 { bind_apart(address.ip())? } else { TcpListener::bind(*address)? };
            *address = listener.local_addr()?;
            held.push(listener);
        }
        Ok(self)
    }

    /// Puts edge on a host of its own: its services on their well-known ports at `outside`, the link
    /// at `inside`.
    pub fn on_a_host(mut self, outside: Ipv4Addr, inside: Ipv4Addr) -> Self {
        let listeners = [
            (&mut self.smtp, 25),
            (&mut self.submission, 587),
            (&mut self.submissions, 465),
            (&mut self.pop3, 110),
            (&mut self.pop3s, 995),
        ];
        for (addresses, port) in listeners {
            *addresses = vec![SocketAddr::from((outside, port))];
        }
        self.link_listen = SocketAddr::from((inside, LINK_PORT));
        self.link_dial = self.link_listen;
        self
    }

    /// Where big keeps its state.
    pub fn big_state(&self) -> PathBuf {
        self.state.join("big")
    }

    /// Where edge keeps its state.
    pub fn edge_state(&self) -> PathBuf {
        self.state.join("edge")
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut text = String::from("# Written by a test run.\n");
        let mut table = |name: &str, entries: &[(&str, String)]| {
            let _ = writeln!(text, "\n[{name}]");
            for (key, value) in entries {
                let _ = writeln!(text, "{key} = {value}");
            }
        };
        table(
            "site",
            &[
                ("domains", list(&self.domains)),
                ("postmaster", quoted(&self.postmaster)),
                ("attachments", quoted(self.attachments.as_str())),
            ],
        );
        let sandbox = match self.sandbox {
            Confinement::Off => "false",
            Confinement::Wanted => "true",
            Confinement::Required => "\"required\"",
        };
        let mut big = vec![
            ("state", quoted(&self.big_state().display().to_string())),
            ("sandbox", sandbox.to_owned()),
            ("inbound_hourly", self.inbound_hourly.to_string()),
        ];
        big.extend(self.desk.as_ref().map(|desk| ("desk", quoted(&desk.display().to_string()))));
        table("big", &big);
        table(
            "edge",
            &[
                ("hostname", quoted(&self.hostname)),
                ("state", quoted(&self.edge_state().display().to_string())),
                ("smtp", list(&self.smtp)),
                ("submission", list(&self.submission)),
                ("submissions", list(&self.submissions)),
                ("pop3", list(&self.pop3)),
                ("pop3s", list(&self.pop3s)),
                ("receivers", self.receivers.to_string()),
                ("size_max", self.size_max.to_string()),
                ("spool_max", self.spool_max.to_string()),
                ("ack", quoted(self.ack.as_str())),
                ("login_delay", self.login_delay.to_string()),
                ("greeting_pause", self.greeting_pause.to_string()),
                ("binarymime", self.binarymime.to_string()),
                ("sandbox", sandbox.to_owned()),
            ],
        );
        let mut outbound = vec![
            ("private_addresses", self.private_addresses.to_string()),
            ("port", self.remote_port.to_string()),
            ("retry", format!("{:?}", self.retry)),
            ("expire", self.expire.to_string()),
        ];
        if !self.outbound.iter().any(|(key, _)| key.starts_with("mta_sts")) {
            // It asks DNS once more a message, which only its own tests are about.
            outbound.push(("mta_sts", "false".to_owned()));
        }
        outbound.extend(self.outbound.iter().cloned());
        table("edge.outbound", &outbound);
        if let Some(TlsFiles { certificate, key }) = &self.tls {
            let path = |path: &Path| quoted(&path.display().to_string());
            table("edge.tls", &[("certificate", path(certificate)), ("key", path(key))]);
        }
        if let Some(Acme { directory, contact, roots, http }) = &self.acme {
            let mut acme = vec![
                ("directory", quoted(&directory.to_string())),
                ("terms_agreed", "true".to_owned()),
                ("http", list(http)),
            ];
            acme.extend(contact.as_ref().map(|address| ("contact", quoted(&address.to_string()))));
            acme.extend(roots.as_ref().map(|path| ("roots", quoted(&path.display().to_string()))));
            table("edge.acme", &acme);
        }
        let Authentication { dmarc, trusted_sealers } = &self.authentication;
        table(
            "edge.authentication",
            &[("dmarc", quoted(dmarc.as_str())), ("trusted_sealers", list(trusted_sealers))],
        );
        table("edge.lists", &[("block", list(&self.lists.block)), ("allow", list(&self.lists.allow))]);
        if let Some(Greylist { delay, window }) = self.greylist {
            let seconds = |span: Duration| span.as_secs().to_string();
            table("edge.greylist", &[("delay", seconds(delay)), ("window", seconds(window))]);
        }
        let Reports { tls, dmarc } = self.reports;
        table("edge.reports", &[("tls", tls.to_string()), ("dmarc", dmarc.to_string())]);
        let validated = match &self.dnssec {
            Dnssec::Off => ("dnssec", "false".to_owned()),
            Dnssec::Root => ("dnssec", "true".to_owned()),
            Dnssec::Anchors(path) => ("trust_anchors", quoted(&path.display().to_string())),
        };
        table("edge.dns", &[("servers", list(&self.dns)), validated]);
        let (listen, dial) = (self.link_listen.to_string(), self.link_dial.to_string());
        table(
            "link",
            &[
                ("listen", quoted(&listen)),
                ("dial", quoted(&dial)),
                ("safety_hours", self.safety_hours.to_string()),
                ("safety_bytes", self.safety_bytes.to_string()),
            ],
        );
        text
    }

    /// Makes the state folder and writes the file into it; returns its path.
    pub fn write(&self) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.state)?;
        let path = self.state.join("topology.toml");
        fs::write(&path, self.to_toml())?;
        // Relative paths in a topology are relative to its folder, so the state's must not be.
        std::path::absolute(path)
    }
}

fn list(values: &[impl ToString]) -> String {
    let quoted: Vec<_> = values.iter().map(|value| quoted(&value.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A TOML basic string; what JSON escapes, TOML escapes the same way.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn free_udp_port() -> io::Result<SocketAddr> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Ports below those that Linux gives by itself (`net.ipv4.ip_local_port_range`), to be given to listeners.
const APART: Range<u32> = 10_000..30_000;

/// Listens at the next port of [`APART`] that is free; two callers in a process get two, whatever they let go.
fn bind_apart(ip: IpAddr) -> io::Result<TcpListener> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = APART.end - APART.start;
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        // Processes begin at different ones.
        let offset = std::process::id().wrapping_mul(101).wrapping_add(given) % count;
        let port = u16::try_from(APART.start + offset).map_err(io::Error::other)?;
        match TcpListener::bind((ip, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && given < count => {}
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_the_nodes_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, 5353));
        let written = TestTopology::new(folder.path(), dns, 2526).and_then(TestTopology::with_fixed_ports);
        let written = written.expect("free ports");
        let read = Topology::read(&written.write().expect("written")).expect("valid");
        let again = TestTopology::of(&read, folder.path(), dns, 2526);
        assert_eq!(again.to_toml(), written.to_toml());
        assert_eq!(read.big.state, written.big_state());
        assert_eq!(read.edge.state, written.edge_state());
        assert_eq!((read.edge.smtp, read.edge.pop3s), (written.smtp, written.pop3s));
        assert_eq!((read.edge.dns_servers, read.edge.outbound.port), (written.dns, 2526));
        assert!(read.edge.outbound.private_addresses);
        assert_eq!((read.link.listen, read.link.dial), (written.link_listen, written.link_dial));
    }
}
