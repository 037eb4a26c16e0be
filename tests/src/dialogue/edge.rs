//! The edge that listens, with a person on the road for each dialogue.

use async_trait::async_trait;
use big_node::record::{AfterFetch, Folder, Scope};

use super::script::Message;
use super::{Maildrop, Peer, Served, Server};
use crate::wait::{SOON, Trouble, until};
use crate::wire::Wire;
use crate::world::{World, first};

/// What it has, beside what every server has.
const FEATURES: [&str; 2] = ["sallypost", "tls-1.3"];

/// A running pair.
pub struct Edge {
    world: World,
    people: u32,
}

impl Edge {
    /// The edge of a world.
    pub fn new(world: World) -> Self {
        Self { world, people: 0 }
    }

    /// The world, at the end.
    pub fn into_world(self) -> World {
        self.world
    }

    fn delays(&self) -> bool {
        self.world.nodes.topology.login_delay > 0
    }
}

#[async_trait(?Send)]
impl Server for Edge {
    fn has(&self, feature: &str) -> bool {
        FEATURES.contains(&feature) || (feature == "login-delay" && self.delays())
    }

    async fn maildrop(&mut self, _on: &str, messages: &[Message]) -> Result<Maildrop, Trouble> {
        self.people += 1;
        let name = format!("traveller{}", self.people);
        let (world, address) = (&self.world, self.world.address(&name));
        world.nodes.big.run(&["person", "add", &name]).await?;
        let rcpt = async || Ok((world.rcpt(&address).await? == 250).then_some(()));
        until("the edge knows the traveller", SOON, rcpt).await?;
        let desk = world.desk(&name);
        let trip = desk.travel(Scope::New, AfterFetch::Keep).await?;
        // That the edge has the window; a login would count.
        world.quiet().await?;
        let mut served = Vec::new();
        for message in messages {
            let id = world.receive(&[&address], &message.octets).await?;
            desk.filed(Folder::In, &id).await?;
            let mut whole = desk.raw(&id).await?;
            if !whole.ends_with(b"\r\n") {
                whole.extend_from_slice(b"\r\n");
            }
            let sent = message.octets.strip_suffix(b"\r\n").unwrap_or(&message.octets);
            let trace = whole.len().saturating_sub(sent.len() + 2);
            let content = whole.split_off(trace);
            served.push(Served { trace: whole, content });
        }
        Ok(Maildrop { user: trip.user, password: trip.password, address, messages: served })
    }

    async fn connect(&mut self, on: &str) -> Result<Box<dyn Peer>, Trouble> {
        let tls = on != "clear";
        let ready = self.world.nodes.edge_ready();
        let mut wire = Wire::connect(first(if tls { &ready.pop3s } else { &ready.pop3 })).await?;
        if tls {
            wire.start_tls().await?;
        }
        Ok(Box::new(wire))
    }
}
