//! A person's folders: those that everybody has, and their own. An entry's key holds a byte for its folder; the
//! number of an own one is given when it is added, and free again once it is removed, which it can be when empty.

use shared::id::MessageId;
use shared::mime::{terminal, words};
use shared::store::{Rows, StoreError, Txn};
use shared::unit::Id;
use unicode_security::skeleton;

use crate::directory::shown;
use crate::error::Refused;
use crate::mail;
use crate::record::{
    DRAFTS, Entry, FOLDERS, Folder, MAILBOXES, MESSAGES, Message, OWN_FIRST, OWN_FOLDERS_MAX, OwnFolder,
    Person, entry_key, folder_prefix, key2,
};
use crate::request::FolderView;

/// Characters of a folder's name.
const NAME_MAX: usize = 64;

/// Every folder of a person, those in front in which a message is looked for first.
pub fn every(rows: &impl Rows, person: &Id) -> Result<Vec<Folder>, StoreError> {
    let mut every: Vec<_> = Folder::FIXED.iter().map(|(folder, _)| *folder).collect();
    every.extend(own(rows, person)?.into_iter().map(|(folder, _)| folder));
    // Trash is looked in last.
    every.sort_unstable();
    Ok(every)
}

/// A person's own folders, by number.
fn own(rows: &impl Rows, person: &Id) -> Result<Vec<(Folder, String)>, StoreError> {
    let found = rows.prefix::<OwnFolder>(FOLDERS, person, OWN_FOLDERS_MAX)?;
    let number = |key: &[u8]| key.last().copied().unwrap_or_default();
    Ok(found.into_iter().map(|(key, row)| (Folder::Own(number(&key)), row.name)).collect())
}

/// The name of a person's folder.
pub fn name(rows: &impl Rows, person: &Id, folder: Folder) -> Result<String, StoreError> {
    match folder {
        Folder::Own(number) => {
            let row = rows.get::<OwnFolder>(FOLDERS, &key2(person, &[number]))?;
            Ok(row.map(|row| row.name).unwrap_or_default())
        }
        fixed => Ok(fixed.fixed_name().unwrap_or_default().to_owned()),
    }
}

/// The person's folder of this name, in whatever case.
pub fn find(rows: &impl Rows, person: &Person, text: &str) -> Result<Folder, Refused> {
    let wanted = words::folded(text.trim());
    if let Some((folder, _)) = Folder::FIXED.iter().find(|(_, name)| *name == wanted) {
        return Ok(*folder);
    }
    let mut own = own(rows, &person.id)?.into_iter();
    let found = own.find(|(_, name)| words::folded(name) == wanted);
    let none = || {
        Refused::new(format!(
            "{} has no folder {}; `mail folder list` shows what there is",
            person.name,
            shown(text)
        ))
    };
    found.map(|(folder, _)| folder).ok_or_else(none)
}

/// A person's folders with their counts: the common ones first, then their own by name.
pub fn list(rows: &impl Rows, person: &Id) -> Result<Vec<FolderView>, StoreError> {
    let mut own = own(rows, person)?;
    own.sort_by_key(|(_, name)| words::folded(name));
    let fixed = Folder::FIXED.iter().map(|(folder, name)| (*folder, (*name).to_owned()));
    let mut views = Vec::new();
    for (folder, name) in fixed.chain(own) {
        let entries = rows.prefix::<Entry>(MAILBOXES, &folder_prefix(person, folder), usize::MAX)?;
        let unread = entries.iter().filter(|(_, entry)| !entry.read).count() as u64;
        let own = matches!(folder, Folder::Own(_));
        views.push(FolderView { name, own, messages: entries.len() as u64, unread });
    }
    Ok(views)
}

/// Adds a folder.
pub fn add(txn: &mut Txn<'_>, person: &Person, text: &str) -> Result<(), Refused> {
    let own = own(txn, &person.id)?;
    let name = new_name(&own, text)?;
    let taken = |number: &u8| own.iter().any(|(folder, _)| *folder == Folder::Own(*number));
    let number = (OWN_FIRST..=u8::MAX).find(|number| !taken(number)).ok_or_else(|| {
        Refused::new(format!("there are {OWN_FOLDERS_MAX} folders, which is all there can be; remove one"))
    })?;
    Ok(txn.put(FOLDERS, &key2(&person.id, &[number]), &OwnFolder { name })?)
}

/// Renames a folder of the person's own.
pub fn rename(txn: &mut Txn<'_>, person: &Person, text: &str, to: &str) -> Result<(), Refused> {
    let number = own_number(txn, person, text)?;
    let mut others = own(txn, &person.id)?;
    others.retain(|(folder, _)| *folder != Folder::Own(number));
    let name = new_name(&others, to)?;
    Ok(txn.put(FOLDERS, &key2(&person.id, &[number]), &OwnFolder { name })?)
}

