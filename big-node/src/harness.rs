//! Big without a process, for the simulation: the same store, directory, desk records and link host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shared::age::{self, Pulse};
use shared::chunk;
use shared::id::{BodyId, MessageId, unix_millis};
use shared::origin::{Channel, Origin, OriginalRecipient};
use shared::report::DirectoryView;
use shared::seal::{PrivateKey, Unwrapper, Wrappers};
use shared::store::{Committed, Row, Rows, Store, StoreError, Stored, Txn};
use shared::topology::{AttachmentMode, Topology};
use shared::unit::{
    DeliveryState, Id, ReviseMode, ReviseResult, directory_hash, is_redirect, revision_ordinal,
};

use crate::aggregate;
use crate::compare;
use crate::delay;
use crate::directory::{self, NewPerson, Policy, RECORD_KIND};
use crate::dkim::Signers;
use crate::error::Refused;
use crate::folder;
use crate::gateway::queue::UnderWay;
use crate::inbound::{BODY_KIND, rebuild_notes};
use crate::inventory;
pub use crate::link::LinkHost;
use crate::mail::{self, Incoming, Site, Ways};
use crate::maintenance::{self, Cursors};
use crate::pressure::Pressure;
use crate::projection;
use crate::record::{
    COPIES, CopyRow, EDGE, EdgeRow, Entry, Folder, MAILBOXES, MESSAGES, Message, Person, RECIPIENTS, REVISED,
    Recipient, Record, RevisedRow, WINDOWS, WindowRow, WindowState, folder_of, key2, message_of,
};
use crate::redirect;
use crate::report::{self, Looks};
use crate::request::Terms;
use crate::revise::{self, Amendment};
use crate::travel::{self, NewWindow};

/// A big node.
#[derive(Debug)]
pub struct Big {
    store: Store,
    site: Arc<Site>,
    /// Its end of the link.
    pub host: LinkHost,
}

impl Big {
    /// Big over `store`.
    pub fn new(store: Store, topology: &Topology, sealing: [u8; 32]) -> Self {
        let site = Arc::new(Site {
            policy: Policy::of(topology, &[7; 32]),
            filing: AttachmentMode::Passthru,
            sealing: Unwrapper::new(PrivateKey::from_bytes(sealing)),
            wrappers: Wrappers::default(),
            outbound_secret: [7; 32],
            dkim: Signers::default(),
            content_bytes_max: topology.edge.size_max,
            follow_up: topology.site.follow_up,
            reports: topology.edge.reports,
            under_way: UnderWay::default(),
        });
        let pressure = Arc::new(Pressure::none(&store));
        let host = LinkHost::new(store.clone(), Arc::clone(&site), pressure, Arc::default());
        Self { store, site, host }
    }

    /// The same big, which grants credit for mail as a real one does: by its disk's room, and by so many octets of the
    /// edge's in an hour.
    pub fn with_pressure(self, inbound_hourly: u64) -> Self {
        let pressure = Arc::new(Pressure::new(&self.store, inbound_hourly));
        let host = LinkHost::new(self.store.clone(), Arc::clone(&self.site), pressure, Arc::default());
        Self { host, ..self }
    }

