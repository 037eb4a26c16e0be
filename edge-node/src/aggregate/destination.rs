//! To whom a domain wants its reports sent, as it says in DNS (RFC 8460 §3, RFC 7489 §6.3 and §7.1). Pure.

use shared::address::{Address, Domain};
use shared::aggregate::MAILBOXES_MAX;

/// The version of DMARC records.
const DMARC: &str = "DMARC1";
/// URIs of one record that are looked at.
const URIS_MAX: usize = 16;

/// What a domain asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No reports.
    Nothing,
    /// Reports by mail to these, one or more.
    Mail(Vec<Address>),
    /// Reports by another way than mail only, which is not gone.
    AnotherWay,
}

/// What the text records of `_smtp._tls.DOMAIN` ask for. Several records ask for nothing.
pub fn tls(records: &[String]) -> Wanted {
    asked(records, "TLSRPTv1")
}

/// What those of `_dmarc.DOMAIN` ask for.
pub fn dmarc(records: &[String]) -> Wanted {
    match asked(records, DMARC) {
        // No other way is in use.
        Wanted::AnotherWay => Wanted::Nothing,
        wanted => wanted,
    }
}

/// Whether a host that takes the mail of another domain than `policy` is to be asked if it wants reports about that: the
/// name of the records that say so.
pub fn permission(policy: &str, mailbox: &Address) -> Option<String> {
    let host: &Domain = mailbox.domain();
    let is_own =
        host.as_str().strip_suffix(policy).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    (!is_own).then(|| format!("{policy}._report._dmarc.{host}"))
}

/// Whether its text records say that it does.
pub fn permits(records: &[String]) -> bool {
    records.iter().any(|record| rest(record, DMARC).is_some() || version(record) == Some(DMARC))
}

fn version(record: &str) -> Option<&str> {
    let (name, value) = record.split(';').next()?.split_once('=')?;
    (name.trim() == "v").then(|| value.trim())
}

/// What is behind the version in a record.
fn rest<'r>(record: &'r str, wanted: &str) -> Option<&'r str> {
    let (_, rest) = record.split_once(';')?;
    (version(record) == Some(wanted)).then_some(rest)
}

fn asked(records: &[String], version: &str) -> Wanted {
    let rest = |record: &String| rest(record, version).map(ToOwned::to_owned);
    let mut records = records.iter().filter_map(rest);
    let (Some(record), None) = (records.next(), records.next()) else { return Wanted::Nothing };
    let uris = record.split(';').find_map(|field| {
        let (name, value) = field.split_once('=')?;
        (name.trim() == "rua").then(|| value.to_owned())
    });
    uris.map_or(Wanted::Nothing, |uris| wanted(uris.split(',')))
}

fn wanted<'a>(uris: impl Iterator<Item = &'a str>) -> Wanted {
    let (mut mailboxes, mut has_other) = (Vec::new(), false);
    for uri in uris.take(URIS_MAX).map(str::trim) {
        let Some((scheme, rest)) = uri.split_once(':') else { continue };
        match scheme.to_ascii_lowercase().as_str() {
            "mailto" => {
                let mailbox = mailbox(rest).filter(|mailbox| !mailboxes.contains(mailbox));
                mailboxes.extend(mailbox.filter(|_| mailboxes.len() < MAILBOXES_MAX));
            }
            "https" => has_other = true,
            _ => {}
        }
    }
    match (mailboxes.is_empty(), has_other) {
        (false, _) => Wanted::Mail(mailboxes),
        (true, true) => Wanted::AnotherWay,
        (true, false) => Wanted::Nothing,
    }
}

