//! One schedule: what a seed lets happen, and whether everything is where it should be afterwards.

mod collect;
mod redirect;
pub mod road;

use std::collections::BTreeMap;
use std::time::Duration;

use big_node::harness::Big;
use big_node::record::AfterFetch;
use big_node::request::Terms;
use edge_node::harness::Delivered;
use shared::address::Address;
use shared::id::{self, unix_millis};
use shared::store::sim::{Dice, Faults};
use shared::unit::{DeliveryState, Id, OUTBOUND, ReviseMode, ReviseResult, part_id};

use crate::end::block_on;
use crate::ledger::{Fate, Inbound, Inside, Ledger, Made, Order, Outbound, Outcome, Received};
use crate::liar;
use crate::world::{Image, Who, World};

/// When schedules begin, milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;
/// Rounds that everything may take to come to rest.
const ROUNDS_TO_REST: usize = 400;
/// Steps of the line in one of those rounds.
const STEPS_OF_A_ROUND: usize = 5_000;
/// Octets from which a message goes ahead of its unit.
const LARGE_BYTES: u64 = 70_000;
/// Octets below which one travels inside its unit, in order with the others.
const SMALL_BYTES: usize = 60_000;
/// Octets of a text that is too large to travel inside its unit, though letters are compressed to less than two thirds.
const LARGE_TEXT_BYTES: u64 = 140_000;
/// Octets of a line of it.
const NOISE_LINE: u64 = 70;
const OUTSIDE: &str = "reader@remote.example";
const EVENT_LANE: u8 = 1;
/// How far a clock jumps, in milliseconds: ten years at most.
const JUMP_MAX: u64 = 10 * 365 * 24 * 3_600_000;

/// Which faults a schedule has, besides cuts, crashes and a full disk, which all have.
#[derive(Clone, Copy, Debug)]
struct Kind {
    restores: bool,
    put_back: bool,
    lies: bool,
    failed_syncs: bool,
    jumps: bool,
    /// The edge's safety store is short.
    trims: bool,
    /// Windows begin and end. Not where a node goes back, or lies: what becomes of a window that big has forgotten is
    /// tested elsewhere.
    trips: bool,
    /// Mail is collected on the road, deleted at desks and redirected. Not where a store is put back by hand or a peer lies: an
    /// operator resets lanes there, and gives up what was on them.
    collects: bool,
    /// The nodes' keys become other ones.
    rotates: bool,
    /// A backup may be restored more than once.
    again: bool,
}

impl Kind {
    fn of(dice: &mut Dice, seed: u64) -> Self {
        let mut kind = Self {
            restores: dice.below(4) == 0,
            put_back: dice.below(12) == 0,
            lies: dice.below(8) == 0,
            failed_syncs: dice.below(4) == 0,
            jumps: dice.below(4) == 0,
            trims: dice.below(8) == 0,
            trips: false,
            collects: false,
            // By dice of its own: the other schedules stay as they were.
            rotates: Dice::new(!seed).below(4) == 0,
            again: Dice::new(seed.reverse_bits()).below(2) == 0,
        };
        kind.trips = !(kind.restores || kind.put_back || kind.lies || kind.trims);
        kind.collects = !(kind.put_back || kind.lies || kind.trims);
        kind
    }
}

/// How many events a schedule has. Most are short: what goes wrong mostly takes few of them, a short one
/// that fails is read in a minute, and five fit into the time of a long one. One in eight is long enough
/// for a restore to meet what another one left behind.
fn length(dice: &mut Dice) -> u64 {
    if dice.below(8) == 0 { 80 + dice.below(160) } else { 8 + dice.below(32) }
}

/// Plays the schedule of `seed`.
pub fn schedule(seed: u64, verbose: bool) -> Outcome {
    id::sim::begin(seed, BEGINNING);
    let mut dice = Dice::new(seed);
    let world = match World::new() {
        Ok(world) => world,
        Err(error) => {
            let mut outcome = Outcome::default();
            outcome.fault(|outcome| &mut outcome.stuck, format!("it did not begin: {error}"));
            return outcome;
        }
    };
    let mut play = Play {
        kind: Kind::of(&mut dice, seed),
        dice,
        world,
        ledger: Ledger::default(),
        outcome: Outcome::default(),
        log: blake3::Hasher::new(),
        images: Vec::new(),
        people: 0,
        standing: None,
        written: 0,
        went_back: false,
        edge_went_back: false,
        lied: false,
        distrusts: None,
        jumped: false,
        verbose,
    };
    let events = length(&mut play.dice);
    play.begin();
    for _ in 0..events {
        play.event();
    }
    play.come_to_rest();
    play.hold_alike();
    play.excuse_refused();
    play.audit();
    play.audit_trips();
    play.note_kinds();
    play.outcome.fingerprint = *play.log.finalize().as_bytes();
    play.outcome
}

/// A backup, and what its node had promised by then.
struct Backup {
    who: Who,
    image: Image,
    accepted: Vec<Vec<u8>>,
    /// How many logins, acts on the road and at desks there were.
    logins: usize,
    acts: usize,
    shifts: usize,
}

struct Play {
    kind: Kind,
    dice: Dice,
    world: World,
    ledger: Ledger,
    outcome: Outcome,
    log: blake3::Hasher,
    /// Backups, and what the books were then.
    images: Vec<Backup>,
    people: u64,
    /// The window of who travels all the time, and its private key.
    standing: Option<(Id, [u8; 32])>,
    written: u64,
    /// A store was put back by hand: lanes may stand still until an operator adopts.
    went_back: bool,
    /// The edge went back, by restore or by hand.
    edge_went_back: bool,
    /// A peer has sent garbage: a lane may stand still until an operator resets it.
    lied: bool,
    /// Who takes the other one's attempts for old ones, or its store for another, as an operator sees.
    distrusts: Option<Who>,
    /// The clocks have jumped.
    jumped: bool,
    verbose: bool,
}

/// A lane's receiver has gone back behind the safety store.
fn is_older(stop: &str) -> bool {
    stop.contains("OlderThanSafety") || stop.contains("older than the safety store")
}

fn letter(dice: &mut Dice) -> char {
    char::from(b'a' + u8::try_from(dice.below(26)).unwrap_or(0))
}

/// What the books say of a message to outside when it was sent.
fn outbound(answered: Option<Id>) -> Outbound {
    Outbound {
        answered,
        delivered: 0,
        excusable: 0,
        excused: false,
        unknowable: false,
        revisions: Vec::new(),
        foreign: Vec::new(),
        redirects: Vec::new(),
        got: BTreeMap::new(),
    }
}

