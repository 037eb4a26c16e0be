//! How the stand-in MTA misbehaves: a list of rules, of which the first that fits decides.

use std::time::Duration;

/// Where in a session a rule can bite (RFC 5321 §4.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the greeting.
    Connect,
    /// In answer to EHLO or HELO.
    Hello,
    /// In answer to MAIL.
    Mail,
    /// In answer to RCPT.
    Rcpt,
    /// In answer to DATA.
    Data,
    /// In answer to BDAT, but the last chunk; the octets of one that is refused are not read.
    Chunk,
    /// In answer to the final dot or the last chunk.
    Dot,
}

/// What is done instead of the right thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// This reply, such as `451 4.2.0 later`. Nothing is accepted.
    Reply(String),
    /// The connection closes without an answer, and nothing is kept.
    HangUp,
    /// Only at the end of the content: the message is kept, then the connection closes without an answer, so that
    /// the sender is in doubt.
    KeepAndHangUp,
    /// The answer is late by so much, and then what it would have been.
    Delay(Duration),
}

/// One unkindness: at a stage, perhaps only for one recipient, perhaps only a number of times.
#[derive(Clone, Debug)]
pub struct Rule {
    stage: Stage,
    action: Action,
    recipient: Option<String>,
    left: Option<u32>,
}

impl Rule {
    /// Does `action` at `stage`, always and for everyone.
    pub fn new(stage: Stage, action: Action) -> Self {
        Self { stage, action, recipient: None, left: None }
    }

    /// Answers `code text` at `stage`; text begins with an enhanced code (RFC 3463).
    pub fn reply(stage: Stage, code: u16, text: &str) -> Self {
        Self::new(stage, Action::Reply(format!("{code} {text}")))
    }

    /// Closes the connection at `stage`.
    pub fn hang_up(stage: Stage) -> Self {
        Self::new(stage, Action::HangUp)
    }

    /// Takes the message at the dot and closes the connection without saying so.
    pub fn keep_and_hang_up() -> Self {
        Self::new(Stage::Dot, Action::KeepAndHangUp)
    }

    /// Only the next `times` times it fits.
    pub fn times(self, times: u32) -> Self {
        Self { left: Some(times), ..self }
    }

    /// Only for this recipient. From DATA on, for a message that it is among the recipients of.
    pub fn only_for(self, recipient: &str) -> Self {
        Self { recipient: Some(recipient.to_owned()), ..self }
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.left == Some(0)
    }

    fn fits(&self, stage: Stage, recipients: &[String]) -> bool {
        self.stage == stage
            && self.left != Some(0)
            && self.recipient.as_ref().is_none_or(|only| recipients.contains(only))
    }
}

/// The actions of every rule that fits, up to the first that is an answer; each is used up once.
pub(super) fn decide(rules: &mut [Rule], stage: Stage, recipients: &[String]) -> Vec<Action> {
    let mut actions = Vec::new();
    for rule in rules.iter_mut().filter(|rule| rule.fits(stage, recipients)) {
        rule.left = rule.left.map(|left| left - 1);
        actions.push(rule.action.clone());
        if !matches!(rule.action, Action::Delay(_)) {
            break;
        }
    }
    actions
}