    /// Remembers what the edge says at pairing, as if it had been paired.
    pub fn introduce(&self, sealing_key: [u8; 32], directory_key: [u8; 32]) -> Result<(), StoreError> {
        let own = self.site.sealing.public().0;
        let introduced = self.store.commit_blocking(move |txn| {
            txn.put(EDGE, b"edge", &EdgeRow { sealing_key, directory_key })?;
            projection::everything(txn, own)
        });
        introduced.map(drop)
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A new person's record, written and not entered.
    fn new_person(&self, name: &str) -> Result<(Record, Stored), String> {
        let new = NewPerson { name: name.into(), ..NewPerson::default() };
        let rows = self.store.read().map_err(|error| error.to_string())?;
        let person = directory::new_person(&rows, &self.site.policy, new, unix_millis());
        let record = Record::Person(person.map_err(|error| error.to_string())?);
        let writer = self.store.body_writer(record.key(), RECORD_KIND);
        let kept = writer.finish(record.encode()).map_err(|error| error.to_string())?;
        Ok((record, kept))
    }

    /// Adds a person.
    pub fn add_person(&self, name: &str) -> Result<(), String> {
        self.add_people(&[name.to_owned()])
    }

    /// Adds people in one commit.
    pub fn add_people(&self, names: &[String]) -> Result<(), String> {
        let people = names.iter().map(|name| self.new_person(name)).collect::<Result<Vec<_>, _>>()?;
        let added = self.store.commit_blocking(move |txn| {
            people.iter().try_for_each(|(record, kept)| directory::add(txn, record, Some(kept)))
        });
        added.map(drop).map_err(|error: Refused| error.to_string())
    }

    /// Adds a person of whom the edge is not told, as a fault would.
    pub fn add_untold(&self, name: &str) -> Result<(), String> {
        let (record, kept) = self.new_person(name)?;
        let added = self.store.commit_blocking(move |txn| {
            if directory::by_name(txn, record.name()).is_ok() {
                return Err(Refused::new("there is one already"));
            }
            txn.keep_body(&kept)?;
            Ok(directory::restore(txn, &record).map(drop)?)
        });
        added.map(drop).map_err(|error| error.to_string())
    }

    /// Removes a person.
    pub fn remove_person(&self, name: &str) -> Result<(), String> {
        let (name, site) = (name.to_owned(), Arc::clone(&self.site));
        let removed = self.store.commit_blocking(move |txn| {
            let person = Record::Person(directory::by_name(txn, &name)?);
            directory::remove(txn, &site.policy, &person, unix_millis())
        });
        removed.map(drop).map_err(|error| error.to_string())
    }

    /// Sends a message from a desk, to whom the recipients of these indexes are. The id is for the person's exit 0.
    pub fn send(&self, author: &str, to: &[&str], content: &[u8]) -> Result<Id, String> {
        let id = MessageId::generate();
        let failed = |error: StoreError| error.to_string();
        let author = self
            .store
            .read()
            .map_err(failed)
            .and_then(|rows| directory::by_name(&rows, author).map_err(|error| error.to_string()))?;
        let recipient = |to: &&str| OriginalRecipient::new(*to);
        let origin = Origin {
            channel: Channel::Desk { person: author.id },
            accepted_at: unix_millis(),
            reverse_path: author.addresses.first().cloned(),
            recipients: to.iter().map(recipient).collect(),
            envelope_id: None,
            tls_wish: shared::tls_wish::TlsWish::Unsaid,
            return_content: None,
            from: Vec::new(),
            reply_to: Vec::new(),
            sender: Vec::new(),
            mail_followup_to: Vec::new(),
            to: Vec::new(),
            cc: Vec::new(),
            message_id: None,
            in_reply_to: Vec::new(),
            references: Vec::new(),
            subject: String::new(),
            language: None,
            automatic: false,
            verdicts: Vec::new(),
            body_8bit: false,
            utf8_header: false,
            trace_bytes: 0,
            size: content.len() as u64,
            body: *blake3::hash(content).as_bytes(),
        };
        let mut writer = self.store.body_writer(BodyId(origin.body).into(), BODY_KIND);
        writer.write(&chunk::encode_all(content)).map_err(failed)?;
        let stored = writer.finish(rebuild_notes(id, &origin)).map_err(failed)?;
        let incoming = Incoming {
            id,
            origin,
            stored,
            parts: Vec::new(),
            unparsed: None,
            passes: 0,
            ways: Ways::new(),
            tie: None,
            signatures: String::new(),
        };
        let site = Arc::clone(&self.site);
        let sent = self
            .store
            .commit_blocking(move |txn| mail::send(txn, &site, incoming, &author, false, unix_millis()));
        sent.map(|_| id.0).map_err(|error| error.to_string())
    }

    /// Revises a message that was sent from a desk, for one recipient or for all; the revision's number is for the
    /// person's exit 0.
    pub async fn revise(
        &self,
        author: &str,
        id: Id,
        mode: ReviseMode,
        (text, to): (&str, Option<&str>),
        base: Option<u32>,
    ) -> Result<u32, String> {
        let rows = self.store.read().map_err(|error| error.to_string())?;
        let author = directory::by_name(&rows, author).map_err(|error| error.to_string())?;
        let amendment = Amendment {
            mode,
            recipients: to.iter().map(|to| (*to).to_owned()).collect(),
            subject: None,
            reason: None,
            base: base.map(revision_ordinal),
            text: text.into(),
            attachments: Vec::new(),
        };
        let amended = revise::amend(&self.store, &self.site, &author, MessageId(id), amendment, |_| Ok(()));
        amended.await.map_err(|error| error.to_string())?;
        let rows = self.store.read().and_then(|rows| rows.prefix::<RevisedRow>(REVISED, &id, usize::MAX));
        let rows = rows.map_err(|error| error.to_string())?;
        let numbers = rows.iter().map(|(key, _)| revise::index_of(key));
        let last = numbers.filter(|number| !is_redirect(*number)).max();
        last.ok_or_else(|| "it went to nobody".into())
    }

    /// What each revision of a message came to for a recipient, the first one first.
    pub fn results(&self, id: Id, recipient: u32) -> Result<Vec<RevisionResult>, StoreError> {
        let prefix = mail::recipient_key(MessageId(id), recipient);
        let rows = self.store.read()?.prefix::<RevisedRow>(REVISED, &prefix, usize::MAX)?;
        let result = |(key, row): (Vec<u8>, RevisedRow)| RevisionResult {
            revision: revise::index_of(&key),
            mode: row.mode,
            result: row.result,
        };
        Ok(rows.into_iter().map(result).collect())
    }

    /// The revisions that neither node has decided: message, recipient, revision.
    pub fn undecided(&self) -> Result<Vec<(MessageId, u32, u32)>, StoreError> {
        revise::undecided(&self.store.read()?)
    }

    /// A person's id; `None` if there is nobody of that name.
    pub fn person(&self, name: &str) -> Result<Option<Id>, StoreError> {
        let people = directory::list(&self.store.read()?)?;
        Ok(people.into_iter().find(|person| person.name == name).map(|person| person.id))
    }

    /// Where a message lies in a person's mailbox, and its marks.
    pub fn entry(&self, name: &str, id: Id) -> Result<Option<(Folder, Entry)>, String> {
        let rows = self.store.read().map_err(|error| error.to_string())?;
        let person = directory::by_name(&rows, name).map_err(|error| error.to_string())?;
        mail::entry(&rows, &person.id, MessageId(id)).map_err(|error| error.to_string())
    }

    /// Whether a revision was read, or fetched on the road, of what this entry shows.
    pub fn was_shown(&self, entry: &Entry, revision: u32) -> bool {
        entry.shown & revise::bit(revision) != 0
    }

    /// A person deletes a message at a desk: it goes to Trash, and from there for good. Returns where it was.
    pub fn delete(&self, name: &str, id: Id) -> Result<Folder, String> {
        self.at_a_desk(name, move |txn, person| mail::delete(txn, person, MessageId(id), unix_millis()))
    }

    /// A person moves a message at a desk.
    pub fn shift(&self, name: &str, id: Id, to: Folder) -> Result<(), String> {
        self.at_a_desk(name, move |txn, person| folder::shift(txn, person, MessageId(id), to, unix_millis()))
    }

    fn at_a_desk<T: Send + 'static>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Txn<'_>, &Person) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, String> {
        let name = name.to_owned();
        let done = self.store.commit_blocking(move |txn| {
            let person = directory::by_name(txn, &name)?;
            act(txn, &person)
        });
        done.map(Committed::into_inner).map_err(|error| error.to_string())
    }

