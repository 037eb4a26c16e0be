//! Topology files out of any text.

use shared::topology::{Topology, TopologyError, figure};

/// Columns of the figure of a pair.
const FIGURE_WIDTH_MAX: usize = 100;

/// The bytes as a file; what is not UTF-8 in them is replaced.
///
/// # Panics
/// If what is refused has no place in the text, no reason or no mend, or if what is valid has no figure.
pub fn topology(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Topology::parse(&text, "pair.toml") {
        Ok(topology) => {
            let figure = figure(&topology);
            let widest = figure.lines().map(|line| line.chars().count()).max();
            assert!(widest.is_some_and(|columns| columns <= FIGURE_WIDTH_MAX), "{figure}");
            assert!(!topology.site.domains.is_empty(), "a site without a domain");
            assert_eq!(Topology::parse(&text, "another.toml").ok(), Some(topology));
        }
        Err(TopologyError::Refused(refusal)) => {
            let lines: Vec<_> = text.split('\n').collect();
            let line = refusal.line.checked_sub(1).and_then(|index| lines.get(index));
            let columns = line.expect("a line of the text").chars().count();
            assert!((1..=columns + 1).contains(&refusal.column), "{refusal}");
            assert!(!refusal.reason.is_empty() && !refusal.mend.is_empty(), "{refusal}");
            let place = format!("pair.toml:{}:{}: ", refusal.line, refusal.column);
            assert!(refusal.to_string().starts_with(&place), "{refusal}");
        }
        Err(error) => panic!("a text is not a file: {error}"),
    }
}
