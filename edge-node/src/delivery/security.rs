//! What a host has to prove before it gets mail, by what its domain has published.

use std::sync::Arc;

use rustls::ClientConfig;
use shared::smtp::client::{TlsPolicy, judged};

use super::dane::Dane;
use super::resolve::{MailHost, Published};

/// What a host has to prove. Sessions are good for messages that ask for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// Nothing: TLS if it is offered, with any certificate (RFC 7435).
    Opportunistic,
    /// Nothing, under TLS: it has TLSA records, and none that SMTP can use (RFC 7672 §2.2).
    Encrypted,
    /// That its certificates are those of its TLSA records.
    Dane(Arc<Dane>),
    /// What the topology asks of the smart host: that its certificate is for its name, from whom we trust.
    Certificate,
}

impl Security {
    /// What DNS says that a host of a domain has to prove.
    ///
    /// # Errors
    /// Why that cannot be known now: the host is not to be used meanwhile.
    pub fn of(host: &MailHost) -> Result<Self, String> {
        match &host.published {
            Published::Nothing => Ok(Self::Opportunistic),
            Published::Records { records, names, .. } => {
                Ok(Dane::new(records, names).map_or(Self::Encrypted, |dane| Self::Dane(Arc::new(dane))))
            }
            Published::Unknown(why) => Err(why.clone()),
        }
    }

    /// How much TLS that takes.
    pub fn tls_policy(&self) -> TlsPolicy {
        match self {
            Self::Opportunistic => TlsPolicy::Opportunistic,
            Self::Encrypted | Self::Dane(_) | Self::Certificate => TlsPolicy::Required,
        }
    }

    /// The TLS in which one of a domain's hosts is asked to prove it.
    pub fn tls(&self, any: &Arc<ClientConfig>) -> Arc<ClientConfig> {
        match self {
            Self::Dane(dane) => Arc::new(judged(Arc::<Dane>::clone(dane))),
            Self::Opportunistic | Self::Encrypted | Self::Certificate => Arc::clone(any),
        }
    }

    /// What it comes to that a host has taken mail under this version of TLS.
    pub fn shown(&self, version: &str) -> String {
        match self {
            Self::Opportunistic => version.to_owned(),
            Self::Encrypted => format!("{version}, its TLSA records cannot be used"),
            Self::Dane(_) => format!("{version}, verified by DANE"),
            Self::Certificate => format!("{version}, verified by its certificate"),
        }
    }
}
