//! What commands ask of a running edge node over its control socket, and what it answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
pub use shared::operator::{DeadCommand, Done, LinkCommand};
pub use shared::report::{DeadLetterView, LaneView, LinkView, PartnerLaneView, Step};
use shared::unit::DeliveryState;

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Opens an invitation for 24 hours; an earlier one is void. Answered with [`Invited`].
    Invite,
    /// What waits for delivery. Answered with `Vec<Queued>`.
    QueueList,
    /// Units that big refused: mail that was accepted here and is filed nowhere. Answered with
    /// `Vec<DeadLetterView>` for a list, else with one [`DeadLetterView`].
    QueueDead(DeadCommand),
    /// Attempts a message now, also one that is held. Answered with [`Queued`].
    QueueRetry {
        /// Message id.
        message: String,
    },
    /// The link. Answered with [`LinkView`].
    LinkStatus,
    /// Where too many logins have failed. Answered with `Vec<LockedView>`.
    Logins,
    /// What an operator decides about the link. Answered with [`Done`].
    Link(LinkCommand),
    /// Copies keys and store. Answered with [`shared::store::Copied`].
    Backup {
        /// A new folder.
        into: PathBuf,
    },
    /// A message's way over this node. Answered with `Vec<Step>`.
    Trace {
        /// Message id.
        message: String,
    },
    /// What a recipient would be answered on port 25, and why. Answered with [`Explained`].
    Explain {
        /// The address.
        address: String,
    },
}

/// What a recipient would be answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// The address, as it was understood.
    pub address: String,
    /// The reply to RCPT; `250` if it is taken.
    pub answer: String,
    /// exact, base, role, catch-all, unknown-fresh, unknown-stale, foreign or no-directory.
    pub rule: String,
    /// The rule in words.
    pub why: String,
}

/// A network that is locked out, or an account that is guarded, because too many logins have failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LockedView {
    /// A network, or the name of an account as it was tried; it need not exist.
    pub what: String,
    /// It is a network.
    pub is_network: bool,
    /// Failed logins.
    pub failures: u32,
    /// Seconds until it is over, if no more fail.
    pub seconds_left: u64,
}

/// An open invitation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invited {
    /// For `big-node pair`.
    pub ticket: String,
    /// Void after this, seconds since 1970.
    pub expires_at: u64,
}

/// A message that waits for delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Queued {
    /// Message id.
    pub id: String,
    /// Reverse-path; empty is the null one.
    pub from: String,
    /// Length in bytes.
    pub size: u64,
    /// Queued here, milliseconds since 1970.
    pub queued_at: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// The next attempt, milliseconds since 1970.
    pub next_attempt_at: u64,
    /// Waits for the operator.
    pub held: bool,
    /// Who is still to get it.
    pub recipients: Vec<Waiting>,
}

/// A recipient that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// Address.
    pub address: String,
    /// Relaying or deferred.
    pub state: DeliveryState,
    /// What was said last.
    pub text: String,
}
