//! What sessions with a domain's hosts count for in reports of TLS (RFC 8460): the policy that applied, and whether they
//! were as it asks for.
//!
//! Mail whose sender has a wish of TLS of their own, as our reports do, says nothing of policies and is not counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use shared::address::Domain;
use shared::aggregate::{PolicyKind, ResultType, SHOWN_MAX, TlsFailure, TlsPolicy, cut};
use shared::id::unix_millis;
use shared::smtp::Enhanced;
use shared::smtp::client::{Judge, Session, Status, Talk, in_words, judged, result_type};
use shared::tls_wish::TlsWish;

use super::attempt::Hosts;
use super::dane::TlsaRecord;
use super::mta_sts::{Mode, PolicyError, StsRow, allows};
use super::public::is_public;
use super::resolve::{MailHost, Published};
use super::security::{NotToBeUsed, Security, Sts};
use crate::aggregate::count_tls;
use crate::node::Node;

/// What an attempt for a domain counts for.
#[derive(Clone, Copy)]
pub(super) struct Tally<'a> {
    node: &'a Node,
    domain: &'a Domain,
    sts: Option<&'a Sts>,
}

impl<'a> Tally<'a> {
    /// `None` if nothing of it is counted. That its policy could not be fetched is counted here.
    pub fn of(node: &'a Node, domain: &'a Domain, wish: TlsWish, hosts: &'a Hosts) -> Option<Self> {
        if !node.topology.edge.reports.tls || wish != TlsWish::Unsaid {
            return None;
        }
        let in_force = |sts: &&Sts| sts.policy.mode != Mode::None;
        let tally =
            Self { node, domain, sts: hosts.sts.as_ref().ok().and_then(Option::as_ref).filter(in_force) };
        if let Err(PolicyError::NotFetched { why, result }) = &hosts.sts {
            let policy = policy(PolicyKind::Sts, domain.as_str());
            count(node, domain, policy, Some(TlsFailure::unconnected(*result, None, why)));
        }
        Some(tally)
    }

    /// A host got nothing, for the sake of what is published.
    pub fn refused(&self, host: &MailHost, why: &NotToBeUsed) {
        let (policy, result) = match (why, self.sts) {
            (NotToBeUsed::NotNamed(_), Some(sts)) => {
                (self.of_sts(&sts.policy), ResultType::ValidationFailure)
            }
            (NotToBeUsed::Unknown { .. }, _) => {
                (policy(PolicyKind::Tlsa, &host.name), ResultType::DnssecInvalid)
            }
            _ => return,
        };
        let failure = TlsFailure::unconnected(result, Some(&host.name), &why.to_string());
        count(self.node, self.domain, policy, Some(failure));
    }

    /// What a session with a host counts for.
    pub fn session(&self, host: &MailHost, security: &Security) -> Counted {
        let (policy, doubt) = match (&host.published, security, self.sts) {
            (Published::Records { base, records, .. }, Security::Dane(_) | Security::Encrypted, _) => {
                let text = records.iter().take(SHOWN_MAX).map(record).collect();
                let unusable = *security == Security::Encrypted;
                let doubt = unusable
                    .then(|| (ResultType::TlsaInvalid, "SMTP can use none of its TLSA records".into()));
                (TlsPolicy { text, ..policy(PolicyKind::Tlsa, base) }, doubt)
            }
            (_, _, Some(sts)) => {
                let unnamed = !allows(&sts.policy.mx, &host.name);
                let why =
                    || (ResultType::ValidationFailure, NotToBeUsed::NotNamed(host.name.clone()).to_string());
                (self.of_sts(&sts.policy), unnamed.then(why))
            }
            (_, _, None) => (policy(PolicyKind::NoPolicyFound, self.domain.as_str()), None),
        };
        // A policy that is tried out asks for nothing, and what it would come to is what is to be told (RFC 8461 §5).
        let is_tried = policy.kind == PolicyKind::Sts && *security == Security::Opportunistic;
        let watched = self
            .sts
            .filter(|_| is_tried)
            .map(|sts| Arc::new(Watched { judge: Arc::clone(&sts.judge), seen: Mutex::default() }));
        Counted { domain: self.domain.clone(), host: host.name.clone(), policy, doubt, watched }
    }

    fn of_sts(&self, row: &StsRow) -> TlsPolicy {
        let mode = match row.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        };
        let hosts: Vec<_> = row.mx.iter().take(SHOWN_MAX).cloned().collect();
        let mut text = vec!["version: STSv1".to_owned(), format!("mode: {mode}")];
        text.extend(hosts.iter().map(|mx| format!("mx: {mx}")));
        text.push(format!("max_age: {}", row.ends.saturating_sub(row.fetched) / 1_000));
        TlsPolicy { text, hosts, ..policy(PolicyKind::Sts, self.domain.as_str()) }
    }
}

