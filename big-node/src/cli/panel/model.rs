//! The desk as a state machine: keys and answers come in, requests go out, and what is to be seen is in it.
//!
//! It opens no socket, reads no clock and no file, and draws nothing: [`Effect`] is the complete list of what
//! it wants done, and [`Input`] of what it is told.

mod acts;
mod answers;
mod commands;
mod typing;

use serde_json::Value;

use super::book::{Book, Directory};
use super::command::Names;
use super::compose::{Compose, ReplyTo};
use super::editor::Field;
use super::keys::{Key, Place};
use super::listing::{FOUND_MAX, Listing, PAGE, Source};
use super::pane::{About, Pane};
use super::reader::Reader;
use super::text::Repertoire;
use crate::request::{EntryRequest, FolderView, NewNickname, PersonView, Request};

/// Columns that a screen has at least.
pub(super) const COLUMNS_MIN: usize = 80;
/// Rows that a screen has at least.
pub(super) const ROWS_MIN: usize = 24;
/// Rows around what is shown: a title, folders, a line; what is said, the command line, the keys.
pub(super) const CHROME: usize = 6;
/// Screens on top of each other.
const SCREENS_MAX: usize = 32;
/// Attachments that are saved at once.
const SAVED_MAX: usize = 100;
/// How long the node may take to keep a text whose person has gone, in milliseconds.
const GONE_WAIT: u64 = 3000;
/// The folders that everybody has and that mean something here.
const IN: &str = "in";
const DRAFTS: &str = "drafts";
const TRASH: &str = "trash";

/// What the desk is told.
#[derive(Debug)]
pub(super) enum Input {
    /// A key was pressed.
    Key(Key),
    /// A text was pasted.
    Paste(String),
    /// The screen has so many columns and rows.
    Resize(usize, usize),
    /// Time goes on: milliseconds of a clock that does not go back.
    Tick(u64),
    /// What was asked has been answered.
    Answered(Purpose, Result<Answer, Failure>),
    /// The mailbox has this mark, or nobody could say.
    Watched(Result<u64, Failure>),
    /// The person's own editor has ended.
    Edited(Result<String, String>),
    /// A file was read: its name and what is in it.
    Read(Result<(String, Vec<u8>), String>),
    /// A file was saved: where.
    Saved(Result<String, String>),
    /// A text was kept in a file: where.
    Kept(Result<String, String>),
    /// The terminal is gone, or the desk is told to end.
    Gone,
}

/// An answer: its JSON and its body.
pub(super) type Answer = (Value, Vec<u8>);

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The node said no.
    Refused(String),
    /// The node was not reached: nothing has been done.
    Away(String),
    /// The node has got the request and not answered it.
    Unsure(String),
}

/// What the desk wants done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Asks the node.
    Ask(Purpose, Box<Request>, Vec<u8>),
    /// Opens a text in the person's own editor.
    Edit(String),
    /// Reads a file that is to be attached.
    Read(String),
    /// Saves what strangers sent in a folder, as a new file.
    Save {
        /// The folder, as typed.
        into: String,
        /// A safe name.
        name: String,
        /// What is in it.
        octets: Vec<u8>,
    },
    /// Keeps a text in a file of the person's own.
    Keep(String),
    /// Draws everything anew.
    Redraw,
    /// Ends the desk, with what is to be said then.
    End(Option<String>),
}

/// What an answer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The folders.
    Folders,
    /// A list: its newest messages, or older ones.
    Page(Source, bool),
    /// A message that is read.
    Reading(String),
    /// A message about which something is written.
    Begin(Intent),
    /// A draft that is opened.
    Draft,
    /// Something was sent.
    Sent,
    /// A draft was kept.
    Kept(Then),
    /// Where copies are.
    Status(String),
    /// Revisions.
    History,
    /// Travel windows.
    Travel,
    /// A window was opened: shown once.
    Started,
    /// An attachment to be saved in that folder.
    Save(String),
    /// A part of the directory.
    Directory(Part),
    /// What would happen to mail.
    Explain,
    /// A message's way.
    Trace,
    /// A message was deleted.
    Deleted,
    /// A message was moved.
    Moved,
    /// Something else was done, which is said with these words.
    Done(String),
}

/// A part of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// People.
    People,
    /// Shadows.
    Shadows,
    /// Groups.
    Groups,
    /// Nicknames.
    Nicknames,
    /// Gateways.
    Gateways,
}

/// What is to be written about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// An answer.
    Reply(ReplyTo),
    /// The message itself, to these.
    Forward(Vec<String>),
    /// A revision, or the message amended.
    Amend,
    /// It is taken back, for that reason.
    Withdraw(String),
}

/// What comes after a draft was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Writing goes on.
    Stay,
    /// It is closed.
    Close,
    /// It is sent.
    Send,
    /// The desk ends.
    End,
}

/// A question that has to be answered first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether to keep what is written before it is left, or before the desk ends.
    Keep(Then),
    /// Whether to delete a message for good.
    Erase(String),
}

