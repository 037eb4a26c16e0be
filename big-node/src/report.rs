//! Telling senders what became of their mail: one DSN (RFC 3464) for each failure, unless they do not want it, and one
//! for each success of which they want to hear (RFC 3461), from the node where the mail is at its end.
//!
//! Where nobody vouches for the address of a sender outside, a report would go to whomever a stranger has named. What
//! could not go on, to others outside or by a gateway, is told here [instead].
//!
//! What came about and the note that a report is owed are one commit; the report and the note's removal are
//! another. So a report is written once, whatever happens between them.

mod instead;

use std::sync::Arc;

use shared::address::Address;
use shared::id::MessageId;
use shared::mime::{Action, DsnRecipient, DsnReport, dsn};
use shared::notify::Notify;
use shared::origin::Channel;
use shared::store::{Committed, Rows, Store, StoreError, Txn};
use shared::tls_wish::TlsWish;
use shared::topology::Topology;
use shared::unit::DeliveryState;
use shared::{age, chunk};

use crate::directory;
use crate::error::Refused;
use crate::gateway::queue;
use crate::mail::{self, Site};
use crate::node;
use crate::reconcile;
use crate::record::{
    EXPANSIONS, Expansion, MESSAGES, Message, Named, Person, RECIPIENTS, REPORTS, Recipient,
};

const AT_ONCE: usize = 100;
/// So often that many are looked at in one round, if nothing can be written of them.
const LOOKS_MAX: usize = 10;
/// Reports of one message that are written in one round: to outside there is one for each recipient.
const OF_ONE_AT_ONCE: usize = 100;
/// The status of what has arrived (RFC 3463).
const DELIVERED: &str = "2.1.5";
/// Largest message whose header is read for a report.
pub(crate) const ORIGINAL_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where looks for reports that are owed go on, and what the last ones found.
#[derive(Debug, Default)]
pub struct Looks {
    from: Vec<u8>,
    /// Messages of this pass over all that wait for a postmaster.
    waiting: usize,
    /// The same, when it was said last.
    said: usize,
}

impl Looks {
    /// A pass has come to its end. What is still to do is said once, and again when it has doubled.
    fn end(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.from.clear();
        if waiting == 0 {
            self.said = 0;
        } else if waiting >= self.said.saturating_mul(2).max(1) {
            self.said = waiting;
            tracing::warn!(
                messages = waiting,
                "mail that could not go on waits for a postmaster to be told of it; add the person whom [site] postmaster names"
            );
        }
    }
}

/// Writes reports that are owed, at `now`, milliseconds since 1970: one look at so many messages at most.
pub async fn write_owed(
    store: &Store,
    site: &Arc<Site>,
    topology: &Topology,
    looks: &mut Looks,
    now: u64,
) -> Result<(), Refused> {
    let postmaster = directory::postmaster_person(&store.read()?, &site.policy)?;
    // Those that cannot be written do not keep the others waiting, nor cost more the more they are.
    for _ in 0..LOOKS_MAX {
        let owed = store.read()?.range::<Named>(REPORTS, &looks.from, None, AT_ONCE)?;
        let (mut is_written, is_last) = (false, owed.len() < AT_ONCE);
        if let Some((last, _)) = owed.last() {
            looks.from = [last.as_slice(), &[0]].concat();
        }
        for (_, Named(id)) in owed {
            match write_some(store, site, topology, postmaster.as_ref(), MessageId(id), now).await {
                Ok(true) => is_written = true,
                Ok(false) => looks.waiting += 1,
                Err(error) => {
                    tracing::warn!(message = %MessageId(id), %error, "a delivery report could not be written yet");
                }
            }
        }
        if is_last {
            looks.end();
        }
        if is_written || is_last {
            break;
        }
    }
    reconcile::ask_of_made_again(store).await
}

/// A recipient, behind the key of their row.
type Keyed = (Vec<u8>, Recipient);

/// What a sender is still to be told of a message.
#[derive(Default)]
struct Owed {
    recipients: Vec<Keyed>,
    expansions: Vec<(Vec<u8>, Expansion)>,
}

impl Owed {
    fn of(rows: &impl Rows, id: MessageId) -> Result<Self, StoreError> {
        let mut recipients = rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?;
        recipients.retain(|(_, row)| row.is_report_owed() && row.stand_in.is_none());
        Ok(Self { recipients, expansions: rows.prefix(EXPANSIONS, &id.0, usize::MAX)? })
    }

