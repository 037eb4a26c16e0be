//! One attempt: the hosts of a domain in order, until one takes the message or refuses it; or the smart host.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use shared::address::Domain;
use shared::id::{MessageId, monotonic};
use shared::sasl::Credentials;
use shared::smtp::client::{
    self, Class, Config, Message, Outcome, Protocol, REQUIRETLS_NEEDED, Session, Status, Talk, TlsPolicy,
    opportunistic,
};
use shared::smtp::{Enhanced, Recipient};
use shared::store::BodyKey;
use shared::tls_wish::TlsWish;
use shared::topology::Place;

use super::fallback::{self, Fallback};
use super::mta_sts::{Policies, PolicyError};
use super::pool::{MESSAGES_MAX, Pool};
use super::public::is_public;
use super::relay::{Route, SmartHost};
use super::resolve::{MailHost, Resolver, UNPROVED};
use super::scheduler::{Limits, Shown};
use super::security::{NotToBeUsed, Security, Sts, for_good};
use super::signatures::Watch;
use super::tally::{Counted, Tally};
use crate::content::Content;
use crate::node::Node;
use crate::record::QueueRow;

/// Why the smart host is asked, where all mail goes there.
const BY_MODE: &str = "all mail goes there";

/// How long hosts of a domain that say nothing are tried, one after the other.
const DIRECT_TIME: Duration = Duration::from_secs(5 * 60);

/// What became of one recipient in an attempt.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub status: Status,
    /// The host that said so.
    pub host: Option<String>,
    /// The TLS that was under, and what the host had proved; `None` is in clear.
    pub tls: Option<String>,
    /// Why the smart host was asked; `None` if the domain's own were.
    pub relay: Option<String>,
    /// It has taken the message, and reports on it as the sender wants.
    pub host_reports: bool,
    /// The smart host is to be asked, and has no place: it is due as before.
    pub waits: bool,
}

impl Report {
    /// No host was asked.
    pub fn ours(status: Status) -> Self {
        Self { status, host: None, tls: None, relay: None, host_reports: false, waits: false }
    }

    /// Nobody could be reached a moment ago, as this says.
    fn not_asked_again(&self) -> Self {
        let Status { class, enhanced, text, .. } = &self.status;
        let text = format!("not asked again yet: {text}");
        Self { status: Status::ours(*class, *enhanced, &text), ..self.clone() }
    }

    /// Of the hosts of a domain this was said, and the smart host, which is to be asked, has no place.
    fn waiting(&self) -> Self {
        let Status { class, enhanced, text, .. } = &self.status;
        let text = format!("{text}; it waits for a place at the smart host");
        let status = Status::ours(*class, *enhanced, &text).into_temporary();
        Self { status, waits: true, ..self.clone() }
    }

    /// What the smart host, as the second choice, will not do for the sender's wish of TLS, hosts of the domain may do when
    /// they are back: it becomes what was said of them.
    fn leave_to(&mut self, of_domain: &Self) {
        if is_of_wish(&self.status) {
            self.clone_from(of_domain);
        }
    }
}

/// A message on its way to some of its recipients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies<'a> {
    pub message: MessageId,
    /// As it was when the attempt was entered as under way.
    pub row: &'a QueueRow,
    /// With their indexes on big.
    pub recipients: &'a [(u32, Recipient)],
}

impl Copies<'_> {
    /// The same report for each recipient.
    pub fn all(&self, report: &Report) -> Vec<(u32, Report)> {
        self.recipients.iter().map(|(index, _)| (*index, report.clone())).collect()
    }

    fn told(&self, outcomes: Vec<Outcome>, report: impl Fn(Status) -> Report) -> Vec<(u32, Report)> {
        let one = |outcome: Outcome| {
            let (index, _) = self.recipients.get(outcome.recipient)?;
            Some((*index, Report { host_reports: outcome.host_reports, ..report(outcome.status) }))
        };
        outcomes.into_iter().filter_map(one).collect()
    }
}

