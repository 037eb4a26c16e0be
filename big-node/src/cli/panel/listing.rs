//! A list of messages: a folder's, a search's, or a conversation's, as far as it has been asked for.

use crate::request::{Found, Line};

/// Messages that are asked for at once.
pub(super) const PAGE: usize = 100;
/// Lines that are held; a search finds what is older.
pub(super) const LINES_MAX: usize = 50_000;
/// Messages that a search gives at most.
pub(super) const FOUND_MAX: usize = 500;

/// Where a list comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A folder.
    Folder(String),
    /// A search for words, in one folder or in all.
    Search {
        /// The words.
        words: String,
        /// The folder.
        folder: Option<String>,
    },
    /// The conversation of a message.
    Thread(String),
}

/// A list, and what of it is on the screen.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// Where it comes from.
    pub(super) source: Source,
    /// Its lines so far.
    pub(super) lines: Vec<Line>,
    /// The line that is chosen.
    pub(super) cursor: usize,
    /// The first line on the screen.
    pub(super) top: usize,
    /// Something has been answered.
    pub(super) loaded: bool,
    /// There are older messages that are to be had.
    pub(super) more: bool,
    /// Older ones have been asked for.
    pub(super) asked: bool,
    /// What there is to say about it.
    pub(super) remark: String,
    /// How far a search is. What it has found is in `lines`.
    found: Found,
}

/// The message of a line's id.
pub(super) fn message_of(id: &str) -> &str {
    id.split_once('.').map_or(id, |(message, _)| message)
}

impl Listing {
    /// Nothing yet.
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            lines: Vec::new(),
            cursor: 0,
            top: 0,
            loaded: false,
            more: false,
            asked: false,
            remark: String::new(),
            found: Found::default(),
        }
    }

    /// The line that is chosen.
    pub(super) fn chosen(&self) -> Option<&Line> {
        self.lines.get(self.cursor)
    }

    /// Its newest messages, as they are now. What is looked at stays where it is.
    pub(super) fn renew(&mut self, fresh: Vec<Line>) {
        let is_page = messages(&fresh) >= PAGE;
        let (whole, before) = (!matches!(self.source, Source::Folder(_)), self.cursor);
        let chosen = self.chosen().map(|line| line.id.clone());
        let older = match fresh.last() {
            // What comes behind the page was asked for earlier. Ids of a folder fall from line to line.
            Some(last) if is_page && !whole => {
                let last = message_of(&last.id).to_owned();
                let behind = self.lines.iter().position(|line| message_of(&line.id) < last.as_str());
                behind.map_or(Vec::new(), |behind| self.lines.split_off(behind))
            }
            _ => Vec::new(),
        };
        if older.is_empty() {
            self.more = is_page && !whole;
        }
        self.lines = fresh;
        self.lines.extend(older);
        self.loaded = true;
        if let Some(chosen) = chosen {
            let at = self.lines.iter().position(|line| line.id == chosen);
            self.cursor = at.unwrap_or(before);
            // Who looks at the beginning sees what is new; else the lines stay on their rows.
            if self.top > 0 {
                self.top = (self.top + self.cursor).saturating_sub(before);
            }
        }
        self.clamp();
    }

    /// Older messages.
    pub(super) fn extend(&mut self, older: Vec<Line>) {
        self.asked = false;
        self.more = messages(&older) >= PAGE && self.lines.len() + older.len() < LINES_MAX;
        if !self.more && self.lines.len() + older.len() >= LINES_MAX {
            self.remark = format!("the newest {LINES_MAX} lines; /FIND finds older ones");
        }
        self.lines.extend(older);
    }

    /// What a search has found, or has found behind that.
    pub(super) fn find(&mut self, mut found: Found) {
        let was_stopped = self.loaded && !self.more;
        self.lines.append(&mut found.lines);
        self.found.extend(found);
        (self.loaded, self.asked) = (true, false);
        self.more = self.found.behind.is_some() && self.left() > 0 && !was_stopped;
        self.remark = self.progress();
    }

    /// How many messages a search may still find.
    pub(super) fn left(&self) -> usize {
        FOUND_MAX.saturating_sub(self.lines.len())
    }

    fn progress(&self) -> String {
        let Found { looked_at, unread_texts, behind, .. } = &self.found;
        let mut remarks = vec![format!("{} of {looked_at} messages", self.lines.len())];
        if *unread_texts > 0 {
            remarks.push(format!("{unread_texts} texts could not be looked through"));
        }
        match behind {
            Some(_) if self.more => remarks.push("looking; Esc stops it".into()),
            Some(_) if self.left() == 0 => remarks.push("there are more".into()),
            Some(_) => remarks.push("stopped there".into()),
            None => {}
        }
        remarks.join("; ")
    }

    /// Stops a search that goes on; whether there was one.
    pub(super) fn stop(&mut self) -> bool {
        let goes_on = self.more && matches!(self.source, Source::Search { .. });
        if goes_on {
            self.more = false;
            self.remark = self.progress();
        }
        goes_on
    }

    /// The oldest message, if those before it are to be asked for: the screen of `rows` comes near to the end. A
    /// search goes on by itself.
    pub(super) fn wanted(&mut self, rows: usize) -> Option<String> {
        let (is_search, last) = match &self.source {
            Source::Search { .. } => (true, self.found.behind.clone()),
            _ => (false, self.lines.last().map(|line| message_of(&line.id).to_owned())),
        };
        let is_near = self.cursor.max(self.top) + 2 * rows >= self.lines.len();
        if !self.more || self.asked || !(is_near || is_search) {
            return None;
        }
        self.asked = true;
        last
    }

    /// Moves the choice.
    pub(super) fn go(&mut self, to: usize, rows: usize) {
        self.cursor = to;
        self.clamp();
        self.show(rows);
    }

    /// Moves the screen so that the choice is on it.
    pub(super) fn show(&mut self, rows: usize) {
        self.top = self.top.min(self.cursor).max((self.cursor + 1).saturating_sub(rows));
    }

    /// Takes a message's lines out: it goes elsewhere.
    pub(super) fn remove(&mut self, message: &str) {
        let before = self.lines[..self.cursor.min(self.lines.len())].iter();
        let gone = before.filter(|line| message_of(&line.id) == message).count();
        self.lines.retain(|line| message_of(&line.id) != message);
        self.cursor -= gone;
        self.clamp();
    }

    fn clamp(&mut self) {
        self.cursor = self.cursor.min(self.lines.len().saturating_sub(1));
        self.top = self.top.min(self.cursor);
    }
}