/// Removes a folder of the person's own that is empty.
pub fn remove(txn: &mut Txn<'_>, person: &Person, text: &str) -> Result<(), Refused> {
    let number = own_number(txn, person, text)?;
    let entries = folder_prefix(&person.id, Folder::Own(number));
    if !txn.prefix::<Entry>(MAILBOXES, &entries, 1)?.is_empty() {
        return Err(Refused::new(format!(
            "{} is not empty; move its messages with `mail move` or delete them first",
            shown(text)
        )));
    }
    Ok(txn.delete(FOLDERS, &key2(&person.id, &[number]))?)
}

/// Moves a message to a folder. What is received, sent, written and undeliverable stays apart.
pub fn shift(txn: &mut Txn<'_>, person: &Person, id: MessageId, to: Folder, now: u64) -> Result<(), Refused> {
    let missing =
        || Refused::new(format!("{} has no message {id}; `mail list` shows what there is", person.name));
    let (from, entry) = mail::entry(txn, &person.id, id)?.ok_or_else(missing)?;
    let message = txn.get::<Message>(MESSAGES, &id.0)?.ok_or_else(missing)?;
    let is_draft = txn.raw(DRAFTS, &id.0)?.is_some();
    let why = match to {
        _ if from == to => return Ok(()),
        Folder::Trash => None,
        Folder::Drafts if !is_draft => Some("that folder is for what is being written"),
        Folder::Drafts => None,
        _ if is_draft => Some("it is a draft, which can only be sent or deleted"),
        Folder::Sent if !mail::is_author(txn, &message, person)? => {
            Some("that folder is for what one has sent")
        }
        Folder::Undeliverable => Some("that folder is for mail whose recipient is not here any more"),
        Folder::In | Folder::Sent | Folder::Saved | Folder::Junk | Folder::Own(_) => None,
    };
    if let Some(why) = why {
        return Err(Refused::new(format!("{id} stays where it is: {why}")));
    }
    if to == Folder::Trash {
        return Ok(mail::discard(txn, &person.id, from, id, entry, now)?);
    }
    let key = entry_key(&person.id, to, id);
    if txn.raw(MAILBOXES, &key)?.is_some() {
        // It lies there already: one entry holds one reference.
        return Ok(mail::forget(txn, &person.id, from, id)?);
    }
    // In Trash it has the time at which it was deleted.
    let filed_at = if from == Folder::Trash { message.origin.accepted_at } else { entry.filed_at };
    txn.delete(MAILBOXES, &entry_key(&person.id, from, id))?;
    Ok(txn.put(MAILBOXES, &key, &Entry { filed_at, ..entry })?)
}

fn own_number(rows: &impl Rows, person: &Person, text: &str) -> Result<u8, Refused> {
    match find(rows, person, text)? {
        Folder::Own(number) => Ok(number),
        _ => Err(Refused::new(format!("{} is a folder that everybody has; it stays as it is", shown(text)))),
    }
}

/// The name of a new folder: shown safely, and not to be taken for another one's.
fn new_name(others: &[(Folder, String)], text: &str) -> Result<String, Refused> {
    let name = words::normal(text.trim());
    let refused = |why: String| Err(Refused::new(format!("{}: {why}", shown(text))));
    if name.is_empty() || name.chars().count() > NAME_MAX {
        return refused(format!("a folder's name has 1 to {NAME_MAX} characters"));
    }
    if terminal::safe_line(&name) != name {
        return refused("a folder's name has no control characters and nothing that cannot be seen".into());
    }
    let fixed = Folder::FIXED.iter().map(|(_, name)| *name);
    for other in fixed.chain(others.iter().map(|(_, name)| name.as_str())) {
        if looks(&name) == looks(other) {
            return refused(format!("there is the folder {other}, which looks the same"));
        }
    }
    Ok(name)
}

/// What a name looks like: equal for names that are taken for one another.
fn looks(name: &str) -> String {
    let folded = words::folded(name);
    let shape = skeleton(&folded).filter(|c| !c.is_whitespace());
    shape.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_safely_and_told_apart() {
        let others = [(Folder::Own(OWN_FIRST), "Projects".to_owned())];
        for (text, expected) in
            [("Travel 2026", "Travel 2026"), (" Grüße ", "Grüße"), ("e\u{301}", "é"), ("日本", "日本")]
        {
            assert_eq!(new_name(&others, text).expect("a good name"), expected);
        }
        for (text, why) in [
            ("", "1 to 64 characters"),
            (&"x".repeat(65), "1 to 64 characters"),
            ("a\u{1b}[2J", "no control characters"),
            ("a\nb", "no control characters"),
            ("a\u{202e}b", "no control characters"),
            ("IN", "looks the same"),
            ("Sеnt", "looks the same"),
            ("trash ", "looks the same"),
            ("PROJECTS", "looks the same"),
            ("Prоjects", "looks the same"),
        ] {
            let refused = new_name(&others, text).expect_err("refused").to_string();
            assert!(refused.contains(why), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_folder_has_one_byte() {
        for byte in 0..=u8::MAX {
            if let Some(folder) = Folder::of_byte(byte) {
                assert_eq!(folder.byte(), byte);
            }
        }
        assert_eq!(usize::from(u8::MAX - OWN_FIRST) + 1, OWN_FOLDERS_MAX);
    }
}
