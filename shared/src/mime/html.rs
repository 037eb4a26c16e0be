//! HTML as a text that can be read: paragraphs, lists and quotations as lines, where links lead beside them.
//!
//! One pass, no recursion, and nothing is fetched. What a page hides in scripts and styles stays hidden; a
//! link's address is shown as it is, so that a reader sees where it leads whatever its text says.

use mail_parser::decoders::html::add_html_token;
use memchr::{memchr, memchr_iter};

/// Octets of a tag; what is longer is text.
const TAG_MAX: usize = 4096;
/// Octets of an entity, `&` and `;` included.
const ENTITY_MAX: usize = 32;
/// Characters of a link's address that are shown.
const LINK_MAX: usize = 500;
/// Quotations in quotations that are shown as such.
const QUOTES_MAX: usize = 5;
/// Elements whose content is no text.
const HIDDEN: [&str; 4] = ["script", "style", "title", "template"];
/// Elements that begin a line and end one.
const BLOCKS: [&str; 22] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "center",
    "dd",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figure",
    "footer",
    "form",
    "header",
    "li",
    "main",
    "nav",
    "section",
    "table",
    "tr",
    "pre",
];
/// Those with an empty line before and after them.
const PARAGRAPHS: [&str; 9] = ["p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol"];

/// The text of a page.
pub(super) fn to_text(html: &str) -> String {
    let mut writer = Writer::default();
    let mut rest = html;
    while let Some(at) = memchr(b'<', rest.as_bytes()) {
        let (text, tail) = rest.split_at(at);
        writer.text(text);
        rest = match markup(tail) {
            Markup::Comment(behind) => behind,
            Markup::Text(text, behind) => {
                writer.text(text);
                behind
            }
            Markup::Tag(tag, behind) => {
                writer.tag(&tag);
                match tag.is_end || !HIDDEN.contains(&tag.name.as_str()) {
                    true => behind,
                    false => behind_hidden(behind, &tag.name),
                }
            }
        };
    }
    writer.text(rest);
    writer.end_link();
    writer.out
}

enum Markup<'a> {
    Tag(Tag<'a>, &'a str),
    Comment(&'a str),
    Text(&'a str, &'a str),
}

struct Tag<'a> {
    /// In lower case.
    name: String,
    is_end: bool,
    attributes: &'a str,
}

/// What stands at a `<`, and what is behind it.
fn markup(tail: &str) -> Markup<'_> {
    if let Some(comment) = tail.strip_prefix("<!--") {
        return Markup::Comment(comment.split_once("-->").map_or("", |(_, behind)| behind));
    }
    let within = &tail[1..];
    let (is_end, named) = within.strip_prefix('/').map_or((false, within), |named| (true, named));
    let is_declaration = within.starts_with(['!', '?']);
    if !is_declaration && !named.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Markup::Text("<", within);
    }
    let Some(end) = tag_end(within) else {
        let (text, behind) = tail.split_at(tail.floor_char_boundary(TAG_MAX));
        return Markup::Text(text, behind);
    };
    let behind = &within[end + 1..];
    if is_declaration {
        return Markup::Comment(behind);
    }
    let named = &within[usize::from(is_end)..end];
    let name_end = named.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(named.len());
    let (name, attributes) = named.split_at(name_end);
    Markup::Tag(Tag { name: name.to_ascii_lowercase(), is_end, attributes }, behind)
}

/// Where the tag ends: at the first `>` outside of quotes, or else the first one.
fn tag_end(within: &str) -> Option<usize> {
    let octets = within.as_bytes().get(..TAG_MAX).unwrap_or(within.as_bytes());
    let mut quote = None;
    for (at, octet) in octets.iter().enumerate() {
        match (quote, octet) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') if octets[..at].trim_ascii_end().ends_with(b"=") => quote = Some(*octet),
            (Some(open), octet) if open == *octet => quote = None,
            _ => {}
        }
    }
    memchr(b'>', octets)
}

