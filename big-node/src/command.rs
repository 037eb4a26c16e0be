//! What the control socket is asked, answered. `directory` answers for the directory, `dkim` for signing keys, `mail`
//! for mailboxes, `travel` for windows, `people` whatever people ask for themselves.

mod directory;
mod dkim;
mod mail;
mod people;
mod travel;

use std::sync::Arc;
use std::time::{Duration, Instant};

use link_proto::driver::{self, KeyRing, Rotation};
use link_proto::ticket::Ticket;
use link_proto::unit::Lane;
use serde_json::Value;
use shared::control::{self, Peer};
use shared::id::{MessageId, unix_millis};
use shared::lane;
use shared::operator;
use shared::sandbox::InForce;
use shared::state::{Prepared, State};
use shared::store::{Rows, StoreError, Txn};
use shared::trace;
use shared::unit::ReviseResult;
use tokio::sync::Semaphore;

use crate::aggregate;
use crate::compare;
use crate::desk;
use crate::error::Refused;
use crate::gateway::queue;
use crate::generation;
use crate::inventory;
use crate::link::LinkHost;
use crate::link_key;
use crate::node::Node;
use crate::projection;
use crate::record::{MESSAGES, Message, Named, Person, UNSETTLED};
use crate::redirect;
use crate::refusal;
use crate::request::{
    Compared, Done, LaneView, LinkCommand, LinkView, Paired, PartnerLaneView, Queue, Request, Status,
};
use crate::revise::{self, Amendment};

/// Rows that one answer lists at most.
const LISTED_MAX: usize = 10_000;
/// How long a session that is told to end may take.
const HOLD_TIME: Duration = Duration::from_secs(10);
/// How often the nodes are compared until nothing was under way.
const VERIFIED_MAX: usize = 10;
/// How long the edge may take to say what it holds.
const VERIFY_TIME: Duration = Duration::from_secs(30);
/// How long a command waits for the edge to say what a redirect came to.
const REDIRECT_TIME: Duration = Duration::from_secs(10);
/// How often is looked whether it has.
const VERIFY_LOOK: Duration = Duration::from_millis(50);

/// Answers requests.
#[derive(Clone, Debug)]
pub struct Commands {
    /// The node.
    pub node: Arc<Node>,
    /// Its end of the link.
    pub host: Arc<LinkHost>,
    /// The link's keys.
    pub keys: KeyRing,
    /// The node's files.
    pub state: State,
    /// To what it has confined itself.
    pub in_force: Arc<InForce>,
    /// Requests that may wait at once for a mailbox to change; each holds a connection.
    pub watchers: Arc<Semaphore>,
}

impl Commands {
    /// Answers one request of whoever operates the node.
    pub async fn answer(
        &self,
        peer: Peer,
        request: Request,
        body: Vec<u8>,
    ) -> Result<(Value, Vec<u8>), control::Refused> {
        let answered = self.dispatch(peer, None, request, body).await;
        answered.map_err(|refused| control::Refused(refused.to_string()))
    }

