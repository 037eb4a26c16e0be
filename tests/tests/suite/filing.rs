//! Filing: a message from outside with awkward attachments, broken apart, saved, passed through; and a
//! report that leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::Saved;
use shared::mime;
use shared::topology::AttachmentMode;
use tests::process::{Node, Program, finish};
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, CAROL, World, without_trace};

const DORA: &str = "dora@example.com";
const WITHIN: Duration = Duration::from_secs(60);

/// What is attached: how its name is written, how it reads, how it is saved, and its content.
const ATTACHED: [(&[u8], &str, &str, &[u8]); 8] = [
    (
        b"attachment;\r\n filename*0*=UTF-8''..%2F..%2Fna%C3%AFve;\r\n filename*1*=%20plan.pdf",
        "../../na\u{ef}ve plan.pdf",
        "_.._na\u{ef}ve plan.pdf",
        b"%PDF-1.7",
    ),
    (
        b"attachment;\r\n filename=\"=?utf-8?B?R3LDtsOfZQ==?=.txt\"",
        "Gr\u{f6}\u{df}e.txt",
        "Gr\u{f6}\u{df}e.txt",
        b"one\r\n",
    ),
    (b"attachment; filename=\"caf\xe9.txt\"", "caf\u{e9}.txt", "caf\u{e9}.txt", b"two\r\n"),
    (b"inline", "", "attachment-4.bin", b"\x00\xff\x00"),
    (b"attachment; filename=\"CON.txt\"", "CON.txt", "_CON.txt", b"three"),
    (b"attachment; filename=\".bashrc\"", ".bashrc", "bashrc", b"rm -rf"),
    (b"attachment; filename=\"same.txt\"", "same.txt", "same.txt", b"four"),
    (b"attachment; filename=\"same.txt\"", "same.txt", "same (2).txt", b"five"),
];
/// A message that is attached as well, the ninth.
const INNER: &[u8] = b"From: Erin <erin@remote.example>\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n\
    Content-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\n\r\nas promised\r\n--inner\r\n\
    Content-Type: image/png; name=\"inner.png\"\r\n\r\nPNG\r\n--inner--\r\n";

fn message() -> Vec<u8> {
    let mut message = format!(
        "From: {CAROL}\r\nTo: {ALICE}\r\nSubject: papers\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"=_outer\"\r\n\r\nfor old programs\r\n\
         --=_outer\r\nContent-Type: text/plain\r\n\r\nThe papers, as agreed.\r\n"
    )
    .into_bytes();
    for (disposition, _, _, content) in ATTACHED {
        message.extend_from_slice(b"\r\n--=_outer\r\nContent-Type: application/octet-stream\r\n");
        message.extend_from_slice(b"Content-Transfer-Encoding: base64\r\nContent-Disposition: ");
        message.extend_from_slice(disposition);
        message.extend_from_slice(format!("\r\n\r\n{}\r\n", BASE64.encode(content)).as_bytes());
    }
    message.extend_from_slice(b"\r\n--=_outer\r\nContent-Type: message/rfc822\r\n\r\n");
    message.extend_from_slice(INNER);
    message.extend_from_slice(b"\r\n--=_outer--\r\nafter the last\r\n");
    message
}

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

/// The names of a message's parts in a person's list.
async fn parts(world: &World, person: &str, id: &str) -> Result<Vec<String>, Trouble> {
    let lines = world.desk(person).list(Folder::In).await?;
    let parts = lines.into_iter().filter(|line| line.part > 0 && line.id == format!("{id}.{}", line.part));
    Ok(parts.map(|line| line.subject).collect())
}

