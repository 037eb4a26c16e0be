//! Entries as CSV (RFC 4180) with a header row: what `import` reads and `export` writes.
//!
//! A cell that holds several addresses or names has a space or a semicolon between them.

use csv::{ByteRecord, ReaderBuilder, Writer};
use shared::store::{Rows, StoreError};

use super::entry::{Kind, Pop3};
use super::group::{NewGroup, member_name};
use super::import::{BadRow, New};
use super::lookup::{groups, list, shadows};
use super::naming::shown;
use super::person::NewPerson;
use super::shadow::NewShadow;
use crate::error::Refused;

/// Rows of one file.
pub const ROWS_MAX: usize = 200_000;

/// What the rows of a table are.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rowed {
    /// Entries of a kind.
    Entries(Kind),
    /// Addresses that this gateway takes.
    Recipients(String),
}

impl Rowed {
    /// Of a row's cells, the first is what it is known by.
    fn columns(&self) -> &'static [&'static str] {
        match self {
            Self::Entries(kind) => columns(*kind),
            Self::Recipients(_) => &["address"],
        }
    }
}

fn columns(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Person => &["name", "display", "aliases", "attachments", "uid", "pop3", "forward", "keep_copy"],
        Kind::Shadow => &["name", "address", "display", "aliases"],
        Kind::Group => &["name", "display", "members", "aliases"],
    }
}

/// A table as read.
#[derive(Debug)]
pub struct Parsed {
    /// What its rows ask for, each with the line it begins in.
    pub rows: Vec<(u64, New)>,
    /// The rows that cannot be read.
    pub bad: Vec<BadRow>,
}

/// Reads a table.
pub fn parse(of: &Rowed, text: &[u8]) -> Result<Parsed, Refused> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let mut record = ByteRecord::new();
    let unreadable = |error: csv::Error| Refused::new(format!("this is not CSV: {error}"));
    let known = of.columns();
    if !reader.read_byte_record(&mut record).map_err(unreadable)? {
        return Err(Refused::new(format!("the file is empty; its first row is {}", known.join(","))));
    }
    let header: Vec<String> =
        record.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_lowercase()).collect();
    for (at, name) in header.iter().enumerate() {
        if !known.contains(&name.as_str()) || header[..at].contains(name) {
            let text = format!("the first row names the columns: {}; not {}", known.join(","), shown(name));
            return Err(Refused::new(text));
        }
    }
    if !known.first().is_some_and(|first| header.iter().any(|name| name == first)) {
        return Err(Refused::new(format!("the first row names the columns: {}", known.join(","))));
    }
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    let mut at = Line { offset: 0, number: 1 };
    while reader.read_byte_record(&mut record).map_err(unreadable)? {
        let line = at.of(text, record.position().map_or(0, csv::Position::byte));
        if rows.len() + bad.len() >= ROWS_MAX {
            return Err(Refused::new(format!("one file has {ROWS_MAX} rows at most; this one has more")));
        }
        match row(of, &header, &record) {
            Ok(new) => rows.push((line, new)),
            Err(reason) => {
                let name =
                    record.get(0).map(|cell| shown(&String::from_utf8_lossy(cell))).unwrap_or_default();
                bad.push(BadRow { line, name, reason });
            }
        }
    }
    Ok(Parsed { rows, bad })
}

/// Counts lines. The reader leaves the end of a line to the row that follows.
struct Line {
    offset: usize,
    number: u64,
}

