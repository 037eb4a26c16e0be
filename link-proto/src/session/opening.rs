//! HELLO, WELCOME and COMPARE: who the partner is, and where both stand.
//!
//! What the listener (edge) makes of a HELLO:
//!
//! | key | node and log name | (generation, epoch) | then |
//! |---|---|---|---|
//! | pinned | known | above the stored ones | remember, answer (again with the welcome, if asked by a proof) |
//! | pinned | known, and `link adopt` was run here | not above | remember, answer: its store was put back by hand |
//! | pinned | known | not above | REFUSED stale, with the stored ones |
//! | any | unknown | any | with a right proof for the open invitation: a new partner |
//! | pinned | unknown, and `link adopt` was run here | any | a new store of the same partner |
//! | pinned | unknown | any | REFUSED: it lost its store |
//! | unknown | unknown | any | REFUSED: unknown |
//!
//! The proof binds the invitation's secret to this TLS session and to both keys, so that nobody in the
//! middle can pass it on. A known partner that still proves a ticket crashed before it could remember
//! its welcome; its key is pinned already, so it is told again. Big's epoch rises with every attempt
//! and is stored before use, hence a HELLO that was accepted once is stale for ever after, but for the one attempt that
//! an operator has let in.

use std::time::Duration;

use super::{Channel, Output, Outputs, RefusedBecause, Role, SessionError, Start, claimed};
use crate::frame::{Compare, CompareLane, Frame, Hello, Refusal, Refused, VERSION, VERSION_OLDEST};
use crate::host::{LaneState, Partner};
use crate::spki::{self, PublicKey};
use crate::unit::Digest;

/// How long the opening may take, from the connection to COMPARE.
pub const OPENING_TIME: Duration = Duration::from_secs(10);

/// Separates this use of the keyed hash from any other.
const PROOF_CONTEXT: &[u8] = b"sallypost pair 1";

/// The proof that big knows the invitation's `secret`, on the TLS session that `binding` was exported
/// from, between these two public keys (SubjectPublicKeyInfo, DER).
pub fn pairing_proof(secret: &[u8; 32], binding: &[u8; 32], big: &[u8], edge: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(PROOF_CONTEXT).update(binding);
    for key in [big, edge] {
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key);
    }
    *hasher.finalize().as_bytes()
}

/// What both know once the opening is over.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) mine: [LaneState; 4],
    pub(super) theirs: [CompareLane; 4],
    /// This node's generation, and the partner's.
    pub(super) generations: (u32, u32),
}

/// A session before its lanes begin.
#[derive(Debug)]
pub(super) struct Handshake {
    start: Start,
    step: Step,
    deadline: Duration,
    /// The partner, once its hello is accepted.
    partner: Option<Partner>,
    /// The partner's hello has said that its key is about to be another one.
    rotates: bool,
    mine: [LaneState; 4],
}

/// What the opening waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hello,
    Welcome,
    Host,
    /// The partner's next key.
    Key,
    /// The node, which pins it.
    Pinning,
    Compare,
}

