//! Aggregate reports to other domains: of what the edge has counted of them. `tls` and `dmarc` are what reports look like
//! (RFC 8460, RFC 7489 appendix C), `allowance` how many there may be.
//!
//! What no edge would bring is refused. What is only not wanted, too late or too much is taken, and listed as not sent: of a
//! refused unit the edge keeps a dead letter.
//!
//! That a report is owed comes with the commit that applies the edge's unit; another one makes the mail ours and takes that
//! away. Its id is the report's, so it is written once. It has the null reverse-path: nobody is told what becomes of it, and
//! nothing comes back; the list of reports says it.

mod allowance;
mod dmarc;
mod tls;

use std::collections::BTreeSet;
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

use self::allowance::Allowance;
use crate::error::Refused;
use crate::mail::{self, Site};
use crate::node;
use crate::record::{RECIPIENTS, Recipient};
use crate::request::AggregateView;

/// Report id to [`AggregateRow`].
const AGGREGATES: Table = Table("aggregate-reports");
/// When it is tried next, in milliseconds since 1970, and report id to the [`Owed`] report that is still to be written.
const OWED: Table = Table("aggregate-reports-owed");

/// Reports that are written in one round.
const AT_ONCE: usize = 20;
/// One that could not be written is tried again after so many milliseconds.
const AGAIN_MILLIS: u64 = 3_600_000;
/// It is given up so many milliseconds after it came.
const GIVEN_UP_MILLIS: u64 = 24 * 3_600_000;
/// A report of a day that was over so many milliseconds ago is none any more.
const LATE_MILLIS: u64 = 7 * 24 * 3_600_000;
/// How long the list has a report at least: 30 days.
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

/// Its version rises whenever a field of [`AggregateReport`] changes, or of what that holds.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct Owed(AggregateReport);
row!(Owed, 2);

impl Owed {
    fn key(again: u64, id: MessageId) -> Vec<u8> {
        [again.to_be_bytes().as_slice(), &id.0].concat()
    }

    /// The id in a key.
    fn id(key: &[u8]) -> Option<MessageId> {
        key.get(8..)?.try_into().ok().map(MessageId)
    }
}

/// Takes what the edge has counted. The edge says whom to write to, about whom; what is written is ours.
pub fn received(
    txn: &mut Txn<'_>,
    site: &Site,
    mut report: AggregateReport,
    now: u64,
) -> Result<(), NotApplied> {
    let never = |text: &str| Err(NotApplied::Never(text.into()));
    let id = MessageId(report.id);
    if txn.raw(AGGREGATES, &id.0)?.is_some() || mail::is_known(txn, id)? {
        return Ok(());
    }
    let has_mailboxes = (1..=MAILBOXES_MAX).contains(&report.to.len());
    let to: Option<Vec<Address>> = report.to.iter().map(|to| to.parse().ok()).collect();
    let Some(to) = to.filter(|_| has_mailboxes) else {
        return never("a report to nobody, or to too many");
    };
    let millis = |seconds: u64| seconds.saturating_mul(1_000);
    let ends = millis(report.begin.saturating_add(DAY_SECONDS));
    let is_day = report.begin.is_multiple_of(DAY_SECONDS) && id.unix_millis() == ends;
    let (Ok(domain), true) = (report.domain.parse::<Domain>(), is_day) else {
        return never("a report about no domain, or no day");
    };
    // Either clock may be wrong, and that makes nobody an enemy.
    if ends >= age::too_far(now) {
        return Ok(trace::note(txn, id, now, "not sent: by this node's clock its day is not over")?);
    }
    if !report.counts.is_sound() {
        return never("a report of what nobody counts");
    }
    let mut allowance = Allowance::of(txn, now)?;
    if !allowance.has_room(&domain) {
        return Ok(allowance.keep(txn)?);
    }
    let is_wanted = match report.counts {
        Counts::Tls(_) => site.reports.tls,
        Counts::Dmarc(_) => site.reports.dmarc,
    };
    let allowed = match is_wanted && ends.saturating_add(LATE_MILLIS) > now {
        true => allowance.mailboxes(txn, &domain, &to)?,
        false => Vec::new(),
    };
    allowance.keep(txn)?;
    let unsent = match (is_wanted, allowed.is_empty()) {
        (false, _) => Some("[edge.reports] of this node's topology does not want it"),
        (true, true) if ends.saturating_add(LATE_MILLIS) <= now => Some("it came too long after its day"),
        (true, true) => {
            Some("those it is for have been sent too many today about domains that are not theirs")
        }
        (true, false) => None,
    };
    if unsent.is_none() {
        report.to = allowed.iter().map(ToString::to_string).collect();
    }
    let row = AggregateRow {
        kind: report.counts.kind().into(),
        domain: report.domain.clone(),
        begin: report.begin,
        to: report.to.clone(),
        at: now,
        unsent: unsent.map(ToOwned::to_owned),
    };
    txn.put(AGGREGATES, &id.0, &row)?;
    match unsent {
        Some(why) => Ok(trace::note(txn, id, now, format!("not sent: {why}"))?),
        None => Ok(txn.put(OWED, &Owed::key(now, id), &Owed(report))?),
    }
}

/// Keys of reports that are to be tried at `now`. One that is to be tried further off than any wait was tried by a clock
/// that has gone back since.
fn due(rows: &impl Rows, now: u64) -> Result<Vec<Vec<u8>>, StoreError> {
    let is_due = |key: &Vec<u8>| {
        let again = key.first_chunk().map_or(0, |again| u64::from_be_bytes(*again));
        age::is_due(again, now)
    };
    let mut keys = rows.keys(OWED, &[], AT_ONCE)?;
    keys.extend(rows.keys(OWED, &age::too_far(now).to_be_bytes(), AT_ONCE)?);
    keys.sort_unstable();
    keys.dedup();
    Ok(keys.into_iter().filter(is_due).take(AT_ONCE).collect())
}

