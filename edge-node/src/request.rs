//! What commands ask of a running edge node over its control socket, and what it answers.

use serde::{Deserialize, Serialize};
pub use shared::operator::{DeadCommand, Done, LinkCommand};
pub use shared::report::{DeadLetterView, LaneView, LinkView, PartnerLaneView, Step};
use shared::trace::Query;
use shared::unit::DeliveryState;

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Opens an invitation for 24 hours; an earlier one is void. Answered with [`Invited`].
    Invite,
    /// What waits for delivery, page by page. Answered with [`QueuePage`].
    QueueList(QueueFilter),
    /// Units that big refused: mail that was accepted here and is filed nowhere. Answered with
    /// `Vec<DeadLetterView>` for a list, else with one [`DeadLetterView`].
    QueueDead(DeadCommand),
    /// Makes no attempts for those who wait, until they are released. Answered with [`Done`].
    QueueHold(Which),
    /// Releases whom an operator holds. Answered with [`Done`].
    QueueRelease(Which),
    /// Attempts a message now, also one that may have left already; not one that an operator holds. Answered with
    /// [`Queued`].
    QueueRetry {
        /// Message id.
        message: String,
    },
    /// Gives up on those who wait for a message, or on one of them: the sender is told. Answered with [`Done`].
    QueueCancel {
        /// Message id.
        message: String,
        /// The address of the only one who is meant.
        recipient: Option<String>,
    },
    /// Takes no more mail from other MTAs, until [`Request::Resume`]. Answered with [`Done`].
    Drain,
    /// Takes it again. Answered with [`Done`].
    Resume,
    /// The link. Answered with [`LinkView`].
    LinkStatus,
    /// Where too many logins have failed. Answered with `Vec<LockedView>`.
    Logins,
    /// Forgets the logins that have failed in a network that is locked out, or at an account that is guarded. Answered
    /// with [`Done`].
    LoginsRelease {
        /// The network, an address in it, or the account.
        what: String,
    },
    /// What is asked of strangers, what has come of it, and who is locked. Answered with [`StrangersView`].
    Strangers,
    /// Lets a network go that is locked, whatever it is locked for. Answered with [`Done`].
    StrangersRelease {
        /// The network, or an address in it.
        what: String,
    },
    /// The certificate that is shown. Answered with [`CertificateView`].
    Certificate,
    /// Asks for another certificate now, or reads its files again. Answered with [`CertificateView`].
    CertificateRenew,
    /// This node's clock beside big's. Answered with [`ClockView`].
    Clock,
    /// Whether other hosts can be reached. Answered with [`OutwardView`].
    Outward,
    /// What an operator decides about the link. Answered with [`Done`].
    Link(LinkCommand),
    /// Copies keys and store into the state, for whoever asks to take them elsewhere. Answered with
    /// [`shared::state::Prepared`].
    Backup,
    /// A message's way over this node, or the messages whose way says something. Answered as [`Query`] says.
    Trace(Query),
    /// Who serves a domain outside, and what those hosts have to prove. Answered with `Vec<HostView>`.
    Policy {
        /// The domain.
        domain: String,
    },
    /// What a recipient would be answered on port 25, and why. Answered with [`Explained`].
    Explain {
        /// The address.
        address: String,
    },
}

/// A host that serves a domain, as mail would find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// Its addresses, in the order in which they are tried.
    pub addresses: Vec<String>,
    /// What it has to prove before it gets mail, or why it gets none.
    pub asks: String,
    /// It may get mail.
    pub usable: bool,
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

/// What is asked of strangers on port 25, and what has come of it since the edge was started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StrangersView {
    /// The lists in DNS that are asked, in the order in which they count.
    pub lists: Vec<DnsListView>,
    /// Greylisting, if strangers are told to wait.
    pub greylist: Option<GreylistView>,
    /// Who is locked now, those first who are for longest.
    pub locked: Vec<LockedNetworkView>,
}

/// A network, or a host that the site knows, that is locked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LockedNetworkView {
    /// The network or the host.
    pub what: String,
    /// Why.
    pub why: LockedFor,
    /// So many of those.
    pub count: u32,
    /// Seconds until it is over; if logins have failed, and no more fail.
    pub seconds_left: u64,
}

