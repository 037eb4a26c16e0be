//! An edge without sockets, for the simulation: the same store, intake, link host and delivery records. And what only the
//! bench lets an edge do.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::address::Address;
use shared::age::Pulse;
use shared::id::{MessageId, unix_millis};
use shared::report::DirectoryView;
use shared::seal::PrivateKey;
use shared::smtp::{BodyType, Envelope, Facts, Role};
use shared::store::{BodyKey, Disk, Rows, Store, StoreError, Txn};
use shared::topology::Topology;
use shared::unit::{DeliveryState, Id, Window};

use crate::content::Content;
use crate::cover::Covers;
use crate::delivery;
use crate::intake::Intake;
pub use crate::link::LinkHost;
use crate::lockout::Guessing;
use crate::login::Traveller;
pub use crate::maildrop::collecting::Collecting;
use crate::maintenance::Cursors;
use crate::node::Node;
use crate::record::{COPIES, CopyRow, QUEUE, QueueRecipient, QueueRow, WINDOWS, copy_of};
use crate::revise::busy::Busy;
use crate::{aggregate, directory, login, maintenance, queue, reception, revise, windows};

/// Messages that are queued in one commit.
const FILLED_AT_ONCE: usize = 5_000;

/// The edge's own program does not set it, whatever it is built with, and nothing in its environment does.
static CLEAR_LOGINS: AtomicBool = AtomicBool::new(false);

/// Lets an edge that is served in this process take POP3 logins in the clear from its host's own loopback, so that what
/// TLS costs can be measured.
pub fn take_clear_logins() {
    CLEAR_LOGINS.store(true, Ordering::Relaxed);
}

pub(crate) fn takes_clear_logins() -> bool {
    CLEAR_LOGINS.load(Ordering::Relaxed)
}

/// What a remote host was sent.
#[derive(Debug)]
pub struct Delivered {
    /// The message.
    pub content: Vec<u8>,
    /// For whom: index and address.
    pub recipients: Vec<(u32, String)>,
    /// Whether the record of its answer is durable.
    pub recorded: Result<(), StoreError>,
}

/// An edge.
#[derive(Debug)]
pub struct Edge {
    node: Arc<Node>,
    /// Its end of the link.
    pub host: LinkHost,
}

impl Edge {
    /// An edge over `store`.
    pub fn new(
        store: Store,
        covers: Arc<dyn Disk>,
        topology: Topology,
        sealing: [u8; 32],
        directory_key: [u8; 32],
    ) -> Self {
        let (covers, sealing) = (Covers::on(covers), PrivateKey::from_bytes(sealing));
        let node = Arc::new(Node::new(store, covers, topology, sealing, directory_key));
        Self { host: LinkHost::new(Arc::clone(&node)), node }
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.node.store
    }

    /// What a node does before it serves anybody.
    pub async fn wake(&self) -> Result<(), StoreError> {
        self.node.wake().await?;
        self.node.end_overdue().await?;
        self.node.destroy_covers()
    }

    /// Ends the windows whose moment has come.
    pub async fn end_overdue(&self) -> Result<(), StoreError> {
        self.node.end_overdue().await
    }

    /// Takes a message in, as at the end of DATA. The id is for the 250.
    pub async fn accept(&self, from: &Address, to: &Address, content: &[u8]) -> Result<Id, String> {
        self.take_in(from, to, content, None).await
    }

    /// The same of somebody who has logged in to a window, which has to be open.
    pub async fn submit(
        &self,
        window: &Id,
        from: &Address,
        to: &Address,
        content: &[u8],
    ) -> Result<Id, String> {
        let row = self.node.store.read().and_then(|rows| rows.get::<Window>(WINDOWS, window));
        let window = row.map_err(|error| error.to_string())?.ok_or("there is no such window")?;
        let by = Traveller { login: window.credential.stored_key, window };
        self.node.still_open(&by).map_err(|reply| format!("{reply:?}"))?;
        self.take_in(from, to, content, Some(by)).await
    }

    /// Whoever can open the private key of a window logs in to collect from it.
    pub async fn collect(&self, window: &Id, key: [u8; 32]) -> Result<Collecting, String> {
        Collecting::begin(&self.node, window, PrivateKey::from_bytes(key)).await
    }

    /// Somebody at `client` has a wrong password for `user`, so many times.
    pub fn guess(&self, user: &str, client: IpAddr, times: usize) -> Result<(), StoreError> {
        (0..times).try_for_each(|_| login::fail(&self.node, user, client))
    }

    /// Tells big that passwords are being guessed, if it is to be told: networks that are locked out, and accounts that are
    /// guarded.
    pub async fn tell_guesses(&self) -> Result<Option<(u32, u32)>, StoreError> {
        let told = maintenance::tell_guesses(&self.node).await?;
        Ok(told.map(|Guessing { networks, accounts }| (networks, accounts)))
    }