/// An id as it is printed.
fn named(id: &Id) -> String {
    id::MessageId(*id).to_string()
}

impl Play {
    fn say(&mut self, what: impl FnOnce() -> String) {
        let what = what();
        self.log.update(what.as_bytes());
        if self.verbose {
            eprintln!("{:>9.3} {what}", self.world.now.as_secs_f64());
        }
    }

    fn one_of(&mut self) -> Who {
        Who::BOTH[usize::try_from(self.dice.below(2)).unwrap_or(0)]
    }

    /// The postmaster exists, and the edge is told everything, before anything goes wrong.
    fn begin(&mut self) {
        if let Some(big) = &self.world.big {
            big.add_person("alice").expect("the first person of a site");
            big.add_person(collect::PERSON).expect("a second one");
            let terms = Terms { after_fetch: AfterFetch::Delete, ..Terms::default() };
            self.standing = Some(big.travel(collect::PERSON, terms).expect("his first window"));
            big.add_person(road::PERSON).expect("a third one");
            if self.kind.jumps {
                // As at every start: no jump of the clock from here on goes unnoticed.
                block_on(big.wake()).expect("nothing fails yet");
            }
        }
        let _ = self.world.connect();
        self.run_line(usize::MAX);
    }

    fn event(&mut self) {
        let advance = 1 + self.dice.below(400);
        self.pass(advance);
        for who in Who::BOTH {
            if !self.world.runs(who) && self.dice.below(3) == 0 {
                self.restart(who);
            }
        }
        let kinds = if self.kind.collects { 110 } else { 100 };
        match self.dice.below(kinds) {
            0..12 => self.accept(),
            12..20 => self.send(),
            20..26 => {
                let taken = self.dice.below(4) > 0;
                self.deliver(taken);
            }
            26..30 => self.people(),
            30..34 => self.cut(),
            34..40 => self.crash(),
            40..42 => self.crash_in_a_commit(),
            42..45 => self.fill_disk(),
            45..46 if self.kind.failed_syncs => self.fail_sync(),
            46..48 if self.kind.jumps => self.jump(),
            48..51 if self.kind.restores || self.kind.put_back => self.back_up(),
            51..53 if self.kind.restores => self.put_back(true),
            53..54 if self.kind.put_back => self.put_back(false),
            54..56 if self.kind.lies => self.lie(),
            56..57 => self.see_to_all(),
            57..58 => self.pass(6_000),
            58..61 => self.room(),
            61..65 => self.tell_directory(),
            65..66 => self.drift(),
            66..70 => self.revise(),
            70..72 => self.send_inside(),
            72..82 if self.kind.lies => self.lie_in_frames(),
            72..84 if self.kind.trips => self.road(),
            84..86 if self.kind.rotates => self.rotate(),
            86..88 if self.kind.trips && !self.kind.jumps => self.report(),
            100..104 => self.collect(),
            104..106 => self.at_a_desk(),
            106..107 => self.guess(),
            107..110 => self.redirect(),
            _ => {
                let steps = 1 + self.dice.below(40);
                self.run_line(usize::try_from(steps).unwrap_or(1));
            }
        }
        self.look();
    }

    fn pass(&mut self, millis: u64) {
        self.world.now += Duration::from_millis(millis);
        id::sim::advance(millis);
        for who in Who::BOTH {
            self.world.offer_deferred(who, unix_millis());
            self.world.fill_windows(who);
            if self.dice.below(3) == 0 {
                self.world.flush(who);
            }
        }
        self.end_overdue();
        if self.world.wake().is_err() {
            self.world.cut_line(None);
        }
    }

    fn restart(&mut self, who: Who) {
        // It may lose power again while it recovers.
        if self.dice.below(5) == 0 {
            let sync = 1 + self.dice.below(3);
            self.inject(who, Faults { cut_at_sync: Some(sync), ..Faults::default() });
        }
        let started = self.world.start(who);
        self.say(|| format!("{who:?} starts: {}", started.is_ok()));
        if started.is_err() {
            self.world.lose_power(who, &mut self.dice);
        }
    }

    fn inject(&mut self, who: Who, faults: Faults) {
        match who {
            Who::Big => self.world.big_disk.inject(faults),
            Who::Edge => self.world.edge_disk.inject(faults),
        }
    }

    fn content(&mut self) -> Vec<u8> {
        self.written += 1;
        let length = if self.dice.below(12) == 0 {
            LARGE_BYTES + self.dice.below(60_000)
        } else {
            self.dice.below(900)
        };
        let mut noise = Dice::new(self.written);
        let mut content = format!("Subject: {}\r\n\r\n", self.written).into_bytes();
        // Not compressible, so that a large one is large on the line too.
        content.extend((0..length).map(|_| u8::try_from(letter(&mut noise)).unwrap_or(b'a')));
        content.extend_from_slice(b"\r\n");
        content
    }

    /// Somebody outside sends a message to the edge.
    fn accept(&mut self) {
        let content = self.content();
        let (who, to) = match self.dice.below(8) {
            0 => (None, format!("p{}@example.com", self.people)),
            1 | 2 => (Some(collect::PERSON), collect::ADDRESS.to_owned()),
            3 if self.kind.trips => (Some(road::PERSON), road::ADDRESS.to_owned()),
            _ => (None, "alice@example.com".to_owned()),
        };
        let Some(edge) = &self.world.edge else { return };
        let (from, address): (Address, Address) =
            ("writer@remote.example".parse().expect("an address"), to.parse().expect("an address"));
        let accepted = block_on(edge.accept(&from, &address, &content));
        self.say(|| format!("accept {} octets: {:?}", content.len(), accepted.as_ref().map(named)));
        let answered = accepted.as_ref().ok().copied();
        if let Some(id) = answered {
            self.outcome.accepted += 1;
            if content.len() < SMALL_BYTES {
                self.ledger.inward.promised.push(id);
            }
            let content = content.clone();
            self.ledger.received.extend(who.map(|who| Received { who, id, content }));
        }
        self.ledger.inbound.insert(content, Inbound { to, answered, at_edge: true, excused: false });
        self.mourn(Who::Edge);
    }

    /// A day is over for a domain that wants to be told. Not where a node goes back or lies, nor where a clock does: a
    /// report of a day to come is none.
    fn report(&mut self) {
        self.written += 1;
        let domain = format!("d{}.example", self.written);
        let Some(edge) = &self.world.edge else { return };
        let told = edge.tell_report(domain, OUTSIDE.parse().expect("an address"));
        self.say(|| {
            format!("report: {:?}", told.as_ref().map(|told| told.iter().map(named).collect::<Vec<_>>()))
        });
        self.ledger.reports.extend(told.unwrap_or_default());
        self.mourn(Who::Edge);
    }

