use mail_parser::{MessageParser, MimeHeaders, PartType};

use super::*;
use crate::mime::scan;
use crate::smtp::tests::Random;

/// What becomes of a message that comes in these pieces.
fn reencoded(pieces: &[&[u8]]) -> Result<Vec<u8>, NotLines> {
    let (mut reencoding, mut out) = (Reencoding::new(), Vec::new());
    for piece in pieces {
        reencoding.push(piece, &mut out)?;
    }
    reencoding.finish(&mut out)?;
    Ok(out)
}

/// The same, which does not depend on where it is cut.
fn cut_anywhere(message: &[u8]) -> Result<Vec<u8>, NotLines> {
    let whole = reencoded(&[message]);
    for at in 0..=message.len() {
        let cut = reencoded(&[&message[..at], &message[at..]]);
        assert_eq!(cut, whole, "cut at {at}: {}", message.escape_ascii());
    }
    let octets: Vec<_> = message.chunks(1).collect();
    assert_eq!(reencoded(&octets), whole, "octet by octet: {}", message.escape_ascii());
    whole
}

/// The lines, with CRLF at the end of each.
fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn check(message: &str, expected: &str) {
    let out = cut_anywhere(&crlf(message)).expect("can be made lines");
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&crlf(expected)), "{message}");
}

/// Only CRLF ends a line, and there is no other CR, LF or NUL.
pub(in crate::mime) fn is_lines(octets: &[u8]) -> bool {
    let is_bare = |at: usize| match octets[at] {
        b'\r' => octets.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || octets[at - 1] != b'\r',
        octet => octet == 0,
    };
    !(0..octets.len()).any(is_bare)
}

const MIME: &str = "MIME-Version: 1.0\n";

/// A message whose parts stand between lines with `--b`.
fn mixed(parts: &str) -> String {
    format!("{MIME}Content-Type: multipart/mixed; boundary=b\n\n{parts}")
}

#[test]
fn octets_of_all_kinds_become_base64_and_come_back() {
    let octets: Vec<u8> = (0..=255).chain(*b"\r\n\n\r\r\n--\0").collect();
    let header =
        crlf(&format!("Subject: x\n{MIME}Content-Type: image/jpeg\nContent-Transfer-Encoding: binary\n\n"));
    let out = cut_anywhere(&[header, octets.clone()].concat()).expect("can be made lines");
    let text = String::from_utf8(out.clone()).expect("is ASCII");
    let expected = "Content-Type: image/jpeg\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQF";
    assert!(text.starts_with("Subject: x\r\nMIME-Version: 1.0\r\n") && text.contains(expected), "{text}");
    assert!(text.ends_with("\r\n") && text.lines().all(|line| line.len() <= 76), "{text}");
    let message = MessageParser::default().parse(&out).expect("is a message");
    assert_eq!(message.parts[0].contents(), octets);
    let own = scan(&out).expect("is simple");
    assert_eq!(own.parts[0].content(&out).as_ref(), octets);
}

#[test]
fn what_is_not_labelled_binary_stays_octet_by_octet() {
    for same in [
        "Subject: x\n\nbody\n",
        "Subject: x\n\nbody without an end",
        "Subject: only a header\n",
        "Subject: cut",
        "\nbody\n",
        "",
        &format!("{MIME}content-transfer-encoding:  7bit\n\n--b\n"),
        &mixed(
            "preamble\n--b\n\ntext\n--b\nContent-Transfer-Encoding: BASE64 (x)\n\nAAAA\n--b--\nepilogue\n--b\n",
        ),
        &mixed("--b\nContent-Transfer-Encoding: binary\n--b\nX: no body\n--b--"),
        &format!("{MIME}Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nAAAA\n"),
    ] {
        check(same, same);
    }
}

#[test]
fn labels_are_read_as_readers_read_them_and_written_plainly() {
    for label in [
        "Content-Transfer-Encoding: binary",
        "content-transfer-ENCODING:Binary",
        "Content-Transfer-Encoding : binary",
        "Content-Transfer-Encoding: (not\n base64) BINARY (at all)",
        "Content-Transfer-Encoding:\n\tbinary ; x=y",
    ] {
        check(
            &format!("{MIME}{label}\nX: y\n\n\n--\n"),
            &format!("{MIME}Content-Transfer-Encoding: base64\nX: y\n\nDQotLQ0K\n"),
        );
    }
    let twice = "Content-Transfer-Encoding: binary\nContent-Transfer-Encoding: binary\n";
    check(&format!("{twice}{MIME}\na"), &format!("{}{MIME}\nYQ==\n", twice.replace("binary", "base64")));
}

