//! Aggregate reports to other domains: of what the edge has counted of them. `tls` and `dmarc` are what reports look like
//! (RFC 8460, RFC 7489 appendix C).
//!
//! That a report is owed comes with the commit that applies the edge's unit; another one makes the mail ours and takes that
//! away. Its id is the report's, so it is written once. It has the null reverse-path: nobody is told what becomes of it, and
//! nothing comes back; the list of reports says it.

mod dmarc;
mod tls;

use std::io::Write as _;
use std::sync::Arc;

use flate2::{Compression, GzBuilder};
use rkyv::{Archive, Deserialize, Serialize};
use shared::address::{Address, Domain};
use shared::age;
use shared::aggregate::{AggregateReport, Counts, DAY_SECONDS, MAILBOXES_MAX};
use shared::id::MessageId;
use shared::lane::NotApplied;
use shared::mime::{AggregateLetter, dmarc_report, tls_report};
use shared::notify::Notify;
use shared::origin::Channel;
use shared::render;
use shared::row;
use shared::store::{Rows, Store, StoreError, Table, Txn};
use shared::trace;

use crate::error::Refused;
use crate::mail::{self, Site};
use crate::node;
use crate::record::{RECIPIENTS, Recipient};
use crate::request::AggregateView;

/// Report id to [`AggregateRow`].
const AGGREGATES: Table = Table("aggregate-reports");
/// Report id to the [`Owed`] report that is still to be written.
const OWED: Table = Table("aggregate-reports-owed");
/// Empty key to [`Taken`].
const TAKEN: Table = Table("aggregate-reports-taken");

/// Reports that are taken from the edge in a day of UTC: whoever has taken it over is not to mail the whole world.
const TAKEN_MAX: u32 = 5_000;
/// Reports that are written in one round.
const AT_ONCE: usize = 20;
/// How long the list has a report: 30 days.
const LISTED_MILLIS: u64 = 30 * 24 * 3_600_000;
/// Old rows that are forgotten in one step.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// A report that the edge has brought.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct AggregateRow {
    kind: String,
    domain: String,
    /// When the day began that it is about, in seconds since 1970.
    begin: u64,
    to: Vec<String>,
    /// When it came, milliseconds since 1970.
    at: u64,
    /// Why it was not sent.
    unsent: Option<String>,
}
row!(AggregateRow, 1);

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct Owed(AggregateReport);
row!(Owed, 1);

/// How many came in a day.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
struct Taken {
    day: u64,
    count: u32,
}
row!(Taken, 1);

/// Takes what the edge has counted. The edge says whom to write to, about whom; what is written is ours.
pub fn received(txn: &mut Txn<'_>, site: &Site, report: AggregateReport, now: u64) -> Result<(), NotApplied> {
    let never = |text: &str| Err(NotApplied::Never(text.into()));
    let is_sent = match report.counts {
        Counts::Tls(_) => site.reports.tls,
        Counts::Dmarc(_) => site.reports.dmarc,
    };
    if !is_sent {
        return never("a report that is not to be sent: [edge.reports] of this node's topology");
    }
    if txn.raw(AGGREGATES, &report.id)?.is_some() || mail::is_known(txn, MessageId(report.id))? {
        return Ok(());
    }
    let has_mailboxes = (1..=MAILBOXES_MAX).contains(&report.to.len());
    if !has_mailboxes || report.to.iter().any(|to| to.parse::<Address>().is_err()) {
        return never("a report to nobody, or to too many");
    }
    let millis = |seconds: u64| seconds.saturating_mul(1_000);
    let ends = millis(report.begin.saturating_add(DAY_SECONDS));
    if report.domain.parse::<Domain>().is_err()
        || !report.begin.is_multiple_of(DAY_SECONDS)
        || ends >= age::too_far(now)
    {
        return never("a report about no domain, or no day");
    }
    let day = now / millis(DAY_SECONDS);
    let taken = txn.get::<Taken>(TAKEN, b"")?.filter(|taken| taken.day == day);
    let count = taken.map_or(0, |taken| taken.count);
    if count >= TAKEN_MAX {
        return never("one report too many for a day");
    }
    txn.put(TAKEN, b"", &Taken { day, count: count + 1 })?;
    let row = AggregateRow {
        kind: report.counts.kind().into(),
        domain: report.domain.clone(),
        begin: report.begin,
        to: report.to.clone(),
        at: now,
        unsent: None,
    };
    txn.put(AGGREGATES, &report.id, &row)?;
    Ok(txn.put(OWED, &report.id.clone(), &Owed(report))?)
}

/// Writes the reports that are owed, at `now`, milliseconds since 1970.
pub async fn write_owed(store: &Store, site: &Arc<Site>, now: u64) -> Result<(), Refused> {
    for (_, Owed(report)) in store.read()?.prefix::<Owed>(OWED, &[], AT_ONCE)? {
        // One that cannot be written does not keep the others waiting.
        let id = MessageId(report.id);
        if let Err(error) = write(store, site, report, now).await {
            tracing::warn!(report = %id, %error, "an aggregate report could not be written yet");
        }
    }
    Ok(())
}

