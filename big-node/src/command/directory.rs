//! What is asked of the directory, answered.

use std::sync::Arc;

use serde_json::Value;
use shared::id::unix_millis;
use shared::store::{Row, Rows, Snapshot, StoreError, Stored, Txn};

use super::{Commands, LISTED_MAX, json, theirs};
use crate::directory::{self, Policy, RECORD_KIND};
use crate::error::Refused;
use crate::gateway::queue;
use crate::record::{Gateway, Group, Kind, Named, Nickname, OPEN_WINDOWS, Person, Record, Shadow, Transport};
use crate::request::{
    EntryRequest, GatewayChange, GatewayView, GroupView, NewGateway, NewNickname, NicknameView, PersonView,
    Progress, RecipientsRequest, Request, ShadowView,
};
use crate::sandbox;

impl Commands {
    /// What is asked of the directory; `whose` is the person whose nicknames it is about, or who would send.
    pub(super) async fn directory(
        &self,
        whose: Option<Person>,
        request: Request,
        body: Vec<u8>,
    ) -> Result<(Value, Vec<u8>), Refused> {
        let (node, policy) = (&self.node, &self.node.site.policy);
        let now = unix_millis();
        let answer = match request {
            Request::PersonAdd(new) => {
                let snapshot = node.store.read()?;
                let person = directory::new_person(&snapshot, policy, new, now)?;
                let view = person_view(&snapshot, &person)?;
                self.add(Record::Person(person)).await?;
                json(view)
            }
            Request::PersonSet(change) => {
                let Record::Person(person) = self
                    .change(Kind::Person, change.name.clone(), move |txn, policy, old| match old {
                        Record::Person(old) => {
                            directory::changed_person(txn, policy, old, change, now).map(Record::Person)
                        }
                        _ => Err(no_such()),
                    })
                    .await?
                else {
                    return Err(no_such());
                };
                json(person_view(&node.store.read()?, &person)?)
            }
            Request::PersonList => {
                let snapshot = node.store.read()?;
                let people = directory::list(&snapshot)?;
                json(
                    people
                        .iter()
                        .map(|person| person_view(&snapshot, person))
                        .collect::<Result<Vec<_>, _>>()?,
                )
            }
            Request::PersonShow { name } => {
                let snapshot = node.store.read()?;
                json(person_view(&snapshot, &directory::by_name(&snapshot, &name)?)?)
            }
            Request::PersonRemove { name } => {
                let snapshot = node.store.read()?;
                let view = person_view(&snapshot, &directory::by_name(&snapshot, &name)?)?;
                self.remove(Kind::Person, name).await?;
                json(view)
            }
            Request::Shadow(request) => json(self.shadow(request, now).await?),
            Request::Group(request) => json(self.group(request, now).await?),
            Request::Gateway(request) => json(self.gateway(request, now).await?),
            Request::Nickname { request, .. } => json(self.nickname(&theirs(whose)?, request, now).await?),
            Request::GatewayRecipients { gateway, request } => {
                json(self.recipients(&gateway, request, now).await?)
            }
            Request::Import { of, dry_run } => {
                let Ok(_running) = node.importing.running.try_lock() else {
                    return Err(Refused::new("an import is under way; try again when it is done"));
                };
                let policy = Arc::new(policy.clone());
                let imported =
                    directory::import(&node.store, &policy, &node.importing, &of, &body, dry_run, now)
                        .await?;
                node.queued();
                json(imported)
            }
            Request::ImportProgress => {
                let (done, total) = node.importing.progress();
                json(Progress { done, total })
            }
            Request::Export { kind } => {
                let table = tokio::task::block_in_place(|| directory::export(&node.store.read()?, kind))?;
                let lines = table.iter().filter(|byte| **byte == b'\n').count();
                return Ok((json(lines.saturating_sub(1))?, table));
            }
            Request::Explain { address, .. } => {
                json(directory::explain(&node.store.read()?, &node.site, whose.as_ref(), &address, now)?)
            }
            _ => return Err(Refused::new("not a request about the directory")),
        };
        Ok((answer?, Vec::new()))
    }

    /// Writes a record's bytes, which no commit names yet.
    fn write(&self, record: &Record) -> Result<Stored, StoreError> {
        self.node.store.body_writer(record.key(), RECORD_KIND).finish(record.encode())
    }

