//! The record of a long job: one line for each storm that ended, and what they come to together.
//!
//! ```text
//! seed 7, 50 rounds, 1234 accepted, lost 0, doubled 0, ghost 0, altered 0, undetermined 5, directory changes 90,
//!   undeliverable 3, repeated 1, faults 0
//! ```
//!
//! A storm that broke off is one line too, with its reason, and is a fault for good: starting the job
//! again does not undo it. Lines that begin with `#` are remarks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::count::Counts;

/// Between a storm's seed and why it broke off.
const BROKE_OFF: &str = " broke off: ";

/// A job's record on disk, and its sum.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    /// Storms so far.
    pub storms: u64,
    /// Their rounds.
    pub rounds: u32,
    /// What they come to.
    pub counts: Counts,
}

impl Record {
    /// Reads what there is; a job that has not begun has none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut record = Self { path: path.to_owned(), storms: 0, rounds: 0, counts: Counts::default() };
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#')) {
            record.take(line).ok_or_else(|| {
                let what = format!("line {number} of {} is not a storm's", path.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?;
        }
        Ok(record)
    }

    /// Appends a storm that ended.
    pub fn ended(&mut self, seed: u64, rounds: u32, counts: &Counts) -> io::Result<()> {
        let Counts { repeated, faults, .. } = counts;
        self.append(&format!("seed {seed}, {rounds} rounds, {counts}, repeated {repeated}, faults {faults}"))
    }

    /// Appends a storm that broke off.
    pub fn broke_off(&mut self, seed: u64, why: &str) -> io::Result<()> {
        self.append(&format!("seed {seed}{BROKE_OFF}{}", why.replace('\n', "; ")))
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_all()?;
        self.take(line).ok_or_else(|| io::Error::other("a storm's line cannot be read again"))
    }

    /// Adds a line to the sum.
    fn take(&mut self, line: &str) -> Option<()> {
        if line.contains(BROKE_OFF) {
            self.counts.faults += 1;
        } else {
            let (seed, rest) = line.strip_prefix("seed ")?.split_once(", ")?;
            let _: u64 = seed.parse().ok()?;
            let (rounds, rest) = rest.split_once(" rounds, ")?;
            let counts = Counts::read(rest)?;
            self.rounds = self.rounds.checked_add(rounds.parse().ok()?)?;
            self.counts.add(&counts);
        }
        self.storms += 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Reached;

    #[test]
    fn a_job_goes_on_where_it_was_and_forgets_no_fault() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("storm.log");
        let old = "seed 6, 0 rounds, 0 accepted, lost 0, doubled 0, ghost 0, altered 0, undetermined 0, repeated 0, \
                   faults 0";
        fs::write(&path, format!("# a remark\n{old}\n")).expect("written");
        let counts = Counts {
            accepted: 10,
            lost: 0,
            doubled: 1,
            undetermined: 3,
            repeated: 2,
            changes: 7,
            reached: Reached { hit: 4, missed: 1 },
            ..Counts::default()
        };
        let mut record = Record::open(&path).expect("read");
        record.ended(7, 50, &counts).expect("appended");
        record.ended(8, 25, &counts).expect("appended");
        record.broke_off(9, "big did not\nstart").expect("appended");

        let again = Record::open(&path).expect("read");
        assert_eq!((again.storms, again.rounds), (4, 75));
        let sum = Counts {
            accepted: 20,
            doubled: 2,
            undetermined: 6,
            repeated: 4,
            faults: 1,
            changes: 14,
            reached: Reached { hit: 8, missed: 2 },
            ..counts
        };
        assert_eq!((&again.counts, &record.counts), (&sum, &sum));
        assert!(!again.counts.is_clean());
    }

    #[test]
    fn a_line_that_is_torn_is_not_taken_for_a_storm() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("storm.log");
        fs::write(&path, "seed 7, 50 rounds, 10 accepted, lost 0, doub").expect("written");
        assert!(Record::open(&path).expect_err("torn").to_string().starts_with("line 1"));
    }
}
