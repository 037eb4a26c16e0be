//! Sending a message that waits for an address outside to another one in its place, as an operator orders.
//!
//! Who gets a message is decided here, but only the edge knows whether it has left. So the order is one commit, which
//! asks the edge to give the old address up, as a withdrawal does; and the commit that takes the edge's answer in either
//! queues the message for the new address, or says that it was too late. Nothing goes to the new address before that,
//! and both the number by which the old one is given up and the index of the new one are of this redirect alone
//! ([`redirect_after`]), so that what comes twice after a restore is the same unit.

use shared::address::Address;
use shared::id::MessageId;
use shared::lane;
use shared::notify::{is_original_recipient, typed};
use shared::render::{when, word};
use shared::store::{BodyKey, Rows, StoreError, Txn};
use shared::trace;
use shared::unit::{
    DeliveryState, Id, Outcome, ReviseMode, ReviseResult, Revised, generation_end, is_redirect,
    redirect_after, revision_ordinal,
};

use crate::directory::{self, Letter, Route, Way};
use crate::error::Refused;
use crate::mail::{self, Site, recipient_key};
use crate::projection;
use crate::reconcile;
use crate::record::{
    MESSAGES, Message, Named, RECIPIENTS, REDIRECTS, REPORTS, REVISED, Recipient, Redirect, RevisedRow,
    Revision, key2, revised_key,
};
use crate::revise::{self, Decided, index_of};

/// Redirects of one message that the edge has not decided, as many as a message from a desk has recipients.
const PENDING_MAX: usize = 1000;

/// Why a redirect comes to nothing that its author has ended.
const WITHDRAWN: &str = "its author has withdrawn it";

/// A redirect that was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The message.
    pub id: MessageId,
    /// The index of the recipient who is given up.
    pub recipient: u32,
    /// Its number.
    pub number: u32,
}

/// Orders that a message goes to `to` instead of `from`, for whom it waits. Refused with what is in the way: there is
/// no such recipient, it has left, a connection was lost before a host answered for it, or the new address is none
/// that mail goes to by the edge, or has it already.
pub fn order(
    txn: &mut Txn<'_>,
    site: &Site,
    id: MessageId,
    (from, to): (&str, &str),
    now: u64,
) -> Result<Ordered, Refused> {
    let message = txn.get::<Message>(MESSAGES, &id.0)?;
    let message = message.ok_or_else(|| {
        Refused::new(format!("big knows nothing of {id}; `big-node queue list` shows what waits"))
    })?;
    if projection::edge(txn)?.is_none() {
        return Err(Refused::new(
            "no edge is paired yet; run `edge-node invite`, then `big-node pair TICKET`",
        ));
    }
    let (from, to) = (address(from)?, address(to)?);
    let (recipient, who) = who_waits(txn, id, &from)?;
    is_undecided(txn, id, recipient, &who)?;
    goes_outside(txn, site, &message, &to, now)?;
    has_it_not(txn, id, &to)?;
    let text = mail::shown(txn, id, who.revision)?;
    let has_body = match &text {
        Some(text) => txn.reference_body(text.body())?,
        None => false,
    };
    if !has_body {
        return Err(Refused::new(format!(
            "the text of {id} is here no more, for it is in nobody's mailbox; it stays where it waits, and `edge-node queue \
             cancel` gives it up"
        )));
    }
    let generation = lane::identity(txn)?.map_or(1, |identity| identity.generation);
    let number = redirect_after(latest(txn, id, u32::MAX)?, generation)
        .ok_or_else(|| Refused::new(format!("{id} was redirected too often; send a new message")))?;
    let to = to.to_string();
    let pending = RevisedRow {
        mode: ReviseMode::Withdraw,
        result: ReviseResult::Pending,
        at: now,
        text: String::new(),
        home: None,
        notice_owed: false,
    };
    txn.put(REVISED, &revised_key(id, recipient, number), &pending)?;
    trace::note(txn, id, now, format!("{}: is being redirected to {to}", who.address))?;
    txn.put(REDIRECTS, &recipient_key(id, recipient), &Redirect { number, to, revision: who.revision })?;
    revise::give_up(txn, id, number, recipient)?;
    mail::touch_author(txn, id)?;
    Ok(Ordered { id, recipient, number })
}

fn address(text: &str) -> Result<Address, Refused> {
    text.parse().map_err(|error| Refused::new(format!("{text}: {error}")))
}

