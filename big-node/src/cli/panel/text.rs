//! Text of others, made fit for the screen: harmless, in characters that the terminal has, in lines of its
//! width.
//!
//! What may be shown at all is decided by [`terminal`]; here only columns are counted. Characters about whose
//! columns terminals disagree are left out, or the rest of their line would stand elsewhere than we think.

use shared::mime::terminal;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_width::UnicodeWidthChar;

/// The characters that a terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repertoire {
    /// All of them.
    Unicode,
    /// Those of ASCII: others are shown as the letters they are made of, or as `?`.
    Ascii,
}

impl Repertoire {
    /// A text for one line.
    pub(super) fn line(self, text: &str) -> String {
        self.shown(&terminal::safe_line(text))
    }

    /// A text of several lines.
    pub(super) fn text(self, text: &str) -> String {
        self.shown(&terminal::safe(text))
    }

    fn shown(self, safe: &str) -> String {
        let settled = safe.chars().filter(|c| !is_unsettled(*c));
        match self {
            Self::Unicode => settled.collect(),
            Self::Ascii => {
                let mut ascii = String::with_capacity(safe.len());
                settled.nfd().for_each(|c| push_ascii(c, &mut ascii));
                ascii
            }
        }
    }

    /// A horizontal line.
    pub(super) fn rule(self) -> &'static str {
        match self {
            Self::Unicode => "─",
            Self::Ascii => "-",
        }
    }

    /// What stands for a text's missing end.
    pub(super) fn ellipsis(self) -> &'static str {
        match self {
            Self::Unicode => "…",
            Self::Ascii => "~",
        }
    }

    /// A text for one line in exactly `columns`: cut, or filled up with blanks.
    pub(super) fn cell(self, text: &str, columns: usize) -> String {
        let shown = self.line(text);
        let cut = self.cut(&shown, columns);
        let blanks = columns.saturating_sub(width(&cut));
        cut + &" ".repeat(blanks)
    }

    /// A shown text in at most `columns`.
    pub(super) fn cut(self, shown: &str, columns: usize) -> String {
        if width(shown) <= columns {
            return shown.to_owned();
        }
        let Some(room) = columns.checked_sub(1) else { return String::new() };
        let (start, _) = shown.split_at(fitting(shown, room));
        format!("{start}{}", self.ellipsis())
    }

    /// A text's lines, none wider than `columns`.
    pub(super) fn wrapped(self, text: &str, columns: usize) -> Vec<String> {
        self.text(text).split('\n').flat_map(|line| wrap(line, columns)).collect()
    }
}

/// Characters that change the columns of what stands before them, in some terminals only: variation
/// selectors and the tones of emoji.
fn is_unsettled(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
}

/// What typewriters have no key for.
fn push_ascii(c: char, ascii: &mut String) {
    match c {
        '\n' | ' '..='~' => ascii.push(c),
        '\u{2400}'..='\u{241f}' => {
            // The picture of a control character.
            ascii.push('^');
            ascii.push(char::from_u32(u32::from(c) - 0x2400 + 0x40).unwrap_or('?'));
        }
        '\u{2421}' => ascii.push_str("^?"),
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => ascii.push(' '),
        '‘' | '’' | '‚' | '′' => ascii.push('\''),
        '“' | '”' | '„' | '«' | '»' => ascii.push('"'),
        '‐'..='―' | '−' | '─' => ascii.push('-'),
        '•' | '·' => ascii.push('*'),
        '…' => ascii.push_str("..."),
        'ß' => ascii.push_str("ss"),
        'Æ' => ascii.push_str("AE"),
        'æ' => ascii.push_str("ae"),
        'Œ' => ascii.push_str("OE"),
        'œ' => ascii.push_str("oe"),
        'Ø' => ascii.push('O'),
        'ø' => ascii.push('o'),
        'Ł' => ascii.push('L'),
        'ł' => ascii.push('l'),
        'Đ' | 'Ð' => ascii.push('D'),
        'đ' | 'ð' => ascii.push('d'),
        'ı' => ascii.push('i'),
        '€' => ascii.push_str("EUR"),
        // Of a Korean syllable, which was taken apart, only the first letter counts.
        '\u{1160}'..='\u{11ff}' => {}
        c if is_combining_mark(c) => {}
        _ => ascii.push('?'),
    }
}

