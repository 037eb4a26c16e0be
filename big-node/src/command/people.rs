//! What people ask for themselves, at the socket that is open to every account of this host: each by the account
//! that the kernel names, and each about what is theirs.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::control::{self, Peer};
use shared::store::Rows;

use super::{Commands, json};
use crate::directory;
use crate::error::Refused;
use crate::privacy;
use crate::record::{Person, Pop3};
use crate::request::{Asks, GatewayView, PersonView, Request, Shows};

impl Commands {
    /// Answers a request of a person, if a person may ask it and it is about what is theirs.
    pub async fn answer_person(
        &self,
        peer: Peer,
        request: Request,
        body: Vec<u8>,
    ) -> Result<(Value, Vec<u8>), control::Refused> {
        let answered = self.dispatch_person(peer, request, body).await;
        answered.map_err(|refused| control::Refused(refused.to_string()))
    }

    async fn dispatch_person(
        &self,
        peer: Peer,
        request: Request,
        body: Vec<u8>,
    ) -> Result<(Value, Vec<u8>), Refused> {
        let own = self.of_account(peer.uid)?;
        let shows = admitted(&self.node.store.read()?, &own, &request)?;
        let (answer, body) = self.dispatch(peer, Some(own.clone()), request, body).await?;
        Ok((shown(answer, shows, &own)?, body))
    }

    /// Whether an account is somebody's here.
    pub fn is_a_person(&self, peer: Peer) -> bool {
        self.of_account(peer.uid).is_ok()
    }

    /// The person whose account this is.
    pub(super) fn of_account(&self, uid: u32) -> Result<Person, Refused> {
        directory::of_account(&self.node.store.read()?, uid)?.ok_or_else(|| {
            Refused::new(format!(
                "account {uid} is nobody's here; whoever serves big-node says whose it is: `big-node person set \
                 NAME --account {uid}`, or names a person with --as"
            ))
        })
    }
}

/// Whether a person may ask this, and how the answer is shown to them.
fn admitted(rows: &impl Rows, own: &Person, request: &Request) -> Result<Shows, Refused> {
    match request.asks() {
        Asks::Everybody(shows) => Ok(shows),
        Asks::OwnOrAll => Ok(Shows::All),
        // Who somebody else is, or whether there is anybody of that name, is not said here.
        Asks::Own(person) => match person == own.name || is(rows, own, person) {
            true => Ok(request.shows()),
            false => Err(Refused::new(format!(
                "this account is that of {0}, and what is asked for is not {0}'s: leave --as out, or write {0}",
                own.name
            ))),
        },
        Asks::Operator => Err(Refused::new(
            "that is for whoever operates big-node: run the command as the account that serves it, or as root",
        )),
    }
}

/// Whose a request is, found out once for all that answers it: a moment later the name may be another one's. What a
/// person was admitted to is theirs, whatever they are called by now.
pub(super) fn whose(
    rows: &impl Rows,
    own: Option<&Person>,
    request: &Request,
) -> Result<Option<Person>, Refused> {
    match (request.asks(), own) {
        (Asks::Own(_) | Asks::OwnOrAll, Some(own)) => Ok(Some(own.clone())),
        (Asks::Own(name), None) => directory::by_name(rows, name).map(Some),
        (Asks::OwnOrAll, None) | (Asks::Everybody(_) | Asks::Operator, _) => Ok(None),
    }
}

fn is(rows: &impl Rows, own: &Person, name: &str) -> bool {
    directory::by_name(rows, name).is_ok_and(|person| person.id == own.id)
}

