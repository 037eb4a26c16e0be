//! The directory as a whole, over a store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::address::Address;
use shared::store::sim::{Faults, SimDisk};
use shared::store::{Owner, Row, Rows, Store};

use super::entry::{Group, Kind, Pop3, Record};
use super::route::{PASSES_MAX, route_with_steps};
use super::*;
use crate::error::Refused;
use crate::gateway::queue::UnderWay;
use crate::mail::Site;
use crate::record::{Holder, NAMES, POLICY, PolicyRow, Takes};

pub const NOW: u64 = 1_800_000_000_000;

/// Two domains, one of them with letters beyond ASCII.
pub fn policy() -> Policy {
    Policy {
        domains: ["example.com", "bücher.example"].map(|domain| domain.parse().expect("a domain")).into(),
        postmaster: "alice".into(),
        catch_all: BTreeMap::new(),
        edge: "mx.example.com".into(),
        srs_key: srs::Key([3; 32]),
    }
}

/// `name` takes the unknown names of both.
fn everywhere(name: &str) -> BTreeMap<shared::address::Domain, String> {
    policy().domains.into_iter().map(|domain| (domain, name.to_owned())).collect()
}

/// A directory with people in it.
pub(crate) struct World {
    pub(crate) store: Store,
    site: Site,
}

impl World {
    fn empty() -> Self {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let (sealing, _) = shared::seal::PrivateKey::generate();
        let site = Site {
            policy: policy(),
            filing: shared::topology::AttachmentMode::BreakApart,
            sealing: shared::seal::Unwrapper::new(sealing),
            wrappers: shared::seal::Wrappers::default(),
            outbound_secret: [5; 32],
            dkim: crate::dkim::Signers::default(),
            content_bytes_max: 1_000_000,
            follow_up: true,
            reports: shared::topology::Reports::default(),
            under_way: UnderWay::default(),
        };
        Self { store, site }
    }

    /// The directory that cases.txt speaks of.
    pub(crate) fn new() -> Self {
        let world = Self::empty();
        for (name, display, aliases) in [
            ("alice", "Alice Liddell", &["sales@example.com"][..]),
            ("bob", "Bob Stone", &[]),
            ("ann", "Ann Lee", &["vip+alice@example.com"]),
            ("anna", "Anna Smith", &[]),
            ("leeson", "Ann Leeson", &[]),
            ("hatter", "Mad Hatter", &[]),
            ("josé", "José García", &[]),
        ] {
            world.person(name, display, aliases, &[], false);
        }
        world.person("away", "Walter Away", &[], &["walter@remote.example"], false);
        world.person("both", "Both Ways", &[], &["both@remote.example"], true);
        let carol = NewShadow {
            name: "carol".into(),
            target: "carol@remote.example".into(),
            display: "Carol Outside".into(),
            aliases: Vec::new(),
        };
        world.add(Record::Shadow(
            new_shadow(&world.store.read().expect("reads"), &world.site.policy, carol, NOW)
                .expect("a shadow"),
        ));
        world.group("team", "The Team", &["alice", "bob", "carol", "x@remote.example"]);
        world.group("all", "Everybody Here", &["team", "ann@example.com"]);
        world.group(
            "twice",
            "",
            &["team", "bob", "sales@example.com", "X@remote.example", "carol@remote.example"],
        );
        world.group("inner", "", &["ann"]);
        world.group("round", "", &["inner"]);
        world.group("empty", "", &[]);
        // No command makes a circle; a race of two might.
        world.spoil("inner", "round");
        for (owner, name, target) in [
            ("alice", "bobby", "bob"),
            ("alice", "mum", "mother@remote.example"),
            ("bob", "mum", "ann"),
            ("alice", "ann", "anna@example.com"),
            ("alice", "crew", "team"),
        ] {
            world.nickname(owner, name, target);
        }
        world.person("leaver", "", &[], &[], false);
        world.nickname("alice", "gone", "leaver");
        world.remove("leaver").expect("is removed");
        world
    }

    fn add(&self, record: Record) {
        self.try_add(record).expect("is new");
    }

    fn try_add(&self, record: Record) -> Result<(), Refused> {
        let writer = self.store.body_writer(record.key(), RECORD_KIND);
        let kept = writer.finish(record.encode()).expect("writes");
        self.store.commit_blocking(move |txn| add(txn, &record, Some(&kept))).map(drop)
    }

    fn person(&self, name: &str, display: &str, aliases: &[&str], forward: &[&str], keep_copy: bool) {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let new = NewPerson {
            name: name.into(),
            display: display.into(),
            aliases: owned(aliases),
            forward: owned(forward),
            keep_copy,
            ..NewPerson::default()
        };
        self.add(Record::Person(
            new_person(&self.store.read().expect("reads"), &self.site.policy, new, NOW).expect("a person"),
        ));
    }

    fn group(&self, name: &str, display: &str, members: &[&str]) {
        let members: Vec<String> = members.iter().map(ToString::to_string).collect();
        let new = NewGroup { name: name.into(), display: display.into(), ..NewGroup::default() };
        let rows = self.store.read().expect("reads");
        let mut group = new_group(&self.site.policy, &new, NOW).expect("a group");
        join(&rows, &self.site.policy, &mut group, &members).expect("its members are there");
        self.add(Record::Group(group));
    }

    fn nickname(&self, owner: &str, name: &str, target: &str) {
        let rows = self.store.read().expect("reads");
        let owner = by_name(&rows, owner).expect("is there");
        let new = new_nickname(&rows, &self.site.policy, &owner, name, target, NOW).expect("a nickname");
        self.add(Record::Nickname(new));
    }

    fn gateway(&self, name: &str, domain: &str) -> Result<(), Refused> {
        let reach = Reach { lmtp: vec!["10.0.0.5:24".into()], ..Reach::default() };
        let new = NewGateway { name: name.into(), reach, domains: vec![domain.into()], takes: Takes::Any };
        self.try_add(Record::Gateway(new_gateway(&self.store.read().expect("reads"), &new, NOW)?))
    }