/// Columns of a character; what has none of its own joins the one before it.
pub(super) fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Columns of a shown text.
pub(super) fn width(shown: &str) -> usize {
    shown.chars().map(char_width).sum()
}

/// The octets of `shown` that fit into `columns`, marks of the last character included.
pub(super) fn fitting(shown: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, c) in shown.char_indices() {
        used += char_width(c);
        if used > columns {
            return at;
        }
    }
    shown.len()
}

/// A shown line as lines of at most `columns`, broken at blanks where there are any; each takes at least one
/// character.
pub(super) fn wrap(line: &str, columns: usize) -> Vec<String> {
    let mut rest = line;
    let mut lines = Vec::new();
    loop {
        let fits = fitting(rest, columns);
        if fits == rest.len() {
            lines.push(rest.trim_end_matches(' ').to_owned());
            return lines;
        }
        let first = rest.chars().next().map_or(0, char::len_utf8);
        // A blank right behind what fits is a good place, too.
        let blank = rest.get(..fits.saturating_add(1)).unwrap_or(&rest[..fits]).rfind(' ');
        let (at, skipped) = match blank {
            // Blanks that a line begins with are its indentation.
            Some(at) if !rest[..at].trim_start().is_empty() => (at, 1),
            _ => (fits.max(first), 0),
        };
        lines.push(rest[..at].trim_end_matches(' ').to_owned());
        rest = &rest[at + skipped..];
        if rest.is_empty() {
            return lines;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_drives_the_terminal() {
        let hostile = "a\x1b[2Jb\u{202e}c\u{9b}d\u{200b}e\re\u{301}\u{301}";
        assert_eq!(Repertoire::Unicode.line(hostile), "a␛[2Jbc\u{fffd}de␍e\u{301}\u{301}");
        assert_eq!(Repertoire::Ascii.line(hostile), "a^[[2Jbc?de^Me");
        let everything: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let ascii = Repertoire::Ascii.text(&everything);
        assert!(ascii.chars().all(|c| c == '\n' || (' '..='~').contains(&c)));
        let unicode = Repertoire::Unicode.text(&everything);
        assert!(unicode.chars().all(|c| c == '\n' || !c.is_control() && !is_unsettled(c)));
    }

    #[test]
    fn without_unicode_letters_are_what_they_are_made_of() {
        assert_eq!(
            Repertoire::Ascii.line("Café Łódź, “straße” – 日本… 😀"),
            "Cafe Lodz, \"strasse\" - ??... ?"
        );
    }

    #[test]
    fn cells_have_their_columns_whatever_is_in_them() {
        for (text, expected) in [
            ("abc", "abc  "),
            ("abcdef", "abcd…"),
            ("日本語", "日本…"),
            ("a日本語", "a日… "),
            ("e\u{301}\u{301}abcdef", "e\u{301}\u{301}abc…"),
            ("👍🏽👍🏽", "👍👍 "),
            ("☺\u{fe0f}b", "☺b   "),
            ("", "     "),
        ] {
            let cell = Repertoire::Unicode.cell(text, 5);
            assert_eq!(cell, expected);
            assert_eq!(width(&cell), 5, "{text}");
        }
        assert_eq!(Repertoire::Ascii.cell("abcdef", 5), "abcd~");
        assert_eq!(Repertoire::Unicode.cell("abc", 0), "");
    }

    #[test]
    fn lines_are_wrapped_at_blanks_and_else_anywhere() {
        let wrapped = |text: &str| Repertoire::Unicode.wrapped(text, 10);
        assert_eq!(wrapped("one two three four"), ["one two", "three four"]);
        assert_eq!(wrapped("abcdefghijklm"), ["abcdefghij", "klm"]);
        assert_eq!(wrapped("  indented line"), ["  indented", "line"]);
        assert_eq!(wrapped("日本語日本語日"), ["日本語日本", "語日"]);
        assert_eq!(wrapped("a\n\nb"), ["a", "", "b"]);
        assert_eq!(wrapped(""), [""]);
        // A character wider than the line is not waited for.
        assert_eq!(Repertoire::Unicode.wrapped("日本", 1), ["日", "本"]);
        let long = "x".repeat(1_000_000);
        assert_eq!(Repertoire::Unicode.wrapped(&long, 80).len(), 12_500);
        assert!(wrapped(&format!("e{}", "\u{301}".repeat(100_000))).len() == 1);
    }
}