/// The answer without what is not for this person.
fn shown(answer: Value, shows: Shows, own: &Person) -> Result<Value, Refused> {
    match shows {
        Shows::All => Ok(answer),
        Shows::Sent => json(privacy::sent(read(answer)?, own)),
        Shows::Status => json(privacy::status(read(answer)?, own)),
        Shows::Explanation => json(privacy::explanation(read(answer)?, own)),
        Shows::Person => json(of_others(read(answer)?, own)),
        Shows::People => each(answer, |people: Vec<PersonView>| {
            people.into_iter().map(|person| of_others(person, own)).collect()
        }),
        Shows::Gateways => each(answer, |gateways: Vec<GatewayView>| {
            gateways
                .into_iter()
                .map(|gateway| GatewayView {
                    hosts: Vec::new(),
                    drop: None,
                    pickup: None,
                    listed: 0,
                    waiting: 0,
                    ..gateway
                })
                .collect()
        }),
    }
}

/// A person as the others know them: by name and addresses. Whose it is, the account says; a name may have come to be
/// another one's meanwhile.
fn of_others(person: PersonView, own: &Person) -> PersonView {
    if person.uid.is_some() && person.uid == own.uid {
        return person;
    }
    PersonView {
        filing: None,
        uid: None,
        pop3: Pop3::default(),
        forward: Vec::new(),
        keep_copy: false,
        travelling: false,
        ..person
    }
}

