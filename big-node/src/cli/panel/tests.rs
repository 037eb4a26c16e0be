//! The desk as a person meets it: keys and answers go in, requests come out, and a screen is looked at.

use std::collections::BTreeSet;

use clap::Parser;
use ratatui::Terminal as Screen;
use ratatui::backend::TestBackend;
use serde::Serialize;
use shared::unit::{DeliveryState, ReviseMode, ReviseResult};

use super::keys::{self, Action, Key};
use super::listing::Source;
use super::listing::tests::{line, lines};
use super::model::{Effect, Failure, Input, Model, Part, Purpose, Then};
use super::reader::tests::reading;
use super::text::Repertoire;
use super::{Terminal, command, view};
use crate::directory::entry::Pop3;
use crate::record::Part as Attached;
use crate::request::{
    About, DraftSaved, FolderView, Found, Line, PersonView, Reading, RecipientView, Request, RevisedView,
    Sent, Status,
};

const AWAY: &str = "big-node is not running for this topology: start it with `big-node serve`";

/// A desk, and what it wants done and has not been answered yet.
struct Play {
    model: Model,
    effects: Vec<Effect>,
}

impl Play {
    fn new(columns: usize, rows: usize, repertoire: Repertoire) -> Self {
        let person = PersonView {
            name: "alice".into(),
            display: "Alice".into(),
            addresses: vec!["alice@example.com".into()],
            filing: None,
            uid: None,
            pop3: Pop3::Yes,
            forward: vec![],
            keep_copy: false,
            travelling: false,
        };
        let (model, effects) = Model::new(person, columns, rows, repertoire);
        Self { model, effects }
    }

    /// A desk whose In holds these lines.
    fn with(lines: &[Line]) -> Self {
        let mut play = Self::new(80, 24, Repertoire::Unicode);
        play.folders(1);
        play.page("in", lines);
        play.effects.clear();
        play
    }

    fn apply(&mut self, input: Input) {
        let effects = self.model.apply(input);
        self.effects.extend(effects);
    }

    fn keys(&mut self, keys: &[Key]) {
        for key in keys {
            self.apply(Input::Key(*key));
        }
    }

    fn types(&mut self, text: &str) {
        for c in text.chars() {
            self.apply(Input::Key(if c == '\n' { Key::Enter } else { Key::Char(c) }));
        }
    }

    /// The request for a purpose, which must be waiting.
    fn asked(&mut self, purpose: &Purpose) -> (Request, Vec<u8>) {
        let is_it = |effect: &Effect| matches!(effect, Effect::Ask(other, _, _) if other == purpose);
        let at = self.effects.iter().position(is_it).unwrap_or_else(|| {
            panic!("{purpose:?} is not among {:?}", self.effects);
        });
        match self.effects.remove(at) {
            Effect::Ask(_, request, body) => (*request, body),
            other => panic!("{other:?}"),
        }
    }

    /// Answers a purpose, and gives what was asked.
    fn answers(&mut self, purpose: &Purpose, answer: &impl Serialize) -> (Request, Vec<u8>) {
        let asked = self.asked(purpose);
        let json = serde_json::to_value(answer).expect("JSON");
        self.apply(Input::Answered(purpose.clone(), Ok((json, Vec::new()))));
        asked
    }

    fn fails(&mut self, purpose: &Purpose, failure: Failure) {
        self.asked(purpose);
        self.apply(Input::Answered(purpose.clone(), Err(failure)));
    }

    fn folders(&mut self, unread: u64) {
        let folder = |name: &str, own, unread| FolderView { name: name.into(), own, messages: 10, unread };
        let folders = vec![
            folder("in", false, unread),
            folder("sent", false, 0),
            folder("trash", false, 0),
            folder("Attic", true, 2),
        ];
        self.answers(&Purpose::Folders, &folders);
    }

    fn page(&mut self, folder: &str, lines: &[Line]) {
        self.answers(&Purpose::Page(Source::Folder(folder.into()), false), &lines);
    }

    /// Opens the chosen message, which is this one.
    fn reads(&mut self, reading: &Reading) {
        self.keys(&[Key::Enter]);
        self.answers(&Purpose::Reading(reading.id.clone()), reading);
    }

    fn screen(&self) -> Vec<String> {
        let (columns, rows) = (self.model.columns, self.model.rows);
        let backend = TestBackend::new(columns.try_into().expect("small"), rows.try_into().expect("small"));
        let mut screen = Screen::new(backend).expect("a screen");
        screen.draw(|frame| view::draw(&self.model, frame, false)).expect("drawn");
        let buffer = screen.backend().buffer().clone();
        let rows = buffer.content().chunks(columns);
        rows.map(|cells| {
            let mut row = String::new();
            let mut skipped = 0_usize;
            for cell in cells {
                if skipped == 0 {
                    row.push_str(cell.symbol());
                    skipped = super::text::width(cell.symbol()).saturating_sub(1);
                } else {
                    skipped -= 1;
                }
            }
            row.trim_end().to_owned()
        })
        .collect()
    }

