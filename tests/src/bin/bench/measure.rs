//! The measurements: what is timed, and what is not.

use std::time::{Duration, Instant};

use tests::ask;
use tests::client::load::Report;
use tests::client::smtp::SmtpClient;
use tests::proc::{Usage, forget_peak, usage};
use tests::process::Node;
use tests::site::{OUTSIDE, Site};

use crate::load::{message, person, send};
use crate::table::{Accept, Alone, EndToEnd};
use crate::{Failure, PEOPLE};

/// Messages of the latency measurement, after as many as there are people to warm up.
const ALONE_MESSAGES: u64 = 200;
/// The pause before each of them.
const ALONE_PAUSE: Duration = Duration::from_millis(5);
/// The pause between two looks for a single message, and for many.
const LOOK_CLOSELY: Duration = Duration::from_micros(200);
const LOOK: Duration = Duration::from_millis(5);
/// How long the warm-up before each load sends.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long mail may take to be filed after the last 250.
const FILED_WITHIN: Duration = Duration::from_secs(120);

/// What a measurement cost: CPU seconds for 1,000 messages, and the most memory, in MiB.
pub struct Cost {
    /// Edge's CPU.
    pub edge: f64,
    /// Big's CPU.
    pub big: f64,
    /// This program's CPU.
    pub generator: f64,
    /// Edge's memory.
    pub edge_peak: u64,
    /// Big's memory.
    pub big_peak: u64,
}

/// The pair that is measured.
pub struct Bench {
    site: Site,
    seconds: Duration,
    per_connection: usize,
}

impl Bench {
    /// Measures `site`, each load for `seconds`.
    pub fn new(site: Site, seconds: Duration, per_connection: usize) -> Self {
        Self { site, seconds, per_connection }
    }

    /// One message at a time.
    pub async fn alone(&mut self, size: usize) -> Result<Alone, Failure> {
        let (mut accept, mut filed) = (Vec::new(), Vec::new());
        for number in 0..PEOPLE as u64 + ALONE_MESSAGES {
            let took = self.one(number, size).await?;
            if number >= PEOPLE as u64 {
                accept.push(took.0);
                filed.push(took.1);
            }
            tokio::time::sleep(ALONE_PAUSE).await;
        }
        Ok(Alone { size, accept: percentiles(accept), filed: percentiles(filed) })
    }

    /// Sends one message over a connection of its own: when its 250 came, and when it was filed.
    async fn one(&self, number: u64, size: usize) -> Result<(Duration, Duration), Failure> {
        let message = message(number, size);
        let before = self.filed().await?;
        let start = Instant::now();
        let mut client = SmtpClient::ready(self.smtp(), None).await?;
        client.send(&format!("sender@{OUTSIDE}"), &[&person(number)], &message).await?;
        let accepted = start.elapsed();
        self.until_filed(before + 1, LOOK_CLOSELY).await?;
        let filed = start.elapsed();
        client.quit().await?;
        Ok((accepted, filed))
    }

    /// The edge by itself, and then the backlog.
    pub async fn accept(&mut self, connections: usize, size: usize) -> Result<Accept, Failure> {
        self.warm_up(connections, size).await?;
        let before = self.filed().await?;
        self.site.nodes.stop(Node::Big).await?;
        let edge = self.site.nodes.edge_ready().pid;
        forget_peak(edge)?;
        let (edge_before, own_before) = (usage(edge)?, usage(std::process::id())?);
        let report = self.load(connections, size, self.seconds).await?;
        let (edge_after, own_after) = (usage(edge)?, usage(std::process::id())?);

        let back = Instant::now();
        self.site.nodes.start_big().await?;
        self.until_filed(before + report.accepted, LOOK).await?;
        let backlog = report.accepted as f64 / back.elapsed().as_secs_f64();
        let cost = Cost {
            edge: per_thousand(edge_before, edge_after, &report),
            big: 0.0,
            generator: per_thousand(own_before, own_after, &report),
            edge_peak: edge_after.peak_memory >> 20,
            big_peak: 0,
        };
        let latency = latency(&report);
        Ok(Accept { size, connections, rate: report.rate(), latency, cost, backlog })
    }

    /// The whole way.
    pub async fn end_to_end(&mut self, connections: usize, size: usize) -> Result<EndToEnd, Failure> {
        self.warm_up(connections, size).await?;
        let (edge, big) = (self.site.nodes.edge_ready().pid, self.site.nodes.big_ready().pid);
        forget_peak(edge)?;
        forget_peak(big)?;
        let measured = [edge, big, std::process::id()];
        let before = self.filed().await?;
        let usages_before = usages(measured)?;
        let start = Instant::now();
        let report = self.load(connections, size, self.seconds).await?;
        self.until_filed(before + report.accepted, LOOK).await?;
        let took = start.elapsed();
        let [before, after] = [usages_before, usages(measured)?];
        let cost = Cost {
            edge: per_thousand(before[0], after[0], &report),
            big: per_thousand(before[1], after[1], &report),
            generator: per_thousand(before[2], after[2], &report),
            edge_peak: after[0].peak_memory >> 20,
            big_peak: after[1].peak_memory >> 20,
        };
        let (accepted, latency) = (report.rate(), latency(&report));
        let filed = report.accepted as f64 / took.as_secs_f64();
        Ok(EndToEnd { size, connections, accepted, filed, latency, cost })
    }

    async fn warm_up(&self, connections: usize, size: usize) -> Result<(), Failure> {
        let before = self.filed().await?;
        let report = self.load(connections, size, WARM_UP).await?;
        self.until_filed(before + report.accepted, LOOK).await
    }

    /// A load of which every message must be accepted.
    async fn load(&self, connections: usize, size: usize, seconds: Duration) -> Result<Report, Failure> {
        let report = send(self.smtp(), connections, self.per_connection, size, seconds).await;
        let Report { accepted, refused, in_doubt, not_sent, .. } = report;
        if accepted == 0 || refused + in_doubt + not_sent > 0 {
            let state = self.site.nodes.topology.state.display();
            return Err(format!(
                "of a load over {connections} connections {accepted} messages were accepted, {refused} \
                 refused, {in_doubt} in doubt, {not_sent} not sent; see edge.log in {state}"
            )
            .into());
        }
        Ok(report)
    }

    fn smtp(&self) -> std::net::SocketAddr {
        *self.site.nodes.edge_ready().smtp.first().expect("the topology has one")
    }

    /// Messages that big has filed so far.
    async fn filed(&self) -> Result<u64, Failure> {
        Ok(ask::filed(&ask::big_link(&self.site.big()).await?))
    }

    async fn until_filed(&self, count: u64, look: Duration) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            let filed = self.filed().await?;
            if filed >= count {
                return Ok(());
            }
            if since.elapsed() > FILED_WITHIN {
                return Err(
                    format!("{} messages were not filed within {FILED_WITHIN:?}", count - filed).into()
                );
            }
            tokio::time::sleep(look).await;
        }
    }
}

fn usages(processes: [u32; 3]) -> std::io::Result<[Usage; 3]> {
    let [edge, big, own] = processes;
    Ok([usage(edge)?, usage(big)?, usage(own)?])
}

fn per_thousand(before: Usage, after: Usage, report: &Report) -> f64 {
    (after.cpu - before.cpu).as_secs_f64() * 1000.0 / report.accepted as f64
}

fn latency(report: &Report) -> [Duration; 2] {
    [50, 99].map(|percent| report.percentile(percent).unwrap_or_default())
}

fn percentiles(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    [50, 99].map(|percent| times.get(last * percent / 100).copied().unwrap_or_default())
}
