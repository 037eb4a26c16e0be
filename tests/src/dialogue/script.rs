//! How dialogues are written.
//!
//! A file holds dialogues, each begun by a title. What stands before the first step says how it begins:
//!
//! ```text
//! == DELE marks, and QUIT deletes
//! on: clear              where it is held, see below
//! mail: plain dots       what is in the maildrop: messages of `messages.txt`
//! with: clock            only for servers that have this; `sallypost` is what only this product does, and takes a `why:`
//! login                  the dialogue begins after the login; `hello`: after EHLO; `early`: before the greeting
//! C: DELE 1
//! S: +OK*
//! ```
//!
//! POP3 is held under TLS from the first octet, and `on: clear` in the clear; SMTP as a mail exchanger does, and
//! `on: submission` and `on: submissions` as those services, `on: stranger` as for somebody whom a mail exchanger
//! lets wait for its greeting.
//!
//! Steps: `C:` sends a line; `C` lines that follow each other are sent at once. `C<` sends octets without CRLF.
//! `S:` is a line that must come. `S+` and `S-` are lines that the block after the last `S:` must and must not
//! hold; in SMTP, the block is one reply of any number of lines. `S*9` is nine such lines, one after the other. `S=` is a message: `S= 1`, or `S= 1 top 2`, or `S= 1 as NAME` where another one is sent in its place.
//! `S!` is the server's end of the connection. `TLS` goes over to TLS. `SCRAM` and `SCRAM-PLUS` log in;
//! `SCRAM guess` and `SCRAM nobody` try to. `AGAIN` hangs up and begins anew, `SECOND` begins anew beside what there is,
//! `BACK` hangs up and goes back. `LOGIN` logs in. `WAIT 60` lets seconds pass. `FAULT commit` lets the
//! next commit fail. `DIFFER a b` compares what was seen. `KEPT 1` says how many messages the server has taken since the
//! dialogue began, and `KEPT= NAME` that the last one is that of `messages.txt`, to the octet.
//!
//! In lines: `\r \n \t \0 \\ \*` and `\xHH` are octets; `{a*5}` is `aaaaa`; `{user}`, `{password}`, `{plain}` (SASL
//! PLAIN's response), `{plain-guess}`, `{plain-nobody}`, `{base64-user}`, `{base64-password}`, `{plain-other}` (for somebody else), `{me}` (the address of who logs in), `{count}`, `{total}` and
//! `{size:1}` stand for what they say. In `S`, `*` is any text and `{?name}` one word, which is the same wherever it
//! is named again, in `C` as `{name}`.

use std::path::Path;

/// The feature of who does as this product does where others may do otherwise.
const OURS: &str = "sallypost";

/// A message by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The name.
    pub name: String,
    /// Its octets.
    pub octets: Vec<u8>,
}

/// A dialogue.
#[derive(Clone, Debug, Default)]
pub struct Dialogue {
    /// Its title.
    pub title: String,
    /// The file and line of its title.
    pub place: String,
    /// Where it is held; empty is the usual service.
    pub on: String,
    /// How far the conversation has come where it begins.
    pub begins: Begins,
    /// What the server must have.
    pub needs: Vec<String>,
    /// Why no other product is held to it.
    pub why: String,
    /// What is in the maildrop, by name.
    pub mail: Vec<String>,
    /// The steps, with their lines.
    pub steps: Vec<(usize, Step)>,
}

/// Where a dialogue begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begins {
    /// Before the greeting.
    Early,
    /// After the greeting.
    #[default]
    Greeted,
    /// After EHLO.
    Hello,
    /// After the login.
    Login,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and CRLF if it is a line.
    Send {
        /// As written.
        text: String,
        /// Whether CRLF follows.
        line: bool,
    },
    /// A line must come.
    Line(String),
    /// A block must come that has these lines and lacks those.
    Block {
        /// Lines that it must hold.
        has: Vec<String>,
        /// Lines that it must not hold.
        lacks: Vec<String>,
    },
    /// A message must come.
    Message {
        /// Its number.
        number: usize,
        /// Lines of its body, for TOP.
        top: Option<usize>,
        /// The message that is sent in its place.
        instead: Option<String>,
    },
    /// The server must close.
    Closed,
    /// Go over to TLS.
    Tls,
    /// A SCRAM login.
    Scram {
        /// Bound to the connection.
        plus: bool,
        /// `guess` or `nobody`, where it is to fail.
        who: Option<String>,
    },
    /// Log in.
    Login,
    /// Hang up, and connect again.
    Again,
    /// Connect beside this one.
    Second,
    /// Hang up, and go on with the one before.
    Back,
    /// Let seconds pass.
    Wait(u64),
    /// Let the next such step fail.
    Fault(String),
    /// These must differ.
    Differ(String, String),
    /// So many messages must have been taken.
    Kept(usize),
    /// The last message that was taken must be this one.
    KeptAs(String),
}