    fn is_empty(&self) -> bool {
        self.recipients.is_empty() && self.expansions.is_empty()
    }

    /// What a report says of a message whose sender has that `wish`.
    fn described(&self, wish: TlsWish) -> Vec<DsnRecipient> {
        let action = |row: &Recipient| match row.state {
            DeliveryState::Relayed if row.forwarder.is_none() => Action::Relayed,
            // That a person forwards is not told, as in `privacy`.
            DeliveryState::Delivered | DeliveryState::Relayed => Action::Delivered,
            _ => Action::Failed,
        };
        let recipients =
            self.recipients.iter().filter_map(|(_, row)| described(row, wish, action(row), None));
        recipients.chain(self.expansions.iter().filter_map(|(_, group)| expanded(group))).collect()
    }

    /// When the first of it came about, milliseconds since 1970.
    fn at(&self) -> u64 {
        let recipients = self.recipients.iter().map(|(_, row)| row.at);
        recipients.chain(self.expansions.iter().map(|(_, group)| group.at)).min().unwrap_or_default()
    }

    /// What the first report tells, to an author here or outside. Here it is what came about together.
    ///
    /// A report to outside is made again by a big that went back, and has to be the same: what else is owed at this
    /// moment, or came in one commit, is chance. So it tells of one recipient only, or of all that the commit which
    /// took the message in has entered: mailboxes and groups.
    fn first(mut self, is_here: bool) -> Self {
        let is_entered = |row: &Recipient| row.person.is_some();
        if is_here {
            let at = self.at();
            self.recipients.retain(|(_, row)| row.at == at);
            self.expansions.retain(|(_, group)| group.at == at);
        } else if !self.expansions.is_empty() || self.recipients.iter().any(|(_, row)| is_entered(row)) {
            self.recipients.retain(|(_, row)| is_entered(row));
        } else {
            self.recipients.truncate(1);
        }
        self
    }

    fn settle(self, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        for (key, _) in self.recipients {
            // Its row may be another than when the report was composed.
            if let Some(row) = txn.get::<Recipient>(RECIPIENTS, &key)? {
                txn.put(RECIPIENTS, &key, &Recipient { reported: true, ..row })?;
            }
        }
        self.expansions.iter().try_for_each(|(key, _)| txn.delete(EXPANSIONS, key).map(drop))
    }
}

/// Writes reports that are owed of a message: further ones in the next pass. `false` if it waits for a postmaster.
async fn write_some(
    store: &Store,
    site: &Arc<Site>,
    topology: &Topology,
    postmaster: Option<&Person>,
    id: MessageId,
    now: u64,
) -> Result<bool, Refused> {
    if !instead::tell((store, site, topology), postmaster, id, now).await? {
        return Ok(false);
    }
    for _ in 0..OF_ONE_AT_ONCE {
        if !write_one(store, site, topology, id, now).await? {
            break;
        }
    }
    Ok(true)
}

/// Writes the first report that is owed of a message; whether there are more.
async fn write_one(
    store: &Store,
    site: &Arc<Site>,
    topology: &Topology,
    id: MessageId,
    now: u64,
) -> Result<bool, Refused> {
    let snapshot = store.read()?;
    let message = snapshot.get::<Message>(MESSAGES, &id.0)?;
    let author = message.as_ref().map(|message| mail::author_of(&snapshot, message)).transpose()?.flatten();
    let owed = Owed::of(&snapshot, id)?.first(author.is_some());
    let path = message.as_ref().and_then(|message| message.origin.reverse_path.as_deref());
    let author = match (&message, author) {
        // Of mail whose author is here no more the postmaster is told, and not whoever has the address by now.
        (Some(message), Some(_)) if path.is_some() => {
            let own = mail::author_address(&snapshot, message)?;
            Some(own.unwrap_or_else(|| topology.site.postmaster.clone()))
        }
        _ => path.and_then(|path| path.parse::<Address>().ok()),
    };
    let wish = message.as_ref().map(|message| message.origin.tls_wish);
    let recipients = owed.described(wish.unwrap_or_default());
    let report = match (&message, author) {
        (Some(message), Some(author)) if !recipients.is_empty() => {
            let original = store.body(message.body());
            // Without the original, its header is missing from the report; what became of it is told all the same.
            let original = original.and_then(|reader| mail::content(reader, message, ORIGINAL_BYTES_MAX));
            let (parts, original) = ((store, &**site, topology), original.unwrap_or_default());
            let at = written_at(owed.at(), message, now);
            // Signing takes a while.
            let composed =
                tokio::task::block_in_place(|| compose(parts, message, &author, recipients, original, at));
            Some(composed?)
        }
        // A null reverse-path is told nothing (RFC 5321 §4.5.5).
        _ => None,
    };
    let site = Arc::clone(site);
    let written = store.commit(move |txn| {
        owed.settle(txn)?;
        // More may have come about since the report was composed: it is owed still.
        let more = !Owed::of(txn, id)?.is_empty();
        if !more && !instead::is_due(txn, &site, id)? {
            txn.delete(REPORTS, &id.0)?;
            queue::sweep(txn, id)?;
            mail::let_go(txn, id)?;
        }
        match report {
            Some(incoming) if !mail::is_known(txn, incoming.id)? => {
                mail::receive(txn, &site, incoming, &[], now)?;
            }
            _ => {}
        }
        Ok::<_, Refused>(more)
    });
    written.await.map(Committed::into_inner)
}

