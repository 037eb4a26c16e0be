use super::*;
use crate::id::MessageId;
use crate::notify::Return;

/// The lines, with CRLF at the end of each.
fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// Index, type, name and size of each attachment.
fn listed(message: &[u8]) -> Vec<(usize, String, Option<String>, usize)> {
    let attachments = attachments(message);
    attachments.into_iter().map(|a| (a.index, a.content_type, a.name, a.size)).collect()
}

/// The octets of the attachment that is part `index`.
fn attachment_bytes(message: &[u8], index: usize) -> Option<Vec<u8>> {
    open(message, index).map(|opened| opened.octets)
}

mod what_is_read {
    use super::*;

    #[test]
    fn a_message_without_mime_is_its_text() {
        let message = crlf("From: a@example.com\nSubject: x\n\nhello\nthere\n");
        assert_eq!(text_of(&message), "hello\nthere\n");
        assert_eq!(attachments(&message), []);
        let named = crlf("Content-Type: text/plain; name=notes.txt\n\nhello\n");
        assert_eq!(text_of(&named), "hello\n");
        assert_eq!(listed(&named), [(0, "text/plain".into(), Some("notes.txt".into()), 7)]);
        assert_eq!(text_of(b""), "");
        assert_eq!(text_of(b"Subject: only a header\r\n"), "");
    }

    #[test]
    fn text_is_decoded() {
        let head =
            "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n";
        assert_eq!(text_of(&crlf(&format!("{head}\ncaf=E9 =\nau lait\n"))), "café au lait\n");
        let head = "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n";
        assert_eq!(text_of(&crlf(&format!("{head}\nPHA+aGk8L3A+PGI+eW91PC9iPg==\n"))).trim(), "hi\n\nyou");
    }

    const TYPICAL: &str = "Content-Type: multipart/mixed; boundary=outer\n\npreamble\n--outer\n\
        Content-Type: multipart/related; boundary=\"rel\"\n\n--rel\n\
        Content-Type: multipart/alternative; boundary=alt\n\n--alt\n\nplain text\n--alt\n\
        Content-Type: text/html\n\n<b>html text</b>\n--alt--\n\n--rel\n\
        Content-Type: image/png; name=pic.png\nContent-ID: <pic@x>\nContent-Transfer-Encoding: base64\n\niVBO\n--rel--\n\
        --outer\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=\"a b.pdf\"\n\nPDF\n\n--outer \n\
        Content-Type: text/plain\n\nfooter\n--outer--\nepilogue\n--outer\nno part\n";

    #[test]
    fn a_typical_message_has_one_text_and_its_attachments() {
        let message = crlf(TYPICAL);
        assert_eq!(text_of(&message), "plain text\nfooter");
        assert_eq!(
            listed(&message),
            [
                (1, "multipart/related".into(), None, 312),
                (6, "application/pdf".into(), Some("a b.pdf".into()), 5),
            ]
        );
        assert_eq!(attachment_bytes(&message, 6), Some(b"PDF\r\n".to_vec()));
        assert_eq!(attachment_bytes(&message, 0), None, "a container is torn apart or a package");
        let page = open(&message, 1).expect("a package");
        assert!(
            page.octets.starts_with(b"Content-Type: multipart/related") && page.octets.ends_with(b"--rel--")
        );
        assert_eq!((page.kind, page.text()), (Kind::Package, Some("plain text".into())));
        let picture = page.attachment(1).expect("a picture");
        assert_eq!((picture.part.name.as_deref(), picture.octets.len()), (Some("pic.png"), 3));
        assert!(
            page.attachment(0).is_none() && page.attachment(2).is_none() && picture.attachment(1).is_none()
        );
        assert_eq!(attachment_bytes(&message, 99), None);
        let parents: Vec<_> = scan(&message).expect("simple").parts.iter().map(|part| part.parent).collect();
        assert_eq!(parents, [None, Some(0), Some(1), Some(2), Some(2), Some(1), Some(0), Some(0)]);
    }

    #[test]
    fn lines_that_end_in_lf_are_lines() {
        assert_eq!(text_of(TYPICAL.as_bytes()), "plain text\nfooter");
        assert_eq!(listed(TYPICAL.as_bytes()).len(), 2);
    }

    #[test]
    fn of_alternatives_without_plain_text_the_last_counts_and_files_in_them_are_kept() {
        let message = crlf(
            "Content-Type: multipart/alternative; boundary=a\n\n--a\nContent-Type: text/html\n\nfirst\n--a\n\
             Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/html\n\nsecond\n--m\n\
             Content-Type: application/pdf\n\nPDF\n--m--\n--a--\n",
        );
        assert_eq!(text_of(&message).trim(), "second");
        assert_eq!(listed(&message), [(4, "application/pdf".into(), None, 3)]);
    }

    #[test]
    fn an_attached_message_is_an_attachment() {
        let inner = "Subject: inner\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\ninner text\n--i--\n";
        let message = crlf(&format!(
            "Content-Type: multipart/digest; boundary=o\n\n--o\nContent-Type: text/plain\n\nsee\n--o\n\n{inner}\n--o--\n"
        ));
        assert_eq!(text_of(&message), "see");
        assert_eq!(listed(&message), [(2, "message/rfc822".into(), None, crlf(inner).len())]);
        let attached = attachment_bytes(&message, 2).expect("it is a leaf");
        assert_eq!(text_of(&attached), "inner text");
    }