/// A host, and what it has to prove; or why it is not to be used.
pub(super) type Host = (MailHost, Result<Security, NotToBeUsed>);

/// The hosts that serve a domain.
pub(super) struct Hosts {
    /// Best first.
    pub hosts: Vec<Host>,
    /// What the domain asks of them by MTA-STS, if it was to be asked.
    pub sts: Result<Option<Sts>, PolicyError>,
    /// Why it is not known now where another one is.
    unsure: Option<Status>,
}

/// What came of asking the hosts of a domain.
enum Asked {
    /// DNS or a host has spoken.
    Told(Vec<(u32, Report)>, Shown<Report>),
    /// DNS gave no answer, or no host could be reached.
    Unroutable(Report),
}

/// Whom to talk to, and how.
#[derive(Clone)]
struct Target<'a> {
    name: &'a str,
    /// What it is asked for by, under TLS.
    asked: &'a str,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    policy: TlsPolicy,
    security: Security,
    login: Option<&'a Credentials>,
    /// What a session with it counts for in reports of TLS.
    counted: Option<Arc<Counted>>,
}

/// What a session is good for: a destination, at a host of it, with what that host was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    place: String,
    name: String,
    address: SocketAddr,
    policy: TlsPolicy,
    security: Security,
    has_login: bool,
}

impl Target<'_> {
    /// What it has proved by taking mail under this version of TLS; `None` is in clear.
    fn shown(&self, version: Option<&str>) -> Option<String> {
        version.map(|version| self.security.shown(version))
    }

    fn usage(&self, place: &str) -> Use {
        let (place, name) = (place.to_owned(), self.name.to_owned());
        let Self { address, policy, login, .. } = *self;
        Use { place, name, address, policy, security: self.security.clone(), has_login: login.is_some() }
    }
}

/// What attempts need.
#[derive(Debug)]
pub(super) struct Attempt {
    node: Arc<Node>,
    resolver: Arc<Resolver>,
    /// Validates nothing. The smart host, whose name may be one that only its own network knows, proves itself by its
    /// certificate.
    trusting: Resolver,
    /// What domains ask of their hosts by MTA-STS, if that is looked at.
    policies: Option<Policies>,
    route: Route,
    fallback: Fallback<Report>,
    signatures: Watch,
    tls: Arc<ClientConfig>,
    /// Sessions between two messages.
    pool: Mutex<Pool<Use, Session>>,
}

impl Attempt {
    /// With at most as many sessions that wait for their next message as there are attempts.
    pub fn new(
        node: Arc<Node>,
        resolver: Arc<Resolver>,
        trusting: Resolver,
        policies: Option<Policies>,
        route: Route,
        limits: Limits,
    ) -> Self {
        let (pool, fallback) = (Mutex::new(Pool::new(limits.attempts)), Fallback::new(limits));
        let (signatures, tls) = (Watch::default(), Arc::new(opportunistic()));
        Self { node, resolver, trusting, policies, route, fallback, signatures, tls, pool }
    }

