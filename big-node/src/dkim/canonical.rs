//! The form of a header field that is signed: *relaxed* (RFC 6376 §3.4.2), which bears what relays do to blanks.

use shared::mime::Field;

/// Appends a header field to what is signed, without the end of its line.
pub fn field(field: &Field<'_>, out: &mut Vec<u8>) {
    out.extend(field.name.bytes().map(|byte| byte.to_ascii_lowercase()));
    out.push(b':');
    let words = field.raw.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    for (n, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}
