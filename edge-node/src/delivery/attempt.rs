//! One attempt for one domain: its hosts in order, until one takes the message or refuses it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shared::address::{Address, Domain};
use shared::id::MessageId;
use shared::seal::FileKey;
use shared::smtp::Enhanced;
use shared::store::BodyKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::{Action, Class, Client, Config, Message, Outcome, Status, TlsPolicy};
use super::resolve::{MailHost, Resolver};
use crate::content::Content;
use crate::node::Node;
use crate::record::QueueRow;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(180);
const READ_BYTES: usize = 16 * 1024;

/// A status in our own words.
pub(super) fn ours(class: Class, (class_digit, subject, detail): (u8, u16, u16), text: &str) -> Status {
    Status {
        class,
        code: None,
        enhanced: Enhanced(class_digit, subject, detail),
        text: text.into(),
        in_doubt: false,
    }
}

/// What became of one recipient in an attempt.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub status: Status,
    /// The host that said so.
    pub host: Option<String>,
    pub tls: bool,
}

impl Report {
    /// No host was asked.
    pub fn ours(status: Status) -> Self {
        Self { status, host: None, tls: false }
    }
}

/// What attempts need.
#[derive(Debug)]
pub(super) struct Attempt {
    node: Arc<Node>,
    resolver: Resolver,
    tls: Arc<ClientConfig>,
}

/// What became of one connection.
enum Talk {
    /// The host dealt with the message.
    Done(Vec<Outcome>, bool),
    /// It did not: another address or host may.
    Next(Status),
    /// The handshake failed: the same address may do without TLS.
    HandshakeFailed(Status),
}

impl Attempt {
    pub fn new(node: Arc<Node>, resolver: Resolver) -> Self {
        Self { node, resolver, tls: Arc::new(opportunistic()) }
    }

    /// Attempts delivery to the recipients in one domain. Exactly one report for each.
    pub async fn domain(
        &self,
        id: MessageId,
        row: &QueueRow,
        domain: &Domain,
        recipients: &[(usize, Address)],
    ) -> Vec<(usize, Report)> {
        let all = |report: &Report| recipients.iter().map(|(place, _)| (*place, report.clone())).collect();
        let hosts = match self.resolver.hosts(domain).await {
            Ok(hosts) => hosts,
            Err(status) => return all(&Report::ours(status)),
        };
        let mut last = None;
        for host in &hosts {
            for address in &host.addresses {
                if let Err(status) = self.allowed(*address) {
                    last.get_or_insert(Report::ours(status));
                    continue;
                }
                match self.connection(id, row, host, *address, recipients).await {
                    Talk::Done(outcomes, tls) => return told(outcomes, recipients, host, tls),
                    Talk::Next(status) | Talk::HandshakeFailed(status) => {
                        last = Some(Report { status, host: Some(host.name.clone()), tls: false });
                    }
                }
            }
        }
        let nobody = || {
            Report::ours(ours(Class::Temporary, (4, 4, 1), &format!("no host of {domain} can be reached")))
        };
        let mut report = last.unwrap_or_else(nobody);
        if hosts.len() > 1 && report.status.class == Class::Permanent && report.status.code.is_some() {
            // A host that greets with 5xx speaks for itself, not for the domain.
            report.status.class = Class::Temporary;
        }
        all(&report)
    }

    /// The very address that would be connected to, after every step of resolution.
    fn allowed(&self, address: IpAddr) -> Result<(), Status> {
        if self.node.topology.edge.outbound.private_addresses || is_public(address) {
            return Ok(());
        }
        let text = format!("DNS names {address}, which is not an address on the Internet");
        Err(ours(Class::Permanent, (5, 4, 4), &text))
    }

    async fn connection(
        &self,
        id: MessageId,
        row: &QueueRow,
        host: &MailHost,
        address: IpAddr,
        recipients: &[(usize, Address)],
    ) -> Talk {
        match self.conversation(id, row, host, address, recipients, TlsPolicy::Opportunistic).await {
            Talk::HandshakeFailed(_) => {
                self.conversation(id, row, host, address, recipients, TlsPolicy::Never).await
            }
            other => other,
        }
    }