/// What is on the screen.
#[derive(Debug)]
pub(super) enum Screen {
    /// A list of messages.
    List(Listing),
    /// A message that is read.
    Reader(Reader),
    /// A message that is written.
    Compose(Box<Compose>),
    /// The address book.
    Book(Book),
    /// A text.
    Pane(Pane),
}

impl Screen {
    fn place(&self) -> Place {
        match self {
            Self::List(_) => Place::List,
            Self::Reader(_) => Place::Reader,
            Self::Compose(_) => Place::Compose,
            Self::Book(_) => Place::Book,
            Self::Pane(_) => Place::Pane,
        }
    }
}

/// What is said to the person, until the next key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    /// The text; may hold what strangers wrote.
    pub(super) text: String,
    /// Something was refused.
    pub(super) is_refusal: bool,
}

/// The desk of one person.
#[derive(Debug)]
pub(super) struct Model {
    /// Whose.
    pub(super) person: PersonView,
    /// Columns of the screen.
    pub(super) columns: usize,
    /// Rows of the screen.
    pub(super) rows: usize,
    /// The characters that it has.
    pub(super) repertoire: Repertoire,
    /// The folders.
    pub(super) folders: Vec<FolderView>,
    /// The command line, while something is typed there.
    pub(super) line: Option<Field>,
    /// The question that is asked.
    pub(super) question: Option<Question>,
    /// What is said.
    pub(super) notice: Notice,
    /// Nobody answers at the moment.
    pub(super) is_away: bool,
    /// Questions that are not answered yet.
    pub(super) open: usize,
    /// From the first one on, each on top of the one before; the first one is a folder.
    screens: Vec<Screen>,
    directory: Directory,
    mark: Option<u64>,
    /// Lists that are being renewed, and whether that has to be done once more.
    renewing: usize,
    again: bool,
    now: u64,
    /// Since when nobody sits here.
    gone_at: Option<u64>,
    effects: Vec<Effect>,
}

impl Model {
    /// The desk of a person, and what it asks first.
    pub(super) fn new(
        person: PersonView,
        columns: usize,
        rows: usize,
        repertoire: Repertoire,
    ) -> (Self, Vec<Effect>) {
        let first = Listing::new(Source::Folder(IN.into()));
        let mut model = Self {
            person,
            columns,
            rows,
            repertoire,
            folders: Vec::new(),
            line: None,
            question: None,
            notice: Notice::default(),
            is_away: false,
            open: 0,
            screens: vec![Screen::List(first)],
            directory: Directory::default(),
            mark: None,
            renewing: 0,
            again: false,
            now: 0,
            gone_at: None,
            effects: Vec::new(),
        };
        model.renew();
        model.ask_directory();
        let effects = std::mem::take(&mut model.effects);
        (model, effects)
    }

    /// What is on the screen.
    pub(super) fn screen(&self) -> &Screen {
        self.screens.last().expect("the first screen is never left")
    }

    fn top(&mut self) -> &mut Screen {
        self.screens.last_mut().expect("the first screen is never left")
    }

    /// The folder that is shown, or was shown before what is on the screen.
    pub(super) fn folder(&self) -> &str {
        match self.screens.first() {
            Some(Screen::List(Listing { source: Source::Folder(name), .. })) => name,
            _ => IN,
        }
    }

    /// Whether there is room for a desk.
    pub(super) fn fits(&self) -> bool {
        self.columns >= COLUMNS_MIN && self.rows >= ROWS_MIN
    }

    /// Rows for what is shown.
    pub(super) fn body_rows(&self) -> usize {
        self.rows.saturating_sub(CHROME).max(1)
    }

    /// What keys do here.
    pub(super) fn place(&self) -> Place {
        self.screen().place()
    }

    /// Names that can be completed.
    fn names(&self) -> Names {
        self.directory.names(self.folders.iter().map(|folder| folder.name.clone()).collect())
    }

