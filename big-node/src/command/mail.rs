//! What a person at a desk asks, answered.

use serde_json::Value;

use super::{Commands, LISTED_MAX, json};
use crate::desk::{self, Search};
use crate::error::Refused;
use crate::folder;
use crate::record::Person;
use crate::request::{FolderView, Request};

impl Commands {
    /// What `person` asks of their mail.
    pub(super) async fn mail(
        &self,
        person: Person,
        request: Request,
        body: Vec<u8>,
    ) -> Result<(Value, Vec<u8>), Refused> {
        let node = &self.node;
        let answer = match request {
            Request::MailList { folder, max, before, .. } => {
                json(desk::list(node, &person, &folder, max.min(LISTED_MAX), before.as_deref())?)
            }
            Request::MailFolders { .. } => json(self.folders(&person)?),
            Request::FolderAdd { name, .. } => {
                let whose = person.clone();
                node.store.commit(move |txn| folder::add(txn, &whose, &name)).await?;
                json(self.folders(&person)?)
            }
            Request::FolderRename { name, to, .. } => {
                let whose = person.clone();
                node.store.commit(move |txn| folder::rename(txn, &whose, &name, &to)).await?;
                json(self.folders(&person)?)
            }
            Request::FolderRemove { name, .. } => {
                let whose = person.clone();
                node.store.commit(move |txn| folder::remove(txn, &whose, &name)).await?;
                json(self.folders(&person)?)
            }
            Request::MailRead { message, raw, .. } => {
                let (reading, bytes) = desk::read(node, &person, &message, raw).await?;
                return Ok((json(reading)?, bytes));
            }
            Request::MailSend { written, quote, .. } => {
                json(desk::send(node, &person, written, quote, &body).await?)
            }
            Request::DraftSave { draft, keep, written, .. } => {
                json(desk::save_draft(node, &person, draft.as_deref(), &keep, written, &body).await?)
            }
            Request::DraftShow { draft, .. } => json(desk::show_draft(node, &person, &draft)?),
            Request::DraftSend { draft, .. } => json(desk::send_draft(node, &person, &draft).await?),
            Request::MailMove { message, folder, .. } => {
                json(desk::shift(node, &person, &message, &folder).await?)
            }
            Request::MailMark { message, read, .. } => json(desk::mark(node, &person, &message, read).await?),
            Request::MailThread { message, .. } => json(desk::thread(node, &person, &message)?),
            Request::MailSearch { words, folder, max, before, .. } => {
                let (folder, before) = (folder.as_deref(), before.as_deref());
                let search = Search { words: &words, folder, max: max.min(LISTED_MAX), before };
                json(desk::search(node, &person, search)?)
            }
            Request::MailWatch { seen, .. } => json(desk::watch(node, &self.watchers, &person, seen).await?),
            Request::MailDelete { message, .. } => json(desk::delete(node, &person, &message).await?),
            Request::MailStatus { message, .. } => json(desk::status(node, &person, &message)?),
            _ => Err(Refused::new("that is nothing about mail")),
        };
        Ok((answer?, Vec::new()))
    }

    fn folders(&self, person: &Person) -> Result<Vec<FolderView>, Refused> {
        Ok(folder::list(&self.node.store.read()?, &person.id)?)
    }
}
