//! The trace of what is picked up: a Received line of ours (RFC 5321 §4.4), with a mark that nobody else can
//! make. By it mail that goes round between mail systems inside is known, whatever its names and ids are.

use shared::id::MessageId;
use shared::mime::{self, Field};
use shared::smtp::{ContentLimits, received_by_itself};

use crate::directory::Policy;

/// The context in which the key of marks is derived; never changes.
const CONTEXT: &str = "Sallypost 2026-11-25 marks of mail that was picked up";
/// Octets of a mark.
const MARK: usize = 16;
/// How often mail may have been picked up before and is taken all the same.
const PASSES_MAX: usize = 1;

/// The Received field of what the gateway `gateway` brings as `id`, with its line ends.
pub fn received(policy: &Policy, gateway: &str, id: MessageId) -> Option<String> {
    let by = policy.domains.first()?;
    let (text, seconds) = (id.to_string(), i64::try_from(id.unix_millis() / 1000).unwrap_or(i64::MAX));
    let mark = mark(policy, &text);
    Some(received_by_itself(by, &format!("gateway {gateway}, mark {mark}"), &text, seconds))
}

/// How often mail with this header was picked up before: by our own marks, each once.
pub fn picked_up(header: &[u8], policy: &Policy) -> usize {
    let mut seen: Vec<String> = Vec::new();
    for field in received_fields(header) {
        let text = field.unfolded();
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        let after = |word: &str| {
            let at = words.iter().position(|found| *found == word)?;
            words.get(at + 1).copied()
        };
        let (Some(id), Some(mark)) = (after("id"), after("mark")) else { continue };
        let mark = mark.trim_end_matches([')', ';']);
        if mark == self::mark(policy, id) && seen.iter().all(|known| known != id) {
            seen.push(id.to_owned());
        }
    }
    seen.len()
}

/// Why mail with this header goes round, if it does.
pub fn goes_round(header: &[u8], policy: &Policy) -> Option<String> {
    let hops = received_fields(header).count();
    let hops_max = ContentLimits::default().hops_max;
    match picked_up(header, policy) {
        _ if hops >= hops_max => Some(format!(
            "the message goes round in a loop: it has passed {hops} hosts; {hops_max} are too many"
        )),
        times if times > PASSES_MAX => Some(format!(
            "the message goes round in a loop: it was picked up here {times} times before; see who sends it back"
        )),
        _ => None,
    }
}

fn received_fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    mime::fields(header).filter(|field| field.is("Received"))
}

fn mark(policy: &Policy, id: &str) -> String {
    let key = blake3::derive_key(CONTEXT, &policy.srs_key.0);
    let hash = blake3::keyed_hash(&key, id.as_bytes()).to_hex();
    hash.chars().take(2 * MARK).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::policy;

    #[test]
    fn a_mark_is_ours_and_counts_once() {
        let policy = policy();
        let line = |number: u8| {
            received(&policy, "f\u{fc}r\r\nX: y", MessageId([number; 16])).expect("a site has a domain")
        };
        assert!(line(1).starts_with("Received: by example.com with local id "), "{}", line(1));
        assert_eq!(line(1).matches("\r\n").count(), 3, "the gateway's name cannot break it: {}", line(1));
        let header = |lines: &[String]| format!("{}Subject: x\r\n\r\n", lines.concat()).into_bytes();
        let times = |lines: &[String]| picked_up(&header(lines), &policy);
        assert_eq!(times(&[]), 0);
        assert_eq!(times(&[line(1)]), 1);
        assert_eq!(times(&[line(1), "Received: from a by b id c\r\n".into(), line(1)]), 1, "a copy of it");
        assert_eq!(times(&[line(1), line(2)]), 2);
        let forged = line(1).replace(&MessageId([1; 16]).to_string(), &MessageId([9; 16]).to_string());
        assert_eq!(times(&[forged]), 0, "of another message");
        let stranger = Policy { srs_key: crate::directory::srs::Key([4; 32]), ..policy.clone() };
        assert_eq!(picked_up(&header(&[line(1)]), &stranger), 0);

        let round = |lines: &[String]| goes_round(&header(lines), &policy).is_some();
        assert!(!round(&[line(1)]) && round(&[line(1), line(2)]));
        let hosts = |count| vec!["Received: from a by b\r\n".to_owned(); count];
        assert!(!round(&hosts(49)) && round(&hosts(50)));
    }
}