#[test]
fn each_part_is_encoded_by_itself_up_to_its_delimiter() {
    let binary = "Content-Transfer-Encoding: binary\n";
    let base64 = "Content-Transfer-Encoding: base64\n";
    for (parts, expected) in [
        (format!("--b\n{binary}\na\n--b--\n"), format!("--b\n{base64}\nYQ==\n--b--\n")),
        // The line's end before a delimiter is not content, another one is.
        (format!("--b\n{binary}\na\n\n--b--"), format!("--b\n{base64}\nYQ0K\n--b--")),
        // No content, with and without a line's end before the delimiter.
        (format!("--b\n{binary}\n\n--b--\n"), format!("--b\n{base64}\n\n--b--\n")),
        (format!("--b\n{binary}\n--b--\n"), format!("--b\n{base64}\n--b--\n")),
        // Blanks behind a delimiter belong to it; anything else does not.
        (format!("--b\n{binary}\na\n--b \t\n\ntext\n"), format!("--b\n{base64}\nYQ==\n--b \t\n\ntext\n")),
        (format!("--b\n{binary}\n--bb\n--b"), format!("--b\n{base64}\nLS1iYg==\n--b")),
        (format!("--b\n{binary}\n--b-\n -- b\n--b--"), format!("--b\n{base64}\nLS1iLQ0KIC0tIGI=\n--b--")),
        // No end at all.
        (format!("--b\n{binary}\na\n"), format!("--b\n{base64}\nYQ0K\n")),
        (format!("--b\n{binary}\n--b\r"), format!("--b\n{base64}\nLS1iDQ==\n")),
    ] {
        check(&mixed(&parts), &mixed(&expected));
    }
    // What ends a line is CRLF: with LF alone there is no delimiter.
    let octets =
        [crlf(&mixed(&format!("--b\n{binary}\n"))), b"a\n--b\n\r--b\r\n\r\n--b--\r\n".to_vec()].concat();
    let out = cut_anywhere(&octets).expect("can be made lines");
    assert_eq!(out, crlf(&mixed(&format!("--b\n{base64}\nYQotLWIKDS0tYg0K\n--b--\n"))));
    let long = format!("--b\n{binary}\n--b{}\n--b--\n", " ".repeat(DELIMITER_MAX - 2));
    let out = cut_anywhere(&crlf(&mixed(&long))).expect("can be made lines");
    assert_eq!(out.windows(6).filter(|at| at == b"\r\n--b-").count(), 1, "a line too long is no delimiter");
}

#[test]
fn what_holds_parts_is_8bit_and_looked_into() {
    let binary = "Content-Transfer-Encoding: binary\n";
    let label = |encoding: &str| format!("Content-Transfer-Encoding: {encoding}\n");
    let (base64, as_8bit) = (label("base64"), label("8bit"));
    let inner = |label: &str, part: &str, content: &str| {
        format!(
            "--b\nContent-Type: multipart/alternative; boundary=\"bb\"\n{label}\nno part\n--bb\n{part}\n{content}\n\
             --bb\n{part}\n{content}\n--b\n\ntext\n--b--\n"
        )
    };
    // An inner multipart ends with the outer one, and a boundary may begin as another does.
    check(&mixed(&inner(binary, binary, "a")), &mixed(&inner(&as_8bit, &base64, "YQ==")));
    // What was the inner one's boundary is content behind that.
    let over = |label: &str, part: &str, content: &str| {
        mixed(&format!(
            "--b\nContent-Type: multipart/digest; boundary=bb\n{label}\n--bb\n\n{MIME}\n--b\n{part}\n{content}\n--b--\n"
        ))
    };
    check(&over(binary, binary, "--bb\na"), &over(&as_8bit, &base64, "LS1iYg0KYQ=="));
    let attached = |label: &str, part: &str, content: &str| {
        mixed(&format!(
            "--b\nContent-Type: Message/RFC822\n{label}\nSubject: y\n{MIME}{part}\n{content}\n--b\n\ntext\n--b--\n"
        ))
    };
    for says in [binary, "", "Content-Transfer-Encoding: 8bit\n"] {
        let after = if says == binary { &as_8bit } else { says };
        check(&attached(says, binary, "a\n\nb"), &attached(after, &base64, "YQ0KDQpi"));
    }
    let digest = |part: &str, content: &str| {
        format!(
            "{MIME}Content-Type: multipart/digest; boundary=b\n\n--b\n\n{MIME}{part}\n{content}\n--b\n\
             Content-Type: text/plain\n{part}\n{content}\n--b--\n"
        )
    };
    check(&digest(binary, "a"), &digest(&base64, "YQ=="));
    // What may not be encoded, and in which no parts can be found, is lines.
    for kind in ["message/partial; number=1; id=x", "multipart/mixed", "multipart/mixed; boundary=\"\""] {
        let opaque = |label: &str| format!("{MIME}Content-Type: {kind}\n{label}\na\n");
        check(&opaque(binary), &opaque(&as_8bit));
    }
}

