//! Text of others, made safe for a terminal.
//!
//! What comes out holds printable characters, blanks and (from [`safe`]) line feeds: nothing that
//! moves the cursor, sets a title, touches the clipboard, turns the line around, hides, or piles up.
//! Control characters are shown as pictures, so that a reader sees that something was there.

use unicode_normalization::char::is_combining_mark;

/// Marks on one character; living languages need three or four.
pub const COMBINING_MAX: usize = 8;
/// Columns that a tab advances to a multiple of.
const TAB: usize = 8;

/// A text of several lines, made safe; lines end in LF.
pub fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            safe.push('\n');
        }
        push_line(line.strip_suffix('\r').unwrap_or(line), &mut safe);
    }
    safe
}

/// A text for one line, made safe: a line break in it is shown as a picture.
pub fn safe_line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    push_line(text, &mut safe);
    safe
}

fn push_line(line: &str, safe: &mut String) {
    let mut column = 0_usize;
    let mut marks = 0;
    for c in line.chars().filter(|c| !is_invisible(*c)) {
        if is_combining_mark(c) {
            marks += 1;
            if marks <= COMBINING_MAX {
                safe.push(c);
            }
            continue;
        }
        marks = 0;
        match c {
            '\t' => {
                let blanks = TAB - column % TAB;
                safe.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
                continue;
            }
            '\u{0}'..='\u{1f}' => safe.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
            '\u{7f}' => safe.push('\u{2421}'),
            '\u{80}'..='\u{9f}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
        column += 1;
    }
}

/// Characters that show nothing and change what is around them: directions, joiners, fillers, tags,
/// line separators, noncharacters.
pub(super) fn is_invisible(c: char) -> bool {
    let noncharacter = u32::from(c) & 0xfffe == 0xfffe;
    noncharacter
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fdd0}'..='\u{fdef}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_the_terminal() {
        for (text, expected) in [
            ("plain, café, 日本, 😀", "plain, café, 日本, 😀"),
            ("\x1b[2J", "␛[2J"),
            ("\x1b]0;title\x07", "␛]0;title␇"),
            ("\x1b]52;c;aGk=\x1b\\", "␛]52;c;aGk=␛\\"),
            ("\x1b]8;;http://x\x1b\\here", "␛]8;;http://x␛\\here"),
            ("\u{9b}2J\u{90}q\u{9d}", "\u{fffd}2J\u{fffd}q\u{fffd}"),
            ("good\rbad", "good␍bad"),
            ("a\u{8}\u{7f}\0", "a␈␡␀"),
            ("a\u{202e}b\u{2066}c\u{200f}d", "abcd"),
            ("a\u{200b}\u{feff}\u{ad}b\u{2028}c\u{e0041}\u{ffff}", "abc"),
        ] {
            assert_eq!(safe(text), expected);
            assert_eq!(safe_line(text), expected);
        }
    }

    #[test]
    fn lines_and_tabs_stay_readable() {
        assert_eq!(safe("a\r\nb\n\tc\nab\td"), "a\nb\n        c\nab      d");
        assert_eq!(safe_line("a\r\nb\tc"), "a␍␊b    c");
    }

    #[test]
    fn marks_do_not_pile_up() {
        let piled = format!("e{}x", "\u{301}".repeat(10_000));
        assert_eq!(safe(&piled), format!("e{}x", "\u{301}".repeat(COMBINING_MAX)));
    }

    #[test]
    fn every_character_that_comes_out_is_harmless() {
        let everything: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        assert!(safe(&everything).chars().all(|c| c == '\n' || !c.is_control() && !is_invisible(c)));
    }
}
