//! What a sender asks to be told about a message (RFC 3461): the values of the parameters RET, ENVID, NOTIFY and
//! ORCPT, and xtext, in which two of them are written.

use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};

use crate::address::Address;

/// Octets of ENVID as it is written (RFC 3461 §4.4).
pub const ENVELOPE_ID_BYTES_MAX: usize = 100;
/// Octets of ORCPT as it is written, with its type (RFC 3461 §4.2).
pub const ORIGINAL_BYTES_MAX: usize = 500;

/// Of which ends of a delivery the sender wants to hear. Of none is `NEVER`.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Notify {
    /// It was delivered, or went where nobody reports delivery.
    pub success: bool,
    /// It will never be delivered.
    pub failure: bool,
    /// It takes long.
    pub delay: bool,
}

/// It is neither `NEVER` nor a list of `SUCCESS`, `FAILURE` and `DELAY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write never, or a list of success, failure and delay with commas between them")]
pub struct NotNotify;

impl Notify {
    /// Of nothing.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// The same, but of no success.
    #[must_use]
    pub fn without_success(self) -> Self {
        Self { success: false, ..self }
    }
}

impl FromStr for Notify {
    type Err = NotNotify;

    /// The value of NOTIFY (RFC 3461 §4.1), in any case.
    fn from_str(text: &str) -> Result<Self, NotNotify> {
        let mut notify = Self::NEVER;
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(notify);
        }
        for word in text.split(',') {
            let asked = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return Err(NotNotify),
            };
            *asked = true;
        }
        Ok(notify)
    }
}

impl fmt::Display for Notify {
    /// As NOTIFY has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let asked: Vec<_> = words.iter().filter(|(asked, _)| *asked).map(|(_, word)| *word).collect();
        f.write_str(if asked.is_empty() { "NEVER" } else { "" })?;
        f.write_str(&asked.join(","))
    }
}

