//! The desk as a state machine: keys and answers come in, requests go out, and what is to be seen is in it.
//!
//! It opens no socket, reads no clock and no file, and draws nothing: [`Effect`] is the complete list of what
//! it wants done, and [`Input`] of what it is told.

use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::mime::file_name;

use super::book::{Book, Directory};
use super::command::{self, Command, Names};
use super::compose::{Attachment, Compose, Name, What};
use super::editor::Field;
use super::keys::{self, Action, Key, Place};
use super::listing::{Listing, PAGE, Source, message_of};
use super::pane::{self, About, Pane};
use super::reader::Reader;
use super::text::Repertoire;
use crate::cli::show;
use crate::request::{
    Deleted, DraftSaved, DraftView, EntryRequest, Explanation, FolderView, Found, Line, Moved, NewNickname,
    PersonView, Reading, Request, Sent, Started, Status, Step,
};

/// Columns that a screen has at least.
pub(super) const COLUMNS_MIN: usize = 80;
/// Rows that a screen has at least.
pub(super) const ROWS_MIN: usize = 24;
/// Rows around what is shown: a title, folders, a line; what is said, the command line, the keys.
pub(super) const CHROME: usize = 6;
/// Messages that a search gives at most.
const FOUND_MAX: usize = 500;
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
    /// An answer, to all or not.
    Reply(bool),
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
            Source::Search { words, folder } => Request::MailSearch { person, words, folder, max: FOUND_MAX },
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
            About::Travel => self.ask(Purpose::Travel, Request::TravelList { all: false }, Vec::new()),
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

    // What is answered.

    fn answered(&mut self, purpose: Purpose, (json, body): Answer) {
        if let Err(why) = self.take(purpose, json, body) {
            self.refuse(format!("the answer was not understood ({why}): are desk and node of one version?"));
        }
    }

    fn take(&mut self, purpose: Purpose, json: Value, body: Vec<u8>) -> Result<(), serde_json::Error> {
        match purpose {
            Purpose::Folders => self.take_folders(of(json)?),
            Purpose::Page(source @ Source::Search { .. }, _) => {
                let found: Found = of(json)?;
                self.take_page(&source, found.lines.clone(), false);
                self.take_found(&source, &found);
            }
            Purpose::Page(source, older) => self.take_page(&source, of(json)?, older),
            Purpose::Reading(id) => self.take_reading(&id, of(json)?),
            Purpose::Begin(intent) => {
                let reading: Reading = of(json)?;
                self.begin_with(intent, &reading);
            }
            Purpose::Draft => {
                let view: DraftView = of(json)?;
                self.push(Screen::Compose(Box::new(Compose::draft(view))));
            }
            Purpose::Sent => self.take_sent(json)?,
            Purpose::Kept(then) => {
                let saved: DraftSaved = of(json)?;
                self.take_kept(saved.id, then);
            }
            Purpose::Status(id) => {
                let status: Status = of(json)?;
                if let Some(pane) = self.pane(&About::Status(id)) {
                    pane.renew(pane::status(&status));
                }
            }
            Purpose::History => {
                let revisions: Vec<_> = of(json)?;
                self.push(Screen::Pane(Pane::new("Revisions", About::Fixed, pane::history(&revisions))));
            }
            Purpose::Travel => {
                let windows: Vec<_> = of(json)?;
                let text = pane::travel(&windows, &self.person.name);
                if let Some(pane) = self.pane(&About::Travel) {
                    pane.renew(text);
                }
            }
            Purpose::Started => {
                let started: Started = of(json)?;
                let text = show::started(&started);
                self.push(Screen::Pane(Pane::new("For your mail client", About::Fixed, text)));
                self.ask_about(&About::Travel);
            }
            Purpose::Save(into) => {
                let reading: Reading = of(json)?;
                let (_, number) = reading.id.split_once('.').unwrap_or_default();
                let content_type = reading.content_type.as_deref().unwrap_or("message/rfc822");
                let name = file_name(reading.part_name.as_deref(), content_type, number);
                self.effects.push(Effect::Save { into, name, octets: body });
            }
            Purpose::Directory(part) => self.take_directory(part, json)?,
            Purpose::Explain => {
                let explanation: Explanation = of(json)?;
                self.push(Screen::Pane(Pane::new("Explain", About::Fixed, show::explanation(&explanation))));
            }
            Purpose::Trace => {
                let steps: Vec<Step> = of(json)?;
                self.push(Screen::Pane(Pane::new("Trace", About::Fixed, shared::render::way(&steps))));
            }
            Purpose::Deleted => {
                let deleted: Deleted = of(json)?;
                self.say(if deleted.for_good { "deleted for good" } else { "moved to Trash" });
                self.renew();
            }
            Purpose::Moved => {
                let moved: Moved = of(json)?;
                self.say(format!("moved to {}", moved.folder));
                self.renew();
            }
            Purpose::Done(words) => {
                self.say(words);
                self.renew();
            }
        }
        Ok(())
    }

    fn take_folders(&mut self, folders: Vec<FolderView>) {
        let unread = |folders: &[FolderView]| {
            folders.iter().find(|folder| folder.name == IN).map(|folder| folder.unread)
        };
        if let (Some(before), Some(now)) = (unread(&self.folders), unread(&folders))
            && now > before
            && self.notice.text.is_empty()
        {
            let new = now - before;
            self.say(if new == 1 {
                "a new message in In".into()
            } else {
                format!("{new} new messages in In")
            });
        }
        self.folders = folders;
        // The folder on the screen may have been renamed or removed elsewhere.
        if self.folders.iter().all(|folder| folder.name != self.folder()) && !self.folders.is_empty() {
            self.go_folder(IN.into());
        }
    }

    fn list(&mut self, source: &Source) -> Option<&mut Listing> {
        self.screens.iter_mut().find_map(|screen| match screen {
            Screen::List(list) if list.source == *source => Some(list),
            _ => None,
        })
    }

    fn take_page(&mut self, source: &Source, lines: Vec<Line>, is_older: bool) {
        if !is_older {
            self.renewed();
        }
        let Some(list) = self.list(source) else { return };
        match is_older {
            true => list.extend(lines),
            false => list.renew(lines),
        }
    }

    fn renewed(&mut self) {
        self.renewing = self.renewing.saturating_sub(1);
        if self.renewing == 0 && std::mem::take(&mut self.again) {
            self.renew();
        }
    }

    fn take_found(&mut self, source: &Source, found: &Found) {
        let mut remarks = vec![format!("{} of {} messages", messages(&found.lines), found.looked_at)];
        if found.unread_texts > 0 {
            remarks.push(format!("{} texts could not be looked through", found.unread_texts));
        }
        remarks.extend(found.ended.clone());
        if let Some(list) = self.list(source) {
            list.remark = remarks.join("; ");
        }
    }

    fn take_reading(&mut self, id: &str, reading: Reading) {
        let message = message_of(id).to_owned();
        for screen in &mut self.screens {
            match screen {
                Screen::Reader(reader) if reader.id == id => {
                    reader.reading = Some(Box::new(reading.clone()));
                    reader.lines.clear();
                }
                Screen::List(list) => {
                    let lines = list.lines.iter_mut();
                    lines.filter(|line| message_of(&line.id) == message).for_each(|line| line.read = true);
                }
                _ => {}
            }
        }
    }

    fn pane(&mut self, about: &About) -> Option<&mut Pane> {
        self.screens.iter_mut().find_map(|screen| match screen {
            Screen::Pane(pane) if pane.about == *about => Some(pane),
            _ => None,
        })
    }

    fn take_sent(&mut self, json: Value) -> Result<(), serde_json::Error> {
        let is_revision = self.compose().is_some_and(|compose| matches!(compose.what, What::Revise { .. }));
        // A revision's answer tells where each copy is, as Where does.
        let status = match is_revision {
            true => Some(of::<Status>(json)?),
            false => {
                let sent: Sent = of(json)?;
                let count = sent.recipients.len();
                let recipients = if count == 1 { "recipient" } else { "recipients" };
                self.say(format!("sent to {count} {recipients}; F11 in Sent shows where each copy is"));
                None
            }
        };
        self.close_compose();
        if let Some(status) = status {
            let about = About::Status(status.id.clone());
            self.push(Screen::Pane(Pane::new("Where it is", about, pane::status(&status))));
            self.say("revised; what is pending is decided where that copy is");
        }
        self.renew();
        Ok(())
    }

    fn take_kept(&mut self, id: String, then: Then) {
        if let Some(compose) = self.compose() {
            compose.is_kept(id);
            compose.busy = then == Then::Send;
        }
        match then {
            Then::Stay => self.say("kept as a draft"),
            Then::Close => {
                self.close_compose();
                self.say("kept in Drafts");
            }
            Then::Send => {
                let draft = self.compose().and_then(|compose| compose.draft.clone());
                if let Some(draft) = draft {
                    let request = Request::DraftSend { person: self.whose(), draft };
                    self.ask(Purpose::Sent, request, Vec::new());
                }
            }
            Then::End => {
                self.effects.push(Effect::End(Some("What you wrote is in Drafts.".into())));
            }
        }
        self.renew();
    }

    fn close_compose(&mut self) {
        if let Some(at) = self.screens.iter().rposition(|screen| matches!(screen, Screen::Compose(_))) {
            self.screens.truncate(at);
        }
    }

    fn take_directory(&mut self, part: Part, json: Value) -> Result<(), serde_json::Error> {
        match part {
            Part::People => self.directory.people(of(json)?),
            Part::Shadows => self.directory.shadows(of(json)?),
            Part::Groups => self.directory.groups(of(json)?),
            Part::Nicknames => self.directory.nicknames(of(json)?),
            Part::Gateways => self.directory.gateways(of(json)?),
        }
        let Self { screens, directory, .. } = self;
        if let Some(Screen::Book(book)) = screens.last_mut() {
            book.renew(directory);
        }
        Ok(())
    }

    fn failed(&mut self, purpose: &Purpose, failure: Failure) {
        self.is_away = !matches!(failure, Failure::Refused(_));
        match purpose {
            Purpose::Page(source, is_older) => {
                if let Some(list) = self.list(source) {
                    (list.asked, list.loaded) = (false, true);
                    // What was refused once is not asked for again and again.
                    list.more &= !is_older;
                }
                if !is_older {
                    self.renewed();
                }
            }
            Purpose::Reading(id) => {
                if let Screen::Reader(reader) = self.screen()
                    && reader.id == *id
                    && reader.reading.is_none()
                {
                    self.screens.pop();
                }
            }
            Purpose::Deleted | Purpose::Moved => self.renew(),
            Purpose::Sent => {
                if let Some(compose) = self.compose() {
                    compose.busy = false;
                }
            }
            Purpose::Kept(then) => return self.failed_to_keep(*then, failure),
            _ => {}
        }
        match failure {
            Failure::Refused(why) => self.refuse(why),
            Failure::Away(why) if *purpose == Purpose::Sent => {
                self.refuse(format!(
                    "not sent: {why}. It is kept here, and as a draft once big-node is back"
                ));
            }
            Failure::Unsure(why) if *purpose == Purpose::Sent => {
                self.refuse(format!("{why}. It may have been sent: look in Sent before you send it again"));
            }
            Failure::Away(why) | Failure::Unsure(why) => self.refuse(why),
        }
    }

    fn failed_to_keep(&mut self, then: Then, failure: Failure) {
        let text = self.compose().map(|compose| {
            compose.busy = false;
            compose.as_file()
        });
        match (then, failure) {
            // Who goes leaves nothing behind in memory.
            (Then::End, Failure::Away(_) | Failure::Unsure(_)) => {
                self.effects.extend(text.map(Effect::Keep));
            }
            (Then::End, Failure::Refused(_)) if self.gone_at.is_some() => {
                self.effects.extend(text.map(Effect::Keep));
            }
            (_, Failure::Refused(why)) => self.refuse(why),
            (_, Failure::Away(why) | Failure::Unsure(why)) => {
                self.refuse(format!("{why}. What you wrote is kept here, and as a draft once it is back"));
            }
        }
    }

    fn watched(&mut self, watched: Result<u64, Failure>) {
        match watched {
            Ok(mark) => {
                let was_away = std::mem::take(&mut self.is_away);
                if was_away {
                    self.say("big-node answers again");
                    self.keep_what_was_left();
                    self.ask_directory();
                }
                let seen = self.mark.replace(mark);
                if was_away || seen.is_some_and(|seen| seen != mark) {
                    self.renew();
                }
            }
            Err(Failure::Refused(why)) => self.refuse(why),
            Err(Failure::Away(_) | Failure::Unsure(_)) => self.is_away = true,
        }
    }

    /// What was written while nobody answered is kept as soon as somebody does.
    fn keep_what_was_left(&mut self) {
        if self.compose().is_some_and(|compose| compose.is_changed() && !compose.busy) {
            self.keep(Then::Stay);
        }
    }

    fn tick(&mut self, now: u64) {
        let is_second = now / 1000 != self.now / 1000;
        self.now = now;
        if let Some(gone_at) = self.gone_at {
            if now.saturating_sub(gone_at) >= GONE_WAIT {
                let text = self.compose().map(|compose| compose.as_file());
                self.effects.push(text.map_or(Effect::End(None), Effect::Keep));
            }
            return;
        }
        if is_second
            && self.open == 0
            && let Screen::Pane(Pane { about: about @ About::Status(_), .. }) = self.screen()
        {
            let about = about.clone();
            self.ask_about(&about);
        }
    }

    fn gone(&mut self) {
        if self.gone_at.replace(self.gone_at.unwrap_or(self.now)).is_some() {
            return;
        }
        match self.compose().is_some_and(|compose| compose.is_changed()) {
            true => self.keep(Then::End),
            false => self.effects.push(Effect::End(None)),
        }
    }

    fn edited(&mut self, edited: Result<String, String>) {
        match edited {
            Ok(text) => {
                if let Some(compose) = self.compose() {
                    compose.rewrite(text.strip_suffix('\n').unwrap_or(&text));
                }
            }
            Err(why) => self.refuse(why),
        }
    }

    fn read(&mut self, read: Result<(String, Vec<u8>), String>) {
        match read {
            Ok((name, octets)) => {
                self.say(format!("{name} is attached"));
                if let Some(compose) = self.compose() {
                    compose.attachments.push(Attachment::New { name, octets });
                }
            }
            Err(why) => self.refuse(why),
        }
    }

    // Keys.

    fn key(&mut self, key: Key) {
        self.notice = Notice::default();
        if self.question.is_some() {
            return self.answer(key);
        }
        if !self.fits() {
            if keys::action(Place::List, key) == Some(Action::Quit) {
                self.quit();
            }
            return;
        }
        if self.line.is_some() {
            return self.type_command(key);
        }
        if let Some(action) = keys::action(self.place(), key) {
            return self.act(action, key);
        }
        let rows = self.body_rows();
        match (self.screen(), key) {
            (Screen::Compose(_), _) => self.press(key),
            (Screen::Reader(_), Key::Char(digit @ '1'..='9')) => self.open_part(&digit.to_string()),
            (Screen::Book(_), Key::Char(letter)) if letter.is_alphanumeric() => {
                if let Screen::Book(book) = self.top() {
                    let begins = |name: &str| name.to_lowercase().starts_with(letter);
                    let at = book.entries.iter().position(|entry| begins(&entry.name));
                    book.go(at.unwrap_or(book.cursor), rows);
                }
            }
            _ => self.say("F1 lists all keys"),
        }
    }

    fn press(&mut self, key: Key) {
        let Screen::Compose(compose) = self.screen() else { return };
        if compose.busy {
            return self.say("one moment: it is on its way");
        }
        let page = text_rows(compose, self.body_rows());
        let Screen::Compose(compose) = self.top() else { return };
        compose.press(key, page);
        if compose.text.is_full() {
            self.refuse("the text is as long as one may be here; F4 opens your own editor");
        }
    }

    fn paste(&mut self, text: &str) {
        if self.question.is_some() || !self.fits() {
            return;
        }
        if let Some(line) = &mut self.line {
            return line.insert(text);
        }
        match self.top() {
            Screen::Compose(compose) if !compose.busy => compose.paste(text),
            _ => self.say("there is nothing here to paste into"),
        }
    }

    fn answer(&mut self, key: Key) {
        let Some(question) = self.question.take() else { return };
        match (question, key) {
            (Question::Keep(then), Key::Char('y' | 'Y') | Key::Enter) => self.keep(then),
            (Question::Keep(Then::End), Key::Char('n' | 'N')) => self.effects.push(Effect::End(None)),
            (Question::Keep(_), Key::Char('n' | 'N')) => self.close_compose(),
            (Question::Erase(message), Key::Char('y' | 'Y')) => self.delete(message),
            (_, Key::Esc | Key::F(3) | Key::Char('n' | 'N')) => {}
            (question, _) => self.question = Some(question),
        }
    }

    fn type_command(&mut self, key: Key) {
        let Some(line) = &mut self.line else { return };
        match key {
            Key::Enter => {
                let typed = line.text().to_owned();
                self.line = None;
                if !typed.trim_matches([' ', '/']).is_empty() {
                    self.run(&typed);
                }
            }
            Key::Esc | Key::F(3) => self.line = None,
            Key::F(1) => {
                self.line = None;
                self.act(Action::Help, key);
            }
            Key::F(12) | Key::Ctrl('q' | 'c') => self.quit(),
            Key::Tab => {
                let before = line.before().to_owned();
                self.complete(|names| command::complete(&before, names));
            }
            Key::Backspace if line.text().is_empty() => self.line = None,
            key => {
                line.press(key);
            }
        }
    }

    /// Completes what is typed on the command line or in a field; whether there was anything to complete.
    fn complete(&mut self, find: impl FnOnce(&Names) -> Option<command::Completion>) -> bool {
        let Some(completion) = find(&self.names()) else { return false };
        let field = match &mut self.line {
            Some(line) => Some(line),
            None => match self.screens.last_mut() {
                Some(Screen::Compose(compose)) => compose.field().map(|(_, field)| field),
                _ => None,
            },
        };
        if let Some(field) = field {
            field.insert(&completion.more);
        }
        if !completion.choices.is_empty() {
            self.say(completion.choices.join("  "));
        }
        true
    }

    fn act(&mut self, action: Action, key: Key) {
        let rows = self.body_rows();
        match action {
            Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::First | Action::Last => {
                self.scroll(action, rows);
            }
            Action::Help => {
                let text = pane::help(self.place());
                if !matches!(self.screen(), Screen::Pane(pane) if pane.title == "Help") {
                    self.push(Screen::Pane(Pane::new("Help", About::Fixed, text)));
                }
            }
            Action::Open => self.open_chosen(),
            Action::Newer => self.neighbour(false),
            Action::Older => self.neighbour(true),
            Action::Back => self.back(key),
            Action::Quit => self.quit(),
            Action::Command => self.line = Some(Field::new("/")),
            Action::Find => self.line = Some(Field::new("/FIND ")),
            Action::Move => self.line = Some(Field::new("/MOVE ")),
            Action::Save => self.line = Some(Field::new("/SAVE ")),
            Action::Attach => self.line = Some(Field::new("/ATTACH ")),
            Action::NextFolder => self.turn_folder(1),
            Action::PreviousFolder => self.turn_folder(self.folders.len().saturating_sub(1)),
            Action::New => self.write(),
            Action::Reply => self.begin(Intent::Reply(false)),
            Action::ReplyAll => self.begin(Intent::Reply(true)),
            Action::Forward => self.begin(Intent::Forward(Vec::new())),
            Action::Amend => self.begin(Intent::Amend),
            Action::Withdraw => self.begin(Intent::Withdraw(String::new())),
            Action::Delete => self.delete_chosen(),
            Action::Mark => self.mark(None),
            Action::Status => self.status(),
            Action::History => self.history(),
            Action::Thread => self.thread(),
            Action::Book => self.book(),
            Action::Travel => self.travel(),
            Action::Refresh => {
                self.effects.push(Effect::Redraw);
                self.renew();
                if matches!(self.screen(), Screen::Book(_)) {
                    self.ask_directory();
                }
            }
            Action::Send => self.send(),
            Action::Draft => self.keep(Then::Stay),
            Action::Edit => self.edit(),
            Action::NextField => self.next_field(),
            Action::PreviousField => {
                if let Screen::Compose(compose) = self.top() {
                    compose.turn(true);
                }
            }
            Action::Pick => {
                if let Screen::Book(book) = self.top() {
                    book.pick();
                    book.go(book.cursor + 1, rows);
                }
            }
        }
    }

    fn scroll(&mut self, action: Action, rows: usize) {
        // A page keeps one line of the page before.
        let page = rows.saturating_sub(1).max(1);
        let moved = |at: usize| match action {
            Action::Up => at.saturating_sub(1),
            Action::Down => at + 1,
            Action::PageUp => at.saturating_sub(page),
            Action::PageDown => at + page,
            Action::First => 0,
            _ => usize::MAX / 2,
        };
        match self.top() {
            Screen::List(list) => list.go(moved(list.cursor), rows),
            Screen::Reader(reader) => reader.go(moved(reader.top), rows),
            Screen::Book(book) => book.go(moved(book.cursor), rows),
            Screen::Pane(pane) => pane.go(moved(pane.top), rows),
            Screen::Compose(_) => {}
        }
    }

    /// The message that is chosen or read, without the number of an attachment.
    fn target(&mut self) -> Option<String> {
        let id = match self.screen() {
            Screen::List(list) => list.chosen().map(|line| line.id.clone()),
            Screen::Reader(reader) => Some(reader.id.clone()),
            Screen::Pane(Pane { about: About::Status(id), .. }) => Some(id.clone()),
            _ => None,
        };
        if id.is_none() {
            self.refuse("there is no message here: choose one first");
        }
        id.map(|id| message_of(&id).to_owned())
    }

    /// The folder of the message that is chosen or read.
    fn target_folder(&self) -> Option<&str> {
        match self.screen() {
            Screen::List(list) => list.chosen().map(|line| line.folder.as_str()),
            Screen::Reader(reader) => reader.reading.as_ref().map(|reading| reading.folder.as_str()),
            _ => None,
        }
    }

    fn open_chosen(&mut self) {
        let Screen::List(list) = self.screen() else { return };
        let Some(line) = list.chosen() else { return };
        let (id, is_draft) = (line.id.clone(), line.folder == DRAFTS && line.part == 0);
        match is_draft {
            true => {
                let request = Request::DraftShow { person: self.whose(), draft: id };
                self.ask(Purpose::Draft, request, Vec::new());
            }
            false => self.open_message(id),
        }
    }

    fn open_message(&mut self, id: String) {
        self.push(Screen::Reader(Reader::new(&id)));
        let request = Request::MailRead { person: self.whose(), message: id.clone(), raw: false };
        self.ask(Purpose::Reading(id), request, Vec::new());
    }

    fn open_part(&mut self, number: &str) {
        let id = match self.screen() {
            Screen::Reader(reader) => reader.id.clone(),
            Screen::List(list) => match list.chosen() {
                Some(line) => line.id.clone(),
                None => return,
            },
            _ => return self.refuse("there is no message here: choose one first"),
        };
        self.open_message(format!("{id}.{number}"));
    }

    /// Reads the message below or above the one that is read.
    fn neighbour(&mut self, is_below: bool) {
        let rows = self.body_rows();
        let lists = self.screens.iter_mut().rev();
        let list = lists.filter_map(|screen| match screen {
            Screen::List(list) => Some(list),
            _ => None,
        });
        let Some(list) = list.into_iter().next() else { return };
        let is_message = |line: &Line| line.part == 0;
        let found = match is_below {
            true => {
                let mut below = list.lines.iter().enumerate().skip(list.cursor + 1);
                below.find(|(_, line)| is_message(line)).map(|(at, _)| at)
            }
            false => list.lines[..list.cursor.min(list.lines.len())].iter().rposition(is_message),
        };
        let Some(at) = found else {
            return self.say(if is_below { "this is the last one" } else { "this is the first one" });
        };
        list.go(at, rows);
        let id = list.lines[at].id.clone();
        while matches!(self.screen(), Screen::Reader(_)) {
            self.screens.pop();
        }
        self.open_message(id);
    }

    fn back(&mut self, key: Key) {
        match self.screen() {
            Screen::Compose(compose) if compose.busy => self.say("one moment: it is on its way"),
            Screen::Compose(compose) if compose.is_changed() => {
                self.question = Some(Question::Keep(Then::Close));
            }
            _ if self.screens.len() > 1 => {
                self.screens.pop();
            }
            _ if key == Key::Char('q') => self.quit(),
            _ => self.say("F12 ends the desk"),
        }
    }

    fn quit(&mut self) {
        match self.compose().is_some_and(|compose| compose.is_changed()) {
            true => self.question = Some(Question::Keep(Then::End)),
            false => self.effects.push(Effect::End(None)),
        }
    }

    fn go_folder(&mut self, name: String) {
        if self.compose().is_some() {
            return self.refuse("send or keep what you write first");
        }
        let source = Source::Folder(name);
        self.screens = vec![Screen::List(Listing::new(source.clone()))];
        self.ask_page(source, None);
    }

    fn turn_folder(&mut self, by: usize) {
        let count = self.folders.len();
        let here = self.folders.iter().position(|folder| folder.name == self.folder());
        if let Some(there) = here.filter(|_| count > 1).map(|here| (here + by) % count) {
            self.go_folder(self.folders[there].name.clone());
        }
    }

    fn write(&mut self) {
        let picked = match self.screen() {
            Screen::Book(book) => book.taken(),
            _ => Vec::new(),
        };
        if matches!(self.screen(), Screen::Book(_)) {
            self.screens.pop();
        }
        self.write_to(&picked);
    }

    /// A message to these; if one is being written, they get it, too.
    fn write_to(&mut self, names: &[String]) {
        let added =
            self.compose().map(|compose| compose.add(Name::To, names) || compose.add(Name::Scope, names));
        match added {
            None => self.push(Screen::Compose(Box::new(Compose::message(names)))),
            Some(true) => {}
            Some(false) => {
                self.refuse("an answer goes to whom it answers; /FORWARD sends the message to others")
            }
        }
    }

    fn begin(&mut self, intent: Intent) {
        if self.compose().is_some() {
            return self.refuse("send or keep what you write first");
        }
        let Some(message) = self.target() else { return };
        if let Screen::Reader(Reader { reading: Some(reading), id, .. }) = self.screen()
            && *id == message
        {
            let reading = reading.clone();
            return self.begin_with(intent, &reading);
        }
        let request = Request::MailRead { person: self.whose(), message, raw: false };
        self.ask(Purpose::Begin(intent), request, Vec::new());
    }

    fn begin_with(&mut self, intent: Intent, reading: &Reading) {
        let is_own = reading.from.iter().any(|from| self.is_own(from));
        let compose = match intent {
            Intent::Reply(all) => Compose::reply(reading, all),
            Intent::Forward(to) => Compose::forward(reading, &to),
            Intent::Amend if is_own => Compose::revision(reading, None),
            Intent::Amend => Compose::amended(reading),
            Intent::Withdraw(reason) if is_own => Compose::revision(reading, Some(&reason)),
            Intent::Withdraw(_) => return self.refuse("only what you have sent yourself can be taken back"),
        };
        self.push(Screen::Compose(Box::new(compose)));
    }

    /// Whether a mailbox is this person's, `Name <address>` or an address alone.
    fn is_own(&self, mailbox: &str) -> bool {
        let address = mailbox.rsplit_once('<').map_or(mailbox, |(_, address)| address.trim_end_matches('>'));
        self.person.addresses.iter().any(|own| own.eq_ignore_ascii_case(address))
    }

    fn delete_chosen(&mut self) {
        let is_for_good = self.target_folder() == Some(TRASH);
        let Some(message) = self.target() else { return };
        match is_for_good {
            true => self.question = Some(Question::Erase(message)),
            false => self.delete(message),
        }
    }

    fn delete(&mut self, message: String) {
        self.take_away(&message);
        let request = Request::MailDelete { person: self.whose(), message };
        self.ask(Purpose::Deleted, request, Vec::new());
    }

    /// What goes elsewhere is not acted on twice: it leaves the lists now, and comes back if that was refused.
    fn take_away(&mut self, message: &str) {
        while matches!(self.screen(), Screen::Reader(reader) if message_of(&reader.id) == message) {
            self.screens.pop();
        }
        for screen in &mut self.screens {
            if let Screen::List(list) = screen {
                list.remove(message);
            }
        }
    }

    fn move_to(&mut self, folder: String) {
        let Some(message) = self.target() else { return };
        self.take_away(&message);
        let request = Request::MailMove { person: self.whose(), message, folder };
        self.ask(Purpose::Moved, request, Vec::new());
    }

    fn mark(&mut self, read: Option<bool>) {
        let is_read = match self.screen() {
            Screen::List(list) => list.chosen().is_some_and(|line| line.read),
            _ => true,
        };
        let read = read.unwrap_or(!is_read);
        let Some(message) = self.target() else { return };
        let request = Request::MailMark { person: self.whose(), message, read };
        let words = if read { "marked read" } else { "marked unread" };
        self.ask(Purpose::Done(words.into()), request, Vec::new());
    }

    fn status(&mut self) {
        let Some(message) = self.target() else { return };
        let about = About::Status(message);
        self.push(Screen::Pane(Pane::new("Where it is", about.clone(), "")));
        self.ask_about(&about);
    }

    fn history(&mut self) {
        let Some(message) = self.target() else { return };
        let request = Request::MailHistory { person: self.whose(), message };
        self.ask(Purpose::History, request, Vec::new());
    }

    fn thread(&mut self) {
        if matches!(self.screen(), Screen::List(Listing { source: Source::Thread(_), .. })) {
            self.screens.pop();
            return;
        }
        if let Some(message) = self.target() {
            self.show_list(Source::Thread(message));
        }
    }

    fn show_list(&mut self, source: Source) {
        self.push(Screen::List(Listing::new(source.clone())));
        self.ask_page(source, None);
    }

    fn book(&mut self) {
        if matches!(self.screen(), Screen::Book(_)) {
            return;
        }
        let mut book = Book::default();
        book.renew(&self.directory);
        self.push(Screen::Book(book));
        self.ask_directory();
    }

    fn travel(&mut self) {
        self.push(Screen::Pane(Pane::new("Travel", About::Travel, "")));
        self.ask_about(&About::Travel);
    }

    fn next_field(&mut self) {
        let Screen::Compose(compose) = self.top() else { return };
        let before = match compose.field() {
            Some((Name::To | Name::Cc, field)) if field.before() == field.text() => field.text().to_owned(),
            _ => String::new(),
        };
        if !self.complete(|names| command::recipient(&before, names))
            && let Screen::Compose(compose) = self.top()
        {
            compose.turn(false);
        }
    }

    fn edit(&mut self) {
        if let Screen::Compose(compose) = self.screen()
            && !compose.busy
        {
            self.effects.push(Effect::Edit(compose.text.text()));
        }
    }

    fn send(&mut self) {
        let person = self.whose();
        let Some(compose) = self.compose() else { return self.refuse("there is nothing to send") };
        if compose.busy {
            return;
        }
        match compose.send(&person) {
            Err(why) => self.refuse(why),
            Ok(None) => self.keep(Then::Send),
            Ok(Some((request, body))) => {
                compose.busy = true;
                self.say("sending");
                self.ask(Purpose::Sent, request, body);
            }
        }
    }

    fn keep(&mut self, then: Then) {
        let person = self.whose();
        let Some(compose) = self.compose() else { return self.refuse("there is nothing to keep") };
        if compose.busy {
            // Who goes while it is on its way, and no answer comes, has it in a file.
            let text = (then == Then::End).then(|| compose.as_file());
            return self.effects.extend(text.map(Effect::Keep));
        }
        compose.busy = true;
        let (request, body) = compose.keep(&person);
        self.ask(Purpose::Kept(then), request, body);
    }

    // Commands.

    fn run(&mut self, typed: &str) {
        match command::parse(typed, &self.names().gateways) {
            Ok(command) => self.command(command),
            Err(why) => self.refuse(why),
        }
    }

    fn command(&mut self, command: Command) {
        let person = self.whose();
        let key = Key::Enter;
        match command {
            Command::To(names) => self.write_to(&names),
            Command::Cc(names) => match self.compose().map(|compose| compose.add(Name::Cc, &names)) {
                Some(true) => {}
                _ => self.refuse("there is no Cc here; /NEW writes a message"),
            },
            Command::Subject(subject) => {
                match self.compose().and_then(|compose| compose.named(Name::Subject)) {
                    Some(field) => *field = Field::new(subject),
                    None => self.refuse("there is no subject here; /NEW writes a message"),
                }
            }
            Command::New => self.write_to(&[]),
            Command::Reply { all } => self.begin(Intent::Reply(all)),
            Command::Forward(names) => self.begin(Intent::Forward(names)),
            Command::Amend => self.begin(Intent::Amend),
            Command::Withdraw(reason) => self.begin(Intent::Withdraw(reason)),
            Command::Find { words, here } => self.find(words, here),
            Command::Move(folder) => self.move_to(folder),
            Command::Folder(name) => self.go_named_folder(&name),
            Command::FolderAdd(name) => {
                let done = Purpose::Done(format!("folder {name} is made"));
                self.ask(done, Request::FolderAdd { person, name }, Vec::new());
            }
            Command::FolderRename(name, to) => {
                let done = Purpose::Done(format!("{name} is {to} now"));
                self.ask(done, Request::FolderRename { person, name, to }, Vec::new());
            }
            Command::FolderRemove(name) => {
                let done = Purpose::Done(format!("folder {name} is removed"));
                self.ask(done, Request::FolderRemove { person, name }, Vec::new());
            }
            Command::Open(part) => self.open_part(&part),
            Command::Save { parts, into } => self.save(parts, into),
            Command::Attach(path) => match self.compose() {
                Some(_) => self.effects.push(Effect::Read(path)),
                None => self.refuse("there is nothing to attach it to; /NEW writes a message"),
            },
            Command::Detach(places) => {
                if let Some(Err(why)) = self.compose().map(|compose| compose.detach(&places)) {
                    self.refuse(why);
                }
            }
            Command::Send => self.send(),
            Command::Draft => self.keep(Then::Stay),
            Command::Editor => self.edit(),
            Command::Discard => self.close_compose(),
            Command::Delete => self.delete_chosen(),
            Command::Mark { read } => self.mark(Some(read)),
            Command::Status => self.status(),
            Command::History => self.history(),
            Command::Thread => self.thread(),
            Command::Book => self.book(),
            Command::Nickname(name, target) => self.nickname(name, target),
            Command::Forget(name) => {
                let request =
                    Request::Nickname { person, request: EntryRequest::Remove { name: name.clone() } };
                self.ask(Purpose::Done(format!("{name} is forgotten")), request, Vec::new());
                self.ask_nicknames(EntryRequest::List);
            }
            Command::Travel => self.travel(),
            Command::TravelStart { until, scope, after_fetch } => {
                let request = Request::TravelStart { person, until, scope, after_fetch };
                self.ask(Purpose::Started, request, Vec::new());
            }
            Command::TravelEnd { revoke } => {
                let request = Request::TravelEnd { person, revoke };
                self.ask(Purpose::Done("the window is ended".into()), request, Vec::new());
            }
            Command::Explain(address) => {
                let request = Request::Explain { person: Some(person), address };
                self.ask(Purpose::Explain, request, Vec::new());
            }
            Command::Trace => {
                if let Some(message) = self.target() {
                    self.ask(Purpose::Trace, Request::Trace { message }, Vec::new());
                }
            }
            Command::Help => self.act(Action::Help, key),
            Command::Quit => self.quit(),
        }
    }

    fn nickname(&mut self, name: String, target: String) {
        let new = NewNickname { name: name.clone(), target };
        let request = Request::Nickname { person: self.whose(), request: EntryRequest::Add(new) };
        self.ask(Purpose::Done(format!("{name} is in the address book")), request, Vec::new());
        self.ask_nicknames(EntryRequest::List);
    }

    fn find(&mut self, words: String, is_here: bool) {
        let Self { screens, directory, .. } = self;
        if let Some(Screen::Book(book)) = screens.last_mut() {
            book.words = words;
            return book.renew(directory);
        }
        if self.compose().is_some() {
            return self.refuse("send or keep what you write first");
        }
        let folder = is_here.then(|| self.folder().to_owned());
        self.show_list(Source::Search { words, folder });
    }

    fn go_named_folder(&mut self, name: &str) {
        let found = self.folders.iter().find(|folder| folder.name.to_lowercase() == name.to_lowercase());
        match found.map(|folder| folder.name.clone()) {
            Some(name) => self.go_folder(name),
            None => {
                let names: Vec<_> = self.folders.iter().map(|folder| folder.name.as_str()).collect();
                self.refuse(format!("there is no folder {name}; there are {}", names.join(", ")));
            }
        }
    }

    /// Asks for attachments to be saved: those of these numbers, or all.
    fn save(&mut self, parts: Vec<String>, into: Option<String>) {
        let (id, within) = match self.screen() {
            Screen::Reader(Reader { id, reading: Some(reading), .. }) => {
                (id.clone(), reading.parts.iter().map(|part| part.number.to_string()).collect())
            }
            Screen::List(list) => match list.chosen() {
                Some(line) if line.part > 0 || !parts.is_empty() => (line.id.clone(), Vec::new()),
                _ => return self.refuse("read the message first, or say which: /SAVE 1"),
            },
            _ => return self.refuse("there is no message here: choose one first"),
        };
        let parts: Vec<String> = if parts.is_empty() { within } else { parts };
        let ids: Vec<_> = match parts.is_empty() {
            // What is read is an attachment itself.
            true if id.contains('.') => vec![id],
            true => return self.refuse("it has no attachments"),
            false => parts.iter().map(|part| format!("{id}.{part}")).collect(),
        };
        if ids.len() > SAVED_MAX {
            return self.refuse(format!("at most {SAVED_MAX} attachments are saved at once"));
        }
        let into = into.unwrap_or_else(|| ".".into());
        for message in ids {
            let request = Request::MailRead { person: self.whose(), message, raw: false };
            self.ask(Purpose::Save(into.clone()), request, Vec::new());
        }
    }
}

/// Rows for the text that is written, of those for what is shown.
fn text_rows(compose: &Compose, rows: usize) -> usize {
    let above = compose.fields.len() + usize::from(!compose.attachments.is_empty());
    // A line is between, if there is anything above it.
    rows.saturating_sub(above + usize::from(above > 0)).max(1)
}

fn messages(lines: &[Line]) -> usize {
    lines.iter().filter(|line| line.part == 0).count()
}

fn of<T: DeserializeOwned>(json: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(json)
}
