//! A whole world for a test: both nodes, paired, with alice and bob inside and a small Internet outside.
//!
//! Every world has ports and a folder of its own, so tests run side by side. It ends when it is dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use big_node::request::{Compared, RecipientView};
use edge_node::request::{Queued, Request as EdgeRequest};
use shared::control::socket_in;
use shared::report::LinkView;
use shared::unit::DeliveryState;
use tempfile::TempDir;

use crate::ask::{self, is_confirmed};
use crate::client::pop3::Pop3Client;
use crate::client::smtp::{Reply, SmtpClient};
use crate::desk::{AtBig, Desk, Operator};
use crate::internet::Internet;
use crate::nodes::Nodes;
use crate::process::{Node, Program};
use crate::topology::TestTopology;
use crate::wait::{SOON, Trouble, until};

/// The people inside.
pub const PEOPLE: [&str; 2] = ["alice", "bob"];
/// Somebody outside.
pub const CAROL: &str = "carol@remote.example";
/// The first pause while a window is waited for.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Alice's address.
pub const ALICE: &str = "alice@example.com";
/// Bob's address.
pub const BOB: &str = "bob@example.com";

/// Both nodes and the Internet.
pub struct World {
    /// The nodes.
    pub nodes: Nodes,
    /// What is outside.
    pub internet: Internet,
    folder: Option<TempDir>,
}

impl World {
    /// Both nodes run and are paired; alice and bob are known on both.
    pub async fn start(program: Program) -> Result<Self, Trouble> {
        Self::with(program, |_| {}).await
    }

    /// The same, with a topology that `change` has been over.
    pub async fn with(program: Program, change: impl FnOnce(&mut TestTopology)) -> Result<Self, Trouble> {
        Self::of_programs(program.clone(), program, change).await
    }

    /// The same, with a program of its own for each node.
    pub async fn of_programs(
        big: Program,
        edge: Program,
        change: impl FnOnce(&mut TestTopology),
    ) -> Result<Self, Trouble> {
        let world = Self::made(big, edge, change).await?;
        world.pair().await?;
        world.add_people().await?;
        Ok(world)
    }

    /// Both nodes run and know nothing of each other.
    pub async fn unpaired(program: Program, change: impl FnOnce(&mut TestTopology)) -> Result<Self, Trouble> {
        Self::made(program.clone(), program, change).await
    }

    async fn made(
        big: Program,
        edge: Program,
        change: impl FnOnce(&mut TestTopology),
    ) -> Result<Self, Trouble> {
        let folder = tempfile::Builder::new().prefix("sallypost").tempdir()?;
        let internet = Internet::start(None).await?;
        let (dns, port) = (internet.dns.address(), internet.mta.address().port());
        let mut topology = TestTopology::new(folder.path(), dns, port)?;
        change(&mut topology);
        let nodes = Nodes::init(topology, big, edge).await?;
        Self::running(nodes, internet, Some(folder)).await
    }

    /// Both nodes of `topology` run, new or as an earlier run left them. The folder, if given, goes
    /// with this world.
    pub async fn of(
        program: Program,
        topology: TestTopology,
        internet: Internet,
        folder: Option<TempDir>,
    ) -> Result<Self, Trouble> {
        let nodes = Nodes::init(topology, program.clone(), program).await?;
        Self::running(nodes, internet, folder).await
    }

    async fn running(mut nodes: Nodes, internet: Internet, folder: Option<TempDir>) -> Result<Self, Trouble> {
        nodes.start_edge().await?;
        nodes.start_big().await?;
        Ok(Self { nodes, internet, folder })
    }

    /// Pairs the nodes, unless they are, and waits until they are linked.
    pub async fn pair(&self) -> Result<(), Trouble> {
        if !self.big().link().await?.paired {
            self.nodes.pair().await?;
        }
        self.linked().await
    }

    /// Waits until the link is up, as both nodes see it.
    pub async fn linked(&self) -> Result<(), Trouble> {
        until("the nodes are linked", SOON, async || {
            let both = self.big().link().await?.connected && self.edge_link().await?.connected;
            Ok(both.then_some(()))
        })
        .await
    }

