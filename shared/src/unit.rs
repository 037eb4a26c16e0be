//! What the heads of units say: everything that one node tells the other.
//!
//! The link carries heads as opaque bytes; each side reads only the kinds that the other may write.
//! An edge can offer mail and report facts about copies that it holds. It cannot ask for anything.

mod number;

use rkyv::{Archive, Deserialize, Serialize};

use crate::aggregate::AggregateReport;
use crate::credential::Credential;
use crate::inventory::Inventory;
use crate::notify::{Notify, Return};
use crate::projection::BucketDigest;
use crate::sasl::Secret;
use crate::seal::{PrivateKey, Sealed};
use crate::store::Row;
use crate::tls_wish::TlsWish;

pub use self::number::{
    NO_REVISION, OUTBOUND, REVISION, REVISIONS_MAX, carrier_id, generation_end, is_redirect, part_id,
    redirect_after, revision_after, revision_ordinal,
};

/// A 128-bit id as it crosses.
pub type Id = [u8; 16];

/// From edge to big.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum ToBig {
    /// A message that the edge has answered 250; its sealed body comes with the unit.
    Inbound(Inbound),
    /// What became of an attempt for one recipient of an outbound message.
    Outcome(Outcome),
    /// What a traveller's client did with a copy.
    PopAct(PopAct),
    /// The edge has destroyed a window's keys and copies.
    WindowClosed {
        /// The window.
        window: Id,
        /// The end that had come by the edge's clock; `None` if big had told it to end the window.
        until: Option<u64>,
    },
    /// The edge has compared its directory with what big said of it.
    DirectoryCompared(DirectoryCompared),
    /// What the edge holds of messages, because big has asked.
    Inventory(Inventory),
    /// What a revision came to for one recipient whose copy the edge held.
    Revised(Revised),
    /// Somebody has logged in to a window; told seldom.
    WindowUsed {
        /// The window.
        window: Id,
        /// When, milliseconds since 1970.
        at: u64,
    },
    /// Passwords of travellers are being guessed; told seldom.
    Guessing {
        /// Networks that are locked out.
        networks: u32,
        /// Accounts that are guarded.
        accounts: u32,
    },
    /// What was counted of a domain that wants to be told.
    AggregateReport(Box<AggregateReport>),
}
crate::row!(ToBig, 6);

/// A message accepted by the edge.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Given at acceptance.
    pub message: Id,
    /// The body's file key, wrapped to big.
    pub wrapped_key: Vec<u8>,
    /// The [`crate::origin::Origin`], sealed with the body.
    pub sealed_origin: Vec<u8>,
    /// Its [`crate::inventory::origin_digest`]: what the edge can say of an origin that it cannot read.
    pub origin_digest: [u8; 16],
    /// The window a traveller submitted it through, as authenticated; `None` from port 25.
    pub submitted: Option<Id>,
    /// Windows whose secondary mailbox the edge has filed it into.
    pub filed: Vec<Id>,
}

/// The state of one recipient of an outbound message (RFC 3464 §2.3.3 for the final ones).
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryState {
    /// On big, waiting for the link.
    Queued,
    /// On the edge, waiting for an attempt.
    Relaying,
    /// An attempt failed for now; another one will follow.
    Deferred,
    /// A host outside has taken it.
    Relayed,
    /// Filed in a mailbox inside.
    Delivered,
    /// It will never arrive.
    Failed,
    /// Its author took it back before it left.
    Withdrawn,
}

/// What a revision does with a message that was sent.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ReviseMode {
    /// A new text takes the place of the old one.
    Replace,
    /// More text is added.
    Append,
    /// The message is taken back.
    Withdraw,
}

/// What a revision came to for one recipient.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ReviseResult {
    /// The node that holds the copy has not decided yet.
    Pending,
    /// Only the new text is there: the old one was not read and never will be.
    Replaced,
    /// The message is gone: it was not read and never will be.
    Withdrawn,
    /// The old text was read or fetched; the new one is shown beside that mark, and offered again.
    Revised,
    /// The old text has left; a message that names it was sent after it.
    NoticeSent,
    /// The old text has left, or is gone.
    TooLate,
    /// There was nothing to revise: the recipient never had a copy.
    Refused,
}

impl DeliveryState {
    /// Whether there is something still to happen.
    pub fn waits(self) -> bool {
        matches!(self, Self::Queued | Self::Relaying | Self::Deferred)
    }
}