    /// Alice writes to somebody outside.
    fn send(&mut self) {
        let content = self.content();
        let Some(big) = &self.world.big else { return };
        let sent = big.send("alice", &[OUTSIDE], &content);
        self.say(|| format!("send {} octets: {:?}", content.len(), sent.as_ref().map(named)));
        self.outcome.accepted += u64::from(sent.is_ok());
        self.leaves(content, sent.ok());
        self.mourn(Who::Big);
    }

    /// What was sent goes to the edge, for its first recipient.
    fn leaves(&mut self, content: Vec<u8>, answered: Option<Id>) {
        let unit = answered.map(|id| part_id(&id, 0, OUTBOUND, std::iter::once(0)));
        self.ledger.outward.promised.extend(unit.filter(|_| content.len() < SMALL_BYTES));
        self.ledger.outbound.insert(content, outbound(answered));
    }

    /// Alice writes to bob, who travels, or to somebody outside and to him.
    fn send_inside(&mut self) {
        let content = self.content();
        let to: &[&str] = match self.dice.below(2) {
            0 => &[collect::ADDRESS],
            _ => &[OUTSIDE, collect::ADDRESS],
        };
        let Some(big) = &self.world.big else { return };
        let sent = big.send("alice", to, &content);
        self.say(|| format!("send {} octets to {to:?}: {:?}", content.len(), sent.as_ref().map(named)));
        let recipient = u32::from(to.len() > 1);
        if to.len() > 1 {
            self.leaves(content.clone(), sent.as_ref().ok().copied());
        }
        if let Ok(id) = sent {
            self.outcome.accepted += 1;
            let (excused, revisions) = (false, Vec::new());
            self.ledger.inside.push(Inside { id, content, recipient, excused, revisions });
        }
        self.mourn(Who::Big);
    }

    /// Alice revises one that she has sent, sometimes twice, and then once more as if she had not seen the second.
    fn revise(&mut self) {
        let outside = self.ledger.outbound.values().filter(|out| !out.excused).filter_map(|out| out.answered);
        let inside = self.ledger.inside.iter().filter(|message| !message.excused).map(|message| message.id);
        let sent: Vec<Id> = outside.chain(inside).collect();
        if sent.is_empty() {
            return;
        }
        let id = sent[usize::try_from(self.dice.below(sent.len() as u64)).unwrap_or(0)];
        let first = self.revise_once(id, None);
        if self.dice.below(3) != 0 {
            return;
        }
        let second = self.revise_once(id, None);
        if let (Ok(first), Ok(second)) = (first, second)
            && second > first
            && self.revise_once(id, Some(first)).is_ok()
        {
            let what = format!("{} was revised from {first}, and {second} was there", named(&id));
            self.outcome.fault(|outcome| &mut outcome.altered, what);
        }
    }

    fn revise_once(&mut self, id: Id, base: Option<u32>) -> Result<u32, String> {
        let mode = match self.dice.below(8) {
            0 => ReviseMode::Withdraw,
            1 | 2 => ReviseMode::Append,
            _ => ReviseMode::Replace,
        };
        self.written += 1;
        let word = format!("text-{}-of-{}.", self.written, named(&id));
        // A large one goes by the lane of large mail, and may be overtaken by the next.
        let mut text = word.clone();
        if self.dice.below(12) == 0 {
            let mut noise = Dice::new(self.written);
            for _ in 0..LARGE_TEXT_BYTES / NOISE_LINE {
                text.push('\n');
                text.extend((0..NOISE_LINE).map(|_| letter(&mut noise)));
            }
        }
        let Some(big) = &self.world.big else { return Err("big does not run".into()) };
        let outside = self.ledger.outbound.values_mut().find(|out| out.answered == Some(id));
        let inside = self.ledger.inside.iter_mut().find(|message| message.id == id);
        let to = match (&outside, &inside) {
            (Some(_), Some(_)) => match self.dice.below(3) {
                0 => Some(OUTSIDE),
                1 => Some(collect::ADDRESS),
                _ => None,
            },
            _ => None,
        };
        let revised = block_on(big.revise("alice", id, mode, (text.as_str(), to), base));
        // Refused, it may be there all the same: the power went before the answer.
        let number = revised.as_ref().ok().copied();
        let made = Made { mode, word: word.clone(), number, undone: false };
        if let Some(out) = outside {
            match to == Some(collect::ADDRESS) {
                true => out.foreign.push(word),
                false => out.revisions.push(made.clone()),
            }
        }
        if let Some(message) = inside
            && to != Some(OUTSIDE)
        {
            message.revisions.push(made);
        }
        self.say(|| format!("{mode:?} {} of {} octets, for {to:?}: {revised:?}", named(&id), text.len()));
        self.mourn(Who::Big);
        revised
    }

    /// A remote host takes what waits on the edge, or says to come again.
    fn deliver(&mut self, taken: bool) {
        let Some(edge) = &self.world.edge else { return };
        let waiting = edge.queue().unwrap_or_default();
        let free: Vec<Id> = waiting.into_iter().filter(|(_, held)| !held).map(|(id, _)| id).collect();
        if free.is_empty() {
            return;
        }
        let id = free[usize::try_from(self.dice.below(free.len() as u64)).unwrap_or(0)];
        let delivered = block_on(edge.deliver(id, taken));
        let gone = delivered.as_ref().map(|delivered| (&delivered.recipients, delivered.recorded.is_ok()));
        self.say(|| format!("deliver {}, taken: {taken}: {gone:?}", named(&id)));
        if let (Ok(delivered), true) = (delivered, taken) {
            self.delivered(id, &delivered);
        }
        self.mourn(Who::Edge);
    }

    /// A remote host has got this.
    fn delivered(&mut self, id: Id, delivered: &Delivered) {
        let known = self.ledger.outbound.values().find(|out| out.answered == Some(id));
        // Both nodes may have forgotten that it was to leave for another address alone.
        let is_astray = self.edge_went_back
            && known.is_some_and(|out| out.redirects.iter().any(|redirect| redirect.undone));
        if delivered.recipients.len() != 1 && !is_astray {
            let what = format!("{} has left for {:?} at once", named(&id), delivered.recipients);
            self.outcome.fault(|outcome| &mut outcome.doubled, what);
            return;
        }
        for recipient in &delivered.recipients {
            self.delivered_to(id, delivered, recipient);
        }
    }