    /// What is known of a copy in a window.
    pub fn copy(&self, window: &Id, id: Id) -> Result<Option<CopyRow>, StoreError> {
        self.store.read()?.get::<CopyRow>(COPIES, &key2(window, &id))
    }

    /// When a window was used last, as the edge has told.
    pub fn last_login(&self, window: &Id) -> Result<Option<u64>, StoreError> {
        Ok(travel::fill::trip(&self.store.read()?, window)?.last_login)
    }

    /// What the edge has told last of guesses at passwords: networks and accounts.
    pub fn guesses(&self) -> Result<Option<(u32, u32)>, StoreError> {
        travel::guessing::last(&self.store.read()?)
    }

    /// An operator sends what waits for an address to another one. Returns the number of the order, which is the new
    /// recipient's index.
    pub fn redirect(&self, id: Id, from: &str, to: &str) -> Result<u32, String> {
        let (site, from, to) = (Arc::clone(&self.site), from.to_owned(), to.to_owned());
        let ordered = self.store.commit_blocking(move |txn| {
            redirect::order(txn, &site, MessageId(id), (&from, &to), unix_millis())
        });
        ordered.map(|ordered| ordered.number).map_err(|error| error.to_string())
    }

    /// Opens a travel window, with its private key.
    pub fn travel(&self, name: &str, terms: Terms) -> Result<(Id, [u8; 32]), String> {
        let (key, _, credential) = travel::credentials(&self.site);
        let opened_by = *key.as_bytes();
        let new = NewWindow { person: name.to_owned(), terms, key, credential };
        let site = Arc::clone(&self.site);
        let started = self.store.commit_blocking(move |txn| travel::start(txn, &site, new, unix_millis()));
        let window = started.map(|started| started.into_inner().0.window.window);
        window.map(|window| (window, opened_by)).map_err(|error| error.to_string())
    }