/// What became of an attempt for one recipient.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The outbound message.
    pub message: Id,
    /// Index of the recipient in its [`Outbound`].
    pub recipient: u32,
    /// The new state.
    pub state: DeliveryState,
    /// When, milliseconds since 1970.
    pub at: u64,
    /// The host that answered, if one did.
    pub host: Option<String>,
    /// The TLS that the attempt was under, and by what the host had proved itself, such as `TLS 1.3, verified by DANE`;
    /// `None` is in clear.
    pub tls: Option<String>,
    /// Why the smart host was asked; `None` if the domain's own hosts were.
    pub relay: Option<String>,
    /// The remote's reply, or our reason, word for word.
    pub text: String,
    /// Enhanced status code (RFC 3463), `2.0.0` and so on.
    pub status: String,
    /// The connection was lost between the last byte and its reply: the remote may have it.
    pub in_doubt: bool,
    /// The host has taken it, and on to tell the sender what they want to hear of it (RFC 3461).
    pub host_reports: bool,
    /// When it will be tried again, milliseconds since 1970.
    pub next_attempt_at: Option<u64>,
}

/// What a revision came to for one recipient, decided in one commit by the edge that held the copy.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Revised {
    /// The message.
    pub message: Id,
    /// Index of the recipient, as the revision named it.
    pub recipient: u32,
    /// Which revision.
    pub revision: u32,
    /// What it came to; never [`ReviseResult::Pending`].
    pub result: ReviseResult,
    /// When, milliseconds since 1970.
    pub at: u64,
    /// More about it.
    pub text: String,
}

/// What a traveller's client did with a copy, told when its session committed.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PopAct {
    /// The window.
    pub window: Id,
    /// The message.
    pub message: Id,
    /// Its revision.
    pub revision: u32,
    /// It was retrieved in full.
    pub retrieved: bool,
    /// It was deleted at QUIT.
    pub deleted: bool,
    /// When, milliseconds since 1970.
    pub at: u64,
}

/// What comparing the directory came to.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DirectoryCompared {
    /// `None` if it is the same; else the digests of every bucket as the edge has it.
    pub differs: Option<Vec<BucketDigest>>,
}

/// From big to edge.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum ToEdge {
    /// Big's sealing key: the first thing an edge is told after pairing.
    Introduction {
        /// To which every inbound body's key is wrapped.
        sealing_key: [u8; 32],
    },
    /// A message to deliver outside; its sealed body comes with the unit.
    Outbound(Outbound),
    /// A message for a secondary mailbox; its sealed body comes with the unit.
    Copy(WindowCopy),
    /// A row of the directory's projection, new or changed. An address is hashed in its canonical form, a
    /// domain's catch-all as `@domain`.
    Address(AddressRow),
    /// An address that is known no more.
    AddressGone {
        /// Its keyed hash.
        hash: [u8; 32],
    },
    /// A travel window, new or changed.
    Window(Box<Window>),
    /// A travel window's end: its keys and copies are to be destroyed.
    WindowEnd {
        /// The window.
        window: Id,
    },
    /// What follows, up to [`ToEdge::DirectoryComplete`], is the whole directory and every open window
    /// anew: what is not repeated is no more.
    DirectoryBegin,
    /// Everything since [`ToEdge::DirectoryBegin`] is the whole directory: from now on it counts, and
    /// unknown means unknown.
    DirectoryComplete,
    /// After a restore of either node: which messages still wait for delivery, of those whose ids lie in
    /// a range. What the edge holds back beyond them is settled.
    Unsettled(Unsettled),
    /// Many rows of the projection at once: of the directory that is being told anew, or else of the one
    /// that counts.
    DirectoryRows(Box<DirectoryRows>),
    /// Every change of the directory up to here has been told.
    DirectoryMark(DirectoryMark),
    /// The edge is to list what it holds of messages ([`crate::inventory`]).
    InventoryAsked {
        /// Names the question. Rises with time.
        asked: Id,
    },
    /// A revision of a message that waits for delivery; its sealed body comes with the unit, unless the
    /// message is taken back.
    Revise(Revise),
    /// A revision of a copy in a secondary mailbox; its sealed body comes with the unit.
    ReviseCopy(CopyRevision),
    /// A message that is at home no more: its copy in a secondary mailbox goes too.
    CopyGone {
        /// The window.
        window: Id,
        /// The message.
        message: Id,
    },
}
crate::row!(ToEdge, 7);