    /// Makes alice and bob, unless they are there, and waits until the edge takes mail for them.
    pub async fn add_people(&self) -> Result<(), Trouble> {
        let there = self.big().people().await?;
        for name in PEOPLE.iter().filter(|name| there.iter().all(|person| person.name != **name)) {
            self.nodes.big.run(&["person", "add", name, "--display", &capitalised(name)]).await?;
        }
        for name in PEOPLE {
            self.known(&self.address(name)).await?;
        }
        Ok(())
    }

    /// The address of a person inside.
    pub fn address(&self, name: &str) -> String {
        let domain = self.nodes.topology.domains.first().map_or("", String::as_str);
        format!("{name}@{domain}")
    }

    /// Waits until the edge takes mail for `address`.
    async fn known(&self, address: &str) -> Result<(), Trouble> {
        let rcpt = format!("RCPT TO:<{address}>");
        until(&format!("the edge knows {address}"), SOON, async || {
            let mut client = self.smtp().await?;
            client.expect("MAIL FROM:<>", 250).await?;
            Ok(client.command(&rcpt).await?.is_positive().then_some(()))
        })
        .await
    }

    /// Ends both nodes as an administrator does, and leaves nothing behind that it was to keep. Whatever has
    /// happened: if they are linked, they have to hold the same of messages.
    pub async fn end(mut self) -> Result<(), Trouble> {
        let linked = |link: Result<LinkView, _>| link.is_ok_and(|link| link.connected);
        if linked(self.big().link().await) && linked(self.edge_link().await) {
            self.same().await?;
        }
        self.nodes.stop(Node::Big).await?;
        self.nodes.stop(Node::Edge).await?;
        if let Some(folder) = self.folder {
            folder.close()?;
        }
        Ok(())
    }

    /// Leaves the folder where it is when this world ends; says where that is.
    pub fn keep(&mut self) -> PathBuf {
        if let Some(folder) = self.folder.take() {
            let _ = folder.keep();
        }
        self.nodes.topology.state.clone()
    }

    /// Big's operator.
    pub fn big(&self) -> AtBig {
        AtBig(Operator::new(Node::Big.name(), &self.nodes.topology.big_state()))
    }

    /// Edge's operator.
    pub fn edge(&self) -> Operator {
        Operator::new(Node::Edge.name(), &self.nodes.topology.edge_state())
    }

    /// The link, as the edge sees it.
    pub async fn edge_link(&self) -> Result<LinkView, Trouble> {
        Ok(self.edge().ask(EdgeRequest::LinkStatus, Vec::new()).await?.0)
    }

    /// What waits on the edge for delivery.
    pub async fn edge_queue(&self) -> Result<Vec<Queued>, Trouble> {
        Ok(ask::edge_queue(&socket_in(&self.nodes.topology.edge_state())).await?)
    }

    /// Waits until the link is up and each node has confirmed all that the other one has for it.
    pub async fn quiet(&self) -> Result<(), Trouble> {
        // What was just handed over may make the other node send something: two looks have to agree.
        let mut before = None;
        until("the link is up and nothing is on its way", SOON, async || {
            let (big, edge) = (self.big().link().await?, self.edge_link().await?);
            let at_rest = big.connected && edge.connected && is_confirmed(&big) && is_confirmed(&edge);
            let sent: Vec<_> = big.lanes.iter().chain(&edge.lanes).map(|lane| lane.sent).collect();
            let again = before.replace(sent.clone()) == Some(sent);
            Ok((at_rest && again).then_some(()))
        })
        .await
    }

    /// Waits until both nodes are linked without an alarm, and nothing is on its way.
    pub async fn well(&self) -> Result<(), Trouble> {
        self.quiet().await?;
        let alarms = [self.big().link().await?.alarms, self.edge_link().await?.alarms].concat();
        if alarms.is_empty() { Ok(()) } else { Err(format!("alarms: {alarms:?}").into()) }
    }

    /// Compares what both nodes hold of messages; how much that is.
    pub async fn same(&self) -> Result<u64, Trouble> {
        let Compared { compared, differing, named, .. } = self.big().compared().await?;
        if differing == 0 { Ok(compared) } else { Err(format!("{differing} differ: {named:?}").into()) }
    }

    /// What the edge says to a recipient.
    pub async fn rcpt(&self, address: &str) -> Result<u16, Trouble> {
        let mut client = self.smtp().await?;
        client.expect("MAIL FROM:<>", 250).await?;
        Ok(client.command(&format!("RCPT TO:<{address}>")).await?.code)
    }

