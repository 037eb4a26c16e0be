//! Lists of addresses in header fields (RFC 5322 §3.4), as they really come.
//!
//! One pass, no recursion, no going back: comments are counted, groups give their members, and what
//! is no address is kept as a name. What is read here is only shown and answered to; an address that
//! is to be sent to becomes an [`Address`](crate::address::Address) first.

use serde::{Deserialize, Serialize};

use super::decode;

/// Addresses of one field that are read.
pub const ADDRESSES_MAX: usize = 1_000;

/// One mailbox of a list, as it was written: the address may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// The display name, decoded; or the comment that stands for one.
    pub name: Option<String>,
    /// What stands between the angle brackets, or for an address; may be empty.
    pub address: String,
}

/// The mailboxes of an unfolded field value.
pub(super) fn parse(text: &str) -> Vec<Mailbox> {
    let mut parser = Parser::default();
    for c in text.chars() {
        parser.take(c);
        if parser.found.len() == ADDRESSES_MAX {
            return parser.found;
        }
    }
    parser.end_mailbox();
    parser.found
}

/// Where in a mailbox the next character stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Bare,
    Quoted,
    Bracket,
    BracketQuoted,
    Comment,
}

#[derive(Default)]
struct Parser {
    found: Vec<Mailbox>,
    place: Place,
    /// Where a comment returns to, and how many are open.
    outside: Place,
    comments: u32,
    escaped: bool,
    current: Pieces,
}

/// What was read of one mailbox.
#[derive(Default)]
struct Pieces {
    /// What stands outside brackets: a name, or an address if no bracket comes.
    words: String,
    quoted: bool,
    bracket: Option<String>,
    comment: String,
}

impl Parser {
    fn take(&mut self, c: char) {
        if self.escaped {
            self.escaped = false;
            return self.text().push(c);
        }
        match (self.place, c) {
            (Place::Quoted | Place::BracketQuoted | Place::Comment, '\\') => {
                self.escaped = true;
                if self.place == Place::BracketQuoted {
                    self.text().push(c);
                }
            }
            (Place::Comment, '(') => {
                self.comments = self.comments.saturating_add(1);
                self.current.comment.push(c);
            }
            (Place::Comment, ')') => {
                self.comments -= 1;
                match self.comments {
                    0 => self.place = self.outside,
                    _ => self.current.comment.push(c),
                }
            }
            (Place::Bare | Place::Bracket, '(') => {
                self.outside = self.place;
                self.comments = 1;
                self.place = Place::Comment;
            }
            (Place::Bare, '"') => {
                self.current.quoted = true;
                self.place = Place::Quoted;
            }
            (Place::Quoted, '"') => self.place = Place::Bare,
            (Place::Bracket, '"') => self.quote_in_bracket(Place::BracketQuoted),
            (Place::BracketQuoted, '"') => self.quote_in_bracket(Place::Bracket),
            (Place::Bare, '<') => {
                if self.current.bracket.is_some() {
                    // A comma is missing.
                    self.end_mailbox();
                }
                self.current.bracket = Some(String::new());
                self.place = Place::Bracket;
            }
            (Place::Bracket, '>') => self.place = Place::Bare,
            (Place::Bare, ',' | ';') => self.end_mailbox(),
            (Place::Bare, '>') => {}
            (Place::Bare, ':') if !self.current.words.contains('@') => {
                // What was read is the name of a group.
                self.current = Pieces::default();
            }
            _ => self.text().push(c),
        }
    }

    /// Quotes belong to a local part that needs them.
    fn quote_in_bracket(&mut self, place: Place) {
        self.text().push('"');
        self.place = place;
    }

    fn text(&mut self) -> &mut String {
        match self.place {
            Place::Bare | Place::Quoted => &mut self.current.words,
            Place::Bracket | Place::BracketQuoted => self.current.bracket.get_or_insert_default(),
            Place::Comment => &mut self.current.comment,
        }
    }

