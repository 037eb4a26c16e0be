//! Lists of addresses in DNS, which are asked about strangers (RFC 5782).
//!
//! All lists are asked at once, in bounded time. What gives no answer lists nobody, and neither does what only
//! complains: an operator's error code, or an answer that no list gives. Both are logged, seldom. The resolver caches.
//! A list that has 127.0.0.1 has everybody (RFC 5782 §5): that is asked before it is first believed and every hour, and
//! meanwhile it is left aside.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::rr::{RData, RecordType};
use shared::address::Domain;
use shared::topology::{self, DnsList, Word};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::delivery::Resolver;
use crate::request::DnsListView;

/// How long all lists together may take; the client waits for the answer to RCPT meanwhile.
const TIME_MAX: Duration = Duration::from_secs(5);
/// How long the reason for a listing is asked for.
const REASON_TIME_MAX: Duration = Duration::from_secs(2);
/// Characters of a list's reason that are told.
const REASON_MAX: usize = 200;
/// Questions to all lists at once: each takes a descriptor, and who finds no place in time is not answered.
const QUESTIONS_MAX: usize = 256;
/// So many questions in a row without an answer, and the list is not asked for a while.
const FAILURES_MAX: u32 = 5;
/// How long that is.
const REST: Duration = Duration::from_secs(60);
/// Between two proofs that a list does not have everybody.
const PROVEN_EVERY: Duration = Duration::from_secs(3600);
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
    /// One speaks against it, and one that may speak for it gives no answer now.
    Unsure(Listing),
}

/// What one list says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It has it, under that code.
    Listed(Ipv4Addr),
    /// It does not have it, or not for anything that counts.
    Unlisted,
    /// Nothing, now.
    NoAnswer,
}

/// Which list counts, of what each has said: those that allow stand first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    Nobody,
    /// That one, with its code.
    This(usize, Ipv4Addr),
    /// That one for now, for one that allows has given no answer.
    ThisForNow(usize, Ipv4Addr),
}

/// Weighs what lists have said, of which each allows or blocks. Of several that list it, the first counts.
fn weigh(heard: &[(bool, Said)]) -> Counts {
    let listed = heard.iter().enumerate().find_map(|(nth, (allows, said))| match said {
        Said::Listed(code) => Some((nth, *allows, *code)),
        Said::Unlisted | Said::NoAnswer => None,
    });
    let is_unsure = heard.contains(&(true, Said::NoAnswer));
    match listed {
        None => Counts::Nobody,
        Some((nth, false, code)) if is_unsure => Counts::ThisForNow(nth, code),
        Some((nth, _, code)) => Counts::This(nth, code),
    }
}

