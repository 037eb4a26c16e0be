//! Thunderbird without a screen: it collects, leaves mail there, collects again, deletes, and sends.
//!
//! An AutoConfig script in its install folder drives it, so it runs from a copy of that folder.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::process::finish;

use crate::clients::{Setting, Way};
use crate::driven::{self, Inbox, Outgoing};
use crate::send::crlf;
use crate::tally::Tally;

const INSTALLED: &str = "/usr/lib/thunderbird";
const SCRIPT: &str = include_str!("thunderbird.js");
const PREFERENCES: &str = "pref(\"general.config.filename\", \"interop.cfg\");
pref(\"general.config.obscure_value\", 0);
pref(\"general.config.sandbox_enabled\", false);
pref(\"browser.dom.window.dump.enabled\", true);
";
/// How long it may take from its start to its end.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Both ways to TLS.
pub async fn cases(setting: &Setting, tally: &mut Tally) {
    for (way, ports) in [(Way::Upgrade, "110 STLS and 587 STARTTLS"), (Way::Implicit, "995 and 465")] {
        let case = format!("POP3 and submission {ports}, Thunderbird: keep, again, delete, send");
        if tally.wants(&case, "thunderbird") {
            tally.note(&case, round(setting, way).await);
        }
    }
}

async fn round(setting: &Setting, way: Way) -> Result<(), String> {
    let thunderbird = Thunderbird::install(setting, way).map_err(|e| e.to_string())?;
    let run = async |delete, message: Outgoing<'_>| thunderbird.run(delete, message).await;
    driven::round(setting, &thunderbird.folder, run).await
}

/// A copy of the program with a profile of its own.
struct Thunderbird<'s> {
    setting: &'s Setting,
    way: Way,
    folder: PathBuf,
}

impl<'s> Thunderbird<'s> {
    fn install(setting: &'s Setting, way: Way) -> io::Result<Self> {
        let folder = setting.scratch()?;
        copy(Path::new(INSTALLED), &folder.join("program"))?;
        std::fs::write(folder.join("program/defaults/pref/interop.js"), PREFERENCES)?;
        std::fs::write(folder.join("program/interop.cfg"), SCRIPT)?;
        for name in ["profile", "home"] {
            std::fs::create_dir(folder.join(name))?;
        }
        Ok(Self { setting, way, folder })
    }

    /// Fetches, and sends a message to somebody; returns what is in the inbox.
    async fn run(&self, delete: bool, message: Outgoing<'_>) -> Result<Inbox, String> {
        let pem = std::fs::read_to_string(&self.setting.authority).map_err(|e| e.to_string())?;
        let certificate: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let mut command = Command::new(self.folder.join("program/thunderbird-bin"));
        command.args(["--headless", "--no-remote", "--profile"]).arg(self.folder.join("profile"));
        command.env("HOME", self.folder.join("home")).env("INTEROP_CERTIFICATE", certificate);
        driven::tell(&mut command, self.setting, self.way, delete, message);
        let done = finish(command, b"", ENDS_WITHIN).await.map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&done.stdout);
        let lines = || said.lines().filter_map(|line| line.strip_prefix("INTEROP "));
        let inbox = match lines().find_map(|line| line.strip_prefix("inbox ")) {
            Some(inbox) if lines().any(|line| line == "done") => inbox,
            _ => return Err(format!("it did not come to its end: {said}")),
        };
        let text = std::fs::read(inbox).map_err(|e| e.to_string())?;
        // As the format has it, a line that begins so is quoted.
        let text = String::from_utf8_lossy(&crlf(&text)).replace("\r\n>From ", "\r\nFrom ");
        Ok(Inbox { messages: text.matches("\r\nX-UIDL: ").count(), text })
    }
}

/// A copy of a folder, with what its links lead to.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let name = entry?.file_name();
        let (from, to) = (from.join(&name), to.join(&name));
        match std::fs::metadata(&from) {
            Ok(found) if found.is_dir() => copy(&from, &to)?,
            Ok(_) => std::fs::copy(&from, &to).map(drop)?,
            // A link that leads nowhere.
            Err(_) => {}
        }
    }
    Ok(())
}
