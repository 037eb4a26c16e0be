//! Messages out of any bytes: read, taken apart and put together again, as `mail read` and `mail save` do; and made lines of
//! octets, as reception does.

use std::path::{Component, Path};

use shared::mime::{
    DEPTH_MAX, Encoding, FILE_NAME_MAX, HeaderFacts, NotLines, Opened, PARTS_MAX, Reencoding, Structure,
    TEXT_MAX, file_name, header_len, open, scan, terminal, text_of,
};

/// Messages within messages that are opened.
const OPENED_DEEP: usize = 4;
/// Octets that a text may have beyond its limit: the word about what is not shown.
const CUT_MAX: usize = 64;

/// The bytes as a message.
///
/// # Panics
/// If a limit does not hold, a name is not safe, or what was taken apart cannot be put together again.
pub fn mime(bytes: &[u8]) {
    let facts = HeaderFacts::of(&bytes[..header_len(bytes)]);
    let subject = facts.subject.unwrap_or_default();
    assert!(!terminal::safe_line(&subject).contains(char::is_control), "a subject that moves the cursor");
    let text = text_of(bytes);
    assert!(text.len() <= TEXT_MAX + CUT_MAX, "a text of {} octets", text.len());
    if let Ok(structure) = scan(bytes) {
        check(bytes, &structure, OPENED_DEEP);
        (0..structure.parts.len()).for_each(|index| drop(open(bytes, index)));
    }
    let whole = reencoded(&[bytes]);
    let at = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % (bytes.len() + 1);
    assert!(reencoded(&[&bytes[..at], &bytes[at..]]) == whole, "it depends on a cut at {at}");
    if let Ok(lines) = whole {
        assert!(is_lines(&lines), "what is no lines has left");
        assert!(reencoded(&[&lines]).as_ref() == Ok(&lines), "lines do not stay what they are");
    }
}

/// What becomes of a message in octets that comes in pieces.
fn reencoded(pieces: &[&[u8]]) -> Result<Vec<u8>, NotLines> {
    let (mut reencoding, mut lines) = (Reencoding::new(), Vec::new());
    pieces.iter().try_for_each(|piece| reencoding.push(piece, &mut lines))?;
    reencoding.finish(&mut lines).map(|()| lines)
}

/// Only CRLF ends a line, and there is no other CR, LF or NUL.
fn is_lines(octets: &[u8]) -> bool {
    let lines: Vec<_> = octets.split(|octet| *octet == b'\n').collect();
    let last = lines.len() - 1;
    let is_line = |(number, line): (usize, &&[u8])| {
        let text = if number == last { Some(*line) } else { line.strip_suffix(b"\r") };
        text.is_some_and(|text| !text.contains(&b'\r') && !text.contains(&0))
    };
    lines.iter().enumerate().all(is_line)
}

fn check(message: &[u8], structure: &Structure, deep: usize) {
    assert!((1..=PARTS_MAX).contains(&structure.parts.len()));
    for (index, part) in structure.parts.iter().enumerate() {
        assert!(part.depth <= DEPTH_MAX && part.parent.is_none_or(|parent| parent < index));
        assert!(part.header.end <= part.body.start && part.body.end <= message.len(), "part {index}");
        // No encoding makes a content larger than it is written, but uuencode whose blanks were lost.
        let is_grown = part.content(message).len() > message.len();
        assert!(!is_grown || part.encoding == Encoding::Uuencode, "{:?}", part.encoding);
    }
    let (mut at, mut whole) = (0, Vec::new());
    for (number, attachment) in (1..).zip(structure.attachments(message)) {
        let name = file_name(attachment.name.as_deref(), &attachment.content_type, &number_text(number));
        is_safe(&name);
        let cover = message.get(at..attachment.octets.start).expect("attachments lie one after the other");
        whole.extend_from_slice(cover);
        whole.extend_from_slice(&message[attachment.octets.clone()]);
        at = attachment.octets.end;
        let opened = structure.open(message, attachment.index).expect("what is listed can be opened");
        assert_eq!(opened.octets.len(), attachment.size);
        look_into(&opened, deep);
    }
    whole.extend_from_slice(&message[at..]);
    assert!(whole == message, "what was taken apart is another message when it is put together");
}

fn look_into(opened: &Opened, deep: usize) {
    drop(opened.text());
    if deep > 0
        && let Some(Ok(within)) = opened.structure()
    {
        check(&opened.octets, &within, deep - 1);
    }
}

fn number_text(number: usize) -> String {
    format!("1.{number}")
}

/// One plain name in a folder, for every platform.
fn is_safe(name: &str) {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none();
    let bad = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':' | '\u{202e}' | '\u{2066}');
    assert!(plain && !name.contains(bad) && !name.starts_with(['.', '-']), "{name:?}");
    assert!(name.len() <= FILE_NAME_MAX, "{name:?}");
}