    async fn add(&self, record: Record) -> Result<(), Refused> {
        let kept = self.write(&record)?;
        self.node.store.commit(move |txn| directory::add(txn, &record, Some(&kept))).await?;
        self.node.queued();
        Ok(())
    }

    /// Changes an entry. Its record is written before the commit, so what it changes from is looked at
    /// again there.
    async fn change(
        &self,
        kind: Kind,
        name: String,
        change: impl FnOnce(&Snapshot, &Policy, &Record) -> Result<Record, Refused>,
    ) -> Result<Record, Refused> {
        let snapshot = self.node.store.read()?;
        let old = directory::entry(&snapshot, kind, &name)?;
        let new = change(&snapshot, &self.node.site.policy, &old)?;
        let (kept, entered) = (self.write(&new)?, new.clone());
        let changed = self.node.store.commit(move |txn| {
            if directory::entry(txn, kind, &name)? != old {
                return Err(Refused::new(format!("{name} was changed meanwhile; look, and try again")));
            }
            directory::replace(txn, &old, &entered, &kept)
        });
        changed.await?;
        self.node.queued();
        Ok(new)
    }

    async fn remove(&self, kind: Kind, name: String) -> Result<Record, Refused> {
        let site = Arc::clone(&self.node.site);
        let removed = self.node.store.commit(move |txn| {
            let record = directory::entry(txn, kind, &name)?;
            directory::remove(txn, &site.policy, &record, unix_millis())?;
            Ok::<_, Refused>(record)
        });
        let record = removed.await?.into_inner();
        self.node.queued();
        Ok(record)
    }

    async fn shadow(
        &self,
        request: EntryRequest<directory::NewShadow, directory::ShadowChange>,
        now: u64,
    ) -> Result<Vec<ShadowView>, Refused> {
        let policy = &self.node.site.policy;
        let record = match request {
            EntryRequest::List => {
                return Ok(directory::shadows(&self.node.store.read()?)?.iter().map(shadow_view).collect());
            }
            EntryRequest::Show { name } => directory::entry(&self.node.store.read()?, Kind::Shadow, &name)?,
            EntryRequest::Add(new) => {
                let record =
                    Record::Shadow(directory::new_shadow(&self.node.store.read()?, policy, new, now)?);
                self.add(record.clone()).await?;
                record
            }
            EntryRequest::Set(change) => {
                self.change(Kind::Shadow, change.name.clone(), move |rows, policy, old| match old {
                    Record::Shadow(old) => {
                        directory::changed_shadow(rows, policy, old, change, now).map(Record::Shadow)
                    }
                    _ => Err(no_such()),
                })
                .await?
            }
            EntryRequest::Remove { name } => self.remove(Kind::Shadow, name).await?,
        };
        match &record {
            Record::Shadow(shadow) => Ok(vec![shadow_view(shadow)]),
            _ => Err(no_such()),
        }
    }

    async fn group(
        &self,
        request: EntryRequest<directory::NewGroup, directory::GroupChange>,
        now: u64,
    ) -> Result<Vec<GroupView>, Refused> {
        let policy = &self.node.site.policy;
        let record = match request {
            EntryRequest::List => {
                let snapshot = self.node.store.read()?;
                let groups = directory::groups(&snapshot)?;
                return groups.iter().map(|group| group_view(&snapshot, group)).collect();
            }
            EntryRequest::Show { name } => directory::entry(&self.node.store.read()?, Kind::Group, &name)?,
            EntryRequest::Add(new) => {
                let mut group = directory::new_group(policy, &new, now)?;
                let snapshot = self.node.store.read()?;
                directory::join(&snapshot, policy, &mut group, &new.members)?;
                directory::nesting(&snapshot, &group)?;
                let record = Record::Group(group);
                self.add(record.clone()).await?;
                record
            }
            EntryRequest::Set(change) => {
                self.change(Kind::Group, change.name.clone(), move |rows, policy, old| match old {
                    Record::Group(old) => {
                        directory::changed_group(rows, policy, old, change, now).map(Record::Group)
                    }
                    _ => Err(no_such()),
                })
                .await?
            }
            EntryRequest::Remove { name } => {
                let snapshot = self.node.store.read()?;
                let record = self.remove(Kind::Group, name).await?;
                return match &record {
                    Record::Group(group) => Ok(vec![group_view(&snapshot, group)?]),
                    _ => Err(no_such()),
                };
            }
        };
        match &record {
            Record::Group(group) => Ok(vec![group_view(&self.node.store.read()?, group)?]),
            _ => Err(no_such()),
        }
    }

