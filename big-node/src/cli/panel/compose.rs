//! A message that is written: what it is, its fields, its text, and the request that sends or keeps it.

use shared::mime::terminal;
use shared::render::when;
use shared::unit::ReviseMode;

use super::command::recipients;
use super::editor::{Editor, Field, Rows};
use super::keys::Key;
use super::text::Repertoire;
use crate::record::Part;
use crate::request::{About, Attached, DraftView, Reading, Request, Written};

/// Octets of a text that is quoted in an answer.
const QUOTED_MAX: usize = 256 * 1024;

/// To whom an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyTo {
    /// Whom the message asks to answer.
    Author,
    /// Those, and all who have it.
    All,
    /// The mailing list that it came by.
    List,
}

impl ReplyTo {
    fn about(self, message: String) -> About {
        About::Reply { message, all: self == Self::All, list: self == Self::List }
    }
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A message of one's own.
    New,
    /// An answer.
    Reply {
        /// The message.
        message: String,
        /// To whom.
        answer: ReplyTo,
        /// Whom that means, for people.
        to: String,
    },
    /// A message that is sent on.
    Forward {
        /// The message.
        message: String,
    },
    /// A message of another that was amended.
    Return {
        /// The message.
        message: String,
    },
    /// A message of one's own that is revised.
    Revise {
        /// The message.
        message: String,
        /// The latest revision when it was read.
        base: u32,
    },
}

/// What a field is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Recipients.
    To,
    /// More of them.
    Cc,
    /// Subject.
    Subject,
    /// What a revision does: a choice.
    Mode,
    /// For whom a revision is.
    Scope,
    /// Why a revision is made.
    Reason,
}

impl Name {
    /// As it is shown.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::To => "To",
            Self::Cc => "Cc",
            Self::Subject => "Subject",
            Self::Mode => "Mode",
            Self::Scope => "For",
            Self::Reason => "Reason",
        }
    }
}

/// An attachment of what is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// One that goes along from the message that this is about.
    Original(Part),
    /// One that is in the draft already.
    Kept(Part),
    /// A file.
    New {
        /// Its name.
        name: String,
        /// What is in it.
        octets: Vec<u8>,
    },
}

/// A message that is written.
#[derive(Clone, Debug)]
pub(super) struct Compose {
    /// What it is.
    pub(super) what: What,
    /// The draft that it is kept as.
    pub(super) draft: Option<String>,
    /// Its fields.
    pub(super) fields: Vec<(Name, Field)>,
    /// Where typing goes: a field, or behind the last one the text.
    pub(super) focus: usize,
    /// Its text.
    pub(super) text: Editor,
    /// Its attachments.
    pub(super) attachments: Vec<Attachment>,
    /// Attachments that were taken away, of those that would go along.
    pub(super) without: Vec<u32>,
    /// It is being sent or kept.
    pub(super) busy: bool,
    /// What a revision does.
    mode: ReviseMode,
    /// The text while it was replaced, in case that is chosen again.
    other_text: Option<String>,
    /// The first row of the text on the screen: its line, and which row of that.
    top: (usize, usize),
    /// The text on the screen.
    pub(super) shown: Vec<String>,
    /// Where in it the cursor is: row and column.
    pub(super) cursor: (usize, usize),
    /// As it was when it was opened or kept last.
    kept: Kept,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Kept {
    fields: Vec<String>,
    text: String,
    attachments: usize,
}

impl Compose {
    fn new(what: What, fields: Vec<(Name, Field)>, text: &str) -> Self {
        let mut compose = Self {
            what,
            draft: None,
            fields,
            focus: 0,
            text: Editor::new(text),
            attachments: Vec::new(),
            without: Vec::new(),
            busy: false,
            mode: ReviseMode::Replace,
            other_text: None,
            top: (0, 0),
            shown: Vec::new(),
            cursor: (0, 0),
            kept: Kept::default(),
        };
        compose.settle();
        compose
    }

