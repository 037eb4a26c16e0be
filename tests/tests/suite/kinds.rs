//! Whoever adds a kind of unit is told where else it belongs: to what it can reveal, to what is fuzzed, and to the bytes
//! that are kept. What the simulation and the storm play is found out there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use shared::store::Row;
use shared::unit::{ToBig, ToEdge, Welcome, decode};
use tests::fuzz::seeds::seeds;
use tests::kinds::{TO_BIG, all, to_big, to_edge};
use tests::wait::Trouble;

#[test]
fn every_kind_of_unit_from_an_edge_has_its_row_in_the_exposure_table() -> Result<(), Trouble> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../link-proto/docs/PROTOCOL.md"));
    let document = fs::read_to_string(path)?;
    let section =
        document.split("### What a unit from an edge can make big reveal").nth(1).ok_or("no table")?;
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let named: BTreeSet<_> =
        rows.skip(2).filter_map(|row| row.trim_matches('|').split('|').next()).map(str::trim).collect();
    assert_eq!(named, TO_BIG.iter().map(|kind| kind.name).collect());
    Ok(())
}

#[test]
fn every_kind_of_unit_is_fuzzed_from_a_seed() {
    let kind = |bytes: &[u8]| match bytes.split_first()? {
        // The numbers are those of the types that the target reads.
        (0, head) => decode(head).as_ref().map(to_big),
        (1, head) => decode(head).as_ref().map(to_edge),
        _ => None,
    };
    let seeds = seeds().into_iter().filter(|seed| seed.target == "units");
    let there: BTreeSet<_> = seeds.filter_map(|seed| kind(&seed.bytes)).map(|kind| kind.name).collect();
    assert_eq!(there, all().map(|kind| kind.name).collect());
}

/// The bytes of heads, and of what the edge says when it is paired: version and kind, then hex. A kind has a line for each
/// of its seeds. From the first release on what was sent once is understood for ever; before it a version that nobody has
/// may change, and these lines with it.
const HEADS: &str = include_str!("heads.hex");

/// The kind of a head from a seed, and its line in [`HEADS`].
fn line(bytes: &[u8]) -> Option<(&'static str, String)> {
    let (number, head) = bytes.split_first()?;
    // The numbers are those of the types that the target reads.
    let (version, name) = match number {
        0 => (ToBig::VERSION, to_big(&decode(head)?).name),
        1 => (ToEdge::VERSION, to_edge(&decode(head)?).name),
        5 => decode(head).map(|Welcome { .. }| (Welcome::VERSION, "Welcome"))?,
        _ => return None,
    };
    let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
    Some((name, format!("v{version}-{name} {hex}")))
}

#[test]
fn every_head_keeps_its_bytes() {
    let seeds = seeds().into_iter().filter(|seed| seed.target == "units");
    let (names, written): (BTreeSet<_>, Vec<_>) = seeds.filter_map(|seed| line(&seed.bytes)).unzip();
    assert_eq!(names, all().map(|kind| kind.name).chain(["Welcome"]).collect(), "each kind has a line");
    let kept: Vec<_> = HEADS.lines().collect();
    let gone: Vec<_> = kept.iter().filter(|line| !written.iter().any(|other| other == *line)).collect();
    let new: Vec<_> = written.iter().filter(|line| !kept.contains(&line.as_str())).collect();
    assert!(gone.is_empty() && new.is_empty(), "kept is\n{gone:#?}\nbut written is\n{new:#?}");
}
