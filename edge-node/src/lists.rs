//! Lists of addresses in DNS, which are asked about strangers (RFC 5782).
//!
//! All lists are asked at once, in bounded time. What gives no answer lists nobody, and neither does what only
//! complains: an operator's error code, or an answer that no list gives. Both are logged, seldom. The resolver caches.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::rr::{RData, RecordType};
use shared::address::Domain;
use shared::topology::{self, DnsList, Word};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::delivery::Resolver;
use crate::request::DnsListView;

/// How long all lists together may take; the client waits for the answer to RCPT meanwhile.
const TIME_MAX: Duration = Duration::from_secs(5);
/// How long the reason for a listing is asked for.
const REASON_TIME_MAX: Duration = Duration::from_secs(2);
/// Characters of a list's reason that are told.
const REASON_MAX: usize = 200;
/// Between two words in the log about one list that does not work.
const TOLD_EVERY: Duration = Duration::from_secs(600);

/// A list has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The list.
    pub zone: Domain,
    /// What it answered.
    pub code: Ipv4Addr,
}

/// What the lists say of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Unlisted,
    /// One speaks for it, whatever others say.
    Allowed(Listing),
    /// One speaks against it, and why, which may be empty.
    Blocked(Listing, String),
}

impl Standing {
    /// The verdict that goes with a message: as RFC 8904 has it, and the like for lists that block.
    pub fn verdict(&self) -> Option<String> {
        let told =
            |word: &str, Listing { zone, code }: &Listing| format!("{word} dns.zone={zone} policy.ip={code}");
        match self {
            Self::Unlisted => None,
            Self::Allowed(listing) => Some(told("dnswl=pass", listing)),
            Self::Blocked(listing, _) => Some(told("x-dnsbl=fail", listing)),
        }
    }
}

/// A list, and what has come of asking it.
#[derive(Debug)]
struct Asked {
    list: DnsList,
    allows: bool,
    listed: AtomicU64,
    unlisted: AtomicU64,
    unanswered: AtomicU64,
    told_at: Mutex<Option<Instant>>,
}

/// The lists of a site.
#[derive(Debug)]
pub struct Lists {
    resolver: Resolver,
    asked: Vec<Arc<Asked>>,
}

impl Lists {
    /// Asks those by `resolver`; `None` if there are none.
    pub fn new(resolver: &Resolver, lists: &topology::Lists) -> Option<Self> {
        let asked = |allows: bool| {
            move |list: &DnsList| {
                let (listed, unlisted, unanswered) = Default::default();
                let (list, told_at) = (list.clone(), Mutex::default());
                Arc::new(Asked { list, allows, listed, unlisted, unanswered, told_at })
            }
        };
        let allow = lists.allow.iter().map(asked(true));
        let asked: Vec<_> = allow.chain(lists.block.iter().map(asked(false))).collect();
        (!asked.is_empty()).then(|| Self { resolver: resolver.clone(), asked })
    }

    /// What they say of `client`. Of several that list it, the first in the topology counts.
    pub async fn ask(&self, client: IpAddr) -> Standing {
        let deadline = Instant::now() + TIME_MAX;
        let mut asking = JoinSet::new();
        for (nth, asked) in self.asked.iter().enumerate() {
            let (resolver, asked) = (self.resolver.clone(), Arc::clone(asked));
            asking.spawn(async move { (nth, asked.ask(&resolver, client, deadline).await) });
        }
        let mut first: Option<(usize, Ipv4Addr)> = None;
        while let Some(answer) = asking.join_next().await {
            // A question that was not asked to its end says nothing.
            let Ok((nth, Some(code))) = answer else { continue };
            if first.is_none_or(|(before, _)| nth < before) {
                first = Some((nth, code));
            }
        }
        let Some((asked, code)) = first.and_then(|(nth, code)| Some((self.asked.get(nth)?, code))) else {
            return Standing::Unlisted;
        };
        let listing = Listing { zone: asked.list.zone.clone(), code };
        if asked.allows {
            return Standing::Allowed(listing);
        }
        let name = question(client, &listing.zone);
        let reason = match timeout(REASON_TIME_MAX, self.resolver.data(&name, RecordType::TXT)).await {
            Ok(Ok(records)) => records.iter().find_map(text).map(|text| cleaned(&text)),
            Ok(Err(_)) | Err(_) => None,
        };
        Standing::Blocked(listing, reason.unwrap_or_default())
    }

    /// Whether each works, by the entries that all have to have and not to have (RFC 5782 §5): its zone, and what is
    /// wrong with it; and whether that is its refusal to answer.
    pub async fn proven(&self) -> Vec<(Domain, Result<(), (bool, String)>)> {
        let mut proven = Vec::new();
        for asked in &self.asked {
            proven.push((asked.list.zone.clone(), asked.prove(&self.resolver).await));
        }
        proven
    }

