//! The address book: everybody in the directory, and one's own nicknames.

use super::command::Names;
use crate::request::{GatewayView, GroupView, NicknameView, PersonView, ShadowView};

/// A name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As it can be typed.
    pub(super) name: String,
    /// What it is.
    pub(super) kind: &'static str,
    /// Whom it means, for people.
    pub(super) means: String,
}

/// What has been asked for of it; completed as answers come.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    people: Vec<Entry>,
    shadows: Vec<Entry>,
    groups: Vec<Entry>,
    nicknames: Vec<Entry>,
    gateways: Vec<String>,
}

impl Directory {
    /// People.
    pub(super) fn people(&mut self, people: Vec<PersonView>) {
        let entry = |person: PersonView| {
            let means = format!("{} <{}>", person.display, person.addresses.join(", "));
            Entry { name: person.name, kind: "person", means }
        };
        self.people = people.into_iter().map(entry).collect();
    }

    /// Shadows.
    pub(super) fn shadows(&mut self, shadows: Vec<ShadowView>) {
        let entry = |shadow: ShadowView| {
            let means = format!("{} <{}>", shadow.display, shadow.target);
            Entry { name: shadow.name, kind: "outside", means }
        };
        self.shadows = shadows.into_iter().map(entry).collect();
    }

    /// Groups.
    pub(super) fn groups(&mut self, groups: Vec<GroupView>) {
        let entry =
            |group: GroupView| Entry { name: group.name, kind: "group", means: group.members.join(", ") };
        self.groups = groups.into_iter().map(entry).collect();
    }

    /// Nicknames.
    pub(super) fn nicknames(&mut self, nicknames: Vec<NicknameView>) {
        let entry = |nickname: NicknameView| {
            let means = nickname.target.unwrap_or_else(|| "(removed)".into());
            Entry { name: nickname.name, kind: "nickname", means }
        };
        self.nicknames = nicknames.into_iter().map(entry).collect();
    }

    /// Gateways.
    pub(super) fn gateways(&mut self, gateways: Vec<GatewayView>) {
        self.gateways = gateways.into_iter().map(|gateway| gateway.name).collect();
    }

    /// Everybody, nicknames first, whose name or meaning contains `words`.
    fn entries(&self, words: &str) -> Vec<Entry> {
        let words = words.to_lowercase();
        let fits = |entry: &&Entry| {
            words.is_empty()
                || entry.name.to_lowercase().contains(&words)
                || entry.means.to_lowercase().contains(&words)
        };
        let mut entries = Vec::new();
        for kind in [&self.nicknames, &self.people, &self.shadows, &self.groups] {
            let mut fitting: Vec<_> = kind.iter().filter(fits).cloned().collect();
            fitting.sort_by(|a, b| a.name.cmp(&b.name));
            entries.extend(fitting);
        }
        entries
    }

    /// What can be completed, with these folders.
    pub(super) fn names(&self, folders: Vec<String>) -> Names {
        let everybody = [&self.nicknames, &self.people, &self.shadows, &self.groups].into_iter().flatten();
        let mut gateways = self.gateways.clone();
        gateways.push("smtp".into());
        Names { people: everybody.map(|entry| entry.name.clone()).collect(), folders, gateways }
    }
}

/// The address book on the screen.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// What is shown.
    pub(super) entries: Vec<Entry>,
    /// Only what contains this.
    pub(super) words: String,
    /// The names that were picked, in that order.
    pub(super) picked: Vec<String>,
    /// The line that is chosen.
    pub(super) cursor: usize,
    /// The first line on the screen.
    pub(super) top: usize,
}

impl Book {
    /// Shows what the directory holds now.
    pub(super) fn renew(&mut self, directory: &Directory) {
        self.entries = directory.entries(&self.words);
        self.cursor = self.cursor.min(self.entries.len().saturating_sub(1));
        self.top = self.top.min(self.cursor);
    }

    /// Moves the choice, on a screen of `rows`.
    pub(super) fn go(&mut self, to: usize, rows: usize) {
        self.cursor = to.min(self.entries.len().saturating_sub(1));
        self.top = self.top.min(self.cursor).max((self.cursor + 1).saturating_sub(rows));
    }

    /// Picks the name that is chosen, or drops it again.
    pub(super) fn pick(&mut self) {
        let Some(entry) = self.entries.get(self.cursor) else { return };
        match self.picked.iter().position(|name| *name == entry.name) {
            Some(at) => {
                self.picked.remove(at);
            }
            None => self.picked.push(entry.name.clone()),
        }
    }

    /// Those who were picked, or who is chosen if nobody was.
    pub(super) fn taken(&self) -> Vec<String> {
        match self.picked.is_empty() {
            true => self.entries.get(self.cursor).map(|entry| entry.name.clone()).into_iter().collect(),
            false => self.picked.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_picked() {
        let mut directory = Directory::default();
        let group = |name: &str| GroupView {
            name: name.into(),
            display: String::new(),
            addresses: vec![],
            members: vec!["bob".into()],
        };
        directory.groups(vec![group("team"), group("choir")]);
        directory.nicknames(vec![NicknameView { name: "cj".into(), target: Some("carol".into()) }]);
        let mut book = Book::default();
        book.renew(&directory);
        let names: Vec<_> = book.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["cj", "choir", "team"]);
        assert_eq!(book.taken(), ["cj"]);
        book.go(2, 10);
        book.pick();
        book.go(0, 10);
        book.pick();
        assert_eq!(book.taken(), ["team", "cj"]);
        book.pick();
        assert_eq!(book.taken(), ["team"]);
        book.words = "CAROL".into();
        book.renew(&directory);
        assert_eq!(book.entries.len(), 1);
        assert_eq!(directory.names(vec![]).gateways, ["smtp"]);
    }
}
