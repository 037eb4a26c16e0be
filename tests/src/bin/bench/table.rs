//! Rows of the Markdown tables.

use std::fmt;
use std::time::Duration;

use crate::measure::Cost;

/// Header of the table of single messages.
pub const ALONE: &str = "\
| one message alone | accept p50 / p99 ms | **end to end p50 / p99 ms** |
|---|---|---|";
/// Header of the table of the edge by itself.
pub const ACCEPT: &str = "\
| accept, link down | connections | **accepted/s** | p50 / p99 ms | CPU s/1000 edge | generator | peak MiB edge | backlog leaves at /s |
|---|---|---|---|---|---|---|---|";
/// Header of the table of the whole way.
pub const END_TO_END: &str = "\
| end to end | connections | accepted/s | **filed/s** | accept p50 / p99 ms | CPU s/1000 edge | big | generator | peak MiB edge | big |
|---|---|---|---|---|---|---|---|---|---|";

/// Single messages.
pub struct Alone {
    /// Octets.
    pub size: usize,
    /// When the 250 came, p50 and p99.
    pub accept: [Duration; 2],
    /// When it was filed, p50 and p99.
    pub filed: [Duration; 2],
}

/// The edge by itself.
pub struct Accept {
    /// Octets.
    pub size: usize,
    /// Connections.
    pub connections: usize,
    /// 250s a second.
    pub rate: f64,
    /// How long each took, p50 and p99.
    pub latency: [Duration; 2],
    /// What it cost.
    pub cost: Cost,
    /// Messages filed a second once big was back, its start included.
    pub backlog: f64,
}

/// The whole way.
pub struct EndToEnd {
    /// Octets.
    pub size: usize,
    /// Connections.
    pub connections: usize,
    /// 250s a second.
    pub accepted: f64,
    /// Messages filed a second, until the last one.
    pub filed: f64,
    /// How long each 250 took, p50 and p99.
    pub latency: [Duration; 2],
    /// What it cost.
    pub cost: Cost,
}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, accept, filed } = self;
        write!(f, "| {} | {} | {} |", kibibytes(*size), millis(accept), millis(filed))
    }
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, connections, rate, latency, cost, backlog } = self;
        let (size, latency) = (kibibytes(*size), millis(latency));
        let Cost { edge, generator, edge_peak, .. } = cost;
        write!(
            f,
            "| {size} | {connections} | {rate:.0} | {latency} | {edge:.2} | {generator:.2} | {edge_peak} | {backlog:.0} |"
        )
    }
}

impl fmt::Display for EndToEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, connections, accepted, filed, latency, cost } = self;
        let (size, latency) = (kibibytes(*size), millis(latency));
        let Cost { edge, big, generator, edge_peak, big_peak } = cost;
        write!(
            f,
            "| {size} | {connections} | {accepted:.0} | {filed:.0} | {latency} | {edge:.2} | {big:.2} \
             | {generator:.2} | {edge_peak} | {big_peak} |"
        )
    }
}

fn kibibytes(size: usize) -> String {
    format!("{} KiB", size / 1024)
}

fn millis([median, slow]: &[Duration; 2]) -> String {
    format!("{:.1} / {:.1}", median.as_secs_f64() * 1000.0, slow.as_secs_f64() * 1000.0)
}
