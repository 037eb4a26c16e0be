//! A raw SMTP client: it sends what it is told, and says exactly how far it came.
//!
//! The one thing it must never blur is what became of a message: refused with a code, in doubt (the
//! connection was lost between the final dot and its answer, RFC 5321 §4.5.4.1), or not sent (lost
//! before the dot left). A ledger is kept from these answers.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::wire::{Wire, dot_stuffed};

/// How long one answer may take before the connection counts as lost (RFC 5321 §4.5.3.2.6).
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What a server answered (RFC 5321 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The text of each line, enhanced code included.
    pub lines: Vec<String>,
}

impl Reply {
    /// Whether it is 2xx or 3xx.
    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// The enhanced status code (RFC 3463), if the text begins with one.
    pub fn enhanced(&self) -> Option<&str> {
        let word = self.lines.first()?.split(' ').next()?;
        let mut parts = word.split('.');
        let numbers = parts.by_ref().take(3).filter(|part| part.parse::<u16>().is_ok()).count();
        (numbers == 3 && parts.next().is_none()).then_some(word)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" / "))
    }
}

/// Why a dialogue did not go on as asked.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The connection could not be made, or was lost.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// The server said something else.
    #[error("{asked:?} was answered {reply}")]
    Answered {
        /// The command, or `connect` for the greeting.
        asked: String,
        /// The answer.
        reply: Reply,
    },
}

/// What became of a message that was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The server said no; it has not taken the message.
    #[error("{stage} was refused: {reply}")]
    Refused {
        /// `MAIL`, `RCPT`, `DATA`, `BDAT` or `dot`.
        stage: &'static str,
        /// The refusal.
        reply: Reply,
    },
    /// The connection was lost after the final dot may have left and before its answer came.
    #[error("in doubt: lost after the dot: {0}")]
    InDoubt(io::Error),
    /// The connection was lost before that; the server cannot have taken the message.
    #[error("not sent: {0}")]
    NotSent(io::Error),
}

/// One SMTP session, as the client.
#[derive(Debug)]
pub struct SmtpClient {
    wire: Wire,
    keywords: Vec<String>,
}

impl SmtpClient {
    /// Connects in clear and takes the greeting; says no EHLO yet.
    pub async fn connect(address: SocketAddr) -> Result<Self, SmtpError> {
        Self::greeted(Wire::connect(address).await?).await
    }

    /// Connects under TLS from the first octet (RFC 8314 §3.3).
    pub async fn connect_tls(address: SocketAddr) -> Result<Self, SmtpError> {
        let mut wire = Wire::connect(address).await?;
        wire.start_tls().await?;
        Self::greeted(wire).await
    }

    /// Connects, says EHLO and, for `login`, does STARTTLS and AUTH PLAIN first: ready to send.
    pub async fn ready(address: SocketAddr, login: Option<(&str, &str)>) -> Result<Self, SmtpError> {
        Self::introduced(Self::connect(address).await?, login).await
    }

    /// The same from another address of this host's.
    pub async fn ready_from(
        source: IpAddr,
        address: SocketAddr,
        login: Option<(&str, &str)>,
    ) -> Result<Self, SmtpError> {
        Self::introduced(Self::greeted(Wire::connect_from(source, address).await?).await?, login).await
    }

    /// The same over a connection that was made just now.
    pub async fn ready_over(wire: Wire, login: Option<(&str, &str)>) -> Result<Self, SmtpError> {
        Self::introduced(Self::greeted(wire).await?, login).await
    }

    async fn introduced(mut client: Self, login: Option<(&str, &str)>) -> Result<Self, SmtpError> {
        client.hello().await?;
        if let Some((user, password)) = login {
            client.start_tls().await?;
            client.login(user, password).await?;
        }
        Ok(client)
    }

    async fn greeted(wire: Wire) -> Result<Self, SmtpError> {
        let mut client = Self { wire, keywords: Vec::new() };
        let reply = client.reply().await?;
        expect("connect", 220, reply)?;
        Ok(client)
    }

    /// EHLO; keeps and returns the keywords offered, such as `SIZE 1000`.
    pub async fn hello(&mut self) -> Result<&[String], SmtpError> {
        let reply = self.expect("EHLO client.test", 250).await?;
        self.keywords = reply.lines.into_iter().skip(1).collect();
        Ok(&self.keywords)
    }

    /// Whether the last EHLO offered `keyword`, whatever its parameters.
    pub fn offers(&self, keyword: &str) -> bool {
        self.keywords.iter().any(|line| line.split(' ').next() == Some(keyword))
    }

    /// STARTTLS with any certificate, and EHLO again (RFC 3207 §4.2).
    pub async fn start_tls(&mut self) -> Result<(), SmtpError> {
        self.expect("STARTTLS", 220).await?;
        self.wire.start_tls().await?;
        self.hello().await?;
        Ok(())
    }