#[test]
fn what_is_signed_stays_and_its_signature_may_be_binary() {
    let signed = |label: &str, part: &str, content: &str| {
        format!(
            "{MIME}Content-Type: multipart/signed; boundary=b; protocol=x/y\n{label}\n--b\n\
             Content-Type: multipart/mixed; boundary=c\nContent-Transfer-Encoding: binary\n\n--c\n\
             Content-Transfer-Encoding: binary\n\na\n--c--\n\n--b\n{part}\n{content}\n--b--\n"
        )
    };
    check(
        &signed("content-transfer-encoding: binary\n", "Content-Transfer-Encoding: binary\n", "a"),
        &signed("Content-Transfer-Encoding: 8bit\n", "Content-Transfer-Encoding: base64\n", "YQ=="),
    );
}

/// Nothing is signed over the encoding of what is encrypted (RFC 1847 §2.2).
#[test]
fn what_is_encrypted_may_be_encoded() {
    let encrypted = |label: &str, content: &str| {
        format!(
            "{MIME}Content-Type: multipart/encrypted; boundary=b; protocol=x/y\n\n--b\n\nVersion: 1\n--b\n\
             Content-Transfer-Encoding: {label}\n\n{content}\n--b--\n"
        )
    };
    check(&encrypted("binary", "a"), &encrypted("base64", "YQ=="));
}

#[test]
fn what_is_no_lines_and_cannot_be_encoded_is_named() {
    let binary = "Content-Transfer-Encoding: binary\n";
    let signed = |bad: &str| {
        format!("{MIME}Content-Type: multipart/signed; boundary=b\n\n--b\n{binary}\n{bad}\n--b--\n")
    };
    let long = format!("{MIME}X: {}\n{binary}\n", "x".repeat(HEADER_BLOCK_MAX));
    for bad in ["a\u{1}b", "a\u{2}b", "\0"] {
        for (message, why) in [
            (format!("Subject: {bad}\n\n"), NotLines::Header),
            (mixed(&format!("--b\nX: {bad}\n")), NotLines::Header),
            (format!("Subject: x\n\n{bad}\n"), NotLines::NotMime),
            (format!("Subject: x\n{binary}\n{bad}\n"), NotLines::NotMime),
            (format!("Subject: x\n{MIME}\n{bad}\n"), NotLines::Unlabelled),
            (format!("{MIME}Content-Transfer-Encoding: binary x\n\n{bad}\n"), NotLines::Unlabelled),
            (mixed(&format!("{bad}\n--b--\n")), NotLines::Unlabelled),
            (mixed(&format!("--b--\n{bad}\n")), NotLines::Unlabelled),
            (mixed(&format!("--b\n{binary}\na\n--b\n\n{bad}\n")), NotLines::Unlabelled),
            (mixed(&format!("--b\nContent-Type: message/rfc822\n\n{binary}\n{bad}")), NotLines::NotMime),
            (signed(bad), NotLines::Signed),
            (format!("{MIME}Content-Type: multipart/mixed\n{binary}\n{bad}\n"), NotLines::Composite),
            (
                format!("{MIME}Content-Type: multipart/mixed; boundary={}\n\n{bad}\n", "b".repeat(71)),
                NotLines::Composite,
            ),
            (format!("{MIME}Content-Type: message/partial\n{binary}\n{bad}\n"), NotLines::Composite),
            (format!("{MIME}{binary}Content-Transfer-Encoding: 7bit\n\n{bad}\n"), NotLines::Ambiguous),
            (format!("{MIME}no colon\n{binary}\n{bad}\n"), NotLines::Ambiguous),
            (
                format!(
                    "{MIME}Content-Type: a/b\nContent-Type: multipart/mixed; boundary=b\n{binary}\n{bad}\n"
                ),
                NotLines::Ambiguous,
            ),
            (format!("{MIME}Content-Type: multipart/; boundary=b\n{binary}\n{bad}\n"), NotLines::Ambiguous),
            (format!("{MIME}Content-Type: multipart; boundary=b\n{binary}\n{bad}\n"), NotLines::Ambiguous),
            (
                format!("{MIME}Content-Type: multipart/mixed; boundary=b\u{fc}\n{binary}\n{bad}\n"),
                NotLines::Composite,
            ),
            (format!("{long}{bad}\n"), NotLines::TooComplex),
        ] {
            let message = crlf(&message);
            let octet = |octet: &u8| match octet {
                1 => b'\r',
                2 => b'\n',
                other => *other,
            };
            let message: Vec<_> = message.iter().map(octet).collect();
            assert_eq!(reencoded(&[&message]), Err(why), "{}", message.escape_ascii());
            if message.len() < 1_000 {
                assert_eq!(cut_anywhere(&message), Err(why));
            }
        }
    }
    assert_eq!(cut_anywhere(b"Subject: x\r\n\r\na\r"), Err(NotLines::NotMime), "a CR at the very end");
}

