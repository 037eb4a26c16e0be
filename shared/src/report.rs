//! What both nodes report of themselves over their control sockets: the link, and a message's way.
//!
//! Data only, for `--json` as it is; [`crate::render`] turns it into text.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::lane::PartnerRow;
use crate::pressure::Level;

/// The link, as this end sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkView {
    /// Whether a partner is known.
    pub paired: bool,
    /// Whether a session is open.
    pub connected: bool,
    /// The partner's address.
    pub peer: Option<String>,
    /// Round trip, milliseconds.
    pub rtt_millis: Option<f64>,
    /// The keys of both, as this node has them.
    pub keys: KeysView,
    /// This session's epoch.
    pub epoch: Option<u64>,
    /// How much more mail this end can take.
    pub pressure: PressureView,
    /// On the edge: how much room it has left.
    pub room: Option<RoomView>,
    /// On the edge: since when it takes no mail from other MTAs because an operator has drained it, milliseconds since 1970.
    pub drained_since: Option<u64>,
    /// To what this node has confined itself.
    pub sandbox: SandboxView,
    /// The directory that the edge holds.
    pub directory: DirectoryView,
    /// The four lanes.
    pub lanes: Vec<LaneView>,
    /// What the other node lacks and this one has no more, so that a lane stands still.
    pub missing: Vec<MissingView>,
    /// What an operator decided lately about lanes, oldest first.
    pub decisions: Vec<DecisionView>,
    /// What an operator has to see to.
    pub alarms: Vec<String>,
    /// On the edge: what could not be told at the border.
    pub border: Option<BorderView>,
}

/// To what a node has confined itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxView {
    /// Whether it has.
    pub on: bool,
    /// What the kernel could not do of it, each for a person.
    pub lacks: Vec<String>,
}

/// How often SMTP could not tell whether the other side knows that a message was taken (RFC 1047), since the edge began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BorderView {
    /// Messages that were sent again because our 250 was not heard, and are here once.
    pub repeats: u64,
    /// Attempts of which a host's answer to the whole message was not heard: it was attempted again, and may be there
    /// twice.
    pub undetermined: u64,
}

/// The link's keys, each as its [`fingerprint`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysView {
    /// This node's key.
    pub own: String,
    /// The key that it is about to have.
    pub own_next: Option<String>,
    /// The key that it has had before.
    pub own_former: Option<String>,
    /// The partner's pinned key; `None` before pairing.
    pub partner: Option<String>,
    /// The key that the partner is about to have, pinned beside that one.
    pub partner_next: Option<String>,
    /// The key that the partner has had before, which is refused.
    pub partner_former: Option<String>,
}

impl KeysView {
    /// Of this node's public keys (its own, the next one and the former one) and the partner's.
    pub fn of(own: &[u8], next: Option<&[u8]>, former: Option<&[u8]>, partner: Option<&PartnerRow>) -> Self {
        let pinned = |key: Option<&Vec<u8>>| key.map(|key| fingerprint(key));
        Self {
            own: fingerprint(own),
            own_next: next.map(fingerprint),
            own_former: former.map(fingerprint),
            partner: pinned(partner.map(|partner| &partner.key)),
            partner_next: pinned(partner.and_then(|partner| partner.next_key.as_ref())),
            partner_former: pinned(partner.and_then(|partner| partner.former_key.as_ref())),
        }
    }
}

/// A public key in a few characters: SHA-256 of its SubjectPublicKeyInfo, in hex.
pub fn fingerprint(spki: &[u8]) -> String {
    let digest = Sha256::digest(spki);
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What the edge holds of the directory, beside what big has told it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryView {
    /// Last compared, milliseconds since 1970; `None` if never.
    pub compared_at: Option<u64>,
    /// Comparisons that found a difference.
    pub differed: u64,
    /// Buckets that were told anew because of that.
    pub mended: u64,
    /// On the edge: why an address that is not there may be somebody's all the same, and is answered 451;
    /// `None` where unknown means unknown.
    pub unsure: Option<String>,
}

/// How much more mail a node can take, and why no more than that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureView {
    /// The level.
    pub level: Level,
    /// What has raised it and what mends that; `None` while it is open.
    pub why: Option<String>,
}