    async fn gateway(
        &self,
        request: EntryRequest<NewGateway, GatewayChange>,
        now: u64,
    ) -> Result<Vec<GatewayView>, Refused> {
        let (node, snapshot) = (&self.node, self.node.store.read()?);
        let gateway = match request {
            EntryRequest::List => {
                let gateways = directory::gateways(&snapshot)?;
                return gateways.iter().map(|gateway| self.gateway_view(&snapshot, gateway)).collect();
            }
            EntryRequest::Show { name } => directory::known_gateway(&snapshot, &name)?,
            EntryRequest::Add(new) => {
                let gateway = directory::new_gateway(&snapshot, &new, now)?;
                self.add(Record::Gateway(gateway.clone())).await?;
                gateway
            }
            EntryRequest::Set(change) => {
                let old = directory::known_gateway(&snapshot, &change.name)?;
                let new = directory::changed_gateway(&snapshot, &old, &change, now)?;
                let record = Record::Gateway(new.clone());
                let kept = self.write(&record)?;
                let changed = node.store.commit(move |txn| {
                    if directory::known_gateway(txn, &old.name)? != old {
                        let text = format!("{} was changed meanwhile; look, and try again", old.name);
                        return Err(Refused::new(text));
                    }
                    directory::replace(txn, &Record::Gateway(old), &record, &kept)
                });
                changed.await?;
                new
            }
            EntryRequest::Remove { name } => {
                let site = Arc::clone(&node.site);
                let removed = node.store.commit(move |txn| {
                    let gateway = directory::known_gateway(txn, &name)?;
                    directory::remove(txn, &site.policy, &Record::Gateway(gateway.clone()), now)?;
                    Ok::<_, Refused>(gateway)
                });
                removed.await?.into_inner()
            }
        };
        node.queued();
        Ok(vec![self.gateway_view(&snapshot, &gateway)?])
    }

    fn gateway_view(&self, rows: &impl Rows, gateway: &Gateway) -> Result<GatewayView, Refused> {
        let (drop, pickup) = match gateway.transport.clone() {
            Transport::Drop { folder, pickup } => (Some(folder), pickup),
            Transport::Lmtp(_) | Transport::Smtp(_) => (None, None),
        };
        Ok(GatewayView {
            name: gateway.name.clone(),
            kind: gateway.transport.as_str().into(),
            hosts: gateway.transport.hosts().to_vec(),
            drop,
            pickup,
            domains: gateway.domains.clone(),
            takes: gateway.takes,
            listed: directory::listed(rows, &gateway.name)?.len(),
            waiting: queue::waiting(rows, &gateway.name, LISTED_MAX)?,
            restart: !sandbox::reaches(&self.in_force, &gateway.transport),
        })
    }

    /// Everything that is asked for of a gateway's addresses, or nothing.
    async fn recipients(
        &self,
        gateway: &str,
        request: RecipientsRequest,
        now: u64,
    ) -> Result<Vec<String>, Refused> {
        let node = &self.node;
        let gateway = directory::known_gateway(&node.store.read()?, gateway)?.name;
        let addresses = match request {
            RecipientsRequest::List => {
                let listed = directory::listed(&node.store.read()?, &gateway)?;
                return Ok(listed.into_iter().map(|listed| listed.address).collect());
            }
            RecipientsRequest::Add { addresses } => {
                let record = |text: &String| {
                    let listed = directory::new_listed(&node.site.policy, &gateway, text, now)?;
                    let (address, record) = (listed.address.clone(), Record::Listed(listed));
                    Ok((address, self.write(&record)?, record))
                };
                let new = addresses.iter().map(record).collect::<Result<Vec<_>, Refused>>()?;
                let entered = node.store.commit(move |txn| {
                    new.iter().try_for_each(|(_, kept, record)| directory::add(txn, record, Some(kept)))?;
                    Ok::<_, Refused>(new.into_iter().map(|(address, ..)| address).collect::<Vec<_>>())
                });
                entered.await?.into_inner()
            }
            RecipientsRequest::Remove { addresses } => {
                let site = Arc::clone(&node.site);
                let removed = node.store.commit(move |txn| {
                    let gone = addresses.iter().map(|text| {
                        let listed = directory::known_listed(txn, &site.policy, &gateway, text)?;
                        let address = listed.address.clone();
                        directory::remove(txn, &site.policy, &Record::Listed(listed), now)?;
                        Ok(address)
                    });
                    gone.collect::<Result<Vec<_>, Refused>>()
                });
                removed.await?.into_inner()
            }
        };
        node.queued();
        Ok(addresses)
    }