#[test]
fn limits_hold_and_what_is_beyond_them_stays_if_it_is_lines() {
    let nested = |depth: usize, content: &str| {
        let mut message = String::from(MIME);
        for level in 0..depth {
            message += &format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n");
        }
        crlf(&format!("{message}Content-Transfer-Encoding: binary\n\n{content}"))
    };
    let deepest = reencoded(&[&nested(DEPTH_MAX, "a")]).expect("can be made lines");
    assert!(deepest.ends_with(b"YQ==\r\n"));
    assert_eq!(reencoded(&[&nested(DEPTH_MAX + 1, "a")]), Ok(nested(DEPTH_MAX + 1, "a")));
    assert_eq!(reencoded(&[&nested(DEPTH_MAX + 1, "a\0")]), Err(NotLines::TooComplex));
    let many = |parts: usize, content: &str| {
        let part = "--b\nContent-Transfer-Encoding: binary\n\na\n";
        crlf(&mixed(&format!("{}{content}", part.repeat(parts))))
    };
    let most = reencoded(&[&many(PARTS_MAX - 1, "")]).expect("can be made lines");
    assert_eq!(
        most.windows(4).filter(|at| at == b"YQ==").count(),
        PARTS_MAX - 2,
        "the last has its CRLF, too"
    );
    assert_eq!(reencoded(&[&many(PARTS_MAX, "\0")]), Err(NotLines::TooComplex));
    assert!(reencoded(&[&many(PARTS_MAX, "")]).is_ok_and(|out| out.ends_with(b"binary\r\n\r\na\r\n")));
}

/// Memory does not grow with a body, nor with lines that may be delimiters.
#[test]
fn nothing_of_a_body_is_kept() {
    let header = crlf(&mixed("--b\nContent-Transfer-Encoding: binary\n\n"));
    for piece in [&b"x"[..], b"\r\n--c", b"\r\n--", b"\r", b"--"] {
        let (mut reencoding, mut left) = (Reencoding::new(), 0);
        let mut out = Vec::new();
        reencoding.push(&header, &mut out).expect("is a header");
        out.clear();
        for _ in 0..100_000 {
            reencoding.push(piece, &mut out).expect("is binary");
            left += out.len();
            out.clear();
        }
        let kept = piece.len() * 100_000 - left / 78 * write::BASE64_LINE_OCTETS;
        assert!(kept < DELIMITER_MAX + 200, "{kept} octets of {} are kept", piece.escape_ascii());
    }
}

/// A message of parts at random, and the octets of its leaves.
struct Made {
    message: Vec<u8>,
    leaves: Vec<Vec<u8>>,
    boundaries: usize,
}

impl Made {
    /// One whose outermost boundary is `b0`, `b00`, …, of which each is the beginning of the next.
    fn new(random: &mut Random) -> Self {
        let mut made = Self { message: Vec::new(), leaves: Vec::new(), boundaries: 0 };
        made.message.extend_from_slice(b"From: a@example.com\r\nMIME-Version: 1.0\r\n");
        made.entity(random, 0);
        made
    }

