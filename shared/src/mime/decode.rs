//! From octets to text: transfer encodings, charsets, encoded words. All of it takes what is broken
//! as well as it can; nothing is refused, for this is only to look at.

use mail_parser::decoders::charsets::map::charset_decoder;

/// Text in `charset`; in UTF-8, or else windows-1252, where that is unknown or not said.
pub(super) fn text_in(charset: Option<&str>, octets: &[u8]) -> String {
    let label = charset.map(|label| label.trim().to_ascii_lowercase()).unwrap_or_default();
    let utf8 = matches!(label.as_str(), "" | "utf-8" | "utf8" | "us-ascii" | "ascii");
    match charset_decoder(label.as_bytes()) {
        Some(decode) if !utf8 => decode(octets),
        _ => text_or_latin(octets),
    }
}

/// UTF-8 if it is, windows-1252 if not.
pub(super) fn text_or_latin(octets: &[u8]) -> String {
    match (str::from_utf8(octets), charset_decoder(b"windows-1252")) {
        (Ok(text), _) => text.to_owned(),
        (Err(_), Some(decode)) => decode(octets),
        (Err(_), None) => String::from_utf8_lossy(octets).into_owned(),
    }
}

/// Base64 (RFC 2045 §6.8): other octets are passed over, padding may be missing.
pub(super) fn base64(text: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u8);
    for byte in text {
        let Some(sextet) = sextet(*byte) else {
            if *byte == b'=' {
                // Padding ends a group; what follows may be another encoded text.
                (bits, count) = (0, 0);
            }
            continue;
        };
        bits = (bits << 6 | u32::from(sextet)) & 0xff_ffff;
        count = (count + 1) % 4;
        // Two sextets hold one octet, three hold two, four hold three.
        let complete = match count {
            2 => bits >> 4,
            3 => bits >> 2,
            0 => bits,
            _ => continue,
        };
        let [.., octet] = complete.to_be_bytes();
        octets.push(octet);
    }
    octets
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Quoted-printable (RFC 2045 §6.7): what is no valid escape stays as it is.
pub(super) fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let content = line.trim_ascii_end();
        let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        match content.strip_suffix(b"=") {
            Some(soft) => escapes(soft, b'=', &mut octets),
            None => {
                escapes(content, b'=', &mut octets);
                octets.extend_from_slice(line.get(end..).unwrap_or_default());
            }
        }
    }
    octets
}

/// Times the octets that are written: only a large file, of which more than three quarters are zeros whose blanks were lost,
/// is cut by that.
const UUENCODE_GROWTH: usize = 3;
/// Octets beside that.
const UUENCODE_SPARE: usize = 1024 * 1024;

/// Uuencode: the lines between `begin` and `end`, each with its length before it. What has no `begin`
/// stays as it is. Blanks that were lost at a line's end are zeros, but never more than [`UUENCODE_GROWTH`] times the octets
/// that are written and [`UUENCODE_SPARE`]: lines of a length alone would be thirty times as much.
pub(super) fn uuencode(text: &[u8]) -> Vec<u8> {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    if !lines.any(|line| line.starts_with(b"begin ")) {
        return text.to_vec();
    }
    let sextet = |byte: &u8| byte.wrapping_sub(b' ') & 0x3f;
    let mut octets = Vec::with_capacity(text.len() / 4 * 3);
    for line in lines.take_while(|line| *line != b"end") {
        let Some((length, groups)) = line.split_first() else { continue };
        let end = octets.len() + usize::from(sextet(length));
        for group in groups.chunks(4) {
            // Blanks at the end of a line are often lost; they are zeros.
            let at = |n: usize| u32::from(group.get(n).map_or(0, sextet));
            let [_, decoded @ ..] = (at(0) << 18 | at(1) << 12 | at(2) << 6 | at(3)).to_be_bytes();
            octets.extend_from_slice(&decoded);
        }
        octets.resize(end.min(UUENCODE_GROWTH * text.len() + UUENCODE_SPARE), 0);
    }
    octets
}

/// Octets written as `mark` and two hexadecimal digits.
pub(super) fn escapes(text: &[u8], mark: u8, octets: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == mark).then(|| tail.split_first_chunk::<2>()).flatten();
        match escaped.and_then(|(digits, after)| Some((hex(digits)?, after))) {
            Some((octet, after)) => {
                octets.push(octet);
                rest = after;
            }
            None => {
                octets.push(*first);
                rest = tail;
            }
        }
    }
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok().filter(|_| digits[0] != b'+')
}

