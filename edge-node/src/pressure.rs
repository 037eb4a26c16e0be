//! How much more mail the edge can take, and what SMTP says when it cannot.
//!
//! Against `[edge] spool_max` counts what the edge holds for big and for delivery: all that lives in the
//! segments, without what only secondary mailboxes hold and what is kept for replay alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::lane;
use shared::pressure::{Bound, Level, Monitor};
use shared::report::{PressureView, RoomView};
use shared::smtp::{Enhanced, Reply, Role};
use shared::store::{BodyKey, BodyUse, Rows, Snapshot, Store, StoreError};

use crate::record::{COPIES, CopyRow};

/// How long a stranger waits for the answer to MAIL while something runs short.
pub const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Secondary mailboxes are added up at most this often, and at most for one hundredth of the time.
const MAILDROPS_EVERY: Duration = Duration::from_secs(10);
const MAILDROPS_SHARE: u32 = 100;
/// Rows read at once.
const PAGE: usize = 1000;

/// The edge's level, and what it is made from.
#[derive(Debug)]
pub struct Pressure {
    store: Store,
    monitor: Monitor,
    /// How many octets it may hold for big and for delivery.
    spool_max: u64,
    /// Octets held for big and for delivery, as last counted.
    spool: AtomicU64,
    maildrops: Mutex<Maildrops>,
}

/// What only secondary mailboxes hold, and when that is to be added up again.
#[derive(Debug, Default)]
struct Maildrops {
    octets: u64,
    due: Option<Instant>,
}

impl Pressure {
    /// The pressure on `store`, which may hold `spool_max` octets for big and for delivery.
    pub fn new(store: &Store, spool_max: u64) -> Self {
        let bound = Bound {
            octets: spool_max,
            counted: "the spool holds",
            mend: "see that the link is up and that mail leaves, or raise [edge] spool_max",
        };
        Self {
            store: store.clone(),
            monitor: Monitor::new(store.clone(), bound),
            spool_max,
            spool: AtomicU64::new(0),
            maildrops: Mutex::default(),
        }
    }

    /// The level now. Cheap enough for every message.
    pub fn level(&self) -> Level {
        self.monitor.level(self.spool.load(Ordering::Relaxed))
    }

    /// Whether no mail is taken because the disk has no room for it.
    pub fn lacks_room(&self) -> bool {
        self.monitor.lacks_room(self.spool.load(Ordering::Relaxed))
    }

    /// The level and its reason, for people.
    pub fn view(&self) -> PressureView {
        self.monitor.view(self.spool.load(Ordering::Relaxed))
    }

    /// How much room is left.
    pub fn room(&self) -> RoomView {
        // A disk that cannot be asked has no room.
        let (free_bytes, free_inodes) = self.store.free().unwrap_or_default();
        RoomView {
            spool: self.spool.load(Ordering::Relaxed),
            spool_max: self.spool_max,
            free_bytes,
            free_inodes: (free_inodes != u64::MAX).then_some(free_inodes),
        }
    }

    /// Whether `role` may take a message now, or the reply that says no.
    pub fn admits(&self, role: Role) -> Result<(), Reply> {
        refusal(self.level(), role).map_or(Ok(()), Err)
    }

    /// Counts, logs and gives space back, for ever.
    pub async fn run(&self) {
        let held = || {
            // Reading rows takes milliseconds: the other tasks of this thread go elsewhere meanwhile.
            if let Err(error) = tokio::task::block_in_place(|| self.count()) {
                tracing::warn!(%error, "the spool could not be counted");
            }
            self.spool.load(Ordering::Relaxed)
        };
        self.monitor.watch(held).await;
    }

    /// Counts what the edge holds.
    pub(crate) fn count(&self) -> Result<(), StoreError> {
        let snapshot = self.store.read()?;
        let mut maildrops = self.maildrops.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        if maildrops.due.is_none_or(|due| begun >= due) {
            maildrops.octets = in_maildrops_only(&snapshot)?;
            maildrops.due = Some(begun + MAILDROPS_EVERY.max(begun.elapsed() * MAILDROPS_SHARE));
        }
        // What is kept for a replay has a bound of its own.
        let elsewhere = maildrops.octets.saturating_add(lane::kept_octets(&snapshot)?);
        let live = self.store.live_bytes()?;
        self.spool.store(live.saturating_sub(elsewhere), Ordering::Relaxed);
        Ok(())
    }
}