    fn change_gateway(&self, name: &str, add: &[&str], remove: &[&str]) -> Result<(), Refused> {
        self.set_gateway(name, add, remove, None)
    }

    fn set_gateway(
        &self,
        name: &str,
        add: &[&str],
        remove: &[&str],
        takes: Option<Takes>,
    ) -> Result<(), Refused> {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let (rows, reach) = (self.store.read().expect("reads"), Reach::default());
        let change = GatewayChange {
            name: name.into(),
            reach,
            add_domains: owned(add),
            remove_domains: owned(remove),
            takes,
        };
        let old = known_gateway(&rows, name)?;
        let new = Record::Gateway(changed_gateway(&rows, &old, &change, NOW)?);
        let kept = self.store.body_writer(new.key(), RECORD_KIND).finish(new.encode()).expect("writes");
        self.store.commit_blocking(move |txn| replace(txn, &Record::Gateway(old), &new, &kept)).map(drop)
    }

    fn spoil(&self, name: &str, member: &str) {
        let rows = self.store.read().expect("reads");
        let Record::Group(mut group) = entry(&rows, Kind::Group, name).expect("is there") else {
            panic!("{name} is a group");
        };
        join(&rows, &self.site.policy, &mut group, &[member.into()]).expect("is there");
        assert!(nesting(&rows, &group).expect_err("a circle").to_string().contains("inner > round > inner"));
        self.replace(name, Kind::Group, Record::Group(Group { changed_at: NOW + 1, ..group }));
    }

    fn replace(&self, name: &str, kind: Kind, new: Record) {
        let old = entry(&self.store.read().expect("reads"), kind, name).expect("is there");
        let kept = self.store.body_writer(new.key(), RECORD_KIND).finish(new.encode()).expect("writes");
        let replaced = self.store.commit_blocking(move |txn| replace(txn, &old, &new, &kept));
        replaced.expect("is changed");
    }