/// The rows of the projection between two hashes, in place of whatever lies there.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DirectoryRows {
    /// The first hash.
    pub from: [u8; 32],
    /// The last hash.
    pub to: [u8; 32],
    /// All there is between them, rising.
    pub rows: Vec<AddressRow>,
}

/// A point of the service lane up to which the edge knows everything.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryMark {
    /// The epoch of the connection for which it was said. One that comes over a later connection is old
    /// news: changes may wait behind it.
    pub epoch: u64,
    /// The digest of all buckets at this point, if there was a quiet moment to make it.
    pub root: Option<[u8; 32]>,
}

/// Messages that still wait for delivery.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The first id of the range.
    pub from: Id,
    /// The last id of the range.
    pub to: Id,
    /// Each message, and for each recipient who has not got it the index, and the revision that is to
    /// leave at the least.
    pub messages: Vec<(Id, Vec<(u32, u32)>)>,
    /// The edge's generation, as big knew it. An edge that went back since has another list coming; this one would
    /// release what has left.
    pub generation: u32,
}

/// A message for the Internet.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The message.
    pub message: Id,
    /// Its revision.
    pub revision: u32,
    /// The body's file key, wrapped to the edge.
    pub wrapped_key: Vec<u8>,
    /// Length of the plain body in bytes.
    pub size: u64,
    /// The reverse-path; `None` is the null one.
    pub reverse_path: Option<String>,
    /// Index on big and forward-path of each recipient.
    pub recipients: Vec<(u32, String)>,
    /// What is asked of them, in their order; of those behind the last of these, nothing.
    pub asked: Vec<Asked>,
    /// RET, if it was given.
    pub returns: Option<Return>,
    /// ENVID, if it was given.
    pub envelope_id: Option<String>,
    /// What its sender wishes of TLS (RFC 8689).
    pub tls_wish: TlsWish,
    /// Whether the content holds 8-bit bytes (RFC 6152).
    pub body_8bit: bool,
    /// Whether the header needs SMTPUTF8 (RFC 6531).
    pub utf8_header: bool,
    /// DKIM signatures, which leave before the content: see [`are_signatures`].
    pub signatures: String,
}

/// What their sender wants to be told of so many recipients, one behind the other (RFC 3461).
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of how many.
    pub count: u32,
    /// NOTIFY, if it was given.
    pub notify: Option<Notify>,
    /// ORCPT, if there is one.
    pub original: Option<String>,
}

impl Outbound {
    /// Takes its recipients out: of each the index, the forward-path, and what is asked of it.
    pub fn take_recipients(
        &mut self,
    ) -> impl Iterator<Item = (u32, String, Option<Notify>, Option<String>)> + use<> {
        let asked = std::mem::take(&mut self.asked).into_iter().flat_map(|asked| {
            let Asked { count, notify, original } = asked;
            std::iter::repeat_n((notify, original), usize::try_from(count).unwrap_or(usize::MAX))
        });
        let asked = asked.chain(std::iter::repeat((None, None)));
        let recipients = std::mem::take(&mut self.recipients).into_iter().zip(asked);
        recipients.map(|((index, address), (notify, original))| (index, address, notify, original))
    }
}

/// Octets of the signatures of one message.
pub const SIGNATURES_BYTES_MAX: usize = 16 * 1024;

/// Whether a text is what may stand before a message as its signatures: nothing, or whole header fields of that name.
pub fn are_signatures(text: &str) -> bool {
    let is_line = |line: &str| {
        let is_text = |byte: u8| byte == b'\t' || matches!(byte, b' '..=b'~');
        (line.starts_with("DKIM-Signature:") || line.starts_with(['\t', ' '])) && line.bytes().all(is_text)
    };
    let whole = text.is_empty() || text.starts_with("DKIM-Signature:") && text.ends_with("\r\n");
    text.len() <= SIGNATURES_BYTES_MAX && whole && text.split_terminator("\r\n").all(is_line)
}

/// A message for a secondary mailbox.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct WindowCopy {
    /// The window.
    pub window: Id,
    /// The message.
    pub message: Id,
    /// Its revision.
    pub revision: u32,
    /// The body's file key, wrapped to the window.
    pub wrapped_key: Vec<u8>,
    /// Length of the plain body in bytes: what POP3 counts.
    pub size: u64,
    /// A client had retrieved this revision from an edge that has been restored since, or replaced.
    pub retrieved: bool,
}

