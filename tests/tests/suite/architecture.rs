//! ARCHITECTURE.md promises that each row of its tables names its test: those tests are there, and no threat is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tests::wait::Trouble;

/// Threats that promises §5 numbers.
const THREATS: u32 = 66;
/// Figures that promises §6 numbers.
const FIGURES: u32 = 29;
/// Programs that show what no single test does.
const PROGRAMS: [&str; 3] = ["storm", "sim", "images"];
/// Tests that the tables name at least: a table that is not found would name none.
const NAMED_MIN: usize = 100;

/// The text of a section, by its heading.
fn section<'a>(text: &'a str, heading: &str) -> Result<&'a str, Trouble> {
    let begin = text.find(&format!("\n## {heading}\n")).ok_or_else(|| format!("no section {heading}"))? + 1;
    let end = text[begin..].find("\n## ").map_or(text.len(), |end| begin + end);
    Ok(&text[begin..end])
}

/// What stands between backquotes and can be a test's name; of a path, its last part.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let last = quoted.map(|name| name.rsplit("::").next().unwrap_or(name));
    last.filter(|name| {
        name.contains('_') && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

/// Names of all functions under `folder`.
fn functions(folder: &Path, found: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            functions(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path)?;
            let after = text.split("fn ").skip(1);
            found.extend(after.filter_map(|rest| rest.split_once('(').map(|(name, _)| name.to_owned())));
        }
    }
    Ok(())
}

#[test]
fn every_test_that_the_tables_name_is_there() -> Result<(), Trouble> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let mut there = BTreeSet::new();
    for folder in
        ["shared/src", "link-proto/src", "edge-node/src", "big-node/src", "tests/src", "tests/tests"]
    {
        functions(&root.join(folder), &mut there)?;
    }
    let promises = section(&text, "Promises, and what shows each")?;
    let revised = section(&text, "A revision, wherever its message is")?;
    let crashes = section(&text, "Crash table")?;
    let named: BTreeSet<&str> = [crashes, revised, promises].into_iter().flat_map(names).collect();
    assert!(named.len() >= NAMED_MIN, "{} tests are named", named.len());
    let mut before = false;
    for row in crashes.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cell = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default().trim();
        before = match cell {
            "the same" => before,
            cell => PROGRAMS.iter().any(|program| cell.contains(program)) || names(cell).next().is_some(),
        };
        assert!(before, "nothing shows: {row}");
    }
    let gone: Vec<_> = named.iter().filter(|name| !there.contains(**name)).collect();
    assert!(gone.is_empty(), "named, and not there: {gone:?}");

    let mut rows = BTreeSet::new();
    for row in promises.lines().filter_map(|line| line.strip_prefix("| T")) {
        let threats = row.split('|').next().unwrap_or_default();
        let number = |text: &str| text.trim().trim_start_matches('T').parse::<u32>();
        for part in threats.split(',') {
            match part.split_once('–') {
                Some((from, to)) => rows.extend(number(from)?..=number(to)?),
                None => drop(rows.insert(number(part)?)),
            }
        }
    }
    assert_eq!(rows, (1..=THREATS).collect::<BTreeSet<_>>(), "each threat has its row");
    let figures =
        promises.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok());
    assert_eq!(figures.collect::<Vec<u32>>(), (1..=FIGURES).collect::<Vec<_>>(), "each figure has its row");
    Ok(())
}