    /// What there still is of a window, in words.
    pub fn left_of(&self, window: &Id) -> Result<Vec<&'static str>, StoreError> {
        let mut left = windows::left_of(&self.node.store.read()?, window)?;
        let covered = self.node.covers.windows().map_err(|error| StoreError::Io(error.to_string()))?;
        if covered.contains(window) {
            left.push("its cover");
        }
        Ok(left)
    }

    async fn take_in(
        &self,
        from: &Address,
        to: &Address,
        content: &[u8],
        submitted: Option<Traveller>,
    ) -> Result<Id, String> {
        let envelope = Envelope {
            reverse_path: Some(from.clone()),
            recipients: vec![to.clone().into()],
            returns: None,
            envelope_id: None,
            body: BodyType::default(),
            smtputf8: false,
            require_tls: false,
            size: None,
            helo: "sim".into(),
            esmtp: true,
            tls: false,
            authenticated: None,
        };
        let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let refused = |reply: shared::smtp::Reply| format!("{reply:?}");
        let mut intake = Intake::begin(&self.node, envelope, client, submitted, None).map_err(refused)?;
        intake.content(content).await.map_err(|error| error.to_string())?;
        let facts = Facts { bytes: content.len() as u64, eight_bit: false, header_eight_bit: false, hops: 0 };
        intake.complete(facts).await.map(|accepted| accepted.message.0).map_err(refused)
    }

    /// What waits for delivery, and whether it is held.
    pub fn queue(&self) -> Result<Vec<(Id, bool)>, StoreError> {
        let rows = self.node.store.read()?.prefix::<QueueRow>(QUEUE, &[], usize::MAX)?;
        let waiting = |row: &QueueRow| row.recipients.iter().any(revise::waits);
        let rows = rows.into_iter().filter(|(_, row)| waiting(row));
        let is_held = |row: &QueueRow| !row.recipients.iter().any(queue::is_free);
        Ok(rows.map(|(key, row)| (revise::message_of(&key).0, is_held(&row))).collect())
    }

    /// Reads a queued message as a remote host would get it, and then records that it was `taken`, or is to
    /// come again.
    pub async fn deliver(&self, id: Id, taken: bool) -> Result<Delivered, String> {
        let failed = |error: StoreError| error.to_string();
        let busy = Arc::clone(&self.node.busy);
        let begun = move |txn: &mut Txn<'_>| revise::begin(txn, &busy, MessageId(id), None, u64::MAX);
        let begun = self.node.store.commit(begun).await.map_err(failed)?.into_inner();
        let begun = begun.ok_or("it does not wait")?;
        let row = &begun.row;
        let key = self.node.sealing.unwrap(&row.wrapped_key, MessageId(id));
        let key = key.map_err(|error| error.to_string())?;
        let mut content = Content::new(self.node.store.body(BodyKey(row.body)).map_err(failed)?, &key);
        let mut plain = Vec::new();
        while let Some(piece) = content.next().map_err(|error| error.to_string())? {
            plain.extend_from_slice(&piece);
        }
        let attempted = |recipient: &&QueueRecipient| begun.under_way.recipients.contains(&recipient.index);
        let recipients = row.recipients.iter().filter(attempted);
        let recipients = recipients.map(|recipient| (recipient.index, recipient.address.clone())).collect();
        let recorded = delivery::answered_by_remote(&self.node, MessageId(id), begun, taken).await;
        Ok(Delivered { content: plain, recipients, recorded })
    }

    /// Attempts once what is due by this node's clock; `taken` says of a destination whether it takes mail now. What was
    /// attempted: message and destination.
    pub async fn attempt_due(&self, taken: impl Fn(&str) -> bool) -> Result<Vec<(Id, String)>, StoreError> {
        let (now, mut attempted, mut seen) = (unix_millis(), Vec::new(), Vec::new());
        let snapshot = self.node.store.read()?;
        for place in queue::due_destinations(&snapshot, now, usize::MAX, |_| true)? {
            seen.clear();
            while let Some(id) = queue::due_message(&snapshot, &place, now, |id| seen.contains(&id))? {
                let (busy, destination) = (Arc::clone(&self.node.busy), place.clone());
                let begin =
                    move |txn: &mut Txn<'_>| revise::begin(txn, &busy, id, Some(&destination), unix_millis());
                if let Some(begun) = self.node.store.commit(begin).await?.into_inner() {
                    delivery::answered_by_remote(&self.node, id, begun, taken(&place)).await?;
                    attempted.push((id.0, place.clone()));
                }
                seen.push(id);
            }
        }
        Ok(attempted)
    }

    /// When the next attempt will be due, milliseconds since 1970.
    pub fn next_attempt(&self) -> Result<Option<u64>, StoreError> {
        queue::next_due(&self.node.store.read()?, unix_millis())
    }

    /// Counts a session with a host of `domain`, and tells big what is counted as if the day were over. The ids of what was
    /// told, once that is durable.
    pub fn tell_report(&self, domain: String, to: Address) -> Result<Vec<Id>, StoreError> {
        aggregate::tell_at_once(&self.node, domain, to)
    }

    /// Sees once to what is seen to every minute, and before that to the safety store.
    pub async fn see_to_all(&self, pulse: &mut Pulse) -> Result<(), StoreError> {
        maintenance::trim(&self.node).await?;
        maintenance::clean(&self.node, pulse, Cursors::default()).await.map(drop)
    }

    /// The copies in a window's secondary mailbox: message and revision of each.
    pub fn copies(&self, window: &Id) -> Result<Vec<(Id, u32)>, StoreError> {
        let rows = self.node.store.read()?.prefix::<CopyRow>(COPIES, window, usize::MAX)?;
        let copy = |(message, revision): (MessageId, u32)| (message.0, revision);
        Ok(rows.iter().map(|(key, _)| copy(copy_of(key))).collect())
    }

    /// Hashes of the addresses it knows, rising.
    pub fn addresses(&self) -> Result<Vec<[u8; 32]>, StoreError> {
        let snapshot = self.node.store.read()?;
        let mut hashes = Vec::new();
        directory::each(&snapshot, &directory::state(&snapshot)?, |row| hashes.push(row.hash))?;
        Ok(hashes)
    }

    /// Compares the directory, if big has said since the last time that it has told everything.
    pub async fn compare(&self) -> Result<(), StoreError> {
        match self.node.take_marked() {
            Some(heard) => directory::compare(&self.node, heard).await,
            None => Ok(()),
        }
    }

    /// The code that RCPT is answered with on port 25.
    pub fn recipient(&self, address: &Address) -> Result<u16, StoreError> {
        let known = self.node.lookup(address)?;
        Ok(reception::answer(&known, Role::Reception).map_or_else(|reply| reply.code(), |()| 250))
    }

    /// The code that MAIL is answered with on port 25, with what the edge holds now.
    pub fn mail(&self) -> Result<u16, StoreError> {
        self.node.pressure.count()?;
        Ok(self.node.pressure.admits(Role::Reception).map_or_else(|reply| reply.code(), |()| 250))
    }

    /// How far the directory is.
    pub fn directory(&self) -> Result<DirectoryView, StoreError> {
        self.node.directory_view()
    }

    /// Removes old rows of the directory, until there are none.
    pub fn sweep(&self) -> Result<(), StoreError> {
        while self.node.store.commit_blocking(directory::sweep)?.into_inner() {}
        Ok(())
    }

    /// Damages the directory behind the node's back: a row appears, or the one under `hash` is gone.
    pub fn drift(&self, hash: [u8; 32], there: bool) -> Result<(), StoreError> {
        let drift = move |txn: &mut Txn<'_>| directory::drift(txn, hash, there);
        self.node.store.commit_blocking(drift).map(drop)
    }
}

