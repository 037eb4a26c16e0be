//! Drives SMTP sessions: reception from the Internet and submission by travellers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::address::Address;
use shared::id::{MessageId, monotonic};
use shared::listener::{Acceptor, Listener, Stream};
use shared::pressure::Level;
use shared::sasl::Credentials;
use shared::smtp::{Action, Config, Enhanced, Recipient, Refused, Reply, Role, Session, Verdict};
use shared::telemetry::Quoted;
use shared::wipe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::acquainted::Acquainted;
use crate::authentication::{Authenticator, Sender};
use crate::drain;
use crate::harvest::Namer;
use crate::intake::{Accepted, Intake, refusal};
use crate::login::{self, Traveller};
use crate::node::{Known, Node, is_role};
use crate::pressure::{SLOW_PAUSE, instead_of_greeting};
use crate::repeats::Said;
use crate::strangers::{Stranger, Strangers};
use crate::vouch;

/// Octets of content read from the network at once.
const READ_BYTES: usize = 16 * 1024;
/// The same of commands. Most sessions wait for one, and each keeps its buffer meanwhile.
const COMMANDS_READ_BYTES: usize = 2 * 1024;
/// How long a client may take to accept our replies.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// One of the edge's SMTP services.
#[derive(Clone)]
pub struct Service {
    /// The node it serves.
    pub node: Arc<Node>,
    /// What its sessions are told.
    pub config: Arc<Config>,
    /// Its certificate.
    pub acceptor: Acceptor,
    /// Who need not wait for the greeting.
    pub acquainted: Arc<Mutex<Acquainted>>,
    /// TLS comes first (port 465).
    pub implicit_tls: bool,
    /// What verifies the mail, where it comes from the Internet.
    pub authenticator: Option<Arc<Authenticator>>,
    /// What is asked of strangers, if anything is.
    pub strangers: Option<Arc<Strangers>>,
    /// Becomes true when the node is going down.
    pub stopping: watch::Receiver<bool>,
}

impl Service {
    /// Serves connections until the node goes down.
    pub async fn run(self, listener: Listener) {
        let stopping = self.stopping.clone();
        listener.serve(stopping, |stream, peer| self.clone().connection(stream, peer)).await;
    }

    async fn connection(self, mut stream: Stream, peer: SocketAddr) -> io::Result<()> {
        let (start, mut stopping) = (Instant::now(), self.stopping.clone());
        if let Some(refusal) = self.instead_of_greeting() {
            tracing::info!(client = %peer.ip().to_canonical(), reply = %Quoted(refusal.trim_end()), "refused");
            tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(refusal.as_bytes())).await??;
            return stream.shutdown().await;
        }
        if self.implicit_tls {
            stream = stream.start_tls(&self.acceptor).await?;
        }
        let mut session = Session::new(Arc::clone(&self.config), self.implicit_tls, start.elapsed());
        session.bound_to(stream.exporter());
        if let Some(pause) = self.greeting_pause(peer.ip()) {
            session.greet_after(pause);
        }
        let mut conversation = Conversation {
            service: self,
            client: peer.ip(),
            stranger: Stranger::default(),
            reverse_path: None,
            nobody: None,
            session,
            login: None,
            acquaints: false,
            intake: None,
            failed: None,
            said: Vec::new(),
        };
        let mut buffer = Vec::new();
        let (mut stopped, mut ended) = (false, false);
        loop {
            while let Some(action) = conversation.session.poll(start.elapsed()) {
                conversation.log_refusals();
                match action {
                    Action::Send(bytes) => {
                        tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await??;
                        stream.flush().await?;
                    }
                    Action::Pause(pause) => tokio::time::sleep(pause).await,
                    Action::StartTls => {
                        stream = stream.start_tls(&conversation.service.acceptor).await?;
                        conversation.session.tls_established();
                        conversation.session.bound_to(stream.exporter());
                    }
                    Action::Close => return stream.shutdown().await,
                    other => {
                        conversation.answer(other).await;
                        conversation.log_refusals();
                    }
                }
            }
            if !conversation.session.wants_input() {
                continue;
            }
            let wait = conversation.session.deadline().saturating_sub(start.elapsed());
            let read_bytes = if conversation.intake.is_some() { READ_BYTES } else { COMMANDS_READ_BYTES };
            if buffer.len() != read_bytes {
                buffer = vec![0; read_bytes];
            }
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => {
                        conversation.said.clear();
                        conversation.session.disconnected();
                    }
                    Ok(length) => {
                        conversation.goes_on();
                        conversation.session.receive(&buffer[..length], start.elapsed());
                    }
                },
                () = tokio::time::sleep(wait) => conversation.session.handle_timeout(start.elapsed()),
                () = over(&conversation.service.node, conversation.login.as_ref()), if !ended => {
                    ended = true;
                    conversation.session.stop();
                }
                () = told_to_stop(&mut stopping), if !stopped => {
                    stopped = true;
                    conversation.session.stop();
                }
            }
        }
    }
}