fn is_at(row: &Recipient, address: &Address) -> bool {
    row.address.parse::<Address>().is_ok_and(|other| other.canonical() == address.canonical())
}

/// The recipient with an address who is still to get the message by the edge.
fn who_waits(rows: &impl Rows, id: MessageId, from: &Address) -> Result<(u32, Recipient), Refused> {
    let all = rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?;
    let mut of_address: Vec<_> = all.into_iter().filter(|(_, row)| is_at(row, from)).collect();
    let waits = |(_, row): &(Vec<u8>, Recipient)| row.person.is_none() && row.state.waits();
    let place = of_address.iter().position(waits).or(of_address.len().checked_sub(1));
    let Some((key, row)) = place.map(|place| of_address.swap_remove(place)) else {
        return Err(Refused::new(format!(
            "{id} does not go to {from}; `big-node queue list` shows whom it waits for"
        )));
    };
    if let Some(gateway) = &row.gateway {
        return Err(Refused::new(format!(
            "{id} goes to {from} by the gateway {gateway}, and only what goes by the edge is redirected"
        )));
    }
    if !row.state.waits() || row.person.is_some() {
        let by = row.host.as_ref().map(|host| format!(" by {host}")).unwrap_or_default();
        return Err(Refused::new(format!(
            "{id} does not wait for {from} any more: {}{by} since {} UTC; nothing is redirected",
            word(&row.state),
            when(row.at)
        )));
    }
    Ok((index_of(&key), row))
}

/// Refuses what is not settled yet for the old address.
fn is_undecided(rows: &impl Rows, id: MessageId, recipient: u32, who: &Recipient) -> Result<(), Refused> {
    let from = &who.address;
    if let Some(pending) = pending(rows, id, recipient)? {
        return Err(Refused::new(format!(
            "{id} is being redirected from {from} to {} already; the edge has still to say whether it has left",
            pending.to
        )));
    }
    if who.in_doubt {
        return Err(Refused::new(format!(
            "a host of {from} may have {id}: what it answered is not known; it is attempted there again, and \
             goes to nobody else"
        )));
    }
    if let Some(revision) = revise::pending_for(rows, id, recipient)? {
        return Err(Refused::new(format!(
            "the edge has still to decide revision {} of {id} for {from}; redirect it after that",
            revision_ordinal(revision)
        )));
    }
    if reconcile::held_by_operator(rows, &id.0)?.contains(&(who.revision, recipient)) {
        return Err(Refused::new(format!(
            "the edge has refused {id}; see to that first, with `big-node queue dead list`"
        )));
    }
    if rows.prefix::<Redirect>(REDIRECTS, &id.0, PENDING_MAX)?.len() >= PENDING_MAX {
        return Err(Refused::new(format!(
            "{PENDING_MAX} redirects of {id} are not decided yet; wait for those"
        )));
    }
    Ok(())
}

/// Refuses an address that mail does not leave for by the edge.
fn goes_outside(
    rows: &impl Rows,
    site: &Site,
    message: &Message,
    to: &Address,
    now: u64,
) -> Result<(), Refused> {
    let (text, letter) = (to.to_string(), Letter::of(&message.origin, 0, now));
    let routed = directory::route(rows, &site.policy, letter, [text.as_str()])?;
    match routed.as_slice() {
        _ if site.policy.is_ours(to.domain()) => Err(Refused::new(format!(
            "{to} is an address of ours, and a redirect leads outside; whoever has sent the message can send it there"
        ))),
        [one] if matches!(one.route, Route::Outside(Way::Edge, _)) => Ok(()),
        [one] => match &one.route {
            Route::Outside(way, _) => Err(Refused::new(format!(
                "{to} is reached by the gateway {}, and a redirect leads outside by the edge",
                way.as_str()
            ))),
            _ => Err(Refused::new(format!("{to} is not an address that mail leaves for"))),
        },
        _ => Err(Refused::new(format!("{to} is not an address that mail leaves for"))),
    }
}

