//! Debian's packages of MTAs that cannot be installed beside Postfix: they are unpacked into a folder, and run there with
//! folders and accounts of their own, which nothing else on this machine sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::process::finish;
use tests::wait::Trouble;

use crate::namespaces::Namespaces;

/// How long unpacking may take.
const UNPACK_WITHIN: Duration = Duration::from_secs(30);
/// The accounts that the packages would make when they are installed, and their numbers here.
const ACCOUNTS: [(&str, u32); 3] = [(EXIM, 61_001), ("opensmtpd", 61_002), ("opensmtpq", 61_003)];
/// Exim's account.
pub const EXIM: &str = "Debian-exim";
/// Mounts each of the first pairs of paths over the second ones, up to `--`, and becomes the rest of its words.
const MOUNT: &str =
    "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit; shift 2; done; shift; exec \"$@\"";

/// The package files of these names in `folder`, or the name of the first one that is not there.
pub fn files<'n>(folder: &Path, names: &[&'n str]) -> Result<Vec<PathBuf>, &'n str> {
    let there = || fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_of = |path: &Path, name: &str| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
    };
    names.iter().map(|name| there().find(|path| is_of(path, name)).ok_or(*name)).collect()
}

/// Unpacks them.
pub async fn unpack(files: &[PathBuf], into: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(into)?;
    for file in files {
        let mut command = Command::new("dpkg-deb");
        command.arg("--extract").arg(file).arg(into);
        let done = finish(command, b"", UNPACK_WITHIN).await?;
        if !done.status.success() {
            return Err(format!("{} cannot be unpacked: {}", file.display(), done.stderr).into());
        }
    }
    Ok(())
}

/// Makes the accounts known on the Internet.
pub fn add_accounts(namespaces: &Namespaces) -> std::io::Result<()> {
    let mut passwd = fs::read_to_string("/etc/passwd")?;
    let mut group = fs::read_to_string("/etc/group")?;
    for (name, number) in ACCOUNTS {
        passwd =
            without(&passwd, name) + &format!("{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n");
        group = without(&group, name) + &format!("{name}:x:{number}:\n");
    }
    namespaces.file("passwd", &passwd)?;
    namespaces.file("group", &group)
}

/// The number of such an account.
pub fn account(name: &str) -> Option<u32> {
    ACCOUNTS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn without(file: &str, name: &str) -> String {
    let others = file.lines().filter(|line| line.split(':').next() != Some(name));
    others.map(|line| format!("{line}\n")).collect()
}

/// `program`, to be run on the Internet, with each folder mounted where the program looks for it.
pub fn command(namespaces: &Namespaces, mounts: &[(PathBuf, &str)], program: &Path) -> Command {
    let mut command = namespaces.on_internet("sh");
    command.args(["-c", MOUNT, "sh"]);
    for (folder, at) in mounts {
        command.arg(folder).arg(at);
    }
    command.arg("--").arg(program);
    command
}