    fn delivered_to(&mut self, id: Id, delivered: &Delivered, recipient: &(u32, String)) {
        let Delivered { content, recipients, recorded } = delivered;
        let index = recipient.0;
        let reported =
            self.world.big.as_ref().and_then(|big| big.results(id, index).ok()).unwrap_or_default();
        let known = self.ledger.outbound.iter().find(|(_, out)| out.answered == Some(id));
        // One whose exit 0 was not seen has the text that it was written with.
        let original = known.map_or_else(|| content.clone(), |(original, _)| original.clone());
        let Some(out) = self.ledger.outbound.get_mut(&original) else {
            let what = "a remote got what was never sent".into();
            self.outcome.fault(|outcome| &mut outcome.altered, what);
            return;
        };
        out.delivered += 1;
        *out.got.entry(index).or_default() += 1;
        // The remote has it and the edge does not know: it will be attempted once more.
        out.excusable += u32::from(recorded.is_err()) + u32::from(recipients.len() > 1);
        if !out.is_for(recipient, OUTSIDE) {
            let what = format!("{} has left for {recipient:?}, to whom nobody has sent it", named(&id));
            self.outcome.fault(|outcome| &mut outcome.ghost, what);
            return;
        }
        if out.is_foreign(content) {
            let what = format!("a remote got of {} what was for another", named(&id));
            self.outcome.fault(|outcome| &mut outcome.altered, what);
            return;
        }
        let text = out.text_in(content);
        let number = match text {
            None if original == *content => Some(0),
            None => {
                let what = format!("a remote got another text of {} than was ever sent", named(&id));
                self.outcome.fault(|outcome| &mut outcome.altered, what);
                return;
            }
            Some(place) => out.revisions[place].number,
        };
        // An edge that was put back by hand delivers what waited then.
        let Some(number) = number.filter(|_| !self.went_back) else { return };
        for result in reported {
            let is_old = match result.result {
                ReviseResult::Replaced => number < result.revision,
                ReviseResult::Withdrawn => true,
                _ => false,
            };
            if is_old {
                let what = format!("revision {number} of {} left for {recipient:?}: {result:?}", named(&id));
                self.outcome.fault(|outcome| &mut outcome.altered, what);
            }
        }
    }

    fn people(&mut self) {
        let Some(big) = &self.world.big else { return };
        let done = if self.people > 0 && self.dice.below(3) == 0 {
            let name = format!("p{}", 1 + self.dice.below(self.people));
            big.remove_person(&name).is_ok()
        } else {
            self.people += 1;
            big.add_person(&format!("p{}", self.people)).is_ok()
        };
        self.say(|| format!("people: {done}"));
        self.mourn(Who::Big);
    }

    /// Big says that it has told everything, as it does when a connection opens and every minute of it.
    fn tell_directory(&mut self) {
        let Some(big) = &self.world.big else { return };
        let told = block_on(big.tell_directory()).is_ok();
        self.say(|| format!("the directory is marked: {told}"));
        self.mourn(Who::Big);
        self.run_line(60);
        self.compare();
    }

    /// The edge compares, if it has been told.
    fn compare(&mut self) {
        let Some(edge) = &self.world.edge else { return };
        let compared = block_on(edge.compare()).is_ok();
        let view = edge.directory().unwrap_or_default();
        self.say(|| format!("compared: {compared}, differed {}, mended {}", view.differed, view.mended));
        self.mourn(Who::Edge);
    }

    /// The edge's directory is no more what it was told, or big's no more what it tells.
    fn drift(&mut self) {
        let roll = self.dice.below(3);
        let done = match (roll, &self.world.big, &self.world.edge) {
            (0, Some(big), _) => {
                self.people += 1;
                big.add_untold(&format!("p{}", self.people)).is_ok()
            }
            (1, _, Some(edge)) => {
                let known = edge.addresses().unwrap_or_default();
                let lost = known.first().map(|hash| edge.drift(*hash, false).is_ok());
                lost.unwrap_or(false)
            }
            (_, _, Some(edge)) => {
                let hash = [u8::try_from(self.dice.below(256)).unwrap_or(0); 32];
                edge.drift(hash, true).is_ok()
            }
            _ => false,
        };
        self.say(|| format!("the directory drifts ({roll}): {done}"));
        Who::BOTH.into_iter().for_each(|who| self.mourn(who));
    }

    fn cut(&mut self) {
        self.say(|| "the line is cut".into());
        self.world.cut_line(None);
    }

    fn crash(&mut self) {
        let who = self.one_of();
        if self.world.runs(who) {
            self.outcome.crashes += 1;
            self.say(|| format!("{who:?} loses power"));
            self.world.lose_power(who, &mut self.dice);
        }
    }

    /// The power goes during one of the next syncs: in the middle of a commit.
    fn crash_in_a_commit(&mut self) {
        let who = self.one_of();
        let sync = 1 + self.dice.below(4);
        self.say(|| format!("{who:?} will lose power at its sync {sync} from now"));
        self.inject(who, Faults { cut_at_sync: Some(sync), ..Faults::default() });
    }

    fn fill_disk(&mut self) {
        let who = self.one_of();
        let write = 1 + self.dice.below(6);
        self.say(|| format!("{who:?}'s disk will be full at its write {write} from now"));
        self.inject(who, Faults { full_at_write: Some(write), ..Faults::default() });
        // It is full for a while, in which things go on.
        let events = self.dice.below(6);
        for _ in 0..events {
            match self.dice.below(4) {
                0 => self.accept(),
                1 => self.send(),
                _ => self.run_line(20),
            }
        }
        self.inject(who, Faults::default());
    }

    fn fail_sync(&mut self) {
        let who = self.one_of();
        let sync = 1 + self.dice.below(3);
        self.say(|| format!("{who:?}'s sync {sync} from now fails"));
        self.inject(who, Faults { error_at_sync: Some(sync), ..Faults::default() });
    }

    fn jump(&mut self) {
        let jump = self.dice.below(JUMP_MAX);
        let ahead = self.dice.below(2) == 0;
        self.jumped = true;
        self.say(|| format!("the clocks jump {jump} ms {}", if ahead { "ahead" } else { "back" }));
        if ahead { id::sim::go_ahead(jump) } else { id::sim::go_back(jump) }
    }

    fn back_up(&mut self) {
        let who = self.one_of();
        // At most one image a node, so that what it has forgotten is clear.
        if self.images.iter().any(|backup| backup.who == who) {
            return;
        }
        if let Some(image) = self.world.back_up(who) {
            self.say(|| format!("{who:?} is backed up"));
            let accepted = self.ledger.inbound.keys().cloned().collect();
            let Ledger { logins, acts, shifts, .. } = &self.ledger;
            let (logins, acts, shifts) = (logins.len(), acts.len(), shifts.len());
            self.images.push(Backup { who, image, accepted, logins, acts, shifts });
        }
    }

