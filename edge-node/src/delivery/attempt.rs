//! One attempt: the hosts of a domain in order, until each recipient has an answer that is final or enough hosts were asked
//! (`progress`); or the smart host.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use shared::address::Domain;
use shared::smtp::Enhanced;
use shared::smtp::client::{Class, REQUIRETLS_NEEDED, Status, is_of_wish, opportunistic};
use shared::tls_wish::TlsWish;
use shared::topology::Place;
use tokio::time::timeout_at;

use super::fallback::{self, Fallback};
use super::mta_sts::{Policies, PolicyError};
use super::ourselves::{Ourselves, is_no_smart_host};
use super::progress::{Heard, Progress, latest};
use super::public::is_public;
use super::relay::{Route, SmartHost};
use super::report::{Copies, Report};
use super::resolve::{MailHost, Resolver, UNPROVED};
use super::scheduler::{Limits, Shown};
use super::security::{NotToBeUsed, Security, Sts};
use super::sessions::{Sessions, Target};
use super::signatures::Watch;
use super::tally::Tally;
use super::transmission::Transmission;
use crate::node::Node;
use crate::request::OutwardView;

/// Why the smart host is asked, where all mail goes there.
const BY_MODE: &str = "all mail goes there";

/// How long hosts of a domain that say nothing are tried, one after the other.
const DIRECT_TIME: Duration = Duration::from_secs(5 * 60);

/// How much time has to be left for another host to be asked for who was deferred, so that it is not given up on the way.
const NEXT_HOST_TIME: Duration = Duration::from_secs(10 * 60);

/// A host, and what it has to prove; or why it is not to be used.
pub(super) type Host = (MailHost, Result<Security, NotToBeUsed>);

/// The hosts that serve a domain.
pub(super) struct Hosts {
    /// Best first.
    pub hosts: Vec<Host>,
    /// What the domain asks of them by MTA-STS, if it was to be asked.
    pub sts: Result<Option<Sts>, PolicyError>,
    /// The preference of the best of those that are not among them, for it is not known now where they are; and why.
    unsure: Option<(u16, Status)>,
}

/// What came of asking the hosts of a domain.
enum Asked {
    /// DNS or a host has spoken.
    Told(Vec<(u32, Report)>, Shown<Report>),
    /// DNS gave no answer, or no host could be reached.
    Unroutable(Report),
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
    ourselves: Ourselves,
    sessions: Sessions,
}