/// The dialogues of all files in a folder, in order of names.
///
/// # Errors
/// What cannot be read, and where.
pub fn dialogues(folder: &Path) -> Result<Vec<Dialogue>, String> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(|e| format!("{}: {e}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dialogue"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.extend(parse(&text, &name)?);
    }
    Ok(all)
}

/// The messages of `messages.txt`: `== NAME`, then its lines behind `|`. A line that ends in `\` has no CRLF.
///
/// # Errors
/// What cannot be read, and where.
pub fn messages(folder: &Path) -> Result<Vec<Message>, String> {
    let file = folder.join("messages.txt");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut messages: Vec<Message> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(name) = line.strip_prefix("== ") {
            messages.push(Message { name: name.to_owned(), octets: Vec::new() });
        } else if let Some(text) = line.strip_prefix('|') {
            let message =
                messages.last_mut().ok_or_else(|| format!("line {number}: no message has begun"))?;
            let (text, end): (_, &[u8]) = text.strip_suffix('\\').map_or((text, b"\r\n"), |text| (text, b""));
            message.octets.extend(octets(&repeated(text)?)?);
            message.octets.extend_from_slice(end);
        } else if !line.is_empty() && !line.starts_with('#') {
            return Err(format!("messages.txt, line {number}: write == NAME or |TEXT"));
        }
    }
    Ok(messages)
}

/// How many exchanges there are: lines that a client sends.
pub fn exchanges(dialogues: &[Dialogue]) -> usize {
    let sent = |step: &&(usize, Step)| matches!(step.1, Step::Send { .. } | Step::Scram { .. });
    dialogues.iter().map(|dialogue| dialogue.steps.iter().filter(sent).count()).sum()
}

fn parse(text: &str, file: &str) -> Result<Vec<Dialogue>, String> {
    let mut dialogues: Vec<Dialogue> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            let place = format!("{file}:{number}");
            dialogues.push(Dialogue { title: title.to_owned(), place, ..Dialogue::default() });
            continue;
        }
        let dialogue =
            dialogues.last_mut().ok_or_else(|| format!("{file}:{number}: no dialogue has begun"))?;
        dialogue.line(number, line).map_err(|reason| format!("{file}:{number}: {reason}"))?;
    }
    match dialogues.iter().find(|dialogue| dialogue.is_ours() == dialogue.why.is_empty()) {
        Some(dialogue) => Err(format!("{}: `with: {OURS}` and `why:` go together", dialogue.place)),
        None => Ok(dialogues),
    }
}

impl Dialogue {
    fn is_ours(&self) -> bool {
        self.needs.iter().any(|need| need == OURS)
    }

    /// Whether it is one of submission's: `on` a service that takes mail from who logs in.
    pub fn is_of_submission(&self) -> bool {
        self.on.starts_with("submission")
    }

    /// Why a server is not held to it that lacks what it needs.
    pub fn left_out_because(&self) -> String {
        if self.is_ours() { self.why.clone() } else { format!("for servers with {}", self.needs.join(", ")) }
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = || rest.split_whitespace().map(str::to_owned);
        match word {
            "on:" => rest.clone_into(&mut self.on),
            "early" => self.begins = Begins::Early,
            "hello" => self.begins = Begins::Hello,
            "login" => self.begins = Begins::Login,
            "with:" => self.needs = words().collect(),
            "why:" => rest.clone_into(&mut self.why),
            "mail:" => self.mail = words().collect(),
            _ => return self.step(number, word, rest),
        }
        Ok(())
    }

