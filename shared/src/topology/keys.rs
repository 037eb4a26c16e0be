//! Which keys a topology file may have, which it must have, and which a later version will have.
//!
//! The design knows more keys than this version implements. Such a key is refused as "not in this
//! version", never accepted without effect; a key that nobody knows is refused as unknown.

use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::refusal::{Source, TopologyError};

/// A name in the file, and what stands under it.
type Entry = (&'static str, Key);

/// What a name in the file is.
enum Key {
    /// A table that must be there.
    Section(&'static [Entry]),
    /// A table that may be left out.
    Optional(&'static [Entry]),
    /// A value that must be there, and what it looks like.
    Required(&'static str),
    /// A value that may be left out, and what it looks like.
    Value(&'static str),
    /// In the design, not in this version.
    Later,
}

use Key::{Later, Optional, Required, Section, Value};

const ADDRESSES: &str = "write a list of addresses with ports, like [\"192.0.2.1:25\"]";
const ADDRESS: &str = "write an IP address and a port, like \"192.0.2.1:7625\"";
const FOLDER: &str = "write a folder, like \"var/state\"; it is relative to the folder of this file";
const DNS_LISTS: &str =
    "write a list of zones, like [\"list.example\", \"other.example=127.0.0.2,127.0.0.4-7\"]";
const FILE: &str = "write the path of a PEM file, in quotes";

static ROOT: &[Entry] = &[
    ("site", Section(SITE)),
    ("big", Section(BIG)),
    ("edge", Section(EDGE)),
    ("link", Section(LINK)),
    ("desk", Later),
    ("gateway", Later),
    ("gateways", Later),
    ("limits", Later),
    ("metrics", Later),
    ("policy", Later),
    ("quota", Later),
    ("quotas", Later),
    ("status", Later),
    ("travel", Later),
];

static SITE: &[Entry] = &[
    ("domains", Required("write the domains whose mail is yours, like [\"example.com\"]")),
    ("postmaster", Required("write the name of the person who reads the postmaster's mail, like \"alice\"")),
    ("attachments", Value("write \"break-apart\" or \"passthru\"")),
    (
        "catch_all",
        Value(
            "write the name of a person, a shadow or a group, like \"alice\", or {\"example.com\" = \"alice\"}",
        ),
    ),
    ("follow_up", Value("write true or false")),
    ("language", Later),
    ("quota", Later),
];

static BIG: &[Entry] = &[
    ("state", Required(FOLDER)),
    ("desk", Value("write a path, like \"/run/sallypost/desk.sock\"")),
    ("inbound_hourly", Value("write a number of octets, like 10_737_418_240")),
    ("sandbox", Value("write true, false or \"required\"")),
    ("dkim", Later),
    ("gateways", Later),
    ("intranet", Later),
    ("metrics", Later),
    ("quota", Later),
    ("quotas", Later),
    ("send_now", Later),
    ("status", Later),
];

static EDGE: &[Entry] = &[
    ("hostname", Required("write the name that DNS has for this host, like \"mx.example.com\"")),
    ("state", Required(FOLDER)),
    ("smtp", Value(ADDRESSES)),
    ("submission", Value(ADDRESSES)),
    ("submissions", Value(ADDRESSES)),
    ("pop3", Value(ADDRESSES)),
    ("pop3s", Value(ADDRESSES)),
    ("receivers", Value("write a number, like 50")),
    ("size_max", Value("write a number of octets, like 52_428_800")),
    ("spool_max", Value("write a number of octets, like 10_737_418_240")),
    ("stale_after", Value("write a number of seconds, like 600")),
    ("ack", Value("write \"local\", \"pair\" or \"pair-or-local\"")),
    ("login_delay", Value("write a number of seconds, like 60")),
    ("authentication", Optional(AUTHENTICATION)),
    ("greeting_pause", Value("write a number of seconds, like 2")),
    ("binarymime", Value("write true or false")),
    ("sandbox", Value("write true, false or \"required\"")),
    ("lists", Optional(LISTS)),
    ("greylist", Optional(GREYLIST)),
    ("reports", Optional(REPORTS)),
    ("public", Optional(PUBLIC)),
    ("tls", Optional(TLS)),
    ("acme", Optional(ACME)),
    ("outbound", Optional(OUTBOUND)),
    ("dns", Optional(DNS)),
    ("limits", Later),
    ("metrics", Later),
    ("policy", Later),
    ("quota", Later),
    ("send_now", Later),
    ("status", Later),
];

static AUTHENTICATION: &[Entry] = &[
    ("dmarc", Value("write \"off\", \"record\", \"mark\", \"quarantine\" or \"refuse\"")),
    ("trusted_sealers", Value("write a list of domains, like [\"lists.example\"]")),
];

static LISTS: &[Entry] = &[("block", Value(DNS_LISTS)), ("allow", Value(DNS_LISTS))];

static GREYLIST: &[Entry] = &[
    ("delay", Value("write a number of seconds, like 300")),
    ("window", Value("write a number of seconds, like 172_800")),
];

static REPORTS: &[Entry] = &[("tls", Value("write true or false")), ("dmarc", Value("write true or false"))];

static PUBLIC: &[Entry] = &[
    ("submission", Value("write a port number, like 587")),
    ("submissions", Value("write a port number, like 465")),
    ("pop3", Value("write a port number, like 110")),
    ("pop3s", Value("write a port number, like 995")),
];

static TLS: &[Entry] = &[("certificate", Required(FILE)), ("key", Required(FILE))];

static ACME: &[Entry] = &[
    ("directory", Required("write the directory's URL, like \"https://acme.example/directory\"")),
    ("terms_agreed", Required("write true once you have read and agree to the terms of the authority")),
    ("http", Required("write where port 80 arrives, like [\"0.0.0.0:80\"]: the authority asks there")),
    ("contact", Value("write a mail address, like \"postmaster@example.com\"")),
    ("roots", Value(FILE)),
];

static OUTBOUND: &[Entry] = &[
    ("mode", Value("write \"direct\", \"relay\" or \"direct-then-relay\"")),
    ("relay", Value("write a host and a port, like \"smtp.isp.example:587\"")),
    ("relay_tls", Value("write \"starttls\", \"tls\" or \"opportunistic\"")),
    ("relay_login", Value("write the path of a file with the user and the password, a line each")),
    ("relay_roots", Value(FILE)),
    ("private_addresses", Value("write true or false")),
    ("port", Value("write a port number, like 25")),
    ("retry", Value("write the waits between attempts in seconds, like [60, 300, 900, 3600]")),
    ("expire", Value("write a number of seconds, like 432_000")),
    ("delay_notice", Value("write a number of seconds, like 14_400; 0 is never")),
    ("concurrency", Value("write a number, like 20")),
    ("limits", Later),
    ("mta_sts", Value("write true or false")),
    ("mta_sts_roots", Value(FILE)),
    ("mta_sts_port", Value("write a port number, like 443")),
    ("tls", Later),
];

static DNS: &[Entry] = &[
    ("servers", Value("write a list of addresses with ports, like [\"192.0.2.53:53\"]")),
    ("dnssec", Value("write true or false")),
    ("trust_anchors", Value("write the path of a file of DNSKEY records, in quotes")),
];

static LINK: &[Entry] = &[
    ("listen", Required(ADDRESS)),
    ("dial", Required(ADDRESS)),
    ("safety_hours", Value("write a number of hours, like 48")),
    ("safety_bytes", Value("write a number of octets, like 1_073_741_824")),
    ("limits", Later),
    ("schedule", Later),
];

/// Refuses text that is not TOML, and keys that are unknown, missing, or not in this version.
pub(super) fn check(source: &Source<'_>) -> Result<(), TopologyError> {
    let table = parse(source)?;
    check_table(source, table.get_ref(), ROOT, "", 0..0)
}

/// What the value at byte `offset` should look like; for the mend of a value of the wrong type.
pub(super) fn looks_like(source: &Source<'_>, offset: usize) -> &'static str {
    let found = parse(source).ok().and_then(|table| expected_at(table.get_ref(), ROOT, offset));
    found.unwrap_or("see the annotated topology.toml that comes with Sallypost")
}

fn parse<'a>(source: &Source<'a>) -> Result<Spanned<DeTable<'a>>, TopologyError> {
    DeTable::parse(source.text).map_err(|error| {
        let reason = format!("this is not TOML: {}", error.message());
        source.refuse(error.span().unwrap_or(0..0), reason, "write it as TOML: name = value, text in quotes")
    })
}

/// Checks one table; `name` is its path and `heading` the place of its name, for what is missing.
fn check_table(
    source: &Source<'_>,
    table: &DeTable<'_>,
    keys: &'static [Entry],
    name: &str,
    heading: Range<usize>,
) -> Result<(), TopologyError> {
    for (key, value) in table {
        let known = keys.iter().find(|(known, _)| known == key.get_ref());
        let path =
            if name.is_empty() { key.get_ref().to_string() } else { format!("{name}.{}", key.get_ref()) };
        match (known, value.get_ref()) {
            (Some((_, Section(inner) | Optional(inner))), DeValue::Table(table)) => {
                check_table(source, table, inner, &path, key.span())?;
            }
            (Some((_, Section(_) | Optional(_))), _) => {
                let mend = format!("write it as a section: a line [{path}], its keys below");
                return Err(source.refuse(key.span(), format!("`{path}` is a section, not a value"), mend));
            }
            (Some((_, Later)), _) => {
                let mend = "leave it out: a key without effect would only mislead";
                return Err(source.refuse(key.span(), format!("`{path}` is not in this version"), mend));
            }
            (Some((_, Required(_) | Value(_))), _) => {}
            (None, _) => {
                return Err(source.refuse(
                    key.span(),
                    format!("`{path}` is unknown"),
                    known_keys(keys, name),
                ));
            }
        }
    }
    let missing = keys.iter().find(|(key, kind)| {
        matches!(kind, Section(_) | Required(_)) && !table.iter().any(|(present, _)| present.get_ref() == key)
    });
    match missing {
        Some((key, Required(expected))) => {
            let mend = format!("add `{key} = …` below [{name}]: {expected}");
            Err(source.refuse(heading, format!("`{name}.{key}` is missing"), mend))
        }
        Some((key, _)) => {
            let mend = "add it; the annotated topology.toml that comes with Sallypost shows every key";
            Err(source.refuse(heading, format!("the section [{key}] is missing"), mend))
        }
        None => Ok(()),
    }
}

fn known_keys(keys: &'static [Entry], name: &str) -> String {
    let known: Vec<_> = keys.iter().filter(|(_, kind)| !matches!(kind, Later)).map(|(key, _)| *key).collect();
    let known = known.join(", ");
    if name.is_empty() { format!("the sections are: {known}") } else { format!("[{name}] has: {known}") }
}

fn expected_at(table: &DeTable<'_>, keys: &'static [Entry], offset: usize) -> Option<&'static str> {
    table.iter().find_map(|(key, value)| {
        let (_, kind) = keys.iter().find(|(known, _)| known == key.get_ref())?;
        match (kind, value.get_ref()) {
            (Section(inner) | Optional(inner), DeValue::Table(table)) => expected_at(table, inner, offset),
            (Required(expected) | Value(expected), _) => value.span().contains(&offset).then_some(*expected),
            _ => None,
        }
    })
}
