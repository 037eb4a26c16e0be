//! What the control socket is asked, answered.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use link_proto::driver::{KeyRing, Rotation};
use link_proto::ticket::Ticket;
use link_proto::unit::Lane;
use serde_json::Value;
use shared::address::{Address, Domain};
use shared::control::Refused;
use shared::id::{monotonic, random, unix_millis};
use shared::lane::{self, LANES_MAX};
use shared::moment::Moment;
use shared::operator;
use shared::render::word;
use shared::sandbox::InForce;
use shared::smtp::Role;
use shared::state::{Prepared, State};
use shared::store::{StoreError, Txn};
use shared::telemetry::Quoted;
use shared::topology::Mode;
use shared::trace;

use crate::border;
use crate::certificate::Certificate;
use crate::delivery::Probe;
use crate::link_key;
use crate::lockout::Locked;
use crate::node::{Known, Node, Rule};
use crate::queue::operator as queue;
use crate::record::{INVITATION_SECONDS, Invitation, SETTINGS};
use crate::request::{
    CertificateView, ClockView, Done, Explained, HostView, Invited, LaneView, LinkCommand, LinkView,
    LockedFor, LockedNetworkView, LockedView, PartnerLaneView, Request, StrangersView,
};
use crate::strangers::Strangers;
use crate::{drain, harvest, maintenance, reception};

/// Rows that one answer lists at most.
const LISTED_MAX: usize = 10_000;
/// How long a session that is told to end may take.
const HOLD_TIME: Duration = Duration::from_secs(10);

/// Answers requests.
#[derive(Clone, Debug)]
pub struct Commands {
    /// The node.
    pub node: Arc<Node>,
    /// Where the link listens.
    pub link: SocketAddr,
    /// The link's keys.
    pub keys: KeyRing,
    /// The node's files.
    pub state: State,
    /// To what it has confined itself.
    pub in_force: InForce,
    /// What is asked of strangers, if anything is.
    pub strangers: Option<Arc<Strangers>>,
    /// Who serves other domains.
    pub probe: Probe,
    /// The certificate that is shown.
    pub certificate: Arc<Certificate>,
}

impl Commands {
    /// Answers one request; these have no bodies.
    pub async fn answer(&self, request: Request) -> Result<(Value, Vec<u8>), Refused> {
        let answer = match request {
            Request::Invite => json(self.invite().await.map_err(failed)?),
            Request::QueueList(filter) => json(queue::list(&self.node, &filter)?),
            Request::QueueDead(command) => {
                let answer = operator::dead(&self.node.store, command).await?;
                // What is retried leaves at once.
                (0..LANES_MAX).for_each(|lane| self.node.queued(lane));
                Ok(answer)
            }
            Request::QueueHold(which) => json(queue::hold(&self.node, &which, true).await?),
            Request::QueueRelease(which) => json(queue::hold(&self.node, &which, false).await?),
            Request::QueueRetry { message } => json(queue::retry(&self.node, &message).await?),
            Request::QueueCancel { message, recipient } => {
                json(queue::cancel(&self.node, &message, recipient.as_deref()).await?)
            }
            Request::Logins => json(locked(&self.node)),
            Request::LoginsRelease { what } => json(release_logins(&self.node, &what)?),
            Request::Clock => {
                json(ClockView { ahead_millis: self.node.with_trust(|trust| trust.ahead(Moment::now())) })
            }
            Request::Outward => json(self.probe.outward()),
            Request::Certificate => json(self.certificate.view()),
            Request::CertificateRenew => json(self.renew_certificate().await?),
            Request::Strangers => json(self.strangers().map_err(failed)?),
            Request::StrangersRelease { what } => json(release_strangers(&self.node, &what)?),
            Request::Drain => json(drain::drain(&self.node.store).await.map_err(failed)?),
            Request::Resume => json(drain::resume(&self.node.store).await.map_err(failed)?),
            Request::LinkStatus => json(self.link_status().map_err(failed)?),
            Request::Link(command) => json(self.link_command(command).await?),
            Request::Backup => json(self.backup().await?),
            // A search looks through thousands of facts.
            Request::Trace(query) => tokio::task::block_in_place(|| {
                let rows = self.node.store.read().map_err(failed)?;
                trace::answer(&rows, ("edge", "big"), &query)
            }),
            Request::Explain { address } => json(self.explain(&address)?),
            Request::Policy { domain } => json(self.policy(&domain).await?),
        };
        Ok((answer?, Vec::new()))
    }