    fn change(&self, change: PersonChange) -> Result<(), Refused> {
        let rows = self.store.read().expect("reads");
        let old = by_name(&rows, &change.name).expect("is there");
        let new = changed_person(&rows, &self.site.policy, &old, change, NOW)?;
        self.replace(&old.name, Kind::Person, Record::Person(new));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Refused> {
        let rows = self.store.read().expect("reads");
        let holder: Holder = rows.get(NAMES, name.as_bytes()).expect("reads").expect("is there");
        let record = entry(&rows, holder.kind, name).expect("is there");
        let policy = self.site.policy.clone();
        self.store.commit_blocking(move |txn| remove(txn, &policy, &record, NOW)).map(drop)
    }

    fn known(&self) -> Vec<(String, bool)> {
        let known = known(&self.store.read().expect("reads")).expect("reads");
        let mut known: Vec<_> =
            known.into_iter().map(|(address, person)| (address, person.is_some())).collect();
        known.sort();
        known
    }
}

/// What an explanation comes to, as a case writes it.
fn told(world: &World, who: &str, typed: &str) -> Result<[String; 3], String> {
    let rows = world.store.read().expect("reads");
    let person = (who != "-").then(|| by_name(&rows, who).expect("is there"));
    let explanation = explain(&rows, &world.site, person.as_ref(), typed, NOW).expect("explains");
    if let Some(reason) = explanation.refused {
        return Err(reason);
    }
    let word =
        |step: &explain::Step| serde_json::to_value(step.rule).expect("a word").as_str().map(str::to_owned);
    let rules = explanation.steps.iter().filter(|step| step.rule != explain::Rule::Filed);
    let to = explanation.recipients.iter().map(|recipient| match recipient.to.strip_prefix("the gateway ") {
        Some(gateway) => format!("{}/{gateway}", recipient.address),
        None => recipient.to.strip_prefix("the mailbox of ").unwrap_or(&recipient.address).to_owned(),
    });
    let to: Vec<_> = to.collect();
    let to = if to.is_empty() { "-".to_owned() } else { to.join(" ") };
    Ok([explanation.address.unwrap_or_default(), rules.filter_map(word).collect::<Vec<_>>().join(" "), to])
}

#[test]
fn addressing_goes_case_by_case_as_the_table_says() {
    let mut world = World::new();
    let (mut cases, mut wrong) = (0, Vec::new());
    for (number, line) in (1..).zip(include_str!("cases.txt").lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("@catch_all ") {
            world.site.policy.catch_all = everywhere(name);
            continue;
        }
        if let Some((name, domain)) = line.strip_prefix("@gateway ").and_then(|rest| rest.split_once(' ')) {
            world.gateway(name, domain).expect("a gateway");
            continue;
        }
        let fields: Vec<_> = line.split(';').map(str::trim).collect();
        let found = match fields[2] {
            // A reason may have semicolons of its own.
            "!" => {
                let expected = line.splitn(4, ';').nth(3).unwrap_or_default().trim();
                match told(&world, fields[0], fields[1]) {
                    Err(reason) if reason.contains(expected) => None,
                    found => Some(format!("{found:?}")),
                }
            }
            _ => {
                let found = told(&world, fields[0], fields[1]);
                (found.as_ref().map(|found| found.each_ref().map(String::as_str))
                    != Ok([fields[2], fields[3], fields[4]]))
                .then(|| format!("{found:?}"))
            }
        };
        wrong.extend(found.map(|found| format!("cases.txt:{number}: {line}\n  found {found}")));
        cases += 1;
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 60, "{cases}");
}

#[test]
fn names_and_addresses_are_one_namespace() {
    let world = World::new();
    let (policy, rows) = (&world.site.policy, world.store.read().expect("reads"));
    let shadow = |name: &str, aliases: &[&str]| NewShadow {
        name: name.into(),
        target: "x@remote.example".into(),
        display: String::new(),
        aliases: aliases.iter().map(ToString::to_string).collect(),
    };
    for (name, aliases, reason) in [
        ("alice", &[][..], "there is a person alice already"),
        ("team", &[], "there is a group team already"),
        ("new", &["sales@example.com"], "sales@example.com belongs to person alice"),
        ("sales", &[], "sales@example.com belongs to person alice"),
    ] {
        let shadow = new_shadow(&rows, policy, shadow(name, aliases), NOW).expect("by itself it is good");
        let refused = world.try_add(Record::Shadow(shadow)).expect_err("it is somebody else's");
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    for bad in ["x", "x@example.com", "alice", "\u{430}lice@example.com"] {
        let shadow = NewShadow { target: bad.into(), ..shadow("new", &[]) };
        assert!(new_shadow(&rows, policy, shadow, NOW).is_err(), "{bad} is not outside");
    }
}

#[test]
fn groups_do_not_contain_themselves_and_are_not_too_deep() {
    let world = World::empty();
    world.person("alice", "", &[], &[], false);
    world.group("g0", "", &["alice"]);
    for depth in 1..group::DEPTH_MAX {
        world.group(&format!("g{depth}"), "", &[&format!("g{}", depth - 1)]);
    }
    let rows = world.store.read().expect("reads");
    let add = |name: &str, member: &str| {
        let Record::Group(group) = entry(&rows, Kind::Group, name).expect("is there") else {
            panic!("a group")
        };
        let change = GroupChange { add_members: vec![member.into()], ..GroupChange::default() };
        changed_group(&rows, &world.site.policy, &group, change, NOW).map_err(|refused| refused.to_string())
    };
    let circle = add("g0", "g2").expect_err("a circle");
    assert!(circle.contains("g0 would contain itself: g0 > g2 > g1 > g0"), "{circle}");
    assert!(add("g0", "g0").is_err_and(|reason| reason.contains("itself")));
    assert!(add("g3", "g1").is_ok());
    assert!(add("g3", "nobody").is_err_and(|reason| reason.contains("nobody of that name")));
    let new = new_group(&world.site.policy, &NewGroup { name: "top".into(), ..NewGroup::default() }, NOW);
    let mut top = new.expect("a group");
    let deepest = format!("g{}", group::DEPTH_MAX - 1);
    join(&rows, &world.site.policy, &mut top, &[deepest]).expect("is there");
    assert!(nesting(&rows, &top).expect_err("too deep").to_string().contains("16 deep"));
}

fn letter() -> Letter {
    Letter { is_report: false, passes: 0, now: NOW }
}

fn routes(world: &World, letter: Letter, to: &str) -> Vec<String> {
    let rows = world.store.read().expect("reads");
    let routed = route(&rows, &world.site.policy, letter, [to]).expect("routes");
    let one = |routed: Routed| match routed.route {
        Route::Mailbox(person) => person.name,
        Route::Outside(_, address) => format!("{address} via {}", routed.via.unwrap_or_default()),
        Route::Nowhere(_, status) => status.to_owned(),
    };
    routed.into_iter().map(one).collect()
}

#[test]
fn each_way_to_a_recipient_is_known_and_who_is_named_is_called_so() {
    let world = World::new();
    let table = "name,members\nmid,alice x@remote.example\ntop,mid\n";
    assert_eq!(imported(&world, Kind::Group, table, false).expect("is read").added, 2);
    let to = ["alice@example.com", "mid@example.com", "top@example.com", "x@remote.example"];
    let rows = world.store.read().expect("reads");
    let routed = route(&rows, &world.site.policy, letter(), to).expect("routes");
    let ways = |routed: &Routed| {
        let also = routed.also.iter().map(|lead| (lead.written.clone(), lead.in_group));
        std::iter::once((routed.written().to_owned(), routed.in_group)).chain(also).collect::<Vec<_>>()
    };
    let [alice, mid, top, x] = to.map(ToOwned::to_owned);
    let expected = [
        vec![(alice, false), (mid.clone(), true), (top.clone(), true)],
        vec![(x, false), (top, true), (mid, true)],
    ];
    assert_eq!(routed.iter().map(ways).collect::<Vec<_>>(), expected);
}

#[test]
fn mail_that_comes_back_is_not_sent_round_for_ever() {
    let world = World::new();
    for (to, out, stays) in [
        ("away@example.com", "walter@remote.example via away@example.com", "away"),
        ("carol@example.com", "carol@remote.example via carol@example.com", "5.4.6"),
    ] {
        assert_eq!(routes(&world, letter(), to), [out]);
        assert_eq!(routes(&world, Letter { passes: PASSES_MAX, ..letter() }, to), [out]);
        assert_eq!(routes(&world, Letter { passes: PASSES_MAX + 1, ..letter() }, to), [stays]);
    }
}

#[test]
fn reports_come_home_to_the_sender_and_nothing_else_does() {
    let world = World::new();
    let policy = &world.site.policy;
    let (ours, carol): (_, Address) =
        (&policy.domains[0], "carol@remote.example".parse().expect("an address"));
    let message = shared::id::MessageId([9; 16]);
    let home = srs::wrap(&policy.srs_key, ours, &carol, message, NOW).expect("fits").to_string();
    let report = Letter { is_report: true, ..letter() };
    assert_eq!(routes(&world, report, &home), [format!("carol@remote.example via {home}")]);
    assert_eq!(routes(&world, letter(), &home), ["5.1.1"], "only a report");
    assert_eq!(routes(&world, report, &home.replace("carol", "dave")), ["5.1.1"], "only one that we made");
    assert_eq!(routes(&world, report, "srs0@example.com"), ["5.1.1"]);
    // Not even with a hash of ours to somebody here.
    let alice =
        srs::wrap(&policy.srs_key, ours, &"alice@example.com".parse().expect("an address"), message, NOW);
    assert_eq!(routes(&world, report, &alice.expect("fits").to_string()), ["5.1.1"]);
}

#[test]
fn a_group_larger_than_a_message_says_so_and_ends() {
    let world = World::empty();
    world.person("alice", "", &[], &[], false);
    let names: Vec<_> = (0..4).map(|number| format!("g{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let long = "x".repeat(40);
        let members: Vec<_> =
            (0..1000).map(|member| format!("{long}{number}-{member}@remote.example")).collect();
        world.group(name, "", &members.iter().map(String::as_str).collect::<Vec<_>>());
    }
    world.group("all", "", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let routed = routes(&world, letter(), "all@example.com");
    let (out, nowhere): (Vec<_>, Vec<_>) = routed.iter().partition(|to| to.contains("via all@example.com"));
    let octets: usize = out.iter().map(|to| to.split(' ').next().unwrap_or_default().len()).sum();
    assert!(octets <= shared::origin::RECIPIENTS_BYTES_MAX && out.len() > 1000, "{octets}");
    assert!(nowhere.len() + out.len() == 4000 && nowhere.iter().all(|to| *to == "5.5.3"));
}

#[test]
fn the_edge_is_told_what_takes_mail_and_into_whose_mailbox() {
    let world = World::empty();
    let knows =
        |address: &str| world.known().into_iter().find(|(known, _)| known == address).map(|(_, whose)| whose);
    let settled = Policy { catch_all: everywhere("rest"), ..policy() };
    world.store.commit_blocking(move |txn| settle(txn, &settled)).expect("commits");
    assert_eq!(knows("srs0@example.com"), Some(false));
    assert_eq!(knows("@example.com"), None, "nobody is called rest yet");
    world.person("rest", "", &["more@example.com"], &[], false);
    for address in ["@example.com", "@xn--bcher-kva.example", "rest@example.com", "more@example.com"] {
        assert_eq!(knows(address), Some(true), "{address}");
    }
    let change = || PersonChange { name: "rest".into(), ..PersonChange::default() };
    let forward = Some(vec!["r@remote.example".to_owned()]);
    world.change(PersonChange { forward, ..change() }).expect("is changed");
    assert_eq!((knows("@example.com"), knows("rest@example.com")), (Some(false), Some(false)), "it leaves");
    world.change(PersonChange { keep_copy: Some(true), ..change() }).expect("is changed");
    assert_eq!(knows("rest@example.com"), Some(true));
    let (add_aliases, remove_aliases) = (vec!["new@example.com".into()], vec!["more@example.com".into()]);
    world.change(PersonChange { add_aliases, remove_aliases, ..change() }).expect("is changed");
    assert_eq!((knows("new@example.com"), knows("more@example.com")), (Some(true), None));
    let own = vec!["rest@example.com".into()];
    assert!(world.change(PersonChange { remove_aliases: own, ..change() }).is_err(), "its own name stays");
    world.remove("rest").expect("is removed");
    assert_eq!(world.known().len(), 1, "{:?}", world.known());
    world.store.commit_blocking(|txn| settle(txn, &policy())).expect("commits");
}

#[test]
fn a_rebuild_finds_every_kind_and_only_its_latest_change() {
    let disk = Arc::new(SimDisk::new(Faults::default()));
    let before = {
        let world = World { store: Store::open(disk.clone()).expect("opens"), ..World::new() };
        world.person("alice", "Alice", &["old@example.com"], &[], false);
        world.person("bob", "Bob", &[], &[], false);
        let remove_aliases = vec!["old@example.com".to_owned()];
        let change = PersonChange { name: "alice".into(), pop3: Some(Pop3::No), ..PersonChange::default() };
        world.change(PersonChange { remove_aliases, ..change }).expect("is changed");
        // Bob took over what alice gave up; another bob was here before.
        let change = PersonChange { name: "bob".into(), ..PersonChange::default() };
        world
            .change(PersonChange { add_aliases: vec!["old@example.com".into()], ..change })
            .expect("is changed");
        let carol =
            NewShadow { name: "carol".into(), target: "c@remote.example".into(), ..NewShadow::default() };
        world.add(Record::Shadow(
            new_shadow(&world.store.read().expect("reads"), &world.site.policy, carol, NOW)
                .expect("a shadow"),
        ));
        world.group("team", "", &["alice", "carol", "x@remote.example"]);
        world.nickname("bob", "al", "alice");
        world.gateway("notes", "remote.example").expect("a gateway");
        // What notes took first, dovecot takes now.
        world.gateway("dovecot", "else.example").expect("a gateway");
        world
            .change_gateway("dovecot", &["remote.example", "example.com"], &["else.example"])
            .expect_err("is taken");
        world.change_gateway("dovecot", &["example.com"], &[]).expect("is changed");
        world.set_gateway("dovecot", &[], &[], Some(Takes::Listed)).expect("is changed");
        for address in ["listed@example.com", "was@example.com", "is@example.com"] {
            let listed = new_listed(&world.site.policy, "dovecot", address, NOW).expect("an address");
            world.add(Record::Listed(listed));
        }
        // Of two that had one address, the later has it.
        let was = known_listed(
            &world.store.read().expect("reads"),
            &world.site.policy,
            "dovecot",
            "was@example.com",
        );
        let (was, policy) = (Record::Listed(was.expect("is there")), world.site.policy.clone());
        world.store.commit_blocking(move |txn| remove(txn, &policy, &was, NOW)).expect("is removed");
        world
            .change(PersonChange {
                name: "bob".into(),
                add_aliases: vec!["was@example.com".into()],
                ..PersonChange::default()
            })
            .expect("is changed");
        world.change_gateway("notes", &["third.example"], &["remote.example"]).expect("is changed");
        world.change_gateway("dovecot", &["remote.example"], &["else.example"]).expect("is changed");
        let rows = world.store.read().expect("reads");
        (
            list(&rows).expect("reads"),
            shadows(&rows).expect("reads"),
            groups(&rows).expect("reads"),
            gateways(&rows).expect("reads"),
            world.known(),
        )
    };
    let restore_all = |txn: &mut shared::store::Txn<'_>, found: &shared::store::Recovered| {
        let record = Record::decode(&found.notes).expect("a record");
        Ok(restore(txn, &record)?.into_iter().try_for_each(|key| txn.release_body(key))?)
    };
    let name = |_: &shared::store::Lost| String::new();
    let (store, _) = shared::store::rebuild(disk, Owner::of_key(b"key"), restore_all, name, |_| Ok(()))
        .expect("is rebuilt");
    let world = World { store, ..World::new() };
    let rows = world.store.read().expect("reads");
    let after = (
        list(&rows).expect("reads"),
        shadows(&rows).expect("reads"),
        groups(&rows).expect("reads"),
        gateways(&rows).expect("reads"),
        world.known(),
    );
    assert_eq!(before, after);
    let taken = |domain| gateway::of_domain(&rows, domain).expect("reads");
    assert_eq!(taken("remote.example").as_deref(), Some("dovecot"));
    assert_eq!(taken("else.example"), None);
    let bob = by_name(&rows, "old@example.com").expect("is bob's");
    assert_eq!((bob.name.as_str(), nicknames(&rows, &bob).expect("reads").len()), ("bob", 1));
}

fn imported(world: &World, kind: Kind, table: &str, dry_run: bool) -> Result<Imported, Refused> {
    imported_as(world, &Rowed::Entries(kind), table, dry_run)
}

fn imported_as(world: &World, of: &Rowed, table: &str, dry_run: bool) -> Result<Imported, Refused> {
    let of = of.clone();
    let (policy, importing) = (Arc::new(world.site.policy.clone()), Arc::new(Importing::default()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("starts");
    let store = world.store.clone();
    let table = table.as_bytes().to_vec();
    let imports = async move {
        tokio::spawn(async move { import(&store, &policy, &importing, &of, &table, dry_run, NOW).await })
            .await
    };
    runtime.block_on(imports).expect("does not panic")
}

#[test]
fn an_import_is_all_or_nothing_and_names_every_bad_row() {
    let world = World::new();
    let before = world.known();
    let table = "name,display,aliases,pop3,forward,keep_copy,attachments,uid\r\n\
                 dora,\"Dora \"\"D\"\" Day\",dd@example.com,no,,,passthru,7\r\n\
                 alice,,,,,,,\r\n\
                 dora,,,,,,,\r\n\
                 emil,,dd@example.com,,,,,\r\n\
                 a b,,,,,,,\r\n\
                 fred,,,maybe,,,,\r\n\
                 gus,,,,x@example.com,,,\r\n\
                 \"multi\r\nline\",,,,,,,\r\n\
                 short,\r\n\
                 hugo,,h1@example.com; h2@example.com,passthru,h@remote.example i@remote.example,yes,,\r\n";
    let report = imported(&world, Kind::Person, table, false).expect("is read");
    let lines: Vec<_> = report.bad.iter().map(|bad| (bad.line, bad.reason.as_str())).collect();
    for ((line, reason), (at, part)) in lines.iter().zip([
        (3, "there is a person alice already"),
        (4, "line 2 has that name already"),
        (5, "dd@example.com belongs to person dora"),
        (6, "letters and digits"),
        (7, "no, yes or passthru"),
        (8, "is an address here"),
        (9, "letters and digits"),
        (11, "2 cells"),
    ]) {
        assert!(*line == at && reason.contains(part), "line {line}: {reason}, not line {at}: {part}");
    }
    assert_eq!((report.bad.len(), report.rows, report.added), (8, 10, 0));
    assert_eq!(world.known(), before, "nothing was changed");

    let good: String =
        table.lines().take(2).chain(table.lines().skip(11)).map(|line| format!("{line}\n")).collect();
    let tried = imported(&world, Kind::Person, &good, true).expect("is read");
    assert_eq!((tried.bad.len(), tried.rows, tried.added, tried.dry_run), (0, 2, 0, true));
    assert_eq!(world.known(), before);
    assert_eq!(imported(&world, Kind::Person, &good, false).expect("is read").added, 2);
    let rows = world.store.read().expect("reads");
    let hugo = by_name(&rows, "h2@example.com").expect("is there");
    assert_eq!((hugo.pop3, hugo.keep_copy, hugo.forward.len()), (Pop3::Passthru, true, 2));
    assert_eq!(by_name(&rows, "dora").expect("is there").display, "Dora \"D\" Day");

    for bad in ["", "nome\nx\n", "name,name\nx,y\n", "display\nx\n"] {
        assert!(imported(&world, Kind::Person, bad, false).is_err(), "{bad:?}");
    }
}

#[test]
fn an_account_is_one_persons() {
    let world = World::new();
    let set = |name: &str, uid: Option<u32>| {
        let (name, policy) = (name.to_owned(), policy());
        let rows = world.store.read().expect("reads");
        let old = by_name(&rows, &name)?;
        let change = PersonChange { name, uid: Some(uid), ..PersonChange::default() };
        let new = Record::Person(changed_person(&rows, &policy, &old, change, NOW)?);
        let kept = world.store.body_writer(new.key(), RECORD_KIND).finish(new.encode())?;
        world.store.commit_blocking(move |txn| replace(txn, &Record::Person(old), &new, &kept)).map(drop)
    };
    let whose = |uid| {
        let rows = world.store.read().expect("reads");
        of_account(&rows, uid).expect("reads").map(|person| person.name)
    };
    set("alice", Some(7)).expect("it is free");
    set("alice", Some(7)).expect("it is hers");
    let taken = set("bob", Some(7)).expect_err("it is hers").to_string();
    assert_eq!(
        taken,
        "account 7 is alice's, and one account is one person's; `person set alice --account none` first"
    );
    for nobodys in [65_534, u32::MAX] {
        assert!(set("bob", Some(nobodys)).is_err());
    }
    assert_eq!((whose(7).as_deref(), whose(8)), (Some("alice"), None));
    set("alice", Some(8)).expect("it is free");
    set("bob", Some(7)).expect("it is free again");
    assert_eq!((whose(7).as_deref(), whose(8).as_deref()), (Some("bob"), Some("alice")));
    set("bob", None).expect("he needs none");
    assert_eq!(whose(7), None);
    let report =
        imported(&world, Kind::Person, "name,uid\ndora,8\nemil,9\nfred,9\n", false).expect("is read");
    let lines: Vec<_> =
        report.bad.iter().map(|bad| (bad.line, bad.reason.contains("one person's"))).collect();
    assert_eq!(lines, [(2, true), (4, true)]);
}

#[test]
fn groups_are_imported_in_any_order_and_circles_are_named() {
    let world = World::new();
    let table = "name,members\ntop,mid carol\nmid,alice; low x@remote.example\nlow,bob@example.com\n";
    assert_eq!(imported(&world, Kind::Group, table, false).expect("is read").added, 3);
    let names = "alice bob x@remote.example via top@example.com carol@remote.example via top@example.com";
    assert_eq!(routes(&world, letter(), "top@example.com").join(" "), names);
    let table = "name,members\na,b\nb,c alice\nc,a\nd,nobody\ne,alice\n";
    let report = imported(&world, Kind::Group, table, false).expect("is read");
    let bad: Vec<_> =
        report.bad.iter().map(|bad| (bad.line, bad.reason.contains("would contain itself"))).collect();
    assert_eq!(bad, [(2, true), (3, true), (4, true), (5, false)]);
    assert!(report.bad[0].reason.contains("a > b > c > a"), "{}", report.bad[0].reason);
}

#[test]
fn what_is_exported_can_be_imported() {
    let (world, other) = (World::new(), World::empty());
    for kind in [Kind::Person, Kind::Shadow, Kind::Group] {
        let mut table = String::from_utf8(export(&world.store.read().expect("reads"), kind).expect("writes"))
            .expect("UTF-8");
        if kind == Kind::Group {
            // The circle in this directory was made by force.
            table = table.replace("inner,inner,ann round,", "inner,inner,ann,");
        }
        let report = imported(&other, kind, &table, false).expect("is read");
        assert_eq!((report.bad, report.rows), (Vec::new(), report.added), "{table}");
        let again = export(&other.store.read().expect("reads"), kind).expect("writes");
        assert_eq!(String::from_utf8(again).expect("UTF-8"), table);
    }
}

#[test]
fn steps_name_how_mail_is_filed() {
    let world = World::new();
    world
        .change(PersonChange { name: "bob".into(), pop3: Some(Pop3::Passthru), ..PersonChange::default() })
        .expect("is changed");
    let rows = world.store.read().expect("reads");
    let explanation = explain(&rows, &world.site, None, "bob", NOW).expect("explains");
    assert!(
        explanation.steps.iter().any(|step| step.what.contains("whole (pop3 = passthru)")),
        "{explanation:?}"
    );
    assert_eq!(explanation.rcpt, Some(250));
    let nobody = explain(&rows, &world.site, None, "nobody@example.com", NOW).expect("explains");
    assert_eq!((nobody.rcpt, nobody.recipients[0].failed, nobody.refused.is_some()), (Some(550), true, true));
    let (routed, _) = route_with_steps(
        &rows,
        &world.site.policy,
        letter(),
        &"x@remote.example".parse().expect("an address"),
        None,
    )
    .expect("routes");
    assert_eq!(routed.len(), 1);
}

#[test]
fn the_edge_knows_a_domain_of_ours_whose_rest_a_gateway_takes() {
    let world = World::empty();
    world.person("hatter", "", &[], &[], false);
    let row = PolicyRow {
        domains: vec!["example.com".into(), "xn--bcher-kva.example".into()],
        catch_all: ["example.com", "xn--bcher-kva.example"]
            .map(|of| (of.to_owned(), "hatter".to_owned()))
            .into(),
    };
    let set = world.store.commit_blocking(move |txn| txn.put(POLICY, b"site", &row));
    set.expect("commits");
    let rest = || {
        let known = world.known().into_iter();
        known.filter(|(address, _)| address.starts_with('@')).collect::<Vec<_>>()
    };
    let of = |ours: bool, theirs: bool| {
        vec![("@example.com".to_owned(), ours), ("@xn--bcher-kva.example".to_owned(), theirs)]
    };
    assert_eq!(rest(), of(true, true));
    world.gateway("rest", "B\u{fc}cher.example").expect("a gateway");
    assert_eq!(rest(), of(true, false), "whose mail it is, the edge cannot say");
    world.gateway("far", "remote.example").expect("a gateway");
    let user = "user@xn--bcher-kva.example";
    world.group("mixed", "", &["hatter", user]);
    assert_eq!(
        routes(&world, letter(), "mixed@example.com"),
        ["hatter".to_owned(), format!("{user} via mixed@example.com")]
    );
    assert_eq!(rest(), of(true, false), "the edge takes mail for our domains only");

    for (name, domain, reason) in [
        ("other", "b\u{fc}cher.example", "taken by the gateway rest"),
        ("rest", "else.example", "there is a gateway rest already"),
        ("smtp", "else.example", "by the edge"),
        ("a b", "else.example", "letters and digits"),
        ("other", "no domain", "no domain"),
    ] {
        let refused = world.gateway(name, domain).expect_err("is refused").to_string();
        assert!(refused.contains(reason), "{name} {domain}: {refused}");
    }

    world.change_gateway("rest", &["example.com"], &["b\u{fc}cher.example"]).expect("is changed");
    assert_eq!(rest(), of(false, true));
    let new = Record::Gateway(known_gateway(&world.store.read().expect("reads"), "rest").expect("is there"));
    let policy = world.site.policy.clone();
    world.store.commit_blocking(move |txn| remove(txn, &policy, &new, NOW)).expect("is removed");
    assert_eq!(rest(), of(true, true));
    let everybody = routes(&world, letter(), "mixed@example.com");
    assert_eq!(everybody, ["hatter", "5.1.1"], "and what it had is not sent round by the edge");
}

#[test]
fn of_two_nicknames_at_once_the_second_is_refused() {
    let world = World::new();
    let rows = world.store.read().expect("reads");
    let bob = by_name(&rows, "bob").expect("is there");
    // Both are judged by what there was before either.
    let new = |target| new_nickname(&rows, &world.site.policy, &bob, "pal", target, NOW).expect("is free");
    let (first, second) = (new("ann"), new("anna"));
    world.add(Record::Nickname(first.clone()));
    let refused = world.try_add(Record::Nickname(second)).expect_err("it would take the first one's place");
    assert!(refused.to_string().contains("has a nickname pal already"), "{refused}");
    let rows = world.store.read().expect("reads");
    assert_eq!(known_nickname(&rows, &bob, "pal").expect("is there"), first);

    let late = new_nickname(&rows, &world.site.policy, &bob, "late", "ann", NOW).expect("a nickname");
    world.remove("bob").expect("is removed");
    let refused = world.try_add(Record::Nickname(late)).expect_err("nobody would ever remove it");
    assert!(refused.to_string().contains("not here any more"), "{refused}");
}

#[test]
fn each_domain_may_have_a_catch_all_of_its_own() {
    let mut world = World::empty();
    world.person("rest", "", &[], &[], false);
    world.person("other", "", &[], &["o@remote.example"], false);
    let domains = policy().domains;
    world.site.policy.catch_all = BTreeMap::from([(domains[0].clone(), "rest".to_owned())]);
    let settled = world.site.policy.clone();
    world.store.commit_blocking(move |txn| settle(txn, &settled)).expect("commits");
    let all =
        |world: &World| world.known().into_iter().filter(|(of, _)| of.starts_with('@')).collect::<Vec<_>>();
    let (first, second) = ("@example.com".to_owned(), "@xn--bcher-kva.example".to_owned());
    assert_eq!(all(&world), [(first.clone(), true)]);
    assert_eq!(routes(&world, letter(), "nobody@example.com"), ["rest"]);
    assert_eq!(routes(&world, letter(), "nobody@xn--bcher-kva.example"), ["5.1.1"]);

    world.site.policy.catch_all.insert(domains[1].clone(), "other".into());
    let settled = world.site.policy.clone();
    world.store.commit_blocking(move |txn| settle(txn, &settled)).expect("commits");
    assert_eq!(all(&world), [(first, true), (second, false)], "what leaves is in no mailbox");
    let routed = routes(&world, letter(), "nobody@xn--bcher-kva.example");
    assert_eq!(routed, ["o@remote.example via nobody@xn--bcher-kva.example"]);
    assert_eq!(routes(&world, letter(), "nobody@example.com"), ["rest"]);
}

#[test]
fn mail_goes_on_to_what_a_gateway_has_of_our_domains_and_never_round() {
    let world = World::empty();
    let shadow = |name: &str, target: &str, aliases: &[&str]| {
        let aliases = aliases.iter().map(ToString::to_string).collect();
        let new = NewShadow { name: name.into(), target: target.into(), aliases, ..NewShadow::default() };
        new_shadow(&world.store.read().expect("reads"), &world.site.policy, new, NOW)
    };
    let theirs = |name: &str| format!("{name}@xn--bcher-kva.example");
    for name in ["alice", "bob", "carol"] {
        world.person(name, "", &[], &[], false);
    }
    let forward = |name: &str, to: &str| {
        let change =
            PersonChange { name: name.into(), forward: Some(vec![to.into()]), ..PersonChange::default() };
        world.change(change)
    };
    assert!(forward("alice", &theirs("old")).is_err(), "nobody has it");
    world.gateway("notes", "b\u{fc}cher.example").expect("a gateway");
    for taken in [theirs("bob"), theirs("bob+tag"), theirs("postmaster"), "bob@example.com".into()] {
        let refused = forward("alice", &taken).expect_err("it may lead back").to_string();
        assert!(refused.contains("that a gateway takes"), "{refused}");
        assert!(shadow("new", &taken, &[]).is_err(), "{taken}");
    }

    forward("alice", &theirs("b")).expect("the gateway has it");
    world.add(Record::Shadow(shadow("old", &theirs("s"), &[]).expect("the gateway has it")));
    let to = |address: &str| routes(&world, letter(), address);
    let via = |to: &str, written: &str| format!("{to} via {written}@example.com");
    assert_eq!(to("alice@example.com"), [via(&theirs("b"), "alice")]);
    assert_eq!(to("old@example.com"), [via(&theirs("s"), "old")]);
    let far = Letter { passes: PASSES_MAX + 1, ..letter() };
    assert_eq!(routes(&world, far, "alice@example.com"), ["alice"], "it came back by the edge");

    // What the gateway had becomes somebody's here, and that one's mail goes on to alice.
    forward("bob", &theirs("a")).expect("the gateway has it");
    let alias = |name: &str, alias: &str| PersonChange {
        name: name.into(),
        add_aliases: vec![theirs(alias)],
        ..PersonChange::default()
    };
    world.change(alias("bob", "b")).expect("is changed");
    assert_eq!(to("alice@example.com"), [via(&theirs("a"), "alice")], "by way of bob");
    world.change(alias("alice", "a")).expect("is changed");
    assert_eq!(to("alice@example.com"), ["bob"], "who keeps what would go round");
    assert_eq!(to("bob@example.com"), ["alice"]);
    let next = shadow("next", &theirs("t"), &[&theirs("s")]).expect("the gateway has it");
    world.add(Record::Shadow(next));
    world.add(Record::Shadow(shadow("third", &theirs("u"), &[&theirs("t")]).expect("the gateway has it")));
    let carols = alias("carol", "u");
    world.change(carols).expect("is changed");
    assert_eq!(to("old@example.com"), ["carol"], "through two more");

    let notes =
        Record::Gateway(known_gateway(&world.store.read().expect("reads"), "notes").expect("is there"));
    let policy = world.site.policy.clone();
    forward("carol", &theirs("gone")).expect("the gateway has it");
    world.store.commit_blocking(move |txn| remove(txn, &policy, &notes, NOW)).expect("is removed");
    assert_eq!(to("carol@example.com"), ["carol"], "nobody has it now: it stays");
}

#[test]
fn a_gateway_with_a_list_takes_what_is_listed_and_nobody_has_the_rest() {
    let mut world = World::empty();
    world.person("alice", "", &[], &[], false);
    let settled = policy();
    world.store.commit_blocking(move |txn| settle(txn, &settled)).expect("commits");
    let theirs = |name: &str| format!("{name}@xn--bcher-kva.example");
    let list = |world: &World, gateway: &str, address: &str| {
        let listed = new_listed(&world.site.policy, gateway, address, NOW)?;
        world.try_add(Record::Listed(listed))
    };
    assert!(list(&world, "notes", &theirs("old")).is_err(), "there is no such gateway");
    world.gateway("notes", "b\u{fc}cher.example").expect("a gateway");
    let out = |name: &str| format!("{} via ", theirs(name));
    assert_eq!(routes(&world, letter(), &theirs("anybody")), [out("anybody")]);
    // The list may be made before it counts.
    list(&world, "Notes", "Old@B\u{fc}cher.example").expect("is listed");
    let set = |world: &World, takes| world.set_gateway("notes", &[], &[], Some(takes));
    set(&world, Takes::Listed).expect("is changed");

    let rest = |world: &World| world.known().into_iter().filter(|(known, _)| known.starts_with('@')).count();
    let knows = |world: &World, address: &str| world.known().iter().any(|(known, _)| known == address);
    assert_eq!((rest(&world), knows(&world, &theirs("old"))), (0, true));
    for (address, to) in [
        (theirs("old"), out("old")),
        (theirs("old+tag"), out("old+tag")),
        (theirs("anybody"), "5.1.1".into()),
        (theirs("postmaster"), "alice".into()),
        (theirs("abuse"), "alice".into()),
        (theirs("alice"), "alice".into()),
    ] {
        assert_eq!(routes(&world, letter(), &address), [to], "{address}");
    }
    world.site.policy.catch_all = everywhere("alice");
    assert_eq!(routes(&world, letter(), &theirs("anybody")), ["alice"], "behind the list, as everywhere");

    for (address, reason) in [
        (theirs("old"), "is listed for the gateway notes"),
        (theirs("alice"), "belongs to person alice"),
        (theirs("abuse"), "a role"),
        ("x@example.com".into(), "does not take the domain"),
        ("x@remote.example".into(), "not in a domain of this site"),
    ] {
        let refused = list(&world, "notes", &address).expect_err("is refused").to_string();
        assert!(refused.contains(reason), "{address}: {refused}");
    }
    let new = NewPerson { name: "old".into(), ..NewPerson::default() };
    let old =
        new_person(&world.store.read().expect("reads"), &world.site.policy, new, NOW).expect("a person");
    let refused = world.try_add(Record::Person(old)).expect_err("the gateway has that name").to_string();
    assert!(refused.contains("`gateway recipient remove` it"), "{refused}");
    let refused =
        world.change_gateway("notes", &[], &["b\u{fc}cher.example"]).expect_err("it is in use").to_string();
    assert!(refused.contains("is listed for notes"), "{refused}");

    let drop = |world: &World, record: Record| {
        let policy = world.site.policy.clone();
        world.store.commit_blocking(move |txn| remove(txn, &policy, &record, NOW)).expect("is removed");
    };
    let one = known_listed(&world.store.read().expect("reads"), &world.site.policy, "notes", &theirs("old"));
    drop(&world, Record::Listed(one.expect("is there")));
    assert!(!knows(&world, &theirs("old")));
    list(&world, "notes", &theirs("old")).expect("is listed");
    list(&world, "notes", &theirs("older")).expect("is listed");
    let notes = known_gateway(&world.store.read().expect("reads"), "notes").expect("is there");
    drop(&world, Record::Gateway(notes));
    assert!(!knows(&world, &theirs("old")) && !knows(&world, &theirs("older")), "they went with it");
    assert!(listed(&world.store.read().expect("reads"), "notes").expect("reads").is_empty());
}

#[test]
fn thousands_of_recipients_are_imported_by_the_rules_of_every_import() {
    let world = World::empty();
    world.gateway("notes", "b\u{fc}cher.example").expect("a gateway");
    world.set_gateway("notes", &[], &[], Some(Takes::Listed)).expect("is changed");
    let importing = |table: &str, dry_run| {
        let of = Rowed::Recipients("notes".into());
        imported_as(&world, &of, table, dry_run)
    };
    let row = |number: u32| format!("user{number}@b\u{fc}cher.example\n");
    let table = format!("address\n{}", (0..5000).map(row).collect::<String>());
    let spoiled = format!("{table}user7@b\u{fc}cher.example\nx@example.com\nabuse@b\u{fc}cher.example\n");
    let bad = importing(&spoiled, false).expect("is read");
    let lines: Vec<_> = bad.bad.iter().map(|bad| bad.line).collect();
    assert_eq!((bad.added, lines), (0, vec![5002, 5003, 5004]), "{:?}", bad.bad);
    assert_eq!(importing(&table, true).expect("is read").added, 0);
    assert_eq!(importing(&table, false).expect("is read").added, 5000);
    assert_eq!(listed(&world.store.read().expect("reads"), "notes").expect("reads").len(), 5000);
    assert!(world.known().contains(&("user4999@xn--bcher-kva.example".to_owned(), false)));
    assert!(importing("name\nx\n", false).expect_err("another table").to_string().contains("address"));
}
