//! Clients with a window, driven by a script: what they are told, and what they have to do.

use std::path::Path;
use std::process::Command;

use tests::ledger::Place;
use tests::messages::{Letter, SHORT};

use crate::clients::{Setting, Way};
use crate::collect::{WAITING, fill_anew, left};
use crate::send::{outside, same};

/// What a client has collected.
pub struct Inbox {
    /// All of it, with ends of line as they are on the wire.
    pub text: String,
    /// How many messages that is.
    pub messages: usize,
}

/// A message to send: a file, and to whom.
pub type Outgoing<'a> = Option<(&'a Path, &'a str)>;

/// Sends, collects and leaves mail there, collects again, deletes. `run` does one thing or two: it sends the message,
/// if there is one, and else collects, and deletes there or not.
pub async fn round(
    setting: &Setting,
    folder: &Path,
    run: impl AsyncFn(bool, Outgoing<'_>) -> Result<Inbox, String>,
) -> Result<(), String> {
    let sent = fill_anew(setting).await?;
    let (person, _) = setting.traveller();
    let to = format!("interop@{}", setting.ready.internet.domain);
    let token = setting.token();
    let letter = Letter { from: &person.address, to: &to, subject: "interoperation", token }.text(SHORT);
    let file = folder.join("message");
    std::fs::write(&file, &letter).map_err(|e| e.to_string())?;
    run(false, Some((file.as_path(), to.as_str()))).await?;
    let found = outside(&setting.ready.internet.mailbox_dir, &token.to_string()).await?;
    same(&letter, &to, Place::Outside, &found)?;
    // What stays there is not fetched again.
    for delete in [false, true] {
        let Inbox { text, messages } = run(delete, None).await?;
        let all = sent.iter().all(|message| text.matches(&*String::from_utf8_lossy(message)).count() == 1);
        if !all || messages != WAITING {
            return Err(format!("not each message is there once, but {messages}:\n{text}"));
        }
    }
    match left(setting).await? {
        0 => Ok(()),
        left => Err(format!("{left} messages are left")),
    }
}

/// Gives a script the account, and what it is to do, in its environment.
pub fn tell(command: &mut Command, setting: &Setting, way: Way, delete: bool, message: Outgoing<'_>) {
    let (person, password) = setting.traveller();
    let (pop3, smtp) = (setting.pop3(way), setting.submission(way));
    for (name, value) in [
        ("HOST", pop3.host),
        ("POP3", pop3.port.to_string()),
        ("SMTP", smtp.port.to_string()),
        ("USER", person.name.clone()),
        ("PASSWORD", password.to_owned()),
        ("ADDRESS", person.address.clone()),
        ("WAY", format!("{way:?}")),
        ("DELETE", delete.to_string()),
    ] {
        command.env(format!("INTEROP_{name}"), value);
    }
    if let Some((file, to)) = message {
        command.env("INTEROP_MESSAGE", file).env("INTEROP_TO", to);
    }
}
