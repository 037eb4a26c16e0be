//! What a command of the command line does.

use shared::trace::Query;

use super::{Effect, Intent, Model, Purpose, SAVED_MAX, Screen, Then};
use crate::cli::panel::command;
use crate::cli::panel::command::Command;
use crate::cli::panel::compose::Name;
use crate::cli::panel::editor::Field;
use crate::cli::panel::keys::{Action, Key};
use crate::cli::panel::listing::Source;
use crate::cli::panel::reader::Reader;
use crate::request::{EntryRequest, NewNickname, Request, Terms};

impl Model {
    pub(super) fn run(&mut self, typed: &str) {
        match command::parse(typed, &self.names().gateways) {
            Ok(command) => self.command(command),
            Err(why) => self.refuse(why),
        }
    }

    pub(super) fn command(&mut self, command: Command) {
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
            Command::Reply(answer) => self.begin(Intent::Reply(answer)),
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
                let terms = Terms { until, scope, after_fetch, ..Terms::default() };
                let request = Request::TravelStart { person, terms };
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
                    self.ask(Purpose::Trace, Request::Trace(Query::Way(message)), Vec::new());
                }
            }
            Command::Help => self.act(Action::Help, key),
            Command::Quit => self.quit(),
        }
    }

    pub(super) fn nickname(&mut self, name: String, target: String) {
        let new = NewNickname { name: name.clone(), target };
        let request = Request::Nickname { person: self.whose(), request: EntryRequest::Add(new) };
        self.ask(Purpose::Done(format!("{name} is in the address book")), request, Vec::new());
        self.ask_nicknames(EntryRequest::List);
    }

    pub(super) fn find(&mut self, words: String, is_here: bool) {
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

    pub(super) fn go_named_folder(&mut self, name: &str) {
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
    pub(super) fn save(&mut self, parts: Vec<String>, into: Option<String>) {
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
