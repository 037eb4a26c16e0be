//! Any POP3 server, of which nothing is known but a user's name and password. Before each dialogue what was put into its
//! maildrop for the last one is deleted, and what this one needs is put there.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use async_trait::async_trait;

use super::script::Message;
use super::{Maildrop, Peer, Served, Server};
use crate::client::pop3::{Pop3Client, Pop3Error};
use crate::client::smtp::SmtpClient;
use crate::wait::{SOON, Trouble, until};
use crate::wire::Wire;

/// Who sends what the maildrop is filled with.
const SENDER: &str = "conformance@client.example";

/// How clients get to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// From the first octet.
    Tls,
    /// By STLS.
    Stls,
    /// Not at all.
    Off,
}

/// By what the maildrop is filled.
#[derive(Clone, Debug)]
pub enum Filling {
    /// By nothing: dialogues with mail cannot be held.
    Nothing,
    /// Files in a Maildir of this host's.
    Maildir(PathBuf),
    /// Mail, to a server and an address.
    Smtp(SocketAddr, String),
}

/// The server.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Where clients collect.
    pub server: SocketAddr,
    /// How they get to TLS there.
    pub security: Security,
    /// Where the dialogues begin that begin in the clear.
    pub clear: Option<SocketAddr>,
    /// Who has the maildrop.
    pub user: String,
    /// The password.
    pub password: String,
    /// By what that is filled.
    pub filling: Filling,
    /// What the server has, beside what every server has.
    pub features: Vec<String>,
    /// The unique-ids of what was put into the maildrop.
    pub put: HashSet<String>,
}

impl Remote {
    /// How many messages there are.
    pub async fn waiting(&self) -> Result<u64, Trouble> {
        let mut session = self.session().await?;
        let (count, _) = session.stat().await?;
        session.quit().await?;
        Ok(count)
    }

    /// A session that is logged in, as soon as the one before has given the maildrop free.
    async fn session(&self) -> Result<Pop3Client, Trouble> {
        until("the maildrop is free", SOON, async || {
            let mut session = match self.security {
                Security::Tls => Pop3Client::connect_tls(self.server).await?,
                Security::Stls | Security::Off => Pop3Client::connect(self.server).await?,
            };
            if self.security == Security::Stls {
                session.start_tls().await?;
            }
            match session.login(&self.user, &self.password).await {
                Ok(()) => Ok(Some(session)),
                Err(Pop3Error::Refused { text, .. }) if text.starts_with("[IN-USE]") => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Deletes what was put into the maildrop.
    ///
    /// # Errors
    /// What keeps that from being done, and mail that has come from elsewhere, which stays.
    pub async fn clear(&mut self) -> Result<(), Trouble> {
        let mut session = self.session().await?;
        let mut others = false;
        for (number, id) in session.uidl().await? {
            match self.put.contains(&id) {
                true => session.dele(number).await?,
                false => others = true,
            }
        }
        session.quit().await?;
        self.put.clear();
        if others {
            return Err(
                "mail from elsewhere is in that maildrop, and stays there: the suite needs one of its own"
                    .into(),
            );
        }
        Ok(())
    }

    /// Deletes all there is.
    pub async fn empty(&self) -> Result<(), Trouble> {
        let mut session = self.session().await?;
        for number in 1..=session.stat().await?.0 {
            session.dele(number).await?;
        }
        Ok(session.quit().await?)
    }

    /// Puts a message into the maildrop, and sees that it is there as it should be.
    async fn put(&mut self, message: &Message, number: u64) -> Result<Served, Trouble> {
        match &self.filling {
            Filling::Nothing => return Err("it needs mail in the maildrop: name --maildir or --smtp".into()),
            Filling::Maildir(folder) => {
                let file = folder.join(format!("new/{}.M{number}P1.conformance", 1_700_000_000 + number));
                fs::write(&file, &message.octets)?;
                let owner = fs::metadata(folder)?;
                chown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            Filling::Smtp(server, address) => {
                let mut client = SmtpClient::ready(*server, None).await?;
                client.send(SENDER, &[address], &message.octets).await?;
                client.quit().await?;
            }
        }
        // One after the other, so that they get their numbers in this order.
        let name = &message.name;
        until(&format!("message {name} is in the maildrop"), SOON, async || {
            Ok((self.waiting().await? == number).then_some(()))
        })
        .await?;
        let mut session = self.session().await?;
        let mut trace = session.retr(number).await?;
        let end: &[u8] = if message.octets.ends_with(b"\r\n") { b"" } else { b"\r\n" };
        let content = [&message.octets, end].concat();
        let Some(above) = trace.strip_suffix(content.as_slice()).map(<[u8]>::len) else {
            return Err(
                format!("message {name} was altered on its way into the maildrop, or is another").into()
            );
        };
        trace.truncate(above);
        let ids = session.uidl().await?;
        self.put.extend(ids.into_iter().filter(|(at, _)| *at == number).map(|(_, id)| id));
        session.quit().await?;
        Ok(Served { trace, content })
    }
}

#[async_trait(?Send)]
impl Server for Remote {
    fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|has| has == feature)
    }

    async fn maildrop(&mut self, _on: &str, messages: &[Message]) -> Result<Maildrop, Trouble> {
        self.clear().await?;
        let mut served = Vec::new();
        for (number, message) in (1..).zip(messages) {
            served.push(self.put(message, number).await?);
        }
        let (user, password) = (self.user.clone(), self.password.clone());
        Ok(Maildrop { user, password, address: String::new(), messages: served })
    }

    async fn connect(&mut self, on: &str) -> Result<Box<dyn Peer>, Trouble> {
        if on == "clear" {
            let clear = self.clear.ok_or("nobody has said where it is reached in the clear")?;
            return Ok(Box::new(Wire::connect(clear).await?));
        }
        let mut wire = Wire::connect(self.server).await?;
        match self.security {
            Security::Off => Ok(Box::new(wire)),
            Security::Tls => {
                wire.start_tls().await?;
                Ok(Box::new(wire))
            }
            Security::Stls => {
                let greeting = wire.line().await?;
                wire.send(b"STLS\r\n").await?;
                let agreed = wire.line().await?;
                if !agreed.starts_with(b"+OK") {
                    return Err(format!("STLS is answered {}", agreed.escape_ascii()).into());
                }
                wire.start_tls().await?;
                Ok(Box::new(Greeted { wire, greeting: Some(greeting) }))
            }
        }
    }
}

/// A connection that has been greeted, and has gone over to TLS since.
struct Greeted {
    wire: Wire,
    greeting: Option<Vec<u8>>,
}

#[async_trait(?Send)]
impl Peer for Greeted {
    async fn send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.wire.send(octets).await
    }

    async fn line(&mut self) -> std::io::Result<Vec<u8>> {
        match self.greeting.take() {
            Some(greeting) => Ok(greeting),
            None => self.wire.line().await,
        }
    }

    async fn start_tls(&mut self) -> std::io::Result<()> {
        self.wire.start_tls().await
    }

    fn exporter(&self) -> Option<[u8; 32]> {
        self.wire.exporter()
    }
}
