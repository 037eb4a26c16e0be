//! What a person at a desk asks, answered.

use serde_json::Value;

use super::{Commands, LISTED_MAX, json};
use crate::desk::{self, Outgoing};
use crate::error::Refused;
use crate::folder;
use crate::request::{FolderView, Request};

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
                let outgoing = Outgoing { to, cc, subject, text, attachments };
                json(desk::send(node, &self.person(&person)?, outgoing).await?)
            }
            Request::MailReply { person, message, all, attachments, text_bytes, .. } => {
                let (text, _) = desk::attachments(&body, text_bytes, attachments)?;
                json(desk::reply(node, &self.person(&person)?, &message, all, text).await?)
            }
            Request::MailDelete { person, message } => {
                json(desk::delete(node, &self.person(&person)?, &message).await?)
            }
            Request::MailStatus { person, message } => {
                json(desk::status(node, &self.person(&person)?, &message)?)
            }
            _ => Err(Refused::new("big does not do this yet")),
        };
        Ok((answer?, Vec::new()))
    }

    fn folders(&self, person: &str) -> Result<Vec<FolderView>, Refused> {
        Ok(folder::list(&self.node.store.read()?, &self.person(person)?.id)?)
    }
}
