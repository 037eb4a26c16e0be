//! DKIM (RFC 6376, RFC 8463): what is composed inside, or submitted from the road, is signed here before it leaves, for
//! the keys are never on the edge. `key` is what a key is and the record that publishes it, `canonical` the form of a
//! field that is signed, `sign` the signature.
//!
//! A signature is made when a message is taken in, outside the commit, for RSA takes its time; it goes to the edge in
//! the head of the message's unit, which puts it before the content. The content itself is stored as it is.

mod canonical;
mod key;
mod sign;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use shared::address::Domain;
use shared::id::unix_millis;
use shared::origin::{Channel, Origin};
use shared::state::{State, StateError};

pub use key::Algorithm;
use key::{Key, is_selector};
pub use sign::Content;

use crate::error::Refused;
use crate::request::{DkimKeyState, DkimKeyView, DkimRemoved, NewDkimKey};

/// Keys of all domains together.
const KEYS_MAX: usize = 64;
/// How long a key that is to take over waits, unless it is told: its record has to be everywhere in DNS by then.
const TAKES_OVER_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The keys that sign.
#[derive(Debug, Default)]
pub struct Signers {
    keys: RwLock<Arc<Vec<Key>>>,
    /// Held while keys are made and removed: files and list change together.
    changing: Mutex<()>,
}

impl Signers {
    /// The keys in a node's state.
    pub fn load(state: &State) -> Result<Self, StateError> {
        let mut keys = Vec::new();
        for name in state.key_names()?.into_iter().filter(|name| key::is_file(name)) {
            let read = Key::decode(&state.key(&name)?);
            keys.push(read.filter(|key| key.file() == name).ok_or_else(|| state.broken(&name))?);
        }
        keys.sort_by_key(|key| (key.domain.clone(), key.selector.clone()));
        Ok(Self { keys: RwLock::new(Arc::new(keys)), changing: Mutex::default() })
    }

    fn keys(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, keys: Vec<Key>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Makes a key and writes it to the state. The first one of its algorithm for a domain signs at once: without its
    /// record in DNS, mail is as good as unsigned, as it was before. Another one takes over from it after a day, or at
    /// the moment that was asked for.
    pub fn make(&self, state: &State, domains: &[Domain], new: &NewDkimKey) -> Result<DkimKeyView, Refused> {
        let domain = of_site(domains, new.domain.as_deref())?;
        if !is_selector(&new.selector) {
            return Err(Refused::new(format!(
                "`{}` is not a selector: one has up to 63 letters, digits and hyphens, like 2026a",
                new.selector
            )));
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, now, selector) = (self.keys(), unix_millis(), new.selector.to_ascii_lowercase());
        if keys.len() >= KEYS_MAX {
            return Err(Refused::new(format!("there are {KEYS_MAX} keys; remove one that signs no more")));
        }
        if keys.iter().any(|key| key.domain == domain && key.selector == selector) {
            return Err(Refused::new(format!(
                "{domain} has a key {selector} already; a selector names one key for ever, so choose another"
            )));
        }
        let follows = keys.iter().any(|key| key.domain == domain && key.algorithm == new.algorithm);
        let pause = if follows { u64::try_from(TAKES_OVER_AFTER.as_millis()).unwrap_or(u64::MAX) } else { 0 };
        let signs_from = new.signs_from.unwrap_or(now.saturating_add(pause));
        let (key, file) = Key::generate(domain, selector, new.algorithm, (now, signs_from))?;
        state.write_key(&key.file(), &file).map_err(|error| Refused::new(error.to_string()))?;
        let mut keys: Vec<Key> = keys.iter().cloned().collect();
        keys.push(key.clone());
        keys.sort_by_key(|key| (key.domain.clone(), key.selector.clone()));
        let view = view(&keys, &key, now);
        self.put(keys);
        Ok(view)
    }

    /// Removes a key and its file, also one of a domain that is the site's no more. Where it signed, the one before it
    /// signs again, if there is one still.
    pub fn remove(
        &self,
        state: &State,
        domains: &[Domain],
        domain: Option<&str>,
        selector: &str,
    ) -> Result<DkimRemoved, Refused> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys();
        let former = domain.and_then(|text| text.parse::<Domain>().ok());
        let former = former.filter(|domain| keys.iter().any(|key| key.domain == *domain));
        let domain = former.map_or_else(|| of_site(domains, domain), Ok)?;
        let is_it = |key: &&Key| key.domain == domain && key.selector.eq_ignore_ascii_case(selector);
        let missing =
            || Refused::new(format!("{domain} has no key {selector}; `big-node dkim list` shows them"));
        let removed = keys.iter().find(is_it).ok_or_else(missing)?;
        state.remove_key(&removed.file()).map_err(|error| Refused::new(error.to_string()))?;
        let (left, now): (Vec<Key>, _) =
            (keys.iter().filter(|key| !is_it(key)).cloned().collect(), unix_millis());
        let signing = left.iter().filter(|key| key.domain == domain && is_signing(&left, key, now));
        let resumed = signing.clone().find(|key| !is_signing(&keys, key, now));
        let done = DkimRemoved {
            removed: view(&keys, removed, now),
            resumed: resumed.map(|key| key.selector.clone()),
            signing: signing.map(|key| view(&left, key, now)).collect(),
        };
        self.put(left);
        Ok(done)
    }