    async fn conversation(
        &self,
        id: MessageId,
        row: &QueueRow,
        host: &MailHost,
        address: IpAddr,
        recipients: &[(usize, Address)],
        tls: TlsPolicy,
    ) -> Talk {
        let unreadable = |error: &dyn std::fmt::Display| {
            tracing::error!(message = %id, %error, "a queued body cannot be read");
            Talk::Next(ours(Class::Temporary, (4, 3, 0), "the message cannot be read at the moment"))
        };
        let key = match FileKey::unwrap(&row.wrapped_key, &self.node.sealing, id) {
            Ok(key) => key,
            Err(error) => return unreadable(&error),
        };
        let mut content = match self.node.store.body(BodyKey(row.body)) {
            Ok(reader) => Content::new(reader, &key),
            Err(error) => return unreadable(&error),
        };
        let target = SocketAddr::new(address, self.node.topology.edge.outbound.port);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await;
        let mut stream: Pin<Box<dyn Connection>> = match connected {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                Box::pin(stream)
            }
            Ok(Err(error)) => return Talk::Next(unreachable(host, target, &error.to_string())),
            Err(_) => return Talk::Next(unreachable(host, target, "no answer in 30 s")),
        };
        let start = Instant::now();
        let helo = self.node.topology.edge.hostname.to_string();
        let mut client = Client::new(Config { helo, tls }, start.elapsed());
        client.deliver(message(row, recipients), start.elapsed());
        let mut talk = None;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            while let Some(action) = client.poll() {
                match action {
                    Action::Send(bytes) => {
                        let sent = tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await;
                        if !matches!(sent, Ok(Ok(()))) || stream.flush().await.is_err() {
                            client.disconnected();
                        }
                    }
                    Action::StartTls => match self.handshake(stream, host).await {
                        Ok(secured) => {
                            stream = secured;
                            client.tls_established(start.elapsed());
                        }
                        Err(error) => {
                            let text = format!("{} offers TLS and fails at it: {error}", host.name);
                            return Talk::HandshakeFailed(ours(Class::Temporary, (4, 7, 5), &text));
                        }
                    },
                    Action::WantContent => match content.next() {
                        Ok(Some(piece)) => client.content(&piece, start.elapsed()),
                        Ok(None) => client.content_end(start.elapsed()),
                        Err(error) => {
                            tracing::error!(message = %id, %error, "a queued body cannot be read");
                            client.content_failed();
                        }
                    },
                    Action::Done(outcomes) => {
                        talk = Some(Talk::Done(outcomes, client.is_tls()));
                        client.quit(start.elapsed());
                    }
                    Action::Unusable(status) => talk = Some(Talk::Next(status)),
                    Action::Close => {
                        return talk.unwrap_or_else(|| Talk::Next(unreachable(host, target, "it hung up")));
                    }
                }
            }
            let wait = client.deadline().saturating_sub(start.elapsed());
            match tokio::time::timeout(wait, stream.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => client.disconnected(),
                Ok(Ok(length)) => client.receive(&buffer[..length], start.elapsed()),
                Err(_) => client.handle_timeout(start.elapsed()),
            }
        }
    }

    async fn handshake(
        &self,
        stream: Pin<Box<dyn Connection>>,
        host: &MailHost,
    ) -> io::Result<Pin<Box<dyn Connection>>> {
        let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let secured = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await??;
        Ok(Box::pin(secured))
    }
}

trait Connection: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

fn message(row: &QueueRow, recipients: &[(usize, Address)]) -> Message {
    Message {
        reverse_path: row.reverse_path.as_deref().and_then(|path| path.parse().ok()),
        recipients: recipients.iter().map(|(_, address)| address.clone()).collect(),
        size: row.size,
        eight_bit: row.body_8bit,
        utf8_header: row.utf8_header,
    }
}

fn told(
    outcomes: Vec<Outcome>,
    recipients: &[(usize, Address)],
    host: &MailHost,
    tls: bool,
) -> Vec<(usize, Report)> {
    let report = |outcome: Outcome| {
        let (place, _) = recipients.get(outcome.recipient)?;
        Some((*place, Report { status: outcome.status, host: Some(host.name.clone()), tls }))
    };
    outcomes.into_iter().filter_map(report).collect()
}

fn unreachable(host: &MailHost, target: SocketAddr, why: &str) -> Status {
    ours(Class::Temporary, (4, 4, 1), &format!("{} ({target}) cannot be reached: {why}", host.name))
}

/// Whether an address is one on the Internet (RFC 6890): what is not must not be connected to because
/// a stranger's DNS says so.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let embedded = v6.to_ipv4_mapped().or_else(|| {
                // NAT64, 6to4 and the old compatible form carry an IPv4 address of anybody's choice.
                let [_, _, _, _, _, _, high, low] = segments;
                let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
                match segments {
                    [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => Some(of(high, low)),
                    [0x2002, high, low, ..] => Some(of(high, low)),
                    _ => None,
                }
            });
            match embedded {
                Some(v4) => is_public_v4(v4),
                None => {
                    let global = segments[0] & 0xe000 == 0x2000;
                    let documentation = segments[0] == 0x2001 && segments[1] == 0x0db8;
                    let special = segments[0] == 0x2001 && segments[1] < 0x0200;
                    global && !documentation && !special
                }
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_broadcast()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b)))
}

/// TLS as it comes (RFC 7435): any certificate will do, because the alternative is none at all.
fn opportunistic() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("ring speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_on_the_internet_are_public() {
        let hidden = [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
        ];
        for text in hidden {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
        for text in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
        {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
    }
}
