//! What a name and an address in the directory may be. Whatever is refused here is refused with the
//! reason, whichever command brought it.

use shared::address::{Address, Domain, LOCAL_PART_MAX, canonical_local};
use shared::mime::terminal;
use unicode_security::{RestrictionLevel, RestrictionLevelDetection, skeleton};

use super::ROLES;
use super::policy::Policy;
use super::srs;
use crate::error::Refused;

/// Characters of a name for From and To lines.
pub const DISPLAY_MAX: usize = 128;
/// Addresses of one entry, its own name's included.
pub const ADDRESSES_MAX: usize = 100;

/// The canonical form of a name, and its address in each of the site's domains.
pub fn names(policy: &Policy, text: &str) -> Result<(String, Vec<String>), Refused> {
    let name = local_name(text)?;
    if ROLES.contains(&name.as_str()) {
        return Err(Refused::new(format!(
            "{name} is a role that every domain has; its mail goes to the postmaster"
        )));
    }
    if name == srs::NAME {
        return Err(Refused::new(format!("{name} is kept for reports of failure that come home")));
    }
    let address = |domain: &Domain| {
        let address =
            Address::new(&name, domain).map_err(|error| Refused::new(format!("{text}: {error}")))?;
        Ok(address.canonical())
    };
    let addresses = policy.domains.iter().map(address).collect::<Result<_, Refused>>()?;
    Ok((name, addresses))
}

/// The canonical form of a name without addresses: a nickname.
pub fn local_name(text: &str) -> Result<String, Refused> {
    let shown = shown(text);
    if text.len() > LOCAL_PART_MAX {
        return Err(Refused::new(format!("{shown}: a name has {LOCAL_PART_MAX} octets at most")));
    }
    if text.contains(['+', '/']) {
        return Err(Refused::new(format!(
            "{shown}: + and / are not for names; they mean something in addresses"
        )));
    }
    // Any domain will do: it is the local part that is looked at.
    let domain: Domain = "name.invalid".parse().map_err(|error| Refused::new(format!("{error}")))?;
    Address::new(text, &domain).map_err(|_| {
        Refused::new(format!("{shown}: a name is letters and digits, with single dots, - or _ between them"))
    })?;
    let name = canonical_local(text);
    not_a_look_alike(&name)?;
    Ok(name)
}

/// A name for From and To lines; an empty one is `otherwise`.
pub fn display(text: &str, otherwise: &str) -> Result<String, Refused> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(otherwise.to_owned());
    }
    if text.chars().count() > DISPLAY_MAX {
        let text = format!("{}: a display name has {DISPLAY_MAX} characters at most", shown(text));
        return Err(Refused::new(text));
    }
    if terminal::safe_line(text) != *text {
        return Err(Refused::new(format!("{}: control characters are not for names", shown(text))));
    }
    if text.contains('@') {
        return Err(Refused::new(format!(
            "{}: a display name with an @ would pass for an address",
            shown(text)
        )));
    }
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.into_iter().try_for_each(not_a_look_alike)?;
    Ok(text.to_owned())
}

/// One more address here, canonical.
pub fn own_address(policy: &Policy, text: &str) -> Result<String, Refused> {
    let address = parsed(text)?;
    if !policy.is_ours(address.domain()) {
        return Err(Refused::new(format!(
            "{} is not in a domain of this site; see [site] domains in the topology",
            shown(text)
        )));
    }
    let canonical = address.canonical();
    let local = canonical.split('@').next().unwrap_or_default();
    not_a_look_alike(local)?;
    if local == srs::NAME || local.strip_prefix(srs::NAME).is_some_and(|rest| rest.starts_with('+')) {
        return Err(Refused::new(format!("{canonical} is kept for reports of failure that come home")));
    }
    Ok(canonical)
}

/// An address outside.
pub fn outside_address(policy: &Policy, text: &str) -> Result<Address, Refused> {
    let address = parsed(text)?;
    match policy.is_ours(address.domain()) {
        true => {
            Err(Refused::new(format!("{} is an address here; an address outside is wanted", shown(text))))
        }
        false => Ok(address),
    }
}

/// An address, wherever it is.
pub fn parsed(text: &str) -> Result<Address, Refused> {
    text.parse().map_err(|error| Refused::new(format!("{}: {error}", shown(text))))
}