async fn write(store: &Store, site: &Arc<Site>, report: AggregateReport, now: u64) -> Result<(), Refused> {
    let id = MessageId(report.id);
    // Compressing and signing take a while.
    let made = tokio::task::block_in_place(|| compose(store, site, &report, now))?;
    let site = Arc::clone(site);
    let written = store.commit(move |txn| {
        txn.delete(OWED, &id.0)?;
        match made {
            Ok(incoming) if !mail::is_known(txn, id)? => mail::receive(txn, &site, incoming, &[], now)?,
            Ok(_) => {}
            Err(why) => {
                tracing::warn!(domain = report.domain, why, "an aggregate report is not sent");
                trace::note(txn, id, now, format!("not sent: {why}"))?;
                if let Some(row) = txn.get::<AggregateRow>(AGGREGATES, &id.0)? {
                    txn.put(AGGREGATES, &id.0, &AggregateRow { unsent: Some(why), ..row })?;
                }
            }
        }
        Ok::<_, Refused>(())
    });
    written.await.map(drop)
}

/// The mail, or why there is none. The same report gives the same octets.
fn compose(
    store: &Store,
    site: &Site,
    report: &AggregateReport,
    now: u64,
) -> Result<Result<mail::Incoming, String>, Refused> {
    let id = MessageId(report.id);
    let refused = |error: &dyn std::fmt::Display| Refused::new(error.to_string());
    let domain: Domain = report.domain.parse().map_err(|error| refused(&error))?;
    let own = site.policy.domains.first().ok_or_else(|| Refused::new("a site has a domain"))?;
    let from = Address::new("postmaster", own).map_err(|error| refused(&error))?;
    let to: Vec<Address> = report.to.iter().filter_map(|to| to.parse().ok()).collect();
    let range = (report.begin, report.begin.saturating_add(DAY_SECONDS - 1));
    let (document, text) = match &report.counts {
        Counts::Tls(policies) => {
            let document = tls::Document::new(&from, id, range, policies).to_json();
            (document, tls::summary(own, &domain, range, policies, report.left_out))
        }
        Counts::Dmarc(counts) => {
            let document = dmarc::document(&from, &domain, id, range, counts);
            (document, dmarc::summary(own, &domain, range, counts, report.left_out))
        }
    };
    let document = compressed(&document).map_err(|error| refused(&error))?;
    let date = i64::try_from(report.begin.saturating_add(DAY_SECONDS)).unwrap_or(i64::MAX);
    let letter = AggregateLetter { id, from, to: to.clone(), date, domain, range, text, document };
    let content = match &report.counts {
        Counts::Tls(_) => tls_report(&letter),
        Counts::Dmarc(_) => dmarc_report(&letter),
    };
    let to = to.iter().map(ToString::to_string).collect();
    let mut origin = node::origin(Channel::Report, None, to, &content);
    origin.recipients.iter_mut().for_each(|to| to.notify = Some(Notify::NEVER.to_string()));
    let made = node::written(store, id, origin, &content)?;
    let leaves = mail::leaves(&store.read()?, site, &made, now)?;
    let made = node::signed(store, site, made, &content)?;
    // Receivers pass over what is not signed by the domain that reports (RFC 8460 §3, RFC 7489 §7.2.1).
    if leaves && made.signatures.is_empty() {
        return Ok(Err(format!("mail of {own} is not signed; `big-node dkim keygen` makes a key")));
    }
    Ok(Ok(made))
}

/// Without a name and a time, so that the same is the same.
fn compressed(document: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    encoder.write_all(document)?;
    encoder.finish()
}

/// Forgets some of the reports of long ago.
pub fn forget_old(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    let before = now.saturating_sub(LISTED_MILLIS);
    // Ids begin with the time of their day.
    let end = MessageId::from_parts(before, [0; 10]).0;
    for (key, _) in txn.range::<AggregateRow>(AGGREGATES, &[], Some(&end), FORGOTTEN_AT_ONCE)? {
        txn.delete(AGGREGATES, &key)?;
        txn.delete(OWED, &key)?;
    }
    Ok(())
}

/// The latest reports, the last day first; at most `max`.
pub fn list(rows: &impl Rows, max: usize) -> Result<Vec<AggregateView>, StoreError> {
    let found = rows.prefix_backwards::<AggregateRow>(AGGREGATES, &[], max)?;
    let view = |(key, row): (Vec<u8>, AggregateRow)| {
        let id = MessageId(key.first_chunk().copied().unwrap_or_default());
        let recipients = rows.prefix::<Recipient>(RECIPIENTS, &id.0, MAILBOXES_MAX)?;
        let states: Vec<_> = recipients.iter().map(|(_, recipient)| render::word(&recipient.state)).collect();
        let is_owed = rows.raw(OWED, &key)?.is_some();
        let state = match row.unsent {
            Some(why) => format!("not sent: {why}"),
            None if is_owed => "to be written".into(),
            None if states.is_empty() => "sent".into(),
            None => states.join(", "),
        };
        let AggregateRow { kind, domain, begin, to, at, .. } = row;
        Ok(AggregateView {
            id: id.to_string(),
            kind,
            domain,
            begin: begin.saturating_mul(1_000),
            to,
            at,
            state,
        })
    };
    found.into_iter().map(view).collect()
}
