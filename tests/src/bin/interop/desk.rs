//! The desk, driven in a terminal of tmux's: keys go in, and the screen is looked at.

mod acts;
mod given_back;
mod hostile;
mod terminal;

use std::path::{Path, PathBuf};

use base64::Engine;
use big_node::record::Folder;
use tests::process::{Node, Program};
use tests::wait::Trouble;
use tests::world::{ALICE, BOB, CAROL, World};

use crate::tally::Tally;
use terminal::Terminal;

const SMALL: &str = "the desk, 80 by 24: hostile mail, live arrival, answer, search, resize, revision";
const LARGE: &str = "the desk, 120 by 40: the same";
const PLAIN: &str = "the desk with TERM=vt100 and LANG=C: ASCII, no colour; TERM=dumb is refused";
const ACTS: &str = "the desk: forward, save, amend and return, address book, travel, withdraw, thread";
const HOSTILE: &str = "the desk with hostile headers, names, charsets and pages";
const GIVEN_BACK: &str = "the desk is told to end: the terminal is as it was";
const AWAY: &str = "the desk while big is away: what is written is kept, and is a draft once big is back";

/// What every screen has on top and at the bottom, whatever is between.
const TITLE: &str = " Sallypost   Alice <alice@example.com>";
const END: &str = "F12 Quit";

/// Runs the cases, on one pair.
pub async fn cases(pair: &Path, folder: &Path, tally: &mut Tally) {
    let wanted: Vec<_> = [SMALL, LARGE, PLAIN, ACTS, HOSTILE, GIVEN_BACK, AWAY]
        .into_iter()
        .filter(|case| tally.wants(case, "tmux"))
        .collect();
    if wanted.is_empty() {
        return;
    }
    let mut world = match World::start(Program::at(pair)).await {
        Ok(world) => world,
        Err(trouble) => return tally.failed("a pair for the desk", &trouble.to_string()),
    };
    for (number, case) in wanted.into_iter().enumerate() {
        let place = Place { program: pair, world: &mut world, folder: folder.join(format!("desk-{number}")) };
        let verdict = match case {
            SMALL => place.story(80, 24).await,
            LARGE => place.story(120, 40).await,
            PLAIN => place.plain().await,
            ACTS => place.acts().await,
            HOSTILE => place.hostile().await,
            GIVEN_BACK => place.given_back().await,
            _ => place.away().await,
        };
        tally.note(case, verdict.map_err(|trouble| trouble.to_string()));
    }
    if let Err(trouble) = world.end().await {
        tally.failed("the desk's pair ends", &trouble.to_string());
    }
}

/// Where a case plays.
struct Place<'a> {
    program: &'a Path,
    world: &'a mut World,
    folder: PathBuf,
}

