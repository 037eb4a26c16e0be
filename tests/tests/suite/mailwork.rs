//! What a person does with mail: answer, send on, change and return, write in peace, file, find; and what becomes of
//! it outside and at home.

use std::sync::Arc;

use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::{DraftSaved, DraftView, FolderView, Found, Line, Reading, Sent, Watched};
use shared::mime::{self, HeaderFacts, Mailbox};
use tests::internet::mta::Mail;
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, accepted_as};

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

/// A message with a text and two files, in CRLF lines; `fields` stand in its header.
fn with_files(fields: &str, text: &str) -> Vec<u8> {
    format!(
        "{fields}Content-Type: multipart/mixed; boundary=b\n\n--b\n\n{text}\n--b\n\
         Content-Type: application/pdf; name=\"a.pdf\"\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment\n\nJVBERg==\n--b\n\
         Content-Type: image/png; name=\"b.png\"\nContent-Disposition: attachment\n\nPNG\n--b--\n"
    )
    .replace('\n', "\r\n")
    .into_bytes()
}

fn addresses(list: &[Mailbox]) -> Vec<&str> {
    list.iter().map(|mailbox| mailbox.address.as_str()).collect()
}

fn names(message: &[u8]) -> Vec<String> {
    mime::attachments(message).into_iter().filter_map(|attachment| attachment.name).collect()
}

/// Waits until a message for `to` has left, and gives its octets.
async fn left_for(world: &World, to: &str) -> Result<Vec<u8>, Trouble> {
    let is_for = |mail: &Arc<Mail>| mail.recipients.iter().any(|recipient| recipient == to);
    let mail = world.internet.mta.wait_until(SOON, |mail| mail.iter().any(is_for)).await?;
    Ok(mail.iter().find(|mail| is_for(mail)).ok_or("it was there")?.data.clone())
}

async fn marks(world: &World, folder: Folder, id: &str) -> Result<(bool, bool), Trouble> {
    let line = world.desk("alice").filed(folder, id).await?;
    Ok((line.answered, line.forwarded))
}

const QUESTION: &str = "From: Carol <carol@remote.example>\nReply-To: office@remote.example\n\
    To: alice@example.com, dan@elsewhere.example\nCc: bob@example.com\nSubject: Plan\n\
    Message-ID: <plan@remote.example>\nReferences: <first@remote.example>\n\
    Date: Mon, 2 Nov 2026 09:00:00 +0000\n";

