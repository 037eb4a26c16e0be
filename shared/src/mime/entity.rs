//! Parts that go from one message into another as they stand, octet for octet.

use super::header;
use super::structure::scan;
use super::write;

/// Octets of a line, its end not counted (RFC 5322 §2.1.1).
const LINE_MAX: usize = 998;

/// The part `index` that [`super::attachments`] named, with those fields of its header that say what it is: an
/// entity (RFC 2045 §2.4) that can stand in another message. `None` where there is none.
pub fn entity(message: &[u8], index: usize) -> Option<Vec<u8>> {
    let structure = scan(message).ok()?;
    let part = structure.parts.get(index)?;
    let mut entity = Vec::new();
    for lines in header::raw_fields(message.get(part.header.clone())?) {
        // The first part may be the message itself, whose other fields are no attachment's.
        if lines.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"content-")) {
            entity.extend_from_slice(lines);
        }
    }
    entity.extend_from_slice(b"\r\n");
    entity.extend_from_slice(message.get(part.body.clone())?);
    Some(entity)
}

/// A message as an attachment called `name` (RFC 2046 §5.2.1), as it is. One with lines that no host takes goes as
/// a file.
pub fn attached_message(message: &[u8], name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let is_carried = message.split(|octet| *octet == b'\n').all(|line| line.len() <= LINE_MAX + 1)
        && memchr::memchr(0, message).is_none();
    let content_type = match (is_carried, message[..header::header_len(message)].is_ascii()) {
        (false, _) => "application/octet-stream",
        (true, true) => "message/rfc822",
        // RFC 6532 §3.7: its header is in UTF-8.
        (true, false) => "message/global",
    };
    write::field(&mut out, "Content-Type", [content_type.to_owned()]);
    let mut disposition = vec![String::from("attachment;")];
    disposition.extend(write::file_name_parameter("filename", name));
    write::field(&mut out, "Content-Disposition", disposition);
    let encoding = match (is_carried, message.is_ascii()) {
        (false, _) => "base64",
        (true, true) => "7bit",
        (true, false) => "8bit",
    };
    write::field(&mut out, "Content-Transfer-Encoding", [encoding.to_owned()]);
    out.extend_from_slice(b"\r\n");
    match is_carried {
        true => out.extend_from_slice(message),
        false => write::base64(&mut out, message),
    }
    out
}