    /// A message of one's own.
    pub(super) fn message(to: &[String]) -> Self {
        let mut compose = Self::new(What::New, letter(to, &[], ""), "");
        compose.focus = if to.is_empty() { 0 } else { 2 };
        compose
    }

    /// An answer to a message that was read.
    pub(super) fn reply(reading: &Reading, answer: ReplyTo) -> Self {
        let message = reading.id.clone();
        let others = reading.to.iter().chain(&reading.cc);
        let to: Vec<_> = match answer {
            ReplyTo::All => reading.from.iter().chain(others).cloned().collect(),
            ReplyTo::Author => reading.from.clone(),
            ReplyTo::List => vec!["the mailing list".to_owned()],
        };
        let what = What::Reply { message, answer, to: to.join(", ") };
        Self::new(what, Vec::new(), &format!("\n\n{}", quoted(reading)))
    }

    /// A message that was read, to be sent on.
    pub(super) fn forward(reading: &Reading, to: &[String]) -> Self {
        let fields = vec![(Name::To, Field::new(to.join(", "))), (Name::Cc, Field::default())];
        let mut compose = Self::new(What::Forward { message: reading.id.clone() }, fields, "");
        compose.focus = if to.is_empty() { 0 } else { 2 };
        compose.take_along(reading)
    }

    /// A message that was read, to be amended and returned.
    pub(super) fn amended(reading: &Reading) -> Self {
        let fields = vec![(Name::To, Field::default()), (Name::Subject, Field::new(&reading.subject))];
        let text = terminal::safe(&reading.text);
        let mut compose = Self::new(What::Return { message: reading.id.clone() }, fields, &text);
        compose.focus = 2;
        compose.take_along(reading)
    }

    /// A message of one's own, to be revised.
    pub(super) fn revision(reading: &Reading, withdraw: Option<&str>) -> Self {
        // What is shown is the last one for all; there may be later ones for some.
        let base = reading.latest.unwrap_or(reading.revision);
        let what = What::Revise { message: reading.id.clone(), base };
        let fields = vec![
            (Name::Mode, Field::default()),
            (Name::Scope, Field::default()),
            (Name::Subject, Field::new(&reading.subject)),
            (Name::Reason, Field::new(withdraw.unwrap_or_default())),
        ];
        let mut compose = Self::new(what, fields, &reading.text);
        compose.focus = 4;
        if withdraw.is_some() {
            compose.choose(ReviseMode::Withdraw);
            compose.focus = 3;
        }
        compose.settle();
        compose
    }

    /// A draft, to go on writing it.
    pub(super) fn draft(view: DraftView) -> Self {
        let (what, without) = match view.about {
            None => (What::New, Vec::new()),
            Some(About::Reply { message, all, list }) => {
                let answer = match (all, list) {
                    (_, true) => ReplyTo::List,
                    (true, false) => ReplyTo::All,
                    (false, false) => ReplyTo::Author,
                };
                (What::Reply { message, answer, to: String::new() }, Vec::new())
            }
            Some(About::Forward { message, without, .. }) => (What::Forward { message }, without),
            Some(About::Return { message, without }) => (What::Return { message }, without),
        };
        let mut compose = Self::new(what, letter(&view.to, &view.cc, &view.subject), &view.text);
        compose.draft = Some(view.id);
        compose.attachments = view.parts.into_iter().map(Attachment::Kept).collect();
        compose.without = without;
        compose.focus = 3;
        compose.settle();
        compose
    }

    fn take_along(mut self, reading: &Reading) -> Self {
        self.attachments = reading.parts.iter().cloned().map(Attachment::Original).collect();
        self.settle();
        self
    }

    fn as_is(&self) -> Kept {
        let mut fields: Vec<_> = self.fields.iter().map(|(_, field)| field.text().to_owned()).collect();
        fields.push(format!("{:?}", self.mode));
        Kept { fields, text: self.text.text(), attachments: self.attachments.len() }
    }

