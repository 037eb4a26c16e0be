//! What a mail client is given instead of being typed: a QR code, a file for Thunderbird, a profile for Apple's Mail.
//!
//! The password is in those that have a place for it: the code and the profile. Files are for their owner alone.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use qrcodegen::{QrCode, QrCodeEcc};
use serde_json::json;

use crate::request::Started;

/// Modules of light around a code (ISO/IEC 18004).
const QUIET: i32 = 4;

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    /// TLS from the first octet.
    Tls,
    /// STLS or STARTTLS.
    StartTls,
}

impl Security {
    /// Its number in a Thunderbird code.
    fn number(self) -> u8 {
        match self {
            Self::StartTls => 2,
            Self::Tls => 3,
        }
    }

    /// Its word in an autoconfig file.
    fn socket_type(self) -> &'static str {
        match self {
            Self::StartTls => "STARTTLS",
            Self::Tls => "SSL",
        }
    }
}

/// A service as a client has to be told it.
#[derive(Clone, Copy, Debug)]
struct Service {
    port: u16,
    security: Security,
}

/// The best of each kind: TLS from the first octet where it is offered.
fn services(started: &Started) -> Option<(Service, Service)> {
    let settings = &started.settings;
    let first = |sockets: &[String], security| {
        let port = sockets.first()?.rsplit_once(':')?.1.parse().ok()?;
        Some(Service { port, security })
    };
    let best = |tls: &[String], clear: &[String]| {
        first(tls, Security::Tls).or_else(|| first(clear, Security::StartTls))
    };
    best(&settings.pop3s, &settings.pop3).zip(best(&settings.submissions, &settings.submission))
}

/// The account as Thunderbird for Android reads it from a code (its format, version 1): one POP3 account, with
/// its password.
pub(super) fn payload(started: &Started) -> Option<String> {
    let (incoming, outgoing) = services(started)?;
    let (host, user, password) = (&started.settings.host, &started.user, &started.password);
    // POP3 is 1 and SMTP 0; a password as such, under TLS, is 1.
    let account = json!([
        1,
        [1, 1],
        [1, host, incoming.port, incoming.security.number(), 1, user, started.address, password],
        [[
            [0, host, outgoing.port, outgoing.security.number(), 1, user, password],
            [started.address, started.display]
        ]]
    ]);
    Some(account.to_string())
}