    fn entity(&mut self, random: &mut Random, depth: usize) {
        if depth == 4 || random.below(3) == 0 {
            return self.leaf(random);
        }
        self.boundaries += 1;
        let boundary = format!("b{}", "0".repeat(self.boundaries));
        let label = ["", "Content-Transfer-Encoding: binary\r\n"][random.below(2)];
        let head = format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n{label}\r\n");
        self.message.extend_from_slice(head.as_bytes());
        for _ in 0..=random.below(3) {
            self.message.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
            self.entity(random, depth + 1);
            self.message.extend_from_slice(b"\r\n");
        }
        self.message.extend_from_slice(format!("--{boundary}--").as_bytes());
    }

    fn leaf(&mut self, random: &mut Random) {
        let pieces: [&[u8]; 10] =
            [b"\r\n", b"\r", b"\n", b"--", b"b", b"00", b"\0", b"\xff", b"text ", b"\r\n--c0"];
        let mut octets: Vec<u8> = Vec::new();
        for _ in 0..random.below(60) {
            octets.extend_from_slice(pieces[random.below(pieces.len())]);
        }
        // A sender chooses boundaries that are not in the content.
        while octets.split(|octet: &u8| *octet == b'\n').any(|line| line.starts_with(b"--b0")) {
            octets.retain(|octet| *octet != b'b');
        }
        let head = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n";
        self.message.extend_from_slice(head);
        self.message.extend_from_slice(&octets);
        self.leaves.push(octets);
    }
}

#[test]
fn leaves_at_random_come_back_as_somebody_else_reads_them() {
    let mut random = Random::new(20);
    let mut leaves = 0;
    for round in 0..1_000 {
        let made = Made::new(&mut random);
        let out = reencoded(&[&made.message]).expect("can be made lines");
        assert!(is_lines(&out), "{}", out.escape_ascii());
        assert_eq!(reencoded(&made.message.chunks(1).collect::<Vec<_>>()), Ok(out.clone()));
        if round < 100 && made.message.len() < 400 {
            assert_eq!(cut_anywhere(&made.message), Ok(out.clone()));
        }
        let read = MessageParser::default().parse(&out).expect("is a message");
        let is_leaf = |part: &&mail_parser::MessagePart<'_>| !matches!(part.body, PartType::Multipart(_));
        let theirs: Vec<_> = read.parts.iter().filter(is_leaf).map(|part| part.contents().to_vec()).collect();
        assert_eq!(theirs, made.leaves, "{}", made.message.escape_ascii());
        let binary = |part: &&mail_parser::MessagePart<'_>| {
            part.content_transfer_encoding().is_some_and(|encoding| encoding.eq_ignore_ascii_case("binary"))
        };
        assert_eq!(read.parts.iter().filter(binary).count(), 0);
        leaves += made.leaves.len();
    }
    assert!(leaves > 2_000, "{leaves} leaves");
}

/// Octets at random, and messages cut and changed at random: what leaves is lines, wherever they are cut.
#[test]
fn what_leaves_is_lines_whatever_comes() {
    let mut random = Random::new(21);
    let words: [&[u8]; 16] = [
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"--b",
        b"--bb",
        b"--",
        b" ",
        b"x",
        b"\r\n\r\n",
        b"Content-Transfer-Encoding: binary",
        b"Content-Type: multipart/mixed; boundary=b",
        b"Content-Type: multipart/signed; boundary=bb",
        b"Content-Type: message/rfc822",
        b"MIME-Version: 1.0\r\n",
    ];
    let mut taken = 0;
    for _ in 0..30_000 {
        let mut message =
            if random.below(2) == 0 { MIME.replace('\n', "\r\n").into_bytes() } else { Vec::new() };
        for _ in 0..random.below(40) {
            message.extend_from_slice(words[random.below(words.len())]);
        }
        let whole = reencoded(&[&message]);
        assert_eq!(reencoded(&message.chunks(1).collect::<Vec<_>>()), whole, "{}", message.escape_ascii());
        if let Ok(out) = whole {
            assert!(is_lines(&out), "{} became {}", message.escape_ascii(), out.escape_ascii());
            assert_eq!(reencoded(&[&out]), Ok(out.clone()), "it stays: {}", message.escape_ascii());
            taken += 1;
        }
    }
    assert!(taken > 1_000, "{taken} were taken");
}