/// Refuses an address that has the message, may have it, or is to get it.
fn has_it_not(rows: &impl Rows, id: MessageId, to: &Address) -> Result<(), Refused> {
    let has_or_gets = |row: &Recipient| {
        row.in_doubt || !matches!(row.state, DeliveryState::Failed | DeliveryState::Withdrawn)
    };
    let all = rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?;
    let pending = rows.prefix::<Redirect>(REDIRECTS, &id.0, usize::MAX)?;
    let is_it = |(_, redirect): &(Vec<u8>, Redirect)| {
        redirect.to.parse::<Address>().is_ok_and(|other| other.canonical() == to.canonical())
    };
    match all.iter().find(|(_, row)| is_at(row, to) && has_or_gets(row)) {
        Some((_, row)) if row.in_doubt && !row.state.waits() => Err(Refused::new(format!(
            "{to} is a recipient of {id}, and may have it ({}: {}): it would have it twice",
            word(&row.state),
            row.text
        ))),
        Some((_, row)) => Err(Refused::new(format!(
            "{to} is a recipient of {id} already ({}), and would have it twice; `edge-node queue cancel` gives the old \
             address up",
            word(&row.state)
        ))),
        None if pending.iter().any(is_it) => {
            Err(Refused::new(format!("{id} is being redirected to {to} already, from another address")))
        }
        None => Ok(()),
    }
}

/// The redirect of a recipient that the edge has not decided.
pub fn pending(rows: &impl Rows, id: MessageId, recipient: u32) -> Result<Option<Redirect>, StoreError> {
    rows.get(REDIRECTS, &recipient_key(id, recipient))
}

/// Every redirect that the edge has not decided, and its message, in the order of those.
pub(crate) fn all_pending(rows: &impl Rows) -> Result<Vec<(Id, Redirect)>, StoreError> {
    let all = rows.prefix::<Redirect>(REDIRECTS, &[], usize::MAX)?;
    Ok(all
        .into_iter()
        .map(|(key, redirect)| (key.first_chunk().copied().unwrap_or_default(), redirect))
        .collect())
}

/// What a redirect came to, and the words for it; `None` while the edge has not decided it.
pub fn result(rows: &impl Rows, ordered: &Ordered) -> Result<Option<(ReviseResult, String)>, StoreError> {
    let key = revised_key(ordered.id, ordered.recipient, ordered.number);
    let row = rows.get::<RevisedRow>(REVISED, &key)?.filter(|row| row.result != ReviseResult::Pending);
    Ok(row.map(|row| (row.result, row.text)))
}

/// The last number below `end` of a redirect of a message.
fn latest(rows: &impl Rows, id: MessageId, end: u32) -> Result<Option<u32>, StoreError> {
    let all = rows.prefix::<RevisedRow>(REVISED, &id.0, usize::MAX)?;
    let numbers =
        all.iter().map(|(key, _)| index_of(key)).filter(|number| is_redirect(*number) && *number < end);
    Ok(numbers.max())
}

/// What its author makes of a message while the edge has still to decide where it goes. A new text is what the new
/// address gets; one that is withdrawn goes nowhere.
pub(crate) fn revised(
    txn: &mut Txn<'_>,
    (id, recipient): (MessageId, u32),
    revision: &Revision,
    who: &Recipient,
    now: u64,
) -> Result<(), StoreError> {
    let Some(redirect) = pending(txn, id, recipient)? else { return Ok(()) };
    let key = recipient_key(id, recipient);
    let what = match revision.mode {
        ReviseMode::Withdraw => {
            txn.delete(REDIRECTS, &key)?;
            format!("not redirected to {}: {WITHDRAWN}", redirect.to)
        }
        ReviseMode::Replace | ReviseMode::Append => {
            txn.reference_body(BodyKey(revision.origin.body))?;
            txn.put(REDIRECTS, &key, &Redirect { revision: revision.number, ..redirect.clone() })?;
            format!("revision {} is what goes to {}", revision_ordinal(revision.number), redirect.to)
        }
    };
    if let Some(old) = mail::shown(txn, id, redirect.revision)? {
        txn.release_body(old.body())?;
    }
    trace::note(txn, id, now, format!("{}: {what}", who.address))
}

/// Records what became of a redirect that its author has ended ([`revised`]). If the edge has given the old address up by
/// it, the withdrawal has come too late there, and has come true all the same.
fn decided_for_author(
    txn: &mut Txn<'_>,
    site: &Site,
    redirect: Decided,
    row: RevisedRow,
    result: ReviseResult,
) -> Result<(), StoreError> {
    let Decided { id, recipient, revision: number, at } = redirect;
    let ended = RevisedRow { result: ReviseResult::Refused, at, text: WITHDRAWN.into(), ..row };
    txn.put(REVISED, &revised_key(id, recipient, number), &ended)?;
    let who = txn.get::<Recipient>(RECIPIENTS, &recipient_key(id, recipient))?;
    if result != ReviseResult::Withdrawn || !who.is_some_and(|who| who.state.waits()) {
        return Ok(());
    }
    let withdrawals = undone(txn, id, recipient, |mode| mode == ReviseMode::Withdraw)?;
    let Some(revision) = withdrawals.last().copied() else { return Ok(()) };
    revise::decided(txn, site, Decided { revision, ..redirect }, ReviseResult::Withdrawn, "")
}