    fn step(&mut self, number: usize, word: &str, rest: &str) -> Result<(), String> {
        let words = || rest.split_whitespace().map(str::to_owned);
        let step = match word {
            "C:" => Step::Send { text: rest.to_owned(), line: true },
            "C<" => Step::Send { text: rest.to_owned(), line: false },
            "S:" => Step::Line(rest.to_owned()),
            "S+" | "S-" => {
                if !matches!(self.steps.last(), Some((_, Step::Block { .. }))) {
                    self.steps.push((number, Step::Block { has: Vec::new(), lacks: Vec::new() }));
                }
                if let Some((_, Step::Block { has, lacks })) = self.steps.last_mut() {
                    if word == "S+" { has.push(rest.to_owned()) } else { lacks.push(rest.to_owned()) }
                }
                return Ok(());
            }
            "S=" => message(rest)?,
            _ if word.starts_with("S*") => {
                let times = word.get(2..).and_then(|times| times.parse().ok()).ok_or("S* takes a number")?;
                let line = (number, Step::Line(rest.to_owned()));
                self.steps.extend(std::iter::repeat_n(line, times));
                return Ok(());
            }
            "S!" => Step::Closed,
            "TLS" => Step::Tls,
            "SCRAM" | "SCRAM-PLUS" => Step::Scram { plus: word == "SCRAM-PLUS", who: words().next() },
            "LOGIN" => Step::Login,
            "AGAIN" => Step::Again,
            "SECOND" => Step::Second,
            "BACK" => Step::Back,
            "WAIT" => Step::Wait(rest.parse().map_err(|_| "WAIT takes seconds")?),
            "KEPT" => Step::Kept(rest.parse().map_err(|_| "KEPT takes a number")?),
            "KEPT=" => Step::KeptAs(rest.to_owned()),
            "FAULT" => Step::Fault(rest.to_owned()),
            "DIFFER" => {
                let mut names = words();
                Step::Differ(names.next().unwrap_or_default(), names.next().unwrap_or_default())
            }
            _ => return Err(format!("{word:?} is no step")),
        };
        self.steps.push((number, step));
        Ok(())
    }
}

fn message(text: &str) -> Result<Step, String> {
    let mut words = text.split_whitespace();
    let number = words.next().and_then(|number| number.parse().ok()).ok_or("S= takes a message number")?;
    let (mut top, mut instead) = (None, None);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("what {word}?"))?;
        match word {
            "top" => top = Some(value.parse().map_err(|_| "top takes a number of lines")?),
            "as" => instead = Some(value.to_owned()),
            _ => return Err(format!("{word:?} is not said of a message")),
        }
    }
    Ok(Step::Message { number, top, instead })
}

/// The text with `{a*5}` written out.
///
/// # Errors
/// A count that is none.
pub fn repeated(text: &str) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (inner, after) = after.split_once('}').ok_or("a { without }")?;
        match inner.rsplit_once('*') {
            Some((what, times)) => {
                out.push_str(&what.repeat(times.parse().map_err(|_| format!("{times:?} is no count"))?));
            }
            None => {
                out.push('{');
                out.push_str(inner);
                out.push('}');
            }
        }
        rest = after;
    }
    Ok(out + rest)
}

/// The octets that a text with escapes stands for.
///
/// # Errors
/// An escape that is none.
pub fn octets(text: &str) -> Result<Vec<u8>, String> {
    let (mut out, mut letters) = (Vec::new(), text.chars());
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        out.push(match letters.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('x') => {
                let digits: String = letters.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no octet"))?
            }
            Some(other @ ('\\' | '*')) => u8::try_from(other).unwrap_or_default(),
            other => return Err(format!("\\{other:?} is no escape")),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialogue_that_is_ours_alone_says_why() {
        let places = |text: &str| {
            let parsed = parse(text, "x.dialogue");
            parsed.map(|dialogues| dialogues.iter().map(Dialogue::left_out_because).collect::<Vec<_>>())
        };
        let ours = "== t\nwith: sallypost\nwhy: the words are ours\nC: NOOP\n";
        assert_eq!(places(ours), Ok(vec!["the words are ours".into()]));
        assert_eq!(places("== t\nwith: clock\nC: NOOP\n"), Ok(vec!["for servers with clock".into()]));
        for wrong in ["== t\nwith: sallypost\nC: NOOP\n", "== t\nwhy: it is so\nC: NOOP\n"] {
            let error = places(wrong).expect_err(wrong);
            assert!(error.starts_with("x.dialogue:1: "), "{error}");
        }
    }
}