/// Why a network is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockedFor {
    /// Recipients were named who are not here: whoever comes from there is told of nobody.
    UnknownRecipients,
    /// Logins have failed: nobody from there logs in who has not done so before.
    FailedLogins,
}

/// A list in DNS. A client is asked about once in a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DnsListView {
    /// Its zone and the codes that count, as in the topology.
    pub list: String,
    /// It speaks for clients, and not against them.
    pub allows: bool,
    /// Clients that it had.
    pub listed: u64,
    /// Clients that it had not.
    pub unlisted: u64,
    /// Clients of which it said nothing: no answer in time, or an error code.
    pub unanswered: u64,
    /// It has everybody, and is left aside until it has not.
    pub is_aside: bool,
}

/// Greylisting: recipients, and what is remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GreylistView {
    /// Recipients that were to wait: one alone was answered 451, several of a transaction like its first.
    pub told_to_wait: u64,
    /// Recipients that were accepted because the client had come again in time.
    pub returned: u64,
    /// Recipients that were accepted because the client or the triplet was known.
    pub known: u64,
    /// Triplets that are to come again.
    pub waiting: u64,
    /// Triplets that have come again, and counts of those of a client.
    pub remembered: u64,
}

/// The certificate that the edge shows. All times are milliseconds since 1970.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CertificateView {
    /// Who has made it, in words: the edge itself, files, or the authority.
    pub source: String,
    /// Valid from then on; `None` if it cannot be read.
    pub valid_from: Option<u64>,
    /// Valid until then.
    pub valid_until: Option<u64>,
    /// The hash of its key, as a TLSA record 3 1 1 has it.
    pub key_hash: Option<String>,
    /// The authority that is asked.
    pub directory: Option<String>,
    /// When it was asked last.
    pub attempted_at: Option<u64>,
    /// Why the last attempt brought no new certificate, and what mends that. It is a trouble if one is due.
    pub error: Option<String>,
    /// When the authority is asked next.
    pub next_attempt_at: Option<u64>,
    /// Another certificate is needed by now: the authority has issued none, or a third of its life is left.
    pub is_due: bool,
    /// The authority is being asked now.
    pub is_asking: bool,
}

/// This node's clock beside big's.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ClockView {
    /// How far it is ahead of big's, in milliseconds; `None` if big has not said within an hour what its is.
    pub ahead_millis: Option<i64>,
}

/// Whether the mail port of other hosts can be reached, by what attempts have seen since the node was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutwardView {
    /// When a connection was made last, milliseconds since 1970.
    pub reached_at: Option<u64>,
    /// Addresses at which nothing has answered since.
    pub silent: usize,
    /// When the first of those was tried, milliseconds since 1970.
    pub silent_since: Option<u64>,
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
    /// Why nothing of it is attempted, if that is so.
    pub held: Option<Held>,
    /// Who is still to get it.
    pub recipients: Vec<Waiting>,
}

/// Why a message is not attempted, or one of its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// An operator holds everybody who waits, or that recipient.
    Held,
    /// This edge went back to a backup, and big has still to say who has got it since.
    Restored,
    /// Its author has revised it since the backup that this edge went back to: the new text comes from big.
    Revised,
    /// A rebuild found it, and it may have left already.
    Rebuilt,
}

/// Which of those who wait an operator means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// Of the message with this id.
    Message(String),
    /// In this domain.
    Domain(String),
    /// All of them.
    All,
}

/// What of the queue is listed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct QueueFilter {
    /// Only what somebody in this domain waits for.
    pub domain: Option<String>,
    /// Only what is held, whoever of its recipients is.
    pub held: bool,
    /// Go on there: [`QueuePage::next`] of the page before.
    pub after: Option<String>,
}

/// A page of the queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueuePage {
    /// The messages, by id; none is not the end.
    pub queue: Vec<Queued>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
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
    /// Why nothing is attempted for it, if that is so.
    pub held: Option<Held>,
}