impl PressureView {
    /// What an operator has to see to: mail is refused.
    pub fn alarm(&self) -> Option<String> {
        let why = self.why.as_deref().unwrap_or("for no known reason");
        (!self.level.takes_mail()).then(|| format!("no mail is taken: {why}"))
    }
}

/// How much room the edge has left, whatever its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomView {
    /// Octets held for big and for delivery, as last counted.
    pub spool: u64,
    /// How many those may be: `[edge] spool_max`.
    pub spool_max: u64,
    /// Octets that are free on the file system of its store.
    pub free_bytes: u64,
    /// Inodes that are free there; `None` where they are not counted.
    pub free_inodes: Option<u64>,
}

/// One lane, as this end sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaneView {
    /// service, event, inter or batch.
    pub lane: String,
    /// The last number given out.
    pub sent: u64,
    /// Units that have no number yet, for their large bodies go ahead of them.
    pub ahead: u64,
    /// Units that the partner could not take when it was offered them; they are offered again every few seconds.
    pub deferred: u64,
    /// The last number the partner confirmed.
    pub confirmed: u64,
    /// The last number applied here.
    pub received: u64,
    /// The safety store begins behind this number.
    pub trimmed: u64,
    /// Where the other node said that it stood, when the link came up last; `None` since a restart.
    pub partner: Option<PartnerLaneView>,
}

/// One lane, as the other end saw it when the link came up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnerLaneView {
    /// The last number that it had given out.
    pub sent: u64,
    /// The last number that this node had confirmed to it.
    pub confirmed: u64,
    /// The last number that it had applied.
    pub received: u64,
}

/// A unit that the other node lacks, and that is gone from the safety store here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingView {
    /// service, event, inter or batch.
    pub lane: String,
    /// Unit id: of a message from outside, the message's.
    pub id: String,
    /// Octets of what it said, with its body as it was stored.
    pub octets: u64,
    /// The first that this node knows of it: of a message, how it came, on big also its envelope; `None` if that is
    /// forgotten.
    pub from: Option<String>,
}

/// What an operator decided about a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionView {
    /// When, milliseconds since 1970.
    pub at: u64,
    /// service, event, inter or batch.
    pub lane: String,
    /// stored, not-stored, reset or adopt.
    pub decision: String,
    /// What the next contact showed; `None` before it.
    pub outcome: Option<String>,
    /// How many units the lane goes on without.
    pub missing_units: u64,
    /// Their octets.
    pub missing_octets: u64,
    /// Their ids, oldest first; at most [`crate::lane::NAMED_MAX`].
    pub missing: Vec<String>,
}

/// One fact of a message's way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds since 1970.
    pub at: u64,
    /// `big` or `edge`.
    pub node: String,
    /// The fact.
    pub what: String,
}

/// A message whose way says what was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Message id.
    pub id: String,
    /// When the first fact that says it was noted, milliseconds since 1970.
    pub at: u64,
    /// That fact.
    pub what: String,
}

/// What a search of the trace has found, as far as one request has looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passages {
    /// The messages, newest first.
    pub found: Vec<Passage>,
    /// The last one that was looked at, if there may be older ones: another request goes on behind it.
    pub behind: Option<String>,
}

/// A unit that will never be applied, unless an operator has it offered again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// Unit id: of a message from outside, the message's.
    pub id: String,
    /// service, event, inter or batch.
    pub lane: String,
    /// Octets of what it says.
    pub head_bytes: u64,
    /// It carries a body, which is kept with it.
    pub with_body: bool,
    /// It came from the other node, and what it follows was refused here.
    pub inbound: bool,
    /// Its reason.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub at: u64,
}