    /// From here on it counts as kept, until something is changed.
    pub(super) fn settle(&mut self) {
        self.kept = self.as_is();
    }

    /// Whether anything would be lost with it.
    pub(super) fn is_changed(&self) -> bool {
        self.as_is() != self.kept
    }

    /// What a revision does.
    pub(super) fn mode(&self) -> ReviseMode {
        self.mode
    }

    /// What is written, for people.
    pub(super) fn title(&self) -> String {
        match &self.what {
            What::New if self.draft.is_some() => "Draft".into(),
            What::New => "New message".into(),
            What::Reply { to, .. } if to.is_empty() => "Answer".into(),
            What::Reply { to, .. } => format!("Answer to {to}"),
            What::Forward { .. } => "Forward".into(),
            What::Return { .. } => "Amend and return; without a name in To, to its sender".into(),
            What::Revise { base: 0, .. } => "Revise what you have sent".into(),
            What::Revise { base, .. } => format!("Revise what you have sent; this is its revision {base}"),
        }
    }

    /// The field in which is typed; `None` is the text.
    pub(super) fn field(&mut self) -> Option<&mut (Name, Field)> {
        self.fields.get_mut(self.focus)
    }

    /// A field.
    pub(super) fn named(&mut self, name: Name) -> Option<&mut Field> {
        self.fields.iter_mut().find(|(other, _)| *other == name).map(|(_, field)| field)
    }

    fn value(&self, name: Name) -> &str {
        self.fields.iter().find(|(other, _)| *other == name).map_or("", |(_, field)| field.text())
    }

    /// The next field, or with `back` the one before; around the ends.
    pub(super) fn turn(&mut self, back: bool) {
        let places = self.fields.len() + 1;
        self.focus = (self.focus + if back { places - 1 } else { 1 }) % places;
    }

    /// Adds recipients; whether it has any.
    pub(super) fn add(&mut self, name: Name, names: &[String]) -> bool {
        let Some(field) = self.named(name) else { return false };
        let mut all = recipients(field.text());
        all.extend(names.iter().cloned());
        *field = Field::new(all.join(", "));
        true
    }

    /// Applies a key that is for the text or the field.
    pub(super) fn press(&mut self, key: Key, page: usize) {
        let focus = self.focus;
        match (self.fields.get_mut(focus), key) {
            (None, key) => {
                self.text.press(key, page);
            }
            (Some(_), Key::Enter | Key::Down) => self.turn(false),
            (Some(_), Key::Up) if focus > 0 => self.turn(true),
            (Some((Name::Mode, _)), Key::Char(' ') | Key::Right) => self.choose(next_mode(self.mode)),
            (Some((Name::Mode, _)), Key::Left) => self.choose(next_mode(next_mode(self.mode))),
            (Some((Name::Mode, _)), _) => {}
            (Some((_, field)), key) => {
                field.press(key);
            }
        }
    }

    /// What was pasted.
    pub(super) fn paste(&mut self, text: &str) {
        match self.fields.get_mut(self.focus) {
            None => self.text.insert(&text.replace("\r\n", "\n").replace('\r', "\n")),
            Some((Name::Mode, _)) => {}
            Some((_, field)) => field.insert(text),
        }
    }

    /// An added text begins empty, a replaced one as it was.
    fn choose(&mut self, mode: ReviseMode) {
        let is_whole = |mode| mode == ReviseMode::Replace;
        if is_whole(self.mode) != is_whole(mode) {
            let text = self.text.text();
            let other = self.other_text.replace(text).unwrap_or_default();
            self.text = Editor::new(&other);
        }
        self.mode = mode;
    }

