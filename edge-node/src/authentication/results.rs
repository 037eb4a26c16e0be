//! Authentication-Results (RFC 8601): the field that tells our verdicts, and those in which others tell theirs.

use shared::mime::Field;

/// The field that tells verdicts, and that strangers forge.
const NAME: &str = "Authentication-Results";
/// Characters of a name that a stranger chose: those of the longest domain.
const VALUE_MAX: usize = 255;

/// The field in which `hostname` tells what was found, with the end of its line; empty if nothing was.
pub fn field(hostname: &str, found: &[String]) -> String {
    let told: String = found.iter().map(|verdict| format!(";\r\n\t{verdict}")).collect();
    if told.is_empty() { told } else { format!("{NAME}: {hostname}{told}\r\n") }
}

/// A name that a stranger chose, as it can stand in a field and between blanks.
pub fn value(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '?' };
    text.chars().take(VALUE_MAX).map(safe).collect()
}

/// Whether a field is one in which `hostname` tells verdicts.
pub fn is_of(field: &Field<'_>, hostname: &str) -> bool {
    field.is(NAME) && {
        let told = plain(&field.unfolded());
        let id = told.split(';').next().and_then(|id| id.split_whitespace().next()).unwrap_or_default();
        id.trim_end_matches('.').eq_ignore_ascii_case(hostname)
    }
}

/// Whether what another host has found says that a message was `author`'s by DMARC.
pub fn tells_pass(told: &str, author: &str) -> bool {
    plain(told).split(';').any(|verdict| {
        let mut words = verdict.split_whitespace();
        let is_pass = words.next().is_some_and(|word| word.eq_ignore_ascii_case("dmarc=pass"));
        let of_author = |word: &str| {
            word.split_once('=').is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("header.from") && value.eq_ignore_ascii_case(author)
            })
        };
        is_pass && words.any(of_author)
    })
}

/// A field's value without its comments and quotation marks. What is quoted stays one word, whatever is in it.
fn plain(value: &str) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    for c in value.chars() {
        let is_text = std::mem::take(&mut escaped) || (quoted && !matches!(c, '"' | '\\'));
        match c {
            _ if is_text && depth > 0 => {}
            ';' | '=' | ' ' | '\t' if is_text => out.push('_'),
            _ if is_text => out.push(c),
            '\\' if quoted || depth > 0 => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_tells_verdicts_is_found_behind_comments_and_quotes() {
        let ours = |name, raw: &str| is_of(&Field { name, raw: raw.as_bytes() }, "mx.example.com");
        for value in [
            " mx.example.com; spf=pass",
            "MX.example.com. 1; none",
            " (a (nested; \\) one)) mx.example.com(x); none",
            "\"mx.example\\.com\"; none",
            "\r\n\tmx.example.com\r\n ;dmarc=pass",
            "mx.example.com",
        ] {
            assert!(ours("authentication-results", value), "{value:?}");
        }
        for value in [
            "other.example; x=mx.example.com",
            "(mx.example.com) other.example; none",
            "mx.example.com.other.example; none",
            "\"mx.example.com; \"; none",
            "",
        ] {
            assert!(!ours(NAME, value), "{value:?}");
        }
        assert!(!ours("ARC-Authentication-Results", "mx.example.com; spf=pass"));
    }

    #[test]
    fn a_sealers_word_is_taken_from_its_own_verdict_only() {
        let pass =
            " i=1; list.example; spf=fail;\r\n\tDMARC=pass (p=reject) header.from=A.example; dkim=none";
        assert!(tells_pass(pass, "a.example"));
        for told in [
            "i=1; list.example; dmarc=fail header.from=a.example",
            "i=1; list.example; dmarc=pass header.from=other.example",
            "i=1; list.example; dmarc=pass",
            "i=1; list.example; spf=pass (; dmarc=pass header.from=a.example)",
            "i=1; list.example; spf=pass smtp.mailfrom=\"; dmarc=pass header.from=a.example\"@b.example",
            "i=1; list.example; spf=pass smtp.mailfrom=\"\\\"; dmarc=pass header.from=a.example\"",
        ] {
            assert!(!tells_pass(told, "a.example"), "{told}");
        }
    }

    #[test]
    fn a_field_is_made_of_words_that_cannot_end_it() {
        let found = ["spf=pass smtp.mailfrom=a.example".to_owned(), "dkim=none".to_owned()];
        let told = "Authentication-Results: mx.example.com;\r\n\tspf=pass smtp.mailfrom=a.example;\r\n\tdkim=none\r\n";
        assert_eq!(field("mx.example.com", &found), told);
        assert_eq!(field("mx.example.com", &[]), "");
        assert_eq!(value("a.b-c_d;\r\nBcc: \u{e9} (x)"), "a.b-c_d???Bcc?????x?");
        assert_eq!(value(&"a".repeat(1_000)).len(), VALUE_MAX);
    }
}
