//! Text that a person types: a field of one line, and a text of several.
//!
//! Both hold what was typed as it is; [`Rows`] says how that looks on a screen of some width.

use unicode_normalization::char::is_combining_mark;

use shared::mime::terminal::COMBINING_MAX;

use super::keys::Key;
use super::text::{Repertoire, char_width};

/// Octets of a text that is edited here; longer ones are for the person's own editor.
pub(super) const TEXT_MAX: usize = 1 << 20;
/// Octets of a field: a thousand recipients.
pub(super) const FIELD_MAX: usize = 64 * 1024;

/// One line that is typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    text: String,
    /// Octets before the cursor.
    at: usize,
}

impl Field {
    /// With a text, the cursor behind it.
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { at: text.len(), text }
    }

    /// What was typed.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor.
    pub(super) fn before(&self) -> &str {
        &self.text[..self.at]
    }

    /// Types a text; what would break the line is a blank.
    pub(super) fn insert(&mut self, text: &str) {
        for c in text.chars() {
            let c = if c.is_control() { ' ' } else { c };
            if self.text.len() + c.len_utf8() <= FIELD_MAX {
                self.text.insert(self.at, c);
                self.at += c.len_utf8();
            }
        }
    }

    /// Applies a key; whether it meant something here.
    pub(super) fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Char(c) => self.insert(c.encode_utf8(&mut [0; 4])),
            Key::Left => self.at = previous(&self.text, self.at),
            Key::Right => self.at = next(&self.text, self.at),
            Key::Home | Key::Ctrl('a') => self.at = 0,
            Key::End | Key::Ctrl('e') => self.at = self.text.len(),
            Key::Backspace => {
                let start = previous(&self.text, self.at);
                self.text.drain(start..self.at);
                self.at = start;
            }
            Key::Delete => {
                let end = next(&self.text, self.at);
                self.text.drain(self.at..end);
            }
            Key::Ctrl('u') => {
                self.text.drain(..self.at);
                self.at = 0;
            }
            Key::Ctrl('w') => {
                let kept = self.before().trim_end().rfind(' ').map_or(0, |blank| blank + 1);
                self.text.drain(kept..self.at);
                self.at = kept;
            }
            _ => return false,
        }
        true
    }
}

/// Where the character before `at` begins; its marks belong to it.
fn previous(text: &str, at: usize) -> usize {
    let mut before = text[..at].char_indices().rev();
    before.by_ref().find(|(_, c)| !is_combining_mark(*c)).map_or(0, |(start, _)| start)
}

fn next(text: &str, at: usize) -> usize {
    let mut behind = text[at..].char_indices().skip(1);
    behind.find(|(_, c)| !is_combining_mark(*c)).map_or(text.len(), |(end, _)| at + end)
}

/// Several lines that are typed; there is always one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Editor {
    lines: Vec<String>,
    /// The cursor's line.
    line: usize,
    /// Octets before the cursor in it.
    at: usize,
    octets: usize,
}

