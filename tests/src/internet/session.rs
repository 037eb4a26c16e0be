//! One SMTP or LMTP session of the stand-in MTA (RFC 5321 §4.1, RFC 2033, the receiver's side).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpStream;

use super::mta::{Host, Mail, StartTls};
use super::rules::{Action, Stage};
use crate::wire::{LINE_BYTES_MAX, Wire};

/// A silent client is let go after this (RFC 5321 §4.5.3.2.7).
const IDLE: Duration = Duration::from_secs(300);

/// Serves one connection to its end. However it ends, only this session is affected.
pub(super) async fn run(host: Arc<Host>, stream: TcpStream, peer: SocketAddr) {
    let shared = host.clone();
    let mut session =
        Session { host, wire: Wire::new(stream), peer, hello: String::new(), user: None, mail: None };
    // A peer that closes, resets or talks nonsense is what this MTA is there to bear.
    let _ = match shared.places.try_acquire() {
        Ok(_place) => session.serve().await,
        Err(_) => session.turn_away().await,
    };
}

struct Session {
    host: Arc<Host>,
    wire: Wire,
    peer: SocketAddr,
    hello: String,
    /// As whom the peer has logged in.
    user: Option<String>,
    /// The transaction under way, from MAIL on.
    mail: Option<Mail>,
}

/// What a rule leaves to be done.
enum Then {
    GoOn,
    Answered,
    KeepAndHangUp,
}