fn messages(lines: &[Line]) -> usize {
    lines.iter().filter(|line| line.part == 0).count()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::panel) fn line(id: &str) -> Line {
        Line {
            id: id.into(),
            part: 0,
            at: 1_795_333_263_250,
            from: "Carol Jones <carol@remote.example>".into(),
            to: vec!["alice@example.com".into()],
            subject: format!("subject {id}"),
            size: 1000,
            content_type: None,
            read: true,
            answered: false,
            forwarded: false,
            late: false,
            revision: 0,
            amended: false,
            withdrawn: false,
            suspect: false,
            thread: id.into(),
            folder: "in".into(),
            depth: 0,
        }
    }

    /// Lines `from` down to `to`, both included.
    pub(in crate::cli::panel) fn lines(from: usize, to: usize) -> Vec<Line> {
        (to..=from).rev().map(|number| line(&format!("{number:05}"))).collect()
    }

    fn folder() -> Listing {
        Listing::new(Source::Folder("in".into()))
    }

    #[test]
    fn what_is_looked_at_stays_where_it_is_when_mail_comes() {
        let mut list = folder();
        list.renew(lines(200, 101));
        assert!(list.more && list.loaded);
        list.go(30, 18);
        assert_eq!((list.chosen().expect("a line").id.as_str(), list.top), ("00170", 13));
        list.renew(lines(205, 106));
        assert_eq!((list.chosen().expect("a line").id.as_str(), list.top, list.cursor), ("00170", 18, 35));
        // The older ones that were there are there.
        assert_eq!((list.lines.len(), list.lines.last().expect("a line").id.as_str()), (105, "00101"));
        assert!(list.more);
    }

    #[test]
    fn at_the_beginning_new_mail_is_seen() {
        let mut list = folder();
        list.renew(lines(3, 1));
        list.renew(lines(4, 1));
        assert_eq!((list.cursor, list.top), (1, 0));
        assert!(!list.more);
    }

    #[test]
    fn older_pages_are_asked_for_once_and_before_they_are_needed() {
        let mut list = folder();
        list.renew(lines(300, 201));
        assert_eq!(list.wanted(18), None);
        list.go(70, 18);
        assert_eq!(list.wanted(18), Some("00201".into()));
        assert_eq!(list.wanted(18), None);
        list.extend(lines(200, 151));
        assert_eq!((list.lines.len(), list.more), (150, false));
        list.go(usize::MAX, 18);
        assert_eq!((list.cursor, list.top, list.wanted(18)), (149, 132, None));
    }

    #[test]
    fn a_search_goes_on_by_itself_until_it_is_stopped_or_has_found_enough() {
        let search = || Listing::new(Source::Search { words: "x".into(), folder: None });
        let part = |lines: Vec<Line>, behind: Option<&str>| Found {
            lines,
            looked_at: 2000,
            unread_texts: 0,
            behind: behind.map(str::to_owned),
        };
        let mut list = search();
        list.find(part(lines(900, 900), Some("00800")));
        assert_eq!(list.wanted(18), Some("00800".into()));
        assert_eq!(list.wanted(18), None, "one question at a time");
        assert_eq!(list.remark, "1 of 2000 messages; looking; Esc stops it");
        list.find(part(vec![], Some("00700")));
        assert_eq!(list.wanted(18), Some("00700".into()));
        assert!(list.stop() && !list.stop());
        // What was under way then is shown, and nothing is asked for behind it.
        list.find(part(lines(600, 600), Some("00500")));
        assert_eq!((list.lines.len(), list.wanted(18)), (2, None));
        assert_eq!(list.remark, "2 of 6000 messages; stopped there");
        let mut list = search();
        list.find(part(lines(FOUND_MAX + 10, 11), Some("00011")));
        assert_eq!((list.left(), list.wanted(18)), (0, None));
        assert!(list.remark.ends_with("there are more"), "{}", list.remark);
        let mut list = search();
        list.find(part(vec![], None));
        assert_eq!(list.remark, "0 of 2000 messages");
        assert!(!list.stop(), "it has come to its end by itself");
    }

    #[test]
    fn what_goes_elsewhere_is_not_chosen_any_more() {
        let mut list = folder();
        let mut all = lines(3, 1);
        all.insert(1, Line { id: "00003.1".into(), part: 1, ..line("00003") });
        list.renew(all);
        list.go(1, 18);
        list.remove("00003");
        assert_eq!(list.chosen().expect("a line").id, "00002");
        list.remove("00001");
        list.remove("00002");
        assert!(list.chosen().is_none());
    }
}
