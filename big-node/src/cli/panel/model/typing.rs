//! What a key does.

use super::{Effect, Intent, Model, Notice, Question, Screen, Then, text_rows};
use crate::cli::panel::command::Names;
use crate::cli::panel::compose::ReplyTo;
use crate::cli::panel::editor::Field;
use crate::cli::panel::keys::{Action, Key, Place};
use crate::cli::panel::pane::{About, Pane};
use crate::cli::panel::{command, keys, pane};

impl Model {
    pub(super) fn key(&mut self, key: Key) {
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

    pub(super) fn press(&mut self, key: Key) {
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

    pub(super) fn paste(&mut self, text: &str) {
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

    pub(super) fn answer(&mut self, key: Key) {
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

    pub(super) fn type_command(&mut self, key: Key) {
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
    pub(super) fn complete(&mut self, find: impl FnOnce(&Names) -> Option<command::Completion>) -> bool {
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

    pub(super) fn act(&mut self, action: Action, key: Key) {
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
            Action::Reply => self.begin(Intent::Reply(ReplyTo::Author)),
            Action::ReplyAll => self.begin(Intent::Reply(ReplyTo::All)),
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

    pub(super) fn scroll(&mut self, action: Action, rows: usize) {
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
}