/// When a report is written of what came about at `at`, all in milliseconds since 1970: then, so that one which is made
/// again says the same. What an edge says of the time is believed within reason.
fn written_at(at: u64, message: &Message, now: u64) -> u64 {
    let since = message.origin.accepted_at;
    if (since..age::too_far(now)).contains(&at) { at } else { now }
}

/// Whole seconds.
pub(crate) fn seconds(millis: u64) -> i64 {
    i64::try_from(millis / 1000).unwrap_or(i64::MAX)
}

/// What a report says of a recipient of a message whose sender has that `wish`; attempts go on until `retry_until`, in
/// seconds since 1970. `None` if their address cannot be written.
pub(crate) fn described(
    row: &Recipient,
    wish: TlsWish,
    action: Action,
    retry_until: Option<i64>,
) -> Option<DsnRecipient> {
    let is_attempted = !matches!(row.state, DeliveryState::Queued | DeliveryState::Relaying);
    let (status, diagnostic) = match (&row.forwarder, action) {
        (_, Action::Delivered) => (DELIVERED, None),
        // What hosts inside say of a success is not for strangers.
        (None, Action::Relayed) if row.gateway.is_some() => (row.status.as_str(), None),
        (Some(_), _) => (row.status.as_str(), Some(not_forwarded(&row.status, wish).into())),
        (None, _) => (row.status.as_str(), Some(row.text.clone())),
    };
    Some(DsnRecipient {
        // Its author knows the address that was written to, not where that one leads.
        recipient: row.via.as_ref().unwrap_or(&row.address).parse().ok()?,
        original: row.original.clone(),
        action,
        status: if status.is_empty() { "4.0.0" } else { status }.into(),
        // Strangers are not told addresses inside, nor anybody where a person forwards to.
        remote_mta: row.host.clone().filter(|_| row.gateway.is_none() && row.forwarder.is_none()),
        diagnostic,
        last_attempt: is_attempted.then(|| seconds(row.at)),
        retry_until,
    })
}

/// Why mail did not go where a person forwards it, as far as that can be told without saying where that is. A host there may
/// say anything of mail whose sender wants nothing of TLS.
fn not_forwarded(status: &str, wish: TlsWish) -> &'static str {
    match (status, wish) {
        ("5.7.30", TlsWish::Required) => {
            "it could not be forwarded, for TLS is not certain there, as its sender wants it (REQUIRETLS)"
        }
        ("5.7.10", TlsWish::Required) => "it could not be forwarded under TLS",
        _ => "it could not be forwarded",
    }
}

fn expanded(group: &Expansion) -> Option<DsnRecipient> {
    Some(DsnRecipient {
        recipient: group.address.parse().ok()?,
        original: group.original.clone(),
        action: Action::Expanded,
        status: DELIVERED.into(),
        remote_mta: None,
        diagnostic: None,
        last_attempt: Some(seconds(group.at)),
        retry_until: None,
    })
}

