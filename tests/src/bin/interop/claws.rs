//! claws-mail on a screen that nobody sees: it collects, leaves mail there, collects again, deletes, and sends.
//!
//! A script writes its settings and asks it to collect or to send, as its command line can.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::process::finish;

use crate::clients::{Setting, Way};
use crate::driven::{self, Inbox, Outgoing};
use crate::send::crlf;
use crate::tally::Tally;

const SCRIPT: &str = include_str!("claws.py");
/// How long it may take from its start to its end.
const ENDS_WITHIN: Duration = Duration::from_secs(90);
/// What it runs in.
const NEEDED: [&str; 5] = ["claws-mail", "xvfb-run", "dbus-run-session", "openssl", "python3"];

/// Both ways to TLS.
pub async fn cases(setting: &Setting, tally: &mut Tally) {
    for (way, ports) in [(Way::Upgrade, "110 STLS and 587 STARTTLS"), (Way::Implicit, "995 and 465")] {
        let case = format!("POP3 and submission {ports}, claws-mail: keep, again, delete, send");
        if NEEDED.iter().all(|program| tally.wants(&case, program)) {
            tally.note(&case, round(setting, way).await);
        }
    }
}

async fn round(setting: &Setting, way: Way) -> Result<(), String> {
    let home = setting.scratch().map_err(|e| e.to_string())?;
    let home = home.as_path();
    driven::round(setting, home, async |delete, message| run(setting, way, home, delete, message).await).await
}

async fn run(
    setting: &Setting,
    way: Way,
    home: &Path,
    delete: bool,
    message: Outgoing<'_>,
) -> Result<Inbox, String> {
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).env("HOME", home).env("XDG_RUNTIME_DIR", home);
    driven::tell(&mut python, setting, way, delete, message);
    let done = finish(python, b"", ENDS_WITHIN).await.map_err(|e| e.to_string())?;
    if !done.status.success() {
        return Err(done.stderr);
    }
    collected(&home.join("Mail/inbox")).map_err(|e| e.to_string())
}

/// A file for each message, whose name is a number.
fn collected(folder: &Path) -> std::io::Result<Inbox> {
    let mut inbox = Inbox { text: String::new(), messages: 0 };
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if file.file_name().to_string_lossy().parse::<u32>().is_ok() {
            inbox.text += &String::from_utf8_lossy(&crlf(&std::fs::read(file.path())?));
            inbox.messages += 1;
        }
    }
    Ok(inbox)
}