fn names_in(folder: &Path) -> Result<Vec<String>, Trouble> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[tokio::test]
async fn a_message_is_broken_apart_or_passed_through_as_its_reader_has_it() -> Result<(), Trouble> {
    let mut world = world().await?;
    world.nodes.big.run(&["person", "add", "dora", "--attachments", "passthru"]).await?;
    until("the edge knows dora", SOON, async || Ok((world.rcpt(DORA).await? == 250).then_some(()))).await?;
    let trip = world.desk("bob").travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&trip.user, &trip.password).await?.quit().await?;
    let message = message();
    let id = world.receive(&[ALICE, BOB, DORA], &message).await?;
    for person in ["alice", "bob", "dora"] {
        world.desk(person).filed(Folder::In, &id).await?;
    }
    let mut names: Vec<_> = ATTACHED.iter().map(|(_, name, _, _)| (*name).to_owned()).collect();
    names.push(String::new());

    assert_eq!(parts(&world, "alice", &id).await?, names);
    assert!(parts(&world, "dora", &id).await?.is_empty());
    let mut session = until("the copy is in the maildrop", SOON, async || {
        let mut session = world.pop3s(&trip.user, &trip.password).await?;
        if session.stat().await?.0 == 1 {
            return Ok(Some(session));
        }
        session.quit().await?;
        Ok(None)
    })
    .await?;
    assert!(without_trace(&session.retr(1).await?) == message, "bytes out are bytes in");
    session.quit().await?;

    world.nodes.topology.attachments = AttachmentMode::Passthru;
    restart_big(&mut world).await?;
    assert!(parts(&world, "alice", &id).await?.is_empty(), "the site's mode is what alice follows");
    for person in ["alice", "dora"] {
        assert!(without_trace(&world.desk(person).raw(&id).await?) == message);
    }
    world.nodes.topology.attachments = AttachmentMode::BreakApart;
    restart_big(&mut world).await?;
    assert_eq!(parts(&world, "alice", &id).await?, names, "and back");
    assert!(parts(&world, "dora", &id).await?.is_empty(), "dora has chosen");

    for (person, mode, shown) in
        [("dora", "break-apart", &names), ("alice", "passthru", &Vec::new()), ("alice", "site", &names)]
    {
        world.nodes.big.run(&["person", "set", person, "--attachments", mode]).await?;
        assert_eq!(&parts(&world, person, &id).await?, shown, "{person} has chosen {mode}");
    }
    Ok(())
}

async fn restart_big(world: &mut World) -> Result<(), Trouble> {
    world.nodes.topology.write()?;
    world.nodes.kill(Node::Big).await?;
    world.nodes.start_big().await?;
    Ok(())
}

