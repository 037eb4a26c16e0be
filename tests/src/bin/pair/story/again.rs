//! The act of second thoughts: what was sent is amended while it waits, and only the new text leaves.

use shared::unit::{DeliveryState, ReviseResult};
use tests::internet::rules::{Rule, Stage};
use tests::ledger::Fate;
use tests::messages::marked_text;
use tests::wait::{SOON, Trouble, until};
use tests::world::CAROL;

use super::{Story, check};

impl Story {
    /// Bob amends a message that waits on the edge.
    pub async fn bob_thinks_again(&mut self) -> Result<(), Trouble> {
        self.telling
            .step("Bob writes to Carol; the host there takes nothing just now, and his message waits.");
        let before = self.world.internet.mta.mail().len();
        self.world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
        let tokens = [self.ledger.next_token(), self.ledger.next_token()];
        let [old, new] = tokens.map(marked_text);
        self.ledger.enter(old.as_bytes(), &[CAROL])?;
        let arguments = ["mail", "send", "--as", "bob", "--to", CAROL, "--subject", "Our offer"];
        let id = self.big_sends(&arguments, &old).await?;
        self.messages.push((id.clone(), "Bob's offer, amended before it left".into()));
        let desk = self.world.desk("bob");
        until("the offer waits on the edge", SOON, async || {
            let waits = |state| state == DeliveryState::Deferred;
            Ok(desk.status(&id).await?.recipients.iter().all(|to| waits(to.state)).then_some(()))
        })
        .await?;

        self.telling.step("He amends it: in the edge's queue the new text takes the place of the old one.");
        self.ledger.enter(new.as_bytes(), &[CAROL])?;
        let arguments = ["mail", "amend", &id, "--as", "bob", "--reason", "a better price"];
        self.telling.command("big-node", &arguments);
        self.telling.show(&self.world.nodes.big.run_with(&arguments, new.as_bytes()).await?);
        self.ledger.settle(new.as_bytes(), Fate::Accepted)?;
        desk.revised(&id, ReviseResult::Replaced).await?;
        // It was replaced, so it may be nowhere.
        self.ledger.settle(old.as_bytes(), Fate::NotAccepted)?;

        self.telling.step("The host takes mail again, and what leaves is the new text.");
        self.world.internet.mta.clear_rules();
        let retry = ["queue", "retry", &id];
        self.telling.command("edge-node", &retry);
        self.telling.show(&self.world.nodes.edge.run(&retry).await?);
        let mail = self.world.internet.mta.wait_for(before + 1, SOON).await?;
        let got =
            mail.last().map(|mail| String::from_utf8_lossy(&mail.data).into_owned()).unwrap_or_default();
        let has = tokens.map(|token| got.contains(&token.to_string()));
        check(has == [false, true], "only the new text left")?;
        self.big(&["mail", "status", &id, "--as", "bob"]).await?;
        self.big(&["mail", "history", &id, "--as", "bob"]).await
    }
}
