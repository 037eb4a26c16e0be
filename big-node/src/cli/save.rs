//! Files that a command writes, in a folder that a person chose and under names that strangers chose.
//!
//! A file is complete under its name or not there: it is written under a name of our own, synced, and
//! then given its name, which takes nothing's place. Everything is done within the folder as it was
//! opened, so that a name, made safe before, leads nowhere else. Files are their owner's alone.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use shared::id::MessageId;

/// Files of one name in a folder, numbered from the second on.
const NUMBER_MAX: u32 = 999;
/// Octets of an ending, with its full stop; what is longer says nothing of what a file is.
const ENDING_MAX: usize = 16;

/// A folder to save in.
#[derive(Debug)]
pub(super) struct Folder {
    folder: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder that exists.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(folder) => Ok(Self { folder, path: path.into() }),
            Err(Errno::NOENT) => Err(format!("{}: there is no such folder; make it first", path.display())),
            Err(Errno::NOTDIR) => Err(format!("{} is not a folder", path.display())),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Writes a new file called `name`, or if that is taken `name (2)` and so on; gives its path.
    pub(super) fn save(&self, name: &str, octets: &[u8]) -> Result<PathBuf, String> {
        let failed = |error: io::Error| format!("{}: {error}", self.path.join(name).display());
        let unnamed = Unnamed::write(&self.folder, octets).map_err(failed)?;
        for number in 1..=NUMBER_MAX {
            let candidate = numbered(name, number);
            match unnamed.name(&candidate) {
                Err(Errno::EXIST) => {}
                Ok(()) => {
                    drop(unnamed);
                    rustix::fs::fsync(&self.folder).map_err(|error| failed(error.into()))?;
                    return Ok(self.path.join(candidate));
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        let text = "there are too many files of that name: save into another folder";
        Err(format!("{}: {text}", self.path.join(name).display()))
    }
}

/// Writes the new file `path`; leaves one that exists as it is.
pub(super) fn save_as(path: &Path, octets: &[u8]) -> Result<(), String> {
    let name = path.file_name().ok_or_else(|| format!("{} is no name for a file", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = Folder::open(folder)?;
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let unnamed = Unnamed::write(&folder.folder, octets).map_err(failed)?;
    unnamed.name(name).map_err(|error| match error {
        Errno::EXIST => format!("{} exists and is left as it is: choose another name", path.display()),
        error => failed(error.into()),
    })?;
    drop(unnamed);
    rustix::fs::fsync(&folder.folder).map_err(|error| failed(error.into()))
}

/// A file that is written and has no name yet that anybody would look for; removed unless it is given one.
struct Unnamed<'a> {
    folder: &'a OwnedFd,
    name: String,
}

impl<'a> Unnamed<'a> {
    fn write(folder: &'a OwnedFd, octets: &[u8]) -> io::Result<Self> {
        let name = format!("sallypost-{}.part", MessageId::generate());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        let unnamed = Self { folder, name };
        let mut file = File::from(file);
        file.write_all(octets)?;
        file.sync_all()?;
        Ok(unnamed)
    }

    /// Gives it a name that nothing has: no file, and no link to one.
    fn name(&self, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
        let own = self.name.as_str();
        match rustix::fs::renameat_with(self.folder, own, self.folder, name, RenameFlags::NOREPLACE) {
            // What some network file systems cannot do; a second name they can give.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(self.folder, own, self.folder, name, AtFlags::empty())
            }
            renamed => renamed,
        }
    }
}

impl Drop for Unnamed<'_> {
    fn drop(&mut self) {
        // Gone if it was renamed. What cannot be removed is left, and its name says what it is.
        let _ = rustix::fs::unlinkat(self.folder, self.name.as_str(), AtFlags::empty());
    }
}

/// The name with a number before its ending; the first has none.
fn numbered(name: &str, number: u32) -> String {
    let ending = name.rfind('.').filter(|at| *at > 0 && name.len() - at <= ENDING_MAX);
    let (stem, ending) = ending.map_or((name, ""), |at| name.split_at(at));
    if number == 1 { name.to_owned() } else { format!("{stem} ({number}){ending}") }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_for_its_owner_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.pdf");
        save_as(&path, b"first").expect("saved");
        let refusal = save_as(&path, b"second").expect_err("it exists");
        assert!(refusal.ends_with("exists and is left as it is: choose another name"), "{refusal}");
        assert_eq!(fs::read(&path).expect("the file"), b"first");
        assert_eq!(path.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["report.pdf"]);
    }

    #[test]
    fn names_that_are_taken_are_numbered_and_links_are_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        let victim = outside.path().join("victim");
        symlink(&victim, folder.path().join("a.txt")).expect("a link to nothing");
        fs::create_dir(folder.path().join("a (2).txt")).expect("a folder");
        let target = Folder::open(folder.path()).expect("opens");
        for (octets, expected) in [(b"one", "a (3).txt"), (b"two", "a (4).txt")] {
            let saved = target.save("a.txt", octets).expect("saved");
            assert_eq!(saved, folder.path().join(expected));
            assert_eq!(fs::read(&saved).expect("the file"), octets);
            assert_eq!(saved.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
        }
        assert!(!victim.exists() && folder.path().join("a.txt").is_symlink());
        assert_eq!(names(folder.path()), ["a (2).txt", "a (3).txt", "a (4).txt", "a.txt"]);
    }

    #[test]
    fn numbers_come_before_endings() {
        for (name, expected) in [
            ("a.tar.gz", "a.tar (2).gz"),
            ("a", "a (2)"),
            ("a. long, long ending", "a. long, long ending (2)"),
            ("日本.txt", "日本 (2).txt"),
        ] {
            assert_eq!(numbered(name, 2), expected);
        }
    }

    #[test]
    fn a_folder_that_is_none_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let absent = folder.path().join("absent");
        assert!(
            Folder::open(&absent).expect_err("absent").ends_with("there is no such folder; make it first")
        );
        fs::write(&absent, b"").expect("a file");
        assert!(Folder::open(&absent).expect_err("a file").ends_with("is not a folder"));
        assert!(save_as(Path::new("/"), b"").is_err());
    }
}
