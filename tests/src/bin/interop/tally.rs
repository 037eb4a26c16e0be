//! What passed, what failed, and what is not here.

use std::collections::BTreeSet;
use std::fmt;

use tests::process::installed;

/// The counts of a run, printed line by line as it goes.
#[derive(Debug)]
pub struct Tally {
    only: String,
    passed: usize,
    failed: usize,
    absent: BTreeSet<String>,
}

impl Tally {
    /// Nothing yet. Cases whose line does not contain `only` are left out.
    pub fn new(only: &str) -> Self {
        Self { only: only.to_owned(), passed: 0, failed: 0, absent: BTreeSet::new() }
    }

    /// Whether `case` is to be run: it is wanted, and `program` is installed. A program that is not
    /// is named once.
    pub fn wants(&mut self, case: &str, program: &str) -> bool {
        self.is_wanted(case) && self.has(program)
    }

    /// Whether `case` is wanted.
    pub fn is_wanted(&self, case: &str) -> bool {
        case.contains(&self.only)
    }

    /// Whether `program` is installed. One that is not is named once.
    pub fn has(&mut self, program: &str) -> bool {
        let here = installed(program);
        if !here && self.absent.insert(program.to_owned()) {
            println!("not here: {program}");
        }
        here
    }

    /// Says how a case went.
    pub fn note(&mut self, case: &str, verdict: Result<(), String>) {
        match verdict {
            Ok(()) => {
                self.passed += 1;
                println!("ok        {case}");
            }
            Err(reason) => self.failed(case, &reason),
        }
    }

    /// Says that a case failed.
    pub fn failed(&mut self, case: &str, reason: &str) {
        self.failed += 1;
        println!("FAILED    {case}: {}", reason.trim_end().replace('\n', "\n          "));
    }

    /// Says that what a case needs is not here.
    pub fn absent(&mut self, what: &str) {
        if self.absent.insert(what.to_owned()) {
            println!("not here: {what}");
        }
    }

    /// Whether nothing failed, and something passed.
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interop: {} passed, {} failed, {} not here", self.passed, self.failed, self.absent.len())
    }
}