impl Handshake {
    pub(super) fn begin(start: Start, now: Duration, outputs: &mut Outputs) -> Result<Self, SessionError> {
        let handshake = Self {
            step: Step::Hello,
            deadline: now + OPENING_TIME,
            partner: None,
            rotates: false,
            mine: Default::default(),
            start,
        };
        if handshake.start.role == Role::Dialler {
            let known = handshake.start.opening.partner.as_ref();
            if handshake.start.secret.is_none() {
                let known = known.ok_or(SessionError::NotPaired)?;
                if !known.is_pinned(&handshake.start.peer_key) {
                    return Err(SessionError::WrongKey);
                }
            }
            handshake.send_hello(handshake.start.opening.epoch, handshake.own_proof(), outputs);
        }
        Ok(handshake)
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn frame(
        &mut self,
        frame: Frame,
        outputs: &mut Outputs,
    ) -> Result<Option<Opened>, SessionError> {
        match (self.step, self.start.role, frame) {
            (Step::Hello, Role::Listener, Frame::Hello(hello)) => self.judge(&hello, outputs)?,
            (Step::Hello, Role::Dialler, Frame::Hello(hello)) => self.recognise(&hello, outputs)?,
            (Step::Hello, Role::Dialler, Frame::Refused(refused)) => {
                return Err(SessionError::RefusedBy(RefusedBecause(refused)));
            }
            (Step::Welcome, Role::Dialler, Frame::Welcome(welcome)) => {
                let partner = self.partner.clone().ok_or(SessionError::Unexpected("WELCOME"))?;
                self.step = Step::Host;
                outputs.push_back(Output::PairedWith(partner, welcome));
            }
            (Step::Key, _, Frame::NextKey(key)) => self.pin(&key, outputs)?,
            (Step::Compare, role, Frame::Compare(compare)) => {
                if compare.held != self.start.opening.local.log_name {
                    return Err(SessionError::WrongStore("it remembers another log name for this node"));
                }
                if role == Role::Listener {
                    self.send_compare(outputs);
                }
                let partner = self.partner.as_ref().map_or(0, |partner| partner.identity.generation);
                let generations = (self.start.opening.local.generation, partner);
                return Ok(Some(Opened { mine: self.mine, theirs: compare.lanes, generations }));
            }
            (_, _, frame) => return Err(SessionError::Unexpected(frame.name())),
        }
        Ok(None)
    }

    /// The node has remembered the partner, and says where its lanes stand.
    pub(super) fn remembered(
        &mut self,
        lanes: [LaneState; 4],
        welcome: Option<Vec<u8>>,
        outputs: &mut Outputs,
    ) -> Result<(), SessionError> {
        if self.step != Step::Host {
            return Err(SessionError::Unexpected("an answer of the node"));
        }
        self.compare_from(lanes);
        if self.start.role == Role::Listener {
            let epoch = self.partner.as_ref().map_or(0, |partner| partner.epoch);
            self.send_hello(epoch, None, outputs);
            if let Some(welcome) = welcome {
                outputs.push_back(Output::Send(Channel::Control, Frame::Welcome(welcome)));
            }
            self.send_next_key(outputs);
        }
        self.compare_or_wait(outputs);
        Ok(())
    }

    /// The partner's next key is pinned.
    pub(super) fn key_remembered(&mut self, outputs: &mut Outputs) -> Result<(), SessionError> {
        if self.step != Step::Pinning {
            return Err(SessionError::Unexpected("an answer of the node"));
        }
        self.rotates = false;
        self.compare_or_wait(outputs);
        Ok(())
    }

    /// The partner is known and remembered: its next key comes first if there is one, then COMPARE, which the
    /// dialler says first. So who has been sent a COMPARE knows that its own next key is pinned.
    fn compare_or_wait(&mut self, outputs: &mut Outputs) {
        self.step = if self.rotates { Step::Key } else { Step::Compare };
        if self.step == Step::Compare && self.start.role == Role::Dialler {
            self.send_next_key(outputs);
            self.send_compare(outputs);
        }
    }

    fn pin(&mut self, key: &PublicKey, outputs: &mut Outputs) -> Result<(), SessionError> {
        let key = spki::from_raw(key);
        let partner = self.partner.as_mut().ok_or(SessionError::Unexpected("NEXT KEY"))?;
        if key == partner.key || key == self.start.local_key {
            return Err(SessionError::Unexpected("a next key that is in use"));
        }
        if partner.former_key.as_ref() == Some(&key) {
            return Err(SessionError::FormerKey);
        }
        if partner.next_key.as_ref() == Some(&key) {
            self.step = Step::Pinning;
            return self.key_remembered(outputs);
        }
        partner.next_key = Some(key);
        self.step = Step::Pinning;
        outputs.push_back(Output::RememberKey(partner.clone()));
        Ok(())
    }

    /// The listener's side of HELLO; see the table above.
    fn judge(&mut self, hello: &Hello, outputs: &mut Outputs) -> Result<(), SessionError> {
        if !speaks_our_version(hello) {
            return Err(refuse(Refusal::Version, None, outputs));
        }
        let partner = self.claimed(hello, hello.epoch);
        let pinned = self.start.opening.partner.as_ref().filter(|known| known.is_pinned(&partner.key));
        let output = match pinned {
            Some(known) if same_store(known, hello) => {
                if rank(&partner) <= rank(known) && !self.start.opening.adopt {
                    return Err(refuse(Refusal::Stale, Some(known), outputs));
                }
                if hello.proof.is_some() {
                    Output::PairedBy(partner.clone())
                } else {
                    Output::Remember(partner.clone())
                }
            }
            _ if self.is_proved(hello) => Output::PairedBy(partner.clone()),
            Some(_) if self.start.opening.adopt => Output::Adopt(partner.clone()),
            Some(_) => return Err(refuse(Refusal::LogName, None, outputs)),
            None => return Err(refuse(Refusal::Unknown, None, outputs)),
        };
        self.partner = Some(partner);
        self.step = Step::Host;
        outputs.push_back(output);
        Ok(())
    }

    /// The dialler's side of HELLO: the edge has accepted; is it the right one?
    fn recognise(&mut self, hello: &Hello, outputs: &mut Outputs) -> Result<(), SessionError> {
        if !speaks_our_version(hello) {
            return Err(SessionError::Version { oldest: hello.oldest, newest: hello.newest });
        }
        let partner = self.claimed(hello, 0);
        if self.start.secret.is_some() {
            self.partner = Some(partner);
            self.step = Step::Welcome;
            return Ok(());
        }
        let known = self.start.opening.partner.as_ref().ok_or(SessionError::NotPaired)?;
        let another_store = !same_store(known, hello);
        if another_store && self.start.opening.adopt {
            self.partner = Some(partner.clone());
            self.step = Step::Host;
            outputs.push_back(Output::Adopt(partner));
            return Ok(());
        }
        if known.identity.node != hello.identity.node {
            return Err(SessionError::WrongStore("its node id is another"));
        }
        if known.identity.log_name != hello.identity.log_name {
            return Err(SessionError::WrongStore("its log name is another"));
        }
        // A higher one may have been a lie, which ends with what the operator says.
        if hello.identity.generation < known.identity.generation && !self.start.opening.adopt {
            return Err(SessionError::WrongStore("its generation is lower than before"));
        }
        let is_new = (partner.identity, &partner.key, &partner.next_key)
            != (known.identity, &known.key, &known.next_key);
        self.partner = Some(partner.clone());
        if is_new {
            self.step = Step::Host;
            outputs.push_back(Output::Remember(partner));
        } else {
            self.compare_from(self.start.opening.lanes);
            self.compare_or_wait(outputs);
        }
        Ok(())
    }

    /// The partner, as its hello and its key in TLS say. A key that was announced once counts only as long as it is
    /// announced again: one that a restored partner has lost is not to stay pinned.
    fn claimed(&mut self, hello: &Hello, epoch: u64) -> Partner {
        self.rotates = hello.rotates;
        let mut partner = claimed(hello.identity, &self.start.peer_key, epoch);
        match self.start.opening.partner.as_ref().filter(|known| known.is_pinned(&partner.key)) {
            Some(known) if known.key == partner.key => {
                partner.next_key = known.next_key.clone().filter(|_| hello.rotates);
                partner.former_key = known.former_key.clone();
            }
            Some(known) => partner.former_key = Some(known.key.clone()),
            None => {}
        }
        partner
    }

    fn compare_from(&mut self, lanes: [LaneState; 4]) {
        self.mine = lanes;
        for lane in &mut self.mine {
            lane.next = lane.next.max(lane.confirmed.number.saturating_add(1));
        }
    }

    fn send_compare(&self, outputs: &mut Outputs) {
        let held = self.partner.as_ref().map(|partner| partner.identity.log_name).unwrap_or_default();
        let lanes = self.mine.map(|lane| CompareLane {
            confirmed: lane.confirmed,
            next: lane.next,
            received: lane.received,
        });
        let compare = Box::new(Compare { held, lanes });
        outputs.push_back(Output::Send(Channel::Control, Frame::Compare(compare)));
    }

    fn send_hello(&self, epoch: u64, proof: Option<Digest>, outputs: &mut Outputs) {
        let identity = self.start.opening.local;
        let rotates = self.own_next_key().is_some();
        let hello = Hello { newest: VERSION, oldest: VERSION_OLDEST, identity, epoch, proof, rotates };
        outputs.push_back(Output::Send(Channel::Control, Frame::Hello(hello)));
    }

    fn send_next_key(&self, outputs: &mut Outputs) {
        let key = self.own_next_key();
        outputs.extend(key.map(|key| Output::Send(Channel::Control, Frame::NextKey(key))));
    }

    fn own_next_key(&self) -> Option<PublicKey> {
        self.start.next_key.as_deref().and_then(spki::to_raw)
    }

    fn own_proof(&self) -> Option<Digest> {
        let Start { secret, binding, local_key, peer_key, .. } = &self.start;
        secret.as_ref().map(|secret| pairing_proof(secret, binding, local_key, peer_key))
    }

    /// Whether the hello proves the open invitation. The comparison takes the same time for any proof.
    fn is_proved(&self, hello: &Hello) -> bool {
        let Start { secret, binding, local_key, peer_key, .. } = &self.start;
        match (secret, hello.proof) {
            (Some(secret), Some(proof)) => {
                let right = pairing_proof(secret, binding, peer_key, local_key);
                blake3::Hash::from_bytes(right) == blake3::Hash::from_bytes(proof)
            }
            _ => false,
        }
    }
}

fn speaks_our_version(hello: &Hello) -> bool {
    hello.oldest <= VERSION && hello.newest >= VERSION_OLDEST && hello.oldest <= hello.newest
}

fn same_store(known: &Partner, hello: &Hello) -> bool {
    known.identity.node == hello.identity.node && known.identity.log_name == hello.identity.log_name
}

/// What decides which of two attempts is the newer one.
fn rank(partner: &Partner) -> (u32, u64) {
    (partner.identity.generation, partner.epoch)
}

fn refuse(why: Refusal, known: Option<&Partner>, outputs: &mut Outputs) -> SessionError {
    let (generation, epoch) = known.map_or((0, 0), rank);
    let refused = Refused { why, generation, epoch };
    outputs.push_back(Output::Send(Channel::Control, Frame::Refused(refused)));
    SessionError::Refused(RefusedBecause(refused))
}
