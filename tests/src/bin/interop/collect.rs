//! Collecting: every POP3 client, by STLS and under TLS, keeping and deleting.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::client::smtp::SmtpClient;
use tests::ledger::Place;
use tests::messages::{Letter, SHORT};

use crate::clients::{self, Collecting, Setting, Way, run};
use crate::send::{crlf, look, maildrop, same};
use crate::tally::Tally;

/// Messages that wait in the maildrop for each case.
pub const WAITING: usize = 2;

struct Collector {
    name: &'static str,
    program: &'static str,
    commands: fn(&Collecting<'_>) -> std::io::Result<Vec<Command>>,
    /// Whether it adds header fields of its own below those there are, so that only the body can be
    /// compared.
    marks_header: bool,
    /// Whether it can go over to TLS.
    upgrades: bool,
    /// Whether it knows what it has collected before.
    remembers: bool,
}

const PLAIN: Collector = Collector {
    name: "",
    program: "",
    commands: |_| Ok(Vec::new()),
    marks_header: false,
    upgrades: true,
    remembers: false,
};

const COLLECTORS: [Collector; 7] = [
    Collector {
        name: "fetchmail",
        program: "fetchmail",
        commands: clients::fetchmail,
        remembers: true,
        ..PLAIN
    },
    Collector {
        name: "getmail",
        program: "getmail",
        commands: clients::getmail,
        upgrades: false,
        remembers: true,
        ..PLAIN
    },
    Collector { name: "mpop", program: "mpop", commands: clients::mpop, remembers: true, ..PLAIN },
    Collector {
        name: "mpop SCRAM",
        program: "mpop",
        commands: clients::mpop_scram,
        remembers: true,
        ..PLAIN
    },
    Collector { name: "curl", program: "curl", commands: |c| Ok(clients::curl_collect(c)), ..PLAIN },
    Collector { name: "Python poplib", program: "python3", commands: |c| Ok(clients::poplib(c)), ..PLAIN },
    Collector {
        name: "mutt",
        program: "mutt",
        commands: |c| Ok(clients::mutt_collect(c)),
        marks_header: true,
        ..PLAIN
    },
];

/// Every client, both ways to TLS.
pub async fn cases(setting: &Setting, tally: &mut Tally) {
    for collector in &COLLECTORS {
        for (way, port) in [(Way::Upgrade, "110 STLS"), (Way::Implicit, "995")] {
            for (delete, verb) in [(false, "keep"), (true, "delete")] {
                let case = format!("POP3 {port} {verb}, {}", collector.name);
                let can = way == Way::Implicit || collector.upgrades;
                if can && tally.wants(&case, collector.program) {
                    tally.note(&case, collect(setting, collector, way, delete).await);
                }
            }
        }
    }
}

async fn collect(setting: &Setting, collector: &Collector, way: Way, delete: bool) -> Result<(), String> {
    let (person, password) = setting.traveller();
    let server = setting.pop3(way);
    let sent = fill_anew(setting).await?;

    let folder = setting.scratch().map_err(|e| e.to_string())?;
    let collecting = Collecting {
        setting,
        server,
        way,
        user: &person.name,
        password,
        count: WAITING,
        delete,
        folder: &folder,
    };
    // Whoever leaves mail there and comes again is to get nothing twice.
    let times = if collector.remembers && !delete { 2 } else { 1 };
    for _ in 0..times {
        for command in (collector.commands)(&collecting).map_err(|e| e.to_string())? {
            run(command, None).await?;
        }
    }
    let found = messages_under(&folder).map_err(|e| e.to_string())?;
    if found.len() != WAITING {
        return Err(format!("it filed {} messages, {WAITING} waited", found.len()));
    }
    for sent in &sent {
        let is_copy = |found: &&Vec<u8>| match collector.marks_header {
            false => same(sent, &person.address, Place::Inside, found).is_ok(),
            true => body(found) == body(sent),
        };
        if found.iter().filter(is_copy).count() != 1 {
            return Err("a message was not filed as it was sent".into());
        }
    }
    let expected = if delete { 0 } else { WAITING };
    let left = left(setting).await?;
    if left == expected { Ok(()) } else { Err(format!("{left} messages are left, not {expected}")) }
}

/// Empties the traveller's maildrop, and fills it with new mail; gives what was sent.
pub async fn fill_anew(setting: &Setting) -> Result<Vec<Vec<u8>>, String> {
    let (person, password) = setting.traveller();
    maildrop(setting.ready.edge.pop3, &person.name, password, true).await.map_err(|e| e.to_string())?;
    let sent = fill(setting, &person.address).await?;
    let filled = async || left(setting).await.ok().filter(|&left| left == WAITING);
    look(filled, "the maildrop is not filled").await?;
    Ok(sent)
}

/// How many messages are in the traveller's maildrop.
pub async fn left(setting: &Setting) -> Result<usize, String> {
    let (person, password) = setting.traveller();
    let mail = maildrop(setting.ready.edge.pop3, &person.name, password, false).await;
    mail.map(|mail| mail.len()).map_err(|e| e.to_string())
}

/// Sends the person some mail from outside.
async fn fill(setting: &Setting, to: &str) -> Result<Vec<Vec<u8>>, String> {
    let from = format!("interop@{}", setting.ready.internet.domain);
    let mut client = SmtpClient::ready(setting.ready.edge.smtp, None).await.map_err(|e| e.to_string())?;
    let mut sent = Vec::new();
    for _ in 0..WAITING {
        let message =
            Letter { from: &from, to, subject: "interoperation", token: setting.token() }.text(SHORT);
        client.send(&from, &[to], &message).await.map_err(|e| e.to_string())?;
        sent.push(message);
    }
    client.quit().await.map_err(|e| e.to_string())?;
    Ok(sent)
}

/// What follows the first empty line.
fn body(message: &[u8]) -> &[u8] {
    let end = memchr::memmem::find(message, b"\r\n\r\n").unwrap_or(message.len());
    &message[end..]
}

/// Every file under `folder`, with ends of line as they are on the wire.
fn messages_under(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                messages.push(crlf(&std::fs::read(path)?));
            }
        }
    }
    Ok(messages)
}
