//! The trace fields that are put before a message's header (RFC 5321 §4.4): pure functions of what
//! is known, safe whatever the client called itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Envelope;
use crate::address::{Address, Domain};

/// Octets of a client's own name that are repeated in a comment.
const HELO_COMMENT_BYTES_MAX: usize = 64;
/// Characters of the comment that says how a message came to its own host.
const HOW_COMMENT_CHARS_MAX: usize = 200;

/// The Received field of a message that `by` accepted from `peer` as `id`, with its line ends.
///
/// A `for` clause is written only when there is one recipient, so that no recipient learns of
/// another (RFC 5321 §7.6).
pub fn received(envelope: &Envelope, peer: IpAddr, by: &Domain, id: &str, unix_seconds: i64) -> String {
    let from = from_clause(&envelope.helo, peer);
    let protocol = envelope.protocol();
    let recipient = match envelope.recipients.as_slice() {
        [recipient] => format!("\r\n\tfor <{recipient}>"),
        _ => String::new(),
    };
    let date = date(unix_seconds);
    format!("Received: from {from}\r\n\tby {by} with {protocol} id {id}{recipient};\r\n\t{date}\r\n")
}

/// The Received field of a message that came to `by` on its own host as `id`, with its line ends. `how`
/// becomes a comment.
pub fn received_by_itself(by: &Domain, how: &str, id: &str, unix_seconds: i64) -> String {
    let how: String = how.chars().take(HOW_COMMENT_CHARS_MAX).map(in_comment).collect();
    format!("Received: by {by} with local id {id}\r\n\t({how});\r\n\t{}\r\n", date(unix_seconds))
}

fn in_comment(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ',' | ' ') { c } else { '?' }
}

/// The Return-Path field, with its line end; `None` is the null reverse-path.
pub fn return_path(reverse_path: Option<&Address>) -> String {
    match reverse_path {
        Some(address) => format!("Return-Path: <{address}>\r\n"),
        None => "Return-Path: <>\r\n".into(),
    }
}

/// A date and time in UTC as header fields write it (RFC 5322 §3.3).
pub fn date(unix_seconds: i64) -> String {
    let instant = Timestamp::from_second(unix_seconds).unwrap_or_default().to_zoned(TimeZone::UTC);
    instant.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// The client's name if it has the form of one, else only its address; its address in any case.
fn from_clause(helo: &str, peer: IpAddr) -> String {
    let literal = address_literal(peer);
    if is_address_literal(helo) || helo.parse::<Domain>().is_ok() {
        return format!("{helo} ({literal})");
    }
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '?' };
    let name: String = helo.chars().take(HELO_COMMENT_BYTES_MAX).map(safe).collect();
    format!("{literal} (helo {name})")
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn address_literal(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

fn is_address_literal(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) else {
        return false;
    };
    match inner.strip_prefix("IPv6:") {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => inner.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::BodyType;

    fn envelope(helo: &str, recipients: &[&str]) -> Envelope {
        Envelope {
            reverse_path: None,
            recipients: recipients.iter().map(|r| r.parse::<Address>().expect("an address").into()).collect(),
            returns: None,
            envelope_id: None,
            body: BodyType::default(),
            smtputf8: false,
            require_tls: false,
            size: None,
            helo: helo.into(),
            esmtp: true,
            tls: true,
            authenticated: None,
        }
    }

    fn received_from(helo: &str, peer: &str, recipients: &[&str]) -> String {
        let by = "mx.example.com".parse().expect("a domain");
        let peer = peer.parse().expect("an IP address");
        received(&envelope(helo, recipients), peer, &by, "01J0000000000000000000000A", 1_700_000_000)
    }

    #[test]
    fn received_is_folded_and_names_a_single_recipient() {
        assert_eq!(
            received_from("client.example.org", "192.0.2.1", &["alice@example.com"]),
            "Received: from client.example.org ([192.0.2.1])\r\n\
             \tby mx.example.com with ESMTPS id 01J0000000000000000000000A\r\n\
             \tfor <alice@example.com>;\r\n\
             \tTue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
        assert!(
            !received_from("a.example", "192.0.2.1", &["a@example.com", "b@example.com"]).contains("for")
        );
    }

    #[test]
    fn the_clients_name_cannot_break_the_field() {
        let cases = [
            ("[192.0.2.7]", "from [192.0.2.7] ([192.0.2.1])\r\n"),
            ("[IPv6:2001:db8::1]", "from [IPv6:2001:db8::1] ([192.0.2.1])\r\n"),
            ("x) by evil.example (", "from [192.0.2.1] (helo x??by?evil.example??)\r\n"),
            ("a\r\nBcc: x", "from [192.0.2.1] (helo a??Bcc??x)\r\n"),
            ("[evil]", "from [192.0.2.1] (helo ?evil?)\r\n"),
        ];
        for (helo, expected) in cases {
            let field = received_from(helo, "::ffff:192.0.2.1", &[]);
            assert!(field.starts_with(&format!("Received: {expected}")), "{helo:?} gave {field}");
            assert_eq!(field.matches("\r\n").count(), 3, "{helo:?}");
        }
        let long = received_from(&"x y".repeat(1000), "2001:db8::9", &[]);
        assert!(long.starts_with("Received: from [IPv6:2001:db8::9] (helo x?yx?y"));
        assert!(long.lines().all(|line| line.len() <= 998));
    }

    #[test]
    fn the_protocol_says_how_the_message_came() {
        let mut envelope = envelope("a", &[]);
        assert_eq!(envelope.protocol(), "ESMTPS");
        envelope.authenticated = Some("alice".into());
        assert_eq!(envelope.protocol(), "ESMTPSA");
        envelope.smtputf8 = true;
        assert_eq!(envelope.protocol(), "UTF8SMTPSA");
        envelope.esmtp = false;
        assert_eq!(envelope.protocol(), "SMTP");
    }

    #[test]
    fn return_path_and_date() {
        let alice = "alice@example.com".parse().expect("an address");
        assert_eq!(return_path(Some(&alice)), "Return-Path: <alice@example.com>\r\n");
        assert_eq!(return_path(None), "Return-Path: <>\r\n");
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(date(951_827_696), "Tue, 29 Feb 2000 12:34:56 +0000");
    }
}