/// The payload as a code for a terminal with a dark ground: two rows of modules in a line of text.
pub(super) fn code(payload: &str) -> Option<String> {
    let code = QrCode::encode_text(payload, QrCodeEcc::Low).ok()?;
    let is_light = |x, y| !code.get_module(x, y);
    let mut text = String::new();
    for y in (-QUIET..code.size() + QUIET).step_by(2) {
        for x in -QUIET..code.size() + QUIET {
            text.push(match (is_light(x, y), is_light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        text.push('\n');
    }
    Some(text)
}

fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML 1.0 has no place for control characters, escaped or not.
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// What the autoconfig file of a domain begins with. Host names need no escaping.
fn autoconfig_head(domain: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<clientConfig version=\"1.1\">\n  <emailProvider id=\"{domain}\">\n"
    )
}

/// An autoconfig file (clientConfig 1.1), the same for everybody of a domain, who log in with their addresses: it is
/// there to be published. It has no place for a password.
pub(super) fn autoconfig(started: &Started) -> Option<String> {
    let (incoming, outgoing) = services(started)?;
    let domain = domain(&started.address);
    let server = |element: &str, kind: &str, service: Service| {
        format!(
            "    <{element} type=\"{kind}\">\n      <hostname>{}</hostname>\n      <port>{}</port>\n      \
             <socketType>{}</socketType>\n      <username>%EMAILADDRESS%</username>\n      \
             <authentication>password-cleartext</authentication>\n    </{element}>\n",
            xml(&started.settings.host),
            service.port,
            service.security.socket_type(),
        )
    };
    Some(format!(
        "{}    <domain>{domain}</domain>\n    <displayName>{domain} on the road</displayName>\n    \
         <displayShortName>{domain}</displayShortName>\n{}{}  </emailProvider>\n</clientConfig>\n",
        autoconfig_head(domain),
        server("incomingServer", "pop3", incoming),
        server("outgoingServer", "smtp", outgoing),
    ))
}

/// A configuration profile with a mail payload (`com.apple.mail.managed`). Apple's keys know TLS from the first octet
/// or none at all, in which case the password would be sent in the clear: without the first there is no profile.
pub(super) fn mobileconfig(started: &Started) -> Option<String> {
    let uses_tls = |service: &Service| service.security == Security::Tls;
    let (incoming, outgoing) =
        services(started).filter(|(incoming, outgoing)| uses_tls(incoming) && uses_tls(outgoing))?;
    let string =
        |key: &str, value: &str| format!("\t\t\t<key>{key}</key>\n\t\t\t<string>{}</string>\n", xml(value));
    let number =
        |key: &str, value: u16| format!("\t\t\t<key>{key}</key>\n\t\t\t<integer>{value}</integer>\n");
    let truth = |key: &str, value: bool| format!("\t\t\t<key>{key}</key>\n\t\t\t<{value}/>\n");
    let (host, name) =
        (&started.settings.host, format!("{}.sallypost.{}", domain(&started.address), started.window.id));
    let account = [
        string("EmailAccountDescription", &format!("{} on the road", started.address)),
        string("EmailAccountName", &started.display),
        string("EmailAccountType", "EmailTypePOP"),
        string("EmailAddress", &started.address),
        string("IncomingMailServerAuthentication", "EmailAuthPassword"),
        string("IncomingMailServerHostName", host),
        number("IncomingMailServerPortNumber", incoming.port),
        truth("IncomingMailServerUseSSL", true),
        string("IncomingMailServerUsername", &started.user),
        string("IncomingPassword", &started.password),
        string("OutgoingMailServerAuthentication", "EmailAuthPassword"),
        string("OutgoingMailServerHostName", host),
        number("OutgoingMailServerPortNumber", outgoing.port),
        truth("OutgoingMailServerUseSSL", true),
        string("OutgoingMailServerUsername", &started.user),
        truth("OutgoingPasswordSameAsIncomingPassword", true),
        string("PayloadDisplayName", "Mail on the road"),
        string("PayloadIdentifier", &format!("{name}.mail")),
        string("PayloadType", "com.apple.mail.managed"),
        string("PayloadUUID", &uuid(&name, "mail")),
        number("PayloadVersion", 1),
    ];
    let profile = |key: &str, value: &str| format!("\t<key>{key}</key>\n\t<string>{}</string>\n", xml(value));
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
                \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n";
    Some(
        [
            head,
            "\t<key>PayloadContent</key>\n\t<array>\n\t\t<dict>\n",
            &account.concat(),
            "\t\t</dict>\n\t</array>\n",
            &profile("PayloadDisplayName", &format!("{} on the road", started.address)),
            &profile("PayloadIdentifier", &name),
            &profile("PayloadType", "Configuration"),
            &profile("PayloadUUID", &uuid(&name, "profile")),
            "\t<key>PayloadVersion</key>\n\t<integer>1</integer>\n</dict>\n</plist>\n",
        ]
        .concat(),
    )
}

/// A UUID (RFC 9562, version 8) that is always the same for the same window, so that a profile that is installed
/// again takes its own place.
fn uuid(name: &str, part: &str) -> String {
    let hash = blake3::hash(format!("{name} {part}").as_bytes());
    let mut bytes: [u8; 16] = *hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    (bytes[6], bytes[8]) = (bytes[6] & 0x0f | 0x80, bytes[8] & 0x3f | 0x80);
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{byte:02X}");
    }
    text
}

/// SRV records (RFC 6186, RFC 8314) by which clients find the services of a domain, for its administrator. TLS from
/// the first octet comes first.
pub(super) fn records(started: &Started) -> Vec<String> {
    let (settings, domain) = (&started.settings, domain(&started.address));
    let offered = [
        ("_pop3s", 0, &settings.pop3s),
        ("_pop3", 10, &settings.pop3),
        ("_submissions", 0, &settings.submissions),
        ("_submission", 10, &settings.submission),
    ];
    let record = |(service, priority, sockets): (&str, u16, &Vec<String>)| {
        let (_, port) = sockets.first()?.rsplit_once(':')?;
        Some(format!("{service}._tcp.{domain}. IN SRV {priority} 1 {port} {}.", settings.host))
    };
    offered.into_iter().filter_map(record).collect()
}

/// Where both files are: as Thunderbird looks for its own in its folder `isp`, and the person's profile.
fn places(folder: &Path, name: &str, address: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{}.xml", domain(address))), folder.join(format!("{name}.mobileconfig")))
}

/// Makes the folder, if it is not there, and sees that the files can be written: before a window is opened, or gets
/// another password, which is shown once.
pub(super) fn make_room(folder: &Path, name: &str, address: &str) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (autoconfig, profile) = places(folder, name, address);
    if profile.symlink_metadata().is_ok() {
        let text = "is there already: move it away, or name another folder";
        return Err(format!("{} {text}", profile.display()));
    }
    let is_ours = |text: String| text.starts_with(&autoconfig_head(domain(address)));
    if autoconfig.symlink_metadata().is_ok() && !fs::read_to_string(&autoconfig).is_ok_and(is_ours) {
        let text = "is there already and is no settings file of ours: move it away, or name another folder";
        return Err(format!("{} {text}", autoconfig.display()));
    }
    Ok(())
}

