//! What a reply needs to know of a header (design §8): read once, at entry, by a bounded scan.

use jiff::fmt::rfc2822::DateTimeParser;
use serde::{Deserialize, Serialize};

use super::address_list::{self, Mailbox};
use super::header::{self, Field, HEADERS_MAX};
use crate::tls_wish::FIELD as TLS_FIELD;

/// Message-IDs of one field that are kept, the first and the latest.
pub const REFERENCES_MAX: usize = 100;
/// Octets of a Message-ID; RFC 5322 §2.1.1 limits a line to 998.
pub const MESSAGE_ID_MAX: usize = 998;
/// Characters of a subject that are kept.
pub const SUBJECT_MAX: usize = 998;
/// Characters of a small field (Precedence, Content-Language …) that are kept.
const WORD_MAX: usize = 256;
/// Octets of a date that are looked at.
const DATE_MAX: usize = 256;

/// Fields that a message may have once (RFC 5322 §3.6, RFC 2045 §3).
const SINGLETONS: [&str; 15] = [
    "Date",
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Subject",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    TLS_FIELD,
];

/// The fields of a header that a reply, a list of messages and loop protection go by.
///
/// What others wrote, decoded and cut, but not otherwise judged. Of a field that comes twice the
/// first counts, and `duplicated` names it: programs disagree on which one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderFacts {
    /// Who wrote it.
    pub from: Vec<Mailbox>,
    /// Who sent it, if that is somebody else.
    pub sender: Vec<Mailbox>,
    /// Where answers are to go.
    pub reply_to: Vec<Mailbox>,
    /// Where answers to all are to go (a list's convention).
    pub mail_followup_to: Vec<Mailbox>,
    /// Who it is to.
    pub to: Vec<Mailbox>,
    /// Who has a copy.
    pub cc: Vec<Mailbox>,
    /// The subject.
    pub subject: Option<String>,
    /// When it says it was written, in seconds since 1970.
    pub date: Option<i64>,
    /// The Message-ID, without its angle brackets.
    pub message_id: Option<String>,
    /// What it answers: Message-IDs without their angle brackets.
    pub in_reply_to: Vec<String>,
    /// The conversation, oldest first.
    pub references: Vec<String>,
    /// The language of the content (RFC 3282).
    pub content_language: Option<String>,
    /// The mailing list it came by (RFC 2919).
    pub list_id: Option<String>,
    /// Where messages for that list go (RFC 2369 §3.4).
    pub list_post: Option<ListPost>,
    /// `bulk`, `list`, `junk`.
    pub precedence: Option<String>,
    /// `auto-generated`, `auto-replied` …: no automatic answer to it (RFC 3834 §2).
    pub auto_submitted: Option<String>,
    /// The sender wishes that it arrives, under TLS or not: `TLS-Required: No`, once (RFC 8689 §5).
    pub tls_dispensable: bool,
    /// How many Received fields there are: hosts it has passed (RFC 5321 §6.3).
    pub received: usize,
    /// Fields that may come once and came more often.
    pub duplicated: Vec<String>,
    /// The header was longer than what is read; something may be missing here.
    pub cut: bool,
}

impl HeaderFacts {
    /// Reads a header block, or the beginning of a message.
    pub fn of(block: &[u8]) -> Self {
        let mut facts = Self::default();
        let mut seen = [0_u32; SINGLETONS.len()];
        let mut fields = 0;
        for field in header::fields(block) {
            fields += 1;
            let singleton = SINGLETONS.iter().zip(&mut seen).find(|(name, _)| field.is(name));
            if let Some((name, times)) = singleton {
                *times += 1;
                match *times {
                    1 => {}
                    2 => {
                        facts.duplicated.push((*name).to_owned());
                        continue;
                    }
                    _ => continue,
                }
            }
            facts.note(field);
        }
        facts.cut = fields == HEADERS_MAX || header::header_len(block) > header::HEADER_BLOCK_MAX;
        facts
    }

