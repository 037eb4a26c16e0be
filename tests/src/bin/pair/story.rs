//! The story of `pair --once` (design §11): mail in, mail out, mail on the road, second thoughts,
//! and a cut link.
//!
//! Every act is done with what a person would use: the nodes' commands, SMTP, POP3. What is sent is
//! entered in the [ledger](tests::ledger) first; at the end every mailbox is read, the books are
//! audited, and each message's way is printed. The first thing that is not as it should be ends the
//! story with what was expected.

mod again;
mod inside;
mod road;
mod telling;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use big_node::record::Folder;
use big_node::request::Queue;
use edge_node::request::Queued;
use serde_json::Value;
use shared::report::Step;
use tests::ledger::{Fate, Ledger, Place};
use tests::random::Random;
use tests::wait::{SOON, Trouble, until};
use tests::world::{PEOPLE, World};

use crate::stage::Stage;
use telling::Telling;

/// The story as it goes on.
struct Story {
    world: World,
    ledger: Ledger,
    telling: Telling,
    /// Every message so far: its id and what it is.
    messages: Vec<(String, String)>,
}

/// Plays the story. Whatever goes wrong, the state is kept then, and the error says where.
pub async fn play(stage: Stage) -> Result<(), Trouble> {
    let mut story = Story {
        world: stage.world,
        ledger: Ledger::new(Random::any_seed()),
        telling: Telling::default(),
        messages: Vec::new(),
    };
    if let Err(trouble) = story.acts().await {
        let folder = story.world.keep();
        return Err(format!("{trouble}\nstate and logs are kept in {}", folder.display()).into());
    }
    let (steps, messages) = (story.telling.steps(), story.messages.len());
    story.world.end().await?;
    println!("story: {steps} steps, {messages} messages, every one accounted for exactly once");
    Ok(())
}

impl Story {
    async fn acts(&mut self) -> Result<(), Trouble> {
        self.open().await?;
        let letter = self.a_letter_arrives().await?;
        self.alice_answers(&letter).await?;
        let trip = self.alice_sets_out().await?;
        let question = self.bob_writes().await?;
        self.alice_collects(&trip, &question).await?;
        self.alice_answers_from_the_road(&trip, &question).await?;
        self.bob_thinks_again().await?;
        self.the_link_is_cut(&trip).await?;
        self.a_letter_comes_back().await?;
        self.alice_comes_home(&trip).await?;
        self.audit().await
    }

    async fn open(&mut self) -> Result<(), Trouble> {
        self.telling.step("The edge prints a ticket, big takes it: the nodes are paired and linked.");
        self.world.pair().await?;
        self.big(&["link", "status"]).await?;
        self.telling.step("Alice and Bob get mailboxes; at once the edge takes mail for them.");
        self.world.add_people().await?;
        self.big(&["person", "list"]).await
    }

    /// Reads every mailbox, compares it with the books, and prints every message's way.
    async fn audit(&mut self) -> Result<(), Trouble> {
        self.telling.step("Every mailbox is read and compared with what was sent.");
        self.queues_are_empty().await?;
        for person in PEOPLE {
            let desk = self.world.desk(person);
            for line in desk.messages(Folder::In).await? {
                let at = UNIX_EPOCH + Duration::from_millis(line.at);
                self.ledger.found(Place::Inside, &self.world.address(person), &desk.raw(&line.id).await?, at);
            }
        }
        for mail in self.world.internet.mta.mail() {
            let at = UNIX_EPOCH + Duration::from_millis(mail.at);
            for recipient in &mail.recipients {
                self.ledger.found(Place::Outside, recipient, &mail.data, at);
            }
        }
        let audit = self.ledger.audit();
        self.telling.show(&audit.to_string());
        let whole = audit.is_clean() && audit.undetermined.is_empty() && audit.repeated.is_empty();
        if !whole || audit.reports != 1 {
            return Err(
                format!("the books do not balance: {audit}; {} reports, 1 expected", audit.reports).into()
            );
        }
        self.telling.step("The way of each message, over both nodes.");
        for (id, what) in self.messages.clone() {
            self.telling.say(&format!("{what} ({id})"));
            self.way(&id).await?;
        }
        Ok(())
    }

    /// Waits until nothing waits on either node.
    async fn queues_are_empty(&self) -> Result<(), Trouble> {
        until("both nodes' queues are empty", SOON, async || {
            let big: Queue = self.world.nodes.big.json(&["queue", "list"]).await?;
            let edge: Vec<Queued> = self.world.nodes.edge.json(&["queue", "list"]).await?;
            let idle = big.units == [0; 4] && big.messages.is_empty() && edge.is_empty();
            if let Some(dead) = big.dead_letters.first() {
                return Err(format!("the edge refused unit {}: {}", dead.id, dead.reason).into());
            }
            Ok(idle.then_some(()))
        })
        .await
    }

    /// Shows a message's way over both nodes, in order.
    async fn way(&self, id: &str) -> Result<(), Trouble> {
        let mut steps: Vec<Step> = self.world.nodes.big.json(&["trace", id]).await?;
        // A message that stayed inside is nothing the edge knows.
        let at_edge: Result<Vec<Step>, _> = self.world.nodes.edge.json(&["trace", id]).await;
        steps.extend(at_edge.unwrap_or_default());
        steps.sort_by_key(|step| step.at);
        self.telling.show(&shared::render::way(&steps));
        Ok(())
    }

    /// A command on big, as it is typed and what it prints.
    async fn big(&self, arguments: &[&str]) -> Result<(), Trouble> {
        self.telling.command("big-node", arguments);
        self.telling.show(&self.world.nodes.big.run(arguments).await?);
        Ok(())
    }

    /// A command on big that sends `text`; returns the id of the message.
    async fn big_sends(&self, arguments: &[&str], text: &str) -> Result<String, Trouble> {
        self.telling.command("big-node", arguments);
        let sent: Value = self.world.nodes.big.json_with(arguments, text.as_bytes()).await?;
        let id = sent.get("id").and_then(Value::as_str).ok_or("the command printed no id")?;
        self.telling.show(&format!("sent as {id}"));
        Ok(id.to_owned())
    }

    /// Sends a message from outside, which must be accepted, and keeps the books; returns its id.
    async fn outside_sends(&mut self, to: &str, message: &[u8], what: &str) -> Result<String, Trouble> {
        self.ledger.enter(message, &[to])?;
        let id = self.world.receive(&[to], message).await?;
        self.ledger.settle(message, Fate::Accepted)?;
        self.telling.show(&format!("250, accepted as {id}"));
        self.messages.push((id.clone(), what.to_owned()));
        Ok(id)
    }
}

/// Ends the story unless it is as it should be.
fn check(is_so: bool, what: &str) -> Result<(), Trouble> {
    if is_so { Ok(()) } else { Err(format!("this is not so: {what}").into()) }
}

fn now() -> SystemTime {
    SystemTime::now()
}
