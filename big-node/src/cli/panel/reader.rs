//! A message that is read, or an attachment of one: its header as we tell it, and then its text.

use shared::mime::file_name;
use shared::render::{size, when};
use shared::verdict;

use super::text::{Repertoire, fitting, wrap};
use crate::request::Reading;

/// Octets of text that are shown; the rest can be saved.
const SHOWN_MAX: usize = 4 << 20;
/// Columns of a header field's name.
const NAME_WIDTH: usize = 11;
/// Rows of one header field; `big-node mail read` shows all of it.
const FIELD_ROWS_MAX: usize = 6;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As text.
    Plain,
    /// As something that we say.
    Header,
    /// A line across.
    Rule,
}

/// A message that is read.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// Its id, or an attachment's.
    pub(super) id: String,
    /// What was answered.
    pub(super) reading: Option<Box<Reading>>,
    /// Its lines for `columns`.
    pub(super) lines: Vec<(Look, String)>,
    columns: usize,
    /// The first line on the screen.
    pub(super) top: usize,
}

impl Reader {
    /// Of a message that is asked for.
    pub(super) fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), reading: None, lines: Vec::new(), columns: 0, top: 0 }
    }

    /// Lays it out, unless that is done.
    pub(super) fn lay_out(&mut self, columns: usize, repertoire: Repertoire) {
        let Some(reading) = &self.reading else { return };
        if self.columns != columns || self.lines.is_empty() {
            // What stood on top stays about there.
            self.top = self.top * self.columns / columns.max(1);
            self.lines = lines(reading, columns, repertoire);
            self.columns = columns;
        }
    }

    /// Moves the screen of `rows`.
    pub(super) fn go(&mut self, top: usize, rows: usize) {
        self.top = top.min(self.lines.len().saturating_sub(rows));
    }
}

fn lines(reading: &Reading, columns: usize, repertoire: Repertoire) -> Vec<(Look, String)> {
    let mut lines = Vec::new();
    let marks = [
        (reading.answered, "answered".to_owned()),
        (reading.forwarded, "forwarded".into()),
        (
            reading.amended,
            format!("amended by its author: revision {}; h shows what differs", reading.revision),
        ),
        (reading.withdrawn, "taken back by its author".into()),
    ];
    let marks: Vec<_> = marks.into_iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| mark).collect();
    let attachment = match &reading.content_type {
        Some(content_type) => {
            let name = reading.part_name.as_deref().unwrap_or("(no name)");
            format!("{}, {name}, {content_type}", number(&reading.id))
        }
        None => String::new(),
    };
    let unparsed = match &reading.unparsed {
        Some(why) => format!("could not be told apart ({why})"),
        None => String::new(),
    };
    for (name, value) in [
        ("From", reading.from.join(", ")),
        ("To", reading.to.join(", ")),
        ("Cc", reading.cc.join(", ")),
        ("Date", format!("{} UTC", when(reading.at))),
        ("Subject", reading.subject.clone()),
        ("Marks", marks.join(", ")),
        ("Verified", verdict::summary(&reading.verdicts).unwrap_or_default()),
        ("Attachment", attachment),
        ("Attachments", unparsed),
    ] {
        if !value.is_empty() {
            push_field(name, &value, columns, repertoire, &mut lines);
        }
    }
    for part in &reading.parts {
        let name = match part.name.as_deref() {
            None | Some("") => format!("({})", file_name(None, &part.content_type, &part.number.to_string())),
            Some(name) => name.to_owned(),
        };
        let what = format!("{}: {name}, {}, {}", part.number, part.content_type, size(part.size));
        push_field("Attachment", &what, columns, repertoire, &mut lines);
    }
    if !reading.parts.is_empty() {
        let text = "type its number to open one; s saves";
        push_field("", text, columns, repertoire, &mut lines);
    }
    lines.push((Look::Rule, String::new()));
    let end = reading.text.floor_char_boundary(SHOWN_MAX);
    let (text, rest) = reading.text.split_at(end);
    let trimmed = text.trim_end();
    if trimmed.is_empty() {
        lines.push((Look::Header, "(no text)".into()));
    } else {
        let wrapped = repertoire.wrapped(trimmed, columns);
        lines.extend(wrapped.into_iter().map(|line| (Look::Plain, line)));
    }
    if !rest.is_empty() {
        lines.push((Look::Rule, String::new()));
        let text = format!("{} more are not shown; `big-node mail read` shows all", size(rest.len() as u64));
        lines.push((Look::Header, text));
    }
    lines
}