/// Writes the files into `folder`, as new ones for their owner alone, and says what was written. A file for
/// Thunderbird that is there as it would be written is left.
pub(super) fn write(folder: &Path, started: &Started) -> Result<Vec<String>, String> {
    let missing = || "the edge offers no POP3 and submission; see [edge] in the topology".to_owned();
    let text = autoconfig(started).ok_or_else(missing)?;
    let (autoconfig, profile) = places(folder, &started.user, &started.address);
    let mut said = Vec::new();
    match mobileconfig(started) {
        Some(text) => said.push(write_new(&profile, &text)?),
        None => said.push(
            "no profile for Apple's Mail: without TLS from the first octet (`pop3s` and `submissions` in [edge]) it \
             would send the password in the clear"
                .into(),
        ),
    }
    match fs::read_to_string(&autoconfig) {
        Ok(there) if there == text => said.push(format!("is there already: {}", autoconfig.display())),
        Ok(_) => said.push(format!(
            "{} has other settings than the edge by now, and was left: remove it and write it anew",
            autoconfig.display()
        )),
        Err(_) => said.push(write_new(&autoconfig, &text)?),
    }
    Ok(said)
}

fn write_new(path: &Path, text: &str) -> Result<String, String> {
    let failed = |error| format!("{}: {error}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(format!("written: {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::record::{AfterFetch, Scope, WindowState};
    use crate::request::{Settings, WindowView};

    /// Names that need escaping wherever they are written.
    const DISPLAY: &str = "Alice \"A&L\" <Liddell>";

    fn started(tls: bool) -> Started {
        let window = WindowView {
            id: "01KAN0Q5WJ8J1V9Z8G8Q4T7RXE".into(),
            person: "alice".into(),
            from: 0,
            until: None,
            scope: Scope::New,
            after_fetch: AfterFetch::Keep,
            headers_first: false,
            size_max: None,
            quota: None,
            state: WindowState::Open,
            ended_at: None,
            filed: 0,
            fetched: 0,
            deleted: 0,
            waiting: 0,
            too_large: 0,
            bytes: 0,
            back_fill: (0, 0),
            last_login: None,
        };
        let at = |offered: bool, socket: &str| if offered { vec![socket.to_owned()] } else { Vec::new() };
        Started {
            window,
            user: "alice".into(),
            password: "abcde-fghij-kmnpq-rstuv".into(),
            backfilled: 0,
            address: "alice@example.com".into(),
            display: DISPLAY.into(),
            settings: Settings {
                host: "mx.example.com".into(),
                pop3: at(true, "192.0.2.1:110"),
                pop3s: at(tls, "[2001:db8::1]:995"),
                submission: at(true, "192.0.2.1:587"),
                submissions: at(tls, "192.0.2.1:465"),
            },
        }
    }

    #[test]
    fn a_forwarded_port_is_told() {
        let mut started = started(true);
        started.settings.pop3s = vec![":995".into()];
        started.settings.submissions = vec![":8465".into()];
        let (payload, autoconfig) = (payload(&started), autoconfig(&started));
        assert!(payload.is_some_and(|text| text.contains(",995,") && text.contains(",8465,")));
        assert!(autoconfig.is_some_and(|text| text.contains("<port>8465</port>")));
        assert!(mobileconfig(&started).is_some_and(|text| text.contains("<integer>8465</integer>")));
    }

    #[test]
    fn a_code_is_read_by_another_decoder_and_holds_the_account() {
        let payload = payload(&started(true)).expect("both services");
        let text = code(&payload).expect("fits into a code");
        let width = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(width <= 80, "{width} columns on a terminal");
        let rows: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let dark = |x: usize, y: usize| {
            let module = rows[y / 2][x];
            !matches!((module, y % 2), ('█', _) | ('▀', 0) | ('▄', 1))
        };
        const SCALE: usize = 4;
        let mut image =
            rqrr::PreparedImage::prepare_from_bitmap(width * SCALE, rows.len() * 2 * SCALE, |x, y| {
                dark(x / SCALE, y / SCALE)
            });
        let (_, read) = image.detect_grids().first().expect("a code").decode().expect("is readable");
        assert_eq!(read, payload);
        let account: serde_json::Value = serde_json::from_str(&read).expect("JSON");
        let expected = serde_json::json!([
            1,
            [1, 1],
            [1, "mx.example.com", 995, 3, 1, "alice", "alice@example.com", "abcde-fghij-kmnpq-rstuv"],
            [[
                [0, "mx.example.com", 465, 3, 1, "alice", "abcde-fghij-kmnpq-rstuv"],
                ["alice@example.com", DISPLAY]
            ]]
        ]);
        assert_eq!(account, expected);
    }

    /// What stands in each element without children, under the path to it; panics if the text is not well formed.
    fn leaves(text: &str) -> Vec<(String, String)> {
        let (mut path, mut leaves, mut rest): (Vec<String>, Vec<_>, &str) = (Vec::new(), Vec::new(), text);
        let mut content = String::new();
        while let Some((before, behind)) = rest.split_once('<') {
            content += before;
            let (tag, after) = behind.split_once('>').expect("a tag ends");
            rest = after;
            let name = tag.trim_end_matches('/').split_ascii_whitespace().next().unwrap_or_default();
            if tag.starts_with(['?', '!']) {
                content.clear();
            } else if let Some(name) = tag.strip_prefix('/') {
                if !content.trim().is_empty() {
                    leaves.push((path.join("/"), std::mem::take(&mut content)));
                }
                content.clear();
                assert_eq!(path.pop().as_deref(), Some(name), "in {text}");
            } else {
                assert!(content.trim().is_empty(), "{content:?} beside an element");
                content.clear();
                match tag.ends_with('/') {
                    true => leaves.push((path.join("/"), name.to_owned())),
                    false => path.push(name.to_owned()),
                }
            }
        }
        assert!(path.is_empty() && rest.trim().is_empty());
        let plain = |text: String| {
            let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            text.replace("&amp;", "&")
        };
        leaves.into_iter().map(|(path, text)| (path, plain(text))).collect()
    }

    #[test]
    fn an_autoconfig_file_has_what_its_format_asks_for_and_no_password() {
        for (tls, ports, security) in [(true, ["995", "465"], "SSL"), (false, ["110", "587"], "STARTTLS")] {
            let text = autoconfig(&started(tls)).expect("both services");
            assert!(text.contains("<clientConfig version=\"1.1\">"));
            assert!(text.contains("<emailProvider id=\"example.com\">") && !text.contains("abcde"));
            assert!(text.contains("type=\"pop3\"") && text.contains("type=\"smtp\""));
            let found: BTreeMap<_, _> = leaves(&text).into_iter().collect();
            let provider = "clientConfig/emailProvider";
            let mut required = vec![
                (format!("{provider}/domain"), "example.com"),
                (format!("{provider}/displayName"), "example.com on the road"),
                (format!("{provider}/displayShortName"), "example.com"),
            ];
            for (server, port) in ["incomingServer", "outgoingServer"].into_iter().zip(ports) {
                for (element, value) in [
                    ("hostname", "mx.example.com"),
                    ("port", port),
                    ("socketType", security),
                    ("username", "%EMAILADDRESS%"),
                    ("authentication", "password-cleartext"),
                ] {
                    required.push((format!("{provider}/{server}/{element}"), value));
                }
            }
            assert_eq!(found.len(), required.len(), "nothing besides");
            for (path, value) in required {
                assert_eq!(found.get(&path).map(String::as_str), Some(value), "{path}");
            }
        }
    }

    /// The keys of a property list's dictionaries at `depth`, each with its value.
    fn keys(text: &str, path: &str) -> BTreeMap<String, (String, String)> {
        let (mut found, mut key) = (BTreeMap::new(), None);
        for (at, value) in leaves(text) {
            let Some(kind) = at.strip_prefix(path) else { continue };
            let kind = kind.trim_start_matches('/');
            match (kind, key.take()) {
                ("key", None) => key = Some(value),
                (kind, Some(key)) if !kind.contains('/') => {
                    // A truth is an element without content, and so its own value.
                    let kind = if kind.is_empty() { "truth" } else { kind };
                    assert!(found.insert(key, (kind.to_owned(), value)).is_none());
                }
                _ => {}
            }
        }
        found
    }

    #[test]
    fn a_profile_has_the_keys_of_its_payload_with_values_of_their_types() {
        assert_eq!(mobileconfig(&started(false)), None, "a login in the clear");
        let ports = ["995", "465"];
        let text = mobileconfig(&started(true)).expect("both services");
        let account = keys(&text, "plist/dict/array/dict");
        for (key, kind, value) in [
            ("EmailAccountDescription", "string", Some("alice@example.com on the road")),
            ("EmailAccountName", "string", Some(DISPLAY)),
            ("EmailAccountType", "string", Some("EmailTypePOP")),
            ("EmailAddress", "string", Some("alice@example.com")),
            ("IncomingMailServerAuthentication", "string", Some("EmailAuthPassword")),
            ("IncomingMailServerHostName", "string", Some("mx.example.com")),
            ("IncomingMailServerPortNumber", "integer", Some(ports[0])),
            ("IncomingMailServerUseSSL", "truth", Some("true")),
            ("IncomingMailServerUsername", "string", Some("alice")),
            ("IncomingPassword", "string", Some("abcde-fghij-kmnpq-rstuv")),
            ("OutgoingMailServerAuthentication", "string", Some("EmailAuthPassword")),
            ("OutgoingMailServerHostName", "string", Some("mx.example.com")),
            ("OutgoingMailServerPortNumber", "integer", Some(ports[1])),
            ("OutgoingMailServerUseSSL", "truth", Some("true")),
            ("OutgoingMailServerUsername", "string", Some("alice")),
            ("OutgoingPasswordSameAsIncomingPassword", "truth", Some("true")),
            ("PayloadType", "string", Some("com.apple.mail.managed")),
            ("PayloadVersion", "integer", Some("1")),
            ("PayloadUUID", "string", None),
            ("PayloadIdentifier", "string", None),
        ] {
            let (of_kind, found) = account.get(key).unwrap_or_else(|| panic!("{key} in\n{text}"));
            assert_eq!(of_kind, kind, "{key}");
            assert!(value.is_none_or(|value| value == found), "{key}: {found}");
        }
        let profile = keys(&text, "plist/dict");
        for (key, value) in
            [("PayloadType", Some("Configuration")), ("PayloadUUID", None), ("PayloadIdentifier", None)]
        {
            let (_, found) = profile.get(key).unwrap_or_else(|| panic!("{key} in\n{text}"));
            assert!(value.is_none_or(|value| value == found), "{key}: {found}");
        }
        assert_ne!(profile.get("PayloadUUID"), account.get("PayloadUUID"));
        assert_eq!(account["PayloadUUID"].1.len(), 36);
    }

    #[test]
    fn files_are_new_and_for_their_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let into = folder.path().join("settings");
        let (alice, bob) = (started(true), Started { user: "bob".into(), ..started(true) });
        let room = |user: &str| make_room(&into, user, "alice@example.com");
        room("alice").expect("is made");
        assert_eq!(write(&into, &alice).expect("writes").len(), 2);
        let names = || {
            let names = fs::read_dir(&into).expect("reads").map(|entry| entry.expect("reads").file_name());
            names.filter_map(|name| name.into_string().ok()).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(names().iter().eq(["alice.mobileconfig", "example.com.xml"]));
        for name in names() {
            let mode = fs::metadata(into.join(name)).expect("is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(room("alice").is_err(), "her profile has the former password, and is not overwritten");
        assert!(write(&into, &alice).is_err());
        room("bob").expect("one folder for all travellers");
        let said = write(&into, &bob).expect("writes");
        assert!(said[1].starts_with("is there already"), "{said:?}");
        assert_eq!(names().len(), 3);
        fs::write(into.join("example.com.xml"), "mine").expect("writes");
        assert!(room("carol").is_err());
    }

    #[test]
    fn what_would_log_in_in_the_clear_is_not_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let said = write(folder.path(), &started(false)).expect("writes the other one");
        assert!(said[0].contains("in the clear"), "{said:?}");
        assert!(!folder.path().join("alice.mobileconfig").exists());
    }

    #[test]
    fn srv_records_name_what_is_offered() {
        let all = [
            "_pop3s._tcp.example.com. IN SRV 0 1 995 mx.example.com.",
            "_pop3._tcp.example.com. IN SRV 10 1 110 mx.example.com.",
            "_submissions._tcp.example.com. IN SRV 0 1 465 mx.example.com.",
            "_submission._tcp.example.com. IN SRV 10 1 587 mx.example.com.",
        ];
        assert_eq!(records(&started(true)), all);
        assert_eq!(records(&started(false)), [all[1], all[3]]);
    }
}
