//! The signature of a message: which fields of its header it is over, and the field that it becomes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shared::address::{Address, Domain};
use shared::dkim::{BodyHash, Form};
use shared::mime::{Field, HEADER_BLOCK_MAX, HeaderFacts, fields, header_len};

use super::canonical;
use super::key::Key;

/// What is signed where it is there (RFC 6376 §5.4.1, RFC 8058 §4): who wrote, to whom, when, about what, and how the
/// body is to be read.
const SIGNED: [&str; 17] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Id",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];
/// Those that nobody may add either where there are none: they say who is answered, or how the body is read.
const ALWAYS: [&str; 8] =
    ["From", "Reply-To", "To", "Cc", "Subject", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];
/// Fields that one signature is over. A message with more of them is not signed: nobody writes such mail.
const FIELDS_MAX: usize = 100;
/// Columns of a line of the signature.
const LINE_MAX: usize = 76;

/// What of a message is signed.
#[derive(Debug)]
pub struct Content<'a> {
    /// Its header, without our trace.
    pub header: &'a [u8],
    /// The hash of its body.
    pub body: [u8; 32],
}

impl<'a> Content<'a> {
    /// That of a message which is all there.
    pub fn of(message: &'a [u8]) -> Self {
        let (header, body) = message.split_at(header_len(message));
        let mut hash = BodyHash::new(Form::Relaxed);
        hash.update(body);
        Self { header, body: hash.finish() }
    }

    /// The domains of those in From, in order.
    pub fn author_domains(&self) -> impl Iterator<Item = Domain> {
        let from = HeaderFacts::of(self.header).from.into_iter();
        from.filter_map(|mailbox| mailbox.address.parse::<Address>().ok())
            .map(|address| address.domain().clone())
    }
}

/// The signature with one key, made at `at`, seconds since 1970, as a header field with the end of its line. `None` if
/// the header is longer than any that is read, or has more fields than any that is written.
pub fn field(key: &Key, content: &Content<'_>, at: u64) -> Option<String> {
    // Of a longer one not every field is known, and those that are not are not signed.
    if content.header.len() >= HEADER_BLOCK_MAX {
        return None;
    }
    let present: Vec<Field<'_>> = fields(content.header).collect();
    let (mut names, mut signed) = (Vec::new(), Vec::new());
    for name in SIGNED {
        // From the last one up (RFC 6376 §5.4.2), and once more: so nobody can add another one.
        let before = names.len();
        for field in present.iter().rev().filter(|field| field.is(name)) {
            names.push(name);
            canonical::field(field, &mut signed);
            signed.extend_from_slice(b"\r\n");
        }
        if names.len() > before || ALWAYS.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > FIELDS_MAX {
        return None;
    }
    let mut value = format!(
        " v=1; a={}-sha256; c=relaxed/relaxed;\r\n\td={}; s={};\r\n\tt={at}; bh={};\r\n\t",
        key.algorithm.as_str(),
        key.domain,
        key.selector,
        STANDARD.encode(content.body),
    );
    let listed = names.iter().enumerate().map(|(n, name)| match n {
        0 => format!("h={name}"),
        _ => format!(":{name}"),
    });
    fold(&mut value, listed.chain([";".to_owned()]));
    value.push_str("\r\n\tb=");
    let own = Field { name: "DKIM-Signature", raw: value.as_bytes() };
    canonical::field(&own, &mut signed);
    let signature = STANDARD.encode(key.sign(&signed)?);
    fold(&mut value, signature.as_bytes().chunks(LINE_MAX - 4).map(|piece| String::from_utf8_lossy(piece)));
    Some(format!("DKIM-Signature:{value}\r\n"))
}

/// Appends pieces, and begins a new line before one that does not fit.
fn fold(text: &mut String, pieces: impl Iterator<Item = impl AsRef<str>>) {
    for piece in pieces {
        let column = text.len() - text.rfind('\n').map_or(0, |end| end + 1);
        if column + piece.as_ref().len() > LINE_MAX && !text.ends_with('\t') {
            text.push_str("\r\n\t");
        }
        text.push_str(piece.as_ref());
    }
}
