//! The content that follows DATA (RFC 5321 §4.1.1.4, §4.5.2): dots unstuffed, rules kept, the end found; or that of
//! BDAT's chunks (RFC 3030), where a dot is a dot and the end is told. Of chunks that are BINARYMIME it is what
//! [`Reencoding`] makes of them, and that has to keep the same rules.
//!
//! Only CRLF ends a line and only CRLF.CRLF ends what follows DATA. A bare CR, a bare LF or a NUL spoils
//! the message, and the rest is read and dropped until the true end, where it is refused: never taken
//! with a guess, never repaired. The header is counted as it passes by (fields, octets, Received) but
//! not parsed. Memory does not grow with the message or its lines.

use memchr::memchr3;

use super::config::ContentLimits;
use super::reply::{Enhanced, Reply};
use crate::mime::{NotLines, Reencoding};

/// What is known of a message's content once it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Octets.
    pub bytes: u64,
    /// Whether it holds octets over 127: it needs 8BITMIME to travel on.
    pub eight_bit: bool,
    /// Whether its header does: it needs SMTPUTF8 to travel on.
    pub header_eight_bit: bool,
    /// Received fields: the hosts it has passed.
    pub hops: usize,
}

/// Why content is refused at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A bare CR, a bare LF or a NUL.
    Framing,
    /// The same in a message that is BINARYMIME, where it cannot be written in base64.
    NotLines(NotLines),
    LineTooLong,
    TooLarge,
    /// Of a message that is BINARYMIME: what becomes of it.
    TooLargeInLines,
    HeaderTooLarge,
    TooManyFields,
    Loop,
}

impl Fault {
    /// The refusal, naming the limit that was passed.
    pub(super) fn reply(self, limits: &ContentLimits) -> Reply {
        let (code, enhanced, text) = match self {
            Self::Framing => (
                550,
                Enhanced(5, 6, 11),
                "the message holds a bare CR, a bare LF or a NUL: lines end in CRLF".into(),
            ),
            Self::NotLines(why) => {
                let (code, enhanced, mend) = match why {
                    NotLines::Header => (550, Enhanced(5, 6, 11), "its lines end in CRLF"),
                    NotLines::Unlabelled | NotLines::NotMime => {
                        (550, Enhanced(5, 6, 11), "label it as MIME has it, or send it in base64")
                    }
                    // It would have to be converted, and cannot be.
                    NotLines::Signed | NotLines::Composite | NotLines::Ambiguous | NotLines::TooComplex => {
                        (554, Enhanced(5, 6, 3), "send what is binary in base64")
                    }
                };
                (code, enhanced, format!("there is a bare CR, a bare LF or a NUL {why}: {mend}"))
            }
            Self::LineTooLong => {
                let text =
                    format!("a line is longer than {} octets: encode the message", limits.line_bytes_max);
                (550, Enhanced(5, 6, 0), text)
            }
            Self::TooLarge => {
                (552, Enhanced(5, 3, 4), format!("the message is larger than {} octets", limits.bytes_max))
            }
            Self::TooLargeInLines => {
                let text = format!(
                    "the message is larger than {} octets when its binary parts are in base64",
                    limits.bytes_max
                );
                (552, Enhanced(5, 3, 4), text)
            }
            Self::HeaderTooLarge => (
                552,
                Enhanced(5, 6, 0),
                format!("the header is larger than {} octets", limits.header_bytes_max),
            ),
            Self::TooManyFields => {
                (552, Enhanced(5, 6, 0), format!("the header has more than {} fields", limits.fields_max))
            }
            Self::Loop => {
                let text =
                    format!("the message goes round in a loop: it has passed {} hosts", limits.hops_max);
                (554, Enhanced(5, 4, 6), text)
            }
        };
        Reply::new(code, enhanced, &text)
    }
}

/// Where in a line the next octet falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    /// After a dot that began a line.
    Dot,
    /// After that and a CR: the end, if LF follows.
    DotCr,
    Text,
    Cr,
}

/// What one call of [`Decoder::decode`] gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Content, its dots unstuffed; empty once there is a fault.
    pub content: Vec<u8>,
    /// Octets of the input that were read.
    pub consumed: usize,
    /// The closing dot was among them.
    pub ended: bool,
}

