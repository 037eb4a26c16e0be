//! The SMTP session as a state machine, driven in memory with a clock that moves when it is told to.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use shared::address::Address;
use shared::credential::Credential;
use shared::seal::PrivateKey;
use shared::smtp::{Action, Config, Enhanced, Reply, Role, Session, Verdict};

use super::machine::SALT;
use super::script::Message;
use super::{Maildrop, Peer, Protocol, Server};
use crate::wait::Trouble;

/// The only user, and her address.
const USER: &str = "alice";
const ADDRESS: &str = "alice@example.com";
/// Who is inside.
const INSIDE: [&str; 4] = [ADDRESS, "bob@example.com", "postmaster@example.com", "abuse@example.com"];
/// What it can be told and what it has, beside what every server has.
const FEATURES: [&str; 6] = ["channel-binding", "clock", "faults", "pause", "sallypost", "submission"];
/// How long a stranger has to wait for the greeting.
const GREETING_PAUSE: Duration = Duration::from_secs(2);
/// The limits of one whose limits are met soon.
const SMALL_BYTES_MAX: u64 = 1_000;
const SMALL_RECIPIENTS_MAX: usize = 3;

/// A server that is no process.
#[derive(Debug)]
pub struct SmtpMachine {
    state: Arc<Mutex<State>>,
    /// Its limits are met soon.
    small: bool,
    /// It offers BINARYMIME.
    binary: bool,
}

#[derive(Debug)]
struct State {
    now: Duration,
    password: String,
    credential: Credential,
    kept: Vec<Vec<u8>>,
    faults: VecDeque<String>,
}

impl State {
    /// A refusal, if the next such step is to fail.
    fn fault(&mut self, step: &str) -> Verdict {
        if self.faults.front().is_some_and(|fault| fault == step) {
            self.faults.pop_front();
            return Err(Reply::new(451, Enhanced(4, 3, 0), "told to fail"));
        }
        Ok(())
    }
}

impl SmtpMachine {
    /// With the usual limits, or small ones.
    pub fn new(small: bool) -> Self {
        Self { small, ..Self::binary(false) }
    }

    /// One that offers BINARYMIME, or does not.
    pub fn binary(binary: bool) -> Self {
        let (password, credential) = Credential::generate(&PrivateKey::generate().0, SALT);
        let state = State {
            now: Duration::from_secs(1_000),
            password,
            credential,
            kept: Vec::new(),
            faults: VecDeque::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), small: false, binary }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait(?Send)]
impl Server for SmtpMachine {
    fn protocol(&self) -> Protocol {
        Protocol::Smtp
    }

    fn has(&self, feature: &str) -> bool {
        FEATURES.contains(&feature)
            || (feature == "small" && self.small)
            || (feature == "binary" && self.binary)
    }

    async fn maildrop(&mut self, _on: &str, _messages: &[Message]) -> Result<Maildrop, Trouble> {
        let mut state = self.state();
        state.kept.clear();
        let (user, password) = (USER.into(), state.password.clone());
        Ok(Maildrop { user, password, address: ADDRESS.into(), messages: Vec::new() })
    }

    async fn connect(&mut self, on: &str) -> Result<Box<dyn Peer>, Trouble> {
        let (role, tls) = match on {
            "" | "stranger" => (Role::Reception, false),
            "submission" => (Role::Submission, false),
            "submissions" => (Role::Submission, true),
            other => return Err(format!("there is no service {other:?}").into()),
        };
        let mut config = Config::new(role, "mx.example.com".parse()?, "postmaster@example.com".parse()?);
        config.binarymime = self.binary;
        if self.small {
            config.content.bytes_max = SMALL_BYTES_MAX;
            config.recipients_max = SMALL_RECIPIENTS_MAX;
        }
        let mut session = Session::new(Arc::new(config), tls, self.state().now);
        if on == "stranger" {
            session.greet_after(GREETING_PAUSE);
        }
        let state = Arc::clone(&self.state);
        let mut connection = Connection {
            state,
            session,
            role,
            tls,
            agreed: false,
            body: Vec::new(),
            sent: Vec::new(),
            closed: false,
        };
        connection.session.bound_to(connection.exporter());
        Ok(Box::new(connection))
    }

    async fn kept(&mut self) -> Result<Option<Vec<Vec<u8>>>, Trouble> {
        Ok(Some(self.state().kept.clone()))
    }

