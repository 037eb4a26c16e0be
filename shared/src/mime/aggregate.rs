//! Writes the mail that brings an aggregate report (RFC 8460 §5.3, RFC 7489 §7.2.1): a text for a person, and the report, compressed.

use super::compose::{begin_part, boundary, end_parts, message_id, text_part};
use super::write;
use crate::address::{Address, Domain};
use crate::id::MessageId;
use crate::tls_wish;

/// A report, and the mail that brings it.
#[derive(Clone, Debug)]
pub struct AggregateLetter {
    /// Its id, which the report has too.
    pub id: MessageId,
    /// Who reports; the domain is the submitter's.
    pub from: Address,
    /// To whom.
    pub to: Vec<Address>,
    /// When it is written, in seconds since 1970.
    pub date: i64,
    /// The domain that it is about.
    pub domain: Domain,
    /// The first and the last second of the time that it is about, since 1970.
    pub range: (u64, u64),
    /// What it says to a person.
    pub text: String,
    /// The report, compressed (gzip).
    pub document: Vec<u8>,
}

/// The mail that brings a report of TLS. It is to arrive where TLS is what fails (RFC 8460 §3, RFC 8689).
pub fn tls_report(letter: &AggregateLetter) -> Vec<u8> {
    let submitter = letter.from.domain();
    let mut out = head(letter);
    write::field(&mut out, "TLS-Report-Domain", [letter.domain.to_string()]);
    write::field(&mut out, "TLS-Report-Submitter", [submitter.to_string()]);
    write::field(&mut out, tls_wish::FIELD, ["No".into()]);
    parts(
        &mut out,
        letter,
        ["multipart/report;", "report-type=\"tlsrpt\";"],
        "application/tlsrpt+gzip",
        "json",
    );
    out
}

/// The mail that brings a report of DMARC.
pub fn dmarc_report(letter: &AggregateLetter) -> Vec<u8> {
    let mut out = head(letter);
    parts(&mut out, letter, ["multipart/mixed;"], "application/gzip", "xml");
    out
}

fn head(letter: &AggregateLetter) -> Vec<u8> {
    let AggregateLetter { id, from, to, date, domain, .. } = letter;
    let (mut out, submitter) = (Vec::new(), from.domain());
    let own_id = message_id(*id, submitter);
    write::field(&mut out, "From", write::mailbox(None, from));
    let mut mailboxes: Vec<String> = to.iter().flat_map(|to| write::mailbox(None, to)).collect();
    let last = mailboxes.len().saturating_sub(1);
    mailboxes.iter_mut().take(last).for_each(|mailbox| mailbox.push(','));
    write::field(&mut out, "To", mailboxes);
    let subject = format!("Report Domain: {domain} Submitter: {submitter} Report-ID: <{own_id}>");
    write::field(&mut out, "Subject", subject.split(' ').map(str::to_owned));
    write::field(&mut out, "Date", [write::date(*date)]);
    write::field(&mut out, "Message-ID", [format!("<{own_id}>")]);
    out.extend_from_slice(b"Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n");
    out
}

fn parts(
    out: &mut Vec<u8>,
    letter: &AggregateLetter,
    kind: impl IntoIterator<Item = &'static str>,
    media_type: &str,
    extension: &str,
) {
    let boundary = boundary(letter.id);
    let kind = kind.into_iter().map(str::to_owned).chain([format!("boundary=\"{boundary}\"")]);
    write::field(out, "Content-Type", kind);
    out.extend_from_slice(b"\r\n");
    begin_part(out, &boundary);
    text_part(out, &letter.text);
    begin_part(out, &boundary);
    // As one parameter, however long: programs look for it, and a domain's name is ASCII.
    let name = file_name(letter, extension);
    write::field(out, "Content-Type", [media_type.to_owned()]);
    write::field(out, "Content-Disposition", ["attachment;".into(), format!("filename=\"{name}\"")]);
    out.extend_from_slice(b"Content-Transfer-Encoding: base64\r\n\r\n");
    write::base64(out, &letter.document);
    end_parts(out, &boundary);
}

/// The name of the file (RFC 8460 §5.1, RFC 7489 §7.2.1.1).
fn file_name(letter: &AggregateLetter, extension: &str) -> String {
    let AggregateLetter { id, from, domain, range: (begin, end), .. } = letter;
    format!("{}!{domain}!{begin}!{end}!{id}.{extension}.gz", from.domain())
}

#[cfg(test)]
mod tests {
    use super::super::{HeaderFacts, scan};
    use super::*;

    #[test]
    fn a_report_of_tls_says_what_programs_look_for() {
        let to = |local: &str| format!("{local}@remote.example").parse().expect("an address");
        let letter = AggregateLetter {
            id: MessageId::from_parts(1_790_000_000_000, [7; 10]),
            from: "postmaster@example.com".parse().expect("an address"),
            to: vec![to("tls"), to("ops")],
            date: 1_790_000_000,
            domain: "remote.example".parse().expect("a domain"),
            range: (1_789_948_800, 1_790_035_199),
            text: "All is well.\n".into(),
            document: vec![0x1f, 0x8b, 0xff],
        };
        let id = letter.id;
        let message = tls_report(&letter);
        let facts = HeaderFacts::of(&message);
        let to: Vec<_> = facts.to.iter().map(|to| to.address.as_str()).collect();
        assert_eq!(to, ["tls@remote.example", "ops@remote.example"]);
        let subject =
            format!("Report Domain: remote.example Submitter: example.com Report-ID: <{id}@example.com>");
        assert_eq!(facts.subject.as_deref(), Some(subject.as_str()));
        assert!(facts.tls_dispensable && facts.is_automatic());
        let text = String::from_utf8(message.clone()).expect("ASCII");
        for line in [
            "TLS-Report-Domain: remote.example\r\n",
            "TLS-Report-Submitter: example.com\r\n",
            "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n",
            "Content-Type: application/tlsrpt+gzip\r\n",
            &format!("filename=\"example.com!remote.example!1789948800!1790035199!{id}.json.gz\"\r\n"),
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert_eq!(scan(&message).expect("can be taken apart").attachments(&message).len(), 1);
    }
}