/// Reads one message's content, in pieces of any size.
#[derive(Debug)]
pub(super) struct Decoder {
    limits: ContentLimits,
    /// A dot that begins a line is doubled, or the end.
    stuffed: bool,
    /// What makes lines of chunks that are BINARYMIME.
    reencoding: Option<Box<Reencoding>>,
    place: Place,
    line_bytes: usize,
    bytes: u64,
    /// Octets as they came, whatever became of them.
    received: u64,
    eight_bit: bool,
    header: Header,
    fault: Option<Fault>,
}

impl Decoder {
    /// Of what follows DATA.
    pub(super) fn new(limits: ContentLimits) -> Self {
        Self {
            limits,
            stuffed: true,
            reencoding: None,
            place: Place::Start,
            line_bytes: 0,
            bytes: 0,
            received: 0,
            eight_bit: false,
            header: Header::default(),
            fault: None,
        }
    }

    /// Of BDAT's chunks, one after the other.
    pub(super) fn of_chunks(limits: ContentLimits) -> Self {
        Self { stuffed: false, ..Self::new(limits) }
    }

    /// Of the chunks of a message that is BINARYMIME.
    pub(super) fn of_binary_chunks(limits: ContentLimits) -> Self {
        Self { reencoding: Some(Box::default()), ..Self::of_chunks(limits) }
    }

    /// Whether content is made of what comes, rather than that itself.
    pub(super) fn is_binary(&self) -> bool {
        self.reencoding.is_some()
    }

    /// Reads octets of a chunk, with the `last` ones of the message: the content that they give.
    pub(super) fn chunk(&mut self, input: &[u8], last: bool) -> Vec<u8> {
        let mut content = match self.reencoding.take() {
            None => self.decode(input).content,
            Some(reencoding) => self.binary_chunk(reencoding, input, last),
        };
        if last {
            content.extend_from_slice(self.finish_chunks());
        }
        content
    }

    /// The limit of a message's octets counts twice: for those that come, and for what becomes of them.
    fn binary_chunk(&mut self, mut reencoding: Box<Reencoding>, input: &[u8], last: bool) -> Vec<u8> {
        let received = self.received.saturating_add(input.len() as u64);
        if received > self.limits.bytes_max {
            self.fail(Fault::TooLarge);
        }
        let mut lines = Vec::new();
        if self.fault.is_none() {
            let mut done = reencoding.push(input, &mut lines);
            if last {
                done = done.and_then(|()| reencoding.finish(&mut lines));
            }
            if let Err(why) = done {
                self.fail(Fault::NotLines(why));
            }
        }
        self.reencoding = Some(reencoding);
        let content = self.decode(&lines).content;
        self.received = received;
        content
    }