#[tokio::test]
async fn answers_and_what_is_sent_on_arrive_as_they_should() -> Result<(), Trouble> {
    let world = world().await?;
    let big = &world.nodes.big;
    let id = world.receive(&[ALICE], &with_files(QUESTION, "Shall we?\n-- \nCarol")).await?;
    world.desk("alice").filed(Folder::In, &id).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("map.txt");
    std::fs::write(&file, "here")?;
    let file = file.to_str().ok_or("UTF-8")?;

    let reply = ["mail", "reply", &id, "--as", "alice", "--all", "--quote", "--attach", file];
    let sent: Sent = big.json_with(&reply, b"Yes.").await?;
    let mut to: Vec<_> = sent.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, [BOB, "dan@elsewhere.example", "office@remote.example"]);
    let arrived = left_for(&world, "office@remote.example").await?;
    let facts = HeaderFacts::of(&arrived);
    assert_eq!(addresses(&facts.to), ["office@remote.example"]);
    assert_eq!(addresses(&facts.cc), ["dan@elsewhere.example", BOB]);
    assert_eq!(facts.subject.as_deref(), Some("Re: Plan"));
    assert_eq!(facts.in_reply_to, ["plan@remote.example"]);
    assert_eq!(facts.references, ["first@remote.example", "plan@remote.example"]);
    let text = mime::text_of(&arrived);
    assert!(
        text.starts_with(
            "Yes.\n\nOn 2026-11-02 09:00 UTC, Carol <carol@remote.example> wrote:\n> Shall we?\n"
        ),
        "{text}"
    );
    assert!(!text.contains("> -- "), "without the signature: {text}");
    assert_eq!(names(&arrived), ["map.txt"]);
    assert_eq!(marks(&world, Folder::In, &id).await?, (true, false));

    let forward = ["mail", "forward", &id, "--as", "alice", "--to", "x@remote.example", "--without", "2"];
    big.run_with(&forward, b"See below.").await?;
    let arrived = left_for(&world, "x@remote.example").await?;
    let facts = HeaderFacts::of(&arrived);
    assert_eq!((facts.subject.as_deref(), facts.in_reply_to.len()), (Some("Fwd: Plan"), 0));
    assert_eq!(facts.references, ["first@remote.example", "plan@remote.example"]);
    let text = mime::text_of(&arrived);
    for part in [
        "See below.\n\n---------- Forwarded",
        "From: Carol <carol@remote.example>\nDate: 2026-11-02",
        "Shall we?",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let [pdf] = mime::attachments(&arrived).try_into().map_err(|_| "one attachment")?;
    assert_eq!((pdf.name.as_deref(), pdf.content_type.as_str()), (Some("a.pdf"), "application/pdf"));
    assert_eq!(mime::open(&arrived, pdf.index).ok_or("it opens")?.octets, b"%PDF");
    assert_eq!(marks(&world, Folder::In, &id).await?, (true, true));

    let whole = [
        "mail",
        "forward",
        &id,
        "--as",
        "alice",
        "--to",
        "y@remote.example",
        "--as-attachment",
        "--text",
        "x",
    ];
    big.run(&whole).await?;
    let arrived = left_for(&world, "y@remote.example").await?;
    let [attached] = mime::attachments(&arrived).try_into().map_err(|_| "one attachment")?;
    assert_eq!(
        (attached.name.as_deref(), attached.content_type.as_str()),
        (Some("Plan.eml"), "message/rfc822")
    );
    let original = mime::open(&arrived, attached.index).ok_or("it opens")?.octets;
    assert_eq!(original, with_files(QUESTION, "Shall we?\n-- \nCarol"), "as it came");

    for (arguments, reason) in [
        (
            &["mail", "forward", &id, "--to", "x@remote.example", "--without", "3", "--text", "x"][..],
            "has no attachment 3; it has 2",
        ),
        (&["mail", "reply", &id, "--list", "--text", "x"], "of no mailing list"),
        (&["mail", "forward", &id, "--to", "nobody-here", "--text", "x"], "nobody here is called"),
    ] {
        let refused = big.run(&[arguments, &["--as", "alice"]].concat()).await.expect_err("refused");
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    world.end().await
}

#[tokio::test]
async fn a_changed_message_goes_back_or_on_with_every_change_marked() -> Result<(), Trouble> {
    let world = world().await?;
    let big = &world.nodes.big;
    let id = world.receive(&[ALICE], &with_files(QUESTION, "We meet at one.\nBring the map.")).await?;
    world.desk("alice").filed(Folder::In, &id).await?;
    big.run_with(&["mail", "return", &id, "--as", "alice"], b"We meet at two.\nBring the map.\n").await?;
    let arrived = left_for(&world, "office@remote.example").await?;
    let facts = HeaderFacts::of(&arrived);
    assert_eq!(facts.subject.as_deref(), Some("Re: Plan"));
    assert_eq!(facts.in_reply_to, ["plan@remote.example"]);
    let text = mime::text_of(&arrived);
    assert!(text.starts_with("[Changed by Alice, "), "{text}");
    assert!(text.contains("\nFrom: Carol <carol@remote.example>\n"), "{text}");
    assert!(text.ends_with("\n\n- We meet at one.\n+ We meet at two.\n  Bring the map.\n"), "{text}");
    assert_eq!(names(&arrived), ["a.pdf", "b.png"]);
    assert_eq!(marks(&world, Folder::In, &id).await?, (true, false));

    let on =
        ["mail", "return", &id, "--as", "alice", "--to", "bob", "--without", "1", "--subject", "Our plan"];
    let sent: Sent = big.json_with(&on, b"We meet at two.").await?;
    let bobs = world.desk("bob").raw(&sent.id).await?;
    assert_eq!(
        (HeaderFacts::of(&bobs).subject.as_deref(), names(&bobs)),
        (Some("Our plan"), vec!["b.png".to_owned()])
    );
    assert_eq!(marks(&world, Folder::In, &id).await?, (true, true));
    let same = b"We meet at one.\nBring the map.\n";
    let refused = big.run_with(&["mail", "return", &id, "--as", "alice"], same).await;
    assert!(refused.expect_err("refused").to_string().contains("the text is as it was"));
    world.end().await
}

#[tokio::test]
async fn a_draft_survives_and_is_sent_once() -> Result<(), Trouble> {
    let mut world = world().await?;
    let id = world.receive(&[ALICE], &with_files(QUESTION, "Shall we?")).await?;
    world.desk("alice").filed(Folder::In, &id).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("map.bin");
    std::fs::write(&file, [0, 1, 2, 255])?;
    let file = file.to_str().ok_or("UTF-8")?;
    let save = ["mail", "draft", "save", "--as", "alice"];
    let first =
        [&save[..], &["--to", "not yet anybody", "--subject", "Gr\u{fc}\u{df}e", "--attach", file]].concat();
    let draft: DraftSaved = world.nodes.big.json_with(&first, "caf\u{e9}".as_bytes()).await?;
    let refused = world.nodes.big.run(&["mail", "draft", "send", &draft.id, "--as", "alice"]).await;
    assert!(refused.expect_err("refused").to_string().contains("nobody here is called not yet anybody"));
    world.nodes.kill(Node::Big).await?;
    world.nodes.start_big().await?;
    world.linked().await?;

    let big = &world.nodes.big;
    let shown: DraftView = big.json(&["mail", "draft", "show", &draft.id, "--as", "alice"]).await?;
    assert_eq!(
        (shown.to, shown.subject, shown.text),
        (vec!["not yet anybody".into()], "Gr\u{fc}\u{df}e".into(), "caf\u{e9}\n".into())
    );
    assert_eq!(shown.parts[0].name.as_deref(), Some("map.bin"));
    let listed = world.desk("alice").messages(Folder::Drafts).await?;
    assert_eq!((listed.len(), listed[0].to.clone()), (1, vec!["not yet anybody".to_owned()]));
    let status = big.run(&["mail", "status", &draft.id, "--as", "alice"]).await;
    assert!(status.is_err(), "it was not sent");

    let change =
        [&save[..], &["--draft", &draft.id, "--keep", "1", "--reply", &id, "--text", "Yes."]].concat();
    let again: DraftSaved = big.json(&change).await?;
    assert_eq!(again.id, draft.id);
    let sent: Sent = big.json(&["mail", "draft", "send", &draft.id, "--as", "alice"]).await?;
    assert_eq!(sent.recipients[0].address, "office@remote.example", "an answer goes where it belongs");
    let arrived = left_for(&world, "office@remote.example").await?;
    let facts = HeaderFacts::of(&arrived);
    assert_eq!(
        (facts.subject.as_deref(), facts.in_reply_to),
        (Some("Re: Plan"), vec!["plan@remote.example".to_owned()])
    );
    let [map] = mime::attachments(&arrived).try_into().map_err(|_| "one attachment")?;
    assert_eq!(mime::open(&arrived, map.index).ok_or("it opens")?.octets, [0, 1, 2, 255]);
    assert_eq!(marks(&world, Folder::In, &id).await?, (true, false));
    assert!(world.desk("alice").messages(Folder::Drafts).await?.is_empty());
    let twice = big.run(&["mail", "draft", "send", &draft.id, "--as", "alice"]).await;
    assert!(twice.is_err(), "it is sent once");

    let other: DraftSaved = big.json(&[&save[..], &["--text", "never mind"]].concat()).await?;
    for place in [Folder::Trash, Folder::Drafts] {
        big.run(&["mail", "delete", &other.id, "--as", "alice"]).await?;
        assert_eq!(
            world.desk("alice").messages(Folder::Trash).await?.len(),
            usize::from(place == Folder::Trash)
        );
    }
    world.end().await
}

#[tokio::test]
async fn mail_is_filed_found_and_seen_in_its_conversation() -> Result<(), Trouble> {
    let world = world().await?;
    let big = &world.nodes.big;
    let desk = world.desk("alice");
    let before: Watched = big.json(&["mail", "watch", "--as", "alice"]).await?;
    let html = "From: carol@remote.example\r\nSubject: Caf\r\nMessage-ID: <h@x>\r\nContent-Type: text/html\r\n\r\n\
        <p>See <a href=\"https://x.example/plan\">the plan</a></p><script>hidden()</script>\r\n";
    let seen = before.mark.to_string();
    let watching = ["mail", "watch", "--as", "alice", "--seen", &seen];
    let (after, id) = tokio::join!(big.json::<Watched>(&watching), world.receive(&[ALICE], html.as_bytes()));
    let (after, id) = (after?, id?);
    assert_ne!(after.mark, before.mark, "it waits until something is there");
    desk.filed(Folder::In, &id).await?;
    let reading = big.run(&["mail", "read", &id, "--as", "alice"]).await?;
    assert!(
        reading.contains("See the plan <https://x.example/plan>") && !reading.contains("hidden"),
        "{reading}"
    );
    big.run(&["mail", "mark", &id, "--as", "alice", "--unread"]).await?;
    assert!(!desk.filed(Folder::In, &id).await?.read);

    let folders: Vec<FolderView> = big.json(&["mail", "folder", "add", "Travel", "--as", "alice"]).await?;
    assert_eq!(folders.last().map(|folder| (folder.name.as_str(), folder.own)), Some(("Travel", true)));
    big.run(&["mail", "move", &id, "travel", "--as", "alice"]).await?;
    let list: Vec<Line> = big.json(&["mail", "list", "--folder", "Travel", "--as", "alice"]).await?;
    assert_eq!((list.len(), list[0].folder.as_str()), (1, "Travel"));
    let full = big.run(&["mail", "folder", "remove", "Travel", "--as", "alice"]).await;
    assert!(full.expect_err("refused").to_string().contains("is not empty"));
    let alike = big.run(&["mail", "folder", "add", "S\u{435}nt", "--as", "alice"]).await;
    assert!(alike.expect_err("refused").to_string().contains("looks the same"));

    // A conversation: carol's page, alice's answer, an answer to that.
    let sent = desk.reply(&id, "Gr\u{fc}\u{df}e aus Z\u{fc}rich").await?;
    let own = HeaderFacts::of(&desk.raw(&sent.id).await?).message_id.ok_or("a Message-ID")?;
    let next = format!(
        "From: carol@remote.example\r\nSubject: Re: Caf\r\nMessage-ID: <n@x>\r\nIn-Reply-To: <{own}>\r\n\r\nfine\r\n"
    );
    let next = world.receive(&[ALICE], next.as_bytes()).await?;
    desk.filed(Folder::In, &next).await?;
    let thread: Vec<Line> = big.json(&["mail", "thread", &sent.id, "--as", "alice"]).await?;
    let told: Vec<_> = thread.iter().map(|line| (line.id.clone(), line.depth, line.folder.clone())).collect();
    let expected = [(&id, 0, "Travel"), (&sent.id, 1, "sent"), (&next, 2, "in")];
    assert_eq!(told, expected.map(|(id, depth, folder)| (id.clone(), depth, folder.to_owned())));
    for (words, folder, expected) in [
        (&["GRUSSE"][..], None, &[][..]),
        (&["gru\u{df}e", "zurich"], None, &[&sent.id]),
        (&["plan", "carol"], None, &[&id]),
        (&["caf"], None, &[&next, &sent.id, &id]),
        (&["caf"], Some("travel"), &[&id]),
        (&["hidden"], None, &[]),
    ] {
        let folder = folder.map_or(vec![], |folder| vec!["--folder", folder]);
        let search = [&["mail", "search"][..], words, &["--as", "alice"], &folder].concat();
        let found: Found = big.json(&search).await?;
        let ids: Vec<_> = found.lines.iter().map(|line| &line.id).collect();
        assert_eq!(ids, expected, "{words:?}");
        assert_eq!(found.behind, None);
    }
    world.end().await
}

#[tokio::test]
async fn a_relay_that_rewrites_message_ids_breaks_no_conversation() -> Result<(), Trouble> {
    let world = world().await?;
    let desk = world.desk("alice");
    let sent = desk.send(CAROL, "Lunch", "At one?").await?;
    world.internet.mta.wait_for(1, SOON).await?;
    let mut last = String::new();
    for (subject, own) in [("SV: Lunch", "1@remote.example"), ("something else", "2@remote.example")] {
        let answer = format!(
            "From: carol@remote.example\r\nTo: alice@example.com\r\nSubject: {subject}\r\nMessage-ID: <{own}>\r\n\
             In-Reply-To: <rewritten.by@relay.example>\r\n\r\nYes\r\n"
        );
        last = world.receive(&[ALICE], answer.as_bytes()).await?;
        assert_eq!(desk.filed(Folder::In, &last).await?.thread, sent.id, "{subject}");
    }
    until("the question is marked answered", SOON, async || {
        Ok(desk.filed(Folder::Sent, &sent.id).await?.answered.then_some(()))
    })
    .await?;
    assert_eq!(desk.read(&last).await?.parent, Some(sent.id));
    world.end().await
}

#[tokio::test]
async fn an_answer_from_the_road_is_in_the_conversation_at_home() -> Result<(), Trouble> {
    let world = world().await?;
    let desk = world.desk("alice");
    let trip = desk.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let question = format!("{QUESTION}\nShall we?\n").replace('\n', "\r\n");
    let id = world.receive(&[ALICE], question.as_bytes()).await?;
    desk.filed(Folder::In, &id).await?;
    let answer = "From: Alice <alice@example.com>\r\nTo: office@remote.example\r\nSubject: Re: Plan\r\n\
        Message-ID: <road@laptop>\r\nIn-Reply-To: <plan@remote.example>\r\n\
        References: <first@remote.example> <plan@remote.example>\r\n\r\nYes, from the train.\r\n";
    let forward = "From: Alice <alice@example.com>\r\nTo: bob@example.com\r\nSubject: Fwd: Plan\r\n\
        Message-ID: <road2@laptop>\r\nReferences: <plan@remote.example>\r\n\r\nSee below.\r\n";
    let mut session = world.submission(&trip.user, &trip.password).await?;
    let reply = session.send(ALICE, &["office@remote.example"], answer.as_bytes()).await?;
    let answer = accepted_as(&reply).ok_or("no id")?;
    let filed = desk.filed(Folder::Sent, &answer).await?;
    assert_eq!(filed.thread, id);
    assert_eq!(marks(&world, Folder::In, &id).await?, (true, false), "in the commit that files the answer");
    let reply = session.send(ALICE, &[BOB], forward.as_bytes()).await?;
    desk.filed(Folder::Sent, &accepted_as(&reply).ok_or("no id")?).await?;
    assert_eq!(marks(&world, Folder::In, &id).await?, (true, true));
    session.quit().await?;
    let thread: Vec<Line> = world.nodes.big.json(&["mail", "thread", &id, "--as", "alice"]).await?;
    assert_eq!(thread.iter().map(|line| line.depth).collect::<Vec<_>>(), [0, 1, 1]);
    world.end().await
}

#[tokio::test]
async fn what_a_gateway_has_brought_is_answered_by_it() -> Result<(), Trouble> {
    let mut world = world().await?;
    let folder = tempfile::tempdir()?;
    let (out, back) = (folder.path().join("out"), folder.path().join("back"));
    std::fs::create_dir(&out)?;
    std::fs::create_dir(&back)?;
    let (drop_dir, pickup) = (out.to_str().ok_or("UTF-8")?, back.to_str().ok_or("UTF-8")?);
    let add = ["gateway", "add", "files", "--drop", drop_dir, "--pickup", pickup, "--domain", "app.example"];
    world.nodes.big.run(&add).await?;
    // Its sandbox has the folders from then on.
    world.nodes.stop(Node::Big).await?;
    world.nodes.start_big().await?;
    // Nobody but the system behind the gateway knows where that address is.
    let message =
        b"From: Clerk <clerk@ledger.invalid>\r\nTo: alice@example.com\r\nSubject: Balance\r\n\r\ntext\r\n";
    std::fs::write(back.join("1.eml"), message)?;
    let envelope = serde_json::json!({
        "reverse_path": "clerk@ledger.invalid", "recipients": [ALICE], "size": message.len()
    });
    std::fs::write(back.join(".1.json"), envelope.to_string())?;
    std::fs::rename(back.join(".1.json"), back.join("1.json"))?;
    let desk = world.desk("alice");
    let line = desk.arrival(Folder::In, "it came", |line| line.subject == "Balance").await?;
    let sent = desk.reply(&line.id, "Thanks").await?;
    assert_eq!(sent.recipients[0].gateway.as_deref(), Some("files"));
    let envelope = until("the answer is handed over", SOON, async || {
        Ok(std::fs::read(out.join(format!("{}.json", sent.id))).ok())
    })
    .await?;
    let envelope: serde_json::Value = serde_json::from_slice(&envelope)?;
    assert_eq!(envelope["recipients"], serde_json::json!(["clerk@ledger.invalid"]));
    // And to one's own message that went there, too.
    let again = desk.reply(&sent.id, "One thing more").await?;
    assert_eq!(again.recipients[0].gateway.as_deref(), Some("files"));
    // A message without a Message-ID is answered in its conversation all the same.
    let reading: Reading = desk.read(&again.id).await?;
    assert_eq!(reading.parent.as_deref(), Some(sent.id.as_str()));
    assert_eq!(desk.filed(Folder::Sent, &again.id).await?.thread, line.id);
    world.end().await
}
