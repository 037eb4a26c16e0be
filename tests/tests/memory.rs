//! What it takes to read what a partner says. A program of its own, for the nodes bring their allocator, and
//! this one counts.

#[path = "../src/fuzz/seeds/mod.rs"]
mod seeds;
#[path = "../src/fuzz/units.rs"]
mod units;

use std::collections::BTreeSet;

use shared::aggregate::{
    AggregateReport, Counts, DmarcCount, DmarcCounts, DmarcFound, DmarcPolicy, FailureOptions, Handling,
};
use shared::origin::{Mailbox, Origin};
use shared::store::Row;
use shared::store::sim::Dice;
use shared::unit::{self, Outbound, ToBig, ToEdge};

/// Units and rows that are cut and flipped (promises §5.7 T49).
const UNITS_MIN: usize = 200;
/// Others that are made of each sample, if there are so many.
const VARIANTS: usize = 8;
/// How often that is tried.
const TRIES: usize = 400;
/// Bytes of an error that says why nothing was read.
const ERROR_BYTES: u64 = 128;
/// Elements of the lists of the densest units.
const ELEMENTS: usize = 1000;

fn below(end: usize, dice: &mut Dice) -> usize {
    usize::try_from(dice.below(end as u64)).expect("below a length")
}

/// The samples, and what is a value of its own once some of their bytes are others. The first byte says of
/// which type, as for the fuzz target.
fn valid() -> Vec<Vec<u8>> {
    let mut dice = Dice::new(1);
    let mut all = Vec::new();
    for seed in seeds::seeds().into_iter().filter(|seed| seed.target == "units") {
        assert!(units::is_read(&seed.bytes), "{} is a unit", seed.name);
        let mut variants = BTreeSet::from([seed.bytes.clone()]);
        for _ in 0..TRIES {
            let mut bytes = seed.bytes.clone();
            for _ in 0..=dice.below(8) {
                let at = 1 + below(bytes.len() - 1, &mut dice);
                bytes[at] = dice.roll().to_le_bytes()[7];
            }
            if let Some(written) = units::rewritten(&bytes) {
                variants.insert([&bytes[..1], &written].concat());
            }
            if variants.len() > VARIANTS {
                break;
            }
        }
        all.extend(variants);
    }
    all
}

/// Bytes that are in use at once at most while these are read.
fn taken(bytes: &[u8]) -> u64 {
    allocation_counter::measure(|| {
        units::is_read(bytes);
    })
    .bytes_max
}

/// Reads bytes that are anything, or nothing.
fn bear(bytes: &[u8]) {
    units::units(bytes);
    let (taken, length) = (taken(bytes), bytes.len() as u64);
    assert!(taken <= 2 * length + ERROR_BYTES, "{taken} bytes in use for {length}: {bytes:?}");
}

#[test]
fn every_unit_is_borne_cut_anywhere_with_any_bit_flipped_and_wherever_it_lies() {
    let valid = valid();
    assert!(valid.len() >= UNITS_MIN, "{} units", valid.len());
    for unit in &valid {
        for end in 0..unit.len() {
            bear(&unit[..end]);
        }
        let mut flipped = unit.clone();
        // The first byte says which type the others are.
        for bit in 8..8 * flipped.len() {
            flipped[bit / 8] ^= 1 << (bit % 8);
            bear(&flipped);
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        let straight = units::rewritten(unit);
        assert!(straight.is_some(), "{unit:?}");
        for offset in 0..16 {
            let lying = [vec![0xff; offset], unit.clone()].concat();
            bear(&lying[offset..]);
            assert_eq!(units::rewritten(&lying[offset..]), straight, "{unit:?} at {offset}");
        }
    }
}

/// Lists of what takes least on the wire and most in memory.
fn dense() -> Vec<Vec<u8>> {
    let outbound = Outbound {
        message: [1; 16],
        revision: 0,
        wrapped_key: Vec::new(),
        size: 1000,
        reverse_path: None,
        recipients: vec![(0, String::new()); ELEMENTS],
        asked: Vec::new(),
        returns: None,
        envelope_id: None,
        tls_wish: shared::tls_wish::TlsWish::Unsaid,
        body_8bit: false,
        utf8_header: false,
        signatures: String::new(),
    };
    let found = DmarcFound {
        source: String::new(),
        disposition: Handling::None,
        dkim: false,
        spf: false,
        overridden: None,
        header_from: String::new(),
        envelope_from: String::new(),
        signatures: Vec::new(),
        spf_domain: String::new(),
        spf_of_helo: false,
        spf_result: String::new(),
    };
    let policy = DmarcPolicy {
        domain: String::new(),
        own: Handling::None,
        below: Handling::None,
        dkim_strict: false,
        spf_strict: false,
        failures: FailureOptions::Any,
    };
    let records = vec![DmarcCount { found, count: 1 }; ELEMENTS];
    let report = AggregateReport {
        id: [1; 16],
        domain: String::new(),
        begin: 0,
        to: Vec::new(),
        counts: Counts::Dmarc(DmarcCounts { policy, records }),
        left_out: 0,
    };
    let sample = seeds::seeds().into_iter().find(|seed| seed.name.ends_with("type-2")).expect("an origin");
    let mut origin = Origin::decode(&sample.bytes[1..]).expect("one that is valid");
    origin.to = vec![Mailbox { name: String::new(), address: String::new() }; ELEMENTS];
    origin.references = vec![String::new(); ELEMENTS];
    vec![
        [vec![0], unit::encode(&ToBig::AggregateReport(Box::new(report)))].concat(),
        [vec![1], unit::encode(&ToEdge::Outbound(outbound))].concat(),
        [vec![2], origin.encode()].concat(),
    ]
}

/// An empty text is 8 bytes on the wire and 24 in memory: no list of anything grows by more.
#[test]
fn the_densest_units_take_three_times_their_bytes() {
    for bytes in dense() {
        assert!(units::is_read(&bytes));
        let (taken, length) = (taken(&bytes), bytes.len() as u64);
        assert!(length > ELEMENTS as u64 * 8 && taken <= 3 * length, "{taken} bytes in use for {length}");
    }
}