    async fn nickname(
        &self,
        owner: &Person,
        request: EntryRequest<NewNickname, NewNickname>,
        now: u64,
    ) -> Result<Vec<NicknameView>, Refused> {
        let snapshot = self.node.store.read()?;
        let policy = &self.node.site.policy;
        let nickname = match request {
            EntryRequest::List => {
                let all = directory::nicknames(&snapshot, owner)?;
                return all.iter().map(|nickname| nickname_view(&snapshot, nickname)).collect();
            }
            EntryRequest::Show { name } => directory::known_nickname(&snapshot, owner, &name)?,
            EntryRequest::Add(new) => {
                let new = directory::new_nickname(&snapshot, policy, owner, &new.name, &new.target, now)?;
                self.add(Record::Nickname(new.clone())).await?;
                new
            }
            EntryRequest::Set(change) => {
                let old = directory::known_nickname(&snapshot, owner, &change.name)?;
                let new = directory::retargeted(&snapshot, policy, &old, &change.target, now)?;
                let record = Record::Nickname(new.clone());
                let (kept, owner) = (self.write(&record)?, owner.clone());
                let changed = self.node.store.commit(move |txn| {
                    if directory::known_nickname(txn, &owner, &old.name)? != old {
                        let text = format!("{} was changed meanwhile; look, and try again", old.name);
                        return Err(Refused::new(text));
                    }
                    directory::replace(txn, &Record::Nickname(old), &record, &kept)
                });
                changed.await?;
                new
            }
            EntryRequest::Remove { name } => {
                let (site, owner) = (Arc::clone(&self.node.site), owner.clone());
                let removed = self.node.store.commit(move |txn: &mut Txn<'_>| {
                    let nickname = directory::known_nickname(txn, &owner, &name)?;
                    directory::remove(txn, &site.policy, &Record::Nickname(nickname.clone()), now)?;
                    Ok::<_, Refused>(nickname)
                });
                removed.await?.into_inner()
            }
        };
        Ok(vec![nickname_view(&snapshot, &nickname)?])
    }
}

fn no_such() -> Refused {
    Refused::new("the directory gave an entry of another kind")
}

pub(super) fn person_view(rows: &impl Rows, person: &Person) -> Result<PersonView, Refused> {
    let travelling = rows.get::<Named>(OPEN_WINDOWS, &person.id)?.is_some();
    Ok(PersonView {
        name: person.name.clone(),
        display: person.display.clone(),
        addresses: person.addresses.clone(),
        filing: person.filing,
        uid: person.uid,
        pop3: person.pop3,
        forward: person.forward.clone(),
        keep_copy: person.keep_copy,
        travelling,
    })
}

fn shadow_view(shadow: &Shadow) -> ShadowView {
    ShadowView {
        name: shadow.name.clone(),
        target: shadow.target.clone(),
        display: shadow.display.clone(),
        addresses: shadow.addresses.clone(),
    }
}

fn group_view(rows: &impl Rows, group: &Group) -> Result<GroupView, Refused> {
    let members = group.members.iter().map(|member| directory::member_name(rows, member));
    Ok(GroupView {
        name: group.name.clone(),
        display: group.display.clone(),
        addresses: group.addresses.clone(),
        members: members.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect(),
    })
}

fn nickname_view(rows: &impl Rows, nickname: &Nickname) -> Result<NicknameView, Refused> {
    let target = directory::member_name(rows, &nickname.target)?;
    Ok(NicknameView { name: nickname.name.clone(), target })
}