/// A report to `author` about a message, which is in `original`, written at `at`, milliseconds since 1970.
///
/// The same report has the same id, and with it the same octets: an edge that has had it from a big which went back
/// since takes the second one for the first.
pub(crate) fn compose(
    (store, site, topology): (&Store, &Site, &Topology),
    message: &Message,
    author: &Address,
    recipients: Vec<DsnRecipient>,
    original: Vec<u8>,
    at: u64,
) -> Result<mail::Incoming, Refused> {
    let mut report = DsnReport {
        id: MessageId::from_parts(at, [0; 10]),
        from: topology.site.postmaster.clone(),
        to: author.clone(),
        date: seconds(at),
        reporting_mta: topology.edge.hostname.clone(),
        arrival: Some(seconds(message.origin.accepted_at)),
        envelope_id: message.origin.named().map(ToOwned::to_owned),
        original_message_id: message.origin.message_id.clone(),
        recipients,
        original,
        returns: message.origin.returns(),
    };
    // Over what is stored, for which the id is the key, and by a secret, so that nobody outside makes two alike.
    let digest = blake3::keyed_hash(&site.outbound_secret, &chunk::encode_all(&dsn(&report)));
    let mut random = [0; 10];
    random.copy_from_slice(&digest.as_bytes()[..10]);
    report.id = MessageId::from_parts(at, random);
    let content = dsn(&report);
    // Nobody is to be told what becomes of a report (RFC 3461 §6.1).
    let mut origin = node::origin(Channel::Report, None, vec![author.to_string()], &content);
    origin.recipients.iter_mut().for_each(|to| to.notify = Some(Notify::NEVER.to_string()));
    origin.tls_wish = message.origin.tls_wish.of_report();
    let made = node::written(store, report.id, origin, &content)?;
    Ok(node::signed(store, site, made, &content)?)
}

#[cfg(test)]
mod tests {
    use shared::store::sim::{Faults, SimDisk};

    use super::*;

    fn row(state: DeliveryState) -> Recipient {
        Recipient {
            address: "dora@in.example".into(),
            via: None,
            forwarder: None,
            gateway: Some("plant".into()),
            state,
            at: 1,
            host: Some("10.0.0.7".into()),
            tls: None,
            relay: None,
            text: "250 stored by 10.0.0.7".into(),
            status: "2.6.0".into(),
            in_doubt: false,
            next_attempt_at: None,
            reported: false,
            host_reports: false,
            notify: None,
            original: None,
            person: None,
            revision: 0,
            stand_in: None,
        }
    }

    #[test]
    fn what_hosts_inside_say_of_a_success_is_not_told() {
        let told =
            described(&row(DeliveryState::Relayed), TlsWish::Unsaid, Action::Relayed, None).expect("is told");
        assert_eq!((told.diagnostic, told.remote_mta, told.status.as_str()), (None, None, "2.6.0"));
        let by_edge = Recipient { gateway: None, ..row(DeliveryState::Relayed) };
        let told = described(&by_edge, TlsWish::Unsaid, Action::Relayed, None).expect("is told");
        assert_eq!(told.diagnostic.as_deref(), Some("250 stored by 10.0.0.7"));
    }

    #[test]
    fn only_of_mail_whose_sender_wants_it_a_report_says_that_tls_is_not_certain() {
        for (status, wish, is_said) in [
            ("5.7.30", TlsWish::Required, true),
            ("5.7.10", TlsWish::Required, true),
            ("5.7.1", TlsWish::Required, false),
            ("5.7.30", TlsWish::Unsaid, false),
            ("5.7.10", TlsWish::Dispensable, false),
        ] {
            let forwarder = Some("dora@example.com".into());
            let row =
                Recipient { gateway: None, forwarder, status: status.into(), ..row(DeliveryState::Failed) };
            let told = described(&row, wish, Action::Failed, None).and_then(|told| told.diagnostic);
            let told = told.expect("is told");
            assert!(told.starts_with("it could not be forwarded"), "{told}");
            assert_eq!(told.contains("TLS"), is_said, "{status} {wish:?}: {told}");
        }
    }

    #[test]
    fn that_it_was_reported_is_all_that_a_report_changes() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let (id, key) = (MessageId([1; 16]), mail::recipient_key(MessageId([1; 16]), 0));
        let put = |row: Recipient| {
            let key = key.clone();
            store.commit_blocking(move |txn| txn.put(RECIPIENTS, &key, &row)).expect("commits");
        };
        put(row(DeliveryState::Failed));
        let owed = Owed::of(&store.read().expect("reads"), id).expect("reads");
        put(Recipient { revision: 7, ..row(DeliveryState::Failed) });
        store.commit_blocking(move |txn| owed.settle(txn)).expect("commits");
        let row = store.read().and_then(|rows| rows.get::<Recipient>(RECIPIENTS, &key));
        let row = row.expect("reads").expect("is there");
        assert_eq!((row.reported, row.revision), (true, 7));
    }
}
