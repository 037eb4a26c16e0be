//! What is done with a message, a folder or a list, by whatever key or command.

use super::{DRAFTS, Effect, Intent, Model, Purpose, Question, Screen, TRASH, Then};
use crate::cli::panel::book::Book;
use crate::cli::panel::command;
use crate::cli::panel::compose::{Compose, Name};
use crate::cli::panel::keys::Key;
use crate::cli::panel::listing::{Listing, Source, message_of};
use crate::cli::panel::pane::{About, Pane};
use crate::cli::panel::reader::Reader;
use crate::request::{Line, Reading, Request};

impl Model {
    /// The message that is chosen or read, without the number of an attachment.
    pub(super) fn target(&mut self) -> Option<String> {
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
    pub(super) fn target_folder(&self) -> Option<&str> {
        match self.screen() {
            Screen::List(list) => list.chosen().map(|line| line.folder.as_str()),
            Screen::Reader(reader) => reader.reading.as_ref().map(|reading| reading.folder.as_str()),
            _ => None,
        }
    }

    pub(super) fn open_chosen(&mut self) {
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

    pub(super) fn open_message(&mut self, id: String) {
        self.push(Screen::Reader(Reader::new(&id)));
        let request = Request::MailRead { person: self.whose(), message: id.clone(), raw: false };
        self.ask(Purpose::Reading(id), request, Vec::new());
    }

    pub(super) fn open_part(&mut self, number: &str) {
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
    pub(super) fn neighbour(&mut self, is_below: bool) {
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

    pub(super) fn back(&mut self, key: Key) {
        if let Screen::List(list) = self.top()
            && key == Key::Esc
            && list.stop()
        {
            return;
        }
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

    pub(super) fn quit(&mut self) {
        match self.compose().is_some_and(|compose| compose.is_changed()) {
            true => self.question = Some(Question::Keep(Then::End)),
            false => self.effects.push(Effect::End(None)),
        }
    }

    pub(super) fn go_folder(&mut self, name: String) {
        if self.compose().is_some() {
            return self.refuse("send or keep what you write first");
        }
        let source = Source::Folder(name);
        self.screens = vec![Screen::List(Listing::new(source.clone()))];
        self.ask_page(source, None);
    }

    pub(super) fn turn_folder(&mut self, by: usize) {
        let count = self.folders.len();
        let here = self.folders.iter().position(|folder| folder.name == self.folder());
        if let Some(there) = here.filter(|_| count > 1).map(|here| (here + by) % count) {
            self.go_folder(self.folders[there].name.clone());
        }
    }

    pub(super) fn write(&mut self) {
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
    pub(super) fn write_to(&mut self, names: &[String]) {
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

    pub(super) fn begin(&mut self, intent: Intent) {
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

    pub(super) fn begin_with(&mut self, intent: Intent, reading: &Reading) {
        let is_own = reading.from.iter().any(|from| self.is_own(from));
        let compose = match intent {
            Intent::Reply(answer) => Compose::reply(reading, answer),
            Intent::Forward(to) => Compose::forward(reading, &to),
            Intent::Amend if is_own => Compose::revision(reading, None),
            Intent::Amend => Compose::amended(reading),
            Intent::Withdraw(reason) if is_own => Compose::revision(reading, Some(&reason)),
            Intent::Withdraw(_) => return self.refuse("only what you have sent yourself can be taken back"),
        };
        self.push(Screen::Compose(Box::new(compose)));
    }

    /// Whether a mailbox is this person's, `Name <address>` or an address alone.
    pub(super) fn is_own(&self, mailbox: &str) -> bool {
        let address = mailbox.rsplit_once('<').map_or(mailbox, |(_, address)| address.trim_end_matches('>'));
        self.person.addresses.iter().any(|own| own.eq_ignore_ascii_case(address))
    }

    pub(super) fn delete_chosen(&mut self) {
        let is_for_good = self.target_folder() == Some(TRASH);
        let Some(message) = self.target() else { return };
        match is_for_good {
            true => self.question = Some(Question::Erase(message)),
            false => self.delete(message),
        }
    }

    pub(super) fn delete(&mut self, message: String) {
        self.take_away(&message);
        let request = Request::MailDelete { person: self.whose(), message };
        self.ask(Purpose::Deleted, request, Vec::new());
    }

    /// What goes elsewhere is not acted on twice: it leaves the lists now, and comes back if that was refused.
    pub(super) fn take_away(&mut self, message: &str) {
        while matches!(self.screen(), Screen::Reader(reader) if message_of(&reader.id) == message) {
            self.screens.pop();
        }
        for screen in &mut self.screens {
            if let Screen::List(list) = screen {
                list.remove(message);
            }
        }
    }

    pub(super) fn move_to(&mut self, folder: String) {
        let Some(message) = self.target() else { return };
        self.take_away(&message);
        let request = Request::MailMove { person: self.whose(), message, folder };
        self.ask(Purpose::Moved, request, Vec::new());
    }

    pub(super) fn mark(&mut self, read: Option<bool>) {
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

    pub(super) fn status(&mut self) {
        let Some(message) = self.target() else { return };
        let about = About::Status(message);
        self.push(Screen::Pane(Pane::new("Where it is", about.clone(), "")));
        self.ask_about(&about);
    }

    pub(super) fn history(&mut self) {
        let Some(message) = self.target() else { return };
        let request = Request::MailHistory { person: self.whose(), message };
        self.ask(Purpose::History, request, Vec::new());
    }

    pub(super) fn thread(&mut self) {
        if matches!(self.screen(), Screen::List(Listing { source: Source::Thread(_), .. })) {
            self.screens.pop();
            return;
        }
        if let Some(message) = self.target() {
            self.show_list(Source::Thread(message));
        }
    }

    pub(super) fn show_list(&mut self, source: Source) {
        self.push(Screen::List(Listing::new(source.clone())));
        self.ask_page(source, None);
    }

    pub(super) fn book(&mut self) {
        if matches!(self.screen(), Screen::Book(_)) {
            return;
        }
        let mut book = Book::default();
        book.renew(&self.directory);
        self.push(Screen::Book(book));
        self.ask_directory();
    }

    pub(super) fn travel(&mut self) {
        self.push(Screen::Pane(Pane::new("Travel", About::Travel, "")));
        self.ask_about(&About::Travel);
    }

    pub(super) fn next_field(&mut self) {
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

    pub(super) fn edit(&mut self) {
        if let Screen::Compose(compose) = self.screen()
            && !compose.busy
        {
            self.effects.push(Effect::Edit(compose.text.text()));
        }
    }

    pub(super) fn send(&mut self) {
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

    pub(super) fn keep(&mut self, then: Then) {
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
}