    /// Where attempts for a domain are counted: at the domain, or at the smart host that takes all mail, which has
    /// no name here.
    pub fn place<'d>(&self, domain: &'d str) -> &'d str {
        match self.route {
            Route::Relay(_) => "",
            Route::Direct | Route::DirectThenRelay(_) => domain,
        }
    }

    /// The only [place](Self::place) there is, where all mail goes to the smart host.
    pub fn only_place(&self) -> Option<&'static str> {
        matches!(self.route, Route::Relay(_)).then_some("")
    }

    /// The destination of the recipients that are attempted at a [place](Self::place); `None` is all of them.
    pub fn destination<'d>(&self, place: &'d str) -> Option<&'d str> {
        match self.route {
            Route::Relay(_) => None,
            Route::Direct | Route::DirectThenRelay(_) => Some(place),
        }
    }

    /// Attempts delivery at a [place](Self::place). With `known`, nobody could be reached there a moment ago; `fallback`
    /// is a place at the smart host that was taken for that. One report for each recipient.
    pub async fn deliver(
        &self,
        copies: Copies<'_>,
        place: &str,
        known: Option<&Report>,
        fallback: Option<fallback::Place<Report>>,
    ) -> (Vec<(u32, Report)>, Shown<Report>) {
        match (&self.route, known) {
            (Route::Relay(host), None) => self.relay(copies, place, host, BY_MODE.into()).await,
            (Route::Relay(_) | Route::Direct, Some(known)) => {
                (copies.all(&known.not_asked_again()), Shown::Nothing)
            }
            (Route::Direct, None) => match self.direct(copies, place).await {
                Asked::Told(reports, shown) => (reports, shown),
                Asked::Unroutable(report) => (copies.all(&report), Shown::Unreachable(report)),
            },
            (Route::DirectThenRelay(host), known) => {
                let asked = match known {
                    Some(known) => Asked::Unroutable(known.clone()),
                    None => self.direct(copies, place).await,
                };
                match asked {
                    Asked::Told(reports, shown) => (reports, shown),
                    Asked::Unroutable(report) => {
                        let shown =
                            known.map_or_else(|| Shown::Unreachable(report.clone()), |_| Shown::Nothing);
                        let Some(fallback) = fallback.or_else(|| self.fallback.place()) else {
                            return (copies.all(&report.waiting()), shown);
                        };
                        let own = known.map_or_else(|| report.clone(), Report::not_asked_again);
                        let mut told =
                            self.fall_back(copies, place, host, fallback, report.status.text).await;
                        told.iter_mut().for_each(|(_, told)| told.leave_to(&own));
                        (told, shown)
                    }
                }
            }
        }
    }

    /// Hands the copies to the smart host, unless that could not be reached a moment ago. `why` is said there.
    async fn fall_back(
        &self,
        copies: Copies<'_>,
        place: &str,
        host: &SmartHost,
        mut fallback: fallback::Place<Report>,
        why: String,
    ) -> Vec<(u32, Report)> {
        if let Some(known) = &fallback.known {
            return copies.all(&Report { relay: Some(why), ..known.not_asked_again() });
        }
        fallback.begins();
        let (reports, shown) = self.relay(copies, place, host, why).await;
        fallback.showed(shown);
        reports
    }

    /// Takes a place at the smart host for mail whose domain's hosts could not be reached a moment ago. `None` if there is
    /// none.
    pub fn fallback(&self) -> Option<fallback::Place<Report>> {
        self.fallback.place()
    }

    /// Whether mail whose domain's hosts could not be reached a moment ago waits for a place at the smart host.
    pub fn waits_for_fallback(&self) -> bool {
        self.falls_back() && !self.fallback.has_place()
    }

    /// Whether the smart host takes mail whose domain's hosts cannot be reached.
    pub fn falls_back(&self) -> bool {
        matches!(self.route, Route::DirectThenRelay(_))
    }

    async fn direct(&self, copies: Copies<'_>, place: &str) -> Asked {
        // Every recipient of an attempt has the domain that it is for.
        let Some((_, first)) = copies.recipients.first() else {
            return Asked::Told(Vec::new(), Shown::Nothing);
        };
        let domain = first.address.domain();
        let wish = copies.row.tls_wish;
        let found = match self.hosts(domain, wish).await {
            Ok(found) => found,
            // Who forges answers is not to choose which way the mail goes.
            Err(status) if status.enhanced == UNPROVED => {
                return Asked::Told(copies.all(&Report::ours(status)), Shown::Strained);
            }
            Err(status) if status.class == Class::Temporary => {
                return Asked::Unroutable(Report::ours(status));
            }
            Err(status) => return Asked::Told(copies.all(&Report::ours(status)), Shown::Nothing),
        };
        let tally = Tally::of(&self.node, domain, wish, &found);
        let Hosts { hosts, unsure, .. } = &found;
        // That one may do what the others will not.
        let mut last = unsure.clone().filter(|_| wish == TlsWish::Required).map(Report::ours);
        let (mut targets, mut reached) = (Vec::new(), false);
        for (host, security) in hosts {
            let security = match security {
                Ok(security) => security,
                Err(why) => {
                    // Who keeps that from us must neither get the mail in clear nor lead it another way.
                    reached = true;
                    tally.inspect(|tally| tally.refused(host, why));
                    last = Some(latest(last, Report::ours(why.status())));
                    continue;
                }
            };
            let tls = security.tls(&self.tls);
            for address in &host.addresses {
                if let Err(status) = self.allowed(*address) {
                    last.get_or_insert(Report::ours(status));
                    continue;
                }
                let counted = tally.map(|tally| Arc::new(tally.session(host, security)));
                targets.push(Target {
                    name: &host.name,
                    asked: security.asked(host),
                    address: SocketAddr::new(*address, self.node.topology.edge.outbound.port),
                    tls: counted.as_ref().map_or_else(|| Arc::clone(&tls), |counted| counted.tls(&tls)),
                    policy: security.tls_policy(),
                    security: security.clone(),
                    login: None,
                    counted,
                });
            }
        }
        let report =
            |name: &str, status, tls| Report { host: Some(name.to_owned()), tls, ..Report::ours(status) };
        if let Some((target, outcomes, tls)) = self.again(copies, place, &targets).await {
            let shown = shown(&outcomes);
            return Asked::Told(
                copies.told(outcomes, |status| report(target.name, status, tls.clone())),
                shown,
            );
        }
        let begun = Instant::now();
        for target in &targets {
            // Hosts that take connections and say nothing would use up what time there is for the smart host.
            if !reached && begun.elapsed() > DIRECT_TIME {
                break;
            }
            match self.connection(copies, place, target).await {
                Talk::Done(outcomes, version) => {
                    let (shown, tls) = (shown(&outcomes), target.shown(version));
                    return Asked::Told(
                        copies.told(outcomes, |status| report(target.name, status, tls.clone())),
                        shown,
                    );
                }
                Talk::Next { status, greeted } => {
                    reached |= greeted;
                    last = Some(latest(last, report(target.name, for_good(wish, status), None)));
                }
                // It was there to offer TLS.
                Talk::HandshakeFailed(status, _) => {
                    reached = true;
                    last = Some(report(target.name, status, None));
                }
            }
        }
        let nobody = || {
            let text = format!("no host of {domain} can be reached");
            Report::ours(Status::ours(Class::Temporary, Enhanced(4, 4, 1), &text))
        };
        let mut report = last.unwrap_or_else(nobody);
        if !targets.is_empty() && !reached {
            return Asked::Unroutable(report);
        }
        if hosts.len() > 1 && report.status.class == Class::Permanent && report.status.code.is_some() {
            // A host that greets with 5xx speaks for itself, not for the domain.
            report.status.class = Class::Temporary;
        }
        let shown = if is_of_wish(&report.status) { Shown::Nothing } else { Shown::Strained };
        Asked::Told(copies.all(&report), shown)
    }

    /// The hosts that serve a domain, best first, and what each has to prove for mail whose sender has this wish.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn hosts(&self, domain: &Domain, wish: TlsWish) -> Result<Hosts, Status> {
        let (hosts, unsure) = self.resolver.hosts(domain, self.node.topology.edge.outbound.port).await?;
        let sts = self.sts(domain, &hosts).await;
        let trusted = self.policies.as_ref().map(Policies::trusted);
        let security = |host: &MailHost| match &sts {
            Ok(sts) => Security::wished(wish, host, sts.as_ref(), trusted),
            Err(_) if wish == TlsWish::Dispensable => Ok(Security::Opportunistic),
            Err(PolicyError::Store(_)) => Err(NotToBeUsed::Unreadable),
            // Nobody waits for a policy but who wishes for what it would prove.
            Err(unknown) => Security::wished(wish, host, None, trusted)
                .map_err(|none| none.without_policy(&unknown.to_string())),
        };
        let hosts = hosts.into_iter().map(|host| (security(&host), host)).map(|(asked, host)| (host, asked));
        let hosts = hosts.collect();
        Ok(Hosts { hosts, sts, unsure })
    }

    /// What a domain asks of its hosts by MTA-STS, if it is to be asked.
    async fn sts(&self, domain: &Domain, hosts: &[MailHost]) -> Result<Option<Sts>, PolicyError> {
        match &self.policies {
            Some(policies) if Security::asks_policy(hosts) => {
                let policy = policies.of(domain).await.inspect_err(|error| {
                    if let PolicyError::Store(error) = error {
                        tracing::error!(%domain, %error, "a domain's MTA-STS policy cannot be read");
                    }
                })?;
                let (trusted, judge) = (policies.trusted(), policies.judge());
                Ok(policy.map(|policy| Sts { policy, trusted: trusted.clone(), judge: Arc::clone(judge) }))
            }
            _ => Ok(None),
        }
    }

    /// Looks, for ever, whether DNS can prove anything, where that matters.
    pub async fn watch_signatures(&self) {
        self.signatures.run(&self.node.topology.edge).await;
    }

    /// Why all mail waits, if DNS can prove nothing.
    pub fn alarm(&self) -> Option<String> {
        self.signatures.alarm()
    }

    /// Keeps MTA-STS policies fresh, for ever.
    pub async fn keep_policies(&self) {
        if let Some(policies) = &self.policies {
            policies.run().await;
        }
    }

    /// Hands the copies to the smart host, and says why there.
    async fn relay(
        &self,
        copies: Copies<'_>,
        place: &str,
        host: &SmartHost,
        why: String,
    ) -> (Vec<(u32, Report)>, Shown<Report>) {
        let name = host.place.name();
        let report = |status, tls| {
            let relay = Some(why.clone());
            Report { host: Some(name.clone()), tls, relay, ..Report::ours(status) }
        };
        if copies.row.tls_wish == TlsWish::Required && host.security == Security::Opportunistic {
            let text = "the sender wants it only where TLS is certain (REQUIRETLS), and the smart host need not prove its \
                        name: that takes [edge.outbound] `relay_tls`";
            let refused = report(Status::ours(Class::Permanent, REQUIRETLS_NEEDED, text), None);
            return (copies.all(&refused), Shown::Nothing);
        }
        let addresses = match &host.place {
            Place::Address(address) => Ok(vec![*address]),
            Place::Name(_, port) => self.trusting.addresses(&name).await.map(|addresses| {
                addresses.into_iter().map(|address| SocketAddr::new(address, *port)).collect()
            }),
        };
        let no_address = |why: &str| {
            let text = format!("DNS gives no address of the smart host {name}{why}");
            report(Status::ours(Class::Temporary, Enhanced(4, 4, 3), &text), None)
        };
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(error) => {
                let report = no_address(&format!(": {error}"));
                return (copies.all(&report), Shown::Unreachable(report));
            }
        };
        let SmartHost { tls, policy, security, login, .. } = host;
        let target = |address: &SocketAddr| Target {
            name: &name,
            asked: &name,
            address: *address,
            tls: Arc::clone(tls),
            policy: *policy,
            security: security.clone(),
            login: login.as_ref(),
            counted: None,
        };
        let targets: Vec<_> = addresses.iter().map(target).collect();
        if let Some((_, outcomes, tls)) = self.again(copies, place, &targets).await {
            let shown = shown(&outcomes);
            return (copies.told(outcomes, |status| report(ours_to_mend(status), tls.clone())), shown);
        }
        let (mut last, mut reached) = (no_address(""), false);
        for target in &targets {
            match self.connection(copies, place, target).await {
                Talk::Done(outcomes, version) => {
                    let (shown, tls) = (shown(&outcomes), target.shown(version));
                    return (
                        copies.told(outcomes, |status| report(ours_to_mend(status), tls.clone())),
                        shown,
                    );
                }
                Talk::Next { status, greeted } => {
                    reached |= greeted;
                    last = report(status, None);
                }
                Talk::HandshakeFailed(status, _) => {
                    reached = true;
                    last = report(status, None);
                }
            }
        }
        tracing::warn!(message = %copies.message, relay = %host.place, why = last.status.text, "the smart host cannot be used");
        if is_of_wish(&last.status) {
            return (copies.all(&last), Shown::Nothing);
        }
        // It speaks of itself; its operator, or ours, mends that.
        last.status = last.status.into_temporary();
        let shown = if reached { Shown::Strained } else { Shown::Unreachable(last.clone()) };
        (copies.all(&last), shown)
    }

    /// The very address that would be connected to, after every step of resolution.
    fn allowed(&self, address: IpAddr) -> Result<(), Status> {
        if self.node.topology.edge.outbound.private_addresses || is_public(address) {
            return Ok(());
        }
        let text = format!("DNS names {address}, which is not an address on the Internet");
        Err(Status::ours(Class::Permanent, Enhanced(5, 4, 4), &text))
    }

    fn pool(&self) -> MutexGuard<'_, Pool<Use, Session>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers over a session that is open still, if there is one with one of `targets`. `None` also if it had ended
    /// before the message was attempted.
    async fn again<'t>(
        &self,
        copies: Copies<'_>,
        place: &str,
        targets: &'t [Target<'t>],
    ) -> Option<(&'t Target<'t>, Vec<Outcome>, Option<String>)> {
        let uses: Vec<Use> = targets.iter().map(|target| target.usage(place)).collect();
        let (usage, mut session) = self.kept(&uses).await?;
        let target = targets.get(uses.iter().position(|other| *other == usage)?)?;
        match self.over(&mut session, copies).await {
            Talk::Done(outcomes, version) => {
                self.keep(usage, session);
                Some((target, outcomes, target.shown(version)))
            }
            Talk::Next { .. } | Talk::HandshakeFailed(..) => {
                self.keep(usage, session);
                None
            }
        }
    }

    /// A session for one of `uses` whose host has said nothing since its last message.
    async fn kept(&self, uses: &[Use]) -> Option<(Use, Session)> {
        loop {
            let (usage, mut session) = self.pool().take(uses, monotonic())?;
            if session.is_quiet().await {
                return Some((usage, session));
            }
        }
    }

    async fn connection(&self, copies: Copies<'_>, place: &str, target: &Target<'_>) -> Talk {
        match self.conversation(copies, place, target, target.policy).await {
            Talk::HandshakeFailed(..) if target.policy == TlsPolicy::Opportunistic => {
                self.conversation(copies, place, target, TlsPolicy::Never).await
            }
            other => other,
        }
    }

    async fn conversation(
        &self,
        copies: Copies<'_>,
        place: &str,
        target: &Target<'_>,
        tls: TlsPolicy,
    ) -> Talk {
        let host = client::Host {
            name: target.asked.to_owned(),
            address: target.address,
            tls: Arc::clone(&target.tls),
        };
        let config = Config {
            helo: self.node.topology.edge.hostname.to_string(),
            tls,
            protocol: Protocol::Smtp,
            login: target.login.cloned(),
        };
        let mut session = match Session::open(&host, config).await {
            Ok(session) => session,
            Err(talk) => return talk,
        };
        let talk = self.over(&mut session, copies).await;
        // One in clear only because TLS had failed was counted then.
        if let Some(counted) = target.counted.as_ref().filter(|_| tls != TlsPolicy::Never) {
            counted.ended(&self.node, target.address, &session, &talk);
        }
        self.keep(target.usage(place), session);
        talk
    }

    /// Delivers over a session. That a host does not offer what the sender wishes for is a reason to ask the next one.
    async fn over(&self, session: &mut Session, copies: Copies<'_>) -> Talk {
        let Copies { message: id, row, recipients } = copies;
        let log = |error: &dyn std::fmt::Display| {
            tracing::error!(message = %id, %error, "a queued body cannot be read");
        };
        let unreadable = |error: &dyn std::fmt::Display| {
            log(error);
            let text = "the message cannot be read at the moment";
            Talk::Next { status: Status::ours(Class::Temporary, Enhanced(4, 3, 0), text), greeted: true }
        };
        let key = match self.node.sealing.unwrap(&row.wrapped_key, id) {
            Ok(key) => key,
            Err(error) => return unreadable(&error),
        };
        let mut content = match self.node.store.body(BodyKey(row.body)) {
            Ok(reader) => Content::new(reader, &key),
            Err(error) => return unreadable(&error),
        };
        let piece = || content.next().inspect_err(|error| log(error));
        match session.deliver(message(row, recipients), piece).await {
            Talk::Done(outcomes, version) => match outcomes.first().filter(|first| is_of_wish(&first.status))
            {
                Some(first) => Talk::Next { status: first.status.clone(), greeted: true },
                None => Talk::Done(outcomes, version),
            },
            other => other,
        }
    }

    /// Keeps a session for the next message, or ends it.
    fn keep(&self, usage: Use, session: Session) {
        let ended = match session.is_ready() && session.delivered() < MESSAGES_MAX {
            true => self.pool().put(usage, session, monotonic()),
            false => Some(session),
        };
        // Nobody waits for goodbyes.
        ended.into_iter().for_each(|session| drop(tokio::spawn(session.quit())));
    }

    /// Ends the sessions for which there was no other message.
    pub fn close_idle(&self) {
        let overdue = self.pool().overdue(monotonic());
        overdue.into_iter().for_each(|session| drop(tokio::spawn(session.quit())));
    }
}