    /// Answers a request: of the person `own` about what is theirs, or of whoever operates the node about anybody's.
    async fn dispatch(
        &self,
        peer: Peer,
        own: Option<Person>,
        request: Request,
        body: Vec<u8>,
    ) -> Result<(Value, Vec<u8>), Refused> {
        let node = &self.node;
        let whose = people::whose(&node.store.read()?, own.as_ref(), &request)?;
        let answer = match request {
            Request::Pair { ticket, replace } => json(self.pair(&ticket, replace).await?),
            Request::Backup => json(self.backup().await?),
            Request::QueueDead(command) => {
                let answer = operator::dead(&node.store, command).await.map_err(asked)?;
                // What is retried leaves at once.
                node.wake_link();
                Ok(answer)
            }
            Request::Link(command) => json(self.link_command(command).await?),
            Request::Whoami => {
                let own = own.map_or_else(|| self.of_account(peer.uid), Ok)?;
                json(directory::person_view(&node.store.read()?, &own)?)
            }
            request @ (Request::PersonAdd(_)
            | Request::PersonSet(_)
            | Request::PersonList
            | Request::PersonShow { .. }
            | Request::PersonRemove { .. }
            | Request::Shadow(_)
            | Request::Group(_)
            | Request::Nickname { .. }
            | Request::Gateway(_)
            | Request::GatewayRecipients { .. }
            | Request::Import { .. }
            | Request::ImportProgress
            | Request::Export { .. }
            | Request::Explain { .. }) => return self.directory(whose, request, body).await,
            request @ (Request::MailList { .. }
            | Request::MailFolders { .. }
            | Request::FolderAdd { .. }
            | Request::FolderRename { .. }
            | Request::FolderRemove { .. }
            | Request::MailMove { .. }
            | Request::MailMark { .. }
            | Request::MailThread { .. }
            | Request::MailSearch { .. }
            | Request::MailWatch { .. }
            | Request::MailRead { .. }
            | Request::MailSend { .. }
            | Request::DraftSave { .. }
            | Request::DraftShow { .. }
            | Request::DraftSend { .. }
            | Request::MailDelete { .. }
            | Request::MailStatus { .. }) => return self.mail(theirs(whose)?, request, body).await,
            request @ Request::MailAmend { .. } => json(self.amend(theirs(whose)?, request, &body).await?),
            Request::MailHistory { message, .. } => {
                let person = theirs(whose)?;
                // Comparing long texts takes a while: the other tasks of this thread go elsewhere meanwhile.
                json(tokio::task::block_in_place(|| revise::history(&node.store, &person, &message))?)
            }
            request @ (Request::TravelStart { .. }
            | Request::TravelExtend { .. }
            | Request::TravelRotate { .. }
            | Request::TravelList { .. }
            | Request::TravelEnd { .. }) => self.travel(whose, request).await,
            request @ (Request::DkimKeygen(_) | Request::DkimList | Request::DkimRemove { .. }) => {
                self.dkim(request).await
            }
            Request::QueueList => json(self.queue()?),
            Request::QueueRetry { message } => json(self.retry(&message).await?),
            Request::QueueRedirect { message, from, to } => json(self.redirect(&message, from, to).await?),
            Request::Reports => json(aggregate::list(&node.store.read()?, LISTED_MAX)?),
            Request::LinkStatus => json(self.link_status()?),
            Request::LinkVerify => json(self.link_verify().await?),
            // A search looks through thousands of facts.
            Request::Trace(query) => tokio::task::block_in_place(|| {
                trace::answer(&node.store.read()?, ("big", "edge"), &query).map_err(asked)
            }),
        };
        Ok((answer?, Vec::new()))
    }

