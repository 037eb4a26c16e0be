//! Any SMTP server that takes mail for `example.com`, where alice, bob, postmaster and abuse are and nobody else; what it takes
//! is looked at by nobody.

use std::net::SocketAddr;

use async_trait::async_trait;

use super::script::Message;
use super::{Maildrop, Peer, Protocol, Server};
use crate::wait::Trouble;
use crate::wire::Wire;

/// The server.
#[derive(Clone, Debug)]
pub struct SmtpRemote {
    /// Where it takes mail from anybody, as on port 25.
    pub server: SocketAddr,
    /// Where from who logs in, if it does.
    pub submission: Option<Submission>,
    /// What the server has, beside what every server has.
    pub features: Vec<String>,
}

/// Its services for who logs in.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The one with STARTTLS, as on port 587.
    pub starttls: SocketAddr,
    /// The one under TLS from the first octet, as on port 465.
    pub tls: SocketAddr,
    /// Who logs in.
    pub user: String,
    /// By what.
    pub password: String,
    /// The one address that this user sends as.
    pub address: String,
}

#[async_trait(?Send)]
impl Server for SmtpRemote {
    fn protocol(&self) -> Protocol {
        Protocol::Smtp
    }

    fn has(&self, feature: &str) -> bool {
        match feature {
            "submission" => self.submission.is_some(),
            other => self.features.iter().any(|feature| feature == other),
        }
    }

    async fn maildrop(&mut self, _on: &str, _messages: &[Message]) -> Result<Maildrop, Trouble> {
        let user = self.submission.as_ref();
        let of = |part: fn(&Submission) -> &String| user.map(part).cloned().unwrap_or_default();
        let (user, password, address) = (of(|by| &by.user), of(|by| &by.password), of(|by| &by.address));
        Ok(Maildrop { user, password, address, messages: Vec::new() })
    }

    async fn connect(&mut self, on: &str) -> Result<Box<dyn Peer>, Trouble> {
        Ok(Box::new(match (on, &self.submission) {
            ("submission", Some(submission)) => Wire::connect(submission.starttls).await?,
            ("submissions", Some(submission)) => {
                let mut wire = Wire::connect(submission.tls).await?;
                wire.start_tls().await?;
                wire
            }
            _ => Wire::connect(self.server).await?,
        }))
    }
}
