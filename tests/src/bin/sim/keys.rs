//! The keys with which the nodes open their connections: files beside the store, each change of them whole or not at all.

use link_proto::spki;
use shared::lane::PartnerRow;

/// One node's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    present: Vec<u8>,
    next: Option<Vec<u8>>,
    former: Option<Vec<u8>>,
}

/// With what a node opens a connection.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The key that the partner sees.
    pub key: Vec<u8>,
    /// The one that the node wants it to see.
    wanted: Vec<u8>,
}

impl Shown {
    /// The key that is announced.
    pub fn announced(&self) -> Option<Vec<u8>> {
        (self.wanted != self.key).then(|| self.wanted.clone())
    }
}

/// The `number`th key that is ever made.
fn key(number: u64) -> Vec<u8> {
    let mut raw = [0; 32];
    raw[..8].copy_from_slice(&number.to_be_bytes());
    spki::from_raw(&raw)
}

fn is_pinned(key: &[u8], pinned: &PartnerRow) -> bool {
    pinned.key == key || pinned.next_key.as_deref() == Some(key)
}

impl Keys {
    /// A node's first.
    pub fn first(number: u64) -> Self {
        Self { present: key(number), next: None, former: None }
    }

    /// The key that the node opens connections with.
    pub fn present(&self) -> &[u8] {
        &self.present
    }

    /// Makes a new key, unless the last one waits still. Whether it did.
    pub fn rotate(&mut self, number: u64) -> bool {
        let begins = self.next.is_none();
        self.next.get_or_insert_with(|| key(number));
        begins
    }

    /// What is shown to a partner that has pinned this; `None` if it would be nothing that counts.
    pub fn shown_to(&self, pinned: &PartnerRow) -> Option<Shown> {
        let mut all = [Some(&self.present), self.next.as_ref(), self.former.as_ref()].into_iter().flatten();
        let key = all.find(|key| is_pinned(key, pinned))?.clone();
        Some(Shown { key, wanted: self.next.as_ref().unwrap_or(&self.present).clone() })
    }

    /// The lanes were compared on a connection that was opened so. Whether it has to be opened anew.
    pub fn opened(&mut self, shown: &Shown) -> bool {
        if self.next.as_ref() == Some(&shown.wanted) {
            self.former = Some(std::mem::replace(&mut self.present, shown.wanted.clone()));
            self.next = None;
        }
        self.present != shown.key || self.next.is_some()
    }

    /// Whether no rotation is under way, and the partner has pinned the present key and nothing else.
    pub fn are_settled(&self, pinned: &PartnerRow) -> bool {
        self.next.is_none() && pinned.key == self.present && pinned.next_key.is_none()
    }
}