/// How much of a message a report of failure returns (RFC 3461 §4.3).
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Return {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

impl Return {
    /// What the value of RET means, in any case.
    pub fn named(text: &str) -> Option<Self> {
        [Self::Full, Self::Headers].into_iter().find(|returns| returns.as_str().eq_ignore_ascii_case(text))
    }

    /// The value of RET.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// What ENVID names, decoded; `None` if it is not xtext of printable ASCII, or longer than
/// [`ENVELOPE_ID_BYTES_MAX`].
pub fn envelope_id(value: &str) -> Option<String> {
    (value.len() <= ENVELOPE_ID_BYTES_MAX).then(|| printable(value))?
}

/// The recipient that ORCPT names, decoded, with its type: `rfc822;alice@example.com`. One of type `utf-8` stays escaped, as
/// an internationalized address may be written in ASCII (RFC 6533 §3), whichever of its forms came; the type is `utf-8` also
/// where the sender says `rfc822` of what is beyond ASCII, as Postfix 3.7 does. `None` if it is malformed, or longer than
/// [`ORIGINAL_BYTES_MAX`].
pub fn original_recipient(value: &str) -> Option<String> {
    if value.len() > ORIGINAL_BYTES_MAX {
        return None;
    }
    let (kind, address) = value.split_once(';').filter(|(kind, _)| is_atom(kind))?;
    let is_mail = kind.eq_ignore_ascii_case("rfc822");
    let is_wide = |decoded: &String| !decoded.is_ascii() && !decoded.chars().any(char::is_control);
    let wide = || String::from_utf8(xtext_octets(address)?).ok().filter(is_wide);
    let original = if kind.eq_ignore_ascii_case("utf-8") {
        format!("{kind};{}", escaped(&unescaped(address)?))
    } else if let Some(wide) = is_mail.then(wide).flatten() {
        format!("utf-8;{}", escaped(&wide))
    } else {
        format!("{kind};{}", printable(address)?)
    };
    // It goes on as it is escaped.
    is_original_recipient(&original).then_some(original)
}

/// Whether a text is what [`envelope_id`] gives, and so fits the limit as it is written again.
pub fn is_envelope_id(text: &str) -> bool {
    is_printable(text) && (1..=ENVELOPE_ID_BYTES_MAX).contains(&xtext_length(text))
}

/// Whether a text is what [`original_recipient`] gives, and so fits the limit as it is written again.
pub fn is_original_recipient(text: &str) -> bool {
    text.split_once(';').is_some_and(|(kind, address)| {
        let octets = kind.len() + 1 + xtext_length(address);
        is_atom(kind) && !address.is_empty() && is_printable(address) && octets <= ORIGINAL_BYTES_MAX
    })
}

fn is_atom(text: &str) -> bool {
    let is_atom = |octet: u8| octet.is_ascii_graphic() && !b"()<>@,;:\\\".[]".contains(&octet);
    !text.is_empty() && text.bytes().all(is_atom)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|octet| matches!(octet, b' '..=b'~'))
}

/// An address with its type, as ORCPT and the fields of a report have it.
pub fn typed(address: &Address) -> (&'static str, String) {
    let text = address.to_string();
    if text.is_ascii() { ("rfc822", text) } else { ("utf-8", escaped(&text)) }
}

/// A text as utf-8-addr-xtext (RFC 6533 §3): what is neither printable ASCII nor free in it is escaped.
fn escaped(text: &str) -> String {
    let is_qchar = |c: char| c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\');
    let escape = |c: char| if is_qchar(c) { c.to_string() } else { format!("\\x{{{:02X}}}", u32::from(c)) };
    text.chars().map(escape).collect()
}

/// What utf-8-addr-xtext or utf-8-addr-unitext stands for. A sender's octets as xtext, and a backslash that escapes nothing, are
/// taken for what they are meant to be. `None` if it is empty, or none of it.
fn unescaped(text: &str) -> Option<String> {
    let (mut rest, mut octets) = (text, Vec::new());
    while let Some(first) = rest.chars().next() {
        let embedded = rest.strip_prefix("\\x{").and_then(|inner| inner.split_once('}'));
        rest = match (first, embedded) {
            (_, Some((digits, behind))) => {
                let is_point =
                    (1..=6).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let point =
                    is_point.then(|| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32))??;
                octets.extend_from_slice(point.encode_utf8(&mut [0; 4]).as_bytes());
                behind
            }
            ('+', None) => {
                octets.extend(printable(rest.get(..3)?)?.bytes());
                rest.get(3..)?
            }
            (c, None) if c.is_control() || matches!(c, ' ' | '=') => return None,
            (c, None) => {
                octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest.get(c.len_utf8()..)?
            }
        };
    }
    String::from_utf8(octets).ok().filter(|text| !text.is_empty())
}

/// xtext of something that is printable: what a field of a report can hold.
fn printable(text: &str) -> Option<String> {
    let decoded = String::from_utf8(xtext_octets(text)?).ok()?;
    (!decoded.is_empty() && is_printable(&decoded)).then_some(decoded)
}

/// What xtext stands for (RFC 3461 §4): any octets, or none.
pub fn xtext_octets(text: &str) -> Option<Vec<u8>> {
    let (mut octets, mut out) = (text.bytes(), Vec::new());
    while let Some(octet) = octets.next() {
        match octet {
            b'+' => out.push(hex(octets.next()?)? << 4 | hex(octets.next()?)?),
            b'=' => return None,
            _ if octet.is_ascii_graphic() => out.push(octet),
            _ => return None,
        }
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Octets of a text as [`xtext`].
fn xtext_length(text: &str) -> usize {
    let length = |octet: u8| if octet.is_ascii_graphic() && !matches!(octet, b'+' | b'=') { 1 } else { 3 };
    text.bytes().map(length).sum()
}

/// A text as xtext.
pub fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'+' | b'=' => out.push_str(&format!("+{octet:02X}")),
            _ if octet.is_ascii_graphic() => out.push(char::from(octet)),
            _ => out.push_str(&format!("+{octet:02X}")),
        }
    }
    out
}