    fn end_mailbox(&mut self) {
        let mailbox = std::mem::take(&mut self.current).mailbox();
        if mailbox != Mailbox::default() {
            self.found.push(mailbox);
        }
    }
}

impl Pieces {
    fn mailbox(self) -> Mailbox {
        let Self { words, quoted, bracket, comment } = self;
        match bracket {
            Some(address) => {
                Mailbox { name: name(&words).or_else(|| name(&comment)), address: squeezed(&address) }
            }
            None if !quoted && words.contains('@') => bare(&words, &comment),
            None => Mailbox { name: name(&words).or_else(|| name(&comment)), address: String::new() },
        }
    }
}

fn name(text: &str) -> Option<String> {
    let decoded = decode::encoded_words(text.trim());
    let name = decoded.split_whitespace().collect::<Vec<_>>().join(" ");
    (!name.is_empty()).then_some(name)
}

/// A mailbox without brackets: its last word with an `@`; what stands around that is a name.
fn bare(words: &str, comment: &str) -> Mailbox {
    let joined = [" @", "@ ", " .", ". "].iter().fold(words.to_owned(), |text, blank| {
        let squeezed: String = blank.split(' ').collect();
        text.replace(blank, &squeezed)
    });
    let address = joined.split_whitespace().rfind(|word| word.contains('@')).unwrap_or_default().to_owned();
    let rest = joined.replacen(&address, " ", 1);
    Mailbox { name: name(&rest).or_else(|| name(comment)), address }
}

/// White space between the parts of an address means nothing (obs-addr-spec), except in quotes.
fn squeezed(address: &str) -> String {
    match address.contains('"') {
        true => address.trim().to_owned(),
        false => address.chars().filter(|c| !c.is_whitespace()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = parse(text);
        let found: Vec<_> =
            found.iter().map(|m| (m.name.as_deref().unwrap_or(""), m.address.as_str())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn mailboxes_are_read_as_they_come() {
        check("a@example.com", &[("", "a@example.com")]);
        check(
            "Alice  A. <a@example.com>, <b@example.com>",
            &[("Alice A.", "a@example.com"), ("", "b@example.com")],
        );
        check(r#""Doe, \"J\"" <j@example.com>"#, &[("Doe, \"J\"", "j@example.com")]);
        check("a@example.com (Alice (nested) A.)", &[("Alice (nested) A.", "a@example.com")]);
        check("=?utf-8?Q?Ren=C3=A9?= <r@example.com>", &[("René", "r@example.com")]);
        check(
            "team: a@example.com, B <b@example.com>; c@example.com",
            &[("", "a@example.com"), ("B", "b@example.com"), ("", "c@example.com")],
        );
        check("undisclosed-recipients:;", &[]);
        check(r#"<"odd name"@example.com>"#, &[("", "\"odd name\"@example.com")]);
        check("a @ example . com", &[("", "a@example.com")]);
        check("Big Bug bb@example.com", &[("Big Bug", "bb@example.com")]);
        check("a@example.com <b@example.com>", &[("a@example.com", "b@example.com")]);
        check("A <a@example.com> B <b@example.com>", &[("A B", "a@example.com"), ("", "b@example.com")]);
        check("a@example.com>", &[("", "a@example.com")]);
        check("just a name", &[("just a name", "")]);
        check(r#""x@y.example""#, &[("x@y.example", "")]);
        check("<>", &[]);
        check(", ,;", &[]);
        check("\"never closed <a@example.com>", &[("never closed <a@example.com>", "")]);
        check("(((", &[("((", "")]);
        check("a) <b@example.com", &[("a)", "b@example.com")]);
        check("", &[]);
    }

    #[test]
    fn lists_are_bounded() {
        let long = "a@example.com, ".repeat(ADDRESSES_MAX + 1);
        assert_eq!(parse(&long).len(), ADDRESSES_MAX);
    }
}