impl Editor {
    /// With a text, the cursor before it.
    pub(super) fn new(text: &str) -> Self {
        let lines: Vec<_> =
            text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).into()).collect();
        let octets = lines.iter().map(|line: &String| line.len() + 1).sum();
        Self { lines, line: 0, at: 0, octets }
    }

    /// What was typed.
    pub(super) fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Its lines.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The cursor's line, and the octets before the cursor in it.
    pub(super) fn cursor(&self) -> (usize, usize) {
        (self.line, self.at)
    }

    /// Whether the text is as long as one may be here.
    pub(super) fn is_full(&self) -> bool {
        self.octets >= TEXT_MAX
    }

    /// Types a text.
    pub(super) fn insert(&mut self, text: &str) {
        for c in text.chars().filter(|c| *c != '\r') {
            if self.is_full() {
                return;
            }
            self.octets += c.len_utf8();
            if c == '\n' {
                let rest = self.lines[self.line].split_off(self.at);
                self.line += 1;
                self.at = 0;
                self.lines.insert(self.line, rest);
            } else {
                // Controls are typed nowhere; one that is pasted is shown, and leaves as it is.
                self.lines[self.line].insert(self.at, c);
                self.at += c.len_utf8();
            }
        }
    }

    /// Applies a key; `page` is the number of lines on the screen. Whether it meant something here.
    pub(super) fn press(&mut self, key: Key, page: usize) -> bool {
        let is_last = self.line + 1 == self.lines.len();
        let line = &mut self.lines[self.line];
        match key {
            Key::Char(c) => self.insert(c.encode_utf8(&mut [0; 4])),
            Key::Enter => self.insert("\n"),
            Key::Left if self.at == 0 && self.line > 0 => {
                self.line -= 1;
                self.at = self.lines[self.line].len();
            }
            Key::Left => self.at = previous(line, self.at),
            Key::Right if self.at == line.len() && !is_last => {
                self.line += 1;
                self.at = 0;
            }
            Key::Right => self.at = next(line, self.at),
            Key::Home | Key::Ctrl('a') => self.at = 0,
            Key::End | Key::Ctrl('e') => self.at = line.len(),
            Key::Up => self.go(self.line.saturating_sub(1)),
            Key::Down => self.go(self.line + 1),
            Key::PageUp | Key::F(7) => self.go(self.line.saturating_sub(page)),
            Key::PageDown | Key::F(8) => self.go(self.line + page),
            Key::Backspace if self.at == 0 => {
                if self.line > 0 {
                    let rest = self.lines.remove(self.line);
                    self.line -= 1;
                    self.at = self.lines[self.line].len();
                    self.lines[self.line].push_str(&rest);
                    self.octets -= 1;
                }
            }
            Key::Backspace => {
                let start = previous(line, self.at);
                self.octets -= line.drain(start..self.at).as_str().len();
                self.at = start;
            }
            Key::Delete if self.at == line.len() => {
                if !is_last {
                    let rest = self.lines.remove(self.line + 1);
                    self.lines[self.line].push_str(&rest);
                    self.octets -= 1;
                }
            }
            Key::Delete => {
                let end = next(line, self.at);
                self.octets -= line.drain(self.at..end).as_str().len();
            }
            // To the line's end, and at the end the line itself.
            Key::Ctrl('k') if self.at < line.len() => {
                self.octets -= line.len() - self.at;
                line.truncate(self.at);
            }
            Key::Ctrl('k') => return self.press(Key::Delete, page),
            Key::Ctrl('u') => {
                self.octets -= line.drain(..self.at).as_str().len();
                self.at = 0;
            }
            _ => return false,
        }
        true
    }

    /// To another line, as far in as here.
    fn go(&mut self, line: usize) {
        let characters = self.lines[self.line][..self.at].chars().count();
        self.line = line.min(self.lines.len() - 1);
        let text = &self.lines[self.line];
        self.at = text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    }
}

/// A line of text as rows of a screen, and where in them a place in the text is.
#[derive(Debug)]
pub(super) struct Rows {
    /// Each row as shown.
    pub(super) rows: Vec<String>,
    /// Row and column of the place that was asked for.
    pub(super) place: (usize, usize),
}