/// An [original recipient](is_original_recipient) as ORCPT has it: its type, and the rest as xtext.
pub fn original_parameter(original: &str) -> String {
    let (kind, address) = original.split_once(';').unwrap_or(("rfc822", original));
    format!("{kind};{}", xtext(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_or_a_list() {
        let of = |success, failure, delay| Ok(Notify { success, failure, delay });
        assert_eq!("never".parse(), Ok(Notify::NEVER));
        assert_eq!("SUCCESS".parse(), of(true, false, false));
        assert_eq!("delay,Failure".parse(), of(false, true, true));
        assert_eq!("SUCCESS,FAILURE,DELAY,SUCCESS".parse(), of(true, true, true));
        for bad in ["", "NEVER,SUCCESS", "SUCCESS,NEVER", "SUCCESS,", ",", "SUCCESS, DELAY", "ALWAYS"] {
            assert_eq!(bad.parse::<Notify>(), Err(NotNotify), "{bad:?}");
        }
        for text in ["NEVER", "SUCCESS", "FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"] {
            assert_eq!(text.parse::<Notify>().map(|notify| notify.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_decoded_is_written_as_it_came() {
        for value in ["QQ314159", "a+2Bb", "a+20+20b", "+3D", &"x".repeat(ENVELOPE_ID_BYTES_MAX)] {
            let decoded = envelope_id(value).expect("an ENVID");
            assert_eq!(xtext(&decoded), value);
            assert!(is_envelope_id(&decoded));
        }
        let long = "x".repeat(ENVELOPE_ID_BYTES_MAX + 1);
        let long_once_written = "+".repeat(ENVELOPE_ID_BYTES_MAX / 3 + 1);
        for bad in ["", "a\r\nRCPT", "\u{fc}", &long, &long_once_written] {
            assert!(!is_envelope_id(bad), "{bad:?}");
        }
        assert!(is_envelope_id(&"+".repeat(ENVELOPE_ID_BYTES_MAX / 3)));
        assert_eq!(envelope_id("a+2Bb+20c").as_deref(), Some("a+b c"));
        let long = "x".repeat(ENVELOPE_ID_BYTES_MAX + 1);
        for bad in
            ["", "a=b", "a+", "a+4", "a+4g", "a+3d", "a b", "a+0D+0Ab", "a+00", "a+FF", "\u{fc}", &long]
        {
            assert_eq!(envelope_id(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_original_recipient_has_a_type() {
        let read = |value: &str| original_recipient(value);
        assert_eq!(read("rfc822;a+2Bb@example.com").as_deref(), Some("rfc822;a+b@example.com"));
        assert_eq!(read("X400;/c=de/s=x").as_deref(), None, "= is no xtext");
        assert_eq!(read("x400;/c+3Dde").as_deref(), Some("x400;/c=de"));
        assert_eq!(read("utf-8;jos\u{e9}@x.example").as_deref(), Some("utf-8;jos\\x{E9}@x.example"));
        assert_eq!(read("utf-8;jos\\x{E9}@x.example").as_deref(), Some("utf-8;jos\\x{E9}@x.example"));
        assert_eq!(
            read("rfc822;jos+C3+A9+2Bx@x.example").as_deref(),
            Some("utf-8;jos\\x{E9}\\x{2B}x@x.example")
        );
        let bad =
            ["", "rfc822", "rfc822;", ";a@b.example", "rfc 822;a", "rfc822;a+0D+0Ab", "rfc822;jos\u{e9}@x"];
        let wide = ["rfc822;jos+C3+A9+0D+0Ab", "rfc822;jos+E9@x", "rfc822;jos+C3@x", "x400;jos+C3+A9"];
        let long = [
            format!("rfc822;{}", "x".repeat(494)),
            format!("utf-8;{}", "\u{e9}".repeat(90)),
            format!("rfc822;{}", "+C3+A9".repeat(83)),
        ];
        for bad in bad.into_iter().chain(wide).map(str::to_owned).chain(long) {
            assert_eq!(read(&bad), None, "{bad:?}");
        }
        assert!(read(&format!("rfc822;{}", "x".repeat(493))).is_some());
        for value in ["rfc822;a+2Bb@example.com", "x400;/c+3Dde", "utf-8;jos\\x{E9}@x.example"] {
            let original = read(value).expect("an original recipient");
            assert_eq!(original_parameter(&original), value);
            assert!(is_original_recipient(&original));
        }
        let long = format!("rfc822;{}", "x".repeat(494));
        let written = |octets: usize| format!("rfc822;{}", "=".repeat(octets));
        assert!(is_original_recipient(&written(164)), "499 octets as they are written");
        let long_once_written = written(165);
        for bad in
            ["", "rfc822", "rfc822;", "a b;c", "x\r\nDATA;y", "rfc822;a\r\nDATA", &long, &long_once_written]
        {
            assert!(!is_original_recipient(bad), "{bad:?}");
        }
        let address: Address = "jos\u{e9}@x.example".parse().expect("an address");
        assert_eq!(typed(&address), ("utf-8", "jos\\x{E9}@x.example".into()));
    }

    /// Whether a text is utf-8-addr-xtext, by the grammar of RFC 6533 §3.
    fn is_utf8_addr_xtext(text: &str) -> bool {
        let is_hexpoint = |digits: &str| {
            let point = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
            let is_canonical = |point: char| digits == format!("{:02X}", u32::from(point));
            // Nothing else of ASCII is written so.
            let is_escaped = |point: char| !point.is_ascii_graphic() || matches!(point, '+' | '=' | '\\');
            point.is_some_and(|point| is_canonical(point) && is_escaped(point))
        };
        let (mut rest, mut is_good) = (text, !text.is_empty());
        while let (true, Some(first)) = (is_good, rest.chars().next()) {
            (is_good, rest) = match rest.strip_prefix("\\x{").and_then(|inner| inner.split_once('}')) {
                Some((digits, behind)) => (is_hexpoint(digits), behind),
                // QCHAR
                None => (
                    matches!(first, '\x21'..='\x2a' | '\x2c'..='\x3c' | '\x3e'..='\x5b' | '\x5d'..='\x7e'),
                    &rest[first.len_utf8()..],
                ),
            };
        }
        is_good
    }

    #[test]
    fn an_internationalized_original_recipient_is_as_its_grammar_has_it() {
        let wide = "jos\u{e9}+tag=a@x.example";
        let address: Address = wide.parse().expect("an address");
        let written = "jos\\x{E9}\\x{2B}tag\\x{3D}a@x.example";
        assert_eq!(typed(&address), ("utf-8", written.into()));
        for value in [
            // As this grammar has it, in ASCII and in UTF-8, and as some write it.
            "utf-8;jos\\x{E9}\\x{2B}tag\\x{3D}a@x.example",
            "utf-8;jos\u{e9}\\x{2B}tag\\x{3D}a@x.example",
            "utf-8;jos\u{e9}+2Btag+3Da@x.example",
            "utf-8;jos\\x{0000E9}+2Btag+3Da@x.example",
            "rfc822;jos+C3+A9+2Btag+3Da@x.example",
        ] {
            let original = original_recipient(value).expect(value);
            assert_eq!(original, format!("utf-8;{written}"), "{value}");
            assert_eq!(original_parameter(&original), original, "and goes on like that");
        }
        for (text, expected) in [
            ("a\\b", "a\\x{5C}b"),
            ("\\x{5C}", "\\x{5C}"),
            ("jos\\x{e9}", "jos\\x{E9}"),
            ("\\x{7F}\\x{D}", "\\x{7F}\\x{0D}"),
            ("\\x{1F600}", "\\x{1F600}"),
        ] {
            let original = original_recipient(&format!("utf-8;{text}"));
            assert_eq!(original, Some(format!("utf-8;{expected}")), "{text}");
        }
        for text in [written, "a\\x{5C}b", "\\x{0D}", "\\x{20}"] {
            assert!(is_utf8_addr_xtext(text), "{text}");
        }
        for bad in ["", "a+b", "a=b", "a\\b", "\u{e9}", "\\x{E9", "\\x{0E9}", "a b"] {
            assert!(!is_utf8_addr_xtext(bad), "{bad}");
        }
        for point in (1..=0x10_ffff_u32).step_by(7).chain(0..=0x2ff).filter_map(char::from_u32) {
            assert!(is_utf8_addr_xtext(&escaped(&point.to_string())), "{point:?}");
        }
        for bad in
            ["", "\\x{}", "\\x{D800}", "\\x{110000}", "\\x{0000000E9}", "a+2", "a=b", "a+0D+0A", "+C3+A9"]
        {
            assert_eq!(original_recipient(&format!("utf-8;{bad}")), None, "{bad}");
        }
    }
}