/// A revision of a message for the Internet.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Revise {
    /// The message.
    pub message: Id,
    /// Which revision, from 1.
    pub revision: u32,
    /// What it does.
    pub mode: ReviseMode,
    /// Whom it is for: each recipient's index, and the last revision of which big knows that it took the place of what
    /// was before (0 is the original). Until that has come to the edge, which may have gone back, this waits for it.
    pub recipients: Vec<(u32, u32)>,
    /// The body's file key, wrapped to the edge.
    pub wrapped_key: Vec<u8>,
    /// Length of the plain body in bytes.
    pub size: u64,
    /// Whether the content holds 8-bit bytes (RFC 6152).
    pub body_8bit: bool,
    /// Whether the header needs SMTPUTF8 (RFC 6531).
    pub utf8_header: bool,
    /// DKIM signatures of this revision, which leave before the content: see [`are_signatures`].
    pub signatures: String,
}

/// A revision of a copy in a secondary mailbox.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CopyRevision {
    /// The window.
    pub window: Id,
    /// The message.
    pub message: Id,
    /// Which revision, from 1.
    pub revision: u32,
    /// The numbers of those before it, besides the original's: any may have brought the message.
    pub earlier: Vec<u32>,
    /// What it does. The body of a withdrawal is the notice for one who has fetched the message.
    pub mode: ReviseMode,
    /// Index of the recipient, for the report.
    pub recipient: u32,
    /// The body's file key, wrapped to the window.
    pub wrapped_key: Vec<u8>,
    /// Length of the plain body in bytes: what POP3 counts.
    pub size: u64,
    /// A copy that the edge does not have is on its way. Otherwise it will not come: the edge went back, and is told again.
    pub comes: bool,
    /// Big knows that a client has retrieved the copy, or has deleted it, which is to be taken for that.
    pub retrieved: bool,
}

/// What the edge knows of one address: a keyed hash, and whose it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct AddressRow {
    /// Keyed hash of the canonical address.
    pub hash: [u8; 32],
    /// The person behind it, for travel; `None` for role addresses.
    pub person: Option<Id>,
}
crate::row!(AddressRow, 1);

/// A travel window as the edge holds it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The window.
    pub window: Id,
    /// Whose it is.
    pub person: Id,
    /// Keyed hashes of the names that log in to it.
    pub logins: Vec<[u8; 32]>,
    /// Keyed hashes of the addresses its person may send as.
    pub senders: Vec<[u8; 32]>,
    /// Opens, milliseconds since 1970; 0 is at once, whatever the edge's clock says.
    pub from: u64,
    /// Ends, milliseconds since 1970; `None` is standing.
    pub until: Option<u64>,
    /// Public half of its key pair.
    pub public_key: [u8; 32],
    /// The login, and the private half under it.
    pub credential: Credential,
    /// The login that was rotated away, as long as it is good besides.
    pub former: Option<Former>,
    /// Larger messages are not filed into it, octets; `None` is any size.
    pub size_max: Option<u64>,
    /// Octets of copies that it may hold; `None` is any number.
    pub quota: Option<u64>,
}
crate::row!(Window, 2);

/// A login in whose place there is another one. Both have the same salt.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The login.
    pub credential: Credential,
    /// Good until then, milliseconds since 1970.
    pub until: u64,
}

/// By what somebody has logged in to a window: the stored key of the password that opened it.
pub type Login = [u8; 32];

impl Window {
    /// A standing window that begins at once and has no limits; no name logs in to it yet, and nobody sends by it.
    pub fn new(window: Id, person: Id, public_key: [u8; 32], credential: Credential) -> Self {
        Self {
            window,
            person,
            logins: Vec::new(),
            senders: Vec::new(),
            from: 0,
            until: None,
            public_key,
            credential,
            former: None,
            size_max: None,
            quota: None,
        }
    }

    /// The logins that are good at `now`, milliseconds since 1970, and until when: the present one as long as the
    /// window is there, the former one as long as it was given.
    pub fn good(&self, now: u64) -> impl Iterator<Item = (&Credential, Option<u64>)> {
        let former = self.former.as_ref().filter(|former| now < former.until);
        let former = former.map(|former| (&former.credential, Some(former.until)));
        std::iter::once((&self.credential, None)).chain(former)
    }