impl Service {
    /// What is said instead of a greeting, if the client would be refused all that it could ask for.
    fn instead_of_greeting(&self) -> Option<String> {
        let pressed = instead_of_greeting(self.node.pressure.level(), self.config.role).map(str::to_owned);
        // What cannot be read now is looked at again at MAIL.
        let drained = || drain::admits(&self.node.store, self.config.role).err().filter(Reply::closes);
        pressed.or_else(|| drained().map(|reply| format!("{reply}\r\n")))
    }

    /// How long that client has to wait for the greeting.
    fn greeting_pause(&self, client: IpAddr) -> Option<Duration> {
        let pause = self.node.topology.edge.greeting_pause;
        if self.config.role != Role::Reception || pause.is_zero() {
            return None;
        }
        (!self.is_acquainted(client)).then_some(pause)
    }

    /// Whether a message for somebody who is no role has been taken from there.
    fn is_acquainted(&self, client: IpAddr) -> bool {
        self.acquainted.lock().unwrap_or_else(PoisonError::into_inner).has(client)
    }

    /// Who a client is counted with that names who is not here, and whether it may ask who is.
    fn may_ask(&self, client: IpAddr, is_known: bool) -> (Namer, Verdict) {
        let namer = Namer::of(client, is_known);
        (namer, self.node.with_harvest(|harvest| harvest.may_ask(namer, monotonic())))
    }
}

async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // An error means that the node is gone already.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Returns when the window that was logged in to has ended; without one, never.
async fn over(node: &Node, login: Option<&Traveller>) {
    match login {
        Some(by) => node.watch(by.window.window, by.login).over(node).await,
        None => std::future::pending().await,
    }
}

/// A session, and what the node holds for it.
struct Conversation {
    service: Service,
    client: IpAddr,
    /// What is known of the client.
    stranger: Stranger,
    /// What the last MAIL named; `None` is the null one.
    reverse_path: Option<Address>,
    /// What the last RCPT named, if nobody here is known by it.
    nobody: Option<Address>,
    session: Session,
    /// Who has logged in.
    login: Option<Traveller>,
    /// Whether the message that is being taken in makes the edge acquainted with the client.
    acquaints: bool,
    /// The message that is being taken in.
    intake: Option<Box<Intake>>,
    /// Why that message cannot be taken, said at its end.
    failed: Option<Reply>,
    /// The messages whose 250 the client may not have heard: nothing has come since.
    said: Vec<(MessageId, Said)>,
}