    /// Takes an attachment away, by its place from 1.
    pub(super) fn detach(&mut self, places: &[u32]) -> Result<(), String> {
        let mut places: Vec<_> = places.iter().map(|place| *place as usize).collect();
        places.sort_unstable();
        places.dedup();
        if places.iter().any(|place| !(1..=self.attachments.len()).contains(place)) {
            return Err(format!("it has {} attachments", self.attachments.len()));
        }
        for place in places.into_iter().rev() {
            if let Attachment::Original(part) = self.attachments.remove(place - 1) {
                self.without.push(part.number);
            }
        }
        Ok(())
    }

    /// Another text, the cursor before it.
    pub(super) fn rewrite(&mut self, text: &str) {
        self.text = Editor::new(text);
        self.top = (0, 0);
        self.focus = self.fields.len();
    }

    /// Lays out what of the text is on a screen, so that the cursor is on it. Only that is looked at, however
    /// long the text is.
    pub(super) fn lay_out(&mut self, columns: usize, rows: usize, repertoire: Repertoire) {
        let lines = self.text.lines();
        let of = |line: usize, at: usize| Rows::of(&lines[line], at, columns, repertoire);
        let (line, at) = self.text.cursor();
        let (row, column) = of(line, at).place;
        // As high as the screen may begin for the cursor to be on its last row.
        let (mut highest, mut above) = ((line, row), rows.saturating_sub(1));
        while above > highest.1 && highest.0 > 0 {
            above -= highest.1 + 1;
            highest = (highest.0 - 1, of(highest.0 - 1, 0).rows.len() - 1);
        }
        highest.1 = highest.1.saturating_sub(above);
        self.top = self.top.max(highest).min((line, row));
        let mut shown = Vec::new();
        let mut cursor = 0;
        for at_line in self.top.0..lines.len() {
            let skipped = if at_line == self.top.0 { self.top.1 } else { 0 };
            if at_line == line {
                cursor = (shown.len() + row).saturating_sub(skipped);
            }
            let place = if at_line == line { at } else { 0 };
            shown.extend(of(at_line, place).rows.into_iter().skip(skipped));
            if shown.len() >= rows {
                break;
            }
        }
        shown.truncate(rows);
        (self.shown, self.cursor) = (shown, (cursor, column));
    }

    fn new_attachments(&self) -> (Vec<Attached>, Vec<u8>) {
        let (mut attached, mut octets) = (Vec::new(), Vec::new());
        for attachment in &self.attachments {
            if let Attachment::New { name, octets: content } = attachment {
                attached.push(Attached { name: name.clone(), bytes: content.len(), text: false });
                octets.extend_from_slice(content);
            }
        }
        (attached, octets)
    }

    /// The request that sends it, and its body; `None` if it has to be kept as a draft first, which is sent
    /// then.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn send(&self, person: &str) -> Result<Option<(Request, Vec<u8>)>, String> {
        let person = person.to_owned();
        let (to, cc) = (recipients(self.value(Name::To)), recipients(self.value(Name::Cc)));
        let nobody = to.is_empty() && cc.is_empty();
        if nobody && matches!(self.what, What::New | What::Forward { .. }) {
            return Err("to whom? type a name or an address in To".into());
        }
        if self.draft.is_some() {
            return Ok(None);
        }
        let What::Revise { message, base } = &self.what else {
            let (written, body) = self.written();
            return Ok(Some((Request::MailSend { person, written, quote: false }, body)));
        };
        let (mode, is_withdrawn) = (self.mode, self.mode == ReviseMode::Withdraw);
        let (Written { subject, attachments, text_bytes, .. }, body) = match is_withdrawn {
            true => Default::default(),
            false => self.written(),
        };
        let request = Request::MailAmend {
            person,
            message: message.clone(),
            mode,
            recipients: recipients(self.value(Name::Scope)),
            subject: (!is_withdrawn).then_some(subject),
            reason: Some(self.value(Name::Reason).to_owned()).filter(|reason| !reason.is_empty()),
            base: Some(*base),
            text_bytes,
            attachments,
        };
        Ok(Some((request, body)))
    }

