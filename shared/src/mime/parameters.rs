//! Values with parameters: Content-Type and Content-Disposition (RFC 2045 §5.1, RFC 2183, RFC 2231).

use super::decode;
use super::structure::TooComplex;

/// Parameters of one field, the sections of RFC 2231 counted singly.
pub(super) const PARAMETERS_MAX: usize = 1_000;

/// A value and its parameters.
#[derive(Debug, Default)]
pub(super) struct Parameterised {
    /// The value, in lower case, without comments.
    pub(super) value: String,
    parameters: Vec<Parameter>,
}

/// One parameter, its sections joined.
#[derive(Debug)]
struct Parameter {
    name: String,
    value: String,
    /// Whether it came in the encoding of RFC 2231.
    extended: bool,
}

impl Parameterised {
    /// Reads an unfolded field value.
    pub(super) fn parse(text: &str) -> Result<Self, TooComplex> {
        let (value, segments) = segments(text)?;
        Ok(Self { value: value.trim().to_ascii_lowercase(), parameters: joined(segments) })
    }

    /// The parameter called `name`, which is in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(|parameter| parameter.value.as_str())
    }

    /// The file name under `name`: also in encoded words, which do not belong there and often come. In
    /// the encoding that does belong there, what looks like one is a part of the name.
    pub(super) fn file_name(&self, name: &str) -> Option<String> {
        let Parameter { value, extended, .. } = self.find(name)?;
        let name = if *extended { value.clone() } else { decode::encoded_words(value) };
        (!name.is_empty()).then_some(name)
    }

    fn find(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }
}

/// One `name=value`, as written.
#[derive(Default)]
struct Segment {
    name: String,
    value: String,
    quoted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Name,
    Value,
    Quoted,
    /// After a quoted value: nothing more belongs to it.
    After,
}

/// The value before the first semicolon, and the segments after it.
fn segments(text: &str) -> Result<(String, Vec<Segment>), TooComplex> {
    let mut done: Vec<Segment> = Vec::new();
    let mut current = Segment::default();
    let mut place = Place::Name;
    let mut comments = 0_u32;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (place, c) {
            (Place::Name, '(') => comments = comments.saturating_add(1),
            (Place::Name, ')') => comments = comments.saturating_sub(1),
            (Place::Name, _) if comments > 0 => {}
            (Place::Name | Place::Value | Place::After, ';') => {
                done.push(std::mem::take(&mut current));
                place = Place::Name;
                if done.len() > PARAMETERS_MAX {
                    return Err(TooComplex::Parameters);
                }
            }
            (Place::Name, '=') => place = Place::Value,
            (Place::Name, _) => current.name.push(c),
            // Blanks before a value are not of it; looked at once, however many there are.
            (Place::Value, _) if current.value.is_empty() && c.is_whitespace() => {}
            (Place::Value, '"') if current.value.is_empty() => {
                current.quoted = true;
                place = Place::Quoted;
            }
            (Place::Quoted, '"') => place = Place::After,
            // Only what must be escaped: names come with bare backslashes in them.
            (Place::Quoted, '\\') => match characters.next_if(|next| matches!(next, '"' | '\\')) {
                Some(escaped) => current.value.push(escaped),
                None => current.value.push(c),
            },
            (Place::Value | Place::Quoted, _) => current.value.push(c),
            (Place::After, _) => {}
        }
    }
    done.push(current);
    let mut first = done.remove(0);
    // A semicolon that was forgotten: what follows the first word is a parameter.
    let forgotten = first.name.trim().split_once([' ', '\t']).filter(|_| !first.value.is_empty());
    let Some((value, name)) = forgotten.map(|(value, name)| (value.to_owned(), name.to_owned())) else {
        return Ok((first.name, done));
    };
    first.name = name;
    done.insert(0, first);
    Ok((value, done))
}

/// A segment by its place: the parameter it belongs to, its section, and its octets.
struct Section {
    name: String,
    /// `None` for a plain parameter, which counts only if no other form of it is there.
    number: Option<u32>,
    extended: bool,
    value: String,
}

impl Section {
    fn of(segment: Segment) -> Option<Self> {
        let label = segment.name.trim().to_ascii_lowercase();
        let (name, rest) =
            label.split_once('*').map_or((label.as_str(), None), |(name, rest)| (name, Some(rest)));
        let (number, extended) = match rest {
            None => (None, false),
            Some("") => (Some(0), true),
            Some(rest) => match rest.strip_suffix('*') {
                Some(number) => (Some(number.parse().ok()?), true),
                None => (Some(rest.parse().ok()?), false),
            },
        };
        let value = match segment.quoted {
            true => segment.value,
            // An unquoted file name goes on to the semicolon; any other value to the first blank.
            false if matches!(name, "name" | "filename") => segment.value.trim().to_owned(),
            false => segment.value.trim().split([' ', '\t', '(']).next().unwrap_or_default().to_owned(),
        };
        (!name.is_empty()).then(|| Self { name: name.to_owned(), number, extended, value })
    }
}

/// The parameters, each once: its sections in order, or else its plain form.
fn joined(segments: Vec<Segment>) -> Vec<Parameter> {
    let mut sections: Vec<Section> = segments.into_iter().filter_map(Section::of).collect();
    sections.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
    sections.dedup_by(|later, first| later.name == first.name && later.number == first.number);
    sections.chunk_by(|a, b| a.name == b.name).filter_map(value_of).collect()
}

