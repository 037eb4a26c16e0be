//! Texts as they are compared: by people who search, and by what a subject has in common with its answers.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Prefixes of answers, in the languages of common mail programs, folded.
const ANSWERS: [&str; 17] = [
    "re", "aw", "antw", "antwort", "sv", "vs", "odp", "rif", "r", "res", "resp", "ynt", "bls", "atb", "rv",
    "回复", "答复",
];
/// Prefixes of what is sent on.
const FORWARDS: [&str; 13] =
    ["fwd", "fw", "wg", "tr", "vl", "vb", "i", "pd", "doorst", "enc", "vidarebefordrat", "转发", "ilt"];
/// Prefixes that are looked at.
const PREFIXES_MAX: usize = 20;
/// Octets of a prefix, with its number and colon.
const PREFIX_BYTES_MAX: usize = 40;

/// The text in Unicode's normal form C.
pub fn normal(text: &str) -> String {
    text.nfc().collect()
}

/// The text as it is compared: without case, accents and the differences between forms of one letter.
pub fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut rest = text;
    // Marks go, and nothing else depends on its neighbours: so each run is folded by itself, and ASCII, which most
    // text is, as octets.
    while !rest.is_empty() {
        let plain = rest.bytes().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
        let (plain, foreign) = rest.split_at(plain);
        let at = folded.len();
        folded.push_str(plain);
        folded[at..].make_ascii_lowercase();
        let (foreign, behind) =
            foreign.split_at(foreign.find(|c: char| c.is_ascii()).unwrap_or(foreign.len()));
        let letters = foreign.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase);
        // Lower case may have marks of its own.
        let letters: String = letters.collect();
        folded.extend(letters.nfkd().filter(|c| !is_combining_mark(*c)));
        rest = behind;
    }
    folded
}

/// What a subject says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Nothing.
    None,
    /// It is an answer.
    Answer,
    /// It is sent on.
    Forward,
}

/// A subject without the prefixes that answering and sending on put before it (as RFC 5256 §2.1), folded and with
/// single blanks; and what the first of them says.
pub fn base_subject(subject: &str) -> (String, Prefix) {
    let folded = folded(subject);
    let mut words = folded.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut first = Prefix::None;
    for _ in 0..PREFIXES_MAX {
        let Some((prefix, rest)) = split_prefix(&words) else { break };
        if first == Prefix::None {
            first = prefix;
        }
        words = rest.to_owned();
    }
    (words, first)
}

/// The first prefix and the rest; `Re[2]:`, `Re (3):` and `AW :` are prefixes, too, and so is a full-width colon.
fn split_prefix(subject: &str) -> Option<(Prefix, &str)> {
    let end = subject.char_indices().take_while(|(at, _)| *at < PREFIX_BYTES_MAX).find(|(_, c)| *c == ':')?.0;
    let (word, rest) = subject.split_at_checked(end)?;
    let word = word.trim_end();
    let word = word.strip_suffix([']', ')']).map_or(word, |numbered| {
        numbered.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['[', '('])
    });
    let word = word.trim_end();
    let prefix = match word {
        _ if ANSWERS.contains(&word) => Prefix::Answer,
        _ if FORWARDS.contains(&word) => Prefix::Forward,
        _ => return None,
    };
    Some((prefix, rest.strip_prefix(':')?.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_without_case_and_accents() {
        for (text, expected) in [
            ("Grüße", "gruße"),
            ("ÉCOLE", "ecole"),
            ("ﬁne", "fine"),
            ("İstanbul", "istanbul"),
            ("e\u{301}", "e"),
            ("日本", "日本"),
            ("Ａ", "a"),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
        assert_eq!(normal("e\u{301}"), "é");
    }

    #[test]
    fn a_text_is_folded_in_runs_as_it_would_be_whole() {
        let whole = |text: &str| {
            let letters = text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase);
            letters.collect::<String>().nfkd().filter(|c| !is_combining_mark(*c)).collect::<String>()
        };
        // Every character that may decompose, between letters of ASCII and behind a mark that it may be sorted against.
        for c in ('\0'..='\u{1ffff}').chain('\u{2f800}'..='\u{2fa1f}') {
            let text = format!("A{c}Ze\u{301}{c}\u{323}É");
            assert_eq!(folded(&text), whole(&text), "{c:?}");
        }
    }

    #[test]
    fn a_subject_and_its_answers_have_one_base() {
        for (subject, base, prefix) in [
            ("Lunch", "lunch", Prefix::None),
            ("Re: Lunch", "lunch", Prefix::Answer),
            ("RE : re:Lunch", "lunch", Prefix::Answer),
            ("Re[2]: Lunch", "lunch", Prefix::Answer),
            ("AW: WG: Lunch  at  one", "lunch at one", Prefix::Answer),
            ("Fwd: Re: Lunch", "lunch", Prefix::Forward),
            ("SV: Lunch", "lunch", Prefix::Answer),
            ("Antw.: Lunch", "antw.: lunch", Prefix::None),
            ("回复：Lunch", "lunch", Prefix::Answer),
            ("Report: lunch", "report: lunch", Prefix::None),
            ("Re (3): x", "x", Prefix::Answer),
            ("", "", Prefix::None),
            ("Re:", "", Prefix::Answer),
            (":", ":", Prefix::None),
        ] {
            assert_eq!(base_subject(subject), (base.to_owned(), prefix), "{subject}");
        }
        let many = "Re: ".repeat(1000);
        assert!(base_subject(&many).0.starts_with("re: "), "bounded");
    }
}
