//! What the desk does outside of its screen: files of the person's, and the person's own editor.
//!
//! All of it with the rights of who runs the desk: the node writes no file for it.

use std::env;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use crate::cli::{mail, save};

/// The name of a file in which a text is kept that could not be kept as a draft.
const KEPT: &str = "sallypost-unsent.txt";
/// The name under which a text is edited.
const EDITED: &str = "message.txt";

/// The person's own editor, as they call it.
pub(super) fn editor() -> Option<String> {
    ["VISUAL", "EDITOR"]
        .into_iter()
        .filter_map(|name| env::var(name).ok())
        .find(|editor| !editor.trim().is_empty())
}

/// Lets `editor` change a text of at most `size_max` octets, in a file for the person alone, in a folder for
/// the person alone, which goes with everything that the editor leaves in it. As usual the editor is a line
/// for a shell, to which the file is added.
///
/// # Errors
/// Why the text is as it was.
pub(super) fn edit(editor: &str, text: &str, size_max: u64) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the text cannot be given to an editor: {error}");
    let mut folder = tempfile::Builder::new();
    let folder =
        folder.prefix("sallypost-").permissions(Permissions::from_mode(0o700)).tempdir().map_err(failed)?;
    let path = folder.path().join(EDITED);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    // Editors expect a last line to be ended.
    let end = if text.ends_with('\n') { "" } else { "\n" };
    file.write_all(format!("{text}{end}").as_bytes()).map_err(failed)?;
    drop(file);
    let mut shell = Command::new("/bin/sh");
    let ended = shell.arg("-c").arg(format!("exec {editor} \"$1\"")).arg("sh").arg(&path).status();
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("{editor} ended with {status}: the text is as it was")),
        Err(error) => return Err(format!("{editor}: {error}")),
    }
    let edited = fs::File::open(&path).and_then(|file| mail::read_at_most(file, size_max));
    let edited = edited.map_err(|error| format!("what {editor} left cannot be read: {error}"))?;
    String::from_utf8(edited).map_err(|_| format!("what {editor} left is not UTF-8: the text is as it was"))
}

/// A path as typed; `~/` begins one at home.
fn path(typed: &str) -> PathBuf {
    match (typed.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => typed.into(),
    }
}

/// Reads a file that is to be attached: its name, and what is in it.
pub(super) fn read(typed: &str, size_max: u64) -> Result<(String, Vec<u8>), String> {
    mail::attachment(&path(typed), size_max)
}

/// Saves octets as a new file in a folder; says where.
pub(super) fn save(folder: &str, name: &str, octets: &[u8]) -> Result<String, String> {
    let saved = save::Folder::open(&path(folder))?.save(name, octets)?;
    Ok(saved.display().to_string())
}

/// Keeps a text in a new file at the person's home, or where they are; says where.
pub(super) fn keep(text: &str) -> Result<String, String> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let kept = save::Folder::open(&home).and_then(|folder| folder.save(KEPT, text.as_bytes()));
    kept.or_else(|_| save::Folder::open(".".as_ref())?.save(KEPT, text.as_bytes()))
        .map(|path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_gets_a_file_of_the_persons_own_and_leaves_nothing() {
        let probe = tempfile::tempdir().expect("a folder");
        let seen = probe.path().join("seen");
        let script = probe.path().join("editor");
        let text = format!(
            "#!/bin/sh\n{{ stat -c %a \"$2\"; stat -c %a \"$(dirname \"$2\")\"; echo \"$2\"; cat \"$2\"; }} > {}\n\
             echo \"$1\" > \"$2\"; touch \"$2~\"\n",
            seen.display()
        );
        fs::write(&script, text).expect("a script");
        let editor = format!("sh {} changed", script.display());
        assert_eq!(edit(&editor, "before", 100), Ok("changed\n".into()));
        let seen = fs::read_to_string(seen).expect("it ran");
        let lines: Vec<_> = seen.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("600", "700", "before"));
        assert!(!PathBuf::from(lines[2]).parent().expect("a folder").exists());
        assert!(edit("false", "before", 100).expect_err("it fails").ends_with("the text is as it was"));
        assert!(edit(&editor, "before", 3).expect_err("too long").contains("more than a message may hold"));
    }
}