impl Conversation {
    /// What takes much room while it is under way has it of its own, so that a session that waits is small.
    async fn answer(&mut self, action: Action) {
        match action {
            Action::Keys(user) => {
                let keys = self.service.node.scram_keys(&user).map_err(|_| not_checked());
                self.session.keys(keys.as_ref().map_err(Clone::clone));
            }
            Action::Authenticate(credentials) => {
                let verdict = Box::pin(self.authenticate(credentials)).await;
                self.session.authenticated(verdict);
                // Of these the log has more.
                self.session.refusals();
            }
            Action::Sender { reverse_path, .. } => {
                let verdict = self.sender(reverse_path.as_ref()).await;
                self.stranger.begins();
                self.reverse_path = reverse_path;
                self.session.sender(verdict);
            }
            Action::Recipient(address) => {
                let verdict = Box::pin(self.recipient(&address)).await;
                self.session.recipient(verdict);
            }
            Action::Begin(envelope) => {
                self.failed = None;
                self.acquaints = acquaints(envelope.reverse_path.as_ref(), &envelope.recipients);
                let Service { node, config, authenticator, .. } = &self.service;
                // Since MAIL the disk may have filled up.
                let admitted = node.pressure.admits(config.role);
                let begin = |()| {
                    Intake::begin(node, envelope, self.client, self.login.clone(), authenticator.clone())
                };
                let verdict = admitted.and_then(begin).map(|mut intake| {
                    intake.verdicts(self.stranger.verdict());
                    self.intake = Some(Box::new(intake));
                });
                self.session.begun(verdict);
            }
            Action::Received(bytes) => {
                if let Some(intake) = &mut self.intake {
                    intake.received(&bytes).await;
                }
            }
            Action::Content(bytes) => {
                if let Some(intake) = &mut self.intake
                    && let Err(error) = intake.content(&bytes).await
                {
                    tracing::warn!(%error, client = %self.client, "a message could not be written");
                    self.failed = Some(refusal(&error));
                    self.intake = None;
                }
            }
            Action::Complete(facts) => {
                let verdict = match (self.failed.take(), self.intake.take()) {
                    (None, Some(intake)) => Box::pin((*intake).complete(facts)).await,
                    (Some(reply), _) => Err(reply),
                    (None, None) => Err(Reply::new(451, Enhanced(4, 3, 0), "try again later")),
                };
                if verdict.is_ok() && self.acquaints {
                    let acquainted = &self.service.acquainted;
                    acquainted.lock().unwrap_or_else(PoisonError::into_inner).add(self.client);
                }
                self.session.completed(verdict.map(|Accepted { message, way, said }| {
                    self.said.push((message, said));
                    format!("{message}{way}")
                }));
                // It has not waited for the answer to say something else.
                if self.session.has_more() {
                    self.goes_on();
                }
            }
            Action::Abort => {
                self.intake = None;
                self.failed = None;
            }
            Action::Send(_) | Action::Pause(_) | Action::StartTls | Action::Close => {}
        }
    }

    /// Tells the log of what was refused. Who has mail here is not in it: of a sender with an address of ours only the
    /// domain, and a recipient only if nobody here has that name.
    fn log_refusals(&mut self) {
        let to = self.nobody.take().map(|to| to.to_string()).unwrap_or_default();
        for Refused { reverse_path, reply } in self.session.refusals() {
            let from = reverse_path.map(|from| match self.service.node.is_ours(from.domain()) {
                true => format!("@{}", from.domain()),
                false => from.to_string(),
            });
            let (client, from) = (self.client.to_canonical(), from.unwrap_or_default());
            let reply = reply.to_string();
            tracing::info!(%client, from = %Quoted(&from), to = %Quoted(&to), reply = %Quoted(&reply), "refused");
        }
    }

    /// The client says something behind what it was answered.
    fn goes_on(&mut self) {
        let node = &self.service.node;
        self.said.drain(..).for_each(|(message, said)| said.heard(node, message.0));
    }

    async fn authenticate(&mut self, credentials: Credentials) -> Result<String, Reply> {
        wipe::stack();
        let (user, client) = (credentials.user.clone(), self.client);
        let traveller = match login::log_in(&self.service.node, credentials, client).await {
            Ok((traveller, _)) => traveller,
            Err(refused) => {
                tracing::warn!(%client, user = %Quoted(&user), ?refused, "submission login refused");
                return Err(match refused {
                    login::Refused::Credentials => {
                        let text = "user name or password is wrong, or no travel window is open";
                        Reply::new(535, Enhanced(5, 7, 8), text)
                    }
                    login::Refused::Guessing => {
                        let text = "too many failed logins; try again in some minutes";
                        Reply::new(454, Enhanced(4, 7, 0), text)
                    }
                    login::Refused::Temporary => not_checked(),
                });
            }
        };
        tracing::info!(%client, user = %Quoted(&user), "submission login");
        self.login = Some(traveller);
        Ok(user)
    }

    async fn sender(&self, reverse_path: Option<&Address>) -> Verdict {
        let Service { node, config, .. } = &self.service;
        drain::admits(&node.store, config.role)?;
        node.pressure.admits(config.role)?;
        vouch::may_begin(node)?;
        if config.role == Role::Reception {
            if node.pressure.level() == Level::Slow && self.is_stranger(reverse_path) {
                tokio::time::sleep(SLOW_PAUSE).await;
            }
            return Ok(());
        }
        let own = |address: &Address| {
            let hash = self.service.node.address_hash(address);
            self.login.as_ref().is_some_and(|by| by.window.senders.contains(&hash))
        };
        if let Some(traveller) = &self.login {
            self.service.node.still_open(traveller)?;
        }
        match reverse_path {
            Some(address) if own(address) => Ok(()),
            // Of what says that mail was read nobody may be told that it failed (RFC 8098 §3); who sends it has logged in,
            // and From says who they are.
            None if self.login.is_some() => Ok(()),
            _ => Err(Reply::new(553, Enhanced(5, 7, 1), "not an address of yours: send as yourself")),
        }
    }