impl Standing {
    /// The verdict that goes with a message: as RFC 8904 has it, and the like for lists that block.
    pub fn verdict(&self) -> Option<String> {
        let told =
            |word: &str, Listing { zone, code }: &Listing| format!("{word} dns.zone={zone} policy.ip={code}");
        match self {
            Self::Unlisted | Self::Unsure(_) => None,
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
    /// Questions without an answer since the last one that had one.
    failures: AtomicU32,
    /// Until then it is not asked.
    rests_until: Mutex<Option<Instant>>,
    /// Done once it was first asked whether it has everybody.
    first_proof: OnceCell<()>,
    /// It has everybody.
    is_aside: AtomicBool,
    told_at: Mutex<Option<Instant>>,
}

/// The lists of a site.
#[derive(Debug)]
pub struct Lists {
    resolver: Resolver,
    places: Arc<Semaphore>,
    asked: Vec<Arc<Asked>>,
}

impl Lists {
    /// Asks those by `resolver`; `None` if there are none.
    pub fn new(resolver: &Resolver, lists: &topology::Lists) -> Option<Self> {
        let asked = |allows: bool| move |list: &DnsList| Arc::new(Asked::new(list.clone(), allows));
        let allow = lists.allow.iter().map(asked(true));
        let asked: Vec<_> = allow.chain(lists.block.iter().map(asked(false))).collect();
        let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
        (!asked.is_empty()).then(|| Self { resolver: resolver.clone(), places, asked })
    }

    /// What they say of `client`. Of several that list it, the first in the topology counts.
    pub async fn ask(&self, client: IpAddr) -> Standing {
        let deadline = Instant::now() + TIME_MAX;
        let mut asking = JoinSet::new();
        for (nth, asked) in self.asked.iter().enumerate() {
            let (resolver, places, asked) =
                (self.resolver.clone(), Arc::clone(&self.places), Arc::clone(asked));
            asking.spawn(async move { (nth, asked.ask(&resolver, &places, client, deadline).await) });
        }
        // A question that was not asked to its end has no answer.
        let mut heard: Vec<_> = self.asked.iter().map(|asked| (asked.allows, Said::NoAnswer)).collect();
        while let Some(answer) = asking.join_next().await {
            if let Ok((nth, said)) = answer
                && let Some(heard) = heard.get_mut(nth)
            {
                heard.1 = said;
            }
        }
        let weighed = weigh(&heard);
        let (Counts::This(nth, code) | Counts::ThisForNow(nth, code)) = weighed else {
            return Standing::Unlisted;
        };
        let Some(asked) = self.asked.get(nth) else { return Standing::Unlisted };
        let listing = Listing { zone: asked.list.zone.clone(), code };
        match weighed {
            Counts::ThisForNow(..) => Standing::Unsure(listing),
            _ if asked.allows => Standing::Allowed(listing),
            _ => {
                let reason = self.reason(client, &listing.zone).await;
                Standing::Blocked(listing, reason)
            }
        }
    }

    /// Why a list has `client`; empty if it does not say so in time.
    async fn reason(&self, client: IpAddr, zone: &Domain) -> String {
        let name = question(client, zone);
        let asked = async {
            let _place = self.places.acquire().await.ok()?;
            let records = self.resolver.data(&name, RecordType::TXT).await.ok()?;
            records.iter().find_map(text)
        };
        let reason = timeout(REASON_TIME_MAX, asked).await.ok().flatten();
        reason.map(|text| cleaned(&text)).unwrap_or_default()
    }

    /// Sees, for ever, that lists that have everybody are left aside.
    pub async fn watch(&self) {
        loop {
            for asked in &self.asked {
                let proof = asked.has_everybody(&self.resolver).await;
                asked.proved(&proof);
                // Who has come meanwhile need not ask the same.
                let _ = asked.first_proof.set(());
            }
            sleep(PROVEN_EVERY).await;
        }
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
            is_aside: asked.is_aside.load(Ordering::Relaxed),
        };
        self.asked.iter().map(view).collect()
    }
}

impl Asked {
    fn new(list: DnsList, allows: bool) -> Self {
        Self {
            list,
            allows,
            listed: AtomicU64::default(),
            unlisted: AtomicU64::default(),
            unanswered: AtomicU64::default(),
            failures: AtomicU32::default(),
            rests_until: Mutex::default(),
            first_proof: OnceCell::new(),
            is_aside: AtomicBool::default(),
            told_at: Mutex::default(),
        }
    }

