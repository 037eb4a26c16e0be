//! One attempt by LMTP or SMTP: the gateway's hosts in order, until one deals with the message.
//!
//! What came with REQUIRETLS (RFC 8689) goes to a host only under TLS, and if it offers to do the same. Whoever runs both has
//! named the host by an address inside, so no DNS can lead elsewhere; a name that a certificate could prove it has not.

use std::net::SocketAddr;
use std::sync::Arc;

use shared::address::Domain;
use shared::chunk::{self, Unframer};
use shared::smtp::client::{
    Class, Config, Host, Message, Outcome, Protocol, Status, Talk, TlsPolicy, converse, is_of_wish,
    opportunistic,
};
use shared::smtp::{Enhanced, Recipient};
use shared::store::{BodyReader, Store, StoreError};
use shared::tls_wish::TlsWish;

use super::queue::Report;
use crate::record;

/// Attempts delivery by the first of `hosts` that can be reached and does what the sender wishes of TLS. A report for each
/// recipient.
pub async fn attempt(
    store: &Store,
    ours: &[Domain],
    (protocol, hosts): (Protocol, &[String]),
    message: &record::Message,
    recipients: Vec<(u32, Recipient)>,
) -> Vec<Report> {
    let helo = ours.first().map_or_else(|| "localhost".to_owned(), ToString::to_string);
    // A report is not to be lost for that (RFC 8689 §5).
    let is_report = message.origin.reverse_path.is_none();
    let required = message.origin.tls_wish == TlsWish::Required && !is_report;
    let policy = if required { TlsPolicy::Required } else { TlsPolicy::Opportunistic };
    let mut last: Option<(&String, Status)> = None;
    for text in hosts {
        // A record holds what a socket address was written as.
        let Ok(address) = text.parse::<SocketAddr>() else { continue };
        let host = Host { name: address.ip().to_string(), address, tls: Arc::new(opportunistic()) };
        let talk = |tls| {
            let config = Config { helo: helo.clone(), tls, protocol, login: None };
            conversation(store, &host, config, message, &recipients)
        };
        let talked = match talk(policy).await {
            Talk::HandshakeFailed(..) if !required => talk(TlsPolicy::Never).await,
            other => other.of_wish_to_next(),
        };
        match talked {
            Talk::Done(outcomes, tls) => return told(outcomes, &recipients, text, tls),
            Talk::Next { mut status, .. } | Talk::HandshakeFailed(mut status, _) => {
                if status.code.is_none() {
                    status.text = without_address(&status.text, &host);
                }
                if required {
                    status = status.for_required_tls();
                }
                // A host that does not even want to talk speaks of itself; its operator mends that. One that will not fulfil
                // the sender's wish never will.
                if !is_of_wish(&status) {
                    status.class = Class::Temporary;
                }
                if last.as_ref().is_none_or(|(_, before)| !before.outlasts(&status)) {
                    last = Some((text, status));
                }
            }
        }
    }
    let (host, status) = match last {
        Some((host, status)) => (Some(host.clone()), status),
        None => (None, Status::ours(Class::Temporary, Enhanced(4, 4, 1), "the gateway has no hosts")),
    };
    let report = |(recipient, _)| Report {
        recipient,
        status: status.clone(),
        host: host.clone(),
        tls: None,
        host_reports: false,
    };
    recipients.into_iter().map(report).collect()
}

/// Our words about a host: reports go to strangers, who are not told addresses inside.
fn without_address(text: &str, host: &Host) -> String {
    let at = format!("{} ({})", host.name, host.address);
    text.replace(&at, "the host").replace(&host.name, "the host")
}

async fn conversation(
    store: &Store,
    host: &Host,
    config: Config,
    message: &record::Message,
    recipients: &[(u32, Recipient)],
) -> Talk {
    let mut content = match store.body(message.body()) {
        Ok(reader) => Content::of(reader),
        Err(error) => {
            tracing::error!(%error, "a body for a gateway cannot be read");
            let text = "the message cannot be read at the moment";
            let status = Status::ours(Class::Temporary, Enhanced(4, 3, 0), text);
            return Talk::Next { status, greeted: false };
        }
    };
    let origin = &message.origin;
    let envelope = Message {
        // Inside, nobody checks whose address it is: the sender's stays.
        reverse_path: origin.reverse_path.as_deref().and_then(|path| path.parse().ok()),
        recipients: recipients.iter().map(|(_, recipient)| recipient.clone()).collect(),
        returns: origin.returns(),
        envelope_id: origin.named().map(ToOwned::to_owned),
        size: origin.size,
        eight_bit: origin.body_8bit,
        utf8_header: origin.utf8_header,
        require_tls: origin.tls_wish == TlsWish::Required,
        before: Vec::new(),
    };
    let piece = || {
        let piece = content.next();
        piece.inspect_err(|error| tracing::error!(%error, "a body for a gateway cannot be read"))
    };
    converse(host, config, envelope, piece).await
}

fn told(
    outcomes: Vec<Outcome>,
    recipients: &[(u32, Recipient)],
    host: &str,
    tls: Option<&str>,
) -> Vec<Report> {
    let tls = tls.map(ToOwned::to_owned);
    let report = |outcome: Outcome| {
        let (recipient, _) = recipients.get(outcome.recipient)?;
        let Outcome { status, host_reports, .. } = outcome;
        let (host, tls) = (Some(host.to_owned()), tls.clone());
        Some(Report { recipient: *recipient, status, host, tls, host_reports })
    };
    outcomes.into_iter().filter_map(report).collect()
}

/// A body's plain bytes, piece by piece.
pub struct Content {
    reader: BodyReader,
    frames: Unframer,
    ended: bool,
}

impl Content {
    /// What `reader` reads.
    pub fn of(reader: BodyReader) -> Self {
        Self { reader, frames: Unframer::default(), ended: false }
    }

    /// The next plain bytes; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let broken = |_: chunk::Broken| StoreError::Damaged("a body".into());
        while !self.ended {
            let Some(stored) = self.reader.next_piece()? else {
                self.ended = true;
                std::mem::take(&mut self.frames).finish().map_err(broken)?;
                break;
            };
            self.frames.push(&stored);
            let mut plain = Vec::new();
            let drained = self.frames.drain(|payload| {
                plain.extend_from_slice(&chunk::decode(payload)?);
                Ok::<(), chunk::Broken>(())
            });
            drained.map_err(broken)?;
            if !plain.is_empty() {
                return Ok(Some(plain));
            }
        }
        Ok(None)
    }
}