/// The way to an attachment, from an id.
fn number(id: &str) -> &str {
    id.split_once('.').map_or("", |(_, number)| number)
}

/// A field of ours with a foreign value, which stays in its column.
fn push_field(
    name: &str,
    value: &str,
    columns: usize,
    repertoire: Repertoire,
    lines: &mut Vec<(Look, String)>,
) {
    let room = columns.saturating_sub(NAME_WIDTH + 1).max(1);
    let mut rows = wrap(&repertoire.line(value), room);
    if rows.len() > FIELD_ROWS_MAX {
        rows.truncate(FIELD_ROWS_MAX);
        if let Some(last) = rows.last_mut() {
            last.truncate(fitting(last, room - 1));
            last.push_str(repertoire.ellipsis());
        }
    }
    for (at, row) in rows.iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        lines.push((Look::Header, format!("{name:<NAME_WIDTH$} {row}")));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::Part;

    pub(in crate::cli::panel) fn reading(id: &str, text: &str) -> Reading {
        Reading {
            id: id.into(),
            from: vec!["Carol Jones <carol@remote.example>".into()],
            to: vec!["alice@example.com".into()],
            cc: vec![],
            subject: "Lunch".into(),
            at: 1_795_333_263_250,
            text: text.into(),
            parts: vec![],
            unparsed: None,
            answered: false,
            forwarded: false,
            folder: "in".into(),
            revision: 0,
            latest: None,
            amended: false,
            withdrawn: false,
            parent: None,
            verdicts: vec![],
            part_name: None,
            content_type: None,
        }
    }

    fn shown(reading: Reading, columns: usize) -> Vec<String> {
        lines(&reading, columns, Repertoire::Unicode).into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn a_header_cannot_be_forged_by_what_is_in_it() {
        let mut hostile = reading("1", "text");
        hostile.subject = "x\r\nFrom        boss@example.com\x1b[2J".into();
        hostile.part_name = Some("a\u{202e}fdp.exe".into());
        hostile.content_type = Some("text/plain".into());
        let lines = shown(hostile, 80);
        assert_eq!(lines.iter().filter(|line| line.starts_with("From ")).count(), 1);
        assert!(lines.iter().any(|line| line.contains("x␍␊From        boss@example.com␛[2J")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("afdp.exe, text/plain")), "{lines:?}");
    }

    #[test]
    fn long_values_stay_in_their_column() {
        let mut long = reading("1", "text");
        long.to = (0..1000).map(|number| format!("person{number}@example.com")).collect();
        let lines = shown(long, 40);
        let to = lines.iter().position(|line| line.starts_with("To ")).expect("To");
        assert!(lines[to + 1].starts_with("            person"), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 40));
        assert!(lines[to + 5].ends_with('…') && lines[to + 6].starts_with("Date "), "{lines:?}");
    }

    #[test]
    fn attachments_have_numbers_and_names() {
        let mut message = reading("1", "  \n");
        let part = |number, name: Option<&str>| Part {
            number,
            index: number,
            name: name.map(str::to_owned),
            content_type: "image/png".into(),
            size: 2048,
        };
        message.parts = vec![part(1, Some("a.png")), part(2, None)];
        message.amended = true;
        message.revision = 2;
        let lines = shown(message, 80).join("\n");
        assert!(lines.contains("Attachment  1: a.png, image/png, 2.0 KiB\n"), "{lines}");
        assert!(lines.contains("2: ("), "{lines}");
        assert!(lines.contains("revision 2"), "{lines}");
        assert!(lines.ends_with("(no text)"), "{lines}");
    }

    #[test]
    fn a_text_without_end_is_cut_and_says_so() {
        let lines = shown(reading("1", &"x".repeat(SHOWN_MAX + 1)), 80);
        assert!(lines.last().expect("lines").starts_with("1 B more are not shown"));
    }

    #[test]
    fn the_screen_does_not_leave_the_text() {
        let mut reader = Reader::new("1");
        reader.reading = Some(Box::new(reading("1", &"line\n".repeat(100))));
        reader.lay_out(80, Repertoire::Unicode);
        reader.go(1000, 18);
        assert_eq!(reader.top, reader.lines.len() - 18);
        reader.lay_out(40, Repertoire::Unicode);
        reader.go(reader.top, 18);
        assert!(reader.top + 18 <= reader.lines.len());
    }
}