/// What is behind the end of an element whose content is not shown.
fn behind_hidden<'a>(rest: &'a str, name: &str) -> &'a str {
    for at in memchr_iter(b'<', rest.as_bytes()) {
        let end = rest.as_bytes().get(at + 1..at + 2 + name.len());
        if end.is_some_and(|end| end[0] == b'/' && end[1..].eq_ignore_ascii_case(name.as_bytes())) {
            return &rest[at..];
        }
    }
    ""
}

/// The value of the attribute called `name`.
fn attribute(attributes: &str, name: &str) -> Option<String> {
    let mut rest = attributes;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/' || c == '=');
        let end = rest.find(|c: char| c.is_whitespace() || c == '=' || c == '/').unwrap_or(rest.len());
        let (found, behind) = rest.split_at(end);
        if found.is_empty() {
            return None;
        }
        let value;
        (value, rest) = match behind.trim_start().strip_prefix('=') {
            None => ("", behind),
            Some(behind) => {
                let behind = behind.trim_start();
                match behind.chars().next() {
                    Some(quote @ ('"' | '\'')) => behind[1..].split_once(quote).unwrap_or((&behind[1..], "")),
                    _ => behind.split_at(behind.find(char::is_whitespace).unwrap_or(behind.len())),
                }
            }
        };
        if found.eq_ignore_ascii_case(name) {
            return Some(decoded(value));
        }
    }
}

/// Text with its entities decoded.
fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'&', rest.as_bytes()) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let within = tail.as_bytes().get(..ENTITY_MAX).unwrap_or(tail.as_bytes());
        let end = memchr(b';', within).map_or(1, |end| end + 1);
        add_html_token(&mut out, &tail.as_bytes()[..end], false);
        rest = &tail[end..];
    }
    out.push_str(rest);
    out
}

/// Writes words into lines.
#[derive(Default)]
struct Writer {
    out: String,
    /// Line ends to write before the next word: 2 leave an empty line.
    ends: usize,
    /// A blank to write before the next word.
    blank: bool,
    quotes: usize,
    preformatted: usize,
    /// The address of the link that is open, and where its text begins.
    link: Option<(String, usize)>,
}

impl Writer {
    fn text(&mut self, text: &str) {
        for c in decoded(text).chars() {
            match c {
                '\n' if self.preformatted > 0 => self.end_line(1),
                c if c.is_whitespace() && self.preformatted == 0 => self.blank = true,
                c => self.push(c),
            }
        }
    }

    fn push(&mut self, c: char) {
        if self.ends > 0 || self.out.is_empty() {
            if !self.out.is_empty() {
                self.out.extend(std::iter::repeat_n('\n', self.ends));
            }
            self.out.extend(std::iter::repeat_n("> ", self.quotes.min(QUOTES_MAX)));
        } else if self.blank {
            self.out.push(' ');
        }
        (self.ends, self.blank) = (0, false);
        self.out.push(c);
    }

    fn words(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
    }

    /// Ends the line, if one is begun; `ends` of 2 leave an empty one.
    fn end_line(&mut self, ends: usize) {
        self.blank = false;
        if !self.out.is_empty() {
            self.ends = self.ends.max(ends);
        }
    }