    /// Takes what happened, and says what is to be done.
    pub(super) fn apply(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Key(key) => self.key(key),
            Input::Paste(text) => self.paste(&text),
            Input::Resize(columns, rows) => (self.columns, self.rows) = (columns, rows),
            Input::Tick(now) => self.tick(now),
            Input::Answered(purpose, outcome) => {
                self.open = self.open.saturating_sub(1);
                match outcome {
                    Ok(answer) => {
                        self.is_away = false;
                        self.answered(purpose, answer);
                    }
                    Err(failure) => self.failed(&purpose, failure),
                }
            }
            Input::Watched(watched) => self.watched(watched),
            Input::Edited(edited) => self.edited(edited),
            Input::Read(read) => self.read(read),
            Input::Saved(Ok(path)) => self.say(format!("saved as {path}")),
            Input::Kept(Ok(path)) => {
                self.effects.push(Effect::End(Some(format!("What you wrote is in {path}"))))
            }
            Input::Kept(Err(why)) if self.gone_at.is_some() => {
                self.effects.push(Effect::End(Some(format!("What you wrote could not be kept: {why}"))));
            }
            Input::Saved(Err(why)) | Input::Kept(Err(why)) => self.refuse(why),
            Input::Gone => self.gone(),
        }
        self.settle();
        std::mem::take(&mut self.effects)
    }

    /// Lays out what is on the screen, and asks for what is about to be on it.
    fn settle(&mut self) {
        let (columns, rows, repertoire) = (self.columns, self.body_rows(), self.repertoire);
        let mut older = None;
        match self.top() {
            Screen::List(list) => {
                list.show(rows);
                older = list.wanted(rows).map(|before| (list.source.clone(), before));
            }
            Screen::Reader(reader) => {
                reader.lay_out(columns, repertoire);
                reader.go(reader.top, rows);
            }
            Screen::Pane(pane) => {
                pane.lay_out(columns, repertoire);
                pane.go(pane.top, rows);
            }
            Screen::Book(book) => book.go(book.cursor, rows),
            Screen::Compose(compose) => {
                let rows = text_rows(compose, rows);
                compose.lay_out(columns, rows, repertoire);
            }
        }
        if let Some((source, before)) = older {
            self.ask_page(source, Some(before));
        }
    }

    fn say(&mut self, text: impl Into<String>) {
        self.notice = Notice { text: text.into(), is_refusal: false };
    }

    fn refuse(&mut self, text: impl Into<String>) {
        self.notice = Notice { text: text.into(), is_refusal: true };
    }

    fn push(&mut self, screen: Screen) {
        match self.screens.len() < SCREENS_MAX {
            true => self.screens.push(screen),
            false => self.refuse("too many screens are open: F3 goes back"),
        }
    }

    fn compose(&mut self) -> Option<&mut Compose> {
        self.screens.iter_mut().rev().find_map(|screen| match screen {
            Screen::Compose(compose) => Some(&mut **compose),
            _ => None,
        })
    }

    // What is asked.

    fn ask(&mut self, purpose: Purpose, request: Request, body: Vec<u8>) {
        self.open += 1;
        self.effects.push(Effect::Ask(purpose, Box::new(request), body));
    }

    fn whose(&self) -> String {
        self.person.name.clone()
    }

    fn ask_page(&mut self, source: Source, before: Option<String>) {
        let person = self.whose();
        let is_older = before.is_some();
        let request = match source.clone() {
            Source::Folder(folder) => Request::MailList { person, folder, max: PAGE, before },
            Source::Search { words, folder } => {
                let max = self.list(&source).map_or(FOUND_MAX, |list| list.left());
                Request::MailSearch { person, words, folder, max, before }
            }
            Source::Thread(message) => Request::MailThread { person, message },
        };
        self.renewing += usize::from(!is_older);
        self.ask(Purpose::Page(source, is_older), request, Vec::new());
    }

    /// Asks anew for everything that may have changed. A search is what it was.
    fn renew(&mut self) {
        if self.renewing > 0 {
            self.again = true;
            return;
        }
        self.ask(Purpose::Folders, Request::MailFolders { person: self.whose() }, Vec::new());
        let sources = self.screens.iter().filter_map(|screen| match screen {
            Screen::List(list) if !matches!(list.source, Source::Search { .. }) => Some(list.source.clone()),
            _ => None,
        });
        for source in sources.collect::<Vec<_>>() {
            self.ask_page(source, None);
        }
        if let Screen::Pane(Pane { about, .. }) = self.screen() {
            let about = about.clone();
            self.ask_about(&about);
        }
    }

    fn ask_about(&mut self, about: &About) {
        let person = self.whose();
        match about {
            About::Fixed => {}
            About::Status(message) => {
                let message = message.clone();
                let request = Request::MailStatus { person, message: message.clone() };
                self.ask(Purpose::Status(message), request, Vec::new());
            }
            About::Travel => {
                let request = Request::TravelList { person: Some(person), all: false };
                self.ask(Purpose::Travel, request, Vec::new());
            }
        }
    }

    fn ask_directory(&mut self) {
        for (part, request) in [
            (Part::People, Request::PersonList),
            (Part::Shadows, Request::Shadow(EntryRequest::List)),
            (Part::Groups, Request::Group(EntryRequest::List)),
            (Part::Gateways, Request::Gateway(EntryRequest::List)),
        ] {
            self.ask(Purpose::Directory(part), request, Vec::new());
        }
        self.ask_nicknames(EntryRequest::List);
    }

    fn ask_nicknames(&mut self, request: EntryRequest<NewNickname, NewNickname>) {
        let request = Request::Nickname { person: self.whose(), request };
        self.ask(Purpose::Directory(Part::Nicknames), request, Vec::new());
    }
}

/// Rows for the text that is written, of those for what is shown.
fn text_rows(compose: &Compose, rows: usize) -> usize {
    let above = compose.fields.len() + usize::from(!compose.attachments.is_empty());
    // A line is between, if there is anything above it.
    rows.saturating_sub(above + usize::from(above > 0)).max(1)
}
