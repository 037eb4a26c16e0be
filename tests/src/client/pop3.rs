//! A raw POP3 client (RFC 1939, 2449, 2595, 5034): commands out, `+OK` or `-ERR` and text back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::scram::Scram;
use crate::wire::Wire;

/// How long one answer may take before the connection counts as lost.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Why a dialogue did not go on as asked.
#[derive(Debug, thiserror::Error)]
pub enum Pop3Error {
    /// The connection could not be made, or was lost.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// `-ERR`.
    #[error("{asked:?} was answered -ERR {text}")]
    Refused {
        /// The command, or `connect` for the greeting.
        asked: String,
        /// What followed `-ERR`, with its response code (RFC 2449 §8) if any.
        text: String,
    },
    /// An answer that is neither `+OK` nor `-ERR`, or not shaped as the command's must be.
    #[error("{asked:?} was answered {answer:?}")]
    Odd {
        /// The command.
        asked: String,
        /// The line received.
        answer: String,
    },
}

/// One POP3 session, as the client.
#[derive(Debug)]
pub struct Pop3Client {
    wire: Wire,
}

impl Pop3Client {
    /// Connects in clear and takes the greeting.
    pub async fn connect(address: SocketAddr) -> Result<Self, Pop3Error> {
        Self::greeted(Wire::connect(address).await?).await
    }

    /// Connects under TLS from the first octet (RFC 8314 §3.3).
    pub async fn connect_tls(address: SocketAddr) -> Result<Self, Pop3Error> {
        let mut wire = Wire::connect(address).await?;
        wire.start_tls().await?;
        Self::greeted(wire).await
    }

    async fn greeted(wire: Wire) -> Result<Self, Pop3Error> {
        let mut client = Self { wire };
        client.answer("connect").await?;
        Ok(client)
    }

    /// STLS, with any certificate (RFC 2595 §4).
    pub async fn start_tls(&mut self) -> Result<(), Pop3Error> {
        self.command("STLS").await?;
        self.wire.start_tls().await?;
        Ok(())
    }

    /// USER and PASS.
    pub async fn login(&mut self, user: &str, password: &str) -> Result<(), Pop3Error> {
        self.command(&format!("USER {user}")).await?;
        self.command(&format!("PASS {password}")).await?;
        Ok(())
    }

    /// AUTH PLAIN with an initial response (RFC 5034, RFC 4616).
    pub async fn login_plain(&mut self, user: &str, password: &str) -> Result<(), Pop3Error> {
        let response = BASE64.encode(format!("\0{user}\0{password}"));
        self.command(&format!("AUTH PLAIN {response}")).await?;
        Ok(())
    }

    /// SCRAM-SHA-256, bound to the connection if `plus` (RFC 5034, RFC 7677). The server has to prove itself.
    pub async fn login_scram(&mut self, user: &str, password: &str, plus: bool) -> Result<(), Pop3Error> {
        let scram = Scram { user, password, exporter: self.wire.exporter().filter(|_| plus) };
        let asked = format!("AUTH {} {}", scram.mechanism(), scram.first());
        let challenge = self.command(&asked).await?;
        let Some((last, server)) = scram.last(&challenge) else { return Err(odd(&asked, challenge)) };
        let proof = self.command(&last).await?;
        if proof != server {
            return Err(odd(&asked, proof));
        }
        self.command("").await?;
        Ok(())
    }

    /// CAPA: one line for each capability.
    pub async fn capabilities(&mut self) -> Result<Vec<String>, Pop3Error> {
        self.lines("CAPA").await
    }

    /// STAT: how many messages, and their octets.
    pub async fn stat(&mut self) -> Result<(u64, u64), Pop3Error> {
        let answer = self.command("STAT").await?;
        pair(&answer).ok_or_else(|| odd("STAT", answer))
    }

    /// LIST: number and octets of every message.
    pub async fn list(&mut self) -> Result<Vec<(u64, u64)>, Pop3Error> {
        let lines = self.lines("LIST").await?;
        lines.into_iter().map(|line| pair(&line).ok_or_else(|| odd("LIST", line))).collect()
    }

    /// UIDL: number and unique id of every message.
    pub async fn uidl(&mut self) -> Result<Vec<(u64, String)>, Pop3Error> {
        let lines = self.lines("UIDL").await?;
        lines.into_iter().map(|line| pair(&line).ok_or_else(|| odd("UIDL", line))).collect()
    }

    /// RETR: the message's bytes.
    pub async fn retr(&mut self, number: u64) -> Result<Vec<u8>, Pop3Error> {
        self.block(&format!("RETR {number}")).await
    }

    /// TOP: the header and that many lines of the body.
    pub async fn top(&mut self, number: u64, lines: u64) -> Result<Vec<u8>, Pop3Error> {
        self.block(&format!("TOP {number} {lines}")).await
    }

