//! The session as a state machine, driven in memory with a clock that moves when it is told to.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use shared::credential::Credential;
use shared::id::MessageId;
use shared::pop3::{Action, Config, End, Entry, Expire, LoginRefusal, Opened, Session};
use shared::seal::PrivateKey;

use super::script::Message;
use super::{Maildrop, Peer, Served, Server};
use crate::wait::Trouble;

/// The only user.
const USER: &str = "alice";
/// What it can be told and what it has, beside what every server has.
const FEATURES: [&str; 5] = ["clock", "faults", "login-delay", "sallypost", "tls-1.3"];
/// Octets of a message that are given at once: few, so that every cut is met.
const PIECE_BYTES: usize = 7;
/// Days until the window ends.
const DAYS: u64 = 12;
/// Of everybody, as a site has it.
pub(super) const SALT: [u8; 16] = [7; 16];
const LOGIN_DELAY: Duration = Duration::from_secs(30);

/// A server that is no process.
#[derive(Debug)]
pub struct Machine {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    now: Duration,
    password: String,
    credential: Credential,
    messages: Vec<(Entry, Vec<u8>)>,
    locked: bool,
    last_login: Option<Duration>,
    login_delay: Duration,
    faults: VecDeque<String>,
}

impl State {
    /// Whether the next such step is to fail.
    fn fails(&mut self, step: &str) -> bool {
        let fails = self.faults.front().is_some_and(|fault| fault == step);
        if fails {
            self.faults.pop_front();
        }
        fails
    }
}

impl Machine {
    /// With or without a delay between logins.
    pub fn new(delays: bool) -> Self {
        let (password, credential) = Credential::generate(&PrivateKey::generate().0, SALT);
        let state = State {
            now: Duration::from_secs(1_000),
            password,
            credential,
            messages: Vec::new(),
            locked: false,
            last_login: None,
            login_delay: if delays { LOGIN_DELAY } else { Duration::ZERO },
            faults: VecDeque::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait(?Send)]
impl Server for Machine {
    fn has(&self, feature: &str) -> bool {
        FEATURES.contains(&feature) && (feature != "login-delay" || !self.state().login_delay.is_zero())
    }

    async fn maildrop(&mut self, _on: &str, messages: &[Message]) -> Result<Maildrop, Trouble> {
        let mut state = self.state();
        let whole = |message: &Message| {
            let octets = &message.octets;
            let end: &[u8] = if octets.is_empty() || octets.ends_with(b"\r\n") { b"" } else { b"\r\n" };
            [octets, end].concat()
        };
        let served: Vec<_> = messages.iter().map(whole).collect();
        let entry = |(number, content): (u64, &Vec<u8>)| Entry {
            size: content.len() as u64,
            message: MessageId::from_parts(number, [0; 10]),
            revision: 0,
        };
        state.messages = (1..)
            .zip(&served)
            .map(entry)
            .zip(messages.iter().map(|message| message.octets.clone()))
            .collect();
        (state.locked, state.last_login) = (false, None);
        let messages = served.into_iter().map(|content| Served { trace: Vec::new(), content });
        Ok(Maildrop {
            user: USER.into(),
            password: state.password.clone(),
            address: String::new(),
            messages: messages.collect(),
        })
    }

    async fn connect(&mut self, on: &str) -> Result<Box<dyn Peer>, Trouble> {
        let tls = on != "clear";
        let State { now, login_delay, .. } = *self.state();
        let session = Session::new(Config { login_delay, ..Config::default() }, tls, now);
        let mut connection = Connection {
            state: Arc::clone(&self.state),
            session,
            tls,
            agreed: false,
            sent: Vec::new(),
            closed: false,
            has_lock: false,
        };
        connection.bind();
        Ok(Box::new(connection))
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
    tls: bool,
    /// STLS was agreed, and the client has not begun its handshake.
    agreed: bool,
    sent: Vec<u8>,
    closed: bool,
    has_lock: bool,
}

impl Connection {
    fn bind(&mut self) {
        self.session.bound_to(self.exporter());
    }

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
                Action::StartTls => {
                    self.agreed = true;
                    return;
                }
                Action::Keys(_) if state.fails("keys") => self.session.keys(None),
                Action::Keys(user) => {
                    let keys = match user == USER {
                        true => state.credential.scram_keys(),
                        false => Credential::scram_keys_of_nobody(&[9; 32], SALT, &user),
                    };
                    self.session.keys(Some(&keys));
                }
                Action::Authenticate(credentials) => {
                    let good = credentials.user == USER && state.credential.open(&credentials.secret).is_ok();
                    let verdict = self.opened(&mut state, good);
                    self.session.authenticated(verdict);
                }
                Action::Fetch { entry, .. } => {
                    if state.fails("read") {
                        self.session.content_end(End::Later);
                        continue;
                    }
                    let lost = state.fails("lost");
                    let found = state.messages.iter().find(|(there, _)| *there == entry && !lost);
                    let Some((_, content)) = found else {
                        self.session.content_end(End::Lost);
                        continue;
                    };
                    for piece in content.chunks(PIECE_BYTES) {
                        if !self.session.content(piece) {
                            break;
                        }
                        while let Some(Action::Send(octets)) = self.session.poll(state.now) {
                            self.sent.extend(octets);
                        }
                    }
                    self.session.content_end(End::Whole);
                }
                Action::Commit { deleted, .. } => {
                    let done = !state.fails("commit");
                    if done {
                        state.messages.retain(|(entry, _)| !deleted.contains(entry));
                    }
                    (state.locked, self.has_lock) = (false, false);
                    self.session.committed(done);
                }
                Action::Close => {
                    self.closed = true;
                    self.unlock(&mut state);
                    return;
                }
            }
        }
    }

    fn opened(&mut self, state: &mut State, good: bool) -> Result<Opened, LoginRefusal> {
        if state.fails("login") {
            return Err(LoginRefusal::Temporary);
        }
        if state.fails("guessing") {
            return Err(LoginRefusal::Guessing);
        }
        if !good {
            return Err(LoginRefusal::Credentials);
        }
        if state.last_login.is_some_and(|last| state.now < last + state.login_delay) {
            return Err(LoginRefusal::TooSoon);
        }
        if state.locked {
            return Err(LoginRefusal::InUse);
        }
        (state.locked, self.has_lock) = (true, true);
        state.last_login = Some(state.now);
        let entries = state.messages.iter().map(|(entry, _)| *entry).collect();
        Ok(Opened { entries, expire: Expire::Days(DAYS) })
    }

    fn unlock(&mut self, state: &mut State) {
        if std::mem::take(&mut self.has_lock) {
            state.locked = false;
        }
    }
}

#[async_trait(?Send)]
impl Peer for Connection {
    async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.run();
        if self.closed || self.agreed {
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
        self.bind();
        Ok(())
    }

    fn exporter(&self) -> Option<[u8; 32]> {
        self.tls.then_some([5; 32])
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        self.unlock(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
