//! The edge that listens for SMTP, with alice and bob inside, and a person on the road for each dialogue of submission.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use big_node::record::{AfterFetch, Folder, Scope};

use super::script::Message;
use super::{Maildrop, Peer, Protocol, Server};
use crate::wait::{SOON, Trouble, until};
use crate::wire::Wire;
use crate::world::{PEOPLE, World, first, without_trace};

/// What it has, beside what every server has.
const FEATURES: [&str; 3] = ["channel-binding", "sallypost", "submission"];

/// A running pair.
pub struct SmtpEdge {
    world: World,
    people: u32,
    /// Networks from which somebody has come: each dialogue has its own, for many send the same and go without a word.
    networks: u16,
    /// Messages inside that are not of the dialogue that runs.
    before: usize,
}

impl SmtpEdge {
    /// The edge of a world.
    pub fn new(world: World) -> Self {
        Self { world, people: 0, networks: 0, before: 0 }
    }

    /// The world, at the end.
    pub fn into_world(self) -> World {
        self.world
    }

    /// Who reads what has come inside, and under which id, oldest first.
    async fn inside(&self) -> Result<Vec<(&'static str, String)>, Trouble> {
        self.world.quiet().await?;
        let mut all = Vec::new();
        for person in PEOPLE {
            let lines = self.world.desk(person).messages(Folder::In).await?;
            all.extend(lines.into_iter().map(|line| (person, line.id)));
        }
        // Ids begin with the time.
        all.sort_by(|one, other| one.1.cmp(&other.1));
        Ok(all)
    }
}

#[async_trait(?Send)]
impl Server for SmtpEdge {
    fn protocol(&self) -> Protocol {
        Protocol::Smtp
    }

    fn has(&self, feature: &str) -> bool {
        let topology = &self.world.nodes.topology;
        match feature {
            "pause" => topology.greeting_pause > 0,
            "binary" => topology.binarymime,
            other => FEATURES.contains(&other),
        }
    }

    async fn maildrop(&mut self, on: &str, _messages: &[Message]) -> Result<Maildrop, Trouble> {
        self.before = self.inside().await?.len();
        if !on.starts_with("submission") {
            return Ok(Maildrop {
                user: String::new(),
                password: String::new(),
                address: String::new(),
                messages: Vec::new(),
            });
        }
        self.people += 1;
        let name = format!("traveller{}", self.people);
        let (world, address) = (&self.world, self.world.address(&name));
        world.nodes.big.run(&["person", "add", &name]).await?;
        let rcpt = async || Ok((world.rcpt(&address).await? == 250).then_some(()));
        until("the edge knows the traveller", SOON, rcpt).await?;
        let trip = world.desk(&name).travel(Scope::New, AfterFetch::Keep).await?;
        // That the edge has the window; a login would count.
        world.quiet().await?;
        Ok(Maildrop { user: trip.user, password: trip.password, address, messages: Vec::new() })
    }

    async fn connect(&mut self, on: &str) -> Result<Box<dyn Peer>, Trouble> {
        let ready = self.world.nodes.edge_ready();
        let address = first(match on {
            "" | "stranger" => &ready.smtp,
            "submission" => &ready.submission,
            "submissions" => &ready.submissions,
            other => return Err(format!("the edge has no service {other:?}").into()),
        });
        self.networks = self.networks.wrapping_add(1);
        let [high, low] = self.networks.to_be_bytes();
        let source = Ipv4Addr::new(127, 1 + high, low, 1);
        let mut wire = Wire::connect_from(source.into(), address).await?;
        if on == "submissions" {
            wire.start_tls().await?;
        }
        Ok(Box::new(wire))
    }

    async fn kept(&mut self) -> Result<Option<Vec<Vec<u8>>>, Trouble> {
        let mut kept = Vec::new();
        for (person, id) in self.inside().await?.into_iter().skip(self.before) {
            let whole = self.world.desk(person).raw(&id).await?;
            kept.push(without_trace(&whole).to_vec());
        }
        Ok(Some(kept))
    }
}