#[tokio::test]
async fn attachments_are_saved_where_they_are_told_and_nowhere_else() -> Result<(), Trouble> {
    let world = world().await?;
    let id = world.receive(&[ALICE], &message()).await?;
    let desk = world.desk("alice");
    desk.filed(Folder::In, &id).await?;

    let attached = desk.read(&format!("{id}.9")).await?;
    assert_eq!((attached.subject.as_str(), attached.text.trim()), ("Gr\u{fc}\u{df}e", "as promised"));
    assert_eq!(attached.from, ["Erin <erin@remote.example>"]);
    assert_eq!(desk.raw(&format!("{id}.9")).await?, INNER);
    assert_eq!(desk.raw(&format!("{id}.9.1")).await?, b"PNG");

    let outside = tempfile::tempdir()?;
    let folder = outside.path().join("folder");
    fs::create_dir(&folder)?;
    let to = folder.to_str().ok_or("UTF-8")?;
    let saved: Vec<Saved> =
        world.nodes.big.json(&["mail", "save", &id, "--as", "alice", "--all", "--to", to]).await?;
    let expected: Vec<_> = ATTACHED.iter().map(|(_, _, name, content)| (*name, *content)).collect();
    let expected = [expected, vec![("message-9.eml", INNER)]].concat();
    assert_eq!(saved.len(), expected.len());
    for (file, (name, content)) in saved.iter().zip(&expected) {
        let path = folder.join(name);
        assert_eq!((Path::new(&file.path), file.bytes), (path.as_path(), content.len() as u64));
        assert_eq!(fs::read(&path)?, *content, "{name}");
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    }
    let mut names: Vec<_> = expected.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    assert_eq!(names_in(&folder)?, names, "and nothing else");
    assert_eq!(names_in(outside.path())?, ["folder"]);

    // By the process of the command: where it stands, and as often as it is asked.
    let standing = outside.path().join("standing");
    fs::create_dir(&standing)?;
    for part in [format!("{id}.5"), format!("{id}.5"), format!("{id}.9.1")] {
        let mut command = world.nodes.big.command(&["mail", "save", &part, "--as", "alice"]);
        command.current_dir(&standing);
        let done = finish(command, b"", WITHIN).await?;
        assert!(done.status.success(), "{}", done.stderr);
    }
    assert_eq!(names_in(&standing)?, ["_CON (2).txt", "_CON.txt", "inner.png"]);

    let absent = outside.path().join("absent");
    let absent = absent.to_str().ok_or("UTF-8")?;
    for (arguments, reason) in [
        (&["save", &id][..], "it has 9 attachments: choose with --part N, or --all"),
        (&["save", &id, "--part", "10"], "has no attachment 10"),
        (&["save", &format!("{id}.5.1")], "has no attachment 5.1"),
        (&["save", &id, "--all", "--to", absent], "there is no such folder; make it first"),
        (&["read", &format!("{id}.10")], "it has 9; `mail read"),
    ] {
        let refused = world.nodes.big.run(&[&["mail"], arguments, &["--as", "alice"]].concat()).await;
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
    }
    Ok(())
}

#[tokio::test]
async fn a_report_arrives_outside_as_what_it_is() -> Result<(), Trouble> {
    let world = world().await?;
    let folder = tempfile::tempdir()?;
    let listing = folder.path().join("PAYROLL.LIST");
    // HELLO and TOTAL[1], records of eight in code page 1047.
    fs::write(&listing, b"\xc8\xc5\xd3\xd3\xd6\x40\x40\x40\xe3\xd6\xe3\xc1\xd3\xad\xf1\xbd")?;
    let dump = folder.path().join("dump.bin");
    let octets: Vec<u8> = (0..=255).collect();
    fs::write(&dump, &octets)?;
    let (listing, dump) = (listing.to_str().ok_or("UTF-8")?, dump.to_str().ok_or("UTF-8")?);
    let send = ["mail", "send", "--as", "alice", "--to", CAROL, "--subject", "report", "--text", "see"];
    let converted = ["--report", listing, "--ebcdic", "1047", "--record-length"];
    world.nodes.big.run(&[&send[..], &converted, &["8"]].concat()).await?;
    world.nodes.big.run(&[&send[..], &["--report", dump, "--name", "Gr\u{f6}\u{df}e.bin"]].concat()).await?;
    let mut arrived = Vec::new();
    for mail in world.internet.mta.wait_for(2, SOON).await? {
        assert!(mail.data.is_ascii());
        let [report] = mime::attachments(&mail.data).try_into().map_err(|_| "one attachment")?;
        let content = mime::open(&mail.data, report.index).ok_or("it can be opened")?.octets;
        arrived.push((report.name.unwrap_or_default(), report.content_type, content));
    }
    arrived.sort();
    let expected = [
        ("Gr\u{f6}\u{df}e.bin".to_owned(), "application/octet-stream".to_owned(), octets),
        ("PAYROLL.LIST.txt".to_owned(), "text/plain".to_owned(), b"HELLO\r\nTOTAL[1]\r\n".to_vec()),
    ];
    assert_eq!(arrived, expected);

    let refused = world.nodes.big.run(&[&send[..], &converted, &["5"]].concat()).await;
    let refused = refused.expect_err("no records").to_string();
    assert!(refused.contains("16 octets are not whole records of 5"), "{refused}");
    Ok(())
}
