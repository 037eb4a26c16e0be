//! The acts on the road: a trip, mail collected and answered, a link that is cut, and the way home.

use big_node::record::{Folder, WindowState};
use big_node::request::Started;
use shared::id::unix_millis;
use shared::render;
use tests::client::pop3::Pop3Client;
use tests::ledger::{Fate, HEADER};
use tests::messages::{Letter, SHORT, marked_text};
use tests::process::Node;
use tests::wait::{SOON, Trouble, until};
use tests::world::{CAROL, accepted_as};

use super::{Story, check, now};

/// How long alice is away.
const TRIP_MILLIS: u64 = 7 * 24 * 3_600_000;

/// What alice takes along.
pub struct Trip {
    user: String,
    password: String,
}

/// A message of bob's, from his desk.
pub struct Question {
    id: String,
    message_id: String,
}

impl Story {
    /// Alice starts a trip: a window at the edge, with credentials made for it.
    pub async fn alice_sets_out(&mut self) -> Result<Trip, Trouble> {
        self.telling.step("Alice sets out on a trip: a secondary mailbox at the edge, for a week.");
        let until_when = render::when(unix_millis() + TRIP_MILLIS);
        let day = until_when.get(..10).ok_or("a time begins with its date")?;
        let arguments =
            ["travel", "start", "alice", "--until", day, "--scope", "new", "--after-fetch", "read"];
        self.telling.command("big-node", &arguments);
        let started: Started = self.world.nodes.big.json(&arguments).await?;
        let Started { user, password, settings, .. } = started;
        self.telling.show(&format!("user {user}, password {password}, shown once; host {}", settings.host));
        let session = self.world.first_pop3s(&user, &password).await?;
        session.quit().await?;
        Ok(Trip { user, password })
    }

    /// Bob mails her from his desk.
    pub async fn bob_writes(&mut self) -> Result<Question, Trouble> {
        self.telling.step("Bob, at his desk, mails Alice as always; he need not know that she is away.");
        let text = marked_text(self.ledger.next_token());
        self.ledger.enter(text.as_bytes(), &[&self.world.address("alice")])?;
        let arguments = ["mail", "send", "--as", "bob", "--to", "alice", "--subject", "How is the trip?"];
        let id = self.big_sends(&arguments, &text).await?;
        self.ledger.settle(text.as_bytes(), Fate::Accepted)?;
        self.messages.push((id.clone(), "Bob's question".into()));
        let domain = self.world.nodes.topology.domains.first().map_or("", String::as_str);
        let message_id = format!("{id}@{domain}");
        Ok(Question { id, message_id })
    }

    /// She collects it by POP3S from the edge.
    pub async fn alice_collects(&mut self, trip: &Trip, question: &Question) -> Result<(), Trouble> {
        self.telling.step("Alice collects it by POP3S from the edge: the very bytes that lie at home.");
        let (mut session, number) = self.maildrop_with(trip, &question.id).await?;
        let collected = session.retr(number).await?;
        session.quit().await?;
        let at_home = self.world.desk("alice").raw(&question.id).await?;
        check(collected == at_home, "what POP3 gives is what is filed at home")?;
        self.telling.show(&format!("+OK {} octets, UIDL {}.0.0", collected.len(), question.id));
        self.read_at_home(&question.id).await?;
        self.telling.say("At home it is marked read.");
        Ok(())
    }

    /// She answers through submission; bob has the answer, and his question shows answered.
    pub async fn alice_answers_from_the_road(
        &mut self,
        trip: &Trip,
        question: &Question,
    ) -> Result<(), Trouble> {
        self.telling.step("She answers with an ordinary mail client, through submission.");
        let (alice, bob) = (self.world.address("alice"), self.world.address("bob"));
        let token = self.ledger.next_token();
        let letter = Letter { from: &alice, to: &bob, subject: "Re: How is the trip?", token }.text(SHORT);
        let thread = format!("In-Reply-To: <{0}>\r\nReferences: <{0}>\r\n", question.message_id);
        let message = [thread.as_bytes(), &letter].concat();
        self.ledger.enter(&message, &[&bob])?;
        let mut session = self.world.submission(&trip.user, &trip.password).await?;
        let reply = session.send(&alice, &[&bob], &message).await?;
        self.ledger.settle(&message, Fate::Accepted)?;
        let id = accepted_as(&reply).ok_or("the 250 names no id")?;
        session.quit().await?;
        self.telling.show(&format!("250, accepted as {id}"));
        self.messages.push((id.clone(), "Alice's answer from the road".into()));

        self.telling.step("Bob has the answer, and the message he sent shows that it was answered.");
        let desk = self.world.desk("bob");
        let answer = desk.filed(Folder::In, &id).await?;
        let original = until("Bob's question is marked answered", SOON, async || {
            let line = desk.filed(Folder::Sent, &question.id).await?;
            Ok(line.answered.then_some(line))
        })
        .await?;
        check(answer.thread == original.thread, "question and answer are one thread")?;
        self.big(&["mail", "list", "--as", "bob"]).await?;
        self.big(&["mail", "list", "--as", "bob", "--folder", "sent"]).await?;
        self.world.desk("alice").filed(Folder::Sent, &id).await?;
        self.telling.say("The answer is in Alice's Sent folder at home, too.");
        Ok(())
    }