    /// The certificate that the server has shown, DER.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.wire.peer_certificate()
    }

    /// Whether the session runs under TLS.
    pub fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }

    /// AUTH PLAIN with an initial response (RFC 4616, RFC 4954).
    pub async fn login(&mut self, user: &str, password: &str) -> Result<Reply, SmtpError> {
        let response = BASE64.encode(format!("\0{user}\0{password}"));
        self.expect(&format!("AUTH PLAIN {response}"), 235).await
    }

    /// Sends raw bytes; CRLFs are the caller's.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(bytes).await
    }

    /// Takes one reply.
    ///
    /// # Errors
    /// `InvalidData` if it is not shaped like one; `TimedOut` after [`ANSWER_WITHIN`].
    pub async fn reply(&mut self) -> io::Result<Reply> {
        tokio::time::timeout(ANSWER_WITHIN, read_reply(&mut self.wire)).await?
    }

    /// Sends `line` and takes the reply.
    pub async fn command(&mut self, line: &str) -> io::Result<Reply> {
        self.raw(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends `line` and insists on the code.
    pub async fn expect(&mut self, line: &str, code: u16) -> Result<Reply, SmtpError> {
        let reply = self.command(line).await?;
        expect(line, code, reply)
    }

    /// Sends a message and ends the session, so that the server knows that its answer was heard.
    pub async fn send_and_quit(
        mut self,
        from: &str,
        to: &[&str],
        message: &[u8],
    ) -> Result<Reply, SendError> {
        let sent = self.send(from, to, message).await;
        // What became of the message is known, whatever is said now.
        let _ = self.quit().await;
        sent
    }

    /// Sends a message, one command at a time, with SMTPUTF8 if an address asks for it (RFC 6531). A refusal is followed by RSET, so that the session
    /// can go on; the message must be in CRLF lines, and is dot-stuffed here.
    pub async fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> Result<Reply, SendError> {
        let sent = self.transaction(from, to, message).await;
        if let Err(SendError::Refused { stage, .. }) = &sent
            && *stage != "dot"
        {
            self.command("RSET").await.map_err(SendError::NotSent)?;
        }
        sent
    }

    async fn transaction(&mut self, from: &str, to: &[&str], message: &[u8]) -> Result<Reply, SendError> {
        let body = match message.is_ascii() {
            false if self.offers("8BITMIME") => " BODY=8BITMIME",
            _ => "",
        };
        let wide = !from.is_ascii() || to.iter().any(|recipient| !recipient.is_ascii());
        let utf8 = if wide { " SMTPUTF8" } else { "" };
        self.step("MAIL", &format!("MAIL FROM:<{from}>{body}{utf8}")).await?;
        for recipient in to {
            self.step("RCPT", &format!("RCPT TO:<{recipient}>")).await?;
        }
        self.step("DATA", "DATA").await?;
        self.raw(&dot_stuffed(message)).await.map_err(SendError::NotSent)?;
        // From here on the server may have the whole message, whatever we see of it.
        self.raw(b".\r\n").await.map_err(SendError::InDoubt)?;
        let reply = self.reply().await.map_err(SendError::InDoubt)?;
        if reply.code == 250 { Ok(reply) } else { Err(SendError::Refused { stage: "dot", reply }) }
    }

    /// Sends a message in octets (RFC 3030 §3), in chunks of at most `chunk` of them, whatever is in it. A refusal ends the
    /// transaction.
    pub async fn send_binary(
        &mut self,
        from: &str,
        to: &[&str],
        message: &[u8],
        chunk: usize,
    ) -> Result<Reply, SendError> {
        self.step("MAIL", &format!("MAIL FROM:<{from}> BODY=BINARYMIME")).await?;
        for recipient in to {
            self.step("RCPT", &format!("RCPT TO:<{recipient}>")).await?;
        }
        for octets in message.chunks(chunk) {
            let mut piece = format!("BDAT {}\r\n", octets.len()).into_bytes();
            piece.extend_from_slice(octets);
            self.raw(&piece).await.map_err(SendError::NotSent)?;
            let reply = self.reply().await.map_err(SendError::NotSent)?;
            if reply.code != 250 {
                return Err(SendError::Refused { stage: "BDAT", reply });
            }
        }
        self.raw(b"BDAT 0 LAST\r\n").await.map_err(SendError::InDoubt)?;
        let reply = self.reply().await.map_err(SendError::InDoubt)?;
        if reply.code == 250 { Ok(reply) } else { Err(SendError::Refused { stage: "BDAT", reply }) }
    }

    async fn step(&mut self, stage: &'static str, line: &str) -> Result<(), SendError> {
        let reply = self.command(line).await.map_err(SendError::NotSent)?;
        if reply.is_positive() { Ok(()) } else { Err(SendError::Refused { stage, reply }) }
    }

    /// QUIT, and its answer.
    pub async fn quit(mut self) -> Result<(), SmtpError> {
        self.expect("QUIT", 221).await?;
        Ok(())
    }

    /// Goes without a word, and waits until the server has seen that.
    pub async fn vanish(mut self) -> io::Result<()> {
        self.wire.close().await?;
        self.rest().await.map(drop)
    }

    /// Everything the server still says until it closes.
    pub async fn rest(mut self) -> io::Result<Vec<u8>> {
        tokio::time::timeout(ANSWER_WITHIN, self.wire.rest()).await?
    }

    /// The connection, for a client that keeps its own time ([`load`](super::load)).
    pub(super) fn into_wire(self) -> Wire {
        self.wire
    }
}

fn expect(asked: &str, code: u16, reply: Reply) -> Result<Reply, SmtpError> {
    if reply.code == code { Ok(reply) } else { Err(SmtpError::Answered { asked: asked.into(), reply }) }
}

pub(super) async fn read_reply(wire: &mut Wire) -> io::Result<Reply> {
    let mut lines = Vec::new();
    loop {
        let line = wire.line().await?;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        let shaped = text.get(..3).and_then(|code| code.parse().ok());
        let (Some(code), separator) = (shaped, text.get(3..4).unwrap_or(" ")) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no SMTP reply")));
        };
        lines.push(text.get(4..).unwrap_or_default().to_owned());
        if separator != "-" {
            return Ok(Reply { code, lines });
        }
    }
}
