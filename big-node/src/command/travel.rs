//! What is asked of travel windows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shared::id::unix_millis;
use shared::store::Rows;
use shared::unit::Id;

use super::{Commands, json, theirs};
use crate::directory;
use crate::error::Refused;
use crate::record::{Person, WindowRow};
use crate::request::{Request, Settings, Started};
use crate::travel::{self, NewWindow};

impl Commands {
    /// What is asked of the windows of `whose`, or of everybody's.
    pub(super) async fn travel(&self, whose: Option<Person>, request: Request) -> Result<Value, Refused> {
        let node = &self.node;
        if let Request::TravelList { all, .. } = request {
            return json(travel::list(&node.store.read()?, whose.as_ref(), all)?);
        }
        let id = theirs(whose)?.id;
        let answer = match request {
            Request::TravelStart { terms, .. } => {
                let (key, password, credential) = travel::credentials(&node.site);
                let site = Arc::clone(&node.site);
                let started = node.store.commit(move |txn| {
                    let new = NewWindow { person: called(txn, &id)?, terms, key, credential };
                    travel::start(txn, &site, new, unix_millis())
                });
                let (row, backfilled) = started.await?.into_inner();
                json(self.started(&row, password, backfilled)?)
            }
            Request::TravelRotate { grace, .. } => {
                let grace = Duration::from_secs(grace);
                let rotated = node
                    .store
                    .commit(move |txn| travel::rotate(txn, &called(txn, &id)?, grace, unix_millis()));
                let (row, password) = rotated.await?.into_inner();
                json(self.started(&row, password, 0)?)
            }
            Request::TravelExtend { until, .. } => {
                let extended = node
                    .store
                    .commit(move |txn| travel::extend(txn, &called(txn, &id)?, until, unix_millis()));
                json(travel::view(&node.store.read()?, &extended.await?.into_inner())?)
            }
            Request::TravelEnd { revoke, .. } => {
                let ended =
                    node.store.commit(move |txn| travel::end(txn, &called(txn, &id)?, revoke, unix_millis()));
                json(travel::view(&node.store.read()?, &ended.await?.into_inner())?)
            }
            _ => Err(Refused::new("not about a travel window")),
        };
        node.queued();
        answer
    }

    /// What its person is shown, once.
    fn started(&self, row: &WindowRow, password: String, backfilled: usize) -> Result<Started, Refused> {
        let (snapshot, edge) = (self.node.store.read()?, &self.node.topology.edge);
        let person = directory::by_id(&snapshot, &row.window.person)?.ok_or_else(removed)?;
        Ok(Started {
            window: travel::view(&snapshot, row)?,
            user: person.name,
            password,
            backfilled,
            address: person.addresses.first().cloned().unwrap_or_default(),
            display: person.display,
            settings: Settings {
                host: edge.hostname.to_string(),
                pop3: places(&edge.pop3, edge.public.pop3),
                pop3s: places(&edge.pop3s, edge.public.pop3s),
                submission: places(&edge.submission, edge.public.submission),
                submissions: places(&edge.submissions, edge.public.submissions),
            },
        })
    }
}

/// What the person is called by now who was meant when the request came.
fn called(rows: &impl Rows, id: &Id) -> Result<String, Refused> {
    Ok(directory::by_id(rows, id)?.ok_or_else(removed)?.name)
}

fn removed() -> Refused {
    Refused::new("that person was removed at this moment")
}

/// Where a service is reached. Behind a port that is forwarded, the address it listens on says nothing to a client.
fn places(listeners: &[SocketAddr], forwarded: Option<u16>) -> Vec<String> {
    match forwarded {
        Some(port) => vec![format!(":{port}")],
        None => listeners.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_port_takes_the_place_of_those_that_are_listened_on() {
        let listeners = ["10.0.0.2:2995", "[fd00::2]:2995"].map(|text| text.parse().expect("an address"));
        assert_eq!(places(&listeners, None), ["10.0.0.2:2995", "[fd00::2]:2995"]);
        assert_eq!(places(&listeners, Some(995)), [":995"]);
        assert_eq!(places(&[], None), Vec::<String>::new());
    }
}