    /// Ends a person's travel window, or revokes one that has ended.
    pub fn end_travel(&self, name: &str, revoke: bool) -> Result<Id, String> {
        let name = name.to_owned();
        let ended = self.store.commit_blocking(move |txn| travel::end(txn, &name, revoke, unix_millis()));
        ended.map(|row| row.into_inner().window.window).map_err(|error| error.to_string())
    }

    /// How far a travel window is, and whether the edge was told to end it.
    pub fn window(&self, window: &Id) -> Result<Option<(WindowState, bool)>, StoreError> {
        let row = self.store.read()?.get::<WindowRow>(WINDOWS, window)?;
        Ok(row.map(|row| (row.state, row.told)))
    }

    /// Ends travel windows whose moment has come by this node's clock.
    pub fn end_overdue(&self) -> Result<(), StoreError> {
        self.store.commit_blocking(|txn| travel::end_overdue(txn, unix_millis())).map(drop)
    }

    /// Every message from outside in every folder for what is received: the people who have it, each as often as it is
    /// filed for them, and its content behind the trace that the edge put before it.
    pub fn filed(&self) -> Result<BTreeMap<Id, ReceivedBy>, StoreError> {
        let rows = self.store.read()?;
        let mut filed: BTreeMap<Id, ReceivedBy> = BTreeMap::new();
        for (key, _) in rows.prefix::<Entry>(MAILBOXES, &[], usize::MAX)? {
            let id = message_of(&key);
            if matches!(folder_of(&key), Some(Folder::Sent | Folder::Drafts)) {
                continue;
            }
            let message = rows.get::<Message>(MESSAGES, &id.0)?;
            let message = message.ok_or_else(|| StoreError::Damaged("a filed message".into()))?;
            if matches!(message.origin.channel, Channel::Desk { .. }) {
                continue;
            }
            let plain = mail::content(self.store.body(message.body())?, &message, usize::MAX)?;
            let trace = usize::try_from(message.origin.trace_bytes).unwrap_or(usize::MAX);
            let content = plain.get(trace..).unwrap_or_default().to_vec();
            let person = key.first_chunk().copied().unwrap_or_default();
            filed.entry(id.0).or_insert((Vec::new(), content)).0.push(person);
        }
        Ok(filed)
    }

    /// Whether a message is known here, and the state of its first recipient, or of whom it was sent to instead at last.
    pub fn state_of(&self, id: Id) -> Result<Option<DeliveryState>, StoreError> {
        let rows = self.store.read()?.prefix::<Recipient>(RECIPIENTS, &id, usize::MAX)?;
        let is_redirected = |(key, _): &&(Vec<u8>, Recipient)| is_redirect(revise::index_of(key));
        let last = rows.iter().rfind(is_redirected).or(rows.first());
        Ok(last.map(|(_, row)| row.state))
    }

    /// The recipients of a message, by their index.
    pub fn recipients(&self, id: Id) -> Result<BTreeMap<u32, Recipient>, StoreError> {
        let rows = self.store.read()?.prefix::<Recipient>(RECIPIENTS, &id, usize::MAX)?;
        Ok(rows.into_iter().map(|(key, row)| (revise::index_of(&key), row)).collect())
    }

    /// The ids of the aggregate reports that the edge has brought.
    pub fn reports(&self) -> Result<BTreeSet<Id>, StoreError> {
        let listed = aggregate::list(&self.store.read()?, usize::MAX)?;
        Ok(listed.iter().filter_map(|view| view.id.parse::<MessageId>().ok()).map(|id| id.0).collect())
    }

    /// Asks the edge what it holds of messages; names the question.
    pub fn ask_inventory(&self) -> Result<Id, String> {
        self.store.commit_blocking(inventory::ask).map(|asked| *asked).map_err(|error| error.to_string())
    }

    /// What the answer to `asked` came to: how much was compared, and what differs; `None` before it is whole.
    pub fn inventory(&self, asked: &Id) -> Result<Option<(u64, Vec<String>)>, StoreError> {
        let verdict = inventory::verdict(&self.store.read()?, asked)?;
        Ok(verdict.map(|verdict| (verdict.compared, verdict.named)))
    }

    /// Goes on with what is to be copied into travel windows.
    pub async fn fill_windows(&self) -> Result<(), StoreError> {
        travel::fill::go_on(&self.store, &self.site).await
    }

    /// Sees once to what is seen to every minute, and before that to the safety store.
    pub async fn see_to_all(&self, pulse: &mut Pulse, topology: &Topology) -> Result<(), StoreError> {
        maintenance::trim(&self.store, topology, false).await?;
        maintenance::clean(&self.store, topology, pulse, Cursors::default()).await.map(drop)
    }

    /// Looks at the clock, as at a start.
    pub async fn wake(&self) -> Result<(), StoreError> {
        age::awake(&self.store).await.map(drop)
    }

