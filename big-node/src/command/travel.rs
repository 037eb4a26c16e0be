//! What is asked of travel windows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shared::id::unix_millis;

use super::{Commands, json};
use crate::error::Refused;
use crate::record::WindowRow;
use crate::request::{Request, Settings, Started};
use crate::travel::{self, NewWindow};

impl Commands {
    pub(super) async fn travel(&self, request: Request) -> Result<Value, Refused> {
        let node = &self.node;
        let answer = match request {
            Request::TravelStart { person, terms } => {
                let (key, password, credential) = travel::credentials();
                let (site, new) = (Arc::clone(&node.site), NewWindow { person, terms, key, credential });
                let started = node.store.commit(move |txn| travel::start(txn, &site, new, unix_millis()));
                let (row, backfilled) = started.await?.into_inner();
                json(self.started(&row, password, backfilled)?)
            }
            Request::TravelRotate { person, grace } => {
                let grace = Duration::from_secs(grace);
                let rotated =
                    node.store.commit(move |txn| travel::rotate(txn, &person, grace, unix_millis())).await?;
                let (row, password) = rotated.into_inner();
                json(self.started(&row, password, 0)?)
            }
            Request::TravelExtend { person, until } => {
                let extended =
                    node.store.commit(move |txn| travel::extend(txn, &person, until, unix_millis())).await?;
                json(travel::view(&node.store.read()?, &extended)?)
            }
            Request::TravelEnd { person, revoke } => {
                let ended =
                    node.store.commit(move |txn| travel::end(txn, &person, revoke, unix_millis())).await?;
                json(travel::view(&node.store.read()?, &ended)?)
            }
            Request::TravelList { person, all } => {
                let person = person.map(|name| self.person(&name)).transpose()?;
                json(travel::list(&node.store.read()?, person.as_ref(), all)?)
            }
            _ => Err(Refused::new("not about a travel window")),
        };
        node.queued();
        answer
    }

    /// What its person is shown, once.
    fn started(&self, row: &WindowRow, password: String, backfilled: usize) -> Result<Started, Refused> {
        let (snapshot, edge) = (self.node.store.read()?, &self.node.topology.edge);
        let person = crate::directory::by_id(&snapshot, &row.window.person)?
            .ok_or_else(|| Refused::new("that person was removed at this moment"))?;
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