    /// Whether nobody inside has written to the sender; the null reverse-path is anybody's.
    fn is_stranger(&self, reverse_path: Option<&Address>) -> bool {
        let known = |address| self.service.node.is_known_correspondent(address).unwrap_or(false);
        !reverse_path.is_some_and(known)
    }

    async fn recipient(&mut self, address: &Address) -> Verdict {
        let Service { node, config, .. } = &self.service;
        let known = node.lookup(address).map_err(|error| refusal(&error))?;
        self.nobody = matches!(known, Known::No | Known::Foreign).then(|| address.clone());
        let verdict = answer(&known, config.role);
        if config.role == Role::Submission || is_role(address) || matches!(known, Known::Foreign) {
            return verdict;
        }
        let (namer, may_ask) = self.may_ask().await;
        let Service { node, strangers, .. } = &self.service;
        if matches!(known, Known::No)
            && node.with_harvest(|harvest| harvest.named(namer, &node.address_hash(address), monotonic()))
        {
            tracing::warn!(%namer, "too many unknown recipients were named: who comes from there waits for the rest of the hour");
        }
        may_ask.and(verdict)?;
        let Some(strangers) = strangers else { return Ok(()) };
        let sender = Sender {
            client: self.client,
            helo: self.session.client_name().to_owned(),
            reverse_path: self.reverse_path.clone(),
        };
        let acquainted = self.service.is_acquainted(self.client);
        strangers.recipient(node, &mut self.stranger, &sender, address, acquainted).await
    }

    /// Who the client is counted with that names who is not here, and whether it may ask who is: decided with the first
    /// recipient of a transaction. Whom the site knows is not held to what strangers near them name.
    async fn may_ask(&mut self) -> (Namer, Verdict) {
        if let Some(decided) = &self.stranger.harvest {
            return decided.clone();
        }
        let client = self.client;
        let is_known = self.service.is_acquainted(client) || !self.is_stranger(self.reverse_path.as_ref());
        let mut decided = self.service.may_ask(client, is_known);
        // Only who would be told nothing costs a question to lists.
        if decided.1.is_err()
            && !is_known
            && let Some(strangers) = &self.service.strangers
            && strangers.allows(&mut self.stranger, client).await
        {
            decided = self.service.may_ask(client, true);
        }
        self.stranger.harvest.insert(decided).clone()
    }
}

/// Whether somebody from whom that message was taken is known by it. Anybody may write to roles, and with the null
/// reverse-path to everybody, whatever else is asked of strangers.
fn acquaints(reverse_path: Option<&Address>, recipients: &[Recipient]) -> bool {
    reverse_path.is_some() && recipients.iter().any(|recipient| !is_role(&recipient.address))
}

fn not_checked() -> Reply {
    Reply::new(454, Enhanced(4, 7, 0), "cannot check that now; try again later")
}