    fn tag(&mut self, tag: &Tag<'_>) {
        match (tag.name.as_str(), tag.is_end) {
            ("br", _) => {
                self.blank = false;
                self.ends = (self.ends + 1).min(2);
            }
            ("hr", _) => {
                self.end_line(1);
                self.words("----------");
                self.end_line(1);
            }
            ("a", false) => {
                self.end_link();
                let link = attribute(tag.attributes, "href").filter(|to| !to.starts_with(['#', '\0']));
                self.link = link.map(|to| (to.trim().to_owned(), self.out.len()));
            }
            ("a", true) => self.end_link(),
            ("img", _) => {
                let alt = attribute(tag.attributes, "alt").filter(|alt| !alt.trim().is_empty());
                alt.into_iter().for_each(|alt| self.words(&format!("[{}]", alt.trim())));
            }
            ("td" | "th", false) => self.blank = true,
            ("td" | "th", true) => self.blank = true,
            ("blockquote", is_end) => {
                self.end_line(1);
                self.quotes = if is_end { self.quotes.saturating_sub(1) } else { self.quotes + 1 };
            }
            ("pre", is_end) => {
                self.end_line(1);
                self.preformatted = if is_end { self.preformatted.saturating_sub(1) } else { 1 };
            }
            ("li", false) => {
                self.end_line(1);
                self.words("- ");
            }
            (name, _) if PARAGRAPHS.contains(&name) => self.end_line(2),
            (name, _) if BLOCKS.contains(&name) => self.end_line(1),
            _ => {}
        }
    }

    /// Writes where the link leads, unless its text says so.
    fn end_link(&mut self) {
        let Some((to, start)) = self.link.take() else { return };
        let bare = |text: &str| text.trim().trim_start_matches("mailto:").trim_end_matches('/').to_owned();
        let text = self.out.get(start..).unwrap_or_default();
        if to.is_empty() || bare(text) == bare(&to) {
            return;
        }
        self.blank = !self.out.is_empty() && self.ends == 0;
        let to: String = to.chars().filter(|c| !c.is_whitespace()).take(LINK_MAX).collect();
        self.words(&format!("<{to}>"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_as_lines() {
        for (html, expected) in [
            ("<p>the text</p>", "the text"),
            (
                "<b>html</b>  text\n&amp; &lt;more&gt; &#8364;&#x20ac; &nosuch; &",
                "html text & <more> €€ &nosuch; &",
            ),
            (
                "<p>one</p><p>two</p>three<br>four<br/>five<br><br>six",
                "one\n\ntwo\n\nthree\nfour\nfive\n\nsix",
            ),
            ("<div>a<div>b</div></div>c", "a\nb\nc"),
            ("<ul><li>x<li>y</ul>z", "- x\n- y\n\nz"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
            ("x<blockquote>q<blockquote>r</blockquote></blockquote>y", "x\n> q\n> > r\ny"),
            ("<pre>a\n  b</pre>c", "a\n  b\nc"),
            ("<a href=\"https://x.example/a?b=1&amp;c=2\">here</a>.", "here <https://x.example/a?b=1&c=2>."),
            ("<a href=https://x.example>https://x.example/</a>", "https://x.example/"),
            ("<a href='mailto:a@b.example'>a@b.example</a>", "a@b.example"),
            (
                "<A HREF=\"https://evil.example\">https://bank.example</A>",
                "https://bank.example <https://evil.example>",
            ),
            ("<a href=\"#top\">top</a>", "top"),
            ("<a href=x.example>one<p>two", "one\n\ntwo <x.example>"),
            ("<img src=\"https://x.example/t.gif\" alt=\"A cat\"><img src=y>", "[A cat]"),
            ("<title>t</title><style>p{}</style><script>if (a<b) x()</script>seen", "seen"),
            ("<!-- <p>no --><!DOCTYPE html>yes<!-- unfinished", "yes"),
            ("a < b and 1<2", "a < b and 1<2"),
            ("<a title=\"x>y\" href=z.example>t</a>", "t <z.example>"),
            ("<style>never ended", ""),
            ("<p", "<p"),
        ] {
            assert_eq!(to_text(html), expected, "{html}");
        }
    }

    #[test]
    fn hostile_pages_end_soon() {
        for html in ["<a \"", "<a href=\"", "&#", "<blockquote>", "<!--", "</", "<style></sty", "<li>"] {
            let text = to_text(&html.repeat(200_000));
            assert!(text.len() < 8_000_000, "{html}: {}", text.len());
        }
    }
}