    /// The last chunk has been read: what its last line lacks of a CRLF, for content is lines.
    fn finish_chunks(&mut self) -> &'static [u8] {
        match self.place {
            Place::Text => {
                self.end_of_line();
                self.bytes = self.bytes.saturating_add(2);
                b"\r\n"
            }
            Place::Cr => {
                self.fail(Fault::Framing);
                b""
            }
            Place::Start | Place::Dot | Place::DotCr => b"",
        }
    }

    /// What is wrong with the content so far. A fault stays; only a framing fault displaces another,
    /// since the session must not go on after it, and not one that says the same and where.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Octets that have come, whether kept or dropped.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// What is known of the content.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            bytes: self.bytes,
            eight_bit: self.eight_bit,
            header_eight_bit: self.header.eight_bit,
            hops: self.header.hops,
        }
    }

    /// Reads `input`, up to the closing dot if it is there.
    pub(super) fn decode(&mut self, input: &[u8]) -> Decoded {
        let mut content = Vec::with_capacity(input.len());
        let mut at = 0;
        let mut kept_from = 0;
        let mut ended = false;
        while let (false, Some(octet)) = (ended, input.get(at)) {
            match (self.place, octet) {
                (Place::Start, b'.') if self.stuffed => {
                    // The first dot of a line is never content.
                    content.extend_from_slice(input.get(kept_from..at).unwrap_or_default());
                    self.place = Place::Dot;
                    at += 1;
                    kept_from = at;
                }
                (Place::Dot, b'\r') => {
                    self.place = Place::DotCr;
                    at += 1;
                    kept_from = at;
                }
                (Place::DotCr, b'\n') => {
                    ended = true;
                    at += 1;
                    kept_from = at;
                }
                (Place::Cr, b'\n') => {
                    self.end_of_line();
                    at += 1;
                }
                (Place::Cr | Place::DotCr, _) => {
                    self.fail(Fault::Framing);
                    self.place = Place::Text;
                }
                (Place::Start | Place::Dot | Place::Text, _) => {
                    at += self.text(input.get(at..).unwrap_or_default());
                }
            }
        }
        content.extend_from_slice(input.get(kept_from..at).unwrap_or_default());
        self.count(at, &mut content);
        Decoded { content, consumed: at, ended }
    }

    /// Reads up to and with the next octet that is not plain text; returns how many that were.
    fn text(&mut self, input: &[u8]) -> usize {
        let length = memchr3(b'\r', b'\n', 0, input).unwrap_or(input.len());
        let (text, rest) = input.split_at(length);
        self.place = Place::Text;
        self.line_bytes = self.line_bytes.saturating_add(length);
        if self.line_bytes > self.limits.line_bytes_max {
            self.fail(Fault::LineTooLong);
        }
        self.header.text(text);
        match rest.first() {
            None => return length,
            Some(b'\r') => self.place = Place::Cr,
            Some(_) => self.fail(Fault::Framing),
        }
        length + 1
    }

    fn end_of_line(&mut self) {
        self.place = Place::Start;
        self.line_bytes = 0;
        self.header.end_of_line();
        if self.header.bytes > self.limits.header_bytes_max {
            self.fail(Fault::HeaderTooLarge);
        }
        if self.header.fields > self.limits.fields_max {
            self.fail(Fault::TooManyFields);
        }
        if self.header.hops > self.limits.hops_max {
            self.fail(Fault::Loop);
        }
    }

    fn count(&mut self, received: usize, content: &mut Vec<u8>) {
        self.received = self.received.saturating_add(received as u64);
        self.bytes = self.bytes.saturating_add(content.len() as u64);
        self.eight_bit |= !content.is_ascii();
        if self.bytes > self.limits.bytes_max {
            self.fail(if self.is_binary() { Fault::TooLargeInLines } else { Fault::TooLarge });
        }
        if self.fault.is_some() {
            content.clear();
        }
    }

    fn fail(&mut self, fault: Fault) {
        let is_named = matches!(self.fault, Some(Fault::NotLines(_)));
        if self.fault.is_none() || (fault == Fault::Framing && !is_named) {
            self.fault = Some(fault);
        }
    }
}

/// Counts a header as it passes by. It ends at an empty line, or at one that cannot belong to it.
#[derive(Debug, Default)]
struct Header {
    ended: bool,
    line: HeaderLine,
    /// The first octets of the current field's name, in lower case.
    name: Vec<u8>,
    bytes: usize,
    fields: usize,
    hops: usize,
    eight_bit: bool,
}

/// What the current line of a header is, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HeaderLine {
    /// Nothing of it has come.
    #[default]
    Start,
    /// A field's name is coming.
    Name,
    /// White space after the name, which an old syntax allows before the colon.
    BeforeColon,
    /// The colon was there, or the line goes on with an earlier field.
    Body,
}

impl Header {
    const RECEIVED: &[u8] = b"received";

    fn text(&mut self, text: &[u8]) {
        if self.ended {
            return;
        }
        self.bytes = self.bytes.saturating_add(text.len());
        for octet in text {
            self.line = match (self.line, octet) {
                (HeaderLine::Body, _) => break,
                (HeaderLine::Start, b' ' | b'\t') => HeaderLine::Body,
                (HeaderLine::Name | HeaderLine::BeforeColon, b' ' | b'\t') => HeaderLine::BeforeColon,
                (HeaderLine::Name | HeaderLine::BeforeColon, b':') => self.field(),
                (HeaderLine::Start | HeaderLine::Name, b'!'..=b'~') => self.letter(*octet),
                _ => {
                    self.ended = true;
                    return;
                }
            }
        }
        self.eight_bit |= !text.is_ascii();
    }

    fn letter(&mut self, octet: u8) -> HeaderLine {
        // One more than is compared, so that a longer name is not taken for it.
        if self.name.len() <= Self::RECEIVED.len() {
            self.name.push(octet.to_ascii_lowercase());
        }
        HeaderLine::Name
    }