    #[test]
    fn broken_multiparts_are_read_as_far_as_they_go() {
        for (message, text, attached) in [
            ("Content-Type: multipart/mixed\n\nno boundary", "", 1),
            ("Content-Type: multipart/mixed; boundary=b\n\nnever comes", "", 1),
            ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nnot closed", "not closed", 0),
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nX: no empty line\n--b\n\ntext\n--b--",
                "text",
                0,
            ),
            ("Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n\ntext\n--b--", "text", 0),
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/x; boundary=c\n--b\n\nt\n--b--",
                "t",
                1,
            ),
            (
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/x; boundary=c\n\n--c\n\nt\n--b--",
                "t",
                0,
            ),
            ("Content-Type: nonsense\n\ntext", "text", 0),
            (
                "Content-Type: multipart/mixed boundary=b\n--b\nContent-Type: text/plain\ntext\n--b--",
                "text",
                0,
            ),
            ("Content-Type: multipart/mixed; boundary=b\nno empty line\n--b\n\ntext\n--b--", "text", 0),
            ("Content-Type: text/plain\ntext", "text", 0),
            ("From somebody\nContent-Type: text/plain\nno field\nX: y\n\ntext", "text", 0),
        ] {
            let message = crlf(message);
            assert_eq!(
                (text_of(&message).as_str(), attachments(&message).len()),
                (text, attached),
                "{message:?}"
            );
        }
    }

    #[test]
    fn attachments_keep_their_names() {
        let named = |fields: &str| {
            let message =
                crlf(&format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n{fields}\n\nx\n--b--\n"));
            listed(&message).into_iter().map(|(_, _, name, _)| name).next().flatten()
        };
        let jpeg = "Content-Type: image/jpeg";
        for (fields, name) in [
            (format!("{jpeg}; name=a.jpg"), Some("a.jpg")),
            (format!("{jpeg}; name=a.jpg\nContent-Disposition: attachment; filename=b.jpg"), Some("b.jpg")),
            (format!("{jpeg}; name=a.jpg\nContent-Disposition: inline"), Some("a.jpg")),
            (format!("{jpeg}; name*0*=utf-8''%C3%A9;\n name*1=.jpg"), Some("é.jpg")),
            (format!("{jpeg};\n\tname=\"=?utf-8?B?w6k=?=\n =?utf-8?B?LmpwZw==?=\""), Some("é.jpg")),
            (format!("{jpeg}; name=\"日本.jpg\""), Some("日本.jpg")),
            (format!("{jpeg}; name=\"/etc/passwd\""), Some("/etc/passwd")),
            (jpeg.to_owned(), None),
        ] {
            assert_eq!(named(&fields).as_deref(), name, "{fields}");
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let message = format!("Subject: x\r\n\r\n{}", "é".repeat(TEXT_MAX));
        let text = text_of(message.as_bytes());
        assert!(text.ends_with("[the rest is not shown]\n") && text.len() <= TEXT_MAX + 100);
    }
}

mod what_is_taken_apart {
    use super::*;

    /// A multipart of `parts`, each with a header of its own.
    fn multipart(kind: &str, parts: &[&str]) -> String {
        let whole = parts.concat();
        let boundary = format!("{}-{}", kind.split(';').next().unwrap_or_default(), whole.len());
        let parts: String = parts.iter().map(|part| format!("--{boundary}\n{part}\n")).collect();
        format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\n\n{parts}--{boundary}--\n")
    }

    const TEXT: &str = "Content-Type: text/plain\n\nthe text";
    const HTML: &str = "Content-Type: text/html\n\n<p>the text</p>";
    const PDF: &str = "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\nPDF";
    const PNG: &str =
        "Content-Type: image/png; name=p.png\nContent-ID: <p>\nContent-Disposition: inline\n\nPNG";
    const SIGNATURE: &str = "Content-Type: application/pgp-signature; name=signature.asc\n\nsig";
    const INNER: &str = "Content-Type: message/rfc822\n\nSubject: inner\n";

    /// Each attachment's type and name, and in brackets what is in it.
    fn tree(structure: &Structure, message: &[u8]) -> String {
        let described = structure.attachments(message).into_iter().map(|attachment| {
            let opened = structure.open(message, attachment.index).expect("what is listed can be opened");
            assert_eq!(opened.octets.len(), attachment.size);
            let name = attachment.name.map(|name| format!(" {name}")).unwrap_or_default();
            let inline = if attachment.inline { " inline" } else { "" };
            let within = opened.structure().map(|inner| tree(&inner.expect("simple"), &opened.octets));
            let within = within.map(|within| format!(" [{within}]")).unwrap_or_default();
            format!("{}{name}{inline}{within}", attachment.content_type)
        });
        described.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_belongs_together_stays_together() {
        let alternative = multipart("alternative", &[TEXT, HTML]);
        let page = multipart("related", &[HTML, PNG]);
        let signed = multipart("signed; protocol=\"application/pgp-signature\"", &[TEXT, SIGNATURE]);
        let pdf = "application/pdf a.pdf";
        let png = "image/png p.png inline";
        let signature = "application/pgp-signature signature.asc";
        for (what, message, text, expected) in [
            ("files", multipart("mixed", &[TEXT, PDF, PNG]), "the text", format!("{pdf}, {png}")),
            ("alternatives", alternative.clone(), "the text", String::new()),
            ("alternatives and a file", multipart("mixed", &[&alternative, PDF]), "the text", pdf.into()),
            (
                "an invitation",
                multipart("alternative", &[TEXT, HTML, "Content-Type: text/calendar\n\nBEGIN:VCALENDAR"]),
                "the text",
                "text/calendar".into(),
            ),
            ("a page", page.clone(), "the text", format!("multipart/related [{png}]")),
            (
                "a page in alternatives",
                multipart("mixed", &[&multipart("alternative", &[TEXT, &page]), PDF]),
                "the text",
                format!("multipart/related [{png}], {pdf}"),
            ),
            (
                "alternatives in a page",
                multipart("related; type=\"multipart/alternative\"", &[&alternative, PNG]),
                "the text",
                format!("multipart/related [{png}]"),
            ),
            ("a page without pictures", multipart("related", &[&alternative]), "the text", String::new()),
            (
                "a file that is called a part of a page",
                multipart("related", &[HTML, PNG, PDF]),
                "the text",
                format!("{png}, {pdf}"),
            ),
            ("signed", signed.clone(), "the text", format!("multipart/signed [{signature}]")),
            (
                "signed, with a file",
                multipart("signed", &[&multipart("mixed", &[TEXT, PDF]), SIGNATURE]),
                "the text",
                format!("multipart/signed [{pdf}, {signature}]"),
            ),
            (
                "signed, and a list's footer",
                multipart("mixed", &[&signed, "Content-Type: text/plain\n\nfooter"]),
                "the text\nfooter",
                format!("multipart/signed [{signature}]"),
            ),
            (
                "a page that is signed",
                multipart("signed", &[&page, SIGNATURE]),
                "the text",
                format!("multipart/signed [multipart/related [{png}], {signature}]"),
            ),
            (
                "encrypted",
                multipart(
                    "encrypted",
                    &[
                        "Content-Type: application/pgp-encrypted\n\nVersion: 1",
                        "Content-Type: application/octet-stream; name=encrypted.asc\n\n-----BEGIN",
                    ],
                ),
                "",
                "multipart/encrypted [application/pgp-encrypted, application/octet-stream encrypted.asc]"
                    .into(),
            ),
            (
                "S/MIME",
                "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\n\
                 Content-Disposition: attachment; filename=smime.p7m\n\nMIAG"
                    .into(),
                "",
                "application/pkcs7-mime smime.p7m".into(),
            ),
            (
                "TNEF",
                multipart("mixed", &[TEXT, "Content-Type: application/ms-tnef; name=winmail.dat\n\nx"]),
                "the text",
                "application/ms-tnef winmail.dat".into(),
            ),
            (
                "a message in a message in a message",
                multipart(
                    "mixed",
                    &[TEXT, &format!("{INNER}{}", multipart("mixed", &[TEXT, &format!("{INNER}{page}")]))],
                ),
                "the text",
                format!("message/rfc822 [message/rfc822 [multipart/related [{png}]]]"),
            ),
            (
                "a report",
                multipart(
                    "report",
                    &[TEXT, "Content-Type: message/delivery-status\n\nStatus: 5.1.1", &format!("{INNER}\nx")],
                ),
                "the text",
                "message/delivery-status, message/rfc822 []".into(),
            ),
        ] {
            let message = crlf(&message);
            let structure = scan(&message).expect("simple");
            assert_eq!(tree(&structure, &message), expected, "{what}");
            assert_eq!(text_of(&message).trim(), text, "{what}");
            rejoined(&message, &structure);
        }
    }

    /// Cuts the message at its attachments and puts it together again.
    pub(super) fn rejoined(message: &[u8], structure: &Structure) {
        let mut at = 0;
        let mut whole = Vec::new();
        for attachment in structure.attachments(message) {
            let cover =
                message.get(at..attachment.octets.start).expect("attachments lie one after the other");
            whole.extend_from_slice(cover);
            whole.extend_from_slice(&message[attachment.octets.clone()]);
            at = attachment.octets.end;
            let opened = structure.open(message, attachment.index).expect("what is listed can be opened");
            assert_eq!(opened.octets.len(), attachment.size);
        }
        whole.extend_from_slice(&message[at..]);
        assert!(whole == message);
    }

    #[test]
    fn an_attached_message_is_read_like_a_message() {
        let inner = format!("{INNER}{}", multipart("mixed", &[TEXT, PDF]));
        let message = crlf(&multipart("mixed", &["\nsee below", &inner]));
        let attached = open(&message, attachments(&message)[0].index).expect("listed");
        assert_eq!((attached.kind, attached.text()), (Kind::Message, Some("the text".into())));
        assert_eq!(HeaderFacts::of(&attached.octets).subject.as_deref(), Some("inner"));
        let file = attached.attachment(1).expect("a file");
        assert_eq!((file.octets.as_slice(), file.text()), (&b"PDF"[..], None));
        let note =
            crlf(&multipart("mixed", &[TEXT, "Content-Type: text/plain; charset=iso-8859-1; name=n\n\nx"]));
        assert_eq!(open(&note, 2).and_then(|note| note.text()).as_deref(), Some("x"));
    }

    /// What a person sees of an attachment called in the `fields`.
    fn name_of(fields: &[u8]) -> Option<String> {
        let start = &b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"[..];
        let message = [start, fields, b"\r\n\r\nx\r\n--b--\r\n"].concat();
        attachments(&message).into_iter().next().and_then(|attachment| attachment.name)
    }

    #[test]
    fn names_are_what_the_sender_meant() {
        let long = "n".repeat(10_000);
        let sections: String =
            (0..150).map(|n| format!(";\r\n filename*{n}=\"{}\"", "s".repeat(60))).collect();
        let disposition = |text: &str| format!("Content-Disposition: attachment{text}").into_bytes();
        let jpeg = |text: &str| format!("Content-Type: image/jpeg{text}").into_bytes();
        let raw = |octets: &[u8]| [b"Content-Disposition: attachment; filename=\"", octets, b"\""].concat();
        for (fields, expected) in [
            (
                disposition(";\r\n filename*0*=UTF-8''caf;\r\n filename*1*=%C3%A9;\r\n filename*2=.txt"),
                "café.txt",
            ),
            (disposition("; filename*=ISO-8859-15''%A4.txt"), "€.txt"),
            (disposition("; filename*=koi8-r'ru'%C4%CF%CB.txt"), "док.txt"),
            (disposition("; filename=\"=?windows-1251?B?5O7q?=.txt\""), "док.txt"),
            (disposition(";\r\n filename=\"=?utf-8?Q?caf?=\r\n =?utf-8?Q?=C3=A9?=.txt\""), "café.txt"),
            (jpeg(";\r\n name==?utf-8?B?w6k=?="), "é"),
            (raw("日本語 €.txt".as_bytes()), "日本語 €.txt"),
            (raw(b"caf\xe9 \x80.txt"), "café €.txt"),
            (disposition("; filename=\"a\\\"b;c=d.txt\""), "a\"b;c=d.txt"),
            (disposition("; filename=\"../../etc/passwd\""), "../../etc/passwd"),
            (disposition("; filename*=UTF-8''..%2F%00%1B%5B2J%E2%80%AE.txt"), "../\0\x1b[2J\u{202e}.txt"),
            (disposition("; filename=\".htaccess\""), ".htaccess"),
            (disposition("; filename=NUL"), "NUL"),
            (disposition(&format!("; filename={long}")), &long),
            (disposition(&sections), &"s".repeat(9_000)),
        ] {
            let shown = String::from_utf8_lossy(&fields).chars().take(200).collect::<String>();
            assert_eq!(name_of(&fields).as_deref(), Some(expected), "{shown}");
        }
        for fields in
            ["Content-Type: image/jpeg", "Content-Type: image/jpeg; name=\"\"", "Content-Type: a/b; name*0"]
        {
            assert_eq!(name_of(fields.as_bytes()), None, "{fields}");
        }
    }
}

mod what_is_too_much {
    use super::*;

    fn nested_multiparts(depth: usize) -> Vec<u8> {
        let level = |n: usize| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n");
        (0..depth).map(level).collect::<String>().into_bytes()
    }

    fn shown_raw(message: &[u8], why: TooComplex) {
        assert_eq!(scan(message), Err(why));
        assert_eq!(attachments(message), []);
        let start = text_of(message).chars().take(20).collect::<String>();
        let raw = String::from_utf8_lossy(message).replace("\r\n", "\n");
        assert!(raw.starts_with(&start), "{start}");
    }

    #[test]
    fn depth() {
        assert!(scan(&nested_multiparts(DEPTH_MAX)).is_ok());
        shown_raw(&nested_multiparts(DEPTH_MAX + 1), TooComplex::Depth);
        shown_raw(&nested_multiparts(100_000), TooComplex::Depth);
    }

    #[test]
    fn parts() {
        let message = |parts: usize| {
            let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
            format!("{head}{}--b--\r\n", "--b\r\n\r\nx\r\n".repeat(parts)).into_bytes()
        };
        assert_eq!(scan(&message(PARTS_MAX - 1)).map(|s| s.parts.len()), Ok(PARTS_MAX));
        shown_raw(&message(PARTS_MAX), TooComplex::Parts);
        shown_raw(&message(1_000_000), TooComplex::Parts);
    }

    #[test]
    fn parameters() {
        let message = |count: usize| {
            let sections: String = (0..count).map(|n| format!(";\r\n a*{n}=x")).collect();
            format!("Content-Type: text/plain{sections}\r\n\r\ntext\r\n").into_bytes()
        };
        assert!(scan(&message(1_000)).is_ok());
        shown_raw(&message(1_001), TooComplex::Parameters);
        shown_raw(&message(400_000), TooComplex::Header);
    }

    #[test]
    fn headers() {
        let message = |count: usize| format!("{}\r\ntext\r\n", "A: b\r\n".repeat(count)).into_bytes();
        assert!(scan(&message(HEADERS_MAX)).is_ok());
        shown_raw(&message(HEADERS_MAX + 1), TooComplex::Header);
        let long = |length: usize| format!("A: {}\r\n\r\ntext", "x".repeat(length - 7)).into_bytes();
        assert!(scan(&long(HEADER_BLOCK_MAX)).is_ok());
        shown_raw(&long(HEADER_BLOCK_MAX + 1), TooComplex::Header);
        let in_part =
            [b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", &message(HEADERS_MAX + 1)[..]]
                .concat();
        shown_raw(&in_part, TooComplex::Header);
    }

    #[test]
    fn messages_in_messages_are_one_part() {
        let level = "Content-Type: message/rfc822\r\n\r\n";
        for octets in [70_000, 650_000, 8_000_000] {
            let message = level.repeat(octets / level.len());
            let structure = scan(message.as_bytes()).expect("an attached message is not opened");
            assert_eq!(structure.parts.len(), 1);
            assert_eq!(attachments(message.as_bytes())[0].size, message.len() - level.len());
        }
    }

    #[test]
    fn fields_that_would_cost_much_are_read_once() {
        let fill = |unit: &str| unit.repeat(HEADER_BLOCK_MAX / unit.len());
        for unit in ["(", "=?", "=?a?q?z ", "\"", "<", "a@b,", "=?utf-8?q?a?= ", "\\", ":", ";", "''", "%41"]
        {
            let header = format!("To: {}\r\n\r\n", fill(unit));
            let facts = HeaderFacts::of(header.as_bytes());
            assert!(facts.to.len() <= ADDRESSES_MAX, "{unit}");
            for name in ["Subject", "References", "Content-Type", "Content-Disposition"] {
                let message = format!("{name}: {}\r\n\r\n", fill(unit).split_at(HEADER_BLOCK_MAX / 2).0);
                let _ = (HeaderFacts::of(message.as_bytes()), scan(message.as_bytes()));
            }
        }
    }

    #[test]
    fn boundaries_that_begin_alike_cost_no_more_than_the_depth() {
        let boundary = |n: usize| "b".repeat(900 + n);
        let levels: String = (0..DEPTH_MAX)
            .map(|n| format!("Content-Type: multipart/mixed; boundary={0}\r\n\r\n--{0}\r\n", boundary(n)))
            .collect();
        let message = format!("{levels}\r\n{}", format!("--{}x\r\n", boundary(0)).repeat(1_000));
        assert_eq!(scan(message.as_bytes()).map(|s| s.parts.len()), Ok(DEPTH_MAX + 1));
    }
}

mod what_is_written {
    use super::*;

    fn mailbox(name: Option<&str>, address: &str) -> DraftMailbox {
        DraftMailbox { name: name.map(str::to_owned), address: address.parse().expect("an address") }
    }

    fn draft() -> Draft {
        Draft {
            id: MessageId::from_parts(1, [7; 10]),
            from: mailbox(Some("Alice"), "alice@example.com"),
            to: vec![mailbox(None, "bob@example.com")],
            cc: Vec::new(),
            subject: "Hello".into(),
            date: 1_700_000_000,
            in_reply_to: None,
            references: Vec::new(),
            text: "Hello Bob\n".into(),
            attachments: Vec::new(),
            entities: Vec::new(),
        }
    }

    #[test]
    fn parts_of_other_messages_go_along_as_they_are() {
        let original = b"Received: from x\r\nFrom: c@remote.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
            --b\r\n\r\ntext\r\n--b\r\nContent-Type: application/x;\r\n name=\"a.bin\"\r\nX-Other: no\r\n\
            Content-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--b--\r\n";
        let [attached] = attachments(original).try_into().expect("one");
        let part = entity(original, attached.index).expect("is there");
        assert_eq!(
            part,
            b"Content-Type: application/x;\r\n name=\"a.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC"
        );
        let eight_bit = [&original[..], "Grüße\r\n".as_bytes()].concat();
        let file = [&original[..], &[b'x'; 1_000][..]].concat();
        for (message, content_type, encoding) in [
            (&original[..], "message/rfc822", "7bit"),
            (&eight_bit, "message/rfc822", "8bit"),
            (&file, "application/octet-stream", "base64"),
        ] {
            let entities = vec![part.clone(), attached_message(message, "Grüße.eml")];
            let written = compose(&Draft { entities, ..draft() });
            let text = String::from_utf8_lossy(&written).into_owned();
            assert!(text.contains(&format!("Content-Transfer-Encoding: {encoding}\r\n")), "{text}");
            let header = &written[..header_len(&written)];
            assert_eq!(find(header, "Content-Transfer-Encoding").is_some(), encoding == "8bit");
            let [bin, whole] = attachments(&written).try_into().expect("two");
            assert_eq!((bin.name.as_deref(), whole.name.as_deref()), (Some("a.bin"), Some("Grüße.eml")));
            assert_eq!(whole.content_type, content_type);
            assert_eq!(open(&written, bin.index).expect("opens").octets, [0, 1, 2]);
            assert_eq!(open(&written, whole.index).expect("opens").octets, message);
            assert_eq!(text_of(&written), "Hello Bob\n");
        }
        let single = b"From: c@remote.example\r\nContent-Type: image/png\r\n\r\nPNG\r\n";
        assert_eq!(entity(single, 0).expect("is there"), b"Content-Type: image/png\r\n\r\nPNG\r\n");
        assert_eq!(entity(single, 1), None);
    }

    /// Every promise about octets, for whatever was composed.
    fn assert_7bit(message: &[u8]) {
        assert!(message.is_ascii());
        let text = str::from_utf8(message).expect("ASCII");
        assert!(text.ends_with("\r\n"));
        for line in text.split_terminator("\r\n") {
            assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{line:?}");
        }
    }

    #[test]
    fn a_plain_message() {
        let expected = "From: Alice <alice@example.com>\n\
            To: <bob@example.com>\n\
            Subject: Hello\n\
            Date: Tue, 14 Nov 2023 22:13:20 +0000\n\
            Message-ID: <00000000010W3GE1R70W3GE1R7@example.com>\n\
            MIME-Version: 1.0\n\
            Content-Type: text/plain; charset=us-ascii\n\
            Content-Transfer-Encoding: 7bit\n\
            \n\
            Hello Bob\n";
        assert_eq!(String::from_utf8(compose(&draft())).expect("ASCII"), expected.replace('\n', "\r\n"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let names = ["plain.txt", "with \"quotes\".txt", "日本語の名前.txt", "../../x", "", &"é".repeat(255)];
        let attachment = |name: &&str| NewAttachment {
            name: (*name).to_owned(),
            content_type: "application/pdf".into(),
            content: (0..=255).cycle().take(1_000).collect(),
        };
        let text = "Grüße\r\n--=_00000000010W3GE1R70W3GE1R7--\nFrom here\n.\nend = blank \n".to_owned()
            + &"x".repeat(2_000);
        let written = Draft {
            from: mailbox(Some("Ørsted, \"Hans\""), "hans@example.com"),
            to: vec![mailbox(Some("Doe, J."), "j@example.com"), mailbox(Some("plain"), "p@example.com")],
            cc: (0..50).map(|n| mailbox(None, &format!("person{n}@example.com"))).collect(),
            subject: format!("Fwd: {}", "日本語 ".repeat(40)),
            in_reply_to: Some("1@example.com".into()),
            references: vec!["0@example.com".into(), "1@example.com".into()],
            text: text.clone(),
            attachments: names.iter().map(attachment).collect(),
            ..draft()
        };
        assert!(!written.needs_smtputf8());
        let message = compose(&written);
        assert_7bit(&message);
        assert!(str::from_utf8(&message).expect("ASCII").lines().all(|line| line.len() <= 78));

        let facts = HeaderFacts::of(&message);
        assert_eq!(facts.from[0].name.as_deref(), Some("Ørsted, \"Hans\""));
        assert_eq!(facts.to[0], Mailbox { name: Some("Doe, J.".into()), address: "j@example.com".into() });
        assert_eq!((facts.cc.len(), facts.cc[49].address.as_str()), (50, "person49@example.com"));
        assert_eq!(facts.subject.as_deref(), Some(written.subject.trim()));
        assert_eq!(facts.date, Some(written.date));
        assert_eq!(facts.message_id, Some(message_id(written.id, written.from.address.domain())));
        assert_eq!((facts.in_reply_to, facts.references), (vec!["1@example.com".into()], written.references));
        assert!(facts.duplicated.is_empty());

        assert_eq!(text_of(&message), text.replace("\r\n", "\n") + "\n");
        let found = attachments(&message);
        let found_names: Vec<_> = found.iter().map(|a| a.name.as_deref().unwrap_or("")).collect();
        assert_eq!(found_names, names);
        for (found, written) in found.iter().zip(&written.attachments) {
            assert_eq!(attachment_bytes(&message, found.index).as_ref(), Some(&written.content));
        }
    }

    #[test]
    fn text_that_is_attached_arrives_as_the_file_it_was() {
        for (content, encoding) in [
            ("TOTAL   12\r\nEND\r\n", "7bit"),
            ("no end", "7bit"),
            ("", "7bit"),
            ("Größe\r\n", "base64"),
            ("Größe of many things, and much text in one language\r\n.\r\n", "quoted-printable"),
            (
                "trailing blank \r\n--=_00000000010W3GE1R70W3GE1R7--\r\nFrom here\x0c\r\nno end ",
                "quoted-printable",
            ),
            ("lines that end in LF\nare not lines here\n", "base64"),
            ("lone \r stays\r\n", "quoted-printable"),
            ("日本語", "base64"),
        ] {
            let attachment = NewAttachment {
                name: "r.txt".into(),
                content_type: "text/plain".into(),
                content: content.into(),
            };
            let message = compose(&Draft { attachments: vec![attachment], ..draft() });
            assert_7bit(&message);
            let found = &attachments(&message)[0];
            assert_eq!(found.content_type, "text/plain");
            let opened = open(&message, found.index).expect("listed");
            assert_eq!(String::from_utf8(opened.octets).as_deref(), Ok(content));
            assert_eq!(
                opened.part.charset.as_deref(),
                Some(if content.is_ascii() { "us-ascii" } else { "utf-8" })
            );
            let said = format!("Content-Transfer-Encoding: {encoding}\r\n");
            assert!(memchr::memmem::find(&message, said.as_bytes()).is_some(), "{content:?}");
        }
        let attachment =
            NewAttachment { name: "r.txt".into(), content_type: "text/plain".into(), content: vec![0xff] };
        let message = compose(&Draft { attachments: vec![attachment], ..draft() });
        assert_eq!(attachments(&message)[0].content_type, "application/octet-stream");
    }

    #[test]
    fn nothing_can_be_injected() {
        let evil = "x\r\nBcc: evil@example.com\r\n\r\n--b\r\nbody\0";
        let message = compose(&Draft {
            from: mailbox(Some(evil), "alice@example.com"),
            subject: evil.into(),
            in_reply_to: Some(evil.into()),
            references: vec![evil.into(), "a>\r\nBcc: <b".into(), "ok@example.com".into(), "x".repeat(2_000)],
            attachments: vec![NewAttachment {
                name: evil.into(),
                content_type: evil.into(),
                content: evil.into(),
            }],
            ..draft()
        });
        assert_7bit(&message);
        let names: Vec<_> = fields(&message).map(|field| field.name.to_owned()).collect();
        let expected =
            ["From", "To", "Subject", "Date", "Message-ID", "References", "MIME-Version", "Content-Type"];
        assert_eq!(names, expected);
        assert_eq!(HeaderFacts::of(&message).references, ["ok@example.com"]);
        assert_eq!(attachments(&message)[0].content_type, "application/octet-stream");
        assert_eq!(attachments(&message)[0].name.as_deref(), Some(evil));
    }

    #[test]
    fn an_address_beyond_ascii_is_said() {
        let draft = Draft { to: vec![mailbox(None, "josé@example.com")], ..draft() };
        assert!(draft.needs_smtputf8());
        assert_eq!(HeaderFacts::of(&compose(&draft)).to[0].address, "josé@example.com");
    }

    #[test]
    fn texts_survive_whatever_they_are() {
        for text in [
            "",
            "\n",
            "a",
            "a\n\nb\n\n",
            "--\nsig\n",
            "-- \nsig\n",
            "tab\t\n",
            "=",
            "From me\n",
            "é",
            " \n",
            ".",
        ] {
            let message = compose(&Draft { text: text.into(), ..draft() });
            assert!(message.is_ascii());
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            assert_eq!(text_of(&message), format!("{text}{end}"));
        }
    }

    #[test]
    fn a_notification_tells_person_and_program() {
        let recipient = |address: &str, action| DsnRecipient {
            recipient: address.parse().expect("an address"),
            original: Some("rfc822;Bob@Example.COM\r\nX: y".into()),
            action,
            status: "5.1.1".into(),
            remote_mta: Some("mx.example.net".into()),
            diagnostic: Some("550 5.1.1 unknown\r\nBcc: é \x1b[2J".into()),
            last_attempt: Some(1_700_000_000),
            retry_until: None,
        };
        let message = dsn(&DsnReport {
            id: MessageId::from_parts(1, [7; 10]),
            from: "postmaster@example.com".parse().expect("an address"),
            to: "alice@example.com".parse().expect("an address"),
            date: 1_700_000_000,
            reporting_mta: "mx.example.com".parse().expect("a domain"),
            arrival: Some(1_699_999_999),
            envelope_id: Some("env\r\nid".into()),
            original_message_id: Some("1@example.com".into()),
            recipients: vec![
                recipient("bob@example.com", Action::Failed),
                recipient("josé@x.example", Action::Delayed),
            ],
            original: crlf("From: alice@example.com\nSubject: Grüße\n\nbody not returned\n"),
            returns: Some(Return::Full),
        });
        assert_7bit(&message);
        let facts = HeaderFacts::of(&message);
        assert!(facts.is_automatic());
        assert_eq!(facts.in_reply_to, ["1@example.com"]);
        let structure = scan(&message).expect("simple");
        let types: Vec<_> = structure.parts.iter().map(|part| part.content_type.as_str()).collect();
        assert_eq!(
            types,
            ["multipart/report", "text/plain", "message/delivery-status", "text/rfc822-headers"]
        );
        let text = text_of(&message);
        assert!(text.contains(
            "Your message to <bob@example.com> could not be delivered.\n  mx.example.net: 550 5.1.1 unknown"
        ));
        let content = |n: usize| String::from_utf8(structure.parts[n].content(&message)).expect("UTF-8");
        let expected = "Original-Envelope-Id: env  id\n\
            Reporting-MTA: dns; mx.example.com\n\
            Arrival-Date: Tue, 14 Nov 2023 22:13:19 +0000\n\
            \n\
            Original-Recipient: rfc822;Bob@Example.COM  X: y\n\
            Final-Recipient: rfc822; bob@example.com\n\
            Action: failed\n\
            Status: 5.1.1\n\
            Remote-MTA: dns; mx.example.net\n\
            Diagnostic-Code: smtp; 550 5.1.1 unknown Bcc: ? [2J\n\
            Last-Attempt-Date: Tue, 14 Nov 2023 22:13:20 +0000\n\
            \n";
        assert!(content(2).starts_with(&expected.replace('\n', "\r\n")), "{}", content(2));
        assert!(content(2).contains("Final-Recipient: utf-8; jos\\x{E9}@x.example\r\nAction: delayed\r\n"));
        assert!(content(3).contains("Subject: Grüße") && !content(3).contains("body not returned"));
    }

    #[test]
    fn all_of_a_message_comes_back_where_that_is_asked_for_and_can_be() {
        let whole = crlf("From: alice@example.com\nSubject: x\n\nall of it \n--with lines\n");
        let last = |returns, action, original: &[u8]| {
            let recipient = DsnRecipient {
                recipient: "bob@example.com".parse().expect("an address"),
                original: None,
                action,
                status: "5.1.1".into(),
                remote_mta: None,
                diagnostic: None,
                last_attempt: None,
                retry_until: None,
            };
            let message = dsn(&DsnReport {
                id: MessageId::from_parts(1, [7; 10]),
                from: "postmaster@example.com".parse().expect("an address"),
                to: "alice@example.com".parse().expect("an address"),
                date: 0,
                reporting_mta: "mx.example.com".parse().expect("a domain"),
                arrival: None,
                envelope_id: None,
                original_message_id: None,
                recipients: vec![recipient],
                original: original.to_vec(),
                returns,
            });
            let structure = scan(&message).expect("simple");
            let part = structure.parts.iter().find(|part| part.content_type.starts_with("message/rfc822"));
            assert_eq!(text_of(&message).contains("The header of your message"), part.is_none());
            part.map(|part| part.content(&message).to_vec())
        };
        let failed = |returns| last(returns, Action::Failed, &whole);
        assert_eq!(failed(Some(Return::Full)).as_ref(), Some(&whole));
        assert_eq!((failed(Some(Return::Headers)), failed(None)), (None, None));
        assert_eq!(last(Some(Return::Full), Action::Relayed, &whole), None, "it has arrived");
        let long = [whole.clone(), b"x\r\n".repeat(100_000)].concat();
        let eight_bit = crlf("Subject: x\n\nGr\u{fc}\u{df}e\n");
        let clash =
            crlf(&format!("Subject: x\n\n--{}--\n", compose::boundary(MessageId::from_parts(1, [7; 10]))));
        for unfit in [long, eight_bit, clash, Vec::new()] {
            assert_eq!(last(Some(Return::Full), Action::Failed, &unfit), None);
        }
    }
}

mod real_messages;

mod whatever_comes {
    use proptest::prelude::*;

    use super::*;

    /// Octets made of what means something to a reader of messages.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "\r\n",
            "\n",
            "\r",
            "\r\n\r\n",
            "--",
            "--b",
            "--b--",
            "\r\n--b\r\n",
            "\r\n--b--\r\n",
            ":",
            ";",
            "=",
            "\"",
            "\\",
            "(",
            ")",
            "<",
            ">",
            "@",
            ",",
            "*0*=",
            "*1=",
            "'",
            "%41",
            "%",
            "=?utf-8?q?",
            "?=",
            "=?utf-7?b?",
            "a",
            " ",
            "\t",
            "Content-Type: ",
            "multipart/alternative; boundary=b",
            "text/html; charset=utf-16",
            "; name=",
            "message/rfc822",
            "Content-Transfer-Encoding: base64\r\n",
            "From: ",
            "Date: ",
            "1 Jan 99 24:61:61 +9999",
            "<p>&#x110000;",
            "é",
        ];
        let piece = prop_oneof![
            4 => proptest::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ];
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn reading_ends_and_stays_inside(message in message()) {
            let facts = HeaderFacts::of(&message);
            prop_assert!(serde_json::to_string(&facts).is_ok());
            let structure = scan(&message).expect("short");
            for (index, part) in structure.parts.iter().enumerate() {
                prop_assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
                prop_assert!(part.body.start <= part.body.end && part.body.end <= message.len());
                prop_assert!(part.parent.is_none_or(|parent| parent < index && structure.parts[parent].container));
            }
            what_is_taken_apart::rejoined(&message, &structure);
            for opened in structure.attachments(&message).iter().filter_map(|a| structure.open(&message, a.index)) {
                if let Some(Ok(inner)) = opened.structure() {
                    what_is_taken_apart::rejoined(&opened.octets, &inner);
                }
            }
            prop_assert!(!terminal::safe_line(&text_of(&message)).contains(char::is_control));
        }

        #[test]
        fn text_and_subject_come_back(subject in "[^\\p{C}\\s]{0,40}( [^\\p{C}\\s]{1,90}){0,4}", text in "[^\\r]{0,300}") {
            let mailbox = |address: &str| DraftMailbox { name: Some(subject.clone()), address: address.parse().expect("valid") };
            let message = compose(&Draft {
                id: MessageId::from_parts(1, [7; 10]),
                from: mailbox("a@example.com"),
                to: vec![mailbox("b@example.com")],
                cc: Vec::new(),
                subject: subject.clone(),
                date: 0,
                in_reply_to: None,
                references: Vec::new(),
                text: text.clone(),
                attachments: Vec::new(),
                entities: Vec::new(),
            });
            prop_assert!(message.is_ascii());
            let longest = message.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
            prop_assert!(longest <= Some(100));
            let facts = HeaderFacts::of(&message);
            prop_assert_eq!(facts.subject.as_deref(), Some(subject.trim()));
            prop_assert_eq!(facts.to[0].name.as_deref().unwrap_or(""), subject.trim());
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            prop_assert_eq!(text_of(&message), text + end);
        }
    }
}