fn each<T: DeserializeOwned + Serialize>(
    answer: Value,
    change: impl FnOnce(Vec<T>) -> Vec<T>,
) -> Result<Value, Refused> {
    json(change(read(answer)?))
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Refused> {
    serde_json::from_value(answer).map_err(|error| Refused::new(error.to_string()))
}

#[cfg(test)]
mod tests {

    use shared::operator::{DeadCommand, LinkCommand};
    use shared::trace::Query;
    use shared::unit::ReviseMode;

    use super::*;
    use crate::directory::tests::World;
    use crate::record::Kind;
    use crate::request::{
        Algorithm, EntryRequest, GatewayChange, GroupChange, NewDkimKey, NewGateway, NewGroup, NewNickname,
        NewPerson, NewShadow, PersonChange, Reach, RecipientsRequest, Rowed, ShadowChange, Terms, Written,
    };

    /// What is about a person's own, asked about `person`.
    fn own(person: &str) -> Vec<Request> {
        let person = || person.to_owned();
        let id = || "01KAN0Q5WJ8J1V9Z8G8Q4T7RXE".to_owned();
        let nickname = |request| Request::Nickname { person: person(), request };
        let new = || NewNickname { name: "n".into(), target: "bob".into() };
        vec![
            nickname(EntryRequest::Add(new())),
            nickname(EntryRequest::Set(new())),
            nickname(EntryRequest::List),
            nickname(EntryRequest::Show { name: "n".into() }),
            nickname(EntryRequest::Remove { name: "n".into() }),
            Request::Explain { person: Some(person()), address: "bob".into() },
            Request::MailList { person: person(), folder: "in".into(), max: 1, before: None },
            Request::MailFolders { person: person() },
            Request::FolderAdd { person: person(), name: "x".into() },
            Request::FolderRename { person: person(), name: "x".into(), to: "y".into() },
            Request::FolderRemove { person: person(), name: "x".into() },
            Request::MailMove { person: person(), message: id(), folder: "saved".into() },
            Request::MailMark { person: person(), message: id(), read: true },
            Request::MailThread { person: person(), message: id() },
            Request::MailSearch { person: person(), words: "x".into(), folder: None, max: 1, before: None },
            Request::MailWatch { person: person(), seen: None },
            Request::MailRead { person: person(), message: id(), raw: true },
            Request::MailSend { person: person(), written: Written::default(), quote: false },
            Request::DraftSave { person: person(), draft: None, keep: vec![], written: Written::default() },
            Request::DraftShow { person: person(), draft: id() },
            Request::DraftSend { person: person(), draft: id() },
            Request::MailDelete { person: person(), message: id() },
            Request::MailStatus { person: person(), message: id() },
            Request::MailAmend {
                person: person(),
                message: id(),
                mode: ReviseMode::Withdraw,
                recipients: vec![],
                subject: None,
                reason: None,
                base: None,
                text_bytes: 0,
                attachments: vec![],
            },
            Request::MailHistory { person: person(), message: id() },
            Request::TravelStart { person: person(), terms: Terms::default() },
            Request::TravelExtend { person: person(), until: None },
            Request::TravelRotate { person: person(), grace: 0 },
            Request::TravelList { person: Some(person()), all: true },
            Request::TravelEnd { person: person(), revoke: false },
        ]
    }

    /// What every person may ask.
    fn everybodys() -> Vec<Request> {
        vec![
            Request::Whoami,
            Request::PersonList,
            Request::PersonShow { name: "bob".into() },
            Request::Shadow(EntryRequest::List),
            Request::Shadow(EntryRequest::Show { name: "carol".into() }),
            Request::Group(EntryRequest::List),
            Request::Group(EntryRequest::Show { name: "team".into() }),
            Request::Gateway(EntryRequest::List),
            Request::Gateway(EntryRequest::Show { name: "notes".into() }),
            Request::Explain { person: None, address: "bob".into() },
            Request::TravelList { person: None, all: true },
        ]
    }

    /// What no person may ask.
    fn operators() -> Vec<Request> {
        let name = || "bob".to_owned();
        let reach = Reach::default();
        vec![
            Request::Pair { ticket: String::new(), replace: true },
            Request::Backup,
            Request::DkimKeygen(NewDkimKey {
                domain: None,
                selector: name(),
                algorithm: Algorithm::Ed25519,
                signs_from: None,
            }),
            Request::DkimList,
            Request::Reports,
            Request::DkimRemove { domain: None, selector: name() },
            Request::PersonAdd(NewPerson::default()),
            Request::PersonSet(PersonChange { name: "alice".into(), ..PersonChange::default() }),
            Request::PersonRemove { name: name() },
            Request::Shadow(EntryRequest::Add(NewShadow::default())),
            Request::Shadow(EntryRequest::Set(ShadowChange::default())),
            Request::Shadow(EntryRequest::Remove { name: name() }),
            Request::Group(EntryRequest::Add(NewGroup::default())),
            Request::Group(EntryRequest::Set(GroupChange::default())),
            Request::Group(EntryRequest::Remove { name: name() }),
            Request::Gateway(EntryRequest::Add(NewGateway { name: name(), reach, ..NewGateway::default() })),
            Request::Gateway(EntryRequest::Set(GatewayChange::default())),
            Request::Gateway(EntryRequest::Remove { name: name() }),
            Request::GatewayRecipients { gateway: name(), request: RecipientsRequest::List },
            Request::Import { of: Rowed::Entries(Kind::Person), dry_run: true },
            Request::ImportProgress,
            Request::Export { kind: Kind::Person },
            Request::QueueList,
            Request::QueueRetry { message: name() },
            Request::QueueRedirect { message: name(), from: name(), to: name() },
            Request::QueueDead(DeadCommand::List),
            Request::Link(LinkCommand::Hold),
            Request::LinkStatus,
            Request::LinkVerify,
            Request::Trace(Query::Way(name())),
            Request::Trace(Query::Search { text: name(), before: None, max: 1 }),
        ]
    }

    #[test]
    fn a_person_is_admitted_to_what_is_theirs_and_to_nothing_else() {
        let world = World::new();
        let rows = world.store.read().expect("reads");
        let alice = directory::by_name(&rows, "alice").expect("she is there");
        for mine in ["alice", "ALICE", "alice@example.com"] {
            for request in own(mine) {
                let shows = admitted(&rows, &alice, &request).expect("it is hers");
                assert_eq!(shows, request.shows(), "{request:?}");
            }
        }
        for other in ["bob", "bob@example.com", "nobody", "carol", "", "\u{1b}[2J"] {
            for request in own(other) {
                let refused = admitted(&rows, &alice, &request).expect_err("it is not hers").to_string();
                assert!(refused.starts_with("this account is that of alice,"), "{request:?}: {refused}");
            }
        }
        for request in everybodys() {
            assert!(admitted(&rows, &alice, &request).is_ok(), "{request:?}");
        }
        for request in operators() {
            let refused = admitted(&rows, &alice, &request).expect_err("it is for operators").to_string();
            assert!(refused.starts_with("that is for whoever operates"), "{request:?}: {refused}");
        }
    }

    #[test]
    fn who_was_admitted_by_a_name_acts_as_nobody_else_when_it_is_anothers() {
        let world = World::new();
        let rows = world.store.read().expect("reads");
        let alice = directory::by_name(&rows, "alice").expect("she is there");
        let bob = directory::by_name(&rows, "bob").expect("he is there");
        // Bob was called alice when he was admitted, and by now that is what somebody else is called.
        let admitted_as = Person { name: "alice".into(), ..bob.clone() };
        for request in own("alice") {
            let found = whose(&rows, Some(&admitted_as), &request).expect("found out");
            assert_eq!(found.map(|person| person.id), Some(bob.id), "{request:?}");
            let found = whose(&rows, None, &request).expect("found out");
            assert_eq!(found.map(|person| person.id), Some(alice.id), "an operator says whose: {request:?}");
        }
        for request in everybodys().into_iter().chain(operators()) {
            let found = whose(&rows, Some(&bob), &request).expect("found out");
            let is_own = matches!(request, Request::TravelList { person: None, .. });
            assert_eq!(found.is_some(), is_own, "{request:?}");
            assert!(whose(&rows, None, &request).expect("found out").is_none(), "{request:?}");
        }
        let nobody = Request::MailFolders { person: "nobody".into() };
        assert!(whose(&rows, None, &nobody).is_err());
    }

    #[test]
    fn the_table_has_every_request() {
        let kinds = |requests: Vec<Request>| {
            let kind = |request: &Request| match serde_json::to_value(request).expect("JSON") {
                Value::String(kind) => kind,
                Value::Object(kind) => kind.keys().next().cloned().unwrap_or_default(),
                other => panic!("{other}"),
            };
            requests.iter().map(kind).collect::<Vec<_>>()
        };
        let mut found = [kinds(own("alice")), kinds(everybodys()), kinds(operators())].concat();
        found.sort();
        found.dedup();
        // An unknown variant is refused with the names of all there are.
        let known = serde_json::from_str::<Request>("\"none-such\"").expect_err("unknown").to_string();
        let mut known: Vec<_> = known.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        known.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn what_others_are_not_told() {
        let world = World::new();
        let rows = world.store.read().expect("reads");
        let alice = directory::by_name(&rows, "alice").expect("she is there");
        let alice = Person { uid: Some(7), ..alice };
        let view = |name: &str, uid: u32| PersonView {
            name: name.into(),
            display: name.into(),
            addresses: vec![format!("{name}@example.com")],
            filing: None,
            uid: Some(uid),
            pop3: Pop3::No,
            forward: vec!["phone@remote.example".into()],
            keep_copy: true,
            travelling: true,
        };
        let people = json([view("alice", 7), view("bob", 8)]).expect("JSON");
        let people: Vec<PersonView> =
            read(shown(people, Shows::People, &alice).expect("shown")).expect("people");
        let told: Vec<_> = people.iter().map(|p| (p.uid, p.forward.len(), p.travelling, p.pop3)).collect();
        assert_eq!(told, [(Some(7), 1, true, Pop3::No), (None, 0, false, Pop3::Yes)]);
        assert_eq!(people[1].addresses, ["bob@example.com"]);
        // Also of one who has got her name at this moment.
        for other in [view("bob", 8), view("alice", 8)] {
            let other = shown(json(other).expect("JSON"), Shows::Person, &alice).expect("shown");
            assert_eq!(read::<PersonView>(other).expect("a person").forward, [""; 0]);
        }
    }
}