    /// An operator gives a node a new key.
    fn rotate(&mut self) {
        let who = self.one_of();
        let begun = self.world.runs(who) && self.world.rotate(who);
        self.say(|| format!("{who:?} has a new key: {begun}"));
    }

    /// A node goes back to its backup: by `restore`, or its snapshot is put back by hand.
    fn put_back(&mut self, by_restore: bool) {
        let Some(index) = self.images.len().checked_sub(1) else { return };
        let backup = self.images.remove(index);
        let who = backup.who;
        self.outcome.crashes += 1;
        if by_restore && self.kind.again {
            // Two restores have two generations if they are a minute apart.
            self.pass(60_000);
        }
        self.say(|| format!("{who:?} goes back to its backup, by restore: {by_restore}"));
        // What only this node had is gone with it; what the other one had by then has to be there still.
        let kept = match who {
            Who::Edge => self.filed(),
            Who::Big => Vec::new(),
        };
        if self.world.put_back(who, &backup.image, by_restore, &mut self.dice).is_err() {
            self.outcome.fault(|outcome| &mut outcome.stuck, format!("{who:?} does not start from a backup"));
            return;
        }
        self.went_back |= !by_restore;
        // Nor does what was applied before say anything about the order from here on.
        self.note_applied();
        self.ledger.inward.applied.clear();
        self.ledger.outward.displace();
        match who {
            Who::Edge => self.edge_forgot(&kept, &backup, by_restore),
            Who::Big => {
                self.ledger.big_went_back = true;
                self.ledger.shifts.iter_mut().skip(backup.shifts).for_each(|shift| shift.undone = true);
                self.big_forgot();
            }
        }
        if by_restore && self.kind.again {
            self.images.insert(0, backup);
        }
    }

    fn filed(&self) -> Vec<Vec<u8>> {
        let filed = self.world.big.as_ref().and_then(|big| big.filed().ok()).unwrap_or_default();
        filed.into_values().map(|(_, content)| content).collect()
    }

    /// Messages that the edge does not have any more, and big does not have, are gone.
    fn edge_forgot(&mut self, kept: &[Vec<u8>], backup: &Backup, by_restore: bool) {
        self.ledger.logins.iter_mut().skip(backup.logins).for_each(|login| login.undone = true);
        self.ledger.acts.iter_mut().skip(backup.acts).for_each(|act| act.undone = true);
        self.ledger.guesses = None;
        for (content, message) in &mut self.ledger.inbound {
            message.at_edge &= backup.accepted.contains(content);
            message.excused |= !message.at_edge && !kept.contains(content);
        }
        self.edge_went_back = true;
        self.ledger.inward.displace();
        let settled = |id: Id| {
            let state = self.world.big.as_ref().and_then(|big| big.state_of(id).ok()).flatten();
            matches!(state, Some(DeliveryState::Relayed))
        };
        for out in self.ledger.outbound.values_mut() {
            // Big had not learnt of the delivery, or cannot say now: it may be made once more. And what was
            // put back by hand holds nothing back until an operator adopts it.
            let repeated = out.delivered > 0 && (!by_restore || !out.answered.is_some_and(&settled));
            // The text that waited then may leave, and what has been put in its place follows it, also if that had
            // left before.
            let is_changed = !out.revisions.is_empty() || !out.redirects.is_empty();
            let followed = !by_restore && is_changed;
            out.excusable += u32::from(repeated) + u32::from(followed);
            for redirect in &mut out.redirects {
                redirect.edge_went_back = true;
                let got = redirect.number.and_then(|number| out.got.get(&number));
                redirect.forgotten = got.copied().unwrap_or_default();
            }
        }
    }

    /// Messages that big does not have any more are sent again by the edge, unless that went back too.
    fn big_forgot(&mut self) {
        let filed = self.filed();
        for (content, message) in &mut self.ledger.inbound {
            message.excused |= !message.at_edge && !filed.contains(content);
        }
        let state = |id: Id| self.world.big.as_ref().and_then(|big| big.state_of(id).ok()).flatten();
        let orders = |id: Id| -> BTreeMap<u32, ReviseResult> {
            let Some(big) = &self.world.big else { return BTreeMap::new() };
            let recipients = big.recipients(id).unwrap_or_default();
            let results = recipients.keys().flat_map(|index| big.results(id, *index).unwrap_or_default());
            results.map(|result| (result.revision, result.result)).collect()
        };
        for out in self.ledger.outbound.values_mut() {
            let known = out.answered.map(orders).unwrap_or_default();
            for redirect in &mut out.redirects {
                let result = redirect.number.and_then(|number| known.get(&number));
                // Both nodes went back to before it, and what it had sent on is still on its way.
                let is_for_both = redirect.edge_went_back && result.is_none() && !redirect.undone;
                out.excusable += u32::from(is_for_both);
                redirect.undone |= result.is_none();
                redirect.reopened |= result == Some(&ReviseResult::Pending);
            }
            match out.answered.and_then(&state) {
                None => out.excused = true,
                // Nobody knows any more that it was delivered, if the edge went back too.
                Some(DeliveryState::Relayed) => {}
                Some(_) if out.delivered > 0 && self.edge_went_back => {
                    out.excusable += 1;
                    out.unknowable = true;
                }
                Some(_) => {}
            }
        }
        for message in &mut self.ledger.inside {
            message.excused |= state(message.id).is_none();
            let known = orders(message.id);
            for made in &mut message.revisions {
                made.undone |= made.number.is_none_or(|number| !known.contains_key(&number));
            }
        }
    }

    /// A node has no room for mail, or has some again. A new session begins with room.
    fn room(&mut self) {
        let (who, room) = (self.one_of(), self.dice.below(2) == 0);
        self.say(|| format!("{who:?} has room: {room}"));
        if self.world.room(who, room).is_err() {
            self.world.cut_line(None);
        }
    }

    /// A node sees to what has aged: nothing has, whatever its clock says. A short safety store gives up some.
    fn see_to_all(&mut self) {
        let who = self.one_of();
        self.say(|| format!("{who:?} sees to what has aged"));
        self.world.see_to_all(who);
        if self.kind.trims {
            self.world.trim(self.dice.below(4_000));
        }
        Who::BOTH.into_iter().for_each(|who| self.mourn(who));
    }