impl Line {
    /// The line of the row that begins at `offset` or behind the line ends there; offsets rise.
    fn of(&mut self, text: &[u8], offset: u64) -> u64 {
        let mut begin = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        begin += text[begin..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let ends = text[self.offset..begin].iter().filter(|byte| **byte == b'\n').count();
        (self.offset, self.number) = (begin, self.number + ends as u64);
        self.number
    }
}

fn row(of: &Rowed, header: &[String], record: &ByteRecord) -> Result<New, String> {
    if record.len() != header.len() {
        return Err(format!("it has {} cells, the first row has {}", record.len(), header.len()));
    }
    let mut cells = Vec::with_capacity(header.len());
    for cell in record {
        cells.push(str::from_utf8(cell).map_err(|_| "it is not UTF-8")?.trim());
    }
    let cell = |name: &str| {
        header
            .iter()
            .position(|column| column == name)
            .and_then(|at| cells.get(at))
            .copied()
            .unwrap_or_default()
    };
    let text = |name| cell(name).to_owned();
    let several = |name| {
        let parts = cell(name).split([';', ' ', '\t', '\n', '\r']);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let kind = match of {
        Rowed::Entries(kind) => *kind,
        Rowed::Recipients(gateway) => {
            return Ok(New::Recipient { gateway: gateway.clone(), address: text("address") });
        }
    };
    Ok(match kind {
        Kind::Person => New::Person(NewPerson {
            name: text("name"),
            display: text("display"),
            aliases: several("aliases"),
            filing: match cell("attachments") {
                "" => None,
                mode => Some(mode.parse().map_err(|error| format!("attachments: {error}"))?),
            },
            uid: match cell("uid") {
                "" => None,
                uid => Some(uid.parse().map_err(|_| "uid: a number is wanted")?),
            },
            pop3: match cell("pop3") {
                "" => Pop3::default(),
                word => [Pop3::No, Pop3::Yes, Pop3::Passthru]
                    .into_iter()
                    .find(|pop3| pop3.as_str() == word)
                    .ok_or("pop3: no, yes or passthru is wanted")?,
            },
            forward: several("forward"),
            keep_copy: yes_or_no(cell("keep_copy")).ok_or("keep_copy: yes or no is wanted")?,
        }),
        Kind::Shadow => New::Shadow(NewShadow {
            name: text("name"),
            target: text("address"),
            display: text("display"),
            aliases: several("aliases"),
        }),
        Kind::Group => New::Group(NewGroup {
            name: text("name"),
            display: text("display"),
            members: several("members"),
            aliases: several("aliases"),
        }),
    })
}

fn yes_or_no(word: &str) -> Option<bool> {
    match word {
        "yes" => Some(true),
        "no" | "" => Some(false),
        _ => None,
    }
}

/// Everything of a kind as a table that `import` reads.
pub fn export(rows: &impl Rows, kind: Kind) -> Result<Vec<u8>, Refused> {
    let mut table = Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| Refused::new(error.to_string());
    table.write_record(columns(kind)).map_err(failed)?;
    // What follows from the name is not written.
    let aliases = |name: &str, addresses: &[String]| {
        let more = addresses.iter().filter(|address| address.split('@').next() != Some(name));
        more.cloned().collect::<Vec<_>>().join(" ")
    };
    match kind {
        Kind::Person => {
            for person in list(rows)? {
                table
                    .write_record([
                        person.name.as_str(),
                        &person.display,
                        &aliases(&person.name, &person.addresses),
                        person.filing.map_or("", |mode| mode.as_str()),
                        &person.uid.map_or_else(String::new, |uid| uid.to_string()),
                        person.pop3.as_str(),
                        &person.forward.join(" "),
                        if person.keep_copy { "yes" } else { "no" },
                    ])
                    .map_err(failed)?;
            }
        }
        Kind::Shadow => {
            for shadow in shadows(rows)? {
                let aliases = aliases(&shadow.name, &shadow.addresses);
                table
                    .write_record([&shadow.name, &shadow.target, &shadow.display, &aliases])
                    .map_err(failed)?;
            }
        }
        Kind::Group => {
            for group in groups(rows)? {
                let members = group.members.iter().map(|member| member_name(rows, member));
                let members: Vec<_> =
                    members.collect::<Result<Vec<_>, StoreError>>()?.into_iter().flatten().collect();
                let aliases = aliases(&group.name, &group.addresses);
                table
                    .write_record([&group.name, &group.display, &members.join(" "), &aliases])
                    .map_err(failed)?;
            }
        }
    }
    table.into_inner().map_err(|error| Refused::new(error.to_string()))
}