/// What one session counts for.
#[derive(Debug)]
pub(super) struct Counted {
    domain: Domain,
    host: String,
    policy: TlsPolicy,
    /// Why it is none of what the policy asks for, however it goes.
    doubt: Option<(ResultType, String)>,
    watched: Option<Arc<Watched>>,
}

impl Counted {
    /// The TLS that the host is offered, in the place of `asked`.
    pub fn tls(&self, asked: &Arc<ClientConfig>) -> Arc<ClientConfig> {
        match &self.watched {
            Some(watched) => Arc::new(judged(Arc::<Watched>::clone(watched))),
            None => Arc::clone(asked),
        }
    }

    /// The first message of a session that might have been under TLS was dealt with.
    pub fn ended(&self, node: &Node, address: SocketAddr, session: &Session, talk: &Talk) {
        let failure = match talk {
            Talk::HandshakeFailed(status, result) => Some((*result, status.text.clone())),
            _ if session.is_tls() => self.seen().or_else(|| self.doubt.clone()),
            Talk::Next { status, .. } if !is_of_starttls(status) => return,
            Talk::Next { .. } | Talk::Done(..) => Some((
                ResultType::StarttlsNotSupported,
                "it does not offer STARTTLS, or does not keep to it".into(),
            )),
        };
        let failure = failure.map(|(result, reason)| TlsFailure {
            result,
            sending_ip: session.local().and_then(shown),
            host: Some(cut(&self.host)),
            receiving_ip: Some(address.ip().to_string()),
            reason: Some(cut(&reason)),
        });
        count(node, &self.domain, self.policy.clone(), failure);
    }

    fn seen(&self) -> Option<(ResultType, String)> {
        let watched = self.watched.as_ref()?;
        watched.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lets everybody pass, and remembers what a judge says.
#[derive(Debug)]
struct Watched {
    judge: Arc<dyn Judge>,
    seen: Mutex<Option<(ResultType, String)>>,
}

impl Judge for Watched {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let judged = self.judge.judge(end_entity, intermediates, name, now);
        let seen = judged.err().map(|error| (result_type(&error), in_words(&error)));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }
}

/// Our address, as a report has it. One that is translated on its way tells strangers of our network, and them nothing.
fn shown(address: IpAddr) -> Option<String> {
    is_public(address).then(|| address.to_string())
}

/// Whether a host was left because it has no TLS, or hung up or said too much where that should begin; not for what it said.
fn is_of_starttls(status: &Status) -> bool {
    status.code.is_none() && matches!(status.enhanced, Enhanced(4, 7, 10) | Enhanced(4, 7, 0))
}

fn policy(kind: PolicyKind, domain: &str) -> TlsPolicy {
    TlsPolicy { kind, domain: domain.to_owned(), text: Vec::new(), hosts: Vec::new() }
}

/// A record as it is written in a zone (RFC 6698 §2.2).
fn record(record: &TlsaRecord) -> String {
    let data: String = record.data.iter().map(|octet| format!("{octet:02X}")).collect();
    cut(&format!("{} {} {} {data}", record.usage, record.selector, record.matching))
}

/// Counts, with the next commit: a power cut costs a count. What big would sign no report of is left out.
fn count(node: &Node, domain: &Domain, policy: TlsPolicy, failure: Option<TlsFailure>) {
    if !policy.is_sound() || failure.as_ref().is_some_and(|failure| !failure.is_sound()) {
        tracing::debug!(%domain, ?policy, ?failure, "not as it may stand in a report");
        return;
    }
    let (domain, now) = (domain.to_string(), unix_millis());
    let counted =
        node.store.commit_lazily(move |txn| count_tls(txn, &domain, &policy, failure.as_ref(), now), || {});
    if let Err(error) = counted {
        tracing::warn!(%error, "a session could not be counted for a report of TLS");
    }
}

#[cfg(test)]
mod tests {
    use shared::smtp::client::Class;

    use super::*;

    #[test]
    fn what_ends_where_tls_should_begin_is_told_from_what_ends_otherwise() {
        let of = |enhanced| Status::ours(Class::Temporary, enhanced, "the connection was lost");
        // The last is a 5xx at the greeting.
        let said = Status { code: Some(554), ..of(Enhanced(4, 7, 0)) };
        let all = [of(Enhanced(4, 7, 10)), of(Enhanced(4, 7, 0)), of(Enhanced(4, 4, 2)), said];
        assert_eq!(all.each_ref().map(is_of_starttls), [true, true, false, false]);
    }

    #[test]
    fn addresses_of_our_own_network_are_told_nobody() {
        for (address, expected) in [
            ("10.1.2.3", false),
            ("192.168.7.1", false),
            ("127.0.0.1", false),
            ("fd00::1", false),
            ("193.0.0.1", true),
            ("2a00:1450::1", true),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(shown(address), expected.then(|| address.to_string()));
        }
    }
}