    /// The peer sends garbage in the place of some bytes.
    fn lie(&mut self) {
        let steps = self.world.steps();
        if steps.is_empty() {
            return;
        }
        let (who, step) = steps[usize::try_from(self.dice.below(steps.len() as u64)).unwrap_or(0)];
        let garbage = 1 + u8::try_from(self.dice.below(255)).unwrap_or(0);
        let count = usize::try_from(1 + self.dice.below(3000)).unwrap_or(1);
        self.lied = true;
        let result = self.world.step(who, step, count, Some(garbage));
        self.say(|| format!("garbage for {who:?}: {result:?}"));
        if result.is_err() {
            self.world.cut_line(None);
        }
    }

    /// The peer says what is well-formed and untrue, often while the session opens.
    fn lie_in_frames(&mut self) {
        if self.dice.below(3) == 0 {
            self.cut();
        }
        if !self.world.is_connected() && self.world.connect().is_err() {
            self.world.cut_line(None);
            return;
        }
        self.lied = true;
        for _ in 0..=self.dice.below(3) {
            let (who, ids) = (self.one_of(), self.ledger.inward.promised.clone());
            let said = liar::lie(&mut self.world, who, &ids, &mut self.dice);
            self.say(|| format!("a lie for {who:?}: {said}"));
            let steps = self.dice.below(12);
            self.run_line(usize::try_from(steps).unwrap_or(0));
        }
    }

    /// Lets up to `steps` things happen on the link.
    fn run_line(&mut self, steps: usize) {
        if !self.world.is_connected() {
            let connected = self.world.connect();
            self.say(|| format!("big dials: {connected:?}"));
            if connected.is_err() {
                self.world.cut_line(None);
                return;
            }
        }
        for _ in 0..steps {
            let possible = self.world.steps();
            if possible.is_empty() {
                break;
            }
            let (who, step) = possible[usize::try_from(self.dice.below(possible.len() as u64)).unwrap_or(0)];
            let count = match self.dice.below(4) {
                0 => 1 + self.dice.below(40),
                _ => 1 + self.dice.below(100_000),
            };
            let result = self.world.step(who, step, usize::try_from(count).unwrap_or(1), None);
            self.note_applied();
            if let Err(why) = result {
                self.say(|| format!("the session ends: {why}"));
                self.distrusts = if why.contains("(generation, epoch) is not above") {
                    Some(Who::Edge)
                } else if why.contains("its generation is lower than before") {
                    Some(who)
                } else {
                    None
                };
                if !self.lied && why.contains("broke the protocol") {
                    self.outcome.fault(|outcome| &mut outcome.stuck, why);
                }
                self.world.cut_line(None);
                break;
            }
        }
        Who::BOTH.into_iter().for_each(|who| self.mourn(who));
    }

    fn note_applied(&mut self) {
        for applied in self.world.applied(Who::Big) {
            self.say(|| format!("big applies {}: {}", named(&applied.id), !applied.deferred));
            self.ledger.inward.came(applied.id, applied.deferred);
        }
        for applied in self.world.applied(Who::Edge) {
            self.say(|| format!("edge applies {}: {}", named(&applied.id), !applied.deferred));
            self.ledger.outward.came(applied.id, applied.deferred);
        }
    }

    /// A node whose disk has lost its power, or whose store has stopped, ends.
    fn mourn(&mut self, who: Who) {
        let dead = match who {
            Who::Big => self.world.big_disk.is_dead(),
            Who::Edge => self.world.edge_disk.is_dead(),
        };
        let stopped = self.world.store(who).is_some_and(|store| store.ready().is_err() && !dead)
            && self.world.store(who).is_some_and(|store| store.has_stopped());
        if self.world.runs(who) && (dead || stopped) {
            self.outcome.crashes += 1;
            self.say(|| format!("{who:?} ends ({})", if dead { "no power" } else { "a failed sync" }));
            self.world.lose_power(who, &mut self.dice);
            // What was under way when the power went is not known to its sender, and may be there.
        }
    }

    /// Notes lanes that stand still without a cause.
    fn look(&mut self) {
        // An edge whose disk is full gives its safety store up, too; it may find so after a crash right behind that.
        self.kind.trims |= self.world.has_trimmed();
        if !self.went_back && !self.lied {
            let mut stops = self.world.stops();
            // What a short safety store has given up waits for the operator.
            stops.retain(|stop| !self.kind.trims || !is_older(stop));
            if !stops.is_empty() {
                self.outcome.fault(|outcome| &mut outcome.stuck, format!("lanes stand still: {stops:?}"));
                self.lied = true;
            }
        }
    }

    /// No more faults: nodes run, the operator sees to lanes that stand still, and all that waits goes.
    fn come_to_rest(&mut self) {
        self.say(|| "no more faults".into());
        for who in Who::BOTH {
            self.inject(who, Faults::default());
            self.mourn(who);
            while !self.world.runs(who) {
                if self.world.start(who).is_err() {
                    self.outcome.fault(|outcome| &mut outcome.stuck, format!("{who:?} does not start"));
                    return;
                }
            }
        }
        if let Some(session) = self.world.collecting.take() {
            let ended = block_on(session.cut()).is_ok();
            self.say(|| format!("the last session is cut off: {ended}"));
        }
        self.world.cut_line(None);
        for round in 0..ROUNDS_TO_REST {
            self.pass(6_000);
            self.run_line(STEPS_OF_A_ROUND);
            Who::BOTH.into_iter().for_each(|who| self.world.flush(who));
            if !self.world.stops().is_empty() {
                self.see_to_stops(round);
            }
            // A peer that lied may have said that its generation is another.
            if let Some(who) = self.distrusts.take().filter(|_| self.lied && !self.world.is_open()) {
                self.say(|| format!("an operator of {who:?} runs `link adopt`"));
                self.world.cut_line(None);
                self.world.adopt(who, unix_millis());
            }
            let busy = self.world.steps().iter().any(|_| true);
            let held = self.world.edge.as_ref().map_or(0, |edge| edge.queue().unwrap_or_default().len());
            if held > 0 {
                self.deliver(true);
            } else if !busy
                && self.world.is_quiet()
                && self.world.is_open()
                && self.is_same()
                && self.world.keys_are_settled()
            {
                return;
            }
            if !self.is_same() {
                self.tell_directory();
            }
        }
        let left = self.world.left();
        self.outcome.fault(|outcome| &mut outcome.stuck, format!("it does not come to rest: {left}"));
    }

    /// Whether the edge knows what big would tell it.
    fn is_same(&self) -> bool {
        let (Some(big), Some(edge)) = (&self.world.big, &self.world.edge) else { return false };
        let (Ok(here), Ok(there)) = (big.addresses(), edge.addresses()) else { return false };
        here == there
    }