    fn wait(&mut self, seconds: u64) {
        self.state().now += Duration::from_secs(seconds);
    }

    fn fault(&mut self, step: &str) {
        self.state().faults.push_back(step.to_owned());
    }
}

/// One session and its driver.
#[derive(Debug)]
struct Connection {
    state: Arc<Mutex<State>>,
    session: Session,
    role: Role,
    tls: bool,
    /// STARTTLS was agreed, and the client has not begun its handshake.
    agreed: bool,
    body: Vec<u8>,
    sent: Vec<u8>,
    closed: bool,
}

impl Connection {
    /// Does what the session wants, as far as it goes.
    fn run(&mut self) {
        let state = Arc::clone(&self.state);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.now >= self.session.deadline() {
            self.session.handle_timeout(state.now);
        }
        while let Some(action) = self.session.poll(state.now) {
            match action {
                Action::Send(octets) => self.sent.extend(octets),
                Action::Pause(pause) => state.now += pause,
                Action::StartTls => {
                    self.agreed = true;
                    return;
                }
                Action::Keys(user) => {
                    let keys = match user == USER {
                        true => state.credential.scram_keys(),
                        false => Credential::scram_keys_of_nobody(&[9; 32], SALT, &user),
                    };
                    let fault = state.fault("keys");
                    self.session.keys(fault.map(|()| &keys));
                }
                Action::Authenticate(credentials) => {
                    let good = credentials.user == USER && state.credential.open(&credentials.secret).is_ok();
                    let bad = || Reply::new(535, Enhanced(5, 7, 8), "user name or password is wrong");
                    let checked = if good { Ok(credentials.user) } else { Err(bad()) };
                    let verdict = state.fault("login").and(checked);
                    self.session.authenticated(verdict);
                }
                Action::Sender { reverse_path, .. } => {
                    let own = reverse_path.is_none_or(|address| address.canonical() == ADDRESS);
                    let foreign = || Reply::new(553, Enhanced(5, 7, 1), "not an address of yours");
                    let allowed = if own || self.role == Role::Reception { Ok(()) } else { Err(foreign()) };
                    self.session.sender(state.fault("sender").and(allowed));
                }
                Action::Recipient(address) => {
                    let verdict = state.fault("recipient").and(self.recipient(&address));
                    self.session.recipient(verdict);
                }
                Action::Begin(_) => {
                    self.body.clear();
                    self.session.begun(state.fault("begin"));
                }
                // What signatures are over; nothing is verified here.
                Action::Received(_) => {}
                Action::Content(octets) => self.body.extend(octets),
                Action::Complete(_) => {
                    let verdict = state.fault("commit");
                    if verdict.is_ok() {
                        state.kept.push(std::mem::take(&mut self.body));
                    }
                    self.session.completed(verdict.map(|()| "01J00000000000000000000000".into()));
                }
                Action::Abort => self.body.clear(),
                Action::Close => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// As the edge answers.
    fn recipient(&self, address: &Address) -> Verdict {
        let base = address.without_tag().unwrap_or_else(|| address.clone());
        match address.domain().as_str() {
            "example.com" if INSIDE.contains(&base.canonical().as_str()) => Ok(()),
            "example.com" => Err(Reply::new(550, Enhanced(5, 1, 1), "there is nobody of that name here")),
            _ if self.role == Role::Submission => Ok(()),
            _ => Err(Reply::new(550, Enhanced(5, 7, 1), "we do not relay")),
        }
    }
}

#[async_trait(?Send)]
impl Peer for Connection {
    async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.run();
        if std::mem::take(&mut self.agreed) {
            // What comes is no handshake, and the driver hangs up.
            self.closed = true;
        }
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let now = self.state.lock().unwrap_or_else(PoisonError::into_inner).now;
        self.session.receive(octets, now);
        Ok(())
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        self.run();
        let nothing = if self.closed { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::TimedOut };
        let end = self.sent.iter().position(|octet| *octet == b'\n').ok_or(nothing)?;
        Ok(self.sent.drain(..=end).collect())
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        self.run();
        if !std::mem::take(&mut self.agreed) {
            return Err(io::Error::other("the server has not agreed to TLS"));
        }
        self.tls = true;
        self.session.tls_established();
        self.session.bound_to(self.exporter());
        Ok(())
    }

    fn exporter(&self) -> Option<[u8; 32]> {
        self.tls.then_some([5; 32])
    }
}
