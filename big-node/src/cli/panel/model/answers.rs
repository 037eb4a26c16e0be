//! What the desk makes of answers, of files that were read, and of time.

use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::mime::file_name;

use super::{Answer, Effect, Failure, GONE_WAIT, IN, Model, Part, Purpose, Screen, Then};
use crate::cli::panel::compose::{Attachment, Compose, What};
use crate::cli::panel::listing::{Listing, Source, message_of};
use crate::cli::panel::pane::{self, About, Pane};
use crate::cli::show;
use crate::request::{
    Deleted, DraftSaved, DraftView, Explanation, FolderView, Found, Line, Moved, Reading, Request, Sent,
    Started, Status, Step,
};

impl Model {
    pub(super) fn answered(&mut self, purpose: Purpose, (json, body): Answer) {
        if let Err(why) = self.take(purpose, json, body) {
            self.refuse(format!("the answer was not understood ({why}): are desk and node of one version?"));
        }
    }

    pub(super) fn take(
        &mut self,
        purpose: Purpose,
        json: Value,
        body: Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        match purpose {
            Purpose::Folders => self.take_folders(of(json)?),
            Purpose::Page(source @ Source::Search { .. }, is_behind) => {
                self.take_found(&source, of(json)?, is_behind);
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

    pub(super) fn take_folders(&mut self, folders: Vec<FolderView>) {
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

    pub(super) fn list(&mut self, source: &Source) -> Option<&mut Listing> {
        // The same words may have been looked for before: the last one asks.
        self.screens.iter_mut().rev().find_map(|screen| match screen {
            Screen::List(list) if list.source == *source => Some(list),
            _ => None,
        })
    }

    pub(super) fn take_page(&mut self, source: &Source, lines: Vec<Line>, is_older: bool) {
        if !is_older {
            self.renewed();
        }
        let Some(list) = self.list(source) else { return };
        match is_older {
            true => list.extend(lines),
            false => list.renew(lines),
        }
    }

    pub(super) fn renewed(&mut self) {
        self.renewing = self.renewing.saturating_sub(1);
        if self.renewing == 0 && std::mem::take(&mut self.again) {
            self.renew();
        }
    }

    pub(super) fn take_found(&mut self, source: &Source, found: Found, is_behind: bool) {
        if !is_behind {
            self.renewed();
        }
        if let Some(list) = self.list(source) {
            list.find(found);
        }
    }

    pub(super) fn take_reading(&mut self, id: &str, reading: Reading) {
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

    pub(super) fn pane(&mut self, about: &About) -> Option<&mut Pane> {
        self.screens.iter_mut().find_map(|screen| match screen {
            Screen::Pane(pane) if pane.about == *about => Some(pane),
            _ => None,
        })
    }

    pub(super) fn take_sent(&mut self, json: Value) -> Result<(), serde_json::Error> {
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

    pub(super) fn take_kept(&mut self, id: String, then: Then) {
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

    pub(super) fn close_compose(&mut self) {
        if let Some(at) = self.screens.iter().rposition(|screen| matches!(screen, Screen::Compose(_))) {
            self.screens.truncate(at);
        }
    }

    pub(super) fn take_directory(&mut self, part: Part, json: Value) -> Result<(), serde_json::Error> {
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

    pub(super) fn failed(&mut self, purpose: &Purpose, failure: Failure) {
        self.is_away = !matches!(failure, Failure::Refused(_));
        match purpose {
            Purpose::Page(source, is_older) => {
                if let Some(list) = self.list(source) {
                    (list.asked, list.loaded) = (false, true);
                    // What was refused once is not asked for again and again.
                    if *is_older && !list.stop() {
                        list.more = false;
                    }
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

    pub(super) fn failed_to_keep(&mut self, then: Then, failure: Failure) {
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

    pub(super) fn watched(&mut self, watched: Result<u64, Failure>) {
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
    pub(super) fn keep_what_was_left(&mut self) {
        if self.compose().is_some_and(|compose| compose.is_changed() && !compose.busy) {
            self.keep(Then::Stay);
        }
    }

    pub(super) fn tick(&mut self, now: u64) {
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
            && let Screen::Pane(Pane { about: about @ (About::Status(_) | About::Travel), .. }) =
                self.screen()
        {
            let about = about.clone();
            self.ask_about(&about);
        }
    }

    pub(super) fn gone(&mut self) {
        if self.gone_at.replace(self.gone_at.unwrap_or(self.now)).is_some() {
            return;
        }
        match self.compose().is_some_and(|compose| compose.is_changed()) {
            true => self.keep(Then::End),
            false => self.effects.push(Effect::End(None)),
        }
    }

    pub(super) fn edited(&mut self, edited: Result<String, String>) {
        match edited {
            Ok(text) => {
                if let Some(compose) = self.compose() {
                    compose.rewrite(text.strip_suffix('\n').unwrap_or(&text));
                }
            }
            Err(why) => self.refuse(why),
        }
    }

    pub(super) fn read(&mut self, read: Result<(String, Vec<u8>), String>) {
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
}

fn of<T: DeserializeOwned>(json: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(json)
}
