//! What everybody in the storm shares: where the services are, the books, and when it is over.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tests::ledger::{Fate, Ledger, Token};
use tests::messages::Letter;
use tests::site::Site;

use crate::clerk::Guests;
use crate::disturbance::Disturbances;
use crate::revisions::Revisions;

/// Who has a mailbox. The first reads the postmaster's mail.
pub const PEOPLE: [&str; 4] = ["alice", BOB, "carol", "dave"];
/// Who is on the road.
pub const BOB: &str = "bob";
/// Who the strangers write as; answers go there.
pub const STRANGER: &str = "writer@remote.example";

/// The address of someone inside.
pub fn inside(name: &str) -> String {
    format!("{name}@{}", tests::site::INSIDE)
}

/// What everybody shares.
pub struct Field {
    /// The books.
    pub books: Ledger,
    /// The run's seed.
    pub seed: u64,
    /// Edge's listener for other MTAs.
    pub smtp: SocketAddr,
    /// Edge's listener for travellers' mail.
    pub submission: SocketAddr,
    /// Edge's listener for travellers who collect.
    pub pop3: SocketAddr,
    /// Big's control socket.
    pub big: PathBuf,
    /// The longest pause between two messages of one stranger, in milliseconds.
    pub stranger_pause_millis: u64,
    /// Who comes and goes.
    pub guests: Guests,
    /// What was revised.
    pub revisions: Revisions,
    /// When calls of a node fail.
    pub disturbances: Disturbances,
    over: AtomicBool,
    faults: Mutex<Vec<String>>,
}

impl Field {
    /// The shared things of a storm over `site`, with the longest pause between two messages of one
    /// stranger.
    pub fn new(site: &Site, seed: u64, stranger_pause_millis: u64) -> Self {
        let edge = site.nodes.edge_ready();
        let first = |addresses: &[SocketAddr]| *addresses.first().expect("the topology has one of each");
        Self {
            books: Ledger::new(seed),
            seed,
            smtp: first(&edge.smtp),
            submission: first(&edge.submission),
            pop3: first(&edge.pop3),
            big: site.big(),
            stranger_pause_millis,
            guests: Guests::default(),
            revisions: Revisions::default(),
            disturbances: Disturbances::default(),
            over: AtomicBool::new(false),
            faults: Mutex::default(),
        }
    }

    /// Ends the load: everybody finishes what is begun.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether the load has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A letter's frame with a new mark.
    pub fn letter<'a>(&self, from: &'a str, to: &'a str) -> Letter<'a> {
        Letter { from, to, subject: "storm", token: self.books.next_token() }
    }

    /// Enters a message that is about to be sent.
    pub fn enter(&self, message: &[u8], recipients: &[&str]) {
        self.books.enter(message, recipients).expect("books in memory cannot fail");
    }

    /// Settles an attempt.
    pub fn settle(&self, message: &[u8], fate: Fate) {
        self.books.settle(message, fate).expect("books in memory cannot fail");
    }

    /// Records that something good was refused for good: a node that forgot what it knew.
    pub fn refused(&self, what: &str) {
        self.fault(format!("refused: {what}"));
    }

    /// Records something else that should not be.
    pub fn fault(&self, what: String) {
        self.faults().push(what);
    }

    /// Everything that should not be.
    pub fn faults(&self) -> MutexGuard<'_, Vec<String>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much has been accepted so far, in words.
    pub fn progress(&self) -> String {
        let audit = self.books.audit();
        format!("{} accepted, {} undetermined so far", audit.accepted, audit.undetermined.len())
    }

    /// A new mark, for a text.
    pub fn token(&self) -> Token {
        self.books.next_token()
    }
}
