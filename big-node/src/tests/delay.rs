//! Who is told that somebody still waits for a message, when, and how often.

use std::time::Duration;

use shared::age;
use shared::topology::{SMALLEST, Topology};

use super::*;
use crate::delay;
use crate::record::DELAYS;

const HOUR: Duration = Duration::from_secs(3_600);

impl World {
    /// Big lives on by so many hours, and looks around.
    fn hours(&self, hours: u32, after: &str) {
        let lives = move |txn: &mut Txn<'_>| age::live_on(txn, HOUR * hours, NOW);
        self.store.commit_blocking(lives).expect("commits");
        let text = SMALLEST.replace("[link]", &format!("[edge.outbound]\ndelay_notice = {after}\n[link]"));
        let topology = Topology::parse(&text, "test.toml").expect("is right");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(delay::tell_due(&self.store, &self.site, &topology)).expect("is done");
    }

    /// The notices in somebody's mailbox, as text.
    fn notices_for(&self, person: &str) -> Vec<String> {
        let rows = self.store.read().expect("reads");
        let prefix = crate::record::folder_prefix(&self.known(person).id, Folder::In);
        let entries = rows.prefix::<Entry>(crate::record::MAILBOXES, &prefix, 100).expect("reads");
        let ids = entries.iter().map(|(key, _)| crate::record::message_of(key));
        let messages = ids.filter_map(|id| rows.get::<Message>(MESSAGES, &id.0).expect("reads"));
        let notices = messages.filter(|message| message.origin.channel == Channel::Report);
        let text = |message: Message| {
            let reader = self.store.body(message.body()).expect("is kept");
            String::from_utf8(mail::content(reader, &message, 1_000_000).expect("is whole")).expect("text")
        };
        notices.map(text).collect()
    }

    fn noted(&self) -> u64 {
        self.store.read().and_then(|rows| rows.count(DELAYS)).expect("reads")
    }
}

#[test]
fn an_author_is_told_once_who_still_waits() {
    let world = World::new();
    let id = world.sends(&["bob@example.com", "here@elsewhere.example", "late@elsewhere.example"], "text");
    world.told(id, 1, DeliveryState::Relayed);
    world.told(id, 2, DeliveryState::Deferred);
    world.hours(3, "14_400");
    assert_eq!((world.notices_for("alice"), world.noted()), (Vec::new(), 1), "not yet");
    for _ in 0..2 {
        world.hours(1, "14_400");
        let notices = world.notices_for("alice");
        assert_eq!(notices.len(), 1);
        let notice = &notices[0];
        assert!(
            notice.contains("\r\nFinal-Recipient: rfc822; late@elsewhere.example\r\nAction: delayed\r\n"),
            "{notice}"
        );
        assert!(notice.contains("\r\nWill-Retry-Until: ") && !notice.contains("; here@"), "{notice}");
        assert_eq!(world.noted(), 0);
    }
    world.told(id, 2, DeliveryState::Failed);
    assert!(world.notices_for("bob").is_empty());
}

#[test]
fn an_author_is_told_and_not_whoever_has_the_address_by_then() {
    let world = World::new();
    let readdress = |name: &str, addresses: &[&str]| {
        let old = world.known(name);
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        let (new, old) = (Record::Person(Person { addresses, ..old.clone() }), Record::Person(old));
        let writer = world.store.body_writer(new.key(), RECORD_KIND);
        let kept = writer.finish(new.encode()).expect("writes");
        let changed = world.store.commit_blocking(move |txn| directory::replace(txn, &old, &new, &kept));
        changed.expect("commits");
    };
    // She has another address by now, and bob has hers.
    world.sends(&["late@elsewhere.example"], "hers");
    readdress("alice", &["liddell@example.com"]);
    readdress("bob", &["bob@example.com", "alice@example.com"]);
    world.hours(4, "14_400");
    assert_eq!((world.notices_for("alice").len(), world.notices_for("bob").len()), (1, 0));
    assert!(world.notices_for("alice")[0].contains("liddell@example.com"));
}

#[test]
fn nobody_is_told_who_need_not_be() {
    let world = World::new();
    // Nobody waits for this one any more.
    let gone = world.sends(&["here@elsewhere.example"], "text");
    world.told(gone, 0, DeliveryState::Relayed);
    // Never, where the topology says so; it is told once it says another thing.
    let waits = world.sends(&["late@elsewhere.example"], "text");
    world.hours(100, "0");
    assert_eq!((world.notices_for("alice").len(), world.noted()), (0, 1));
    world.hours(0, "3_600");
    assert_eq!((world.notices_for("alice").len(), world.noted()), (1, 0));
    // What it has to say of the link is said, too.
    let text = &world.notices_for("alice")[0];
    assert!(text.contains("waits for the link") && text.contains("\r\nStatus: 4.0.0\r\n"), "{text}");
    // Inside nobody waits, and strangers are not told of delays.
    world.sends(&["bob@example.com"], "text");
    Letter::new("stranger@elsewhere.example", "bob@example.com").send(&world).expect("is filed");
    assert_eq!(world.noted(), 0);
    world.told(waits, 0, DeliveryState::Relayed);
}

#[test]
fn what_is_never_told_is_forgotten_when_attempts_end() {
    let world = World::new();
    world.sends(&["late@elsewhere.example"], "text");
    let expire = Topology::parse(SMALLEST, "test.toml").expect("is right").edge.outbound.expire;
    let hours = u32::try_from(expire.as_secs() / 3_600).expect("a few");
    world.hours(hours - 1, "0");
    assert_eq!(world.noted(), 1);
    world.hours(1, "0");
    assert_eq!((world.notices_for("alice").len(), world.noted()), (0, 0));
}