    /// DELE: the message goes at QUIT.
    pub async fn dele(&mut self, number: u64) -> Result<(), Pop3Error> {
        self.command(&format!("DELE {number}")).await?;
        Ok(())
    }

    /// QUIT; `Ok` means that the server has done the deletions (RFC 1939 §6).
    pub async fn quit(mut self) -> Result<(), Pop3Error> {
        self.command("QUIT").await?;
        Ok(())
    }

    /// Sends `line`; returns what followed `+OK`.
    pub async fn command(&mut self, line: &str) -> Result<String, Pop3Error> {
        self.raw(format!("{line}\r\n").as_bytes()).await?;
        self.answer(line).await
    }

    /// Sends `line`; returns the dot-stuffed block that followed `+OK`, unstuffed.
    pub async fn block(&mut self, line: &str) -> Result<Vec<u8>, Pop3Error> {
        self.command(line).await?;
        Ok(tokio::time::timeout(ANSWER_WITHIN, self.wire.block()).await.map_err(io::Error::from)??)
    }

    /// Reads over the block that follows an answer.
    pub async fn skip_block(&mut self) -> Result<u64, Pop3Error> {
        Ok(tokio::time::timeout(ANSWER_WITHIN, self.wire.skip_block()).await.map_err(io::Error::from)??)
    }

    /// Sends raw bytes; CRLFs are the caller's.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(bytes).await
    }

    /// Takes one answer line; `asked` is only for the error.
    pub async fn answer(&mut self, asked: &str) -> Result<String, Pop3Error> {
        let line = tokio::time::timeout(ANSWER_WITHIN, self.wire.line()).await.map_err(io::Error::from)??;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (status, text) = line.split_once(' ').unwrap_or((&line, ""));
        match status {
            "+OK" => Ok(text.to_owned()),
            "-ERR" => Err(Pop3Error::Refused { asked: asked.into(), text: text.into() }),
            // A SASL challenge (RFC 5034 §4).
            "+" => Ok(text.to_owned()),
            _ => Err(odd(asked, line)),
        }
    }

    async fn lines(&mut self, command: &str) -> Result<Vec<String>, Pop3Error> {
        let block = self.block(command).await?;
        Ok(String::from_utf8_lossy(&block).lines().map(str::to_owned).collect())
    }
}

fn pair<T: std::str::FromStr>(line: &str) -> Option<(u64, T)> {
    let (first, second) = line.split_once(' ')?;
    Some((first.parse().ok()?, second.split(' ').next()?.parse().ok()?))
}

fn odd(asked: &str, answer: String) -> Pop3Error {
    Pop3Error::Odd { asked: asked.into(), answer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that expects each line and answers it as scripted.
    async fn script(lines: &'static [(&'static str, &'static str)]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut wire = Wire::new(listener.accept().await.expect("accepted").0);
            wire.send(b"+OK ready\r\n").await.expect("greeted");
            for (expected, answer) in lines {
                let line = wire.line().await.expect("a line");
                assert_eq!(String::from_utf8_lossy(&line).trim_end(), *expected);
                wire.send(answer.as_bytes()).await.expect("answered");
            }
        });
        address
    }

    #[tokio::test]
    async fn a_session_is_read_as_rfc_1939_writes_it() {
        let address = script(&[
            ("USER bob", "+OK\r\n"),
            ("PASS secret", "+OK\r\n"),
            ("STAT", "+OK 2 320\r\n"),
            ("LIST", "+OK\r\n1 120\r\n2 200\r\n.\r\n"),
            ("UIDL", "+OK\r\n1 whqtswO00WBw418f9t5JxYwZ\r\n2 QhdPYR:00WBw1Ph7x7\r\n.\r\n"),
            ("RETR 1", "+OK\r\nSubject: x\r\n\r\n..dot\r\n.\r\n"),
            ("DELE 3", "-ERR [SYS/PERM] no such message\r\n"),
            ("QUIT", "+OK bye\r\n"),
        ])
        .await;
        let mut client = Pop3Client::connect(address).await.expect("greeted");
        client.login("bob", "secret").await.expect("in");
        assert_eq!(client.stat().await.expect("STAT"), (2, 320));
        assert_eq!(client.list().await.expect("LIST"), [(1, 120), (2, 200)]);
        assert_eq!(client.uidl().await.expect("UIDL")[1], (2, "QhdPYR:00WBw1Ph7x7".into()));
        assert_eq!(client.retr(1).await.expect("RETR"), b"Subject: x\r\n\r\n.dot\r\n");
        let refused = client.dele(3).await.expect_err("refused").to_string();
        assert_eq!(refused, "\"DELE 3\" was answered -ERR [SYS/PERM] no such message");
        client.quit().await.expect("QUIT");
    }
}
