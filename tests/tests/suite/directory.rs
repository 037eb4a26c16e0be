//! The directory as its people meet it: imported, written to from outside and inside, changed, removed.

use std::path::Path;

use big_node::record::Folder;
use big_node::request::{Explanation, GroupView, Imported, PersonView, Status};
use shared::unit::DeliveryState;
use tests::desk::Desk;
use tests::internet::mta::Mail;
use tests::internet::rules::{Rule, Stage};
use tests::ledger::Token;
use tests::messages::{Letter, SHORT};
use tests::process::Program;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, CAROL, World, accepted_as};

const PEOPLE: &str = "name,display,aliases,forward,keep_copy\n\
                      dora,Dora Day,,dora@remote.example,yes\n\
                      emil,Emil Eck,,,\n\
                      emma,Emma Ohm,e@example.com,,\n";
const SHADOWS: &str = "name,address,display\nzoe,zoe@remote.example,Zoe Outside\n";
const GROUPS: &str = "name,display,members\nboard,,team emil\nteam,The Team,alice emil zoe\n";

async fn world() -> Result<World, Trouble> {
    let world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    for (kind, table) in [("person", PEOPLE), ("shadow", SHADOWS), ("group", GROUPS)] {
        let imported: Imported = world.nodes.big.json(&[kind, "import", &file(&world, kind, table)?]).await?;
        assert_eq!(
            (imported.added, imported.rows, imported.bad.len()),
            (table.lines().count() - 1, imported.added, 0)
        );
    }
    for name in ["dora", "emil", "e", "zoe", "team", "board"] {
        takes(&world, &format!("{name}@example.com"), 250).await?;
    }
    Ok(world)
}

fn file(world: &World, name: &str, table: &str) -> Result<String, Trouble> {
    let path = world.nodes.topology.state.join(format!("{name}.csv"));
    std::fs::write(&path, table)?;
    Ok(Path::to_str(&path).ok_or("UTF-8")?.to_owned())
}

/// Waits until the edge answers RCPT so.
async fn takes(world: &World, address: &str, code: u16) -> Result<(), Trouble> {
    until(&format!("{address} is answered {code}"), SOON, async || {
        Ok((world.rcpt(address).await? == code).then_some(()))
    })
    .await
}

fn letter(to: &str, number: u64) -> Vec<u8> {
    Letter { from: CAROL, to, subject: "for the directory", token: Token { seed: 8, number } }.text(SHORT)
}

/// Waits until mail for `recipient` has come out, and gives all of it.
async fn outside(world: &World, recipient: &str, count: usize) -> Result<Vec<Mail>, Trouble> {
    until(&format!("{count} for {recipient} came out"), SOON, async || {
        let mail = world.internet.mta.mail();
        let theirs = mail.iter().filter(|mail| mail.recipients.iter().any(|to| to == recipient));
        let theirs: Vec<Mail> = theirs.map(|mail| Mail::clone(mail)).collect();
        Ok((theirs.len() >= count).then_some(theirs))
    })
    .await
}