    async fn invite(&self) -> Result<Invited, StoreError> {
        let invitation =
            Invitation { secret: random(), expires_at: unix_millis() / 1000 + INVITATION_SECONDS };
        self.node.store.commit(move |txn| txn.put(SETTINGS, b"invitation", &invitation)).await.map(drop)?;
        let ticket = Ticket {
            address: self.link,
            key: self.keys.keys().present.public().to_vec(),
            secret: invitation.secret,
            expires: invitation.expires_at,
        };
        Ok(Invited { ticket: ticket.to_string(), expires_at: invitation.expires_at })
    }

    async fn link_command(&self, command: LinkCommand) -> Result<Done, Refused> {
        let link = &self.node.link;
        match command {
            LinkCommand::Hold => {
                link.hold(true);
                // What a session has begun to commit is part of what is decided about.
                let down = tokio::time::timeout(HOLD_TIME, link.at_rest()).await.is_ok();
                let text = match down {
                    true => operator::HELD,
                    false => {
                        "the link is being closed, and its session has not ended yet; look with `link status`"
                    }
                };
                Ok(Done { done: text.into() })
            }
            LinkCommand::Release => {
                link.hold(false);
                Ok(Done { done: "big may connect again".into() })
            }
            LinkCommand::Rotate => {
                let begun = self.keys.rotate().map_err(|error| Refused(error.to_string()))?;
                Ok(operator::rotation(begun == Rotation::Begun))
            }
            command => {
                let held = link.is_held() && link.is_at_rest();
                // What this edge holds may have been delivered by the one whose store is gone.
                let busy = Arc::clone(&self.node.busy);
                let besides = move |txn: &mut Txn<'_>, command: &LinkCommand| match command {
                    LinkCommand::Adopt { .. } => maintenance::hold_back(txn, &busy, unix_millis()),
                    _ => Ok(()),
                };
                operator::decide(&self.node.store, held, command, besides).await
            }
        }
    }

    async fn backup(&self) -> Result<Prepared, Refused> {
        let (state, store) = (self.state.clone(), self.node.store.clone());
        let prepared = tokio::task::spawn_blocking(move || state.prepare_backup(&store)).await;
        prepared.map_err(|error| Refused(error.to_string()))?.map_err(|error| Refused(error.to_string()))
    }

    fn link_status(&self) -> Result<LinkView, StoreError> {
        let status = self.node.link.status().borrow().clone();
        let snapshot = self.node.store.read()?;
        let partner = lane::partner(&snapshot)?;
        let mut lanes = Vec::new();
        let pressure = self.node.pressure.view();
        // Why the session before ended says nothing then.
        let held = self.node.link.is_held().then(|| operator::HELD.to_owned());
        let mut alarms: Vec<String> = held.or(status.last_error).into_iter().collect();
        alarms.extend(operator::alarms(&snapshot)?);
        alarms.extend(status.fault.and_then(|fault| operator::fault_alarm(fault.at, &fault.error)));
        let shown = status.former_key_shown;
        alarms.extend(
            shown.and_then(|shown| operator::former_key_alarm(shown.at, &shown.key, partner.as_ref())),
        );
        alarms.extend(pressure.alarm());
        let drained_since = drain::since(&snapshot)?;
        alarms.extend(drained_since.map(drain::alarm));
        alarms.extend(guessing_alarm(&locked(&self.node)));
        alarms.extend(self.probe.alarm());
        alarms.extend(self.certificate.alarm());
        alarms.extend(self.node.with_trust(|trust| trust.differs(Moment::now())).map(clock_alarm));
        let deferred = lane::deferred(&snapshot)?;
        for ((lane, live), deferred) in Lane::ALL.into_iter().zip(&status.lanes).zip(deferred) {
            let row = lane::state(&snapshot, lane.index())?;
            let ahead = lane::ahead(&snapshot, lane.index())?;
            let lane = format!("{lane:?}").to_lowercase();
            let stops = [("the edge", "big", &live.stopped_out), ("big", "the edge", &live.stopped_in)];
            alarms.extend(operator::stopped(&lane, stops));
            let (sent, confirmed, received) = (row.last, row.confirmed.number, row.received.number);
            let partner = live.partner.map(|said| PartnerLaneView {
                sent: said.next.saturating_sub(1),
                confirmed: said.confirmed.number,
                received: said.received.number,
            });
            let trimmed = row.trimmed;
            lanes.push(LaneView { lane, sent, ahead, deferred, confirmed, received, trimmed, partner });
        }
        Ok(LinkView {
            paired: partner.is_some(),
            connected: status.connected.is_some(),
            peer: status.connected.as_ref().map(|connected| connected.peer.to_string()),
            rtt_millis: status.connected.as_ref().map(|connected| connected.rtt.as_secs_f64() * 1000.0),
            keys: link_key::view(&self.keys, partner.as_ref()),
            epoch: partner.map(|partner| partner.epoch),
            pressure,
            room: Some(self.node.pressure.room()),
            drained_since,
            sandbox: self.in_force.view(),
            directory: self.node.directory_view()?,
            lanes,
            missing: operator::missing(&snapshot)?,
            decisions: operator::decisions(&snapshot)?,
            alarms,
            border: Some(border::view(&snapshot)?),
        })
    }

    /// What the authority is asked goes on if whoever waits for it goes away.
    async fn renew_certificate(&self) -> Result<CertificateView, Refused> {
        let certificate = Arc::clone(&self.certificate);
        let renewed = tokio::spawn(async move { certificate.renew().await }).await;
        renewed.map_err(|error| Refused(error.to_string()))?.map_err(Refused)?;
        Ok(self.certificate.view())
    }

    fn strangers(&self) -> Result<StrangersView, StoreError> {
        let view = self.strangers.as_ref().map(|strangers| strangers.view(&self.node)).transpose()?;
        Ok(StrangersView { locked: locked_networks(&self.node), ..view.unwrap_or_default() })
    }

    fn explain(&self, text: &str) -> Result<Explained, Refused> {
        let address: Address = text.parse().map_err(|error| Refused(format!("{text}: {error}")))?;
        let known = self.node.lookup(&address).map_err(failed)?;
        let (rule, why) = match &known {
            Known::Yes(_, rule) => (
                word(rule),
                match rule {
                    Rule::Exact => "it is in the directory".into(),
                    Rule::Base => format!(
                        "{} is in the directory, and what follows the + is a tag",
                        address.without_tag().unwrap_or_else(|| address.clone())
                    ),
                    Rule::Role => "every domain has postmaster and abuse".into(),
                    Rule::CatchAll => format!("{} takes what is nobody else's", address.domain()),
                },
            ),
            Known::No => {
                ("unknown-fresh".into(), "it is not in the directory, which is as big has it".into())
            }
            Known::Unsure(why) => ("unknown-stale".into(), format!("it is not in the directory, and {why}")),
            Known::Foreign => ("foreign".into(), "its domain is not in [site] domains".into()),
            Known::NotYet => ("no-directory".into(), "big has not told the whole directory yet".into()),
        };
        let answer = match reception::answer(&known, Role::Reception) {
            Ok(()) => "250".to_owned(),
            Err(reply) => reply.to_string().trim_end().to_owned(),
        };
        Ok(Explained { address: address.to_string(), answer, rule, why })
    }

    async fn policy(&self, text: &str) -> Result<Vec<HostView>, Refused> {
        let domain: Domain = text.parse().map_err(|error| Refused(format!("{text}: {error}")))?;
        if let Mode::Relay(host) = &self.node.topology.edge.outbound.mode {
            let place = &host.place;
            return Err(Refused(format!(
                "all mail goes to the smart host {place}: see [edge.outbound] in the topology"
            )));
        }
        self.probe.hosts(&domain).await.map_err(|status| Refused(status.text))
    }
}

