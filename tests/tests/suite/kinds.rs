//! Whoever adds a kind of unit is told where else it belongs: to what it can reveal, and to what is fuzzed. What the
//! simulation and the storm play is found out there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use shared::unit::decode;
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