/// The text with its encoded words decoded (RFC 2047); what is not quite one stays as it is.
pub(super) fn encoded_words(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    // Octets of neighbouring words in one charset: a character may be split between them.
    let mut pending: Option<(&str, Vec<u8>)> = None;
    let mut rest = text;
    while let Some(start) = rest.find("=?") {
        let (before, from) = rest.split_at(start);
        let Some((word, after)) = encoded_word(from) else {
            flush(&mut pending, &mut decoded);
            decoded.push_str(before);
            decoded.push_str("=?");
            rest = from.get(2..).unwrap_or_default();
            continue;
        };
        let adjacent = pending.is_some() && before.chars().all(|c| matches!(c, ' ' | '\t'));
        if !adjacent {
            flush(&mut pending, &mut decoded);
            decoded.push_str(before);
        }
        match &mut pending {
            Some((charset, octets)) if charset.eq_ignore_ascii_case(word.charset) => {
                octets.extend(word.octets)
            }
            _ => {
                flush(&mut pending, &mut decoded);
                pending = Some((word.charset, word.octets));
            }
        }
        rest = after;
    }
    flush(&mut pending, &mut decoded);
    decoded.push_str(rest);
    decoded
}

fn flush(pending: &mut Option<(&str, Vec<u8>)>, decoded: &mut String) {
    if let Some((charset, octets)) = pending.take() {
        // Line breaks inside an encoded word would not be header text.
        decoded.extend(text_in(Some(charset), &octets).chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
}

struct Word<'a> {
    charset: &'a str,
    octets: Vec<u8>,
}

/// The encoded word that `text` begins with, and what follows it. Looks no further than the fourth
/// question mark, so that a text of false starts is read once.
fn encoded_word(text: &str) -> Option<(Word<'_>, &str)> {
    let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (content, rest) = rest.split_once('?')?;
    let rest = rest.strip_prefix('=')?;
    // The language of RFC 2231 §5.
    let charset = charset.split('*').next().filter(|charset| !charset.is_empty())?;
    let octets = match encoding {
        "B" | "b" => base64(content.as_bytes()),
        "Q" | "q" => {
            let mut octets = Vec::with_capacity(content.len());
            escapes(content.replace('_', " ").as_bytes(), b'=', &mut octets);
            octets
        }
        _ => return None,
    };
    Some((Word { charset, octets }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_are_decoded() {
        for (text, expected) in [
            ("plain", "plain"),
            ("=?UTF-8?B?w6k=?= and =?iso-8859-1?Q?caf=E9?=", "é and café"),
            ("=?utf-8?q?a_b?=  =?utf-8?q?c?= d", "a bc d"),
            ("=?utf-8?B?w?= =?utf-8?B?6k=?=", "\u{ea}"),
            ("=?utf-8?Q?=C3?= =?utf-8?Q?=A9?=", "é"),
            ("=?utf-8*en?Q?hi?=", "hi"),
            ("=?x-unknown?Q?caf=C3=A9?=", "café"),
            ("=?utf-8?Q?a=0D=0ABcc:_b?=", "a  Bcc: b"),
            ("=?utf-8?X?aa?= =?utf-8?Q?broken", "=?utf-8?X?aa?= =?utf-8?Q?broken"),
            ("=?", "=?"),
            ("=?utf-8?Q?a_real question??=", "=?utf-8?Q?a_real question??="),
            ("=?iso-2022-jp?B?GyRCJTAbKEI=?=", "グ"),
        ] {
            assert_eq!(encoded_words(text), expected, "{text}");
        }
    }

    #[test]
    fn transfer_encodings_take_what_is_broken() {
        assert_eq!(base64(b"aGVs\r\nbG8="), b"hello");
        assert_eq!(base64(b"aGVs*bG8"), b"hello");
        assert_eq!(base64(b"aGk=aGk="), b"hihi");
        assert_eq!(base64(b"a"), b"");
        assert_eq!(
            quoted_printable(b"caf=C3=A9 =\r\nau lait  \r\n=ZZ=4\r\n"),
            "café au lait\r\n=ZZ=4\r\n".as_bytes()
        );
        assert_eq!(quoted_printable(b"a=\nb\n"), b"ab\n");
        assert_eq!(quoted_printable(b"=+1"), b"=+1");
        let written = b"text\r\nbegin 644 cat.txt\r\n#0V%T\r\n%:&5L;&\\\r\n!80\r\n`\r\nend\r\ntext\r\n";
        assert_eq!(uuencode(written), b"Cathelloa");
        assert_eq!(uuencode(b"nothing\r\n"), b"nothing\r\n");
        let zeros = [&b"begin 644 x\n"[..], &b"#0V%T\n".repeat(10), b"M\nM\n"].concat();
        assert_eq!(uuencode(&zeros), [&b"Cat".repeat(10)[..], &[0; 90]].concat(), "lost blanks");
        let lengths = [&b"begin 644 x\n"[..], &b"_\n".repeat(50_000)].concat();
        let bound = UUENCODE_GROWTH * lengths.len() + UUENCODE_SPARE;
        assert_eq!(uuencode(&lengths).len(), bound, "lengths without text");
    }

    #[test]
    fn charsets_are_converted_or_guessed() {
        assert_eq!(text_in(Some("ISO-8859-15"), b"\xa4"), "€");
        assert_eq!(text_in(Some("utf-8"), b"caf\xe9"), "café");
        assert_eq!(text_in(Some("no-such"), "é".as_bytes()), "é");
        assert_eq!(text_in(None, b"\x93hi\x94"), "“hi”");
    }
}