    /// A person's desk.
    pub fn desk(&self, person: &str) -> Desk {
        self.big().desk(person)
    }

    /// Alice sends to this address outside: what became of that when it was first attempted.
    pub async fn first_outcome(&self, to: &str) -> Result<RecipientView, Trouble> {
        let desk = self.desk("alice");
        let sent = desk.send(to, "first", "text").await?;
        until(&format!("{to} was attempted"), SOON, async || {
            let recipients = desk.status(&sent.id).await?.recipients;
            let attempted =
                |view: &RecipientView| !matches!(view.state, DeliveryState::Queued | DeliveryState::Relaying);
            Ok(recipients.into_iter().find(attempted))
        })
        .await
    }

    /// The address of port 25's role.
    pub fn smtp_address(&self) -> SocketAddr {
        first(&self.nodes.edge_ready().smtp)
    }

    /// A session with port 25's role, after EHLO.
    pub async fn smtp(&self) -> Result<SmtpClient, Trouble> {
        Ok(SmtpClient::ready(self.smtp_address(), None).await?)
    }

    /// A session with port 587's role, under TLS and logged in.
    pub async fn submission(&self, user: &str, password: &str) -> Result<SmtpClient, Trouble> {
        let address = first(&self.nodes.edge_ready().submission);
        Ok(SmtpClient::ready(address, Some((user, password))).await?)
    }

    /// A session with port 995's role, logged in.
    pub async fn pop3s(&self, user: &str, password: &str) -> Result<Pop3Client, Trouble> {
        let mut client = Pop3Client::connect_tls(first(&self.nodes.edge_ready().pop3s)).await?;
        client.login(user, password).await?;
        Ok(client)
    }

    /// Waits until the edge knows a window, and gives a session with it. The pauses become longer, for too many
    /// failed logins lock an account.
    pub async fn first_pop3s(&self, user: &str, password: &str) -> Result<Pop3Client, Trouble> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.pop3s(user, password).await {
                Ok(session) => return Ok(session),
                Err(error) if pause > SOON => return Err(error),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
    }

    /// Sends a message from outside to people inside, which must be accepted; returns its id.
    pub async fn receive(&self, to: &[&str], message: &[u8]) -> Result<String, Trouble> {
        let reply = self.smtp().await?.send_and_quit(CAROL, to, message).await?;
        accepted_as(&reply).ok_or_else(|| format!("no id in {reply}").into())
    }
}

/// The id under which a message was accepted, which the 250 names; behind it stands which way it went.
pub fn accepted_as(reply: &Reply) -> Option<String> {
    let mut words = reply.lines.last()?.split(' ');
    words.find(|word| word.len() == 26).map(str::to_owned)
}

/// The first address of a service.
///
/// # Panics
/// If the service has none: a test's topology gives each one.
pub fn first(addresses: &[SocketAddr]) -> SocketAddr {
    *addresses.first().expect("every service listens")
}

/// The name as a display name.
pub fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A message as it is stored inside or collected, without the trace that our edge put on top of it
/// (RFC 5321 §4.4, RFC 8601 §4.1): at most one Return-Path, one Authentication-Results and one Received.
pub fn without_trace(message: &[u8]) -> &[u8] {
    let rest = without_field(message, b"return-path:");
    let rest = without_field(rest, b"authentication-results:");
    without_field(rest, b"received:")
}

fn without_field<'a>(message: &'a [u8], name: &[u8]) -> &'a [u8] {
    let is_there = message.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    if !is_there {
        return message;
    }
    let mut at = 0;
    while let Some(end) = memchr::memmem::find(&message[at..], b"\r\n") {
        at += end + 2;
        if !matches!(message.get(at), Some(b' ' | b'\t')) {
            return &message[at..];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_trace_is_left_out() {
        let stored = b"Return-Path: <a@b.example>\r\nReceived: from x\r\n\tby y;\r\n now\r\n\
                       Received: from elsewhere\r\nSubject: x\r\n\r\nbody";
        let sent = b"Received: from elsewhere\r\nSubject: x\r\n\r\nbody";
        assert_eq!(without_trace(stored), sent);
        assert_eq!(without_trace(b"Subject: x\r\n"), b"Subject: x\r\n");
    }
}