/// The value of one parameter; `None` sorts first among its forms.
fn value_of(forms: &[Section]) -> Option<Parameter> {
    let (plain, numbered) = match forms {
        [plain, numbered @ ..] if plain.number.is_none() => (Some(plain), numbered),
        numbered => (None, numbered),
    };
    let Some(first) = numbered.first() else {
        let (name, value) = plain.map(|plain| (plain.name.clone(), plain.value.clone()))?;
        return Some(Parameter { name, value, extended: false });
    };
    let mut octets = Vec::new();
    let mut charset = None;
    for (n, section) in numbered.iter().enumerate() {
        let mut value = section.value.as_str();
        if n == 0 && section.extended {
            let mut parts = value.splitn(3, '\'');
            if let (Some(label), Some(_language), Some(rest)) = (parts.next(), parts.next(), parts.next()) {
                charset = Some(label);
                value = rest;
            }
        }
        match section.extended {
            true => decode::escapes(value.as_bytes(), b'%', &mut octets),
            false => octets.extend_from_slice(value.as_bytes()),
        }
    }
    let extended = numbered.iter().any(|section| section.extended);
    Some(Parameter { name: first.name.clone(), value: decode::text_in(charset, &octets), extended })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, expected: Option<&str>) {
        let parsed = Parameterised::parse(text).expect("few parameters");
        assert_eq!(parsed.file_name(name).as_deref(), expected, "{text}");
    }

    /// Work that grows with the square of it would not end.
    #[test]
    fn a_field_of_blanks_and_quotes_is_read_once() {
        let (blanks, quotes) = (" ".repeat(128 * 1024), "\"".repeat(128 * 1024));
        let parsed = Parameterised::parse(&format!("a/b; x={blanks}x{quotes}")).expect("few parameters");
        assert_eq!(parsed.get("x").map(str::len), Some(1 + quotes.len()));
    }

    #[test]
    fn file_names_come_in_many_ways() {
        for (text, expected) in [
            ("attachment; filename=plain.txt", Some("plain.txt")),
            ("attachment; FileName = \"a b;c.txt\" ; size=3", Some("a b;c.txt")),
            ("attachment; filename=two words (1).txt; x=y", Some("two words (1).txt")),
            ("attachment; filename*=UTF-8''%e2%82%ac%20rates.txt", Some("€ rates.txt")),
            ("attachment; filename*=iso-8859-1'en'%A3.txt; filename=pound.txt", Some("£.txt")),
            ("attachment; filename*1*=%C3%A9.txt; filename*0*=UTF-8''caf", Some("café.txt")),
            ("attachment; filename*0=\"a \"; filename*2=c; filename*1=\"b \"", Some("a b c")),
            ("attachment; filename*0*=UTF-8''%25; filename*1=%25", Some("%%25")),
            ("attachment; filename=\"=?utf-8?Q?caf=C3=A9.txt?=\"", Some("café.txt")),
            ("attachment; filename= =?utf-8?Q?caf=C3=A9?= =?utf-8?Q?_2.txt?=; size=1", Some("café 2.txt")),
            ("attachment; filename*0=\"=?utf-8?B?Y2Fm\"; filename*1=\"w6kudHh0?=\"", Some("café.txt")),
            ("attachment; filename*=UTF-8''%3D%3Futf-8%3FQ%3Fx%3F%3D.txt", Some("=?utf-8?Q?x?=.txt")),
            ("attachment; filename*=%e2%82%ac.txt", Some("€.txt")),
            ("attachment; filename*=\"shift_jis''%93%fa%96%7b.txt\"", Some("日本.txt")),
            ("attachment; filename=\"na%C3%AFve.txt\"", Some("na%C3%AFve.txt")),
            ("attachment; filename=\"日本.txt\"", Some("日本.txt")),
            ("attachment; filename=\"../../etc/passwd\"", Some("../../etc/passwd")),
            (r#"attachment; filename="..\..\x\"y\\z""#, Some(r#"..\..\x"y\z"#)),
            ("attachment; filename=\"never closed; x=y", Some("never closed; x=y")),
            ("attachment; filename=a; filename=b", Some("a")),
            ("attachment; (filename=no) size=3", None),
            ("attachment; filename=\"\"", None),
            ("attachment; filename*x=a; filename*99999999999=b", None),
            ("attachment", None),
            (";;;=;*=;*0=", None),
        ] {
            check(text, "filename", expected);
        }
    }

    #[test]
    fn values_end_at_a_blank_and_comments_are_no_values() {
        let parsed =
            Parameterised::parse("Text/Plain (a ; comment); charset=utf-8 (really); boundary=\"a b\"");
        let parsed = parsed.expect("few parameters");
        assert_eq!(parsed.value, "text/plain");
        assert_eq!(parsed.get("charset"), Some("utf-8"));
        assert_eq!(parsed.get("boundary"), Some("a b"));
        let parsed = Parameterised::parse("application/pdf name=\"a.pdf\"; size=1").expect("few parameters");
        assert_eq!(
            (parsed.value.as_str(), parsed.get("name"), parsed.get("size")),
            ("application/pdf", Some("a.pdf"), Some("1"))
        );
    }

    #[test]
    fn parameters_are_bounded() {
        let sections = |count: usize| (0..count).map(|n| format!("; filename*{n}=x")).collect::<String>();
        let most =
            Parameterised::parse(&format!("a{}", sections(PARAMETERS_MAX))).expect("just as many as allowed");
        assert_eq!(most.get("filename").map(str::len), Some(PARAMETERS_MAX));
        let over = Parameterised::parse(&format!("a{}", sections(PARAMETERS_MAX + 1)));
        assert!(matches!(over, Err(TooComplex::Parameters)));
    }
}