/// Queues so many messages in a store that no edge has open, each for one recipient: all but each hundredth for one
/// destination. They are due from `at` on, milliseconds since 1970, and have no bodies, so nothing may be due before the
/// edge has ended.
pub fn fill_queue(store: &Store, count: u64, at: u64) -> Result<(), StoreError> {
    let row = move |number: u64| {
        let domain = match number % 100 {
            0 => format!("d{number}.example"),
            _ => "slow.example".to_owned(),
        };
        let mut row = queue::sample::row([format!("r{number}@{domain}")], at);
        for recipient in &mut row.recipients {
            recipient.state = DeliveryState::Deferred;
            recipient.text = "451 4.2.0 come again later".into();
            recipient.attempts = 1;
            recipient.next_attempt_at = at + number;
        }
        row
    };
    for first in (0..count).step_by(FILLED_AT_ONCE) {
        let numbers = first..count.min(first + FILLED_AT_ONCE as u64);
        let filled = move |txn: &mut Txn<'_>| {
            numbers.into_iter().try_for_each(|number| {
                let id = MessageId(u128::from(number + 1).to_be_bytes());
                queue::put(txn, id, &row(number))
            })
        };
        store.commit_blocking(filled)?;
    }
    Ok(())
}

/// What a restore does first.
pub fn restored(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    maintenance::hold_back(txn, &Busy::default(), unix_millis())
}
