//! The name under which an attachment is kept as a file, made of the one that its sender gave it.
//!
//! The same on every platform, so that the strictest rules of each hold: no separators of folders, no
//! characters that a shell, a terminal or a file system takes for something else, no names of devices,
//! no hidden files, no options, and short enough for any disk. What is left out is only what a reader
//! could not see; what a reader could see and a disk cannot hold becomes `_`.

use unicode_normalization::UnicodeNormalization;

use super::terminal;

/// Octets of a file name in UTF-8, so that a number still fits beside it.
pub const FILE_NAME_MAX: usize = 200;
/// Octets of an ending that is kept when a name is cut.
const ENDING_MAX: usize = 16;

/// Names that are devices on some systems, whatever their ending.
const DEVICES: [&str; 7] = ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"];
/// Names that are devices if one digit follows.
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];

/// Media types and the endings of their files; of a kind before the slash alone, what it is called.
const ENDINGS: [(&str, &str); 44] = [
    ("application/gzip", "gz"),
    ("application/json", "json"),
    ("application/ms-tnef", "dat"),
    ("application/msword", "doc"),
    ("application/ogg", "ogg"),
    ("application/pdf", "pdf"),
    ("application/pgp-encrypted", "asc"),
    ("application/pgp-keys", "asc"),
    ("application/pgp-signature", "asc"),
    ("application/pkcs7-mime", "p7m"),
    ("application/pkcs7-signature", "p7s"),
    ("application/postscript", "ps"),
    ("application/rtf", "rtf"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.ms-powerpoint", "ppt"),
    ("application/vnd.oasis.opendocument.spreadsheet", "ods"),
    ("application/vnd.oasis.opendocument.text", "odt"),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/x-pkcs7-mime", "p7m"),
    ("application/x-pkcs7-signature", "p7s"),
    ("application/xml", "xml"),
    ("application/zip", "zip"),
    ("audio/mpeg", "mp3"),
    ("audio/ogg", "ogg"),
    ("image/bmp", "bmp"),
    ("image/gif", "gif"),
    ("image/jpeg", "jpg"),
    ("image/jpg", "jpg"),
    ("image/png", "png"),
    ("image/svg+xml", "svg"),
    ("image/tiff", "tif"),
    ("image/webp", "webp"),
    ("text/calendar", "ics"),
    ("text/csv", "csv"),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/rfc822-headers", "txt"),
    ("text/vcard", "vcf"),
    ("text/x-vcard", "vcf"),
    ("text/xml", "xml"),
    ("video/mp4", "mp4"),
    ("video/quicktime", "mov"),
];

/// The name of a file for an attachment: its own, made safe, or else one made of its media type and of
/// `number`, which is made of digits and full stops.
pub fn file_name(name: Option<&str>, content_type: &str, number: &str) -> String {
    name.map(safe).filter(|name| !name.is_empty()).unwrap_or_else(|| made_up(content_type, number))
}

fn made_up(content_type: &str, number: &str) -> String {
    let (word, ending) = match content_type {
        "message/rfc822" | "message/global" => ("message", "eml"),
        "message/delivery-status" | "message/global-delivery-status" => ("delivery-status", "txt"),
        "multipart/related" => ("page", "mht"),
        "multipart/signed" => ("signed", "eml"),
        "multipart/encrypted" => ("encrypted", "eml"),
        _ => {
            let kind = content_type.split('/').next().unwrap_or_default();
            let word = if ["audio", "image", "text", "video"].contains(&kind) { kind } else { "attachment" };
            let known = ENDINGS.iter().find(|(known, _)| *known == content_type);
            let unknown = if word == "text" { "txt" } else { "bin" };
            (word, known.map_or(unknown, |(_, ending)| ending))
        }
    };
    format!("{word}-{number}.{ending}")
}

/// The name without anything that could do harm; empty if nothing is left.
fn safe(name: &str) -> String {
    let mut safe = String::new();
    let mut marks = 0;
    let visible = name.chars().filter(|c| !terminal::is_invisible(*c));
    for c in visible.nfc() {
        marks = if unicode_normalization::char::is_combining_mark(c) { marks + 1 } else { 0 };
        match c {
            _ if marks > terminal::COMBINING_MAX => {}
            // Several blanks look like one.
            c if c.is_whitespace() && safe.ends_with(' ') => {}
            c if c.is_whitespace() => safe.push(' '),
            c if c.is_control() || "/\\:*?\"<>|".contains(c) => safe.push('_'),
            c => safe.push(c),
        }
    }
    // A name that begins with a full stop is hidden, and one that ends with one is another on some systems.
    let is_edge = |c: char| c == '.' || c == ' ';
    let mut safe = cut(safe.trim_matches(is_edge)).trim_end_matches(is_edge).to_owned();
    if safe.starts_with(['-', '~']) || is_device(&safe) {
        safe.insert(0, '_');
    }
    safe
}

/// Cut to [`FILE_NAME_MAX`] octets; a usual ending stays.
fn cut(name: &str) -> String {
    // One octet is kept for what may come before the name.
    let room = FILE_NAME_MAX - 1;
    if name.len() <= room {
        return name.to_owned();
    }
    let ending = name.rfind('.').map_or("", |at| &name[at..]);
    let ending = if ending.len() <= ENDING_MAX { ending } else { "" };
    let stem = &name[..name.floor_char_boundary(room - ending.len())];
    format!("{stem}{ending}")
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let digit = |rest: &str| {
        let mut characters = rest.chars();
        matches!((characters.next(), characters.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    };
    DEVICES.contains(&stem.as_str())
        || NUMBERED_DEVICES.iter().any(|device| stem.strip_prefix(device).is_some_and(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_where_they_can_be() {
        for name in [
            "report.pdf",
            "Jahresbericht – Größe (2).ods",
            "日本語の名前.txt",
            "no ending",
            "a.tar.gz",
            "😀.png",
        ] {
            assert_eq!(file_name(Some(name), "application/pdf", "1"), name);
        }
    }

    #[test]
    fn names_that_could_do_harm_cannot() {
        let long = "x".repeat(10_000);
        let long_kept = "x".repeat(195) + ".pdf";
        let wide_kept = "本".repeat(65) + ".txt";
        for (name, expected) in [
            ("/etc/passwd", "_etc_passwd"),
            ("../../.ssh/authorized_keys", "_.._.ssh_authorized_keys"),
            (r"..\..\win.ini", r"_.._win.ini"),
            (r"C:\Users\x\a.doc", "C__Users_x_a.doc"),
            ("file.txt:stream", "file.txt_stream"),
            (".bashrc", "bashrc"),
            ("...hidden. . .", "hidden"),
            (" a  \t b.txt ", "a b.txt"),
            ("a\r\nb\0c\x1b[2J\u{9b}.txt", "a b_c_[2J_.txt"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("z\u{200b}e\u{feff}r\u{ad}o\u{e0041}.txt", "zero.txt"),
            ("cafe\u{301}.txt", "café.txt"),
            ("line\u{2028}sep\u{a0}nbsp.txt", "linesep nbsp.txt"),
            ("CON", "_CON"),
            ("nul.tar.gz", "_nul.tar.gz"),
            ("Com1 .txt", "_Com1 .txt"),
            ("LPT³", "_LPT³"),
            ("com10.txt", "com10.txt"),
            ("console.txt", "console.txt"),
            ("CONIN$", "_CONIN$"),
            ("-rf *", "_-rf _"),
            ("~root", "_~root"),
            ("a|b<c>d\"e?f*g", "a_b_c_d_e_f_g"),
            (&format!("{long}.pdf"), &long_kept),
            (&format!("{}.txt", "本".repeat(3_000)), &wide_kept),
            (&format!("{}.{}", "a".repeat(300), "b".repeat(300)), &"a".repeat(199)),
        ] {
            let safe = file_name(Some(name), "application/pdf", "1");
            assert_eq!(safe, *expected, "{name:?}");
            assert_eq!(file_name(Some(&safe), "application/pdf", "1"), safe, "safe once is safe twice");
        }
    }

    #[test]
    fn what_has_no_name_is_given_one() {
        for (name, content_type, number, expected) in [
            (None, "application/pdf", "1", "attachment-1.pdf"),
            (Some(""), "image/jpeg", "2", "image-2.jpg"),
            (Some(".."), "text/plain", "3", "text-3.txt"),
            (Some("\u{202e}"), "text/x-strange", "4", "text-4.txt"),
            (Some("/"), "application/x-strange", "5", "_"),
            (None, "application/x-strange", "5", "attachment-5.bin"),
            (None, "message/rfc822", "2.1", "message-2.1.eml"),
            (None, "multipart/related", "1", "page-1.mht"),
            (None, "multipart/signed", "1", "signed-1.eml"),
            (None, "", "1", "attachment-1.bin"),
        ] {
            assert_eq!(file_name(name, content_type, number), expected);
        }
    }

    #[test]
    fn no_name_is_harmful() {
        let everything: Vec<char> = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        for characters in everything.chunks(64) {
            let safe = file_name(Some(&characters.iter().collect::<String>()), "", "1");
            assert!(safe.len() <= FILE_NAME_MAX && !safe.starts_with(['.', '-', '~', ' ']), "{safe:?}");
            assert!(!safe.ends_with(['.', ' ']), "{safe:?}");
            assert!(!safe.contains(|c: char| c.is_control() || "/\\:*?\"<>|".contains(c)), "{safe:?}");
            assert_eq!(terminal::safe_line(&safe), safe);
        }
    }
}