    /// Big dies; the edge goes on, and the traveller with it.
    pub async fn the_link_is_cut(&mut self, trip: &Trip) -> Result<(), Trouble> {
        self.telling.step("Big is killed (SIGKILL): the link is cut. The edge goes on taking mail.");
        self.world.nodes.kill(Node::Big).await?;
        self.ledger.killed(Node::Big.name(), now())?;
        let alice = self.world.address("alice");
        let mut ids = Vec::new();
        for subject in ["While you were away", "And another thing"] {
            let token = self.ledger.next_token();
            let message = Letter { from: CAROL, to: &alice, subject, token }.text(SHORT);
            ids.push(self.outside_sends(&alice, &message, &format!("Carol's {subject:?}")).await?);
        }
        self.telling.step("Alice, on the road, has both at once: the edge filed them by itself.");
        for id in &ids {
            let (mut session, number) = self.maildrop_with(trip, id).await?;
            let collected = session.retr(number).await?;
            let header = format!("{HEADER}: ");
            check(memchr::memmem::find(&collected, header.as_bytes()).is_some(), "it is Carol's message")?;
            session.quit().await?;
            self.telling.show(&format!("+OK {} octets, UIDL {id}.0.0", collected.len()));
        }
        self.telling.step("Big is back; the link resumes where it was, and all of it is filed at home.");
        self.world.nodes.start_big().await?;
        self.world.linked().await?;
        for id in &ids {
            self.world.desk("alice").filed(Folder::In, id).await?;
        }
        self.telling.step("What Alice read on the road comes home too, behind the messages it speaks of.");
        for id in &ids {
            self.read_at_home(id).await?;
        }
        self.big(&["mail", "list", "--as", "alice"]).await
    }

    /// Waits until a message that alice collected is marked read at home.
    async fn read_at_home(&self, id: &str) -> Result<(), Trouble> {
        let desk = self.world.desk("alice");
        until(&format!("{id} is marked read at home"), SOON, async || {
            Ok(desk.filed(Folder::In, id).await?.read.then_some(()))
        })
        .await
    }

    /// The trip ends, and with it the credentials.
    pub async fn alice_comes_home(&mut self, trip: &Trip) -> Result<(), Trouble> {
        self.telling.step("Alice is home: the window ends, its keys are destroyed, the password is void.");
        self.big(&["travel", "end", "alice"]).await?;
        let address = tests::world::first(&self.world.nodes.edge_ready().pop3s);
        until("the edge refuses the password", SOON, async || {
            let mut session = Pop3Client::connect_tls(address).await?;
            Ok(session.login(&trip.user, &trip.password).await.is_err().then_some(()))
        })
        .await?;
        until("the edge has confirmed the end", SOON, async || {
            let windows = self.world.big().windows().await?;
            Ok(windows.iter().all(|window| window.state == WindowState::Ended).then_some(()))
        })
        .await?;
        self.big(&["travel", "list", "--all"]).await
    }

    /// A session with alice's maildrop once the message is in it, and the message's number.
    async fn maildrop_with(&self, trip: &Trip, id: &str) -> Result<(Pop3Client, u64), Trouble> {
        until(&format!("{id} is in the secondary mailbox"), SOON, async || {
            let mut session = self.world.pop3s(&trip.user, &trip.password).await?;
            let there = session.uidl().await?.into_iter().find(|(_, uidl)| uidl.starts_with(id));
            match there {
                Some((number, _)) => Ok(Some((session, number))),
                None => Ok(session.quit().await.map(|()| None)?),
            }
        })
        .await
    }
}