    fn field(&mut self) -> HeaderLine {
        self.fields += 1;
        self.hops += usize::from(self.name == Self::RECEIVED);
        HeaderLine::Body
    }

    fn end_of_line(&mut self) {
        if self.ended {
            return;
        }
        self.ended = self.line != HeaderLine::Body;
        if !self.ended {
            self.bytes = self.bytes.saturating_add(2);
        }
        self.line = HeaderLine::Start;
        self.name.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DotStuffing;

    /// The content and what became of it, from input in pieces; the rest after the end must be empty.
    fn decode(pieces: &[&[u8]], limits: ContentLimits) -> (Vec<u8>, Decoder, bool) {
        let mut decoder = Decoder::new(limits);
        let mut content = Vec::new();
        for piece in pieces {
            let decoded = decoder.decode(piece);
            content.extend_from_slice(&decoded.content);
            if decoded.ended {
                assert_eq!(decoded.consumed, piece.len(), "nothing follows the end");
                return (content, decoder, true);
            }
            assert_eq!(decoded.consumed, piece.len());
        }
        (content, decoder, false)
    }

    fn fault(content: &[u8], limits: ContentLimits) -> Option<Fault> {
        let (_, decoder, ended) = decode(&[content, b"\r\n.\r\n"], limits);
        assert!(ended, "the end is found whatever is wrong");
        decoder.fault()
    }

    #[test]
    fn dots_are_unstuffed_and_the_end_is_found_at_any_cut() {
        let wire = b"..\r\n.a\r\n. \r\nb.\r\n\r\n...\r\n\r\n.\r\n";
        let expected = b".\r\na\r\n \r\nb.\r\n\r\n..\r\n\r\n";
        for first in 0..=wire.len() {
            for second in first..wire.len() {
                let pieces = [&wire[..first], &wire[first..second], &wire[second..]];
                let (content, decoder, ended) = decode(&pieces, ContentLimits::default());
                assert_eq!((content.as_slice(), decoder.fault(), ended), (&expected[..], None, true));
            }
        }
    }

    /// RFC 3030 §2: chunks may end anywhere, and a dot is no end.
    #[test]
    fn chunks_are_content_as_it_is() {
        let read = |pieces: &[&[u8]]| {
            let mut decoder = Decoder::of_chunks(ContentLimits::default());
            let mut content: Vec<u8> = pieces.iter().flat_map(|piece| decoder.chunk(piece, false)).collect();
            content.extend(decoder.chunk(b"", true));
            (content, decoder.facts().bytes, decoder.fault())
        };
        let wire = b".\r\n..a\r\n\r\n.\r\nb\r\n.";
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let (content, bytes, fault) = read(&[&wire[..first], &wire[first..second], &wire[second..]]);
                assert_eq!(content, [&wire[..], b"\r\n"].concat(), "cut at {first} and {second}");
                assert_eq!((bytes, fault), (content.len() as u64, None));
            }
        }
        assert_eq!(read(&[b"a\r\n"]), (b"a\r\n".to_vec(), 3, None), "a line that has ended");
        assert_eq!(read(&[]), (vec![], 0, None));
        for bad in [&b"a\r"[..], b"a\nb", b"\0", b"\n.\n", b"a\r\r\n"] {
            assert_eq!(read(&[bad]).2, Some(Fault::Framing), "{bad:?}");
        }
    }

    #[test]
    fn empty_content_ends_at_once() {
        let (content, decoder, ended) = decode(&[b".\r\n"], ContentLimits::default());
        assert_eq!((content.len(), decoder.fault(), ended), (0, None, true));
    }

    /// T02: whatever we write, a strict reader reads as one message, unchanged.
    #[test]
    fn what_is_written_is_read_back() {
        let mut random = crate::smtp::tests::Random::new(2);
        let limits = ContentLimits { line_bytes_max: 8_192, ..ContentLimits::default() };
        for round in 0..2_000 {
            let mut content = Vec::new();
            while random.below(8) != 0 {
                let words = [&b"."[..], b"..", b"\r\n", b"a", b"\xff", b"text of some length", b" "];
                content.extend_from_slice(words[random.below(words.len())]);
            }
            let mut wire = Vec::new();
            let mut stuffing = DotStuffing::new();
            let cut = random.below(content.len() + 1);
            stuffing.piece(&content[..cut], &mut wire).expect("sound content");
            stuffing.piece(&content[cut..], &mut wire).expect("sound content");
            stuffing.finish(&mut wire).expect("sound content");
            if !content.is_empty() && !content.ends_with(b"\r\n") {
                content.extend_from_slice(b"\r\n");
            }
            let cut = random.below(wire.len());
            let (read, decoder, ended) = decode(&[&wire[..cut], &wire[cut..]], limits);
            assert_eq!((read, decoder.fault(), ended), (content, None, true), "round {round}");
        }
    }

    /// T02: a dot at every boundary of a buffer.
    #[test]
    fn a_dot_after_lines_of_every_length() {
        let limits = ContentLimits { line_bytes_max: 8_192, ..ContentLimits::default() };
        for length in 1..=8_192 {
            let content = [&vec![b'x'; length][..], b"\r\n.\r\n"].concat();
            let mut wire = Vec::new();
            let mut stuffing = DotStuffing::new();
            stuffing.piece(&content, &mut wire).expect("sound content");
            stuffing.finish(&mut wire).expect("sound content");
            let (first, second) = wire.split_at(length);
            let (read, decoder, ended) = decode(&[first, second], limits);
            assert_eq!((read, decoder.fault(), ended), (content, None, true), "length {length}");
        }
    }

    #[test]
    fn bare_line_ends_and_nul_spoil_the_message() {
        for bad in [&b"a\nb"[..], b"a\rb", b"a\0b", b"\n", b"\r", b"a\r\n.\n", b"a\r\n.\rb", b"a\n.\r\nb"] {
            assert_eq!(fault(bad, ContentLimits::default()), Some(Fault::Framing), "{bad:?}");
        }
    }

    #[test]
    fn each_limit_holds_to_the_octet() {
        let limits = ContentLimits {
            bytes_max: 100,
            line_bytes_max: 20,
            header_bytes_max: 40,
            fields_max: 3,
            hops_max: 2,
        };
        let cases: [(String, Option<Fault>); 10] = [
            ("x".repeat(20), None),
            ("x".repeat(21), Some(Fault::LineTooLong)),
            (format!("{}{}", "x\r\n".repeat(32), "xx"), None),
            (format!("{}{}", "x\r\n".repeat(32), "xxx"), Some(Fault::TooLarge)),
            (format!("a:{0}\r\nb:{0}\r\n\r\n", "x".repeat(16)), None),
            (format!("a:{0}\r\nb:{0}x\r\n\r\n", "x".repeat(16)), Some(Fault::HeaderTooLarge)),
            ("a:\r\nb:\r\nc:\r\n d:\r\n\r\ne:".into(), None),
            ("a:\r\nb:\r\nc:\r\nd:".into(), Some(Fault::TooManyFields)),
            ("Received:\r\nRECEIVED :\r\n\r\nReceived:".into(), None),
            ("Received:\r\nreceived:\r\nReceived:".into(), Some(Fault::Loop)),
        ];
        for (content, expected) in cases {
            assert_eq!(fault(content.as_bytes(), limits), expected, "{content:?}");
        }
    }

    #[test]
    fn only_real_received_fields_count_as_hops() {
        let header = "Received: a\r\n b\r\nReceived-SPF: pass\r\nX-Received: c\r\nreceiveD\t: d\r\n\r\nReceived: e\r\n";
        for cut in 0..header.len() {
            let (first, second) = header.as_bytes().split_at(cut);
            let (_, decoder, _) = decode(&[first, second, b".\r\n"], ContentLimits::default());
            assert_eq!(decoder.facts().hops, 2, "cut at {cut}");
        }
    }

    #[test]
    fn facts_tell_what_the_message_needs_to_travel_on() {
        let facts = |content: &str| {
            let wire = format!("{content}\r\n.\r\n");
            decode(&[wire.as_bytes()], ContentLimits::default()).1.facts()
        };
        let plain = facts("Subject: a\r\n\r\nb");
        assert_eq!((plain.bytes, plain.eight_bit, plain.header_eight_bit), (17, false, false));
        let body = facts("Subject: a\r\n\r\n\u{fc}");
        assert_eq!((body.eight_bit, body.header_eight_bit), (true, false));
        let header = facts("Subject: \u{fc}\r\n\r\nb");
        assert_eq!((header.eight_bit, header.header_eight_bit), (true, true));
    }
}