/// Writes the reports that are owed, at `now`, milliseconds since 1970. One that cannot be written does not keep the others
/// waiting.
pub async fn write_owed(store: &Store, site: &Arc<Site>, now: u64) -> Result<(), Refused> {
    let keys = due(&store.read()?, now)?;
    for key in keys {
        let Some(id) = Owed::id(&key) else {
            store.commit(move |txn| txn.delete(OWED, &key)).await?;
            continue;
        };
        // Each is read alone: one that is damaged spoils no other.
        let owed = store.read()?.get::<Owed>(OWED, &key);
        let written = match owed {
            Ok(Some(Owed(report))) => write(store, site, key.clone(), report, now).await,
            Ok(None) => continue,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            tracing::warn!(report = %id, %error, "an aggregate report could not be written");
            store.commit(move |txn| failed(txn, &key, id, &error, now)).await?;
        }
    }
    Ok(())
}

/// It could not be written, and is tried again later or given up.
fn failed(txn: &mut Txn<'_>, key: &[u8], id: MessageId, error: &Refused, now: u64) -> Result<(), StoreError> {
    let came = txn.get::<AggregateRow>(AGGREGATES, &id.0).ok().flatten().map(|row| row.at);
    let is_over = came.is_none_or(|at| at.abs_diff(now) >= GIVEN_UP_MILLIS);
    let owed = match txn.get::<Owed>(OWED, key) {
        Err(StoreError::Damaged(_)) => None,
        owed => owed?.filter(|_| !is_over),
    };
    txn.delete(OWED, key)?;
    match owed {
        Some(owed) => txn.put(OWED, &Owed::key(now.saturating_add(AGAIN_MILLIS), id), &owed),
        None => not_sent(txn, id, error.to_string(), now),
    }
}

fn not_sent(txn: &mut Txn<'_>, id: MessageId, why: String, now: u64) -> Result<(), StoreError> {
    trace::note(txn, id, now, format!("not sent: {why}"))?;
    match txn.get::<AggregateRow>(AGGREGATES, &id.0) {
        Ok(Some(row)) => txn.put(AGGREGATES, &id.0, &AggregateRow { unsent: Some(why), ..row }),
        Ok(None) => Ok(()),
        // Nothing else is to wait for it.
        Err(StoreError::Damaged(_)) => txn.delete(AGGREGATES, &id.0).map(drop),
        Err(error) => Err(error),
    }
}

async fn write(
    store: &Store,
    site: &Arc<Site>,
    key: Vec<u8>,
    report: AggregateReport,
    now: u64,
) -> Result<(), Refused> {
    let id = MessageId(report.id);
    // Compressing and signing take a while.
    let made = tokio::task::block_in_place(|| compose(store, site, &report, now))?;
    let site = Arc::clone(site);
    let written = store.commit(move |txn| {
        txn.delete(OWED, &key)?;
        match made {
            Ok(incoming) if !mail::is_known(txn, id)? => mail::receive(txn, &site, incoming, &[], now)?,
            Ok(_) => {}
            Err(why) => {
                tracing::warn!(domain = report.domain, why, "an aggregate report is not sent");
                not_sent(txn, id, why, now)?;
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

/// Forgets some of the reports of long ago. One that is still owed ends by itself.
pub fn forget_old(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    // Ids begin with the end of their day, and none is taken that ended long before it came.
    let before = now.saturating_sub(LISTED_MILLIS + LATE_MILLIS);
    let end = MessageId::from_parts(before, [0; 10]).0;
    // The rows are not read: one that is damaged is forgotten like the others.
    let keys = txn.keys(AGGREGATES, &[], FORGOTTEN_AT_ONCE)?;
    for key in keys.iter().take_while(|key| key.as_slice() < end.as_slice()) {
        txn.delete(AGGREGATES, key)?;
    }
    allowance::forget_old(txn, now, FORGOTTEN_AT_ONCE)
}

/// The latest reports, the last day first; at most `max`.
pub fn list(rows: &impl Rows, max: usize) -> Result<Vec<AggregateView>, StoreError> {
    // Each is read alone: one that is damaged hides no other.
    let keys = rows.keys(AGGREGATES, &[], usize::MAX)?;
    let read = |key: &Vec<u8>| match rows.get::<AggregateRow>(AGGREGATES, key) {
        Err(StoreError::Damaged(_)) => None,
        row => row.transpose().map(|row| row.map(|row| (key.clone(), row))),
    };
    let found = keys.iter().rev().filter_map(read).take(max).collect::<Result<Vec<_>, _>>()?;
    let owed = rows.keys(OWED, &[], usize::MAX)?;
    let owed: BTreeSet<_> = owed.iter().filter_map(|key| Owed::id(key)).collect();
    let view = |(key, row): (Vec<u8>, AggregateRow)| {
        let id = MessageId(key.first_chunk().copied().unwrap_or_default());
        let recipients = rows.prefix::<Recipient>(RECIPIENTS, &id.0, MAILBOXES_MAX)?;
        let states: Vec<_> = recipients.iter().map(|(_, recipient)| render::word(&recipient.state)).collect();
        let state = match row.unsent {
            Some(why) => format!("not sent: {why}"),
            None if owed.contains(&id) => "to be written".into(),
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
