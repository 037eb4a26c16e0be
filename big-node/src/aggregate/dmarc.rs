//! A report of DMARC, as it is written (RFC 7489 appendix C).

use std::fmt::Write as _;

use shared::address::{Address, Domain};
use shared::aggregate::{DmarcCount, DmarcCounts, DmarcFound, DmarcPolicy};
use shared::id::MessageId;

use super::tls::moment;

/// Elements, each within the one that was begun last.
#[derive(Default)]
struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{:indent$}{line}", "", indent = 2 * self.depth);
    }

    fn within(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.line(&format!("<{name}>"));
        self.depth += 1;
        inner(self);
        self.depth -= 1;
        self.line(&format!("</{name}>"));
    }

    fn leaf(&mut self, name: &str, text: &str) {
        self.line(&format!("<{name}>{}</{name}>", escaped(text)));
    }
}

/// Text as it may stand between tags. What XML cannot say (XML 1.0 §2.2) is a question mark.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// The report `id` of `from`'s domain about mail in the name of `domain`, from the first to the last of these seconds
/// since 1970.
pub fn document(
    from: &Address,
    domain: &Domain,
    id: MessageId,
    (begin, end): (u64, u64),
    counts: &DmarcCounts,
) -> Vec<u8> {
    let mut xml = Xml::default();
    xml.line("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    xml.within("feedback", |xml| {
        xml.leaf("version", "1.0");
        xml.within("report_metadata", |xml| {
            xml.leaf("org_name", from.domain().as_str());
            xml.leaf("email", &from.to_string());
            xml.leaf("report_id", &format!("{id}@{}", from.domain()));
            xml.within("date_range", |xml| {
                xml.leaf("begin", &begin.to_string());
                xml.leaf("end", &end.to_string());
            });
        });
        xml.within("policy_published", |xml| policy(xml, domain, &counts.policy));
        counts.records.iter().for_each(|count| xml.within("record", |xml| record(xml, count)));
    });
    xml.text.into_bytes()
}

fn policy(xml: &mut Xml, domain: &Domain, policy: &DmarcPolicy) {
    let alignment = |strict| if strict { "s" } else { "r" };
    xml.leaf("domain", domain.as_str());
    xml.leaf("adkim", alignment(policy.dkim_strict));
    xml.leaf("aspf", alignment(policy.spf_strict));
    xml.leaf("p", policy.own.as_str());
    xml.leaf("sp", policy.below.as_str());
    // RFC 9989 has no part of the mail any more.
    xml.leaf("pct", "100");
    xml.leaf("fo", policy.failures.as_str());
}

fn record(xml: &mut Xml, DmarcCount { found, count }: &DmarcCount) {
    let passed = |passed| if passed { "pass" } else { "fail" };
    xml.within("row", |xml| {
        xml.leaf("source_ip", &found.source);
        xml.leaf("count", &count.to_string());
        xml.within("policy_evaluated", |xml| {
            xml.leaf("disposition", found.disposition.as_str());
            xml.leaf("dkim", passed(found.dkim));
            xml.leaf("spf", passed(found.spf));
            if let Some(why) = found.overridden {
                xml.within("reason", |xml| xml.leaf("type", why.as_str()));
            }
        });
    });
    xml.within("identifiers", |xml| {
        xml.leaf("envelope_from", &found.envelope_from);
        xml.leaf("header_from", &found.header_from);
    });
    xml.within("auth_results", |xml| results(xml, found));
}

fn results(xml: &mut Xml, found: &DmarcFound) {
    for signature in &found.signatures {
        xml.within("dkim", |xml| {
            xml.leaf("domain", &signature.domain);
            xml.leaf("selector", &signature.selector);
            xml.leaf("result", &signature.result);
        });
    }
    xml.within("spf", |xml| {
        xml.leaf("domain", &found.spf_domain);
        xml.leaf("scope", if found.spf_of_helo { "helo" } else { "mfrom" });
        xml.leaf("result", &found.spf_result);
    });
}

/// What the report says, to a person.
pub fn summary(
    own: &Domain,
    domain: &Domain,
    (begin, _): (u64, u64),
    counts: &DmarcCounts,
    left_out: u64,
) -> String {
    let of = |wanted: fn(&DmarcFound) -> bool| {
        let counted = counts.records.iter().filter(|record| wanted(&record.found));
        counted.map(|record| record.count).fold(0, u64::saturating_add)
    };
    let day = moment(begin);
    let mut text = format!(
        "This is a report of DMARC by {own} about mail in the name of {domain}, or of\ndomains below it, on {} in UTC.\n\n\
         Messages for which DKIM or SPF speaks: {}\nMessages for which neither does:       {}\n",
        day.get(..10).unwrap_or(&day),
        of(|found| found.dkim || found.spf),
        of(|found| !found.dkim && !found.spf),
    );
    if left_out > 0 {
        text += &format!("Messages that are in neither number:   {left_out}\n");
    }
    text
}