/// Whether a host has been given up because it will not do what the sender wishes of TLS (RFC 8689 §4.2.1): it said
/// nothing of the mail.
fn is_of_wish(status: &Status) -> bool {
    status.code.is_none() && matches!(status.enhanced, REQUIRETLS_NEEDED | Enhanced(5, 7, 10))
}

/// What counts of two hosts of a domain that did not take a message: what was said next, but one that may come back can do
/// what one that will not fulfil the sender's wish cannot.
fn latest(last: Option<Report>, next: Report) -> Report {
    last.filter(|last| is_of_wish(&next.status) && last.status.class == Class::Temporary).unwrap_or(next)
}

/// What its outcomes say of a host.
fn shown(outcomes: &[Outcome]) -> Shown<Report> {
    let is_strain = |status: &Status| match status.code {
        Some(code) => code == 421,
        // It fell silent, or hung up.
        None => status.class == Class::Temporary,
    };
    match outcomes.iter().any(|outcome| is_strain(&outcome.status)) {
        true => Shown::Strained,
        false => Shown::Well,
    }
}

/// What a smart host says of our login speaks of its topology, not of the recipient (RFC 4954 §6).
fn ours_to_mend(status: Status) -> Status {
    match status.code {
        Some(530 | 534 | 535 | 538) => status.into_temporary(),
        _ => status,
    }
}

