//! The traveller who collects, and the books of the road.
//!
//! Everything that is filed for the traveller must also be in the secondary mailbox, exactly once:
//! one unique id per message, retrievable until a QUIT was answered +OK, and gone for good after it
//! (RFC 1939 §6). What was deleted in a session whose QUIT got no answer may or may not be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tests::client::pop3::{Pop3Client, Pop3Error};
use tests::ledger::{Audit, Fate, Finding, Ledger, Place};

use crate::field::{BOB, Field, inside};
use crate::revisions;

/// The pause between two sessions.
const SESSION_PAUSE: Duration = Duration::from_millis(100);
/// Messages taken in one session.
const PER_SESSION: usize = 40;
/// What the books call the secondary mailbox.
const ON_THE_ROAD: &str = "bob on the road";

/// What came off the road.
pub struct Road {
    field: Arc<Field>,
    password: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Every message retrieved, by its unique id, and when it was asked for last.
    messages: BTreeMap<String, (Vec<u8>, SystemTime)>,
    /// Ids whose deletion was confirmed.
    gone: BTreeSet<String>,
    /// Ids that were listed after that.
    risen: BTreeSet<String>,
    /// Ids under which something else was retrieved than before.
    changed: BTreeSet<String>,
}

impl Road {
    /// Nothing collected yet.
    pub fn new(field: Arc<Field>, password: String) -> Self {
        Self { field, password, seen: Mutex::default() }
    }

    /// Collects now and then until the storm is over.
    pub async fn collect_until_over(self: Arc<Self>) {
        while !self.field.is_over() {
            if let Err(error) = self.session().await {
                self.note(&error);
            }
            tokio::time::sleep(SESSION_PAUSE).await;
        }
    }

    /// Collects all that is left; the nodes run undisturbed now.
    pub async fn collect_rest(&self, within: Duration) -> Result<(), Pop3Error> {
        let since = Instant::now();
        loop {
            match self.session().await {
                Ok(0) => return Ok(()),
                // A session that died with its client may hold the mailbox for a moment.
                Err(error) if since.elapsed() > within => return Err(error),
                Ok(_) => {}
                Err(_) => tokio::time::sleep(SESSION_PAUSE).await,
            }
        }
    }

    /// Retrieves and deletes some; returns how many there were.
    async fn session(&self) -> Result<usize, Pop3Error> {
        let mut client = Pop3Client::connect(self.field.pop3).await?;
        client.start_tls().await?;
        client.login(BOB, &self.password).await?;
        let listed = client.uidl().await?;
        let mut deleted = Vec::new();
        for (number, id) in listed.iter().take(PER_SESSION) {
            let asked_at = SystemTime::now();
            let message = client.retr(*number).await?;
            self.seen().saw(id, message, asked_at);
            client.dele(*number).await?;
            deleted.push(id.clone());
        }
        client.quit().await?;
        self.seen().gone.extend(deleted);
        Ok(listed.len())
    }

    fn note(&self, error: &Pop3Error) {
        if let Pop3Error::Refused { asked, text } = error
            && text.contains("[AUTH]")
        {
            self.field.refused(&format!("POP3's {asked}: {text}"));
        }
    }

    /// Compares what came off the road with `filed`, the traveller's mailbox at home.
    pub fn audit(&self, filed: &[Vec<u8>]) -> Audit {
        self.seen().audit(self.field.seed, filed)
    }

    /// The texts that are revised, as they were collected.
    pub fn revised(&self) -> Vec<revisions::Copy> {
        let seen = self.seen();
        let revised = seen.messages.values().filter(|(message, _)| revisions::is_one(message));
        revised.map(|(content, at)| revisions::Copy::of(inside(BOB), content, *at)).collect()
    }

    /// How many messages were collected.
    pub fn collected(&self) -> usize {
        self.seen().messages.len()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finding(id: &str, what: &str) -> Finding {
    Finding { token: None, recipient: format!("{ON_THE_ROAD}, unique id {id}"), what: what.to_owned() }
}

impl Seen {
    fn saw(&mut self, id: &str, message: Vec<u8>, asked_at: SystemTime) {
        if self.gone.contains(id) {
            self.risen.insert(id.to_owned());
        }
        let before = self.messages.insert(id.to_owned(), (message.clone(), asked_at));
        if before.is_some_and(|(before, _)| before != message) {
            self.changed.insert(id.to_owned());
        }
    }

    /// A deletion that did not last is a doubling, an id that changed its meaning an alteration.
    fn audit(&self, seed: u64, filed: &[Vec<u8>]) -> Audit {
        let books = Ledger::new(seed);
        for message in filed {
            // Books in memory cannot fail.
            let _ = books.enter(message, &[ON_THE_ROAD]);
            let _ = books.settle(message, Fate::Accepted);
        }
        // What was revised comes under another unique id each time; its own books are elsewhere.
        for (message, _) in self.messages.values().filter(|(message, _)| !revisions::is_one(message)) {
            books.found(Place::Inside, ON_THE_ROAD, message, SystemTime::now());
        }
        let mut audit = books.audit();
        audit.doubled.extend(self.risen.iter().map(|id| finding(id, "deleted with +OK, and came back")));
        audit.altered.extend(self.changed.iter().map(|id| finding(id, "another message before")));
        audit
    }
}

#[cfg(test)]
mod shown_to_fail {
    use tests::messages::{Letter, SHORT};

    use super::*;

    /// Counts: lost, doubled, ghost, altered.
    fn faults(seen: &Seen, filed: &[Vec<u8>]) -> [usize; 4] {
        let audit = seen.audit(9, filed);
        [audit.lost, audit.doubled, audit.ghost, audit.altered].map(|found| found.len())
    }

    #[test]
    fn each_kind_of_fault_on_the_road_is_found() {
        let books = Ledger::new(9);
        let letter = || {
            Letter { from: "alice@example.com", to: BOB, subject: "x", token: books.next_token() }.text(SHORT)
        };
        let (first, second, now) = (letter(), letter(), SystemTime::now());
        let filed = [first.clone(), second.clone()];
        let collected = || {
            let mut seen = Seen::default();
            seen.saw("1", first.clone(), now);
            seen.saw("2", second.clone(), now);
            seen
        };
        assert_eq!(faults(&collected(), &filed), [0, 0, 0, 0]);

        let mut again = collected();
        again.saw("2", second.clone(), now);
        assert_eq!(faults(&again, &filed), [0, 0, 0, 0], "its deletion was not confirmed");
        again.gone.insert("2".to_owned());
        again.saw("2", second.clone(), now);
        assert_eq!(faults(&again, &filed), [0, 1, 0, 0], "it was");

        let mut twice = collected();
        twice.saw("3", second.clone(), now);
        assert_eq!(faults(&twice, &filed), [0, 1, 0, 0], "under two ids");

        let mut other = collected();
        other.saw("1", second.clone(), now);
        assert_eq!(faults(&other, &filed), [1, 1, 0, 1], "an id that means another one");

        let mut cut = collected();
        let text = &second[..second.len() - 2];
        cut.messages.insert("2".to_owned(), (text.to_vec(), now));
        assert_eq!(faults(&cut, &filed), [0, 0, 0, 1], "without its last line end");

        assert_eq!(faults(&collected(), &filed[..1]), [0, 0, 1, 0], "of nobody's at home");
        assert_eq!(faults(&Seen::default(), &filed), [2, 0, 0, 0]);
    }
}