fn text_of(mail: &Mail) -> String {
    String::from_utf8_lossy(&mail.data).into_owned()
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_a_name_is_not_guessed() -> Result<(), Trouble> {
    let world = world().await?;
    let big = &world.nodes.big;
    let before: Vec<PersonView> = big.json(&["person", "list"]).await?;
    let bad = file(&world, "bad", "name,aliases\nfine,\nalice,\nodd,x@elsewhere.example\nfine,\n")?;
    for arguments in [&["person", "import", &bad][..], &["person", "import", &bad, "--dry-run"]] {
        let done = big.finish(arguments, b"").await?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(done.stderr.contains("3 of 4 rows are wrong; nothing was changed"), "{}", done.stderr);
        for (line, reason) in
            [("3", "a person alice already"), ("4", "not in a domain"), ("5", "line 2 has that name")]
        {
            let found = said.lines().any(|row| row.starts_with(line) && row.contains(reason));
            assert!(found, "line {line}, {reason}: {said}");
        }
    }
    assert_eq!(big.json::<Vec<PersonView>>(&["person", "list"]).await?.len(), before.len());
    let exported = big.run(&["person", "export"]).await?;
    assert!(exported.contains("\ndora,Dora Day,,,,yes,dora@remote.example,yes\n"), "{exported}");

    let send =
        |to: &'static str| ["mail", "send", "--as", "alice", "--to", to, "--subject", "s", "--text", "t"];
    let refused = big.run(&send("em")).await.expect_err("two are meant");
    let reason = refused.refusal().ok_or("was refused")?;
    assert!(
        reason.contains("emil (person, Emil Eck)") && reason.contains("emma (person, Emma Ohm)"),
        "{reason}"
    );
    assert!(world.desk("alice").messages(Folder::Sent).await?.is_empty(), "nothing was sent");
    big.run(&["nickname", "add", "em", "emma", "--as", "alice"]).await?;
    big.run(&send("em")).await?;
    let arrived = world.desk("emma").arrival(Folder::In, "by nickname", |line| line.subject == "s").await?;
    assert!(arrived.from.contains(ALICE));
    let explained: Explanation = big.json(&["explain", "em", "--as", "alice"]).await?;
    assert_eq!(explained.address.as_deref(), Some("emma@example.com"));
    let text = big.run(&["explain", "team"]).await?;
    assert!(
        text.contains("zoe stands for zoe@remote.example") && text.contains("the mailbox of emil"),
        "{text}"
    );
    world.end().await
}

#[tokio::test]
async fn a_group_reaches_people_and_those_outside_from_both_sides() -> Result<(), Trouble> {
    let world = world().await?;
    let message = letter("board@example.com", 1);
    let id = world.receive(&["board@example.com", "alice+list@example.com"], &message).await?;
    for person in ["alice", "emil"] {
        world.desk(person).filed(Folder::In, &id).await?;
    }
    let out = outside(&world, "zoe@remote.example", 1).await?;
    assert!(
        out[0].reverse_path.starts_with("srs0+") && out[0].reverse_path.ends_with("=carol@example.com"),
        "{}",
        out[0].reverse_path
    );
    assert!(out[0].data.ends_with(&message), "what was written is not touched");

    let sent = world.desk("alice").send("team", "to all of us", "hello\n").await?;
    let status = until("zoe has it", SOON, async || {
        let status: Status = world.desk("alice").status(&sent.id).await?;
        let has_it = |view: &big_node::request::RecipientView| view.state == DeliveryState::Relayed;
        Ok(status.recipients.iter().any(has_it).then_some(status))
    })
    .await?;
    let shown: Vec<_> =
        status.recipients.iter().map(|view| (view.address.as_str(), view.via.as_deref())).collect();
    let via = Some("team@example.com");
    assert_eq!(shown, [(ALICE, via), ("emil@example.com", via), ("zoe@remote.example", via)]);
    let out = outside(&world, "zoe@remote.example", 2).await?;
    assert_eq!(out[1].reverse_path, ALICE, "alice speaks for herself");
    assert!(text_of(&out[1]).contains("team@example.com"), "and to the group");

    world.nodes.big.run(&["group", "set", "team", "--remove-member", "zoe"]).await?;
    let shown: Vec<GroupView> = world.nodes.big.json(&["group", "show", "team"]).await?;
    assert_eq!(shown[0].members, ["alice", "emil"]);
    world.nodes.big.run(&["person", "remove", "emil"]).await?;
    world.nodes.big.run(&["shadow", "remove", "zoe"]).await?;
    for gone in ["emil@example.com", "zoe@example.com"] {
        takes(&world, gone, 550).await?;
    }
    let again = world.receive(&["team@example.com"], &letter("team@example.com", 2)).await?;
    world.desk("alice").filed(Folder::In, &again).await?;
    world.quiet().await?;
    assert_eq!(outside(&world, "zoe@remote.example", 2).await?.len(), 2, "no more for her");
    world.well().await?;
    world.end().await
}

/// How many messages are in a folder.
async fn reports(desk: &Desk, folder: Folder) -> Result<usize, Trouble> {
    Ok(desk.messages(folder).await?.len())
}

#[tokio::test]
async fn forwarded_mail_keeps_a_copy_and_its_failures_come_home() -> Result<(), Trouble> {
    let world = world().await?;
    let message = letter("dora@example.com", 1);
    let id = world.receive(&["dora@example.com"], &message).await?;
    world.desk("dora").filed(Folder::In, &id).await?;
    let out = outside(&world, "dora@remote.example", 1).await?;
    let path = out[0].reverse_path.clone();
    assert!(path.starts_with("srs0+") && path.ends_with("=remote.example=carol@example.com"), "{path}");

    // The host that has it gives up later, and says so to the reverse-path.
    let bounce = b"From: MAILER-DAEMON@remote.example\r\nSubject: no room\r\n\r\nIt did not fit.\r\n";
    world.smtp().await?.send("", &[&path], bounce).await?;
    let home = outside(&world, CAROL, 1).await?;
    assert!(home[0].reverse_path.is_empty() && text_of(&home[0]).contains("It did not fit."));

    // What is not a report, and what we did not make, goes nowhere.
    let postmaster = world.desk("alice");
    let forged = path.replace("carol@", "mallory@");
    world.smtp().await?.send(CAROL, &[&path], bounce).await?;
    world.smtp().await?.send("", &[&forged], bounce).await?;
    until("both are undeliverable", SOON, async || {
        Ok((reports(&postmaster, Folder::Undeliverable).await? == 2).then_some(()))
    })
    .await?;

    // The host refuses it at once: nobody vouches for carol, so dora is told, and not whoever has that address.
    let refusal = Rule::reply(Stage::Rcpt, 550, "5.2.1 closed for ever").only_for("dora@remote.example");
    world.internet.mta.add_rule(refusal);
    world.receive(&["dora@example.com"], &letter("dora@example.com", 2)).await?;
    let dora = world.desk("dora");
    let told = dora.arrival(Folder::In, "the report", |line| line.subject != "for the directory").await?;
    let report = String::from_utf8_lossy(&dora.raw(&told.id).await?).into_owned();
    assert!(report.contains("Status: 5.2.1") && report.contains("multipart/report"), "{report}");
    assert!(report.contains("Final-Recipient: rfc822; dora@remote.example"), "{report}");
    assert_eq!(outside(&world, CAROL, 1).await?.len(), 1, "carol has what came home, and no more");

    let change = ["person", "set", "dora", "--no-forward", "--pop3", "no", "--display", "Dora Inside"];
    let changed: PersonView = world.nodes.big.json(&change).await?;
    assert_eq!((changed.forward.len(), changed.display.as_str()), (0, "Dora Inside"));
    let id = world.receive(&["dora@example.com"], &letter("dora@example.com", 3)).await?;
    world.desk("dora").filed(Folder::In, &id).await?;
    world.quiet().await?;
    assert_eq!(
        world
            .internet
            .mta
            .mail()
            .iter()
            .filter(|mail| mail.recipients.iter().any(|to| to == "dora@remote.example"))
            .count(),
        1
    );
    let refused = world.nodes.big.run(&["travel", "start", "dora", "--until", "standing"]).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("--pop3 yes")));
    world.end().await
}