    /// The screen as one text.
    fn shown(&self) -> String {
        self.screen().join("\n")
    }

    fn sees(&self, text: &str) {
        assert!(self.shown().contains(text), "«{text}» is not on\n{}", self.shown());
    }
}

fn draft(play: &mut Play, then: Then) -> (Request, Vec<u8>) {
    play.answers(&Purpose::Kept(then), &DraftSaved { id: "D1".into() })
}

fn sent() -> Sent {
    Sent { id: "S1".into(), recipients: vec![recipient()] }
}

fn recipient() -> RecipientView {
    RecipientView {
        address: "carol@remote.example".into(),
        via: None,
        forwarder: None,
        gateway: None,
        state: DeliveryState::Relayed,
        at: 1_795_333_263_250,
        host: Some("mx.remote.example".into()),
        tls: Some("TLS 1.3".into()),
        relay: None,
        status: "2.0.0".into(),
        text: "250 ok \x1b[2J".into(),
        host_reports: false,
        in_doubt: false,
        next_attempt_at: None,
        redirect: None,
        revised: None,
    }
}

#[test]
fn what_the_terminal_can_do_is_in_the_environment() {
    let of = |variables: &[(&str, &str)]| {
        Terminal::of(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map_or(String::new(), |(_, value)| (*value).to_owned())
        })
    };
    let unicode = Terminal { repertoire: Repertoire::Unicode, colour: true };
    let ascii = Terminal { repertoire: Repertoire::Ascii, colour: true };
    assert_eq!(of(&[("TERM", "xterm"), ("LANG", "de_DE.UTF-8")]), Ok(unicode));
    assert_eq!(of(&[("TERM", "xterm"), ("LANG", "en_US.utf8"), ("LC_ALL", "C")]), Ok(ascii));
    assert_eq!(of(&[("TERM", "xterm")]), Ok(ascii));
    let mono = Terminal { colour: false, ..unicode };
    assert_eq!(of(&[("TERM", "vt100"), ("LC_CTYPE", "C.UTF-8")]), Ok(mono));
    assert_eq!(of(&[("TERM", "xterm"), ("LANG", "C.UTF-8"), ("NO_COLOR", "1")]), Ok(mono));
    assert!(of(&[("TERM", "dumb")]).expect_err("no cursor").contains("TERM is dumb"));
    assert!(of(&[]).expect_err("no terminal").contains("TERM is not set"));
}

#[test]
fn the_list_says_what_there_is_and_how_to_go_on() {
    let mut unread = line("00003");
    (unread.read, unread.from) = (false, "Mallory\x1b]0;x\x07\u{202e} <m@x.example>".into());
    let attachment = Line {
        id: "00003.1".into(),
        part: 1,
        subject: "report.pdf".into(),
        content_type: Some("application/pdf".into()),
        size: 2048,
        ..line("00003")
    };
    let play = Play::with(&[unread, attachment, Line { answered: true, amended: true, ..line("00001") }]);
    let screen = play.screen();
    assert!(screen[0].starts_with(" Sallypost   Alice <alice@example.com>"), "{}", screen[0]);
    assert!(screen[1].starts_with("[In 1] Sent  Trash  Attic 2"), "{}", screen[1]);
    assert_eq!(screen[3], "> N    2026-11-22 07:41  Mallory␛]0;x␇ <m@x.…  subject 00003");
    assert_eq!(screen[4], "                2.0 KiB  application/pdf       1: report.pdf");
    assert_eq!(screen[5], "  AR   2026-11-22 07:41  Carol Jones <carol@…  subject 00001");
    assert_eq!(screen[22], "Command ===>");
    assert!(screen[23].ends_with("F12 Quit"), "{}", screen[23]);
}