fn locked(node: &Node) -> Vec<LockedView> {
    all_locked(node).take(LISTED_MAX).collect()
}

fn all_locked(node: &Node) -> impl Iterator<Item = LockedView> {
    let locked = node.with_lockout(|lockout| lockout.locked(monotonic()));
    let view = |Locked { what, is_network, failures, left }| LockedView {
        what,
        is_network,
        failures,
        seconds_left: left.as_secs(),
    };
    locked.into_iter().map(view)
}

fn locked_networks(node: &Node) -> Vec<LockedNetworkView> {
    let named = node.with_harvest(|harvest| harvest.locked(monotonic())).into_iter();
    let named = named.map(|harvest::Locked { what, named, left }| LockedNetworkView {
        what,
        why: LockedFor::UnknownRecipients,
        count: named,
        seconds_left: left.as_secs(),
    });
    let failed = all_locked(node).filter(|locked| locked.is_network);
    let failed = failed.map(|LockedView { what, failures, seconds_left, .. }| LockedNetworkView {
        what,
        why: LockedFor::FailedLogins,
        count: failures,
        seconds_left,
    });
    let mut locked: Vec<_> = named.chain(failed).collect();
    locked.sort_by_key(|locked| Reverse(locked.seconds_left));
    locked.truncate(LISTED_MAX);
    locked
}