/// Refuses what is made to be taken for something else: letters of several scripts in one word, and words
/// of another script in which every letter looks like a Latin one.
fn not_a_look_alike(word: &str) -> Result<(), Refused> {
    if word.is_ascii() {
        return Ok(());
    }
    let letters: String = word.chars().filter(|c| c.is_alphanumeric()).collect();
    if !letters.is_ascii() && letters.detect_restriction_level() > RestrictionLevel::HighlyRestrictive {
        let text = format!("{}: letters of several scripts in one name look alike", shown(word));
        return Err(Refused::new(text));
    }
    let looks: String = skeleton(&letters).collect();
    if looks.is_ascii() && !letters.is_ascii() {
        return Err(Refused::new(format!("{}: it would be taken for {looks}", shown(word))));
    }
    Ok(())
}

/// Foreign text in a refusal: harmless, and not longer than a line.
pub fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let safe = terminal::safe_line(text);
    match safe.chars().nth(SHOWN_MAX) {
        None => safe.to_string(),
        Some(_) => safe.chars().take(SHOWN_MAX).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::policy;

    #[test]
    fn names_are_canonical_and_look_like_nothing_else() {
        let name =
            |text: &str| names(&policy(), text).map(|(name, _)| name).map_err(|error| error.to_string());
        for (text, expected) in [
            ("Alice", Ok("alice")),
            ("o'brien", Ok("o'brien")),
            ("Jos\u{65}\u{301}", Ok("jos\u{e9}")),
            ("田中", Ok("田中")),
            ("мария", Ok("мария")),
            ("postmaster", Err("role")),
            ("Abuse", Err("role")),
            ("srs0", Err("reports")),
            ("a+b", Err("+ and /")),
            ("/smtp", Err("+ and /")),
            ("a b", Err("letters and digits")),
            ("a..b", Err("letters and digits")),
            ("", Err("letters and digits")),
            ("a\u{7}b", Err("letters and digits")),
            ("al\u{200d}ice", Err("letters and digits")),
            ("\u{202e}ecila", Err("letters and digits")),
            // The first letter is Cyrillic; then all of them are.
            ("\u{430}lice", Err("several scripts")),
            ("\u{441}\u{43e}\u{440}\u{430}", Err("taken for copa")),
        ] {
            match (name(text), expected) {
                (Ok(name), Ok(expected)) => assert_eq!(name, expected),
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{text:?}: {reason}"),
                (found, expected) => panic!("{text:?}: {found:?}, not {expected:?}"),
            }
        }
        assert!(name(&"a".repeat(64)).is_ok());
        assert!(name(&"a".repeat(65)).is_err_and(|reason| reason.contains("64 octets")));
        let (_, addresses) = names(&policy(), "Alice").expect("a name");
        assert_eq!(addresses, ["alice@example.com", "alice@xn--bcher-kva.example"]);
    }

    #[test]
    fn display_names_are_one_harmless_line() {
        assert_eq!(display("  ", "alice").ok().as_deref(), Some("alice"));
        assert_eq!(
            display("José Müller-Lüdenscheidt, III.", "x").ok().as_deref(),
            Some("José Müller-Lüdenscheidt, III.")
        );
        assert_eq!(display("Мария Петрова (Maria)", "x").ok().as_deref(), Some("Мария Петрова (Maria)"));
        for bad in ["a\x1b[2Jb", "a\r\nBcc: x", "a\u{202e}b", "boss@bank.example", "P\u{430}ul"] {
            assert!(display(bad, "x").is_err(), "{bad:?}");
        }
        assert!(display(&"x".repeat(DISPLAY_MAX + 1), "x").is_err());
    }

    #[test]
    fn addresses_are_ours_or_outside() {
        let policy = policy();
        assert_eq!(
            own_address(&policy, "Sales@B\u{fc}cher.example").ok().as_deref(),
            Some("sales@xn--bcher-kva.example")
        );
        for bad in
            ["sales@remote.example", "srs0@example.com", "SRS0+x@example.com", "sales", "a@[127.0.0.1]"]
        {
            assert!(own_address(&policy, bad).is_err(), "{bad}");
        }
        assert!(outside_address(&policy, "carol@remote.example").is_ok());
        assert!(outside_address(&policy, "carol@example.com").is_err());
    }
}
