//! Text from mainframes: EBCDIC code pages 037, 500 and 1047 as Unicode.
//!
//! Each of the three has the characters of ISO 8859-1, one octet for one character, in an order of its
//! own. Those of 037 are a table, the other two are where they differ from it.

use std::str::FromStr;

/// Characters of code page 037, which are those of ISO 8859-1, by octet.
const CP037: [u8; 256] = [
    0x00, 0x01, 0x02, 0x03, 0x9c, 0x09, 0x86, 0x7f, 0x97, 0x8d, 0x8e, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, //
    0x10, 0x11, 0x12, 0x13, 0x9d, 0x85, 0x08, 0x87, 0x18, 0x19, 0x92, 0x8f, 0x1c, 0x1d, 0x1e, 0x1f, //
    0x80, 0x81, 0x82, 0x83, 0x84, 0x0a, 0x17, 0x1b, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x05, 0x06, 0x07, //
    0x90, 0x91, 0x16, 0x93, 0x94, 0x95, 0x96, 0x04, 0x98, 0x99, 0x9a, 0x9b, 0x14, 0x15, 0x9e, 0x1a, //
    0x20, 0xa0, 0xe2, 0xe4, 0xe0, 0xe1, 0xe3, 0xe5, 0xe7, 0xf1, 0xa2, 0x2e, 0x3c, 0x28, 0x2b, 0x7c, //
    0x26, 0xe9, 0xea, 0xeb, 0xe8, 0xed, 0xee, 0xef, 0xec, 0xdf, 0x21, 0x24, 0x2a, 0x29, 0x3b, 0xac, //
    0x2d, 0x2f, 0xc2, 0xc4, 0xc0, 0xc1, 0xc3, 0xc5, 0xc7, 0xd1, 0xa6, 0x2c, 0x25, 0x5f, 0x3e, 0x3f, //
    0xf8, 0xc9, 0xca, 0xcb, 0xc8, 0xcd, 0xce, 0xcf, 0xcc, 0x60, 0x3a, 0x23, 0x40, 0x27, 0x3d, 0x22, //
    0xd8, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0xab, 0xbb, 0xf0, 0xfd, 0xfe, 0xb1, //
    0xb0, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0xaa, 0xba, 0xe6, 0xb8, 0xc6, 0xa4, //
    0xb5, 0x7e, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0xa1, 0xbf, 0xd0, 0xdd, 0xde, 0xae, //
    0x5e, 0xa3, 0xa5, 0xb7, 0xa9, 0xa7, 0xb6, 0xbc, 0xbd, 0xbe, 0x5b, 0x5d, 0xaf, 0xa8, 0xb4, 0xd7, //
    0x7b, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0xad, 0xf4, 0xf6, 0xf2, 0xf3, 0xf5, //
    0x7d, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0xb9, 0xfb, 0xfc, 0xf9, 0xfa, 0xff, //
    0x5c, 0xf7, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0xb2, 0xd4, 0xd6, 0xd2, 0xd3, 0xd5, //
    0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0xb3, 0xdb, 0xdc, 0xd9, 0xda, 0x9f, //
];
/// Where code page 500 differs: octet and character.
const CP500: [(u8, u8); 7] =
    [(0x4a, b'['), (0x4f, b'!'), (0x5a, b']'), (0x5f, b'^'), (0xb0, 0xa2), (0xba, 0xac), (0xbb, b'|')];
/// Where code page 1047 differs: octet and character.
const CP1047: [(u8, u8); 6] =
    [(0x5f, b'^'), (0xad, b'['), (0xb0, 0xac), (0xba, 0xdd), (0xbb, 0xa8), (0xbd, b']')];

/// An EBCDIC code page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodePage {
    /// USA, Canada.
    Cp037,
    /// International.
    Cp500,
    /// Open systems (z/OS UNIX).
    Cp1047,
}

/// What is no code page of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the code pages are 037, 500 and 1047")]
pub struct NotACodePage;

impl FromStr for CodePage {
    type Err = NotACodePage;