/// The one address of a `mailto:` URI (RFC 6068), without what it would have written besides.
fn mailbox(rest: &str) -> Option<Address> {
    let text = rest.split(['?', '!']).next()?;
    let (mut octets, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        octets.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| {
                    char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
                };
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                high << 4 | low
            }
            byte => byte,
        });
    }
    // One that not every host takes (RFC 6531) would keep the report from the others.
    String::from_utf8(octets).ok()?.parse().ok().filter(Address::is_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(addresses: &[&str]) -> Wanted {
        Wanted::Mail(addresses.iter().map(|text| text.parse().expect("an address")).collect())
    }

    #[test]
    fn a_domain_names_mailboxes_of_which_the_first_get_reports() {
        let tls = |records: &[&str]| tls(&records.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let one = "v=TLSRPTv1; rua=mailto:tls@a.example";
        assert_eq!(tls(&[one]), mail(&["tls@a.example"]));
        assert_eq!(tls(&["v=spf1 -all", one]), mail(&["tls@a.example"]));
        assert_eq!(
            tls(&["v=TLSRPTv1;rua=https://a.example/x,mailto:tls@a.example;"]),
            mail(&["tls@a.example"])
        );
        assert_eq!(
            tls(&[
                "v=TLSRPTv1; x=1; rua = MAILTO:a@a.example , mailto:a@a.example,mailto:b%2Bc@a.example?subject=x"
            ]),
            mail(&["a@a.example", "b+c@a.example"])
        );
        assert_eq!(tls(&["v=TLSRPTv1; rua=https://a.example/x"]), Wanted::AnotherWay);
        for nothing in [
            &[][..],
            &[one, one],
            &["v=TLSRPTv2; rua=mailto:tls@a.example"],
            &["v=TLSRPTv1"],
            &["v=TLSRPTv1;"],
            &["v=TLSRPTv1; rua="],
            &["v=TLSRPTv1; rua=tls@a.example"],
            &["v=TLSRPTv1; rua=ftp://a.example"],
        ] {
            assert_eq!(tls(nothing), Wanted::Nothing, "{nothing:?}");
        }
    }

    #[test]
    fn reports_about_mail_go_where_they_are_asked_for_and_elsewhere_by_permission_only() {
        let dmarc = |record: &str| dmarc(&[record.to_owned()]);
        assert_eq!(
            dmarc("v=DMARC1; p=none; ri=60; rua=mailto:d@a.example!10m; fo=1"),
            mail(&["d@a.example"])
        );
        assert_eq!(dmarc("v=DMARC1; p=none"), Wanted::Nothing);
        assert_eq!(dmarc("v=DMARC1; p=none; rua=https://a.example"), Wanted::Nothing);
        assert_eq!(dmarc("v=TLSRPTv1; rua=mailto:d@a.example"), Wanted::Nothing);
        let asks = |host: &str| permission("a.example", &format!("d@{host}").parse().expect("an address"));
        for own in ["a.example", "mail.a.example", "A.Example"] {
            assert_eq!(asks(own), None, "{own}");
        }
        assert_eq!(asks("b.example").as_deref(), Some("a.example._report._dmarc.b.example"));
        assert_eq!(asks("ba.example").as_deref(), Some("a.example._report._dmarc.ba.example"));
        for (record, expected) in [
            ("v=DMARC1", true),
            ("v=DMARC1;", true),
            ("v=DMARC1; rua=mailto:x@y.example", true),
            ("v=spf1", false),
        ] {
            assert_eq!(permits(&[record.to_owned()]), expected, "{record}");
        }
        assert!(!permits(&[]));
    }

    #[test]
    fn what_is_no_mailbox_is_passed_over_and_there_is_an_end_to_it() {
        let asked = |uris: &str| tls(&[format!("v=TLSRPTv1; rua={uris}")]);
        for none in [
            "mailto:",
            "mailto:nobody",
            "mailto:@a.example",
            "mailto:a@",
            "mailto:a%@a.example",
            "mailto:a%4@a.example",
            "mailto:a%zz@a.example",
            "mailto:a%0d%0aBcc:b@a.example",
            "mailto:a%ff@a.example",
            "mailto:%C3%A9@a.example",
            "mailto:a@b@c.example",
            "mailto:!10m",
            "mailto:<a@a.example>",
            "mailto:a@[127.0.0.1]",
            "!!!",
        ] {
            assert_eq!(asked(none), Wanted::Nothing, "{none}");
        }
        let many = |uri: fn(usize) -> String| (0..10_000).map(uri).collect::<Vec<_>>().join(",");
        assert_eq!(
            asked(&many(|n| format!("mailto:r{n}@a.example"))),
            mail(&["r0@a.example", "r1@a.example"])
        );
        assert_eq!(asked(&format!("{},mailto:a@a.example", many(|_| "mailto:".into()))), Wanted::Nothing);
    }
}