    fn see_to_stops(&mut self, round: usize) {
        let stops = self.world.stops();
        self.say(|| format!("an operator sees to {stops:?}"));
        self.world.cut_line(None);
        // Who adopts or resets sends anew.
        self.note_applied();
        self.ledger.outward.displace();
        let now = unix_millis();
        // Who has put a store back by hand adopts it, whatever stands still for that.
        let put_back = self.went_back || stops.iter().any(|stop| stop.contains("put back"));
        let older = stops.iter().any(|stop| is_older(stop));
        for who in Who::BOTH {
            match (put_back && round < ROUNDS_TO_REST / 2, self.lied || self.went_back) {
                (true, _) => self.world.adopt(who, now),
                _ if older => {
                    if who == Who::Edge {
                        self.world.adopt(who, now);
                    }
                }
                (false, true) => self.world.reset(who, now),
                (false, false) => {}
            }
        }
    }

    /// Which kinds of units were played, by the safety stores: what a peer made up is in none.
    fn note_kinds(&mut self) {
        // The last confirms go with the next commit.
        Who::BOTH.into_iter().for_each(|who| self.world.flush(who));
        self.outcome.kinds = self.world.kinds().unwrap_or_default();
        let kinds: Vec<_> = self.outcome.kinds.iter().copied().collect();
        self.say(|| format!("told: {}", kinds.join(", ")));
    }

    /// At rest, both nodes hold the same of messages.
    fn hold_alike(&mut self) {
        let Some(asked) = self.world.big.as_ref().and_then(|big| big.ask_inventory().ok()) else { return };
        let mut answer = None;
        for _ in 0..ROUNDS_TO_REST {
            self.pass(6_000);
            self.run_line(STEPS_OF_A_ROUND);
            answer = self.world.big.as_ref().and_then(|big| big.inventory(&asked).ok().flatten());
            if answer.is_some() {
                break;
            }
        }
        match answer {
            None if self.outcome.stuck > 0 => {}
            None => {
                self.outcome.fault(|outcome| &mut outcome.stuck, "the edge did not say what it holds".into());
            }
            Some((compared, differing)) => {
                self.say(|| format!("{compared} holdings compared"));
                for what in differing {
                    if self.is_lost_at_home(&what) {
                        continue;
                    }
                    self.outcome.fault(|outcome| &mut outcome.altered, what);
                }
            }
        }
    }

    /// Whether a difference is about a copy on the road of which one node has forgotten what the other one knows.
    fn is_lost_at_home(&self, what: &str) -> bool {
        let Some(big) = &self.world.big else { return false };
        let id = what.strip_prefix("the copy of ").and_then(|rest| rest.split(' ').next());
        let Some(id) = id.and_then(|id| id.parse::<id::MessageId>().ok()) else { return false };
        let fate = Fate::of(&self.ledger, &id.0);
        let lost = self.ledger.lost_revisions(&id.0);
        let gone = self.world.gone().unwrap_or_default();
        // An operator was told that acts on the road are.
        let are_acts_gone = gone.iter().any(|(lane, _)| *lane == EVENT_LANE) && !fate.acts.is_empty();
        let is_lost = if what.ends_with("is missing on the edge") {
            fate.may_be_at_home_alone() || lost.iter().any(|made| made.mode == ReviseMode::Withdraw)
        } else if what.ends_with("is on the edge only") {
            fate.may_be_there_again() || !lost.is_empty()
        } else {
            fate.may_be_retrieved() || !lost.is_empty()
        };
        is_lost
            || are_acts_gone
            || self.ledger.is_lost(&id.0)
            || self.ledger.big_went_back && big.state_of(id.0).is_ok_and(|state| state.is_none())
            || gone.iter().any(|(_, gone)| *gone == id.0)
    }