fn release_strangers(node: &Node, what: &str) -> Result<Done, Refused> {
    let now = monotonic();
    let named = node.with_harvest(|harvest| harvest.release(what, now));
    let failed = node.with_lockout(|lockout| lockout.release(what, None, now));
    let may = match (named, failed) {
        (true, true) => "is told again who is here, and may log in",
        (true, false) => "is told again who is here",
        (false, true) => "may log in",
        (false, false) => {
            return Err(Refused(format!("{what} is not locked; `edge-node strangers` lists who is")));
        }
    };
    tracing::info!(network = %Quoted(what), "let go by an operator");
    Ok(Done { done: format!("whoever comes from {what} {may}") })
}

fn release_logins(node: &Node, what: &str) -> Result<Done, Refused> {
    let account = node.account(what);
    if !node.with_lockout(|lockout| lockout.release(what, Some(&account), monotonic())) {
        let text = format!("{what} is neither locked out nor guarded; `edge-node logins` lists what is");
        return Err(Refused(text));
    }
    tracing::info!(what = %Quoted(what), "let go by an operator");
    Ok(Done { done: format!("the logins that have failed in or at {what} are forgotten") })
}

fn clock_alarm(apart: Duration) -> String {
    format!(
        "this clock and big's are {} h apart: see which is right, and set the other one; until then no travel window \
         is ended for good by this clock",
        apart.as_secs() / 3600
    )
}

fn guessing_alarm(locked: &[LockedView]) -> Option<String> {
    let networks = locked.iter().filter(|locked| locked.is_network).count();
    let accounts = locked.len() - networks;
    (!locked.is_empty()).then(|| {
        format!("passwords are being guessed: {networks} networks are locked out, {accounts} accounts guarded; `edge-node logins` lists them")
    })
}

fn failed(error: StoreError) -> Refused {
    Refused(error.to_string())
}

fn json(answer: impl serde::Serialize) -> Result<Value, Refused> {
    serde_json::to_value(answer).map_err(|error| Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harvest::Namer;
    use crate::lockout::{Attempt, Network, Tried};
    use crate::strangers;

    #[test]
    fn an_operator_sees_which_networks_are_locked_for_what_and_lets_them_go() {
        let (node, _) = strangers::tests::edge();
        let client = "192.0.2.7".parse().expect("an address");
        let lock = || {
            for n in 0..50_u8 {
                node.with_harvest(|harvest| harvest.named(Namer::of(client, false), &[n; 32], monotonic()));
            }
            let (account, network) = (node.account("Alice"), Network::of(client));
            let attempt = Attempt { account, name: "Alice".into(), network, known: false };
            for _ in 0..20 {
                node.with_lockout(|lockout| {
                    let answer = lockout.begin(&attempt, monotonic());
                    lockout.end(&attempt, answer, Tried::Failed, monotonic())
                });
            }
        };
        lock();
        let shown = locked_networks(&node);
        let shown: Vec<_> = shown.iter().map(|one| (one.what.as_str(), one.why, one.count)).collect();
        let network = "192.0.2.0/24";
        assert_eq!(
            shown,
            [(network, LockedFor::UnknownRecipients, 50), (network, LockedFor::FailedLogins, 20)]
        );
        let done = release_strangers(&node, network).expect("it is locked").done;
        assert_eq!(done, "whoever comes from 192.0.2.0/24 is told again who is here, and may log in");
        assert!(locked_networks(&node).is_empty());
        assert_eq!(locked(&node).len(), 1, "the account is guarded still");
        let refused = release_strangers(&node, network).expect_err("it is not locked").to_string();
        assert!(refused.contains("`edge-node strangers` lists who is"), "{refused}");
        // However the account is written, and not as a network.
        assert!(release_strangers(&node, "Alice").is_err());
        assert!(
            release_logins(&node, "bob")
                .is_err_and(|refused| refused.to_string().contains("`edge-node logins`"))
        );
        release_logins(&node, "alice@example.com").expect("it is guarded");
        assert!(locked(&node).is_empty());
        lock();
        release_logins(&node, "192.0.2.9").expect("its network is locked out");
        release_strangers(&node, "192.0.2.9").expect("and has named too many");
        assert!(locked_networks(&node).is_empty());
    }
}