    /// The request that keeps it as a draft, and its body.
    pub(super) fn keep(&self, person: &str) -> (Request, Vec<u8>) {
        let kept = self.attachments.iter().filter_map(|attachment| match attachment {
            Attachment::Kept(part) => Some(part.number),
            Attachment::Original(_) | Attachment::New { .. } => None,
        });
        let (written, body) = self.written();
        let (person, draft) = (person.to_owned(), self.draft.clone());
        (Request::DraftSave { person, draft, keep: kept.collect(), written }, body)
    }

    /// What is written, and the body with its text and its files.
    fn written(&self) -> (Written, Vec<u8>) {
        let (attachments, files) = self.new_attachments();
        let mut body = self.text.text().into_bytes();
        let text_bytes = body.len();
        body.extend(files);
        let without = self.without.clone();
        let about = match self.what.clone() {
            // A revision is kept as a text; what it revises is in Sent.
            What::New | What::Revise { .. } => None,
            What::Reply { message, answer, .. } => Some(answer.about(message)),
            What::Forward { message } => Some(About::Forward { message, as_attachment: false, without }),
            What::Return { message } => Some(About::Return { message, without }),
        };
        let written = Written {
            to: recipients(self.value(Name::To)),
            cc: recipients(self.value(Name::Cc)),
            subject: self.value(Name::Subject).to_owned(),
            about,
            attachments,
            text_bytes,
            ..Written::default()
        };
        (written, body)
    }

    /// It is kept as a draft of this id: what was new in it is in there.
    pub(super) fn is_kept(&mut self, id: String) {
        self.draft = Some(id);
        // Its own attachments are numbered as they stand in it.
        let mut number = 0;
        for attachment in &mut self.attachments {
            let part = match attachment {
                Attachment::Original(_) => continue,
                Attachment::Kept(part) => part.clone(),
                Attachment::New { name, octets } => Part {
                    number: 0,
                    index: 0,
                    name: Some(std::mem::take(name)),
                    content_type: "application/octet-stream".into(),
                    size: octets.len() as u64,
                },
            };
            number += 1;
            *attachment = Attachment::Kept(Part { number, index: number, ..part });
        }
        self.settle();
    }

    /// It as a text file, for a person who has nothing else left of it.
    pub(super) fn as_file(&self) -> String {
        let mut text = String::new();
        if let What::Reply { message, .. }
        | What::Forward { message }
        | What::Return { message }
        | What::Revise { message, .. } = &self.what
        {
            text.push_str(&format!("{}: {message}\n", self.title()));
        }
        for (name, field) in &self.fields {
            if *name != Name::Mode {
                text.push_str(&format!("{}: {}\n", name.shown(), field.text()));
            }
        }
        for attachment in &self.attachments {
            if let Attachment::New { name, .. } = attachment {
                text.push_str(&format!("Attachment: {name}\n"));
            }
        }
        format!("{text}\n{}\n", self.text.text())
    }
}

fn letter(to: &[String], cc: &[String], subject: &str) -> Vec<(Name, Field)> {
    vec![
        (Name::To, Field::new(to.join(", "))),
        (Name::Cc, Field::new(cc.join(", "))),
        (Name::Subject, Field::new(subject)),
    ]
}

fn next_mode(mode: ReviseMode) -> ReviseMode {
    match mode {
        ReviseMode::Replace => ReviseMode::Append,
        ReviseMode::Append => ReviseMode::Withdraw,
        ReviseMode::Withdraw => ReviseMode::Replace,
    }
}