    /// Whether a program sent it, so that no program may answer (RFC 3834 §2).
    pub fn is_automatic(&self) -> bool {
        let is = |field: &Option<String>, words: &[&str]| {
            field.as_ref().is_some_and(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
        };
        let submitted = self.auto_submitted.is_some() && !is(&self.auto_submitted, &["no"]);
        submitted || self.list_id.is_some() || is(&self.precedence, &["bulk", "list", "junk"])
    }

    fn note(&mut self, field: Field<'_>) {
        let mailboxes = || address_list::parse(&field.unfolded());
        let word = || Some(field.text().chars().take(WORD_MAX).collect());
        match field.name.to_ascii_lowercase().as_str() {
            "from" => self.from = mailboxes(),
            "sender" => self.sender = mailboxes(),
            "reply-to" => self.reply_to = mailboxes(),
            "mail-followup-to" => self.mail_followup_to = mailboxes(),
            "to" => self.to = mailboxes(),
            "cc" => self.cc = mailboxes(),
            "subject" => self.subject = Some(field.text().chars().take(SUBJECT_MAX).collect()),
            "date" => self.date = date(&field.unfolded()),
            "message-id" => self.message_id = message_ids(&field.unfolded()).into_iter().next(),
            "in-reply-to" => self.in_reply_to = message_ids(&field.unfolded()),
            "references" => self.references = message_ids(&field.unfolded()),
            "content-language" => self.content_language = word(),
            "list-id" => self.list_id = word(),
            "list-post" => self.list_post = list_post(&field.unfolded()),
            "precedence" => self.precedence = word(),
            "tls-required" => self.tls_dispensable = field.unfolded().trim().eq_ignore_ascii_case("no"),
            "auto-submitted" => self.auto_submitted = word(),
            "received" => self.received += 1,
            _ => {}
        }
    }
}

/// Where a mailing list takes messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListPost {
    /// Nowhere: it is for reading only.
    Closed,
    /// At this address, as it was written.
    To(String),
}

/// The first address of a List-Post field; other ways than mail are passed over.
fn list_post(text: &str) -> Option<ListPost> {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    if !text.contains('<') && words.next().is_some_and(|word| word.eq_ignore_ascii_case("no")) {
        return Some(ListPost::Closed);
    }
    let urls = text.split('<').skip(1).filter_map(|rest| Some(rest.split_once('>')?.0.trim()));
    let mailto = |url: &str| {
        let (scheme, rest) = url.split_once(':')?;
        let address = rest.split('?').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case("mailto").then(|| percent_decoded(address))
    };
    urls.filter_map(mailto).find(|address| address.contains('@')).map(ListPost::To)
}

