//! Data as text for people: times, sizes, tables, and the reports that both nodes print.
//!
//! Much of what is shown was written by strangers. Every value that goes through a [`Table`] or
//! [`line()`] is made safe for a terminal and stays on its line, so that no subject or file name can
//! pretend to be a row or a field of ours. Times are UTC; a column or a line that holds one says so.

use std::fmt::{self, Write};

use jiff::Timestamp;
use serde::Serialize;
use unicode_normalization::char::is_combining_mark;

use crate::mime::terminal;
use crate::report::{
    BorderView, DecisionView, DirectoryView, KeysView, LinkView, MissingView, PartnerLaneView, Passage,
    PressureView, RoomView, SandboxView, Step,
};
use crate::store::{Copied, Verdict};

/// Blanks between two columns.
const GAP: usize = 2;
/// Columns of a field's name.
const NAME_WIDTH: usize = 12;
/// Bytes of a kibibyte, and so on upwards.
const STEP: f64 = 1024.0;

/// A time in milliseconds since 1970 as `2026-11-22 07:41`, in UTC.
pub fn when(millis: u64) -> String {
    formatted(millis, "%Y-%m-%d %H:%M")
}

/// A time in milliseconds since 1970 as `2026-11-22 07:41:03.250`, in UTC.
pub fn moment(millis: u64) -> String {
    formatted(millis, "%Y-%m-%d %H:%M:%S%.3f")
}

fn formatted(millis: u64, format: &str) -> String {
    let time = i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    time.map_or_else(|| "out of range".into(), |time| time.strftime(format).to_string())
}

/// A length in bytes as `512 B`, `1.5 KiB`, `50.0 MiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    if value < STEP {
        return format!("{bytes} B");
    }
    for unit in ["KiB", "MiB", "GiB"] {
        value /= STEP;
        // What would be rounded to 1024.0 is one of the next unit.
        if value < STEP - 0.05 {
            return format!("{value:.1} {unit}");
        }
    }
    format!("{:.1} TiB", value / STEP)
}

/// The word for a value: the one that `--json` prints, so that there is only one.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A field of its own line, its value aligned with the others'.
pub fn line(name: &str, value: &str) -> String {
    format!("{name:<NAME_WIDTH$}{}\n", terminal::safe_line(value))
}

/// The text, cut to `max` characters.
pub fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max - 1).chain(['…']).collect(),
    }
}

/// Rows under a header, each column as wide as its widest cell.
#[derive(Clone, Debug)]
pub struct Table<const N: usize> {
    header: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub fn new(header: [&'static str; N]) -> Self {
        Self { header, rows: Vec::new() }
    }

    /// Adds a row at the end. What is long or foreign goes in the last column, which has no width.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| terminal::safe_line(&cell)));
    }