/// A text as it is quoted in an answer, made safe: nothing of a stranger's that drives a terminal goes on
/// from here.
fn quoted(reading: &Reading) -> String {
    let who = terminal::safe_line(&reading.from.join(", "));
    let text = &reading.text[..reading.text.floor_char_boundary(QUOTED_MAX)];
    let mut quoted = format!("On {} UTC, {who} wrote:\n", when(reading.at));
    for line in terminal::safe(text).trim_end().lines() {
        quoted.push_str(if line.starts_with('>') { ">" } else { "> " });
        quoted.push_str(line);
        quoted.push('\n');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::reader::tests::reading;
    use super::*;

    #[test]
    fn a_message_is_sent_as_it_was_typed() {
        let mut compose = Compose::message(&["bob".into()]);
        assert!(!compose.is_changed());
        compose.add(Name::Cc, &["/smtp c@x.example".into()]);
        compose.named(Name::Subject).expect("a subject").insert("Lunch");
        compose.text.insert("At one.");
        compose.attachments.push(Attachment::New { name: "a.pdf".into(), octets: vec![1, 2, 3] });
        assert!(compose.is_changed());
        let (request, body) = compose.send("alice").expect("whole").expect("at once");
        let Request::MailSend { person, written, .. } = request else { panic!("{request:?}") };
        let Written { to, cc, subject, about: None, attachments, text_bytes, .. } = written else {
            panic!("{written:?}")
        };
        assert_eq!(
            (person.as_str(), to, cc),
            ("alice", vec!["bob".to_owned()], vec!["/smtp c@x.example".into()])
        );
        assert_eq!((subject.as_str(), text_bytes, attachments[0].bytes), ("Lunch", 7, 3));
        assert_eq!(body, b"At one.\x01\x02\x03");
        assert!(Compose::message(&[]).send("alice").is_err());
    }

    #[test]
    fn an_answer_names_nobody_and_quotes_safely() {
        let mut message = reading("1", "Hi\x1b[2J\n> older\n");
        message.from = vec!["Ca\u{202e}rol <c@x.example>".into()];
        let list = Compose::reply(&message, ReplyTo::List);
        assert_eq!(list.title(), "Answer to the mailing list");
        let (request, _) = list.send("alice").expect("whole").expect("at once");
        let Request::MailSend { written: Written { about, .. }, .. } = request else { panic!("{request:?}") };
        assert_eq!(about, Some(About::Reply { message: "1".into(), all: false, list: true }));
        let compose = Compose::reply(&message, ReplyTo::All);
        let text = "\n\nOn 2026-11-22 07:41 UTC, Carol <c@x.example> wrote:\n> Hi␛[2J\n>> older\n";
        assert_eq!(compose.text.text(), text);
        let (request, _) = compose.send("alice").expect("whole").expect("at once");
        let Request::MailSend { written: Written { to, about, .. }, .. } = request else {
            panic!("{request:?}")
        };
        assert_eq!(about, Some(About::Reply { message: "1".into(), all: true, list: false }));
        assert!(to.is_empty());
    }

    #[test]
    fn a_revision_replaces_appends_or_withdraws() {
        let mut compose = Compose::revision(&reading("1", "old"), None);
        assert!(!compose.is_changed());
        compose.focus = 0;
        compose.press(Key::Char(' '), 5);
        assert_eq!((compose.mode(), compose.text.text()), (ReviseMode::Append, String::new()));
        compose.text.insert("more");
        compose.press(Key::Left, 5);
        assert_eq!((compose.mode(), compose.text.text()), (ReviseMode::Replace, "old".into()));
        compose.press(Key::Right, 5);
        assert_eq!(compose.text.text(), "more");
        compose.add(Name::Scope, &["bob@example.com".into()]);
        let (request, body) = compose.send("alice").expect("whole").expect("at once");
        let Request::MailAmend { mode, recipients, base, reason, .. } = request else {
            panic!("{request:?}")
        };
        assert_eq!((mode, base, reason), (ReviseMode::Append, Some(0), None));
        assert_eq!((recipients, body), (vec!["bob@example.com".to_owned()], b"more".to_vec()));
        // After a revision for some, which the author's own entry does not show.
        let some = Reading { latest: Some(2), revision: 1, ..reading("1", "old") };
        let (request, _) = Compose::revision(&some, None).send("alice").expect("whole").expect("at once");
        assert!(matches!(request, Request::MailAmend { base: Some(2), .. }), "{request:?}");
        let compose = Compose::revision(&reading("1", "old"), Some("wrong list"));
        let (request, body) = compose.send("alice").expect("whole").expect("at once");
        let Request::MailAmend { mode, reason, text_bytes, .. } = request else { panic!("{request:?}") };
        assert_eq!((mode, reason.as_deref(), text_bytes), (ReviseMode::Withdraw, Some("wrong list"), 0));
        assert!(body.is_empty());
    }

    #[test]
    fn what_is_returned_leaves_attachments_out_that_were_taken_away() {
        let mut message = reading("1", "text");
        let part =
            |number| Part { number, index: number, name: None, content_type: "image/png".into(), size: 1 };
        message.parts = vec![part(1), part(2), part(3)];
        let mut compose = Compose::amended(&message);
        assert!(compose.detach(&[4]).is_err());
        compose.detach(&[2]).expect("there");
        let (request, _) = compose.send("alice").expect("whole").expect("at once");
        let Request::MailSend { written: Written { to, about, .. }, .. } = request else {
            panic!("{request:?}")
        };
        assert_eq!(about, Some(About::Return { message: "1".into(), without: vec![2] }));
        assert!(to.is_empty());
        // A new file goes along.
        compose.attachments.push(Attachment::New { name: "n".into(), octets: vec![1] });
        let (request, body) = compose.send("alice").expect("whole").expect("at once");
        let Request::MailSend { written: Written { attachments, .. }, .. } = request else {
            panic!("{request:?}")
        };
        assert_eq!((attachments.len(), body), (1, b"text\x01".to_vec()));
    }

    #[test]
    fn the_cursor_stays_on_the_screen() {
        let mut compose = Compose::message(&["bob".into()]);
        compose.rewrite(&(0..50).map(|number| format!("{number}\n")).collect::<String>());
        let mut look = |keys: &[Key]| {
            for key in keys {
                compose.press(*key, 5);
            }
            compose.lay_out(10, 5, Repertoire::Unicode);
            (compose.shown.first().cloned().unwrap_or_default(), compose.cursor)
        };
        assert_eq!(look(&[]), ("0".into(), (0, 0)));
        assert_eq!(look(&[Key::Down; 6]), ("2".into(), (4, 0)));
        assert_eq!(look(&[Key::Up; 3]), ("2".into(), (1, 0)));
        assert_eq!(look(&[Key::Up; 2]), ("1".into(), (0, 0)));
        assert_eq!(look(&[Key::PageDown; 20]), ("46".into(), (4, 0)));
        // A line of many rows.
        assert_eq!(look(&[Key::Char('x'); 95]), ("x".repeat(10), (4, 5)));
    }

    #[test]
    fn a_draft_keeps_what_is_in_it_and_takes_what_is_new() {
        let mut compose = Compose::message(&["bob".into()]);
        compose.attachments.push(Attachment::New { name: "a".into(), octets: vec![7] });
        let (request, body) = compose.keep("alice");
        let Request::DraftSave { draft: None, keep, written, .. } = request else { panic!("{request:?}") };
        assert_eq!((written.attachments.len(), keep.len(), body), (1, 0, vec![7]));
        compose.is_kept("9".into());
        assert!(!compose.is_changed());
        assert!(compose.send("alice").expect("whole").is_none());
        compose.attachments.push(Attachment::New { name: "b".into(), octets: vec![8] });
        let (request, body) = compose.keep("alice");
        let Request::DraftSave { draft, keep, .. } = request else { panic!("{request:?}") };
        assert_eq!((draft.as_deref(), keep, body), (Some("9"), vec![1], vec![8]));
        assert!(compose.as_file().starts_with("To: bob\nCc: \nSubject: \nAttachment: b\n\n"));
    }
}