/// The revisions of a recipient's text that the edge has not made, or not yet.
fn undone(
    rows: &impl Rows,
    id: MessageId,
    recipient: u32,
    is_meant: impl Fn(ReviseMode) -> bool,
) -> Result<Vec<u32>, StoreError> {
    let all = rows.prefix::<RevisedRow>(REVISED, &key2(&id.0, &recipient.to_be_bytes()), usize::MAX)?;
    let is_undone = |row: &RevisedRow| matches!(row.result, ReviseResult::Pending | ReviseResult::TooLate);
    let undone = all.into_iter().filter(|(_, row)| is_undone(row) && is_meant(row.mode));
    Ok(undone.map(|(key, _)| index_of(&key)).filter(|number| !is_redirect(*number)).collect())
}

/// Records what a redirect came to. If the edge has given the old address up, the same commit queues the message for the
/// new one.
pub fn decided(
    txn: &mut Txn<'_>,
    site: &Site,
    decided: Decided,
    result: ReviseResult,
    text: &str,
) -> Result<(), StoreError> {
    let Decided { id, recipient, revision: number, at } = decided;
    let (key, to) = (revised_key(id, recipient, number), recipient_key(id, recipient));
    let redirect = pending(txn, id, recipient)?.filter(|redirect| redirect.number == number);
    let Some(row) = txn.get::<RevisedRow>(REVISED, &key)? else { return Ok(()) };
    let Some(redirect) = redirect else { return decided_for_author(txn, site, decided, row, result) };
    let Some(mut who) = txn.get::<Recipient>(RECIPIENTS, &to)? else { return Ok(()) };
    if result == ReviseResult::Withdrawn {
        // What its author has made of it meanwhile goes to the new address, whatever the edge says of the old one.
        for revision in undone(txn, id, recipient, |mode| mode != ReviseMode::Withdraw)? {
            if (who.revision + 1..=redirect.revision).contains(&revision) {
                revise::decided(txn, site, Decided { revision, ..decided }, ReviseResult::Replaced, "")?;
            }
        }
        who.revision = redirect.revision;
    }
    txn.delete(REDIRECTS, &to)?;
    txn.put(REVISED, &key, &RevisedRow { result, at, text: revise::cut(text), ..row })?;
    let message = mail::shown(txn, id, redirect.revision)?;
    let what = if result == ReviseResult::Withdrawn {
        // Before the old one is settled: what the message is signed with goes with the last who waits.
        enter(txn, site, (id, message.as_ref()), &redirect, (recipient, &who), at)?;
        let doubt = match who.in_doubt {
            true => "; a host may have it all the same: what it answered is not known",
            false => "",
        };
        let what = format!("redirected to {}{doubt}", redirect.to);
        revise::settle_withdrawn(txn, (id, &to), &mut who, at, &what)?;
        txn.put(RECIPIENTS, &to, &who)?;
        what
    } else {
        format!(
            "not redirected to {}: too late, {}",
            redirect.to,
            if text.is_empty() { "it has left" } else { text }
        )
    };
    if let Some(message) = message {
        txn.release_body(message.body())?;
    }
    mail::touch_author(txn, id)?;
    trace::note(txn, id, at, format!("{}: {what}", who.address))
}

