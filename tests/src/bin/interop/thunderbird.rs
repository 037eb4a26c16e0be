//! Thunderbird without a screen: it collects, leaves mail there, collects again, deletes, and sends.
//!
//! An AutoConfig script in its install folder drives it, so it runs from a copy of that folder.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::ledger::Place;
use tests::messages::{Letter, SHORT};
use tests::process::finish;

use crate::clients::{Setting, Way};
use crate::collect::{WAITING, fill_anew, left};
use crate::send::{crlf, outside, same};
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
    let sent = fill_anew(setting).await?;
    let (person, _) = setting.traveller();
    let to = format!("interop@{}", setting.ready.internet.domain);
    let token = setting.token();
    let letter = Letter { from: &person.address, to: &to, subject: "interoperation", token }.text(SHORT);
    let file = thunderbird.folder.join("message");
    std::fs::write(&file, &letter).map_err(|e| e.to_string())?;
    thunderbird.run(false, Some((file.as_path(), to.as_str()))).await?;
    let found = outside(&setting.ready.internet.mailbox_dir, &token.to_string()).await?;
    same(&letter, &to, Place::Outside, &found)?;
    // What stays there is not fetched again.
    for delete in [false, true] {
        let inbox = thunderbird.run(delete, None).await?;
        let text = std::fs::read(inbox).map_err(|e| e.to_string())?;
        // As the format has it, a line that begins so is quoted.
        let text = String::from_utf8_lossy(&crlf(&text)).replace("\r\n>From ", "\r\nFrom ");
        let all = sent.iter().all(|message| text.matches(&*String::from_utf8_lossy(message)).count() == 1);
        if !all || text.matches("\r\nX-UIDL: ").count() != WAITING {
            return Err(format!("not each message is there once:\n{text}"));
        }
    }
    match left(setting).await? {
        0 => Ok(()),
        left => Err(format!("{left} messages are left")),
    }
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

    /// Fetches, and sends a message to somebody; returns the inbox.
    async fn run(&self, delete: bool, message: Option<(&Path, &str)>) -> Result<PathBuf, String> {
        let (person, password) = self.setting.traveller();
        let edge = &self.setting.ready.edge;
        let (pop3, smtp) = match self.way {
            Way::Implicit => (edge.pop3s, edge.submissions),
            Way::Clear | Way::Upgrade => (edge.pop3, edge.submission),
        };
        let pem = std::fs::read_to_string(&self.setting.certificate).map_err(|e| e.to_string())?;
        let certificate: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let mut command = Command::new(self.folder.join("program/thunderbird-bin"));
        command.args(["--headless", "--no-remote", "--profile"]).arg(self.folder.join("profile"));
        command.env("HOME", self.folder.join("home"));
        for (name, value) in [
            ("HOST", pop3.ip().to_string()),
            ("POP3", pop3.port().to_string()),
            ("SMTP", smtp.port().to_string()),
            ("USER", person.name.clone()),
            ("PASSWORD", password.to_owned()),
            ("ADDRESS", person.address.clone()),
            ("WAY", format!("{:?}", self.way)),
            ("DELETE", delete.to_string()),
            ("CERTIFICATE", certificate),
        ] {
            command.env(format!("INTEROP_{name}"), value);
        }
        if let Some((file, to)) = message {
            command.env("INTEROP_MESSAGE", file).env("INTEROP_TO", to);
        }
        let done = finish(command, b"", ENDS_WITHIN).await.map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&done.stdout);
        let lines = || said.lines().filter_map(|line| line.strip_prefix("INTEROP "));
        match lines().find_map(|line| line.strip_prefix("inbox ")) {
            Some(inbox) if lines().any(|line| line == "done") => Ok(inbox.into()),
            _ => Err(format!("it did not come to its end: {said}")),
        }
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
