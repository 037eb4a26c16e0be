//! The pair as a figure in text: the one of the design, with the actual values in it.

use std::net::SocketAddr;

use super::{CertificateSource, Mode, Topology};

/// Columns of the whole figure, at most.
const WIDTH_MAX: usize = 100;
/// Columns left of the edge's box: who comes, and by what.
const OUTSIDE: usize = 29;
/// Columns between the boxes.
const BETWEEN: usize = 9;
/// Columns that the two frames take: a bar and a space on each side.
const FRAMES: usize = 8;
/// Columns of text in the narrowest box.
const BOX_MIN: usize = 24;

/// One line across the figure, before it is drawn.
struct Row {
    outside: String,
    edge: String,
    between: &'static str,
    big: String,
}

/// The figure of `topology`, at most 100 columns wide, each line ending in a newline.
pub fn figure(topology: &Topology) -> String {
    let rows = rows(topology);
    let widest = |text: fn(&Row) -> &str| rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0);
    let room = WIDTH_MAX - OUTSIDE - BETWEEN - FRAMES;
    let edge = widest(|row| &row.edge).clamp(BOX_MIN, room - BOX_MIN);
    let big = widest(|row| &row.big).clamp(BOX_MIN, room - edge);
    let mut text = String::new();
    let mut line = |outside: &str, edge: &str, between: &str, big: &str| {
        let drawn = format!("{outside:<OUTSIDE$}{edge}{between:^BETWEEN$}{big}");
        text.push_str(drawn.trim_end());
        text.push('\n');
    };
    let title = |name: &str, width: usize| format!("{name:^0$}", width + 4);
    let rule = |left: char, right: char, width: usize| format!("{left}{}{right}", "─".repeat(width + 2));
    line("          Internet", &title("DMZ", edge), "firewall", &title("inside", big));
    line("", &rule('┌', '┐', edge), "║", &rule('┌', '┐', big));
    for row in rows.iter().flat_map(|row| wrapped(row, edge, big)) {
        let (e, b) = (&row.edge, &row.big);
        line(&row.outside, &format!("│ {e:<edge$} │"), row.between, &format!("│ {b:<big$} │"));
    }
    line("", &rule('└', '┘', edge), "║", &rule('└', '┘', big));
    text
}

fn rows(topology: &Topology) -> Vec<Row> {
    let Topology { site, big, edge, link } = topology;
    let mut left: Vec<(String, String)> =
        vec![(String::new(), format!("edge-node {}", edge.hostname)), (String::new(), String::new())];
    let mut listen = |who: &str, what: &str, addresses: &[SocketAddr]| {
        for (n, address) in addresses.iter().enumerate() {
            let who = if n == 0 { who } else { "" };
            left.push((format!("  {who:<11} ─{what:─<12}▶ "), address.to_string()));
        }
    };
    listen("other MTAs", "SMTP", &edge.smtp);
    listen("travellers", "submission", &edge.submission);
    listen("travellers", "submissions", &edge.submissions);
    listen("travellers", "POP3", &edge.pop3);
    listen("travellers", "POP3S", &edge.pop3s);
    if let CertificateSource::Acme(acme) = &edge.certificate {
        listen("authority", "HTTP", &acme.http);
        left.push(("  authority   ◀─ACME──────── ".into(), acme.directory.authority()));
    }
    let private = if edge.outbound.private_addresses { ", private addresses too" } else { "" };
    if !matches!(edge.outbound.mode, Mode::Relay(_)) {
        left.push(("  other MTAs  ◀─SMTP──────── ".into(), format!("port {}{private}", edge.outbound.port)));
    }
    if let Some(host) = edge.outbound.mode.smart_host() {
        left.push(("  smart host  ◀─SMTP──────── ".into(), format!("{}, {}", host.place, host.tls.as_str())));
    }
    let resolvers = edge.dns_servers.iter().map(SocketAddr::to_string);
    let resolvers =
        if edge.dns_servers.is_empty() { vec!["the system's".into()] } else { resolvers.collect() };
    left.push(("  DNS         ◀───────────── ".into(), format!("resolvers: {}", resolvers.join(", "))));
    left.push((String::new(), format!("state: {}", edge.state.display())));

    let mut right = vec!["big-node".to_owned(), String::new()];
    right.extend(site.domains.iter().map(|domain| format!("mail for {domain}")));
    right.push(format!("postmaster: {}", site.postmaster.local_part()));
    right.push(format!("attachments: {}", site.attachments.as_str()));
    right.push("listens nowhere".into());
    right.extend(big.desk.as_ref().map(|desk| format!("desk: {}", desk.display())));
    right.push(format!("state: {}", big.state.display()));

    let height = left.len().max(right.len());
    left.resize_with(height, Default::default);
    right.resize_with(height, Default::default);
    let row = |((outside, edge), big)| Row { outside, edge, between: "║", big };
    let mut rows: Vec<Row> = left.into_iter().zip(right).map(row).collect();
    let link = Row {
        outside: String::new(),
        edge: format!("link: UDP {}", link.listen),
        between: "◀══QUIC══",
        big: format!("dials {}", link.dial),
    };
    rows.insert(1, link);
    rows
}

/// The row, and below it what was too wide for its boxes.
fn wrapped(row: &Row, edge: usize, big: usize) -> Vec<Row> {
    let (edge, big) = (pieces(&row.edge, edge), pieces(&row.big, big));
    let line = |n: usize| Row {
        outside: if n == 0 { row.outside.clone() } else { String::new() },
        edge: edge.get(n).cloned().unwrap_or_default(),
        between: if n == 0 { row.between } else { "║" },
        big: big.get(n).cloned().unwrap_or_default(),
    };
    (0..edge.len().max(big.len()).max(1)).map(line).collect()
}

fn pieces(text: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(width).map(|piece| piece.iter().collect()).collect()
}