    /// Tells authors who still waits for their mail, and who will not get it.
    pub async fn write_owed(&self, topology: &Topology) -> Result<(), String> {
        let told = delay::tell_due(&self.store, &self.site, topology).await;
        told.map_err(|error| error.to_string())?;
        let written =
            report::write_owed(&self.store, &self.site, topology, &mut Looks::default(), unix_millis()).await;
        written.map_err(|error| error.to_string())
    }

    /// Tells the edge that it was told everything, and mends what it has reported.
    pub async fn tell_directory(&self) -> Result<(), StoreError> {
        compare::tell(&self.store, unix_millis()).await
    }

    /// What is known of the edge's directory.
    pub fn directory(&self) -> Result<DirectoryView, StoreError> {
        compare::view(&self.store.read()?)
    }

    /// Hashes of the addresses that the edge has to know.
    pub fn addresses(&self) -> Result<Vec<[u8; 32]>, StoreError> {
        let rows = self.store.read()?;
        let Some(edge) = projection::edge(&rows)? else { return Ok(Vec::new()) };
        let hash = |(address, _): (String, _)| directory_hash(&edge.directory_key, &address);
        let mut hashes: Vec<_> = directory::known(&rows)?.into_iter().map(hash).collect();
        hashes.sort_unstable();
        Ok(hashes)
    }
}

/// The people who have a message from outside, and its content.
pub type ReceivedBy = (Vec<Id>, Vec<u8>);

/// What a revision came to for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionResult {
    /// Which revision, from 1.
    pub revision: u32,
    /// What it does.
    pub mode: ReviseMode,
    /// What it came to.
    pub result: ReviseResult,
}

/// What a revision of some message came to for one of its recipients.
#[derive(Clone, Debug)]
pub struct RevisedFor {
    /// The message.
    pub message: MessageId,
    /// The recipient's address.
    pub address: String,
    /// Which revision, as people count: from 1.
    pub revision: u32,
    /// What it came to.
    pub result: ReviseResult,
    /// Since when, milliseconds since 1970.
    pub at: u64,
}

/// What each revision of each message came to for each recipient.
pub fn revised(store: &Store) -> Result<Vec<RevisedFor>, StoreError> {
    let (rows, mut all) = (store.read()?, Vec::new());
    for (key, row) in rows.prefix::<RevisedRow>(REVISED, &[], usize::MAX)? {
        let damaged = || StoreError::Damaged("what a revision came to".into());
        let (message, recipient) = key.split_at_checked(16).ok_or_else(damaged)?;
        let (recipient, _) = recipient.split_at_checked(4).ok_or_else(damaged)?;
        let message = MessageId(message.try_into().map_err(|_| damaged())?);
        let to = mail::recipient_key(message, revise::index_of(recipient));
        let to = rows.get::<Recipient>(RECIPIENTS, &to)?.ok_or_else(damaged)?;
        let (address, revision) = (to.address, revision_ordinal(revise::index_of(&key)));
        all.push(RevisedFor { message, address, revision, result: row.result, at: row.at });
    }
    Ok(all)
}

/// A message in a mailbox.
#[derive(Debug)]
pub struct Filed {
    /// Whose.
    pub person: Id,
    /// Their name; `None` of one who was removed.
    pub name: Option<String>,
    /// Where in it.
    pub folder: Folder,
    /// The message as it is stored.
    pub content: Vec<u8>,
}

/// Every message in every mailbox, those of removed people too.
pub fn mailboxes(store: &Store) -> Result<Vec<Filed>, StoreError> {
    let rows = store.read()?;
    let mut all = Vec::new();
    for (key, entry) in rows.prefix::<Entry>(MAILBOXES, &[], usize::MAX)? {
        let damaged = || StoreError::Damaged("a mailbox".into());
        let person: Id = key.get(..16).and_then(|id| id.try_into().ok()).ok_or_else(damaged)?;
        let folder = folder_of(&key);
        let message = mail::shown(&rows, message_of(&key), entry.revision)?.ok_or_else(damaged)?;
        let content = mail::content(store.body(message.body())?, &message, usize::MAX)?;
        let name = directory::by_id(&rows, &person)?.map(|person| person.name);
        all.push(Filed { person, name, folder: folder.ok_or_else(damaged)?, content });
    }
    Ok(all)
}

/// What a restore, and a decision about lanes by an operator, do besides.
pub fn restored(txn: &mut Txn<'_>, sealing: [u8; 32]) -> Result<(), StoreError> {
    projection::renew(txn, PrivateKey::from_bytes(sealing).public().0)
}