    /// The private half of its keys, and which login opened it, if what somebody knows is right at `now`. Passwords
    /// that were rotated away open it while they are good; by SCRAM, which is promised one key, only the present one
    /// does.
    pub fn open(&self, secret: &Secret, now: u64) -> Result<(PrivateKey, Login), Sealed> {
        let client_key = self.credential.client_key(secret);
        let opened = |(credential, _): (&Credential, _)| {
            Some((credential.open_with(&client_key).ok()?, credential.stored_key))
        };
        self.good(now).find_map(opened).ok_or(Sealed)
    }
}

/// What the edge tells big when it takes the ticket.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// To which outbound bodies' keys are wrapped.
    pub sealing_key: [u8; 32],
    /// Under which addresses cross as hashes.
    pub directory_key: [u8; 32],
}
crate::row!(Welcome, 1);

/// The keyed hash under which an address or a login name is known on the edge.
pub fn directory_hash(directory_key: &[u8; 32], canonical: &str) -> [u8; 32] {
    *blake3::keyed_hash(directory_key, canonical.as_bytes()).as_bytes()
}

/// The head's bytes: the version, then the archive.
pub fn encode<R: Row>(head: &R) -> Vec<u8> {
    let mut bytes = vec![R::VERSION];
    bytes.extend_from_slice(&head.encode());
    bytes
}

/// Reads what [`encode`] wrote, and nothing else.
pub fn decode<R: Row>(bytes: &[u8]) -> Option<R> {
    let (version, archive) = bytes.split_first()?;
    (*version == R::VERSION).then(|| R::decode(archive)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_whole_signatures_stands_before_a_message() {
        let one = "DKIM-Signature: v=1; d=example.com;\r\n\tb=c2ln\r\n";
        for good in ["", one, &one.repeat(2)] {
            assert!(are_signatures(good), "{good:?}");
        }
        let bad = [
            "DKIM-Signature: v=1",
            "\tb=c2ln\r\n",
            "Bcc: x@example.com\r\n",
            "DKIM-Signature: v=1\r\n\r\n",
            "DKIM-Signature: v=1\r\nFrom: x@example.com\r\n",
            "DKIM-Signature: v=1\n\r\n",
            "DKIM-Signature: \u{e9}\r\n",
        ];
        for bad in bad.into_iter().map(str::to_owned).chain([one.repeat(1_000)]) {
            assert!(!are_signatures(&bad), "{bad:?}");
        }
    }

    #[test]
    fn what_is_asked_belongs_to_recipients_in_their_order() {
        let asked = |count, notify: Option<&str>, original: Option<&str>| Asked {
            count,
            notify: notify.map(|notify| notify.parse().expect("a NOTIFY")),
            original: original.map(ToOwned::to_owned),
        };
        let mut outbound = Outbound {
            message: [1; 16],
            revision: 0,
            wrapped_key: Vec::new(),
            size: 0,
            reverse_path: None,
            recipients: (0..5).map(|index| (index, format!("r{index}@remote.example"))).collect(),
            asked: vec![asked(2, Some("NEVER"), None), asked(0, None, None), asked(1, None, Some("x;y"))],
            returns: None,
            envelope_id: None,
            tls_wish: TlsWish::Unsaid,
            body_8bit: false,
            utf8_header: false,
            signatures: String::new(),
        };
        let of = |outbound: &mut Outbound| -> Vec<_> {
            let taken = outbound.take_recipients();
            taken.map(|(index, _, notify, original)| (index, notify.is_some(), original.is_some())).collect()
        };
        let taken = of(&mut outbound.clone());
        let nothing = [(3, false, false), (4, false, false)];
        assert_eq!(taken, [&[(0, true, false), (1, true, false), (2, false, true)][..], &nothing].concat());
        // A hostile count makes no more of them.
        outbound.asked = vec![asked(u32::MAX, Some("DELAY"), None)];
        assert_eq!(of(&mut outbound).len(), 5);
    }

    #[test]
    fn heads_come_back_and_foreign_bytes_do_not_panic() {
        let act = ToBig::PopAct(PopAct {
            window: [1; 16],
            message: [2; 16],
            revision: 3,
            retrieved: true,
            deleted: false,
            at: 4,
        });
        let bytes = encode(&act);
        assert_eq!(decode::<ToBig>(&bytes), Some(act));
        for at in 0..bytes.len() {
            decode::<ToBig>(&bytes[..at]);
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x41;
            decode::<ToBig>(&flipped);
            decode::<ToEdge>(&flipped);
        }
        assert_eq!(decode::<ToBig>(&[]), None);
        assert_eq!(decode::<ToBig>(&[2, 0, 0]), None);
    }
}