/// Octets of the bodies to which nothing refers but copies in secondary mailboxes.
fn in_maildrops_only(rows: &Snapshot) -> Result<u64, StoreError> {
    let mut copies = HashMap::<[u8; 32], u32>::new();
    let mut from = Vec::new();
    loop {
        let page = rows.range::<CopyRow>(COPIES, &from, None, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        // The least key after the last one.
        from = [last.as_slice(), &[0]].concat();
        page.iter().for_each(|(_, row)| *copies.entry(row.body).or_default() += 1);
    }
    let mut octets = 0;
    for (key, count) in copies {
        match rows.body_use(BodyKey(key))? {
            Some(BodyUse { length, references }) if references <= count => octets += length,
            _ => {}
        }
    }
    Ok(octets)
}

/// What `role` answers a message with at `level`; `None` if it takes it.
fn refusal(level: Level, role: Role) -> Option<Reply> {
    let takes = match role {
        Role::Reception => level.takes_mail(),
        Role::Submission => level.takes_submissions(),
    };
    match level {
        _ if takes => None,
        Level::Stopped => {
            let text = "cannot take mail until an operator has seen to it; try again later";
            Some(Reply::new(451, Enhanced(4, 3, 0), text))
        }
        _ => {
            let text = "no room for mail at the moment; keep the message and send it again later";
            Some(Reply::new(452, Enhanced(4, 3, 1), text))
        }
    }
}

/// What is said instead of a greeting where even talking would cost too much: on port 25 alone, for
/// travellers may still collect and delete.
pub fn instead_of_greeting(level: Level, role: Role) -> Option<&'static str> {
    match (role, level) {
        (Role::Reception, Level::Full) => {
            Some("421 4.3.1 no room for mail at the moment; try again later\r\n")
        }
        (Role::Reception, Level::Stopped) => {
            Some("421 4.3.0 cannot take mail until an operator has seen to it; try again later\r\n")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::id::MessageId;
    use shared::lane::{LanePosition, QueuedBody, QueuedUnit};
    use shared::store::Txn;
    use shared::store::sim::{Faults, SimDisk};

    use super::*;
    use crate::record::{INBOUND_KIND, copy_key, inbound_body};

    const LANE: u8 = 2;

    #[test]
    fn each_level_refuses_whom_it_should() {
        let code = |level, role| refusal(level, role).map_or(250, |reply| reply.code());
        let answers = |level| {
            let greeting = instead_of_greeting(level, Role::Reception).map_or("220", |text| &text[..3]);
            (code(level, Role::Reception), code(level, Role::Submission), greeting)
        };
        assert_eq!(answers(Level::Open), (250, 250, "220"));
        assert_eq!(answers(Level::Slow), (250, 250, "220"));
        assert_eq!(answers(Level::Closed), (452, 250, "220"));
        assert_eq!(answers(Level::Full), (452, 452, "421"));
        assert_eq!(answers(Level::Stopped), (451, 451, "421"));
        assert_eq!(instead_of_greeting(Level::Stopped, Role::Submission), None);
    }

    #[test]
    fn the_spool_is_what_waits_and_not_what_lies_in_maildrops_or_is_kept_for_replay() {
        let disk = SimDisk::new(Faults::default());
        let store = Store::open(Arc::new(disk.clone())).expect("opens");
        let message = MessageId::generate();
        let body = inbound_body(message);
        let mut writer = store.body_writer(body, INBOUND_KIND);
        writer.write(&[7; 2 << 20]).expect("writes");
        let stored = writer.finish(Vec::new()).expect("writes");
        // As intake does: one reference for the unit, one for each copy.
        let copies = move |txn: &mut Txn<'_>| {
            txn.keep_body(&stored)?;
            for window in [[1; 16], [2; 16]] {
                txn.reference_body(body)?;
                let row = CopyRow {
                    body: body.0,
                    wrapped_key: Vec::new(),
                    size: 0,
                    retrieved: false,
                    seen: false,
                    again: false,
                    after: Some(message.0),
                    hidden: false,
                };
                txn.put(COPIES, &copy_key(&window, message, 0), &row)?;
            }
            let inline = QueuedBody::Inline { key: body.0 };
            let unit = QueuedUnit { id: message.0, lane: LANE, after: None, head: vec![1], body: inline };
            lane::queue(txn, &unit).map(drop)
        };
        store.commit_blocking(copies).expect("commits");
        let pressure = || {
            let pressure = Pressure::new(&store, 2 << 20);
            pressure.count().expect("counts");
            pressure
        };
        assert_eq!(pressure().level(), Level::Closed);
        let why = pressure().view().why.expect("a reason");
        assert!(why.starts_with("the spool holds 2.0 MiB, 2.0 MiB are allowed; see that the link"), "{why}");
        disk.set_free(1 << 30, 7_000);
        let RoomView { spool, spool_max, free_inodes, .. } = pressure().room();
        assert!((2 << 20..3 << 20).contains(&spool) && spool_max == 2 << 20, "{spool} of {spool_max}");
        assert_eq!(free_inodes, Some(7_000));
        // Big has confirmed it: it is kept for a replay, and then only the copies hold it.
        let position = LanePosition { number: 1, ..LanePosition::default() };
        let confirmed = move |txn: &mut Txn<'_>| lane::confirmed(txn, LANE, position, &[], &[], 1);
        store.commit_blocking(confirmed).expect("commits");
        assert_eq!(pressure().level(), Level::Open);
        assert!(pressure().room().spool < 4096, "{:?}", pressure().room());
        let trimmed =
            store.commit_blocking(|txn| lane::trim(txn, LANE, u64::MAX, u64::MAX)).expect("commits");
        assert_eq!((*trimmed, pressure().level()), (1, Level::Open));
    }
}