    fn from_str(text: &str) -> Result<Self, NotACodePage> {
        match text {
            "037" | "37" => Ok(Self::Cp037),
            "500" => Ok(Self::Cp500),
            "1047" => Ok(Self::Cp1047),
            _ => Err(NotACodePage),
        }
    }
}

/// Why records are not lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{octets} octets are not whole records of {record_length}: give the file's own record length")]
pub struct NotRecords {
    octets: usize,
    record_length: usize,
}

impl CodePage {
    /// The character of an octet.
    fn character(self, octet: u8) -> char {
        let differing: &[(u8, u8)] = match self {
            Self::Cp037 => &[],
            Self::Cp500 => &CP500,
            Self::Cp1047 => &CP1047,
        };
        let differs = differing.iter().find(|(known, _)| *known == octet);
        char::from(differs.map_or(CP037[usize::from(octet)], |(_, character)| *character))
    }

    /// The text of a file as lines that end in CRLF.
    ///
    /// Its lines end in NL (0x15), in LF (0x25), in CR and LF, or in CR and NL, as they do in streams;
    /// with a record length, in octets and not 0, each record is a line, and the blanks that fill it up
    /// are left out. What ends a line elsewhere is a blank within a record.
    pub fn text(self, file: &[u8], record_length: Option<usize>) -> Result<String, NotRecords> {
        const NEXT_LINE: char = '\u{85}';
        // The translated text is longer, by the characters beyond ASCII and by the line ends.
        let mut text = String::with_capacity(file.len() + file.len() / 8);
        let Some(record_length) = record_length else {
            let mut characters = file.iter().map(|octet| self.character(*octet)).peekable();
            while let Some(c) = characters.next() {
                match c {
                    '\r' if characters.next_if(|next| matches!(next, '\n' | &NEXT_LINE)).is_some() => {
                        text.push_str("\r\n");
                    }
                    '\n' | NEXT_LINE => text.push_str("\r\n"),
                    c => text.push(c),
                }
            }
            return Ok(text);
        };
        if record_length == 0 || !file.len().is_multiple_of(record_length) {
            return Err(NotRecords { octets: file.len(), record_length });
        }
        for record in file.chunks(record_length) {
            let characters = record.iter().map(|octet| self.character(*octet));
            let line: String =
                characters.map(|c| if matches!(c, '\r' | '\n' | NEXT_LINE) { ' ' } else { c }).collect();
            text.push_str(line.trim_end_matches(' '));
            text.push_str("\r\n");
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CodePage; 3] = [CodePage::Cp037, CodePage::Cp500, CodePage::Cp1047];

    /// The octet of a character: the other way round, for comparison.
    fn octet(page: CodePage, character: char) -> u8 {
        (0..=255).find(|octet| page.character(*octet) == character).expect("each page has all of ISO 8859-1")
    }

    #[test]
    fn every_character_of_latin_1_is_there_once() {
        for page in ALL {
            let mut characters: Vec<u32> = (0..=255).map(|octet| u32::from(page.character(octet))).collect();
            characters.sort_unstable();
            assert!(characters.into_iter().eq(0..256), "{page:?}");
            for n in 0..=255_u8 {
                assert_eq!(page.character(octet(page, char::from(n))), char::from(n));
            }
        }
    }

    /// As IBM's Character Data Representation Architecture lists them.
    #[test]
    fn the_characters_are_where_ibm_has_put_them() {
        for page in ALL {
            // The syntactic character set, which is the same in every EBCDIC.
            let runs = [(0x81, "abcdefghi"), (0x91, "jklmnopqr"), (0xa2, "stuvwxyz")];
            let same = [
                (0x40, " "),
                (0x4b, ".<(+"),
                (0x50, "&"),
                (0x5c, "*);"),
                (0x60, "-/"),
                (0x6b, ",%_>?"),
                (0x7a, ":"),
                (0x7d, "'=\""),
                (0xf0, "0123456789"),
            ];
            for (start, run) in runs.into_iter().chain(same) {
                for (octet, expected) in (start..).zip(run.chars()) {
                    assert_eq!(page.character(octet), expected, "{page:?} {octet:02x}");
                    // Capitals are 0x40 above.
                    if expected.is_ascii_lowercase() {
                        assert_eq!(page.character(octet + 0x40), expected.to_ascii_uppercase());
                    }
                }
            }
            let controls = [
                (0x05, '\t'),
                (0x0c, '\u{c}'),
                (0x0d, '\r'),
                (0x15, '\u{85}'),
                (0x25, '\n'),
                (0x27, '\x1b'),
                (0x3f, '\x1a'),
            ];
            for (octet, control) in controls {
                assert_eq!(page.character(octet), control);
            }
        }
        // Those that vary: in each page, the octets of ! [ ] ^ | and of ¢ ¬ ¨ Ý.
        for (page, octets) in [
            (CodePage::Cp037, [0x5a, 0xba, 0xbb, 0xb0, 0x4f, 0x4a, 0x5f, 0xbd, 0xad]),
            (CodePage::Cp500, [0x4f, 0x4a, 0x5a, 0x5f, 0xbb, 0xb0, 0xba, 0xbd, 0xad]),
            (CodePage::Cp1047, [0x5a, 0xad, 0xbd, 0x5f, 0x4f, 0x4a, 0xb0, 0xbb, 0xba]),
        ] {
            assert_eq!("![]^|¢¬¨Ý".chars().map(|c| octet(page, c)).collect::<Vec<_>>(), octets, "{page:?}");
        }
    }

    /// All 256 of each page, against the C library's tables, where its program is.
    #[test]
    fn the_tables_are_those_of_others() {
        for (page, name) in ALL.into_iter().zip(["IBM037", "IBM500", "IBM1047"]) {
            let all = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(&all, (0..=255).collect::<Vec<u8>>()).expect("written");
            let iconv = std::process::Command::new("iconv")
                .args(["-f", name, "-t", "UTF-8"])
                .arg(all.path())
                .output();
            let Ok(theirs) = iconv else {
                println!("skipped: there is no iconv to compare with");
                return;
            };
            assert!(theirs.status.success(), "{theirs:?}");
            let ours: String = (0..=255).map(|octet| page.character(octet)).collect();
            assert_eq!(String::from_utf8(theirs.stdout).expect("UTF-8"), ours, "{name}");
        }
    }

    fn written(page: CodePage, text: &str) -> Vec<u8> {
        text.chars().map(|c| octet(page, c)).collect()
    }

    #[test]
    fn lines_end_in_many_ways() {
        for page in ALL {
            let file = written(page, "a\u{85}b\nc\r\nd\r\u{85}\u{85}e\rf\u{c}Größe [x]");
            let text = page.text(&file, None);
            assert_eq!(text.as_deref(), Ok("a\r\nb\r\nc\r\nd\r\n\r\ne\rf\u{c}Größe [x]"));
        }
        assert_eq!(CodePage::Cp037.text(b"", None).as_deref(), Ok(""));
    }

    #[test]
    fn records_become_lines() {
        let file = written(CodePage::Cp1047, "ABC  [\n]  END  ");
        let text = CodePage::Cp1047.text(&file, Some(5));
        assert_eq!(text.as_deref(), Ok("ABC\r\n[ ]\r\nEND\r\n"));
        let refused = CodePage::Cp1047.text(&file[..14], Some(5)).expect_err("a rest");
        assert_eq!(
            refused.to_string(),
            "14 octets are not whole records of 5: give the file's own record length"
        );
        assert!(CodePage::Cp1047.text(&file, Some(0)).is_err());
        assert_eq!(CodePage::Cp037.text(b"", Some(80)).as_deref(), Ok(""));
    }

    #[test]
    fn pages_are_called_by_their_numbers() {
        assert_eq!(
            ["037", "37", "500", "1047"].map(str::parse),
            [Ok(ALL[0]), Ok(ALL[0]), Ok(ALL[1]), Ok(ALL[2])]
        );
        assert_eq!("1140".parse::<CodePage>(), Err(NotACodePage));
    }
}