    async fn amend(&self, author: Person, request: Request, body: &[u8]) -> Result<Status, Refused> {
        let Request::MailAmend {
            message,
            mode,
            recipients,
            subject,
            reason,
            base,
            text_bytes,
            attachments,
            ..
        } = request
        else {
            return Err(Refused::new("not a revision"));
        };
        let id = message.parse().map_err(|error| Refused::new(format!("{message}: {error}")))?;
        let (text, attachments) = desk::attachments(body, text_bytes, attachments)?;
        let amendment = Amendment { mode, recipients, subject, reason, base, text, attachments };
        let node = &self.node;
        let status = revise::amend(&node.store, &node.site, &author, id, amendment, |_| Ok(())).await;
        node.queued();
        status
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
                link.redial();
                Ok(Done { done: "the edge is dialled again".into() })
            }
            LinkCommand::Rotate => {
                let begun = self.keys.rotate().map_err(|error| Refused::new(error.to_string()))?;
                Ok(operator::rotation(begun == Rotation::Begun))
            }
            command => {
                let held = link.is_held() && link.is_at_rest();
                let sealing = self.node.site.sealing.public().0;
                // Whatever the edge has been told, it is told the directory as it is here.
                let besides = move |txn: &mut Txn<'_>, command: &LinkCommand| match command {
                    LinkCommand::Adopt { .. } | LinkCommand::Reset { .. } => projection::renew(txn, sealing),
                    _ => Ok(()),
                };
                let decided = operator::decide(&self.node.store, held, command, besides);
                decided.await.map_err(asked)
            }
        }
    }

    async fn backup(&self) -> Result<Prepared, Refused> {
        let (state, store) = (self.state.clone(), self.node.store.clone());
        let prepared = tokio::task::spawn_blocking(move || state.prepare_backup(&store)).await;
        prepared
            .map_err(|error| Refused::new(error.to_string()))?
            .map_err(|error| Refused::new(error.to_string()))
    }

    async fn pair(&self, ticket: &str, replace: bool) -> Result<Paired, Refused> {
        let mut ticket: Ticket = ticket.trim().parse().map_err(|error| Refused::new(format!("{error}")))?;
        if projection::edge(&self.node.store.read()?)?.is_some() && !replace {
            let text = "an edge is paired already, and one big has one edge; if it is gone or has new keys, \
                        `pair --replace` takes this one in its place";
            return Err(Refused::new(text));
        }
        // The ticket says where the edge listens, the topology how big reaches it.
        ticket.address = self.node.topology.link.dial;
        let paired = driver::pair(&ticket, &self.keys, Arc::clone(&self.host), &self.node.link).await;
        // The session that there was has been ended for it, whatever came of it.
        self.node.link.redial();
        paired.map_err(|error| {
            Refused::new(format!("the edge at {} did not take the ticket: {error}", ticket.address))
        })?;
        self.node.queued();
        // Whoever puts another edge in the place of one that is not trusted any more holds the link closed before: to
        // release it for the pairing would let the old one in once more.
        Ok(Paired { address: ticket.address.to_string(), held: self.node.link.is_held() })
    }

    fn queue(&self) -> Result<Queue, Refused> {
        let snapshot = self.node.store.read()?;
        let dead_letters = lane::dead_letters(&snapshot, LISTED_MAX)?;
        let mut messages: Vec<Status> = Vec::new();
        let mut last = None;
        for (_, Named(id)) in snapshot.prefix::<Named>(UNSETTLED, &[], LISTED_MAX)? {
            // The recipients of one message stand together.
            if last.replace(id) == Some(id) {
                continue;
            }
            let message = snapshot.get::<Message>(MESSAGES, &id)?;
            messages.push(Status {
                id: MessageId(id).to_string(),
                subject: message.map(|message| message.origin.subject).unwrap_or_default(),
                late: false,
                recipients: desk::recipients_of(&snapshot, MessageId(id))?,
            });
        }
        for (due, _) in queue::list(&snapshot, LISTED_MAX)? {
            let id = due.message.to_string();
            // It may go by several gateways, and by the edge.
            if messages.iter().all(|message| message.id != id) {
                let message = snapshot.get::<Message>(MESSAGES, &due.message.0)?;
                messages.push(Status {
                    id,
                    subject: message.map(|message| message.origin.subject).unwrap_or_default(),
                    late: false,
                    recipients: desk::recipients_of(&snapshot, due.message)?,
                });
            }
        }
        let dead_letters = dead_letters.into_iter().map(operator::view).collect();
        Ok(Queue { units: lane::depth(&snapshot)?, messages, dead_letters })
    }

    async fn retry(&self, message: &str) -> Result<Done, Refused> {
        let id: MessageId = message.parse().map_err(|error| Refused::new(format!("{message}: {error}")))?;
        self.node.store.commit(move |txn| queue::retry(txn, id, unix_millis())).await?;
        self.node.queued();
        Ok(Done { done: format!("{id} is tried again now") })
    }

    /// Orders a redirect, and waits a while for what the edge says of it.
    async fn redirect(&self, message: &str, from: String, to: String) -> Result<Done, Refused> {
        let id: MessageId = message.parse().map_err(|error| Refused::new(format!("{message}: {error}")))?;
        let node = &self.node;
        let (site, addresses) = (Arc::clone(&node.site), (from.clone(), to.clone()));
        let ordered = node
            .store
            .commit(move |txn| redirect::order(txn, &site, id, (&addresses.0, &addresses.1), unix_millis()));
        let ordered = *ordered.await?;
        node.queued();
        let deadline = Instant::now() + REDIRECT_TIME;
        while node.link.is_open() && Instant::now() < deadline {
            match redirect::result(&node.store.read()?, &ordered)? {
                None => tokio::time::sleep(VERIFY_LOOK).await,
                Some((ReviseResult::Withdrawn, _)) => {
                    node.queued();
                    return Ok(Done { done: format!("{id} goes to {to}, and not to {from}") });
                }
                Some((_, why)) => {
                    let why = if why.is_empty() { "it has left".into() } else { why };
                    return Err(Refused::new(format!(
                        "too late for {from}: {why}; nothing goes to {to}, and `big-node mail status {id}` says where it is"
                    )));
                }
            }
        }
        Ok(Done {
            done: format!(
                "{id} goes to {to} once the edge has said that {from} will not get it; `big-node trace {id}` says what \
                 came of it"
            ),
        })
    }

    fn link_status(&self) -> Result<LinkView, StoreError> {
        let status = self.node.link.status().borrow().clone();
        let snapshot = self.node.store.read()?;
        let mut lanes = Vec::new();
        let pressure = self.node.pressure().view();
        // Why the session before ended says nothing then.
        let held = self.node.link.is_held().then(|| operator::HELD.to_owned());
        let mut alarms: Vec<String> = held.or(status.last_error).into_iter().collect();
        alarms.extend(operator::alarms(&snapshot)?);
        let partner = lane::partner(&snapshot)?;
        alarms.extend(status.fault.and_then(|fault| operator::fault_alarm(fault.at, &fault.error)));
        let shown = status.former_key_shown;
        alarms.extend(
            shown.and_then(|shown| operator::former_key_alarm(shown.at, &shown.key, partner.as_ref())),
        );
        alarms.extend(pressure.alarm());
        alarms.extend(compare::alarm(&snapshot, unix_millis())?);
        alarms.extend(refusal::alarm(&snapshot, unix_millis())?);
        alarms.extend(generation::alarm(&snapshot)?);
        alarms.extend(crate::travel::alarms(&snapshot, unix_millis())?);
        let deferred = lane::deferred(&snapshot)?;
        for ((lane, live), deferred) in Lane::ALL.into_iter().zip(&status.lanes).zip(deferred) {
            let row = lane::state(&snapshot, lane.index())?;
            let ahead = lane::ahead(&snapshot, lane.index())?;
            let lane = format!("{lane:?}").to_lowercase();
            let stops = [("big", "the edge", &live.stopped_out), ("the edge", "big", &live.stopped_in)];
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
            paired: projection::edge(&snapshot)?.is_some(),
            connected: status.connected.is_some(),
            peer: status.connected.as_ref().map(|connected| connected.peer.to_string()),
            rtt_millis: status.connected.as_ref().map(|connected| connected.rtt.as_secs_f64() * 1000.0),
            keys: link_key::view(&self.keys, partner.as_ref()),
            epoch: lane::epoch(&snapshot)?,
            pressure,
            room: None,
            drained_since: None,
            sandbox: self.in_force.view(),
            directory: compare::view(&snapshot)?,
            lanes,
            missing: operator::missing(&snapshot)?,
            decisions: operator::decisions(&snapshot)?,
            alarms,
            border: None,
        })
    }

    /// Compares, again while mail that goes on meanwhile may be what differs.
    async fn link_verify(&self) -> Result<Compared, Refused> {
        let node = &self.node;
        if !node.link.is_open() {
            return Err(Refused::new("the link is down; see `big-node link status`"));
        }
        let mut compared = None;
        for _ in 0..VERIFIED_MAX {
            let asked = *node.store.commit(inventory::ask).await?;
            node.queued();
            let deadline = Instant::now() + VERIFY_TIME;
            let found = loop {
                match inventory::verdict(&node.store.read()?, &asked)? {
                    Some(found) => break found,
                    None if Instant::now() < deadline => tokio::time::sleep(VERIFY_LOOK).await,
                    None => {
                        return Err(Refused::new(
                            "the edge has not answered in time; see `big-node link status`",
                        ));
                    }
                }
            };
            let settled = found.quiet || found.differing == 0;
            compared = Some(found);
            if settled {
                break;
            }
        }
        compared.ok_or_else(|| Refused::new("nothing was compared"))
    }
}

/// The person whose a request is, if it is one's.
fn theirs(whose: Option<Person>) -> Result<Person, Refused> {
    whose.ok_or_else(|| Refused::new("whose is it? name a person with --as"))
}

fn asked(refused: control::Refused) -> Refused {
    Refused::new(refused.0)
}

fn json(answer: impl serde::Serialize) -> Result<Value, Refused> {
    serde_json::to_value(answer).map_err(|error| Refused::new(error.to_string()))
}