fn message(row: &QueueRow, recipients: &[(u32, Recipient)]) -> Message {
    Message {
        reverse_path: row.reverse_path.as_deref().and_then(|path| path.parse().ok()),
        recipients: recipients.iter().map(|(_, recipient)| recipient.clone()).collect(),
        returns: row.returns,
        envelope_id: row.envelope_id.clone(),
        size: row.size + row.signatures.len() as u64,
        eight_bit: row.body_8bit,
        utf8_header: row.utf8_header,
        require_tls: row.tls_wish == TlsWish::Required,
        before: row.signatures.clone().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_smart_host_will_not_do_of_a_wish_waits_for_the_domain() {
        let away = Report::ours(Status::ours(Class::Temporary, Enhanced(4, 4, 1), "no answer"));
        let by_relay = |status| Report { relay: Some("no answer".into()), ..Report::ours(status) };
        for (enhanced, waits) in
            [(REQUIRETLS_NEEDED, true), (Enhanced(5, 7, 10), true), (Enhanced(5, 1, 1), false)]
        {
            let said = by_relay(Status::ours(Class::Permanent, enhanced, "no"));
            let mut told = said.clone();
            told.leave_to(&away);
            let expected = if waits { &away } else { &said };
            assert_eq!((&told.status, &told.relay), (&expected.status, &expected.relay), "{enhanced:?}");
        }
    }
}