/// Enters whoever gets the message instead, and queues it. What was asked of the old address is asked of the new one,
/// and reports name the old one (RFC 3461 §5.2.7).
fn enter(
    txn: &mut Txn<'_>,
    site: &Site,
    (id, message): (MessageId, Option<&Message>),
    redirect: &Redirect,
    (recipient, old): (u32, &Recipient),
    at: u64,
) -> Result<(), StoreError> {
    let Redirect { number, to, revision } = redirect;
    let written = || {
        let (kind, address) = typed(&old.address.parse().ok()?);
        Some(format!("{kind};{address}")).filter(|original| is_original_recipient(original))
    };
    let row = Recipient {
        address: to.clone(),
        via: Some(old.via.clone().unwrap_or_else(|| old.address.clone())).filter(|via| via != to),
        state: DeliveryState::Queued,
        at,
        host: None,
        tls: None,
        relay: None,
        text: "waits for the link".into(),
        status: String::new(),
        in_doubt: false,
        next_attempt_at: None,
        reported: false,
        host_reports: false,
        original: old.original.clone().or_else(written),
        ..old.clone()
    };
    mail::enter_recipient(txn, id, *number, &row)?;
    // Of which text they get, a later revision is made.
    if let Some(had) = txn.get::<RevisedRow>(REVISED, &revised_key(id, recipient, *revision))? {
        txn.put(REVISED, &revised_key(id, *number, *revision), &had)?;
    }
    let queued = match message {
        Some(message) => mail::queue_outbound(txn, site, message, id, vec![(*number, to.clone())]),
        None => Err(Refused::new("its text is here no more")),
    };
    match queued {
        Ok(()) => Ok(()),
        Err(Refused::Store(error)) => Err(error),
        // The old address will not get it any more: whoever has sent it is told.
        Err(Refused::Asked(why)) => {
            let failed = Recipient { state: DeliveryState::Failed, status: "5.3.0".into(), text: why, ..row };
            end(txn, (id, *number), &failed)
        }
    }
}

/// The edge reports what became of the message at the address that a redirect leads to, of which a restored big knows only
/// that it was ordered: the old address was given up before, also if the edge says that later.
pub(crate) fn proven(txn: &mut Txn<'_>, site: &Site, outcome: &Outcome, now: u64) -> Result<(), StoreError> {
    let Outcome { message, recipient: number, at, .. } = *outcome;
    let pending = txn.prefix::<Redirect>(REDIRECTS, &message, PENDING_MAX)?;
    let Some((key, _)) = pending.into_iter().find(|(_, redirect)| redirect.number == number) else {
        return Ok(());
    };
    let (recipient, result) = (index_of(&key), ReviseResult::Withdrawn);
    let report = Revised { message, recipient, revision: number, result, at, text: String::new() };
    revise::reported(txn, site, &report, now).map(drop)
}

/// Writes the row of a recipient who will never get it, and that a report is owed.
fn end(txn: &mut Txn<'_>, (id, recipient): (MessageId, u32), row: &Recipient) -> Result<(), StoreError> {
    let key = recipient_key(id, recipient);
    txn.put(RECIPIENTS, &key, row)?;
    if row.is_report_owed() {
        txn.put(REPORTS, &id.0, &Named(id.0))?;
    }
    mail::settled(txn, id, &key)
}

/// Whether a redirect was ordered before this node was restored: that the old address was given up it may know from the
/// new one alone ([`proven`]).
pub(crate) fn is_from_before_restore(rows: &impl Rows, number: u32) -> Result<bool, StoreError> {
    let generation = lane::identity(rows)?.map_or(1, |identity| identity.generation);
    Ok(is_redirect(number) && redirect_after(None, generation).is_some_and(|since| number < since))
}

/// The edge reports that it has given somebody who waits up by a redirect that a restored big knows nothing of. Where to
/// is lost with it, so whoever has sent the message is told. A redirect that was forgotten is one that was made after all
/// that are known of its generation, and before the last restore: there may have been several.
pub(crate) fn forgotten(txn: &mut Txn<'_>, report: &Revised, who: Recipient) -> Result<(), StoreError> {
    let id = MessageId(report.message);
    let generation = lane::identity(txn)?.map_or(1, |identity| identity.generation);
    let Some(since) = redirect_after(None, generation) else { return Ok(()) };
    let known = latest(txn, id, generation_end(report.revision))?;
    if report.revision >= since || known.is_some_and(|known| report.revision <= known) {
        return Ok(());
    }
    let text = "it was redirected before this node was restored, and where to is not known any more: it may have arrived \
                there";
    let state = DeliveryState::Failed;
    let failed = Recipient {
        state,
        at: report.at,
        status: "5.3.0".into(),
        text: text.into(),
        in_doubt: true,
        next_attempt_at: None,
        ..who
    };
    end(txn, (id, report.recipient), &failed)?;
    mail::touch_author(txn, id)?;
    trace::note(txn, id, report.at, format!("{}: {text}", failed.address))
}
