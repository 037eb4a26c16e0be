//! A real session of either role, driven step by step by a script: frames of a partner that mostly keeps
//! to the protocol, answers of a node that mostly does what it was asked, and time.
//!
//! [`watch`] keeps an account beside the session and judges every output by it: no unit is applied out of
//! order, before RESUME or beyond credit, none is sent so; CONFIRMED follows a commit and nothing else;
//! what binds a node never comes with an error. [`host`] answers what the session asks, [`partner`] makes
//! frames. A node that answers only what it was asked, and rightly, is never blamed by its session.

use std::collections::VecDeque;
use std::time::Duration;

use link_proto::session::{Input, OPENING_TIME, Output, Session, SessionError};
use link_proto::unit::Lane;

use self::host::Host;
use self::partner::Partner;
use self::watch::Watch;
use super::script::Script;

mod host;
mod partner;
mod sample;
mod watch;

/// Outputs that one input may cause: four lanes begin at once, and no other input does as much.
const OUTPUTS_MAX: usize = 64;
/// Answers that may follow one step without a frame in between.
const ANSWERS_MAX: usize = 256;

/// Seven bytes and more say who both nodes are and where their lanes stand; each step then begins with a
/// byte that says what happens. A script of zeros is two nodes that open a session and exchange units.
///
/// # Panics
/// If the session does what it must not do.
pub fn session(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let Some(mut stage) = Stage::begin(&mut script) else { return };
    while !script.is_over() && stage.step(&mut script) {}
}

/// A session, and everything around it.
#[derive(Debug)]
struct Stage {
    session: Session,
    host: Host,
    partner: Partner,
    watch: Watch,
    now: Duration,
}

impl Stage {
    fn begin(script: &mut Script<'_>) -> Option<Self> {
        let host = Host::new(script);
        let session = match Session::new(host.start(), Duration::ZERO) {
            Ok(session) => session,
            Err(error) => {
                assert!(matches!(error, SessionError::NotPaired | SessionError::WrongKey), "{error}");
                return None;
            }
        };
        let partner = Partner::default();
        let mut stage = Self { session, host, partner, watch: Watch::default(), now: Duration::ZERO };
        let mut answers = VecDeque::new();
        stage.drain(&watch::Cause::Other, script, &mut answers);
        assert!(answers.is_empty());
        Some(stage)
    }

    /// One step; `false` once the session has ended.
    fn step(&mut self, script: &mut Script<'_>) -> bool {
        let input = match script.below(16) {
            0 => self.usual(script),
            1..=8 => self.partner.frame(&self.host, &self.watch, script),
            9 => match self.host.answer(script) {
                Some(input) => input,
                None => return true,
            },
            10 => {
                self.host.lied = true;
                self.host.lie(&self.watch, script)
            }
            11 => self.host.grow(script),
            12 => Input::Room(lane(script), script.byte() & 1 == 0),
            13 => self.host.body(script),
            14 => {
                self.now += Duration::from_millis(100) * script.byte().into();
                Input::Tick
            }
            _ => Input::WakeBodies,
        };
        self.give(input, script)
    }

    /// What is to happen next where nothing goes wrong.
    fn usual(&mut self, script: &mut Script<'_>) -> Input {
        if let Some(input) = self.host.answer_oldest() {
            return input;
        }
        self.partner.usual(&self.host, &self.watch, script)
    }

    /// Gives the session an input, and then the answers that are due before the next frame.
    fn give(&mut self, input: Input, script: &mut Script<'_>) -> bool {
        let mut inputs = VecDeque::from([input]);
        let mut given = 0;
        while let Some(input) = inputs.pop_front() {
            given += 1;
            assert!(given <= ANSWERS_MAX, "answers without end");
            self.host.before(&input);
            self.partner.before(&input);
            let cause = self.watch.before(&input, &self.host.lanes);
            let late = matches!(input, Input::Tick) && !self.session.is_open() && self.now >= OPENING_TIME;
            let result = self.session.handle(input, self.now);
            self.drain(&cause, script, &mut inputs);
            if let Err(error) = result {
                self.watch.ended();
                let blamed = matches!(error, SessionError::Store { .. });
                assert!(!blamed || self.host.lied, "the node did what it was asked, and: {error}");
                assert_eq!(late, error == SessionError::OpeningTime);
                return false;
            }
            assert!(!late, "an opening that takes for ever");
            self.watch.after(&cause, &self.session);
        }
        true
    }

    fn drain(&mut self, cause: &watch::Cause, script: &mut Script<'_>, answers: &mut VecDeque<Input>) {
        let mut outputs = 0;
        while let Some(output) = self.session.poll() {
            outputs += 1;
            assert!(outputs <= OUTPUTS_MAX, "outputs without end");
            self.watch.output(cause, &output);
            if let Output::Settle { lane, received, .. } = &output {
                self.host.settles_within_reach(*lane, *received);
            }
            answers.extend(self.host.carry_out(output, script));
        }
    }
}

fn lane(script: &mut Script<'_>) -> Lane {
    Lane::ALL[usize::from(script.below(4))]
}