impl Session {
    async fn serve(&mut self) -> io::Result<()> {
        if let (StartTls::Implicit, Some(acceptor)) = (self.host.options.starttls, self.host.tls.clone()) {
            self.wire.accept_tls(&acceptor).await?;
        }
        if let Then::GoOn = self.apply_rules(Stage::Connect, &[]).await? {
            let greeting = format!("220 {} ESMTP stand-in", self.host.options.name);
            self.reply(&greeting).await?;
        }
        loop {
            let line = self.command().await?;
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" | "HELO" if !self.host.options.lmtp => self.hello(verb, rest).await?,
                "LHLO" if self.host.options.lmtp => self.hello(verb, rest).await?,
                "STARTTLS" => self.start_tls().await?,
                "AUTH" => self.auth(rest).await?,
                "MAIL" => self.mail(rest).await?,
                "RCPT" => self.rcpt(rest).await?,
                "DATA" => self.data().await?,
                "BDAT" if self.host.options.chunking => self.bdat(rest).await?,
                "RSET" => {
                    self.mail = None;
                    self.reply("250 2.0.0 forgotten").await?;
                }
                "NOOP" => self.reply("250 2.0.0 nothing done").await?,
                "QUIT" => {
                    self.reply("221 2.0.0 goodbye").await?;
                    return self.wire.close().await;
                }
                _ => self.reply("502 5.5.1 not a command that is known here").await?,
            }
        }
    }

    /// Says that there is no place for this session.
    async fn turn_away(&mut self) -> io::Result<()> {
        self.host.turned_away.fetch_add(1, Ordering::Relaxed);
        self.reply("421 4.7.0 too many sessions at once").await?;
        self.wire.close().await
    }

    async fn hello(&mut self, verb: &str, name: &str) -> io::Result<()> {
        self.mail = None;
        if let Then::Answered = self.apply_rules(Stage::Hello, &[]).await? {
            return Ok(());
        }
        self.hello = name.to_owned();
        let options = &self.host.options;
        if verb.eq_ignore_ascii_case("HELO") {
            let answer = format!("250 {}", options.name);
            return self.reply(&answer).await;
        }
        let mut keywords =
            vec![options.name.clone(), "PIPELINING".into(), format!("SIZE {}", options.size_max)];
        keywords.extend(options.eight_bit_mime.then(|| "8BITMIME".into()));
        keywords.extend(options.smtputf8.then(|| "SMTPUTF8".into()));
        keywords.extend(options.dsn.then(|| "DSN".into()));
        keywords.extend(options.chunking.then(|| "CHUNKING".into()));
        keywords.extend(self.takes_require_tls().then(|| "REQUIRETLS".into()));
        let starttls = options.starttls != StartTls::Absent && !self.wire.is_tls();
        keywords.extend(self.wants_login().then(|| "AUTH LOGIN PLAIN".into()));
        keywords.extend(starttls.then(|| "STARTTLS".into()));
        let mut answer: String = keywords.iter().map(|keyword| format!("250-{keyword}\r\n")).collect();
        answer.push_str("250 ENHANCEDSTATUSCODES");
        self.reply(&answer).await
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        match (self.host.options.starttls, self.host.tls.clone()) {
            (StartTls::Absent, _) => return self.reply("502 5.5.1 TLS is not offered").await,
            (StartTls::NotNow, _) => return self.reply("454 4.7.0 TLS is not there now").await,
            _ if self.wire.is_tls() => return self.reply("503 5.5.1 TLS is on").await,
            (StartTls::Broken, _) | (_, None) => {
                self.reply("220 2.0.0 go ahead").await?;
                // Said before the client's part, it would be an attempt to inject, and not a failure.
                self.wire.readable().await?;
                self.wire.send(b"this is no handshake\r\n").await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            (StartTls::SelfSigned | StartTls::Implicit, Some(acceptor)) => {
                self.reply("220 2.0.0 go ahead").await?;
                self.wire.accept_tls(&acceptor).await?;
            }
        }
        self.hello.clear();
        self.mail = None;
        Ok(())
    }

    /// Whether there is a login to be made, and a line to make it on.
    fn wants_login(&self) -> bool {
        self.host.options.login.is_some() && self.user.is_none() && self.wire.is_tls()
    }

    /// PLAIN with its response at once; of LOGIN only the name is known.
    async fn auth(&mut self, rest: &str) -> io::Result<()> {
        let Some((user, password)) = self.host.options.login.clone().filter(|_| self.wants_login()) else {
            return self.reply("503 5.5.1 AUTH is not offered").await;
        };
        let wanted = STANDARD.encode(format!("\0{user}\0{password}"));
        if rest.strip_prefix("PLAIN ") != Some(wanted.as_str()) {
            return self.reply("535 5.7.8 not with these credentials").await;
        }
        self.user = Some(user);
        self.reply("235 2.7.0 welcome").await
    }

    async fn mail(&mut self, rest: &str) -> io::Result<()> {
        if self.host.options.login.is_some() && self.user.is_none() {
            return self.reply("530 5.7.0 log in first").await;
        }
        if self.hello.is_empty() || self.mail.is_some() {
            return self.reply("503 5.5.1 MAIL comes once, after EHLO").await;
        }
        let Some((reverse_path, parameters)) = path(rest, "FROM:") else {
            return self.reply("501 5.5.4 write MAIL FROM:<address>").await;
        };
        if let Some(unknown) = parameters.iter().find(|parameter| !self.knows(parameter)) {
            let answer = format!("555 5.5.4 {unknown} was not offered");
            return self.reply(&answer).await;
        }
        if let Then::Answered = self.apply_rules(Stage::Mail, &[]).await? {
            return Ok(());
        }
        self.mail = Some(Mail {
            number: 0,
            at: 0,
            peer: self.peer,
            hello: self.hello.clone(),
            tls: self.wire.is_tls(),
            user: self.user.clone(),
            chunked: false,
            reverse_path,
            parameters,
            recipients: Vec::new(),
            recipient_parameters: Vec::new(),
            digest: String::new(),
            data: Vec::new(),
        });
        self.reply("250 2.1.0 sender ok").await
    }

    fn takes_require_tls(&self) -> bool {
        self.host.options.require_tls && self.wire.is_tls()
    }

    /// Whether EHLO offered what a MAIL parameter needs.
    fn knows(&self, parameter: &str) -> bool {
        let upper = parameter.to_ascii_uppercase();
        match upper.split_once('=') {
            Some(("SIZE", _)) => true,
            Some(("BODY", "7BIT" | "8BITMIME")) => self.host.options.eight_bit_mime,
            Some(("RET", "FULL" | "HDRS") | ("ENVID", _)) => self.host.options.dsn,
            None if upper == "REQUIRETLS" => self.takes_require_tls(),
            None => upper == "SMTPUTF8" && self.host.options.smtputf8,
            Some(_) => false,
        }
    }

    async fn rcpt(&mut self, rest: &str) -> io::Result<()> {
        if self.mail.is_none() {
            return self.reply("503 5.5.1 RCPT comes after MAIL").await;
        }
        let is_known = |parameter: &String| {
            let is_asked = ["NOTIFY=", "ORCPT="].iter().any(|keyword| parameter.starts_with(keyword));
            is_asked && self.host.options.dsn
        };
        let (recipient, parameters) = match path(rest, "TO:") {
            Some((recipient, parameters)) if !recipient.is_empty() && parameters.iter().all(is_known) => {
                (recipient, parameters)
            }
            _ => return self.reply("501 5.5.4 write RCPT TO:<address>, with nothing after it").await,
        };
        if let Then::Answered = self.apply_rules(Stage::Rcpt, std::slice::from_ref(&recipient)).await? {
            return Ok(());
        }
        if let Some(mail) = &mut self.mail {
            mail.recipients.push(recipient);
            mail.recipient_parameters.push(parameters);
        }
        self.reply("250 2.1.5 recipient ok").await
    }

    async fn data(&mut self) -> io::Result<()> {
        let Some(mut mail) = self.mail.take_if(|mail| !mail.recipients.is_empty()) else {
            return self.reply("503 5.5.1 DATA comes after RCPT").await;
        };
        if let Then::Answered = self.apply_rules(Stage::Data, &mail.recipients).await? {
            return Ok(());
        }
        let host = self.host.clone();
        let _taking = host.takes();
        self.reply("354 end with a dot on a line of its own").await?;
        mail.data = tokio::time::timeout(IDLE, self.wire.block()).await??;
        if self.host.options.lmtp {
            return self.each_dot(mail).await;
        }
        self.end(mail).await
    }

    /// One chunk, and after the last the end of the message.
    async fn bdat(&mut self, rest: &str) -> io::Result<()> {
        let mut words = rest.split(' ');
        let (length, is_last) =
            (words.next().and_then(|word| word.parse().ok()), words.next() == Some("LAST"));
        // Nobody knows where the next command begins.
        let Some(length) = length.filter(|length| *length <= LINE_BYTES_MAX) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let recipients = self.mail.as_ref().map(|mail| mail.recipients.clone()).unwrap_or_default();
        if !is_last && let Then::Answered = self.apply_rules(Stage::Chunk, &recipients).await? {
            return Ok(());
        }
        let octets = tokio::time::timeout(IDLE, self.wire.octets(length)).await??;
        let Some(mut mail) = self.mail.take_if(|mail| !mail.recipients.is_empty()) else {
            return self.reply("503 5.5.1 BDAT comes after RCPT").await;
        };
        mail.chunked = true;
        mail.data.extend(octets);
        if is_last {
            return self.end(mail).await;
        }
        self.mail = Some(mail);
        self.reply("250 2.0.0 go on").await
    }

    /// What the end of a message is answered with.
    async fn end(&mut self, mail: Mail) -> io::Result<()> {
        let then = self.apply_rules(Stage::Dot, &mail.recipients).await?;
        if let Then::Answered = then {
            return Ok(());
        }
        if u64::try_from(mail.data.len()).is_ok_and(|size| size > self.host.options.size_max) {
            return self.reply("552 5.3.4 larger than SIZE allows").await;
        }
        if self.host.clone().keep(mail).await.is_err() {
            return self.reply("452 4.3.1 it cannot be stored now").await;
        }
        if let Then::KeepAndHangUp = then {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.reply("250 2.0.0 kept").await
    }

    /// LMTP's answers to the dot: one for each recipient, and the message is kept for those who get a yes.
    async fn each_dot(&mut self, mut mail: Mail) -> io::Result<()> {
        let (mut answers, mut taken, mut hangs_up) = (Vec::new(), Vec::new(), false);
        for recipient in std::mem::take(&mut mail.recipients) {
            let mut answer = "250 2.0.0 kept".to_owned();
            for action in self.host.decide(Stage::Dot, std::slice::from_ref(&recipient)) {
                match action {
                    Action::Delay(delay) => tokio::time::sleep(delay).await,
                    Action::HangUp => return Err(io::ErrorKind::ConnectionAborted.into()),
                    Action::KeepAndHangUp => hangs_up = true,
                    Action::Reply(reply) => answer = reply,
                }
            }
            if answer.starts_with('2') {
                taken.push(recipient);
            }
            answers.push(answer);
        }
        if !taken.is_empty() {
            self.host.clone().keep(Mail { recipients: taken, ..mail }).await?;
        }
        if hangs_up {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        for answer in answers {
            self.reply(&answer).await?;
        }
        Ok(())
    }

    async fn apply_rules(&mut self, stage: Stage, recipients: &[String]) -> io::Result<Then> {
        for action in self.host.decide(stage, recipients) {
            match action {
                Action::Delay(delay) => tokio::time::sleep(delay).await,
                Action::HangUp => return Err(io::ErrorKind::ConnectionAborted.into()),
                Action::KeepAndHangUp => return Ok(Then::KeepAndHangUp),
                Action::Reply(reply) => {
                    self.reply(&reply).await?;
                    return Ok(Then::Answered);
                }
            }
        }
        Ok(Then::GoOn)
    }

    async fn command(&mut self) -> io::Result<String> {
        let line = tokio::time::timeout(IDLE, self.wire.line()).await??;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    async fn reply(&mut self, reply: &str) -> io::Result<()> {
        self.wire.send(format!("{reply}\r\n").as_bytes()).await
    }
}

/// `FROM:<path> PARAMETERS`, taken apart.
fn path(rest: &str, keyword: &str) -> Option<(String, Vec<String>)> {
    let after = rest.get(keyword.len()..)?;
    if !rest.get(..keyword.len())?.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let (path, parameters) = after.trim_start().strip_prefix('<')?.split_once('>')?;
    Some((path.to_owned(), parameters.split_ascii_whitespace().map(str::to_owned).collect()))
}