    /// The table as text, or `empty` on a line of its own if there are no rows.
    pub fn or(&self, empty: &str) -> String {
        if self.rows.is_empty() { format!("{empty}\n") } else { self.to_string() }
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header.map(str::to_owned);
        let mut widths = header.each_ref().map(|cell| columns(cell));
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = columns(cell).max(*width);
            }
        }
        for row in [&header].into_iter().chain(&self.rows) {
            let mut text = String::new();
            for (width, cell) in widths.iter().zip(row) {
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', width - columns(cell) + GAP));
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Columns that a safe text takes; wide characters count as one.
fn columns(text: &str) -> usize {
    text.chars().filter(|c| !is_combining_mark(*c)).count()
}

/// Characters of a key's fingerprint that are shown.
const FINGERPRINT_SHOWN: usize = 16;

/// `link status`.
pub fn link(link: &LinkView) -> String {
    let mut session = match (link.paired, link.connected) {
        (false, _) => "not paired: `big-node pair` takes a ticket of `edge-node invite`".to_owned(),
        (true, false) => "down; it is dialled again by itself".to_owned(),
        (true, true) => "open".to_owned(),
    };
    if let Some(epoch) = link.epoch {
        let _ = write!(session, ", epoch {epoch}");
    }
    if let Some(rtt) = link.rtt_millis {
        let _ = write!(session, ", round trip {rtt:.1} ms");
    }
    let mut lanes = Table::new(["lane", "sent", "confirmed", "waiting", "received", "trimmed"]);
    for lane in &link.lanes {
        let waiting = lane.sent.saturating_sub(lane.confirmed).saturating_add(lane.ahead + lane.deferred);
        let numbers = [lane.sent, lane.confirmed, waiting, lane.received, lane.trimmed];
        let [sent, confirmed, waiting, received, trimmed] = numbers.map(|number| number.to_string());
        lanes.row([lane.lane.clone(), sent, confirmed, waiting, received, trimmed]);
    }
    let mut text = line("session", &session);
    text.extend(link.peer.as_deref().map(|peer| line("partner", peer)));
    text.extend(keys(&link.keys).iter().map(|(what, key)| line(what, key)));
    text += &line("pressure", &pressure(&link.pressure));
    text.extend(link.room.as_ref().map(|left| line("room", &room(left))));
    text += &line("sandbox", &sandbox(&link.sandbox));
    text += &line("directory", &directory(&link.directory));
    text.extend(link.border.as_ref().map(|BorderView { repeats, undetermined }| {
        line("border", &format!("{repeats} repeats recognised, {undetermined} attempts undetermined"))
    }));
    text.extend(link.alarms.iter().map(|alarm| line("ALARM", alarm)));
    text.extend(link.decisions.iter().map(|decision| line("decided", &decided(decision))));
    text = text + "\n" + &lanes.to_string();
    let mut partner = Table::new(["lane", "sent", "confirmed", "received"]);
    let said = link.lanes.iter().filter_map(|lane| Some((&lane.lane, lane.partner.as_ref()?)));
    for (lane, PartnerLaneView { sent, confirmed, received }) in said {
        partner.row([lane.clone(), sent.to_string(), confirmed.to_string(), received.to_string()]);
    }
    if !partner.rows.is_empty() {
        text += &format!("\nthe other node, when the link came up:\n{partner}");
    }
    if !link.missing.is_empty() {
        text += "\nlacking at the other node, and gone here:\n";
        text += &missing(&link.missing);
    }
    text
}

fn room(RoomView { spool, spool_max, free_bytes, free_inodes }: &RoomView) -> String {
    let inodes = free_inodes.map(|free| format!(" and {free} inodes")).unwrap_or_default();
    let (spool, spool_max, free) = (size(*spool), size(*spool_max), size(*free_bytes));
    format!("the spool holds {spool}, {spool_max} are allowed; {free}{inodes} are free on the disk")
}

fn sandbox(SandboxView { on, lacks }: &SandboxView) -> String {
    match (on, lacks.is_empty()) {
        (false, _) => "off, as the topology has it".into(),
        (true, true) => "on".into(),
        (true, false) => format!("on, but weaker than it is meant to be: {}", lacks.join("; ")),
    }
}

/// Which keys count, and which no more.
fn keys(keys: &KeysView) -> Vec<(&'static str, String)> {
    let short = |key: &String| key.chars().take(FINGERPRINT_SHOWN).collect::<String>();
    let beside = |next: &Option<String>, what: &str, former: &Option<String>, refused: &str| {
        let next = next.as_ref().map(|key| format!("; {what} {}", short(key)));
        let former = former.as_ref().map(|key| format!("; {refused} {}", short(key)));
        [next, former].into_iter().flatten().collect::<String>()
    };
    let own = beside(&keys.own_next, "next, not in use yet:", &keys.own_former, "before:");
    let mut lines = vec![("own key", short(&keys.own) + &own)];
    if let Some(key) = &keys.partner {
        let pinned =
            beside(&keys.partner_next, "and its next:", &keys.partner_former, "refused, its former:");
        lines.push(("its key", short(key) + &pinned));
    }
    lines
}

/// Units that are gone, one a line.
pub fn missing(units: &[MissingView]) -> String {
    let mut table = Table::new(["lane", "id", "size", "what is known"]);
    for MissingView { lane, id, octets, from } in units {
        table.row([lane.clone(), id.clone(), size(*octets), from.clone().unwrap_or_default()]);
    }
    table.or("nothing is gone")
}

fn decided(decision: &DecisionView) -> String {
    let DecisionView { at, lane, decision, outcome, missing_units, missing_octets, missing } = decision;
    let outcome = outcome.as_deref().unwrap_or("not compared yet");
    let mut text = format!("{} UTC {lane}: {decision}; {outcome}", when(*at));
    if *missing_units > 0 {
        let _ =
            write!(text, "; gone: {missing_units} units, {}: {}", size(*missing_octets), missing.join(" "));
    }
    text
}

fn directory(directory: &DirectoryView) -> String {
    let mut text = match directory.compared_at {
        Some(at) => format!("compared {} UTC", moment(at)),
        None => "not compared yet".to_owned(),
    };
    if directory.differed > 0 {
        let _ = write!(text, ", differed {} times, {} buckets mended", directory.differed, directory.mended);
    }
    if let Some(why) = &directory.unsure {
        let _ = write!(text, "; unknown is answered 451: {why}");
    }
    text
}

/// A node's level and its reason, on one line.
pub fn pressure(pressure: &PressureView) -> String {
    match &pressure.why {
        None => word(&pressure.level),
        Some(why) => format!("{} ({why})", word(&pressure.level)),
    }
}

/// `trace`: a message's way, one fact a line.
pub fn way(steps: &[Step]) -> String {
    let mut table = Table::new(["at (UTC)", "node", "what"]);
    for step in steps {
        table.row([moment(step.at), step.node.clone(), step.what.clone()]);
    }
    table.or("nothing is known of that message here")
}

/// `trace`, of a text: the messages whose way says it, newest first.
pub fn passages(found: &[Passage]) -> String {
    let mut table = Table::new(["id", "at (UTC)", "what"]);
    for passage in found {
        table.row([passage.id.clone(), moment(passage.at), passage.what.clone()]);
    }
    table.to_string()
}

/// `backup`: what was copied.
pub fn copied(copied: &Copied) -> String {
    format!(
        "{} rows and {} of bodies were copied, with the keys: keep it as safe as the node\n",
        copied.rows,
        size(copied.bytes)
    )
}

/// `verify`: what was looked over, and each damage.
pub fn verdict(verdict: &Verdict) -> String {
    let Verdict { rows, bodies, bytes, damage, rebuilt } = verdict;
    let mut text = String::new();
    if let Some(rebuilt) = rebuilt {
        let _ = writeln!(text, "{} bodies are kept; the index is made anew from them", rebuilt.kept);
        text.extend(rebuilt.lost.iter().map(|lost| line("LOST", lost)));
    }
    let _ = writeln!(text, "{rows} rows and {bodies} bodies ({}) were checked", size(*bytes));
    text.extend(damage.iter().map(|damage| line("DAMAGE", damage)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::Level;
    use crate::report::LaneView;

    #[test]
    fn times_and_sizes_are_for_people() {
        assert_eq!(when(1_795_333_263_250), "2026-11-22 07:41");
        assert_eq!(moment(1_795_333_263_250), "2026-11-22 07:41:03.250");
        assert_eq!(when(u64::MAX), "out of range");
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (52_428_800, "50.0 MiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
    }

    #[test]
    fn a_table_is_aligned_and_nothing_leaves_its_cell() {
        let mut table = Table::new(["who", "what"]);
        table.row(["ze\u{301}".into(), "one".into()]);
        table.row(["a longer one".into(), "two\nwho  forged \x1b[2J".into()]);
        assert_eq!(
            table.or("none"),
            "who           what\nze\u{301}            one\na longer one  two␊who  forged ␛[2J\n"
        );
        assert_eq!(Table::new(["who"]).or("nobody"), "nobody\n");
    }

    #[test]
    fn the_link_is_shown_with_what_waits() {
        let lane = LaneView {
            lane: "inter".into(),
            sent: 12,
            ahead: 1,
            deferred: 1,
            confirmed: 10,
            received: 7,
            trimmed: 4,
            partner: None,
        };
        let mut view = LinkView {
            paired: true,
            connected: true,
            peer: Some("127.0.0.1:7625".into()),
            rtt_millis: Some(0.42),
            keys: KeysView { own: "0123456789abcdef01".into(), ..KeysView::default() },
            epoch: Some(3),
            pressure: PressureView { level: Level::Closed, why: Some("the disk is full".into()) },
            room: Some(RoomView {
                spool: 3 << 20,
                spool_max: 10 << 30,
                free_bytes: 80 << 30,
                free_inodes: Some(5_000),
            }),
            drained_since: None,
            sandbox: SandboxView { on: true, lacks: vec!["no a".into(), "no b".into()] },
            directory: DirectoryView::default(),
            lanes: vec![lane],
            missing: Vec::new(),
            decisions: Vec::new(),
            alarms: vec!["log lost\x07".into()],
            border: Some(BorderView { repeats: 3, undetermined: 1 }),
        };
        assert_eq!(
            link(&view),
            "session     open, epoch 3, round trip 0.4 ms\n\
             partner     127.0.0.1:7625\n\
             own key     0123456789abcdef\n\
             pressure    closed (the disk is full)\n\
             room        the spool holds 3.0 MiB, 10.0 GiB are allowed; 80.0 GiB and 5000 inodes are free on the disk\n\
             sandbox     on, but weaker than it is meant to be: no a; no b\n\
             directory   not compared yet\n\
             border      3 repeats recognised, 1 attempts undetermined\n\
             ALARM       log lost␇\n\
             \n\
             lane   sent  confirmed  waiting  received  trimmed\n\
             inter  12    10         4        7         4\n"
        );
        for (on, said) in [(true, "sandbox     on\n"), (false, "sandbox     off, as the topology has it\n")] {
            view.sandbox = SandboxView { on, lacks: Vec::new() };
            assert!(link(&view).contains(said), "{}", link(&view));
        }
        view.keys.own_next = Some("aa".into());
        view.keys.partner = Some("bb".into());
        view.keys.partner_former = Some("cc".into());
        let pins = "own key     0123456789abcdef; next, not in use yet: aa\nits key     bb; refused, its former: cc\n";
        assert!(link(&view).contains(pins), "{}", link(&view));
        view.pressure = PressureView { level: Level::Open, why: None };
        view.room = view.room.map(|room| RoomView { free_inodes: None, ..room });
        let room = "\npressure    open\nroom        the spool holds 3.0 MiB, 10.0 GiB are allowed; 80.0 GiB are free on the disk\n";
        assert!(link(&view).contains(room), "{}", link(&view));
        view.room = None;
        assert!(link(&view).contains("\npressure    open\nsandbox "), "big has no spool");
        view.directory = DirectoryView {
            compared_at: Some(1_795_333_263_250),
            differed: 1,
            mended: 2,
            unsure: Some("the link is down".into()),
        };
        let text = "directory   compared 2026-11-22 07:41:03.250 UTC, differed 1 times, 2 buckets mended; unknown is \
                    answered 451: the link is down\n";
        assert!(link(&view).contains(text), "{}", link(&view));
        view.lanes[0].partner = Some(PartnerLaneView { sent: 7, confirmed: 6, received: 9 });
        let there = "\nthe other node, when the link came up:\nlane   sent  confirmed  received\ninter  7     6          9\n";
        assert!(link(&view).contains(there), "{}", link(&view));
        view.missing = vec![MissingView {
            lane: "batch".into(),
            id: "01K".into(),
            octets: 1536,
            from: Some("accepted by the edge from 192.0.2.1".into()),
        }];
        view.decisions = vec![DecisionView {
            at: 1_795_333_263_250,
            lane: "batch".into(),
            decision: "adopt".into(),
            outcome: None,
            missing_units: 2,
            missing_octets: 3000,
            missing: vec!["01K".into(), "01L".into()],
        }];
        let text = link(&view);
        let decided = "decided     2026-11-22 07:41 UTC batch: adopt; not compared yet; gone: 2 units, 2.9 KiB: 01K 01L\n";
        assert!(text.contains(decided), "{text}");
        let gone = "batch  01K  1.5 KiB  accepted by the edge from 192.0.2.1\n";
        assert!(text.ends_with(gone), "{text}");
        view.paired = false;
        assert!(link(&view).starts_with("session     not paired: `big-node pair`"));
    }

    #[test]
    fn a_way_is_one_fact_a_line() {
        let step = Step { at: 1_795_333_263_250, node: "edge".into(), what: "250 to\r\nexample".into() };
        assert_eq!(
            way(&[step]),
            "at (UTC)                 node  what\n2026-11-22 07:41:03.250  edge  250 to␍␊example\n"
        );
    }
}
