//! Sending: to port 25's role, and by submission.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use tests::client::pop3::{Pop3Client, Pop3Error};
use tests::ledger::{Fate, Ledger, Place, Token};
use tests::messages::{LONG, Letter, SHORT, marked_text};

use crate::clients::{self, Sending, Setting, Way, run};
use crate::tally::Tally;

/// How long a message may take to where it goes.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at where it goes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// The message, in CRLF lines.
    Message,
    /// The same without the last CRLF, which it adds itself.
    Unended,
    /// A text in LF lines, around which it composes a message.
    Text,
}

/// One program, and what it can do.
struct Sender {
    name: &'static str,
    program: &'static str,
    command: fn(&Sending<'_>, &Path) -> Command,
    takes: Takes,
    /// Whether it can send without a password.
    anonymous: bool,
}

const SENDERS: [Sender; 7] = [
    Sender {
        name: "swaks PLAIN",
        program: "swaks",
        command: clients::swaks_plain,
        takes: Takes::Unended,
        anonymous: true,
    },
    Sender {
        name: "swaks LOGIN",
        program: "swaks",
        command: clients::swaks_login,
        takes: Takes::Unended,
        anonymous: false,
    },
    Sender {
        name: "curl",
        program: "curl",
        command: clients::curl_send,
        takes: Takes::Message,
        anonymous: true,
    },
    Sender {
        name: "msmtp",
        program: "msmtp",
        command: clients::msmtp,
        takes: Takes::Message,
        anonymous: true,
    },
    Sender {
        name: "msmtp SCRAM",
        program: "msmtp",
        command: clients::msmtp_scram,
        takes: Takes::Message,
        anonymous: false,
    },
    Sender {
        name: "Python smtplib",
        program: "python3",
        command: clients::smtplib,
        takes: Takes::Message,
        anonymous: true,
    },
    Sender {
        name: "mutt",
        program: "mutt",
        command: clients::mutt_send,
        takes: Takes::Text,
        anonymous: false,
    },
];

/// Every program on every port.
pub async fn cases(setting: &Setting, tally: &mut Tally) {
    for sender in &SENDERS {
        for way in [Way::Upgrade, Way::Implicit] {
            let port = if way == Way::Implicit { "465" } else { "587 STARTTLS" };
            let case = format!("submission {port}, {}", sender.name);
            if tally.wants(&case, sender.program) {
                tally.note(&case, submission(setting, sender, way).await);
            }
        }
        for way in [Way::Clear, Way::Upgrade] {
            let tls = if way == Way::Clear { "" } else { " STARTTLS" };
            let case = format!("reception 25{tls}, {}", sender.program);
            if sender.anonymous && tally.wants(&case, sender.program) {
                tally.note(&case, reception(setting, sender, way).await);
            }
        }
    }
}

async fn submission(setting: &Setting, sender: &Sender, way: Way) -> Result<(), String> {
    let (person, password) = setting.traveller();
    let to = format!("interop@{}", setting.ready.internet.domain);
    let server = setting.submission(way);
    let login = Some((person.name.as_str(), password));
    let from = person.address.as_str();
    let sent = send(sender, Sending { setting, server, way, login, from, to: &to }).await?;
    let folder = &setting.ready.internet.mailbox_dir;
    let found = outside(folder, &sent.mark).await?;
    same(&sent.content, &to, Place::Outside, &found)
}

async fn reception(setting: &Setting, sender: &Sender, way: Way) -> Result<(), String> {
    let (person, password) = setting.traveller();
    let (from, to) = (format!("interop@{}", setting.ready.internet.domain), person.address.as_str());
    let server = setting.smtp();
    let sending = Sending { setting, server, way, login: None, from: &from, to };
    let sent = send(sender, sending).await?;
    let pop3 = setting.ready.edge.pop3;
    let collected = async || {
        let mail = maildrop(pop3, &person.name, password, true).await.ok()?;
        mail.into_iter().find(|message| contains(message, &sent.mark))
    };
    let found = look(collected, "it is not in the maildrop").await?;
    same(&sent.content, to, Place::Inside, &found)
}

/// What was given to a client, and how to know it again.
struct Sent {
    content: Vec<u8>,
    mark: String,
}

/// Lets the client send a new message; `sending` says all but the message.
async fn send(sender: &Sender, sending: Sending<'_>) -> Result<Sent, String> {
    let token = sending.setting.token();
    let content = content(token, sender.takes, &sending);
    let file = sending.setting.scratch().map_err(|e| e.to_string())?.join("message");
    let given = match sender.takes {
        Takes::Message => content.clone(),
        Takes::Unended => content.strip_suffix(b"\r\n").unwrap_or(&content).to_vec(),
        Takes::Text => lf(&content),
    };
    std::fs::write(&file, given).map_err(|e| e.to_string())?;
    run((sender.command)(&sending, &file), Some(&file)).await?;
    Ok(Sent { content, mark: token.to_string() })
}

/// A text for a composer; else a short message and one with an attachment in turn.
fn content(token: Token, takes: Takes, sending: &Sending<'_>) -> Vec<u8> {
    let letter = Letter { from: sending.from, to: sending.to, subject: "interoperation", token };
    match token.number % 4 {
        _ if takes == Takes::Text => marked_text(token).into_bytes(),
        0 | 1 => letter.text(SHORT),
        _ => letter.with_attachment("na\u{ef}ve report.pdf", LONG),
    }
}

/// Every message in the maildrop; they are deleted if so asked.
pub async fn maildrop(
    server: std::net::SocketAddr,
    user: &str,
    password: &str,
    delete: bool,
) -> Result<Vec<Vec<u8>>, Pop3Error> {
    let mut client = Pop3Client::connect(server).await?;
    client.start_tls().await?;
    client.login(user, password).await?;
    let mut mail = Vec::new();
    for (number, _) in client.list().await? {
        mail.push(client.retr(number).await?);
        if delete {
            client.dele(number).await?;
        }
    }
    client.quit().await?;
    Ok(mail)
}

/// Looks until there is something, or it is too late.
pub async fn look<T>(mut at: impl AsyncFnMut() -> Option<T>, otherwise: &str) -> Result<T, String> {
    let looking = async {
        loop {
            if let Some(found) = at().await {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let late = |_| format!("{otherwise} after {ARRIVES_WITHIN:?}");
    tokio::time::timeout(ARRIVES_WITHIN, looking).await.map_err(late)
}

/// Waits for the message with that mark in the stand-in MTA's folder.
pub async fn outside(folder: &Path, mark: &str) -> Result<Vec<u8>, String> {
    look(async || kept_in(folder, mark), "it is not in the outside mailbox").await
}

/// The message in the stand-in MTA's folder; it is complete once its `.json` is there.
fn kept_in(folder: &Path, mark: &str) -> Option<Vec<u8>> {
    let entries = std::fs::read_dir(folder).ok()?;
    let complete = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut messages = complete.filter_map(|path| std::fs::read(path.with_extension("eml")).ok());
    messages.find(|message| contains(message, mark))
}

fn contains(message: &[u8], mark: &str) -> bool {
    memchr::memmem::find(message, mark.as_bytes()).is_some()
}

/// Whether what was found is what was sent.
pub fn same(sent: &[u8], to: &str, place: Place, found: &[u8]) -> Result<(), String> {
    let ledger = Ledger::new(0);
    ledger
        .enter(sent, &[to])
        .and_then(|()| ledger.settle(sent, Fate::Accepted))
        .map_err(|e| e.to_string())?;
    ledger.found(place, to, found, SystemTime::now());
    let audit = ledger.audit();
    if audit.is_clean() { Ok(()) } else { Err(audit.to_string()) }
}

/// With LF for CRLF, as Unix programs want their input.
fn lf(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|&byte| byte != b'\r').collect()
}

/// With CRLF for LF, whatever it was before.
pub fn crlf(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(text.len() + text.len() / 32);
    for line in lf(text).split_inclusive(|&byte| byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => lines.extend_from_slice(&[line, b"\r\n"].concat()),
            None => lines.extend_from_slice(line),
        }
    }
    lines
}