    /// What has come of asking each, since the edge was started.
    pub fn view(&self) -> Vec<DnsListView> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let view = |asked: &Arc<Asked>| DnsListView {
            list: asked.list.to_string(),
            allows: asked.allows,
            listed: count(&asked.listed),
            unlisted: count(&asked.unlisted),
            unanswered: count(&asked.unanswered),
        };
        self.asked.iter().map(view).collect()
    }
}

impl Asked {
    /// The code under which the list has `client`, if it has it for something that counts.
    async fn ask(&self, resolver: &Resolver, client: IpAddr, deadline: Instant) -> Option<Ipv4Addr> {
        let name = question(client, &self.list.zone);
        let records = match timeout_at(deadline, resolver.data(&name, RecordType::A)).await {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => return self.gives_nothing(&error.to_string()),
            Err(_) => return self.gives_nothing("no answer in time"),
        };
        let mut complaint = None;
        for code in codes(&records) {
            match self.list.says(code) {
                Word::Listed => {
                    self.listed.fetch_add(1, Ordering::Relaxed);
                    return Some(code);
                }
                Word::Other => {}
                Word::Error => complaint = Some(code),
            }
        }
        match complaint {
            Some(code) => self.gives_nothing(&format!(
                "it answers {code}, which is no listing: does it want to be asked by a resolver of your own, or is it gone?"
            )),
            None => {
                self.unlisted.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    async fn prove(&self, resolver: &Resolver) -> Result<(), (bool, String)> {
        let codes = async |last: u8| {
            let name = question(Ipv4Addr::new(127, 0, 0, last).into(), &self.list.zone);
            match timeout(TIME_MAX, resolver.data(&name, RecordType::A)).await {
                Ok(Ok(records)) => Ok(codes(&records)),
                Ok(Err(error)) => Err((true, format!("no answer: {error}"))),
                Err(_) => Err((true, "no answer in time".to_owned())),
            }
        };
        let (test, nobody) = (codes(2).await?, codes(1).await?);
        if let Some(complaint) = test.iter().chain(&nobody).find(|code| self.list.says(**code) == Word::Error)
        {
            return Err((true, format!("it answers {complaint}, which is no listing")));
        }
        match (test.is_empty(), nobody.is_empty()) {
            (_, false) => Err((false, "it lists 127.0.0.1, and so perhaps everybody".into())),
            (true, true) => Err((true, "it does not list 127.0.0.2, as lists of IPv4 addresses do".into())),
            (false, true) => Ok(()),
        }
    }

    /// Says so, seldom.
    fn gives_nothing(&self, why: &str) -> Option<Ipv4Addr> {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY) {
            *told_at = Some(now);
            tracing::warn!(list = %self.list.zone, why, "a list in DNS says nothing; nobody is listed by it meanwhile");
        }
        None
    }
}

/// The codes of an answer, the least first.
fn codes(records: &[RData]) -> Vec<Ipv4Addr> {
    let codes = records.iter().filter_map(|record| match record {
        RData::A(code) => Some(code.0),
        _ => None,
    });
    let mut codes: Vec<_> = codes.collect();
    codes.sort_unstable();
    codes
}

/// The name under which a list has an address (RFC 5782 §2.1, §2.4).
fn question(client: IpAddr, zone: &Domain) -> String {
    format!("{}{zone}", reversed(client))
}

/// An address as it stands before a zone: its octets or hexadecimal digits from the last to the first, each with a dot.
pub fn reversed(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().iter().rev().map(|octet| format!("{octet}.")).collect(),
        IpAddr::V6(v6) => {
            let digits = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            digits.map(|digit| format!("{digit:x}.")).collect()
        }
    }
}

/// A text record's text.
pub fn text(record: &RData) -> Option<String> {
    match record {
        RData::TXT(text) => Some(text.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect()),
        _ => None,
    }
}

/// What somebody else wrote, as it may stand in a reply: short, and printable ASCII.
fn cleaned(text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(REASON_MAX).map(printable).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_asked_for_backwards() {
        let zone: Domain = "list.example".parse().expect("a domain");
        for (client, asked) in [
            ("192.0.2.99", "99.2.0.192.list.example"),
            ("::ffff:192.0.2.99", "99.2.0.192.list.example"),
            // The example of RFC 5782 §2.4.
            (
                "2001:db8:1:2:3:4:567:89ab",
                "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.list.example",
            ),
        ] {
            assert_eq!(question(client.parse().expect("an address"), &zone), asked);
        }
    }

    #[test]
    fn what_a_list_says_is_shortened_and_cannot_break_a_reply() {
        assert_eq!(cleaned("see http://list.example/?ip=1 "), "see http://list.example/?ip=1");
        assert_eq!(cleaned("a\r\n250 ok\u{1b}[2J\u{fc}\0"), "a??250 ok?[2J??");
        assert_eq!(cleaned(&"x".repeat(10_000)).len(), REASON_MAX);
    }
}
