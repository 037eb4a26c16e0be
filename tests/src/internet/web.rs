//! A web host on loopback that says what MTA-STS policies domains have (RFC 8461 §3.3).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::tls::self_signed_acceptor_for;

/// Octets of a request.
const REQUEST_MAX: u64 = 8_192;

#[derive(Default)]
struct Said {
    policies: HashMap<String, String>,
    asked: Vec<String>,
}

/// A running host. It stops when it is dropped.
pub struct PolicyHost {
    address: SocketAddr,
    certificate: String,
    said: Arc<Mutex<Said>>,
    accepting: JoinHandle<()>,
}

impl PolicyHost {
    /// Starts on a free port of 127.0.0.1, with a certificate for `mta-sts.` before each of `domains`. Those without a
    /// [policy](Self::publish) are answered 404.
    pub async fn start(domains: &[&str]) -> io::Result<Self> {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, domains)
    }

    /// The same on a socket that listens already.
    pub fn on(listener: TcpListener, domains: &[&str]) -> io::Result<Self> {
        let names: Vec<_> = domains.iter().map(|domain| format!("mta-sts.{domain}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let (acceptor, certificate) = self_signed_acceptor_for(&names);
        let (address, said) = (listener.local_addr()?, Arc::<Mutex<Said>>::default());
        let shared = Arc::clone(&said);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that hangs up is what this host is there to bear.
                drop(tokio::spawn(answer(stream, acceptor.clone(), Arc::clone(&shared))));
            }
        });
        Ok(Self { address, certificate, said, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A domain has this policy.
    pub fn publish(&self, domain: &str, policy: &str) {
        self.with(|said| said.policies.insert(format!("mta-sts.{domain}"), policy.to_owned()));
    }

    /// Whom it was asked about so far, each time it was.
    pub fn asked(&self) -> Vec<String> {
        self.with(|said| said.asked.clone())
    }

    fn with<T>(&self, action: impl FnOnce(&mut Said) -> T) -> T {
        action(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for PolicyHost {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(stream: TcpStream, acceptor: TlsAcceptor, said: Arc<Mutex<Said>>) -> io::Result<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    let mut lines = (&mut stream).take(REQUEST_MAX).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    let mut host = String::new();
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("Host: ") {
            host = name.to_owned();
        }
    }
    let policy = {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.asked.push(host.clone());
        said.policies.get(&host).filter(|_| request == "GET /.well-known/mta-sts.txt HTTP/1.1").cloned()
    };
    let (status, body) = match policy {
        Some(policy) => ("200 OK", policy),
        None => ("404 Not Found", "there is no such policy".to_owned()),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}
