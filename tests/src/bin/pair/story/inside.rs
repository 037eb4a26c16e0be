//! The acts at a desk: a letter from outside, its answer, and a letter that comes back.

use big_node::record::Folder;
use shared::mime::{HeaderFacts, header_len};
use shared::unit::DeliveryState;
use tests::internet::rules::{Rule, Stage};
use tests::internet::{DOMAIN, HOST};
use tests::ledger::Fate;
use tests::messages::{Attachment, Letter, marked_text};
use tests::wait::{SOON, Trouble, until};
use tests::world::CAROL;

use super::{Story, check};

/// Nobody outside has this address.
const NOBODY: &str = "nobody@remote.example";

/// A message from outside.
pub struct FromOutside {
    id: String,
    message_id: String,
}

impl Story {
    /// Carol, outside, mails alice with an attachment; it is filed on big, broken apart.
    pub async fn a_letter_arrives(&mut self) -> Result<FromOutside, Trouble> {
        let alice = self.world.address("alice");
        self.telling.step(&format!("{CAROL}, somewhere on the Internet, mails {alice} with an attachment."));
        let token = self.ledger.next_token();
        let plan: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = Attachment { name: "plan.pdf", media_type: "application/pdf", content: &plan };
        let letter = Letter { from: CAROL, to: &alice, subject: "The plan", token };
        let message = letter.multipart("Here is the plan. What do you think?\r\n", &[file]);
        let id = self.outside_sends(&alice, &message, "Carol's letter with an attachment").await?;

        self.telling
            .step("It crosses the link and is filed on big, broken apart: a cover, and the attachment.");
        let desk = self.world.desk("alice");
        desk.filed(Folder::In, &id).await?;
        self.big(&["mail", "list", "--as", "alice"]).await?;
        let part = format!("{id}.1");
        let lines = desk.list(Folder::In).await?;
        check(lines.iter().any(|line| line.id == part && line.subject == file.name), "part 1 is plan.pdf")?;
        let saved = self.world.nodes.topology.state.join("saved-plan.pdf");
        let saved_as = saved.to_string_lossy();
        self.big(&["mail", "read", &part, "--as", "alice", "--output", &saved_as]).await?;
        check(std::fs::read(&saved)? == plan, "the attachment is what Carol sent")?;
        Ok(FromOutside { id, message_id: format!("{token}@ledger.test") })
    }

    /// Alice replies; the edge finds the MX by DNS and delivers.
    pub async fn alice_answers(&mut self, letter: &FromOutside) -> Result<(), Trouble> {
        self.telling.step("Alice answers; address, subject and thread come from the original.");
        let text = marked_text(self.ledger.next_token());
        self.ledger.enter(text.as_bytes(), &[CAROL])?;
        let id = self.big_sends(&["mail", "reply", &letter.id, "--as", "alice"], &text).await?;
        self.ledger.settle(text.as_bytes(), Fate::Accepted)?;
        self.messages.push((id.clone(), "Alice's answer to it".into()));

        self.telling.step("The edge asks DNS who takes mail for Carol's domain, and delivers it there.");
        let mail = self.world.internet.mta.wait_for(1, SOON).await?;
        let got = mail.first().ok_or("nothing arrived")?;
        let facts = HeaderFacts::of(&got.data[..header_len(&got.data)]);
        let asked = self.world.internet.dns.questions();
        check(asked.contains(&(DOMAIN.into(), "MX".into())), "DNS was asked for the MX")?;
        check(got.recipients == [CAROL], "it went to Carol")?;
        check(facts.in_reply_to == [letter.message_id.as_str()], "In-Reply-To names Carol's letter")?;
        let subject = facts.subject.unwrap_or_default();
        let tls = if got.tls { "under TLS" } else { "in clear" };
        self.telling
            .show(&format!("{HOST} took it {tls}: {subject:?}, In-Reply-To: <{}>", letter.message_id));
        self.state_of(&id, DeliveryState::Relayed).await?;
        self.big(&["mail", "status", &id, "--as", "alice"]).await
    }

    /// A message to an address that the other side refuses comes back as a DSN.
    pub async fn a_letter_comes_back(&mut self) -> Result<(), Trouble> {
        self.telling.step("Alice writes to somebody outside who does not exist; the host there refuses.");
        let refusal = Rule::reply(Stage::Rcpt, 550, "5.1.1 nobody of that name").only_for(NOBODY);
        self.world.internet.mta.add_rule(refusal);
        let text = marked_text(self.ledger.next_token());
        self.ledger.enter(text.as_bytes(), &[NOBODY])?;
        let arguments = ["mail", "send", "--as", "alice", "--to", NOBODY, "--subject", "Are you there?"];
        let id = self.big_sends(&arguments, &text).await?;
        self.messages.push((id.clone(), "Alice's letter to nobody".into()));

        self.telling.step("She is told at once, by a delivery status notification (RFC 3464).");
        let desk = self.world.desk("alice");
        let report = desk
            .arrival(Folder::In, "the DSN arrives", |line| line.subject.starts_with("Undelivered"))
            .await?;
        let dsn = String::from_utf8_lossy(&desk.raw(&report.id).await?).into_owned();
        check(dsn.contains("\r\nAction: failed\r\n"), "the DSN says failed")?;
        check(dsn.contains("\r\nStatus: 5.1.1\r\n"), "the DSN carries the remote's status")?;
        check(dsn.contains(NOBODY), "the DSN names the recipient")?;
        self.messages.push((report.id.clone(), "The report of it".into()));
        self.big(&["mail", "read", &report.id, "--as", "alice"]).await?;
        self.state_of(&id, DeliveryState::Failed).await?;
        self.big(&["mail", "status", &id, "--as", "alice"]).await?;
        // It came back, so it may be nowhere else.
        self.ledger.settle(text.as_bytes(), Fate::NotAccepted)?;
        Ok(())
    }

    /// Waits until the only recipient's copy of alice's message is where it should be.
    async fn state_of(&self, id: &str, state: DeliveryState) -> Result<(), Trouble> {
        let desk = self.world.desk("alice");
        until(&format!("{id} is {state:?}"), SOON, async || {
            let status = desk.status(id).await?;
            Ok(status.recipients.iter().all(|recipient| recipient.state == state).then_some(()))
        })
        .await
    }
}