    /// What the list says of `client`; a place is one of those to ask.
    async fn ask(&self, resolver: &Resolver, places: &Semaphore, client: IpAddr, deadline: Instant) -> Said {
        if self.rests(Instant::now()) {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return Said::NoAnswer;
        }
        let Ok(Ok(_place)) = timeout_at(deadline, places.acquire()).await else {
            // That we ask too much is no fault of the list's.
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return Said::NoAnswer;
        };
        let proof = async { self.proved(&self.has_everybody(resolver).await) };
        if timeout_at(deadline, self.first_proof.get_or_init(|| proof)).await.is_err() {
            return self.gives_nothing("no answer in time");
        }
        if self.is_aside.load(Ordering::Relaxed) {
            return Said::Unlisted;
        }
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
                    self.failures.store(0, Ordering::Relaxed);
                    return Said::Listed(code);
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
                self.failures.store(0, Ordering::Relaxed);
                Said::Unlisted
            }
        }
    }

    /// Whether it has 127.0.0.1, which no list may have (RFC 5782 §5), or why that is not known.
    async fn has_everybody(&self, resolver: &Resolver) -> Result<bool, String> {
        let codes = self.codes_of(resolver, Ipv4Addr::LOCALHOST).await?;
        Ok(codes.into_iter().any(|code| self.list.says(code) != Word::Error))
    }

    /// It is left aside while it has everybody. What is not known changes nothing.
    fn proved(&self, proof: &Result<bool, String>) {
        let Ok(has_everybody) = *proof else { return };
        let was_aside = self.is_aside.swap(has_everybody, Ordering::Relaxed);
        match (was_aside, has_everybody) {
            (false, true) => tracing::warn!(
                list = %self.list.zone,
                "a list in DNS has 127.0.0.1, and so perhaps everybody: it is left aside until it has not"
            ),
            (true, false) => tracing::info!(list = %self.list.zone, "a list in DNS is believed again"),
            _ => {}
        }
    }

    /// Whether it is left alone, for it has given no answer for long.
    fn rests(&self, now: Instant) -> bool {
        let until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    async fn codes_of(&self, resolver: &Resolver, address: Ipv4Addr) -> Result<Vec<Ipv4Addr>, String> {
        let name = question(address.into(), &self.list.zone);
        match timeout(TIME_MAX, resolver.data(&name, RecordType::A)).await {
            Ok(Ok(records)) => Ok(codes(&records)),
            Ok(Err(error)) => Err(format!("no answer: {error}")),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn prove(&self, resolver: &Resolver) -> Result<(), (bool, String)> {
        let codes = async |last: u8| {
            let codes = self.codes_of(resolver, Ipv4Addr::new(127, 0, 0, last)).await;
            codes.map_err(|why| (true, why))
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

    /// Says so, seldom; and lets the list rest where that happens again and again.
    fn gives_nothing(&self, why: &str) -> Said {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.failures.store(0, Ordering::Relaxed);
            *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + REST);
        }
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY) {
            *told_at = Some(now);
            tracing::warn!(list = %self.list.zone, why, "a list in DNS says nothing; nobody is listed by it meanwhile");
        }
        Said::NoAnswer
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
    fn who_is_listed_is_not_refused_for_good_while_a_list_that_may_allow_it_is_silent() {
        let code = Ipv4Addr::new(127, 0, 0, 2);
        let (listed, unlisted, silent) = (Said::Listed(code), Said::Unlisted, Said::NoAnswer);
        for (heard, counts) in [
            ([(true, unlisted), (true, unlisted), (false, listed)], Counts::This(2, code)),
            ([(true, silent), (true, unlisted), (false, listed)], Counts::ThisForNow(2, code)),
            ([(true, silent), (true, listed), (false, listed)], Counts::This(1, code)),
            ([(true, unlisted), (false, silent), (false, listed)], Counts::This(2, code)),
            ([(true, silent), (true, unlisted), (false, unlisted)], Counts::Nobody),
        ] {
            assert_eq!(weigh(&heard), counts, "{heard:?}");
        }
    }

    /// Nobody answers at its port: whoever asks it waits.
    fn deaf_resolver() -> (std::net::UdpSocket, Resolver) {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let server = socket.local_addr().expect("bound");
        (socket, Resolver::new(&[server], &topology::Dnssec::Off).expect("a resolver"))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }

    const SHORT: Duration = Duration::from_millis(20);
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_list_that_has_everybody_is_left_aside_until_it_has_not() {
        block_on(async {
            let (_deaf, resolver) = deaf_resolver();
            let list = Asked::new("list.example".parse().expect("a list"), false);
            let places = Semaphore::new(1);
            list.first_proof.set(()).expect("not set");
            let ask = || list.ask(&resolver, &places, CLIENT, Instant::now() + SHORT);
            for (proof, said) in [
                (Err("no answer".to_owned()), Said::NoAnswer),
                (Ok(true), Said::Unlisted),
                (Err("no answer".to_owned()), Said::Unlisted),
                (Ok(false), Said::NoAnswer),
            ] {
                list.proved(&proof);
                assert_eq!(ask().await, said, "{proof:?}");
            }
        });
    }

    #[test]
    fn questions_have_places_and_a_list_that_gives_no_answer_has_a_rest() {
        block_on(async {
            let (deaf, resolver) = deaf_resolver();
            let list = Asked::new("list.example".parse().expect("a list"), false);
            let ask =
                async |places: &Semaphore| list.ask(&resolver, places, CLIENT, Instant::now() + SHORT).await;
            let (none, one) = (Semaphore::new(0), Semaphore::new(1));
            for _ in 0..FAILURES_MAX {
                assert_eq!(ask(&none).await, Said::NoAnswer);
            }
            deaf.set_nonblocking(true).expect("a socket");
            assert!(deaf.recv(&mut [0; 512]).is_err(), "nothing was asked without a place");
            assert!(!list.rests(Instant::now()), "and it is not the list's fault");
            for _ in 0..FAILURES_MAX {
                assert!(!list.rests(Instant::now()));
                assert_eq!(ask(&one).await, Said::NoAnswer);
            }
            let now = Instant::now();
            assert!(list.rests(now) && !list.rests(now + REST));
            while deaf.recv(&mut [0; 512]).is_ok() {}
            assert_eq!((ask(&one).await, list.unanswered.load(Ordering::Relaxed)), (Said::NoAnswer, 11));
            assert!(deaf.recv(&mut [0; 512]).is_err(), "it is not asked");
        });
    }

    #[test]
    fn what_a_list_says_is_shortened_and_cannot_break_a_reply() {
        assert_eq!(cleaned("see http://list.example/?ip=1 "), "see http://list.example/?ip=1");
        assert_eq!(cleaned("a\r\n250 ok\u{1b}[2J\u{fc}\0"), "a??250 ok?[2J??");
        assert_eq!(cleaned(&"x".repeat(10_000)).len(), REASON_MAX);
    }
}
