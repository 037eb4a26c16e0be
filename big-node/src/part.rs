//! The parts of a filed message: its break-apart map, and the way to one of them.

use std::str::FromStr;

use shared::mime::{self, Opened, Structure};

use crate::record::Part;

/// Octets of a file name that are kept in a map.
const NAME_MAX: usize = 2048;
/// Parts of a message that are kept in its map.
const PARTS_MAX: usize = 500;
/// Parts within parts that can be asked for.
const DEPTH_MAX: usize = 16;

/// The break-apart map of a message; `None` is one that is too large to be taken apart.
pub fn break_apart(plain: Option<&[u8]>) -> (Vec<Part>, Option<String>) {
    let Some(plain) = plain else { return (Vec::new(), Some("too large to be broken apart".into())) };
    match mime::scan(plain) {
        Ok(structure) => (map(&structure, plain), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    }
}

/// The attachments in what was opened; none of a file.
pub fn within(opened: &Opened) -> Vec<Part> {
    match opened.structure() {
        Some(Ok(structure)) => map(&structure, &opened.octets),
        Some(Err(_)) | None => Vec::new(),
    }
}

fn map(structure: &Structure, message: &[u8]) -> Vec<Part> {
    let attachments = structure.attachments(message).into_iter().take(PARTS_MAX);
    let part = |(number, attachment): (u32, mime::Attachment)| Part {
        number,
        index: u32::try_from(attachment.index).unwrap_or(u32::MAX),
        name: attachment.name.map(|name| name.chars().take(NAME_MAX).collect()),
        content_type: attachment.content_type,
        size: attachment.size as u64,
    };
    (1..).zip(attachments).map(part).collect()
}

/// Where a part is: its number in the message, its number in that part, and so on; empty is the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartPath(Vec<u32>);

/// What is no part's number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: a part is a number, or numbers with full stops between them, as 2 or 2.1")]
pub struct NotAPart(String);

impl FromStr for PartPath {
    type Err = NotAPart;

    fn from_str(text: &str) -> Result<Self, NotAPart> {
        let numbers = text.split('.').map(|number| number.parse().ok().filter(|number| *number > 0));
        let path: Option<Vec<u32>> = numbers.collect();
        match path {
            Some(path) if path.len() <= DEPTH_MAX => Ok(Self(path)),
            None if text == "0" => Ok(Self::default()),
            _ => Err(NotAPart(text.to_owned())),
        }
    }
}

impl std::fmt::Display for PartPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl From<u32> for PartPath {
    fn from(number: u32) -> Self {
        Self(vec![number])
    }
}

impl PartPath {
    /// Whether it is the whole message.
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// The way to the part of the part that this leads to.
    pub fn join(&self, within: &Self) -> Self {
        Self([self.0.as_slice(), &within.0].concat())
    }

    /// The part of `message`, which has `parts`; `None` where there is none.
    pub fn open(&self, message: &[u8], parts: &[Part]) -> Option<Opened> {
        Apart::of(message, parts).open(self)
    }
}

/// A message whose structure was found once, however many of its parts are opened.
#[derive(Debug)]
pub struct Apart<'a> {
    message: &'a [u8],
    parts: &'a [Part],
    structure: Option<Structure>,
}

impl<'a> Apart<'a> {
    /// Of `message`, which has `parts`.
    pub fn of(message: &'a [u8], parts: &'a [Part]) -> Self {
        // One without parts may be too large to be looked at.
        let structure = (!parts.is_empty()).then(|| mime::scan(message).ok()).flatten();
        Self { message, parts, structure }
    }

    /// The part there; `None` where there is none.
    pub fn open(&self, path: &PartPath) -> Option<Opened> {
        let (first, rest) = path.0.split_first()?;
        let part = self.parts.iter().find(|part| part.number == *first)?;
        let mut opened = self.structure.as_ref()?.open(self.message, usize::try_from(part.index).ok()?)?;
        for number in rest {
            opened = opened.attachment(usize::try_from(*number).ok()?)?;
        }
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_numbers() {
        for text in ["1", "2.1", "500.3.1"] {
            assert_eq!(text.parse::<PartPath>().map(|path| path.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("0".parse(), Ok(PartPath::default()));
        for text in ["", "-1", "1.0", "0.1", "1..2", "x", "1.", "99999999999", &"1.".repeat(20)] {
            assert!(text.parse::<PartPath>().is_err(), "{text}");
        }
    }

    /// A multipart of so many parts.
    fn parallel(parts: usize) -> Vec<u8> {
        let part = "--b\r\nContent-Type: application/x; name=a\r\n\r\nx\r\n";
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n", part.repeat(parts))
            .into_bytes()
    }

    /// Multiparts within each other, so many deep.
    fn nested(depth: usize) -> Vec<u8> {
        let open = |level| format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n");
        let opened: String = (0..depth).map(open).collect();
        format!("{opened}Content-Type: application/x; name=a\r\n\r\nx\r\n").into_bytes()
    }

    #[test]
    fn what_is_made_to_be_much_work_ends_at_a_limit() {
        let apart = |message: &[u8]| break_apart(Some(message));
        let (parts, unparsed) = apart(&parallel(mime::PARTS_MAX - 1));
        assert_eq!((parts.len(), unparsed), (PARTS_MAX, None), "the rest stays in the cover");
        let (parts, unparsed) = apart(&parallel(mime::PARTS_MAX));
        assert!(parts.is_empty() && unparsed.is_some_and(|why| why.contains("more than 10000")));
        assert_eq!(apart(&nested(mime::DEPTH_MAX)).0.len(), 1);
        let (parts, unparsed) = apart(&nested(mime::DEPTH_MAX + 1));
        assert!(parts.is_empty() && unparsed.is_some_and(|why| why.contains("64 deep")));

        // Each attached message is opened only when it is asked for, and no deeper than a path goes.
        let inner = "Content-Type: message/rfc822\r\n\r\n".repeat(10_000);
        let (parts, unparsed) = apart(inner.as_bytes());
        assert_eq!((parts.len(), unparsed), (1, None));
        let deepest: PartPath = vec!["1"; DEPTH_MAX].join(".").parse().expect("a path");
        let opened = deepest.open(inner.as_bytes(), &parts).expect("a message in it");
        assert_eq!(
            opened.octets.len(),
            inner.len() - DEPTH_MAX * "Content-Type: message/rfc822\r\n\r\n".len()
        );

        let (parts, unparsed) = break_apart(None);
        assert!(parts.is_empty() && unparsed.is_some(), "too large");
    }

    #[test]
    fn a_part_of_a_part_is_found() {
        let message = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\ntext\r\n--a\r\n\
            Content-Type: message/rfc822\r\n\r\n\
            Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png; name=p\r\n\r\nPNG\r\n--b--\r\n\
            --a--\r\n";
        let (parts, unparsed) = break_apart(Some(message));
        assert_eq!((parts.len(), unparsed), (1, None));
        let open = |path: &str| path.parse::<PartPath>().expect("a path").open(message, &parts);
        let attached = open("1").expect("a message");
        assert_eq!(within(&attached)[0].name.as_deref(), Some("p"));
        assert_eq!(open("1.1").expect("a picture").octets, b"PNG");
        for path in ["0", "2", "1.2", "1.1.1"] {
            assert!(open(path).is_none(), "{path}");
        }
    }
}