#[test]
fn a_hostile_message_is_read_and_drives_nothing() {
    let mut play = Play::with(&[line("00001")]);
    let mut hostile = reading("00001", "");
    hostile.subject = format!("\x1b[31m\u{202e}{}", "long ".repeat(20));
    hostile.text = format!(
        "\x1b]0;owned\x07\x1b[2J\u{9b}1mred\rback\u{202e}turned\u{2066}\u{200b}\nz{}\n{}\n日本 \u{fffd}",
        "\u{301}".repeat(5000),
        "overlong".repeat(50),
    );
    play.reads(&hostile);
    play.sees("␛]0;owned␇␛[2J\u{fffd}1mred␍backturned");
    play.sees(&format!("z{}\n", "\u{301}".repeat(8)));
    play.sees("日本 \u{fffd}");
    let screen = play.screen();
    assert!(screen.iter().all(|row| super::text::width(row) <= 80));
    assert_eq!(screen.iter().filter(|row| row.contains("overlong")).count(), 5);
    let shown = play.shown();
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    // The same without Unicode.
    let mut play = Play::new(80, 24, Repertoire::Ascii);
    play.page("in", &[line("00001")]);
    play.reads(&hostile);
    play.sees("^[]0;owned^G^[[2J?1mred^Mbackturned");
    play.sees("?? ?");
    assert!(play.shown().chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{}", play.shown());
}

#[test]
fn an_answer_needs_no_address() {
    let mut play = Play::with(&[line("00001")]);
    play.keys(&[Key::F(2)]);
    play.answers(
        &Purpose::Begin(super::model::Intent::Reply(super::compose::ReplyTo::Author)),
        &reading("00001", "Lunch?\n"),
    );
    play.sees("Answer to Carol Jones <carol@remote.example>");
    play.sees("> Lunch?");
    play.types("At one.\n");
    play.keys(&[Key::F(2)]);
    play.sees("sending");
    // A second Send while it is under way sends nothing.
    play.keys(&[Key::F(2)]);
    let (request, body) = play.answers(&Purpose::Sent, &sent());
    let Request::MailSend { person, written, quote: false } = request else { panic!("{request:?}") };
    assert_eq!((person.as_str(), written.text_bytes), ("alice", body.len()));
    assert_eq!(written.about, Some(About::Reply { message: "00001".into(), all: false, list: false }));
    assert!(written.to.is_empty() && written.cc.is_empty());
    assert!(body.starts_with(b"At one.\n\n\nOn 2026-11-22 07:41 UTC, Carol Jones"));
    play.sees("sent to 1 recipient");
    assert!(play.effects.iter().all(|effect| !matches!(effect, Effect::Ask(Purpose::Sent, _, _))));
}

#[test]
fn commands_write_to_names_and_gateways() {
    let mut play = Play::with(&[]);
    play.types("/to b");
    play.keys(&[Key::Tab]);
    play.types("\n");
    play.sees("To      : b");
    play.keys(&[Key::Esc]);
    play.types("/smtp bobl@remote.example\n");
    play.sees("To      : /smtp bobl@remote.example");
    play.types("Hi\nText");
    play.keys(&[Key::Ctrl('p')]);
    play.types("cc carol\n");
    play.keys(&[Key::Ctrl('x')]);
    let (request, body) = play.asked(&Purpose::Sent);
    let Request::MailSend { written, .. } = request else { panic!("{request:?}") };
    assert_eq!(written.to, ["/smtp bobl@remote.example"]);
    assert_eq!(written.cc, ["carol"]);
    assert_eq!((written.subject.as_str(), body.as_slice()), ("Hi", &b"Text"[..]));
    let mut play = Play::with(&[]);
    play.types("/nonsense\n");
    play.sees("there is no command /NONSENSE");
}

#[test]
fn what_is_written_outlives_a_lost_connection() {
    let mut play = Play::with(&[]);
    play.types("/to bob\nLunch\nAt one");
    play.keys(&[Key::F(2)]);
    play.fails(&Purpose::Sent, Failure::Away(AWAY.into()));
    play.sees("not sent: big-node is not running");
    play.sees("BIG-NODE DOES NOT ANSWER");
    play.types("!");
    play.sees("At one!");
    play.apply(Input::Watched(Err(Failure::Away(AWAY.into()))));
    play.apply(Input::Watched(Ok(1)));
    let (request, body) = draft(&mut play, Then::Stay);
    assert!(matches!(request, Request::DraftSave { draft: None, .. }));
    assert_eq!(body, b"At one!");
    play.sees("kept as a draft");
    // What was kept is sent as that draft, as it is then.
    play.types("!");
    play.keys(&[Key::F(2)]);
    let (request, body) = draft(&mut play, Then::Send);
    assert!(matches!(request, Request::DraftSave { draft: Some(_), .. }) && body == b"At one!!");
    let (request, _) = play.answers(&Purpose::Sent, &sent());
    assert!(matches!(request, Request::DraftSend { draft, .. } if draft == "D1"));
}

#[test]
fn nothing_that_was_written_is_lost_at_the_end() {
    let written = || {
        let mut play = Play::with(&[]);
        play.types("/to bob\nLunch\nAt one");
        play
    };
    let is_end = |effect: &Effect| matches!(effect, Effect::End(_));
    let mut play = written();
    play.keys(&[Key::F(12)]);
    play.sees("Keep what you wrote as a draft?");
    play.keys(&[Key::Esc]);
    play.sees("At one");
    play.keys(&[Key::F(12), Key::Char('y')]);
    draft(&mut play, Then::End);
    assert!(play.effects.iter().any(is_end));
    // With nobody there, it goes to a file.
    let mut play = written();
    play.keys(&[Key::F(12), Key::Char('y')]);
    play.fails(&Purpose::Kept(Then::End), Failure::Away(AWAY.into()));
    let kept = play.effects.iter().find_map(|effect| match effect {
        Effect::Keep(text) => Some(text.clone()),
        _ => None,
    });
    assert_eq!(kept.as_deref(), Some("To: bob\nCc: \nSubject: Lunch\n\nAt one\n"));
    play.apply(Input::Kept(Ok("/home/alice/sallypost-unsent.txt".into())));
    let is_said = |effect: &Effect| matches!(effect, Effect::End(Some(said)) if said.contains("unsent.txt"));
    assert!(play.effects.iter().any(is_said));
    // The same for who hangs up while the node stands still.
    let mut play = written();
    play.apply(Input::Gone);
    play.apply(Input::Gone);
    assert!(matches!(play.asked(&Purpose::Kept(Then::End)).0, Request::DraftSave { .. }));
    play.apply(Input::Tick(2000));
    assert!(play.effects.is_empty());
    play.apply(Input::Tick(4000));
    assert!(matches!(play.effects.as_slice(), [Effect::Keep(_)]));
    // And with nothing written, nothing is asked.
    let mut play = Play::with(&[]);
    play.keys(&[Key::Char('q')]);
    assert!(matches!(play.effects.as_slice(), [Effect::End(None)]));
}

#[test]
fn mail_comes_while_another_is_read() {
    let mut play = Play::with(&lines(3, 1));
    play.keys(&[Key::Down]);
    play.reads(&reading("00002", &"a line\n".repeat(100)));
    play.keys(&[Key::F(8)]);
    let before = play.screen();
    play.apply(Input::Watched(Ok(1)));
    play.apply(Input::Watched(Ok(2)));
    play.folders(2);
    play.page("in", &lines(4, 1));
    play.sees("a new message in In");
    assert_eq!(play.screen()[2..20], before[2..20]);
    play.keys(&[Key::F(3)]);
    play.sees("[In 2]");
    play.sees("> ");
    assert!(play.screen()[5].contains("subject 00002") && play.screen()[5].starts_with('>'));
}

#[test]
fn many_changes_are_one_question_at_a_time() {
    let mut play = Play::with(&lines(3, 1));
    for mark in 0..50 {
        play.apply(Input::Watched(Ok(mark)));
    }
    let pages = |play: &Play| {
        let is_page = |effect: &&Effect| matches!(effect, Effect::Ask(Purpose::Page(..), _, _));
        play.effects.iter().filter(is_page).count()
    };
    assert_eq!(pages(&play), 1);
    play.page("in", &lines(3, 1));
    assert_eq!(pages(&play), 1);
    play.page("in", &lines(3, 1));
    assert_eq!(pages(&play), 0);
}

#[test]
fn thousands_of_messages_come_by_the_page() {
    let mut play = Play::with(&lines(5000, 4901));
    play.keys(&[Key::End]);
    let source = Source::Folder("in".into());
    let (request, _) = play.answers(&Purpose::Page(source, true), &lines(4900, 4801));
    assert!(matches!(request, Request::MailList { before: Some(before), .. } if before == "04901"));
    play.sees("100/200+");
    play.keys(&[Key::F(8)]);
    play.sees("117/200+");
}

#[test]
fn a_message_is_deleted_once() {
    let mut play = Play::with(&lines(3, 1));
    play.keys(&[Key::Char('d'), Key::Char('d')]);
    for id in ["00003", "00002"] {
        let (request, _) = play.asked(&Purpose::Deleted);
        assert!(matches!(request, Request::MailDelete { message, .. } if message == id));
    }
    // In Trash it is asked for.
    let mut play = Play::with(&[Line { folder: "trash".into(), ..line("00001") }]);
    play.keys(&[Key::Char('d')]);
    play.sees("Delete it for good?");
    play.keys(&[Key::Enter, Key::Char('n')]);
    assert!(play.effects.is_empty());
    play.keys(&[Key::Delete, Key::Char('y')]);
    play.fails(&Purpose::Deleted, Failure::Refused("it is held".into()));
    play.sees("it is held");
    play.page("in", &lines(1, 1));
    play.sees("subject 00001");
}

#[test]
fn what_one_has_sent_is_revised_and_what_one_has_got_is_returned() {
    let mut play = Play::with(&[line("00001")]);
    let mut own = reading("00001", "old text");
    own.from = vec!["Alice <alice@example.com>".into()];
    own.revision = 1;
    play.reads(&own);
    play.keys(&[Key::F(6)]);
    play.sees("this is its revision 1");
    play.sees("[replace] append  withdraw");
    play.keys(&[Key::BackTab]);
    play.types("typo");
    play.keys(&[Key::F(2)]);
    let mut revised = recipient();
    let result = ReviseResult::Replaced;
    revised.revised = Some(RevisedView { revision: 2, result, at: 1_795_333_263_250, text: String::new() });
    let status =
        Status { id: "00001".into(), subject: "Lunch".into(), late: false, recipients: vec![revised] };
    let (request, body) = play.answers(&Purpose::Sent, &status);
    let Request::MailAmend { mode, base, reason, .. } = request else { panic!("{request:?}") };
    assert_eq!((mode, base, reason.as_deref()), (ReviseMode::Replace, Some(1), Some("typo")));
    assert_eq!(body, b"old text");
    play.sees("revision 2: replaced, 2026-11-22 07:41 UTC");
    play.sees("mx.remote.example under TLS 1.3: 2.0.0 250 ok ␛[2J");
    // Another's is returned; nobody need be named.
    let mut play = Play::with(&[line("00001")]);
    play.reads(&reading("00001", "their text"));
    play.keys(&[Key::Char('e'), Key::F(2)]);
    let (request, _) = play.asked(&Purpose::Sent);
    let Request::MailSend { written, .. } = request else { panic!("{request:?}") };
    assert_eq!(written.about, Some(About::Return { message: "00001".into(), without: vec![] }));
    assert!(written.to.is_empty());
    play.effects.clear();
    let mut play = Play::with(&[line("00001")]);
    play.reads(&reading("00001", "their text"));
    play.keys(&[Key::Char('W')]);
    play.sees("only what you have sent yourself");
}

#[test]
fn a_history_is_drawn_with_what_differs_and_nothing_in_it_passes_for_a_heading() {
    let mut play = Play::with(&[line("00001")]);
    play.keys(&[Key::Char('h')]);
    let view = |revision, mode, reason: Option<&str>, difference: &str| crate::request::RevisionView {
        revision,
        at: 1_795_333_263_250,
        mode,
        reason: reason.map(str::to_owned),
        author: "alice".into(),
        subject: "Lunch".into(),
        difference: difference.into(),
    };
    let history = [
        view(0, None, None, ""),
        view(
            1,
            Some(ReviseMode::Replace),
            Some("wrong\x1b[2J day"),
            "-At noon.\n+REVISION 9: withdraw\n Yours\n",
        ),
    ];
    let (request, _) = play.answers(&Purpose::History, &history);
    assert!(matches!(request, Request::MailHistory { message, .. } if message == "00001"));
    play.sees("REVISION 0: the original, by alice, 2026-11-22 07:41 UTC");
    play.sees("REVISION 1: replace, by alice, 2026-11-22 07:41 UTC");
    play.sees("wrong␛[2J day");
    for row in ["-At noon.", "+REVISION 9: withdraw", " Yours"] {
        assert!(play.shown().lines().any(|line| line.starts_with(row)), "{row}: {}", play.shown());
    }
    assert!(!play.shown().lines().any(|line| line.starts_with("REVISION 9")));
}

#[test]
fn where_it_is_stays_true() {
    let mut play = Play::with(&[line("00001")]);
    play.keys(&[Key::F(11)]);
    let purpose = Purpose::Status("00001".into());
    let mut status =
        Status { id: "00001".into(), subject: "Lunch".into(), late: false, recipients: vec![recipient()] };
    status.recipients[0].state = DeliveryState::Queued;
    play.answers(&purpose, &status);
    play.sees("queued, 2026-11-22 07:41 UTC");
    status.recipients[0].state = DeliveryState::Relayed;
    // Nothing else is open by now.
    play.model.open = 0;
    play.apply(Input::Tick(1000));
    play.answers(&purpose, &status);
    play.sees("relayed, 2026-11-22 07:41 UTC");
    // So does how far a travel window is.
    play.types("/travel\n");
    play.answers(&Purpose::Travel, &Vec::<crate::request::WindowView>::new());
    play.sees("You do not travel.");
    play.model.open = 0;
    play.apply(Input::Tick(2000));
    play.asked(&Purpose::Travel);
}

#[test]
fn attachments_are_opened_and_saved_by_number() {
    let mut play = Play::with(&[line("00001")]);
    let mut message = reading("00001", "see the file");
    message.parts = vec![Attached {
        number: 1,
        index: 1,
        name: Some("../../etc/passwd".into()),
        content_type: "text/plain".into(),
        size: 3,
    }];
    play.reads(&message);
    play.keys(&[Key::Char('1')]);
    let mut part = reading("00001.1", "abc");
    part.part_name = message.parts[0].name.clone();
    part.content_type = Some("text/plain".into());
    play.answers(&Purpose::Reading("00001.1".into()), &part);
    play.sees("Attachment  1, ../../etc/passwd, text/plain");
    play.keys(&[Key::F(3), Key::F(5)]);
    play.types("1 /tmp/here\n");
    let purpose = Purpose::Save("/tmp/here".into());
    let (request, _) = play.asked(&purpose);
    assert!(matches!(request, Request::MailRead { message, .. } if message == "00001.1"));
    let json = serde_json::to_value(&part).expect("JSON");
    play.effects.clear();
    play.apply(Input::Answered(purpose, Ok((json, b"abc".to_vec()))));
    let [Effect::Save { into, name, octets }] = play.effects.as_slice() else { panic!("{:?}", play.effects) };
    assert_eq!((into.as_str(), octets.as_slice()), ("/tmp/here", &b"abc"[..]));
    assert!(!name.contains('/'), "{name}");
}

#[test]
fn words_are_looked_for() {
    let mut play = Play::with(&lines(3, 1));
    play.keys(&[Key::F(9)]);
    play.types("lunch friday\n");
    let source = Source::Search { words: "lunch friday".into(), folder: None };
    let found = Found { lines: lines(2, 2), looked_at: 7, unread_texts: 0, behind: None };
    let (request, _) = play.answers(&Purpose::Page(source.clone(), false), &found);
    assert!(matches!(request, Request::MailSearch { words, folder: None, .. } if words == "lunch friday"));
    play.sees("Found in all folders: lunch friday   1 of 7 messages");
    play.sees("> ");
    play.keys(&[Key::F(3)]);
    play.sees("[In 1]");

    // A long one shows what it has found so far, and goes on until Esc.
    play.keys(&[Key::F(9)]);
    play.types("lunch friday\n");
    let behind = |id: &str| Found { behind: Some(id.into()), ..found.clone() };
    play.answers(&Purpose::Page(source.clone(), false), &behind("00002"));
    play.sees("1 of 7 messages; looking; Esc stops it");
    play.sees("subject 00002");
    let (request, _) = play.answers(&Purpose::Page(source.clone(), true), &behind("00001"));
    let is_next = |request| match request {
        Request::MailSearch { max, before, .. } => (max, before.as_deref() == Some("00002")),
        other => panic!("{other:?}"),
    };
    assert_eq!(is_next(request), (499, true));
    play.sees("2 of 14 messages");
    play.keys(&[Key::Esc]);
    play.sees("lunch friday   2 of 14 messages; stopped there");
    play.answers(&Purpose::Page(source, true), &behind("00000"));
    assert!(!play.effects.iter().any(|effect| matches!(effect, Effect::Ask(Purpose::Page(..), _, _))));
    play.keys(&[Key::Esc]);
    play.sees("[In 1]");
}

#[test]
fn answers_are_set_in_under_what_they_answer() {
    let mut play = Play::with(&[line("00001")]);
    play.keys(&[Key::F(10)]);
    let answer = |id: &str, depth| Line { depth, ..line(id) };
    let lines = [answer("00001", 0), answer("00002", 1), answer("00003", 2), answer("00004", 5)];
    let (request, _) = play.answers(&Purpose::Page(Source::Thread("00001".into()), false), &lines);
    assert!(matches!(request, Request::MailThread { message, .. } if message == "00001"));
    let subjects: Vec<_> =
        play.screen()[3..7].iter().map(|row| row[row.find("in ").unwrap_or(0)..].to_owned()).collect();
    let expected = ["", "  ", "    ", "          "].into_iter().zip(1..);
    let expected: Vec<_> = expected.map(|(by, n)| format!("in         {by}subject 0000{n}")).collect();
    assert_eq!(subjects, expected);
}

#[test]
fn folders_are_turned_and_named() {
    let mut play = Play::with(&lines(3, 1));
    play.keys(&[Key::Tab]);
    let (request, _) = play.asked(&Purpose::Page(Source::Folder("sent".into()), false));
    assert!(matches!(request, Request::MailList { folder, before: None, .. } if folder == "sent"));
    play.sees("[Sent]");
    play.types("/folder attic\n");
    play.sees("[Attic 2]");
    play.types("/folder nowhere\n");
    play.sees("there is no folder nowhere; there are in, sent, trash, Attic");
}

#[test]
fn a_screen_that_is_too_small_says_so_and_comes_back() {
    let mut play = Play::with(&lines(3, 1));
    play.apply(Input::Resize(60, 20));
    play.sees("needs 80 columns and 24 rows; this screen\nhas 60 and 20");
    play.keys(&[Key::Char('d')]);
    assert!(play.effects.is_empty());
    play.apply(Input::Resize(3, 1));
    play.screen();
    play.apply(Input::Resize(120, 40));
    play.sees("subject 00003");
    assert!(play.screen()[39].contains("F10 Thread F11 Where F12 Quit"), "{}", play.screen()[39]);
}

#[test]
fn names_are_picked_from_the_address_book() {
    let mut play = Play::with(&[]);
    play.keys(&[Key::Char('b')]);
    let nicknames = vec![
        crate::request::NicknameView { name: "cj".into(), target: Some("carol@remote.example".into()) },
        crate::request::NicknameView { name: "dd".into(), target: Some("dave".into()) },
    ];
    play.answers(&Purpose::Directory(Part::Nicknames), &nicknames);
    play.sees(">  cj");
    play.keys(&[Key::Char(' '), Key::Char(' '), Key::Enter]);
    play.sees("To      : cj, dd");
}

#[test]
fn help_names_every_key_and_command() {
    let mut play = Play::with(&[]);
    play.keys(&[Key::F(1)]);
    play.sees("KEYS HERE");
    play.sees("  F2, r                    answer; no address is typed");
    play.keys(&[Key::End]);
    play.sees("MARKS IN LISTS");
    play.keys(&[Key::Char('q')]);
    play.sees("[In 1]");
}

#[test]
fn without_unicode_the_desk_is_drawn_in_ascii() {
    let mut play = Play::new(80, 24, Repertoire::Ascii);
    play.page("in", &[Line { subject: "Café “x” 日本".into(), ..line("00001") }]);
    play.sees("Cafe \"x\" ??");
    for keys in [&[Key::F(1)][..], &[Key::F(3), Key::F(5)], &[Key::Esc, Key::Char('b')]] {
        play.keys(keys);
        assert!(play.shown().chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{}", play.shown());
    }
}

/// What each word that can be typed asks the node, and where it is typed; nothing for what happens on the screen. A word
/// behind which something is sent stands with that.
const ASKS: &[(&str, &str, &[&str])] = &[
    ("TO", "/to bob", &[]),
    ("CC", "/cc bob", &[]),
    ("SUBJECT", "/subject x", &[]),
    ("NEW", "/new", &[]),
    ("REPLY", "/reply list", &["mail-read", "mail-send"]),
    ("FORWARD", "/forward bob", &["mail-read", "mail-send"]),
    ("AMEND", "/amend", &["mail-read", "mail-send"]),
    ("WITHDRAW", "/withdraw typo", &["mail-read", "mail-amend"]),
    ("FIND", "/find x", &["mail-search"]),
    ("FINDHERE", "/findhere x", &["mail-search"]),
    ("FOLDER", "/folder sent", &["mail-list"]),
    ("MOVE", "/move Attic", &["mail-move"]),
    ("MAKE", "/make x", &["folder-add"]),
    ("RENAME", "/rename Attic y", &["folder-rename"]),
    ("REMOVE", "/remove Attic", &["folder-remove"]),
    ("OPEN", "/open 1", &["mail-read"]),
    ("SAVE", "/save 1", &["mail-read"]),
    ("ATTACH", "/attach x", &[]),
    ("DETACH", "/detach 1", &[]),
    ("SEND", "/send", &["mail-send"]),
    ("DRAFT", "/draft", &["draft-save"]),
    ("EDITOR", "/editor", &[]),
    ("DISCARD", "/discard", &[]),
    ("DELETE", "/delete", &["mail-delete"]),
    ("READ", "/read", &["mail-mark"]),
    ("UNREAD", "/unread", &["mail-mark"]),
    ("WHERE", "/where", &["mail-status"]),
    ("HISTORY", "/history", &["mail-history"]),
    ("THREAD", "/thread", &["mail-thread"]),
    ("BOOK", "/book", &["person-list", "shadow", "group", "gateway", "nickname"]),
    ("NICKNAME", "/nickname cj bob", &["nickname"]),
    ("FORGET", "/forget cj", &["nickname"]),
    ("TRAVEL", "/travel", &["travel-list"]),
    ("TRAVEL", "/travel start standing", &["travel-start"]),
    ("TRAVEL", "/travel end", &["travel-end"]),
    ("EXPLAIN", "/explain bob", &["explain"]),
    ("TRACE", "/trace", &["trace"]),
    ("HELP", "/help", &[]),
    ("QUIT", "/quit", &[]),
];

/// The commands that make the same requests, and those that the desk makes by itself.
const COMMANDS: &[(&str, &str)] = &[
    ("draft-save", "mail draft save --to bob"),
    ("draft-send", "mail draft send ID"),
    ("draft-show", "mail draft show ID"),
    ("explain", "explain bob"),
    ("folder-add", "mail folder add x"),
    ("folder-remove", "mail folder remove x"),
    ("folder-rename", "mail folder rename x y"),
    ("gateway", "gateway list"),
    ("group", "group list"),
    ("mail-amend", "mail amend ID --withdraw --reason typo"),
    ("mail-delete", "mail delete ID"),
    ("mail-folders", "mail folder list"),
    ("mail-history", "mail history ID"),
    ("mail-list", "mail list --folder sent"),
    ("mail-mark", "mail mark ID --unread"),
    ("mail-move", "mail move ID saved"),
    ("mail-read", "mail read ID.1"),
    ("mail-search", "mail search x --folder in"),
    ("mail-send", "mail reply ID --all"),
    ("mail-status", "mail status ID"),
    ("mail-thread", "mail thread ID"),
    ("mail-watch", "mail watch"),
    ("nickname", "nickname list --as alice"),
    ("person-list", "person list"),
    ("person-show", "person show alice"),
    ("shadow", "shadow list"),
    ("trace", "trace ID"),
    ("travel-end", "travel end alice"),
    ("travel-list", "travel list"),
    ("travel-start", "travel start alice --until standing"),
    ("whoami", "mail list"),
];

/// The word that does what a key does; `None` for what only moves about on the screen. A new action does not compile
/// without its row.
fn word_of(action: Action) -> Option<&'static str> {
    Some(match action {
        Action::Help => "HELP",
        Action::Open | Action::Newer | Action::Older => "OPEN",
        Action::Quit => "QUIT",
        Action::Find => "FIND",
        Action::NextFolder | Action::PreviousFolder | Action::Refresh => "FOLDER",
        Action::New => "NEW",
        Action::Reply | Action::ReplyAll => "REPLY",
        Action::Forward => "FORWARD",
        Action::Amend => "AMEND",
        Action::Withdraw => "WITHDRAW",
        Action::Delete => "DELETE",
        Action::Move => "MOVE",
        Action::Mark => "UNREAD",
        Action::Status => "WHERE",
        Action::History => "HISTORY",
        Action::Thread => "THREAD",
        Action::Save => "SAVE",
        Action::Book => "BOOK",
        Action::Travel => "TRAVEL",
        Action::Send => "SEND",
        Action::Draft => "DRAFT",
        Action::Edit => "EDITOR",
        Action::Attach => "ATTACH",
        Action::Pick => "TO",
        Action::Up
        | Action::Down
        | Action::PageUp
        | Action::PageDown
        | Action::First
        | Action::Last
        | Action::Back
        | Action::Command
        | Action::NextField
        | Action::PreviousField => return None,
    })
}

fn kind(request: &Request) -> String {
    match serde_json::to_value(request).expect("JSON") {
        serde_json::Value::String(kind) => kind,
        serde_json::Value::Object(kind) => kind.keys().next().cloned().unwrap_or_default(),
        other => panic!("{other}"),
    }
}

/// The kinds of the requests that wait.
fn kinds(play: &Play) -> BTreeSet<String> {
    let asked = play.effects.iter().filter_map(|effect| match effect {
        Effect::Ask(_, request, _) => Some(kind(request)),
        _ => None,
    });
    asked.collect()
}

/// What is asked from a list, or where that is refused, from a message that is written.
fn asked_by(word: &str, typed: &str) -> BTreeSet<String> {
    let mut play = Play::with(&[line("00001")]);
    let is_written = matches!(word, "CC" | "SUBJECT" | "ATTACH" | "DETACH" | "SEND" | "DRAFT" | "EDITOR");
    let mut message = reading("00001", "text");
    if is_written {
        play.types("/to bob\n\n");
        play.keys(&[Key::Ctrl('p')]);
    }
    if word == "WITHDRAW" {
        message.from = vec!["alice@example.com".into()];
    }
    if word == "OPEN" {
        play.reads(&message);
    }
    play.types(&format!("{}\n", typed.trim_start_matches(if is_written { "/" } else { "" })));
    let mut asked = kinds(&play);
    let begun = play.effects.iter().find_map(|effect| match effect {
        Effect::Ask(purpose @ Purpose::Begin(_), _, _) => Some(purpose.clone()),
        _ => None,
    });
    if let Some(begun) = begun {
        play.answers(&begun, &message);
        play.keys(&[Key::F(2)]);
        asked.extend(kinds(&play));
    }
    asked
}

#[test]
fn everything_the_desk_does_is_a_command_too() {
    let (mut words, mut requests) = (BTreeSet::new(), BTreeSet::new());
    for (word, typed, expected) in ASKS {
        let asked = asked_by(word, typed);
        assert_eq!(asked, expected.iter().map(|kind| (*kind).to_owned()).collect(), "{typed}");
        requests.extend(asked);
        words.insert(*word);
    }
    assert_eq!(words, command::words().collect());
    for action in keys::actions() {
        assert!(word_of(action).is_none_or(|word| words.contains(word)), "{action:?}");
    }
    // By itself it asks for the rest.
    let by_itself = ["draft-send", "draft-show", "mail-folders", "mail-watch", "person-show", "whoami"];
    requests.extend(by_itself.map(str::to_owned));
    assert_eq!(requests, COMMANDS.iter().map(|(kind, _)| (*kind).to_owned()).collect());
    for (kind, line) in COMMANDS {
        let line = line.replace("ID", "01KAN0Q5WJ8J1V9Z8G8Q4T7RXE");
        let parsed = crate::cli::Cli::try_parse_from(std::iter::once("big-node").chain(line.split(' ')));
        assert!(parsed.is_ok(), "{kind}: {line}: {parsed:?}");
    }
}