/// How hosts are asked.
struct Course<'c> {
    place: &'c str,
    /// What an answer of one of them comes to, and what the TLS has shown that it came under.
    report: &'c (dyn Fn(&Target<'_>, Status, Option<String>) -> Report + Send + Sync),
    /// How long they are asked while none of them says anything.
    patience: Duration,
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
        ourselves: Ourselves,
    ) -> Self {
        let (sessions, fallback) = (Sessions::new(Arc::clone(&node), limits.attempts), Fallback::new(limits));
        let (signatures, tls) = (Watch::default(), Arc::new(opportunistic()));
        Self { node, resolver, trusting, policies, route, fallback, signatures, tls, ourselves, sessions }
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

    /// The smart host is asked again for such mail, though it could not be reached a moment ago.
    pub fn end_pause_of_fallback(&self) {
        self.fallback.end_pause();
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
        let wish = copies.row.tls_demanded();
        let found = match timeout_at(copies.until, self.hosts(domain, wish)).await {
            Ok(Ok(found)) => found,
            // Who forges answers is not to choose which way the mail goes.
            Ok(Err(status)) if status.enhanced == UNPROVED => {
                return Asked::Told(copies.all(&Report::ours(status)), Shown::Strained);
            }
            Ok(Err(status)) if status.class == Class::Temporary => {
                return Asked::Unroutable(Report::ours(status));
            }
            Ok(Err(status)) => return Asked::Told(copies.all(&Report::ours(status)), Shown::Nothing),
            Err(_) => {
                let text = format!("finding out who serves {domain} took too long");
                let slow = Report::ours(Status::ours(Class::Temporary, Enhanced(4, 4, 3), &text));
                return Asked::Told(copies.all(&slow), Shown::Strained);
            }
        };
        let tally = Tally::of(&self.node, domain, wish, &found);
        let Hosts { hosts, unsure, .. } = &found;
        let (mut targets, mut last, mut reached) = (Vec::new(), None, false);
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
            let mut addresses = Vec::new();
            for address in &host.addresses {
                match self.allowed(*address) {
                    Ok(()) => {
                        addresses.push(SocketAddr::new(*address, self.node.topology.edge.outbound.port));
                    }
                    Err(status) => drop(last.get_or_insert(Report::ours(status))),
                }
            }
            if addresses.is_empty() {
                continue;
            }
            let (tls, counted) = (security.tls(&self.tls), tally.map(|tally| tally.session(host, security)));
            targets.push(Target {
                name: &host.name,
                asked: security.asked(host),
                addresses,
                tls: counted.as_ref().map_or_else(|| Arc::clone(&tls), |counted| counted.tls(&tls)),
                policy: security.tls_policy(),
                security: security.clone(),
                login: None,
                is_smart_host: false,
                preference: host.preference,
                counted,
            });
        }
        let report = |target: &Target<'_>, status: Status, tls| {
            let status = if wish == TlsWish::Required { status.for_required_tls() } else { status };
            Report { host: Some(target.name.to_owned()), tls, ..Report::ours(status) }
        };
        // Hosts that take connections and say nothing would use up what time there is for the smart host.
        let course = Course { place, report: &report, patience: DIRECT_TIME };
        let unsure = unsure.clone().map(|(preference, why)| (preference, Report::ours(why)));
        let is_one_of_many = hosts.len() > 1 || unsure.is_some();
        let progress = Progress::new(copies.recipients, last, reached).with_unsure(unsure);
        let (last, reached) = match self.ask(copies, &targets, progress, course).await {
            Heard::Dealt(reports, shown) => return Asked::Told(reports, shown),
            Heard::Nobody { last, reached } => (last, reached),
        };
        let nobody = || {
            let text = format!("no host of {domain} can be reached");
            Report::ours(Status::ours(Class::Temporary, Enhanced(4, 4, 1), &text))
        };
        let mut report = last.unwrap_or_else(nobody);
        if !targets.is_empty() && !reached {
            return Asked::Unroutable(report);
        }
        if is_one_of_many && report.status.class == Class::Permanent && report.status.code.is_some() {
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
        let topology = &self.node.topology;
        // What others are to prove of our own domains' hosts can be asked about, too.
        let ours = (!topology.site.domains.contains(domain)).then_some(&self.ourselves);
        let (hosts, unsure) = self.resolver.hosts(domain, topology.edge.outbound.port, ours).await?;
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
            Report { host: Some(name.clone()), tls, relay, ..Report::ours(ours_to_mend(status)) }
        };
        if copies.row.tls_demanded() == TlsWish::Required && host.security == Security::Opportunistic {
            let text = "the sender wants it only where TLS is certain (REQUIRETLS), and the smart host need not prove its \
                        name: that takes [edge.outbound] `relay_tls`";
            let refused = report(Status::ours(Class::Permanent, REQUIRETLS_NEEDED, text), None);
            return (copies.all(&refused), Shown::Nothing);
        }
        let addresses = match &host.place {
            Place::Address(address) => Ok(vec![*address]),
            Place::Name(_, port) => {
                let found = timeout_at(copies.until, self.trusting.addresses(&name)).await;
                let at = |address| SocketAddr::new(address, *port);
                match found {
                    Ok(found) => found
                        .map(|addresses| addresses.into_iter().map(at).collect())
                        .map_err(|error| error.to_string()),
                    Err(_) => Err("it took too long".to_owned()),
                }
            }
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
        if let Some(address) = addresses.iter().find(|address| self.ourselves.is_reached_at(**address)) {
            let ours = report(is_no_smart_host(&name, *address), None);
            tracing::error!(message = %copies.message, relay = %host.place, why = ours.status.text, "the smart host cannot be used");
            return (copies.all(&ours), Shown::Unreachable(ours));
        }
        let SmartHost { tls, policy, security, login, .. } = host;
        let target = Target {
            name: &name,
            asked: &name,
            addresses,
            tls: Arc::clone(tls),
            policy: *policy,
            security: security.clone(),
            login: login.as_ref(),
            is_smart_host: true,
            preference: 0,
            counted: None,
        };
        let course = Course { place, report: &|_, status, tls| report(status, tls), patience: Duration::MAX };
        let progress = Progress::new(copies.recipients, None, false);
        let (last, reached) = match self.ask(copies, &[target], progress, course).await {
            Heard::Dealt(reports, shown) => return (reports, shown),
            Heard::Nobody { last, reached } => (last, reached),
        };
        let mut last = last.unwrap_or_else(|| no_address(""));
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

    /// Asks hosts one after the other until each recipient has an answer that is final; a session that is open still comes
    /// first.
    async fn ask(
        &self,
        copies: Copies<'_>,
        targets: &[Target<'_>],
        mut progress: Progress,
        course: Course<'_>,
    ) -> Heard {
        let Course { place, report, patience } = course;
        let begun = Instant::now();
        let mut left: Vec<_> = targets.iter().map(|target| target.addresses.clone()).collect();
        let hear = |progress: &mut Progress, target: &Target<'_>, talk, sent: &Transmission| {
            let report =
                |status: Status, version: Option<&str>| report(target, status, target.shown(version));
            progress.hear(talk, target.preference, sent.is_begun(), report);
        };
        let answered = async |progress: &Progress, sent: &Transmission| {
            if sent.is_whole() && !progress.left().is_empty() {
                copies.recorder.answered(progress.left()).await;
            }
        };
        let sent = Transmission::default();
        let again = self.sessions.again(copies, place, targets, &sent);
        match sent.in_time(copies.until, again).await {
            Some(Some((number, talked))) => {
                if let (Some(target), Some(left)) = (targets.get(number), left.get_mut(number)) {
                    *left = talked.left;
                    hear(&mut progress, target, talked.talk, &sent);
                }
                if sent.is_unsendable() {
                    return progress.end_early();
                }
                answered(&progress, &sent).await;
            }
            Some(None) => {}
            None => progress.too_slow(),
        }
        for (target, addresses) in targets.iter().zip(left) {
            let mut left = addresses;
            while !left.is_empty() && !progress.left().is_empty() {
                if !progress.is_reached() && begun.elapsed() > patience {
                    return progress.end();
                }
                let is_time =
                    copies.until.saturating_duration_since(tokio::time::Instant::now()) >= NEXT_HOST_TIME;
                if !progress.goes_on(is_time) {
                    return progress.end_early();
                }
                copies.recorder.record(progress.settled()).await;
                if let Some(said) = progress.passed() {
                    copies.recorder.passed(&said).await;
                }
                let (others, sent) =
                    (Copies { recipients: progress.left(), ..copies }, Transmission::default());
                let talk = self.sessions.talk(others, place, target, left, &sent);
                match sent.in_time(copies.until, talk).await {
                    Some(talked) => {
                        left = talked.left;
                        hear(&mut progress, target, talked.talk, &sent);
                    }
                    None => {
                        progress.too_slow();
                        break;
                    }
                }
                // Nor can it be for the next host.
                if sent.is_unsendable() {
                    return progress.end_early();
                }
                answered(&progress, &sent).await;
            }
        }
        progress.end()
    }

    /// Whether other hosts can be reached, by what attempts have seen.
    pub fn outward(&self) -> OutwardView {
        self.sessions.outward()
    }

    /// Ends the sessions for which there was no other message.
    pub fn close_idle(&self) {
        self.sessions.close_idle();
    }
}

/// What a smart host says of our login speaks of its topology, not of the recipient (RFC 4954 §6).
fn ours_to_mend(status: Status) -> Status {
    match status.code {
        Some(530 | 534 | 535 | 538) => status.into_temporary(),
        _ => status,
    }
}