/// What RCPT is answered.
pub fn answer(known: &Known, role: Role) -> Verdict {
    match known {
        Known::Yes(..) => Ok(()),
        Known::Foreign if role == Role::Submission => Ok(()),
        Known::Foreign => {
            Err(Reply::new(550, Enhanced(5, 7, 1), "that is not one of our domains, and we do not relay"))
        }
        Known::No => Err(Reply::new(550, Enhanced(5, 1, 1), "there is nobody of that name here")),
        // Why is for the operator, not for whoever asks.
        Known::Unsure(_) => {
            let text = "that name is not known here, and the directory may be out of date; try again later";
            Err(Reply::new(451, Enhanced(4, 4, 3), text))
        }
        Known::NotYet => {
            Err(Reply::new(451, Enhanced(4, 3, 2), "the directory is not here yet; try again later"))
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::id::unix_millis;
    use shared::listener::{CurrentIdentity, TlsIdentity};
    use shared::moment::Moment;
    use shared::pressure::FREE_BYTES;
    use shared::store::sim::SimDisk;
    use shared::store::{Store, Txn};

    use super::*;
    use crate::pressure::Pressure;
    use crate::{correspondents, directory, strangers};

    /// A session of that client at an edge where alice and bob are.
    fn conversation(service: &Service, client: &str) -> Conversation {
        Conversation {
            service: service.clone(),
            client: client.parse().expect("an address"),
            stranger: Stranger::default(),
            reverse_path: None,
            nobody: None,
            session: Session::new(Arc::clone(&service.config), false, Duration::ZERO),
            login: None,
            acquaints: false,
            intake: None,
            failed: None,
            said: Vec::new(),
        }
    }

    fn service(role: Role) -> Service {
        let node = Arc::new(directory::tests::told(&[ALICE, "bob@example.com"]));
        node.with_fence(|fence| fence.compared(Moment::now(), true));
        let folder = tempfile::tempdir().expect("a folder");
        let identity = TlsIdentity::self_signed_in(folder.path(), "mx.example.com").expect("is made");
        let identity = Arc::new(CurrentIdentity::new(&identity).expect("is usable"));
        let postmaster = "postmaster@example.com".parse().expect("an address");
        let config = Config::new(role, node.topology.edge.hostname.clone(), postmaster);
        Service {
            node,
            config: Arc::new(config),
            acceptor: Acceptor::new(&identity, "smtp").expect("is usable"),
            acquainted: Arc::default(),
            implicit_tls: false,
            authenticator: None,
            strangers: None,
            stopping: watch::channel(false).1,
        }
    }

    /// What a session is answered to the RCPTs of a transaction.
    fn transaction(session: &mut Conversation, names: &[&str]) -> Vec<u16> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        session.stranger.begins();
        let asked = names.iter().map(|name| {
            let verdict = runtime.block_on(session.recipient(&name.parse().expect("an address")));
            verdict.map_or_else(|reply| reply.code(), |()| 250)
        });
        asked.collect()
    }

    /// What that client is answered to RCPT.
    fn rcpt(service: &Service, client: &str, recipient: &str) -> u16 {
        transaction(&mut conversation(service, client), &[recipient])[0]
    }

    /// That client names so many who are not here.
    fn names(service: &Service, client: &str, count: u32) {
        for number in 0..count {
            assert_eq!(
                rcpt(service, client, &format!("guess{number}@example.com")),
                550,
                "{client} {number}"
            );
        }
    }

    const ALICE: &str = "alice@example.com";

    #[test]
    fn strangers_whose_network_has_named_too_many_who_are_not_here_are_told_of_nobody() {
        let service = service(Role::Reception);
        for number in 0..50 {
            assert_eq!(rcpt(&service, "192.0.2.1", ALICE), 250, "{number}");
            let (client, guess) = (format!("192.0.2.{number}"), format!("guess{number}@example.com"));
            assert_eq!(rcpt(&service, &client, &guess), 550);
            // Those are one, and no name of ours.
            assert_eq!(rcpt(&service, "203.0.113.1", "nobody@example.com"), 550);
            assert_eq!(rcpt(&service, "203.0.113.1", &format!("x{number}@elsewhere.example")), 550);
        }
        for (client, recipient, code) in [
            ("192.0.2.99", ALICE, 450),
            ("192.0.2.99", "guess@example.com", 450),
            ("192.0.2.99", "postmaster@example.com", 250),
            ("192.0.2.99", "x@elsewhere.example", 550),
            ("203.0.113.1", ALICE, 250),
        ] {
            assert_eq!(rcpt(&service, client, recipient), code, "{client} {recipient}");
        }
        // Who has logged in is no stranger.
        let submission = Service { config: self::service(Role::Submission).config, ..service.clone() };
        assert_eq!(rcpt(&submission, "192.0.2.99", ALICE), 250);
    }

    #[test]
    fn whom_the_site_knows_is_not_locked_out_by_strangers_near_them_and_by_themselves_later() {
        let strangers = Some(strangers::tests::edge().1);
        let service = Service { strangers, ..service(Role::Reception) };
        let acquainted = "192.0.2.1";
        service.acquainted.lock().expect("nobody panics").add(acquainted.parse().expect("an address"));
        let (key, now) = (service.node.directory_key, unix_millis());
        let learn = move |txn: &mut Txn<'_>| correspondents::learn(txn, &key, "dave@remote.example", now);
        service.node.store.commit_blocking(learn).expect("commits");
        names(&service, "192.0.2.99", 50);
        assert_eq!(rcpt(&service, "192.0.2.99", ALICE), 450);
        assert_eq!(rcpt(&service, acquainted, ALICE), 250);
        let mut correspondent = conversation(&service, "192.0.2.98");
        correspondent.reverse_path = Some("dave@remote.example".parse().expect("an address"));
        assert_eq!(transaction(&mut correspondent, &[ALICE, "stale@example.com"]), [250, 550]);
        correspondent.reverse_path = Some("eve@remote.example".parse().expect("an address"));
        assert_eq!(transaction(&mut correspondent, &[ALICE]), [450], "another sender there");
        let mut allowed = conversation(&service, "192.0.2.97");
        allowed.stranger = strangers::tests::allowed();
        assert_eq!(transaction(&mut allowed, &[ALICE, "stale@example.com"]), [250, 550]);
        // One message that was taken is no leave to try all names.
        names(&service, acquainted, 500);
        assert_eq!(rcpt(&service, acquainted, ALICE), 450);
    }

    #[test]
    fn of_whom_it_is_not_sure_that_they_are_not_here_nobody_is_blamed() {
        let node = Arc::new(directory::tests::told(&[ALICE]));
        let service = Service { node, ..service(Role::Reception) };
        for number in 0..60 {
            assert_eq!(rcpt(&service, "192.0.2.1", &format!("guess{number}@example.com")), 451);
        }
        let mut session = conversation(&service, "192.0.2.1");
        transaction(&mut session, &["guess@example.com"]);
        assert_eq!(session.nobody, None, "it may be somebody: the log does not name it");
        assert_eq!(rcpt(&service, "192.0.2.1", ALICE), 250);
    }

    #[test]
    fn a_transaction_that_began_before_its_network_had_named_too_many_ends_as_it_began() {
        let service = service(Role::Reception);
        names(&service, "192.0.2.1", 49);
        let mut session = conversation(&service, "192.0.2.1");
        let all = [ALICE, "stale@example.com", "bob@example.com"];
        assert_eq!(transaction(&mut session, &all[..2]), [250, 550], "stale's is the fiftieth");
        assert_eq!(session.nobody.as_ref().map(ToString::to_string).as_deref(), Some("stale@example.com"));
        assert_eq!(transaction(&mut session, &all), [450, 450, 450]);
        assert_eq!(session.nobody, None, "bob is refused, and is somebody");
    }

    #[test]
    fn while_something_runs_short_strangers_wait_at_mail_and_correspondents_do_not() {
        // It goes on by what is waited for, and by nothing else.
        let mut clock = tokio::runtime::Builder::new_current_thread();
        let clock = clock.enable_time().start_paused(true).build().expect("a runtime");
        for (free, level, pause) in
            [(u64::MAX, Level::Open, Duration::ZERO), (FREE_BYTES[0] - 1, Level::Slow, SLOW_PAUSE)]
        {
            let disk = SimDisk::default();
            disk.set_free(free, u64::MAX);
            let mut node = directory::tests::told(&[ALICE]);
            node.pressure = Pressure::new(&Store::open(Arc::new(disk)).expect("opens"), u64::MAX);
            let (key, now) = (node.directory_key, unix_millis());
            let learn = move |txn: &mut Txn<'_>| correspondents::learn(txn, &key, "dave@remote.example", now);
            node.store.commit_blocking(learn).expect("commits");
            let service = Service { node: Arc::new(node), ..service(Role::Reception) };
            assert_eq!(service.node.pressure.level(), level);
            for (reverse_path, expected) in [
                (Some("eve@remote.example"), pause),
                (None, pause),
                (Some("dave@remote.example"), Duration::ZERO),
            ] {
                let address = reverse_path.map(|text| text.parse().expect("an address"));
                let (verdict, waited) = clock.block_on(async {
                    let begun = tokio::time::Instant::now();
                    let verdict = conversation(&service, "192.0.2.1").sender(address.as_ref()).await;
                    (verdict, begun.elapsed())
                });
                assert_eq!((verdict, waited), (Ok(()), expected), "{reverse_path:?} at {level:?}");
            }
        }
    }

    #[test]
    fn mail_for_roles_alone_and_reports_make_nobody_acquainted() {
        let carol = Some("carol@remote.example");
        for (from, to, expected) in [
            (carol, vec!["postmaster@example.com"], false),
            (carol, vec!["Abuse@example.com", "postmaster@example.com"], false),
            (carol, vec!["postmaster@example.com", ALICE], true),
            (None, vec![ALICE], false),
        ] {
            let address = |text: &str| text.parse::<Address>().expect("an address");
            let recipients: Vec<Recipient> = to.iter().map(|text| address(text).into()).collect();
            assert_eq!(acquaints(from.map(address).as_ref(), &recipients), expected, "{from:?} {to:?}");
        }
    }
}
