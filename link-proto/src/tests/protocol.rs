//! PROTOCOL.md says what the code does: names, numbers and limits are held against the sources.

use std::path::{Path, PathBuf};

use super::hostile::samples;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// PROTOCOL.md, with tables as a formatter may align them brought to one blank.
pub(super) fn document() -> String {
    let text = std::fs::read_to_string(here().join("docs/PROTOCOL.md")).unwrap();
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Every line of the crate's own sources, but for tests and for the congestion controller, which is a
/// node's own affair.
fn lines() -> Vec<String> {
    let mut folders = vec![here().join("src")];
    let mut lines = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if stem == "tests" || stem == "congestion" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(path).unwrap();
                lines.extend(text.lines().map(|line| line.trim().to_owned()));
            }
        }
    }
    lines
}

/// Name and value of a line that defines a number or a time.
fn constant(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once("const ")?.1.split_once(": ")?;
    let (kind, value) = rest.strip_suffix(';')?.split_once(" = ")?;
    let counted = ["usize", "u8", "u16", "u32", "u64", "i32", "f64", "Duration", "VarInt"].contains(&kind);
    counted.then_some((name, value))
}

#[test]
fn every_limit_has_its_row_and_its_value() {
    let (document, lines) = (document(), lines());
    let constants: Vec<_> = lines.iter().filter_map(|line| constant(line)).collect();
    assert!(constants.len() > 50, "{constants:?}");
    for (name, value) in constants {
        let row = format!("| `{name}` | `{value}` |");
        assert!(document.contains(&row), "PROTOCOL.md has no row `{row}`");
    }
}

#[test]
fn every_numbered_name_has_its_row() {
    let (document, lines) = (document(), lines());
    let numbered = lines.iter().filter_map(|line| {
        let (name, number) = line.strip_suffix(',')?.split_once(" = ")?;
        let named = name.chars().all(char::is_alphanumeric) && name.starts_with(char::is_uppercase);
        (named && number.parse::<u8>().is_ok() && name != "Hello").then_some((name, number))
    });
    let numbered: Vec<_> = numbered.collect();
    assert!(numbered.len() >= 12, "refusals, stops and lanes: {numbered:?}");
    for (name, number) in numbered {
        let row = format!("| {number} | {name} |");
        assert!(document.contains(&row), "PROTOCOL.md has no row `{row}`");
    }
}

#[test]
fn every_frame_has_its_row_and_its_limit() {
    let (document, lines) = (document(), lines());
    for frame in samples() {
        let (name, number) = (frame.name(), frame.encode().concat()[0]);
        let quoted = format!("\"{name}\", ");
        let row = lines.iter().find(|line| line.starts_with("(Self::") && line.contains(&quoted)).unwrap();
        let limit = row.split_once(&quoted).unwrap().1.trim_end_matches("),");
        let row = format!("| {number} | {name} | `{limit}` |");
        assert!(document.contains(&row), "PROTOCOL.md has no row `{row}`");
    }
    assert_eq!(lines.iter().filter(|line| line.starts_with("(Self::")).count(), samples().len());
}