    /// All of them, and which sign at `now`.
    pub fn list(&self, now: u64) -> Vec<DkimKeyView> {
        let keys = self.keys();
        keys.iter().map(|key| view(&keys, key, now)).collect()
    }

    /// Whether there is any key: without one, nothing need be hashed.
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// The signatures of a message whose whole content is at hand, as header fields. Empty, if it is not ours to sign:
    /// mail of others keeps the signatures that it came with.
    pub fn sign(&self, origin: &Origin, passes: u32, content: &[u8]) -> String {
        if self.is_empty() || !speaks_for_us(origin, passes) {
            return String::new();
        }
        let trace = usize::try_from(origin.trace_bytes).unwrap_or(usize::MAX);
        self.sign_hashed(&Content::of(content.get(trace..).unwrap_or_default()), unix_millis())
    }

    /// The same, of a message whose body went by and was hashed.
    pub fn sign_hashed(&self, content: &Content<'_>, now: u64) -> String {
        let keys = self.keys();
        let Some(domain) = content.author_domains().find(|of| keys.iter().any(|key| key.domain == *of))
        else {
            return String::new();
        };
        let signing = keys.iter().filter(|key| key.domain == domain && is_signing(&keys, key, now));
        signing.filter_map(|key| sign::field(key, content, now / 1000)).collect()
    }
}

/// Whether big vouches for what a message says of its author. Whatever came in from the Internet may say anything, also
/// when it comes back from a system inside.
pub fn speaks_for_us(origin: &Origin, passes: u32) -> bool {
    match origin.channel {
        Channel::Desk { .. } | Channel::Submission { .. } | Channel::Report => true,
        Channel::Gateway { .. } => passes == 0,
        Channel::Reception { .. } => false,
    }
}

fn of_site(domains: &[Domain], asked: Option<&str>) -> Result<Domain, Refused> {
    let unknown = |text: &str| {
        Refused::new(format!("{text} is no domain of this site; [site] domains in the topology lists them"))
    };
    match asked {
        None => domains.first().cloned().ok_or_else(|| unknown("nothing")),
        Some(text) => {
            let domain: Domain = text.parse().map_err(|_| unknown(text))?;
            domains.contains(&domain).then_some(domain).ok_or_else(|| unknown(text))
        }
    }
}

/// Of the keys of a domain with one algorithm, the one signs whose time came last.
fn is_signing(keys: &[Key], key: &Key, now: u64) -> bool {
    let has_begun = |other: &&Key| {
        other.domain == key.domain && other.algorithm == key.algorithm && other.signs_from <= now
    };
    // One that is to sign from before it was made takes over when it is made.
    let begins = |other: &&Key| (other.signs_from.max(other.made_at), other.made_at, other.signs_from);
    let latest = keys.iter().filter(has_begun).max_by_key(begins);
    latest.is_some_and(|latest| latest.selector == key.selector)
}

fn view(keys: &[Key], key: &Key, now: u64) -> DkimKeyView {
    let state = match key.signs_from <= now {
        false => DkimKeyState::Waiting,
        true if is_signing(keys, key, now) => DkimKeyState::Signing,
        true => DkimKeyState::Retired,
    };
    DkimKeyView {
        domain: key.domain.to_string(),
        selector: key.selector.clone(),
        algorithm: key.algorithm,
        made_at: key.made_at,
        signs_from: key.signs_from,
        state,
        record_name: key.record_name(),
        record: key.record(),
    }
}