/// A part of a URL with its octets decoded (RFC 3986 §2.1).
fn percent_decoded(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((octet, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *octet == b'%') {
            Some(decoded) => {
                octets.push(decoded);
                rest = &behind[2..];
            }
            None => {
                octets.push(*octet);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// The texts between angle brackets; the first and the latest of too many.
fn message_ids(text: &str) -> Vec<String> {
    let is_id =
        |id: &&str| !id.is_empty() && id.len() <= MESSAGE_ID_MAX && id.bytes().all(|b| b.is_ascii_graphic());
    let bracketed = text.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
    let mut ids: Vec<_> = bracketed.map(|(id, _)| id.trim()).filter(is_id).map(str::to_owned).collect();
    if ids.len() > REFERENCES_MAX {
        ids.drain(1..=ids.len() - REFERENCES_MAX);
    }
    ids
}

/// Seconds since 1970 of an RFC 5322 date: as it should be, or else as it often is.
fn date(text: &str) -> Option<i64> {
    let (text, _) = text.split_at(text.floor_char_boundary(DATE_MAX));
    let strict = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok();
    let lenient = || mail_parser::DateTime::parse_rfc822(text).filter(mail_parser::DateTime::is_valid);
    strict.map(|timestamp| timestamp.as_second()).or_else(|| Some(lenient()?.to_timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_an_ordinary_header() {
        let facts = HeaderFacts::of(
            b"Received: from a\r\nReceived: from b\r\nFrom: Alice <a@example.com>\r\nReply-To: r@example.com\r\n\
              Sender: s@example.com\r\nTo: b@example.com,\r\n c@example.com\r\nMail-Followup-To: l@example.com\r\n\
              Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nDate: Thu, 1 Jan 1970 01:00:07 +0100 (CET)\r\n\
              Message-ID: <1@example.com>\r\nIn-Reply-To: your note <0@example.com>\r\n\
              References: <x@example.com>\r\n <0@example.com>\r\nContent-Language: de\r\n\r\nSubject: body\r\n",
        );
        let addresses =
            |list: &[Mailbox]| list.iter().map(|m| m.address.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(facts.from, [Mailbox { name: Some("Alice".into()), address: "a@example.com".into() }]);
        assert_eq!(addresses(&facts.to), "b@example.com c@example.com");
        assert_eq!(addresses(&facts.reply_to), "r@example.com");
        assert_eq!(addresses(&facts.sender), "s@example.com");
        assert_eq!(addresses(&facts.mail_followup_to), "l@example.com");
        assert_eq!(facts.subject.as_deref(), Some("Grüße"));
        assert_eq!(facts.date, Some(7));
        assert_eq!(facts.message_id.as_deref(), Some("1@example.com"));
        assert_eq!(facts.in_reply_to, ["0@example.com"]);
        assert_eq!(facts.references, ["x@example.com", "0@example.com"]);
        assert_eq!(facts.content_language.as_deref(), Some("de"));
        assert_eq!((facts.received, facts.cut, facts.is_automatic()), (2, false, false));
        assert!(facts.duplicated.is_empty());
    }

    #[test]
    fn of_a_doubled_field_the_first_counts_and_it_is_said() {
        let facts = HeaderFacts::of(
            b"From: a@example.com\r\nFROM: b@example.com\r\nfrom: c@example.com\r\n\
                                      Content-Type: a/b\r\nContent-Type: c/d\r\nX-Any: 1\r\nX-Any: 2\r\n\r\n",
        );
        assert_eq!(facts.from.len(), 1);
        assert_eq!(facts.from[0].address, "a@example.com");
        assert_eq!(facts.duplicated, ["From", "Content-Type"]);
    }

    #[test]
    fn a_list_says_where_it_takes_messages() {
        let to = |address: &str| Some(ListPost::To(address.to_owned()));
        for (text, expected) in [
            ("<mailto:l@lists.example>", to("l@lists.example")),
            (
                "<https://lists.example/post>, <mailto:l@lists.example?subject=x> (members)",
                to("l@lists.example"),
            ),
            ("<MAILTO:l%2Bdev@lists.example>", to("l+dev@lists.example")),
            ("NO (posting is closed)", Some(ListPost::Closed)),
            ("no", Some(ListPost::Closed)),
            ("<https://lists.example/post>", None),
            ("<mailto:>", None),
            ("<mailto:l@lists.example", None),
            ("<mailto:%zz%@x>", to("%zz%@x")),
            ("", None),
        ] {
            let facts = HeaderFacts::of(format!("List-Post: {text}\r\n").as_bytes());
            assert_eq!(facts.list_post, expected, "{text}");
        }
    }

    #[test]
    fn programs_are_told_from_people() {
        let automatic = |header: &str| HeaderFacts::of(header.as_bytes()).is_automatic();
        assert!(automatic("Auto-Submitted: auto-replied\r\n"));
        assert!(automatic("Precedence: Bulk\r\n"));
        assert!(automatic("List-Id: <l.example.com>\r\n"));
        assert!(!automatic("Auto-Submitted: no\r\n"));
    }

    #[test]
    fn everything_is_cut() {
        let ids: String = (0..REFERENCES_MAX + 50).map(|n| format!(" <{n}@x>\r\n")).collect();
        let facts = HeaderFacts::of(format!("References:{ids}Subject: {}\r\n", "é".repeat(5_000)).as_bytes());
        assert_eq!(facts.references.len(), REFERENCES_MAX);
        assert_eq!((facts.references[0].as_str(), facts.references[1].as_str()), ("0@x", "51@x"));
        assert_eq!(facts.references[REFERENCES_MAX - 1], "149@x");
        assert_eq!(facts.subject.map(|subject| subject.chars().count()), Some(SUBJECT_MAX));
        assert!(HeaderFacts::of("A: b\r\n".repeat(HEADERS_MAX).as_bytes()).cut);
        let long = format!("A: {}\r\n\r\n", "x".repeat(header::HEADER_BLOCK_MAX));
        assert!(HeaderFacts::of(long.as_bytes()).cut);
    }

    #[test]
    fn dates_are_read_as_they_come() {
        for text in
            ["Thu, 1 Jan 1970 00:00:07 +0000", "1 Jan 70 0:00:07 GMT", "Fri, 1 Jan 1970 01:00:07 +0100 (CET)"]
        {
            assert_eq!(date(text), Some(7), "{text}");
        }
    }

    #[test]
    fn a_bad_date_is_none() {
        for text in ["", "yesterday", "Thu, 99 Jan 99999999999999999999 00:00:00 +9999", &"(".repeat(9_999)] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
