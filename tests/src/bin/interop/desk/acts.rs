//! What a person does at the desk with mail: each by its keys, and each looked at where it comes to.

use big_node::record::Folder;
use tests::wait::Trouble;
use tests::world::{ALICE, BOB, CAROL};

use super::Place;
use super::terminal::Terminal;

/// A message with an attachment.
fn minutes() -> Vec<u8> {
    format!(
        "From: Carol <{CAROL}>\r\nTo: {ALICE}\r\nSubject: Minutes\r\nMessage-ID: <minutes@remote.example>\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nsee the file\r\n\
         --b\r\nContent-Type: text/plain; name=notes.txt\r\n\
         Content-Disposition: attachment; filename=notes.txt\r\n\r\nthe notes\r\n--b--\r\n"
    )
    .into_bytes()
}

impl Place<'_> {
    /// All of it, one after the other, on one screen.
    pub async fn acts(self) -> Result<(), Trouble> {
        let environment = "LANG=C.UTF-8 TERM=tmux-256color VISUAL='sed -i s/hello/edited/'";
        let terminal = self.desk(80, 24, environment).await?;
        self.world.receive(&[ALICE], &minutes()).await?;
        terminal.shows("Minutes").await?;
        terminal.keys(&["Home", "Enter"]).await?;
        terminal.shows("1: notes.txt, text/plain").await?;
        self.forwards(&terminal).await?;
        self.saves(&terminal).await?;
        self.amends_and_returns(&terminal).await?;
        looks_at_the_conversation(&terminal).await?;
        self.picks_from_the_address_book(&terminal).await?;
        self.travels(&terminal).await?;
        self.withdraws(&terminal).await?;
        terminal.ends().await
    }

    async fn forwards(&self, terminal: &Terminal) -> Result<(), Trouble> {
        terminal.keys(&["F4"]).await?;
        terminal.shows("Attached: 1 notes.txt").await?;
        terminal.types("bob").await?;
        terminal.keys(&["Enter", "Enter"]).await?;
        terminal.types("For you.").await?;
        // What is written stays as it is when the window gets another size.
        terminal.resize(100, 30).await?;
        terminal.resize(80, 24).await?;
        terminal.shows("For you.").await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("sent to 1 recipient").await?;
        let bob = self.world.desk("bob");
        let got = bob
            .arrival(Folder::In, "bob has what was sent on", |line| line.subject == "Fwd: Minutes")
            .await?;
        let read = bob.read(&got.id).await?;
        if !read.text.starts_with("For you.") || !read.text.contains("see the file") {
            return Err(format!("bob reads {:?}", read.text).into());
        }
        let part = bob.raw(&format!("{}.1", got.id)).await?;
        match part.as_slice() {
            b"the notes" | b"the notes\r\n" => Ok(()),
            other => Err(format!("bob's attachment is {:?}", String::from_utf8_lossy(other)).into()),
        }
    }

    async fn saves(&self, terminal: &Terminal) -> Result<(), Trouble> {
        let folder = self.folder.join("saved");
        std::fs::create_dir(&folder)?;
        terminal.keys(&["F5"]).await?;
        terminal.command(&format!("1 {}", folder.display())).await?;
        terminal.shows("saved as").await?;
        let saved = std::fs::read_to_string(folder.join("notes.txt"))?;
        if saved.trim_end() != "the notes" {
            return Err(format!("what was saved is {saved:?}").into());
        }
        // A second time it is another file.
        terminal.keys(&["F5"]).await?;
        terminal.command(&format!("1 {}", folder.display())).await?;
        terminal
            .until("it is saved beside the first", |_| {
                std::fs::read_dir(&folder).is_ok_and(|files| files.count() == 2)
            })
            .await
            .map(drop)
    }

    async fn amends_and_returns(&self, terminal: &Terminal) -> Result<(), Trouble> {
        terminal.keys(&["F6"]).await?;
        terminal.shows("Amend and return").await?;
        terminal.types("Please ").await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("sent to 1 recipient").await?;
        let alice = self.world.desk("alice");
        let sent = alice
            .arrival(Folder::Sent, "what was returned is in Sent", |line| line.subject == "Re: Minutes")
            .await?;
        let read = alice.read(&sent.id).await?;
        let is_there = |text: &str| read.text.lines().any(|line| line.trim_end() == text);
        if sent.to != [CAROL] || !is_there("- see the file") || !is_there("+ Please see the file") {
            return Err(format!("to {:?} went {:?}", sent.to, read.text).into());
        }
        match read.parts.as_slice() {
            [part] if part.name.as_deref() == Some("notes.txt") => Ok(()),
            parts => Err(format!("with it went {parts:?}").into()),
        }
    }

    async fn picks_from_the_address_book(&self, terminal: &Terminal) -> Result<(), Trouble> {
        terminal.command("/nickname cj carol@remote.example").await?;
        terminal.shows("cj is in the address book").await?;
        terminal.keys(&["b"]).await?;
        terminal.shows("Address book").await?;
        terminal.shows("carol@remote.example").await?;
        // The nickname first, then alice and bob.
        terminal.keys(&["Home", "Down", "Down", "Space"]).await?;
        terminal.shows("picked: bob").await?;
        terminal.keys(&["F5"]).await?;
        terminal.shows("To      : bob").await?;
        terminal.types("Picked").await?;
        terminal.keys(&["Enter"]).await?;
        terminal.types("hello").await?;
        // The person's own editor has the terminal, and gives it back.
        terminal.keys(&["F4"]).await?;
        terminal.shows("edited").await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("sent to 1 recipient").await?;
        let bob = self.world.desk("bob");
        bob.arrival(Folder::In, "bob has it", |line| line.subject == "Picked").await.map(drop)
    }

    async fn travels(&self, terminal: &Terminal) -> Result<(), Trouble> {
        terminal.keys(&["v"]).await?;
        terminal.shows("You do not travel.").await?;
        terminal.command("/travel start standing all keep").await?;
        let screen = terminal.shows("For your mail client").await?;
        if !screen.to_lowercase().contains("password") {
            return Err(format!("the password is not shown:\n{screen}").into());
        }
        terminal.keys(&["F3"]).await?;
        terminal.shows("open, until it is ended").await?;
        terminal.command("/travel end").await?;
        terminal.shows("the window is ended").await?;
        terminal.shows("You do not travel.").await?;
        terminal.keys(&["F3"]).await
    }

    async fn withdraws(&self, terminal: &Terminal) -> Result<(), Trouble> {
        let sent = self.world.desk("alice").send(BOB, "Mistake", "not for you").await?;
        terminal.command("/folder sent").await?;
        terminal.shows("Mistake").await?;
        terminal.keys(&["Home", "W"]).await?;
        terminal.shows("[withdraw]").await?;
        terminal.types("sent too early").await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("revision 1: withdrawn").await?;
        // Bob has not read it, and will not.
        match self.world.desk("bob").messages(Folder::In).await?.iter().find(|line| line.id == sent.id) {
            None => Ok(()),
            Some(line) => Err(format!("bob has {line:?}").into()),
        }
    }
}

async fn looks_at_the_conversation(terminal: &Terminal) -> Result<(), Trouble> {
    terminal.keys(&["F10"]).await?;
    terminal.shows("Conversation, oldest first").await?;
    // The answer is set in under what it answers.
    let place = |screen: &str, subject: &str| {
        let row = screen.lines().find(|row| row.trim_end().ends_with(subject))?;
        Some(row.trim_end().chars().count() - subject.chars().count())
    };
    let has_both = |screen: &str| match (place(screen, " Minutes"), place(screen, " Re: Minutes")) {
        (Some(first), Some(answer)) => answer == first + 2,
        _ => false,
    };
    terminal.until("the message and what was returned are in it", has_both).await?;
    terminal.keys(&["F10", "F3"]).await?;
    terminal.shows("[In").await.map(drop)
}
