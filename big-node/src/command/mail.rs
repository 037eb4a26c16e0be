//! What a person at a desk asks, answered.

use serde_json::Value;

use super::{Commands, LISTED_MAX, json};
use crate::desk::{self, Outgoing};
use crate::error::Refused;
use crate::folder;
use crate::request::{About, FolderView, Request};

impl Commands {
    pub(super) async fn mail(&self, request: Request, body: Vec<u8>) -> Result<(Value, Vec<u8>), Refused> {
        let node = &self.node;
        let answer = match request {
            Request::MailList { person, folder, max, before } => {
                let (person, max) = (self.person(&person)?, max.min(LISTED_MAX));
                json(desk::list(node, &person, &folder, max, before.as_deref())?)
            }
            Request::MailFolders { person } => json(self.folders(&person)?),
            Request::FolderAdd { person, name } => {
                let whose = self.person(&person)?;
                node.store.commit(move |txn| folder::add(txn, &whose, &name)).await?;
                json(self.folders(&person)?)
            }
            Request::FolderRename { person, name, to } => {
                let whose = self.person(&person)?;
                node.store.commit(move |txn| folder::rename(txn, &whose, &name, &to)).await?;
                json(self.folders(&person)?)
            }
            Request::FolderRemove { person, name } => {
                let whose = self.person(&person)?;
                node.store.commit(move |txn| folder::remove(txn, &whose, &name)).await?;
                json(self.folders(&person)?)
            }
            Request::MailRead { person, message, raw } => {
                let (reading, bytes) = desk::read(node, &self.person(&person)?, &message, raw).await?;
                return Ok((json(reading)?, bytes));
            }
            Request::MailSend { person, to, cc, subject, attachments, text_bytes } => {
                let (text, attachments) = desk::attachments(&body, text_bytes, attachments)?;
                let outgoing = Outgoing { to, cc, subject, text, attachments, ..Outgoing::default() };
                json(desk::send(node, &self.person(&person)?, outgoing, None).await?)
            }
            Request::MailReply { person, message, all, list, quote, attachments, text_bytes } => {
                let (text, attachments) = desk::attachments(&body, text_bytes, attachments)?;
                let outgoing = Outgoing { text, attachments, quote, ..Outgoing::default() };
                let about = About::Reply { message, all, list };
                json(desk::send(node, &self.person(&person)?, outgoing, Some(&about)).await?)
            }
            Request::MailForward {
                person,
                message,
                to,
                cc,
                as_attachment,
                without,
                attachments,
                text_bytes,
            } => {
                let (text, attachments) = desk::attachments(&body, text_bytes, attachments)?;
                let outgoing = Outgoing { to, cc, text, attachments, ..Outgoing::default() };
                let about = About::Forward { message, as_attachment, without };
                json(desk::send(node, &self.person(&person)?, outgoing, Some(&about)).await?)
            }
            Request::MailReturn { person, message, to, subject, drop_parts, text_bytes } => {
                let (text, _) = desk::attachments(&body, text_bytes, Vec::new())?;
                let subject = subject.unwrap_or_default();
                let outgoing = Outgoing { to, subject, text, ..Outgoing::default() };
                let about = About::Return { message, without: drop_parts };
                json(desk::send(node, &self.person(&person)?, outgoing, Some(&about)).await?)
            }
            Request::DraftSave { person, draft, content } => {
                let person = self.person(&person)?;
                json(desk::save_draft(node, &person, draft.as_deref(), content, &body).await?)
            }
            Request::DraftShow { person, draft } => {
                json(desk::show_draft(node, &self.person(&person)?, &draft)?)
            }
            Request::DraftSend { person, draft } => {
                json(desk::send_draft(node, &self.person(&person)?, &draft).await?)
            }
            Request::MailMove { person, message, folder } => {
                json(desk::shift(node, &self.person(&person)?, &message, &folder).await?)
            }
            Request::MailMark { person, message, read } => {
                json(desk::mark(node, &self.person(&person)?, &message, read).await?)
            }
            Request::MailThread { person, message } => {
                json(desk::thread(node, &self.person(&person)?, &message)?)
            }
            Request::MailSearch { person, words, folder, max } => {
                let (person, max) = (self.person(&person)?, max.min(LISTED_MAX));
                json(desk::search(node, &person, &words, folder.as_deref(), max)?)
            }
            Request::MailWatch { person, seen } => {
                json(desk::watch(node, &self.watchers, &self.person(&person)?, seen).await?)
            }
            Request::MailDelete { person, message } => {
                json(desk::delete(node, &self.person(&person)?, &message).await?)
            }
            Request::MailStatus { person, message } => {
                json(desk::status(node, &self.person(&person)?, &message)?)
            }
            _ => Err(Refused::new("that is nothing about mail")),
        };
        Ok((answer?, Vec::new()))
    }

    fn folders(&self, person: &str) -> Result<Vec<FolderView>, Refused> {
        Ok(folder::list(&self.node.store.read()?, &self.person(person)?.id)?)
    }
}