impl Place<'_> {
    async fn desk(&self, columns: usize, rows: usize, environment: &str) -> Result<Terminal, Trouble> {
        std::fs::create_dir(&self.folder)?;
        let (program, topology) = (self.program.display(), self.world.nodes.file.display());
        let desk = format!("env {environment} '{program}' node-big --topology '{topology}' desk --as alice");
        Terminal::start(self.folder.join("tmux"), columns, rows, &desk).await
    }

    async fn story(self, columns: usize, rows: usize) -> Result<(), Trouble> {
        let terminal = self.desk(columns, rows, "LANG=C.UTF-8 TERM=tmux-256color").await?;
        terminal.shows("[In").await?;
        let size = format!("{columns}x{rows}");

        // It arrives while the list is looked at, and is read without harm.
        let hostile = hostile(&format!("beware {size}"));
        self.world.receive(&[ALICE], &hostile).await?;
        terminal.shows(&format!("beware {size}")).await?;
        terminal.keys(&["Home", "Enter"]).await?;
        // A screen is drawn from the top, and may be looked at before it is whole.
        let is_whole = |screen: &str| screen.contains("␛[2J␛]0;owned␇") && screen.matches('x').count() >= 300;
        let screen = terminal.until("all of the message is there", is_whole).await?;
        if screen.contains('\u{202e}') || !screen.starts_with(TITLE) || !screen.trim_end().ends_with(END) {
            return Err(format!("the message has reached the terminal:\n{screen}").into());
        }

        // Another one comes meanwhile: it is said, and nothing moves.
        let subject = format!("Lunch {size}");
        self.world.receive(&[ALICE], &letter(&subject, "Shall we have lunch?")).await?;
        let after = terminal.shows("a new message in In").await?;
        let body =
            |screen: &str| screen.lines().skip(1).take(rows - 4).map(str::to_owned).collect::<Vec<_>>();
        if body(&screen) != body(&after) {
            return Err(format!("what is read has moved:\n{screen}\n{after}").into());
        }

        terminal.keys(&["F3", "Home", "Enter"]).await?;
        terminal.shows("Shall we have lunch?").await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("> Shall we have lunch?").await?;
        terminal.types("Gladly.").await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("sent to 1 recipient").await?;
        let alice = self.world.desk("alice");
        let answer = format!("Re: {subject}");
        let sent =
            alice.arrival(Folder::Sent, "the answer is in Sent", |line| line.subject == answer).await?;
        if sent.to != [CAROL] {
            return Err(format!("the answer went to {:?}", sent.to).into());
        }
        terminal.keys(&["F3"]).await?;
        let is_marked = |line: &str| line.starts_with("> A ") && line.contains(&subject);
        terminal.until("it is marked as answered", |screen| screen.lines().any(is_marked)).await?;

        terminal.keys(&["F9"]).await?;
        terminal.types(&format!("lunch {size}")).await?;
        terminal.keys(&["Enter"]).await?;
        terminal.shows("Found in all folders").await?;
        terminal.shows("sent").await?;
        terminal.keys(&["F3"]).await?;

        terminal.resize(60, 20).await?;
        terminal.shows("needs 80 columns and 24 rows").await?;
        terminal.resize(columns, rows).await?;
        terminal.shows(&subject).await?;

        let plan = alice.send(BOB, &format!("Plan {size}"), "old words").await?;
        terminal.types("/folder sent").await?;
        terminal.keys(&["Enter"]).await?;
        terminal.shows(&format!("Plan {size}")).await?;
        terminal.keys(&["Home", "F6"]).await?;
        terminal.shows("[replace]").await?;
        terminal.types("New, not ").await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("revision 1: replaced").await?;
        let read = self.world.desk("bob").read(&plan.id).await?;
        if read.text.trim_end() != "New, not old words" {
            return Err(format!("bob reads {:?}", read.text).into());
        }
        terminal.ends().await
    }

    async fn plain(self) -> Result<(), Trouble> {
        self.world.receive(&[ALICE], &hostile("plain")).await?;
        let terminal = self.desk(80, 24, "LC_ALL=C TERM=vt100").await?;
        terminal.shows("plain").await?;
        terminal.keys(&["Home", "Enter"]).await?;
        let screen = terminal.shows("^[[2J^[]0;owned^G").await?;
        if !screen.is_ascii() || !screen.contains("Cafe ??") {
            return Err(format!("this is not ASCII:\n{screen}").into());
        }
        let raw = terminal.raw().await?;
        no_colour(&raw)?;
        terminal.ends().await?;
        let (program, topology) = (self.program.display(), self.world.nodes.file.display());
        let mono = format!(
            "env NO_COLOR=1 LC_ALL=C.UTF-8 TERM=tmux-256color '{program}' node-big --topology '{topology}' desk --as alice"
        );
        let terminal = Terminal::start(self.folder.join("mono"), 80, 24, &mono).await?;
        terminal.shows("plain").await?;
        terminal.keys(&["Home", "Enter"]).await?;
        terminal.shows("Café 日本").await?;
        no_colour(&terminal.raw().await?)?;
        terminal.ends().await?;
        let dumb = format!("env TERM=dumb '{program}' node-big --topology '{topology}' desk --as alice");
        let terminal = Terminal::start(self.folder.join("dumb"), 80, 24, &dumb).await?;
        terminal.shows("TERM is dumb").await?;
        terminal.shows("the desk ended with 1").await?;
        Ok(())
    }

    async fn away(self) -> Result<(), Trouble> {
        let terminal = self.desk(80, 24, "LANG=C.UTF-8 TERM=tmux-256color").await?;
        terminal.shows("[In").await?;
        terminal.types("/to bob").await?;
        terminal.keys(&["Enter"]).await?;
        terminal.shows("Subject :").await?;
        terminal.types("Kept").await?;
        terminal.keys(&["Enter"]).await?;
        terminal.types("every word").await?;
        self.world.nodes.kill(Node::Big).await?;
        terminal.shows("BIG-NODE DOES NOT ANSWER").await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("not sent: big-node is not running").await?;
        terminal.types(" of it").await?;
        self.world.nodes.start_big().await?;
        terminal.shows("kept as a draft").await?;
        let is_it = |line: &big_node::request::Line| line.subject == "Kept";
        let alice = self.world.desk("alice");
        alice.arrival(Folder::Drafts, "the draft is there", is_it).await?;
        terminal.keys(&["F2"]).await?;
        terminal.shows("sent to 1 recipient").await?;
        let bob = self.world.desk("bob");
        let line = bob.arrival(Folder::In, "bob has it", is_it).await?;
        let read = bob.read(&line.id).await?;
        if read.text.trim_end() != "every word of it" {
            return Err(format!("bob reads {:?}", read.text).into());
        }
        if alice.messages(Folder::Drafts).await?.iter().any(is_it) {
            return Err("what was sent is still a draft".into());
        }
        terminal.ends().await
    }
}

/// Whether what a terminal was sent is without colour.
fn no_colour(raw: &str) -> Result<(), Trouble> {
    let sequences = raw.split("\x1b[").skip(1).filter_map(|text| text.split_once('m'));
    let mut said =
        sequences.flat_map(|(numbers, _)| numbers.split(';')).filter_map(|number| number.parse().ok());
    // 39 and 49 are the terminal's own.
    match said.any(|number: u8| matches!(number, 30..=38 | 40..=48 | 90..=107)) {
        true => Err(format!("there is colour:\n{raw:?}").into()),
        false => Ok(()),
    }
}

/// A message that would drive a terminal, if it could.
fn hostile(subject: &str) -> Vec<u8> {
    let text = format!(
        "\x1b[2J\x1b]0;owned\x07\u{9b}31m\r\nturned \u{202e}around\u{200b}\r\nz{}\r\nCafé 日本\r\n{}\r\n",
        "\u{301}".repeat(1000),
        "x".repeat(300),
    );
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let lines: Vec<_> = encoded.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
    format!(
        "From: Carol <{CAROL}>\r\nTo: {ALICE}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

fn letter(subject: &str, text: &str) -> Vec<u8> {
    format!("From: Carol <{CAROL}>\r\nTo: {ALICE}\r\nSubject: {subject}\r\n\r\n{text}\r\n").into_bytes()
}