impl Rows {
    /// Of one line; `at` is the place, as octets of the line before it.
    pub(super) fn of(line: &str, at: usize, columns: usize, repertoire: Repertoire) -> Self {
        let columns = columns.max(2);
        let (mut rows, mut row, mut used, mut marks) = (Vec::new(), String::new(), 0, 0);
        let mut place = None;
        for (start, c) in line.char_indices() {
            marks = if is_combining_mark(c) { marks + 1 } else { 0 };
            let shown = match c {
                ' '..='~' => c.to_string(),
                '\t' => "    ".into(),
                _ if marks > COMBINING_MAX => String::new(),
                c => repertoire.line(c.encode_utf8(&mut [0; 4])),
            };
            let wide: usize = shown.chars().map(char_width).sum();
            if used + wide > columns {
                rows.push(std::mem::take(&mut row));
                used = 0;
            }
            if place.is_none() && start >= at {
                place = Some((rows.len(), used));
            }
            row.push_str(&shown);
            used += wide;
        }
        if used == columns {
            rows.push(std::mem::take(&mut row));
            used = 0;
        }
        let place = place.unwrap_or((rows.len(), used));
        // A row for a cursor behind a full one, and no other empty row.
        if !row.is_empty() || rows.is_empty() || place.0 == rows.len() {
            rows.push(row);
        }
        Self { rows, place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(editor: &mut Editor, keys: &[Key]) {
        for key in keys {
            assert!(editor.press(*key, 5), "{key:?}");
        }
    }

    #[test]
    fn a_field_is_typed_and_corrected() {
        let mut field = Field::new("bob");
        for key in [Key::Char(','), Key::Char('x'), Key::Left, Key::Backspace, Key::Home, Key::Delete] {
            assert!(field.press(key));
        }
        assert_eq!((field.text(), field.before()), ("obx", ""));
        field.press(Key::End);
        field.insert("\r\ny");
        assert_eq!(field.text(), "obx  y");
        field.press(Key::Ctrl('w'));
        assert_eq!(field.text(), "obx  ");
        field.press(Key::Ctrl('u'));
        assert_eq!(field.text(), "");
        assert!(!field.press(Key::Enter) && !field.press(Key::F(3)));
        field.insert(&"x".repeat(FIELD_MAX + 5));
        assert_eq!(field.text().len(), FIELD_MAX);
    }

    #[test]
    fn a_character_goes_with_its_marks() {
        let mut field = Field::new("ae\u{301}\u{302}b");
        field.press(Key::Left);
        field.press(Key::Backspace);
        assert_eq!(field.text(), "ab");
        let mut editor = Editor::new("e\u{301}x");
        typed(&mut editor, &[Key::Delete]);
        assert_eq!(editor.text(), "x");
    }

    #[test]
    fn a_text_is_typed_and_corrected() {
        let mut editor = Editor::new("one\r\ntwo\nthree");
        typed(&mut editor, &[Key::Down, Key::End, Key::Enter, Key::Char('x'), Key::Up, Key::Home]);
        assert_eq!(editor.text(), "one\ntwo\nx\nthree");
        assert_eq!(editor.cursor(), (1, 0));
        typed(&mut editor, &[Key::Backspace, Key::Ctrl('k'), Key::Delete]);
        assert_eq!(editor.text(), "onex\nthree");
        typed(&mut editor, &[Key::Right, Key::Right, Key::Left, Key::Ctrl('k')]);
        assert_eq!(editor.text(), "onexthree");
        assert_eq!(editor.cursor(), (0, 4));
        typed(&mut editor, &[Key::PageDown, Key::PageUp, Key::Ctrl('u')]);
        assert_eq!(editor.text(), "three");
        assert_eq!(Editor::new("").text(), "");
    }

    #[test]
    fn a_text_has_an_end_and_knows_its_length() {
        let mut editor = Editor::new("");
        editor.insert(&"x\n".repeat(TEXT_MAX));
        assert!(editor.is_full() && editor.text().len() <= TEXT_MAX);
        editor.press(Key::Backspace, 5);
        assert!(!editor.is_full());
        editor.insert("yy");
        assert!(editor.is_full());
    }

    #[test]
    fn a_place_in_the_text_is_found_on_the_screen() {
        let place = |line: &str, at: usize| {
            let Rows { rows, place } = Rows::of(line, at, 4, Repertoire::Unicode);
            (rows.join("|"), place)
        };
        assert_eq!(place("", 0), (String::new(), (0, 0)));
        assert_eq!(place("abcdef", 5), ("abcd|ef".into(), (1, 1)));
        assert_eq!(place("abcd", 4), ("abcd|".into(), (1, 0)));
        assert_eq!(place("abcd", 1), ("abcd".into(), (0, 1)));
        assert_eq!(place("a日本", 4), ("a日|本".into(), (1, 0)));
        assert_eq!(place("\tx", 1), ("    |x".into(), (1, 0)));
        let hostile = format!("\x1b[2J\u{202e}e{}", "\u{301}".repeat(5000));
        let (shown, _) = place(&hostile, 0);
        assert_eq!(shown, format!("␛[2J|e{}", "\u{301}".repeat(COMBINING_MAX)));
        assert_eq!(Rows::of("é\x1b", 0, 4, Repertoire::Ascii).rows, ["e^["]);
    }
}