/// Whatever way a message came by, its answer goes to who wrote it, and no address is typed.
#[tokio::test]
async fn answers_to_what_came_through_a_group_a_forward_and_a_shadow_need_no_address() -> Result<(), Trouble>
{
    let world = world().await?;
    for (number, (to, reader)) in (1..).zip([("board@example.com", "emil"), ("dora@example.com", "dora")]) {
        let id = world.receive(&[to], &letter(to, number)).await?;
        let desk = world.desk(reader);
        desk.filed(Folder::In, &id).await?;
        desk.reply(&id, &format!("an answer by {reader}")).await?;
        let answers = outside(&world, CAROL, usize::try_from(number)?).await?;
        let answer =
            answers.iter().map(text_of).find(|text| text.contains(&format!("an answer by {reader}")));
        let answer = answer.ok_or("no answer")?;
        assert!(answer.contains(&format!("{reader}@example.com")), "{answer}");
    }
    // Somebody outside who has a name here writes, and is answered where they are.
    let zoe = "zoe@remote.example";
    let mut session = world.smtp().await?;
    let hello = format!("From: Zoe <{zoe}>\r\nTo: {ALICE}\r\nSubject: hello\r\n\r\nhello\r\n");
    let reply = session.send(zoe, &[ALICE], hello.as_bytes()).await?;
    let id = accepted_as(&reply).ok_or("no id")?;
    let desk = world.desk("alice");
    desk.filed(Folder::In, &id).await?;
    desk.reply(&id, "to zoe").await?;
    // She is on the board, too.
    let answers = outside(&world, zoe, 2).await?;
    assert!(answers.iter().map(text_of).any(|text| text.contains("to zoe")));
    drop(session);
    world.end().await
}