    /// Compares the books with the nodes.
    fn audit(&mut self) {
        let (Some(big), Some(edge)) = (&self.world.big, &self.world.edge) else { return };
        let filed = match big.filed() {
            Ok(filed) => filed,
            Err(error) => {
                self.outcome.fault(|outcome| &mut outcome.altered, format!("big cannot be read: {error}"));
                return;
            }
        };
        // What an operator was told is gone, and nothing else may be.
        let gone = match self.world.gone() {
            Ok(gone) => gone,
            Err(error) => {
                self.outcome
                    .fault(|outcome| &mut outcome.altered, format!("the edge cannot be read: {error}"));
                return;
            }
        };
        match big.reports() {
            Ok(reports) => {
                for id in self.ledger.reports.iter().filter(|id| !reports.contains(*id)) {
                    let what = format!("the report {} was told, and is not there", named(id));
                    self.outcome.fault(|outcome| &mut outcome.lost, what);
                }
            }
            Err(error) => {
                self.outcome.fault(|outcome| &mut outcome.altered, format!("big cannot be read: {error}"));
                return;
            }
        }
        let facts_gone = gone.iter().any(|(lane, _)| *lane == EVENT_LANE);
        let outcome = &mut self.outcome;
        let mut found = BTreeMap::new();
        let travellers = [(collect::ADDRESS, collect::PERSON), (road::ADDRESS, road::PERSON)]
            .map(|(address, name)| (address, big.person(name).ok().flatten()));
        for (id, (people, content)) in &filed {
            let message = self.ledger.inbound.get(content);
            // Mail for who travels is theirs alone, and they have no other.
            for (address, person) in travellers {
                let Some(message) = message else { continue };
                let is_theirs = message.to == address;
                if people.iter().any(|holder| (Some(*holder) == person) != is_theirs) {
                    let what = format!("{} for {} is filed for somebody else", named(id), message.to);
                    outcome.fault(|outcome| &mut outcome.ghost, what);
                }
            }
            match message {
                None => outcome.fault(|outcome| &mut outcome.ghost, format!("{} was never sent", named(id))),
                Some(message) if message.answered.is_some_and(|answered| answered != *id) => {
                    outcome.fault(|outcome| &mut outcome.doubled, format!("{id:?} under another id"));
                }
                Some(_) => {}
            }
            *found.entry(content).or_insert(0) += people.len();
        }
        for (content, message) in &self.ledger.inbound {
            let count = found.get(content).copied().unwrap_or(0);
            if count > 1 {
                outcome.fault(
                    |outcome| &mut outcome.doubled,
                    format!("{:?} is filed {count} times", message.answered.as_ref().map(named)),
                );
            }
            let is_gone = message.answered.is_some_and(|id| gone.iter().any(|(_, gone)| *gone == id));
            // A peer that lied may have said that it stood further back than it did.
            if is_gone && count > 0 && !self.edge_went_back && !self.lied {
                let what = format!("{:?} was said to be gone", message.answered.as_ref().map(named));
                outcome.fault(|outcome| &mut outcome.altered, what);
            }
            let is_erased = message.answered.is_some_and(|id| Fate::of(&self.ledger, &id).may_be_erased());
            if count == 0 && message.answered.is_some() && !message.excused && !is_gone && !is_erased {
                outcome.fault(
                    |outcome| &mut outcome.lost,
                    format!("{:?} is not filed", message.answered.as_ref().map(named)),
                );
            }
        }
        for out in self.ledger.outbound.values() {
            // Where a redirect led that a restored big has forgotten nobody knows: its author is told.
            let is_astray = out.redirects.iter().any(|redirect| redirect.undone);
            let is_due = out.answered.is_some() && !out.excused && !out.may_be_withdrawn() && !is_astray;
            if is_due && out.delivered == 0 {
                outcome.fault(
                    |outcome| &mut outcome.lost,
                    format!("{:?} did not get out", out.answered.as_ref().map(named)),
                );
            }
            if out.delivered > 1 + out.excusable {
                let what = format!("{:?} got out {} times", out.answered.as_ref().map(named), out.delivered);
                outcome.fault(|outcome| &mut outcome.doubled, what);
            }
            let knowable = !out.excused && !out.unknowable && !facts_gone;
            let Some(id) = out.answered.filter(|_| knowable) else { continue };
            if !self.lied && !self.went_back {
                redirect::audit(out, id, big, outcome);
            }
            match big.state_of(id) {
                Ok(Some(DeliveryState::Relayed)) => {}
                Ok(Some(DeliveryState::Failed)) if is_astray => {}
                // Both went back, or big without being told again, and nobody knows that it was withdrawn: its author is
                // told that it may have left.
                Ok(Some(DeliveryState::Failed))
                    if (self.edge_went_back || self.went_back)
                        && self.ledger.big_went_back
                        && out.delivered == 0
                        && out.may_be_withdrawn() => {}
                // Big may have forgotten that it had gone on to another address.
                Ok(Some(DeliveryState::Withdrawn))
                    if (out.delivered <= out.excusable
                        || out.redirects.iter().any(|redirect| redirect.reopened))
                        && out.may_be_withdrawn() => {}
                other => outcome
                    .fault(|outcome| &mut outcome.lost, format!("{}: its outcome is {other:?}", named(&id))),
            }
        }
        // Who resets lanes gives up what was on them.
        if !self.lied && !self.went_back {
            let window = self.standing.map(|(window, _)| window).unwrap_or_default();
            let copies = edge.copies(&window).unwrap_or_default();
            for (id, revision) in &copies {
                let content = filed.get(id).map(|(_, content)| content.as_slice());
                if collect::is_anothers(&self.ledger, id, content) {
                    let what = format!("{} as {revision} is in the window of {}", named(id), collect::PERSON);
                    outcome.fault(|outcome| &mut outcome.ghost, what);
                }
            }
            audit_revisions(&self.ledger, (big, &copies), facts_gone, outcome);
            if !facts_gone {
                collect::audit(&self.ledger, (big, &copies), &gone, self.jumped, outcome);
            }
        }
        for id in [&self.ledger.inward, &self.ledger.outward].into_iter().flat_map(Order::late) {
            let what = format!("{} came out of its order", named(&id));
            outcome.fault(|outcome| &mut outcome.out_of_order, what);
        }
        let mut at_edge = edge.addresses().unwrap_or_default();
        at_edge.sort_unstable();
        if big.addresses().unwrap_or_default() != at_edge {
            outcome.fault(
                |outcome| &mut outcome.altered,
                "the edge's directory is another one than big's".into(),
            );
        }
        for dead in self.world.dead_letters() {
            // Big as it was put back by hand knows nothing of what it has sent since, and says so.
            let unknown = ["nobody we sent to", "not sent to the edge", "not a result that such a revision"];
            if self.went_back && unknown.iter().any(|unknown| dead.contains(unknown)) {
                continue;
            }
            if road::may_be_refused(self.jumped, &self.ledger.trips, &dead) {
                continue;
            }
            outcome.fault(|outcome| &mut outcome.lost, format!("a dead letter: {dead}"));
        }
    }
}

/// Whether every revision was decided, and bob has of each message what alice has made of it last: at home and on
/// the road, and once.
fn audit_revisions(
    ledger: &Ledger,
    (big, copies): (&Big, &[(Id, u32)]),
    facts_gone: bool,
    outcome: &mut Outcome,
) {
    match big.undecided() {
        // With the edge's facts their results may be gone, as an operator was told.
        Ok(open) if open.is_empty() || facts_gone => {}
        undecided => {
            outcome.fault(|outcome| &mut outcome.stuck, format!("revisions are not decided: {undecided:?}"));
        }
    }
    for message in ledger.inside.iter().filter(|message| !message.excused) {
        let (id, name) = (message.id, named(&message.id));
        let results = big.results(id, message.recipient).unwrap_or_default();
        let latest = results.last().copied();
        // From whom it was taken back, they are told nothing more.
        let decided = results.into_iter().rfind(|result| result.result != ReviseResult::Refused);
        let should = match decided {
            None => Some(0),
            Some(last) if last.result == ReviseResult::Withdrawn => None,
            Some(last) => Some(last.revision),
        };
        // With the edge's facts what was done on the road may be gone.
        if !facts_gone || Fate::of(ledger, &id).acts.is_empty() {
            collect::audit_message(ledger, (big, copies), id, should, outcome);
        }
        let known: Vec<u32> = message.revisions.iter().filter_map(|made| made.number).collect();
        let is_lost = !ledger.lost_revisions(&id).is_empty();
        if !is_lost && known.iter().max() > latest.map(|last| last.revision).as_ref() {
            outcome.fault(|outcome| &mut outcome.lost, format!("{name} was revised, and is not: {known:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::schedule;

    #[test]
    fn a_seed_plays_the_same_schedule_again() {
        let _alone = crate::alone();
        for seed in [1, 2, 3, 4, 5, 60_004] {
            let [once, again] = [0; 2].map(|_| schedule(seed, false));
            assert!(once.is_clean(), "{seed}: {once}");
            assert_eq!(once.fingerprint, again.fingerprint, "{seed}");
        }
        assert_ne!(schedule(1, false).fingerprint, schedule(2, false).fingerprint);
    }
}
